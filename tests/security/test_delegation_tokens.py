"""Delegation tokens from the request to the login, on a real broker."""

from __future__ import annotations

import struct
from base64 import b64encode
from pathlib import Path
from typing import Any

import pytest
from admin_support import Client
from login_support import ShiftedClock, connect, log_in, run

from ottla.errors import ErrorCode
from ottla.node import Node
from ottla.security.sasl.client import PlainClient, ScramClient
from ottla.security.sasl.scram import ScramHash
from ottla.security.secret import Secret
from ottla.wire.apis import BY_NAME
from ottla.wire.messages import decode_response, response_header_flexible

KEY = {"delegation.token.secret.key": "between the nodes"}
DAY_MS = 86_400_000


async def ask(client: Client, name: str, version: int, fields: dict[str, Any]) -> Any:
    """As ``Client.ask``, also where the answer has -1 for a time."""
    client.send(name, version, fields)
    (size,) = struct.unpack(">i", await client._reader.readexactly(4))
    data = await client._reader.readexactly(size)
    client._answered_id = client._correlation_id
    key = BY_NAME[name].key
    return decode_response(key, version, data, 4 + response_header_flexible(key, version))


def code(answer: Any) -> str:
    return ErrorCode(answer.error_code).name


async def alice(node: Node) -> Client:
    client = await connect(node)
    await log_in(client, PlainClient("alice", Secret("wonderland")))
    return client


async def create(client: Client, version: int = 3, **fields: Any) -> Any:
    given = {
        "owner_principal_type": None,
        "owner_principal_name": None,
        "renewers": [{"principal_type": "User", "principal_name": "bob"}],
        "max_lifetime_ms": -1,
    }
    return await ask(client, "CreateDelegationToken", version, given | fields)


async def log_in_by(node: Node, token: Any, hash: ScramHash = ScramHash.SHA_256) -> Client | None:
    """A client that logged in by a token; None where that was refused."""
    client = await connect(node)
    password = Secret(b64encode(token.hmac).decode())
    exchange = ScramClient(hash, token.token_id, password, "nonce", by_token=True)
    return client if (await log_in(client, exchange))["error_code"].name == "none" else None


@pytest.mark.parametrize("hash", list(ScramHash))
def test_a_token_stands_for_its_owner(hash: ScramHash, tmp_path: Path) -> None:
    async def body(node: Node) -> None:
        token = await create(await alice(node))
        assert code(token) == "none" and token.principal_name == "alice"
        client = await log_in_by(node, token, hash)
        assert client is not None
        principals = {str(c.client.principal) for s in node._listeners.servers for c in s.connections}
        assert principals == {"User:alice"}
        # By a token one gets no other.
        assert code(await create(client)) == "delegation_token_request_not_allowed"

    run(tmp_path, body, KEY)


def test_a_token_ends_and_is_renewed(tmp_path: Path) -> None:
    async def body(node: Node) -> None:
        client = await alice(node)
        token = await create(client)
        described = await ask(client, "DescribeDelegationToken", 3, {"owners": None})
        (shown,) = described.tokens
        assert (shown.token_id, shown.hmac) == (token.token_id, token.hmac)
        bob = await connect(node)
        await log_in(bob, PlainClient("bob", Secret("builder")))
        renewed = await ask(bob, "RenewDelegationToken", 2, {"hmac": token.hmac, "renew_period_ms": 1000})
        assert code(renewed) == "none"
        other = await connect(node)
        await log_in(other, PlainClient("node", Secret("between nodes")))
        asked = {"hmac": token.hmac, "expiry_time_period_ms": -1}
        assert code(await ask(other, "ExpireDelegationToken", 2, asked)) == "delegation_token_owner_mismatch"
        assert (await ask(other, "DescribeDelegationToken", 3, {"owners": []})).tokens == ()
        assert code(await ask(bob, "ExpireDelegationToken", 2, asked)) == "none"
        assert code(await ask(bob, "ExpireDelegationToken", 2, asked)) == "delegation_token_not_found"
        assert await log_in_by(node, token) is None

    run(tmp_path, body, KEY)


def test_what_has_ended_is_removed(tmp_path: Path) -> None:
    class Later(ShiftedClock):
        def now_ms(self) -> int:
            return super().now_ms() + self.shift_ms

    clock = Later()

    async def body(node: Node) -> None:
        token = await create(await alice(node))
        clock.shift_ms = 2 * DAY_MS
        assert await log_in_by(node, token) is None
        node.services.tokens._look()
        removing = node.services.tokens._removing
        assert removing is not None
        await removing
        assert not node._metadata.image.tokens

    run(tmp_path, body, KEY, clock)


def test_without_a_key_there_are_none(tmp_path: Path) -> None:
    async def body(node: Node) -> None:
        client = await alice(node)
        assert code(await create(client)) == "delegation_token_auth_disabled"
        answer = await ask(client, "DescribeDelegationToken", 2, {"owners": None})
        assert code(answer) == "delegation_token_auth_disabled"

    run(tmp_path, body)


def test_nobody_in_particular_gets_none(tmp_path: Path) -> None:
    async def body(node: Node) -> None:
        client = await connect(node)
        for version in (1, 2, 3):
            assert code(await create(client, version)) == "delegation_token_request_not_allowed"

    run(tmp_path, body, KEY | {"listeners": "PLAINTEXT://127.0.0.1:0"})
