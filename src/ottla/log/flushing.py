"""Flushes by age: what a topic's flush.ms (or log.flush.interval.ms) asks for."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterable, Iterator, Mapping
from typing import Any, Protocol

from ottla.env.clock import Clock, Timer
from ottla.env.disk import DISK_THREADS_MAX
from ottla.env.slices import Slices
from ottla.log.settings import LONG_MAX, LogConfig

# Logs that are looked at in one turn of the event loop: a microsecond or two each.
LOOKED_AT_ONCE = 1000
# Logs that are flushed at a time: one thread is left for others.
FLUSHED_AT_ONCE = DISK_THREADS_MAX - 1
# A look comes after this at the latest: the wall clock, by which age is told, may be set.
LOOK_MS_MAX = 1000


class Flushable(Protocol):
    """A log, as far as it is to be flushed."""

    config: LogConfig

    @property
    def deleted(self) -> bool: ...

    @property
    def recovery_point(self) -> int: ...

    @property
    def unflushed_messages(self) -> int: ...

    def sync_due(self, now_ms: int) -> bool: ...

    def flush(self) -> None: ...


class AgedFlushes:
    """Looks after logs that have something unflushed and flush.ms. Where there are none, no timer runs."""

    def __init__(
        self,
        clock: Clock,
        spawn: Callable[[Coroutine[Any, Any, None]], object],
        run: Callable[[Callable[[], None]], Awaitable[object]],
        slices: Slices,
    ) -> None:
        """``run``: does blocking work in a thread, and raises nothing."""
        self._slices = slices
        self._clock = clock
        self._spawn = spawn
        self._run = run
        self._unflushed: dict[Flushable, None] = {}
        self._timer: Timer | None = None
        self._at_ms = 0
        self._looking = False
        self._closed = False

    def add(self, log: Flushable) -> None:
        """Something has come into a log that was on the disk as a whole, or its flush.ms has changed."""
        self._unflushed[log] = None
        self._arm(log.config.flush_ms)

    def close(self) -> None:
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()

    def _arm(self, delay_ms: int) -> None:
        """Look after so long, if that is not done before; one look at a time."""
        if self._looking or self._closed:
            return
        delay_ms = max(1, min(delay_ms, LOOK_MS_MAX))
        at_ms = self._clock.monotonic_ms() + delay_ms
        if self._timer is not None:
            if self._at_ms <= at_ms:
                return
            self._timer.cancel()
        self._at_ms = at_ms
        self._timer = self._clock.call_later(delay_ms, lambda: self._spawn(self._look()))

    async def _look(self) -> None:
        self._timer = None
        self._looking = True
        again_ms = LOOK_MS_MAX
        try:
            due = await self._slices.run(self._due(self._clock.now_ms()))
            await self._flush(due)
            again_ms = await self._slices.run(self._again_ms(due))
        finally:
            self._looking = False
            if self._unflushed:
                self._arm(again_ms)

    def _due(self, now_ms: int) -> Generator[None, None, dict[Flushable, int]]:
        """Those that are to be flushed, and up to where they have been."""
        due: dict[Flushable, int] = {}
        for log in self._in_pieces():
            if log is None:
                yield
            elif log.sync_due(now_ms):
                due[log] = log.recovery_point
        return due

    async def _flush(self, due: Iterable[Flushable]) -> None:
        waiting = iter(due)

        async def one_by_one() -> None:
            for log in waiting:
                await self._run(log.flush)

        await asyncio.gather(*(one_by_one() for _ in range(FLUSHED_AT_ONCE)))

    def _again_ms(self, due: Mapping[Flushable, int]) -> Generator[None, None, int]:
        """In how long to look again."""
        again_ms = LOOK_MS_MAX
        for log in self._in_pieces():
            if log is None:
                yield
            # One that could not be flushed, which has been said, has time.
            elif log.recovery_point != due.get(log):
                again_ms = min(again_ms, log.config.flush_ms)
        return again_ms

    def _in_pieces(self) -> Iterator[Flushable | None]:
        """The logs that there is something to flush of, now and then None. Others are forgotten."""
        for count, log in enumerate(list(self._unflushed), 1):
            if log.unflushed_messages and log.config.flush_ms < LONG_MAX and not log.deleted:
                yield log
            else:
                self._unflushed.pop(log, None)
            if not count % LOOKED_AT_ONCE:
                yield None
