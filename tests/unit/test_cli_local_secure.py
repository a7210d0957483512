"""What `ottla cluster up --secure` makes is its user's alone; what others put there is not believed."""

from __future__ import annotations

import os
import ssl
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from ottla.cli.errors import CliError
from ottla.cli.local import secure
from ottla.config import BrokerConfig, parse_properties
from ottla.security.plain_users import users_of_file


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    made = tmp_path / "cluster"
    made.mkdir(mode=0o755)
    return made


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_what_is_made_is_for_its_owner_alone_and_stays(directory: Path) -> None:
    before = os.umask(0)
    try:
        secure.make(directory)
    finally:
        os.umask(before)
    folder = directory / "secure"
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}
    made = content(folder)
    secure.make(directory)
    assert content(folder) == made
    config = BrokerConfig(parse_properties(made["server.properties"].decode()))
    assert config.warnings == []
    assert len(config.get("delegation.token.secret.key")) >= 40
    assert set(users_of_file(made["users"])) == {"node", "admin", "alice"}


def test_its_certificates_are_good_enough_for_newer_pythons(directory: Path) -> None:
    """From Python 3.13 on `ssl.create_default_context()`, and so aiokafka's, has VERIFY_X509_STRICT."""
    secure.make(directory)
    folder = directory / "secure"
    near = ssl.create_default_context(cafile=str(folder / "ca.pem"))
    near.verify_flags |= ssl.VERIFY_X509_STRICT
    far = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    far.load_cert_chain(folder / "broker.pem")
    to_far, to_near = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = near.wrap_bio(to_near, to_far, server_hostname="localhost")
    server = far.wrap_bio(to_far, to_near, server_side=True)
    with suppress(ssl.SSLWantReadError):
        client.do_handshake()
    with suppress(ssl.SSLWantReadError):
        server.do_handshake()
    client.do_handshake()
    # Those that an older Ottla made are not.
    assert not secure.store_context(directory).verify_flags & ssl.VERIFY_X509_STRICT


def test_what_an_interrupted_start_left_is_made_anew(directory: Path) -> None:
    secure.make(directory)
    folder = directory / "secure"
    before = content(folder)
    (folder / "server.properties").unlink()
    secure.make(directory)
    assert content(folder).keys() == before.keys()
    assert content(folder)["users"] != before["users"]


def test_what_an_older_version_made_stays_where_its_etcd_runs_without(directory: Path) -> None:
    secure.make(directory)
    folder = directory / "secure"
    (folder / "etcd.pem").unlink()
    before = content(folder)
    secure.make(directory, store=False)
    assert content(folder) == before
    secure.make(directory)
    assert "etcd.pem" in content(folder)


def planted(name: str, mode: int = 0o600) -> Callable[[Path], None]:
    def plant(directory: Path) -> None:
        (directory / "secure").mkdir(mode=0o700)
        path = directory / "secure" / name
        path.write_text("planted")
        path.chmod(mode)

    return plant


def linked(name: str, *, hard: bool = False) -> Callable[[Path], None]:
    def plant(directory: Path) -> None:
        (directory / "secure").mkdir(mode=0o700)
        other = directory.parent / "other"
        other.write_text("theirs")
        other.chmod(0o600)
        (os.link if hard else os.symlink)(other, directory / "secure" / name)

    return plant


def elsewhere(directory: Path) -> None:
    (directory.parent / "theirs").mkdir(mode=0o700)
    (directory / "secure").symlink_to(directory.parent / "theirs")


@pytest.mark.parametrize(
    "plant",
    [
        lambda directory: directory.chmod(0o757),
        lambda directory: directory.chmod(0o1777),
        lambda directory: directory.parent.chmod(0o777),
        lambda directory: (directory / "secure").mkdir(mode=0o700) or (directory / "secure").chmod(0o750),
        lambda directory: (directory / "secure").write_text("x"),
        planted("server.properties", 0o644),
        planted("broker.pem", 0o622),
        linked("server.properties"),
        linked("ca.pem"),
        linked("users", hard=True),
        elsewhere,
    ],
)
def test_where_others_could_have_been_nothing_is_made(
    plant: Callable[[Path], object], directory: Path
) -> None:
    plant(directory)
    before = sorted(directory.parent.rglob("*"))
    with pytest.raises(CliError, match="--secure: "):
        secure.make(directory)
    made = set(directory.parent.rglob("*")) - {*before, directory / "secure"}
    assert not made
    other = directory.parent / "other"
    assert not other.exists() or other.read_text() == "theirs"


@pytest.mark.skipif(os.geteuid() != 0, reason="who is not root gives nothing away")
def test_a_folder_of_somebody_else_or_of_a_group_is_not_taken(directory: Path) -> None:
    os.chown(directory, 65534, -1)
    with pytest.raises(CliError, match="others can change"):
        secure.make(directory)
    os.chown(directory, 0, 100)
    secure.make(directory)
    directory.chmod(0o775)
    with pytest.raises(CliError, match="others can change"):
        secure.make(directory)
