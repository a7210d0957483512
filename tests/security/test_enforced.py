"""A broker with ``authorizer.class.name``, and clients that come by connections of their own."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
import rights_support
from admin_support import Client, code, create, new_topic, run
from cases import metadata_fields, produce_fields
from rights_support import Broker, Right, client, everybody

from ottla.config import ConfigError
from ottla.config.security import STANDARD_AUTHORIZER
from ottla.security.acl_bindings import Operation, PatternType, Permission, ResourceType

ENFORCED = {"authorizer.class.name": STANDARD_AUTHORIZER}
ANONYMOUS = "User:ANONYMOUS"


async def allow(broker: Broker, right: Right, principal: str = ANONYMOUS) -> None:
    """As an administrator does who comes by another way."""
    acl = {
        "resource_type": right.resource_type,
        "resource_name": right.name,
        "resource_pattern_type": PatternType.LITERAL,
        "principal": principal,
        "host": "*",
        "operation": right.operation,
        "permission_type": Permission.ALLOW,
    }
    answer = await broker.ask(everybody(), "CreateAcls", 3, {"creations": [acl]})
    assert [result.error_code for result in answer.results] == [0]


async def names(client: Client) -> list[tuple[str, str]]:
    answer = await client.ask("Metadata", 12, {"topics": None, **FLAGS})
    return [(topic["name"], code(topic)) for topic in answer["topics"]]


FLAGS = {
    "allow_auto_topic_creation": False,
    "include_cluster_authorized_operations": False,
    "include_topic_authorized_operations": False,
}


def test_nobody_may_do_anything_until_an_acl_says_so(tmp_path: Path) -> None:
    async def body(client: Client) -> None:
        broker = Broker(client.node)
        await broker.create("t", "u")
        (made,) = await create(client, new_topic("mine"))
        assert code(made) == "topic_authorization_failed"
        assert await names(client) == []
        answer = await client.ask("Metadata", 12, metadata_fields("t") | FLAGS)
        assert [code(topic) for topic in answer["topics"]] == ["topic_authorization_failed"]
        await allow(broker, Right(Operation.WRITE, ResourceType.TOPIC, "t"))
        async with asyncio.timeout(10):
            while not await names(client):
                await asyncio.sleep(0.01)
        assert await names(client) == [("t", "none")]
        answer = await client.ask("Produce", 9, produce_fields())
        assert code(answer["responses"][0]["partition_responses"][0]) == "none"
        (made,) = await create(client, new_topic("mine"))
        assert code(made) == "topic_authorization_failed"

    run(tmp_path, body, ENFORCED)


def test_super_users_may_do_everything(tmp_path: Path) -> None:
    async def body(client: Client) -> None:
        (made,) = await create(client, new_topic("mine"))
        assert code(made) == "none"
        assert await names(client) == [("mine", "none")]

    run(tmp_path, body, ENFORCED | {"super.users": f"User:root;{ANONYMOUS}"})


async def started(client: Client) -> None:
    """All that is asked of the broker is that it starts."""


@pytest.mark.parametrize("given", ["admin", "User:root;admin"])
def test_a_super_user_without_a_type_is_refused_with_what_would_do(tmp_path: Path, given: str) -> None:
    with pytest.raises(
        ConfigError, match=f"Invalid value {given} for configuration super.users: .*User:admin"
    ):
        run(tmp_path, started, ENFORCED | {"super.users": given})


def test_super_users_with_commas_between_them_are_told_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run(tmp_path, started, ENFORCED | {"super.users": "User:CN=a,OU=b;User:admin,User:root"})
    told = [each for each in caplog.messages if "Semicolons separate users" in each]
    assert told == [
        "super.users: a user has the name User:admin,User:root; is the separator wrong? "
        "Semicolons separate users"
    ]


def test_everybody_may_do_what_no_acl_is_about_where_that_is_asked_for(tmp_path: Path) -> None:
    async def body(client: Client) -> None:
        broker = Broker(client.node)
        await create(client, new_topic("mine"), new_topic("theirs"))
        assert sorted(await names(client)) == [("mine", "none"), ("theirs", "none")]
        await allow(broker, Right(Operation.READ, ResourceType.TOPIC, "theirs"), "User:bob")
        async with asyncio.timeout(10):
            while len(await names(client)) == 2:
                await asyncio.sleep(0.01)
        assert await names(client) == [("mine", "none")]

    run(tmp_path, body, ENFORCED | {"allow.everyone.if.no.acl.found": "true"})


@pytest.mark.parametrize(
    # And the rounds of the loop in which the answer is written.
    ("name", "version", "fields", "written"),
    [("ListOffsets", 7, {"replica_id": -1}, 43), ("OffsetDelete", 0, {"group_id": "g"}, 5)],
)
def test_others_have_their_turn_while_rights_to_many_topics_are_looked_up(
    name: str, version: int, fields: dict[str, Any], written: int, tmp_path: Path
) -> None:
    async def body(broker: Broker) -> None:
        rounds = 0

        async def others() -> None:
            nonlocal rounds
            while True:
                rounds += 1
                await asyncio.sleep(0)

        topics = [{"name": f"t{number}"} for number in range(5_000)]
        watching = asyncio.ensure_future(others())
        asker = client(Right(Operation.DELETE, ResourceType.GROUP, "g"))
        await broker.ask(asker, name, version, fields | {"topics": topics})
        watching.cancel()
        assert rounds > written + 5_000 / 250 - 5

    rights_support.run(tmp_path, body)
