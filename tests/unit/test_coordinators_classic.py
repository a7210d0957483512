"""Classic groups, edge by edge, as Kafka's GroupMetadataManager has them. Times are milliseconds."""

from __future__ import annotations

import pytest
from coordinators_support import Bench, protocols, subscription

from ottla.coordinators.groups.member import Protocol
from ottla.coordinators.groups.requests import LeavingMember
from ottla.errors import ErrorCode

DELAY_MS = 3_000


def states(bench: Bench) -> str:
    return bench.group().state.value


# Joining


def test_a_first_member_waits_for_others_then_leads_alone() -> None:
    bench = Bench()
    join = bench.join(new_id="m1")
    bench.wait(DELAY_MS - 1)
    assert join not in bench.replies
    assert states(bench) == "PreparingRebalance"
    bench.wait(1)
    reply = bench.replies[join]
    assert (reply.error, reply.generation_id, reply.leader, reply.member_id) == (0, 1, "m1", "m1")
    assert (reply.protocol_type, reply.protocol_name) == ("consumer", "range")
    assert [(m.member_id, m.metadata) for m in reply.members] == [("m1", subscription("t"))]
    assert states(bench) == "CompletingRebalance"
    sync = bench.sync("m1", 1, {"m1": b"mine"})
    assert bench.replies[sync] == (0, "consumer", "range", b"mine")
    assert states(bench) == "Stable"


def test_each_new_member_extends_the_initial_delay_up_to_the_rebalance_timeout() -> None:
    bench = Bench()
    first = bench.join(rebalance_ms=8_000)
    bench.wait(2_000)
    bench.join(rebalance_ms=8_000)
    bench.wait(2_000)
    assert first not in bench.replies
    bench.join(rebalance_ms=8_000)
    bench.wait(2_000)
    bench.join(rebalance_ms=8_000)
    bench.wait(1_999)
    assert first not in bench.replies
    bench.wait(1)
    assert bench.replies[first].generation_id == 1
    assert len(bench.replies[first].members) == 4


def test_no_delay_when_it_is_set_to_none() -> None:
    bench = Bench(group_initial_rebalance_delay_ms=0)
    join = bench.join()
    bench.wait(0)
    assert bench.error(join) == "none"


def test_a_dynamic_member_has_to_come_back_with_its_id() -> None:
    bench = Bench()
    first = bench.join(new_id="m1", version=4)
    assert (bench.error(first), bench.replies[first].member_id) == ("member_id_required", "m1")
    assert states(bench) == "Empty"
    join = bench.join("m1", version=4)
    bench.wait(DELAY_MS)
    assert bench.replies[join].member_id == "m1"


def test_an_id_that_is_not_used_is_forgotten_after_the_session_timeout() -> None:
    bench = Bench()
    bench.join(new_id="m1", version=4, session_ms=10_000)
    bench.wait(10_000)
    assert "g" not in bench.machine.tables.groups
    assert bench.error(bench.join("m1", version=4)) == "unknown_member_id"


def test_ids_are_not_handed_out_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ottla.coordinators.groups.rebalance.PENDING_IDS_MAX", 2)
    bench = Bench()
    errors = [bench.error(bench.join(new_id=f"m{i}", version=4)) for i in range(3)]
    assert errors == ["member_id_required", "member_id_required", "group_max_size_reached"]
    bench.wait(10_000)
    assert bench.error(bench.join(version=4)) == "member_id_required"


def test_a_pending_id_holds_up_the_join_phase_until_it_joins_or_is_forgotten() -> None:
    bench = Bench()
    generation = bench.stable("m1")
    bench.join(new_id="m2", version=4, session_ms=10_000)
    rejoin = bench.join("m1", offered=protocols("range", topics=("other",)))
    bench.wait(9_999)
    assert rejoin not in bench.replies
    bench.wait(1)
    assert bench.replies[rejoin].generation_id == generation + 1


