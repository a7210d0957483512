"""A partition against the simplest model there is: a list of records and where it begins.

Random appends (every codec, timestamps in any order, idempotent ones and their duplicates), DeleteRecords,
look-ups by offset and by time, and stops and kills in between; small segments, so that all of it crosses
segments. A seed repeats a run.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest

from interop.process import BrokerProcess
from interop.raw import RawClient
from ottla.errors import ErrorCode
from ottla.types import Record
from ottla.wire import records

STEPS = 250
# Recent: what a log knows of a producer expires by the timestamps of its records.
START_MS = int(time.time() * 1000) - 300_000
MB = 1 << 20


class Entry(NamedTuple):
    timestamp_ms: int
    key: bytes | None
    value: bytes | None


class Model:
    """The broker's partition and ours, side by side."""

    def __init__(self, broker: BrokerProcess, seed: int) -> None:
        self.chance = random.Random(seed)
        self.broker = broker
        self.log: list[Entry] = []
        self.start = 0
        self.client = RawClient(broker.bootstrap)
        made = self.client.create_topic("t", 1, retention_ms="-1", segment_bytes=str(MB))
        assert made.error_code == 0
        self.producers = {100 + i: 0 for i in range(3)}
        # The last batches of each producer: its first sequence, its first offset, its bytes.
        self.sent: dict[int, list[tuple[int, int, bytes]]] = {p: [] for p in self.producers}

    def entries(self) -> list[Entry]:
        chance = self.chance
        count = chance.choice([1, 1, 2, 10, 100])
        size = chance.choice([0, 10, 1000, 20_000 if count < 10 else 500])
        return [
            Entry(
                START_MS + chance.randrange(100_000),
                chance.choice([None, b"k", b"key"]),
                chance.choice([None, chance.randbytes(size), bytes(size)]),
            )
            for _ in range(count)
        ]

    def build(self, entries: list[Entry], **options: Any) -> bytes:
        plain = [Record(0, e.timestamp_ms, e.key, e.value) for e in entries]
        return records.build_batch(plain, compression=self.chance.randrange(5), **options)

    def append(self) -> None:
        entries = self.entries()
        answer = self.client.produce("t", self.build(entries))
        assert (answer.error_code, answer.base_offset) == (0, len(self.log))
        assert answer.log_start_offset == self.start
        self.log += entries

    def append_idempotently(self) -> None:
        producer = self.chance.choice(list(self.producers))
        sequence, entries = self.producers[producer], self.entries()
        data = self.build(entries, producer_id=producer, producer_epoch=0, base_sequence=sequence)
        answer = self.client.produce("t", data)
        assert (answer.error_code, answer.base_offset) == (0, len(self.log))
        self.sent[producer] = [*self.sent[producer], (sequence, len(self.log), data)][-5:]
        self.log += entries
        self.producers[producer] += len(entries)

    def append_again(self) -> None:
        """A duplicate of one of the last five batches, or a gap."""
        producer = self.chance.choice(list(self.producers))
        if not self.sent[producer]:
            return
        _, offset, data = self.chance.choice(self.sent[producer])
        answer = self.client.produce("t", data)
        assert (answer.error_code, answer.base_offset) == (0, offset)
        gap = self.producers[producer] + 1
        late = self.build(self.entries(), producer_id=producer, producer_epoch=0, base_sequence=gap)
        assert self.client.produce("t", late).error_code == ErrorCode.out_of_order_sequence_number

    def delete(self) -> None:
        offset = self.chance.randint(self.start, len(self.log))
        # Most of the time only a little, so that something is left to look at.
        offset = min(offset, self.start + self.chance.choice([0, 1, 20, 200]))
        topics = [{"name": "t", "partitions": [{"partition_index": 0, "offset": offset}]}]
        answer = self.client.call("DeleteRecords", topics=topics, timeout_ms=5000)
        (found,) = answer.topics[0].partitions
        assert (found.error_code, found.low_watermark) == (0, offset)
        self.start = offset

    def read(self) -> None:
        offset = self.chance.randint(max(self.start - 2, 0), len(self.log))
        answer = self.client.fetch("t", offset, max_bytes=self.chance.choice([1, 1000, 100_000, MB]))
        if offset < self.start:
            assert answer.error_code == ErrorCode.offset_out_of_range
            return
        assert (answer.error_code, answer.high_watermark) == (0, len(self.log))
        assert answer.log_start_offset == self.start
        found = [r for _, b in records.iter_batches(answer.records) for r in records.iter_records(b)]
        if offset < len(self.log):
            assert found
            assert found[0].offset <= offset <= found[-1].offset
        for record in found:
            assert Entry(record.timestamp_ms, record.key, record.value) == self.log[record.offset]

    def list_offset(self, timestamp: int) -> tuple[int, int]:
        partition = {"partition_index": 0, "current_leader_epoch": -1, "timestamp": timestamp}
        topics = [{"name": "t", "partitions": [partition]}]
        answer = self.client.call("ListOffsets", 8, replica_id=-1, isolation_level=0, topics=topics)
        (found,) = answer.topics[0].partitions
        assert found.error_code == 0
        return found.timestamp, found.offset

    def look_up(self) -> None:
        live = list(enumerate(self.log))[self.start :]
        assert self.list_offset(-2) == (-1, self.start)
        assert self.list_offset(-1) == (-1, len(self.log))
        wanted = START_MS + self.chance.randrange(-10, 100_010)
        expected = next(((e.timestamp_ms, i) for i, e in live if e.timestamp_ms >= wanted), (-1, -1))
        assert self.list_offset(wanted) == expected
        if live:
            latest = max(e.timestamp_ms for _, e in live)
            timestamp_ms, offset = self.list_offset(-3)
            # Records before the log's start may still be in its first segment, and count there as in Kafka.
            assert timestamp_ms >= latest
            assert self.log[offset].timestamp_ms == timestamp_ms

    def restart(self) -> None:
        self.client.socket.close()
        if self.chance.random() < 0.5:
            self.broker.kill()
        else:
            assert self.broker.stop() == 0
        self.broker.start()
        self.client = RawClient(self.broker.bootstrap)
        # As Kafka's, a snapshot knows each producer's last batch only, and a producer whose records were all
        # deleted may be forgotten.
        for producer, batches in self.sent.items():
            self.sent[producer] = [entry for entry in batches[-1:] if entry[1] >= self.start]

    def run(self) -> None:
        steps: list[tuple[Callable[[], None], int]] = [
            (self.append, 30),
            (self.append_idempotently, 30),
            (self.append_again, 6),
            (self.delete, 4),
            (self.read, 30),
            (self.look_up, 20),
            (self.restart, 3),
        ]
        for _ in range(STEPS):
            (step,) = self.chance.choices([s for s, _ in steps], [w for _, w in steps])
            step()
        self.restart()
        assert self.client.values("t", offset=self.start) == [e.value for e in self.log[self.start :]]
        self.client.socket.close()


@pytest.mark.parametrize("seed", range(6))
def test_a_partition_is_a_list(ottla_process: Callable[..., BrokerProcess], seed: int) -> None:
    broker = ottla_process(
        {"log.index.interval.bytes": "500", "log.flush.offset.checkpoint.interval.ms": "500"}
    )
    Model(broker, seed).run()
    assert "Traceback" not in broker.log()
