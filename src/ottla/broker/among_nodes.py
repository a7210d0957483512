"""How this node comes in at others: by the protocol of the listener that nodes use among themselves.

Nothing of it is there where that is PLAINTEXT.
"""

from __future__ import annotations

import os

from ottla.broker.mechanisms import login_module
from ottla.config import BrokerConfig, ConfigError
from ottla.config.listeners import SASL_PROTOCOLS
from ottla.env.clock import Clock
from ottla.env.network import Network
from ottla.replication.logged_in import LoggedInNetwork
from ottla.security.jaas import JaasError, Login, login_of
from ottla.security.principals import KafkaPrincipal, user
from ottla.security.sasl.client import BY_PASSWORD, ClientExchange, log_in_as

_MECHANISM = "sasl.mechanism.inter.broker.protocol"


class AmongNodes:
    """``network`` has connections to others that are this node's; ``principal`` is who it is to them, where
    it logs in."""

    def __init__(
        self,
        config: BrokerConfig,
        clock: Clock,
        network: Network,
    ) -> None:
        """``network``: speaks TLS where nodes do. ConfigError where nodes could not log in to each other."""
        name = config.inter_broker_listener
        (protocol,) = [one.protocol for one in config.listeners() if one.listener == name]
        self._settings = config.for_listener(name)
        self.network = network
        self.principal: KafkaPrincipal | None = None
        if protocol in SASL_PROTOCOLS:
            self.principal = user(self._login().username)
            self.network = LoggedInNetwork(network, clock, self._begin)

    @property
    def _mechanism(self) -> str:
        return str(self._settings.get(_MECHANISM))

    def _login(self) -> Login:
        """As whom this node logs in, as it is set at the moment."""
        mechanism, listener = self._mechanism, self._settings.listener
        if mechanism not in self._settings.get("sasl.enabled.mechanisms"):
            raise ConfigError(f"{_MECHANISM} must be included in sasl.enabled.mechanisms: {mechanism}")
        if mechanism not in BY_PASSWORD:
            raise ConfigError(f"{_MECHANISM} must be one of {', '.join(BY_PASSWORD)}, not {mechanism}")
        module = login_module(self._settings, mechanism)
        try:
            login = None if module is None else login_of(module)
        except JaasError as error:
            raise ConfigError(f"listener {listener}: sasl.jaas.config of {mechanism}: {error}") from error
        if login is None:
            raise ConfigError(
                f"nodes log in to each other by {mechanism}: username and password are missing in "
                f"listener.name.{listener.lower()}.{mechanism.lower()}.sasl.jaas.config"
            )
        return login

    def _begin(self) -> ClientExchange:
        login = self._login()
        return log_in_as(self._mechanism, login.username, login.password, os.urandom, by_token=login.by_token)
