"""Reassignments, elections and unregistering in a cluster whose controller works."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from members_support import Member, Members, run

from ottla.errors import ErrorCode, KafkaError
from ottla.metadata.image import PartitionState
from ottla.metadata.partition_admin import (
    Plan,
    change_each,
    elects_preferred,
    elects_unclean,
    goes_back,
    moves_to,
)
from ottla.metadata.reassignment import is_reassigning
from ottla.types import TopicPartition

T0 = TopicPartition("t", 0)


def scenario(path: Path, body: Callable[[Members], Coroutine[Any, Any, None]]) -> None:
    run(path, body, {"min.insync.replicas": "1"})


def to(*target: int, allow: bool = True) -> Plan:
    return moves_to(target, allow_factor_change=allow)


async def ask(node: Member, plan: Plan, where: TopicPartition = T0) -> str:
    """The error's name."""
    results = await change_each(node.metadata, node.config, {where: plan})
    error = results[where]
    return "none" if error is None else error.code.name


def test_a_reassignment_is_completed_by_the_controller(tmp_path: Path) -> None:
    async def body(members: Members) -> None:
        await members.start(1, 2, 3)
        await members.create("t", [1, 2])
        assert await ask(members.nodes[3], to(3, 1)) == "none"
        state = members.nodes[3].image.topics["t"].partitions[0]
        assert (state.replicas, state.adding_replicas, state.removing_replicas) == ((3, 1, 2), (3,), (2,))
        await members.until(lambda: is_reassigning(members.state()))
        await members.set_isr(1, 2, 3)
        state = await members.until_state(1, (1, 3))
        assert (state.replicas, state.leader_epoch) == ((3, 1), 1)
        assert not is_reassigning(state)

    scenario(tmp_path, body)


def test_where_the_leader_goes_another_leads(tmp_path: Path) -> None:
    async def body(members: Members) -> None:
        await members.start(1, 2, 3)
        await members.create("t", [1])
        assert await ask(members.any(), to(2, 3)) == "none"
        await members.set_isr(1, 2, 3)
        state = await members.until_state(2, (2, 3))
        assert (state.replicas, state.leader_epoch) == ((2, 3), 1)

    scenario(tmp_path, body)


def test_a_reassignment_goes_on_when_who_it_waits_for_died_and_came_back(tmp_path: Path) -> None:
    async def body(members: Members) -> None:
        await members.start(1, 2, 3)
        await members.create("t", [1, 2])
        await ask(members.any(), to(1, 3))
        await members.kill(3)
        await members.until(lambda: 3 not in members.any().image.brokers)
        assert is_reassigning(members.state())
        await members.start(3)
        await members.set_isr(1, 2, 3)
        await members.until_state(1, (1, 3))

    scenario(tmp_path, body)


def test_cancelling_and_what_cannot_be(tmp_path: Path) -> None:
    async def body(members: Members) -> None:
        await members.start(1, 2, 3)
        await members.create("t", [1, 2])
        node = members.any()
        assert await ask(node, goes_back) == "no_reassignment_in_progress"
        for target in ((), (1, 1), (1, 9), (-1,)):
            assert await ask(node, to(*target)) == "invalid_replica_assignment"
        assert await ask(node, to(1), TopicPartition("t", 1)) == "unknown_topic_or_partition"
        assert await ask(node, to(1), TopicPartition("t", -1)) == "unknown_topic_or_partition"
        assert await ask(node, to(1), TopicPartition("u", 0)) == "unknown_topic_or_partition"
        assert await ask(node, to(1, 2, 3, allow=False)) == "invalid_replication_factor"
        assert members.state().partition_epoch == 0
        assert await ask(node, to(1, 3, allow=False)) == "none"
        assert await ask(node, goes_back) == "none"
        state = node.image.topics["t"].partitions[0]
        assert (state.replicas, state.isr, is_reassigning(state)) == ((1, 2), (1, 2), False)

    scenario(tmp_path, body)


def test_a_node_that_is_dead_can_be_a_target(tmp_path: Path) -> None:
    """As in Kafka: it is a member of the cluster, and may be back."""

    async def body(members: Members) -> None:
        await members.start(1, 2)
        await members.stop(2)
        await members.create("t", [1])
        assert await ask(members.any(), to(1, 2)) == "none"
        assert members.state().adding_replicas == (2,)

    scenario(tmp_path, body)


def test_many_changes_and_one_that_loses_a_race(tmp_path: Path) -> None:
    """More than one transaction; the store has something newer than the plan."""

    async def body(members: Members) -> None:
        await members.start(1, 2, 3)
        await members.create("t", *[[1, 2]] * 150)
        node, other = members.nodes[1], members.nodes[2]
        topic = node.image.topics["t"]

        async def meanwhile() -> None:
            state = topic.partitions[3]
            made = PartitionState(2, 1, 1, (1, 2), (2,))
            assert await other.metadata.controller.change_partition(topic, 3, state, made)

        node.store.before_txn = meanwhile
        places = [TopicPartition("t", index) for index in range(150)]
        results = await change_each(node.metadata, node.config, {where: to(1, 3) for where in places})
        assert set(results.values()) == {None}
        states = node.image.topics["t"].partitions
        assert all(state.replicas == (1, 3, 2) for state in states)
        assert states[3].leader == 2

    scenario(tmp_path, body)


def test_what_cannot_be_committed_is_said(tmp_path: Path) -> None:
    async def body(members: Members) -> None:
        await members.start(1, 2, leads=False)
        await members.create("t", [1])
        node = members.any()
        node.store.out_of_reach = True
        assert await ask(node, to(2)) == "request_timed_out"
        node.store.out_of_reach = False

    scenario(tmp_path, body)


