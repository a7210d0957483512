"""Planning changes to configurations (pure; Kafka's ``ConfigurationControlManager``).

Each function returns the configurations that a resource would have, or raises KafkaError.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import IntEnum
from typing import NamedTuple

from ottla.config import BROKER, TOPIC, BrokerConfig, ConfigError, Definition
from ottla.config.values import check_dynamic, check_topic, is_list
from ottla.errors import ErrorCode, KafkaError


class ResourceType(IntEnum):
    """What has configurations (``ConfigResource.Type``)."""

    TOPIC = 2
    BROKER = 4
    BROKER_LOGGER = 8
    CLIENT_METRICS = 16
    GROUP = 32


class OpType(IntEnum):
    """What an incremental change does (``AlterConfigOp.OpType``)."""

    SET = 0
    DELETE = 1
    APPEND = 2
    SUBTRACT = 3


class ConfigChange(NamedTuple):
    """A change to one configuration of a resource."""

    name: str
    operation: int
    value: str | None


def check_topic_configs(config: BrokerConfig, topic: str, overrides: Mapping[str, str]) -> None:
    """KafkaError(INVALID_CONFIG) where a topic could not have these."""
    try:
        check_topic(config, overrides)
    except ConfigError as error:
        raise KafkaError(ErrorCode.invalid_config, str(error)) from None


def check_broker_configs(properties: Mapping[str, str], *, per_broker: bool) -> None:
    """KafkaError where brokers could not take these dynamic values.

    INVALID_REQUEST, as Kafka answers (KAFKA-13609), although INVALID_CONFIG would say it better.
    """
    try:
        check_dynamic(properties, per_broker=per_broker)
    except ConfigError as error:
        raise KafkaError(ErrorCode.invalid_request, str(error)) from None


def changed(
    table: Mapping[str, Definition], current: Mapping[str, str], changes: Sequence[ConfigChange]
) -> dict[str, str]:
    """``current`` after incremental changes. KafkaError(INVALID_CONFIG) for lists that are none."""
    made = dict(current)
    for change in changes:
        if change.operation == OpType.DELETE:
            made.pop(change.name, None)
        elif change.operation == OpType.SET:
            made[change.name] = change.value or ""
        else:
            made[change.name] = _changed_list(table, made, change)
    return made


def _changed_list(table: Mapping[str, Definition], made: Mapping[str, str], change: ConfigChange) -> str:
    operation = OpType(change.operation)
    if not is_list(table, change.name):
        raise KafkaError(
            ErrorCode.invalid_config,
            f"Can't {operation.name} to key {change.name} because its type is not LIST.",
        )
    entry = table[change.name]
    text = made.get(change.name)
    if text is None:
        text = entry.format(entry.default) or ""
    items = [item for item in text.split(",") if item]
    for value in (change.value or "").split(","):
        if operation is OpType.APPEND and value not in items:
            items.append(value)
        elif operation is OpType.SUBTRACT and value in items:
            items.remove(value)
    return ",".join(items)


def check_changes(changes: Sequence[ConfigChange]) -> None:
    """KafkaError(INVALID_REQUEST) where a resource's changes contradict each other or say nothing."""
    names = [change.name for change in changes]
    if len(set(names)) != len(names):
        raise KafkaError(ErrorCode.invalid_request, "Error due to duplicate config keys")
    empty = [change.name for change in changes if change.value is None and change.operation != OpType.DELETE]
    if empty:
        raise KafkaError(ErrorCode.invalid_request, f"Null value not supported for : {', '.join(empty)}")
    for change in changes:
        if change.operation not in list(OpType):
            raise KafkaError(ErrorCode.invalid_request, f"Unknown operations type {change.operation}")


TABLES: dict[ResourceType, Mapping[str, Definition]] = {
    ResourceType.TOPIC: TOPIC,
    ResourceType.BROKER: BROKER,
}
