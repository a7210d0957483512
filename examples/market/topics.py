"""The topics of the market, and how they are made.

What comes in is keyed by symbol, so that one instrument stays in order. What comes out is keyed by what it is
about (a bar, a trade, an alarm): written twice, it is still one, and compaction keeps the last.
"""

from __future__ import annotations

import json
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

TRADES = "market.trades"
QUOTES = "market.quotes"
BARS = "market.bars"
QUOTED = "market.quoted-trades"
ALARMS = "market.alarms"
SIGNALS = "market.signals"

INPUTS = (TRADES, QUOTES)
OUTPUTS = (BARS, QUOTED, ALARMS, SIGNALS)
PARTITIONS = 4

BARS_GROUP = "market.bars"
JOIN_GROUP = "market.join"
GROUPS: dict[str, tuple[str, ...]] = {BARS_GROUP: (TRADES,), JOIN_GROUP: INPUTS}

# A header of trades and quotes: what is to be found in them, for the one who counts. No stream reads it.
TRUTH = "truth"


def create(bootstrap: str, timeout_s: float = 20.0) -> None:
    """Make the topics that are not there yet.

    The days that are replayed lie years back, and retention goes by the time of the records: a week of it
    would remove them at once."""
    admin = AdminClient({"bootstrap.servers": bootstrap})
    kept = {"retention.ms": "-1"}
    new = [NewTopic(topic, num_partitions=PARTITIONS, config=kept) for topic in INPUTS]
    new += [
        NewTopic(topic, num_partitions=PARTITIONS, config={**kept, "cleanup.policy": "compact"})
        for topic in OUTPUTS
    ]
    for future in admin.create_topics(new).values():
        try:
            future.result(timeout_s)
        except KafkaException as error:
            if error.args[0].name() != "TOPIC_ALREADY_EXISTS":
                raise


def encode(value: dict[str, Any]) -> bytes:
    """The value of a message."""
    return json.dumps(value, separators=(",", ":")).encode()


def decode(message: Message) -> dict[str, Any]:
    """The value in a message."""
    value = json.loads(message.value())
    assert isinstance(value, dict)
    return value


def truth_of(message: Message) -> str:
    """What is to be found in a trade or quote; "" for nothing."""
    return next((value.decode() for name, value in message.headers() or [] if name == TRUTH), "")


def reader(bootstrap: str, **more: Any) -> Consumer:
    """A consumer for those who only look: in no group that counts, committing nothing.

    What is in a transaction it sees once that is committed, and never if it is not."""
    return Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": "market.onlooker",
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
            "isolation.level": "read_committed",
            "fetch.wait.max.ms": 50,
            **more,
        }
    )


def ends(consumer: Consumer, topics: tuple[str, ...], timeout_s: float = 20.0) -> dict[tuple[str, int], int]:
    """Where each partition of the topics ends now."""
    return {
        (topic, partition): consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout_s)[1]
        for topic in topics
        for partition in range(PARTITIONS)
    }


def read_all(bootstrap: str, topic: str, timeout_s: float = 60.0, **more: Any) -> list[Message]:
    """All that is in a topic now, each partition in its order; ``more``: as for ``reader``."""
    consumer = reader(bootstrap, **{"enable.partition.eof": True}, **more)
    left = set(range(PARTITIONS))
    consumer.assign([TopicPartition(topic, partition, 0) for partition in left])
    found: list[Message] = []
    while left:
        messages = consumer.consume(10_000, 0.5)
        assert messages or (timeout_s := timeout_s - 0.5) > 0, f"{topic}: nothing comes any more"
        for message in messages:
            error = message.error()
            if error is None:
                found.append(message)
            elif error.code() == KafkaError._PARTITION_EOF:
                # It tells the end, not what was seen last: behind that is the end of a transaction, or what
                # compaction has taken.
                left.discard(message.partition())
            else:
                raise KafkaException(error)
    consumer.close()
    return sorted(found, key=lambda message: (message.partition(), message.offset()))
