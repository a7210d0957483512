"""Moving partitions: what begins, completes and goes back, and that nothing committed is left behind."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from ottla.errors import ErrorCode, KafkaError
from ottla.metadata.elections import NO_LEADER, with_isr
from ottla.metadata.image import PartitionState, initial_state
from ottla.metadata.reassignment import (
    cancel_reassignment,
    check_factor_unchanged,
    complete_reassignment,
    is_reassigning,
    original_replicas,
    reassign,
    target_replicas,
)

LIVE = frozenset(range(1, 10))


def at(*replicas: int) -> PartitionState:
    return initial_state(replicas)


def joined(state: PartitionState, *nodes: int) -> PartitionState:
    return with_isr(state, (*state.isr, *nodes), 1)


def test_a_move_goes_on_until_all_that_are_new_are_in_sync() -> None:
    """The target's replicas first, then those that go; nobody leaves before all have come."""
    state = reassign(at(1, 2, 3), (4, 2, 5), LIVE, 1)
    assert (state.replicas, state.adding_replicas, state.removing_replicas) == (
        (4, 2, 5, 1, 3),
        (4, 5),
        (1, 3),
    )
    assert (state.leader, state.leader_epoch, state.partition_epoch, state.isr) == (1, 0, 1, (1, 2, 3))
    assert complete_reassignment(state, LIVE, 1) is None
    state = joined(state, 4)
    assert complete_reassignment(state, LIVE, 1) is None
    state = joined(state, 5)
    done = complete_reassignment(state, LIVE, 1)
    assert done == PartitionState(4, 1, state.partition_epoch + 1, (4, 2, 5), (2, 4, 5))


def test_a_leader_that_stays_leads_on_in_a_new_epoch() -> None:
    """Its epoch fences the replicas that went."""
    state = joined(reassign(at(1, 2, 3), (1, 2, 4), LIVE, 1), 4)
    done = complete_reassignment(state, LIVE, 1)
    assert done is not None
    assert (done.leader, done.leader_epoch, done.isr, done.replicas) == (1, 1, (1, 2, 4), (1, 2, 4))


def test_more_replicas_cost_no_new_leader_epoch() -> None:
    state = joined(reassign(at(1), (1, 2, 3), LIVE, 1), 2, 3)
    done = complete_reassignment(state, LIVE, 1)
    assert done is not None
    assert (done.leader, done.leader_epoch, done.replicas) == (1, 0, (1, 2, 3))


def test_what_needs_no_waiting_is_done_at_once() -> None:
    fewer = reassign(at(1, 2, 3), (3,), LIVE, 1)
    assert fewer == PartitionState(3, 1, 1, (3,), (3,))
    reordered = reassign(at(1, 2, 3), (2, 3, 1), LIVE, 1)
    assert reordered == replace(at(2, 3, 1), leader=1, isr=(1, 2, 3), partition_epoch=1)
    assert reassign(at(1, 2), (1, 2), LIVE, 1) is not None
    same = at(1, 2)
    assert reassign(same, (1, 2), LIVE, 1) is same


def test_a_dead_replica_that_stays_holds_up_only_a_smaller_partition() -> None:
    """Replacing another one goes on; with fewer replicas, the ISR would shrink needlessly."""
    lame = with_isr(at(1, 2, 3), (1, 3), 1)
    replaced = joined(reassign(lame, (1, 2, 4), LIVE - {2}, 1), 4)
    done = complete_reassignment(replaced, LIVE - {2}, 1)
    assert done is not None and set(done.isr) == {1, 4}
    smaller = reassign(lame, (1, 2), LIVE - {2}, 1)
    assert is_reassigning(smaller)
    done = complete_reassignment(joined(smaller, 2), LIVE, 1)
    assert done is not None and done.replicas == (1, 2)


def test_the_isr_does_not_become_too_small_for_writes() -> None:
    lame = with_isr(at(1, 2, 3), (3,), 1)
    state = joined(reassign(lame, (1, 2, 4), LIVE - {1, 2}, 2), 4)
    assert complete_reassignment(state, LIVE - {1, 2}, 2) is None
    assert complete_reassignment(state, LIVE - {1, 2}, 1) is not None
    assert complete_reassignment(joined(state, 1), LIVE - {2}, 2) is not None


def test_a_partition_is_not_left_without_the_leader_that_it_has() -> None:
    state = joined(reassign(at(1), (2,), LIVE, 1), 2)
    assert complete_reassignment(state, frozenset((1,)), 1) is None
    done = complete_reassignment(state, frozenset((1, 2)), 1)
    assert done == PartitionState(2, 1, state.partition_epoch + 1, (2,), (2,))


def test_a_partition_without_a_leader_can_be_moved() -> None:
    dead = replace(with_isr(at(1, 2), (), 1), leader=NO_LEADER, leader_epoch=3)
    state = reassign(dead, (1, 3), LIVE - {1, 2}, 1)
    assert (state.replicas, state.adding_replicas, state.removing_replicas) == ((1, 3, 2), (3,), (2,))
    assert (state.elr, state.leader, state.leader_epoch) == (dead.elr, NO_LEADER, 3)


