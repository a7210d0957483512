"""Programs with bugs, of which `test_story.py` reads the stories. What goes wrong is said by the tests."""

from __future__ import annotations

import asyncio

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.errors import KafkaError

from ottla.explore import World, checks, explore


async def bank(bootstrap: str) -> None:
    """Sends again what was not answered, and may have arrived."""
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, request_timeout_ms=2000, acks=1)
    await producer.start()
    for number in range(3):
        while True:
            try:
                await producer.send_and_wait("payments", b"payment %d" % number)
                break
            except KafkaError:
                await asyncio.sleep(0.5)
        await asyncio.sleep(1)
    await producer.stop()


def _ways(world: World, name: str) -> tuple[str, str]:
    return world.nodes[1].machine.host, world.programs[name].machine.host


@explore(seeds=1, nodes=1, topics={"payments": 1}, faults="calm")
async def paid_twice(world: World) -> None:
    world.program("bank", bank, world.bootstrap)
    await world.run(0.5)
    world.fabric.cut(*_ways(world, "bank"))
    await world.run(4)
    world.fabric.heal(*_ways(world, "bank"))
    await world.settle(idle_s=5)
    checks.nothing_twice(await world.records("payments"))


@explore(seeds=1, nodes=1, topics={"payments": 1}, faults="calm")
async def not_paid(world: World) -> None:
    world.program("bank", bank, world.bootstrap)
    await world.run(0.5)
    world.fabric.cut(*_ways(world, "bank"))
    await world.run(1.2)
    world.nodes[1].kill()
    raise AssertionError("nothing was paid")


async def late(bootstrap: str) -> None:
    """Begins at the end of what it has no offset of."""
    consumer = AIOKafkaConsumer(
        "payments",
        bootstrap_servers=bootstrap,
        group_id="late",
        auto_offset_reset="latest",
        enable_auto_commit=False,
    )
    await consumer.start()
    async for _ in consumer:
        pass


@explore(seeds=1, nodes=1, topics={"payments": 1, "booked": 1}, faults="calm")
async def read_too_late(world: World) -> None:
    world.program("bank", bank, world.bootstrap)
    await world.run(0.5)
    world.program("late", late, world.bootstrap, restarts=True)
    await world.settle(idle_s=5)
    checks.nothing_lost(await world.records("payments"), await world.records("booked"))


# What changes a terminal, begins a line, turns a reader's eye around, is no XML, or is a script.
HOSTILE = "\x1b[2J\r\n\x9b\u202eevil\x00\ufffe</script><script>alert(1)</script>'\"]]>&"


async def hostile(bootstrap: str) -> None:
    print(HOSTILE)
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap)
    consumer = AIOKafkaConsumer(
        "payments", bootstrap_servers=bootstrap, group_id=HOSTILE, auto_offset_reset="earliest"
    )
    await producer.start()
    await consumer.start()
    await producer.send_and_wait("payments", HOSTILE.encode(), key=HOSTILE.encode())
    await consumer.getone()
    await consumer.commit()
    await asyncio.sleep(100)


@explore(seeds=1, nodes=1, topics={"payments": 1}, faults=["program-pause"])
async def is_hostile(world: World) -> None:
    world.program("shop \x1b<b>", hostile, world.bootstrap, restarts=True)
    await world.run(10)
    raise checks.Broken(f"lost: {HOSTILE}\udc80", await world.records("payments"))
