"""Run the same load against several brokers in turn, and keep every figure.

Runs are interleaved, A B C A B C, so that what the machine does meanwhile falls on all alike.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from ottla.cli.bench import processes
from peers import Broker, Peer, Unavailable

BENCH_TIMEOUT_S = 600
IDLE_S = 5.0
PREFAULT_CHUNK_BYTES = 1 << 20
Figures = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Column:
    """A figure as the page shows it: its path in a result, its heading, and its decimals."""

    path: tuple[str, ...]
    heading: str
    digits: int


RATE = Column(("messages_per_s",), "messages/s", 0)
REQUESTS = Column(("requests_per_s",), "requests/s", 0)
MEGABYTES = Column(("mb_per_s",), "MB/s", 1)
PER_MILLION = Column(("broker_cpu_s_per_million",), "broker CPU s per million", 3)
PER_MESSAGE = Column(("broker_cpu_us_per_message",), "broker CPU µs per message", 0)
PER_REQUEST = Column(("broker_cpu_us_per_request",), "broker CPU µs per request", 1)
PER_GB = Column(("broker_cpu_s_per_gb",), "broker CPU s per GB", 2)
P50 = Column(("latency_ms", "p50"), "p50 ms", 3)
P99 = Column(("latency_ms", "p99"), "p99 ms", 3)
P999 = Column(("latency_ms", "p99.9"), "p99.9 ms", 3)
MEMORY = Column(("broker_memory_mb",), "memory MB", 0)
START = Column(("start_s",), "start s", 3)
IDLE_CPU = Column(("idle_cpu_percent",), "idle CPU %", 2)


@dataclass(frozen=True, slots=True)
class Step:
    """One kind of load: a title, what `ottla bench` is asked for, and the figures that tell."""

    title: str
    arguments: tuple[str, ...]
    columns: tuple[Column, ...]


def plan(scale: float) -> list[Step]:
    """The steps; ``scale`` multiplies message counts and seconds."""
    count = str(max(1000, int(2_000_000 * scale)))
    large = str(max(1000, int(500_000 * scale)))
    seconds = f"{max(1.0, 10 * scale):g}"
    warmup = f"{max(0.5, 2 * min(1.0, scale)):g}"
    timed = ("--seconds", seconds, "--warmup-s", warmup)
    batched = (RATE, MEGABYTES, PER_MILLION, MEMORY)
    raw = (REQUESTS, P50, P99, PER_REQUEST, MEMORY)
    produce = ("produce", "--messages", count)
    latency = (P50, P99, P999, PER_MESSAGE)
    one = ("requests", *timed)
    return [
        Step("Batched produce, 6 partitions, 100 B, acks=1", (*produce, "--acks", "1"), batched),
        Step("Batched produce, 6 partitions, 100 B, acks=all", (*produce, "--acks", "all"), batched),
        Step("Batched produce, 6 partitions, 100 B, lz4", (*produce, "--compression", "lz4"), batched),
        Step(
            "Batched produce, 1 partition, 1 KB",
            ("produce", "--messages", large, "--size", "1024", "--partitions", "1"),
            (RATE, MEGABYTES, PER_GB, MEMORY),
        ),
        Step("Consume, 6 partitions, 100 B", ("consume", "--messages", count), batched),
        Step(
            "Produce to consume at 1,000 messages/s, acks=1", ("latency", "--rate", "1000", *timed), latency
        ),
        Step("One-message Produce, 1 connection", (*one, "--connections", "1"), raw),
        Step("One-message Produce, 64 connections", (*one, "--connections", "64"), raw),
        Step("Metadata, 8 connections", (*one, "--api", "metadata", "--connections", "8"), raw),
        Step(
            "1 MB batches, 6 connections, 5 in flight",
            (*one, "--connections", "6", "--in-flight", "5", "--records", "9000"),
            (MEGABYTES, P50, P99, PER_GB, MEMORY),
        ),
    ]


STARTING = Step("Start, and at rest", (), (START, MEMORY, IDLE_CPU))


@dataclass
class Results:
    """Figures of every run, by step title and peer; and what went wrong."""

    runs: dict[str, dict[str, list[Figures]]] = field(default_factory=dict)
    errors: dict[str, dict[str, str]] = field(default_factory=dict)
    clients: dict[str, str] = field(default_factory=dict)

    def add(self, step: str, peer: str, figures: Figures) -> None:
        self.runs.setdefault(step, {}).setdefault(peer, []).append(figures)
        if "client" in figures:
            self.clients[step] = figures["client"]

    def fail(self, step: str, peer: str, error: str) -> None:
        self.errors.setdefault(step, {})[peer] = error

    def values(self, step: str, peer: str, column: Column) -> list[float]:
        """The figure of each run that has it."""
        found = []
        for figures in self.runs.get(step, {}).get(peer, ()):
            value: Any = figures
            for name in column.path:
                value = value.get(name) if isinstance(value, dict) else None
            if value is not None:
                found.append(float(value))
        return found


def summary(values: Sequence[float], digits: int) -> str:
    """The median, and the range where there is one; '-' where there is nothing."""
    if not values:
        return "-"
    median, low, high = (f"{v:,.{digits}f}" for v in (statistics.median(values), min(values), max(values)))
    return median if low == high else f"{median} ({low} – {high})"


def prefault(directory: Path, gigabytes: float) -> None:
    """Touch memory for the page cache first: a machine's first use of a page costs far more than the next."""
    path = directory / "prefault"
    chunk = os.urandom(PREFAULT_CHUNK_BYTES)
    with path.open("wb") as file:
        for _ in range(int(gigabytes * 1024)):
            file.write(chunk)
    path.unlink()


