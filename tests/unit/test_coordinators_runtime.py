"""The shell: order and failures of appends, fail-over, timers, time-outs."""

from __future__ import annotations

import asyncio
import itertools
import struct
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import Any

import pytest
from coordinators_support import ManualClock, MemoryLog, durable, protocols, settle
from hypothesis import given
from hypothesis import strategies as st

from ottla.coordinators.groups import group_machine, removal
from ottla.coordinators.groups.coordinator import GroupCoordinator
from ottla.coordinators.groups.requests import (
    CommitRequest,
    JoinRequest,
    JoinResponse,
    LeavingMember,
    PartitionErrors,
    SyncRequest,
    TopicToCommit,
)
from ottla.coordinators.groups.schemas import (
    CommittedOffset,
    GroupMetadata,
    GroupRecord,
    MemberMetadata,
    OffsetRecord,
    encode_record,
)
from ottla.coordinators.groups.settings import GroupConfig
from ottla.coordinators.groups.step import Step
from ottla.coordinators.runtime import shard as shard_module
from ottla.coordinators.runtime.hashing import java_hash, partition_of
from ottla.coordinators.runtime.pieces import PIECE
from ottla.coordinators.runtime.shard import REPLIES_PER_TURN
from ottla.coordinators.runtime.writes import COMMITTED_PER_TURN, EXPIRED_AT_ONCE_MAX, Ended
from ottla.env.deadlines import TICK_MS
from ottla.env.deferred import Deferred
from ottla.errors import ErrorCode, KafkaError
from ottla.types import Record
from ottla.wire.commits import OffsetToCommit
from ottla.wire.primitives import UUID_ZERO
from ottla.wire.records import BatchBuilder, build_batch, iter_batches, iter_records


class Node:
    def __init__(
        self, log: MemoryLog | None = None, clock: ManualClock | None = None, **settings: Any
    ) -> None:
        self.log = log or MemoryLog()
        self.clock = clock or ManualClock()
        self.groups = GroupCoordinator(self.log, self.clock, GroupConfig(**settings), new_id=lambda: "x")

    async def start(self, partition: int = 0) -> Node:
        await self.groups.load(partition, 0)
        return self

    @property
    def machine(self) -> Any:
        return self.groups.host.shards[0].machine

    async def stable(self, member_id: str = "m1", group_id: str = "g") -> int:
        join = asyncio.ensure_future(self.groups.join(join_request(group_id, new_id=member_id)))
        await self.clock.advance(3_000)
        generation = (await join).generation_id
        await self.groups.sync(sync_request(member_id, generation, {member_id: b"a"}, group_id))
        return generation

    async def other(self) -> Node:
        """Another node that takes over the log."""
        return await Node(self.log, self.clock).start()


def join_request(group_id: str = "g", member_id: str = "", new_id: str = "m1", **fields: Any) -> JoinRequest:
    return JoinRequest(
        group_id=group_id,
        member_id=member_id,
        new_member_id=new_id,
        group_instance_id=None,
        client_id="c",
        client_host="/h",
        protocol_type="consumer",
        protocols=protocols("range"),
        session_timeout_ms=fields.get("session_ms", 10_000),
        rebalance_timeout_ms=60_000,
        requires_known_member_id=False,
        supports_skipping_assignment=True,
    )


def sync_request(
    member_id: str, generation: int, assignments: dict[str, bytes], group_id: str = "g"
) -> SyncRequest:
    return SyncRequest(group_id, generation, member_id, None, None, None, assignments)


def commit_request(
    offset: int = 1, *, group_id: str = "g", partition: int = 0, **fields: Any
) -> CommitRequest:
    commits = [TopicToCommit("t", UUID_ZERO, [OffsetToCommit(partition, offset, -1, "")])]
    return CommitRequest(
        group_id, fields.get("generation", -1), fields.get("member_id", ""), None, -1, True, commits
    )


def run(story: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(story())


async def error_of(answer: Awaitable[PartitionErrors]) -> str:
    with pytest.raises(KafkaError) as caught:
        await answer
    return caught.value.code.name


def offset_records(log: MemoryLog) -> list[tuple[bytes | None, bytes | None]]:
    return [(r.key, r.value) for batch in log.batches[0] for r in iter_records(batch)]


# Where groups live


@given(st.text(max_size=10), st.integers(0, 200))
def test_a_hash_is_javas_however_long_the_name(text: str, times: int) -> None:
    name = text * times
    value = 0
    for unit in struct.unpack(f"<{len(name.encode('utf-16-le')) // 2}H", name.encode("utf-16-le")):
        value = (31 * value + unit) % 2**32
    assert java_hash(name) == (value - 2**32 if value >= 2**31 else value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", 0),
        ("a", 97),
        ("hello", 99162322),
        ("Hello World", -862545276),
        ("polygenelubricants", -(2**31)),
        ("é", 233),
        ("😀", 1772899),
    ],
)
def test_hashes_are_javas(text: str, expected: int) -> None:
    assert java_hash(text) == expected


