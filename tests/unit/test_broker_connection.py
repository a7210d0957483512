"""One connection on a fake transport: order, back-pressure, and what becomes of clients that misbehave."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from coordinators_support import ManualClock

from ottla.broker import connection as connection_module
from ottla.broker.connection import Connection, Pending
from ottla.broker.context import CloseConnection
from ottla.broker.deferred import Deferred, Turn
from ottla.broker.server import Server, ServerLimits
from ottla.wire.messages import MalformedMessage


class Clock(ManualClock):
    """Time that passes in one step."""

    def step(self, delay_ms: int) -> None:
        self.ms += delay_ms
        for timer in [timer for timer in self.timers if timer.at_ms <= self.ms]:
            self.timers.remove(timer)
            timer.callback()


class Transport:
    """Takes what is written; ``high`` bytes unsent stop the protocol, as asyncio's transports do."""

    def __init__(self, protocol: Connection, high: int = 1 << 30) -> None:
        self.protocol = protocol
        self.high = high
        self.sent = b""
        self.unsent = 0
        self.reading = True
        self.closing = self.aborted = False
        self.switches = 0
        protocol.connection_made(self)  # type: ignore[arg-type]

    def get_extra_info(self, name: str) -> Any:
        return ("10.0.0.1", 5) if name == "peername" else None

    def write(self, data: bytes) -> None:
        if self.aborted:
            return
        self.sent += data
        self.unsent += len(data)
        if self.unsent > self.high:
            self.protocol.pause_writing()

    def writelines(self, pieces: list[bytes]) -> None:
        self.write(b"".join(pieces))

    def get_write_buffer_size(self) -> int:
        return self.unsent

    def pause_reading(self) -> None:
        assert self.reading
        self.reading = False
        self.switches += 1

    def resume_reading(self) -> None:
        assert not self.reading
        self.reading = True
        self.switches += 1

    def close(self) -> None:
        self.closing = True

    def abort(self) -> None:
        self.closing = self.aborted = True

    def drain(self) -> None:
        """The client has read everything."""
        self.unsent = 0
        self.protocol.resume_writing()

    def lose(self) -> None:
        self.protocol.connection_lost(None)


class Bench:
    """A server, one connection, and a dispatcher that does what each frame's first byte says."""

    def __init__(self, **limits: int) -> None:
        self.clock = Clock()
        network: Any = SimpleNamespace()
        self.server = Server(ServerLimits(**limits), self.clock, network, Turn())
        self.server.dispatch = self.dispatch
        self.pending: dict[bytes, Pending] = {}
        self.handled: list[bytes] = []
        self.on_cancel: Callable[[], None] | None = None
        self.connection, self.transport = self.connect()

    def connect(self, high: int = 1 << 30) -> tuple[Connection, Transport]:
        connection = Connection(self.server)
        return connection, Transport(connection, high)

    def dispatch(self, connection: Connection, frame: Any) -> Any:
        request = bytes(frame)
        self.handled.append(request)
        match request[:1]:
            case b"p" | b"b":
                self.pending[request] = Pending(request[:1] == b"b", self.on_cancel)
                return self.pending[request]
            case b"d":
                done = Pending(blocks=True)
                done.resolve([request])
                return done
            case b"x":
                raise CloseConnection("asked to")
            case b"m":
                raise MalformedMessage("nonsense")
            case b"0":
                return None
            case b"a":
                # Its handling answers an earlier request: an append commits what another has waited for.
                self.answer(request[1:])
        return [request]

    def receive(self, *requests: bytes, raw: bytes = b"") -> None:
        data = b"".join(struct.pack(">i", len(request)) + request for request in requests) + raw
        while data:
            room = self.connection.get_buffer(-1)
            count = min(len(room), len(data))
            room[:count] = data[:count]
            data = data[count:]
            self.connection.buffer_updated(count)

    def answer(self, request: bytes, pieces: list[bytes] | None = None) -> None:
        self.pending[request].resolve([request] if pieces is None else pieces)


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_what_follows_a_pending_produce_is_handled_and_answered_behind_it(bench: Bench) -> None:
    bench.receive(b"p1", b"r2", b"p3", b"04", b"r5")
    assert bench.handled == [b"p1", b"r2", b"p3", b"04", b"r5"] and not bench.transport.sent
    bench.answer(b"p3")
    assert not bench.transport.sent
    bench.answer(b"p1")
    assert bench.transport.sent == b"p1r2p3r5"


