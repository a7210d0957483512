"""ListGroups: the groups that this broker coordinates.

v1 throttle time; v3 flexible; v4 states, and a filter by them (KIP-518); v5 types, likewise (KIP-848).
Filters ignore case; what they name and nobody knows matches nothing.
"""

from __future__ import annotations

from collections.abc import Awaitable, Iterator
from typing import Any

from ottla.broker.large import AT_ONCE_MAX, Fields, Framed, in_pieces, mapped
from ottla.broker.request import RequestContext
from ottla.coordinators.groups.requests import ListedGroup
from ottla.errors import ErrorCode


def handle(ctx: RequestContext, request: Any) -> Fields | Awaitable[Framed]:
    """COORDINATOR_LOAD_IN_PROGRESS while any of this broker's groups is being loaded."""
    groups = ctx.services.groups
    listed = groups.list_groups(getattr(request, "states_filter", ()), getattr(request, "types_filter", ()))
    if groups.group_count > AT_ONCE_MAX:
        return _many(ctx, listed)
    return {"throttle_time_ms": 0, "error_code": ErrorCode.none, "groups": [*map(_fields, listed)]}


async def _many(ctx: RequestContext, listed: Iterator[ListedGroup]) -> Framed:
    found = []
    for count, group in enumerate(listed, 1):
        found.append(group)
        if count % AT_ONCE_MAX == 0:
            await ctx.services.slices.pause()
    return await in_pieces(
        ctx, {"throttle_time_ms": 0, "error_code": ErrorCode.none, "groups": mapped(_fields, found)}
    )


def _fields(group: ListedGroup) -> Fields:
    return {
        "group_id": group.group_id,
        "protocol_type": group.protocol_type,
        "group_state": group.state,
        "group_type": group.type,
    }
