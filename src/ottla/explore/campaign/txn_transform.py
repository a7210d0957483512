"""Consume, transform, produce: each record of a partition has one of another topic, exactly once.

The position is a group's offset that is committed with the output (TxnOffsetCommit), and begun from after
each abort, and by each new instance. Where the transactional id belongs to the partition, another instance
fences the one before it (`Transform`); where partitions come with the membership in a group, its generations
do (`MemberTransform`, KIP-447).
"""

from __future__ import annotations

import asyncio
from typing import Any

from ottla.errors import ErrorCode
from ottla.explore.campaign.client import NONE, Disconnected
from ottla.explore.campaign.consumer import HEARTBEAT_INTERVAL_S, SESSION_TIMEOUT_MS, GroupConsumer
from ottla.explore.campaign.txn_client import (
    GROUP_KEY,
    NO_MEMBER,
    TIMEOUT_MS,
    AbortableError,
    FencedError,
    Instance,
    Member,
    TransactionalClient,
)
from ottla.explore.campaign.txn_model import Outcome, Transaction
from ottla.explore.campaign.txn_reader import CommittedConsumer
from ottla.types import TopicPartition

GROUP = "transform"
UNSTABLE = int(ErrorCode.unstable_offset_commit)
# Records that are transformed in one transaction, at most.
AT_ONCE = 6


