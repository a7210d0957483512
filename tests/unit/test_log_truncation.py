"""Cutting a log's end, as followers do."""

from __future__ import annotations

import errno
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from log_support import FOLDER, NOW_MS, append, newest_of, open_log, read_all, reopen_clean, values
from memory_disk import Meanwhile, MemoryDisk

from ottla.errors import ErrorCode, KafkaError
from ottla.log.flushing import Flushable
from ottla.log.log import Log
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
    newest = newest_of(log)
    assert (newest.timestamp_ms if newest else None) == (before[kept - 1].timestamp_ms if kept else None)
    done = append(log, "next", epoch=9, at_ms=NOW_MS + 50)
    assert done.base_offset == kept
    expected = read_all(log)
    assert read_all(reopen_clean(disk, log)) == expected
    assert read_all(open_log(disk, config)) == expected


@given(
    times=st.lists(st.integers(0, 5), min_size=1, max_size=15),
    end=st.integers(1, 15),
    interval=st.sampled_from([0, 150, 4096]),
    closed=st.booleans(),
)
def test_the_largest_timestamp_of_what_is_left_is_known(
    times: list[int], end: int, interval: int, closed: bool
) -> None:
    disk = MemoryDisk()
    log = open_log(disk, LogConfig(index_interval_bytes=interval))
    for time in times:
        append(log, "v", at_ms=NOW_MS + time)
    if closed:
        log = reopen_clean(disk, log)
    log.truncate_to(end, NOW_MS)
    kept = times[:end]
    newest = newest_of(log)
    assert newest is not None
    assert (newest.timestamp_ms - NOW_MS, newest.offset) == (max(kept), kept.index(max(kept)))


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


def test_starting_over_later_forgets_producers_that_a_snapshot_knows() -> None:
    disk = MemoryDisk()
    log = open_log(disk)
    append(log, "x", producer_id=1, producer_epoch=0, base_sequence=0, epoch=4)
    log = reopen_clean(disk, log)
    log.truncate_fully_to(100, NOW_MS)
    assert (len(log.producers), log.epochs.entries, log.snapshots.offsets) == (0, [], [])


# -- while a flush is under way ----------------------------------------------------------------------------


def overwrite(log: Log, offset: int, *others: str) -> None:
    log.truncate_to(offset, NOW_MS)
    for other in others:
        append(log, other, epoch=2)


@pytest.mark.parametrize("operation", [("sync", ".log"), ("write_file", "checkpoint"), ("sync_dir", FOLDER)])
def test_a_flush_does_not_count_what_was_overwritten_meanwhile(operation: tuple[str, str]) -> None:
    disk = Meanwhile()
    log = open_log(disk)
    append(log, "a")
    append(log, "lost", epoch=1)
    append(log, "lost too", epoch=1)

    disk.during[operation] = lambda: overwrite(log, 1, "b", "c", "d")
    log.flush()
    assert not disk.during
    assert log.recovery_point <= 1
    log.flush()
    assert log.recovery_point == 4
    disk.lose_power()
    log = open_log(disk, recovery_point=4)
    assert values(log) == [b"a", b"b", b"c", b"d"]
    assert log.epochs.entries == [(0, 0), (2, 1)]


def test_leader_epochs_that_are_cut_while_they_are_saved_are_saved_again() -> None:
    disk = Meanwhile()
    log = open_log(disk)
    append(log, "a")
    append(log, "lost", epoch=1)
    disk.during["write_file", "checkpoint"] = lambda: log.truncate_to(1, NOW_MS)
    log.flush()
    log.flush()
    assert disk.files[f"{FOLDER}/leader-epoch-checkpoint"].data == b"0\n1\n0 0\n"


def test_indexes_that_are_cut_while_they_are_saved_are_saved_again() -> None:
    """The roll's flush is on its way when its segment is cut and goes on as the active one."""
    disk, later = Meanwhile(), []
    config = LogConfig(segment_bytes=400, index_interval_bytes=1)
    log = open_log(disk, config, background=Later(later))
    while len(log.segments) == 1:
        append(log, "value", at_ms=NOW_MS + log.log_end_offset)
    disk.during["write_at", ".timeindex"] = lambda: overwrite(log, 2, "longer " * 9)
    later[0]()
    for value in "bcdef":
        append(log, value, epoch=2)
    assert not disk.during and len(log.segments) > 1
    for work in later[1:]:
        work()
    log.flush()
    expected = read_all(log)
    assert [record.offset for record in expected] == list(range(8))
    log = open_log(disk, config, clean=True, recovery_point=log.log_end_offset)
    for offset in range(8):
        assert read_all(log, offset) == expected[offset:]


