"""Hands out producer ids from blocks that the metadata store reserves for this node (KIP-730)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable


class ProducerIds:
    """One id at a time, never the same twice in the cluster, whatever crashes."""

    def __init__(self, reserve: Callable[[], Awaitable[range]]) -> None:
        self._reserve = reserve
        self._free = iter(range(0))
        self._reserving = asyncio.Lock()

    def at_once(self) -> int | None:
        """A fresh producer id of the block that there is; None where ``next`` has to be awaited for one."""
        return None if self._reserving.locked() else next(self._free, None)

    async def next(self) -> int:
        """A fresh producer id. KafkaError where no block can be had now."""
        async with self._reserving:
            for producer_id in self._free:
                return producer_id
            self._free = iter(await self._reserve())
            return next(self._free)
