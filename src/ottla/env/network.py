"""Listening sockets and outgoing connections, as the broker sees them: asyncio protocols over transports."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Protocol

# Connections that the kernel may hold before we accept them.
BACKLOG = 4096
# When nothing comes on a connection for so long, the kernel asks after it, and again; it is over when
# that, or what was sent, has not been answered for so long.
ASK_AFTER_S, ASK_AGAIN_S, UNANSWERED_MS_MAX = 7, 1, 10_000


def show_address(host: str, port: int) -> str:
    """HOST:PORT as clients are to be told it; an IPv6 address stands in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def machine_name() -> str:
    """This machine's own name, as others may know it."""
    return socket.gethostname()


async def addresses_of(name: str) -> list[str]:
    """The addresses that a host's name stands for now. OSError where there are none to be found."""
    found = await asyncio.get_running_loop().getaddrinfo(name, None, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


def watch_over(transport: asyncio.BaseTransport) -> None:
    """Have the kernel break a connection whose other end is no longer there. It wakes nobody until then."""
    made = transport.get_extra_info("socket")
    if made is None or made.family not in (socket.AF_INET, socket.AF_INET6):
        return
    made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (
        ("TCP_KEEPIDLE", ASK_AFTER_S),
        ("TCP_KEEPINTVL", ASK_AGAIN_S),
        ("TCP_KEEPCNT", 3),
        ("TCP_USER_TIMEOUT", UNANSWERED_MS_MAX),
    ):
        # Not every system has all of them.
        if hasattr(socket, name):
            made.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


class Above(Protocol):
    """What is spoken on the connection: a buffered protocol."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None: ...

    def connection_lost(self, exc: Exception | None) -> None: ...

    def get_buffer(self, sizehint: int) -> memoryview: ...

    def buffer_updated(self, nbytes: int) -> None: ...

    def eof_received(self) -> bool | None: ...

    def pause_writing(self) -> None: ...

    def resume_writing(self) -> None: ...


class Listener(Protocol):
    """A bound address. Connections are taken from ``start`` on."""

    @property
    def address(self) -> tuple[str, int]:
        """The host and port that were bound."""
        ...

    async def start(self) -> None:
        """Begin to listen."""
        ...

    def close(self) -> None:
        """Accept no more; established connections go on."""
        ...


class Network(Protocol):
    """Where listeners are made, and connections to other nodes."""

    async def bind(self, factory: Callable[[], asyncio.BaseProtocol], host: str, port: int) -> Listener:
        """Reserve an address; port 0 picks a free one. OSError where it cannot be had."""
        ...

    async def connect(self, factory: Callable[[], asyncio.BaseProtocol], host: str, port: int) -> None:
        """Connect ``factory``'s protocol to a listener; its ``connection_made`` has been called then.

        ConnectionRefusedError where the machine is there and nobody listens; another OSError where it
        cannot be reached. How long to wait is the caller's to limit.
        """
        ...


class TcpListener:
    """A TCP socket of the running event loop."""

    def __init__(self, server: asyncio.Server) -> None:
        self._server = server
        name = server.sockets[0].getsockname()
        self._address = (str(name[0]), int(name[1]))

    @property
    def address(self) -> tuple[str, int]:
        return self._address

    async def start(self) -> None:
        await self._server.start_serving()

    def close(self) -> None:
        self._server.close()


class TcpNetwork:
    """The machine's TCP stack."""

    async def bind(self, factory: Callable[[], asyncio.BaseProtocol], host: str, port: int) -> Listener:
        server = await asyncio.get_running_loop().create_server(
            factory, host or None, port, backlog=BACKLOG, reuse_address=True, start_serving=False
        )
        return TcpListener(server)

    async def connect(self, factory: Callable[[], asyncio.BaseProtocol], host: str, port: int) -> None:
        await asyncio.get_running_loop().create_connection(factory, host, port)


class SharedSocket(TcpNetwork):
    """A listening socket that several processes have: whichever is there first takes a connection."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    async def bind(self, factory: Callable[[], asyncio.BaseProtocol], host: str, port: int) -> Listener:
        """The socket as it is: it was bound by whoever made it."""
        server = await asyncio.get_running_loop().create_server(
            factory, sock=socket.socket(fileno=self._fd), backlog=BACKLOG, start_serving=False
        )
        return TcpListener(server)


def listen_everywhere(host: str, port: int) -> list[socket.socket]:
    """Sockets that listen at every address of a host, all with one port, to be shared with other processes.

    Nobody else can have the addresses while they are open. OSError where they cannot be had.
    """
    found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    made: list[socket.socket] = []
    try:
        for family, kind, protocol, _, address in dict.fromkeys(found):
            one = socket.socket(family, kind, protocol)
            made.append(one)
            one.setblocking(False)
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            one.bind((address[0], made[0].getsockname()[1] or port, *address[2:]))
            one.listen(BACKLOG)
    except BaseException:
        for one in made:
            one.close()
        raise
    return made
