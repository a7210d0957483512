"""A shop and its shipping on librdkafka, with bugs that people write, and their mended twins."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING
from uuid import uuid4

from confluent_kafka import Consumer, Producer

from ottla.explore import checks, explore_real

if TYPE_CHECKING:
    from ottla.explore import RealWorld

ORDERS = 12
TOPICS = {"orders": 3, "shipped": 3}
KILLS = {"program-kill": 5, "kill": 1, "break": 1}
# So that a test need not wait for long: the defaults wait for seconds before they connect again.
CLIENT = {"reconnect.backoff.max.ms": 500, "retry.backoff.ms": 50, "acks": "all", "log_level": 0}


def shop(bootstrap: str, is_flushed: bool, pause_s: float) -> None:
    """Sends orders, and ends; or forgets that a producer sends later."""
    producer = Producer({"bootstrap.servers": bootstrap, "enable.idempotence": True, **CLIENT})
    for number in range(ORDERS):
        # Who starts again sends all again: each is an order of its own.
        producer.produce("orders", f"order {number}, {uuid4()}", key=str(number))
        producer.poll(0)
        time.sleep(pause_s)
    if is_flushed:
        assert producer.flush(120) == 0


def shipping(bootstrap: str, is_committed_first: bool) -> None:
    """Works on each order, tells that it was shipped, and commits; or commits first, which is wrong."""
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": "shipping",
            # It is the same member when it was killed and comes back: nobody waits for its session's end.
            "group.instance.id": "shipping-1",
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
            **CLIENT,
        }
    )
    producer = Producer({"bootstrap.servers": bootstrap, "enable.idempotence": True, **CLIENT})
    consumer.subscribe(["orders"])
    while True:
        order = consumer.poll(0.2)
        if order is None or order.error():
            continue
        if is_committed_first:
            consumer.commit(order, asynchronous=False)
        time.sleep(0.4)
        producer.produce("shipped", order.value(), key=order.key())
        assert producer.flush(120) == 0
        if not is_committed_first:
            consumer.commit(order, asynchronous=False)


def every_order_is_shipped(world: RealWorld, is_committed_first: bool) -> None:
    world.program("shop", shop, world.bootstrap, True, 0.05, spared=True)
    world.program("shipping", shipping, world.bootstrap, is_committed_first, restarts=True)
    world.run(seconds=6)
    world.settle(groups=["shipping"])
    orders = world.records("orders")
    assert len({order.key for order in orders}) == ORDERS
    checks.nothing_lost(orders, world.records("shipped"))


@explore_real(topics=TOPICS, faults=KILLS)
def commit_first(world: RealWorld) -> None:
    every_order_is_shipped(world, is_committed_first=True)


@explore_real(topics=TOPICS, faults=KILLS)
def commit_last(world: RealWorld) -> None:
    """The mended twin."""
    every_order_is_shipped(world, is_committed_first=False)


def every_order_is_sent(world: RealWorld, is_flushed: bool) -> None:
    world.program("shop", shop, world.bootstrap, is_flushed, 0.01)
    world.run(seconds=3)
    world.settle()
    assert len({order.key for order in world.records("orders")}) == ORDERS


@explore_real(topics=TOPICS, faults={"isolate": 2, "slow-link": 1, "kill": 1})
def no_flush(world: RealWorld) -> None:
    every_order_is_sent(world, is_flushed=False)


@explore_real(topics=TOPICS, faults={"isolate": 2, "slow-link": 1, "kill": 1})
def flush(world: RealWorld) -> None:
    """The mended twin."""
    every_order_is_sent(world, is_flushed=True)