def test_the_most_negative_hash_is_partition_zero() -> None:
    assert partition_of("polygenelubricants", 50) == 0
    assert partition_of("hello", 50) == 99162322 % 50


def test_groups_of_other_nodes() -> None:
    async def story() -> None:
        node = Node(MemoryLog(partition_count=2))
        await node.start(0)
        here, there = "b", "a"
        assert node.groups.partition_for(there) == 1
        assert await node.groups.commit(commit_request(group_id=here)) == [("t", [(0, 0)])]
        assert await error_of(node.groups.commit(commit_request(group_id=there))) == "not_coordinator"
        assert (await node.groups.join(join_request(there))).error == ErrorCode.not_coordinator
        assert (await node.groups.sync(sync_request("m", 1, {}, there))).error == ErrorCode.not_coordinator
        assert (await node.groups.leave(there, (LeavingMember("m"),))).error == ErrorCode.not_coordinator
        assert node.groups.heartbeat(there, "m", None, 1) == ErrorCode.not_coordinator
        assert node.groups.describe(there).error == ErrorCode.not_coordinator
        assert (await node.groups.delete_group(there)).error == ErrorCode.not_coordinator
        assert (await node.groups.delete_offsets(there, [])).error == ErrorCode.not_coordinator
        with pytest.raises(KafkaError):
            list(node.groups.fetch(there, None, require_stable=False))
        assert [each.group_id for each in list(node.groups.list_groups((), ()))] == [here]

    run(story)


def test_requests_that_need_no_group_to_be_refused() -> None:
    async def story() -> None:
        node = await Node().start()
        groups = node.groups
        assert (await groups.join(join_request(""))).error == ErrorCode.invalid_group_id
        assert (await groups.sync(sync_request("m", 1, {}, ""))).error == ErrorCode.invalid_group_id
        assert (await groups.leave("", ())).error == ErrorCode.invalid_group_id
        assert groups.heartbeat("", "m", None, 1) == ErrorCode.invalid_group_id
        assert (await groups.delete_offsets("", [])).error == ErrorCode.invalid_group_id
        for session_ms in (5_999, 1_800_001):
            response = await groups.join(join_request(session_ms=session_ms))
            assert response.error == ErrorCode.invalid_session_timeout

    run(story)


# Appending


def test_about_one_moment_share_a_batch_and_keep_their_order() -> None:
    async def story() -> None:
        node = await Node().start()
        commits = [node.groups.commit(commit_request(i, partition=i % 3)) for i in range(9)]
        await asyncio.gather(*commits)
        assert len(node.log.batches[0]) == 1
        (header, _), *_ = iter_batches(node.log.batches[0][0])
        assert header.record_count == 9
        assert header.base_timestamp_ms == node.clock.now_ms()
        (topic,) = list(node.groups.fetch("g", None, require_stable=False))
        assert [each.offset for each in topic.partitions] == [6, 7, 8]

    run(story)


def test_large_writes_go_in_several_batches() -> None:
    async def story() -> None:
        node = await Node(offset_metadata_max_bytes=30_000).start()
        long = "x" * 30_000
        partitions = [OffsetToCommit(index, 1, -1, long) for index in range(10)]
        commits = [TopicToCommit("t", UUID_ZERO, partitions)] * 4
        requests = [CommitRequest(f"g{i}", -1, "", None, -1, True, [commits[i]]) for i in range(4)]
        await asyncio.gather(*map(node.groups.commit, requests))
        assert [len(list(iter_records(batch))) for batch in node.log.batches[0]] == [10, 10, 10, 10]

    run(story)


@pytest.mark.parametrize("max_message_bytes", [20_000, 1_048_588])
def test_a_group_with_very_many_offsets_is_deleted_in_batches_that_the_log_takes(
    max_message_bytes: int,
) -> None:
    async def story() -> None:
        node = await Node().start()
        count = 30_000
        offsets = [OffsetToCommit(i, i, -1, "") for i in range(count)]
        for start in range(0, count, 5_000):
            topic = TopicToCommit("a-topic-with-a-longish-name", UUID_ZERO, offsets[start : start + 5_000])
            await node.groups.commit(CommitRequest("g", -1, "", None, -1, True, [topic]))
        before = len(node.log.batches[0])
        node.log.max_message_bytes = max_message_bytes
        assert (await node.groups.delete_group("g")).error is ErrorCode.none
        batches = node.log.batches[0][before:]
        assert len(batches) > 1
        records = [record for batch in batches for record in iter_records(batch)]
        assert len(records) == count + 1 and {record.value for record in records} == {None}
        assert durable((await node.other()).machine) == durable(node.machine) == ({}, {})

    run(story)


