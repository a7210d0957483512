"""Time, as the rest of the broker sees it. Only this module reads the system's clocks."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from typing import Final, Protocol

# Found faster than a module's attributes, at each request.
_time_ns: Final = time.time_ns
_monotonic_ns: Final = time.monotonic_ns
# For who measures what takes microseconds, and has nothing to do with what is decided.
monotonic_ns: Final = time.monotonic_ns


class Timer(Protocol):
    """A callback that was scheduled; cancelling it twice, or after it ran, is harmless."""

    def cancel(self) -> None: ...


class Clock(Protocol):
    """Wall time for record timestamps and retention; monotonic time and timers for waiting."""

    def now_ms(self) -> int:
        """Milliseconds since the Unix epoch; may jump when the machine's clock is set."""
        ...

    def monotonic_ms(self) -> int:
        """Milliseconds that only ever move forward; for deadlines."""
        ...

    def call_later(self, delay_ms: float, callback: Callable[[], object]) -> Timer:
        """Run ``callback`` once on the event loop after ``delay_ms``."""
        ...


class SystemClock:
    """The machine's clocks and the running event loop's timers."""

    def now_ms(self) -> int:
        return _time_ns() // 1_000_000

    def monotonic_ms(self) -> int:
        return _monotonic_ns() // 1_000_000

    def call_later(self, delay_ms: float, callback: Callable[[], object]) -> Timer:
        return asyncio.get_running_loop().call_later(delay_ms / 1000, callback)


def thread_cpu_ms() -> float:
    """What the thread that calls it has computed so far."""
    return time.thread_time_ns() / 1_000_000


def until_whole(now_ms: int, every_ms: int) -> int:
    """How long it is until the next whole multiple of ``every_ms``: what recurs and is in no hurry comes in
    one turn of the loop then, for whose sake an idle process wakes once."""
    return every_ms - now_ms % every_ms


class ThreadDelays:
    """For how long the thread that made it could run, and did not: other programs had the processors. ``ms``
    is 0 where the system does not tell (Linux does). One for a process; it is never closed."""

    def __init__(self) -> None:
        try:
            self._file = os.open("/proc/thread-self/schedstat", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            self._file = -1

    def ms(self) -> float:
        try:
            # Time on a processor, time in want of one, both in nanoseconds, and how often it had one.
            return int(os.pread(self._file, 64, 0).split()[1]) / 1_000_000 if self._file >= 0 else 0.0
        except (OSError, IndexError, ValueError):
            return 0.0
