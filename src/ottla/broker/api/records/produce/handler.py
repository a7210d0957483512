"""Produce: append batches to partitions (KafkaApis.handleProduceRequest, ReplicaManager.appendRecords).

v3-8: record batches of format v2 only; v9 flexible; v10 says who leads now; v11 TRANSACTION_ABORTABLE; v12
what is written to is added to its transaction (transactional.py); v13 names topics by id.
acks=0 gets no response, and a closed connection where something failed; acks=1 and acks=all are answered
once the batch is in the log of this node, of every in-sync replica respectively. A topic that asks for it
(flush.messages) is answered once its batch is on the disk.

A batch that comes on a connection behind one that was just refused, for a reason that passes, is refused for
the same reason, where Kafka answers OUT_OF_ORDER_SEQUENCE_NUMBER or takes it first. So is, for a moment, one
that a producer sends to a new leader before those that it has to send there first (ordering.py).
A leader that nobody follows says NOT_LEADER_OR_FOLLOWER, too: others may have what it lacks.
A partition that one request names twice is appended to twice and answered twice; Kafka drops the first batch.
Refusals say why, where Kafka has words only for records at fault.
WRITE is asked for of the transactional id, where batches are transactional, and of each topic (rights.py).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any, Final

from ottla.broker.api.records.produce.commit import (
    Commit,
    Fields,
    Flush,
    Search,
    Uncommitted,
    add_nodes,
    leader_of,
    log_start,
    refusal,
    when_both,
    when_flushed,
    when_searched,
)
from ottla.broker.api.records.produce.ordering import check_order, excuse, remember
from ottla.broker.api.records.produce.refusals import is_unknown
from ottla.broker.api.records.produce.rights import check_transaction, writable
from ottla.broker.api.records.produce.transactional import (
    ATTRIBUTES_POSITION,
    Unverified,
    Verified,
    has_transactional,
    is_transactional,
    when_verified,
)
from ottla.broker.large import Pace
from ottla.broker.request import CloseConnection, Framed, RequestContext
from ottla.env.deferred import Deferred
from ottla.errors import ErrorCode, KafkaError
from ottla.log.log import Log
from ottla.log.validation import Appended, NotOneBatch, Prepared, RecordsRefused, TakesLong
from ottla.log.writing import Then
from ottla.metadata.image import INTERNAL_TOPICS
from ottla.replication.isr import Leading
from ottla.replication.partition import Partition
from ottla.types import Buffer
from ottla.wire.produce import TOPIC_ID_SINCE, OneBatch, PartitionData, write_appended
from ottla.wire.records import CODEC_MASK, MAGIC, STAMP_BYTES

NONE: Final = int(ErrorCode.none)

# The answer, or a promise of it; None for no answer.
Reply = Fields | Framed | asyncio.Future[Fields] | Deferred[Fields] | None

# A batch that takes long to prepare: its topic and partition in the request, and its answer's place.
Late = tuple[Any, Any, list[Fields], int]

# To how many partitions is appended before others have their turn: some milliseconds' work, where batches are
# small.
APPENDED_AT_ONCE_MAX: Final = 100
# Batches of this size or more are written in a thread, where the disk says so.
WRITTEN_ASIDE_BYTES = 64 * 1024
# The elements of a request for one partition: it, and its topic.
_OF_ONE: Final = 2

# The one client that may write to internal topics, by its id (Kafka's AdminUtils.ADMIN_CLIENT_ID).
ADMIN_CLIENT_ID: Final = "__admin_client"

# zstd came with Produce v7 (KIP-110): before it, a client's batch cannot honestly be compressed so.
ZSTD_SINCE: Final = 7
_ZSTD: Final = 4

_INTERNAL_TOPICS: Final = INTERNAL_TOPICS

# Refusals that tell nothing of the log, not even where it begins.
_TELL_NO_START: Final = frozenset(
    {
        ErrorCode.unknown_topic_or_partition,
        ErrorCode.unknown_topic_id,
        ErrorCode.topic_authorization_failed,
        ErrorCode.not_leader_or_follower,
        ErrorCode.message_too_large,
        ErrorCode.record_list_too_large,
        ErrorCode.corrupt_message,
        ErrorCode.kafka_storage_error,
        # What is found before the log is asked.
        ErrorCode.invalid_required_acks,
        ErrorCode.invalid_topic_exception,
        ErrorCode.unsupported_version,
        ErrorCode.unsupported_compression_type,
    }
)


class Made:
    """What has come of a Produce so far, beside the answers."""

    __slots__ = ("ends_ms", "failed", "flushes", "searches", "uncommitted", "verified")

    def __init__(self, verified: Verified | None = None) -> None:
        # Until when more is appended at once; 0: there is one partition only.
        self.ends_ms = 0
        self.flushes: list[Flush] = []
        self.uncommitted: list[Uncommitted] = []
        self.searches: list[Search] = []
        # What is known of the transaction that the batches are of, None where they are of none.
        self.verified = verified
        # Not the error itself: it knows frames that know it, and keep the request's records.
        self.failed: str | None = None


def handle(ctx: RequestContext, request: Any) -> Reply | Awaitable[Reply]:
    """Each partition is appended to on its own: one that fails does not stop the others.

    TRANSACTIONAL_ID_AUTHORIZATION_FAILED for the whole request where a batch says that it is part of a
    transaction and the request does not say of which, or of one that is not the client's.
    """
    if isinstance(request, OneBatch):
        transactional_id, refuses = request.transactional_id, is_transactional(request.records)
    else:
        transactional_id = request.transactional_id
        refuses = transactional_id is None and has_transactional(request)
    if transactional_id is not None:
        if ctx.client.permissions is not None and has_transactional(request):
            check_transaction(ctx, transactional_id)
        reply: Reply | Awaitable[Reply] = when_verified(ctx, request, _handle)
        return reply
    if refuses:
        if not request.acks:
            raise CloseConnection("a Produce with acks=0 has transactional batches and no transactional id")
        raise KafkaError(ErrorCode.transactional_id_authorization_failed)
    return _handle(ctx, request, None)


def _handle(ctx: RequestContext, request: Any, verified: Verified | None) -> Reply | Awaitable[Reply]:
    """As ``handle``, of batches that may be appended; those of a transaction are to be ``verified``."""
    by_id = ctx.header.api_version >= TOPIC_ID_SINCE
    services = ctx.services
    now_ms = services.clock.now_ms()
    if services.pulse is not None:
        check_pulse(ctx)
    if isinstance(request, OneBatch):
        return _handle_one(ctx, request, by_id, now_ms, verified)
    made = Made(verified)
    if ctx.elements > APPENDED_AT_ONCE_MAX:
        return _append_many(ctx, request, by_id, now_ms, made)
    if ctx.elements > _OF_ONE:
        made.ends_ms = ctx.services.turn.deadline_ms()
    late: list[Late] = []
    key = "topic_id" if by_id else "name"
    responses = []
    for topic in request.topic_data:
        answers = _append_all(ctx, request, topic, by_id, now_ms, made, late)
        responses.append({key: topic[0], "partition_responses": answers})
    fields: Fields = {"responses": responses, "throttle_time_ms": 0}
    if late:
        return _append_late(ctx, request, by_id, now_ms, late, fields, made)
    return _finish(ctx, request, fields, made)


def _handle_one(
    ctx: RequestContext, one: OneBatch, by_id: bool, now_ms: int, verified: Verified | None
) -> Reply | Awaitable[Reply]:
    """As ``handle``, of a request for one partition. Where nothing is to be waited for, and nothing to be
    said but where the batch is, the answer is written at once."""
    topic, index, records, acks = one.topic, one.index, one.records, one.acks
    replicas = ctx.services.replicas
    try:
        name = writable(ctx, topic)
        partition: Partition | None = replicas.partitions.get((name, index))
        if partition is None:
            partition = _absent(ctx, name, index)
        if partition.log.taken or _is_for_a_thread(ctx, records):
            raise TakesLong
        leading = partition.leading
        appended = _append_to(ctx, partition, topic, index, records, acks, verified, now_ms, None, None)
    except KafkaError as error:
        made = Made()
        answer = _refused(ctx, topic, PartitionData(index, records), by_id, error, made)
    except TakesLong:
        (whole,) = one.topic_data
        answers: list[Fields] = [{}]
        late: list[Late] = [(whole, whole.partition_data[0], answers, 0)]
        return _append_late(ctx, one, by_id, now_ms, late, _fields(topic, by_id, answers), Made(verified))
    else:
        is_committed = acks != -1 or _is_committed(partition, leading, appended)
        if is_committed and not partition.log.sync_due(now_ms):
            if not acks:
                return None
            header = ctx.header
            written = write_appended(
                header.api_version, header.correlation_id, one,
                appended.base_offset, appended.log_append_time_ms, appended.log_start_offset,
            )  # fmt: skip
            return Framed([written])
        made = Made()
        answer = _appended(acks, index, partition, leading, appended, now_ms, made)
    return _finish(ctx, one, _fields(topic, by_id, [answer]), made)


def _fields(topic: Any, by_id: bool, answers: list[Fields]) -> Fields:
    """The answer to a request for one topic."""
    key = "topic_id" if by_id else "name"
    return {"responses": [{key: topic, "partition_responses": answers}], "throttle_time_ms": 0}


def _append_all(
    ctx: RequestContext, request: Any, topic: Any, by_id: bool, now_ms: int, made: Made, late: list[Late]
) -> list[Fields]:
    """Append to a topic's partitions what can be at once; the answers, empty ones for those put off."""
    answers: list[Fields] = []
    for data in topic.partition_data:
        try:
            if late or (made.ends_ms and ctx.services.turn.is_over(made.ends_ms)):
                # Behind one that takes long all wait for their turn; so does what is behind many bytes.
                raise TakesLong
            answers.append(_append(ctx, request, topic, data, now_ms, made))
        except KafkaError as error:
            answers.append(_refused(ctx, topic[0], data, by_id, error, made))
        except TakesLong:
            late.append((topic, data, answers, len(answers)))
            answers.append({})
    return answers


