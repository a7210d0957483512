"""Checkpoint files of many partitions: asked for in pieces, while partitions come and go."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable
from itertools import count
from typing import Any
from uuid import UUID

import pytest
from log_support import NOW_MS, append, values
from manager_support import TOPIC, WHERE, FakeClock, manager, scenario
from memory_disk import MemoryDisk

from ottla.log import checkpointing
from ottla.log.checkpointing import ASKED_AT_ONCE
from ottla.log.checkpoints import decode_offsets
from ottla.log.data_dir import CHECKPOINT_FILES
from ottla.log.manager import LogManager
from ottla.log.settings import LogConfig
from ottla.types import TopicPartition

MANY = [TopicPartition("many", index) for index in range(3 * ASKED_AT_ONCE)]
NEXT_TOPIC = UUID(int=2)


def open_some(one: LogManager) -> None:
    """A log with ten records, of which one is left, and some more."""
    log = one.get_or_create(WHERE, TOPIC, LogConfig(), NOW_MS)
    append(log, *map(str, range(10)))
    log.advance_log_start(9)
    log.flush()
    for index in range(5):
        one.get_or_create(TopicPartition("other", index), UUID(int=3), LogConfig(), NOW_MS)


class Counted(dict[TopicPartition, int]):
    """High watermarks that count how often they are asked for."""

    asked = 0

    def get(self, key: TopicPartition, default: Any = None) -> Any:
        self.asked += 1
        return super().get(key, default)


@scenario
async def test_others_have_their_turn_while_many_partitions_are_asked(
    disk: MemoryDisk, clock: FakeClock
) -> None:
    one = manager(disk, clock)
    await one.start()
    one.high_watermarks = known = Counted(dict.fromkeys(MANY, 7))
    writing = asyncio.ensure_future(one.checkpoint())
    most = before = 0
    while not writing.done():
        await asyncio.sleep(0)
        before, most = known.asked, max(most, known.asked - before)
    await writing
    assert known.asked == len(MANY)
    assert most == ASKED_AT_ONCE
    written = decode_offsets(disk.read_file("data/replication-offset-checkpoint"))
    assert written == dict.fromkeys(MANY, 7)


@pytest.mark.parametrize("how", ["at once", "in a thread", "erased first"])
def test_a_topic_that_is_made_anew_while_its_name_is_written(
    how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What has been asked of the deleted one does not come to rest over the new one, whenever that is."""
    monkeypatch.setattr(checkpointing, "ASKED_AT_ONCE", 1)

    async def test(turns: int) -> bool:
        disk, clock = MemoryDisk(), FakeClock()
        one = manager(disk, clock)
        await one.start()
        open_some(one)
        writing = asyncio.ensure_future(one.checkpoint())
        for _ in range(turns):
            await asyncio.sleep(0)
        was_over = writing.done()
        one.delete(WHERE)
        if how == "erased first":
            await one.erase([WHERE])
            assert not one.must_erase(WHERE)
        if how != "at once":
            begun = one.new_folders.begin(WHERE, NEXT_TOPIC, LogConfig())
            if begun is not None:
                begun.make()
        append(one.get_or_create(WHERE, NEXT_TOPIC, LogConfig(), NOW_MS), "a", "b")
        await writing
        one.abandon()
        two = manager(disk, clock)
        await two.start()
        log = two.get_or_create(WHERE, NEXT_TOPIC, LogConfig(), NOW_MS)
        assert values(log) == [b"a", b"b"]
        return was_over

    turns = next(turns for turns in count() if asyncio.run(test(turns)))
    assert turns > 20


