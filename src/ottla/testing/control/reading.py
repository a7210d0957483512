"""Records for the control port, in pieces of bounded size; what takes long is done in a thread."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from functools import partial
from typing import NamedTuple

from ottla.errors import ErrorCode, KafkaError
from ottla.log.lookups import look_up_warm
from ottla.log.markers import read_marker
from ottla.log.segments import Slice
from ottla.node import Node
from ottla.replication.internal_topic_reading import whole_batches
from ottla.replication.partition import Partition
from ottla.testing.control.values import Document, as_json, from_bytes
from ottla.types import Buffer, Record, TopicPartition
from ottla.wire.records import BatchHeader, iter_batches, iter_records

PIECE_BYTES = 1024 * 1024
# Partitions that are looked at before others have their turn.
LOOKED_AT_ONCE = 50
# While a topic is waited for that does not exist yet; and for partitions that a topic gets.
LOOK_AGAIN_S = 0.1


class Piece(NamedTuple):
    """Batches that lie behind one another, and the aborted transactions that some may be of: (producer id,
    first offset)."""

    data: bytes
    aborted: list[tuple[int, int]]
    next_offset: int


async def opened(node: Node, topic: str, index: int) -> Partition:
    """A partition that this node leads, and which is open. KafkaError as a Fetch."""
    replicas = node.services.replicas
    if replicas.unopened:
        await replicas.open([(topic, index)])
    elif index % LOOKED_AT_ONCE == LOOKED_AT_ONCE - 1:
        await asyncio.sleep(0)
    replica = replicas.get(topic, index)
    replica.check_leader()
    return replica


async def read_piece(node: Node, replica: Partition, offset: int, committed: bool) -> Piece | None:
    """What a consumer may see from an offset on; None where there is no more. KafkaError as a Fetch."""
    disk = node.services.disk
    aborted: list[tuple[int, int]] = []
    if committed:
        look_up = partial(replica.read_committed, offset, PIECE_BYTES, min_one=True)
        piece, found = await look_up_warm(disk, look_up)
        aborted = sorted(found, key=lambda one: one[1])
    else:
        piece = await look_up_warm(disk, partial(replica.read, offset, PIECE_BYTES, min_one=True))
    if piece is None:
        return None
    try:
        whole, next_offset = await disk.run(partial(_read, piece))
    except OSError as error:
        raise KafkaError(ErrorCode.kafka_storage_error, f"the log cannot be read: {error}") from error
    if next_offset <= offset:
        raise KafkaError(ErrorCode.corrupt_message, f"no whole batch is found at offset {offset}")
    return Piece(whole, aborted, next_offset)


def _read(piece: Slice) -> tuple[bytes, int]:
    return whole_batches(piece.file.read(piece.position, piece.size))


def visible(piece: Piece) -> Iterator[tuple[BatchHeader, Buffer]]:
    """Batches that a consumer shows: no markers, and nothing of an aborted transaction."""
    waiting = list(reversed(piece.aborted))
    aborting: set[int] = set()
    for header, batch in iter_batches(piece.data):
        while waiting and waiting[-1][1] < header.next_offset:
            aborting.add(waiting.pop()[0])
        if header.is_control:
            marker = read_marker(batch)
            if marker is not None and not marker.commits:
                aborting.discard(header.producer_id)
        elif not (header.is_transactional and header.producer_id in aborting):
            yield header, batch


# ------------------------------------------------------------ pages of records


class Start(NamedTuple):
    """Where a page begins."""

    partition: int
    offset: int


class Page:
    """Records as JSON, until there are enough. ``next``: where the next page begins, where it is full."""

    def __init__(self, limit: int, bytes_max: int) -> None:
        self.written: list[str] = []
        self.next: Start | None = None
        self._limit = limit
        self._bytes_left = bytes_max

    def fill(self, partition: int, piece: Piece, offset: int) -> None:
        """Take the records of a piece from an offset on. It may hold a thread for as long as it takes to
        unpack them."""
        for _, batch in visible(piece):
            for record in iter_records(batch):
                if record.offset < offset:
                    continue
                if len(self.written) >= self._limit or not self._take(partition, record):
                    self.next = Start(partition, record.offset)
                    return

    def _take(self, partition: int, record: Record) -> bool:
        whole = as_json(_shown(partition, record))
        if len(whole) > self._bytes_left:
            if self.written:
                return False
            # The first one is there in any case, so that whoever goes on comes to an end.
            sizes = {"key": _size(record.key), "value": _size(record.value)}
            small = {"partition": partition, "offset": record.offset, "timestamp_ms": record.timestamp_ms}
            whole = as_json(small | {"too_large": sizes})
        self.written.append(whole)
        self._bytes_left -= len(whole)
        return True


def _shown(partition: int, record: Record) -> Document:
    return {
        "partition": partition,
        "offset": record.offset,
        "timestamp_ms": record.timestamp_ms,
        "key": from_bytes(record.key),
        "value": from_bytes(record.value),
        "headers": [{"name": name, "value": from_bytes(value)} for name, value in record.headers],
    }


def _size(data: bytes | None) -> int:
    return 0 if data is None else len(data)


async def read_page(
    node: Node, topic: str, partitions: Iterable[int], start: Start | None, page: Page, committed: bool
) -> None:
    """Fill a page with the records of partitions of a topic, by partition and offset."""
    for index in partitions:
        if start is not None and index < start.partition:
            continue
        replica = await opened(node, topic, index)
        offset = replica.log.log_start_offset
        if start is not None and index == start.partition:
            offset = max(offset, start.offset)
        if start is not None and offset > replica.high_watermark:
            continue
        while (piece := await read_piece(node, replica, offset, committed)) is not None:
            await node.services.disk.run(partial(page.fill, index, piece, offset))
            if page.next is not None:
                return
            offset = piece.next_offset


# ------------------------------------------------------------ waiting for records


class Counted:
    """How many records of a topic consumers may see, counted once each as they come."""

    def __init__(self, node: Node, topic: str, partition: int | None, committed: bool) -> None:
        self.count = 0
        self._node = node
        self._topic = topic
        self._partition = partition
        self._committed = committed
        # Up to where each partition is counted.
        self._offsets: dict[int, int] = {}
        self._more = asyncio.Event()

    @property
    def _partitions(self) -> list[int]:
        topic = self._node.services.metadata.image.topics.get(self._topic)
        count = 0 if topic is None else len(topic.partitions)
        return [index for index in range(count) if self._partition in (None, index)]

    async def reach(self, count: int) -> None:
        """Return once there are so many; a topic that does not exist yet is waited for, too."""
        while True:
            self._more.clear()
            listened = [await opened(self._node, self._topic, index) for index in self._partitions]
            for replica in listened:
                replica.add_waiter(self._more.set)
            try:
                await self._count(count)
                if self.count >= count:
                    return
                async with asyncio.timeout(LOOK_AGAIN_S):
                    await self._more.wait()
            except TimeoutError:
                # The topic may have been created meanwhile, or have got partitions.
                continue
            finally:
                for replica in listened:
                    replica.remove_waiter(self._more.set)

    async def _count(self, enough: int) -> None:
        for index in self._partitions:
            replica = await opened(self._node, self._topic, index)
            offset = max(self._offsets.get(index, 0), replica.log.log_start_offset)
            while (piece := await read_piece(self._node, replica, offset, self._committed)) is not None:
                self.count += await self._node.services.disk.run(partial(_count_in, piece))
                offset = self._offsets[index] = piece.next_offset
                if self.count >= enough:
                    return


def _count_in(piece: Piece) -> int:
    return sum(header.record_count for header, _ in visible(piece))


async def has_more(node: Node, where: TopicPartition, offset: int) -> bool:
    """Whether a consumer that reads committed records has any left from an offset on; -1 is before all.
    KafkaError as a Fetch."""
    replica = await opened(node, where.topic, where.partition)
    offset = max(offset, replica.log.log_start_offset)
    while offset < replica.high_watermark:
        piece = await read_piece(node, replica, offset, True)
        if piece is None:
            return False
        if await node.services.disk.run(partial(_any_from, piece, offset)):
            return True
        offset = piece.next_offset
    return False


def _any_from(piece: Piece, offset: int) -> bool:
    """Whether there is a record; the first batch may begin before the offset."""
    return any(record.offset >= offset for _, batch in visible(piece) for record in iter_records(batch))
