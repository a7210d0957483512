"""A campaign: clients at work, faults in between, and in the end the question whether all is as promised."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from cluster_faults.checker import TOLD_MAX, check, summary, told_of_resent, with_copies
from cluster_faults.faults import Fault, Stage, plan
from cluster_faults.history import History, Stored, Tail
from cluster_faults.logs import batches, check_log, differences, log_bytes
from cluster_faults.machines import Cluster
from cluster_faults.sends import Gap, Where, events_of
from cluster_faults.transactions import LEDGER, check_ledger, ledger_consumer, read_ledger
from cluster_faults.transactions import PARTITIONS as LEDGER_PARTITIONS
from cluster_faults.worker import QUIET, hash_of
from interop.process import wait_until

TOPICS = {"orders": 3, "events": 2}
# Transactional ids: the process behind the second is killed now and then.
LEDGERS = ("ledger-a", "ledger-b")
# The batches of one tell when they were appended, those of the other what their producer says.
CONFIGS = {"orders": {"message.timestamp.type": "LogAppendTime"}, "events": {}}
# Producers that live until the end, and their codecs. There is one more, which is killed now and then.
PRODUCERS = {"patient-a": "none", "patient-b": "lz4"}
GROUPS = {"eager": "range", "sticky": "cooperative-sticky"}
MEMBERS = 2
# Records a second of each producer, all partitions together.
RATE = 250
SESSION_S = 3.0
SETTINGS = {
    "broker.session.timeout.ms": str(int(SESSION_S * 1000)),
    "replica.lag.time.max.ms": "4000",
    "min.insync.replicas": "2",
    "offsets.topic.num.partitions": "3",
    "offsets.topic.replication.factor": "3",
    "transaction.state.log.num.partitions": "3",
    "transaction.state.log.replication.factor": "3",
    "transaction.state.log.min.isr": "2",
    "transaction.abort.timed.out.transaction.cleanup.interval.ms": "1000",
    "group.initial.rebalance.delay.ms": "0",
    "leader.imbalance.check.interval.seconds": "5",
    # Small segments, so that faults also meet rolling and logs of several of them.
    "log.segment.bytes": "1048576",
    "log.index.interval.bytes": "1000",
}
# How soon after a fault every producer gets an acknowledgement from every partition.
RECOVERY_S_MAX = 45.0
# How often the next fault does not wait for that.
HASTE = 0.25
# How soon followers have the last of what came before clients fell silent.
QUIET_S_MAX = 20.0
TESTS = Path(__file__).parents[2]


def _watermarks(consumer: Consumer, partition: TopicPartition) -> tuple[int, int] | None:
    """Where a partition begins and ends; None where its leader is about to change."""
    try:
        found: tuple[int, int] = consumer.get_watermark_offsets(partition, timeout=20)
        return found
    except KafkaException as failure:
        if not failure.args[0].retriable() and failure.args[0].code() != KafkaError.NOT_LEADER_FOR_PARTITION:
            raise
        return None


class Campaign:
    """``run`` it; AssertionError tells what is wrong, with all that is known of it in ``report``."""

    def __init__(self, cluster: Cluster, seed: int, count: int) -> None:
        self.cluster = cluster
        self.history = History()
        self.seed = seed
        self._chance = random.Random(seed)
        self.stage = Stage(cluster, self._chance, SESSION_S, TOPICS, tuple(GROUPS), self._replace_mortal)
        self._plan = plan(self._chance, count, cuts=cluster.network is not None)
        # (fault, begun, taken back, every partition acknowledges again or None)
        self.done: list[tuple[str, float, float, float | None]] = []
        self._tail = Tail()
        self._workers: dict[str, subprocess.Popen[bytes]] = {}
        self._mortals = 0
        # How often producers heard OUT_OF_ORDER_SEQUENCE_NUMBER.
        self._gaps = 0
        self._seen: dict[tuple[str, str, int], dict[int, None]] = defaultdict(dict)
        self._last_ack: dict[tuple[str, str, int], float] = {}

    # ------------------------------------------------------------ running

    def run(self) -> None:
        """All of it. The cluster runs on, well and idle, afterwards."""
        try:
            self._create_topics()
            with self._clients():
                self._wait_for_acks(time.monotonic(), "at the beginning")
                for fault in self._plan:
                    self._one(fault)
                self.stage.say("no more faults")
                self.cluster.wait_well()
                self._wait_for_acks(time.monotonic(), "at the end")
                self._wait_for_commits(time.monotonic())
                self._finish()
            self.check()
        except BaseException:
            self._look()
            path = self.cluster.folder / "report.txt"
            path.write_text(self.report())
            print(self.report())
            raise

    def _create_topics(self) -> None:
        admin = AdminClient({"bootstrap.servers": self.cluster.bootstrap, **QUIET})
        new = [NewTopic(name, count, 3, config=CONFIGS[name]) for name, count in TOPICS.items()]
        new.append(NewTopic(LEDGER, LEDGER_PARTITIONS, 3))
        for made in admin.create_topics(new).values():
            made.result(30)

    def _one(self, fault: Fault) -> None:
        name = fault.__name__
        self.stage.say(f"--- {name}")
        begun = time.monotonic()
        fault(self.stage)
        healed = time.monotonic()
        for node in self.cluster.nodes.values():
            node.check_alive()
        recovered = None
        if self._chance.random() >= HASTE:
            recovered = self._wait_for_acks(healed, f"after {name}")
        self.done.append((name, begun, healed, recovered))

    def _wait_for_acks(self, since: float, when: str) -> float:
        """Until each producer has had an acknowledgement from each partition after ``since``; when."""

        def streams() -> list[tuple[str, str, int]]:
            producers = [*PRODUCERS, f"mortal-{self._mortals}"]
            return [(name, topic, i) for name in producers for topic, n in TOPICS.items() for i in range(n)]

        deadline = time.monotonic() + RECOVERY_S_MAX
        while True:
            # What is written from here on may be seen only by the next look, which may take long.
            looked = time.monotonic()
            self._look()
            assert not self.history.trouble, f"{when}: {self.history.trouble}"
            silent = [stream for stream in streams() if self._last_ack.get(stream, 0.0) <= since]
            if not silent:
                return time.monotonic()
            assert looked < deadline, (
                f"{when}, {RECOVERY_S_MAX} s were not enough for each producer to hear of each partition: "
                f"(producer, topic, partition) without an acknowledgement are {silent}"
            )
            time.sleep(0.1)

    def _wait_for_commits(self, since: float) -> None:
        """Until each transactional id has had another transaction committed."""

        def committed() -> bool:
            self._look()
            return all(self.history.ledger.committed_at.get(name, 0.0) > since for name in LEDGERS)

        wait_until(committed, RECOVERY_S_MAX, "each transactional producer commits", 0.2)

    def _look(self) -> None:
        """Take in what the workers have written since."""
        for line in self._tail.lines():
            self.history.take(line)
            if line[0] == "acked":
                self._last_ack[line[1], line[2], line[3]] = line[7]
            elif line[0] == "read":
                self._seen[line[1], line[3], line[4]][line[5]] = None
        for name, worker in self._workers.items():
            assert worker.poll() in (None, 0), f"worker {name} ended with {worker.returncode}"

    # ------------------------------------------------------------ the clients

    @contextmanager
    def _clients(self) -> Iterator[None]:
        readers: list[dict[str, Any]] = [
            {"role": "member", "name": f"{group}-{index}", "group": group, "strategy": strategy}
            for index in range(MEMBERS)
            for group, strategy in GROUPS.items()
        ]
        watches = [{"role": "watch", "name": f"watch-{group}", "group": group} for group in GROUPS]
        for name, codec in PRODUCERS.items():
            self._spawn(name, [self._producer(name, codec)])
        self._spawn(LEDGERS[0], [{"role": "transact", "name": LEDGERS[0]}])
        self._replace_mortal()
        half = len(readers) // 2
        self._spawn("readers-0", [*readers[:half], *watches])
        self._spawn("readers-1", [*readers[half:], {"role": "ledger", "name": "read-ledger"}])
        try:
            yield
        finally:
            for worker in self._workers.values():
                worker.kill()
                worker.wait()
            self._workers.clear()

    @staticmethod
    def _producer(name: str, codec: str, *, mortal: bool = False) -> dict[str, Any]:
        return {"role": "produce", "name": name, "codec": codec, "rate": RATE, "mortal": mortal}

    def _replace_mortal(self) -> None:
        """Kill the producers that may die, if there are any; others take their places."""
        for one in (f"mortal-{self._mortals}", f"{LEDGERS[1]}-{self._mortals}"):
            old = self._workers.pop(one, None)
            if old is not None:
                self.stage.say(f"SIGKILL to producer {one}")
                old.kill()
                old.wait()
        self._mortals += 1
        name = f"mortal-{self._mortals}"
        self._spawn(name, [self._producer(name, "none", mortal=True)])
        self._spawn(f"{LEDGERS[1]}-{self._mortals}", [{"role": "transact", "name": LEDGERS[1]}])

    def _spawn(self, name: str, clients: list[dict[str, Any]]) -> None:
        path = self.cluster.folder / f"{name}.jsonl"
        setup = {
            "bootstrap": self.cluster.bootstrap,
            "record": str(path),
            "topics": TOPICS,
            "clients": clients,
        }
        command = self.cluster.clients.command(
            sys.executable, "-m", "cluster_faults.worker", json.dumps(setup)
        )
        paths = os.pathsep.join([str(TESTS / "crash"), str(TESTS)])
        with path.with_suffix(".stderr").open("wb") as stderr:
            self._workers[name] = subprocess.Popen(
                command, stderr=stderr, env={**os.environ, "PYTHONPATH": paths}
            )
        self._tail.add(path)

    def _finish(self) -> None:
        """End the producers, then the consumers once they have seen everything."""
        self._end([name for name in self._workers if not name.startswith("readers")])
        self._look()
        self.history.stored = self.read_back()

        def unseen() -> Counter[str]:
            self._look()
            return Counter(
                f"{group} {where[0]}-{where[1]}"
                for group in GROUPS
                for where, stored in self.history.stored.items()
                for record in stored
                if record.offset not in self._seen[group, *where]
            )

        wait_until(lambda: not unseen(), 60, "the groups have read everything", 0.5)
        self._read_ledger()
        # The last commits.
        time.sleep(1.0)
        self._end(list(self._workers))
        self._look()

    def _read_ledger(self) -> None:
        """All that is there with read_committed, once nothing is open, and its reader has all of it."""
        ledger = self.history.ledger
        everything = ledger_consumer(self.cluster.bootstrap, "read_uncommitted")
        consumer = ledger_consumer(self.cluster.bootstrap)

        def ends(of: Consumer) -> list[tuple[int, int] | None]:
            return [_watermarks(of, TopicPartition(LEDGER, n)) for n in range(LEDGER_PARTITIONS)]

        wait_until(lambda: ends(consumer) == ends(everything), 60, "no transaction is open", 0.5)
        for index in range(LEDGER_PARTITIONS):
            ledger.stored[index] = read_ledger(consumer, index)
        consumer.close()
        everything.close()

        def all_seen() -> bool:
            self._look()
            return all(len(ledger.seen["read-ledger", n]) >= len(of) for n, of in ledger.stored.items())

        wait_until(all_seen, 60, "all that was committed is read", 0.5)

    def _end(self, names: list[str]) -> None:
        ending = {name: self._workers.pop(name) for name in names}
        for worker in ending.values():
            worker.send_signal(signal.SIGTERM)
        for name, worker in ending.items():
            assert worker.wait(120) == 0, f"worker {name} did not end well: see its .stderr"

    # ------------------------------------------------------------ checking

    def read_back(self) -> dict[Where, list[Stored]]:
        """Every record of every partition, as a consumer that comes later gets it."""
        found: dict[Where, list[Stored]] = {}
        consumer = Consumer(
            {
                "bootstrap.servers": self.cluster.bootstrap,
                "group.id": "read-back",
                "enable.auto.commit": False,
                "auto.offset.reset": "error",
                "check.crcs": True,
                **QUIET,
            }
        )
        for topic, count in TOPICS.items():
            for index in range(count):
                low, high = wait_until(
                    partial(_watermarks, consumer, TopicPartition(topic, index)), 30, "the end of a log"
                )
                assert low == 0, f"{topic}-{index} begins at {low}"
                found[topic, index] = self._read_partition(consumer, topic, index, high)
        consumer.close()
        return found

    @staticmethod
    def _read_partition(consumer: Consumer, topic: str, index: int, end: int) -> list[Stored]:
        consumer.assign([TopicPartition(topic, index, 0)])
        stored: list[Stored] = []
        deadline = time.monotonic() + 60
        while not stored or stored[-1].offset < end - 1:
            assert time.monotonic() < deadline, f"{topic}-{index}: {len(stored)} of {end} records were read"
            for message in consumer.consume(5000, 1.0):
                assert message.error() is None, message.error()
                value = message.value()
                producer, number, _ = value.split(b" ", 2)
                stored.append(Stored(message.offset(), producer.decode(), int(number), hash_of(value)))
        return stored

    def check(self) -> None:
        of_replicas = self._check_replicas()
        self._read_producers_logs()
        violations = check(self.history, list(PRODUCERS), list(GROUPS), self.stage.doubtful) + of_replicas
        violations += check_ledger(self.history.ledger)
        assert not violations, "\n".join(["what was promised does not hold:", *violations])

    def _read_producers_logs(self) -> None:
        """Those of producers that have written something twice; they are long."""
        wanted = with_copies(self.history)
        for path in sorted(self.cluster.folder.glob("*.stderr")):
            with path.open(encoding="utf-8", errors="replace") as lines:
                if path.stem in wanted:
                    self.history.events[path.stem] = events_of(lines)
                else:
                    self._gaps += sum("|ERRSEQ|" in line for line in lines)
        for events in self.history.events.values():
            self._gaps += sum(isinstance(event, Gap) for event in events)

    def _check_replicas(self) -> list[str]:
        """All copies of each partition are the same, byte by byte, and in order in themselves."""
        found: list[str] = []
        names = {**TOPICS, "__consumer_offsets": int(SETTINGS["offsets.topic.num.partitions"])}
        names[LEDGER] = LEDGER_PARTITIONS
        for name in [f"{topic}-{index}" for topic, count in names.items() for index in range(count)]:

            def copies(name: str = name) -> dict[int, bytes]:
                return {n: log_bytes(node.data / name) for n, node in self.cluster.nodes.items()}

            deadline = time.monotonic() + QUIET_S_MAX
            while len(set((logs := copies()).values())) > 1 and time.monotonic() < deadline:
                time.sleep(0.1)
            found += differences(name, logs)
            if name.startswith(LEDGER):
                continue
            found += list(check_log(name, logs[1]))[:TOLD_MAX]
            topic, _, index = name.rpartition("-")
            self.history.batches[topic, int(index)] = list(batches(logs[1]))
        return found

    # ------------------------------------------------------------ telling

    def figures(self) -> str:
        """How long partitions were without acknowledgements, by fault."""
        acks: dict[Where, list[float]] = defaultdict(list)
        for (_, topic, index), found in self.history.acked.items():
            acks[topic, index] += [ack.acked_s for ack in found]
        gaps = [
            pair for times in acks.values() for pair in pairwise(sorted(times)) if pair[1] - pair[0] > 0.1
        ]
        worst: dict[str, list[float]] = defaultdict(list)
        for name, begun, healed, recovered in self.done:
            end = recovered or healed
            within = [after - before for before, after in gaps if before < end and after > begun]
            worst[name].append(max(within, default=0.1))
        lines = [
            f"  {name:38} {len(values)} x, longest time without an acknowledgement in a partition: "
            f"{', '.join(f'{value:.1f}' for value in values)} s"
            for name, values in sorted(worst.items())
        ]
        return "\n".join(
            [
                f"{len(self.done)} faults; {summary(self.history)}; producers heard of {self._gaps} gaps; "
                f"{self.history.ledger.summary()}",
                *lines,
                *told_of_resent(self.history),
            ]
        )

    def report(self) -> str:
        """For a person who has to find out what went wrong."""
        now, wall = time.monotonic(), time.time()

        def clock(at: float) -> str:
            seconds = wall - (now - at)
            return (
                f"{time.strftime('%H:%M:%S', time.gmtime(seconds))}.{int(seconds % 1 * 1000):03} ({at:.3f})"
            )

        timeline = [f"{clock(at)} {what}" for at, what in self.stage.timeline]
        logs = [f"--- the end of {node.log_path}:\n{node.tail()}" for node in self.cluster.nodes.values()]
        notes = [f"{count} x {what}" for what, count in sorted(self.history.notes.items())]
        state = [
            f"{key}: {value}"
            for key, value in sorted(self.cluster.stored("").items())
            if "configs" not in key
        ]
        return "\n".join(
            [
                f"OTTLA_FAULTS_SEED={self.seed}; times are UTC, and of the monotonic clock",
                "--- what was done:", *timeline,
                "--- what the store holds:", *state,
                "--- what must not happen, as clients saw it:", *self.history.trouble,
                "--- what clients were told in between:", *notes,
                "--- so far:", self.figures(), *logs,
            ]
        )  # fmt: skip
