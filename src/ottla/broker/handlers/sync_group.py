"""SyncGroup: a member's assignment, which its leader sends along.

The answer waits until the leader's assignment is stored. v1 throttle time; v3 static members; v4 flexible;
v5 protocol type and name, which must then be given and be the group's (INCONSISTENT_GROUP_PROTOCOL).
"""

from __future__ import annotations

from typing import Any

from ottla.broker.context import RequestContext
from ottla.coordinators.requests import SyncRequest
from ottla.errors import ErrorCode, KafkaError

FIRST_VERSION_WITH_PROTOCOL = 5


async def handle(ctx: RequestContext, request: Any) -> dict[str, Any]:
    protocol_type = getattr(request, "protocol_type", None)
    protocol_name = getattr(request, "protocol_name", None)
    if ctx.api_version >= FIRST_VERSION_WITH_PROTOCOL and (protocol_type is None or protocol_name is None):
        raise KafkaError(ErrorCode.inconsistent_group_protocol)
    response = await ctx.services.groups.sync(
        SyncRequest(
            group_id=request.group_id,
            generation_id=request.generation_id,
            member_id=request.member_id,
            group_instance_id=getattr(request, "group_instance_id", None),
            protocol_type=protocol_type,
            protocol_name=protocol_name,
            assignments={each.member_id: bytes(each.assignment) for each in request.assignments},
        )
    )
    return {
        "throttle_time_ms": 0,
        "error_code": response.error,
        "protocol_type": response.protocol_type,
        "protocol_name": response.protocol_name,
        "assignment": response.assignment,
    }
