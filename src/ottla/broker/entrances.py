"""How clients come in by each listener: whether they log in, who they are then, and what they may do.

Here is what a node needs whose listeners are all PLAINTEXT. The rest is in ``secured.py``, which such a node
does not load.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from ottla.broker.connection import Connection
from ottla.broker.pipeline import Handle
from ottla.broker.request import Client
from ottla.broker.server import Server
from ottla.env.network import Network
from ottla.metadata.image import ClusterImage
from ottla.security.principals import ANONYMOUS, KafkaPrincipal

if TYPE_CHECKING:
    from ottla.security.acl import Authorizer
    from ottla.security.tokens import TokenView


class Entrances:
    """Whoever comes in is anonymous."""

    def __init__(self, network: Network) -> None:
        """``network``: the machine's."""
        # Connections of it are this node's to others.
        self.among_nodes = network
        # Who this node is to others, where it logs in there.
        self.principal: KafkaPrincipal | None = None
        self._handle: Handle
        self._authorizer: Authorizer | None = None
        self._image: Callable[[], ClusterImage]
        # The delegation tokens by which clients may log in, where they can.
        self.tokens: TokenView

    def seen_as(self) -> KafkaPrincipal | None:
        """Whom other nodes take this one for; None where that is not known beforehand."""
        return ANONYMOUS

    def listening(self, listener: str, network: Network) -> Network:
        """A network whose listeners speak what this one's clients do."""
        return network

    def lead_to(
        self,
        handle: Handle,
        authorizer: Authorizer | None,
        image: Callable[[], ClusterImage],
    ) -> None:
        """What the requests of those who are in come to, who says what they may do, and who there is."""
        self._handle = handle
        self._authorizer = authorizer
        self._image = image

    def guard(self, server: Server) -> None:
        """Have a listener's clients come in as it is set to. ConfigError where that cannot be."""
        server.handle = self._handle
        server.greet = self._greet

    @property
    def failed_handshakes(self) -> int:
        """How many clients' TLS handshakes failed."""
        return 0

    def certificate_ends_s(self) -> dict[str, float]:
        """When the first of each listener's own certificates ends, in Unix time; of listeners with TLS."""
        return {}

    def start(self) -> None:
        """Look after what may change from now on."""

    def close(self) -> None:
        """Look after nothing any more."""

    def _greet(self, connection: Connection, transport: asyncio.BaseTransport) -> None:
        self._know(connection.client, ANONYMOUS)

    def _know(self, client: Client, principal: KafkaPrincipal) -> None:
        """A client is this principal from now on."""
        client.principal = principal
        authorizer = self._authorizer
        client.permissions = None if authorizer is None else authorizer.client(str(principal), client.host)
