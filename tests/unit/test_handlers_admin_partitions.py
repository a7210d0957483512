"""Reassignments, elections, unregistering and what describes them, over a connection, in every version.

One node serves; the others are only in the metadata.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from admin_support import NO_ID, Client, code, create, new_topic, run, versions

from ottla.metadata import keys
from ottla.metadata.elections import with_isr
from ottla.metadata.image import PartitionState
from ottla.metadata.store import Put


async def others(client: Client, *node_ids: int) -> None:
    """More nodes, that live."""
    for node_id in node_ids:
        endpoints = {"PLAINTEXT": (f"host{node_id}", 9000 + node_id)}
        await client.node.services.metadata.controller.register_broker(
            node_id, endpoints, f"rack{node_id}", is_controller=False
        )


async def forget(client: Client, node_id: int) -> None:
    """A node that has been here once."""
    value = keys.broker_value({"PLAINTEXT": (f"host{node_id}", 9000 + node_id)}, f"rack{node_id}")
    await client.node._store.txn([], [Put(keys.node(node_id), value)])
    controller = client.node.services.metadata.controller
    await controller.reserve_producer_ids()  # returns when the image is up to date


def state(client: Client, topic: str = "t", index: int = 0) -> PartitionState:
    return client.node.services.metadata.image.topics[topic].partitions[index]


async def put_state(client: Client, made: PartitionState, index: int = 0) -> None:
    metadata = client.node.services.metadata
    topic = metadata.image.topics["t"]
    assert await metadata.controller.change_partition(topic, index, topic.partitions[index], made)


def assigned(*partitions: list[int]) -> dict[str, Any]:
    assignments = [{"partition_index": i, "broker_ids": nodes} for i, nodes in enumerate(partitions)]
    return new_topic("t", -1, -1, assignments=assignments)


def moves(topic: str, *partitions: tuple[int, list[int] | None], **more: Any) -> dict[str, Any]:
    return {
        "timeout": 5_000,
        "topics": [
            {
                "name": topic,
                "partitions": [{"partition_index": i, "replicas": replicas} for i, replicas in partitions],
            }
        ],
        **more,
    }


async def listed(client: Client, topics: Any = None) -> list[tuple[Any, ...]]:
    answer = await client.ask("ListPartitionReassignments", 0, {"timeout": 5_000, "topics": topics})
    assert code(answer) == "none"
    return [
        (
            topic["name"],
            one["partition_index"],
            one["replicas"],
            one["adding_replicas"],
            one["removing_replicas"],
        )
        for topic in answer["topics"]
        for one in topic["partitions"]
    ]


@pytest.mark.parametrize("version", versions("AlterPartitionReassignments"))
def test_reassigning_listing_and_cancelling(tmp_path: Path, version: int) -> None:
    async def body(client: Client) -> None:
        me = client.node.node_id
        await others(client, 5, 6)
        assert [code(one) for one in await create(client, assigned([me, 5], [me, 5], [me, 5]))] == ["none"]

        async def ask(*partitions: tuple[int, list[int] | None], **more: Any) -> list[str]:
            fields = moves("t", *partitions, **more)
            answer = await client.ask("AlterPartitionReassignments", version, fields)
            assert (code(answer), answer["error_message"]) == ("none", None)
            (topic,) = answer["responses"]
            assert [one["partition_index"] for one in topic["partitions"]] == [one[0] for one in partitions]
            return [code(one) for one in topic["partitions"]]

        asked = await ask((0, [me, 6]), (1, None), (2, [77]), (3, [me]))
        assert asked == [
            "none",
            "no_reassignment_in_progress",
            "invalid_replica_assignment",
            "unknown_topic_or_partition",
        ]
        moving = ("t", 0, [me, 6, 5], [6], [5])
        assert await listed(client) == [moving]
        assert await listed(client, [{"name": "t", "partition_indexes": [1, 0, 9]}]) == [moving]
        assert await listed(client, [{"name": "t", "partition_indexes": [1]}]) == []
        assert await listed(client, [{"name": "other", "partition_indexes": [0]}]) == []
        assert await ask((0, None)) == ["none"]
        assert await listed(client) == []
        assert state(client).replicas == (me, 5)
        # Named twice: the last counts, and both are told of it.
        assert await ask((0, [me]), (0, [me, 6])) == ["none", "none"]
        assert await listed(client) == [moving]
        if version >= 1:
            fixed = await ask((1, [me]), (2, [5, me]), allow_replication_factor_change=False)
            assert fixed == ["invalid_replication_factor", "none"]

    run(tmp_path, body)


def test_a_topic_that_does_not_exist_is_not_moved(tmp_path: Path) -> None:
    async def body(client: Client) -> None:
        answer = await client.ask("AlterPartitionReassignments", 1, moves("none", (0, [1]), (4, None)))
        (topic,) = answer["responses"]
        assert topic["name"] == "none"
        assert [code(one) for one in topic["partitions"]] == ["unknown_topic_or_partition"] * 2

    run(tmp_path, body)


# ElectLeaders


def elections(partitions: list[int] | None, kind: int = 0) -> dict[str, Any]:
    asked = None if partitions is None else [{"topic": "t", "partitions": partitions}]
    return {"election_type": kind, "topic_partitions": asked, "timeout": 5_000}


@pytest.mark.parametrize("version", versions("ElectLeaders"))
def test_electing_leaders(tmp_path: Path, version: int) -> None:
    async def body(client: Client) -> None:
        me = client.node.node_id
        await others(client, 5)
        await create(client, assigned([5, me], [me, 5], [5, me], [me, 5]))

        async def ask(partitions: list[int] | None, kind: int = 0) -> dict[int, str]:
            answer = await client.ask("ElectLeaders", version, elections(partitions, kind))
            assert version == 0 or code(answer) == "none"
            found: dict[int, str] = {}
            for topic in answer["replica_election_results"]:
                assert topic["topic"] == "t"
                found |= {one["partition_id"]: code(one) for one in topic["partition_result"]}
            return found

        await put_state(client, PartitionState(me, 1, 1, (5, me), (5, me)), 0)
        await put_state(client, PartitionState(me, 1, 1, (5, me), (me,)), 2)
        assert await ask([0, 1, 2, 7]) == {
            0: "none",
            1: "election_not_needed",
            2: "preferred_leader_not_available",
            7: "unknown_topic_or_partition",
        }
        assert (state(client).leader, state(client).leader_epoch) == (5, 2)
        assert await ask(None) == {2: "preferred_leader_not_available"}
        if version >= 1:
            await put_state(client, PartitionState(-1, 3, 3, (me, 5), (), last_elr=(9,)), 3)
            assert await ask([1, 3], 1) == {1: "election_not_needed", 3: "none"}
            assert state(client, index=3).isr == (me,)
            assert await ask(None, 1) == {}

    run(tmp_path, body)


@pytest.mark.parametrize("version", [1, 2])
def test_an_unknown_kind_of_election_is_refused(tmp_path: Path, version: int) -> None:
    async def body(client: Client) -> None:
        await create(client, new_topic("t"))
        answer = await client.ask("ElectLeaders", version, elections([0], 7))
        assert code(answer) == "invalid_request"

    run(tmp_path, body)


# UnregisterBroker, DescribeCluster


def test_unregistering_and_describing_nodes_that_are_gone(tmp_path: Path) -> None:
    async def body(client: Client) -> None:
        me = client.node.node_id
        await forget(client, 8)
        await others(client, 5)

        async def described(version: int, **more: Any) -> dict[int, bool]:
            fields = {"include_cluster_authorized_operations": False, "endpoint_type": 1, **more}
            answer = await client.ask("DescribeCluster", version, fields)
            return {one["broker_id"]: one.get("is_fenced", False) for one in answer["brokers"]}

        alive = {me: False, 5: False}
        for version in versions("DescribeCluster"):
            fields = {"include_fenced_brokers": False} if version >= 2 else {}
            assert await described(version, **fields) == alive
        assert await described(2, include_fenced_brokers=True) == alive | {8: True}

        async def unregister(node_id: int) -> tuple[str, str]:
            answer = await client.ask("UnregisterBroker", 0, {"broker_id": node_id})
            return code(answer), answer["error_message"] or ""

        error, message = await unregister(5)
        assert error == "invalid_request" and "stop it first" in message
        assert (await unregister(7))[0] == "broker_id_not_registered"
        assert await unregister(8) == ("none", "")
        assert await described(2, include_fenced_brokers=True) == alive

    run(tmp_path, body)


# Topics on nodes that live, and on those that do not


def test_manual_assignments_name_nodes_of_the_cluster(tmp_path: Path) -> None:
    async def body(client: Client) -> None:
        me = client.node.node_id
        await others(client, 5)
        await forget(client, 8)
        assert [code(one) for one in await create(client, assigned([me, 8], [5, me]))] == ["none"]
        assert state(client).replicas == (me, 8)
        only_dead = new_topic("d", -1, -1, assignments=[{"partition_index": 0, "broker_ids": [8]}])
        (refused,) = await create(client, only_dead)
        assert code(refused) == "invalid_replica_assignment"
        assert "partition 0 are fenced" in refused["error_message"]

        async def grow(count: int, *nodes: list[int]) -> str:
            topic = {"name": "t", "count": count, "assignments": [{"broker_ids": one} for one in nodes]}
            fields = {"topics": [topic], "timeout_ms": 5_000, "validate_only": False}
            (result,) = (await client.ask("CreatePartitions", 3, fields))["results"]
            return code(result)

        assert await grow(3, [8, 9]) == "invalid_replica_assignment"
        assert await grow(3, [8]) == "invalid_replica_assignment"
        assert await grow(3, [8, 8]) == "invalid_replica_assignment"
        assert await grow(3, [8, 5]) == "none"

    run(tmp_path, body)


def test_new_replicas_go_to_nodes_that_live_and_stay(tmp_path: Path) -> None:
    async def body(client: Client) -> None:
        me = client.node.node_id
        await others(client, 5, 6)
        await forget(client, 8)
        await client.node._store.txn([], [Put(keys.stopping(6), keys.encode({}))])
        await client.node.services.metadata.controller.reserve_producer_ids()
        await create(client, new_topic("t", 10, 2))
        image = client.node.services.metadata.image
        assert {frozenset(one.replicas) for one in image.topics["t"].partitions} == {frozenset((me, 5))}
        # More replicas than such nodes: the others follow.
        await create(client, new_topic("u", 10, 3))
        more = client.node.services.metadata.image.topics["u"].partitions
        assert all(set(one.replicas[:2]) == {me, 5} for one in more)
        assert {one.replicas[2] for one in more} == {6, 8}
        (refused,) = await create(client, new_topic("v", 1, 5))
        assert code(refused) == "invalid_replication_factor"

    run(tmp_path, body)


# Describing


def test_eligible_leaders_are_described(tmp_path: Path) -> None:
    async def body(client: Client) -> None:
        me = client.node.node_id
        await others(client, 5)
        await create(client, assigned([me, 5], [me, 5]))
        shrunk = with_isr(state(client), (me,), 2)
        assert shrunk.elr == (5,)
        await put_state(client, shrunk)
        await put_state(client, PartitionState(-1, 1, 1, (me, 5), (), last_elr=(5,)), 1)
        fields = {"topics": [{"name": "t"}], "response_partition_limit": 10, "cursor": None}
        (topic,) = (await client.ask("DescribeTopicPartitions", 0, fields))["topics"]
        first, second = topic["partitions"]
        assert (first["eligible_leader_replicas"], first["last_known_elr"]) == ([5], [])
        assert (second["eligible_leader_replicas"], second["last_known_elr"]) == ([], [5])
        for version in versions("Metadata"):
            fields = {
                "topics": [{"name": "t", "topic_id": NO_ID}],
                "allow_auto_topic_creation": False,
                "include_cluster_authorized_operations": False,
                "include_topic_authorized_operations": False,
            }
            (topic,) = (await client.ask("Metadata", version, fields))["topics"]
            assert topic["partitions"][0]["isr_nodes"] == [me]

    run(tmp_path, body)


def test_what_lives_elsewhere_is_not_described_here(tmp_path: Path) -> None:
    async def body(client: Client) -> None:
        me = client.node.node_id
        await others(client, 5, 6)
        await create(client, assigned([me, 6], [5, 6], [5, me]))
        fields = {"topics": [{"topic": "t", "partitions": [0, 1, 2, 3]}]}
        answer = await client.ask("DescribeLogDirs", 4, fields)
        (topic,) = answer["results"][0]["topics"]
        assert sorted(one["partition_index"] for one in topic["partitions"]) == [0, 2]
        assert {one["offset_lag"] for one in topic["partitions"]} == {0}
        producers = {"topics": [{"name": "t", "partition_indexes": [0, 1, 2, 3]}]}
        (topic,) = (await client.ask("DescribeProducers", 0, producers))["topics"]
        assert {one["partition_index"]: code(one) for one in topic["partitions"]} == {
            0: "none",
            1: "not_leader_or_follower",
            # A follower is asked about what it knows.
            2: "none",
            3: "unknown_topic_or_partition",
        }

    run(tmp_path, body)
