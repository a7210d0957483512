"""Connections to other nodes on which this node has logged in before whoever asked for them hears of them.

What a client of Kafka does first (``SaslClientAuthenticator``): SaslHandshake, then the mechanism's tokens in
SaslAuthenticate. A session that ends (connections.max.reauth.ms, KIP-368) is not renewed: the connection is
closed shortly before, as if it had broken, and whoever uses it makes another.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, cast

from ottla.env.clock import Clock, Timer
from ottla.env.network import Listener, Network
from ottla.errors import ErrorCode
from ottla.replication.peer import Peer
from ottla.security.sasl.client import ClientExchange, ServerRefused
from ottla.wire.apis import SASL_AUTHENTICATE, SASL_HANDSHAKE

HANDSHAKE_VERSION, AUTHENTICATE_VERSION = 1, 2
# Of a session's life, how much is used.
USED = 0.85


class LoginError(OSError):
    """The other node does not let this one in, or is none that it should talk to."""


class LoggedInNetwork:
    """A network each of whose connections begins with a login. Listeners are those of the other one."""

    def __init__(
        self, network: Network, clock: Clock, exchange: Callable[[], Awaitable[ClientExchange]]
    ) -> None:
        """``exchange``: begins a login, as whom and by which mechanism it is to be now. OSError where that
        cannot be at the moment."""
        self._network = network
        self._clock = clock
        self._exchange = exchange

    async def bind(self, factory: Callable[[], asyncio.BaseProtocol], host: str, port: int) -> Listener:
        """As ``Network.bind``."""
        return await self._network.bind(factory, host, port)

    async def connect(self, factory: Callable[[], asyncio.BaseProtocol], host: str, port: int) -> None:
        """As ``Network.connect``; LoginError where the other node refuses. How long to wait is the caller's
        to limit."""
        login = _Login(await self._exchange())
        session = _Session(login.peer)
        await self._network.connect(lambda: session, host, port)
        try:
            lifetime_ms = await login.run()
            if not login.peer.connected:
                raise LoginError("the other node hung up")
        except BaseException:
            login.peer.close()
            raise
        transport = login.peer.release()
        if lifetime_ms:
            session.timer = self._clock.call_later(lifetime_ms * USED, transport.abort)
        session.protocol = cast(asyncio.BufferedProtocol, factory())
        session.protocol.connection_made(transport)


class _Login:
    """One login."""

    def __init__(self, exchange: ClientExchange) -> None:
        self._exchange = exchange
        self._answered: asyncio.Future[Any] | None = None
        self.peer = Peer("login", self._lost)

    async def run(self) -> int:
        """Log in; how long the session lasts, in milliseconds, 0: as long as the connection."""
        exchange = self._exchange
        handshake = await self._ask(SASL_HANDSHAKE, HANDSHAKE_VERSION, {"mechanism": exchange.mechanism})
        if handshake.error_code != ErrorCode.none:
            raise LoginError(
                f"the other node does not take {exchange.mechanism}, but {', '.join(handshake.mechanisms)}"
            )
        try:
            token = exchange.start()
            while True:
                answer = await self._ask(SASL_AUTHENTICATE, AUTHENTICATE_VERSION, {"auth_bytes": token})
                if answer.error_code != ErrorCode.none:
                    raise LoginError(f"the login was refused: {answer.error_message}")
                token = exchange.respond(bytes(answer.auth_bytes))
                if exchange.is_complete:
                    return max(0, int(answer.session_lifetime_ms))
        except ServerRefused as error:
            raise LoginError(str(error)) from error

    async def _ask(self, api_key: int, version: int, fields: dict[str, Any]) -> Any:
        if not self.peer.connected:
            raise LoginError("the other node hung up during the login")
        self._answered = asyncio.get_running_loop().create_future()
        self.peer.send(api_key, version, fields, self._answered.set_result)
        return await self._answered

    def _lost(self, peer: Peer) -> None:
        if self._answered is not None and not self._answered.done():
            self._answered.set_exception(LoginError("the other node hung up during the login"))


class _Session(asyncio.BufferedProtocol):
    """What a connection's transport knows: first the login, then the protocol of whoever asked for it."""

    def __init__(self, protocol: asyncio.BufferedProtocol) -> None:
        self.protocol = protocol
        # Ends the session, where it has an end.
        self.timer: Timer | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.protocol.connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        if self.timer is not None:
            self.timer.cancel()
        self.protocol.connection_lost(exc)

    def get_buffer(self, sizehint: int) -> memoryview:
        return cast(memoryview, self.protocol.get_buffer(sizehint))

    def buffer_updated(self, nbytes: int) -> None:
        self.protocol.buffer_updated(nbytes)

    def eof_received(self) -> bool | None:
        return self.protocol.eof_received()

    def pause_writing(self) -> None:
        self.protocol.pause_writing()

    def resume_writing(self) -> None:
        self.protocol.resume_writing()
