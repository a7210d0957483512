"""OffsetDelete: forget where a group is in some partitions (KIP-496), which none of its members may read.

v0 only. GROUP_SUBSCRIBED_TO_TOPIC by topic; NON_EMPTY_GROUP where the members speak another protocol than
consumers do, so that their topics are not known; UNKNOWN_TOPIC_OR_PARTITION for what does not exist,
TOPIC_AUTHORIZATION_FAILED without READ on the topic, whether it exists or not.
"""

from __future__ import annotations

from typing import Any

from ottla.broker.large import AT_ONCE_MAX, Fields, Framed, in_pieces, mapped
from ottla.broker.request import RequestContext
from ottla.coordinators.groups.requests import PartitionError
from ottla.errors import ErrorCode
from ottla.security.acl_bindings import Operation, ResourceType


async def handle(ctx: RequestContext, request: Any) -> Fields | Framed:
    topics = ctx.services.metadata.image.topics
    known: list[tuple[str, list[int]]] = []
    outcome: dict[str, list[PartitionError]] = {}
    for done, topic in enumerate(request.topics, 1):
        if done % AT_ONCE_MAX == 0:
            await ctx.services.slices.pause()
        if not ctx.may(Operation.READ, ResourceType.TOPIC, topic.name):
            outcome[topic.name] = [
                PartitionError(each.partition_index, ErrorCode.topic_authorization_failed)
                for each in topic.partitions
            ]
            continue
        count = len(topics[topic.name].partitions) if topic.name in topics else 0
        indexes = [each.partition_index for each in topic.partitions]
        outcome[topic.name] = [
            PartitionError(index, ErrorCode.unknown_topic_or_partition)
            for index in indexes
            if not 0 <= index < count
        ]
        valid = [index for index in indexes if 0 <= index < count]
        if valid:
            known.append((topic.name, valid))
    deleted = await ctx.services.groups.delete_offsets(request.group_id, known)
    if deleted.error != ErrorCode.none:
        return {"error_code": deleted.error, "throttle_time_ms": 0, "topics": []}
    for name, errors in deleted.topics:
        outcome[name] += errors
    fields: Fields = {
        "error_code": ErrorCode.none,
        "throttle_time_ms": 0,
        "topics": [
            {"name": name, "partitions": mapped(_partition, errors)} for name, errors in outcome.items()
        ],
    }
    return await in_pieces(ctx, fields) if sum(map(len, outcome.values())) > AT_ONCE_MAX else fields


def _partition(outcome: PartitionError) -> Fields:
    return {"partition_index": outcome.partition, "error_code": outcome.error}
