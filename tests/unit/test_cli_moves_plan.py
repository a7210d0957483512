"""Plans of moves: what must hold of each, whatever the cluster looks like, and examples to read."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from measuring import cpu_at_most
from ottla.cli.errors import CliError
from ottla.cli.moves import plan_file
from ottla.cli.moves.plan import PlanError, copies, plan
from ottla.metadata import placement
from ottla.types import TopicPartition

Replicas = dict[TopicPartition, tuple[int, ...]]


def topic(name: str, *replicas: Sequence[int]) -> Replicas:
    return {TopicPartition(name, i): tuple(one) for i, one in enumerate(replicas)}


def applied(current: Replicas, planned: Mapping[TopicPartition, tuple[int, ...]]) -> Replicas:
    assert planned.keys() <= current.keys()
    return {**current, **planned}


def loads(assignment: Replicas, nodes: Sequence[int]) -> list[int]:
    counts = Counter(node for replicas in assignment.values() for node in replicas)
    return [counts[node] for node in nodes]


def leaders(assignment: Replicas, nodes: Sequence[int]) -> list[int]:
    counts = Counter(replicas[0] for replicas in assignment.values())
    return [counts[node] for node in nodes]


def no_racks(*nodes: int) -> dict[int, str | None]:
    return dict.fromkeys(nodes)


def crowds(replicas: Sequence[int], racks: Mapping[int, str | None]) -> int:
    counts = Counter(racks[node] for node in replicas)
    return sum(n * (n - 1) // 2 for n in counts.values())


def fewest_crowds(factor: int, racks: Mapping[int, str | None]) -> int:
    """What is unavoidable: one replica after the other to the rack with the fewest that has nodes left."""
    sizes = Counter(racks.values())
    taken: Counter[str | None] = Counter()
    for _ in range(factor):
        taken[min((rack for rack in sizes if taken[rack] < sizes[rack]), key=lambda rack: taken[rack])] += 1
    return sum(n * (n - 1) // 2 for n in taken.values())


# -- examples ---------------------------------------------------------------------------------------------


def test_a_new_node_takes_its_share_and_nothing_else_moves() -> None:
    current = topic("a", (1, 2), (2, 3), (3, 1), (1, 2), (2, 3), (3, 1))
    planned = plan(current, no_racks(1, 2, 3, 4))
    after = applied(current, planned)
    assert loads(after, [1, 2, 3, 4]) == [3, 3, 3, 3]
    assert copies(current, planned) == 3
    assert sorted(leaders(after, [1, 2, 3, 4])) == [1, 1, 2, 2]


def test_what_is_balanced_stays() -> None:
    assert plan(topic("a", (1, 2), (2, 3), (3, 1)), no_racks(1, 2, 3)) == {}


def test_a_node_is_drained_into_the_same_racks_free_places() -> None:
    racks = {1: "a", 2: "b", 4: "c", 5: "a"}
    current = topic("t", (3, 1, 2), (1, 2, 3), (2, 3, 1))
    planned = plan(current, racks, balance=False)
    assert all(set(replicas) == {1, 2, 4} for replicas in planned.values())
    assert planned.keys() == current.keys()


def test_a_drained_leader_is_followed_by_a_replica_that_has_the_data() -> None:
    planned = plan(topic("t", (3, 1), (3, 2), (3, 1)), no_racks(1, 2), balance=False)
    assert planned == topic("t", (1, 2), (2, 1), (1, 2))


def test_draining_moves_nothing_else_however_crooked_it_is() -> None:
    current = topic("t", (1,), (1,), (1,), (1,), (3,))
    assert plan(current, no_racks(1, 2), balance=False) == {TopicPartition("t", 4): (2,)}


def test_more_replicas_keep_the_old_ones_and_use_other_racks() -> None:
    racks = {1: "a", 2: "a", 3: "b", 4: "c"}
    planned = plan(topic("t", (1,)), racks, replication_factor=3)
    assert planned == topic("t", (1, 3, 4))


def test_fewer_replicas_keep_the_leader_and_the_racks() -> None:
    racks = {1: "a", 2: "a", 3: "b", 4: "c"}
    (replicas,) = plan(topic("t", (1, 2, 3, 4)), racks, replication_factor=3).values()
    assert replicas == (1, 3, 4)


def test_replicas_leave_a_rack_that_they_crowd() -> None:
    racks = {1: "a", 2: "a", 3: "b"}
    (replicas,) = plan(topic("t", (1, 2)), racks).values()
    assert replicas in ((1, 3), (3, 1))


def test_leaders_alone_are_changed_where_replicas_are_even() -> None:
    current = topic("t", (1, 2, 3), (1, 2, 3), (1, 2, 3))
    planned = plan(current, no_racks(1, 2, 3))
    assert copies(current, planned) == 0
    assert leaders(applied(current, planned), [1, 2, 3]) == [1, 1, 1]
    assert len(planned) == 2


def test_the_replicas_of_one_topic_do_not_flock_to_the_new_node() -> None:
    current = {**topic("a", *[(1,)] * 6), **topic("b", *[(1,)] * 6)}
    planned = plan(current, no_racks(1, 2))
    assert Counter(p.topic for p in planned) == {"a": 3, "b": 3}


def test_among_equals_the_node_with_less_of_other_topics_is_taken() -> None:
    assert plan(topic("t", (9,)), no_racks(1, 2, 3), others={1: 5, 2: 1, 3: 4}) == topic("t", (2,))


def test_too_few_nodes_are_an_error_that_counts() -> None:
    with pytest.raises(PlanError, match="t-0 is to have 3 replicas, and there are 2 nodes"):
        plan(topic("t", (1, 2, 3)), no_racks(1, 2))


def test_leadership_reaches_a_node_over_another_where_it_cannot_directly() -> None:
    current = topic("t", (1, 2), (1, 2), (2, 3))
    after = applied(current, plan(current, no_racks(1, 2, 3)))
    assert leaders(after, [1, 2, 3]) == [1, 1, 1]


def test_a_rack_is_not_crowded_for_the_sake_of_balance() -> None:
    racks: dict[int, str | None] = {1: "a", 2: "b", 3: "b"}
    current = topic("t", (1, 2), (1, 2), (1, 2), (1, 2))
    after = applied(current, plan(current, racks))
    assert loads(after, [1, 2, 3]) == [4, 2, 2]


# -- what always holds ------------------------------------------------------------------------------------


@st.composite
def clusters(draw: st.DrawFn, *, racks: bool) -> tuple[Replicas, dict[int, str | None], int | None]:
    """Partitions on up to eight nodes, some of which must go, and others are new."""
    names = st.sampled_from(["a", "b", "c"]) if racks else st.none()
    stay = draw(st.lists(st.integers(1, 8), min_size=1, max_size=7, unique=True))
    targets = {node: draw(names) for node in sorted(stay)}
    current: Replicas = {}
    for name in draw(st.sampled_from(["x", "xy", "xyz"])):
        factor = draw(st.integers(1, min(4, len(targets))))
        for index in range(draw(st.integers(1, 12))):
            replicas = draw(st.permutations(range(1, 9)))[:factor]
            current[TopicPartition(name, index)] = tuple(replicas)
    wanted = draw(st.none() | st.integers(1, len(targets)))
    return current, targets, wanted


def check(current: Replicas, racks: dict[int, str | None], wanted: int | None, *, balance: bool) -> Replicas:
    """What must be so of every plan; the assignment after it."""
    planned = plan(current, racks, replication_factor=wanted, balance=balance)
    after = applied(current, planned)
    for partition, replicas in after.items():
        assert len(replicas) == len(set(replicas)) == (wanted or len(current[partition]))
        assert set(replicas) <= racks.keys()
        assert partition not in planned or replicas != current[partition]
    assert plan(current, racks, replication_factor=wanted, balance=balance) == planned
    return after


def check_leaders(after: Replicas, nodes: Sequence[int]) -> None:
    """No leadership can be passed on, over however many others, to a node that has two less."""
    led = dict(zip(nodes, leaders(after, nodes), strict=True))
    for start in nodes:
        reached, todo = {start}, [start]
        while todo:
            at = todo.pop()
            near = {node for replicas in after.values() if replicas[0] == at for node in replicas}
            todo += near - reached
            reached |= near
        assert led[start] - min(led[node] for node in reached) <= 1


@given(clusters(racks=False))
def test_without_racks_every_plan_is_even_and_moves_the_least(
    cluster: tuple[Replicas, dict[int, str | None], int | None],
) -> None:
    current, racks, wanted = cluster
    after = check(current, racks, wanted, balance=True)
    counts = loads(after, list(racks))
    assert max(counts) - min(counts) <= 1
    check_leaders(after, list(racks))
    assert plan(after, racks, replication_factor=wanted) == {}, "a plan leaves nothing to plan"
    if wanted is None:
        # A node keeps what it had, up to its share; and what must go may push one other thing aside.
        kept = sum(len(set(after[p]) & set(current[p])) for p in current)
        gone = sum(len(set(replicas) - racks.keys()) for replicas in current.values())
        could = sum(map(min, counts, loads(current, list(racks))))
        assert could - gone <= kept <= could


@given(clusters(racks=True))
def test_racks_are_used_as_evenly_as_their_nodes_allow(
    cluster: tuple[Replicas, dict[int, str | None], int | None],
) -> None:
    current, racks, wanted = cluster
    after = check(current, racks, wanted, balance=True)
    for replicas in after.values():
        assert crowds(replicas, racks) == fewest_crowds(len(replicas), racks)
    check_leaders(after, list(racks))
    # Nodes of one rack can always take from one another.
    for rack in set(racks.values()):
        counts = loads(after, [node for node in racks if racks[node] == rack])
        assert max(counts) - min(counts) <= 1


@given(clusters(racks=True))
def test_without_balancing_only_what_must_go_goes(
    cluster: tuple[Replicas, dict[int, str | None], int | None],
) -> None:
    current, racks, _ = cluster
    after = check(current, racks, None, balance=False)
    for partition, replicas in current.items():
        kept = [node for node in replicas if node in racks]
        assert set(kept) <= set(after[partition])
        if len(kept) == len(replicas):
            assert after[partition] == replicas
        if kept:
            assert after[partition][0] in kept, "a leader that has the data"


def test_a_large_cluster_is_planned_in_seconds() -> None:
    racks: dict[int, str | None] = {node: f"r{node % 3}" for node in range(1, 31)}
    old = {node: rack for node, rack in racks.items() if node <= 27}
    current: Replicas = {}
    for number in range(200):
        name = f"t{number}"
        current |= topic(name, *placement.place(old, 100, 3, number))
    for attempt in cpu_at_most(10, attempts=2):
        with attempt.cpu():
            planned = plan(current, racks)
    counts = loads(applied(current, planned), list(racks))
    assert max(counts) - min(counts) <= 1
    # A tenth of all replicas, and no more than was out of balance before.
    assert copies(current, planned) <= 0.12 * sum(counts)


# -- files ------------------------------------------------------------------------------------------------


def test_a_plan_survives_its_file() -> None:
    planned = {**topic("b", (1, 2), (3,)), **topic("a-1", (5, 4))}
    document = plan_file.to_document(planned)
    assert plan_file.parse(json.dumps(document)) == planned
    assert document["partitions"][0] == {
        "topic": "a-1",
        "partition": 0,
        "replicas": [5, 4],
        "log_dirs": ["any", "any"],
    }


def test_a_file_as_people_write_it() -> None:
    text = '{"version":1,"partitions":[{"topic":"t","partition":3,"replicas":[1,2]}]}'
    assert plan_file.parse(text) == {TopicPartition("t", 3): (1, 2)}


@pytest.mark.parametrize(
    ("partitions", "said"),
    [
        ([], "names no partitions"),
        (["x"], "is not a partition"),
        ([{"topic": "t", "replicas": [1]}], "names no topic and partition"),
        ([{"topic": "t", "partition": True, "replicas": [1]}], "names no topic and partition"),
        ([{"topic": "t", "partition": 0, "replicas": []}], "needs replicas"),
        ([{"topic": "t", "partition": 0, "replicas": ["1"]}], "needs replicas"),
        ([{"topic": "t", "partition": 0, "replicas": [1, 1]}], "has a node twice"),
        ([{"topic": "t", "partition": 0, "replicas": [1], "log_dirs": ["/d"]}], "one data directory"),
        ([{"topic": "t", "partition": 0, "replicas": [1]}] * 2, "is in it twice"),
    ],
)
def test_what_is_wrong_with_a_file_is_said(partitions: object, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        plan_file.parse(json.dumps({"version": 1, "partitions": partitions}))


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"version": 2, "partitions": []}', '{"partitions": {}}'])
def test_what_is_no_plan_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="it"):
        plan_file.parse(text)


def test_a_file_that_is_not_there_is_one_line() -> None:
    from pathlib import Path

    with pytest.raises(CliError, match="there is no such file"):
        plan_file.read(Path("/nowhere/plan.json"))
