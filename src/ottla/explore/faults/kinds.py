"""What goes wrong, and when: drawn from the seed, within what docs/FAULTS-IN-DETAIL.md says is survived.

Each run has its own mixture of kinds, so that some are crowded by one fault and others have all of them.
Every fault ends by itself; ``end_all`` ends those that are left. Strikes are numbered from 1, and each draws
from chance of its own, so that a run can be repeated with some of them alone.
"""

from __future__ import annotations

import asyncio
import errno
from collections import Counter
from collections.abc import Callable, Container
from functools import partial
from random import Random

from ottla.explore.faults.aimed import Aimed
from ottla.explore.faults.striking import FaultFailed, Strike, Target
from ottla.explore.world.loop import MS_US
from ottla.types import TopicPartition

HOUR_MS = 3_600_000
# Seconds between two faults, on average, in the calmest and in the wildest run.
INTERVALS_S = (0.4, 1.0, 2.5)


class Faults(Aimed):
    """One run's faults. ``run`` injects them until it is cancelled.

    ``only``: the kinds that there are; None for a mixture of those that need no transactions. ``kept``: the
    numbers of the strikes that strike, None for all; the others let their time go by.
    """

    def __init__(self, cluster: Target, rng: Random, only: list[str] | None = None) -> None:
        super().__init__(cluster, rng)
        self._interval_s = rng.choice(INTERVALS_S)
        names = [name for name in KINDS if name not in TRANSACTIONAL] if only is None else only
        self.kinds = names if only is not None else [name for name in names if rng.random() < 0.6] or names
        self.kept: Container[int] | None = None
        self.strikes: list[Strike] = []
        self._number = 0

    @property
    def counts(self) -> dict[str, int]:
        """How often which kind has struck."""
        return dict(Counter(strike.kind for strike in self.strikes))

    async def run(self) -> None:
        while self.kinds:
            self._number += 1
            number = self._number
            one = self._numbered(number)
            await asyncio.sleep(one._rng.expovariate(1) * self._interval_s)
            if self.kept is not None and number not in self.kept:
                continue
            try:
                name, strike = one._draw()
                text = self._happens(strike)
            except Exception as error:
                raise FaultFailed(error) from error
            if text is not None:
                self.strikes.append(Strike(number, name, self._cluster.loop.time(), text))

    def _draw(self) -> tuple[str, Callable[[], bool]]:
        """The kind that strikes next, and how."""
        name = self._rng.choice(self.kinds)
        return name, partial(KINDS[name], self)

    # ------------------------------------------------------------ nodes

    def kill(self) -> bool:
        """A process ends; its machine goes on."""
        node = self._some_node()
        if not node.running:
            return False
        node.kill()
        self._for_a_while(node.start, 0.05, self._rng.choice((0.3, 3, 10)))
        return True

    def kill_many(self) -> bool:
        """Several processes end at the same time, perhaps all."""
        nodes = [node for node in self._cluster.nodes.values() if node.running]
        for node in self._rng.sample(nodes, self._rng.randint(0, len(nodes))):
            node.kill()
            self._for_a_while(node.start, 0.05, 5)
        return True

    def lose_power(self, *, disk_too: bool = False) -> bool:
        """A machine loses what it had not synced: one, until all replicas are in sync again."""
        node = self._some_node()
        if (node.doubtful and not disk_too) or not self._cluster.may_lose_power(node):
            return False
        self._cluster.note_power_loss(node)
        node.lose_power(disk_too=disk_too)
        self._for_a_while(node.boot, 0.1, self._rng.choice((0.5, 4, 10)))
        return True

    def lose_disk(self) -> bool:
        """A machine comes back with an empty disk: under the same rule."""
        return len(self._cluster.nodes) >= 3 and self.lose_power(disk_too=True)

    def damage_file(self) -> bool:
        """A process ends, and before the next one a file beside its logs is damaged."""
        node = self._some_node()
        if not node.running:
            return False
        node.kill()
        what = node.volume.damage("data", self._rng)
        self._note(f"{node.machine}: {what or 'nothing to damage'}", node.machine.name)
        self._for_a_while(node.start, 0.05, self._rng.choice((0.3, 3)))
        return True

    def pause(self) -> bool:
        """A process stands still, as by SIGSTOP or a virtual machine that is moved."""
        node = self._some_node()
        if not node.running:
            return False
        node.pause()
        self._for_a_while(node.resume, 0.05, self._rng.choice((0.5, 3, 8)))
        return True

    def restart(self) -> bool:
        """A node is told to stop, and is started again."""
        node = self._some_node()
        if not node.serving or not node.wanted:
            return False

        async def restart() -> None:
            await node.stop()
            if not self._cluster.quiet:
                await asyncio.sleep(self._rng.uniform(0, 2))
            node.start()

        self._spawn(restart())
        return True

    # ------------------------------------------------------------ the network

    def isolate(self) -> bool:
        """A node is cut off: from the others, from the store, from clients, or from all of them."""
        host = self._some_node().machine.host
        others = self._rng.choice(
            (
                [one for one in self._hosts() if one != host],
                [self._cluster.store_machine.host],
                self._cluster.client_hosts,
                [one for one in self._cluster.fabric.machines if one != host],
            )
        )
        ways = [(host, other) for other in others] + [(other, host) for other in others]
        self._note(f"{self._name(host)} is cut off from {self._names(others)}", self._name(host))
        self._cut(ways, self._rng.choice((1, 4, 12)))
        return True

    def split(self) -> bool:
        """The nodes are in two parts that do not see each other; the store is seen by both, or by one."""
        hosts = self._hosts()
        self._rng.shuffle(hosts)
        size = self._rng.randint(1, len(hosts) - 1) if len(hosts) > 1 else 0
        one, other = hosts[:size], hosts[size:]
        if self._rng.random() < 0.5:
            other.append(self._cluster.store_machine.host)
        self._note(f"{self._names(one)} and {self._names(other)} do not reach each other")
        self._cut([way for a in one for b in other for way in ((a, b), (b, a))], self._rng.choice((1, 4, 12)))
        return True

    def one_way(self) -> bool:
        """Packets get lost in one direction between two hosts."""
        source, target = self._two_hosts()
        self._note(f"{self._name(source)} does not reach {self._name(target)}")
        self._cut([(source, target)], self._rng.choice((1, 4, 12)))
        return True

    def slow_link(self) -> bool:
        source, target = self._two_hosts()
        link = self._cluster.fabric.link(source, target)
        link.slow_us = self._rng.choice((5_000, 50_000, 400_000))
        self._note(f"{self._name(source)} to {self._name(target)} takes {link.slow_us // MS_US} ms more")

        def undo() -> None:
            link.slow_us = 0

        self._for_a_while(undo, 0.2, 5)
        return True

    def break_connection(self) -> bool:
        transports = list(self._cluster.fabric.transports)
        if not transports:
            return False
        chosen = self._rng.choice(transports)
        self._note(f"a connection of {self._between(chosen)} is reset")
        self._cluster.fabric.break_connection(chosen)
        return True

    def lose_messages(self) -> bool:
        transports = list(self._cluster.fabric.transports)
        if not transports:
            return False
        chosen = self._rng.choice(transports)
        self._note(f"a connection loses what goes from {self._between(chosen)}")
        self._cluster.fabric.lose(chosen)
        return True

    # ------------------------------------------------------------ the store

    def store_outage(self) -> bool:
        machine = self._cluster.store_machine
        if not machine.up:
            return False
        self._note("the store is away", machine.name)
        machine.up = False

        def undo() -> None:
            machine.up = True

        self._for_a_while(undo, 0.1, self._rng.choice((0.5, 3, 8)))
        return True

    def store_answers_lost(self) -> bool:
        """Nobody knows what became of transactions."""
        node = self._some_node()
        way = node.way
        if way is None:
            return False
        way.lossy = self._rng.choice((0.2, 0.6, 1.0))
        self._note(f"{node.machine} loses {way.lossy:.0%} of the store's answers", node.machine.name)

        def undo() -> None:
            way.lossy = 0.0

        self._for_a_while(undo, 0.2, 4)
        return True

    def store_compaction(self) -> bool:
        server = self._cluster.store_server
        server.compact(server.revision - self._rng.choice((0, 3, 30)))
        return True

    def lease_ends(self) -> bool:
        """The store ends a node's lease although the node lives."""
        server = self._cluster.store_server
        if not server.leases:
            return False
        lease = self._rng.choice(list(server.leases))
        self._note(f"lease {lease} ends", self._cluster.store_machine.name)
        server.revoke(lease)
        return True

    # ------------------------------------------------------------ clocks and disks

    def clock_jump(self) -> bool:
        node = self._some_node()
        node.machine.wall_offset_ms = self._rng.choice((-1, 1)) * self._rng.choice((0, 40, 3_000, HOUR_MS))
        self._note(f"{node.machine}'s clock is {node.machine.wall_offset_ms} ms off", node.machine.name)
        return True

    def slow_disk(self) -> bool:
        node = self._some_node()
        node.volume.slow_us = self._rng.choice((500, 5_000, 30_000))
        self._note(f"{node.machine}'s disk takes up to {node.volume.slow_us} us more", node.machine.name)

        def undo() -> None:
            node.volume.slow_us = 0

        self._for_a_while(undo, 0.2, 3)
        return True

    def full_disk(self) -> bool:
        node = self._some_node()
        volume = node.volume
        usual = self._cluster.capacity_bytes
        volume.capacity_bytes = volume.used_bytes + self._rng.choice((0, 100, 5_000))
        self._note(f"{node.machine}'s disk is full", node.machine.name)

        def undo() -> None:
            volume.capacity_bytes = usual

        self._for_a_while(undo, 0.2, 5)
        return True

    def failing_disk(self) -> bool:
        """Operations fail for a while. After a failed sync nobody knows what is on the disk: such a machine
        does not lose power any more."""
        node = self._some_node()
        operation = self._rng.choice(("read", "write", "open", "sync"))
        if operation == "sync":
            node.doubtful = True
        node.volume.failing[operation] = errno.EIO
        self._note(f"{node.machine}'s disk fails to {operation}", node.machine.name)

        def undo() -> None:
            node.volume.failing.pop(operation, None)

        self._for_a_while(undo, 0.05, self._rng.choice((0.3, 3)))
        return True

    # ------------------------------------------------------------ changes on purpose

    def change_config(self) -> bool:
        """One copy survives a loss of power only as long as it is flushed: a node by itself keeps to that."""
        cluster = self._cluster
        keep = "flush.messages" if len(cluster.nodes) == 1 else ""
        self._spawn(cluster.ask_admin(cluster.admin.change_config(self._rng.choice(cluster.topics), keep)))
        return True

    def delete_records(self) -> bool:
        cluster = self._cluster
        self._spawn(cluster.ask_admin(cluster.admin.delete_records(self._rng.choice(cluster.topics))))
        return True

    def reassign(self) -> bool:
        cluster = self._cluster
        topic = self._rng.choice(cluster.topics)
        count = cluster.admin.partition_counts.get(topic, 0)
        if not count:
            return False
        where = TopicPartition(topic, self._rng.randrange(count))
        replicas = self._rng.sample(list(cluster.nodes), min(3, len(cluster.nodes)))
        self._spawn(cluster.ask_admin(cluster.admin.reassign(where, replicas)))
        return True

    def elect_preferred(self) -> bool:
        cluster = self._cluster
        self._spawn(cluster.ask_admin(cluster.admin.elect_preferred()))
        return True


