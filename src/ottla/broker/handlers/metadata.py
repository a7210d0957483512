"""Metadata: brokers, and topics with their partitions' leaders (KafkaApis.handleTopicMetadataRequest).

v0: no topics asked for means all of them; from v1 null means all, and an empty list none.
v1 adds the controller and racks, v2 the cluster id, v5 offline replicas, v7 leader epochs.
v4 lets the client say ``allow_auto_topic_creation``; before, it is always allowed.
v8-10 tell the cluster's authorized operations, v8+ the topics'.
v10 has topic ids in responses, v12 in requests: one with topic ids is answered for these alone.
v13 adds an error code at the top.

A node that has gone is named among the brokers until its session would have ended, as it is by Kafka, which
notices no sooner; its partitions have other leaders, or none, at once.

A topic that is missing is made if the request and ``auto.create.topics.enable`` allow it, and the answer has
it already, unless it cannot be made within a second. Kafka always answers UNKNOWN_TOPIC_OR_PARTITION first,
and clients ask again.
"""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

from ottla.broker.context import RequestContext
from ottla.broker.handlers._cluster import (
    CLUSTER_OPERATIONS,
    OPERATIONS_OMITTED,
    TOPIC_OPERATIONS,
    Fields,
    TopicViews,
    missing_topic_fields,
    topic_views,
)
from ottla.errors import ErrorCode, KafkaError
from ottla.metadata.topics import name_fault


def handle(ctx: RequestContext, request: Any) -> Fields | Coroutine[Any, Any, Fields]:
    version = ctx.header.api_version
    metadata = ctx.services.metadata
    views = topic_views(metadata, ctx.listener, version)
    if request.topics is None or (version == 0 and not request.topics):
        topics = [views[name] for name in metadata.image.topics]
    elif version >= 10 and _by_id(request, version):
        topics = _topics_by_id(ctx, request, views)
    else:
        try:
            topics = [views[name] for name in _names(request)]
        except KeyError:
            if (version >= 4 and not request.allow_auto_topic_creation) or not ctx.services.config.get(
                "auto.create.topics.enable"
            ):
                topics = _topics_by_name(ctx, request)
            else:
                return _create(ctx, request)
    return _response(ctx, request, topics)


async def _create(ctx: RequestContext, request: Any) -> Fields:
    existing = ctx.services.metadata.image.topics
    missing = [name for name in _names(request) if name not in existing and not name_fault(name)]
    await ctx.services.metadata.controller.auto_create(missing)
    return _response(ctx, request, _topics_by_name(ctx, request))


def _names(request: Any) -> list[str]:
    """The names, each once, as in Kafka's answers."""
    topics = request.topics
    if len(topics) == 1:
        return [topics[0].name]
    return list(dict.fromkeys(topic.name for topic in topics))


def _by_id(request: Any, version: int) -> bool:
    """Whether the request names topics by id. KafkaError where its version cannot."""
    by_id = False
    for topic in request.topics:
        if topic.name is None and version < 12:
            raise KafkaError(ErrorCode.invalid_request, f"Topic name can not be null for version {version}")
        if topic.topic_id.int:
            by_id = True
        elif topic.name is None:
            raise KafkaError(ErrorCode.invalid_request, "A topic has neither a name nor an id")
    if by_id and version < 12:
        raise KafkaError(
            ErrorCode.invalid_request, f"Topic IDs are not supported in requests for version {version}"
        )
    return by_id


def _topics_by_id(ctx: RequestContext, request: Any, views: TopicViews) -> list[Fields]:
    topics = []
    for topic_id in dict.fromkeys(topic.topic_id for topic in request.topics if topic.topic_id.int):
        topic = ctx.services.metadata.image.topics_by_id.get(topic_id)
        if topic is None:
            topics.append(missing_topic_fields(None, topic_id, ErrorCode.unknown_topic_id))
        else:
            topics.append(views[topic.name])
    return topics


def _topics_by_name(ctx: RequestContext, request: Any) -> list[Fields]:
    """Fields of each topic, with an error for those that do not exist."""
    views = topic_views(ctx.services.metadata, ctx.listener, ctx.header.api_version)
    existing = ctx.services.metadata.image.topics
    topics = []
    for name in _names(request):
        if name in existing:
            topics.append(views[name])
        elif name_fault(name):
            topics.append(missing_topic_fields(name, None, ErrorCode.invalid_topic_exception))
        else:
            topics.append(missing_topic_fields(name, None, ErrorCode.unknown_topic_or_partition))
    return topics


def _response(ctx: RequestContext, request: Any, topics: list[Fields]) -> Fields:
    metadata = ctx.services.metadata
    version = ctx.header.api_version
    cluster_operations = OPERATIONS_OMITTED
    if version >= 8:
        if request.include_topic_authorized_operations:
            topics = [topic | {"topic_authorized_operations": TOPIC_OPERATIONS} for topic in topics]
        if version <= 10 and request.include_cluster_authorized_operations:
            cluster_operations = CLUSTER_OPERATIONS
    return {
        "throttle_time_ms": 0,
        "brokers": topic_views(metadata, ctx.listener, version).brokers,
        "cluster_id": metadata.image.cluster_id,
        "controller_id": metadata.image.controller_id,
        "topics": topics,
        "cluster_authorized_operations": cluster_operations,
        "error_code": 0,
    }
