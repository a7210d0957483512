"""Fetch: records from partitions, waiting for more where there are too few (KafkaApis.handleFetchRequest).

v4 isolation level; v5 log start offset; v7 fetch sessions (KIP-227); v9 leader epochs (KIP-320); v11 the
client's rack; v12 flexible, divergence; v13 topic ids (KIP-516); v15-18 what replicas say of themselves.

The limits are Kafka's: the first batch of the first partition that has one is returned whole, however large;
after that neither a partition's limit nor the request's is passed. Where fewer than min_bytes are there, the
request waits for an append to one of its partitions, at most max_wait_ms.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any, NamedTuple

from ottla.broker.context import RequestContext
from ottla.broker.deferred import Deferred
from ottla.broker.fetch_sessions import FINAL_EPOCH, INITIAL_EPOCH, Key, Session, Want
from ottla.env.clock import Timer
from ottla.errors import ErrorCode, KafkaError
from ottla.log.log import Slice
from ottla.log.lookups import settle
from ottla.log.segment import ColdRead
from ottla.replication.manager import ReplicaManager
from ottla.replication.partition import Partition

_READ_COMMITTED = 1


class Limits(NamedTuple):
    """What a request sets for the whole of its response."""

    max_bytes: int
    min_bytes: int
    max_wait_ms: int
    committed: bool


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
    config = ctx.services.config
    max_bytes = min(request.max_bytes, config.get("fetch.max.bytes"))
    limits = Limits(
        max_bytes=max_bytes,
        min_bytes=min(request.min_bytes, max_bytes),
        max_wait_ms=request.max_wait_ms,
        committed=request.isolation_level == _READ_COMMITTED,
    )
    try:
        collected = _collect(ctx, wants, limits)
    except ColdRead as cold:
        return asyncio.ensure_future(_collect_cold(ctx, session, wants, limits, cold))
    return _respond_or_wait(ctx, session, wants, limits, collected)


def _respond_or_wait(
    ctx: RequestContext, session: Session | None, wants: list[Want], limits: Limits, collected: Collected
) -> dict[str, Any] | Later:
    enough = collected.size >= limits.min_bytes or collected.final
    if enough or limits.max_wait_ms <= 0 or not wants or ctx.services.replicas.stopping:
        return _respond(ctx, session, collected)
    return _Wait(ctx, session, wants, limits).reply


async def _collect_cold(
    ctx: RequestContext, session: Session | None, wants: list[Want], limits: Limits, cold: ColdRead
) -> dict[str, Any]:
    """Go on where a look-up needed bytes from the disk."""
    await ctx.services.disk.run(cold.warm)
    collected = await settle(ctx.services.disk, lambda: _collect(ctx, wants, limits))
    reply = _respond_or_wait(ctx, session, wants, limits, collected)
    return reply if isinstance(reply, dict) else await reply


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
    return {
        "partition_index": want.partition,
        "error_code": int(error.code),
        "high_watermark": -1,
        "last_stable_offset": -1,
        "log_start_offset": -1,
        "aborted_transactions": () if limits.committed else None,
        "records": b"",
    }


def _respond(
    ctx: RequestContext, session: Session | None, collected: Collected
) -> dict[str, Any] | asyncio.Future[dict[str, Any]]:
    """Read what was found, in memory if it is there, else off the event loop."""
    cold = []
    for item in collected.found:
        if item.slice is not None:
            data = item.slice.file.read_cached(item.slice.position, item.slice.size)
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
    server = ctx.connection.server

    def read() -> list[bytes]:
        return [i.slice.file.read(i.slice.position, i.slice.size) for i in cold if i.slice is not None]

    server.unsent_bytes += collected.size
    try:
        for item, data in zip(cold, await ctx.services.disk.run(read), strict=True):
            item.answer["records"] = data
    except (OSError, ValueError) as error:
        # The disk failed, or the segment was deleted and closed meanwhile: the client asks again.
        raise KafkaError(ErrorCode.kafka_storage_error, f"reading failed: {error}") from error
    finally:
        server.unsent_bytes -= collected.size
    return _response(session, collected)


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
    """A fetch that found too little: looks again when a partition grows, answers at its deadline."""

    __slots__ = ("_ctx", "_limits", "_looking", "_partitions", "_session", "_timer", "_wants", "reply")

    def __init__(
        self, ctx: RequestContext, session: Session | None, wants: list[Want], limits: Limits
    ) -> None:
        self._ctx = ctx
        self._session = session
        self._wants = wants
        self._limits = limits
        self._looking = False
        self.reply: Deferred[dict[str, Any]] = Deferred(on_cancel=self._stop_waiting)
        self._timer: Timer = ctx.services.clock.call_later(limits.max_wait_ms, self._expired)
        self._partitions = [_find(ctx.services.replicas, want) for want in wants]
        for partition in self._partitions:
            partition.add_waiter(self._wake)

    def _wake(self) -> None:
        if not self._looking:
            # Once for all that is appended in this turn of the event loop.
            self._looking = True
            self._ctx.services.turn.soon(self._look)

    def _expired(self) -> None:
        self._look(expired=True)

    def _look(self, expired: bool = False) -> None:
        self._looking = False
        if self.reply.done:
            return
        ctx = self._ctx
        try:
            collected = _collect(ctx, self._wants, self._limits)
            stopping = ctx.services.replicas.stopping
            if not (expired or stopping or collected.final or collected.size >= self._limits.min_bytes):
                return
            answer = _respond(ctx, self._session, collected)
        except ColdRead as cold:
            answer = asyncio.ensure_future(_collect_cold(ctx, self._session, self._wants, self._limits, cold))
        except Exception as error:  # noqa: BLE001 - whoever waits hears of it
            self._stop_waiting()
            self.reply.fail(error)
            return
        self._stop_waiting()
        if isinstance(answer, dict):
            self.reply.resolve(answer)
        else:
            self.reply.follow(answer)

    def _stop_waiting(self) -> None:
        self._timer.cancel()
        for partition in self._partitions:
            partition.remove_waiter(self._wake)
