"""ListOffsets: the earliest, latest or timestamp's offset of partitions (UnifiedLog.fetchOffsetByTimestamp).

v1 one offset per partition; v2 isolation level; v4 leader epochs; v6 flexible; v7 the record with the
largest timestamp (-3); v8 earliest local (-4); v9 latest tiered (-5); v10 a timeout; v11 earliest pending
upload (-6).
A consumer (replica id -1) is told of what is committed, a follower of all there is; a debugging client (-2)
is answered by any replica, with all of its log. Where there are several listeners, a follower's request
is answered only on that for nodes. DESCRIBE is asked for of each topic, whether there is such a one or not.
We keep all records locally: -4 is the earliest offset, and -5 and -6 find nothing.
"""

from __future__ import annotations

from typing import Any

from ottla.broker.large import AT_ONCE_MAX, Fields, allowed
from ottla.broker.request import RequestContext
from ottla.broker.views.leader import believed, replica_refusal
from ottla.errors import ErrorCode, KafkaError
from ottla.log.log import Log
from ottla.log.lookups import TimeLookUps, TimestampOffset
from ottla.replication.partition import Partition
from ottla.security.acl_bindings import Operation, ResourceType

LATEST, EARLIEST, MAX_TIMESTAMP, EARLIEST_LOCAL, LATEST_TIERED, EARLIEST_PENDING_UPLOAD = range(-1, -7, -1)
# The version from which each special timestamp may be asked for.
_SINCE = {
    LATEST: 1,
    EARLIEST: 1,
    MAX_TIMESTAMP: 7,
    EARLIEST_LOCAL: 8,
    LATEST_TIERED: 9,
    EARLIEST_PENDING_UPLOAD: 11,
}
_READ_COMMITTED = 1
_CONSUMER, _DEBUGGING = -1, -2
# Clients before it do not know OFFSET_NOT_AVAILABLE.
_NOT_AVAILABLE_SINCE = 5
# What is told from the log alone, however far is committed.
_STARTS = (EARLIEST, EARLIEST_LOCAL)


async def handle(ctx: RequestContext, request: Any) -> Fields:
    """INVALID_REQUEST for a partition named twice; UNSUPPORTED_VERSION for a later version's timestamp."""
    seen: set[tuple[str, int]] = set()
    twice: set[tuple[str, int]] = set()
    for topic in request.topics:
        for partition in topic.partitions:
            key = (topic.name, partition.partition_index)
            (twice if key in seen else seen).add(key)
    refusal = replica_refusal(ctx, request.replica_id)
    refused = None if refusal is None else refusal.code
    may = await allowed(ctx, Operation.DESCRIBE, ResourceType.TOPIC, (t.name for t in request.topics))
    if ctx.services.replicas.unopened and refused is None:
        await ctx.services.replicas.open(
            (t.name, p.partition_index) for t in request.topics if t.name in may for p in t.partitions
        )
    topics = []
    done = 0
    for topic in request.topics:
        partitions = []
        denied = refused if topic.name in may else ErrorCode.topic_authorization_failed
        for asked in {p.partition_index: p for p in topic.partitions}.values():
            partitions.append(await _answer(ctx, request, topic.name, asked, twice, denied))
            done += 1
            if done % AT_ONCE_MAX == 0:
                await ctx.services.slices.pause()
        topics.append({"name": topic.name, "partitions": partitions})
        done += 1
        if done % AT_ONCE_MAX == 0:
            await ctx.services.slices.pause()
    return {"topics": topics, "throttle_time_ms": 0}


async def _answer(
    ctx: RequestContext,
    request: Any,
    topic: str,
    asked: Any,
    twice: set[tuple[str, int]],
    refused: ErrorCode | None,
) -> dict[str, Any]:
    found = {"partition_index": asked.partition_index, "error_code": ErrorCode.none, "leader_epoch": -1}
    if refused is not None:
        return found | {"error_code": refused, "timestamp": -1, "offset": -1}
    try:
        if (topic, asked.partition_index) in twice:
            raise KafkaError(ErrorCode.invalid_request)
        if asked.timestamp < 0 and _SINCE.get(asked.timestamp, 99) > ctx.api_version:
            raise KafkaError(ErrorCode.unsupported_version)
        partition = ctx.services.replicas.get(topic, asked.partition_index)
        believed_epoch = believed(getattr(asked, "current_leader_epoch", -1))
        if request.replica_id == _DEBUGGING:
            partition.check_epoch(believed_epoch)
        else:
            partition.check_leader(believed_epoch)
        at_time = await _find_by_time(ctx.services.log_manager.lookups, partition.log, asked.timestamp)
        if request.replica_id != _DEBUGGING:
            # That may have taken a while.
            partition.check_leader(believed_epoch)
        timestamp, offset, epoch = _find(partition, asked.timestamp, request, at_time)
        return found | {"timestamp": timestamp, "offset": offset, "leader_epoch": epoch}
    except KafkaError as error:
        code = error.code
        if code is ErrorCode.offset_not_available and ctx.api_version < _NOT_AVAILABLE_SINCE:
            code = ErrorCode.leader_not_available
        return found | {"error_code": code, "timestamp": -1, "offset": -1}


async def _find_by_time(lookups: TimeLookUps, log: Log, timestamp: int) -> TimestampOffset | None:
    """The record that a time asks for; None where there is none, or where no time was given."""
    if timestamp == MAX_TIMESTAMP:
        return await lookups.newest(log)
    return await lookups.first_from(log, timestamp) if timestamp >= 0 else None


def _find(
    partition: Partition, timestamp: int, request: Any, at_time: TimestampOffset | None
) -> tuple[int, int, int]:
    """(timestamp, offset, leader epoch); all -1 where there is no such record that the client may see.

    OFFSET_NOT_AVAILABLE in place of what is not before the high watermark, as long as a new leader's has not
    reached its epoch's beginning: what is committed may be more than it knows (KIP-207).
    """
    log = partition.log
    if timestamp in _STARTS:
        return -1, log.log_start_offset, _start_epoch(partition)
    if timestamp in (LATEST_TIERED, EARLIEST_PENDING_UPLOAD):
        return -1, -1, -1
    end = _end(partition, request)
    if at_time is not None and at_time.offset < end:
        return at_time
    leading = partition.leading
    if (
        request.replica_id == _CONSUMER
        and leading is not None
        and partition.high_watermark < leading.epoch_start_offset
    ):
        raise KafkaError(ErrorCode.offset_not_available)
    return (-1, end, partition.leader_epoch) if timestamp == LATEST else (-1, -1, -1)


def _start_epoch(partition: Partition) -> int:
    """The epoch of a log's first record; of an empty log, the one that its leader has begun."""
    log = partition.log
    if log.log_start_offset == log.log_end_offset and partition.leading is not None:
        return partition.leader_epoch
    return log.epoch_for_offset(log.log_start_offset)


def _end(partition: Partition, request: Any) -> int:
    """Where the log ends for who asks."""
    if request.replica_id != _CONSUMER:
        return partition.log.log_end_offset
    if getattr(request, "isolation_level", 0) == _READ_COMMITTED:
        return partition.last_stable_offset
    return partition.high_watermark
