"""Elections: the cases of Kafka's PartitionChangeBuilder with ELR, and what holds after any history."""

from __future__ import annotations

from dataclasses import replace
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ottla.metadata.changes import Elections, PartitionChange
from ottla.metadata.elections import (
    NO_LEADER,
    effective_min_isr,
    elect,
    elect_unclean,
    preferred,
    with_isr,
    without_nodes,
    without_unneeded_elr,
)
from ottla.metadata.image import PartitionState, TopicImage, initial_state


def state(
    leader: int = 1,
    isr: tuple[int, ...] = (1, 2, 3),
    elr: tuple[int, ...] = (),
    last_elr: tuple[int, ...] = (),
    replicas: tuple[int, ...] = (1, 2, 3),
) -> PartitionState:
    return PartitionState(leader, 5, 9, replicas, isr, elr=elr, last_elr=last_elr)


def brief(made: PartitionState) -> tuple[int, tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    return made.leader, made.isr, made.elr, made.last_elr


def epochs(made: PartitionState) -> tuple[int, int]:
    return made.leader_epoch, made.partition_epoch


def test_no_more_replicas_are_asked_for_than_there_are() -> None:
    assert effective_min_isr(2, (1, 2, 3)) == 2
    assert effective_min_isr(3, (1, 2)) == 2


# ISR ------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "isr", "min_isr", "unclean", "isr_elr_last"),
    [
        # Large enough: whoever leaves is just out of sync.
        (state(), (1, 2), 2, (), ((1, 2), (), ())),
        # Too small: whoever leaves has all that is committed, since nothing is committed now.
        (state(isr=(1, 2)), (1,), 2, (), ((1,), (2,), ())),
        (state(), (1,), 2, (), ((1,), (2, 3), ())),
        (state(isr=(1,), elr=(2,)), (), 2, (), ((), (1, 2), (1,))),
        # Who may have lost records is no candidate.
        (state(isr=(1, 2)), (1,), 2, (2,), ((1,), (), ())),
        (state(isr=(1,), elr=(2,)), (1,), 2, (2,), ((1,), (), ())),
        # One of the ELR is back in sync, but they are still too few.
        (state(isr=(1,), elr=(2, 3)), (1, 2), 3, (), ((1, 2), (3,), ())),
        # Enough again: the ELR is of no use any more.
        (state(isr=(1,), elr=(2,)), (1, 3), 2, (), ((1, 3), (), ())),
        # The required number is not larger than that of replicas.
        (state(isr=(1, 2), replicas=(1, 2)), (1, 2), 5, (), ((1, 2), (), ())),
        # Only the last leader of all is remembered when nobody is left who is known to have everything.
        (state(isr=(1,)), (), 1, (1,), ((), (), (1,))),
        (state(leader=NO_LEADER, isr=(), elr=(1,), last_elr=(2,)), (), 1, (1,), ((), (), (2,))),
        (state(leader=NO_LEADER, isr=(3,)), (), 1, (3,), ((), (), (3,))),
    ],
)
def test_a_new_isr_and_who_is_eligible_then(
    before: PartitionState,
    isr: tuple[int, ...],
    min_isr: int,
    unclean: tuple[int, ...],
    isr_elr_last: tuple[tuple[int, ...], ...],
) -> None:
    made = with_isr(before, isr, min_isr, unclean=unclean)
    assert (made.isr, made.elr, made.last_elr) == isr_elr_last
    assert (made.leader, *epochs(made)) == (before.leader, 5, 10)


def test_a_smaller_min_isr_makes_the_elr_needless() -> None:
    before = state(isr=(1,), elr=(2,))
    assert without_unneeded_elr(before, 2) is before
    assert brief(without_unneeded_elr(before, 1)) == (1, (1,), (), ())


# Leaders ------------------------------------------------------------


def test_a_leader_that_can_stay_does() -> None:
    before = state(leader=3)
    assert elect(before, {1, 2, 3}, 2) is before


@pytest.mark.parametrize(
    ("before", "live", "leader_isr_elr_last"),
    [
        # In the order of the assignment, whatever the order of the ISR.
        (state(isr=(3, 2, 1)), {2, 3}, (2, (3, 2, 1), (), ())),
        (state(leader=NO_LEADER, isr=(3,)), {1, 2, 3}, (3, (3,), (), ())),
        # Nobody of the ISR lives: it keeps its claim.
        (state(), {4}, (NO_LEADER, (1, 2, 3), (), ())),
        # An empty ISR: of the ELR, the rest of which stays as long as one node is too few.
        (state(NO_LEADER, (), (2, 3), (1,)), {1, 3}, (3, (3,), (2,), ())),
        # Neither: who led last, when it lives.
        (state(NO_LEADER, (), (), (2,)), {1, 3}, (NO_LEADER, (), (), (2,))),
        (state(NO_LEADER, (), (), (2,)), {1, 2, 3}, (2, (2,), (), ())),
        # As long as somebody of the ELR may come back, the last leader has to wait as well.
        (state(NO_LEADER, (), (3,), (2,)), {1, 2}, (NO_LEADER, (), (3,), (2,))),
        # A last leader that is no replica any more.
        (state(NO_LEADER, (), (), (7,)), {1, 2, 7}, (NO_LEADER, (), (), (7,))),
    ],
)
def test_who_is_elected(
    before: PartitionState, live: set[int], leader_isr_elr_last: tuple[object, ...]
) -> None:
    made = elect(before, live, 2)
    assert brief(made) == leader_isr_elr_last
    changed = made.leader != before.leader
    assert epochs(made) == (5 + changed, 9 + changed)
    assert changed or made is before


