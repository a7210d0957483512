"""A run whose clients work in transactions: the faults, nodes and observer are those of each run."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from random import Random
from typing import Any

from ottla.coordinators.transactions import producers
from ottla.coordinators.transactions.metadata import EPOCH_MAX, beginning
from ottla.explore.campaign.cluster import Cluster, Options, Result, run
from ottla.explore.campaign.mutations import replaced
from ottla.explore.campaign.txn_model import NEVER_STUCK, STABLE, Outcome, TransactionModel
from ottla.explore.campaign.txn_producer import TransactionalProducer
from ottla.explore.campaign.txn_protocol import CLASSIC, FIRST, KIP_890, Protocol
from ottla.explore.campaign.txn_reader import CommittedConsumer
from ottla.explore.campaign.txn_transform import MemberTransform, Transform
from ottla.explore.faults.kinds import KINDS
from ottla.metadata.feature_levels import TRANSACTION_VERSION
from ottla.types import TopicPartition

INPUT, OUTPUT = "in", "out"
# Records that are deleted are not transformed; and what a machine loses that has no replicas, while somebody
# has read it already, was transformed all the same.
NOT_HERE = frozenset({"delete-records"})
NOT_ALONE = frozenset({"power", "at-roll", "disk-failing"})


class TransactionalCluster(Cluster):
    """See the module's docstring."""

    topic_sizes: Mapping[str, int] = {INPUT: 2, OUTPUT: 2}

    def __init__(self, options: Options) -> None:
        without = NOT_HERE | (NOT_ALONE if options.nodes == 1 else frozenset())
        if options.faults is None:
            rng = self._kinds_rng(options)
            kinds = [name for name in KINDS if name not in without]
            chosen = [name for name in kinds if rng.random() < 0.5] or kinds
            options = replace(options, faults=chosen)
        self.properties = {
            "transaction.abort.timed.out.transaction.cleanup.interval.ms": "500",
            "transaction.state.log.min.isr": "2" if options.nodes >= 3 else "1",
            "transaction.state.log.num.partitions": "3",
            "transaction.state.log.replication.factor": str(min(3, options.nodes)),
        }
        rng = Random(f"{options.seed} transactional settings")
        given = options.given
        # The level of transaction.version, and what clients speak: with the last level each its own.
        self.level: int = given.get("level", rng.choice((2, 2, 2, 1, 0)))
        self.protocols: tuple[Protocol, ...] = given.get("protocols", (KIP_890, KIP_890, CLASSIC, FIRST))
        # Whether those who transform are members of a group, or each has a partition of its own.
        self.members: bool = given.get("members", rng.random() < 0.5)
        self._stable: dict[tuple[str, int, int], int] = {}
        super().__init__(options)
        self.transactions = TransactionModel(self.model)
        self._transforms: list[Transform] = []

    @staticmethod
    def _kinds_rng(options: Options) -> Random:
        return Random(f"{options.seed} transactional kinds")

    async def _prepare(self) -> None:
        if self.level < 2:
            await self._within(
                self._as_admin(self.admin.set_level(TRANSACTION_VERSION, self.level)), "features"
            )

    def _heal(self) -> None:
        super()._heal()
        # Timeouts are in wall time, as in Kafka: by a clock that is an hour behind they are an hour later.
        for node in self.nodes.values():
            node.machine.wall_offset_ms = 0

    def _protocol(self, rng: Random, *, names_member: bool = False) -> Protocol:
        """One that a client may speak."""
        return rng.choice(
            [
                one
                for one in self.protocols
                if (self.level >= 2 or not one.bumps) and (one.names_member or not names_member)
            ]
        )

    def _start_clients(self) -> list[asyncio.Task[None]]:
        rng = self._rng("transactional clients")
        made: list[Any] = []
        for number in range(rng.choice((1, 2, 3))):
            producer = self._client(
                TransactionalProducer,
                f"t{number}",
                topic=INPUT,
                transactions=self.transactions,
                protocol=self._protocol(rng),
            )
            producer.interval_ms = rng.choice((20, 60, 250))
            made.append(producer)
        sources = [TopicPartition(INPUT, index) for index in range(self.topic_sizes[INPUT])]
        kind: type[Transform] = MemberTransform if self.members else Transform
        shares = [sources] * rng.choice((2, 3)) if self.members else [[source] for source in sources]
        for number, share in enumerate(shares):
            transform = self._client(
                kind,
                f"x{number}",
                sources=share,
                output=OUTPUT,
                transactions=self.transactions,
                protocol=self._protocol(rng, names_member=self.members),
            )
            self._transforms.append(transform)
            made.append(transform)
        made.append(self._client(CommittedConsumer, "c0", topics=self.topics, transactions=self.transactions))
        return [self.loop.spawn(client.process, client.run()) for client in made]

    # ------------------------------------------------------------ what is looked at all the time

    def _look(self) -> None:
        super()._look()
        for sim_node in (*self.nodes.values(), *self._twins):
            if sim_node.node is None:
                continue
            for key, partition in sim_node.node._replicas.partitions.items():
                if partition.leading is None or key[0] not in self.topics:
                    continue
                reign = (*key, partition.leader_epoch)
                stable, known = partition.last_stable_offset, self._stable.get(reign, 0)
                if stable < known or stable > partition.high_watermark:
                    what = f"{known}, then {stable}; {partition.high_watermark} is committed"
                    self.model.violate(STABLE, f"{key} epoch {reign[2]}: {what}")
                self._stable[reign] = stable

    # ------------------------------------------------------------ at quiesce

    async def _finish(self, running: list[asyncio.Task[None]]) -> None:
        await self._until(self.all_in_sync, "all replicas in sync")
        workers = list(zip(self.clients[1:], running, strict=True))
        await self._end(workers, TransactionalProducer)
        # Those that were left open go by their timeout.
        await self._until_stable()
        ends = {}
        for index in range(self.topic_sizes[INPUT]):
            source = TopicPartition(INPUT, index)
            partition = self._leading(source)
            assert partition is not None
            ends[source] = partition.last_stable_offset
        for transform in self._transforms:
            transform.ends = ends
        await self._end(workers, Transform)
        await self._end(workers, CommittedConsumer)
        await self._until_stable()
        await self._until(self._all_committed, "all high watermarks at the ends")
        view = await self._read_committed()
        self.transactions.check_all(view)
        self.transactions.check_transformed(view, ends, OUTPUT)
        for topic, index, state in self.states():
            self.observer.compare_replicas(topic, index, state["replicas"])
        self._look()

    async def _end(self, workers: list[tuple[Any, asyncio.Task[None]]], kind: type[Any]) -> None:
        for client, _ in workers:
            client.stopping = client.stopping or isinstance(client, kind)
        for client, task in workers:
            if isinstance(client, kind):
                await self._within(task, f"{client.name} ended")

    def _leading(self, where: TopicPartition) -> Any:
        for node in self.nodes.values():
            if node.node is not None:
                partition = node.node._replicas.partitions.get(where)
                if partition is not None and partition.leading is not None:
                    return partition
        return None

    async def _until_stable(self) -> None:
        """No transaction is open, in no partition."""
        wheres = [TopicPartition(topic, index) for topic, index, _ in self.states()]
        ends_s = self.loop.time() + 30
        unstable: list[str] = ["?"]
        while unstable:
            if self.loop.time() > ends_s:
                self.model.violate(NEVER_STUCK, "; ".join(unstable))
            await asyncio.sleep(0.1)
            unstable = []
            for where in wheres:
                partition = self._leading(where)
                if partition is None:
                    unstable.append(f"{where} has no leader")
                elif partition.last_stable_offset != partition.log.log_end_offset:
                    end = partition.log.log_end_offset
                    unstable.append(f"{where}: {partition.last_stable_offset} of {end}")

    async def _read_committed(self) -> dict[TopicPartition, dict[int, bytes]]:
        """All that a fresh consumer reads."""
        reader: CommittedConsumer = self._client(
            CommittedConsumer, "r0", topics=self.topics, transactions=self.transactions
        )
        ends = {}
        for topic, count in self.topic_sizes.items():
            for index in range(count):
                partition = self._leading(TopicPartition(topic, index))
                assert partition is not None
                ends[TopicPartition(topic, index)] = partition.log.log_end_offset

        async def read() -> None:
            await reader.refresh()
            while behind := [where for where in ends if reader.positions.get(where, -1) < ends[where]]:
                await reader.fetch_some(behind)

        await self._within(self.loop.spawn(reader.process, read()), "everything read")
        return {where: reader.view.get(where, {}) for where in ends}

    def more_summary(self) -> dict[str, Any]:
        found = self.transactions
        outcomes = [one.outcome for one in found.transactions.values()]
        return {
            "level": self.level,
            "members": self.members,
            "rotations": found.rotation_count,
            "transactions": {outcome.value: outcomes.count(outcome) for outcome in Outcome},
            "instances": sum(found.instances.values()),
            "zombies": found.zombie_count,
            "fenced": found.fenced_count,
        }


@contextmanager
def last_epochs(options: Options) -> Iterator[None]:
    """In some runs new transactional ids begin where the epochs are nearly used up."""
    rng = Random(f"{options.seed} epochs")
    if not options.given.get("last_epochs", rng.random() < 0.5):
        yield
        return

    def near_the_end(*args: Any) -> Any:
        return beginning(*args)._replace(producer_epoch=EPOCH_MAX - rng.choice((1, 2, 3, 5, 10, 20, 40)))

    with replaced(producers, "beginning", near_the_end):
        yield


def run_transactions(options: Options) -> Result:
    """Run one seed."""
    with last_epochs(options):
        return run(options, TransactionalCluster)
