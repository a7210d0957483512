"""A program's listening address, as asyncio's servers have it."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

from ottla.explore.world.network import SimListener


class Bound:
    """What programs ask of a server's socket: which address it has."""

    family = socket.AF_INET
    type = socket.SOCK_STREAM

    def __init__(self, address: tuple[str, int]) -> None:
        self._address = address

    def getsockname(self) -> tuple[str, int]:
        return self._address


class Server(asyncio.AbstractServer):
    """What ``create_server`` returns. Connections that are open stay open when it is closed."""

    def __init__(self, loop: asyncio.AbstractEventLoop, listener: SimListener) -> None:
        self._loop = loop
        self._listener = listener
        self._closed: asyncio.Future[None] = loop.create_future()

    @property
    def sockets(self) -> tuple[Bound, ...]:
        return () if self._closed.done() else (Bound(self._listener.address),)

    def get_loop(self) -> asyncio.AbstractEventLoop:
        return self._loop

    def is_serving(self) -> bool:
        return self._listener.serving

    async def start_serving(self) -> None:
        await self._listener.start()

    async def serve_forever(self) -> None:
        """Until ``close``, or until it is cancelled, which closes it."""
        await self.start_serving()
        try:
            await asyncio.shield(self._closed)
        finally:
            self.close()
        raise asyncio.CancelledError

    def close(self) -> None:
        self._listener.close()
        if not self._closed.done():
            self._closed.set_result(None)

    async def wait_closed(self) -> None:
        await asyncio.shield(self._closed)

    async def __aenter__(self) -> Any:
        return self

    async def __aexit__(self, *_error: object) -> None:
        self.close()
        await self.wait_closed()
