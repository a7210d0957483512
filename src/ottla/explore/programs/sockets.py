"""Sockets and selectors of simulated threads: connections over the simulated network, as `socket` has them.

What programs with threads ask for: to connect, to send and to receive, blocking or not, and to select.
Whoever listens does so on asyncio.
"""

from __future__ import annotations

import asyncio
import errno
import select
import selectors
import socket
from collections.abc import Iterable
from typing import Any

from ottla.explore.programs import refusing
from ottla.explore.programs.loop import ProgramLoop
from ottla.explore.programs.refusing import refused
from ottla.explore.programs.threads import LOOK_S, Wait, mine

LISTEN = "sockets that listen are not simulated: use `asyncio.start_server()`"
# What the kernel keeps for a reader, and takes of a writer.
BUFFER_BYTES = 64 << 10
# Far from what the system gives.
_FIRST_FILENO = 1 << 30
_filenos = iter(range(_FIRST_FILENO, 1 << 31))
_RealSocket = socket.socket
_RealSelector = selectors.DefaultSelector
_real = {name: getattr(socket, name) for name in ("getaddrinfo", "socketpair", "gethostbyname")}


class Simulated(asyncio.Protocol):
    """A socket of a simulated thread, which is the protocol of its own connection."""

    def __init__(self, family: int = -1, type: int = -1, proto: int = -1, _fileno: Any = None) -> None:
        thread = mine()
        assert thread is not None and isinstance(thread.loop, ProgramLoop)
        self._loop = thread.loop
        self.family = socket.AF_INET if family == -1 else family
        self.type = socket.SOCK_STREAM if type == -1 else type
        self.proto = 0 if proto == -1 else proto
        if self.type != socket.SOCK_STREAM:
            raise refused(refusing.DATAGRAM)
        self.waits: list[Wait] = []
        self._fileno = next(_filenos)
        self._timeout_s: float | None = None
        self._transport: Any = None
        self._twin: Simulated | None = None
        self._connecting: asyncio.Task[Any] | None = None
        self._error: OSError | None = None
        self._received = bytearray()
        self._is_at_end = self._is_full = False

    # ------------------------------------------------------------ its connection

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._received += data
        if self._transport is not None and len(self._received) > BUFFER_BYTES:
            self._transport.pause_reading()
        self._tell()

    def eof_received(self) -> bool:
        self._is_at_end = True
        self._tell()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        self._is_at_end = True
        if isinstance(exc, OSError):
            self._error = exc
        self._tell()

    def pause_writing(self) -> None:
        self._is_full = True

    def resume_writing(self) -> None:
        self._is_full = False
        self._tell()

    def _tell(self) -> None:
        waits, self.waits = self.waits, []
        for wait in waits:
            wait.wake()

    def is_readable(self) -> bool:
        return bool(self._received) or self._is_at_end or self._error is not None

    def is_writable(self) -> bool:
        is_open = self._transport is not None or self._twin is not None
        return self._error is not None or (is_open and not self._is_full)

    def _wait_until(self, is_ready: Any) -> None:
        """As long as its time-out allows. BlockingIOError where it does not wait."""
        while not is_ready():
            if self._timeout_s == 0:
                raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")
            thread = mine()
            if thread is None:
                raise refused(refusing.SOCKET)
            wait = Wait(thread, self._timeout_s)
            self.waits.append(wait)
            if not wait.rest():
                raise TimeoutError("timed out")

    # ------------------------------------------------------------ what programs call

    def connect_ex(self, address: Any) -> int:
        if self._error is not None:
            error, self._error = self._error, None
            return error.errno or errno.ECONNABORTED
        if self._transport is not None:
            return errno.EISCONN
        if self._connecting is None:
            self._connecting = self._loop.create_task(self._connect(*address[:2]))
        if self._timeout_s == 0:
            return errno.EINPROGRESS
        self._wait_until(self.is_writable)
        return self.connect_ex(address) if self._error is not None else 0

    async def _connect(self, host: str, port: int) -> None:
        try:
            await self._loop.create_connection(lambda: self, host, port)
        except OSError as error:
            self._error = error
        self._tell()

    def connect(self, address: Any) -> None:
        code = self.connect_ex(address)
        if code not in (0, errno.EISCONN):
            error = BlockingIOError if code == errno.EINPROGRESS else OSError
            raise error(code, errno.errorcode.get(code, "cannot connect"))

    def recv(self, size: int, _flags: int = 0) -> bytes:
        self._wait_until(self.is_readable)
        if not self._received and self._error is not None:
            raise self._error
        data = bytes(self._received[:size])
        del self._received[:size]
        if self._transport is not None and len(self._received) <= BUFFER_BYTES:
            self._transport.resume_reading()
        return data

    def recv_into(self, buffer: Any, nbytes: int = 0, flags: int = 0) -> int:
        data = self.recv(nbytes or len(buffer), flags)
        memoryview(buffer)[: len(data)] = data
        return len(data)

    def send(self, data: Any, _flags: int = 0) -> int:
        self._wait_until(self.is_writable)
        if self._error is not None:
            raise self._error
        if self._twin is not None:
            self._twin.data_received(bytes(data))
            return len(data)
        if self._transport.is_closing():
            raise BrokenPipeError(errno.EPIPE, "Broken pipe")
        piece = bytes(memoryview(data)[:BUFFER_BYTES])
        self._transport.write(piece)
        return len(piece)

    def sendall(self, data: Any, flags: int = 0) -> None:
        rest = memoryview(data)
        while rest:
            rest = rest[self.send(rest, flags) :]

    def shutdown(self, _how: int) -> None:
        if self._transport is None and self._twin is None:
            raise OSError(errno.ENOTCONN, "Transport endpoint is not connected")

    def close(self) -> None:
        self._fileno = -1
        if self._connecting is not None:
            self._connecting.cancel()
        if self._transport is not None:
            self._transport.close()

    def __enter__(self) -> Simulated:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def fileno(self) -> int:
        return self._fileno

    def setblocking(self, flag: bool) -> None:
        self._timeout_s = None if flag else 0.0

    def getblocking(self) -> bool:
        return self._timeout_s != 0

    def settimeout(self, value: float | None) -> None:
        self._timeout_s = value

    def gettimeout(self) -> float | None:
        return self._timeout_s

    def setsockopt(self, *_option: Any) -> None:
        """Taken, and not used."""

    def getsockopt(self, level: int, option: int, _size: int = 0) -> int:
        """The error that there was, for SO_ERROR; 0 for all others."""
        is_error = (level, option) == (socket.SOL_SOCKET, socket.SO_ERROR)
        return self._error.errno or 0 if is_error and self._error is not None else 0

    def getpeername(self) -> Any:
        return self._end("peername")

    def getsockname(self) -> Any:
        return self._end("sockname")

    def _end(self, name: str) -> Any:
        if self._transport is None:
            raise OSError(errno.ENOTCONN, "Transport endpoint is not connected")
        return self._transport.get_extra_info(name)

    def bind(self, _address: Any) -> None:
        raise refused(LISTEN)

    def listen(self, _backlog: int = 0) -> None:
        raise refused(LISTEN)