def measure_start(peer: Peer, directory: Path, run: int) -> Figures:
    """A new broker's time to its first answer, and what it uses when nobody asks anything."""
    broker = Broker(peer, directory / f"{peer.name}-start-{run}")
    try:
        start_s = broker.start()
        assert broker.process is not None
        time.sleep(1.0)
        before = processes.usage([broker.process.pid])
        time.sleep(IDLE_S)
        after = processes.usage([broker.process.pid])
    finally:
        broker.stop()
    if before is None or after is None:
        raise Unavailable("it ended by itself")
    return {
        "start_s": start_s,
        "broker_memory_mb": after.memory_bytes / 1e6,
        "idle_cpu_percent": (after.cpu_s - before.cpu_s) / IDLE_S * 100,
    }


def measure(broker: Broker, step: Step) -> Figures:
    """One run of `ottla bench`. Unavailable where it fails."""
    command = [sys.executable, "-m", "ottla.cli.main", "bench", *step.arguments]
    command += ["--json", "--bootstrap", broker.bootstrap]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=BENCH_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        raise Unavailable(f"not done within {BENCH_TIMEOUT_S} s") from None
    if done.returncode:
        reason = done.stderr.strip().splitlines()[-1:] or [f"exit code {done.returncode}"]
        raise Unavailable(reason[0].removeprefix("ottla: "))
    figures: Figures = json.loads(done.stdout)
    return figures


def interleaved(runs: int, brokers: Sequence[Broker]) -> Iterator[tuple[int, Broker]]:
    """A B C A B C …, as often as there are runs."""
    for run in range(runs):
        for broker in brokers:
            yield run, broker


def compare(
    available: Sequence[Peer], directory: Path, runs: int, scale: float, say: Callable[[str], None]
) -> Results:
    """All steps against all peers."""
    results = Results()
    for run in range(runs):
        for peer in available:
            say(f"start {peer.name} {run + 1}/{runs}")
            _try(results, STARTING.title, peer.name, partial(measure_start, peer, directory, run))
    brokers = [Broker(peer, directory / peer.name) for peer in available]
    try:
        for step in plan(scale):
            for run, broker in interleaved(runs, brokers):
                say(f"{step.title} {broker.peer.name} {run + 1}/{runs}")
                _try(results, step.title, broker.peer.name, partial(_fresh, broker, step))
    finally:
        for broker in brokers:
            broker.stop()
    return results


def _fresh(broker: Broker, step: Step) -> Figures:
    """A run against the broker, which is started again if the last run was too much for it."""
    if not broker.alive():
        broker.start()
    return measure(broker, step)


def _try(results: Results, step: str, peer: str, work: Callable[[], Figures]) -> None:
    try:
        results.add(step, peer, work())
    except Unavailable as error:
        results.fail(step, peer, str(error))
