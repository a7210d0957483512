"""docs/BENCHMARKS.md, from the results of `bench/compare`."""

# ruff: noqa: E501 - prose

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from comparison import PER_REQUEST, Against, Column, Step, plan
from figures import summary, two_digits
from scaling_page import sections

Results = Mapping[str, Any]
# Cores of a machine that is not at hand.
CORES = 16

HEAD = """\
# Benchmarks

Made by `bench/compare` on {date}: `{command}`. {machine}

| broker | version | |
| --- | --- | --- |
{brokers}

Each figure is the median of {runs}, with the range of all in brackets where they differ. Figures have two digits, since
runs differ by more; a figure that was calculated is marked by "≈". Runs are interleaved: every broker gets the same load
in turn, so that other work of the machine falls on all alike.

**How to read it.** Load and broker share the machine, so rates are as often the client's limit as the broker's: **the
broker's own CPU time says more**. CPU time and memory are those of the broker's processes and their children. Latencies
are those that the client sees. Single requests come from a small program in C (`bench/load.c`), which costs what "the
load's own" says; everything else from `ottla bench`, with librdkafka or Python's sockets as each table says. Data is
written to files and not forced to the disk, as is Kafka's default, so this is not about disks. All of it goes over
loopback, which costs less than a network.

A Kafka at hand is measured in the same run: `make compare ARGS='--peer kafka=127.0.0.1:9092,PID'`, and three nodes with
`--peer kafka3=127.0.0.1:9092,127.0.0.1:9093,127.0.0.1:9094,PID,PID,PID`. Warm it up first (a JVM is slow in its first
minute): `--runs 5` and more.
"""

NO_ETCD = "Three nodes were not measured: there is no etcd on this machine."


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


def values(results: Results, step: str, name: str, column: Column) -> list[float]:
    """The figure of each run that has it."""
    found = []
    for figures in results["runs"].get(step, {}).get(name, ()):
        value: Any = figures
        for part in column.path:
            value = value.get(part) if isinstance(value, dict) else None
        if value is not None:
            found.append(float(value))
    return found


def table(results: Results, step: Step) -> list[list[str]]:
    """The head and a row for each broker; columns that nobody has are left out."""
    runs = results["runs"].get(step.title, {})
    names = list(runs)
    columns = [
        column for column in step.columns if any(values(results, step.title, name, column) for name in names)
    ]
    rows = [["", *(column.heading for column in columns)]]
    for name in names:
        cells = [summary(values(results, step.title, name, column)) for column in columns]
        rows.append([name, *cells])
    return rows


def remarks(results: Results, step: Step) -> list[str]:
    """What failed, what was measured less often than meant, and what can be calculated."""
    out = []
    runs = results["runs"].get(step.title, {})
    for name, error in results["errors"].get(step.title, {}).items():
        out.append(f"{name}: {'some runs' if runs.get(name) else 'all runs'} failed ({error}).")
    if runs and (most := max(map(len, runs.values()))) < results["runs_wanted"]:
        out.append(f"{_runs(most)} only.")
    if step.against is Against.PROCESSES:
        for name in runs:
            base, comma, count = name.rpartition(", ")
            costs = values(results, step.title, name, PER_REQUEST)
            if comma and count == "2 processes" and costs:
                cost_us = statistics.median(costs)
                out.append(
                    f"{base}, calculated, not measured: {CORES} processes on {CORES} cores of this kind, with clients on others, take "
                    f"{CORES} / {two_digits(cost_us)} µs ≈ {two_digits(CORES / cost_us * 1e6)} such requests a second."
                )
    return out


def _runs(count: int) -> str:
    return f"{count} run{'s' * (count > 1)}"


def client(results: Results, step: Step) -> str:
    """What the load came from."""
    for runs in results["runs"].get(step.title, {}).values():
        for figures in runs:
            if "client" in figures:
                return str(figures["client"])
    return "-"


def render(results: Results) -> str:
    """The whole page."""
    brokers = "\n".join(f"| {b['name']} | {b['version']} | {b['about']} |" for b in results["brokers"])
    given = {name: results[name] for name in ("date", "command", "machine")}
    out = [
        HEAD.format(brokers=brokers, runs=_runs(results["runs_wanted"]), **given).rstrip("\n"),
        "",
        *([results["note"], ""] if results["note"] else []),
    ]
    if results["missing"]:
        out += ["Not compared, because they could not be installed or started here:", ""]
        out += [f"- {name}: {reason}" for name, reason in results["missing"].items()]
        out.append("")
    if not results["has_etcd"]:
        out += [NO_ETCD, ""]
    for step in plan(results["scale"]):
        rows = table(results, step)
        said = remarks(results, step)
        if len(rows) == 1 and not said:
            continue
        out += [f"## {step.title}", "", step.how.replace("{client}", client(results, step)), ""]
        if len(rows) > 1:
            head, *rest = rows
            rule = ["---", *["---:"] * (len(head) - 1)]
            out += [f"| {' | '.join(row)} |" for row in (head, rule, *rest)]
            out.append("")
        for remark in said:
            out += [remark, ""]
    return "\n".join([*out, *sections(results)])


def text(results: Results) -> str:
    """The tables for people, in a terminal."""
    out: list[str] = []
    for step in plan(results["scale"]):
        rows = table(results, step)
        if len(rows) > 1:
            out += [step.title, *aligned(rows)]
        if said := remarks(results, step):
            out += [*([] if len(rows) > 1 else [step.title]), *said]
        if len(rows) > 1 or said:
            out.append("")
    return "\n".join(out)


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows as lines: the first column to the left, the others to the right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return [
        "  ".join(
            [row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))]
        ).rstrip()
        for row in rows
    ]
