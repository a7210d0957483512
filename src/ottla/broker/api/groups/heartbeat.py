"""Heartbeat: a member shows that it is there, and hears whether its group rebalances.

v1 throttle time; v3 static members; v4 flexible. While the group is being loaded every heartbeat is good.
"""

from __future__ import annotations

from typing import Any

from ottla.broker.request import RequestContext


def handle(ctx: RequestContext, request: Any) -> dict[str, Any]:
    error = ctx.services.groups.heartbeat(
        request.group_id,
        request.member_id,
        getattr(request, "group_instance_id", None),
        request.generation_id,
    )
    return {"throttle_time_ms": 0, "error_code": error}
