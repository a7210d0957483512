"""Contexts from a listener's settings: who may connect by them, and what may take their place."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

import pytest
from tls_support import Authority, Get, Identity, get_of, pem_of

from ottla.config import ConfigError
from ottla.security.tls import check_nodes, client_context, read, server_context
from ottla.security.tls_contexts import TlsContexts

CA, STRANGER = Authority("CA"), Authority("Stranger")
SERVER = CA.issue("server")
CLIENT, NOBODY = CA.issue("client"), STRANGER.issue("nobody")
TLS13 = "TLS_AES_256_GCM_SHA384,TLS_AES_128_GCM_SHA256,TLS_CHACHA20_POLY1305_SHA256"


def settings(identity: Identity | None = SERVER, trusted: Authority | None = CA, **given: Any) -> Get:
    """Those of a listener with this certificate, that trusts whom this authority vouches for."""
    if identity is not None:
        given |= {
            "keystore_type": "PEM",
            "keystore_key": identity.key_pem(),
            "keystore_certificate_chain": identity.chain_pem,
        }
    if trusted is not None:
        given |= {"truststore_type": "PEM", "truststore_certificates": pem_of(trusted.certificate)}
    return get_of(**given)


def shake_hands(server: Get, client: Get, host: str = "localhost") -> tuple[ssl.SSLObject, ssl.SSLObject]:
    """Both ends. ssl.SSLError where they do not agree."""
    bios = [ssl.MemoryBIO() for _ in range(4)]
    near = client_context(read(client)).wrap_bio(bios[2], bios[3], False, host)
    far = server_context(read(server)).wrap_bio(bios[0], bios[1], True)
    for _ in range(5):
        for end, into, out in ((near, bios[0], bios[3]), (far, bios[2], bios[1])):
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                pass
            finally:
                into.write(out.read())
    near.write(b"x")
    bios[0].write(bios[3].read())
    assert far.read() == b"x"
    return near, far


def test_both_ends_agree_on_the_newest() -> None:
    near, far = shake_hands(settings(), settings(None))
    assert near.version() == far.version() == "TLSv1.3"
    # Nobody is asked who it is by default.
    assert far.getpeercert(True) is None


@pytest.mark.parametrize(
    ("server", "client", "version"),
    [
        ({}, {"protocol": "TLSv1.2"}, "TLSv1.2"),
        ({}, {"protocol": "tls"}, "TLSv1.3"),
        ({"enabled_protocols": "TLSv1.2"}, {}, "TLSv1.2"),
        ({"enabled_protocols": "TLSv1.3"}, {"enabled_protocols": ""}, "TLSv1.3"),
        ({"cipher_suites": TLS13}, {}, "TLSv1.3"),
        ({"cipher_suites": TLS13, "enabled_protocols": "TLSv1.3"}, {}, "TLSv1.3"),
        # No suite of TLS 1.3 is among them.
        ({"cipher_suites": "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256"}, {}, "TLSv1.2"),
    ],
)
def test_versions(server: dict[str, str], client: dict[str, str], version: str) -> None:
    near, far = shake_hands(settings(**server), settings(None, **client))
    assert near.version() == far.version() == version


@pytest.mark.parametrize(
    ("suite", "name"),
    [
        ("TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256", "ECDHE-ECDSA-AES128-GCM-SHA256"),
        ("TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384", "ECDHE-ECDSA-AES256-GCM-SHA384"),
        ("TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA", "ECDHE-ECDSA-AES256-SHA"),
        ("TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA384", "ECDHE-ECDSA-AES256-SHA384"),
        ("TLS_ECDHE_ECDSA_WITH_AES_128_CCM", "ECDHE-ECDSA-AES128-CCM"),
        ("TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256", "ECDHE-ECDSA-CHACHA20-POLY1305"),
    ],
)
def test_suites_have_java_s_names(suite: str, name: str) -> None:
    _, far = shake_hands(settings(cipher_suites=suite), settings(None, cipher_suites=suite))
    assert far.cipher()[0] == name  # type: ignore[index]


def test_a_suite_that_a_newer_openssl_thinks_weak_has_its_name_too() -> None:
    """It may be asked for, and whether any is agreed on is OpenSSL's to say: 3.6 does not."""
    assert read(settings(cipher_suites="TLS_ECDHE_ECDSA_WITH_AES_128_CCM_8")).suites == (
        "ECDHE-ECDSA-AES128-CCM8",
    )


