"""FastStream applications as its documentation has users write them; docs/EXPLORE.md tells of their runs.

Each application has one subscriber. FastStream starts those of one application in the order of their
addresses in memory, so a seed would not be the same run everywhere.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any
from uuid import uuid4

from aiokafka import AIOKafkaProducer
from faststream import AckPolicy, FastStream
from faststream.kafka import KafkaBroker, KafkaMessage, KafkaResponse

from ottla.explore import World, checks, explore

ORDERS = 30
CUSTOMERS = 5
TOPICS = {"orders": 3, "shipped": 3}
STRIKING = ["kill", "power", "restart", "break", "isolate", "program-kill", "program-pause", "program-cut"]
# A carrier that takes its time to answer.
WORK_S = 1.5
# An aiokafka that looks for leaders each five minutes asks an old one where to begin for as long.
QUICK = {"metadata_max_age_ms": 3000}
SURE = {"enable_idempotence": True}


async def shop(bootstrap: str) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, enable_idempotence=True, **QUICK)
    await producer.start()
    start = uuid4()
    for number in range(ORDERS):
        customer = b"customer %d" % (number % CUSTOMERS)
        await producer.send_and_wait("orders", f"{number} {start}".encode(), key=customer)
        await asyncio.sleep(0.2)
    await producer.stop()


def key_of(message: KafkaMessage) -> bytes | None:
    key: bytes | None = message.raw_message.key
    return key


async def one_by_one(bootstrap: str, workers: int, producing: dict[str, Any]) -> None:
    """At least once, by what FastStream has for it; what the handler raises is tried again."""
    broker = KafkaBroker(bootstrap.split(","), **QUICK, **producing)
    refused: set[str] = set()

    @broker.subscriber(
        "orders",
        group_id="shipping",
        auto_offset_reset="earliest",
        ack_policy=AckPolicy.NACK_ON_ERROR,
        max_workers=workers,
    )
    @broker.publisher("shipped")
    async def ship(order: str, message: KafkaMessage) -> KafkaResponse:
        await asyncio.sleep(0.2)
        if order.startswith(("3 ", "14 ")) and order not in refused:
            refused.add(order)
            raise ValueError("the carrier does not answer")
        return KafkaResponse(order, key=key_of(message))

    await FastStream(broker).run(log_level=logging.INFO)


async def slowly(bootstrap: str, workers: int, producing: dict[str, Any], **policy: AckPolicy) -> None:
    broker = KafkaBroker(bootstrap.split(","), **QUICK, **producing)

    @broker.subscriber(
        "orders", group_id="shipping", auto_offset_reset="earliest", max_workers=workers, **policy
    )
    @broker.publisher("shipped")
    async def ship(order: str, message: KafkaMessage) -> KafkaResponse:
        await asyncio.sleep(WORK_S)
        return KafkaResponse(order, key=key_of(message))

    await FastStream(broker).run(log_level=logging.INFO)


async def by_default(bootstrap: str, workers: int, producing: dict[str, Any]) -> None:
    """FastStream acknowledges first if nothing is said."""
    await slowly(bootstrap, workers, producing)


async def acknowledging_last(bootstrap: str, workers: int, producing: dict[str, Any]) -> None:
    await slowly(bootstrap, workers, producing, ack_policy=AckPolicy.NACK_ON_ERROR)


async def of_batches(bootstrap: str, workers: int, producing: dict[str, Any]) -> None:
    broker = KafkaBroker(bootstrap.split(","), **QUICK, **producing)

    @broker.subscriber(
        "orders",
        group_id="shipping",
        auto_offset_reset="earliest",
        ack_policy=AckPolicy.NACK_ON_ERROR,
        batch=True,
        max_records=4,
    )
    @broker.publisher("shipped", batch=True)
    async def ship(orders: list[str]) -> tuple[str, ...]:
        await asyncio.sleep(0.3)
        return tuple(orders)

    await FastStream(broker).run(log_level=logging.INFO)


async def by_hand(bootstrap: str, workers: int, producing: dict[str, Any]) -> None:
    """The handler itself acknowledges, once what it has made is written."""
    broker = KafkaBroker(bootstrap.split(","), **QUICK, **producing)

    @broker.subscriber(
        "orders",
        group_id="shipping",
        auto_offset_reset="earliest",
        ack_policy=AckPolicy.MANUAL,
        max_workers=workers,
    )
    async def ship(order: str, message: KafkaMessage) -> None:
        await broker.publish(order, "shipped", key=key_of(message))
        await message.ack()

    await FastStream(broker).run(log_level=logging.INFO)


Application = Callable[[str, int, dict[str, Any]], Coroutine[Any, Any, None]]


async def shipping(world: World, application: Application, workers: int, producing: dict[str, Any]) -> None:
    """Two instances of the application share the group."""
    world.program("shop", shop, world.bootstrap, restarts=True)
    for name in ("one", "two"):
        world.program(name, application, world.bootstrap, workers, producing, restarts=True)
    await world.run(20)
    await world.settle()


async def shipped_at_least_once(
    world: World, application: Application, workers: int = 1, producing: dict[str, Any] = SURE
) -> None:
    await shipping(world, application, workers, producing)
    orders, shipped = await world.records("orders"), await world.records("shipped")
    checks.nothing_lost(orders, shipped)
    checks.nothing_else(orders, shipped)
    checks.commits_behind("orders", orders, await world.committed("shipping"), shipped)
    checks.commits_always_behind("orders", orders, await world.commits("shipping"), shipped)


@explore(topics=TOPICS, faults=STRIKING)
async def one_by_one_struck(world: World) -> None:
    await shipped_at_least_once(world, one_by_one)


@explore(topics=TOPICS, faults=STRIKING)
async def workers_struck(world: World) -> None:
    await shipped_at_least_once(world, one_by_one, 3)


@explore(topics=TOPICS, faults=STRIKING)
async def batches_struck(world: World) -> None:
    await shipped_at_least_once(world, of_batches)


@explore(topics=TOPICS, faults=STRIKING)
async def acknowledged_by_one(world: World) -> None:
    await shipped_at_least_once(world, one_by_one, 1, {})


@explore(topics=TOPICS, faults=STRIKING)
async def by_hand_struck(world: World) -> None:
    await shipped_at_least_once(world, by_hand)


@explore(topics=TOPICS, faults=STRIKING)
async def workers_by_hand_struck(world: World) -> None:
    await shipped_at_least_once(world, by_hand, 3)


@explore(topics=TOPICS, faults="everything")
async def struck_by_everything(world: World) -> None:
    await shipped_at_least_once(world, one_by_one)


@explore(topics=TOPICS, faults=["program-kill"])
async def acknowledged_first(world: World) -> None:
    """FastStream's default: what is handed out is committed while it is worked on."""
    await shipping(world, by_default, 3, SURE)
    checks.nothing_lost(await world.records("orders"), await world.records("shipped"))


@explore(topics=TOPICS, faults=["program-kill"])
async def acknowledged_last(world: World) -> None:
    """The same with a policy, which is all that has to be said."""
    await shipping(world, acknowledging_last, 3, SURE)
    checks.nothing_lost(await world.records("orders"), await world.records("shipped"))
