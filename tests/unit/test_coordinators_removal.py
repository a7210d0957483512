"""Removing what is much, piece by piece; and what one unexpected failure leaves alone."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest
from coordinators_support import Bench, durable, protocols
from hypothesis import given
from hypothesis import strategies as st

from ottla.coordinators.groups import removal, sessions
from ottla.coordinators.groups.classic_group import ClassicGroup
from ottla.coordinators.groups.offsets import Offsets
from ottla.coordinators.groups.schemas import CommittedOffset, OffsetRecord
from ottla.coordinators.groups.step import Step
from ottla.coordinators.runtime.pieces import PIECE
from ottla.errors import ErrorCode

DAY_MS = 86_400_000
RETENTION_MS = 7 * DAY_MS
MANY = 2 * PIECE + 1
OLD_ID, NEW_ID = UUID(int=1), UUID(int=2)


def large_group(group_id: str = "g", topic: str = "t") -> Bench:
    bench = Bench()
    for partition in range(MANY):
        bench.commit(partition, group_id=group_id, topic=topic, partition=partition)
    bench.auto_remove = False
    return bench


def pieces_left(bench: Bench) -> int:
    count = 0
    while bench.machine.removal.pieces:
        bench.remove_piece()
        count += 1
    return count


# Which groups have offsets of a topic


offsets_story = st.lists(
    st.tuples(
        st.sampled_from(["g", "h"]),
        st.sampled_from(["t", "u"]),
        st.integers(0, 2),
        st.sampled_from(["commit", "remove", "pend 1", "pend 2", "end 1", "end 2", "abort 1"]),
    )
)


@given(offsets_story)
def test_the_groups_of_a_topic_are_those_that_have_offsets_of_it(
    story: list[tuple[str, str, int, str]],
) -> None:
    offsets = Offsets()
    committed: set[tuple[str, str, int]] = set()
    pending: dict[int, set[tuple[str, str, int]]] = {1: set(), 2: set()}
    for group_id, topic, partition, what in story:
        verb, _, producer = what.partition(" ")
        key = (group_id, topic, partition)
        value = CommittedOffset(1, -1, "", 0)
        if verb == "commit" or verb == "remove":
            offsets.replay(OffsetRecord(*key, value if verb == "commit" else None))
            (committed.add if verb == "commit" else committed.discard)(key)
            for keys in pending.values():
                keys.discard(key)
        elif verb == "pend":
            offsets.replay(OffsetRecord(*key, value), producer_id=int(producer))
            pending[int(producer)].add(key)
        else:
            ended = pending[int(producer)]
            list(offsets.end_transaction(int(producer), committed=verb == "end"))
            if verb == "end":
                committed |= ended
            pending[int(producer)] = set()
            if verb == "end":
                # What other open transactions wrote before is void; which that is is told elsewhere.
                for keys in pending.values():
                    keys &= {each for each in ended | keys if offsets.is_unstable(*each)}
        both = committed | pending[1] | pending[2]
        for name in ("t", "u"):
            assert sorted(offsets.groups_of(name)) == sorted({g for g, t, _ in both if t == name})
        for name in ("g", "h"):
            assert offsets.has_any(name) == any(g == name for g, _, _ in both)
            assert set(offsets.keys(name)) == {each for each in both if each[0] == name}


# A group with many offsets


def test_a_large_group_is_deleted_in_pieces_and_wholly() -> None:
    bench = large_group()
    delete = bench.delete_group()
    assert delete not in bench.replies
    assert pieces_left(bench) >= 3
    assert bench.error(delete) == "none"
    assert durable(bench.machine) == durable(bench.failed_over().machine) == ({}, {})


def test_while_a_large_group_is_deleted_nobody_joins_it_or_commits_to_it() -> None:
    bench = large_group()
    bench.delete_group()
    bench.remove_piece()
    join, commit = bench.join(), bench.commit(7)
    assert bench.error(join) == bench.error(commit) == "coordinator_not_available"
    assert bench.error(bench.delete_group()) == "group_id_not_found"
    pieces_left(bench)
    assert bench.error(bench.commit(7)) == "none"
    assert bench.committed() == 7


def test_a_large_group_whose_deletion_fails_is_there_again() -> None:
    bench = large_group()
    delete = bench.delete_group()
    bench.auto_commit = False
    pieces_left(bench)
    while bench.tables.in_flight:
        bench.fail_one()
    assert bench.error(delete) == "not_coordinator"
    assert bench.group().state.value == "Empty"
    bench.auto_commit = True
    delete = bench.delete_group()
    pieces_left(bench)
    assert bench.error(delete) == "none"


def test_whoever_waits_for_a_large_deletion_is_told_of_a_fail_over() -> None:
    bench = large_group()
    delete = bench.delete_group()
    bench.remove_piece()
    bench.unload()
    assert bench.error(delete) == "not_coordinator"
    assert not bench.machine.removal.pieces


def test_a_commit_in_flight_is_deleted_with_its_large_group() -> None:
    bench = large_group()
    bench.auto_commit = False
    bench.commit(1, partition=MANY)
    delete = bench.delete_group()
    pieces_left(bench)
    bench.commit_all()
    assert bench.error(delete) == "none"
    assert durable(bench.machine) == ({}, {})


def test_offsets_of_a_large_group_expire_in_pieces_and_what_is_committed_meanwhile_stays() -> None:
    bench = large_group()
    bench.wait(RETENTION_MS)
    bench.expire_offsets()
    bench.remove_piece()
    assert 0 < bench.tables.offsets.count_of("g") < MANY
    bench.commit(9, partition=MANY - 1)
    bench.commit(9, partition=0)
    pieces_left(bench)
    assert bench.tables.offsets.count_of("g") == 2
    assert bench.committed(partition=0) == bench.committed(partition=MANY - 1) == 9
    # Those of a group without any left go with it, the next time.
    bench.wait(RETENTION_MS)
    bench.expire_offsets()
    pieces_left(bench)
    assert not bench.tables.groups


def test_a_large_group_that_is_gone_at_the_next_piece() -> None:
    bench = large_group()
    bench.wait(RETENTION_MS)
    bench.expire_offsets()
    bench.remove_piece()
    bench.delete_group()
    pieces_left(bench)
    assert durable(bench.machine) == ({}, {})


# Many groups


def test_many_groups_are_looked_at_in_pieces_once_each() -> None:
    bench = Bench()
    for index in range(MANY):
        bench.commit(1, group_id=f"g{index}")
    bench.auto_remove = bench.auto_commit = False
    bench.wait(RETENTION_MS)
    bench.expire_offsets()
    # A second look while the first is under way would do everything twice.
    bench.expire_offsets()
    # A group counts as one thing to look at, and so does each of its offsets.
    assert pieces_left(bench) == -(-2 * MANY // PIECE)
    assert len(bench.tables.in_flight) == MANY
    bench.commit_all()
    assert not bench.tables.groups
    bench.expire_offsets()
    assert bench.machine.removal.pieces


def test_commits_in_flight_of_other_groups_cost_a_group_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench()
    for index in range(200):
        bench.commit(1, group_id=f"g{index}")
    bench.wait(RETENTION_MS)
    bench.auto_commit = False
    for index in range(200):
        bench.commit(2, group_id=f"g{index}")
    seen = 0
    keys_in_flight = type(bench.tables).keys_in_flight

    def counted(tables: Any, group_id: str) -> Any:
        nonlocal seen
        for key in keys_in_flight(tables, group_id):
            seen += 1
            yield key

    monkeypatch.setattr(type(bench.tables), "keys_in_flight", counted)
    bench.expire_offsets()
    assert seen == 200
    bench.commit_all()
    assert all(bench.committed(group_id=f"g{index}") == 2 for index in range(200))
    assert not bench.tables._committing


def test_a_deleted_topic_is_looked_up_only_where_there_are_offsets_of_it() -> None:
    bench = Bench()
    for index in range(MANY):
        bench.commit(1, group_id=f"g{index}", topic="u")
    bench.commit(1, group_id="h", topic="t")
    bench.auto_remove = False
    bench.topic_deleted("t")
    assert pieces_left(bench) == 1
    assert bench.committed("t", group_id="h") is None
    bench.topic_deleted("u")
    assert pieces_left(bench) >= 3
    assert durable(bench.machine) == ({}, {})


def test_offsets_of_a_topic_that_is_made_again_meanwhile_stay() -> None:
    bench = Bench()
    for partition in range(MANY):
        bench.commit(1, partition=partition, topic_id=OLD_ID)
    bench.auto_remove = False
    bench.topic_deleted("t", OLD_ID)
    bench.remove_piece()
    bench.wait(1)
    bench.commit(7, partition=MANY - 1, topic_id=NEW_ID)
    bench.auto_commit = False
    bench.commit(8, partition=MANY - 2, topic_id=NEW_ID)
    pieces_left(bench)
    bench.commit_all()
    left = bench.tables.offsets.by_group["g"]["t"]
    assert {partition: bench.committed(partition=partition) for partition in left} == {
        MANY - 1: 7,
        MANY - 2: 8,
    }


def test_a_deleted_topic_waits_for_what_is_in_flight_also_where_it_fails() -> None:
    bench = Bench(auto_commit=False)
    bench.commit(1, topic="u", group_id="h")
    bench.commit_all()
    bench.commit(1)
    bench.commit(2, group_id="h")
    bench.topic_deleted("t")
    assert not bench.machine.removal.pieces
    bench.commit_one()
    bench.fail_one()
    bench.commit_all()
    assert {g: set(topics) for g, topics in bench.tables.offsets.by_group.items()} == {"h": {"u"}}


# Fail-over


def test_many_groups_are_brought_to_life_and_forgotten_in_pieces() -> None:
    bench = Bench()
    for index in range(MANY):
        bench.commit(1, group_id=f"g{index}")
    bench.stable("m1")
    assert bench.do_pieces(bench.machine.loading()) >= 3
    join = bench.join(group_id="new")
    assert bench.do_pieces(bench.machine.unloading()) >= 4
    assert bench.error(join) == "not_coordinator"
    assert durable(bench.machine) == ({}, {})


# One failure is not everybody's


def test_a_group_whose_deadline_cannot_be_met_does_not_keep_others_waiting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bench = Bench(group_initial_rebalance_delay_ms=0)
    for group_id in ("a", "b", "c"):
        bench.join(group_id=group_id, new_id=f"m-{group_id}", session_ms=6_000)
    broken = True
    expire = sessions.expire

    def fails(group: ClassicGroup, step: Step) -> None:
        if broken and group.group_id == "b":
            raise RuntimeError("a bug")
        expire(group, step)

    monkeypatch.setattr(sessions, "expire", fails)
    bench.wait(100)
    assert {bench.group(each).state.value for each in "ac"} == {"CompletingRebalance"}
    assert bench.group("b").state.value == "PreparingRebalance"
    broken = False
    bench.wait(2_000)
    assert bench.group("b").state.value == "CompletingRebalance"


def test_a_group_whose_offsets_cannot_be_expired_does_not_keep_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bench = Bench()
    for group_id in ("a", "b", "c"):
        bench.commit(1, group_id=group_id)
    bench.wait(RETENTION_MS)
    is_expired = removal.is_expired
    calls = 0

    def fails(*given: Any) -> bool:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise RuntimeError("a bug")
        return is_expired(*given)

    monkeypatch.setattr(removal, "is_expired", fails)
    bench.expire_offsets()
    assert list(bench.tables.groups) == ["b"]
    bench.expire_offsets()
    assert not bench.tables.groups


def test_a_removal_that_fails_does_not_keep_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = large_group()
    bench.commit(1, group_id="h", topic="u")
    delete = bench.delete_group()
    bench.topic_deleted("u")

    def fails(*given: Any) -> None:
        raise RuntimeError("a bug")

    with monkeypatch.context() as patched:
        patched.setattr(removal.Tombstones, "add", fails)
        bench.remove_piece()
    assert bench.error(delete) == "unknown_server_error"
    pieces_left(bench)
    assert bench.committed("u", group_id="h") is None
    # The group is there, and can be deleted.
    assert bench.group().state.value == "Empty"
    delete = bench.delete_group()
    pieces_left(bench)
    assert bench.error(delete) == "none"


def test_many_sessions_that_end_at_once_end_in_pieces() -> None:
    bench = Bench()
    count = sessions.SESSIONS_PIECE + 1
    bench.stable(*(f"m{index}" for index in range(count)), offered=protocols("range"), session_ms=6_000)
    bench.now_ms += 6_000
    step = bench.step()
    group = bench.group()
    before = len(group.members)
    sessions.expire(group, step)
    assert before - len(group.members) == sessions.SESSIONS_PIECE
    assert group.wake_ms == bench.now_ms
    bench.finish(step)
    bench.wait(0)
    assert not bench.group().members


def test_what_is_due_at_once_in_many_groups_is_done_in_pieces() -> None:
    bench = Bench(group_initial_rebalance_delay_ms=0)
    for index in range(PIECE):
        bench.join(group_id=f"g{index}", new_id="m")
    step = bench.step()
    bench.machine.expire(step)
    bench.finish(step)
    states = [group.state.value for group in bench.tables.groups.values()]
    assert 0 < states.count("CompletingRebalance") < PIECE
    bench.wait(0)
    assert {group.state.value for group in bench.tables.groups.values()} == {"CompletingRebalance"}


def test_failing_writes_do_not_end_what_waits_for_them() -> None:
    bench = Bench(auto_commit=False)
    commit = bench.commit(1)
    bench.fail_one(ErrorCode.not_leader_or_follower)
    assert bench.error(commit) == "not_coordinator"
