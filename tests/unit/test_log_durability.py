"""What a log claims to be on the disk is on the disk, whatever fails or runs at the same time."""

from __future__ import annotations

import errno
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from log_support import FOLDER, NOW_MS, append, first_from, newest_of, open_log, records, reopen_clean, values
from memory_disk import MemoryDisk

from ottla.env.disk import RealDisk, RealFile
from ottla.errors import ErrorCode, KafkaError
from ottla.log.file_cache import FileCache
from ottla.log.flushing import Flushable
from ottla.log.log import Log
from ottla.log.segment_file import ColdRead
from ottla.log.settings import LogConfig
from ottla.types import TopicPartition
from ottla.wire.records import build_batch

IO_ERROR = OSError(errno.EIO, "Input/output error")
NO_SPACE = OSError(errno.ENOSPC, "No space left on device")
INDEXED = LogConfig(segment_bytes=300, index_interval_bytes=1)


class Later:
    """Background work that waits until it is told to run."""

    def __init__(self) -> None:
        self.work: list[Callable[[], None]] = []

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


def test_a_sync_after_one_that_failed_proves_nothing() -> None:
    """Linux tells a failure once and marks the pages clean: the second sync would succeed over lost data."""
    disk = MemoryDisk()
    log = open_log(disk)
    append(log, "a")
    disk.fail_with["sync"] = IO_ERROR
    with pytest.raises(KafkaError):
        log.flush()
    disk.fail_with.clear()
    with pytest.raises(KafkaError) as raised:
        log.flush()
    assert raised.value.code is ErrorCode.kafka_storage_error
    assert log.recovery_point == 0


def test_indexes_of_a_segment_that_was_flushed_before_it_rolled_are_written() -> None:
    disk = MemoryDisk()
    later = Later()
    log = open_log(disk, INDEXED, background=later)
    while len(log.segments) == 1:
        append(log, "value")
        log.flush()
    assert log.recovery_point == log.log_end_offset
    for work in later.work:
        work()
    first = log.segments[0]
    assert first.indexed
    assert disk.exists(first.path(".timeindex"))


def test_closing_writes_the_indexes_of_all_segments() -> None:
    disk = MemoryDisk()
    log = open_log(disk, INDEXED, background=Later())
    while len(log.segments) == 1:
        append(log, "value", at_ms=NOW_MS + log.log_end_offset)
        log.flush()
    last_before_roll = log.segments[1].base_offset - 1
    log = reopen_clean(disk, log)
    disk.reads.clear()
    assert log.segments[0].load_max_timestamp() == (NOW_MS + last_before_roll, last_before_roll)
    # The last entry is compared with its batch, and that is all.
    assert disk.reads[f"{0:020d}.log"] == 1


@pytest.mark.parametrize("clean", [True, False])
def test_index_files_from_before_the_last_appends_are_not_believed(clean: bool) -> None:
    """A clean stop, more appends, a roll, and a crash before the rolled segment's indexes are written."""
    disk = MemoryDisk()
    log = open_log(disk, INDEXED)
    append(log, "old", at_ms=NOW_MS)
    log = reopen_clean(disk, log, background=Later())
    if not clean:
        log = open_log(disk, INDEXED, recovery_point=1, background=Later())
    while len(log.segments) == 1:
        append(log, "new", at_ms=NOW_MS + 1000)
        log.flush()
    after_crash = open_log(disk, INDEXED, recovery_point=log.recovery_point)
    assert after_crash.segments[0].load_max_timestamp() == (NOW_MS + 1000, 1)
    found = first_from(after_crash, NOW_MS + 1)
    assert found is not None and found.offset == 1


def test_index_files_are_on_the_disk_before_the_recovery_point_passes_them() -> None:
    disk = MemoryDisk()
    log = open_log(disk, INDEXED)
    for number in range(12):
        append(log, str(number), at_ms=NOW_MS + number)
    log.flush()
    expected = [segment.load_max_timestamp() for segment in log.segments[:-1]]
    assert len(expected) > 1
    disk.lose_power()
    again = open_log(disk, INDEXED, recovery_point=log.recovery_point)
    assert [segment.load_max_timestamp() for segment in again.segments[:-1]] == expected


def test_a_stop_whose_producer_state_cannot_be_written_is_not_clean() -> None:
    disk = MemoryDisk()
    log = open_log(disk)
    append(log, "a", producer_id=7, producer_epoch=0, base_sequence=0)
    log.flush()
    disk.fail_with["write_file"] = NO_SPACE
    disk.fails_on = ".snapshot"
    with pytest.raises(KafkaError) as raised:
        log.close()
    assert raised.value.code is ErrorCode.kafka_storage_error


def test_producer_state_of_a_clean_stop_survives_a_loss_of_power() -> None:
    disk = MemoryDisk()
    log = open_log(disk)
    first = append(log, "a", producer_id=7, producer_epoch=0, base_sequence=0)
    log.close()
    disk.lose_power()
    log = open_log(disk, clean=True, recovery_point=1)
    again = append(log, "a", producer_id=7, producer_epoch=0, base_sequence=0)
    assert (again.duplicate, again.base_offset) == (True, first.base_offset)


def test_a_roll_that_fails_leaves_no_second_segment() -> None:
    """A file that begins at the log's end while the log goes on elsewhere would cut it at a clean start."""
    disk = MemoryDisk()
    log = open_log(disk)
    append(log, "a")
    log = reopen_clean(disk, log)
    disk.fail_with["read"] = IO_ERROR
    disk.fails_on = ".timeindex"
    with pytest.raises((KafkaError, OSError)):
        log.roll(NOW_MS)
    assert [name for name in disk.list(FOLDER) if name.endswith(".log")] == [f"{0:020d}.log"]


