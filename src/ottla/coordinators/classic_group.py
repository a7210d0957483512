"""A classic consumer group: its members, their votes and waits, and its deadlines (Kafka's ClassicGroup).

This is the state that `rebalance` moves. All of it but what `to_metadata` gives is soft: after a fail-over
the members are as the last stored generation says, each with a session timeout to show itself.
Deadlines are monotonic milliseconds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from heapq import heappush
from typing import NamedTuple

from ottla.coordinators.schemas import (
    NO_TIMESTAMP,
    GroupMetadata,
    MemberMetadata,
    SchemaError,
    subscribed_topics,
)
from ottla.coordinators.step import NEVER_MS, Waiter
from ottla.errors import ErrorCode, KafkaError

CONSUMER_PROTOCOL_TYPE = "consumer"


class GroupState(Enum):
    """The values are what clients see."""

    EMPTY = "Empty"
    PREPARING_REBALANCE = "PreparingRebalance"
    COMPLETING_REBALANCE = "CompletingRebalance"
    STABLE = "Stable"
    DEAD = "Dead"


EMPTY = GroupState.EMPTY
PREPARING_REBALANCE = GroupState.PREPARING_REBALANCE
COMPLETING_REBALANCE = GroupState.COMPLETING_REBALANCE
STABLE = GroupState.STABLE
DEAD = GroupState.DEAD

_VALID_PREVIOUS_STATES = {
    EMPTY: (PREPARING_REBALANCE,),
    PREPARING_REBALANCE: (STABLE, COMPLETING_REBALANCE, EMPTY),
    COMPLETING_REBALANCE: (PREPARING_REBALANCE,),
    STABLE: (COMPLETING_REBALANCE,),
    DEAD: (EMPTY, PREPARING_REBALANCE, COMPLETING_REBALANCE, STABLE),
}


class Wake(NamedTuple):
    """When a group has something to do."""

    deadline_ms: int
    group_id: str


class Protocol(NamedTuple):
    """A way to assign partitions that a member supports, with what the member wants the leader to know."""

    name: str
    metadata: bytes


@dataclass(slots=True)
class Member:
    """A member of a classic group (Kafka's ClassicGroupMember)."""

    member_id: str
    group_instance_id: str | None
    client_id: str
    client_host: str
    rebalance_timeout_ms: int
    session_timeout_ms: int
    # In order of preference.
    protocols: tuple[Protocol, ...]
    assignment: bytes = b""
    # Who waits for the member's JoinGroup or SyncGroup to be answered.
    join_waiter: Waiter | None = None
    sync_waiter: Waiter | None = None
    # True until the first JoinGroup is answered: such a member may time out even while it waits.
    is_new: bool = False
    # When its session ends.
    deadline_ms: int = NEVER_MS

    @property
    def is_static(self) -> bool:
        return self.group_instance_id is not None

    @property
    def protocol_names(self) -> frozenset[str]:
        return frozenset(protocol.name for protocol in self.protocols)

    def metadata(self, protocol_name: str | None) -> bytes:
        """What it said for that protocol; empty for one that it does not support."""
        for protocol in self.protocols:
            if protocol.name == protocol_name:
                return protocol.metadata
        return b""


class ClassicGroup:
    """See the module's docstring. Every change of a deadline goes through `wake_by`."""

    __slots__ = (
        "generation_id",
        "group_id",
        "initial_delay_ms",
        "initial_remaining_ms",
        "is_initial_rebalance",
        "join_deadline_ms",
        "joining_count",
        "leader_id",
        "members",
        "new_member_added",
        "pending",
        "pending_sync",
        "previous_state",
        "protocol_name",
        "protocol_type",
        "state",
        "state_timestamp_ms",
        "static_members",
        "storing_generation_id",
        "subscribed_topics",
        "supporters",
        "sync_deadline_ms",
        "wake_ms",
        "wakes",
    )

    def __init__(self, group_id: str, wall_ms: int, wakes: list[Wake] | None = None) -> None:
        self.group_id = group_id
        self.state = EMPTY
        self.previous_state = DEAD
        # Unix time of the last change of state; -1 if the group was stored without one.
        self.state_timestamp_ms = wall_ms
        self.generation_id = 0
        # None for a group that never had members: it only keeps offsets (a "simple" group).
        self.protocol_type: str | None = None
        self.protocol_name: str | None = None
        self.leader_id: str | None = None
        self.members: dict[str, Member] = {}
        # Member id by group.instance.id.
        self.static_members: dict[str, str] = {}
        # Ids that were handed out and not used yet (KIP-394), with when they are forgotten.
        self.pending: dict[str, int] = {}
        # Members that were told the generation and did not ask for their assignment yet.
        self.pending_sync: set[str] = set()
        # The generation whose assignment is on its way into the log. A leader that sends it again must not
        # change it: members would see the first, and after a fail-over the second.
        self.storing_generation_id: int | None = None
        # How many members wait for their JoinGroup.
        self.joining_count = 0
        # How many members support a protocol.
        self.supporters: Counter[str] = Counter()
        # The topics of all members; None where they are not known (another protocol, or unreadable).
        self.subscribed_topics: frozenset[str] | None = None
        self.join_deadline_ms = NEVER_MS
        self.sync_deadline_ms = NEVER_MS
        # While a rebalance from Empty gives more members the time to come.
        self.is_initial_rebalance = False
        self.initial_delay_ms = 0
        self.initial_remaining_ms = 0
        self.new_member_added = False
        # No deadline is earlier than this; it may be too early, for heartbeats move deadlines on.
        self.wake_ms = NEVER_MS
        # A heap of when groups want to be woken, shared with others. Entries that do not equal the group's
        # ``wake_ms`` any more are void.
        self.wakes: list[Wake] = [] if wakes is None else wakes

    # -- deadlines

    def wake_by(self, deadline_ms: int) -> None:
        if deadline_ms < self.wake_ms:
            self.wake_ms = deadline_ms
            heappush(self.wakes, Wake(deadline_ms, self.group_id))

    def set_join_deadline(self, deadline_ms: int) -> None:
        self.join_deadline_ms = deadline_ms
        self.wake_by(deadline_ms)

    def set_sync_deadline(self, deadline_ms: int) -> None:
        self.sync_deadline_ms = deadline_ms
        self.wake_by(deadline_ms)

    def extend_session(self, member: Member, now_ms: int) -> None:
        """The member has shown itself."""
        deadline_ms = now_ms + member.session_timeout_ms
        member.deadline_ms = deadline_ms
        if deadline_ms < self.wake_ms:
            self.wake_by(deadline_ms)

    def reset_wake(self) -> None:
        """The group was woken: find out when it wants to be again."""
        self.wake_ms = NEVER_MS
        self.wake_by(self.next_deadline_ms())

    def next_deadline_ms(self) -> int:
        return min(
            self.join_deadline_ms,
            self.sync_deadline_ms,
            min(self.pending.values(), default=NEVER_MS),
            min((member.deadline_ms for member in self.members.values()), default=NEVER_MS),
        )

    # -- members

    def add(self, member: Member, protocol_type: str) -> None:
        """Let in a member whose protocols were found to fit (`supports`)."""
        if member.group_instance_id is not None:
            assert member.group_instance_id not in self.static_members
            self.static_members[member.group_instance_id] = member.member_id
        if not self.members:
            self.protocol_type = protocol_type
        assert self.protocol_type == protocol_type
        if self.leader_id is None:
            self.leader_id = member.member_id
        self.members[member.member_id] = member
        self.supporters.update(member.protocol_names)
        if member.join_waiter is not None:
            self.joining_count += 1
        self.pending.pop(member.member_id, None)

    def remove(self, member_id: str) -> None:
        """Forget a member, or an id that was handed out. Whoever waits for it must have been answered."""
        member = self.members.pop(member_id, None)
        if member is not None:
            self._withdraw_support(member)
            if member.join_waiter is not None:
                self.joining_count -= 1
            if member.group_instance_id is not None:
                del self.static_members[member.group_instance_id]
        if self.leader_id == member_id:
            self.leader_id = next(iter(self.members), None)
        self.pending.pop(member_id, None)
        self.pending_sync.discard(member_id)

    def update(
        self,
        member: Member,
        protocols: tuple[Protocol, ...],
        rebalance_timeout_ms: int,
        session_timeout_ms: int,
    ) -> None:
        """Take over what a member says of itself when it joins again."""
        self._withdraw_support(member)
        member.protocols = protocols
        self.supporters.update(member.protocol_names)
        member.rebalance_timeout_ms = rebalance_timeout_ms
        member.session_timeout_ms = session_timeout_ms

    def rename_static(self, group_instance_id: str, old_id: str, new_id: str) -> Member:
        """A static member has a new id from now on, and the leader's role and assignment of the old one."""
        member = self.members.pop(old_id)
        member.member_id = new_id
        self.members[new_id] = member
        self.static_members[group_instance_id] = new_id
        if self.leader_id == old_id:
            self.leader_id = new_id
        if old_id in self.pending_sync:
            self.pending_sync.remove(old_id)
            self.pending_sync.add(new_id)
        return member

    def set_join_waiter(self, member: Member, waiter: Waiter | None) -> None:
        self.joining_count += (waiter is not None) - (member.join_waiter is not None)
        member.join_waiter = waiter

    def _withdraw_support(self, member: Member) -> None:
        self.supporters.subtract(member.protocol_names)
        for name in member.protocol_names:
            if not self.supporters[name]:
                del self.supporters[name]

    def check_member(self, member_id: str, group_instance_id: str | None) -> Member:
        """The member, if the caller may act for it.

        Raises UNKNOWN_MEMBER_ID, or FENCED_INSTANCE_ID where another process has taken over the
        caller's group.instance.id.
        """
        if group_instance_id is not None:
            owner = self.static_members.get(group_instance_id)
            if owner is None:
                raise KafkaError(ErrorCode.unknown_member_id)
            if owner != member_id:
                raise KafkaError(ErrorCode.fenced_instance_id)
        member = self.members.get(member_id)
        if member is None:
            raise KafkaError(ErrorCode.unknown_member_id)
        return member

    @property
    def all_joined(self) -> bool:
        return self.joining_count == len(self.members) and not self.pending

    @property
    def rebalance_timeout_ms(self) -> int:
        return max((member.rebalance_timeout_ms for member in self.members.values()), default=0)

    def elect_joined_leader(self) -> bool:
        """See that the leader is a member that has joined; False if no member has."""
        if self.leader_id is None:
            return False
        if self.members[self.leader_id].join_waiter is not None:
            return True
        for member in self.members.values():
            if member.join_waiter is not None:
                self.leader_id = member.member_id
                return True
        return False

    # -- protocols

    def supports(self, protocol_type: str, protocol_names: Iterable[str]) -> bool:
        """Whether a member with these protocols could be in the group."""
        if self.state is EMPTY:
            return bool(protocol_type) and any(True for _ in protocol_names)
        count = len(self.members)
        return self.protocol_type == protocol_type and any(
            self.supporters[name] == count for name in protocol_names
        )

    def select_protocol(self) -> str:
        """The protocol that all members support and most prefer; of equals, the one voted for first."""
        count = len(self.members)
        votes: Counter[str] = Counter()
        for member in self.members.values():
            votes[next(p.name for p in member.protocols if self.supporters[p.name] == count)] += 1
        return votes.most_common(1)[0][0]

    @property
    def uses_consumer_protocol(self) -> bool:
        return self.protocol_type == CONSUMER_PROTOCOL_TYPE

    def is_subscribed_to(self, topic: str) -> bool:
        """Whether members read the topic; a consumer group whose topics are unknown may read any."""
        if self.subscribed_topics is None:
            return self.uses_consumer_protocol
        return topic in self.subscribed_topics

    def compute_subscribed_topics(self) -> None:
        self.subscribed_topics = None
        if not self.uses_consumer_protocol:
            return
        if not self.members:
            self.subscribed_topics = frozenset()
        elif self.protocol_name is not None:
            try:
                self.subscribed_topics = frozenset().union(
                    *(
                        subscribed_topics(member.metadata(self.protocol_name))
                        for member in self.members.values()
                    )
                )
            except SchemaError:
                # A client's own format under the consumer protocol's name: the topics stay unknown.
                return

    # -- states

    @property
    def can_rebalance(self) -> bool:
        return self.state in _VALID_PREVIOUS_STATES[PREPARING_REBALANCE]

    def transition_to(self, state: GroupState, wall_ms: int) -> None:
        assert self.state in _VALID_PREVIOUS_STATES[state], (self.state, state)
        self.previous_state = self.state
        self.state = state
        self.state_timestamp_ms = wall_ms

    def next_generation(self, wall_ms: int) -> None:
        """All that would come have joined: choose the protocol, or be empty."""
        self.generation_id += 1
        self.protocol_name = self.select_protocol() if self.members else None
        self.compute_subscribed_topics()
        self.pending_sync.clear()
        self.transition_to(COMPLETING_REBALANCE if self.members else EMPTY, wall_ms)

    # -- records

    def to_metadata(self, assignments: dict[str, bytes]) -> GroupMetadata:
        """What is stored of this generation, given each member's assignment."""
        return GroupMetadata(
            protocol_type=self.protocol_type or "",
            generation_id=self.generation_id,
            protocol_name=self.protocol_name,
            leader=self.leader_id,
            current_state_timestamp_ms=self.state_timestamp_ms,
            members=tuple(
                MemberMetadata(
                    member_id=member.member_id,
                    group_instance_id=member.group_instance_id,
                    client_id=member.client_id,
                    client_host=member.client_host,
                    rebalance_timeout_ms=member.rebalance_timeout_ms,
                    session_timeout_ms=member.session_timeout_ms,
                    subscription=member.metadata(self.protocol_name),
                    assignment=assignments.get(member.member_id, b""),
                )
                for member in self.members.values()
            ),
        )

    @classmethod
    def from_metadata(
        cls, group_id: str, stored: GroupMetadata, wakes: list[Wake] | None = None
    ) -> ClassicGroup:
        """The group as it was stored: Stable with members, Empty without. No deadlines are set."""
        group = cls(group_id, stored.current_state_timestamp_ms, wakes)
        group.generation_id = stored.generation_id
        group.protocol_type = stored.protocol_type or None
        group.protocol_name = stored.protocol_name
        for member in stored.members:
            group.add(_restore(member, stored.protocol_name or ""), stored.protocol_type)
        if stored.leader in group.members:
            group.leader_id = stored.leader
        group.state = STABLE if group.members else EMPTY
        group.compute_subscribed_topics()
        return group

    @property
    def empty_since_ms(self) -> int | None:
        """Unix time since which the group has had no members; None if it was stored without one."""
        return None if self.state_timestamp_ms == NO_TIMESTAMP else self.state_timestamp_ms


def _restore(stored: MemberMetadata, protocol_name: str) -> Member:
    timeout_ms = stored.rebalance_timeout_ms
    return Member(
        member_id=stored.member_id,
        group_instance_id=stored.group_instance_id,
        client_id=stored.client_id,
        client_host=stored.client_host,
        rebalance_timeout_ms=stored.session_timeout_ms if timeout_ms == -1 else timeout_ms,
        session_timeout_ms=stored.session_timeout_ms,
        protocols=(Protocol(protocol_name, stored.subscription),),
        assignment=stored.assignment,
    )
