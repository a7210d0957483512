"""Read the files of a partition's folder, entry by entry, without a broker.

Formats follow Kafka: segments (record batch v2), OffsetIndex, TimeIndex, TransactionIndex, the snapshots of
ProducerStateManager, and the text checkpoints. Every reader yields JSON-ready dicts and raises Corrupt at the
first position, in bytes, that holds none.
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Callable, Iterator
from enum import Enum
from typing import Any
from uuid import UUID

from ottla.checksum import crc32c
from ottla.cli.messages import to_json_bytes
from ottla.coordinators.groups import schemas as group_schemas
from ottla.coordinators.runtime.machine import SchemaError
from ottla.coordinators.transactions import schemas as transaction_schemas
from ottla.errors import KafkaError
from ottla.numbers import INT_MAX, LONG_MAX, parse_whole, trim
from ottla.types import Buffer, Record
from ottla.wire import records

Entry = dict[str, Any]

CODECS = ("none", "gzip", "snappy", "lz4", "zstd")
CONTROL_TYPES = {0: "abort", 1: "commit", 2: "leader change", 3: "snapshot header", 4: "snapshot footer"}

INDEX_ENTRY = struct.Struct(">ii")
TIME_ENTRY = struct.Struct(">qi")
TRANSACTION_ENTRY = struct.Struct(">hqqqq")
SNAPSHOT_HEAD = struct.Struct(">hIi")
SNAPSHOT_CRC_START = 6
SNAPSHOT_ENTRY = struct.Struct(">qhiqiqiq")
SNAPSHOT_VERSION = 1
CONTROL_KEY = struct.Struct(">hh")
MARKER_VALUE = struct.Struct(">hi")

# Characters of a line that makes no sense which are shown.
LINE_SHOWN_MAX = 80

GROUPS_TOPIC = "__consumer_offsets"
TRANSACTIONS_TOPIC = "__transaction_state"

# How the records of a segment are shown, apart from their offset and time.
RecordView = Callable[[Record], Entry]

# A file on its way in or out carries one of these after its own suffix.
PASSING = re.compile(r"(\.(deleted|cleaned|swap))+$")


class Corrupt(Exception):
    """The file makes no sense from ``position`` (bytes; lines in a text file) on."""

    def __init__(self, position: int, reason: str) -> None:
        super().__init__(reason)
        self.position = position


def kind_of(path: str) -> str | None:
    """The kind of file, by its name, or None."""
    name = PASSING.sub("", os.path.basename(path))
    if name.endswith("checkpoint"):
        return "checkpoint"
    suffix = name.rpartition(".")[2]
    return suffix if suffix in READERS else None


def view_of(path: str) -> RecordView:
    """How the records of a segment are shown, by the topic whose folder it is in."""
    topic = os.path.basename(os.path.dirname(os.path.abspath(path))).rpartition("-")[0]
    return VIEWS.get(topic, plain_record)


def base_offset_of(path: str) -> int:
    """The base offset that a segment file is named after; 0 where its name is no number."""
    return parse_whole(os.path.basename(path).partition(".")[0], 0, LONG_MAX) or 0


def read_batches(data: Buffer, base_offset: int, view: RecordView | None) -> Iterator[Entry]:
    """A segment's batches in order; each checked as recovery checks it, offsets included."""
    position, next_offset = 0, base_offset
    while position < len(data):
        try:
            header = records.read_header(data, position)
            if header.length < records.HEADER_BYTES - records.LENGTH_OVERHEAD_BYTES:
                raise Corrupt(position, f"a batch claims a length of {header.length} bytes")
            if header.size > len(data) - position:
                raise Corrupt(
                    position, f"a batch of {header.size} bytes is cut off after {len(data) - position}"
                )
            batch = memoryview(data)[position : position + header.size]
            try:
                records.check_batch(batch)
                if header.base_offset < next_offset:
                    raise Corrupt(
                        position, f"offset {header.base_offset} where at least {next_offset} should be"
                    )
                entry = _batch_entry(header, position)
                if view is not None:
                    entry["records"] = _record_entries(header, bytes(batch), view)
            finally:
                batch.release()
        except KafkaError as error:
            raise Corrupt(position, str(error)) from None
        yield entry
        position, next_offset = position + header.size, header.next_offset


