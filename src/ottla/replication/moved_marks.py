"""Whose high watermarks have moved since they were last written down: of many partitions mostly a few."""

from __future__ import annotations

from typing import Final, final

from ottla.types import TopicPartition

# So many are told by their names. Where there are more, all are asked.
NAMED_MAX: Final = 1000


@final
class MovedMarks:
    """A partition is noted once in each round, which ends where somebody takes what there is."""

    __slots__ = ("_are_many", "_names", "_round")

    def __init__(self) -> None:
        self._round = 1
        self._names: list[TopicPartition] = []
        self._are_many = False

    def note(self, name: TopicPartition, noted_in: int) -> int:
        """A partition's high watermark has moved; it was noted last in a round of this number, 0: never. The
        number of this round."""
        if noted_in == self._round:
            return noted_in
        if len(self._names) < NAMED_MAX:
            self._names.append(name)
        else:
            self._are_many = True
        return self._round

    def take(self) -> list[TopicPartition] | None:
        """Those that have moved since this was asked before; None where they are too many."""
        names, self._names = self._names, []
        are_many, self._are_many = self._are_many, False
        self._round += 1
        return None if are_many else names
