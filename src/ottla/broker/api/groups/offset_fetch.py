"""OffsetFetch: where groups are in their partitions; -1 where they have committed nothing.

v1 has no error for the whole group, so it stands with each partition; v2 one group's error, and null topics
for all that it has; v3 throttle time; v5 leader epochs; v6 flexible; v7 require_stable, which gets
UNSTABLE_OFFSET_COMMIT while an open transaction may still change an offset (KIP-447); v8 many groups
(KIP-709); v9 the consumer protocol's member; v10 topic ids in place of names. A group that does not exist
simply has no offsets. GROUP_AUTHORIZATION_FAILED without DESCRIBE on the group; topics that the client may
not DESCRIBE get TOPIC_AUTHORIZATION_FAILED where they are named, whether they exist or not, and are left out
where all are asked for.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Container, Iterable, Iterator, Sequence, Sized
from contextlib import suppress
from functools import partial
from itertools import chain
from typing import Any
from uuid import UUID

from ottla.broker.large import AT_ONCE_MAX, Fields, Framed, Lazy, allowed, are_usual, chunks, in_pieces
from ottla.broker.request import RequestContext
from ottla.coordinators.groups.requests import NO_OFFSET, FetchedOffset, FetchTopic
from ottla.errors import ErrorCode, KafkaError
from ottla.metadata.image import ClusterImage
from ottla.security.acl_bindings import Operation, ResourceType
from ottla.wire.primitives import UUID_ZERO

FIRST_VERSION_WITH_GROUP_ERROR = 2
FIRST_VERSION_WITH_GROUPS = 8
FIRST_VERSION_WITH_TOPIC_IDS = 10

# Makes an array of so many elements.
Array = Callable[[int, Iterable[Fields]], Sized]


def handle(ctx: RequestContext, request: Any) -> Fields | Awaitable[Framed]:
    require_stable = getattr(request, "require_stable", False)
    asked = request.groups if ctx.api_version >= FIRST_VERSION_WITH_GROUPS else (request,)
    large = len(asked) > AT_ONCE_MAX or sum(_partition_count(ctx, group) for group in asked) > AT_ONCE_MAX
    array = Lazy if large else _at_once
    by_groups = ctx.api_version >= FIRST_VERSION_WITH_GROUPS
    if large and ctx.client.permissions is not None:
        return _limited(ctx, request, asked, require_stable=require_stable)
    fetch = partial(_fetch, ctx, array, require_stable, _Rights(ctx))
    if by_groups and not are_usual([group.group_id for group in asked]):
        return _one_by_one(ctx, asked, fetch)
    if by_groups:
        fields: Fields = {"throttle_time_ms": 0, "groups": array(len(asked), map(fetch, asked))}
    else:
        fields = _old(ctx, request, fetch(request))
    return in_pieces(ctx, fields) if large else fields


def _old(ctx: RequestContext, request: Any, group: Fields) -> Fields:
    """The answer to a request for one group."""
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


class _Rights:
    """What the client may know of."""

    def __init__(self, ctx: RequestContext) -> None:
        self._ctx = ctx

    def may_fetch(self, group_id: str) -> bool:
        return self._ctx.may(Operation.DESCRIBE, ResourceType.GROUP, group_id)

    def may_name(self, topic: str) -> bool:
        return self._ctx.may(Operation.DESCRIBE, ResourceType.TOPIC, topic)

    def may_see(self, topic: str) -> bool:
        """Of one that it has not asked for."""
        ctx = self._ctx
        return ctx.client.permissions is None or ctx.may(
            Operation.DESCRIBE, ResourceType.TOPIC, topic, quietly=True
        )


class _Known(_Rights):
    """The same of many, found out before."""

    def __init__(
        self, ctx: RequestContext, groups: Container[str], named: Container[str], seen: Container[str]
    ) -> None:
        super().__init__(ctx)
        self._groups = groups
        self._named = named
        self._seen = seen

    def may_fetch(self, group_id: str) -> bool:
        return group_id in self._groups

    def may_name(self, topic: str) -> bool:
        return topic in self._named

    def may_see(self, topic: str) -> bool:
        return topic in self._seen


async def _limited(
    ctx: RequestContext, request: Any, asked: Sequence[Any], *, require_stable: bool
) -> Framed:
    """Much, of which the client may not know all: what that is is asked first, with others' turns in
    between."""
    groups = await allowed(ctx, Operation.DESCRIBE, ResourceType.GROUP, [group.group_id for group in asked])
    fetched = [group for group in asked if group.group_id in groups]
    named = await allowed(ctx, Operation.DESCRIBE, ResourceType.TOPIC, _named(ctx, fetched))
    there = _there(ctx, fetched, require_stable=require_stable)
    seen = await allowed(ctx, Operation.DESCRIBE, ResourceType.TOPIC, there, quietly=True)
    fetch = partial(_fetch, ctx, Lazy, require_stable, _Known(ctx, groups, named, seen))
    if ctx.api_version < FIRST_VERSION_WITH_GROUPS:
        return await in_pieces(ctx, _old(ctx, request, fetch(request)))
    if not are_usual([group.group_id for group in asked]):
        return await _one_by_one(ctx, asked, fetch)
    return await in_pieces(ctx, {"throttle_time_ms": 0, "groups": Lazy(len(asked), map(fetch, asked))})


def _named(ctx: RequestContext, groups: Iterable[Any]) -> Iterator[str]:
    """The topics that groups' offsets are asked for of."""
    image = ctx.services.metadata.image
    by_id = ctx.api_version >= FIRST_VERSION_WITH_TOPIC_IDS
    for group in groups:
        for topic in group.topics or ():
            found = image.topics_by_id.get(topic.topic_id) if by_id else topic
            if found is not None:
                yield found.name