def _batch_entry(header: records.BatchHeader, position: int) -> Entry:
    codec = header.compression
    return {
        "position": position,
        "size": header.size,
        "base_offset": header.base_offset,
        "last_offset": header.last_offset,
        "count": header.record_count,
        "codec": CODECS[codec] if codec < len(CODECS) else str(codec),
        "timestamp_type": "append" if header.timestamp_type == records.LOG_APPEND_TIME else "create",
        "max_timestamp_ms": header.max_timestamp_ms,
        "leader_epoch": header.partition_leader_epoch,
        "producer_id": header.producer_id,
        "producer_epoch": header.producer_epoch,
        "base_sequence": header.base_sequence,
        "transactional": header.is_transactional,
        "control": header.is_control,
        "crc": header.crc & 0xFFFFFFFF,
    }


def _record_entries(header: records.BatchHeader, batch: bytes, view: RecordView) -> list[Entry]:
    show = control_record if header.is_control else view
    return [
        {"offset": record.offset, "timestamp_ms": record.timestamp_ms, **show(record)}
        for record in records.iter_records(batch)
    ]


def plain_record(record: Record) -> Entry:
    """A record's key, value and headers."""
    return {
        "key": to_json_bytes(record.key),
        "value": to_json_bytes(record.value),
        "headers": [{"key": key, "value": to_json_bytes(value)} for key, value in record.headers],
    }


def control_record(record: Record) -> Entry:
    """A control record's kind, its coordinator's epoch where it ends a transaction, and its bytes."""
    kind = "unknown"
    if record.key is not None and len(record.key) >= CONTROL_KEY.size:
        number = CONTROL_KEY.unpack_from(record.key)[1]
        kind = CONTROL_TYPES.get(number, f"type {number}")
    if kind in ("abort", "commit") and len(record.value or b"") >= MARKER_VALUE.size:
        epoch = MARKER_VALUE.unpack_from(record.value or b"")[1]
        return {"control": kind, "coordinator_epoch": epoch, **plain_record(record)}
    return {"control": kind, **plain_record(record)}


def group_record(record: Record) -> Entry:
    """What a record of `__consumer_offsets` says; its bytes and an error where it cannot be read."""
    return _decoded(record, group_schemas.decode_record)


def transaction_record(record: Record) -> Entry:
    """What a record of `__transaction_state` says; its bytes and an error where it cannot be read."""
    return _decoded(record, transaction_schemas.decode_record)


def _decoded(record: Record, decode: Callable[[Buffer | None, Buffer | None], Any]) -> Entry:
    try:
        found = decode(record.key, record.value)
    except SchemaError as error:
        return {"error": str(error), **plain_record(record)}
    return {"kind": type(found).__name__.removesuffix("Record").lower(), **_plain(found)}


VIEWS: dict[str, RecordView] = {GROUPS_TOPIC: group_record, TRANSACTIONS_TOPIC: transaction_record}


def _plain(value: Any) -> Any:
    """A decoded record's fields in JSON's terms."""
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return {name: _plain(field) for name, field in value._asdict().items()}
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    if isinstance(value, frozenset):
        return [_plain(item) for item in sorted(value)]
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, bytes):
        return to_json_bytes(value)
    return str(value) if isinstance(value, UUID) else value


def _entries(data: Buffer, entry: struct.Struct, preallocated: bool) -> Iterator[tuple[int, tuple[int, ...]]]:
    """(position, fields) of entries of a fixed size; ends at the zeros that pad an active index."""
    end = len(data) - len(data) % entry.size
    for position in range(0, end, entry.size):
        fields = entry.unpack_from(data, position)
        if preallocated and not any(fields) and not any(memoryview(data)[position:]):
            return
        yield position, fields
    if end != len(data):
        raise Corrupt(end, f"{len(data) - end} bytes where an entry has {entry.size}")


