"""A partition on this node: its log, its role, its high watermark, and who waits for it to move."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from uuid import UUID

from ottla.env.disk import Disk
from ottla.errors import ErrorCode, KafkaError
from ottla.log.log import Appended, Log, Slice
from ottla.log.settings import Origin
from ottla.metadata.image import PartitionState
from ottla.types import Buffer, TopicPartition

Waiter = Callable[[], None]


class Partition:
    """A replica of a partition. All calls are made on the event loop; none of them blocks."""

    __slots__ = (
        "_disk",
        "_flush_next",
        "_flushing",
        "_waiters",
        "log",
        "node_id",
        "state",
        "topic_id",
        "topic_partition",
    )

    def __init__(
        self,
        topic_partition: TopicPartition,
        topic_id: UUID,
        state: PartitionState,
        log: Log,
        *,
        node_id: int,
        disk: Disk,
    ) -> None:
        self.topic_partition = topic_partition
        self.topic_id = topic_id
        self.state = state
        self.log = log
        self.node_id = node_id
        self._disk = disk
        self._waiters: set[Waiter] = set()
        # The task that flushes, while there is need, and the next flush, for those who came since the last.
        self._flushing: asyncio.Task[None] | None = None
        self._flush_next: asyncio.Future[None] | None = None

    @property
    def leader_epoch(self) -> int:
        return self.state.leader_epoch

    @property
    def high_watermark(self) -> int:
        """The first offset that consumers may not see yet. A sole replica's log is committed as it grows."""
        return self.log.log_end_offset

    @property
    def last_stable_offset(self) -> int:
        """The first offset that a read_committed consumer may not see yet; transactions come later."""
        return self.log.log_end_offset

    def check_leader(self, current_leader_epoch: int = -1) -> None:
        """Refuse unless this node leads, in the epoch that the client believes in (KIP-320; -1: any)."""
        if self.state.leader != self.node_id:
            raise KafkaError(ErrorCode.not_leader_or_follower)
        if current_leader_epoch < 0 or current_leader_epoch == self.state.leader_epoch:
            return
        if current_leader_epoch < self.state.leader_epoch:
            raise KafkaError(ErrorCode.fenced_leader_epoch)
        raise KafkaError(ErrorCode.unknown_leader_epoch)

    def append(
        self, records: Buffer, *, now_ms: int, acks: int = 1, origin: Origin = Origin.CLIENT
    ) -> Appended:
        """Append as the leader and wake who waits for data.

        Raises KafkaError as ``Log.append`` does, NOT_LEADER_OR_FOLLOWER, and NOT_ENOUGH_REPLICAS where
        ``acks`` is all (-1) and fewer replicas are in sync than min.insync.replicas.
        """
        state = self.state
        if state.leader != self.node_id:
            raise KafkaError(ErrorCode.not_leader_or_follower)
        log = self.log
        if acks == -1 and len(state.isr) < log.config.min_insync_replicas:
            raise KafkaError(
                ErrorCode.not_enough_replicas,
                f"{len(state.isr)} replicas are in sync and min.insync.replicas is "
                f"{log.config.min_insync_replicas}",
            )
        appended = log.append(records, leader_epoch=state.leader_epoch, now_ms=now_ms, origin=origin)
        if self._waiters:
            self.wake()
        return appended

    def read(self, offset: int, max_bytes: int, *, min_one: bool) -> Slice | None:
        """Where the visible records from ``offset`` lie; None where there are none yet.

        Raises KafkaError(OFFSET_OUT_OF_RANGE).
        """
        return self.log.read(offset, max_bytes, end_offset=self.high_watermark, min_one=min_one)

    def add_waiter(self, waiter: Waiter) -> None:
        """Call ``waiter`` whenever there may be more to read, or the partition went away."""
        self._waiters.add(waiter)

    def remove_waiter(self, waiter: Waiter) -> None:
        self._waiters.discard(waiter)

    def wake(self) -> None:
        for waiter in tuple(self._waiters):
            waiter()

    def epoch_end_offset(self, epoch: int) -> tuple[int, int]:
        """(epoch, end offset) of the largest epoch up to ``epoch``, (-1, -1) where it is not known.

        As in Kafka, this leader's own epoch begins where the log ends until its first record comes.
        """
        end = self.log.log_end_offset
        latest = self.log.latest_epoch
        if latest < epoch <= self.leader_epoch:
            return (latest if latest >= 0 and epoch < self.leader_epoch else epoch), end
        return self.log.epoch_end_offset(epoch)

    def flushed(self) -> asyncio.Future[None]:
        """A future of all that is appended by now being on the disk (group commit).

        One flush runs at a time; all who ask while it runs share the next one. Raises as ``Log.flush``.
        """
        if self._flush_next is None:
            self._flush_next = asyncio.get_running_loop().create_future()
            if self._flushing is None:
                self._flushing = asyncio.ensure_future(self._flush())
        return self._flush_next

    async def _flush(self) -> None:
        while (waiting := self._flush_next) is not None:
            self._flush_next = None
            error: Exception | None = None
            try:
                await self._disk.run(self.log.flush)
            except Exception as caught:  # noqa: BLE001 - whoever waits hears of it
                error = caught
            if waiting.done():
                continue
            if error is None:
                waiting.set_result(None)
            else:
                waiting.set_exception(error)
        self._flushing = None
