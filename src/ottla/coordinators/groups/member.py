"""A member of a classic group, and what it says of itself."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from ottla.coordinators.groups.schemas import MemberMetadata
from ottla.coordinators.runtime.step import NEVER_MS, Waiter

# What a member's protocol takes besides its name and metadata, roughly.
PROTOCOL_BYTES = 100
# Ids of members that a line of the log names.
NAMED_MAX = 20


class MemberBytes:
    """Bytes that the members of a node's groups have said of themselves, which are kept for them."""

    __slots__ = ("count",)

    def __init__(self) -> None:
        self.count = 0


class Protocol(NamedTuple):
    """A way to assign partitions that a member supports, with what the member wants the leader to know."""

    name: str
    metadata: bytes


def kept_bytes(protocols: Iterable[Protocol]) -> int:
    """What a member's protocols take."""
    return sum([PROTOCOL_BYTES + len(name) + len(metadata) for name, metadata in protocols])


def metadata_of(protocols: Iterable[Protocol], protocol_name: str | None) -> bytes:
    """What a member said for that protocol; empty for one that it does not support."""
    for name, metadata in protocols:
        if name == protocol_name:
            return metadata
    return b""


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
    # What follows from its protocols: their names, each once, in order of preference; what they take.
    protocol_names: tuple[str, ...] = field(init=False)
    kept_bytes: int = field(init=False)

    def __post_init__(self) -> None:
        self.set_protocols(self.protocols)

    def set_protocols(self, protocols: tuple[Protocol, ...]) -> None:
        self.protocols = protocols
        self.protocol_names = tuple(dict.fromkeys([name for name, _ in protocols]))
        self.kept_bytes = kept_bytes(protocols)

    @property
    def is_static(self) -> bool:
        return self.group_instance_id is not None

    def metadata(self, protocol_name: str | None) -> bytes:
        """What it said for that protocol; empty for one that it does not support."""
        return metadata_of(self.protocols, protocol_name)


def restore(stored: MemberMetadata, protocol_name: str) -> Member:
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


def some_of(member_ids: Sequence[str]) -> str:
    """Members' ids for a line of the log, where there may be thousands."""
    more = len(member_ids) - NAMED_MAX
    return ", ".join(member_ids[:NAMED_MAX]) + (f" and {more} more" if more > 0 else "")
