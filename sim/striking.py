"""What all faults have in common: the cluster as they see it, and that each of them ends."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from random import Random
from typing import Any, Protocol

from sim.admin import Admin
from sim.loop import VirtualLoop
from sim.machine import Machine
from sim.network import Fabric
from sim.nodes import SimNode
from sim.store import StoreServer
from sim.trace import Trace


class Target(Protocol):
    """The cluster that faults strike, as they see it (``sim.cluster.Cluster``)."""

    loop: VirtualLoop
    trace: Trace
    fabric: Fabric
    nodes: dict[int, SimNode]
    store_machine: Machine
    store_server: StoreServer
    client_hosts: list[str]
    topics: list[str]
    admin: Admin
    capacity_bytes: int
    quiet: bool

    def may_lose_power(self, node: SimNode) -> bool: ...

    def make_twin(self, node_id: int) -> SimNode: ...

    def note_power_loss(self, node: SimNode) -> None: ...

    def states(self) -> Iterator[tuple[str, int, dict[str, Any]]]: ...

    async def ask_admin(self, work: Coroutine[Any, Any, None]) -> None: ...


class Striking:
    """``end_all`` ends what still lasts."""

    def __init__(self, cluster: Target, rng: Random) -> None:
        self._cluster = cluster
        self._rng = rng
        self._undo: list[Callable[[], None]] = []
        self._tasks: list[asyncio.Task[None]] = []

    def end_all(self) -> None:
        """Undo whatever still lasts."""
        undo, self._undo = self._undo, []
        for step in undo:
            step()

    def _note(self, what: str) -> None:
        self._cluster.trace("fault:", what)

    def _for_a_while(self, undo: Callable[[], None], least_s: float, most_s: float) -> None:
        """Have ``undo`` called after a time from this range."""
        self._undo.append(undo)

        def end() -> None:
            if undo in self._undo:
                self._undo.remove(undo)
                undo()

        asyncio.get_running_loop().call_later(self._rng.uniform(least_s, most_s), end)

    def _two_hosts(self) -> list[str]:
        """Mostly two nodes."""
        hosts = self._hosts() if self._rng.random() < 0.7 else []
        return self._rng.sample(hosts if len(hosts) > 1 else list(self._cluster.fabric.machines), 2)

    def _some_node(self) -> SimNode:
        return self._rng.choice(list(self._cluster.nodes.values()))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        self._tasks.append(asyncio.create_task(work))

    def _cut(self, ways: list[tuple[str, str]], most_s: float) -> None:
        fabric = self._cluster.fabric
        for source, target in ways:
            fabric.cut(source, target)

        def heal() -> None:
            for source, target in ways:
                fabric.heal(source, target)

        self._for_a_while(heal, 0.1, most_s)

    def _hosts(self) -> list[str]:
        return [node.machine.host for node in self._cluster.nodes.values()]
