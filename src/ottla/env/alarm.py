"""What the main thread does when it does not come back in time: looked up by a signal, SIGALRM.

It costs one system call to set, and nothing while all is well.
"""

from __future__ import annotations

import signal
from types import FrameType

# Calls that are named, from the innermost on.
CALLS_MAX = 8


class Alarm:
    """``start`` in the main thread, then ``set`` as often as you like; ``stop`` it in the end."""

    __slots__ = ("where",)

    def __init__(self) -> None:
        # What was under way when it rang, innermost first; empty if it has not since it was set.
        self.where = ""

    def start(self) -> None:
        signal.signal(signal.SIGALRM, self._ring)

    def set(self, within_ms: float) -> None:
        """Look in so many milliseconds, unless it is set again before that."""
        self.where = ""
        signal.setitimer(signal.ITIMER_REAL, within_ms / 1000)

    def stop(self) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, signal.SIG_IGN)

    def _ring(self, signum: int, frame: FrameType | None) -> None:
        calls: list[str] = []
        while frame is not None and len(calls) < CALLS_MAX:
            calls.append(f"{frame.f_globals.get('__name__')}.{frame.f_code.co_qualname}")
            frame = frame.f_back
        self.where = " < ".join(calls)
