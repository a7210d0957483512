"""The transactions of a log, open and ended, and how far they let a read_committed consumer read. Pure.

A part of Kafka's ProducerStateManager. A transaction is unstable from its first record on until it has ended
and its end marker is committed. Offsets are absolute.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterable
from typing import Final, NamedTuple, final

# The first unstable offset of a log that has none: after every offset.
NONE_UNSTABLE: Final = 2**63 - 1


class Completed(NamedTuple):
    """A transaction that has ended (Kafka's CompletedTxn). ``last_offset``: its marker's.

    ``last_stable_offset``: the first offset of those that are still open, or else the one behind the marker.
    """

    producer_id: int
    first_offset: int
    last_offset: int
    last_stable_offset: int
    is_aborted: bool


@final
class Transactions:
    """The transactions of one log that are open, or whose end is not committed yet."""

    __slots__ = ("_ended", "_lowest", "_open", "awaits_commit", "first_unstable_offset")

    def __init__(self) -> None:
        # Producer ids by the transactions' first offsets, in order: one that begins does so at the log's end.
        self._open: OrderedDict[int, int] = OrderedDict()
        # (first offset, marker's offset) of those that have ended, in the order in which they did; and of
        # these the ones that no later one has a smaller first offset than: the first of them has the least.
        self._ended: deque[tuple[int, int]] = deque()
        self._lowest: deque[tuple[int, int]] = deque()
        # Where the first one begins of all of them, and whether any has ended by a marker that is not known
        # to be committed.
        self.first_unstable_offset = NONE_UNSTABLE
        self.awaits_commit = False

    @property
    def first_undecided_offset(self) -> int:
        """Where the first transaction begins that is open; NONE_UNSTABLE where none is."""
        return next(iter(self._open), NONE_UNSTABLE)

    def begin(self, producer_id: int, first_offset: int) -> None:
        """A producer, which has none that is open, begins one at the log's end."""
        self._open[first_offset] = producer_id
        if first_offset < self.first_unstable_offset:
            self.first_unstable_offset = first_offset

    def end(self, producer_id: int, first_offset: int, last_offset: int, is_aborted: bool) -> Completed:
        """A marker at ``last_offset``, where the log ends, ends the one that began at ``first_offset``."""
        self._open.pop(first_offset, None)
        self._add_ended(first_offset, last_offset)
        # It is as unstable as before until its end is committed.
        stable = next(iter(self._open), last_offset + 1)
        return Completed(producer_id, first_offset, last_offset, stable, is_aborted)

    def _add_ended(self, first_offset: int, last_offset: int) -> None:
        lowest, one = self._lowest, (first_offset, last_offset)
        self._ended.append(one)
        self.awaits_commit = True
        while lowest and lowest[-1][0] > first_offset:
            lowest.pop()
        lowest.append(one)

    def committed_to(self, high_watermark: int) -> None:
        """Everything before ``high_watermark`` is committed, markers included."""
        ended = self._ended
        if not ended or ended[0][1] >= high_watermark:
            return
        lowest = self._lowest
        while ended and ended[0][1] < high_watermark:
            if lowest[0][1] == ended.popleft()[1]:
                lowest.popleft()
        self._measure()

    def restart(self, opened: Iterable[tuple[int, int]], offset: int) -> None:
        """Go on from the state at an earlier ``offset``: with the (first offset, producer id) of what was
        open there, in any order, and without what has ended behind it."""
        self._open = OrderedDict(sorted(opened))
        ended = [one for one in self._ended if one[1] < offset]
        self._ended.clear()
        self._lowest.clear()
        for first_offset, last_offset in ended:
            self._add_ended(first_offset, last_offset)
        self._measure()

    def cut(self, offset: int) -> None:
        """The log ends at ``offset`` now, and no marker was cut off."""
        opened = self._open
        while opened and next(reversed(opened)) >= offset:
            opened.popitem()
        self._measure()

    def _measure(self) -> None:
        self.awaits_commit = bool(self._ended)
        first = next(iter(self._open), NONE_UNSTABLE)
        if self._lowest and self._lowest[0][0] < first:
            first = self._lowest[0][0]
        self.first_unstable_offset = first
