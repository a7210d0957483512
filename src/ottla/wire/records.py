"""Record batches, format v2 (Kafka's DefaultRecordBatch and DefaultRecord, KIP-98).

A batch is a header of 61 bytes and its records, which may be compressed as one block. The first 16 bytes
(base offset, length, leader epoch) are not covered by the CRC, so that a broker can stamp them in place;
everything from the attributes on is. Offsets are absolute, timestamps are milliseconds since the Unix epoch.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, final

from ottla.checksum import crc32c
from ottla.errors import ErrorCode, KafkaError
from ottla.types import Buffer, Record
from ottla.wire.compression import UNPACKED_BYTES_MAX, compress, decompress

HEADER: Final = struct.Struct(">qiibIhiqqqhii")
HEADER_BYTES: Final = 61
assert HEADER.size == HEADER_BYTES
# The same in two: up to the checksum, and what that covers.
_UNCHECKED: Final = struct.Struct(">qiibI")
_CHECKED: Final = struct.Struct(">hiqqqhii")

# What a broker stamps: base offset, length, leader epoch.
STAMP: Final = struct.Struct(">qii")
STAMP_BYTES: Final = 16
assert STAMP.size == STAMP_BYTES
# Base offset and length come before what the length counts.
LENGTH_OVERHEAD_BYTES: Final = 12
# The CRC covers everything from the attributes on.
CRC_POSITION: Final = 17
CRC_START: Final = 21

MAGIC: Final = 2
CODEC_MASK: Final = 0x07
TIMESTAMP_TYPE_BIT: Final = 0x08
TRANSACTIONAL_BIT: Final = 0x10
CONTROL_BIT: Final = 0x20
DELETE_HORIZON_BIT: Final = 0x40

CREATE_TIME: Final = 0
LOG_APPEND_TIME: Final = 1

NO_TIMESTAMP: Final = -1
NO_PRODUCER_ID: Final = -1
NO_PRODUCER_EPOCH: Final = -1
NO_SEQUENCE: Final = -1
SEQUENCE_MAX: Final = 2**31 - 1

# A record takes at least its length, attributes, two deltas, two lengths and a header count.
RECORD_BYTES_MIN: Final = 7

_Fields = tuple[int, int, int, int, int, int, int, int, int, int, int, int, int]
_unpack_header: Final = HEADER.unpack_from
_crc32c: Final = crc32c


@final
class BatchHeader:
    """A batch's header, field by field as on disk. Whoever made one for a batch of its own may change it."""

    __slots__ = (
        "attributes", "base_offset", "base_sequence", "base_timestamp_ms", "crc", "last_offset_delta",
        "length", "magic", "max_timestamp_ms", "partition_leader_epoch", "producer_epoch", "producer_id",
        "record_count",
    )  # fmt: skip

    def __init__(
        self,
        base_offset: int,
        length: int,
        partition_leader_epoch: int,
        magic: int,
        crc: int,
        attributes: int,
        last_offset_delta: int,
        base_timestamp_ms: int,
        max_timestamp_ms: int,
        producer_id: int,
        producer_epoch: int,
        base_sequence: int,
        record_count: int,
    ) -> None:
        self.base_offset = base_offset
        self.length = length
        self.partition_leader_epoch = partition_leader_epoch
        self.magic = magic
        self.crc = crc
        self.attributes = attributes
        self.last_offset_delta = last_offset_delta
        self.base_timestamp_ms = base_timestamp_ms
        self.max_timestamp_ms = max_timestamp_ms
        self.producer_id = producer_id
        self.producer_epoch = producer_epoch
        self.base_sequence = base_sequence
        self.record_count = record_count

    def fields(self) -> tuple[int, ...]:
        """As they lie in a batch: what ``HEADER`` packs."""
        return (
            self.base_offset, self.length, self.partition_leader_epoch, self.magic, self.crc, self.attributes,
            self.last_offset_delta, self.base_timestamp_ms, self.max_timestamp_ms, self.producer_id,
            self.producer_epoch, self.base_sequence, self.record_count,
        )  # fmt: skip

    def replaced(self, **changes: int) -> BatchHeader:
        """The same with some fields changed."""
        new = BatchHeader(*self.fields())
        for name, value in changes.items():
            setattr(new, name, value)
        return new

    @property
    def size(self) -> int:
        """Bytes of the whole batch."""
        return self.length + LENGTH_OVERHEAD_BYTES

    @property
    def last_offset(self) -> int:
        return self.base_offset + self.last_offset_delta

    @property
    def next_offset(self) -> int:
        return self.base_offset + self.last_offset_delta + 1

    @property
    def compression(self) -> int:
        return self.attributes & CODEC_MASK

    @property
    def timestamp_type(self) -> int:
        return LOG_APPEND_TIME if self.attributes & TIMESTAMP_TYPE_BIT else CREATE_TIME

    @property
    def is_transactional(self) -> bool:
        return bool(self.attributes & TRANSACTIONAL_BIT)

    @property
    def is_control(self) -> bool:
        return bool(self.attributes & CONTROL_BIT)

    @property
    def last_sequence(self) -> int:
        """The last record's sequence number; -1 for a producer that numbers nothing."""
        if self.base_sequence == NO_SEQUENCE:
            return NO_SEQUENCE
        return add_sequence(self.base_sequence, self.last_offset_delta)


