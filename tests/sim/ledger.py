"""A program that keeps a file, and one whose tasks run in turn: explored by `test_explore_faults.py`."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from ottla.explore import World, explore


async def keep(directory: Path) -> None:
    """Adds a line at each start, and one that it never flushes."""
    with open(directory / "starts", "a") as file:
        file.write("begun\n")
        file.flush()
        file.write("never flushed\n")
        await asyncio.sleep(1e6)


async def keeps(world: World) -> None:
    program = world.program("keeper", keep, world.directory("keeper"), restarts=True)
    await world.run(30)
    lines = (world.directory("keeper") / "starts").read_text().splitlines()
    assert lines == ["begun"] * program.starts, f"{len(lines)} of {program.starts} starts"


@explore(nodes=1, faults=["program-kill"])
async def keeps_a_file(world: World) -> None:
    await keeps(world)


@explore(nodes=1, faults=["program-disk"])
async def loses_a_file(world: World) -> None:
    await keeps(world)


@explore(nodes=1, faults="calm")
async def asks_for_its_directory(world: World) -> None:
    """It is the program itself that asks first."""

    async def keep_one() -> None:
        (world.directory("keeper") / "one").touch()

    await world.program("keeper", keep_one).finished()
    assert [file.name for file in world.directory("keeper").iterdir()] == ["one"]


@explore(nodes=1, faults=["program-disk"])
async def has_no_file(world: World) -> None:
    program = world.program("idle", asyncio.sleep, 1e6)
    await world.run(30)
    assert program.starts == 1


async def take_turns(order: list[str]) -> None:
    """Two tasks that asyncio runs in the order in which they were made."""

    async def turn(name: str) -> None:
        order.append(name)

    for _ in range(20):
        await asyncio.gather(turn("a"), turn("b"))


async def turns_alternate(world: World) -> None:
    order: list[str] = []
    await world.program("player", take_turns, order).finished()
    assert order == ["a", "b"] * 20


@explore(nodes=1, faults="calm")
async def in_order(world: World) -> None:
    await turns_alternate(world)


@explore(nodes=1, faults="calm", any_order=True)
async def in_any_order(world: World) -> None:
    await turns_alternate(world)


async def work(done: list[int]) -> None:
    """Idle for most of its time; what it does takes no time, and many steps."""
    while True:
        await asyncio.sleep(5)
        for number in range(400):
            done.append(number)
            await asyncio.sleep(0)


@explore(nodes=1, faults=["program-kill"])
async def is_never_killed_at_work(world: World) -> None:
    done: list[int] = []
    world.program("worker", work, done)
    await world.run(40)
    begun = done.count(0)
    assert len(done) == begun * 400


async def leave(code: int, left: list[int]) -> None:
    """A task of the program ends its process, whatever it waits for, as often as ``left`` is long."""
    if not left:
        await asyncio.sleep(1e6)
    left.pop()

    async def give_up() -> None:
        await asyncio.sleep(1)
        sys.exit(code)

    task = asyncio.create_task(give_up())
    await asyncio.sleep(1e6)
    await task


async def leaves(world: World, code: int) -> int:
    program = world.program("leaver", leave, code, [1, 2, 3], restarts=True)
    await world.run(10)
    return program.starts


@explore(nodes=1, faults="calm")
async def a_task_ends_the_program(world: World) -> None:
    assert await leaves(world, 3) > 2
    # Without an error it is done.
    other = world.program("done", leave, 0, [1], restarts=True)
    await world.run(10)
    assert (other.starts, other.done) == (1, True)