def test_the_topic_of_a_folder_is_on_disk_with_its_first_records() -> None:
    from uuid import UUID

    disk = MemoryDisk()
    log = open_log(disk, topic_id=UUID(int=5))
    append(log, "a")
    log.flush()
    disk.lose_power()
    assert open_log(disk, recovery_point=1).topic_id == UUID(int=5)


class Interleaved(RealDisk):
    """Runs something right after a file was opened, as another thread might."""

    def __init__(self) -> None:
        super().__init__()
        self.after_open: Callable[[], object] | None = None

    def open(self, path: str, *, create: bool = False) -> RealFile:
        file = super().open(path, create=create)
        meanwhile, self.after_open = self.after_open, None
        if meanwhile is not None:
            meanwhile()
        return file


def test_a_flush_that_opens_a_file_does_not_get_in_the_way_of_appends(tmp_path: Path) -> None:
    disk = Interleaved()
    log = Log.open(
        disk,
        str(tmp_path / "topic-0"),
        LogConfig(),
        topic_partition=TopicPartition("topic", 0),
        now_ms=NOW_MS,
        clean=False,
        cache=FileCache(disk, 1),
    )
    append(log, "a")
    # Too many files were open: this one was let go.
    log.segments[-1].let_go()
    disk.after_open = lambda: append(log, "b")
    log.flush()
    append(log, "c")
    assert values(log) == [b"a", b"b", b"c"]
    disk.close()


def test_a_cold_read_that_fails_is_a_storage_error_and_one_that_is_too_late_is_not() -> None:
    def fail(error: OSError) -> Callable[[], object]:
        def read() -> object:
            raise error

        return read

    with pytest.raises(KafkaError) as raised:
        ColdRead("a file", fail(IO_ERROR)).warm()
    assert raised.value.code is ErrorCode.kafka_storage_error
    ColdRead("a file", fail(FileNotFoundError(errno.ENOENT, "No such file"))).warm()


def test_looking_up_a_time_on_a_failing_disk_is_a_storage_error() -> None:
    disk = MemoryDisk()
    log = open_log(disk, INDEXED)
    log.append(build_batch(records("a")), leader_epoch=0, now_ms=NOW_MS)
    log = reopen_clean(disk, log)
    disk.fail_with["open"] = disk.fail_with["read"] = IO_ERROR
    for look_up in (lambda: first_from(log, NOW_MS), lambda: newest_of(log)):
        with pytest.raises(KafkaError) as raised:
            look_up()
        assert raised.value.code is ErrorCode.kafka_storage_error


def test_leader_epochs_that_begin_while_they_are_saved_are_saved_later() -> None:
    """A flush runs in a thread: what it saves has to be one state, and later ones must not be forgotten."""
    disk = MemoryDisk()
    log = open_log(disk)
    append(log, "a", epoch=0)
    seen = log.epochs.entries
    append(log, "b", epoch=3)
    assert seen == [(0, 0)]
    log.flush()
    assert disk.files[f"{FOLDER}/leader-epoch-checkpoint"].data == b"0\n2\n0 0\n3 1\n"


def test_a_deleted_segment_touches_no_file_of_the_next_topic_of_its_name() -> None:
    disk = MemoryDisk()
    log = open_log(disk, INDEXED, background=Later())
    while len(log.segments) == 1:
        append(log, "old")
    old = log.segments[0]
    old.close()
    disk.remove_tree(FOLDER)
    append(open_log(disk), "new")
    before = sorted(disk.files)
    for touch in (old.save_indexes, old.own_file, lambda: old.file):
        with pytest.raises(FileNotFoundError):
            touch()
    assert sorted(disk.files) == before


@pytest.mark.parametrize("by_retention", [True, False])
def test_a_flush_does_not_mind_that_retention_was_faster(by_retention: bool) -> None:
    """But it does where the disk has lost a file that is still the log's."""
    disk = MemoryDisk()
    log = open_log(disk)
    for value in "abc":
        append(log, value)
        log.roll(NOW_MS)
    append(log, "d")
    first = log.segments[0]
    if by_retention:
        log.advance_log_start(1)
        assert log.apply_retention(NOW_MS) == 1
    first.close()
    for name in disk.list(FOLDER):
        if name.startswith("0" * 20):
            disk.remove(f"{FOLDER}/{name}")
    flush = partial(log.durability._flush_segment, first, has_news=True, is_closed=True)
    if by_retention:
        flush()
    else:
        with pytest.raises(FileNotFoundError):
            flush()


def test_only_segments_that_are_on_the_disk_to_their_ends_are_replaced() -> None:
    """A flush in another thread might write the indexes of one that compaction has replaced."""
    log = open_log(MemoryDisk(), INDEXED, background=Later())
    while len(log.segments) < 4:
        append(log, "value")
    first, second, third, _ = log.segments
    assert log.replacement.find([first]) is None
    log.flush(before=second.base_offset)
    # All of them have their indexes on the disk.
    for segment in (first, second, third):
        segment.save_indexes()
    assert log.replacement.find([first]) == 0
    assert log.replacement.find([first, second]) is None
    log.flush(before=third.base_offset)
    assert log.replacement.find([first, second]) == 0
    assert log.replacement.find([second, third]) is None
