"""Whether whoever writes large pieces is kept waiting: then threads had better do it.

Found out from the writes themselves. Memory that is at hand takes a megabyte in 0.1 to 0.3 ms, and to hand it
to a thread gains nothing. Memory that the kernel has to get takes two, which another processor can spend; and
where more comes than the disk takes, the kernel stops who writes for as long as it likes. See
docs/decisions/0015-writes.md.
"""

from __future__ import annotations

import resource
import time
from typing import NamedTuple

# Smaller writes are not timed.
TIMED_BYTES = 64 * 1024
# What threads do where writes take much of a processor. To take the interpreter in turns costs 0.1 ms.
LARGE_BYTES = 512 * 1024
NEVER_BYTES = 1 << 62
# What a megabyte may take of a processor, on average over some writes.
CPU_MS_PER_MIB_MAX = 1.0
WEIGHT = 0.1
# Who gave the processor up and got it back after so long was stopped: to wait for the interpreter takes less.
STOPPED_MS = 3.0
# So many writes in a row that were not stopped, and it is over: between two stops others go through.
QUIET_WRITES = 100

_MIB = 1024 * 1024
# Linux alone counts what one thread takes.
_THREAD: int | None = getattr(resource, "RUSAGE_THREAD", None)


class Mark(NamedTuple):
    """A thread's clocks as it begins to write."""

    wall_s: float
    cpu_s: float
    gave_up: int


class Held:
    """What the writes to one disk have been through lately. From any thread."""

    __slots__ = ("_cpu_ms_per_mib", "_quiet", "aside_bytes")

    def __init__(self) -> None:
        # Writes of this size or more are for threads.
        self.aside_bytes = NEVER_BYTES
        self._cpu_ms_per_mib = 0.0
        # Writes since one was stopped.
        self._quiet = QUIET_WRITES

    @staticmethod
    def begin() -> Mark:
        """To be given to ``wrote``, in the same thread."""
        if _THREAD is None:
            # Whoever waited may have given the processor up, for all that the system tells.
            now_s = time.monotonic()
            return Mark(now_s, time.thread_time(), int(now_s * 1_000_000_000))
        used = resource.getrusage(_THREAD)
        return Mark(time.monotonic(), used.ru_utime + used.ru_stime, used.ru_nvcsw)

    def wrote(self, size: int, before: Mark) -> None:
        """``size`` bytes have been written, TIMED_BYTES or more."""
        after = self.begin()
        cpu_ms = (after.cpu_s - before.cpu_s) * 1000
        waited_ms = (after.wall_s - before.wall_s) * 1000 - cpu_ms
        self.note(size, cpu_ms, waited_ms if after.gave_up > before.gave_up else 0.0)

    def note(self, size: int, cpu_ms: float, stopped_ms: float) -> None:
        """A write took so much of a processor, and gave it up for so long."""
        self._cpu_ms_per_mib += WEIGHT * (cpu_ms * _MIB / size - self._cpu_ms_per_mib)
        self._quiet = 0 if stopped_ms >= STOPPED_MS else self._quiet + 1
        if self._quiet < QUIET_WRITES:
            self.aside_bytes = TIMED_BYTES
        elif self._cpu_ms_per_mib > CPU_MS_PER_MIB_MAX:
            self.aside_bytes = LARGE_BYTES
        else:
            self.aside_bytes = NEVER_BYTES
