"""How this node comes in at others: by the protocol of the listener that nodes use among themselves.

Nothing of it is there where that is PLAINTEXT.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from ottla.broker.mechanisms import login_module
from ottla.broker.node_tokens import NodeTokens
from ottla.config import BrokerConfig, ConfigError
from ottla.config.definition import shorten
from ottla.config.listener_settings import ListenerSettings
from ottla.config.listeners import SASL_PROTOCOLS
from ottla.env.clock import Clock
from ottla.env.network import Network
from ottla.replication.logged_in import LoggedInNetwork
from ottla.security.jaas import JaasError, Login, login_of
from ottla.security.principals import KafkaPrincipal, user
from ottla.security.sasl.client import BY_PASSWORD, ClientExchange, log_in_as
from ottla.security.sasl.oauthbearer import OAUTHBEARER
from ottla.security.sasl.plain import Users

_MECHANISM = "sasl.mechanism.inter.broker.protocol"
_NODE_USER = "ottla.node.user"


class AmongNodes:
    """``network`` has connections to others that are this node's; ``principal`` is who it is to them, where
    it logs in and that is known beforehand: whom a token names is its provider's to say."""

    def __init__(
        self,
        config: BrokerConfig,
        clock: Clock,
        network: Network,
        *,
        users: Callable[[ListenerSettings], Users],
    ) -> None:
        """``network``: speaks TLS where nodes do. ``users``: who logs in to a listener by PLAIN. ConfigError
        where nodes could not log in to each other."""
        name = config.inter_broker_listener
        (protocol,) = [one.protocol for one in config.listeners() if one.listener == name]
        self._settings = config.for_listener(name)
        self._clock = clock
        self._users = users
        self.network = network
        self.principal: KafkaPrincipal | None = None
        # Where tokens are had, and by which settings.
        self._tokens: tuple[object, NodeTokens] | None = None
        if protocol in SASL_PROTOCOLS:
            if self._mechanism() == OAUTHBEARER:
                self._token_source()
            else:
                self.principal = user(self._login().username)
            self.network = LoggedInNetwork(network, clock, self._begin)

    def _mechanism(self) -> str:
        """The one that is set at the moment. ConfigError where nodes do not log in by it."""
        mechanism = str(self._settings.get(_MECHANISM))
        known = (*BY_PASSWORD, OAUTHBEARER)
        if mechanism not in known:
            raise ConfigError(
                f"{_MECHANISM} is {mechanism}, by which nodes do not log in to each other here: set it to "
                f"one of {', '.join(known)}, or have nodes use a listener of their own with certificates "
                "(inter.broker.listener.name, SSL)"
            )
        if mechanism not in self._settings.get("sasl.enabled.mechanisms"):
            raise ConfigError(f"{_MECHANISM} must be included in sasl.enabled.mechanisms: {mechanism}")
        return mechanism

    def _login(self) -> Login:
        """As whom this node logs in by a password, as it is set at the moment."""
        mechanism, listener = self._mechanism(), self._settings.listener
        name = self._settings.get(_NODE_USER)
        if name is not None:
            password = self._users(self._settings).get(name)
            if password is None:
                raise ConfigError(
                    f"listener {listener}: {_NODE_USER} is {shorten(name)}, and this user does not "
                    "exist: add it to ottla.users or ottla.users.file"
                )
            return Login(name, password, False)
        module = login_module(self._settings, mechanism)
        try:
            login = None if module is None else login_of(module)
        except JaasError as error:
            raise ConfigError(f"listener {listener}: sasl.jaas.config of {mechanism}: {error}") from error
        if login is None:
            raise ConfigError(
                f"nodes log in to each other by {mechanism}, and no user is set: set {_NODE_USER} "
                "and ottla.users.file, or username and password in "
                f"listener.name.{listener.lower()}.{mechanism.lower()}.sasl.jaas.config"
            )
        return login

    def _token_source(self) -> NodeTokens:
        """The one of the present settings; a token stays for as long as these do."""
        settings = self._settings
        text = settings.of_mechanism(OAUTHBEARER, "sasl.jaas.config")
        if self._tokens is None or self._tokens[0] != text:
            made = NodeTokens(settings, login_module(settings, OAUTHBEARER), self._clock)
            self._tokens = text, made
        return self._tokens[1]

    async def _begin(self) -> ClientExchange:
        if self._mechanism() == OAUTHBEARER:
            return await self._token_source().begin()
        login = self._login()
        return log_in_as(
            self._mechanism(), login.username, login.password, os.urandom, by_token=login.by_token
        )