def test_a_group_of_which_a_part_could_not_be_deleted_is_deleted_again() -> None:
    async def story() -> None:
        class OnceFull(MemoryLog):
            left = 10**6

            def append(self, partition: int, batch: bytes, ended: Ended, guard: object | None = None) -> bool:
                self.left -= 1
                if self.left == 0:
                    raise KafkaError(ErrorCode.kafka_storage_error)
                return super().append(partition, batch, ended, guard)

        log = OnceFull()
        node = await Node(log).start()
        offsets = [OffsetToCommit(i, i, -1, "") for i in range(5_000)]
        topic = TopicToCommit("t", UUID_ZERO, offsets)
        await node.groups.commit(CommitRequest("g", -1, "", None, -1, True, [topic]))
        log.max_message_bytes, log.left = 30_000, 2
        assert (await node.groups.delete_group("g")).error is ErrorCode.not_coordinator
        assert 0 < len(node.machine.tables.offsets.by_group["g"]["t"]) < 5_000
        assert durable((await node.other()).machine) == durable(node.machine)
        assert (await node.groups.delete_group("g")).error is ErrorCode.none
        assert durable((await node.other()).machine) == durable(node.machine) == ({}, {})

    run(story)


def test_an_append_does_not_wait_for_the_one_before_but_answers_are_in_order() -> None:
    async def story() -> None:
        node = await Node().start()
        node.log.held = True
        answered: list[int] = []

        async def commit(offset: int) -> None:
            await node.groups.commit(commit_request(offset))
            answered.append(offset)

        tasks = []
        for offset in (1, 2):
            tasks.append(asyncio.ensure_future(commit(offset)))
            await settle()
        assert len(node.log.batches[0]) == 2
        first, second = node.log.waiting
        second(None)
        await settle()
        assert answered == []
        first(None)
        await asyncio.gather(*tasks)
        assert answered == [1, 2]

    run(story)


