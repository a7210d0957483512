"""Finding offsets by time, against a plain search."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st
from log_support import NOW_MS, append, first_from, newest_of, open_log, read_all, reopen_clean
from memory_disk import MemoryDisk

from measuring import Attempt, cpu_at_most
from ottla.env.disk import RealDisk
from ottla.errors import KafkaError
from ottla.log.log import Log
from ottla.log.lookups import Belied, TimeLookUps, TimestampOffset, look_up_warm
from ottla.log.segment_file import ColdRead
from ottla.log.settings import LogConfig, Origin
from ottla.types import Record
from ottla.wire.compression import compress
from ottla.wire.records import (
    HEADER_BYTES,
    BatchHeader,
    build_batch,
    read_header,
    seal_batch,
    write_varint,
)

T = TypeVar("T")

times = st.lists(st.lists(st.integers(-1, 60), min_size=1, max_size=3), min_size=1, max_size=15)
configs = st.builds(
    LogConfig,
    segment_bytes=st.sampled_from([250, 10**6]),
    index_interval_bytes=st.sampled_from([0, 150, 4096]),
    message_timestamp_before_max_ms=st.just(2**62),
)


def test_a_batch_that_another_thread_forgets_meanwhile() -> None:
    class Forgetful(OrderedDict[Any, Any]):
        def move_to_end(self, key: Any, last: bool = True) -> None:
            """Somebody else's look-up has come in between."""
            del self[key]
            super().move_to_end(key, last)

    header = read_header(build_batch([Record(0, 1, None, b"v")]))
    belied = Belied("data/t-0", Forgetful())
    assert belied.looked_through(header) is None
    belied.note(header, None)
    assert belied.looked_through(header) == (None,)
    assert belied.looked_through(header) is None


@given(batches=times, config=configs, target=st.integers(-1, 61), start=st.integers(0, 5),
       codec=st.sampled_from([0, 3]), closed=st.booleans())  # fmt: skip
def test_the_first_record_at_or_after_a_time(
    batches: list[list[int]], config: LogConfig, target: int, start: int, codec: int, closed: bool
) -> None:
    disk = MemoryDisk()
    log = open_log(disk, config)
    for number, stamps in enumerate(batches):
        data = build_batch([Record(0, stamp, None, b"v") for stamp in stamps], compression=codec)
        log.append(data, leader_epoch=number, now_ms=NOW_MS)
    log.advance_log_start(min(start, log.log_end_offset))
    if closed:
        log = reopen_clean(disk, log)
    records = read_all(log)
    expected = next((record for record in records if record.timestamp_ms >= target), None)
    found = first_from(log, target)
    if target >= 0:
        assert found == (
            expected
            and TimestampOffset(expected.timestamp_ms, expected.offset, log.epoch_for_offset(expected.offset))
        )
    stamps = [stamp for batch in batches for stamp in batch]
    newest = newest_of(log)
    assert newest is not None
    # As in Kafka, which looks at segments and batches, not at the log's start.
    assert newest.timestamp_ms == max(stamps)
    assert newest.offset == stamps.index(max(stamps))


def test_an_empty_log_has_no_times() -> None:
    log = open_log(MemoryDisk())
    assert first_from(log, 0) is None
    assert newest_of(log) is None


def test_settling_warms_what_is_cold_and_looks_again() -> None:
    disk = MemoryDisk()
    log = open_log(disk)
    append(log, "a")
    log = reopen_clean(disk, log)
    disk.cold = True
    with pytest.raises(ColdRead):
        log.read(0, 100, end_offset=1)
    disk.warm.clear()
    assert asyncio.run(look_up_warm(disk, lambda: log.read(0, 100, end_offset=1))) is not None


def test_settling_gives_up_on_a_disk_that_never_warms() -> None:
    disk = MemoryDisk()

    class Never(set[str]):
        def __contains__(self, path: object) -> bool:
            return False

    log = open_log(disk)
    append(log, "a")
    log = reopen_clean(disk, log)
    disk.cold, disk.warm = True, Never()
    with pytest.raises(KafkaError):
        asyncio.run(look_up_warm(disk, lambda: log.read(0, 100, end_offset=1)))


# -- headers that are not true ------------------------------------------------------------------------------

