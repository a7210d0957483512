"""ListGroups: the groups that this broker coordinates.

v1 throttle time; v3 flexible; v4 states, and a filter by them (KIP-518); v5 types, likewise (KIP-848).
Filters ignore case; what they name and nobody knows matches nothing.
"""

from __future__ import annotations

from typing import Any

from ottla.broker.context import RequestContext
from ottla.errors import ErrorCode


def handle(ctx: RequestContext, request: Any) -> dict[str, Any]:
    """COORDINATOR_LOAD_IN_PROGRESS while any of this broker's groups is being loaded."""
    groups = ctx.services.groups.list_groups(
        getattr(request, "states_filter", ()), getattr(request, "types_filter", ())
    )
    return {
        "throttle_time_ms": 0,
        "error_code": ErrorCode.none,
        "groups": [
            {
                "group_id": group.group_id,
                "protocol_type": group.protocol_type,
                "group_state": group.state,
                "group_type": group.type,
            }
            for group in groups
        ],
    }
