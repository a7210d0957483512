"""What `ottla cluster up --secure` makes in the cluster's folder: certificates, users, clients' properties.

For trying things out on one machine: the passwords stand in files that their owner alone can read. Nothing
is made, or believed, where others could have put it: what lies there says as whom nodes and users come in.
"""

from __future__ import annotations

import os
import secrets
import ssl
import stat
from contextlib import suppress
from pathlib import Path

from ottla.cli.errors import CliError
from ottla.cli.local.layout import CA, ETCD_PEM, HOST, NODE_PEM, SECURE_CONFIG
from ottla.config.security import STANDARD_AUTHORIZER
from ottla.extras import needed

# Who may do everything, and somebody who may do nothing until 'ottla acl add' lets them.
ADMIN, EXAMPLE = "admin", "alice"
NODE = "node"
USERS = "users"
PASSWORD_BYTES, KEY_BYTES = 18, 32

_OTHERS_WRITE, _GROUP_WRITES, _NOT_OWNERS = 0o002, 0o020, 0o077


def make(directory: Path, *, store: bool = True) -> None:
    """Make what is not there yet, in the cluster's folder, a path without links; ``store``: what etcd needs
    is part of it. CliError where others could change it, or have put something there."""
    config = directory / SECURE_CONFIG
    folder = config.parent
    _check_reach(directory)
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    _check_content(folder)
    # What an older version made has nothing for etcd, and is in use where etcd has started without.
    if config.exists() and (not store or (folder / ETCD_PEM).exists()):
        return
    # cryptography takes a while to load.
    with needed("--secure"):
        from ottla.security.authority import Authority

    authority = Authority("ottla cluster up")
    _write(folder / CA, authority.pem.decode())
    _write(folder / "broker.pem", authority.issue("broker", (HOST, "localhost")).decode())
    _write(folder / ETCD_PEM, authority.issue("etcd", (HOST, "localhost")).decode())
    _write(folder / NODE_PEM, authority.issue(NODE).decode())
    passwords = {name: secrets.token_urlsafe(PASSWORD_BYTES) for name in (NODE, ADMIN, EXAMPLE)}
    _write(folder / USERS, "".join(f"{name}:{password}\n" for name, password in passwords.items()))
    for name in (ADMIN, EXAMPLE):
        _write(client_properties(directory, name), _client(folder, name, passwords[name]))
    # Last: where it is, the rest is.
    _write(config, _server(folder))


def _check_reach(directory: Path) -> None:
    """CliError where others can put things into a folder, or another folder in its place."""
    state = directory.lstat()
    # A group that has its user's number is that user's alone, where systems make them so.
    by_group = state.st_mode & _GROUP_WRITES and state.st_gid != state.st_uid
    if state.st_uid != os.geteuid() or state.st_mode & _OTHERS_WRITE or by_group:
        raise CliError(
            f"--secure: others can change {directory}; take a folder of your own, or chmod go-w it"
        )
    for parent in directory.parents:
        mode = parent.lstat().st_mode
        if mode & _OTHERS_WRITE and not mode & stat.S_ISVTX:
            raise CliError(
                f"--secure: others can change {parent}, in which {directory} is; take another folder"
            )


def _check_content(folder: Path) -> None:
    """CliError where a folder, or something in it, is not this user's alone."""
    state = folder.lstat()
    _check_own(folder, state, is_right=stat.S_ISDIR(state.st_mode))
    for path in folder.iterdir():
        state = path.lstat()
        # By another name others may have it, too.
        _check_own(path, state, is_right=stat.S_ISREG(state.st_mode) and state.st_nlink == 1)


def _check_own(path: Path, state: os.stat_result, *, is_right: bool) -> None:
    if not is_right or state.st_uid != os.geteuid() or state.st_mode & _NOT_OWNERS:
        raise CliError(
            f"--secure: {path} is not as it was made, for its owner alone: somebody else may have put it "
            "there; remove it, or take another folder"
        )


def store_context(directory: Path) -> ssl.SSLContext:
    """What a node's TLS connection to etcd is made with. CliError where its files cannot be read."""
    folder = (directory / SECURE_CONFIG).parent
    try:
        made = ssl.create_default_context(cafile=str(folder / CA))
        # From Python 3.13 on it asks for what authorities lack that an older Ottla made.
        made.verify_flags &= ~ssl.VERIFY_X509_STRICT
        made.load_cert_chain(folder / NODE_PEM)
    except OSError as error:
        raise CliError(f"the certificates for etcd in {folder} cannot be read: {error}") from error
    return made


def client_properties(directory: Path, name: str) -> Path:
    """The file by which a user's commands and clients come in."""
    return (directory / SECURE_CONFIG).parent / f"{name}.properties"


def _server(folder: Path) -> str:
    return "\n".join(
        (
            "# The one listener of each node is called PLAINTEXT, whatever it speaks.",
            "listener.security.protocol.map=PLAINTEXT:SASL_SSL",
            "ssl.keystore.type=PEM",
            f"ssl.keystore.location={folder}/broker.pem",
            "ssl.truststore.type=PEM",
            f"ssl.truststore.location={folder}/{CA}",
            "sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512",
            "sasl.mechanism.inter.broker.protocol=PLAIN",
            f"ottla.users.file={folder}/{USERS}",
            f"ottla.node.user={NODE}",
            f"authorizer.class.name={STANDARD_AUTHORIZER}",
            f"super.users=User:{ADMIN};User:{NODE}",
            f"delegation.token.secret.key={secrets.token_urlsafe(KEY_BYTES)}",
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
            f"ssl.ca.location={folder}/{CA}",
            "",
        )
    )


def _write(path: Path, text: str) -> None:
    # It may be left over from a time that was interrupted.
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
