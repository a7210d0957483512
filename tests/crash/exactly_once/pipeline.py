"""The pipeline as a test sees it: its input, its workers and what may be done to them, its output."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition

from exactly_once.worker import FENCED, STUCK, transformed
from interop.process import BrokerProcess, wait_until
from interop.raw import RawClient

QUIET = {"log_level": 0, "reconnect.backoff.ms": 20, "reconnect.backoff.max.ms": 200}
PARTITIONS = 4
WORKERS = 3
INPUT, OUTPUT, GROUP = "input", "output", "pipeline"
SESSION_TIMEOUT_MS = 3_000
TRANSACTION_TIMEOUT_MS = 4_000
BROKER_SETTINGS = {
    "group.min.session.timeout.ms": "1000",
    "group.initial.rebalance.delay.ms": "0",
    "offsets.topic.num.partitions": "3",
    "transaction.state.log.num.partitions": "3",
    "transaction.abort.timed.out.transaction.cleanup.interval.ms": "500",
    # Crashes also meet rolling, snapshots of producers and more than one index of aborted transactions.
    "log.segment.bytes": "1048576",
}
RECORDS_PER_S = 200
# Shown of each worker.
LOG_LINES = 100
# Everything that goes on comes to an end within, on a machine with other work, too.
QUIET_TIMEOUT_S = 90.0


class Source(threading.Thread):
    """Writes the input: numbers that count up in each partition, each once."""

    def __init__(self, bootstrap: str) -> None:
        super().__init__(daemon=True)
        self.sent = [0] * PARTITIONS
        self.failures: list[object] = []
        self._ending = threading.Event()
        self._producer = Producer(
            {
                "bootstrap.servers": bootstrap,
                "enable.idempotence": True,
                "message.timeout.ms": 0,
                "retries": 2**31 - 1,
                "retry.backoff.ms": 20,
                **QUIET,
            }
        )

    def _delivered(self, error: object, message: Message) -> None:
        if error is not None:
            self.failures.append(error)

    def run(self) -> None:
        while not self._ending.wait(PARTITIONS / RECORDS_PER_S):
            for index in range(PARTITIONS):
                self._producer.produce(
                    INPUT, value_of(index, self.sent[index]), partition=index, on_delivery=self._delivered
                )
                self.sent[index] += 1
            self._producer.poll(0)

    def finish(self) -> None:
        self._ending.set()
        self.join(30)
        assert self._producer.flush(QUIET_TIMEOUT_S) == 0
        assert self.failures == []


def value_of(index: int, number: int) -> bytes:
    return b"%d %d %s" % (index, number, b"x" * (number % 100))


class Reader(threading.Thread):
    """Reads the output with read_committed as it grows: what it has seen, stays seen."""

    def __init__(self, bootstrap: str) -> None:
        super().__init__(daemon=True)
        self.seen: dict[int, list[bytes]] = defaultdict(list)
        # Where a partition had no more.
        self.ended: dict[int, int] = {}
        self.failure: Exception | None = None
        self._ending = threading.Event()
        self._consumer = Consumer(
            {
                "bootstrap.servers": bootstrap,
                "group.id": "unused",
                "enable.auto.commit": False,
                "isolation.level": "read_committed",
                "auto.offset.reset": "error",
                "enable.partition.eof": True,
                "fetch.wait.max.ms": 50,
                "topic.metadata.refresh.interval.ms": 2_000,
                **QUIET,
            }
        )
        self._consumer.assign([TopicPartition(OUTPUT, index, 0) for index in range(PARTITIONS)])

    def count(self) -> int:
        return sum(map(len, self.seen.values()))

    def run(self) -> None:
        try:
            while not self._ending.is_set():
                for message in self._consumer.consume(500, 0.1):
                    error = message.error()
                    if error is None:
                        self.seen[message.partition()].append(message.value())
                    elif error.code() == KafkaError._PARTITION_EOF:
                        self.ended[message.partition()] = message.offset()
                    else:
                        assert error.retriable() or error.code() < 0, error
        except Exception as failure:  # noqa: BLE001 - raised by finish() in the test's own thread
            self.failure = failure
        finally:
            self._consumer.close()

    def finish(self) -> None:
        self._ending.set()
        self.join(30)
        if self.failure is not None:
            raise self.failure


class Pipeline:
    """The workers, each of which is started again when it ends, and the brokers that they talk to."""

    def __init__(self, folder: Path, brokers: Sequence[BrokerProcess]) -> None:
        self.brokers = brokers
        self.bootstrap = ",".join(broker.bootstrap for broker in brokers)
        self._reading = {"bootstrap.servers": self.bootstrap, "group.id": GROUP}
        self._folder = folder
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._zombies: list[subprocess.Popen[bytes]] = []
        self.fenced = self.stuck = 0
        self.names = [f"worker-{number}" for number in range(WORKERS)]

    # ------------------------------------------------------------ workers

    def start(self, name: str) -> None:
        setup = {
            "name": name,
            "bootstrap": self.bootstrap,
            "input": INPUT,
            "output": OUTPUT,
            "group": GROUP,
            "session_timeout_ms": SESSION_TIMEOUT_MS,
            "transaction_timeout_ms": TRANSACTION_TIMEOUT_MS,
        }
        paths = os.pathsep.join(path for path in sys.path if path)
        with (self._folder / f"{name}.stderr").open("ab") as stderr:
            self._processes[name] = subprocess.Popen(
                [sys.executable, "-m", "exactly_once.worker", json.dumps(setup)],
                stdin=subprocess.DEVNULL,
                stdout=stderr,
                stderr=stderr,
                env={**os.environ, "PYTHONPATH": paths},
            )

    def kill(self, name: str) -> None:
        """SIGKILL, and another one with the same name."""
        process = self._processes[name]
        process.kill()
        process.wait(30)
        self.start(name)

    def tend(self) -> None:
        """Start again who has ended, which only those may that were fenced, or whose client hangs."""
        for name, process in list(self._processes.items()):
            status = process.poll()
            if status is not None:
                assert status in (FENCED, STUCK), f"{name} ended with {status}:\n{self.logs()}"
                self.fenced += status == FENCED
                self.stuck += status == STUCK
                self.start(name)
        for process in list(self._zombies):
            if process.poll() is not None:
                self._zombies.remove(process)

    def halt_inside_transaction(self, name: str) -> subprocess.Popen[bytes]:
        """SIGSTOP it at a moment at which a transaction of it is open."""

        def halted() -> subprocess.Popen[bytes] | None:
            self.tend()
            process = self._processes[name]
            process.send_signal(signal.SIGSTOP)
            # What it has sent before may open its transaction, or end it, a moment later.
            states = {self.state(name), self.state(name)}
            if states == {"Ongoing"}:
                return process
            process.send_signal(signal.SIGCONT)
            return None

        return wait_until(halted, QUIET_TIMEOUT_S, f"a transaction of {name} is open", pause_s=0.037)

    def zombie(self, name: str, *, replaced: bool) -> None:
        """Halt it for longer than its session and its transaction last, and have it go on then; ``replaced``:
        another with its name works meanwhile."""
        process = self.halt_inside_transaction(name)
        deadline = time.monotonic() + max(SESSION_TIMEOUT_MS, TRANSACTION_TIMEOUT_MS) / 1000
        try:
            if replaced:
                self._zombies.append(self._processes.pop(name))
                self.start(name)
            elif not self._is_timed_out(name):
                process.send_signal(signal.SIGCONT)
                self.zombie(name, replaced=replaced)
                return
            while time.monotonic() < deadline:
                self.tend()
                time.sleep(0.05)
        finally:
            process.send_signal(signal.SIGCONT)

    def _is_timed_out(self, name: str) -> bool:
        """What becomes of the transaction of one that was halted: False where its commit was under way."""
        ends = ("CompleteAbort", "CompleteCommit")

        def ended() -> str:
            state = self.state(name)
            return state if state in ends else ""

        return wait_until(ended, QUIET_TIMEOUT_S, f"{name} is timed out") == "CompleteAbort"

    def end(self) -> None:
        """In order, with SIGTERM."""
        for process in [*self._processes.values(), *self._zombies]:
            process.terminate()
        # Python hears no signal any more in a process that is about to end, as one that has just been fenced,
        # and not yet in one that begins.
        ends = (0, FENCED, STUCK, -signal.SIGTERM)
        for process in [*self._processes.values(), *self._zombies]:
            status = process.wait(QUIET_TIMEOUT_S)
            assert status in ends, f"ended with {status}:\n{self.logs()}"
        self._processes.clear()
        self._zombies.clear()

    def close(self) -> None:
        """Whatever became of the test."""
        for process in [*self._processes.values(), *self._zombies]:
            process.kill()
            process.wait(30)
        print(self.logs())

    def logs(self) -> str:
        """The ends of what the workers wrote."""
        return "\n".join(
            "\n".join([f"--- {path.name}", *path.read_text(errors="replace").splitlines()[-LOG_LINES:]])
            for path in sorted(self._folder.glob("*.stderr"))
        )

    # ------------------------------------------------------------ what the brokers say

    def open_transactions(self) -> dict[str, str]:
        """State by transactional id, of those that are open or not done."""
        found: dict[str, str] = {}
        for broker in self.brokers:
            with RawClient(broker.bootstrap) as client:
                answer = client.call("ListTransactions", 0, state_filters=[], producer_id_filters=[])
                assert answer.error_code in (0, 14), answer  # or COORDINATOR_LOAD_IN_PROGRESS
                if answer.error_code:
                    found[f"on {broker.bootstrap}"] = "loading"
                for one in answer.transaction_states:
                    if one.transaction_state not in ("Empty", "CompleteCommit", "CompleteAbort"):
                        found[one.transactional_id] = one.transaction_state
        return found

    def state(self, name: str) -> str:
        """The state of a worker's transaction, or nothing where no coordinator of it answers."""
        for broker in self.brokers:
            if broker.alive():
                with RawClient(broker.bootstrap) as client:
                    answer = client.call("DescribeTransactions", 0, transactional_ids=[name])
                if answer.transaction_states[0].error_code == 0:
                    return str(answer.transaction_states[0].transaction_state)
        return ""

    def unstable(self) -> dict[tuple[str, int], tuple[int, int]]:
        """Last stable offset and high watermark of the partitions where they differ."""
        stable, all_ = (self._ends(isolation) for isolation in ("read_committed", "read_uncommitted"))
        return {where: (stable[where], end) for where, end in all_.items() if stable[where] != end}

    def _ends(self, isolation: str) -> dict[tuple[str, int], int]:
        with closing(Consumer({**QUIET, **self._reading, "isolation.level": isolation})) as consumer:
            topics = consumer.list_topics(timeout=30).topics
            return {
                (topic, index): consumer.get_watermark_offsets(TopicPartition(topic, index), 30)[1]
                for topic in (INPUT, OUTPUT, "__consumer_offsets")
                for index in topics[topic].partitions
            }

    def behind(self, source: Source) -> dict[int, tuple[int, int]]:
        """Committed offset and count of the partitions that the group has not come to the end of."""
        with closing(Consumer({**QUIET, **self._reading, "isolation.level": "read_committed"})) as consumer:
            found = consumer.committed([TopicPartition(INPUT, index) for index in range(PARTITIONS)], 30)
        return {
            one.partition: (one.offset, source.sent[one.partition])
            for one in found
            if one.offset != source.sent[one.partition]
        }

    # ------------------------------------------------------------ the end of a test

    def run(self, steps: Sequence[Callable[[], None]], create: Callable[[str], None]) -> str:
        """Let it run with each of these done to it, one after another, and check what has come of it."""
        for topic in (INPUT, OUTPUT):
            create(topic)
        source, reader = Source(self.bootstrap), Reader(self.bootstrap)
        for thread in (source, reader):
            thread.start()
        for name in self.names:
            self.start(name)
        for step in steps:
            self._progress(reader)
            step()
        self._progress(reader)
        source.finish()
        self._wait(lambda: not self.behind(source), lambda: f"offsets at the end: {self.behind(source)}")
        self.end()
        self._wait(lambda: not self.open_transactions(), lambda: f"none is open: {self.open_transactions()}")
        self._wait(lambda: not self.unstable(), lambda: f"all is stable: {self.unstable()}")
        assert not self.behind(source)
        self._wait(
            lambda: reader.failure or reader.count() >= sum(source.sent),
            lambda: f"all is read: {reader.count()} of {sum(source.sent)}",
        )
        reader.finish()
        self._check(source, reader)
        again = f"{self.fenced} workers were fenced, {self.stuck} hung"
        return f"{sum(source.sent)} records, {len(steps)} faults, {again}"

    def _progress(self, reader: Reader) -> None:
        before = reader.count()
        self._wait(lambda: reader.failure or reader.count() > before + 20, lambda: "the output grows")

    def _wait(self, condition: Callable[[], object], what: Callable[[], str]) -> None:
        def met() -> object:
            self.tend()
            try:
                return condition()
            except KafkaException as error:
                # Leaders and coordinators move.
                if not error.args[0].retriable() and error.args[0].code() >= 0:
                    raise
                return None

        try:
            wait_until(met, QUIET_TIMEOUT_S, "what is waited for", pause_s=0.1)
        except AssertionError:
            raise AssertionError(what()) from None

    def _check(self, source: Source, reader: Reader) -> None:
        """The output is the input, each record once and in its order, to who reads as it grows and to who
        comes later."""
        late = Reader(self.bootstrap)
        late.start()
        wait_until(
            lambda: late.failure or late.ended.keys() == set(range(PARTITIONS)),
            QUIET_TIMEOUT_S,
            "all is read",
        )
        late.finish()
        for index in range(PARTITIONS):
            expected = [transformed(value_of(index, number)) for number in range(source.sent[index])]
            for who in (late, reader):
                found = who.seen[index]
                assert found == expected, difference(index, found, expected)


def difference(index: int, found: list[bytes], expected: list[bytes]) -> str:
    """What is wrong with a partition of the output, in a few words."""
    repeated = sorted({value[:30] for value in found if found.count(value) > 1})[:5]
    missing = sorted(set(expected) - set(found))[:5]
    strange = sorted(set(found) - set(expected))[:5]
    return f"output-{index}: {len(found)} of {len(expected)}; {repeated=}, {missing=}, {strange=}"
