"""What a batch must satisfy to be appended, and what a leader changes in it (Kafka's LogValidator). Pure.

The header is always checked and the checksum always computed. Records are looked at only where a batch has
few of them, or where the topic demands it: see docs/decisions/0003-what-produce-validates.md.
"""

from __future__ import annotations

from typing import NamedTuple

from crc32c import crc32c

from ottla.errors import ErrorCode, KafkaError
from ottla.log.settings import LONG_MAX, PRODUCER_CODEC, LogConfig, Origin
from ottla.types import Buffer
from ottla.wire.compression import Codec, compress, decompress
from ottla.wire.records import (
    CODEC_MASK,
    CONTROL_BIT,
    CRC_START,
    HEADER,
    HEADER_BYTES,
    LENGTH_OVERHEAD_BYTES,
    MAGIC,
    NO_TIMESTAMP,
    RECORD_BYTES_MIN,
    STAMP_BYTES,
    TIMESTAMP_TYPE_BIT,
    TRANSACTIONAL_BIT,
    BatchHeader,
    RecordsSummary,
    seal_batch,
    walk_records,
)

# Uncompressed batches of up to so many records are walked record by record: a microsecond or so for each.
WALKED_RECORDS_MAX = 8
# Of larger ones so many are, which tells records from what is none: another format, an unmarked codec.
SAMPLED_RECORDS = 2

# Where a batch's length is, and the least that it can be in any format: a v0 message's header.
_LENGTH_START = 8
_OLD_LENGTH_MIN = 14
_HEADER_LENGTH_MIN = HEADER_BYTES - LENGTH_OVERHEAD_BYTES
_KNOWN_BITS = CODEC_MASK | TIMESTAMP_TYPE_BIT | TRANSACTIONAL_BIT | CONTROL_BIT


class RecordsRefused(KafkaError):
    """A batch of which single records are at fault: (index in the batch, what is wrong) for each."""

    def __init__(self, code: ErrorCode, message: str, record_errors: tuple[tuple[int, str], ...]) -> None:
        super().__init__(code, message)
        self.record_errors = record_errors


class Prepared(NamedTuple):
    """A batch that may be appended: its header, and its bytes from the end of the broker's stamp on."""

    header: BatchHeader
    body: Buffer


class Rules:
    """A topic's configuration, boiled down to what an append asks of it."""

    __slots__ = (
        "after_max_ms",
        "before_max_ms",
        "codec",
        "config",
        "keyed",
        "max_message_bytes",
        "segment_bytes",
        "stamps_append_time",
        "walks_all",
    )

    def __init__(self, config: LogConfig) -> None:
        self.config = config
        self.max_message_bytes = config.max_message_bytes
        self.segment_bytes = config.segment_bytes
        self.codec = config.codec
        self.stamps_append_time = config.stamps_append_time
        self.keyed = config.compacts
        self.before_max_ms = config.message_timestamp_before_max_ms
        self.after_max_ms = config.message_timestamp_after_max_ms
        # A header tells the largest timestamp, not the smallest.
        bounds_age = self.before_max_ms != LONG_MAX and not self.stamps_append_time
        self.walks_all = self.keyed or bounds_age


def prepare(records: Buffer, rules: Rules, now_ms: int, origin: Origin) -> Prepared:
    """Check one batch that is to be appended by a leader, and change what the topic wants changed.

    KafkaError: CORRUPT_MESSAGE, INVALID_RECORD, INVALID_TIMESTAMP, MESSAGE_TOO_LARGE, RECORD_LIST_TOO_LARGE,
    UNSUPPORTED_COMPRESSION_TYPE, UNSUPPORTED_FOR_MESSAGE_FORMAT.
    """
    size = len(records)
    if size < HEADER_BYTES:
        raise _not_one_batch(records)
    header = BatchHeader._make(HEADER.unpack_from(records))
    if header.magic != MAGIC or header.length + LENGTH_OVERHEAD_BYTES != size:
        raise _not_one_batch(records)
    if size > rules.max_message_bytes:
        raise _too_large(size, rules)
    body: Buffer = memoryview(records)[STAMP_BYTES:]
    if crc32c(memoryview(records)[CRC_START:]) != header.crc:
        raise KafkaError(ErrorCode.corrupt_message, "the batch's checksum does not match its bytes")
    if origin is Origin.CLIENT:
        header, body = _check_client(header, body, rules, now_ms)
    codec = rules.codec
    if codec != PRODUCER_CODEC and codec != header.compression and not header.is_control:
        header, body = _recompress(header, body, codec, rules)
    if rules.stamps_append_time:
        header, body = _restamp(header, body, TIMESTAMP_TYPE_BIT, now_ms)
    if header.size > rules.segment_bytes:
        raise KafkaError(
            ErrorCode.record_list_too_large,
            f"the batch of {header.size} bytes is larger than segment.bytes, {rules.segment_bytes}",
        )
    return Prepared(header, body)


