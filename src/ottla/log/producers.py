"""What a log knows of the idempotent producers that write to it (Kafka's ProducerStateManager). Pure.

For each producer id: its epoch and the last five batches it appended. A batch that repeats one of them is
answered with the offsets it already has; one that does not follow the last is refused. The state follows
from the log, so it can be rebuilt from it; snapshots save the time.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, NamedTuple

from ottla.checksum import crc32c
from ottla.errors import ErrorCode, KafkaError
from ottla.log.markers import EndMarker
from ottla.log.producer_entry import NO_BATCH, AppendedBatch, ProducerEntry
from ottla.log.settings import Origin
from ottla.log.transactions import Completed, Transactions
from ottla.log.verification import Verification, VerificationGuard, Verifications
from ottla.wire.records import (
    CONTROL_BIT,
    NO_PRODUCER_EPOCH,
    NO_SEQUENCE,
    TRANSACTIONAL_BIT,
    BatchHeader,
    add_sequence,
)

# Producers that are looked at for their age before others have their turn: a millisecond or two.
EXPIRED_AT_ONCE: Final = 10_000

# Markers whose truncation needs nothing read, in each log: as many as may be in flight.
UNDONE_MAX: Final = 256

# The last epoch of a producer; the transaction.version from which on it goes up with each transaction's end.
EPOCH_MAX: Final = 2**15 - 1
EPOCH_BUMPED_SINCE: Final = 2

SNAPSHOT_VERSION: Final = 1
_SNAPSHOT_HEADER: Final = struct.Struct(">hIi")
_SNAPSHOT_ENTRY: Final = struct.Struct(">qhiqiqiq")
# Looking an enum's member up takes a while.
_CLIENT: Final = Origin.CLIENT
# The checksum covers everything after itself.
_SNAPSHOT_CRC_START: Final = 6


class LastRecord(NamedTuple):
    """What a log has last of a producer: the offset where its last batch ends, -1 where there has been none
    in its epoch."""

    offset: int
    epoch: int


class Undo(NamedTuple):
    """What there was of a producer, None for nothing, before the marker at an offset; or before the batch
    that ends there, where that is the first in its epoch behind a marker."""

    offset: int
    producer_id: int
    entry: ProducerEntry | None


class Frozen(NamedTuple):
    """All producers of a log as they were at an offset. It does not change: any thread may read it."""

    end_offset: int
    entries: Sequence[ProducerEntry]

    def last_records(self) -> dict[int, LastRecord]:
        """What there is last of each producer (UnifiedLog.lastRecordsOfActiveProducers)."""
        return {
            entry.producer_id: LastRecord((entry.last_batch or NO_BATCH).last_offset, entry.epoch)
            for entry in self.entries
        }


class Producers:
    """All producers of one log, up to ``end_offset``: the state before the batch that begins there."""

    __slots__ = (
        "_entries", "_generation", "_last_marker_offset", "_markers_from", "_undo_from", "_undos",
        "end_offset", "expiration_ms", "transactions", "verifications",
    )  # fmt: skip

    def __init__(self, end_offset: int, expiration_ms: int) -> None:
        self._entries: dict[int, ProducerEntry] = {}
        # Those that the producers have open, and those whose ends are not committed yet.
        self.transactions = Transactions()
        # Of those that producers are about to open.
        self.verifications = Verifications()
        self.end_offset = end_offset
        self.expiration_ms = expiration_ms
        self._generation = 0
        # Where the last marker is that was taken in, and from where on all have been.
        self._last_marker_offset, self._markers_from = -1, end_offset
        # How the last markers can be taken back, and from where on all can be.
        self._undos: deque[Undo] = deque()
        self._undo_from = end_offset

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
            and header.producer_id not in self.verifications.waiting
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
            if marker is not None:
                self._note_undo(Undo(last_offset, header.producer_id, None))
        else:
            is_first = entry.coordinator_epoch >= 0 and entry.next_sequence == NO_SEQUENCE
            if marker is not None or is_first:
                self._note_undo(Undo(last_offset, header.producer_id, entry.copy(entry.generation)))
            if entry.generation != self._generation:
                entry = self._thawed(entry)
        if entry.epoch != header.producer_epoch:
            entry.is_whole = entry.is_whole and entry.next_sequence == NO_SEQUENCE
            entry.keep(())
            entry.epoch = header.producer_epoch
        entry.last_timestamp_ms = header.max_timestamp_ms
        if marker is not None:
            self._last_marker_offset = last_offset
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

    def _note_undo(self, undo: Undo) -> None:
        self._undos.append(undo)
        if len(self._undos) > UNDONE_MAX:
            self._undo_from = self._undos.popleft().offset + 1

    def committed_to(self, high_watermark: int) -> None:
        """Everything before ``high_watermark`` is committed: who cuts it off has it read again."""
        self.transactions.committed_to(high_watermark)
        undos = self._undos
        while undos and undos[0].offset < high_watermark:
            self._undo_from = undos.popleft().offset + 1

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

        The producers' last batches are known, and what the last markers have changed; and those that a
        follower has to cut off were in flight.
        """
        if end_offset <= self._last_marker_offset and end_offset < self._undo_from:
            return False
        # As they were before the first marker that is cut off.
        before = {undo.producer_id: undo.entry for undo in reversed(self._undos) if undo.offset >= end_offset}
        entries = {**self._entries, **before} if before else self._entries
        cut: list[ProducerEntry] = []
        for entry in entries.values():
            if entry is None:
                continue
            if entry.coordinator_epoch >= 0 and end_offset < self._markers_from:
                return False
            last = entry.last_batch
            if last is not None and last.last_offset >= end_offset:
                is_whole = entry.is_whole and not entry.is_full and entry.coordinator_epoch < 0
                if entry.batches[0].last_offset >= end_offset and not is_whole:
                    return False
                cut.append(entry)
        if before:
            self._entries = {entry.producer_id: entry for entry in entries.values() if entry is not None}
        for entry in cut:
            self._cut(entry, end_offset)
        if before:
            self._reopen(end_offset)
        else:
            self.transactions.cut(end_offset)
        self.end_offset = end_offset
        return True

    def _cut(self, entry: ProducerEntry, end_offset: int) -> None:
        """Take back what there is of a producer from an offset on: batches alone."""
        entry = self._thawed(entry)
        batches = [one for one in entry.batches if one.last_offset < end_offset]
        entry.is_whole = entry.is_whole and not entry.is_full
        entry.keep(batches)
        if entry.txn_first_offset >= end_offset:
            entry.txn_first_offset = -1
        if batches:
            entry.last_timestamp_ms = batches[-1].timestamp_ms
        else:
            del self._entries[entry.producer_id]

    def _reopen(self, end_offset: int) -> None:
        """Markers were cut off: what they ended is open again, as far as it has begun."""
        opened = [(one.txn_first_offset, one.producer_id) for one in self._entries.values()]
        self.transactions.restart([one for one in opened if one[0] >= 0], end_offset)
        undos = self._undos
        while undos and undos[-1].offset >= end_offset:
            undos.pop()
        self._last_marker_offset = undos[-1].offset if undos else self._undo_from - 1

    def clear(self, end_offset: int) -> None:
        self._entries.clear()
        # There may have been markers among what is not read here.
        self.verifications.waiting.clear()
        self.transactions.restart((), -1)
        self._begin_at(end_offset)

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
        self._begin_at(end_offset)

    def _begin_at(self, end_offset: int) -> None:
        """This is the state at an offset; what markers there are before it is not known."""
        self.end_offset = self._markers_from = self._undo_from = end_offset
        self._last_marker_offset = -1
        self._undos.clear()


def encode_snapshot(entries: Iterable[ProducerEntry]) -> bytes:
    """The contents of a ``.snapshot`` file.

    Kafka writes each producer's last batch, so that after a restart it takes a repeat of one before it for a
    gap. Here the last five follow each other; Kafka's reader keeps the last of them.
    """
    data = bytearray(_SNAPSHOT_HEADER.size)
    for entry in entries:
        *earlier, last = entry.recent or (NO_BATCH,)
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
