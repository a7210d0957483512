"""How clients come in by each listener: whether they log in, who they are then, and what they may do.

Nothing of it is there where a listener's protocol is PLAINTEXT and there is no authorizer.
"""

from __future__ import annotations

import asyncio

from ottla.broker.connection import Connection
from ottla.broker.pipeline import Handle
from ottla.broker.request import Client
from ottla.broker.server import Server
from ottla.security.acl import Authorizer
from ottla.security.principals import ANONYMOUS, KafkaPrincipal


class Entrances:
    """``guard`` each listener before it starts."""

    def __init__(self, handle: Handle, authorizer: Authorizer | None) -> None:
        """``handle``: what requests come to once it is known who asks."""
        self._handle = handle
        self._authorizer = authorizer

    def guard(self, server: Server, protocol: str) -> None:
        """Have a listener's clients come in as its protocol demands."""
        server.handle = self._handle
        if self._authorizer is not None:
            server.greet = self._greet

    def _greet(self, connection: Connection, transport: asyncio.BaseTransport) -> None:
        self._know(connection.client, ANONYMOUS)

    def _know(self, client: Client, principal: KafkaPrincipal) -> None:
        """A client is this principal from now on."""
        client.principal = principal
        if self._authorizer is not None:
            client.permissions = self._authorizer.client(str(principal), client.host)
