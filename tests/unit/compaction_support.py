"""What the tests of compaction share: a cleaner over one log, without a broker around it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from memory_disk import MemoryDisk

from ottla.config import BrokerConfig
from ottla.env.slices import Slices
from ottla.log.cleaner import Cleaner, Dirty, look_at
from ottla.log.log import Log
from ottla.types import Record, TopicPartition
from ottla.wire.records import BatchHeader, iter_batches, iter_records

WHERE = TopicPartition("topic", 0)


class StillClock:
    """A clock that stands still until it is moved; timers wait for ``fire``."""

    def __init__(self, now_ms: int) -> None:
        self.ms = now_ms
        self.timers: list[tuple[float, Callable[[], object]]] = []

    def now_ms(self) -> int:
        return self.ms

    def monotonic_ms(self) -> int:
        return self.ms

    def call_later(self, delay_ms: float, callback: Callable[[], object]) -> StillTimer:
        self.timers.append((delay_ms, callback))
        return StillTimer(self, callback)

    def fire(self) -> None:
        due, self.timers = self.timers, []
        for _, callback in due:
            callback()


class StillTimer:
    def __init__(self, clock: StillClock, callback: Callable[[], object]) -> None:
        self.clock, self.callback = clock, callback

    def cancel(self) -> None:
        self.clock.timers = [timer for timer in self.clock.timers if timer[1] is not self.callback]


class Bench:
    """A cleaner that compacts one log when it is told to."""

    def __init__(
        self, disk: MemoryDisk, log: Log, now_ms: int, settings: Mapping[str, str] | None = None
    ) -> None:
        self.clock = StillClock(now_ms)
        self.log = log
        self.checkpoints: list[int] = []
        self.tasks: list[Coroutine[Any, Any, None]] = []
        self.cleaner = Cleaner(
            disk,
            self.clock,
            BrokerConfig({"log.dirs": "data", **(settings or {})}),
            {WHERE: log},
            spawn=self.tasks.append,
            checkpoint=self._checkpoint,
            high_watermarks=dict,
            slices=Slices(),
        )

    async def _checkpoint(self) -> None:
        self.checkpoints.append(self.log.cleaned_offset)

    def dirty(self) -> Dirty | None:
        """What the log's configuration makes worth compacting now."""
        return look_at(WHERE, self.log, self.log.log_end_offset, self.clock.ms)[0]

    def compact(self) -> None:
        """One round over all closed segments, however dirty."""
        end_offset = self.log.segments[-1].base_offset
        start_offset = max(self.log.cleaned_offset, self.log.log_start_offset)
        if end_offset > start_offset:
            asyncio.run(self.cleaner.clean(Dirty(1.0, WHERE, self.log, start_offset, end_offset)))

    def compact_to(self, end_offset: int) -> None:
        """One round over the closed segments before an offset, however dirty."""
        start_offset = max(self.log.cleaned_offset, self.log.log_start_offset)
        asyncio.run(self.cleaner.clean(Dirty(1.0, WHERE, self.log, start_offset, end_offset)))

    def run(self) -> None:
        """Let pass what the cleaner waits for, and all that it then does."""
        self.clock.fire()
        tasks = list(self.tasks)
        self.tasks.clear()
        for task in tasks:
            asyncio.run(task)


def stored(log: Log) -> list[tuple[BatchHeader, list[Record]]]:
    """Every batch of the log with its records, from the files as they are."""
    return [
        (header, list(iter_records(raw)))
        for segment in log.segments
        for header, raw in iter_batches(segment.file.read(0, segment.size))
    ]