def test_a_request_that_answers_one_before_it_is_answered_before_those_behind_it(bench: Bench) -> None:
    bench.receive(b"p1", b"ap1", b"r3", b"p4", b"ap4", b"r6")
    assert bench.handled == [b"p1", b"ap1", b"r3", b"p4", b"ap4", b"r6"]
    assert bench.transport.sent == b"p1ap1r3p4ap4r6"
    bench.receive(b"r7")
    assert bench.transport.sent.endswith(b"r7") and bench.transport.reading


def test_what_follows_a_request_that_blocks_is_not_handled_before_its_answer(bench: Bench) -> None:
    bench.receive(b"b1", b"r2", b"b3", b"r4")
    assert bench.handled == [b"b1"]
    bench.answer(b"b1")
    assert bench.handled == [b"b1", b"r2", b"b3"] and bench.transport.sent == b"b1r2"
    bench.answer(b"b3")
    assert bench.transport.sent == b"b1r2b3r4"


def test_a_blocking_request_that_is_done_waits_for_the_answer_before_it(bench: Bench) -> None:
    bench.receive(b"p1", b"b2", b"r3")
    bench.answer(b"b2")
    assert bench.handled == [b"p1", b"b2"]
    bench.answer(b"p1")
    assert bench.transport.sent == b"p1b2r3"


def test_thousands_of_answers_that_are_there_at_once_need_no_stack(bench: Bench) -> None:
    requests = [b"d%d" % i for i in range(5_000)]
    bench.receive(*requests)
    assert bench.transport.sent == b"".join(requests) and bench.transport.reading


def test_a_client_with_too_many_requests_in_hand_is_not_read_from(bench: Bench) -> None:
    bench.receive(b"b1", *[b"r"] * connection_module.QUEUED_REQUESTS_MAX)
    assert not bench.transport.reading
    bench.answer(b"b1")
    assert bench.transport.reading and bench.connection.idle


def test_a_client_with_too_many_answers_pending_is_not_read_from(bench: Bench) -> None:
    requests = [b"p%d" % i for i in range(connection_module.PENDING_REPLIES_MAX)]
    bench.receive(*requests)
    assert not bench.transport.reading
    for request in reversed(requests):
        bench.answer(request)
    assert bench.transport.reading and bench.transport.sent == b"".join(requests)


