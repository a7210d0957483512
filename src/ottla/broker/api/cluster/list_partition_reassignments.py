"""ListPartitionReassignments: which partitions are on their way to other nodes (KIP-455,
ReplicationControlManager.listPartitionReassignments).

v0. Of those asked for, or of all. Partitions without a reassignment, and unknown ones, are left out.
"""

from __future__ import annotations

from collections.abc import Awaitable, Iterable
from typing import Any

from ottla.broker.large import AT_ONCE_MAX, Framed, in_pieces, is_large
from ottla.broker.request import RequestContext
from ottla.metadata.image import ClusterImage, TopicImage
from ottla.metadata.reassignment import is_reassigning

Fields = dict[str, Any]


def handle(ctx: RequestContext, request: Any) -> Fields | Awaitable[Framed]:
    image = ctx.services.metadata.image
    asked = _asked(image, request)
    if is_large(ctx) or (request.topics is None and len(image.topics) > AT_ONCE_MAX):
        return _many(ctx, asked)
    return _fields([fields for topic, indexes in asked if (fields := _topic(topic, indexes))])


async def _many(ctx: RequestContext, asked: Iterable[tuple[TopicImage, Iterable[int]]]) -> Framed:
    topics = []
    for count, (topic, indexes) in enumerate(asked, 1):
        if fields := _topic(topic, indexes):
            topics.append(fields)
        if count % AT_ONCE_MAX == 0:
            await ctx.services.slices.pause()
    return await in_pieces(ctx, _fields(topics))


def _fields(topics: list[Fields]) -> Fields:
    return {"throttle_time_ms": 0, "error_code": 0, "error_message": None, "topics": topics}


def _topic(topic: TopicImage, indexes: Iterable[int]) -> Fields | None:
    """What of a topic is being moved; None where nothing is."""
    partitions = [
        {
            "partition_index": index,
            "replicas": state.replicas,
            "adding_replicas": state.adding_replicas,
            "removing_replicas": state.removing_replicas,
        }
        for index in indexes
        if 0 <= index < len(topic.partitions) and is_reassigning(state := topic.partitions[index])
    ]
    return {"name": topic.name, "partitions": partitions} if partitions else None


def _asked(image: ClusterImage, request: Any) -> Iterable[tuple[TopicImage, Iterable[int]]]:
    if request.topics is None:
        return ((topic, range(len(topic.partitions))) for topic in image.topics.values())
    return (
        (image.topics[asked.name], asked.partition_indexes)
        for asked in request.topics
        if asked.name in image.topics
    )
