"""Tests whose runs do not come to an end, or not to theirs, explored by `test_explore_workers.py`."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from itertools import repeat
from typing import Any
from uuid import uuid4

import pytest

from ottla.explore import World, checks, explore

COUNTED = []
DRAWN = f"{random.random()} {random.Random().random()} {uuid4()}"


@explore(faults="calm", nodes=1)
async def spins(world: World) -> None:
    async def spinner() -> None:
        while True:
            try:
                COUNTED.clear()
            except BaseException:  # noqa: BLE001 - what is raised here ends nothing
                continue

    world.program("spinner", spinner)
    await world.run(5)


@explore(faults="calm", nodes=1)
async def spins_in_c(world: World) -> None:
    print("before the sum")
    sum(repeat(1))


@explore(faults="calm", nodes=1)
async def ends_the_process(world: World) -> None:
    print("before the end")
    os._exit(3)


@explore(faults="calm", nodes=1)
async def logs_what_cannot_be_said(world: World) -> None:
    logging.getLogger("shop").warning("%d pairs of shoes", "no")
    raise ValueError("after the line")


@explore(faults="calm", nodes=1)
async def leaves(world: World) -> None:
    sys.exit("no more")


@explore(faults="calm", nodes=1)
async def fails_by_pytest(world: World) -> None:
    pytest.fail("no boots")


@explore(faults="calm", nodes=1)
async def has_a_program_that_fails_by_pytest(world: World) -> None:
    async def shop() -> None:
        pytest.fail("no shoes")

    world.program("shop", shop)
    await world.run(1)


@explore(faults=["kill"], nodes=1)
async def has_a_fault_that_fails(world: World) -> None:
    """Otherwise no fault would strike any more, and whatever it is would pass."""
    world.faults._weights = [0.0]
    await world.run(20)


class Exiting(asyncio.Protocol):
    """Ends its program when it is sent something."""

    def data_received(self, data: bytes) -> None:
        sys.exit(7)


async def answering() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"hello")

    async with await asyncio.start_server(answer, port=80) as server:
        await server.serve_forever()


async def exits_in(what: Callable[[], Any]) -> None:
    """Ends by something that is done beside it."""
    loop = asyncio.get_running_loop()

    async def work() -> None:
        await asyncio.sleep(1)
        found = what()
        if asyncio.iscoroutine(found):
            await found

    task = loop.create_task(work())
    await asyncio.sleep(100)
    task.cancel()


def interrupted() -> None:
    raise KeyboardInterrupt


def exits_in_c() -> None:
    """Nothing behind it happens, as where the process is no more."""
    try:
        os._exit(3)
    finally:
        asyncio.get_running_loop().call_soon(COUNTED.append, 1)


async def exits_in_a_callback() -> None:
    asyncio.get_running_loop().call_soon(sys.exit, "no more")


async def exits_in_a_protocol() -> None:
    await asyncio.get_running_loop().create_connection(Exiting, "answering", 80)


@explore(faults="calm", nodes=1)
async def has_programs_that_exit(world: World) -> None:
    world.program("answering", answering, restarts=True)
    ways = {
        "SystemExit(3)": partial(sys.exit, 3),
        "KeyboardInterrupt()": interrupted,
        "SystemExit(3) ": exits_in_c,
        "SystemExit('no more')": exits_in_a_callback,
        "SystemExit(7)": exits_in_a_protocol,
        "": partial(os._exit, 0),
    }
    programs = [world.program(f"p{at}", exits_in, way, restarts=True) for at, way in enumerate(ways.values())]
    await world.run(2.5)
    assert [", ".join(map(repr, one.errors)) for one in programs] == [*map(str.strip, ways)]
    assert [one.done for one in programs] == [False] * 5 + [True]
    assert not COUNTED


@explore(faults="calm", nodes=1)
async def has_a_program_that_exits(world: World) -> None:
    world.program("shop", exits_in, partial(sys.exit, 3))
    await world.run(20)


@explore(faults="calm", nodes=1)
async def has_a_program_that_is_interrupted(world: World) -> None:
    world.program("shop", exits_in, interrupted)
    await world.run(20)


@explore(faults={"program-kill": 1}, nodes=1)
async def has_a_fault_that_fails_later(world: World) -> None:
    """It strikes after some steps of the program, or at once, and the program starts again later."""
    shop = world.program("shop", answering, restarts=True)

    def fail() -> None:
        raise KeyError("of Ottla's")

    shop.start = fail  # type: ignore[method-assign]
    await world.run(100)


@explore(faults=["restart"], nodes=1)
async def has_a_fault_with_a_task_that_fails(world: World) -> None:
    async def fail() -> None:
        raise KeyError("of Ottla's")

    world.nodes[1].stop = fail  # type: ignore[method-assign]
    await world.run(100)


@explore(faults="calm", nodes=1)
async def gives_a_coroutine(world: World) -> None:
    world.program("shop", answering())


@explore(faults="calm", nodes=1)
async def gives_no_name(world: World) -> None:
    world.program(print, "shop")  # type: ignore[arg-type]


@explore(faults="calm", nodes=1)
async def does_not_await(world: World) -> None:
    world.run(5)
    assert world.now_s < 5


@explore(faults="calm", nodes=1)
async def asserts_by_seed(world: World) -> None:
    seed = world.seed
    assert seed == 0


@explore(faults="calm", nodes=1)
async def awaits_neither(world: World) -> None:
    world.run(5)
    world.settle()
    await world.records("orders")


async def refused_and_goes_on(*, spins: bool) -> None:
    while True:
        with suppress(Exception):
            time.sleep(1)
        if not spins:
            await asyncio.sleep(1)


async def refused_once() -> None:
    with suppress(Exception):
        time.sleep(2)


@explore(faults="calm", nodes=1)
async def is_refused_and_settles(world: World) -> None:
    world.program("shop", partial(refused_and_goes_on, spins=False))
    await world.settle()


@explore(faults="calm", nodes=1)
async def is_refused_and_spins(world: World) -> None:
    world.program("shop", partial(refused_and_goes_on, spins=True))
    await world.run(5)


@explore(faults="calm", nodes=1)
async def is_refused_at_the_end(world: World) -> None:
    await world.program("shop", refused_once).finished()


@explore(faults="calm", nodes=1)
async def is_refused_and_fails(world: World) -> None:
    await world.program("shop", refused_once).finished()
    raise ValueError("no shoes")


@explore(faults="calm", nodes=1, topics={"orders": 1})
async def checks_what_it_has_not_awaited(world: World) -> None:
    checks.nothing_twice(world.records("orders"))  # type: ignore[arg-type]


@explore(faults="calm", nodes=1, topics={"orders": 1})
async def misspells_a_topic(world: World) -> None:
    assert await world.records("orders") == []
    await world.records("order")


async def misspelt(begun: list[float], last_s: float) -> None:
    """Works after so long."""
    begun.append(asyncio.get_running_loop().time())
    if begun[-1] < last_s:
        raise AttributeError("no shoez")
    await asyncio.sleep(1000)


@explore(faults="calm", nodes=1)
async def has_a_program_that_never_works(world: World) -> None:
    world.program("shop", misspelt, [], 1000.0, restarts=True)
    await world.run(20)


@explore(faults="calm", nodes=1)
async def has_a_program_that_works_later(world: World) -> None:
    world.program("shop", misspelt, begun := [], 15.0, restarts=True)
    await world.run(20)
    assert len(begun) > 10


@explore(faults="calm", nodes=1)
async def takes_all_memory(world: World) -> None:
    bytearray(2**45)


@explore(faults="calm", nodes=1)
async def takes_much_memory(world: World) -> None:
    """As much as there may be, which is held until the run is told of."""
    taken: list[bytes] = []
    for size in (2**30, 2**20, 2**12):
        with suppress(MemoryError):
            while len(taken) < 100_000:
                # Of zeros, which no page is needed for.
                taken.append(bytes(size))
    bytearray(2**45)


@explore(faults="calm", nodes=1)
async def tells_what_was_drawn(world: World) -> None:
    raise ValueError(DRAWN)


@explore(faults="calm", nodes=1)
async def counts(world: World) -> None:
    """Whatever one run leaves behind is not there for the next."""
    COUNTED.append(1)
    assert len(COUNTED) == 1


@explore(faults="earthquake")
async def shaken(world: World) -> None:
    """No such fault."""


@explore(faults=["program-pause", "kill", "break"], seeds=7)
async def listed(world: World) -> None:
    """Fails if ever two programs stand still at once; the strikes are in the run."""

    async def waiting() -> None:
        await world.loop.create_future()

    for name in ("one", "two"):
        world.program(name, waiting)
    await world.run(30)
    raise AssertionError(f"the end of {world.longest_run_s:.0f} s")
