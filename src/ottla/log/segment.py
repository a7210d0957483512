"""One segment of a log: its bytes, its indexes, and where offsets are in it (Kafka's LogSegment).

Positions and sizes are bytes. Nothing is read before it is needed: a closed segment costs its name and size,
its indexes load at the first look-up. The batches that were appended last are also kept in a dense list, so
that a consumer at the tail is served without reading anything.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Sequence
from typing import Final, NamedTuple

from ottla.checksum import crc32c
from ottla.env.disk import Disk, File
from ottla.log.file_cache import FileCache
from ottla.log.files import INDEX_SUFFIX, LOG_SUFFIX, TIME_INDEX_SUFFIX
from ottla.log.index import OFFSET_ENTRY_BYTES, TIME_ENTRY_BYTES, OffsetIndex, TimeIndex
from ottla.log.index_files import write_index
from ottla.log.indexed_file import IndexedFile
from ottla.log.transaction_index import TransactionIndex
from ottla.log.walking import goes_on
from ottla.types import Buffer
from ottla.wire.records import CRC_START, HEADER_BYTES, LENGTH_OVERHEAD_BYTES, BatchHeader, read_header

# Batches at the tail whose places are known one by one.
RECENT_BATCHES_MAX: Final = 1024
# Where the dense list begins in a segment that is not appended to: after every offset.
NONE_RECENT: Final = 2**63 - 1


class Located(NamedTuple):
    """A batch's place in its segment."""

    position: int
    size: int


class Written(NamedTuple):
    """A segment that was written aside: its start, its bytes, which of a segment's files there are, and its
    aborted transactions."""

    base_offset: int
    size: int
    suffixes: tuple[str, ...]
    aborted: TransactionIndex


class _Peeked:
    """What a look-up has read last: the header behind the batch that it finds is mostly there, too."""

    __slots__ = ("_data", "_segment", "_start")

    def __init__(self, segment: Segment) -> None:
        self._segment = segment
        self._data: Buffer = b""
        self._start = 0

    def read(self, position: int, size: int) -> Buffer:
        self._data = data = self._segment.peek(position, size)
        self._start = position
        return data

    def header_at(self, position: int) -> Buffer | None:
        """The bytes of a header; None where they are not in memory."""
        at = position - self._start
        if at >= 0 and at + HEADER_BYTES <= len(self._data):
            return self._data[at : at + HEADER_BYTES]
        return self._segment.file.read_cached(position, HEADER_BYTES)


