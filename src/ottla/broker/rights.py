"""What handlers ask of a client's rights: the demands of ``security.demands`` that are not the gate's."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import compress

from ottla.broker.large import made
from ottla.broker.request import RequestContext
from ottla.errors import KafkaError
from ottla.security.acl_bindings import CLUSTER_NAME, Operation, ResourceType
from ottla.security.demands import refused

TOPIC, GROUP, CLUSTER = ResourceType.TOPIC, ResourceType.GROUP, ResourceType.CLUSTER
TRANSACTIONAL_ID = ResourceType.TRANSACTIONAL_ID


def check(ctx: RequestContext, operation: Operation, kind: ResourceType, name: str) -> None:
    """KafkaError, as ``demands.refused``, where the client may not do that."""
    if not ctx.may(operation, kind, name):
        raise refused(kind)


def refusal(ctx: RequestContext, operation: Operation, kind: ResourceType, name: str) -> KafkaError | None:
    """Why the client may not do that; None where it may."""
    return None if ctx.may(operation, kind, name) else refused(kind)


def may_cluster(ctx: RequestContext, operation: Operation) -> bool:
    """Whether the client may do something to the cluster as a whole."""
    return ctx.may(operation, CLUSTER, CLUSTER_NAME)


async def allowed(
    ctx: RequestContext, operation: Operation, kind: ResourceType, names: Sequence[str]
) -> list[str]:
    """Those of the names to which the client may do that, in pieces if they are many."""
    may = await made(ctx, lambda name: ctx.may(operation, kind, name), names)
    return list(compress(names, may))


def operations(ctx: RequestContext, kind: ResourceType, name: str, everything: int) -> int:
    """What the client may do to a resource, as bits; ``everything`` where there is no authorizer."""
    permissions = ctx.client.permissions
    return everything if permissions is None else permissions.operations(kind, name)


def cluster_operations(ctx: RequestContext, everything: int) -> int:
    """What it may do to the cluster: nothing that it is told of where it may not describe it."""
    if not may_cluster(ctx, Operation.DESCRIBE):
        return 0
    return operations(ctx, CLUSTER, CLUSTER_NAME, everything)