def test_a_member_of_an_unknown_group_is_unknown() -> None:
    bench = Bench()
    assert bench.error(bench.join("m1")) == "unknown_member_id"
    assert not bench.machine.tables.groups


def test_members_need_a_protocol_in_common() -> None:
    bench = Bench()
    assert bench.error(bench.join(offered=())) == "inconsistent_group_protocol"
    assert bench.error(bench.join(protocol_type="")) == "inconsistent_group_protocol"
    assert not bench.machine.tables.groups
    bench.stable("m1", offered=protocols("range", "sticky"))
    assert bench.error(bench.join(offered=protocols("roundrobin"))) == "inconsistent_group_protocol"
    assert bench.error(bench.join(protocol_type="connect")) == "inconsistent_group_protocol"
    assert bench.error(bench.join("m1", offered=protocols("x"))) == "inconsistent_group_protocol"
    assert states(bench) == "Stable"


def test_the_protocol_that_most_prefer_among_those_that_all_support() -> None:
    bench = Bench()
    joins = [
        bench.join(offered=protocols("a", "b", "c")),
        bench.join(offered=protocols("c", "b")),
        bench.join(offered=protocols("d", "b", "c")),
    ]
    bench.wait(2 * DELAY_MS)
    assert {bench.replies[join].protocol_name for join in joins} == {"b"}


def test_only_the_leader_is_told_of_the_members() -> None:
    bench = Bench()
    leader, follower = bench.join(new_id="m1"), bench.join(new_id="m2")
    bench.wait(2 * DELAY_MS)
    assert [m.member_id for m in bench.replies[leader].members] == ["m1", "m2"]
    assert bench.replies[follower].members == ()
    assert bench.replies[follower].leader == "m1"


def test_a_group_is_no_larger_than_its_limit() -> None:
    bench = Bench(group_max_size=2)
    generation = bench.stable("m1", "m2")
    assert bench.error(bench.join()) == "group_max_size_reached"
    # Existing members may come back, in a rebalance those first that come first.
    first = bench.join("m1")
    second = bench.join("m2")
    assert {bench.replies[first].generation_id, bench.replies[second].generation_id} == {generation + 1}


def test_while_members_rejoin_the_limit_counts_those_that_have() -> None:
    bench = Bench()
    bench.stable("m1", "m2", "m3")
    bench.config = Bench(group_max_size=2).config
    first, second = bench.join("m1"), bench.join("m2")
    third = bench.join("m3")
    assert bench.error(third) == "group_max_size_reached"
    assert bench.error(first) == bench.error(second) == "none"
    assert list(bench.group().members) == ["m1", "m2"]


def test_a_group_that_was_loaded_over_its_limit_rebalances() -> None:
    bench = Bench()
    bench.stable("m1", "m2", "m3")
    other = bench.failed_over()
    assert states(other) == "Stable"
    bench.config = Bench(group_max_size=2).config
    assert states(bench.failed_over()) == "PreparingRebalance"


# Rejoining


def test_the_leader_of_a_stable_group_forces_a_rebalance() -> None:
    bench = Bench()
    bench.stable("m1", "m2")
    bench.join("m1")
    assert states(bench) == "PreparingRebalance"
    assert bench.heartbeat("m2", 1) == ErrorCode.rebalance_in_progress


def test_a_follower_that_says_the_same_again_is_told_the_generation() -> None:
    bench = Bench()
    generation = bench.stable("m1", "m2")
    reply = bench.replies[bench.join("m2")]
    assert (reply.error, reply.generation_id, reply.leader, reply.members) == (0, generation, "m1", ())
    assert states(bench) == "Stable"


def test_a_follower_that_changed_its_metadata_forces_a_rebalance() -> None:
    bench = Bench()
    bench.stable("m1", "m2")
    bench.join("m2", offered=protocols("range", topics=("u",)))
    assert states(bench) == "PreparingRebalance"


