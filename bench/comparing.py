"""bench/compare: the same load against Ottla and other brokers, in turn; writes docs/BENCHMARKS.md.

Ottla of this tree, brokers of its kind that PyPI has (--with), Ottla of other trees (--tree), and any broker
that runs already (--peer), such as a Kafka at hand: one of a single node is compared with single nodes, and a
cluster, of which each node's address is given, with three nodes of Ottla. Topics that are made at an address
are deleted in the end. The results are kept, and --draw makes the page of them anew.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import takewhile
from pathlib import Path
from typing import Any

import addresses
import capacity
import large
import load
import page
import peers
from addresses import Address
from asking import Refused
from clusters import cluster
from comparison import (
    CONSUME,
    NODES,
    PRODUCE,
    Against,
    Contender,
    Figures,
    Step,
    Tools,
    clean_up,
    plan,
    prefault,
    start,
    tools_of,
)
from options import add_brokers, add_results, results_of, say, shown
from ottla.cli.errors import CliError
from ottla.wire.messages import MalformedMessage
from peers import BUILD, PEERS, ROOT, Broker, Peer, Unavailable, install

RESULTS = Path(__file__).with_name("results") / "compare.json"
PAGE = ROOT / "docs" / "BENCHMARKS.md"
PROCESSES = (1, 2)
# The cluster of which only the metadata is there: nodes, partitions, and those of a topic.
LARGE = (30, 20_000, 100)
FAILURES = (Refused, Unavailable, MalformedMessage, CliError, RuntimeError, OSError)


@dataclass
class Results:
    """Figures of every run, by step title and broker; and what went wrong."""

    runs: dict[str, dict[str, list[Figures]]] = field(default_factory=dict)
    errors: dict[str, dict[str, str]] = field(default_factory=dict)

    def take(self, step: str, name: str, work: Callable[[], Figures]) -> None:
        """Do a run, and keep its figures, or why there are none."""
        try:
            figures = work()
        except FAILURES as error:
            self.errors.setdefault(step, {})[name] = str(error) or type(error).__name__
        else:
            self.runs.setdefault(step, {}).setdefault(name, []).append(rounded(figures))


def rounded(value: Any) -> Any:
    """Figures, with as many digits as they can mean."""
    if isinstance(value, dict):
        return {name: rounded(inner) for name, inner in value.items() if inner is not None}
    if isinstance(value, list):
        return [rounded(inner) for inner in value]
    return float(f"{value:.5g}") if isinstance(value, float) else value


class Deadline:
    """Bounds the whole: a step's further runs are left out where its share of the time is over."""

    def __init__(self, minutes: float, total: int, clock: Callable[[], float] = time.monotonic) -> None:
        """``total``: brokers of all steps together."""
        self._clock, self._began_s = clock, clock()
        self._share_s, self._shares = minutes * 60 / max(1, total), 0

    def step(self, brokers: int) -> None:
        """A step begins, with so many brokers."""
        self._shares += brokers

    def allows(self, run: int) -> bool:
        """Whether there is time for this run of the step, from 0 on: the first one always is done."""
        return run == 0 or self._clock() - self._began_s < self._share_s * self._shares


def measure(
    steps: Sequence[Step],
    brokers: Sequence[Contender],
    tools: Tools,
    runs: int,
    deadline: Deadline,
    results: Results,
) -> None:
    """Each step so many times against each broker: A B C A B C …"""
    for step in steps:
        deadline.step(len(brokers))
        able = [broker for broker in brokers if _prepared(step, broker, results)]
        for run in takewhile(deadline.allows, range(runs)):
            for broker in able:
                say(f"{step.title}, {broker.name} {run + 1}/{runs}")
                results.take(step.title, broker.name, partial(_run, step, broker, tools))


def _prepared(step: Step, broker: Contender, results: Results) -> bool:
    if step.prepare is None:
        return True
    try:
        broker.ready()
        step.prepare(broker)
    except FAILURES as error:
        results.errors.setdefault(step.title, {})[broker.name] = str(error)
        return False
    return True


def _run(step: Step, broker: Contender, tools: Tools) -> Figures:
    broker.ready()
    return step.run(broker, tools)


def measure_starts(
    step: Step, started: Sequence[Peer], data: Path, runs: int, deadline: Deadline, results: Results
) -> None:
    deadline.step(len(started))
    for run in takewhile(deadline.allows, range(runs)):
        for peer in started:
            say(f"{step.title}, {peer.name} {run + 1}/{runs}")
            results.take(step.title, peer.name, partial(start, peer, data / f"start-{run}"))


