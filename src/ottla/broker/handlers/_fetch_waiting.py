"""A Fetch that waits: for enough to send, or for a part of the log to be read into memory."""

from __future__ import annotations

import asyncio
from typing import Any

from ottla.broker.context import RequestContext
from ottla.broker.deferred import Deferred
from ottla.broker.fetch_sessions import Session
from ottla.broker.handlers._fetch_reading import Reader
from ottla.env.clock import Timer
from ottla.errors import ErrorCode, KafkaError
from ottla.log.lookups import COLD_READS_MAX
from ottla.log.segment import ColdRead


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
        self._cold_reads = 0
        max_wait_ms = reader.limits.max_wait_ms
        self._expired = max_wait_ms <= 0
        self._timer: Timer | None = None
        if not self._expired:
            self._timer = ctx.services.deadlines.add(max_wait_ms, self._expire)
        self.reply: Deferred[dict[str, Any]] = Deferred(on_cancel=self._stop_waiting)
        self._partitions = reader.found_partitions()
        is_follower = reader.limits.follower_id >= 0
        wakes_twice = is_follower and ctx.services.replicas.followers_serve
        wake = self._wake
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

    def _expire(self) -> None:
        self._expired = True
        self._look()

    def _look(self) -> None:
        self._looking = False
        if self.reply.done or self._warming is not None:
            return
        ctx = self._ctx
        try:
            collected = self._reader.collect()
            ends = self._expired or collected.final or ctx.services.replicas.stopping
            if not ends and collected.size < self._reader.limits.min_bytes:
                return
            answer = self._reader.respond(self._session, collected)
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
        wake = self._wake
        for partition in self._partitions:
            partition.remove_waiter(wake)
