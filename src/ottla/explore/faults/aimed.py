"""Faults that strike at a moment: when leaders change, logs roll or part, or a node's id is free."""

from __future__ import annotations

import asyncio
import json
import struct
from collections.abc import Callable
from functools import partial

from ottla.explore.faults.striking import Striking
from ottla.explore.world.loop import SECOND_US, WORLD
from ottla.explore.world.nodes import SimNode
from ottla.explore.world.transport import SimTransport
from ottla.metadata import keys
from ottla.metadata.store import Event
from ottla.wire import apis

# The first bytes of a WriteTxnMarkers request, behind its size.
WRITE_TXN_MARKERS = struct.pack(">h", apis.WRITE_TXN_MARKERS)


class Aimed(Striking):
    """Each method says whether it could strike."""

    def at_change(self) -> bool:
        """For a while processes end just after the store has heard of a change that concerns them."""
        server = self._cluster.store_server
        if server.on_change is not None:
            return False
        loop = self._cluster.loop

        def strike(node: SimNode) -> None:
            if node.running and not self._cluster.quiet:
                node.kill()
                self._for_a_while(node.start, 0.05, 3)

        def changed(events: list[Event]) -> None:
            for event in events:
                if event.value is None or not event.key.startswith(keys.PARTITIONS):
                    continue
                state = json.loads(event.value)
                if self._rng.random() < 0.3:
                    victim = (
                        state["leader"] if self._rng.random() < 0.7 else self._rng.choice(state["replicas"])
                    )
                    if victim in self._cluster.nodes:
                        delay_us = int(self._rng.choice((500, 3_000, 15_000)) * self._rng.random())
                        loop.call_at_us(
                            loop.now_us + delay_us, strike, self._cluster.nodes[victim], context=WORLD.copy()
                        )

        def undo() -> None:
            server.on_change = None

        self._note("whoever leads is in danger")
        server.on_change = changed
        self._for_a_while(undo, 0.5, 5)
        return True

    def power_at_roll(self) -> bool:
        """For a while a machine on which a log rolls may lose power just then, and most likely if the log was
        cut before: of what the old segment, the new one and their folder have become some is on the disk."""
        cluster, loop = self._cluster, self._cluster.loop
        volumes = [node.volume for node in cluster.nodes.values()]
        if any(volume.on_log_change is not None for volume in volumes):
            return False
        cut_us: dict[tuple[SimNode, str], int] = {}
        # So that a cluster's one machine that may is mostly one whose log was cut.
        seldom = 0.02 if len(volumes) > 1 else 0.1

        def strike(node: SimNode) -> None:
            if cluster.quiet or node.doubtful or not cluster.may_lose_power(node):
                return
            cluster.note_power_loss(node)
            node.lose_power()
            self._for_a_while(node.boot, 0.1, self._rng.choice((0.5, 4)))

        def changed(node: SimNode, folder: str, is_cut: bool) -> None:
            if is_cut:
                cut_us[node, folder] = loop.now_us
            was_cut = loop.now_us - cut_us.get((node, folder), -SECOND_US) < SECOND_US
            if self._rng.random() < (0.02 if is_cut else 0.8 if was_cut else seldom):
                delay_us = int(self._rng.choice((0, 300, 3_000)) * self._rng.random())
                loop.call_at_us(loop.now_us + delay_us, strike, node, context=WORLD.copy())

        def undo() -> None:
            for volume in volumes:
                volume.on_log_change = None

        self._note("power is lost where a log rolls")
        for node in cluster.nodes.values():
            node.volume.on_log_change = partial(changed, node)
        self._for_a_while(undo, 0.5, 5)
        return True

    def late_markers(self) -> bool:
        """For a while markers that coordinators of transactions send to others may get lost; or be under way
        for long, and their sender is none any more when they arrive: its process or its registration ends
        meanwhile."""
        cluster = self._cluster
        fabric, loop = cluster.fabric, cluster.loop
        if fabric.delay_us is not None or len(cluster.nodes) == 1:
            return False
        nodes = {node.machine.host: node for node in cluster.nodes.values()}

        def strike(node: SimNode) -> None:
            if cluster.quiet or not node.running:
                return
            if self._rng.random() < 0.5:
                node.kill()
                self._for_a_while(node.start, 0.05, 3)
            else:
                self._end_registration(node)

        def delay_us(transport: SimTransport, data: bytes) -> int:
            source = transport.address[0]
            if data[4:6] != WRITE_TXN_MARKERS or source not in nodes or self._rng.random() < 0.7:
                return 0
            if self._rng.random() < 0.3:
                self._note(f"markers of {self._between(transport)} get lost")
                loop.call_soon(fabric.break_connection, transport, context=WORLD.copy())
                return 0
            late_us = int(self._rng.choice((0.3, 1.0, 3.0)) * (0.5 + self._rng.random()) * SECOND_US)
            self._note(f"markers of {self._between(transport)} take {late_us} us")
            strikes_us = loop.now_us + int(self._rng.random() * 30_000)
            loop.call_at_us(strikes_us, strike, nodes[source], context=WORLD.copy())
            return late_us

        def undo() -> None:
            fabric.delay_us = None

        fabric.delay_us = delay_us
        self._for_a_while(undo, 0.5, 5)
        return True

    def _end_registration(self, node: SimNode) -> None:
        server = self._cluster.store_server
        registered = server.keys.get(keys.broker(node.node_id))
        if registered is not None and registered.lease in server.leases:
            server.revoke(registered.lease)

    def strand(self) -> bool:
        """Whoever leads a partition is cut off from other nodes, not from clients: it takes what few copy.

        Then its process or its registration ends, others lead, and soon it is back. Several times in a row,
        the logs part anew before they have come together.
        """
        cluster, fabric = self._cluster, self._cluster.fabric
        leaders = [state["leader"] for _, _, state in cluster.states() if state["leader"] in cluster.nodes]
        if not leaders or len(cluster.nodes) == 1:
            return False
        node = cluster.nodes[self._rng.choice(leaders)]
        host = node.machine.host
        others = [other for other in self._hosts() if other != host]
        # Those left out go on copying: not enough of them to commit, or those that lead next.
        others = others[self._rng.randrange(len(others)) :]
        ways = [(host, other) for other in others] + [(other, host) for other in others]
        self._note(f"{node.machine} is stranded, cut off from {self._names(others)}", node.machine.name)
        for source, target in ways:
            fabric.cut(source, target)

        def come_back() -> None:
            for source, target in ways:
                fabric.heal(source, target)
            if not node.running and node.machine.up:
                node.start()

        self._begin(come_back)
        self._spawn(self._strand(node, come_back))
        return True

    async def _strand(self, node: SimNode, come_back: Callable[[], None]) -> None:
        await asyncio.sleep(self._rng.uniform(0.05, 1.5))
        if self._cluster.quiet:
            return
        if self._rng.random() < 0.6:
            node.kill()
        else:
            self._end_registration(node)
        await asyncio.sleep(self._rng.uniform(0.05, 1.5))
        self._end(come_back)

    def twin(self) -> bool:
        """Another machine, with an empty disk, is started with a node's id, while that one is out of reach of
        the store, stands still, or has just lost its registration; soon it is taken away again, for good.

        Whoever has the id then has other records than the one before it: as if a disk were lost.
        """
        cluster = self._cluster
        node = self._some_node()
        if len(cluster.nodes) < 3 or not node.running or not cluster.may_lose_power(node):
            return False
        cluster.note_power_loss(node)
        twin = cluster.make_twin(node.node_id)
        how = self._rng.choice(("lease", "pause", "isolate"))
        self._note(f"{node.machine} has a twin, {twin.machine}: {how}", node.machine.name)
        lasts_s = self._rng.choice((3.0, 6.0)) * (0.5 + self._rng.random())
        if how == "pause":
            node.pause()
            self._for_a_while(node.resume, 0.5 * lasts_s, 1.5 * lasts_s)
        elif how == "isolate":
            hosts = node.machine.host, cluster.store_machine.host
            self._cut([hosts, hosts[::-1]], lasts_s)
        twin.start()

        def take_away() -> None:
            twin.kill()
            twin.machine.up = False
            cluster.fabric.machine_died(twin.machine)

        self._for_a_while(take_away, lasts_s, 2 * lasts_s)
        if how == "lease":
            for _ in range(3):
                loop = cluster.loop
                delay_us = int(self._rng.choice((5_000, 600_000, 3_000_000)) * self._rng.random())
                end = partial(self._end_registration, node)
                loop.call_at_us(loop.now_us + delay_us, end, context=WORLD.copy())
        return True
