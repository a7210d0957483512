"""One segment of a log: its bytes, its indexes, and where offsets are in it (Kafka's LogSegment).

Positions and sizes are bytes. Nothing is read before it is needed: a closed segment costs its name and size,
its indexes load at the first look-up. The batches that were appended last are also kept in a dense list, so
that a consumer at the tail is served without reading anything.
"""

from __future__ import annotations

import errno
from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import NamedTuple

from ottla.env.disk import Disk, File
from ottla.errors import ErrorCode, KafkaError
from ottla.log.files import INDEX_SUFFIX, LOG_SUFFIX, TIME_INDEX_SUFFIX, FileCache, offset_name
from ottla.log.index import (
    OFFSET_ENTRY_BYTES,
    RELATIVE_OFFSET_MAX,
    TIME_ENTRY_BYTES,
    OffsetIndex,
    TimeIndex,
    decode_time_entry,
)
from ottla.types import Buffer
from ottla.wire.records import HEADER_BYTES, LENGTH_OVERHEAD_BYTES, BatchHeader, read_header

# Batches at the tail whose places are known one by one.
RECENT_BATCHES_MAX = 1024
# Bytes that a look-up reads at once while it steps from header to header.
SCAN_BYTES = 8192
# The index of a segment up to this size is loaded where it is needed, of a larger one off the event loop.
LOADED_IN_PLACE_BYTES_MAX = 64 * 1024 * 1024
# Where the dense list begins in a segment that is not appended to: after every offset.
NONE_RECENT = 2**63 - 1


class ColdRead(Exception):
    """A look-up needs bytes that are not in memory. Run ``warm`` off the event loop and look up again."""

    def __init__(self, what: str, read: Callable[[], object]) -> None:
        super().__init__(what)
        self._read = read

    def warm(self) -> None:
        """Bring the bytes into memory. Blocks; safe in another thread.

        KafkaError KAFKA_STORAGE_ERROR where they cannot be read. That the file is gone is none: retention
        was faster, and the next look-up finds what there is now.
        """
        try:
            self._read()
        except FileNotFoundError:
            return
        except OSError as error:
            raise KafkaError(ErrorCode.kafka_storage_error, f"{self}: {error.strerror}") from error


class Located(NamedTuple):
    """A batch's place in its segment."""

    position: int
    size: int


