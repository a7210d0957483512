"""A classic consumer group: its members, their votes and waits, and its deadlines (Kafka's ClassicGroup).

This is the state that `rebalance` moves. All of it but what `to_metadata` gives is soft: after a fail-over
the members are as the last stored generation says, each with a session timeout to show itself.
Deadlines are monotonic milliseconds.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable
from enum import Enum
from functools import partial
from heapq import heappush
from typing import NamedTuple, TypeVar

from ottla.coordinators.groups.member import Member, MemberBytes, Protocol, metadata_of, restore
from ottla.coordinators.groups.schemas import (
    NO_TIMESTAMP,
    GroupMetadata,
    MemberMetadata,
    subscribed_topics,
)
from ottla.coordinators.runtime.machine import SchemaError
from ottla.coordinators.runtime.pieces import PIECE
from ottla.coordinators.runtime.step import NEVER_MS, Waiter
from ottla.errors import ErrorCode, KafkaError

K = TypeVar("K")

CONSUMER_PROTOCOL_TYPE = "consumer"

# Topics in members' subscriptions that are read when a generation begins, some milliseconds' worth; those
# that several members name alike count once. A group with more may read any topic, as far as is known here.
TOPICS_READ_MAX = 20_000


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


class ClassicGroup:
    """See the module's docstring. Every change of a deadline goes through `wake_by`."""

    __slots__ = (
        "_subscribed_topics",
        "_subscriptions",
        "generation_id",
        "group_id",
        "initial_delay_ms",
        "initial_remaining_ms",
        "is_initial_rebalance",
        "is_of_offsets",
        "join_deadline_ms",
        "joining_count",
        "kept_bytes",
        "leader_id",
        "members",
        "new_member_added",
        "node_bytes",
        "pending",
        "pending_sync",
        "preferences",
        "previous_state",
        "protocol_name",
        "protocol_type",
        "state",
        "state_timestamp_ms",
        "static_members",
        "storing_generation_id",
        "supporters",
        "sync_deadline_ms",
        "wake_ms",
        "wakes",
    )

    def __init__(
        self,
        group_id: str,
        wall_ms: int,
        wakes: list[Wake] | None = None,
        node_bytes: MemberBytes | None = None,
    ) -> None:
        self.group_id = group_id
        self.state = EMPTY
        self.previous_state = DEAD
        # Unix time of the last change of state; -1 if the group was stored without one.
        self.state_timestamp_ms = wall_ms
        self.generation_id = 0
        # None for a group that never had members: it only keeps offsets (a "simple" group).
        self.protocol_type: str | None = None
        # Whether it came to be with an offset that was committed; it may have none any more.
        self.is_of_offsets = False
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
        self.supporters: dict[str, int] = {}
        # How many members have these preferences: most have the same.
        self.preferences: dict[tuple[str, ...], int] = {}
        # What `subscribed_topics` is read from when it is first asked for: the members' protocols as they
        # were when the generation began.
        self._subscriptions: list[tuple[Protocol, ...]] | None = None
        self._subscribed_topics: frozenset[str] | None = None
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
        # What its members' protocols take, and those of all groups of the node.
        self.kept_bytes = 0
        self.node_bytes = MemberBytes() if node_bytes is None else node_bytes

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

    def try_again_at(self, deadline_ms: int) -> None:
        """The group was woken to no avail: wake it again then, whatever its own deadlines say."""
        self.wake_ms = NEVER_MS
        self.wake_by(deadline_ms)

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
        self._keep(member.kept_bytes)
        self._support(member.protocol_names, 1)
        if member.join_waiter is not None:
            self.joining_count += 1
        self.pending.pop(member.member_id, None)

    def remove(self, member_id: str) -> None:
        """Forget a member, or an id that was handed out. Whoever waits for it must have been answered."""
        self.remove_all((member_id,))

    def remove_all(self, member_ids: Iterable[str]) -> None:
        """`remove` each of them. If the leader is among them, the one that has been here longest leads."""
        kept = 0
        withdrawn: dict[tuple[str, ...], int] = {}
        for member_id in member_ids:
            member = self.members.pop(member_id, None)
            if member is not None:
                kept += member.kept_bytes
                names = member.protocol_names
                withdrawn[names] = withdrawn.get(names, 0) + 1
                if member.join_waiter is not None:
                    self.joining_count -= 1
                if member.group_instance_id is not None:
                    del self.static_members[member.group_instance_id]
            self.pending.pop(member_id, None)
            self.pending_sync.discard(member_id)
        self._keep(-kept)
        for names, count in withdrawn.items():
            self._support(names, -count)
        # Once for all of them: a dict's first key is found behind the places of all that were before it.
        if self.leader_id is not None and self.leader_id not in self.members:
            self.leader_id = next(iter(self.members), None)

    def update(
        self,
        member: Member,
        protocols: tuple[Protocol, ...],
        rebalance_timeout_ms: int,
        session_timeout_ms: int,
    ) -> None:
        """Take over what a member says of itself when it joins again."""
        # What it said before is kept no longer than it is counted.
        _ = self.subscribed_topics
        self._support(member.protocol_names, -1)
        self._keep(-member.kept_bytes)
        member.set_protocols(protocols)
        self._keep(member.kept_bytes)
        self._support(member.protocol_names, 1)
        member.rebalance_timeout_ms = rebalance_timeout_ms
        member.session_timeout_ms = session_timeout_ms

    def _keep(self, change_bytes: int) -> None:
        self.kept_bytes += change_bytes
        self.node_bytes.count += change_bytes

    def forget(self) -> None:
        """Nobody has the group any more."""
        self._keep(-self.kept_bytes)

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

    def _support(self, names: tuple[str, ...], members: int) -> None:
        """So many more members have these preferences, or fewer."""
        _change(self.preferences, names, members)
        for name in names:
            _change(self.supporters, name, members)

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
            self.supporters.get(name) == count for name in protocol_names
        )

    def select_protocol(self) -> str:
        """The protocol that all members support and most prefer; of equals, the one voted for first."""
        count = len(self.members)
        votes: dict[str, int] = {}
        for names, voters in self.preferences.items():
            _change(votes, next(name for name in names if self.supporters[name] == count), voters)
        return max(votes, key=votes.__getitem__)

    @property
    def uses_consumer_protocol(self) -> bool:
        return self.protocol_type == CONSUMER_PROTOCOL_TYPE

    def is_subscribed_to(self, topic: str) -> bool:
        """Whether members read the topic; a consumer group whose topics are unknown may read any."""
        if self.subscribed_topics is None:
            return self.uses_consumer_protocol
        return topic in self.subscribed_topics

    @property
    def subscribed_topics(self) -> frozenset[str] | None:
        """The topics of all members; None where they are not known (another protocol, or unreadable)."""
        if self._subscriptions is not None:
            self._subscribed_topics = self._read_subscriptions(self._subscriptions)
            self._subscriptions = None
        return self._subscribed_topics

    def _read_subscriptions(self, protocols: list[tuple[Protocol, ...]]) -> frozenset[str] | None:
        name = self.protocol_name
        try:
            metadata = map(partial(metadata_of, protocol_name=name), protocols)
            return subscribed_topics(metadata, TOPICS_READ_MAX)
        except SchemaError:
            # A client's own format under the consumer protocol's name: the topics stay unknown.
            return None

    def note_subscriptions(self) -> None:
        """A generation begins: its members' topics are those of their metadata as it is now."""
        self._subscriptions = self._subscribed_topics = None
        if self.uses_consumer_protocol:
            if not self.members:
                self._subscribed_topics = frozenset()
            elif self.protocol_name is not None:
                self._subscriptions = [member.protocols for member in self.members.values()]

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
        self.note_subscriptions()
        self.pending_sync.clear()
        self.transition_to(COMPLETING_REBALANCE if self.members else EMPTY, wall_ms)

    # -- records

    def to_metadata(self, assignments: dict[str, bytes]) -> GroupMetadata:
        """What is stored of this generation, given each member's assignment."""
        name = self.protocol_name
        return GroupMetadata(
            protocol_type=self.protocol_type or "",
            generation_id=self.generation_id,
            protocol_name=self.protocol_name,
            leader=self.leader_id,
            current_state_timestamp_ms=self.state_timestamp_ms,
            members=tuple(
                [
                    # By position, which takes half of the time.
                    MemberMetadata(
                        member.member_id,
                        member.group_instance_id,
                        member.client_id,
                        member.client_host,
                        member.rebalance_timeout_ms,
                        member.session_timeout_ms,
                        member.metadata(name),
                        assignments.get(member.member_id, b""),
                    )
                    for member in self.members.values()
                ]
            ),
        )

    @classmethod
    def from_metadata(
        cls,
        group_id: str,
        stored: GroupMetadata,
        wakes: list[Wake] | None = None,
        node_bytes: MemberBytes | None = None,
    ) -> Generator[None, None, ClassicGroup]:
        """The group as it was stored: Stable with members, Empty without. No deadlines are set. Yields after
        each piece of its work."""
        group = cls(group_id, stored.current_state_timestamp_ms, wakes, node_bytes)
        group.generation_id = stored.generation_id
        group.protocol_type = stored.protocol_type or None
        group.protocol_name = stored.protocol_name
        for count, member in enumerate(stored.members, 1):
            group.add(restore(member, stored.protocol_name or ""), stored.protocol_type)
            if count % PIECE == 0:
                yield
        if stored.leader in group.members:
            group.leader_id = stored.leader
        group.state = STABLE if group.members else EMPTY
        group.note_subscriptions()
        return group

    @property
    def empty_since_ms(self) -> int | None:
        """Unix time since which the group has had no members; None if it was stored without one."""
        return None if self.state_timestamp_ms == NO_TIMESTAMP else self.state_timestamp_ms


def _change(counts: dict[K, int], key: K, by: int) -> None:
    """Count; what there is none of is not in ``counts``."""
    count = counts.get(key, 0) + by
    if count:
        counts[key] = count
    else:
        del counts[key]
