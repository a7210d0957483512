"""A Fetch of thousands of partitions: the same, in pieces, so that nobody else waits for long."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from functools import partial
from typing import Any

from ottla.broker.api.records.fetch.asked import (
    PIECE,
    add_wants,
    forgotten_by,
    keys,
    session_of,
    unless_empty,
    without_topics,
)
from ottla.broker.api.records.fetch.encoding import PartitionWriter, TopicsWriter
from ottla.broker.api.records.fetch.habit_fetch import begin, has_habits
from ottla.broker.api.records.fetch.reader import Collected, Found, Limits, Reader
from ottla.broker.api.records.fetch.refusing import Refusing
from ottla.broker.api.records.fetch.session import Key, Listener, Session, Want
from ottla.broker.api.records.fetch.slowly import Looks, pieces, taken
from ottla.broker.large import Lazy, given_away, in_pieces
from ottla.broker.metering import metered
from ottla.broker.request import Framed, RequestContext
from ottla.broker.views.leader import leader_nodes
from ottla.env.deferred import Deferred
from ottla.errors import KafkaError


async def fill(
    ctx: RequestContext, session: Session, wants: Sequence[Want], forgotten: Sequence[Key]
) -> None:
    """Put the rest of what a request names into its session. KafkaError as ``FetchSessions.grown``."""
    for piece in pieces(wants):
        session.update(piece, ())
        await ctx.services.slices.pause()
    for gone in pieces(forgotten):
        session.update((), gone)
        await ctx.services.slices.pause()
    ctx.services.fetch_sessions.grown(session)


def later(ctx: RequestContext, work: Coroutine[Any, Any, Framed]) -> Deferred[Framed]:
    """What ``work`` gives; it ends when nobody waits for that any more."""
    task = asyncio.ensure_future(metered(ctx, work))
    deferred: Deferred[Framed] = Deferred(on_cancel=task.cancel)
    task.add_done_callback(deferred.take_over)
    return deferred


async def fetch_many(ctx: RequestContext, request: Any, limits: Limits, refused: KafkaError | None) -> Framed:
    """The same for thousands of partitions, in pieces."""
    by_id = ctx.api_version >= 13
    bare = without_topics(request)
    named: dict[Key, Want] = {}
    for topics in pieces(request.topics):
        for topic in topics:
            for partitions in pieces(topic.partitions):
                wants: list[Want] = []
                add_wants(wants, topic.topic_id if by_id else topic.topic, partitions)
                named.update(((want.topic, want.partition), want) for want in wants)
                if len(partitions) == PIECE:
                    await ctx.services.slices.pause()
        await ctx.services.slices.pause()
    asked = list(named.values())
    if ctx.services.replicas.unopened:
        await ctx.services.replicas.open(keys(ctx, asked, by_id))
    if refused is not None:
        return await LargeFetch(ctx, None, Refusing(ctx, asked, limits, refused)).answer()
    forgotten = list(forgotten_by(request, by_id))
    session = session_of(ctx, request, asked[:PIECE], (), limits, len(asked))
    if session is not None:
        await fill(ctx, session, asked[PIECE:], forgotten)
        session = unless_empty(ctx, session)
    kept = begin(ctx, bare, asked, limits) if session is None and has_habits(ctx, request, limits) else None
    # What it is made of is forgotten here, and its partitions in pieces: thousands at once take long.
    del request, named, forgotten
    ctx.frame = b""
    await ctx.services.slices.pause()
    if kept is not None:
        return kept if isinstance(kept, Framed) else await kept
    reader = Reader(ctx, session, asked, limits, notes=False)
    return await LargeFetch(ctx, session, reader).answer()


class LargeFetch:
    """One such request. ``answer`` is what its handler gives.

    Without a session it listens to its partitions from the first look on, and looks again at those only to
    which something has happened since. What is told of the others is written by then.
    """

    def __init__(self, ctx: RequestContext, session: Session | None, reader: Reader) -> None:
        self._ctx = ctx
        self._session = session
        self._reader = reader
        self._woken = asyncio.Event()
        self._looks = Looks(ctx, reader)
        # Without a session: who listens, and what was found by now.
        self._alone = Listener()
        self._found: dict[Want, Found] = {}
        self._size = 0
        self._encoded: dict[Want, bytes] = {}
        self._writer = PartitionWriter(ctx.api_version)
        # Whether others need the room.
        self._gives_way = False

    def give_way(self) -> None:
        """Answer with what there is: see `LargeWaits`."""
        self._gives_way = True
        self._woken.set()

    async def answer(self) -> Framed:
        ctx, reader, session = self._ctx, self._reader, self._session
        ends_ms = ctx.services.clock.monotonic_ms() + max(reader.limits.max_wait_ms, 0)
        expired = False
        listens = session is None
        if session is None:
            ctx.services.fetch_sessions.without.add(self, ctx.elements)
        try:
            await self._note_progress()
            while True:
                self._woken.clear()
                if session is None:
                    collected = await self._collect_alone()
                else:
                    if listens:
                        await self._listen(session)
                    collected = await self._collect()
                left_ms = ends_ms - ctx.services.clock.monotonic_ms()
                empty = session is None and not reader.wants
                enough = collected.size >= reader.limits.min_bytes or collected.final or empty
                if self._gives_way or (session is not None and session.ended):
                    expired = True
                if enough or expired or left_ms <= 0 or ctx.services.replicas.stopping:
                    return await self._answer(collected)
                if listens:
                    ctx.services.fetch_sessions.waiting += 1
                    try:
                        async with asyncio.timeout(left_ms / 1000):
                            await self._woken.wait()
                    except TimeoutError:
                        expired = True
                    finally:
                        ctx.services.fetch_sessions.waiting -= 1
                # Nobody has told what came while it looked for the first time: it looks once more.
                listens = True
                reader.look_again()
        finally:
            if session is None:
                ctx.services.fetch_sessions.without.remove(self)
                self._alone.ended, self._alone.waiter = True, None
                left, reader.wants = pieces(reader.wants), []
                self._hear_nothing(left)
            else:
                session.stop_waiting(self._woken.set)

    async def _note_progress(self) -> None:
        for piece in pieces(self._reader.wants):
            self._reader.note_progress(piece)
            await self._ctx.services.slices.pause()

    async def _collect(self) -> Collected:
        collected = Collected([])
        for piece in pieces(self._reader.wants):
            await self._looks.look_at(piece, collected)
            await self._ctx.services.slices.pause()
        self._reader.conclude(collected)
        return collected

    async def _collect_alone(self) -> Collected:
        """The same without a session: all of them for the first time, what has changed later."""
        alone, found, reader = self._alone, self._found, self._reader
        alone.waiter = self._woken.set
        wants = list(alone.due) if found else reader.wants
        alone.due.clear()
        outdated = sum(
            one.slice.size for want in wants if (one := found.get(want)) is not None and one.slice is not None
        )
        collected = Collected([], self._size - outdated)
        for piece in pieces(wants):
            if reader.limits.max_wait_ms > 0:
                for want in piece:
                    want.session = alone
                reader.listen_to(piece)
            begun = len(collected.found)
            await self._looks.look_at(piece, collected)
            for one in collected.found[begun:]:
                self._encoded.pop(one.want, None)
                if one.slice is None:
                    self._encoded[one.want] = self._writer.write_empty(one.answer)
            await self._ctx.services.slices.pause()
        found.update((one.want, one) for one in collected.found)
        self._size = collected.size
        reader.conclude(collected)
        return Collected(list(found.values()), collected.size, final=collected.final)

    async def _listen(self, session: Session) -> None:
        session.wait(self._woken.set)
        for piece in pieces(list(session.due)):
            self._reader.listen_to(piece)
            await self._ctx.services.slices.pause()

    def _hear_nothing(self, left: list[Sequence[Want]]) -> None:
        """Listen no more, and forget them: some of them now, the others when they have their turn."""
        if left:
            for want in left.pop():
                if want.session is self._alone:
                    want.leave()
            self._ctx.services.slices.soon(partial(self._hear_nothing, left))

    async def _answer(self, collected: Collected) -> Framed:
        """The answer, whose records count from before they are read until it is written."""
        memory = self._ctx.services.memory
        memory.unsent_bytes += collected.size
        try:
            respond = self._respond if self._session is not None else self._respond_alone
            return await in_pieces(self._ctx, await respond(collected))
        finally:
            memory.unsent_bytes -= collected.size

    async def _respond_alone(self, collected: Collected) -> dict[str, Any]:
        """The answer without a session: of each partition, most of them written already."""
        reader, slices, found = self._reader, self._ctx.services.slices, collected.found
        if reader.limits.follower_id >= 0:
            reader.told(Collected([one for one in found if one.slice is None]))
        for piece in pieces([one for one in found if one.slice is not None]):
            read = reader.respond(None, Collected(list(piece)))
            if not isinstance(read, dict):
                await read
            await slices.pause()
        self._found = {}
        topics = TopicsWriter(self._ctx.api_version)
        refused = []
        while found:
            for one in taken(found):
                written = self._encoded.pop(one.want, None)
                if written is not None:
                    topics.add(one.want.topic, written)
                else:
                    topics.add_records(one.want.topic, self._writer.write(one.answer))
                if one.answer["error_code"]:
                    refused.append(one.answer)
            await slices.pause()
        return {
            "error_code": 0,
            "session_id": 0,
            "responses": topics.finish(),
            "throttle_time_ms": 0,
            "node_endpoints": leader_nodes(self._ctx, refused),
        }

    async def _respond(self, collected: Collected) -> dict[str, Any]:
        """The answers of all pieces, put together; they are forgotten as they are written."""
        whole: dict[str, Any] | None = None
        while whole is None or collected.found:
            part_of_it = Collected(taken(collected.found), collected.size, final=collected.final)
            answer = self._reader.respond(self._session, part_of_it)
            part = answer if isinstance(answer, dict) else await answer
            if whole is None:
                whole = part
            else:
                _add(whole, part)
            await self._ctx.services.slices.pause()
        topics = given_away(whole["responses"])
        whole["responses"] = Lazy(
            len(topics), (topic | {"partitions": given_away(topic["partitions"])} for topic in topics)
        )
        return whole


def _add(whole: dict[str, Any], part: dict[str, Any]) -> None:
    topics, more = whole["responses"], part["responses"]
    if topics and more and topics[-1]["topic"] == more[0]["topic"]:
        topics[-1]["partitions"] += more[0]["partitions"]
        more = more[1:]
    topics += more
    known = [node["node_id"] for node in whole["node_endpoints"]]
    added = [node for node in part["node_endpoints"] if node["node_id"] not in known]
    whole["node_endpoints"] = [*whole["node_endpoints"], *added]
