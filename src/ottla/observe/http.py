"""A small HTTP/1.1 server on the node's event loop: a few connections, small requests, deadlines for all.

What is answered is in ``routes``, by path; a `Manner` says what a server accepts besides reading. Whoever
connects may be anybody, and can cost no more than what the limits here say: connections beyond them take the
place of one that is idle, or whose client keeps us waiting, or are closed. Nothing more is answered to a
client before it has taken what it got.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing
from http import HTTPStatus
from typing import NamedTuple, cast

from ottla.env.clock import Clock, Timer
from ottla.env.network import Listener, Network
from ottla.observe.request import READS, Accepted, Incoming, Refused, Request

log = logging.getLogger(__name__)

CONNECTIONS_MAX = 16
# How long a request may take to come; how long a connection may be idle between two of them, which is more
# than the time between two scrapes; how long an answer may take to be taken.
REQUEST_MS_MAX = 5_000
IDLE_MS_MAX = 130_000
TAKEN_MS_MAX = 30_000
# Answers that may be held for clients that have not taken them; one may come on top.
UNSENT_BYTES_MAX = 64 * 1024 * 1024

TEXT = "text/plain; charset=utf-8"


class Response(NamedTuple):
    """An answer. ``encoding``: what its body is compressed by."""

    status: HTTPStatus
    body: bytes
    content_type: str = TEXT
    encoding: str = ""
    # More headers, of which nothing is from a client.
    headers: tuple[tuple[str, str], ...] = ()


class Stream(NamedTuple):
    """An answer that goes on: what the generator yields is sent as it comes, as fast as the client takes it.
    ``lasts_ms``: how long it may take at most. Its connection ends with it."""

    pieces: AsyncGenerator[bytes, None]
    lasts_ms: int
    content_type: str = TEXT


Route = Callable[[Request], Awaitable[Response | Stream]]


def as_text(status: HTTPStatus, why: str) -> Response:
    """An error as a line of text."""
    return Response(status, f"{why}\n".encode())


class Manner(NamedTuple):
    """How a server deals with its clients. ``fallback`` answers paths that are not in its routes; an answer
    may take ``answer_ms_max`` to be made and taken; ``failed`` writes errors down; ``forbids`` says why a
    request is not answered at all."""

    accepted: Accepted = READS
    fallback: Route | None = None
    connections_max: int = CONNECTIONS_MAX
    answer_ms_max: int = TAKEN_MS_MAX
    failed: Callable[[HTTPStatus, str], Response] = as_text
    forbids: Callable[[Request], str | None] | None = None


_READING = Manner()


class HttpServer:
    """``bind``, then ``start``; ``close`` at any time."""

    def __init__(
        self, network: Network, clock: Clock, routes: Mapping[str, Route], manner: Manner = _READING
    ) -> None:
        self.routes = routes
        self.manner = manner
        self.clock = clock
        # In the order in which they have been used.
        self.connections: dict[Connection, None] = {}
        self._network = network
        self._bound: Listener | None = None
        self._closed = False

    async def bind(self, host: str, port: int) -> tuple[str, int]:
        """Reserve the address, and return it as it was bound. OSError where it cannot be had."""
        self._bound = await self._network.bind(lambda: Connection(self), host, port)
        return self._bound.address

    async def start(self) -> None:
        assert self._bound is not None
        await self._bound.start()

    def connection(self) -> Connection:
        """The protocol of a connection that came in by another way."""
        return Connection(self)

    def close(self) -> None:
        """Take no connection any more, and end those that there are."""
        self._closed = True
        if self._bound is not None:
            self._bound.close()
        for connection in list(self.connections):
            connection.abort()

    def admit(self, connection: Connection) -> bool:
        """Count a connection in, in place of one that is idle or else keeps us waiting; or refuse it."""
        if self._closed:
            return False
        if len(self.connections) >= self.manner.connections_max:
            idle = next((one for one in self.connections if one.idle), None)
            waited_for = idle or next((one for one in self.connections if not one.is_answered), None)
            if waited_for is None:
                return False
            waited_for.abort()
        self.connections[connection] = None
        return True

    def make_room(self, connection: Connection) -> None:
        """It has got an answer: end those that have not taken theirs for longest, where that is too much."""
        others = [one for one in self.connections if one is not connection and one.unsent_bytes]
        held_bytes = sum(one.unsent_bytes for one in others)
        for one in others:
            if held_bytes <= UNSENT_BYTES_MAX:
                break
            held_bytes -= one.unsent_bytes
            one.abort()

    def used(self, connection: Connection) -> None:
        """It is the last one now that would have to go."""
        self.connections.pop(connection)
        self.connections[connection] = None


class Connection(asyncio.Protocol):
    """One client. Its requests are answered one after the other."""

    def __init__(self, server: HttpServer) -> None:
        self._server = server
        self._buffer = bytearray()
        self._incoming = Incoming(server.manner.accepted)
        self._transport: asyncio.Transport | None = None
        self._answering: asyncio.Task[None] | None = None
        self._deadline: Timer | None = None
        # Whether it has begun to send a request.
        self._is_asking = False
        # Whether it is sent an answer that goes on: it is not listened to any more.
        self._is_streaming = False
        # Set while the client takes what it is sent.
        self._flows = asyncio.Event()
        self._flows.set()

    @property
    def idle(self) -> bool:
        """Whether nothing is going on: no answer is being made or taken, no request has begun."""
        return self._answering is None and not self._is_asking and self.unsent_bytes == 0

    @property
    def is_answered(self) -> bool:
        """Whether an answer is being made: it is not its client that we wait for."""
        return self._answering is not None

    @property
    def unsent_bytes(self) -> int:
        """What its client has not taken yet."""
        return 0 if self._transport is None else self._transport.get_write_buffer_size()

    # ------------------------------------------------------------ the transport's events

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are asyncio's in all but their class.
        made = cast(asyncio.Transport, transport)
        if not self._server.admit(self):
            made.abort()
            return
        self._transport = made
        # So that it is told of when all of an answer has been taken.
        made.set_write_buffer_limits(0)
        self._end_in(REQUEST_MS_MAX)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._server.connections.pop(self, None)
        self._stop()

    def data_received(self, data: bytes) -> None:
        if self._transport is None or self._is_streaming:
            return
        self._buffer += data
        if self._answering is None and not self.unsent_bytes:
            if not self._is_asking:
                self._is_asking = True
                self._end_in(REQUEST_MS_MAX)
            self._next()
        elif len(self._buffer) >= self._incoming.size_max:
            # Until then it is heard, so that its end is noticed.
            self._transport.pause_reading()

    def eof_received(self) -> bool | None:
        return False

    def pause_writing(self) -> None:
        self._flows.clear()

    def resume_writing(self) -> None:
        self._flows.set()
        transport = self._transport
        if self._answering is None and transport is not None and not transport.is_closing():
            self._go_on()

    # ------------------------------------------------------------ requests and answers

    def _next(self) -> None:
        """Answer the next request, if it is here."""
        assert self._transport is not None
        try:
            request = self._incoming.take(self._buffer)
        except Refused as refused:
            manner = self._server.manner
            response = manner.failed(refused.status, str(refused))
            if refused.status is HTTPStatus.METHOD_NOT_ALLOWED:
                response = response._replace(headers=(("Allow", ", ".join(manner.accepted.methods)),))
            self._write(response, has_body=True, keeps_alive=False)
            return
        if request is not None:
            self._answering = asyncio.ensure_future(self._answer(request))
        elif self._incoming.is_asked_for_body and not self._buffer:
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    async def _answer(self, request: Request) -> None:
        self._server.used(self)
        manner = self._server.manner
        self._end_in(manner.answer_ms_max)
        route = self._server.routes.get(request.path, manner.fallback)
        forbidden = None if manner.forbids is None else manner.forbids(request)
        try:
            if forbidden is not None:
                response: Response | Stream = manner.failed(HTTPStatus.FORBIDDEN, forbidden)
            elif route is None:
                response = manner.failed(HTTPStatus.NOT_FOUND, "there is nothing here")
            else:
                response = await route(request)
        except Exception:
            log.exception("%s cannot be answered", request.path)
            response = manner.failed(
                HTTPStatus.INTERNAL_SERVER_ERROR, "this failed; the broker's log says how"
            )
        if isinstance(response, Stream):
            await self._send(response)
            return
        self._answering = None
        if self._transport is not None:
            self._write(response, has_body=request.method != "HEAD", keeps_alive=request.keeps_alive)

    async def _send(self, stream: Stream) -> None:
        """Send what comes, in chunks (RFC 9112, 7.1), and end the connection."""
        self._end_in(stream.lasts_ms)
        transport = self._transport
        if transport is None:
            return
        transport.write(_stream_head(stream))
        self._is_streaming = True
        # To notice when it goes away.
        transport.resume_reading()
        try:
            async with aclosing(stream.pieces) as pieces:
                async for piece in pieces:
                    transport.write(b"%x\r\n%b\r\n" % (len(piece), piece))
                    await self._flows.wait()
        except Exception:
            log.exception("a response cannot be completed")
            self.abort()
            return
        transport.write(b"0\r\n\r\n")
        self._answering = None
        self._end_in(TAKEN_MS_MAX)
        transport.close()

    def _write(self, response: Response, *, has_body: bool, keeps_alive: bool) -> None:
        transport = self._transport
        assert transport is not None
        transport.write(_head(response, keeps_alive=keeps_alive))
        if has_body:
            transport.write(response.body)
        if not keeps_alive:
            self._end_in(TAKEN_MS_MAX)
            transport.close()
            return
        if self.unsent_bytes:
            self._end_in(TAKEN_MS_MAX)
            self._server.make_room(self)
        else:
            self._go_on()

    def _go_on(self) -> None:
        """It has taken its answer: see what else it wants. It may be idle for longer."""
        assert self._transport is not None
        self._is_asking = bool(self._buffer) or self._incoming.is_midway
        self._end_in(REQUEST_MS_MAX if self._is_asking else IDLE_MS_MAX)
        self._transport.resume_reading()
        if self._buffer:
            self._next()

    # ------------------------------------------------------------ its end

    def _end_in(self, delay_ms: int) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        self._deadline = self._server.clock.call_later(delay_ms, self.abort)

    def abort(self) -> None:
        """Close at once, without a word."""
        transport, self._transport = self._transport, None
        self._server.connections.pop(self, None)
        if transport is not None:
            transport.abort()
        self._stop()

    def _stop(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        answering, self._answering = self._answering, None
        if answering is not None:
            answering.cancel()


def _stream_head(stream: Stream) -> bytes:
    lines = [
        "HTTP/1.1 200 OK",
        f"Content-Type: {stream.content_type}",
        "Transfer-Encoding: chunked",
        "Cache-Control: no-store",
        "X-Content-Type-Options: nosniff",
        "Connection: close",
    ]
    return "\r\n".join([*lines, "", ""]).encode()


def _head(response: Response, *, keeps_alive: bool) -> bytes:
    """The answer's status line and headers. Nothing that a client has sent is in them."""
    status = response.status
    lines = [
        f"HTTP/1.1 {status.value} {status.phrase}",
        f"Content-Type: {response.content_type}",
        f"Content-Length: {len(response.body)}",
        "Cache-Control: no-store",
        "X-Content-Type-Options: nosniff",
    ]
    if response.encoding:
        lines += [f"Content-Encoding: {response.encoding}", "Vary: Accept-Encoding"]
    lines += [f"{name}: {value}" for name, value in response.headers]
    if not keeps_alive:
        lines.append("Connection: close")
    return "\r\n".join([*lines, "", ""]).encode()