async def _append_many(ctx: RequestContext, request: Any, by_id: bool, now_ms: int, made: Made) -> Reply:
    """What is much is all done as what takes long."""
    key = "topic_id" if by_id else "name"
    late: list[Late] = []
    responses: list[Fields] = []
    pace = Pace(ctx)
    for topic in request.topic_data:
        if pace.is_over():
            await pace.pause()
        answers: list[Fields] = [{}] * len(topic.partition_data)
        late += [(topic, data, answers, place) for place, data in enumerate(topic.partition_data)]
        responses.append({key: topic[0], "partition_responses": answers})
    fields: Fields = {"responses": responses, "throttle_time_ms": 0}
    return await _append_late(ctx, request, by_id, now_ms, late, fields, made)


def check_pulse(ctx: RequestContext) -> None:
    """Not once for all that has come: what stood in the way may have come just before."""
    if (pulse := ctx.services.pulse) is not None:
        pulse.check()


async def _append_late(
    ctx: RequestContext,
    request: Any,
    by_id: bool,
    now_ms: int,
    late: list[Late],
    fields: Fields,
    made: Made,
) -> Reply:
    """Append the batches that take long to prepare, once they are, and those behind them; or all of many,
    with others' requests in between. Until all are appended the requests behind this one wait: none of the
    connection's batches gets into a partition before one that was sent earlier."""
    await _open_cold(ctx, late)
    check_pulse(ctx)
    pace = Pace(ctx, APPENDED_AT_ONCE_MAX)
    for topic, data, answers, place in late:
        if pace.is_over():
            await pace.pause()
            check_pulse(ctx)
        try:
            try:
                answers[place] = await _append_aside(ctx, request, topic, data, made, None)
            except TakesLong:
                prepared = await _prepare(ctx, topic, data, now_ms)
                answers[place] = await _append_aside(ctx, request, topic, data, made, prepared)
        except KafkaError as error:
            answers[place] = _refused(ctx, topic[0], data, by_id, error, made)
    if not request.acks and ctx.services.log_manager.closed:
        # What came behind it would be appended now, to logs that threads are closing.
        raise CloseConnection("the broker ends")
    return _finish(ctx, request, fields, made)


