"""A broker that is asked by clients with whichever rights: frames go in at its gate, past any connection."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar
from uuid import UUID

from client_support import let_in
from login_support import PLAIN_JAAS

from measuring import HANG_S
from ottla.broker.pending import Pending
from ottla.broker.request import Client
from ottla.errors import ErrorCode
from ottla.node import Node, NodeSettings
from ottla.security.acl import Authorizer
from ottla.security.acl_bindings import (
    CLUSTER_NAME,
    AclBinding,
    Operation,
    PatternType,
    Permission,
    ResourceType,
)
from ottla.security.principals import user
from ottla.types import Record
from ottla.wire.apis import BY_NAME
from ottla.wire.fields import ZERO, Field, describe
from ottla.wire.messages import decode_response, frame_request, load, read_response_header
from ottla.wire.records import build_batch

T = TypeVar("T")

ALICE, HOST = "User:alice", "10.0.0.1"
NO_ID = UUID(int=0)
BATCH = build_batch([Record(0, 1_000, None, b"v")])

# What is told to whom may not.
AUTHORIZATION_ERRORS = {code for code in ErrorCode if code.name.endswith("_authorization_failed")}

PROPERTIES = {
    "auto.create.topics.enable": "true",
    "offsets.topic.num.partitions": "1",
    "transaction.state.log.num.partitions": "1",
    "group.initial.rebalance.delay.ms": "0",
}


LOGIN_LISTENER = "SASL_PLAINTEXT"
WITH_LOGIN = {
    "listeners": f"PLAINTEXT://127.0.0.1:0,{LOGIN_LISTENER}://127.0.0.1:0",
    "sasl.enabled.mechanisms": "PLAIN",
    "listener.name.sasl_plaintext.plain.sasl.jaas.config": PLAIN_JAAS,
    "delegation.token.secret.key": "what tokens are made with",
}


class Right(NamedTuple):
    """What somebody may be allowed."""

    operation: Operation
    resource_type: ResourceType
    name: str = CLUSTER_NAME


def allow(right: Right, principal: str = ALICE) -> AclBinding:
    kind = right.resource_type
    return AclBinding(
        kind, right.name, PatternType.LITERAL, principal, "*", right.operation, Permission.ALLOW
    )


def authorizer(*rights: Right) -> Authorizer:
    made = Authorizer()
    made.change(added=map(allow, rights))
    return made


def client(*rights: Right, made: Authorizer | None = None) -> Client:
    """Alice, who may do just that; or what an authorizer says."""
    alice = Client(HOST, "PLAINTEXT")
    alice.principal = user("alice")
    alice.permissions = (made or authorizer(*rights)).client(ALICE, HOST)
    return alice


def everybody(listener: str = "PLAINTEXT") -> Client:
    """Somebody where there is no authorizer."""
    return let_in(HOST, listener)


def whole(entity: type[Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """A message's fields: those that are given, and something for the others."""
    made: dict[str, Any] = {}
    for field in describe(entity):
        if field.name in given:
            made[field.name] = _given(field, given[field.name])
        elif field.tag is None:
            made[field.name] = _default(field)
    return made


def _given(field: Field, value: Any) -> Any:
    if field.entity is None or value is None:
        return value
    entity = field.entity
    return [whole(entity, one) for one in value] if field.array else whole(entity, value)


def _default(field: Field) -> Any:
    if field.array:
        return ()
    if field.entity is not None:
        return None if field.nullable else whole(field.entity, {})
    return ZERO[field.kind]


class Broker:
    """``ask`` it; ``node`` is what it is."""

    def __init__(self, node: Node) -> None:
        self.node = node

    async def raw(self, asker: Client, name: str, version: int, fields: Mapping[str, Any]) -> bytes:
        """The answer as it goes out; nothing where none is due."""
        api = BY_NAME[name]
        request = whole(load(api.schema, version, "request"), fields)
        frame = frame_request(api.key, version, 1, "client", request)[4:]
        answer = self.node._listeners.servers[0].handle(asker, frame)
        if isinstance(answer, Pending):
            answer = await asyncio.wait_for(answer, HANG_S)
        return b"".join(bytes(piece) for piece in answer or ())

    async def ask(self, asker: Client, name: str, version: int, fields: Mapping[str, Any]) -> Any:
        key = BY_NAME[name].key
        data = await self.raw(asker, name, version, fields)
        return decode_response(key, version, data, 4 + read_response_header(key, version, data[4:])[1])

    async def create(self, *names: str, partitions: int = 1) -> None:
        topics = [{"name": name, "num_partitions": partitions, "replication_factor": 1} for name in names]
        await self.ask(everybody(), "CreateTopics", 7, {"topics": topics, "timeout_ms": 5_000})

    def topic_id(self, name: str) -> UUID:
        return self.node.services.metadata.image.topics[name].topic_id

    async def produce(self, asker: Client, name: str, acks: int = 1, version: int = 9) -> Any:
        entry = {"index": 0, "records": BATCH}
        topics = [{"name": name, "partition_data": [entry]}]
        fields = {"transactional_id": None, "acks": acks, "timeout_ms": 5_000, "topic_data": topics}
        return await self.ask(asker, "Produce", version, fields)


def started(path: Path, runner: asyncio.Runner) -> Broker:
    """One with a listener for clients that log in, too."""
    node = Node(NodeSettings(data=str(path / "data"), properties=PROPERTIES | WITH_LOGIN))
    runner.run(node.start())
    return Broker(node)


def run(path: Path, body: Callable[[Broker], Coroutine[Any, Any, T]]) -> T:
    async def main() -> T:
        node = Node(NodeSettings(data=str(path / "data"), port=0, properties=PROPERTIES))
        await node.start()
        try:
            return await asyncio.wait_for(body(Broker(node)), HANG_S)
        finally:
            await node.stop()

    return asyncio.run(main())


def codes(answer: Any) -> Iterator[ErrorCode]:
    """All error codes that an answer has, in whichever depth."""
    if hasattr(answer, "_fields"):
        for name, value in zip(answer._fields, answer, strict=True):
            if name.endswith("error_code"):
                yield ErrorCode(value)
            else:
                yield from codes(value)
    elif isinstance(answer, list | tuple):
        for one in answer:
            yield from codes(one)


def denials(answer: Any) -> set[ErrorCode]:
    return AUTHORIZATION_ERRORS & set(codes(answer))
