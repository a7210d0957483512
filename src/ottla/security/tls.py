"""A listener's TLS, from its ssl.* settings: contexts for its connections, and what may change in them.

Follows ``DefaultSslEngineFactory`` and ``SslFactory``. What cannot be done is a ConfigError that names the
setting; cipher suites have Java's names.
"""

from __future__ import annotations

import re
import ssl
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, NamedTuple

from ottla.config import ConfigError
from ottla.env.key_files import as_file
from ottla.security.stores import Get, Keystore, Truststore, read_keystore, read_truststore

if TYPE_CHECKING:
    from cryptography.x509 import Certificate, GeneralName

_VERSIONS: Final = {"TLSv1.2": ssl.TLSVersion.TLSv1_2, "TLSv1.3": ssl.TLSVersion.TLSv1_3}
_CLIENT_AUTH: Final = {
    "none": ssl.CERT_NONE,
    "requested": ssl.CERT_OPTIONAL,
    "required": ssl.CERT_REQUIRED,
}
_TLS13_SUITES: Final = frozenset(
    ("TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256")
)
# Java's names of suites for TLS 1.2 that OpenSSL has, too, and what they become.
_SUITE: Final = re.compile(
    r"TLS_(?:(ECDHE|DHE)_)?(RSA|ECDSA)_WITH_"
    r"(?:AES_(128|256)_(GCM|CBC|CCM|CCM_8)(?:_(SHA(?:256|384)?))?|(CHACHA20_POLY1305)_SHA256)"
)


class Material(NamedTuple):
    """What a listener's contexts are made of: all that is secret or lies in files, and the settings."""

    keystore: Keystore | None
    truststore: Truststore | None
    client_auth: str
    versions: frozenset[str]
    # The newest version as a client: ssl.protocol.
    client_version: str | None
    suites: tuple[str, ...]
    checks_host: bool


def read(get: Get, client_auth: str | None = None) -> Material:
    """Read the settings and the files. ``client_auth`` goes before ssl.client.auth. ConfigError says what is
    wrong. It may take some milliseconds, and longer where a disk is slow."""
    versions = frozenset(get("ssl.enabled.protocols")) or frozenset(_VERSIONS)
    for version in sorted(versions - _VERSIONS.keys()):
        raise ConfigError(
            f"Invalid value {version} for configuration ssl.enabled.protocols: "
            f"it must be one of {', '.join(_VERSIONS)}"
        )
    suites = tuple(get("ssl.cipher.suites"))
    versions = _usable_versions(versions, suites)
    return Material(
        keystore=read_keystore(get),
        truststore=read_truststore(get),
        client_auth=client_auth or get("ssl.client.auth"),
        versions=versions,
        client_version=_client_version(get("ssl.protocol")),
        suites=tuple(_openssl_name(name) for name in suites if name not in _TLS13_SUITES),
        checks_host=_checks_host(get("ssl.endpoint.identification.algorithm")),
    )


def _client_version(protocol: str) -> str | None:
    known = {name.upper(): name for name in _VERSIONS}
    if protocol.upper() == "TLS":
        return None
    if protocol.upper() not in known:
        raise ConfigError(
            f"Invalid value {protocol} for configuration ssl.protocol: "
            f"it must be one of {', '.join(_VERSIONS)}, TLS"
        )
    return known[protocol.upper()]


def _checks_host(algorithm: str | None) -> bool:
    if not algorithm:
        return False
    if algorithm.upper() != "HTTPS":
        raise ConfigError(
            f"Invalid value {algorithm} for configuration ssl.endpoint.identification.algorithm: "
            "it must be https, or empty"
        )
    return True


def _usable_versions(versions: frozenset[str], suites: tuple[str, ...]) -> frozenset[str]:
    """Those of the versions for which there are suites."""
    if not suites:
        return versions
    newer = _TLS13_SUITES.intersection(suites)
    if "TLSv1.3" in versions and newer and newer != _TLS13_SUITES:
        # Python's contexts have no way to say which before 3.15.
        raise ConfigError(
            "ssl.cipher.suites has some of the suites of TLS 1.3, of which only all can be had: add "
            f"{', '.join(sorted(_TLS13_SUITES - newer))}, or leave TLSv1.3 out of ssl.enabled.protocols"
        )
    usable = versions - ({"TLSv1.3"} if not newer else set())
    if len(newer) == len(suites):
        usable -= {"TLSv1.2"}
    if not usable:
        raise ConfigError(
            f"none of ssl.cipher.suites is for one of ssl.enabled.protocols ({', '.join(sorted(versions))})"
        )
    return usable


def _openssl_name(name: str) -> str:
    """OpenSSL's name of a cipher suite for TLS 1.2. ConfigError where there is none."""
    match = _SUITE.fullmatch(name)
    if match is not None:
        exchange, authentication, bits, mode, digest, chacha = match.groups()
        # Without ephemeral keys a suite has the certificate's, which has to be RSA, and no word for that.
        words = [f"{exchange}-{authentication}"] if exchange else []
        if chacha:
            words.append("CHACHA20-POLY1305")
        else:
            words.append(f"AES{bits}")
            words += [] if mode == "CBC" else [mode.replace("_", "")]
            words += [digest] if digest else []
        made = "-".join(words)
        if (exchange or authentication == "RSA") and _is_known(made):
            return made
    raise ConfigError(
        f"Invalid value {name} for configuration ssl.cipher.suites: there is no such suite; names are "
        "Java's, such as TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384"
    )


