"""A Fetch that waits: for enough to send, or for a part of the log to be read into memory."""

from __future__ import annotations

import asyncio
from typing import Any

from ottla.broker.api.records.fetch import alike
from ottla.broker.api.records.fetch.large_waits import FEW
from ottla.broker.api.records.fetch.reader import Reader
from ottla.broker.api.records.fetch.session import Session
from ottla.broker.request import Framed, RequestContext
from ottla.env.clock import Timer
from ottla.env.deferred import Deferred
from ottla.errors import ErrorCode, KafkaError
from ottla.log.lookups import COLD_READS_MAX
from ottla.log.segment_file import ColdRead
from ottla.replication.partition import Partition
from ottla.wire.messages import frame_response


class Wait:
    """A fetch that found too little, or that needs bytes from the disk in order to look (``cold``).

    It looks again when a partition grows, or when those bytes are in memory, and answers at its deadline.
    """

    __slots__ = (
        "_cold_reads",
        "_ctx",
        "_expired",
        "_looking",
        "_partitions",
        "_reader",
        "_session",
        "_timer",
        "_waits",
        "_warming",
        "reply",
    )

    def __init__(
        self,
        ctx: RequestContext,
        session: Session | None,
        reader: Reader,
        cold: ColdRead | None = None,
    ) -> None:
        self._ctx = ctx
        self._session = session
        self._reader = reader
        self._looking = False
        self._warming: asyncio.Future[Any] | None = None
        self._waits = True
        ctx.services.fetch_sessions.waiting += 1
        self._cold_reads = 0
        max_wait_ms = reader.limits.max_wait_ms
        self._expired = max_wait_ms <= 0
        self._timer: Timer | None = None
        if not self._expired:
            self._timer = ctx.services.deadlines.add(max_wait_ms, self._expire)
        self.reply: Deferred[Any] = Deferred(on_cancel=self._stop_waiting)
        if reader.limits.follower_id >= 0:
            # It waits long where nothing is to be expected, until it has something else to follow.
            self.reply.hurry = self._expire
        self._partitions: list[Partition] = []
        if session is not None:
            session.wait(self._wake)
            reader.listen(session)
        else:
            self._partitions = reader.found_partitions()
            if ctx.elements > FEW:
                ctx.services.fetch_sessions.without.add(self, ctx.elements)
            wake, is_follower = self._wake, reader.limits.follower_id >= 0
            wakes_twice = is_follower and ctx.services.replicas.followers_serve
            for partition in self._partitions:
                partition.add_waiter(wake, follower=is_follower)
                if wakes_twice:
                    partition.add_waiter(wake)
        if cold is not None:
            self._warm(cold)

    def _wake(self) -> None:
        if not self._looking:
            # Once for all that is appended in this turn of the event loop.
            self._looking = True
            self._ctx.services.turn.soon(self._look)

    def give_way(self) -> None:
        """Answer with what there is: see `LargeWaits`."""
        self._ctx.services.turn.soon(self._expire)

    def _expire(self) -> None:
        self._expired = True
        self._look()

    def _look(self) -> None:
        self._looking = False
        if self.reply.done or self._warming is not None:
            return
        ctx, reader, session = self._ctx, self._reader, self._session
        begun: alike.Alike | None = None
        try:
            reader.look_again()
            # Several may be woken at once, and get the same.
            answers = ctx.services.turn.answers
            want = alike.place_of(ctx, reader, session) if answers is not None else None
            if answers is not None and want is not None:
                made = alike.find(answers, ctx, reader, want)
                if made is not None:
                    if want.replica is not None:
                        want.replica.traffic.sent(made.size, to_follower=False)
                    self._give(made.pieces_for(ctx.header, session, want))
                    return
                begun = alike.begin(answers, ctx, reader, want)
            collected = reader.collect()
            ends = self._expired or collected.final or ctx.services.replicas.stopping
            ends = ends or (session is not None and session.ended)
            if not ends and collected.size < reader.limits.min_bytes:
                if session is not None:
                    reader.listen(session)
                return
            answer: Any = reader.respond(session, collected)
            if answers is not None and begun is not None and isinstance(answer, dict):
                refused = [found.answer for found in collected.found if found.answer["error_code"]]
                answer = Framed(frame_response(ctx.header, answer), refused)
                alike.keep(answers, begun, collected, reader.limits, answer.pieces)
        except ColdRead as cold:
            self._warm(cold)
            return
        except Exception as error:  # noqa: BLE001 - whoever waits hears of it
            self._fail(error)
            return
        self._stop_waiting()
        if isinstance(answer, dict | Framed):
            self.reply.resolve(answer)
        else:
            self.reply.follow(answer)

    def _give(self, pieces: list[Any]) -> None:
        """Answer first, since others wait behind this one, then stop waiting."""
        try:
            self.reply.resolve(Framed(pieces))
        finally:
            self._ctx.services.turn.tidy(self._stop_waiting)

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
        if self._waits:
            self._waits = False
            self._ctx.services.fetch_sessions.waiting -= 1
        if self._timer is not None:
            self._timer.cancel()
        wake = self._wake
        if self._session is not None:
            self._session.stop_waiting(wake)
        elif self._ctx.elements > FEW:
            self._ctx.services.fetch_sessions.without.remove(self)
        for partition in self._partitions:
            partition.remove_waiter(wake)
