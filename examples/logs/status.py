"""Keeps the latest state of each service in `logs.status`, from the lines of all.

The topic is the table: at its start this program reads it from the beginning, and has the state that it had.
A state says up to which offset its service's lines are in it, so that lines which come again after a crash
are told apart, and counted once.
"""

from __future__ import annotations

import argparse
import json
import signal
import time
from dataclasses import asdict, dataclass

from confluent_kafka import Consumer, KafkaException, Message, Producer, TopicPartition

from examples.logs import topics

PUBLISH_EVERY_S = 0.5
READ_MAX = 2000
TIMEOUT_S = 10.0


@dataclass
class State:
    """One service, as of its latest line."""

    service: str
    lines: int = 0
    warnings: int = 0
    errors: int = 0
    # Of the latest line, in ms since the Unix epoch, and which it was.
    at_ms: int = 0
    text: str = ""
    error: str = ""
    # Lines of this service before this offset are in it.
    next_offset: int = 0

    def take(self, line: topics.Line, offset: int) -> bool:
        """Add a line; False if it is in already."""
        if offset < self.next_offset:
            return False
        self.next_offset = offset + 1
        self.lines += 1
        self.at_ms, self.text = line.at_ms, line.text
        if line.level in topics.ERRORS:
            self.errors += 1
            self.error = line.text
        elif line.level == "warning":
            self.warnings += 1
        return True


def read_table(bootstrap: str) -> dict[str, State]:
    """The states in the topic, the last of each service."""
    consumer = Consumer(
        {"bootstrap.servers": bootstrap, "group.id": "logs.nobody", "enable.auto.commit": False}
    )
    at = TopicPartition(topics.STATUS, 0)
    low, end = consumer.get_watermark_offsets(at, timeout=TIMEOUT_S)
    at.offset = low
    consumer.assign([at])
    states: dict[str, State] = {}
    # Compaction leaves gaps: what counts is the position, not how many messages there were.
    while consumer.position([at])[0].offset < end:
        for message in consumer.consume(READ_MAX, 0.2):
            if error := message.error():
                raise KafkaException(error)
            state = State(**json.loads(message.value()))
            states[state.service] = state
        if low == end:
            break
    consumer.close()
    return states


class Keeper:
    """Reads lines, keeps the states, publishes those that changed."""

    def __init__(self, bootstrap: str) -> None:
        self.stopping = False
        self._states = read_table(bootstrap)
        self._changed: dict[str, State] = {}
        self._next_offsets: dict[int, int] = {}
        self._producer = Producer({"bootstrap.servers": bootstrap, "client.id": "status", "acks": "all"})
        self._consumer = Consumer(
            {
                "bootstrap.servers": bootstrap,
                "client.id": "status",
                "group.id": topics.STATUS_GROUP,
                "auto.offset.reset": "earliest",
                "enable.auto.commit": False,
                "session.timeout.ms": 6000,
                "group.instance.id": "status",
            }
        )

    def run(self) -> None:
        self._consumer.subscribe([topics.LINES], on_revoke=lambda *_: self._publish())
        published_at = time.monotonic()
        while not self.stopping:
            for message in self._consumer.consume(READ_MAX, 0.1):
                if error := message.error():
                    raise KafkaException(error)
                self._take(message)
            if time.monotonic() - published_at > PUBLISH_EVERY_S:
                published_at = time.monotonic()
                self._publish()
        self._consumer.close()

    def _take(self, message: Message) -> None:
        line = topics.parse(message.key(), message.value(), message.timestamp()[1])
        state = self._states.setdefault(line.service, State(line.service))
        if state.take(line, message.offset()):
            self._changed[line.service] = state
        self._next_offsets[message.partition()] = message.offset() + 1

    def _publish(self) -> None:
        """First the states, then the offsets: after a crash in between lines come again, and are known."""
        for service, state in self._changed.items():
            self._producer.produce(topics.STATUS, topics.encode(asdict(state)), service)
        if self._producer.flush(TIMEOUT_S):
            raise RuntimeError("the states could not be published")
        self._changed.clear()
        if self._next_offsets:
            offsets = [TopicPartition(topics.LINES, *at) for at in self._next_offsets.items()]
            self._consumer.commit(offsets=offsets, asynchronous=False)
            self._next_offsets.clear()


def main() -> None:
    options = argparse.ArgumentParser(prog="python -m examples.logs.status", description=__doc__)
    options.add_argument("--bootstrap", required=True)
    keeper = Keeper(options.parse_args().bootstrap)

    def stop(*_: object) -> None:
        keeper.stopping = True

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    keeper.run()


if __name__ == "__main__":
    main()
