"""bench/growth: measure how Ottla, and any brokers beside it, grow, and write docs/GROWTH.md with its plots.

What grows: partitions, consumer groups, transactional ids, connections, consumers of one producer, the size
of a log. A fresh Ottla of this tree is measured unless --no-own says otherwise; --tree adds an Ottla of
another tree, --peer a broker of one node that runs already: what is made there has a prefix of its own, and
is deleted in the end, but for transactional ids, which expire.
The results are kept, and --draw makes the page of them anew. All else that is written is under build/bench.
"""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import addresses
import growth_page
import load
import peers
from asking import Refused
from comparison import prefault
from growth_axes import AXES, Axis, points
from growth_subject import Figures, Rig, Subject, started, visited
from options import add_brokers, add_results, argument, results_of, say, shown
from ottla.wire.messages import MalformedMessage
from page import machine
from peers import BUILD, PEERS, ROOT, Broker, Peer, Unavailable

RESULTS = Path(__file__).with_name("results") / "growth.json"
PAGE = ROOT / "docs" / "GROWTH.md"
# How much of the time may be over before points are left out: what cannot be takes the rest.
LATE_SHARE = 0.7
FAILURES = (Refused, Unavailable, MalformedMessage, OSError)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A broker that is measured: its name, what the page says of it, and how one is had for a point."""

    name: str
    version: str
    about: str
    open: Callable[[], AbstractContextManager[Subject]]


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="bench/growth", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = ",".join(axis.name for axis in AXES)
    made.add_argument("--axes", default=names, help=f"what grows ({names})")
    for axis in AXES:
        made.add_argument(
            f"--{axis.name}",
            type=argument(points),
            default=axis.points,
            metavar="N,N,…",
            help=f"{axis.label} ({','.join(map(str, axis.points))})",
        )
    made.add_argument("--seconds", type=float, default=2.0, help="how long each measurement takes (2)")
    made.add_argument("--minutes", type=float, default=7.0, help="fewer points where this is short (7)")
    add_brokers(made, "NAME=HOST:PORT[,PID]", "a broker that runs already, and its process on this machine")
    made.add_argument("--no-own", action="store_true", help="leave out the Ottla of this tree")
    add_results(made, RESULTS, PAGE)
    return made


def candidates(options: argparse.Namespace, data: Path) -> list[Candidate]:
    """Who is measured. Refused or Unavailable where one cannot be."""
    found = []
    own: list[Peer] = [] if options.no_own else [PEERS[0]]
    for peer in (*own, *(peers.tree(name, path) for name, path in options.tree)):
        make = partial(Broker, peer)
        about = "this tree" if peer is PEERS[0] else "another tree of Ottla"
        found.append(
            Candidate(
                peer.name,
                peers.ottla_version(peer),
                f"{about}, fresh for each point, default settings",
                partial(started, make, data / peer.name),
            )
        )
    for address in options.peer:
        addresses.check_processes(address)
        if (brokers := addresses.count(address)) != 1:
            raise Refused(f"{address.name} has {brokers} brokers: bench/growth measures one")
        pids = address.pids()
        seen = "" if pids else "; its process cannot be seen"
        open_it = partial(visited, address.name, address.host, address.port, pids)
        found.append(Candidate(address.name, "-", f"at {address.bootstrap}{seen}", open_it))
    if not found:
        raise Refused("there is nobody to measure")
    if len({one.name for one in found}) < len(found):
        raise Refused("two brokers have the same name: give them names, NAME=…")
    return found


def measure(
    chosen: Sequence[tuple[Axis, Sequence[int]]],
    brokers: Sequence[Candidate],
    rig: Rig,
    is_late: Callable[[], bool] = lambda: False,
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Every point of every axis against every broker, in turn; what was found, and what failed. Where it is
    late the first and the last point of an axis have to do."""
    axes: dict[str, Any] = {}
    errors: list[dict[str, Any]] = []
    for axis, numbers in chosen:
        for point in numbers:
            if point not in (numbers[0], numbers[-1]) and is_late():
                rig.say(f"{axis.label}: {point:,} is left out, for want of time")
                continue
            here: dict[str, Any] = {}
            for broker in brokers:
                rig.say(f"{axis.label}: {point:,}, {broker.name}")
                began_s = time.monotonic()
                figures: Figures = {}
                try:
                    with broker.open() as subject:
                        axis.measure(subject, point, rig, figures)
                except FAILURES as error:
                    reason = str(error) or type(error).__name__
                    errors.append({"axis": axis.name, "point": point, "broker": broker.name, "error": reason})
                    rig.say(f"  failed: {reason}")
                here[broker.name] = {name: round(value, 5) for name, value in figures.items()}
                rig.say(f"  {time.monotonic() - began_s:.1f} s")
            axes.setdefault(axis.name, {})[str(point)] = here
    return axes, errors


def run(options: argparse.Namespace, command: str) -> dict[str, Any]:
    """Measure what was asked for; the results."""
    wanted = options.axes.split(",")
    chosen = [(axis, getattr(options, axis.name)) for axis in AXES if axis.name in wanted]
    data = BUILD / "growth"
    shutil.rmtree(data, ignore_errors=True)
    data.mkdir(parents=True)
    try:
        rig = Rig(load.build(BUILD), options.seconds, say)
        brokers = candidates(options, data)
        if "log" in wanted:
            prefault(data, max(options.log) / 1000)
        late_s = time.monotonic() + options.minutes * 60 * LATE_SHARE
        axes, errors = measure(chosen, brokers, rig, lambda: time.monotonic() > late_s)
    finally:
        shutil.rmtree(data, ignore_errors=True)
    return {
        "date": time.strftime("%Y-%m-%d"),
        "command": command,
        "machine": machine(),
        "seconds": options.seconds,
        "brokers": [{"name": b.name, "version": b.version, "about": b.about} for b in brokers],
        "note": options.note,
        "axes": axes,
        "errors": errors,
    }


def end_in_order() -> None:
    """Have SIGTERM end this program as Ctrl-C does: with the brokers that it has started."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))


def main(arguments: Sequence[str]) -> int:
    """0, or 1 where something could not be measured."""
    given = parser()
    options = given.parse_args(arguments)
    names = [axis.name for axis in AXES]
    if unknown := set(options.axes.split(",")) - set(names):
        given.error(f"--axes: there is no {', '.join(sorted(unknown))}; choose from {', '.join(names)}")
    if options.seconds <= 0 or options.minutes <= 0:
        given.error("--seconds and --minutes are more than 0")
    try:
        results = results_of(options, lambda: run(options, shown("bench/growth", arguments)))
    except FAILURES as error:
        say(f"bench/growth: {error}")
        return 1
    if not options.no_page:
        growth_page.write(results, options.page)
        say(f"wrote {options.page}")
    print(json.dumps(results, indent=1, ensure_ascii=False) if options.json else growth_page.text(results))
    return 1 if results["errors"] else 0