def test_a_commit_takes_one_turn_of_the_loop_and_no_task(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        node = await Node().start()
        made: list[object] = []
        with monkeypatch.context() as patched:
            patched.setattr(asyncio.get_running_loop(), "create_task", made.append)
            answers = [node.groups.commit(commit_request(offset)) for offset in (1, 2, 3)]
            assert node.log.batches[0] == [] and not any(answer.done for answer in answers)
            await asyncio.sleep(0)
        assert all(answer.done for answer in answers) and made == []
        assert len(node.log.batches[0]) == 1

    run(story)


def test_what_is_asked_for_with_an_answer_comes_behind_what_was_asked_before() -> None:
    """As from a client that pipelines: its next request is handled while others are still to be answered."""

    async def story() -> None:
        node = await Node().start()
        answered: list[int] = []

        def again(done: Deferred[PartitionErrors]) -> None:
            answered.append(1)
            node.groups.commit(commit_request(3)).listen(lambda done: answered.append(3))

        node.groups.commit(commit_request(1)).listen(again)
        node.groups.commit(commit_request(2)).listen(lambda done: answered.append(2))
        await settle()
        assert answered == [1, 2, 3]
        assert [len(list(iter_records(batch))) for batch in node.log.batches[0]] == [2, 1]
        (topic,) = node.groups.fetch("g", None, require_stable=False)
        assert topic.partitions[0].offset == 3
        assert durable((await node.other()).machine) == durable(node.machine)

    run(story)


def test_a_client_that_cannot_be_answered_keeps_nobody_else(caplog: pytest.LogCaptureFixture) -> None:
    async def story() -> None:
        node = await Node().start()

        def fails(done: Deferred[PartitionErrors]) -> None:
            raise RuntimeError("a bug")

        node.groups.commit(commit_request(1)).listen(fails)
        assert await node.groups.commit(commit_request(2)) == [("t", [(0, 0)])]
        assert "a bug" in caplog.text

    run(story)


def test_answers_that_take_long_are_given_in_several_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        node = await Node().start()
        told: list[int] = []

        def slow(done: Deferred[PartitionErrors]) -> None:
            told.append(node.clock.ms)
            node.clock.ms += shard_module.REPLIES_MS

        for offset in range(5):
            node.groups.commit(commit_request(offset)).listen(slow)
        counts = []
        for _ in range(8):
            counts.append(len(told))
            await asyncio.sleep(0)
        assert counts[-1] == 5 and max(b - a for a, b in itertools.pairwise(counts)) == 1

    run(story)


def test_a_slow_append_does_not_keep_others_from_heartbeats() -> None:
    async def story() -> None:
        node = await Node().start()
        generation = await node.stable()
        node.log.held = True
        slow = asyncio.ensure_future(node.groups.commit(commit_request(group_id="slow")))
        await settle()
        assert node.groups.heartbeat("g", "m1", None, generation) == ErrorCode.none
        assert list(node.groups.fetch("g", None, require_stable=False)) == []
        assert not slow.done()
        node.log.release()
        await slow

    run(story)


def test_a_failed_append_changes_nothing_and_later_ones_go_on() -> None:
    async def story() -> None:
        node = await Node().start()
        await node.groups.commit(commit_request(1))
        node.log.error = KafkaError(ErrorCode.kafka_storage_error, "the disk is full")
        assert await error_of(node.groups.commit(commit_request(2))) == "not_coordinator"
        node.log.error = None
        (topic,) = list(node.groups.fetch("g", None, require_stable=False))
        assert topic.partitions[0].offset == 1
        await node.groups.commit(commit_request(3))
        assert durable((await node.other()).machine) == durable(node.machine)

    run(story)


def test_a_batch_that_cannot_be_made_fails_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is wrong with it: the writes behind it are told in order, and so are their clients."""

    async def story() -> None:
        node = await Node().start()

        def broken(builder: BatchBuilder, **how: Any) -> bytes:
            raise MemoryError

        monkeypatch.setattr(BatchBuilder, "seal", broken)
        failing = asyncio.ensure_future(error_of(node.groups.commit(commit_request(1))))
        await settle()
        monkeypatch.undo()
        later = asyncio.ensure_future(node.groups.commit(commit_request(2)))
        await settle()
        assert failing.done() and await failing == "unknown_server_error"
        assert later.done() and later.result()
        assert node.groups.fetch("g", None, require_stable=False)[0].partitions[0].offset == 2

    run(story)


def test_a_commit_that_takes_too_long_is_answered_and_still_counts_when_it_is_done() -> None:
    async def story() -> None:
        node = await Node(offsets_commit_timeout_ms=5_000).start()
        node.log.held = True
        commit = asyncio.ensure_future(node.groups.commit(commit_request(7)))
        await node.clock.advance(4_999)
        assert not commit.done()
        await node.clock.advance(1 + TICK_MS)
        assert await error_of(commit) == "coordinator_not_available"
        node.log.release()
        await settle()
        (topic,) = list(node.groups.fetch("g", None, require_stable=False))
        assert topic.partitions[0].offset == 7

    run(story)


@pytest.mark.parametrize("fails", [True, False])
def test_who_is_behind_a_batch_that_comes_to_no_end_does_not_wait_longer(fails: bool) -> None:
    """As where followers are gone: what is written waits for them, and what comes behind it is refused. The
    machine hears of that only in the log's order."""

    async def story() -> None:
        node = await Node(offsets_commit_timeout_ms=5_000).start()
        node.log.held = True
        first = node.groups.commit(commit_request(1))
        await settle()
        if fails:
            node.log.error = KafkaError(ErrorCode.not_enough_replicas)
        else:
            node.log.held = False
        behind = node.groups.commit(commit_request(2))
        await settle()
        assert not first.done and not behind.done
        await node.clock.advance(5_000 + TICK_MS)
        assert isinstance(behind.error, KafkaError)
        assert behind.error.code is ErrorCode.coordinator_not_available
        node.log.error = None
        node.log.release()
        await settle()
        assert node.groups.fetch("g", None, require_stable=False)[0].partitions[0].offset == 2 - fails
        assert durable((await node.other()).machine) == durable(node.machine)

    run(story)


def test_one_who_cannot_be_told_that_it_takes_too_long_keeps_nobody_else(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def story() -> None:
        node = await Node(offsets_commit_timeout_ms=5_000).start()
        node.log.held = True

        def fails(done: Deferred[PartitionErrors]) -> None:
            raise RuntimeError("a bug")

        node.groups.commit(commit_request(1)).listen(fails)
        other = node.groups.commit(commit_request(2))
        await settle()
        await node.clock.advance(5_000 + TICK_MS)
        assert other.done and "a bug" in caplog.text

    run(story)


def test_commits_that_take_too_long_are_answered_some_at_a_time() -> None:
    async def story() -> None:
        node = await Node(offsets_commit_timeout_ms=5_000).start()
        node.log.held = True
        answers = [node.groups.commit(commit_request(i)) for i in range(2 * EXPIRED_AT_ONCE_MAX + 1)]
        await settle()
        node.clock.ms += 5_000
        for expired in (1, 2, 3):
            node.clock.ms += TICK_MS
            due = min(node.clock.timers, key=lambda timer: timer.at_ms)
            node.clock.timers.remove(due)
            due.callback()
            assert sum(answer.done for answer in answers) == min(expired * EXPIRED_AT_ONCE_MAX, len(answers))
        assert {type(answer.error) for answer in answers} == {KafkaError}
        node.log.release()
        assert node.groups.fetch("g", None, require_stable=False)[0].partitions[0].offset == len(answers) - 1

    run(story)


def test_a_commit_behind_one_that_is_being_packed_is_not_waited_for_longer_than_others() -> None:
    async def story() -> None:
        node = await Node().start()
        shard = node.groups.host.shards[0]
        metadata = GroupMetadata("consumer", 1, "range", "m", 0, (MEMBER,) * (PIECE + 1))
        step = shard.step()
        step.write((GroupRecord("large", metadata),), lambda step: None, lambda code, step: None)
        shard.finish(step)
        behind = node.groups.commit(commit_request())
        node.clock.ms += node.groups.config.offsets_commit_timeout_ms + TICK_MS
        for timer in [each for each in node.clock.timers if each.at_ms <= node.clock.ms]:
            node.clock.timers.remove(timer)
            timer.callback()
        assert isinstance(behind.error, KafkaError)
        await settle()
        assert [len(list(iter_records(batch))) for batch in node.log.batches[0]] == [1, 1]

    run(story)


def test_a_record_that_cannot_be_stored_fails_alone() -> None:
    async def story() -> None:
        node = await Node().start()
        too_long = node.groups.commit(commit_request(group_id="x" * 40_000))
        results = await asyncio.gather(node.groups.commit(commit_request()), too_long, return_exceptions=True)
        assert results[0] == [("t", [(0, 0)])]
        assert isinstance(results[1], KafkaError)
        assert results[1].code == ErrorCode.unknown_server_error
        assert len(offset_records(node.log)) == 1

    run(story)


def test_a_client_that_went_away_is_not_missed() -> None:
    async def story() -> None:
        node = await Node().start()
        join = asyncio.ensure_future(node.groups.join(join_request()))
        await settle()
        join.cancel()
        await node.clock.advance(3_000)
        assert node.groups.describe("g").state == "CompletingRebalance"
        await node.clock.advance(10_000)
        assert node.groups.describe("g").state == "Empty"

    run(story)


# Fail-over


def test_another_node_takes_over() -> None:
    async def story() -> None:
        node = await Node().start()
        generation = await node.stable()
        await node.groups.commit(commit_request(5, member_id="m1", generation=generation))
        other = await node.other()
        assert durable(other.machine) == durable(node.machine)
        assert other.groups.heartbeat("g", "m1", None, generation) == ErrorCode.none
        response = await other.groups.sync(sync_request("m1", generation, {}))
        assert response.assignment == b"a"
        await other.clock.advance(10_000)
        assert other.groups.describe("g").state == "Empty"

    run(story)


def test_while_loading_groups_are_not_served_but_heartbeats_are_good() -> None:
    async def story() -> None:
        gate = asyncio.Event()

        class SlowLog(MemoryLog):
            async def read_all(self, partition: int) -> Any:
                await gate.wait()
                yield build_batch([Record(0, 0, *encode_record(RECORD))])

        node = Node(SlowLog())
        load = asyncio.ensure_future(node.groups.load(0, 0))
        await settle()
        assert (await node.groups.join(join_request())).error == ErrorCode.coordinator_load_in_progress
        assert await error_of(node.groups.commit(commit_request())) == "coordinator_load_in_progress"
        assert node.groups.heartbeat("g", "m", None, 1) == ErrorCode.none
        with pytest.raises(KafkaError, match="coordinator_load_in_progress"):
            list(node.groups.list_groups((), ()))
        ready = asyncio.ensure_future(node.groups.ready("g"))
        await settle()
        assert not ready.done()
        gate.set()
        await asyncio.gather(load, ready)
        assert [each.group_id for each in list(node.groups.list_groups((), ()))] == ["g"]

    run(story)


MEMBER = MemberMetadata("m", None, "c", "/h", 1, 1, b"", b"")
RECORD = OffsetRecord("g", "t", 0, CommittedOffset(5, -1, "", 0))


def test_losing_the_partition_answers_all_who_wait() -> None:
    async def story() -> None:
        node = await Node().start()
        node.log.held = True
        join = asyncio.ensure_future(node.groups.join(join_request()))
        commit = asyncio.ensure_future(node.groups.commit(commit_request(group_id="other")))
        await settle()
        node.groups.unload(0, 1)
        assert (await join).error == ErrorCode.not_coordinator
        assert await error_of(commit) == "not_coordinator"
        node.log.release()
        await settle()
        assert (await node.groups.join(join_request())).error == ErrorCode.not_coordinator
        # Nothing is left to wake for, once the next look for expired offsets finds no groups.
        await node.clock.advance(node.groups.config.offsets_retention_check_interval_ms)
        assert node.clock.timers == []

    run(story)


def test_older_epochs_change_nothing() -> None:
    async def story() -> None:
        node = await Node().start()
        await node.groups.load(0, 5)
        await node.groups.commit(commit_request())
        node.groups.unload(0, 4)
        await node.groups.load(0, 3)
        assert len(list(node.groups.list_groups((), ()))) == 1
        node.groups.unload(0, 5)
        assert list(node.groups.list_groups((), ())) == []

    run(story)


def test_a_load_that_fails_can_be_tried_again() -> None:
    async def story() -> None:
        class BadLog(MemoryLog):
            async def read_all(self, partition: int) -> Any:
                raise KafkaError(ErrorCode.kafka_storage_error)
                yield b""

        node = Node(BadLog())
        with pytest.raises(KafkaError):
            await node.groups.load(0, 0)
        assert await error_of(node.groups.commit(commit_request())) == "not_coordinator"
        node.groups.host._log = MemoryLog()
        await node.groups.load(0, 0)
        await node.groups.commit(commit_request())

    run(story)


def test_what_is_not_ours_in_the_log_is_passed_over_with_one_line(caplog: pytest.LogCaptureFixture) -> None:
    async def story() -> None:
        log = MemoryLog()
        good = encode_record(RECORD)
        strange = [(b"\x00\x03\x00\x01g", b"\x00\x00"), (b"\x00\x03\x00\x01h", None), (b"\x00\x01\x00", b"")]
        log.batches[0] = [build_batch([Record(0, 0, *pair) for pair in [*strange, good]])]
        node = await Node(log).start()
        assert [each.group_id for each in list(node.groups.list_groups((), ()))] == ["g"]

    run(story)
    lines = [record.getMessage() for record in caplog.records if record.levelname in ("WARNING", "ERROR")]
    assert len(lines) == 2
    assert "passed over the record of key" in lines[0]
    assert "passed over 2 keys of version 3" in lines[1]


@pytest.mark.parametrize(("marker", "offset"), [(1, 5), (0, -1)])
def test_transactions_in_the_log(marker: int, offset: int) -> None:
    async def story() -> None:
        log = MemoryLog()
        pair = encode_record(RECORD)
        key = b"\x00\x00" + marker.to_bytes(2)
        log.batches[0] = [
            build_batch([Record(0, 0, *pair)], producer_id=9, producer_epoch=0, transactional=True),
            build_batch(
                [Record(0, 0, key, bytes(6))],
                producer_id=9,
                producer_epoch=0,
                transactional=True,
                control=True,
            ),
        ]
        node = await Node(log).start()
        fetched = list(node.groups.fetch("g", None, require_stable=True))
        assert [each.offset for topic in fetched for each in topic.partitions] == ([5] if offset == 5 else [])

    run(story)


def test_a_marker_without_a_type_ends_the_load() -> None:
    async def story() -> None:
        log = MemoryLog()
        log.batches[0].append(build_batch([Record(0, 1, b"\0", b"")], producer_id=1, control=True))
        node = Node(log)
        with pytest.raises(KafkaError) as raised:
            await node.groups.load(0, 0)
        assert raised.value.code is ErrorCode.invalid_record

    run(story)


def test_deleting_a_topic_removes_its_offsets_in_all_partitions() -> None:
    async def story() -> None:
        node = Node(MemoryLog(partition_count=2))
        for partition in (0, 1):
            await node.start(partition)
        for group_id in ("a", "b"):
            await node.groups.commit(commit_request(group_id=group_id))
        node.groups.on_topics_deleted([("t", UUID_ZERO)])
        await settle()
        assert [*node.groups.fetch("a", None, require_stable=False)] == []
        assert [*node.groups.fetch("b", None, require_stable=False)] == []

    run(story)


def test_deleting_the_offsets_topic_forgets_all_groups() -> None:
    async def story() -> None:
        node = await Node().start()
        await node.groups.commit(commit_request())
        node.groups.on_topics_deleted([("__consumer_offsets", UUID_ZERO)])
        assert await error_of(node.groups.commit(commit_request())) == "not_coordinator"

    run(story)


# Work that is much


def large_commit(count: int, group_id: str = "g", metadata: str = "") -> CommitRequest:
    partitions = [OffsetToCommit(index, index, -1, metadata) for index in range(count)]
    return CommitRequest(group_id, -1, "", None, -1, True, [TopicToCommit("t", UUID_ZERO, partitions)])


def test_a_large_commit_is_one_batch_and_comes_in_pieces() -> None:
    async def story() -> None:
        node = await Node().start()
        turns = 0

        async def others() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        other = asyncio.ensure_future(others())
        results = await node.groups.commit(large_commit(10 * PIECE))
        other.cancel()
        assert [len(errors) for _, errors in results] == [10 * PIECE]
        assert turns >= 20
        (batch,) = node.log.batches[0]
        assert len(list(iter_records(batch))) == 10 * PIECE
        there = (await node.other()).machine
        assert durable(there) == durable(node.machine)
        fetched = [
            each for topic in node.groups.fetch("g", None, require_stable=False) for each in topic.partitions
        ]
        assert [each.offset for each in fetched] == list(range(10 * PIECE))

    run(story)


def test_a_large_commit_gets_into_the_log_behind_what_came_before_it() -> None:
    async def story() -> None:
        node = await Node().start()
        large = asyncio.ensure_future(node.groups.commit(large_commit(2 * PIECE)))
        small = [asyncio.ensure_future(node.groups.commit(commit_request())) for _ in range(3)]
        await asyncio.gather(large, *small)
        # The small ones did not wait, and the large one, stored last, is what is found.
        assert [len(list(iter_records(batch))) for batch in node.log.batches[0]] == [3, 2 * PIECE]
        assert durable((await node.other()).machine) == durable(node.machine)

    run(story)


def test_a_commit_that_no_batch_can_hold_is_refused_before_it_is_made(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def story() -> None:
        node = await Node().start()
        packed = 0

        def counted(record: OffsetRecord) -> tuple[bytes, bytes | None]:
            nonlocal packed
            packed += 1
            return encode_record(record)

        monkeypatch.setattr(group_machine, "encode_record", counted)
        node.log.max_message_bytes = 100_000
        assert await error_of(node.groups.commit(large_commit(10_000))) == "unknown_server_error"
        assert packed < 5_000
        assert await error_of(node.groups.commit(large_commit(PIECE, "x" * 40_000))) == "unknown_server_error"
        assert node.log.batches[0] == []
        await node.groups.commit(large_commit(PIECE))

    run(story)


def test_a_large_commit_that_loses_its_coordinator_on_the_way() -> None:
    async def story() -> None:
        node = await Node().start()
        commit = asyncio.ensure_future(node.groups.commit(large_commit(4 * PIECE)))
        await asyncio.sleep(0)
        node.groups.unload(0)
        assert await error_of(commit) == "not_coordinator"
        assert node.log.batches[0] == []

    run(story)


def test_a_large_commit_of_a_generation_that_ends_on_the_way() -> None:
    async def story() -> None:
        node = await Node().start()
        generation = await node.stable()
        request = large_commit(4 * PIECE)
        request.generation_id, request.member_id = generation, "m1"
        commit = asyncio.ensure_future(node.groups.commit(request))
        await asyncio.sleep(0)
        await node.groups.leave("g", (LeavingMember("m1"),))
        assert await error_of(commit) == "unknown_member_id"
        # Who may not commit is told before anything is made.
        assert await error_of(node.groups.commit(request)) == "unknown_member_id"

    run(story)


def test_removing_much_waits_for_the_log(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        monkeypatch.setattr(shard_module, "WORK_WRITES_MAX", 5)
        node = await Node().start()
        await node.groups.commit(large_commit(20 * PIECE))
        node.log.held = True
        before = len(node.log.batches[0])
        node.groups.on_topics_deleted([("t", UUID_ZERO)])
        for _ in range(10):
            await settle()
        assert len(node.machine.tables.in_flight) == 5
        node.log.held = False
        while node.machine.tables.in_flight:
            node.log.release()
            await settle()
        assert len(node.log.batches[0]) > before
        assert durable(node.machine) == ({}, {})

    run(story)


def test_many_committed_batches_are_taken_up_in_several_turns() -> None:
    async def story() -> None:
        node = await Node().start()
        node.log.held = True
        commits = [
            asyncio.ensure_future(node.groups.commit(large_commit(2 * PIECE, f"g{index}")))
            for index in range(9)
        ]
        while len(node.log.waiting) < len(commits):
            await asyncio.sleep(0)
        node.log.release()
        counts = [len(node.machine.tables.offsets.by_group)]
        while not all(commit.done() for commit in commits):
            await asyncio.sleep(0)
            counts.append(len(node.machine.tables.offsets.by_group))
        steps = [after - before for before, after in itertools.pairwise([0, *counts])]
        assert max(steps) <= COMMITTED_PER_TURN // (2 * PIECE) + 1
        assert counts[-1] == len(commits)

    run(story)


def test_more_answers_than_one_turn_gives() -> None:
    async def story() -> None:
        node = await Node().start()
        joins = [
            asyncio.ensure_future(node.groups.join(join_request(new_id=f"m{index}")))
            for index in range(3 * REPLIES_PER_TURN)
        ]
        await asyncio.sleep(0)
        late = asyncio.ensure_future(node.clock.advance(10_000))
        while not any(join.done() for join in joins):
            assert not late.done()
            await asyncio.sleep(0)
        assert sum(join.done() for join in joins) <= 2 * REPLIES_PER_TURN
        await late
        assert {(await join).generation_id for join in joins} == {1}

    run(story)


def test_what_follows_from_one_write_does_not_keep_the_others(caplog: pytest.LogCaptureFixture) -> None:
    async def story() -> None:
        node = await Node().start()
        shard = node.groups.host.shards[0]

        def fails(step: Step) -> None:
            raise RuntimeError("a bug")

        step = shard.step()
        step.write((OffsetRecord("g", "t", 0, None),), fails, lambda code, step: None)
        shard.finish(step)
        await node.groups.commit(commit_request())
        assert "a bug" in caplog.text
        assert not node.machine.tables.in_flight

    run(story)


def test_the_timer_is_set_again_whatever_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        node = await Node().start()
        join = asyncio.ensure_future(node.groups.join(join_request()))
        await settle()
        with monkeypatch.context() as patched:

            def fails(step: Step) -> None:
                raise RuntimeError("a bug")

            patched.setattr(node.machine, "expire", fails)
            (timer,) = [each for each in node.clock.timers if each.at_ms <= node.clock.ms + 3_000]
            node.clock.ms = int(timer.at_ms)
            node.clock.timers.remove(timer)
            with pytest.raises(RuntimeError):
                timer.callback()
        await node.clock.advance(0)
        assert (await join).generation_id == 1

    run(story)


def test_offsets_are_looked_at_again_whatever_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        node = await Node().start()
        await node.groups.commit(commit_request())
        looks = []

        def fails(removal: object) -> None:
            looks.append(node.clock.ms)
            raise RuntimeError("a bug")

        monkeypatch.setattr(removal.Removal, "expire_offsets", fails)
        for _ in range(3):
            with suppress(RuntimeError):
                await node.clock.advance(600_000)
        assert len(looks) >= 2

    run(story)


# Timers


def test_a_node_without_groups_never_wakes() -> None:
    async def story() -> None:
        node = await Node().start()
        assert node.clock.timers == []

    run(story)


def test_heartbeats_cost_few_wake_ups() -> None:
    async def story() -> None:
        node = await Node().start()
        generation = await node.stable()
        wakes = 0
        for _ in range(300):
            before = node.groups.host.shards[0]._timer
            await node.clock.advance(1_000)
            assert node.groups.heartbeat("g", "m1", None, generation) == ErrorCode.none
            wakes += node.groups.host.shards[0]._timer is not before
        # Once for each session timeout, not for each heartbeat.
        assert wakes <= 300 / 8

    run(story)


def test_offsets_expire_in_time() -> None:
    async def story() -> None:
        node = await Node(offsets_retention_ms=1_000_000, offsets_retention_check_interval_ms=600_000).start()
        await node.groups.commit(commit_request())
        await node.clock.advance(600_000)
        assert len(list(node.groups.list_groups((), ()))) == 1
        await node.clock.advance(600_000)
        assert list(node.groups.list_groups((), ())) == []
        # The offset, its tombstone and the group's.
        assert len(offset_records(node.log)) == 3
        await node.clock.advance(600_000)
        assert node.clock.timers == []

    run(story)


def test_the_answer_of_a_join_names_the_new_member() -> None:
    async def story() -> None:
        node = await Node().start()
        assert node.groups.member_id("client", None) == "client-x"
        assert node.groups.member_id("client", "inst") == "inst-x"
        # No id is longer than a string can be, or nobody could be told of the member.
        assert node.groups.member_id("c" * 32_767, None) == "c" * 32_765 + "-x"
        assert node.groups.member_id("é" * 16_383, None) == "é" * 16_382 + "-x"
        join = asyncio.ensure_future(node.groups.join(join_request(new_id="client-x")))
        await node.clock.advance(3_000)
        response: JoinResponse = await join
        assert response.member_id == "client-x"
        node.groups.close()

    run(story)
