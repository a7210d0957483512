"""Long work in pieces on the event loop, so that nobody waits for long: one piece in each turn of the loop.

Whoever has more to do than some milliseconds' worth does a piece and awaits `pause`. However many do so at
the same time, only one of them goes on in each turn, the one that has waited longest; between two pieces the
loop serves whatever has come.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Generator
from typing import TypeVar

T = TypeVar("T")


class Slices:
    """One for all of a node's long work."""

    __slots__ = ("_scheduled", "_waiting")

    def __init__(self) -> None:
        # Each says whether it was of use: who has been cancelled takes nobody's turn.
        self._waiting: deque[Callable[[], bool]] = deque()
        self._scheduled = False

    async def pause(self) -> None:
        """Let everything else have its turn, and long work that waits already."""
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def go_on() -> bool:
            if turn.done():
                return False
            turn.set_result(None)
            return True

        self._add(go_on)
        await turn

    async def run(self, pieces: Generator[None, None, T]) -> T:
        """What a generator returns, with a pause wherever it yields."""
        while True:
            try:
                next(pieces)
            except StopIteration as end:
                result: T = end.value
                return result
            await self.pause()

    def soon(self, work: Callable[[], object]) -> None:
        """Run a piece of long work when its turn comes. What it raises is the loop's to tell."""

        def go_on() -> bool:
            work()
            return True

        self._add(go_on)

    def _add(self, go_on: Callable[[], bool]) -> None:
        self._waiting.append(go_on)
        self._schedule()

    def _schedule(self) -> None:
        if self._waiting and not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._next)

    def _next(self) -> None:
        self._scheduled = False
        try:
            while self._waiting:
                if self._waiting.popleft()():
                    break
        finally:
            self._schedule()
