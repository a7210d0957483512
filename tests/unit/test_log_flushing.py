"""Flushes by age of very many logs: looked for in pieces, and made a few at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from manager_support import FakeClock

from ottla.env.slices import Slices
from ottla.log.flushing import FLUSHED_AT_ONCE, LOOKED_AT_ONCE, AgedFlushes
from ottla.log.settings import LogConfig

MANY = 3 * LOOKED_AT_ONCE


class Aged:
    """A log that has something to be flushed, and counts how often that is asked."""

    asked = 0

    def __init__(self, *, fails: bool = False) -> None:
        self.config = LogConfig(flush_ms=500)
        self.deleted = False
        self.recovery_point = 0
        self.fails = fails

    @property
    def unflushed_messages(self) -> int:
        Aged.asked += 1
        return 1 - self.recovery_point

    def sync_due(self, now_ms: int) -> bool:
        return True

    def flush(self) -> None:
        if not self.fails:
            self.recovery_point = 1


class Bench:
    def __init__(self) -> None:
        self.clock = FakeClock()
        self.running = self.most_running = self.most_asked = 0
        self.tasks: list[asyncio.Task[None]] = []
        self.flushes = AgedFlushes(
            self.clock, lambda work: self.tasks.append(asyncio.ensure_future(work)), self.run, Slices()
        )

    async def run(self, work: Callable[[], None]) -> None:
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        await asyncio.sleep(0)
        work()
        self.running -= 1

    async def look(self) -> None:
        """Have the time come, and all be done that it sets off."""
        (timer,) = [timer for timer in self.clock.timers if not timer.cancelled]
        self.clock.timers.clear()
        timer.callback()
        while not self.tasks[-1].done():
            before = Aged.asked
            await asyncio.sleep(0)
            self.most_asked = max(self.most_asked, Aged.asked - before)


def test_very_many_logs_hold_nobody_up() -> None:
    async def body() -> None:
        bench = Bench()
        logs = [Aged() for _ in range(MANY)]
        for log in logs:
            bench.flushes.add(log)
        await bench.look()
        assert all(log.recovery_point for log in logs)
        assert bench.most_asked <= LOOKED_AT_ONCE
        assert bench.most_running == FLUSHED_AT_ONCE
        # Nobody looks any more, until something comes.
        assert not bench.clock.timers

    asyncio.run(body())


def test_what_comes_while_others_are_flushed_is_looked_at_again() -> None:
    async def body() -> None:
        bench = Bench()
        stays, late = Aged(fails=True), Aged()
        bench.flushes.add(stays)
        run = bench.run

        async def meanwhile(work: Callable[[], None]) -> None:
            bench.flushes.add(late)
            await run(work)

        bench.flushes._run = meanwhile
        await bench.look()
        assert (stays.recovery_point, late.recovery_point) == (0, 0)
        bench.flushes._run = run
        await bench.look()
        assert late.recovery_point == 1
        # One that could not be flushed is tried again, too.
        stays.fails = False
        await bench.look()
        assert stays.recovery_point == 1 and not bench.clock.timers

    asyncio.run(body())
