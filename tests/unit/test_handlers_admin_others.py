"""Configurations of groups and of subscriptions to clients' metrics, and levels of loggers."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from admin_support import Client, code, run, versions
from test_handlers_admin_configs import (
    APPEND,
    CLIENT_METRICS,
    DELETE,
    GROUP,
    LOGGER,
    SET,
    SUBTRACT,
    alter,
    describe,
    me,
    replace,
    resource,
)

from ottla.broker.api.configs.describe_configs import RESOURCES_AT_ONCE_MAX
from ottla.config import GROUP as GROUP_TABLE
from ottla.config import TOPIC as TOPIC_TABLE
from ottla.errors import ErrorCode, KafkaError
from ottla.metadata.configs import VALUE_BYTES_MAX, ConfigChange, changed


async def listed(client: Client, kind: int) -> list[str]:
    answer = await client.ask("ListConfigResources", 1, {"resource_types": [kind]})
    return [each["resource_name"] for each in answer["config_resources"]]


# Groups


def test_a_group_has_the_brokers_defaults(tmp_path: Path) -> None:
    async def body(client: Client) -> None:
        result, entries = await describe(client, GROUP, "g")
        assert code(result) == "none"
        assert set(entries) == {name for name, entry in GROUP_TABLE.items() if not entry.internal}
        session = entries["consumer.session.timeout.ms"]
        assert (session["value"], session["config_source"], session["config_type"]) == ("50000", 4, 3)
        assert session["documentation"]
        assert [(s["name"], s["value"], s["source"]) for s in session["synonyms"]] == [
            ("group.consumer.session.timeout.ms", "50000", 4),
            ("group.consumer.session.timeout.ms", "45000", 5),
        ]
        assert entries["streams.assignor.name"]["value"] == "sticky"
        assert entries["share.auto.offset.reset"]["value"] == "latest"
        assert entries["share.auto.offset.reset"]["config_source"] == 5
        assert await listed(client, GROUP) == []

    run(tmp_path, body, {"group.consumer.session.timeout.ms": "50000"})


@pytest.mark.parametrize("version", versions("IncrementalAlterConfigs"))
def test_a_groups_configurations_are_kept(tmp_path: Path, version: int) -> None:
    async def body(client: Client) -> None:
        name = "a/group of my own"
        changes = (
            ("consumer.session.timeout.ms", SET, "46000"),
            ("share.isolation.level", SET, "read_committed"),
        )
        assert code(await alter(client, GROUP, name, *changes, version=version, validate_only=True)) == "none"
        assert await listed(client, GROUP) == []
        assert code(await alter(client, GROUP, name, *changes, version=version)) == "none"
        _, entries = await describe(client, GROUP, name, "consumer.session.timeout.ms")
        (entry,) = entries.values()
        assert (entry["value"], entry["config_source"], entry["read_only"]) == ("46000", 8, False)
        assert entry["synonyms"][0]["source"] == 8
        assert await listed(client, GROUP) == [name]
        # An internal one is shown where it is set.
        await alter(client, GROUP, name, ("streams.num.warmup.replicas", SET, "3"))
        _, entries = await describe(client, GROUP, name, "streams.num.warmup.replicas")
        assert entries["streams.num.warmup.replicas"]["value"] == "3"
        gone = [(change[0], DELETE, None) for change in changes]
        gone.append(("streams.num.warmup.replicas", DELETE, None))
        assert code(await alter(client, GROUP, name, *gone)) == "none"
        assert await listed(client, GROUP) == []

    run(tmp_path, body)
    # And they are there after a restart.
    run(tmp_path, lambda client: _set_and_list(client, change=True))
    run(tmp_path, lambda client: _set_and_list(client, change=False))


async def _set_and_list(client: Client, *, change: bool) -> None:
    if change:
        assert code(await replace(client, GROUP, "g", {"share.delivery.count.limit": "7"})) == "none"
        assert code(await replace(client, CLIENT_METRICS, "m", {"interval.ms": "100"})) == "none"
    assert (await listed(client, GROUP), await listed(client, CLIENT_METRICS)) == (["g"], ["m"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"retention.ms": "1"}, "Unknown group config name: retention.ms"),
        ({"consumer.session.timeout.ms": "44999"}, "must be in the range 45000 to 60000 inclusive."),
        ({"consumer.session.timeout.ms": "60001"}, "must be in the range 45000 to 60000 inclusive."),
        ({"consumer.session.timeout.ms": "x"}, "Not a number of type INT"),
        ({"consumer.heartbeat.interval.ms": "0"}, "Value must be at least 1"),
        ({"consumer.heartbeat.interval.ms": "4999"}, "must be in the range 5000 to 15000"),
        ({"share.record.lock.duration.ms": "14999"}, "must be in the range 15000 to 60000"),
        ({"share.delivery.count.limit": "11"}, "must be in the range 2 to 10"),
        ({"share.partition.max.record.locks": "4001"}, "must be in the range 100 to 4000"),
        ({"share.isolation.level": "READ_COMMITTED"}, "String must be one of: read_committed, read_unco"),
        ({"share.auto.offset.reset": "none"}, "The value must be either"),
        ({"share.auto.offset.reset": "by_duration:PT"}, "The value must be either"),
        ({"share.auto.offset.reset": "by_duration:-PT1H"}, "The value must be either"),
        ({"streams.num.standby.replicas": "3"}, "must be less than or equal to 2"),
        ({"streams.num.warmup.replicas": "21"}, "must be less than or equal to 20"),
        ({"streams.task.offset.interval.ms": "14999"}, "must be greater than or equal to 15000"),
        ({"streams.assignor.name": "other"}, "'other' is not a registered task assignor"),
        ({"streams.rack.aware.assignment.tags": "a, a"}, "must not contain duplicate tag keys."),
        ({"errors.deadletterqueue.topic.name": "__x"}, "DLQ topic name must not start with '__'"),
    ],
)
def test_what_a_group_cannot_have(tmp_path: Path, changes: dict[str, str], message: str) -> None:
    async def body(client: Client) -> None:
        good = [("consumer.assignment.interval.ms", SET, "5")]
        result = await alter(client, GROUP, "g", *good, *((k, SET, v) for k, v in changes.items()))
        assert code(result) == "invalid_config"
        assert message in result["error_message"]
        assert await listed(client, GROUP) == []
        assert code(await replace(client, GROUP, "g", changes)) == "invalid_config"

    run(tmp_path, body)


def test_a_groups_session_is_longer_than_its_heartbeat(tmp_path: Path) -> None:
    async def body(client: Client) -> None:
        for kind in ("consumer", "share", "streams"):
            both = {f"{kind}.session.timeout.ms": "45000", f"{kind}.heartbeat.interval.ms": "45000"}
            result = await replace(client, GROUP, "g", both)
            assert code(result) == "invalid_config"
            expected = f"{kind}.session.timeout.ms must be greater than {kind}.heartbeat.interval.ms"
            assert result["error_message"] == expected
            both[f"{kind}.heartbeat.interval.ms"] = "44999"
            assert code(await replace(client, GROUP, "g", both)) == "none"

    kinds = ("consumer", "share", "streams")
    run(tmp_path, body, {f"group.{kind}.max.heartbeat.interval.ms": "60000" for kind in kinds})


@pytest.mark.parametrize("kind", [GROUP, CLIENT_METRICS])
def test_names_and_operations_that_kafka_refuses(tmp_path: Path, kind: int) -> None:
    async def body(client: Client) -> None:
        name = "streams.rack.aware.assignment.tags" if kind == GROUP else "metrics"
        assert code(await alter(client, kind, "", (name, SET, "a"))) == "invalid_request"
        for operation, word in ((APPEND, "APPEND"), (SUBTRACT, "SUBTRACT")):
            result = await alter(client, kind, "g", (name, operation, "a"))
            assert code(result) == "invalid_config"
            assert result["error_message"] == f"Can't {word} to key {name} because its type is not LIST."
        assert code(await alter(client, kind, "g", (name, 9, "a"))) == "invalid_request"
        assert code(await alter(client, kind, "g", (name, SET, None))) == "invalid_request"
        assert code(await alter(client, kind, "g", (name, SET, "a"), (name, SET, "b"))) == "invalid_request"
        assert code(await alter(client, kind, "g", (name, DELETE, None))) == "none"
        assert await listed(client, kind) == []

    run(tmp_path, body)


# Clients' metrics


def test_subscriptions_to_clients_metrics(tmp_path: Path) -> None:
    async def body(client: Client) -> None:
        _, entries = await describe(client, CLIENT_METRICS, "m")
        assert {name: entry["value"] for name, entry in entries.items()} == {
            "interval.ms": "300000",
            "match": "",
            "metrics": "",
        }
        assert {entry["config_source"] for entry in entries.values()} == {5}
        changes = [
            ("interval.ms", SET, "1000"),
            ("metrics", SET, "org.apache.kafka.producer., *"),
            ("match", SET, "client_software_name=Java,client_id = a.*,client_source_port=90[0-9]+="),
        ]
        assert code(await alter(client, CLIENT_METRICS, "m", *changes)) == "none"
        _, entries = await describe(client, CLIENT_METRICS, "m")
        assert entries["interval.ms"]["value"] == "1000"
        assert entries["interval.ms"]["config_source"] == 7
        assert [(s["value"], s["source"]) for s in entries["interval.ms"]["synonyms"]] == [("1000", 7)]
        assert entries["metrics"]["value"] == "org.apache.kafka.producer.,*"
        answer = await client.ask("ListConfigResources", 0)
        assert [each["resource_name"] for each in answer["config_resources"]] == ["m"]
        assert code(await replace(client, CLIENT_METRICS, "m", {})) == "none"
        assert await listed(client, CLIENT_METRICS) == []

    run(tmp_path, body)


@pytest.mark.parametrize(
    ("changes", "expected", "message"),
    [
        ({"interval": "1"}, "invalid_request", "Unknown client metrics configuration: interval"),
        ({"interval.ms": "99"}, "invalid_request", "interval must be between 100 and 3600000 (1 hour)"),
        ({"interval.ms": "3600001"}, "invalid_request", "Invalid value 3600001 for interval.ms"),
        ({"interval.ms": "a"}, "invalid_config", "Not a number of type INT"),
        ({"match": "client_id"}, "invalid_config", "Illegal client matching pattern: client_id"),
        ({"match": "client_id="}, "invalid_config", "Illegal client matching pattern"),
        ({"match": "client_id=a=b"}, "invalid_config", "Illegal client matching pattern"),
        ({"match": "clients=a"}, "invalid_config", "Illegal client matching pattern"),
        ({"match": "client_id=(a"}, "invalid_config", "Illegal client matching pattern"),
        ({"match": "client_id=" + "(" * 500 + ")" * 490}, "invalid_config", "Illegal client matching"),
        ({"match": "client_id=" + "a" * 2_000}, "invalid_config", "Illegal client matching pattern"),
        ({"match": "client_id=a,,"}, "invalid_config", "values must not be empty"),
        ({"metrics": ","}, "invalid_config", "values must not be empty"),
    ],
)
def test_what_a_subscription_cannot_have(
    tmp_path: Path, changes: dict[str, str], expected: str, message: str
) -> None:
    async def body(client: Client) -> None:
        result = await replace(client, CLIENT_METRICS, "m", changes)
        assert code(result) == expected
        assert message in result["error_message"]
        assert await listed(client, CLIENT_METRICS) == []

    run(tmp_path, body)


# Loggers


@pytest.fixture
def logger() -> Iterator[str]:
    """A logger for the test alone, below another that nobody has made."""
    name = "ottla_test.level.of"
    made = logging.getLogger(name)
    root = logging.root.level
    yield name
    made.setLevel(logging.NOTSET)
    logging.getLogger("ottla_test").setLevel(logging.NOTSET)
    logging.root.setLevel(root)


async def level(client: Client, name: str) -> str:
    result, entries = await describe(client, LOGGER, me(client), name)
    assert code(result) == "none"
    value: str = entries[name]["value"]
    return value


def test_levels_of_loggers_are_shown_set_and_unset(tmp_path: Path, logger: str) -> None:
    async def body(client: Client) -> None:
        _, entries = await describe(client, LOGGER, me(client))
        assert {"root", "ottla.broker", logger, "ottla_test"} <= set(entries)
        assert {(e["config_source"], e["read_only"], e["is_sensitive"]) for e in entries.values()} == {
            (6, False, False)
        }
        logging.root.setLevel(logging.WARNING)
        assert await level(client, logger) == await level(client, "root") == "WARN"
        # Those below take it over, as long as they have none of their own.
        assert code(await alter(client, LOGGER, me(client), ("ottla_test", SET, "DEBUG"))) == "none"
        assert await level(client, logger) == "DEBUG"
        assert logging.getLogger(logger).isEnabledFor(logging.DEBUG)
        for name, number in (("FATAL", 50), ("ERROR", 40), ("INFO", 20), ("TRACE", 5)):
            assert code(await alter(client, LOGGER, me(client), (logger, SET, name))) == "none"
            assert await level(client, logger) == name
            assert logging.getLogger(logger).level == number
        assert code(await alter(client, LOGGER, me(client), (logger, DELETE, None))) == "none"
        assert await level(client, logger) == "DEBUG"
        assert code(await alter(client, LOGGER, me(client), ("root", SET, "ERROR"))) == "none"
        assert logging.root.level == logging.ERROR
        logging.root.setLevel(logging.WARNING)

    run(tmp_path, body)


@pytest.mark.parametrize(
    ("change", "expected", "message"),
    [
        (("ottla.none", SET, "INFO"), "invalid_config", "Logger ottla.none does not exist!"),
        (("ottla.none", DELETE, None), "invalid_config", "Logger ottla.none does not exist!"),
        (("root", SET, "info"), "invalid_config", "DEBUG, ERROR, FATAL, INFO, TRACE, WARN"),
        (("root", DELETE, None), "invalid_request", "Removing the log level of the root logger is not"),
        (("root", APPEND, "INFO"), "invalid_request", "APPEND operation is not allowed for the BROKER_LOG"),
        (("root", SUBTRACT, "INFO"), "invalid_request", "SUBTRACT operation is not allowed for the BR"),
        (("root", 9, "INFO"), "invalid_request", "Unknown operation type 9 is not allowed for the BROKER"),
        (("root", SET, None), "invalid_request", "Null value not supported for : root"),
    ],
)
def test_changes_of_levels_that_kafka_refuses(
    tmp_path: Path, logger: str, change: tuple[str, int, str | None], expected: str, message: str
) -> None:
    async def body(client: Client) -> None:
        before = await level(client, logger)
        result = await alter(client, LOGGER, me(client), (logger, SET, "TRACE"), change)
        assert code(result) == expected
        assert message in result["error_message"]
        assert await level(client, logger) == before

    run(tmp_path, body)


def test_levels_of_other_nodes_and_checks_alone(tmp_path: Path, logger: str) -> None:
    async def body(client: Client) -> None:
        for name, message in (
            ("x", "Node id must be an integer, but it is: x"),
            ("77", "Unexpected node id."),
        ):
            result = await alter(client, LOGGER, name, (logger, SET, "INFO"))
            assert code(result) == "invalid_request"
            assert message in result["error_message"]
        before = await level(client, logger)
        change = (logger, SET, "TRACE")
        assert code(await alter(client, LOGGER, me(client), change, validate_only=True)) == "none"
        assert await level(client, logger) == before
        # What replaces everything cannot be meant for loggers.
        assert code(await replace(client, LOGGER, me(client), {logger: "INFO"})) == "invalid_request"

    run(tmp_path, body)


# Many at once, and large ones


def test_many_resources_are_described_listed_and_changed(tmp_path: Path) -> None:
    async def body(client: Client) -> None:
        names = [f"g{index}" for index in range(300)]
        resources = [
            resource(
                GROUP, name, [{"name": "share.delivery.count.limit", "config_operation": SET, "value": "3"}]
            )
            for name in names
        ]
        fields: dict[str, Any] = {"resources": resources, "validate_only": False}
        answer = await client.ask("IncrementalAlterConfigs", 1, fields)
        assert [code(each) for each in answer["responses"]] == ["none"] * 300
        assert sorted(await listed(client, GROUP)) == sorted(names)
        described = names[: RESOURCES_AT_ONCE_MAX + 1]
        fields = {
            "resources": [
                {"resource_type": GROUP, "resource_name": name, "configuration_keys": None}
                for name in described
            ],
            "include_synonyms": True,
            "include_documentation": True,
        }
        answer = await client.ask("DescribeConfigs", 4, fields)
        assert [each["resource_name"] for each in answer["results"]] == described
        for result in answer["results"]:
            values = {entry["name"]: entry["value"] for entry in result["configs"]}
            assert values["share.delivery.count.limit"] == "3"

    run(tmp_path, body)


def test_a_list_is_measured_in_bytes() -> None:
    """Characters of three bytes: what has no more than 32,767 of them may not fit into a string."""
    value = ",".join(f"\u4e2d{index:03}" for index in range(1_000))
    name = "cleanup.policy"
    made = changed(TOPIC_TABLE, {name: value}, [ConfigChange(name, APPEND, "x" * 100)])
    assert made[name] == f"{value},{'x' * 100}"
    value = "\u4e2d" * 10_900
    with pytest.raises(KafkaError) as caught:
        changed(TOPIC_TABLE, {name: value}, [ConfigChange(name, APPEND, "x" * 100)])
    assert caught.value.code is ErrorCode.invalid_config


def test_a_list_does_not_grow_beyond_what_a_request_can_say(tmp_path: Path) -> None:
    async def body(client: Client) -> None:
        from admin_support import create, new_topic
        from test_handlers_admin_configs import TOPIC

        await create(client, new_topic("t"))
        name = "leader.replication.throttled.replicas"
        for start in (0, 10_000):
            value = ",".join(f"{index}:1" for index in range(start, start + 3_500))
            result = await alter(client, TOPIC, "t", (name, APPEND, value))
        assert len(value) < VALUE_BYTES_MAX
        assert code(result) == "invalid_config"
        assert "exceeds the maximum value size" in result["error_message"]

    run(tmp_path, body)
