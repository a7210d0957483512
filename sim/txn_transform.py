"""Consume, transform, produce: each record of a partition has one of another topic, exactly once.

The position is a group's offset that is committed with the output (TxnOffsetCommit), and begun from after
each abort, and by each new instance. The transactional id belongs to the partition, so that another instance
fences the one before it.
"""

from __future__ import annotations

import asyncio
from typing import Any

from ottla.errors import ErrorCode
from ottla.types import TopicPartition
from sim.client import NONE, Disconnected
from sim.txn_client import (
    GROUP_KEY,
    AbortableError,
    FencedError,
    Instance,
    TransactionalClient,
)
from sim.txn_model import Outcome, Transaction
from sim.txn_reader import CommittedConsumer

GROUP = "transform"
UNSTABLE = int(ErrorCode.unstable_offset_commit)
# Records that are transformed in one transaction, at most.
AT_ONCE = 6


class Transform(TransactionalClient):
    """``run`` ends once ``stopping`` is set and the input is transformed up to ``end``."""

    end_offset: int | None = None

    def __init__(self, *args: Any, source: TopicPartition, output: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.source = source
        self._output = output
        self._position = 0
        self._zombies: list[asyncio.Task[None]] = []
        # Reads for it, in the same process.
        self._reader = CommittedConsumer(*args, topics=[source.topic], **kwargs)

    async def run(self) -> None:
        while self._output not in self.partition_counts:
            await self.refresh()
            await self.pause()
        instance: Instance | None = None
        while not (self.stopping and self.end_offset is not None and self._position >= self.end_offset):
            try:
                if instance is None:
                    instance = await self.init()
                    self._position = await self._fetch_offset()
                instance = await self._work(instance)
            except FencedError:
                instance = None
        await asyncio.gather(*self._zombies)

    async def _work(self, instance: Instance) -> Instance | None:
        """Transform what there is; who goes on, None where a new instance has to begin. FencedError."""
        records, position = await self._read()
        if not records:
            self._position = position
            await self.pause(20, 200)
            return instance
        transaction = self.transactions.begin(self.name)
        try:
            try:
                await self._write(instance, transaction, records)
                await self.commit_offset(instance, transaction, GROUP, self.source, position)
                fate = self.rng.random()
                if fate < 0.05:
                    return None
                if fate < 0.12:
                    where = TopicPartition(self._output, 0)
                    self._zombies.append(asyncio.create_task(self.come_back(instance, transaction, where)))
                    return None
                if fate < 0.8:
                    await self.end(instance, transaction, commit=True)
                    self._position = position
                    return instance
            except AbortableError:
                pass
            await self.end(instance, transaction, commit=False)
        except FencedError:
            self.transactions.ended(transaction, Outcome.ABORTED)
            raise
        self._position = await self._fetch_offset()
        return instance

    async def _write(
        self, instance: Instance, transaction: Transaction, records: list[tuple[int, bytes]]
    ) -> None:
        batches: dict[TopicPartition, list[bytes]] = {}
        for offset, _ in records:
            where = TopicPartition(self._output, self.rng.randrange(self.partition_counts[self._output]))
            source = b"%s-%d@%d" % (self.source.topic.encode(), self.source.partition, offset)
            batches.setdefault(where, []).append(transaction.tag + b"|" + source)
        for where, values in batches.items():
            await self.produce(instance, transaction, where, values)

    async def _read(self) -> tuple[list[tuple[int, bytes]], int]:
        """Committed records from the position on, and where to go on behind them."""
        reader = self._reader
        if self.source not in reader.leaders:
            await reader.refresh()
        reader.view.clear()
        reader.positions[self.source] = self._position
        await reader.fetch_some([self.source])
        position = reader.positions.get(self.source, self._position)
        records = sorted(reader.view.get(self.source, {}).items())
        if len(records) > AT_ONCE:
            return records[:AT_ONCE], records[AT_ONCE][0]
        return records, position

    async def _fetch_offset(self) -> int:
        """The group's offset, once no transaction is about to move it (require_stable)."""
        topics = [{"name": self.source.topic, "partition_indexes": [self.source.partition]}]
        fields = {"groups": [{"group_id": GROUP, "topics": topics}], "require_stable": True}
        while True:
            least = self.transactions.group_offsets.get(self.source, -1)
            try:
                response = await self._ask_coordinator(GROUP_KEY, GROUP, "OffsetFetch", fields)
            except Disconnected:
                await self.pause()
                continue
            group = response.groups[0]
            code = group.error_code
            if code == NONE:
                answer = group.topics[0].partitions[0]
                code, offset = answer.error_code, int(answer.committed_offset)
                if code == NONE:
                    self.transactions.fetched_offset(self.source, least, offset)
                    return max(offset, 0)
            if code == UNSTABLE:
                await self.pause()
            elif not await self._again(GROUP_KEY, GROUP, "OffsetFetch", code):
                self.unexpected("OffsetFetch", code)
                await self.pause()
