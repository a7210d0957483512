"""A classic group under members that come, go, fall silent and talk nonsense in any order.

Whatever happens: a group with members is led by one of them, generations only grow, a member's assignment is
what the leader of its generation gave it, nobody waits longer than the rebalance timeout, and the log holds
what the machine holds.
"""

from __future__ import annotations

from collections import Counter

from coordinators_support import Bench, durable, protocols
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from ottla.coordinators.groups.classic_group import ClassicGroup, GroupState
from ottla.coordinators.runtime.step import NEVER_MS
from ottla.errors import ErrorCode

REBALANCE_MS_MAX = 20_000
SESSION_MS_MAX = 12_000
OFFERS = [
    protocols("range"),
    protocols("range", "sticky"),
    protocols("sticky", "range"),
    protocols("sticky"),
    protocols("range", topics=("t", "u")),
]


JOIN = {
    "offer": st.integers(0, len(OFFERS) - 1),
    "session_ms": st.integers(6_000, SESSION_MS_MAX),
    "rebalance_ms": st.integers(1_000, REBALANCE_MS_MAX),
}


class GroupUnderFire(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.bench = Bench(
            auto_commit=False,
            group_max_size=4,
            new_member_join_timeout_ms=60_000,
            offsets_retention_ms=50_000,
        )
        self.generation = 0
        self.count = 0
        # When each waiting JoinGroup must be answered by.
        self.due_ms: dict[str, int] = {}
        self.syncs: dict[str, tuple[str, int]] = {}
        # What leaders sent, by generation and member; a leader may try several times.
        self.given: dict[tuple[int, str], set[bytes]] = {}
        self.known_ids: list[str] = []

    # What clients do

    def _join(
        self, member_id: str, instance: str | None, offer: int, session_ms: int, rebalance_ms: int
    ) -> None:
        self.count += 1
        new_id = f"{instance or 'm'}-{self.count}"
        join = self.bench.join(
            member_id,
            new_id=new_id,
            instance=instance,
            offered=OFFERS[offer],
            session_ms=session_ms,
            rebalance_ms=rebalance_ms,
            version=9 if self.count % 3 else 3,
        )
        if not member_id:
            self.known_ids.append(new_id)
        self.due_ms[join] = self.bench.now_ms + REBALANCE_MS_MAX

    @rule(instance=st.none() | st.sampled_from(["i1", "i2"]), **JOIN)
    def join_anew(self, instance: str | None, offer: int, session_ms: int, rebalance_ms: int) -> None:
        self._join("", instance, offer, session_ms, rebalance_ms)

    @precondition(lambda self: self.known_ids)
    @rule(data=st.data(), instance=st.none() | st.sampled_from(["i1", "i2"]), **JOIN)
    def rejoin(
        self, data: st.DataObject, instance: str | None, offer: int, session_ms: int, rebalance_ms: int
    ) -> None:
        member_id = data.draw(st.sampled_from(self.known_ids))
        self._join(member_id, instance, offer, session_ms, rebalance_ms)

    @precondition(lambda self: self.group.static_members)
    @rule(data=st.data())
    def a_static_member_restarts(self, data: st.DataObject) -> None:
        instance = data.draw(st.sampled_from(sorted(self.group.static_members)))
        self.count += 1
        new_id = f"{instance}-{self.count}"
        self.known_ids.append(new_id)
        offer = self.group.members[self.group.static_members[instance]].protocols
        join = self.bench.join(new_id=new_id, instance=instance, offered=offer, version=9, rebalance_ms=5_000)
        self.due_ms[join] = self.bench.now_ms + REBALANCE_MS_MAX

    @precondition(lambda self: self.members)
    @rule()
    def all_is_well_for_a_while(self) -> None:
        self.bench.commit_all()
        self.bench.wait(3_000)
        self.all_rejoin()
        self.bench.commit_all()
        self.all_sync()
        self.bench.commit_all()

    @precondition(lambda self: self.members)
    @rule()
    def all_rejoin(self) -> None:
        for member in list(self.members):
            protocols_now = self.group.members[member].protocols if member in self.members else OFFERS[0]
            join = self.bench.join(member, offered=protocols_now, session_ms=10_000, rebalance_ms=10_000)
            self.due_ms[join] = self.bench.now_ms + REBALANCE_MS_MAX

    @precondition(lambda self: self.members)
    @rule(data=st.data(), stale=st.booleans())
    def sync(self, data: st.DataObject, stale: bool) -> None:
        member_id = data.draw(st.sampled_from(sorted(self.members)))
        self._sync(member_id, self.group.generation_id - stale)

    def _sync(self, member_id: str, generation: int) -> None:
        assignments = {}
        leads = self.group.leader_id == member_id and generation == self.group.generation_id
        if leads and self.group.state is GroupState.COMPLETING_REBALANCE:
            self.count += 1
            assignments = {each: f"{each}/{generation}/{self.count}".encode() for each in self.members}
            for each, assignment in assignments.items():
                self.given.setdefault((generation, each), set()).add(assignment)
        waiter = self.bench.sync(member_id, generation, assignments)
        self.syncs[waiter] = (member_id, generation)

    @precondition(lambda self: self.members)
    @rule()
    def all_sync(self) -> None:
        for member_id in sorted(self.members):
            if member_id in self.members:
                self._sync(member_id, self.group.generation_id)

    @precondition(lambda self: self.members)
    @rule(data=st.data())
    def heartbeat(self, data: st.DataObject) -> None:
        member_id = data.draw(st.sampled_from(sorted(self.members)))
        code = self.bench.heartbeat(member_id, self.group.generation_id)
        assert code in (ErrorCode.none, ErrorCode.rebalance_in_progress)

    @precondition(lambda self: self.known_ids)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        self.bench.leave(data.draw(st.sampled_from(self.known_ids)))

    @rule(partition=st.integers(0, 2))
    def commit(self, partition: int) -> None:
        member_id = next(iter(self.members), "")
        generation = self.group.generation_id if member_id else -1
        self.bench.commit(self.count, member_id=member_id, generation=generation, partition=partition)

    @rule()
    def delete(self) -> None:
        before = "g" in self.bench.machine.tables.groups
        self.bench.delete_group()
        if before and "g" not in self.bench.machine.tables.groups:
            # What comes now is another group.
            self.generation = 0

    @rule()
    def expire_offsets(self) -> None:
        before = "g" in self.bench.machine.tables.groups
        self.bench.expire_offsets()
        if before and "g" not in self.bench.machine.tables.groups:
            self.generation = 0

    # What the world does

    @rule(delay_ms=st.integers(0, 8_000))
    def time_goes_by(self, delay_ms: int) -> None:
        self.bench.commit_all()
        self.bench.wait(delay_ms)
        self.bench.commit_all()

    @precondition(lambda self: self.bench.machine.tables.in_flight)
    @rule()
    def an_append_succeeds(self) -> None:
        self.bench.commit_one()

    @precondition(lambda self: self.bench.machine.tables.in_flight)
    @rule()
    def an_append_fails(self) -> None:
        self.bench.fail_one()

    @rule()
    def the_node_fails_over(self) -> None:
        self.bench.unload()
        for waiter in (*self.due_ms, *self.syncs):
            assert waiter in self.bench.replies
        replies, count = self.bench.replies, self.bench._count
        self.bench = self.bench.failed_over()
        self.bench.replies, self.bench._count = replies, count
        # What was not stored did not happen.
        self.generation = self.group.generation_id

    # What must hold

    @property
    def group(self) -> ClassicGroup:
        return self.bench.machine.tables.groups.get("g") or ClassicGroup("g", 0)

    @property
    def members(self) -> list[str]:
        return list(self.group.members)

    @invariant()
    def the_leader_is_a_member(self) -> None:
        assert self.group.leader_id in (self.members or [None])
        assert (self.group.state is GroupState.EMPTY) <= (not self.members)

    @invariant()
    def generations_grow(self) -> None:
        assert self.group.generation_id >= self.generation
        self.generation = self.group.generation_id

    @invariant()
    def nobody_waits_longer_than_the_rebalance_timeout(self) -> None:
        for waiter, due_ms in list(self.due_ms.items()):
            if waiter in self.bench.replies:
                del self.due_ms[waiter]
            else:
                assert self.bench.now_ms <= due_ms or self.bench.machine.tables.in_flight, waiter

    @invariant()
    def assignments_are_what_the_leader_gave(self) -> None:
        for waiter, (member_id, generation) in list(self.syncs.items()):
            if waiter in self.bench.replies:
                del self.syncs[waiter]
                reply = self.bench.replies[waiter]
                if reply.error == ErrorCode.none:
                    assert reply.assignment in self._possible(generation, member_id)

    def _possible(self, generation: int, member_id: str) -> set[bytes]:
        given = self.given.get((generation, member_id), set())
        # A static member that came back has what its former id was given.
        instance = member_id.partition("-")[0]
        for (at, other), assignments in self.given.items():
            if at == generation and instance in ("i1", "i2") and other.partition("-")[0] == instance:
                given = given | assignments
        return given

    @invariant()
    def the_books_are_right(self) -> None:
        group = self.group
        members = group.members.values()
        assert group.joining_count == sum(member.join_waiter is not None for member in members)
        supporters = Counter(name for member in members for name in member.protocol_names)
        assert group.supporters == supporters
        statics = {m.group_instance_id: m.member_id for m in members if m.group_instance_id}
        assert group.static_members == statics
        assert group.pending_sync <= set(group.members)
        assert not set(group.pending) & set(group.members)
        assert all(member_id == member.member_id for member_id, member in group.members.items())

    @invariant()
    def it_will_wake_in_time(self) -> None:
        wakes = self.bench.machine.tables.wakes
        first_ms = wakes[0].deadline_ms if wakes else NEVER_MS
        assert first_ms <= self.group.next_deadline_ms()

    @invariant()
    def the_log_holds_what_the_machine_holds(self) -> None:
        if self.bench.machine.tables.in_flight:
            return
        other = self.bench.failed_over()
        assert durable(other.machine) == durable(self.bench.machine)
        if self.group.state is GroupState.STABLE:
            there = other.group()
            assert there.generation_id == self.group.generation_id
            assert {m: there.members[m].assignment for m in there.members} == {
                m: self.group.members[m].assignment for m in self.group.members
            }

    def teardown(self) -> None:
        """When everyone falls silent, all are answered and the group ends up empty."""
        self.bench.auto_commit = True
        self.bench.commit_all()
        self.bench.wait(100_000)
        for waiter in (*self.due_ms, *self.syncs):
            assert waiter in self.bench.replies, waiter
        assert not self.members
        assert self.group.state is GroupState.EMPTY
        assert self.group.next_deadline_ms() == NEVER_MS


TestGroupUnderFire = GroupUnderFire.TestCase
