"""Logging in by SASL, on real sockets: what may come before, what is answered, when a connection ends."""

from __future__ import annotations

import asyncio
import logging
import struct
from pathlib import Path
from typing import Any

import pytest
from admin_support import Client
from login_support import LOGIN, ShiftedClock, add_scram_user, connect, log_in, run

from ottla.config import ConfigError
from ottla.node import Node
from ottla.security.sasl.client import PlainClient, ScramClient
from ottla.security.sasl.scram import ScramHash
from ottla.security.secret import Secret
from ottla.wire.apis import APIS
from ottla.wire.messages import encode_request

METADATA = {
    "allow_auto_topic_creation": False,
    "include_cluster_authorized_operations": False,
    "include_topic_authorized_operations": False,
}


def alice(password: str = "wonderland") -> PlainClient:
    return PlainClient("alice", Secret(password))


async def is_closed(client: Client) -> bool:
    return await client._reader.read(1) == b""


async def topics(client: Client) -> list[str]:
    answer = await client.ask("Metadata", 12, METADATA | {"topics": None})
    return [topic["name"] for topic in answer["topics"]]


async def raw(client: Client, token: bytes) -> bytes:
    """A token without a header, as it follows SaslHandshake v0, and what answers it."""
    client._writer.write(struct.pack(">i", len(token)) + token)
    (size,) = struct.unpack(">i", await client._reader.readexactly(4))
    return await client._reader.readexactly(size)


# ------------------------------------------------------------ who comes in


@pytest.mark.parametrize("version", [0, 1, 2])
def test_a_password_that_is_right(version: int, tmp_path: Path) -> None:
    async def body(node: Node) -> None:
        client = await connect(node)
        await client.ask("ApiVersions", 3, {"client_software_name": "a", "client_software_version": "1"})
        answer = await log_in(client, alice(), version)
        assert answer["error_code"].name == "none"
        assert await topics(client) == []
        (connection,) = node._listeners.servers[0].connections
        assert str(connection.client.principal) == "User:alice"
        assert str(connection) == "client 127.0.0.1 (User:alice)"

    run(tmp_path, body)


@pytest.mark.parametrize("hash", list(ScramHash))
def test_a_password_that_the_node_does_not_know(hash: ScramHash, tmp_path: Path) -> None:
    async def body(node: Node) -> None:
        await add_scram_user(node, "carol,=", "c", hash)
        answer = await log_in(await connect(node), ScramClient(hash, "carol,=", Secret("c"), "nonce"))
        assert answer["error_code"].name == "none"
        for name, password in (("carol,=", "d"), ("nobody", "c")):
            client = await connect(node)
            answer = await log_in(client, ScramClient(hash, name, Secret(password), "nonce"))
            assert answer["error_code"].name == "sasl_authentication_failed"
            assert "credentials" in answer["error_message"]
            assert await is_closed(client)

    run(tmp_path, body)


def test_tokens_without_headers(tmp_path: Path) -> None:
    async def body(node: Node) -> None:
        client = await connect(node)
        await client.ask("SaslHandshake", 0, {"mechanism": "PLAIN"})
        assert await raw(client, b"\0alice\0wonderland") == b""
        assert await topics(client) == []
        # Who fails is told nothing.
        client = await connect(node)
        await client.ask("SaslHandshake", 0, {"mechanism": "PLAIN"})
        client._writer.write(struct.pack(">i", 14) + b"\0alice\0of land")
        assert await is_closed(client)

    run(tmp_path, body)


# ------------------------------------------------------------ who does not


