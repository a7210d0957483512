"""Offsets that are committed in transactions: in the machine, in the log, and at the ends of transactions."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from coordinators_support import Bench, MemoryLog, durable, settle
from hypothesis import given
from hypothesis import strategies as st
from test_coordinators_runtime import Node, commit_request, error_of, join_request, run

from ottla.coordinators.groups.offsets import Offsets
from ottla.coordinators.groups.requests import CommitRequest, TopicToCommit
from ottla.coordinators.groups.schemas import CommittedOffset, OffsetRecord
from ottla.coordinators.runtime.pieces import PIECE
from ottla.coordinators.runtime.step import Producer
from ottla.errors import ErrorCode, KafkaError
from ottla.types import TxnMarker
from ottla.wire.commits import OffsetToCommit
from ottla.wire.primitives import UUID_ZERO
from ottla.wire.records import iter_batches

GUARD = object()
NINE = Producer(9, 3, GUARD)


def marker(producer_id: int = 9, *, commits: bool = True) -> TxnMarker:
    return TxnMarker(producer_id, 3, 0, commits, 2)


def of_transaction(offset: int, producer: Producer = NINE, **fields: Any) -> CommitRequest:
    request = commit_request(offset, **fields)
    request.producer = producer
    return request


def committed(node: Node, partition: int = 0) -> int | None:
    found = node.machine.tables.offsets.get("g", "t", partition)
    return None if found is None else found.offset


def shapes(log: MemoryLog) -> list[tuple[int, int, int, bool, bool]]:
    """Each batch's records, producer and kind."""
    return [
        (
            header.last_offset_delta + 1,
            header.producer_id,
            header.producer_epoch,
            header.is_transactional,
            header.is_control,
        )
        for batch in log.batches[0]
        for header, _ in iter_batches(batch)
    ]


# What is in the log


def test_offsets_of_a_transaction_are_in_batches_of_their_own() -> None:
    async def story() -> None:
        node = await Node().start()
        eight = Producer(8, 0)
        answers = [
            node.groups.commit(commit_request(1)),
            node.groups.commit(of_transaction(2, partition=1)),
            node.groups.commit(of_transaction(3, partition=2)),
            node.groups.commit(of_transaction(4, eight, partition=3)),
            node.groups.commit(commit_request(5, partition=4)),
        ]
        for answer in answers:
            await answer
        assert shapes(node.log) == [
            (1, -1, -1, False, False),
            (2, 9, 3, True, False),
            (1, 8, 0, True, False),
            (1, -1, -1, False, False),
        ]
        assert node.log.guards == [None, GUARD, None, None]
        assert [committed(node, each) for each in range(5)] == [1, None, None, None, 5]

    run(story)


def test_a_large_commit_of_a_transaction_is_one_batch_of_it() -> None:
    async def story() -> None:
        node = await Node().start()
        offsets = [OffsetToCommit(i, i, -1, "") for i in range(3 * PIECE)]
        topic = TopicToCommit("t", UUID_ZERO, offsets)
        await node.groups.commit(CommitRequest("g", -1, "", None, -1, True, [topic], NINE))
        assert shapes(node.log) == [(3 * PIECE, 9, 3, True, False)]
        assert node.log.guards == [GUARD]

    run(story)


# The end of a transaction


def test_the_end_is_answered_when_its_offsets_can_be_seen() -> None:
    """KAFKA-17507: what the coordinator of the transaction is told, it tells its client."""

    async def story() -> None:
        node = await Node().start()
        await node.groups.commit(commit_request(1))
        await node.groups.commit(of_transaction(2))
        node.log.held = True
        # One more is on its way when the end is decided, and belongs to it.
        last = node.groups.commit(of_transaction(3, partition=1))
        answer = node.groups.complete_transaction(0, marker())
        await settle()
        assert shapes(node.log)[-1] == (1, 9, 3, True, True)
        assert not answer.done and not last.done
        assert (committed(node), committed(node, 1)) == (1, None)
        node.log.release()
        await answer
        assert (committed(node), committed(node, 1)) == (2, 3)
        assert durable((await node.other()).machine) == durable(node.machine)

    run(story)


