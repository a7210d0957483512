"""Clusters of Ottla on this machine, as `ottla cluster up` starts them."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

LISTENING = re.compile(r"ottla: node (\d+) listening on (\S+) \(pid (\d+)\)")
READY = "ottla: cluster ready"
STOP_TIMEOUT_S = 60
OTTLA = (str(Path(sys.executable).parent / "ottla"),)


@dataclass(frozen=True, slots=True)
class Cluster:
    """A running cluster: its addresses, and each node's process."""

    bootstrap: str
    nodes: Mapping[int, int]
    name: str = "ottla"

    @property
    def host(self) -> str:
        return self.bootstrap.partition(",")[0].rpartition(":")[0]

    @property
    def port(self) -> int:
        return int(self.bootstrap.partition(",")[0].rpartition(":")[2])

    def pids(self) -> frozenset[int]:
        """The nodes' processes, without etcd's."""
        return frozenset(self.nodes.values())

    def ready(self) -> None:
        """It is there for as long as its block runs."""


@contextmanager
def cluster(
    nodes: int,
    *,
    name: str = "ottla",
    command: Sequence[str] = OTTLA,
    environment: Mapping[str, str] | None = None,
    folder: Path | None = None,
) -> Iterator[Cluster]:
    """A cluster of so many nodes, for as long as the block runs. RuntimeError where it does not start."""
    made = Path(tempfile.mkdtemp(prefix="ottla-nodes-", dir=folder))
    words = [*command, "cluster", "up", "--nodes", str(nodes), "--data", str(made), "--port", "0"]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=environment)
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
            raise RuntimeError("the cluster did not start")
        yield Cluster(",".join(addresses), pids, name)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(STOP_TIMEOUT_S)
        shutil.rmtree(made, ignore_errors=True)
