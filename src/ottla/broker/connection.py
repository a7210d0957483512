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
from ottla.broker.refusals import Refusals
from ottla.types import Buffer
from ottla.wire.framing import FrameDecoder, FrameError
from ottla.wire.messages import MalformedMessage

if TYPE_CHECKING:
    from ottla.broker.server import Server

log = logging.getLogger(__name__)

# What a connection may have in hand before we stop reading from it. Requests received but not handled:
QUEUED_REQUESTS_MAX = 64
# Answers that are pending behind each other (pipelined Produce requests):
PENDING_REPLIES_MAX = 256
# Bytes of either kind. The rest of one request may come on top, and what came with it in one piece.
HELD_BYTES_MAX = 8 * 1024 * 1024


class Pending(Deferred[list[Any] | None]):
    """An answer that is not there yet: the response's pieces, or None for no response."""

    __slots__ = ("blocks", "request_bytes")

    def __init__(self, blocks: bool, on_cancel: Callable[[], object] | None = None) -> None:
        super().__init__(on_cancel)
        # Whether the requests behind it have to wait until it is answered.
        self.blocks = blocks
        # The size of the request that it is to answer, which is kept until then.
        self.request_bytes = 0


class Connection(asyncio.BufferedProtocol):
    """The shell around one socket: the frame decoder and the dispatcher do the work."""

    __slots__ = (
        "_blocked",
        "_ending",
        "_frames",
        "_paused_reading",
        "_paused_writing",
        "_pending_bytes",
        "_processing",
        "_queue",
        "_replies",
        "_transport",
        "_unsent_bytes",
        "active",
        "client_host",
        "refusals",
        "server",
    )

    def __init__(self, server: Server) -> None:
        self.server = server
        self.client_host = ""
        # What its producers were refused, once there is any such thing.
        self.refusals: Refusals | None = None
        # Set when something moves, cleared by the server's sweep: what stays clear for a whole sweep is idle.
        self.active = True
        self._frames = FrameDecoder(server.scratch, server.request_bytes_max)
        self._queue: deque[Buffer] = deque()
        self._replies: deque[Pending | list[Any]] = deque()
        self._pending_bytes = 0
        # A request is being handled. If that answers an earlier one, those behind it wait all the same.
        self._processing = False
        self._blocked = False
        # To be closed as soon as all that was taken on is answered.
        self._ending = False
        self._paused_reading = False
        self._paused_writing = False
        # What this client had not taken yet when it was found to be slow.
        self._unsent_bytes = 0
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
        self._count_unsent(0)
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
        if self._transport is None or self._ending:
            return
        turn = self.server.turn
        turn.begin()
        try:
            try:
                self._queue.extend(self._frames.received(nbytes))
            finally:
                # What came whole before a frame that cannot be is served.
                self._process()
        except FrameError as error:
            self.refuse(str(error))
        finally:
            turn.end()

    def pause_writing(self) -> None:
        self._paused_writing = True
        if self._transport is not None:
            self._count_unsent(self._transport.get_write_buffer_size())
        self._balance()

    def resume_writing(self) -> None:
        self.active = True
        self._paused_writing = False
        self._count_unsent(0)
        self._process()

    def _count_unsent(self, count: int) -> None:
        self.server.unsent_bytes += count - self._unsent_bytes
        self._unsent_bytes = count

    # ------------------------------------------------------------ its state, and its end

    @property
    def idle(self) -> bool:
        """Whether nothing is being worked on for this client."""
        return not self._replies and not self._queue

    @property
    def drained(self) -> bool:
        """Whether this client has been sent all that it is to get."""
        return self._transport is None or (self.idle and not self._transport.get_write_buffer_size())

    @property
    def mid_request(self) -> bool:
        """Whether a request has begun to arrive and not ended."""
        return self._frames.waiting

    @property
    def reading(self) -> bool:
        """Whether we take what this client sends; if not, we do not notice either that it is gone."""
        return not self._paused_reading

    def refuse(self, reason: str) -> None:
        """Take nothing more, and close once what came before is answered; the log says why."""
        if not self._ending:
            log.warning("%s: closing the connection: %s", self, reason)
            self.close()

    def close(self) -> None:
        """Take nothing more, and close once what is being worked on is answered and written."""
        if self._transport is None:
            return
        self._ending = True
        self._queue.clear()
        self.stop_reading()
        if not self._replies:
            self._transport.close()

    def abort(self) -> None:
        """Close at once, without a word."""
        if self._transport is not None:
            self._ending = True
            self._queue.clear()
            self._transport.abort()

    def stop_reading(self) -> None:
        """Take no further requests; what has been received is still answered."""
        if self._transport is not None and not self._paused_reading:
            self._paused_reading = True
            self._transport.pause_reading()

    # ------------------------------------------------------------ requests and replies

    def _process(self) -> None:
        """Handle what has come, as far as nothing is in the way."""
        if self._processing:
            return
        queue = self._queue
        dispatch = self.server.dispatch
        while queue and not self._blocked and not self._paused_writing and self._transport is not None:
            frame = queue.popleft()
            self._processing = True
            try:
                reply = dispatch(self, frame)
            except (MalformedMessage, CloseConnection) as error:
                self.refuse(str(error))
                return
            finally:
                self._processing = False
            if reply is None:
                continue
            if isinstance(reply, Pending):
                self._wait_for(reply, len(frame))
            elif self._replies:
                self._replies.append(reply)
            else:
                self._write(reply)
        self._balance()

    def _wait_for(self, reply: Pending, request_bytes: int) -> None:
        self._replies.append(reply)
        self._blocked = reply.blocks
        reply.request_bytes = request_bytes
        self._pending_bytes += request_bytes
        if reply.done:
            self._write_replies()
        else:
            reply.listen(self._reply_done)

    def _reply_done(self, reply: Deferred[list[Any] | None]) -> None:
        if self._transport is None:
            return
        self.active = True
        self._write_replies()
        self._process()

    def _write_replies(self) -> None:
        """Write what is answered, as far as all before it is."""
        replies = self._replies
        while replies:
            first = replies[0]
            if isinstance(first, Pending):
                if not first.done:
                    return
                self._pending_bytes -= first.request_bytes
                if first.blocks:
                    self._blocked = False
                try:
                    pieces = first.result()
                except CloseConnection as error:
                    self._give_up(str(error))
                    return
            else:
                pieces = first
            replies.popleft()
            if pieces is not None:
                self._write(pieces)
        if self._ending and self._transport is not None:
            self._transport.close()

    def _give_up(self, reason: str) -> None:
        """Close now that it is the turn of a request that gets no answer: those behind it get none either."""
        replies, self._replies = self._replies, deque()
        log.warning("%s: closing the connection: %s", self, reason)
        self.close()
        for reply in replies:
            if isinstance(reply, Pending):
                reply.cancel()

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
        if transport is None or self._ending or self.server.stopping:
            return
        full = (
            self._paused_writing
            or len(self._replies) >= PENDING_REPLIES_MAX
            or (self._queue and self._queue_is_full())
            or self._pending_bytes >= HELD_BYTES_MAX
        )
        if full and not self._paused_reading:
            self._paused_reading = True
            transport.pause_reading()
        elif self._paused_reading and not full:
            self._paused_reading = False
            transport.resume_reading()

    def _queue_is_full(self) -> bool:
        queue = self._queue
        return len(queue) >= QUEUED_REQUESTS_MAX or sum(map(len, queue)) >= HELD_BYTES_MAX
