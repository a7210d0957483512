"""The part of docs/BENCHMARKS.md that shows how a cluster grows: two and three nodes, and the metadata of thirty."""

# ruff: noqa: E501 - prose

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping
from typing import Any

from capacity import PARTITIONS, Load
from figures import two_digits

CAPACITY = """\
## One, two and three nodes: how a cluster grows

{messages:,} messages of 100 bytes to {partitions} partitions, then read back by one consumer; medians. All nodes, their load
and etcd share the processors of this machine, so the rates are those that the load reaches: a second node brings no
second machine here. **The CPU time of the busiest node shows how capacity grows**: a node is full when it uses a whole
core. The last column is calculated from that time, not measured: the messages a second that would fill the busiest
node if it had a core to itself. A cluster on machines of its own would take as many, if nothing else limits it.
The rows of one node are the steps "{produce}" and "{consume}" of above.

| nodes | replicas, acks | | messages/s here | CPU s per million, all nodes | busiest node | to fill it, calculated |
| ---: | --- | --- | ---: | ---: | ---: | ---: |
"""

LARGE = """
## {nodes} nodes, {partitions:,} partitions: the metadata alone

No such cluster runs here. Its metadata does, in a real etcd on this machine, with the product's own code
around it: the image that a node reads at its start, the writes of the controller when a node dies, the events that
every other node gets. Replication factor 3, {nodes} nodes in 3 racks.

| | |
| --- | ---: |
| metadata in etcd, two nodes having died | {load[keys]:,} keys, {load_kb:,.0f} kB |
| a node reads it at its start, and makes its image | {load_ms} ms, {load_cpu_ms} ms of CPU |

A node dies:

| | first | second |
| --- | ---: | ---: |
"""

ROWS = (
    ("partitions that it led; that it held", lambda f: f"{f['leaders']:,}; {f['replicas']:,}"),
    ("until the last of them has a leader", lambda f: f"{two_digits(f['leaders_moved_ms'])} ms"),
    ("until it is out of all ISRs", lambda f: f"{two_digits(f['all_done_ms'])} ms"),
    ("transactions in etcd", lambda f: f"{f['etcd_writes']:,}"),
    ("a second, meanwhile", lambda f: two_digits(f["etcd_writes_per_s"])),
    ("events to each node's watch", lambda f: f"{f['watch_events']:,}"),
    ("bytes of them", lambda f: f"{f['watch_bytes'] / 1000:,.0f} kB"),
    ("CPU of the controller and one that watches", lambda f: f"{two_digits(f['cpu_s'] * 1000)} ms"),
)

FOOT = """
Before that, the controller has to notice the death: its connection to a process that has ended breaks at once; the
lease of a machine that has vanished ends after `broker.session.timeout.ms`. [FAULTS.md](FAULTS.md) has the times that
were measured of both.

While nothing happens etcd has nothing to write: each node's lease is kept alive a few times in its session
timeout, which etcd does in memory, and watches are silent. A follower that falls out of the ISR or comes back
costs one transaction for up to 40 partitions.
"""


def _one_node(runs: Mapping[str, Any], title: str) -> tuple[float, float]:
    """Messages a second, and CPU seconds per million, of the one node that was compared."""
    found = runs[title]["ottla"]
    rate, cpu_s = (
        statistics.median(figures[name] for figures in found)
        for name in ("messages_per_s", "broker_cpu_s_per_million")
    )
    return rate, cpu_s


def _rows(results: Mapping[str, Any]) -> Iterator[tuple[str, float, float, float]]:
    """The label of a row, its rate, and the CPU seconds per million messages of all nodes and of the busiest."""
    clusters = results["clusters"]
    for kind in ("produce", "consume"):
        title = clusters[kind]
        if "ottla" in results["runs"].get(title, ()):
            rate, cpu_s = _one_node(results["runs"], title)
            yield f"1 | 1, 1 | {kind}", rate, cpu_s, cpu_s
    for one in clusters["loads"]:
        for kind, figures in one["loads"].items():
            load = Load(**figures)
            label = f"{one['nodes']} | {one['replicas']}, {one['acks']} | {kind}"
            yield label, load.rate, load.total, load.busiest


def sections(results: Mapping[str, Any]) -> list[str]:
    """The lines of the page; none where no cluster was measured."""
    clusters = results.get("clusters")
    if not clusters:
        return []
    given = {name: clusters[name] for name in ("messages", "produce", "consume")}
    lines = [CAPACITY.format(partitions=PARTITIONS, **given).rstrip("\n")]
    for label, rate, total, busiest in _rows(results):
        full = f"≈ {two_digits(1e6 / busiest)}" if busiest else "-"
        lines.append(
            f"| {label} | {two_digits(rate)} | {two_digits(total)} | {two_digits(busiest)} | {full} |"
        )
    large = clusters["large"]
    load = large["load"]
    times = {
        name: two_digits(load[f"{key}_s"] * 1000)
        for name, key in (("load_ms", "load"), ("load_cpu_ms", "load_cpu"))
    }
    lines.append(LARGE.format(**large, load_kb=load["bytes"] / 1000, **times).rstrip("\n"))
    for title, show in ROWS:
        lines.append(f"| {title} | {show(large['first'])} | {show(large['second'])} |")
    return [*lines, *FOOT.splitlines(), ""]
