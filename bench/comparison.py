"""What brokers are compared by: the steps, what each asks of a broker, and the figures that come of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from functools import partial
from pathlib import Path
from typing import Any, Protocol
from uuid import uuid4

import asking
from asking import Connection
from load import Program, Target
from ottla.cli.bench import processes
from ottla.wire.messages import MalformedMessage
from peers import Broker, Peer, Unavailable

BENCH_TIMEOUT_S = 600
IDLE_S = 3.0
# Of several nodes: they have something to tell each other every second or two.
IDLE_CLUSTER_S = 5.0
SETTLED_S = 5.0
PREFAULT_CHUNK_BYTES = 1 << 20
PREFIX = "compare-"
# The two steps that are done with clusters of more nodes as well.
PRODUCE = "Batched produce, 6 partitions, 100 B, acks=1"
CONSUME = "Consume, 6 partitions, 100 B"
SMALL_BYTES = 100
# A batch of about a megabyte, and what is written beside small requests.
BATCH_RECORDS, BATCH_RECORD_BYTES = 1000, 1000
NODES = 3
RESTING_PARTITIONS, RESTING_AT_ONCE = 600, 50
Figures = dict[str, Any]


class Contender(Protocol):
    """A broker, or a cluster, that is compared and listens."""

    @property
    def name(self) -> str: ...
    @property
    def host(self) -> str: ...
    @property
    def port(self) -> int: ...
    @property
    def bootstrap(self) -> str: ...
    def pids(self) -> frozenset[int]: ...
    def ready(self) -> None:
        """Be there for the next run; started again where the last one was too much for it."""


@dataclass(frozen=True, slots=True)
class Tools:
    """What a run is made with. No ``program`` where there is no C compiler: Python sends requests then."""

    program: Program | None
    seconds: float
    warmup_s: float


@dataclass(frozen=True, slots=True)
class Column:
    """A figure as the page shows it: its path in a result, and its heading."""

    path: tuple[str, ...]
    heading: str


RATE = Column(("messages_per_s",), "messages/s")
REQUESTS = Column(("requests_per_s",), "requests/s")
MEGABYTES = Column(("mb_per_s",), "MB/s")
PER_MILLION = Column(("broker_cpu_s_per_million",), "broker CPU s per million")
PER_MESSAGE = Column(("broker_cpu_us_per_message",), "broker CPU µs per message")
PER_REQUEST = Column(("broker_cpu_us_per_request",), "broker CPU µs per request")
PER_GB = Column(("broker_cpu_s_per_gb",), "broker CPU s per GB")
P50 = Column(("latency_ms", "p50"), "p50 ms")
P99 = Column(("latency_ms", "p99"), "p99 ms")
P999 = Column(("latency_ms", "p99.9"), "p99.9 ms")
WORST = Column(("latency_ms", "max"), "max ms")
MEMORY = Column(("broker_memory_mb",), "memory MB")
START = Column(("start_s",), "start s")
IDLE_CPU = Column(("idle_cpu_percent",), "idle CPU %")
LOAD_CPU = Column(("client_cpu_us_per_request",), "the load's own µs")
BESIDE_RATE = Column(("beside", "mb_per_s"), "beside it MB/s")
BESIDE_P99 = Column(("beside", "latency_ms", "p99"), "their p99 ms")


def _in_transactions(row: str) -> tuple[Column, ...]:
    """The figures of a row of `ottla bench transactions`."""
    wanted = {
        "batches": (RATE, PER_MILLION),
        "single": (
            Column(("messages_per_s",), "transactions/s"),
            Column(("p50_ms",), "p50 ms"),
            Column(("commit_p50_ms",), "commit p50 ms"),
            Column(("commit_p99_ms",), "commit p99 ms"),
            Column(("broker_cpu_us_per_message",), "broker CPU µs for each"),
        ),
        "consume": (RATE, PER_MILLION),
        "process": (Column(("p50_ms",), "p50 ms"), Column(("p99_ms",), "p99 ms"), PER_MILLION),
    }[row]
    first = {"single": "p50_ms", "process": "p50_ms"}.get(row, PER_MILLION.path[0])
    of = {"p50_ms": "p50"}.get(first, "broker CPU")
    found = [replace(column, path=("rows", row, "transactions", *column.path)) for column in wanted]
    found.append(Column(("rows", row, "ratio", first), f"{of}, times that without"))
    return tuple(found)


BATCHED = (RATE, MEGABYTES, PER_MILLION, MEMORY)
RAW = (REQUESTS, P50, P99, PER_REQUEST, LOAD_CPU, MEMORY)
LATENCY = (P50, P99, P999, PER_MESSAGE)


class Against(Enum):
    """Whom a step is for."""

    # A broker of one node: several that were installed or are at an address.
    ONE = "one"
    # A broker that is started by the step itself.
    STARTED = "started"
    # Ottla with --processes.
    PROCESSES = "processes"
    # A cluster of three nodes.
    CLUSTER = "cluster"


@dataclass(frozen=True, slots=True)
class Step:
    """One kind of load: a title, how it is done, the figures that tell, and the work. ``prepare`` is done
    once before the runs."""

    title: str
    how: str
    columns: tuple[Column, ...]
    run: Callable[[Contender, Tools], Figures]
    against: Against = Against.ONE
    prepare: Callable[[Contender], None] | None = None


def bench(title: str, arguments: Sequence[str], columns: tuple[Column, ...]) -> Step:
    """A step of `ottla bench`."""
    shown = f"`ottla bench {' '.join(arguments)}`; load from {{client}}."
    return Step(title, shown, columns, lambda broker, tools: ottla_bench(broker, arguments))


def ottla_bench(broker: Contender, arguments: Sequence[str]) -> Figures:
    """One run of `ottla bench`. Unavailable where it fails."""
    command = [sys.executable, "-m", "ottla.cli.main", "bench", *arguments, "--json"]
    command += ["--bootstrap", broker.bootstrap]
    for pid in sorted(broker.pids()):
        command += ["--broker-pid", str(pid)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=BENCH_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        raise Unavailable(f"not done within {BENCH_TIMEOUT_S} s") from None
    if done.returncode:
        reason = done.stderr.strip().splitlines()[-1:] or [f"exit code {done.returncode}"]
        raise Unavailable(reason[0].removeprefix("ottla: "))
    figures: Figures = json.loads(done.stdout)
    return {name: value for name, value in figures.items() if name not in ("settings", "notes", "test")}


@dataclass(frozen=True, slots=True)
class Requests:
    """Requests that were built once: what is asked, on how many connections, how many of them unanswered."""

    connections: int
    in_flight: int = 1
    records: int = 1
    record_bytes: int = SMALL_BYTES
    api: str = "produce"

    @property
    def words(self) -> str:
        how = f"{self.connections} connection{'s' * (self.connections > 1)}"
        if self.in_flight > 1:
            how += f", {self.in_flight} in flight on each"
        return f"{how}; load from {{client}}."

    def __call__(self, broker: Contender, tools: Tools) -> Figures:
        if tools.program is None:
            return ottla_bench(broker, self.arguments(tools))
        topic = f"{PREFIX}{uuid4().hex[:8]}"
        with Connection(broker.host, broker.port) as connection:
            asking.make_topics(connection, {topic: 6})
            try:
                return self._run(broker, tools.program, tools, topic, connection)
            finally:
                drop(connection, [topic])

    def arguments(self, tools: Tools) -> tuple[str, ...]:
        """The same for `ottla bench`."""
        produce = ("--records", str(self.records), "--size", str(self.record_bytes))
        return (
            *("requests", "--api", self.api, *(produce if self.api == "produce" else ())),
            *("--connections", str(self.connections), "--in-flight", str(self.in_flight)),
            *("--seconds", f"{tools.seconds:g}", "--warmup-s", f"{tools.warmup_s:g}"),
        )

    def _run(
        self, broker: Contender, program: Program, tools: Tools, topic: str, connection: Connection
    ) -> Figures:
        leaders = asking.leaders(connection, topic)
        if self.api == "produce":
            records = asking.batch(self.records, self.record_bytes)
            targets = [Target(*leaders[p], asking.produce({topic: [(p, records)]})) for p in sorted(leaders)]
        else:
            targets = [Target(broker.host, broker.port, asking.metadata([topic]))]
        found = program.ask(
            targets,
            self.connections,
            tools.seconds,
            in_flight=self.in_flight,
            warmup_s=tools.warmup_s,
            error_at=asking.produce_error_at(topic) if self.api == "produce" else -1,
            brokers=broker.pids(),
        ).result()
        return as_bench(found)


def as_bench(found: Mapping[str, Any]) -> Figures:
    """What the load program has found, under the names that `ottla bench` has for it."""
    count, seconds = found["count"], found["seconds"]
    if not count:
        raise Unavailable("nothing was answered")
    names = ("p50", "p99", "p99.9", "max")
    figures: Figures = {
        "client": "`bench/load.c`",
        "requests": count,
        "requests_per_s": count / seconds,
        "mb_per_s": found["bytes"] / seconds / 1e6,
        "latency_ms": {name: found[f"{name}_ms"] for name in names},
        "client_cpu_us_per_request": found["client_cpu_s"] / count * 1e6,
    }
    if "broker_cpu_s" in found:
        figures["broker_cpu_us_per_request"] = found["broker_cpu_s"] / count * 1e6
        figures["broker_cpu_s_per_gb"] = found["broker_cpu_s"] / found["bytes"] * 1e9
        figures["broker_memory_mb"] = found["broker_memory_mb"]
    return figures


def drop(connection: Connection, topics: Sequence[str]) -> None:
    """Delete topics of ours; some peers cannot, and their figures stand."""
    try:
        asking.delete_topics(connection, topics)
    except (asking.Refused, MalformedMessage, OSError) as error:
        print(f"could not delete {', '.join(topics)}: {error}", file=sys.stderr)


def at_rest(seconds: float, broker: Contender, tools: Tools) -> Figures:
    """What it uses while nobody asks anything."""
    del tools
    time.sleep(1.0)
    before, began_s = processes.usage(broker.pids()), time.monotonic()
    time.sleep(seconds)
    after, took_s = processes.usage(broker.pids()), time.monotonic() - began_s
    if before is None or after is None:
        return {}
    return {
        "broker_memory_mb": after.memory_bytes / 1e6,
        "idle_cpu_percent": (after.cpu_s - before.cpu_s) / took_s * 100,
    }


def start(peer: Peer, directory: Path) -> Figures:
    """A new broker's time to its first answer, and what it uses when nobody asks anything."""
    broker = Broker(peer, directory)
    try:
        return {"start_s": broker.start()} | at_rest(IDLE_S, broker, Tools(None, IDLE_S, 0))
    finally:
        broker.stop()
        broker.remove()


