"""Getting a log onto the disk for good: flushing, and closing in order (LocalLog.flush, LogManager.shutdown).

A flush may run in a thread while the event loop appends. That is safe because it first reads where the log
ends and then which segments there are, because each mark of what is done is set before the work and taken
back where that fails, and because all it changes beside is the recovery point. It moves that in a place of
its own, ``Durable``, which a truncation on the event loop replaces: what was synced before says nothing about
what is written over it.
"""

from __future__ import annotations

import logging
import os.path
from typing import TYPE_CHECKING

from ottla.errors import ErrorCode, KafkaError
from ottla.log.checkpoints import encode_epochs
from ottla.log.files import EPOCHS_FILE, PARTITION_METADATA_FILE
from ottla.log.segment import Segment

if TYPE_CHECKING:
    from ottla.log.log import Log

logger = logging.getLogger(__name__)


class Durable:
    """How far a log is on the disk, between two truncations. One flush at a time moves it."""

    __slots__ = ("offset",)

    def __init__(self, offset: int) -> None:
        self.offset = offset


def flush(log: Log, before: int | None = None) -> None:
    """Make everything that is appended by now survive a loss of power. Blocks; safe in another thread.

    ``before``: only the segments that begin before that offset.

    What is appended meanwhile may be synced too, but is not counted; nothing is where the log is truncated
    meanwhile. A flush that is under way in another thread is waited for. KafkaError KAFKA_STORAGE_ERROR where
    the disk fails. Where it is the sync that fails, the disk may have dropped what it could not write:
    nothing more is appended then until a restart has looked at what is left.
    """
    with log.flushing:
        _flush(log, before)


def _flush(log: Log, before: int | None) -> None:
    durable = log.durable
    end = log.log_end_offset if before is None else min(before, log.log_end_offset)
    segments = list(log.segments)
    since = durable.offset
    if log.deleted or (end == since and log.folder_synced and not log.epochs.changed):
        return
    if log.failed is not None:
        # A sync would succeed now, over data that may be lost.
        raise KafkaError(ErrorCode.kafka_storage_error, f"the disk failed: {log.failed.strerror}")
    try:
        for number, segment in enumerate(segments):
            if before is not None and segment.base_offset >= before:
                break
            following = segments[number + 1] if number + 1 < len(segments) else None
            _flush_segment(
                log,
                segment,
                sync=following is None or following.base_offset > since,
                closed=following is not None,
            )
        _save_epochs(log)
        _sync_folder(log)
    except OSError as error:
        if log.deleted:
            return
        logger.error("%s: cannot flush: %s", log.directory, error)
        raise KafkaError(
            ErrorCode.kafka_storage_error, f"the log cannot be flushed: {error.strerror}"
        ) from error
    durable.offset = max(since, end)


def close(log: Log) -> None:
    """Write out all that a clean start relies on, and let the files go. Blocks.

    KafkaError KAFKA_STORAGE_ERROR where that fails: the log must then be opened as after a crash.
    """
    log.get_ready_to_close()
    active = log.segments[-1]
    try:
        if active.is_loaded:
            active.seal()
        for segment in log.segments:
            segment.save_indexes()
        # Recovery finds out about producers by itself; a clean start has only this.
        log.write_snapshot(sync=True)
    except OSError as error:
        raise KafkaError(ErrorCode.kafka_storage_error, str(error)) from error
    if log.unflushed_messages or log.epochs.changed:
        flush(log)
    for segment in log.segments:
        segment.close()


def _flush_segment(log: Log, segment: Segment, *, sync: bool, closed: bool) -> None:
    try:
        if closed:
            segment.save_indexes()
        if not (sync or segment.cut_unsynced):
            return
        file = segment.own_file()
    except FileNotFoundError:
        if segment in log.segments:
            raise
        # Retention was faster.
        return
    segment.cut_unsynced = False
    try:
        file.sync()
    except OSError as error:
        log.failed = error
        raise


def _save_epochs(log: Log) -> None:
    if not log.epochs.changed or log.deleted:
        return
    log.epochs.changed = False
    try:
        log.disk.write_file(f"{log.directory}/{EPOCHS_FILE}", encode_epochs(log.epochs.entries))
    except OSError:
        log.epochs.changed = True
        raise


def _sync_folder(log: Log) -> None:
    """The folder's list of files, and once its own place among the others."""
    if log.folder_synced:
        return
    log.folder_synced = True
    try:
        log.disk.sync_dir(log.directory)
        if not log.parent_synced:
            _sync_topic_id(log)
            log.disk.sync_dir(os.path.dirname(log.directory))
            log.parent_synced = True
    except OSError:
        log.folder_synced = False
        raise


def _sync_topic_id(log: Log) -> None:
    """A folder that does not tell its topic would be taken for that of a new topic of the same name."""
    if log.topic_id is None:
        return
    file = log.disk.open(f"{log.directory}/{PARTITION_METADATA_FILE}")
    try:
        file.sync()
    finally:
        file.close()
