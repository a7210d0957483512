"""Appending and reading against a plain list: every offset, limit and segment boundary."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from log_support import NOW_MS, append, batch, open_log, read_all, reopen_clean, values
from memory_disk import MemoryDisk

from ottla.errors import ErrorCode, KafkaError
from ottla.log import indexed_file as indexed_file_module
from ottla.log import segment as segment_module
from ottla.log.log import Log
from ottla.log.segment_file import ColdRead
from ottla.log.settings import DAY_MS, LogConfig
from ottla.wire.records import iter_batches, read_header

configs = st.builds(
    LogConfig,
    segment_bytes=st.sampled_from([200, 500, 10**6]),
    index_interval_bytes=st.sampled_from([0, 100, 4096]),
    segment_index_bytes=st.sampled_from([36, 10**6]),
)
batches = st.lists(st.integers(1, 4), min_size=1, max_size=30)


def fill(log: Log, sizes: list[int]) -> list[tuple[int, int]]:
    """Append batches of so many records each; the first and last offset of each."""
    found = []
    for number, size in enumerate(sizes):
        done = append(log, *[f"{number}.{index}" for index in range(size)], at_ms=NOW_MS + number)
        found.append((done.base_offset, done.last_offset))
    return found


@given(sizes=batches, config=configs, closed=st.booleans())
def test_every_offset_reads_from_its_batch_on(sizes: list[int], config: LogConfig, closed: bool) -> None:
    disk = MemoryDisk()
    log = open_log(disk, config)
    places = fill(log, sizes)
    if closed:
        log = reopen_clean(disk, log)
    end = log.log_end_offset
    assert end == sum(sizes)
    for first, last in places:
        for offset in range(first, last + 1):
            piece = log.read(offset, 1, end_offset=end, min_one=True)
            assert piece is not None
            header = read_header(piece.file.read(piece.position, piece.size))
            assert (header.base_offset, header.last_offset, header.size) == (first, last, piece.size)
            assert log.read(offset, 1, end_offset=first, min_one=True) is None
    assert [record.offset for record in read_all(log)] == list(range(end))
    assert log.size_bytes == sum(
        len(inode.data) for name, inode in disk.files.items() if name.endswith("log")
    )


@given(sizes=batches, config=configs, data=st.data())
def test_limits_cut_where_they_say(sizes: list[int], config: LogConfig, data: st.DataObject) -> None:
    log = open_log(MemoryDisk(), config)
    places = fill(log, sizes)
    first, _ = data.draw(st.sampled_from(places))
    visible = data.draw(st.sampled_from([end + 1 for _, end in places if end >= first]))
    max_bytes = data.draw(st.integers(0, 600))
    whole = log.read(first, 10**9, end_offset=visible)
    assert whole is not None
    raw = list(iter_batches(whole.file.read(whole.position, whole.size)))
    assert raw[0][0].base_offset == first and raw[-1][0].last_offset < visible
    assert sum(len(batch) for _, batch in raw) == whole.size
    clipped = log.read(first, max_bytes, end_offset=visible)
    clipped_size = min(whole.size, max_bytes)
    # Never less than one whole batch.
    assert (clipped.size if clipped else 0) == (clipped_size if clipped_size >= len(raw[0][1]) else 0)
    at_least_one = log.read(first, max_bytes, end_offset=visible, min_one=True)
    assert at_least_one is not None
    assert at_least_one.size == min(whole.size, max(max_bytes, len(raw[0][1])))


def test_offsets_out_of_range() -> None:
    log = open_log(MemoryDisk())
    append(log, "a", "b", "c")
    log.advance_log_start(1)
    for offset in (-1, 0, 4):
        with pytest.raises(KafkaError) as raised:
            log.read(offset, 10, end_offset=3)
        assert raised.value.code is ErrorCode.offset_out_of_range
    assert log.read(3, 10, end_offset=3) is None
    assert log.read(2, 10, end_offset=2) is None
    assert read_all(log)[0].offset == 1


def test_the_dense_list_of_the_tail_is_bounded_and_agrees(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segment_module, "RECENT_BATCHES_MAX", 8)
    log = open_log(MemoryDisk(), LogConfig(index_interval_bytes=200))
    fill(log, [1, 2, 3] * 20)
    active = log.segments[-1]
    assert len(active._recent_positions) <= 8
    dense = {offset: active.locate(offset) for offset in range(log.log_end_offset + 1)}
    active.forget_recent()
    assert {offset: active.locate(offset) for offset in dense} == dense


def test_reading_the_tail_reads_nothing() -> None:
    disk = MemoryDisk()
    log = open_log(disk)
    fill(log, [1] * 100)
    disk.reads.clear()
    assert log.read(99, 10, end_offset=100, min_one=True) is not None
    assert log.read(0, 10, end_offset=50, min_one=True) is not None
    assert not disk.reads


def test_a_look_up_on_a_cold_disk_says_what_to_warm() -> None:
    disk = MemoryDisk()
    log = reopen_clean(disk, open_log(disk))
    fill(log, [1] * 3)
    log = reopen_clean(disk, log)
    disk.cold = True
    with pytest.raises(ColdRead) as raised:
        log.read(1, 1000, end_offset=3)
    raised.value.warm()
    assert log.read(1, 1000, end_offset=3) is not None


def test_the_index_of_a_large_segment_is_loaded_off_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(indexed_file_module, "LOADED_IN_PLACE_BYTES_MAX", 0)
    disk = MemoryDisk()
    log = open_log(disk, LogConfig(index_interval_bytes=100))
    fill(log, [1] * 20)
    log = reopen_clean(disk, log)
    disk.reads.clear()
    with pytest.raises(ColdRead) as raised:
        log.read(5, 1000, end_offset=20)
    assert not disk.reads
    raised.value.warm()
    disk.reads.clear()
    assert log.read(5, 1000, end_offset=20) is not None
    assert f"{0:020d}.index" not in disk.reads


def test_segments_roll_by_size_at_the_batch_that_does_not_fit() -> None:
    size = len(batch("x"))
    log = open_log(MemoryDisk(), LogConfig(segment_bytes=3 * size))
    for _ in range(7):
        append(log, "x")
    assert [segment.base_offset for segment in log.segments] == [0, 3, 6]
    assert [segment.size for segment in log.segments] == [3 * size, 3 * size, size]


def test_segments_roll_by_the_records_own_clock() -> None:
    log = open_log(MemoryDisk(), LogConfig(segment_ms=DAY_MS, message_timestamp_after_max_ms=10 * DAY_MS))
    append(log, "a", at_ms=NOW_MS)
    append(log, "b", at_ms=NOW_MS + DAY_MS)
    assert len(log.segments) == 1
    append(log, "c", at_ms=NOW_MS + DAY_MS + 1)
    assert [segment.base_offset for segment in log.segments] == [0, 2]
    append(log, "older", at_ms=NOW_MS)
    assert len(log.segments) == 2


def test_segments_roll_by_the_wall_clock_where_records_have_no_time() -> None:
    log = open_log(MemoryDisk(), LogConfig(segment_ms=1000))
    log.append(batch("a", at_ms=-1), leader_epoch=0, now_ms=NOW_MS)
    log.append(batch("b", at_ms=-1), leader_epoch=0, now_ms=NOW_MS + 1000)
    assert len(log.segments) == 1
    log.append(batch("c", at_ms=-1), leader_epoch=0, now_ms=NOW_MS + 1001)
    assert len(log.segments) == 2


def test_a_reopened_segment_remembers_how_old_it_is() -> None:
    disk = MemoryDisk()
    config = LogConfig(segment_ms=1000)
    log = open_log(disk, config)
    append(log, "a", at_ms=NOW_MS)
    log = reopen_clean(disk, log)
    append(log, "b", at_ms=NOW_MS + 1001)
    assert len(log.segments) == 2


def test_segments_roll_when_an_index_is_full() -> None:
    log = open_log(MemoryDisk(), LogConfig(index_interval_bytes=0, segment_index_bytes=24))
    for number in range(9):
        append(log, "x", at_ms=NOW_MS + number)
    # 24 bytes are three offset entries, and one time entry beside the one kept for the seal.
    assert all(len(segment.offset_index) <= 3 for segment in log.segments)
    assert all(len(segment.time_index) <= 2 for segment in log.segments)
    assert len(log.segments) > 3
    assert len(values(log)) == 9


def test_jitter_takes_time_off_a_segments_life() -> None:
    config = LogConfig(segment_ms=1000, segment_jitter_ms=1000)
    ages = {open_log(MemoryDisk(), config)._segments._roll_age_ms for _ in range(50)}
    assert len(ages) > 1 and all(0 < age <= 1000 for age in ages)


def test_rolling_an_empty_log_does_nothing() -> None:
    log = open_log(MemoryDisk())
    assert log.roll(NOW_MS) is log.segments[0]
    append(log, "x")
    log.roll(NOW_MS)
    log.roll(NOW_MS)
    assert [segment.base_offset for segment in log.segments] == [0, 1]


def test_what_is_told_of_an_append() -> None:
    log = open_log(MemoryDisk(), LogConfig(message_timestamp_type="LogAppendTime"))
    append(log, "a")
    log.advance_log_start(1)
    done = append(log, "b", "c", at_ms=5)
    assert done.fields() == (1, 2, NOW_MS, 1, False)
    assert [record.timestamp_ms for record in read_all(log)] == [NOW_MS, NOW_MS]
    assert append(open_log(MemoryDisk()), "x").fields() == (0, 0, -1, 0, False)


def test_the_leader_epoch_is_stamped_and_remembered() -> None:
    disk = MemoryDisk()
    log = open_log(disk)
    for number, epoch in enumerate([2, 2, 4, 7]):
        append(log, str(number), epoch=epoch)
    assert log.epochs.entries == [(2, 0), (4, 2), (7, 3)]
    assert log.latest_epoch == 7
    assert [log.epoch_for_offset(offset) for offset in range(4)] == [2, 2, 4, 7]
    assert log.epoch_end_offset(2) == (2, 2)
    assert log.epoch_end_offset(5) == (4, 3)
    assert log.epoch_end_offset(7) == (7, 4)
    assert log.epoch_end_offset(8) == (-1, -1)
    assert log.epoch_end_offset(1) == (1, 0)
    log = reopen_clean(disk, log)
    assert log.epochs.entries == [(2, 0), (4, 2), (7, 3)]
    piece = log.read(2, 1, end_offset=4, min_one=True)
    assert piece is not None
    assert read_header(piece.file.read(piece.position, piece.size)).partition_leader_epoch == 4


def test_a_flush_is_due_by_count_and_by_age() -> None:
    log = open_log(MemoryDisk(), LogConfig(flush_messages=3, flush_ms=100))
    assert not log.sync_due(NOW_MS)
    append(log, "a", "b")
    assert log.unflushed_messages == 2
    assert not log.sync_due(NOW_MS + 99)
    assert log.sync_due(NOW_MS + 100)
    append(log, "c")
    assert log.sync_due(NOW_MS)
    log.flush()
    assert log.unflushed_messages == 0 and log.recovery_point == 3
    assert not log.sync_due(NOW_MS + 10**6)


def test_changed_configuration_holds_from_the_next_append_on() -> None:
    log = open_log(MemoryDisk())
    append(log, "x" * 100)
    log.update_config(LogConfig(max_message_bytes=100))
    with pytest.raises(KafkaError) as raised:
        append(log, "x" * 100)
    assert raised.value.code is ErrorCode.message_too_large
    assert log.log_end_offset == 1


def test_open_files_are_bounded_and_reopen() -> None:
    from ottla.log.file_cache import FileCache

    disk = MemoryDisk()
    log = open_log(disk, LogConfig(segment_bytes=100), cache=FileCache(disk, 2))
    for number in range(10):
        append(log, str(number))
    held = log.read(0, 10, end_offset=10, min_one=True)
    assert held is not None
    assert values(log) == [b"%d" % number for number in range(10)]
    assert sum(segment._file is not None for segment in log.segments) <= 2
    append(log, "more")
    # Whoever holds a file reads on, whatever the cache did meanwhile.
    assert read_header(held.file.read(held.position, held.size)).base_offset == 0
