"""The virtual loop: time that jumps, processes that are paused, busy or dead."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine
from typing import Any

import pytest

from measuring import not_waiting
from ottla.explore.world.loop import CURRENT, Deadlock, OutOfTime, Process, VirtualLoop
from ottla.explore.world.machine import EPOCH_MS, Machine


@pytest.fixture
def loop() -> Any:
    made = VirtualLoop()
    yield made
    made.close()
    assert not made.failures


def test_time_jumps_and_order_is_that_of_timers(loop: VirtualLoop) -> None:
    seen: list[tuple[float, str]] = []

    async def wait(seconds: float, name: str) -> None:
        await asyncio.sleep(seconds)
        seen.append((loop.time(), name))

    async def main() -> None:
        await asyncio.gather(wait(3600, "c"), wait(1, "a"), wait(1, "b"), wait(0.000_001, "first"))

    with not_waiting(3600):
        loop.run(main(), time_max_s=4000)
    assert seen == [(0.000_001, "first"), (1, "a"), (1, "b"), (3600, "c")]


def test_a_cancelled_timer_does_not_move_time(loop: VirtualLoop) -> None:
    async def main() -> None:
        loop.call_later(50, lambda: None).cancel()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.sleep(20), 10)
        assert loop.time() == 10

    loop.run(main())


def test_a_run_that_waits_for_nothing_is_a_deadlock(loop: VirtualLoop) -> None:
    async def main() -> None:
        await loop.create_future()

    with pytest.raises(Deadlock):
        loop.run(main())


def test_a_run_that_never_ends_is_ended(loop: VirtualLoop) -> None:
    async def sleep() -> None:
        while True:
            await asyncio.sleep(1)

    async def spin() -> None:
        while True:
            await asyncio.sleep(0)

    with pytest.raises(OutOfTime):
        loop.run(sleep(), time_max_s=100)
    with pytest.raises(OutOfTime):
        loop.run(spin(), steps_max=1000)


def test_what_a_callback_raises_is_reported_and_the_rest_goes_on() -> None:
    loop = VirtualLoop()

    async def main() -> str:
        loop.call_soon(lambda: 1 // 0)
        await asyncio.sleep(1)
        return "done"

    assert loop.run(main()) == "done"
    assert "ZeroDivisionError" in loop.failures[0]
    loop.close()


def test_real_threads_are_refused(loop: VirtualLoop) -> None:
    async def main() -> None:
        with pytest.raises(NotImplementedError):
            await asyncio.to_thread(time.sleep, 1)

    loop.run(main())


async def tick(log: list[float], loop: VirtualLoop) -> None:
    while True:
        await asyncio.sleep(1)
        log.append(loop.time())


def test_whatever_a_process_starts_belongs_to_it(loop: VirtualLoop) -> None:
    process = Process("p")
    seen: list[Process | None] = []

    async def child() -> None:
        seen.append(CURRENT.get())
        loop.call_soon(lambda: seen.append(CURRENT.get()))
        loop.call_later(1, lambda: seen.append(CURRENT.get()))
        future = loop.create_future()
        future.add_done_callback(lambda _: seen.append(CURRENT.get()))
        future.set_result(None)

    async def parent() -> None:
        await asyncio.create_task(child())

    async def main() -> None:
        await loop.spawn(process, parent())
        await asyncio.sleep(2)
        assert CURRENT.get() is None

    loop.run(main())
    assert seen == [process] * 4


def test_a_paused_process_does_nothing_until_it_goes_on(loop: VirtualLoop) -> None:
    paused, other = Process("paused"), Process("other")
    log: list[float] = []
    others: list[float] = []

    async def main() -> None:
        loop.spawn(paused, tick(log, loop))
        loop.spawn(other, tick(others, loop))
        await asyncio.sleep(2.5)
        loop.pause(paused)
        await asyncio.sleep(5)
        assert log == [1, 2]
        loop.resume(paused)
        await asyncio.sleep(1.2)

    loop.run(main())
    # The timer that was due meanwhile runs at once, and what follows from it in its own time.
    assert log == [1, 2, 7.5, 8.5]
    assert others == [1, 2, 3, 4, 5, 6, 7, 8]


def test_a_busy_process_is_late_and_others_are_not(loop: VirtualLoop) -> None:
    busy, other = Process("busy"), Process("other")
    log: list[float] = []
    others: list[float] = []

    async def work() -> None:
        await asyncio.sleep(1)
        loop.charge(busy, 250_000)
        loop.charge(busy, 250_000)
        await asyncio.sleep(0)
        log.append(loop.time())

    async def main() -> None:
        loop.spawn(busy, work())
        loop.spawn(other, tick(others, loop))
        await asyncio.sleep(3)

    loop.run(main())
    assert log == [1.5]
    assert others[0] == 1


def test_nothing_of_a_dead_process_runs_not_even_its_cleanup(loop: VirtualLoop) -> None:
    process = Process("doomed")
    log: list[str] = []

    async def work() -> None:
        try:
            await asyncio.sleep(1)
            log.append("went on")
        finally:
            log.append("cleaned up")

    async def main() -> None:
        loop.spawn(process, work())
        process.context.run(loop.call_later, 1, log.append, "timer")
        await asyncio.sleep(0.5)
        loop.kill(process)
        loop.hand_over(process, "a connection", log.append, "handed over")
        await asyncio.sleep(5)

    loop.run(main())
    assert log == []


def test_a_process_is_struck_after_so_many_of_its_own_steps(loop: VirtualLoop) -> None:
    struck, other = Process("struck"), Process("other")
    log: list[int] = []

    async def work(is_struck: bool) -> None:
        for number in range(10):
            if is_struck:
                log.append(number)
            await asyncio.sleep(0)

    async def main() -> None:
        loop.spawn(other, work(False))
        loop.spawn(struck, work(True))
        struck.after_steps(4, lambda: loop.kill(struck))
        await asyncio.sleep(1)

    loop.run(main())
    assert log == [0, 1, 2, 3]


def test_dying_while_paused_is_for_ever(loop: VirtualLoop) -> None:
    process = Process("doomed")
    log: list[float] = []

    async def main() -> None:
        loop.spawn(process, tick(log, loop))
        await asyncio.sleep(1.5)
        loop.pause(process)
        await asyncio.sleep(1)
        loop.kill(process)
        loop.resume(process)
        await asyncio.sleep(5)

    loop.run(main())
    assert log == [1]


def test_clocks_jump_and_count_from_the_boot(loop: VirtualLoop) -> None:
    machine = Machine(loop, "m", "10.0.0.1")
    fired: list[int] = []

    async def main() -> None:
        await asyncio.sleep(2)
        machine.wall_offset_ms = -60_000
        assert machine.clock.now_ms() == EPOCH_MS - 58_000
        assert machine.clock.monotonic_ms() == 2000
        machine.clock.call_later(300, lambda: fired.append(machine.clock.monotonic_ms()))
        await asyncio.sleep(1)
        machine.boot()
        assert machine.clock.monotonic_ms() == 0

    loop.run(main())
    # A timer for a deadline in whole milliseconds is not early by a rounding error.
    assert fired == [2300]


@pytest.mark.parametrize("kind", ["tasks", "futures"])
def test_a_set_of_tasks_or_futures_is_gone_through_in_the_same_order_wherever_they_lie(kind: str) -> None:
    """By default their addresses order them, and `asyncio.wait` goes through sets."""

    def order(junk: int) -> list[int]:
        made = VirtualLoop()  # type: ignore[abstract]
        kept = []

        async def main() -> list[int]:
            ones: list[Any] = []
            for number in range(100):
                # Of their size, and in their way.
                kept.append([asyncio.Future(loop=made) for _ in range(number * junk % 7)])
                ones.append(made.create_future() if kind == "futures" else made.create_task(asyncio.sleep(0)))
            return [ones.index(one) for one in set(ones)]

        found = made.run(main())
        made.close()
        return found

    assert order(0) == order(1) == order(3)


def test_the_order_of_work_repeats(loop: VirtualLoop) -> None:
    def run() -> list[int]:
        made, log = VirtualLoop(), []

        async def worker(number: int) -> None:
            for turn in range(10):
                await asyncio.sleep((number * 7919 + turn) % 13 / 1000)
                log.append(number)

        async def main() -> None:
            await asyncio.gather(*(worker(number) for number in range(20)))

        made.run(main())
        made.close()
        return log

    assert run() == run()


def test_an_async_generator_that_is_left_is_closed(loop: VirtualLoop) -> None:
    log: list[str] = []

    async def numbers() -> Any:
        try:
            while True:
                yield 1
        finally:
            await asyncio.sleep(1)
            log.append("closed")

    async def take() -> None:
        async for _ in numbers():
            break

    def start(work: Coroutine[Any, Any, None]) -> Coroutine[Any, Any, None]:
        return work

    async def main() -> None:
        await start(take())
        await asyncio.sleep(2)

    loop.run(main())
    assert log == ["closed"]
