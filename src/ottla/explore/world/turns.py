"""The order of simultaneous events, where asyncio and an operating system leave it open, drawn from a seed.

What is promised is kept: callbacks of ``call_soon`` run in the order of their scheduling, the bytes of one
connection arrive in order, a timer is never before an earlier one. What is open is drawn: which of two timers
of the same instant comes first; which connection is read first of those that have got something while a
process was busy, and whether that is before or after its timers (asyncio looks at connections first, uvloop
at timers); when the operating system lets another process run, and how late a new process begins.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from random import Random
from typing import Protocol, TypeVar

# Where a callback comes from that is due at its time, not because a connection has got something.
TIMER = object()
TIE_BITS = 16
# How many steps of the loop go by between two that the operating system gives to somebody else, on average;
# 0: it has a core for everybody.
INTERVALS_STEPS = (0, 1_000, 200)
# How long a process waits for its core then, and how late one begins that was started.
WAITS_US = (20, 200, 2_000, 10_000)
BEGINS_US_MAX = 20_000
# Of the callbacks that are ready, the one that runs next is among so many, where any order will do.
ANY_OF_MAX = 8


class FromSomewhere(Protocol):
    """A callback and where it comes from: a connection, `TIMER`, or None for ``call_soon``."""

    source: object


C = TypeVar("C", bound=FromSomewhere)


class Turns:
    """One run's draws. ``is_any_order``: users' programs run in orders that asyncio rules out, too."""

    def __init__(self, rng: Random, *, is_any_order: bool = False) -> None:
        self.is_any_order = is_any_order
        self._rng = rng
        self._interval_steps = rng.choice(INTERVALS_STEPS)
        # What orders timers of the same instant. There is one draw for each of them: no function of Python's.
        self.tie: Callable[[], int] = partial(rng.getrandbits, TIE_BITS)

    def steps_until_wait(self) -> int:
        """After how many steps the process of that step waits for its core; 0: none does."""
        mean = self._interval_steps
        return mean and 1 + int(self._rng.expovariate(1 / mean))

    def wait_us(self) -> int:
        """How long a process waits for its core."""
        return 1 + int(self._rng.random() * self._rng.choice(WAITS_US))

    def begin_us(self) -> int:
        """How long after its start a process takes its first step."""
        return int(self._rng.random() * BEGINS_US_MAX)

    def index(self, ready: int) -> int:
        """Which of the callbacks that are ready runs next, in any order."""
        return self._rng.randrange(min(ready, ANY_OF_MAX))

    def in_turn(self, held: Iterable[C]) -> list[C]:
        """What a process was kept from, in the order in which its loop finds it."""
        soon: list[C] = []
        timers: list[C] = []
        connections: dict[object, list[C]] = {}
        for handle in held:
            if handle.source is None:
                soon.append(handle)
            elif handle.source is TIMER:
                timers.append(handle)
            else:
                connections.setdefault(handle.source, []).append(handle)
        if len(connections) + bool(timers) > 1:
            groups = list(connections.values())
            self._rng.shuffle(groups)
            groups.insert(self._rng.choice((0, len(groups))), timers)
            return soon + [handle for group in groups for handle in group]
        return [*soon, *(handle for group in connections.values() for handle in group), *timers]
