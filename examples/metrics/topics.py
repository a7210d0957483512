"""The topics, and what is in them.

`metrics.samples` has what the agents measure, as collectd's write_kafka writes it; the key is the host.
`metrics.scores` has each value that is watched, with what would be usual; `metrics.alerts` what people hear.
"""

from __future__ import annotations

import json
from typing import Any

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient, NewTopic

SAMPLES = "metrics.samples"
SCORES = "metrics.scores"
ALERTS = "metrics.alerts"
PARTITIONS = {SAMPLES: 4, SCORES: 1, ALERTS: 1}
RETENTION_MS = {SAMPLES: 24 * 3600 * 1000, SCORES: 3600 * 1000, ALERTS: 30 * 24 * 3600 * 1000}

DETECTOR = "metrics.detector"
NOTIFIER = "metrics.notifier"


def create(bootstrap: str, timeout_s: float = 20.0) -> None:
    """Make the topics that are not there yet."""
    admin = AdminClient({"bootstrap.servers": bootstrap, "log_level": 4})
    new = [
        NewTopic(name, num_partitions=partitions, config={"retention.ms": str(RETENTION_MS[name])})
        for name, partitions in PARTITIONS.items()
    ]
    for future in admin.create_topics(new).values():
        try:
            future.result(timeout_s)
        except KafkaException as error:
            if error.args[0].name() != "TOPIC_ALREADY_EXISTS":
                raise


def encode(content: dict[str, Any]) -> bytes:
    return json.dumps(content, separators=(",", ":")).encode()


def decode(value: bytes | None) -> dict[str, Any] | None:
    """The object in a message; None if there is none."""
    try:
        content = json.loads(value or b"")
    except ValueError:
        return None
    return content if isinstance(content, dict) else None
