"""FindCoordinator: which broker coordinates a group, or a transactional id (KafkaApis.getCoordinator).

v0 groups only; v1-3 key type and error message; v3 flexible; v4 many keys in one request; v6 share groups.
`__consumer_offsets` and `__transaction_state` are made when somebody first looks for what is in them; unlike
Kafka's, the answer waits for that, and for a coordinator on this node that is still loading, which spares the
client a retry. Share groups get INVALID_REQUEST. Keys that the client may not DESCRIBE get
GROUP_AUTHORIZATION_FAILED or TRANSACTIONAL_ID_AUTHORIZATION_FAILED; nothing is made for their sake.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterator, Sequence
from typing import Any, Protocol

from ottla.broker.large import AT_ONCE_MAX, Fields, Framed, Lazy, are_usual, chunks, in_pieces
from ottla.broker.request import RequestContext
from ottla.errors import ErrorCode, KafkaError
from ottla.metadata.image import OFFSETS_TOPIC, TRANSACTION_STATE_TOPIC, TopicImage
from ottla.security.acl_bindings import CLUSTER_NAME, Operation, ResourceType
from ottla.security.refused import refused

GROUP_KEY = 0
TRANSACTION_KEY = 1
SHARE_KEY = 2
FIRST_VERSION_WITH_KEYS = 4
FIRST_VERSION_WITH_SHARES = 6

_KINDS = {GROUP_KEY: ResourceType.GROUP, TRANSACTION_KEY: ResourceType.TRANSACTIONAL_ID}


class Coordinator(Protocol):
    """That of groups, or of transactions."""

    def partition_for(self, name: str, /) -> int: ...

    def is_ready(self, name: str, /) -> bool: ...

    async def ready(self, name: str, /) -> None: ...


def _coordinator(ctx: RequestContext, key_type: int) -> tuple[Coordinator, str] | None:
    """What a key of that type belongs to, and its topic."""
    if key_type == GROUP_KEY:
        return ctx.services.groups, OFFSETS_TOPIC
    if key_type == TRANSACTION_KEY:
        return ctx.services.transactions, TRANSACTION_STATE_TOPIC
    return None


def handle(ctx: RequestContext, request: Any) -> Fields | Awaitable[Fields | Framed]:
    key_type = getattr(request, "key_type", GROUP_KEY)
    keys = [request.key] if ctx.api_version < FIRST_VERSION_WITH_KEYS else request.coordinator_keys
    if (
        key_type == SHARE_KEY
        and ctx.api_version >= FIRST_VERSION_WITH_SHARES
        and not ctx.may(Operation.CLUSTER_ACTION, ResourceType.CLUSTER, CLUSTER_NAME)
    ):
        raise refused(ResourceType.CLUSTER)
    if len(keys) <= AT_ONCE_MAX and are_usual(keys):
        allowed = _allowed(ctx, key_type, keys)
        found = _find_at_once(ctx, key_type, allowed) if allowed else []
        if found is not None:
            return _fields(ctx, _answers(key_type, keys, allowed, found))
    return _handle(ctx, key_type, keys)


async def _handle(ctx: RequestContext, key_type: int, keys: Sequence[str]) -> Fields | Framed:
    allowed = keys
    if ctx.client.permissions is not None:
        allowed = []
        for some in chunks(keys):
            allowed += _allowed(ctx, key_type, some)
            await ctx.services.slices.pause()
    found = await _find(ctx, key_type, allowed) if allowed else []
    answers = _answers(key_type, keys, allowed, found)
    if len(keys) > AT_ONCE_MAX:
        return await in_pieces(ctx, {"throttle_time_ms": 0, "coordinators": Lazy(len(keys), answers)})
    return _fields(ctx, answers)


def _allowed(ctx: RequestContext, key_type: int, keys: Sequence[str]) -> Sequence[str]:
    """Those that the client may DESCRIBE."""
    kind = _KINDS.get(key_type)
    if ctx.client.permissions is None or kind is None:
        return keys
    return [key for key in keys if ctx.may(Operation.DESCRIBE, kind, key)]


def _answers(
    key_type: int, keys: Sequence[str], allowed: Sequence[str], found: Sequence[Fields]
) -> Iterator[Fields]:
    """For each key what was found, or that it is not for the client; ``found`` is for those ``allowed``."""
    if len(allowed) == len(keys):
        yield from ({"key": key} | each for key, each in zip(keys, found, strict=True))
        return
    denied = _nowhere(refused(_KINDS[key_type]))
    known = dict(zip(allowed, found, strict=True))
    yield from ({"key": key} | known.get(key, denied) for key in keys)


def _fields(ctx: RequestContext, answers: Iterator[Fields]) -> Fields:
    if ctx.api_version < FIRST_VERSION_WITH_KEYS:
        return {"throttle_time_ms": 0} | next(answers)
    return {"throttle_time_ms": 0, "coordinators": [*answers]}


def _find_at_once(ctx: RequestContext, key_type: int, keys: Sequence[str]) -> list[Fields] | None:
    """The coordinator of each key; None where something is to be waited for."""
    services = ctx.services
    wanted = _coordinator(ctx, key_type)
    topic = None if wanted is None else services.metadata.image.topics.get(wanted[1])
    if wanted is None or topic is None:
        return None
    found: list[Fields] = []
    for key in keys:
        leader = topic.partitions[wanted[0].partition_for(key)].leader
        if leader == services.node_id and not wanted[0].is_ready(key):
            return None
        found.append(_found(ctx, leader))
    return found


async def _find(ctx: RequestContext, key_type: int, keys: Sequence[str]) -> list[Fields]:
    """The coordinator of each key, or why there is none. What is to be waited for is waited for once."""
    wanted = _coordinator(ctx, key_type)
    if wanted is None:
        why = f"there are no coordinators for keys of type {key_type} here"
        return [_nowhere(KafkaError(ErrorCode.invalid_request, why))] * len(keys)
    coordinator, name = wanted
    try:
        topic = await _topic(ctx, name)
    except KafkaError as error:
        return [_nowhere(error)] * len(keys)
    me = ctx.services.node_id
    leaders: list[int] = []
    # Any key of a partition stands for all.
    here: dict[int, str] = {}
    for some in chunks(keys):
        if leaders:
            await ctx.services.slices.pause()
        for key in some:
            partition = coordinator.partition_for(key)
            leaders.append(topic.partitions[partition].leader)
            if leaders[-1] == me:
                here[partition] = key
    found = {leader: _found(ctx, leader) for leader in set(leaders)}
    await asyncio.gather(*map(coordinator.ready, here.values()))
    return [found[leader] for leader in leaders]


async def _topic(ctx: RequestContext, name: str) -> TopicImage:
    try:
        return await ctx.services.metadata.controller.auto_creation.ensure(name)
    except KafkaError as error:
        raise KafkaError(ErrorCode.coordinator_not_available, f"{name} cannot be made: {error}") from error


def _nowhere(error: KafkaError) -> Fields:
    return {
        "error_code": error.code,
        "error_message": error.message,
        "node_id": -1,
        "host": "",
        "port": -1,
    }


def _found(ctx: RequestContext, node_id: int) -> Fields:
    broker = ctx.services.metadata.image.brokers.get(node_id)
    endpoint = broker.endpoint(ctx.listener) if broker is not None else None
    if endpoint is None:
        return _nowhere(KafkaError(ErrorCode.coordinator_not_available))
    host, port = endpoint
    return {
        "error_code": ErrorCode.none,
        # Never null: Kafka says its error's name, and with many keys nothing.
        "error_message": "NONE" if ctx.api_version < 4 else "",
        "node_id": node_id,
        "host": host,
        "port": port,
    }
