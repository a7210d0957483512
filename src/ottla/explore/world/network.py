"""A network in memory with TCP's promises and no others: a connection's bytes arrive in order or not at all.

Links between hosts have latencies of their own, may be cut in either direction, and heal. What is under way
on a cut link waits, as with TCP's retransmissions, until the link heals or the sender gives the connection
up. A host that is down answers nothing; one that is up refuses where nobody listens, and resets what it
knows nothing of.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable
from random import Random
from typing import Any

from ottla.explore.world.loop import CURRENT, MS_US, SECOND_US, WORLD, Process, VirtualLoop
from ottla.explore.world.machine import Machine
from ottla.explore.world.trace import Trace
from ottla.explore.world.transport import RESET, Link, Pipe, SimTransport, Tap

# How long the kernel tries to connect, and to get through what was sent, before it gives up.
CONNECT_MAX_US = (6 * SECOND_US, 20 * SECOND_US)
GIVE_UP_US = (5 * SECOND_US, 16 * SECOND_US)
# The longest pause between two retransmissions.
RETRANSMIT_US_MAX = 2 * SECOND_US
# Kernel buffers: what may be under way in one direction of a connection.
WINDOWS = (16 << 10, 64 << 10, 256 << 10, 1 << 20)
EPHEMERAL_PORT = 40_000


class SimListener:
    """A bound address of a process."""

    def __init__(self, fabric: Fabric, process: Process, factory: Any, host: str, port: int) -> None:
        self.process = process
        self.factory = factory
        self.address = (host, port)
        self.serving = False
        self._fabric = fabric

    async def start(self) -> None:
        self.serving = True

    def close(self) -> None:
        self.serving = False
        if self._fabric.listeners.get(self.address) is self:
            del self._fabric.listeners[self.address]


class Fabric:
    """All hosts and what connects them."""

    def __init__(self, loop: VirtualLoop, rng: Random, trace: Trace) -> None:
        self.loop = loop
        self.rng = rng
        self.trace = trace
        self.machines: dict[str, Machine] = {}
        self.listeners: dict[tuple[str, int], SimListener] = {}
        # Connections' ends that are open. A dict, since it is gone through in order.
        self.transports: dict[SimTransport, None] = {}
        # Pipes on which something waits for its way to be open.
        self.stalled: dict[Pipe, None] = {}
        self.delay_us: Callable[[SimTransport, bytes], int] | None = None
        self.tap: Tap | None = None
        self._links: dict[tuple[str, str], Link] = {}
        self._port = EPHEMERAL_PORT
        # What all latencies of this run are multiplied with.
        self._scale = rng.choice((0.5, 1, 1, 3, 10))

    def add(self, machine: Machine) -> None:
        self.machines[machine.host] = machine

    def link(self, source: str, target: str) -> Link:
        found = self._links.get((source, target))
        if found is None:
            base_us = round(self.rng.choice((60, 150, 300, 600)) * self._scale)
            split = self.rng.choice((0.0, 0.02, 0.2))
            found = self._links[source, target] = Link(base_us, base_us // 2 + 20, split)
        return found

    def latency_us(self, link: Link) -> int:
        rng = self.rng
        latency_us = link.base_us + int(rng.random() * link.jitter_us) + link.slow_us
        # Now and then a packet is lost and sent again.
        return latency_us if rng.random() > 0.002 else latency_us + int(rng.random() * 250 * MS_US)

    def open_way(self, source: str, target: str) -> bool:
        """Whether a packet gets from one host to the other."""
        return not self.link(source, target).blocked and self.machines[target].up

    # ------------------------------------------------------------ faults

    def cut(self, source: str, target: str) -> None:
        self.link(source, target).blocked = True

    def heal(self, source: str, target: str) -> None:
        self.link(source, target).blocked = False
        self.retry()

    def heal_all(self) -> None:
        for link in self._links.values():
            link.blocked, link.slow_us = False, 0
        for transport in self.transports:
            transport.out.lossy = False
        self.retry()

    def retry(self) -> None:
        """A link has healed or a machine is up: what waits for it is sent again, each at its own time."""
        for pipe in list(self.stalled):
            if pipe.is_open():
                waited_us = self.loop.now_us - pipe.stalled_us
                again_us = int(self.rng.random() * min(max(waited_us, MS_US), RETRANSMIT_US_MAX))
                self.loop.call_at_us(self.loop.now_us + again_us, pipe.resume, context=WORLD)

    def break_connection(self, transport: SimTransport) -> None:
        """Both ends hear of a reset."""
        for end in (transport, transport.peer):
            end.out.clear()
            self.loop.call_soon(end.arrive, RESET, context=WORLD)

    def lose(self, transport: SimTransport) -> None:
        """Nothing that this end sends arrives any more, until it gives up."""
        transport.out.lossy = True

    def process_died(self, process: Process) -> None:
        """The kernel closes what a process had open."""
        if self.trace.observer is not None:
            self.trace.observer.ended(process)
        for listener in [one for one in self.listeners.values() if one.process is process]:
            listener.close()
        for transport in [one for one in self.transports if one.process is process]:
            transport.die()

    def machine_died(self, machine: Machine) -> None:
        """Nobody hears anything: connections are found dead when somebody sends something on them."""
        for listener in [one for one in self.listeners.values() if one.process.machine is machine]:
            listener.close()
        for transport in [one for one in self.transports if one.process.machine is machine]:
            transport.vanish()

    def network(self, process: Process) -> SimNetwork:
        """The network as a process sees it."""
        return SimNetwork(self, process)

    def free_port(self) -> int:
        self._port += 1
        return self._port

    def give_up_us(self) -> int:
        return self.rng.randint(*GIVE_UP_US)

    def window(self) -> int:
        return self.rng.choice(WINDOWS)


class SimNetwork:
    """``ottla.env.network.Network`` for one process."""

    def __init__(self, fabric: Fabric, process: Process) -> None:
        self._fabric = fabric
        self._process = process
        self._host: str = process.machine.host

    async def bind(self, factory: Callable[[], asyncio.BaseProtocol], host: str, port: int) -> SimListener:
        fabric = self._fabric
        address = (self._host, port or fabric.free_port())
        if self._process.dead or address in fabric.listeners:
            raise OSError(errno.EADDRINUSE, "Address already in use")
        made = fabric.listeners[address] = SimListener(fabric, self._process, factory, *address)
        return made

    async def connect(self, factory: Callable[[], asyncio.BaseProtocol], host: str, port: int) -> None:
        await self.open(factory, host, port)

    async def open(self, factory: Callable[[], asyncio.BaseProtocol], host: str, port: int) -> SimTransport:
        """The near end of a new connection. OSError as the kernel has it."""
        fabric, loop = self._fabric, self._fabric.loop
        if host not in fabric.machines:
            raise OSError(errno.EHOSTUNREACH, "No route to host")
        there, back = fabric.link(self._host, host), fabric.link(host, self._host)
        give_up_us = loop.now_us + fabric.rng.randint(*CONNECT_MAX_US)
        again_us = SECOND_US
        while True:
            await asyncio.sleep(fabric.latency_us(there) / SECOND_US)
            if fabric.open_way(self._host, host) and not back.blocked:
                break
            if loop.now_us + again_us > give_up_us:
                await asyncio.sleep((give_up_us - loop.now_us) / SECOND_US)
                raise TimeoutError(errno.ETIMEDOUT, "Connection timed out")
            await asyncio.sleep(again_us / SECOND_US)
            again_us *= 2
        listener = fabric.listeners.get((host, port))
        if listener is None or not listener.serving:
            await asyncio.sleep(fabric.latency_us(back) / SECOND_US)
            raise ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused")
        near = SimTransport(fabric, self._process, (self._host, fabric.free_port()))
        far = SimTransport(fabric, listener.process, listener.address)
        near.join(far)
        far.accept(listener.factory)
        try:
            await asyncio.sleep(fabric.latency_us(back) / SECOND_US)
        except BaseException:
            near.abort()
            raise
        if self._process.dead or CURRENT.get() is not self._process:
            raise OSError(errno.EBADF, "the process is dead")
        near.begin(factory)
        return near
