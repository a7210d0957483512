"""The groups of one partition of `__consumer_offsets`: a pure machine (Kafka's GroupCoordinatorShard).

State is of two kinds. Durable: `metadata` (each group's stored generation) and `offsets`; only `replay`
changes them, with records that are committed in the log, so that a fail-over finds the same. Soft: `groups`,
the rebalances under way; operations change it at once and take back what could not be stored.

Operations answer through a `Step`. The shell keeps the writes in log order and calls `committed` or `failed`
for each in that order; `in_flight` are those that it has not yet.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from heapq import heappop

from ottla.coordinators import rebalance, sessions
from ottla.coordinators.classic_group import (
    COMPLETING_REBALANCE,
    EMPTY,
    PREPARING_REBALANCE,
    STABLE,
    ClassicGroup,
    GroupState,
    Wake,
)
from ottla.coordinators.offsets import NO_PRODUCER_ID, OffsetKey, Offsets, is_expired
from ottla.coordinators.requests import (
    UNKNOWN_MEMBER_ID,
    CommitRequest,
    DeletedGroup,
    DeletedOffsets,
    DescribedGroup,
    DescribedMember,
    FetchedOffset,
    FetchedTopic,
    FetchTopic,
    JoinRequest,
    JoinResponse,
    LeaveResponse,
    LeavingMember,
    LeftMember,
    ListedGroup,
    PartitionError,
    PartitionErrors,
    SyncRequest,
    SyncResponse,
)
from ottla.coordinators.schemas import (
    NO_TIMESTAMP,
    CommittedOffset,
    CoordinatorRecord,
    GroupMetadata,
    GroupRecord,
    OffsetRecord,
    encode_record,
)
from ottla.coordinators.step import Step, Waiter, Write, append_error
from ottla.errors import ErrorCode, KafkaError
from ottla.wire.primitives import UUID_ZERO

NONE = ErrorCode.none
GROUP_TYPE = "classic"
# Bytes of tombstones that are written together: few, so that any number fits into batches of any size.
TOMBSTONES_BYTES_MAX = 16 * 1024

# Told how a write went.
Done = Callable[[ErrorCode, Step], None]


class GroupMachine:
    """See the module's docstring."""

    def __init__(self) -> None:
        self.groups: dict[str, ClassicGroup] = {}
        self.metadata: dict[str, GroupMetadata] = {}
        self.offsets = Offsets()
        self.in_flight: deque[Write] = deque()
        # A heap of when groups have something to do; see `ClassicGroup.wakes`.
        self.wakes: list[Wake] = []

    # -- durable state

    def replay(self, record: CoordinatorRecord, producer_id: int = NO_PRODUCER_ID) -> None:
        """Apply a committed record."""
        if isinstance(record, OffsetRecord):
            self.offsets.replay(record, producer_id)
        elif record.value is None:
            self.metadata.pop(record.group_id, None)
        else:
            self.metadata[record.group_id] = record.value

    def loaded(self, step: Step) -> None:
        """All of the log was replayed: bring the groups to life."""
        for group_id, stored in self.metadata.items():
            self.groups[group_id] = ClassicGroup.from_metadata(group_id, stored, self.wakes)
        for group_id in self.offsets.by_group:
            self._ensure_group(group_id, step)
        for group in self.groups.values():
            sessions.resume(group, step)

    def unload(self, step: Step) -> None:
        """Another node takes over: tell all who wait, and forget everything."""
        for group in self.groups.values():
            sessions.abandon(group, step)
        self.groups.clear()
        self.wakes.clear()
        while self.in_flight:
            self.in_flight.popleft().failed(ErrorCode.not_coordinator, step)

    def committed(self, write: Write, step: Step) -> None:
        """``write``, the oldest in flight, is in the log for good."""
        head = self.in_flight.popleft()
        assert head is write
        for record in write.records:
            self.replay(record)
            if isinstance(record, OffsetRecord) and record.value is not None:
                self._ensure_group(record.group_id, step)
        write.committed(step)

    def failed(self, write: Write, code: ErrorCode, step: Step) -> None:
        """``write``, the oldest in flight, is not in the log and never will be."""
        head = self.in_flight.popleft()
        assert head is write
        write.failed(code, step)

    def _ensure_group(self, group_id: str, step: Step) -> None:
        """A group that only keeps offsets comes to be with the first of them."""
        if group_id not in self.groups:
            self.groups[group_id] = ClassicGroup(group_id, step.wall_ms, self.wakes)

    # -- membership

    def join(self, request: JoinRequest, waiter: Waiter, step: Step) -> None:
        group = self.groups.get(request.group_id)
        if group is None:
            if request.member_id != UNKNOWN_MEMBER_ID:
                step.reply(waiter, JoinResponse(ErrorCode.unknown_member_id, request.member_id))
                return
            group = self.groups[request.group_id] = ClassicGroup(request.group_id, step.wall_ms, self.wakes)
        rebalance.join(group, request, waiter, step)
        self._forget_if_unborn(group)

    def sync(self, request: SyncRequest, waiter: Waiter, step: Step) -> None:
        group = self.groups.get(request.group_id)
        if group is None:
            step.reply(waiter, SyncResponse(ErrorCode.unknown_member_id))
        else:
            rebalance.sync(group, request, waiter, step)

    def heartbeat(
        self, group_id: str, member_id: str, group_instance_id: str | None, generation_id: int, now_ms: int
    ) -> ErrorCode:
        group = self.groups.get(group_id)
        if group is None:
            return ErrorCode.unknown_member_id
        return sessions.heartbeat(group, member_id, group_instance_id, generation_id, now_ms)

    def leave(self, group_id: str, leaving: tuple[LeavingMember, ...], waiter: Waiter, step: Step) -> None:
        group = self.groups.get(group_id)
        if group is None:
            unknown = ErrorCode.unknown_member_id
            step.reply(
                waiter,
                LeaveResponse(
                    NONE,
                    tuple(LeftMember(each.member_id, each.group_instance_id, unknown) for each in leaving),
                ),
            )
            return
        sessions.leave(group, leaving, waiter, step)
        self._forget_if_unborn(group)

    def expire(self, step: Step) -> None:
        """Do what groups' deadlines ask for by now."""
        while self.wakes and self.wakes[0].deadline_ms <= step.now_ms:
            wake = heappop(self.wakes)
            group = self.groups.get(wake.group_id)
            if group is not None and group.wake_ms == wake.deadline_ms:
                sessions.expire(group, step)
                self._forget_if_unborn(group)

    def _forget_if_unborn(self, group: ClassicGroup) -> None:
        """A group that nobody came to be in leaves no trace."""
        if (
            group.state is EMPTY
            and group.generation_id == 0
            and not group.pending
            and group.group_id not in self.metadata
            and group.group_id not in self.offsets.by_group
        ):
            self.groups.pop(group.group_id, None)

    # -- offsets

    def commit(self, request: CommitRequest, waiter: Waiter, step: Step) -> None:
        """Commit offsets; the reply, `PartitionErrors`, waits until they are stored. Raises KafkaError."""
        group = self.groups.get(request.group_id)
        if group is not None:
            self._check_commit(group, request, step.now_ms)
        elif request.generation_id >= 0:
            raise KafkaError(
                ErrorCode.group_id_not_found
                if request.knows_group_id_not_found
                else ErrorCode.illegal_generation
            )
        records: list[CoordinatorRecord] = []
        results: PartitionErrors = []
        expire_ms = NO_TIMESTAMP
        if request.retention_time_ms >= 0:
            expire_ms = step.wall_ms + request.retention_time_ms
        metadata_max = step.config.offset_metadata_max_bytes
        for topic, topic_id, partitions in request.topics:
            errors: list[PartitionError] = []
            for partition, offset, leader_epoch, metadata in partitions:
                if metadata and is_longer(metadata, metadata_max):
                    errors.append(PartitionError(partition, ErrorCode.offset_metadata_too_large))
                    continue
                value = CommittedOffset(
                    offset, leader_epoch, metadata or "", step.wall_ms, expire_ms, topic_id
                )
                records.append(OffsetRecord(request.group_id, topic, partition, value))
                errors.append(PartitionError(partition, NONE))
            results.append((topic, errors))
        if not records:
            step.reply(waiter, results)
            return

        def failed(code: ErrorCode, step: Step) -> None:
            step.reply(waiter, KafkaError(append_error(code)))

        step.write(tuple(records), lambda step: step.reply(waiter, results), failed)

    def _check_commit(self, group: ClassicGroup, request: CommitRequest, now_ms: int) -> None:
        """Kafka's ClassicGroup.validateOffsetCommit."""
        generation_id, member_id = request.generation_id, request.member_id
        if generation_id < 0 and group.state is EMPTY:
            return
        if generation_id < 0 and not member_id and request.group_instance_id is None:
            raise KafkaError(ErrorCode.unknown_member_id)
        member = group.check_member(member_id, request.group_instance_id)
        if generation_id != group.generation_id:
            raise KafkaError(ErrorCode.illegal_generation)
        if group.state is COMPLETING_REBALANCE:
            # The member knows the generation but not yet its partitions.
            raise KafkaError(ErrorCode.rebalance_in_progress)
        if group.state is STABLE or group.state is PREPARING_REBALANCE:
            group.extend_session(member, now_ms)

    def fetch(
        self, group_id: str, topics: Sequence[FetchTopic] | None, *, require_stable: bool
    ) -> list[FetchedTopic]:
        """A group's offsets of the given topics, or of all; -1 where it has none."""
        if topics is None:
            offsets = self.offsets.by_group.get(group_id, {})
            topics = [FetchTopic(topic, UUID_ZERO, tuple(parts)) for topic, parts in offsets.items()]
        return [
            FetchedTopic(
                topic,
                topic_id,
                [self._fetch_one(group_id, topic, topic_id, each, require_stable) for each in partitions],
            )
            for topic, topic_id, partitions in topics
        ]

    def _fetch_one(
        self, group_id: str, topic: str, topic_id: object, partition: int, require_stable: bool
    ) -> FetchedOffset:
        if require_stable and self.offsets.is_unstable(group_id, topic, partition):
            return FetchedOffset(partition, error=ErrorCode.unstable_offset_commit)
        value = self.offsets.get(group_id, topic, partition)
        if value is None or (UUID_ZERO not in (topic_id, value.topic_id) and topic_id != value.topic_id):
            # None was committed, or only to an earlier topic of the same name.
            return FetchedOffset(partition)
        return FetchedOffset(partition, value.offset, value.leader_epoch, value.metadata)

    def delete_offsets(
        self, group_id: str, topics: Iterable[tuple[str, Sequence[int]]], waiter: Waiter, step: Step
    ) -> None:
        """Handle an OffsetDelete; the reply is `DeletedOffsets`."""
        group = self.groups.get(group_id)
        if group is None:
            step.reply(waiter, DeletedOffsets(ErrorCode.group_id_not_found, []))
            return
        if group.state is not EMPTY and not group.uses_consumer_protocol:
            step.reply(waiter, DeletedOffsets(ErrorCode.non_empty_group, []))
            return
        known = set(self._keys(group_id))
        records: list[OffsetRecord] = []
        results: PartitionErrors = []
        for topic, partitions in topics:
            subscribed = group.is_subscribed_to(topic)
            error = ErrorCode.group_subscribed_to_topic if subscribed else NONE
            results.append((topic, [PartitionError(each, error) for each in partitions]))
            if not subscribed:
                keys = (OffsetKey(group_id, topic, each) for each in dict.fromkeys(partitions))
                records += (OffsetRecord(*key, None) for key in keys if key in known)
        response = DeletedOffsets(NONE, results)
        if not records:
            step.reply(waiter, response)
            return

        def failed(code: ErrorCode, step: Step) -> None:
            step.reply(waiter, DeletedOffsets(append_error(code), []))

        step.write(tuple(records), lambda step: step.reply(waiter, response), failed)

    def _keys(self, group_id: str) -> Iterator[OffsetKey]:
        """The offsets that a group has, or will have when what is in flight is committed. May repeat some."""
        yield from self.offsets.keys(group_id)
        for key in self._keys_in_flight():
            if key.group_id == group_id:
                yield key

    def _keys_in_flight(self) -> Iterator[OffsetKey]:
        for write in self.in_flight:
            for record in write.records:
                if isinstance(record, OffsetRecord) and record.value is not None:
                    yield OffsetKey(record.group_id, record.topic, record.partition)

    # -- whole groups

    def describe(self, group_id: str) -> DescribedGroup:
        group = self.groups.get(group_id)
        if group is None:
            return DescribedGroup(group_id, ErrorCode.group_id_not_found, GroupState.DEAD.value)
        stable = group.state is STABLE
        return DescribedGroup(
            group_id=group_id,
            error=NONE,
            state=group.state.value,
            protocol_type=group.protocol_type or "",
            protocol_data=(group.protocol_name or "") if stable else "",
            members=tuple(
                DescribedMember(
                    member_id=member.member_id,
                    group_instance_id=member.group_instance_id,
                    client_id=member.client_id,
                    client_host=member.client_host,
                    metadata=member.metadata(group.protocol_name) if stable else b"",
                    assignment=member.assignment,
                )
                for member in group.members.values()
            ),
        )

    def list_groups(self, states: frozenset[str], types: frozenset[str]) -> list[ListedGroup]:
        """The groups in one of ``states`` and of one of ``types``, both in lower case; none given is all."""
        if types and GROUP_TYPE not in types:
            return []
        return [
            ListedGroup(group.group_id, group.protocol_type or "", group.state.value, GROUP_TYPE)
            for group in self.groups.values()
            if not states or group.state.value.lower() in states
        ]

    def delete_group(self, group_id: str, waiter: Waiter, step: Step) -> None:
        """Handle one group of a DeleteGroups; the reply is `DeletedGroup`."""
        group = self.groups.get(group_id)
        if group is None or group.state is not EMPTY:
            error = ErrorCode.group_id_not_found if group is None else ErrorCode.non_empty_group
            step.reply(waiter, DeletedGroup(group_id, error))
            return
        self._delete(group, step, lambda error, step: step.reply(waiter, DeletedGroup(group_id, error)))

    def _delete(self, group: ClassicGroup, step: Step, done: Done) -> None:
        """Write the tombstones of a group and of all its offsets: in several writes where they are many.

        Where one of them fails the group is still there, with the offsets that are left, to be deleted again.
        """
        group_id = group.group_id
        # Whoever joins from now on founds a new group.
        del self.groups[group_id]
        errors: list[ErrorCode] = []

        def part_failed(code: ErrorCode, step: Step) -> None:
            errors.append(code)

        def failed(code: ErrorCode, step: Step) -> None:
            self.groups.setdefault(group_id, group)
            done(append_error(code), step)

        def committed(step: Step) -> None:
            if errors:
                failed(errors[0], step)
            else:
                done(NONE, step)

        tombstones = [OffsetRecord(*key, None) for key in dict.fromkeys(self._keys(group_id))]
        *parts, last = _parts((*tombstones, GroupRecord(group_id, None)))
        for records in parts:
            step.write(records, lambda step: None, part_failed)
        step.write(last, committed, failed)

    # -- clean-up

    def expire_offsets(self, step: Step) -> None:
        """Remove offsets whose retention is over, and empty groups that have none left (KIP-211)."""
        tombstones: list[CoordinatorRecord] = []
        for group in list(self.groups.values()):
            expired = dict.fromkeys(self._expired(group, step))
            is_empty = group.state is EMPTY and not group.pending
            if is_empty and all(key in expired for key in self._keys(group.group_id)):
                self._delete(group, step, _done_quietly)
            else:
                tombstones += (OffsetRecord(*key, None) for key in expired)
        self._write_tombstones(tombstones, step)

    def _expired(self, group: ClassicGroup, step: Step) -> Iterator[OffsetKey]:
        """Kafka's ClassicGroup.offsetExpirationCondition."""
        group_id = group.group_id
        offsets = self.offsets.by_group.get(group_id)
        if not offsets:
            return
        since_ms: int | None = None
        if group.protocol_type is not None:
            if group.state is EMPTY:
                since_ms = group.empty_since_ms
            elif not (
                group.state is STABLE and group.uses_consumer_protocol and group.subscribed_topics is not None
            ):
                return
        in_flight = {key for key in self._keys_in_flight() if key.group_id == group_id}
        retention_ms = step.config.offsets_retention_ms
        for topic, partitions in offsets.items():
            if group.is_subscribed_to(topic):
                continue
            for partition, offset in partitions.items():
                base_ms = offset.commit_timestamp_ms if since_ms is None else since_ms
                if not is_expired(offset, base_ms, step.wall_ms, retention_ms):
                    continue
                key = OffsetKey(group_id, topic, partition)
                if key not in in_flight and not self.offsets.is_unstable(*key):
                    yield key

    def topic_deleted(self, topic: str, step: Step) -> None:
        """Remove all groups' offsets of a topic that is no more."""
        keys = dict.fromkeys(
            OffsetKey(group_id, topic, partition)
            for group_id, topics in self.offsets.by_group.items()
            for partition in topics.get(topic, ())
        )
        keys |= dict.fromkeys(key for key in self.offsets.pending_keys() if key.topic == topic)
        keys |= dict.fromkeys(key for key in self._keys_in_flight() if key.topic == topic)
        self._write_tombstones([OffsetRecord(*key, None) for key in keys], step)

    def _write_tombstones(self, records: list[CoordinatorRecord], step: Step) -> None:
        for part in _parts(records):
            # Should it fail: expired offsets are found again at the next clean-up, and those of a deleted
            # topic do not count for a new one of that name, which has another id.
            step.write(part, lambda step: None, lambda code, step: None)


def _parts(records: Iterable[CoordinatorRecord]) -> Iterator[tuple[CoordinatorRecord, ...]]:
    """Tombstones in the order given, in pieces of about TOMBSTONES_BYTES_MAX."""
    part: list[CoordinatorRecord] = []
    size = 0
    for record in records:
        part.append(record)
        size += len(encode_record(record)[0])
        if size >= TOMBSTONES_BYTES_MAX:
            yield tuple(part)
            part, size = [], 0
    if part:
        yield tuple(part)


def _done_quietly(error: ErrorCode, step: Step) -> None:
    """Nobody asked for it."""


def is_longer(text: str, units_max: int) -> bool:
    """Whether ``text`` takes more UTF-16 code units than that."""
    if len(text) > units_max:
        return True
    return 2 * len(text) > units_max and len(text.encode("utf-16-le")) // 2 > units_max
