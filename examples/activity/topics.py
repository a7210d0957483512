"""The topic of the shop's events, and what its readers have to know of them."""

from __future__ import annotations

import json
from typing import Any

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient, NewTopic

TOPIC = "activity.events"
PARTITIONS = 6
RETENTION_MS = 24 * 60 * 60 * 1000

# A funnel's stages are the kinds of event that have to come in this order in one session.
STAGES = ("view", "product", "cart", "checkout", "order")


def from_record(value: bytes | None) -> dict[str, Any] | None:
    """An event of the topic; None for what is none."""
    try:
        event = json.loads(value or b"")
    except ValueError:
        return None
    named = isinstance(event, dict) and all(isinstance(event.get(n), str) for n in ("id", "type", "session"))
    return event if named else None


def stage_of(event: dict[str, Any]) -> str | None:
    """The stage of the funnel that an event reaches; None for the others."""
    if event["type"] == "form":
        return "order" if event.get("form") == "order" else None
    return event["type"] if event["type"] in STAGES else None


def create(bootstrap: str, timeout_s: float = 20.0) -> None:
    """Make the topic if it is not there yet."""
    admin = AdminClient({"bootstrap.servers": bootstrap, "log_level": 4})
    new = NewTopic(TOPIC, num_partitions=PARTITIONS, config={"retention.ms": str(RETENTION_MS)})
    for future in admin.create_topics([new]).values():
        try:
            future.result(timeout_s)
        except KafkaException as error:
            if error.args[0].name() != "TOPIC_ALREADY_EXISTS":
                raise
