"""gRPC as etcd speaks it: calls over one HTTP/2 connection to one member, on the event loop.

h2 is the HTTP/2; a message of gRPC is five bytes and the message, and a call ends with its status in the last
headers. What comes is told in the turn of the loop in which it comes. Nothing happens while nothing is asked:
that a connection is dead the kernel finds out (docs/decisions/0017-etcd-client.md).
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable, Iterable
from enum import IntEnum
from typing import Any, cast
from urllib.parse import unquote

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import (
    DataReceived,
    Event,
    RemoteSettingsChanged,
    ResponseReceived,
    StreamEnded,
    StreamReset,
    TrailersReceived,
    WindowUpdated,
)
from h2.exceptions import ProtocolError
from h2.settings import SettingCodes

from ottla.env.network import watch_over

# A message from etcd: a page of keys, or the events of some revisions.
RECEIVE_BYTES_MAX = 16 * 1024 * 1024
# What etcd may send of one call before it is told that it was received, and of all of them.
CALL_WINDOW_BYTES, WINDOW_BYTES = 1024 * 1024, 64 * 1024 * 1024
# Messages of a stream that nobody has read: beyond this etcd is not told that they were received.
UNREAD_BYTES_MAX = 1024 * 1024
# While there are calls, and so all the time with a watch, the member is asked so often if it is there: the
# kernel knows only of the machine that it is connected to, which may be one in between.
ASK_S = 30
# A call that was not answered in time ends a connection on which nothing has come for so long.
SILENT_S = 10
# What an error begins with where no connection could be made, and so nothing was sent.
NOT_CONNECTED = "failed to connect"
# What an error begins with where the member says that it has not looked at the call (RFC 9113, 8.7).
NOT_BEGUN = "not begun by the member"

_PREFIX_BYTES = 5
# What begins a frame of HTTP/2: three bytes of its length, and its type.
_FRAME_HEAD_BYTES, _TYPE_POSITION, _GOAWAY = 9, 3, 7
_GOAWAY_BYTES_MIN = 8
# The largest number of a call on one connection.
_CALL_ID_MAX = 2**31 - 1
# What a gateway answers in a member's place (grpc/doc/http-grpc-status-mapping.md).
_GATEWAY_STATUSES = ("429", "502", "503", "504")


# What concerns one call.
CallEvent = DataReceived | ResponseReceived | TrailersReceived | StreamEnded | StreamReset


class Code(IntEnum):
    """What became of a call (grpc/doc/statuscodes.md)."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


class CallError(Exception):
    """A call failed."""

    def __init__(self, code: Code, details: str) -> None:
        super().__init__(details)
        self.code = code
        self.details = details


Metadata = Iterable[tuple[str, str]]
Received = Callable[[bytes], None]
# Called once, with None where the call ended well; not where we cancelled it.
Ended = Callable[[CallError | None], None]


class _Http2(H2Connection):
    """h2's connection, which remembers of the last calls how they ended, not of 65,536: those take 8 MB."""

    MAX_CLOSED_STREAMS = 4096


class Call:
    """One call under way. ``send``, ``cancel``, and for who takes their time ``unread`` and ``read``."""

    def __init__(self, connection: Connection, call_id: int, received: Received, ended: Ended) -> None:
        self.id = call_id
        self.received = received
        self.ended = ended
        # What waits for room, and whether it is the last.
        self.outgoing = bytearray()
        self.is_last = False
        self.status: str | None = None
        self.http_status: str | None = None
        self.details = ""
        self._connection = connection
        self._incoming = bytearray()
        # Messages' bytes that were told and not read, and what etcd was not told of for that.
        self._unread_bytes = 0
        self._held_bytes = 0

    def send(self, message: Any, *, last: bool = False) -> None:
        data = message.SerializeToString()
        self.outgoing += b"\0" + len(data).to_bytes(4) + data
        self.is_last = last
        self._connection.pump(self)

    def cancel(self) -> None:
        """Hear no more of it; harmless where it has ended."""
        self._connection.drop(self)

    def unread(self, size: int) -> None:
        """A message of so many bytes is kept until it is ``read``."""
        self._unread_bytes += size

    def read(self, size: int) -> None:
        self._unread_bytes -= size
        if self._held_bytes and self._unread_bytes <= UNREAD_BYTES_MAX:
            self._connection.acknowledge(self, self.let_go())

    # For the connection

    def let_go(self) -> int:
        """What etcd was not told of that was received: it is to be."""
        held, self._held_bytes = self._held_bytes, 0
        return held

    def feed(self, data: bytes, size: int) -> None:
        """Take what came, ``size`` with what HTTP/2 pads it with. CallError for what is no message."""
        self._held_bytes += size
        if self.http_status != "200":
            # Words of a gateway: the status says what there is to know.
            self._connection.acknowledge(self, self.let_go())
            return
        self._incoming += data
        while len(self._incoming) >= _PREFIX_BYTES:
            length = int.from_bytes(self._incoming[1:_PREFIX_BYTES])
            if self._incoming[0]:
                raise CallError(Code.INTERNAL, "a compressed message, which nobody asked for")
            if length > RECEIVE_BYTES_MAX:
                raise CallError(Code.RESOURCE_EXHAUSTED, f"a message of {length} bytes is larger than max")
            if len(self._incoming) < _PREFIX_BYTES + length:
                break
            message = bytes(self._incoming[_PREFIX_BYTES : _PREFIX_BYTES + length])
            del self._incoming[: _PREFIX_BYTES + length]
            self.received(message)
        if self._unread_bytes <= UNREAD_BYTES_MAX:
            self._connection.acknowledge(self, self.let_go())

    def outcome(self) -> CallError | None:
        """How it ended, by its last headers."""
        if self.status is None:
            gone = self.http_status in _GATEWAY_STATUSES
            return CallError(
                Code.UNAVAILABLE if gone else Code.UNKNOWN, f"no status, HTTP status {self.http_status}"
            )
        try:
            code = Code(int(self.status))
        except ValueError:
            return CallError(Code.UNKNOWN, f"status {self.status}")
        return None if code is Code.OK else CallError(code, self.details)


