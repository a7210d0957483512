"""Two programs whose library keeps its idle threads by the event loop, explored by `test_threads.py`."""

from __future__ import annotations

import asyncio
import time

import anyio

from ottla.explore import World, explore


async def asking(name: str, asked_s: list[float], others: list[str]) -> None:
    """What it does in threads comes to its end, whoever was killed with a thread of his own."""
    tasks = [asyncio.current_task(), asyncio.create_task(asyncio.sleep(1e6), name=name)]
    while True:
        await anyio.to_thread.run_sync(time.sleep, 0.01)
        await asyncio.sleep(0.2)
        asked_s.append(time.monotonic())
        others += [str(task) for task in asyncio.all_tasks() if task not in tasks]


@explore(faults="calm", nodes=1)
async def threads_and_tasks_of_each(world: World) -> None:
    asked_s: dict[str, list[float]] = {"one": [], "two": []}
    others: list[str] = []
    programs = [world.program(name, asking, name, asked_s[name], others) for name in asked_s]
    for program in programs:
        await world.run(2)
        program.kill()
        program.start()
    since_s = world.now_s
    await world.run(5)
    assert not others
    for times_s in asked_s.values():
        assert times_s[-1] > since_s + 4, times_s
