"""DeleteRecords that wait until every living replica of a partition begins where it was told to."""

from __future__ import annotations

import logging
from collections.abc import Callable

from ottla.errors import KafkaError

log = logging.getLogger(__name__)

# Told the low watermark once it has reached an offset, or why it will not be told.
Deleted = Callable[[int | KafkaError], None]


class Deletions:
    """Who waits for which low watermark, in the order of their coming. True while somebody does."""

    __slots__ = ("_waiting",)

    def __init__(self) -> None:
        self._waiting: list[tuple[int, Deleted]] = []

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, offset: int, deleted: Deleted) -> None:
        self._waiting.append((offset, deleted))

    def forget(self, deleted: Deleted) -> bool:
        """Tell it nothing; whether it had still to be told."""
        kept = [entry for entry in self._waiting if entry[1] is not deleted]
        waited = len(kept) != len(self._waiting)
        self._waiting = kept
        return waited

    def reached(self, low_watermark: int) -> None:
        """Tell who waits for that, or for less."""
        reached = [deleted for offset, deleted in self._waiting if offset <= low_watermark]
        if reached:
            self._waiting = [entry for entry in self._waiting if entry[0] > low_watermark]
            self._tell(reached, low_watermark)

    def end(self, error: KafkaError) -> None:
        """Tell everybody that this replica cannot say."""
        waiting, self._waiting = self._waiting, []
        self._tell([deleted for _, deleted in waiting], error)

    def _tell(self, deletions: list[Deleted], outcome: int | KafkaError) -> None:
        for deleted in deletions:
            try:
                deleted(outcome)
            except Exception:
                # It belongs to one request; the others must hear of theirs.
                log.exception("the result of a deletion of records could not be delivered")
