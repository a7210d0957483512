"""The resources that a configuration request names: which may be changed here, and each changed by itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ottla.broker.large import AT_ONCE_MAX, Fields, Framed, in_pieces
from ottla.broker.request import RequestContext
from ottla.errors import ErrorCode, KafkaError
from ottla.metadata.configs import ResourceType
from ottla.security.acl_bindings import CLUSTER_NAME, Operation
from ottla.security.acl_bindings import ResourceType as AclResourceType
from ottla.security.refused import refused

# Resources that are changed, or refused, in one turn.
RESOURCES_AT_ONCE_MAX = 20

Change = Callable[[Mapping[str, str]], dict[str, str]]


def check_allowed(ctx: RequestContext, operation: Operation, kind: int, name: str) -> None:
    """KafkaError where the client may not do something to configurations: of topics and groups it is asked by
    their names, of what else there is by the cluster."""
    if kind == ResourceType.TOPIC:
        asked = AclResourceType.TOPIC
    elif kind == ResourceType.GROUP:
        asked = AclResourceType.GROUP
    else:
        asked, name = AclResourceType.CLUSTER, CLUSTER_NAME
    if not ctx.may(operation, asked, name):
        raise refused(asked)


def check_broker_name(ctx: RequestContext, name: str, what: str = "Node") -> None:
    """KafkaError where a broker resource is not this broker."""
    digits = name[1:] if name[:1] in ("-", "+") else name
    if not (digits.isascii() and digits.isdecimal()):
        raise KafkaError(ErrorCode.invalid_request, f"{what} id must be an integer, but it is: {name}")
    if int(name) != ctx.services.node_id:
        raise KafkaError(
            ErrorCode.invalid_request,
            f"Unexpected broker id, expected {ctx.services.node_id}, but received {name}",
        )


def check_logger_name(ctx: RequestContext, name: str) -> None:
    """KafkaError where loggers are not those of this broker."""
    digits = name[1:] if name[:1] in ("-", "+") else name
    if not (digits.isascii() and digits.isdecimal()):
        raise KafkaError(ErrorCode.invalid_request, f"Node id must be an integer, but it is: {name}")
    if int(name) != ctx.services.node_id:
        raise KafkaError(
            ErrorCode.invalid_request,
            f"Unexpected node id. Expected {ctx.services.node_id}, but received {int(name)}",
        )


def check_alterable(ctx: RequestContext, kind: int, name: str) -> ResourceType:
    """The type of a resource whose configurations can be changed here; KafkaError for any other."""
    if kind == ResourceType.BROKER:
        if name:
            check_broker_name(ctx, name)
        return ResourceType.BROKER
    if kind == ResourceType.TOPIC:
        if not name:
            raise KafkaError(ErrorCode.invalid_request, "Default topic resources are not allowed.")
        return ResourceType.TOPIC
    if kind in (ResourceType.GROUP, ResourceType.CLIENT_METRICS):
        return ResourceType(kind)
    raise KafkaError(ErrorCode.invalid_request, f"Unknown resource type {kind}")


def repeated(resources: Sequence[Any]) -> set[tuple[int, str]]:
    """Resources that a request names more than once."""
    seen: set[tuple[int, str]] = set()
    twice = set()
    for resource in resources:
        key = (resource.resource_type, resource.resource_name)
        if key in seen:
            twice.add(key)
        seen.add(key)
    return twice


async def alter_each(
    ctx: RequestContext,
    request: Any,
    plan: Callable[[Any, ResourceType], Change],
    alter_loggers: Callable[[Any, bool], None] | None = None,
) -> Fields | Framed:
    """Change each resource of a request on its own; ``plan`` gives the change, or raises KafkaError, as does
    ``alter_loggers`` (with whether to check only), where an API can change levels of loggers.

    Once the store has failed the rest is not tried: each attempt would take its time.
    """
    twice = repeated(request.resources)
    responses = []
    failed: KafkaError | None = None
    for resource in request.resources:
        kind, name = resource.resource_type, resource.resource_name
        fields = {"resource_type": kind, "resource_name": name, "error_code": 0, "error_message": None}
        try:
            if failed is not None:
                raise failed
            if (kind, name) in twice:
                raise KafkaError(ErrorCode.invalid_request, "Each resource must appear at most once.")
            if kind == ResourceType.BROKER_LOGGER and alter_loggers is not None:
                check_allowed(ctx, Operation.ALTER_CONFIGS, kind, name)
                check_logger_name(ctx, name)
                alter_loggers(resource, request.validate_only)
                continue
            known = check_alterable(ctx, kind, name)
            planned = plan(resource, known)
            check_allowed(ctx, Operation.ALTER_CONFIGS, kind, name)
            await ctx.services.metadata.controller.alter_configs(
                known,
                name,
                planned,
                named=[config.name for config in resource.configs],
                validate_only=request.validate_only,
            )
        except KafkaError as error:
            fields |= {"error_code": int(error.code), "error_message": error.message}
            if error.code is ErrorCode.request_timed_out:
                failed = error
        finally:
            responses.append(fields)
            if len(responses) % RESOURCES_AT_ONCE_MAX == 0:
                # Those that are refused do not wait for the store.
                await ctx.services.slices.pause()
    answer: Fields = {"throttle_time_ms": 0, "responses": responses}
    return await in_pieces(ctx, answer) if len(responses) > AT_ONCE_MAX else answer
