"""What one node is asked to change is in force on all nodes of a cluster within a second."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from admin_support import Client, new_topic
from login_support import LOGIN, connect, log_in

import etcd_support
from measuring import HANG_S, at_most
from ottla.config.security import STANDARD_AUTHORIZER
from ottla.node import Node, NodeSettings
from ottla.security.acl_bindings import Operation, PatternType, Permission, ResourceType
from ottla.security.sasl.client import PlainClient, ScramClient
from ottla.security.sasl.scram import ScramHash, salted_password
from ottla.security.secret import Secret

pytestmark = pytest.mark.skipif(shutil.which("etcd") is None, reason="there is no etcd")

BOUND_S = 1.0
SHA_256 = ScramHash.SHA_256
SALT = b"salt of 16 bytes"
ACL = {
    "resource_type": ResourceType.TOPIC,
    "resource_name": "t",
    "resource_pattern_type": PatternType.LITERAL,
    "principal": "User:bob",
    "host": "*",
    "operation": Operation.DESCRIBE,
    "permission_type": Permission.ALLOW,
}
FILTER = {
    "resource_type_filter": ResourceType.TOPIC,
    "resource_name_filter": "t",
    "pattern_type_filter": PatternType.LITERAL,
    "principal_filter": "User:bob",
    "host_filter": None,
    "operation": Operation.ANY,
    "permission_type": Permission.ANY,
}
METADATA = {
    "topics": None,
    "allow_auto_topic_creation": False,
    "include_cluster_authorized_operations": False,
    "include_topic_authorized_operations": False,
}


async def as_user(node: Node, name: str, password: str) -> Client:
    client = await connect(node)
    answer = await log_in(client, PlainClient(name, Secret(password)))
    assert answer["error_code"].name == "none"
    return client


async def sees(bob: Client) -> bool:
    answer = await bob.ask("Metadata", 12, METADATA)
    return [topic["name"] for topic in answer["topics"]] == ["t"]


async def is_throttled(node: Node) -> bool:
    """By a connection of its own, since one that is throttled is not listened to."""
    bob = await as_user(node, "bob", "builder")
    try:
        for _ in range(2):
            if (await bob.ask("Metadata", 12, METADATA))["throttle_time"]:
                return True
        return False
    finally:
        bob.close()


async def knows_carol(node: Node) -> bool:
    client = await connect(node)
    try:
        answer = await log_in(client, ScramClient(SHA_256, "carol", Secret("c"), "nonce"))
        return bool(answer["error_code"].name == "none")
    finally:
        client.close()


def credential(*, given: bool) -> dict[str, Any]:
    if not given:
        return {"deletions": [{"name": "carol", "mechanism": SHA_256.number}], "upsertions": []}
    one = {
        "name": "carol",
        "mechanism": SHA_256.number,
        "iterations": 4096,
        "salt": SALT,
        "salted_password": salted_password(SHA_256, b"c", SALT, 4096),
    }
    return {"deletions": [], "upsertions": [one]}


def quota(value: float | None) -> dict[str, Any]:
    op = {"key": "request_percentage", "value": value or 0.0, "remove": value is None}
    entry = {"entity": [{"entity_type": "user", "entity_name": "bob"}], "ops": [op]}
    return {"entries": [entry], "validate_only": False}


class Measured:
    """One change after the other, and how long it takes on each node from the answer on."""

    def __init__(self, admin: Client, nodes: Sequence[Node]) -> None:
        self._admin = admin
        self._nodes = nodes

    async def change(
        self, api: str, version: int, fields: dict[str, Any], *done: Callable[[], Awaitable[bool]]
    ) -> float:
        answer = await self._admin.ask(api, version, fields)
        (results,) = (
            value for key, value in answer.items() if key in ("results", "filter_results", "entries")
        )
        assert [one["error_code"].name for one in results] == ["none"], answer
        loop = asyncio.get_running_loop()
        begun = loop.time()

        async def wait(one: Callable[[], Awaitable[bool]]) -> float:
            while not await one():
                await asyncio.sleep(0.005)
            return loop.time() - begun

        return max(await asyncio.gather(*map(wait, done)), default=0.0)


def test_access_is_in_force_on_all_nodes_within_a_second(tmp_path: Path) -> None:
    async def body(nodes: Sequence[Node]) -> None:
        admin = await as_user(nodes[0], "alice", "wonderland")
        made = await admin.ask(
            "CreateTopics", 7, {"topics": [new_topic("t", replicas=3)], "timeout_ms": 30_000}
        )
        assert [one["error_code"].name for one in made["topics"]] == ["none"]
        bobs = [await as_user(node, "bob", "builder") for node in nodes]
        it = Measured(admin, nodes)

        def each(one: Callable[[Any], Awaitable[bool]], of: Sequence[Any], is_so: bool = True) -> Any:
            async def so(what: Any) -> bool:
                return await one(what) is is_so

            return [lambda what=what: so(what) for what in of]

        for attempt in at_most(BOUND_S, "s until it is in force on all nodes"):
            add, delete = {"creations": [ACL]}, {"filters": [FILTER]}
            for api, fields, is_so in (("CreateAcls", add, True), ("DeleteAcls", delete, False)):
                attempt.took(await it.change(api, 3, fields, *each(sees, bobs, is_so)), api)
            for given in (True, False):
                took = await it.change(
                    "AlterUserScramCredentials", 0, credential(given=given), *each(knows_carol, nodes, given)
                )
                attempt.took(took, f"a credential, given: {given}")
            took = await it.change("AlterClientQuotas", 1, quota(0.0001), *each(is_throttled, nodes))
            attempt.took(took, "a quota")
            await it.change("AlterClientQuotas", 1, quota(None))
            print(attempt.figures)

    async def main() -> None:
        cluster = etcd_support.namespace()
        properties = {
            **LOGIN,
            "authorizer.class.name": STANDARD_AUTHORIZER,
            "super.users": "User:alice",
            "offsets.topic.num.partitions": "1",
        }
        nodes = [
            Node(
                NodeSettings(
                    data=str(tmp_path / str(node_id)),
                    node_id=node_id,
                    store=etcd_support.shared().url(),
                    cluster=cluster,
                    properties=properties,
                )
            )
            for node_id in (1, 2, 3)
        ]
        try:
            for node in nodes:
                await node.start()
            async with asyncio.timeout(HANG_S):
                await body(nodes)
        finally:
            for node in nodes:
                await node.kill()

    asyncio.run(main())