def test_a_password_that_is_wrong_is_answered_after_a_while(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def body(node: Node) -> None:
        client = await connect(node)
        loop = asyncio.get_running_loop()
        begun = loop.time()
        with caplog.at_level(logging.DEBUG, "ottla"):
            answer = await log_in(client, alice("looking glass"))
            assert await is_closed(client)
        assert loop.time() - begun >= 0.3
        assert answer["error_code"].name == "sasl_authentication_failed"
        assert answer["error_message"] == "Authentication failed: Invalid username or password"
        (line,) = [record.getMessage() for record in caplog.records if "login" in record.getMessage()]
        assert line.startswith("client 127.0.0.1: the login failed: ")
        assert "looking glass" not in caplog.text and "wonderland" not in caplog.text

    run(tmp_path, body, {"connection.failed.authentication.delay.ms": "300"})


def test_who_goes_while_it_waits_for_the_refusal_is_forgotten(tmp_path: Path) -> None:
    async def body(node: Node) -> None:
        client = await connect(node)
        await client.ask("SaslHandshake", 1, {"mechanism": "PLAIN"})
        client.send("SaslAuthenticate", 1, {"auth_bytes": b"\0alice\0no"})
        await client._writer.drain()
        client.close()
        while node.connection_count:
            await asyncio.sleep(0.001)

    run(tmp_path, body, {"connection.failed.authentication.delay.ms": "60000"})


def test_nothing_is_answered_before_a_login(tmp_path: Path) -> None:
    async def body(node: Node) -> None:
        for key, api in APIS.items():
            if api.name not in ("ApiVersions", "SaslHandshake"):
                client = await connect(node)
                header = struct.pack(">hhih", key, api.version_max, 1, -1)
                client._writer.write(struct.pack(">i", len(header)) + header)
                assert await is_closed(client), api.name

    run(tmp_path, body)


def test_a_request_in_place_of_a_token_is_refused_in_its_own_words(tmp_path: Path) -> None:
    async def body(node: Node) -> None:
        client = await connect(node)
        await client.ask("SaslHandshake", 1, {"mechanism": "PLAIN"})
        answer = await client.ask("FindCoordinator", 0, {"key": "g"})
        assert answer["error_code"].name == "illegal_sasl_state"
        assert await is_closed(client)

    run(tmp_path, body)


def test_a_large_request_in_place_of_a_token_is_not_even_read(tmp_path: Path) -> None:
    async def body(node: Node) -> None:
        client = await connect(node)
        await client.ask("SaslHandshake", 1, {"mechanism": "PLAIN"})
        wanted = [{"topic_id": None, "name": "t" * 40}] * 200
        client.send("Metadata", 12, METADATA | {"topics": wanted})
        assert await is_closed(client)

    run(tmp_path, body)


def test_a_mechanism_that_is_not_enabled(tmp_path: Path) -> None:
    async def body(node: Node) -> None:
        client = await connect(node)
        answer = await client.ask("SaslHandshake", 1, {"mechanism": "GSSAPI"})
        assert answer["error_code"].name == "unsupported_sasl_mechanism"
        assert answer["mechanisms"] == ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"]
        assert await is_closed(client)

    run(tmp_path, body)


def test_what_comes_behind_a_failed_login_is_not_handled(tmp_path: Path) -> None:
    async def body(node: Node) -> None:
        client = await connect(node)
        client.send("SaslHandshake", 1, {"mechanism": "PLAIN"})
        client.send("SaslAuthenticate", 1, {"auth_bytes": b"\0alice\0no"})
        topic = {"name": "t", "num_partitions": 1, "replication_factor": 1, "assignments": (), "configs": ()}
        client.send("CreateTopics", 7, {"topics": [topic], "timeout_ms": 1000, "validate_only": False})
        await client.receive("SaslHandshake", 1)
        assert (await client.receive("SaslAuthenticate", 1))[
            "error_code"
        ].name == "sasl_authentication_failed"
        assert await is_closed(client)
        assert "t" not in node._metadata.image.topics

    run(tmp_path, body)


def test_a_large_request_ends_the_connection_before_a_login_and_not_behind_it(tmp_path: Path) -> None:
    large = encode_request(36, 1, {"auth_bytes": bytes(5_000)})

    async def body(node: Node) -> None:
        client = await connect(node)
        frame = struct.pack(">hhih", 36, 1, 1, -1) + large
        client._writer.write(struct.pack(">i", len(frame)) + frame)
        assert await is_closed(client)
        client = await connect(node)
        await log_in(client, alice())
        names = [{"topic_id": None, "name": f"{number:0200}"} for number in range(30)]
        answer = await client.ask("Metadata", 12, METADATA | {"topics": names})
        assert len(answer["topics"]) == 30

    run(tmp_path, body, {"sasl.server.max.receive.size": "4096"})


# ------------------------------------------------------------ sessions that end


def test_a_session_is_renewed_or_ends(tmp_path: Path) -> None:
    clock = ShiftedClock()

    async def body(node: Node) -> None:
        client = await connect(node)
        answer = await log_in(client, alice())
        assert answer["session_lifetime"] == 600_000
        clock.shift_ms += 500_000
        assert (await log_in(client, alice()))["error_code"].name == "none"
        clock.shift_ms += 500_000
        assert await topics(client) == []
        clock.shift_ms += 100_001
        client.send("Metadata", 12, METADATA | {"topics": None})
        assert await is_closed(client)

    run(tmp_path, body, {"listener.name.sasl_plaintext.plain.connections.max.reauth.ms": "600000"}, clock)


def test_nobody_becomes_another_user(tmp_path: Path) -> None:
    async def body(node: Node) -> None:
        client = await connect(node)
        await log_in(client, alice())
        answer = await log_in(client, PlainClient("bob", Secret("builder")))
        assert answer["error_code"].name == "sasl_authentication_failed"
        assert await is_closed(client)

    run(tmp_path, body, {"connections.max.reauth.ms": "60000"})


# ------------------------------------------------------------ settings


def test_passwords_change_while_the_broker_runs(tmp_path: Path) -> None:
    name = "listener.name.sasl_plaintext.plain.sasl.jaas.config"

    async def set_password(node: Node, value: str) -> None:
        config = {"name": name, "config_operation": 0, "value": value}
        resource = {"resource_type": 4, "resource_name": "1", "configs": [config]}
        client = await connect(node)
        await log_in(client, PlainClient("bob", Secret("builder")))
        answer = await client.ask(
            "IncrementalAlterConfigs", 1, {"resources": [resource], "validate_only": False}
        )
        assert answer["responses"][0]["error_code"].name == "none", answer
        described = await client.ask(
            "DescribeConfigs",
            4,
            {"resources": [{"resource_type": 4, "resource_name": "1", "configuration_keys": None}]},
        )
        (shown,) = [one for one in described["results"][0]["configs"] if one["name"] == name]
        assert shown["is_sensitive"] and shown["value"] is None
        assert all(synonym["value"] is None for synonym in shown["synonyms"])

    async def outcome(node: Node, password: str) -> str:
        code: Any = (await log_in(await connect(node), alice(password)))["error_code"]
        return str(code.name)

    async def body(node: Node) -> None:
        await set_password(node, LOGIN[name].replace("wonderland", "new land"))
        assert await outcome(node, "new land") == "none"
        assert await outcome(node, "wonderland") == "sasl_authentication_failed"
        await set_password(node, "no module at all")
        assert await outcome(node, "new land") == "none"

    run(tmp_path, body)


@pytest.mark.parametrize(
    ("properties", "refusal"),
    [
        ({"sasl.enabled.mechanisms": "PLAIN,NTLM"}, "NTLM"),
        ({"sasl.mechanism.inter.broker.protocol": "OAUTHBEARER"}, "must be included"),
        (
            {"listener.name.sasl_plaintext.plain.sasl.jaas.config": "x required password=tell;"},
            r"listener.name.sasl_plaintext.plain.sasl.jaas.config: the login module is not known",
        ),
        ({"sasl.enabled.mechanisms": "PLAIN,GSSAPI"}, "GSSAPI needs listener.name.sasl_plaintext.gssapi"),
        ({"sasl.enabled.mechanisms": "PLAIN,OAUTHBEARER"}, "needs sasl.oauthbearer.jwks.endpoint.url"),
    ],
)
def test_settings_that_cannot_be_refuse_the_start(
    properties: dict[str, str], refusal: str, tmp_path: Path
) -> None:
    async def body(node: Node) -> None:
        raise AssertionError("it started")

    with pytest.raises(ConfigError, match=refusal) as refused:
        run(tmp_path, body, properties)
    assert "tell" not in str(refused.value)