async def _append_aside(
    ctx: RequestContext,
    request: Any,
    topic: Any,
    data: Any,
    made: Made,
    prepared: Prepared | None,
) -> Fields:
    """``_append`` behind what is being written to the partition, and in a thread where the batch is large."""
    partition = _find(ctx, topic, data)
    waited_for: Log | None = None
    while partition.log.taken and partition.log is not waited_for:
        # Once for each log: there may be another one by then.
        waited_for = partition.log
        turn: Deferred[None] = Deferred()
        waited_for.wait(turn.resolve, is_large=len(data.records or b"") >= WRITTEN_ASIDE_BYTES)
        await turn
        partition = _find(ctx, topic, data)
    if ctx.services.log_manager.closed:
        # By threads, just now: nothing more may come to it.
        raise KafkaError(ErrorCode.kafka_storage_error, "the broker ends")
    check_pulse(ctx)
    # It may have waited for long, and others have been appended meanwhile.
    now_ms = ctx.services.clock.now_ms()
    leading, acks, index, records = partition.leading, request.acks, data.index, data.records
    is_large = _is_for_a_thread(ctx, records)
    written: Deferred[KafkaError | None] = Deferred()
    then = written.resolve if is_large else None
    appended = _append_to(
        ctx, partition, topic[0], index, records, acks, made.verified, now_ms, prepared, then
    )
    if is_large and not appended.duplicate:
        error = await written
        if error is not None:
            # One of its own: raised, it leads to what holds that which was told, and this call holds.
            raise KafkaError(error.code, error.message)
    return _appended(acks, index, partition, leading, appended, now_ms, made)


