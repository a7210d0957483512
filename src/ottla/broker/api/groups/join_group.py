"""JoinGroup: become a member of a classic group, or stay one through a rebalance.

The answer waits for the end of the rebalance. v0 has no rebalance timeout (the session timeout stands in);
v2 throttle time; v4 a dynamic member must come back with the id it is given (MEMBER_ID_REQUIRED, KIP-394);
v5 static members (KIP-345); v6 flexible; v7 the protocol type, and a null protocol name where there is none;
v8 the reason; v9 a static leader that comes back may skip the assignment (KIP-814).
"""

from __future__ import annotations

from functools import partial
from typing import Any

from ottla.broker.large import AT_ONCE_MAX, Fields, Framed, in_pieces, mapped
from ottla.broker.request import RequestContext
from ottla.coordinators.groups.member import Protocol
from ottla.coordinators.groups.requests import JoinedMember, JoinRequest, JoinResponse
from ottla.env.deferred import Deferred

FIRST_VERSION_WITH_KNOWN_MEMBER_ID = 4
FIRST_VERSION_WITH_NULL_PROTOCOL_NAME = 7
FIRST_VERSION_WITH_SKIP_ASSIGNMENT = 9


def handle(ctx: RequestContext, request: Any) -> Deferred[Any]:
    groups = ctx.services.groups
    version = ctx.api_version
    group_instance_id = getattr(request, "group_instance_id", None)
    joined = groups.join(
        JoinRequest(
            group_id=request.group_id,
            member_id=request.member_id,
            new_member_id=groups.member_id(ctx.client_id, group_instance_id),
            group_instance_id=group_instance_id,
            client_id=ctx.client_id,
            # As Java prints an address that has no name.
            client_host=f"/{ctx.client_host}",
            protocol_type=request.protocol_type,
            protocols=tuple(Protocol(each.name, bytes(each.metadata)) for each in request.protocols),
            session_timeout_ms=request.session_timeout_ms,
            rebalance_timeout_ms=getattr(request, "rebalance_timeout_ms", request.session_timeout_ms),
            requires_known_member_id=version >= FIRST_VERSION_WITH_KNOWN_MEMBER_ID,
            supports_skipping_assignment=version >= FIRST_VERSION_WITH_SKIP_ASSIGNMENT,
            reason=getattr(request, "reason", None),
        )
    )
    return joined.then(partial(_fields, ctx))


def _fields(ctx: RequestContext, response: JoinResponse) -> Fields | Deferred[Framed]:
    protocol_name = response.protocol_name
    if ctx.api_version < FIRST_VERSION_WITH_NULL_PROTOCOL_NAME:
        protocol_name = protocol_name or ""
    fields: Fields = {
        "throttle_time_ms": 0,
        "error_code": response.error,
        "generation_id": response.generation_id,
        "protocol_type": response.protocol_type,
        "protocol_name": protocol_name,
        "leader": response.leader,
        "skip_assignment": response.skip_assignment,
        "member_id": response.member_id,
        "members": mapped(JoinedMember._asdict, response.members),
    }
    if len(response.members) <= AT_ONCE_MAX:
        return fields
    framed: Deferred[Framed] = Deferred()
    framed.follow(in_pieces(ctx, fields))
    return framed
