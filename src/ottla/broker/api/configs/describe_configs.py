"""DescribeConfigs: configurations in force, and where they come from (Kafka's ``ConfigHelper``).

v1 adds sources and synonyms, v3 types and documentation, v4 is flexible. A topic's are its own values
over the broker's; a broker's are its own, so they must be asked of that broker; an empty broker name is
what is set for all brokers. A group's are its own over the brokers', a subscription's to clients' metrics its
own, whether there is such a group or not; loggers are those of the broker that is asked (KIP-412).

DESCRIBE_CONFIGS is asked for of topics and groups, whether they exist or not, and of the cluster for what
else there is.
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any

from ottla.broker.api.configs.resources import check_allowed, check_broker_name
from ottla.broker.large import Fields, Framed, in_pieces, mapped
from ottla.broker.loggers import logger_levels
from ottla.broker.request import RequestContext
from ottla.broker.views.configs import (
    broker_entries,
    client_metrics_entries,
    cluster_entries,
    group_entries,
    logger_entries,
    topic_entries,
)
from ottla.errors import ErrorCode, KafkaError
from ottla.metadata.configs import ResourceType
from ottla.metadata.topics import check_name
from ottla.security.acl_bindings import Operation

# Resources that are described in one turn: a broker has some hundred configurations.
RESOURCES_AT_ONCE_MAX = 3


_KINDS = frozenset(ResourceType)


def handle(ctx: RequestContext, request: Any) -> Fields | Awaitable[Framed]:
    """INVALID_REQUEST for all of them where one is of a kind that there is not."""
    for resource in request.resources:
        if resource.resource_type not in _KINDS:
            raise KafkaError(
                ErrorCode.invalid_request, f"Unsupported resource type: {resource.resource_type}"
            )
    documented = getattr(request, "include_documentation", False)

    def describe(resource: Any) -> Fields:
        result: Fields = {
            "error_code": 0,
            # Kafka's ConfigHelper has no null here.
            "error_message": "",
            "resource_type": resource.resource_type,
            "resource_name": resource.resource_name,
            "configs": (),
        }
        try:
            kind, name = resource.resource_type, resource.resource_name
            check_allowed(ctx, Operation.DESCRIBE_CONFIGS, kind, name)
            entries = _entries(ctx, resource)
        except KafkaError as error:
            return result | {"error_code": int(error.code), "error_message": error.message or ""}
        result["configs"] = [_shown(entry, request.include_synonyms, documented) for entry in entries]
        return result

    if len(request.resources) > RESOURCES_AT_ONCE_MAX:
        return in_pieces(ctx, {"throttle_time_ms": 0, "results": mapped(describe, request.resources)})
    return {"throttle_time_ms": 0, "results": [*map(describe, request.resources)]}


def _shown(entry: Fields, synonyms: bool, documentation: bool) -> Fields:
    if not synonyms:
        entry["synonyms"] = ()
    if not documentation:
        entry["documentation"] = None
    return entry


def _entries(ctx: RequestContext, resource: Any) -> list[Fields]:
    name, names = resource.resource_name, frozenset(resource.configuration_keys or ())
    config, image = ctx.services.config, ctx.services.metadata.image
    kind = resource.resource_type
    if kind == ResourceType.TOPIC:
        check_name(name)
        topic = image.topics.get(name)
        if topic is None:
            raise KafkaError(ErrorCode.unknown_topic_or_partition)
        return topic_entries(config, topic.configs, names)
    if kind == ResourceType.BROKER:
        if not name:
            return cluster_entries(config, names)
        check_broker_name(ctx, name, "Broker")
        return broker_entries(config, names)
    if kind == ResourceType.GROUP:
        if not name:
            raise KafkaError(ErrorCode.invalid_request, "Group name must not be empty")
        return group_entries(config, image.group_configs.get(name, {}), names)
    if kind == ResourceType.CLIENT_METRICS:
        if not name:
            raise KafkaError(ErrorCode.invalid_request, "Client metrics subscription name must not be empty")
        return client_metrics_entries(image.client_metrics.get(name, {}), names)
    if not name:
        raise KafkaError(ErrorCode.invalid_request, "Broker id must not be empty")
    check_broker_name(ctx, name, "Broker")
    return logger_entries(logger_levels(), names)