class Later:
    """Background work that waits until it is told to run."""

    def __init__(self, work: list[Callable[[], None]]) -> None:
        self.work = work

    def submit(self, work: Callable[[], None], delay_ms: int = 0) -> None:
        self.work.append(work)

    def start_moved(self) -> None:
        return

    def segment_closed(self) -> None:
        return

    def config_changed(self, config: LogConfig) -> None:
        return

    def begins_unflushed(self, log: Flushable) -> None:
        return


def test_a_recovery_point_from_before_a_truncation_hides_no_loss() -> None:
    """The checkpoint on disk is old; power is lost before the rolled segments are synced."""
    disk = MemoryDisk()
    config = LogConfig(segment_bytes=200)
    work: list[Callable[[], None]] = []
    log = open_log(disk, config, background=Later(work))
    for number in range(20):
        append(log, f"old {number}")
    log.flush()
    checkpointed = log.recovery_point
    work.clear()
    log.truncate_to(3, NOW_MS)
    for number in range(16):
        append(log, f"new {number}", epoch=1)
    written = read_all(log)
    disk.lose_power()
    log = open_log(disk, config, recovery_point=checkpointed)
    left = read_all(log)
    assert left == written[: len(left)]
    assert log.epochs.entries == [(0, 0), (1, 3)]


@pytest.mark.parametrize("length", [19, 20, 21])
@pytest.mark.parametrize("keeps_names", [False, True])
def test_a_roll_about_where_a_truncated_log_was_flushed_to(length: int, keeps_names: bool) -> None:
    """The checkpoint on disk says 20: recovery begins with the segment of that, and believes those before it.

    What was written last may get to the disk before what was written first. The cut may be lost, too; what
    must not come about is a log of old records with new ones behind them.
    """
    disk = MemoryDisk()
    work: list[Callable[[], None]] = []
    log = open_log(disk, background=Later(work))
    for number in range(20):
        append(log, f"old {number:02}")
    log.flush()
    old = read_all(log)
    log.truncate_to(3, NOW_MS)
    for number in range(3, length):
        append(log, f"new {number:02}", epoch=1)
    log.roll(NOW_MS)
    append(log, "last", epoch=1)
    new = read_all(log)
    disk.sync_dir(FOLDER)
    log.segments[-1].file.sync()
    disk.lose_power(keeps_names=keeps_names)
    left = read_all(open_log(disk, recovery_point=20))
    assert left in (old[: len(left)], new[: len(left)])


@pytest.mark.parametrize("length", [19, 20, 21])
def test_a_roll_about_where_a_truncated_log_ended(length: int) -> None:
    """Nothing was flushed, but the disk has written it by itself; then what was cut off may come back."""
    disk = MemoryDisk()
    work: list[Callable[[], None]] = []
    log = open_log(disk, background=Later(work))
    for number in range(20):
        append(log, f"old {number:02}")
    log.segments[-1].file.sync()
    old = read_all(log)
    log.truncate_to(3, NOW_MS)
    for number in range(3, length):
        append(log, f"new {number:02}", epoch=1)
    log.roll(NOW_MS)
    append(log, "last", epoch=1)
    new = read_all(log)
    log.segments[-1].file.sync()
    disk.lose_power(keeps_names=True)
    left = read_all(open_log(disk))
    assert left in (old[: len(left)], new[: len(left)])
    assert len(left) >= 3


def test_a_flush_asked_for_before_a_truncation_counts_only_what_is_there() -> None:
    disk, work = Meanwhile(), []
    config = LogConfig(segment_bytes=200)
    log = open_log(disk, config, background=Later(work))
    while len(log.segments) == 1:
        append(log, "old")
    rolled_at = log.segments[1].base_offset
    log.truncate_to(1, NOW_MS)
    disk.during["sync", ".log"] = lambda: [append(log, "n") for _ in range(rolled_at - 1)]
    work[0]()
    assert log.recovery_point == 1


def test_a_truncation_that_fails_half_way_stops_the_log() -> None:
    disk = MemoryDisk()
    log = open_log(disk, LogConfig(segment_bytes=200))
    for number in range(8):
        append(log, str(number))
    disk.fail_with["rename"] = OSError(errno.EIO, "Input/output error")
    with pytest.raises(OSError, match="Input/output"):
        log.truncate_to(1, NOW_MS)
    disk.fail_with.clear()
    with pytest.raises(KafkaError) as raised:
        append(log, "x")
    assert raised.value.code is ErrorCode.kafka_storage_error
    with pytest.raises(KafkaError):
        log.close()
