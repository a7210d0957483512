"""One worker of the pipeline, as ``python -m exactly_once.worker JSON``: it takes records of its part of the
input, writes what it made of them to the output, and moves its group's offsets, all in one transaction.

It may be killed or halted at any moment. It ends by itself, with a status of ``FENCED``, where a producer
cannot go on, as Kafka's clients are told to, and with ``STUCK`` where its client hangs; whoever started it
starts another. It follows what KIP-447 asks
of such a program: the group's metadata that go with a transaction are those of the assignment under which its
records were read, and what was read under an assignment that is gone is thrown away.
"""

from __future__ import annotations

import faulthandler
import json
import random
import signal
import sys
import threading
import time
from typing import Any

from confluent_kafka import Consumer, KafkaException, Message, Producer, TopicPartition

QUIET = {"log_level": 2, "reconnect.backoff.ms": 20, "reconnect.backoff.max.ms": 200}
# What a producer sends, hears and makes of it, on stderr: where it waits for ever, on what.
TALKATIVE = {"log_level": 7, "debug": "eos,protocol"}
FENCED = 3
# It hangs: librdkafka (2.11 to 2.16) forgets a broker as soon as one answer of Metadata does not name it. If
# that coordinates the group, send_offsets_to_transaction() waits for it, however long that takes, and
# whatever timeout it was given (confluentinc/librdkafka#5511, #5456). An alarm ends the process then.
STUCK = -signal.SIGALRM
RECORDS_MAX = 20
CALL_TIMEOUT_S = 15.0
# How long after its time-out a call counts as hanging.
HANG_S = 10.0
# A transaction stays open for so long at most, so that there is something in it to be hit.
OPEN_S_MAX = 0.05

ending = threading.Event()


def transformed(value: bytes) -> bytes:
    return b"made of " + value


class Worker:
    """A member of the group with a transactional id of its own."""

    def __init__(self, setup: dict[str, Any]) -> None:
        self._input: str = setup["input"]
        self._output: str = setup["output"]
        # None while the group gives it nothing.
        self._membership: object | None = None
        self._assignments = 0
        # Before the consumer, so that no part of the input waits for it.
        self._producer = Producer(
            {
                "bootstrap.servers": setup["bootstrap"],
                "transactional.id": setup["name"],
                "transaction.timeout.ms": setup["transaction_timeout_ms"],
                "linger.ms": 2,
                "retry.backoff.ms": 20,
                "topic.metadata.refresh.interval.ms": 2_000,
                # By its default it forgets all brokers where it is connected to none for a moment, as after
                # each kill of the only one, and hangs for that (see STUCK).
                "metadata.recovery.strategy": "none",
                **QUIET,
                **TALKATIVE,
            }
        )
        self._until_done(self._producer.init_transactions)
        self._consumer = Consumer(
            {
                "bootstrap.servers": setup["bootstrap"],
                "group.id": setup["group"],
                "client.id": setup["name"],
                "isolation.level": "read_committed",
                "enable.auto.commit": False,
                "auto.offset.reset": "earliest",
                "session.timeout.ms": setup["session_timeout_ms"],
                "heartbeat.interval.ms": 300,
                "partition.assignment.strategy": "range",
                "fetch.wait.max.ms": 50,
                "topic.metadata.refresh.interval.ms": 2_000,
                **QUIET,
            }
        )
        self._consumer.subscribe(
            [self._input], on_assign=self._assigned, on_revoke=self._revoked, on_lost=self._revoked
        )

    def _assigned(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self._assignments += 1
        self._membership = consumer.consumer_group_metadata()

    def _revoked(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self._assignments += 1
        self._membership = None

    def run(self) -> None:
        while not ending.is_set():
            messages = self._read()
            if messages:
                self._process(messages)
        self._consumer.close()

    def _read(self) -> list[Message]:
        """Some records, all of one assignment."""
        found: list[Message] = []
        assignments = self._assignments
        while len(found) < RECORDS_MAX:
            message = self._consumer.poll(0.02 if found else 0.2)
            if self._assignments != assignments:
                # The message is of the new assignment, where there is one: what was before is read again.
                found, assignments = [], self._assignments
            if message is None:
                break
            error = message.error()
            if error is None:
                found.append(message)
            else:
                assert not error.fatal(), error
        return found

    def _process(self, messages: list[Message]) -> None:
        first: dict[int, int] = {}
        following: dict[int, int] = {}
        self._producer.begin_transaction()
        try:
            for message in messages:
                index = message.partition()
                first.setdefault(index, message.offset())
                following[index] = message.offset() + 1
                self._producer.produce(self._output, transformed(message.value()), partition=index)
            self._producer.poll(0)
            time.sleep(random.uniform(0, OPEN_S_MAX))
            offsets = [TopicPartition(self._input, index, offset) for index, offset in following.items()]
            self._until_done(self._producer.send_offsets_to_transaction, offsets, self._membership)
            self._until_done(self._producer.commit_transaction)
        except (KafkaException, BufferError) as error:
            self._abort(error, first)

    def _until_done(self, call: Any, *arguments: Any) -> None:
        """Call until it is known what has come of it."""
        while True:
            signal.setitimer(signal.ITIMER_REAL, CALL_TIMEOUT_S + HANG_S)
            try:
                return call(*arguments, CALL_TIMEOUT_S)
            except KafkaException as failure:
                error = failure.args[0]
                if not error.retriable() or error.fatal() or error.txn_requires_abort():
                    raise
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)

    def _abort(self, failure: Exception, first: dict[int, int]) -> None:
        """Undo the transaction, and begin again with its first records."""
        print(f"{time.time():.3f} aborts: {failure!r}", file=sys.stderr, flush=True)
        try:
            self._until_done(self._producer.abort_transaction)
            if self._membership is not None:
                for index, offset in first.items():
                    self._consumer.seek(TopicPartition(self._input, index, offset))
        except KafkaException as error:
            print(f"{time.time():.3f} ends: {error!r}", file=sys.stderr, flush=True)
            sys.exit(FENCED)


def main() -> None:
    signal.signal(signal.SIGTERM, lambda *_: ending.set())
    # Says where it hangs, and ends it.
    faulthandler.register(signal.SIGALRM, chain=True)
    try:
        Worker(json.loads(sys.argv[1])).run()
    except KafkaException as error:
        print(f"{time.time():.3f} ends: {error!r}", file=sys.stderr, flush=True)
        sys.exit(FENCED)


if __name__ == "__main__":
    main()
