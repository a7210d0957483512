"""What the APIs of ACLs have in common: ACLs and filters in requests and answers."""

from __future__ import annotations

from typing import Any

from ottla.broker.request import CloseConnection, RequestContext
from ottla.errors import ErrorCode, KafkaError
from ottla.security.acl_bindings import (
    AclBinding,
    AclFilter,
    Operation,
    PatternType,
    Permission,
    ResourceType,
)

Fields = dict[str, Any]


def check_enabled(ctx: RequestContext) -> None:
    """KafkaError(SECURITY_DISABLED) where nothing would come of ACLs, as there is no authorizer."""
    if ctx.services.authorizer is None:
        raise KafkaError(
            ErrorCode.security_disabled, "No Authorizer is configured on the broker (authorizer.class.name)."
        )


def check_known(*codes: int) -> None:
    """CloseConnection where one of the codes is 0, which stands for what is not known: no client sends it,
    and Kafka cannot read it."""
    if 0 in codes:
        raise CloseConnection("an ACL, or a filter for some, has an element of the kind UNKNOWN")


def filter_of(asked: Any) -> AclFilter:
    """What DescribeAcls asks for, or DeleteAcls by one of its filters. CloseConnection as ``check_known``."""
    check_known(asked.resource_type_filter, asked.pattern_type_filter, asked.operation, asked.permission_type)
    return AclFilter(
        ResourceType.of(asked.resource_type_filter),
        asked.resource_name_filter,
        PatternType.of(asked.pattern_type_filter),
        asked.principal_filter,
        asked.host_filter,
        Operation.of(asked.operation),
        Permission.of(asked.permission_type),
    )


def entry_fields(acl: AclBinding) -> Fields:
    """What an ACL says, but for the resource."""
    return {
        "principal": acl.principal,
        "host": acl.host,
        "operation": int(acl.operation),
        "permission_type": int(acl.permission),
    }


def pattern_fields(acl: AclBinding) -> Fields:
    """The resources that an ACL is about."""
    return {
        "resource_type": int(acl.resource_type),
        "resource_name": acl.resource_name,
        "pattern_type": int(acl.pattern_type),
    }