def _there(ctx: RequestContext, groups: Iterable[Any], *, require_stable: bool) -> Iterator[str]:
    """The topics that groups have offsets of, all of which are asked for."""
    for group in groups:
        if group.topics is None:
            with suppress(KafkaError):
                # It is told where the group is fetched.
                offsets = ctx.services.groups.offsets_of(group.group_id, require_stable=require_stable)
                yield from (topic.topic for topic in offsets.topics())


async def _one_by_one(ctx: RequestContext, asked: Sequence[Any], fetch: Callable[[Any], Fields]) -> Framed:
    """Groups some of which are called so that it takes time to find them."""
    found: list[Fields] = []
    for some in chunks([group.group_id for group in asked]):
        for group in asked[len(found) : len(found) + len(some)]:
            found.append(fetch(group))
        await ctx.services.slices.pause()
    return await in_pieces(ctx, {"throttle_time_ms": 0, "groups": found})


def _at_once(count: int, elements: Iterable[Fields]) -> list[Fields]:
    return list(elements)


def _partition_count(ctx: RequestContext, group: Any) -> int:
    """About how much work a group is."""
    if group.topics is None:
        return 1 + ctx.services.groups.offset_count(group.group_id)
    return 1 + sum(len(topic.partition_indexes) for topic in group.topics)


def _fetch(ctx: RequestContext, array: Array, require_stable: bool, rights: _Rights, group: Any) -> Fields:
    image = ctx.services.metadata.image
    by_id = ctx.api_version >= FIRST_VERSION_WITH_TOPIC_IDS
    try:
        if not rights.may_fetch(group.group_id):
            raise KafkaError(ErrorCode.group_authorization_failed)
        offsets = ctx.services.groups.offsets_of(group.group_id, require_stable=require_stable)
    except KafkaError as error:
        return {"group_id": group.group_id, "error_code": error.code, "topics": []}
    topics: list[FetchTopic] = []
    # Those that are not looked up, and why.
    refused: list[tuple[Any, ErrorCode]] = []
    ids: dict[str, UUID] = {}
    if group.topics is not None:
        for topic in group.topics:
            resolved = _resolve_id(image, topic) if by_id else _resolve_name(image, topic)
            if resolved is None:
                refused.append((topic, ErrorCode.unknown_topic_id))
            elif not rights.may_name(resolved.topic):
                refused.append((topic, ErrorCode.topic_authorization_failed))
            else:
                topics.append(resolved)
    else:
        topics = [topic for topic in offsets.topics() if rights.may_see(topic.topic)]
        if by_id:
            # A topic that is gone has no id to be named by.
            topics = [topic for topic in topics if topic.topic in image.topics]
            ids = {topic.topic: image.topics[topic.topic].topic_id for topic in topics}

    def fetched(topic: FetchTopic) -> Fields:
        found = map(partial(offsets.get, topic), topic.partitions)
        return {
            "name": topic.topic,
            "topic_id": ids.get(topic.topic, topic.topic_id),
            "partitions": array(len(topic.partitions), map(_partition, found)),
        }

    answers = chain(map(fetched, topics), map(_refused, refused))
    return {
        "group_id": group.group_id,
        "error_code": ErrorCode.none,
        "topics": array(len(topics) + len(refused), answers),
    }


def _resolve_name(image: ClusterImage, topic: Any) -> FetchTopic:
    found = image.topics.get(topic.name)
    topic_id = UUID_ZERO if found is None else found.topic_id
    return FetchTopic(topic.name, topic_id, topic.partition_indexes)


def _resolve_id(image: ClusterImage, topic: Any) -> FetchTopic | None:
    found = image.topics_by_id.get(topic.topic_id)
    return None if found is None else FetchTopic(found.name, found.topic_id, topic.partition_indexes)


def _refused(refusal: tuple[Any, ErrorCode]) -> Fields:
    topic, error = refusal
    return {
        "name": getattr(topic, "name", ""),
        "topic_id": getattr(topic, "topic_id", UUID_ZERO),
        "partitions": [_partition(FetchedOffset(each, error=error)) for each in topic.partition_indexes],
    }


def _partition(fetched: FetchedOffset) -> Fields:
    failed = fetched.error != ErrorCode.none
    return {
        "partition_index": fetched.partition,
        "committed_offset": NO_OFFSET if failed else fetched.offset,
        "committed_leader_epoch": fetched.leader_epoch,
        "metadata": fetched.metadata,
        "error_code": fetched.error,
    }