def add_sequence(sequence: int, delta: int) -> int:
    """``sequence + delta`` in the numbers that wrap from 2^31-1 to 0; ``delta`` may be negative."""
    return (sequence + delta) & SEQUENCE_MAX


def read_header(buffer: Buffer, position: int = 0) -> BatchHeader:
    """The header at ``position``. KafkaError CORRUPT_MESSAGE where there are not 61 bytes for one."""
    if len(buffer) - position < HEADER_BYTES:
        raise KafkaError(ErrorCode.corrupt_message, "the batch is shorter than a batch header")
    return header_at(buffer, position)


def header_at(buffer: Buffer, position: int) -> BatchHeader:
    """The header at ``position``, where there are bytes enough for one."""
    fields: _Fields = _unpack_header(buffer, position)
    (
        base_offset, length, epoch, magic, crc, attributes, last_offset_delta, base_timestamp_ms,
        max_timestamp_ms, producer_id, producer_epoch, base_sequence, record_count,
    ) = fields  # fmt: skip
    return BatchHeader(
        base_offset, length, epoch, magic, crc, attributes, last_offset_delta, base_timestamp_ms,
        max_timestamp_ms, producer_id, producer_epoch, base_sequence, record_count,
    )  # fmt: skip


def iter_batches(buffer: Buffer) -> Iterator[tuple[BatchHeader, memoryview]]:
    """Each whole batch in ``buffer`` with its header; a batch that is cut off at the end is left out.

    Kafka ends a fetch response where the bytes run out, so a cut batch is no error. A length that no batch
    can have is: CORRUPT_MESSAGE.
    """
    view = memoryview(buffer)
    position, end = 0, len(view)
    while end - position >= HEADER_BYTES:
        header = header_at(view, position)
        if header.length < HEADER_BYTES - LENGTH_OVERHEAD_BYTES:
            raise KafkaError(ErrorCode.corrupt_message, f"a batch claims a length of {header.length} bytes")
        if header.size > end - position:
            return
        yield header, view[position : position + header.size]
        position += header.size


def batch_crc(batch: Buffer) -> int:
    """CRC32C over what a batch's checksum covers."""
    return crc32c(memoryview(batch)[CRC_START:])


def check_batch(batch: Buffer) -> BatchHeader:
    """The header of one whole batch whose length, magic and checksum hold.

    KafkaError: CORRUPT_MESSAGE, or UNSUPPORTED_FOR_MESSAGE_FORMAT for the formats before v2.
    """
    header = read_header(batch)
    if header.magic != MAGIC:
        if header.magic in (0, 1):
            raise KafkaError(
                ErrorCode.unsupported_for_message_format,
                f"message format v{header.magic} is no longer supported: use a client that writes v2 batches",
            )
        raise KafkaError(ErrorCode.corrupt_message, f"unknown batch format {header.magic}")
    if header.size != len(batch):
        raise KafkaError(
            ErrorCode.corrupt_message, f"a batch of {len(batch)} bytes claims to have {header.size}"
        )
    if batch_crc(batch) != header.crc:
        raise KafkaError(ErrorCode.corrupt_message, "the batch's checksum does not match its bytes")
    return header


def unpack_records(batch: Buffer, size_max: int = UNPACKED_BYTES_MAX) -> Buffer:
    """The records of a batch as plain bytes; not copied where they are not compressed."""
    codec = HEADER.unpack_from(batch)[5] & CODEC_MASK
    payload = memoryview(batch)[HEADER_BYTES:]
    return decompress(codec, payload, size_max) if codec else payload


def iter_records(batch: Buffer) -> Iterator[Record]:
    """The records of one batch, decompressed, with absolute offsets and timestamps.

    KafkaError: INVALID_RECORD where the records are not what the header says, CORRUPT_MESSAGE where they
    cannot be unpacked. The checksum is not looked at: see ``check_batch``.
    """
    header = read_header(batch)
    payload = bytes(unpack_records(batch))
    append_time = header.max_timestamp_ms if header.timestamp_type == LOG_APPEND_TIME else None
    position = 0
    for _ in range(header.record_count):
        try:
            record, position = _read_record(payload, position, header, append_time)
        except (IndexError, ValueError) as error:
            raise invalid(f"a record cannot be read: {error}") from error
        yield record
    if position != len(payload):
        raise invalid(
            f"{len(payload) - position} bytes are left after the last record that the batch declares"
        )


