"""A cluster of nodes, their store and the network between them, on one virtual loop; clients come to it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from random import Random
from typing import Any, TextIO

from ottla.explore.world.disk import CAPACITY_BYTES
from ottla.explore.world.loop import VirtualLoop
from ottla.explore.world.machine import Machine, WorldClock
from ottla.explore.world.network import Fabric
from ottla.explore.world.nodes import SimNode
from ottla.explore.world.trace import Trace
from ottla.explore.world.turns import Turns
from ottla.metadata import keys
from ottla.metadata.memory import MemoryServer


class Machines:
    """All of it that a run has, whoever its clients are; faults strike it (``faults.striking.Target``)."""

    def __init__(
        self, loop: VirtualLoop, seed: int, trace: TextIO | None = None, *, is_any_order: bool = False
    ) -> None:
        self.loop = loop
        self.seed = seed
        loop.turns = Turns(self._rng("turns"), is_any_order=is_any_order)
        self.trace = Trace(loop, trace)
        self.fabric = Fabric(loop, self._rng("network"), self.trace)
        self.store_machine = self.machine("store", "10.0.1.1")
        self.store_server = MemoryServer(WorldClock(loop))
        self.capacity_bytes = CAPACITY_BYTES
        self.nodes: dict[int, SimNode] = {}
        self.client_hosts: list[str] = []
        # Faults are over.
        self.quiet = False
        self._twins: list[SimNode] = []
        self._properties: Mapping[str, str] = {}
        # Whether all replicas were in sync at a revision of the store.
        self._synced: tuple[int, bool] | None = None
        # The one that has lost power, or its disk, since all replicas were in sync.
        self._without_power: SimNode | None = None

    def _rng(self, purpose: str) -> Random:
        return Random(f"{self.seed} {purpose}")

    def machine(self, name: str, host: str) -> Machine:
        """Another machine on the network."""
        machine = Machine(self.loop, name, host)
        self.fabric.add(machine)
        return machine

    def add_node(self, node_id: int, properties: Mapping[str, str]) -> None:
        """A node with a machine of its own; nodes have the properties of the last one that was added."""
        self._properties = properties
        self.nodes[node_id] = self._node(node_id, f"n{node_id}", f"10.0.0.{node_id}")

    def _node(self, node_id: int, name: str, host: str) -> SimNode:
        return SimNode(
            node_id,
            self.machine(name, host),
            self.fabric,
            (self.store_server, self.store_machine),
            self._properties,
            (self._rng(f"disk {name}"), self._rng(f"store {name}")),
        )

    def make_twin(self, node_id: int) -> SimNode:
        """Another machine, with an empty disk, that is given a node's id."""
        number = len(self._twins) + 1
        twin = self._node(node_id, f"n{node_id}'{number}", f"10.0.3.{number}")
        self._twins.append(twin)
        return twin

    # ------------------------------------------------------------ how the cluster is

    def note_power_loss(self, node: SimNode) -> None:
        """A machine loses power, or its disk."""
        self._without_power = node

    def may_lose_power(self, node: SimNode) -> bool:
        """One machine, as often as it likes, until all replicas are in sync again."""
        if not node.machine.up:
            return False
        if self._without_power is not None and self.all_in_sync():
            self._without_power = None
        return self._without_power in (None, node)

    def states(self) -> Iterator[tuple[str, int, dict[str, Any]]]:
        """The partitions as the store has them: topic, index, state."""
        for key, item in self.store_server.keys.items():
            if not key.startswith(keys.TOPICS):
                continue
            name = key.removeprefix(keys.TOPICS)
            for index, replicas in enumerate(json.loads(item.value)["replicas"]):
                stored = self.store_server.keys.get(keys.partition(name, index))
                if stored is not None:
                    yield name, index, json.loads(stored.value)
                else:
                    yield name, index, {"leader": replicas[0], "replicas": replicas, "isr": replicas}

    def all_in_sync(self) -> bool:
        """Whether every node serves and every replica is in sync, so far as the store knows."""
        if not all(node.serving for node in self.nodes.values()) or any(twin.running for twin in self._twins):
            return False
        revision = self.store_server.revision
        if self._synced is None or self._synced[0] != revision:
            self._synced = revision, self._replicas_in_sync()
        return self._synced[1]

    def _replicas_in_sync(self) -> bool:
        return all(
            state["leader"] >= 0
            and sorted(state["isr"]) == sorted(state["replicas"])
            and not state.get("adding")
            and not state.get("elr")
            for _, _, state in self.states()
        )

    def heal(self) -> None:
        """Machines, disks, the network and the store work again, and every node is up."""
        self.fabric.heal_all()
        self.store_machine.up = True
        for node in self.nodes.values():
            node.volume.failing.clear()
            node.volume.slow_us = 0
            node.volume.capacity_bytes = self.capacity_bytes
            if node.way is not None:
                node.way.lossy = 0.0
            node.resume()
            if node.doubtful and node.machine.up:
                # Its logs take no more writes until they were looked at: an operator restarts it.
                node.kill()
            node.boot()
