"""Thousands of clients that ask at once: what else the event loop has to do comes in between."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from coordinators_support import ManualClock

from ottla.broker.memory import Memory
from ottla.broker.pipeline import Pipeline
from ottla.broker.request import Client
from ottla.broker.turn import CONNECTING_ROUND_MS, RECEIVED_AT_ONCE_MAX, ROUND_MS, Turn
from ottla.env.slices import Slices
from ottla.types import Buffer

CLIENTS = 4 * RECEIVED_AT_ONCE_MAX


class Outlet:
    """What is sent to a client."""

    def __init__(self) -> None:
        self.sent = 0

    def write(self, pieces: Any) -> None:
        self.sent += 1

    def receive(self, go_on: bool) -> None:
        return

    def close(self) -> None:
        return


class CountedTurn(Turn):
    """Knows what it said to whom came."""

    def __init__(self, clock: ManualClock) -> None:
        super().__init__(clock, Slices())
        self.asked: list[bool] = []

    def admits(self) -> bool:
        self.asked.append(super().admits())
        return self.asked[-1]


class Crowd:
    """Clients, each with one request that takes a millisecond, and what is handled of them, in order."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.handled: list[int] = []
        self.bad: int | None = None
        self.memory = Memory()
        self.outlets = [Outlet() for _ in range(CLIENTS)]
        self.turn = turn = CountedTurn(self.clock)
        self.pipelines = [
            Pipeline(Client("h", "PLAINTEXT"), self.handle, outlet, self.memory, turn)
            for outlet in self.outlets
        ]
        # What had been handled when the loop came to what it does in each of its rounds.
        self.beats: list[int] = []

    def handle(self, client: Client, frame: Buffer) -> list[bytes]:
        number = int.from_bytes(frame)
        self.handled.append(number)
        self.clock.ms += 1
        if number == self.bad:
            raise RuntimeError("a bug")
        return [b"answer"]

    def ask(self) -> None:
        for number, pipeline in enumerate(self.pipelines):
            pipeline.received((number.to_bytes(4),))

    async def watch(self, rounds: int = CLIENTS) -> None:
        for _ in range(rounds):
            self.beats.append(len(self.handled))
            await asyncio.sleep(0)


def test_the_loop_gets_its_turn_between_the_requests_of_thousands() -> None:
    async def body() -> None:
        crowd = Crowd()
        crowd.ask()
        assert len(crowd.handled) <= RECEIVED_AT_ONCE_MAX + ROUND_MS
        assert crowd.memory.request_bytes == 4 * (CLIENTS - len(crowd.handled)), "what waits is counted"
        await crowd.watch()
        assert crowd.handled == list(range(CLIENTS)), "nobody is overtaken"
        assert max(b - a for a, b in zip(crowd.beats, crowd.beats[1:], strict=False)) <= ROUND_MS
        assert {outlet.sent for outlet in crowd.outlets} == {1}
        assert crowd.memory.request_bytes == 0
        # And so it is the next time.
        crowd.ask()
        await crowd.watch()
        assert crowd.handled == 2 * list(range(CLIENTS))

    asyncio.run(body())


@pytest.mark.parametrize("together", [1, 2])
def test_what_comes_is_counted_once_however_it_is_handled(together: int) -> None:
    """Counted twice it would have rounds begin after half as many."""

    async def body() -> None:
        crowd = Crowd()
        asked = crowd.turn.asked
        for number, pipeline in enumerate(crowd.pipelines):
            pipeline.received((number.to_bytes(4),) * together)
        assert len(asked) == CLIENTS and not asked[-1]
        await crowd.watch(2 * CLIENTS)
        assert crowd.handled == sorted(list(range(CLIENTS)) * together)
        assert len(asked) == CLIENTS, "who was put off is not asked for again"

    asyncio.run(body())


def test_rounds_are_short_while_clients_connect() -> None:
    """Else some of thousands that come back at once would wait for a minute."""

    async def body() -> None:
        crowd = Crowd()
        crowd.ask()
        for _ in range(20):
            crowd.turn.connected()
            await crowd.watch(1)
        steps = [b - a for a, b in zip(crowd.beats[2:], crowd.beats[3:], strict=False)]
        assert steps and set(steps) == {CONNECTING_ROUND_MS}

    asyncio.run(body())


def test_who_asks_while_others_wait_comes_behind_them() -> None:
    async def body() -> None:
        crowd = Crowd()
        crowd.ask()
        await crowd.watch(3)
        assert len(crowd.handled) < CLIENTS
        crowd.pipelines[0].received(((7_000).to_bytes(4),))
        await crowd.watch()
        assert crowd.handled == [*range(CLIENTS), 7_000]

    asyncio.run(body())


@pytest.mark.parametrize("how", ["gone", "lost", "closed", "drained"])
def test_a_client_that_ends_while_it_waits(how: str) -> None:
    async def body() -> None:
        crowd = Crowd()
        crowd.ask()
        last = crowd.pipelines[-1]
        {"gone": last.gone, "lost": last.lost, "closed": last.close, "drained": last.drain}[how]()
        await crowd.watch()
        # As at a stop: what has come is answered.
        assert crowd.handled == list(range(CLIENTS if how == "drained" else CLIENTS - 1))
        assert crowd.memory.request_bytes == 0

    asyncio.run(body())


def test_a_fault_of_one_is_not_that_of_those_behind_it(caplog: pytest.LogCaptureFixture) -> None:
    async def body() -> None:
        crowd = Crowd()
        crowd.bad = CLIENTS - 100
        crowd.ask()
        await crowd.watch()
        assert crowd.handled == list(range(CLIENTS))
        assert "put off failed" in caplog.text

    asyncio.run(body())


def test_few_clients_do_not_make_the_loop_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """To be told of the next round costs one: not at each request."""

    async def body() -> None:
        crowd = Crowd()
        loop = asyncio.get_running_loop()
        asked: list[Any] = []
        monkeypatch.setattr(loop, "call_soon", lambda *of, **more: asked.append(of))
        for number in range(RECEIVED_AT_ONCE_MAX):
            crowd.pipelines[0].received((number.to_bytes(4),))
        assert not asked
        crowd.pipelines[0].received((b"\0",))
        assert len(asked) == 1
        monkeypatch.undo()

    asyncio.run(body())
