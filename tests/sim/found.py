"""What exploring has found in aiokafka 0.14.0, as a small program: docs/EXPLORE.md tells of it."""

from __future__ import annotations

import asyncio
from uuid import uuid4

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from areas import IDLE_S, feeding, transforming
from mended_client import reads_on_after_timeouts

from ottla.explore import World, checks, explore

ORDERS = 30
# aiokafka's default, and one with which it hears of new leaders while it has no position.
FIVE_MINUTES_MS = 300_000
FIVE_SECONDS_MS = 5_000


@explore(topics={"numbers": 3, "sums": 3}, faults={"pause": 1, "isolate": 1, "program-pause": 2, "kill": 1})
async def a_rebalance_within_a_transaction(world: World) -> None:
    """A member that joins its group again within a transaction is given the records of it once more."""
    world.program("feeding", feeding, world.bootstrap, ["numbers"], restarts=True)
    world.program("transforming", transforming, world.bootstrap, False, restarts=True)
    await world.run(15)
    await world.settle(IDLE_S)
    checks.exactly_once(await world.records("numbers"), await world.records("sums"))


async def shop(bootstrap: str) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, enable_idempotence=True)
    await producer.start()
    for number in range(ORDERS):
        await producer.send_and_wait("orders", f"order {number}, {uuid4()}".encode())
        await asyncio.sleep(0.2)
    await producer.stop()


async def shipping(bootstrap: str, max_age_ms: int) -> None:
    """That of docs/EXPLORE.md, with its bug mended."""
    consumer = AIOKafkaConsumer(
        "orders",
        bootstrap_servers=bootstrap,
        group_id="shipping",
        auto_offset_reset="earliest",
        enable_auto_commit=False,
        metadata_max_age_ms=max_age_ms,
    )
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, enable_idempotence=True)
    await consumer.start()
    await producer.start()
    async for order in consumer:
        await asyncio.sleep(0.05)
        await producer.send_and_wait("shipped", order.value)
        await consumer.commit()


async def every_order_is_shipped(world: World, max_age_ms: int) -> None:
    world.program("shop", shop, world.bootstrap, restarts=True)
    world.program("shipping", shipping, world.bootstrap, max_age_ms, restarts=True)
    await world.run(20)
    await world.settle()
    checks.nothing_lost(await world.records("orders"), await world.records("shipped"))


@explore(topics={"orders": 3, "shipped": 3}, faults=["kill", "program-kill"])
async def an_old_leader_is_asked_for_five_minutes(world: World) -> None:
    """A consumer without a position asks the leader that it knows, whoever leads by now."""
    await every_order_is_shipped(world, FIVE_MINUTES_MS)


@explore(topics={"orders": 3, "shipped": 3}, faults=["kill", "program-kill"])
async def metadata_is_asked_for_each_five_seconds(world: World) -> None:
    await every_order_is_shipped(world, FIVE_SECONDS_MS)


async def shipping_in_transactions(bootstrap: str) -> None:
    """Reads, writes and commits in one transaction; after an error the process ends, and starts again."""
    consumer = AIOKafkaConsumer(
        "orders",
        bootstrap_servers=bootstrap,
        group_id="shipping",
        auto_offset_reset="earliest",
        enable_auto_commit=False,
        isolation_level="read_committed",
    )
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, transactional_id="shipping")
    await consumer.start()
    await producer.start()
    async for order in consumer:
        partition = TopicPartition(order.topic, order.partition)
        async with producer.transaction():
            await producer.send("shipped", order.value)
            await producer.send_offsets_to_transaction({partition: order.offset + 1}, "shipping")


@explore(topics={"orders": 3, "shipped": 3})
async def a_follower_answers_a_consumer(world: World) -> None:
    """An old leader, a follower now, is behind the consumer: OFFSET_OUT_OF_RANGE, and all is read again."""
    world.program("shop", shop, world.bootstrap, restarts=True)
    world.program("shipping", shipping_in_transactions, world.bootstrap, restarts=True)
    await world.run(20)
    await world.settle(IDLE_S)
    checks.nothing_twice(await world.records("shipped"))


async def shipping_with_short_timeouts(bootstrap: str, is_mended: bool) -> None:
    consumer = AIOKafkaConsumer(
        "orders",
        bootstrap_servers=bootstrap,
        group_id="shipping",
        auto_offset_reset="earliest",
        enable_auto_commit=False,
        metadata_max_age_ms=FIVE_SECONDS_MS,
        request_timeout_ms=3_000,
    )
    if is_mended:
        reads_on_after_timeouts(consumer)
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, enable_idempotence=True)
    await consumer.start()
    await producer.start()
    async for order in consumer:
        await producer.send_and_wait("shipped", order.value)
        await consumer.commit()


async def all_is_read(world: World, is_mended: bool) -> None:
    world.program("shop", shop, world.bootstrap, restarts=True)
    world.program("shipping", shipping_with_short_timeouts, world.bootstrap, is_mended, restarts=True)
    await world.run(20)
    await world.settle()
    checks.nothing_lost(await world.records("orders"), await world.records("shipped"))


@explore(nodes=1, topics={"orders": 3, "shipped": 3}, faults={"program-pause": 2, "kill": 1})
async def a_timeout_ends_all_reading(world: World) -> None:
    """A request is out of time when its connection has gone: a KeyError ends the task that fetches."""
    await all_is_read(world, is_mended=False)


@explore(nodes=1, topics={"orders": 3, "shipped": 3}, faults={"program-pause": 2, "kill": 1})
async def no_timeout_ends_reading(world: World) -> None:
    await all_is_read(world, is_mended=True)