class Segment(IndexedFile):
    """A segment; the last one of a log is appended to, the others only read."""

    __slots__ = (
        "_bytes_since_index",
        "_cut_unsynced",
        "_recent_last_offsets",
        "_recent_positions",
        "_recent_start",
        "created_ms",
        "first_timestamp_ms",
        "full",
        "index_bytes_max",
        "indexed",
    )

    def __init__(
        self, disk: Disk, cache: FileCache, directory: str, base_offset: int, size: int, created_ms: int
    ) -> None:
        super().__init__(disk, cache, directory, base_offset, size)
        self.created_ms = created_ms
        self._bytes_since_index = 0
        # The first batch's largest timestamp, which the segment's age counts from. None: not looked at yet.
        self.first_timestamp_ms: int | None = None
        # Whether the index files hold all that the indexes do.
        self.indexed = True
        # What a failed write left was cut off, and the disk may not know yet.
        self._cut_unsynced = False
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

    # -- writing ------------------------------------------------------------------------------------------

    def append(self, buffers: Sequence[Buffer], headers: tuple[BatchHeader, ...], interval: int) -> None:
        """Write whole batches at the end; ``interval`` is index.interval.bytes. OSError: see ``File.append``.

        ``buffers`` hold the batches that ``headers`` tell of, one after the other. The segment must be
        ``ready``: once they are written nothing may fail.
        """
        position = self.size
        file = self._file
        if file is None or self._cache.crowded:
            file = self.file
        self.size = position + file.append(buffers)
        self._note_appended(headers, position, interval)

    def grown(self, file: File, headers: tuple[BatchHeader, ...], size: int, interval: int) -> None:
        """As ``append``, where the bytes have been written already, through ``file``."""
        self.keep_only(file)
        position = self.size
        self.size = position + size
        self._note_appended(headers, position, interval)

    def _note_appended(self, headers: tuple[BatchHeader, ...], position: int, interval: int) -> None:
        self.note(headers, position, interval, as_recent=True)
        if len(self._recent_positions) > RECENT_BATCHES_MAX:
            self._forget_all_but_recent()

    def take_back(self) -> None:
        """Cut off what a failed write may have left at the end. OSError where that fails."""
        self.file.truncate(self.size)
        self._cut_unsynced = True

    def _forget_all_but_recent(self) -> None:
        """Cut the dense list of batches down to half of what it may have."""
        offsets = self._recent_last_offsets
        surplus = len(offsets) - RECENT_BATCHES_MAX // 2
        self._recent_start = offsets[surplus - 1] + 1
        del offsets[:surplus], self._recent_positions[:surplus]

    def note(
        self, headers: tuple[BatchHeader, ...], position: int, interval: int, *, as_recent: bool = False
    ) -> None:
        """Take batches, of which the first lies at a position, into the indexes: each one, in order.

        ``as_recent``: into the dense list too.
        """
        for header in headers:
            last_offset = header.base_offset + header.last_offset_delta
            max_timestamp_ms = header.max_timestamp_ms
            if max_timestamp_ms > self.max_timestamp_ms:  # type: ignore[operator]
                self.max_timestamp_ms = max_timestamp_ms
                self.max_timestamp_offset = last_offset
            if position == 0:
                self.first_timestamp_ms = max_timestamp_ms
            if self._bytes_since_index > interval:
                self._index(last_offset, position)
            if as_recent:
                self._recent_last_offsets.append(last_offset)
                self._recent_positions.append(position)
            size = header.length + LENGTH_OVERHEAD_BYTES
            self._bytes_since_index += size
            position += size

    def _index(self, last_offset: int, position: int) -> None:
        self.offset_index.append(last_offset, position)
        self.time_index.maybe_append(self.max_timestamp_ms, self.max_timestamp_offset)  # type: ignore[arg-type]
        self.indexed = False
        self._bytes_since_index = 0
        self.full = self._is_full()

    def index_behind_damage(self, header: BatchHeader, position: int) -> None:
        """Have a batch found from the index: there is no way to it from the batches before."""
        self.offset_index.append(header.base_offset, position)
        self._bytes_since_index = 0

    def reset(self) -> None:
        """Forget what is known about the contents: they are about to be looked through again, or empty."""
        self._offset_index = OffsetIndex(self.base_offset)
        self._time_index = TimeIndex(self.base_offset)
        self._is_tested = True
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

    def save_indexes(self, *, sync: bool = True) -> list[str]:
        """Have the index files on the disk where they are not up to date. Blocks; safe in another thread.

        The files that were written and have something to lose, for the caller to sync without ``sync``.
        """
        if self.indexed:
            return []
        # Before the work: what changes meanwhile, on the event loop, is to be written again.
        self.indexed = True
        written = []
        try:
            for suffix, data in (
                (INDEX_SUFFIX, self.offset_index.encode()),
                (TIME_INDEX_SUFFIX, self.time_index.encode()),
            ):
                self._check_open()
                path = self.path(suffix)
                write_index(self._disk, path, data, sync=sync and bool(data))
                if data:
                    written.append(path)
        except OSError:
            self.indexed = False
            raise
        return written

    def file_to_sync(self, *, has_news: bool) -> File | None:
        """The log file, where the disk may not have all of it yet: the caller syncs it. In any thread."""
        if not (has_news or self._cut_unsynced):
            return None
        file = self.own_file()
        self._cut_unsynced = False
        return file

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
        for header, _ in self.surviving_from(self.offset_index.lookup(offset), self.file.read):
            if header.max_timestamp_ms > self.max_timestamp_ms:
                self.max_timestamp_ms = header.max_timestamp_ms
                self.max_timestamp_offset = header.last_offset

    def truncate_to_position(self, position: int) -> None:
        """Cut the log file; the indexes are the caller's to reset or cut."""
        if self.file.size() != position:
            self.file.truncate(position)
        self.size = position

    # -- indexes ------------------------------------------------------------------------------------------

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
        peeked = _Peeked(self)
        for header, position in self.headers_at(offset, peeked.read):
            if header.last_offset >= offset:
                self._check_next(header, position, peeked)
                return Located(position, header.size)
        return None

    def offset_at(self, position: int) -> int:
        """An offset of the first batch from a position on that is indexed; -1 where there is none
        (LogSegment.fetchUpperBoundOffset). ColdRead."""
        self._have_index()
        index = self.offset_index
        slot = bisect_left(index.positions, position)
        return self.base_offset + index.offsets[slot] if slot < len(index.positions) else -1

    def _check_next(self, header: BatchHeader, position: int, peeked: _Peeked) -> None:
        """Where a batch's length is wrong, what follows it is no batch. Not where that is not in memory."""
        end = position + header.size
        following = peeked.header_at(end) if end < self.size else None
        if following is None or goes_on(following, header, self.size - end, self.base_offset):
            return
        if crc32c(self.peek(position, header.size)[CRC_START:]) != header.crc:
            raise self._doubt(position)
