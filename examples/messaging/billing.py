"""Billing (confluent-kafka): charges each order of shop.orders, and says so on shop.payments.

It is a group: start more of them and they share the partitions, one at a time changing hands (cooperative
rebalancing). What fails for the moment is not waited for: it goes to a topic of its own with the time at
which it is due, and the partition goes on. After the last attempt, or at once if the message can never be
read, it becomes a dead letter with the reason in its headers.

Delivery is at least once: offsets are committed after the work. What makes it once in effect is the payment
gateway, which takes the order's id as its idempotency key, as real ones do. Here that is a table.
"""

from __future__ import annotations

import argparse
import signal
import sqlite3
import sys
import time
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition

from examples.messaging import topics

BATCH_MAX = 20
POLL_S = 0.1
CHARGE_S = 0.022
FLUSH_S = 10.0
# One order in so many meets a gateway that is out of order for one attempt; or for two.
FAILS_ONCE_IN = 12
FAILS_TWICE_IN = 45

# Errors of a commit that mean: the group has a new generation by now.
_OTHER_GENERATION = frozenset({"ILLEGAL_GENERATION", "UNKNOWN_MEMBER_ID", "REBALANCE_IN_PROGRESS", "_STATE"})


Key = tuple[str, int]


class GatewayError(Exception):
    """The payment gateway did not do it; perhaps it does the next time."""


class Gateway:
    """A payment gateway that is slow, that fails, and that charges an order no more than once."""

    def __init__(self, ledger: Path) -> None:
        self._ledger = sqlite3.connect(ledger, isolation_level=None, timeout=10)
        self._ledger.execute("PRAGMA journal_mode = WAL")
        self._ledger.execute("PRAGMA synchronous = NORMAL")
        self._ledger.execute(
            "CREATE TABLE IF NOT EXISTS charges ("
            ' "order" TEXT PRIMARY KEY, cents INTEGER NOT NULL, attempt INTEGER NOT NULL,'
            " charged_by TEXT NOT NULL)"
        )

    def charge(self, order: dict[str, Any], attempt: int, by: str) -> bool:
        """Charge it; False if it was charged before, which is as good. GatewayError if it cannot be."""
        time.sleep(CHARGE_S)
        if order["card"] == "stolen":
            raise GatewayError("card refused")
        if attempt < failures_of(order["order"]):
            raise GatewayError("gateway out of order")
        done = self._ledger.execute(
            "INSERT OR IGNORE INTO charges VALUES (?, ?, ?, ?)", (order["order"], order["cents"], attempt, by)
        )
        return done.rowcount == 1


def failures_of(order: str) -> int:
    """How many attempts fail for this order: the same for whoever tries."""
    dice = zlib.crc32(order.encode())
    if dice % FAILS_TWICE_IN == 0:
        return 2
    return 1 if dice % FAILS_ONCE_IN == 0 else 0


