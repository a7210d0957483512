"""The high watermarks of a node's partitions, each as it is when it is asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ottla.log.checkpointing import MovingOffsets
from ottla.replication.moved_marks import MovedMarks
from ottla.replication.partition import Partition
from ottla.types import TopicPartition


class HighWatermarks(MovingOffsets):
    """A view of ``partitions``, for the checkpoint, for retention and for compaction, which stops there.

    Whoever goes through it in pieces makes a list of it first: partitions come and go.
    """

    def __init__(
        self, partitions: Mapping[tuple[str, int], Partition], moved_marks: MovedMarks | None = None
    ) -> None:
        self._partitions = partitions
        self._moved_marks = MovedMarks() if moved_marks is None else moved_marks

    def take_moved(self) -> list[TopicPartition] | None:
        return self._moved_marks.take()

    def __getitem__(self, where: TopicPartition) -> int:
        return self._partitions[where].high_watermark

    def __iter__(self) -> Iterator[TopicPartition]:
        return (partition.topic_partition for partition in self._partitions.values())

    def __len__(self) -> int:
        return len(self._partitions)
