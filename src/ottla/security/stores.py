"""Keys and certificates, from where ssl.keystore.* and ssl.truststore.* say that they are.

PEM in files or in the settings themselves (KIP-651), PKCS12 and JKS. Which settings go together is as in
``DefaultSslEngineFactory``, and of the last two either may be called by the other's name, as Java has it.
What is wrong is a ConfigError that names the setting and the file, and shows nothing of what is in them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from ottla.config import ConfigError
from ottla.env.key_files import read_key_file
from ottla.extras import needed
from ottla.security.java_keystore import MAGIC, JksError, JksStore, decrypt, read_jks

# cryptography is imported where there is something to read: it takes as long as a tenth of a broker's start.
if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
    from cryptography.x509 import Certificate

Get = Callable[[str], Any]

PEM, PKCS12, JKS = "PEM", "PKCS12", "JKS"
_JCEKS_MAGIC: Final = b"\xce\xce\xce\xce"
_MARK: Final = re.compile(r"-----(BEGIN|END) ([A-Z0-9 ]+)-----")


class Keystore(NamedTuple):
    """A private key, with its certificate and those that lead from there to a root."""

    # Unencrypted, and therefore not to be shown.
    key: PrivateKeyTypes
    chain: tuple[Certificate, ...]
    # Where it is from, for messages.
    source: str

    def __repr__(self) -> str:
        return f"Keystore({self.source})"

    def pem(self) -> bytes:
        """Key and certificates as OpenSSL reads them."""
        from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

        key = self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        return key + b"".join(one.public_bytes(Encoding.PEM) for one in self.chain)


class Truststore(NamedTuple):
    """Certificates of those who are trusted to vouch for others."""

    certificates: tuple[Certificate, ...]
    source: str

    def pem(self) -> str:
        from cryptography.hazmat.primitives.serialization import Encoding

        return b"".join(one.public_bytes(Encoding.PEM) for one in self.certificates).decode()


def files_of(get: Get) -> tuple[str, ...]:
    """The files that a listener's keys and certificates are read from."""
    return tuple(
        path for path in (get("ssl.keystore.location"), get("ssl.truststore.location")) if path is not None
    )


@needed("a listener's key (ssl.keystore.*)", ConfigError)
def read_keystore(get: Get) -> Keystore | None:
    """None where no setting speaks of one. ConfigError says what is wrong."""
    kind, path = _type("ssl.keystore.type", get), get("ssl.keystore.location")
    password, key_password = get("ssl.keystore.password"), get("ssl.key.password")
    key, chain = get("ssl.keystore.key"), get("ssl.keystore.certificate.chain")
    if key is not None or chain is not None:
        if kind != PEM:
            raise ConfigError(
                f"ssl.keystore.key and ssl.keystore.certificate.chain are PEM: set ssl.keystore.type=PEM, "
                f"which is {kind}"
            )
        if key is None or chain is None:
            missing = "ssl.keystore.key" if key is None else "ssl.keystore.certificate.chain"
            raise ConfigError(f"ssl.keystore.key and ssl.keystore.certificate.chain: {missing} is missing")
        if path is not None:
            raise ConfigError("ssl.keystore.key and ssl.keystore.location are both set: leave one out")
        _refuse_password(password, "ssl.keystore.password", "; an encrypted key has ssl.key.password")
        return _pem_keystore(key, chain, key_password, "ssl.keystore.key")
    if path is None:
        if password is not None:
            raise ConfigError("ssl.keystore.password is set without ssl.keystore.location")
        return None
    if kind == PEM:
        _refuse_password(password, "ssl.keystore.password", "; an encrypted key has ssl.key.password")
        text = _text(_read("ssl.keystore.location", path), f"ssl.keystore.location {path}")
        return _pem_keystore(text, text, key_password, f"ssl.keystore.location {path}")
    if password is None:
        raise ConfigError(
            f"ssl.keystore.location is set without ssl.keystore.password, which a {kind} file has; "
            "if it is PEM, set ssl.keystore.type=PEM"
        )
    data, source = _binary("ssl.keystore.location", path), f"ssl.keystore.location {path}"
    if data.startswith(MAGIC):
        return _jks_keystore(data, password, key_password, source)
    return _pkcs12_keystore(data, password, key_password, source)