@dataclass(frozen=True, slots=True)
class Field:
    """Who takes part: those that are started here, which of them are Ottla, and those at an address."""

    started: Sequence[Peer]
    ottlas: Sequence[Peer]
    single: Sequence[Address]
    clusters: Sequence[Address]


def compare(who: Field, options: argparse.Namespace, tools: Tools, data: Path) -> Results:
    """All steps, against everyone they are for."""
    results = Results()
    steps = [step for step in plan(options.scale) if not options.only or options.only in step.title]
    of = {kind: [step for step in steps if step.against is kind] for kind in Against}
    brokers_of = {
        Against.STARTED: len(who.started),
        Against.ONE: len(who.started) + len(who.single),
        Against.PROCESSES: len(who.ottlas) * len(PROCESSES),
        Against.CLUSTER: len(who.ottlas) + len(who.clusters),
    }
    deadline = Deadline(options.minutes, sum(brokers_of[step.against] for step in steps))
    for step in of[Against.STARTED]:
        measure_starts(step, who.started, data, options.runs, deadline, results)
    with ExitStack() as stack:
        ones: list[Contender] = [*_brokers(stack, who.started, data), *who.single]
        for address in who.single:
            stack.callback(_clean_up, address)
        measure(of[Against.ONE], ones, tools, options.runs, deadline, results)
    if of[Against.PROCESSES]:
        with ExitStack() as stack:
            several = [peers.with_processes(peer, n) for peer in who.ottlas for n in PROCESSES]
            brokers = _brokers(stack, several, data)
            measure(of[Against.PROCESSES], brokers, tools, options.runs, deadline, results)
    if of[Against.CLUSTER]:
        with ExitStack() as stack:
            nodes = [*_clusters(stack, who.ottlas, data, results), *who.clusters]
            for address in who.clusters:
                stack.callback(_clean_up, address)
            measure(of[Against.CLUSTER], nodes, tools, options.runs, deadline, results)
    return results


def measure_clusters(options: argparse.Namespace, data: Path) -> dict[str, Any]:
    """How a cluster grows: the same load on more nodes, and the metadata of a large one.

    RuntimeError or OSError if no etcd starts.
    """
    messages = max(1000, int(1_000_000 * options.scale))
    loads = []
    for nodes, replicas, acks in capacity.CLUSTERS:
        say(f"How a cluster grows: {nodes} nodes, {replicas} replicas, acks={acks}")
        found = capacity.run(nodes, replicas, acks, messages, options.runs)
        kept = {kind: asdict(load) for kind, load in found.items()}
        loads.append({"nodes": nodes, "replicas": replicas, "acks": acks, "loads": kept})
    say(f"The metadata of {LARGE[0]} nodes and {LARGE[1]:,} partitions")
    figures = large.run(data / "large", *LARGE)
    titles = {"produce": PRODUCE, "consume": CONSUME}
    return {"messages": messages, **titles, "loads": loads, "large": figures}


def _brokers(stack: ExitStack, started: Sequence[Peer], data: Path) -> list[Broker]:
    brokers = [Broker(peer, data / peer.name.replace(", ", "-").replace(" ", "-")) for peer in started]
    for broker in brokers:
        stack.callback(broker.remove)
        stack.callback(broker.stop)
    return brokers


def _clusters(stack: ExitStack, ottlas: Sequence[Peer], data: Path, results: Results) -> list[Contender]:
    """Three nodes of each Ottla, where there is an etcd."""
    found: list[Contender] = []
    for peer in ottlas:
        program = (peers.python_of(peer), "-m", "ottla.cli.main")
        environment = {**os.environ, **peer.environment}
        nodes = cluster(NODES, name=peer.name, command=program, environment=environment, folder=data)
        try:
            found.append(stack.enter_context(nodes))
        except RuntimeError as error:
            results.errors.setdefault("Three nodes at rest, no partitions", {})[peer.name] = str(error)
    return found


