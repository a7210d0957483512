"""How clients come in by each listener: whether they log in, who they are then, and what they may do.

Nothing of it is there where a listener's protocol is PLAINTEXT and there is no authorizer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from ottla.broker.authentication import Authentication
from ottla.broker.connection import Connection
from ottla.broker.mechanisms import Mechanisms
from ottla.broker.pipeline import Handle
from ottla.broker.request import Client
from ottla.broker.server import Server
from ottla.config import BrokerConfig
from ottla.env.clock import Clock
from ottla.security.acl import Authorizer
from ottla.security.principals import ANONYMOUS, KafkaPrincipal

SASL_PROTOCOLS: Final = ("SASL_PLAINTEXT", "SASL_SSL")

# Whose a TLS connection is, by the certificate that was shown on it.
Shown = Callable[[asyncio.BaseTransport], KafkaPrincipal]


class Entrances:
    """``guard`` each listener before it starts."""

    def __init__(
        self,
        handle: Handle,
        config: BrokerConfig,
        clock: Clock,
        mechanisms: Mechanisms,
        authorizer: Authorizer | None,
        shown: Shown,
    ) -> None:
        """``handle``: what requests come to once it is known who asks."""
        self._handle = handle
        self._config = config
        self._clock = clock
        self._mechanisms = mechanisms
        self._authorizer = authorizer
        self._shown = shown

    def guard(self, server: Server, protocol: str) -> None:
        """Have a listener's clients come in as its protocol demands. ConfigError where that cannot be."""
        if protocol in SASL_PROTOCOLS:
            self._ask_for_login(server)
            return
        server.handle = self._handle
        if protocol == "SSL":
            server.greet = lambda connection, transport: self._know(connection.client, self._shown(transport))
        elif self._authorizer is not None:
            server.greet = lambda connection, transport: self._know(connection.client, ANONYMOUS)

    def _ask_for_login(self, server: Server) -> None:
        settings = self._config.for_listener(server.listener)
        server.handle = Authentication(
            self._handle,
            self._mechanisms.of_listener(settings),
            self._clock,
            delay_ms=lambda: int(settings.get("connection.failed.authentication.delay.ms")),
            welcome=self._know,
        )

        def greet(connection: Connection, transport: asyncio.BaseTransport) -> None:
            connection.distrust(settings.get("sasl.server.max.receive.size"))

        server.greet = greet

    def _know(self, client: Client, principal: KafkaPrincipal) -> None:
        """A client is this principal from now on."""
        client.principal = principal
        if self._authorizer is not None:
            client.permissions = self._authorizer.client(str(principal), client.host)
