"""Damage of every kind of file in a data directory, with and without the mark of a clean stop, from seeds.

One oracle: whatever was acknowledged and lies undamaged in a log is served, or its partition says why not.
What is no segment is a hint: damage to it takes nothing away at all. Nothing is made up, no other partition
notices, and a second start finds what the first one left.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from functools import cache
from random import Random
from typing import NamedTuple
from uuid import UUID

import pytest
from log_support import NOW_MS, append
from manager_support import FakeClock, manager
from memory_disk import Inode, MemoryDisk

from ottla.errors import ErrorCode, KafkaError
from ottla.log.log import Log
from ottla.log.lookups import TimeLookUps
from ottla.log.manager import LogManager
from ottla.log.segment_file import ColdRead
from ottla.log.settings import DAY_MS, LogConfig
from ottla.types import TopicPartition
from ottla.wire.records import check_batch, iter_records
from soak import FACTOR

CONFIG = LogConfig(segment_bytes=3000, index_interval_bytes=200, retention_ms=7 * DAY_MS)
COUNT = 90
STEP_MS = 10
DAMAGES_PER_SEED = 6
PARTITIONS = [TopicPartition("a", 0), TopicPartition("a", 1), TopicPartition("b", 0)]
TOPIC_IDS = {"a": UUID(int=0xA), "b": UUID(int=0xB)}
# Files of a log whose damage costs records, and of the others those that say which records there are.
SEGMENT = ".log"
START = "log-start-offset-checkpoint"
TOPIC = "partition.metadata"

DAMAGES = ("cut", "flip", "flip", "zero", "all zeros", "empty", "missing", "older", "another's", "grown")

# What is written after each start, maybe where a record was that was lost.
NEW = b"new"

Files = dict[str, bytes]


class Stored(NamedTuple):
    """An acknowledged record: where, its time, and its batch as it lies in a segment."""

    where: TopicPartition
    offset: int
    timestamp_ms: int
    value: bytes
    path: str
    batch: bytes


class Golden(NamedTuple):
    """A data directory of some time ago, when its broker was killed, and when it was stopped in order."""

    older: Files
    killed: Files
    stopped: Files
    stored: tuple[Stored, ...]


def config_of(where: TopicPartition) -> LogConfig:
    return CONFIG


def open_all(logs: LogManager) -> dict[TopicPartition, Log | Exception]:
    """Open the partitions as a node does: each by itself."""
    found: dict[TopicPartition, Log | Exception] = {}
    for where in PARTITIONS:
        try:
            found[where] = logs.get_or_create(where, TOPIC_IDS[where.topic], config_of(where), NOW_MS)
        except (KafkaError, OSError) as error:
            found[where] = error
    logs.set_strays_aside(set(PARTITIONS))
    return found


def fill(logs: LogManager, first: int, last: int) -> None:
    for where in PARTITIONS:
        log = logs.logs[where]
        for number in range(first, last):
            append(
                log, f"{where} {number} " + "x" * 60, at_ms=NOW_MS + number * STEP_MS, epoch=number // 40,
                producer_id=5 + where.partition, producer_epoch=0, base_sequence=number,
            )  # fmt: skip


def files_of(disk: MemoryDisk) -> Files:
    return {path: bytes(inode.data) for path, inode in disk.files.items() if not path.endswith(".lock")}


@cache
def golden() -> Golden:
    async def build() -> Golden:
        disk, clock = MemoryDisk(), FakeClock()
        one = manager(disk, clock)
        await one.start()
        one.set_cluster_id("cluster")
        open_all(one)
        fill(one, 0, COUNT // 2)
        one.high_watermarks = {where: log.log_end_offset for where, log in one.logs.items()}
        for log in one.logs.values():
            log.flush()
        await one.checkpoint()
        older = files_of(disk)
        fill(one, COUNT // 2, COUNT)
        one.high_watermarks = {where: log.log_end_offset for where, log in one.logs.items()}
        for log in one.logs.values():
            log.flush()
        await one.checkpoint()
        killed = files_of(disk)
        stored = tuple(_stored(one))
        await one.close()
        return Golden(older, killed, files_of(disk), stored)

    return asyncio.run(build())


def _stored(logs: LogManager) -> Iterator[Stored]:
    for where, log in logs.logs.items():
        for segment in log.segments:
            for header, position in segment.headers_from(0, segment.file.read):
                batch = bytes(segment.file.read(position, header.size))
                for record in iter_records(batch):
                    assert record.value is not None
                    yield Stored(
                        where, record.offset, record.timestamp_ms, record.value, segment.path(SEGMENT), batch
                    )


class Damage(NamedTuple):
    """What was done to which file; for the failure's message."""

    path: str
    what: str

    @property
    def is_hint(self) -> bool:
        """Whether everything must be served in spite of it."""
        name = self.path.rpartition("/")[2]
        return not name.endswith(SEGMENT) and name not in (START, TOPIC)

    @property
    def where(self) -> str:
        """The folder of the partition that it is in, empty for a file of the whole directory."""
        return self.path.split("/")[1] if self.path.count("/") > 1 else ""


def kind_of(path: str) -> str:
    name = path.rpartition("/")[2]
    return name[20:] if name[:20].isdigit() else name


