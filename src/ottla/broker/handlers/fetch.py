"""Fetch: records from partitions, waiting for more where there are too few (KafkaApis.handleFetchRequest).

v4 isolation level; v5 log start offset; v7 fetch sessions (KIP-227); v9 leader epochs (KIP-320); v10 zstd
(KIP-110); v11 the client's rack; v12 flexible, the last epoch fetched; v13 topic ids (KIP-516); v15-18 what
replicas say of themselves. Racks and last epochs do not matter to a leader that has no followers, and whoever
fetches as one is refused.

The limits are Kafka's: the first batch of the first partition that has one is returned whole, however large;
after that neither a partition's limit nor the request's is passed. Where fewer than min_bytes are there, the
request waits for an append to one of its partitions, at most max_wait_ms.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from contextlib import suppress
from typing import Any, NamedTuple

from ottla.broker.context import RequestContext
from ottla.broker.deferred import Deferred
from ottla.broker.fetch_sessions import FINAL_EPOCH, INITIAL_EPOCH, Key, Session, Want
from ottla.env.clock import Timer
from ottla.errors import ErrorCode, KafkaError
from ottla.log.log import Slice
from ottla.log.lookups import COLD_READS_MAX
from ottla.log.segment import ColdRead
from ottla.replication.manager import ReplicaManager
from ottla.replication.partition import Partition

log = logging.getLogger(__name__)

_READ_COMMITTED = 1
ZSTD_SINCE = 10
# What is not known of a partition that could not be read.
_UNKNOWN = {"high_watermark": -1, "last_stable_offset": -1, "log_start_offset": -1, "records": b""}


class Limits(NamedTuple):
    """What a request sets for the whole of its response."""

    max_bytes: int
    min_bytes: int
    max_wait_ms: int
    committed: bool
    # Whether it is from a follower, and whether from a client too old for zstd.
    follower: bool
    without_zstd: bool


class Found(NamedTuple):
    """What was found for one partition: where its records lie, and the rest of its answer."""

    want: Want
    slice: Slice | None
    answer: dict[str, Any]


class Collected(NamedTuple):
    """One look at all of a request's partitions."""

    found: list[Found]
    size: int
    # Waiting for more would be of no use: an error is to be told, or there is no room for so much.
    final: bool


Later = asyncio.Future[dict[str, Any]] | Deferred[dict[str, Any]]


def handle(ctx: RequestContext, request: Any) -> dict[str, Any] | Later:
    """Top-level errors are those of the session; the others stand by their partition."""
    session, wants = _session(ctx, request)
    limits = _limits(ctx, request)
    try:
        collected = _collect(ctx, wants, limits)
    except ColdRead as cold:
        return _Wait(ctx, session, wants, limits, cold).reply
    enough = collected.size >= limits.min_bytes or collected.final
    if enough or limits.max_wait_ms <= 0 or not wants or ctx.services.replicas.stopping:
        return _respond(ctx, session, collected)
    return _Wait(ctx, session, wants, limits).reply


def _limits(ctx: RequestContext, request: Any) -> Limits:
    version = ctx.header.api_version
    max_bytes = min(request.max_bytes, ctx.services.config.get("fetch.max.bytes"))
    replica_id = request.replica_id if version < 15 else request.replica_state.replica_id
    return Limits(
        max_bytes=max_bytes,
        min_bytes=min(request.min_bytes, max_bytes),
        max_wait_ms=request.max_wait_ms,
        committed=request.isolation_level == _READ_COMMITTED,
        follower=replica_id >= 0,
        without_zstd=version < ZSTD_SINCE,
    )


# ---------------------------------------------------------------- sessions


def _session(ctx: RequestContext, request: Any) -> tuple[Session | None, list[Want]]:
    """The session that the request opens or goes on with, if any, and all partitions to read."""
    by_id = ctx.api_version >= 13
    asked = _wants(request, by_id)
    epoch = getattr(request, "session_epoch", FINAL_EPOCH)
    sessions = ctx.services.fetch_sessions
    if epoch in (INITIAL_EPOCH, FINAL_EPOCH):
        if getattr(request, "session_id", 0):
            sessions.close(request.session_id)
        session = sessions.open(by_id, asked) if epoch == INITIAL_EPOCH and asked else None
        return session, asked
    session = sessions.resume(request.session_id, epoch, by_id, asked, _forgotten(request, by_id))
    if not session.wants:
        sessions.close(session.session_id)
        return None, []
    return session, list(session.wants.values())


