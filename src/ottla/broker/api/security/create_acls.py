"""CreateAcls: allow or deny something to somebody (AclApis.handleCreateAcls, AclControlManager.createAcls).

v1-3 differ in encoding only. Each ACL has an answer of its own, and is in force on this node when that
comes; one that is there already is no error. As in Kafka those that can be created are all at once, but for
more than 128 that are new: then 128 at a time, in order. Where the store fails in between, those before are
told that they were created, those that may have been, and those that were not tried, REQUEST_TIMED_OUT.
Where one has an element that only filters may have (ANY, MATCH) none is created: Kafka fails to make an ACL
of it, and says UNKNOWN_SERVER_ERROR of all.
"""

from __future__ import annotations

from typing import Any

from ottla.broker.api.security.acls import check_enabled, check_known
from ottla.broker.large import Fields, made, several
from ottla.broker.request import RequestContext
from ottla.errors import ErrorCode, KafkaError
from ottla.metadata.access import create_acls
from ottla.security.acl_bindings import AclBinding, Operation, PatternType, Permission, ResourceType


async def handle(ctx: RequestContext, request: Any) -> Fields:
    """CloseConnection where Kafka could not read the request; INVALID_REQUEST for all together."""
    acls = await made(ctx, _acl, request.creations)
    check_enabled(ctx)
    if any(await made(ctx, _is_of_filters, acls)):
        raise KafkaError(ErrorCode.invalid_request, "ANY and MATCH are of filters: an ACL can have neither.")
    results = await create_acls(ctx.services.metadata.controller, acls)
    return {"throttle_time_ms": 0, "results": several(ctx, _result, results)}


def _acl(creation: Any) -> AclBinding:
    check_known(
        creation.resource_type,
        creation.resource_pattern_type,
        creation.operation,
        creation.permission_type,
    )
    return AclBinding.of(
        creation.resource_type, creation.resource_name, creation.resource_pattern_type, creation
    )


def _is_of_filters(acl: AclBinding) -> bool:
    return (
        acl.resource_type is ResourceType.ANY
        or acl.pattern_type in (PatternType.ANY, PatternType.MATCH)
        or acl.operation is Operation.ANY
        or acl.permission is Permission.ANY
    )


def _result(error: KafkaError | None) -> Fields:
    if error is None:
        return {"error_code": 0, "error_message": ""}
    return {"error_code": int(error.code), "error_message": error.message}