def _read_record(
    data: bytes, position: int, header: BatchHeader, append_time: int | None
) -> tuple[Record, int]:
    """The record at ``position`` and where the next begins. IndexError, ValueError: it is malformed."""
    length, position = read_varint(data, position)
    end = position + length
    if length < 0 or end > len(data):
        raise ValueError(f"its length of {length} bytes does not fit into the batch")
    timestamp_delta, position = read_varint(data, position + 1)  # past the attributes, which mean nothing yet
    offset_delta, position = read_varint(data, position)
    key, position = _read_bytes(data, position, end)
    value, position = _read_bytes(data, position, end)
    count, position = read_varint(data, position)
    if not 0 <= count <= end - position:
        raise ValueError(f"it claims {count} headers")
    headers: tuple[tuple[str, bytes | None], ...] = ()
    if count:
        pairs = []
        for _ in range(count):
            name, position = _read_bytes(data, position, end)
            if name is None:
                raise ValueError("a header has no name")
            content, position = _read_bytes(data, position, end)
            pairs.append((name.decode(), content))
        headers = tuple(pairs)
    if position != end:
        raise ValueError(f"its fields end {end - position} bytes before its length")
    timestamp = as_long(header.base_timestamp_ms + timestamp_delta) if append_time is None else append_time
    return Record(header.base_offset + offset_delta, timestamp, key, value, headers), end


def _read_bytes(data: bytes, position: int, end: int) -> tuple[bytes | None, int]:
    length, position = read_varint(data, position)
    if length < 0:
        if length != -1:
            raise ValueError(f"a field claims {length} bytes")
        return None, position
    stop = position + length
    if stop > end:
        raise ValueError(f"a field of {length} bytes does not fit into its record")
    return data[position:stop], stop


def as_long(value: int) -> int:
    """What a sum comes to in 64 bits, where Java's wraps around: clients may send any base and any delta."""
    return ((value + 2**63) & (2**64 - 1)) - 2**63


def read_varint(data: Buffer, position: int) -> tuple[int, int]:
    """A zigzag varint of up to 64 bits and the position after it. IndexError where the bytes run out."""
    byte = data[position]
    position += 1
    if byte < 0x80:
        return (byte >> 1) ^ -(byte & 1), position
    value = byte & 0x7F
    shift = 7
    while byte & 0x80:
        if shift > 63:
            raise ValueError("a number has more than ten bytes")
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        shift += 7
    return (value >> 1) ^ -(value & 1), position


def write_varint(out: bytearray, value: int) -> None:
    """Append ``value`` (64 bits, signed) as a zigzag varint."""
    value = (value << 1) ^ (value >> 63)
    while value > 0x7F:
        out.append((value & 0x7F) | 0x80)
        value >>= 7
    out.append(value)


def _varint(value: int) -> bytes:
    out = bytearray()
    write_varint(out, value)
    return bytes(out)


# The varints of small numbers, and of -1 at the end: where Python looks for it.
_VARINTS_MAX: Final = 256
_VARINTS: Final = (*map(_varint, range(_VARINTS_MAX)), _varint(-1))


def _plain(delta_ms: int, number: int, key_size: int, key: bytes, value_size: int, value: bytes) -> bytes:
    """A record without headers, all of whose numbers are small, behind its length."""
    numbers = _VARINTS
    return b"".join(
        (b"\0", numbers[delta_ms], numbers[number], numbers[key_size], key, numbers[value_size], value, b"\0")
    )


def invalid(message: str) -> KafkaError:
    return KafkaError(ErrorCode.invalid_record, message)


def build_batch(
    records: Iterable[Record] | Sequence[Record],
    *,
    base_offset: int = 0,
    compression: int = 0,
    producer_id: int = NO_PRODUCER_ID,
    producer_epoch: int = NO_PRODUCER_EPOCH,
    base_sequence: int = NO_SEQUENCE,
    leader_epoch: int = -1,
    transactional: bool = False,
    control: bool = False,
    timestamp_type: int = CREATE_TIME,
) -> bytes:
    """One batch of ``records``, numbered from ``base_offset`` on: the offsets inside them are not used.

    ValueError where there is no record.
    """
    builder = BatchBuilder()
    for record in records:
        builder.add(record)
    return builder.seal(
        base_offset=base_offset,
        compression=compression,
        producer_id=producer_id,
        producer_epoch=producer_epoch,
        base_sequence=base_sequence,
        leader_epoch=leader_epoch,
        transactional=transactional,
        control=control,
        timestamp_type=timestamp_type,
    )