def test_what_was_aborted_is_forgotten() -> None:
    async def story() -> None:
        node = await Node().start()
        await node.groups.commit(commit_request(1))
        await node.groups.commit(of_transaction(2))
        await node.groups.complete_transaction(0, marker(commits=False))
        await node.groups.complete_transaction(0, marker())
        assert committed(node) == 1
        assert not node.machine.tables.offsets.is_unstable("g", "t", 0)
        assert durable((await node.other()).machine) == durable(node.machine)

    run(story)


def test_an_end_that_is_not_written_ends_nothing() -> None:
    async def story() -> None:
        node = await Node().start()
        await node.groups.commit(of_transaction(2))
        node.log.error = KafkaError(ErrorCode.not_leader_or_follower)
        assert await error_of(node.groups.complete_transaction(0, marker())) == "not_leader_or_follower"
        assert node.machine.tables.offsets.is_unstable("g", "t", 0)
        node.log.error = None
        await node.groups.complete_transaction(0, marker())
        assert committed(node) == 2

    run(story)


def test_where_the_partition_is_lost_the_end_is_not_answered_as_written() -> None:
    async def story() -> None:
        node = await Node().start()
        await node.groups.commit(of_transaction(2))
        node.log.held = True
        answer = node.groups.complete_transaction(0, marker())
        await settle()
        node.groups.unload(0)
        assert await error_of(answer) == "not_coordinator"
        with pytest.raises(KafkaError) as caught:
            node.groups.complete_transaction(0, marker())
        assert caught.value.code is ErrorCode.not_coordinator

    run(story)


def test_the_end_of_a_large_transaction_lets_others_have_their_turns() -> None:
    async def story() -> None:
        node = await Node().start()
        count = 6 * PIECE
        for start in range(0, count, 1_000):
            topic = TopicToCommit(
                "t", UUID_ZERO, [OffsetToCommit(start + i, 7, -1, "") for i in range(1_000)]
            )
            await node.groups.commit(CommitRequest("g", -1, "", None, -1, True, [topic], NINE))
        answer = node.groups.complete_transaction(0, marker())
        behind = node.groups.commit(commit_request(8))
        turns = 0
        while not answer.done:
            turns += 1
            seen = len(node.machine.tables.offsets.by_group.get("g", {}).get("t", {}))
            assert seen <= turns * PIECE
            assert not behind.done
            await asyncio.sleep(0)
        assert turns >= count // PIECE
        await behind
        assert committed(node) == 8 and committed(node, count - 1) == 7
        assert durable((await node.other()).machine) == durable(node.machine)

    run(story)


# Who may commit


def test_a_transaction_may_commit_without_naming_its_member() -> None:
    """Clients before KIP-447 do not know it."""

    async def story() -> None:
        node = await Node().start()
        generation = await node.stable()
        assert await error_of(node.groups.commit(commit_request(1))) == "unknown_member_id"
        await node.groups.commit(of_transaction(1))
        await node.groups.commit(of_transaction(2, generation=generation, member_id="m1"))

    run(story)


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"generation": 7, "member_id": "m1"}, "illegal_generation"),
        ({"generation": 1, "member_id": "m2"}, "unknown_member_id"),
        ({"generation": -1, "member_id": "m1"}, "illegal_generation"),
    ],
)
def test_a_member_that_is_named_must_be_one(fields: dict[str, Any], error: str) -> None:
    async def story() -> None:
        node = await Node().start()
        assert await node.stable() == 1
        assert await error_of(node.groups.commit(of_transaction(1, **fields))) == error

    run(story)


@pytest.mark.parametrize(("knows", "error"), [(True, "group_id_not_found"), (False, "illegal_generation")])
def test_a_generation_of_a_group_that_is_not_there(*, knows: bool, error: str) -> None:
    async def story() -> None:
        node = await Node().start()
        request = of_transaction(1, generation=1)
        request.knows_group_id_not_found = knows
        assert await error_of(node.groups.commit(request)) == error

    run(story)


def test_a_rebalance_does_not_stop_a_transaction() -> None:
    async def story() -> None:
        node = await Node().start()
        generation = await node.stable()
        group = node.machine.tables.groups["g"]
        node.groups.join(join_request("g", member_id="m1"))
        await node.clock.advance(3_000)
        assert group.state.value == "CompletingRebalance"
        await node.groups.commit(of_transaction(1, generation=generation + 1, member_id="m1"))
        assert (
            await error_of(node.groups.commit(commit_request(1, generation=generation + 1, member_id="m1")))
            == "rebalance_in_progress"
        )

    run(story)


