"""Finding out what a log holds after a crash (Kafka's LogLoader and LogSegment.recover).

Every byte from the segment of the recovery point on is looked at. The longest valid prefix is kept; what
follows the first batch that is torn or damaged is cut off, segments after it included.
"""

from __future__ import annotations

from collections.abc import Iterator

from crc32c import crc32c

from ottla.env.disk import File
from ottla.log.epochs import LeaderEpochs
from ottla.log.producers import EndMarker, Producers, read_marker
from ottla.log.segment import Segment
from ottla.wire.records import (
    CONTROL_BIT,
    CRC_START,
    HEADER,
    HEADER_BYTES,
    LENGTH_OVERHEAD_BYTES,
    MAGIC,
    BatchHeader,
)

CHUNK_BYTES = 1024 * 1024
_LENGTH_MIN = HEADER_BYTES - LENGTH_OVERHEAD_BYTES


def valid_batches(
    file: File, size: int, next_offset: int
) -> Iterator[tuple[BatchHeader, int, memoryview | None]]:
    """Each batch from the start of a file up to the first that is not valid, with its position and bytes.

    Valid: whole within ``size`` bytes, format v2, checksum right, offsets at or after ``next_offset`` and
    after the batch before. The bytes are None for a batch larger than a chunk: it is checked piece by piece.
    """
    position = 0
    chunk = memoryview(b"")
    start = 0
    unpack, make = HEADER.unpack_from, BatchHeader._make
    while size - position >= HEADER_BYTES:
        at = position - start
        if at + HEADER_BYTES > len(chunk):
            chunk, start, at = memoryview(file.read(position, min(CHUNK_BYTES, size - position))), position, 0
            if len(chunk) < HEADER_BYTES:
                return
        header = make(unpack(chunk, at))
        batch_bytes = header.length + LENGTH_OVERHEAD_BYTES
        if (
            header.magic != MAGIC
            or header.length < _LENGTH_MIN
            or batch_bytes > size - position
            or header.base_offset < next_offset
            or header.last_offset_delta < 0
        ):
            return
        if at + batch_bytes > len(chunk) and batch_bytes <= CHUNK_BYTES:
            chunk, start, at = memoryview(file.read(position, min(CHUNK_BYTES, size - position))), position, 0
        batch: memoryview | None = None
        if at + batch_bytes <= len(chunk):
            batch = chunk[at : at + batch_bytes]
            crc = crc32c(batch[CRC_START:])
        else:
            crc = _crc_of_large(file, position + CRC_START, batch_bytes - CRC_START)
        if crc != header.crc:
            return
        yield header, position, batch
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


def recover_segment(segment: Segment, producers: Producers, epochs: LeaderEpochs, interval: int) -> int:
    """Rebuild a segment's indexes and what follows from its batches; cut it after the last valid one.

    Returns the bytes that were cut off. ``producers`` must be the state at the segment's start; on return
    its ``end_offset`` is where the segment ends.
    """
    segment.reset()
    segment.drop_index_files()
    end = 0
    file = segment.file
    size = file.size()
    for header, position, batch in valid_batches(file, size, segment.base_offset):
        last_offset = header.base_offset + header.last_offset_delta
        if not segment.can_hold(last_offset) or 0 <= header.partition_leader_epoch < epochs.latest:
            # Epochs only grow: a batch of an earlier one is what a truncation had cut off, and a loss of
            # power brought back behind what was written in its place.
            break
        end = position + header.length + LENGTH_OVERHEAD_BYTES
        segment.note(position, end - position, last_offset, header.max_timestamp_ms, interval)
        if header.partition_leader_epoch > epochs.latest:
            epochs.assign(header.partition_leader_epoch, header.base_offset)
        producers.update(header, header.base_offset, marker_of(header, batch))
    segment.truncate_to_position(end)
    if size != end:
        # What was cut must not come back with the next loss of power.
        file.sync()
    segment.seal()
    return size - end


def replay_producers(segment: Segment, producers: Producers, end_offset: int) -> None:
    """Bring producer state forward over a sound segment, up to the batch that begins at ``end_offset``."""
    start = segment.offset_index.lookup(producers.end_offset)
    for header, position in segment.headers_from(start, segment.file.read):
        if header.base_offset >= end_offset:
            return
        if header.last_offset < producers.end_offset:
            continue
        batch = segment.file.read(position, header.size) if header.is_control else None
        producers.update(header, header.base_offset, marker_of(header, batch))


def marker_of(header: BatchHeader, batch: bytes | memoryview | None) -> EndMarker | None:
    """The end marker of a control batch."""
    if not header.attributes & CONTROL_BIT or batch is None:
        return None
    return read_marker(batch)