def test_cancelling_restores_what_was() -> None:
    state = joined(reassign(at(1, 2, 3), (4, 5, 6), LIVE, 1), 4)
    back = cancel_reassignment(state, LIVE, 1)
    assert back == replace(at(1, 2, 3), partition_epoch=state.partition_epoch + 1, leader_epoch=1)
    with pytest.raises(KafkaError) as raised:
        cancel_reassignment(back, LIVE, 1)
    assert raised.value.code is ErrorCode.no_reassignment_in_progress


def test_cancelling_does_not_lose_what_only_new_replicas_have() -> None:
    """Unless the topic allows that."""
    state = joined(reassign(at(1, 2), (3, 4), LIVE, 1), 3)
    state = replace(with_isr(state, (3,), 1), leader=3)
    with pytest.raises(KafkaError) as raised:
        cancel_reassignment(state, LIVE, 1)
    assert raised.value.code is ErrorCode.invalid_replica_assignment
    back = cancel_reassignment(state, LIVE, 1, unclean_enabled=True)
    assert (back.leader, back.isr, back.replicas, back.elr, back.last_elr) == (1, (1,), (1, 2), (), ())
    for field in ("elr", "last_elr"):
        dead = replace(state, leader=NO_LEADER, isr=(), **{field: (3,)})
        with pytest.raises(KafkaError):
            cancel_reassignment(dead, LIVE, 1)


def test_cancelling_goes_back_to_an_eligible_replica() -> None:
    state = reassign(at(1, 2), (3, 4), LIVE, 2)
    state = replace(joined(state, 3), leader=3)
    state = with_isr(state, (3,), 2)
    assert state.elr == (1, 2)
    back = cancel_reassignment(state, LIVE, 2)
    assert (back.leader, back.isr, back.elr) == (1, (1,), (2,))


def test_another_target_replaces_the_first() -> None:
    """The node that is not wanted any more goes with the new outcome, and with the old."""
    state = joined(reassign(at(1, 2, 3), (1, 2, 4), LIVE, 1), 4)
    other = reassign(state, (1, 2, 5), LIVE, 1)
    assert (original_replicas(other), target_replicas(other)) == ((1, 2, 3), (1, 2, 5))
    assert set(other.replicas) == {1, 2, 3, 4, 5}
    done = complete_reassignment(joined(other, 5), LIVE, 1)
    assert done is not None and (done.replicas, done.isr) == ((1, 2, 5), (1, 2, 5))
    back = cancel_reassignment(other, LIVE, 1)
    assert (back.replicas, back.isr) == ((1, 2, 3), (1, 2, 3))
    # Kafka would remove node 3 here: it keeps the old list where the new one is empty.
    kept = reassign(state, (1, 2, 3, 4), LIVE, 1)
    assert kept.replicas == (1, 2, 3, 4) and not is_reassigning(kept)


def test_the_replication_factor_is_that_of_what_will_be() -> None:
    check_factor_unchanged(at(1, 2), (3, 4))
    moving = reassign(at(1, 2), (3, 4, 5), LIVE, 1)
    check_factor_unchanged(moving, (6, 7, 8))
    with pytest.raises(KafkaError) as raised:
        check_factor_unchanged(moving, (6, 7))
    assert raised.value.code is ErrorCode.invalid_replication_factor


NODES = st.lists(st.integers(1, 6), min_size=1, max_size=4, unique=True)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("move"), NODES),
        st.tuples(st.just("join"), st.integers(1, 6)),
        st.tuples(st.just("leave"), st.integers(1, 6)),
        st.tuples(st.just("cancel"), st.none()),
        st.tuples(st.just("complete"), st.none()),
    ),
    max_size=30,
)


@given(NODES, STEPS, st.sets(st.integers(1, 6)), st.integers(1, 3))
def test_whatever_is_asked_for_the_isr_never_gains_a_node_by_it(
    first: list[int], steps: list[tuple[str, object]], live: set[int], min_isr: int
) -> None:
    """So all that was committed stays with whoever can lead."""
    assume(live & set(first))
    state, original = at(*first), tuple(first)
    for step, what in steps:
        before = state
        if step == "move":
            state = reassign(state, what, live, min_isr)  # type: ignore[arg-type]
        elif step == "join" and what in state.replicas and what not in state.isr and state.isr:
            state = with_isr(state, (*state.isr, what), min_isr)  # type: ignore[arg-type]
            continue
        elif step == "leave" and what != state.leader and what in state.isr:
            state = with_isr(state, tuple(n for n in state.isr if n != what), min_isr)
            continue
        elif step == "cancel" and is_reassigning(state):
            try:
                state = cancel_reassignment(state, live, min_isr)
            except KafkaError:
                continue
            assert set(state.replicas) == set(original)
        elif step == "complete":
            state = complete_reassignment(state, live, min_isr) or state
        if state is before:
            continue
        assert state.partition_epoch == before.partition_epoch + 1
        gained = set(state.isr) - set(before.isr)
        assert gained <= set(before.elr)
        assert state.isr or state.elr or state.last_elr
        assert len(set(state.replicas)) == len(state.replicas)
        assert {*state.isr, *state.elr} <= set(state.replicas)
        assert state.leader in (NO_LEADER, *state.isr)
        removed = set(before.replicas) - set(state.replicas)
        assert state.leader_epoch - before.leader_epoch == (bool(removed) or state.leader != before.leader)
        if not is_reassigning(state):
            original = state.replicas
        assert set(original_replicas(state)) == set(original)
