"""A producer as Kafka's: batches for each partition in order, up to five under way, repeated until answered.

An idempotent one numbers its batches and repeats them as they were. When the broker will not have its numbers
any more it begins again under a new id: what was under way then is of unknown fate and not repeated.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass
from typing import Any

from ottla.errors import ErrorCode
from ottla.explore.campaign.client import NONE, Client, Connection, Disconnected
from ottla.explore.campaign.model import SEQUENCES
from ottla.explore.world.machine import EPOCH_MS
from ottla.types import Record, TopicPartition
from ottla.wire.records import build_batch

IN_FLIGHT_MAX = 5
QUEUED_MAX = 20
DELIVERY_TIMEOUT_MS = 2_000

RETRIABLE = frozenset(
    int(code)
    for code in (
        ErrorCode.not_leader_or_follower,
        ErrorCode.unknown_topic_or_partition,
        ErrorCode.leader_not_available,
        ErrorCode.fenced_leader_epoch,
        ErrorCode.not_enough_replicas,
        ErrorCode.not_enough_replicas_after_append,
        ErrorCode.request_timed_out,
        ErrorCode.kafka_storage_error,
        ErrorCode.coordinator_load_in_progress,
        ErrorCode.unknown_topic_id,
    )
)
OUT_OF_ORDER = int(ErrorCode.out_of_order_sequence_number)
DUPLICATE = int(ErrorCode.duplicate_sequence_number)
BEGIN_AGAIN = frozenset(
    int(code) for code in (ErrorCode.invalid_producer_epoch, ErrorCode.unknown_producer_id)
)


@dataclass(slots=True, eq=False)
class Batch:
    """Records that are sent together, and repeated together."""

    values: list[bytes]
    sequence: int
    data: bytes
    ordinal: int
    tries: int = 0


class Lane:
    """What a producer writes to one partition."""

    def __init__(self, producer: Producer, where: TopicPartition) -> None:
        self.where = where
        self.queue: deque[Batch] = deque()
        self.wake = asyncio.Event()
        self._producer = producer
        # The next record's number, which its value has, and its sequence number.
        self._number = 0
        self._sequence = 0
        self._batches = 0
        # Counts those beginnings that are this lane's own.
        self._life = 0
        # Whether anything was acknowledged, so that the broker knows this producer.
        self._known = False

    def put(self, count: int) -> None:
        """Write so many records."""
        producer = self._producer
        first = self._number
        self._number += count
        values = [
            b"%s/%d.%d/%d" % (producer.name.encode(), producer.incarnation, self._life, number)
            for number in range(first, first + count)
        ]
        now_ms = EPOCH_MS + producer.loop.now_us // 1000
        padding = b"x" * (300 if producer.even else producer.rng.choice((0, 10, 300)))
        records = [Record(0, now_ms, padding, value) for value in values]
        numbered = producer.idempotent
        data = build_batch(
            records,
            producer_id=producer.producer_id if numbered else -1,
            producer_epoch=producer.producer_epoch if numbered else -1,
            base_sequence=self._sequence if numbered else -1,
        )
        self.queue.append(Batch(values, self._sequence, data, self._batches))
        self._batches += 1
        self._sequence += count
        self.wake.set()

    def begin_again(self) -> None:
        """A new incarnation: nothing that was written before is sent any more."""
        for batch in self.queue:
            self._producer.model.unknown_count += len(batch.values)
        self.queue.clear()
        self._number = self._sequence = 0
        self._known = False

    async def run(self) -> None:
        producer = self._producer
        while not (producer.stopping and not self.queue):
            if not self.queue:
                self.wake.clear()
                await self.wake.wait()
                continue
            try:
                connection, _ = await producer.leader(self.where)
            except Disconnected:
                await producer.pause()
                await producer.refresh()
                continue
            if not await self._pump(connection):
                if not producer.idempotent:
                    # What was sent may still arrive: behind what is written from now on, for all one knows.
                    self.begin_again()
                    self._life += 1
                await producer.pause()
                await producer.refresh()

    async def _pump(self, connection: Connection) -> bool:
        """Send what there is, in order, until something goes wrong (False) or nothing is left (True)."""
        producer, queue = self._producer, self.queue
        flight: deque[tuple[Batch, asyncio.Future[Any]]] = deque()
        sent, healthy, incarnation = 0, True, producer.incarnation
        while True:
            while healthy and incarnation == producer.incarnation and sent < len(queue):
                batch = queue[sent]
                if batch.ordinal >= queue[0].ordinal + (IN_FLIGHT_MAX if self._known else 1):
                    # The broker remembers only so many: the first of them is not to be forgotten. And from
                    # a producer that it does not know yet it takes any number as the first.
                    break
                sent += 1
                batch.tries += 1
                future = self._send(connection, batch)
                future.add_done_callback(lambda _: self.wake.set())
                flight.append((batch, future))
            if not flight:
                return healthy
            batch, future = flight[0]
            if not future.done():
                self.wake.clear()
                await self.wake.wait()
                continue
            flight.popleft()
            if incarnation != producer.incarnation:
                healthy = False
                continue
            if self._answered(batch, future, first=queue[0] is batch and healthy):
                queue.remove(batch)
                sent -= 1
            else:
                healthy = False
                if not producer.idempotent:
                    # It is not repeated, which might put it behind others, or there twice.
                    queue.remove(batch)
                    sent -= 1
                    producer.model.unknown_count += len(batch.values)

    def _send(self, connection: Connection, batch: Batch) -> asyncio.Future[Any]:
        partition = {"index": self.where.partition, "records": batch.data}
        return self._producer.send(
            connection,
            "Produce",
            {
                "transactional_id": None,
                "acks": self._producer.acks,
                "timeout_ms": DELIVERY_TIMEOUT_MS,
                "topic_data": [{"name": self.where.topic, "partition_data": [partition]}],
            },
        )

    def _answered(self, batch: Batch, future: asyncio.Future[Any], *, first: bool) -> bool:
        """Whether the batch is done with."""
        producer = self._producer
        if future.exception() is not None:
            return False
        answer = future.result().responses[0].partition_responses[0]
        code = answer.error_code
        if code in (NONE, DUPLICATE):
            self._known = True
            producer.trace(producer.name, f"acked {self.where} {answer.base_offset} {batch.values[0]!r}")
            if producer.acks == -1:
                producer.model.acked(self.where, answer.base_offset, batch.values)
            return True
        producer.trace(producer.name, f"{ErrorCode(code).name} {self.where} {batch.values[0]!r}")
        if code == OUT_OF_ORDER and first:
            producer.model.violate(
                SEQUENCES, f"{self.where}: {batch.values[0]!r} is refused, and all before it was acknowledged"
            )
        if code in BEGIN_AGAIN:
            producer.begin_again = True
        elif code not in RETRIABLE and code != OUT_OF_ORDER:
            producer.unexpected(f"Produce to {self.where}: {ErrorCode(code).name}")
        return False


class Producer(Client):
    """``run`` writes until ``stopping`` is set, and returns once all is answered."""

    acks = -1
    idempotent = True
    interval_ms = 60
    # Whether all its batches are of one size.
    even = False
    # How often it begins again by itself, mostly with the next epoch of its id (KIP-360), as one does whose
    # batch has taken too long.
    restless = 0.0

    def __init__(self, *args: Any, topics: list[str], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.producer_id = self.producer_epoch = -1
        self.incarnation = 0
        self.begin_again = False
        self._topics = topics
        self._lanes: dict[TopicPartition, Lane] = {}
        self._pumps: list[asyncio.Task[None]] = []

    def unexpected(self, what: str) -> None:
        """An error that no fault explains."""
        self.loop.failures.append(f"{self.name}: {what}")

    async def run(self) -> None:
        while not all(topic in self.partition_counts for topic in self._topics):
            await self.refresh()
            await self.pause()
        if self.idempotent:
            await self._init_producer_id()
        while not self.stopping:
            await asyncio.sleep(self.rng.expovariate(1) * self.interval_ms / 1000)
            if self.begin_again or (self.idempotent and self.rng.random() < self.restless):
                await self._begin_again()
            if self.stopping:
                break
            topic = self.rng.choice(self._topics)
            where = TopicPartition(topic, self.rng.randrange(self.partition_counts[topic]))
            lane = self._lane(where)
            if len(lane.queue) < QUEUED_MAX:
                lane.put(1 if self.even else self.rng.choice((1, 1, 2, 5)))
        await self._finish()

    async def _finish(self) -> None:
        """Have everything answered."""
        while any(lane.queue for lane in self._lanes.values()):
            if self.begin_again:
                await self._begin_again()
            await asyncio.sleep(0.02)
        for lane in self._lanes.values():
            lane.wake.set()
        await asyncio.gather(*self._pumps)

    def _lane(self, where: TopicPartition) -> Lane:
        lane = self._lanes.get(where)
        if lane is None:
            lane = self._lanes[where] = Lane(self, where)
            self._pumps.append(asyncio.create_task(lane.run()))
        return lane

    async def _begin_again(self) -> None:
        self.begin_again = False
        self.incarnation += 1
        for lane in self._lanes.values():
            lane.begin_again()
        if self.rng.random() < 0.7:
            self.producer_epoch += 1
        else:
            await self._init_producer_id()

    async def _init_producer_id(self) -> None:
        while True:
            try:
                response = await self.ask(
                    await self.anyone(),
                    "InitProducerId",
                    {"transactional_id": None, "transaction_timeout_ms": 60_000},
                )
            except Disconnected:
                await self.pause()
                continue
            if response.error_code == NONE:
                self.producer_id, self.producer_epoch = response.producer_id, response.producer_epoch
                return
            await self.pause()


class PlainProducer(Producer):
    """Numbers nothing and repeats nothing; its answers come once every in-sync replica has the batch."""

    idempotent = False


class HastyProducer(Producer):
    """Is content with the leader (acks=1): its records may be lost, which makes logs diverge."""

    idempotent = False
    acks = 1
