"""Bug 12: a producer without idempotence sends again after an error.

People believe: a send that failed did not happen.
What happens: the record was written, and the answer was lost. The client sends it again by itself, or the
program does so after its timeout. The record is there twice.
Mended: `enable_idempotence=True`. The client sends again until it is answered, and the broker knows each
batch by its number. The program has nothing to send again.
"""

from __future__ import annotations

import asyncio

from aiokafka.errors import KafkaError
from clients import IDLE_S, new_producer

from ottla.explore import World, checks, explore

PAYMENTS = 30
TOPICS = {"payments": 2}
FAULTS = {"break": 4, "lose": 2, "slow-link": 1}


async def bank(bootstrap: str, is_mended: bool) -> None:
    producer = new_producer(bootstrap, enable_idempotence=is_mended, acks="all")
    await producer.start()
    for number in range(PAYMENTS):
        payment = b"payment %d" % number
        while True:
            try:
                await producer.send_and_wait("payments", payment, key=b"account %d" % (number % 4))
                break
            except KafkaError:
                if is_mended:
                    raise
        await asyncio.sleep(0.15)
    await producer.stop()


async def every_payment_is_there_once(world: World, is_mended: bool) -> None:
    world.program("bank", bank, world.bootstrap, is_mended)
    # Until it has connected.
    await asyncio.sleep(0.5)
    await world.run(5)
    await world.settle(IDLE_S)
    payments = await world.records("payments")
    assert {payment.value for payment in payments} == {b"payment %d" % number for number in range(PAYMENTS)}
    checks.nothing_twice(payments)


@explore(seeds=500, nodes=1, topics=TOPICS, faults=FAULTS)
async def bug(world: World) -> None:
    await every_payment_is_there_once(world, is_mended=False)


@explore(seeds=2000, nodes=1, topics=TOPICS, faults=FAULTS)
async def mended(world: World) -> None:
    await every_payment_is_there_once(world, is_mended=True)