class BatchBuilder:
    """Records that are to be one batch, packed as they come."""

    __slots__ = ("_base_timestamp_ms", "_max_timestamp_ms", "_packed", "count", "size")

    def __init__(self) -> None:
        self.count = 0
        # Bytes that the batch would have, uncompressed.
        self.size = HEADER_BYTES
        # Of each record, in one or two pieces.
        self._packed: list[bytes] = []
        self._base_timestamp_ms = self._max_timestamp_ms = NO_TIMESTAMP

    def add(self, record: Record) -> None:
        """Behind the others; the record's own offset is not used."""
        self.append(record.timestamp_ms, record.key, record.value, record.headers)

    def append(
        self,
        timestamp_ms: int,
        key: bytes | None,
        value: bytes | None,
        headers: Sequence[tuple[str, bytes | None]] = (),
    ) -> None:
        """A record behind the others."""
        if not self.count:
            self._base_timestamp_ms = self._max_timestamp_ms = timestamp_ms
        elif timestamp_ms > self._max_timestamp_ms:
            self._max_timestamp_ms = timestamp_ms
        key_size, value_size = -1 if key is None else len(key), -1 if value is None else len(value)
        delta_ms, number = timestamp_ms - self._base_timestamp_ms, self.count
        self.count = number + 1
        if (
            not headers
            and 0 <= delta_ms < _VARINTS_MAX
            and number < _VARINTS_MAX
            and key_size < _VARINTS_MAX
            and value_size < _VARINTS_MAX
        ):
            # As nearly all are: each number is one of those that are written already.
            self._add(_plain(delta_ms, number, key_size, key or b"", value_size, value or b""))
            return
        body = bytearray(1)  # attributes: none are defined
        write_varint(body, delta_ms)
        write_varint(body, number)
        _write_bytes(body, key)
        _write_bytes(body, value)
        write_varint(body, len(headers))
        for name, content in headers:
            _write_bytes(body, name.encode())
            _write_bytes(body, content)
        self._add(bytes(body))

    def _add(self, body: bytes) -> None:
        size = len(body)
        if size < _VARINTS_MAX:
            length = _VARINTS[size]
        else:
            longer = bytearray()
            write_varint(longer, size)
            length = bytes(longer)
        self._packed.append(length)
        self._packed.append(body)
        self.size += len(length) + size

    def seal(
        self,
        *,
        base_offset: int = 0,
        compression: int = 0,
        producer_id: int = NO_PRODUCER_ID,
        producer_epoch: int = NO_PRODUCER_EPOCH,
        base_sequence: int = NO_SEQUENCE,
        leader_epoch: int = -1,
        transactional: bool = False,
        control: bool = False,
        timestamp_type: int = CREATE_TIME,
    ) -> bytes:
        """The batch. ValueError where there is no record."""
        if not self.count:
            raise ValueError("a batch has at least one record")
        attributes = compression
        attributes |= TIMESTAMP_TYPE_BIT if timestamp_type == LOG_APPEND_TIME else 0
        attributes |= TRANSACTIONAL_BIT if transactional else 0
        attributes |= CONTROL_BIT if control else 0
        checked = _CHECKED.pack(
            attributes,
            self.count - 1,
            self._base_timestamp_ms,
            self._max_timestamp_ms,
            producer_id,
            producer_epoch,
            base_sequence,
            self.count,
        )
        payload: Buffer = b"".join(self._packed)
        if compression:
            payload = compress(compression, payload)
        return _sealed(base_offset, leader_epoch, MAGIC, checked, payload)


def seal_batch(header: BatchHeader, payload: Buffer) -> bytes:
    """Header and packed records as one batch, its length and checksum set from what they are."""
    checked = _CHECKED.pack(*header.fields()[5:])
    return _sealed(header.base_offset, header.partition_leader_epoch, header.magic, checked, payload)


def _sealed(base_offset: int, leader_epoch: int, magic: int, checked: bytes, payload: Buffer) -> bytes:
    length = HEADER_BYTES - LENGTH_OVERHEAD_BYTES + len(payload)
    crc = crc32c(payload, crc32c(checked))
    return b"".join((_UNCHECKED.pack(base_offset, length, leader_epoch, magic, crc), checked, payload))


def _write_bytes(out: bytearray, data: bytes | None) -> None:
    if data is None:
        out.append(1)  # zigzag of -1
        return
    write_varint(out, len(data))
    out += data
