"""What ends a run that does not come to its end, as a program that awaits nothing: limits in real terms.

A signal tells where the program stood. Where Python cannot take one, in a function in C that does not
return, the kernel ends the process a little later.
"""

from __future__ import annotations

import faulthandler
import resource
import signal
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

from ottla.explore.world.loop import VirtualLoop

# A run may take so much more memory than there was before it.
MEMORY_MAX_BYTES = 4 * 1024**3
# So long after the limit on CPU the kernel ends the process.
GRACE_S = 2
# A run that does nothing and takes no CPU for so many looks stands still: it waits for something real.
LOOK_S = 5.0
LOOKS_MAX = 6
BUSY_S = 0.02
# Only Linux says here how much memory a process has; elsewhere (macOS) it has no limit.
STATM = Path("/proc/self/statm")

Ended = Callable[[str, FrameType | None], None]


def cpu_s() -> float:
    """What this process has taken of the CPU."""
    # Not `time.process_time`, which tells virtual time in a run.
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _memory_bytes() -> int:
    return int(STATM.read_bytes().split()[0]) * resource.getpagesize()


def _lower(limit: int, soft: int, hard: int) -> None:
    """A limit that is no higher than that which holds."""
    present = resource.getrlimit(limit)[1]
    if present != resource.RLIM_INFINITY:
        soft, hard = min(soft, present), min(hard, present)
    resource.setrlimit(limit, (soft, hard))


def begin(loop: VirtualLoop, cpu_max_s: float, ended: Ended) -> None:
    """This process has limits from now on. ``ended`` is told why, and where it stood; it does not return."""
    still, seen = 0, (loop.steps, cpu_s())

    def out_of_cpu(_number: int, frame: FrameType | None) -> None:
        ended(f"the run has taken {cpu_max_s:g} s of CPU", frame)

    def look(_number: int, frame: FrameType | None) -> None:
        nonlocal still, seen
        before, seen = seen, (loop.steps, cpu_s())
        still = still + 1 if seen[0] == before[0] and seen[1] < before[1] + BUSY_S else 0
        if still >= LOOKS_MAX:
            ended(f"nothing has gone on for {LOOK_S * LOOKS_MAX:.0f} s of real time", frame)

    handlers: list[tuple[int, int, float, Any]] = [
        (signal.SIGPROF, signal.ITIMER_PROF, cpu_max_s, out_of_cpu),
        (signal.SIGALRM, signal.ITIMER_REAL, LOOK_S, look),
    ]
    for number, timer, interval_s, handler in handlers:
        signal.signal(number, handler)
        signal.setitimer(timer, interval_s, interval_s)
    faulthandler.register(signal.SIGXCPU, chain=True)
    end_s = int(cpu_s() + cpu_max_s) + GRACE_S
    _lower(resource.RLIMIT_CPU, end_s, end_s + GRACE_S)
    if STATM.exists():
        most_bytes = _memory_bytes() + MEMORY_MAX_BYTES
        _lower(resource.RLIMIT_AS, most_bytes, most_bytes)