def test_in_the_sync_phase_the_same_metadata_gets_the_same_answer_again() -> None:
    bench = Bench()
    bench.join(new_id="m1")
    bench.join(new_id="m2")
    bench.wait(2 * DELAY_MS)
    again = bench.replies[bench.join("m1")]
    assert (again.generation_id, len(again.members)) == (1, 2)
    sync = bench.sync("m2", 1)
    bench.join("m2", offered=protocols("range", topics=("u",)))
    assert states(bench) == "PreparingRebalance"
    assert bench.error(sync) == "rebalance_in_progress"


def test_who_does_not_rejoin_in_time_is_removed() -> None:
    bench = Bench()
    generation = bench.stable("m1", "m2", rebalance_ms=5_000, session_ms=30_000)
    rejoin = bench.join("m2", offered=protocols("range", topics=("u",)), rebalance_ms=5_000)
    bench.wait(4_999)
    assert rejoin not in bench.replies
    bench.wait(1)
    reply = bench.replies[rejoin]
    # The leader was lost, so the one that came leads.
    assert (reply.generation_id, reply.leader) == (generation + 1, "m2")
    assert bench.heartbeat("m1", generation) == ErrorCode.unknown_member_id


def test_a_retried_join_lets_go_of_the_first() -> None:
    bench = Bench()
    bench.stable("m1", "m2")
    first = bench.join("m1")
    second = bench.join("m1")
    assert bench.error(first) == "rebalance_in_progress"
    assert second not in bench.replies
    bench.join("m2")
    assert bench.error(second) == "none"


def test_a_new_member_that_waits_too_long_is_given_up() -> None:
    bench = Bench()
    bench.stable("m1", rebalance_ms=600_000, session_ms=1_000_000)
    join = bench.join(new_id="m2", rebalance_ms=600_000)
    bench.wait(299_999)
    assert join not in bench.replies
    bench.wait(1)
    assert bench.error(join) == "unknown_member_id"
    assert "m2" not in bench.group().members


# Syncing


def test_followers_wait_for_the_leader() -> None:
    bench = Bench()
    bench.join(new_id="m1")
    bench.join(new_id="m2")
    bench.wait(2 * DELAY_MS)
    follower = bench.sync("m2", 1)
    assert follower not in bench.replies
    leader = bench.sync("m1", 1, {"m1": b"1", "m2": b"2"})
    assert bench.replies[leader].assignment == b"1"
    assert bench.replies[follower].assignment == b"2"
    late = bench.sync("m2", 1)
    assert bench.replies[late].assignment == b"2"


def test_a_member_that_the_leader_forgot_gets_an_empty_assignment() -> None:
    bench = Bench()
    bench.join(new_id="m1")
    bench.join(new_id="m2")
    bench.wait(2 * DELAY_MS)
    bench.sync("m1", 1, {"m1": b"1", "stranger": b"3"})
    assert bench.replies[bench.sync("m2", 1)].assignment == b""


def test_the_answer_waits_until_the_assignment_is_stored() -> None:
    bench = Bench(auto_commit=False)
    bench.join(new_id="m1")
    bench.wait(DELAY_MS)
    sync = bench.sync("m1", 1, {"m1": b"1"})
    assert sync not in bench.replies
    assert states(bench) == "CompletingRebalance"
    bench.commit_all()
    assert bench.replies[sync].assignment == b"1"
    assert [member.assignment for member in bench.machine.tables.metadata["g"].members] == [b"1"]


def test_a_failed_append_of_the_assignment_starts_over() -> None:
    bench = Bench(auto_commit=False)
    bench.join(new_id="m1")
    bench.wait(DELAY_MS)
    sync = bench.sync("m1", 1, {"m1": b"1"})
    bench.fail_one(ErrorCode.not_enough_replicas)
    assert bench.error(sync) == "coordinator_not_available"
    assert states(bench) == "PreparingRebalance"
    assert "g" not in bench.machine.tables.metadata
    assert bench.heartbeat("m1", 1) == ErrorCode.rebalance_in_progress
    assert bench.replies[bench.join("m1")].generation_id == 2


