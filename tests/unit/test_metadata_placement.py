"""Where new partitions go."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ottla.errors import ErrorCode, KafkaError
from ottla.metadata.placement import place


def test_one_broker_holds_everything() -> None:
    assert place({1: None}, 3, 1, 7) == [(1,), (1,), (1,)]


def test_leaders_and_replicas_take_turns() -> None:
    assert place(dict.fromkeys((1, 2, 3)), 4, 2, 0) == [(1, 2), (2, 3), (3, 1), (1, 2)]


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
    assert max(held.values()) - min(held.values()) <= rounds * factor
    assert sum(held.values()) == rounds * len(racks) * factor
