"""Calls to one member of etcd: connected to when something is asked, and anew when the connection is lost."""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from typing import Any

from ottla.addresses import parse_address
from ottla.metadata.etcd_connection import (
    NOT_CONNECTED,
    Call,
    CallError,
    Code,
    Connection,
    Metadata,
)

# A timer that comes so late tells that the loop stood still: what was to come may be there, unread.
LATE_S, GRACE_S = 0.1, 0.05


class Stream:
    """A call of many answers, read one by one."""

    def __init__(self, answer: Any) -> None:
        """``answer``: what the messages are."""
        self.call: Call
        # Whether no more comes.
        self.is_over = False
        self._answer = answer
        self._messages: deque[bytes] = deque()
        self._error: CallError | None = None
        self._news = asyncio.Event()

    def send(self, request: Any) -> None:
        self.call.send(request)

    async def read(self) -> Any:
        """The next message; None after the last one. CallError where it failed, or was cancelled."""
        while not self._messages:
            if self._error is not None:
                raise self._error
            if self.is_over:
                return None
            self._news.clear()
            await self._news.wait()
        message = self._messages.popleft()
        self.call.read(len(message))
        return self._answer.FromString(message)

    def cancel(self) -> None:
        """Whoever reads gets an error at once."""
        self.call.cancel()
        self._messages.clear()
        self.ended(CallError(Code.CANCELLED, "cancelled"))

    def received(self, message: bytes) -> None:
        self._messages.append(message)
        self.call.unread(len(message))
        self._news.set()

    def ended(self, error: CallError | None) -> None:
        self.is_over, self._error = True, error
        self._news.set()


class _Answer:
    """What becomes of a call of one answer. ``future`` has it, or a CallError at ``due_s`` at the latest."""

    def __init__(self, due_s: float) -> None:
        self._loop = asyncio.get_running_loop()
        self.future: asyncio.Future[bytes] = self._loop.create_future()
        self._message: bytes | None = None
        self._due_s = due_s
        self._timer = self._loop.call_at(due_s, self._expire)

    def timeout(self) -> str:
        """What is left of the time, as the member is told it."""
        return f"{max(int(1000 * (self._due_s - self._loop.time())), 1)}m"

    def received(self, message: bytes) -> None:
        self._message = message

    def ended(self, error: CallError | None) -> None:
        if self.future.done():
            return
        if error is None and self._message is not None:
            self.future.set_result(self._message)
        else:
            self.future.set_exception(error or CallError(Code.INTERNAL, "it ended without an answer"))

    def close(self) -> None:
        self._timer.cancel()

    def _expire(self) -> None:
        now_s = self._loop.time()
        if now_s - self._due_s > LATE_S:
            self._due_s = now_s + GRACE_S
            self._timer = self._loop.call_at(self._due_s, self._expire)
        else:
            self.ended(CallError(Code.DEADLINE_EXCEEDED, "no answer came in time"))


class Channel:
    """A member."""

    def __init__(self, address: str, tls: ssl.SSLContext | None, connect_s: float) -> None:
        self.address = address
        self.connection: Connection | None = None
        # That one, and those before it on which the member goes on with what it was asked.
        self._open: dict[Connection, None] = {}
        self._tls = tls
        self._connect_s = connect_s
        self._connecting: asyncio.Task[Connection | str] | None = None

    async def call(self, path: str, request: Any, answer: Any, timeout_s: float, metadata: Metadata) -> Any:
        """The answer to a call of one request and one answer. CallError where there is none."""
        due_s = asyncio.get_running_loop().time() + timeout_s
        connection = await self.connect(timeout_s)
        answering = _Answer(due_s)
        metadata = (("grpc-timeout", answering.timeout()), *metadata)
        try:
            call = connection.begin(path, metadata, answering.received, answering.ended)
            try:
                call.send(request, last=True)
                return answer.FromString(await answering.future)
            except CallError as error:
                if error.code is Code.DEADLINE_EXCEEDED:
                    connection.give_up(due_s - timeout_s)
                raise
            finally:
                call.cancel()
        finally:
            answering.close()

    async def stream(self, path: str, answer: Any, timeout_s: float, metadata: Metadata) -> Stream:
        """Begin a call of many requests and answers. CallError where that is impossible."""
        connection = await self.connect(timeout_s)
        stream = Stream(answer)
        stream.call = connection.begin(path, metadata, stream.received, stream.ended)
        return stream

    async def connect(self, timeout_s: float) -> Connection:
        """The connection, made where there is none. CallError where it cannot be made in this time."""
        if self.connection is not None and self.connection.is_usable:
            return self.connection
        if self._connecting is None or self._connecting.done():
            self._connecting = asyncio.create_task(self._connect(), name=f"etcd-{self.address}")
        done, _ = await asyncio.wait((self._connecting,), timeout=timeout_s)
        made = self._connecting.result() if done and not self._connecting.cancelled() else "no answer in time"
        if isinstance(made, str):
            raise CallError(Code.UNAVAILABLE, f"{NOT_CONNECTED}: {made}")
        return made

    async def close(self) -> None:
        """End all calls."""
        if self._connecting is not None and not self._connecting.done():
            self._connecting.cancel()
            await asyncio.wait((self._connecting,))
        connections = list(self._open)
        for connection in connections:
            connection.close("closed")
        if connections:
            await asyncio.wait([connection.lost for connection in connections], timeout=self._connect_s)

    async def _connect(self) -> Connection | str:
        """A connection that the member has answered on, or why there is none."""
        found = parse_address(self.address, port_min=1)
        if found is None:
            return f"{self.address} is no HOST:PORT"
        host, port = found
        made = Connection(self.address, "http" if self._tls is None else "https")
        try:
            async with asyncio.timeout(self._connect_s):
                await asyncio.get_running_loop().create_connection(lambda: made, host, port, ssl=self._tls)
                failure = await made.ready
        except TimeoutError:
            failure = "no answer in time"
        except (OSError, ValueError) as error:
            # ValueError: a host that no name can be.
            failure = str(error)
        except asyncio.CancelledError:
            made.close("closed")
            raise
        if failure is not None:
            made.close(failure)
            return failure
        self.connection = made
        self._open[made] = None
        made.lost.add_done_callback(lambda _: self._open.pop(made, None))
        return made
