"""docs/SCALING.md, from the figures of `bench/scale`."""

# ruff: noqa: E501 - tables

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from capacity import PARTITIONS, Load
from page import machine

Loads = Sequence[tuple[int, int, str, Mapping[str, Load]]]

CAPACITY = """\
# How a cluster grows

Written by `bench/scale`: run it to see the figures of your machine. {machine}

## One, two and three nodes

{messages:,} messages of 100 bytes to {partitions} partitions, then read back by one consumer; medians of
{runs} runs after one to warm up. All nodes, their load and etcd share this machine's processors, so the rates
are those that the load reaches: a second node brings no second machine here. **What shows how capacity grows is
what one node spends on a message**: a node is full when it spends a whole core. The last column says how many
messages a second would fill the busiest node if it had a core to itself, and so what such a cluster takes on
machines of its own.

| nodes | replicas, acks | | messages/s here | CPU s per million, all nodes | busiest node | messages/s to fill it |
| ---: | --- | --- | ---: | ---: | ---: | ---: |
"""

LARGE = """
## {nodes} nodes, {partitions:,} partitions

No such cluster runs here. Its metadata does, in a real etcd on this machine, with the product's own code
around it: what a node reads at its start, what the controller writes when a node dies, what every other node is
told. Replication factor 3, {nodes} nodes in 3 racks.

| | |
| --- | ---: |
| metadata in etcd, two nodes having died | {load[keys]:,} keys, {load_kb:,.0f} kB |
| a node reads it at its start, and makes its image | {load_ms:.0f} ms, {load_cpu_ms:.0f} ms of CPU |

A node dies:

| | first | second |
| --- | ---: | ---: |
"""

ROWS = (
    ("partitions that it led; that it held", lambda f: f"{f['leaders']:,}; {f['replicas']:,}"),
    ("until the last of them has a leader", lambda f: f"{f['leaders_moved_ms']:.0f} ms"),
    ("until it is out of all ISRs", lambda f: f"{f['all_done_ms']:.0f} ms"),
    ("transactions in etcd", lambda f: f"{f['etcd_writes']:,}"),
    ("a second, meanwhile", lambda f: f"{f['etcd_writes_per_s']:,.0f}"),
    ("events to each node's watch", lambda f: f"{f['watch_events']:,}"),
    ("bytes of them", lambda f: f"{f['watch_bytes'] / 1000:,.0f} kB"),
    ("CPU of the controller and one that watches", lambda f: f"{f['cpu_s'] * 1000:.0f} ms"),
)

FOOT = """
Before that comes the time in which the death is noticed: the controller's connection to a process that has
ended breaks at once; a machine that has vanished is missed when its lease ends, after `broker.session.timeout.ms`.
[FAULTS.md](FAULTS.md) has what was measured of both.

While nothing happens etcd has nothing to write: each node's lease is kept alive a few times in its session
timeout, which etcd does in memory, and watches are silent. A follower that falls out of the ISR or comes back
costs one transaction for up to 40 partitions.
"""


def render(loads: Loads, large: Mapping[str, Any], messages: int, runs: int) -> str:
    """The whole page."""
    head = CAPACITY.format(machine=machine(), messages=messages, partitions=PARTITIONS, runs=runs)
    lines = [head.rstrip("\n")]
    for nodes, replicas, acks, kinds in loads:
        for kind, load in kinds.items():
            cells = [f"{load.rate:,.0f}", f"{load.total:.3f}", f"{load.busiest:.3f}"]
            cells.append(f"{1e6 / load.busiest:,.0f}" if load.busiest else "-")
            lines.append(f"| {nodes} | {replicas}, {acks} | {kind} | " + " | ".join(cells) + " |")
    load = large["load"]
    lines.append(
        LARGE.format(
            **large,
            load_kb=load["bytes"] / 1000,
            load_ms=load["load_s"] * 1000,
            load_cpu_ms=load["load_cpu_s"] * 1000,
        ).rstrip("\n")
    )
    for title, show in ROWS:
        lines.append(f"| {title} | {show(large['first'])} | {show(large['second'])} |")
    return "\n".join(lines) + "\n" + FOOT