def _find(ctx: RequestContext, topic: Any, data: Any) -> Partition:
    return ctx.services.replicas.get(writable(ctx, topic[0]), data.index)


def _is_for_a_thread(ctx: RequestContext, records: Buffer | None) -> bool:
    return (
        records is not None
        and len(records) >= WRITTEN_ASIDE_BYTES
        and ctx.services.disk.writes_aside(len(records))
    )


async def _open_cold(ctx: RequestContext, late: list[Late]) -> None:
    """Have the logs open that are not, off the event loop: they are being made, in the disk's time."""
    replicas = ctx.services.replicas
    if not replicas.unopened:
        return
    wanted = []
    pace = Pace(ctx)
    for topic, data, _, _ in late:
        if pace.is_over():
            await pace.pause()
        try:
            name = writable(ctx, topic[0])
        except KafkaError:
            # It is told where it is appended to.
            continue
        wanted.append((name, data.index))
    await replicas.open(wanted)


async def _prepare(ctx: RequestContext, topic: Any, data: Any, now_ms: int) -> Prepared:
    rules = _find(ctx, topic, data).log.rules
    return await ctx.services.log_manager.prepare(data.records or b"", rules, now_ms)


def _finish(ctx: RequestContext, request: Any, fields: Fields, made: Made) -> Reply:
    """The answer, once each batch is appended or refused. With acks=0 there is none."""
    if request.acks == 0:
        if made.failed is not None:
            # As Kafka: the client waits for no answer, so a closed connection is all that it can notice.
            raise CloseConnection(f"a Produce with acks=0 failed: {made.failed}")
        return None
    if made.failed is not None:
        add_nodes(ctx, fields)
    elif not made.uncommitted and not made.flushes:
        return fields
    reply = _reply(ctx, fields, made.flushes, made.uncommitted, request.timeout_ms)
    return asyncio.ensure_future(when_searched(ctx, made.searches, reply)) if made.searches else reply


def _reply(
    ctx: RequestContext,
    fields: Fields,
    flushes: list[Flush],
    uncommitted: list[Uncommitted],
    timeout_ms: int,
) -> Fields | asyncio.Future[Fields] | Deferred[Fields]:
    """The answer, now or once it is true."""
    if not uncommitted:
        return asyncio.ensure_future(when_flushed(flushes, fields)) if flushes else fields
    committed = Commit(ctx, uncommitted, fields, timeout_ms).reply
    return asyncio.ensure_future(when_both(flushes, committed)) if flushes else committed


def _refused(
    ctx: RequestContext, topic: Any, data: Any, by_id: bool, error: KafkaError, made: Made
) -> Fields:
    """The answer for a partition whose batch was refused: see ReplicaManager.appendToLocalLog for where it
    says where the log begins."""
    made.failed = str(error)
    index, start = data.index, -1
    if error.code not in _TELL_NO_START and not isinstance(error, NotOneBatch | Unverified):
        start = log_start(ctx, topic, index, by_id)
    answer = refusal(index, error, start) | leader_of(ctx, topic, index, error)
    if isinstance(error, RecordsRefused) and error.search is not None:
        made.searches.append((error.search, answer))
    remember(ctx, topic, data, error)
    return answer


