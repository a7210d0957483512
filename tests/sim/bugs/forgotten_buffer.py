"""Bug 5: a rebalance listener that forgets what is buffered.

People believe: before a partition goes to another member, commit, so that this one begins where we are.
What happens: the listener commits the position. The program has read further than it has worked: the rest is
in its buffer, which begins anew with the next assignment. The other member starts behind it.
Mended: the listener works off what is buffered, and then commits what is done.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRebalanceListener, TopicPartition
from clients import CONFIG, IDLE_S, new_consumer, new_producer, shop

from ottla.explore import World, checks, explore

ORDERS = 24
TOPICS = {"orders": 3, "shipped": 1}
FAULTS = {"program-kill": 2, "program-pause": 1, "kill": 1}
# So many orders go into one parcel.
PARCEL = 4


class Parcels:
    """Orders are buffered until there are enough for a parcel, or for so long."""

    def __init__(self, consumer: AIOKafkaConsumer, producer: AIOKafkaProducer) -> None:
        self.consumer = consumer
        self.producer = producer
        self.buffer: list[Any] = []
        # The listener and the program's own work take turns.
        self.turn = asyncio.Lock()

    async def work(self) -> None:
        while True:
            batch = await self.consumer.getmany(timeout_ms=500, max_records=3)
            async with self.turn:
                self.buffer += [order for orders in batch.values() for order in orders]
                if not batch or len(self.buffer) >= PARCEL:
                    await self.ship()

    async def ship(self) -> None:
        """Ship what is buffered, and commit that."""
        orders, self.buffer = self.buffer, []
        for order in orders:
            await self.producer.send_and_wait("shipped", order.value, key=order.key)
        done = {TopicPartition(order.topic, order.partition): order.offset + 1 for order in orders}
        mine = {where: offset for where, offset in done.items() if where in self.consumer.assignment()}
        if mine:
            await self.consumer.commit(mine)


class Forgetting(ConsumerRebalanceListener):
    """The bug."""

    def __init__(self, parcels: Parcels) -> None:
        self.parcels = parcels

    async def on_partitions_revoked(self, revoked: Collection[TopicPartition]) -> None:
        await self.parcels.consumer.commit()

    async def on_partitions_assigned(self, assigned: Collection[TopicPartition]) -> None:
        self.parcels.buffer.clear()


class Shipping(Forgetting):
    """The mended one."""

    async def on_partitions_revoked(self, revoked: Collection[TopicPartition]) -> None:
        async with self.parcels.turn:
            await self.parcels.ship()

    async def on_partitions_assigned(self, assigned: Collection[TopicPartition]) -> None:
        """What was buffered is shipped."""


async def shipping(bootstrap: str, is_mended: bool) -> None:
    consumer = new_consumer(bootstrap, group_id="shipping", auto_offset_reset="earliest")
    producer = new_producer(bootstrap, enable_idempotence=True)
    parcels = Parcels(consumer, producer)
    consumer.subscribe(["orders"], listener=Shipping(parcels) if is_mended else Forgetting(parcels))
    await consumer.start()
    await producer.start()
    await parcels.work()


async def every_order_is_shipped(world: World, is_mended: bool) -> None:
    world.program("shop", shop, world.bootstrap, ORDERS, 0.1, restarts=True)
    for name in ("one", "other"):
        world.program(name, shipping, world.bootstrap, is_mended, restarts=True)
    await world.run(5)
    await world.settle(IDLE_S)
    checks.nothing_lost(await world.records("orders"), await world.records("shipped"))


@explore(seeds=500, nodes=1, topics=TOPICS, faults=FAULTS, config=CONFIG)
async def bug(world: World) -> None:
    await every_order_is_shipped(world, is_mended=False)


@explore(seeds=2000, nodes=1, topics=TOPICS, faults=FAULTS, config=CONFIG)
async def mended(world: World) -> None:
    await every_order_is_shipped(world, is_mended=True)
