"""What the tests of a node's logs share: a clock that is moved by hand, and a manager on a disk in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any
from uuid import UUID

from log_support import NOW_MS
from memory_disk import MemoryDisk

from ottla.config import BrokerConfig
from ottla.log.manager import LogManager
from ottla.types import TopicPartition

TOPIC = UUID(int=1)
WHERE = TopicPartition("topic", 0)


class FakeTimer:
    def __init__(self, at_ms: float, callback: Callable[[], object]) -> None:
        self.at_ms, self.callback, self.cancelled = at_ms, callback, False

    def cancel(self) -> None:
        self.cancelled = True


class FakeClock:
    def __init__(self) -> None:
        self.time_ms = NOW_MS
        self.timers: list[FakeTimer] = []

    def now_ms(self) -> int:
        return self.time_ms

    def monotonic_ms(self) -> int:
        return self.time_ms

    def call_later(self, delay_ms: float, callback: Callable[[], object]) -> FakeTimer:
        timer = FakeTimer(self.time_ms + delay_ms, callback)
        self.timers.append(timer)
        return timer

    async def advance(self, delay_ms: int) -> None:
        """Let time pass, and all that it sets off come to rest."""
        end = self.time_ms + delay_ms
        while due := [t for t in self.timers if not t.cancelled and t.at_ms <= end]:
            timer = min(due, key=lambda t: t.at_ms)
            self.timers.remove(timer)
            self.time_ms = max(self.time_ms, int(timer.at_ms))
            timer.callback()
            await settled()
        self.time_ms = end


async def settled() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


def manager(disk: MemoryDisk, clock: FakeClock, node_id: int = 1, **properties: str) -> LogManager:
    config = BrokerConfig({name.replace("_", "."): value for name, value in properties.items()})
    return LogManager(disk, "data", config, clock, node_id=node_id)


def scenario(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[[], None]:
    """A test with a disk in memory and a clock that it moves by hand."""

    def run() -> None:
        asyncio.run(test(MemoryDisk(), FakeClock()))

    run.__name__ = test.__name__
    run.__doc__ = test.__doc__
    return run
