"""Looks, now and then, whether followers keep up and whether all logs can still be written."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from functools import partial as bind
from typing import Protocol

from ottla.env.clock import Clock, Timer
from ottla.replication.attempts import attempt
from ottla.replication.partition import Partition

# Partitions that are looked at in one turn: a few microseconds each.
LOOKED_AT_ONCE = 500


class Holder(Protocol):
    """Who holds the partitions. ``disk_failed`` is told, once, of a log that can take nothing more."""

    lag_ms_max: int
    disk_failed: Callable[[str], None] | None

    @property
    def partitions(self) -> Mapping[tuple[str, int], Partition]: ...


class Laggards:
    """Every half of replica.lag.time.max.ms, so that a follower is out after one and a half at most."""

    def __init__(self, holder: Holder, clock: Clock, besides: Callable[[], None]) -> None:
        """``besides``: what else is to be done each time."""
        self._holder = holder
        self._besides = besides
        self._clock = clock
        self._timer: Timer | None = None
        # The next of this look, which goes on in the next turn.
        self._going_on: Timer | None = None
        self._left: deque[Partition] = deque()
        # When they were last looked for, and whether the last look came so late that nobody was judged.
        self._looked_ms = clock.monotonic_ms()
        self._late = False

    def look(self) -> None:
        """Take out of ISRs who does not keep up; say which disk fails."""
        every_ms = max(self._holder.lag_ms_max / 2, 1)
        # First of all: whatever comes of this look, there is a next one.
        self._timer = self._clock.call_later(every_ms, self.look)
        now_ms = self._clock.monotonic_ms()
        late, self._looked_ms = now_ms - self._looked_ms > 1.5 * every_ms, now_ms
        # Where this node stood still, what its followers have asked meanwhile is yet to be read. They are
        # judged by the next look, however late that comes.
        self._late = late and not self._late
        goes_on = bool(self._left)
        self._left = deque(self._holder.partitions.values())
        if not goes_on:
            self._some()
        self._besides()

    def close(self) -> None:
        for timer in (self._timer, self._going_on):
            if timer is not None:
                timer.cancel()

    def _some(self) -> None:
        for _ in range(min(LOOKED_AT_ONCE, len(self._left))):
            partition = self._left.popleft()
            what = "%s: whether its followers keep up cannot be told"
            attempt(bind(self._one, partition), what, partition.topic_partition)
        if self._left:
            self._going_on = self._clock.call_later(0, self._some)

    def _one(self, partition: Partition) -> None:
        if partition.log.failed is not None and self._holder.disk_failed is not None:
            disk_failed, self._holder.disk_failed = self._holder.disk_failed, None
            disk_failed(f"{partition.topic_partition}: {partition.log.failed.strerror}")
        partition.look_again()
        if not self._late:
            partition.shrink()
