"""Fetches of many partitions without a session that wait: what they hold is bounded, however long that is."""

from __future__ import annotations

from collections import OrderedDict
from typing import Protocol

# Partitions that all of them may name, as those of sessions (`session_cache`): each is half a kilobyte, and a
# tenth of that in the request, which alone counts among the bytes of requests.
PARTITIONS_MAX = 400_000
# Who names so few is not counted: it holds no more than its connection does.
FEW = 100


class GivesWay(Protocol):
    """Who waits."""

    def give_way(self) -> None:
        """Wait no longer: answer with what there is."""
        ...


class LargeWaits:
    """Those of a node. Where there is no room for another, those that have waited longest are answered."""

    __slots__ = ("_waiting", "partitions", "partitions_max")

    def __init__(self, partitions_max: int = PARTITIONS_MAX) -> None:
        self.partitions_max = partitions_max
        self.partitions = 0
        self._waiting: OrderedDict[GivesWay, int] = OrderedDict()

    def add(self, who: GivesWay, partitions: int) -> None:
        """One begins, that names so many partitions; each counts as often as it is named."""
        self._waiting[who] = partitions
        self.partitions += partitions
        while self.partitions > self.partitions_max and len(self._waiting) > 1:
            longest, held = self._waiting.popitem(last=False)
            self.partitions -= held
            longest.give_way()

    def remove(self, who: GivesWay) -> None:
        """It waits no longer, if it did."""
        self.partitions -= self._waiting.pop(who, 0)
