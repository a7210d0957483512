"""Bug 2: a timer commits every half second, whatever is under way.

People believe: `commit()` commits what was done by then.
What happens: it commits the position, which is behind all that `getmany()` has returned. Most of a batch is
not done when the timer strikes. If the process dies then, nobody works on the rest.
Mended: the timer commits what is done, which the program notes by itself.
"""

from __future__ import annotations

import asyncio

from aiokafka import AIOKafkaConsumer, TopicPartition
from clients import CONFIG, IDLE_S, new_consumer, new_producer, shop

from ottla.explore import World, checks, explore

ORDERS = 20
TOPICS = {"orders": 2, "shipped": 1}
FAULTS = ["program-kill", "slow-link", "kill"]


async def commit_position(consumer: AIOKafkaConsumer, done: dict[TopicPartition, int]) -> None:
    """The bug."""
    while True:
        await asyncio.sleep(0.5)
        await consumer.commit()


async def commit_done(consumer: AIOKafkaConsumer, done: dict[TopicPartition, int]) -> None:
    """The mended one."""
    while True:
        await asyncio.sleep(0.5)
        offsets = {where: offset for where, offset in done.items() if where in consumer.assignment()}
        if offsets:
            await consumer.commit(offsets)


async def shipping(bootstrap: str, is_mended: bool) -> None:
    consumer = new_consumer(bootstrap, "orders", group_id="shipping", auto_offset_reset="earliest")
    producer = new_producer(bootstrap, enable_idempotence=True)
    await consumer.start()
    await producer.start()
    done: dict[TopicPartition, int] = {}
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(commit_done(consumer, done) if is_mended else commit_position(consumer, done))
        while True:
            for where, orders in (await consumer.getmany(timeout_ms=200)).items():
                for order in orders:
                    await asyncio.sleep(0.1)
                    await producer.send_and_wait("shipped", order.value, key=order.key)
                    done[where] = order.offset + 1


async def every_order_is_shipped(world: World, is_mended: bool) -> None:
    await world.program("shop", shop, world.bootstrap, ORDERS).finished()
    world.program("shipping", shipping, world.bootstrap, is_mended, restarts=True)
    await world.run(5)
    await world.settle(IDLE_S)
    orders, shipped = await world.records("orders"), await world.records("shipped")
    # Also where nobody has died at the wrong moment.
    checks.commits_always_behind("orders", orders, await world.commits("shipping"), shipped)
    checks.nothing_lost(orders, shipped)


@explore(seeds=500, nodes=1, topics=TOPICS, faults=FAULTS, config=CONFIG)
async def bug(world: World) -> None:
    await every_order_is_shipped(world, is_mended=False)


@explore(seeds=2000, nodes=1, topics=TOPICS, faults=FAULTS, config=CONFIG)
async def mended(world: World) -> None:
    await every_order_is_shipped(world, is_mended=True)
