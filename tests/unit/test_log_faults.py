"""Full and failing disks: nothing acknowledged is lost, nothing torn stays, and serving resumes."""

from __future__ import annotations

import errno

import pytest
from hypothesis import given
from hypothesis import strategies as st
from log_support import FOLDER, NOW_MS, append, batch, open_log, read_all, reopen_clean, values
from memory_disk import MemoryDisk

from ottla.errors import ErrorCode, KafkaError
from ottla.log.flushing import Flushable
from ottla.log.log import Log
from ottla.log.settings import LogConfig

NO_SPACE = OSError(errno.ENOSPC, "No space left on device")
IO_ERROR = OSError(errno.EIO, "Input/output error")
SMALL = LogConfig(segment_bytes=250)


def used(disk: MemoryDisk) -> int:
    return sum(len(inode.data) for inode in disk.files.values())


def refused(log: Log, *content: str) -> None:
    before = log.log_end_offset, log.size_bytes
    with pytest.raises(KafkaError) as raised:
        append(log, *content)
    assert raised.value.code is ErrorCode.kafka_storage_error
    assert (log.log_end_offset, log.size_bytes) == before


@given(room=st.integers(0, 400), config=st.sampled_from([LogConfig(), SMALL]))
def test_a_disk_that_runs_full_at_any_byte(room: int, config: LogConfig) -> None:
    disk = MemoryDisk()
    log = open_log(disk, config)
    append(log, "before")
    disk.capacity = used(disk) + room
    acknowledged = [b"before"]
    for number in range(8):
        try:
            append(log, f"value {number}")
        except KafkaError as error:
            assert error.code is ErrorCode.kafka_storage_error
        else:
            acknowledged.append(b"value %d" % number)
    assert values(log) == acknowledged
    assert values(open_log(disk, config)) == acknowledged
    disk.capacity = 1 << 40
    append(log, "after")
    assert values(log) == [*acknowledged, b"after"]
    again = open_log(disk, config)
    assert values(again) == [*acknowledged, b"after"]
    assert [record.offset for record in read_all(again)] == list(range(len(acknowledged) + 1))


@pytest.mark.parametrize("error", [NO_SPACE, IO_ERROR])
def test_a_failed_write_leaves_nothing(error: OSError) -> None:
    disk = MemoryDisk()
    log = open_log(disk)
    append(log, "a")
    disk.fail_with["append"] = error
    refused(log, "b")
    assert len(disk.files[f"{FOLDER}/{0:020d}.log"].data) == log.size_bytes
    disk.fail_with.clear()
    assert append(log, "c").base_offset == 1
    assert values(open_log(disk)) == [b"a", b"c"]


def test_a_loss_of_power_does_not_bring_a_failed_write_back() -> None:
    """All that the segment holds was synced, and it closes: the cut has to reach the disk too."""
    disk, config = MemoryDisk(), LogConfig(segment_bytes=500)
    log = open_log(disk, config)
    append(log, "a" * 150)
    log.flush()
    path = log.segments[-1].path(".log")
    disk.capacity = used(disk) + 100
    refused(log, "b" * 150)
    # Only the bytes have reached the disk.
    disk.files[path].synced += b"torn"
    disk.capacity = 1 << 40
    append(log, "c" * 350)
    log.flush()
    assert len(log.segments) == 2
    disk.lose_power()
    assert len(disk.files[path].data) == log.segments[0].size
    assert values(open_log(disk, config, recovery_point=2)) == [b"a" * 150, b"c" * 350]


def test_a_torn_write_that_cannot_be_taken_back_stops_writes_until_it_can() -> None:
    disk = MemoryDisk()
    log = open_log(disk)
    append(log, "a")
    disk.capacity = used(disk) + 50
    disk.fail_with["truncate"] = IO_ERROR
    refused(log, "torn")
    path = f"{FOLDER}/{0:020d}.log"
    assert len(disk.files[path].data) > log.size_bytes
    assert values(log) == [b"a"]
    disk.capacity = 1 << 40
    refused(log, "still torn")
    with pytest.raises(KafkaError):
        log.close()
    assert values(open_log_copy(disk)) == [b"a"]
    disk.fail_with.clear()
    append(log, "b")
    assert values(open_log(disk)) == [b"a", b"b"]


def open_log_copy(disk: MemoryDisk) -> Log:
    """What a broker would find that started now, leaving this disk as it is."""
    copy = MemoryDisk()
    copy.folders = set(disk.folders)
    for name, inode in disk.files.items():
        copy.open(name, create=True).append([inode.data])
    return open_log(copy)


def test_a_sequence_number_is_not_used_up_by_a_failed_write() -> None:
    disk = MemoryDisk()
    log = open_log(disk)
    disk.fail_with["append"] = NO_SPACE
    data = batch("v", producer_id=1, producer_epoch=0, base_sequence=0)
    for _ in range(2):
        with pytest.raises(KafkaError):
            log.append(data, leader_epoch=0, now_ms=NOW_MS)
    disk.fail_with.clear()
    assert log.append(data, leader_epoch=0, now_ms=NOW_MS).duplicate is False
    assert log.append(data, leader_epoch=0, now_ms=NOW_MS).duplicate is True


