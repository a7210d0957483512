"""Notices that the event loop stood still: in the loop's own next step, before anything else is done in it.

A timer beats while the loop turns. Whoever does something that must not be done late asks ``check`` first,
which costs a look at the clock: much may be handled before the next timer is.
"""

from __future__ import annotations

from collections.abc import Callable

from ottla.env.clock import Clock, Timer, until_whole

# Beats in the time that the loop may stand still, at least; and what they come at whole multiples of, where
# that is long enough.
BEATS_MIN, WHOLE_MS = 3, 1_000


class Pulse:
    """``start`` it, ``check`` as often as you like; ``close`` it in the end."""

    __slots__ = ("_beat_ms", "_clock", "_late_ms", "_still_ms_max", "_stood_still", "_timer")

    def __init__(self, clock: Clock, still_ms_max: int, stood_still: Callable[[], None]) -> None:
        """``stood_still`` is called when the loop turns again after ``still_ms_max``, or after up to a beat
        less, since it may have stood still from just after the last beat on."""
        self._beat_ms = max(still_ms_max // BEATS_MIN, 1)
        if self._beat_ms >= WHOLE_MS:
            self._beat_ms -= self._beat_ms % WHOLE_MS
        self._clock = clock
        self._still_ms_max = still_ms_max
        self._stood_still = stood_still
        # When the last beat is so long ago that the loop stood still; nothing is late before ``start``.
        self._late_ms = 1 << 62
        self._timer: Timer | None = None

    def start(self) -> None:
        self._arm()

    def check(self) -> None:
        """Tell, if the loop stood still until now and nobody has been told yet."""
        if self._clock.monotonic_ms() >= self._late_ms:
            self._late_ms = 1 << 62
            self._stood_still()

    def close(self) -> None:
        self._late_ms = 1 << 62
        if self._timer is not None:
            self._timer.cancel()

    def _arm(self) -> None:
        now_ms = self._clock.monotonic_ms()
        self._late_ms = now_ms + self._still_ms_max
        self._timer = self._clock.call_later(until_whole(now_ms, self._beat_ms), self._beat)

    def _beat(self) -> None:
        try:
            self.check()
        finally:
            self._arm()