@pytest.mark.parametrize(
    "suite",
    [
        "TLS_RSA_WITH_AES_128_CBC_SHA", "TLS_RSA_WITH_AES_256_GCM_SHA384",
        "TLS_DHE_RSA_WITH_AES_128_CBC_SHA256",
        "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256", "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA",
    ],
)  # fmt: skip
def test_suites_for_other_keys_are_known(suite: str) -> None:
    server_context(read(settings(cipher_suites=suite)))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"enabled_protocols": "TLSv1.1,TLSv1.2"}, "Invalid value TLSv1.1 for configuration"),
        ({"protocol": "SSLv3"}, "Invalid value SSLv3 for configuration ssl.protocol"),
        ({"endpoint_identification_algorithm": "LDAPS"}, "it must be https, or empty"),
        ({"cipher_suites": "TLS_RSA_WITH_NULL_SHA"}, "no such suite"),
        ({"cipher_suites": "ECDHE-RSA-AES128-SHA"}, "names are Java's"),
        ({"cipher_suites": "TLS_ECDSA_WITH_AES_128_CBC_SHA"}, "no such suite"),
        ({"cipher_suites": "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA384"}, "no such suite"),
        ({"cipher_suites": "TLS_AES_128_GCM_SHA256"}, "add TLS_AES_256_GCM_SHA384, TLS_CHACHA"),
        (
            {"cipher_suites": "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA", "enabled_protocols": "TLSv1.3"},
            "none of ssl.cipher.suites",
        ),
        ({"cipher_suites": TLS13, "enabled_protocols": "TLSv1.2"}, "none of ssl.cipher.suites"),
    ],
)  # fmt: skip
def test_what_cannot_be_had_is_refused(given: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read(settings(**given))
    assert message in str(caught.value)


def test_a_listener_needs_a_key() -> None:
    with pytest.raises(ConfigError, match=r"listener SSL: there is no private key: set ssl\.keystore"):
        TlsContexts("SSL", settings(None))
    with pytest.raises(ConfigError, match=r"TLSv1\.2, which is not among ssl\.enabled"):
        client_context(read(settings(protocol="TLSv1.2", enabled_protocols="TLSv1.3")))


@pytest.mark.parametrize(
    ("auth", "identity", "known"),
    [
        ("none", CLIENT, False),
        ("requested", None, False),
        ("requested", CLIENT, True),
        ("required", CLIENT, True),
    ],
)
def test_clients_that_show_a_certificate(auth: str, identity: Identity | None, known: bool) -> None:
    _, far = shake_hands(settings(client_auth=auth), settings(identity))
    assert (far.getpeercert(True) is not None) is known


@pytest.mark.parametrize(
    ("auth", "identity"),
    [
        ("required", None),
        ("required", NOBODY),
        ("requested", NOBODY),
        ("required", CA.issue("late", days=(-30, -1))),
        ("requested", CA.issue("early", days=(1, 30))),
    ],
)
def test_clients_that_are_refused(auth: str, identity: Identity | None) -> None:
    with pytest.raises(ssl.SSLError):
        shake_hands(settings(client_auth=auth), settings(identity))


def test_whoever_is_in_a_truststore_is_trusted_whoever_vouches_for_it(tmp_path: Path) -> None:
    between = Authority("Between", CA)
    far = settings(trusted=between, client_auth="required")
    shake_hands(far, settings(between.issue("client")))
    with pytest.raises(ssl.SSLError):
        shake_hands(far, settings(CLIENT))


def test_names_of_servers() -> None:
    server = settings(CA.issue("server", "broker-1.example", "*.inner.example"))
    for host in ("broker-1.example", "a.inner.example", "127.0.0.1"):
        shake_hands(server, settings(None), host)
    for host in ("localhost", "server", "inner.example", "127.0.0.2"):
        with pytest.raises(ssl.SSLCertVerificationError):
            shake_hands(server, settings(None), host)
        shake_hands(server, settings(None, endpoint_identification_algorithm=""), host)
    # Whatever its name: a certificate of somebody who is trusted.
    with pytest.raises(ssl.SSLCertVerificationError):
        shake_hands(settings(NOBODY), settings(None, endpoint_identification_algorithm=""))


def test_a_client_that_speaks_nothing_newer_than_1_1_is_refused() -> None:
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.set_ciphers("ALL:@SECLEVEL=0")
    old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
    with pytest.warns(DeprecationWarning):
        old.minimum_version = ssl.TLSVersion.TLSv1
        old.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises(ConfigError, match="unsupported protocol"):
        check_nodes(server_context(read(settings())), old)


def test_nodes_must_be_able_to_connect_to_each_other() -> None:
    TlsContexts("SSL", settings(NOBODY))
    with pytest.raises(ConfigError, match="listener SSL: nodes could not connect to each other"):
        TlsContexts("SSL", settings(NOBODY), for_nodes=True)
    made = TlsContexts("SSL", settings(client_auth="required"), for_nodes=True)
    assert made.client().check_hostname and made.server().verify_mode is ssl.CERT_REQUIRED
    # SASL_SSL listeners ask for no certificate unless they have ssl.client.auth of their own.
    asked_nobody = TlsContexts("SASL_SSL", settings(client_auth="required"), client_auth="none")
    assert asked_nobody.server().verify_mode is ssl.CERT_NONE


# ------------------------------------------------------------ what may take the place of what


class Live:
    """Settings that change."""

    def __init__(self, get: Get) -> None:
        self.now = get

    def __call__(self, name: str) -> Any:
        return self.now(name)


def test_other_settings_take_the_place_of_those_in_force() -> None:
    live = Live(settings())
    contexts = TlsContexts("SSL", live)
    before = contexts.server()
    assert contexts.changed() is None
    renewed = CA.issue("server")
    live.now = settings(renewed)
    loaded = contexts.changed()
    assert loaded is not None and contexts.server() is before
    contexts.take(loaded)
    assert contexts.server() is not before and contexts.changed() is None
    assert contexts.material.keystore is not None
    assert contexts.material.keystore.chain == (renewed.certificate,)


@pytest.mark.parametrize(
    ("new", "message", "allowing"),
    [
        (settings(CA.issue("another")), "CN=another,O=Ottla, and was CN=server,O=Ottla", "allow_dn_changes"),
        (settings(CA.issue("server", "elsewhere")), "lacks alternative names", "allow_san_changes"),
        (settings(None), "there is no private key", ""),
        (settings(STRANGER.issue("server")), "nodes could not connect", ""),
        (settings(trusted=STRANGER), "nodes could not connect", ""),
        (settings(CA.issue("server", days=(-9, -1))), "certificate has expired", ""),
    ],
)
def test_what_may_not_take_their_place(new: Get, message: str, allowing: str) -> None:
    contexts = TlsContexts("SSL", settings(), for_nodes=True)
    before = contexts.server()
    with pytest.raises(ConfigError) as caught:
        contexts.check(new)
    assert message in str(caught.value) and str(caught.value).startswith("listener SSL: ")
    assert contexts.server() is before
    if allowing:
        TlsContexts("SSL", settings(**{allowing: "true"}), for_nodes=True).check(new)


def test_names_may_be_written_otherwise_and_alternative_names_be_added() -> None:
    contexts = TlsContexts("SSL", settings())
    contexts.check(settings(CA.issue("SERVER", "more", "localhost")))
    # Nodes do not use it, so whoever vouches for it will do.
    contexts.check(settings(STRANGER.issue("server")))
    with pytest.raises(ConfigError, match="a truststore cannot be added"):
        TlsContexts("SSL", settings(trusted=None)).check(settings())


def test_files_are_read_again_when_they_change(tmp_path: Path) -> None:
    path, trusted = tmp_path / "key.pem", tmp_path / "trusted.pem"
    path.write_text(SERVER.pem())
    trusted.write_text(pem_of(CA.certificate))
    contexts = TlsContexts(
        "SSL",
        get_of(
            keystore_type="PEM", keystore_location=path, truststore_type="PEM", truststore_location=trusted
        ),
    )
    assert contexts.changed() is None

    path.write_text(SERVER.pem()[:-100])
    with pytest.raises(ConfigError, match=str(path)):
        contexts.changed()
    # It is said once.
    assert contexts.changed() is None
    path.unlink()
    with pytest.raises(ConfigError, match="no such file"):
        contexts.changed()
    assert contexts.changed() is None

    path.write_text(CA.issue("server").pem())
    loaded = contexts.changed()
    assert loaded is not None
    contexts.take(loaded)
    assert contexts.server() is loaded.server and contexts.changed() is None

    trusted.write_text(pem_of(CA.certificate, STRANGER.certificate))
    loaded = contexts.changed()
    assert loaded is not None and loaded.material.truststore is not None
    assert len(loaded.material.truststore.certificates) == 2


def test_a_server_whose_key_openssl_does_not_like(tmp_path: Path) -> None:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import rsa
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    key = rsa.generate_private_key(65537, 1024)
    certificate = SERVER.certificate
    made = (
        x509.CertificateBuilder()
        .subject_name(certificate.subject)
        .issuer_name(CA.name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(certificate.not_valid_before_utc)
        .not_valid_after(certificate.not_valid_after_utc)
        .sign(CA.key, hashes.SHA256())
    )
    path = tmp_path / "weak.pem"
    path.write_text(
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode() + pem_of(made)
    )
    with pytest.raises(ConfigError, match=r"weak\.pem is not accepted: ee key too small"):
        TlsContexts("SSL", get_of(keystore_type="PEM", keystore_location=path))
