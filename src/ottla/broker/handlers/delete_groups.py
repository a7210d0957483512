"""DeleteGroups: remove groups that have no members, with their offsets.

v0-1 plain; v2 flexible. GROUP_ID_NOT_FOUND, NON_EMPTY_GROUP.
"""

from __future__ import annotations

import asyncio
from typing import Any

from ottla.broker.context import RequestContext


async def handle(ctx: RequestContext, request: Any) -> dict[str, Any]:
    groups = ctx.services.groups
    # A group that is named twice is deleted once.
    names = dict.fromkeys(request.groups_names)
    deleted = await asyncio.gather(*(groups.delete_group(group_id) for group_id in names))
    return {
        "throttle_time_ms": 0,
        "results": [{"group_id": each.group_id, "error_code": each.error} for each in deleted],
    }
