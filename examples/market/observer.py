"""Reads what the streams write, for the view and the chart. It takes part in nothing and commits nothing."""

from __future__ import annotations

import datetime
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any

from confluent_kafka import ConsumerGroupTopicPartitions, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient

from examples.market import topics

EVENTS_KEPT = 60
MINUTE_MS = 60_000


@dataclass(slots=True)
class Symbol:
    """One instrument, on the day that is shown."""

    bars: dict[int, dict[str, Any]] = field(default_factory=dict)
    signals: dict[int, dict[str, Any]] = field(default_factory=dict)
    alarms: dict[tuple[str, int], dict[str, Any]] = field(default_factory=dict)
    # Of joined trades, by minute: sum of spreads (relative), number of trades.
    spreads: dict[int, tuple[float, int]] = field(default_factory=dict)
    spread: float = 0.0

    @property
    def position(self) -> str:
        """What the signals that were followed say now."""
        followed = [one["action"] for _, one in sorted(self.signals.items()) if not one["held_back"]]
        return {"buy": "long", "sell": "short", "flat": "flat"}[followed[-1]] if followed else "flat"

    def closes(self) -> list[float]:
        """Closing prices in order of time."""
        return [bar["close"] for _, bar in sorted(self.bars.items())]


class Observer:
    """What was seen since it was made. Use from one thread."""

    def __init__(self, bootstrap: str) -> None:
        self.began = time.monotonic()
        self.day: datetime.date | None = None
        self.symbols: dict[str, Symbol] = {}
        self.events: deque[tuple[float, str, str]] = deque(maxlen=EVENTS_KEPT)
        # What there is, each counted once: what is written again after a kill is the same.
        self.counts: dict[str, int] = dict.fromkeys(topics.OUTPUTS, 0)
        self.latest_ms = 0
        self._seen: set[tuple[str, str]] = set()
        self._admin = AdminClient({"bootstrap.servers": bootstrap, "log_level": 4})
        self._consumer = topics.reader(bootstrap)
        begin = topics.ends(self._consumer, topics.OUTPUTS)
        self._consumer.assign([TopicPartition(*where, at) for where, at in begin.items()])

    @property
    def elapsed_s(self) -> float:
        return time.monotonic() - self.began

    def close(self) -> None:
        self._consumer.close()

    def note(self, line: str, style: str = "") -> None:
        """Something that happened, for the view."""
        self.events.append((self.elapsed_s, line, style))

    def look(self, timeout_s: float) -> int:
        """Take up what came, waiting that long for something. How many messages."""
        messages = self._consumer.consume(2000, timeout_s)
        for message in messages:
            if message.error() is not None:
                raise KafkaException(message.error())
            self._take(message.topic(), message.key().decode(), topics.decode(message))
        return len(messages)

    def _take(self, topic: str, key: str, value: dict[str, Any]) -> None:
        at_ms = value.get("at_ms") or value["start_ms"]
        date = datetime.datetime.fromtimestamp(at_ms / 1000, datetime.UTC).date()
        if self.day is None or date > self.day:
            # A new day is a new page.
            self.day, self.symbols = date, {}
        elif date < self.day:
            return
        self.latest_ms = max(self.latest_ms, at_ms)
        symbol = self.symbols.setdefault(value["symbol"], Symbol())
        new = (topic, key) not in self._seen
        if new:
            self._seen.add((topic, key))
            self.counts[topic] += 1
        if topic == topics.BARS:
            symbol.bars[at_ms] = value
        elif topic == topics.QUOTED:
            if new and value["spread"] is not None:
                minute = at_ms // MINUTE_MS * MINUTE_MS
                total, count = symbol.spreads.get(minute, (0.0, 0))
                symbol.spreads[minute] = (total + value["spread"], count + 1)
                symbol.spread = value["spread"]
        elif topic == topics.ALARMS:
            symbol.alarms[value["kind"], at_ms] = value
            if new:
                self.note(_alarm_line(value), "yellow")
        elif topic == topics.SIGNALS:
            symbol.signals[at_ms] = value
            if new:
                self.note(_signal_line(value), "dim" if value["held_back"] else "cyan")

    def lags(self, timeout_s: float = 10.0) -> dict[str, int]:
        """How far each group is behind the ends of its topics: messages not committed."""
        lags = {}
        for group, inputs in topics.GROUPS.items():
            asked = self._admin.list_consumer_group_offsets(
                [ConsumerGroupTopicPartitions(group)], request_timeout=timeout_s
            )
            committed = {
                (at.topic, at.partition): max(0, at.offset)
                for at in asked[group].result(timeout_s).topic_partitions
            }
            ends = topics.ends(self._consumer, inputs)
            lags[group] = sum(end - committed.get(where, 0) for where, end in ends.items())
        return lags


def clock(at_ms: int) -> str:
    """The time of day on the market's clock."""
    return f"{datetime.datetime.fromtimestamp(at_ms / 1000, datetime.UTC):%H:%M:%S}"


def _alarm_line(alarm: dict[str, Any]) -> str:
    what = {
        "spread": f"spread of {alarm['value'] * 1e4:.1f} bp",
        "print": f"printed at {alarm['price']:.2f}, {alarm['value'] * 100:+.1f} % from the quote",
        "jump": f"jumped by {alarm['value'] * 100:+.2f} % in a minute",
    }[alarm["kind"]]
    return f"{clock(alarm['at_ms'])} {alarm['symbol']} {what} (z = {alarm['score']:+.0f})"


def _signal_line(signal: dict[str, Any]) -> str:
    held_back = ", held back: too wild" if signal["held_back"] else ""
    what = f"{signal['action']} at {signal['price']:.2f}{held_back}"
    return f"{clock(signal['at_ms'])} {signal['symbol']} signal: {what}"