def _check_client(header: BatchHeader, body: Buffer, rules: Rules, now_ms: int) -> Prepared:
    """What a client's batch must satisfy beside being whole; a belied largest timestamp is corrected."""
    attributes = header.attributes
    count = header.record_count
    summary: RecordsSummary | None = None
    if (
        attributes & ~(CODEC_MASK | TRANSACTIONAL_BIT)
        or attributes & CODEC_MASK > Codec.ZSTD
        or count < 1
        or header.last_offset_delta != count - 1
        or header.base_offset != 0
        or (header.producer_id >= 0 and header.base_sequence < 0)
    ):
        raise _lies(header)
    if rules.walks_all or (count <= WALKED_RECORDS_MAX and not attributes & CODEC_MASK):
        summary = walk_records(_payload(header, body), count)
        if rules.keyed and summary.first_without_key is not None:
            raise _no_key(summary.first_without_key)
    elif not attributes & CODEC_MASK:
        if count * RECORD_BYTES_MIN > len(body):
            raise _invalid(f"the batch claims {count} records in {header.size} bytes")
        walk_records(_payload(header, body), count, SAMPLED_RECORDS)
    if rules.stamps_append_time:
        return Prepared(header, body)
    newest = header.max_timestamp_ms
    if summary is not None:
        newest = header.base_timestamp_ms + summary.timestamp_delta_max
    if newest - now_ms > rules.after_max_ms or rules.before_max_ms != LONG_MAX:
        _check_timestamps(header, newest, summary, rules, now_ms)
    if newest != header.max_timestamp_ms:
        return _restamp(header, body, 0, newest)
    return Prepared(header, body)


def _payload(header: BatchHeader, body: Buffer) -> Buffer:
    """A batch's records, unpacked."""
    payload = memoryview(body)[HEADER_BYTES - STAMP_BYTES :]
    return decompress(header.compression, payload) if header.compression else payload


def _check_timestamps(
    header: BatchHeader, newest: int, summary: RecordsSummary | None, rules: Rules, now_ms: int
) -> None:
    """Refuse timestamps out of the topic's bounds."""
    oldest = newest if summary is None else header.base_timestamp_ms + summary.timestamp_delta_min
    for timestamp in (oldest, newest):
        if timestamp != NO_TIMESTAMP and (
            timestamp - now_ms > rules.after_max_ms or now_ms - timestamp > rules.before_max_ms
        ):
            raise RecordsRefused(
                ErrorCode.invalid_timestamp,
                f"the timestamp {timestamp} is out of range: it has to be within "
                f"[{now_ms - rules.before_max_ms}, {now_ms + rules.after_max_ms}]",
                (),
            )


def _restamp(header: BatchHeader, body: Buffer, type_bit: int, max_timestamp_ms: int) -> Prepared:
    """Set a batch's timestamp type and largest timestamp, and its checksum anew."""
    attributes = (header.attributes & ~TIMESTAMP_TYPE_BIT) | type_bit
    header = header._replace(attributes=attributes, max_timestamp_ms=max_timestamp_ms)
    payload = memoryview(body)[HEADER_BYTES - STAMP_BYTES :]
    sealed = memoryview(seal_batch(header, payload))
    return Prepared(BatchHeader._make(HEADER.unpack_from(sealed)), sealed[STAMP_BYTES:])


