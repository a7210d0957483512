"""TLS between a TCP transport and the protocol that is spoken on it, for listeners and connections to others.

The event loop's own TLS works out handshakes on the loop, keeps a quarter of a megabyte for a connection that
has once been sent much, and tells nobody of a connection before its handshake is over. Here handshakes are
worked out in a thread, little is kept while nothing moves, and who counts connections is asked first.
docs/decisions/0022-tls.md has the figures.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from typing import cast

from ottla.env.handshakes import Handshakes
from ottla.env.network import Above, Listener, Network
from ottla.env.tls_connection import TlsConnection

Contexts = Callable[[], ssl.SSLContext]


class TlsNetwork:
    """A network whose listeners and connections speak TLS over those of another one.

    ``contexts`` is asked for each connection: what it answers may change. The protocols are told of their
    connections when the handshake is over; ``get_extra_info("ssl_object")`` of their transport has the peer's
    certificate then. One with a method ``accepted`` is asked before, with the same transport, whether the
    connection is wanted: False ends it. From then on it is told if the connection is lost.
    """

    def __init__(self, network: Network, handshakes: Handshakes, contexts: Contexts) -> None:
        self._network = network
        self._handshakes = handshakes
        self._contexts = contexts

    async def bind(self, factory: Callable[[], asyncio.BaseProtocol], host: str, port: int) -> Listener:
        """As ``Network.bind``; ``factory`` makes buffered protocols."""

        def accept() -> TlsConnection:
            protocol = cast(Above, factory())
            return TlsConnection(self._handshakes, self._contexts(), protocol)

        return await self._network.bind(accept, host, port)

    async def connect(self, factory: Callable[[], asyncio.BaseProtocol], host: str, port: int) -> None:
        """As ``Network.connect``. An ssl.SSLError, which is an OSError, where the handshake fails."""
        shaken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        protocol = cast(Above, factory())
        made = TlsConnection(self._handshakes, self._contexts(), protocol, host, shaken)
        try:
            await self._network.connect(lambda: made, host, port)
            await shaken
        except BaseException:
            # Nobody asks any more what becomes of it.
            shaken.cancel()
            made.abort()
            raise
