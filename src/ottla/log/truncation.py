"""Cutting a log's end, as a follower does where it diverges from its leader (UnifiedLog.truncateTo)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ottla.log.durability import Durable
from ottla.log.loading import load_snapshot, replay
from ottla.log.segment import Segment

if TYPE_CHECKING:
    from ottla.log.log import Log


def truncate_to(log: Log, offset: int, now_ms: int) -> bool:
    """Cut off everything at and after ``offset``; whether there was anything. Blocks.

    A batch that ``offset`` lies within goes as a whole. OSError where the disk fails: nothing is appended
    then until a restart has looked at what is left.
    """
    if offset >= log.log_end_offset:
        log.epochs.truncate_from_end(log.log_end_offset)
        return False
    if offset < log.segments[0].base_offset:
        truncate_fully_to(log, offset, now_ms)
        return True
    number = log.segment_index(offset)
    segment = log.segments[number]
    position, end = segment.size, offset
    for header, at in segment.headers_from(segment.offset_index.lookup(offset), segment.file.read):
        if header.last_offset >= offset:
            position, end = at, min(offset, header.base_offset)
            break
    try:
        dropped = log.segments[number + 1 :]
        log.set_segments(log.segments[: number + 1])
        log.discard(dropped)
        segment.forget_recent()
        segment.truncate_at(position, end)
        _ends_at(log, end, now_ms)
    except OSError as error:
        # What was to go may still be there, whole or in part.
        log.failed = error
        raise
    return True


def truncate_fully_to(log: Log, offset: int, now_ms: int) -> None:
    """Drop everything and begin again, empty, at ``offset``. OSError where the disk fails."""
    dropped = log.segments
    log.discard(dropped)
    log.set_segments([Segment.create(log.disk, log.cache, log.directory, offset, now_ms)])
    log.log_start_offset = offset
    log.epochs.truncate_from_end(0)
    log.forget_snapshots_after(-1)
    log.producers.clear(offset)
    _ends_at(log, offset, now_ms)


def _ends_at(log: Log, end: int, now_ms: int) -> None:
    """Bring everything that follows from the batches back to a log that now ends at ``end``."""
    log.log_end_offset = end
    log.log_start_offset = min(log.log_start_offset, end)
    # Whatever a flush that is under way has synced, it is not what is written from now on.
    before, log.durable = log.durable.offset, Durable(min(log.durable.offset, end))
    if before > end:
        log.stale_point = max(log.stale_point, before)
    log.folder_synced = False
    log.cleaned_offset = min(log.cleaned_offset, end)
    log.size_bytes = sum(segment.size for segment in log.segments)
    log.epochs.truncate_from_end(end)
    log.segments[-1].forget_recent(end)
    log.forget_snapshots_after(end)
    if not log.producers.truncate_to(end):
        # Reading back to the last snapshot, at the active segment's start, may take seconds.
        load_snapshot(log.disk, log.directory, log.producers, log.snapshots, end, now_ms)
        replay(log.segments, log.producers, end)
