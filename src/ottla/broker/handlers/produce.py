"""Produce: append batches to partitions (KafkaApis.handleProduceRequest, ReplicaManager.appendRecords).

v3-8: record batches of format v2 only; v9 flexible; v10 says who leads now; v13 names topics by id.
acks=0 gets no response, and a closed connection where something failed; acks=1 and acks=all are answered
once the batch is in the log of this node, of every in-sync replica respectively. A topic that asks for it
(flush.messages) is answered once its batch is on the disk.

A batch that comes on a connection behind one that was just refused, for a reason that passes, is refused for
the same reason, where Kafka answers OUT_OF_ORDER_SEQUENCE_NUMBER or takes it first. So is, for a moment, one
that a producer sends to a new leader before those that it has to send there first (broker/refusals.py).
A leader that nobody follows says NOT_LEADER_OR_FOLLOWER, too: others may have what it lacks.
"""

from __future__ import annotations

import asyncio
from functools import partial as bind
from typing import Any

from ottla.broker.context import CloseConnection, RequestContext
from ottla.broker.deferred import Deferred
from ottla.broker.handlers._leader import leader_fields, leader_nodes
from ottla.broker.refusals import Refusals, has_come_over, is_followed, is_unknown
from ottla.errors import ErrorCode, KafkaError
from ottla.log.validation import RecordsRefused
from ottla.metadata.image import INTERNAL_TOPICS
from ottla.replication.partition import Partition
from ottla.types import Buffer
from ottla.wire.records import CODEC_MASK

NONE = int(ErrorCode.none)

# A flush under way, and the answer that is true only after it.
Flush = tuple[asyncio.Future[None], dict[str, Any]]
# A partition, the offset that has to be committed, and the answer that is true only then.
Uncommitted = tuple[Partition, int, dict[str, Any]]
Fields = dict[str, Any]

# A follower fetches as often as this, at least; longer silence means that it does not follow.
SILENT_FETCHES_MAX = 3

# The one client that may write to internal topics, by its id (Kafka's AdminUtils.ADMIN_CLIENT_ID).
ADMIN_CLIENT_ID = "__admin_client"

# zstd came with Produce v7 (KIP-110): before it, a client's batch cannot honestly be compressed so.
ZSTD_SINCE = 7
_ZSTD = 4
# The low byte of a batch's attributes, which hold its codec.
_ATTRIBUTES_POSITION = 22


def handle(ctx: RequestContext, request: Any) -> Fields | asyncio.Future[Fields] | Deferred[Fields] | None:
    """Each partition is appended to on its own: one that fails does not stop the others."""
    acks = request.acks
    by_id = ctx.header.api_version >= 13
    now_ms = ctx.services.clock.now_ms()
    flushes: list[Flush] = []
    uncommitted: list[Uncommitted] = []
    responses = []
    # Not the error itself: it knows this frame, which would know it, and keep the request's records.
    failed: str | None = None
    for topic in request.topic_data:
        answers = []
        for data in topic.partition_data:
            try:
                answers.append(_append(ctx, request, topic, data, by_id, now_ms, flushes, uncommitted))
            except KafkaError as error:
                failed = str(error)
                answers.append(_refusal(data.index, error) | _leader(ctx, topic[0], data.index, error))
                _remember(ctx, topic[0], data, error)
        key = "topic_id" if by_id else "name"
        responses.append({key: topic[0], "partition_responses": answers})
    if acks == 0:
        if failed is not None:
            # As Kafka: the client waits for no answer, so a closed connection is all that it can notice.
            raise CloseConnection(f"a Produce with acks=0 failed: {failed}")
        return None
    fields: Fields = {"responses": responses, "throttle_time_ms": 0}
    if failed is not None:
        _add_nodes(ctx, fields)
    if not uncommitted:
        return asyncio.ensure_future(_when_flushed(flushes, fields)) if flushes else fields
    committed = _Commit(ctx, uncommitted, fields, request.timeout_ms).reply
    return asyncio.ensure_future(_when_both(flushes, committed)) if flushes else committed


