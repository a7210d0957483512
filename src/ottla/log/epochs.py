"""Which leader epoch wrote which part of a log (Kafka's LeaderEpochFileCache). Pure."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable

UNDEFINED_EPOCH = -1
UNDEFINED_OFFSET = -1


class LeaderEpochs:
    """Pairs of epoch and the offset it began at; both only ever increase."""

    __slots__ = ("changed", "epochs", "starts")

    def __init__(self, entries: Iterable[tuple[int, int]] = ()) -> None:
        self.epochs: list[int] = []
        self.starts: list[int] = []
        for epoch, start in entries:
            self.assign(epoch, start)
        # Whether anything is newer than the checkpoint file.
        self.changed = False

    @property
    def entries(self) -> list[tuple[int, int]]:
        return list(zip(self.epochs, self.starts, strict=True))

    @property
    def latest(self) -> int:
        """The epoch that was written last, -1 where there is none."""
        return self.epochs[-1] if self.epochs else UNDEFINED_EPOCH

    def assign(self, epoch: int, start: int) -> None:
        """An epoch begins at an offset. What conflicts with it (later epochs, later starts) is forgotten."""
        if epoch < 0:
            return
        if self.epochs and self.epochs[-1] == epoch and self.starts[-1] <= start:
            return
        keep = min(bisect_left(self.epochs, epoch), bisect_left(self.starts, start))
        del self.epochs[keep:], self.starts[keep:]
        self.epochs.append(epoch)
        self.starts.append(start)
        self.changed = True

    def epoch_at(self, offset: int) -> int:
        """The epoch that wrote an offset, -1 where it is not known."""
        slot = bisect_right(self.starts, offset)
        return self.epochs[slot - 1] if slot else UNDEFINED_EPOCH

    def end_offset_for(self, epoch: int, log_end_offset: int) -> tuple[int, int]:
        """The largest known epoch up to ``epoch`` and where it ends: (-1, -1) where that cannot be said.

        The latest epoch ends at the log's end. For an epoch before the first known one the answer is that
        epoch and the first known start, since what it wrote is gone.
        """
        if epoch == UNDEFINED_EPOCH or not self.epochs or epoch > self.epochs[-1]:
            return UNDEFINED_EPOCH, UNDEFINED_OFFSET
        if epoch == self.epochs[-1]:
            return epoch, log_end_offset
        slot = bisect_right(self.epochs, epoch)
        return (self.epochs[slot - 1] if slot else epoch), self.starts[slot]

    def truncate_from_end(self, end_offset: int) -> None:
        """The log now ends at ``end_offset``: forget the epochs that began there or later."""
        keep = bisect_left(self.starts, end_offset)
        if keep < len(self.starts):
            del self.epochs[keep:], self.starts[keep:]
            self.changed = True

    def truncate_from_start(self, start_offset: int) -> None:
        """The log now begins at ``start_offset``: so does its first epoch, earlier ones are forgotten."""
        slot = bisect_right(self.starts, start_offset) - 1
        if slot < 0 or self.starts[slot] == start_offset == self.starts[0]:
            return
        self.epochs, self.starts = self.epochs[slot:], [start_offset, *self.starts[slot + 1 :]]
        self.changed = True
