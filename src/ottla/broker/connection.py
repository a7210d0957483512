"""One client's socket: the transport's events for the pipeline, and what the pipeline wants done."""

from __future__ import annotations

import asyncio
from typing import Final, Protocol, cast

from ottla.broker.memory import STRANGERS_BYTES_MAX, Memory
from ottla.broker.pending import Pending, Pieces
from ottla.broker.pipeline import TOGETHER_BYTES_MAX, Handle, Pipeline
from ottla.broker.request import Client
from ottla.broker.turn import Turn
from ottla.wire.framing import SCRATCH_BYTES, FrameDecoder, FrameError, FrameTooLarge, NoMemory

# After so many bytes of a large request, and after each, others are served before more is received. A
# transport that has filled a buffer receives again at once, libuv 32 times in a row: 32 requests of 1 MB.
RECEIVED_AT_ONCE_BYTES: Final = 1024 * 1024


class Host(Protocol):
    """What connections share: their listener."""

    listener: str
    # Handles a request: set before the first connection comes.
    handle: Handle
    turn: Turn
    memory: Memory
    request_bytes_max: int
    # All connections receive small requests into this: it is filled and emptied in one step.
    scratch: memoryview
    # Whether requests are handled yet.
    serves: bool

    def admit(self, connection: Connection) -> bool:
        """Count a new connection in, or refuse it."""
        ...

    def forget(self, connection: Connection) -> None:
        """Count a connection out."""
        ...

    def note(self, reason: str) -> None:
        """A connection has been ended, for this reason."""
        ...

    def welcome(self, connection: Connection, transport: asyncio.BaseTransport) -> None:
        """A connection was counted in: find out whose it is, as far as that can be seen already."""
        ...


def _reason(error: FrameError) -> str:
    """What a connection is said to have been ended for, where that is counted."""
    if isinstance(error, FrameTooLarge):
        return "request_bytes"
    return "memory" if isinstance(error, NoMemory) else "frame"