class Connection(asyncio.Protocol):
    """One connection. ``ready`` is done with None once the member has greeted us, or with why it did not."""

    def __init__(self, authority: str, scheme: str) -> None:
        self._loop = asyncio.get_running_loop()
        self.ready: asyncio.Future[str | None] = self._loop.create_future()
        self.lost: asyncio.Future[None] = self._loop.create_future()
        self._head = ((":method", "POST"), (":scheme", scheme), (":authority", authority))
        config = H2Configuration(
            client_side=True,
            header_encoding="utf-8",
            validate_inbound_headers=False,
            normalize_outbound_headers=False,
            validate_outbound_headers=False,
        )
        self._h2 = _Http2(config)
        self._transport: asyncio.Transport | None = None
        self._calls: dict[int, Call] = {}
        self._closed_why = ""
        # The member takes no more calls here; those that it has taken go on.
        self._is_left = False
        # A frame of which a part has come.
        self._incoming = bytearray()
        # When something last came, and when it was last asked for (loop time).
        self.heard_s = self._asked_s = self._loop.time()
        self._asking: asyncio.TimerHandle | None = None

    @property
    def is_usable(self) -> bool:
        return self._is_open and not self._is_left

    @property
    def _is_open(self) -> bool:
        return self._transport is not None and not self._closed_why

    def begin(self, path: str, metadata: Metadata, received: Received, ended: Ended) -> Call:
        """Begin a call. CallError where the connection takes none."""
        if not self.is_usable:
            raise CallError(Code.UNAVAILABLE, f"{NOT_CONNECTED}: the connection ends")
        headers = [
            *self._head,
            (":path", path),
            ("te", "trailers"),
            ("content-type", "application/grpc"),
            ("user-agent", "ottla"),
            *metadata,
        ]
        try:
            call_id = self._h2.get_next_available_stream_id()
            self._h2.send_headers(call_id, headers)
            if call_id + 2 > _CALL_ID_MAX:
                # There is no other number: the next call is for another connection.
                self._is_left = True
        except ProtocolError as error:
            # Too many at once.
            raise CallError(Code.UNAVAILABLE, f"{NOT_CONNECTED}: {error}") from error
        call = self._calls[call_id] = Call(self, call_id, received, ended)
        # The headers leave with the first message.
        return call

    def close(self, why: str) -> None:
        """End it at once, and all calls with it."""
        self._closed_why = self._closed_why or why
        if self._transport is not None:
            self._transport.abort()

    def give_up(self, since_s: float) -> None:
        """A call that began then was not answered: end the connection if nothing at all is heard on it."""
        if self.heard_s < since_s and self._loop.time() - self.heard_s >= SILENT_S:
            self.close("the member says nothing")

    def _ask(self) -> None:
        now_s = self._loop.time()
        if self.heard_s < self._asked_s and now_s - self._asked_s >= SILENT_S:
            self.close("the member says nothing")
            return
        if self._calls:
            self._asked_s = now_s
            self._h2.ping(b"ottla   ")
            self._flush()
        self._asking = self._loop.call_later(ASK_S, self._ask)

    # For calls

    def pump(self, call: Call) -> None:
        """Send what there is room for."""
        while call.outgoing and call.id in self._calls:
            try:
                room = min(self._h2.local_flow_control_window(call.id), self._h2.max_outbound_frame_size)
                if room <= 0:
                    break
                chunk = bytes(call.outgoing[:room])
                is_last = call.is_last and len(chunk) == len(call.outgoing)
                self._h2.send_data(call.id, chunk, end_stream=is_last)
            except ProtocolError:
                # The member has ended it: what it said of that comes, or has come.
                break
            del call.outgoing[: len(chunk)]
        self._flush()

    def drop(self, call: Call) -> None:
        if self._forget(call) and self._is_open:
            try:
                self._h2.reset_stream(call.id, ErrorCodes.CANCEL)
            except ProtocolError:
                return
            self._flush()

    def acknowledge(self, call: Call, size: int) -> None:
        if size and self._is_open:
            try:
                self._h2.acknowledge_received_data(size, call.id)
            except ProtocolError:
                return
            self._flush()

    def _forget(self, call: Call) -> bool:
        """A call is over; whether it was not before."""
        if self._calls.pop(call.id, None) is None:
            return False
        # Of the room that it took a part is the connection's.
        self.acknowledge(call, call.let_go())
        if self._is_left and not self._calls:
            # When what is to be said of this call has been.
            self._loop.call_soon(self.close, "it takes no more calls")
        return True

    def _flush(self) -> None:
        data = self._h2.data_to_send()
        if data and self._transport is not None:
            self._transport.write(data)

    # What the transport says

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        watch_over(transport)
        self._h2.initiate_connection()
        self._h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: CALL_WINDOW_BYTES})
        self._h2.increment_flow_control_window(WINDOW_BYTES)
        self._flush()
        self._asking = self._loop.call_later(ASK_S, self._ask)

    def data_received(self, data: bytes) -> None:
        self.heard_s = self._loop.time()
        try:
            self._incoming += data
            while frame := self._next_frame():
                if frame[_TYPE_POSITION] == _GOAWAY:
                    self._on_goaway(frame)
                    continue
                for event in self._h2.receive_data(frame):
                    self._on_event(event)
        except ProtocolError as error:
            self.close(f"what the member sends is no HTTP/2: {error}")
            return
        self._flush()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        if self._asking is not None:
            self._asking.cancel()
        self._closed_why = why = self._closed_why or (f"connection lost: {exc}" if exc else "connection lost")
        if not self.ready.done():
            self.ready.set_result(why)
        self.lost.set_result(None)
        calls, self._calls = list(self._calls.values()), {}
        for call in calls:
            call.ended(CallError(Code.UNAVAILABLE, why))

    def _next_frame(self) -> bytes:
        """One by one: of several h2 would not give what the first said where the second is refused."""
        incoming = self._incoming
        size = _FRAME_HEAD_BYTES + int.from_bytes(incoming[:_TYPE_POSITION])
        # One that is too large is refused by its head.
        size = min(size, _FRAME_HEAD_BYTES + self._h2.max_inbound_frame_size + 1)
        if len(incoming) < size:
            return b""
        frame = bytes(incoming[:size])
        del incoming[:size]
        return frame

    def _on_goaway(self, frame: bytes) -> None:
        """The member takes no more calls. h2 would take nothing more of those that it goes on with, as a
        member does that is stopped; grpc-go says this twice then, first without telling which calls it has
        taken."""
        if len(frame) < _FRAME_HEAD_BYTES + _GOAWAY_BYTES_MIN:
            self.close("the member ends the connection")
            return
        last_id, error = struct.unpack_from(">II", frame, _FRAME_HEAD_BYTES)
        self._is_left = True
        if not self.ready.done():
            self.ready.set_result("the member ends the connection")
        for call in [call for call in self._calls.values() if call.id > last_id & _CALL_ID_MAX]:
            self._forget(call)
            call.ended(CallError(Code.UNAVAILABLE, f"{NOT_BEGUN}: it ends the connection"))
        if error != ErrorCodes.NO_ERROR or not self._calls:
            self.close("the member ends the connection")

    def _on_event(self, event: Event) -> None:
        if isinstance(event, RemoteSettingsChanged):
            if not self.ready.done():
                self.ready.set_result(None)
            self._pump_all()
        elif isinstance(event, WindowUpdated):
            if event.stream_id:
                self._pump_one(event.stream_id)
            else:
                self._pump_all()
        elif isinstance(event, CallEvent):
            call = self._calls.get(event.stream_id or 0)
            if call is not None:
                self._on_call(call, event)
            elif isinstance(event, DataReceived):
                # Of one that is over: the room that it took is the connection's.
                self._h2.acknowledge_received_data(event.flow_controlled_length or 0, event.stream_id or 0)

    def _on_call(self, call: Call, event: CallEvent) -> None:
        if isinstance(event, DataReceived):
            try:
                call.feed(event.data or b"", event.flow_controlled_length or 0)
            except CallError as error:
                self.drop(call)
                call.ended(error)
        elif isinstance(event, StreamEnded):
            if call.is_last and not call.outgoing:
                self._forget(call)
            else:
                self.drop(call)
            call.ended(call.outcome())
        elif isinstance(event, StreamReset):
            self._forget(call)
            # With its status where it had one: a server may end a call before it has read all of it.
            reset = CallError(Code.UNKNOWN, f"the member broke the call off: {event.error_code}")
            if event.error_code == ErrorCodes.REFUSED_STREAM:
                reset = CallError(Code.UNAVAILABLE, f"{NOT_BEGUN}: it has too many")
            call.ended(reset if call.status is None else call.outcome())
        else:
            headers = dict(cast(Iterable[tuple[str, str]], event.headers or ()))
            call.status = headers.get("grpc-status", call.status)
            call.http_status = headers.get(":status", call.http_status)
            call.details = unquote(headers.get("grpc-message", call.details))

    def _pump_one(self, call_id: int) -> None:
        if call_id in self._calls:
            self.pump(self._calls[call_id])

    def _pump_all(self) -> None:
        for call in list(self._calls.values()):
            self.pump(call)
