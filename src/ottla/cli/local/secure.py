"""What `ottla cluster up --secure` makes in the cluster's folder: certificates, users, clients' properties.

For trying things out on one machine: the passwords stand in files that their owner alone can read.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from ottla.cli.local.layout import HOST, SECURE_CONFIG
from ottla.config.security import STANDARD_AUTHORIZER
from ottla.security.jaas import PLAIN_MODULE

# Who may do everything, and somebody who may do nothing until 'ottla acl add' lets them.
ADMIN, EXAMPLE = "admin", "alice"
NODE = "node"
PASSWORD_BYTES = 18


def make(directory: Path) -> None:
    """Make what is not there yet."""
    config = directory / SECURE_CONFIG
    folder = config.parent
    if config.exists():
        return
    # cryptography takes a while to load.
    from ottla.security.authority import Authority

    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    authority = Authority("ottla cluster up")
    _write(folder / "ca.pem", authority.pem.decode())
    _write(folder / "broker.pem", authority.issue("broker", (HOST, "localhost")).decode())
    passwords = {name: secrets.token_urlsafe(PASSWORD_BYTES) for name in (NODE, ADMIN, EXAMPLE)}
    for name in (ADMIN, EXAMPLE):
        _write(client_properties(directory, name), _client(folder, name, passwords[name]))
    # Last: where it is, the rest is.
    _write(config, _server(folder, passwords))


def client_properties(directory: Path, name: str) -> Path:
    """The file by which a user's commands and clients come in."""
    return (directory / SECURE_CONFIG).parent / f"{name}.properties"


def _server(folder: Path, passwords: dict[str, str]) -> str:
    users = " ".join(f'user_{name}="{password}"' for name, password in passwords.items())
    return "\n".join(
        (
            "# The one listener of each node is called PLAINTEXT, whatever it speaks.",
            "listener.security.protocol.map=PLAINTEXT:SASL_SSL",
            "ssl.keystore.type=PEM",
            f"ssl.keystore.location={folder}/broker.pem",
            "ssl.truststore.type=PEM",
            f"ssl.truststore.location={folder}/ca.pem",
            "sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512",
            "sasl.mechanism.inter.broker.protocol=PLAIN",
            f'listener.name.plaintext.plain.sasl.jaas.config={PLAIN_MODULE} required username="{NODE}" '
            f'password="{passwords[NODE]}" {users};',
            f"authorizer.class.name={STANDARD_AUTHORIZER}",
            f"super.users=User:{ADMIN};User:{NODE}",
            "",
        )
    )


def _client(folder: Path, name: str, password: str) -> str:
    return "\n".join(
        (
            "security.protocol=SASL_SSL",
            "sasl.mechanism=PLAIN",
            f"sasl.username={name}",
            f"sasl.password={password}",
            f"ssl.ca.location={folder}/ca.pem",
            "",
        )
    )


def _write(path: Path, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
