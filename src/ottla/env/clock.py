"""Time, as the rest of the broker sees it. Only this module reads the system's clocks."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Protocol


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
        return time.time_ns() // 1_000_000

    def monotonic_ms(self) -> int:
        return time.monotonic_ns() // 1_000_000

    def call_later(self, delay_ms: float, callback: Callable[[], object]) -> Timer:
        return asyncio.get_running_loop().call_later(delay_ms / 1000, callback)