@needed("a listener's truststore (ssl.truststore.*)", ConfigError)
def read_truststore(get: Get) -> Truststore | None:
    """None where no setting speaks of one: the system's certificates are trusted then."""
    kind, path = _type("ssl.truststore.type", get), get("ssl.truststore.location")
    password, certificates = get("ssl.truststore.password"), get("ssl.truststore.certificates")
    if certificates is not None:
        if kind != PEM:
            raise ConfigError(
                f"ssl.truststore.certificates are PEM: set ssl.truststore.type=PEM, which is {kind}"
            )
        if path is not None:
            raise ConfigError(
                "ssl.truststore.certificates and ssl.truststore.location are both set: leave one out"
            )
        _refuse_password(password, "ssl.truststore.password")
        return Truststore(
            _certificates(certificates, "ssl.truststore.certificates"), "ssl.truststore.certificates"
        )
    if path is None:
        if password is not None:
            raise ConfigError("ssl.truststore.password is set without ssl.truststore.location")
        return None
    source = f"ssl.truststore.location {path}"
    if kind == PEM:
        _refuse_password(password, "ssl.truststore.password")
        text = _text(_read("ssl.truststore.location", path), source)
        return Truststore(_certificates(text, source), source)
    data = _binary("ssl.truststore.location", path)
    if data.startswith(MAGIC):
        return _jks_truststore(data, password, source)
    _, own, others = _load_pkcs12(data, password, source, "ssl.truststore.password")
    found = tuple(one for one in (own, *others) if one is not None)
    if not found:
        raise ConfigError(f"{source} has no certificate" + ("" if password else _without_password))
    return Truststore(found, source)


_without_password = " that could be read without ssl.truststore.password"


# ------------------------------------------------------------ PEM


def _pem_keystore(key: str, chain: str, password: str | None, source: str) -> Keystore:
    blocks = [block for block in _blocks(key) if block.label.endswith("PRIVATE KEY")]
    if len(blocks) != 1:
        many = "more than one private key" if blocks else "no private key (-----BEGIN PRIVATE KEY-----)"
        raise ConfigError(f"{source} has {many}")
    where = source if source != "ssl.keystore.key" else "ssl.keystore.certificate.chain"
    return _matching(_private_key(blocks[0], password, source), _certificates(chain, where), source)


class _Block(NamedTuple):
    label: str
    body: str

    def pem(self, label: str) -> bytes:
        """As it is written in files; in a property all its lines may have become one."""
        body = self.body
        if ":" not in body:
            base64 = "".join(body.split())
            body = "\n" + "\n".join(base64[at : at + 64] for at in range(0, len(base64), 64)) + "\n"
        return f"-----BEGIN {label}-----{body}-----END {label}-----\n".encode()


def _blocks(text: str) -> Iterator[_Block]:
    """What stands between marks; whatever else there is may be comments."""
    begun: re.Match[str] | None = None
    for mark in _MARK.finditer(text):
        if mark[1] == "BEGIN":
            begun = mark
        elif begun is not None and mark[2] == begun[2]:
            yield _Block(mark[2], text[begun.end() : mark.start()])
            begun = None


def _private_key(block: _Block, password: str | None, source: str) -> PrivateKeyTypes:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    encrypted = block.label.startswith("ENCRYPTED") or "ENCRYPTED" in block.body
    if encrypted and password is None:
        raise ConfigError(f"the private key in {source} is encrypted: set ssl.key.password")
    try:
        secret = password.encode() if encrypted and password is not None else None
        return load_pem_private_key(block.pem(block.label), secret)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        why = "ssl.key.password is wrong, or it is damaged" if encrypted else "it is damaged"
        # Whatever was raised may say what is in it.
        raise ConfigError(f"the private key in {source} cannot be read: {why}") from None


def _certificates(text: str, source: str) -> tuple[Certificate, ...]:
    from cryptography.x509 import load_pem_x509_certificate

    found = []
    for place, block in enumerate(
        (one for one in _blocks(text) if one.label in ("CERTIFICATE", "X509 CERTIFICATE")), 1
    ):
        try:
            found.append(load_pem_x509_certificate(block.pem("CERTIFICATE")))
        except ValueError as error:
            raise ConfigError(f"certificate {place} in {source} cannot be read") from error
    if not found:
        raise ConfigError(f"{source} has no certificate (-----BEGIN CERTIFICATE-----)")
    return tuple(found)


# ------------------------------------------------------------ PKCS12


def _pkcs12_keystore(data: bytes, password: str, key_password: str | None, source: str) -> Keystore:
    key, own, others = _load_pkcs12(data, password, source, "ssl.keystore.password")
    if key is None or own is None:
        raise ConfigError(f"{source} has no private key with a certificate")
    if key_password not in (None, password):
        raise ConfigError(
            "ssl.key.password is not ssl.keystore.password: in a PKCS12 file there is one for both"
        )
    chain, left = [own], list(others)
    while left and (issuer := next((one for one in left if one.subject == chain[-1].issuer), None)):
        left.remove(issuer)
        chain.append(issuer)
    return _matching(key, tuple(chain), source)


