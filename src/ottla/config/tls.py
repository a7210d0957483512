"""Configurations of TLS (Kafka's ``SslConfigs``), each of which a listener may have for itself."""

from __future__ import annotations

from functools import partial

from ottla.config.definition import (
    ConfigType,
    Definition,
    Effect,
    ListCheck,
    Mode,
    one_of,
    table,
)

MEDIUM, LOW = "medium", "low"
_BOOLEAN, _STRING, _LIST, _CLASS = ConfigType.BOOLEAN, ConfigType.STRING, ConfigType.LIST, ConfigType.CLASS
_PASSWORD = ConfigType.PASSWORD

# Keys and trusted certificates, which may change while brokers run, each listener's by itself.
STORES = frozenset((
    "ssl.key.password", "ssl.keystore.certificate.chain", "ssl.keystore.key", "ssl.keystore.location",
    "ssl.keystore.password", "ssl.keystore.type", "ssl.truststore.certificates", "ssl.truststore.location",
    "ssl.truststore.password", "ssl.truststore.type",
))  # fmt: skip


_row = partial(Definition, mode=Mode.PER_BROKER)


def _java(name: str, type: ConfigType, default: object, doc: str, note: str, effect: Effect) -> Definition:
    return Definition(name, type, default, LOW, doc, None, Mode.PER_BROKER, effect, note)


_KEYS = (
    _row(
        "ssl.keystore.type", _STRING, "JKS", MEDIUM,
        "Format of the key's file: PEM, PKCS12 or JKS; which of the latter two is seen.",
    ),
    _row(
        "ssl.keystore.location", _STRING, None, MEDIUM,
        "File with the private key and its certificates, the key's own first; read again when it changes.",
    ),
    _row(
        "ssl.keystore.password", _PASSWORD, None, MEDIUM, "Password of the file. PEM files need none.",
    ),
    _row(
        "ssl.keystore.key", _PASSWORD, None, MEDIUM,
        "The private key itself, as PEM, in place of a file; with ssl.keystore.type=PEM.",
    ),
    _row(
        "ssl.keystore.certificate.chain", _PASSWORD, None, MEDIUM,
        "Its certificates, as PEM, the key's own first.",
    ),
    _row(
        "ssl.key.password", _PASSWORD, None, MEDIUM, "Password of the private key, if it has one of its own.",
    ),
    _row(
        "ssl.truststore.type", _STRING, "JKS", MEDIUM,
        "Format of the trusted certificates' file, as of ssl.keystore.type.",
    ),
    _row(
        "ssl.truststore.location", _STRING, None, MEDIUM,
        "File with certificates of those who vouch for clients and other nodes; read again when it changes. "
        "Without one: those that the system trusts.",
    ),
    _row(
        "ssl.truststore.password", _PASSWORD, None, MEDIUM, "Password of the file. PEM files need none.",
    ),
    _row(
        "ssl.truststore.certificates", _PASSWORD, None, MEDIUM,
        "These certificates themselves, as PEM, in place of a file; with ssl.truststore.type=PEM.",
    ),
    _row(
        "ssl.allow.dn.changes", _BOOLEAN, False, LOW,
        "Whether a certificate that takes the place of another may have another name.",
        mode=Mode.READ_ONLY,
    ),
    _row(
        "ssl.allow.san.changes", _BOOLEAN, False, LOW,
        "Whether it may lack alternative names that the one before has.", mode=Mode.READ_ONLY,
    ),
)  # fmt: skip

_HANDSHAKES = (
    _row(
        "ssl.client.auth", _STRING, "none", MEDIUM,
        "Whether clients must show a certificate: required, none, or requested (a client without one is"
        " anonymous).",
        one_of("required", "requested", "none"),
    ),
    _row(
        "ssl.enabled.protocols", _LIST, ("TLSv1.2", "TLSv1.3"), MEDIUM,
        "Versions of TLS that are spoken: TLSv1.2, TLSv1.3. None: both.", ListCheck(),
    ),
    _row(
        "ssl.protocol", _STRING, "TLSv1.3", MEDIUM,
        "TLSv1.2: no newer one in connections to other nodes.",
    ),
    _row(
        "ssl.cipher.suites", _LIST, (), MEDIUM,
        "Cipher suites that may be used, by Java's names; of TLS 1.3 all three or none. None: those that "
        "OpenSSL finds good.", ListCheck(),
    ),
    _row(
        "ssl.endpoint.identification.algorithm", _STRING, "https", LOW,
        "Whether other nodes' certificates must be for the names that they are connected to by: https, or "
        "empty for no.",
    ),
    _row(
        "ssl.principal.mapping.rules", _STRING, "DEFAULT", LOW,
        "How the names in certificates become names of users.", mode=Mode.READ_ONLY,
    ),
)  # fmt: skip

_JAVA = (
    _java(
        "ssl.engine.factory.class", _CLASS, None, "A Java class that makes TLS engines.",
        "Java classes cannot be run", Effect.REFUSED,
    ),
    _java(
        "ssl.provider", _STRING, None, "Java's security provider.",
        "there is OpenSSL in place of Java's security providers", Effect.REFUSED,
    ),
    _java(
        "ssl.keymanager.algorithm", _STRING, "SunX509", "Java's key manager.",
        "OpenSSL goes by its own rules", Effect.NONE,
    ),
    _java(
        "ssl.trustmanager.algorithm", _STRING, "PKIX", "Java's trust manager.",
        "OpenSSL goes by its own rules", Effect.NONE,
    ),
    _java(
        "ssl.secure.random.implementation", _STRING, None, "Java's source of random numbers.",
        "OpenSSL has its own", Effect.NONE,
    ),
)  # fmt: skip

TLS = table(*_KEYS, *_HANDSHAKES, *_JAVA)
# What makes a listener's contexts.
LIVE = frozenset(
    name for name, entry in TLS.items() if entry.mode is Mode.PER_BROKER and entry.effect is Effect.ACTED_ON
)
