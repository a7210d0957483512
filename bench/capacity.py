"""The same load on clusters of two and three nodes of this machine: the CPU time that each node spends."""

from __future__ import annotations

import json
import statistics
import subprocess
from dataclasses import dataclass, field
from typing import Any

from clusters import OTTLA, Cluster, cluster
from ottla.cli.bench import processes

PARTITIONS = 6
# Nodes, replication factor and acks of each cluster that is loaded; one node is compared with other brokers.
CLUSTERS = ((2, 1, "1"), (3, 1, "1"), (3, 3, "all"))


@dataclass(slots=True)
class Load:
    """The runs of one kind of load on one cluster."""

    rates: list[float] = field(default_factory=list)
    # CPU seconds per million messages, of each node in each run.
    cpu: list[list[float]] = field(default_factory=list)

    @property
    def rate(self) -> float:
        return statistics.median(self.rates)

    @property
    def busiest(self) -> float:
        """What the busiest node of each run spent: the one that would be full first."""
        return statistics.median(max(nodes) for nodes in self.cpu)

    @property
    def total(self) -> float:
        return statistics.median(sum(nodes) for nodes in self.cpu)


def _ottla(*arguments: str) -> dict[str, Any]:
    done = subprocess.run([*OTTLA, *arguments, "--json"], check=True, capture_output=True, text=True)
    answer = json.loads(done.stdout)
    return answer if isinstance(answer, dict) else {}


def _cpu(running: Cluster) -> list[float]:
    found = [processes.usage([pid]) for pid in running.nodes.values()]
    return [usage.cpu_s if usage is not None else 0.0 for usage in found]


def _measure(running: Cluster, load: Load, messages: int, *arguments: str) -> None:
    before = _cpu(running)
    result = _ottla("bench", *arguments, "--bootstrap", running.bootstrap)
    spent = [(now - then) / messages * 1e6 for now, then in zip(_cpu(running), before, strict=True)]
    load.rates.append(result["messages_per_s"])
    load.cpu.append(spent)


def run(nodes: int, replicas: int, acks: str, messages: int, runs: int) -> dict[str, Load]:
    """Produce, then consume, a topic of six partitions; so many times, on one cluster."""
    loads = {"produce": Load(), "consume": Load()}
    with cluster(nodes) as running:
        for number in range(runs + 1):
            topic = f"scale-{number}"
            common = ["--partitions", str(PARTITIONS), "--replication-factor", str(replicas)]
            _ottla("topic", "create", topic, *common, "--bootstrap", running.bootstrap)
            count = ["--topic", topic, "--messages", str(messages)]
            # The first run warms up: code, page cache, the client's connections.
            target = loads if number else {"produce": Load(), "consume": Load()}
            _measure(running, target["produce"], messages, "produce", *count, "--acks", acks)
            _measure(running, target["consume"], messages, "consume", *count)
            _ottla("topic", "delete", topic, "--bootstrap", running.bootstrap)
    return loads
