"""DeleteGroups: remove groups that have no members, with their offsets.

v0-1 plain; v2 flexible; v3 an error may have a message, which Kafka gives for groups of streams only
(KIP-1331). GROUP_ID_NOT_FOUND, NON_EMPTY_GROUP; GROUP_AUTHORIZATION_FAILED without DELETE on the group.
"""

from __future__ import annotations

import asyncio
from typing import Any

from ottla.broker.large import AT_ONCE_MAX, Fields, Framed, chunks, in_pieces, mapped
from ottla.broker.request import RequestContext
from ottla.coordinators.groups.requests import DeletedGroup
from ottla.errors import ErrorCode
from ottla.security.acl_bindings import Operation, ResourceType

# Groups that are deleted in one turn: each is a write of its own, and somebody who waits for it.
DELETED_AT_ONCE_MAX = 50


async def handle(ctx: RequestContext, request: Any) -> Fields | Framed:
    # A group that is named twice is deleted once.
    names = list(dict.fromkeys(request.groups_names))
    deleted: list[DeletedGroup] = []
    for some in chunks(names, DELETED_AT_ONCE_MAX):
        deleted += await asyncio.gather(*(_delete(ctx, group_id) for group_id in some))
        if len(some) < len(names):
            await ctx.services.slices.pause()
    fields = {"throttle_time_ms": 0, "results": mapped(_fields, deleted)}
    return await in_pieces(ctx, fields) if len(names) > AT_ONCE_MAX else fields


async def _delete(ctx: RequestContext, group_id: str) -> DeletedGroup:
    if not ctx.may(Operation.DELETE, ResourceType.GROUP, group_id):
        return DeletedGroup(group_id, ErrorCode.group_authorization_failed)
    return await ctx.services.groups.delete_group(group_id)


def _fields(deleted: DeletedGroup) -> Fields:
    return {"group_id": deleted.group_id, "error_code": deleted.error}
