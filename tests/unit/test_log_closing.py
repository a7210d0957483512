"""The end of all logs of a node: what is synced for it, how often, and that the mark comes last."""

from __future__ import annotations

import asyncio
import errno
from collections import Counter
from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest
from log_support import NOW_MS, append, batch, open_log, reopen_clean, values
from manager_support import TOPIC, FakeClock, manager
from memory_disk import MemoryDisk, MemoryVolume

from ottla.errors import KafkaError
from ottla.log.log import Log
from ottla.log.manager import LogManager
from ottla.log.settings import LogConfig
from ottla.types import TopicPartition

MARK = "data/.kafka_cleanshutdown"
MANY = [TopicPartition("many", index) for index in range(30)]
OURS = UUID(int=7)
EIO = OSError(errno.EIO, "Input/output error")


class Counting(MemoryDisk):
    """Counts operations, and sees to it that the mark of a clean stop comes behind what it stands for."""

    def __init__(self, folders_min: int = 0) -> None:
        super().__init__()
        self.done: Counter[str] = Counter()
        self.folders_min = folders_min

    def fail(self, operation: str, path: str) -> None:
        self.done[operation] += 1
        if operation == "write_file" and path == MARK:
            for name, inode in self.files.items():
                if name.startswith("data/many") and name.endswith((".log", ".snapshot", "-checkpoint")):
                    assert self.durable.get(name) is inode, name
                    assert inode.synced == inode.data, name
        super().fail(operation, path)


def producing(log: Log, sequence: int, *texts: str) -> bool:
    """Append for an idempotent producer; whether it was a repeat."""
    raw = batch(*texts, producer_id=5, producer_epoch=0, base_sequence=sequence)
    return log.append(raw, leader_epoch=0, now_ms=NOW_MS).duplicate


async def started(disk: MemoryDisk) -> LogManager:
    logs = manager(disk, FakeClock())
    await logs.start()
    return logs


def opened(logs: LogManager) -> list[Log]:
    return [logs.get_or_create(where, TOPIC, LogConfig(), NOW_MS) for where in MANY]


async def written(disk: MemoryDisk) -> LogManager:
    logs = await started(disk)
    for log in opened(logs):
        producing(log, 0, "a")
    return logs


async def check_all_there(disk: Counting, *, clean: bool) -> None:
    disk.fail_with.clear()
    assert disk.exists(MARK) is clean
    if clean:
        disk.lose_power()
    disk.reads.clear()
    logs = await started(disk)
    for log in opened(logs):
        assert values(log) == [b"a"]
        assert producing(log, 0, "a"), "the producer is known"
    logs.abandon()


@pytest.mark.parametrize("folders_min", [0, 31, 30, 1])
def test_a_stop_leaves_all_on_the_disk_before_its_mark(folders_min: int) -> None:
    """Also where all is synced at once, which takes as many logs as make it worth while."""

    async def test() -> None:
        disk = Counting(folders_min)
        logs = await written(disk)
        disk.done.clear()
        assert await logs.close()
        at_once = folders_min in (30, 1)
        assert disk.done["sync_volume"] == at_once
        # Of each log: itself, its time index, epochs, producers, the topic's id; and the folder.
        assert disk.done["sync"] == (0 if at_once else 5 * len(MANY))
        assert disk.done["sync_dir"] == (0 if at_once else len(MANY) + 1)
        await check_all_there(disk, clean=True)

    asyncio.run(test())


def test_what_cannot_be_synced_at_once_is_synced_file_by_file() -> None:
    """An error of somebody else's files must not make the stop an unclean one."""

    async def test(fails: bool) -> None:
        disk = Counting(1)
        logs = await written(disk)
        disk.fail_with["sync_volume"] = EIO
        if fails:
            disk.fail_with["sync"], disk.fails_on = EIO, ""
        assert await logs.close() is not fails
        await check_all_there(disk, clean=not fails)

    asyncio.run(test(False))
    asyncio.run(test(True))


def test_a_file_that_cannot_be_written_means_no_mark_though_the_volume_was_synced() -> None:
    async def test() -> None:
        disk = Counting(1)
        logs = await written(disk)
        disk.fail_with["write_file"], disk.fails_on = EIO, "many-7/"
        assert not await logs.close()
        await check_all_there(disk, clean=False)

    asyncio.run(test())


def test_a_log_whose_sync_failed_earlier_means_no_mark() -> None:
    """What was dropped then no later sync brings back."""

    async def test() -> None:
        disk = Counting(1)
        logs = await written(disk)
        log = logs.logs[MANY[3]]
        disk.fail_with["sync"] = EIO
        with pytest.raises(KafkaError, match="flushed"):
            log.flush()
        disk.fail_with.clear()
        assert not await logs.close()
        await check_all_there(disk, clean=False)

    asyncio.run(test())