@pytest.mark.parametrize("first", [b"b", b"p"])
def test_a_client_with_too_many_bytes_in_hand_is_not_read_from(bench: Bench, first: bytes) -> None:
    """Queued behind a long poll, or kept by a Produce that waits for the disk."""
    large = bytes(connection_module.HELD_BYTES_MAX // 4)
    bench.receive(first + b"0" + large)
    for number in b"123":
        assert bench.transport.reading
        bench.receive(b"p%d" % number + large)
    assert bench.transport.reading is (first == b"b")
    bench.receive(b"p9" + large)
    assert not bench.transport.reading
    for request in (first + b"0", *(b"p%d" % number for number in b"123"), b"p9"):
        bench.answer(request + large)
    assert bench.transport.reading and bench.connection.idle


def test_a_client_that_does_not_read_is_neither_served_nor_read_from(bench: Bench) -> None:
    bench.transport.high = 3
    bench.receive(b"r1", b"r2", b"r3")
    assert bench.handled == [b"r1", b"r2"] and not bench.transport.reading
    bench.transport.drain()
    assert bench.transport.sent == b"r1r2r3" and bench.transport.reading
    assert bench.transport.switches == 2


def test_what_came_before_nonsense_is_answered(bench: Bench) -> None:
    bench.receive(b"r1", b"p2", b"m3", b"r4")
    assert bench.handled[-1] == b"m3" and not bench.transport.closing and not bench.transport.reading
    bench.answer(b"p2")
    assert bench.transport.sent == b"r1p2" and bench.transport.closing and not bench.transport.aborted
    bench.receive(b"r5")
    assert bench.handled[-1] == b"m3"


def test_what_came_before_a_size_that_cannot_be_is_answered(bench: Bench) -> None:
    bench.receive(b"r1", b"p2", raw=struct.pack(">i", -1))
    bench.answer(b"p2")
    assert bench.transport.sent == b"r1p2" and bench.transport.closing


def test_a_request_that_ends_the_connection_later_takes_those_behind_it_along(bench: Bench) -> None:
    cancelled: list[int] = []
    bench.on_cancel = lambda: cancelled.append(1)
    bench.receive(b"p1", b"p2", b"p3", b"r4")
    bench.pending[b"p2"].fail(CloseConnection("asked to"))
    assert not bench.transport.closing
    bench.answer(b"p1")
    assert bench.transport.sent == b"p1" and bench.transport.closing and cancelled == [1]
    bench.answer(b"p3")
    assert bench.transport.sent == b"p1"


def test_a_connection_that_is_ending_ends_even_where_the_last_answer_fails(bench: Bench) -> None:
    bench.receive(b"p1", b"x2")
    assert not bench.transport.closing
    bench.pending[b"p1"].fail(CloseConnection("asked to"))
    assert bench.transport.closing and not bench.transport.sent


def test_a_lost_connection_cancels_what_waits_for_it_and_hears_no_more(bench: Bench) -> None:
    cancelled: list[int] = []
    bench.on_cancel = lambda: cancelled.append(1)
    bench.receive(b"p1", b"b2", b"r3")
    bench.transport.lose()
    assert cancelled == [1, 1] and not bench.server.connections
    bench.answer(b"p1")
    bench.answer(b"b2")
    bench.receive(b"r4")
    assert not bench.transport.sent and b"r4" not in bench.handled


def test_an_aborted_connection_is_written_to_no_more(bench: Bench) -> None:
    bench.receive(b"b1", b"r2")
    bench.server.disconnect()
    bench.answer(b"b1", [])
    assert bench.transport.aborted and bench.handled == [b"b1"]


def test_silence_ends_a_connection_and_waiting_does_not() -> None:
    bench = Bench(idle_ms_max=1_000)
    bench.server._schedule_sweep()
    waiting, waiting_transport = bench.connection, bench.transport
    bench.receive(b"b1")
    bench.connection, silent = bench.connect()
    bench.receive(b"r1")
    bench.connection, half = bench.connect()
    bench.receive(raw=b"\0\0\0\1")
    bench.clock.step(1_000)
    assert not silent.closing and not half.closing
    bench.clock.step(1_000)
    assert silent.closing and half.closing and not waiting_transport.closing
    bench.clock.step(5_000)
    assert not waiting.idle and not waiting_transport.closing


def test_a_client_that_never_reads_is_dropped_with_all_that_it_holds() -> None:
    """Such a connection is not even seen to end: nothing is read from it."""
    bench = Bench(idle_ms_max=1_000)
    bench.server._schedule_sweep()
    bench.transport.high = 1
    bench.receive(b"r1", b"r2", b"r3")
    bench.clock.step(1_000)
    assert not bench.transport.closing
    bench.transport.drain()
    bench.clock.step(1_000)
    assert not bench.transport.closing
    bench.clock.step(1_000)
    assert bench.transport.aborted


def test_a_close_that_cannot_finish_is_finished_by_the_sweep() -> None:
    bench = Bench(idle_ms_max=1_000)
    bench.server._schedule_sweep()
    bench.receive(b"r1")
    for _ in range(2):
        bench.clock.step(1_000)
    # The bytes of the answer were never read.
    assert bench.transport.closing and not bench.transport.aborted
    bench.clock.step(1_000)
    assert bench.transport.aborted


@pytest.mark.parametrize("reads", [True, False])
def test_a_stop_answers_what_came_and_waits_until_it_is_written(
    monkeypatch: pytest.MonkeyPatch, reads: bool
) -> None:
    monkeypatch.setattr("ottla.broker.server.DRAIN_MS_MAX", 50)

    async def main() -> None:
        bench = Bench()
        bench.receive(b"b1", b"r2")
        stopping = asyncio.ensure_future(bench.server.stop())
        await asyncio.sleep(0)
        assert not bench.transport.reading and not bench.transport.closing
        bench.answer(b"b1")
        await asyncio.sleep(0.02)
        assert bench.transport.sent == b"b1r2" and not bench.transport.closing
        if reads:
            bench.transport.drain()
        bench.clock.step(50)
        await stopping
        assert bench.transport.closing and bench.transport.aborted is not reads
        # Whoever comes now is sent away.
        assert bench.connect()[1].aborted

    asyncio.run(main())


def test_a_listener_that_fails_does_not_keep_the_others_waiting() -> None:
    turn = Turn()
    ran: list[int] = []
    turn.begin()
    turn.soon(lambda: ran.append(1))
    turn.soon(lambda: 1 // 0)  # type: ignore[arg-type, return-value]
    turn.soon(lambda: turn.soon(lambda: ran.append(2)))
    turn.end()
    assert ran == [1, 2]


def test_a_task_that_is_cancelled_cancels_what_it_waits_for() -> None:
    async def main() -> None:
        cancelled: list[int] = []
        deferred: Deferred[int] = Deferred(lambda: cancelled.append(1))

        async def wait() -> int:
            return await deferred

        task = asyncio.ensure_future(wait())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert cancelled == [1]
        assert await ready(7) == 7

    async def ready(value: int) -> int:
        deferred: Deferred[int] = Deferred()
        deferred.resolve(value)
        return await deferred

    asyncio.run(main())
