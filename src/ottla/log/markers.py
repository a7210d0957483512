"""End markers: control batches that end a transaction (Kafka's EndTransactionMarker, ControlRecordType)."""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

from ottla.types import Buffer
from ottla.wire.records import (
    CODEC_MASK,
    CONTROL_BIT,
    HEADER_BYTES,
    BatchBuilder,
    BatchHeader,
    iter_records,
)

_KEY: Final = struct.Struct(">hh")
_VALUE: Final = struct.Struct(">hi")
_ABORT: Final = 0
_COMMIT: Final = 1
_VERSION: Final = 0
# The record of a marker as all are: one by itself, without headers, at its batch's time and offset.
_PLAIN: Final = struct.Struct(">5shhBhiB")
_PLAIN_BATCH_BYTES: Final = HEADER_BYTES + _PLAIN.size
_PLAIN_HEAD: Final = bytes((2 * (_PLAIN.size - 1), 0, 0, 0, 2 * _KEY.size))
_PLAIN_VALUE_SIZE: Final = 2 * _VALUE.size
_unpack_plain: Final = _PLAIN.unpack_from
# Where the low byte of a batch's attributes is, which says how it is compressed.
_ATTRIBUTES_AT: Final = 22


class EndMarker(NamedTuple):
    """What a control record says of its producer's transaction."""

    commits: bool
    coordinator_epoch: int


def read_marker(batch: Buffer) -> EndMarker | None:
    """The end marker in a control batch; None where it holds none."""
    if len(batch) == _PLAIN_BATCH_BYTES and not batch[_ATTRIBUTES_AT] & CODEC_MASK:
        head, _, kind, value_size, _, coordinator_epoch, headers = _unpack_plain(batch, HEADER_BYTES)
        if head == _PLAIN_HEAD and value_size == _PLAIN_VALUE_SIZE and not headers:
            return EndMarker(kind == _COMMIT, coordinator_epoch) if kind in (_ABORT, _COMMIT) else None
    record = next(iter_records(batch), None)
    if record is None or len(record.key or b"") < _KEY.size or len(record.value or b"") < _VALUE.size:
        return None
    _, kind = _KEY.unpack_from(record.key or b"")
    _, coordinator_epoch = _VALUE.unpack_from(record.value or b"")
    return EndMarker(kind == _COMMIT, coordinator_epoch) if kind in (_ABORT, _COMMIT) else None


def marker_of(header: BatchHeader, batch: Buffer | None) -> EndMarker | None:
    """The end marker of a batch, if it is a control batch; None too where its bytes are not at hand."""
    if not header.attributes & CONTROL_BIT or batch is None:
        return None
    return read_marker(batch)


def build_marker(marker: EndMarker, producer_id: int, producer_epoch: int, now_ms: int) -> bytes:
    """The control batch with a marker, as it is given to a leader: its offset and leader epoch are to be set
    (MemoryRecords.withEndTransactionMarker)."""
    key = _KEY.pack(_VERSION, _COMMIT if marker.commits else _ABORT)
    builder = BatchBuilder()
    builder.append(now_ms, key, _VALUE.pack(_VERSION, marker.coordinator_epoch))
    return builder.seal(
        producer_id=producer_id, producer_epoch=producer_epoch, transactional=True, control=True
    )
