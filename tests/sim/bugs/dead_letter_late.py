"""Bug 9: a record that cannot be worked on is committed before it is among the dead letters.

People believe: the order of two lines that are next to each other does not matter.
What happens: the process dies between them. The record is committed, and in no topic that anybody looks at.
Mended: the dead letter is written, and acknowledged, before the commit.
"""

from __future__ import annotations

import asyncio

from clients import CONFIG, IDLE_S, new_consumer, new_producer, shop

from ottla.explore import World, checks, explore

ORDERS = 20
TOPICS = {"orders": 2, "shipped": 1, "orders.dead": 1}
FAULTS = {"program-kill": 4, "kill": 1, "slow-link": 1}


def work(value: bytes) -> bytes:
    """Every third order cannot be read."""
    if int(value.split()[1]) % 3 == 0:
        raise ValueError(f"not an order: {value!r}")
    return value


async def letter_about(value: bytes, error: ValueError) -> bytes:
    """It says what is wrong, which some other service knows."""
    await asyncio.sleep(0.1)
    return value


async def shipping(bootstrap: str, is_mended: bool) -> None:
    consumer = new_consumer(bootstrap, "orders", group_id="shipping", auto_offset_reset="earliest")
    producer = new_producer(bootstrap, enable_idempotence=True)
    await consumer.start()
    await producer.start()
    async for order in consumer:
        await asyncio.sleep(0.05)
        try:
            result = work(order.value)
        except ValueError as error:
            if not is_mended:
                await consumer.commit()
            letter = await letter_about(order.value, error)
            await producer.send_and_wait("orders.dead", letter, key=order.key)
            if is_mended:
                await consumer.commit()
        else:
            await producer.send_and_wait("shipped", result, key=order.key)
            await consumer.commit()


async def every_order_is_somewhere(world: World, is_mended: bool) -> None:
    await world.program("shop", shop, world.bootstrap, ORDERS).finished()
    world.program("shipping", shipping, world.bootstrap, is_mended, restarts=True)
    await world.run(6)
    await world.settle(IDLE_S)
    results = [*await world.records("shipped"), *await world.records("orders.dead")]
    checks.nothing_lost(await world.records("orders"), results)


@explore(seeds=500, nodes=1, topics=TOPICS, faults=FAULTS, config=CONFIG)
async def bug(world: World) -> None:
    await every_order_is_somewhere(world, is_mended=False)


@explore(seeds=2000, nodes=1, topics=TOPICS, faults=FAULTS, config=CONFIG)
async def mended(world: World) -> None:
    await every_order_is_somewhere(world, is_mended=True)
