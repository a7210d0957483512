"""An internal topic's partitions as the log of a coordinator: append, and read everything back at a load."""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import partial

from ottla.env.clock import Clock
from ottla.env.disk import Disk
from ottla.errors import ErrorCode, KafkaError
from ottla.log.lookups import settle
from ottla.log.settings import Origin
from ottla.replication.manager import ReplicaManager
from ottla.wire.records import iter_batches

# How much is read at a time while a coordinator loads.
LOAD_BYTES = 1024 * 1024


class InternalTopicLog:
    """What a coordinator needs of its topic (``coordinators.runtime.CoordinatorLog``)."""

    def __init__(self, topic: str, replicas: ReplicaManager, clock: Clock, disk: Disk) -> None:
        self._topic = topic
        self._replicas = replicas
        self._clock = clock
        self._disk = disk

    @property
    def partition_count(self) -> int:
        """How many partitions the topic has; 0 while there is no such topic."""
        return self._replicas.partition_count(self._topic)

    def batch_bytes_max(self, partition: int) -> int:
        """The topic's max.message.bytes. KafkaError where this node does not lead the partition."""
        return self._replicas.get(self._topic, partition).log.config.max_message_bytes

    async def append(self, partition: int, batch: bytes) -> int:
        """Append one batch with acks=all; its last offset once it is committed. KafkaError as a Produce."""
        replica = self._replicas.get(self._topic, partition)
        now_ms = self._clock.now_ms()
        appended = replica.append(batch, now_ms=now_ms, acks=-1, origin=Origin.COORDINATOR)
        if replica.log.sync_due(now_ms):
            await replica.flushed()
        return appended.last_offset

    async def read_all(self, partition: int) -> AsyncIterator[bytes]:
        """Everything committed, in pieces of whole batches, from the log's start. KafkaError as a Fetch."""
        replica = self._replicas.get(self._topic, partition)
        offset = replica.log.log_start_offset
        while True:
            piece = await settle(self._disk, partial(replica.read, offset, LOAD_BYTES, min_one=True))
            if piece is None:
                return
            try:
                data = await self._disk.run(partial(piece.file.read, piece.position, piece.size))
            except OSError as error:
                raise KafkaError(ErrorCode.kafka_storage_error, f"the log cannot be read: {error}") from error
            whole, next_offset = whole_batches(data)
            if next_offset <= offset:
                raise KafkaError(ErrorCode.corrupt_message, f"no whole batch is found at offset {offset}")
            offset = next_offset
            yield whole


def whole_batches(data: bytes) -> tuple[bytes, int]:
    """``data`` without a batch that was cut off at its end, and the offset behind the last whole one.

    -1 where there is no whole one. KafkaError CORRUPT_MESSAGE for a length that no batch can have.
    """
    position, offset = 0, -1
    for header, _ in iter_batches(data):
        position += header.size
        offset = header.next_offset
    return data[:position], offset
