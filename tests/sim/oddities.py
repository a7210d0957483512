"""Tests whose runs do not come to an end, or not to theirs, explored by `test_explore_workers.py`."""

from __future__ import annotations

import logging
import os
import random
import sys
from itertools import repeat
from uuid import uuid4

import pytest

from ottla.explore import World, explore

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


@explore(faults="calm", nodes=1)
async def takes_all_memory(world: World) -> None:
    bytearray(2**45)


@explore(faults="calm", nodes=1)
async def tells_an_address(world: World) -> None:
    raise ValueError(hex(id(COUNTED)))


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
