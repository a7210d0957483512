"""TLS on a node's listeners and to other nodes': whose certificates are in force, and whose a client's is.

Keys and certificates are looked at again when settings change, and every few seconds in case their files
have: Kafka looks only when it is told to. Connections that are there go on as they were made.
"""

from __future__ import annotations

import asyncio
import logging

from ottla.config import BROKER, BrokerConfig, ConfigError, Endpoint
from ottla.config.listener_settings import Given, ListenerSettings
from ottla.env.aside import aside
from ottla.env.clock import Clock, Timer
from ottla.env.handshakes import Handshakes
from ottla.env.network import Network
from ottla.env.tls import TlsNetwork
from ottla.security.distinguished_names import DerError, subject_of
from ottla.security.principal_rules import NoName, RuleError, SslPrincipalMapper
from ottla.security.principals import ANONYMOUS, KafkaPrincipal, user
from ottla.security.tls import end_of, is_over
from ottla.security.tls_contexts import TlsContexts

log = logging.getLogger(__name__)

LOOK_AGAIN_MS = 5_000
TLS_PROTOCOLS = ("SSL", "SASL_SSL")


class Certificates:
    """``start`` on the loop, ``close`` at the end."""

    def __init__(self, config: BrokerConfig, clock: Clock) -> None:
        """ConfigError says what of a listener's settings cannot be used."""
        self._clock = clock
        self._inter_broker = config.inter_broker_listener
        self._handshakes: Handshakes
        self._contexts: dict[str, TlsContexts] = {}
        self._mappers: dict[str, SslPrincipalMapper] = {}
        self._timer: Timer | None = None
        self._looking: asyncio.Task[None] | None = None
        secured = [one for one in config.listeners() if one.protocol in TLS_PROTOCOLS]
        if secured:
            self._handshakes = Handshakes()
            config.require(self._check)
            config.subscribe(self._changed)
        for endpoint in secured:
            self._add(endpoint, config.for_listener(endpoint.listener))

    @property
    def failed_handshakes(self) -> int:
        """How many clients' handshakes failed."""
        return self._handshakes.failures if self._contexts else 0

    def ends_s(self) -> dict[str, float]:
        """When the first of each listener's own certificates ends, in Unix time."""
        return {name: end_of(contexts.material).timestamp() for name, contexts in self._contexts.items()}

    def _add(self, endpoint: Endpoint, settings: ListenerSettings) -> None:
        listener = endpoint.listener
        # Where clients log in, a certificate is asked for only if the listener itself says so.
        client_auth = None if endpoint.protocol == "SSL" else settings.own("ssl.client.auth") or "none"
        for_nodes = listener == self._inter_broker
        self._contexts[listener] = TlsContexts(
            listener, settings.get, for_nodes=for_nodes, client_auth=client_auth
        )
        self._warn(self._contexts[listener])
        try:
            self._mappers[listener] = SslPrincipalMapper(settings.get("ssl.principal.mapping.rules"))
        except RuleError as error:
            raise ConfigError(f"listener {listener}: ssl.principal.mapping.rules: {error}") from error

    def listening(self, listener: str, network: Network) -> Network:
        """A network whose listeners speak what this one is set to."""
        contexts = self._contexts.get(listener)
        return network if contexts is None else TlsNetwork(network, self._handshakes, contexts.server)

    def connecting(self, network: Network) -> Network:
        """A network whose connections speak what nodes do among themselves."""
        contexts = self._contexts.get(self._inter_broker)
        return network if contexts is None else TlsNetwork(network, self._handshakes, contexts.client)

    def principal(self, listener: str, transport: asyncio.BaseTransport) -> KafkaPrincipal:
        """Who has shown a certificate; ANONYMOUS where none was. PermissionError where nobody can be made of
        its name."""
        certificate = transport.get_extra_info("ssl_object").getpeercert(binary_form=True)
        if certificate is None:
            return ANONYMOUS
        try:
            return user(self._mappers[listener].name(subject_of(certificate)))
        except (DerError, NoName) as error:
            raise PermissionError(f"its certificate: {error}") from error

    def own_principal(self) -> KafkaPrincipal:
        """Whom other nodes take this one for, by the certificate that it shows them; ANONYMOUS where they ask
        for none. ConfigError where nobody can be made of its name."""
        contexts = self._contexts.get(self._inter_broker)
        if contexts is None or contexts.material.client_auth == "none" or contexts.material.keystore is None:
            return ANONYMOUS
        # Loaded by then: the keystore was read with it.
        from cryptography.hazmat.primitives.serialization import Encoding

        certificate = contexts.material.keystore.chain[0].public_bytes(Encoding.DER)
        try:
            return user(self._mappers[self._inter_broker].name(subject_of(certificate)))
        except (DerError, NoName) as error:
            raise ConfigError(f"listener {self._inter_broker}: this node's certificate: {error}") from error

    def start(self) -> None:
        """Look after files and settings from now on."""
        if self._contexts:
            self._timer = self._clock.call_later(LOOK_AGAIN_MS, self._look)

    def close(self) -> None:
        """Look after nothing any more; connections are made no more."""
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()
        if self._looking is not None:
            self._looking.cancel()
        if self._contexts:
            self._handshakes.close()

    def _check(self, proposed: Given) -> None:
        """ConfigError where these settings could not take the place of those in force."""
        for listener, contexts in self._contexts.items():
            contexts.check(ListenerSettings(proposed, listener, BROKER).get)

    def _changed(self, names: frozenset[str]) -> None:
        if self._timer is not None and any("ssl." in name for name in names):
            self._look()

    def _look(self) -> None:
        assert self._timer is not None
        self._timer.cancel()
        self._timer = self._clock.call_later(LOOK_AGAIN_MS, self._look)
        if self._looking is None or self._looking.done():
            self._looking = asyncio.get_running_loop().create_task(self._take_up(), name="certificates")

    async def _take_up(self) -> None:
        """Put in force what files and settings have become."""
        for contexts in self._contexts.values():
            try:
                loaded = await aside(contexts.changed)
            except ConfigError as error:
                log.error("%s; the listener keeps its old certificate files", error)
            except Exception:
                # One listener's must not keep the others from theirs.
                log.exception("listener %s: the certificate files cannot be checked", contexts.listener)
            else:
                if loaded is not None:
                    contexts.take(loaded)
                    log.info(
                        "listener %s: certificate files loaded again: new connections use them",
                        contexts.listener,
                    )
                    self._warn(contexts)

    def _warn(self, contexts: TlsContexts) -> None:
        if is_over(contexts.material, self._clock.now_ms()):
            log.warning(
                "listener %s: a certificate has expired, clients refuse it: expired on %s",
                contexts.listener,
                f"{end_of(contexts.material):%Y-%m-%d}",
            )