class Connection(asyncio.BufferedProtocol):
    """The shell around one socket: the frame decoder and the pipeline do the work."""

    __slots__ = (
        "_counted",
        "_frames",
        "_gathered",
        "_got_bytes",
        "_host",
        "_is_strange",
        "_pipeline",
        "_rests",
        "_strange_bytes",
        "_taken_bytes",
        "_transport",
        "_unsent_bytes",
        "active",
        "client",
        "descriptor",
    )

    def __init__(self, host: Host) -> None:
        self._host = host
        # Set when something moves, cleared by the server's sweep: what stays clear for a whole sweep is idle.
        self.active = True
        self._frames = FrameDecoder(host.scratch, host.request_bytes_max)
        # Both are set when the connection is made, before anything else is called.
        self.client: Client
        self._pipeline: Pipeline
        # Whether the host counts it among its connections.
        self._counted = False
        # The socket's file descriptor; -1 where there is no such thing.
        self.descriptor = -1
        # What this client had not taken yet when it was found to be slow.
        self._unsent_bytes = 0
        # What of a large request had come when that was last asked.
        self._got_bytes = 0
        # Whether the client has still to log in, and what is kept of a large request of its until then.
        self._is_strange = False
        self._strange_bytes = 0
        # What has come of large requests since others were served, and whether it is their turn.
        self._taken_bytes = 0
        self._rests = False
        self._transport: asyncio.Transport | None = None
        # An answer that is sent when those to others are made.
        self._gathered: Pieces | None = None

    def __str__(self) -> str:
        return str(self.client)

    # ------------------------------------------------------------ the transport's events

    def accepted(self, transport: asyncio.BaseTransport) -> bool:
        """A connection has come: count it in, or refuse it, before anything is done for it. Where TLS is
        spoken that is before its handshake, and ``connection_made`` comes behind it."""
        peer = transport.get_extra_info("peername")
        self.client = Client(str(peer[0]) if peer else "", self._host.listener, peer[1] if peer else 0)
        self._pipeline = Pipeline(self.client, self._host.handle, self, self._host.memory, self._host.turn)
        sock = transport.get_extra_info("socket")
        self.descriptor = -1 if sock is None else sock.fileno()
        # uvloop's transports are asyncio's in all but their class.
        self._transport = cast(asyncio.Transport, transport)
        if self._host.admit(self):
            self._counted = True
            return True
        self._transport = None
        return False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if not self._counted and not self.accepted(transport):
            cast(asyncio.Transport, transport).abort()
            return
        self.client.line = self
        self._host.welcome(self, transport)
        self._host.turn.connected()
        if not self._host.serves:
            self._pipeline.choke()

    def connection_lost(self, exc: Exception | None) -> None:
        self._count_unsent(0)
        self._count_strange(0)
        self._transport = None
        self._host.forget(self)
        self._pipeline.gone()

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._frames.buffer()

    def buffer_updated(self, nbytes: int) -> None:
        self.active = True
        pipeline = self._pipeline
        if self._transport is None:
            return
        turn = self._host.turn
        turn.begin()
        try:
            frames = self._frames
            is_large = frames.large is not None
            pipeline.received(frames.received(nbytes))
            if is_large or nbytes >= SCRATCH_BYTES:
                self._rest_where_due(nbytes)
            if (frames.large is not None or pipeline.partial_bytes) and (
                frames.held_bytes != pipeline.partial_bytes
            ):
                pipeline.partly_received(frames.held_bytes)
            if self._is_strange and (self._strange_bytes or frames.large is not None):
                self._count_strange(frames.held_bytes)
        except FrameError as error:
            self._host.note(_reason(error))
            pipeline.refuse(str(error))
        finally:
            turn.end()

    def _rest_where_due(self, nbytes: int) -> None:
        """The buffer may have been filled: have the transport serve others before it receives more."""
        self._taken_bytes += nbytes
        if self._frames.large is not None and self._taken_bytes < RECEIVED_AT_ONCE_BYTES:
            return
        if not self._rests:
            self._rests = True
            if self._pipeline.receiving:
                self._set_receiving(False)
            self._host.turn.later(self._go_on)

    def _go_on(self) -> None:
        """The others have been served."""
        self._rests = False
        self._taken_bytes = 0
        if self._pipeline.receiving:
            self._set_receiving(True)

    def pause_writing(self) -> None:
        if self._transport is not None:
            self._count_unsent(self._transport.get_write_buffer_size())
        self._pipeline.choke()

    def resume_writing(self) -> None:
        self.active = True
        self._count_unsent(0)
        self._pipeline.unchoke()

    def _count_unsent(self, count: int) -> None:
        self._host.memory.unsent_bytes += count - self._unsent_bytes
        self._unsent_bytes = count

    def _count_strange(self, held: int) -> None:
        """So much is kept of a large request of a client that has not logged in. FrameError where that is too
        much, of all such clients together."""
        memory, more = self._host.memory, held - self._strange_bytes
        memory.strangers_bytes += more
        self._strange_bytes = held
        if more > 0 and memory.strangers_bytes > STRANGERS_BYTES_MAX:
            raise NoMemory("a large request before a login, where others have too many of them")

    # ------------------------------------------------------------ what the pipeline wants

    def write(self, pieces: Pieces) -> None:
        self.active = True
        turn = self._host.turn
        if turn.gathers and self._gathered is None and sum(map(len, pieces)) <= TOGETHER_BYTES_MAX:
            self._gathered = pieces
            turn.gather(self._send_gathered)
            return
        self._send_gathered()
        self._write(pieces)

    def _send_gathered(self) -> None:
        pieces, self._gathered = self._gathered, None
        if pieces is not None:
            self._write(pieces)

    def _write(self, pieces: Pieces) -> None:
        transport = self._transport
        if transport is None:
            return
        if len(pieces) == 1:
            transport.write(pieces[0])
        else:
            transport.writelines(pieces)
        if self._unsent_bytes:
            # It was slow already: what comes on top stays here as well.
            self._count_unsent(transport.get_write_buffer_size())

    def receive(self, go_on: bool) -> None:
        if not self._rests:
            self._set_receiving(go_on)

    def _set_receiving(self, go_on: bool) -> None:
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        if go_on:
            transport.resume_reading()
        else:
            transport.pause_reading()

    def close(self) -> None:
        self._send_gathered()
        if self._transport is not None:
            self._transport.close()

    # ------------------------------------------------------------ its client's login, and its quotas

    def mute(self) -> None:
        """Do nothing more of what the client wants, until as many ``unmute``."""
        self._pipeline.mute()

    def unmute(self) -> None:
        if self._transport is not None:
            self._pipeline.unmute()

    def distrust(self, request_bytes_max: int) -> None:
        """The client has to log in first: until then no request may be larger than this."""
        self._frames.size_max = min(self._frames.size_max, request_bytes_max)
        self._is_strange = True

    def trust(self) -> None:
        """The client has logged in: its requests may be as large as anybody's."""
        self._frames.size_max = self._host.request_bytes_max
        self._is_strange = False
        self._count_strange(0)

    # ------------------------------------------------------------ its state, and its end, for the server

    @property
    def idle(self) -> bool:
        """Whether nothing is being worked on for this client."""
        return self._pipeline.idle

    @property
    def drained(self) -> bool:
        """Whether this client has been sent all that it is to get."""
        return self._transport is None or (self.idle and not self._transport.get_write_buffer_size())

    @property
    def mid_request(self) -> bool:
        """Whether a request has begun to arrive and not ended."""
        return self._frames.waiting

    @property
    def oldest(self) -> Pending | None:
        """The answer that this client waits for first."""
        return self._pipeline.oldest

    @property
    def unsent_bytes(self) -> int:
        """What this client has been sent, and has not taken."""
        return 0 if self._transport is None else self._transport.get_write_buffer_size()

    @property
    def receiving(self) -> bool:
        """Whether we take what this client sends; if not, we do not notice either that it is gone."""
        return self._pipeline.receiving

    def stalls(self, step_bytes: int) -> bool:
        """Whether of a large request fewer bytes than these have come since this was asked the last time,
        though its client was listened to then, and is now."""
        got, before = self._frames.got_bytes, self._got_bytes
        listens = self._pipeline.receiving
        self._got_bytes = got if listens else 0
        return listens and before > 0 and before <= got < before + step_bytes

    def refuse(self, reason: str) -> None:
        """Take nothing more, and close once what came before is answered; the log says why."""
        self._pipeline.refuse(reason)

    def begin(self) -> None:
        """Requests are handled from now on."""
        self._pipeline.unchoke()

    def end(self) -> None:
        """Take nothing more, and close once what is being worked on is answered and written."""
        self._pipeline.close()

    def drain(self) -> None:
        """Take no further requests; what has been received is still answered."""
        self._pipeline.drain()

    def abort(self) -> None:
        """Close at once, without a word."""
        if self._transport is not None:
            self._pipeline.lost()
            self._transport.abort()
