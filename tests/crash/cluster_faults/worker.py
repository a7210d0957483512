"""One process of clients, as ``python -m cluster_faults.worker JSON``: a producer, or members of groups.

It writes down what it was told, one JSON array a line, in the file that it is given; SIGTERM ends it in
order. Times are of the monotonic clock, which all processes of a machine share.

    ["sent", producer, topic, partition, count]               its records are 0 to count-1; the last counts
    ["acked", producer, topic, partition, number, offset, handed over at, acknowledged at]
    ["failed", producer, topic, partition, number, error, handed over at, failed at]
    ["read", group, member, topic, partition, offset, value's hash]
    ["commit", group, member, topic, partition, offset, asked at, answered at, error or ""]
    ["committed", group, member, topic, partition, offset, asked at, answered at]
    ["trouble", who, what]                                     must not happen
    ["note", who, what]                                        may

and what transactions.py has.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
import zlib
from typing import Any

from confluent_kafka import (
    OFFSET_INVALID,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    Producer,
    TopicPartition,
)

from cluster_faults.transactions import ReadLedger, Transact

QUIET = {"log_level": 0, "reconnect.backoff.ms": 20, "reconnect.backoff.max.ms": 300}
# What a producer sends, hears and makes of it, on its process's stderr (sends.py).
TALKATIVE = {"log_level": 7, "debug": "eos,msg"}
# A producer hands over no more while so many records are not acknowledged.
PENDING_MAX = 2_000
FLUSH_TIMEOUT_S = 90.0
# Between commits, and until one that nobody answered is given up.
COMMIT_PAUSE_S = 0.2
COMMIT_TIMEOUT_S = 30.0
# How long a client that is not a producer may take to close. librdkafka's consumers hang now and then, in
# locks of their own, when brokers come and go; a group has to do without such a member.
CLOSE_TIMEOUT_S = 30.0

ending = threading.Event()


class Record:
    """The file that everything is written down in."""

    def __init__(self, path: str) -> None:
        self._file = open(path, "a", encoding="utf-8", buffering=1)  # noqa: SIM115 - as long as the process
        self._lock = threading.Lock()

    def __call__(self, *fields: Any) -> None:
        line = json.dumps(fields) + "\n"
        with self._lock:
            self._file.write(line)


def value_of(producer: str, number: int) -> bytes:
    """What a record holds: who sent it, which one it is, and something to fill it."""
    size = zlib.crc32(b"%d" % number) % 400
    return f"{producer} {number} ".encode() + b"x" * size


def hash_of(value: bytes | None) -> int:
    return zlib.crc32(value or b"")


class Produce:
    """An idempotent producer that never gives up: steadily, to every partition in turn.

    One that is ``mortal`` may be killed; what it has sent is written down before it is.
    """

    def __init__(self, record: Record, setup: dict[str, Any]) -> None:
        self._record = record
        self._name = setup["name"]
        self._mortal = setup["mortal"]
        self._partitions = [
            (topic, index) for topic, count in setup["topics"].items() for index in range(count)
        ]
        self._pause_s = len(self._partitions) / setup["rate"]
        self._counts = dict.fromkeys(self._partitions, 0)
        self._producer = Producer(
            {
                "bootstrap.servers": setup["bootstrap"],
                "client.id": self._name,
                "enable.idempotence": True,
                "acks": "all",
                "compression.type": setup["codec"],
                "message.timeout.ms": 0,
                "request.timeout.ms": 2_000,
                "socket.timeout.ms": 4_000,
                "retry.backoff.ms": 50,
                "retry.backoff.max.ms": 200,
                "retries": 2**31 - 1,
                "linger.ms": 5,
                "topic.metadata.refresh.interval.ms": 2_000,
                "error_cb": self._error,
                **QUIET,
                **TALKATIVE,
            }
        )

    def _error(self, error: KafkaError) -> None:
        if error.fatal():
            self._record("trouble", self._name, f"fatal: {self._producer_error(error)}")

    @staticmethod
    def _producer_error(error: KafkaError) -> str:
        return f"{error.name()}: {error.str()}"

    def _hand_over(self, topic: str, index: int) -> None:
        number = self._counts[topic, index]
        handed_over = time.monotonic()

        def delivered(error: KafkaError | None, message: Message) -> None:
            now = time.monotonic()
            where = (self._name, topic, index, number)
            if error is None:
                # None: the broker had the batch already and does not know any more where.
                offset = message.offset()
                self._record("acked", *where, -1 if offset is None else offset, handed_over, now)
            else:
                self._record("failed", *where, self._producer_error(error), handed_over, now)

        self._counts[topic, index] += 1
        if self._mortal:
            self._record("sent", self._name, topic, index, number + 1)
        self._producer.produce(topic, value_of(self._name, number), partition=index, on_delivery=delivered)

    def run(self) -> None:
        due = time.monotonic()
        while not ending.is_set():
            if len(self._producer) < PENDING_MAX:
                for topic, index in self._partitions:
                    self._hand_over(topic, index)
            due = max(due + self._pause_s, time.monotonic() - 1)
            while (left := due - time.monotonic()) > 0:
                self._producer.poll(left)
            self._producer.poll(0)
        left_over = self._producer.flush(FLUSH_TIMEOUT_S)
        if left_over:
            self._record(
                "trouble", self._name, f"{left_over} records had no outcome after {FLUSH_TIMEOUT_S} s"
            )
        for (topic, index), count in self._counts.items():
            self._record("sent", self._name, topic, index, count)


class Member:
    """A member of a group. It commits what it has read, and says where it begins."""

    def __init__(self, record: Record, setup: dict[str, Any]) -> None:
        self._record = record
        self._group = setup["group"]
        self._name = setup["name"]
        self._cooperative = setup["strategy"] == "cooperative-sticky"
        self._consumer = Consumer(
            {
                "bootstrap.servers": setup["bootstrap"],
                "client.id": self._name,
                "group.id": self._group,
                "partition.assignment.strategy": setup["strategy"],
                "enable.auto.commit": False,
                "on_commit": self._on_commit,
                # Where to begin is said at each assignment: that an offset is out of range is an error.
                "auto.offset.reset": "error",
                "session.timeout.ms": 6_000,
                "heartbeat.interval.ms": 1_000,
                "socket.timeout.ms": 8_000,
                "fetch.wait.max.ms": 200,
                "fetch.error.backoff.ms": 100,
                "check.crcs": True,
                "topic.metadata.refresh.interval.ms": 1_000,
                **QUIET,
            }
        )
        self._consumer.subscribe(list(setup["topics"]), on_assign=self._assigned, on_revoke=self._revoked)
        # What was read and is not committed, and what is being committed: the next offset of each partition.
        self._next: dict[tuple[str, int], int] = {}
        self._underway: dict[tuple[str, int], int] = {}
        self._asked = self._commits_again = 0.0

    def _assigned(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        found = self._committed(partitions)
        starts = [
            TopicPartition(tp.topic, tp.partition, 0 if tp.offset == OFFSET_INVALID else tp.offset)
            for tp in found
        ]
        if self._cooperative:
            consumer.incremental_assign(starts)
        else:
            consumer.assign(starts)

    def _revoked(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        for tp in partitions:
            self._next.pop((tp.topic, tp.partition), None)

    def _committed(self, partitions: list[TopicPartition]) -> list[TopicPartition]:
        """Ask until there is an answer, as a consumer has to before it reads."""
        return committed_of(self._record, self._consumer, self._group, self._name, partitions)

    def _commit(self) -> None:
        """Commit what has been read, unless a commit is on its way. Nothing waits for it: librdkafka's own
        waiting has no limit."""
        now = time.monotonic()
        if not self._next or now < self._commits_again:
            return
        self._underway, self._next = self._next, {}
        self._asked, self._commits_again = now, now + COMMIT_TIMEOUT_S
        offsets = [TopicPartition(*where, at) for where, at in self._underway.items()]
        try:
            self._consumer.commit(offsets=offsets, asynchronous=True)
        except KafkaException as failure:
            self._on_commit(failure.args[0], [])

    def _on_commit(self, error: KafkaError | None, partitions: list[TopicPartition]) -> None:
        errors = {(tp.topic, tp.partition): tp.error.name() for tp in partitions if tp.error}
        answered = time.monotonic()
        underway, self._underway = self._underway, {}
        for where, at in underway.items():
            said = error.name() if error is not None else errors.get(where, "")
            self._record("commit", self._group, self._name, *where, at, self._asked, answered, said)
        self._commits_again = self._asked + COMMIT_PAUSE_S

    def run(self) -> None:
        while not ending.is_set():
            # One at a time: of a batch some might be of partitions that are others' by now.
            message = self._consumer.poll(0.1)
            if message is not None:
                self._take(message)
            self._commit()
        self._consumer.close()

    def _take(self, message: Message) -> None:
        error = message.error()
        if error is None:
            where = (message.topic(), message.partition())
            self._next[where] = message.offset() + 1
            self._record("read", self._group, self._name, *where, message.offset(), hash_of(message.value()))
        elif error.code() in (KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE) or error.fatal():
            self._record("trouble", self._name, f"{error.name()}: {error.str()}")
        else:
            self._record("note", self._name, f"{error.name()}: {error.str()}")


class Watch:
    """Looks at a group's committed offsets, over and over, and is no member of it."""

    def __init__(self, record: Record, setup: dict[str, Any]) -> None:
        self._record = record
        self._group = setup["group"]
        self._name = setup["name"]
        self._partitions = [
            TopicPartition(topic, index) for topic, count in setup["topics"].items() for index in range(count)
        ]
        self._consumer = Consumer(
            {
                "bootstrap.servers": setup["bootstrap"],
                "group.id": self._group,
                "socket.timeout.ms": 8_000,
                **QUIET,
            }
        )

    def run(self) -> None:
        while not ending.wait(0.2):
            committed_of(self._record, self._consumer, self._group, self._name, self._partitions)