def _recompress(header: BatchHeader, body: Buffer, codec: int, rules: Rules) -> Prepared:
    """Store the records with the codec that the topic asks for; check them, now that they lie open."""
    payload = _payload(header, body)
    walk_records(payload, header.record_count)
    if codec != Codec.NONE:
        payload = compress(codec, payload, rules.config.level_for(codec))
    header = header._replace(attributes=(header.attributes & ~CODEC_MASK) | codec)
    sealed = memoryview(seal_batch(header, payload))
    if len(sealed) > rules.max_message_bytes:
        raise _too_large(len(sealed), rules)
    return Prepared(BatchHeader._make(HEADER.unpack_from(sealed)), sealed[STAMP_BYTES:])


def _not_one_batch(records: Buffer) -> KafkaError:
    """Why ``records`` are not one batch of format v2, looked for in the order in which Kafka does
    (ByteBufferLogInputStream.nextBatchSize, ProduceRequest.validateRecords)."""
    size = len(records)
    length = int.from_bytes(records[_LENGTH_START:LENGTH_OVERHEAD_BYTES], "big", signed=True)
    if size >= LENGTH_OVERHEAD_BYTES and length < _OLD_LENGTH_MIN:
        return KafkaError(ErrorCode.corrupt_message, f"the batch claims a length of {length} bytes")
    if size <= STAMP_BYTES:
        return _invalid(
            "a produce request carries exactly one batch for each partition: "
            f"the {size} bytes of this one hold none"
        )
    magic = records[STAMP_BYTES]
    if magic > MAGIC:
        return KafkaError(ErrorCode.corrupt_message, f"unknown batch format {magic}")
    if magic < MAGIC:
        # Kafka says INVALID_RECORD here; this code tells an old client what is wrong with what it sends.
        return KafkaError(
            ErrorCode.unsupported_for_message_format,
            f"message format v{magic} is no longer supported: use a client that writes v2 batches",
        )
    claimed = length + LENGTH_OVERHEAD_BYTES
    if claimed > size:
        return _invalid(f"the batch claims {claimed} bytes but only {size} came")
    if length < _HEADER_LENGTH_MIN:
        return KafkaError(ErrorCode.corrupt_message, "the batch is shorter than a batch header")
    return _invalid(f"{size - claimed} bytes follow the batch: there has to be exactly one")


def _lies(header: BatchHeader) -> KafkaError:
    """What in a client's header cannot be."""
    count, attributes = header.record_count, header.attributes
    if attributes & CONTROL_BIT:
        return _invalid("clients are not allowed to write control records")
    if attributes & TIMESTAMP_TYPE_BIT:
        return KafkaError(
            ErrorCode.invalid_timestamp, "a producer must not set the timestamp type to LogAppendTime"
        )
    if attributes & ~_KNOWN_BITS:
        return _invalid(f"the batch has unknown attributes: {attributes:#06x}")
    if header.compression > Codec.ZSTD:
        return KafkaError(
            ErrorCode.unsupported_compression_type, f"unknown compression codec {header.compression}"
        )
    if header.base_offset != 0:
        return _invalid(f"the batch's base offset has to be 0, it is {header.base_offset}")
    if count < 1 or header.last_offset_delta != count - 1:
        return _invalid(f"the batch claims {count} records and a last offset of {header.last_offset_delta}")
    return _invalid(f"producer {header.producer_id} gave the sequence number {header.base_sequence}")


def _no_key(index: int) -> KafkaError:
    message = "a compacted topic takes no record without a key"
    return RecordsRefused(ErrorCode.invalid_record, message, ((index, message),))


def _too_large(size: int, rules: Rules) -> KafkaError:
    return KafkaError(
        ErrorCode.message_too_large,
        f"the batch has {size} bytes, max.message.bytes allows {rules.max_message_bytes}",
    )


def _invalid(message: str) -> KafkaError:
    return KafkaError(ErrorCode.invalid_record, message)
