"""Fetch: records from partitions, waiting for more where there are too few (KafkaApis.handleFetchRequest).

v4 isolation level; v5 log start offset; v7 fetch sessions (KIP-227); v9 leader epochs (KIP-320); v10 zstd
(KIP-110); v11 the client's rack and any replica (KIP-392); v12 flexible, the last epoch fetched (KIP-595);
v13 topic ids (KIP-516); v15 the follower's registration (KIP-903); v16 who leads instead (KIP-951); v17-18
add what we do not use.

The limits are Kafka's: the first batch of the first partition that has one is returned whole, however large;
after that neither a partition's limit nor the request's is passed. Where fewer than min_bytes are there, the
request waits for an append to one of its partitions, at most max_wait_ms.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

from ottla.broker.context import RequestContext
from ottla.broker.deferred import Deferred
from ottla.broker.fetch_sessions import FINAL_EPOCH, INITIAL_EPOCH, Key, Session, Want
from ottla.broker.handlers._fetch_reading import ANY_REPLICA_SINCE, Limits, Reader
from ottla.broker.handlers._fetch_waiting import Wait
from ottla.log.segment import ColdRead

_READ_COMMITTED = 1
ZSTD_SINCE = 10

Later = asyncio.Future[dict[str, Any]] | Deferred[dict[str, Any]]


def handle(ctx: RequestContext, request: Any) -> dict[str, Any] | Later:
    """Top-level errors are those of the session; the others stand by their partition."""
    limits = _limits(ctx, request)
    session, wants = _session(ctx, request, is_follower=limits.follower_id >= 0)
    reader = Reader(ctx, wants, limits)
    try:
        collected = reader.collect()
    except ColdRead as cold:
        return Wait(ctx, session, reader, cold).reply
    enough = collected.size >= limits.min_bytes or collected.final
    if enough or limits.max_wait_ms <= 0 or not wants or ctx.services.replicas.stopping:
        return reader.respond(session, collected)
    return Wait(ctx, session, reader).reply


def _limits(ctx: RequestContext, request: Any) -> Limits:
    version = ctx.header.api_version
    max_bytes = min(request.max_bytes, ctx.services.config.get("fetch.max.bytes"))
    follower_epoch = -1
    if version < 15:
        follower_id = request.replica_id
    else:
        follower_id = request.replica_state.replica_id
        follower_epoch = request.replica_state.replica_epoch
    return Limits(
        max_bytes=max_bytes,
        min_bytes=min(request.min_bytes, max_bytes),
        max_wait_ms=request.max_wait_ms,
        committed=request.isolation_level == _READ_COMMITTED,
        follower_id=follower_id,
        follower_epoch=follower_epoch,
        rack=request.rack_id if version >= ANY_REPLICA_SINCE else "",
        any_replica=follower_id < 0 and version >= ANY_REPLICA_SINCE,
        without_zstd=version < ZSTD_SINCE,
    )


def _session(ctx: RequestContext, request: Any, *, is_follower: bool) -> tuple[Session | None, list[Want]]:
    """The session that the request opens or goes on with, if any, and all partitions to read."""
    by_id = ctx.api_version >= 13
    asked = _wants(request, by_id)
    epoch = getattr(request, "session_epoch", FINAL_EPOCH)
    sessions = ctx.services.fetch_sessions
    if epoch in (INITIAL_EPOCH, FINAL_EPOCH):
        if getattr(request, "session_id", 0):
            sessions.close(request.session_id)
        if epoch == FINAL_EPOCH or not asked:
            return None, asked
        return sessions.open(by_id, asked, is_follower=is_follower), asked
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
            last_epoch = getattr(p, "last_fetched_epoch", -1)
            start = getattr(p, "log_start_offset", -1)
            out.append(
                Want(key, p.partition, p.fetch_offset, p.partition_max_bytes, epoch, last_epoch, start)
            )
    return out


def _forgotten(request: Any, by_id: bool) -> Iterable[Key]:
    for topic in request.forgotten_topics_data:
        key = topic.topic_id if by_id else topic.topic
        for index in topic.partitions:
            yield key, index
