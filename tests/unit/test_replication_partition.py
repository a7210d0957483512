"""A partition beside its log: group commit, who is woken, whom it refuses, and where its epochs end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from log_support import NOW_MS, open_log
from memory_disk import MemoryDisk
from replication_support import Surroundings, make_partition, topic_id_of

from measuring import HANG_S
from ottla.errors import ErrorCode, KafkaError
from ottla.log.settings import LogConfig
from ottla.metadata.image import PartitionState
from ottla.replication.moved_marks import NAMED_MAX, MovedMarks
from ottla.replication.partition import Partition
from ottla.types import Record, TopicPartition
from ottla.wire.records import build_batch


class SlowDisk(MemoryDisk):
    """Its ``run`` waits until the test lets the work be done, one piece at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.runs = 0
        self.allowed = asyncio.Semaphore(0)

    async def run(self, work: Callable[[], Any]) -> Any:
        await self.allowed.acquire()
        self.runs += 1
        return work()


def state(leader: int = 1, epoch: int = 0, isr: tuple[int, ...] = (1,)) -> PartitionState:
    return PartitionState(leader=leader, leader_epoch=epoch, partition_epoch=0, replicas=(1,), isr=isr)


def partition(
    disk: MemoryDisk, where: PartitionState | None = None, config: LogConfig | None = None
) -> Partition:
    return make_partition(disk, where or state(), config)


def append(to: Partition, value: bytes = b"v", acks: int = 1) -> int:
    batch = build_batch([Record(0, NOW_MS, None, value)])
    return to.append(batch, now_ms=NOW_MS, acks=acks).base_offset


def on_loop(body: Callable[[SlowDisk, Partition], Coroutine[Any, Any, None]]) -> None:
    async def main() -> None:
        disk = SlowDisk()
        await asyncio.wait_for(body(disk, partition(disk)), HANG_S)

    asyncio.run(main())


def test_all_who_ask_while_a_flush_runs_share_the_next() -> None:
    async def body(disk: SlowDisk, it: Partition) -> None:
        append(it)
        first = it.flushed()
        assert it.flushed() is first
        await asyncio.sleep(0)
        append(it)
        second = it.flushed()
        append(it)
        assert it.flushed() is second and second is not first
        disk.allowed.release()
        await first
        assert it.log.recovery_point == 3 and not second.done()
        disk.allowed.release()
        await second
        assert disk.runs == 2
        # And it can be had again.
        append(it)
        disk.allowed.release()
        await it.flushed()
        assert disk.runs == 3 and it.log.recovery_point == 4

    on_loop(body)


def test_a_flush_that_fails_fails_for_all_who_wait_and_for_those_behind_them() -> None:
    async def body(disk: SlowDisk, it: Partition) -> None:
        append(it)
        first = it.flushed()
        await asyncio.sleep(0)
        append(it)
        second = it.flushed()
        disk.fail_with["sync"] = OSError(5, "Input/output error")
        disk.allowed.release()
        for one in (first, second):
            with pytest.raises(KafkaError) as raised:
                await one
            assert raised.value.code == ErrorCode.kafka_storage_error
            # What could not be written is not on the disk because the next sync finds nothing to complain of.
            disk.fail_with.clear()
            disk.allowed.release()

    on_loop(body)


def test_one_who_gives_up_does_not_stop_the_flushes_of_the_others() -> None:
    async def body(disk: SlowDisk, it: Partition) -> None:
        append(it)
        it.flushed().cancel()
        disk.allowed.release()
        await asyncio.sleep(0.01)
        append(it)
        disk.allowed.release()
        await it.flushed()
        assert it.log.recovery_point == 2

    on_loop(body)


def test_waiters_are_woken_by_appends_until_they_leave_even_while_they_are_woken() -> None:
    it = partition(MemoryDisk())
    woken: list[str] = []

    def once() -> None:
        woken.append("once")
        it.remove_waiter(once)
        it.remove_waiter(once)

    it.add_waiter(once)
    it.add_waiter(always := lambda: woken.append("always"))
    append(it)
    append(it)
    assert sorted(woken) == ["always", "always", "once"]
    it.remove_waiter(always)
    append(it)
    assert len(woken) == 3


