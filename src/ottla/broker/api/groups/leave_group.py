"""LeaveGroup: members leave, or are removed by an administrator.

v1 throttle time; v3 several members at once, static ones by their instance id alone (KIP-345), each with an
error of its own; before, the one member's error is the response's. v4 flexible; v5 reasons.
"""

from __future__ import annotations

from typing import Any

from ottla.broker.large import AT_ONCE_MAX, Fields, Framed, in_pieces, mapped
from ottla.broker.request import RequestContext
from ottla.coordinators.groups.requests import LeavingMember, LeftMember
from ottla.errors import ErrorCode

FIRST_VERSION_WITH_MEMBERS = 3


async def handle(ctx: RequestContext, request: Any) -> Fields | Framed:
    many = ctx.api_version >= FIRST_VERSION_WITH_MEMBERS
    members = request.members if many else (request,)
    leaving = tuple(
        LeavingMember(
            member.member_id, getattr(member, "group_instance_id", None), getattr(member, "reason", None)
        )
        for member in members
    )
    response = await ctx.services.groups.leave(request.group_id, leaving)
    error = response.error
    if not many and error == ErrorCode.none:
        error = response.members[0].error
    fields: Fields = {
        "throttle_time_ms": 0,
        "error_code": error,
        "members": mapped(_member, response.members),
    }
    return await in_pieces(ctx, fields) if len(response.members) > AT_ONCE_MAX else fields


def _member(left: LeftMember) -> Fields:
    return {
        "member_id": left.member_id,
        "group_instance_id": left.group_instance_id,
        "error_code": left.error,
    }
