"""Which transactions a round of compaction has come across (Kafka's CleanedTransactionMetadata). Pure.

A round goes over a log from its start on, batch by batch. What was aborted goes at once. A marker stays as
long as there was anything of its transaction, also a batch without records: otherwise a replica that reads
the log would have that transaction open for ever.
"""

from __future__ import annotations

from collections.abc import Iterable
from heapq import heappop, heappush

from ottla.log.markers import EndMarker
from ottla.log.transaction_index import AbortedTransaction, TransactionIndex
from ottla.wire.records import BatchHeader


class _Aborted:
    """An aborted transaction that is being gone over, and whether any batch of it was met."""

    __slots__ = ("entry", "is_met")

    def __init__(self, entry: AbortedTransaction) -> None:
        self.entry = entry
        self.is_met = False


class CleanedTransactions:
    """``index``: the aborted transactions whose markers were met, and stay."""

    def __init__(self) -> None:
        self.index = TransactionIndex()
        # Those that begin further on, the first in front; the same may come for each segment that it is in.
        self._coming: list[tuple[int, AbortedTransaction]] = []
        # By their producers: those that are under way where the round is now, and producers of others.
        self._aborted: dict[int, _Aborted] = {}
        self._committed: set[int] = set()

    def add(self, entries: Iterable[AbortedTransaction]) -> None:
        """The round comes to a segment with records of these."""
        for entry in entries:
            heappush(self._coming, (entry.first_offset, entry))

    def _reach(self, offset: int) -> None:
        coming = self._coming
        while coming and coming[0][0] <= offset:
            _, entry = heappop(coming)
            self._aborted.setdefault(entry.producer_id, _Aborted(entry))

    def meet(self, header: BatchHeader) -> bool:
        """The next batch of data; whether it was aborted."""
        self._reach(header.last_offset)
        if not header.is_transactional:
            return False
        aborted = self._aborted.get(header.producer_id)
        if aborted is None:
            self._committed.add(header.producer_id)
            return False
        aborted.is_met = True
        return True

    def meet_marker(self, header: BatchHeader, marker: EndMarker | None) -> bool:
        """The next control batch; whether nothing is left of what it ended. ``marker``: None for one without
        records, which a round before has left, and for another kind."""
        self._reach(header.last_offset)
        if marker is None:
            return not header.record_count
        if marker.commits:
            is_met = header.producer_id in self._committed
            self._committed.discard(header.producer_id)
            return not is_met
        aborted = self._aborted.pop(header.producer_id, None)
        if aborted is None or not aborted.is_met:
            return True
        self.index.append(aborted.entry)
        return False
