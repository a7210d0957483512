"""DeleteRecords: move the start of a partition's log forward (KIP-107, DelayedDeleteRecords).

v2 flexible. Offset -1 means the high watermark. The new start is on the leader's disk before it is answered,
and every living replica begins there, or later: the low watermark is the least of their starts.
"""

from __future__ import annotations

from functools import partial as bind
from typing import Any

from ottla.broker.large import AT_ONCE_MAX, allowed
from ottla.broker.request import RequestContext
from ottla.env.deferred import Deferred
from ottla.errors import ErrorCode, KafkaError
from ottla.metadata.image import INTERNAL_TOPICS
from ottla.replication.partition import Partition
from ottla.security.acl_bindings import Operation, ResourceType

HIGH_WATERMARK = -1

Fields = dict[str, Any]
# A partition, where it is to begin, and the answer that is true only when all of its replicas do.
Waiting = tuple[Partition, int, Fields]


async def handle(ctx: RequestContext, request: Any) -> Fields:
    """OFFSET_OUT_OF_RANGE past the high watermark; POLICY_VIOLATION where the topic only compacts;
    INVALID_TOPIC_EXCEPTION for an internal one; TOPIC_AUTHORIZATION_FAILED without DELETE on the topic;
    KAFKA_STORAGE_ERROR where it cannot be made to last; REQUEST_TIMED_OUT where a living replica does not
    follow, NOT_LEADER_OR_FOLLOWER where another leads by then: the records are gone here all the same."""
    may = await allowed(ctx, Operation.DELETE, ResourceType.TOPIC, (t.name for t in request.topics))
    if ctx.services.replicas.unopened:
        await ctx.services.replicas.open(
            (t.name, p.partition_index) for t in request.topics if t.name in may for p in t.partitions
        )
    waiting: list[Waiting] = []
    topics: list[Fields] = []
    done = 0
    for topic in request.topics:
        partitions = []
        # Of a partition that is named twice, what is said last.
        for asked in {p.partition_index: p for p in topic.partitions}.values():
            partitions.append(_delete(ctx, topic.name, asked, waiting, topic.name in may))
            done += 1
            if done % AT_ONCE_MAX == 0:
                await ctx.services.slices.pause()
        topics.append({"name": topic.name, "partitions": partitions})
        done += 1
        if done % AT_ONCE_MAX == 0:
            await ctx.services.slices.pause()
    try:
        await ctx.services.log_manager.checkpoint_log_starts()
    except OSError:
        for answer in (answer for topic in topics for answer in topic["partitions"]):
            if answer["error_code"] == ErrorCode.none:
                answer |= _refusal(ErrorCode.kafka_storage_error)
    else:
        left = [entry for entry in waiting if not _is_done(*entry)]
        if left:
            await _Deletion(ctx, left, request.timeout_ms).reply
    return {"topics": topics, "throttle_time_ms": 0}


def _delete(ctx: RequestContext, topic: str, asked: Any, waiting: list[Waiting], may_delete: bool) -> Fields:
    answer = {"partition_index": asked.partition_index, "error_code": ErrorCode.none}
    try:
        if not may_delete:
            raise KafkaError(ErrorCode.topic_authorization_failed)
        partition = ctx.services.replicas.get(topic, asked.partition_index)
        if topic in INTERNAL_TOPICS:
            raise KafkaError(ErrorCode.invalid_topic_exception)
        partition.check_leader()
        config = partition.log.config
        # With neither policy everything is kept until somebody asks for this.
        if config.compacts and not config.deletes:
            raise KafkaError(ErrorCode.policy_violation)
        offset = partition.high_watermark if asked.offset == HIGH_WATERMARK else asked.offset
        if not 0 <= offset <= partition.high_watermark:
            raise KafkaError(ErrorCode.offset_out_of_range)
        partition.log.advance_log_start(offset)
    except KafkaError as error:
        return answer | _refusal(error.code)
    answer["low_watermark"] = partition.low_watermark()
    waiting.append((partition, offset, answer))
    return answer


def _refusal(code: ErrorCode) -> Fields:
    return {"error_code": code, "low_watermark": -1}


def _is_done(partition: Partition, offset: int, answer: Fields) -> bool:
    if partition.leading is None:
        answer |= _refusal(ErrorCode.not_leader_or_follower)
        return True
    answer["low_watermark"] = partition.low_watermark()
    return bool(answer["low_watermark"] >= offset)


class _Deletion:
    """Waits until the living followers begin where they are to, and they hear of it at once meanwhile."""

    __slots__ = ("_left", "_replicas", "_timer", "_waiting", "reply")

    def __init__(self, ctx: RequestContext, waiting: list[Waiting], timeout_ms: int) -> None:
        self.reply: Deferred[None] = Deferred(on_cancel=self._end)
        self._left = len(waiting)
        self._waiting = [(partition, bind(self._moved, answer), answer) for partition, _, answer in waiting]
        self._replicas = ctx.services.replicas
        self._replicas.deletions += 1
        self._timer = ctx.services.deadlines.add(max(timeout_ms, 0), self._expire)
        for (partition, offset, _), (_, moved, _) in zip(waiting, self._waiting, strict=True):
            partition.when_deleted(offset, moved)
            partition.wake()

    def _moved(self, answer: Fields, outcome: int | KafkaError) -> None:
        if isinstance(outcome, KafkaError):
            answer |= _refusal(outcome.code)
        else:
            answer["low_watermark"] = outcome
        self._left -= 1
        if not self._left:
            self._end()
            self.reply.resolve(None)

    def _expire(self) -> None:
        for partition, moved, answer in self._waiting:
            if partition.forget_deletion(moved):
                # As in Kafka it says how far they are all the same.
                answer |= {
                    "error_code": ErrorCode.request_timed_out,
                    "low_watermark": partition.low_watermark(),
                }
        self._end()
        self.reply.resolve(None)

    def _end(self) -> None:
        self._timer.cancel()
        self._replicas.deletions -= 1
        for partition, moved, _ in self._waiting:
            partition.forget_deletion(moved)
