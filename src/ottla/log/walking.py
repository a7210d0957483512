"""Going through a segment's batches by their headers, and noticing where there are none.

The file is the truth, and may be damaged: a length that a disk has changed leads to bytes that are no header.
Bytes that cannot be a batch at their place are never taken for one; ``salvage`` goes on behind it.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from typing import Final, NamedTuple

from ottla.checksum import crc32c
from ottla.env.disk import File
from ottla.log.index import RELATIVE_OFFSET_MAX
from ottla.types import Buffer
from ottla.wire.records import (
    CRC_START,
    HEADER_BYTES,
    LENGTH_OVERHEAD_BYTES,
    MAGIC,
    BatchHeader,
    read_header,
)

# Bytes that are read at once while stepping from header to header, and while every byte is looked at.
STEP_BYTES: Final = 8192
CHUNK_BYTES: Final = 1024 * 1024
LENGTH_MIN: Final = HEADER_BYTES - LENGTH_OVERHEAD_BYTES
MAGIC_AT: Final = 16


class BatchDamaged(Exception):
    """There is no batch at a position (bytes) where one must be."""

    def __init__(self, position: int) -> None:
        super().__init__(f"no batch at position {position}")
        self.position = position


class Gap(NamedTuple):
    """Bytes that are no whole batches."""

    position: int
    end: int


class Batch(NamedTuple):
    """A batch at its place; the bytes are None for one larger than a chunk."""

    header: BatchHeader
    position: int
    data: memoryview | None


def fits(header: BatchHeader, room: int, base_offset: int, next_offset: int) -> bool:
    """Whether a header can be that of a batch, with ``room`` bytes to the file's end, from an offset on."""
    return (
        header.magic == MAGIC
        and LENGTH_MIN <= header.length <= room - LENGTH_OVERHEAD_BYTES
        and next_offset <= header.base_offset
        and header.last_offset_delta >= 0
        and header.base_offset + header.last_offset_delta - base_offset <= RELATIVE_OFFSET_MAX
    )


def goes_on(following: Buffer, header: BatchHeader, room: int, base_offset: int) -> bool:
    """Whether what follows a batch, with ``room`` bytes to the file's end, can be the next one."""
    return len(following) == HEADER_BYTES and fits(
        read_header(following), room, base_offset, header.next_offset
    )


def is_misplaced(header: BatchHeader, following: Buffer, next_offset: int) -> bool:
    """Whether a batch that leaves offsets out has a wrong one itself, which its checksum does not guard.

    ``following``: what comes behind it. That tells: it goes on where the batch should have been.
    """
    if header.base_offset == next_offset or len(following) < HEADER_BYTES:
        return False
    after = read_header(following)
    return after.magic == MAGIC and next_offset <= after.base_offset <= header.last_offset


def headers(
    read: Callable[[int, int], Buffer], position: int, size: int, base_offset: int
) -> Iterator[tuple[BatchHeader, int]]:
    """Each batch's header and position, from a position up to ``size``. BatchDamaged: there is none."""
    chunk: Buffer = b""
    chunk_start = 0
    # Which offset comes next is known at the start, and behind a batch.
    next_offset, is_known = base_offset, position == 0
    while position < size:
        if not (chunk_start <= position and position + HEADER_BYTES <= chunk_start + len(chunk)):
            chunk_start = position
            chunk = read(position, min(STEP_BYTES, size - position))
        if len(chunk) - (position - chunk_start) < HEADER_BYTES:
            raise BatchDamaged(position)
        header = read_header(chunk, position - chunk_start)
        if not fits(header, size - position, base_offset, next_offset):
            raise BatchDamaged(position)
        end = position + header.length + LENGTH_OVERHEAD_BYTES
        if header.base_offset != next_offset and is_known:
            at = end - chunk_start
            following = chunk[at : at + HEADER_BYTES]
            if len(following) < HEADER_BYTES and end + HEADER_BYTES <= size:
                following = read(end, HEADER_BYTES)
            if is_misplaced(header, following, next_offset):
                raise BatchDamaged(position)
        yield header, position
        next_offset = header.base_offset + header.last_offset_delta + 1
        position, is_known = end, True