def _append(
    ctx: RequestContext,
    request: Any,
    topic: Any,
    data: Any,
    by_id: bool,
    now_ms: int,
    flushes: list[Flush],
    uncommitted: list[Uncommitted],
) -> dict[str, Any]:
    acks = request.acks
    if not -1 <= acks <= 1:
        raise KafkaError(ErrorCode.invalid_required_acks, "acks must be 0, 1 or -1 (all)")
    if request.transactional_id is not None:
        raise KafkaError(ErrorCode.unsupported_version, "transactions are not served by this broker yet")
    replicas = ctx.services.replicas
    name = replicas.topic_name(topic.topic_id) if by_id else topic.name
    partition = replicas.get(name, data.index)
    if name in INTERNAL_TOPICS and ctx.client_id != ADMIN_CLIENT_ID:
        raise KafkaError(ErrorCode.invalid_topic_exception, f"Cannot append to internal topic {name}")
    if ctx.header.api_version < ZSTD_SINCE and _is_zstd(data.records):
        raise KafkaError(
            ErrorCode.unsupported_compression_type,
            f"Produce requests with version {ctx.api_version} are not allowed to use zstd",
        )
    refusals = ctx.connection.refusals
    if refusals:
        refusals.check(topic[0], data.index, data.records, ctx.services.clock.monotonic_ms())
    if acks == -1 and is_unknown(partition, data.records):
        _excuse(ctx, topic[0], data, "nothing is known of what the producer sent before")
    try:
        appended = partition.append(data.records or b"", now_ms=now_ms, acks=acks)
    except KafkaError as error:
        if error.code == ErrorCode.out_of_order_sequence_number:
            _check_order(ctx, partition, topic[0], data, error)
        raise
    if refusals:
        refusals.appended(topic[0], data.index, data.records)
    answer = {
        "index": data.index,
        "error_code": NONE,
        "base_offset": appended.base_offset,
        "log_append_time_ms": appended.log_append_time_ms,
        "log_start_offset": appended.log_start_offset,
        "record_errors": (),
    }
    if acks == -1 and partition.high_watermark <= appended.last_offset:
        uncommitted.append((partition, appended.last_offset + 1, answer))
    if partition.log.sync_due(now_ms):
        flushed = partition.flushed()
        if acks:
            flushes.append((flushed, answer))
        else:
            # Nobody waits for it, and the log has said why it failed.
            flushed.add_done_callback(lambda done: done.cancelled() or done.exception())
    return answer


def _check_order(ctx: RequestContext, partition: Partition, topic: Any, data: Any, error: KafkaError) -> None:
    """OUT_OF_ORDER_SEQUENCE_NUMBER ends a producer: say so only where it is certain."""
    silence_ms_max = SILENT_FETCHES_MAX * ctx.services.config.get("replica.fetch.wait.max.ms")
    if not is_followed(partition, ctx.services.clock.monotonic_ms(), silence_ms_max):
        raise KafkaError(ErrorCode.not_leader_or_follower, "nobody follows this leader") from error
    if has_come_over(partition, data.records):
        _excuse(ctx, topic, data, error.message)


def _excuse(ctx: RequestContext, topic: Any, data: Any, why: str | None) -> None:
    """Refuse a batch before which others are missing that may still come, for as long as that may be."""
    now_ms = ctx.services.clock.monotonic_ms()
    if _refusals(ctx).excuses_gap(topic, data.index, data.records, now_ms):
        raise KafkaError(ErrorCode.not_leader_or_follower, f"not yet: {why}")


def _refusals(ctx: RequestContext) -> Refusals:
    refusals = ctx.connection.refusals
    if refusals is None:
        refusals = ctx.connection.refusals = Refusals()
    return refusals


