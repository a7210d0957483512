"""Checking what a fetch from the leader returned, before a follower writes any of it. Pure.

Offsets are absolute. Batches stay as the leader has them, byte for byte.
"""

from __future__ import annotations

from typing import NamedTuple

from ottla.checksum import crc32c
from ottla.errors import ErrorCode, KafkaError
from ottla.log.markers import EndMarker, marker_of
from ottla.wire.records import (
    CONTROL_BIT,
    CRC_START,
    HEADER_BYTES,
    LENGTH_OVERHEAD_BYTES,
    MAGIC,
    BatchHeader,
    header_at,
)

_LENGTH_MIN = HEADER_BYTES - LENGTH_OVERHEAD_BYTES


class Fetched(NamedTuple):
    """Whole batches, one after the other, that continue a log."""

    headers: tuple[BatchHeader, ...]
    # What control batches say, by their base offsets. It is read before anything is written: that may fail.
    markers: dict[int, EndMarker | None]


def check(view: memoryview, next_offset: int, epoch: int, epoch_max: int) -> Fetched:
    """The whole batches, from ``next_offset`` and leader epoch ``epoch`` on; a last one cut off is left out.

    Batches of a later epoch than ``epoch_max``, in which they were fetched, are left out too, with what
    follows them: whoever sent them has been elected again since, and may have truncated its log in between.

    KafkaError CORRUPT_MESSAGE where bytes are damaged, INVALID_RECORD where batches do not continue the log
    or one another.
    """
    headers: list[BatchHeader] = []
    markers: dict[int, EndMarker | None] = {}
    position, size = 0, len(view)
    while size - position >= HEADER_BYTES:
        header = header_at(view, position)
        if header.magic != MAGIC or header.length < _LENGTH_MIN:
            raise _corrupt(header, "is no batch of format v2")
        end = position + header.length + LENGTH_OVERHEAD_BYTES
        if end > size:
            break
        if crc32c(view[position + CRC_START : end]) != header.crc:
            raise _corrupt(header, "has a checksum that does not match its bytes")
        base_offset = header.base_offset
        if base_offset < next_offset:
            raise discontinuous(f"offset {base_offset} comes where {next_offset} or a later one has to")
        if header.last_offset_delta < 0:
            raise discontinuous(f"the batch at {base_offset} ends before it begins")
        if header.partition_leader_epoch != epoch:
            if header.partition_leader_epoch > epoch_max:
                break
            if header.partition_leader_epoch < epoch:
                raise discontinuous(
                    f"leader epoch {header.partition_leader_epoch} at {base_offset} comes after {epoch}"
                )
            epoch = header.partition_leader_epoch
        if header.attributes & CONTROL_BIT:
            markers[base_offset] = marker_of(header, view[position:end])
        headers.append(header)
        next_offset = base_offset + header.last_offset_delta + 1
        position = end
    return Fetched(tuple(headers), markers)


def discontinuous(why: str) -> KafkaError:
    return KafkaError(ErrorCode.invalid_record, f"what the leader sent does not continue the log: {why}")


def _corrupt(header: BatchHeader, why: str) -> KafkaError:
    return KafkaError(ErrorCode.corrupt_message, f"what the leader sent at offset {header.base_offset} {why}")
