"""Quotas in force: rates, what clients are told, and that others do not wait."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import rights_support
from admin_support import Client
from log_support import batch
from rights_support import Broker, everybody

from measuring import HANG_S
from ottla.broker.pending import Pending
from ottla.broker.throttling import Throttling
from ottla.node import Node, NodeSettings
from ottla.security.quota_entities import Entity
from ottla.wire.apis import APIS
from ottla.wire.fields import describe
from ottla.wire.messages import (
    RequestHeader,
    decode_response,
    frame_request,
    frame_response,
    load,
    response_header_flexible,
)
from ottla.wire.throttle_time import with_throttle_time

QUOTA = 2_000_000
WINDOW = {"quota.window.num": "2"}


def run(
    path: Path, body: Callable[[Node], Coroutine[Any, Any, None]], properties: Mapping[str, str] | None = None
) -> None:
    async def main() -> None:
        node = Node(NodeSettings(data=str(path / "data"), port=0, properties=properties or {}))
        await node.start()
        try:
            await asyncio.wait_for(body(node), HANG_S)
        finally:
            await node.stop()

    asyncio.run(main())


async def set_quota(node: Node, entity: dict[str, str | None], **values: float | None) -> None:
    client = Client(node, *await asyncio.open_connection(*node.address))
    entry = {
        "entity": [{"entity_type": kind, "entity_name": name} for kind, name in entity.items()],
        "ops": [
            {"key": key, "value": value or 0.0, "remove": value is None} for key, value in values.items()
        ],
    }
    answer = await client.ask("AlterClientQuotas", 1, {"entries": [entry], "validate_only": False})
    assert [one["error_code"].name for one in answer["entries"]] == ["none"], answer
    client.close()


async def connect(node: Node) -> Client:
    return Client(node, *await asyncio.open_connection(*node.address))


def produce(size: int) -> dict[str, Any]:
    partition = {"index": 0, "records": batch(b"x" * size)}
    return {
        "transactional_id": None,
        "acks": 1,
        "timeout_ms": 1000,
        "topic_data": [{"name": "t", "partition_data": [partition]}],
    }


def fetch(offset: int, size: int) -> dict[str, Any]:
    partition = {
        "partition": 0,
        "current_leader_epoch": -1,
        "fetch_offset": offset,
        "last_fetched_epoch": -1,
        "log_start_offset": -1,
        "partition_max_bytes": size,
    }
    return {
        "replica_id": -1,
        "max_wait_ms": 100,
        "min_bytes": 1,
        "max_bytes": size,
        "isolation_level": 0,
        "session_id": 0,
        "session_epoch": -1,
        "topics": [{"topic": "t", "partitions": [partition]}],
        "forgotten_topics_data": [],
        "rack_id": "",
    }


async def rate(ask: Callable[[], Coroutine[Any, Any, tuple[int, int]]], bytes_min: int) -> float:
    """Bytes a second, measured from the first time that one had to wait. ``ask`` gives bytes and the time."""
    loop = asyncio.get_running_loop()
    while not (await ask())[1]:
        pass
    # What had to wait has been waited for.
    await ask()
    begun, count = loop.time(), 0
    while count < bytes_min:
        count += (await ask())[0]
    return count / (loop.time() - begun)


def assert_near_quota(measured: float) -> None:
    """Not beyond it; less where the machine has others to serve (test_security_quotas has the arithmetic)."""
    assert 0.2 * QUOTA < measured < 1.05 * QUOTA


async def make_topic(client: Client) -> None:
    topic = {"name": "t", "num_partitions": 1, "replication_factor": 1, "assignments": (), "configs": ()}
    await client.ask("CreateTopics", 7, {"topics": [topic], "timeout_ms": 5000, "validate_only": False})


def test_a_producer_keeps_to_its_rate_and_others_do_not_wait(tmp_path: Path) -> None:
    async def body(node: Node) -> None:
        await set_quota(node, {"client-id": "test"}, producer_byte_rate=QUOTA)
        client = await connect(node)
        await make_topic(client)
        request = produce(100_000)

        async def ask() -> tuple[int, int]:
            answer = await client.ask("Produce", 9, request)
            return 100_100, answer["throttle_time"]

        other, slowest = await connect(node), 0.0
        loop = asyncio.get_running_loop()
        measuring = asyncio.create_task(rate(ask, 5_000_000))
        while not measuring.done():
            begun = loop.time()
            await other.ask("ApiVersions", 2)
            slowest = max(slowest, loop.time() - begun)
            await asyncio.sleep(0.01)
        assert_near_quota(measuring.result())
        assert slowest < HANG_S / 4

    run(tmp_path, body, WINDOW)


def test_a_consumer_keeps_to_its_rate(tmp_path: Path) -> None:
    async def body(node: Node) -> None:
        client = await connect(node)
        await make_topic(client)
        await client.ask("Produce", 9, produce(100_000))
        await set_quota(node, {"client-id": None}, consumer_byte_rate=QUOTA)

        async def ask() -> tuple[int, int]:
            answer = await client.ask("Fetch", 12, fetch(0, 200_000))
            (partition,) = answer["responses"][0]["partitions"]
            return len(partition["records"]), answer["throttle_time"]

        assert_near_quota(await rate(ask, 4_000_000))

    run(tmp_path, body, WINDOW)


def test_time_on_the_loop_is_a_quota_too_and_ends_with_it(tmp_path: Path) -> None:
    async def body(node: Node) -> None:
        client = await connect(node)
        assert node._listeners.servers[0].handle._throttling is None  # type: ignore[attr-defined]
        await set_quota(node, {"client-id": "test"}, request_percentage=0.01)
        while not (await client.ask("ListGroups", 1))["throttle_time"]:
            pass
        await set_quota(node, {"client-id": "test"}, request_percentage=None)
        assert (await client.ask("ListGroups", 1))["throttle_time"] == 0
        assert node._listeners.servers[0].handle._throttling is None  # type: ignore[attr-defined]

    run(tmp_path, body)


def test_connections_of_an_address_keep_to_its_rate(tmp_path: Path) -> None:
    async def body(node: Node) -> None:
        await set_quota(node, {"ip": "127.0.0.1"}, connection_creation_rate=2)
        outcomes = []
        for _ in range(20):
            reader, writer = await asyncio.open_connection(*node.address)
            writer.write(bytes.fromhex("0000000a 0012 0000 00000001 ffff"))
            outcomes.append(await reader.read(4) != b"")
            writer.close()
        assert True in outcomes and False in outcomes

    run(tmp_path, body, WINDOW)


def emptiest(entity: type[Any]) -> dict[str, Any]:
    """A message with as little in it as may be."""
    made: dict[str, Any] = {}
    for field in describe(entity):
        if field.tag is not None:
            continue
        if field.array:
            made[field.name] = ()
        elif field.nullable:
            made[field.name] = None
        elif field.entity is not None:
            made[field.name] = emptiest(field.entity)
        else:
            made[field.name] = {"string": "", "bytes": b"", "records": b"", "uuid": None}.get(field.kind, 0)
    return made


@pytest.mark.parametrize("key", sorted(APIS))
def test_the_time_is_put_where_it_belongs_in_each_version(key: int) -> None:
    api = APIS[key]
    for version in range(api.version_min, api.version_max + 1):
        fields = emptiest(load(api.schema, version, "response"))
        header = RequestHeader(key, version, 7, None, 0)
        pieces = with_throttle_time(frame_response(header, fields), key, version, 1234)
        data = b"".join(pieces)
        assert data[:4] == len(data[4:]).to_bytes(4)
        response = decode_response(key, version, data[4:], 4 + response_header_flexible(key, version))
        if api.name != "ApiVersions" and hasattr(response, "throttle_time_ms"):
            assert response.throttle_time_ms == 1234


def test_changes_to_the_metadata_are_a_quota_too(tmp_path: Path) -> None:
    def new(name: str, partitions: int) -> dict[str, Any]:
        counts = {"num_partitions": partitions, "replication_factor": 1}
        return {"name": name, "assignments": (), "configs": ()} | counts

    async def create(node: Node, version: int, *names: str, partitions: int = 20) -> tuple[list[str], int]:
        client = await connect(node)
        topics = [new(name, partitions) for name in names]
        answer = await client.ask(
            "CreateTopics", version, {"topics": topics, "timeout_ms": 5000, "validate_only": False}
        )
        client.close()
        return [one["error_code"].name for one in answer["topics"]], answer["throttle_time"]

    async def body(node: Node) -> None:
        await set_quota(node, {"client-id": "test"}, controller_mutation_rate=1.0)
        # What can never be is nobody's debt: it would take 60 years to be paid.
        for version in (5, 7):
            outcomes, throttle_ms = await create(node, version, "a", "b", partitions=2_000_000_000)
            assert outcomes == ["policy_violation"] * 2 and not throttle_ms
        # As long as there is no debt, more may be taken than there is.
        outcomes, throttle_ms = await create(node, 7, "a", "b")
        assert outcomes == ["none", "throttling_quota_exceeded"] and throttle_ms > 0
        outcomes, throttle_ms = await create(node, 5, "c")
        assert outcomes == ["none"] and throttle_ms > 0
        client = await connect(node)
        topics = [{"name": "a", "topic_id": None}]
        answer = await client.ask("DeleteTopics", 6, {"topics": topics, "timeout_ms": 5000})
        assert [one["error_code"].name for one in answer["responses"]] == ["throttling_quota_exceeded"]
        client = await connect(node)
        more = {"topics": [{"name": "a", "count": 21, "assignments": None}], "timeout_ms": 5000}
        answer = await client.ask("CreatePartitions", 3, more | {"validate_only": False})
        assert [one["error_code"].name for one in answer["results"]] == ["throttling_quota_exceeded"]
        # Nor are topics made by asking for them.
        client = await connect(node)
        wanted = {"topics": [{"topic_id": None, "name": "auto"}], "allow_auto_topic_creation": True}
        told = {"include_cluster_authorized_operations": False, "include_topic_authorized_operations": False}
        answer = await client.ask("Metadata", 10, wanted | told)
        assert [one["error_code"].name for one in answer["topics"]] == ["unknown_topic_or_partition"]

    run(tmp_path, body)


def test_what_is_refused_makes_no_room_for_what_is_not_counted(tmp_path: Path) -> None:
    async def body(node: Node) -> None:
        await set_quota(node, {"client-id": "test"}, controller_mutation_rate=1.0)
        client = await connect(node)
        counts = {"a": 20, "b": 9_980, "c": 20}
        topics = [
            {"name": name, "num_partitions": count, "replication_factor": 1, "assignments": (), "configs": ()}
            for name, count in counts.items()
        ]
        answer = await client.ask(
            "CreateTopics", 7, {"topics": topics, "timeout_ms": 5000, "validate_only": False}
        )
        outcomes = {one["name"]: one["error_code"].name for one in answer["topics"]}
        over = "throttling_quota_exceeded"
        assert outcomes == {"a": "none", "b": over, "c": over}

    run(tmp_path, body)


@pytest.mark.parametrize("version", [12, 17])
def test_nobody_is_a_node_who_says_so(version: int, tmp_path: Path) -> None:
    async def body(broker: Broker) -> None:
        (known,) = broker.node.services.metadata.image.brokers.values()
        for claim, believed in ((known.claim + 1, False), (known.claim, version >= 15)):
            asker = everybody()
            state = {"replica_id": broker.node.node_id, "replica_epoch": claim}
            fields = fetch(0, 1_000) | {"topics": [], "replica_id": broker.node.node_id}
            await broker.ask(asker, "Fetch", version, fields | {"replica_state": state})
            assert asker.is_node is believed

    rights_support.run(tmp_path, body)


def test_a_request_that_is_handled_in_pieces_counts_with_all_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each look at the clock is a millisecond after the one before, so that each step takes one: a request of
    5,000 topics counts as more than twenty."""
    looks = count()
    for module in ("metering", "throttling"):
        monkeypatch.setattr(f"ottla.broker.{module}.thread_cpu_ms", lambda: next(looks))

    async def body(broker: Broker) -> None:
        quotas = broker.node._quotas.make()
        everyone = Entity.of({"client-id": None})
        values = {"request_percentage": 1_000_000.0}
        gate = broker.node._listeners.servers[0].handle
        throttling = Throttling(quotas, broker.node._clock, gate.switch_throttling)
        image = broker.node.services.metadata.image
        for _ in throttling.follow(image, replace(image, quotas={everyone: values})):
            pass
        used = quotas.requests.find("", "client", 0)
        assert used is not None

        async def costs(name: str, version: int, fields: dict[str, Any]) -> float:
            before = used.use._total
            await broker.ask(everybody(), name, version, fields)
            # In percent of a second.
            return round((used.use._total - before) * 10)

        many = [{"name": f"t{number}"} for number in range(5_000)]
        assert await costs("Metadata", 12, {"topics": [{"name": "t"}]}) == 1
        assert await costs("ListOffsets", 7, {"replica_id": -1, "topics": many}) > 20
        assert await costs("Metadata", 12, {"topics": many}) > 20
        partitions = [{"partition": number} for number in range(2_000)]
        assert await costs("Fetch", 12, {"replica_id": -1, "topics": [{"partitions": partitions}]}) > 5

        # It counts for whoever goes away before the answer comes, too.
        before = used.use._total
        api, fields = APIS[2], {"replica_id": -1, "topics": many}
        request = rights_support.whole(load(api.schema, 7, "request"), fields)
        answer = gate(everybody(), frame_request(2, 7, 1, "client", request)[4:])
        assert isinstance(answer, Pending)
        answer.cancel()
        while used.use._total - before < 2:
            await asyncio.sleep(0)

    rights_support.run(tmp_path, body)
