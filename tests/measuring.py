"""Bounds on what takes time or memory, which a slow or busy machine does not break and a regression does.

One figure says little: a core that is shared, cold caches, a collection of garbage. So a test measures again
until the bound holds, some times at most, and each figure of CPU time is compared with what a bit of Python
takes on this machine just then (`slowness`):

    for attempt in at_most(0.020):
        with attempt.cpu():
            work()

Time that goes by is not compared with a number alone, but with a wait that is not to happen (`not_waiting`).
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager

# How often is measured where the bound does not hold at once.
ATTEMPTS_MAX = 5
# The CPU time of `_work` on the machine whose figures the bounds are in.
WORK_S = 0.0026


def _work() -> float:
    """The CPU time of a bit of Python, which is bound by memory as much as the broker is."""
    began_s = time.thread_time()
    made = [{"name": str(number)} for number in range(20_000)]
    assert len(made) == 20_000
    return time.thread_time() - began_s


def slowness() -> float:
    """How many times slower than the machine of known speed this one is, now; 1 if it is not. (It takes as
    long as 25 ms there.)"""
    collecting = gc.isenabled()
    gc.disable()
    try:
        return max(1.0, statistics.median(_work() for _ in range(9)) / WORK_S)
    finally:
        if collecting:
            gc.enable()


class Attempt:
    """One measurement: the largest of the figures that a test notes counts."""

    def __init__(self) -> None:
        self.figures: list[float] = []

    def took(self, figure: float) -> None:
        """Note a figure that was measured somewhere else."""
        self.figures.append(figure)

    @contextmanager
    def cpu(self) -> Iterator[None]:
        """Note the seconds of CPU time that this thread takes within."""
        began_s = time.thread_time()
        yield
        self.took(time.thread_time() - began_s)

    @contextmanager
    def process_cpu(self) -> Iterator[None]:
        """Note the seconds of CPU time that all threads of this process take within."""
        began_s = time.process_time()
        yield
        self.took(time.process_time() - began_s)


def at_most(
    bound: float, what: str = "s of CPU time", *, room: float = 1.0, attempts: int = ATTEMPTS_MAX
) -> Iterator[Attempt]:
    """Attempts at something whose CPU time has a bound, until it holds; `AssertionError` with all figures
    where it never does.

    The bound is in terms of the machine of known speed, `room` is what it may be exceeded by while others use
    the machine. Each attempt must do all of the work again.
    """
    said: list[str] = []
    for _ in range(attempts):
        attempt = Attempt()
        yield attempt
        assert attempt.figures, "nothing was measured"
        figure = max(attempt.figures)
        if figure <= bound or figure <= bound * room * (slow := slowness()):
            return
        said.append(f"{figure:.4g} where the machine is {slow:.2f} times slower")
    raise AssertionError(f"more than {bound * room:.4g} {what} each time: {'; '.join(said)}")


def bytes_at_most(bound: int, *, attempts: int = ATTEMPTS_MAX) -> Iterator[Attempt]:
    """`at_most` for memory, which goes with no machine's speed, but is used by others of the process, too."""
    said: list[float] = []
    for _ in range(attempts):
        attempt = Attempt()
        yield attempt
        assert attempt.figures, "nothing was measured"
        said.append(max(attempt.figures))
        if said[-1] <= bound:
            return
    raise AssertionError(f"more than {bound:,} bytes each time: {said}")


@contextmanager
def not_waiting(wait_s: float) -> Iterator[None]:
    """What happens within is over long before a wait of `wait_s`, which it does without, would be.

    Half of it is the bound: take a wait that is long enough (tens of seconds) for a machine that is busy.
    """
    began_s = time.monotonic()
    yield
    took_s = time.monotonic() - began_s
    assert took_s < wait_s / 2, f"{took_s:.2f} s, as if it had waited for {wait_s} s"
