"""The controller's loop, in clusters of several members over one store, and its plans."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from uuid import UUID

import pytest
from members_support import SESSION_MS, Members, run

from measuring import cpu_at_most, not_waiting
from ottla.metadata import keys
from ottla.metadata.changes import COMPARES_MAX, PartitionChange, in_txns, new_leaders, to_txn
from ottla.metadata.elections import preferred
from ottla.metadata.image import (
    EMPTY,
    BrokerImage,
    ClusterImage,
    PartitionState,
    TopicImage,
    initial_state,
)
from ottla.metadata.leadership_plan import Rules, awaits_hand_over, balance, claims, plan
from ottla.metadata.membership import HAND_OVER_MS_MAX
from ottla.metadata.store import TXN_OPERATIONS_MAX, Delete, Put, check_txn

# Plans ------------------------------------------------------------------------


def rules(topic: TopicImage) -> Rules:
    return Rules(int(topic.configs.get("min", "2")), "unclean" in topic.configs)


def topic(name: str, *states: PartitionState, **configs: str) -> TopicImage:
    made = UUID(int=sum(name.encode()))
    return TopicImage(name, made, states, configs, tuple(s.replicas for s in states), 1)


def broker(node_id: int, epoch: int = 1) -> BrokerImage:
    return BrokerImage(node_id, "h", 1, None, epoch)


def cluster(live: Sequence[int], *topics: TopicImage, stopping: Sequence[int] = ()) -> ClusterImage:
    return replace(
        EMPTY,
        brokers={n: broker(n) for n in live},
        stopping=dict.fromkeys(stopping, True),
        topics={t.name: t for t in topics},
        topics_by_id={t.topic_id: t for t in topics},
    )


def briefly(changes: Sequence[PartitionChange]) -> list[tuple[object, ...]]:
    return [(c.topic.name, c.index, c.state.leader, c.state.isr, c.state.elr) for c in changes]


def test_a_cluster_in_order_needs_nothing() -> None:
    image = cluster((1, 2), topic("t", initial_state((1, 2)), initial_state((2, 1))))
    assert plan(None, image, rules) == []
    assert plan(image, image, rules) == []


def test_leaders_are_moved_before_isrs_shrink() -> None:
    follows, leads = initial_state((2, 1, 3)), initial_state((1, 2, 3))
    image = cluster((2, 3), topic("a", follows, leads), topic("b", leads))
    assert briefly(plan(None, image, rules)) == [
        ("a", 1, 2, (2, 3), ()),
        ("b", 0, 2, (2, 3), ()),
        ("a", 0, 2, (2, 3), ()),
    ]


def test_a_node_that_registered_anew_within_one_step_counts_as_dead() -> None:
    old = cluster((1, 2), topic("t", initial_state((1, 2)), initial_state((2, 1))))
    new = replace(old, brokers={1: broker(1, 7), 2: broker(2)})
    assert briefly(plan(old, new, rules)) == [("t", 0, 2, (2,), (1,)), ("t", 1, 2, (2,), (1,))]
    alone = cluster((1,), topic("t", initial_state((1,))))
    (change,) = plan(alone, replace(alone, brokers={1: broker(1, 7)}), rules)
    assert (change.state.leader, change.state.leader_epoch, change.state.isr) == (1, 1, (1,))


def test_only_what_changed_is_looked_at_unless_nodes_did() -> None:
    broken = initial_state((3, 1))
    old = cluster((1, 2), topic("t", broken, initial_state((1, 2))), topic("u", broken))
    other = topic("u", broken, broken)
    new = replace(old, topics={**old.topics, "u": other})
    assert briefly(plan(old, new, rules)) == [("u", 1, 1, (1,), (3,))]
    assert briefly(plan(old, new, rules, {"t": {0: None}, "u": {0: None, 9: None}, "gone": [0]})) == [
        ("u", 1, 1, (1,), (3,)),
        ("u", 0, 1, (1,), (3,)),
        ("t", 0, 1, (1,), (3,)),
    ]
    renamed = replace(other, configs={"min": "1"})
    assert len(plan(old, replace(old, topics={**old.topics, "u": renamed}), rules)) == 2
    assert len(plan(old, replace(new, brokers=dict(new.brokers)), rules)) == 3
    assert len(plan(old, replace(new, broker_configs={1: {}}), rules)) == 3


def test_a_stopping_node_hands_over_what_others_can_take() -> None:
    image = cluster(
        (1, 2, 3),
        topic(
            "t",
            initial_state((1, 2, 3)),
            initial_state((2, 1, 3)),
            initial_state((1,)),
            replace(initial_state((1, 2)), isr=(1,), partition_epoch=1, elr=(2,)),
            initial_state((1, 2)),
        ),
        stopping=(1,),
    )
    assert briefly(plan(None, image, rules)) == [
        ("t", 0, 2, (2, 3), ()),
        ("t", 4, 2, (2,), (1,)),
        ("t", 1, 2, (2, 3), ()),
    ]
    assert awaits_hand_over(image, 1, topic("t", initial_state((1, 2))))
    assert not awaits_hand_over(image, 1, topic("t", initial_state((1,))))
    assert not awaits_hand_over(image, 1, topic("t", initial_state((2, 3))))


def test_nodes_that_stop_together_stay_until_the_end() -> None:
    """Whoever is last has everything: none of them leaves the ISR while only they are in it."""
    image = cluster((1, 2, 3), topic("t", initial_state((1, 2))), stopping=(1, 2))
    assert plan(None, image, rules) == []
    assert not awaits_hand_over(image, 1, image.topics["t"])
    # One of them dies: the other one does not take over, which would be for a moment only.
    image = cluster((2, 3), image.topics["t"], stopping=(2,))
    assert briefly(plan(None, image, rules)) == [("t", 0, -1, (2,), (1,))]


def test_a_topic_that_cannot_be_planned_leaves_the_others_alone(caplog: pytest.LogCaptureFixture) -> None:
    def failing(topic: TopicImage) -> Rules:
        if topic.name == "bad":
            raise ValueError("a bug")
        return rules(topic)

    image = cluster((2, 3), *(topic(name, initial_state((1, 2, 3))) for name in ("a", "bad", "z")))
    assert [change.topic.name for change in plan(None, image, failing)] == ["a", "z"]
    assert "the partitions of topic bad cannot be brought into order" in caplog.text


def test_leaderless_partitions_are_led_when_somebody_can() -> None:
    nobody = replace(initial_state((1, 2, 3)), leader=-1, isr=(), elr=(2,), last_elr=(1,), partition_epoch=4)
    assert plan(None, cluster((1, 3), topic("t", nobody)), rules) == []
    assert briefly(plan(None, cluster((1, 2), topic("t", nobody)), rules)) == [("t", 0, 2, (2,), ())]
    assert briefly(plan(None, cluster((1, 3), topic("t", nobody, unclean="")), rules)) == [
        ("t", 0, 1, (1,), ())
    ]


def test_a_smaller_requirement_ends_an_elr() -> None:
    waiting = replace(initial_state((1, 2)), isr=(1,), elr=(2,), partition_epoch=1)
    old = cluster((1,), topic("t", waiting))
    new = replace(old, topics={"t": topic("t", waiting, min="1")})
    assert briefly(plan(old, new, rules)) == [("t", 0, 1, (1,), ())]


def test_a_reassignment_is_completed_when_those_that_it_adds_are_in_sync() -> None:
    moving = replace(
        initial_state((3, 2, 1)),
        leader=1,
        isr=(1, 2),
        adding_replicas=(3,),
        removing_replicas=(1,),
        partition_epoch=1,
    )
    assert plan(None, cluster((1, 2, 3), topic("t", moving)), rules) == []
    arrived = replace(moving, isr=(1, 2, 3))
    (change,) = plan(None, cluster((1, 2, 3), topic("t", arrived)), rules)
    assert change.state == PartitionState(3, 1, 2, (3, 2), (2, 3))
    # One thing after the other: first whoever died.
    (change,) = plan(None, cluster((2, 3), topic("t", arrived)), rules)
    assert (change.state.leader, change.state.isr, change.state.replicas) == (3, (2, 3), (3, 2, 1))
    (change,) = plan(None, cluster((2, 3), topic("t", change.state)), rules)
    assert change.state == PartitionState(3, 2, 3, (3, 2), (2, 3))


def test_a_plan_carried_out_leaves_nothing_to_plan() -> None:
    states = [initial_state(r) for r in ((1, 2, 3), (2, 3, 1), (3, 1, 2), (1,), (3, 1))]
    for live in ((1, 2), (2,), (1, 3), ()):
        for stopping in ((), (2,), (1, 3)):
            made = list(states)
            image = cluster(live, topic("t", *made), stopping=[n for n in stopping if n in live])
            for change in plan(None, image, rules):
                made[change.index] = change.state
            assert plan(None, replace(image, topics={"t": topic("t", *made)}), rules) == []


def test_a_node_s_claims() -> None:
    image = cluster(
        (2, 3),
        topic(
            "t",
            initial_state((1, 2)),
            initial_state((2, 1)),
            initial_state((2, 3)),
            replace(initial_state((2, 1)), isr=(2,), elr=(1,), partition_epoch=1),
        ),
    )
    assert briefly(claims(image, 1, rules, lost_data=False)) == [
        ("t", 0, -1, (2,), (1,)),
        ("t", 1, 2, (2,), (1,)),
    ]
    assert briefly(claims(image, 1, rules, lost_data=True)) == [
        ("t", 0, -1, (2,), ()),
        ("t", 1, 2, (2,), ()),
        ("t", 3, 2, (2,), ()),
    ]


def test_leadership_is_balanced_where_a_node_leads_too_little() -> None:
    moved = replace(initial_state((1, 2)), leader=2, leader_epoch=1, partition_epoch=1)
    fine = [initial_state((1, 2))] * 9
    image = cluster((1, 2), topic("t", moved, *fine))
    assert balance(image, 10) == []
    assert briefly(balance(image, 9)) == [("t", 0, 1, (1, 2), ())]
    out_of_sync = replace(moved, isr=(2,))
    assert balance(cluster((1, 2), topic("t", out_of_sync)), 10) == []
    assert balance(cluster((2,), topic("t", moved)), 10) == []
    assert balance(cluster((1, 2), topic("t", moved), stopping=(1,)), 10) == []
    assert len(balance(cluster((1, 2), topic("t", *[moved] * 1500)), 10)) == 1000


# Transactions -----------------------------------------------------------------


def test_transactions_keep_to_what_a_store_takes() -> None:
    topics = [topic(f"t{n}", initial_state((n, 100 + n)), initial_state((n, 101 + n))) for n in range(90)]
    image = cluster(range(100, 200), *topics)
    changes = plan(None, image, rules)
    assert len(changes) == 180
    chunks = list(in_txns(changes))
    assert [change for chunk in chunks for change in chunk] == changes
    for chunk in chunks:
        compares, operations = to_txn(chunk)
        # Those that whoever commits adds: new leaders, and a few.
        assert len(compares) + len(new_leaders(chunk)) <= COMPARES_MAX
        assert COMPARES_MAX <= TXN_OPERATIONS_MAX - 8
        check_txn(compares, operations)
    one = topic("u", *[initial_state((1, 2))] * 400)
    assert len(list(in_txns(plan(None, cluster((2,), one), rules)))) == 4


def test_planning_a_failover_of_20_000_partitions_is_quick() -> None:
    replicas = [(n % 30, (n + 7) % 30, (n * 3 + 11) % 30) for n in range(20_000)]
    spread = [tuple(dict.fromkeys(r)) for r in replicas]
    topics = [topic(f"t{n:04}", *map(initial_state, spread[n * 20 : n * 20 + 20])) for n in range(1000)]
    before = cluster(range(30), *topics)
    after = replace(before, brokers={n: b for n, b in before.brokers.items() if n != 3})
    # Measured: 15 ms. Where each partition costs too much it takes hundreds.
    for attempt in cpu_at_most(0.1):
        with attempt.cpu():
            changes = plan(before, after, rules)
        assert len(changes) == sum(3 in replicas for replicas in spread)


# Clusters ---------------------------------------------------------------------


def test_there_is_one_controller_and_another_one_takes_over(tmp_path: Path) -> None:
    async def body(members: Members) -> None:
        await members.start(1, 2, 3)
        await members.until(lambda: members.any().image.controller_id == 1)
        first = members.any().image.controller_epoch
        await members.create("t", (1, 2, 3))
        await members.kill(1)
        await members.until(lambda: members.any().image.controller_id in (2, 3))
        assert members.any().image.controller_epoch > first
        await members.until_state(2, (2, 3))
        assert members.any().metadata.controller_changes == 1

    run(tmp_path, body)


def test_a_dead_node_s_partitions_are_led_by_others_and_it_comes_back(tmp_path: Path) -> None:
    async def body(members: Members) -> None:
        await members.start(1, 2, 3)
        await members.create("t", (2, 3, 1), (3, 1, 2), (1, 2, 3))
        await members.kill(2)
        state = await members.until_state(3, (3, 1), index=0)
        assert (state.leader_epoch, state.partition_epoch) == (1, 1)
        await members.until_state(3, (3, 1), index=1)
        assert members.state("t", 1).leader_epoch == 0
        await members.until_state(1, (1, 3), index=2)
        await members.start(2)
        assert 2 not in members.state("t", 0).isr
        assert members.any().image.brokers[2].epoch == members.nodes[2].membership.broker_epoch

    run(tmp_path, body)


def test_a_node_that_is_back_at_once_is_a_stranger(tmp_path: Path) -> None:
    async def body(members: Members) -> None:
        await members.start(1, 2)
        await members.create("t", (2, 1), (1, 2))
        await members.kill(2, expire=False)
        await members.start(2)
        await members.until_state(1, (1,), index=0)
        await members.until_state(1, (1,), index=1)

    run(tmp_path, body)


def test_a_registration_replaced_behind_everybody_s_back_is_a_death(tmp_path: Path) -> None:
    async def body(members: Members) -> None:
        await members.start(1, 2)
        await members.create("t", (2, 1))
        await members.until(lambda: members.any().image.controller_id == 1)
        node = members.nodes[2]
        # Gone and back within one revision: no image is without it.
        value = keys.broker_value(node.endpoints, None)
        await members.store.txn([], [Put("brokers/2", value, node.membership.lease)])
        await members.until_state(1, (1,))

    run(tmp_path, body)


def test_the_last_one_standing_comes_back_and_leads(tmp_path: Path) -> None:
    async def body(members: Members) -> None:
        await members.start(1, 2, 3, 4)
        await members.create("t", (1, 2, 3), min_insync_replicas="2")
        await members.kill(1)
        await members.until_state(2, (2, 3))
        await members.kill(2)
        await members.until_state(3, (3,), (2,))
        await members.kill(3)
        state = await members.until_state(-1, (), (2, 3))
        made = [node.metadata.elections for node in members.nodes.values()]
        assert sum(one.losses for one in made) == 1
        assert sum(one.changes for one in made) >= 1
        assert sum(one.unclean for one in made) == 0
        assert state.last_elr == (3,)
        # Node 1 was not in sync when records were committed last.
        await members.start(1)
        await asyncio.sleep(0.05)
        assert members.state().leader == -1
        await members.start(3)
        state = await members.until_state(3, (3,), (2,))
        assert state.leader_epoch == 4

    run(tmp_path, body)


def test_a_wiped_node_is_not_elected_while_others_have_the_data(tmp_path: Path) -> None:
    async def body(members: Members) -> None:
        await members.start(1, 2, 3)
        await members.create("t", (1, 2), min_insync_replicas="2")
        await members.kill(1)
        await members.until_state(2, (2,), (1,))
        await members.kill(2)
        await members.until_state(-1, (), (1, 2))
        members.wipe(2)
        await members.start(2)
        state = await members.until_state(-1, (), (1,))
        assert state.last_elr == (2,)
        await members.start(1)
        await members.until_state(1, (1,), ())

    run(tmp_path, body)


def test_where_all_lost_their_data_the_last_leader_begins_anew(tmp_path: Path) -> None:
    async def body(members: Members) -> None:
        await members.start(1, 2)
        await members.create("t", (1,))
        await members.kill(1)
        await members.until_state(-1, (), (1,))
        members.wipe(1)
        await members.start(1)
        state = await members.until_state(1, (1,))
        assert state.leader_epoch == 2

    run(tmp_path, body)


def test_a_topic_made_while_a_node_died_does_without_it(tmp_path: Path) -> None:
    async def body(members: Members) -> None:
        await members.start(1, 2, leads=False)
        await members.create("t", (2, 1))
        await members.kill(2)
        members.nodes[1].leadership.start()
        await members.until_state(1, (1,))

    run(tmp_path, body)


def test_a_controller_that_was_replaced_changes_nothing(tmp_path: Path) -> None:
    async def body(members: Members) -> None:
        await members.start(1, 2, 3)
        await members.create("t", (2, 3))
        await members.until(lambda: members.any().image.controller_id == 1)
        node = members.nodes[1]
        await asyncio.sleep(0.02)

        async def replaced() -> None:
            await members.store.txn([], [Delete("controller"), Delete("brokers/2"), Delete("stopping/2")])
            await members.store.txn([], [Put("controller", keys.encode({"node_id": 3}))])

        members.nodes[3].leadership, idle = members.nodes[1].leadership, members.nodes[3].leadership
        await idle.close()
        image = node.image
        await replaced()
        topic = image.topics["t"]
        change = PartitionChange(topic, 0, topic.partitions[0], replace(topic.partitions[0], isr=(3,)))
        failed, _ = await node.leadership._commit(image, [change])
        assert failed == [change]
        await members.nodes[1].kill()
        members.nodes[3].leadership = idle
        del members.nodes[1]

    run(tmp_path, body)


def test_a_leader_is_elected_by_its_present_registration_only(tmp_path: Path) -> None:
    async def body(members: Members) -> None:
        await members.start(1, 2, 3)
        await members.create("t", (3, 2))
        await members.until(lambda: members.any().image.controller_id == 1)
        node = members.nodes[1]
        image = node.image
        topic = image.topics["t"]
        moved = preferred(replace(topic.partitions[0], replicas=(2, 3)), {2})
        assert moved is not None
        value = keys.broker_value(members.nodes[2].endpoints, None)
        await members.nodes[2].membership.close()
        await members.store.txn([], [Put("brokers/2", value)])
        change = PartitionChange(topic, 0, topic.partitions[0], replace(moved, replicas=(3, 2)))
        failed, _ = await node.leadership._commit(image, [change])
        assert failed == [change]

    run(tmp_path, body)


def test_what_lost_against_others_is_planned_anew(tmp_path: Path) -> None:
    async def body(members: Members) -> None:
        await members.start(1, 2, 3)
        await members.create("t", *[(2, 3, 1)] * 300)
        await members.until(lambda: members.any().image.controller_id == 1)
        node, other = members.nodes[1], members.nodes[3]

        async def meddle() -> None:
            topic = other.image.topics["t"]
            changes = []
            for index in (0, 299):
                state = topic.partitions[index]
                made = replace(state, partition_epoch=state.partition_epoch + 1, isr=(2, 3))
                changes.append(PartitionChange(topic, index, state, made))
            assert await other.metadata.controller.change_partitions(changes)

        node.store.before_txn = meddle
        await members.kill(2)
        await members.until_state(3, (3,), index=0)
        await members.until_state(3, (3,), index=299)
        for index in range(1, 299):
            await members.until_state(3, (3, 1), index=index)
        count = len(node.store.txns)
        await asyncio.sleep(0.05)
        assert len(node.store.txns) == count

    run(tmp_path, body)


def test_an_outage_of_the_store_is_said_once_and_outlasted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def body(members: Members) -> None:
        await members.start(1, 2, 3)
        await members.create("t", (2, 3))
        await members.until(lambda: members.any().image.controller_id == 1)
        node = members.nodes[1]

        async def fail() -> None:
            node.store.unheard = 1

        node.store.before_txn = fail
        await members.kill(2)
        await members.until_state(3, (3,))
        await members.until(lambda: "changes of leadership wait for the metadata store" in caplog.text)
        assert caplog.text.count("changes of leadership wait") == 1

    run(tmp_path, body)


def test_the_only_node_is_controller_again_after_it_lost_its_registration(tmp_path: Path) -> None:
    """Nothing changes in the image any more between its coming back and its taking office."""

    async def body(members: Members) -> None:
        await members.start(1)
        await members.create("t", (1,))
        node = members.nodes[1]
        await members.until(lambda: node.image.controller_id == 1)
        term = node.image.controller_epoch
        node.store.lasts = False
        node.membership.stood_still()
        await members.until(lambda: node.image.controller_epoch > term)
        await members.until_state(1, (1,))

    run(tmp_path, body)


@pytest.mark.parametrize("orderly", [True, False])
def test_the_only_replica_leads_in_another_epoch_after_each_start(tmp_path: Path, orderly: bool) -> None:
    """However fast it is back: what it wrote last may be gone, and readers are to notice (KIP-320)."""

    async def body(members: Members) -> None:
        await members.start(1)
        await members.create("t", (1,))
        epoch = members.state().leader_epoch
        for _ in range(2):
            await (members.stop(1) if orderly else members.kill(1, expire=False))
            await members.start(1)
            state = await members.until_state(1, (1,))
            assert state.leader_epoch > epoch
            epoch = state.leader_epoch

    run(tmp_path, body)


def test_leadership_returns_to_preferred_replicas(tmp_path: Path) -> None:
    async def body(members: Members) -> None:
        await members.start(1, 2)
        await members.create("t", (2, 1))
        await members.kill(2)
        await members.until_state(1, (1,))
        await members.start(2)
        await members.set_isr(1, 2)
        await members.until_state(2, (1, 2))

    run(tmp_path, body, {"leader.imbalance.check.interval.seconds": "1"})


def test_everybody_stops_and_comes_back(tmp_path: Path) -> None:
    async def body(members: Members) -> None:
        await members.start(1, 2, 3)
        await members.create("t", (1, 2, 3), (2, 3, 1), (3, 1, 2), min_insync_replicas="2")
        with not_waiting(HAND_OVER_MS_MAX / 1000):
            await asyncio.gather(*(members.stop(node_id) for node_id in (1, 2, 3)))
        for disk in members.disks.values():
            disk.lose_power()
        await asyncio.gather(*(members.start(node_id) for node_id in (3, 2, 1)))
        for index in range(3):
            await members.until(lambda index=index: members.state("t", index).leader > 0)

    run(tmp_path, body)


def test_sessions_are_as_long_as_these_tests_take_them_to_be() -> None:
    from ottla.config import BrokerConfig

    assert BrokerConfig({}).get("broker.session.timeout.ms") == SESSION_MS
