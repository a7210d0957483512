"""DescribeTransactions: the state of transactional ids that this node coordinates (KIP-664)."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from typing import Any

from ottla.broker.large import (
    AT_ONCE_MAX,
    Fields,
    Framed,
    Pace,
    are_usual,
    in_pieces,
    is_large,
    mapped,
    several,
)
from ottla.broker.request import RequestContext
from ottla.coordinators.transactions.requests import DescribedTransaction
from ottla.errors import ErrorCode
from ottla.security.acl_bindings import Operation, ResourceType


def handle(ctx: RequestContext, request: Any) -> Fields | Awaitable[Framed]:
    """By id: TRANSACTIONAL_ID_NOT_FOUND, NOT_COORDINATOR, COORDINATOR_LOAD_IN_PROGRESS, INVALID_REQUEST for
    an empty one. Of a transaction that is decided these are the partitions that have no marker yet.
    TRANSACTIONAL_ID_AUTHORIZATION_FAILED without DESCRIBE on the id, be there such a one or not; topics that
    the client may not DESCRIBE are left out."""
    transactions = ctx.services.transactions

    def describe(transactional_id: str) -> Fields:
        return _fields(ctx, _described(ctx, transactional_id))

    ids = request.transactional_ids
    if not are_usual(ids):
        return _one_by_one(ctx, ids)
    # A client may ask for one of many partitions any number of times.
    is_much = not is_large(ctx) and sum(map(transactions.partition_count, ids)) > AT_ONCE_MAX
    states = mapped(describe, ids) if is_much else several(ctx, describe, ids)
    fields = {"throttle_time_ms": 0, "transaction_states": states}
    return in_pieces(ctx, fields) if is_much else fields


async def _one_by_one(ctx: RequestContext, ids: Sequence[str]) -> Framed:
    """Ids some of which are so long that it takes time to find them.

    Others may have many partitions: those are looked up once, and gone through when their turn comes to be
    written.
    """
    found: dict[str, DescribedTransaction] = {}
    pace = Pace(ctx)
    for transactional_id in dict.fromkeys(ids):
        found[transactional_id] = _described(ctx, transactional_id)
        if pace.is_over():
            await pace.pause()
    states = mapped(lambda transactional_id: _fields(ctx, found[transactional_id]), ids)
    return await in_pieces(ctx, {"throttle_time_ms": 0, "transaction_states": states})


def _described(ctx: RequestContext, transactional_id: str) -> DescribedTransaction:
    if not ctx.may(Operation.DESCRIBE, ResourceType.TRANSACTIONAL_ID, transactional_id):
        return DescribedTransaction(transactional_id, ErrorCode.transactional_id_authorization_failed)
    return ctx.services.transactions.describe(transactional_id)


def _fields(ctx: RequestContext, described: DescribedTransaction) -> Fields:
    is_limited = ctx.client.permissions is not None
    topics: dict[str, list[int]] = {}
    for topic, partition in described.partitions:
        if is_limited and not ctx.may(Operation.DESCRIBE, ResourceType.TOPIC, topic, quietly=True):
            continue
        topics.setdefault(topic, []).append(partition)
    return {
        "error_code": described.error,
        "transactional_id": described.transactional_id,
        "transaction_state": described.state,
        "transaction_timeout_ms": described.timeout_ms,
        "transaction_start_time_ms": described.start_ms,
        "producer_id": described.producer_id,
        "producer_epoch": described.producer_epoch,
        "topics": [{"topic": name, "partitions": each} for name, each in topics.items()],
    }
