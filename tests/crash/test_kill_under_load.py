"""SIGKILL under load, again and again: what was acknowledged is there, once and in order.

Producers, a consumer group, commits and admin calls go on across every crash, as real clients do: they see
errors, retry, and remember what they were promised. In between the broker is killed at random moments, also
while it is starting. OTTLA_CRASH_SEED repeats a run's choices, though not its timing.
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, ConfigResource, ResourceType

import soak
from interop.process import BrokerProcess, wait_until
from interop.raw import RawClient, batch

KILLS = soak.amount(12, 200)
PARTITIONS = 3
IN_FLIGHT_MAX = 3000
PADDING_MAX = 500
QUIET = {"log_level": 0, "reconnect.backoff.ms": 10, "reconnect.backoff.max.ms": 100}
# Small segments, so that crashes also meet rolling, indexes of several segments, and snapshots.
SETTINGS = {"log.segment.bytes": "1048576", "log.index.interval.bytes": "1000"}


class Load(threading.Thread):
    """One producer. Every message is retried until it is acknowledged; values count up."""

    def __init__(self, bootstrap: str, topic: str, ident: int, codec: str, *, idempotent: bool) -> None:
        super().__init__(daemon=True)
        self.ident_ = ident
        self.idempotent = idempotent
        self.sent = 0
        self.acknowledged: set[int] = set()
        self.failures: list[KafkaError] = []
        self._topic = topic
        self._ending = threading.Event()
        self._producer = Producer(
            {
                "bootstrap.servers": bootstrap,
                "acks": "all",
                "enable.idempotence": idempotent,
                "compression.type": codec,
                "message.timeout.ms": 0,
                "retry.backoff.ms": 20,
                "retries": 2**31 - 1,
                # Without idempotence only one request at a time keeps the order when it is retried.
                "max.in.flight": 5 if idempotent else 1,
                "linger.ms": 2,
                "batch.num.messages": 50,
                **QUIET,
            }
        )

    def _delivered(self, error: KafkaError | None, message: Message) -> None:
        if error is not None:
            self.failures.append(error)
        else:
            self.acknowledged.add(int(message.value().split()[1]))

    def run(self) -> None:
        while not self._ending.is_set() and not self.failures:
            if len(self._producer) < IN_FLIGHT_MAX:
                for _ in range(20):
                    value = b"%d %d %s" % (self.ident_, self.sent, b"x" * (self.sent % PADDING_MAX))
                    partition = self.sent % PARTITIONS
                    self._producer.produce(
                        self._topic, value, partition=partition, on_delivery=self._delivered
                    )
                    self.sent += 1
            self._producer.poll(0.02)

    def finish(self) -> None:
        """Stop sending, and wait until all is acknowledged."""
        self._ending.set()
        self.join(30)
        assert not self.is_alive()
        assert self._producer.flush(60) == 0
        assert self.failures == []
        assert len(self.acknowledged) == self.sent > 0


class Commits(threading.Thread):
    """Commits ever larger offsets; `promised` is the last that was acknowledged."""

    def __init__(self, bootstrap: str, topic: str, group: str) -> None:
        super().__init__(daemon=True)
        self.promised = 0
        self.attempted = 0
        self._where = topic
        self._ending = threading.Event()
        self._consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": group, **QUIET})

    def run(self) -> None:
        while not self._ending.wait(0.01):
            self.attempted += 1
            try:
                self._consumer.commit(
                    offsets=[TopicPartition(self._where, 0, self.attempted)], asynchronous=False
                )
            except KafkaException:
                continue
            self.promised = self.attempted

    def committed(self) -> int:
        (found,) = self._consumer.committed([TopicPartition(self._where, 0)], timeout=30)
        return int(found.offset)

    def finish(self) -> None:
        self._ending.set()
        self.join(60)
        assert not self.is_alive()


class Reader(threading.Thread):
    """A member of a consumer group that commits as it goes: at least once it sees everything."""

    def __init__(self, bootstrap: str, topic: str) -> None:
        super().__init__(daemon=True)
        self.seen: set[tuple[int, int]] = set()
        self.failure: Exception | None = None
        self._ending = threading.Event()
        self._consumer = Consumer(
            {
                "bootstrap.servers": bootstrap,
                "group.id": "readers",
                "auto.offset.reset": "earliest",
                "auto.commit.interval.ms": 100,
                "partition.assignment.strategy": "cooperative-sticky",
                **QUIET,
            }
        )
        self._consumer.subscribe([topic])

    def run(self) -> None:
        try:
            while not self._ending.is_set():
                for message in self._consumer.consume(1000, 0.1):
                    error = message.error()
                    if error is None:
                        ident, number, _ = message.value().split(b" ", 2)
                        self.seen.add((int(ident), int(number)))
                    else:
                        # What a crash shows a client; an offset out of range would be something else.
                        assert error.code() not in (
                            KafkaError._AUTO_OFFSET_RESET,
                            KafkaError.OFFSET_OUT_OF_RANGE,
                        )
        except Exception as failure:  # noqa: BLE001 - raised by finish() in the test's own thread
            self.failure = failure
        finally:
            self._consumer.close()

    def finish(self, count: int) -> None:
        wait_until(lambda: self.failure or len(self.seen) == count, 60, "the group has read everything")
        self._ending.set()
        self.join(30)
        if self.failure is not None:
            raise self.failure


class Topics:
    """Creates and deletes topics and moves log starts, one each round, and checks what was promised."""

    def __init__(self, broker: BrokerProcess) -> None:
        self._broker = broker
        self._rounds = 0
        self._kept: list[str] = []
        self._deleted: list[str] = []

    def change(self) -> None:
        """Between two crashes; only what is acknowledged counts."""
        self._rounds += 1
        name = f"round-{self._rounds}"
        with RawClient(self._broker.bootstrap) as client:
            assert client.create_topic(name, 2, retention_ms=str(10**9 + self._rounds)).error_code == 0
            assert client.produce(name, batch(b"a", b"b", b"c")).error_code == 0
            deleted = client.call(
                "DeleteRecords",
                topics=[{"name": name, "partitions": [{"partition_index": 0, "offset": 2}]}],
                timeout_ms=5000,
            )
            assert deleted.topics[0].partitions[0].error_code == 0
            self._kept.append(name)
            if len(self._kept) > 6:
                victim = self._kept.pop(0)
                answer = client.call("DeleteTopics", 5, topic_names=[victim], timeout_ms=5000)
                assert answer.responses[0].error_code == 0
                self._deleted.append(victim)

    def check(self) -> None:
        admin = AdminClient({"bootstrap.servers": self._broker.bootstrap, **QUIET})
        known = admin.list_topics(timeout=30).topics
        assert set(self._kept) <= set(known)
        assert not set(self._deleted) & set(known)
        for name in self._kept:
            resource = ConfigResource(ResourceType.TOPIC, name)
            config = admin.describe_configs([resource])[resource].result(20)
            assert config["retention.ms"].value == str(10**9 + int(name.split("-")[1]))
            with RawClient(self._broker.bootstrap) as client:
                answer = client.fetch(name, 2)
                assert (answer.log_start_offset, answer.high_watermark) == (2, 3)


def crash(broker: BrokerProcess, chance: random.Random) -> None:
    """Kill it at some moment, and start it again; now and then kill it while it starts, too."""
    time.sleep(chance.uniform(0.0, 1.2))
    broker.kill()
    while chance.random() < 0.25:
        broker.spawn()
        time.sleep(chance.uniform(0.05, 0.8))
        broker.kill()
    broker.start()


def stored(broker: BrokerProcess, topic: str) -> dict[tuple[int, int], list[int]]:
    """The numbers that are in the log, in its order, by producer and partition."""
    found: dict[tuple[int, int], list[int]] = defaultdict(list)
    with RawClient(broker.bootstrap) as client:
        for partition in range(PARTITIONS):
            for value in client.values(topic, partition=partition):
                assert value is not None
                ident, number, padding = value.split(b" ")
                assert len(padding) == int(number) % PADDING_MAX
                found[int(ident), partition].append(int(number))
    return found


@pytest.mark.timeout(soak.amount(240, 1200))
def test_kill_under_load(ottla_process: Callable[..., BrokerProcess]) -> None:
    seed = int(os.environ.get("OTTLA_CRASH_SEED") or random.getrandbits(32))
    print(f"OTTLA_CRASH_SEED={seed}")
    chance = random.Random(seed)
    broker = ottla_process(SETTINGS)
    topic = "load"
    with RawClient(broker.bootstrap) as client:
        assert client.create_topic(topic, PARTITIONS).error_code == 0
    kinds: list[Any] = [(True, "none"), (True, "lz4"), (False, "none"), (False, "zstd")]
    loads = [
        Load(broker.bootstrap, topic, i, codec, idempotent=safe) for i, (safe, codec) in enumerate(kinds)
    ]
    commits = Commits(broker.bootstrap, topic, "committers")
    reader = Reader(broker.bootstrap, topic)
    topics = Topics(broker)
    for thread in [*loads, commits, reader]:
        thread.start()
    for _ in range(KILLS):
        acknowledged = [len(load.acknowledged) for load in loads]
        wait_until(
            lambda before=acknowledged: all(
                len(x.acknowledged) > n for x, n in zip(loads, before, strict=True)
            ),
            what="every producer makes progress",
        )
        topics.change()
        promised = commits.promised
        crash(broker, chance)
        assert commits.committed() >= promised
        topics.check()
    for load in loads:
        load.finish()
    commits.finish()
    reader.finish(sum(load.sent for load in loads))
    assert commits.promised <= commits.committed() <= commits.attempted
    found = stored(broker, topic)
    for load in loads:
        for partition in range(PARTITIONS):
            numbers = found[load.ident_, partition]
            sent = list(range(partition, load.sent, PARTITIONS))
            if load.idempotent:
                assert numbers == sent
            else:
                # At least once: repeats there may be, but what is new comes in order.
                assert list(dict.fromkeys(numbers)) == sent
    print(f"{sum(load.sent for load in loads)} records, {commits.promised} commits, {KILLS} kills")
    assert broker.stop() == 0
    broker.start()
    assert stored(broker, topic) == found
