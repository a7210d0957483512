"""Work in a thread that nobody waits for."""

from __future__ import annotations

import asyncio
import threading

import pytest

from measuring import HANG_S
from ottla.env.aside import aside


def test_what_work_returns_and_raises_comes_back() -> None:
    def fails() -> None:
        raise OSError("no")

    async def body() -> None:
        assert await aside(threading.get_ident) != threading.get_ident()
        with pytest.raises(OSError, match="no"):
            await aside(fails)

    asyncio.run(body())


def test_a_loop_ends_while_work_goes_on_and_nobody_hears_of_its_end() -> None:
    began, goes_on, ended = threading.Event(), threading.Event(), threading.Event()

    def work() -> None:
        began.set()
        goes_on.wait(HANG_S)
        ended.set()

    async def body() -> None:
        waiting = asyncio.ensure_future(aside(work))
        while not began.is_set():
            await asyncio.sleep(0)
        waiting.cancel()

    asyncio.run(body())
    assert not ended.is_set()
    goes_on.set()
    assert ended.wait(HANG_S)
    [left] = [one for one in threading.enumerate() if one.name == "ottla-aside"] or [None]
    if left is not None:
        left.join(HANG_S)


def test_who_was_cancelled_is_not_told() -> None:
    goes_on = threading.Event()

    async def body() -> None:
        told: list[object] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
        waiting = asyncio.ensure_future(aside(lambda: goes_on.wait(HANG_S)))
        await asyncio.sleep(0)
        waiting.cancel()
        goes_on.set()
        assert await aside(lambda: True)
        for _ in range(3):
            await asyncio.sleep(0)
        assert not told

    asyncio.run(body())
