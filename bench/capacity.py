"""The same load on clusters of one, two and three nodes on this machine: what each node spends on it."""

from __future__ import annotations

import json
import re
import signal
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ottla.cli.bench import processes

OTTLA = str(Path(sys.executable).parent / "ottla")
LISTENING = re.compile(r"ottla: node (\d+) listening on (\S+) \(pid (\d+)\)")
READY = "ottla: cluster ready"
PARTITIONS = 6
STOP_TIMEOUT_S = 60


@dataclass(frozen=True, slots=True)
class Cluster:
    """A running cluster: its addresses, and each node's process."""

    bootstrap: str
    pids: dict[int, int]


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


@contextmanager
def cluster(nodes: int) -> Iterator[Cluster]:
    """A cluster of so many nodes, for as long as the block runs."""
    with tempfile.TemporaryDirectory(prefix="ottla-scale-") as folder:
        command = [OTTLA, "cluster", "up", "--nodes", str(nodes), "--data", folder, "--port", "0"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        try:
            assert process.stdout is not None
            addresses, pids = [], {}
            for line in process.stdout:
                if found := LISTENING.match(line):
                    addresses.append(found[2])
                    pids[int(found[1])] = int(found[3])
                elif line.startswith(READY):
                    break
            else:
                raise RuntimeError(f"the cluster did not start: see {folder}")
            yield Cluster(",".join(addresses), pids)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(STOP_TIMEOUT_S)


def _ottla(*arguments: str) -> dict[str, Any]:
    done = subprocess.run([OTTLA, *arguments, "--json"], check=True, capture_output=True, text=True)
    answer = json.loads(done.stdout)
    return answer if isinstance(answer, dict) else {}


def _cpu(running: Cluster) -> list[float]:
    found = [processes.usage([pid]) for pid in running.pids.values()]
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
