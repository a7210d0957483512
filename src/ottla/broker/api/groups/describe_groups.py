"""DescribeGroups: state and members of classic groups.

v1 throttle time; v3 authorized operations; v4 instance ids; v5 flexible; v6 GROUP_ID_NOT_FOUND with a message
(KIP-1043), where before a group that does not exist was said to be Dead. GROUP_AUTHORIZATION_FAILED without
DESCRIBE on the group, whether it exists or not.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from ottla.broker.large import AT_ONCE_MAX, Fields, Framed, are_usual, chunks, in_pieces, mapped
from ottla.broker.request import RequestContext
from ottla.coordinators.groups.requests import DescribedGroup, DescribedMember
from ottla.errors import ErrorCode
from ottla.security.acl_bindings import Operation, ResourceType

FIRST_VERSION_WITH_NOT_FOUND = 6
OPERATIONS_OMITTED = -(2**31)


def handle(ctx: RequestContext, request: Any) -> Fields | Awaitable[Framed]:
    include_operations = getattr(request, "include_authorized_operations", False)

    def describe(group_id: str) -> Fields:
        if not ctx.may(Operation.DESCRIBE, ResourceType.GROUP, group_id):
            denied = DescribedGroup(group_id, ErrorCode.group_authorization_failed)
            return _fields(ctx.api_version, denied, OPERATIONS_OMITTED)
        group = ctx.services.groups.describe(group_id)
        operations = OPERATIONS_OMITTED
        if include_operations:
            operations = ctx.operations(ResourceType.GROUP, group_id)
        return _fields(ctx.api_version, group, operations)

    if not are_usual(request.groups):
        return _one_by_one(ctx, request.groups, describe)
    members = sum(map(ctx.services.groups.member_count, request.groups))
    if len(request.groups) + members > AT_ONCE_MAX:
        return in_pieces(ctx, {"throttle_time_ms": 0, "groups": mapped(describe, request.groups)})
    return {"throttle_time_ms": 0, "groups": [describe(group_id) for group_id in request.groups]}


async def _one_by_one(
    ctx: RequestContext, groups: Sequence[str], describe: Callable[[str], Fields]
) -> Framed:
    """Groups some of which are called so that it takes time to find them."""
    found: list[Fields] = []
    for some in chunks(groups):
        found += [describe(group_id) for group_id in some]
        await ctx.services.slices.pause()
    return await in_pieces(ctx, {"throttle_time_ms": 0, "groups": found})


def _fields(version: int, group: DescribedGroup, operations: int) -> dict[str, Any]:
    error, message = group.error, None
    if error == ErrorCode.group_id_not_found:
        if version >= FIRST_VERSION_WITH_NOT_FOUND:
            message = f"Group {group.group_id} not found."
        else:
            error = ErrorCode.none
    return {
        "error_code": error,
        "error_message": message,
        "group_id": group.group_id,
        "group_state": group.state,
        "protocol_type": group.protocol_type,
        "protocol_data": group.protocol_data,
        "members": mapped(_member, group.members),
        "authorized_operations": operations if error == ErrorCode.none else OPERATIONS_OMITTED,
    }


def _member(member: DescribedMember) -> Fields:
    return {
        "member_id": member.member_id,
        "group_instance_id": member.group_instance_id,
        "client_id": member.client_id,
        "client_host": member.client_host,
        "member_metadata": member.metadata,
        "member_assignment": member.assignment,
    }