def _is_known(suite: str) -> bool:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).set_ciphers(suite)
    except ssl.SSLError:
        return False
    return True


def server_context(material: Material) -> ssl.SSLContext:
    """For those who connect to the listener."""
    if material.keystore is None:
        raise ConfigError(
            "there is no private key: set ssl.keystore.location (with ssl.keystore.type and "
            "ssl.keystore.password), or ssl.keystore.key and ssl.keystore.certificate.chain"
        )
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.options |= ssl.OP_NO_RENEGOTIATION
    # To continue a session a client needs one; two would be sent to everybody.
    made.num_tickets = 1
    made.verify_mode = _CLIENT_AUTH[material.client_auth]
    _configure(made, material, material.versions, trusts=made.verify_mode is not ssl.CERT_NONE)
    return made


def client_context(material: Material, *, checks_host: bool | None = None) -> ssl.SSLContext:
    """For connections to the same listener of other nodes."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.check_hostname = material.checks_host if checks_host is None else checks_host
    versions = material.versions
    if material.client_version == "TLSv1.2":
        versions &= {"TLSv1.2"}
        if not versions:
            raise ConfigError("ssl.protocol is TLSv1.2, which is not among ssl.enabled.protocols")
    _configure(made, material, versions, trusts=True)
    return made


def _configure(made: ssl.SSLContext, material: Material, versions: frozenset[str], *, trusts: bool) -> None:
    made.minimum_version = min(_VERSIONS[name] for name in versions)
    made.maximum_version = max(_VERSIONS[name] for name in versions)
    if material.suites:
        made.set_ciphers(":".join(material.suites))
    keystore, truststore = material.keystore, material.truststore
    if keystore is not None:
        try:
            with as_file(keystore.pem()) as path:
                made.load_cert_chain(path)
        except ssl.SSLError as error:
            raise ConfigError(f"{keystore.source} is not accepted: {_reason(error)}") from error
    if not trusts:
        return
    if truststore is None:
        made.load_default_certs(
            ssl.Purpose.CLIENT_AUTH if made.verify_mode is ssl.CERT_OPTIONAL else ssl.Purpose.SERVER_AUTH
        )
        return
    try:
        made.load_verify_locations(cadata=truststore.pem())
    except ssl.SSLError as error:
        raise ConfigError(f"{truststore.source} is not accepted: {_reason(error)}") from error
    # As in Java whoever is in a truststore is trusted, and need not be a root.
    made.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN


def _reason(error: ssl.SSLError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return error.verify_message
    return (error.reason or str(error)).lower().replace("_", " ")


# ------------------------------------------------------------ what may follow what


def check_nodes(server: ssl.SSLContext, client: ssl.SSLContext) -> None:
    """ConfigError where nodes with these could not connect to each other (``SslEngineValidator``)."""
    bios = [ssl.MemoryBIO() for _ in range(4)]
    ends = [server.wrap_bio(bios[0], bios[1], True), client.wrap_bio(bios[2], bios[3], False)]
    done = [False, False]
    # Handshakes have three flights, of which certificates may be longer than one of OpenSSL's buffers.
    for _ in range(20):
        for place in (1, 0):
            try:
                ends[place].do_handshake()
                done[place] = True
            except ssl.SSLWantReadError:
                pass
            except ssl.SSLError as error:
                raise ConfigError(
                    "nodes could not connect to each other by this listener, with its keystore and "
                    f"truststore: {_reason(error)}"
                ) from error
            bios[2 - 2 * place].write(bios[1 + 2 * place].read())
            if all(done):
                return
    raise AssertionError("a handshake without end")


def check_follows(old: Material, new: Material, *, dn_may_change: bool, san_may_change: bool) -> None:
    """ConfigError where ``new`` may not follow ``old`` (``CertificateEntries.ensureCompatible``)."""
    if old.truststore is None and new.truststore is not None:
        raise ConfigError("a truststore cannot be added to a listener that was started without one")
    if old.keystore is None or new.keystore is None:
        return
    before, after = old.keystore.chain[0], new.keystore.chain[0]
    if not dn_may_change and _name(before) != _name(after):
        raise ConfigError(
            f"the new certificate's name is {after.subject.rfc4514_string()}, and was "
            f"{before.subject.rfc4514_string()}: set ssl.allow.dn.changes=true where it may change"
        )
    if not san_may_change and not _alternative_names(before) <= _alternative_names(after):
        raise ConfigError(
            "the new certificate lacks alternative names that the one before has: set "
            "ssl.allow.san.changes=true where they may change"
        )


def _name(certificate: Certificate) -> str:
    return " ".join(certificate.subject.rfc4514_string().lower().split())


def _alternative_names(certificate: Certificate) -> frozenset[GeneralName]:
    from cryptography.x509 import ExtensionNotFound, SubjectAlternativeName

    try:
        return frozenset(certificate.extensions.get_extension_for_class(SubjectAlternativeName).value)
    except ExtensionNotFound:
        return frozenset()


def end_of(material: Material) -> datetime:
    """When the first of the listener's own certificates ends."""
    assert material.keystore is not None
    return min(one.not_valid_after_utc for one in material.keystore.chain)


def is_over(material: Material, now_ms: int) -> bool:
    """Whether one of them has ended."""
    return end_of(material) < datetime.fromtimestamp(now_ms / 1000, UTC)
