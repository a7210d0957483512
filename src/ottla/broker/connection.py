"""One client's connection: frames in, responses out in the order of their requests, with back-pressure.

Requests are handled in order. One whose answer must wait keeps those behind it waiting, as in Kafka, except
that a Produce which waits for replicas or the disk does not: what follows it is handled, and the responses
still leave in order.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

from ottla.broker.context import CloseConnection
from ottla.broker.deferred import Deferred
from ottla.types import Buffer
from ottla.wire.framing import FrameDecoder, FrameError
from ottla.wire.messages import MalformedMessage

if TYPE_CHECKING:
    from ottla.broker.server import Server

log = logging.getLogger(__name__)

# Requests that a connection may have waiting, received but not handled, before we stop reading from it.
QUEUED_REQUESTS_MAX = 64
# Answers that may be pending behind each other (pipelined Produce requests).
PENDING_REPLIES_MAX = 256


class Pending(Deferred[list[Any] | None]):
    """An answer that is not there yet: the response's pieces, or None for no response."""

    __slots__ = ("blocks",)

    def __init__(self, blocks: bool, on_cancel: Callable[[], None] | None = None) -> None:
        super().__init__(on_cancel)
        # Whether the requests behind it have to wait until it is answered.
        self.blocks = blocks


class Connection(asyncio.BufferedProtocol):
    """The shell around one socket: the frame decoder and the dispatcher do the work."""

    __slots__ = (
        "_blocked",
        "_frames",
        "_paused_reading",
        "_paused_writing",
        "_queue",
        "_replies",
        "_transport",
        "active",
        "client_host",
        "server",
        "state",
    )

    def __init__(self, server: Server) -> None:
        self.server = server
        self.client_host = ""
        # Set at each byte, cleared by the server's sweep: what stays clear for a whole sweep is idle.
        self.active = True
        # What handlers keep for the life of a connection, by a key of their own.
        self.state: dict[str, Any] = {}
        self._frames = FrameDecoder(server.scratch, server.request_bytes_max)
        self._queue: deque[Buffer] = deque()
        self._replies: deque[Pending | list[Any]] = deque()
        self._blocked = False
        self._paused_reading = False
        self._paused_writing = False
        self._transport: asyncio.Transport | None = None

    def __repr__(self) -> str:
        return f"client {self.client_host}"

    # ------------------------------------------------------------ the socket's events

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        peer = transport.get_extra_info("peername")
        self.client_host = str(peer[0]) if peer else ""
        # uvloop's transports are asyncio's in all but their class.
        stream = cast(asyncio.Transport, transport)
        if not self.server.admit(self):
            stream.abort()
            return
        self._transport = stream

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self.server.forget(self)
        self._queue.clear()
        replies, self._replies = self._replies, deque()
        for reply in replies:
            if isinstance(reply, Pending):
                reply.cancel()

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._frames.buffer()

    def buffer_updated(self, nbytes: int) -> None:
        self.active = True
        if self._transport is None:
            return
        turn = self.server.turn
        turn.begin()
        try:
            self._queue.extend(self._frames.received(nbytes))
            self._process()
        except FrameError as error:
            self.refuse(str(error))
        finally:
            turn.end()

    def pause_writing(self) -> None:
        self._paused_writing = True
        self._balance()

    def resume_writing(self) -> None:
        self._paused_writing = False
        self._process()

    # ------------------------------------------------------------ requests and replies

    @property
    def idle(self) -> bool:
        """Whether nothing is being worked on for this client."""
        return not self._replies and not self._queue

    def refuse(self, reason: str) -> None:
        """Close at once, saying why in the log."""
        if self._transport is not None:
            log.warning("%s: closing the connection: %s", self, reason)
            self.abort()

    @property
    def mid_request(self) -> bool:
        """Whether a request has begun to arrive and not ended."""
        return self._frames.waiting

    def abort(self) -> None:
        """Close at once, without a word."""
        if self._transport is not None:
            self._queue.clear()
            self._transport.abort()

    def close(self) -> None:
        """Close once what has been answered is written."""
        if self._transport is not None:
            self._transport.close()

    def stop_reading(self) -> None:
        """Take no further requests; what has been received is still answered."""
        if self._transport is not None and not self._paused_reading:
            self._paused_reading = True
            self._transport.pause_reading()

    def _process(self) -> None:
        queue = self._queue
        dispatch = self.server.dispatch
        while queue and not self._blocked and not self._paused_writing and self._transport is not None:
            try:
                reply = dispatch(self, queue.popleft())
            except (MalformedMessage, CloseConnection) as error:
                self.refuse(str(error))
                return
            if reply is None:
                continue
            if isinstance(reply, Pending):
                self._wait_for(reply)
            elif self._replies:
                self._replies.append(reply)
            else:
                self._write(reply)
        self._balance()

    def _wait_for(self, reply: Pending) -> None:
        self._replies.append(reply)
        if reply.blocks:
            self._blocked = True
        reply.listen(self._reply_done)

    def _reply_done(self, reply: Deferred[list[Any] | None]) -> None:
        if self._transport is None:
            return
        replies = self._replies
        while replies:
            first = replies[0]
            if isinstance(first, Pending):
                if not first.done:
                    break
                if first.blocks:
                    self._blocked = False
                try:
                    pieces = first.result()
                except CloseConnection as error:
                    self.refuse(str(error))
                    return
            else:
                pieces = first
            replies.popleft()
            if pieces is not None:
                self._write(pieces)
        self._process()

    def _write(self, pieces: list[Any]) -> None:
        transport = self._transport
        if transport is None:
            return
        if len(pieces) == 1:
            transport.write(pieces[0])
        else:
            transport.writelines(pieces)

    def _balance(self) -> None:
        """Stop reading while this client has too much in hand, and go on when it has not."""
        transport = self._transport
        if transport is None or self.server.stopping:
            return
        full = (
            self._paused_writing
            or len(self._queue) >= QUEUED_REQUESTS_MAX
            or len(self._replies) >= PENDING_REPLIES_MAX
        )
        if full and not self._paused_reading:
            self._paused_reading = True
            transport.pause_reading()
        elif self._paused_reading and not full:
            self._paused_reading = False
            transport.resume_reading()
