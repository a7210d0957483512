"""Bug 8: what could not be sent is sent again behind what came later.

People believe: each message is by itself, so those that failed may go last.
What happens: the state of an order goes back. "paid" failed and comes again behind "shipped".
Mended: nothing goes on until the one before it is acknowledged. With `enable_idempotence=True` the client
sends again by itself and keeps the order, for as long as it takes.
"""

from __future__ import annotations

import asyncio

from aiokafka.errors import KafkaError
from clients import IDLE_S, new_producer

from ottla.explore import World, checks, explore

STATES = 30
TOPICS = {"states": 2}
FAULTS = {"lose": 3, "break": 1, "slow-link": 1}


async def orders(bootstrap: str, is_mended: bool) -> None:
    producer = new_producer(bootstrap, enable_idempotence=is_mended, acks="all", request_timeout_ms=1_000)
    await producer.start()
    waiting = [(b"order %d" % (state % 3), b"%d" % state) for state in range(STATES)]
    while waiting:
        failed = []
        for key, state in waiting:
            await asyncio.sleep(0.1)
            try:
                await producer.send_and_wait("states", state, key=key)
            except KafkaError:
                if is_mended:
                    raise
                failed.append((key, state))
        waiting = failed
    await producer.stop()


def state_of(record: checks.StoredRecord) -> int:
    assert record.value is not None
    return int(record.value)


async def states_never_go_back(world: World, is_mended: bool) -> None:
    world.program("orders", orders, world.bootstrap, is_mended)
    # Until it has connected.
    await asyncio.sleep(0.5)
    await world.run(5)
    await world.settle(IDLE_S)
    states = await world.records("states")
    assert {state_of(record) for record in states} == set(range(STATES))
    checks.in_order(states, state_of)


@explore(seeds=500, nodes=1, topics=TOPICS, faults=FAULTS)
async def bug(world: World) -> None:
    await states_never_go_back(world, is_mended=False)


@explore(seeds=2000, nodes=1, topics=TOPICS, faults=FAULTS)
async def mended(world: World) -> None:
    await states_never_go_back(world, is_mended=True)
