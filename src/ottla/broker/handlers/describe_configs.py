"""DescribeConfigs: configurations in force, and where they come from (Kafka's ``ConfigHelper``).

v1 adds sources and synonyms, v3 types and documentation, v4 is flexible. A topic's are its own values
over the broker's; a broker's are its own, so they must be asked of that broker; an empty broker name is
what is set for all brokers. Group configurations show their defaults, client metrics subscriptions are
all empty, and loggers cannot be described.
"""

from __future__ import annotations

from typing import Any

from ottla.broker.context import RequestContext
from ottla.broker.handlers._configs import broker_entries, check_broker_name, cluster_entries, topic_entries
from ottla.errors import ErrorCode, KafkaError
from ottla.metadata.configs import ResourceType
from ottla.metadata.topics import check_name

Fields = dict[str, Any]


def handle(ctx: RequestContext, request: Any) -> Fields:
    documented = getattr(request, "include_documentation", False)
    results = []
    for resource in request.resources:
        result: Fields = {
            "error_code": 0,
            "error_message": None,
            "resource_type": resource.resource_type,
            "resource_name": resource.resource_name,
            "configs": (),
        }
        try:
            entries = _entries(ctx, resource)
        except KafkaError as error:
            result |= {"error_code": int(error.code), "error_message": error.message}
        else:
            result["configs"] = [_shown(entry, request.include_synonyms, documented) for entry in entries]
        results.append(result)
    return {"throttle_time_ms": 0, "results": results}


def _shown(entry: Fields, synonyms: bool, documentation: bool) -> Fields:
    if not synonyms:
        entry["synonyms"] = ()
    if not documentation:
        entry["documentation"] = None
    return entry


def _entries(ctx: RequestContext, resource: Any) -> list[Fields]:
    name, names = resource.resource_name, resource.configuration_keys
    config = ctx.services.config
    kind = resource.resource_type
    if kind == ResourceType.TOPIC:
        check_name(name)
        topic = ctx.services.metadata.image.topics.get(name)
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
        return []
    if kind == ResourceType.CLIENT_METRICS:
        if not name:
            raise KafkaError(ErrorCode.invalid_request, "Client metrics subscription name must not be empty")
        return []
    raise KafkaError(ErrorCode.invalid_request, f"Unsupported resource type: {kind}")
