"""Broker configurations of what a node tells of itself. Kafka has none of them: it tells by JMX."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import urlsplit

from ottla.addresses import parse_address
from ottla.config.definition import Check, ConfigType, Definition, Mode, at_least, between, table

LISTENER = "metrics.listener"
SLOW_REQUEST = "slow.request.ms"
OTLP_ENDPOINT, OTLP_HEADERS, OTLP_INTERVAL = "otlp.endpoint", "otlp.headers", "otlp.interval.ms"
HEADERS_MAX = 20
_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")


def parse_headers(text: str | None) -> dict[str, str] | None:
    """NAME=VALUE,NAME=VALUE as OpenTelemetry has it; None where it is something else."""
    found: dict[str, str] = {}
    for pair in (text or "").split(","):
        name, equals, value = pair.partition("=")
        name, value = name.strip(), value.strip()
        if not pair.strip():
            continue
        if not equals or not _HEADER_NAME.fullmatch(name) or not value.isprintable() or not value.isascii():
            return None
        found[name] = value
    return found if len(found) <= HEADERS_MAX else None


def _endpoint_fault(value: Any) -> str | None:
    if not value:
        return None
    try:
        parts = urlsplit(value)
        is_one = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        is_one = False
    if not is_one or not value.isascii() or not value.isprintable() or " " in value:
        return "it must be an http(s) address, such as http://127.0.0.1:4318/v1/metrics, or empty"
    if "@" in parts.netloc:
        # Logs and DescribeConfigs show it.
        return f"a name and password have their place in {OTLP_HEADERS}, where nobody is shown them"
    return None


def _headers_fault(value: Any) -> str | None:
    return None if parse_headers(value) is not None else "it must be NAME=VALUE,NAME=VALUE"


def _fault(value: Any) -> str | None:
    if not value or parse_address(value) is not None:
        return None
    return "it must be HOST:PORT, such as 127.0.0.1:9308, or empty"


OBSERVING: dict[str, Definition] = table(
    Definition(
        LISTENER, ConfigType.STRING, "", "medium",
        "Address at which metrics and health are served by HTTP, as HOST:PORT. Empty: off. Every client"
        " that can connect can read them. A setting of Ottla.",
        Check("HOST:PORT or empty", _fault), Mode.PER_BROKER,
    ),
    Definition(
        "metrics.topics.max", ConfigType.INT, 200, "low",
        "Number of topics with metrics of their own. The others are summed up. A setting of Ottla.",
        at_least(0), Mode.CLUSTER_WIDE,
    ),
    Definition(
        "metrics.groups.max", ConfigType.INT, 500, "low",
        "Number of groups with metrics of their own. The others are summed up. A setting of Ottla.",
        at_least(0), Mode.CLUSTER_WIDE,
    ),
    Definition(
        SLOW_REQUEST, ConfigType.INT, 0, "low",
        "Requests that keep their clients waiting for so many milliseconds, without having been asked to, "
        "have a line in the log: see docs/TRACE.md. 0: none has. Ottla's own.",
        at_least(0), Mode.CLUSTER_WIDE,
    ),
    Definition(
        OTLP_ENDPOINT, ConfigType.STRING, "", "medium",
        "Address of an OpenTelemetry collector to which metrics are sent (OTLP by HTTP), such as "
        "http://127.0.0.1:4318/v1/metrics. Empty: none. A setting of Ottla.",
        Check("an http(s) address or empty", _endpoint_fault), Mode.CLUSTER_WIDE,
    ),
    Definition(
        OTLP_HEADERS, ConfigType.PASSWORD, None, "low",
        "Headers of the requests to otlp.endpoint, as NAME=VALUE,NAME=VALUE, such as a collector's key."
        " A setting of Ottla.",
        Check("NAME=VALUE,NAME=VALUE", _headers_fault), Mode.CLUSTER_WIDE,
    ),
    Definition(
        OTLP_INTERVAL, ConfigType.INT, 60_000, "low",
        "Time between two of them, in milliseconds. Ottla's own.",
        between(1_000, 3_600_000), Mode.CLUSTER_WIDE,
    ),
)  # fmt: skip
