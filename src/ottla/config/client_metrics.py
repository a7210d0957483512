"""Subscriptions to clients' metrics (KIP-714; Kafka's ``ClientMetricsConfigs``).

What is checked here of patterns is whether Python takes them; ``metadata.configs`` checks whether they can be
matched as Java's.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ottla.config.definition import ConfigError, ConfigType, Definition, ListCheck, shorten, table
from ottla.numbers import trim

INTERVAL_MS_MIN, INTERVAL_MS_MAX = 100, 3_600_000
# Kafka knows no limit. The longest that is of use names some clients; compiling one takes the loop's time.
PATTERN_LENGTH_MAX = 1_000

MATCHED = (
    "client_instance_id",
    "client_id",
    "client_software_name",
    "client_software_version",
    "client_source_address",
    "client_source_port",
)

CLIENT_METRICS: dict[str, Definition] = table(
    Definition(
        "interval.ms", ConfigType.INT, 300_000, "medium", "Time between a client's metrics, in milliseconds."
    ),
    Definition(
        "match",
        ConfigType.LIST,
        (),
        "medium",
        "Which clients: NAME=REGEX, all of which must match.",
        ListCheck(),
    ),
    Definition(
        "metrics", ConfigType.LIST, (), "medium", "Prefixes of the metrics' names; * for all.", ListCheck()
    ),
)


class InvalidRequest(ConfigError):
    """What Kafka refuses with INVALID_REQUEST, where INVALID_CONFIG would be expected."""


def client_metrics_values(given: Mapping[str, str]) -> dict[str, Any]:
    """The typed values of a subscription, by name; what cannot be parsed has its default."""
    values = {name: entry.default for name, entry in CLIENT_METRICS.items()}
    for name, text in given.items():
        try:
            values[name] = CLIENT_METRICS[name].parse(text)
        except (KeyError, ConfigError):
            continue
    return values


def check_client_metrics(given: Mapping[str, str]) -> None:
    """ConfigError, or InvalidRequest, where a subscription could not have these."""
    for name in given:
        if name not in CLIENT_METRICS:
            raise InvalidRequest(f"Unknown client metrics configuration: {name}")
    values = {name: CLIENT_METRICS[name].parse(text) for name, text in given.items()}
    interval_ms = values.get("interval.ms", INTERVAL_MS_MIN)
    if not INTERVAL_MS_MIN <= interval_ms <= INTERVAL_MS_MAX:
        raise InvalidRequest(
            f"Invalid value {interval_ms} for interval.ms, "
            f"interval must be between {INTERVAL_MS_MIN} and {INTERVAL_MS_MAX} (1 hour)"
        )
    for pattern in values.get("match", ()):
        if not _is_pattern(pattern):
            raise ConfigError(f"Illegal client matching pattern: {shorten(pattern)}")


def _is_pattern(text: str) -> bool:
    # As Java splits: what is empty at the end does not count.
    parts = text.rstrip("=").split("=")
    if len(parts) != 2 or trim(parts[0]) not in MATCHED or len(text) > PATTERN_LENGTH_MAX:
        return False
    try:
        re.compile(trim(parts[1]))
    except (re.error, RecursionError, OverflowError):
        return False
    return True
