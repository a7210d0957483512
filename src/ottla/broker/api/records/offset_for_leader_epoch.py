"""OffsetForLeaderEpoch: where an epoch's records end in this leader's log (KIP-101, KIP-279, KIP-320).

v2 the leader epoch that the client believes in; v3 replica id; v4 flexible.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Container
from typing import Any

from ottla.broker.large import Fields, allowed, is_large, several
from ottla.broker.request import RequestContext
from ottla.broker.views.leader import believed, replica_refusal
from ottla.errors import ErrorCode, KafkaError
from ottla.security.acl_bindings import CLUSTER_NAME, Operation, ResourceType


def handle(ctx: RequestContext, request: Any) -> Fields | Awaitable[Fields]:
    """FENCED_LEADER_EPOCH, UNKNOWN_LEADER_EPOCH, NOT_LEADER_OR_FOLLOWER, UNKNOWN_TOPIC_OR_PARTITION;
    TOPIC_AUTHORIZATION_FAILED in a replica's name on a listener that is not for nodes, and to whom may
    neither CLUSTER_ACTION nor DESCRIBE the topic."""
    refusal = replica_refusal(ctx, getattr(request, "replica_id", -1))
    refused = None if refusal is None else refusal.code
    is_limited = ctx.client.permissions is not None and not ctx.may(
        Operation.CLUSTER_ACTION, ResourceType.CLUSTER, CLUSTER_NAME, quietly=True
    )
    if ctx.services.replicas.unopened or (is_limited and is_large(ctx)):
        return _slowly(ctx, request, refused, is_limited=is_limited)

    def may(name: str) -> bool:
        return not is_limited or ctx.may(Operation.DESCRIBE, ResourceType.TOPIC, name)

    return _fields(ctx, request, refused, may)


async def _slowly(
    ctx: RequestContext, request: Any, refused: ErrorCode | None, *, is_limited: bool
) -> Fields:
    """Who may know is asked first, and then partitions are opened that are not."""

    def may(name: str) -> bool:
        return not is_limited or name in described

    described: Container[str] = ()
    if is_limited:
        names = (t.topic for t in request.topics)
        described = await allowed(ctx, Operation.DESCRIBE, ResourceType.TOPIC, names)
    if ctx.services.replicas.unopened and refused is None:
        await ctx.services.replicas.open(
            (t.topic, p.partition) for t in request.topics if may(t.topic) for p in t.partitions
        )
    return _fields(ctx, request, refused, may)


def _fields(
    ctx: RequestContext, request: Any, refused: ErrorCode | None, may: Callable[[str], bool]
) -> Fields:
    def told(topic: Any) -> Fields:
        denied = refused if may(topic.topic) else ErrorCode.topic_authorization_failed

        def answer(asked: Any) -> Fields:
            return _answer(ctx, topic.topic, asked, denied)

        return {"topic": topic.topic, "partitions": several(ctx, answer, topic.partitions)}

    return {"topics": several(ctx, told, request.topics), "throttle_time_ms": 0}


def _answer(ctx: RequestContext, topic: str, asked: Any, refused: ErrorCode | None) -> dict[str, Any]:
    answer = {"partition": asked.partition, "error_code": ErrorCode.none}
    if refused is not None:
        return answer | {"error_code": refused, "leader_epoch": -1, "end_offset": -1}
    try:
        partition = ctx.services.replicas.get(topic, asked.partition)
        partition.check_leader(believed(asked.current_leader_epoch))
        epoch, end_offset = partition.epoch_end_offset(asked.leader_epoch)
    except KafkaError as error:
        return answer | {"error_code": error.code, "leader_epoch": -1, "end_offset": -1}
    return answer | {"leader_epoch": epoch, "end_offset": end_offset}
