"""A shop and its shipping as users write them on aiokafka, explored by `test_world.py`."""

from __future__ import annotations

import asyncio
import time

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.errors import KafkaError

from ottla.explore import World, checks, explore

ORDERS = 30
TOPICS = {"orders": 3, "shipped": 3}
FAULTS = {"program-kill": 3, "program-pause": 1, "kill": 1, "break": 1, "isolate": 1}


async def shop(bootstrap: str) -> None:
    """Sends each order until it is acknowledged. Each says when the shop began that sent it."""
    began = [("sent", f"{time.time():.6f}".encode())]
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, enable_idempotence=True, acks="all")
    await producer.start()
    for number in range(ORDERS):
        while True:
            try:
                await producer.send_and_wait("orders", b"%d" % number, key=b"%d" % number, headers=began)
                break
            except KafkaError:
                await asyncio.sleep(0.5)
        await asyncio.sleep(0.2)
    await producer.stop()


async def shipping(bootstrap: str, is_committed_first: bool) -> None:
    """Works on each order, tells that it was shipped, and commits; or commits first, which is wrong."""
    consumer = AIOKafkaConsumer(
        "orders",
        bootstrap_servers=bootstrap,
        group_id="shipping",
        auto_offset_reset="earliest",
        enable_auto_commit=False,
    )
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, enable_idempotence=True, acks="all")
    await consumer.start()
    await producer.start()
    async for order in consumer:
        if is_committed_first:
            await consumer.commit()
        await asyncio.sleep(0.05)
        await producer.send_and_wait("shipped", order.value, key=order.key, headers=list(order.headers))
        if not is_committed_first:
            await consumer.commit()


async def every_order_is_shipped(world: World, is_committed_first: bool) -> None:
    world.program("shop", shop, world.bootstrap, restarts=True)
    world.program("shipping", shipping, world.bootstrap, is_committed_first, restarts=True)
    began_s = world.now_s
    await world.run(20)
    assert 20 <= world.now_s - began_s < 21
    await world.settle()
    orders = await world.records("orders")
    assert len({order.value for order in orders}) == ORDERS
    shipped = await world.records("shipped")
    checks.nothing_lost(orders, shipped, by=identity)
    committed = await world.committed("shipping")
    assert sum(committed.values()) == len(orders)
    checks.commits_behind("orders", orders, committed, shipped, by=identity)
    assert await world.committed("nobody") == {}


def identity(record: checks.StoredRecord) -> object:
    """Which time of an order it is: the shop may send one again after it was killed."""
    return record.value, dict(record.headers).get("sent")


@explore(seeds=4, topics=TOPICS, faults=FAULTS)
async def commit_first(world: World) -> None:
    await every_order_is_shipped(world, is_committed_first=True)


@explore(seeds=4, topics=TOPICS, faults=FAULTS)
async def commit_last(world: World) -> None:
    """The mended twin."""
    await every_order_is_shipped(world, is_committed_first=False)


class Parcel:
    """It lies in a set by its address in memory, as objects do that have no ``__hash__``."""

    def __init__(self, weight: int) -> None:
        self.weight = weight


async def sending_parcels(bootstrap: str) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap)
    await producer.start()
    for _ in range(3):
        for parcel in {Parcel(weight) for weight in range(30)}:
            await producer.send_and_wait("shipped", b"." * parcel.weight)
    await producer.stop()


@explore(faults="calm", nodes=1, topics={"shipped": 1})
async def parcels(world: World) -> None:
    await world.program("shop", sending_parcels, world.bootstrap).finished()


@explore(faults="calm", nodes=1)
async def chatty(world: World) -> None:
    """More than a pipe takes."""
    print("x" * 200_000)


@explore(faults="calm", nodes=1)
async def ends_early(world: World) -> None:
    async def ordering() -> None:
        await asyncio.sleep(0.2)
        raise ValueError("no shoes")

    world.program("shop", ordering)
    await world.run(5)


@explore(faults="calm")
async def mistaken(world: World) -> None:
    async def sleeper() -> None:
        time.sleep(1)

    world.program("sleeper", sleeper, restarts=True)
    await world.run(5)
