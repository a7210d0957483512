"""What ends a run that does not come to its end, as a program that awaits nothing: limits in real terms.

A signal tells where the program stood. Where Python cannot take one, in a function in C that does not
return, the kernel ends the process a little later.
"""

from __future__ import annotations

import faulthandler
import os
import resource
import signal
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

from ottla.explore.world.loop import VirtualLoop

# A run may take so much more memory than there was before it.
MEMORY_MAX_BYTES = 4 * 1024**3
# So long after the limit on CPU the kernel ends the process, and so long a run that has ended may be told of.
GRACE_S = 2
TELL_S = 60
# A run that does nothing and takes no CPU for so many looks stands still: it waits for something real. A look
# may move what the run has in memory, so few runs take so long that there is one.
LOOK_S = 15.0
LOOKS_MAX = 2
BUSY_S = 0.02
# Only Linux says here how much memory a process has; elsewhere (macOS) it has no limit.
STATM = Path("/proc/self/statm")
STATM_BYTES = 12

Ended = Callable[[str, FrameType | None], None]


def cpu_s() -> float:
    """What this process has taken of the CPU."""
    # Not `time.process_time`, which tells virtual time in a run.
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _memory_bytes() -> int:
    fd = os.open(STATM, os.O_RDONLY)
    try:
        # The first number, by always as many bytes: the length of the line would move what a run allocates.
        return int(os.read(fd, STATM_BYTES).split()[0]) * resource.getpagesize()
    finally:
        os.close(fd)


def _limit(kind: int, soft: int) -> None:
    """A limit that is no higher than that which holds, and which `lift` can lift."""
    hard = resource.getrlimit(kind)[1]
    resource.setrlimit(kind, (soft if hard == resource.RLIM_INFINITY else min(soft, hard), hard))


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
    _limit(resource.RLIMIT_CPU, int(cpu_s() + cpu_max_s) + GRACE_S)
    if STATM.exists():
        _limit(resource.RLIMIT_AS, _memory_bytes() + MEMORY_MAX_BYTES)


def lift() -> None:
    """The run has ended: what is told of it is not counted as its own, and has time and memory of its own."""
    # Programs are refused this, and one of them may be at work.
    set_timer = getattr(signal.setitimer, "__wrapped__", signal.setitimer)
    for timer in (signal.ITIMER_PROF, signal.ITIMER_REAL):
        set_timer(timer, 0)
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    resource.setrlimit(resource.RLIMIT_AS, (hard, hard))
    _limit(resource.RLIMIT_CPU, int(cpu_s()) + TELL_S)
