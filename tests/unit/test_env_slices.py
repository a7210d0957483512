"""Long work in pieces: one piece in each turn of the loop, whoever's it is."""

from __future__ import annotations

import asyncio

from measuring import HANG_S
from ottla.env.slices import Slices


def test_one_piece_in_each_turn_and_each_in_its_turn() -> None:
    async def story() -> None:
        slices, turn, done = Slices(), 0, []

        async def work(name: str) -> None:
            for _ in range(3):
                done.append((name, turn))
                await slices.pause()

        async def clock() -> None:
            nonlocal turn
            while True:
                turn += 1
                await asyncio.sleep(0)

        ticking = asyncio.ensure_future(clock())
        await asyncio.gather(work("a"), work("b"), work("c"))
        ticking.cancel()
        # They began together; from then on no two had a piece in the same turn.
        assert [name for name, _ in done] == ["a", "b", "c"] * 3
        turns = [at for _, at in done[3:]]
        assert len(set(turns)) == len(turns)

    asyncio.run(story())


def test_who_no_longer_waits_takes_no_turn() -> None:
    async def story() -> None:
        slices = Slices()
        gone = asyncio.ensure_future(slices.pause())
        waiting = asyncio.ensure_future(slices.pause())
        await asyncio.sleep(0)
        gone.cancel()
        await asyncio.wait_for(waiting, HANG_S)
        # And again, once nobody waited.
        await asyncio.wait_for(slices.pause(), HANG_S)

    asyncio.run(story())