def valid_batches(
    file: File, size: int, next_offset: int, position: int = 0, base_offset: int | None = None
) -> Iterator[Batch]:
    """Each batch from a position of a file up to the first that is not valid.

    Valid: whole within ``size`` bytes, format v2, checksum right, offsets at or after ``next_offset`` and
    after the batch before. A batch larger than a chunk is checked piece by piece.
    """
    base = next_offset if base_offset is None else base_offset
    is_known = base_offset is None or next_offset > base or position == 0
    chunk = memoryview(b"")
    start = 0
    while size - position >= HEADER_BYTES:
        at = position - start
        if at + HEADER_BYTES > len(chunk):
            chunk, start, at = memoryview(file.read(position, min(CHUNK_BYTES, size - position))), position, 0
            if len(chunk) < HEADER_BYTES:
                return
        header = read_header(chunk, at)
        if not fits(header, size - position, base, next_offset):
            return
        batch_bytes = header.length + LENGTH_OVERHEAD_BYTES
        if at + batch_bytes > len(chunk) and batch_bytes <= CHUNK_BYTES:
            chunk, start, at = memoryview(file.read(position, min(CHUNK_BYTES, size - position))), position, 0
        data: memoryview | None = None
        if at + batch_bytes <= len(chunk):
            data = chunk[at : at + batch_bytes]
            crc = crc32c(data[CRC_START:])
        else:
            crc = _crc_of_large(file, position + CRC_START, batch_bytes - CRC_START)
        if crc != header.crc:
            return
        if header.base_offset != next_offset and is_known:
            following = chunk[at + batch_bytes : at + batch_bytes + HEADER_BYTES]
            if len(following) < HEADER_BYTES:
                following = memoryview(file.read(position + batch_bytes, HEADER_BYTES))
            if is_misplaced(header, following, next_offset):
                return
        is_known = True
        yield Batch(header, position, data)
        next_offset = header.base_offset + header.last_offset_delta + 1
        position += batch_bytes


def _crc_of_large(file: File, position: int, size: int) -> int:
    """The checksum over a stretch of a file that is not to be held in memory at once."""
    crc = 0
    while size > 0:
        data = file.read(position, min(CHUNK_BYTES, size))
        if not data:
            return -1
        crc = crc32c(data, crc)
        position += len(data)
        size -= len(data)
    return crc


def salvage(file: File, size: int, base_offset: int, hints: Sequence[int] = ()) -> Iterator[Batch | Gap]:
    """Every valid batch of a file, also behind damage, and the gaps between them.

    ``hints``: positions, in order, at which batches may begin. Behind damage, batches count from where they
    follow each other up to a hint or the file's end: a record may well hold what looks like a batch. Reads
    all of the file. Blocks.
    """
    position, next_offset = 0, base_offset
    while position < size:
        for batch in valid_batches(file, size, next_offset, position, base_offset):
            yield batch
            next_offset = batch.header.next_offset
            position = batch.position + batch.header.size
        if position < size:
            resumed = _Search(file, size, base_offset, next_offset, hints).after(position)
            yield Gap(position, resumed)
            position = resumed


class _Search:
    """For where valid batches go on behind a damaged place."""

    def __init__(
        self, file: File, size: int, base_offset: int, next_offset: int, hints: Sequence[int]
    ) -> None:
        self._file = file
        self._size = size
        self._base_offset = base_offset
        self._next_offset = next_offset
        self._hints = hints

    def after(self, damaged: int) -> int:
        """The position; the file's size where there is none."""
        for hint in self._hints:
            if damaged < hint < self._size and self._goes_on(hint):
                return self._between(damaged + 1, hint)
        return self._between(damaged + 1, self._size)

    def _goes_on(self, position: int) -> bool:
        """Whether batches follow each other from a position to a hint, or to the end."""
        batches = valid_batches(self._file, self._size, self._next_offset, position, self._base_offset)
        for batch in batches:
            end = batch.position + batch.header.size
            if end == self._size or self._is_hint(end):
                return True
        return False

    def _is_hint(self, position: int) -> bool:
        slot = bisect_left(self._hints, position)
        return slot < len(self._hints) and self._hints[slot] == position

    def _between(self, start: int, end: int) -> int:
        """The first position from ``start`` on, ``end`` where there is none before it: each byte is tried."""
        while start < end:
            chunk = self._file.read(start, min(CHUNK_BYTES, end - start) + HEADER_BYTES)
            found = chunk.find(MAGIC, MAGIC_AT)
            while 0 <= found - MAGIC_AT <= len(chunk) - HEADER_BYTES and start + found - MAGIC_AT < end:
                position = start + found - MAGIC_AT
                header = read_header(chunk, found - MAGIC_AT)
                is_one = fits(header, self._size - position, self._base_offset, self._next_offset)
                if is_one and self._goes_on(position):
                    return position
                found = chunk.find(MAGIC, found + 1)
            if len(chunk) <= HEADER_BYTES:
                break
            start += len(chunk) - HEADER_BYTES
        return end
