"""All of an internal topic's partition, for a coordinator that loads it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from functools import partial

from ottla.env.disk import Disk
from ottla.errors import ErrorCode, KafkaError
from ottla.log.lookups import look_up_warm
from ottla.replication.manager import ReplicaManager
from ottla.replication.partition import Partition
from ottla.wire.records import iter_batches

# How much is read at a time while a coordinator loads.
LOAD_BYTES = 1024 * 1024


async def read_all(replicas: ReplicaManager, disk: Disk, topic: str, partition: int) -> AsyncIterator[bytes]:
    """Everything committed, in pieces of whole batches, from the log's start. KafkaError as a Fetch.

    A new leader has all that was committed before, but does not know it at first: it waits until its
    high watermark has reached where its own epoch begins.
    """
    replica = replicas.get(topic, partition)
    replica.check_leader()
    assert replica.leading is not None
    if replica.high_watermark < replica.leading.epoch_start_offset:
        await _committed(replica, replica.leading.epoch_start_offset)
    offset = replica.log.log_start_offset
    while True:
        piece = await look_up_warm(disk, partial(replica.read, offset, LOAD_BYTES, min_one=True))
        if piece is None:
            return
        try:
            data = await disk.run(partial(piece.file.read, piece.position, piece.size))
        except OSError as error:
            raise KafkaError(ErrorCode.kafka_storage_error, f"the log cannot be read: {error}") from error
        whole, next_offset = whole_batches(data)
        if next_offset <= offset:
            raise KafkaError(ErrorCode.corrupt_message, f"no whole batch is found at offset {offset}")
        offset = next_offset
        yield whole


async def _committed(replica: Partition, offset: int) -> None:
    """Return once everything before ``offset`` is committed, by however few replicas."""
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def committed(error: KafkaError | None) -> None:
        if future.done():
            return
        if error is not None and error.code is not ErrorCode.not_enough_replicas_after_append:
            future.set_exception(error)
        else:
            future.set_result(None)

    replica.when_committed(offset, committed)
    try:
        await future
    finally:
        if not future.done() or future.cancelled():
            replica.forget_commit(committed)


def whole_batches(data: bytes) -> tuple[bytes, int]:
    """``data`` without a batch that was cut off at its end, and the offset behind the last whole one.

    -1 where there is no whole one. KafkaError CORRUPT_MESSAGE for a length that no batch can have.
    """
    position, offset = 0, -1
    for header, _ in iter_batches(data):
        position += header.size
        offset = header.next_offset
    return data[:position], offset
