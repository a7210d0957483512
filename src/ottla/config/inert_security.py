"""Security configurations of brokers. There is no TLS, SASL or authorizer yet, so none has an effect."""

# ruff: noqa: E501 - a row to a line
# fmt: off

from __future__ import annotations

from ottla.config.definition import (
    Check,
    ConfigType,
    Definition,
    Effect,
    ListCheck,
    Mode,
    Rule,
    between,
    one_of,
)

BOOLEAN, STRING, INT, SHORT = ConfigType.BOOLEAN, ConfigType.STRING, ConfigType.INT, ConfigType.SHORT
LONG, DOUBLE, LIST, CLASS = ConfigType.LONG, ConfigType.DOUBLE, ConfigType.LIST, ConfigType.CLASS
PASSWORD = ConfigType.PASSWORD
HIGH, MEDIUM, LOW = "high", "medium", "low"
PER_BROKER = Mode.PER_BROKER

_OAUTH = "org.apache.kafka.common.security.oauthbearer."
_PRINCIPAL_BUILDER = "org.apache.kafka.common.security.authenticator.DefaultKafkaPrincipalBuilder"


def _tls(
    name: str, type: ConfigType, default: object, importance: str, doc: str,
    check: Rule | None = None, mode: Mode = PER_BROKER,
) -> Definition:
    return Definition(name, type, default, importance, doc, check, mode, Effect.NONE, "there are no TLS listeners")


def _sasl(
    name: str, type: ConfigType, default: object, importance: str, doc: str,
    check: Rule | None = None, mode: Mode = Mode.READ_ONLY,
) -> Definition:
    return Definition(name, type, default, importance, doc, check, mode, Effect.NONE, "nodes need none of it here")


# Keys and trusted certificates, which may change while brokers run, each listener's by itself.
STORES = frozenset((
    "ssl.key.password", "ssl.keystore.certificate.chain", "ssl.keystore.key", "ssl.keystore.location",
    "ssl.keystore.password", "ssl.keystore.type", "ssl.truststore.certificates", "ssl.truststore.location",
    "ssl.truststore.password", "ssl.truststore.type",
))

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
    _sasl("sasl.oauthbearer.client.credentials.client.id", STRING, None, MEDIUM, "The client's id at the identity provider."),
    _sasl("sasl.oauthbearer.client.credentials.client.secret", PASSWORD, None, MEDIUM, "The client's secret there."),
    _sasl("sasl.oauthbearer.jwt.retriever.class", CLASS, _OAUTH + "DefaultJwtRetriever", MEDIUM, "A Java class that fetches tokens."),
    _sasl("sasl.oauthbearer.jwt.validator.class", CLASS, _OAUTH + "DefaultJwtValidator", MEDIUM, "A Java class that checks tokens."),
    _sasl("sasl.oauthbearer.scope", STRING, None, MEDIUM, "The scope to ask for."),
    _sasl("sasl.oauthbearer.token.endpoint.url", STRING, None, MEDIUM, "Where tokens are fetched."),
    _sasl("sasl.server.callback.handler.class", CLASS, None, MEDIUM, "A Java class for the server's side."),
    _tls("ssl.allow.dn.changes", BOOLEAN, False, LOW, "Let a new certificate have another name.", None, Mode.READ_ONLY),
    _tls("ssl.allow.san.changes", BOOLEAN, False, LOW, "Let a new certificate have other alternative names.", None, Mode.READ_ONLY),
    _tls("ssl.cipher.suites", LIST, (), MEDIUM, "Cipher suites that may be used.", ListCheck()),
    _tls("ssl.client.auth", STRING, "none", MEDIUM, "Whether clients must show a certificate.", one_of("required", "requested", "none")),
    _tls("ssl.enabled.protocols", LIST, ("TLSv1.2", "TLSv1.3"), MEDIUM, "TLS versions that may be used.", ListCheck()),
    _tls("ssl.endpoint.identification.algorithm", STRING, "https", LOW, "How a server's host name is checked."),
    _tls("ssl.engine.factory.class", CLASS, None, LOW, "A Java class that makes TLS engines."),
    _tls("ssl.key.password", PASSWORD, None, MEDIUM, "Password of the private key."),
    _tls("ssl.keymanager.algorithm", STRING, "SunX509", MEDIUM, "Java's key manager."),
    _tls("ssl.keystore.certificate.chain", PASSWORD, None, MEDIUM, "Certificates, as PEM."),
    _tls("ssl.keystore.key", PASSWORD, None, MEDIUM, "Private key, as PEM."),
    _tls("ssl.keystore.location", STRING, None, MEDIUM, "File with key and certificates."),
    _tls("ssl.keystore.password", PASSWORD, None, MEDIUM, "Password of that file."),
    _tls("ssl.keystore.type", STRING, "JKS", MEDIUM, "Format of that file."),
    _tls("ssl.principal.mapping.rules", STRING, "DEFAULT", LOW, "How certificate names become short names.", None, Mode.READ_ONLY),
    _tls("ssl.protocol", STRING, "TLSv1.3", MEDIUM, "The TLS version to prefer."),
    _tls("ssl.provider", STRING, None, MEDIUM, "Java's security provider."),
    _tls("ssl.secure.random.implementation", STRING, None, LOW, "Java's source of random numbers."),
    _tls("ssl.trustmanager.algorithm", STRING, "PKIX", MEDIUM, "Java's trust manager."),
    _tls("ssl.truststore.certificates", PASSWORD, None, MEDIUM, "Trusted certificates, as PEM."),
    _tls("ssl.truststore.location", STRING, None, MEDIUM, "File with trusted certificates."),
    _tls("ssl.truststore.password", PASSWORD, None, MEDIUM, "Password of that file."),
    _tls("ssl.truststore.type", STRING, "JKS", MEDIUM, "Format of that file."),
)
