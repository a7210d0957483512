"""The group coordinator of this node: finds a group's shard, and waits for its answers.

A group belongs to the partition of `__consumer_offsets` that its id hashes to; the node that leads the
partition coordinates the group. The replication layer calls `load` when this node becomes a partition's
leader and `unload` when it no longer is. Until a shard is loaded its groups get COORDINATOR_LOAD_IN_PROGRESS,
and those of partitions led elsewhere NOT_COORDINATOR (Kafka's GroupCoordinatorService).
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from array import array
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache

from ottla.coordinators.requests import (
    CommitRequest,
    DeletedGroup,
    DeletedOffsets,
    DescribedGroup,
    FetchedTopic,
    FetchTopic,
    JoinRequest,
    JoinResponse,
    LeaveResponse,
    LeavingMember,
    ListedGroup,
    PartitionErrors,
    SyncRequest,
    SyncResponse,
)
from ottla.coordinators.settings import GROUP_METADATA_TOPIC, GroupConfig
from ottla.coordinators.shard import CoordinatorLog, Shard
from ottla.env.clock import Clock, Timer
from ottla.errors import ErrorCode, KafkaError

log = logging.getLogger(__name__)

# Hashes of group ids that are kept at hand.
HASH_CACHE_SIZE = 10_000
# FindCoordinator answers for a shard that is being loaded at most this much later, to spare clients a retry.
READY_WAIT_MS = 1_000
# Between the looks for expired offsets in one partition and in the next.
RETENTION_STAGGER_MS = 20


@lru_cache(maxsize=HASH_CACHE_SIZE)
def java_hash(text: str) -> int:
    """Java's String.hashCode: over UTF-16 code units, as a signed 32-bit integer."""
    value = 0
    units = array("H")
    units.frombytes(text.encode("utf-16-le", "surrogatepass"))
    if units.itemsize == 2 and array("H", b"\x01\x00")[0] != 1:
        units.byteswap()
    for unit in units:
        value = (31 * value + unit) & 0xFFFFFFFF
    return value - 2**32 if value >= 2**31 else value


def partition_of(text: str, partition_count: int) -> int:
    """The partition that a group id belongs to (Kafka's Utils.abs: the most negative integer counts as 0)."""
    value = java_hash(text)
    return 0 if value == -(2**31) else abs(value) % partition_count


