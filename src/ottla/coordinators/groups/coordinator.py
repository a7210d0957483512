"""The group coordinator of this node, as handlers know it (Kafka's GroupCoordinatorService).

A group belongs to the partition of `__consumer_offsets` that its id hashes to: see `runtime.host`. Until that
is loaded its groups get COORDINATOR_LOAD_IN_PROGRESS, and those of partitions led elsewhere NOT_COORDINATOR.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any
from uuid import UUID

from ottla.coordinators.groups import offset_requests
from ottla.coordinators.groups.group_machine import GROUP_TYPE, GroupMachine
from ottla.coordinators.groups.member import MemberBytes
from ottla.coordinators.groups.requests import (
    CommitRequest,
    DeletedGroup,
    DeletedOffsets,
    DescribedGroup,
    FetchedOffset,
    FetchedTopic,
    FetchTopic,
    JoinRequest,
    JoinResponse,
    LeaveResponse,
    LeavingMember,
    LeftMember,
    ListedGroup,
    PartitionErrors,
    SyncRequest,
    SyncResponse,
)
from ottla.coordinators.groups.schemas import OffsetRecord
from ottla.coordinators.groups.settings import GROUP_METADATA_TOPIC, GroupConfig
from ottla.coordinators.runtime.host import Host, active
from ottla.coordinators.runtime.pieces import PIECE
from ottla.coordinators.runtime.shard import Shard
from ottla.coordinators.runtime.step import append_error
from ottla.coordinators.runtime.writes import CoordinatorLog
from ottla.env.clock import Clock, Timer
from ottla.env.deadlines import Deadlines
from ottla.env.deferred import Deferred
from ottla.env.slices import Slices
from ottla.errors import ErrorCode, KafkaError
from ottla.types import TxnMarker
from ottla.wire.primitives import STRING_BYTES_MAX
from ottla.wire.records import BatchBuilder

log = logging.getLogger(__name__)

# Members that leave in one turn, each with a line in the log.
LEAVING_AT_ONCE_MAX = 100
# Between the looks for expired offsets in one partition and in the next.
RETENTION_STAGGER_MS = 20

GroupShard = Shard[GroupMachine]


class GroupCoordinator:
    """What the handlers call. Every method that can fail for the whole group raises KafkaError, or gives
    it in place of the promised answer, unless its response has a place for the error."""

    def __init__(
        self,
        coordinator_log: CoordinatorLog,
        clock: Clock,
        config: GroupConfig,
        *,
        slices: Slices | None = None,
        deadlines: Deadlines | None = None,
        new_id: Callable[[], str] = lambda: str(uuid.uuid4()),
    ) -> None:
        self.config = config
        self.slices = slices or Slices()
        self._log = coordinator_log
        self._clock = clock
        self._new_id = new_id
        self.host = Host(
            coordinator_log,
            clock,
            deadlines or Deadlines(clock),
            self.slices,
            config.runtime(),
            make=partial(GroupMachine, config, MemberBytes()),
            partition_count=config.offsets_topic_num_partitions,
        )
        self._retention_timer: Timer | None = None

    def partition_for(self, group_id: str) -> int:
        return self.host.partition_for(group_id)

    # -- fail-over

    def is_ready(self, group_id: str) -> bool:
        """Whether the group is served here."""
        shard = self.host.find(group_id)
        return shard is not None and shard.is_active

    def check_served(self, group_id: str) -> None:
        """KafkaError where the group is not served here: NOT_COORDINATOR, COORDINATOR_LOAD_IN_PROGRESS."""
        self.host.shard(group_id)

    async def ready(self, group_id: str) -> None:
        """Return when the group's shard is loaded, or after a while. For groups of this node."""
        await self.host.ready(group_id)

    async def load(self, partition: int, epoch: int) -> None:
        """As ``Host.load``."""
        await self.host.load(partition, epoch)
        shard = self.host.shards.get(partition)
        if shard is not None and shard.epoch == epoch and (groups := shard.machine.tables.groups):
            log.info("partition %d: loaded its groups (%d) in %d ms", partition, len(groups), shard.loaded_ms)
        self._arm_retention()

    def unload(self, partition: int, epoch: int | None = None) -> None:
        """As ``Host.unload``."""
        self.host.unload(partition, epoch)

    def close(self) -> None:
        """The node stops: tell all who wait to look for another coordinator."""
        self.host.close()
        if self._retention_timer is not None:
            self._retention_timer.cancel()
            self._retention_timer = None

    # -- membership

    def member_id(self, client_id: str, group_instance_id: str | None) -> str:
        """An id for a member that has none yet."""
        name, end = client_id if group_instance_id is None else group_instance_id, f"-{self._new_id()}"
        if len(name) + len(end) > STRING_BYTES_MAX // 4:
            # The name alone may be as long as a string can be; so is the id, then.
            name = name.encode()[: STRING_BYTES_MAX - len(end)].decode(errors="ignore")
        return name + end

    def join(self, request: JoinRequest) -> Deferred[JoinResponse]:
        config = self.config
        answer: Deferred[JoinResponse] = Deferred()
        timeout_ms = request.session_timeout_ms
        if not request.group_id:
            answer.resolve(JoinResponse(ErrorCode.invalid_group_id, request.member_id))
        elif not config.group_min_session_timeout_ms <= timeout_ms <= config.group_max_session_timeout_ms:
            answer.resolve(JoinResponse(ErrorCode.invalid_session_timeout, request.member_id))
        else:
            try:
                shard = self.host.shard(request.group_id)
            except KafkaError as error:
                answer.resolve(JoinResponse(error.code, request.member_id))
                return answer
            step = shard.step()
            shard.machine.join(request, answer, step)
            shard.finish(step)
            self._arm_retention()
        return answer

    def sync(self, request: SyncRequest) -> Deferred[SyncResponse]:
        answer: Deferred[SyncResponse] = Deferred()
        if not request.group_id:
            answer.resolve(SyncResponse(ErrorCode.invalid_group_id))
            return answer
        try:
            shard = self.host.shard(request.group_id)
        except KafkaError as error:
            answer.resolve(SyncResponse(error.code))
            return answer
        step = shard.step()
        shard.machine.sync(request, answer, step)
        shard.finish(step)
        return answer

    def heartbeat(
        self, group_id: str, member_id: str, group_instance_id: str | None, generation_id: int
    ) -> ErrorCode:
        if not group_id:
            return ErrorCode.invalid_group_id
        shard = self.host.find(group_id)
        if shard is None:
            return ErrorCode.not_coordinator
        if not shard.is_active:
            # Members are not to be blamed for a fail-over.
            return ErrorCode.none
        now_ms = self._clock.monotonic_ms()
        code = shard.machine.heartbeat(group_id, member_id, group_instance_id, generation_id, now_ms)
        shard.arm()
        return code

    async def leave(self, group_id: str, leaving: tuple[LeavingMember, ...]) -> LeaveResponse:
        """What is much is done some at a time. Where a part fails, all that follows is left."""
        if not group_id:
            return LeaveResponse(ErrorCode.invalid_group_id)
        left: tuple[LeftMember, ...] = ()
        for start in range(0, len(leaving) or 1, LEAVING_AT_ONCE_MAX):
            response = await self._leave(group_id, leaving[start : start + LEAVING_AT_ONCE_MAX])
            if response.error != ErrorCode.none:
                return response
            left += response.members
        return LeaveResponse(ErrorCode.none, left)

    async def _leave(self, group_id: str, leaving: tuple[LeavingMember, ...]) -> LeaveResponse:
        try:
            shard = self.host.shard(group_id)
            answer: Deferred[LeaveResponse] = Deferred()
            step = shard.step()
            shard.machine.leave(group_id, leaving, answer, step)
            shard.finish(step)
            response = await shard.within(answer)
        except KafkaError as error:
            return LeaveResponse(error.code)
        if len(leaving) == LEAVING_AT_ONCE_MAX:
            await self.slices.pause()
        return response

    # -- offsets

    def commit(
        self, request: CommitRequest, waiter: Deferred[Any] | None = None
    ) -> Deferred[PartitionErrors]:
        """KafkaError for what concerns all partitions alike. ``waiter``, if given, is told and returned."""
        answer: Deferred[PartitionErrors] = Deferred() if waiter is None else waiter
        count = 0
        for topic in request.topics:
            count += len(topic.partitions)
        if count >= PIECE:
            answer.follow(self._commit_large(request))
            return answer
        try:
            shard = self.host.shard(request.group_id)
            step = shard.step()
            prepared = offset_requests.prepare_small(request, step.wall_ms, self.config)
            offset_requests.commit(shard.machine.tables, request, prepared, answer, step)
        except KafkaError as error:
            # Without the frames that it has come through: they know the answer, and so the error.
            answer.fail(error.with_traceback(None))
            return answer
        shard.finish(step, None, answer)
        self._arm_retention()
        return answer

    async def _commit_large(self, request: CommitRequest) -> PartitionErrors:
        shard = self.host.shard(request.group_id)
        # Asked first, too, so that much work is done only for those who may commit.
        offset_requests.check_commit(shard.machine.tables, request, self._clock.monotonic_ms())
        pieces = offset_requests.prepare_commit(request, self._clock.now_ms(), self.config)
        prepared = await self.slices.run(pieces)
        packed = await self._pack(shard, prepared.records) if prepared.records else None
        _check_still(shard)
        answer: Deferred[PartitionErrors] = Deferred()
        step = shard.step()
        offset_requests.commit(shard.machine.tables, request, prepared, answer, step)
        shard.finish(step, packed, answer)
        self._arm_retention()
        return await answer

    @staticmethod
    async def _pack(shard: GroupShard, records: Sequence[OffsetRecord]) -> BatchBuilder:
        try:
            return await shard.pack(records)
        except KafkaError as error:
            raise KafkaError(append_error(error.code), error.message) from None

    def complete_transaction(self, partition: int, marker: TxnMarker) -> Deferred[None]:
        """Write the end of a transaction into a partition of `__consumer_offsets`.

        The answer comes once the offsets that were committed in it can be fetched, or are forgotten.
        KafkaError NOT_COORDINATOR or COORDINATOR_LOAD_IN_PROGRESS where the partition is not served here;
        others as the append's. (GroupCoordinatorService.completeTransaction)
        """
        return active(self.host.shards.get(partition)).end_transaction(marker)

    def offsets_of(self, group_id: str, *, require_stable: bool) -> GroupOffsets:
        """Where the group is. KafkaError where it is not coordinated here."""
        return GroupOffsets(self.host.shard(group_id), group_id, require_stable=require_stable)

    def offset_count(self, group_id: str) -> int:
        """How many offsets the group has; 0 where it is not coordinated here."""
        shard = self.host.find(group_id)
        return 0 if shard is None else shard.machine.tables.offsets.count_of(group_id)

    def fetch(
        self, group_id: str, topics: Sequence[FetchTopic] | None, *, require_stable: bool
    ) -> list[FetchedTopic]:
        """A group's offsets of the given topics, or of all that it has, all at once."""
        offsets = self.offsets_of(group_id, require_stable=require_stable)
        wanted = offsets.topics() if topics is None else topics
        return [
            FetchedTopic(each.topic, each.topic_id, [offsets.get(each, index) for index in each.partitions])
            for each in wanted
        ]

    async def delete_offsets(
        self, group_id: str, topics: Sequence[tuple[str, Sequence[int]]]
    ) -> DeletedOffsets:
        """What is much is deleted some at a time. Where a part fails, all that follows is left."""
        if not group_id:
            return DeletedOffsets(ErrorCode.invalid_group_id, [])
        results: PartitionErrors = []
        for name, partitions in topics or [("", ())]:
            for start in range(0, len(partitions) or 1, PIECE):
                piece = [(name, partitions[start : start + PIECE])] if name else []
                deleted = await self._delete_offsets(group_id, piece)
                if deleted.error != ErrorCode.none:
                    return deleted
                results += deleted.topics
        return DeletedOffsets(ErrorCode.none, results)

    async def _delete_offsets(
        self, group_id: str, topics: Sequence[tuple[str, Sequence[int]]]
    ) -> DeletedOffsets:
        try:
            shard = self.host.shard(group_id)
            answer: Deferred[DeletedOffsets] = Deferred()
            step = shard.step()
            offset_requests.delete_offsets(shard.machine.tables, group_id, topics, answer, step)
            shard.finish(step)
            response = await shard.within(answer)
        except KafkaError as error:
            return DeletedOffsets(error.code, [])
        return response

    def on_topics_deleted(self, topics: Sequence[tuple[str, UUID]]) -> None:
        """Remove every group's offsets of the topics; forget all groups, if one of them is theirs."""
        if any(name == GROUP_METADATA_TOPIC for name, _ in topics):
            self.host.close()
        for shard in self.host.shards.values():
            if shard.is_active:
                step = shard.step()
                shard.machine.removal.topics_deleted(topics, step)
                shard.finish(step)

    # -- whole groups

    def describe(self, group_id: str) -> DescribedGroup:
        try:
            return self.host.shard(group_id).machine.describe(group_id)
        except KafkaError as error:
            return DescribedGroup(group_id, error.code)

    def member_count(self, group_id: str) -> int:
        """How many members the group has; 0 where it is not coordinated here."""
        shard = self.host.find(group_id)
        group = None if shard is None else shard.machine.tables.groups.get(group_id)
        return 0 if group is None else len(group.members)

    @property
    def group_count(self) -> int:
        """How many groups this node coordinates."""
        return sum(len(shard.machine.tables.groups) for shard in self.host.shards.values())

    def list_groups(self, states: Iterable[str], types: Iterable[str]) -> Iterator[ListedGroup]:
        """This node's groups. Filters ignore case; an empty one lets all through.

        KafkaError COORDINATOR_LOAD_IN_PROGRESS while any of its partitions is being loaded.
        """
        wanted_states = frozenset(state.strip().lower() for state in states)
        wanted_types = frozenset(name.lower() for name in types)
        shards = [active(shard) for shard in self.host.shards.values()]
        if wanted_types and GROUP_TYPE not in wanted_types:
            return iter(())
        return _listed(shards, wanted_states)

    async def delete_group(self, group_id: str) -> DeletedGroup:
        try:
            shard = self.host.shard(group_id)
            answer: Deferred[DeletedGroup] = Deferred()
            step = shard.step()
            shard.machine.removal.delete_group(group_id, answer, step)
            shard.finish(step)
            response = await shard.within(answer)
        except KafkaError as error:
            return DeletedGroup(group_id, error.code)
        return response

    # -- retention

    def _arm_retention(self) -> None:
        """Look for expired offsets from time to time, as long as there are any groups, or will be."""
        if self._retention_timer is None and any(map(_has_groups, self.host.shards.values())):
            self._retention_timer = self._clock.call_later(
                self.config.offsets_retention_check_interval_ms, self._expire_offsets
            )

    def _expire_offsets(self) -> None:
        self._retention_timer = None
        # First of all: whatever happens to this look, there is a next one.
        self._arm_retention()
        for index, shard in enumerate(self.host.shards.values()):
            # One after the other, so that requests are served in between.
            self._clock.call_later(index * RETENTION_STAGGER_MS, partial(_expire_offsets_of, shard))


