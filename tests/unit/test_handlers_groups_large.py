"""Group requests that are much: answered as small ones are, with others' requests in between."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from coordinators_support import settle
from test_handlers_groups import TOPIC_ID, Broker, topic

from ottla.broker import large
from ottla.broker.large import AT_ONCE_MAX
from ottla.errors import ErrorCode
from ottla.wire import codec

MANY = 3 * AT_ONCE_MAX


def run(story: Callable[[Broker], Awaitable[None]], **settings: Any) -> None:
    async def whole() -> None:
        broker = Broker(**settings)
        broker.topics["t"] = topic("t", TOPIC_ID, MANY)
        await broker.ask("FindCoordinator", 3, key="g", key_type=0)
        await story(broker)

    asyncio.run(whole())


async def turns_of(work: Awaitable[Any]) -> tuple[Any, int]:
    """What work gives, and how many turns of the loop it left to others meanwhile."""
    turns = 0
    task = asyncio.ensure_future(work)
    while not task.done():
        turns += 1
        await asyncio.sleep(0)
    return task.result(), turns


def offsets(count: int) -> list[dict[str, Any]]:
    partitions = [
        {
            "partition_index": index,
            "committed_offset": index,
            "committed_leader_epoch": -1,
            "committed_metadata": None,
        }
        for index in range(count)
    ]
    return [{"name": "t", "partitions": partitions}]


def commit(broker: Broker, count: int = MANY, group_id: str = "g") -> Awaitable[Any]:
    return broker.ask(
        "OffsetCommit",
        8,
        group_id=group_id,
        generation_id_or_member_epoch=-1,
        member_id="",
        group_instance_id=None,
        topics=offsets(count),
    )


def test_many_offsets_are_committed_and_fetched() -> None:
    async def story(broker: Broker) -> None:
        answer, turns = await turns_of(commit(broker))
        assert broker.was_large
        assert turns >= 3
        (committed,) = answer.topics
        assert {each.error_code for each in committed.partitions} == {0}
        assert len(committed.partitions) == MANY
        for topics in (None, [{"name": "t", "partition_indexes": list(range(MANY))}]):
            groups = [{"group_id": "g", "topics": topics}]
            answer, turns = await turns_of(broker.ask("OffsetFetch", 8, groups=groups, require_stable=False))
            assert broker.was_large
            assert turns >= 3
            (fetched,) = answer.groups[0].topics
            assert [each.committed_offset for each in fetched.partitions] == list(range(MANY))
        one = {"group_id": "g", "topics": [{"name": "t", "partition_indexes": [3]}]}
        answer = await broker.ask("OffsetFetch", 8, groups=[one], require_stable=False)
        assert not broker.was_large
        assert answer.groups[0].topics[0].partitions[0].committed_offset == 3

    run(story)


def test_many_offsets_of_a_coordinator_that_leaves_meanwhile() -> None:
    async def story(broker: Broker) -> None:
        await commit(broker)
        groups = [{"group_id": "g", "topics": None}]
        fetch = asyncio.ensure_future(broker.ask("OffsetFetch", 8, groups=groups, require_stable=False))
        await asyncio.sleep(0)
        broker.groups.unload(0)
        (group,) = (await fetch).groups
        assert group.error_code == ErrorCode.not_coordinator

    run(story)


def test_one_group_that_is_named_again_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(broker: Broker) -> None:
        monkeypatch.setattr(large, "RESPONSE_BYTES_MAX", 100_000)
        await commit(broker)
        groups = [{"group_id": "g", "topics": None}] * 1_000
        answer = await broker.ask("OffsetFetch", 8, groups=groups, require_stable=False)
        assert {group.error_code for group in answer.groups} == {ErrorCode.unknown_server_error}

    run(story)


def test_many_offsets_are_deleted() -> None:
    async def story(broker: Broker) -> None:
        await commit(broker)
        partitions = [{"partition_index": index} for index in range(MANY + 1)]
        answer = await broker.ask(
            "OffsetDelete", 0, group_id="g", topics=[{"name": "t", "partitions": partitions}]
        )
        assert broker.was_large
        errors = [each.error_code for each in answer.topics[0].partitions]
        assert sorted(errors) == [0] * MANY + [ErrorCode.unknown_topic_or_partition]
        groups = [{"group_id": "g", "topics": None}]
        answer = await broker.ask("OffsetFetch", 8, groups=groups, require_stable=False)
        assert answer.groups[0].topics == ()

    run(story)


def test_many_groups_are_listed_described_found_and_deleted() -> None:
    async def story(broker: Broker) -> None:
        names = [f"g{index}" for index in range(MANY)]
        for name in names:
            await commit(broker, 1, name)
        answer, turns = await turns_of(broker.ask("ListGroups", 4, states_filter=["Empty"]))
        assert broker.was_large
        assert turns >= 3
        assert [group.group_id for group in answer.groups] == names
        assert (await broker.ask("ListGroups", 4, states_filter=["Stable"])).groups == ()

        answer, turns = await turns_of(
            broker.ask("DescribeGroups", 5, groups=names, include_authorized_operations=False)
        )
        assert broker.was_large
        assert turns >= 3
        assert {group.group_state for group in answer.groups} == {"Empty"}

        answer, turns = await turns_of(broker.ask("FindCoordinator", 4, key_type=0, coordinator_keys=names))
        assert broker.was_large
        assert turns >= 3
        assert [each.key for each in answer.coordinators] == names
        assert {each.node_id for each in answer.coordinators} == {1}

        answer, turns = await turns_of(broker.ask("DeleteGroups", 1, groups_names=[*names, "none"]))
        assert broker.was_large
        assert turns >= 3
        errors = {each.group_id: each.error_code for each in answer.results}
        assert errors == dict.fromkeys(names, 0) | {"none": ErrorCode.group_id_not_found}
        assert (await broker.ask("ListGroups", 4, states_filter=[])).groups == ()

    run(story)


def test_a_group_of_many_members() -> None:
    async def story(broker: Broker) -> None:
        joins = [asyncio.ensure_future(broker.join(3)) for _ in range(AT_ONCE_MAX + 1)]
        for _ in range(10):
            await settle()
            await broker.clock.advance(100)
        members = [(await join).member_id for join in joins]
        (leader,) = [joined for join in joins if (joined := await join).members]
        assert len(leader.members) == len(members)
        answer = await broker.ask("DescribeGroups", 5, groups=["g"], include_authorized_operations=False)
        assert broker.was_large
        assert len(answer.groups[0].members) == len(members)
        leaving = [{"member_id": each, "group_instance_id": None} for each in [*members, "nobody"]]
        answer = await broker.ask("LeaveGroup", 4, group_id="g", members=leaving)
        assert broker.was_large
        assert [each.error_code for each in answer.members] == [0] * len(members) + [
            ErrorCode.unknown_member_id
        ]

    run(story, group_initial_rebalance_delay_ms=100)


def test_pieces_are_small() -> None:
    """What a test of this kind relies on: several pieces where there are more than this."""
    assert codec.PIECE < MANY
