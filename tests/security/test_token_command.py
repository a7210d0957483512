"""`ottla token` against a broker in a thread."""

from __future__ import annotations

import json
from base64 import b64decode
from pathlib import Path
from typing import Any

import pytest
from login_support import LOGIN, served

from ottla.cli.app import run
from ottla.cli.errors import CliError, ExitCode
from ottla.config.security import STANDARD_AUTHORIZER
from ottla.node import Node

DAY_MS = 86_400_000
KEY = {"delegation.token.secret.key": "between the nodes"}
RIGHTS = {"authorizer.class.name": STANDARD_AUTHORIZER, "super.users": "User:bob"}
PASSWORDS = {"alice": "wonderland", "bob": "builder"}
SCRAM = "org.apache.kafka.common.security.scram.ScramLoginModule required"


class Commands:
    """Runs commands as somebody, and reads what they print."""

    def __init__(self, node: Node, capsys: pytest.CaptureFixture[str]) -> None:
        self._node, self._capsys = node, capsys

    def __call__(self, who: str, *words: str) -> Any:
        properties = ("security.protocol=SASL_PLAINTEXT", "sasl.mechanism=PLAIN")
        login = (f"sasl.username={who}", f"sasl.password={PASSWORDS[who]}")
        return self.by((*properties, *login), *words)

    def by(self, properties: tuple[str, ...], *words: str) -> Any:
        given = [part for one in properties for part in ("-X", one)]
        self._capsys.readouterr()
        run([*words, *given, "--bootstrap", "{}:{}".format(*self._node.address)])
        out = self._capsys.readouterr().out
        return json.loads(out) if "--json" in words else out

    def refused(self, who: str, *words: str) -> tuple[ExitCode, str]:
        with pytest.raises(CliError) as caught:
            self(who, *words)
        return caught.value.code, str(caught.value)


def test_a_token_from_its_making_to_its_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with served(tmp_path, LOGIN | KEY | RIGHTS) as node:
        ottla = Commands(node, capsys)
        made = ottla("alice", "token", "create", "--renewer", "bob", "--max-lifetime", "2d", "--json")
        assert (made["owner"], made["requester"], made["renewers"]) == (
            "User:alice",
            "User:alice",
            ["User:bob"],
        )
        assert made["max_ms"] - made["issued_ms"] == 2 * DAY_MS
        token, hmac = made["token_id"], made["hmac"]
        assert len(b64decode(hmac)) == 64
        (listed,) = ottla("alice", "token", "list", "--json")
        assert listed == {name: value for name, value in made.items() if name != "hmac"}
        assert hmac not in ottla("alice", "token", "list")
        assert hmac in ottla("alice", "token", "list", "--show-hmac")
        assert ottla("bob", "token", "list", "--owner", "carol", "--json") == []
        renewed = ottla("bob", "token", "renew", token, "--period", "90m", "--json")
        assert renewed["result"] == "renewed"
        assert renewed["expires_ms"] < made["expires_ms"]
        # Its owner's rights, by the owner's name.
        login = f'sasl.jaas.config={SCRAM} username="{token}" password="{hmac}" tokenauth="true";'
        by_token = ("security.protocol=SASL_PLAINTEXT", "sasl.mechanism=SCRAM-SHA-512", login)
        with pytest.raises(CliError, match="Cluster authorization failed"):
            ottla.by(by_token, "acl", "list")
        ottla("bob", "acl", "add", "alice", "--operation", "describe", "--cluster")
        assert "User:alice" in ottla.by(by_token, "acl", "list")
        with pytest.raises(CliError, match="not by a token"):
            ottla.by(by_token, "token", "list")
        with pytest.raises(CliError, match="librdkafka, which cannot") as caught:
            ottla.by(by_token, "topic", "list")
        assert caught.value.code == ExitCode.USAGE
        assert " ends " in ottla("alice", "token", "expire", "--hmac", hmac, "--after", "1h")
        assert ottla("alice", "token", "expire", token) == f"token '{token}': ended\n"
        assert ottla.refused("alice", "token", "renew", "--hmac", hmac)[0] == ExitCode.NOT_FOUND
        assert ottla.refused("alice", "token", "renew", token)[0] == ExitCode.NOT_FOUND
        with pytest.raises(CliError, match="login"):
            ottla.by(by_token, "acl", "list")


def test_who_may_not_is_told_what_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with served(tmp_path, LOGIN | KEY | RIGHTS) as node:
        ottla = Commands(node, capsys)
        code, why = ottla.refused("alice", "token", "create", "--owner", "User:bob")
        assert code == ExitCode.FAILED and "ottla acl add WHO --operation create-tokens" in why
        ottla("bob", "acl", "add", "alice", "--operation", "create-tokens", "--user-principal", "User:bob")
        made = ottla("alice", "token", "create", "--owner", "bob", "--json")
        assert (made["owner"], made["requester"]) == ("User:bob", "User:alice")
        assert "renewers may" in ottla.refused("alice", "token", "expire", made["token_id"])[1]
        for words in (("create", "--renewer", "Group:x"), ("create", "--owner", "Group:bob")):
            assert "are users" in ottla.refused("bob", "token", *words)[1]
        for words in (
            ("renew",),
            ("renew", "x", "--hmac", "eA=="),
            ("expire", "--hmac", "no base 64!"),
            ("create", "--max-lifetime", "soon"),
            ("create", "--max-lifetime", "0"),
        ):
            assert ottla.refused("alice", "token", *words)[0] == ExitCode.USAGE


def test_where_there_are_no_tokens(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plain = {"listeners": "SASL_PLAINTEXT://127.0.0.1:0,PLAINTEXT://127.0.0.1:0"}
    with served(tmp_path, LOGIN | plain) as node:
        ottla = Commands(node, capsys)
        for words in (("create",), ("list",), ("renew", "--hmac", "eA==")):
            assert "set delegation.token.secret.key" in ottla.refused("alice", "token", *words)[1]
        (open_to_all,) = [one for one in node._listeners.servers if one.listener == "PLAINTEXT"]
        assert open_to_all._bound is not None
        where = "{}:{}".format(*open_to_all._bound.address)
        with pytest.raises(CliError, match=r"give -X security\.protocol"):
            run(["token", "create", "--bootstrap", where])


@pytest.mark.parametrize(
    ("text", "ms"),
    [("90s", 90_000), ("1d", DAY_MS), ("1500", 1500), ("9000000000000000d", None), ("h", None)],
)
def test_times(text: str, ms: int | None) -> None:
    from ottla.cli.options import duration_ms

    if ms is not None:
        assert duration_ms(1)(text) == ms
        return
    with pytest.raises(Exception, match="is no time"):
        duration_ms(1)(text)
