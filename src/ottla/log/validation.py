"""The checks of a batch before it is appended, and the leader's changes to it (Kafka's LogValidator). Pure.

The header is always checked and the checksum always computed. Records are looked at only where a batch has
few of them, or where the topic demands it: see docs/decisions/0003-what-produce-validates.md.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial as bind
from itertools import islice
from typing import Final, NamedTuple, final

from ottla.checksum import crc32c
from ottla.errors import ErrorCode, KafkaError
from ottla.log.settings import LONG_MAX, PRODUCER_CODEC, LogConfig, Origin
from ottla.types import Buffer
from ottla.wire.compression import Codec, compress, decompress
from ottla.wire.primitives import cut
from ottla.wire.records import (
    CODEC_MASK,
    CONTROL_BIT,
    CRC_START,
    HEADER_BYTES,
    LENGTH_OVERHEAD_BYTES,
    MAGIC,
    NO_TIMESTAMP,
    RECORD_BYTES_MIN,
    STAMP_BYTES,
    TIMESTAMP_TYPE_BIT,
    TRANSACTIONAL_BIT,
    BatchHeader,
    header_at,
    iter_records,
    seal_batch,
)
from ottla.wire.walks import RecordsSummary, TooManyHeaders, walk_plain, walk_records

# Uncompressed batches of up to so many records are walked record by record: a microsecond or so for each.
WALKED_RECORDS_MAX: Final = 8
# Of larger ones so many are, which tells records from what is none: another format, an unmarked codec.
SAMPLED_RECORDS: Final = 2
# Of a refused batch with so many uncompressed records at most, and so many bytes of them (a record may be
# nothing but headers), the faulty ones are looked for at once: 3 ms.
SEARCHED_AT_ONCE_MAX: Final = 1000
SEARCHED_AT_ONCE_BYTES_MAX: Final = 32 * 1024
# Of any other, off the loop: so many records are looked at, and so many named.
SEARCHED_RECORDS_MAX: Final = 100_000
NAMED_RECORDS_MAX: Final = 10_000

# So many records, or headers of records, are walked over at once, so many bytes unpacked, and so many
# compressed again: a millisecond or two each, with zstd's highest level too.
AT_ONCE_RECORDS_MAX: Final = 2000
AT_ONCE_BYTES_MAX: Final = 1024 * 1024
RECOMPRESSED_AT_ONCE_BYTES_MAX: Final = 16 * 1024

# Where a batch's length is, and the least that it can be in any format: a v0 message's header.
_LENGTH_START: Final = 8
_OLD_LENGTH_MIN: Final = 14
_HEADER_LENGTH_MIN: Final = HEADER_BYTES - LENGTH_OVERHEAD_BYTES
# Looking an enum's member up takes a while.
_CLIENT: Final = Origin.CLIENT
_CODEC_MAX: Final = int(Codec.ZSTD)
_crc32c: Final = crc32c
_KNOWN_BITS: Final = CODEC_MASK | TIMESTAMP_TYPE_BIT | TRANSACTIONAL_BIT | CONTROL_BIT


class Faults(NamedTuple):
    """What is wrong with a batch's records: (index in the batch, what is wrong) for each at fault."""

    code: ErrorCode
    message: str
    records: tuple[tuple[int, str], ...]


@final
class Appended:
    """Where a batch went; for a repeated one, where the original is."""

    __slots__ = ("base_offset", "duplicate", "last_offset", "log_append_time_ms", "log_start_offset")

    def __init__(
        self,
        base_offset: int,
        last_offset: int,
        log_append_time_ms: int,
        log_start_offset: int,
        duplicate: bool,
    ) -> None:
        self.base_offset = base_offset
        self.last_offset = last_offset
        # -1 where records keep the time that their producer gave.
        self.log_append_time_ms = log_append_time_ms
        self.log_start_offset = log_start_offset
        self.duplicate = duplicate

    def fields(self) -> tuple[int, int, int, int, bool]:
        """All that it says."""
        return (
            self.base_offset,
            self.last_offset,
            self.log_append_time_ms,
            self.log_start_offset,
            self.duplicate,
        )


class NotOneBatch(KafkaError):
    """What came for a partition is not one whole batch of format v2: no log has looked at it."""


