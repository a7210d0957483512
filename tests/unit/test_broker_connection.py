"""One connection on a fake transport: order, back-pressure, and what becomes of clients that misbehave."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from coordinators_support import ManualClock

from ottla.broker import pipeline
from ottla.broker import turn as turns
from ottla.broker.connection import Connection
from ottla.broker.memory import STRANGERS_BYTES_MAX, Memory
from ottla.broker.pending import Pending
from ottla.broker.request import Client, CloseConnection
from ottla.broker.server import PRESSURE_MS, Server, ServerLimits
from ottla.broker.turn import Turn
from ottla.env.deferred import Deferred
from ottla.env.slices import Slices
from ottla.wire.messages import MalformedMessage

LARGE_REPLY_BYTES = 1024 * 1024
# A frame that counts as large, in bytes without its size.
LARGE_FRAME = 100 * 1024


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
        self.sent = self.sent_before_close = b""
        self.unsent = self.writes = 0
        self.reading = True
        self.paused = self.closing = self.aborted = False
        self.switches = 0
        protocol.connection_made(self)  # type: ignore[arg-type]

    def get_extra_info(self, name: str) -> Any:
        return ("10.0.0.1", 5) if name == "peername" else None

    def write(self, data: bytes) -> None:
        if self.aborted:
            return
        self.writes += 1
        self.sent += data
        self.unsent += len(data)
        if self.unsent > self.high and not self.paused:
            self.paused = True
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

    def is_closing(self) -> bool:
        return self.closing

    def close(self) -> None:
        self.closing = True
        self.sent_before_close = self.sent

    def abort(self) -> None:
        self.closing = self.aborted = True

    def drain(self) -> None:
        """The client has read everything."""
        self.unsent = 0
        self.paused = False
        self.protocol.resume_writing()

    def lose(self) -> None:
        self.protocol.connection_lost(None)


class OthersServed(Slices):
    """Work that waits for its turn of the event loop; where there is none it comes when the test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.put_off: list[Callable[[], object]] = []

    def soon(self, work: Callable[[], object]) -> None:
        if asyncio._get_running_loop() is not None:
            super().soon(work)
        else:
            self.put_off.append(work)

    def __call__(self) -> None:
        while self.put_off:
            self.put_off.pop(0)()


class Bench:
    """A server, one connection, and a handler that does what each frame's first byte says."""

    def __init__(self, **limits: int) -> None:
        self.clock = Clock()
        network: Any = SimpleNamespace()
        self.others_served = OthersServed()
        self.server = Server(
            ServerLimits(**limits), self.clock, network, Turn(self.clock, self.others_served), Memory()
        )
        self.server.handle = self.handle
        self.server.serve()
        self.pending: dict[bytes, Pending] = {}
        self.handled: list[bytes] = []
        self.on_cancel: Callable[[], None] | None = None
        self.connection, self.transport = self.connect()

    def connect(self, high: int = 1 << 30) -> tuple[Connection, Transport]:
        connection = Connection(self.server)
        return connection, Transport(connection, high)

    def handle(self, client: Client, frame: Any) -> Any:
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
            case b"t":
                self.clock.ms += 3
                return [request]
            case b"0":
                return None
            case b"l":
                return [bytes(LARGE_REPLY_BYTES)]
            case b"a":
                # Its handling answers an earlier request: an append commits what another has waited for.
                self.answer(request[1:])
            case b"c":
                self.answer(request[1:])
                return Pending(True, self.on_cancel)
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


def test_requests_wait_until_there_is_somebody_to_serve_them() -> None:
    bench = Bench()
    bench.server.serves = False
    bench.connection, bench.transport = bench.connect()
    assert not bench.transport.reading
    bench.receive(b"r1", b"r2")
    _, transport = bench.connect()
    transport.lose()
    assert not bench.handled
    bench.server.serve()
    bench.others_served()
    assert bench.transport.sent == b"r1r2"
    assert bench.transport.reading
    bench.receive(b"r3")
    assert bench.transport.sent == b"r1r2r3"


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
    bench.receive(b"b1", *[b"r"] * pipeline.QUEUED_REQUESTS_MAX)
    assert not bench.transport.reading
    bench.answer(b"b1")
    assert bench.transport.reading and bench.connection.idle