class Selector(selectors._BaseSelectorImpl):
    """``selectors.DefaultSelector`` for simulated sockets."""

    def _ready(self) -> list[tuple[selectors.SelectorKey, int]]:
        found = []
        for key in list(self.get_map().values()):
            one: Any = key.fileobj
            events = selectors.EVENT_READ if key.events & selectors.EVENT_READ and one.is_readable() else 0
            if key.events & selectors.EVENT_WRITE and one.is_writable():
                events |= selectors.EVENT_WRITE
            if events:
                found.append((key, events))
        return found

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        thread = mine()
        if thread is None:
            raise refused(refusing.SOCKET)
        if self._ready() or (timeout is not None and timeout <= 0):
            Wait(thread, LOOK_S).rest()
            return self._ready()
        wait = Wait(thread, timeout)
        waited_for: list[Any] = [key.fileobj for key in self.get_map().values()]
        for one in waited_for:
            one.waits.append(wait)
        wait.rest()
        for one in waited_for:
            if wait in one.waits:
                one.waits.remove(wait)
        return self._ready()


def _pair(*arguments: Any) -> tuple[Any, Any]:
    if mine() is None:
        return _real["socketpair"](*arguments)  # type: ignore[no-any-return]
    one, other = Simulated(), Simulated()
    one._twin, other._twin = other, one
    return one, other


def _addresses(
    host: Any, port: Any, family: int = 0, type: int = 0, proto: int = 0, flags: int = 0
) -> list[Any]:
    thread = mine()
    if thread is None:
        return _real["getaddrinfo"](host, port, family, type, proto, flags)  # type: ignore[no-any-return]
    assert isinstance(thread.loop, ProgramLoop)
    return thread.loop.addresses(host, port, type, proto)


def _address(host: Any) -> str:
    if mine() is None:
        return _real["gethostbyname"](host)  # type: ignore[no-any-return]
    return str(_addresses(host, 0)[0][4][0])


def _select(
    rlist: Iterable[Any], wlist: Iterable[Any], xlist: Iterable[Any], timeout: float | None = None
) -> tuple[list[Any], list[Any], list[Any]]:
    if mine() is None:
        return _real_select(rlist, wlist, xlist, timeout)
    selector = Selector()
    for events, wanted in ((selectors.EVENT_READ, rlist), (selectors.EVENT_WRITE, wlist)):
        for one in wanted:
            try:
                selector.modify(one, selector.get_key(one).events | events)
            except KeyError:
                selector.register(one, events)
    found = selector.select(timeout)
    return (
        [key.fileobj for key, events in found if events & selectors.EVENT_READ],
        [key.fileobj for key, events in found if events & selectors.EVENT_WRITE],
        [],
    )


_real_select = select.select


class Socket(_RealSocket):
    """``socket.socket``, which makes simulated ones in simulated threads."""

    def __new__(cls, *arguments: Any, **named: Any) -> Any:
        return Simulated(*arguments, **named) if mine() is not None else super().__new__(cls)


def _selector() -> Any:
    return _RealSelector() if mine() is None else Selector()


def install() -> None:
    """Serve them from now on, in simulated threads of runs; a second call changes nothing."""
    replaced: tuple[tuple[Any, str, Any], ...] = (
        (socket, "socket", Socket),
        (socket, "socketpair", _pair),
        (socket, "getaddrinfo", _addresses),
        (socket, "gethostbyname", _address),
        (selectors, "DefaultSelector", _selector),
        (select, "select", _select),
    )
    for owner, name, value in replaced:
        setattr(owner, name, value)
