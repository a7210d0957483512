"""What a log knows of the idempotent producers that write to it (Kafka's ProducerStateManager). Pure.

For each producer id: its epoch and the last five batches it appended. A batch that repeats one of them is
answered with the offsets it already has; one that does not follow the last is refused. The state follows
from the log, so it can be rebuilt from it; snapshots save the time.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, NamedTuple

from crc32c import crc32c

from ottla.errors import ErrorCode, KafkaError
from ottla.log.markers import EndMarker
from ottla.log.settings import Origin
from ottla.log.transactions import Completed, Transactions
from ottla.log.verification import Verification, VerificationGuard, Verifications
from ottla.wire.records import (
    CONTROL_BIT,
    NO_PRODUCER_EPOCH,
    NO_SEQUENCE,
    NO_TIMESTAMP,
    SEQUENCE_MAX,
    TRANSACTIONAL_BIT,
    BatchHeader,
    add_sequence,
)

# Batches per producer that a repeat is recognized among: as many as a client keeps in flight.
BATCHES_KEPT: Final = 5
# Batches per producer that are known: a truncation takes what was in flight, and the one before is left.
BATCHES_HELD: Final = BATCHES_KEPT + 1

# Producers that are looked at for their age before others have their turn: a millisecond or two.
EXPIRED_AT_ONCE: Final = 10_000

# The last epoch of a producer; the transaction.version from which on it goes up with each transaction's end.
EPOCH_MAX: Final = 2**15 - 1
EPOCH_BUMPED_SINCE: Final = 2

SNAPSHOT_VERSION: Final = 1
_SNAPSHOT_HEADER: Final = struct.Struct(">hIi")
_SNAPSHOT_ENTRY: Final = struct.Struct(">qhiqiqiq")
# A batch in memory: `AppendedBatch`'s fields.
_BATCH: Final = struct.Struct("=iqiq")
_BATCHES_BYTES: Final = BATCHES_HELD * _BATCH.size
# Looking an enum's member up takes a while.
_CLIENT: Final = Origin.CLIENT
# The checksum covers everything after itself.
_SNAPSHOT_CRC_START: Final = 6


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
_NO_BATCH: Final = AppendedBatch(NO_SEQUENCE, -1, 0, NO_TIMESTAMP)


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


class LastRecord(NamedTuple):
    """What a log has last of a producer: the offset where its last batch ends, -1 where there has been none
    in its epoch."""

    offset: int
    epoch: int


class Frozen(NamedTuple):
    """All producers of a log as they were at an offset. It does not change: any thread may read it."""

    end_offset: int
    entries: Sequence[ProducerEntry]

    def last_records(self) -> dict[int, LastRecord]:
        """What there is last of each producer (UnifiedLog.lastRecordsOfActiveProducers)."""
        return {
            entry.producer_id: LastRecord((entry.last_batch or _NO_BATCH).last_offset, entry.epoch)
            for entry in self.entries
        }


class Producers:
    """All producers of one log, up to ``end_offset``: the state before the batch that begins there."""

    __slots__ = ("_entries", "_generation", "end_offset", "expiration_ms", "transactions", "verifications")

    def __init__(self, end_offset: int, expiration_ms: int) -> None:
        self._entries: dict[int, ProducerEntry] = {}
        # Those that the producers have open, and those whose ends are not committed yet.
        self.transactions = Transactions()
        # Of those that producers are about to open.
        self.verifications = Verifications()
        self.end_offset = end_offset
        self.expiration_ms = expiration_ms
        self._generation = 0

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[ProducerEntry]:
        return iter(self._entries.values())

    def get(self, producer_id: int) -> ProducerEntry | None:
        return self._entries.get(producer_id)

    # -- checking -----------------------------------------------------------------------------------------

    def check(
        self, header: BatchHeader, origin: Origin, guard: VerificationGuard | None = None
    ) -> AppendedBatch | None:
        """Whether a batch that has a producer id may be appended; the original where it is a repeat.

        ``guard``: see ``begin_verification``. Control batches are for ``check_marker``.

        KafkaError: INVALID_PRODUCER_EPOCH for an epoch that has been replaced, OUT_OF_ORDER_SEQUENCE_NUMBER
        for a batch that does not follow the producer's last. A producer that the log does not know, or that
        retention or expiry made it forget, may begin with any number (KIP-360). INVALID_TXN_STATE for a
        batch that is in no transaction while one is open, and for one that would open a transaction which
        the coordinator has not been asked about.
        """
        entry = self._entries.get(header.producer_id)
        transactional = header.attributes & TRANSACTIONAL_BIT
        if (
            entry is not None
            and header.producer_epoch == entry.epoch
            and header.base_sequence == entry.next_sequence
            and (transactional != 0) == (entry.txn_first_offset >= 0)
            and not self.verifications.waiting
        ):
            return None
        if origin is _CLIENT and entry is not None and (found := entry.find_duplicate(header)) is not None:
            return found
        if entry is None:
            entry = ProducerEntry(header.producer_id)
        if header.producer_epoch < entry.epoch:
            raise _stale_epoch(header.producer_id, header.producer_epoch, entry)
        is_open = entry.txn_first_offset >= 0
        goes_on = is_open and header.producer_epoch == entry.epoch
        if transactional and not goes_on and not self.verifications.is_verified(header.producer_id, guard):
            why = "the batch is not part of a transaction that is under way"
            raise KafkaError(ErrorCode.invalid_txn_state, why)
        if origin is _CLIENT:
            _check_sequence(header, entry, self.verifications.waiting.get(header.producer_id))
        if is_open and not transactional:
            why = f"producer {header.producer_id} has a transaction open, and the batch is not part of it"
            raise KafkaError(ErrorCode.invalid_txn_state, why)
        return None

    def check_marker(self, header: BatchHeader, marker: EndMarker, transaction_version: int) -> None:
        """Whether a coordinator may end a producer's transaction (ProducerAppendInfo.appendEndTxnMarker).

        From ``transaction_version`` 2 on the epoch goes up with each end: a marker in the epoch that the log
        has seen is late, unless no transaction is open: then it was written before, and its answer was lost
        or its coordinator has read anew that it was to be written.

        KafkaError INVALID_PRODUCER_EPOCH, TRANSACTION_COORDINATOR_FENCED.
        """
        entry = self._entries.get(header.producer_id)
        if entry is None:
            return
        epoch = header.producer_epoch
        if epoch < entry.epoch:
            raise _stale_epoch(header.producer_id, epoch, entry)
        # Nothing comes after the last epoch there is.
        is_late = epoch == entry.epoch and entry.txn_first_offset >= 0 and epoch != EPOCH_MAX
        if transaction_version >= EPOCH_BUMPED_SINCE and is_late:
            raise _stale_epoch(header.producer_id, epoch, entry)
        if marker.coordinator_epoch < entry.coordinator_epoch:
            raise KafkaError(
                ErrorCode.transaction_coordinator_fenced,
                f"a marker of producer {header.producer_id} is of coordinator epoch "
                f"{marker.coordinator_epoch}, the log saw {entry.coordinator_epoch}",
            )

    def begin_verification(
        self, producer_id: int, epoch: int, base_sequence: int, now_ms: int, *, bumps_epoch: bool
    ) -> VerificationGuard | None:
        """What a transactional batch is to be appended with once the coordinator has said that it knows of
        its transaction; None where that is open here, and nobody need be asked
        (UnifiedLog.maybeStartTransactionVerification).

        ``bumps_epoch``: the client has the epoch go up with each transaction. KafkaError
        INVALID_PRODUCER_EPOCH.
        """
        entry = self._entries.get(producer_id)
        if entry is not None:
            if epoch < entry.epoch:
                raise _stale_epoch(producer_id, epoch, entry)
            if epoch == entry.epoch and entry.txn_first_offset >= 0:
                return None
        return self.verifications.begin(producer_id, epoch, base_sequence, now_ms, bumps_epoch)

    # -- taking in ----------------------------------------------------------------------------------------

    def advance_to(self, end_offset: int) -> None:
        """Whatever lies before ``end_offset`` has been taken in, or tells of no producer."""
        self.end_offset = end_offset

    def update(self, header: BatchHeader, marker: EndMarker | None = None) -> Completed | None:
        """Take in a batch that was appended, or read back; the transaction that ends with it, if one does.

        A control batch needs its ``marker``; without one (its records were compacted away) it says nothing.
        """
        last_offset = header.base_offset + header.last_offset_delta
        self.end_offset = last_offset + 1
        if header.producer_id < 0:
            return None
        if header.attributes & TRANSACTIONAL_BIT and self.verifications.waiting:
            self.verifications.appended(header)
        if header.attributes & CONTROL_BIT and marker is None:
            return None
        entry = self._entries.get(header.producer_id)
        if entry is None:
            entry = self._entries[header.producer_id] = ProducerEntry(header.producer_id)
            entry.is_whole = True
            entry.generation = self._generation
        elif entry.generation != self._generation:
            entry = self._thawed(entry)
        if entry.epoch != header.producer_epoch:
            entry.is_whole = entry.is_whole and entry.next_sequence == NO_SEQUENCE
            entry.keep(())
            entry.epoch = header.producer_epoch
        entry.last_timestamp_ms = header.max_timestamp_ms
        if marker is not None:
            entry.coordinator_epoch = marker.coordinator_epoch
            first_offset, entry.txn_first_offset = entry.txn_first_offset, -1
            if first_offset < 0:
                # There was nothing to end: no consumer is to hear of that.
                return None
            return self.transactions.end(entry.producer_id, first_offset, last_offset, not marker.commits)
        entry.add(header.last_sequence, last_offset, header.last_offset_delta, header.max_timestamp_ms)
        if header.attributes & TRANSACTIONAL_BIT and entry.txn_first_offset < 0:
            entry.txn_first_offset = header.base_offset
            self.transactions.begin(entry.producer_id, header.base_offset)
        return None

    def expire(self, now_ms: int, expiration_ms: int) -> Iterator[None]:
        """Forget producers that wrote nothing for ``expiration_ms``, from now on too: it may have changed.

        To be gone through; after each thousands of producers others may have their turn.
        """
        self.expiration_ms = expiration_ms
        self.verifications.expire(now_ms, expiration_ms)
        for number, entry in enumerate(list(self._entries.values()), 1):
            is_old = entry.txn_first_offset < 0 and now_ms - entry.last_timestamp_ms >= expiration_ms
            # It may have written meanwhile, and be another entry then.
            if is_old and self._entries.get(entry.producer_id) is entry:
                del self._entries[entry.producer_id]
            if number % EXPIRED_AT_ONCE == 0:
                yield

    def truncate_to(self, end_offset: int) -> bool:
        """Take back all batches from ``end_offset`` on; False, and nothing is changed, where what was before
        them is not known: then it has to be read from the log.

        The producers' last batches are known, and those that a follower has to cut off were in flight.
        """
        cut: list[ProducerEntry] = []
        if self.transactions.awaits_commit:
            # Where the marker goes the transaction is open again.
            return False
        for entry in self._entries.values():
            if entry.coordinator_epoch >= 0 or entry.txn_first_offset >= 0:
                # What a marker has changed does not show any more.
                return False
            last = entry.last_batch
            if last is not None and last.last_offset >= end_offset:
                is_whole = entry.is_whole and not entry.is_full
                if entry.batches[0].last_offset >= end_offset and not is_whole:
                    return False
                cut.append(entry)
        for entry in cut:
            entry = self._thawed(entry)
            batches = [one for one in entry.batches if one.last_offset < end_offset]
            entry.is_whole = entry.is_whole and not entry.is_full
            entry.keep(batches)
            if batches:
                entry.last_timestamp_ms = batches[-1].timestamp_ms
            else:
                del self._entries[entry.producer_id]
        self.end_offset = end_offset
        return True

    def clear(self, end_offset: int) -> None:
        self._entries.clear()
        self.transactions.restart((), -1)
        self.end_offset = end_offset

    # -- other threads ------------------------------------------------------------------------------------

    def freeze(self) -> Frozen:
        """The state as it is now. What changes from now on is copied first, so that this takes no time."""
        self._generation += 1
        return Frozen(self.end_offset, list(self._entries.values()))

    def _thawed(self, entry: ProducerEntry) -> ProducerEntry:
        """The entry that may be changed in the place of one that may have been frozen."""
        if entry.generation != self._generation:
            entry = self._entries[entry.producer_id] = entry.copy(self._generation)
        return entry

    # -- snapshots ----------------------------------------------------------------------------------------

    def load(self, data: bytes, end_offset: int, now_ms: int) -> None:
        """Begin from a snapshot taken at ``end_offset``, without what has expired since.

        ValueError where the bytes are not a whole snapshot; the state is then unchanged.
        """
        entries = {
            entry.producer_id: entry
            for entry in decode_snapshot(data)
            if entry.txn_first_offset >= 0 or now_ms - entry.last_timestamp_ms < self.expiration_ms
        }
        self._entries = entries
        opened = [(one.txn_first_offset, one.producer_id) for one in entries.values()]
        self.transactions.restart([one for one in opened if one[0] >= 0], end_offset)
        self.end_offset = end_offset


def encode_snapshot(entries: Iterable[ProducerEntry]) -> bytes:
    """The contents of a ``.snapshot`` file.

    Kafka writes each producer's last batch, so that after a restart it takes a repeat of one before it for a
    gap. Here the last five follow each other; Kafka's reader keeps the last of them.
    """
    data = bytearray(_SNAPSHOT_HEADER.size)
    for entry in entries:
        *earlier, last = entry.recent or (_NO_BATCH,)
        for batch in earlier:
            data += _pack_entry(entry, batch, batch.timestamp_ms)
        data += _pack_entry(entry, last, entry.last_timestamp_ms)
    count = (len(data) - _SNAPSHOT_HEADER.size) // _SNAPSHOT_ENTRY.size
    _SNAPSHOT_HEADER.pack_into(data, 0, SNAPSHOT_VERSION, 0, count)
    crc = crc32c(memoryview(data)[_SNAPSHOT_CRC_START:])
    _SNAPSHOT_HEADER.pack_into(data, 0, SNAPSHOT_VERSION, crc, count)
    return bytes(data)


def decode_snapshot(data: bytes) -> list[ProducerEntry]:
    """The producers in a ``.snapshot`` file. ValueError where it is damaged or of another version."""
    if len(data) < _SNAPSHOT_HEADER.size:
        raise ValueError("the snapshot is cut short")
    version, crc, count = _SNAPSHOT_HEADER.unpack_from(data)
    if version != SNAPSHOT_VERSION:
        raise ValueError(f"unknown snapshot version {version}")
    if crc32c(memoryview(data)[_SNAPSHOT_CRC_START:]) != crc:
        raise ValueError("the snapshot's checksum does not match its bytes")
    if len(data) != _SNAPSHOT_HEADER.size + count * _SNAPSHOT_ENTRY.size:
        raise ValueError(f"the snapshot claims {count} producers in {len(data)} bytes")
    entries: list[ProducerEntry] = []
    for fields in _SNAPSHOT_ENTRY.iter_unpack(data[_SNAPSHOT_HEADER.size :]):
        producer_id, epoch, last_sequence, last_offset, delta, timestamp, coordinator_epoch, txn = fields
        entry = ProducerEntry(producer_id, epoch, coordinator_epoch, timestamp, txn)
        if entries and entries[-1].producer_id == producer_id and entries[-1].epoch == epoch:
            entry.keep(entries.pop().batches)
        if last_offset >= 0:
            entry.add(last_sequence, last_offset, delta, timestamp)
        entries.append(entry)
    return entries


def _pack_entry(entry: ProducerEntry, batch: AppendedBatch, timestamp_ms: int) -> bytes:
    return _SNAPSHOT_ENTRY.pack(
        entry.producer_id,
        entry.epoch,
        batch.last_sequence,
        batch.last_offset,
        batch.offset_delta,
        timestamp_ms,
        entry.coordinator_epoch,
        entry.txn_first_offset,
    )


def _stale_epoch(producer_id: int, epoch: int, entry: ProducerEntry) -> KafkaError:
    return KafkaError(
        ErrorCode.invalid_producer_epoch,
        f"producer {producer_id} has epoch {epoch}, the log saw {entry.epoch}",
    )


def _check_sequence(header: BatchHeader, entry: ProducerEntry, verification: Verification | None) -> None:
    """Whether a client's batch follows what its producer wrote before (ProducerAppendInfo.checkSequence)."""
    first, producer_id = header.base_sequence, header.producer_id
    if verification is not None:
        if verification.bumps_epoch and first != 0 and entry.last_batch is None:
            raise _out_of_order(f"producer {producer_id}, of which nothing is known, begins with {first}")
        if first > verification.lowest_sequence:
            why = f"producer {producer_id} sent {first}, and {verification.lowest_sequence} is to come first"
            raise _out_of_order(why)
    if entry.epoch == NO_PRODUCER_EPOCH:
        return
    if header.producer_epoch != entry.epoch:
        if first != 0:
            raise _out_of_order(
                f"producer {producer_id} begins its epoch {header.producer_epoch} with the sequence number "
                f"{first} instead of 0"
            )
    elif first != add_sequence(entry.last_sequence, 1):
        raise _out_of_order(
            f"producer {producer_id} sent the sequence number {first} after {entry.last_sequence}"
        )


def _out_of_order(why: str) -> KafkaError:
    return KafkaError(ErrorCode.out_of_order_sequence_number, why)
