"""Rules between values of a broker, which no bound of a single one can say (pure).

``check_static`` has what holds for every broker (``KafkaConfig.validateValues`` and the constructors of
``GroupCoordinatorConfig`` and ``ShareGroupConfig``), ``check_change`` what is asked besides of values that
change while brokers run (``DynamicBrokerConfig`` and the ``BrokerReconfigurable`` of each subject).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from ottla.config.definition import ConfigError
from ottla.config.topic import SYNONYMS
from ottla.numbers import INT_MAX, parse_whole, trim

Values = Mapping[str, Any]

_DEDUPE_BYTES_MIN = 1024 * 1024
_CODEC_NUMBERS = range(5)
_RECORDING_LEVELS = ("INFO", "DEBUG", "TRACE")
_HOST = re.compile(r"[0-9a-zA-Z\-%._:]*")


def _group_orders(group: str) -> list[tuple[str, str]]:
    """Pairs of settings of a group protocol of which the first may not be below the second."""
    orders = []
    for timing in ("heartbeat.interval.ms", "session.timeout.ms", "assignment.interval.ms"):
        low, set_, high = (f"group.{group}.{bound}{timing}" for bound in ("min.", "", "max."))
        orders += [(high, low), (set_, low), (high, set_)]
    return orders


# The first may not be below the second.
_ORDERS = (
    *_group_orders("consumer"),
    *_group_orders("share"),
    *_group_orders("streams"),
    ("group.streams.max.standby.replicas", "group.streams.num.standby.replicas"),
    ("group.share.max.delivery.count.limit", "group.share.delivery.count.limit"),
    ("group.share.delivery.count.limit", "group.share.min.delivery.count.limit"),
    ("group.share.max.partition.max.record.locks", "group.share.partition.max.record.locks"),
    ("group.share.partition.max.record.locks", "group.share.min.partition.max.record.locks"),
    ("group.share.max.record.lock.duration.ms", "group.share.record.lock.duration.ms"),
    ("group.share.record.lock.duration.ms", "group.share.min.record.lock.duration.ms"),
    ("group.share.max.share.sessions", "group.share.max.size"),
)

# Pools of threads, which may at most double or halve in one step.
_POOLS = (
    "background.threads",
    "num.io.threads",
    "num.network.threads",
    "num.recovery.threads.per.data.dir",
    "num.replica.fetchers",
    "remote.log.manager.copier.thread.pool.size",
    "remote.log.manager.expiration.thread.pool.size",
    "remote.log.manager.follower.thread.pool.size",
    "remote.log.reader.threads",
)
_CLEANERS = "log.cleaner.threads"
# What the logs take up, and the cleaner, when it changes.
_LOG_SETTINGS = frozenset(synonyms[0].name for synonyms in SYNONYMS.values())
_CLEANER_SETTINGS = frozenset(
    (
        "log.cleaner.backoff.ms",
        "log.cleaner.dedupe.buffer.size",
        "log.cleaner.io.buffer.load.factor",
        "log.cleaner.io.buffer.size",
        "log.cleaner.io.max.bytes.per.second",
        "log.cleaner.threads",
        "message.max.bytes",
    )
)


def check_static(values: Values, topic_defaults: Values) -> None:
    """ConfigError where values contradict each other. ``topic_defaults`` are by names of topics' settings."""
    if topic_defaults["segment.ms"] < 1:
        raise ConfigError("log.roll.ms must be greater than or equal to 1")
    if topic_defaults["segment.jitter.ms"] < 0:
        raise ConfigError("log.roll.jitter.ms must be greater than or equal to 0")
    if topic_defaults["retention.ms"] == 0:
        raise ConfigError("log.retention.ms must be unlimited (-1) or, greater than or equal to 1")
    check_compaction_lags(topic_defaults)
    cleaners = values[_CLEANERS]
    if cleaners < 1 or values["log.cleaner.dedupe.buffer.size"] // cleaners <= _DEDUPE_BYTES_MIN:
        raise ConfigError("log.cleaner.dedupe.buffer.size must be at least 1MB per cleaner thread.")
    _check_replication(values)
    _check_connections(values)
    for larger, smaller in _ORDERS:
        if values[larger] < values[smaller]:
            raise ConfigError(f"{larger} must be greater than or equal to {smaller}")
    for group in ("consumer", "share", "streams"):
        heartbeat, session = f"group.{group}.heartbeat.interval.ms", f"group.{group}.session.timeout.ms"
        if values[heartbeat] >= values[session]:
            raise ConfigError(f"{heartbeat} must be less than {session}")
    if len(values["group.share.assignors"]) != 1:
        raise ConfigError(
            "group.share.assignors must contain exactly one assignor, "
            f"but found {len(values['group.share.assignors'])}"
        )
    for name in ("offsets.topic.compression.codec", "share.coordinator.state.topic.compression.codec"):
        if values[name] not in _CODEC_NUMBERS:
            raise ConfigError(f"Invalid value {values[name]} for configuration {name}: no such codec")
    if values["metrics.recording.level"].upper() not in _RECORDING_LEVELS:
        raise ConfigError(f"metrics.recording.level must be one of {', '.join(_RECORDING_LEVELS)}")