def test_a_rebalance_overtakes_an_assignment_that_is_being_stored() -> None:
    bench = Bench(auto_commit=False)
    bench.join(new_id="m1")
    bench.wait(DELAY_MS)
    sync = bench.sync("m1", 1, {"m1": b"1"})
    bench.join(new_id="m2")
    assert bench.error(sync) == "rebalance_in_progress"
    bench.commit_all()
    assert states(bench) == "PreparingRebalance"
    assert bench.group().members["m1"].assignment == b""


def test_syncs_that_do_not_fit_are_refused() -> None:
    bench = Bench()
    assert bench.error(bench.sync("m1", 1)) == "unknown_member_id"
    generation = bench.stable("m1")
    assert bench.error(bench.sync("m1", generation - 1)) == "illegal_generation"
    assert bench.error(bench.sync("m2", generation)) == "unknown_member_id"
    for odd in ({"protocol_type": "connect"}, {"protocol_name": "sticky"}):
        assert bench.error(bench.sync("m1", generation, **odd)) == "inconsistent_group_protocol"
    fits = bench.sync("m1", generation, protocol_type="consumer", protocol_name="range")
    assert bench.error(fits) == "none"
    bench.join("m1", rebalance_ms=60_000)
    bench.join(new_id="m2")
    assert states(bench) == "PreparingRebalance"
    assert bench.error(bench.sync("m1", bench.group().generation_id)) == "rebalance_in_progress"


def test_members_that_do_not_sync_in_time_are_removed() -> None:
    bench = Bench()
    bench.join(new_id="m1", rebalance_ms=5_000, session_ms=30_000)
    bench.join(new_id="m2", rebalance_ms=5_000, session_ms=30_000)
    bench.wait(2 * DELAY_MS)
    assert states(bench) == "CompletingRebalance"
    sync = bench.sync("m2", 1)
    bench.wait(5_000)
    assert bench.error(sync) == "rebalance_in_progress"
    assert list(bench.group().members) == ["m2"]
    assert states(bench) == "PreparingRebalance"


# Sessions


def test_a_member_that_is_silent_is_removed() -> None:
    bench = Bench()
    generation = bench.stable("m1", "m2", session_ms=10_000)
    bench.wait(9_000)
    assert bench.heartbeat("m1", generation) == ErrorCode.none
    bench.wait(1_000)
    assert list(bench.group().members) == ["m1"]
    assert states(bench) == "PreparingRebalance"
    assert bench.heartbeat("m1", generation) == ErrorCode.rebalance_in_progress
    bench.wait(10_000)
    assert states(bench) == "Empty"
    assert bench.group().generation_id == generation + 1
    assert bench.machine.tables.metadata["g"].members == ()


def test_who_waits_for_a_rebalance_does_not_need_to_send_heartbeats() -> None:
    bench = Bench()
    bench.stable("m1", "m2", session_ms=10_000, rebalance_ms=50_000)
    rejoin = bench.join("m1", rebalance_ms=50_000)
    bench.wait(9_000)
    bench.heartbeat("m2", 1)
    bench.wait(9_000)
    bench.heartbeat("m2", 1)
    bench.wait(9_000)
    assert rejoin not in bench.replies
    bench.join("m2", rebalance_ms=50_000)
    assert bench.error(rejoin) == "none"
    # Its session begins with the answer.
    assert bench.group().members["m1"].deadline_ms == bench.now_ms + 10_000


def test_heartbeats_that_do_not_fit_are_refused() -> None:
    bench = Bench()
    assert bench.heartbeat("m1", 1) == ErrorCode.unknown_member_id
    generation = bench.stable("m1")
    assert bench.heartbeat("m1", generation + 1) == ErrorCode.illegal_generation
    assert bench.heartbeat("m2", generation) == ErrorCode.unknown_member_id
    assert bench.heartbeat("m1", generation, instance="i") == ErrorCode.unknown_member_id


