"""What all faults have in common: the cluster as they see it, that each has a number, and that each ends."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping
from copy import copy
from itertools import takewhile
from random import Random
from typing import Any, NamedTuple, Protocol, Self

from ottla.explore.world.loop import VirtualLoop
from ottla.explore.world.machine import Machine
from ottla.explore.world.network import Fabric
from ottla.explore.world.nodes import SimNode
from ottla.explore.world.trace import Trace
from ottla.explore.world.transport import SimTransport
from ottla.metadata.memory import MemoryServer
from ottla.types import TopicPartition


class Administration(Protocol):
    """What faults ask of an administrator of the cluster: changes on purpose, at a bad moment."""

    @property
    def partition_counts(self) -> Mapping[str, int]: ...

    async def change_config(self, topic: str, keep: str = "") -> None: ...

    async def delete_records(self, topic: str) -> None: ...

    async def reassign(self, where: TopicPartition, replicas: list[int]) -> None: ...

    async def elect_preferred(self) -> None: ...


class Target(Protocol):
    """The cluster that faults strike, as they see it (``world.machines.Machines``)."""

    loop: VirtualLoop
    seed: int
    trace: Trace
    fabric: Fabric
    nodes: dict[int, SimNode]
    store_machine: Machine
    store_server: MemoryServer
    client_hosts: list[str]
    topics: list[str]
    capacity_bytes: int
    quiet: bool

    @property
    def admin(self) -> Administration: ...

    def may_lose_power(self, node: SimNode) -> bool: ...

    def make_twin(self, node_id: int) -> SimNode: ...

    def note_power_loss(self, node: SimNode) -> None: ...

    def states(self) -> Iterator[tuple[str, int, dict[str, Any]]]: ...

    async def ask_admin(self, work: Coroutine[Any, Any, None]) -> None: ...


class Strike(NamedTuple):
    """One that struck: by ``number`` it can be left out of a run, or be the only one of it."""

    number: int
    kind: str
    at_s: float
    # What happened at once, for people: "n3.1 is killed".
    text: str


class FaultFailed(RuntimeError):
    """A fault could not strike, or could not end: that is a mistake of Ottla's, whoever is explored."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(f"a fault of Ottla's has failed, and nothing of yours: {error!r}")
        self.__cause__ = error


class Striking:
    """``end_all`` ends what still lasts."""

    def __init__(self, cluster: Target, rng: Random) -> None:
        self._cluster = cluster
        # Of one strike: see ``_numbered``.
        self._rng = rng
        self._undo: list[Callable[[], None]] = []
        self._tasks: list[asyncio.Task[None]] = []

    def _numbered(self, number: int) -> Self:
        """These faults, with the chance of one strike: what it draws does not depend on the others.

        So a strike that is left out of a run leaves alone what the others are, and when they strike.
        """
        one = copy(self)
        one._rng = Random(f"{self._cluster.seed} strike {number}")
        return one

    def end_all(self) -> None:
        """Undo whatever still lasts."""
        while self._undo:
            self._end(self._undo[0])

    def _happens(self, strike: Callable[[], bool]) -> str | None:
        """Have it strike; what happened at once. None if it could not strike."""
        events = self._cluster.trace.events
        last = events[-1] if events else None
        if not strike():
            return None
        new = [*takewhile(lambda line: line is not last, reversed(events))]
        return ", ".join(line.partition(" ")[2].removeprefix("fault: ") for line in reversed(new))

    def _note(self, what: str, lane: str = "network") -> None:
        """Say what begins, and on which machine. If it lasts, ``_begin`` is called next."""
        trace = self._cluster.trace
        trace("fault:", what)
        if trace.observer is not None:
            trace.observer.fault(lane, what)

    def _begin(self, undo: Callable[[], None]) -> None:
        """Something lasts until ``undo``."""
        self._undo.append(undo)
        observer = self._cluster.trace.observer
        if observer is not None:
            observer.fault_lasts(undo)

    def _end(self, undo: Callable[[], None]) -> None:
        """Undo it, unless that is done."""
        if undo in self._undo:
            self._undo.remove(undo)
            self._guarded(undo)
            observer = self._cluster.trace.observer
            if observer is not None:
                observer.fault_ended(undo)

    def _for_a_while(self, undo: Callable[[], None], least_s: float, most_s: float) -> None:
        """Have ``undo`` called after a time from this range."""
        self._begin(undo)
        asyncio.get_running_loop().call_later(self._rng.uniform(least_s, most_s), self._end, undo)

    def _name(self, host: str) -> str:
        """The name of the machine that has an address."""
        return self._cluster.fabric.machines[host].name

    def _names(self, hosts: Iterable[str]) -> str:
        return ", ".join(map(self._name, hosts)) or "nobody"

    def _between(self, transport: SimTransport) -> str:
        return f"{self._name(transport.address[0])} to {self._name(transport.out.host)}"

    def _two_hosts(self) -> list[str]:
        """Mostly two nodes."""
        hosts = self._hosts() if self._rng.random() < 0.7 else []
        return self._rng.sample(hosts if len(hosts) > 1 else list(self._cluster.fabric.machines), 2)

    def _some_node(self) -> SimNode:
        return self._rng.choice(list(self._cluster.nodes.values()))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        task.add_done_callback(self._done)
        self._tasks.append(task)

    def _done(self, task: asyncio.Task[None]) -> None:
        """A task that nobody waits for has ended: if by an error, so does the run."""
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self._cluster.loop.end(FaultFailed(error))

    def _guarded(self, part: Callable[[], None]) -> None:
        """Do a part of a fault whose time has come. An error of it ends the run."""
        try:
            part()
        except Exception as error:  # noqa: BLE001 - told as the end of the run
            self._cluster.loop.end(FaultFailed(error))

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
