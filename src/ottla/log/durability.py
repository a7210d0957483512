"""How far a log is on the disk for good (LocalLog.flush): flushing, what a failed sync means, what to sync.

A flush may run in a thread while the event loop appends. That is safe because it first reads where the log
ends and then which segments there are, because each mark of what is done is set before the work and taken
back where that fails, and because all it changes beside is the recovery point. It moves that in a place of
its own, ``Point``, which a truncation on the event loop replaces: what was synced before says nothing about
what is written over it.
"""

from __future__ import annotations

import logging
import os.path
import threading
from collections.abc import Callable, Iterable

from ottla.env.disk import Disk
from ottla.errors import ErrorCode, KafkaError
from ottla.log.checkpoints import encode_epochs
from ottla.log.epochs import LeaderEpochs
from ottla.log.files import EPOCHS_FILE, PARTITION_METADATA_FILE
from ottla.log.segment import Segment
from ottla.log.segments import Segments, State
from ottla.log.settings import LogConfig

logger = logging.getLogger(__name__)


class Point:
    """How far a log is on the disk, between two truncations. One flush at a time moves it."""

    __slots__ = ("offset",)

    def __init__(self, offset: int) -> None:
        self.offset = offset


class Durability:
    """The recovery point of a log and what it rests on.

    ``checkpointed``: what a checkpoint on the disk says of it. ``names_topic``: the folder tells its topic.
    ``recovered``: an earlier process may have cut it, and ended before that was synced.
    """

    def __init__(
        self,
        disk: Disk,
        segments: Segments,
        epochs: LeaderEpochs,
        recovery_point: int,
        *,
        checkpointed: int,
        names_topic: bool,
        recovered: bool = False,
    ) -> None:
        self._disk = disk
        self._segments = segments
        self._epochs = epochs
        self._names_topic = names_topic
        self.point = Point(recovery_point)
        # Since when, by the wall clock, there has been anything that is not on the disk.
        self.unflushed_since_ms = 0
        # A sync failed: what the disk holds is not known any more.
        self.failed: OSError | None = None
        # One flush at a time: what a second one finds done has to be on the disk.
        self._flushing = threading.Lock()
        # The disk may still hold, from before the log was cut, batches of up to this, and a checkpoint such a
        # recovery point.
        self._stale_point = checkpointed if checkpointed > recovery_point else -1
        # Whether the active segment's file was cut, and the disk may not know yet.
        self._was_cut = recovered or self._stale_point >= 0
        # Whether the folder's own list of files is on disk, and its place among the others.
        self._folder_synced = False
        self._parent_synced = False
        self._topic_id_synced = False

    # -- what happens to the log --------------------------------------------------------------------------

    def begins_unflushed(self, now_ms: int) -> None:
        """All was on the disk, and something is written now."""
        self.unflushed_since_ms = now_ms

    def folder_changed(self) -> None:
        """A file has come to the folder, or gone."""
        self._folder_synced = False

    def in_place(self) -> None:
        """Somebody has synced the folder that this one is in, since this one was made."""
        self._parent_synced = True

    def truncated(self, end_before: int, end_offset: int) -> None:
        """The log was cut: it ended at ``end_before``, and ends at ``end_offset`` now.

        Whatever a flush that is under way has synced, it is not what is written from now on.
        """
        self.point = Point(min(self.point.offset, end_offset))
        if end_before > end_offset:
            # What was not flushed may have come to the disk all the same.
            self._stale_point = max(self._stale_point, end_before)
        self._was_cut = True
        self._folder_synced = False

    def fail(self, error: OSError) -> None:
        """What the disk holds is not known any more: nothing is written until a restart has looked."""
        self.failed = error

    def check(self) -> None:
        """KafkaError KAFKA_STORAGE_ERROR where the disk failed."""
        if self.failed is not None:
            raise KafkaError(ErrorCode.kafka_storage_error, f"the disk failed: {self.failed.strerror}")

    def must_flush_to_roll(self) -> bool:
        """Whether a loss of power might bring back what the active segment held before it was cut, just up to
        where the next one begins: recovery could not tell, nor if it begins behind it."""
        return self._segments.end_offset <= self._stale_point

    @property
    def unflushed_messages(self) -> int:
        """Records that a loss of power might take."""
        return self._segments.end_offset - self.point.offset

    @property
    def needs_flush(self) -> bool:
        """Whether a loss of power might bring back another log than this."""
        return self.unflushed_messages > 0 or self._was_cut or self._epochs.changed

    def is_due(self, config: LogConfig, now_ms: int) -> bool:
        """Whether flush.messages or flush.ms asks for a flush."""
        unflushed = self.unflushed_messages
        return unflushed >= config.flush_messages or (
            unflushed > 0 and now_ms - self.unflushed_since_ms >= config.flush_ms
        )

    # -- flushing -----------------------------------------------------------------------------------------

    def flush(self, before: int | None = None, save: Callable[[], None] | None = None) -> None:
        """Make everything that is appended by now survive a loss of power. Blocks; safe in another thread.

        ``before``: only the segments that begin before that offset. ``save``: what is to be written first,
        while no other flush moves the recovery point past it; the flush does not depend on it.

        What is appended meanwhile may be synced too, but is not counted; nothing is where the log is
        truncated meanwhile. A flush that is under way in another thread is waited for. KafkaError
        KAFKA_STORAGE_ERROR where the disk fails. Where it is the sync that fails, the disk may have dropped
        what it could not write: nothing more is appended then until a restart has looked at what is left.
        """
        with self._flushing:
            if save is not None and not self._is_deleted:
                try:
                    save()
                except OSError as error:
                    # Recovery begins at an earlier one then.
                    directory = self._segments.directory
                    logger.warning("%s: producer state cannot be written: %s", directory, error)
            self._flush(before)

    def _flush(self, before: int | None) -> None:
        point = self.point
        end = self._segments.end_offset
        end = end if before is None else min(before, end)
        segments = list(self._segments.all)
        since = point.offset
        if self._is_deleted or (end == since and self._folder_synced and not self._epochs.changed):
            return
        # Where one failed a sync would succeed now, over data that may be lost.
        self.check()
        was_cut = self._was_cut
        self._was_cut = was_cut and before is not None
        try:
            for number, segment in enumerate(segments):
                if before is not None and segment.base_offset >= before:
                    break
                following = segments[number + 1] if number + 1 < len(segments) else None
                self._flush_segment(
                    segment,
                    has_news=was_cut or end > since if following is None else following.base_offset > since,
                    is_closed=following is not None,
                )
            self._save_epochs()
            self._sync_folder()
        except OSError as error:
            self._was_cut = self._was_cut or was_cut
            if self._is_deleted:
                return
            logger.error("%s: cannot flush: %s", self._segments.directory, error)
            raise KafkaError(
                ErrorCode.kafka_storage_error, f"the log cannot be flushed: {error.strerror}"
            ) from error
        point.offset = max(since, end)

    @property
    def _is_deleted(self) -> bool:
        return self._segments.state is State.DELETED

    def _flush_segment(self, segment: Segment, *, has_news: bool, is_closed: bool) -> None:
        try:
            if is_closed:
                segment.save_indexes()
                self._segments.aborted.save(segment.base_offset)
            file = segment.file_to_sync(has_news=has_news)
        except FileNotFoundError:
            if segment in self._segments.all:
                raise
            # Retention was faster.
            return
        if file is None:
            return
        try:
            file.sync()
        except OSError as error:
            self.fail(error)
            raise

    def _save_epochs(self, *, sync: bool = True) -> list[str]:
        """Write them where the file is not up to date; the file, if it was written."""
        if not self._epochs.changed or self._is_deleted:
            return []
        self._epochs.mark_saved()
        try:
            path = f"{self._segments.directory}/{EPOCHS_FILE}"
            self._disk.write_file(path, encode_epochs(self._epochs.entries), sync=sync)
        except OSError:
            self._epochs.mark_saved(False)
            raise
        return [path]

    def _sync_folder(self) -> None:
        """The folder's list of files, and once its own place among the others."""
        if self._folder_synced:
            return
        self._folder_synced = True
        directory = self._segments.directory
        try:
            self._disk.sync_dir(directory)
            if not self._topic_id_synced:
                self._sync_topic_id()
                self._topic_id_synced = True
            if not self._parent_synced:
                self._disk.sync_dir(os.path.dirname(directory))
                self._parent_synced = True
        except OSError:
            self._folder_synced = False
            raise

    def _sync_topic_id(self) -> None:
        """A folder that does not tell its topic would be taken for that of a new topic of the same name."""
        if self._names_topic:
            self._sync_file(f"{self._segments.directory}/{PARTITION_METADATA_FILE}")

    def _sync_file(self, path: str) -> None:
        file = self._disk.open(path)
        try:
            file.sync()
        finally:
            file.close()

    # -- the end ------------------------------------------------------------------------------------------

    def write_epochs(self) -> list[str]:
        """Have epochs in their file; the file, where it has yet to be synced. OSError where that fails."""
        return self._save_epochs(sync=False)

    def sync_all(self, written: Iterable[str]) -> None:
        """Have these files of the folder, and then all else, on the disk. Blocks; as ``flush``."""
        needs_flush = self.needs_flush
        try:
            for path in written:
                self._sync_file(path)
                self._folder_synced, needs_flush = False, True
        except OSError as error:
            logger.error("%s: cannot sync: %s", self._segments.directory, error)
            raise KafkaError(
                ErrorCode.kafka_storage_error, f"the log cannot be closed: {error.strerror}"
            ) from error
        if needs_flush:
            self.flush()

    def all_synced(self) -> None:
        """Somebody else has done what ``sync_all`` does."""
        self.point.offset = self._segments.end_offset
        self._was_cut = False
