"""ListTransactions: the transactional ids that this node coordinates (KIP-664).

v1 those that have been open for longer than a time (KIP-994); v2 those whose ids match a pattern (KIP-1152).
Filters apply together; states that nobody knows are named in the answer. Ids that the client may not DESCRIBE
are left out.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ottla.broker.api.transactions.patterns import compile_pattern
from ottla.broker.large import AT_ONCE_MAX, Fields, Framed, in_pieces, mapped
from ottla.broker.request import RequestContext
from ottla.coordinators.transactions.requests import ListedTransaction
from ottla.coordinators.transactions.states import BY_NAME
from ottla.errors import ErrorCode
from ottla.security.acl_bindings import Operation, ResourceType


async def handle(ctx: RequestContext, request: Any) -> Framed:
    """COORDINATOR_LOAD_IN_PROGRESS while any of this broker's ids is being loaded;
    INVALID_REGULAR_EXPRESSION."""
    unknown = [name for name in dict.fromkeys(request.state_filters) if name not in BY_NAME]
    pattern = getattr(request, "transactional_id_pattern", None)
    matches = compile_pattern(pattern) if pattern else None
    transactions = ctx.services.transactions.transactions()
    is_wanted = _filter(ctx, request)
    found = []
    count = 0
    # A decision is as much as several filters.
    each = 1 if ctx.client.permissions is None else 4
    for transaction in transactions:
        count += each
        if is_wanted(transaction):
            if matches is None:
                found.append(transaction)
            else:
                # An id's characters, and a pattern's parts, are a client's to choose.
                count += (1 + len(transaction.transactional_id)) * matches.size
                if await ctx.services.slices.run(matches.matching(transaction.transactional_id)):
                    found.append(transaction)
        if count >= AT_ONCE_MAX * 4:
            count = 0
            await ctx.services.slices.pause()
    return await in_pieces(
        ctx,
        {
            "throttle_time_ms": 0,
            "error_code": ErrorCode.none,
            "unknown_state_filters": unknown,
            "transaction_states": mapped(_fields, found),
        },
    )


def _filter(ctx: RequestContext, request: Any) -> Callable[[ListedTransaction], bool]:
    states, ids = frozenset(request.state_filters), frozenset(request.producer_id_filters)
    duration_ms = getattr(request, "duration_filter", -1)
    now_ms = ctx.services.clock.now_ms()

    def may_see(name: str) -> bool:
        return ctx.may(Operation.DESCRIBE, ResourceType.TRANSACTIONAL_ID, name, quietly=True)

    def is_wanted(one: ListedTransaction) -> bool:
        return (
            (not ids or one.producer_id in ids)
            and (not states or one.state in states)
            and (duration_ms < 0 or now_ms - one.start_ms > duration_ms)
            and may_see(one.transactional_id)
        )

    return is_wanted


def _fields(listed: ListedTransaction) -> Fields:
    return {
        "transactional_id": listed.transactional_id,
        "producer_id": listed.producer_id,
        "transaction_state": listed.state,
    }
