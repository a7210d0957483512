"""Finding offsets by time, against a plain search."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st
from log_support import NOW_MS, append, open_log, read_all, reopen_clean
from memory_disk import MemoryDisk

from ottla.errors import KafkaError
from ottla.log.lookups import TimestampOffset, settle
from ottla.log.segment import ColdRead
from ottla.log.settings import LogConfig
from ottla.types import Record
from ottla.wire.records import build_batch

times = st.lists(st.lists(st.integers(-1, 60), min_size=1, max_size=3), min_size=1, max_size=15)
configs = st.builds(
    LogConfig,
    segment_bytes=st.sampled_from([250, 10**6]),
    index_interval_bytes=st.sampled_from([0, 150, 4096]),
    message_timestamp_before_max_ms=st.just(2**62),
)


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
    found = log.offset_for_timestamp(target)
    if target >= 0:
        assert found == (
            expected
            and TimestampOffset(expected.timestamp_ms, expected.offset, log.epoch_for_offset(expected.offset))
        )
    stamps = [stamp for batch in batches for stamp in batch]
    newest = log.max_timestamp_offset()
    assert newest is not None
    # As in Kafka, which looks at segments and batches, not at the log's start.
    assert newest.timestamp_ms == max(stamps)
    assert newest.offset == stamps.index(max(stamps))


def test_an_empty_log_has_no_times() -> None:
    log = open_log(MemoryDisk())
    assert log.offset_for_timestamp(0) is None
    assert log.max_timestamp_offset() is None


def test_settling_warms_what_is_cold_and_looks_again() -> None:
    disk = MemoryDisk()
    log = open_log(disk)
    append(log, "a")
    log = reopen_clean(disk, log)
    disk.cold = True
    with pytest.raises(ColdRead):
        log.offset_for_timestamp(NOW_MS)
    disk.warm.clear()
    found = asyncio.run(settle(disk, lambda: log.offset_for_timestamp(NOW_MS)))
    assert found == (NOW_MS, 0, 0)


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
        asyncio.run(settle(disk, lambda: log.offset_for_timestamp(NOW_MS)))