def test_a_client_with_too_many_answers_pending_is_not_read_from(bench: Bench) -> None:
    requests = [b"p%d" % i for i in range(pipeline.PENDING_REPLIES_MAX)]
    bench.receive(*requests)
    assert not bench.transport.reading
    for request in reversed(requests):
        bench.answer(request)
    assert bench.transport.reading and bench.transport.sent == b"".join(requests)


def test_answers_behind_one_that_waits_are_counted_as_they_are_made(bench: Bench) -> None:
    """Neither many small ones nor a few large ones pile up, however many requests came in one piece."""
    bench.receive(b"p1", *[b"r"] * 1000)
    assert len(bench.handled) == pipeline.PENDING_REPLIES_MAX and not bench.transport.reading
    bench.answer(b"p1")
    assert len(bench.handled) == 1001 and bench.transport.reading and bench.connection.idle
    bench.receive(b"p2", *[b"l"] * 100)
    made = len(bench.handled) - 1002
    assert LARGE_REPLY_BYTES * (made - 1) < pipeline.HELD_BYTES_MAX <= LARGE_REPLY_BYTES * made
    assert bench.server.memory.unsent_bytes == LARGE_REPLY_BYTES * made
    bench.answer(b"p2")
    assert len(bench.handled) == 1102 and bench.transport.reading and bench.server.memory.unsent_bytes == 0


def test_large_answers_that_are_written_late_are_counted_too(bench: Bench) -> None:
    """Those that come on top of what the client does not take."""
    bench.transport.high = 1
    bench.receive(b"p1", *[b"l"] * 3)
    bench.answer(b"p1")
    assert bench.server.memory.unsent_bytes == bench.transport.unsent == 3 * LARGE_REPLY_BYTES + 2
    bench.transport.drain()
    assert bench.server.memory.unsent_bytes == 0


def test_what_is_not_sent_rises_and_returns(bench: Bench) -> None:
    bench.transport.high = 3
    bench.receive(b"r1")
    assert bench.server.memory.unsent_bytes == 0
    bench.receive(b"r2")
    assert bench.server.memory.unsent_bytes == 4
    bench.transport.drain()
    assert bench.server.memory.unsent_bytes == 0
    bench.receive(b"r1", b"r2")
    other, _ = bench.connect()
    assert bench.server.memory.unsent_bytes == 4
    bench.transport.lose()
    assert bench.server.memory.unsent_bytes == 0 and list(bench.server.connections) == [other]


def test_clients_that_hold_much_wait_while_the_memory_is_full(bench: Bench) -> None:
    bench.server.memory.request_bytes_max = 3 * LARGE_FRAME
    bench.on_cancel = lambda: None
    large = bytes(LARGE_FRAME - 2)
    benches = [(bench.connection, bench.transport)] + [bench.connect() for _ in range(4)]
    for number, (connection, _) in enumerate(benches):
        bench.connection = connection
        bench.receive(b"p%d" % number + large)
    assert bench.server.memory.request_bytes == 5 * LARGE_FRAME
    bench.others_served()
    assert [transport.reading for _, transport in benches] == [True, True, True, False, False]
    # One that holds nothing is served as ever.
    bench.connection, small = bench.connect()
    bench.receive(b"r1")
    assert small.sent == b"r1" and small.reading
    benches[0][1].lose()
    assert not benches[3][1].reading
    for number in (1, 2):
        bench.answer(b"p%d" % number + large)
    assert all(transport.reading for _, transport in benches[1:])
    for number in (3, 4):
        bench.answer(b"p%d" % number + large)
    assert bench.server.memory.request_bytes == 0


def test_who_waits_for_room_though_there_is_some_goes_on_after_a_while(bench: Bench) -> None:
    bench.server._relieve()
    large = bytes(LARGE_FRAME - 2)
    bench.server.memory.request_bytes_max = LARGE_FRAME
    benches = [bench.connect() for _ in range(3)]
    for number, (connection, _) in enumerate(benches):
        bench.connection = connection
        bench.receive(b"p%d" % number + large)
    bench.others_served()
    assert [transport.reading for _, transport in benches] == [True, False, False]
    bench.server.memory.request_bytes_max = 4 * LARGE_FRAME
    bench.clock.step(PRESSURE_MS)
    assert all(transport.reading for _, transport in benches)


