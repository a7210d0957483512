"""End markers: control batches that end a transaction (Kafka's EndTransactionMarker, ControlRecordType)."""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

from ottla.types import Buffer, Record
from ottla.wire.records import CONTROL_BIT, BatchHeader, build_batch, iter_records

_KEY: Final = struct.Struct(">hh")
_VALUE: Final = struct.Struct(">hi")
_ABORT: Final = 0
_COMMIT: Final = 1
_VERSION: Final = 0


class EndMarker(NamedTuple):
    """What a control record says of its producer's transaction."""

    commits: bool
    coordinator_epoch: int


def read_marker(batch: Buffer) -> EndMarker | None:
    """The end marker in a control batch; None where it holds none."""
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
    record = Record(0, now_ms, key, _VALUE.pack(_VERSION, marker.coordinator_epoch), ())
    return build_batch(
        [record], producer_id=producer_id, producer_epoch=producer_epoch, transactional=True, control=True
    )
