"""What a client may not know of: answers are the same, byte for byte, whether it is there or not."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from cases import CASES, Case, add_fields, commit_fields, prepare
from hypothesis import given, settings
from hypothesis import strategies as st
from rights_support import HOST, Broker, Right, authorizer, client, everybody, run, started

import soak
from ottla.broker.request import Client
from ottla.security.acl_bindings import Operation, ResourceType
from ottla.wire.apis import BY_NAME

# Topic ids are no secret (KIP-516): whether one is anybody's is told, and so here names alone are asked for.
BY_ID_SINCE = {"Produce": 13, "Fetch": 13, "OffsetCommit": 10, "OffsetFetch": 10, "TxnOffsetCommit": 6}


# What requests of the cases name.
NAMES = ("t", "g", "tx", "new", "gone", "auto", "self", "h", "other")


class World(NamedTuple):
    runner: asyncio.Runner
    broker: Broker


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with asyncio.Runner() as runner:
        broker = started(tmp_path_factory.mktemp("broker"), runner)
        runner.run(prepare(broker))
        yield World(runner, broker)
        runner.run(broker.node.stop())


def renamed(value: Any, names: dict[str, str]) -> Any:
    """The same with other names of things."""
    if isinstance(value, dict):
        return {key: renamed(each, names) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [renamed(each, names) for each in value]
    return names.get(value, value) if isinstance(value, str) else value


async def make(broker: Broker, name: str) -> None:
    """A topic, a group and a transactional id of that name."""
    free = everybody()
    await broker.create(name)
    await broker.produce(free, name)
    commit = renamed(commit_fields(), {"t": name, "g": name})
    await broker.ask(free, "OffsetCommit", 8, commit)
    init = {
        "transactional_id": name,
        "transaction_timeout_ms": 60_000,
        "producer_id": -1,
        "producer_epoch": -1,
    }
    made = await broker.ask(free, "InitProducerId", 4, init)
    added = add_fields(made.producer_id, made.producer_epoch)
    answer = await broker.ask(free, "AddPartitionsToTxn", 3, renamed(added, {"t": name, "tx": name}))
    assert answer.results_by_topic_v3_and_below[0].results_by_partition[0].partition_error_code == 0


def asked_of(case: Case, broker: Broker, name: str) -> dict[str, Any]:
    fields: dict[str, Any] = renamed(case.request(broker), dict.fromkeys(NAMES, name))
    # A session has an id that nobody guesses.
    return fields | {"session_epoch": -1} if "session_epoch" in fields else fields


BY_NAME_ONLY = [
    case
    for case in CASES
    if case.version < BY_ID_SINCE.get(case.api, 99)
    and not (callable(case.fields))
    and any(right.name in NAMES for right in case.needs)
]

NUMBER = iter(range(1_000_000))


@pytest.mark.parametrize("case", BY_NAME_ONLY, ids=lambda case: f"{case.api}-{case.version}")
def test_nothing_tells_whether_a_hidden_thing_is_there(world: World, case: Case) -> None:
    """The same is asked before a topic, a group and a transactional id are made, and afterwards."""

    async def main() -> None:
        name = f"hidden-{next(NUMBER)}"
        fields = asked_of(case, world.broker, name)

        async def answer() -> bytes:
            return await world.broker.raw(client(), case.api, case.version, fields)

        before = await answer()
        await make(world.broker, name)
        assert await answer() == before

    world.runner.run(main())


TOPIC_CASES = [
    case for case in BY_NAME_ONLY
    if any(right.resource_type is ResourceType.TOPIC and right.name == "t" for right in case.needs)
    and "tx" not in str(case.needs)
]  # fmt: skip


@settings(max_examples=max(20, soak.EXAMPLES // 5))
@given(
    case=st.sampled_from(TOPIC_CASES),
    others=st.lists(st.sampled_from(["t", "none"]), max_size=3),
    allowed=st.booleans(),
)
def test_nor_among_what_may_be_seen(world: World, case: Case, others: list[str], allowed: bool) -> None:
    """With the right to groups, and with topics in the same request that it may do everything with."""
    rights = [Right(operation, ResourceType.TOPIC, "t") for operation in Operation if operation > 1]
    rights += [right for right in case.needs if right.resource_type is ResourceType.GROUP]

    async def main() -> None:
        name = f"hidden-{next(NUMBER)}"
        asker = client(*(rights if allowed else rights[-1:]))
        fields = dict(case.request(world.broker))
        topics = fields.get("topics") or fields.get("topic_data")
        if not topics:
            return
        key = "topics" if "topics" in fields else "topic_data"
        fields[key] = [renamed(topics[0], {"t": each}) for each in dict.fromkeys([*others, name])]
        fields |= {"session_epoch": -1} if "session_epoch" in fields else {}
        if case.api in ("Produce", "DeleteRecords", "OffsetCommit"):
            # They change what they are answered by.
            fields[key] = fields[key][-1:]
        before = await world.broker.raw(asker, case.api, case.version, fields)
        await world.broker.create(name)
        assert await world.broker.raw(asker, case.api, case.version, fields) == before

    world.runner.run(main())


def test_lists_are_the_same_whatever_is_hidden(world: World) -> None:
    lists: list[tuple[str, int, dict[str, Any]]] = [
        ("Metadata", 12, {"topics": None}),
        ("Metadata", 0, {"topics": ()}),
        ("ListGroups", 5, {}),
        ("ListTransactions", 2, {"duration_filter": -1, "transactional_id_pattern": None}),
        ("DescribeTopicPartitions", 0, {"response_partition_limit": 1}),
        ("OffsetFetch", 7, {"group_id": "g", "topics": None}),
    ]
    seen = [
        Right(Operation.DESCRIBE, kind, name)
        for kind, name in (
            (ResourceType.TOPIC, "t"),
            (ResourceType.GROUP, "g"),
            (ResourceType.TRANSACTIONAL_ID, "tx"),
        )
    ]

    async def main() -> None:
        for rights in ((), seen):
            asker = Client(HOST, "PLAINTEXT")
            asker.permissions = authorizer(*rights).client("User:alice", HOST)
            before = [await world.broker.raw(asker, *each) for each in lists]
            # One before, and one behind what it may see.
            await make(world.broker, f"a{next(NUMBER)}")
            await make(world.broker, f"z{next(NUMBER)}")
            assert [await world.broker.raw(asker, *each) for each in lists] == before

    world.runner.run(main())


def test_there_is_a_case_by_name_of_each_api_that_names_something() -> None:
    named = {case.api for case in BY_NAME_ONLY}
    assert {"Produce", "Fetch", "Metadata", "OffsetFetch", "DescribeConfigs", "FindCoordinator"} <= named
    assert {"CreateTopics", "DeleteTopics", "DeleteGroups", "InitProducerId", "OffsetDelete"} <= named
    assert named <= set(BY_NAME)


def test_nothing_is_made_for_whom_asks_for_nothing(tmp_path: Path) -> None:
    async def body(broker: Broker) -> None:
        for key_type in (0, 1):
            fields = {"key_type": key_type, "coordinator_keys": []}
            answer = await broker.ask(client(), "FindCoordinator", 4, fields)
            assert not answer.coordinators
        assert not broker.node.services.metadata.image.topics

    run(tmp_path, body)