def test_one_of_the_elr_that_is_enough_alone_needs_the_others_no_more() -> None:
    assert brief(elect(state(NO_LEADER, (), (1, 2), (1,)), {2}, 1)) == (2, (2,), (), ())


def test_an_unclean_election_needs_leave_and_an_empty_isr() -> None:
    before = state(NO_LEADER, (), (1,), (1,))
    assert elect(before, {3}, 2) is before
    assert brief(elect(before, {3}, 2, unclean_enabled=True)) == (3, (3,), (), ())
    assert brief(elect(before, {1, 3}, 2, unclean_enabled=True))[0] == 1
    in_sync = state(NO_LEADER, (1,))
    assert elect(in_sync, {3}, 2, unclean_enabled=True) is in_sync


def test_a_stopping_leader_stays_only_where_nobody_else_can_lead() -> None:
    assert elect(state(), {2, 3}, 2, stopping={1}).leader == 2
    alone = state(isr=(1,))
    assert elect(alone, {2, 3}, 2, stopping={1}) is alone
    # A stopping node does not become leader.
    assert elect(state(leader=NO_LEADER, isr=(2,)), {1, 3}, 2, stopping={2}).leader == NO_LEADER


# Deaths ------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "gone", "live", "lost", "leader_isr_elr_last", "leader_epoch"),
    [
        # A follower dies: nobody needs to notice but the ISR.
        (state(), {3}, {1, 2}, (), (1, (1, 2), (), ()), 5),
        (state(), {1}, {2, 3}, (), (2, (2, 3), (), ()), 6),
        (state(isr=(1, 2)), {1}, {2, 3}, (), (2, (2,), (1,), ()), 6),
        # The last one: nobody leads until one of those that have everything is back.
        (state(isr=(1,), elr=(2,)), {1}, {3}, (), (NO_LEADER, (), (1, 2), (1,)), 6),
        # It was back at once, under the same id: a new epoch all the same.
        (state(isr=(1,)), {1}, {1, 2, 3}, (), (1, (1,), (), ()), 6),
        # … with an empty disk: it led last, and nobody knows better.
        (state(isr=(1,)), {1}, {1, 2, 3}, (1,), (1, (1,), (), ()), 6),
        (state(isr=(1,)), {1}, {2, 3}, (1,), (NO_LEADER, (), (), (1,)), 6),
        # A node of the ELR lost its disk.
        (state(isr=(1,), elr=(2, 3)), {2}, {1}, (2,), (1, (1,), (3,), ()), 5),
        (state(NO_LEADER, (), (2,), (1,)), {2}, {1, 3}, (2,), (1, (1,), (), ()), 6),
        # A node that has nothing to do with it.
        (state(isr=(1,), elr=(2,)), {3}, {1}, (3,), (1, (1,), (2,), ()), 5),
    ],
)
def test_nodes_that_are_gone(
    before: PartitionState,
    gone: set[int],
    live: set[int],
    lost: tuple[int, ...],
    leader_isr_elr_last: tuple[object, ...],
    leader_epoch: int,
) -> None:
    min_isr = 1 if before.isr == (1,) and not before.elr else 2
    made = without_nodes(before, gone, live, min_isr, lost=lost)
    assert brief(made) == leader_isr_elr_last
    assert epochs(made) == (leader_epoch, 9 + (made is not before))


def test_the_whole_isr_is_lost_one_after_another_and_comes_back() -> None:
    """KIP-966's reason: the last one standing dies with its disk, and still nothing committed is lost."""
    made = initial_state((1, 2, 3))
    made = without_nodes(made, {1}, {2, 3}, 2)
    assert brief(made) == (2, (2, 3), (), ())
    made = without_nodes(made, {2}, {3}, 2)
    assert brief(made) == (3, (3,), (2,), ())
    made = without_nodes(made, {3}, (), 2)
    assert brief(made) == (NO_LEADER, (), (2, 3), (3,))
    # Node 1 was out of sync when records were committed: it does not help.
    assert elect(made, {1}, 2) is made
    # Node 3 is back, with an empty disk.
    made = without_nodes(made, {3}, {1, 3}, 2, lost={3})
    assert brief(made) == (NO_LEADER, (), (2,), (3,))
    made = elect(made, {1, 2, 3}, 2)
    assert brief(made) == (2, (2,), (), ())
    assert epochs(made) == (4, 5)


