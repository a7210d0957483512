"""Requests to other nodes: connections that are made when they are needed, fail, and are lost."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from coordinators_support import ManualClock, settle

from ottla.replication.nodes import ANSWER_MS_MAX, Nodes
from ottla.wire.apis import API_VERSIONS
from ottla.wire.messages import RequestHeader, frame_response, read_header

FIELDS = {"error_code": 0, "api_keys": []}


class Transport:
    """The other end: what is written to it, and answers."""

    def __init__(self, protocol: Any) -> None:
        self.protocol = protocol
        self.written: list[bytes] = []
        self.closed = False

    def write(self, data: bytes) -> None:
        self.written.append(data)

    def answer(self, place: int = 0) -> None:
        header = read_header(self.written[place][4:])
        reply = RequestHeader(API_VERSIONS, 0, header.correlation_id, None, 0)
        data = b"".join(frame_response(reply, FIELDS))
        self.protocol.get_buffer(-1)[: len(data)] = data
        self.protocol.buffer_updated(len(data))

    def abort(self) -> None:
        if not self.closed:
            self.closed = True
            asyncio.get_running_loop().call_soon(self.protocol.connection_lost, None)


class Network:
    def __init__(self) -> None:
        self.transports: list[Transport] = []
        self.error: Exception | None = None
        self.may_connect = asyncio.Event()
        self.may_connect.set()
        self.asked: list[tuple[str, int]] = []

    async def connect(self, factory: Callable[[], Any], host: str, port: int) -> None:
        self.asked.append((host, port))
        await self.may_connect.wait()
        if self.error is not None:
            raise self.error
        protocol = factory()
        transport = Transport(protocol)
        self.transports.append(transport)
        protocol.connection_made(transport)


class Bench:
    def __init__(self) -> None:
        self.network = Network()
        self.clock = ManualClock()
        self.endpoints = {2: ("h", 9), 3: ("i", 9)}
        self.nodes = Nodes("me", self.network, self.clock, self.endpoints.get)  # type: ignore[arg-type]
        self.answers: list[Any] = []

    def ask(self, node_id: int = 2) -> None:
        self.nodes.ask(node_id, API_VERSIONS, 0, {}, self.answers.append)


def story(tell: Callable[[Bench], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    def test() -> None:
        async def main() -> None:
            await tell(Bench())

        asyncio.run(main())

    return test


@story
async def test_one_connection_to_each_node_has_all_requests(bench: Bench) -> None:
    bench.network.may_connect.clear()
    bench.ask()
    bench.ask()
    bench.ask(3)
    await settle()
    assert sorted(bench.network.asked) == [("h", 9), ("i", 9)]
    bench.network.may_connect.set()
    await settle()
    first, second = bench.network.transports
    assert [len(first.written), len(second.written)] == [2, 1]
    bench.ask()
    assert len(first.written) == 3
    for place in range(3):
        first.answer(place)
    assert [answer.error_code for answer in bench.answers] == [0, 0, 0]
    second.answer()
    assert len(bench.answers) == 4
    assert not bench.clock.timers


@pytest.mark.parametrize("error", [ConnectionRefusedError, ValueError, None])
def test_a_node_that_cannot_be_reached_answers_nothing(error: type[Exception] | None) -> None:
    async def main() -> None:
        bench = Bench()
        # One of its own: an error keeps its traceback, and with it the connections of a test that is over.
        bench.network.error = error and error("no, or a name that is none")
        if error is None:
            # It is not registered.
            bench.endpoints.clear()
        bench.ask()
        bench.ask()
        await settle()
        assert bench.answers == [None, None]
        bench.network.error = None
        bench.endpoints[2] = ("h", 10)
        bench.ask()
        await settle()
        bench.network.transports[0].answer()
        assert bench.answers[2].error_code == 0

    asyncio.run(main())


@story
async def test_a_connection_that_is_lost_answers_nothing_more(bench: Bench) -> None:
    bench.ask()
    bench.ask()
    await settle()
    (transport,) = bench.network.transports
    transport.answer()
    transport.abort()
    await settle()
    assert [answer is None for answer in bench.answers] == [False, True]
    bench.ask()
    await settle()
    bench.network.transports[1].answer()
    assert bench.answers[2] is not None


@story
async def test_who_does_not_answer_for_long_is_left(bench: Bench) -> None:
    bench.ask()
    bench.ask()
    await settle()
    (transport,) = bench.network.transports
    await bench.clock.advance(ANSWER_MS_MAX - 1)
    transport.answer()
    await bench.clock.advance(ANSWER_MS_MAX - 1)
    assert not transport.closed
    await bench.clock.advance(1)
    assert transport.closed
    assert [answer is None for answer in bench.answers] == [False, True]


@story
async def test_who_is_registered_no_more_is_left_at_once(bench: Bench) -> None:
    bench.network.may_connect.clear()
    bench.ask()
    await settle()
    # That one is on its way to who is registered now.
    bench.nodes.leave([2, 4])
    bench.network.may_connect.set()
    await settle()
    bench.ask(3)
    await settle()
    bench.nodes.leave([2])
    await settle()
    first, second = bench.network.transports
    assert [first.closed, second.closed] == [True, False]
    assert bench.answers == [None]


@story
async def test_at_the_end_nobody_is_told_anything(bench: Bench) -> None:
    bench.ask()
    await settle()
    bench.network.may_connect.clear()
    bench.ask(3)
    await settle()
    bench.nodes.close()
    await settle()
    assert bench.network.transports[0].closed
    assert bench.answers == []
    assert not bench.clock.timers


@story
async def test_an_answer_that_cannot_be_taken_harms_nobody_else(bench: Bench) -> None:
    def fail(response: Any) -> None:
        raise ValueError("a bug")

    bench.nodes.ask(2, API_VERSIONS, 0, {}, fail)
    bench.ask()
    await settle()
    (transport,) = bench.network.transports
    transport.answer(0)
    transport.answer(1)
    assert len(bench.answers) == 1
