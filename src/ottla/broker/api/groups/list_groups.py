"""ListGroups: the groups that this broker coordinates.

v1 throttle time; v3 flexible; v4 states, and a filter by them (KIP-518); v5 types, likewise (KIP-848).
Filters ignore case; unknown states and types match nothing. Groups that the client may not DESCRIBE
are left out, unless it may DESCRIBE the cluster.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from typing import Any

from ottla.broker.large import AT_ONCE_MAX, Fields, Framed, in_pieces, mapped
from ottla.broker.request import RequestContext
from ottla.coordinators.groups.requests import ListedGroup
from ottla.errors import ErrorCode
from ottla.security.acl_bindings import CLUSTER_NAME, Operation, ResourceType


def handle(ctx: RequestContext, request: Any) -> Fields | Awaitable[Framed]:
    """COORDINATOR_LOAD_IN_PROGRESS while any of this broker's groups is being loaded."""
    groups = ctx.services.groups
    may_see = _may_see(ctx)
    listed = groups.list_groups(getattr(request, "states_filter", ()), getattr(request, "types_filter", ()))
    if groups.group_count > AT_ONCE_MAX:
        return _many(ctx, listed, may_see)
    found = map(_fields, filter(may_see, listed))
    return {"throttle_time_ms": 0, "error_code": ErrorCode.none, "groups": [*found]}


def _may_see(ctx: RequestContext) -> Callable[[ListedGroup], bool]:
    """Whether the client may know of a group: of all, where it may DESCRIBE the cluster."""
    if ctx.may(Operation.DESCRIBE, ResourceType.CLUSTER, CLUSTER_NAME, quietly=True):
        return lambda group: True
    return lambda group: ctx.may(Operation.DESCRIBE, ResourceType.GROUP, group.group_id, quietly=True)


async def _many(
    ctx: RequestContext, listed: Iterator[ListedGroup], may_see: Callable[[ListedGroup], bool]
) -> Framed:
    found = []
    for count, group in enumerate(listed, 1):
        if may_see(group):
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