def test_who_does_not_lead_takes_nothing() -> None:
    it = partition(MemoryDisk(), state(leader=2))
    for refused in (lambda: append(it), it.check_leader):
        with pytest.raises(KafkaError) as raised:
            refused()
        assert raised.value.code == ErrorCode.not_leader_or_follower


def test_too_few_replicas_in_sync_stop_only_who_asks_for_all() -> None:
    few = PartitionState(leader=1, leader_epoch=0, partition_epoch=0, replicas=(1, 2), isr=(1,))
    it = partition(MemoryDisk(), few, LogConfig(min_insync_replicas=2))
    assert append(it, acks=1) == 0
    with pytest.raises(KafkaError) as raised:
        append(it, acks=-1)
    assert raised.value.code == ErrorCode.not_enough_replicas and it.high_watermark == 0


def test_no_more_replicas_are_asked_for_than_there_are() -> None:
    it = partition(MemoryDisk(), config=LogConfig(min_insync_replicas=2))
    assert append(it, acks=-1) == 0 and it.high_watermark == 1


@pytest.mark.parametrize(
    ("epoch", "code"), [(-1, None), (5, None), (4, "fenced_leader_epoch"), (6, "unknown_leader_epoch")]
)
def test_a_client_of_another_epoch_is_refused(epoch: int, code: str | None) -> None:
    it = partition(MemoryDisk(), state(epoch=5))
    if code is None:
        it.check_leader(epoch)
        return
    with pytest.raises(KafkaError) as raised:
        it.check_leader(epoch)
    assert raised.value.code.name == code


def test_a_leaders_own_epoch_ends_where_its_log_does_before_its_first_record() -> None:
    """Kafka notes the epoch when it becomes the leader; -1 would make a consumer reset its position."""
    it = partition(MemoryDisk(), state(epoch=0))
    assert it.epoch_end_offset(0) == (0, 0) and it.epoch_end_offset(1) == (-1, -1)
    append(it)
    append(it)
    assert it.epoch_end_offset(0) == (0, 2)
    it.state = state(epoch=5)
    assert [it.epoch_end_offset(epoch) for epoch in (0, 3, 5, 6)] == [(0, 2), (0, 2), (5, 2), (-1, -1)]
    append(it)
    assert [it.epoch_end_offset(epoch) for epoch in (0, 3, 5, 6)] == [(0, 2), (0, 2), (5, 3), (-1, -1)]
    assert it.epoch_end_offset(-1) == (-1, -1)


def test_a_partition_says_once_in_a_round_that_its_high_watermark_has_moved() -> None:
    marks = MovedMarks()
    disk = MemoryDisk()
    one = Partition(
        TopicPartition("t", 0),
        topic_id_of("t"),
        state(),
        open_log(disk, LogConfig()),
        node_id=1,
        disk=disk,
        cluster=Surroundings(),
        moved_marks=marks,
    )
    one.apply(state())
    # It is new; then nothing moves.
    assert marks.take() == [one.topic_partition] and marks.take() == []
    append(one), append(one)
    assert marks.take() == [one.topic_partition] and marks.take() == []
    one.truncate_to(0, NOW_MS)
    assert marks.take() == [one.topic_partition]
    one.remove()
    assert marks.take() == [one.topic_partition]


def test_where_many_high_watermarks_have_moved_all_are_asked() -> None:
    marks = MovedMarks()
    names = [TopicPartition("t", index) for index in range(NAMED_MAX + 1)]
    rounds = [marks.note(name, 0) for name in names[:-1]]
    assert marks.take() == names[:-1]
    for name, noted_in in zip(names, [*rounds, 0], strict=True):
        marks.note(name, noted_in)
    assert marks.take() is None and marks.take() == []
