"""gRPC over one HTTP/2 connection: what is made of what a member sends, however it comes."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Coroutine
from typing import Any

import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import DataReceived, PingReceived, RequestReceived, StreamEnded, StreamReset
from hyperframe.frame import GoAwayFrame, PingFrame, SettingsFrame

from measuring import HANG_S
from ottla.env.network import ASK_AFTER_S, UNANSWERED_MS_MAX, watch_over
from ottla.metadata import etcd_messages as rpc
from ottla.metadata.etcd_channel import Channel, Stream
from ottla.metadata.etcd_client import Verdict, judge
from ottla.metadata.etcd_connection import (
    ASK_S,
    CALL_WINDOW_BYTES,
    NOT_CONNECTED,
    RECEIVE_BYTES_MAX,
    SILENT_S,
    UNREAD_BYTES_MAX,
    CallError,
    Code,
    Connection,
)

PATH = "/etcdserverpb.KV/Range"
REQUEST = rpc.RangeRequest(key=b"a")
ANSWER = rpc.RangeResponse(kvs=[rpc.KeyValue(key=b"a", value=b"1")])
OK = [("grpc-status", "0")]
HEADERS = [(":status", "200"), ("content-type", "application/grpc")]


class Wire(asyncio.Transport):
    """What the connection writes goes to a member, which is the test; ``deliver`` brings what that says."""

    def __init__(self) -> None:
        super().__init__()
        self.connection = Connection("h:1", "http")
        self.member = H2Connection(H2Configuration(client_side=False, header_encoding="utf-8"))
        self.member.initiate_connection()
        self.events: list[Any] = []
        self.aborted = False
        self.connection.connection_made(self)
        self.deliver()

    def write(self, data: Any) -> None:
        self.events += self.member.receive_data(bytes(data))

    def abort(self) -> None:
        if not self.aborted:
            self.aborted = True
            self.connection.connection_lost(None)

    def deliver(self, piece: int = 1 << 30) -> None:
        data = self.member.data_to_send() or b""
        for start in range(0, len(data), piece):
            self.connection.data_received(data[start : start + piece])

    def of(self, kind: type) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]

    def send(self, call_id: int, message: bytes) -> None:
        """A message, with its five bytes before it, as far as there is room."""
        data = b"\0" + len(message).to_bytes(4) + message
        while data:
            size = min(len(data), self.member.max_outbound_frame_size)
            self.member.send_data(call_id, data[:size])
            data = data[size:]


class Heard:
    """A call, and what was heard of it."""

    def __init__(self, wire: Wire, request: Any = REQUEST) -> None:
        self.messages: list[bytes] = []
        self.outcomes: list[CallError | None] = []
        self.call = wire.connection.begin(PATH, (("a", "b"),), self.messages.append, self.outcomes.append)
        self.call.send(request, last=True)

    @property
    def code(self) -> Code:
        (outcome,) = self.outcomes
        assert outcome is not None
        return outcome.code


def run(body: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(body, HANG_S))


def test_a_call_is_one_request_and_what_answers_it_may_come_byte_by_byte() -> None:
    async def body() -> None:
        wire = Wire()
        assert await wire.connection.ready is None
        heard = Heard(wire)
        (asked,) = wire.of(RequestReceived)
        headers = dict(asked.headers)
        assert (headers[":path"], headers[":authority"], headers["te"], headers["a"]) == (
            PATH,
            "h:1",
            "trailers",
            "b",
        )
        data = b"".join(event.data for event in wire.of(DataReceived))
        assert data == b"\0" + (3).to_bytes(4) + REQUEST.SerializeToString()
        assert wire.of(StreamEnded)
        wire.member.send_headers(1, HEADERS)
        wire.send(1, ANSWER.SerializeToString())
        wire.send(1, b"")
        wire.member.send_headers(1, OK, end_stream=True)
        wire.deliver(1)
        assert heard.messages == [ANSWER.SerializeToString(), b""]
        assert heard.outcomes == [None]
        assert not wire.of(StreamReset), "it had ended"

    run(body())


@pytest.mark.parametrize(
    ("headers", "code", "details"),
    [
        ([(":status", "200"), ("grpc-status", "14"), ("grpc-message", "a%20b")], Code.UNAVAILABLE, "a b"),
        ([(":status", "200"), ("grpc-status", "99")], Code.UNKNOWN, "status 99"),
        ([(":status", "200"), ("grpc-status", "x")], Code.UNKNOWN, "status x"),
        ([(":status", "503")], Code.UNAVAILABLE, "HTTP status 503"),
        ([(":status", "404")], Code.UNKNOWN, "HTTP status 404"),
        ([(":status", "200"), ("grpc-status", "2"), ("grpc-message", "%C3%A9%zz%")], Code.UNKNOWN, "é%zz%"),
    ],
)
def test_what_a_call_ended_with(headers: list[tuple[str, str]], code: Code, details: str) -> None:
    async def body() -> None:
        wire = Wire()
        heard = Heard(wire)
        wire.member.send_headers(1, headers, end_stream=True)
        wire.deliver()
        assert heard.code is code
        assert details in str(heard.outcomes[0])

    run(body())


@pytest.mark.parametrize(
    ("prefix", "code"),
    [
        (b"\0" + (RECEIVE_BYTES_MAX + 1).to_bytes(4), Code.RESOURCE_EXHAUSTED),
        (b"\1" + (1).to_bytes(4), Code.INTERNAL),
    ],
    ids=["too large", "compressed"],
)
def test_a_message_that_is_not_taken_ends_its_call_alone(prefix: bytes, code: Code) -> None:
    async def body() -> None:
        wire = Wire()
        heard, other = Heard(wire), Heard(wire)
        wire.member.send_headers(1, HEADERS)
        wire.member.send_data(1, prefix)
        wire.member.send_headers(3, [*HEADERS, *OK], end_stream=True)
        wire.deliver()
        assert heard.code is code
        assert [event.stream_id for event in wire.of(StreamReset)] == [1]
        assert other.outcomes == [None]
        # What was on its way comes to nobody.
        wire.deliver()
        assert heard.messages == []

    run(body())


def test_a_large_request_leaves_as_there_is_room() -> None:
    async def body() -> None:
        wire = Wire()
        heard = Heard(wire, rpc.PutRequest(key=b"a", value=bytes(200_000)))
        received = 0
        while not wire.of(StreamEnded):
            data = wire.of(DataReceived)
            wire.events.clear()
            assert data, "it stopped"
            for event in data:
                received += len(event.data)
                wire.member.acknowledge_received_data(event.flow_controlled_length, 1)
            wire.deliver()
        received += sum(len(event.data) for event in wire.of(DataReceived))
        assert received > 200_000
        assert heard.outcomes == []

    run(body())


def test_who_does_not_read_is_sent_no_more() -> None:
    async def body() -> None:
        wire = Wire()
        stream = Stream(rpc.RangeResponse)
        stream.call = wire.connection.begin(PATH, (), stream.received, stream.ended)
        stream.send(REQUEST)
        wire.member.send_headers(1, HEADERS)
        sent = 0
        answer = rpc.RangeResponse(kvs=[rpc.KeyValue(value=bytes(100_000))]).SerializeToString()
        while wire.member.local_flow_control_window(1) > len(answer) + 5:
            wire.send(1, answer)
            wire.deliver()
            sent += 1
        assert UNREAD_BYTES_MAX < sent * len(answer) <= UNREAD_BYTES_MAX + CALL_WINDOW_BYTES + len(answer)
        # Others are not held up by that.
        other = Heard(wire)
        wire.member.send_headers(3, [*HEADERS, *OK], end_stream=True)
        wire.deliver()
        assert other.outcomes == [None]
        for _ in range(sent):
            assert (await stream.read()).SerializeToString() == answer
        assert wire.member.local_flow_control_window(1) > CALL_WINDOW_BYTES // 2

    run(body())


@pytest.mark.parametrize("how", ["lost", "goaway", "garbage"])
def test_with_the_connection_all_calls_end(how: str) -> None:
    async def body() -> None:
        wire = Wire()
        heard = [Heard(wire), Heard(wire)]
        if how == "lost":
            wire.connection.connection_lost(ConnectionResetError("reset"))
        elif how == "goaway":
            wire.member.close_connection(ErrorCodes.INTERNAL_ERROR)
            wire.deliver()
        else:
            # Data of no call.
            wire.connection.data_received(b"\0\0\1\0\0\0\0\0\0x")
        assert [one.code for one in heard] == [Code.UNAVAILABLE] * 2
        assert not wire.connection.is_usable
        await wire.connection.lost
        with pytest.raises(CallError, match=NOT_CONNECTED):
            Heard(wire)

    run(body())


@pytest.mark.parametrize(
    ("error", "code"),
    [(ErrorCodes.REFUSED_STREAM, Code.UNAVAILABLE), (ErrorCodes.INTERNAL_ERROR, Code.UNKNOWN)],
)
def test_a_call_that_the_member_breaks_off(error: ErrorCodes, code: Code) -> None:
    """One that it has refused was not done, and may be asked elsewhere."""

    async def body() -> None:
        wire = Wire()
        heard = Heard(wire)
        wire.member.reset_stream(1, error)
        wire.deliver()
        assert heard.code is code
        verdict = judge(code, str(heard.outcomes[0]))
        assert verdict is (Verdict.NOT_DONE if code is Code.UNAVAILABLE else Verdict.UNKNOWN)
        heard.call.cancel()
        heard.call.send(REQUEST)
        assert Heard(wire).outcomes == []

    run(body())


def test_a_call_that_is_cancelled_is_broken_off_and_not_spoken_of() -> None:
    async def body() -> None:
        wire = Wire()
        heard = Heard(wire)
        for _ in range(2):
            heard.call.cancel()
        assert len(wire.of(StreamReset)) == 1
        wire.deliver()
        assert heard.outcomes == []

    run(body())


def test_what_a_gateway_says_in_words_is_no_message() -> None:
    async def body() -> None:
        wire = Wire()
        heard = Heard(wire)
        wire.member.send_headers(1, [(":status", "503"), ("content-type", "text/html")])
        wire.member.send_data(1, b"<html>no member</html>", end_stream=True)
        wire.deliver()
        assert heard.messages == []
        assert heard.code is Code.UNAVAILABLE

    run(body())


def test_calls_that_end_early_cost_the_others_no_room() -> None:
    """Whatever became of what was received: else the connection would hang in the end, and answer pings."""

    async def body() -> None:
        wire = Wire()
        before = wire.member.outbound_flow_control_window
        huge = b"\0" + (RECEIVE_BYTES_MAX + 1).to_bytes(4) + bytes(16_000)
        answer = rpc.RangeResponse(kvs=[rpc.KeyValue(value=bytes(100_000))]).SerializeToString()
        for call_id in range(1, 401, 2):
            if call_id % 8 == 1:
                stream = Stream(rpc.RangeResponse)
                stream.call = wire.connection.begin(PATH, (), stream.received, stream.ended)
                stream.send(REQUEST)
                wire.member.send_headers(call_id, HEADERS)
                while wire.member.local_flow_control_window(call_id) > len(answer) + 5:
                    wire.send(call_id, answer)
                    wire.deliver()
                stream.cancel()
            else:
                heard = Heard(wire)
                wire.member.send_headers(call_id, HEADERS)
                wire.member.send_data(call_id, huge)
                wire.deliver()
                assert heard.code is Code.RESOURCE_EXHAUSTED
        # The rest is told when there is enough of it.
        assert wire.member.outbound_flow_control_window > before // 2

    run(body())


def goaway(last_id: int, error: int = 0) -> bytes:
    return GoAwayFrame(0, last_stream_id=last_id, error_code=error).serialize()


@pytest.mark.parametrize("piece", [1, 1 << 20])
def test_a_member_that_is_stopped_answers_what_it_was_asked(piece: int) -> None:
    """As grpc-go stops: it says so, asks whether that was heard, and says what it had taken by then. All of
    it may come in one piece, with answers before and behind it."""

    async def body() -> None:
        wire = Wire()
        first, second, third, beyond = [Heard(wire) for _ in range(4)]
        wire.member.send_headers(1, [*HEADERS, *OK], end_stream=True)
        data = wire.member.data_to_send()
        data += goaway(2**31 - 1) + PingFrame(0, opaque_data=b"graceful").serialize()
        wire.member.send_headers(3, HEADERS)
        wire.send(3, ANSWER.SerializeToString())
        wire.member.send_headers(3, OK, end_stream=True)
        data += wire.member.data_to_send()
        for start in range(0, len(data), piece):
            wire.connection.data_received(data[start : start + piece])
        assert first.outcomes == second.outcomes == [None]
        assert second.messages == [ANSWER.SerializeToString()]
        assert not wire.connection.is_usable, "what comes now is for another connection"
        with pytest.raises(CallError, match=NOT_CONNECTED):
            Heard(wire)
        wire.connection.data_received(goaway(5))
        assert beyond.code is Code.UNAVAILABLE
        assert judge(beyond.code, str(beyond.outcomes[0])) is Verdict.NOT_DONE
        assert third.outcomes == [] and not wire.aborted
        wire.member.send_headers(5, [*HEADERS, *OK], end_stream=True)
        wire.deliver()
        assert third.outcomes == [None]
        await asyncio.sleep(0)
        assert wire.aborted, "nothing is left to come"

    run(body())


def test_a_connection_on_which_no_number_is_left_is_followed_by_another() -> None:
    async def body() -> None:
        wire = Wire()
        wire.connection._h2.highest_outbound_stream_id = 2**31 - 3
        wire.member.highest_inbound_stream_id = 2**31 - 3
        last = Heard(wire)
        assert last.call.id == 2**31 - 1
        assert not wire.connection.is_usable
        wire.member.send_headers(last.call.id, [*HEADERS, *OK], end_stream=True)
        wire.deliver()
        assert last.outcomes == [None]
        await asyncio.sleep(0)
        assert wire.aborted

    run(body())


@pytest.mark.parametrize(
    ("answer", "connect_s", "why"),
    [
        # What its first bytes say is the length of a frame never comes.
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", 0.2, "no answer in time"),
        (goaway(0), 20, "ends the connection"),
        (b"\0\0\1\7\0\0\0\0\0\0", 20, "ends the connection"),
    ],
)
def test_what_is_no_member_is_not_asked(answer: bytes, connect_s: float, why: str) -> None:
    async def body() -> None:
        # From Python 3.13 on, who lets go of a writer closes it.
        held: list[asyncio.StreamWriter] = []

        def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            held.append(writer)
            writer.write(answer)

        server = await asyncio.start_server(greet, "127.0.0.1", 0)
        host, port = server.sockets[0].getsockname()
        channel = Channel(f"{host}:{port}", None, connect_s)
        with pytest.raises(CallError, match=f"{NOT_CONNECTED}.*{why}"):
            await channel.call(PATH, REQUEST, rpc.RangeResponse, 25, ())
        await channel.close()
        server.close()

    run(body())


def test_closing_ends_what_a_stopped_member_goes_on_with() -> None:
    async def body() -> None:
        accepted: asyncio.Queue[asyncio.StreamWriter] = asyncio.Queue()
        server = await asyncio.start_server(
            lambda reader, writer: accepted.put_nowait(writer), "127.0.0.1", 0
        )
        host, port = server.sockets[0].getsockname()
        channel = Channel(f"{host}:{port}", None, 20)
        streams, writers = [], []
        for _ in range(2):
            opening = asyncio.ensure_future(channel.stream(PATH, rpc.RangeResponse, 20, ()))
            writer = await accepted.get()
            writers.append(writer)
            writer.write(SettingsFrame(0).serialize())
            streams.append(await opening)
            left = channel.connection
            assert left is not None
            writer.write(goaway(1))
            while left.is_usable:
                await asyncio.sleep(0)
        await channel.close()
        for stream in streams:
            with pytest.raises(CallError, match="closed"):
                await stream.read()
        server.close()

    run(body())


# ------------------------------------------------------------ connecting, and time


async def connected(wire: Wire) -> Channel:
    """A channel that is connected by the wire."""
    channel = Channel("h:1", None, 0.1)
    channel.connection = wire.connection
    return channel


def test_an_answer_in_time_and_none() -> None:
    async def body() -> None:
        wire = Wire()
        channel = await connected(wire)
        asking = asyncio.ensure_future(channel.call(PATH, REQUEST, rpc.RangeResponse, 30, ()))
        await asyncio.sleep(0)
        wire.member.send_headers(1, HEADERS)
        wire.send(1, ANSWER.SerializeToString())
        wire.deliver()
        await asyncio.sleep(0)
        assert not asking.done(), "it may fail yet"
        wire.member.send_headers(1, OK, end_stream=True)
        wire.deliver()
        assert await asking == ANSWER
        with pytest.raises(CallError) as caught:
            await channel.call(PATH, REQUEST, rpc.RangeResponse, 0.01, ())
        assert caught.value.code is Code.DEADLINE_EXCEEDED
        assert [event.stream_id for event in wire.of(StreamReset)] == [3]

    run(body())


def test_what_came_while_the_loop_stood_still_came_in_time() -> None:
    async def body() -> None:
        wire = Wire()
        channel = await connected(wire)
        asking = asyncio.ensure_future(channel.call(PATH, REQUEST, rpc.RangeResponse, 0.1, ()))
        await asyncio.sleep(0)
        time.sleep(0.4)
        # Timers come before what is to be read.
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        wire.member.send_headers(1, HEADERS)
        wire.send(1, ANSWER.SerializeToString())
        wire.member.send_headers(1, OK, end_stream=True)
        wire.deliver()
        assert await asking == ANSWER

    run(body())


def test_a_member_that_accepts_and_says_nothing_has_not_been_asked() -> None:
    async def body() -> None:
        held: list[object] = []
        server = await asyncio.start_server(lambda *streams: held.append(streams), "127.0.0.1", 0)
        host, port = server.sockets[0].getsockname()
        channel = Channel(f"{host}:{port}", None, 0.05)
        for _ in range(2):
            with pytest.raises(CallError, match=NOT_CONNECTED):
                await channel.call(PATH, REQUEST, rpc.RangeResponse, 30, ())
        await channel.close()
        server.close()
        for address in (f"{host}:{port}", "no\0host:1", f"{'x' * 70}:1"):
            with pytest.raises(CallError, match=NOT_CONNECTED):
                await Channel(address, None, 5).call(PATH, REQUEST, rpc.RangeResponse, 30, ())

    run(body())


def test_a_member_that_says_nothing_is_asked_and_then_given_up() -> None:
    """Whatever is in between may hold the connection all the same."""

    async def body() -> None:
        wire = Wire()
        wire.connection._ask()
        assert not wire.of(PingReceived), "there is no call"
        heard = Heard(wire)
        for _ in range(3):
            wire.connection._ask()
            wire.deliver()
            # As long ago as it would be.
            wire.connection._asked_s -= ASK_S
        assert len(wire.of(PingReceived)) == 3
        wire.connection.heard_s -= 2 * ASK_S
        wire.connection._ask()
        assert heard.code is Code.UNAVAILABLE and wire.aborted

    run(body())


@pytest.mark.parametrize(("silent_s", "ends"), [(SILENT_S + 1, True), (SILENT_S - 5, False)])
def test_a_call_without_an_answer_ends_a_connection_that_was_silent_before(
    silent_s: float, ends: bool
) -> None:
    async def body() -> None:
        wire = Wire()
        channel = await connected(wire)
        wire.connection.heard_s -= silent_s
        with pytest.raises(CallError) as caught:
            await channel.call(PATH, REQUEST, rpc.RangeResponse, 0.01, ())
        assert caught.value.code is Code.DEADLINE_EXCEEDED
        assert wire.aborted is ends

    run(body())


def test_the_kernel_watches_over_a_connection() -> None:
    async def body() -> None:
        server = await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0)
        _, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        watch_over(writer.transport)
        made = writer.get_extra_info("socket")
        assert made.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert made.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == ASK_AFTER_S
        assert made.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == UNANSWERED_MS_MAX
        writer.close()
        server.close()
        # What is none of TCP is left as it is.
        watch_over(Wire())

    run(body())