def committed_of(
    record: Record, consumer: Consumer, group: str, name: str, partitions: list[TopicPartition]
) -> list[TopicPartition]:
    """The committed offsets, asked for until there is an answer or the end; written down."""
    while True:
        asked = time.monotonic()
        try:
            found = consumer.committed(partitions, timeout=5.0)
        except KafkaException as failure:
            record("note", name, f"committed: {failure.args[0].name()}")
            time.sleep(0.05)
            if ending.is_set():
                return [TopicPartition(tp.topic, tp.partition, OFFSET_INVALID) for tp in partitions]
            continue
        answered = time.monotonic()
        if any(tp.error for tp in found):
            record("note", name, f"committed: {[tp.error.name() for tp in found if tp.error]}")
            time.sleep(0.1)
            continue
        for tp in found:
            offset = -1 if tp.offset == OFFSET_INVALID else tp.offset
            record("committed", group, name, tp.topic, tp.partition, offset, asked, answered)
        return list(found)


ROLES = {
    "produce": Produce,
    "member": Member,
    "watch": Watch,
    "transact": lambda record, setup: Transact(record, setup, ending),
    "ledger": lambda record, setup: ReadLedger(record, setup, ending),
}


def main() -> None:
    setup = json.loads(sys.argv[1])
    signal.signal(signal.SIGTERM, lambda *_: ending.set())
    record = Record(setup["record"])
    threads = []
    for each in setup["clients"]:
        client = ROLES[each["role"]](record, {**setup, **each})

        def run(client: Any = client, name: str = each["name"]) -> None:
            try:
                client.run()
            except BaseException as failure:
                record("trouble", name, f"ended with {failure!r}")
                raise

        threads.append(threading.Thread(target=run, name=each["name"], daemon=True))
    for thread in threads:
        thread.start()
    # In steps, so that the main thread gets to handle the signal.
    while not ending.wait(0.2) and any(thread.is_alive() for thread in threads):
        pass
    produces = any(each["role"] in ("produce", "transact") for each in setup["clients"])
    deadline = time.monotonic() + (FLUSH_TIMEOUT_S + 10 if produces else CLOSE_TIMEOUT_S)
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
        if thread.is_alive():
            record("trouble" if produces else "note", thread.name, "it hangs, and was left alone")
    sys.stdout.flush()
    # Threads of clients that hang would keep the process.
    os._exit(0)


if __name__ == "__main__":
    main()
