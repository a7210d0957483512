"""A request of a client that asks for the same each time, and what is kept of it for the next."""

from __future__ import annotations

import asyncio
from typing import Any

from ottla.broker.api.records.fetch.asked import PIECE, limits_of
from ottla.broker.api.records.fetch.habit import Habit
from ottla.broker.api.records.fetch.large_waits import FEW
from ottla.broker.api.records.fetch.layout import layout_of
from ottla.broker.api.records.fetch.reader import Collected, Found, Limits, Reader
from ottla.broker.api.records.fetch.rights import rights_of
from ottla.broker.api.records.fetch.session import FINAL_EPOCH, Want
from ottla.broker.api.records.fetch.slowly import Told, look_and_read
from ottla.broker.metering import metered
from ottla.broker.request import Framed, RequestContext
from ottla.broker.views.leader import leader_nodes
from ottla.env.clock import Timer
from ottla.env.deferred import Deferred
from ottla.log.segment_file import ColdRead
from ottla.replication.claims import NOBODY
from ottla.wire.messages import frame_response


def has_habits(ctx: RequestContext, request: Any, limits: Limits) -> bool:
    """Whether what a request asks for is worth keeping: a consumer's, without a session, of many partitions,
    that is not sent to a nearer replica."""
    return (
        ctx.elements > FEW
        and limits.follower_id < 0
        and getattr(request, "session_epoch", FINAL_EPOCH) == FINAL_EPOCH
        and not getattr(request, "session_id", 0)
        and not _is_sent_elsewhere(ctx, limits)
    )


def _is_sent_elsewhere(ctx: RequestContext, limits: Limits) -> bool:
    return bool(limits.rack) and ctx.services.replicas.followers_serve


def begin(
    ctx: RequestContext, bare: Any, wants: list[Want], limits: Limits
) -> Framed | Deferred[Framed] | None:
    """Answer a request for the first time, and keep what it asks for; None: it cannot be kept.

    ``bare``: it without its topics, ``wants``: those. Its bytes are let go."""
    header = ctx.header
    body = bytes(memoryview(ctx.frame)[header.body_offset :])
    ctx.frame = b""
    layout = layout_of(header.api_version)
    found = layout.blocks(body)
    if found is None or sum(block[2] for block in found[0]) != len(wants) or not wants:
        # It has tagged fields, or names a partition twice.
        return None
    habit = Habit(header.api_version, layout, bare, ctx.elements, body, wants)
    kept = KeptHabit(ctx, habit)
    if ctx.client.habit is not None:
        ctx.client.habit.end()
    ctx.client.habit = kept
    if not ctx.services.memory.full:
        kept.keep()
    return kept.ask(ctx, limits)


class KeptHabit:
    """What a client asks for each time, for as long as there is room for it."""

    __slots__ = ("_asking", "_habit", "_is_kept", "_rights", "_services")

    def __init__(self, ctx: RequestContext, habit: Habit) -> None:
        self._services = ctx.services
        self._habit = habit
        # What it may read: what is written may not be for whoever it is by then.
        self._rights = rights_of(ctx)
        self._is_kept = False
        self._asking: HabitFetch | None = None

    def keep(self) -> None:
        self._is_kept = True
        self._services.fetch_sessions.habits.keep(self, len(self._habit.wants))

    def again(self, ctx: RequestContext) -> Framed | Deferred[Framed] | None:
        """Answer a request, if it asks for the same as the one before."""
        habit = self._habit
        if habit.ended or self._asking is not None or ctx.header.api_version != habit.version:
            return None
        limits = limits_of(ctx, habit.request, NOBODY, NOBODY)
        if _is_sent_elsewhere(ctx, limits) or (ctx.services.replicas.unopened and habit.misses_any()):
            return None
        body = bytes(memoryview(ctx.frame)[ctx.header.body_offset :])
        if rights_of(ctx) != self._rights or not habit.takes(body):
            self.end()
            return None
        ctx.elements = habit.elements
        self._services.fetch_sessions.habits.used(self)
        return self.ask(ctx, limits)

    def ask(self, ctx: RequestContext, limits: Limits) -> Framed | Deferred[Framed]:
        self._asking = asking = HabitFetch(ctx, self, self._habit, limits)
        return asking.begin()

    def answered(self) -> None:
        """The request is answered, or nobody waits for that any more."""
        self._asking = None
        if not self._is_kept:
            self._habit.leave(self._services.slices)

    def let_go(self) -> None:
        """There is no room for it: not beyond the request that waits, if one does."""
        self._is_kept = False
        if self._asking is None:
            self._habit.leave(self._services.slices)

    def end(self) -> None:
        """The client is gone, or has another habit."""
        self._services.fetch_sessions.habits.forget(self)
        self.let_go()


