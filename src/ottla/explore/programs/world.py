"""The world of a test: a cluster, users' programs on machines of their own, and faults that strike both."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TextIO, TypeVar

from ottla.coordinators.runtime.hashing import partition_of
from ottla.explore.decorated import check_nodes, check_program
from ottla.explore.faults.striking import Administration
from ottla.explore.programs import current
from ottla.explore.programs.beside import Beside
from ottla.explore.programs.directory import Directory
from ottla.explore.programs.loop import ProgramLoop
from ottla.explore.programs.program import Main, Program, ProgramExited
from ottla.explore.programs.striking import ProgramFaults, kinds_of
from ottla.explore.world.machines import Machines
from ottla.explore.world.nodes import PORT, SimNode
from ottla.metadata.image import INTERNAL_TOPICS, OFFSETS_TOPIC
from ottla.node import Node
from ottla.testing import contents
from ottla.testing.contents import StoredCommit, StoredRecord
from ottla.types import TopicPartition

T = TypeVar("T")
# How long the cluster and the programs may take until all is well again, in virtual seconds.
SETTLE_S = 600.0
# Nothing happens any more if nothing was written for so long: clients wait 30 to 40 s for an answer that was
# lost before they ask again.
IDLE_S = 60.0
# Timestamps of clients that read the clock in C are years away from those of the run.
ANY_TIMESTAMP = str(2**63 - 1)
PROPERTIES = {
    "broker.session.timeout.ms": "3000",
    "group.initial.rebalance.delay.ms": "0",
    "log.message.timestamp.after.max.ms": ANY_TIMESTAMP,
    "log.message.timestamp.before.max.ms": ANY_TIMESTAMP,
    "offsets.topic.num.partitions": "3",
    "replica.lag.time.max.ms": "5000",
    "transaction.state.log.num.partitions": "3",
}


async def _records(topic: str, index: int, read_committed: bool, node: Node) -> list[StoredRecord]:
    return await contents.records(node, topic, index, read_committed)


async def _committed(group: str, node: Node) -> dict[TopicPartition, int]:
    return await contents.committed(node, group)


async def _commits(group: str, index: int, node: Node) -> list[StoredCommit]:
    return await contents.commits(node, group, index)


async def _create(topic: str, partitions: int, node: Node) -> None:
    await contents.create_topic(node, topic, partitions, {})


class NotSettled(AssertionError):
    """All faults have ended, and the cluster or a program is not well again in the time that it may take.

    ``reason``: what is not well, without the names.
    """

    def __init__(self, most_s: float, reason: str, names: str = "") -> None:
        super().__init__(f"after {most_s:.0f} s without faults: {reason}{names}")
        self.reason = reason


class World(Machines):
    """What a test under exploration is given.

    ``bootstrap`` is the list of the nodes' addresses for clients. All times are virtual seconds.
    """

    def __init__(
        self,
        seed: int,
        *,
        nodes: int = 3,
        topics: Mapping[str, int] | None = None,
        faults: str | Sequence[str] | Mapping[str, float] | None = None,
        config: Mapping[str, str] | None = None,
        trace: TextIO | None = None,
        is_any_order: bool = False,
    ) -> None:
        check_nodes(nodes)
        loop = ProgramLoop()  # type: ignore[abstract]
        super().__init__(loop, seed, trace, is_any_order=is_any_order)
        loop.fabric = self.fabric
        self.programs: dict[str, Program] = {}
        self._directories: dict[str, Directory] = {}
        self.topics = list(topics or ())
        self._partitions = dict(topics or {})
        factor = min(3, nodes)
        replication = dict.fromkeys(
            (
                "default.replication.factor",
                "offsets.topic.replication.factor",
                "transaction.state.log.replication.factor",
            ),
            str(factor),
        )
        least = "2" if nodes >= 3 else "1"
        isr = {"min.insync.replicas": least, "transaction.state.log.min.isr": least}
        durable = {} if nodes > 1 else {"log.flush.interval.messages": "1"}
        for node_id in range(1, nodes + 1):
            self.add_node(node_id, PROPERTIES | replication | isr | durable | dict(config or {}))
        self.bootstrap = ",".join(f"{node.machine.name}:{PORT}" for node in self.nodes.values())
        self.faults = ProgramFaults(self, self.programs, self._rng("faults"), kinds_of(faults))
        # How long each `run` takes at most; None: as long as it is told.
        self.run_max_s: float | None = None
        # How long the longest one was to take: the end of a program may end it before.
        self.longest_run_s = 0.0
        # The error of a program that is not to end by one.
        self._failed: tuple[Program, BaseException, float] | None = None
        # What is real, and begins while the run is under way.
        self.beside = Beside()

    @property
    def admin(self) -> Administration:
        raise NotImplementedError("no fault of a world needs an administrator")

    async def ask_admin(self, work: Coroutine[Any, Any, None]) -> None:
        raise NotImplementedError("no fault of a world needs an administrator")

    # ------------------------------------------------------------ what a test does

    def program(self, name: str, main: Main, *arguments: Any, restarts: bool = False) -> Program:
        """Start ``main(*arguments)``, a coroutine function, on a machine of its own with this name.

        ``restarts``: start it again if it ends by an error, as a service manager would.
        """
        check_program(name, main)
        if not callable(main):
            raise TypeError(f"a program is a function, not {main!r}")
        if name in self.programs or name == "store" or name in {n.machine.name for n in self.nodes.values()}:
            raise ValueError(f"there is a machine {name!r} already")
        machine = self.machine(name, f"10.0.2.{len(self.programs) + 1}")
        self.client_hosts.append(machine.host)
        directory = self._directory(name)
        made = self.programs[name] = Program(
            name, machine, self.fabric, main, arguments, restarts=restarts, directory=directory
        )
        made.on_error = self._program_failed
        made.start()
        return made

    def directory(self, name: str) -> Path:
        """The directory of the program with this name, which may be started later: files stay when it dies.

        Its path is not the same in another run. The fault ``program-disk`` empties it.
        """
        return self._directory(name).path

    def _directory(self, name: str) -> Directory:
        if name not in self._directories:
            self._directories[name] = Directory(name)
        return self._directories[name]

    @property
    def now_s(self) -> float:
        """How much virtual time has gone by since the run began."""
        return self.loop.time()

    async def run(self, seconds: float) -> None:
        """Let time go by while faults strike. Raises the error of a program that is not to end by one."""
        if self.run_max_s is not None:
            seconds = min(seconds, self.run_max_s)
        self.longest_run_s = max(self.longest_run_s, seconds)
        begun_s = self.loop.time()
        striking = asyncio.create_task(self.faults.run())
        try:
            end_s = begun_s + seconds
            while (left_s := end_s - self.loop.time()) > 0:
                await asyncio.sleep(min(1.0, left_s))
                self._raise_failure()
                if striking.done():
                    # Where there are no faults it has returned; after an error none would strike any more.
                    striking.result()
            self.beside.check()
        finally:
            striking.cancel()

    async def settle(self, idle_s: float = IDLE_S, most_s: float = SETTLE_S) -> None:
        """End all faults, and wait until all is well and nothing happens any more.

        Every replica is in sync then, programs without ``restarts`` have returned, and for ``idle_s`` no
        topic got a record and no group another offset. NotSettled if that takes more than ``most_s``.
        """
        self.quiet = True
        self.trace("world", "heals")
        self.faults.end_all()
        self.heal()
        for program in self.programs.values():
            program.resume()
            program.start()
        deadline_s, idle_since_s, before = self.loop.time() + most_s, self.loop.time(), self._progress()
        while (waits := self._waits_for()) or self.loop.time() < idle_since_s + idle_s:
            if self.loop.time() > deadline_s:
                self.beside.check()
                raise NotSettled(most_s, *(waits or ("records are still written",)))
            await asyncio.sleep(0.2)
            self._raise_failure()
            if waits or self._progress() != before:
                idle_since_s, before = self.loop.time(), self._progress()
        self.beside.check()

    async def records(self, topic: str, *, read_committed: bool = True) -> list[StoredRecord]:
        """What lies in a topic, by partition and offset, by its leaders. ValueError: there is none."""
        found: list[StoredRecord] = []
        partitions = self._partitions_of(topic)
        if not partitions:
            # A check of nothing would pass.
            there = sorted({name for name, *_ in self.states()} - INTERNAL_TOPICS)
            raise ValueError(f"there is no topic {topic!r}: name it in `topics=`, beside {there}")
        for index in range(partitions):
            leader = self.nodes[self._leader(topic, index)]
            found += await self._on(leader, partial(_records, topic, index, read_committed))
        return found

    async def committed(self, group: str) -> dict[TopicPartition, int]:
        """The offsets that a group has committed, by the node that coordinates it."""
        index = self._partition_of(group)
        if index is None:
            return {}
        coordinator = self.nodes[self._leader(OFFSETS_TOPIC, index)]
        return await self._on(coordinator, partial(_committed, group))

    async def commits(self, group: str) -> list[StoredCommit]:
        """All that a group has committed since the run began, oldest first."""
        index = self._partition_of(group)
        if index is None:
            return []
        coordinator = self.nodes[self._leader(OFFSETS_TOPIC, index)]
        return await self._on(coordinator, partial(_commits, group, index))

    # ------------------------------------------------------------ inside

    async def prepare(self) -> None:
        """Start the nodes and make the topics."""
        for node in self.nodes.values():
            node.start()
        while not (self.all_in_sync() and self._all_see_all()):
            await asyncio.sleep(0.1)
        first = next(iter(self.nodes.values()))
        for topic, count in self._partitions.items():
            await self._on(first, partial(_create, topic, count))
        while not self.all_in_sync():
            await asyncio.sleep(0.1)

    def _all_see_all(self) -> bool:
        """Whether each node has heard of each other one: it serves before that, and counts its replicas."""
        serving = [sim.node for sim in self.nodes.values() if sim.node is not None]
        return all(len(node.services.metadata.image.brokers) == len(self.nodes) for node in serving)

    async def _on(self, sim: SimNode, work: Callable[[Node], Coroutine[Any, Any, T]]) -> T:
        """The result of what a node does for the test."""
        node, process = sim.node, sim.process
        if node is None or process is None:
            raise RuntimeError(f"{sim} does not serve: `await world.settle()` first")
        return await self.loop.spawn(process, work(node))

    def _leader(self, topic: str, index: int) -> int:
        for name, partition, state in self.states():
            if (name, partition) == (topic, index):
                return int(state["leader"])
        raise KeyError(f"there is no partition {topic}-{index}")

    def _partitions_of(self, topic: str) -> int:
        return sum(name == topic for name, _, _ in self.states())

    def _partition_of(self, group: str) -> int | None:
        """The partition of __consumer_offsets that a group belongs to; None while there is none."""
        partitions = self._partitions_of(OFFSETS_TOPIC)
        return partition_of(group, partitions) if partitions else None

    def _program_failed(self, program: Program, error: BaseException) -> None:
        if self._failed is None:
            self._failed = program, error, self.loop.time()

    def _raise_failure(self) -> None:
        refusal = current.refusal()
        if refusal is not None and (self._failed is None or self._failed[1] is not refusal):
            raise refusal
        if self._failed is not None:
            program, error, at_s = self._failed
            if isinstance(error, SystemExit | KeyboardInterrupt):
                # They would end the run.
                raise ProgramExited(program.name, error).with_traceback(error.__traceback__)
            error.add_note(f"It ended the program {program} at {at_s:.3f} s.")
            raise error

    def _progress(self) -> dict[object, int]:
        """What clients have done, as the nodes have it that have most: ends of partitions, committed offsets.

        A commit of the same offset again is none: aiokafka commits every few seconds, whatever was read.
        """
        seen: dict[object, int] = {}
        for sim in self.nodes.values():
            if sim.node is None:
                continue
            services = sim.node.services
            for where, partition in services.replicas.partitions.items():
                end = partition.log.log_end_offset
                if where[0] != OFFSETS_TOPIC and end >= seen.get(where, 0):
                    seen[where] = end
            for shard in services.groups.host.shards.values():
                for listed in shard.machine.groups():
                    # Members that come or go change what is read next.
                    seen[listed.group_id, listed.state] = 1
                for group, topics in shard.machine.tables.offsets.by_group.items():
                    for topic, partitions in topics.items():
                        for index, kept in partitions.items():
                            seen[group, topic, index] = max(seen.get((group, topic, index), 0), kept[0])
        return seen

    def _waits_for(self) -> tuple[str, ...]:
        """What is not well yet, and who; empty if all is."""
        if not self.all_in_sync():
            return ("not every replica is in sync",)
        running = [str(one) for one in self.programs.values() if not one.done and not one.restarts]
        return ("these programs have not returned", f": {', '.join(running)}") if running else ()
