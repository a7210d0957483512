"""What the view shows: the table of states as it changes, the files of the sink, a search now and then."""

from __future__ import annotations

import json
import re
import time
from collections import deque
from pathlib import Path

import pyarrow.parquet as pq
from confluent_kafka import Consumer, KafkaException, TopicPartition

from examples.logs import search, topics
from examples.logs.status import State, read_table

TIMEOUT_S = 10.0
RATE_STEP_S = 0.5
RATES_KEPT = 40
SEARCH_EVERY_S = 2.0
SEARCHED_MS = 10_000
SEARCHED = re.compile("timeout|full")


class Observer:
    """Call `look` often."""

    def __init__(self, bootstrap: str, folder: Path) -> None:
        self.states = read_table(bootstrap)
        self.lines_before = {service: state.lines for service, state in self.states.items()}
        # Lines of each service in each half second, the newest last.
        self.rates: dict[str, deque[int]] = {}
        self.found = search.Found([], 0, 0)
        self.search_ms = 0
        self.events: deque[tuple[float, str]] = deque(maxlen=50)
        self.files = 0
        self.rows = 0
        # Where the topic ended when the run began.
        self.began_at_offsets: dict[int, int] = {}
        self._bootstrap = bootstrap
        self._folder = folder
        self._counted: dict[str, int] = {}
        self._began_at = time.monotonic()
        self._stepped_at = 0.0
        self._searched_at = time.monotonic()
        self._known: set[Path] = set()
        self._reader = Consumer(
            {"bootstrap.servers": bootstrap, "group.id": "logs.nobody", "enable.auto.commit": False}
        )
        at = TopicPartition(topics.STATUS, 0)
        _, at.offset = self._reader.get_watermark_offsets(at, timeout=TIMEOUT_S)
        self._reader.assign([at])
        self.began_at_offsets = self.ends()

    @property
    def elapsed_s(self) -> float:
        return time.monotonic() - self._began_at

    def note(self, line: str) -> None:
        """Put a line among the events."""
        self.events.append((self.elapsed_s, line))

    def ends(self) -> dict[int, int]:
        """The end offset of each partition of the lines."""
        partitions = range(topics.LINES_PARTITIONS)
        return {
            p: self._reader.get_watermark_offsets(TopicPartition(topics.LINES, p), timeout=TIMEOUT_S)[1]
            for p in partitions
        }

    def lines_of_run(self) -> int:
        """How many lines came since the run began."""
        return sum(self.ends().values()) - sum(self.began_at_offsets.values())

    def look(self, wait_s: float) -> None:
        """Take up new states for up to `wait_s`; count files, and search, if it is time."""
        for message in self._reader.consume(1000, wait_s):
            if error := message.error():
                raise KafkaException(error)
            state = State(**json.loads(message.value()))
            self.states[state.service] = state
        now = time.monotonic()
        if now - self._stepped_at >= RATE_STEP_S:
            self._stepped_at = now
            self._step()
        if now - self._searched_at >= SEARCH_EVERY_S:
            self.search_now()

    def search_now(self) -> None:
        """The last seconds, for what is worth looking at."""
        began_at = self._searched_at = time.monotonic()
        now_ms = time.time_ns() // 1_000_000
        self.found = search.search(
            self._bootstrap, now_ms - SEARCHED_MS, now_ms, lambda line: bool(SEARCHED.search(line.text))
        )
        self.search_ms = round((time.monotonic() - began_at) * 1000)

    def close(self) -> None:
        self._reader.close()

    def _step(self) -> None:
        for service, state in self.states.items():
            before = self._counted.get(service, state.lines)
            self._counted[service] = state.lines
            self.rates.setdefault(service, deque(maxlen=RATES_KEPT)).append(state.lines - before)
        for path in self._folder.glob("lines-*.parquet"):
            if path not in self._known:
                self._known.add(path)
                self.rows += pq.read_metadata(path).num_rows
        self.files = len(self._known)