def _wants(request: Any, by_id: bool) -> list[Want]:
    out = []
    for topic in request.topics:
        key = topic.topic_id if by_id else topic.topic
        for p in topic.partitions:
            epoch = getattr(p, "current_leader_epoch", -1)
            out.append(Want(key, p.partition, p.fetch_offset, p.partition_max_bytes, epoch))
    return out


def _forgotten(request: Any, by_id: bool) -> Iterable[Key]:
    for topic in request.forgotten_topics_data:
        key = topic.topic_id if by_id else topic.topic
        for index in topic.partitions:
            yield key, index


# ---------------------------------------------------------------- reading


def _find(replicas: ReplicaManager, want: Want) -> Partition:
    topic = want.topic
    name = topic if type(topic) is str else replicas.topic_name(topic)  # type: ignore[arg-type]
    partition = replicas.get(name, want.partition)
    partition.check_leader(want.current_leader_epoch)
    return partition


def _collect(ctx: RequestContext, wants: list[Want], limits: Limits) -> Collected:
    replicas = ctx.services.replicas
    found: list[Found] = []
    size = 0
    max_bytes = min(limits.max_bytes, ctx.connection.server.room_bytes)
    failed = False
    for want in wants:
        try:
            partition = _find(replicas, want)
            if limits.follower or limits.without_zstd:
                _check_reader(partition, want, limits)
            room = max_bytes - size
            piece = None
            if room > 0 or not size:
                piece = partition.read(want.fetch_offset, min(want.max_bytes, max(room, 0)), min_one=not size)
        except KafkaError as error:
            failed = True
            found.append(Found(want, None, _refusal(want, error, limits)))
            continue
        if piece is not None:
            size += piece.size
        found.append(Found(want, piece, _answer(want, partition, limits)))
    return Collected(found, size, failed or (size > 0 and max_bytes < limits.min_bytes))


def _check_reader(partition: Partition, want: Want, limits: Limits) -> None:
    """Refuse who cannot be a follower, since there are none, and who cannot read what zstd packed."""
    if limits.follower:
        raise KafkaError(
            ErrorCode.not_leader_or_follower
            if want.current_leader_epoch < 0
            else ErrorCode.unknown_leader_epoch
        )
    if limits.without_zstd and partition.log.config.compression_type == "zstd":
        raise KafkaError(ErrorCode.unsupported_compression_type)


def _answer(want: Want, partition: Partition, limits: Limits) -> dict[str, Any]:
    return {
        "partition_index": want.partition,
        "error_code": 0,
        "high_watermark": partition.high_watermark,
        "last_stable_offset": partition.last_stable_offset,
        "log_start_offset": partition.log.log_start_offset,
        "aborted_transactions": () if limits.committed else None,
        "records": b"",
    }


def _refusal(want: Want, error: KafkaError, limits: Limits) -> dict[str, Any]:
    return _UNKNOWN | {
        "partition_index": want.partition,
        "error_code": int(error.code),
        "aborted_transactions": () if limits.committed else None,
    }


def _respond(
    ctx: RequestContext, session: Session | None, collected: Collected
) -> dict[str, Any] | asyncio.Future[dict[str, Any]]:
    """Read what was found, in memory if it is there, else off the event loop."""
    cold = []
    for item in collected.found:
        if item.slice is not None:
            try:
                data = item.slice.file.read_cached(item.slice.position, item.slice.size)
            except OSError as error:
                _reading_failed(item, error)
                continue
            if data is None:
                cold.append(item)
            else:
                item.answer["records"] = data
    if cold:
        return asyncio.ensure_future(_respond_cold(ctx, session, collected, cold))
    return _response(session, collected)


async def _respond_cold(
    ctx: RequestContext, session: Session | None, collected: Collected, cold: list[Found]
) -> dict[str, Any]:
    def read() -> None:
        for item in cold:
            assert item.slice is not None
            try:
                item.answer["records"] = item.slice.file.read(item.slice.position, item.slice.size)
            except OSError as error:
                _reading_failed(item, error)

    server = ctx.connection.server
    server.unsent_bytes += collected.size
    try:
        await ctx.services.disk.run(read)
    finally:
        server.unsent_bytes -= collected.size
    return _response(session, collected)