def test_the_rest_of_many_changes_is_not_tried_where_the_store_fails(tmp_path: Path) -> None:
    async def body(members: Members) -> None:
        await members.start(1, 2, leads=False)
        await members.create("t", *[[1]] * 500)
        node = members.any()
        places = [TopicPartition("t", index) for index in range(500)]
        node.store.txns.clear()
        node.store.unheard = 500
        results = await change_each(node.metadata, node.config, {where: to(2) for where in places})
        assert {error.code.name for error in results.values() if error} == {"request_timed_out"}
        assert None not in results.values()
        assert len(node.store.txns) == 1
        node.store.unheard = 0

    scenario(tmp_path, body)


def test_the_preferred_leader_is_elected_where_it_can_be(tmp_path: Path) -> None:
    async def body(members: Members) -> None:
        await members.start(1, 2, 3, leads=False)
        await members.create("t", [1, 2], [2, 1])
        node = members.nodes[3]
        assert await ask(node, elects_preferred) == "election_not_needed"
        topic = node.image.topics["t"]
        for state in (
            PartitionState(2, 1, 1, (1, 2), (2,)),
            PartitionState(2, 1, 2, (1, 2), (1, 2)),
        ):
            before = node.image.topics["t"].partitions[0]
            assert await node.metadata.controller.change_partition(topic, 0, before, state)
            if len(state.isr) == 1:
                assert await ask(node, elects_preferred) == "preferred_leader_not_available"
        assert await ask(node, elects_preferred) == "none"
        made = node.image.topics["t"].partitions[0]
        assert (made.leader, made.leader_epoch, made.partition_epoch) == (1, 2, 3)

    scenario(tmp_path, body)


def test_an_unclean_leader_is_elected_only_where_there_is_none(tmp_path: Path) -> None:
    async def body(members: Members) -> None:
        await members.start(1, 2, 3, leads=False)
        await members.create("t", [1, 2], [2, 1])
        node = members.nodes[3]
        assert await ask(node, elects_unclean) == "election_not_needed"
        topic, before = node.image.topics["t"], node.image.topics["t"].partitions[0]
        lost = PartitionState(-1, 1, 1, (1, 2), (), last_elr=(1,))
        assert await node.metadata.controller.change_partition(topic, 0, before, lost)
        await members.kill(1)
        await members.until(lambda: 1 not in node.image.brokers)
        assert await ask(node, elects_unclean) == "none"
        made = node.image.topics["t"].partitions[0]
        assert (made.leader, made.isr, made.leader_epoch) == (2, (2,), 2)

        dead = PartitionState(-1, 3, 4, (1, 2), (), last_elr=(1,))
        assert await node.metadata.controller.change_partition(topic, 0, made, dead)
        await members.kill(2)
        await members.until(lambda: 2 not in node.image.brokers)
        assert await ask(node, elects_unclean) == "eligible_leaders_not_available"

    scenario(tmp_path, body)


def test_a_leader_that_registers_anew_meanwhile_is_not_elected_on_what_it_was(tmp_path: Path) -> None:
    async def body(members: Members) -> None:
        await members.start(1, 2, 3, leads=False)
        await members.create("t", [1, 2])
        node = members.nodes[3]
        topic, before = node.image.topics["t"], node.image.topics["t"].partitions[0]
        led = PartitionState(2, 1, 1, (1, 2), (1, 2))
        assert await node.metadata.controller.change_partition(topic, 0, before, led)

        async def meanwhile() -> None:
            await members.kill(1)
            await members.start(1, leads=False)

        node.store.before_txn = meanwhile
        # It came back as a stranger: out of the ISR.
        assert await ask(node, elects_preferred) == "preferred_leader_not_available"
        state = node.image.topics["t"].partitions[0]
        assert (state.leader, state.isr) == (2, (2,))

    scenario(tmp_path, body)


def test_unregistering_a_node(tmp_path: Path) -> None:
    async def body(members: Members) -> None:
        await members.start(1, 2)

        async def refused(node_id: int) -> ErrorCode:
            with pytest.raises(KafkaError) as raised:
                await members.nodes[1].metadata.controller.unregister_node(node_id)
            return raised.value.code

        assert await refused(2) is ErrorCode.invalid_request
        assert await refused(7) is ErrorCode.broker_id_not_registered
        await members.stop(2)
        await members.nodes[1].metadata.controller.unregister_node(2)
        assert 2 not in members.nodes[1].image.nodes
        assert await refused(2) is ErrorCode.broker_id_not_registered
        assert await ask(members.any(), to(1), TopicPartition("u", 0)) == "unknown_topic_or_partition"
        await members.create("t", [1])
        assert await ask(members.any(), to(2)) == "invalid_replica_assignment"
        # It may come back, as a new node.
        await members.start(2)
        assert 2 in members.nodes[2].image.nodes

    scenario(tmp_path, body)


def test_a_node_that_joins_while_it_is_unregistered_stays(tmp_path: Path) -> None:
    async def body(members: Members) -> None:
        await members.start(1, 2)
        await members.stop(2)
        node = members.nodes[1]
        node.store.before_txn = lambda: members.start(2)
        with pytest.raises(KafkaError) as raised:
            await node.metadata.controller.unregister_node(2)
        assert raised.value.code is ErrorCode.invalid_request
        await asyncio.sleep(0)
        assert 2 in node.image.nodes and 2 in node.image.brokers

    scenario(tmp_path, body)
