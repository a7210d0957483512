"""What a log knows of one producer that writes to it (Kafka's ProducerStateEntry and BatchMetadata). Pure."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final, NamedTuple

from ottla.wire.records import (
    NO_PRODUCER_EPOCH,
    NO_SEQUENCE,
    NO_TIMESTAMP,
    SEQUENCE_MAX,
    BatchHeader,
    add_sequence,
)

# Batches per producer that a repeat is recognized among: as many as a client keeps in flight.
BATCHES_KEPT: Final = 5
# Batches per producer that are known: a truncation takes what was in flight, and the one before is left.
BATCHES_HELD: Final = BATCHES_KEPT + 1

# A batch in memory: `AppendedBatch`'s fields.
_BATCH: Final = struct.Struct("=iqiq")
_BATCHES_BYTES: Final = BATCHES_HELD * _BATCH.size


class AppendedBatch(NamedTuple):
    """A batch that a producer appended (Kafka's BatchMetadata)."""

    last_sequence: int
    last_offset: int
    offset_delta: int
    timestamp_ms: int

    @property
    def first_sequence(self) -> int:
        return add_sequence(self.last_sequence, -self.offset_delta)

    @property
    def first_offset(self) -> int:
        return self.last_offset - self.offset_delta


# For a producer of which nothing but its epoch is known.
NO_BATCH: Final = AppendedBatch(NO_SEQUENCE, -1, 0, NO_TIMESTAMP)


class ProducerEntry:
    """One producer's state in one log (Kafka's ProducerStateEntry).

    There may be hundreds of thousands, whose batches come and go. They are kept packed: that takes a quarter
    of the memory, and leaves nothing for the collector of garbage to look through.
    """

    __slots__ = (
        "_packed",
        "coordinator_epoch",
        "epoch",
        "generation",
        "is_whole",
        "last_timestamp_ms",
        "next_sequence",
        "producer_id",
        "txn_first_offset",
    )

    def __init__(
        self,
        producer_id: int,
        epoch: int = NO_PRODUCER_EPOCH,
        coordinator_epoch: int = -1,
        last_timestamp_ms: int = NO_TIMESTAMP,
        txn_first_offset: int = -1,
    ) -> None:
        self.producer_id = producer_id
        self.epoch = epoch
        self.coordinator_epoch = coordinator_epoch
        self.last_timestamp_ms = last_timestamp_ms
        # Where the transaction that is under way began, -1 where there is none.
        self.txn_first_offset = txn_first_offset
        # The last batches, the newest in the end.
        self._packed = b""
        # What the producer's next batch begins with; -1, which none does, for one without batches.
        self.next_sequence = NO_SEQUENCE
        # Whether the log has nothing else of this producer, as long as there is room for more batches here.
        self.is_whole = False
        # Since which freeze of the whole state this may be changed: see ``Producers.freeze``.
        self.generation = 0

    def copy(self, generation: int) -> ProducerEntry:
        """The same state in an entry of its own, to be changed."""
        copied = ProducerEntry(self.producer_id, self.epoch, self.coordinator_epoch)
        copied.last_timestamp_ms = self.last_timestamp_ms
        copied.txn_first_offset = self.txn_first_offset
        copied._packed = self._packed
        copied.next_sequence = self.next_sequence
        copied.is_whole = self.is_whole
        copied.generation = generation
        return copied

    @property
    def batches(self) -> list[AppendedBatch]:
        """The last batches, up to ``BATCHES_HELD``, the newest in the end."""
        return list(map(AppendedBatch._make, _BATCH.iter_unpack(self._packed)))

    @property
    def recent(self) -> list[AppendedBatch]:
        """The batches that a repeat is recognized among."""
        return self.batches[-BATCHES_KEPT:]

    @property
    def last_batch(self) -> AppendedBatch | None:
        """The newest batch, which costs less than all of them."""
        packed = self._packed
        return AppendedBatch._make(_BATCH.unpack_from(packed, len(packed) - _BATCH.size)) if packed else None

    @property
    def last_sequence(self) -> int:
        return last.last_sequence if (last := self.last_batch) is not None else NO_SEQUENCE

    @property
    def is_full(self) -> bool:
        """Whether the next batch takes the place of the oldest."""
        return len(self._packed) >= _BATCHES_BYTES

    def add(self, last_sequence: int, last_offset: int, offset_delta: int, timestamp_ms: int) -> None:
        """Take in a batch: the fields of an `AppendedBatch`."""
        packed = _BATCH.pack(last_sequence, last_offset, offset_delta, timestamp_ms)
        self._packed = self._packed[-_BATCHES_BYTES + _BATCH.size :] + packed
        self.next_sequence = (last_sequence + 1) & SEQUENCE_MAX

    def keep(self, batches: Sequence[AppendedBatch]) -> None:
        """Have these batches, and no others."""
        self._packed = b"".join([_BATCH.pack(*batch) for batch in batches])
        self.next_sequence = (batches[-1].last_sequence + 1) & SEQUENCE_MAX if batches else NO_SEQUENCE

    def find_duplicate(self, header: BatchHeader) -> AppendedBatch | None:
        """The batch that ``header`` repeats, if it is among the last five."""
        if header.producer_epoch != self.epoch:
            return None
        last_sequence = header.last_sequence
        for batch in self.recent:
            if batch.last_sequence == last_sequence and batch.first_sequence == header.base_sequence:
                return batch
        return None
