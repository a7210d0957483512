"""The records of `__transaction_state`: TransactionLogKey v0, TransactionLogValue v0 and v1.

These are Kafka's own schemas (transaction-coordinator/src/main/resources/common/message). v1 has tagged
fields and is written from level 1 of the feature transaction.version on; both are read. Reading malformed
bytes raises `SchemaError`. Times are milliseconds since the Unix epoch, timeouts milliseconds.

One tagged field is ours: `last_producer_epoch`, which KIP-360's retries are told by. Kafka 4.4 keeps it in
memory, and so refuses such a retry after a fail-over (KAFKA-20357). It is written for a producer that has
just begun anew, if it said what it had; otherwise it follows from the other fields. Kafka steps over it.
"""

from __future__ import annotations

import struct
from collections.abc import Generator, Set
from typing import Final, NamedTuple

from ottla.coordinators.runtime.fields import Reader, compact_string, string
from ottla.coordinators.runtime.machine import SchemaError, UnknownRecord
from ottla.coordinators.runtime.pieces import PIECE
from ottla.coordinators.transactions.metadata import (
    CLIENT_EPOCH_MAX,
    NO_PRODUCER_EPOCH,
    NO_PRODUCER_ID,
    TV_0,
    TV_2,
    TransactionMetadata,
)
from ottla.coordinators.transactions.states import (
    BY_NUMBER,
    DEAD,
    EMPTY,
    NUMBERS,
    ONGOING,
    TransactionState,
)
from ottla.pieces import whole
from ottla.types import Buffer, TopicPartition
from ottla.wire.primitives import READ_ERRORS, read_tag, read_uvarint, write_uvarint

KEY_VERSION: Final = 0
VALUE_VERSION_MAX: Final = 1
FIRST_FLEXIBLE_VERSION: Final = 1

PREVIOUS_PRODUCER_ID_TAG: Final = 0
NEXT_PRODUCER_ID_TAG: Final = 1
CLIENT_VERSION_TAG: Final = 2
# 3 is Kafka's next_producer_epoch, which 4.4 neither writes nor looks at.
LAST_PRODUCER_EPOCH_TAG: Final = 4

# A topic's name is of 249 characters at most; beside it are its length and that of its partitions.
TOPIC_OVERHEAD_BYTES: Final = 10
PARTITION_BYTES_MAX: Final = 249 + TOPIC_OVERHEAD_BYTES + 4
# Up to so many are not looked at for their sizes.
ROUGHLY_MAX: Final = 3_000

_KEY: Final = struct.pack(">h", KEY_VERSION)
_HEAD: Final = struct.Struct(">hqhib")
_TIMES: Final = struct.Struct(">qq")
_INT16: Final = struct.Struct(">h")
_INT32: Final = struct.Struct(">i")
_INT64: Final = struct.Struct(">q")
# A tagged field, with its number and its size before it.
_INT64_BYTES: Final = 8
_INT16_BYTES: Final = 2
_pack_id_tag: Final = struct.Struct(">BBq").pack
_pack_short_tag: Final = struct.Struct(">BBh").pack
_pack_head: Final = _HEAD.pack
_pack_times: Final = _TIMES.pack
_pack_int32: Final = _INT32.pack
_ONE: Final = _INT32.pack(1)
# No partitions, as Kafka writes them.
_NO_TOPICS: Final = b"\x00"
_NULL_TOPICS: Final = b"\xff\xff\xff\xff"


class TransactionRecord(NamedTuple):
    """What is known of a transactional id, or its removal where ``value`` is None."""

    transactional_id: str
    value: TransactionMetadata | None
    # The layout that the value is written in.
    version: int = VALUE_VERSION_MAX


def encode_record(record: TransactionRecord) -> tuple[bytes, bytes | None]:
    """The key and value to append. Raises SchemaError where a string is too long to be stored."""
    transactional_id, value, version = record
    key = _KEY + string(transactional_id)
    if value is None:
        return key, None
    if value.state is EMPTY:
        return key, _value(value, version, _NO_TOPICS if version >= FIRST_FLEXIBLE_VERSION else _NULL_TOPICS)
    partitions = value.partitions
    if len(partitions) == 1:
        # As of most small transactions.
        ((topic, partition),) = partitions
        return key, _value(value, version, _one_topic(topic, partition, version))
    return key, _value(value, version, whole(_encoding_partitions(value, version)))