def test_it_is_to_be_tried_again_where_nobody_could_say_whether_the_transaction_is_open() -> None:
    async def story() -> None:
        node = await Node().start()
        node.log.error = KafkaError(ErrorCode.network_exception)
        assert await error_of(node.groups.commit(of_transaction(1))) == "coordinator_load_in_progress"

    run(story)


# What keeps a group


def test_a_group_with_offsets_of_an_open_transaction_does_not_expire() -> None:
    """KAFKA-19163."""
    bench = Bench(offsets_retention_ms=1_000)
    bench.commit(1)
    bench.tables.replay(OffsetRecord("g", "t", 1, CommittedOffset(5, -1, "", 0)), producer_id=9)
    bench.wait(2_000)
    expire(bench)
    assert bench.committed() is None
    assert "g" in bench.tables.groups
    list(bench.machine.end_transaction(9, committed=True))
    assert bench.committed(partition=1) == 5
    bench.wait(2_000)
    expire(bench)
    assert "g" not in bench.tables.groups


def expire(bench: Bench) -> None:
    bench.machine.removal.expire_offsets()
    while bench.machine.removal.pieces:
        bench.remove_piece()


def test_a_later_commit_prevails_but_the_offset_stays_unstable() -> None:
    """As in Kafka, where what is pending goes with its transaction alone."""
    offsets = Offsets()
    offsets.replay(record(1), 9)
    offsets.replay(record(2))
    assert offsets.is_unstable("g", "t", 0)
    list(offsets.end_transaction(9, committed=True))
    assert not offsets.is_unstable("g", "t", 0)
    assert offset_of(offsets, 0) == 2


# Any order of anything, against Kafka's rules written down plainly


def record(offset: int | None, partition: int = 0) -> OffsetRecord:
    value = None if offset is None else CommittedOffset(offset, -1, "", 0)
    return OffsetRecord("g", "t", partition, value)


def offset_of(offsets: Offsets, partition: int) -> int | None:
    found = offsets.get("g", "t", partition)
    return None if found is None else found.offset


class Plain:
    """OffsetMetadataManager.replay and replayEndTransactionMarker: each offset with its record's place."""

    def __init__(self) -> None:
        self.committed: dict[int, tuple[int, int]] = {}
        self.pending: dict[int, dict[int, tuple[int, int]]] = {}

    def replay(self, place: int, partition: int, offset: int | None, producer: int) -> None:
        if offset is None:
            self.committed.pop(partition, None)
            for mine in self.pending.values():
                mine.pop(partition, None)
        elif producer < 0:
            self.committed[partition] = (place, offset)
        else:
            self.pending.setdefault(producer, {})[partition] = (place, offset)

    def end(self, producer: int, *, committed: bool) -> None:
        for partition, entry in self.pending.pop(producer, {}).items():
            if committed and entry > self.committed.get(partition, (-1, -1)):
                self.committed[partition] = entry


events = st.lists(
    st.tuples(
        st.sampled_from(["commit", "remove", "pend", "end", "abort"]), st.integers(0, 2), st.integers(0, 2)
    ),
    max_size=40,
)


@given(events)
def test_offsets_are_those_of_kafka_whatever_transactions_do(story: list[tuple[str, int, int]]) -> None:
    offsets, plain = Offsets(), Plain()
    for place, (what, partition, producer) in enumerate(story):
        if what in ("end", "abort"):
            list(offsets.end_transaction(producer, committed=what == "end"))
            plain.end(producer, committed=what == "end")
        else:
            offset = None if what == "remove" else place
            writer = producer if what == "pend" else -1
            offsets.replay(record(offset, partition), writer)
            plain.replay(place, partition, offset, writer)
        for each in range(3):
            expected = plain.committed.get(each)
            assert offset_of(offsets, each) == (None if expected is None else expected[1])
            assert offsets.is_unstable("g", "t", each) == any(each in mine for mine in plain.pending.values())
        known = set(plain.committed) | {each for mine in plain.pending.values() for each in mine}
        assert {key.partition for key in offsets.keys("g")} == known
        assert offsets.groups_of("t") == (["g"] if known else [])
        assert {key.partition for key in offsets.pending_of("g", "t")} == {
            each for mine in plain.pending.values() for each in mine
        }
    for producer in range(3):
        list(offsets.end_transaction(producer, committed=False))
    assert not any(offsets.is_unstable("g", "t", each) for each in range(3))