# The times of a batch's records, by how much its header exaggerates, and what is wrong with it besides.
Told = tuple[list[int], int, str]
told = st.lists(
    st.tuples(
        st.lists(st.integers(0, 30), min_size=1, max_size=4),
        st.sampled_from([0, 0, 1, 7, 40]),
        st.sampled_from(["sound", "sound", "garbage", "cut"]),
    ),
    min_size=1,
    max_size=14,
)


def write(log: Log, batch: Told, codec: int) -> list[Record]:
    """Append a batch as a client could; those of its records that can be read."""
    stamps, exaggerated_ms, fault = batch
    base = log.log_end_offset
    data = build_batch([Record(0, stamp, None, b"v") for stamp in stamps], compression=codec)
    header, payload = read_header(data), data[HEADER_BYTES:]
    readable = [Record(base + delta, stamp, None, b"v") for delta, stamp in enumerate(stamps)]
    if fault == "garbage":
        payload, readable = b"\xff" * len(payload), []
    elif fault == "cut" and codec:
        payload, readable = payload[: len(payload) // 2], []
    elif fault == "cut":
        payload, readable = payload[:-1], readable[:-1]
    header = header.replaced(max_timestamp_ms=header.max_timestamp_ms + exaggerated_ms)
    # A coordinator's batches are taken as they are, as are a client's that are compressed.
    log.append(seal_batch(header, payload), leader_epoch=0, now_ms=NOW_MS, origin=Origin.COORDINATOR)
    return readable


@given(batches=told, config=configs, targets=st.lists(st.integers(0, 75), min_size=1, max_size=4),
       codec=st.sampled_from([0, 1, 3]), closed=st.booleans(),
       at_once=st.sampled_from([1, 2, 1000]))  # fmt: skip
def test_what_headers_belie_and_what_cannot_be_read_is_passed_over(
    batches: list[Told], config: LogConfig, targets: list[int], codec: int, closed: bool, at_once: int
) -> None:
    disk = MemoryDisk()
    log = open_log(disk, config)
    readable = [record for batch in batches for record in write(log, batch, codec)]
    if closed:
        log = reopen_clean(disk, log)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ottla.log.lookups.CLAIMS_AT_ONCE", at_once)
        patch.setattr("ottla.log.lookups.SEGMENTS_AT_ONCE", at_once)
        patch.setattr("ottla.log.lookups.RECORDS_AT_ONCE", at_once)
        # One after the other: what was looked through in vain is remembered.
        lookups = TimeLookUps(disk)
        all_found = [asyncio.run(lookups.first_from(log, target)) for target in targets]
        newest = asyncio.run(lookups.newest(log))
        again = asyncio.run(lookups.newest(log))
    for target, found in zip(targets, all_found, strict=True):
        expected = next((record for record in readable if record.timestamp_ms >= target), None)
        assert (found and found.offset) == (expected and expected.offset)
    largest = max(readable, key=lambda record: record.timestamp_ms, default=None)
    assert (newest and newest[:2]) == (largest and (largest.timestamp_ms, largest.offset))
    assert again == newest


def test_a_batch_that_was_looked_through_in_vain_may_have_what_is_asked_for_next() -> None:
    disk = MemoryDisk()
    log = open_log(disk)
    write(log, ([10, 12], 40, "sound"), 1)
    lookups = TimeLookUps(disk)
    for target, offset in ((20, None), (12, 1), (13, None), (11, 1), (10, 0)):
        found = asyncio.run(lookups.first_from(log, target))
        assert (found and found.offset) == offset


def bomb(count: int, claimed_ms: int) -> bytes:
    """A small batch of very many records, none of which is as late as it claims."""
    body = bytearray()
    for delta in range(count):
        record = bytearray(2)
        write_varint(record, delta)
        record += b"\x01\x01\x00"
        write_varint(body, len(record))
        body += record
    header = BatchHeader(0, 0, -1, 2, 0, 4, count - 1, NOW_MS, claimed_ms, -1, -1, -1, count)
    return seal_batch(header, compress(4, body))


class TimedDisk(RealDisk):
    """Notes the processor time that each piece of work in a thread takes: a busy machine does not count."""

    def __init__(self) -> None:
        super().__init__()
        self.pieces_s: list[float] = []

    async def run(self, work: Callable[[], T]) -> T:
        def timed() -> T:
            began_s = time.thread_time()
            try:
                return work()
            finally:
                self.pieces_s.append(time.thread_time() - began_s)

        return await super().run(timed)


async def ticking(turns_s: list[float]) -> None:
    """Notes the processor time that the event loop takes from one look of this task's to the next."""
    while True:
        began_s = time.thread_time()
        await asyncio.sleep(0.001)
        turns_s.append(time.thread_time() - began_s)


@pytest.mark.parametrize("what", ["first", "newest"])
def test_batches_that_belie_their_headers_do_not_hold_the_event_loop(tmp_path: Path, what: str) -> None:
    """They take long to look through; meanwhile others look up, and get their answers."""
    data = bomb(150_000, NOW_MS + 1000)
    assert len(data) < 1_000_000

    async def body(attempt: Attempt, directory: Path) -> None:
        disk = TimedDisk()
        log = open_log(disk, directory=str(directory))
        append(log, "honest")
        for _ in range(2):
            log.append(data, leader_epoch=0, now_ms=NOW_MS)
        last = append(log, "last", at_ms=NOW_MS + 500).last_offset
        turns_s: list[float] = []
        monitor = asyncio.create_task(ticking(turns_s))
        lookups = TimeLookUps(disk)
        if what == "first":
            slow = asyncio.create_task(lookups.first_from(log, NOW_MS + 500))
        else:
            slow = asyncio.create_task(lookups.newest(log))
        await asyncio.sleep(0.05)
        for _ in range(5):
            assert await lookups.first_from(log, NOW_MS - 1) == (NOW_MS, 0, 0)
        assert not slow.done()
        assert await slow == (NOW_MS + 500, last, 0)
        monitor.cancel()
        assert len(disk.pieces_s) > 200
        attempt.took(max(turns_s) / 0.02, "a turn")
        # Unpacking takes the longest, and lets the event loop run.
        attempt.took(max(disk.pieces_s) / 0.05, "a piece")
        before = len(disk.pieces_s)
        again = await (lookups.newest(log) if what == "newest" else lookups.first_from(log, NOW_MS + 500))
        assert again == (NOW_MS + 500, last, 0)
        assert len(disk.pieces_s) < before + 10, "what was looked through in vain is not remembered"

    for number, attempt in enumerate(cpu_at_most(1.0, "of what is allowed")):
        asyncio.run(body(attempt, tmp_path / f"topic-{number}"))


def test_a_look_up_in_a_log_that_is_cut_meanwhile_begins_again() -> None:
    class Cutting(MemoryDisk):
        cut: Callable[[], object] | None = None

        async def run(self, work: Callable[[], T]) -> T:
            done = work()
            cut, self.cut = self.cut, None
            if cut is not None:
                cut()
            return done

    disk = Cutting()
    log = open_log(disk)
    append(log, "a", at_ms=NOW_MS)
    append(log, "b", at_ms=NOW_MS + 1)

    def cut() -> None:
        log.truncate_to(1, NOW_MS)
        append(log, "c", at_ms=NOW_MS + 2, epoch=1)

    disk.cut = cut
    assert first_from(log, NOW_MS + 1) == (NOW_MS + 2, 1, 1)
    disk.cut = lambda: log.truncate_to(1, NOW_MS)
    assert newest_of(log) == (NOW_MS, 0, 0)


@pytest.mark.parametrize("base_ms", [2**63 - 1, -(2**63)])
def test_timestamps_that_need_more_than_64_bits_wrap_around_as_in_kafka(base_ms: int) -> None:
    """Nobody looks into such a batch when it comes; whoever looks later finds what fits into an answer."""
    stamps = (0, 5) if base_ms > 0 else (5, 0)
    data = build_batch([Record(0, stamp, b"k", b"v") for stamp in stamps], compression=4)
    header = read_header(data).replaced(base_timestamp_ms=base_ms, max_timestamp_ms=NOW_MS)
    log = open_log(MemoryDisk(), LogConfig(message_timestamp_after_max_ms=2**63 - 1))
    log.append(seal_batch(header, data[HEADER_BYTES:]), leader_epoch=0, now_ms=NOW_MS)
    append(log, "a", at_ms=NOW_MS)
    for found in (first_from(log, 0), first_from(log, NOW_MS), newest_of(log)):
        assert found is None or -(2**63) <= found.timestamp_ms < 2**63
    assert all(-(2**63) <= record.timestamp_ms < 2**63 for record in read_all(log))
