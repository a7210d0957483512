"""Deleting what a log need not keep: by time, by size, before its start (UnifiedLog.deleteOldSegments)."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from ottla.errors import ErrorCode, KafkaError
from ottla.log.segment import Segment

if TYPE_CHECKING:
    from ottla.log.log import Log

logger = logging.getLogger(__name__)


def advance_log_start(log: Log, offset: int) -> bool:
    """Let the log begin at ``offset``; whether that is later than before.

    The caller checks it against the high watermark. Segments before it go at the next retention.
    KafkaError OFFSET_OUT_OF_RANGE beyond the log's end.
    """
    if offset > log.log_end_offset:
        raise KafkaError(
            ErrorCode.offset_out_of_range,
            f"the log cannot begin at {offset}, it ends at {log.log_end_offset}",
        )
    if offset <= log.log_start_offset:
        return False
    log.log_start_offset = offset
    log.epochs.truncate_from_start(offset)
    log.background.start_moved()
    return True


def apply_retention(log: Log, now_ms: int, high_watermark: int | None = None) -> int:
    """Delete the segments that are due, oldest first; how many.

    Those that lie wholly before the log's start always; where cleanup.policy says delete, also as many as
    retention.bytes allows, and those whose newest record is older than retention.ms. None that reaches the
    high watermark. Where all are due the active one rolls first, so that the log keeps its end.
    KafkaError KAFKA_STORAGE_ERROR where the disk fails.
    """
    visible = log.log_end_offset if high_watermark is None else high_watermark
    try:
        deleted = _delete(log, now_ms, visible, _before_start(log), "it lies before the log's start")
        if log.config.deletes:
            if log.config.retention_bytes >= 0:
                deleted += _delete(log, now_ms, visible, _beyond_size(log), "of retention.bytes")
            if log.config.retention_ms >= 0:
                deleted += _delete(log, now_ms, visible, _too_old(log, now_ms), "of retention.ms")
    except OSError as error:
        logger.error("%s: cannot delete segments: %s", log.directory, error)
        raise KafkaError(ErrorCode.kafka_storage_error, str(error)) from error
    return deleted


def _before_start(log: Log) -> Callable[[Segment, int], bool]:
    active = log.segments[-1]
    return lambda segment, end: segment is not active and end <= log.log_start_offset


def _beyond_size(log: Log) -> Callable[[Segment, int], bool]:
    surplus = log.size_bytes - log.config.retention_bytes

    def due(segment: Segment, end: int) -> bool:
        nonlocal surplus
        if surplus < segment.size:
            return False
        surplus -= segment.size
        return True

    return due


def _too_old(log: Log, now_ms: int) -> Callable[[Segment, int], bool]:
    return lambda segment, end: now_ms - segment.largest_timestamp_ms() > log.config.retention_ms


def _delete(log: Log, now_ms: int, visible: int, due: Callable[[Segment, int], bool], why: str) -> int:
    """Delete segments from the oldest on as long as they are ``due`` (segment, end offset)."""
    count = 0
    for number, segment in enumerate(log.segments):
        last = number + 1 == len(log.segments)
        end = log.log_end_offset if last else log.segments[number + 1].base_offset
        if (last and not segment.size) or end > visible or not due(segment, end):
            break
        count += 1
    if not count:
        return 0
    if count == len(log.segments):
        log.roll(now_ms)
    dropped = log.segments[:count]
    logger.info("%s: deleting segments %s because %s", log.directory, [s.base_offset for s in dropped], why)
    log.set_segments(log.segments[count:])
    advance_log_start(log, log.segments[0].base_offset)
    log.discard(dropped)
    return count