def encoding_record(record: TransactionRecord) -> Generator[None, None, tuple[bytes, bytes | None]]:
    """As `encode_record`, for transactions of many partitions: yields after each piece of its work."""
    transactional_id, value, version = record
    if value is None or value.state is EMPTY:
        return encode_record(record)
    partitions = yield from _encoding_partitions(value, version)
    return _KEY + string(transactional_id), _value(value, version, partitions)


def _value(value: TransactionMetadata, version: int, partitions: bytes) -> bytes:
    """``partitions``: as they stand in it."""
    head = _pack_head(
        version, value.producer_id, value.producer_epoch, value.timeout_ms, NUMBERS[value.state]
    )
    times = _pack_times(value.last_update_ms, value.start_ms)
    if version < FIRST_FLEXIBLE_VERSION:
        return b"".join((head, partitions, times))
    return b"".join((head, partitions, times, _tags(value)))


def _one_topic(topic: str, partition: int, version: int) -> bytes:
    if version >= FIRST_FLEXIBLE_VERSION:
        return b"".join((b"\x02", compact_string(topic), b"\x02", _pack_int32(partition), b"\x00"))
    return b"".join((_ONE, string(topic), _ONE, _pack_int32(partition)))


def _encoding_partitions(value: TransactionMetadata, version: int) -> Generator[None, None, bytes]:
    is_flexible = version >= FIRST_FLEXIBLE_VERSION
    topics: dict[str, list[int]] = {}
    for count, (topic, partition) in enumerate(value.partitions, 1):
        topics.setdefault(topic, []).append(partition)
        if count % PIECE == 0:
            yield
    parts = [write_uvarint(len(topics) + 1) if is_flexible else _pack_int32(len(topics))]
    count = 0
    for topic in sorted(topics):
        partitions = sorted(topics[topic])
        size = len(partitions)
        numbers = struct.pack(f">{size}i", *partitions)
        if is_flexible:
            parts += (compact_string(topic), write_uvarint(size + 1), numbers, b"\x00")
        else:
            parts += (string(topic), _pack_int32(size), numbers)
        count += 1 + size // PIECE
        if count >= PIECE:
            count = 0
            yield
    return b"".join(parts)


def size_of(partitions: Set[TopicPartition]) -> int:
    """The bytes that these take in a record, or somewhat more."""
    if len(partitions) <= ROUGHLY_MAX:
        return len(partitions) * PARTITION_BYTES_MAX
    topics = {topic for topic, _ in partitions}
    return 4 * len(partitions) + sum([len(topic) + TOPIC_OVERHEAD_BYTES for topic in topics])


def _tags(value: TransactionMetadata) -> bytes:
    """The section of tagged fields: those that are not what they are by default."""
    fields: list[bytes] = []
    if value.previous_producer_id != NO_PRODUCER_ID:
        fields.append(_pack_id_tag(PREVIOUS_PRODUCER_ID_TAG, _INT64_BYTES, value.previous_producer_id))
    if value.next_producer_id != NO_PRODUCER_ID:
        fields.append(_pack_id_tag(NEXT_PRODUCER_ID_TAG, _INT64_BYTES, value.next_producer_id))
    if value.client_version != TV_0:
        fields.append(_pack_short_tag(CLIENT_VERSION_TAG, _INT16_BYTES, value.client_version))
    if value.last_producer_epoch != last_epoch(value.state, value.producer_epoch, value.client_version):
        fields.append(_pack_short_tag(LAST_PRODUCER_EPOCH_TAG, _INT16_BYTES, value.last_producer_epoch))
    return bytes((len(fields),)) + b"".join(fields)


def last_epoch(state: TransactionState, producer_epoch: int, client_version: int) -> int:
    """What ``last_producer_epoch`` is where a record does not say: a transaction that ends as KIP-890 has it
    takes one epoch, and behind the last one begins again at 0."""
    if client_version < TV_2 or state is EMPTY or state is ONGOING:
        return NO_PRODUCER_EPOCH
    return producer_epoch - 1 if producer_epoch > 0 else CLIENT_EPOCH_MAX


