"""The topics of the shop, and what is in them: the one thing that its services have to agree on.

Every event is JSON; its key is the customer, so that what happens to one customer stays in order. The
programs in Node.js name the same topics.
"""

from __future__ import annotations

import json
from typing import Any

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient, NewTopic

ORDERS = "shop.orders"
PAYMENTS = "shop.payments"
SHIPMENTS = "shop.shipments"
MAILS = "shop.mails"
QUESTIONS = "shop.stock.questions"
ANSWERS = "shop.stock.answers"
# Where billing puts what it could not do: to be tried again after so many milliseconds, and given up.
RETRIES: dict[str, int] = {"shop.billing.retry-500ms": 500, "shop.billing.retry-2s": 2000}
DEAD = "shop.billing.dead-letters"

PARTITIONS: dict[str, int] = {
    ORDERS: 12,
    PAYMENTS: 6,
    SHIPMENTS: 4,
    MAILS: 1,
    QUESTIONS: 4,
    ANSWERS: 1,
    **dict.fromkeys(RETRIES, 1),
    DEAD: 1,
}

BILLING = "shop.billing"
FULFILMENT = "shop.fulfilment"
NOTIFICATIONS = "shop.notifications"
STOCK = "shop.stock"
GROUPS = (BILLING, FULFILMENT, NOTIFICATIONS, STOCK)

RETENTION_MS = 24 * 60 * 60 * 1000

# Headers of what billing passes on: which attempt comes next, when (ms since the Unix epoch), why, and where
# the order came from.
ATTEMPT = "attempt"
DUE_MS = "due-ms"
ERROR = "error"
ORIGIN = "origin"
# Headers of a question, and of its answer.
CORRELATION_ID = "correlation-id"
REPLY_TO = "reply-to"
REPLY_PARTITION = "reply-partition"


def create(bootstrap: str, timeout_s: float = 20.0) -> None:
    """Make the topics that are not there yet."""
    admin = AdminClient({"bootstrap.servers": bootstrap, "log_level": 4})
    new = [
        NewTopic(name, num_partitions=partitions, config={"retention.ms": str(RETENTION_MS)})
        for name, partitions in PARTITIONS.items()
    ]
    for future in admin.create_topics(new).values():
        try:
            future.result(timeout_s)
        except KafkaException as error:
            if error.args[0].name() != "TOPIC_ALREADY_EXISTS":
                raise


def encode(event: dict[str, Any]) -> bytes:
    """An event as the value of a message."""
    return json.dumps(event, separators=(",", ":")).encode()


def decode(value: bytes | None) -> dict[str, Any]:
    """The event in a message; ValueError if there is none in it that names an order."""
    try:
        event = json.loads(value or b"")
    except UnicodeDecodeError as error:
        raise ValueError(f"not text: {error.reason}") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON: {error.msg}") from None
    if not isinstance(event, dict) or not isinstance(event.get("order"), str):
        raise ValueError("no order in it")
    return event