class Transform(TransactionalClient):
    """``run`` ends once ``stopping`` is set and the input is transformed up to ``ends``."""

    def __init__(
        self, *args: Any, sources: list[TopicPartition], output: str, group: str = GROUP, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self.sources = sources
        # Where each source ends, once that is known.
        self.ends: dict[TopicPartition, int] = {}
        self._output = output
        self._group = group
        self._positions: dict[TopicPartition, int] = {}
        self._zombies: list[asyncio.Task[None]] = []
        # Reads for it, in the same process.
        topics = list({source.topic for source in sources})
        reading = {name: value for name, value in kwargs.items() if name != "protocol"}
        self._reader = CommittedConsumer(*args, topics=topics, **reading)

    def _is_over(self) -> bool:
        reached = self.transactions.transformed
        return self.stopping and all(reached.get(one, -1) >= self.ends[one] for one in self.sources)

    def _turn(self) -> tuple[TopicPartition, Member] | None:
        """What is to be transformed next, and as which member of the group; None: nothing now."""
        return self.sources[0], NO_MEMBER

    async def _linger(self) -> None:
        """A transaction is open: whatever may take a while then."""

    async def run(self) -> None:
        while self._output not in self.partition_counts:
            await self.refresh()
            await self.pause()
        instance: Instance | None = None
        while not self._is_over():
            try:
                if instance is None:
                    instance = await self.init()
                    self._positions.clear()
                instance = await self._work(instance)
            except FencedError:
                instance = None
        await asyncio.gather(*self._zombies)

    async def _work(self, instance: Instance) -> Instance | None:
        """Transform what there is; who goes on, None where a new instance has to begin. FencedError."""
        turn = self._turn()
        if turn is None:
            await self.pause()
            return instance
        source, member = turn
        if source not in self._positions:
            self._positions[source] = await self._fetch_offset(source)
        records, position = await self._read(source)
        if not records:
            self._positions[source] = position
            reached = self.transactions.transformed
            reached[source] = max(position, reached.get(source, -1))
            await self.pause(20, 200)
            return instance
        transaction = self.transactions.begin(self.name)
        try:
            try:
                await self._write(instance, transaction, source, records)
                await self._linger()
                await self.commit_offset(instance, transaction, self._group, source, position, member)
                fate = self.rng.random()
                if fate < 0.05:
                    return None
                if fate < 0.12:
                    where = TopicPartition(self._output, 0)
                    self._zombies.append(asyncio.create_task(self.come_back(instance, transaction, where)))
                    return None
                if fate < 0.8:
                    await self.end(instance, transaction, commit=True)
                    self._positions[source] = position
                    return instance
            except AbortableError:
                pass
            self._positions.clear()
            await self.end(instance, transaction, commit=False)
        except FencedError:
            self.transactions.ended(transaction, Outcome.ABORTED)
            raise
        return instance

    async def _write(
        self,
        instance: Instance,
        transaction: Transaction,
        source: TopicPartition,
        records: list[tuple[int, bytes]],
    ) -> None:
        batches: dict[TopicPartition, list[bytes]] = {}
        for offset, _ in records:
            where = TopicPartition(self._output, self.rng.randrange(self.partition_counts[self._output]))
            origin = b"%s-%d@%d" % (source.topic.encode(), source.partition, offset)
            batches.setdefault(where, []).append(transaction.tag + b"|" + origin)
        for where, values in batches.items():
            await self.produce(instance, transaction, where, values)

    async def _read(self, source: TopicPartition) -> tuple[list[tuple[int, bytes]], int]:
        """Committed records from the position on, and where to go on behind them."""
        reader = self._reader
        if source not in reader.leaders:
            await reader.refresh()
        reader.view.clear()
        before = reader.positions[source] = self._positions[source]
        await reader.fetch_some([source])
        position = reader.positions.get(source, before)
        records = sorted(reader.view.get(source, {}).items())
        if len(records) > AT_ONCE:
            return records[:AT_ONCE], records[AT_ONCE][0]
        return records, position

    async def _fetch_offset(self, source: TopicPartition) -> int:
        """The group's offset, once no transaction is about to move it (require_stable)."""
        topics = [{"name": source.topic, "partition_indexes": [source.partition]}]
        fields = {"groups": [{"group_id": self._group, "topics": topics}], "require_stable": True}
        while True:
            least = self.transactions.group_offsets.get(source, -1)
            try:
                response = await self._ask_coordinator(GROUP_KEY, self._group, "OffsetFetch", fields)
            except Disconnected:
                await self.pause()
                continue
            group = response.groups[0]
            code = group.error_code
            if code == NONE:
                answer = group.topics[0].partitions[0]
                code, offset = answer.error_code, int(answer.committed_offset)
                if code == NONE:
                    self.transactions.fetched_offset(source, least, offset)
                    return max(offset, 0)
            if code == UNSTABLE:
                await self.pause()
            elif not await self._again(GROUP_KEY, self._group, "OffsetFetch", code):
                self.unexpected("OffsetFetch", code)
                await self.pause()


class Membership(GroupConsumer):
    """A member of the group that leaves reading and committing to others."""

    # It sends no heartbeats, as where the whole process stands still.
    halted = False

    @property
    def share(self) -> tuple[list[TopicPartition], Member] | None:
        """What it was given, and as whom; None where it is no member now."""
        return (self._mine, Member(self._member_id, self.generation)) if self._joined else None

    async def _fetch_committed(self) -> None:
        """Whoever works with its partitions does."""

    async def _work(self) -> None:
        now = self.loop.time()
        if now >= self._heartbeat_at and not self.halted:
            self._heartbeat_at = now + HEARTBEAT_INTERVAL_S
            response = await self._ask(
                "Heartbeat", {"generation_id": self.generation, "member_id": self._member_id}
            )
            if response.error_code != NONE:
                await self._failed(response.error_code)
        elif self.rng.random() < 0.005:
            await self._leave()
        else:
            await self.pause()


class MemberTransform(Transform):
    """Transforms what the group gives it. Now and then it stands still with a transaction open, for longer
    than its session lasts, and perhaps than its transaction may; then it goes on as if nothing had been."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        topics = list({source.topic for source in self.sources})
        self._membership = Membership(*args, topics=topics, group=self._group)
        self._member: Member | None = None

    def _turn(self) -> tuple[TopicPartition, Member] | None:
        share = self._membership.share
        if share is None or not share[0]:
            return None
        mine, member = share
        if member != self._member:
            self._member = member
            self._positions.clear()
        return self.rng.choice(mine), member

    async def _linger(self) -> None:
        if self.rng.random() < 0.04:
            self._membership.halted = True
            least_s = SESSION_TIMEOUT_MS / 1000
            await asyncio.sleep(self.rng.uniform(least_s, least_s + TIMEOUT_MS / 1000))
            self._membership.halted = False

    async def run(self) -> None:
        membership = asyncio.create_task(self._membership.run())
        await super().run()
        self._membership.stopping = True
        await membership
