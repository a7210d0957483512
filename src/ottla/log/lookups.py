"""Finding records by time (UnifiedLog.fetchOffsetByTimestamp), and waiting for look-ups to be readable."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from ottla.env.disk import Disk
from ottla.errors import ErrorCode, KafkaError
from ottla.log.segment import ColdRead, Segment
from ottla.wire.records import BatchHeader, iter_records

if TYPE_CHECKING:
    from ottla.log.log import Log

T = TypeVar("T")

# How often a look-up may find that what it needs is not in memory before it is given up.
COLD_READS_MAX = 1000


class TimestampOffset(NamedTuple):
    """A record found by its time."""

    timestamp_ms: int
    offset: int
    leader_epoch: int


async def settle(disk: Disk, look_up: Callable[[], T]) -> T:
    """What ``look_up`` returns; wherever it meets bytes that are not in memory they are read off the loop.

    It is called again from the start each time, so that it always sees the log as it is then.
    """
    for _ in range(COLD_READS_MAX):
        try:
            return look_up()
        except ColdRead as cold:
            await disk.run(cold.warm)
    raise KafkaError(ErrorCode.kafka_storage_error, "the disk is too busy to be read")


def offset_for_timestamp(log: Log, timestamp_ms: int) -> TimestampOffset | None:
    """The first record whose timestamp is at or after ``timestamp_ms``; None where all are older.

    Raises ColdRead: see ``settle``. KafkaError KAFKA_STORAGE_ERROR where the disk fails.
    """
    try:
        for segment in log.segments[log.segment_index(log.log_start_offset) :]:
            if segment.size and segment.largest_timestamp_ms() >= timestamp_ms:
                found = _first_from(segment, timestamp_ms, log.log_start_offset)
                if found is not None:
                    return found
        return None
    except OSError as error:
        raise _cannot_read(error) from error


def _first_from(segment: Segment, timestamp_ms: int, start_offset: int) -> TimestampOffset | None:
    indexed = max(segment.time_index.lookup(timestamp_ms), start_offset)
    for header, position in segment.headers_from(segment.offset_index.lookup(indexed), segment.peek):
        if header.max_timestamp_ms < timestamp_ms or header.last_offset < start_offset:
            continue
        for record in iter_records(segment.peek(position, header.size)):
            if record.timestamp_ms >= timestamp_ms and record.offset >= start_offset:
                return _found(header, record.timestamp_ms, record.offset)
    return None


def max_timestamp_offset(log: Log) -> TimestampOffset | None:
    """The first record that has the largest timestamp of the log; None where the log is empty (KIP-734).

    Raises ColdRead: see ``settle``. KafkaError KAFKA_STORAGE_ERROR where the disk fails.
    """
    try:
        segment = max(log.segments, key=lambda one: one.load_max_timestamp()[0])
        timestamp, offset = segment.load_max_timestamp()
        for header, position in segment.headers_from(segment.offset_index.lookup(offset), segment.peek):
            if header.max_timestamp_ms == timestamp:
                for record in iter_records(segment.peek(position, header.size)):
                    if record.timestamp_ms == timestamp:
                        return _found(header, timestamp, record.offset)
        return None
    except OSError as error:
        raise _cannot_read(error) from error


def _cannot_read(error: OSError) -> KafkaError:
    return KafkaError(ErrorCode.kafka_storage_error, f"the log cannot be read: {error.strerror}")


def _found(header: BatchHeader, timestamp_ms: int, offset: int) -> TimestampOffset:
    return TimestampOffset(timestamp_ms, offset, header.partition_leader_epoch)