def _append(ctx: RequestContext, request: Any, topic: Any, data: Any, now_ms: int, made: Made) -> Fields:
    """Append one batch; the answer. TakesLong: it cannot be done at once, and nothing has been."""
    index, records = data.index, data.records
    replicas = ctx.services.replicas
    name = writable(ctx, topic[0])
    partition = replicas.partitions.get((name, index)) or _absent(ctx, name, index)
    if partition.log.taken or _is_for_a_thread(ctx, records):
        raise TakesLong
    leading = partition.leading
    appended = _append_to(
        ctx, partition, topic[0], index, records, request.acks, made.verified, now_ms, None, None
    )
    return _appended(request.acks, index, partition, leading, appended, now_ms, made)


def _append_to(
    ctx: RequestContext,
    partition: Partition,
    topic: Any,
    index: int,
    records: Buffer | None,
    acks: int,
    verified: Verified | None,
    now_ms: int,
    prepared: Prepared | None,
    then: Then | None,
) -> Appended:
    """Append a batch to its partition, of a topic that the request calls ``topic``. TakesLong: it is to be
    ``prepared``. ``then``: see ``Log.append``."""
    name = partition.topic_partition.topic
    if not -1 <= acks <= 1:
        raise KafkaError(ErrorCode.invalid_required_acks, "acks must be 0, 1 or -1 (all)")
    if name in _INTERNAL_TOPICS and ctx.client_id != ADMIN_CLIENT_ID:
        raise KafkaError(ErrorCode.invalid_topic_exception, f"Cannot append to internal topic {name}")
    if ctx.header.api_version < ZSTD_SINCE and _is_zstd(records):
        raise KafkaError(
            ErrorCode.unsupported_compression_type,
            f"Produce requests with version {ctx.api_version} are not allowed to use zstd",
        )
    guard = None if verified is None else verified.guard(partition.topic_partition)
    refusals = ctx.client.refusals
    if refusals:
        refusals.check(topic, index, records, partition, ctx.services.clock.monotonic_ms())
    if acks == -1 and is_unknown(partition, records):
        excuse(ctx, topic, index, records, "nothing is known of what the producer sent before")
    try:
        appended = partition.append(
            records or b"", now_ms=now_ms, acks=acks, prepared=prepared, then=then, guard=guard
        )
    except KafkaError as error:
        if error.code == ErrorCode.out_of_order_sequence_number:
            check_order(ctx, partition, topic, index, records, error)
        raise
    if refusals:
        refusals.appended(topic, index, records)
    return appended


def _appended(
    acks: int,
    index: int,
    partition: Partition,
    leading: Leading | None,
    appended: Appended,
    now_ms: int,
    made: Made,
) -> Fields:
    """The answer for a batch that is in the log, to which it came when the partition was ``leading``; and
    what it has to wait for."""
    answer = {
        "index": index,
        "error_code": NONE,
        "base_offset": appended.base_offset,
        "log_append_time_ms": appended.log_append_time_ms,
        "log_start_offset": appended.log_start_offset,
        "record_errors": (),
    }
    if acks == -1 and not _is_committed(partition, leading, appended):
        made.uncommitted.append((partition, leading, appended.last_offset + 1, answer))
    if partition.log.sync_due(now_ms):
        flushed = partition.flushed()
        if acks:
            made.flushes.append((flushed, answer))
        else:
            # Nobody waits for it, and the log has said why it failed.
            flushed.add_done_callback(lambda done: done.cancelled() or done.exception())
    return answer


def _is_committed(partition: Partition, leading: Leading | None, appended: Appended) -> bool:
    """Whether what was appended when the partition was ``leading`` is where all replicas in sync have it."""
    return partition.high_watermark > appended.last_offset and partition.leading is leading


def _absent(ctx: RequestContext, name: str, index: int) -> Partition:
    replicas = ctx.services.replicas
    if replicas.unopened:
        raise TakesLong
    return replicas.get(name, index)


def _is_zstd(records: Buffer | None) -> bool:
    return (
        records is not None
        and len(records) > ATTRIBUTES_POSITION
        # Older formats have their time of day there.
        and records[STAMP_BYTES] == MAGIC
        and records[ATTRIBUTES_POSITION] & CODEC_MASK == _ZSTD
    )
