"""Security configurations of brokers that have no effect here."""

# ruff: noqa: E501 - a row to a line
# fmt: off

from __future__ import annotations

from ottla.config.definition import (
    Check,
    ConfigType,
    Definition,
    Effect,
    Mode,
    Rule,
    between,
)

BOOLEAN, STRING, INT, SHORT = ConfigType.BOOLEAN, ConfigType.STRING, ConfigType.INT, ConfigType.SHORT
LONG, DOUBLE, LIST, CLASS = ConfigType.LONG, ConfigType.DOUBLE, ConfigType.LIST, ConfigType.CLASS
PASSWORD = ConfigType.PASSWORD
HIGH, MEDIUM, LOW = "high", "medium", "low"
PER_BROKER = Mode.PER_BROKER

_OAUTH = "org.apache.kafka.common.security.oauthbearer."
_PRINCIPAL_BUILDER = "org.apache.kafka.common.security.authenticator.DefaultKafkaPrincipalBuilder"


def _sasl(
    name: str, type: ConfigType, default: object, importance: str, doc: str,
    check: Rule | None = None, mode: Mode = Mode.READ_ONLY,
) -> Definition:
    return Definition(name, type, default, importance, doc, check, mode, Effect.NONE, "nodes need none of it here")


_RS256 = Check("[ES256, RS256], any case", lambda text: None if text.upper() in ("ES256", "RS256") else "String must be one of (case insensitive): ES256, RS256")

SECURITY = (
    Definition("principal.builder.class", CLASS, _PRINCIPAL_BUILDER, MEDIUM, "A Java class that names clients.", None, PER_BROKER, Effect.REFUSED, "Java classes cannot be run"),
    Definition("security.providers", STRING, None, LOW, "Java classes that bring security algorithms.", effect=Effect.NONE, note="Java classes cannot be run"),
    _sasl("sasl.client.callback.handler.class", CLASS, None, MEDIUM, "A Java class for the client's side."),
    _sasl("sasl.kerberos.kinit.cmd", STRING, "/usr/bin/kinit", MEDIUM, "Path of kinit.", None, PER_BROKER),
    _sasl("sasl.kerberos.min.time.before.relogin", LONG, 60000, MEDIUM, "Shortest time between Kerberos logins, in ms.", None, PER_BROKER),
    _sasl("sasl.kerberos.ticket.renew.jitter", DOUBLE, 0.05, MEDIUM, "Random share added to the renewal time.", None, PER_BROKER),
    _sasl("sasl.kerberos.ticket.renew.window.factor", DOUBLE, 0.8, MEDIUM, "Share of a ticket's life after which it is renewed.", None, PER_BROKER),
    _sasl("sasl.login.callback.handler.class", CLASS, None, MEDIUM, "A Java class for the login."),
    _sasl("sasl.login.class", CLASS, None, MEDIUM, "A Java class that logs in."),
    _sasl("sasl.login.connect.timeout.ms", INT, None, LOW, "Time to connect to the identity provider."),
    _sasl("sasl.login.read.timeout.ms", INT, None, LOW, "Time that the identity provider may take."),
    _sasl("sasl.login.refresh.buffer.seconds", SHORT, 300, MEDIUM, "Time before expiry in which no refresh begins.", None, PER_BROKER),
    _sasl("sasl.login.refresh.min.period.seconds", SHORT, 60, MEDIUM, "Shortest time between refreshes.", None, PER_BROKER),
    _sasl("sasl.login.refresh.window.factor", DOUBLE, 0.8, MEDIUM, "Share of a credential's life after which it is refreshed.", None, PER_BROKER),
    _sasl("sasl.login.refresh.window.jitter", DOUBLE, 0.05, MEDIUM, "Random share added to that.", None, PER_BROKER),
    _sasl("sasl.login.retry.backoff.max.ms", LONG, 10000, LOW, "Longest wait between login attempts."),
    _sasl("sasl.login.retry.backoff.ms", LONG, 100, LOW, "First wait between login attempts."),
    _sasl("sasl.mechanism.controller.protocol", STRING, "GSSAPI", HIGH, "Mechanism towards controllers."),
    _sasl("sasl.oauthbearer.assertion.algorithm", STRING, "RS256", MEDIUM, "Algorithm that signs the assertion.", _RS256),
    _sasl("sasl.oauthbearer.assertion.claim.aud", STRING, None, MEDIUM, "The assertion's audience."),
    _sasl("sasl.oauthbearer.assertion.claim.exp.seconds", INT, 300, LOW, "How long the assertion is valid.", between(0, 86400)),
    _sasl("sasl.oauthbearer.assertion.claim.iss", STRING, None, MEDIUM, "The assertion's issuer."),
    _sasl("sasl.oauthbearer.assertion.claim.jti.include", BOOLEAN, False, MEDIUM, "Give each assertion an id."),
    _sasl("sasl.oauthbearer.assertion.claim.nbf.seconds", INT, 60, LOW, "How far back the assertion is valid.", between(0, 3600)),
    _sasl("sasl.oauthbearer.assertion.claim.sub", STRING, None, MEDIUM, "The assertion's subject."),
    _sasl("sasl.oauthbearer.assertion.file", STRING, None, MEDIUM, "A file with a ready assertion."),
    _sasl("sasl.oauthbearer.assertion.private.key.file", STRING, None, MEDIUM, "The key that signs assertions."),
    _sasl("sasl.oauthbearer.assertion.private.key.passphrase", PASSWORD, None, MEDIUM, "The passphrase of that key."),
    _sasl("sasl.oauthbearer.assertion.template.file", STRING, None, MEDIUM, "Claims to put into assertions."),
    _sasl("sasl.oauthbearer.jwt.retriever.class", CLASS, _OAUTH + "DefaultJwtRetriever", MEDIUM, "A Java class that fetches tokens."),
    _sasl("sasl.oauthbearer.jwt.validator.class", CLASS, _OAUTH + "DefaultJwtValidator", MEDIUM, "A Java class that checks tokens."),
)
