"""Configurations as DescribeConfigs and CreateTopics show them (Kafka's ``ConfigHelper``)."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from ottla.broker.context import RequestContext
from ottla.config import BROKER, SYNONYMS, TOPIC, BrokerConfig, Definition, Mode, Source, Synonym
from ottla.errors import ErrorCode, KafkaError
from ottla.metadata.configs import ResourceType

Fields = dict[str, Any]

_TYPE_UNKNOWN = 0


def topic_entries(
    config: BrokerConfig, overrides: Mapping[str, str], names: Collection[str] | None = None
) -> list[Fields]:
    """Every configuration of a topic, or those of ``names``."""
    values = config.topic_values(overrides)
    return [
        _topic_entry(config, TOPIC[name], values[name], overrides)
        for name in TOPIC
        if (not names or name in names) and (not TOPIC[name].internal or name in overrides)
    ]


def _topic_entry(config: BrokerConfig, entry: Definition, value: Any, overrides: Mapping[str, str]) -> Fields:
    synonyms = SYNONYMS.get(entry.name)
    found = config.synonyms(synonyms[0].name) if synonyms else []
    if entry.name in overrides:
        found = [Synonym(entry.name, entry.format(value), Source.TOPIC), *found]
    return _entry(entry.name, entry, entry.format(value), found, read_only=False)


def broker_entries(config: BrokerConfig, names: Collection[str] | None = None) -> list[Fields]:
    """Every configuration of this broker, and what was given that it does not know."""
    unknown = [name for name in config.given if name not in BROKER]
    known = [name for name, entry in BROKER.items() if not entry.internal or config.is_set(name)]
    return [_broker_entry(config, name) for name in [*known, *unknown] if not names or name in names]


def _broker_entry(config: BrokerConfig, name: str) -> Fields:
    entry = BROKER.get(name)
    found = config.synonyms(name)
    value = entry.format(config.get(name)) if entry else None
    return _entry(name, entry, value, found, read_only=entry is None or entry.mode is Mode.READ_ONLY)


def cluster_entries(config: BrokerConfig, names: Collection[str] | None = None) -> list[Fields]:
    """What is set for all brokers."""
    return [
        _entry(
            name,
            BROKER.get(name),
            text,
            [Synonym(name, text, Source.DYNAMIC_CLUSTER)],
            read_only=name not in BROKER or BROKER[name].mode is Mode.READ_ONLY,
        )
        for name, text in config.dynamic_cluster.items()
        if not names or name in names
    ]


def _entry(
    name: str, entry: Definition | None, value: str | None, synonyms: Sequence[Synonym], *, read_only: bool
) -> Fields:
    # What is not known may be a secret.
    sensitive = entry is None or entry.sensitive
    return {
        "name": name,
        "value": None if sensitive else value,
        "read_only": read_only,
        "config_source": int(synonyms[0].source if synonyms else Source.DEFAULT),
        "is_sensitive": sensitive,
        "synonyms": [
            {"name": other.name, "value": None if sensitive else other.value, "source": int(other.source)}
            for other in synonyms
        ],
        "config_type": _TYPE_UNKNOWN if entry is None else int(entry.type),
        "documentation": None if entry is None else entry.doc,
    }


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
    if kind in list(ResourceType):
        raise KafkaError(
            ErrorCode.invalid_request, f"{ResourceType(kind).name} configurations cannot be changed here"
        )
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


Change = Callable[[Mapping[str, str]], dict[str, str]]


async def alter_each(
    ctx: RequestContext, request: Any, plan: Callable[[Any, ResourceType], Change]
) -> Fields:
    """Change each resource of a request on its own; ``plan`` gives the change, or raises KafkaError.

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
            known = check_alterable(ctx, kind, name)
            await ctx.services.metadata.controller.alter_configs(
                known, name, plan(resource, known), validate_only=request.validate_only
            )
        except KafkaError as error:
            fields |= {"error_code": int(error.code), "error_message": error.message}
            if error.code is ErrorCode.request_timed_out:
                failed = error
        responses.append(fields)
    return {"throttle_time_ms": 0, "responses": responses}