class RecordsRefused(KafkaError):
    """A batch of which single records are at fault (Kafka's RecordValidationException).

    ``search``: finds them, and which code they come to; None where ``faults`` are known. It takes its time
    and belongs off the loop.
    """

    def __init__(self, faults: Faults, search: Callable[[], Faults] | None = None) -> None:
        super().__init__(faults.code, faults.message)
        self.faults = faults
        self.search = search


# A batch that may be appended: its header, and its bytes from the end of the broker's stamp on.
Prepared = tuple[BatchHeader, Buffer]


@final
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


class TakesLong(Exception):
    """What a batch needs before it can be appended takes too long for the event loop.

    Nothing has been done yet: ``prepare`` it in a thread.
    """


def prepare(records: Buffer, rules: Rules, now_ms: int, origin: Origin, *, at_once: bool = False) -> Prepared:
    """Check one batch that is to be appended by a leader, and change what the topic wants changed.

    ``at_once``: only if it is a matter of a millisecond or two; TakesLong otherwise. Where records are only
    sampled, and stay as they are, no batch takes long.

    KafkaError: CORRUPT_MESSAGE, INVALID_RECORD, INVALID_TIMESTAMP, MESSAGE_TOO_LARGE, RECORD_LIST_TOO_LARGE,
    UNSUPPORTED_COMPRESSION_TYPE.
    """
    size = len(records)
    if size < HEADER_BYTES:
        raise _not_one_batch(records)
    header = header_at(records, 0)
    if header.magic != MAGIC or header.length + LENGTH_OVERHEAD_BYTES != size:
        raise _not_one_batch(records)
    if size > rules.max_message_bytes:
        raise _too_large(size, rules)
    if _crc32c(cut(records, CRC_START, size)) != header.crc:
        raise KafkaError(ErrorCode.corrupt_message, "the batch's checksum does not match its bytes")
    body = cut(records, STAMP_BYTES, size)
    codec = rules.codec
    try:
        if origin is _CLIENT:
            header, body = _check_client(records, header, body, rules, now_ms, at_once)
        if codec != PRODUCER_CODEC and codec != header.compression and not header.is_control:
            header, body = _recompress(header, body, codec, rules, at_once)
    except TooManyHeaders as error:
        raise TakesLong from error
    if rules.stamps_append_time:
        header, body = _restamp(header, body, TIMESTAMP_TYPE_BIT, now_ms)
    if header.length > rules.segment_bytes - LENGTH_OVERHEAD_BYTES:
        raise KafkaError(
            ErrorCode.record_list_too_large,
            f"the batch of {header.size} bytes is larger than segment.bytes, {rules.segment_bytes}",
        )
    return header, body


def _check_client(
    records: Buffer, header: BatchHeader, body: Buffer, rules: Rules, now_ms: int, at_once: bool
) -> Prepared:
    """What a client's batch must satisfy beside being whole; a belied largest timestamp is corrected."""
    attributes = header.attributes
    count = header.record_count
    summary: RecordsSummary | None = None
    if (
        attributes & ~(CODEC_MASK | TRANSACTIONAL_BIT)
        or attributes & CODEC_MASK > _CODEC_MAX
        or count < 1
        or header.last_offset_delta != count - 1
        or header.base_offset != 0
        or (header.producer_id >= 0 and header.base_sequence < 0)
    ):
        raise _lies(header)
    if rules.walks_all or (count <= WALKED_RECORDS_MAX and not attributes & CODEC_MASK):
        if count <= WALKED_RECORDS_MAX and isinstance(body, bytes) and not attributes & CODEC_MASK:
            summary = walk_plain(body, HEADER_BYTES - STAMP_BYTES, count)
        if summary is None:
            headers_max = AT_ONCE_RECORDS_MAX if at_once else None
            summary = walk_records(_payload(header, body, at_once), count, None, headers_max)
    elif not attributes & CODEC_MASK:
        if count * RECORD_BYTES_MIN > len(body):
            raise _invalid(f"the batch claims {count} records in {header.size} bytes")
        # No more than a few are looked at, however many there are.
        payload = memoryview(body)[HEADER_BYTES - STAMP_BYTES :]
        walk_records(payload, count, SAMPLED_RECORDS, AT_ONCE_RECORDS_MAX if at_once else None)
    newest = header.max_timestamp_ms
    if summary is not None:
        newest = header.base_timestamp_ms + summary.timestamp_delta_max
        if summary.timestamp_delta_min < 0 or newest > LONG_MAX:
            _check_fit(header, summary)
        late = newest - now_ms > rules.after_max_ms
        if (late or rules.walks_all) and not _suffices(header, summary, rules, now_ms):
            _refuse_records(records, header, rules, now_ms)
    elif newest - now_ms > rules.after_max_ms and not rules.stamps_append_time:
        _refuse_records(records, header, rules, now_ms)
        # The records belie their header.
        headers_max = AT_ONCE_RECORDS_MAX if at_once else None
        summary = walk_records(_payload(header, body, at_once), count, None, headers_max)
        _check_fit(header, summary)
        newest = header.base_timestamp_ms + summary.timestamp_delta_max
    if newest != header.max_timestamp_ms and not rules.stamps_append_time:
        return _restamp(header, body, 0, newest)
    return header, body


