"""A broker as it is measured at one point of an axis, and what is measured at any.

Everything is asked through Kafka's protocol, so that any broker can be measured. Starts and stops are
measured of those alone that are started here. A broker at an address keeps what it had: topics and groups
that are made there carry a prefix of their own, and are deleted in the end.
"""

from __future__ import annotations

import os
import re
import resource
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

import asking
from asking import Connection, Refused
from load import Program, Target
from ottla.cli.bench import processes
from peers import Broker

Figures = dict[str, float]

PARTITIONS_PER_TOPIC = 100
MESSAGE_BYTES = 100
# A producer beside something, in messages a second.
PACE_PER_S = 500
# A request is timed so often at most, within the time that a measurement has.
REPEATS_MAX = 200
START_TIMEOUT_S = STOP_TIMEOUT_S = 180.0
LATE = re.compile(r"the event loop was late: .*?at most (\d+(?:\.\d+)?)")


@dataclass(slots=True)
class Subject:
    """A broker that is measured at one point of one axis."""

    name: str
    host: str
    port: int
    # Its processes, as far as they can be seen, and how it is started and stopped, if it is ours to do.
    find_pids: Callable[[], frozenset[int]]
    broker: Broker | None
    # Of the names of all topics and groups that are made.
    prefix: str = field(default_factory=lambda: f"growth-{uuid4().hex[:8]}")
    topics: list[str] = field(default_factory=list)
    groups: list[str] = field(default_factory=list)

    def connect(self) -> Connection:
        return Connection(self.host, self.port)

    def make_topics(self, connection: Connection, label: str, partitions: int) -> dict[str, int]:
        """Topics of so many partitions in all."""
        whole, rest = divmod(partitions, PARTITIONS_PER_TOPIC)
        counts = [PARTITIONS_PER_TOPIC] * whole + [rest] * (rest > 0)
        made = {f"{self.prefix}-{label}-{number:05}": count for number, count in enumerate(counts)}
        self.topics += made
        asking.make_topics(connection, made)
        return made

    def target(self, data: bytes) -> Target:
        return Target(self.host, self.port, data)

    def clean_up(self) -> None:
        """Delete what was made."""
        with self.connect() as connection:
            if self.groups:
                asking.delete_groups(connection, self.groups)
            asking.delete_topics(connection, self.topics)


@dataclass(frozen=True, slots=True)
class Rig:
    """How it is measured: the load program, and for how many seconds at a time."""

    program: Program
    seconds: float
    say: Callable[[str], None]


def memory(subject: Subject, figures: Figures) -> None:
    usage = processes.usage(subject.find_pids())
    if usage is not None:
        figures["memory_mb"] = usage.memory_bytes / 1e6


def idle(subject: Subject, rig: Rig, figures: Figures) -> None:
    """What it uses while nobody asks anything, and what memory it has then."""
    time.sleep(min(1.0, rig.seconds / 2))
    before, began_s = processes.usage(subject.find_pids()), time.monotonic()
    time.sleep(rig.seconds)
    after, took_s = processes.usage(subject.find_pids()), time.monotonic() - began_s
    if before is not None and after is not None:
        figures["idle_cpu_percent"] = (after.cpu_s - before.cpu_s) / took_s * 100
        figures["memory_mb"] = after.memory_bytes / 1e6


def timed(subject: Subject, rig: Rig, name: str, figures: Figures, ask: Callable[[], object]) -> None:
    """Ask the same for a while: half of all answers come within ``NAME_p50_ms``, and cost ``NAME_cpu_ms``."""
    ask()
    pids = subject.find_pids()
    before = processes.usage(pids)
    took_s: list[float] = []
    end_s = time.monotonic() + rig.seconds / 2
    while len(took_s) < REPEATS_MAX and (time.monotonic() < end_s or not took_s):
        began_s = time.perf_counter()
        ask()
        took_s.append(time.perf_counter() - began_s)
    figures[f"{name}_p50_ms"] = statistics.median(took_s) * 1e3
    after = processes.usage(pids)
    if before is not None and after is not None:
        figures[f"{name}_cpu_ms"] = (after.cpu_s - before.cpu_s) / len(took_s) * 1e3


