"""How clients may log in by each listener: its mechanisms, made of its settings and the cluster's users."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from contextlib import ExitStack

from ottla.broker.provider_keys import ProviderKeys
from ottla.config import BrokerConfig, ConfigError
from ottla.config.listener_settings import ListenerSettings
from ottla.config.security import UNSECURED_VALIDATOR
from ottla.env.clock import Clock
from ottla.metadata.image import ClusterImage
from ottla.security.jaas import JaasError, LoginModule, kerberos_key_of, plain_users, read_login_module
from ottla.security.principal_rules import KerberosShortNamer, RuleError
from ottla.security.sasl.client import BY_PASSWORD
from ottla.security.sasl.gssapi import GSSAPI, GssapiMechanism, GssError
from ottla.security.sasl.machine import Settings
from ottla.security.sasl.mechanism import Mechanism
from ottla.security.sasl.oauthbearer import OAuthBearerMechanism
from ottla.security.sasl.plain import PLAIN, PlainMechanism
from ottla.security.sasl.scram import HASHES, ScramHash, ScramMechanism, new_nonce
from ottla.security.tokens import TokenView

log = logging.getLogger(__name__)

OAUTHBEARER = "OAUTHBEARER"


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

    def close(self) -> None:
        """Ask providers of tokens no more."""
        self._held.close()

    def of_listener(self, settings: ListenerSettings) -> Callable[[], Settings]:
        """What the clients of a listener are asked with, as it is set at the moment. ConfigError where that
        makes no sense; a later change that makes none is logged, and leaves it as it was."""
        made, held = self._make(settings)

        def change(names: frozenset[str]) -> None:
            nonlocal made, held
            if not any("sasl" in name or "reauth" in name for name in settings.changed(names)):
                return
            try:
                next_made, next_held = self._make(settings)
            except ConfigError as error:
                log.error("listener %s goes on as it was: %s", settings.listener, error)
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
            return PlainMechanism({} if module is None else plain_users(module))
        if name in HASHES:
            return self._scram(HASHES[name])
        if name == OAUTHBEARER:
            return self._bearer(settings, held)
        if name == GSSAPI:
            return _kerberos(settings)
        raise ConfigError(
            f"listener {settings.listener}: sasl.enabled.mechanisms has {name}, and what there is are "
            f"{', '.join((*BY_PASSWORD, OAUTHBEARER, GSSAPI))}"
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
        except ModuleNotFoundError as error:
            raise ConfigError(f"OAUTHBEARER needs {error.name}: pip install 'ottla[oauthbearer]'") from error

    @staticmethod
    def _unsecured(settings: ListenerSettings) -> Mechanism:
        # Off the start path of who has none of it.
        from ottla.security.sasl.unsecured_jwt import UnsecuredValidator, settings_of

        module = login_module(settings, OAUTHBEARER)
        options = {} if module is None else {name: text.reveal() for name, text in module.options.items()}
        log.warning("listener %s takes tokens that nobody has signed: whoever comes is who they say",
                    settings.listener)  # fmt: skip
        return OAuthBearerMechanism(UnsecuredValidator(settings_of(options)))

    def _signed(self, settings: ListenerSettings, held: ExitStack) -> Mechanism:
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