def read_index(data: Buffer, base_offset: int, view: RecordView | None) -> Iterator[Entry]:
    """An offset index: offsets and where in the segment their batches are."""
    last = (-1, -1)
    for position, (relative, place) in _entries(data, INDEX_ENTRY, preallocated=True):
        if relative <= last[0] or place <= last[1]:
            raise Corrupt(position, "offsets and positions must grow from entry to entry")
        last = (relative, place)
        yield {"offset": base_offset + relative, "position": place}


def read_time_index(data: Buffer, base_offset: int, view: RecordView | None) -> Iterator[Entry]:
    """A time index: the largest timestamp so far, and its offset."""
    last = (-1, -1)
    for position, (timestamp_ms, relative) in _entries(data, TIME_ENTRY, preallocated=True):
        if timestamp_ms < last[0] or relative < last[1] or relative < 0:
            raise Corrupt(position, "timestamps and offsets must grow from entry to entry")
        last = (timestamp_ms, relative)
        yield {"timestamp_ms": timestamp_ms, "offset": base_offset + relative}


def read_transaction_index(data: Buffer, base_offset: int, view: RecordView | None) -> Iterator[Entry]:
    """A transaction index: what was aborted."""
    names = ("version", "producer_id", "first_offset", "last_offset", "last_stable_offset")
    for position, fields in _entries(data, TRANSACTION_ENTRY, preallocated=False):
        if fields[0] != 0:
            raise Corrupt(position, f"unknown version {fields[0]}")
        yield dict(zip(names, fields, strict=True))


def read_snapshot(data: Buffer, base_offset: int, view: RecordView | None) -> Iterator[Entry]:
    """A producer snapshot: each producer's last batch."""
    if len(data) < SNAPSHOT_HEAD.size:
        raise Corrupt(0, "too short for a snapshot")
    version, crc, count = SNAPSHOT_HEAD.unpack_from(data)
    if version != SNAPSHOT_VERSION:
        raise Corrupt(0, f"unknown version {version}")
    if crc32c(memoryview(data)[SNAPSHOT_CRC_START:]) != crc:
        raise Corrupt(0, "the checksum does not match")
    if len(data) != SNAPSHOT_HEAD.size + count * SNAPSHOT_ENTRY.size:
        raise Corrupt(SNAPSHOT_HEAD.size, f"{count} entries do not fit the size of {len(data)} bytes")
    names = (
        "producer_id",
        "producer_epoch",
        "last_sequence",
        "last_offset",
        "offset_delta",
        "timestamp_ms",
        "coordinator_epoch",
        "current_transaction_first_offset",
    )
    for fields in SNAPSHOT_ENTRY.iter_unpack(memoryview(data)[SNAPSHOT_HEAD.size :]):
        yield dict(zip(names, fields, strict=True))


def read_checkpoint(data: Buffer, base_offset: int, view: RecordView | None) -> Iterator[Entry]:
    """A text checkpoint: a version, a count, and as many lines of two or three words."""
    lines = bytes(data).decode("utf-8", "replace").splitlines()
    if len(lines) < 2 or lines[0].strip() != "0":
        raise Corrupt(1, "a checkpoint begins with the version, 0, and a count")
    if parse_whole(trim(lines[1]), 0, LONG_MAX) != len(lines) - 2:
        raise Corrupt(2, f"the count says {lines[1][:LINE_SHOWN_MAX]!r}, and {len(lines) - 2} lines follow")
    for number, line in enumerate(lines[2:], 3):
        *topic, first, second = line.split() if len(line.split()) in (2, 3) else ("", "", "")
        left, right = parse_whole(first, -1, INT_MAX), parse_whole(second, -1, LONG_MAX)
        if left is None or right is None:
            raise Corrupt(number, f"cannot read {line[:LINE_SHOWN_MAX]!r}")
        if topic:
            yield {"topic": topic[0], "partition": left, "offset": right}
        else:
            yield {"leader_epoch": left, "start_offset": right}


READERS: dict[str, Callable[[Buffer, int, RecordView | None], Iterator[Entry]]] = {
    "log": read_batches,
    "index": read_index,
    "timeindex": read_time_index,
    "txnindex": read_transaction_index,
    "snapshot": read_snapshot,
    "checkpoint": read_checkpoint,
}