def test_a_request_that_keeps_others_waiting_is_closed(bench: Bench) -> None:
    """It has begun, and hardly goes on, while the memory is full; one that goes on may take its time."""
    bench.server._relieve()
    half = struct.pack(">i", 4 * LARGE_FRAME) + bytes(2 * LARGE_FRAME)
    stalled, stalled_transport = bench.connection, bench.transport
    bench.receive(raw=half)
    bench.connection, going = bench.connect()
    bench.receive(raw=half)
    bench.clock.step(PRESSURE_MS)
    bench.clock.step(PRESSURE_MS)
    assert not stalled_transport.closing
    bench.server.memory.request_bytes_max = 2 * LARGE_FRAME
    bench.clock.step(PRESSURE_MS)
    bench.receive(raw=bytes(LARGE_FRAME))
    bench.clock.step(PRESSURE_MS)
    assert stalled_transport.aborted and not going.closing
    stalled_transport.lose()
    bench.transport = going
    bench.receive(raw=bytes(LARGE_FRAME))
    assert bench.handled and bench.server.memory.request_bytes == 0 and stalled.drained


def test_who_was_not_listened_to_is_not_closed_for_having_sent_nothing(bench: Bench) -> None:
    bench.server._relieve()
    memory = bench.server.memory
    memory.request_bytes_max = LARGE_FRAME
    half = struct.pack(">i", 4 * LARGE_FRAME) + bytes(2 * LARGE_FRAME)
    connections = []
    for _ in range(3):
        bench.connection, transport = bench.connect()
        bench.receive(raw=half)
        connections.append((bench.connection, transport))
    bench.others_served()
    assert [transport.reading for _, transport in connections] == [True, False, False]
    bench.clock.step(PRESSURE_MS)
    # There is room for the others, for a moment.
    memory.request_bytes_max = 100 * LARGE_FRAME
    for connection, _ in connections[1:]:
        connection._pipeline.memory_is_free()
    assert all(transport.reading for _, transport in connections)
    memory.request_bytes_max = LARGE_FRAME
    bench.clock.step(PRESSURE_MS)
    assert [transport.aborted for _, transport in connections] == [True, False, False]
    bench.clock.step(PRESSURE_MS)
    assert all(transport.aborted for _, transport in connections)


def test_who_has_not_logged_in_takes_no_room_that_others_need(bench: Bench) -> None:
    memory = bench.server.memory
    half = struct.pack(">i", 4 * LARGE_FRAME) + bytes(2 * LARGE_FRAME)
    strangers = []
    while memory.strangers_bytes < STRANGERS_BYTES_MAX - 4 * LARGE_FRAME:
        bench.connection, transport = bench.connect()
        bench.connection.distrust(1 << 20)
        bench.receive(raw=half)
        strangers.append((bench.connection, transport))
    assert memory.strangers_bytes == memory.request_bytes and not any(t.closing for _, t in strangers)
    for _ in range(4):
        bench.connection, late = bench.connect()
        bench.connection.distrust(1 << 20)
        bench.receive(raw=half)
    assert late.closing and memory.strangers_bytes <= STRANGERS_BYTES_MAX + 4 * LARGE_FRAME
    # What a login takes is small.
    bench.connection, small = bench.connect()
    bench.connection.distrust(1 << 20)
    bench.receive(b"r1", raw=struct.pack(">i", 60_000) + bytes(50_000))
    assert small.sent == b"r1" and not small.closing
    # Who has logged in sends what it likes, and counts no more.
    bench.connection.trust()
    bench.receive(raw=bytes(10_000) + half)
    assert len(bench.handled) == 2 and not small.closing
    held = memory.strangers_bytes
    strangers[0][0].trust()
    assert memory.strangers_bytes < held
    for connection in list(bench.server.connections):
        connection.connection_lost(None)
    assert memory.strangers_bytes == memory.request_bytes == 0


