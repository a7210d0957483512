"""What is drawn of the order of simultaneous events, and what is promised in spite of it."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from contextvars import Context
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from ottla.explore.world.loop import Handle, Process, VirtualLoop
from ottla.explore.world.turns import TIMER, Turns

SEEDS = range(60)


def handle(name: str, source: object) -> Handle:
    return Handle(print, (name,), Context(), 0, source)


@given(st.integers(0, 1 << 16), st.lists(st.sampled_from([None, TIMER, "a", "b", "c"]), max_size=30))
def test_each_source_keeps_its_order_and_nothing_is_lost(seed: int, sources: list[object]) -> None:
    held = [handle(str(number), source) for number, source in enumerate(sources)]
    ordered = Turns(Random(seed)).in_turn(held)
    assert sorted(map(id, ordered)) == sorted(map(id, held))
    kept = defaultdict(list)
    for one in ordered:
        kept[one.source].append(held.index(one))
    assert all(numbers == sorted(numbers) for numbers in kept.values())
    # What was to run soon was ready before anything of this came.
    assert [one.source for one in ordered[: len(kept[None])]] == [None] * len(kept[None])


def test_any_of_two_connections_is_first_and_timers_are_before_or_behind_both() -> None:
    held = [handle("a", "a"), handle("timer", TIMER), handle("b", "b")]
    orders = {tuple(one._args[0] for one in Turns(Random(seed)).in_turn(held)) for seed in SEEDS}
    assert orders == {("a", "b", "timer"), ("b", "a", "timer"), ("timer", "a", "b"), ("timer", "b", "a")}


def order_of_timers(seed: int | None) -> str:
    loop, order = VirtualLoop(), []  # type: ignore[abstract]
    if seed is not None:
        loop.turns = Turns(Random(seed))

    async def main() -> None:
        for name in "abc":
            loop.call_later(1, order.append, name)
        loop.call_later(0.999_999, order.append, "early ")
        await asyncio.sleep(2)

    loop.run(main())
    loop.close()
    return "".join(order)


def test_timers_of_the_same_instant_come_in_any_order_and_earlier_ones_first() -> None:
    assert order_of_timers(None) == "early abc"
    orders = {order_of_timers(seed) for seed in SEEDS}
    assert len(orders) == 6
    assert all(order.startswith("early ") for order in orders)


def run_of_soon(seed: int, *, is_any_order: bool, is_program: bool = True) -> str:
    loop, order = VirtualLoop(), []  # type: ignore[abstract]
    loop.turns = Turns(Random(seed), is_any_order=is_any_order)
    process = Process("p", is_program=is_program)

    async def work() -> None:
        for name in "abcd":
            loop.call_soon(order.append, name)
        await asyncio.sleep(1)

    async def main() -> None:
        await loop.spawn(process, work())

    loop.run(main())
    loop.close()
    return "".join(order)


def test_callbacks_of_call_soon_keep_their_order_unless_any_order_is_wanted_of_programs() -> None:
    assert {run_of_soon(seed, is_any_order=False) for seed in SEEDS} == {"abcd"}
    assert {run_of_soon(seed, is_any_order=True, is_program=False) for seed in SEEDS} == {"abcd"}
    assert len({run_of_soon(seed, is_any_order=True) for seed in SEEDS}) > 10


def waits_of(seed: int) -> dict[str, int]:
    """How often each of two processes waited for its core, where it looks again and again."""
    loop, began = VirtualLoop(), set()  # type: ignore[abstract]
    loop.turns, loop.creep_us = Turns(Random(seed)), 1
    waits = {"one": 0, "two": 0}

    async def work(name: str) -> None:
        before = loop.time()
        began.add(before)
        for _ in range(2_000):
            await asyncio.sleep(0)
            waits[name] += loop.time() - before > 0.000_002_5
            before = loop.time()

    async def main() -> None:
        await asyncio.gather(*(loop.spawn(Process(name), work(name)) for name in waits))

    loop.run(main())
    loop.close()
    assert len(began) == 2
    return waits


def test_processes_begin_late_and_wait_for_a_core_in_some_runs() -> None:
    found = [waits_of(seed) for seed in range(1, 13)]
    assert any(not sum(waits.values()) for waits in found)
    assert any(waits["one"] and waits["two"] for waits in found)
    assert all(sum(waits.values()) < 100 for waits in found)
