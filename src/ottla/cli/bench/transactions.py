"""`ottla bench transactions`: what transactions cost, beside the same work without them.

Each row is done with transactions and without, in turn, so that whatever the machine does meanwhile falls on
both alike; its figures are the medians of the rounds.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NamedTuple
from uuid import uuid4

from ottla.cli import output
from ottla.cli.bench import report, runner, single, transacting, workers
from ottla.cli.bench.single import SingleLoad
from ottla.cli.bench.transacting import PiecesLoad
from ottla.cli.bench.workers import Load
from ottla.cli.client import Cluster
from ottla.cli.errors import CliError

Figures = dict[str, Any]
WITH, WITHOUT = "transactions", "without"

# One in so many transactions is aborted of what is consumed.
ABORT_EVERY = 10
# A round of consume-transform-produce, in messages.
ROUND_MESSAGES = 100
# Of all messages that are sent, how many go through consume-transform-produce.
PROCESSED_SHARE = 0.1
WARMUP_S = 0.5


class Row(StrEnum):
    """What is measured."""

    BATCHES = "batches"
    SINGLE = "single"
    CONSUME = "consume"
    PROCESS = "process"


class Figure(NamedTuple):
    """A figure of a row: its name, and for people what it is, its unit."""

    name: str
    label: str
    unit: str


# Of each row what it is about, which figures tell, the one that is compared first.
ROWS: dict[Row, tuple[str, tuple[Figure, ...]]] = {
    Row.BATCHES: (
        "{piece} messages in each, beside an idempotent producer that flushes as often",
        (
            Figure("broker_cpu_s_per_million", "broker CPU per million messages", "s"),
            Figure("messages_per_s", "rate", "messages/s"),
        ),
    ),
    Row.SINGLE: (
        "1 message in each, one after the other, beside an idempotent Produce of 1 message, acks=all",
        (
            Figure("broker_cpu_us_per_message", "broker CPU for each", "µs"),
            Figure("messages_per_s", "rate", "messages/s"),
            Figure("p50_ms", "p50", "ms"),
            Figure("p99_ms", "p99", "ms"),
            Figure("commit_p50_ms", "commit, p50", "ms"),
            Figure("commit_p99_ms", "commit, p99", "ms"),
        ),
    ),
    Row.CONSUME: (
        f"read_committed, one in {ABORT_EVERY} aborted, beside read_uncommitted",
        (
            Figure("broker_cpu_s_per_million", "broker CPU per million messages", "s"),
            Figure("messages_per_s", "rate", "messages/s"),
        ),
    ),
    Row.PROCESS: (
        f"consume, transform, produce, {ROUND_MESSAGES} messages in each, beside at least once",
        (
            Figure("p50_ms", "p50 of a round", "ms"),
            Figure("p99_ms", "p99 of a round", "ms"),
            Figure("broker_cpu_s_per_million", "broker CPU per million messages", "s"),
        ),
    ),
}


@dataclass(frozen=True, slots=True)
class Asked:
    """What is measured of which cluster; ``settings`` are librdkafka's."""

    cluster: Cluster
    brokers: frozenset[int]
    settings: dict[str, Any]
    rounds: int
    partitions: int
    replicas: int
    messages: int
    size: int
    piece: int
    seconds: float

    def as_settings(self) -> dict[str, Any]:
        shown = {"messages": self.messages, "size_bytes": self.size, "partitions": self.partitions}
        return shown | ({"replicas": self.replicas} if self.replicas > 0 else {}) | {"rounds": self.rounds}


# One run: with transactions, or without.
Run = Callable[[bool], Figures]


def measure(asked: Asked, rows: Sequence[Row]) -> dict[str, dict[str, Figures]]:
    """The figures of each row, of WITH and WITHOUT, and their ratios under "ratio"."""
    return {row.value: _measure(asked, row) for row in rows}


def _measure(asked: Asked, row: Row) -> dict[str, Figures]:
    runs: dict[bool, list[Figures]] = {True: [], False: []}
    with ExitStack() as stack:
        run = _PREPARE[row](asked, stack)
        if asked.rounds > 1 and row is not Row.SINGLE:
            # What is done for the first time takes longer. Single messages warm up by themselves.
            run(True), run(False)
        for _ in range(asked.rounds):
            for with_transactions in (True, False):
                runs[with_transactions].append(run(with_transactions))
    return compared(row, runs[True], runs[False])


def compared(row: Row, with_: Sequence[Figures], without: Sequence[Figures]) -> dict[str, Figures]:
    """The medians of a row's runs, and how often the one goes into the other."""
    names = [figure.name for figure in ROWS[row][1]]
    found = {WITH: _medians(with_, names), WITHOUT: _medians(without, names)}
    ratio = {}
    for name, value in found[WITH].items():
        if other := found[WITHOUT].get(name):
            ratio[name] = round(value / other, 3)
    return {**found, "ratio": ratio}


def _medians(runs: Sequence[Figures], names: Sequence[str]) -> Figures:
    found = {}
    for name in names:
        values = [run[name] for run in runs if run.get(name) is not None]
        if values:
            found[name] = round(statistics.median(values), 3)
    return found


def _topic(asked: Asked, stack: ExitStack, partitions: int) -> str:
    return stack.enter_context(runner.topic(asked.cluster, None, partitions, asked.replicas))


def _name() -> str:
    return f"ottla-bench-{uuid4().hex[:8]}"


