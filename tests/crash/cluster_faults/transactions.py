"""Transactions in a campaign: who writes them, who reads with read_committed, and what must hold (pure).

    ["began", transaction, {partition: count}]    its records are 0 to count-1 of each partition
    ["commits", transaction]                      its commit is about to be asked for
    ["ended", transaction, outcome, at]           "committed" or "aborted"; nothing where nobody knows
    ["saw", reader, partition, offset, value]     with read_committed

A transaction whose commit was never asked for is aborted, whatever became of its producer.
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition

LEDGER = "ledger"
PARTITIONS = 3
QUIET = {"log_level": 0, "reconnect.backoff.ms": 20, "reconnect.backoff.max.ms": 300}
# Of one transaction in each partition.
RECORDS_MAX = 4
PAUSE_S_MAX = 0.2
ABORTED = 0.2
TRANSACTION_TIMEOUT_MS = 15_000
CALL_TIMEOUT_S = 10.0
READ_S_MAX = 60.0
TOLD_MAX = 5

Recorded = Callable[..., None]


def value_of(transaction: str, partition: int, number: int) -> str:
    return f"{transaction} {partition} {number}"


class Transact:
    """A transactional producer, and another one in its place whenever one cannot go on."""

    def __init__(self, record: Recorded, setup: dict[str, Any], ending: threading.Event) -> None:
        self._record = record
        self._bootstrap = setup["bootstrap"]
        self._name = setup["name"]
        self._ending = ending
        self._number = 0
        self._prefix = f"{self._name}.{os.getpid()}"

    def run(self) -> None:
        while not self._ending.is_set():
            try:
                producer = Producer(
                    {
                        "bootstrap.servers": self._bootstrap,
                        "transactional.id": self._name,
                        "transaction.timeout.ms": TRANSACTION_TIMEOUT_MS,
                        "socket.timeout.ms": 4_000,
                        "retry.backoff.ms": 50,
                        "linger.ms": 2,
                        "topic.metadata.refresh.interval.ms": 2_000,
                        **QUIET,
                    }
                )
                self._until_done(producer.init_transactions)
                while not self._ending.is_set():
                    self._one(producer)
            except KafkaException as failure:
                # Such as one that is fenced, since its transaction took too long.
                self._record("note", self._name, f"begins anew: {failure.args[0].name()}")

    def _one(self, producer: Producer) -> None:
        self._number += 1
        transaction = f"{self._prefix}.{self._number}"
        some = random.sample(range(PARTITIONS), random.randint(1, PARTITIONS))
        counts = {index: random.randint(1, RECORDS_MAX) for index in some}
        self._record("began", transaction, counts)
        producer.begin_transaction()
        try:
            for index, count in counts.items():
                for number in range(count):
                    producer.produce(LEDGER, value_of(transaction, index, number), partition=index)
            self._ending.wait(random.uniform(0, PAUSE_S_MAX))
            if random.random() > ABORTED:
                self._record("commits", transaction)
                self._until_done(producer.commit_transaction)
                self._record("ended", transaction, "committed", time.monotonic())
                return
        except (KafkaException, BufferError) as failure:
            if isinstance(failure, KafkaException) and failure.args[0].fatal():
                raise
        else:
            # librdkafka's abort (rd_kafka_abort_transaction, 2.16) drops what is to be sent again, and gives
            # its sequence numbers to the next transaction, in the same epoch. Of a batch that has arrived all
            # the same the next one's first seems to be a repetition: acknowledged, and not written.
            while producer.flush(CALL_TIMEOUT_S):
                pass
        self._until_done(producer.abort_transaction)
        self._record("ended", transaction, "aborted", time.monotonic())

    @staticmethod
    def _until_done(call: Any) -> None:
        while True:
            try:
                call(CALL_TIMEOUT_S)
            except KafkaException as failure:
                error = failure.args[0]
                if not error.retriable() or error.fatal() or error.txn_requires_abort():
                    raise
            else:
                return


class ReadLedger:
    """A read_committed consumer of all that there is."""

    def __init__(self, record: Recorded, setup: dict[str, Any], ending: threading.Event) -> None:
        self._record = record
        self._name = setup["name"]
        self._ending = ending
        self._consumer = ledger_consumer(setup["bootstrap"])
        self._consumer.assign([TopicPartition(LEDGER, index, 0) for index in range(PARTITIONS)])

    def run(self) -> None:
        while not self._ending.is_set():
            for message in self._consumer.consume(500, 0.2):
                self._take(message)

    def _take(self, message: Message) -> None:
        error = message.error()
        if error is None:
            self._record("saw", self._name, message.partition(), message.offset(), message.value().decode())
        elif error.code() == KafkaError._PARTITION_EOF:
            return
        elif error.retriable() or error.code() < 0:
            self._record("note", self._name, error.name())
        else:
            self._record("trouble", self._name, f"{error.name()}: {error.str()}")


def read_ledger(consumer: Consumer, partition: int) -> list[tuple[int, str]]:
    """Offset and value of all that there is in a partition."""
    consumer.assign([TopicPartition(LEDGER, partition, 0)])
    found: list[tuple[int, str]] = []
    deadline = time.monotonic() + READ_S_MAX
    while time.monotonic() < deadline:
        for message in consumer.consume(5000, 0.5):
            error = message.error()
            if error is None:
                found.append((message.offset(), message.value().decode()))
            elif error.code() == KafkaError._PARTITION_EOF:
                return found
    raise AssertionError(f"{LEDGER}-{partition}: {len(found)} records were read, and not all")


def ledger_consumer(bootstrap: str, isolation: str = "read_committed") -> Consumer:
    return Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": "ledger",
            "enable.auto.commit": False,
            "auto.offset.reset": "error",
            "isolation.level": isolation,
            "check.crcs": True,
            "enable.partition.eof": True,
            "fetch.wait.max.ms": 200,
            "topic.metadata.refresh.interval.ms": 1_000,
            **QUIET,
        }
    )


@dataclass(slots=True)
class Ledger:
    """What was written down of transactions."""

    began: dict[str, dict[int, int]] = field(default_factory=dict)
    commits: set[str] = field(default_factory=set)
    ended: dict[str, str] = field(default_factory=dict)
    # The last commit that each producer was told of, by the monotonic clock.
    committed_at: dict[str, float] = field(default_factory=dict)
    # Offset and value, by reader and partition, in the order in which they came.
    seen: dict[tuple[str, int], list[tuple[int, str]]] = field(default_factory=lambda: defaultdict(list))
    # What is there in the end.
    stored: dict[int, list[tuple[int, str]]] = field(default_factory=dict)

    def take(self, line: list[Any]) -> bool:
        """One line of a worker; whether it is of transactions."""
        match line:
            case ["began", transaction, counts]:
                self.began[transaction] = {int(index): count for index, count in counts.items()}
            case ["commits", transaction]:
                self.commits.add(transaction)
            case ["ended", transaction, outcome, at]:
                self.ended[transaction] = outcome
                if outcome == "committed":
                    self.committed_at[transaction.partition(".")[0]] = at
            case ["saw", reader, partition, offset, value]:
                self.seen[reader, partition].append((offset, value))
            case _:
                return False
        return True

    def outcome(self, transaction: str) -> str:
        return self.ended.get(transaction, "unknown" if transaction in self.commits else "aborted")

    def summary(self) -> str:
        outcomes = Counter(map(self.outcome, self.began))
        return ", ".join(f"{count} transactions {outcome}" for outcome, count in sorted(outcomes.items()))


def check_ledger(ledger: Ledger) -> list[str]:
    """What does not hold: each transaction is there as a whole or not at all; what was seen is there."""
    violations: list[str] = []
    for told in (_records(ledger), _wholes(ledger), _views(ledger)):
        violations += [violation for _, violation in zip(range(TOLD_MAX), told, strict=False)]
    return violations


def _records(ledger: Ledger) -> Iterator[str]:
    known = {
        value_of(transaction, index, number): index
        for transaction, counts in ledger.began.items()
        for index, count in counts.items()
        for number in range(count)
    }
    for partition, stored in ledger.stored.items():
        places: dict[str, int] = {}
        for offset, value in stored:
            if known.get(value) != partition:
                yield f"INVENTED {LEDGER}-{partition}: {value} at {offset}"
            if value in places:
                yield f"TWICE {LEDGER}-{partition}: {value} at {places[value]} and {offset}"
            places[value] = offset


def _wholes(ledger: Ledger) -> Iterator[str]:
    there = {value for stored in ledger.stored.values() for _, value in stored}
    for transaction, counts in ledger.began.items():
        values = [value_of(transaction, index, n) for index, count in counts.items() for n in range(count)]
        visible = sum(value in there for value in values)
        outcome = ledger.outcome(transaction)
        allowed = {"committed": (len(values),), "aborted": (0,), "unknown": (0, len(values))}[outcome]
        if visible not in allowed:
            yield f"TORN {transaction}, {outcome}: {visible} of its {len(values)} records are visible"


def _views(ledger: Ledger) -> Iterator[str]:
    for (reader, partition), seen in ledger.seen.items():
        stored = ledger.stored[partition]
        if seen != stored:
            place = next((n for n, (a, b) in enumerate(zip(seen, stored, strict=False)) if a != b), -1)
            parts = f"at its record {place}" if place >= 0 else f"{len(seen)} of {len(stored)} records"
            yield f"CHANGED {LEDGER}-{partition}: {reader} saw something else than there is: {parts}"
