"""How long partitions have no leader that works: the store's view, as a node tells it, and a producer's own.

One producer sends to every partition all the time. In each round the node that leads most is harmed, and for
each partition that it led two times are taken: from the harm until a node that is left names another leader
in Metadata, and the longest time between two acknowledgements that the producer got around it.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any
from uuid import UUID

from confluent_kafka.admin import AdminClient, NewTopic

from cluster_faults.history import Tail
from cluster_faults.machines import CLIENTS, NODES, Cluster, Node
from interop.process import wait_until
from interop.raw import RawClient

TOPIC, PARTITIONS = "failover", 12
# Records a second in each partition: a time is known to within one of a hundred of them.
RATE = 100
POLL_S = 0.003
SETTLE_S_MAX = 60.0
TESTS = Path(__file__).parents[2]


@dataclass(slots=True)
class Outages:
    """Milliseconds for each partition that lost its leader: in Metadata, and for the producer."""

    metadata_ms: list[float] = field(default_factory=list)
    producer_ms: list[float] = field(default_factory=list)

    def show(self, kind: str) -> str:
        def figures(values: list[float]) -> str:
            return f"{statistics.median(values):6.0f} median {max(values):6.0f} max" if values else "nothing"

        return (
            f"{kind:12} new leader in Metadata {figures(self.metadata_ms)}, "
            f"between two acknowledgements {figures(self.producer_ms)} "
            f"(ms, {len(self.producer_ms)} partitions)"
        )


class Watcher(threading.Thread):
    """Asks one node who leads, over and over: when it first named each leader after the last one."""

    def __init__(self, address: str) -> None:
        super().__init__(daemon=True)
        self._address = address
        self._ending = threading.Event()
        # (when, partition, leader)
        self.changes: list[tuple[float, int, int]] = []
        self.failure: OSError | None = None

    def run(self) -> None:
        known: dict[int, int] = {}
        request: dict[str, Any] = {
            "topics": [{"topic_id": UUID(int=0), "name": TOPIC}],
            "allow_auto_topic_creation": False,
            "include_topic_authorized_operations": False,
        }
        try:
            with RawClient(self._address) as client:
                while not self._ending.wait(POLL_S):
                    answer = client.call("Metadata", **request)
                    now = time.monotonic()
                    for partition in answer.topics[0].partitions:
                        index, leader = partition.partition_index, partition.leader_id
                        if known.get(index) != leader:
                            known[index] = leader
                            self.changes.append((now, index, leader))
        except OSError as failure:
            self.failure = failure

    def finish(self) -> None:
        self._ending.set()
        self.join(30)
        if self.failure is not None:
            raise self.failure


class Failover:
    """Measures on a cluster that serves. ``with`` it, then ``round`` as often as wanted."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._path = cluster.folder / "failover.jsonl"
        self._tail = Tail()
        self._tail.add(self._path)
        self._acks: dict[int, list[float]] = defaultdict(list)
        self._worker: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Failover:
        admin = AdminClient({"bootstrap.servers": self._cluster.bootstrap})
        for made in admin.create_topics([NewTopic(TOPIC, PARTITIONS, len(NODES))]).values():
            made.result(30)
        producer = {
            "role": "produce", "name": "steady", "codec": "none", "rate": RATE * PARTITIONS, "mortal": False
        }  # fmt: skip
        setup = {
            "bootstrap": self._cluster.bootstrap,
            "record": str(self._path),
            "topics": {TOPIC: PARTITIONS},
            "clients": [producer],
        }
        command = self._cluster.clients.command(
            sys.executable, "-m", "cluster_faults.worker", json.dumps(setup)
        )
        paths = os.pathsep.join([str(TESTS / "crash"), str(TESTS)])
        self._worker = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": paths})
        return self

    def __exit__(self, *_: object) -> None:
        assert self._worker is not None
        self._worker.kill()
        self._worker.wait()

    def round(self, harm: Callable[[Node], Callable[[], None]], into: Outages) -> None:
        """``harm`` a node and give back how to mend it, which is done once all partitions work again."""
        self._settle()
        victim, led = self._victim()
        watchers = [Watcher(n.address) for n in self._cluster.nodes.values() if n is not victim]
        for watcher in watchers:
            watcher.start()
        begun = time.monotonic()
        mend = harm(victim)
        harmed = time.monotonic()
        wait_until(
            lambda: self._acknowledged_since(harmed, led), SETTLE_S_MAX, "every partition works again", 0.05
        )
        for watcher in watchers:
            watcher.finish()
        into.producer_ms += [self._longest_gap_ms(index, begun) for index in led]
        for watcher in watchers:
            into.metadata_ms += self._until_named(watcher, victim.node_id, led, begun)
        mend()

    def _settle(self) -> None:
        self._cluster.wait_well(SETTLE_S_MAX)
        now = time.monotonic()
        everything = list(range(PARTITIONS))
        wait_until(
            lambda: self._acknowledged_since(now, everything), SETTLE_S_MAX, "every partition works", 0.05
        )
        # What clients may have to learn anew of the round before.
        time.sleep(1.0)

    def _victim(self) -> tuple[Node, list[int]]:
        led: dict[int, list[int]] = defaultdict(list)
        for (name, index), state in self._cluster.partitions().items():
            if name == TOPIC:
                led[state["leader"]].append(index)
        most = max(sorted(led), key=lambda node_id: len(led[node_id]))
        return self._cluster.nodes[most], led[most]

    def _look(self) -> None:
        for line in self._tail.lines():
            assert line[0] != "trouble", line
            if line[0] == "acked":
                self._acks[line[3]].append(line[7])

    def _acknowledged_since(self, when: float, partitions: list[int]) -> bool:
        self._look()
        return all(self._acks[index] and self._acks[index][-1] > when for index in partitions)

    def _longest_gap_ms(self, index: int, begun: float) -> float:
        gaps = [after - before for before, after in pairwise(self._acks[index]) if after > begun]
        return max(gaps, default=0.0) * 1000

    @staticmethod
    def _until_named(watcher: Watcher, victim: int, led: list[int], begun: float) -> Iterator[float]:
        for index in led:
            named = [
                when
                for when, changed, leader in watcher.changes
                if changed == index and when > begun and leader not in (victim, -1)
            ]
            assert named, f"no other leader of partition {index} was named"
            yield (named[0] - begun) * 1000


def kill(node: Node) -> Callable[[], None]:
    """SIGKILL."""
    node.kill()

    def mend() -> None:
        node.spawn()
        node.wait_ready()

    return mend


def stop(node: Node) -> Callable[[], None]:
    """SIGTERM, and wait until it has ended."""
    node.terminate()
    node.wait_stopped()

    def mend() -> None:
        node.spawn()
        node.wait_ready()

    return mend


def pause(node: Node) -> Callable[[], None]:
    """SIGSTOP: it is missed when its lease ends."""
    node.pause()
    return node.resume


def cut_off(cluster: Cluster) -> Callable[[Node], Callable[[], None]]:
    """From everybody, in silence."""

    def cut(node: Node) -> Callable[[], None]:
        assert cluster.network is not None
        others = [f"node-{n}" for n in NODES if n != node.node_id]
        for other in [*others, *(f"etcd-{n}" for n in range(3)), CLIENTS]:
            cluster.network.cut(f"node-{node.node_id}", other)
        return cluster.network.mend

    return cut
