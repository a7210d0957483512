"""Bug 1: an order is committed before it is worked on.

People believe: a commit says "I have received this", and it is good to have that done.
What happens: a committed record is never given to the group again. The process dies between the commit and
the end of the work, and nobody ships the order.
Mended: the commit comes last. An order may be shipped twice then, and never not at all.
"""

from __future__ import annotations

import asyncio

from clients import CONFIG, IDLE_S, new_consumer, new_producer, shop

from ottla.explore import World, checks, explore

ORDERS = 20
TOPICS = {"orders": 2, "shipped": 1}
FAULTS = {"program-kill": 3, "kill": 1}


async def shipping(bootstrap: str, is_mended: bool) -> None:
    consumer = new_consumer(bootstrap, "orders", group_id="shipping", auto_offset_reset="earliest")
    producer = new_producer(bootstrap, enable_idempotence=True)
    await consumer.start()
    await producer.start()
    async for order in consumer:
        if not is_mended:
            await consumer.commit()
        await asyncio.sleep(0.05)
        await producer.send_and_wait("shipped", order.value, key=order.key)
        if is_mended:
            await consumer.commit()


async def every_order_is_shipped(world: World, is_mended: bool) -> None:
    await world.program("shop", shop, world.bootstrap, ORDERS).finished()
    world.program("shipping", shipping, world.bootstrap, is_mended, restarts=True)
    await world.run(5)
    await world.settle(IDLE_S)
    checks.nothing_lost(await world.records("orders"), await world.records("shipped"))


@explore(seeds=500, nodes=1, topics=TOPICS, faults=FAULTS, config=CONFIG)
async def bug(world: World) -> None:
    await every_order_is_shipped(world, is_mended=False)


@explore(seeds=2000, nodes=1, topics=TOPICS, faults=FAULTS, config=CONFIG)
async def mended(world: World) -> None:
    await every_order_is_shipped(world, is_mended=True)
