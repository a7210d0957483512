"""Users of PLAIN without JAAS: how they are written, and how they log in and change on a broker."""

from __future__ import annotations

import asyncio
import logging
import os
from pathlib import Path
from typing import Any

import pytest
from login_support import LOGIN, PLAIN_JAAS, connect, log_in, run

from ottla.config import ConfigError
from ottla.node import Node, NodeSettings
from ottla.security.jaas import PLAIN_MODULE
from ottla.security.plain_users import USERS_MAX, users_of_file, users_of_list
from ottla.security.sasl.client import PlainClient
from ottla.security.secret import Secret

JAAS = "listener.name.sasl_plaintext.plain.sasl.jaas.config"
PLAIN_ONLY = {"sasl.enabled.mechanisms": "PLAIN"}
WITHOUT_JAAS = {name: value for name, value in LOGIN.items() if name != JAAS} | PLAIN_ONLY


def revealed(users: dict[str, Secret]) -> dict[str, str]:
    return {name: password.reveal() for name, password in users.items()}


def test_how_users_are_written() -> None:
    assert revealed(users_of_list(" alice:wonder:land , bob : x ")) == {"alice": "wonder:land", "bob": "x"}
    data = "\ufeff# those of the shop\r\n\r\nalice: wonder,land \r\njörg:pass wörd\n"
    assert revealed(users_of_file(data.encode())) == {"alice": "wonder,land", "jörg": "pass wörd"}
    assert users_of_file(b"") == {}


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("alice", "line 1 is not"),
        ("a:b\n\nalice:", "line 3 is not"),
        (":hidden", "line 1 is not"),
        ("a:hidden\na:hidden", "line 2 names a user again"),
        ("\n".join(f"{n}:hidden" for n in range(USERS_MAX + 1)), "more than"),
    ],
)
def test_what_is_no_user_is_told_by_its_place(text: str, place: str) -> None:
    with pytest.raises(ValueError, match=place) as caught:
        users_of_file(text.encode())
    assert "hidden" not in str(caught.value) and "alice" not in str(caught.value)
    with pytest.raises(ValueError, match="not UTF-8"):
        users_of_file(b"a:\xff")
    with pytest.raises(ValueError, match="part 2 is not"):
        users_of_list("a:b,")


def with_file(path: Path, text: str, mode: int = 0o600) -> dict[str, str]:
    file = path / "users"
    file.write_text(text)
    file.chmod(mode)
    return {**WITHOUT_JAAS, "ottla.users.file": str(file), "ottla.node.user": "node"}


async def may_come_in(node: Node, name: str, password: str) -> bool:
    client = await connect(node)
    return (await log_in(client, PlainClient(name, Secret(password))))["error_code"].name == "none"


async def looked(node: Node) -> None:
    entrances: Any = node._entrances
    await entrances._mechanisms._take_up()


def start(tmp_path: Path, properties: dict[str, str]) -> None:
    async def body() -> None:
        Node(NodeSettings(data=str(tmp_path / "data"), properties=properties))

    asyncio.run(body())


