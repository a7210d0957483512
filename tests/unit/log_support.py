"""What the tests of the log share: a log in memory, batches, and reading all of a log back."""

from __future__ import annotations

import asyncio
from typing import Any

from memory_disk import MemoryDisk

from ottla.env.disk import Disk
from ottla.log.log import Log
from ottla.log.lookups import TimeLookUps, TimestampOffset
from ottla.log.settings import LogConfig
from ottla.types import Record, TopicPartition
from ottla.wire.records import build_batch, iter_batches, iter_records

FOLDER = "data/topic-0"
NOW_MS = 1_700_000_000_000


def open_log(disk: Disk, config: LogConfig | None = None, directory: str = FOLDER, **options: Any) -> Log:
    """A log as after a crash, unless ``clean`` and ``recovery_point`` say otherwise."""
    options = {"clean": False, "now_ms": NOW_MS, **options}
    return Log.open(
        disk, directory, config or LogConfig(), topic_partition=TopicPartition("topic", 0), **options
    )


def reopen_clean(disk: MemoryDisk, log: Log, config: LogConfig | None = None, **options: Any) -> Log:
    """Close a log in order and open it again."""
    log.close()
    return open_log(
        disk,
        config or log.config,
        clean=True,
        recovery_point=log.log_end_offset,
        log_start_offset=log.log_start_offset,
        **options,
    )


def records(*values: str | bytes, at_ms: int = NOW_MS, key: bytes | None = None) -> list[Record]:
    return [
        Record(index, at_ms, key, value.encode() if isinstance(value, str) else value)
        for index, value in enumerate(values)
    ]


def batch(*values: str | bytes, at_ms: int = NOW_MS, key: bytes | None = None, **options: Any) -> bytes:
    """A batch as a client sends it."""
    return build_batch(records(*values, at_ms=at_ms, key=key), **options)


def append(log: Log, *values: str | bytes, at_ms: int = NOW_MS, epoch: int = 0, **options: Any) -> Any:
    return log.append(batch(*values, at_ms=at_ms, **options), leader_epoch=epoch, now_ms=NOW_MS)


def read_all(log: Log, start: int | None = None) -> list[Record]:
    """Every record from ``start`` on, read as a consumer would, one batch or a few at a time."""
    found: list[Record] = []
    offset = log.log_start_offset if start is None else start
    while True:
        piece = log.read(offset, 200, end_offset=log.log_end_offset, min_one=True)
        if piece is None:
            return found
        data = piece.file.read(piece.position, piece.size)
        before = offset
        for header, raw in iter_batches(data):
            found += [record for record in iter_records(raw) if record.offset >= offset]
            offset = header.next_offset
        assert offset > before, "a read that makes no progress"


def first_from(log: Log, timestamp_ms: int) -> TimestampOffset | None:
    """The first record at or after a time."""
    return asyncio.run(TimeLookUps(log._segments._disk).first_from(log, timestamp_ms))


def newest_of(log: Log) -> TimestampOffset | None:
    """The first record of the largest time."""
    return asyncio.run(TimeLookUps(log._segments._disk).newest(log))


def values(log: Log) -> list[bytes | None]:
    return [record.value for record in read_all(log)]
