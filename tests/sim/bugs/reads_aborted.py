"""Bug 3: a consumer without `isolation_level` reads what was aborted.

People believe: what the producer writes in a transaction is there as a whole or not at all.
What happens: it is so for consumers that ask for it. By default a consumer reads records as they come, also
those of a transaction that is aborted later: here since the bank's process dies between two of them.
Mended: `isolation_level="read_committed"`.
"""

from __future__ import annotations

import asyncio
import random

from clients import CONFIG, IDLE_S, new_consumer, new_producer

from ottla.explore import World, checks, explore

TRANSFERS = 8
TOPICS = {"bookings": 1, "statement": 1}
FAULTS = {"program-kill": 3, "kill": 1}


async def bank(bootstrap: str) -> None:
    """Takes money from one account and gives it to another, in one transaction."""
    producer = new_producer(bootstrap, transactional_id="bank")
    await producer.start()
    for _ in range(TRANSFERS):
        transfer = random.randbytes(4).hex()
        async with producer.transaction():
            for side in ("from", "to"):
                await producer.send_and_wait("bookings", f"{transfer} {side} an account".encode())
                await asyncio.sleep(0.1)
    await producer.stop()


async def statement(bootstrap: str, is_mended: bool) -> None:
    isolation_level = "read_committed" if is_mended else "read_uncommitted"
    consumer = new_consumer(
        bootstrap,
        "bookings",
        group_id="statement",
        auto_offset_reset="earliest",
        isolation_level=isolation_level,
    )
    producer = new_producer(bootstrap, enable_idempotence=True)
    await consumer.start()
    await producer.start()
    async for booking in consumer:
        await producer.send_and_wait("statement", booking.value)
        await consumer.commit()


async def statement_has_what_was_booked(world: World, is_mended: bool) -> None:
    world.program("bank", bank, world.bootstrap, restarts=True)
    world.program("statement", statement, world.bootstrap, is_mended, restarts=True)
    await world.run(5)
    await world.settle(IDLE_S)
    booked, told = await world.records("bookings"), await world.records("statement")
    checks.nothing_lost(booked, told)
    checks.nothing_else(booked, told)


@explore(seeds=500, nodes=1, topics=TOPICS, faults=FAULTS, config=CONFIG)
async def bug(world: World) -> None:
    await statement_has_what_was_booked(world, is_mended=False)


@explore(seeds=2000, nodes=1, topics=TOPICS, faults=FAULTS, config=CONFIG)
async def mended(world: World) -> None:
    await statement_has_what_was_booked(world, is_mended=True)