def _check_replication(values: Values) -> None:
    wait_ms = values["replica.fetch.wait.max.ms"]
    if wait_ms > values["replica.socket.timeout.ms"]:
        raise ConfigError(
            "replica.socket.timeout.ms should always be at least replica.fetch.wait.max.ms "
            "to prevent unnecessary socket timeouts"
        )
    if wait_ms > values["replica.lag.time.max.ms"]:
        raise ConfigError(
            "replica.fetch.wait.max.ms should always be less than or equal to replica.lag.time.max.ms "
            "to prevent frequent changes in ISR"
        )


def _check_connections(values: Values) -> None:
    if 0 < values["queued.max.request.bytes"] < values["socket.request.max.bytes"]:
        raise ConfigError("queued.max.request.bytes must be larger or equal to socket.request.max.bytes")
    overrides = parse_connection_overrides(values["max.connections.per.ip.overrides"])
    if values["max.connections.per.ip"] == 0 and not overrides:
        raise ConfigError(
            "max.connections.per.ip can be set to zero only if max.connections.per.ip.overrides "
            "property is set."
        )
    delay_ms, idle_ms = values["connection.failed.authentication.delay.ms"], values["connections.max.idle.ms"]
    if idle_ms >= 0 and delay_ms >= idle_ms:
        raise ConfigError(
            f"connection.failed.authentication.delay.ms={delay_ms} should always be less than "
            f"connections.max.idle.ms={idle_ms} to prevent failed authentication responses from timing out"
        )


def parse_connection_overrides(text: str) -> dict[str, int]:
    """``max.connections.per.ip.overrides``: most connections by host, given as ``host:limit,…``."""
    name = "max.connections.per.ip.overrides"
    limits: dict[str, int] = {}
    for part in text.split(",") if trim(text) else ():
        host, colon, number = part.rpartition(":")
        limit = parse_whole(trim(number), -INT_MAX - 1, INT_MAX)
        if not colon or limit is None:
            raise ConfigError(f"Error parsing configuration property '{name}': {part!r} is not HOST:LIMIT")
        if not _HOST.fullmatch(trim(host)):
            raise ConfigError(f"{name} contains invalid addresses : {trim(host)}")
        limits[trim(host)] = limit
    return limits


def check_compaction_lags(topic_values: Values) -> None:
    """ConfigError where records would be safe from compaction for longer than they may go without it."""
    low, high = topic_values["min.compaction.lag.ms"], topic_values["max.compaction.lag.ms"]
    if low > high:
        raise ConfigError(
            f"conflict topic config setting min.compaction.lag.ms ({low}) > max.compaction.lag.ms ({high})"
        )


# Which nobody may set to 0 while a broker runs, for all listeners or for one.
ABOVE_ZERO = frozenset(("max.connections", "max.connection.creation.rate"))


def check_change(before: Values, after: Values, topic_defaults: Values) -> None:
    """ConfigError where a broker may not go over from ``before`` to ``after`` while it runs.

    A subject is looked at only where one of its own settings changes.
    """
    changed = {name for name, value in after.items() if value != before[name]}
    for name in changed.intersection(_POOLS):
        _check_pool(name, before[name], after[name])
    if changed & _CLEANER_SETTINGS:
        _check_cleaners(before[_CLEANERS], after[_CLEANERS])
    for name in changed & ABOVE_ZERO:
        if after[name] <= 0:
            raise ConfigError(f"Invalid {name} {after[name]}")
    if changed & _LOG_SETTINGS:
        for rule in _TIERED:
            rule(after, topic_defaults)


def _check_pool(name: str, before: int, after: int) -> None:
    refused = f"Dynamic thread count update validation failed for {name}={after}"
    if after < before // 2:
        raise ConfigError(f"{refused}, value should be at least half the current value {before}")
    if after > before * 2:
        raise ConfigError(f"{refused}, value should not be greater than double the current value {before}")


def _check_cleaners(before: int, after: int) -> None:
    if after < before // 2:
        raise ConfigError(
            f"Log cleaner threads cannot be reduced to less than half the current value {before}"
        )
    if after > before * 2:
        raise ConfigError(
            f"Log cleaner threads cannot be increased to more than double the current value {before}"
        )


def _check_local(unit: str) -> Callable[[Values, Values], None]:
    """Nothing may be kept locally for longer than it is kept at all."""
    name, whole = f"log.local.retention.{unit}", f"log.retention.{unit}"

    def check(values: Values, topic_defaults: Values) -> None:
        local, kept = values[name], topic_defaults[f"retention.{unit}"]
        if kept < 0 or local == -2:
            return
        if local == -1:
            raise ConfigError(
                f"Invalid value -1 for configuration {name}: "
                f"Value must not be -1 as {whole} value is set as {kept}."
            )
        if local > kept:
            raise ConfigError(
                f"Invalid value {local} for configuration {name}: "
                f"Value must not be more than {whole} property value: {kept}"
            )

    return check


def _check_lag(unit: str) -> Callable[[Values, Values], None]:
    """Nothing may be dropped locally before it may be copied."""
    name, local_name = f"log.remote.copy.lag.{unit}", f"log.local.retention.{unit}"

    def check(values: Values, topic_defaults: Values) -> None:
        local = values[local_name]
        local = topic_defaults[f"retention.{unit}"] if local == -2 else local
        if 0 <= local < values[name]:
            raise ConfigError(
                f"Invalid value {values[name]} for configuration {name}: "
                f"Value must not exceed {local_name} (effective value: {local})"
            )

    return check


_TIERED = (_check_local("ms"), _check_local("bytes"), _check_lag("ms"), _check_lag("bytes"))
