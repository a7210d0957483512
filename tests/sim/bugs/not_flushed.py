"""Bug 4: a producer is not flushed at its end, and nobody looks whether its sends have succeeded.

People believe: `await producer.send()` has sent the record.
What happens: it has put the record into a buffer. The program returns, and what is still there is gone.
`stop()` alone does flush, but a record that could not be delivered fails its future, and nobody has that.
Mended: keep the futures, and await them all before the end. If one has failed, so does the program.
"""

from __future__ import annotations

import asyncio

from clients import IDLE_S, new_producer

from ottla.explore import World, explore

READINGS = 30
TOPICS = {"readings": 2}
FAULTS = ["break", "slow-link", "kill"]


async def sensor(bootstrap: str, is_mended: bool) -> None:
    # Longer than a node is down: aiokafka 0.14 gives up what waits longer, and cannot write on behind it.
    producer = new_producer(bootstrap, enable_idempotence=True, linger_ms=5, request_timeout_ms=40_000)
    await producer.start()
    sent = []
    for number in range(READINGS):
        await asyncio.sleep(0.05)
        sent.append(await producer.send("readings", b"reading %d" % number))
    if is_mended:
        await asyncio.gather(*sent)
        await producer.stop()


async def every_reading_is_there(world: World, is_mended: bool) -> None:
    world.program("sensor", sensor, world.bootstrap, is_mended)
    # Until it has connected.
    await asyncio.sleep(0.5)
    await world.run(3)
    await world.settle(IDLE_S)
    there = {record.value for record in await world.records("readings")}
    lost = [number for number in range(READINGS) if b"reading %d" % number not in there]
    assert not lost, f"readings {lost} are lost"


@explore(seeds=500, nodes=1, topics=TOPICS, faults=FAULTS)
async def bug(world: World) -> None:
    await every_reading_is_there(world, is_mended=False)


@explore(seeds=2000, nodes=1, topics=TOPICS, faults=FAULTS)
async def mended(world: World) -> None:
    await every_reading_is_there(world, is_mended=True)
