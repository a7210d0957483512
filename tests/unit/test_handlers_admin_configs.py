"""Configurations over a connection: described and altered, in every version; and what is stored where."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from admin_support import Client, code, create, new_topic, run, versions

from ottla.broker.views.configs import SHOWN_IF_SET
from ottla.config import BROKER as BROKER_TABLE
from ottla.errors import ErrorCode, KafkaError
from ottla.metadata.store import StoreError

TOPIC, BROKER, LOGGER, CLIENT_METRICS, GROUP = 2, 4, 8, 16, 32
SET, DELETE, APPEND, SUBTRACT = range(4)


async def describe(
    client: Client, kind: int, name: str, *keys: str, version: int = 4, synonyms: bool = True
) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """The result for one resource, and its entries by name."""
    resource = {"resource_type": kind, "resource_name": name, "configuration_keys": keys or None}
    fields = {"resources": [resource], "include_synonyms": synonyms, "include_documentation": True}
    (result,) = (await client.ask("DescribeConfigs", version, fields))["results"]
    assert (result["resource_type"], result["resource_name"]) == (kind, name)
    return result, {entry["name"]: entry for entry in result["configs"]}


def resource(kind: int, name: str, configs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {"resource_type": kind, "resource_name": name, "configs": configs}


async def alter(
    client: Client, kind: int, name: str, *changes: tuple[str, int, str | None], version: int = 1, **more: Any
) -> dict[str, Any]:
    """IncrementalAlterConfigs of one resource; its result."""
    configs = [{"name": key, "config_operation": op, "value": value} for key, op, value in changes]
    fields = {"resources": [resource(kind, name, configs)], "validate_only": False} | more
    (result,) = (await client.ask("IncrementalAlterConfigs", version, fields))["responses"]
    made: dict[str, Any] = result
    return made


async def replace(
    client: Client, kind: int, name: str, configs: Mapping[str, str | None], version: int = 2, **more: Any
) -> dict[str, Any]:
    """AlterConfigs of one resource; its result."""
    pairs = [{"name": key, "value": value} for key, value in configs.items()]
    fields = {"resources": [resource(kind, name, pairs)], "validate_only": False} | more
    (result,) = (await client.ask("AlterConfigs", version, fields))["responses"]
    made: dict[str, Any] = result
    return made


def me(client: Client) -> str:
    return str(client.node.node_id)


def stored(client: Client, topic: str) -> dict[str, str]:
    return dict(client.node.services.metadata.image.topics[topic].configs)


# DescribeConfigs


@pytest.mark.parametrize("version", versions("DescribeConfigs"))
def test_topics_are_described(tmp_path: Path, version: int) -> None:
    async def body(client: Client) -> None:
        await create(client, new_topic("t", configs={"retention.ms": " +1000"}))
        result, entries = await describe(client, TOPIC, "t", version=version)
        assert code(result) == "none"
        retention, segment, policy = (entries[n] for n in ("retention.ms", "segment.bytes", "cleanup.policy"))
        assert (retention["value"], retention["config_source"], retention["read_only"]) == ("1000", 1, False)
        assert (segment["value"], segment["config_source"]) == ("2000000", 4)
        assert [(s["name"], s["value"], s["source"]) for s in segment["synonyms"]] == [
            ("log.segment.bytes", "2000000", 4),
            ("log.segment.bytes", str(1024**3), 5),
        ]
        assert (policy["value"], policy["config_source"], policy["is_sensitive"]) == ("delete", 5, False)
        assert "internal.segment.bytes" not in entries
        if version >= 3:
            assert (retention["config_type"], policy["config_type"], segment["config_type"]) == (5, 7, 3)
            assert "segments are dropped" in retention["documentation"]

    run(tmp_path, body, {"log.segment.bytes": "2000000"})


@pytest.mark.parametrize("version", versions("DescribeConfigs"))
def test_the_broker_is_described(tmp_path: Path, version: int) -> None:
    async def body(client: Client) -> None:
        result, entries = await describe(client, BROKER, me(client), version=version)
        assert code(result) == "none"
        assert (entries["node.id"]["value"], entries["node.id"]["read_only"]) == (me(client), True)
        assert (entries["message.max.bytes"]["value"], entries["message.max.bytes"]["read_only"]) == (
            "7777",
            False,
        )
        assert entries["message.max.bytes"]["config_source"] == 4
        assert entries["num.io.threads"]["value"] == "8"
        # What we do not know may be a secret, and passwords are.
        for name in ("of.a.plugin", "ssl.key.password"):
            assert (entries[name]["value"], entries[name]["is_sensitive"]) == (None, True)

    run(tmp_path, body, {"message.max.bytes": "7777", "of.a.plugin": "secret", "ssl.key.password": "secret"})


def test_what_kafka_hides_is_described_where_it_is_set(tmp_path: Path) -> None:
    """ConfigHelper shows originals and what is not internal; rates of replication are dynamic only."""

    async def body(client: Client) -> None:
        _, entries = await describe(client, BROKER, me(client))
        assert SHOWN_IF_SET & set(entries) == {"leader.imbalance.per.broker.percentage"}
        assert set(BROKER_TABLE) >= SHOWN_IF_SET
        rate = "leader.replication.throttled.rate"
        assert code(await alter(client, BROKER, me(client), (rate, SET, "1000"))) == "none"
        _, entries = await describe(client, BROKER, me(client))
        assert entries[rate]["value"] == "1000"

    run(tmp_path, body, {"leader.imbalance.per.broker.percentage": "20"})


def test_only_the_names_that_are_asked_for_are_described(tmp_path: Path) -> None:
    async def body(client: Client) -> None:
        await create(client, new_topic("t"))
        _, entries = await describe(client, TOPIC, "t", "retention.ms", "no.such", synonyms=False)
        assert list(entries) == ["retention.ms"]
        assert entries["retention.ms"]["synonyms"] == []
        _, entries = await describe(client, BROKER, me(client), "num.partitions")
        assert list(entries) == ["num.partitions"]

    run(tmp_path, body)


@pytest.mark.parametrize(
    ("kind", "name", "expected", "message"),
    [
        (TOPIC, "none", "unknown_topic_or_partition", None),
        (TOPIC, "a b", "invalid_topic_exception", "Topic name is invalid"),
        (BROKER, "77", "invalid_request", "Unexpected broker id, expected"),
        (BROKER, "x", "invalid_request", "Broker id must be an integer, but it is: x"),
        (LOGGER, "", "invalid_request", "Broker id must not be empty"),
        (LOGGER, "x", "invalid_request", "Broker id must be an integer, but it is: x"),
        (LOGGER, "77", "invalid_request", "Unexpected broker id, expected"),
        (GROUP, "", "invalid_request", "Group name must not be empty"),
        (CLIENT_METRICS, "", "invalid_request", "must not be empty"),
        (99, "x", "invalid_request", "Unsupported resource type: 99"),
    ],
)
def test_resources_that_are_not_there(
    tmp_path: Path, kind: int, name: str, expected: str, message: str | None
) -> None:
    async def body(client: Client) -> None:
        result, entries = await describe(client, kind, name)
        assert (code(result), entries) == (expected, {})
        assert (message or "") in (result["error_message"] or "")

    run(tmp_path, body)


# IncrementalAlterConfigs


@pytest.mark.parametrize("version", versions("IncrementalAlterConfigs"))
def test_single_configurations_change(tmp_path: Path, version: int) -> None:
    async def body(client: Client) -> None:
        await create(client, new_topic("t", configs={"retention.ms": "1", "flush.ms": "2"}))
        changes = [
            ("retention.ms", SET, "5"),
            ("flush.ms", DELETE, None),
            ("cleanup.policy", APPEND, "compact"),
        ]
        assert code(await alter(client, TOPIC, "t", *changes, version=version)) == "none"
        assert stored(client, "t") == {"retention.ms": "5", "cleanup.policy": "delete,compact"}
        log = client.node.services.replicas.partitions["t", 0].log
        assert (log.config.retention_ms, log.config.cleanup_policy) == (5, ("delete", "compact"))
        changes = [("cleanup.policy", SUBTRACT, "delete"), ("segment.ms", DELETE, None)]
        assert code(await alter(client, TOPIC, "t", *changes, version=version)) == "none"
        assert stored(client, "t")["cleanup.policy"] == "compact"

    run(tmp_path, body)


@pytest.mark.parametrize(
    ("kind", "name", "changes", "expected", "message"),
    [
        (TOPIC, "t", [("no.such", SET, "1")], "invalid_config", "Unknown topic config name: no.such"),
        (TOPIC, "t", [("retention.ms", SET, "x")], "invalid_config", "Not a number of type LONG"),
        (
            TOPIC,
            "t",
            [("retention.ms", SET, None)],
            "invalid_request",
            "Null value not supported for : retention.ms",
        ),
        (TOPIC, "t", [("retention.ms", APPEND, "1")], "invalid_config", "Can't APPEND to key retention.ms"),
        (TOPIC, "t", [("retention.ms", 9, "1")], "invalid_request", "Unknown operations type 9"),
        (
            TOPIC,
            "t",
            [("flush.ms", SET, "1"), ("flush.ms", SET, "2")],
            "invalid_request",
            "duplicate config keys",
        ),
        (TOPIC, "t", [("cleanup.policy", APPEND, "keep")], "invalid_config", "String must be one of"),
        (
            TOPIC,
            "none",
            [("retention.ms", SET, "1")],
            "unknown_topic_or_partition",
            "The topic 'none' does not exist.",
        ),
        (
            TOPIC,
            "",
            [("retention.ms", SET, "1")],
            "invalid_request",
            "Default topic resources are not allowed.",
        ),
        (BROKER, "77", [("message.max.bytes", SET, "1")], "invalid_request", "Unexpected broker id"),
        (
            BROKER,
            "",
            [("num.partitions", SET, "2")],
            "invalid_request",
            "Cannot update these configs dynamically",
        ),
        (BROKER, "", [("message.max.bytes", SET, "-1")], "invalid_request", "Value must be at least 0"),
        (
            BROKER,
            "",
            [("listeners", SET, "PLAINTEXT://:1")],
            "invalid_request",
            "Cannot update these configs",
        ),
        (99, "x", [], "invalid_request", "Unknown resource type 99"),
    ],
)
def test_changes_that_kafka_refuses(
    tmp_path: Path,
    kind: int,
    name: str,
    changes: list[tuple[str, int, str | None]],
    expected: str,
    message: str,
) -> None:
    async def body(client: Client) -> None:
        await create(client, new_topic("t"))
        result = await alter(client, kind, name, *changes, ("segment.ms", SET, "7"))
        assert code(result) == expected
        assert message in (result["error_message"] or "")
        # A resource is changed whole or not at all.
        assert stored(client, "t") == {}

    run(tmp_path, body)


def test_each_resource_has_its_own_answer(tmp_path: Path) -> None:
    async def body(client: Client) -> None:
        await create(client, new_topic("a"), new_topic("b"))
        one = [{"name": "retention.ms", "config_operation": SET, "value": "5"}]
        bad = [{"name": "retention.ms", "config_operation": SET, "value": "x"}]
        resources = [resource(TOPIC, "a", one), resource(TOPIC, "b", bad)]
        fields = {"resources": resources, "validate_only": False}
        answer = await client.ask("IncrementalAlterConfigs", 1, fields)
        assert [code(result) for result in answer["responses"]] == ["none", "invalid_config"]
        assert stored(client, "a") == {"retention.ms": "5"}
        resources = [resource(TOPIC, "a", one), resource(TOPIC, "a", one), resource(TOPIC, "b", one)]
        answer = await client.ask("IncrementalAlterConfigs", 1, fields | {"resources": resources})
        assert [code(result) for result in answer["responses"]] == [
            "invalid_request",
            "invalid_request",
            "none",
        ]
        assert answer["responses"][0]["error_message"] == "Each resource must appear at most once."

    run(tmp_path, body)


def test_the_rest_of_many_changes_is_not_tried_where_the_store_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def body(client: Client) -> None:
        names = [f"t{number}" for number in range(20)]
        await create(client, *map(new_topic, names))
        tried = 0

        async def fail(*_: Any) -> None:
            nonlocal tried
            tried += 1
            raise StoreError("out of reach")

        monkeypatch.setattr(client.node.services.metadata.controller._store, "txn", fail)
        change = {"name": "flush.ms", "config_operation": SET, "value": "5"}
        fields = {"resources": [resource(TOPIC, name, [change]) for name in names], "validate_only": False}
        results = (await client.ask("IncrementalAlterConfigs", 1, fields))["responses"]
        assert [(r["resource_name"], code(r)) for r in results] == [(n, "request_timed_out") for n in names]
        assert tried == 1

    run(tmp_path, body)


def test_validate_only_changes_nothing(tmp_path: Path) -> None:
    async def body(client: Client) -> None:
        await create(client, new_topic("t"))
        change = ("retention.ms", SET, "5")
        assert code(await alter(client, TOPIC, "t", change, validate_only=True)) == "none"
        assert code(await alter(client, TOPIC, "t", ("no", SET, "5"), validate_only=True)) == "invalid_config"
        assert code(await replace(client, TOPIC, "t", {"flush.ms": "1"}, validate_only=True)) == "none"
        assert stored(client, "t") == {}

    run(tmp_path, body)


def test_broker_configurations_reach_the_logs_at_once_and_stay(tmp_path: Path) -> None:
    async def change(client: Client) -> None:
        await create(client, new_topic("t"), new_topic("own", configs={"max.message.bytes": "9"}))
        assert code(await alter(client, BROKER, "", ("message.max.bytes", SET, "2000"))) == "none"
        assert code(await alter(client, BROKER, me(client), ("log.segment.bytes", SET, "3000000"))) == "none"
        await check(client)

    async def check(client: Client) -> None:
        partitions = client.node.services.replicas.partitions
        assert partitions["t", 0].log.config.max_message_bytes == 2000
        assert partitions["own", 0].log.config.max_message_bytes == 9
        assert partitions["t", 0].log.config.segment_bytes == 3_000_000
        _, entries = await describe(client, BROKER, me(client))
        synonyms = [(s["value"], s["source"]) for s in entries["message.max.bytes"]["synonyms"]]
        assert synonyms == [("2000", 3), ("1048588", 5)]
        _, entries = await describe(client, BROKER, "")
        assert list(entries) == ["message.max.bytes", "min.insync.replicas"]
        assert entries["message.max.bytes"]["config_source"] == 3
        _, entries = await describe(client, TOPIC, "t", "segment.bytes")
        assert entries["segment.bytes"]["config_source"] == 2

    run(tmp_path, change)
    run(tmp_path, check)


def test_one_min_isr_counts_for_the_whole_cluster(tmp_path: Path) -> None:
    """It is a record from the start, which topics show as where theirs comes from."""

    async def body(client: Client) -> None:
        await create(client, new_topic("t"))
        _, entries = await describe(client, TOPIC, "t", "min.insync.replicas")
        entry = entries["min.insync.replicas"]
        assert (entry["value"], entry["config_source"]) == ("3", 3)
        assert [(s["value"], s["source"]) for s in entry["synonyms"]] == [("3", 3), ("3", 4), ("1", 5)]
        for operation, value in ((SET, "2"), (DELETE, None)):
            answer = await alter(client, BROKER, me(client), ("min.insync.replicas", operation, value))
            assert (code(answer), answer["error_message"]) == (
                "invalid_config",
                "Broker-level min.insync.replicas cannot be altered while ELR is enabled.",
            )
        answer = await alter(client, BROKER, "", ("min.insync.replicas", DELETE, None))
        assert (code(answer), answer["error_message"]) == (
            "invalid_config",
            "Cluster-level min.insync.replicas cannot be removed while ELR is enabled.",
        )
        assert code(await alter(client, BROKER, "", ("min.insync.replicas", SET, "2"))) == "none"
        partition = client.node.services.replicas.get("t", 0)
        assert partition.log.config.min_insync_replicas == 2

    run(tmp_path, body, {"min.insync.replicas": "3"})


def test_the_limit_of_connections_can_change_while_the_broker_runs(tmp_path: Path) -> None:
    async def body(client: Client) -> None:
        assert code(await alter(client, BROKER, "", ("max.connections", SET, "1"))) == "none"
        reader, writer = await asyncio.open_connection(*client.node.address)
        assert await reader.read() == b""
        writer.close()
        assert code(await alter(client, BROKER, "", ("max.connections", DELETE, None))) == "none"
        reader, writer = await asyncio.open_connection(*client.node.address)
        answer = await Client(client.node, reader, writer).ask("ListConfigResources", 0)
        assert code(answer) == "none"
        writer.close()

    run(tmp_path, body)


def test_what_has_no_effect_is_said_in_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def body(client: Client) -> None:
        await create(client, new_topic("t", configs={"preallocate": "true"}))
        assert code(await alter(client, BROKER, "", ("log.cleaner.threads", SET, "2"))) == "none"

    run(tmp_path, body)
    assert "topic t: preallocate has no effect: segments grow as they are written" in caplog.text
    assert "log.cleaner.threads has no effect: one task compacts all logs" in caplog.text


# AlterConfigs


@pytest.mark.parametrize("version", versions("AlterConfigs"))
def test_all_configurations_are_replaced(tmp_path: Path, version: int) -> None:
    async def body(client: Client) -> None:
        await create(client, new_topic("t", configs={"retention.ms": "1", "flush.ms": "2"}))
        assert code(await replace(client, TOPIC, "t", {"segment.ms": "3"}, version)) == "none"
        assert stored(client, "t") == {"segment.ms": "3"}
        result = await replace(client, TOPIC, "t", {"segment.ms": None}, version)
        assert (code(result), result["error_message"]) == (
            "invalid_request",
            "Null value not supported for : segment.ms",
        )
        assert code(await replace(client, TOPIC, "t", {}, version)) == "none"
        assert stored(client, "t") == {}
        one = {"min.insync.replicas": "1"}
        assert code(await replace(client, BROKER, "", {"message.max.bytes": "5", **one}, version)) == "none"
        assert client.node.config.get("message.max.bytes") == 5
        assert code(await replace(client, BROKER, "", {}, version)) == "invalid_config"
        assert code(await replace(client, BROKER, "", one, version)) == "none"
        assert client.node.config.get("message.max.bytes") == 1048588
        assert code(await replace(client, LOGGER, "1", {}, version)) == "invalid_request"

    run(tmp_path, body)


# ListConfigResources


def test_resources_are_listed(tmp_path: Path) -> None:
    async def body(client: Client) -> None:
        await create(client, new_topic("a"), new_topic("b"))
        answer = await client.ask("ListConfigResources", 0)
        assert (code(answer), answer["config_resources"]) == ("none", [])
        answer = await client.ask("ListConfigResources", 1, {"resource_types": []})
        listed = {(r["resource_type"], r["resource_name"]) for r in answer["config_resources"]}
        assert listed == {(TOPIC, "a"), (TOPIC, "b"), (BROKER, me(client)), (LOGGER, me(client))}
        answer = await client.ask("ListConfigResources", 1, {"resource_types": [TOPIC, GROUP]})
        assert {r["resource_name"] for r in answer["config_resources"]} == {"a", "b"}
        answer = await client.ask("ListConfigResources", 1, {"resource_types": [TOPIC, 99]})
        assert (code(answer), answer["config_resources"]) == ("unsupported_version", [])

    run(tmp_path, body)


# DescribeLogDirs


@pytest.mark.parametrize("version", versions("DescribeLogDirs"))
def test_log_dirs(tmp_path: Path, version: int) -> None:
    async def body(client: Client) -> None:
        await create(client, new_topic("a", 2), new_topic("b"))
        (result,) = (await client.ask("DescribeLogDirs", version, {"topics": None}))["results"]
        assert code(result) == "none"
        assert Path(result["log_dir"]) == tmp_path / "data"
        found = {
            (topic["name"], partition["partition_index"]): partition
            for topic in result["topics"]
            for partition in topic["partitions"]
        }
        assert found.keys() == {("a", 0), ("a", 1), ("b", 0)}
        partition = found["a", 0]
        assert (partition["partition_size"], partition["offset_lag"], partition["is_future_key"]) == (
            0,
            0,
            False,
        )
        if version >= 4:
            assert 0 < result["usable_bytes"] <= result["total_bytes"]
        if version >= 5:
            assert result["is_cordoned"] is False
        topics = [{"topic": "a", "partitions": [1, 7]}, {"topic": "none", "partitions": [0]}]
        (result,) = (await client.ask("DescribeLogDirs", version, {"topics": topics}))["results"]
        assert [(t["name"], [p["partition_index"] for p in t["partitions"]]) for t in result["topics"]] == [
            ("a", [1])
        ]
        (result,) = (await client.ask("DescribeLogDirs", version, {"topics": []}))["results"]
        assert result["topics"] == []

    run(tmp_path, body)


def test_a_relative_data_directory_is_told_in_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And that is the path by which AlterReplicaLogDirs knows it."""

    async def body(client: Client) -> None:
        await create(client, new_topic("a"))
        (result,) = (await client.ask("DescribeLogDirs", 4, {"topics": None}))["results"]
        assert result["log_dir"] == str(tmp_path / "here" / "data")
        for path, expected in ((result["log_dir"], "none"), ("here/data", "log_dir_not_found")):
            dirs = [{"path": path, "topics": [{"name": "a", "partitions": [0]}]}]
            answer = await client.ask("AlterReplicaLogDirs", 2, {"dirs": dirs})
            assert [code(p) for r in answer["results"] for p in r["partitions"]] == [expected]

    monkeypatch.chdir(tmp_path)
    run(Path("here"), body)


def test_a_replica_on_another_node_is_not_moved_here(tmp_path: Path) -> None:
    async def body(client: Client) -> None:
        replicas, manager = client.node.services.replicas, client.node.services.log_manager

        def elsewhere(*_: object) -> None:
            raise KafkaError(ErrorCode.not_leader_or_follower)

        replicas.partitions.clear()
        replicas.absent = elsewhere  # type: ignore[method-assign, assignment]
        dirs = [{"path": manager.absolute_path, "topics": [{"name": "a", "partitions": [0]}]}]
        answer = await client.ask("AlterReplicaLogDirs", 2, {"dirs": dirs})
        assert [code(p) for r in answer["results"] for p in r["partitions"]] == ["replica_not_available"]

    run(tmp_path, body)