def paced_producer(subject: Subject, rig: Rig, topic: str, name: str, figures: Figures) -> None:
    """Time a producer that sends one message after the other by the clock."""
    request = asking.produce({topic: [(0, asking.batch(1, MESSAGE_BYTES))]})
    running = rig.program.ask(
        [subject.target(request)],
        1,
        rig.seconds,
        in_flight=1000,
        rate=PACE_PER_S,
        error_at=asking.produce_error_at(topic),
    )
    found = running.result()
    figures[f"{name}_p50_ms"], figures[f"{name}_p99_ms"] = found["p50_ms"], found["p99_ms"]


@contextmanager
def meanwhile(work: Callable[[], None]) -> Iterator[None]:
    """Do something again and again, in a thread, while the block runs. What it raises is raised here."""
    stopping = threading.Event()
    errors: list[Exception] = []

    def run() -> None:
        try:
            while not stopping.is_set():
                work()
        except (OSError, Refused) as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        stopping.set()
        thread.join()
    if errors:
        raise errors[0]


def stop(subject: Subject, figures: Figures) -> None:
    """Stop it cleanly: how long that takes, and how late its event loop was at most, where it says so."""
    assert subject.broker is not None
    figures["stop_s"] = subject.broker.stop(STOP_TIMEOUT_S)
    found = LATE.findall(subject.broker.log.read_text(errors="replace"))
    if found:
        figures["lag_max_ms"] = float(found[-1])


def start(subject: Subject, name: str, figures: Figures, is_ready: Callable[[Connection], bool]) -> None:
    """Start it: how long until it does what is asked of it."""
    assert subject.broker is not None
    took_s, began_s = subject.broker.start(START_TIMEOUT_S), time.monotonic()
    with subject.connect() as connection:
        asking.until("what it did before its restart", lambda: is_ready(connection), START_TIMEOUT_S)
    figures[name] = took_s + time.monotonic() - began_s


def writes(topic: str, partition: int) -> Callable[[Connection], bool]:
    """Whether a partition takes a message."""
    request, at = (
        asking.produce({topic: [(partition, asking.batch(1, MESSAGE_BYTES))]}),
        asking.produce_error_at(topic),
    )
    return lambda connection: connection.exchange(request)[at : at + 2] == b"\0\0"


def cost(
    before: processes.Usage | None, after: processes.Usage | None, size: int, name: str, figures: Figures
) -> None:
    """CPU seconds for a gigabyte."""
    if before is not None and after is not None and size:
        figures[name] = (after.cpu_s - before.cpu_s) / size * 1e9


def evict(directory: Path, topic: str) -> None:
    """Have the kernel forget what a topic's files hold, so that they have to be read from the disk."""
    for path in directory.glob(f"{topic}-*/*.log"):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)


def raise_open_files(wanted: int) -> None:
    """Have this process, and the load, keep so many files open. Refused where it may not."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < wanted:
        raise Refused(f"{wanted} open files are needed, and {hard} allowed")
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


@contextmanager
def started(make: Callable[[Path], Broker], directory: Path) -> Iterator[Subject]:
    """A fresh broker of ours for one point, which is gone afterwards, and its data with it."""
    broker = make(directory)
    try:
        broker.start(START_TIMEOUT_S)
        yield Subject(broker.peer.name, "127.0.0.1", broker.port, broker.pids, broker)
    finally:
        broker.kill()
        broker.remove()


@contextmanager
def visited(name: str, host: str, port: int, pids: frozenset[int]) -> Iterator[Subject]:
    """A broker at an address, from which everything that was made is taken away again."""
    subject = Subject(name, host, port, lambda: pids, None)
    try:
        yield subject
    finally:
        subject.clean_up()