def _remember(ctx: RequestContext, topic: Any, data: Any, error: KafkaError) -> None:
    """What the client has sent behind a batch that was refused is not to be taken before it."""
    _refusals(ctx).refused(topic, data.index, data.records, error, ctx.services.clock.monotonic_ms())


def _is_zstd(records: Buffer | None) -> bool:
    return (
        records is not None
        and len(records) > _ATTRIBUTES_POSITION
        and records[_ATTRIBUTES_POSITION] & CODEC_MASK == _ZSTD
    )


def _add_nodes(ctx: RequestContext, fields: Fields) -> None:
    """Say where the leaders are to be found that the answers name."""
    answers = [answer for topic in fields["responses"] for answer in topic["partition_responses"]]
    fields["node_endpoints"] = leader_nodes(ctx, answers)


def _leader(ctx: RequestContext, topic: Any, index: int, error: KafkaError) -> Fields:
    leader = leader_fields(ctx, topic, index, error)
    return {} if leader is None else {"current_leader": leader}


def _refusal(index: int, error: KafkaError) -> dict[str, Any]:
    return {
        "index": index,
        "error_code": error.code,
        "base_offset": -1,
        "log_append_time_ms": -1,
        "log_start_offset": -1,
        "record_errors": [
            {"batch_index": at, "batch_index_error_message": why}
            for at, why in (error.record_errors if isinstance(error, RecordsRefused) else ())
        ],
        "error_message": error.message,
    }


async def _when_flushed(flushes: list[Flush], fields: dict[str, Any]) -> dict[str, Any]:
    for flushed, answer in flushes:
        try:
            await flushed
        except KafkaError as error:
            answer.update(_refusal(answer["index"], error))
    return fields


async def _when_both(flushes: list[Flush], committed: Deferred[Fields]) -> Fields:
    """On this node's disk, and in the logs of the others: either way round."""
    fields = await committed
    return await _when_flushed(flushes, fields)


class _Commit:
    """A Produce with acks=all that waits until its batches are in the log of every in-sync replica.

    They stay in the log whatever becomes of the request: one that expires, or whose client goes away, is only
    not told of them.
    """

    __slots__ = ("_ctx", "_failed", "_fields", "_left", "_timer", "_waiting", "reply")

    def __init__(
        self, ctx: RequestContext, uncommitted: list[Uncommitted], fields: Fields, timeout_ms: int
    ) -> None:
        self.reply: Deferred[Fields] = Deferred(on_cancel=self._forget)
        self._ctx = ctx
        self._fields = fields
        self._failed = False
        self._left = len(uncommitted)
        self._waiting = [
            (partition, bind(self._committed, partition, answer), answer)
            for partition, _, answer in uncommitted
        ]
        self._timer = ctx.services.deadlines.add(max(timeout_ms, 0), self._expire)
        for (partition, offset, _), (_, committed, _) in zip(uncommitted, self._waiting, strict=True):
            partition.when_committed(offset, committed)

    def _committed(self, partition: Partition, answer: Fields, error: KafkaError | None) -> None:
        if error is not None:
            self._failed = True
            name, index = partition.topic_partition
            answer.update(_refusal(index, error), **_leader(self._ctx, name, index, error))
        self._left -= 1
        if not self._left:
            self._timer.cancel()
            self._answer()

    def _answer(self) -> None:
        self._waiting = []
        if self._failed:
            _add_nodes(self._ctx, self._fields)
        self.reply.resolve(self._fields)

    def _expire(self) -> None:
        """The batches stay in the log, and may still be committed: the client cannot know."""
        for partition, committed, answer in self._waiting:
            if partition.forget_commit(committed):
                answer.update(_refusal(answer["index"], KafkaError(ErrorCode.request_timed_out)))
        self._answer()

    def _forget(self) -> None:
        self._timer.cancel()
        waiting, self._waiting = self._waiting, []
        for partition, committed, _ in waiting:
            partition.forget_commit(committed)
