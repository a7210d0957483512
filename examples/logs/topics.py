"""The two topics, and what a line is: the one thing that all programs here agree on.

`logs.lines` has every line, keyed by service, so that the lines of one service stay in order. The broker
stamps them with the time at which they came (LogAppendTime): within a partition those times never go back,
so the offset that belongs to a time is exact, whatever the clock of the writer says.

`logs.status` has the latest state of each service under its name. It is compacted: earlier states go, the
last one stays for good.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient, NewTopic

LINES = "logs.lines"
STATUS = "logs.status"
LINES_PARTITIONS = 4
STATUS_GROUP = "logs.status"
SINK_GROUP = "logs.sink"

# By how much a line may come later than it was written, before a search misses it.
LATE_MS_MAX = 60_000

# Levels are syslog's names. Those of Python's logging, and which of them are bad news.
LEVELS = {"DEBUG": "debug", "INFO": "info", "WARNING": "warning", "ERROR": "err", "CRITICAL": "crit"}
ERRORS = frozenset({"err", "crit", "alert", "emerg"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A line as it lies in the topic. Times in ms since the Unix epoch."""

    at_ms: int
    service: str
    level: str
    text: str
    host: str = ""
    pid: str = ""
    # Which way it came: rsyslog, python.
    via: str = ""


def create(bootstrap: str, timeout_s: float = 20.0) -> None:
    """Make the topics that are not there yet."""
    admin = AdminClient({"bootstrap.servers": bootstrap, "log_level": 4})
    lines = {"message.timestamp.type": "LogAppendTime", "retention.ms": str(7 * 24 * 3600 * 1000)}
    # Small segments that are closed soon: only closed ones are compacted.
    status = {"cleanup.policy": "compact", "segment.ms": "60000", "min.cleanable.dirty.ratio": "0.1"}
    new = [
        NewTopic(LINES, num_partitions=LINES_PARTITIONS, config=lines),
        NewTopic(STATUS, num_partitions=1, config=status),
    ]
    for future in admin.create_topics(new).values():
        try:
            future.result(timeout_s)
        except KafkaException as error:
            if error.args[0].name() != "TOPIC_ALREADY_EXISTS":
                raise


def parse(key: bytes | None, value: bytes | None, arrived_ms: int) -> Line:
    """The line in a message. What cannot be read is a line as well: as it is, and of the time it came."""
    try:
        found = json.loads(value or b"")
        return Line(
            at_ms=round(datetime.fromisoformat(found["at"]).timestamp() * 1000),
            service=str(found["service"]),
            level=str(found["level"]),
            text=str(found["text"]),
            host=str(found.get("host", "")),
            pid=str(found.get("pid", "")),
            via=str(found.get("via", "")),
        )
    except (ValueError, TypeError, KeyError, AttributeError):
        service = (key or b"?").decode(errors="replace")
        text = (value or b"").decode(errors="replace")
        return Line(at_ms=arrived_ms, service=service, level="notice", text=text, via="unread")


def encode(document: dict[str, Any]) -> bytes:
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()
