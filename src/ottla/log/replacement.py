"""Putting a compacted segment in the place of those it came from (LocalLog.replaceSegments).

Renames in Kafka's order, so that ``leftovers`` finds out after a crash how far it came: the new files from
``.cleaned`` to ``.swap`` (before the last of them nothing has happened, from then on it is only a matter of
finishing), the old files to ``.deleted``, the new files to their names. All in one step on the event loop.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from ottla.errors import ErrorCode, KafkaError
from ottla.log.cleaning import Cleaned
from ottla.log.files import (
    CLEANED_SUFFIX,
    DELETED_SUFFIX,
    SEGMENT_SUFFIXES,
    SNAPSHOT_SUFFIX,
    SWAP_SUFFIX,
    offset_name,
)
from ottla.log.segment import Segment

if TYPE_CHECKING:
    from ottla.log.log import Log

logger = logging.getLogger(__name__)


def position_of(log: Log, old: list[Segment]) -> int | None:
    """Where in the log these segments are, one after another and all closed; None where they are not.

    Nor where they are not on the disk yet: a flush in another thread might write an index of the old one.
    """
    try:
        first = log.segments.index(old[0])
    except ValueError:
        return None
    end = first + len(old)
    still_there = log.segments[first:end] == old and end < len(log.segments)
    if not still_there or log.deleted or log.failed is not None:
        return None
    is_flushed = log.segments[end].base_offset <= log.recovery_point
    return first if is_flushed and all(segment.indexed for segment in old) else None


def replace(log: Log, old: list[Segment], cleaned: Cleaned, now_ms: int) -> list[str]:
    """Put ``cleaned`` in the place of ``old``, which must be in the log; the files that are to be removed.

    KafkaError KAFKA_STORAGE_ERROR where the disk fails: the log is then as it was, or takes no more appends
    until a restart has finished what was begun.
    """
    first = position_of(log, old)
    assert first is not None
    done: list[tuple[str, str]] = []

    def rename(source: str, target: str) -> None:
        log.disk.rename(source, target)
        done.append((source, target))

    stem = f"{log.directory}/{offset_name(cleaned.base_offset, '')}"
    doomed = []
    try:
        for suffix in cleaned.suffixes:
            rename(f"{stem}{suffix}{CLEANED_SUFFIX}", f"{stem}{suffix}{SWAP_SUFFIX}")
        for path in _files_of(log, old):
            rename(path, path + DELETED_SUFFIX)
            doomed.append(path + DELETED_SUFFIX)
        for suffix in cleaned.suffixes:
            rename(f"{stem}{suffix}{SWAP_SUFFIX}", f"{stem}{suffix}")
    except OSError as error:
        _take_back(log, done)
        raise KafkaError(
            ErrorCode.kafka_storage_error, f"compacted segments cannot be renamed: {error.strerror}"
        ) from error
    new = Segment(log.disk, log.cache, log.directory, cleaned.base_offset, cleaned.size, now_ms)
    log.set_segments([*log.segments[:first], new, *log.segments[first + len(old) :]])
    for segment in old:
        segment.close()
        if segment is not old[0] and segment.base_offset in log.snapshots:
            log.snapshots.remove(segment.base_offset)
    return doomed


def _files_of(log: Log, old: list[Segment]) -> list[str]:
    """The files that go. Producer state at the start of the first segment is still what it was."""
    paths = []
    for segment in old:
        suffixes = [
            suffix for suffix in SEGMENT_SUFFIXES if suffix != SNAPSHOT_SUFFIX or segment is not old[0]
        ]
        paths += [path for suffix in suffixes if log.disk.exists(path := segment.path(suffix))]
    return paths


def _take_back(log: Log, done: list[tuple[str, str]]) -> None:
    try:
        for source, target in reversed(done):
            log.disk.rename(target, source)
    except OSError as error:
        logger.error("%s: a compaction can be neither finished nor undone: %s", log.directory, error)
        log.failed = error
