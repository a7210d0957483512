"""How clients may log in by each listener: its mechanisms, made of its settings and the cluster's users."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Mapping
from contextlib import ExitStack

from ottla.broker.provider_keys import ProviderKeys
from ottla.broker.users import ListenerUsers
from ottla.config import BROKER, BrokerConfig, ConfigError
from ottla.config.listener_settings import Given, ListenerSettings
from ottla.config.security import UNSECURED_VALIDATOR
from ottla.env.aside import aside
from ottla.env.clock import Clock, Timer
from ottla.extras import needed
from ottla.metadata.image import ClusterImage
from ottla.security.jaas import JaasError, LoginModule, kerberos_key_of, plain_users, read_login_module
from ottla.security.principal_rules import KerberosShortNamer, RuleError
from ottla.security.sasl.client import BY_PASSWORD
from ottla.security.sasl.gssapi import GSSAPI, GssapiMechanism, GssError
from ottla.security.sasl.machine import Settings
from ottla.security.sasl.mechanism import Mechanism
from ottla.security.sasl.oauthbearer import OAuthBearerMechanism
from ottla.security.sasl.plain import PLAIN, PlainMechanism, Users
from ottla.security.sasl.scram import HASHES, ScramHash, ScramMechanism, new_nonce
from ottla.security.secret import Secret
from ottla.security.tokens import TokenView

log = logging.getLogger(__name__)

OAUTHBEARER = "OAUTHBEARER"
# How often files with users are looked at.
LOOK_AGAIN_MS = 5_000


def login_module(settings: ListenerSettings, mechanism: str) -> LoginModule | None:
    """What ``sasl.jaas.config`` says for a mechanism of a listener; None where it says nothing. ConfigError
    names the listener, and shows nothing of the module."""
    text = settings.of_mechanism(mechanism, "sasl.jaas.config")
    if text is None:
        return None
    try:
        return read_login_module(text, mechanism)
    except JaasError as error:
        name = f"listener.name.{settings.listener.lower()}.{mechanism.lower()}.sasl.jaas.config"
        raise ConfigError(f"{name}: {error}") from error


class Mechanisms:
    """Those of a node's listeners. What users there are is looked up in the image when somebody logs in."""

    def __init__(
        self,
        config: BrokerConfig,
        image: Callable[[], ClusterImage],
        tokens: Callable[[], TokenView],
        clock: Clock,
    ) -> None:
        self._config = config
        self._image = image
        self._tokens = tokens
        self._clock = clock
        self._held = ExitStack()
        self._users: dict[str, ListenerUsers] = {}
        config.require(self._check)
        self._timer: Timer | None = None
        self._looking: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Look after files with users from now on."""
        if self._users:
            self._timer = self._clock.call_later(LOOK_AGAIN_MS, self._look)

    def close(self) -> None:
        """Ask providers of tokens no more, and look after nothing."""
        self._held.close()
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()
        if self._looking is not None:
            self._looking.cancel()

    def users(self, settings: ListenerSettings) -> ListenerUsers:
        """Those whom ``ottla.users`` and ``ottla.users.file`` give a listener. ConfigError."""
        found = self._users.get(settings.listener)
        if found is None:
            found = self._users[settings.listener] = ListenerUsers(settings)
        return found

    def _check(self, proposed: Given) -> None:
        """ConfigError where these settings could not take the place of those in force."""
        for listener, users in self._users.items():
            settings = ListenerSettings(proposed, listener, BROKER)
            if users.would_change(settings):
                ListenerUsers(settings)

    def _look(self) -> None:
        self._timer = self._clock.call_later(LOOK_AGAIN_MS, self._look)
        if self._looking is None or self._looking.done():
            self._looking = asyncio.get_running_loop().create_task(self._take_up(), name="users")

    async def _take_up(self) -> None:
        """Put in force what files, and settings, have become."""
        for listener, users in self._users.items():
            try:
                loaded = await aside(users.changed)
            except ConfigError as error:
                log.error("%s; the listener keeps its old users", error)
            except Exception:
                # One listener's must not keep the others from theirs.
                log.exception("listener %s: the users cannot be checked", listener)
            else:
                if loaded is not None:
                    users.take(loaded)
                    log.info("listener %s: users loaded again", listener)

    def of_listener(self, settings: ListenerSettings) -> Callable[[], Settings]:
        """What the clients of a listener are asked with, as it is set at the moment. ConfigError where that
        makes no sense; a later change that makes none is logged, and leaves it as it was."""
        self.users(settings)
        made, held = self._make(settings)

        def change(names: frozenset[str]) -> None:
            nonlocal made, held
            changed = settings.changed(names)
            if any(name.startswith("ottla.users") for name in changed) and self._timer is not None:
                self._timer.cancel()
                self._look()
            if not any("sasl" in name or "reauth" in name for name in changed):
                return
            try:
                next_made, next_held = self._make(settings)
            except ConfigError as error:
                log.error("listener %s: configuration not changed: %s", settings.listener, error)
                return
            held.close()
            made, held = next_made, next_held

        def close() -> None:
            held.close()

        self._config.subscribe(change)
        self._held.callback(close)
        return lambda: made

    def _make(self, settings: ListenerSettings) -> tuple[Settings, ExitStack]:
        names = settings.get("sasl.enabled.mechanisms")
        if not names:
            raise ConfigError(f"listener {settings.listener} has no sasl.enabled.mechanisms")
        with ExitStack() as held:
            mechanisms: Mapping[str, Mechanism] = {
                name: self._mechanism(settings, name, held) for name in names
            }
            ends = {name: settings.of_mechanism(name, "connections.max.reauth.ms") for name in names}
            return Settings(mechanisms, ends), held.pop_all()

    def _mechanism(self, settings: ListenerSettings, name: str, held: ExitStack) -> Mechanism:
        if name == PLAIN:
            module = login_module(settings, name)
            return PlainMechanism(_Both({} if module is None else plain_users(module), self.users(settings)))
        if name in HASHES:
            return self._scram(HASHES[name])
        if name == OAUTHBEARER:
            return self._bearer(settings, held)
        if name == GSSAPI:
            return _kerberos(settings)
        raise ConfigError(
            f"listener {settings.listener}: sasl.enabled.mechanisms has {name}, which is not supported; use "
            f"one of {', '.join((*BY_PASSWORD, OAUTHBEARER, GSSAPI))}"
        )

    def _scram(self, hash: ScramHash) -> ScramMechanism:
        return ScramMechanism(
            hash,
            users=lambda name: self._image().scram.get(name, {}).get(hash),
            tokens=lambda token_id: self._tokens().credential(hash, token_id),
            nonce=lambda: new_nonce(os.urandom),
            secret=self._image().secret.encode(),
        )

    def _bearer(self, settings: ListenerSettings, held: ExitStack) -> Mechanism:
        handler = settings.of_mechanism(OAUTHBEARER, "sasl.server.callback.handler.class")
        try:
            if handler == UNSECURED_VALIDATOR:
                return self._unsecured(settings)
            return self._signed(settings, held)
        except ValueError as error:
            raise ConfigError(f"listener {settings.listener}: {error}") from error

    @staticmethod
    def _unsecured(settings: ListenerSettings) -> Mechanism:
        # Off the start path of who has none of it.
        from ottla.security.sasl.unsecured_jwt import UnsecuredValidator, settings_of

        module = login_module(settings, OAUTHBEARER)
        options = {} if module is None else {name: text.reveal() for name, text in module.options.items()}
        log.warning("listener %s accepts unsigned tokens: a client can log in as any user; see "
                    "docs/SECURITY.md",
                    settings.listener)  # fmt: skip
        return OAuthBearerMechanism(UnsecuredValidator(settings_of(options)))

    def _signed(self, settings: ListenerSettings, held: ExitStack) -> Mechanism:
        with needed(f"listener {settings.listener}: OAUTHBEARER", ConfigError):
            from ottla.security.sasl.jwt import Jwks, JwtSettings, JwtValidator

        get = settings.get
        url = get("sasl.oauthbearer.jwks.endpoint.url")
        if not url:
            raise ValueError("OAUTHBEARER needs sasl.oauthbearer.jwks.endpoint.url")
        keys = ProviderKeys(url, settings, self._clock, Jwks)
        jwt_settings = JwtSettings(
            frozenset(get("sasl.oauthbearer.expected.audience")),
            get("sasl.oauthbearer.expected.issuer"),
            get("sasl.oauthbearer.allow.unverified.audience"),
            get("sasl.oauthbearer.allow.unverified.issuer"),
            get("sasl.oauthbearer.clock.skew.seconds"),
            get("sasl.oauthbearer.scope.claim.name"),
            get("sasl.oauthbearer.sub.claim.name"),
        )
        keys.start()
        held.callback(keys.close)
        return OAuthBearerMechanism(JwtValidator(jwt_settings, lambda: keys.keys, keys.look_for))


class _Both:
    """Users of a login module and others; of one who is among both the module has the password."""

    def __init__(self, by_module: Mapping[str, Secret], others: Users) -> None:
        self._by_module, self._others = by_module, others

    def get(self, name: str, /) -> Secret | None:
        return self._by_module.get(name) or self._others.get(name)


def _kerberos(settings: ListenerSettings) -> Mechanism:
    """GSSAPI, with the key that the listener's login module names. ConfigError where it cannot be had."""
    module = login_module(settings, GSSAPI)
    if module is None:
        name = f"listener.name.{settings.listener.lower()}.gssapi.sasl.jaas.config"
        raise ConfigError(f"GSSAPI needs {name}, a Krb5LoginModule")
    try:
        # The machine's Kerberos library is loaded where it is asked for.
        from ottla.security.sasl.gssapi_context import contexts, default_realm

        key = kerberos_key_of(module)
        rules = settings.get("sasl.kerberos.principal.to.local.rules")
        return GssapiMechanism(
            contexts(key.principal, key.keytab), KerberosShortNamer(default_realm(), rules)
        )
    except (ImportError, OSError) as error:
        raise ConfigError(
            f"GSSAPI needs the machine's Kerberos library and pip install 'ottla[gssapi]': {error}"
        ) from error
    except (JaasError, GssError, RuleError) as error:
        raise ConfigError(f"listener {settings.listener}: GSSAPI: {error}") from error
