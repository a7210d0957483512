"""A log's segments, and where it ends (Kafka's LogSegments and LocalLog): write, roll, read, cut, replace.

Owns the list, the active segment and their files; knows nothing of epochs, producers or replicas. Used from
one thread, but for ``all`` and ``end_offset``, which a flush in another thread reads. Offsets are absolute,
sizes bytes, times milliseconds.
"""

from __future__ import annotations

import logging
import random
from bisect import bisect_right
from collections.abc import Iterable
from enum import Enum
from typing import Final, NamedTuple

from ottla.env.disk import Disk, File
from ottla.errors import ErrorCode, KafkaError
from ottla.log.aborted import AbortedTransactions
from ottla.log.file_cache import FileCache
from ottla.log.files import (
    CLEANED_SUFFIX,
    DELETED_SUFFIX,
    SEGMENT_SUFFIXES,
    SNAPSHOT_SUFFIX,
    SWAP_SUFFIX,
    Background,
    offset_name,
)
from ottla.log.index import RELATIVE_OFFSET_MAX
from ottla.log.retention import Extent
from ottla.log.segment import Located, Segment, Written
from ottla.log.settings import LogConfig
from ottla.log.snapshots import Snapshots
from ottla.log.transaction_index import AbortedTransaction
from ottla.log.transactions import Completed
from ottla.types import Buffer
from ottla.wire.records import LENGTH_OVERHEAD_BYTES, BatchHeader

logger = logging.getLogger(__name__)

# Clients try again and again while a disk is full: one line tells it.
COMPLAINT_INTERVAL_MS: Final = 10_000


class State(Enum):
    """What can be done with the files."""

    SOUND = "sound"
    # Bytes of a failed write may lie after the end of the active segment.
    TORN = "torn"
    # The partition is gone: nothing is written any more.
    DELETED = "deleted"


class Slice(NamedTuple):
    """Bytes of a log to be read: ``file.read_resident(position, size)``, or ``file.read`` off the loop."""

    file: File
    position: int
    size: int


class Cut(NamedTuple):
    """Where a log is to be cut: in which segment, at which byte, and the offset that it then ends at."""

    number: int
    position: int
    end_offset: int


class HalfReplaced(Exception):
    """A replacement failed, and could not be undone either: a restart finishes what was begun."""

    def __init__(self, cause: OSError, again: OSError) -> None:
        super().__init__(str(cause))
        self.cause = cause
        self.again = again


