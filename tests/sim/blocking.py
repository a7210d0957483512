"""Programs on kafka-python, which waits in threads, explored by `test_blocking.py`."""

from __future__ import annotations

import time

from kafka import KafkaConsumer, KafkaProducer

from ottla.explore import World, checks, explore

ORDERS = 20
TOPICS = {"orders": 3, "shipped": 3}
FAULTS = {"program-kill": 4, "break": 1, "kill": 1}
# Clients that ask again soon, so that a world is seen to be idle soon.
QUICK = {"metadata_max_age_ms": 3000, "request_timeout_ms": 12_000}


def shop(bootstrap: str) -> None:
    began = f"{time.time():.6f}"
    producer = KafkaProducer(bootstrap_servers=bootstrap, **QUICK)
    for number in range(ORDERS):
        producer.send("orders", f"order {number} {began}".encode()).get(timeout=60)
        time.sleep(0.2)
    producer.close()


def shipping(bootstrap: str, is_committed_first: bool) -> None:
    consumer = KafkaConsumer(
        "orders",
        bootstrap_servers=bootstrap,
        group_id="shipping",
        auto_offset_reset="earliest",
        enable_auto_commit=False,
        session_timeout_ms=8000,
        **QUICK,
    )
    producer = KafkaProducer(bootstrap_servers=bootstrap, **QUICK)
    for order in consumer:
        if is_committed_first:
            consumer.commit()
        time.sleep(0.5)
        producer.send("shipped", order.value).get(timeout=60)
        if not is_committed_first:
            consumer.commit()


async def every_order_is_shipped(world: World, is_committed_first: bool) -> None:
    world.program("shop", shop, world.bootstrap, restarts=True)
    world.program("shipping", shipping, world.bootstrap, is_committed_first, restarts=True)
    await world.run(20)
    await world.settle(20)
    orders = await world.records("orders")
    assert len(orders) >= ORDERS
    checks.nothing_lost(orders, await world.records("shipped"))


@explore(topics=TOPICS, faults=FAULTS)
async def commit_first(world: World) -> None:
    await every_order_is_shipped(world, is_committed_first=True)


@explore(topics=TOPICS, faults=FAULTS)
async def commit_last(world: World) -> None:
    await every_order_is_shipped(world, is_committed_first=False)


@explore(topics=TOPICS, faults="calm")
async def calm(world: World) -> None:
    await every_order_is_shipped(world, is_committed_first=False)