# Leaving


def test_a_member_that_leaves_makes_the_others_rebalance() -> None:
    bench = Bench()
    bench.stable("m1", "m2")
    leave = bench.leave("m1")
    assert bench.replies[leave] == (0, (("m1", None, 0),))
    assert states(bench) == "PreparingRebalance"
    assert bench.group().leader_id == "m2"


def test_the_last_member_leaves_when_that_is_stored() -> None:
    bench = Bench(auto_commit=False)
    bench.join(new_id="m1")
    bench.wait(DELAY_MS)
    bench.sync("m1", 1, {})
    bench.commit_all()
    leave = bench.leave("m1")
    assert leave not in bench.replies
    assert states(bench) == "Empty"
    bench.commit_all()
    assert bench.error(leave) == "none"
    assert bench.machine.tables.metadata["g"].generation_id == 2


def test_a_leave_that_cannot_be_stored_is_told_so() -> None:
    bench = Bench(auto_commit=False)
    bench.join(new_id="m1")
    bench.wait(DELAY_MS)
    bench.sync("m1", 1, {})
    bench.commit_all()
    leave = bench.leave("m1")
    bench.fail_one(ErrorCode.not_leader_or_follower)
    assert bench.error(leave) == "not_coordinator"


def test_leaving_one_by_one_in_a_batch() -> None:
    bench = Bench()
    bench.join(new_id="m1")
    bench.join(new_id="s1", instance="i1")
    bench.join(new_id="p1", version=4)
    bench.wait(3 * DELAY_MS)
    reply = bench.replies[
        bench.leave(
            LeavingMember("p1"),
            LeavingMember("", "i1", "scaled down"),
            LeavingMember("", "i2"),
            LeavingMember(""),
            LeavingMember("nobody"),
            LeavingMember("m1", "i1"),
        )
    ]
    unknown = ErrorCode.unknown_member_id
    assert reply.error == ErrorCode.none
    assert [(m.member_id, m.group_instance_id, m.error) for m in reply.members] == [
        ("p1", None, 0),
        ("", "i1", 0),
        ("", "i2", unknown),
        ("", None, unknown),
        ("nobody", None, unknown),
        ("m1", "i1", unknown),
    ]
    assert list(bench.group().members) == ["m1"]


def test_leaving_a_group_that_is_not_there() -> None:
    bench = Bench()
    reply = bench.replies[bench.leave("m1", LeavingMember("", "i1"))]
    assert reply.error == ErrorCode.none
    assert [member.error.name for member in reply.members] == ["unknown_member_id"] * 2


def test_the_last_one_awaited_leaves_and_the_rebalance_ends() -> None:
    bench = Bench()
    bench.stable("m1", "m2")
    rejoin = bench.join("m1")
    bench.leave("m2")
    assert bench.replies[rejoin].generation_id == 2


# Static members (KIP-345)