def test_a_disk_that_cannot_be_read_before_the_first_write() -> None:
    """What an append needs to know is loaded before a byte is written, so that no batch is half appended."""
    disk = MemoryDisk()
    log = open_log(disk)
    append(log, "a")
    log = reopen_clean(disk, log)
    for operation in ("read", "open"):
        disk.fail_with = {operation: IO_ERROR}
        refused(log, "b")
    disk.fail_with.clear()
    assert append(log, "c").base_offset == 1
    assert values(log) == values(open_log(disk)) == [b"a", b"c"]


def test_a_changed_configuration_needs_no_disk() -> None:
    """It arrives with the cluster's other changes, which must not be kept from the partitions behind it."""
    disk = MemoryDisk()
    log = open_log(disk)
    for number in range(50):
        log.append(batch("x" * 500), leader_epoch=0, now_ms=NOW_MS + number)
    log = reopen_clean(disk, log)
    log.segments[-1].locate(0)
    disk.fail_with["read"] = IO_ERROR
    log.update_config(LogConfig(segment_index_bytes=24))
    disk.fail_with.clear()
    log.append(batch("y"), leader_epoch=0, now_ms=NOW_MS)
    log.append(batch("y"), leader_epoch=0, now_ms=NOW_MS)
    assert len(log.segments) == 2


def test_a_disk_that_cannot_be_read_says_so() -> None:
    disk = MemoryDisk()
    log = reopen_clean(disk, open_log(disk))
    append(log, "a")
    log = reopen_clean(disk, log)
    for operation in ("open", "read"):
        disk.fail_with = {operation: IO_ERROR}
        with pytest.raises(KafkaError) as raised:
            log.read(0, 100, end_offset=1)
        assert raised.value.code is ErrorCode.kafka_storage_error
    disk.fail_with.clear()
    assert values(log) == [b"a"]


@pytest.mark.parametrize("operation", ["create", "open"])
def test_a_segment_that_cannot_be_begun(operation: str) -> None:
    disk = MemoryDisk()
    log = open_log(disk, SMALL)
    while len(log.segments) < 2:
        append(log, "x")
    while log.segments[-1].size + len(batch("x")) <= SMALL.segment_bytes:
        append(log, "x")
    disk.fail_with[operation] = NO_SPACE
    refused(log, "y")
    disk.fail_with.clear()
    append(log, "y")
    assert len(log.segments) == 3
    assert values(open_log(disk, SMALL)) == values(log)


def test_a_snapshot_that_cannot_be_written_does_not_stop_a_roll() -> None:
    disk = MemoryDisk()
    log = open_log(disk, SMALL)
    disk.fail_with["write_file"] = NO_SPACE
    disk.fails_on = ".snapshot"
    for number in range(8):
        append(log, str(number))
    assert len(log.segments) > 1
    assert values(open_log(disk, SMALL)) == [b"%d" % number for number in range(8)]


def test_index_files_that_cannot_be_written_on_a_roll_are_written_later() -> None:
    disk = MemoryDisk()

    class Later:
        def __init__(self) -> None:
            self.work: list = []

        def submit(self, work, delay_ms: int = 0) -> None:  # type: ignore[no-untyped-def]
            self.work.append(work)

        def start_moved(self) -> None:
            return

        def segment_closed(self) -> None:
            return

        def config_changed(self, config: LogConfig) -> None:
            return

        def begins_unflushed(self, log: Flushable) -> None:
            return

    later = Later()
    log = open_log(disk, SMALL, background=later)
    for number in range(8):
        append(log, str(number))
    disk.fail_with["open"] = NO_SPACE
    disk.fails_on = "index"
    with pytest.raises(KafkaError):
        later.work[0]()
    disk.fail_with.clear()
    assert log.recovery_point == 0
    append(log, "8")
    log.flush()
    assert log.recovery_point == 9
    for segment in log.segments[:-1]:
        assert disk.exists(segment.path(".index")) and disk.exists(segment.path(".timeindex"))
    assert values(open_log(disk, SMALL)) == [b"%d" % number for number in range(9)]


def test_a_failed_sync_is_not_forgotten() -> None:
    disk = MemoryDisk()
    log = open_log(disk)
    append(log, "a")
    disk.fail_with["sync"] = IO_ERROR
    with pytest.raises(KafkaError) as raised:
        log.flush()
    assert raised.value.code is ErrorCode.kafka_storage_error
    assert log.recovery_point == 0
    disk.fail_with.clear()
    refused(log, "b")
    with pytest.raises(KafkaError):
        log.close()
    assert values(log) == [b"a"]


def test_a_folder_that_cannot_be_synced_is_not_flushed() -> None:
    disk = MemoryDisk()
    log = open_log(disk)
    append(log, "a")
    disk.fail_with["sync_dir"] = IO_ERROR
    with pytest.raises(KafkaError):
        log.flush()
    assert log.recovery_point == 0
    disk.fail_with.clear()
    log.flush()
    assert log.recovery_point == 1
    disk.lose_power()
    assert values(open_log(disk, recovery_point=1)) == [b"a"]


def test_retention_that_fails_is_tried_again() -> None:
    disk = MemoryDisk()
    config = LogConfig(segment_bytes=100, retention_ms=0)
    log = open_log(disk, config)
    for number in range(4):
        append(log, str(number))
    disk.fail_with["rename"] = IO_ERROR
    with pytest.raises(KafkaError):
        log.apply_retention(NOW_MS + 1)
    disk.fail_with.clear()
    log.apply_retention(NOW_MS + 1)
    append(log, "last")
    assert values(log) == [b"last"]
    log = reopen_clean(disk, log)
    assert values(log) == [b"last"]
