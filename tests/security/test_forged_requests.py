"""Whoever says that a request is a node's, by each API that has such a field, on each listener, with and
without the right to it: what a client could gain by it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import pytest
from cases import fetch_fields
from rights_support import Broker, Right, client, codes, started

from ottla.broker.request import Client
from ottla.errors import ErrorCode
from ottla.security.acl_bindings import Operation, ResourceType
from ottla.wire.apis import APIS
from ottla.wire.fields import describe
from ottla.wire.messages import load

CLUSTER_ACTION = Right(Operation.CLUSTER_ACTION, ResourceType.CLUSTER)
TOPIC_RIGHTS = (
    Right(Operation.READ, ResourceType.TOPIC, "t"),
    Right(Operation.DESCRIBE, ResourceType.TOPIC, "t"),
)
# The first is the one that nodes use.
FOR_NODES, FOR_CLIENTS = "PLAINTEXT", "SASL_PLAINTEXT"
OWN, OTHER = 1, 7
EPOCHS = (-1, 0, 1, 2**31, 2**63 - 1)
NOT_ALLOWED = {ErrorCode.topic_authorization_failed}
# Not believed: nobody of that registration.
NOBODY = {ErrorCode.not_leader_or_follower}


class Forged(NamedTuple):
    """A request with the field; what is told with the right to act as a node, where nodes ask and where
    clients do."""

    api: str
    fields: Callable[[Broker, int, int], Mapping[str, Any]]
    versions: tuple[int, ...]
    among_nodes: set[ErrorCode]
    # What whoever may only read and describe the topic is told in both places.
    without: tuple[set[ErrorCode], set[ErrorCode]]


def fetch(broker: Broker, node_id: int, epoch: int) -> Mapping[str, Any]:
    state = {"replica_id": node_id, "replica_epoch": epoch}
    # Far ahead: believed, it would move the high watermark.
    more = fetch_fields(broker, replica_id=node_id, replica_state=state, max_wait_ms=0, session_epoch=-1)
    more["topics"][0]["partitions"][0].update(fetch_offset=1, log_start_offset=0)
    return more


def list_offsets(broker: Broker, node_id: int, epoch: int) -> Mapping[str, Any]:
    partition = {"partition_index": 0, "current_leader_epoch": -1, "timestamp": -1}
    return {"replica_id": node_id, "isolation_level": 0, "topics": [{"name": "t", "partitions": [partition]}]}


def of_epochs(broker: Broker, node_id: int, epoch: int) -> Mapping[str, Any]:
    partition = {"partition": 0, "current_leader_epoch": -1, "leader_epoch": 0}
    return {"replica_id": node_id, "topics": [{"topic": "t", "partitions": [partition]}]}


FINE: set[ErrorCode] = {ErrorCode.none}
# Offsets and epochs of what somebody may describe anyway are told whoever asks.
TOLD = (FINE, NOT_ALLOWED)
FORGED = (
    Forged("Fetch", fetch, (4, 11, 12, 13, 14, 15, 17), NOBODY, (NOT_ALLOWED, NOT_ALLOWED)),
    Forged("ListOffsets", list_offsets, (1, 5, 8, 10), FINE, TOLD),
    Forged("OffsetForLeaderEpoch", of_epochs, (3, 4), FINE, TOLD),
)
# Whoever may ask these is an administrator, and says whom they are about, not who asks.
ABOUT_OTHERS = {"UnregisterBroker"}
FIELDS = {"replica_id", "replica_state", "broker_id", "broker_epoch"}


class Running(NamedTuple):
    runner: asyncio.Runner
    broker: Broker


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with asyncio.Runner() as runner:
        broker = started(tmp_path_factory.mktemp("broker"), runner)
        runner.run(broker.create("t"))
        runner.run(broker.produce(client(Right(Operation.WRITE, ResourceType.TOPIC, "t")), "t"))
        yield Running(runner, broker)
        runner.run(broker.node.stop())


def test_each_api_with_such_a_field_is_here() -> None:
    found = set()
    for api in APIS.values():
        # One that comes and goes in between would not be seen; all have their schemas loaded otherwise.
        for version in (api.version_min, api.version_max):
            if FIELDS & {field.name for field in describe(load(api.schema, version, "request"))}:
                found.add(api.name)
    assert found == {one.api for one in FORGED} | ABOUT_OTHERS


def at(listener: str, *rights: Right) -> Client:
    made = client(*TOPIC_RIGHTS, *rights)
    made.listener = listener
    return made


@pytest.mark.parametrize("forged", FORGED, ids=lambda one: one.api)
@pytest.mark.parametrize("node_id", [OWN, OTHER, 2**31 - 1])
def test_nobody_becomes_a_node_by_saying_so(running: Running, forged: Forged, node_id: int) -> None:
    broker = running.broker
    partition = broker.node._replicas.get("t", 0)
    before = (partition.state, partition.high_watermark, partition.log.log_end_offset)

    async def told(asker: Client, version: int, epoch: int) -> set[ErrorCode]:
        answer = await broker.ask(asker, forged.api, version, forged.fields(broker, node_id, epoch))
        found = set(codes(answer))
        return found if found == FINE else found - FINE

    async def main() -> None:
        for version in forged.versions:
            for epoch in EPOCHS:
                for listener, without, having in (
                    (FOR_NODES, forged.without[0], forged.among_nodes),
                    (FOR_CLIENTS, forged.without[1], NOT_ALLOWED),
                ):
                    for rights, expected in (((), without), ((CLUSTER_ACTION,), having)):
                        asker = at(listener, *rights)
                        where = (version, epoch, listener, rights)
                        assert await told(asker, version, epoch) == expected, where
                        # What nodes ask of each other is free of quotas.
                        assert not asker.is_node, where

    running.runner.run(main())
    assert before == (partition.state, partition.high_watermark, partition.log.log_end_offset)