def decode_record(key: Buffer | None, value: Buffer | None) -> TransactionRecord | UnknownRecord:
    """The record that a key and value from the log stand for. Raises SchemaError."""
    return whole(decoding_record(key, value))


def decoding_record(
    key: Buffer | None, value: Buffer | None
) -> Generator[None, None, TransactionRecord | UnknownRecord]:
    """As `decode_record`, for large ones: yields after each piece of its work."""
    if key is None:
        raise SchemaError("a record without a key")
    try:
        reader = Reader(key)
        version = reader.int16()
        if version != KEY_VERSION:
            return UnknownRecord(version)
        transactional_id = reader.string()
        if value is None:
            return TransactionRecord(transactional_id, None)
        metadata, value_version = yield from _decoding_value(value)
        return TransactionRecord(transactional_id, metadata, value_version)
    except READ_ERRORS as error:
        raise SchemaError(str(error) or "the record ends too soon") from error


def _decoding_value(data: Buffer) -> Generator[None, None, tuple[TransactionMetadata, int]]:
    reader = Reader(data)
    version = reader.int16()
    if not 0 <= version <= VALUE_VERSION_MAX:
        raise SchemaError(f"TransactionLogValue of version {version} (known: 0 to {VALUE_VERSION_MAX})")
    reader.flexible = version >= FIRST_FLEXIBLE_VERSION
    producer_id = reader.int64()
    producer_epoch = reader.int16()
    timeout_ms = reader.int32()
    number = reader.int8()
    if not 0 <= number < NUMBERS[DEAD]:
        raise SchemaError(f"a transaction in state {number}")
    state = BY_NUMBER[number]
    partitions = yield from _read_partitions(reader)
    last_update_ms = reader.int64()
    start_ms = reader.int64()
    tags = _read_tags(reader) if reader.flexible else {}
    # Markers say it in one byte: one of a later release, or of nobody's, is not to stop those of all others.
    client_version = max(TV_0, min(tags.get(CLIENT_VERSION_TAG, TV_0), TV_2))
    derived = last_epoch(state, producer_epoch, client_version)
    return TransactionMetadata(
        producer_id=producer_id,
        previous_producer_id=tags.get(PREVIOUS_PRODUCER_ID_TAG, NO_PRODUCER_ID),
        next_producer_id=tags.get(NEXT_PRODUCER_ID_TAG, NO_PRODUCER_ID),
        producer_epoch=producer_epoch,
        last_producer_epoch=tags.get(LAST_PRODUCER_EPOCH_TAG, derived),
        timeout_ms=timeout_ms,
        state=state,
        partitions=frozenset() if state is EMPTY else partitions,
        start_ms=start_ms,
        last_update_ms=last_update_ms,
        client_version=client_version,
    ), version


def _read_partitions(reader: Reader) -> Generator[None, None, frozenset[TopicPartition]]:
    partitions: set[TopicPartition] = set()
    count = 0
    for _ in range(reader.nullable_array_length()):
        topic = reader.string()
        size = reader.array_length()
        for _ in range(size):
            partitions.add(TopicPartition(topic, reader.int32()))
            count += 1
            if count % PIECE == 0:
                yield
        reader.tags()
    return frozenset(partitions)


_TAG_FORMATS: Final = {
    PREVIOUS_PRODUCER_ID_TAG: _INT64,
    NEXT_PRODUCER_ID_TAG: _INT64,
    CLIENT_VERSION_TAG: _INT16,
    LAST_PRODUCER_EPOCH_TAG: _INT16,
}


def _read_tags(reader: Reader) -> dict[int, int]:
    """The tagged fields that we know, among any number that we do not."""
    buffer, offset = reader.buffer, reader.offset
    values: dict[int, int] = {}
    count = buffer[offset]
    offset += 1
    if count >= 0x80:
        count, offset = read_uvarint(buffer, offset, count)
    if count > len(buffer) - offset:
        raise SchemaError(f"{count} tagged fields are claimed in {len(buffer) - offset} bytes")
    for _ in range(count):
        tag, start, end = read_tag(buffer, offset)
        layout = _TAG_FORMATS.get(tag)
        if layout is not None:
            if end - start != layout.size:
                raise SchemaError(f"a tagged field {tag} of {end - start} bytes")
            values[tag] = layout.unpack_from(buffer, start)[0]
        offset = end
    reader.offset = offset
    return values
