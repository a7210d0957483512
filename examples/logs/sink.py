"""Keeps every line in Parquet files, none lost, none twice, however often it is killed.

The position is not in the consumer group: it is in the files themselves, see `parquet.py`. The group only
shares the partitions out among several sinks, and shows the lag to whoever looks.
"""

from __future__ import annotations

import argparse
import contextlib
import signal
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from confluent_kafka import (
    Consumer,
    KafkaException,
    Message,
    TopicCollection,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient

from examples.logs import topics
from examples.logs.parquet import Chain

READ_MAX = 2000
# A file is written when it has so many rows, or when its first row has waited so long.
ROWS_MAX = 20_000
WAIT_S = 1.0
TIMEOUT_S = 10.0


def folder_of(bootstrap: str, directory: Path) -> Path:
    """Where the files of the topic are: under its id, since a topic made anew begins anew."""
    admin = AdminClient({"bootstrap.servers": bootstrap, "log_level": 4})
    described = admin.describe_topics(TopicCollection([topics.LINES]), request_timeout=TIMEOUT_S)
    topic_id = str(described[topics.LINES].result().topic_id)
    return directory / "".join(c if c.isalnum() else "-" for c in topic_id)


@dataclass
class Buffer:
    """Rows of one partition that are in no file yet."""

    first: int
    next_offset: int
    since: float = 0.0
    rows: list[dict[str, Any]] = field(default_factory=list)


class Sink:
    """One member of the group."""

    def __init__(self, bootstrap: str, name: str, chain: Chain, rows_max: int, wait_s: float) -> None:
        self.stopping = False
        self._chain = chain
        self._rows_max = rows_max
        self._wait_s = wait_s
        self._buffers: dict[int, Buffer] = {}
        self._consumer = Consumer(
            {
                "bootstrap.servers": bootstrap,
                "client.id": name,
                "group.id": topics.SINK_GROUP,
                # The position is ours to say. If it is out of range lines are missing: end, do not skip.
                "auto.offset.reset": "error",
                "enable.auto.commit": False,
                "session.timeout.ms": 6000,
                # A static member: who comes back under this name has its partitions at once, and the group
                # does not wait for the end of a dead one's session.
                "group.instance.id": name,
            }
        )

    def run(self) -> None:
        self._consumer.subscribe(
            [topics.LINES], on_assign=self._assigned, on_revoke=self._revoked, on_lost=self._lost
        )
        while not self.stopping:
            for message in self._consumer.consume(min(READ_MAX, self._rows_max), 0.1):
                if error := message.error():
                    raise KafkaException(error)
                self._take(message)
            self._write_due()
        # Closing revokes what we have, and so writes it.
        self._consumer.close()

    def _assigned(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        for partition in partitions:
            position = self._chain.next_offset(partition.partition)
            # A new chain starts where the topic starts: retention may have taken the first offsets.
            start, end = consumer.get_watermark_offsets(partition, timeout=TIMEOUT_S)
            first = start if position is None else position
            if not start <= first <= end:
                raise SystemExit(
                    f"{partition.topic}-{partition.partition} has {start} to {end}, we were at {first}"
                )
            partition.offset = first
            self._buffers[partition.partition] = Buffer(first, first)
        consumer.assign(partitions)
        print("assigned", {partition.partition: partition.offset for partition in partitions}, flush=True)

    def _revoked(self, _: Consumer, partitions: list[TopicPartition]) -> None:
        for partition in partitions:
            if partition.partition in self._buffers:
                self._write(partition.partition)
                self._buffers.pop(partition.partition, None)

    def _lost(self, _: Consumer, partitions: list[TopicPartition]) -> None:
        for partition in partitions:
            self._buffers.pop(partition.partition, None)

    def _take(self, message: Message) -> None:
        buffer = self._buffers.get(message.partition())
        if buffer is None or message.offset() < buffer.next_offset:
            return
        arrived_ms = message.timestamp()[1]
        line = topics.parse(message.key(), message.value(), arrived_ms)
        if not buffer.rows:
            buffer.since = time.monotonic()
        buffer.next_offset = message.offset() + 1
        buffer.rows.append(
            {
                "partition": message.partition(),
                "offset": message.offset(),
                "arrived": arrived_ms,
                "at": line.at_ms,
                "service": line.service,
                "host": line.host,
                "level": line.level,
                "pid": line.pid,
                "via": line.via,
                "text": line.text,
            }
        )

    def _write_due(self) -> None:
        now = time.monotonic()
        for partition, buffer in list(self._buffers.items()):
            if len(buffer.rows) >= self._rows_max or (buffer.rows and now - buffer.since >= self._wait_s):
                self._write(partition)

    def _write(self, partition: int) -> None:
        buffer = self._buffers[partition]
        if not buffer.rows:
            return
        try:
            self._chain.append(partition, buffer.first, buffer.next_offset, buffer.rows)
        except FileExistsError:
            # Another sink believes that the partition is its own, and was first. What it has written holds.
            position = self._chain.next_offset(partition)
            assert position is not None
            print(f"partition {partition}: somebody else wrote {buffer.first} to {position}", flush=True)
            self._buffers[partition] = Buffer(position, position)
            # Fails if we have lost the partition, and then there is nothing to go on with.
            with contextlib.suppress(KafkaException):
                self._consumer.seek(TopicPartition(topics.LINES, partition, position))
            return
        self._buffers[partition] = Buffer(buffer.next_offset, buffer.next_offset)
        # For those who look at the group's lag; nothing depends on it.
        at = TopicPartition(topics.LINES, partition, buffer.next_offset)
        self._consumer.commit(offsets=[at], asynchronous=True)


def main() -> None:
    options = argparse.ArgumentParser(prog="python -m examples.logs.sink", description=__doc__)
    options.add_argument("--bootstrap", required=True)
    options.add_argument("--directory", type=Path, required=True, help="where the files go")
    options.add_argument("--name", default="sink", help="tells several sinks apart")
    options.add_argument("--rows-max", type=int, default=ROWS_MAX, help="of a file")
    options.add_argument(
        "--wait", type=float, default=WAIT_S, metavar="S", help="longest wait of a row for its file"
    )
    arguments = options.parse_args()
    chain = Chain(directory=folder_of(arguments.bootstrap, arguments.directory), writer=arguments.name)
    chain.prepare()
    sink = Sink(arguments.bootstrap, arguments.name, chain, arguments.rows_max, arguments.wait)

    def stop(*_: object) -> None:
        sink.stopping = True

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    sink.run()


if __name__ == "__main__":
    sys.exit(main())
