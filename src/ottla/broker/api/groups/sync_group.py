"""SyncGroup: a member's assignment, which its leader sends along.

The answer waits until the leader's assignment is stored. v1 throttle time; v3 static members; v4 flexible;
v5 protocol type and name, which must then be given and be the group's (INCONSISTENT_GROUP_PROTOCOL).
"""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from typing import Any

from ottla.broker.large import MADE_AT_ONCE, Fields, made
from ottla.broker.request import RequestContext
from ottla.coordinators.groups.requests import SyncRequest, SyncResponse
from ottla.env.deferred import Deferred
from ottla.errors import ErrorCode, KafkaError

FIRST_VERSION_WITH_PROTOCOL = 5


def handle(ctx: RequestContext, request: Any) -> Deferred[Fields] | Awaitable[Fields]:
    protocol_type = getattr(request, "protocol_type", None)
    protocol_name = getattr(request, "protocol_name", None)
    if ctx.api_version >= FIRST_VERSION_WITH_PROTOCOL and (protocol_type is None or protocol_name is None):
        raise KafkaError(ErrorCode.inconsistent_group_protocol)
    if len(request.assignments) > MADE_AT_ONCE:
        return _sync_large(ctx, request)
    return _sync(ctx, request, dict(map(_assignment, request.assignments)))


async def _sync_large(ctx: RequestContext, request: Any) -> Fields:
    return await _sync(ctx, request, dict(await made(ctx, _assignment, request.assignments)))


def _sync(ctx: RequestContext, request: Any, assignments: Mapping[str, bytes]) -> Deferred[Fields]:
    synced = ctx.services.groups.sync(
        SyncRequest(
            group_id=request.group_id,
            generation_id=request.generation_id,
            member_id=request.member_id,
            group_instance_id=getattr(request, "group_instance_id", None),
            protocol_type=getattr(request, "protocol_type", None),
            protocol_name=getattr(request, "protocol_name", None),
            assignments=assignments,
        )
    )
    return synced.then(_fields)


def _fields(response: SyncResponse) -> Fields:
    return {
        "throttle_time_ms": 0,
        "error_code": response.error,
        "protocol_type": response.protocol_type,
        "protocol_name": response.protocol_name,
        "assignment": response.assignment,
    }


def _assignment(given: Any) -> tuple[str, bytes]:
    return given.member_id, bytes(given.assignment)