class GroupCoordinator:
    """What the handlers call. Every method that can fail for the whole group raises KafkaError, unless its
    response has a place for the error."""

    def __init__(
        self,
        coordinator_log: CoordinatorLog,
        clock: Clock,
        config: GroupConfig,
        *,
        new_id: Callable[[], str] = lambda: str(uuid.uuid4()),
    ) -> None:
        self.config = config
        self._log = coordinator_log
        self._clock = clock
        self._new_id = new_id
        self._shards: dict[int, Shard] = {}
        # Done when the partition's groups are served.
        self._ready: dict[int, asyncio.Future[None]] = {}
        self._retention_timer: Timer | None = None

    def partition_for(self, group_id: str) -> int:
        return partition_of(group_id, self._log.partition_count or self.config.offsets_topic_num_partitions)

    def _shard(self, group_id: str) -> Shard:
        return _active(self._shards.get(self.partition_for(group_id)))

    # -- fail-over

    async def ready(self, group_id: str) -> None:
        """Return when the group's shard is loaded, or after a while. For groups of this node."""
        partition = self.partition_for(group_id)
        shard = self._shards.get(partition)
        if shard is None or not shard.is_active:
            if partition not in self._ready:
                self._ready[partition] = asyncio.get_running_loop().create_future()
            await asyncio.wait((self._ready[partition],), timeout=READY_WAIT_MS / 1000)

    async def load(self, partition: int, epoch: int) -> None:
        """This node leads the partition from leader epoch ``epoch`` on. Returns when its groups are served.

        In a later epoch of a partition that is already served everything is read anew: somebody else may have
        led it in between. KafkaError where the log cannot be read; the partition is then not served.
        """
        shard = self._shards.get(partition)
        if shard is not None:
            if epoch <= shard.epoch:
                return
            self._drop(shard)
        shard = self._shards[partition] = Shard(partition, epoch, self._log, self._clock, self.config)
        try:
            await shard.load()
        finally:
            if not shard.is_active:
                self._drop(shard)
        if shard.is_active and partition in self._ready:
            self._ready.pop(partition).set_result(None)
        self._arm_retention()

    def unload(self, partition: int, epoch: int | None = None) -> None:
        """This node no longer leads the partition, as of leader epoch ``epoch``."""
        shard = self._shards.get(partition)
        if shard is not None and (epoch is None or epoch >= shard.epoch):
            self._drop(shard)

    def _drop(self, shard: Shard) -> None:
        if self._shards.get(shard.partition) is shard:
            del self._shards[shard.partition]
        if not shard.is_closed:
            shard.close()

    def close(self) -> None:
        """The node stops: tell all who wait to look for another coordinator."""
        for shard in list(self._shards.values()):
            self._drop(shard)
        if self._retention_timer is not None:
            self._retention_timer.cancel()
            self._retention_timer = None

    # -- membership

    def member_id(self, client_id: str, group_instance_id: str | None) -> str:
        """An id for a member that has none yet."""
        return f"{client_id if group_instance_id is None else group_instance_id}-{self._new_id()}"

    async def join(self, request: JoinRequest) -> JoinResponse:
        config = self.config
        if not request.group_id:
            return JoinResponse(ErrorCode.invalid_group_id, request.member_id)
        timeout_ms = request.session_timeout_ms
        if not config.group_min_session_timeout_ms <= timeout_ms <= config.group_max_session_timeout_ms:
            return JoinResponse(ErrorCode.invalid_session_timeout, request.member_id)
        try:
            shard = self._shard(request.group_id)
        except KafkaError as error:
            return JoinResponse(error.code, request.member_id)
        future, step = shard.future(), shard.step()
        shard.machine.join(request, future, step)
        shard.finish(step)
        self._arm_retention()
        response: JoinResponse = await future
        return response

    async def sync(self, request: SyncRequest) -> SyncResponse:
        if not request.group_id:
            return SyncResponse(ErrorCode.invalid_group_id)
        try:
            shard = self._shard(request.group_id)
        except KafkaError as error:
            return SyncResponse(error.code)
        future, step = shard.future(), shard.step()
        shard.machine.sync(request, future, step)
        shard.finish(step)
        response: SyncResponse = await future
        return response

    def heartbeat(
        self, group_id: str, member_id: str, group_instance_id: str | None, generation_id: int
    ) -> ErrorCode:
        if not group_id:
            return ErrorCode.invalid_group_id
        shard = self._shards.get(self.partition_for(group_id))
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
        if not group_id:
            return LeaveResponse(ErrorCode.invalid_group_id)
        try:
            shard = self._shard(group_id)
            future, step = shard.future(), shard.step()
            shard.machine.leave(group_id, leaving, future, step)
            shard.finish(step)
            response: LeaveResponse = await shard.within(self.config.offsets_commit_timeout_ms, future)
        except KafkaError as error:
            return LeaveResponse(error.code)
        return response

    # -- offsets

    async def commit(self, request: CommitRequest) -> PartitionErrors:
        """Raises KafkaError for what concerns all partitions alike."""
        shard = self._shard(request.group_id)
        future, step = shard.future(), shard.step()
        shard.machine.commit(request, future, step)
        shard.finish(step)
        self._arm_retention()
        results: PartitionErrors = await shard.within(self.config.offsets_commit_timeout_ms, future)
        return results

    def fetch(
        self, group_id: str, topics: Sequence[FetchTopic] | None, *, require_stable: bool
    ) -> list[FetchedTopic]:
        """A group's offsets of the given topics, or of all that it has."""
        return self._shard(group_id).machine.fetch(group_id, topics, require_stable=require_stable)

    async def delete_offsets(
        self, group_id: str, topics: Iterable[tuple[str, Sequence[int]]]
    ) -> DeletedOffsets:
        if not group_id:
            return DeletedOffsets(ErrorCode.invalid_group_id, [])
        try:
            shard = self._shard(group_id)
            future, step = shard.future(), shard.step()
            shard.machine.delete_offsets(group_id, topics, future, step)
            shard.finish(step)
            response: DeletedOffsets = await shard.within(self.config.offsets_commit_timeout_ms, future)
        except KafkaError as error:
            return DeletedOffsets(error.code, [])
        return response

    def on_topic_deleted(self, topic: str) -> None:
        """Remove every group's offsets of the topic; forget all groups, if it is theirs."""
        if topic == GROUP_METADATA_TOPIC:
            for shard in list(self._shards.values()):
                self._drop(shard)
        for shard in self._shards.values():
            if shard.is_active:
                step = shard.step()
                shard.machine.topic_deleted(topic, step)
                shard.finish(step)

    # -- whole groups

    def describe(self, group_id: str) -> DescribedGroup:
        try:
            return self._shard(group_id).machine.describe(group_id)
        except KafkaError as error:
            return DescribedGroup(group_id, error.code)

    def list_groups(self, states: Iterable[str], types: Iterable[str]) -> list[ListedGroup]:
        """This node's groups. Filters ignore case; an empty one lets all through."""
        wanted_states = frozenset(state.strip().lower() for state in states)
        wanted_types = frozenset(name.lower() for name in types)
        listed: list[ListedGroup] = []
        for shard in self._shards.values():
            listed += _active(shard).machine.list_groups(wanted_states, wanted_types)
        return listed

    async def delete_group(self, group_id: str) -> DeletedGroup:
        try:
            shard = self._shard(group_id)
            future, step = shard.future(), shard.step()
            shard.machine.delete_group(group_id, future, step)
            shard.finish(step)
            response: DeletedGroup = await shard.within(self.config.offsets_commit_timeout_ms, future)
        except KafkaError as error:
            return DeletedGroup(group_id, error.code)
        return response

    # -- retention

    def _arm_retention(self) -> None:
        """Look for expired offsets from time to time, as long as there are any groups, or will be."""
        if self._retention_timer is None and any(
            shard.machine.groups or shard.machine.in_flight for shard in self._shards.values()
        ):
            self._retention_timer = self._clock.call_later(
                self.config.offsets_retention_check_interval_ms, self._expire_offsets
            )

    def _expire_offsets(self) -> None:
        self._retention_timer = None
        for index, shard in enumerate(self._shards.values()):
            # One after the other, so that requests are served in between.
            self._clock.call_later(index * RETENTION_STAGGER_MS, shard.expire_offsets)
        self._arm_retention()


def _active(shard: Shard | None) -> Shard:
    if shard is None:
        raise KafkaError(ErrorCode.not_coordinator)
    if not shard.is_active:
        raise KafkaError(ErrorCode.coordinator_load_in_progress)
    return shard
