"""Bug 11: `auto_offset_reset="latest"`, and the topic gets a partition.

People believe: `latest` is about the first start of the group alone.
What happens: it is about each partition without a committed offset, also one that the topic gets later. A
producer may hear of it before the consumer does. What it has written by then is passed over.
Mended: `auto_offset_reset="earliest"`. Where the group is to begin is decided once, by committed offsets.
"""

from __future__ import annotations

import asyncio
import random
from contextlib import suppress

from aiokafka.admin import AIOKafkaAdminClient, NewPartitions
from aiokafka.errors import InvalidPartitionsError
from clients import CONFIG, IDLE_S, new_consumer, new_producer, shop

from ottla.explore import World, checks, explore

ORDERS = 30
TOPICS = {"orders": 1, "shipped": 1}
FAULTS = ["break", "slow-link"]


async def operator(bootstrap: str) -> None:
    """Gives the topic a second partition."""
    await asyncio.sleep(random.uniform(0, 3))
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    # It has been there before, if the answer was lost.
    with suppress(InvalidPartitionsError):
        await admin.create_partitions({"orders": NewPartitions(total_count=2)})
    await admin.close()


async def shipping(bootstrap: str, is_mended: bool) -> None:
    reset = "earliest" if is_mended else "latest"
    consumer = new_consumer(bootstrap, "orders", group_id="shipping", auto_offset_reset=reset)
    producer = new_producer(bootstrap, enable_idempotence=True)
    await consumer.start()
    await producer.start()
    async for order in consumer:
        await producer.send_and_wait("shipped", order.value, key=order.key)
        await consumer.commit()


async def every_order_is_shipped(world: World, is_mended: bool) -> None:
    world.program("shipping", shipping, world.bootstrap, is_mended, restarts=True)
    # It reads before there is anything: only the new partition is in doubt.
    await asyncio.sleep(2)
    world.program("operator", operator, world.bootstrap, restarts=True)
    world.program("shop", shop, world.bootstrap, ORDERS, 0.15, restarts=True)
    await world.run(5)
    await world.settle(IDLE_S)
    checks.nothing_lost(await world.records("orders"), await world.records("shipped"))


@explore(seeds=500, nodes=1, topics=TOPICS, faults=FAULTS, config=CONFIG)
async def bug(world: World) -> None:
    await every_order_is_shipped(world, is_mended=False)


@explore(seeds=2000, nodes=1, topics=TOPICS, faults=FAULTS, config=CONFIG)
async def mended(world: World) -> None:
    await every_order_is_shipped(world, is_mended=True)
