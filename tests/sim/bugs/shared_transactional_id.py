"""Bug 10: two processes share a transactional id.

People believe: the transactional id is the application's name.
What happens: it is the name of one producer. Whoever starts with it last fences the one before, which ends
with ProducerFenced, starts again, and fences the other. Nobody gets anything done.
Mended: each process has an id of its own, and keeps it when it starts again.
"""

from __future__ import annotations

import asyncio

from aiokafka import TopicPartition
from clients import CONFIG, IDLE_S, new_consumer, new_producer, shop

from ottla.explore import World, checks, explore

ORDERS = 16
TOPICS = {"orders": 2, "shipped": 1}
FAULTS = {"program-kill": 2, "kill": 1}
# After the last fault, restarts and rebalances included.
DONE_S = 60.0


async def shipping(bootstrap: str, partition: int, transactional_id: str) -> None:
    """Read, write and commit in one transaction, for one partition."""
    # First of all: what an earlier process with this id has begun ends here, before the offset is read.
    producer = new_producer(bootstrap, transactional_id=transactional_id)
    await producer.start()
    consumer = new_consumer(
        bootstrap, group_id="shipping", auto_offset_reset="earliest", isolation_level="read_committed"
    )
    where = TopicPartition("orders", partition)
    consumer.assign([where])
    await consumer.start()
    while True:
        orders = (await consumer.getmany(timeout_ms=500, max_records=8)).get(where)
        if not orders:
            continue
        async with producer.transaction():
            for order in orders:
                await asyncio.sleep(0.2)
                await producer.send_and_wait("shipped", order.value, key=order.key)
            await producer.send_offsets_to_transaction({where: orders[-1].offset + 1}, "shipping")


async def every_order_is_shipped_once(world: World, is_mended: bool) -> None:
    await world.program("shop", shop, world.bootstrap, ORDERS).finished()
    for partition in (0, 1):
        transactional_id = f"shipping {partition}" if is_mended else "shipping"
        world.program(
            f"shipping-{partition}", shipping, world.bootstrap, partition, transactional_id, restarts=True
        )
    await world.run(5)
    await world.settle(IDLE_S, DONE_S)
    checks.exactly_once(await world.records("orders"), await world.records("shipped"))


@explore(seeds=500, nodes=1, topics=TOPICS, faults=FAULTS, config=CONFIG)
async def bug(world: World) -> None:
    await every_order_is_shipped_once(world, is_mended=False)


@explore(seeds=2000, nodes=1, topics=TOPICS, faults=FAULTS, config=CONFIG)
async def mended(world: World) -> None:
    await every_order_is_shipped_once(world, is_mended=True)