def _reading_failed(item: Found, error: OSError) -> None:
    """The disk failed, or the segment was deleted and closed meanwhile: the client asks again."""
    log.error("%s-%d: cannot be read: %s", item.want.topic, item.want.partition, error)
    item.answer.update(_UNKNOWN, error_code=int(ErrorCode.kafka_storage_error))


def _response(session: Session | None, collected: Collected) -> dict[str, Any]:
    answers = [(item.want, item.answer) for item in collected.found]
    if session is not None:
        news = session.news(answers)
        # The first response of a session tells everything (its epoch moved on if this is a later one).
        answers = answers if session.epoch == 1 else news
    topics: list[dict[str, Any]] = []
    previous: object = None
    for want, answer in answers:
        if want.topic != previous:
            previous = want.topic
            topics.append({"topic": want.topic, "topic_id": want.topic, "partitions": []})
        topics[-1]["partitions"].append(answer)
    return {
        "error_code": 0,
        "session_id": session.session_id if session is not None else 0,
        "responses": topics,
        "throttle_time_ms": 0,
    }


# ---------------------------------------------------------------- waiting


class _Wait:
    """A fetch that found too little, or that needs bytes from the disk in order to look (``cold``).

    It looks again when a partition grows, or when those bytes are in memory, and answers at its deadline.
    """

    __slots__ = (
        "_cold_reads",
        "_ctx",
        "_expired",
        "_limits",
        "_looking",
        "_partitions",
        "_session",
        "_timer",
        "_wants",
        "_warming",
        "reply",
    )

    def __init__(
        self,
        ctx: RequestContext,
        session: Session | None,
        wants: list[Want],
        limits: Limits,
        cold: ColdRead | None = None,
    ) -> None:
        self._ctx = ctx
        self._session = session
        self._wants = wants
        self._limits = limits
        self._looking = False
        self._warming: asyncio.Future[Any] | None = None
        self._cold_reads = 0
        self._expired = limits.max_wait_ms <= 0
        self._timer: Timer | None = None
        if not self._expired:
            self._timer = ctx.services.clock.call_later(limits.max_wait_ms, self._expire)
        self.reply: Deferred[dict[str, Any]] = Deferred(on_cancel=self._stop_waiting)
        self._partitions: list[Partition] = []
        for want in wants:
            with suppress(KafkaError):
                self._partitions.append(_find(ctx.services.replicas, want))
        for partition in self._partitions:
            partition.add_waiter(self._wake)
        if cold is not None:
            self._warm(cold)

    def _wake(self) -> None:
        if not self._looking:
            # Once for all that is appended in this turn of the event loop.
            self._looking = True
            self._ctx.services.turn.soon(self._look)

    def _expire(self) -> None:
        self._expired = True
        self._look()

    def _look(self) -> None:
        self._looking = False
        if self.reply.done or self._warming is not None:
            return
        ctx = self._ctx
        try:
            collected = _collect(ctx, self._wants, self._limits)
            ends = self._expired or collected.final or ctx.services.replicas.stopping
            if not ends and collected.size < self._limits.min_bytes:
                return
            answer = _respond(ctx, self._session, collected)
        except ColdRead as cold:
            self._warm(cold)
            return
        except Exception as error:  # noqa: BLE001 - whoever waits hears of it
            self._fail(error)
            return
        self._stop_waiting()
        if isinstance(answer, dict):
            self.reply.resolve(answer)
        else:
            self.reply.follow(answer)

    def _warm(self, cold: ColdRead) -> None:
        self._cold_reads += 1
        if self._cold_reads > COLD_READS_MAX:
            self._fail(KafkaError(ErrorCode.kafka_storage_error, "the disk is too busy to be read"))
            return
        reading: asyncio.Future[Any] = asyncio.ensure_future(self._ctx.services.disk.run(cold.warm))
        self._warming = reading
        reading.add_done_callback(self._warmed)

    def _warmed(self, done: asyncio.Future[Any]) -> None:
        self._warming = None
        error = asyncio.CancelledError() if done.cancelled() else done.exception()
        if isinstance(error, OSError):
            error = KafkaError(ErrorCode.kafka_storage_error, f"reading failed: {error}")
        if error is not None:
            self._fail(error)
        else:
            self._look()

    def _fail(self, error: BaseException) -> None:
        self._stop_waiting()
        self.reply.fail(error)

    def _stop_waiting(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        for partition in self._partitions:
            partition.remove_waiter(self._wake)
