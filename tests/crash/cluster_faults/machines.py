"""A cluster of real processes: `ottla serve` nodes and etcd's members, each on a machine of its own where
network namespaces can be had, otherwise all on this one."""

from __future__ import annotations

import base64
import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from netns import Host, Namespaces, namespaces

from etcd_support import EtcdCluster
from interop.process import wait_until

READY = re.compile(r"^ottla: listening on (\S+):(\d+)$", re.MULTILINE)
NAME = "faults"
START_TIMEOUT_S = 90.0
STOP_TIMEOUT_S = 60.0
NODES = (1, 2, 3)
# The machines of clients, and of whoever watches and must not be cut off.
CLIENTS, OBSERVER = "clients", "observer"


class Node:
    """One `ottla serve`: it keeps its address and its data from start to start."""

    def __init__(
        self, node_id: int, host: Host, port: int, folder: Path, store: str, settings: Mapping[str, str]
    ) -> None:
        self.node_id = node_id
        self.host = host
        self.port = port
        self.data = folder / f"node-{node_id}"
        self.log_path = folder / f"node-{node_id}.log"
        self._out = folder / f"node-{node_id}.out"
        self._store = store
        self._settings = settings
        self.process: subprocess.Popen[bytes] | None = None
        self.paused = False
        # Whether its disk is gone, which whoever starts it again says.
        self.wiped = False

    @property
    def address(self) -> str:
        return f"{self.host.address}:{self.port}"

    @property
    def up(self) -> bool:
        return self.process is not None

    def spawn(self) -> None:
        """Start the process, and do not wait for it."""
        assert self.process is None
        command = self.host.command(sys.executable, "-m", "ottla.cli.main", "serve")
        command += ["--node-id", str(self.node_id), "--listen", self.address, "--data", str(self.data)]
        command += ["--store", self._store, "--cluster", NAME]
        command += ["--replace"] if self.wiped else []
        for name, value in self._settings.items():
            command += ["--set", f"{name}={value}"]
        with self._out.open("wb") as out, self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=log,
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
            )

    def wait_ready(self) -> None:
        assert self.process is not None
        deadline = time.monotonic() + START_TIMEOUT_S
        while not READY.search(self._out.read_text()):
            code = self.process.poll()
            assert code is None, f"node {self.node_id} ended with {code} at start:\n{self.tail()}"
            assert time.monotonic() < deadline, f"node {self.node_id} is not ready:\n{self.tail()}"
            time.sleep(0.01)

    def check_alive(self) -> None:
        """A node that nobody killed runs."""
        if self.process is not None:
            code = self.process.poll()
            assert code is None, f"node {self.node_id} ended by itself with {code}:\n{self.tail()}"

    def kill(self) -> None:
        """SIGKILL: what it wrote stays in the page cache."""
        if self.process is not None:
            self.process.kill()
            self.process.wait(STOP_TIMEOUT_S)
            self.process, self.paused = None, False

    def terminate(self) -> None:
        """SIGTERM, without waiting."""
        assert self.process is not None
        self.process.terminate()

    def wait_stopped(self) -> None:
        assert self.process is not None
        try:
            code = self.process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"node {self.node_id} does not stop:\n{self.tail()}") from None
        assert code == 0, f"node {self.node_id} stopped with {code}:\n{self.tail()}"
        self.process = None

    def pause(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)
        self.paused = True

    def resume(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)
        self.paused = False

    def wipe(self) -> None:
        """Lose the disk."""
        assert self.process is None
        shutil.rmtree(self.data)
        self.wiped = True

    def tail(self, lines: int = 60) -> str:
        return "\n".join(self.log_path.read_text(errors="replace").splitlines()[-lines:])