def _check_fit(header: BatchHeader, summary: RecordsSummary) -> None:
    """KafkaError INVALID_TIMESTAMP where a timestamp needs more than 64 bits. Kafka's wraps around there."""
    oldest = header.base_timestamp_ms + summary.timestamp_delta_min
    newest = header.base_timestamp_ms + summary.timestamp_delta_max
    if oldest < -LONG_MAX - 1 or newest > LONG_MAX:
        raise KafkaError(ErrorCode.invalid_timestamp, f"no timestamps: {oldest} to {newest}")


def _payload(header: BatchHeader, body: Buffer, at_once: bool = False) -> Buffer:
    """A batch's records, unpacked; ``at_once``: TakesLong where they are too many."""
    payload = memoryview(body)[HEADER_BYTES - STAMP_BYTES :]
    if not at_once:
        return decompress(header.compression, payload) if header.compression else payload
    if header.record_count > AT_ONCE_RECORDS_MAX:
        raise TakesLong
    if not header.compression:
        return payload
    try:
        return decompress(header.compression, payload, AT_ONCE_BYTES_MAX)
    except KafkaError as error:
        # Either it cannot be unpacked or there is too much of it.
        raise TakesLong from error


def _suffices(header: BatchHeader, summary: RecordsSummary, rules: Rules, now_ms: int) -> bool:
    """Whether no record of a batch can be at fault, by what a walk over them found."""
    if rules.keyed and summary.first_without_key is not None:
        return False
    if rules.stamps_append_time:
        return True
    oldest = header.base_timestamp_ms + summary.timestamp_delta_min
    newest = header.base_timestamp_ms + summary.timestamp_delta_max
    # A record without a timestamp may hide one that is too old.
    is_young = rules.before_max_ms == LONG_MAX or now_ms - oldest <= rules.before_max_ms
    return newest - now_ms <= rules.after_max_ms and is_young


def _refuse_records(records: Buffer, header: BatchHeader, rules: Rules, now_ms: int) -> None:
    """Raise RecordsRefused for a batch whose records are likely at fault; return where none of them is."""
    is_small = header.record_count <= SEARCHED_AT_ONCE_MAX and len(records) <= SEARCHED_AT_ONCE_BYTES_MAX
    if is_small and not header.attributes & CODEC_MASK:
        faults = find_faults(records, rules, now_ms)
        if faults.records:
            raise RecordsRefused(faults)
        return
    code = ErrorCode.invalid_record if rules.keyed else ErrorCode.invalid_timestamp
    raise RecordsRefused(_faults(code, (), rules, now_ms), bind(find_faults, records, rules, now_ms))


def find_faults(records: Buffer, rules: Rules, now_ms: int) -> Faults:
    """The records of a batch that its topic does not take (LogValidator.validateRecord): one without a key
    where each needs one, else one whose timestamp is out of bounds. One of those makes the whole batch's code
    INVALID_TIMESTAMP (KIP-467). Bounded: see SEARCHED_RECORDS_MAX and NAMED_RECORDS_MAX."""
    found: list[tuple[int, str]] = []
    code = ErrorCode.invalid_record
    for index, record in enumerate(islice(iter_records(records), SEARCHED_RECORDS_MAX)):
        if rules.keyed and record.key is None:
            found.append((index, _NO_KEY))
        elif (
            not rules.stamps_append_time
            and record.timestamp_ms != NO_TIMESTAMP
            and (
                record.timestamp_ms - now_ms > rules.after_max_ms
                or now_ms - record.timestamp_ms > rules.before_max_ms
            )
        ):
            code = ErrorCode.invalid_timestamp
            found.append((index, f"the timestamp {record.timestamp_ms} is out of range"))
        if len(found) == NAMED_RECORDS_MAX:
            break
    return _faults(code, tuple(found), rules, now_ms)


