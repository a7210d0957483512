"""Producers that wait for their batches to be committed: any number of them, each of which may give up.

A follower that hangs makes thousands wait, and all of them give up at about the same time; one that comes
back has all of them told at once. Neither may cost more than a little for each, nor keep others waiting.
"""

from __future__ import annotations

import asyncio
import logging
from bisect import insort_right
from collections import deque
from collections.abc import Callable
from typing import Final

from ottla.errors import KafkaError

log = logging.getLogger(__name__)

# Told that an offset is committed (None), or why it never will be as far as this leader knows.
Committed = Callable[[KafkaError | None], None]

# So many are told in one turn of the event loop: each of them has an answer written.
TOLD_AT_ONCE_MAX: Final = 256
# Entries of those who have given up that are kept in the queue at most, beside as many as there are others.
LEFT_BEHIND_MAX: Final = 64


class Commits:
    """Who waits for which offset. Whoever waits is told once, unless it is forgotten before."""

    __slots__ = ("_queue", "_ready", "_telling", "waiting")

    def __init__(self) -> None:
        # The least offset first. Those who have given up stay in it until their turn comes, or they are many.
        self._queue: deque[tuple[int, Committed]] = deque()
        self.waiting: dict[Committed, None] = {}
        # Who is to be told what, and whether somebody is just now, or will be in the loop's next turn.
        self._ready: deque[tuple[Committed, KafkaError | None]] = deque()
        self._telling = False

    def __len__(self) -> int:
        return len(self.waiting)

    def add(self, offset: int, committed: Committed) -> None:
        """Tell ``committed``, which nobody else gives, once everything before ``offset`` is committed."""
        queue = self._queue
        self.waiting[committed] = None
        if queue and offset < queue[-1][0]:
            # A repeated batch, whose first is already waited for.
            insort_right(queue, (offset, committed), key=_offset)
        else:
            queue.append((offset, committed))

    def forget(self, committed: Committed) -> bool:
        """Tell it nothing; whether it had still to be told."""
        if committed not in self.waiting:
            return False
        del self.waiting[committed]
        if len(self._queue) > 2 * len(self.waiting) + LEFT_BEHIND_MAX:
            self._queue = deque([entry for entry in self._queue if entry[1] in self.waiting])
        return True

    def reached(self, end: int, error: KafkaError | None) -> None:
        """Everything before ``end`` is committed: tell who waits for that, or for less."""
        queue = self._queue
        while queue and queue[0][0] <= end:
            self._ready.append((queue.popleft()[1], error))
        if not self._telling:
            self._tell()

    def end(self, error: KafkaError | None) -> None:
        """Tell everybody, at whatever offset."""
        queue, self._queue = self._queue, deque()
        self._ready.extend([(committed, error) for _, committed in queue])
        if not self._telling:
            self._tell()

    def _tell(self) -> None:
        # Whoever is told may have the next request handled, and that add, forget, or have others told.
        self._telling = True
        ready, left = self._ready, TOLD_AT_ONCE_MAX
        while ready and left:
            committed, error = ready.popleft()
            if committed not in self.waiting:
                continue
            del self.waiting[committed]
            left -= 1
            try:
                committed(error)
            except Exception:
                # It belongs to one producer; the others must hear of theirs.
                log.exception("a producer could not be told what became of its batch")
        if ready:
            asyncio.get_running_loop().call_soon(self._tell)
        else:
            self._telling = False


def _offset(entry: tuple[int, Committed]) -> int:
    return entry[0]
