"""Fetch: records from partitions, waiting for more where there are too few (KafkaApis.handleFetchRequest).

v4 isolation level; v5 log start offset; v7 fetch sessions (KIP-227); v9 leader epochs (KIP-320); v10 says
that the client knows zstd (KIP-110), but since Kafka 4 no version is refused it; v11 the client's rack and
any replica (KIP-392); v12 flexible, the last epoch fetched (KIP-595); v13 topic ids (KIP-516); v15 the
follower's registration (KIP-903); v16 who leads instead (KIP-951); v17-18 add what we do not use.

A request in a replica's name that does not carry its present registration, as none before v15 does, is
answered with NOT_LEADER_OR_FOLLOWER. Without CLUSTER_ACTION it is TOPIC_AUTHORIZATION_FAILED, as it is for a
consumer without READ on a topic: of a name whether there is such a topic or not, of an id where it is known.
In a session, too, it counts what a client may read by the time that it is answered.

The limits are Kafka's: the first batch of the first partition that has one is returned whole, however large;
after that neither a partition's limit nor the request's is passed. Where fewer than min_bytes are there, the
request waits for an append to one of its partitions, at most max_wait_ms.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

from ottla.broker.api.records.fetch.asked import (
    PIECE,
    forgotten_by,
    keys,
    limits_of,
    replica,
    session_of,
    wants_of,
    without_topics,
)
from ottla.broker.api.records.fetch.habit_fetch import begin, has_habits
from ottla.broker.api.records.fetch.large import LargeFetch, fetch_many, later
from ottla.broker.api.records.fetch.reader import Reader
from ottla.broker.api.records.fetch.refusing import Refusing
from ottla.broker.api.records.fetch.rights import check_follower
from ottla.broker.api.records.fetch.session import Want
from ottla.broker.api.records.fetch.waiting import Wait
from ottla.broker.request import Framed, RequestContext
from ottla.env.deferred import Deferred
from ottla.errors import KafkaError
from ottla.log.segment_file import ColdRead
from ottla.replication.claims import NOBODY

Later = asyncio.Future[dict[str, Any]] | Deferred[dict[str, Any]] | Deferred[Framed]


def handle(ctx: RequestContext, request: Any) -> dict[str, Any] | Framed | Later:
    """Top-level errors are those of the session; the others stand by their partition."""
    version = ctx.header.api_version
    follower_id, claim = replica(request, version)
    epoch, refused = NOBODY, None
    if follower_id >= 0:
        ctx.client.is_node = False
        try:
            check_follower(ctx)
            epoch = ctx.services.replicas.follower_epoch(follower_id, claim, ctx.listener, ctx.client_host)
            # Of one that somebody makes up nothing is believed.
            ctx.client.is_node = epoch != NOBODY
        except KafkaError as error:
            follower_id, refused = NOBODY, error
    limits = limits_of(ctx, request, follower_id, epoch)
    by_id = version >= 13
    wants = wants_of(request, by_id)
    if wants is None or (ctx.services.replicas.unopened and _any_absent(ctx, wants, by_id)):
        return later(ctx, fetch_many(ctx, request, limits, refused))
    if refused is not None:
        refusing = Refusing(ctx, wants, limits, refused)
        return refusing.respond(None, refusing.collect())
    if has_habits(ctx, request, limits):
        kept = begin(ctx, without_topics(request), wants, limits)
        if kept is not None:
            return kept
    session = session_of(ctx, request, wants, forgotten_by(request, by_id), limits, len(wants))
    if session is not None and len(session.due) > PIECE:
        reader = Reader(ctx, session, wants, limits, notes=False)
        return later(ctx, LargeFetch(ctx, session, reader).answer())
    reader = Reader(ctx, session, wants, limits)
    try:
        collected = reader.collect()
    except ColdRead as cold:
        return Wait(ctx, session, reader, cold).reply
    enough = collected.size >= limits.min_bytes or collected.final
    empty = not (wants if session is None else session.wants)
    if enough or limits.max_wait_ms <= 0 or empty or ctx.services.replicas.stopping:
        return reader.respond(session, collected)
    return Wait(ctx, session, reader).reply


def _any_absent(ctx: RequestContext, wants: Iterable[Want], by_id: bool) -> bool:
    partitions = ctx.services.replicas.partitions
    return any(key not in partitions for key in keys(ctx, wants, by_id))
