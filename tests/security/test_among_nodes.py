"""As whom nodes come to each other: by tokens (OAUTHBEARER), and what is said where they may not follow."""

from __future__ import annotations

import asyncio
import json
import shutil
import time
from base64 import urlsafe_b64encode
from pathlib import Path
from typing import Any

import pytest
import trustme
from admin_support import new_topic
from log_support import batch
from login_support import PLAIN_JAAS, connect, log_in

import etcd_support
from measuring import HANG_S
from ottla.config.security import STANDARD_AUTHORIZER, UNSECURED_VALIDATOR
from ottla.node import Node, NodeSettings
from ottla.security.sasl.client import PlainClient
from ottla.security.secret import Secret

pytestmark = pytest.mark.skipif(shutil.which("etcd") is None, reason="there is no etcd")


def token(name: str) -> str:
    parts: tuple[dict[str, Any], ...] = ({"alg": "none"}, {"sub": name, "exp": time.time() + 600})
    return ".".join(urlsafe_b64encode(json.dumps(one).encode()).decode().rstrip("=") for one in parts) + "."


def test_nodes_log_in_to_each_other_by_a_token_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "token").write_text(token("node"))
    prefix = "listener.name.sasl_plaintext"
    properties = {
        "listeners": "SASL_PLAINTEXT://127.0.0.1:0",
        "security.inter.broker.protocol": "SASL_PLAINTEXT",
        "sasl.enabled.mechanisms": "OAUTHBEARER,PLAIN",
        "sasl.mechanism.inter.broker.protocol": "OAUTHBEARER",
        "sasl.oauthbearer.token.endpoint.url": (tmp_path / "token").as_uri(),
        f"{prefix}.oauthbearer.sasl.server.callback.handler.class": UNSECURED_VALIDATOR,
        f"{prefix}.plain.sasl.jaas.config": PLAIN_JAAS,
        "authorizer.class.name": STANDARD_AUTHORIZER,
        # Whom a token names is its provider's to say.
        "super.users": "User:node;User:alice",
        "min.insync.replicas": "2",
        "offsets.topic.num.partitions": "1",
    }

    async def body(first: Node) -> None:
        alice = await connect(first)
        await log_in(alice, PlainClient("alice", Secret("wonderland")))
        topics = [new_topic("t", replicas=2)]
        made = await alice.ask("CreateTopics", 7, {"topics": topics, "timeout_ms": 30_000})
        assert [one["error_code"].name for one in made["topics"]] == ["none"]
        partition = {"index": 0, "records": batch(b"v")}
        fields = {
            "transactional_id": None,
            "acks": -1,
            "timeout_ms": 30_000,
            "topic_data": [{"name": "t", "partition_data": [partition]}],
        }
        leader = first._metadata.image.topics["t"].partitions[0].leader
        if leader != first.node_id:
            alice.close()
            alice = await connect(nodes[1])
            await log_in(alice, PlainClient("alice", Secret("wonderland")))
        answer = await alice.ask("Produce", 9, fields)
        assert answer["responses"][0]["partition_responses"][0]["error_code"].name == "none"

    cluster = etcd_support.namespace()
    nodes: list[Node] = []

    async def main() -> None:
        try:
            for node_id in (1, 2):
                nodes.append(member(tmp_path, cluster, node_id, properties))
                await nodes[-1].start()
            async with asyncio.timeout(HANG_S):
                await body(nodes[0])
        finally:
            for node in nodes:
                await node.kill()

    asyncio.run(main())


def member(path: Path, cluster: str, node_id: int, properties: dict[str, str]) -> Node:
    settings = NodeSettings(
        data=str(path / str(node_id)),
        node_id=node_id,
        store=etcd_support.shared().url(),
        cluster=cluster,
        properties=properties,
    )
    return Node(settings)


SAID = "has no right to CLUSTER_ACTION"


@pytest.mark.parametrize(
    ("protocol", "client_auth", "supers", "who"),
    [
        ("PLAINTEXT", "none", "User:admin", "User:ANONYMOUS"),
        ("PLAINTEXT", "none", "User:admin;User:ANONYMOUS", None),
        ("SSL", "none", "User:node", "User:ANONYMOUS"),
        ("SSL", "required", "User:admin", "User:node"),
        ("SSL", "required", "User:node", None),
    ],
)
def test_a_node_whose_like_may_not_follow_says_what_to_do(
    protocol: str,
    client_auth: str,
    supers: str,
    who: str | None,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    issued = authority.issue_cert("127.0.0.1", common_name="node")
    issued.private_key_and_cert_chain_pem.write_to_path(tmp_path / "node.pem")
    properties = {
        "listeners": f"{protocol}://127.0.0.1:0",
        "security.inter.broker.protocol": protocol,
        "ssl.client.auth": client_auth,
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": str(tmp_path / "node.pem"),
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": str(tmp_path / "ca.pem"),
        "ssl.principal.mapping.rules": r"RULE:^CN=([a-z]+),.*$/$1/,DEFAULT",
        "authorizer.class.name": STANDARD_AUTHORIZER,
        "super.users": supers,
    }

    async def main() -> None:
        node = member(tmp_path, etcd_support.namespace(), 1, properties)
        try:
            await node.start()
        finally:
            await node.kill()

    asyncio.run(main())
    if who is None:
        assert SAID not in caplog.text
    else:
        assert (
            f"inter-broker listener {protocol}: nodes log in as {who}, and this principal {SAID}"
            in caplog.text
        )
        assert f"Add {who} to super.users" in caplog.text
