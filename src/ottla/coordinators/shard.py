"""The shell around one `GroupMachine`: a partition of `__consumer_offsets` that this node leads.

Runs the machine's steps, appends the records that they ask for, and goes on with the machine when they are
committed. Writes of one turn of the event loop go into one batch; batches are appended without waiting for
those before them, and settled strictly in log order.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import Any, Protocol, cast

from ottla.coordinators.group_machine import GroupMachine
from ottla.coordinators.log_replay import LogReplay
from ottla.coordinators.schemas import SchemaError, encode_record
from ottla.coordinators.settings import GroupConfig
from ottla.coordinators.step import NEVER_MS, Step, Write
from ottla.env.clock import Clock, Timer
from ottla.errors import ErrorCode, KafkaError
from ottla.types import Record
from ottla.wire.records import HEADER_BYTES, build_batch, iter_batches

log = logging.getLogger(__name__)

# Writes are gathered into one batch up to this size, if the topic's max.message.bytes allows as much.
# A single write is never split: it is in the log as a whole or not at all.
BATCH_BYTES_MAX = 512 * 1024
# What a record's lengths and deltas take besides key and value, roughly and at most.
RECORD_OVERHEAD_BYTES = 24
# While a partition is loaded, other work gets its turn this often.
LOAD_SLICE_MS = 10
# Records that are replayed before the time is looked at.
LOAD_RECORDS = 500


class CoordinatorLog(Protocol):
    """The partitions of `__consumer_offsets`, as the replication layer offers them."""

    @property
    def partition_count(self) -> int:
        """0 while the topic does not exist."""
        ...

    def batch_bytes_max(self, partition: int) -> int:
        """The largest batch that can be appended. KafkaError where this node does not lead the partition."""
        ...

    def append(self, partition: int, batch: bytes) -> Awaitable[int]:
        """Append a batch; resolves to its last offset once it is committed.

        What is awaited must write to the local log before it first suspends, so that batches get into the
        log in the order of the calls. KafkaError means that the batch is not and never will be in the log
        as long as this node leads the partition: a batch that was written but is slow to be replicated is
        waited for, and fails only when leadership is lost (NOT_LEADER_OR_FOLLOWER).
        """
        ...

    def read_all(self, partition: int) -> AsyncIterator[bytes]:
        """The log from its start to the high watermark, in whole batches (one or more at a time)."""
        ...


class Batch:
    """Writes that were appended together."""

    __slots__ = ("error", "settled", "writes")

    def __init__(self, writes: list[Write]) -> None:
        self.writes = writes
        self.settled = False
        self.error = ErrorCode.unknown_server_error


class Shard:
    """See the module's docstring. All methods run on the event loop."""

    def __init__(
        self, partition: int, epoch: int, coordinator_log: CoordinatorLog, clock: Clock, config: GroupConfig
    ) -> None:
        self.partition = partition
        self.epoch = epoch
        self.is_active = False
        self.is_closed = False
        self.machine = GroupMachine()
        self._log = coordinator_log
        self._clock = clock
        self._config = config
        self._queued: list[tuple[Write, list[Record], int]] = []
        self._appending: deque[Batch] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self._timer: Timer | None = None
        self._timer_ms = NEVER_MS

    # -- steps

    def step(self) -> Step:
        return Step(self._clock.monotonic_ms(), self._clock.now_ms(), self._config)

    def finish(self, step: Step) -> None:
        """Carry out what a step of the machine asked for."""
        for waiter, response in step.replies:
            future = cast("asyncio.Future[Any]", waiter)
            if future.done():
                # The client has gone, or was told that it takes too long.
                continue
            if isinstance(response, KafkaError):
                future.set_exception(response)
            else:
                future.set_result(response)
        for write in step.writes:
            self._submit(write)
        self.arm()

    def arm(self) -> None:
        """See that the machine is woken when the first of its deadlines comes."""
        wakes = self.machine.wakes
        if not wakes or wakes[0].deadline_ms >= self._timer_ms:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer_ms = wakes[0].deadline_ms
        delay_ms = max(self._timer_ms - self._clock.monotonic_ms(), 0)
        self._timer = self._clock.call_later(delay_ms, self._wake)

    def _wake(self) -> None:
        self._timer = None
        self._timer_ms = NEVER_MS
        step = self.step()
        self.machine.expire(step)
        self.finish(step)

    def expire_offsets(self) -> None:
        """Remove what has been kept for long enough."""
        if self.is_active:
            step = self.step()
            self.machine.expire_offsets(step)
            self.finish(step)

    # -- appends

    def _submit(self, write: Write) -> None:
        timestamp_ms = self._clock.now_ms()
        try:
            pairs = [encode_record(record) for record in write.records]
        except SchemaError as error:
            log.warning("partition %d: a record cannot be stored: %s", self.partition, error)
            step = self.step()
            write.failed(ErrorCode.unknown_server_error, step)
            self.finish(step)
            return
        records = [Record(0, timestamp_ms, key, value) for key, value in pairs]
        size = sum(len(key) + len(value or b"") + RECORD_OVERHEAD_BYTES for key, value in pairs)
        self.machine.in_flight.append(write)
        if not self._queued:
            asyncio.get_running_loop().call_soon(self._flush)
        self._queued.append((write, records, size))

    def _flush(self) -> None:
        if self.is_closed:
            return
        queued, self._queued = self._queued, []
        writes: list[Write] = []
        records: list[Record] = []
        batch_size = 0
        size_max = self._gathered_bytes_max()
        for write, write_records, size in queued:
            if writes and batch_size + size > size_max:
                self._start_append(writes, records)
                writes, records, batch_size = [], [], 0
            writes.append(write)
            records += write_records
            batch_size += size
        self._start_append(writes, records)

    def _gathered_bytes_max(self) -> int:
        try:
            return min(BATCH_BYTES_MAX, self._log.batch_bytes_max(self.partition) - HEADER_BYTES)
        except KafkaError:
            # The append will say so, to each who waits.
            return BATCH_BYTES_MAX

    def _start_append(self, writes: list[Write], records: list[Record]) -> None:
        data = build_batch(records, compression=self._config.offsets_topic_compression_codec)
        batch = Batch(writes)
        self._appending.append(batch)
        # Tasks start in the order in which they are made, and so the batches get into the log.
        task = asyncio.get_running_loop().create_task(self._append(batch, data))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _append(self, batch: Batch, data: bytes) -> None:
        if self.is_closed:
            # What this node may lead by now is another leader epoch, whose shard reads the log without it.
            return
        try:
            await self._log.append(self.partition, data)
            batch.error = ErrorCode.none
        except KafkaError as error:
            log.warning("partition %d: append failed: %s", self.partition, error)
            batch.error = error.code
        finally:
            batch.settled = True
            self._settle()

    def _settle(self) -> None:
        """Go on with what is committed or failed, as far as everything before it is, too."""
        while self._appending and self._appending[0].settled and not self.is_closed:
            batch = self._appending.popleft()
            for write in batch.writes:
                step = self.step()
                if batch.error == ErrorCode.none:
                    self.machine.committed(write, step)
                else:
                    self.machine.failed(write, batch.error, step)
                self.finish(step)

    # -- fail-over

    async def load(self) -> None:
        """Rebuild the machine from the log, then serve. KafkaError where the log cannot be read."""
        start_ms = self._clock.monotonic_ms()
        replay = LogReplay(self.machine, self.partition)
        pause = self._pauses()
        async for data in self._log.read_all(self.partition):
            for header, batch in iter_batches(data):
                replay.add(header, batch)
                await pause()
            if self.is_closed:
                return
        while replay.apply(LOAD_RECORDS):
            await pause()
        if self.is_closed:
            return
        replay.report()
        step = self.step()
        self.machine.loaded(step)
        self.is_active = True
        self.finish(step)
        if self.machine.groups:
            log.info(
                "partition %d: loaded its groups (%d) in %d ms",
                self.partition,
                len(self.machine.groups),
                self._clock.monotonic_ms() - start_ms,
            )

    def _pauses(self) -> Callable[[], Awaitable[None]]:
        """A function that lets other work have its turn when it is time."""
        since_ms = self._clock.monotonic_ms()

        async def pause() -> None:
            nonlocal since_ms
            if self._clock.monotonic_ms() - since_ms >= LOAD_SLICE_MS:
                await asyncio.sleep(0)
                since_ms = self._clock.monotonic_ms()

        return pause

    def close(self) -> None:
        """This node no longer leads the partition."""
        self.is_active = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        step = self.step()
        self.machine.unload(step)
        self.is_closed = True
        # Whatever the machine might still write is for the new leader to decide.
        step.writes.clear()
        self.finish(step)

    # -- waiting

    def future(self) -> asyncio.Future[Any]:
        return asyncio.get_running_loop().create_future()

    async def within(self, timeout_ms: int, future: asyncio.Future[Any]) -> Any:
        """The result of ``future``; KafkaError COORDINATOR_NOT_AVAILABLE if it takes longer."""
        timer = self._clock.call_later(timeout_ms, partial(_time_out, future))
        try:
            return await future
        finally:
            timer.cancel()


def _time_out(future: asyncio.Future[Any]) -> None:
    if not future.done():
        future.set_exception(
            KafkaError(
                ErrorCode.coordinator_not_available, "the write takes longer than offsets.commit.timeout.ms"
            )
        )
