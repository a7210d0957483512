"""Metadata: brokers, and topics with their partitions' leaders (KafkaApis.handleTopicMetadataRequest).

v0: no topics asked for means all of them; from v1 null means all, and an empty list none.
v1 adds the controller and racks, v2 the cluster id, v5 offline replicas, v7 leader epochs.
v4 lets the client say ``allow_auto_topic_creation``; before, it is always allowed.
v8-10 tell the cluster's authorized operations, v8+ the topics'.
v10 has topic ids in responses, v12 in requests: one with topic ids is answered for these alone.
v13 adds an error code at the top.

A node that has stopped is among the brokers until its session would have ended, as in Kafka, which notices no
sooner, or until it is unregistered. Its partitions have other leaders, or none, at once.

A topic that is missing is made if the request and ``auto.create.topics.enable`` allow it, and the answer has
it already, unless it cannot be made within a second, or its client has no quota left for that. Kafka always
answers UNKNOWN_TOPIC_OR_PARTITION first, and clients ask again.
"""

from __future__ import annotations

from collections.abc import Coroutine, Sequence
from typing import Any
from uuid import UUID

from ottla.broker.api.topics.metadata_rights import MetadataRights
from ottla.broker.api.topics.mutations import Mutations
from ottla.broker.large import AT_ONCE_MAX, Framed, Pace, in_pieces, is_large
from ottla.broker.request import Fields, RequestContext
from ottla.broker.views.cluster import OPERATIONS_OMITTED, TOPIC_OPERATIONS, cluster_operations
from ottla.broker.views.topics import EncodedTopics, encoded_topics
from ottla.errors import ErrorCode, KafkaError
from ottla.metadata.image import TopicImage
from ottla.metadata.topics import name_fault
from ottla.wire.codec import PIECE, Encoded
from ottla.wire.messages import JOIN_BYTES_MAX

# A topic that is asked for: its name or its id.
Asked = str | UUID


def handle(ctx: RequestContext, request: Any) -> Fields | Coroutine[Any, Any, Fields | Framed]:
    topics = _topics(ctx)
    asked = _asked(ctx, request)
    operations = _operations(ctx, request)
    rights = _rights(ctx, request, asked, operations)
    if asked is None:
        everything = topics.all
        permissions = ctx.client.permissions
        sees_all = permissions is None or topics.are_all_for(permissions)
        if everything is not None and operations == OPERATIONS_OMITTED and sees_all:
            return _answer(ctx, request, topics, everything)
        asked = list(topics.image.topics)
    if len(asked) > AT_ONCE_MAX or is_large(ctx):
        return _many(ctx, request)
    pieces: list[bytes] = []
    left = AT_ONCE_MAX
    for one in asked:
        topic = topics.find(one)
        if rights is not None:
            refusal = rights.refusal(topics, one, topic)
            if refusal is not None:
                pieces += (refusal,) if refusal else ()
                continue
            operations = _operations_of(rights, one, topic)
        if topic is None:
            if type(one) is str and _may_create(ctx, request):
                return _many(ctx, request)
            pieces.append(_missing(topics, one, operations))
            continue
        data = topics.kept(topic)
        if data is None:
            left -= len(topic.partitions)
            if left < 0:
                return _many(ctx, request)
            data = topics.made(topic)
        pieces.append(topics.with_operations(data, operations))
    return _answer(ctx, request, topics, Encoded(len(pieces), pieces))


def _answer(
    ctx: RequestContext, request: Any, topics: EncodedTopics, encoded: Encoded
) -> Fields | Coroutine[Any, Any, Framed]:
    fields = _response(ctx, request, topics, encoded)
    return fields if encoded.size_bytes <= JOIN_BYTES_MAX else in_pieces(ctx, fields)


async def _many(ctx: RequestContext, request: Any) -> Fields | Framed:
    """The response where it is much, or topics are made for it: made with others' requests in between, of one
    image nevertheless."""
    asked = _asked(ctx, request)
    operations = _operations(ctx, request)
    rights = _rights(ctx, request, asked, operations)
    permissions = ctx.client.permissions
    rights_version = 0 if permissions is None else permissions.version
    if asked is not None and _may_create(ctx, request):
        await _create_missing(ctx, asked, rights)
    topics = _topics(ctx)
    pieces: list[bytes] = []
    # Until others have their turn: partitions that are written, and topics of any kind.
    left, pace = [PIECE], Pace(ctx)
    for one in list(topics.image.topics) if asked is None else asked:
        topic = topics.find(one)
        refusal = None if rights is None else rights.refusal(topics, one, topic)
        if rights is not None and refusal is None:
            operations = _operations_of(rights, one, topic)
        if refusal is not None:
            pieces += (refusal,) if refusal else ()
        elif topic is None:
            pieces.append(_missing(topics, one, operations))
        else:
            data = topics.kept(topic)
            if data is None:
                written: list[bytes] = []
                for _ in topics.make(topic, written, left):
                    await ctx.services.slices.pause()
                (data,) = written
            pieces.append(topics.with_operations(data, operations))
        if pace.is_over():
            await pace.pause()
    encoded = Encoded(len(pieces), pieces)
    if asked is None and operations == OPERATIONS_OMITTED and not (rights is not None and rights.hides):
        encoded = topics.all or topics.keep_all(pieces)
        if permissions is not None:
            topics.were_all_for(permissions, rights_version)
    answer = _answer(ctx, request, topics, encoded)
    return answer if isinstance(answer, dict) else await answer


