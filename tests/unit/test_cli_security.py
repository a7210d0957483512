"""`ottla acl`, `ottla user` and `ottla quota` against a broker in this process."""

from __future__ import annotations

import asyncio
import io
import json
import re
from base64 import b64decode
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from admin_support import Client
from admin_support import run as run_broker

from ottla.cli.app import run
from ottla.cli.errors import CliError, ExitCode
from ottla.cli.security import acl as acl_commands
from ottla.security.acl import Authorizer
from ottla.security.sasl.scram import ScramHash, ScramMechanism, credential_of_salted, salted_password

Ask = Callable[..., Any]


@pytest.fixture
def ottla(capsys: pytest.CaptureFixture[str]) -> Callable[[Path, Callable[[Ask, Any], None]], None]:
    """Runs a body with a broker: given what runs a command (and reads its JSON), and the broker's image."""

    def use(path: Path, body: Callable[[Ask, Any], None]) -> None:
        async def main(client: Client) -> None:
            client.node.services.authorizer = Authorizer()
            host, port = client.node.address

            def ask(*words: str) -> Any:
                """What a command prints, or how it ends."""
                capsys.readouterr()
                try:
                    code = run([*words, "--bootstrap", f"{host}:{port}"])
                except CliError as error:
                    return error.code, str(error)
                out = capsys.readouterr().out
                if code != ExitCode.OK:
                    return code, out
                return json.loads(out) if "--json" in words else out

            metadata = client.node.services.metadata
            await asyncio.to_thread(body, ask, lambda: metadata.image)

        run_broker(path, main)

    return use


def test_acls_are_added_listed_and_removed(tmp_path: Path, ottla: Any) -> None:
    def body(ask: Ask, image: Any) -> None:
        assert ask("acl", "list", "--json") == []
        added = ask(
            "acl", "add", "alice", "-o", "read", "-o", "WRITE", "--topic", "t", "--group", "g", "--json"
        )
        assert [(a["resource_type"], a["resource_name"], a["operation"]) for a in added] == [
            ("TOPIC", "t", "READ"),
            ("TOPIC", "t", "WRITE"),
            ("GROUP", "g", "READ"),
            ("GROUP", "g", "WRITE"),
        ]
        assert {a["principal"] for a in added} == {"User:alice"}
        out = ask(
            "acl", "add", "User:*", "--deny", "--topic", "secret-", "--prefixed", "--host", "10.0.0.0/8"
        )
        assert out == "added: DENY User:* ALL from 10.0.0.0/8 on TOPIC:PREFIXED:secret-\n"
        assert len(image().acls) == 5
        assert len(ask("acl", "list", "--principal", "alice", "--json")) == 4
        assert len(ask("acl", "list", "--topic", "secret-plan", "--json")) == 0
        (found,) = ask("acl", "list", "--topic", "secret-plan", "--match", "--json")
        assert (found["pattern_type"], found["permission"]) == ("PREFIXED", "DENY")
        table = ask("acl", "list", "--topic", "t", "-o", "read")
        assert "User:alice" in table
        assert "everybody" not in table
        code, why = ask("acl", "add", "alice", "--topic", "")
        assert (code, "empty resource name" in why) == (ExitCode.FAILED, True)
        removed = ask("acl", "remove", "--principal", "alice", "--topic", "t", "--json")
        assert {(a["operation"], a["result"]) for a in removed} == {("READ", "removed"), ("WRITE", "removed")}
        assert ask("acl", "remove", "--principal", "bob")[0] == ExitCode.NOT_FOUND
        assert len(ask("acl", "remove", "--all", "--json")) == 3
        assert image().acls == {}

    ottla(tmp_path, body)


@pytest.mark.parametrize(
    "words",
    [
        ("acl", "add", "alice"),
        ("acl", "add", "", "--cluster"),
        ("acl", "add", "alice", "--topic", "t", "-o", "fly"),
        ("acl", "remove"),
        ("acl", "remove", "--all", "--topic", "t"),
        ("acl", "check", "alice", "-o", "read"),
        ("quota", "set", "producer_byte_rate=1"),
        ("quota", "set", "producer_byte_rate", "--user", "a"),
        ("quota", "set", "producer_byte_rate=x", "--user", "a"),
        ("quota", "set", "producer_byte_rate=0", "--user", "a"),
        ("quota", "set", "producer_byte_rate=1", "--ip", "10.0.0.1"),
        ("quota", "set", "producer_byte_rate=1", "--user", "a", "--default-user"),
        ("quota", "set", "connection_creation_rate=1", "--ip", "nowhere"),
        ("user", "create", "a", "-m", "SCRAM-MD5"),
    ],
)
def test_mistakes(words: tuple[str, ...]) -> None:
    with pytest.raises(CliError) as caught:
        run([*words, "--bootstrap", "127.0.0.1:1"])
    assert caught.value.code == ExitCode.USAGE


