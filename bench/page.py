"""docs/BENCHMARKS.md, from the figures of a comparison."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence

from comparison import STARTING, Results, Step, summary
from peers import Peer

HEAD = """\
# Benchmarks

Written by `bench/compare`: run it to see the figures of your machine. Each figure is the median of {runs}
runs, with the range of all in brackets where they differ. Runs are interleaved: every broker gets the same
load in turn.

On a machine that load and broker share, rates are as often the client's limit as the broker's: **the
broker's own CPU time says more**. CPU time and memory are those of the broker's process and its children.
Latencies are those that the client sees. What generated the load is said with each figure.

{machine}

| broker | version | |
| --- | --- | --- |
"""


def machine() -> str:
    """The machine in a line."""
    model = "unknown processor"
    with open("/proc/cpuinfo") as file:
        for line in file:
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
                break
    return (
        f"{os.cpu_count()} cores of {model}; Linux {platform.release()}, Python {platform.python_version()}; "
        "broker and load on the same machine, over loopback."
    )


def render(
    peers: Sequence[Peer],
    versions: Mapping[str, str],
    missing: Mapping[str, str],
    steps: Sequence[Step],
    results: Results,
    runs: int,
) -> str:
    """The whole page."""
    lines = [HEAD.format(runs=runs, machine=machine()).rstrip("\n")]
    lines += [
        f"| {peer.name} | {versions[peer.name]} | {peer.about} |" for peer in peers if peer.name in versions
    ]
    lines.append("")
    if missing:
        lines += ["Not compared, because they could not be installed or started here:", ""]
        lines += [f"- {name}: {reason}" for name, reason in missing.items()]
        lines.append("")
    names = [peer.name for peer in peers if peer.name in versions]
    for step in (STARTING, *steps):
        lines += _section(step, names, results)
    return "\n".join(lines)


def _section(step: Step, names: Sequence[str], results: Results) -> list[str]:
    lines = [f"## {step.title}", ""]
    if step.arguments:
        lines += [
            f"`ottla bench {' '.join(step.arguments)}`; load from {results.clients.get(step.title, '-')}.",
            "",
        ]
    lines.append("| | " + " | ".join(column.heading for column in step.columns) + " |")
    lines.append("| --- |" + " ---: |" * len(step.columns))
    for name in names:
        cells = [summary(results.values(step.title, name, column), column.digits) for column in step.columns]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    lines.append("")
    for name, error in results.errors.get(step.title, {}).items():
        done = len(results.runs.get(step.title, {}).get(name, ()))
        lines += [f"{name}: {'some runs' if done else 'all runs'} failed ({error}).", ""]
    return lines
