"""DeleteAcls: delete whatever ACLs filters ask for (AclApis.handleDeleteAcls, AclControlManager.deleteAcls).

v1-3 differ in encoding only. The answer names, for each filter, what it found. As in Kafka all of that goes
at once, but for more than 128: then 128 at a time, and where the store fails in between REQUEST_TIMED_OUT
stands by each ACL that may have been deleted, or was not tried. At most 10,000 go by one request: where
filters find more nothing is deleted, and all of them are INVALID_REQUEST. So it is where filters that name no
resource would have more ACLs looked at than fits into a second.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

from ottla.broker.api.security.acls import check_enabled, entry_fields, filter_of, pattern_fields
from ottla.broker.large import AT_ONCE_MAX, Fields, Framed, Lazy, in_pieces, made
from ottla.broker.request import RequestContext
from ottla.errors import ErrorCode, KafkaError
from ottla.metadata.access import delete_acls, found_by
from ottla.security.acl_bindings import AclBinding, AclFilter


async def handle(ctx: RequestContext, request: Any) -> Fields | Framed:
    """CloseConnection where Kafka could not read the request."""
    filters = await made(ctx, filter_of, request.filters)
    check_enabled(ctx)
    known = [wanted for wanted in filters if not wanted.is_unknown()]
    found = await ctx.services.slices.run(found_by(ctx.services.metadata.image.acls, known))
    deleted = [acl for acls in found for acl in acls]
    errors = await delete_acls(ctx.services.metadata.controller, deleted)
    told = partial(_result, errors)
    results = Lazy(len(filters), map(told, filters, _aligned(filters, found)))
    fields: Fields = {"throttle_time_ms": 0, "filter_results": results}
    return await in_pieces(ctx, fields) if len(filters) + len(deleted) > AT_ONCE_MAX else fields


def _aligned(filters: list[AclFilter], found: list[list[AclBinding]]) -> Iterator[list[AclBinding]]:
    """What each of the filters found, nothing where it was not tried."""
    tried = iter(found)
    return (() if wanted.is_unknown() else next(tried) for wanted in filters)  # type: ignore[misc]


def _result(
    errors: Mapping[AclBinding, KafkaError | None], wanted: AclFilter, acls: list[AclBinding]
) -> Fields:
    error = _fault(wanted)
    return {
        "error_code": 0 if error is None else int(error.code),
        "error_message": None if error is None else error.message,
        "matching_acls": Lazy(len(acls), (_deleted(acl, errors[acl]) for acl in acls)),
    }


def _fault(wanted: AclFilter) -> KafkaError | None:
    if not wanted.is_unknown():
        return None
    part = "patternFilter" if 0 in (wanted.resource_type, wanted.pattern_type) else "entryFilter"
    return KafkaError(ErrorCode.invalid_request, f"Unknown {part}.")


def _deleted(acl: AclBinding, error: KafkaError | None) -> Fields:
    said = {
        "error_code": 0 if error is None else int(error.code),
        "error_message": None if error is None else error.message,
    }
    return said | pattern_fields(acl) | entry_fields(acl)
