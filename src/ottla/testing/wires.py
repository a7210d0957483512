"""The network of a cluster for tests, and the nodes' way to the metadata store; a test may cut both."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import TypeVar

from ottla.env.network import TcpNetwork
from ottla.metadata.store import StoreError

T = TypeVar("T")

# How long a node waits for a metadata store that it cannot reach.
UNREACHABLE_S = 1.0


class Wires:
    """Which nodes are cut off from which others, and from the metadata store.

    A connection that is cut is aborted, and another one fails as with a machine that no packet reaches.
    """

    def __init__(self, ports: Mapping[int, int]) -> None:
        """``ports``: where each node listens, by its id."""
        self._node_of = {port: node_id for node_id, port in ports.items()}
        self._cut: set[frozenset[int]] = set()
        self._isolated: set[int] = set()
        self._open: dict[asyncio.Transport, frozenset[int]] = {}
        self._healed = asyncio.Event()

    def isolate(self, node_id: int) -> None:
        """Cut a node off from all other nodes and from the store."""
        self._isolated.add(node_id)
        self._abort_cut()

    def cut(self, one: int, other: int) -> None:
        """Cut two nodes off from each other."""
        self._cut.add(frozenset((one, other)))
        self._abort_cut()

    def heal(self, ends: frozenset[int] = frozenset()) -> None:
        """A node is isolated no more, or two are no more cut off from each other; without them: everybody
        reaches everybody."""
        if not ends:
            self._cut.clear()
            self._isolated.clear()
        elif len(ends) == 1:
            self._isolated -= ends
        else:
            self._cut.discard(ends)
        healed, self._healed = self._healed, asyncio.Event()
        healed.set()

    def reaches_store(self, node_id: int) -> bool:
        """Whether a node reaches the metadata store."""
        return node_id not in self._isolated

    async def until_healed(self) -> None:
        """Return when `heal` is called, for whichever node."""
        await self._healed.wait()

    def network(self, node_id: int) -> TcpNetwork:
        """The network of a node, for one of its lives."""
        return _Network(self, node_id)

    def between(self, node_id: int, port: int) -> frozenset[int]:
        """The nodes at the two ends of a connection to a port."""
        return frozenset((node_id, self._node_of.get(port, node_id)))

    def is_cut(self, ends: frozenset[int]) -> bool:
        """Whether nothing passes between these nodes."""
        return len(ends) > 1 and (ends in self._cut or bool(ends & self._isolated))

    def add(self, transport: asyncio.Transport, ends: frozenset[int]) -> None:
        """A connection was made; it is aborted when it is cut."""
        for one in [one for one in self._open if one.is_closing()]:
            del self._open[one]
        self._open[transport] = ends

    def _abort_cut(self) -> None:
        for transport, ends in list(self._open.items()):
            if self.is_cut(ends):
                transport.abort()


class _Network(TcpNetwork):
    def __init__(self, wires: Wires, node_id: int) -> None:
        self._wires = wires
        self._node_id = node_id

    async def connect(self, factory: Callable[[], asyncio.BaseProtocol], host: str, port: int) -> None:
        ends = self._wires.between(self._node_id, port)
        self._check(ends)
        transport, _ = await asyncio.get_running_loop().create_connection(factory, host, port)
        self._wires.add(transport, ends)

    def _check(self, ends: frozenset[int]) -> None:
        if self._wires.is_cut(ends):
            raise OSError(errno.EHOSTUNREACH, os.strerror(errno.EHOSTUNREACH))


class StoreWay:
    """``ottla.metadata.memory.Way`` of one node."""

    def __init__(self, wires: Wires, node_id: int) -> None:
        self._wires = wires
        self._node_id = node_id

    async def call(self, work: Callable[[], T]) -> T:
        # Who asks again and again must not keep the loop from everybody else.
        await asyncio.sleep(0)
        if not self._wires.reaches_store(self._node_id):
            with suppress(TimeoutError):
                await asyncio.wait_for(self._wires.until_healed(), UNREACHABLE_S)
        if not self._wires.reaches_store(self._node_id):
            raise StoreError("the metadata store cannot be reached: a test has isolated the node")
        return work()

    async def deliver(self) -> None:
        while not self._wires.reaches_store(self._node_id):
            await self._wires.until_healed()

    def keeps_alive(self) -> bool:
        return self._wires.reaches_store(self._node_id)

    def tell(self, callback: Callable[[], None]) -> None:
        asyncio.get_running_loop().call_soon(callback)
