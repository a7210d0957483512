"""Record batches, format v2 (Kafka's DefaultRecordBatch and DefaultRecord, KIP-98).

A batch is a header of 61 bytes and its records, which may be compressed as one block. The first 16 bytes
(base offset, length, leader epoch) are not covered by the CRC, so that a broker can stamp them in place;
everything from the attributes on is. Offsets are absolute, timestamps are milliseconds since the Unix epoch.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from crc32c import crc32c

from ottla.errors import ErrorCode, KafkaError
from ottla.types import Buffer, Record
from ottla.wire.compression import UNPACKED_BYTES_MAX, compress, decompress

HEADER = struct.Struct(">qiibIhiqqqhii")
HEADER_BYTES = HEADER.size
assert HEADER_BYTES == 61

# What a broker stamps: base offset, length, leader epoch.
STAMP = struct.Struct(">qii")
STAMP_BYTES = STAMP.size
# Base offset and length come before what the length counts.
LENGTH_OVERHEAD_BYTES = 12
# The CRC covers everything from the attributes on.
CRC_POSITION = 17
CRC_START = 21

MAGIC = 2
CODEC_MASK = 0x07
TIMESTAMP_TYPE_BIT = 0x08
TRANSACTIONAL_BIT = 0x10
CONTROL_BIT = 0x20
DELETE_HORIZON_BIT = 0x40

CREATE_TIME = 0
LOG_APPEND_TIME = 1

NO_TIMESTAMP = -1
NO_PRODUCER_ID = -1
NO_PRODUCER_EPOCH = -1
NO_SEQUENCE = -1
SEQUENCE_MAX = 2**31 - 1

# A record takes at least its length, attributes, two deltas, two lengths and a header count.
RECORD_BYTES_MIN = 7


class BatchHeader(NamedTuple):
    """A batch's header, field by field as on disk."""

    base_offset: int
    length: int
    partition_leader_epoch: int
    magic: int
    crc: int
    attributes: int
    last_offset_delta: int
    base_timestamp_ms: int
    max_timestamp_ms: int
    producer_id: int
    producer_epoch: int
    base_sequence: int
    record_count: int

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
    return BatchHeader._make(HEADER.unpack_from(buffer, position))


