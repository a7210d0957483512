"""The HTTP server of metrics: what it answers, and what whoever connects can cost."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from functools import wraps
from http import HTTPStatus
from typing import Any, ParamSpec

import pytest
from hypothesis import given
from hypothesis import strategies as st

from measuring import HANG_S
from ottla.env.clock import SystemClock
from ottla.env.network import TcpNetwork
from ottla.observe import http
from ottla.observe.hosts import guard
from ottla.observe.http import CONNECTIONS_MAX, HttpServer, Manner, Response, Stream
from ottla.observe.request import HEAD_BYTES_MAX, Accepted, Incoming, Refused, Request, take

PLAIN = b"GET /metrics?a=b HTTP/1.1\r\nHost: h\r\nAccept: text/plain\r\naccept: x\r\n\r\n"


def refused(data: bytes) -> HTTPStatus:
    with pytest.raises(Refused) as caught:
        take(bytearray(data))
    return caught.value.status


def test_a_request_is_read_whole_and_byte_by_byte_and_what_follows_is_left() -> None:
    whole = bytearray(PLAIN + b"GET /next")
    found = take(whole)
    assert found is not None
    assert (found.method, found.path, found.query, found.keeps_alive) == ("GET", "/metrics", "a=b", True)
    assert found.headers == {"host": "h", "accept": "text/plain,x"}
    assert whole == b"GET /next"
    slowly = bytearray()
    for byte in PLAIN[:-1]:
        slowly.append(byte)
        assert take(slowly) is None
    slowly += PLAIN[-1:]
    assert take(slowly) == found
    assert slowly == b""


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"POST / HTTP/1.1\r\nHost: h\r\n\r\n", HTTPStatus.METHOD_NOT_ALLOWED),
        (b"GET / HTTP/1.1\r\n\r\n", HTTPStatus.BAD_REQUEST),
        (b"GET / HTTP/2.0\r\nHost: h\r\n\r\n", HTTPStatus.BAD_REQUEST),
        (b"GET  / HTTP/1.1\r\nHost: h\r\n\r\n", HTTPStatus.BAD_REQUEST),
        (b"GET http://h/ HTTP/1.1\r\nHost: h\r\n\r\n", HTTPStatus.BAD_REQUEST),
        (b"get / HTTP/1.1\r\nHost: h\r\n\r\n", HTTPStatus.BAD_REQUEST),
        (b"GET / HTTP/1.1\r\nHost : h\r\n\r\n", HTTPStatus.BAD_REQUEST),
        (b"GET / HTTP/1.1\r\nHost: h\r\n folded\r\n\r\n", HTTPStatus.BAD_REQUEST),
        (b"GET / HTTP/1.1\r\nHost: h\r\nA: \x00\r\n\r\n", HTTPStatus.BAD_REQUEST),
        (b"GET / HTTP/1.1\r\nHost: h\r\nA: b\nC: d\r\n\r\n", HTTPStatus.BAD_REQUEST),
        (b"GET / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n\r\nx", HTTPStatus.REQUEST_ENTITY_TOO_LARGE),
        (
            b"GET / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n",
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        ),
        (b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 100 + b"\r\n", HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE),
        (b"\r\n\r\n" * 100_000, HTTPStatus.BAD_REQUEST),
        (b"x" * HEAD_BYTES_MAX, HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE),
        (b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", HTTPStatus.BAD_REQUEST),
    ],
)
def test_what_is_no_request_of_ours_is_refused(data: bytes, status: HTTPStatus) -> None:
    assert refused(data) is status


@given(
    st.binary(max_size=200)
    | st.builds(lambda a, b: PLAIN[:a] + b, st.integers(0, 70), st.binary(max_size=50))
)
def test_bytes_are_a_request_or_refused_or_not_enough(data: bytes) -> None:
    buffer = bytearray(data)
    try:
        found = take(buffer)
    except Refused:
        return
    assert found is None or found.method in ("GET", "HEAD")


@pytest.mark.parametrize(
    ("listened", "bound", "host", "is_answered"),
    [
        ("127.0.0.1", "127.0.0.1", "127.0.0.1:9308", True),
        ("127.0.0.1", "127.0.0.1", "LOCALHOST:9308", True),
        ("::1", "::1", "[::1]:9308", True),
        ("Metrics.example", "127.0.1.1", "metrics.Example:9308", True),
        ("127.0.0.1", "127.0.0.1", None, True),
        ("127.0.0.1", "127.0.0.1", "rebound.example:9308", False),
        ("127.0.0.1", "127.0.0.1", "", False),
        ("::1", "::1", "rebound.example", False),
        ("localhost", "127.0.0.1", "10.0.0.7:9308", False),
        # Others know these by their own names: Kubernetes' services, Prometheus' targets.
        ("0.0.0.0", "0.0.0.0", "ottla-0.ottla:9308", True),
        ("::", "::", "ottla-0.ottla:9308", True),
        ("10.0.0.7", "10.0.0.7", "10.0.0.7:9308", True),
    ],
)
def test_a_page_that_has_its_name_point_to_this_machine_reads_nothing(
    listened: str, bound: str, host: str | None, is_answered: bool
) -> None:
    headers = {} if host is None else {"host": host}
    forbids = guard(listened, (bound, 9308))
    why = None if forbids is None else forbids(Request("GET", "/clients", "", headers, True))
    assert (why is None) is is_answered


POSTS = Accepted(("GET", "POST"), 10)
POST = b"POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\nbody"


def test_a_body_is_taken_with_its_request_whole_and_byte_by_byte() -> None:
    incoming, buffer = Incoming(POSTS), bytearray()
    for byte in POST[:-1]:
        buffer.append(byte)
        assert incoming.take(buffer) is None
    assert incoming.is_midway
    buffer += POST[-1:] + PLAIN
    found = incoming.take(buffer)
    assert found is not None
    assert (found.method, found.path, found.body, buffer) == ("POST", "/a", b"body", PLAIN)
    following = incoming.take(buffer)
    assert following is not None
    assert (following.method, following.body, incoming.is_midway) == ("GET", b"", False)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        (b"Content-Length: 11", HTTPStatus.REQUEST_ENTITY_TOO_LARGE),
        (b"Content-Length: 99999999999999999999", HTTPStatus.BAD_REQUEST),
        (b"Content-Length: -1", HTTPStatus.BAD_REQUEST),
        (b"Content-Length: 1\r\nContent-Length: 1", HTTPStatus.BAD_REQUEST),
        (b"Transfer-Encoding: chunked", HTTPStatus.LENGTH_REQUIRED),
        (b"Content-Length: 1\r\nTransfer-Encoding: chunked", HTTPStatus.LENGTH_REQUIRED),
    ],
)
def test_a_body_that_is_too_long_or_of_unknown_length_is_refused(headers: bytes, status: HTTPStatus) -> None:
    with pytest.raises(Refused) as caught:
        Incoming(POSTS).take(bytearray(b"POST / HTTP/1.1\r\nHost: h\r\n" + headers + b"\r\n\r\n"))
    assert caught.value.status is status


@pytest.mark.parametrize(
    ("line", "keeps"),
    [
        (b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n", False),
        (b"GET / HTTP/1.1\r\nHost: h\r\nConnection: a, Close\r\n\r\n", False),
        (b"GET / HTTP/1.0\r\n\r\n", False),
        (b"GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n", True),
    ],
)
def test_whether_a_connection_stays(line: bytes, keeps: bool) -> None:
    found = take(bytearray(line))
    assert found is not None
    assert found.keeps_alive is keeps


@pytest.mark.parametrize(
    ("accepted", "takes"),
    [
        ("gzip", True),
        ("br, GZIP;q=0.5", True),
        ("gzip;q=0", False),
        ("gzip; q=0.0", False),
        ("", False),
        ("x", False),
    ],
)
def test_whether_a_client_takes_gzip(accepted: str, takes: bool) -> None:
    request = Request("GET", "/", "", {"accept-encoding": accepted}, True)
    assert request.takes_gzip is takes


# ------------------------------------------------------------ the server

P = ParamSpec("P")


def on_loop(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """Run a test on an event loop of its own."""

    @wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        asyncio.run(test(*args, **kwargs))

    return run


async def said(request: Request) -> Response:
    return Response(HTTPStatus.OK, f"{request.method} {request.path}\n".encode())


async def fails(request: Request) -> Response:
    raise ValueError


class Asked:
    """A client."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def answer(self, *, body: bool = True) -> tuple[int, bytes]:
        async with asyncio.timeout(HANG_S):
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode()
            length = int(head.lower().partition("content-length: ")[2].partition("\r\n")[0])
            return int(head.split()[1]), await self.reader.readexactly(length) if body else b""

    async def ended(self) -> bytes:
        """What comes until the connection ends."""
        async with asyncio.timeout(HANG_S):
            try:
                return await self.reader.read()
            except ConnectionResetError:
                return b""


