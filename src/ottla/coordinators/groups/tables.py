"""The groups and offsets of one partition of `__consumer_offsets`, and what is on its way into its log.

State is of two kinds. Durable: `metadata` (each group's stored generation) and `offsets`; only `replay`
changes them, with records that are committed in the log, so that a fail-over finds the same. Soft: `groups`,
the rebalances under way.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from ottla.coordinators.groups.classic_group import EMPTY, ClassicGroup, Wake
from ottla.coordinators.groups.member import MemberBytes
from ottla.coordinators.groups.offsets import NO_PRODUCER_ID, OffsetKey, Offsets
from ottla.coordinators.groups.schemas import CoordinatorRecord, GroupMetadata, OffsetRecord
from ottla.coordinators.groups.step import Step
from ottla.coordinators.runtime.step import Write
from ottla.errors import ErrorCode, KafkaError


class GroupTables:
    """What the machine and its parts look things up in. The fields are theirs to read."""

    __slots__ = (
        "_committing",
        "deleting",
        "groups",
        "in_flight",
        "member_bytes",
        "metadata",
        "offsets",
        "wakes",
    )

    def __init__(self, member_bytes: MemberBytes | None = None) -> None:
        # Of all groups of the node, which its tables share.
        self.member_bytes = MemberBytes() if member_bytes is None else member_bytes
        self.groups: dict[str, ClassicGroup] = {}
        self.metadata: dict[str, GroupMetadata] = {}
        self.offsets = Offsets()
        # Writes that are neither committed nor failed, in log order; and those that set a group's offsets,
        # which are about the group.
        self.in_flight: deque[Write] = deque()
        self._committing: dict[str, list[Write]] = {}
        # Groups that are being deleted piece by piece: nobody may join them or commit to them.
        self.deleting: dict[str, None] = {}
        # A heap of when groups have something to do; see `ClassicGroup.wakes`.
        self.wakes: list[Wake] = []

    def replay(self, record: CoordinatorRecord, producer_id: int = NO_PRODUCER_ID) -> None:
        """Apply a committed record."""
        if isinstance(record, OffsetRecord):
            self.offsets.replay(record, producer_id)
        elif record.value is None:
            self.metadata.pop(record.group_id, None)
        else:
            self.metadata[record.group_id] = record.value

    # -- groups

    def check_not_deleting(self, group_id: str) -> None:
        """KafkaError COORDINATOR_NOT_AVAILABLE, which clients retry, while the group is being deleted."""
        if group_id in self.deleting:
            raise KafkaError(ErrorCode.coordinator_not_available, f"group {group_id} is being deleted")

    def ensure_group(self, group_id: str, wall_ms: int) -> ClassicGroup:
        """The group, which comes to be where it is not there yet."""
        group = self.groups.get(group_id)
        if group is None:
            group = self.groups[group_id] = ClassicGroup(group_id, wall_ms, self.wakes, self.member_bytes)
        return group

    def forget_if_unborn(self, group: ClassicGroup) -> None:
        """A group that nobody came to be in leaves no trace; one that had offsets stays until it expires."""
        if (
            group.state is EMPTY
            and group.generation_id == 0
            and not group.is_of_offsets
            and not group.pending
            and group.group_id not in self.metadata
            and not self.offsets.has_any(group.group_id)
        ):
            self.groups.pop(group.group_id, None)

    # -- writes

    def submitted(self, write: Write) -> None:
        """``write`` is on its way, behind all that are."""
        self.in_flight.append(write)
        if write.about is not None:
            writes = self._committing.get(write.about)
            if writes is None:
                self._committing[write.about] = [write]
            else:
                writes.append(write)

    def committed(self, write: Write, step: Step) -> None:
        """``write``, the oldest in flight, is in the log for good."""
        self._arrived(write)
        producer_id = write.producer_id
        for record in write.records:
            self.replay(record, producer_id)
        if write.about is not None and write.about not in self.groups:
            # A group that only keeps offsets comes to be with the first of them.
            self.ensure_group(write.about, step.wall_ms).is_of_offsets = True
        write.committed(step)

    def failed(self, write: Write, code: ErrorCode, step: Step) -> None:
        """``write``, the oldest in flight, is not in the log and never will be."""
        self._arrived(write)
        write.failed(code, step)

    def _arrived(self, write: Write) -> None:
        head = self.in_flight.popleft()
        assert head is write
        if write.about is not None:
            writes = self._committing[write.about]
            if len(writes) == 1:
                del self._committing[write.about]
            else:
                # Few: a group's members wait for one commit before they make the next.
                del writes[0]

    def keys_in_flight(self, group_id: str) -> Iterator[OffsetKey]:
        """The offsets that the group will have when what is in flight is committed. May repeat some."""
        for write in self._committing.get(group_id, ()):
            for record in write.records:
                if isinstance(record, OffsetRecord):
                    yield OffsetKey(group_id, record.topic, record.partition)

    def keys_in_flight_count(self, group_id: str) -> int:
        """How many `keys_in_flight` are, repeated ones counted as often."""
        return sum(len(write.records) for write in self._committing.get(group_id, ()))
