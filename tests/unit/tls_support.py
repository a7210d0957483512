"""Keys and certificates for tests, and a listener's settings that name them."""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    pkcs12,
)
from cryptography.x509.oid import NameOID

from ottla.config.tls import TLS

Get = Callable[[str], Any]
DAY = datetime.timedelta(days=1)
NOW = datetime.datetime.now(datetime.UTC)


def get_of(**given: str | Path | None) -> Get:
    """Settings by their names with underscores, ``ssl_`` left out; the others have their defaults."""
    values = {name: entry.default for name, entry in TLS.items()}
    for short, text in given.items():
        name = "ssl." + short.replace("_", ".")
        values[name] = None if text is None else TLS[name].parse(str(text))
    return values.__getitem__


def pem_of(*certificates: x509.Certificate) -> str:
    return b"".join(one.public_bytes(Encoding.PEM) for one in certificates).decode()


class Authority:
    """Somebody who vouches for others; ``above`` has vouched for it."""

    def __init__(self, name: str = "CA", above: Authority | None = None) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.above = above
        issuer = above or self
        self.certificate = (
            builder(self.name, issuer.name, self.key)
            .add_extension(x509.BasicConstraints(True, None), True)
            .sign(issuer.key, hashes.SHA256())
        )

    def issue(
        self,
        name: str = "localhost",
        *hosts: str,
        days: tuple[int, int] = (-1, 30),
        key: ec.EllipticCurvePrivateKey | None = None,
    ) -> Identity:
        """``days``: from when until when it is valid, from now."""
        key = key or ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name(
            [
                x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Ottla"),
                x509.NameAttribute(NameOID.COMMON_NAME, name),
            ]
        )
        names: list[x509.GeneralName] = [x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        names += [x509.DNSName(host) for host in hosts or ("localhost",)]
        made = builder(subject, self.name, key, days).add_extension(x509.SubjectAlternativeName(names), False)
        return Identity(key, made.sign(self.key, hashes.SHA256()), self)


def builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, days: tuple[int, int] = (-1, 30)
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW + DAY * days[0])
        .not_valid_after(NOW + DAY * days[1])
    )


class Identity:
    """A key with its certificate."""

    def __init__(
        self, key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate, issuer: Authority
    ) -> None:
        self.key, self.certificate, self.issuer = key, certificate, issuer

    def key_pem(self, password: str | None = None) -> str:
        encryption = BestAvailableEncryption(password.encode()) if password else NoEncryption()
        return self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption).decode()

    @property
    def chain_pem(self) -> str:
        """What is sent to others: without the root."""
        made, above = pem_of(self.certificate), self.issuer
        while above.above is not None:
            made += pem_of(above.certificate)
            above = above.above
        return made

    def pem(self, password: str | None = None) -> str:
        return self.key_pem(password) + self.chain_pem

    def pkcs12(self, password: str) -> bytes:
        issuers, above = [], self.issuer
        while above is not None:
            issuers.append(above.certificate)
            above = above.above  # type: ignore[assignment]
        # In an order that is not theirs, as files may have them.
        return pkcs12.serialize_key_and_certificates(
            b"me", self.key, self.certificate, issuers[::-1], BestAvailableEncryption(password.encode())
        )