class HabitFetch:
    """One request. What there is to do is done at once, where it is little; otherwise in pieces."""

    __slots__ = (
        "_ctx", "_expired", "_habit", "_kept", "_look_again", "_looking", "_reader", "_timer", "_waits",
        "_work", "reply",
    )  # fmt: skip

    def __init__(self, ctx: RequestContext, kept: KeptHabit, habit: Habit, limits: Limits) -> None:
        self._ctx = ctx
        self._kept = kept
        self._habit = habit
        self._reader = Reader(ctx, None, [], limits, notes=False)
        self._expired = limits.max_wait_ms <= 0
        self._timer: Timer | None = None
        # A look is due at the end of this turn; one in pieces is under way, or a part of a log is being read;
        # something has happened meanwhile.
        self._looking = False
        self._waits = False
        self._work: asyncio.Future[Any] | None = None
        self._look_again = False
        self.reply: Deferred[Framed] = Deferred(on_cancel=self._stop)

    def begin(self) -> Framed | Deferred[Framed]:
        ctx = self._ctx
        self._look()
        if self.reply.done:
            return self.reply.result()
        ctx.services.fetch_sessions.without.add(self, ctx.elements)
        self._waits = True
        ctx.services.fetch_sessions.waiting += 1
        if not self._expired:
            self._timer = ctx.services.deadlines.add(self._reader.limits.max_wait_ms, self._expire)
        return self.reply

    def give_way(self) -> None:
        """Answer with what there is: see `LargeWaits`."""
        self._ctx.services.turn.soon(self._expire)

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
        if self.reply.done:
            return
        if self._work is not None:
            self._look_again = True
            return
        self._look_again = False
        habit, reader = self._habit, self._reader
        habit.note_log_starts(self._ctx.services.log_manager.starts_moved)
        # Before it looks: what comes while it does is heard of, too.
        habit.waiter = self._wake
        if len(habit.changed) + len(habit.due) > PIECE:
            self._look_slowly()
            return
        try:
            habit.take_changes(habit.changed)
            habit.changed = []
            collected = Collected([])
            reader.look_at(habit.in_order(), collected)
            reader.conclude(collected)
            collected.found = habit.note(collected.found)
            if self._is_enough(collected):
                self._read(collected)
        except ColdRead:
            self._look_slowly()
        except Exception as error:  # noqa: BLE001 - whoever waits hears of it
            self._fail(error)

    def _is_enough(self, collected: Collected) -> bool:
        return (
            self._expired
            or collected.final
            or collected.size >= self._reader.limits.min_bytes
            or self._ctx.services.replicas.stopping
        )

    def _read(self, collected: Collected) -> None:
        found = collected.found
        read = self._reader.respond(None, collected)
        if isinstance(read, dict):
            self._tell(found)
            return
        self._work = read
        read.add_done_callback(lambda done: self._was_read(done, found))

    def _was_read(self, done: asyncio.Future[Any], found: list[Found]) -> None:
        if not self._has_failed(done):
            self._tell(found)

    def _tell(self, found: list[Found]) -> None:
        told = Told(self._habit.writer)
        told.add(found)
        self._answer(told)

    def _look_slowly(self) -> None:
        looks = look_and_read(self._ctx, self._habit, self._reader, self._is_enough)
        work = asyncio.ensure_future(metered(self._ctx, looks))
        self._work = work
        work.add_done_callback(self._looked)

    def _looked(self, done: asyncio.Future[Told | None]) -> None:
        if self._has_failed(done):
            return
        told = done.result()
        if told is not None:
            self._answer(told)
        elif self._look_again or self._expired:
            self._look()

    def _has_failed(self, done: asyncio.Future[Any]) -> bool:
        """Whether nothing comes of what was done in pieces, or nobody waits for it any more."""
        if self.reply.done:
            return True
        self._work = None
        error = asyncio.CancelledError() if done.cancelled() else done.exception()
        if error is not None:
            self._fail(error)
        return error is not None

    def _answer(self, told: Told) -> None:
        habit, ctx = self._habit, self._ctx
        fields = {
            "error_code": 0,
            "session_id": 0,
            "responses": habit.responses(told.pieces),
            "throttle_time_ms": 0,
            "node_endpoints": leader_nodes(ctx, told.refused),
        }
        framed = Framed(frame_response(ctx.header, fields), told.refused)
        self._stop()
        self.reply.resolve(framed)

    def _fail(self, error: BaseException) -> None:
        self._stop()
        self.reply.fail(error)

    def _stop(self) -> None:
        """Nobody waits any more."""
        if self._waits:
            self._waits = False
            self._ctx.services.fetch_sessions.waiting -= 1
        self._habit.waiter = None
        if self._timer is not None:
            self._timer.cancel()
        work, self._work = self._work, None
        if work is not None:
            work.cancel()
        self._ctx.services.fetch_sessions.without.remove(self)
        self._kept.answered()