# By the names that docs/FAULTS-IN-DETAIL.md has.
KINDS: dict[str, Callable[[Faults], bool]] = {
    "kill": Faults.kill,
    "kill-many": Faults.kill_many,
    "power": Faults.lose_power,
    "at-roll": Faults.power_at_roll,
    "wipe": Faults.lose_disk,
    "damage": Faults.damage_file,
    "at-change": Faults.at_change,
    "pause": Faults.pause,
    "restart": Faults.restart,
    "isolate": Faults.isolate,
    "split": Faults.split,
    "one-way": Faults.one_way,
    "slow-link": Faults.slow_link,
    "break": Faults.break_connection,
    "lose": Faults.lose_messages,
    "store-outage": Faults.store_outage,
    "store-answers": Faults.store_answers_lost,
    "store-compaction": Faults.store_compaction,
    "lease": Faults.lease_ends,
    "clock": Faults.clock_jump,
    "disk-slow": Faults.slow_disk,
    "disk-full": Faults.full_disk,
    "disk-failing": Faults.failing_disk,
    "config": Faults.change_config,
    "delete-records": Faults.delete_records,
    "reassign": Faults.reassign,
    "elect": Faults.elect_preferred,
    "strand": Faults.strand,
    "twin": Faults.twin,
    "late-markers": Faults.late_markers,
}
# Those that strike only where there are transactions.
TRANSACTIONAL = frozenset({"late-markers"})
