"""Bug 7: auto-commit, while the work is done by a pool of threads.

People believe: auto-commit acknowledges what was worked on.
What happens: it commits the position, which is behind all that the consumer has handed out. An order that a
thread has not done is acknowledged, and lost if the process dies now. It is the same with asyncio's tasks.
Mended: no auto-commit. A batch is handed to the threads, all of it is awaited, and then it is committed.

Threads in virtual time need `ottla[threads]`.
"""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import Executor, ThreadPoolExecutor

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRecord
from clients import CONFIG, IDLE_S, new_consumer, new_producer, shop

from ottla.explore import World, checks, explore

ORDERS = 20
TOPICS = {"orders": 2, "shipped": 1}
FAULTS = {"program-kill": 3, "kill": 1}


def pack(order: ConsumerRecord) -> bytes:
    """It takes its time, so that it has a thread."""
    time.sleep(0.8)
    return order.value


async def ship(pool: Executor, producer: AIOKafkaProducer, order: ConsumerRecord) -> None:
    parcel = await asyncio.get_running_loop().run_in_executor(pool, pack, order)
    await producer.send_and_wait("shipped", parcel, key=order.key)


async def in_background(pool: Executor, consumer: AIOKafkaConsumer, producer: AIOKafkaProducer) -> None:
    """The bug."""
    async with asyncio.TaskGroup() as workers:
        async for order in consumer:
            workers.create_task(ship(pool, producer, order))


async def batch_by_batch(pool: Executor, consumer: AIOKafkaConsumer, producer: AIOKafkaProducer) -> None:
    """The mended one."""
    while True:
        batch = await consumer.getmany(timeout_ms=200, max_records=5)
        await asyncio.gather(*(ship(pool, producer, order) for orders in batch.values() for order in orders))
        if batch:
            await consumer.commit()


async def shipping(bootstrap: str, is_mended: bool) -> None:
    consumer = new_consumer(
        bootstrap,
        "orders",
        group_id="shipping",
        auto_offset_reset="earliest",
        enable_auto_commit=not is_mended,
        auto_commit_interval_ms=200,
    )
    producer = new_producer(bootstrap, enable_idempotence=True)
    await consumer.start()
    await producer.start()
    pool = ThreadPoolExecutor(max_workers=5)
    await (batch_by_batch if is_mended else in_background)(pool, consumer, producer)


async def every_order_is_shipped(world: World, is_mended: bool) -> None:
    world.program("shop", shop, world.bootstrap, ORDERS, 0.1, restarts=True)
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
