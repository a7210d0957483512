"""Checkpoint files of many partitions: asked for in pieces, while partitions come and go."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import count
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from log_support import NOW_MS, append, values
from manager_support import TOPIC, WHERE, FakeClock, manager, scenario
from memory_disk import MemoryDisk

from ottla.log import checkpointing
from ottla.log.checkpointing import ASKED_AT_ONCE, MovingOffsets
from ottla.log.checkpoints import decode_offsets
from ottla.log.data_dir import CHECKPOINT_FILES, HIGH_WATERMARKS_FILE
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


class Moving(MovingOffsets):
    """High watermarks that say which have moved, and note who was asked."""

    def __init__(self) -> None:
        self.offsets: dict[TopicPartition, int] = {}
        self.moved: dict[TopicPartition, None] | None = None
        self.asked: list[TopicPartition] = []

    def set(self, where: TopicPartition, offset: int | None) -> None:
        if offset is None:
            self.offsets.pop(where, None)
        else:
            self.offsets[where] = offset
        if self.moved is not None:
            self.moved[where] = None

    def take_moved(self) -> list[TopicPartition] | None:
        moved, self.moved = self.moved, {}
        return None if moved is None else list(moved)

    def __getitem__(self, where: TopicPartition) -> int:
        self.asked.append(where)
        return self.offsets[where]

    def __iter__(self) -> Iterator[TopicPartition]:
        return iter(self.offsets)

    def __len__(self) -> int:
        return len(self.offsets)


def marks_on(disk: MemoryDisk) -> dict[TopicPartition, int]:
    path = "data/replication-offset-checkpoint"
    return decode_offsets(disk.read_file(path)) if disk.exists(path) else {}


@scenario
async def test_only_high_watermarks_that_have_moved_are_asked_again(
    disk: MemoryDisk, clock: FakeClock
) -> None:
    one = manager(disk, clock)
    await one.start()
    one.high_watermarks = known = Moving()
    for where in MANY:
        known.set(where, 7)
    await one.checkpoint()
    assert marks_on(disk) == known.offsets
    known.asked.clear()
    # Nothing has moved: nothing is asked, and nothing written.
    disk.fail_with["write_file"] = OSError(errno.ENOSPC, "No space left on device")
    await one.checkpoint()
    assert not known.asked
    known.set(MANY[5], 8)
    known.set(MANY[6], None)
    known.set(WHERE, 1)
    with pytest.raises(OSError, match="No space"):
        await one.checkpoint()
    assert known.asked == [MANY[5], MANY[6], WHERE]
    # What could not be written is not lost.
    disk.fail_with.clear()
    await one.checkpoint()
    assert marks_on(disk) == known.offsets and known.offsets[MANY[5]] == 8
    # More have moved than are told by their names.
    for where in MANY:
        known.set(where, 9)
    known.moved = None
    await one.checkpoint()
    assert marks_on(disk) == known.offsets


@pytest.mark.parametrize("when", ["before", "meanwhile"])
def test_what_the_last_run_left_is_written_until_it_is_forgotten(when: str) -> None:
    async def test() -> None:
        disk, clock = Cutting(), FakeClock()
        one = manager(disk, clock)
        await one.start()
        one.high_watermarks = known = Moving()
        known.set(MANY[0], 1)
        one._checkpoints.recorded_high_watermarks[WHERE] = 3
        if when == "meanwhile":
            disk.happens = lambda: one._checkpoints.forget(WHERE)
        await one._checkpoints.write(HIGH_WATERMARKS_FILE)
        assert marks_on(disk) == {WHERE: 3, MANY[0]: 1}
        disk.happens = lambda: None
        one._checkpoints.forget(WHERE)
        await one.checkpoint()
        assert marks_on(disk) == {MANY[0]: 1}
        one.abandon()

    asyncio.run(test())


@settings(max_examples=60)
@given(st.data())
def test_the_file_of_high_watermarks_is_what_asking_all_would_make_it(data: st.DataObject) -> None:
    """Whatever moves, comes and goes, is erased or cannot be written, also while it is being written."""
    names = [TopicPartition("t", index) for index in range(4)]

    async def test() -> None:
        disk, clock = Cutting(), FakeClock()
        one = manager(disk, clock)
        await one.start()
        one.high_watermarks = known = Moving()
        # What the last run left of one that has not been opened yet.
        kept = one._checkpoints.recorded_high_watermarks
        kept[TopicPartition("kept", 0)] = 3

        def move() -> None:
            for where in data.draw(st.sets(st.sampled_from(names), max_size=3)):
                known.set(where, data.draw(st.none() | st.integers(0, 5)))

        def erase() -> None:
            where = data.draw(st.sampled_from([*names, *kept]))
            if where in known:
                known.set(where, None)
            one._checkpoints.erase(where)

        def forget() -> None:
            one._checkpoints.forget(TopicPartition("kept", 0))

        for step in data.draw(st.lists(st.sampled_from("wmeafro"), min_size=1, max_size=12)):
            if step == "m":
                move()
            elif step == "e":
                erase()
            elif step == "o":
                forget()
            elif step == "a":
                await one._checkpoints.erase_all([*names, *kept])
            elif step == "r":
                # Another thing happens just before the file is written.
                disk.happens = data.draw(st.sampled_from([move, erase, forget]))
                await one.checkpoint()
                disk.happens = lambda: None
            else:
                if step == "f":
                    disk.fail_with["write_file"] = OSError(errno.EIO, "input/output error")
                with suppress(OSError):
                    await one.checkpoint()
                disk.fail_with.clear()
        await one.checkpoint()
        assert marks_on(disk) == kept | known.offsets
        assert all(map(one._checkpoints.names, marks_on(disk)))
        one.abandon()

    asyncio.run(test())