# Elections on demand ------------------------------------------------------------


def test_the_preferred_leader() -> None:
    made = preferred(state(leader=2), {1, 2, 3})
    assert made is not None
    assert brief(made) == (1, (1, 2, 3), (), ())
    assert epochs(made) == (6, 10)
    assert preferred(state(leader=1), {1, 2, 3}) is None
    assert preferred(state(leader=2), {2, 3}) is None
    assert preferred(state(leader=2, isr=(2, 3)), {1, 2, 3}) is None


def test_a_leader_at_any_price() -> None:
    asked = elect_unclean(state(NO_LEADER, (), (1,), (1,)), {3}, 2)
    assert asked is not None
    assert brief(asked) == (3, (3,), (), ())
    clean = elect_unclean(state(NO_LEADER, (), (2,), (1,)), {2, 3}, 2)
    assert clean is not None
    assert clean.leader == 2
    # The ISR's only member is stopping: whoever asks for this has its reasons.
    forced = elect_unclean(state(NO_LEADER, (1,)), {2}, 2)
    assert forced is not None
    assert brief(forced) == (2, (2,), (), ())
    assert elect_unclean(state(NO_LEADER, ()), (), 2) is None


# Any history ------------------------------------------------------------

NODES = st.integers(1, 5)
SOME = st.frozensets(NODES)
History = tuple[PartitionState, int, list[tuple[str, frozenset[int], frozenset[int]]]]


@st.composite
def histories(
    draw: st.DrawFn,
) -> tuple[PartitionState, int, list[tuple[str, frozenset[int], frozenset[int]]]]:
    replicas = tuple(draw(st.permutations([1, 2, 3, 4, 5]))[: draw(st.integers(1, 5))])
    steps = draw(
        st.lists(st.tuples(st.sampled_from(["die", "wipe", "isr", "elect", "preferred"]), SOME, SOME))
    )
    return initial_state(replicas), draw(st.integers(1, 4)), steps


@given(histories())
def test_what_holds_after_any_history(
    history: History,
) -> None:
    made, min_isr, steps = history
    for kind, some, live in steps:
        before = made
        if kind == "die":
            made = without_nodes(made, some, live, min_isr)
        elif kind == "wipe":
            made = without_nodes(made, some, live, min_isr, lost=some)
        elif kind == "isr" and made.leader != NO_LEADER:
            isr = tuple(n for n in made.replicas if n in some or n == made.leader)
            made = with_isr(made, isr, min_isr)
        elif kind == "elect":
            made = elect(made, live, min_isr)
        elif kind == "preferred":
            made = preferred(made, live) or made
        check(before, made, min_isr)
        # Nobody leads without a claim to it.
        if made.leader not in (before.leader, NO_LEADER):
            claims = {*before.isr, *before.elr} if before.isr or before.elr else set(before.last_elr)
            last = before.leader if before.isr else NO_LEADER
            assert made.leader in claims | {last} | set(before.last_elr)
            if kind != "wipe":
                assert made.leader in claims


def check(before: PartitionState, made: PartitionState, min_isr: int) -> None:
    assert made.replicas == before.replicas
    assert set(made.isr) <= set(made.replicas)
    assert set(made.elr) <= set(made.replicas)
    assert not set(made.elr) & set(made.isr)
    assert made.leader == NO_LEADER or made.leader in made.isr
    assert len(made.last_elr) <= 1
    assert not (made.last_elr and made.isr)
    assert made.isr or made.elr or made.last_elr
    if len(made.isr) >= effective_min_isr(min_isr, made.replicas):
        assert made.elr == ()
    assert made.partition_epoch == before.partition_epoch + (made != before)
    assert made.leader_epoch in (before.leader_epoch, before.leader_epoch + 1)
    if made.leader != before.leader:
        assert made.leader_epoch == before.leader_epoch + 1


@given(histories(), SOME)
def test_a_deposed_leader_never_keeps_its_epoch(history: History, live: frozenset[int]) -> None:
    made, min_isr, _ = history
    after = without_nodes(made, {made.leader}, live, min_isr)
    assert after.leader_epoch == made.leader_epoch + 1


def test_elections_are_counted_as_clean_or_unclean() -> None:
    before = state(1, (1, 2), (3,), replicas=(1, 2, 3, 4))
    topic = TopicImage("t", UUID(int=1), (before,), {})
    counts = Elections()
    for leader in (2, 3, 4, NO_LEADER):
        after = replace(before, leader=leader, leader_epoch=before.leader_epoch + 1)
        counts.count([PartitionChange(topic, 0, before, after)])
    # No leader, nor another epoch: nothing was elected.
    counts.count([PartitionChange(topic, 0, before, replace(before, isr=(1,)))])
    assert (counts.changes, counts.losses, counts.unclean) == (4, 1, 1)
