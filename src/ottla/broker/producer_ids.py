"""Hands out producer ids from blocks that the metadata store reserves for this node (KIP-730)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable


class ProducerIds:
    """One id at a time, never the same twice in the cluster, whatever crashes."""

    def __init__(self, reserve: Callable[[], Awaitable[range]]) -> None:
        self._reserve = reserve
        # Those that are left of the block.
        self._first, self._end = 0, 0
        self._reserving = asyncio.Lock()

    @property
    def is_at_hand(self) -> bool:
        """Whether ``at_once`` gives an id."""
        return self._first < self._end and not self._reserving.locked()

    def at_once(self) -> int | None:
        """A fresh producer id of the block that there is; None where ``next`` has to be awaited for one."""
        return self._take() if self.is_at_hand else None

    def _take(self) -> int:
        producer_id, self._first = self._first, self._first + 1
        return producer_id

    async def next(self) -> int:
        """A fresh producer id. KafkaError where no block can be had now."""
        async with self._reserving:
            await self._fill()
            return self._take()

    async def reserve(self) -> None:
        """Have ids at hand. KafkaError where no block can be had now."""
        async with self._reserving:
            await self._fill()

    async def _fill(self) -> None:
        if self._first >= self._end:
            block = await self._reserve()
            self._first, self._end = block.start, block.stop