class GroupOffsets:
    """Where a group is, looked up one partition at a time, so that other work may be done in between."""

    __slots__ = ("_group_id", "_require_stable", "_shard")

    def __init__(self, shard: GroupShard, group_id: str, *, require_stable: bool) -> None:
        self._shard = shard
        self._group_id = group_id
        self._require_stable = require_stable

    def topics(self) -> list[FetchTopic]:
        """All that the group has offsets of."""
        return offset_requests.all_topics(self._shard.machine.tables, self._group_id)

    def get(self, topic: FetchTopic, partition: int) -> FetchedOffset:
        """-1 where it has none. KafkaError where the group is not coordinated here any more."""
        _check_still(self._shard)
        return offset_requests.fetch_one(
            self._shard.machine.tables,
            self._group_id,
            topic,
            partition,
            require_stable=self._require_stable,
        )


def _has_groups(shard: GroupShard) -> bool:
    return bool(shard.machine.tables.groups or shard.machine.tables.in_flight)


def _expire_offsets_of(shard: GroupShard) -> None:
    if shard.is_active:
        shard.machine.removal.expire_offsets()
        shard.work()


def _check_still(shard: GroupShard) -> None:
    if shard.is_closed:
        raise KafkaError(ErrorCode.not_coordinator)


def _listed(shards: Sequence[GroupShard], states: frozenset[str]) -> Iterator[ListedGroup]:
    for shard in shards:
        for group in shard.machine.groups() if shard.is_active else ():
            if not states or group.state.lower() in states:
                yield group
