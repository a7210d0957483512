"""DescribeAcls: the ACLs that a filter asks for (AclApis.handleDescribeAcls).

v1-3 differ in encoding only. ACLs about the same resources come together.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ottla.broker.api.security.acls import check_enabled, entry_fields, filter_of, pattern_fields
from ottla.broker.large import AT_ONCE_MAX, Fields, Framed, Lazy, in_pieces
from ottla.broker.request import RequestContext
from ottla.security.acl_bindings import AclBinding

# ACLs that are compared with the filter at once.
COMPARED_AT_ONCE = 5_000


async def handle(ctx: RequestContext, request: Any) -> Fields | Framed:
    wanted = filter_of(request)
    check_enabled(ctx)
    by_pattern: dict[tuple[int, str, int], list[AclBinding]] = {}
    count = 0
    for compared, acl in enumerate(ctx.services.metadata.image.acls.values(), 1):
        if wanted.matches(acl):
            count += 1
            by_pattern.setdefault(acl[:3], []).append(acl)
        if compared % COMPARED_AT_ONCE == 0:
            await ctx.services.slices.pause()
    resources = Lazy(len(by_pattern), map(_resource, by_pattern.values()))
    fields = {"throttle_time_ms": 0, "error_code": 0, "error_message": "", "resources": resources}
    return await in_pieces(ctx, fields) if count > AT_ONCE_MAX else fields


def _resource(acls: list[AclBinding]) -> Fields:
    entries: Iterator[Fields] = map(entry_fields, acls)
    return pattern_fields(acls[0]) | {"acls": Lazy(len(acls), entries)}