class Segment:
    """A segment; the last one of a log is appended to, the others only read."""

    __slots__ = (
        "_bytes_since_index",
        "_cache",
        "_closed",
        "_disk",
        "_file",
        "_offset_index",
        "_recent_last_offsets",
        "_recent_positions",
        "_recent_start",
        "_time_index",
        "base_offset",
        "created_ms",
        "cut_unsynced",
        "directory",
        "first_timestamp_ms",
        "full",
        "index_bytes_max",
        "indexed",
        "max_timestamp_ms",
        "max_timestamp_offset",
        "ready",
        "size",
    )

    def __init__(
        self, disk: Disk, cache: FileCache, directory: str, base_offset: int, size: int, created_ms: int
    ) -> None:
        self._disk = disk
        self._cache = cache
        self.directory = directory
        self.base_offset = base_offset
        self.size = size
        self.created_ms = created_ms
        self._file: File | None = None
        self._closed = False
        self._offset_index: OffsetIndex | None = None
        self._time_index: TimeIndex | None = None
        self._bytes_since_index = 0
        # The first batch's largest timestamp, which the segment's age counts from. None: not looked at yet.
        self.first_timestamp_ms: int | None = None
        # The largest timestamp and its batch's last offset. None: ask the time index.
        self.max_timestamp_ms: int | None = None
        self.max_timestamp_offset = base_offset
        # Whether the index files hold all that the indexes do.
        self.indexed = True
        # Whether all that an append asks of it is in memory.
        self.ready = False
        # What a failed write left was cut off, and the disk may not know yet.
        self.cut_unsynced = False
        # segment.index.bytes, and whether an index has reached it.
        self.index_bytes_max = 10 * 1024 * 1024
        self.full = False
        self._recent_start = NONE_RECENT
        self._recent_last_offsets = array("q")
        self._recent_positions = array("q")

    @classmethod
    def create(
        cls, disk: Disk, cache: FileCache, directory: str, base_offset: int, created_ms: int
    ) -> Segment:
        """An empty segment and its log file."""
        segment = cls(disk, cache, directory, base_offset, 0, created_ms)
        segment.reset()
        segment.forget_recent(base_offset)
        segment._file = cache.open(segment.path(LOG_SUFFIX), segment, create=True)
        if segment._file.size():
            segment._file.truncate(0)
        return segment

    def path(self, suffix: str) -> str:
        return f"{self.directory}/{offset_name(self.base_offset, suffix)}"

    @property
    def file(self) -> File:
        """The log file, opened where it is not. For the event loop only: other threads use ``own_file``."""
        if self._file is None:
            self._check_open()
            self._file = self._cache.open(self.path(LOG_SUFFIX), self, create=False)
        return self._file

    def own_file(self) -> File:
        """The log file for reading and syncing in any thread.

        One that is opened here does not become the segment's. An open file knows where it ends; if two were
        appended to, one after the other, the second would write over what the first one wrote.
        """
        file = self._file
        if file is None:
            self._check_open()
            file = self._disk.open(self.path(LOG_SUFFIX))
        return file

    def let_go(self) -> None:
        """Drop the open file; it opens again when it is needed."""
        self._file = None

    def close(self) -> None:
        """Give up the files for good. Nothing is written: see ``save_indexes``."""
        self._closed = True
        self._cache.forget(self)
        self._file = None

    def _check_open(self) -> None:
        """FileNotFoundError once it is closed: its paths may be those of another topic's files by now."""
        if self._closed:
            raise FileNotFoundError(errno.ENOENT, "the segment is closed", self.path(LOG_SUFFIX))

    # -- writing ------------------------------------------------------------------------------------------

    def append(
        self, buffers: Sequence[Buffer], size: int, last_offset: int, max_timestamp_ms: int, interval: int
    ) -> None:
        """Write one batch at the end; ``interval`` is index.interval.bytes. OSError: see ``File.append``.

        The segment must be ``ready``: once the batch is written nothing may fail.
        """
        position = self.size
        (self._file or self.file).append(buffers)
        self.size = position + size
        self.note(position, size, last_offset, max_timestamp_ms, interval)
        self._recent_last_offsets.append(last_offset)
        self._recent_positions.append(position)
        if len(self._recent_positions) > RECENT_BATCHES_MAX:
            self._forget_all_but_recent()

    def extend(self, batches: Buffer, headers: Sequence[BatchHeader], interval: int) -> None:
        """Write whole batches, one after the other, at the end: like ``append`` for each of them."""
        position = self.size
        (self._file or self.file).append((batches,))
        self.size = position + len(batches)
        for header in headers:
            size = header.length + LENGTH_OVERHEAD_BYTES
            last_offset = header.base_offset + header.last_offset_delta
            self.note(position, size, last_offset, header.max_timestamp_ms, interval)
            self._recent_last_offsets.append(last_offset)
            self._recent_positions.append(position)
            position += size
        if len(self._recent_positions) > RECENT_BATCHES_MAX:
            self._forget_all_but_recent()

    def _forget_all_but_recent(self) -> None:
        """Cut the dense list of batches down to half of what it may have."""
        offsets = self._recent_last_offsets
        surplus = len(offsets) - RECENT_BATCHES_MAX // 2
        self._recent_start = offsets[surplus - 1] + 1
        del offsets[:surplus], self._recent_positions[:surplus]

    def note(self, position: int, size: int, last_offset: int, max_timestamp_ms: int, interval: int) -> None:
        """Take a batch into the indexes: called for each one in order, when appended or recovered."""
        if max_timestamp_ms > self.max_timestamp_ms:  # type: ignore[operator]
            self.max_timestamp_ms = max_timestamp_ms
            self.max_timestamp_offset = last_offset
        if position == 0:
            self.first_timestamp_ms = max_timestamp_ms
        if self._bytes_since_index > interval:
            self.offset_index.append(last_offset, position)
            self.time_index.maybe_append(self.max_timestamp_ms, self.max_timestamp_offset)  # type: ignore[arg-type]
            self.indexed = False
            self._bytes_since_index = 0
            self.full = self._is_full()
        self._bytes_since_index += size

    def reset(self) -> None:
        """Forget what is known about the contents: they are about to be looked through again, or empty."""
        self._offset_index = OffsetIndex(self.base_offset)
        self._time_index = TimeIndex(self.base_offset)
        self._bytes_since_index = 0
        self.first_timestamp_ms = None
        self.max_timestamp_ms = -1
        self.max_timestamp_offset = self.base_offset
        self.indexed = False
        self.full = False
        self.ready = True

    def get_ready(self) -> None:
        """Load what appends need. Blocks; OSError where the disk fails."""
        self.load_first_timestamp()
        self.load_max_timestamp()
        self.full = self._is_full()
        self.drop_index_files()
        self.ready = True

    def drop_index_files(self) -> None:
        """Remove index files that are about to be out of date, and that would still look sound after a crash.

        They are written again when the segment is closed.
        """
        self.indexed = False
        self._disk.remove(self.path(INDEX_SUFFIX))
        self._disk.remove(self.path(TIME_INDEX_SUFFIX))

    def forget_recent(self, start: int = NONE_RECENT) -> None:
        """Drop the dense list of the last batches; new ones will begin at ``start``, if any come."""
        self._recent_start = start
        self._recent_last_offsets = array("q")
        self._recent_positions = array("q")

    @property
    def is_loaded(self) -> bool:
        """Whether anything has been appended to it, or looked up in its time index, since it was opened."""
        return self.max_timestamp_ms is not None

    def seal(self) -> None:
        """No more batches will come: let the time index say what the largest timestamp is."""
        timestamp, offset = self.load_max_timestamp()
        if timestamp > self.time_index.last[0]:
            self.time_index.maybe_append(timestamp, offset)
            self.indexed = False

    def save_indexes(self) -> None:
        """Have the index files on the disk where they are not up to date. Blocks; safe in another thread."""
        if self.indexed:
            return
        # Before the work: what changes meanwhile, on the event loop, is to be written again.
        self.indexed = True
        try:
            self._write(INDEX_SUFFIX, self.offset_index.encode())
            self._write(TIME_INDEX_SUFFIX, self.time_index.encode())
        except OSError:
            self.indexed = False
            raise

    def _write(self, suffix: str, data: bytes) -> None:
        self._check_open()
        file = self._disk.open(self.path(suffix), create=True)
        try:
            file.truncate(len(data))
            file.write_at(0, data)
            file.sync()
        finally:
            file.close()

    def truncate_at(self, position: int, offset: int) -> None:
        """Cut the log at ``position``, where the first batch that reaches ``offset`` begins."""
        if position == 0:
            self.reset()
            self.truncate_to_position(0)
            return
        self.offset_index.truncate_to(offset)
        self.time_index.truncate_to(offset)
        self.indexed = False
        self._bytes_since_index = 0
        self.truncate_to_position(position)
        # The time index knows of everything up to the last batch in the other one.
        self.max_timestamp_ms, self.max_timestamp_offset = self.time_index.last
        for header, _ in self.headers_from(self.offset_index.lookup(offset), self.file.read):
            if header.max_timestamp_ms > self.max_timestamp_ms:
                self.max_timestamp_ms = header.max_timestamp_ms
                self.max_timestamp_offset = header.last_offset

    def truncate_to_position(self, position: int) -> None:
        """Cut the log file; the indexes are the caller's to reset or cut."""
        if self.file.size() != position:
            self.file.truncate(position)
        self.size = position

    # -- indexes ------------------------------------------------------------------------------------------

    @property
    def offset_index(self) -> OffsetIndex:
        """Read from its file where it is not in memory; blocks."""
        if self._offset_index is None:
            self._offset_index = OffsetIndex.decode(
                self.base_offset, self._index_file(INDEX_SUFFIX), self.size
            )
            if self._offset_index is None:
                return self.rebuild_indexes()[0]
        return self._offset_index

    @property
    def time_index(self) -> TimeIndex:
        """Read from its file where it is not in memory; blocks."""
        if self._time_index is None:
            self._time_index = TimeIndex.decode(self.base_offset, self._index_file(TIME_INDEX_SUFFIX))
            if self._time_index is None:
                return self.rebuild_indexes()[1]
        return self._time_index

    def _index_file(self, suffix: str) -> bytes | None:
        try:
            return self._disk.read_file(self.path(suffix))
        except FileNotFoundError:
            return None

    def rebuild_indexes(self, interval: int = 4096) -> tuple[OffsetIndex, TimeIndex]:
        """Build the indexes again from the headers of a log that is known to be sound. Reads all of it."""
        fresh = Segment(self._disk, self._cache, self.directory, self.base_offset, self.size, self.created_ms)
        fresh.reset()
        for header, position in self.headers_from(0, self.own_file().read):
            fresh.note(position, header.size, header.last_offset, header.max_timestamp_ms, interval)
        fresh.seal()
        with suppress(OSError):
            # On a full disk they are built again next time.
            fresh.save_indexes()
        self._offset_index, self._time_index = fresh.offset_index, fresh.time_index
        self.max_timestamp_ms, self.max_timestamp_offset = fresh.load_max_timestamp()
        return self._offset_index, self._time_index

    def _have_index(self) -> None:
        """Load the offset index of a large segment off the event loop: it takes milliseconds."""
        if self._offset_index is None and self.size > LOADED_IN_PLACE_BYTES_MAX:
            raise ColdRead(self.path(INDEX_SUFFIX), lambda: self.offset_index)

    def load_max_timestamp(self) -> tuple[int, int]:
        """The largest timestamp, -1 for none, and the last offset of the first batch that has it."""
        if self.max_timestamp_ms is None:
            last = None if self._time_index is not None else self._read_last_time()
            self.max_timestamp_ms, self.max_timestamp_offset = last or self.time_index.last
        return self.max_timestamp_ms, self.max_timestamp_offset

    def _read_last_time(self) -> tuple[int, int] | None:
        """The last entry of the time index's file, without loading it; None where it looks wrong."""
        try:
            file = self._disk.open(self.path(TIME_INDEX_SUFFIX))
        except FileNotFoundError:
            return None
        try:
            size = file.size()
            entry = file.read(size - TIME_ENTRY_BYTES, TIME_ENTRY_BYTES) if size >= TIME_ENTRY_BYTES else b""
        finally:
            file.close()
        if size % TIME_ENTRY_BYTES or not any(entry):
            return None
        timestamp, offset = decode_time_entry(self.base_offset, entry)
        return (timestamp, offset) if self.can_hold(offset) and timestamp >= 0 else None

    def largest_timestamp_ms(self) -> int:
        """What retention by time goes by: the largest timestamp, or when the file was last written."""
        timestamp, _ = self.load_max_timestamp()
        return timestamp if timestamp >= 0 else self._disk.modified_ms(self.path(LOG_SUFFIX))

    def load_first_timestamp(self) -> int:
        """The first batch's largest timestamp, -1 where there is none."""
        if self.first_timestamp_ms is None:
            if self.size < HEADER_BYTES:
                return -1
            self.first_timestamp_ms = read_header(self.file.read(0, HEADER_BYTES)).max_timestamp_ms
        return self.first_timestamp_ms

    def limit_indexes(self, bytes_max: int) -> None:
        """Take on ``segment.index.bytes``; what has not been loaded yet is measured at its next entry."""
        self.index_bytes_max = bytes_max
        loaded = self._offset_index is not None and self._time_index is not None
        self.full = loaded and self._is_full()

    def _is_full(self) -> bool:
        """Whether an index has reached its limit; the time index keeps a place for the seal."""
        return self.index_entries_left() <= 0

    def index_entries_left(self) -> int:
        """How many more entries the indexes take before they are full; the segment must be ``ready``."""
        return min(
            self.index_bytes_max // OFFSET_ENTRY_BYTES - len(self.offset_index),
            self.index_bytes_max // TIME_ENTRY_BYTES - 1 - len(self.time_index),
        )

    def can_hold(self, offset: int) -> bool:
        """Whether an offset can be written relative to the base offset."""
        return 0 <= offset - self.base_offset <= RELATIVE_OFFSET_MAX

    # -- reading ------------------------------------------------------------------------------------------

    def locate(self, offset: int) -> Located | None:
        """The first batch that ends at or after ``offset``; None where there is none.

        Raises ColdRead where a part of the log has to be read that is not in memory.
        """
        if offset >= self._recent_start:
            slot = bisect_left(self._recent_last_offsets, offset)
            positions = self._recent_positions
            if slot == len(positions):
                return None
            position = positions[slot]
            end = positions[slot + 1] if slot + 1 < len(positions) else self.size
            return Located(position, end - position)
        self._have_index()
        for header, position in self.headers_from(self.offset_index.lookup(offset), self.peek):
            if header.last_offset >= offset:
                return Located(position, header.size)
        return None

    def peek(self, position: int, size: int) -> Buffer:
        """Bytes that are in memory; ColdRead where they are not."""
        file = self.file
        data = file.read_cached(position, size)
        if data is None:
            raise ColdRead(f"{file.path} at {position}", lambda: file.read(position, size))
        return data

    def headers_from(
        self, position: int, read: Callable[[int, int], Buffer]
    ) -> Iterator[tuple[BatchHeader, int]]:
        """Each batch's header and position from a batch's position on, up to the segment's end.

        ``read`` reads the file: ``peek``, or the file's own. KafkaError KAFKA_STORAGE_ERROR where there is
        no batch at a position where one must be.
        """
        chunk: Buffer = b""
        chunk_start = 0
        while position < self.size:
            if not (chunk_start <= position and position + HEADER_BYTES <= chunk_start + len(chunk)):
                chunk_start = position
                chunk = read(position, min(SCAN_BYTES, self.size - position))
            if len(chunk) - (position - chunk_start) < HEADER_BYTES:
                raise self._damaged(position)
            header = read_header(chunk, position - chunk_start)
            if header.size < HEADER_BYTES or position + header.size > self.size:
                raise self._damaged(position)
            yield header, position
            position += header.size

    def _damaged(self, position: int) -> KafkaError:
        return KafkaError(
            ErrorCode.kafka_storage_error, f"{self.path(LOG_SUFFIX)} has no batch at position {position}"
        )
