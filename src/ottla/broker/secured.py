"""How clients come in by listeners that speak TLS, or where they log in; and this node at others'."""

from __future__ import annotations

import asyncio
from functools import partial

from ottla.broker.among_nodes import AmongNodes
from ottla.broker.authentication import Authentication
from ottla.broker.certificates import TLS_PROTOCOLS, Certificates
from ottla.broker.connection import Connection
from ottla.broker.entrances import Entrances
from ottla.broker.mechanisms import Mechanisms
from ottla.broker.server import Server
from ottla.config import BrokerConfig
from ottla.config.listeners import SASL_PROTOCOLS
from ottla.env.clock import Clock
from ottla.env.network import Network
from ottla.metadata.image import ClusterImage
from ottla.security.principals import KafkaPrincipal
from ottla.security.tokens import TokenView


class SecuredEntrances(Entrances):
    """``start`` on the loop, ``close`` at the end."""

    def __init__(self, config: BrokerConfig, clock: Clock, network: Network) -> None:
        """ConfigError says what of a listener's settings cannot be used."""
        super().__init__(network)
        self._config = config
        self._clock = clock
        self._protocols = {one.listener: one.protocol for one in config.listeners()}
        self._certificates = Certificates(config, clock)
        self._mechanisms = Mechanisms(config, self._current_image, self._current_tokens, clock)
        among = AmongNodes(
            config, clock, self._certificates.connecting(network), users=self._mechanisms.users
        )
        self.among_nodes, self.principal = among.network, among.principal

    def seen_as(self) -> KafkaPrincipal | None:
        if self._protocols[self._config.inter_broker_listener] in SASL_PROTOCOLS:
            return self.principal
        return self._certificates.own_principal()

    def listening(self, listener: str, network: Network) -> Network:
        return self._certificates.listening(listener, network)

    def guard(self, server: Server) -> None:
        protocol = self._protocols[server.listener]
        if protocol in SASL_PROTOCOLS:
            self._ask_for_login(server)
            return
        super().guard(server)
        if protocol in TLS_PROTOCOLS:
            server.greet = self._look_at_certificate

    def _current_image(self) -> ClusterImage:
        return self._image()

    def _current_tokens(self) -> TokenView:
        return self.tokens

    @property
    def failed_handshakes(self) -> int:
        return self._certificates.failed_handshakes

    def certificate_ends_s(self) -> dict[str, float]:
        return self._certificates.ends_s()

    def start(self) -> None:
        self._certificates.start()
        self._mechanisms.start()

    def close(self) -> None:
        self._certificates.close()
        self._mechanisms.close()

    def _ask_for_login(self, server: Server) -> None:
        settings = self._config.for_listener(server.listener)
        server.handle = Authentication(
            self._handle,
            self._mechanisms.of_listener(settings),
            self._clock,
            delay_ms=lambda: int(settings.get("connection.failed.authentication.delay.ms")),
            welcome=self._know,
            counts=server.counts,
        )
        server.greet = partial(_distrust, settings.get("sasl.server.max.receive.size"))

    def _look_at_certificate(self, connection: Connection, transport: asyncio.BaseTransport) -> None:
        client = connection.client
        try:
            self._know(client, self._certificates.principal(client.listener, transport))
        except PermissionError as error:
            connection.refuse(str(error))


def _distrust(request_bytes_max: int, connection: Connection, transport: asyncio.BaseTransport) -> None:
    connection.distrust(request_bytes_max)
