"""ListPartitionReassignments: which partitions are on their way to other nodes (KIP-455,
ReplicationControlManager.listPartitionReassignments).

v0. Of those asked for, or of all. What is at rest, or does not exist, is left out.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ottla.broker.context import RequestContext
from ottla.metadata.image import ClusterImage, TopicImage
from ottla.metadata.reassignment import is_reassigning

Fields = dict[str, Any]


def handle(ctx: RequestContext, request: Any) -> Fields:
    image = ctx.services.metadata.image
    topics = []
    for topic, indexes in _asked(image, request):
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
        if partitions:
            topics.append({"name": topic.name, "partitions": partitions})
    return {"throttle_time_ms": 0, "error_code": 0, "error_message": None, "topics": topics}


def _asked(image: ClusterImage, request: Any) -> Iterable[tuple[TopicImage, Iterable[int]]]:
    if request.topics is None:
        return ((topic, range(len(topic.partitions))) for topic in image.topics.values())
    return (
        (image.topics[asked.name], asked.partition_indexes)
        for asked in request.topics
        if asked.name in image.topics
    )
