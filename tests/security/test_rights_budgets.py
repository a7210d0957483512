"""Whoever names many things in one request does not have them all decided about in one step of the loop."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from typing import Any

import pytest
from budget_support import largest
from rights_support import HOST, Broker, Right, client, denials, started
from test_broker_budgets import LARGE, value

from measuring import HANG_S
from ottla.broker.large import AT_ONCE_MAX
from ottla.broker.pending import Pending
from ottla.broker.request import Client
from ottla.errors import ErrorCode
from ottla.replication.manager import ReplicaManager
from ottla.security.acl import DEFAULT_ALLOW, DEFAULT_DENY, Decision
from ottla.security.acl_bindings import Operation, ResourceType
from ottla.security.principals import user
from ottla.wire.apis import Api
from ottla.wire.fields import Field

# Enough to see whether all of it is done at once.
ELEMENTS = 4 * AT_ONCE_MAX
# What the gate asks besides, and the last piece of one thing with the first of the next.
STEP_MAX = 2 * AT_ONCE_MAX + 10
# Groups and transactional ids are for this client: of these it may name any topics.
ALLOWED = {ResourceType.GROUP, ResourceType.TRANSACTIONAL_ID}


class Counted:
    """What a client may do; ``most`` is how often that was asked in one step of the loop."""

    version = 1

    def __init__(self, allowed: set[ResourceType]) -> None:
        self.allowed = allowed
        self.asked = self.most = self.count = 0

    def decide(self, operation: Operation, kind: ResourceType, name: str) -> Decision:
        return DEFAULT_ALLOW if kind in self.allowed else DEFAULT_DENY

    def allows(self, operation: Operation, kind: ResourceType, name: str) -> bool:
        self.asked += 1
        self.count += 1
        self.most = max(self.most, self.count)
        return kind in self.allowed

    def allows_any(self, operation: Operation, kind: ResourceType) -> bool:
        return kind in self.allowed

    def operations(self, kind: ResourceType, name: str) -> int:
        return 0


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[asyncio.Runner, Broker]]:
    with asyncio.Runner() as runner:
        broker = started(tmp_path_factory.mktemp("broker"), runner)
        yield runner, broker
        runner.run(broker.node.stop())


def named(field: Field, number: int) -> Any:
    if field.name in ("transactional_id", "v3_and_below_transactional_id") and not field.array:
        return "tx"
    return value("unknown", field, number)


async def asked(broker: Broker, frame: bytes, allowed: set[ResourceType]) -> Counted:
    alice = Client(HOST, "PLAINTEXT")
    alice.principal = user("alice")
    counted = alice.permissions = Counted(allowed)
    run = asyncio.events.Handle._run

    def step(handle: asyncio.Handle) -> None:
        counted.count = 0
        run(handle)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(asyncio.events.Handle, "_run", step)
        answer = broker.node._listeners.servers[0].handle(alice, frame)
        if isinstance(answer, Pending):
            await asyncio.wait_for(answer, HANG_S)
    return counted


@pytest.mark.parametrize("unopened", [False, True], ids=["open", "unopened"])
@pytest.mark.parametrize("api", LARGE, ids=lambda api: api.name)
def test_no_step_decides_about_more_than_a_piece(
    running: tuple[asyncio.Runner, Broker], api: Api, unopened: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With partitions that may not be open yet and without, for whoever may do nothing, and for whoever may
    name any topics in the name of its own group or transactional id."""
    runner, broker = running
    if unopened:
        if api.room != "records":
            return
        monkeypatch.setattr(ReplicaManager, "unopened", True)
    small = api._replace(elements_max=min(ELEMENTS, api.elements_max))
    # From v4 on that is for nodes.
    versions = {api.version_max, 3} if api.name == "AddPartitionsToTxn" else {api.version_max}

    async def main() -> None:
        for version in versions:
            for name, frame in largest(small, version, named, bare=True):
                for allowed in (set(), ALLOWED):
                    counted = await asked(broker, frame, allowed)
                    assert counted.most <= STEP_MAX, f"{name}: {counted.most} of {counted.asked} in one step"

    runner.run(main())


def by_topic(topic: str, partitions: str, partition: Any, **fields: Any) -> dict[str, Any]:
    return fields | {"topics": [{topic: name, partitions: [partition]} for name in ("mine", "theirs")]}


@pytest.mark.parametrize(
    ("name", "version", "fields", "right"),
    [
        ("ListOffsets", 7, by_topic("name", "partitions", {}, replica_id=-1), Operation.DESCRIBE),
        ("OffsetForLeaderEpoch", 4, by_topic("topic", "partitions", {}, replica_id=-1), Operation.DESCRIBE),
        ("DeleteRecords", 2, by_topic("name", "partitions", {}), Operation.DELETE),
        ("DescribeProducers", 0, by_topic("name", "partition_indexes", 0), Operation.READ),
    ],
)
def test_nothing_is_opened_for_who_may_not_know_of_it(
    running: tuple[asyncio.Runner, Broker],
    name: str,
    version: int,
    fields: dict[str, Any],
    right: Operation,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    runner, broker = running
    opened: list[tuple[str, int]] = []

    async def noted(replicas: ReplicaManager, wanted: Iterable[tuple[str, int]]) -> None:
        opened.extend(wanted)

    monkeypatch.setattr(ReplicaManager, "unopened", True)
    monkeypatch.setattr(ReplicaManager, "open", noted)
    asker = client(Right(right, ResourceType.TOPIC, "mine"))
    answer = runner.run(broker.ask(asker, name, version, fields))
    assert opened == [("mine", 0)]
    assert denials(answer) == {ErrorCode.topic_authorization_failed}
