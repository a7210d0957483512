"""DescribeTopicPartitions: partitions of topics, a page at a time (KIP-966, KRaftMetadataCache).

v0. Topics come in the order of their names; no topics asked for means all. A page holds as many
partitions as the request and ``max.request.partition.size.limit`` allow, and its cursor says where the
next one begins. Topics that the client may not DESCRIBE are refused where they are named, on each page behind
the others, and left out where all are asked for.
"""

from __future__ import annotations

from typing import Any

from ottla.broker.large import AT_ONCE_MAX, Framed, Pace, allowed, in_pieces
from ottla.broker.request import RequestContext
from ottla.broker.views.cluster import (
    TOPIC_OPERATIONS,
    Fields,
    denied_topic_fields,
    missing_topic_fields,
    partition_fields,
    topic_fields,
)
from ottla.errors import ErrorCode, KafkaError
from ottla.metadata.image import ClusterImage
from ottla.metadata.topics import name_fault
from ottla.security.acl_bindings import Operation, ResourceType


async def handle(ctx: RequestContext, request: Any) -> Fields | Framed:
    image = ctx.services.metadata.image
    cursor = request.cursor
    is_limited = ctx.client.permissions is not None
    hides = is_limited and not request.topics
    names = _names(image, request)
    denied: list[str] = []
    if is_limited and request.topics:
        described = await allowed(ctx, Operation.DESCRIBE, ResourceType.TOPIC, names)
        denied = [name for name in names if name not in described]
        names = [name for name in names if name in described]
    limit = ctx.services.config.get("max.request.partition.size.limit")
    remaining = max(min(limit, request.response_partition_limit), 1)
    topics: list[Fields] = []
    next_cursor = None
    pace = Pace(ctx)
    for name in names:
        if pace.is_over():
            await pace.pause()
        if hides and not ctx.may(Operation.DESCRIBE, ResourceType.TOPIC, name, quietly=True):
            continue
        if remaining == 0:
            next_cursor = {"topic_name": name, "partition_index": 0}
            break
        start = cursor.partition_index if cursor is not None and name == cursor.topic_name else 0
        fields, after = _topic(image, name, ctx.listener, start, remaining)
        operations = ctx.operations(ResourceType.TOPIC, name) if is_limited else TOPIC_OPERATIONS
        topics.append(fields | {"topic_authorized_operations": operations})
        if after is not None:
            next_cursor = {"topic_name": name, "partition_index": after}
            break
        remaining -= len(fields["partitions"])
    topics += map(denied_topic_fields, denied)
    answer: Fields = {"throttle_time_ms": 0, "topics": topics, "next_cursor": next_cursor}
    partitions = sum(len(fields["partitions"]) for fields in topics)
    return await in_pieces(ctx, answer) if partitions + len(topics) > AT_ONCE_MAX else answer


def _names(image: ClusterImage, request: Any) -> list[str]:
    """The topics from the cursor on. KafkaError for a cursor that leads nowhere."""
    cursor = request.cursor
    asked = [topic.name for topic in request.topics]
    first = cursor.topic_name if cursor is not None else ""
    names = sorted({name for name in asked or image.topics if name >= first})
    if cursor is not None:
        if asked and first not in names:
            raise KafkaError(
                ErrorCode.invalid_request,
                f"DescribeTopicPartitionsRequest topic list should contain the cursor topic: {first}",
            )
        if cursor.partition_index < 0:
            raise KafkaError(
                ErrorCode.invalid_request,
                "DescribeTopicPartitionsRequest cursor partition must be valid: "
                f"{first}-{cursor.partition_index}",
            )
    return names


def _topic(
    image: ClusterImage, name: str, listener: str, start: int, remaining: int
) -> tuple[Fields, int | None]:
    """A topic's partitions from ``start`` on, and where to go on if that was not all."""
    topic = image.topics.get(name)
    if topic is None:
        fault = (
            ErrorCode.invalid_topic_exception if name_fault(name) else ErrorCode.unknown_topic_or_partition
        )
        return missing_topic_fields(name, None, fault), None
    end = min(start + remaining, len(topic.partitions))
    partitions = [
        partition_fields(image, topic.partitions[index], index, listener, ErrorCode.leader_not_available)
        | {"error_code": 0}
        for index in range(start, end)
    ]
    return topic_fields(topic, partitions), end if end < len(topic.partitions) else None
