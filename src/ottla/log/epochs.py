"""Which leader epoch wrote which part of a log (Kafka's LeaderEpochFileCache). Pure."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from typing import Final

UNDEFINED_EPOCH: Final = -1
UNDEFINED_OFFSET: Final = -1


class LeaderEpochs:
    """Pairs of epoch and the offset it began at; both only ever increase.

    They are replaced as a whole, so that another thread that saves them sees one state of them.
    """

    __slots__ = ("_entries", "changed", "latest")

    def __init__(self, entries: Iterable[tuple[int, int]] = ()) -> None:
        self._entries: tuple[tuple[int, int], ...] = ()
        # The epoch that was written last, -1 where there is none.
        self.latest = UNDEFINED_EPOCH
        for epoch, start in entries:
            self.assign(epoch, start)
        # Whether anything is newer than the checkpoint file.
        self.changed = False

    @property
    def entries(self) -> list[tuple[int, int]]:
        return list(self._entries)

    def mark_saved(self, saved: bool = True) -> None:
        """The checkpoint file has, or after all has not, what there is now."""
        self.changed = not saved

    def _replace(self, entries: tuple[tuple[int, int], ...]) -> None:
        self._entries = entries
        self.latest = entries[-1][0] if entries else UNDEFINED_EPOCH
        self.changed = True

    def assign(self, epoch: int, start: int) -> None:
        """An epoch begins at an offset. What conflicts with it (later epochs, later starts) is forgotten."""
        if epoch < 0 or (epoch == self.latest and self._entries[-1][1] <= start):
            return
        kept = [entry for entry in self._entries if entry[0] < epoch and entry[1] < start]
        self._replace((*kept, (epoch, start)))

    def epoch_at(self, offset: int) -> int:
        """The epoch that wrote an offset, -1 where it is not known."""
        slot = bisect_right(self._entries, offset, key=_start)
        return self._entries[slot - 1][0] if slot else UNDEFINED_EPOCH

    def end_offset_for(self, epoch: int, log_end_offset: int) -> tuple[int, int]:
        """The largest known epoch up to ``epoch`` and where it ends: (-1, -1) where that cannot be said.

        The latest epoch ends at the log's end. For an epoch before the first known one the answer is that
        epoch and the first known start, since what it wrote is gone.
        """
        if not self._entries or epoch == UNDEFINED_EPOCH or epoch > self.latest:
            return UNDEFINED_EPOCH, UNDEFINED_OFFSET
        if epoch == self.latest:
            return epoch, log_end_offset
        slot = bisect_right(self._entries, epoch, key=_epoch)
        return (self._entries[slot - 1][0] if slot else epoch), self._entries[slot][1]

    def truncate_from_end(self, end_offset: int) -> None:
        """The log now ends at ``end_offset``: forget the epochs that began there or later."""
        keep = bisect_left(self._entries, end_offset, key=_start)
        if keep < len(self._entries):
            self._replace(self._entries[:keep])

    def truncate_from_start(self, start_offset: int) -> None:
        """The log now begins at ``start_offset``: so does its first epoch, earlier ones are forgotten."""
        slot = bisect_right(self._entries, start_offset, key=_start) - 1
        if slot < 0 or (slot == 0 and self._entries[0][1] == start_offset):
            return
        epoch = self._entries[slot][0]
        self._replace(((epoch, start_offset), *self._entries[slot + 1 :]))


def _epoch(entry: tuple[int, int]) -> int:
    return entry[0]


def _start(entry: tuple[int, int]) -> int:
    return entry[1]