def resting(count: int, broker: Contender) -> None:
    """Have so many partitions of ours more on it, with a copy on each of its nodes, which nobody uses."""
    with Connection(broker.host, broker.port) as connection:
        nodes = len(connection.ask("Metadata", topics=[], allow_auto_topic_creation=False).brokers)
        names = {f"{PREFIX}rest-{uuid4().hex[:8]}": RESTING_AT_ONCE for _ in range(count // RESTING_AT_ONCE)}
        asking.make_topics(connection, names, replicas=min(NODES, nodes))
    # What comes with new partitions is over then.
    time.sleep(SETTLED_S)


def clean_up(broker: Contender) -> None:
    """Delete all topics of ours."""
    with Connection(broker.host, broker.port) as connection:
        answer = connection.ask("Metadata", topics=None, allow_auto_topic_creation=False)
        drop(connection, [topic.name for topic in answer.topics if topic.name.startswith(PREFIX)])


def replicated(partitions: int, arguments: Sequence[str], broker: Contender, tools: Tools) -> Figures:
    """`ottla bench` with a topic of three replicas."""
    del tools
    topic = f"{PREFIX}{uuid4().hex[:8]}"
    with Connection(broker.host, broker.port) as connection:
        asking.make_topics(connection, {topic: partitions}, replicas=NODES)
    try:
        return ottla_bench(broker, [*arguments, "--topic", topic])
    finally:
        with Connection(broker.host, broker.port) as connection:
            drop(connection, [topic])


def plan(scale: float) -> list[Step]:
    """The steps, in order; ``scale`` multiplies message counts and seconds."""
    count, large = str(max(1000, int(1_000_000 * scale))), str(max(1000, int(250_000 * scale)))
    produce = ("produce", "--messages", count)
    timed = ("--seconds", f"{max(0.5, 2.5 * scale):g}", "--warmup-s", "0.5")
    paced = ("latency", "--rate", "1000", *timed)
    one = "One-message Produce, "
    return [
        Step(
            "Start, and at rest",
            f"A new data directory; then {IDLE_S:g} seconds without a client.",
            (START, MEMORY, IDLE_CPU),
            lambda broker, tools: {},
            Against.STARTED,
        ),
        requests(f"{one}64 connections", Requests(64)),
        requests(f"{one}64 connections, 5 in flight", Requests(64, 5)),
        requests(f"{one}8 connections", Requests(8)),
        requests(f"{one}1 connection", Requests(1)),
        requests("Metadata, 8 connections", Requests(8, api="metadata")),
        requests(
            "1 MB batches, 6 connections, 5 in flight",
            Requests(6, 5, BATCH_RECORDS, BATCH_RECORD_BYTES),
            (MEGABYTES, P50, P99, PER_GB, MEMORY),
        ),
        bench(
            "Small requests beside large ones",
            ("latency", "--beside", "produce", *timed),
            (P50, P99, P999, WORST, BESIDE_RATE, BESIDE_P99),
        ),
        bench(
            "Small requests beside a reader of cold data",
            ("latency", "--beside", "cold-reader", *timed),
            (P50, P99, P999, WORST, BESIDE_RATE),
        ),
        bench(PRODUCE, (*produce, "--acks", "1"), BATCHED),
        bench("Batched produce, 6 partitions, 100 B, acks=all", (*produce, "--acks", "all"), BATCHED),
        bench("Batched produce, 6 partitions, 100 B, lz4", (*produce, "--compression", "lz4"), BATCHED),
        bench(
            "Batched produce, 1 partition, 1 KB",
            ("produce", "--messages", large, "--size", "1024", "--partitions", "1"),
            (RATE, MEGABYTES, PER_GB, MEMORY),
        ),
        bench(CONSUME, ("consume", "--messages", count), BATCHED),
        bench("Produce to consume at 1,000 messages/s, acks=all", (*paced, "--acks", "all"), LATENCY),
        beside(bench("", (*paced, "--acks", "all"), LATENCY)),
        *_exactly_once(scale),
        *_several(scale, produce, paced),
    ]


def _exactly_once(scale: float) -> list[Step]:
    """The same in transactions and without, at one broker and at three nodes."""
    batches = ("--messages", str(max(1000, int(200_000 * scale))))
    single = ("--seconds", f"{max(0.3, 1.5 * scale):g}")

    def step(title: str, row: str, *arguments: str, against: Against = Against.ONE) -> Step:
        words = ("transactions", "--only", row, "--rounds", "1", *arguments)
        return replace(bench(title, words, _in_transactions(row)), against=against)

    nodes, on_nodes = (
        ("--replicas", str(NODES)),
        "Three nodes: transactions of one message, one after the other",
    )
    return [
        step("Transactions of 1,000 messages, 6 partitions, 100 B", "batches", *batches),
        step("Transactions of one message, one after the other", "single", *single),
        step("Consume what is committed, one transaction in ten aborted", "consume", *batches),
        step("Consume, transform, produce exactly once", "process", *batches),
        step(on_nodes, "single", *single, *nodes, against=Against.CLUSTER),
    ]


def requests(title: str, asked: Requests, columns: tuple[Column, ...] = RAW) -> Step:
    return Step(title, asked.words, columns, asked)


def beside(step: Step) -> Step:
    return Step(
        f"The same beside {RESTING_PARTITIONS} partitions that nobody uses",
        step.how,
        step.columns,
        step.run,
        step.against,
        partial(resting, RESTING_PARTITIONS),
    )


def _several(scale: float, produce: Sequence[str], paced: Sequence[str]) -> list[Step]:
    """Steps of several processes and several nodes."""
    del scale
    cluster, idle = Against.CLUSTER, partial(at_rest, IDLE_CLUSTER_S)
    columns = (IDLE_CPU, MEMORY)
    how = (
        "CPU time and memory of all nodes together, without what keeps their metadata beside them (etcd); of "
        f"{IDLE_CLUSTER_S:g} seconds without a client."
    )
    shown = "`ottla bench {}` with a topic of three replicas; load from {{client}}."
    latency = (*paced, "--acks", "all")
    six = (*produce, "--acks", "all")
    return [
        Step(
            "Several processes: one-message Produce, 64 connections to each, 5 in flight",
            "`ottla serve --processes N`; CPU time of all of them; load from {client}.",
            (REQUESTS, P50, P99, PER_REQUEST, LOAD_CPU, MEMORY),
            lambda broker, tools: Requests(64 * getattr(broker, "processes", 1), 5)(broker, tools),
            Against.PROCESSES,
        ),
        Step("Three nodes at rest, no partitions", how, columns, idle, cluster),
        Step(
            "Three nodes: produce to consume at 1,000 messages/s, acks=all",
            shown.format(" ".join(latency)),
            LATENCY,
            partial(replicated, 1, latency),
            cluster,
        ),
        Step(
            "Three nodes: batched produce, 6 partitions, 100 B, acks=all",
            shown.format(" ".join(six)),
            BATCHED,
            partial(replicated, 6, six),
            cluster,
        ),
        Step("Three nodes at rest, 50 partitions", how, columns, idle, cluster, partial(resting, 50)),
        Step(
            f"Three nodes at rest, {RESTING_PARTITIONS} partitions",
            how,
            columns,
            idle,
            cluster,
            partial(resting, RESTING_PARTITIONS - 50),
        ),
        Step(
            f"Three nodes: produce to consume, beside {RESTING_PARTITIONS} partitions that nobody uses",
            shown.format(" ".join(latency)),
            LATENCY,
            partial(replicated, 1, latency),
            cluster,
        ),
    ]


def tools_of(program: Program | None, scale: float) -> Tools:
    return Tools(program, max(0.2, 2 * scale), 0.4 * min(1.0, scale))


def prefault(directory: Path, gigabytes: float) -> None:
    """Touch memory for the page cache first: a machine's first use of a page costs far more than the next."""
    path = directory / "prefault"
    chunk = os.urandom(PREFAULT_CHUNK_BYTES)
    with path.open("wb") as file:
        for _ in range(int(gigabytes * 1024)):
            file.write(chunk)
    path.unlink()