_NO_KEY: Final = "a compacted topic takes no record without a key"


def _faults(code: ErrorCode, records: tuple[tuple[int, str], ...], rules: Rules, now_ms: int) -> Faults:
    if code is ErrorCode.invalid_timestamp:
        bounds = f"[{now_ms - rules.before_max_ms}, {now_ms + rules.after_max_ms}]"
        return Faults(code, f"timestamps of records have to be within {bounds} here", records)
    return Faults(code, "a compacted topic takes no records without keys", records)


def _restamp(header: BatchHeader, body: Buffer, type_bit: int, max_timestamp_ms: int) -> Prepared:
    """Set a batch's timestamp type and largest timestamp, and its checksum anew."""
    attributes = (header.attributes & ~TIMESTAMP_TYPE_BIT) | type_bit
    header = header.replaced(attributes=attributes, max_timestamp_ms=max_timestamp_ms)
    payload = memoryview(body)[HEADER_BYTES - STAMP_BYTES :]
    sealed = memoryview(seal_batch(header, payload))
    return header_at(sealed, 0), sealed[STAMP_BYTES:]


def _recompress(header: BatchHeader, body: Buffer, codec: int, rules: Rules, at_once: bool) -> Prepared:
    """Store the records with the codec that the topic asks for; check them, now that they lie open."""
    payload = _payload(header, body, at_once)
    if at_once and len(payload) > RECOMPRESSED_AT_ONCE_BYTES_MAX:
        raise TakesLong
    walk_records(payload, header.record_count, None, AT_ONCE_RECORDS_MAX if at_once else None)
    if codec == Codec.NONE and len(payload) > rules.max_message_bytes:
        # Before it is copied.
        raise _too_large(HEADER_BYTES + len(payload), rules)
    if codec != Codec.NONE:
        payload = compress(codec, payload, rules.config.level_for(codec))
    header = header.replaced(attributes=(header.attributes & ~CODEC_MASK) | codec)
    sealed = memoryview(seal_batch(header, payload))
    if len(sealed) > rules.max_message_bytes:
        raise _too_large(len(sealed), rules)
    return header_at(sealed, 0), sealed[STAMP_BYTES:]


def _not_one_batch(records: Buffer) -> KafkaError:
    """Why ``records`` are not one batch of format v2, looked for in the order in which Kafka does
    (ByteBufferLogInputStream.nextBatchSize, ProduceRequest.validateRecords)."""
    size = len(records)
    length = int.from_bytes(records[_LENGTH_START:LENGTH_OVERHEAD_BYTES], "big", signed=True)
    if size >= LENGTH_OVERHEAD_BYTES and length < _OLD_LENGTH_MIN:
        return KafkaError(ErrorCode.corrupt_message, f"the batch claims a length of {length} bytes")
    if size <= STAMP_BYTES:
        return NotOneBatch(
            ErrorCode.invalid_record,
            "a produce request carries exactly one batch for each partition: "
            f"the {size} bytes of this one hold none",
        )
    magic = records[STAMP_BYTES]
    if magic > MAGIC:
        return KafkaError(ErrorCode.corrupt_message, f"unknown batch format {magic}")
    if magic < MAGIC:
        return NotOneBatch(
            ErrorCode.invalid_record,
            f"message format v{magic} is no longer supported: use a client that writes v2 batches",
        )
    claimed = length + LENGTH_OVERHEAD_BYTES
    if claimed > size:
        return NotOneBatch(ErrorCode.invalid_record, f"the batch claims {claimed} bytes but only {size} came")
    if length < _HEADER_LENGTH_MIN:
        return KafkaError(ErrorCode.corrupt_message, "the batch is shorter than a batch header")
    return NotOneBatch(
        ErrorCode.invalid_record, f"{size - claimed} bytes follow the batch: there has to be exactly one"
    )


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


def _too_large(size: int, rules: Rules) -> KafkaError:
    return KafkaError(
        ErrorCode.message_too_large,
        f"the batch has {size} bytes, max.message.bytes allows {rules.max_message_bytes}",
    )


def _invalid(message: str) -> KafkaError:
    return KafkaError(ErrorCode.invalid_record, message)
