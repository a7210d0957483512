"""Writes to a topic in transactions: some are committed, others aborted, left, or come back to by zombies."""

from __future__ import annotations

import asyncio
from typing import Any

from ottla.explore.campaign.txn_client import (
    TIMEOUT_MS,
    AbortableError,
    FencedError,
    Instance,
    TransactionalClient,
)
from ottla.explore.campaign.txn_model import Outcome, Transaction
from ottla.types import TopicPartition


class TransactionalProducer(TransactionalClient):
    """``run`` ends at the end of a transaction, once ``stopping`` is set."""

    interval_ms = 60

    def __init__(self, *args: Any, topic: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._topic = topic
        self._number = 0
        self._zombies: list[asyncio.Task[None]] = []

    async def run(self) -> None:
        while self._topic not in self.partition_counts:
            await self.refresh()
            await self.pause()
        instance: Instance | None = None
        while not self.stopping:
            await asyncio.sleep(self.rng.expovariate(1) * self.interval_ms / 1000)
            if instance is None:
                instance = await self.init()
            transaction = self.transactions.begin(self.name)
            try:
                instance = await self._transact(instance, transaction)
            except FencedError:
                self.transactions.ended(transaction, Outcome.ABORTED)
                instance = None
        await asyncio.gather(*self._zombies)

    async def _transact(self, instance: Instance, transaction: Transaction) -> Instance | None:
        """One transaction; who goes on, None where a new instance has to begin. FencedError."""
        try:
            for number in range(self.rng.choice((0, 1, 1, 2, 3))):
                if number and self.rng.random() < 0.05:
                    # It stands still, for about as long as the transaction may take.
                    await asyncio.sleep(self.rng.uniform(0.8, 1.6) * TIMEOUT_MS / 1000)
                await self._write(instance, transaction)
            fate = self.rng.random()
            if fate < 0.06:
                return None
            if fate < 0.14:
                where = self._partitions()[0]
                self._zombies.append(asyncio.create_task(self.come_back(instance, transaction, where)))
                return None
            if fate < 0.2 and transaction.written:
                # It is impatient, and aborts what may still be under way.
                await self._write(instance, transaction, patience_s=self.rng.choice((0.0, 0.002, 0.03)))
            elif fate < 0.75 and transaction.written:
                await self.end(instance, transaction, commit=True)
                return instance
        except AbortableError:
            pass
        await self.end(instance, transaction, commit=False)
        return instance

    async def _write(
        self, instance: Instance, transaction: Transaction, patience_s: float | None = None
    ) -> None:
        """Batches to one or two partitions, at the same time. FencedError, AbortableError."""
        tasks = []
        for where in self._partitions():
            values = []
            for _ in range(self.rng.choice((1, 1, 2, 4))):
                self._number += 1
                values.append(b"%s|%d" % (transaction.tag, self._number))
            tasks.append(asyncio.create_task(self.produce(instance, transaction, where, values)))
        await asyncio.wait(tasks, timeout=patience_s)
        if not all(task.done() for task in tasks):
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            raise AbortableError
        errors = [error for task in tasks if (error := task.exception()) is not None]
        # One that is fenced has ended, whatever else it was told.
        for error in sorted(errors, key=lambda error: isinstance(error, AbortableError)):
            raise error

    def _partitions(self) -> list[TopicPartition]:
        count = self.partition_counts[self._topic]
        some = self.rng.sample(range(count), self.rng.randint(1, count))
        return [TopicPartition(self._topic, index) for index in some]
