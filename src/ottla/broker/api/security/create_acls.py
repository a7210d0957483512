"""CreateAcls: allow or deny something to somebody (AclApis.handleCreateAcls, AclControlManager.createAcls).

v1-3 differ in encoding only. Each ACL stands on its own, and is in force on this node when the answer comes;
one that is there already is no error. Where they are more than 64 they are not created all at once.
"""

from __future__ import annotations

from typing import Any

from ottla.broker.api.security.acls import check_enabled, check_known
from ottla.broker.large import Fields, made, several
from ottla.broker.request import RequestContext
from ottla.errors import KafkaError
from ottla.metadata.access import create_acls
from ottla.security.acl_bindings import (
    AclBinding,
    Operation,
    PatternType,
    Permission,
    ResourceType,
)


async def handle(ctx: RequestContext, request: Any) -> Fields:
    """CloseConnection where Kafka could not read the request."""
    acls = await made(ctx, _acl, request.creations)
    check_enabled(ctx)
    results = await create_acls(ctx.services.metadata.controller, acls)
    return {"throttle_time_ms": 0, "results": several(ctx, _result, results)}


def _acl(creation: Any) -> AclBinding:
    check_known(
        creation.resource_type,
        creation.resource_pattern_type,
        creation.operation,
        creation.permission_type,
    )
    return AclBinding(
        ResourceType.of(creation.resource_type),
        creation.resource_name,
        PatternType.of(creation.resource_pattern_type),
        creation.principal,
        creation.host,
        Operation.of(creation.operation),
        Permission.of(creation.permission_type),
    )


def _result(error: KafkaError | None) -> Fields:
    if error is None:
        return {"error_code": 0, "error_message": None}
    return {"error_code": int(error.code), "error_message": error.message}
