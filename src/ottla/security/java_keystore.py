"""Java's own format of keystores (JKS), as far as it holds private keys and X.509 certificates.

Numbers are big-endian; texts have a length of two bytes before them. In the end there is a digest of all that
with the password in it. Keys are encrypted with a stream of digests of password and salt, which protects
little: keytool has written PKCS12 since Java 9.
"""

from __future__ import annotations

from hashlib import sha1
from hmac import compare_digest
from typing import Final, NamedTuple

MAGIC: Final = b"\xfe\xed\xfe\xed"
_VERSIONS: Final = (1, 2)
_KEY, _CERTIFICATE = 1, 2
_SALT_BYTES = _DIGEST_BYTES = 20
# Of Sun's way to encrypt keys: 1.3.6.1.4.1.42.2.17.1.1.
_ALGORITHM: Final = bytes.fromhex("060a2b060104012a02110101")
_SEQUENCE, _OCTETS = 0x30, 0x04


class JksError(ValueError):
    """What is wrong with a file, in words for users; it shows nothing of what is in it."""


class JksKey(NamedTuple):
    """A private key (PKCS8, encrypted) and its certificates (DER), its own first."""

    encrypted: bytes
    chain: tuple[bytes, ...]


class JksStore(NamedTuple):
    """What is in a file: keys, and certificates (DER) that are trusted."""

    keys: tuple[JksKey, ...]
    certificates: tuple[bytes, ...]


class _Reader:
    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    def take(self, count: int) -> bytes:
        taken = self.data[self.at : self.at + count]
        if len(taken) < count:
            raise JksError("it is damaged")
        self.at += count
        return taken

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size))

    def text(self) -> bytes:
        return self.take(self.number(2))

    def certificate(self, version: int) -> bytes:
        kind = self.text() if version == 2 else b"X.509"
        if kind != b"X.509":
            raise JksError("it has a certificate that is not X.509")
        return self.take(self.number(4))


def read_jks(data: bytes, password: str | None) -> JksStore:
    """Everything in a file. JksError. Without a password nothing tells whether it was changed, as in Java."""
    if password is not None:
        told = sha1(_bytes_of(password) + b"Mighty Aphrodite" + data[:-_DIGEST_BYTES]).digest()
        if not compare_digest(told, data[-_DIGEST_BYTES:]):
            raise JksError("its password is wrong, or it is damaged")
    reader = _Reader(data[:-_DIGEST_BYTES])
    if reader.take(4) != MAGIC or (version := reader.number(4)) not in _VERSIONS:
        raise JksError("it is no file of Java's own format")
    keys: list[JksKey] = []
    certificates: list[bytes] = []
    for _ in range(reader.number(4)):
        tag = reader.number(4)
        # Its alias, and when it was put in.
        reader.text()
        reader.take(8)
        if tag == _KEY:
            encrypted = reader.take(reader.number(4))
            chain = tuple(reader.certificate(version) for _ in range(reader.number(4)))
            keys.append(JksKey(encrypted, chain))
        elif tag == _CERTIFICATE:
            certificates.append(reader.certificate(version))
        else:
            raise JksError("it has an entry that is neither a private key nor a certificate")
    return JksStore(tuple(keys), tuple(certificates))


def decrypt(key: JksKey, password: str) -> bytes:
    """The private key (PKCS8, DER). JksError where the password is another."""
    whole = _protected(key.encrypted)
    salt, body, told = whole[:_SALT_BYTES], whole[_SALT_BYTES:-_DIGEST_BYTES], whole[-_DIGEST_BYTES:]
    secret = _bytes_of(password)
    stream, last = bytearray(), salt
    while len(stream) < len(body):
        last = sha1(secret + last).digest()
        stream += last
    plain = (int.from_bytes(body) ^ int.from_bytes(stream[: len(body)])).to_bytes(len(body))
    if len(whole) < _SALT_BYTES + _DIGEST_BYTES or not compare_digest(sha1(secret + plain).digest(), told):
        raise JksError("the key's password is wrong, or it is damaged")
    return plain


def _protected(encrypted: bytes) -> bytes:
    """What is in an EncryptedPrivateKeyInfo (PKCS8): SEQUENCE { SEQUENCE { algorithm, … }, OCTET STRING }."""
    outer = _element(_Reader(encrypted), _SEQUENCE)
    reader = _Reader(outer)
    if not _element(reader, _SEQUENCE).startswith(_ALGORITHM):
        raise JksError("its key is encrypted in another way than Java's own")
    return _element(reader, _OCTETS)


def _element(reader: _Reader, tag: int) -> bytes:
    if reader.number(1) != tag:
        raise JksError("it is damaged")
    size = reader.number(1)
    if size & 0x80:
        size = reader.number(size & 0x7F)
    return reader.take(size)


def _bytes_of(password: str) -> bytes:
    return password.encode("utf-16-be", "surrogatepass")
