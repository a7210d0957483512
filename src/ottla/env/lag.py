"""How late the event loop comes to what is due: what anybody who asks the broker for something waits first.

A timer beats, often while the thread has something to do and seldom otherwise, and each time it is noted how
late it was. So the histogram is a sample of what a request that comes at any time finds. It costs requests
nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from ottla.env.alarm import Alarm
from ottla.env.clock import Clock, Timer, until_whole
from ottla.env.garbage import ShortCollections
from ottla.metrics import Histogram

log = logging.getLogger(__name__)

# (At whole multiples then: what else recurs comes in the same turn.)
BUSY_BEAT_MS, IDLE_BEAT_MS = 20, 1_000
# A thread that computed for so much of the time is busy.
BUSY_SHARE = 0.02
# When the loop stood still for longer, the log says so. There is no request that may take as long.
STILL_MS_MAX = 100
# It is the machine that was late where the thread could have run for so much of that time, and other programs
# had the processors. Of that there is a line at most every so often.
DELAYED_SHARE = 0.5
DELAYED_SAID_MS_MIN = 600_000
# The clock counts whole milliseconds, and so does the loop's timer: below two there is nothing to be seen.
BOUNDS_MS = (2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000)


class LoopLag:
    """``start`` it on the loop; ``close`` it in the end. ``late`` has what was found."""

    __slots__ = (
        "_alarm",
        "_clock",
        "_collected_ms",
        "_collections",
        "_cpu_ms",
        "_delayed",
        "_delayed_ms",
        "_delayed_said_ms",
        "_due_ms",
        "_set_ms",
        "_thread_cpu_ms",
        "_thread_delay_ms",
        "_timer",
        "late",
    )

    def __init__(
        self,
        clock: Clock,
        thread_cpu_ms: Callable[[], float],
        *,
        thread_delay_ms: Callable[[], float] = lambda: 0.0,
        collections: ShortCollections | None = None,
        alarm: Alarm | None = None,
    ) -> None:
        """What the thread has computed so far, and how long it waited for a processor. ``collections`` and
        ``alarm``, if there are any, say more of why it was late."""
        self.late = Histogram(BOUNDS_MS)
        # When the machine was late, since that was last said, and when it was.
        self._delayed = Histogram(BOUNDS_MS)
        self._delayed_said_ms: int | None = None
        self._clock = clock
        self._thread_cpu_ms, self._thread_delay_ms = thread_cpu_ms, thread_delay_ms
        self._collections = collections
        self._alarm = alarm
        # As it was when the timer was set.
        self._set_ms = self._due_ms = 0
        self._cpu_ms = self._delayed_ms = self._collected_ms = 0.0
        self._timer: Timer | None = None

    @property
    def delayed_ms(self) -> float:
        """How long the thread that asks has waited for a processor so far."""
        return self._thread_delay_ms()

    @property
    def collections(self) -> ShortCollections | None:
        return self._collections

    def start(self) -> None:
        self._cpu_ms, self._delayed_ms = self._thread_cpu_ms(), self._thread_delay_ms()
        self._arm(IDLE_BEAT_MS)

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def __str__(self) -> str:
        return f"the event loop was late: {self.late}" + (
            f". Garbage was collected: {self._collections.pauses}" if self._collections is not None else ""
        )

    def _beat(self) -> None:
        now_ms = self._clock.monotonic_ms()
        cpu_ms, delayed_ms = self._thread_cpu_ms(), self._thread_delay_ms()
        used_ms, waited_ms = cpu_ms - self._cpu_ms, delayed_ms - self._delayed_ms
        self._cpu_ms, self._delayed_ms = cpu_ms, delayed_ms
        late_ms = max(now_ms - self._due_ms, 0)
        self.late.add(late_ms)
        if late_ms > STILL_MS_MAX:
            if waited_ms >= late_ms * DELAYED_SHARE:
                self._delayed.add(late_ms)
                self._tell_of_the_machine(now_ms)
            else:
                self._tell(late_ms, used_ms, waited_ms)
        self._arm(BUSY_BEAT_MS if used_ms >= (now_ms - self._set_ms) * BUSY_SHARE else IDLE_BEAT_MS)

    def _arm(self, beat_ms: int) -> None:
        self._set_ms = self._clock.monotonic_ms()
        if beat_ms == IDLE_BEAT_MS:
            beat_ms = until_whole(self._set_ms, beat_ms)
        self._due_ms = self._set_ms + beat_ms
        self._timer = self._clock.call_later(beat_ms, self._beat)
        if self._collections is not None:
            self._collected_ms = self._collections.pauses.sum_ms
        if self._alarm is not None:
            self._alarm.set(beat_ms + STILL_MS_MAX)

    def _tell(self, late_ms: int, used_ms: float, waited_ms: float) -> None:
        """Whoever has waited, or looks for what they waited for, finds it in the log."""
        parts = [f"{used_ms:.0f} ms of CPU time since the last beat"]
        if self._collections is not None:
            collected_ms = self._collections.pauses.sum_ms - self._collected_ms
            parts.append(f"{collected_ms:.0f} ms of it for garbage")
        if waited_ms >= 1:
            parts.append(f"{waited_ms:.0f} ms without a processor")
        where = self._alarm.where if self._alarm is not None else ""
        log.info(
            "the event loop stood still for %d ms (%s)%s",
            late_ms,
            ", ".join(parts),
            f", after {STILL_MS_MAX} in {where}" if where else "",
        )

    def _tell_of_the_machine(self, now_ms: int) -> None:
        """That others had the processors is nobody's fault here: it is said once, and then seldom."""
        said_ms = self._delayed_said_ms
        if said_ms is not None and now_ms - said_ms < DELAYED_SAID_MS_MIN:
            return
        log.info(
            "other programs used the processors of this machine: the event loop waited %d ms%s",
            self._delayed.max_ms,
            ""
            if said_ms is None
            else f", the longest of {self._delayed.count} waits in {(now_ms - said_ms) // 60_000} minutes",
        )
        self._delayed_said_ms, self._delayed = now_ms, Histogram(BOUNDS_MS)