def test_what_somebody_may_do(tmp_path: Path, ottla: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def body(ask: Ask, image: Any) -> None:
        ask("acl", "add", "alice", "-o", "read", "--topic", "t")
        words = ("acl", "check", "alice", "-o", "read", "--topic", "t")
        code, why = ask(*words)
        assert (code, "no authorizer" in why) == (ExitCode.FAILED, True)
        made = Authorizer({"User:root"})
        monkeypatch.setattr(acl_commands, "_authorizer", lambda brokers: made)
        (found,) = ask(*words, "--json")
        assert found["allowed"]
        assert found["rule"] == "ALLOW User:alice READ from * on TOPIC:LITERAL:t"
        code, out = ask(*words, "-o", "write")
        assert code == ExitCode.FAILED
        assert out.splitlines()[2].split() == ["write", "topic", "t", "no", "DefaultDeny"]
        (found,) = ask("acl", "check", "root", "-o", "alter", "--cluster", "--json")
        assert (found["allowed"], found["rule"]) == (True, "SuperUser")

    ottla(tmp_path, body)


def test_users_and_their_passwords(tmp_path: Path, ottla: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "password"
    file.write_bytes(b"secret\r\n")

    def body(ask: Ask, image: Any) -> None:
        assert ask("user", "list", "--json") == []
        out = ask("user", "create", "alice", "--password-file", str(file), "--iterations", "5000")
        assert out == "alice: SCRAM-SHA-256 set\nalice: SCRAM-SHA-512 set\n"
        for hash, kept in image().scram["alice"].items():
            salted = salted_password(hash, b"secret", kept.salt, 5000)
            assert kept == credential_of_salted(hash, salted, kept.salt, 5000)
        monkeypatch.setattr("sys.stdin", SimpleNamespace(isatty=lambda: False, buffer=io.BytesIO(b"other\n")))
        ask("user", "create", "bob", "-m", "scram-sha-512")
        assert set(image().scram["bob"]) == {ScramHash.SHA_512}
        assert ask("user", "list", "--json") == [
            {"user": "alice", "mechanism": "SCRAM-SHA-256", "iterations": 5000},
            {"user": "alice", "mechanism": "SCRAM-SHA-512", "iterations": 5000},
            {"user": "bob", "mechanism": "SCRAM-SHA-512", "iterations": 4096},
        ]
        code, why = ask("user", "list", "bob", "carol")
        assert (code, "'carol' does not exist" in why) == (ExitCode.NOT_FOUND, True)
        assert ask("user", "delete", "alice", "-m", "SCRAM-SHA-256") == "alice: SCRAM-SHA-256 deleted\n"
        assert ask("user", "delete", "alice", "-m", "SCRAM-SHA-256")[0] == ExitCode.NOT_FOUND
        (gone,) = ask("user", "delete", "alice", "--json")
        assert gone == {"user": "alice", "mechanism": "SCRAM-SHA-512", "result": "deleted"}
        assert set(image().scram) == {"bob"}
        file.write_bytes(b"")
        assert ask("user", "create", "eve", "--password-file", str(file))[0] == ExitCode.USAGE

    ottla(tmp_path, body)


@pytest.mark.parametrize("hash", ScramHash)
def test_a_user_of_ours_is_asked_for_a_proof_as_one_who_does_not_exist(
    tmp_path: Path, ottla: Any, hash: ScramHash
) -> None:
    file = tmp_path / "password"
    file.write_bytes(b"secret")

    def body(ask: Ask, image: Any) -> None:
        ask("user", "create", "alice", "--password-file", str(file))
        mechanism = ScramMechanism(
            hash,
            users=lambda name: image().scram.get(name, {}).get(hash),
            tokens={}.get,
            nonce=lambda: "server",
            secret=b"of the cluster",
        )
        for name, is_there in (("alice", True), ("mallory", False)):
            assert (mechanism.look_up(name, False, 0).principal is not None) is is_there
            answer = mechanism.begin().respond(f"n,,n={name},r=x".encode(), 0)
            assert isinstance(answer, bytes)
            salt = answer.split(b",s=")[1].split(b",")[0]
            # 130 bits, as kafka-configs.sh makes them; fewer than 20 digits come once in 10^9 times.
            assert re.fullmatch(rb"[0-9a-z]{20,26}", b64decode(salt))
            assert answer.endswith(b",i=4096")

    ottla(tmp_path, body)


def test_quotas(tmp_path: Path, ottla: Any) -> None:
    def body(ask: Ask, image: Any) -> None:
        assert ask("quota", "list", "--json") == []
        out = ask("quota", "set", "producer_byte_rate=1024", "request_percentage=12.5", "--user", "alice")
        assert out == "user alice: producer_byte_rate=1024 set\nuser alice: request_percentage=12.5 set\n"
        ask("quota", "set", "consumer_byte_rate=1", "--user", "alice", "--default-client-id", "--dry-run")
        assert len(image().quotas) == 1
        ask("quota", "set", "consumer_byte_rate=1", "--user", "alice", "--default-client-id")
        ask("quota", "set", "connection_creation_rate=5", "--default-ip")
        assert len(ask("quota", "list", "--json")) == 3
        assert len(ask("quota", "list", "--user", "alice", "--json")) == 2
        table = ask("quota", "list", "--user", "alice")
        assert "client-id <default>, user alice  consumer_byte_rate" in table
        code, why = ask("quota", "remove", "consumer_byte_rate", "--user", "alice")
        assert (code, "has no consumer_byte_rate" in why) == (ExitCode.NOT_FOUND, True)
        assert ask("quota", "remove", "request_percentage", "--user", "alice") == (
            "user alice: request_percentage removed\n"
        )
        ask("quota", "remove", "--user", "alice")
        ask("quota", "remove", "--default-ip")
        (left,) = ask("quota", "list", "--json")
        assert left["entity"] == {"client-id": None, "user": "alice"}
        assert left["quotas"] == {"consumer_byte_rate": 1.0}

    ottla(tmp_path, body)
