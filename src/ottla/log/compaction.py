"""The records that log compaction keeps (the decisions of Kafka's LogCleaner, Cleaner and
MemoryRecords.filterTo). Pure.

Of each key the last record stays. A tombstone, a record without a value, stays until its delete horizon has
passed (KIP-534): the first compaction that meets it sets the batch's horizon to ``delete.retention.ms`` from
then on, a later one drops it. Offsets never change: a batch keeps its base and last offset whatever is left
of it. Records of aborted transactions are removed, and so are markers without other records, once their own
horizon has passed. The functions that walk over records are generators, which yield what they have done so
far in records, so that whoever drives them can pause.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import suppress
from hashlib import blake2b
from typing import NamedTuple

from ottla.errors import KafkaError
from ottla.log.cleaned_transactions import CleanedTransactions
from ottla.log.index import RELATIVE_OFFSET_MAX
from ottla.log.markers import marker_of
from ottla.log.producers import LastRecord
from ottla.types import Buffer
from ottla.wire.compression import compress
from ottla.wire.records import (
    CODEC_MASK,
    DELETE_HORIZON_BIT,
    LOG_APPEND_TIME,
    NO_TIMESTAMP,
    BatchHeader,
    as_long,
    batch_crc,
    read_varint,
    seal_batch,
    unpack_records,
    write_varint,
)

LONG_MAX = 2**63 - 1

# Keys up to this size are remembered as they are. Of longer ones a digest of one byte more is: no short key
# can be equal to it.
KEY_BYTES_MAX = 32
DIGEST_BYTES = KEY_BYTES_MAX + 1
# Bytes that are copied in one step: a millisecond's work at most, during which no other thread runs.
COPIED_AT_ONCE_BYTES = 1024 * 1024
# What a key and its offset take in memory at worst: two small objects and their place in a dict.
ENTRY_BYTES = 192
# Records that are walked over in one piece, which takes about a millisecond.
RECORDS_AT_ONCE = 1000
# A map is gone through so many entries at a time.
ENTRIES_AT_ONCE = 10 * RECORDS_AT_ONCE
# Where the last records of keys are is known for so many equal parts of what a map covers.
PARTS_MAX = 1 << 20
# Segments that are merged into one at a time: they change places in one step, on the event loop.
MERGED_SEGMENTS_MAX = 16

# What a step of work counts as, in records.
Steps = Iterator[int]


class OffsetMap:
    """The last offset of each key in a stretch of a log (Kafka's SkimpyOffsetMap).

    ``entries_max`` is looked at between batches: it may be exceeded by what one batch holds.
    """

    __slots__ = ("_entries_max", "_offsets", "_parts", "_shift", "latest_offset", "start_offset", "unread")

    def __init__(self, entries_max: int, start_offset: int) -> None:
        self._entries_max = entries_max
        self._offsets: dict[bytes, int] = {}
        # Of each stretch of 2^shift offsets, whether any key's last one is in it; once the map is complete.
        self._parts = bytearray()
        self._shift = 0
        # All batches from the one up to the other are in the map, but for those that cannot be read.
        self.start_offset = start_offset
        self.latest_offset = start_offset - 1
        # Base offsets of batches that are not what their header says: they are left as they are.
        self.unread: set[int] = set()

    def __len__(self) -> int:
        return len(self._offsets)

    @property
    def is_full(self) -> bool:
        return len(self._offsets) >= self._entries_max

    def take(self, found: Mapping[bytes, int]) -> None:
        """Take in keys with offsets that are all later than those before."""
        self._offsets.update(found)

    def complete(self) -> Steps:
        """No more comes: ``may_have_last_between`` can be asked then."""
        span = self.latest_offset - self.start_offset + 1
        self._shift = max(0, span.bit_length() - PARTS_MAX.bit_length() + 1)
        self._parts = bytearray((span >> self._shift) + 1)
        for number, offset in enumerate(self._offsets.values(), 1):
            self._parts[(offset - self.start_offset) >> self._shift] = 1
            if number % ENTRIES_AT_ONCE == 0:
                yield RECORDS_AT_ONCE

    def forget(self) -> Steps:
        """Give back the memory, which at once would take long."""
        while self._offsets:
            for _ in range(min(len(self._offsets), ENTRIES_AT_ONCE)):
                self._offsets.popitem()
            yield RECORDS_AT_ONCE

    def last_offset(self, key: Buffer) -> int:
        """The last offset of a key, -1 where it is not in the map."""
        return self._offsets.get(map_key(key), -1)

    def may_have_last_between(self, first: int, last: int) -> bool:
        """Whether any key's last offset is within [first, last], or close to it."""
        start, shift = self.start_offset, self._shift
        return self._parts.find(1, (first - start) >> shift, ((last - start) >> shift) + 1) >= 0


def map_key(key: Buffer) -> bytes:
    """What stands for a key in the map; a short one comes as bytes."""
    return (
        key
        if type(key) is bytes and len(key) <= KEY_BYTES_MAX
        else blake2b(key, digest_size=DIGEST_BYTES).digest()
    )


# -- walking over records -----------------------------------------------------------------------------------


class Scanned(NamedTuple):
    """A record: where it lies in the batch's unpacked bytes, and what decides whether it is kept."""

    start: int
    end: int
    timestamp_delta: int
    offset_delta: int
    key: Buffer | None
    is_tombstone: bool


def scan(data: Buffer, position: int, count: int, offset_delta: int) -> list[Scanned]:
    """``count`` records from a position on, with offsets after ``offset_delta``.

    IndexError, ValueError: they are malformed. Half of what compaction costs is spent here.
    """
    found = []
    size = len(data)
    is_view = type(data) is not bytes
    make = Scanned._make
    for _ in range(count):
        start = position
        byte = data[position]
        if byte < 0x80:
            length = (byte >> 1) ^ -(byte & 1)
            position += 1
        else:
            length, position = read_varint(data, position)
        end = position + length
        timestamp_delta, position = read_varint(data, position + 1)
        before = offset_delta
        byte = data[position]
        if byte < 0x80:
            offset_delta = (byte >> 1) ^ -(byte & 1)
            position += 1
        else:
            offset_delta, position = read_varint(data, position)
        byte = data[position]
        if byte < 0x80:
            key_bytes = (byte >> 1) ^ -(byte & 1)
            position += 1
        else:
            key_bytes, position = read_varint(data, position)
        key = None
        if key_bytes >= 0:
            key = data[position : position + key_bytes]
            if is_view and key_bytes <= KEY_BYTES_MAX:
                # Only bytes are found in a map of bytes.
                key = bytes(key)
            position += key_bytes
        is_tombstone = data[position] & 1 == 1
        if position >= end or end > size or offset_delta <= before:
            raise ValueError("a record's fields do not fit together")
        found.append(make((start, end, timestamp_delta, offset_delta, key, is_tombstone)))
        position = end
    return found


def pieces(header: BatchHeader, payload: Buffer) -> Iterator[list[Scanned]]:
    """All records of a batch, some at a time. IndexError, ValueError: they are not what the header says."""
    position, last, left = 0, -1, header.record_count
    while left > 0:
        found = scan(payload, position, min(left, RECORDS_AT_ONCE), last)
        position, last = found[-1].end, found[-1].offset_delta
        left -= len(found)
        yield found
    if position != len(payload) or left or last > header.last_offset_delta:
        raise ValueError("the batch does not hold what its header says")


def unpack(header: BatchHeader, batch: Buffer) -> Buffer:
    """A batch's records; a view of them where they are large, since a copy in one piece would keep the event
    loop waiting, in whichever thread it is made.

    KafkaError, ValueError: they are damaged, and must not get a right checksum.
    """
    if batch_crc(batch) != header.crc:
        raise ValueError("the batch's checksum does not match its bytes")
    unpacked = unpack_records(batch)
    return bytes(unpacked) if len(unpacked) <= COPIED_AT_ONCE_BYTES else memoryview(unpacked)


# -- the map ------------------------------------------------------------------------------------------------


def map_batch(
    offsets: OffsetMap, header: BatchHeader, batch: Buffer, transactions: CleanedTransactions
) -> Steps:
    """Take a batch's keys into the map: the next one of the log. Not those that were aborted, nor of control
    records; those of a batch that cannot be read are not known."""
    if header.is_control:
        with suppress(KafkaError, IndexError, ValueError):
            transactions.meet_marker(header, marker_of(header, batch))
    elif not transactions.meet(header):
        found: dict[bytes, int] = {}
        base_offset = header.base_offset
        try:
            for piece in pieces(header, unpack(header, batch)):
                for record in piece:
                    if record.key is not None:
                        found[map_key(record.key)] = base_offset + record.offset_delta
                yield len(piece)
            offsets.take(found)
        except (KafkaError, IndexError, ValueError):
            offsets.unread.add(base_offset)
    offsets.latest_offset = header.last_offset


# -- filtering ----------------------------------------------------------------------------------------------


class Filter(NamedTuple):
    """What a round of compaction goes by."""

    offsets: OffsetMap
    now_ms: int
    delete_retention_ms: int
    # What the log has last of each producer that it knows: sequence numbers and epochs go on from there.
    producers: Mapping[int, LastRecord]
    # Those that the round has come across, up to the batch that is looked at.
    transactions: CleanedTransactions

    def keep(self, header: BatchHeader, batch: Buffer, *, is_last: bool) -> Generator[int, None, Buffer]:
        """What stays of a batch: all of it as it is, a batch of what is left, or nothing, which is b"".

        A batch that ``is_last`` of its segment, or of its producer, stays without records rather than not at
        all, so that neither offsets nor sequence numbers are forgotten.
        """
        offsets = self.offsets
        keeps_empty = is_last or (header.producer_id >= 0 and self._is_last_of_producer(header))
        if header.is_control:
            return (yield from self._keep_marker(header, batch, keeps_empty))
        is_aborted = self.transactions.meet(header)
        if header.base_offset in offsets.unread:
            return batch
        if is_aborted and header.record_count:
            return _empty(header) if keeps_empty else b""
        if header.base_offset > offsets.latest_offset:
            return batch
        if not header.record_count:
            return batch if keeps_empty else b""
        is_mapped = header.base_offset >= offsets.start_offset
        if is_mapped and not offsets.may_have_last_between(header.base_offset, header.last_offset):
            return _empty(header) if keeps_empty else b""
        try:
            payload = unpack(header, batch)
            kept: list[Scanned] = []
            for piece in pieces(header, payload):
                kept += self._kept_of(header, piece)
                yield len(piece)
        except (KafkaError, IndexError, ValueError):
            return batch
        if not kept:
            return _empty(header) if keeps_empty else b""
        sets_horizon = not header.attributes & DELETE_HORIZON_BIT and any(one.is_tombstone for one in kept)
        return (yield from self._rebuild(header, batch, payload, kept, sets_horizon))

    def _is_last_of_producer(self, header: BatchHeader) -> bool:
        """Whether a batch is what the log has last of its producer: of one that has written nothing since its
        epoch was raised, the marker that did it."""
        last = self.producers.get(header.producer_id)
        if last is None:
            return False
        if last.offset >= 0:
            return header.last_offset == last.offset
        return header.is_control and header.producer_epoch == last.epoch

    def _keep_marker(
        self, header: BatchHeader, batch: Buffer, keeps_empty: bool
    ) -> Generator[int, None, Buffer]:
        """What stays of a control batch. Where nothing is left of its transaction it gets a horizon; who had
        begun to read the transaction before that has until then to come to its end."""
        try:
            is_needless = self.transactions.meet_marker(header, marker_of(header, batch))
            if not header.record_count:
                return batch if keeps_empty else b""
            if not is_needless:
                return batch
            if header.attributes & DELETE_HORIZON_BIT:
                if header.base_timestamp_ms > self.now_ms:
                    return batch
                return _empty(header) if keeps_empty else b""
            payload = unpack(header, batch)
            kept = [record for piece in pieces(header, payload) for record in piece]
        except (KafkaError, IndexError, ValueError):
            return batch
        return (yield from self._rebuild(header, batch, payload, kept, True))

    def _kept_of(self, header: BatchHeader, piece: list[Scanned]) -> list[Scanned]:
        base_offset, latest_offset = header.base_offset, self.offsets.latest_offset
        last_offset = self.offsets.last_offset
        expired = bool(header.attributes & DELETE_HORIZON_BIT) and header.base_timestamp_ms <= self.now_ms
        kept = []
        for record in piece:
            offset = base_offset + record.offset_delta
            if offset > latest_offset or (
                record.key is not None
                and last_offset(record.key) <= offset
                and not (expired and record.is_tombstone)
            ):
                kept.append(record)
        return kept

    def _rebuild(
        self, header: BatchHeader, batch: Buffer, payload: Buffer, kept: list[Scanned], sets_horizon: bool
    ) -> Generator[int, None, Buffer]:
        """A batch of the records that are kept: their bytes as they were, unless a horizon is to be set."""
        if len(kept) == header.record_count and not sets_horizon:
            return batch
        base_timestamp_ms = header.base_timestamp_ms
        max_timestamp_ms = header.max_timestamp_ms
        if header.timestamp_type != LOG_APPEND_TIME:
            max_timestamp_ms = max(as_long(base_timestamp_ms + record.timestamp_delta) for record in kept)
        attributes = header.attributes
        if sets_horizon:
            # The horizon takes the place of the base timestamp, which all others are relative to.
            attributes |= DELETE_HORIZON_BIT
            horizon_ms = min(self.now_ms + self.delete_retention_ms, LONG_MAX)
            body = bytearray()
            for first in range(0, len(kept), RECORDS_AT_ONCE):
                piece = kept[first : first + RECORDS_AT_ONCE]
                for record in piece:
                    _write_with_delta(body, payload, record, base_timestamp_ms - horizon_ms)
                yield len(piece)
            base_timestamp_ms = horizon_ms
        else:
            body = _gathered(payload, kept)
        rebuilt = header.replaced(
            attributes=attributes,
            base_timestamp_ms=base_timestamp_ms,
            max_timestamp_ms=max_timestamp_ms,
            record_count=len(kept),
        )
        return seal_batch(rebuilt, compress(header.compression, body) if header.compression else body)


def _gathered(payload: Buffer, kept: list[Scanned]) -> bytearray:
    """The bytes of the records that are kept."""
    if type(payload) is bytes:
        return bytearray().join([payload[record.start : record.end] for record in kept])
    body = bytearray()
    for record in kept:
        _add_view(body, payload, record.start, record.end)
    return body


def _add_view(out: bytearray, payload: Buffer, start: int, end: int) -> None:
    """Copy bytes, never so many that others have to wait long for the interpreter."""
    while start < end:
        to = min(end, start + COPIED_AT_ONCE_BYTES)
        out += payload[start:to]
        start = to


def _write_with_delta(out: bytearray, payload: Buffer, record: Scanned, moved_by_ms: int) -> None:
    """A record with its timestamp relative to another base."""
    _, body = read_varint(payload, record.start)
    _, rest = read_varint(payload, body + 1)
    head = bytearray(payload[body : body + 1])
    write_varint(head, as_long(record.timestamp_delta + moved_by_ms))
    write_varint(out, len(head) + record.end - rest)
    out += head
    _add_view(out, payload, rest, record.end)


def _empty(header: BatchHeader) -> bytes:
    """A batch without records that keeps offsets, sequence numbers and the time."""
    attributes = header.attributes & ~(CODEC_MASK | DELETE_HORIZON_BIT)
    left = header.replaced(attributes=attributes, base_timestamp_ms=NO_TIMESTAMP, record_count=0)
    return seal_batch(left, b"")


# -- what to compact ----------------------------------------------------------------------------------------


class Extent(NamedTuple):
    """A closed segment, as the decisions see it. ``end_offset`` is where the next one begins."""

    base_offset: int
    end_offset: int
    size: int
    index_bytes: int = 0
    time_index_bytes: int = 0


def first_dirty_offset(cleaned_offset: int, log_start_offset: int, log_end_offset: int) -> int:
    """Where compaction goes on: where it ended, if the log still holds that; otherwise from its start."""
    return cleaned_offset if log_start_offset <= cleaned_offset <= log_end_offset else log_start_offset


def dirty_ratio(closed: Sequence[Extent], dirty_offset: int, end_offset: int) -> float:
    """The share of bytes before ``end_offset`` that are in segments which reach beyond ``dirty_offset``."""
    clean = dirty = 0
    for segment in closed:
        if segment.base_offset >= end_offset:
            break
        if segment.base_offset < dirty_offset:
            clean += segment.size
        if segment.end_offset > dirty_offset:
            dirty += segment.size
    return dirty / (clean + dirty) if dirty else 0.0


def group(
    closed: Sequence[Extent], segment_bytes: int, index_bytes: int, count_max: int = MERGED_SEGMENTS_MAX
) -> list[list[int]]:
    """The numbers of segments that together fit into one (Cleaner.groupSegmentsBySize)."""
    groups: list[list[int]] = []
    size = index = time_index = 0
    for number, segment in enumerate(closed):
        size += segment.size
        index += segment.index_bytes
        time_index += segment.time_index_bytes
        fits = (
            bool(groups)
            and len(groups[-1]) < count_max
            and size <= segment_bytes
            and max(index, time_index) <= index_bytes
            and segment.end_offset - 1 - closed[groups[-1][0]].base_offset <= RELATIVE_OFFSET_MAX
        )
        if fits:
            groups[-1].append(number)
        else:
            groups.append([number])
            size, index, time_index = segment.size, segment.index_bytes, segment.time_index_bytes
    return groups