class Cluster:
    """Nodes 1 to 3 and three members of etcd. ``network`` is None where nothing can be cut."""

    def __init__(self, folder: Path, settings: Mapping[str, str], network: Namespaces | None) -> None:
        self.folder = folder
        self.network = network
        here = Host("here")
        self._hosts = network.hosts if network is not None else {}
        machines = [self._hosts[f"etcd-{index}"] for index in range(3)] if network is not None else ()
        self.etcd = EtcdCluster(3, machines=machines)
        self.clients = self._hosts.get(CLIENTS, here)
        self._settings = settings
        self.nodes: dict[int, Node] = {}

    @property
    def bootstrap(self) -> str:
        return ",".join(node.address for node in self.nodes.values())

    def start(self) -> None:
        self.etcd.start()
        ports = _free_ports(len(NODES))
        for node_id, port in zip(NODES, ports, strict=True):
            host = self._hosts.get(f"node-{node_id}", Host("here"))
            self.nodes[node_id] = Node(
                node_id,
                host,
                port,
                self.folder,
                self.etcd.url(),
                {"broker.rack": f"r{node_id}", **self._settings},
            )
        for node in self.nodes.values():
            node.spawn()
        for node in self.nodes.values():
            node.wait_ready()
        wait_until(lambda: len(self.stored("brokers/")) == len(NODES), 30, "every node has joined")

    def stop(self) -> None:
        for node in self.nodes.values():
            node.kill()
        self.etcd.stop()

    # What the store says: nodes may say what is not so any more.

    def stored(self, prefix: str) -> dict[str, Any]:
        """Keys under ``prefix``, without the cluster's name, and what they hold; none while etcd is out."""
        full = f"/ottla/{NAME}/"
        for member in self.etcd.members:
            if not member.alive():
                continue
            command = ["etcdctl", "--endpoints", member.endpoint, "--dial-timeout=1s", "--command-timeout=2s"]
            done = subprocess.run(
                [*command, "get", "--prefix", full + prefix, "-w", "json"],
                check=False,
                capture_output=True,
                text=True,
                env={**os.environ, "ETCDCTL_API": "3"},
            )
            if done.returncode == 0:
                return {
                    base64.b64decode(kv["key"]).decode()[len(full) :]: json.loads(
                        base64.b64decode(kv["value"])
                    )
                    for kv in json.loads(done.stdout).get("kvs", [])
                    if kv.get("value")
                }
        return {}

    def controller(self) -> int | None:
        found = self.stored("controller")
        return found["controller"]["node_id"] if found else None

    def partitions(self) -> dict[tuple[str, int], dict[str, Any]]:
        """Every partition's state. One to which nothing has happened has no key: it is as it was made."""
        everything = self.stored("")
        found = {}
        for key, topic in everything.items():
            if not key.startswith("topics/"):
                continue
            name = key.removeprefix("topics/")
            for index, replicas in enumerate(topic["replicas"]):
                made = {"leader": replicas[0], "isr": replicas, "replicas": replicas}
                found[name, index] = everything.get(f"partitions/{name}/{index}", made)
        return found

    def unwell(self) -> list[str]:
        """What is to be waited for: nodes that are not members, partitions with replicas out of sync."""
        brokers = self.stored("brokers/")
        missing = [f"node {node_id}" for node_id in NODES if f"brokers/{node_id}" not in brokers]
        partitions = self.partitions()
        if not partitions:
            missing.append("etcd")
        for (name, index), state in partitions.items():
            if len(state["isr"]) < len(state["replicas"]) or state["leader"] < 0:
                missing.append(f"{name}-{index}: leader {state['leader']}, in sync {state['isr']}")
        return missing

    def wait_well(self, timeout_s: float = 60.0) -> None:
        """Wait until all nodes are members and all replicas in sync."""
        deadline = time.monotonic() + timeout_s
        while unwell := self.unwell():
            for node in self.nodes.values():
                node.check_alive()
            assert time.monotonic() < deadline, f"not well after {timeout_s} s: {unwell}"
            time.sleep(0.1)


@contextmanager
def cluster(folder: Path, settings: Mapping[str, str], *, cuts: bool) -> Iterator[Cluster]:
    """A cluster that serves. With ``cuts``, on machines of its own: netns.NotPermitted where there cannot be
    any. This thread is on the observer's machine while it lasts."""
    if not cuts:
        with _running(Cluster(folder, settings, None)) as made:
            yield made
        return
    names = [*(f"node-{n}" for n in NODES), *(f"etcd-{n}" for n in range(3)), CLIENTS, OBSERVER]
    with (
        namespaces(names) as network,
        network.inside(OBSERVER),
        _running(Cluster(folder, settings, network)) as made,
    ):
        yield made


@contextmanager
def _running(made: Cluster) -> Iterator[Cluster]:
    try:
        made.start()
        yield made
    finally:
        made.stop()


def _free_ports(count: int) -> Sequence[int]:
    """Ports that nobody has, of those that the system gives to nobody else while a node is down."""
    found: list[int] = []
    while len(found) < count:
        port = random.randint(20_000, 30_000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        found.append(port)
    return found
