"""Requests to the group coordinator and its answers, independent of protocol versions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, final
from uuid import UUID

from ottla.coordinators.groups.member import Protocol
from ottla.coordinators.runtime.step import Producer
from ottla.errors import ErrorCode
from ottla.wire.commits import OffsetToCommit

UNKNOWN_MEMBER_ID = ""
UNKNOWN_GENERATION_ID = -1
NO_OFFSET = -1


class JoinRequest(NamedTuple):
    group_id: str
    # Empty for a member that has no id yet; ``new_member_id`` is the one that it would get.
    member_id: str
    new_member_id: str
    group_instance_id: str | None
    client_id: str
    client_host: str
    protocol_type: str
    protocols: tuple[Protocol, ...]
    session_timeout_ms: int
    rebalance_timeout_ms: int
    # Version 4 on: a dynamic member has to come back with the id that it was given (KIP-394).
    requires_known_member_id: bool
    # Version 9 on: a static leader that comes back may be told not to assign anew (KIP-814).
    supports_skipping_assignment: bool
    reason: str | None = None


class JoinedMember(NamedTuple):
    member_id: str
    group_instance_id: str | None
    metadata: bytes


class JoinResponse(NamedTuple):
    error: ErrorCode
    member_id: str
    generation_id: int = UNKNOWN_GENERATION_ID
    protocol_type: str | None = None
    protocol_name: str | None = None
    leader: str = ""
    skip_assignment: bool = False
    # For the leader only.
    members: tuple[JoinedMember, ...] = ()


class SyncRequest(NamedTuple):
    group_id: str
    generation_id: int
    member_id: str
    group_instance_id: str | None
    # None before version 5.
    protocol_type: str | None
    protocol_name: str | None
    # Assignment by member id; empty but for the leader.
    assignments: Mapping[str, bytes]


class SyncResponse(NamedTuple):
    error: ErrorCode
    protocol_type: str | None = None
    protocol_name: str | None = None
    assignment: bytes = b""


class LeavingMember(NamedTuple):
    # Empty where an administrator removes a static member by its instance id.
    member_id: str
    group_instance_id: str | None = None
    reason: str | None = None


class LeftMember(NamedTuple):
    member_id: str
    group_instance_id: str | None
    error: ErrorCode


class LeaveResponse(NamedTuple):
    error: ErrorCode
    members: tuple[LeftMember, ...] = ()


@final
class TopicToCommit:
    """Where a group is in partitions of a topic: as an OffsetCommit has it."""

    __slots__ = ("partitions", "topic", "topic_id")

    def __init__(self, topic: str, topic_id: UUID, partitions: Sequence[OffsetToCommit]) -> None:
        self.topic = topic
        self.topic_id = topic_id
        self.partitions = partitions


@final
class CommitRequest:
    """An OffsetCommit, or a TxnOffsetCommit."""

    __slots__ = (
        "generation_id", "group_id", "group_instance_id", "knows_group_id_not_found", "member_id",
        "producer", "retention_time_ms", "topics",
    )  # fmt: skip

    def __init__(
        self,
        group_id: str,
        generation_id: int,
        member_id: str,
        group_instance_id: str | None,
        retention_time_ms: int,
        knows_group_id_not_found: bool,
        topics: Sequence[TopicToCommit],
        producer: Producer | None = None,
    ) -> None:
        self.group_id = group_id
        # -1 for a consumer that only keeps its offsets here.
        self.generation_id = generation_id
        self.member_id = member_id
        self.group_instance_id = group_instance_id
        # -1: the broker's retention. Versions 2 to 4 only.
        self.retention_time_ms = retention_time_ms
        # Version 9 on: GROUP_ID_NOT_FOUND may be answered.
        self.knows_group_id_not_found = knows_group_id_not_found
        self.topics = topics
        # In whose transaction, for a TxnOffsetCommit.
        self.producer = producer


class PartitionError(NamedTuple):
    partition: int
    error: ErrorCode


# Each topic's name with the outcome for each of its partitions.
PartitionErrors = list[tuple[str, list[PartitionError]]]


class FetchTopic(NamedTuple):
    topic: str
    # The zero UUID where the request names topics by name.
    topic_id: UUID
    partitions: Sequence[int]


class FetchedOffset(NamedTuple):
    partition: int
    offset: int = NO_OFFSET
    leader_epoch: int = -1
    metadata: str = ""
    error: ErrorCode = ErrorCode.none


class FetchedTopic(NamedTuple):
    topic: str
    topic_id: UUID
    partitions: list[FetchedOffset]


class DescribedMember(NamedTuple):
    member_id: str
    group_instance_id: str | None
    client_id: str
    client_host: str
    metadata: bytes
    assignment: bytes


class DescribedGroup(NamedTuple):
    group_id: str
    error: ErrorCode
    state: str = ""
    protocol_type: str = ""
    protocol_data: str = ""
    members: tuple[DescribedMember, ...] = ()


class ListedGroup(NamedTuple):
    group_id: str
    protocol_type: str
    state: str
    type: str


class DeletedGroup(NamedTuple):
    group_id: str
    error: ErrorCode


class DeletedOffsets(NamedTuple):
    error: ErrorCode
    topics: PartitionErrors
