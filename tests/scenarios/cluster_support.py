"""A cluster for a test: `ottla serve` processes that share the etcd of this test process.

``running`` starts one within a second or two; a module's tests share it, each with topics of its own, and
leave all nodes running. What the store says of partitions is read from etcd itself, since nodes
may not have heard of it yet.
"""

from __future__ import annotations

import base64
import json
import random
import signal
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from confluent_kafka.admin import AdminClient, NewTopic

import etcd_support
from interop.process import BrokerProcess, wait_until

SETTINGS: Mapping[str, str] = {
    "offsets.topic.num.partitions": "3",
    "offsets.topic.replication.factor": "3",
    "broker.session.timeout.ms": "3000",
    "replica.lag.time.max.ms": "3000",
    "auto.leader.rebalance.enable": "false",
}
QUIET = {"log_level": 0}


class Node(BrokerProcess):
    """One node. It keeps its address and its data from start to start."""

    def __init__(
        self, node_id: int, directory: Path, settings: Mapping[str, str], arguments: Sequence[str]
    ) -> None:
        super().__init__(directory, settings, arguments=("--node-id", str(node_id), *arguments))
        self.node_id = node_id
        self.port = free_port()

    def pause(self) -> None:
        """SIGSTOP: connections stay, nothing is answered."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)


class Cluster:
    """Nodes 1 to ``nodes``, each in the rack ``r<id>`` unless told."""

    def __init__(
        self,
        directory: Path,
        settings: Mapping[str, str] | None = None,
        *,
        nodes: int = 3,
        racks: Sequence[str] | None = None,
    ) -> None:
        self.name = etcd_support.namespace()
        self._etcd = etcd_support.shared()
        self._settings = {**SETTINGS, **(settings or {})}
        self._directory = directory
        self._admins: list[AdminClient] = []
        self.nodes: dict[int, Node] = {}
        for index in range(nodes):
            self.add(index + 1, racks[index] if racks is not None else f"r{index + 1}")

    def add(self, node_id: int, rack: str) -> Node:
        """One more node, which does not run yet."""
        arguments = ["--store", self._etcd.url(), "--cluster", self.name, "--rack", rack]
        node = Node(node_id, self._directory / f"node-{node_id}", self._settings, arguments)
        self.nodes[node_id] = node
        return node

    @property
    def bootstrap(self) -> str:
        return ",".join(node.bootstrap for node in self.nodes.values())

    def start(self) -> Cluster:
        """Start whatever does not run, and wait until all have joined."""
        waiting = [node for node in self.nodes.values() if node.process is None]
        for node in waiting:
            node.spawn()
        for node in waiting:
            node.wait_ready()
        return self

    def stop(self) -> None:
        self._admins.clear()
        for node in self.nodes.values():
            node.kill()

    def logs(self) -> str:
        return "\n".join(
            f"--- {path}\n{path.read_text(errors='replace')}"
            for node in self.nodes.values()
            for path in sorted(node.directory.glob("*.stderr"))
        )

    def etcd(self, *arguments: str) -> str:
        """`etcdctl` on the store that the nodes share with other tests: keep to this cluster's name."""
        return self._etcd.ctl(*arguments)

    # ------------------------------------------------------------ what the store says

    def stored(self, prefix: str = "") -> dict[str, Any]:
        """Keys under ``prefix``, without the cluster's name, and the JSON that they hold."""
        full = f"/ottla/{self.name}/"
        found = json.loads(self._etcd.ctl("get", "--prefix", full + prefix, "-w", "json"))
        return {
            base64.b64decode(kv["key"]).decode()[len(full) :]: json.loads(base64.b64decode(kv["value"]))
            for kv in found.get("kvs", [])
            if kv.get("value")
        }

    def state(self, topic: str, index: int = 0) -> dict[str, Any]:
        """A partition's state. One to which nothing has happened has no key: it is as it was made."""
        found = self.stored(f"partitions/{topic}/{index}")
        for key, state in found.items():
            if key == f"partitions/{topic}/{index}":
                assert isinstance(state, dict)
                return state
        replicas = self.stored(f"topics/{topic}")[f"topics/{topic}"]["replicas"][index]
        return {"leader": replicas[0], "isr": replicas, "replicas": replicas, "leader_epoch": 0}

    def leader(self, topic: str, index: int = 0) -> int:
        leader = self.state(topic, index)["leader"]
        assert isinstance(leader, int)
        return leader

    def wait_leader(self, topic: str, index: int = 0, *, other_than: int = -1) -> int:
        """Wait until a partition has a leader, if told another than before."""

        def found() -> int | None:
            leader = self.leader(topic, index)
            return leader if leader not in (-1, other_than) else None

        return wait_until(found, what=f"a leader of {topic}-{index}") or 0

    def wait_isr(self, topic: str, members: Sequence[int], index: int = 0, timeout_s: float = 30.0) -> None:
        """Wait until exactly these are in sync."""
        wait_until(
            lambda: sorted(self.state(topic, index)["isr"]) == sorted(members),
            timeout_s,
            f"{topic}-{index} in sync on {sorted(members)}",
        )

    def wait_registered(self, node_ids: Sequence[int]) -> None:
        """Wait until exactly these nodes are members."""
        expected = {f"brokers/{node_id}" for node_id in node_ids}
        wait_until(lambda: self.stored("brokers/").keys() == expected, what=f"{expected} registered")

    # ------------------------------------------------------------ topics

    def admin(self, first: int | None = None) -> AdminClient:
        """A client that knows all nodes, or begins with one of them. Its answers come only while there is a
        reference to it."""
        bootstrap = self.bootstrap if first is None else self.nodes[first].bootstrap
        made = AdminClient({"bootstrap.servers": bootstrap, **QUIET})
        self._admins.append(made)
        return made

    def create(
        self,
        topic: str,
        *,
        partitions: int = 1,
        replicas: Sequence[int] | None = None,
        configs: Mapping[str, str] | None = None,
    ) -> None:
        """Make a topic: on ``replicas``, or three that the cluster chooses."""
        config = dict(configs or {})
        if replicas is None:
            new = NewTopic(topic, partitions, 3, config=config)
        else:
            new = NewTopic(topic, partitions, replica_assignment=[list(replicas)] * partitions, config=config)
        admin = self.admin()
        admin.create_topics([new], operation_timeout=60)[topic].result(60)
        # Answered when one node knows of it.
        for node in self.nodes.values():
            if node.alive():
                asked = AdminClient({"bootstrap.servers": node.bootstrap, **QUIET})
                wait_until(partial(_is_led, asked, topic, partitions), what=f"{topic} on node {node.node_id}")


def _is_led(admin: AdminClient, topic: str, partitions: int) -> bool:
    found = admin.list_topics(topic, 10).topics[topic].partitions
    return len(found) == partitions and all(state.leader >= 0 for state in found.values())


@contextmanager
def running(
    directory: Path,
    settings: Mapping[str, str] | None = None,
    *,
    nodes: int = 3,
    racks: Sequence[str] | None = None,
) -> Iterator[Cluster]:
    """A cluster that serves; what its nodes wrote to stderr is printed at the end."""
    cluster = Cluster(directory, settings, nodes=nodes, racks=racks)
    try:
        yield cluster.start()
    finally:
        cluster.stop()
        print(cluster.logs())


def free_port() -> int:
    """A port that nobody has, of those that the system gives to nobody else while the node is down."""
    while True:
        port = random.randint(20_000, 30_000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port
