"""Cutting a log's end, as followers do."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from log_support import NOW_MS, append, open_log, read_all, reopen_clean
from memory_disk import MemoryDisk

from ottla.log.settings import LogConfig


@given(
    sizes=st.lists(st.integers(1, 3), min_size=1, max_size=15),
    end=st.integers(0, 40),
    segment_bytes=st.sampled_from([250, 10**6]),
    interval=st.sampled_from([0, 4096]),
    closed=st.booleans(),
)
def test_what_is_left_is_the_batches_before(
    sizes: list[int], end: int, segment_bytes: int, interval: int, closed: bool
) -> None:
    config = LogConfig(segment_bytes=segment_bytes, index_interval_bytes=interval)
    disk = MemoryDisk()
    log = open_log(disk, config)
    ends = [0]
    for number, size in enumerate(sizes):
        append(log, *["v"] * size, epoch=number // 3, at_ms=NOW_MS + number)
        ends.append(log.log_end_offset)
    if closed:
        log = reopen_clean(disk, log)
    before = read_all(log)
    epochs = log.epochs.entries
    kept = max(offset for offset in ends if offset <= end)
    assert log.truncate_to(end, NOW_MS) == (end < ends[-1])
    assert log.log_end_offset == kept
    assert read_all(log) == before[:kept]
    assert log.epochs.entries == [entry for entry in epochs if entry[1] < kept]
    assert log.size_bytes == sum(segment.size for segment in log.segments)
    newest = log.max_timestamp_offset()
    assert (newest.timestamp_ms if newest else None) == (before[kept - 1].timestamp_ms if kept else None)
    done = append(log, "next", epoch=9, at_ms=NOW_MS + 50)
    assert done.base_offset == kept
    expected = read_all(log)
    assert read_all(reopen_clean(disk, log)) == expected
    assert read_all(open_log(disk, config)) == expected


def test_truncating_before_the_start_begins_again_there() -> None:
    disk = MemoryDisk()
    log = open_log(disk, LogConfig(segment_bytes=100))
    for number in range(5):
        append(log, str(number))
    log.advance_log_start(3)
    log.apply_retention(NOW_MS)
    assert log.truncate_to(1, NOW_MS) is True
    assert (log.log_start_offset, log.log_end_offset, log.size_bytes) == (1, 1, 0)
    assert append(log, "x").base_offset == 1


def test_starting_over_at_an_offset() -> None:
    disk = MemoryDisk()
    log = open_log(disk)
    append(log, "x", producer_id=1, producer_epoch=0, base_sequence=0)
    log.truncate_fully_to(100, NOW_MS)
    assert (log.log_start_offset, log.log_end_offset, len(log.producers)) == (100, 100, 0)
    assert log.recovery_point <= 100
    assert append(log, "y").base_offset == 100
    log = reopen_clean(disk, log)
    assert [record.offset for record in read_all(log)] == [100]


def test_starting_over_where_a_segment_already_begins() -> None:
    disk = MemoryDisk()
    log = open_log(disk)
    append(log, "x")
    log.truncate_fully_to(0, NOW_MS)
    assert read_all(log) == []
    append(log, "y")
    assert [record.value for record in read_all(open_log(disk))] == [b"y"]
