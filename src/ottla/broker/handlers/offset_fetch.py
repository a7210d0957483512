"""OffsetFetch: where groups are in their partitions; -1 where they have committed nothing.

v1 has no error for the whole group, so it stands with each partition; v2 one group's error, and null topics
for all that it has; v3 throttle time; v5 leader epochs; v6 flexible; v7 require_stable, which gets
UNSTABLE_OFFSET_COMMIT while an open transaction may still change an offset (KIP-447); v8 many groups
(KIP-709); v9 the consumer protocol's member; v10 topic ids in place of names. A group that does not exist
simply has no offsets.
"""

from __future__ import annotations

from typing import Any

from ottla.broker.context import RequestContext
from ottla.coordinators.requests import NO_OFFSET, FetchedOffset, FetchedTopic, FetchTopic
from ottla.errors import ErrorCode, KafkaError
from ottla.metadata.image import ClusterImage
from ottla.wire.primitives import UUID_ZERO

FIRST_VERSION_WITH_GROUP_ERROR = 2
FIRST_VERSION_WITH_GROUPS = 8
FIRST_VERSION_WITH_TOPIC_IDS = 10


def handle(ctx: RequestContext, request: Any) -> dict[str, Any]:
    require_stable = getattr(request, "require_stable", False)
    if ctx.api_version >= FIRST_VERSION_WITH_GROUPS:
        groups = [_fetch(ctx, group, require_stable) for group in request.groups]
        return {"throttle_time_ms": 0, "groups": groups}
    group = _fetch(ctx, request, require_stable)
    error = group["error_code"]
    if error != ErrorCode.none and ctx.api_version < FIRST_VERSION_WITH_GROUP_ERROR:
        group["topics"] = [
            {
                "name": topic.name,
                "partitions": [
                    _partition(FetchedOffset(each, error=error)) for each in topic.partition_indexes
                ],
            }
            for topic in request.topics or ()
        ]
    return {"throttle_time_ms": 0} | group


def _fetch(ctx: RequestContext, group: Any, require_stable: bool) -> dict[str, Any]:
    image = ctx.services.metadata.image
    by_id = ctx.api_version >= FIRST_VERSION_WITH_TOPIC_IDS
    unknown: list[dict[str, Any]] = []
    topics: list[FetchTopic] | None = None
    if group.topics is not None:
        topics = []
        for topic in group.topics:
            resolved = _resolve_id(image, topic) if by_id else _resolve_name(image, topic)
            if resolved is None:
                unknown.append(_unknown_id(topic))
            else:
                topics.append(resolved)
    try:
        fetched = ctx.services.groups.fetch(group.group_id, topics, require_stable=require_stable)
    except KafkaError as error:
        return {"group_id": group.group_id, "error_code": error.code, "topics": []}
    if by_id and topics is None:
        # A topic that is gone has no id to be named by.
        fetched = [
            topic._replace(topic_id=image.topics[topic.topic].topic_id)
            for topic in fetched
            if topic.topic in image.topics
        ]
    return {
        "group_id": group.group_id,
        "error_code": ErrorCode.none,
        "topics": [*map(_topic, fetched), *unknown],
    }


def _resolve_name(image: ClusterImage, topic: Any) -> FetchTopic:
    found = image.topics.get(topic.name)
    topic_id = UUID_ZERO if found is None else found.topic_id
    return FetchTopic(topic.name, topic_id, topic.partition_indexes)


def _resolve_id(image: ClusterImage, topic: Any) -> FetchTopic | None:
    found = image.topics_by_id.get(topic.topic_id)
    return None if found is None else FetchTopic(found.name, found.topic_id, topic.partition_indexes)


def _unknown_id(topic: Any) -> dict[str, Any]:
    error = ErrorCode.unknown_topic_id
    return {
        "topic_id": topic.topic_id,
        "partitions": [_partition(FetchedOffset(each, error=error)) for each in topic.partition_indexes],
    }


def _topic(topic: FetchedTopic) -> dict[str, Any]:
    return {
        "name": topic.topic,
        "topic_id": topic.topic_id,
        "partitions": [_partition(each) for each in topic.partitions],
    }


def _partition(fetched: FetchedOffset) -> dict[str, Any]:
    failed = fetched.error != ErrorCode.none
    return {
        "partition_index": fetched.partition,
        "committed_offset": NO_OFFSET if failed else fetched.offset,
        "committed_leader_epoch": fetched.leader_epoch,
        "metadata": fetched.metadata,
        "error_code": fetched.error,
    }
