"""Where new partitions go."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from types import MappingProxyType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ottla.errors import ErrorCode, KafkaError
from ottla.metadata import placement


def place(
    racks: Mapping[int, str | None],
    partitions: int,
    factor: int,
    start: int,
    spare: Mapping[int, str | None] = MappingProxyType({}),
) -> list[tuple[int, ...]]:
    """All of them at once."""
    return list(placement.place(racks, partitions, factor, start, spare))


def test_one_broker_holds_everything() -> None:
    assert place({1: None}, 3, 1, 7) == [(1,), (1,), (1,)]


def test_leaders_and_replicas_take_turns() -> None:
    placed = place(dict.fromkeys((1, 2, 3)), 6, 2, 0)
    assert placed == [(1, 2), (2, 3), (3, 1), (1, 3), (2, 1), (3, 2)]


def test_replicas_of_a_partition_are_in_different_racks() -> None:
    racks = {1: "a", 2: "a", 3: "b", 4: "b", 5: "c", 6: "c"}
    for replicas in place(racks, 12, 3, 0):
        assert {racks[node] for node in replicas} == {"a", "b", "c"}


@pytest.mark.parametrize(("brokers", "factor"), [(0, 1), (1, 2), (3, 4)])
def test_more_replicas_than_brokers_cannot_be(brokers: int, factor: int) -> None:
    with pytest.raises(KafkaError) as caught:
        place(dict.fromkeys(range(brokers)), 1, factor, 0)
    assert caught.value.code is ErrorCode.invalid_replication_factor
    assert f"only {brokers} broker(s) are registered" in (caught.value.message or "")


def test_without_a_node_that_lives_nothing_is_placed() -> None:
    with pytest.raises(KafkaError) as caught:
        place({}, 1, 1, 0, {1: None})
    assert caught.value.code is ErrorCode.invalid_replication_factor
    assert "currently fenced" in (caught.value.message or "")


def test_nodes_that_are_dead_are_used_only_where_the_others_are_too_few() -> None:
    live, dead = {1: "a", 2: "b"}, {3: "c", 4: "c"}
    assert {frozenset(replicas) for replicas in place(live, 8, 2, 0, dead)} == {frozenset((1, 2))}
    placed = place(live, 8, 3, 0, dead)
    assert all(set(replicas[:2]) == {1, 2} and replicas[2] in dead for replicas in placed)
    assert Counter(replicas[2] for replicas in placed) == {3: 4, 4: 4}
    assert all(len(set(replicas)) == 4 for replicas in place(live, 8, 4, 0, dead))


def test_what_a_node_leads_is_followed_by_all_others() -> None:
    """When it dies, they share what it led."""
    racks: dict[int, str | None]
    for racks in (dict.fromkeys(range(5)), {node: f"rack{node}" for node in range(5)}):
        pairs = Counter(replicas[:2] for replicas in place(racks, 100, 2, 3))
        assert set(pairs.values()) == {5}


@pytest.mark.parametrize(
    "racks", [{1: "a", 2: "a", 3: "a", 4: "b"}, {1: None, 2: None, 3: "b", 4: "c", 5: "c"}]
)
def test_leaders_spread_evenly_over_racks_of_any_size(racks: dict[int, str | None]) -> None:
    leaders = Counter(replicas[0] for replicas in place(racks, 10 * len(racks), 2, 7))
    assert set(leaders.values()) == {10}


def test_replicas_spread_evenly_within_racks() -> None:
    racks = {node: "abc"[node % 3] for node in range(12)}
    held = Counter(node for replicas in place(racks, 100, 3, 1) for node in replicas)
    assert max(held.values()) - min(held.values()) <= 2


racks_of_one_size = st.tuples(st.integers(1, 4), st.integers(1, 4)).map(
    lambda shape: {rack * 10 + node: f"rack{rack}" for rack in range(shape[0]) for node in range(shape[1])}
)
any_racks = st.dictionaries(
    st.integers(0, 50), st.sampled_from([None, "a", "b", "c"]), min_size=1, max_size=9
)


@given(any_racks, st.integers(1, 40), st.data(), st.integers(0, 1000))
def test_every_partition_has_different_brokers_spread_over_the_racks(
    racks: dict[int, str | None], partitions: int, data: st.DataObject, start: int
) -> None:
    factor = data.draw(st.integers(1, len(racks)))
    placed = place(racks, partitions, factor, start)
    assert len(placed) == partitions
    sizes = Counter(racks.values())
    for replicas in placed:
        assert len(set(replicas)) == factor
        assert set(replicas) <= set(racks)
        used = Counter(racks[node] for node in replicas)
        # No rack holds two more than another one that still had a free broker.
        for rack, count in sizes.items():
            if used[rack] < count:
                assert max(used.values()) <= used[rack] + 1


@given(racks_of_one_size, st.integers(1, 5), st.data(), st.integers(0, 1000))
def test_over_whole_rounds_every_broker_leads_and_holds_the_same(
    racks: dict[int, str], rounds: int, data: st.DataObject, start: int
) -> None:
    factor = data.draw(st.integers(1, len(racks)))
    placed = place(racks, rounds * len(racks), factor, start)
    leaders = Counter(replicas[0] for replicas in placed)
    held = Counter(node for replicas in placed for node in replicas)
    assert set(leaders.values()) == {rounds}
    assert len(leaders) == len(racks)
    assert max(held.values()) - min(held.values()) <= 1 + rounds
    assert sum(held.values()) == rounds * len(racks) * factor


def test_several_processes_on_each_machine() -> None:
    """Nodes of one machine are one rack: all of them lead alike, and no partition is on one machine twice."""
    machines = {node_id: f"m{node_id // 8}" for node_id in range(16)}
    placed = place(machines, 64, 2, 3)
    assert all(len({machines[node_id] for node_id in replicas}) == 2 for replicas in placed)
    assert set(Counter(replicas[0] for replicas in placed).values()) == {4}
    held = Counter(node_id for replicas in placed for node_id in replicas).values()
    assert len(held) == 16
    assert max(held) - min(held) <= 2
    # One machine of its own size beside them.
    machines[16] = "small"
    placed = place(machines, 68, 3, 0)
    assert all(len({machines[node_id] for node_id in replicas}) == 3 for replicas in placed)
