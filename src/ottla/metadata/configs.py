"""Planning changes to configurations (pure; Kafka's ``ConfigurationControlManager``).

Each function returns the configurations that a resource would have, or raises KafkaError.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Mapping, Sequence
from enum import IntEnum
from typing import NamedTuple

from ottla.config import (
    BROKER,
    TOPIC,
    BrokerConfig,
    ConfigError,
    Definition,
    Effect,
    InvalidRequest,
    check_client_metrics,
    check_group,
)
from ottla.config.values import check_topic, is_list
from ottla.errors import ErrorCode, KafkaError
from ottla.metadata.founding import MIN_ISR
from ottla.wire.primitives import STRING_BYTES_MAX

log = logging.getLogger(__name__)


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


# Bytes of a value, which nothing but appending to it can exceed: no request has longer ones. Kafka counts
# characters, and fails to describe what has more bytes than a string may have.
VALUE_BYTES_MAX = STRING_BYTES_MAX


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


def check_broker_configs(config: BrokerConfig, properties: Mapping[str, str], *, per_broker: bool) -> None:
    """KafkaError where a broker, whose ``config`` this is, could not take these dynamic values.

    INVALID_REQUEST, as Kafka answers (KAFKA-13609), although INVALID_CONFIG would say it better.
    """
    try:
        config.check_dynamic(properties, per_broker=per_broker)
    except ConfigError as error:
        raise KafkaError(ErrorCode.invalid_request, str(error)) from None


def check_min_isr(
    named: Collection[str], current: Mapping[str, str], made: Mapping[str, str], *, per_broker: bool
) -> None:
    """KafkaError(INVALID_CONFIG) for a change of brokers' configurations after which nodes would count by
    different ``min.insync.replicas`` (metadata/founding.py): one of a broker's own, or none for the cluster.

    ``named`` are those that the request names, be it to delete what is not there.
    """
    if per_broker and MIN_ISR in named:
        raise KafkaError(
            ErrorCode.invalid_config, f"Broker-level {MIN_ISR} cannot be altered while ELR is enabled."
        )
    if not per_broker and MIN_ISR not in made and (MIN_ISR in current or MIN_ISR in named):
        raise KafkaError(
            ErrorCode.invalid_config, f"Cluster-level {MIN_ISR} cannot be removed while ELR is enabled."
        )


def check_group_configs(config: BrokerConfig, group: str, configs: Mapping[str, str]) -> None:
    """KafkaError where a group could not have these: INVALID_CONFIG, or INVALID_REQUEST without a name."""
    if not group:
        raise KafkaError(ErrorCode.invalid_request, "Default group resources are not allowed.")
    try:
        check_group(config, configs)
    except ConfigError as error:
        raise KafkaError(ErrorCode.invalid_config, str(error)) from None


def check_client_metrics_configs(subscription: str, configs: Mapping[str, str]) -> None:
    """KafkaError where a subscription to clients' metrics could not have these."""
    if not subscription:
        raise KafkaError(ErrorCode.invalid_request, "Subscription name can't be empty")
    # Few clusters have any.
    from ottla.config.client_metrics import client_metrics_values
    from ottla.security.patterns.parse import PatternError
    from ottla.telemetry.subscriptions import patterns_of

    try:
        check_client_metrics(configs)
        patterns_of(client_metrics_values(configs)["match"])
    except PatternError as error:
        raise KafkaError(ErrorCode.invalid_config, f"Illegal client matching pattern: {error}") from None
    except InvalidRequest as error:
        raise KafkaError(ErrorCode.invalid_request, str(error)) from None
    except ConfigError as error:
        raise KafkaError(ErrorCode.invalid_config, str(error)) from None


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
            if len(made[change.name].encode()) > VALUE_BYTES_MAX:
                raise KafkaError(
                    ErrorCode.invalid_config,
                    "The configuration value cannot be added because it exceeds the maximum value size of "
                    f"{VALUE_BYTES_MAX} bytes.",
                )
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
    check_named_once(changes)
    for change in changes:
        if change.operation not in list(OpType):
            raise KafkaError(ErrorCode.invalid_request, f"Unknown operations type {change.operation}")


def check_named_once(changes: Sequence[ConfigChange]) -> None:
    """KafkaError(INVALID_REQUEST) where a configuration is named twice, or lacks a value."""
    names = [change.name for change in changes]
    if len(set(names)) != len(names):
        raise KafkaError(ErrorCode.invalid_request, "Error due to duplicate config keys")
    empty = [change.name for change in changes if change.value is None and change.operation != OpType.DELETE]
    if empty:
        raise KafkaError(ErrorCode.invalid_request, f"Null value not supported for : {', '.join(empty)}")


TABLES: dict[ResourceType, Mapping[str, Definition]] = {
    ResourceType.TOPIC: TOPIC,
    ResourceType.BROKER: BROKER,
    # Kafka's controller knows of no lists here, so that nothing can be appended to them.
    ResourceType.GROUP: {},
    ResourceType.CLIENT_METRICS: {},
}


def warn_without_effect(topic: str, configs: Iterable[str]) -> None:
    """Say in the log which of a topic's new configurations have no effect here."""
    for name in configs:
        if TOPIC[name].effect is Effect.NONE:
            log.warning("topic %s: %s has no effect: %s", topic, name, TOPIC[name].note)
