"""What retention deletes, what it must not, and how the files go."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from log_support import FOLDER, NOW_MS, append, batch, open_log, read_all, reopen_clean, values
from memory_disk import MemoryDisk

from ottla.errors import ErrorCode, KafkaError
from ottla.log.flushing import Flushable
from ottla.log.log import Log
from ottla.log.settings import DAY_MS, LogConfig

SIZE = len(batch("x"))
OPEN = {"message_timestamp_after_max_ms": 100 * DAY_MS}


class Delayed:
    """Work that was left for later, with its delays."""

    def __init__(self) -> None:
        self.work: list[tuple[int, Callable[[], None]]] = []
        self.moves = 0

    def submit(self, work: Callable[[], None], delay_ms: int = 0) -> None:
        self.work.append((delay_ms, work))

    def start_moved(self) -> None:
        self.moves += 1

    def segment_closed(self) -> None:
        return

    def config_changed(self, config: LogConfig) -> None:
        return

    def begins_unflushed(self, log: Flushable) -> None:
        return


def filled(disk: MemoryDisk, config: LogConfig, count: int = 6, **options: object) -> Log:
    """One batch a segment, an hour apart."""
    log = open_log(disk, config, **options)
    for number in range(count):
        append(log, "x", at_ms=NOW_MS + number * 3_600_000)
    assert len(log.segments) == count
    return log


def one_each(**options: object) -> LogConfig:
    return LogConfig(segment_bytes=SIZE, **OPEN, **options)  # type: ignore[arg-type]


def bases(log: Log) -> list[int]:
    return [segment.base_offset for segment in log.segments]


def test_time_deletes_what_is_older_from_the_oldest_on() -> None:
    log = filled(MemoryDisk(), one_each(retention_ms=3_600_000))
    assert log.apply_retention(NOW_MS + 3 * 3_600_000) == 2
    assert bases(log) == [2, 3, 4, 5]
    assert log.log_start_offset == 2
    assert log.apply_retention(NOW_MS + 3 * 3_600_000) == 0
    assert log.size_bytes == 4 * SIZE
    with pytest.raises(KafkaError) as raised:
        log.read(1, 10, end_offset=6)
    assert raised.value.code is ErrorCode.offset_out_of_range


def test_an_old_segment_behind_a_newer_one_stays() -> None:
    log = open_log(MemoryDisk(), one_each(retention_ms=1000))
    for at_ms in (NOW_MS + DAY_MS, NOW_MS, NOW_MS):
        append(log, "x", at_ms=at_ms)
    assert log.apply_retention(NOW_MS + DAY_MS) == 0


def test_when_all_is_old_the_log_goes_on_empty() -> None:
    disk = MemoryDisk()
    log = filled(disk, one_each(retention_ms=0))
    assert log.apply_retention(NOW_MS + 100 * DAY_MS) == 6
    assert (bases(log), log.log_start_offset, log.log_end_offset, log.size_bytes) == ([6], 6, 6, 0)
    assert log.apply_retention(NOW_MS + 200 * DAY_MS) == 0
    assert append(log, "y").base_offset == 6
    log = reopen_clean(disk, log)
    assert (log.log_start_offset, values(log)) == (6, [b"y"])


def test_size_deletes_whole_segments_down_to_the_limit() -> None:
    log = filled(MemoryDisk(), one_each(retention_bytes=3 * SIZE + 1))
    assert log.apply_retention(NOW_MS) == 2
    assert bases(log) == [2, 3, 4, 5]
    log.update_config(one_each(retention_bytes=3 * SIZE))
    assert log.apply_retention(NOW_MS) == 1
    log.update_config(one_each(retention_bytes=0))
    assert log.apply_retention(NOW_MS) == 3
    assert bases(log) == [6]


def test_records_without_a_time_go_by_when_their_file_was_written() -> None:
    disk = MemoryDisk()
    log = open_log(disk, one_each(retention_ms=1000))
    append(log, "x", at_ms=-1)
    append(log, "x", at_ms=-1)
    disk.files[f"{FOLDER}/{0:020d}.log"].modified_ms = NOW_MS
    disk.files[f"{FOLDER}/{1:020d}.log"].modified_ms = NOW_MS + 5000
    assert log.apply_retention(NOW_MS + 1000) == 0
    assert log.apply_retention(NOW_MS + 1001) == 1


@pytest.mark.parametrize("policy", [("compact",), ()])
def test_what_is_not_to_be_deleted_stays(policy: tuple[str, ...]) -> None:
    log = filled(MemoryDisk(), one_each(retention_ms=0, retention_bytes=0), count=3)
    log.update_config(one_each(retention_ms=0, retention_bytes=0, cleanup_policy=policy))
    assert log.apply_retention(NOW_MS + 100 * DAY_MS) == 0
    log.advance_log_start(2)
    assert log.apply_retention(NOW_MS) == 2
    assert bases(log) == [2]


def test_no_limit_keeps_everything() -> None:
    log = filled(MemoryDisk(), one_each(retention_ms=-1))
    assert log.apply_retention(NOW_MS + 10_000 * DAY_MS) == 0


def test_what_is_not_committed_yet_stays() -> None:
    log = filled(MemoryDisk(), one_each(retention_ms=0))
    assert log.apply_retention(NOW_MS + 100 * DAY_MS, high_watermark=2) == 2
    assert log.log_start_offset == 2


def test_deleted_records_are_gone_at_once_and_their_segments_later() -> None:
    disk = MemoryDisk()
    background = Delayed()
    log = filled(disk, one_each(), background=background)
    assert log.advance_log_start(3) is True
    assert log.advance_log_start(2) is False
    assert background.moves == 1
    assert [record.offset for record in read_all(log)] == [3, 4, 5]
    assert len(bases(log)) == 6
    assert log.apply_retention(NOW_MS) == 3
    assert bases(log) == [3, 4, 5]
    with pytest.raises(KafkaError) as raised:
        log.advance_log_start(7)
    assert raised.value.code is ErrorCode.offset_out_of_range
    log.advance_log_start(6)
    assert read_all(log) == []
    # The active segment stays until it rolls.
    assert log.apply_retention(NOW_MS) == 2


def test_the_start_survives_a_restart_within_a_segment() -> None:
    disk = MemoryDisk()
    log = open_log(disk)
    append(log, *"abcdef", epoch=4)
    log.advance_log_start(3)
    log = reopen_clean(disk, log)
    assert log.log_start_offset == 3
    assert [record.offset for record in read_all(log)] == [3, 4, 5]
    assert log.epochs.entries == [(4, 3)]
    log = open_log(disk, log_start_offset=3)
    assert log.log_start_offset == 3


def test_files_are_renamed_and_removed_after_a_delay() -> None:
    disk = MemoryDisk()
    background = Delayed()
    log = filled(disk, one_each(retention_ms=0, file_delete_delay_ms=1234), count=3, background=background)
    for _, work in background.work:
        work()
    background.work.clear()
    held = log.read(0, 10**6, end_offset=3)
    assert held is not None
    before = set(disk.list(FOLDER))
    log.apply_retention(NOW_MS + 5 * 3_600_000, high_watermark=2)
    gone = before - set(disk.list(FOLDER))
    assert gone == {
        f"{offset:020d}{suffix}" for offset in (0, 1) for suffix in (".log", ".index", ".timeindex")
    } | {f"{1:020d}.snapshot"}
    assert {f"{name}.deleted" for name in gone} <= set(disk.list(FOLDER))
    assert held.file.read(held.position, held.size)
    [(delay_ms, remove)] = background.work
    assert delay_ms == 1234
    remove()
    assert not [name for name in disk.list(FOLDER) if name.endswith(".deleted")]