def _clean_up(address: Address) -> None:
    try:
        clean_up(address)
    except FAILURES as error:
        say(f"{address.name}: {error}")


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="bench/compare", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    others = ",".join(peer.name for peer in PEERS[1:])
    # As many as there is time for.
    default = PEERS[-1].name
    made.add_argument("--runs", type=int, default=3, help="runs of each step against each broker (3)")
    made.add_argument("--scale", type=float, default=1.0, help="more or less load in each run (1.0)")
    made.add_argument("--minutes", type=float, default=7.0, help="fewer runs where this is over (7)")
    made.add_argument("--only", default="", metavar="TEXT", help="steps alone that have this in their title")
    made.add_argument(
        "--with",
        dest="others",
        default=default,
        help=f"brokers from PyPI, of {others} ({default}); '' for none",
    )
    add_brokers(
        made,
        "NAME=HOST:PORT[,HOST:PORT…][,PID…]",
        "a broker, or a cluster, that runs already, and its processes on this machine",
    )
    made.add_argument("--prefault-gb", type=float, default=1.0, help="page cache to touch before (1)")
    add_results(made, RESULTS, PAGE)
    return made


def gather(options: argparse.Namespace) -> tuple[Field, list[dict[str, str]], dict[str, str]]:
    """Who takes part, what the page says of them, and who could not be had. Refused where nobody answers."""
    asked = [name for name in options.others.split(",") if name]
    ottlas = [PEERS[0], *(peers.tree(name, path) for name, path in options.tree)]
    wanted = [*ottlas, *(peer for peer in PEERS[1:] if peer.name in asked)]
    about, missing, started = [], {}, []
    for peer in wanted:
        say(f"install {peer.name}")
        try:
            version = install(peer)
        except Unavailable as error:
            missing[peer.name] = str(error)
            continue
        started.append(peer)
        about.append({"name": peer.name, "version": version, "about": peer.about})
    single: list[Address] = []
    clusters: list[Address] = []
    for address in options.peer:
        addresses.check_processes(address)
        nodes = addresses.count(address)
        (single if nodes == 1 else clusters).append(address)
        seen = "" if address.pids() else "; its processes cannot be seen"
        where = f"{nodes} node{'s' * (nodes > 1)} at {address.bootstrap}{seen}"
        about.append({"name": address.name, "version": "-", "about": where})
    if len({one["name"] for one in about}) < len(about):
        raise Refused("two brokers have the same name: give them names, NAME=…")
    return Field(started, [peer for peer in ottlas if peer in started], single, clusters), about, missing


def run(options: argparse.Namespace, command: str) -> dict[str, Any]:
    """Compare; the results."""
    data = BUILD / "data"
    shutil.rmtree(data, ignore_errors=True)
    data.mkdir(parents=True)
    try:
        who, about, missing = gather(options)
        try:
            program = load.build(BUILD)
        except Refused as error:
            say(f"{error}: Python sends the requests, and its own cost bounds their rate")
            program = None
        prefault(data, options.prefault_gb)
        results = compare(who, options, tools_of(program, options.scale), data)
        has_etcd = shutil.which("etcd") is not None
        clusters = measure_clusters(options, data) if has_etcd and not options.only else None
    finally:
        shutil.rmtree(data, ignore_errors=True)
    return {
        "date": time.strftime("%Y-%m-%d"),
        "command": command,
        "machine": page.machine(),
        "runs_wanted": options.runs,
        "scale": options.scale,
        "brokers": about,
        "note": options.note,
        "missing": missing,
        "has_etcd": has_etcd,
        "clusters": rounded(clusters),
        "runs": results.runs,
        "errors": results.errors,
    }


def main(arguments: Sequence[str]) -> int:
    """0, or 1 where Ottla itself could not be measured."""
    given = parser()
    options = given.parse_args(arguments)
    names = [peer.name for peer in PEERS[1:]]
    if unknown := {name for name in options.others.split(",") if name} - set(names):
        given.error(f"--with: there is no {', '.join(sorted(unknown))}; choose from {', '.join(names)}")
    if options.runs < 1 or options.scale <= 0 or options.minutes <= 0:
        given.error("--runs is at least 1, --scale and --minutes are more than 0")
    try:
        results = results_of(options, lambda: run(options, shown("bench/compare", arguments)))
    except FAILURES as error:
        say(f"bench/compare: {error}")
        return 1
    if not options.no_page:
        options.page.parent.mkdir(parents=True, exist_ok=True)
        options.page.write_text(page.render(results))
        say(f"wrote {options.page}")
    print(json.dumps(results, indent=1, ensure_ascii=False) if options.json else page.text(results))
    return 1 if "ottla" in results["missing"] or any("ottla" in e for e in results["errors"].values()) else 0