class Billing:
    """One member of the group."""

    def __init__(self, bootstrap: str, name: str, gateway: Gateway) -> None:
        self.name = name
        self.stopping = False
        self._gateway = gateway
        self._producer = Producer(
            {"bootstrap.servers": bootstrap, "client.id": name, "enable.idempotence": True, "linger.ms": 2}
        )
        self._consumer = Consumer(
            {
                "bootstrap.servers": bootstrap,
                "client.id": name,
                "group.id": topics.BILLING,
                "auto.offset.reset": "earliest",
                "enable.auto.commit": False,
                "on_commit": self._committed,
                "partition.assignment.strategy": "cooperative-sticky",
                "session.timeout.ms": 6000,
                "heartbeat.interval.ms": 500,
            }
        )
        # Partitions of the retry topics whose next message is not due yet: until when, in ms since the epoch.
        self._paused: dict[Key, int] = {}
        # Next offset of each partition: as far as it is done, and as far as the broker knows that.
        self._done: dict[Key, int] = {}
        self._commits: dict[Key, int] = {}
        self._committing = False
        self._undelivered: list[str] = []

    def run(self) -> None:
        self._consumer.subscribe(
            [topics.ORDERS, *topics.RETRIES],
            on_assign=self._assigned,
            on_revoke=self._revoked,
            on_lost=self._lost,
        )
        try:
            while not self.stopping:
                self._resume_due()
                self._commit()
                batch = self._consumer.consume(BATCH_MAX, POLL_S)
                if batch:
                    self._work(batch)
        finally:
            # Revokes what it has, and so commits; then leaves the group.
            self._consumer.close()

    def _work(self, batch: Sequence[Message]) -> None:
        """Do the messages, have what follows from them delivered, then count them as done: in this order."""
        done: dict[Key, int] = {}
        for message in batch:
            if error := message.error():
                raise KafkaException(error)
            partition = (message.topic(), message.partition())
            if partition in self._paused:
                continue
            due_ms = int(header(message, topics.DUE_MS) or 0)
            if due_ms > now_ms():
                self._pause(message, due_ms)
                continue
            self._bill(message)
            done[partition] = message.offset() + 1
        if self._producer.flush(FLUSH_S) or self._undelivered:
            raise RuntimeError(f"not delivered: {self._undelivered}; leaving, so that it is done again")
        self._done |= done

    def _pause(self, message: Message, due_ms: int) -> None:
        """Read this message again when it is due. All behind it in its partition are due later still."""
        at = TopicPartition(message.topic(), message.partition(), message.offset())
        self._consumer.pause([at])
        self._consumer.seek(at)
        self._paused[message.topic(), message.partition()] = due_ms

    def _resume_due(self) -> None:
        now = now_ms()
        due = [partition for partition, due_ms in self._paused.items() if due_ms <= now]
        for partition in due:
            del self._paused[partition]
        if due:
            self._consumer.resume([TopicPartition(*partition) for partition in due])

    # ------------------------------------------------------------ offsets

    def _commit(self) -> None:
        """Commit what is done, if no commit is under way. Nothing waits for the answer: while the group
        rebalances it stands behind that to the JoinGroup, and the partitions that we keep go on meanwhile."""
        new = {at: offset for at, offset in self._done.items() if self._commits.get(at) != offset}
        if new and not self._committing:
            self._committing = True
            self._consumer.commit(offsets=offsets_of(new), asynchronous=True)

    def _committed(self, error: KafkaError | None, partitions: list[TopicPartition]) -> None:
        """The answer. What was refused because the group has a new generation is committed again in that."""
        self._committing = False
        refused = [partition for partition in partitions if error or partition.error]
        for partition in refused:
            failure = partition.error or error
            if failure.name() not in _OTHER_GENERATION:
                raise KafkaException(failure)
        if refused:
            print(f"not committed, for the generation has changed: {named(refused)}", flush=True)
        self._commits |= {
            (partition.topic, partition.partition): partition.offset
            for partition in partitions
            if not (error or partition.error)
        }

    def _assigned(self, _: Consumer, partitions: list[TopicPartition]) -> None:
        print(f"assigned {named(partitions)}", flush=True)

    def _revoked(self, _: Consumer, partitions: list[TopicPartition]) -> None:
        """Given up in good order: whoever gets them begins where we end."""
        done = {at: self._done[at] for at in keys_of(partitions) if at in self._done}
        if done:
            try:
                self._consumer.commit(offsets=offsets_of(done), asynchronous=False)
            except KafkaException as error:
                if error.args[0].name() not in _OTHER_GENERATION:
                    raise
                print(f"not committed: {error.args[0]}", flush=True)
        print(f"revoked {named(partitions)}", flush=True)
        self._forget(partitions)

    def _lost(self, _: Consumer, partitions: list[TopicPartition]) -> None:
        """Somebody else has them already, and does again what we have not committed: no harm."""
        print(f"lost {named(partitions)}", flush=True)
        self._forget(partitions)

    def _forget(self, partitions: list[TopicPartition]) -> None:
        for at in keys_of(partitions):
            for known in (self._done, self._commits, self._paused):
                known.pop(at, None)

    # ------------------------------------------------------------ orders

    def _bill(self, message: Message) -> None:
        """Charge one order, or pass it on to where it is tried again or given up."""
        attempt = int(header(message, topics.ATTEMPT) or 0)
        try:
            order = topics.decode(message.value())
        except ValueError as error:
            self._pass_on(message, topics.DEAD, attempt, str(error), 0)
            return
        try:
            again = not self._gateway.charge(order, attempt, self.name)
        except GatewayError as error:
            if attempt < len(topics.RETRIES):
                topic, delay_ms = tuple(topics.RETRIES.items())[attempt]
                self._pass_on(message, topic, attempt + 1, str(error), now_ms() + delay_ms)
            else:
                self._pass_on(message, topics.DEAD, attempt, str(error), 0)
            return
        if again:
            print(f"charged before: {order['order']}", flush=True)
        payment = {**order, "billed_by": self.name, "attempt": attempt}
        self._send(topics.PAYMENTS, message.key(), topics.encode(payment), [])

    def _pass_on(self, message: Message, topic: str, attempt: int, error: str, due_ms: int) -> None:
        """The message as it came, byte for byte, with headers that say how it got there."""
        origin = header(message, topics.ORIGIN) or (
            f"{message.topic()}-{message.partition()}@{message.offset()}".encode()
        )
        headers = [
            (topics.ATTEMPT, str(attempt).encode()),
            (topics.ERROR, error.encode()),
            (topics.ORIGIN, origin),
        ]
        if due_ms:
            headers.append((topics.DUE_MS, str(due_ms).encode()))
        self._send(topic, message.key(), message.value(), headers)

    def _send(
        self, topic: str, key: bytes | None, value: bytes | None, headers: list[tuple[str, bytes]]
    ) -> None:
        self._producer.produce(topic, value, key, headers=headers, on_delivery=self._delivered)

    def _delivered(self, error: object, message: Message) -> None:
        if error is not None:
            self._undelivered.append(f"{message.topic()}: {error}")


def keys_of(partitions: Sequence[TopicPartition]) -> list[Key]:
    return [(partition.topic, partition.partition) for partition in partitions]


def offsets_of(done: dict[Key, int]) -> list[TopicPartition]:
    return [TopicPartition(*partition, offset) for partition, offset in done.items()]


def named(partitions: Sequence[TopicPartition]) -> str:
    return " ".join(f"{partition.topic}-{partition.partition}" for partition in partitions) or "nothing"


def header(message: Message, name: str) -> bytes | None:
    """The value of a message's header; None if it has none of this name."""
    return dict(message.headers() or []).get(name)


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def main() -> None:
    options = argparse.ArgumentParser(prog="python -m examples.messaging.billing", description=__doc__)
    options.add_argument("--bootstrap", required=True)
    options.add_argument("--name", required=True, help="of this member, for those who look at the group")
    options.add_argument("--ledger", type=Path, required=True, help="the gateway's books (SQLite)")
    arguments = options.parse_args()
    billing = Billing(arguments.bootstrap, arguments.name, Gateway(arguments.ledger))

    def stop(*_: object) -> None:
        billing.stopping = True

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    billing.run()


if __name__ == "__main__":
    sys.exit(main())