def iter_batches(buffer: Buffer) -> Iterator[tuple[BatchHeader, memoryview]]:
    """Each whole batch in ``buffer`` with its header; a batch that is cut off at the end is left out.

    Kafka ends a fetch response where the bytes run out, so a cut batch is no error. A length that no batch
    can have is: CORRUPT_MESSAGE.
    """
    view = memoryview(buffer)
    position, end = 0, len(view)
    while end - position >= HEADER_BYTES:
        header = BatchHeader._make(HEADER.unpack_from(view, position))
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
            raise _invalid(f"a record cannot be read: {error}") from error
        yield record
    if position != len(payload):
        raise _invalid(
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
    timestamp = header.base_timestamp_ms + timestamp_delta if append_time is None else append_time
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


class RecordsSummary(NamedTuple):
    """What a walk over a batch's records found. Deltas are relative to the batch's base timestamp."""

    timestamp_delta_min: int
    timestamp_delta_max: int
    first_without_key: int | None


def walk_records(payload: Buffer, count: int, walked: int | None = None) -> RecordsSummary:
    """Check the structure of unpacked records: ``count`` of them, offsets 0, 1, 2…, and nothing after.

    ``walked``: only the first so many of them, which is also all that the summary tells of.

    KafkaError INVALID_RECORD otherwise. Costs about a microsecond a record: the caller decides when.
    """
    lowest, highest = 2**63, -(2**63)
    first_without_key: int | None = None
    position, size = 0, len(payload)
    try:
        for index in range(count if walked is None else walked):
            length, position = read_varint(payload, position)
            end = position + length
            if length < 0 or end > size:
                raise ValueError(f"its length of {length} bytes does not fit into the batch")
            delta, position = read_varint(payload, position + 1)
            if delta < lowest:
                lowest = delta
            if delta > highest:
                highest = delta
            offset_delta, position = read_varint(payload, position)
            if offset_delta != index:
                raise ValueError(f"its offset delta is {offset_delta}")
            if payload[position] != 1:
                position = _skip_bytes(payload, position)
            else:
                position += 1
                if first_without_key is None:
                    first_without_key = index
            position = _skip_bytes(payload, position)
            if payload[position]:
                position = _skip_headers(payload, position, size)
            else:
                position += 1
            if position != end:
                raise ValueError("its fields do not end where its length says")
    except (IndexError, ValueError) as error:
        raise _invalid(f"record {index} of {count} cannot be read: {error}") from error
    if position != size and walked is None:
        raise _invalid(f"{size - position} bytes are left after the batch's last record")
    return RecordsSummary(lowest, highest, first_without_key)


def _skip_headers(payload: Buffer, position: int, size: int) -> int:
    """The position after a record's headers."""
    headers, position = read_varint(payload, position)
    if not 0 <= headers <= size:
        raise ValueError(f"it claims {headers} headers")
    for _ in range(headers):
        length, position = read_varint(payload, position)
        if length < 0:
            raise ValueError("a header has no name")
        position = _skip_bytes(payload, position + length)
    return position


def _skip_bytes(payload: Buffer, position: int) -> int:
    """The position after a length and its bytes, which may be null."""
    length, position = read_varint(payload, position)
    if length < 0:
        if length != -1:
            raise ValueError(f"a field claims {length} bytes")
        return position
    return position + length


def _invalid(message: str) -> KafkaError:
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
    body = bytearray()
    base_timestamp = max_timestamp = NO_TIMESTAMP
    count = 0
    for count, record in enumerate(records, 1):
        if count == 1:
            base_timestamp = max_timestamp = record.timestamp_ms
        max_timestamp = max(max_timestamp, record.timestamp_ms)
        _write_record(body, record, record.timestamp_ms - base_timestamp, count - 1)
    if not count:
        raise ValueError("a batch has at least one record")
    attributes = compression
    attributes |= TIMESTAMP_TYPE_BIT if timestamp_type == LOG_APPEND_TIME else 0
    attributes |= TRANSACTIONAL_BIT if transactional else 0
    attributes |= CONTROL_BIT if control else 0
    header = BatchHeader(
        base_offset=base_offset,
        length=0,
        partition_leader_epoch=leader_epoch,
        magic=MAGIC,
        crc=0,
        attributes=attributes,
        last_offset_delta=count - 1,
        base_timestamp_ms=base_timestamp,
        max_timestamp_ms=max_timestamp,
        producer_id=producer_id,
        producer_epoch=producer_epoch,
        base_sequence=base_sequence,
        record_count=count,
    )
    return seal_batch(header, compress(compression, body) if compression else body)


def seal_batch(header: BatchHeader, payload: Buffer) -> bytes:
    """Header and packed records as one batch, its length and checksum set from what they are."""
    length = HEADER_BYTES - LENGTH_OVERHEAD_BYTES + len(payload)
    head = HEADER.pack(*header._replace(length=length, crc=0))
    crc = crc32c(payload, crc32c(memoryview(head)[CRC_START:]))
    return b"".join((HEADER.pack(*header._replace(length=length, crc=crc)), payload))


def _write_record(out: bytearray, record: Record, timestamp_delta: int, offset_delta: int) -> None:
    body = bytearray(1)  # attributes: none are defined
    write_varint(body, timestamp_delta)
    write_varint(body, offset_delta)
    _write_bytes(body, record.key)
    _write_bytes(body, record.value)
    write_varint(body, len(record.headers))
    for name, content in record.headers:
        _write_bytes(body, name.encode())
        _write_bytes(body, content)
    write_varint(out, len(body))
    out += body


def _write_bytes(out: bytearray, data: bytes | None) -> None:
    if data is None:
        out.append(1)  # zigzag of -1
        return
    write_varint(out, len(data))
    out += data