def _binary(setting: str, path: str) -> bytes:
    data = _read(setting, path)
    if data.startswith(_JCEKS_MAGIC):
        raise ConfigError(
            f"{setting} {path} is of the type JCEKS, which cannot be read here: convert it by "
            f"keytool -importkeystore -srcstoretype JCEKS -srckeystore {path} -destkeystore NEW.p12 "
            f"-deststoretype PKCS12, and give {setting.replace('location', 'type')}=PKCS12"
        )
    return data


def _load_pkcs12(
    data: bytes, password: str | None, source: str, setting: str
) -> tuple[PrivateKeyTypes | None, Certificate | None, list[Certificate]]:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization.pkcs12 import load_key_and_certificates

    try:
        return load_key_and_certificates(data, None if password is None else password.encode())
    except (ValueError, TypeError, UnsupportedAlgorithm):
        if data.lstrip().startswith(b"-----BEGIN"):
            kind = setting.replace("password", "type")
            raise ConfigError(f"{source} is PEM: set {kind}=PEM") from None
        why = f"{setting} is not set" if password is None else f"{setting} is wrong"
        raise ConfigError(f"{source} cannot be read: {why}, or it is no PKCS12 file") from None


# ------------------------------------------------------------ JKS


def _jks_keystore(data: bytes, password: str, key_password: str | None, source: str) -> Keystore:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_der_private_key

    keys = _load_jks(data, password, source, "ssl.keystore.password").keys
    if len(keys) != 1:
        raise ConfigError(f"{source} has {'more than one private key' if keys else 'no private key'}")
    try:
        plain = decrypt(keys[0], password if key_password is None else key_password)
    except JksError as error:
        raise ConfigError(f"the private key in {source} cannot be read: {error} (ssl.key.password)") from None
    try:
        key = load_der_private_key(plain, None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise ConfigError(f"the private key in {source} cannot be read: it is damaged") from None
    return _matching(key, _der_certificates(keys[0].chain, source), source)


def _jks_truststore(data: bytes, password: str | None, source: str) -> Truststore:
    store = _load_jks(data, password, source, "ssl.truststore.password")
    # Java trusts whom it has the key of, too.
    found = (*store.certificates, *(one for key in store.keys for one in key.chain[:1]))
    if not found:
        raise ConfigError(f"{source} has no certificate")
    return Truststore(_der_certificates(found, source), source)


def _load_jks(data: bytes, password: str | None, source: str, setting: str) -> JksStore:
    try:
        return read_jks(data, password)
    except JksError as error:
        raise ConfigError(f"{source} cannot be read: {error} ({setting})") from None


def _der_certificates(certificates: Iterable[bytes], source: str) -> tuple[Certificate, ...]:
    from cryptography.x509 import load_der_x509_certificate

    try:
        return tuple(map(load_der_x509_certificate, certificates))
    except ValueError as error:
        raise ConfigError(f"a certificate in {source} cannot be read") from error


# ------------------------------------------------------------ both


def _type(name: str, get: Get) -> str:
    kind = str(get(name)).upper()
    if kind not in (PEM, PKCS12, JKS):
        raise ConfigError(
            f"Invalid value {get(name)} for configuration {name}: it must be PEM, PKCS12 or JKS"
        )
    return kind


def _refuse_password(password: str | None, name: str, advice: str = "") -> None:
    if password is not None:
        raise ConfigError(f"{name} is set, and a PEM file has none{advice}")


def _read(setting: str, path: str) -> bytes:
    try:
        return read_key_file(path)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{setting} {path} cannot be read: {error}") from error


def _text(data: bytes, source: str) -> str:
    if data.startswith((MAGIC, _JCEKS_MAGIC, b"\x30")):
        raise ConfigError(f"{source} is no PEM file: set its type to PKCS12, if it is one")
    return data.decode("latin-1")


def _matching(key: PrivateKeyTypes, chain: tuple[Certificate, ...], source: str) -> Keystore:
    """ConfigError where the key is not that of the first certificate."""
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    form = Encoding.DER, PublicFormat.SubjectPublicKeyInfo
    mine = key.public_key().public_bytes(*form)
    places = [place for place, one in enumerate(chain) if one.public_key().public_bytes(*form) == mine]
    if not places:
        raise ConfigError(f"the private key in {source} is not that of its certificate")
    if places[0]:
        raise ConfigError(
            f"the certificate of the private key in {source} must come first, and is number {places[0] + 1}"
        )
    return Keystore(key, chain, source)
