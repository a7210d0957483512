"""The index files of a segment: read, written, and held against the segment that they are of.

They are hints. An index that is plausible may be of another segment, older, or cut off: its last entries are
compared with the batches that they name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from ottla.env.disk import Disk
from ottla.log.index import (
    OFFSET_ENTRY_BYTES,
    TIME_ENTRY_BYTES,
    OffsetIndex,
    TimeIndex,
    decode_offset_entry,
    decode_time_entry,
)
from ottla.log.walking import fits
from ottla.types import Buffer
from ottla.wire.records import HEADER_BYTES, BatchHeader, read_header

# index.interval.bytes where the topic's is not known.
INTERVAL_DEFAULT = 4096

Read = Callable[[int, int], Buffer]


def read_index(disk: Disk, path: str) -> bytes | None:
    """The file's bytes; None where there is none."""
    try:
        return disk.read_file(path)
    except FileNotFoundError:
        return None


def write_index(disk: Disk, path: str, data: bytes, *, sync: bool = True) -> None:
    """Have the file hold these bytes, synced unless it is said. OSError where that fails."""
    file = disk.open(path, create=True)
    try:
        if data:
            file.write_at(0, data)
        if file.size() > len(data):
            file.truncate(len(data))
        if sync:
            file.sync()
    finally:
        file.close()


def _last_entry(disk: Disk, path: str, entry_bytes: int) -> bytes | None:
    """A file's last entry, without reading the rest; None where it has none, or more than whole entries."""
    try:
        file = disk.open(path)
    except FileNotFoundError:
        return None
    try:
        size = file.size()
        if size < entry_bytes or size % entry_bytes:
            return None
        entry = file.read(size - entry_bytes, entry_bytes)
        return entry if any(entry) else None
    finally:
        file.close()


def read_last_time(disk: Disk, path: str, base_offset: int) -> tuple[int, int] | None:
    """The timestamp and offset of a time index's last entry; None where it looks wrong."""
    entry = _last_entry(disk, path, TIME_ENTRY_BYTES)
    if entry is None:
        return None
    timestamp, offset = decode_time_entry(base_offset, entry)
    return (timestamp, offset) if timestamp >= 0 and offset >= base_offset else None


def read_last_position(disk: Disk, path: str, base_offset: int, offset: int, log_bytes: int) -> int | None:
    """Where an offset index's last entry says that a batch begins, if it is at or before ``offset``."""
    entry = _last_entry(disk, path, OFFSET_ENTRY_BYTES)
    if entry is None:
        return None
    indexed, position = decode_offset_entry(base_offset, entry)
    return position if base_offset <= indexed <= offset and 0 <= position < log_bytes else None


def names_its_batch(index: OffsetIndex, read: Read, size: int) -> bool:
    """Whether the last entry of an offset index names a batch that holds its offset, or comes before it."""
    if not len(index):
        return True
    position, offset = index.positions[-1], index.base_offset + index.offsets[-1]
    data = read(position, HEADER_BYTES)
    if len(data) < HEADER_BYTES:
        return False
    header = read_header(data)
    return (
        fits(header, size - position, index.base_offset, index.base_offset) and header.base_offset <= offset
    )


def tells_largest_time(
    found: Iterator[tuple[BatchHeader, int]], timestamp_ms: int, offset: int, bytes_max: int | None
) -> bool | None:
    """Whether a time index's last entry is right, by the batches from before its offset on.

    The batch with its offset has its timestamp, and none behind it a larger one. None: that takes more than
    ``bytes_max`` of the log to tell.
    """
    start, is_named = -1, timestamp_ms < 0
    for header, position in found:
        start = position if start < 0 else start
        if bytes_max is not None and position - start > bytes_max:
            return None
        if not is_named and header.last_offset >= offset:
            is_named = True
            if header.base_offset > offset or header.max_timestamp_ms != timestamp_ms:
                return False
        if is_named and header.max_timestamp_ms > timestamp_ms:
            return False
    return is_named


class IndexBuilder:
    """Builds the indexes of a segment from its batches, in order; some may be missing between them."""

    def __init__(self, base_offset: int, interval_bytes: int = INTERVAL_DEFAULT) -> None:
        self._offset_index = OffsetIndex(base_offset)
        self._time_index = TimeIndex(base_offset)
        self._interval_bytes = interval_bytes
        self._bytes_since_entry = 0
        self._end = 0
        self.largest_ms = -1
        self._largest_offset = base_offset

    def note(self, header: BatchHeader, position: int) -> None:
        """Take in the next batch."""
        if header.max_timestamp_ms > self.largest_ms:
            self.largest_ms, self._largest_offset = header.max_timestamp_ms, header.last_offset
        if position != self._end:
            # Behind damage: there is no way to it from the batches before.
            self._offset_index.append(header.base_offset, position)
            self._bytes_since_entry = 0
        elif self._bytes_since_entry > self._interval_bytes:
            self._offset_index.append(header.last_offset, position)
            self._time_index.maybe_append(self.largest_ms, self._largest_offset)
            self._bytes_since_entry = 0
        self._bytes_since_entry += header.size
        self._end = position + header.size

    def sealed(self) -> tuple[OffsetIndex, TimeIndex]:
        """The indexes, when all batches have been noted."""
        self._time_index.maybe_append(self.largest_ms, self._largest_offset)
        return self._offset_index, self._time_index