@pytest.mark.parametrize("first", [b"b", b"p"])
def test_a_client_with_too_many_bytes_in_hand_is_not_read_from(
    bench: Bench, first: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Queued behind a long poll, or kept by a Produce that waits for the disk."""
    monkeypatch.setattr("ottla.wire.framing.frame_bytes_max", lambda key: 2**31 - 1)
    large = bytes(pipeline.HELD_BYTES_MAX // 4)
    bench.receive(first + b"0" + large)
    for number in b"123":
        bench.others_served()
        assert bench.transport.reading
        bench.receive(b"p%d" % number + large)
    bench.others_served()
    assert bench.transport.reading is (first == b"b")
    bench.receive(b"p9" + large)
    bench.others_served()
    assert not bench.transport.reading
    for request in (first + b"0", *(b"p%d" % number for number in b"123"), b"p9"):
        bench.answer(request + large)
    assert bench.transport.reading and bench.connection.idle


def test_after_each_large_request_it_is_the_turn_of_others(bench: Bench) -> None:
    """A transport whose buffer was filled receives again at once, many times."""
    for number in b"12":
        bench.receive(b"r%d" % number + bytes(LARGE_FRAME))
        assert len(bench.handled) == number - b"0"[0] and not bench.transport.reading
        bench.others_served()
        assert bench.transport.reading
    bench.receive(b"r3")
    assert bench.transport.reading


@pytest.mark.parametrize("small", [False, True])
def test_so_it_is_within_a_request_that_is_very_large_and_after_many_small_ones(
    bench: Bench, small: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ottla.wire.framing.frame_bytes_max", lambda key: 2**31 - 1)
    requests = [b"0"] * 20_000 if small else [b"r" + bytes(10 * 1024 * 1024)]
    data = b"".join(struct.pack(">i", len(request)) + request for request in requests)
    bytes_at_once_max = turns = 0
    while data:
        received = 0
        while data and bench.transport.reading:
            room = bench.connection.get_buffer(-1)
            count = min(len(room), len(data), 64 * 1024)
            room[:count] = data[:count]
            data = data[count:]
            bench.connection.buffer_updated(count)
            received += count
        bytes_at_once_max = max(bytes_at_once_max, received)
        turns += 1
        bench.others_served()
    assert bytes_at_once_max <= 64 * 1024 if small else bytes_at_once_max < 1200 * 1024
    assert turns > 1 and len(bench.handled) == len(requests) and bench.transport.reading


def test_it_is_not_read_from_after_its_turn_where_too_much_is_in_hand(bench: Bench) -> None:
    bench.receive(b"b0" + bytes(LARGE_FRAME), *(b"r1" for _ in range(pipeline.QUEUED_REQUESTS_MAX)))
    bench.others_served()
    assert not bench.transport.reading and bench.transport.switches == 1
    bench.receive(b"r" + bytes(LARGE_FRAME))
    bench.answer(b"b0" + bytes(LARGE_FRAME))
    assert not bench.transport.reading
    bench.others_served()
    assert bench.transport.reading and bench.transport.switches == 2


@pytest.mark.parametrize("end", ["abort", "lost"])
def test_a_connection_that_ends_while_others_are_served_is_left_alone(bench: Bench, end: str) -> None:
    bench.receive(b"r" + bytes(LARGE_FRAME))
    if end == "abort":
        bench.connection.abort()
    else:
        bench.transport.lose()
    bench.others_served()
    assert bench.transport.switches == 1


def test_answers_to_what_came_in_one_piece_are_sent_in_one(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.receive(b"r1", b"p2", b"r3", b"r4")
    assert bench.transport.sent == b"r1" and bench.transport.writes == 1
    bench.receive(b"ap2", b"r5")
    assert bench.transport.sent == b"r1p2r3r4ap2r5" and bench.transport.writes == 2
    bench.receive(b"r6")
    assert bench.transport.sent[-2:] == b"r6" and bench.transport.writes == 3
    # Large ones are not copied for that.
    bench.receive(b"r7", b"l", b"r8", b"r9")
    assert bench.transport.writes == 6 and len(bench.transport.sent) > LARGE_REPLY_BYTES
    monkeypatch.setattr(pipeline, "TOGETHER_BYTES_MAX", 4)
    bench.receive(*(b"r%d" % number for number in range(5)))
    assert bench.transport.writes == 9 and bench.transport.sent[-12:] == b"r9r0r1r2r3r4"


def test_what_is_handled_before_the_end_is_sent_before_it(bench: Bench) -> None:
    bench.receive(b"r1", b"r2", b"x3", b"r4")
    assert bench.transport.sent == b"r1r2" and bench.transport.sent_before_close == b"r1r2"


def test_a_client_that_does_not_read_is_neither_served_nor_read_from(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "TOGETHER_BYTES_MAX", 1)
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


@pytest.mark.parametrize("last", [b"ap1", b"cp1"])
def test_a_request_whose_handling_ends_the_connection_is_not_answered(bench: Bench, last: bytes) -> None:
    """It answers the first, behind which comes one that cannot be answered: nothing comes after that."""
    cancelled: list[int] = []
    bench.receive(b"p1", b"p2")
    bench.pending[b"p2"].fail(CloseConnection("asked to"))
    bench.on_cancel = lambda: cancelled.append(1)
    bench.receive(last, b"r4")
    assert bench.transport.sent == b"p1" and bench.transport.closing and bench.handled[-1] == last
    assert cancelled == ([1] if last == b"cp1" else [])


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


def test_a_connection_with_something_wrong_does_not_keep_others_from_being_looked_at(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bench = Bench(idle_ms_max=1_000)
    bench.server._schedule_sweep()
    _, idle = bench.connect()
    whole = Connection.end

    def end(connection: Connection) -> None:
        if connection is bench.connection:
            raise LookupError("what nobody thought of")
        whole(connection)

    monkeypatch.setattr(Connection, "end", end)
    bench.clock.step(1_000)
    bench.clock.step(1_000)
    assert idle.closing and not bench.transport.closing
    monkeypatch.undo()
    bench.clock.step(1_000)
    assert bench.transport.closing


@pytest.mark.parametrize("request_", [b"r", b"0"])
def test_a_client_that_keeps_asking_is_not_idle(request_: bytes) -> None:
    """Whether it waits for answers or not (acks=0), for many times as long as connections.max.idle.ms."""
    bench = Bench(idle_ms_max=1_000)
    bench.server._schedule_sweep()
    for _ in range(20):
        bench.clock.step(900)
        assert not bench.transport.closing
        bench.receive(request_)
    bench.clock.step(1_000)
    assert not bench.transport.closing
    bench.clock.step(1_000)
    assert bench.transport.closing


def test_a_client_that_has_taken_its_answers_at_last_is_not_idle() -> None:
    bench = Bench(idle_ms_max=1_000)
    bench.server._schedule_sweep()
    bench.transport.high = 1
    bench.receive(b"r1")
    bench.clock.step(1_000)
    bench.transport.drain()
    bench.clock.step(1_000)
    assert not bench.transport.closing
    bench.clock.step(1_000)
    assert bench.transport.closing


def test_a_client_whose_request_is_answered_at_last_has_its_idle_time_from_then_on() -> None:
    bench = Bench(idle_ms_max=1_000)
    bench.server._schedule_sweep()
    bench.receive(b"b1")
    bench.clock.step(3_000)
    bench.clock.step(999)
    bench.answer(b"b1")
    bench.clock.step(1)
    assert not bench.transport.closing and bench.transport.sent == b"b1"
    bench.clock.step(1_000)
    assert bench.transport.closing


def test_a_client_that_never_reads_is_dropped_with_all_that_it_holds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Such a connection is not even seen to end: nothing is read from it."""
    monkeypatch.setattr(pipeline, "TOGETHER_BYTES_MAX", 1)
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


def test_what_came_in_one_piece_is_not_handled_at_a_stretch() -> None:
    async def main() -> None:
        bench = Bench()
        other, transport = bench.connect()
        bench.receive(*(b"t%d" % number for number in range(9)))
        assert bench.handled == [b"t0", b"t1"]
        bench.receive(b"t9")
        assert len(bench.handled) == 2
        # Whoever else comes has their turn.
        bench.connection = other
        bench.receive(b"r")
        assert transport.sent == b"r"
        await asyncio.sleep(0)
        assert len(bench.handled) == 5
        for _ in range(10):
            await asyncio.sleep(0)
        assert bench.transport.sent == b"".join(b"t%d" % number for number in range(10))

    asyncio.run(main())


def test_what_many_have_waited_for_is_told_in_turns() -> None:
    async def main() -> None:
        clock = Clock()
        turn = Turn(clock, Slices())
        ran: list[int] = []

        def work(number: int) -> None:
            clock.ms += 3
            ran.append(number)

        turn.begin()
        for number in range(7):
            turn.soon(lambda number=number: work(number))  # type: ignore[misc]
        turn.end()
        assert ran == [0, 1]
        # What comes meanwhile waits behind them.
        turn.begin()
        turn.soon(lambda: work(7))
        turn.end()
        assert ran == [0, 1]
        await asyncio.sleep(0)
        assert ran == [0, 1, 2, 3]
        for _ in range(10):
            await asyncio.sleep(0)
        assert ran == list(range(8))

    asyncio.run(main())


def test_answers_that_are_made_together_are_sent_in_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    """So many at a time; each client's in order, and at once what is large, or comes before a close."""
    monkeypatch.setattr(turns, "GATHERED_MAX", 2)
    done: list[str] = []

    class Told(Transport):
        def write(self, data: bytes) -> None:
            done.append(f"sent {data[:2].decode()}")
            super().write(data)

        def close(self) -> None:
            done.append("closed")
            super().close()

    server = Bench().server
    transports = [Told(Connection(server)) for _ in range(7)]
    turn = server.turn

    def answer(number: int, *pieces: bytes) -> None:
        done.append(f"made {number}")
        for piece in pieces:
            transports[number].protocol.write([piece])
        turn.tidy(lambda: done.append(f"tidied {number}"))

    turn.begin()
    turn.soon(lambda: answer(0, b"a0"))
    turn.soon(lambda: answer(1, b"b0"))
    turn.soon(lambda: answer(2, b"c0", b"c1"))
    turn.soon(lambda: answer(3, b"d0"))
    turn.soon(lambda: answer(4, b"e0" * 10_000))
    turn.soon(lambda: answer(5, b"f0"))
    turn.soon(lambda: (answer(6, b"g0"), transports[6].protocol.close()))  # type: ignore[arg-type, return-value]
    turn.end()
    expected = """
        made 0, made 1, sent a0, sent b0, tidied 0, tidied 1, made 2, sent c0, sent c1,
        made 3, sent d0, tidied 2, tidied 3, made 4, sent e0, made 5, made 6, sent g0, closed,
        sent f0, tidied 4, tidied 5, tidied 6
    """
    assert done == [word.strip() for word in expected.split(",")]
    # One by itself is sent when it is made.
    done.clear()
    turn.begin()
    turn.soon(lambda: answer(0, b"a1"))
    turn.end()
    assert done == ["made 0", "sent a1", "tidied 0"]


def test_a_listener_that_fails_does_not_keep_the_others_waiting() -> None:
    turn = Turn(Clock(), Slices())
    ran: list[int] = []
    turn.begin()
    turn.soon(lambda: ran.append(1))
    turn.soon(lambda: 1 // 0)  # type: ignore[arg-type, return-value]
    turn.soon(lambda: turn.soon(lambda: ran.append(2)))
    turn.end()
    assert ran == [1, 2]


def test_what_is_made_of_a_value_comes_with_it() -> None:
    source: Deferred[int] = Deferred()
    told: list[Any] = []
    source.then(lambda value: value + 1).listen(lambda done: told.append(done.result()))
    assert told == []
    source.resolve(1)
    assert told == [2]
    failed: Deferred[int] = Deferred()
    failed.fail(ValueError("no value"))
    made = failed.then(lambda value: value + 1)
    assert made.failed and isinstance(made.error, ValueError)
    ready: Deferred[int] = Deferred()
    ready.resolve(0)
    assert isinstance(ready.then(lambda value: 1 // value).error, ZeroDivisionError)


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
