"""What a shard writes: gathered into batches, appended, and told of strictly in log order.

Writes of one turn of the event loop go into one batch: it is appended behind all that has come by then, which
is what Kafka does by default (group.coordinator.append.linger.ms = -1). Batches are appended without waiting
for those before them. Nothing here is a task, but for what takes long to be packed.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from functools import partial
from typing import Any, Final, Protocol

from ottla.coordinators.runtime.machine import Machine, SchemaError, Settings
from ottla.coordinators.runtime.pieces import PIECE
from ottla.coordinators.runtime.step import Producer, Step, Write
from ottla.env.clock import Clock
from ottla.env.deadlines import Deadline, Deadlines
from ottla.env.deferred import Deferred
from ottla.env.slices import Slices
from ottla.errors import ErrorCode, KafkaError
from ottla.types import TxnMarker
from ottla.wire.records import BatchBuilder

log = logging.getLogger(__name__)

# Writes are gathered into one batch up to this size, if the topic's max.message.bytes allows as much.
# A single write is never split: it is in the log as a whole or not at all.
BATCH_BYTES_MAX: Final = 512 * 1024
# What a record's lengths and deltas take besides key and value, roughly and at most.
RECORD_OVERHEAD_BYTES: Final = 24
# Records of committed writes that the machine takes up in one turn.
COMMITTED_PER_TURN: Final = 2_000
# Who are told in one turn that a write takes too long.
EXPIRED_AT_ONCE_MAX: Final = 100

_NONE: Final = ErrorCode.none
# Found faster than a module's attributes, at each write.
_running_loop: Final = asyncio.get_running_loop

Ended = Callable[[KafkaError | None], None]


class CoordinatorLog(Protocol):
    """The partitions of an internal topic, as the replication layer offers them."""

    @property
    def partition_count(self) -> int:
        """0 while the topic does not exist."""
        ...

    def batch_bytes_max(self, partition: int) -> int:
        """The largest batch that can be appended. KafkaError where this node does not lead the partition."""
        ...

    def append(self, partition: int, batch: bytes, ended: Ended, guard: object | None = None) -> bool:
        """Append a batch; whether it is committed by now. If not, ``ended`` is called once it is.

        ``guard`` goes with the first batch of a transaction: see ``Producer.guard``.

        KafkaError, raised or given to ``ended``: the batch is not and never will be in the log as long as
        this node leads the partition. A batch that was written but is slow to be replicated is waited for,
        and fails only when leadership is lost (NOT_LEADER_OR_FOLLOWER).
        """
        ...

    def append_marker(self, partition: int, marker: TxnMarker, ended: Ended) -> bool:
        """As ``append``, of the end of a transaction."""
        ...

    def read_all(self, partition: int) -> AsyncIterator[bytes]:
        """The log from its start to the high watermark, in whole batches (one or more at a time)."""
        ...


class Batch:
    """Writes that go into the log together."""

    __slots__ = (
        "builder",
        "deadline",
        "ending",
        "error",
        "has_outcome",
        "marker",
        "producer",
        "refusal",
        "unpacked",
        "waiters",
        "writes",
    )

    def __init__(
        self, builder: BatchBuilder, producer: Producer | None = None, marker: TxnMarker | None = None
    ) -> None:
        self.builder = builder
        # In whose transaction its writes are; and the end of one, which is a batch without any records.
        self.producer = producer
        self.marker = marker
        # What the machine still has to do at that end.
        self.ending: Iterator[None] | None = None
        # Records of its one write that are still to be packed, since they are much; why they cannot be.
        self.unpacked: tuple[Any, ...] = ()
        self.refusal: KafkaError | None = None
        self.writes: list[Write] = []
        # Who is told so if it takes too long until its outcome is told, and when that is.
        self.waiters: list[Deferred[Any]] = []
        self.deadline: Deadline | None = None
        self.has_outcome = False
        self.error = _NONE


def time_out(waiter: Deferred[Any]) -> None:
    """Tell who waits for a write that it takes too long. The write may still come to be."""
    why = "the write takes longer than a client waits for it"
    waiter.fail(KafkaError(ErrorCode.coordinator_not_available, why))


class Writes:
    """Those of one shard. ``tell`` is told what has become of a batch's writes, the oldest batch first."""

    __slots__ = (
        "_appending",
        "_clock",
        "_deadlines",
        "_gathered",
        "_has_more",
        "_log",
        "_machine",
        "_partition",
        "_settings",
        "_slices",
        "_taken_up",
        "_tasks",
        "_tell",
        "is_closed",
    )

    def __init__(
        self,
        partition: int,
        coordinator_log: CoordinatorLog,
        clock: Clock,
        deadlines: Deadlines,
        slices: Slices,
        settings: Settings,
        machine: Machine,
        tell: Callable[[Sequence[Write], ErrorCode], None],
    ) -> None:
        self._partition = partition
        self._log = coordinator_log
        self._clock = clock
        self._deadlines = deadlines
        self._slices = slices
        self._settings = settings
        self._machine = machine
        self._tell = tell
        # Batches that are to be appended, the last of which may still grow; and those that are on their way.
        self._gathered: deque[Batch] = deque()
        self._appending: deque[Batch] = deque()
        # Whether the machine is to hear of more that is committed in the loop's next turn.
        self._has_more = False
        # Records since the machine had to wait for a turn.
        self._taken_up = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self.is_closed = False

    def close(self) -> None:
        """This node no longer leads the partition: append nothing more, and tell nobody."""
        self.is_closed = True
        for batch in (*self._gathered, *self._appending):
            if batch.deadline is not None:
                batch.deadline.cancel()

    # -- gathering

    async def pack(self, records: Sequence[Any]) -> BatchBuilder:
        """Many records of one write, packed piece by piece. KafkaError where they cannot be stored."""
        builder = BatchBuilder()
        timestamp_ms = self._clock.now_ms()
        for start in range(0, len(records), PIECE):
            try:
                for record in records[start : start + PIECE]:
                    builder.append(timestamp_ms, *self._machine.encode(record))
            except SchemaError as error:
                raise KafkaError(ErrorCode.unknown_server_error, str(error)) from error
            if not self._settings.compression:
                self._check_size(builder)
            await self._slices.pause()
        return builder

    def _check_size(self, builder: BatchBuilder) -> None:
        if builder.size > self._log.batch_bytes_max(self._partition):
            raise KafkaError(ErrorCode.message_too_large, "the records do not fit into one batch")

    def submit(
        self,
        write: Write,
        step: Step,
        packed: BatchBuilder | None = None,
        waiter: Deferred[Any] | None = None,
    ) -> bool:
        """Write it behind all that are on their way; False where its records cannot be stored.

        ``packed``: they are packed already. ``waiter`` is told if it takes longer than it may.
        """
        if packed is not None:
            batch = self._gather(Batch(packed, write.producer))
        elif self._has_large(write):
            batch = self._gather(Batch(BatchBuilder(), write.producer))
            batch.unpacked = write.records
        else:
            try:
                pairs = [self._machine.encode(record) for record in write.records]
            except SchemaError as error:
                log.warning("partition %d: a record cannot be stored: %s", self._partition, error)
                return False
            batch = self._room_for(pairs, write.producer)
            for key, value in pairs:
                batch.builder.append(step.wall_ms, key, value)
        self._add(write, batch, waiter)
        return True

    def submit_marker(self, marker: TxnMarker, write: Write, waiter: Deferred[Any]) -> None:
        """Write the end of a transaction behind all that are on their way; ``write`` has no records."""
        self._add(write, self._gather(Batch(BatchBuilder(), marker=marker)), waiter)

    def _add(self, write: Write, batch: Batch, waiter: Deferred[Any] | None) -> None:
        batch.writes.append(write)
        if waiter is not None:
            batch.waiters.append(waiter)
            if batch is not self._gathered[0]:
                # It is not appended in the next turn.
                self._limit(batch)

    def _has_large(self, write: Write) -> bool:
        machine = self._machine
        for record in write.records:  # noqa: SIM110 - compiled code works a generator off with a list
            if machine.is_large(record):
                return True
        return False

    def _room_for(self, pairs: Sequence[tuple[bytes, bytes | None]], producer: Producer | None) -> Batch:
        """The batch that these records go into: those of one transaction have batches of their own."""
        last = self._gathered[-1] if self._gathered else None
        if last is None or last.unpacked or last.marker is not None or last.producer != producer:
            return self._gather(Batch(BatchBuilder(), producer))
        size = sum([len(key) + len(value or b"") + RECORD_OVERHEAD_BYTES for key, value in pairs])
        if last.builder.size + size > self._gathered_bytes_max():
            return self._gather(Batch(BatchBuilder(), producer))
        return last

    def _gather(self, batch: Batch) -> Batch:
        """Have a batch appended behind all others."""
        if not self._gathered:
            _running_loop().call_soon(self._flush)
        self._gathered.append(batch)
        return batch

    def _gathered_bytes_max(self) -> int:
        try:
            return min(BATCH_BYTES_MAX, self._log.batch_bytes_max(self._partition))
        except KafkaError:
            # The append will say so, to each who waits.
            return BATCH_BYTES_MAX

    def _limit(self, batch: Batch) -> None:
        """See that those who wait for a batch do not wait too long."""
        if batch.deadline is None:
            timeout_ms = self._settings.write_timeout_ms
            batch.deadline = self._deadlines.add(timeout_ms, partial(self._expire, batch))

    def _expire(self, batch: Batch) -> None:
        """Whatever becomes of it, nobody waits for it any longer: each of them has an answer written."""
        waiters, batch.waiters = batch.waiters[:EXPIRED_AT_ONCE_MAX], batch.waiters[EXPIRED_AT_ONCE_MAX:]
        if batch.waiters:
            batch.deadline = self._deadlines.add(0, partial(self._expire, batch))
        for waiter in waiters:
            try:
                time_out(waiter)
            except Exception:
                # It belongs to one client; the others must hear of theirs.
                log.exception("partition %d: an answer could not be given", self._partition)

    # -- appending

    def _flush(self) -> None:
        """Append the first of the batches that were gathered, and in the loop's next turns the others."""
        if self.is_closed:
            # What this node may lead by now is another leader epoch, whose shard reads the log without them.
            return
        if self._gathered[0].unpacked:
            self._spawn(self._pack_first())
            return
        batch = self._gathered.popleft()
        self._appending.append(batch)
        if self._gathered:
            _running_loop().call_soon(self._flush)
        self._append(batch)

    async def _pack_first(self) -> None:
        """Pack the first of the batches that were gathered, and go on with it: those behind it wait."""
        batch = self._gathered[0]
        timestamp_ms = self._clock.now_ms()
        try:
            for record in batch.unpacked:
                key, value = await self._slices.run(self._machine.encoding(record))
                batch.builder.append(timestamp_ms, key, value)
        except SchemaError as error:
            batch.refusal = KafkaError(ErrorCode.unknown_server_error, str(error))
        finally:
            # Whatever has happened: what is not packed is not appended, and says so then.
            batch.unpacked = ()
            self._flush()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = _running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _append(self, batch: Batch) -> None:
        try:
            if batch.refusal is not None:
                raise batch.refusal
            is_committed = self._append_now(batch)
        except KafkaError as error:
            self._ended(batch, error)
        except Exception:
            log.exception("partition %d: append failed", self._partition)
            self._ended(batch, KafkaError(ErrorCode.unknown_server_error))
        else:
            if is_committed:
                self._ended(batch, None)
        if batch.waiters:
            # They have not been told: it is not committed yet, or one before it is not.
            self._limit(batch)

    def _append_now(self, batch: Batch) -> bool:
        """As ``CoordinatorLog.append``."""
        ended = partial(self._ended, batch)
        if batch.marker is not None:
            return self._log.append_marker(self._partition, batch.marker, ended)
        compression, producer = self._settings.compression, batch.producer
        if producer is None:
            return self._log.append(self._partition, batch.builder.seal(compression=compression), ended)
        data = batch.builder.seal(
            compression=compression,
            producer_id=producer.producer_id,
            producer_epoch=producer.epoch,
            # Batches of coordinators are not numbered: the log does not look.
            base_sequence=0,
            transactional=True,
        )
        return self._log.append(self._partition, data, ended, producer.guard)

    def _ended(self, batch: Batch, error: KafkaError | None) -> None:
        if error is not None:
            log.warning("partition %d: append failed: %s", self._partition, error)
            batch.error = ErrorCode(error.code)
        batch.has_outcome = True
        if not self._has_more:
            self._take_up()

    def _take_up(self) -> None:
        """Tell what is committed or failed, as far as everything before it is, too."""
        appending = self._appending
        while appending and appending[0].has_outcome and not self.is_closed:
            if self._taken_up >= COMMITTED_PER_TURN or not self._is_ended(appending[0]):
                self._has_more = True
                _running_loop().call_soon(self._take_up_more)
                return
            batch = appending.popleft()
            batch.waiters = []
            if batch.deadline is not None:
                batch.deadline.cancel()
            self._taken_up += batch.builder.count
            self._tell(batch.writes, batch.error)

    def _is_ended(self, batch: Batch) -> bool:
        """Have the machine do a piece of what the end of a transaction asks for; whether that was all."""
        marker = batch.marker
        if marker is None or batch.error is not ErrorCode.none:
            return True
        if batch.ending is None:
            batch.ending = self._machine.end_transaction(marker.producer_id, committed=marker.commits)
        return next(batch.ending, self) is self

    def _take_up_more(self) -> None:
        self._has_more = False
        self._taken_up = 0
        self._take_up()
