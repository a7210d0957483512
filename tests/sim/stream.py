"""A FastStream application as its users write it, explored by `test_frameworks.py`."""

from __future__ import annotations

import asyncio
import logging
import time

from aiokafka import AIOKafkaProducer
from faststream import AckPolicy, FastStream
from faststream.kafka import KafkaBroker

from ottla.explore import World, checks, explore

ORDERS = 30


async def shop(bootstrap: str) -> None:
    began_s = asyncio.get_running_loop().time()
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, enable_idempotence=True)
    await producer.start()
    for number in range(ORDERS):
        await producer.send_and_wait("orders", f"order {number} {began_s}".encode())
        await asyncio.sleep(0.2)
    await producer.stop()


async def application(bootstrap: str, ack_policy: AckPolicy | None, is_quick: bool) -> None:
    # A consumer that waits to hear where to begin asks the leader that it knows, until it asks for another.
    broker = KafkaBroker(bootstrap.split(","), **({"metadata_max_age_ms": 3000} if is_quick else {}))
    app = FastStream(broker)
    options = {} if ack_policy is None else {"ack_policy": ack_policy}

    @broker.subscriber("orders", group_id="shipping", auto_offset_reset="earliest", **options)
    @broker.publisher("shipped")
    async def ship(order: str) -> str:
        await asyncio.sleep(0.5)
        return order

    @broker.subscriber("shipped", group_id="bookkeeping", auto_offset_reset="earliest")
    def book(order: str) -> None:
        """A function that is no coroutine: FastStream calls it in a thread."""
        time.sleep(0.01)

    await app.run(log_level=logging.INFO)


async def every_order_is_shipped(world: World, ack_policy: AckPolicy | None, is_quick: bool = True) -> None:
    world.program("shop", shop, world.bootstrap, restarts=True)
    world.program("application", application, world.bootstrap, ack_policy, is_quick, restarts=True)
    await world.run(20)
    await world.settle(IDLE_S)
    checks.nothing_lost(await world.records("orders"), await world.records("shipped"))


TOPICS = {"orders": 3, "shipped": 3}
FAULTS = {"program-kill": 4, "break": 1, "kill": 1}
# Longer than a session of a member that was killed.
IDLE_S = 20.0


@explore(topics=TOPICS, faults=FAULTS)
async def by_default(world: World) -> None:
    """FastStream acknowledges first: aiokafka commits by itself what was handed out."""
    await every_order_is_shipped(world, None)


@explore(topics=TOPICS, faults=FAULTS)
async def acknowledged(world: World) -> None:
    """The setting for at least once."""
    await every_order_is_shipped(world, AckPolicy.NACK_ON_ERROR)


@explore(topics=TOPICS, faults=FAULTS)
async def with_old_metadata(world: World) -> None:
    """The same, as long as aiokafka looks for leaders each five minutes."""
    await every_order_is_shipped(world, AckPolicy.NACK_ON_ERROR, is_quick=False)
