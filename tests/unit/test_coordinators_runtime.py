"""The shell: order and failures of appends, fail-over, timers, time-outs."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import pytest
from coordinators_support import ManualClock, MemoryLog, durable, protocols, settle

from ottla.coordinators.requests import (
    CommitRequest,
    JoinRequest,
    JoinResponse,
    LeavingMember,
    OffsetToCommit,
    PartitionErrors,
    SyncRequest,
    TopicToCommit,
)
from ottla.coordinators.runtime import GroupCoordinator, java_hash, partition_of
from ottla.coordinators.schemas import CommittedOffset, OffsetRecord, encode_record
from ottla.coordinators.settings import GroupConfig
from ottla.errors import ErrorCode, KafkaError
from ottla.types import Record
from ottla.wire.primitives import UUID_ZERO
from ottla.wire.records import build_batch, iter_batches, iter_records


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
        return self.groups._shards[0].machine

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
            node.groups.fetch(there, None, require_stable=False)
        assert [each.group_id for each in node.groups.list_groups((), ())] == [here]

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


def test_commits_of_one_moment_share_a_batch_and_keep_their_order() -> None:
    async def story() -> None:
        node = await Node().start()
        commits = [node.groups.commit(commit_request(i, partition=i % 3)) for i in range(9)]
        await asyncio.gather(*commits)
        assert len(node.log.batches[0]) == 1
        (header, _), *_ = iter_batches(node.log.batches[0][0])
        assert header.record_count == 9
        assert header.base_timestamp_ms == node.clock.now_ms()
        (topic,) = node.groups.fetch("g", None, require_stable=False)
        assert [each.offset for each in topic.partitions] == [6, 7, 8]

    run(story)


def test_large_writes_go_in_several_batches() -> None:
    async def story() -> None:
        node = await Node(offset_metadata_max_bytes=400_000).start()
        long = "x" * 300_000
        commits = [TopicToCommit("t", UUID_ZERO, [OffsetToCommit(0, i, -1, long)]) for i in range(4)]
        requests = [CommitRequest(f"g{i}", -1, "", None, -1, True, [commits[i]]) for i in range(4)]
        await asyncio.gather(*map(node.groups.commit, requests))
        assert [len(list(iter_records(batch))) for batch in node.log.batches[0]] == [1, 1, 1, 1]

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

            async def append(self, partition: int, batch: bytes) -> int:
                self.left -= 1
                if self.left == 0:
                    raise KafkaError(ErrorCode.kafka_storage_error)
                return await super().append(partition, batch)

        log = OnceFull()
        node = await Node(log).start()
        offsets = [OffsetToCommit(i, i, -1, "") for i in range(5_000)]
        topic = TopicToCommit("t", UUID_ZERO, offsets)
        await node.groups.commit(CommitRequest("g", -1, "", None, -1, True, [topic]))
        log.max_message_bytes, log.left = 30_000, 2
        assert (await node.groups.delete_group("g")).error is ErrorCode.not_coordinator
        assert 0 < len(node.machine.offsets.by_group["g"]["t"]) < 5_000
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
        second.set_result(None)
        await settle()
        assert answered == []
        first.set_result(None)
        await asyncio.gather(*tasks)
        assert answered == [1, 2]

    run(story)


def test_a_slow_append_does_not_keep_others_from_heartbeats() -> None:
    async def story() -> None:
        node = await Node().start()
        generation = await node.stable()
        node.log.held = True
        slow = asyncio.ensure_future(node.groups.commit(commit_request(group_id="slow")))
        await settle()
        assert node.groups.heartbeat("g", "m1", None, generation) == ErrorCode.none
        assert node.groups.fetch("g", None, require_stable=False) == []
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
        (topic,) = node.groups.fetch("g", None, require_stable=False)
        assert topic.partitions[0].offset == 1
        await node.groups.commit(commit_request(3))
        assert durable((await node.other()).machine) == durable(node.machine)

    run(story)


def test_a_commit_that_takes_too_long_is_answered_and_still_counts_when_it_is_done() -> None:
    async def story() -> None:
        node = await Node(offsets_commit_timeout_ms=5_000).start()
        node.log.held = True
        commit = asyncio.ensure_future(node.groups.commit(commit_request(7)))
        await node.clock.advance(4_999)
        assert not commit.done()
        await node.clock.advance(1)
        assert await error_of(commit) == "coordinator_not_available"
        node.log.release()
        await settle()
        (topic,) = node.groups.fetch("g", None, require_stable=False)
        assert topic.partitions[0].offset == 7

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
            node.groups.list_groups((), ())
        ready = asyncio.ensure_future(node.groups.ready("g"))
        await settle()
        assert not ready.done()
        gate.set()
        await asyncio.gather(load, ready)
        assert [each.group_id for each in node.groups.list_groups((), ())] == ["g"]

    run(story)


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
        assert len(node.groups.list_groups((), ())) == 1
        node.groups.unload(0, 5)
        assert node.groups.list_groups((), ()) == []

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
        node.groups._log = MemoryLog()
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
        assert [each.group_id for each in node.groups.list_groups((), ())] == ["g"]

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
        fetched = node.groups.fetch("g", None, require_stable=True)
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
        node.groups.on_topic_deleted("t")
        await settle()
        assert [node.groups.fetch(each, None, require_stable=False) for each in ("a", "b")] == [[], []]

    run(story)


def test_deleting_the_offsets_topic_forgets_all_groups() -> None:
    async def story() -> None:
        node = await Node().start()
        await node.groups.commit(commit_request())
        node.groups.on_topic_deleted("__consumer_offsets")
        assert await error_of(node.groups.commit(commit_request())) == "not_coordinator"

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
            before = node.groups._shards[0]._timer
            await node.clock.advance(1_000)
            assert node.groups.heartbeat("g", "m1", None, generation) == ErrorCode.none
            wakes += node.groups._shards[0]._timer is not before
        # Once for each session timeout, not for each heartbeat.
        assert wakes <= 300 / 8

    run(story)


def test_offsets_expire_in_time() -> None:
    async def story() -> None:
        node = await Node(offsets_retention_ms=1_000_000, offsets_retention_check_interval_ms=600_000).start()
        await node.groups.commit(commit_request())
        await node.clock.advance(600_000)
        assert len(node.groups.list_groups((), ())) == 1
        await node.clock.advance(600_000)
        assert node.groups.list_groups((), ()) == []
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
        join = asyncio.ensure_future(node.groups.join(join_request(new_id="client-x")))
        await node.clock.advance(3_000)
        response: JoinResponse = await join
        assert response.member_id == "client-x"
        node.groups.close()

    run(story)
