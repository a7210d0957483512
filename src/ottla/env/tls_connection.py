"""One connection's TLS: between its TCP transport and the protocol that is spoken on it."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Callable, Iterable
from contextlib import suppress
from enum import Enum
from typing import Any, Final, cast

from ottla.env.handshakes import Handshakes, explain
from ottla.env.network import Above
from ottla.env.tls_backlog import RECORD_BYTES, Backlog, Piece
from ottla.env.tls_records import Records

log = logging.getLogger(__name__)

# What is received at once before the handshake is over: a record.
HANDSHAKE_BYTES: Final = 16 * 1024
# What is encrypted before it is seen whether the client takes it, and before others have their turn.
SENT_BYTES: Final = 256 * 1024
SENT_AT_ONCE_BYTES: Final = 2 * 1024 * 1024
# What is decrypted before others have their turn: each may be a change of keys, which takes 26 µs.
RECORDS_AT_ONCE: Final = 256
# Answers to such changes that a client does not take, and data that it does not take either.
UNTAKEN_BYTES_MAX: Final = 1024 * 1024
# How long a handshake may take.
HANDSHAKE_S: Final = 30.0
# The first byte of all that TLS clients say at first.
_HANDSHAKE_RECORD: Final = 0x16
# What it returns where it is given a buffer.
_read_into = cast(Callable[[ssl.SSLObject, int, memoryview], int], ssl.SSLObject.read)


class _State(Enum):
    # The other side has to say something for the handshake to go on.
    SHAKING = "shaking"
    # The thread works on it.
    WORKING = "working"
    OPEN = "open"
    # What is left is sent, and then it is closed.
    CLOSING = "closing"
    CLOSED = "closed"


_SHAKING: Final = _State.SHAKING
_WORKING: Final = _State.WORKING
_OPEN: Final = _State.OPEN
_CLOSING: Final = _State.CLOSING
_CLOSED: Final = _State.CLOSED


class TlsConnection(asyncio.BufferedProtocol):
    """A protocol to the TCP transport below, and a transport to the protocol above."""

    __slots__ = (
        "_accepted", "_backlog", "_choked", "_context", "_drained", "_handshakes",
        "_host", "_incoming", "_kept", "_outgoing", "_paused", "_protocol", "_reason", "_records",
        "_scheduled", "_shaken", "_slow", "_state", "_timer", "_tls", "_transport",
    )  # fmt: skip

    def __init__(
        self,
        handshakes: Handshakes,
        context: ssl.SSLContext,
        protocol: Above,
        server_host: str | None = None,
        shaken: asyncio.Future[None] | None = None,
    ) -> None:
        """``server_host``: who is connected to, where this is the client; ``shaken`` is told then how the
        handshake went."""
        self._handshakes = handshakes
        self._context = context
        self._protocol = protocol
        self._host = server_host
        self._shaken = shaken
        self._state = _SHAKING
        self._transport: asyncio.Transport | None = None
        self._records = Records()
        # Both sides of OpenSSL, made when there is something for it to do.
        self._tls: ssl.SSLObject | None = None
        self._incoming: ssl.MemoryBIO
        self._outgoing: ssl.MemoryBIO
        self._timer: asyncio.TimerHandle | None = None
        # Whether the protocol knows of the connection: it is to be told of its end then.
        self._accepted = False
        # Why the connection ends, where this side ends it.
        self._reason: Exception | None = None
        # Whether the protocol wants nothing for now, whether OpenSSL has nothing for it, what has come
        # besides, and whether it is looked at soon.
        self._paused = False
        self._drained = True
        self._kept = b""
        self._scheduled = False
        # What is to be sent; whether TCP takes nothing for now, and whether the protocol was told so.
        self._backlog = Backlog()
        self._choked = False
        self._slow = False

    # ------------------------------------------------------------ what the TCP transport tells

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are asyncio's in all but their class.
        stream = self._transport = cast(asyncio.Transport, transport)
        if self._host is None:
            accepted = getattr(self._protocol, "accepted", None)
            if accepted is not None:
                if not accepted(self):
                    self._state = _CLOSED
                    stream.abort()
                    return
                self._accepted = True
        self._timer = asyncio.get_running_loop().call_later(HANDSHAKE_S, self._late)
        if self._host is not None:
            self._shake(stream)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._state = _CLOSED
        self._cancel_timer()
        self._backlog.clear()
        self._kept = b""
        if self._shaken is not None and not self._shaken.done():
            self._shaken.set_exception(self._reason or exc or ConnectionResetError("closed in the handshake"))
        if self._accepted:
            self._accepted = False
            self._protocol.connection_lost(exc)

    def get_buffer(self, sizehint: int) -> memoryview:
        scratch = self._handshakes.scratch
        return scratch if self._state is _OPEN else scratch[:HANDSHAKE_BYTES]

    def buffer_updated(self, nbytes: int) -> None:
        data = self._handshakes.scratch[:nbytes]
        if self._state is _OPEN:
            self._feed(data)
        elif self._state is _SHAKING and self._transport is not None:
            if self._tls is None and data[0] != _HANDSHAKE_RECORD:
                self._refuse("it does not speak TLS")
            else:
                self._shake(self._transport, data)

    def eof_received(self) -> bool:
        if self._state is not _OPEN:
            return False
        # As good as a TLS goodbye: Kafka's requests say how long they are.
        self._end()
        return True

    def pause_writing(self) -> None:
        self._choked = True
        self._tell_whether_slow()

    def resume_writing(self) -> None:
        self._choked = False
        self._flush()

    # ------------------------------------------------------------ the handshake

    def _shake(self, stream: asyncio.Transport, data: memoryview | None = None) -> None:
        """Have the handshake worked on, with what the other side has said; it can say no more meanwhile."""
        if data is not None:
            self._kept = bytes(data)
            self._records.follow(data)
        stream.pause_reading()
        self._state = _WORKING
        try:
            self._handshakes.work(self._step, self._worked, _host_of(stream))
        except OSError as error:
            self._refuse(str(error), error)

    def _step(self) -> Exception | None:
        """In the thread, while the loop leaves all that alone: the next step, and what stops it there."""
        if self._state is not _WORKING:
            return None
        try:
            if self._tls is None:
                self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
                self._tls = self._context.wrap_bio(
                    self._incoming, self._outgoing, self._host is None, self._host
                )
            if self._kept:
                self._incoming.write(self._kept)
                self._kept = b""
            self._tls.do_handshake()
        except (ssl.SSLError, ValueError) as error:
            return error
        return None

    def _worked(self, error: Exception | None) -> None:
        stream = self._transport
        if stream is None or self._state is not _WORKING:
            return
        if self._tls is not None:
            # Our part of it, or in a few bytes why not.
            self._send_rest()
        if error is None:
            self._open(stream)
        elif isinstance(error, ssl.SSLWantReadError):
            self._state = _SHAKING
            stream.resume_reading()
        else:
            self._refuse(explain(error), error)

    def _open(self, stream: asyncio.Transport) -> None:
        self._cancel_timer()
        self._state = _OPEN
        self._accepted = True
        try:
            self._protocol.connection_made(cast(asyncio.BaseTransport, self))
        except BaseException:
            self.abort()
            raise
        if self._shaken is not None and not self._shaken.done():
            self._shaken.set_result(None)
        # It may have gone on at once. Until that is looked at nothing more is received.
        self._drained = False
        self._scheduled = True
        self._go_on()

    def _late(self) -> None:
        self._timer = None
        self._refuse(f"its TLS handshake takes longer than {HANDSHAKE_S:.0f} s")
        if self._transport is not None:
            # Nor has it time to hear why, if it has been refused before.
            self._transport.abort()

    def _refuse(self, why: str, error: Exception | None = None) -> None:
        """End it in the handshake."""
        stream = self._transport
        if stream is None or self._state is _CLOSED:
            return
        self._reason = error if isinstance(error, OSError) else ConnectionAbortedError(why)
        self._state = _CLOSED
        if self._shaken is None:
            self._handshakes.failures += 1
            host = _host_of(stream)
            log.info("%s: connection refused: %s", host, why, extra={"host": host, "is_stranger": True})
        stream.close()

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # ------------------------------------------------------------ receiving

    def _feed(self, data: memoryview) -> None:
        """Decrypt what has come, record by record; keep what is not wanted yet.

        OpenSSL is asked for no more than it has: to be told that it needs more costs as much as a record.
        """
        protocol, records, incoming, tls = self._protocol, self._records, self._incoming, self._tls
        assert tls is not None
        buffer = protocol.get_buffer(-1)
        size, got = len(buffer), 0
        start, end, left = 0, len(data), RECORDS_AT_ONCE
        try:
            while start < end:
                if not left:
                    self._put_off(data[start:])
                    break
                left -= 1
                stop = records.end(data, start)
                incoming.write(data[start : stop if stop >= 0 else end])
                start = stop if stop >= 0 else end
                whole = stop >= 0
                while whole:
                    try:
                        count = _read_into(tls, size - got, buffer[got:] if got else buffer)
                    except ssl.SSLWantReadError:
                        # It was not about data.
                        break
                    if not count:
                        self._give(got)
                        self._end()
                        return
                    got += count
                    if got < size:
                        break
                    self._give(got)
                    got = 0
                    whole = bool(tls.pending())
                    if self._paused or self._state is not _OPEN:
                        self._drained = not whole
                        self._kept = bytes(data[start:]) if self._state is _OPEN else b""
                        return
                    buffer = protocol.get_buffer(-1)
                    size = len(buffer)
        except ssl.SSLError as error:
            self._give(got)
            self._fail(error)
            return
        self._give(got)
        self._send_rest()

    def _put_off(self, data: memoryview) -> None:
        """Go on with what has come when others have had their turn; receive nothing until then."""
        self._kept = bytes(data)
        if self._transport is not None:
            self._transport.pause_reading()
        if not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._go_on)

    def _give(self, count: int) -> None:
        if count and self._state is _OPEN:
            self._protocol.buffer_updated(count)

    def _drain(self) -> None:
        """Hand on what OpenSSL has, as long as it is wanted."""
        tls = self._tls
        assert tls is not None
        self._drained = False
        while not self._paused and self._state is _OPEN:
            buffer = self._protocol.get_buffer(-1)
            try:
                count = _read_into(tls, len(buffer), buffer)
            except ssl.SSLWantReadError:
                self._drained = True
                break
            except ssl.SSLError as error:
                self._fail(error)
                return
            if not count:
                self._end()
                return
            self._give(count)
        self._send_rest()

    def _go_on(self) -> None:
        """Look at what has come and was not wanted, and then receive more."""
        self._scheduled = False
        stream = self._transport
        if stream is None or self._state is not _OPEN or self._paused:
            return
        try:
            if not self._drained:
                self._drain()
            if self._kept and not self._paused:
                kept, self._kept = self._kept, b""
                self._feed(memoryview(kept))
        except BaseException:
            self.abort()
            raise
        if not self._paused and not self._scheduled and self._state is _OPEN:
            stream.resume_reading()

    def _end(self) -> None:
        """There is no more to come."""
        if not self._protocol.eof_received():
            self.close()

    def _fail(self, error: Exception) -> None:
        stream = self._transport
        if stream is None:
            return
        log.info("%s: closing the connection: %s", self._protocol, explain(error))
        self._reason = error
        self._send_rest()
        stream.abort()

    # ------------------------------------------------------------ sending

    def _flush(self) -> None:
        """Encrypt and send what there is, as long as it is taken, and others have not waited for long."""
        stream, tls = self._transport, self._tls
        if stream is None or tls is None:
            return
        sent = 0
        try:
            while self._backlog.size_bytes and not self._choked:
                if sent >= SENT_AT_ONCE_BYTES:
                    asyncio.get_running_loop().call_soon(self._flush)
                    break
                records = self._backlog.encrypt(tls.write, self._outgoing.read, SENT_BYTES)
                sent += SENT_BYTES
                if len(records) == 1:
                    stream.write(records[0])
                else:
                    stream.writelines(records)
        except ssl.SSLError as error:
            self._fail(error)
            return
        if not self._backlog.size_bytes and self._state is _CLOSING:
            self._say_goodbye(stream)
        self._tell_whether_slow()

    def _send_rest(self) -> None:
        """Send what OpenSSL has to say by itself: in handshakes, and where keys change."""
        stream = self._transport
        if stream is None or not self._outgoing.pending:
            return
        if self._choked and stream.get_write_buffer_size() > UNTAKEN_BYTES_MAX:
            log.info(
                "%s: closing the connection: the client asks for TLS key updates and does "
                "not read the answers",
                self._protocol,
            )
            self.abort()
            return
        stream.write(self._outgoing.read())

    def _tell_whether_slow(self) -> None:
        slow = self._choked or self._backlog.size_bytes > 0
        if slow is self._slow or self._state is not _OPEN:
            return
        self._slow = slow
        if slow:
            self._protocol.pause_writing()
        else:
            self._protocol.resume_writing()

    def _say_goodbye(self, stream: asyncio.Transport) -> None:
        assert self._tls is not None
        self._state = _CLOSED
        # The other side's goodbye is not waited for.
        with suppress(ssl.SSLError, ValueError):
            self._tls.unwrap()
        self._send_rest()
        stream.close()

    # ------------------------------------------------------------ what the protocol asks of its transport

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """``ssl_object`` once the handshake has begun, and what the TCP transport knows."""
        if name == "ssl_object":
            return default if self._tls is None else self._tls
        return default if self._transport is None else self._transport.get_extra_info(name, default)

    def write(self, data: Piece) -> None:
        if self._state is not _OPEN or not data:
            return
        if not self._slow and len(data) <= RECORD_BYTES:
            # As most answers are.
            self._write_record(data)
            return
        self._backlog.append(data)
        if not self._slow:
            self._flush()

    def _write_record(self, data: Piece) -> None:
        stream, tls = self._transport, self._tls
        if stream is None or tls is None:
            return
        try:
            tls.write(data)
        except ssl.SSLError as error:
            self._fail(error)
            return
        stream.write(self._outgoing.read())

    def writelines(self, pieces: Iterable[Piece]) -> None:
        if self._state is _OPEN:
            for piece in pieces:
                self._backlog.append(piece)
            if not self._slow:
                self._flush()

    def get_write_buffer_size(self) -> int:
        """What is not sent yet: what is not encrypted yet included."""
        stream = self._transport
        return self._backlog.size_bytes + (0 if stream is None else stream.get_write_buffer_size())

    def pause_reading(self) -> None:
        if not self._paused:
            self._paused = True
            if self._transport is not None:
                self._transport.pause_reading()

    def resume_reading(self) -> None:
        if not self._paused:
            return
        self._paused = False
        if self._state is _SHAKING:
            # It came when others were to come first, and its handshake has not begun.
            if self._transport is not None:
                self._transport.resume_reading()
        elif self._state is _OPEN and not self._scheduled:
            if self._drained and not self._kept:
                if self._transport is not None:
                    self._transport.resume_reading()
            else:
                self._scheduled = True
                asyncio.get_running_loop().call_soon(self._go_on)

    def is_closing(self) -> bool:
        return self._state is _CLOSING or self._state is _CLOSED

    def close(self) -> None:
        """Take nothing more; send what there is, and say goodbye."""
        stream = self._transport
        if stream is None or self.is_closing():
            return
        if self._state is not _OPEN:
            self.abort()
            return
        self._state = _CLOSING
        stream.pause_reading()
        if not self._backlog.size_bytes:
            self._say_goodbye(stream)

    def abort(self) -> None:
        """Close at once."""
        if self._transport is not None:
            self._state = _CLOSED
            self._transport.abort()


def _host_of(stream: asyncio.Transport) -> str:
    """Where the other side is."""
    peer = stream.get_extra_info("peername")
    return str(peer[0]) if peer else "?"