def _figures(measured: runner.Measured) -> Figures:
    """CliError where a part of the load failed."""
    (done,) = measured.done
    if done.error is not None:
        raise CliError(f"the load did not go through: {done.error}")
    figures: Figures = {"messages_per_s": round(done.count / measured.seconds) if measured.seconds else None}
    if measured.before is not None and measured.after is not None and done.count:
        cpu_s = measured.after.cpu_s - measured.before.cpu_s
        figures["broker_cpu_s_per_million"] = cpu_s / done.count * 1e6
        figures["broker_cpu_us_per_message"] = cpu_s / done.count * 1e6
    for prefix, times_s in (("", done.latencies_s), ("commit_", done.commits_s)):
        found = report.percentiles(times_s)
        figures |= {f"{prefix}{name}_ms": found[name] for name in ("p50", "p99") if name in found}
    return figures


# -- the rows


def _batches(asked: Asked, stack: ExitStack) -> Run:
    topic, name = _topic(asked, stack, asked.partitions), _name()

    def run(with_transactions: bool) -> Figures:
        load = PiecesLoad(
            asked.settings,
            topic,
            asked.messages,
            asked.size,
            asked.piece,
            name if with_transactions else None,
        )
        return _figures(_run("Producing", transacting.produce, load, asked, asked.messages))

    return run


def _single(asked: Asked, stack: ExitStack) -> Run:
    topic, name = _topic(asked, stack, 1), _name()
    cluster = asked.cluster
    leader = runner.leader(cluster, cluster.partitions(topic)[0])
    first = cluster.controller()

    def run(with_transactions: bool) -> Figures:
        load = SingleLoad(
            first, leader, topic, 0, asked.size, asked.seconds, WARMUP_S, name if with_transactions else None
        )
        return _figures(_run("Single messages", single.run, load, asked, 0))

    return run


def _fill(asked: Asked, topic: str, count: int, abort_every: int) -> None:
    load = PiecesLoad(asked.settings, topic, count, asked.size, asked.piece, _name(), abort_every)
    _figures(_run("Filling", transacting.produce, load, asked, count))


def _consume(asked: Asked, stack: ExitStack) -> Run:
    topic = _topic(asked, stack, asked.partitions)
    pieces = max(ABORT_EVERY, asked.messages // asked.piece)
    count = pieces * asked.piece
    _fill(asked, topic, count, ABORT_EVERY)
    committed = count - pieces // ABORT_EVERY * asked.piece

    def run(with_transactions: bool) -> Figures:
        isolation = "read_committed" if with_transactions else "read_uncommitted"
        load = Load(
            {**asked.settings, "isolation.level": isolation},
            topic,
            committed if with_transactions else count,
            partitions=tuple(range(asked.partitions)),
        )
        figures = _figures(_run("Consuming", workers.consume, load, asked, count))
        if (cost_s := figures.get("broker_cpu_s_per_million")) is not None:
            # Both have the same bytes sent: those that are aborted are passed over by the consumer.
            figures["broker_cpu_s_per_million"] = cost_s * load.count / count
        return figures

    return run


def _process(asked: Asked, stack: ExitStack) -> Run:
    source, topic = (_topic(asked, stack, asked.partitions) for _ in range(2))
    count = max(ROUND_MESSAGES, int(asked.messages * PROCESSED_SHARE))
    _fill(asked, source, count, 0)
    name = _name()
    stack.callback(_forget_groups, asked.cluster, [f"{name}-{WITH}", f"{name}-{WITHOUT}"])

    def run(with_transactions: bool) -> Figures:
        load = PiecesLoad(
            asked.settings,
            topic,
            count,
            asked.size,
            ROUND_MESSAGES,
            name if with_transactions else None,
            source=source,
            partitions=tuple(range(asked.partitions)),
            group=f"{name}-{WITH if with_transactions else WITHOUT}",
        )
        return _figures(_run("Processing", transacting.process, load, asked, count))

    return run


def _forget_groups(cluster: Cluster, groups: list[str]) -> None:
    for group, future in cluster.admin.delete_consumer_groups(groups).items():
        # One that never committed is not there.
        with suppress(CliError):
            cluster.wait(future, f"group {group!r}")


def _run(label: str, worker: runner.Worker, load: Any, asked: Asked, total: int) -> runner.Measured:
    return runner.run(label, [(worker, load)], asked.brokers, total)


_PREPARE: dict[Row, Callable[[Asked, ExitStack], Run]] = {
    Row.BATCHES: _batches,
    Row.SINGLE: _single,
    Row.CONSUME: _consume,
    Row.PROCESS: _process,
}


# -- for people and programs


def show(asked: Asked, client: str, found: dict[str, dict[str, Figures]], json: bool) -> None:
    """Print what was measured."""
    if json:
        output.print_json(
            {"test": "transactions", "client": client, "settings": asked.as_settings(), "rows": found}
        )
        return
    output.say(f"transactions: {report.settings_text(asked.as_settings())}")
    output.say(f"load from {client}")
    for name, figures in found.items():
        about, wanted = ROWS[Row(name)]
        output.say()
        output.say(f"{name}: {about.format(piece=asked.piece)}")
        lines = [
            (
                figure.label,
                _number(figures[WITH].get(figure.name)),
                _number(figures[WITHOUT].get(figure.name)),
                _number(figures["ratio"].get(figure.name)),
                figure.unit,
            )
            for figure in wanted
            if figure.name in figures[WITH]
        ]
        output.table(("figure", "with", "without", "ratio", "unit"), lines, right=(1, 2, 3))
    if not asked.brokers:
        output.say("broker CPU: not visible from here (another machine, or another user's process)")


def _number(value: float | None) -> str:
    return "-" if value is None else report.number(value)
