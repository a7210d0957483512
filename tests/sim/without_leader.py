"""A producer of aiokafka 0.14 with idempotence, while its partition has no leader for long.

`test_without_leader.py` explores it. A record that waits for a leader for longer than `request_timeout_ms` is
given up. aiokafka counts it all the same: the next record has a number too far on, and the broker answers
OUT_OF_ORDER_SEQUENCE_NUMBER to it and to all that come after, until the program makes another producer.
"""

from __future__ import annotations

import asyncio

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError
from aiokafka.producer.message_accumulator import MessageBatch

from ottla.explore import World, checks, explore

PAYMENTS = 30
TOPICS = {"payments": 1}


async def bank(bootstrap: str, request_timeout_ms: int) -> None:
    """Sends a payment again after an error that says that this is worth trying."""
    producer = AIOKafkaProducer(
        bootstrap_servers=bootstrap,
        enable_idempotence=True,
        request_timeout_ms=request_timeout_ms,
        metadata_max_age_ms=1_000,
    )
    await producer.start()
    for number in range(PAYMENTS):
        while True:
            try:
                await producer.send_and_wait("payments", b"payment %d" % number)
                break
            except KafkaError as error:
                if not error.retriable:
                    raise
                await asyncio.sleep(0.2)
        await asyncio.sleep(0.2)
    await producer.stop()


async def every_payment_is_there(world: World, request_timeout_ms: int) -> None:
    world.program("bank", bank, world.bootstrap, request_timeout_ms)
    # Until it has connected.
    await asyncio.sleep(0.5)
    await world.run(10)
    await world.settle(10)
    payments = await world.records("payments")
    assert {record.value for record in payments} == {b"payment %d" % number for number in range(PAYMENTS)}
    checks.in_order(payments, lambda record: int((record.value or b"").split()[1]))


@explore(nodes=2, topics=TOPICS, faults=["kill"])
async def given_up(world: World) -> None:
    await every_payment_is_there(world, request_timeout_ms=1_000)


@explore(nodes=2, topics=TOPICS, faults=["kill"])
async def patient(world: World) -> None:
    """It waits for longer than the cluster is ever without a leader here."""
    await every_payment_is_there(world, request_timeout_ms=60_000)


@explore(nodes=2, topics=TOPICS, faults=["kill"])
async def never_given_up(world: World) -> None:
    """Nothing expires with idempotence, as aiokafka means it. Each run is a process of its own."""
    MessageBatch.expired = lambda batch: False
    await every_payment_is_there(world, request_timeout_ms=1_000)
