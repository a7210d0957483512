"""The shell around one machine: a partition of an internal topic that this node leads.

Runs the machine's steps, has what they write appended (`Writes`), and goes on with the machine when that is
committed, strictly in log order. What is much is done in pieces, with other work in between (`Slices`).
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Coroutine, Iterator, Sequence
from functools import partial
from itertools import islice
from typing import Any, Final, Generic, TypeVar, cast

from ottla.coordinators.runtime.log_replay import LogReplay
from ottla.coordinators.runtime.machine import Machine, Settings
from ottla.coordinators.runtime.step import NEVER_MS, Pieces, Reply, Step, Write
from ottla.coordinators.runtime.writes import CoordinatorLog, Writes, time_out
from ottla.env.clock import Clock, Timer
from ottla.env.deadlines import Deadlines
from ottla.env.deferred import Deferred
from ottla.env.slices import Slices
from ottla.errors import ErrorCode, KafkaError
from ottla.types import TxnMarker
from ottla.wire.records import BatchBuilder, iter_batches

log = logging.getLogger(__name__)

T = TypeVar("T")
M = TypeVar("M", bound=Machine)

# While a partition is loaded, other work gets its turn this often.
LOAD_SLICE_MS: Final = 5
# Answers that are handed out in one turn, and for how long: each of them may have its client's next request
# handled.
REPLIES_PER_TURN: Final = 100
REPLIES_MS: Final = 5
# While this many writes are on their way, nothing more is done piece by piece.
WORK_WRITES_MAX: Final = 100

_NONE: Final = ErrorCode.none


class Shard(Generic[M]):
    """See the module's docstring. All methods run on the event loop."""

    def __init__(
        self,
        partition: int,
        epoch: int,
        machine: M,
        coordinator_log: CoordinatorLog,
        clock: Clock,
        deadlines: Deadlines,
        slices: Slices,
        settings: Settings,
        act: Callable[[Shard[M], Any], None] | None = None,
    ) -> None:
        """``act`` carries out an effect that the machine has put into a step."""
        self.partition = partition
        self.epoch = epoch
        self.is_active = False
        self.is_closed = False
        # How long it took to be loaded.
        self.loaded_ms = 0
        self.machine = machine
        self._log = coordinator_log
        self._clock = clock
        self._slices = slices
        self._settings = settings
        self._act = act
        self._deadlines = deadlines
        self._writes = Writes(
            partition, coordinator_log, clock, deadlines, slices, settings, machine, self._tell
        )
        # Answers that are still to be given, and whether some are in this turn of the loop or the next.
        self._replies: deque[Iterator[Reply]] = deque()
        self._is_answering = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_working = False
        self._timer: Timer | None = None
        self._timer_ms = NEVER_MS
        self._slice_start_ms = 0

    # -- steps

    def step(self) -> Any:
        """A step of the machine's own."""
        return self.machine.step(self._clock.monotonic_ms(), self._clock.now_ms())

    def finish(
        self, step: Step, packed: BatchBuilder | None = None, waiter: Deferred[Any] | None = None
    ) -> None:
        """Carry out what a step of the machine asked for. ``packed`` are the records of its one write, and
        ``waiter`` is told if that takes too long."""
        if not self.is_closed:
            # First of all: whoever is answered may ask for the next thing at once, which comes behind it.
            for write in step.writes:
                self._submit(write, step, packed, waiter)
        # Where it is closed, whatever the machine might still write is for the new leader to decide.
        if step.replies or step.later:
            self._answer_all(step)
        if not self.is_closed:
            if step.effects and self._act is not None:
                for effect in step.effects:
                    self._act(self, effect)
            self.arm()
            if self.machine.has_work:
                self.work()

    def _submit(
        self, write: Write, step: Step, packed: BatchBuilder | None, waiter: Deferred[Any] | None
    ) -> None:
        if self._writes.submit(write, step, packed, waiter):
            self.machine.submitted(write)
            return
        failed = self.step()
        write.failed(ErrorCode.unknown_server_error, failed)
        self.finish(failed)

    def _answer_all(self, step: Step) -> None:
        """Give the answers of a step: now, or in the loop's next turns where that takes a while."""
        replies = step.replies
        count = len(replies)
        if count > REPLIES_PER_TURN or step.later or self._replies:
            self._answer_later(iter(replies), *step.later)
            return
        ends_ms = self._clock.monotonic_ms() + REPLIES_MS if count > 1 else 0
        for place, reply in enumerate(replies, 1):
            _answer(reply)
            if place < count and self._clock.monotonic_ms() >= ends_ms:
                self._answer_later(iter(replies[place:]))
                return

    def _answer_later(self, *replies: Iterator[Reply]) -> None:
        self._replies += replies
        if self._replies and not self._is_answering:
            self._is_answering = True
            asyncio.get_running_loop().call_soon(self._answer_more)

    def _answer_more(self) -> None:
        left = REPLIES_PER_TURN
        ends_ms = self._clock.monotonic_ms() + REPLIES_MS
        try:
            while self._replies and left > 0:
                replies = self._replies.popleft()
                for reply in islice(replies, left):
                    left -= 1
                    _answer(reply)
                    if self._clock.monotonic_ms() >= ends_ms:
                        left = 0
                        break
                if not left:
                    self._replies.appendleft(replies)
        finally:
            # Whatever has happened: without another turn nobody of this shard would be answered any more.
            self._is_answering = False
            self._answer_later()

    def arm(self) -> None:
        """See that the machine is woken when the first of its deadlines comes."""
        wake_ms = self.machine.wake_ms
        if wake_ms >= self._timer_ms or not self.is_active:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer_ms = wake_ms
        delay_ms = max(self._timer_ms - self._clock.monotonic_ms(), 0)
        self._timer = self._clock.call_later(delay_ms, self._wake)

    def _wake(self) -> None:
        self._timer = None
        self._timer_ms = NEVER_MS
        step = self.step()
        try:
            self.machine.expire(step)
            self.finish(step)
        finally:
            # Whatever has happened: without a timer no member would ever be missed again.
            self.arm()

    # -- work in pieces

    def work(self) -> None:
        """Have the machine's work done that comes piece by piece, if there is any."""
        if not self._is_working and self.is_active and self.machine.has_work and self._has_room:
            self._is_working = True
            self._spawn(self._work_pieces())

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    @property
    def _has_room(self) -> bool:
        return self.machine.in_flight_count < WORK_WRITES_MAX

    async def _work_pieces(self) -> None:
        """Do what there is, as long as the log keeps up."""
        try:
            while self.is_active and self.machine.has_work and self._has_room:
                step = self.step()
                self.machine.work(step)
                self.finish(step)
                await self._slices.pause()
        finally:
            self._is_working = False

    # -- writes

    async def pack(self, records: Sequence[Any]) -> BatchBuilder:
        """Many records of one write, packed piece by piece. KafkaError where they cannot be stored."""
        return await self._writes.pack(records)

    def end_transaction(self, marker: TxnMarker) -> Deferred[None]:
        """Write the end of a producer's transaction, and let it count once it is committed.

        The answer comes when what the transaction wrote can be seen, or is gone. KafkaError as the append's;
        COORDINATOR_NOT_AVAILABLE if it takes longer than a client waits. (CoordinatorRuntime's
        CoordinatorCompleteTransactionEvent.)
        """
        answer: Deferred[None] = Deferred()

        def committed(step: Step) -> None:
            step.reply(answer, None)

        def failed(code: ErrorCode, step: Step) -> None:
            step.reply(answer, KafkaError(code))

        write = Write((), committed, failed)
        self._writes.submit_marker(marker, write, answer)
        self.machine.submitted(write)
        return answer

    def _tell(self, writes: Sequence[Write], error: ErrorCode) -> None:
        """Each write by itself: what follows from one must not keep the others from the machine."""
        step = self.step()
        for write in writes:
            try:
                if error is _NONE:
                    self.machine.committed(write, step)
                else:
                    self.machine.failed(write, error, step)
            except Exception:
                log.exception("partition %d: what follows from a write failed", self.partition)
        self.finish(step)

    # -- fail-over

    async def load(self) -> None:
        """Rebuild the machine from the log, then serve. KafkaError where the log cannot be read."""
        start_ms = self._slice_start_ms = self._clock.monotonic_ms()
        replay = LogReplay(self.machine, self.partition)
        async for data in self._log.read_all(self.partition):
            for header, batch in iter_batches(data):
                for _ in replay.add(header, batch):
                    await self._pause()
                await self._pause()
            if self.is_closed:
                return
        for _ in replay.apply():
            await self._pause()
        replay.report()
        pieces = self.machine.loading()
        next(pieces)
        while self._do_piece(pieces):
            await self._pause()
        if self.is_closed:
            return
        self.is_active = True
        self.arm()
        self.loaded_ms = self._clock.monotonic_ms() - start_ms

    async def _pause(self) -> None:
        """Let other work have its turn when it is time."""
        if self._clock.monotonic_ms() - self._slice_start_ms >= LOAD_SLICE_MS:
            await self._slices.pause()
            self._slice_start_ms = self._clock.monotonic_ms()

    def _do_piece(self, pieces: Pieces) -> bool:
        """Do a piece of a fail-over; whether there are more."""
        step = self.step()
        try:
            pieces.send(step)
        except StopIteration:
            return False
        finally:
            self.finish(step)
        return True

    def close(self) -> None:
        """This node no longer leads the partition."""
        self.is_active = False
        self.is_closed = True
        self._writes.close()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        pieces = self.machine.unloading()
        next(pieces)
        if self._do_piece(pieces):
            self._spawn(self._unload_rest(pieces))

    async def _unload_rest(self, pieces: Pieces) -> None:
        await self._slices.pause()
        while self._do_piece(pieces):
            await self._slices.pause()

    # -- waiting

    async def within(self, answer: Deferred[T]) -> T:
        """The answer; KafkaError COORDINATOR_NOT_AVAILABLE if it takes longer."""
        deadline = self._deadlines.add(self._settings.write_timeout_ms, partial(time_out, answer))
        try:
            return await answer
        finally:
            deadline.cancel()


def _answer(reply: Reply) -> None:
    given, response = reply
    waiter = cast("Deferred[Any]", given)
    try:
        # Nothing happens where the client has gone, or was told that it takes too long.
        if isinstance(response, KafkaError):
            waiter.fail(response)
        else:
            waiter.resolve(response)
    except Exception:
        # It belongs to one client; the others must hear of theirs.
        log.exception("an answer could not be given")
