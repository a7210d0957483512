"""Deadlines of requests, which are mostly cancelled before they come: many of them share one timer.

A timer of the event loop costs several microseconds to set and to cancel, more than the rest of what a small
request that waits costs. Here it is a dictionary's entry; the price is that a deadline may come ``TICK_MS``
late.
"""

from __future__ import annotations

import heapq
import logging
from collections import deque
from collections.abc import Callable

from ottla.env.clock import Clock, Timer

log = logging.getLogger(__name__)

TICK_MS = 5
# So many callbacks run in one turn of the event loop, since each of them may have an answer written.
RUN_AT_ONCE_MAX = 256


class Deadline:
    """A callback that was scheduled; cancelling it twice, or after it ran, is harmless. It does not hold the
    callback any longer than that: whose it is usually holds the deadline."""

    __slots__ = ("_callback", "_tick")

    def __init__(self, tick: dict[Deadline, None], callback: Callable[[], object]) -> None:
        self._tick = tick
        self._callback: Callable[[], object] | None = callback

    def cancel(self) -> None:
        self._tick.pop(self, None)
        self._callback = None

    def run(self) -> None:
        callback, self._callback = self._callback, None
        if callback is not None:
            callback()


class Deadlines:
    """Callbacks by the tick in which they are due; within it they run in the order of their coming."""

    __slots__ = ("_clock", "_due", "_overdue", "_ticks", "_timer", "_timer_tick")

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        # What is due in each tick, and the ticks there are, the next one first.
        self._ticks: dict[int, dict[Deadline, None]] = {}
        self._due: list[int] = []
        # Ticks whose time has come, and of which not all have had their turn.
        self._overdue: deque[dict[Deadline, None]] = deque()
        self._timer: Timer | None = None
        self._timer_tick = 0

    def add(self, delay_ms: float, callback: Callable[[], object]) -> Deadline:
        """Run ``callback`` once, ``delay_ms`` from now or up to a tick later."""
        number = int(self._clock.monotonic_ms() + delay_ms) // TICK_MS + 1
        tick = self._ticks.get(number)
        if tick is None:
            tick = self._ticks[number] = {}
            heapq.heappush(self._due, number)
            if self._timer is None or number < self._timer_tick:
                self._arm()
        deadline = Deadline(tick, callback)
        tick[deadline] = None
        return deadline

    def close(self) -> None:
        """Run nothing more."""
        if self._timer is not None:
            self._timer.cancel()
        self._ticks.clear()
        self._due.clear()
        self._overdue.clear()

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._due:
            self._timer_tick = self._due[0]
            delay_ms = self._timer_tick * TICK_MS - self._clock.monotonic_ms()
            self._timer = self._clock.call_later(max(delay_ms, 0), self._run)

    def _run(self) -> None:
        self._timer = None
        now_ms = self._clock.monotonic_ms()
        while self._due and self._due[0] * TICK_MS <= now_ms:
            self._overdue.append(self._ticks.pop(heapq.heappop(self._due)))
        # Ticks in which all was cancelled need no timer.
        while self._due and not self._ticks[self._due[0]]:
            del self._ticks[heapq.heappop(self._due)]
        self._arm()
        self._run_some()

    def _run_some(self) -> None:
        left = RUN_AT_ONCE_MAX
        while self._overdue:
            tick = self._overdue[0]
            while tick:
                if not left:
                    self._clock.call_later(0, self._run_some)
                    return
                left -= 1
                deadline = next(iter(tick))
                del tick[deadline]
                try:
                    deadline.run()
                except Exception:
                    # It belongs to one request; those of others must not be left waiting.
                    log.exception("what was due failed")
            if self._overdue:
                self._overdue.popleft()