def damage(rng: Random, files: Files, older: Files) -> Damage:
    """Do something to a file, each kind of file as often as the others."""
    kinds = sorted({kind_of(path) for path in files} - {"meta.properties", ".kafka_cleanshutdown"})
    kind = rng.choice(kinds)
    path = rng.choice(sorted(path for path in files if kind_of(path) == kind))
    data = files[path]
    # A segment with the same offsets cannot be told from this one, in Kafka's format.
    name = path.rpartition("/")[2]
    others = [
        files[other]
        for other in sorted(files)
        if kind_of(other) == kind and other != path and (kind != SEGMENT or not other.endswith(name))
    ]
    what = rng.choice(DAMAGES)
    at = rng.randrange(len(data)) if data else 0
    if what == "cut":
        files[path] = data[:at]
    elif what == "flip" and data:
        files[path] = data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :]
    elif what == "zero":
        end = min(len(data), at + rng.choice((1, 8, 64, 512)))
        files[path] = data[:at] + bytes(end - at) + data[end:]
    elif what == "all zeros":
        files[path] = bytes(len(data))
    elif what == "empty":
        files[path] = b""
    elif what == "missing":
        del files[path]
    elif what == "older" and path in older:
        files[path] = older[path]
    elif what == "another's" and others:
        files[path] = rng.choice(others)
    elif what == "grown":
        files[path] = data + rng.choice((bytes(100), b"\xff" * 100, data[:100]))
    return Damage(path, f"{what} at {at}")


def disk_of(files: Files) -> MemoryDisk:
    disk = MemoryDisk()
    for path, data in files.items():
        disk.make_dirs(path.rpartition("/")[0])
        inode = disk.files[path] = Inode()
        inode.data, inode.modified_ms = bytearray(data), NOW_MS
    return disk


def read(log: Log, offset: int) -> bytes | None:
    """The record at an offset as a consumer gets it; None where it gets CORRUPT_MESSAGE or nothing."""
    for _ in range(20):
        try:
            piece = log.read(offset, 1, end_offset=log.log_end_offset, min_one=True)
        except ColdRead as cold:
            cold.warm()
            continue
        except KafkaError as error:
            assert error.code in (ErrorCode.corrupt_message, ErrorCode.offset_out_of_range)
            return None
        if piece is None:
            return None
        batch = piece.file.read(piece.position, piece.size)
        try:
            check_batch(batch)
        except KafkaError:
            return None
        return next((record.value for record in iter_records(batch) if record.offset == offset), None)
    raise AssertionError("it asks to be asked again for ever")


async def look_after(
    disk: MemoryDisk, files: Files, stored: tuple[Stored, ...], done: Damage, caplog: pytest.LogCaptureFixture
) -> dict[tuple[TopicPartition, int], bytes]:
    """Start, and hold what is served against what lies there; what that is."""
    caplog.clear()
    logs = manager(disk, FakeClock())
    await logs.start()
    opened = open_all(logs)
    served: dict[tuple[TopicPartition, int], bytes] = {}
    for one in stored:
        log = opened[one.where]
        value = read(log, one.offset) if isinstance(log, Log) else None
        if value is not None:
            # Nothing is made up, moved or mixed.
            assert value == one.value or (value == NEW and not done.is_hint), (done, one.where, one.offset)
            served[one.where, one.offset] = value
            continue
        assert not done.is_hint, (done, one.where, one.offset)
        assert done.where in ("", str(one.where)), (done, one.where, one.offset)
        if one.batch in files.get(one.path, b""):
            says = [record for record in caplog.records if record.levelno >= logging.WARNING]
            told = any(done.where in record.getMessage() for record in says)
            assert told or isinstance(log, Exception) or done.path.endswith(START), (done, one.offset)
    for log in opened.values():
        if isinstance(log, Log):
            await _use(disk, log, [one for one in stored if one.where == log.topic_partition], done)
    await logs.close()
    return served


async def _use(disk: MemoryDisk, log: Log, stored: list[Stored], done: Damage) -> None:
    """Times and retention are answered by the log as well, and it takes records."""
    look_ups = TimeLookUps(disk)
    for one in stored[:: len(stored) // 4]:
        found = await look_ups.first_from(log, one.timestamp_ms)
        if done.is_hint:
            assert found is not None and found.offset == one.offset, (done, one.offset)
    start = log.log_start_offset
    for _ in range(3):
        log.apply_retention(NOW_MS + 6 * DAY_MS)
    assert log.log_start_offset == start, done
    end = log.log_end_offset
    appended = append(log, NEW, at_ms=NOW_MS + COUNT * STEP_MS, epoch=max(9, log.latest_epoch))
    assert appended.base_offset == end
    assert read(log, end) == NEW, done


@pytest.mark.parametrize("clean", [True, False])
@pytest.mark.parametrize("seed", range(30 * FACTOR))
def test_whatever_lies_undamaged_is_served(seed: int, clean: bool, caplog: pytest.LogCaptureFixture) -> None:
    built, rng = golden(), Random(f"{seed} {clean}")
    for _ in range(DAMAGES_PER_SEED):
        files = dict(built.stopped if clean else built.killed)
        done = damage(rng, files, built.older)
        disk = disk_of(files)
        first = asyncio.run(look_after(disk, files, built.stored, done, caplog))
        again = asyncio.run(look_after(disk, files_of(disk), built.stored, done, caplog)) if first else {}
        assert again.items() >= first.items(), done
