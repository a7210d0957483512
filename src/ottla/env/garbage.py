"""Python's collector of garbage, kept to short pauses however much a broker holds.

A full collection looks through all that exists, and everybody waits. Here what has survived one is frozen: it
is not looked at again. So each looks only through what came since the one before, and they come often enough
for that to be little. What is frozen is freed all the same when the last that refers to it goes; only a
circle that was frozen while it was in use, and is let go later without being opened, stays for good. So a
connection, a request, a partition must leave no circle behind: see docs/decisions/0012-garbage.md.
"""

from __future__ import annotations

import gc
from collections.abc import Callable

from ottla.metrics import Histogram

# What makes a collection of the youngest objects due, in net allocations; one of those that have survived it,
# in such collections; and a full one, in these. So some 25,000 objects are looked through at a time, which
# takes 2 to 5 ms.
THRESHOLDS = (700, 10, 2)
BOUNDS_MS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500)
OLDEST = 2


class ShortCollections:
    """Has the collections of this process be short, and counts how long they take.

    It is for a process that a broker has for itself: what else is in it would be frozen, too.
    """

    __slots__ = ("_before", "_began_ms", "_cpu_ms", "pauses")

    def __init__(self, cpu_ms: Callable[[], float]) -> None:
        """``cpu_ms``: the CPU time of the thread that calls it. A collection waits for nothing, so that it
        stops everybody for as long as it computes."""
        self._cpu_ms = cpu_ms
        self._began_ms = 0.0
        self._before = THRESHOLDS
        # By CPU time, of all generations.
        self.pauses = Histogram(BOUNDS_MS)

    def start(self) -> None:
        """From now on. What is there is spared: mostly modules."""
        self._before = gc.get_threshold()
        gc.set_threshold(*THRESHOLDS)
        gc.freeze()
        gc.callbacks.append(self._told)
        # Nothing is left to look through, which it remembers: a full one is due when there is a quarter more.
        gc.collect()

    def stop(self) -> None:
        """As before, from now on. What is frozen stays so: at a process's end nobody need look at it."""
        gc.callbacks.remove(self._told)
        gc.set_threshold(*self._before)

    def _told(self, phase: str, info: dict[str, int]) -> None:
        if phase == "start":
            self._began_ms = self._cpu_ms()
            return
        if info["generation"] == OLDEST:
            gc.freeze()
        self.pauses.add(self._cpu_ms() - self._began_ms)
