"""The audit log: one line for each operation that was denied, on DEBUG also for each that was allowed, as
Kafka's ``kafka.authorizer.logger`` has it.

Decisions that only filter an answer are not logged: lists, and the operations that a client may do.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final, Protocol

from ottla.security.acl_bindings import AclBinding, Operation, ResourceType
from ottla.security.principals import ANONYMOUS, KafkaPrincipal
from ottla.text import printable
from ottla.wire.apis import APIS

if TYPE_CHECKING:
    from ottla.security.acl_rules import Decision

AUDIT: Final = logging.getLogger("ottla.authorizer")

# What is told of one request, which may name thousands of things.
DENIALS_TOLD_MAX: Final = 20

_KINDS: Final = {
    ResourceType.TOPIC: "Topic",
    ResourceType.GROUP: "Group",
    ResourceType.CLUSTER: "Cluster",
    ResourceType.TRANSACTIONAL_ID: "TransactionalId",
    ResourceType.DELEGATION_TOKEN: "DelegationToken",
    ResourceType.USER: "User",
}


class Who(Protocol):
    """Whoever asks."""

    @property
    def principal(self) -> KafkaPrincipal: ...

    @property
    def host(self) -> str: ...


def tell(
    decision: Decision,
    who: Who,
    api_key: int,
    operation: Operation,
    kind: ResourceType,
    name: str,
    denied: int = 0,
) -> None:
    """``denied``: how many of a request's things were by now."""
    line = (
        f"Principal = {who.principal} is {'Allowed' if decision.allowed else 'Denied'} "
        f"operation = {operation.name} from host = {who.host} "
        f"on resource = {_KINDS[kind]}:LITERAL:{name} for request = {APIS[api_key].name} "
        f"with resourceRefCount = 1 based on rule {_rule(decision.rule)}"
    )
    # Whose line it is, for whoever limits how many there are.
    extra = {"host": who.host, "is_stranger": who.principal is ANONYMOUS}
    if decision.allowed:
        AUDIT.debug("%s", printable(line), extra=extra)
    elif denied < DENIALS_TOLD_MAX:
        AUDIT.info("%s", printable(line), extra=extra)
    else:
        more = "(whatever else this request is denied is left out)"
        AUDIT.info("%s %s", printable(line), more, extra=extra)


def _rule(rule: AclBinding | str) -> str:
    if isinstance(rule, str):
        return rule
    return (
        f"MatchingAcl(acl=StandardAcl[resourceType={rule.resource_type.name}, "
        f"resourceName={rule.resource_name}, patternType={rule.pattern_type.name}, "
        f"principal={rule.principal}, host={rule.host}, operation={rule.operation.name}, "
        f"permissionType={rule.permission.name}])"
    )