@pytest.mark.parametrize("why", ["a folder is a link to another volume", "it does not tell what failed"])
def test_where_a_sync_of_all_says_too_little_each_file_is_asked(why: str) -> None:
    async def test(fails: bool) -> None:
        disk = Counting(1)
        if "link" in why:
            disk.elsewhere.add("data/many-3")
        else:
            disk.volume_tells = False
        logs = await written(disk)
        if "link" in why:
            # Of a process that was killed: folders that are made anew have none.
            logs.abandon()
            logs = await started(disk)
            opened(logs)
        disk.done.clear()
        if fails:
            disk.fail_with["sync"], disk.fails_on = EIO, "many-3/"
        assert await logs.close() is not fails
        assert disk.done["sync_volume"] == 1
        assert disk.done["sync"] == (5 * len(MANY) - 4 if fails else 5 * len(MANY))
        await check_all_there(disk, clean=not fails)

    asyncio.run(test(False))
    asyncio.run(test(True))


@pytest.mark.parametrize("folders_min", [0, 1])
def test_what_has_not_changed_since_the_last_stop_is_neither_written_nor_synced(folders_min: int) -> None:
    async def test() -> None:
        disk = Counting(folders_min)
        assert await (await written(disk)).close()
        logs = await started(disk)
        opened(logs)
        disk.done.clear()
        assert await logs.close()
        # The mark alone.
        assert (disk.done["write_file"], disk.done["sync"], disk.done["sync_dir"]) == (1, 0, 0)
        assert not disk.done["sync_volume"]
        await check_all_there(disk, clean=True)

    asyncio.run(test())


def test_a_snapshot_that_went_with_a_truncation_is_written_again() -> None:
    """Of a log that ends where it did at the last stop, with other batches."""
    disk = MemoryDisk()
    log = open_log(disk, topic_id=OURS)
    producing(log, 0, "a")
    producing(log, 1, "b")
    log = reopen_clean(disk, log, topic_id=OURS)
    log.truncate_to(1, NOW_MS)
    producing(log, 1, "c")
    log = reopen_clean(disk, log, topic_id=OURS)
    assert values(log) == [b"a", b"c"]
    assert producing(log, 1, "c")
    assert log.producers.end_offset == 2


def test_a_log_that_was_cut_and_nothing_else_is_synced() -> None:
    """A loss of power after the stop brings nothing back that was cut off."""
    disk = MemoryDisk()
    log = open_log(disk)
    append(log, "a")
    append(log, "b")
    log.flush()
    log.truncate_to(1, NOW_MS)
    assert log.durability.needs_flush
    log.close()
    disk.lose_power()
    again = open_log(disk, clean=True, recovery_point=1)
    assert values(again) == [b"a"]


def test_what_a_process_cut_that_was_killed_is_synced_by_the_next() -> None:
    disk = MemoryDisk()
    log = open_log(disk)
    append(log, "a")
    append(log, "b")
    log.flush()
    log.truncate_to(1, NOW_MS)
    log.abandon()
    log = open_log(disk, recovery_point=1)
    assert log.recovery_point == log.log_end_offset == 1
    log.close()
    disk.lose_power()
    assert values(open_log(disk, clean=True, recovery_point=1)) == [b"a"]


@pytest.mark.parametrize("made_here", [True, False])
def test_links_are_looked_for_where_another_process_made_the_folder(made_here: bool) -> None:
    asked = []

    class Asking(MemoryVolume):
        def holds(self, folder: str) -> bool:
            asked.append(folder)
            return super().holds(folder)

    class WithVolume(MemoryDisk):
        def open_volume(self, path: str) -> MemoryVolume:
            return Asking(self, 1)

    async def test() -> None:
        disk = WithVolume()
        logs = await written(disk)
        if not made_here:
            logs.abandon()
            logs = await started(disk)
            opened(logs)
        assert await logs.close()

    asyncio.run(test())
    assert len(asked) == (0 if made_here else len(MANY))


class Late(MemoryDisk):
    """Has something appended when all has just been synced."""

    late: Callable[[], object] | None = None

    async def run(self, work: Callable[[], Any]) -> Any:
        result = work()
        if getattr(work, "__name__", "") == "sync" and self.late is not None:
            self.late()
        return result


def test_what_comes_after_all_was_written_out_is_not_taken_for_synced() -> None:
    async def test() -> None:
        disk = Late()
        disk.folders_min = 1
        logs = await written(disk)
        log = logs.logs[MANY[3]]
        disk.late = lambda: append(log, "late")
        assert await logs.close()
        disk.lose_power()
        logs = await started(disk)
        assert values(opened(logs)[3]) == [b"a", b"late"]

    asyncio.run(test())


def test_index_files_that_are_written_anew_are_there_after_a_loss_of_power() -> None:
    """An append that fails has them removed, and all else is as it was."""
    disk = MemoryDisk()
    log = open_log(disk)
    append(log, "a")
    log = reopen_clean(disk, log)
    disk.fail_with["append"] = EIO
    with pytest.raises(KafkaError):
        append(log, "b")
    disk.fail_with.clear()
    path = log.segments[0].path(".timeindex")
    log.flush()
    assert path not in disk.durable
    log.close()
    disk.lose_power()
    assert disk.files[path].data
