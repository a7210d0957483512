"""One round of compaction over one log's closed segments: read, filter, write aside (Kafka's Cleaner).

Everything here reads files that no longer change and writes ``.cleaned`` files that nobody else knows of, so
that it may run in a thread. The functions are generators that yield what they have done in records, and are
driven a little at a time. ``replacement`` puts the outcome into the log.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from ottla.env.disk import Disk, File
from ottla.errors import ErrorCode, KafkaError
from ottla.log.cleaned_transactions import CleanedTransactions
from ottla.log.compaction import Filter, OffsetMap, Steps, map_batch
from ottla.log.file_cache import FileCache
from ottla.log.files import (
    CLEANED_SUFFIX,
    INDEX_SUFFIX,
    LOG_SUFFIX,
    TIME_INDEX_SUFFIX,
    TXN_INDEX_SUFFIX,
    offset_name,
)
from ottla.log.segment import Segment, Written
from ottla.log.transaction_index import AbortedTransaction, TransactionIndex
from ottla.types import Buffer
from ottla.wire.records import HEADER_BYTES, BatchHeader, read_header

# What reading a header counts as, in records.
BATCH_COST = 2
# Positions in a segment are 32 bits.
SEGMENT_BYTES_MAX = 2**31 - 1


class Source(NamedTuple):
    """A closed segment to be read."""

    base_offset: int
    end_offset: int
    size: int
    file: File
    # The aborted transactions with records between two offsets: ``AbortedTransactions.overlapping``.
    aborted: Callable[[int, int], Sequence[AbortedTransaction]]


@dataclass(slots=True)
class Progress:
    """What a round has done so far, and since when (by the monotonic clock) it has, and has not rested."""

    began_ms: int
    rested_ms: int
    bytes_read: int = 0
    bytes_written: int = 0


def batches(
    source: Source, buffer_bytes: int, progress: Progress
) -> Iterator[tuple[BatchHeader, memoryview]]:
    """The batches of a segment, read ``buffer_bytes`` at a time, or as much as a large one takes.

    KafkaError KAFKA_STORAGE_ERROR where there is none at a position where one must be.
    """
    position = start = 0
    chunk = memoryview(b"")
    while position < source.size:
        at = position - start
        if at + HEADER_BYTES > len(chunk):
            chunk, start, at = _read(source, position, buffer_bytes, progress), position, 0
        header = read_header(chunk, at)
        if header.size < HEADER_BYTES or position + header.size > source.size:
            raise KafkaError(
                ErrorCode.kafka_storage_error, f"{source.file.path} has no batch at position {position}"
            )
        if at + header.size > len(chunk):
            chunk, start = _read(source, position, max(buffer_bytes, header.size), progress), position
            at = 0
        yield header, chunk[at : at + header.size]
        position += header.size


def _read(source: Source, position: int, size: int, progress: Progress) -> memoryview:
    data = source.file.read(position, min(size, source.size - position))
    progress.bytes_read += len(data)
    return memoryview(data)


def map_segment(
    source: Source,
    offsets: OffsetMap,
    transactions: CleanedTransactions,
    buffer_bytes: int,
    progress: Progress,
) -> Steps:
    """Take the keys of a segment from ``offsets.start_offset`` on into the map, until it is full."""
    transactions.add(source.aborted(max(source.base_offset, offsets.start_offset), source.end_offset))
    for header, batch in batches(source, buffer_bytes, progress):
        yield BATCH_COST
        if header.last_offset < offsets.start_offset:
            continue
        if offsets.is_full:
            return
        yield from map_batch(offsets, header, batch, transactions)
    # Compaction may have taken the segment's last offsets away.
    offsets.latest_offset = source.end_offset - 1


class Writer:
    """A segment that is written aside: its log, and its indexes at the end."""

    def __init__(
        self, disk: Disk, directory: str, base_offset: int, index_interval_bytes: int, buffer_bytes: int
    ) -> None:
        self._disk = disk
        self._path = f"{directory}/{offset_name(base_offset, '')}"
        # Only its indexes are used; the file is another.
        self._index = Segment(disk, FileCache(disk, 1), directory, base_offset, 0, 0)
        self._index.reset()
        self._interval = index_interval_bytes
        self._buffer_bytes = buffer_bytes
        self._pending: list[Buffer] = []
        self._pending_bytes = 0
        self.size = 0
        self._file = self._create(LOG_SUFFIX)

    def _create(self, suffix: str) -> File:
        file = self._disk.open(f"{self._path}{suffix}{CLEANED_SUFFIX}", create=True)
        if file.size():
            file.truncate(0)
        return file

    def add(self, batch: Buffer, progress: Progress) -> None:
        """Append a batch. KafkaError KAFKA_STORAGE_ERROR where the segment has no room for it."""
        header = read_header(batch)
        if self.size + header.size > SEGMENT_BYTES_MAX:
            raise KafkaError(ErrorCode.kafka_storage_error, f"{self._path} would grow beyond 2 GB")
        self._index.note((header,), self.size, self._interval)
        self.size += header.size
        self._pending.append(batch)
        self._pending_bytes += header.size
        if self._pending_bytes >= self._buffer_bytes:
            self._write(progress)

    def _write(self, progress: Progress) -> None:
        if self._pending:
            self._file.append([b"".join(self._pending)])
            progress.bytes_written += self._pending_bytes
            self._pending, self._pending_bytes = [], 0

    def finish(self, aborted_transactions: bytes, progress: Progress) -> tuple[str, ...]:
        """Have it all on the disk for good; which files that are. OSError where that fails."""
        self._write(progress)
        self._file.sync()
        self._index.seal()
        indexes = {
            INDEX_SUFFIX: self._index.offset_index.encode(),
            TIME_INDEX_SUFFIX: self._index.time_index.encode(),
        }
        if aborted_transactions:
            indexes[TXN_INDEX_SUFFIX] = aborted_transactions
        for suffix, data in indexes.items():
            file = self._create(suffix)
            try:
                file.write_at(0, data)
                file.sync()
            finally:
                file.close()
        return LOG_SUFFIX, *indexes

    def close(self) -> None:
        self._file.close()


class Rewrite:
    """A group of segments on its way into one. Drive ``steps`` to the end; ``written`` is the outcome.

    That is None where nothing is to change: a single segment of which everything stays.
    """

    def __init__(self, sources: list[Source], directory: str, index_interval_bytes: int) -> None:
        self.sources = sources
        self.base_offset = sources[0].base_offset
        self.directory = directory
        self.written: Written | None = None
        self._interval = index_interval_bytes

    def steps(self, disk: Disk, keeps: Filter, buffer_bytes: int, progress: Progress) -> Steps:
        """Write what stays of the segments aside. OSError, KafkaError where that fails."""
        writer = Writer(disk, self.directory, self.base_offset, self._interval, buffer_bytes)
        changed = len(self.sources) > 1
        last = max((number for number, source in enumerate(self.sources) if source.size), default=0)
        keeps.transactions.index = TransactionIndex()
        try:
            for number, source in enumerate(self.sources):
                keeps.transactions.add(source.aborted(source.base_offset, source.end_offset))
                end = 0
                for header, batch in batches(source, buffer_bytes, progress):
                    end += header.size
                    is_last = number == last and end == source.size
                    kept = yield from keeps.keep(header, batch, is_last=is_last)
                    changed = changed or kept is not batch
                    if kept:
                        writer.add(kept, progress)
                    yield BATCH_COST
            if changed:
                aborted = keeps.transactions.index
                suffixes = writer.finish(aborted.encode(), progress)
                self.written = Written(self.base_offset, writer.size, suffixes, aborted)
        finally:
            writer.close()

    def discard(self, disk: Disk) -> None:
        """Remove what was written aside. OSError where the disk fails."""
        for suffix in (LOG_SUFFIX, INDEX_SUFFIX, TIME_INDEX_SUFFIX, TXN_INDEX_SUFFIX):
            disk.remove(f"{self.directory}/{offset_name(self.base_offset, suffix)}{CLEANED_SUFFIX}")