def test_a_file_of_users_is_read_again_when_it_changes(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    properties = with_file(tmp_path, "node:n\nalice:wonderland\n")
    file = tmp_path / "users"

    async def body(node: Node) -> None:
        assert node._entrances.principal is not None and node._entrances.principal.name == "node"
        assert await may_come_in(node, "alice", "wonderland")
        assert not await may_come_in(node, "bob", "builder")
        file.write_text("node:n\nalice:changed\nbob:builder\n")
        await looked(node)
        assert await may_come_in(node, "bob", "builder")
        assert await may_come_in(node, "alice", "changed")
        assert not await may_come_in(node, "alice", "wonderland")
        file.write_text("node:n\nalice\n")
        await looked(node)
        await looked(node)
        assert await may_come_in(node, "alice", "changed")
        file.unlink()
        await looked(node)
        assert await may_come_in(node, "bob", "builder")

    run(tmp_path, body, properties | {JAAS: f'{PLAIN_MODULE} required user_a="b";'})
    told = [record.message for record in caplog.records if record.levelno >= logging.ERROR]
    assert len(told) == 2 and "line 2 is not NAME:PASSWORD" in told[0] and "no such file" in told[1]
    assert not any(word in caplog.text for word in ("wonderland", "changed;", "builder"))


def test_users_of_settings_change_while_it_runs(tmp_path: Path) -> None:
    name = "listener.name.sasl_plaintext.ottla.users"

    async def body(node: Node) -> None:
        # Of who is in both JAAS has the password.
        assert await may_come_in(node, "alice", "wonderland")
        assert await may_come_in(node, "carol", "of settings")
        with pytest.raises(ConfigError, match="part 1") as caught:
            node.config.check_dynamic({name: "a secret"}, per_broker=True)
        assert "secret" not in str(caught.value)
        node.config.update_dynamic({}, {name: "dave:later"})
        await looked(node)
        assert await may_come_in(node, "dave", "later")
        assert not await may_come_in(node, "carol", "of settings")

    run(tmp_path, body, PLAIN_ONLY | {"ottla.users": "alice:of settings,carol:of settings", JAAS: PLAIN_JAAS})


def test_passwords_are_shown_to_nobody(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    own = "listener.name.sasl_plaintext.ottla.users"

    async def body(node: Node) -> None:
        client = await connect(node)
        answer = await log_in(client, PlainClient("carol", Secret("hush")))
        assert answer["error_code"].name == "none"
        resource = {"resource_type": 4, "resource_name": "1", "configuration_keys": None}
        fields = {"resources": [resource], "include_synonyms": True, "include_documentation": False}
        described = await client.ask("DescribeConfigs", 4, fields)
        (result,) = described["results"]
        configs = {config["name"]: config for config in result["configs"]}
        for name in ("ottla.users", own):
            assert (configs[name]["value"], configs[name]["is_sensitive"]) == (None, True)
            assert all(synonym["value"] is None for synonym in configs[name]["synonyms"])
        assert "hush" not in str(described)
        users: Any = node._entrances
        assert "hush" not in repr(users._mechanisms._users["SASL_PLAINTEXT"]._loaded)

    run(tmp_path, body, PLAIN_ONLY | {"ottla.users": "carol:hush", own: "carol:hush", JAAS: PLAIN_JAAS})
    assert "hush" not in caplog.text


def test_who_else_may_read_the_file_is_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    start(tmp_path, with_file(tmp_path, "node:n", 0o640))
    assert not caplog.records
    start(tmp_path, with_file(tmp_path, "node:n", 0o644))
    (warning,) = caplog.records
    assert f"chmod 600 {tmp_path / 'users'}" in warning.getMessage()


@pytest.mark.parametrize(
    ("change", "refusal"),
    [
        ({"ottla.users.file": "/dev/zero"}, "it is no file"),
        ({"ottla.users.file": "/nowhere/at all"}, "no such file"),
        ({"ottla.users": "alice"}, "part 1 is not NAME:PASSWORD"),
        ({"ottla.node.user": "carol"}, "ottla.node.user is carol, and this user does not exist"),
        ({"ottla.node.user": ""}, "ottla.node.user is , and this user does not exist"),
    ],
)
def test_what_cannot_be_used_stops_the_start(change: dict[str, str], refusal: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=refusal):
        start(tmp_path, with_file(tmp_path, "node:n") | change)


def test_a_pipe_for_a_file_of_users_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ConfigError, match="it is no file"):
        start(tmp_path, with_file(tmp_path, "node:n") | {"ottla.users.file": str(tmp_path / "pipe")})


def test_nodes_say_how_when_they_cannot_log_in(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"set ottla\.node\.user and ottla\.users\.file"):
        start(tmp_path, WITHOUT_JAAS)
