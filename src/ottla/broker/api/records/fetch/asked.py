"""What a Fetch request says: the partitions that it names, its limits, its session."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final

from ottla.broker.api.records.fetch.reader import ANY_REPLICA_SINCE, WHO_READS, Limits
from ottla.broker.api.records.fetch.rights import rights_of
from ottla.broker.api.records.fetch.session import FINAL_EPOCH, INITIAL_EPOCH, Key, Session, TopicKey, Want
from ottla.broker.request import RequestContext
from ottla.replication.claims import NOBODY

# Partitions that are dealt with in one turn of the event loop, at 5 to 10 microseconds each.
PIECE: Final = 500

READ_COMMITTED: Final = 1


def replica(request: Any, version: int) -> tuple[int, int]:
    """The replica in whose name a request is, -1 for a consumer's, and what shows that it is from there."""
    if version < 15:
        return request.replica_id, NOBODY
    state = request.replica_state
    return state.replica_id, state.replica_epoch


def limits_of(ctx: RequestContext, request: Any, follower_id: int, follower_epoch: int) -> Limits:
    version = ctx.header.api_version
    max_bytes = min(request.max_bytes, ctx.services.config.get("fetch.max.bytes"))
    return Limits(
        max_bytes=max_bytes,
        min_bytes=min(request.min_bytes, max_bytes),
        max_wait_ms=request.max_wait_ms,
        committed=request.isolation_level == READ_COMMITTED,
        follower_id=follower_id,
        follower_epoch=follower_epoch,
        rack=request.rack_id if version >= ANY_REPLICA_SINCE else "",
        any_replica=follower_id < 0 and version >= ANY_REPLICA_SINCE,
    )


def session_of(
    ctx: RequestContext,
    request: Any,
    asked: list[Want],
    forgotten: Iterable[Key],
    limits: Limits,
    size: int,
) -> Session | None:
    """The session that the request opens or goes on with, if any. ``size``: how many partitions it names."""
    by_id = ctx.api_version >= 13
    epoch = getattr(request, "session_epoch", FINAL_EPOCH)
    sessions = ctx.services.fetch_sessions
    if epoch in (INITIAL_EPOCH, FINAL_EPOCH):
        if getattr(request, "session_id", 0):
            sessions.close(request.session_id)
        if epoch == FINAL_EPOCH:
            return None
        opened = sessions.open(by_id, asked, is_follower=limits.follower_epoch != NOBODY, size=size)
        if opened is not None:
            opened.read_as((limits[WHO_READS:], rights_of(ctx)))
        return opened
    session = sessions.resume(request.session_id, epoch, by_id, asked, forgotten)
    session.read_as((limits[WHO_READS:], rights_of(ctx)))
    return unless_empty(ctx, session)


def unless_empty(ctx: RequestContext, session: Session) -> Session | None:
    """The session; None where nothing is left in it, with which it has ended."""
    if session.wants:
        return session
    ctx.services.fetch_sessions.close(session.session_id)
    return None


def wants_of(request: Any, by_id: bool) -> list[Want] | None:
    """The partitions that a request names; of one that it names twice, what it says last. None: so many, or
    so many to forget, that it is to be dealt with in pieces."""
    out: list[Want] = []
    for topic in request.topics:
        partitions = topic.partitions
        if len(partitions) + len(out) > PIECE:
            return None
        add_wants(out, topic.topic_id if by_id else topic.topic, partitions)
    forgotten = getattr(request, "forgotten_topics_data", ())
    if forgotten and sum(len(topic.partitions) for topic in forgotten) > PIECE:
        return None
    return out if len(out) < 2 else list({(want.topic, want.partition): want for want in out}.values())


def add_wants(out: list[Want], topic: TopicKey, partitions: Iterable[Any]) -> None:
    for p in partitions:
        epoch = getattr(p, "current_leader_epoch", -1)
        last_epoch = getattr(p, "last_fetched_epoch", -1)
        start = getattr(p, "log_start_offset", -1)
        out.append(Want(topic, p.partition, p.fetch_offset, p.partition_max_bytes, epoch, last_epoch, start))


def without_topics(request: Any) -> Any:
    """What else a request says."""
    bare = request._replace(topics=())
    return bare._replace(forgotten_topics_data=()) if hasattr(bare, "forgotten_topics_data") else bare


def forgotten_by(request: Any, by_id: bool) -> Iterator[Key]:
    for topic in getattr(request, "forgotten_topics_data", ()):
        key = topic.topic_id if by_id else topic.topic
        for index in topic.partitions:
            yield key, index


def keys(ctx: RequestContext, wants: Iterable[Want], by_id: bool) -> Iterator[tuple[str, int]]:
    """The names and indexes of those whose topics are known."""
    topics = ctx.services.metadata.image.topics_by_id
    for want in wants:
        if not by_id:
            yield want.topic, want.partition  # type: ignore[misc]
        elif (topic := topics.get(want.topic)) is not None:  # type: ignore[arg-type]
            yield topic.name, want.partition
