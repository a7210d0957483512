"""Listening sockets and outgoing connections, as the broker sees them: asyncio protocols over transports."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

# Connections that the kernel may hold before we accept them.
BACKLOG = 4096


def show_address(host: str, port: int) -> str:
    """HOST:PORT as clients are to be told it; an IPv6 address stands in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


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
