"""A node of the simulated cluster: the product's own ``Node`` on a machine that may lose it, and restarts."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from random import Random

from ottla.explore.world.disk import Volume
from ottla.explore.world.loop import WORLD, Process
from ottla.explore.world.machine import Machine
from ottla.explore.world.network import Fabric
from ottla.explore.world.store_way import NodeWay
from ottla.explore.world.trace import PAUSED, RESUMED, SERVES
from ottla.metadata.memory import MemoryServer, MemoryStore
from ottla.metadata.store import StoreError
from ottla.node import Node, NodeSettings, StartError

PORT = 9092
# A process that ended by itself is started again after so long, as by a service manager.
RESTART_S = 0.5


class SimNode:
    """One node: its machine, its disk, and what runs there now."""

    def __init__(
        self,
        node_id: int,
        machine: Machine,
        fabric: Fabric,
        store: tuple[MemoryServer, Machine],
        properties: Mapping[str, str],
        rngs: tuple[Random, Random],
    ) -> None:
        """``rngs``: of its disk, and of its way to the store."""
        self.node_id = node_id
        self.machine = machine
        self.volume = Volume(machine, rngs[0])
        self.volume.provide("data")
        # What runs, once it has started; and whether it is to be started again when it ends.
        self.node: Node | None = None
        self.process: Process | None = None
        self.wanted = False
        self.starts = 0
        # A sync failed here: what the disk holds is not known for sure (docs/FAULTS-IN-DETAIL.md).
        self.doubtful = False
        self._fabric = fabric
        self._server, self._store = store
        self._properties = dict(properties)
        self._way_rng = rngs[1]
        self.way: NodeWay | None = None

    def __repr__(self) -> str:
        return f"node {self.node_id}"

    @property
    def address(self) -> tuple[str, int]:
        return self.machine.host, PORT

    @property
    def serving(self) -> bool:
        return self.node is not None

    @property
    def running(self) -> bool:
        return self.process is not None and not self.process.dead

    # ------------------------------------------------------------ life

    def start(self) -> None:
        """Start the node's process, again and again if it cannot start."""
        self.wanted = True
        if self.running or not self.machine.up:
            return
        self.starts += 1
        process = self.process = self.machine.begin()
        self._fabric.trace(process, "starts")
        self._fabric.loop.spawn(process, self._run(process))

    async def _run(self, process: Process) -> None:
        try:
            await self._start(process)
        except Exception as error:  # noqa: BLE001 - a finding: it says in no foreseen way why it cannot start
            self._fabric.loop.failures.append(f"{process} cannot start: {error!r}")

    async def _start(self, process: Process) -> None:
        fabric = self._fabric
        self.way = NodeWay(fabric, process, self._store, self._way_rng)
        settings = NodeSettings(
            data="/data",
            host=self.machine.host,
            port=PORT,
            node_id=self.node_id,
            rack=f"rack{self.node_id % 3}",
            # Disks are lost here, and whoever starts a twin is wrong about whose was.
            replace=True,
            properties=self._properties,
        )
        node = Node(
            settings,
            clock=self.machine.clock,
            disk=self.volume.mount(process),
            network=fabric.network(process),
            store=MemoryStore(self._server, self.way),
        )
        try:
            await node.start()
        except (StartError, OSError, StoreError) as error:
            fabric.trace(process, f"cannot start: {error}")
            fabric.loop.call_soon(self._ended, process, context=WORLD)
            return
        self.node = node
        fabric.trace(process, SERVES)
        # As `ottla serve` does: the process ends, and its supervisor starts another one.
        await node.failed.wait()
        fabric.trace(process, "gives up")
        fabric.loop.call_soon(self._ended, process, context=WORLD)

    def _ended(self, process: Process) -> None:
        """The process has ended by itself."""
        if not process.dead:
            self._end(process)
            self._start_later()

    def _start_later(self) -> None:
        loop = self._fabric.loop
        loop.call_at_us(loop.now_us + round(RESTART_S * 1e6), self._start_if_wanted, context=WORLD)

    def _start_if_wanted(self) -> None:
        if self.wanted:
            self.start()

    def _end(self, process: Process) -> None:
        fabric = self._fabric
        self.node = None
        fabric.loop.kill(process)
        fabric.process_died(process)
        self.volume.unlock(process)

    def kill(self) -> None:
        """As SIGKILL. It stays dead until ``start``."""
        self.wanted = False
        if self.running and self.process is not None:
            self._fabric.trace(self.process, "is killed")
            self._end(self.process)

    def lose_power(self, *, disk_too: bool = False) -> None:
        """The machine goes down with all that was not synced, or with all. ``boot`` brings it back."""
        self.wanted = False
        self._fabric.trace(self.machine, "loses its disk" if disk_too else "loses power")
        process = self.process
        self.machine.up = False
        self._fabric.machine_died(self.machine)
        if process is not None and not process.dead:
            self.node = None
            self._fabric.loop.kill(process)
            if self._fabric.trace.observer is not None:
                self._fabric.trace.observer.ended(process)
        if disk_too:
            self.volume.wipe()
            self.volume.provide("data")
        else:
            self.volume.lose_power()

    def boot(self) -> None:
        if not self.machine.up:
            self.machine.boot()
            self._fabric.retry()
        self.start()

    async def stop(self) -> None:
        """As SIGTERM: hand over, finish, flush, end. It stays down until ``start``."""
        self.wanted = False
        node, process = self.node, self.process
        if node is None or process is None or process.dead:
            return
        self._fabric.trace(process, "is told to stop")
        done = asyncio.get_running_loop().create_future()

        async def stopping() -> None:
            try:
                await node.stop()
            except OSError as error:
                # It ends all the same, with another exit code.
                self._fabric.trace(process, f"cannot stop in order: {error}")
            done.set_result(None)

        self._fabric.loop.spawn(process, stopping())
        await asyncio.wait([done], timeout=60)
        if not process.dead:
            self._fabric.trace(process, "has stopped" if done.done() else "does not stop")
            self._end(process)

    def pause(self) -> None:
        if self.running and self.process is not None and not self.process.paused:
            self._fabric.trace(self.process, PAUSED)
            self._fabric.loop.pause(self.process)

    def resume(self) -> None:
        if self.running and self.process is not None and self.process.paused:
            self._fabric.trace(self.process, RESUMED)
            self._fabric.loop.resume(self.process)
