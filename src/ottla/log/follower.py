"""A log that follows another (UnifiedLog.appendAsFollower): it takes the leader's batches as they are.

All batches of a fetch are checked before the first is written. Then those that go to one segment are written
at once; offsets and leader epochs stay the leader's, byte for byte. Offsets are absolute, times milliseconds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from crc32c import crc32c

from ottla.errors import ErrorCode, KafkaError
from ottla.log.index import RELATIVE_OFFSET_MAX
from ottla.log.producers import EndMarker
from ottla.log.recovery import marker_of
from ottla.log.segment import Segment
from ottla.types import Buffer
from ottla.wire.records import (
    CONTROL_BIT,
    CRC_START,
    HEADER,
    HEADER_BYTES,
    LENGTH_OVERHEAD_BYTES,
    MAGIC,
    BatchHeader,
)

if TYPE_CHECKING:
    from ottla.log.log import Log

_LENGTH_MIN = HEADER_BYTES - LENGTH_OVERHEAD_BYTES

# What control batches say, by their base offsets. It is read before anything is written: that may fail.
Markers = dict[int, EndMarker | None]


def append_as_follower(log: Log, records: Buffer, now_ms: int, leader_epoch: int) -> None:
    """Append the whole batches in ``records``; a last one that is cut off is left out. Blocks for the write.

    Batches of a later epoch than ``leader_epoch``, in which they were fetched, are left out too, with what
    follows them: whoever sent them has been elected again since, and may have truncated its log in between.

    KafkaError CORRUPT_MESSAGE where bytes are damaged, INVALID_RECORD where batches do not continue the log
    or one another: nothing is appended then. KAFKA_STORAGE_ERROR where the disk fails: what was written to
    segments that are full by then stays, the rest is taken back. ``log_end_offset`` always tells.
    """
    view = memoryview(records)
    end = log.log_end_offset
    # Of an empty log the start may lie within the leader's first batch: records before it were deleted.
    is_empty = end == log.log_start_offset
    headers, markers = _check(view, 0 if is_empty else end, log.epochs.latest, leader_epoch)
    if not headers:
        return
    log.get_ready()
    if headers[0].base_offset >= end:
        _write(log, view, headers, markers, now_ms)
        return
    if headers[0].last_offset < end:
        raise _discontinuous(f"offset {headers[0].base_offset} is before the log's end, {end}")
    _begin_at(log, headers[0].base_offset, now_ms)
    _write(log, view, headers, markers, now_ms)
    log.advance_log_start(end)


def _check(
    view: memoryview, next_offset: int, epoch: int, epoch_max: int
) -> tuple[list[BatchHeader], Markers]:
    """The headers of the whole batches, from ``next_offset`` and leader epoch ``epoch`` on."""
    headers: list[BatchHeader] = []
    markers: Markers = {}
    position, size = 0, len(view)
    unpack, make = HEADER.unpack_from, BatchHeader._make
    while size - position >= HEADER_BYTES:
        header = make(unpack(view, position))
        if header.magic != MAGIC or header.length < _LENGTH_MIN:
            raise _corrupt(header, "is no batch of format v2")
        end = position + header.length + LENGTH_OVERHEAD_BYTES
        if end > size:
            break
        if crc32c(view[position + CRC_START : end]) != header.crc:
            raise _corrupt(header, "has a checksum that does not match its bytes")
        base_offset = header.base_offset
        if base_offset < next_offset:
            raise _discontinuous(f"offset {base_offset} comes where {next_offset} or a later one has to")
        if header.last_offset_delta < 0:
            raise _discontinuous(f"the batch at {base_offset} ends before it begins")
        if header.partition_leader_epoch != epoch:
            if header.partition_leader_epoch > epoch_max:
                break
            if header.partition_leader_epoch < epoch:
                raise _discontinuous(
                    f"leader epoch {header.partition_leader_epoch} at {base_offset} comes after {epoch}"
                )
            epoch = header.partition_leader_epoch
        if header.attributes & CONTROL_BIT:
            markers[base_offset] = marker_of(header, view[position:end])
        headers.append(header)
        next_offset = base_offset + header.last_offset_delta + 1
        position = end
    return headers, markers


def _corrupt(header: BatchHeader, why: str) -> KafkaError:
    return KafkaError(ErrorCode.corrupt_message, f"what the leader sent at offset {header.base_offset} {why}")


def _discontinuous(why: str) -> KafkaError:
    return KafkaError(ErrorCode.invalid_record, f"what the leader sent does not continue the log: {why}")


def _write(log: Log, view: memoryview, headers: list[BatchHeader], markers: Markers, now_ms: int) -> None:
    """Write batches that have been checked, as many at once as go to one segment."""
    first, position = 0, 0
    while first < len(headers):
        count, size = _fitting(log, headers, first, now_ms)
        if not count:
            _make_room(log, headers[first], now_ms)
            continue
        _extend(log, view[position : position + size], headers[first : first + count], markers, now_ms)
        first, position = first + count, position + size


def _fitting(log: Log, headers: list[BatchHeader], first: int, now_ms: int) -> tuple[int, int]:
    """How many batches go to the active segment, and their bytes. The rules are those of ``Log.append``."""
    segment = log.segments[-1]
    start = size = segment.size
    if size and segment.full:
        return 0, 0
    last = len(headers)
    if last - first > 1:
        # Each batch adds an index entry at most: they cannot become full before the last of them.
        last = min(last, first + max(1, segment.index_entries_left()))
    bytes_max, offset_max = log.config.segment_bytes, segment.base_offset + RELATIVE_OFFSET_MAX
    first_ms = segment.first_timestamp_ms
    number = first
    for number in range(first, last):
        header = headers[number]
        batch_bytes = header.length + LENGTH_OVERHEAD_BYTES
        if header.base_offset + header.last_offset_delta > offset_max:
            break
        if not size:
            first_ms = header.max_timestamp_ms
        elif size + batch_bytes > bytes_max or log.has_aged(
            segment, first_ms, header.max_timestamp_ms, now_ms
        ):
            break
        size += batch_bytes
    else:
        number = last
    return number - first, size - start


def _extend(log: Log, batches: memoryview, headers: list[BatchHeader], markers: Markers, now_ms: int) -> None:
    """Write batches to the active segment, and take in what follows from them."""
    try:
        log.segments[-1].extend(batches, headers, log.config.index_interval_bytes)
    except OSError as error:
        raise log.write_failed(error, now_ms) from error
    if log.recovery_point == log.log_end_offset:
        log.unflushed_since_ms = now_ms
    log.size_bytes += len(batches)
    epochs, producers = log.epochs, log.producers
    for header in headers:
        if header.partition_leader_epoch > epochs.latest:
            epochs.assign(header.partition_leader_epoch, header.base_offset)
        if header.producer_id >= 0:
            producers.update(header, header.base_offset, markers.get(header.base_offset))
    producers.end_offset = log.log_end_offset = headers[-1].next_offset


def _make_room(log: Log, header: BatchHeader, now_ms: int) -> None:
    """Begin a segment at the log's end; beyond a gap of more offsets than a segment can hold, after that."""
    end = log.log_end_offset
    is_far = header.last_offset - end > RELATIVE_OFFSET_MAX
    old = log.segments[-1]
    if old.size:
        log.roll(now_ms, header.base_offset if is_far else end)
        return
    try:
        new = Segment.create(log.disk, log.cache, log.directory, header.base_offset, now_ms)
        log.set_segments([*log.segments[:-1], new])
        log.folder_synced = False
        log.discard([old])
    except OSError as error:
        raise log.write_failed(error, now_ms) from error
    new.forget_recent(header.base_offset)


def _begin_at(log: Log, offset: int, now_ms: int) -> None:
    """Begin an empty log again before its start (Partition's handling of UnexpectedAppendOffsetException)."""
    try:
        log.truncate_fully_to(offset, now_ms)
    except OSError as error:
        raise log.write_failed(error, now_ms) from error


def follow_log_start(log: Log, leader_log_start: int, now_ms: int) -> bool:
    """Let the log begin where its leader's does, or stay where it begins later; whether it moved.

    Where the leader's begins after this log's end there is nothing in common: it begins again there, empty
    (ReplicaFetcherThread.fetchOffsetAndTruncate). Leaders, for DeleteRecords, use ``advance_log_start``,
    which refuses that. KafkaError KAFKA_STORAGE_ERROR where the disk fails.
    """
    if leader_log_start <= log.log_end_offset:
        return log.advance_log_start(leader_log_start)
    try:
        log.truncate_fully_to(leader_log_start, now_ms)
    except OSError as error:
        raise log.write_failed(error, now_ms) from error
    return True
