"""Bounds on what takes time or memory, which a slow or busy machine does not break and a regression does.

One figure says little: a core that is shared, cold caches, a collection of garbage. So a test measures again
until the bound holds, some times at most, and each figure of CPU time is compared with what a bit of Python
takes on this machine just then (`slowness`):

    for attempt in cpu_at_most(0.020):
        with attempt.cpu():
            work()

Time that goes by is not compared with a number alone, but with a wait that is not to happen (`not_waiting`).
"""

from __future__ import annotations

import gc
import math
import os
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

# The deadline of what does not take time at all, where only something that hangs is to fail.
HANG_S = 60.0
# How often is measured where the bound does not hold at once.
ATTEMPTS_MAX = 5
# The CPU time of `_work` on the machine whose figures the bounds are in, and of `_loop`.
WORK_S, LOOP_S = 0.0026, 0.00115
# A file to which each test that has a bound adds how much of it was needed; see `_attempts`.
RECORD = os.environ.get("OTTLA_MEASURED")


def _work() -> float:
    """The CPU time of a bit of Python, which is bound by memory as much as the broker is."""
    began_s = time.thread_time()
    made = [{"name": str(number)} for number in range(20_000)]
    assert len(made) == 20_000
    return time.thread_time() - began_s


def _loop() -> float:
    """The same of one that needs next to no memory: a machine may be slow at this, and quick at the other."""
    began_s = time.thread_time()
    counts: dict[int, int] = {}
    for number in range(20_000):
        last = number % 7
        counts[last] = counts.get(last, 0) + 1
    assert len(counts) == 7
    return time.thread_time() - began_s


def slowness() -> float:
    """How many times slower than the machine of known speed this one is now, at the worse of both; 1 if it is
    not. (It takes as long as 35 ms there.)"""
    collecting = gc.isenabled()
    gc.disable()
    try:
        works, loops = zip(*((_work(), _loop()) for _ in range(9)), strict=True)
        return max(1.0, statistics.median(works) / WORK_S, statistics.median(loops) / LOOP_S)
    finally:
        if collecting:
            gc.enable()


class Attempt:
    """One measurement of something, or of several that have names: the largest figure of each counts."""

    def __init__(self) -> None:
        self.figures: dict[str, float] = {}

    def took(self, figure: float, name: str = "") -> None:
        """Note a figure that was measured somewhere else."""
        self.figures[name] = max(figure, self.figures.get(name, figure))

    @contextmanager
    def cpu(self) -> Iterator[None]:
        """Note the seconds of CPU time that this thread takes within."""
        began_s = time.thread_time()
        yield
        self.took(time.thread_time() - began_s)

    @contextmanager
    def wall(self) -> Iterator[None]:
        """Note the seconds that go by within."""
        began_s = time.monotonic()
        yield
        self.took(time.monotonic() - began_s)

    @contextmanager
    def process_cpu(self) -> Iterator[None]:
        """Note the seconds of CPU time that all threads of this process take within."""
        began_s = time.process_time()
        yield
        self.took(time.process_time() - began_s)


def cpu_at_most(
    bound_s: float, what: str = "s of CPU time", *, room: float = 1.0, attempts: int = ATTEMPTS_MAX
) -> Iterator[Attempt]:
    """Attempts at something whose CPU time has a bound, until it has held; `AssertionError` with all figures
    where it never does.

    The bound is in terms of the machine of known speed, `room` is what it may be exceeded by while others use
    the machine. Each attempt must do all of the work again. Of several with names each must hold once.
    """
    yield from _attempts(bound_s * room, what, attempts, slowness)


def at_most(bound: float, what: str, *, attempts: int = ATTEMPTS_MAX) -> Iterator[Attempt]:
    """The same for what goes with no machine's speed: memory, a wait, what two times that were measured side
    by side have to do with each other."""
    yield from _attempts(bound, what, attempts, lambda: 1.0)


def shortest_s(*works: Callable[[], object], rounds: int = 15) -> list[float]:
    """The CPU time of each work at best. They take turns, so that what slows one slows the others, too."""
    found = [math.inf] * len(works)
    for _ in range(rounds):
        for index, work in enumerate(works):
            began_s = time.thread_time()
            work()
            found[index] = min(found[index], time.thread_time() - began_s)
    return found


def _attempts(bound: float, what: str, attempts: int, slow: Callable[[], float]) -> Iterator[Attempt]:
    """Where `RECORD` is set all attempts are made, and the file gets the best figure of each name: its share
    of the bound, how many times slower the machine is, the figure, the bound, the test."""
    said: dict[str, list[str]] = {}
    best: dict[str, float] = {}
    held: set[str] = set()
    for _ in range(attempts):
        attempt = Attempt()
        yield attempt
        assert attempt.figures, "nothing was measured"
        times = slow() if max(attempt.figures.values()) > bound else 1.0
        for name, figure in attempt.figures.items():
            best[name] = min(figure, best.get(name, figure))
            said.setdefault(name, []).append(f"{figure:.6g} (machine {times:.2f} times slower)")
            if figure <= bound * times:
                held.add(name)
        if said.keys() <= held and RECORD is None:
            return
    if RECORD is not None:
        _record(RECORD, best, bound, what, slow())
    if said.keys() <= held:
        return
    found = "; ".join(f"{name} {', '.join(figures)}" for name, figures in said.items() if name not in held)
    raise AssertionError(f"more than {bound:.6g} {what} each time: {found}")


def _record(path: str, best: Mapping[str, float], bound: float, what: str, times: float) -> None:
    test = os.environ.get("PYTEST_CURRENT_TEST", "").removesuffix(" (call)")
    with open(path, "a") as file:
        for name, figure in best.items():
            share = figure / bound / times
            file.write(f"{share:.2f}\t{times:.2f}\t{figure:.4g} of {bound:.4g} {what}\t{test} {name}\n")


@contextmanager
def not_waiting(wait_s: float) -> Iterator[None]:
    """What happens within is over long before a wait of `wait_s`, which it does without, would be.

    Half of it is the bound: take a wait that is long enough (tens of seconds) for a machine that is busy.
    """
    began_s = time.monotonic()
    yield
    took_s = time.monotonic() - began_s
    assert took_s < wait_s / 2, f"{took_s:.2f} s, as if it had waited for {wait_s} s"