Routes = dict[str, Callable[[Request], Awaitable[Response]]]


class Served:
    """A server with its clients."""

    def __init__(self, routes: Routes | None = None, manner: Manner | None = None) -> None:
        routes = routes or {"/": said, "/bad": fails}
        self.server = HttpServer(TcpNetwork(), SystemClock(), routes, manner or Manner())

    async def __aenter__(self) -> Served:
        self.address = await self.server.bind("127.0.0.1", 0)
        await self.server.start()
        self.clients: list[Asked] = []
        return self

    async def __aexit__(self, *_: object) -> None:
        self.server.close()
        for client in self.clients:
            client.writer.close()
        assert not self.server.connections

    async def client(self) -> Asked:
        client = Asked(*await asyncio.open_connection(*self.address))
        self.clients.append(client)
        return client


GET = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"


@on_loop
async def test_requests_are_answered_in_order_on_one_connection() -> None:
    async with Served() as served:
        client = await served.client()
        client.send(GET + b"HEAD / HTTP/1.1\r\nHost: h\r\n\r\n" + b"GET /nowhere HTTP/1.1\r\nHost: h\r\n\r\n")
        assert await client.answer() == (200, b"GET /\n")
        assert await client.answer(body=False) == (200, b"")
        assert (await client.answer())[0] == 404
        client.send(b"GET /bad HTTP/1.1\r\nHost: h\r\n\r\n")
        assert (await client.answer())[0] == 500
        client.send(b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
        assert await client.answer() == (200, b"GET /\n")
        assert await client.ended() == b""


async def body_of(request: Request) -> Response:
    return Response(HTTPStatus.OK, request.body, headers=(("Allow", "POST"),))


@on_loop
async def test_bodies_are_taken_where_the_server_accepts_them_and_asked_for_where_a_client_waits() -> None:
    manner = Manner(Accepted(("GET", "POST"), 100_000), fallback=body_of)
    async with Served({"/": said}, manner) as served:
        client = await served.client()
        client.send(POST + GET)
        assert await client.answer() == (200, b"body")
        assert await client.answer() == (200, b"GET /\n")
        client.send(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 100000\r\nExpect: 100-Continue\r\n\r\n")
        async with asyncio.timeout(HANG_S):
            assert (await client.reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 100 ")
        client.send(b"x" * 100_000 + GET)
        assert await client.answer() == (200, b"POST /\n")
        assert await client.answer() == (200, b"GET /\n")
        client.send(POST.replace(b"POST", b"PATCH"))
        assert (await client.answer())[0] == 405
        assert await client.ended() == b""


@on_loop
async def test_what_is_no_request_ends_its_connection() -> None:
    async with Served() as served:
        client = await served.client()
        client.send(b"\x00\x01\x02 not http\r\n\r\n" + GET)
        assert (await client.answer())[0] == 400
        assert await client.ended() == b""


@on_loop
async def test_connections_beyond_the_limit_take_the_place_of_idle_ones() -> None:
    async with Served() as served:
        clients = []
        for _ in range(CONNECTIONS_MAX):
            clients.append(await served.client())
            clients[-1].send(GET)
            assert (await clients[-1].answer())[0] == 200
        clients[0].send(GET)
        assert (await clients[0].answer())[0] == 200
        late = await served.client()
        late.send(GET)
        assert (await late.answer())[0] == 200
        # The one that was idle for longest.
        assert await clients[1].ended() == b""
        assert len(served.server.connections) == CONNECTIONS_MAX


@on_loop
async def test_connections_beyond_the_limit_are_closed_where_all_are_at_work() -> None:
    going_on = asyncio.Event()

    async def waits(request: Request) -> Response:
        await going_on.wait()
        return await said(request)

    async with Served({"/": waits}) as served:
        clients = [await served.client() for _ in range(CONNECTIONS_MAX)]
        for client in clients:
            client.send(GET)
        while sum(not one.idle for one in served.server.connections) < CONNECTIONS_MAX:
            await asyncio.sleep(0.001)
        late = await served.client()
        assert await late.ended() == b""
        going_on.set()
        for client in clients:
            assert (await client.answer())[0] == 200


async def much(request: Request) -> Response:
    return Response(HTTPStatus.OK, b"x" * 16_000_000)


async def until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(HANG_S):
        while not is_so():
            await asyncio.sleep(0.001)


@pytest.mark.parametrize("begun", [b"GET / HT", b"GET /much HTTP/1.1\r\nHost: h\r\n\r\n"])
@on_loop
async def test_who_keeps_us_waiting_has_nobody_else_wait(
    begun: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http, "UNSENT_BYTES_MAX", 1 << 40)

    async def some(request: Request) -> Response:
        return Response(HTTPStatus.OK, b"x" * 8_000_000)

    async with Served({"/": said, "/much": some}) as served:
        slow = [socket.create_connection(served.address) for _ in range(CONNECTIONS_MAX)]
        for sock in slow:
            sock.send(begun)
        connections = served.server.connections
        await until(lambda: sum(not (one.idle or one.is_answered) for one in connections) == CONNECTIONS_MAX)
        late = await served.client()
        late.send(GET)
        assert (await late.answer())[0] == 200
        for sock in slow:
            sock.close()


@on_loop
async def test_nothing_more_is_answered_to_who_does_not_take_its_answer() -> None:
    asked = 0

    async def counted(request: Request) -> Response:
        nonlocal asked
        asked += 1
        return await much(request)

    async with Served({"/": counted}) as served:
        client = await served.client()
        client.send(GET * 2)
        await until(lambda: any(one.unsent_bytes for one in served.server.connections))
        client.send(GET)
        for _ in range(20):
            await asyncio.sleep(0.001)
        assert asked == 1
        for number in range(3):
            assert (await client.answer())[0] == 200
            assert asked <= number + 2


@on_loop
async def test_answers_that_nobody_takes_fill_no_more_memory_than_that(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(http, "UNSENT_BYTES_MAX", 20_000_000)
    async with Served({"/": much}) as served:
        connections = served.server.connections
        slow = []
        for number in range(3):
            slow.append(socket.create_connection(served.address))
            await until(lambda number=number: len(connections) == number + 1)  # type: ignore[misc]
            slow[-1].send(GET)
            await until(lambda: all(one.unsent_bytes for one in connections))
        # The last two: what comes on top is the last one's.
        await until(lambda: len(connections) == 2)
        for sock in slow:
            sock.close()


@pytest.mark.parametrize("begun", [b"", b"GET / HT", GET + b"G"])
@on_loop
async def test_who_says_nothing_or_does_not_go_on_is_left(
    begun: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http, "REQUEST_MS_MAX", 50)
    async with Served() as served:
        client = await served.client()
        client.send(begun)
        answered = await client.ended()
        assert answered.count(b"HTTP/1.1 200 OK") == begun.count(GET)


@on_loop
async def test_who_is_idle_for_long_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "IDLE_MS_MAX", 50)
    async with Served() as served:
        client = await served.client()
        client.send(GET)
        assert (await client.answer())[0] == 200
        assert await client.ended() == b""


@on_loop
async def test_who_has_taken_its_answer_slowly_is_idle_then(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "TAKEN_MS_MAX", 200)

    async def much(request: Request) -> Response:
        return Response(HTTPStatus.OK, b"x" * 8_000_000)

    async with Served({"/": much}) as served:
        client = await served.client()
        client.send(GET)
        assert len((await client.answer())[1]) == 8_000_000
        await asyncio.sleep(0.3)
        client.send(GET)
        assert (await client.answer())[0] == 200


@on_loop
async def test_who_does_not_take_its_answer_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "TAKEN_MS_MAX", 200)

    async with Served({"/": much}) as served:
        sock = socket.create_connection(served.address)
        sock.setblocking(False)
        try:
            sock.send(GET)
            while not served.server.connections:
                await asyncio.sleep(0.001)
            async with asyncio.timeout(HANG_S):
                while served.server.connections:
                    await asyncio.sleep(0.01)
        finally:
            sock.close()


@on_loop
async def test_a_client_that_goes_away_has_its_work_cancelled() -> None:
    began, ended = asyncio.Event(), asyncio.Event()

    async def waits(request: Request) -> Response:
        began.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        raise AssertionError

    async with Served({"/": waits}) as served:
        client = await served.client()
        client.send(GET)
        await began.wait()
        client.writer.transport.abort()
        async with asyncio.timeout(HANG_S):
            await ended.wait()


@on_loop
async def test_requests_behind_one_that_is_answered_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    going_on = asyncio.Event()

    async def waits(request: Request) -> Response:
        await going_on.wait()
        return await said(request)

    async with Served({"/": waits}) as served:
        client = await served.client()
        client.send(GET * 1000)
        while not served.server.connections or next(iter(served.server.connections)).idle:
            await asyncio.sleep(0.001)
        going_on.set()
        for _ in range(1000):
            assert (await client.answer())[0] == 200


def test_a_stream_is_sent_as_it_comes_and_ends_when_its_client_goes() -> None:
    ended = asyncio.Event()
    going_on = asyncio.Event()

    async def pieces() -> AsyncGenerator[bytes, None]:
        try:
            yield b"one"
            await going_on.wait()
            yield b"two, which is longer"
        finally:
            ended.set()

    async def streams(request: Request) -> Stream:
        return Stream(pieces(), 60_000)

    @on_loop
    async def test() -> None:
        async with Served({"/": streams}) as served, asyncio.timeout(HANG_S):
            client = await served.client()
            # What comes behind it is not answered.
            client.send(GET + GET)
            assert b"\r\nTransfer-Encoding: chunked\r\n" in await client.reader.readuntil(b"\r\n\r\n")
            assert await client.reader.readexactly(8) == b"3\r\none\r\n"
            going_on.set()
            assert await client.reader.read() == b"14\r\ntwo, which is longer\r\n0\r\n\r\n"
            assert ended.is_set()
            going_on.clear()
            ended.clear()
            gone = await served.client()
            gone.send(GET)
            assert b"one\r\n" in await gone.reader.readuntil(b"one\r\n")
            gone.writer.close()
            await ended.wait()

    test()


def test_a_stream_that_fails_or_takes_too_long_is_broken_off(caplog: pytest.LogCaptureFixture) -> None:
    async def fails_later() -> AsyncGenerator[bytes, None]:
        yield b"one"
        raise ValueError

    async def never() -> AsyncGenerator[bytes, None]:
        await asyncio.Event().wait()
        yield b""

    async def bad(request: Request) -> Stream:
        return Stream(fails_later(), 60_000)

    async def slow(request: Request) -> Stream:
        return Stream(never(), 50)

    @on_loop
    async def test() -> None:
        async with Served({"/bad": bad, "/slow": slow}) as served:
            for path in (b"/bad", b"/slow"):
                client = await served.client()
                client.send(b"GET %b HTTP/1.1\r\nHost: h\r\n\r\n" % path)
                answered = await client.ended()
                # Without the chunk that ends it.
                assert not answered.endswith(b"0\r\n\r\n")

    test()
    assert "cannot be completed" in caplog.text
