"""A segment's batches as its indexes lead to them, and what is done where those are wrong.

The indexes are hints. As long as they come from files, each place that they lead to is held against the batch
that is there; where the log says otherwise they are built again from it, once, and what was looked up is
looked up again. Behind that it is the log that is damaged.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from typing import Final

from ottla.env.disk import Disk
from ottla.errors import ErrorCode, KafkaError
from ottla.log.checkpoints import OFFSET_MAX
from ottla.log.file_cache import FileCache
from ottla.log.files import INDEX_SUFFIX, LOG_SUFFIX, TIME_INDEX_SUFFIX
from ottla.log.index import OffsetIndex, TimeIndex
from ottla.log.index_files import (
    IndexBuilder,
    names_its_batch,
    read_index,
    read_last_position,
    read_last_time,
    tells_largest_time,
    write_index,
)
from ottla.log.segment_file import ColdRead, SegmentFile
from ottla.log.walking import BatchDamaged, headers
from ottla.types import Buffer
from ottla.wire.records import BatchHeader

logger = logging.getLogger(__name__)

# The index of a segment up to this size is loaded where it is needed, of a larger one off the event loop.
LOADED_IN_PLACE_BYTES_MAX: Final = 64 * 1024 * 1024
# What is walked through on the event loop to see whether a time index tells the largest time.
TESTED_IN_PLACE_BYTES: Final = 256 * 1024
# A segment without an index, of this size, is walked through from its start.
WALKED_UNINDEXED_BYTES: Final = 64 * 1024


class IndexedFile(SegmentFile):
    """A segment's log file and its two indexes."""

    __slots__ = (
        "_is_tested",
        "_offset_index",
        "_time_index",
        "max_timestamp_ms",
        "max_timestamp_offset",
        "ready",
    )

    def __init__(self, disk: Disk, cache: FileCache, directory: str, base_offset: int, size: int) -> None:
        super().__init__(disk, cache, directory, base_offset, size)
        self._offset_index: OffsetIndex | None = None
        self._time_index: TimeIndex | None = None
        # Whether the indexes were built from the log; files may say anything.
        self._is_tested = False
        # The largest timestamp and its batch's last offset. None: ask the time index.
        self.max_timestamp_ms: int | None = None
        self.max_timestamp_offset = base_offset
        # Whether all that an append asks of it is in memory.
        self.ready = False

    # -- indexes ------------------------------------------------------------------------------------------

    @property
    def offset_index(self) -> OffsetIndex:
        """Read from its file where it is not in memory, built again where the log says otherwise. Blocks."""
        if self._offset_index is None:
            data = read_index(self._disk, self.path(INDEX_SUFFIX))
            index = OffsetIndex.decode(self.base_offset, data, self.size)
            if index is None or not names_its_batch(index, self.own_file().read, self.size):
                return self.rebuild_indexes(None if data is None else INDEX_SUFFIX)[0]
            self._offset_index = index
        return self._offset_index

    @property
    def time_index(self) -> TimeIndex:
        """Read from its file where it is not in memory; blocks. Its entries are tested as they are used."""
        if self._time_index is None:
            data = read_index(self._disk, self.path(TIME_INDEX_SUFFIX))
            self._time_index = TimeIndex.decode(self.base_offset, data)
            if self._time_index is None:
                return self.rebuild_indexes(None if data is None else TIME_INDEX_SUFFIX)[1]
        return self._time_index

    def rebuild_indexes(self, contradicted: str | None = None) -> tuple[OffsetIndex, TimeIndex]:
        """Build the indexes again from the batches, also those behind damage. Reads all of the log; blocks.

        ``contradicted``: the suffix of the file that is wrong, to be told; None: it is only missing.
        """
        if contradicted is not None:
            logger.warning("%s contradicts the log: building it again", self.path(contradicted))
        builder = IndexBuilder(self.base_offset)
        for header, position, _ in self.salvage(self.index_positions()):
            builder.note(header, position)
        offset_index, time_index = builder.sealed()
        with suppress(OSError):
            # On a full disk they are built again next time.
            write_index(self._disk, self.path(INDEX_SUFFIX), offset_index.encode())
            write_index(self._disk, self.path(TIME_INDEX_SUFFIX), time_index.encode())
        self._offset_index, self._time_index = offset_index, time_index
        self._is_tested = True
        if not self.ready:
            self.max_timestamp_ms, self.max_timestamp_offset = time_index.last
        return offset_index, time_index

    def index_positions(self) -> Sequence[int]:
        """Where batches begin as far as the offset index says, true or not."""
        index = self._offset_index
        if index is None:
            data = read_index(self._disk, self.path(INDEX_SUFFIX))
            index = OffsetIndex.decode(self.base_offset, data, self.size)
        return index.positions if index is not None else ()

    def _have_index(self) -> None:
        """Load the offset index of a large segment off the event loop: it takes milliseconds."""
        if self._offset_index is None and self.size > LOADED_IN_PLACE_BYTES_MAX:
            raise ColdRead(self.path(INDEX_SUFFIX), lambda: self.offset_index)

    def start_for(self, offset: int) -> int:
        """The position of a batch from which to start looking for ``offset``. ColdRead, to be asked again."""
        self._have_index()
        return self._start_for(offset, self.peek)

    def offset_before(self, timestamp_ms: int) -> int:
        """An offset before which nothing is as late as ``timestamp_ms``. ColdRead, to be asked again."""
        path = self.path(TIME_INDEX_SUFFIX)
        if self._time_index is None and self.size > LOADED_IN_PLACE_BYTES_MAX:
            raise ColdRead(path, lambda: self.time_index)
        indexed_ms, indexed = self.time_index.lookup(timestamp_ms)
        if self._is_tested or indexed_ms < 0:
            return indexed
        self._have_index()
        for header, _ in self.headers_at(indexed, self.peek):
            if header.last_offset >= indexed:
                if header.max_timestamp_ms != indexed_ms:
                    raise ColdRead(path, partial(self.rebuild_indexes, TIME_INDEX_SUFFIX))
                break
        return indexed

    def load_max_timestamp(self, *, blocks: bool = True) -> tuple[int, int]:
        """The largest timestamp, -1 for none, and the last offset of the first batch that has it.

        From the time index, if the log agrees. Not ``blocks``: ColdRead where it takes long to tell.
        """
        if self.max_timestamp_ms is None:
            index, path = self._time_index, self.path(TIME_INDEX_SUFFIX)
            last = index.last if index else read_last_time(self._disk, path, self.base_offset)
            last = last or self.time_index.last
            if self.max_timestamp_ms is None and not self._is_largest(*last, blocks):
                if not blocks:
                    raise ColdRead(path, partial(self.rebuild_indexes, TIME_INDEX_SUFFIX))
                self.rebuild_indexes(TIME_INDEX_SUFFIX)
                last = self.time_index.last
            if self.max_timestamp_ms is None:
                self.max_timestamp_ms, self.max_timestamp_offset = last
        return self.max_timestamp_ms, self.max_timestamp_offset

    def _is_largest(self, timestamp_ms: int, offset: int, blocks: bool) -> bool:
        """Whether the log agrees that this is its largest timestamp."""
        if not self.size:
            return timestamp_ms < 0
        path = self.path(INDEX_SUFFIX)
        start = read_last_position(self._disk, path, self.base_offset, offset, self.size)
        if start is None:
            self._have_index()
            start = self.offset_index.lookup(offset)
        read = self.own_file().read if blocks else self.peek
        try:
            found = headers(read, start, self.size, self.base_offset)
            agrees = tells_largest_time(
                found, timestamp_ms, offset, None if blocks else TESTED_IN_PLACE_BYTES
            )
        except BatchDamaged:
            return False
        if agrees is None:
            raise ColdRead(self.path(TIME_INDEX_SUFFIX), self.load_max_timestamp)
        return agrees

    def largest_timestamp_ms(self, *, blocks: bool = True) -> int:
        """For retention: ``load_max_timestamp``, or else when the file was last written."""
        timestamp, _ = self.load_max_timestamp(blocks=blocks)
        return timestamp if timestamp >= 0 else self._disk.modified_ms(self.path(LOG_SUFFIX))

    # -- batches ------------------------------------------------------------------------------------------

    def headers_from(
        self, position: int, read: Callable[[int, int], Buffer]
    ) -> Iterator[tuple[BatchHeader, int]]:
        """Each batch's header and position from a batch's position on, up to the segment's end.

        ``read`` reads the file: ``peek``, or the file's own. KafkaError CORRUPT_MESSAGE where there is no
        batch at a position where one must be; ColdRead as long as it may be the index that is wrong.
        """
        try:
            yield from headers(read, position, self.size, self.base_offset)
        except BatchDamaged as damage:
            raise self._doubt(damage.position) from damage

    def headers_at(
        self, offset: int, read: Callable[[int, int], Buffer]
    ) -> Iterator[tuple[BatchHeader, int]]:
        """As ``headers_from`` an indexed batch that ends at or before ``offset``, or holds it."""
        start = self.offset_index.lookup(offset) if offset > self.base_offset else 0
        for header, position in self.headers_from(start, read):
            if position == start and start and header.base_offset > offset:
                raise self._doubt(position)
            yield header, position

    def last_headers(self) -> Iterator[tuple[BatchHeader, int]]:
        """As ``headers_from`` the last batch that is indexed. Blocks."""
        path = self.path(INDEX_SUFFIX)
        start = read_last_position(self._disk, path, self.base_offset, OFFSET_MAX, self.size)
        if start is None:
            positions = self.offset_index.positions if self.size > WALKED_UNINDEXED_BYTES else ()
            start = positions[-1] if positions else 0
        return self.headers_from(start, self.own_file().read)

    def surviving_headers(self, offset: int) -> Iterator[tuple[BatchHeader, int]]:
        """As ``headers_at``, and on behind what is damaged, which is told. Blocks."""
        start = 0
        if offset > self.base_offset:
            start = self.outlast(partial(self._start_for, offset, self.own_file().read))
        for header, position in self.surviving_from(start, self.own_file().read):
            if header.last_offset >= offset:
                yield header, position

    def _start_for(self, offset: int, read: Callable[[int, int], Buffer]) -> int:
        """Where the index says to look for an offset, held against the batch there while it may be wrong."""
        start = self.offset_index.lookup(offset) if offset > self.base_offset else 0
        if start and not self._is_tested:
            for header, _ in self.headers_from(start, read):
                if header.base_offset > offset:
                    raise self._doubt(start)
                break
        return start

    def surviving_from(
        self, position: int, read: Callable[[int, int], Buffer]
    ) -> Iterator[tuple[BatchHeader, int]]:
        """As ``headers_from``, and on behind what is damaged, which is told. Blocks."""
        end = position
        try:
            for header, at in headers(read, position, self.size, self.base_offset):
                yield header, at
                end = at + header.size
        except BatchDamaged:
            for batch in self.salvage(self.index_positions()):
                if batch.position >= end:
                    yield batch.header, batch.position

    def _doubt(self, position: int) -> ColdRead | KafkaError:
        """There is no batch where one must be: it is the index that is wrong, or else the log."""
        path = self.path(LOG_SUFFIX)
        if not self._is_tested:
            return ColdRead(f"{path} at {position}", partial(self.rebuild_indexes, INDEX_SUFFIX))
        self.tell_damage(position, self.size)
        return KafkaError(ErrorCode.corrupt_message, f"{path} has no batch at position {position}")