class Segments:
    """At least one segment; the last one is active."""

    def __init__(
        self,
        disk: Disk,
        cache: FileCache,
        directory: str,
        segments: list[Segment],
        end_offset: int,
        snapshots: Snapshots,
        background: Background,
        config: LogConfig,
        aborted: AbortedTransactions,
    ) -> None:
        self._disk = disk
        self._cache = cache
        self.directory = directory
        self._snapshots = snapshots
        self._background = background
        self.end_offset = end_offset
        self.aborted = aborted
        self.state = State.SOUND
        self._complained_ms = -COMPLAINT_INTERVAL_MS
        # Oldest first. Replaced or appended to, never changed otherwise.
        self.all: list[Segment] = []
        self._bases: list[int] = []
        self.active = segments[-1]
        self.size_bytes = 0
        self.update_config(config)
        self._set(segments)

    def update_config(self, config: LogConfig) -> None:
        """Take on a changed topic configuration, from the next write on."""
        self._config = config
        self._segment_bytes = config.segment_bytes
        self._interval = config.index_interval_bytes
        self.active.limit_indexes(config.segment_index_bytes)
        self._draw_roll_age()

    def _draw_roll_age(self) -> None:
        """How old a segment grows: segment.ms less a jitter, so that not all logs roll at once."""
        age_ms = self._config.roll_ms
        jitter = min(self._config.segment_jitter_ms, age_ms)
        self._roll_age_ms = age_ms - (random.randrange(jitter) if jitter > 0 else 0)

    def _set(self, segments: list[Segment]) -> None:
        self.all = segments
        self._bases = [segment.base_offset for segment in segments]
        self.active = segments[-1]
        self.active.limit_indexes(self._config.segment_index_bytes)
        self.size_bytes = sum(segment.size for segment in segments)

    def number_of(self, offset: int) -> int:
        """The number of the segment that holds ``offset``."""
        return max(0, bisect_right(self._bases, offset) - 1)

    def end_of(self, number: int) -> int:
        """The offset that a segment ends before."""
        return self._bases[number + 1] if number + 1 < len(self._bases) else self.end_offset

    def extents(self) -> list[Extent]:
        """The segments as retention sees them."""
        return [Extent(self.end_of(number), segment.size) for number, segment in enumerate(self.all)]

    # -- writing ------------------------------------------------------------------------------------------

    def write(
        self, buffers: tuple[Buffer, ...], headers: tuple[BatchHeader, ...], now_ms: int
    ) -> tuple[int, int]:
        """Write batches to the active segment, as many as go there; how many, and their bytes.

        ``buffers`` hold one batch, or are one buffer of several. None is written where a new segment has to
        begin for the first of them; an empty one takes one of any size. The segment must be ready. KafkaError
        KAFKA_STORAGE_ERROR where the disk fails; everything is then as it was.
        """
        count, size, end = self.fit(headers, now_ms)
        if not count:
            return 0, 0
        if count < len(headers):
            headers = headers[:count]
            buffers = (memoryview(buffers[0])[:size],)
        try:
            self.active.append(buffers, headers, self._interval)
        except OSError as error:
            raise self.write_failed(error, now_ms) from error
        self.size_bytes += size
        self.end_offset = end
        return count, size

    def fit(self, headers: tuple[BatchHeader, ...], now_ms: int) -> tuple[int, int, int]:
        """How many of these batches go to the active segment, their bytes, and where the log ends then."""
        segment = self.active
        start = size = segment.size
        if size and segment.full:
            return 0, 0, 0
        count_max = len(headers)
        if count_max > 1:
            # Each batch adds an index entry at most: they cannot become full before the last of them.
            count_max = max(1, segment.index_entries_left())
        bytes_max, offset_max = self._segment_bytes, segment.base_offset + RELATIVE_OFFSET_MAX
        first_ms, count, end = segment.first_timestamp_ms, 0, 0
        for header in headers:
            last_offset = header.base_offset + header.last_offset_delta
            batch_bytes = header.length + LENGTH_OVERHEAD_BYTES
            if last_offset > offset_max or count == count_max:
                break
            if not size:
                first_ms = header.max_timestamp_ms
            elif size + batch_bytes > bytes_max:
                break
            # The age is that of the records, where they have a time.
            elif first_ms is not None and first_ms >= 0:
                if header.max_timestamp_ms - first_ms > self._roll_age_ms:
                    break
            elif now_ms - segment.created_ms > self._roll_age_ms:
                break
            size += batch_bytes
            count += 1
            end = last_offset + 1
        return count, size - start, end

    def written(self, file: File, headers: tuple[BatchHeader, ...], size: int) -> None:
        """``size`` bytes, which all ``fit``, have been written to the active segment, through ``file``."""
        self.active.grown(file, headers, size, self._interval)
        self.size_bytes += size
        self.end_offset = headers[-1].last_offset + 1

    def write_failed(self, error: OSError, now_ms: int) -> KafkaError:
        """A write did not succeed: take back what it may have left."""
        self.state = State.TORN
        if now_ms - self._complained_ms >= COMPLAINT_INTERVAL_MS:
            self._complained_ms = now_ms
            logger.error("%s: cannot write: %s", self.directory, error)
        try:
            self._take_back()
        except OSError as again:
            logger.error("%s: cannot take back a failed write: %s", self.directory, again)
        return KafkaError(ErrorCode.kafka_storage_error, f"the log cannot be written: {error.strerror}")

    def _take_back(self) -> None:
        self.active.take_back()
        self.state = State.SOUND

    def note_aborted(self, completed: Completed) -> None:
        """A transaction was aborted by a marker that has been written to the active segment."""
        entry = AbortedTransaction(*completed[:-1])
        self.aborted.add(self.active.base_offset, entry)

    def get_ready(self) -> None:
        """Before the first write, and after one that failed: make sure of all it needs, or refuse again.

        KafkaError UNKNOWN_TOPIC_OR_PARTITION for a log that was deleted, KAFKA_STORAGE_ERROR.
        """
        if self.state is State.DELETED:
            raise KafkaError(ErrorCode.unknown_topic_or_partition, "the partition has been deleted")
        try:
            if self.state is State.TORN:
                self._take_back()
            if not self.active.ready:
                self.active.get_ready()
        except OSError as error:
            raise KafkaError(
                ErrorCode.kafka_storage_error, f"the log cannot be written: {error.strerror}"
            ) from error

    def roll(self, now_ms: int, base_offset: int) -> None:
        """Close the active segment and begin a new one, at the end or after it.

        KafkaError KAFKA_STORAGE_ERROR where the new file cannot be made; everything is then as it was.
        """
        old = self.active
        try:
            # First what may fail: a new file must not stay behind an old segment that goes on.
            old.seal()
            new = self._create(base_offset, now_ms)
        except OSError as error:
            raise self.write_failed(error, now_ms) from error
        new.limit_indexes(self._config.segment_index_bytes)
        old.forget_recent()
        self.all.append(new)
        self._bases.append(base_offset)
        self.active = new
        self.aborted.closed(old.base_offset)
        self._draw_roll_age()

    def move_active(self, base_offset: int, now_ms: int) -> None:
        """Begin the active segment, which must be empty, at a later offset.

        KafkaError KAFKA_STORAGE_ERROR where that fails.
        """
        old = self.active
        try:
            self._set([*self.all[:-1], self._create(base_offset, now_ms)])
            self._discard([old])
        except OSError as error:
            raise self.write_failed(error, now_ms) from error

    def _create(self, base_offset: int, now_ms: int) -> Segment:
        return Segment.create(self._disk, self._cache, self.directory, base_offset, now_ms)

    # -- reading ------------------------------------------------------------------------------------------

    def read(self, offset: int, max_bytes: int, end_offset: int, min_one: bool) -> Slice | None:
        """Where the batches from ``offset`` to ``end_offset``, both within the log, are: see ``Log.read``.

        OSError where the disk fails.
        """
        segment = self.active
        if offset >= segment.base_offset:
            number = len(self.all) - 1
            found = segment.locate(offset)
        else:
            number, found = self._locate_before_active(offset, end_offset)
            segment = self.all[number]
        if found is None:
            return None
        position, first_size = found
        limit = segment.size
        if end_offset < self.end_offset and end_offset < self.end_of(number):
            end = segment.locate(end_offset)
            limit = end.position if end is not None else limit
        size = limit - position
        if size > max_bytes:
            if first_size > max_bytes and not min_one:
                return None
            size = max(max_bytes, first_size)
        return Slice(segment.file, position, size) if size > 0 else None

    def _locate_before_active(self, offset: int, end_offset: int) -> tuple[int, Located | None]:
        """The segment's number and the place of the first batch that ends at or after ``offset``.

        Where compaction has removed what was there, it is the first of a later segment.
        """
        number = self.number_of(offset)
        found = self.all[number].locate(offset)
        while found is None and number + 1 < len(self.all):
            number += 1
            if self._bases[number] >= end_offset:
                break
            found = self.all[number].locate(offset)
        return number, found

    def aborted_in(self, offset: int, end_offset: int, piece: Slice) -> list[tuple[int, int]]:
        """(producer id, first offset) of the aborted transactions with records in ``piece``, which ``read``
        has found for the two offsets (LocalLog.addAbortedTransactions).

        As in Kafka there may be others among them that begin behind it, as far as the offset index is coarse.
        ColdRead, KafkaError as ``AbortedTransactions.collect``; OSError where the disk fails.
        """
        if not self.aborted:
            return []
        number = len(self.all) - 1
        if offset < self.active.base_offset:
            number, _ = self._locate_before_active(offset, end_offset)
        segment = self.all[number]
        upper_bound = segment.offset_at(piece.position + piece.size)
        if upper_bound < 0:
            upper_bound = self.end_of(number)
        return self.aborted.collect(segment.base_offset, offset, upper_bound)

    # -- cutting ------------------------------------------------------------------------------------------

    def find_cut(self, offset: int) -> Cut:
        """Where to cut so that nothing at or after ``offset`` stays: a batch that it lies within goes whole.

        ``offset`` is not before the first segment. Blocks; OSError where the disk fails.
        """
        number = self.number_of(offset)
        segment = self.all[number]

        def look_up() -> Cut:
            for header, position in segment.headers_at(offset, segment.file.read):
                if header.last_offset >= offset:
                    return Cut(number, position, min(offset, header.base_offset))
            return Cut(number, segment.size, offset)

        return segment.outlast(look_up)

    def truncate(self, cut: Cut) -> None:
        """Cut. OSError where the disk fails: what was to go may still be there, whole or in part."""
        number, position, end = cut
        segment = self.all[number]
        dropped = self.all[number + 1 :]
        self._set(self.all[: number + 1])
        self._discard(dropped)
        segment.forget_recent()
        segment.truncate_at(position, end)
        segment.forget_recent(end)
        self.size_bytes = sum(one.size for one in self.all)
        self.end_offset = end
        self.aborted.truncate_to(segment.base_offset, end)

    def begin_again(self, offset: int, now_ms: int) -> None:
        """Drop everything and begin again, empty, at ``offset``. OSError where the disk fails."""
        self._discard(self.all)
        self._set([self._create(offset, now_ms)])
        self.end_offset = offset

    def drop_first(self, count: int) -> None:
        """Drop the oldest segments, not all. OSError where the disk fails: they have left the log even so."""
        dropped = self.all[:count]
        self._set(self.all[count:])
        self._discard(dropped)

    def _discard(self, segments: list[Segment]) -> None:
        """Rename the files of segments that are no longer used, and remove them after file.delete.delay.ms.

        Whoever still reads from one holds its open file.
        """
        doomed = []
        self.aborted.forget([segment.base_offset for segment in segments])
        for segment in segments:
            segment.close()
            self._snapshots.forget(segment.base_offset)
            for suffix in SEGMENT_SUFFIXES:
                path = segment.path(suffix)
                if self._disk.exists(path):
                    self._disk.rename(path, path + DELETED_SUFFIX)
                    doomed.append(path + DELETED_SUFFIX)
        self.remove_later(doomed)

    def remove_later(self, paths: Iterable[str]) -> None:
        """Remove files that nobody knows of any more, after file.delete.delay.ms."""

        def remove() -> None:
            for path in paths:
                self._disk.remove(path)

        self._background.submit(remove, self._config.file_delete_delay_ms)

    # -- compaction ---------------------------------------------------------------------------------------

    def position_of(self, some: list[Segment]) -> int | None:
        """Where these segments are, one after another and all closed; None where they are not."""
        try:
            first = self.all.index(some[0])
        except ValueError:
            return None
        end = first + len(some)
        return first if self.all[first:end] == some and end < len(self.all) else None

    def replace(self, old: list[Segment], written: Written, now_ms: int) -> list[str]:
        """Put a compacted segment in the place of those it came from; the files that are to be removed.

        Renames in Kafka's order (LocalLog.replaceSegments), so that ``leftovers`` finds out after a crash how
        far it came: the new files from ``.cleaned`` to ``.swap`` (before the last of them nothing has
        happened, from then on it is only a matter of finishing), the old files to ``.deleted``, the new files
        to their names. All in one step on the event loop.

        OSError where the disk fails, and everything is as it was; HalfReplaced where it is not.
        """
        first = self.position_of(old)
        assert first is not None
        done: list[tuple[str, str]] = []

        def rename(source: str, target: str) -> None:
            self._disk.rename(source, target)
            done.append((source, target))

        stem = f"{self.directory}/{offset_name(written.base_offset, '')}"
        doomed = []
        try:
            for suffix in written.suffixes:
                rename(f"{stem}{suffix}{CLEANED_SUFFIX}", f"{stem}{suffix}{SWAP_SUFFIX}")
            for path in self._files_of(old):
                rename(path, path + DELETED_SUFFIX)
                doomed.append(path + DELETED_SUFFIX)
            for suffix in written.suffixes:
                rename(f"{stem}{suffix}{SWAP_SUFFIX}", f"{stem}{suffix}")
        except OSError as error:
            self._rename_back(done, error)
            raise
        new = Segment(self._disk, self._cache, self.directory, written.base_offset, written.size, now_ms)
        self._set([*self.all[:first], new, *self.all[first + len(old) :]])
        self.aborted.forget([segment.base_offset for segment in old])
        self.aborted.put(written.base_offset, written.aborted, saved=True)
        for segment in old:
            segment.close()
        for segment in old[1:]:
            self._snapshots.forget(segment.base_offset)
        return doomed

    def _files_of(self, old: list[Segment]) -> list[str]:
        """The files that go. Producer state at the start of the first segment is still what it was."""
        paths = []
        for segment in old:
            suffixes = [
                suffix for suffix in SEGMENT_SUFFIXES if suffix != SNAPSHOT_SUFFIX or segment is not old[0]
            ]
            paths += [path for suffix in suffixes if self._disk.exists(path := segment.path(suffix))]
        return paths

    def _rename_back(self, done: list[tuple[str, str]], cause: OSError) -> None:
        try:
            for source, target in reversed(done):
                self._disk.rename(target, source)
        except OSError as again:
            raise HalfReplaced(cause, again) from cause

    # -- the end ------------------------------------------------------------------------------------------

    def write_indexes(self) -> list[str]:
        """Write the index files that are not up to date; those that have yet to be synced. Blocks; OSError
        where that fails."""
        if self.active.is_loaded:
            self.active.seal()
        written = [path for segment in self.all for path in segment.save_indexes(sync=False)]
        return written + [path for base in self.aborted.bases for path in self.aborted.save(base, sync=False)]

    def close(self) -> None:
        """Let the files go."""
        self.aborted.close()
        for segment in self.all:
            segment.close()

    def retire(self) -> None:
        """The partition is gone: let the files go, and write nothing any more."""
        self.close()
        self.state = State.DELETED
