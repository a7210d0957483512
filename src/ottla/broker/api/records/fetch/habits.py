"""Which clients' habits are kept, at the most: those that asked last."""

from __future__ import annotations

from collections import OrderedDict
from typing import Protocol

# Partitions of all that are kept: each is 0.9 kilobytes.
PARTITIONS_MAX = 100_000


class Kept(Protocol):
    """What is kept of one client."""

    def let_go(self) -> None:
        """There is no room for it any more."""
        ...


class Habits:
    """Those of a node."""

    __slots__ = ("_kept", "partitions", "partitions_max")

    def __init__(self, partitions_max: int = PARTITIONS_MAX) -> None:
        self.partitions_max = partitions_max
        self.partitions = 0
        # The one that was used least recently comes first.
        self._kept: OrderedDict[Kept, int] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def keep(self, kept: Kept, partitions: int) -> None:
        """One more, of so many partitions; others make room for it, or it for itself."""
        self._kept[kept] = partitions
        self.partitions += partitions
        while self.partitions > self.partitions_max:
            self._let_go_first()

    def used(self, kept: Kept) -> None:
        if kept in self._kept:
            self._kept.move_to_end(kept)

    def forget(self, kept: Kept) -> None:
        """It is of no use any more, or has been let go."""
        self.partitions -= self._kept.pop(kept, 0)

    def let_go(self) -> None:
        """Memory is short: keep none."""
        while self._kept:
            self._let_go_first()

    def _let_go_first(self) -> None:
        first, partitions = self._kept.popitem(last=False)
        self.partitions -= partitions
        first.let_go()
