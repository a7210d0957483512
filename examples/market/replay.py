"""The feed: plays trading days into market.quotes and market.trades, many times as fast as they were.

    python -m examples.market.replay --bootstrap HOST:PORT [--speed X] [--minutes M] --report FILE

It goes on with the day after the last one in the topics. Event times are those of the day; the broker has
them as the records' timestamps.
"""

from __future__ import annotations

import argparse
import datetime
import json
import signal
import threading
import time
from pathlib import Path
from typing import Any

from confluent_kafka import KafkaError, Producer, TopicPartition

from examples.market import topics
from examples.market.day import Event, make_day, opens_at_ms, trading_days

STEP_S = 0.05
FLUSH_S = 30.0


def last_day(bootstrap: str) -> datetime.date | None:
    """The day of the latest quote that is there."""
    consumer = topics.reader(bootstrap)
    latest_ms = -1
    for (topic, partition), end in topics.ends(consumer, (topics.QUOTES,)).items():
        if end:
            consumer.assign([TopicPartition(topic, partition, end - 1)])
            message = consumer.poll(20)
            assert message is not None and message.error() is None, f"{topic}-{partition} cannot be read"
            latest_ms = max(latest_ms, message.timestamp()[1])
    consumer.close()
    if latest_ms < 0:
        return None
    return datetime.datetime.fromtimestamp(latest_ms / 1000, datetime.UTC).date()


class Feed:
    """Sends events, and knows what became of them."""

    def __init__(self, bootstrap: str) -> None:
        self.sent: dict[str, int] = {"trade": 0, "quote": 0}
        self.failed: list[str] = []
        self._producer = Producer(
            {
                "bootstrap.servers": bootstrap,
                "client.id": "market.feed",
                "enable.idempotence": True,
                "linger.ms": 2,
                "compression.type": "zstd",
            }
        )

    def _delivered(self, error: KafkaError | None, _message: Any) -> None:
        if error is not None:
            self.failed.append(error.str())

    def send(self, events: list[Event]) -> None:
        """Quotes first, and trades when those are in the log: who joins the two never sees a trade before
        a quote that is older."""
        for kind, topic in (("quote", topics.QUOTES), ("trade", topics.TRADES)):
            for event in events:
                if event.kind == kind:
                    self._producer.produce(
                        topic,
                        key=event.value["symbol"],
                        value=topics.encode(event.value),
                        timestamp=event.at_ms,
                        headers={topics.TRUTH: event.truth} if event.truth else {},
                        on_delivery=self._delivered,
                    )
                    self.sent[kind] += 1
            left = self._producer.flush(FLUSH_S)
            assert not left, f"{left} messages are not in the log after {FLUSH_S} s"


def play(
    feed: Feed, events: list[Event], opens_ms: int, speed: float, minutes: float, stop: threading.Event
) -> None:
    """One day, or its first minutes, in steps of so many wall-clock seconds."""
    began = time.monotonic()
    at, until_ms = 0, opens_ms + minutes * 60_000
    while at < len(events) and events[at].arrives_ms < until_ms and not stop.is_set():
        now_ms = min(until_ms, opens_ms + (time.monotonic() - began) * 1000 * speed)
        upto = at
        while upto < len(events) and events[upto].arrives_ms < now_ms:
            upto += 1
        feed.send(events[at:upto])
        at = upto
        stop.wait(STEP_S)


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--bootstrap", required=True, metavar="HOST:PORT")
    options.add_argument("--speed", type=float, default=300.0, help="times as fast as it was")
    options.add_argument("--minutes", type=float, help="end after so many minutes of the first day")
    options.add_argument("--report", type=Path, required=True, metavar="FILE")
    arguments = options.parse_args()
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    feed, days = Feed(arguments.bootstrap), []
    for date in trading_days(last_day(arguments.bootstrap)):
        if stop.is_set() or (arguments.minutes and days):
            break
        days.append(date.isoformat())
        events = make_day(date)
        play(feed, events, opens_at_ms(date), arguments.speed, arguments.minutes or 10_000, stop)
    arguments.report.write_text(json.dumps({"sent": feed.sent, "failed": feed.failed, "days": days}))
    return 1 if feed.failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
