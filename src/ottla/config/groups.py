"""Configurations of single groups (Kafka's ``GroupConfig``), within the bounds that the brokers set.

They are kept and checked; groups of the protocols that read them are not served yet.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ottla.config.definition import (
    Check,
    ConfigError,
    ConfigType,
    Definition,
    ListCheck,
    Rule,
    at_least,
    one_of,
    table,
)
from ottla.config.values import BROKER, BrokerConfig
from ottla.numbers import trim

_INT, _LONG, _BOOLEAN = ConfigType.INT, ConfigType.LONG, ConfigType.BOOLEAN
_STRING, _LIST = ConfigType.STRING, ConfigType.LIST
_RACK_TAGS, _ASSIGNOR = "streams.rack.aware.assignment.tags", "streams.assignor.name"
_DEAD_LETTERS = "errors.deadletterqueue.topic.name"
_BETWEEN_ITEMS = re.compile(r"[ \t\n\v\f\r]*,[ \t\n\v\f\r]*")

# Java's Duration.parse.
_DURATION = re.compile(
    r"([-+]?)P(?:([-+]?[0-9]{1,15})D)?"
    r"(T(?:([-+]?[0-9]{1,15})H)?(?:([-+]?[0-9]{1,15})M)?(?:([-+]?[0-9]{1,15})(?:[.,]([0-9]{0,9}))?S)?)?",
    re.IGNORECASE,
)
_BY_DURATION = "by_duration:"


def _is_duration(text: str) -> bool:
    """Whether it is an ISO 8601 duration of days and less, not below zero."""
    match = _DURATION.fullmatch(text)
    if match is None or match[3] in ("T", "t") or not any(match.group(2, 4, 5, 6)):
        return False
    days, hours, minutes, seconds = (int(each or 0) for each in match.group(2, 4, 5, 6))
    fraction = int((match[7] or "").ljust(9, "0")) * (-1 if (match[6] or "").startswith("-") else 1)
    total_ns = (((days * 24 + hours) * 60 + minutes) * 60 + seconds) * 10**9 + fraction
    return (-total_ns if match[1] == "-" else total_ns) >= 0


def _reset_fault(text: str) -> str | None:
    if text in ("earliest", "latest"):
        return None
    if text.startswith(_BY_DURATION) and _is_duration(text.removeprefix(_BY_DURATION)):
        return None
    return "The value must be either 'earliest', 'latest' or of the format 'by_duration:<PnDTnHnMn.nS>'."


def _row(
    name: str,
    kind: ConfigType,
    default: object,
    doc: str,
    check: Rule | None = None,
    *,
    importance: str = "medium",
    internal: bool = False,
) -> Definition:
    return Definition(name, kind, default, importance, doc, check, internal=internal)


GROUP: dict[str, Definition] = table(
    _row("consumer.assignment.interval.ms", _INT, 1_000, "Time between assignments.", at_least(0)),
    _row("consumer.assignor.offload.enable", _BOOLEAN, True, "Assign beside the coordinator.", internal=True),
    _row("consumer.heartbeat.interval.ms", _INT, 5_000, "Time between members' heartbeats.", at_least(1)),
    _row("consumer.session.timeout.ms", _INT, 45_000, "Silence that ends a membership.", at_least(1)),
    _row(
        "errors.deadletterqueue.copy.record.enable",
        _BOOLEAN,
        False,
        "Copy the record itself to the dead letter topic.",
    ),
    _row(_DEAD_LETTERS, _STRING, "", "Topic for records that a share group cannot process."),
    _row("share.assignment.interval.ms", _INT, 1_000, "Time between assignments.", at_least(0)),
    _row("share.assignor.offload.enable", _BOOLEAN, True, "Assign beside the coordinator.", internal=True),
    _row(
        "share.auto.offset.reset",
        _STRING,
        "latest",
        "Offset at which a share group begins: earliest, latest, or by_duration:PnDTnHnMn.nS before now.",
        Check("[latest, earliest, by_duration:PnDTnHnMn.nS]", _reset_fault),
    ),
    _row("share.delivery.count.limit", _INT, 5, "How often a record is delivered.", at_least(2)),
    _row("share.heartbeat.interval.ms", _INT, 5_000, "Time between members' heartbeats.", at_least(1)),
    _row(
        "share.isolation.level",
        _STRING,
        "read_uncommitted",
        "Whether records of open and aborted transactions are delivered.",
        one_of("read_committed", "read_uncommitted"),
    ),
    _row("share.partition.max.record.locks", _INT, 2_000, "Records locked at a time.", at_least(100)),
    _row("share.record.lock.duration.ms", _INT, 30_000, "How long a record is locked.", at_least(1_000)),
    _row("share.renew.acknowledge.enable", _BOOLEAN, True, "Whether locks can be renewed."),
    _row("share.session.timeout.ms", _INT, 45_000, "Silence that ends a membership.", at_least(1)),
    _row(
        "streams.acceptable.recovery.lag",
        _LONG,
        10_000,
        "Offsets that a client may be behind to get an active task.",
        at_least(0),
        internal=True,
    ),
    _row("streams.assignment.interval.ms", _INT, 1_000, "Time between assignments.", at_least(0)),
    _row(_ASSIGNOR, _STRING, None, "Assignor of the group. If it is not set: the first one of the broker."),
    _row("streams.assignor.offload.enable", _BOOLEAN, True, "Assign beside the coordinator.", internal=True),
    _row("streams.heartbeat.interval.ms", _INT, 5_000, "Time between members' heartbeats.", at_least(1)),
    _row("streams.initial.rebalance.delay.ms", _INT, 3_000, "How long a new group waits.", at_least(0)),
    _row("streams.num.standby.replicas", _INT, 0, "Standby replicas of each task.", at_least(0)),
    _row("streams.num.warmup.replicas", _INT, 2, "Warm-up replicas.", at_least(0), internal=True),
    _row(
        _RACK_TAGS,
        _LIST,
        (),
        "Tags of clients that standby tasks are spread over.",
        ListCheck(),
        importance="low",
    ),
    _row("streams.session.timeout.ms", _INT, 45_000, "Silence that ends a membership.", at_least(1)),
    _row(
        "streams.task.offset.interval.ms",
        _INT,
        60_000,
        "Time between what clients tell of their tasks.",
        at_least(1),
        internal=True,
    ),
)

# The broker configuration that gives each its default. Some have none, nor, here, have those that are
# internal.
BROKER_SYNONYMS: dict[str, str] = {name: f"group.{name}" for name in GROUP if f"group.{name}" in BROKER} | {
    _ASSIGNOR: "group.streams.assignors"
}

# Those whose bounds are broker configurations.
_BOUNDED = (
    "consumer.heartbeat.interval.ms",
    "consumer.session.timeout.ms",
    "consumer.assignment.interval.ms",
    "share.heartbeat.interval.ms",
    "share.session.timeout.ms",
    "share.record.lock.duration.ms",
    "share.delivery.count.limit",
    "share.partition.max.record.locks",
    "share.assignment.interval.ms",
    "streams.heartbeat.interval.ms",
    "streams.session.timeout.ms",
    "streams.assignment.interval.ms",
)
# Defaults of Kafka's, for broker configurations that are internal there and unknown here.
_TASK_OFFSET_INTERVAL_MS_MIN = 15_000
_WARMUP_REPLICAS_MAX = 20


def group_values(config: BrokerConfig, overrides: Mapping[str, str]) -> dict[str, Any]:
    """The typed values of a group's configurations, by name.

    One of its own that this version does not know, or cannot parse, is left out: it was valid for whoever
    wrote it.
    """
    values = {name: _default(config, entry) for name, entry in GROUP.items()}
    for name, text in overrides.items():
        try:
            values[name] = GROUP[name].parse(text)
        except (KeyError, ConfigError):
            continue
    return values


def _default(config: BrokerConfig, entry: Definition) -> Any:
    synonym = BROKER_SYNONYMS.get(entry.name)
    if synonym is None:
        return entry.default
    value = config.get(synonym)
    # The brokers' list of assignors, the default first.
    return value[0] if entry.name == _ASSIGNOR else value


def check_group(config: BrokerConfig, given: Mapping[str, str]) -> None:
    """ConfigError where a group could not have these (``GroupConfig.validate``)."""
    for name in given:
        if name not in GROUP:
            raise ConfigError(f"Unknown group config name: {name}")
    _check_tags(given.get(_RACK_TAGS, ""))
    values = {name: GROUP[name].parse(text) for name, text in given.items()}
    _check_bounds(config, values)
    if _ASSIGNOR in values and values[_ASSIGNOR] not in config.get("group.streams.assignors"):
        known = ", ".join(config.get("group.streams.assignors"))
        raise ConfigError(
            f"{_ASSIGNOR} '{values[_ASSIGNOR]}' is not a registered task assignor. "
            f"Registered assignors are: [{known}]."
        )
    for kind in ("consumer", "share", "streams"):
        session, heartbeat = f"{kind}.session.timeout.ms", f"{kind}.heartbeat.interval.ms"
        if (session in values or heartbeat in values) and (
            values.get(session, config.get("group." + session))
            <= values.get(heartbeat, config.get("group." + heartbeat))
        ):
            raise ConfigError(f"{session} must be greater than {heartbeat}")
    if values.get(_DEAD_LETTERS, "").startswith("__"):
        raise ConfigError(f"{_DEAD_LETTERS}: DLQ topic name must not start with '__'")


def _check_tags(text: str) -> None:
    tags = _BETWEEN_ITEMS.split(trim(text)) if trim(text) else []
    if len(set(tags)) != len(tags):
        raise ConfigError(f"{_RACK_TAGS} must not contain duplicate tag keys.")


def _check_bounds(config: BrokerConfig, values: Mapping[str, Any]) -> None:
    for name in _BOUNDED:
        if name in values:
            kind, rest = name.split(".", 1)
            low, high = (config.get(f"group.{kind}.{bound}.{rest}") for bound in ("min", "max"))
            if not low <= values[name] <= high:
                raise ConfigError(f"{name} must be in the range {low} to {high} inclusive.")
    for name, high in (
        ("streams.num.standby.replicas", config.get("group.streams.max.standby.replicas")),
        ("streams.num.warmup.replicas", _WARMUP_REPLICAS_MAX),
    ):
        if values.get(name, 0) > high:
            raise ConfigError(f"{name} must be less than or equal to {high}")
    interval = "streams.task.offset.interval.ms"
    if values.get(interval, _TASK_OFFSET_INTERVAL_MS_MIN) < _TASK_OFFSET_INTERVAL_MS_MIN:
        raise ConfigError(f"{interval} must be greater than or equal to {_TASK_OFFSET_INTERVAL_MS_MIN}")