@scenario
async def test_names_are_erased_in_pieces_and_then_folders_are_made_in_a_thread(
    disk: MemoryDisk, clock: FakeClock
) -> None:
    one = manager(disk, clock)
    await one.start()
    one.high_watermarks = known = Counted(dict.fromkeys(MANY, 7))
    open_some(one)
    await one.checkpoint()
    one.delete(WHERE)
    known.asked = 0
    assert one.must_erase(WHERE) and one.new_folders.begin(WHERE, NEXT_TOPIC, LogConfig()) is None
    erasing = asyncio.ensure_future(one.erase([WHERE, TopicPartition("other", 0), TopicPartition("none", 0)]))
    most = before = 0
    while not erasing.done():
        await asyncio.sleep(0)
        before, most = known.asked, max(most, known.asked - before)
    await erasing
    assert known.asked == len(MANY) and most == ASKED_AT_ONCE
    assert not one.must_erase(WHERE)
    for name in CHECKPOINT_FILES:
        assert f"data/{name}" not in disk.files or WHERE not in decode_offsets(disk.read_file(f"data/{name}"))
    # What there is stays named: it is erased when it is gone.
    one.delete(TopicPartition("other", 0))
    assert one.must_erase(TopicPartition("other", 0))
    assert one.new_folders.begin(WHERE, NEXT_TOPIC, LogConfig()) is not None
    # Nothing is to be done for those that no file speaks of.
    known.asked = 0
    await one.erase([WHERE])
    assert known.asked == 0


@scenario
async def test_names_that_cannot_be_erased_stay_named(disk: MemoryDisk, clock: FakeClock) -> None:
    one = manager(disk, clock)
    await one.start()
    open_some(one)
    await one.checkpoint()
    one.delete(WHERE)
    disk.fail_with["write_file"] = OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(OSError, match="No space"):
        await one.erase([WHERE])
    assert one.must_erase(WHERE)
    disk.fail_with.clear()
    await one.erase([WHERE])
    assert not one.must_erase(WHERE)


@scenario
async def test_an_erasure_that_fails_is_done_before_the_folder_is_made(
    disk: MemoryDisk, clock: FakeClock
) -> None:
    one = manager(disk, clock)
    await one.start()
    old = one.get_or_create(WHERE, TOPIC, LogConfig(), NOW_MS)
    append(old, *map(str, range(10)))
    old.advance_log_start(9)
    await one.checkpoint()
    one.delete(WHERE)
    disk.fail_with["write_file"] = OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(OSError, match="No space"):
        one.get_or_create(WHERE, NEXT_TOPIC, LogConfig(), NOW_MS)
    disk.fail_with.clear()
    append(one.get_or_create(WHERE, NEXT_TOPIC, LogConfig(), NOW_MS), "a", "b")
    one.abandon()
    two = manager(disk, clock)
    await two.start()
    assert values(two.get_or_create(WHERE, NEXT_TOPIC, LogConfig(), NOW_MS)) == [b"a", b"b"]


class Cutting(MemoryDisk):
    """Lets something happen before each piece of work off the event loop."""

    happens: Callable[[], object] = staticmethod(lambda: None)

    async def run(self, work: Callable[[], Any]) -> Any:
        self.happens()
        return work()


def test_a_log_that_is_cut_while_checkpoints_are_written_loses_nothing_that_is_written_later() -> None:
    """The file may vouch for more than the disk has by then; a roll sees to it that nothing rests on that."""

    async def test() -> None:
        disk, clock = Cutting(), FakeClock()
        one = manager(disk, clock)
        await one.start()
        log = one.get_or_create(WHERE, TOPIC, LogConfig(), NOW_MS)
        append(log, *map(str, range(10)))
        log.flush()
        disk.happens = lambda: log.truncate_to(2, NOW_MS)
        await one.checkpoint()
        assert decode_offsets(disk.read_file("data/recovery-point-offset-checkpoint")) == {WHERE: 10}
        for value in "abc":
            append(log, value)
            log.roll(NOW_MS)
        # What rolled was synced although its flush in the background has not run.
        assert log.recovery_point == log.log_end_offset == 3
        one.abandon()

    asyncio.run(test())


@scenario
async def test_files_that_have_nothing_to_say(disk: MemoryDisk, clock: FakeClock) -> None:
    one = manager(disk, clock)
    await one.start()
    one.high_watermarks = {}
    await one.checkpoint()
    assert [name for name in CHECKPOINT_FILES if disk.exists(f"data/{name}")] == [
        "recovery-point-offset-checkpoint",
        "log-start-offset-checkpoint",
    ]
