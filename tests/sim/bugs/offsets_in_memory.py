"""Bug 6: the program keeps its offsets in memory.

People believe: a consumer without a group goes on where it was, or `latest` gives all that is new to it.
What happens: a process that starts again has forgotten where it was. `latest` is the end of the topic: what
came while it was down is passed over. (`earliest` would work on everything once more.)
Mended: a group has the offsets, and they are committed behind the work.
"""

from __future__ import annotations

import asyncio

from aiokafka import AIOKafkaConsumer
from clients import CONFIG, IDLE_S, new_consumer, new_producer, shop

from ottla.explore import World, checks, explore

ORDERS = 20
TOPICS = {"orders": 2, "shipped": 1}
FAULTS = {"program-kill": 3, "break": 1}


def reader(bootstrap: str, is_mended: bool) -> AIOKafkaConsumer:
    if is_mended:
        return new_consumer(bootstrap, "orders", group_id="shipping", auto_offset_reset="earliest")
    return new_consumer(bootstrap, "orders", group_id=None, auto_offset_reset="latest")


async def shipping(bootstrap: str, is_mended: bool) -> None:
    consumer = reader(bootstrap, is_mended)
    producer = new_producer(bootstrap, enable_idempotence=True)
    await consumer.start()
    await producer.start()
    async for order in consumer:
        await producer.send_and_wait("shipped", order.value, key=order.key)
        if is_mended:
            await consumer.commit()


async def every_order_is_shipped(world: World, is_mended: bool) -> None:
    world.program("shipping", shipping, world.bootstrap, is_mended, restarts=True)
    # It reads before there is anything: without faults nothing is passed over.
    await asyncio.sleep(2)
    world.program("shop", shop, world.bootstrap, ORDERS, 0.2, restarts=True)
    await world.run(5)
    await world.settle(IDLE_S)
    checks.nothing_lost(await world.records("orders"), await world.records("shipped"))


@explore(seeds=500, nodes=1, topics=TOPICS, faults=FAULTS, config=CONFIG)
async def bug(world: World) -> None:
    await every_order_is_shipped(world, is_mended=False)


@explore(seeds=2000, nodes=1, topics=TOPICS, faults=FAULTS, config=CONFIG)
async def mended(world: World) -> None:
    await every_order_is_shipped(world, is_mended=True)