def _topics(ctx: RequestContext) -> EncodedTopics:
    services = ctx.services
    return encoded_topics(services.topics, services.metadata, ctx.listener, ctx.header.api_version)


def _may_create(ctx: RequestContext, request: Any) -> bool:
    """Whether topics are made that are missing."""
    wanted = ctx.header.api_version < 4 or request.allow_auto_topic_creation
    return bool(wanted and ctx.services.config.get("auto.create.topics.enable"))


def _rights(
    ctx: RequestContext, request: Any, asked: Sequence[Asked] | None, operations: int
) -> MetadataRights | None:
    """What the client may be told of; None: everything."""
    if ctx.client.permissions is None:
        return None
    return MetadataRights(
        ctx,
        is_all=asked is None,
        creates=asked is not None and _may_create(ctx, request),
        tells_operations=operations != OPERATIONS_OMITTED,
    )


def _operations_of(rights: MetadataRights, asked: Asked, topic: TopicImage | None) -> int:
    if topic is not None:
        return rights.operations(topic.name)
    return rights.operations(asked) if isinstance(asked, str) else OPERATIONS_OMITTED


async def _create_missing(ctx: RequestContext, asked: Sequence[Asked], rights: MetadataRights | None) -> None:
    existing = ctx.services.metadata.image.topics
    names = [name for name in asked if isinstance(name, str)]
    missing = [name for name in names if name not in existing and not name_fault(name)]
    if rights is not None:
        pace, allowed = Pace(ctx), []
        for name in missing:
            if rights.may_make(name):
                allowed.append(name)
            if pace.is_over():
                await pace.pause()
        missing = allowed
    mutations = Mutations(ctx, strict_since=0)
    if mutations.are_limited:
        partitions = ctx.services.config.get("num.partitions")
        missing = [name for name in missing if mutations.take(partitions) is None]
    await ctx.services.metadata.controller.auto_creation.create(missing)


def _asked(ctx: RequestContext, request: Any) -> Sequence[Asked] | None:
    """The topics that are asked for, each once, by name or all by id; None for all that there are."""
    version = ctx.header.api_version
    asked = request.topics
    if asked is None or (version == 0 and not asked):
        return None
    if version >= 10 and _is_by_id(request, version):
        return list(dict.fromkeys(topic.topic_id for topic in asked if topic.topic_id.int))
    if len(asked) == 1:
        return [asked[0].name]
    return list(dict.fromkeys(topic.name for topic in asked))


def _is_by_id(request: Any, version: int) -> bool:
    """Whether the request names topics by id. KafkaError where its version cannot."""
    by_id = nameless = False
    for topic in request.topics:
        if topic.name is None and version < 12:
            raise KafkaError(ErrorCode.invalid_request, f"Topic name can not be null for version {version}")
        if topic.topic_id.int:
            by_id = True
        elif topic.name is None:
            nameless = True
    # One id, and names count for nothing.
    if nameless and not by_id:
        raise KafkaError(ErrorCode.invalid_request, "A topic has neither a name nor an id")
    if by_id and version < 12:
        raise KafkaError(
            ErrorCode.invalid_request, f"Topic IDs are not supported in requests for version {version}"
        )
    return by_id


def _missing(topics: EncodedTopics, asked: Asked, operations: int) -> bytes:
    if not isinstance(asked, str):
        # Of an id that is nobody's nothing is told, not even what its client may do.
        return topics.missing(None, asked, ErrorCode.unknown_topic_id)
    fault = ErrorCode.invalid_topic_exception if name_fault(asked) else ErrorCode.unknown_topic_or_partition
    return topics.with_operations(topics.missing(asked, None, fault), operations)


def _operations(ctx: RequestContext, request: Any) -> int:
    """What is told of what a client may do with a topic."""
    wanted = ctx.header.api_version >= 8 and request.include_topic_authorized_operations
    return TOPIC_OPERATIONS if wanted else OPERATIONS_OMITTED


def _response(ctx: RequestContext, request: Any, topics: EncodedTopics, encoded: Encoded) -> Fields:
    told = OPERATIONS_OMITTED
    if 8 <= ctx.header.api_version <= 10 and request.include_cluster_authorized_operations:
        told = cluster_operations(ctx)
    image = ctx.services.metadata.image
    return {
        "throttle_time_ms": 0,
        "brokers": topics.brokers,
        "cluster_id": image.cluster_id,
        "controller_id": image.controller_id,
        "topics": encoded,
        "cluster_authorized_operations": told,
        "error_code": 0,
    }