def test_a_static_member_that_comes_back_keeps_its_assignment_without_a_rebalance(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO", logger="ottla")
    bench = Bench()
    bench.stable("leader", "other")
    bench.join(new_id="s1", instance="i1")
    bench.join("leader")
    bench.join("other")
    for each in ("leader", "other", "s1"):
        bench.sync(each, 2, {"s1": b"its"})
    assert states(bench) == "Stable"
    reply = bench.replies[bench.join(new_id="s2", instance="i1", version=9)]
    assert caplog.messages[-1] == "group g: static member i1 is back, as member s2"
    assert (reply.error, reply.member_id, reply.generation_id) == (0, "s2", 2)
    assert (reply.leader, reply.members, reply.skip_assignment) == ("leader", (), False)
    assert states(bench) == "Stable"
    sync = bench.sync("s2", 2, instance="i1")
    assert bench.replies[sync].assignment == b"its"
    assert [m.member_id for m in bench.machine.tables.metadata["g"].members] == ["leader", "other", "s2"]
    # The old process is out.
    assert bench.heartbeat("s1", 2, instance="i1") == ErrorCode.fenced_instance_id
    assert bench.error(bench.join("s1", instance="i1")) == "fenced_instance_id"
    assert bench.error(bench.sync("s1", 2, instance="i1")) == "fenced_instance_id"
    assert bench.replies[bench.leave(LeavingMember("s1", "i1"))].members[0].error == 82
    assert bench.error(bench.commit(member_id="s1", generation=2, instance="i1")) == "fenced_instance_id"
    assert bench.heartbeat("s1", 2) == ErrorCode.unknown_member_id


@pytest.mark.parametrize(("version", "leader", "skips", "count"), [(8, "s1", False, 0), (9, "s2", True, 1)])
def test_a_static_leader_that_comes_back_does_not_assign_anew(
    version: int, leader: str, skips: bool, count: int
) -> None:
    bench = Bench()
    bench.stable("s1", instance="i1")
    reply = bench.replies[bench.join(new_id="s2", instance="i1", version=version)]
    assert (reply.leader, reply.skip_assignment, len(reply.members)) == (leader, skips, count)
    assert bench.group().leader_id == "s2"
    assert states(bench) == "Stable"


def test_a_new_id_that_cannot_be_stored_begins_a_generation() -> None:
    bench = Bench()
    bench.stable("s1", instance="i1")
    bench.auto_commit = False
    join = bench.join(new_id="s2", instance="i1")
    bench.fail_one()
    assert bench.replies[join].generation_id == 2
    assert bench.replies[join].member_id == "s2"
    assert states(bench) == "CompletingRebalance"
    # Nothing was stored, so a new leader knows the old id.
    assert list(bench.failed_over().group().members) == ["s1"]


def test_a_rebalance_meanwhile_answers_a_static_member_whose_id_is_being_stored() -> None:
    bench = Bench()
    bench.stable("s1", instance="i1")
    bench.auto_commit = False
    join = bench.join(new_id="s2", instance="i1", version=9)
    other = bench.join(new_id="m2")
    assert bench.replies[join].generation_id == 2
    assert bench.error(other) == "none"
    bench.commit_all()
    assert states(bench) == "CompletingRebalance"


def test_a_static_member_that_changes_the_protocol_makes_all_rebalance() -> None:
    bench = Bench()
    bench.stable("s1", instance="i1", offered=protocols("range", "sticky"))
    join = bench.join(new_id="s2", instance="i1", offered=protocols("sticky", "range"))
    assert bench.replies[join].generation_id == 2
    assert bench.replies[join].protocol_name == "sticky"


def test_a_static_member_that_comes_back_in_the_sync_phase_starts_over() -> None:
    bench = Bench()
    bench.join(new_id="s1", instance="i1")
    bench.join(new_id="m1")
    bench.wait(2 * DELAY_MS)
    old = bench.sync("s1", 1, {}, instance="i1")
    # The leader's assignment is stored at once here, so let another generation wait for it.
    bench.join("s1", instance="i1", offered=protocols("range", topics=("u",)))
    bench.join("m1")
    assert states(bench) == "CompletingRebalance"
    assert bench.error(old) == "none"
    waiting = bench.sync("m1", 2)
    join = bench.join(new_id="s2", instance="i1")
    assert states(bench) == "PreparingRebalance"
    assert bench.error(waiting) == "rebalance_in_progress"
    bench.join("m1")
    assert bench.replies[join].generation_id == 3


def test_a_static_member_that_comes_back_before_its_sync_is_waited_for_by_its_new_id() -> None:
    """The group is stable once the leader has synced; whoever has not yet is expected to, under either id."""
    bench = Bench()
    bench.stable("leader", rebalance_ms=10_000)
    bench.join(new_id="s1", instance="i1", rebalance_ms=10_000)
    bench.join("leader", rebalance_ms=10_000)
    bench.sync("leader", 2, {"s1": b"its"})
    assert states(bench) == "Stable"
    assert bench.group().pending_sync == {"s1"}
    bench.wait(5_000)
    join = bench.join(new_id="s2", instance="i1", rebalance_ms=10_000)
    assert bench.replies[join].generation_id == 2
    assert bench.group().pending_sync == {"s2"}
    bench.wait(4_999)
    for member_id, instance in (("leader", None), ("s2", "i1")):
        assert bench.heartbeat(member_id, 2, instance=instance) == ErrorCode.none
    bench.wait(1)
    # It did not: it is out, and the others rebalance.
    assert list(bench.group().members) == ["leader"]
    assert states(bench) == "PreparingRebalance"


def test_a_static_member_that_comes_back_before_its_sync_and_syncs_disturbs_nobody() -> None:
    bench = Bench()
    bench.stable("leader", rebalance_ms=10_000)
    bench.join(new_id="s1", instance="i1", rebalance_ms=10_000)
    bench.join("leader", rebalance_ms=10_000)
    bench.sync("leader", 2, {"s1": b"its"})
    bench.join(new_id="s2", instance="i1", rebalance_ms=10_000)
    assert bench.replies[bench.sync("s2", 2, instance="i1")].assignment == b"its"
    assert not bench.group().pending_sync
    for _ in range(4):
        bench.wait(5_000)
        for member_id, instance in (("leader", None), ("s2", "i1")):
            assert bench.heartbeat(member_id, 2, instance=instance) == ErrorCode.none
    assert states(bench) == "Stable"


def test_a_static_member_fences_one_that_waits_for_the_rebalance() -> None:
    bench = Bench()
    first = bench.join(new_id="s1", instance="i1", session_ms=10_000)
    second = bench.join(new_id="s2", instance="i1", session_ms=10_000)
    assert bench.error(first) == "fenced_instance_id"
    assert bench.replies[first].member_id == "s1"
    bench.wait(2 * DELAY_MS)
    assert bench.replies[second].member_id == "s2"


def test_a_static_member_that_is_away_stays_until_its_session_ends() -> None:
    bench = Bench()
    bench.join(new_id="s1", instance="i1", session_ms=30_000, rebalance_ms=5_000)
    bench.join(new_id="m1", session_ms=30_000, rebalance_ms=5_000)
    bench.wait(2 * DELAY_MS)
    bench.sync("s1", 1, {})
    bench.sync("m1", 1)
    rejoin = bench.join("m1", offered=protocols("range", topics=("u",)), rebalance_ms=5_000)
    bench.wait(5_000)
    reply = bench.replies[rejoin]
    assert reply.leader == "m1"
    assert {m.member_id for m in reply.members} == {"s1", "m1"}


def test_only_static_members_and_none_comes() -> None:
    bench = Bench()
    bench.stable("s1", instance="i1", session_ms=30_000, rebalance_ms=5_000)
    join = bench.join(new_id="m2", session_ms=30_000, rebalance_ms=5_000)
    bench.leave("m2")
    assert bench.error(join) == "unknown_member_id"
    assert states(bench) == "PreparingRebalance"
    bench.wait(29_999)
    assert states(bench) == "PreparingRebalance"
    bench.wait(1)
    assert states(bench) == "Empty"


def test_an_instance_id_that_is_not_known_is_refused() -> None:
    bench = Bench()
    bench.stable("m1")
    assert bench.error(bench.join("m1", instance="i9")) == "unknown_member_id"


# Fail-over


def test_after_a_fail_over_members_have_a_session_to_show_themselves() -> None:
    bench = Bench()
    generation = bench.stable("m1", "m2", session_ms=10_000)
    other = bench.failed_over()
    assert other.heartbeat("m1", generation) == ErrorCode.none
    other.wait(9_000)
    assert other.heartbeat("m1", generation) == ErrorCode.none
    assert other.replies[other.sync("m2", generation)].assignment == b"a-m2"
    other.wait(1_000)
    assert list(other.group().members) == ["m1"]


def test_a_new_leader_of_the_partition_knows_what_the_old_one_stored() -> None:
    bench = Bench()
    bench.stable("m1", instance="i1", offered=protocols("range", "sticky"))
    before, after = bench.group(), bench.failed_over().group()
    assert after.generation_id == before.generation_id
    assert after.leader_id == before.leader_id
    assert after.protocol_name == "range"
    assert after.static_members == {"i1": "m1"}
    assert after.subscribed_topics == {"t"}
    assert after.members["m1"].protocols == protocols("range")
    assert after.members["m1"].rebalance_timeout_ms == 60_000


def test_a_group_without_members_is_still_of_its_type_after_a_fail_over() -> None:
    bench = Bench()
    bench.stable("m1")
    bench.leave("m1")
    listed = list(bench.machine.groups())
    assert listed == [("g", "consumer", "Empty", "classic")]
    assert list(bench.failed_over().machine.groups()) == listed


def test_unloading_tells_all_who_wait() -> None:
    bench = Bench(auto_commit=False)
    bench.join(new_id="m1")
    bench.wait(DELAY_MS)
    sync = bench.sync("m1", 1, {})
    join = bench.join(group_id="other")
    commit = bench.commit(group_id="simple")
    bench.unload()
    assert {bench.error(each) for each in (sync, join, commit)} == {"not_coordinator"}
    assert not bench.machine.tables.groups
    assert not bench.machine.tables.wakes


# Looking at groups


def test_describing_a_group_through_its_life() -> None:
    bench = Bench()
    assert bench.machine.describe("g").error == ErrorCode.group_id_not_found
    assert bench.machine.describe("g").state == "Dead"
    bench.join(new_id="m1")
    waiting = bench.machine.describe("g")
    assert (waiting.state, waiting.protocol_type, waiting.protocol_data) == (
        "PreparingRebalance",
        "consumer",
        "",
    )
    assert waiting.members[0].metadata == b""
    bench.wait(DELAY_MS)
    bench.sync("m1", 1, {"m1": b"x"})
    stable = bench.machine.describe("g")
    assert (stable.state, stable.protocol_data) == ("Stable", "range")
    assert stable.members[0] == ("m1", None, "c", "/127.0.0.1", subscription("t"), b"x")


def test_listing_groups() -> None:
    bench = Bench()
    bench.stable("m1")
    bench.commit(group_id="simple")
    assert list(bench.machine.groups()) == [
        ("g", "consumer", "Stable", "classic"),
        ("simple", "", "Empty", "classic"),
    ]


def test_a_group_that_nobody_came_to_be_in_is_forgotten() -> None:
    bench = Bench()
    bench.join(offered=())
    bench.join(new_id="p", version=4)
    bench.leave("p")
    assert not bench.machine.tables.groups


def test_metadata_of_a_protocol_that_is_not_ours_to_read() -> None:
    bench = Bench()
    bench.stable("m1", offered=(Protocol("range", b"\x00"),))
    assert bench.group().subscribed_topics is None
    assert bench.group().is_subscribed_to("anything")


def test_a_leader_cannot_change_an_assignment_that_is_being_stored() -> None:
    bench = Bench(auto_commit=False)
    bench.join(new_id="m1")
    bench.wait(DELAY_MS)
    first = bench.sync("m1", 1, {"m1": b"1"})
    second = bench.sync("m1", 1, {"m1": b"2"})
    assert bench.error(first) == "rebalance_in_progress"
    bench.commit_all()
    assert bench.replies[second].assignment == b"1"
    assert bench.failed_over().group().members["m1"].assignment == b"1"
