"""CreateTopics, DeleteTopics, CreatePartitions and Metadata over a connection, in every version."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from admin_support import NO_ID, Client, code, create, each_version, new_topic, run, versions

ALL_TOPIC_OPERATIONS = 3576
ALL_CLUSTER_OPERATIONS = 8096
OMITTED = -(2**31)


def metadata_fields(*names: str | None, **more: Any) -> dict[str, Any]:
    return {
        "topics": [{"name": name, "topic_id": NO_ID} for name in names],
        "allow_auto_topic_creation": False,
        "include_cluster_authorized_operations": False,
        "include_topic_authorized_operations": False,
    } | more


def topic_id(client: Client, name: str) -> UUID:
    return client.node.services.metadata.image.topics[name].topic_id


# CreateTopics


@pytest.mark.parametrize("version", versions("CreateTopics"))
def test_create_topics(tmp_path: Path, version: int) -> None:
    async def body(client: Client) -> None:
        made, again, twice, bad = await create(
            client,
            new_topic("made", 3, configs={"retention.ms": " +1000", "cleanup.policy": "delete, delete"}),
            new_topic("old"),
            new_topic("twice"),
            new_topic("twice"),
            new_topic("a b"),
            version=version,
        )
        assert [result["name"] for result in (made, again, twice, bad)] == ["made", "old", "twice", "a b"]
        assert [code(result) for result in (made, again, twice, bad)] == [
            "none",
            "topic_already_exists",
            "invalid_request",
            "invalid_topic_exception",
        ]
        assert made["error_message"] is None
        assert again["error_message"] == "Topic 'old' already exists."
        assert twice["error_message"] == "Duplicate topic name."
        topics = client.node.services.metadata.image.topics
        assert topics.keys() == {"old", "made"}
        assert topics["made"].configs == {"retention.ms": " +1000", "cleanup.policy": "delete, delete"}
        if version >= 5:
            assert (made["num_partitions"], made["replication_factor"]) == (3, 1)
            assert (again["num_partitions"], again["configs"]) == (-1, [])
            configs = {entry["name"]: entry for entry in made["configs"]}
            # As they were given, where DescribeConfigs shows what they come to.
            assert configs["retention.ms"]["value"] == " +1000"
            assert configs["cleanup.policy"]["value"] == "delete, delete"
            assert configs["retention.ms"]["config_source"] == 1
            assert configs["segment.bytes"]["value"] == str(1024**3)
            assert configs["segment.bytes"]["config_source"] == 5
            assert list(configs) == sorted(configs)
        if version >= 7:
            assert made["topic_id"] == topics["made"].topic_id
            assert again["topic_id"] is None

    async def prepared(client: Client) -> None:
        await create(client, new_topic("old"))
        await body(client)

    run(tmp_path, prepared)


def test_topics_take_the_broker_s_defaults_and_manual_assignments(tmp_path: Path) -> None:
    async def body(client: Client) -> None:
        node_id = client.node.node_id
        assignments = [
            {"partition_index": 1, "broker_ids": [node_id]},
            {"partition_index": 0, "broker_ids": [node_id]},
        ]
        results = await create(
            client,
            new_topic("defaults", -1, -1),
            new_topic("manual", -1, -1, assignments=assignments),
            new_topic("wrong", -1, -1, assignments=[{"partition_index": 0, "broker_ids": [77]}]),
            new_topic("many", 1, 2),
            new_topic("__cluster_metadata"),
        )
        assert [code(result) for result in results] == [
            "none",
            "none",
            "invalid_replica_assignment",
            "invalid_replication_factor",
            "invalid_request",
        ]
        assert [result["num_partitions"] for result in results[:2]] == [5, 2]

    run(tmp_path, body, {"num.partitions": "5"})


def test_a_request_for_too_many_partitions_is_refused_whole(tmp_path: Path) -> None:
    async def body(client: Client) -> None:
        results = await create(client, new_topic("a"), new_topic("b", 10_000))
        assert [code(result) for result in results] == ["policy_violation"] * 2
        assert not client.node.services.metadata.image.topics

    run(tmp_path, body)


# DeleteTopics


@pytest.mark.parametrize("version", versions("DeleteTopics"))
def test_delete_topics(tmp_path: Path, version: int) -> None:
    async def body(client: Client) -> None:
        await create(client, new_topic("a"), new_topic("b"))
        names = ["a", "none", "b", "b"]
        fields: dict[str, Any] = {"timeout_ms": 1000, "topic_names": names}
        if version >= 6:
            fields["topics"] = [{"name": name, "topic_id": NO_ID} for name in names]
        answer = await client.ask("DeleteTopics", version, fields)
        found = {result["name"]: result for result in answer["responses"]}
        assert {name: code(result) for name, result in found.items()} == {
            "a": "none",
            "none": "unknown_topic_or_partition",
            "b": "invalid_request",
        }
        if version >= 5:
            assert found["b"]["error_message"] == "Duplicate topic name."
        assert client.node.services.metadata.image.topics.keys() == {"b"}

    run(tmp_path, body)


def test_topics_are_deleted_by_id(tmp_path: Path) -> None:
    async def body(client: Client) -> None:
        await create(client, new_topic("a"), new_topic("b"), new_topic("c"))
        ids = {name: topic_id(client, name) for name in "abc"}
        unknown = uuid4()
        targets = [
            {"name": None, "topic_id": ids["a"]},
            {"name": None, "topic_id": unknown},
            {"name": None, "topic_id": NO_ID},
            {"name": "b", "topic_id": ids["b"]},
            {"name": "c", "topic_id": NO_ID},
            {"name": None, "topic_id": ids["c"]},
        ]
        answer = await client.ask("DeleteTopics", 6, {"topics": targets, "timeout_ms": 1000})
        results = [(r["name"], r["topic_id"], code(r)) for r in answer["responses"]]
        assert ("a", ids["a"], "none") in results
        assert (None, unknown, "unknown_topic_id") in results
        assert (None, None, "invalid_request") in results
        assert ("b", ids["b"], "invalid_request") in results
        # By its name and by its id: one answer, and it stays.
        assert [result for result in results if result[1] == ids["c"]] == [("c", ids["c"], "invalid_request")]
        assert len(results) == 5
        assert client.node.services.metadata.image.topics.keys() == {"b", "c"}

    run(tmp_path, body)


@pytest.mark.parametrize(("version", "expected"), [(1, "invalid_request"), (6, "topic_deletion_disabled")])
def test_deletion_can_be_disabled(tmp_path: Path, version: int, expected: str) -> None:
    async def body(client: Client) -> None:
        await create(client, new_topic("a"))
        fields = {"timeout_ms": 1000, "topic_names": ["a"], "topics": [{"name": "a", "topic_id": NO_ID}]}
        answer = await client.ask("DeleteTopics", version, fields)
        assert [code(result) for result in answer["responses"]] == [expected]

    run(tmp_path, body, {"delete.topic.enable": "false"})


def test_a_topic_made_anew_has_another_id_and_no_data(tmp_path: Path) -> None:
    async def body(client: Client) -> None:
        await create(client, new_topic("a", 2))
        before = topic_id(client, "a")
        await client.ask("DeleteTopics", 1, {"timeout_ms": 1000, "topic_names": ["a"]})
        assert not client.node.services.replicas.partitions
        await create(client, new_topic("a", 1))
        assert topic_id(client, "a") != before
        assert list(client.node.services.replicas.partitions) == [("a", 0)]

    run(tmp_path, body)


# CreatePartitions


@pytest.mark.parametrize("version", versions("CreatePartitions"))
def test_create_partitions(tmp_path: Path, version: int) -> None:
    async def body(client: Client) -> None:
        await create(client, new_topic("a", 2), new_topic("b", 2), new_topic("c"))
        node_id = client.node.node_id
        wanted = [
            {"name": "a", "count": 4, "assignments": None},
            {"name": "b", "count": 3, "assignments": [{"broker_ids": [node_id]}]},
            {"name": "none", "count": 3, "assignments": None},
            {"name": "c", "count": 2, "assignments": None},
            {"name": "c", "count": 3, "assignments": None},
        ]
        fields = {"topics": wanted, "timeout_ms": 1000, "validate_only": False}
        answer = await client.ask("CreatePartitions", version, fields)
        assert {result["name"]: code(result) for result in answer["results"]} == {
            "a": "none",
            "b": "none",
            "none": "unknown_topic_or_partition",
            "c": "invalid_request",
        }
        topics = client.node.services.metadata.image.topics
        assert [len(topics[name].partitions) for name in "abc"] == [4, 3, 1]
        fields = {"topics": wanted[:1], "timeout_ms": 1000, "validate_only": False}
        (result,) = (await client.ask("CreatePartitions", version, fields))["results"]
        assert (code(result), result["error_message"]) == (
            "invalid_partitions",
            "Topic already has 4 partition(s).",
        )

    run(tmp_path, body)


# Metadata


@pytest.mark.parametrize("version", versions("Metadata"))
def test_metadata(tmp_path: Path, version: int) -> None:
    async def body(client: Client) -> None:
        await create(client, new_topic("a", 2), new_topic("b"))
        host, port = client.node.address
        node_id = client.node.node_id
        answer = await client.ask("Metadata", version, metadata_fields("b", "a", "b"))
        (broker,) = answer["brokers"]
        assert (broker["node_id"], broker["host"], broker["port"]) == (node_id, host, port)
        assert [topic["name"] for topic in answer["topics"]] == ["b", "a"]
        topic = answer["topics"][1]
        assert code(topic) == "none"
        first, second = topic["partitions"]
        assert (first["partition_index"], second["partition_index"]) == (0, 1)
        assert (first["leader_id"], first["replica_nodes"], first["isr_nodes"]) == (
            node_id,
            [node_id],
            [node_id],
        )
        assert code(first) == "none"
        if version >= 1:
            assert broker["rack"] == "here"
            assert answer["controller_id"] == node_id
            assert topic["is_internal"] is False
        if version >= 2:
            assert answer["cluster_id"] == client.node.services.metadata.image.cluster_id
        if version >= 5:
            assert first["offline_replicas"] == []
        if version >= 7:
            assert first["leader_epoch"] == 0
        if version >= 8:
            assert topic["topic_authorized_operations"] == OMITTED
        if version >= 10:
            assert topic["topic_id"] == topic_id(client, "a")
        if version >= 13:
            assert code(answer) == "none"

    run(tmp_path, body, {"broker.rack": "here"})


@pytest.mark.parametrize(
    ("version", "topics", "expected"),
    [
        (0, [], {"a", "b"}),
        (1, [], set()),
        (1, None, {"a", "b"}),
        (9, None, {"a", "b"}),
        (12, [], set()),
        (13, None, {"a", "b"}),
    ],
)
def test_no_topics_and_all_topics(tmp_path: Path, version: int, topics: Any, expected: set[str]) -> None:
    async def body(client: Client) -> None:
        await create(client, new_topic("a"), new_topic("b"))
        answer = await client.ask("Metadata", version, metadata_fields(topics=topics))
        assert {topic["name"] for topic in answer["topics"]} == expected
        assert answer["brokers"]

    run(tmp_path, body)


@pytest.mark.parametrize("version", versions("Metadata"))
def test_missing_topics_are_made_when_that_is_allowed(tmp_path: Path, version: int) -> None:
    async def body(client: Client) -> None:
        fields = metadata_fields("new", "a/b", allow_auto_topic_creation=True)
        answer = await client.ask("Metadata", version, fields)
        new, bad = answer["topics"]
        assert (code(new), len(new["partitions"])) == ("none", 3)
        assert code(bad) == "invalid_topic_exception"
        answer = await client.ask("Metadata", version, metadata_fields("other"))
        # Before v4 a client cannot say no.
        assert code(answer["topics"][0]) == ("none" if version < 4 else "unknown_topic_or_partition")

    run(tmp_path, body, {"num.partitions": "3"})


def test_missing_topics_are_not_made_where_the_broker_does_not(tmp_path: Path) -> None:
    async def body(client: Client) -> None:
        for version in (0, 4, 12):
            fields = metadata_fields("new", allow_auto_topic_creation=True)
            (topic,) = (await client.ask("Metadata", version, fields))["topics"]
            assert code(topic) == "unknown_topic_or_partition"
            assert topic["partitions"] == []
        assert not client.node.services.metadata.image.topics

    run(tmp_path, body, {"auto.create.topics.enable": "false"})


def test_many_who_ask_for_a_new_topic_get_the_same_one(tmp_path: Path) -> None:
    async def body(client: Client) -> None:
        from admin_support import Client as Raw

        connections = [await asyncio.open_connection(*client.node.address) for _ in range(5)]
        others = [Raw(client.node, *connection) for connection in connections]
        fields = metadata_fields("new", allow_auto_topic_creation=True)
        answers = await asyncio.gather(*(other.ask("Metadata", 12, fields) for other in others))
        assert {answer["topics"][0]["topic_id"] for answer in answers} == {topic_id(client, "new")}
        for other in others:
            other.close()

    run(tmp_path, body)


def test_internal_topics_are_marked_and_made_with_their_settings(tmp_path: Path) -> None:
    async def body(client: Client) -> None:
        fields = metadata_fields("__consumer_offsets", allow_auto_topic_creation=True)
        (topic,) = (await client.ask("Metadata", 9, fields))["topics"]
        assert (code(topic), topic["is_internal"], len(topic["partitions"])) == ("none", True, 50)

    run(tmp_path, body)


@pytest.mark.parametrize("version", [12, 13])
def test_topics_are_found_by_id(tmp_path: Path, version: int) -> None:
    async def body(client: Client) -> None:
        await create(client, new_topic("a"), new_topic("b"))
        known, unknown = topic_id(client, "a"), uuid4()
        topics = [
            {"name": None, "topic_id": known},
            {"name": None, "topic_id": unknown},
            {"name": "b", "topic_id": NO_ID},
        ]
        answer = await client.ask("Metadata", version, metadata_fields(topics=topics))
        found = [(topic["name"], topic["topic_id"], code(topic)) for topic in answer["topics"]]
        assert found == [("a", known, "none"), (None, unknown, "unknown_topic_id")]

    run(tmp_path, body)


@pytest.mark.parametrize("version", [10, 11])
def test_ids_cannot_be_asked_for_before_v12(tmp_path: Path, version: int) -> None:
    async def body(client: Client) -> None:
        for topic in ({"name": "a", "topic_id": uuid4()}, {"name": None, "topic_id": NO_ID}):
            answer = await client.ask("Metadata", version, metadata_fields(topics=[topic]))
            assert [code(topic) for topic in answer["topics"]] == ["invalid_request"]

    run(tmp_path, body)


@pytest.mark.parametrize("version", range(8, 14))
def test_authorized_operations_are_told_when_asked_for(tmp_path: Path, version: int) -> None:
    async def body(client: Client) -> None:
        await create(client, new_topic("a"))
        fields = metadata_fields(
            "a", include_topic_authorized_operations=True, include_cluster_authorized_operations=True
        )
        answer = await client.ask("Metadata", version, fields)
        assert answer["topics"][0]["topic_authorized_operations"] == ALL_TOPIC_OPERATIONS
        if version <= 10:
            assert answer["cluster_authorized_operations"] == ALL_CLUSTER_OPERATIONS
        answer = await client.ask("Metadata", version, metadata_fields("a"))
        assert answer["topics"][0]["topic_authorized_operations"] == OMITTED

    run(tmp_path, body)


@pytest.mark.parametrize("version", [0, 1, 5, 6, 12])
def test_a_replica_that_is_gone_shows(tmp_path: Path, version: int) -> None:
    """A second broker held the topic and led a partition; now it is not there."""

    async def body(client: Client) -> None:
        controller = client.node.services.metadata.controller
        me = client.node.node_id
        await controller.register_broker(9, {"PLAINTEXT": ("gone", 1)}, None, is_controller=False)
        assignments = [
            {"partition_index": 0, "broker_ids": [me, 9]},
            {"partition_index": 1, "broker_ids": [9, me]},
        ]
        await create(client, new_topic("a", -1, -1, assignments=assignments))
        await controller._commit([], [_delete_broker(9)])
        (topic,) = (await client.ask("Metadata", version, metadata_fields("a")))["topics"]
        first, second = topic["partitions"]
        assert (code(second), second["leader_id"]) == ("leader_not_available", -1)
        if version == 0:
            assert (code(first), first["replica_nodes"]) == ("replica_not_available", [me])
        else:
            assert (code(first), first["replica_nodes"]) == ("none", [me, 9])
        if version >= 5:
            assert first["offline_replicas"] == [9]

    run(tmp_path, body)


def test_a_leader_without_the_client_s_listener_shows(tmp_path: Path) -> None:
    async def body(client: Client) -> None:
        controller = client.node.services.metadata.controller
        await controller.register_broker(9, {"OTHER": ("host", 1)}, None, is_controller=False)
        await create(client, new_topic("a", -1, -1, assignments=[{"partition_index": 0, "broker_ids": [9]}]))
        for version, expected in ((5, "leader_not_available"), (6, "listener_not_found")):
            answer = await client.ask("Metadata", version, metadata_fields("a"))
            assert code(answer["topics"][0]["partitions"][0]) == expected
            assert [broker["node_id"] for broker in answer["brokers"]] == [client.node.node_id]

    run(tmp_path, body)


def _delete_broker(node_id: int) -> Any:
    from ottla.metadata import keys
    from ottla.metadata.store import Delete

    return Delete(keys.broker(node_id))


# DescribeTopicPartitions


async def pages(client: Client, topics: list[str], limit: int) -> list[list[tuple[str, list[int]]]]:
    cursor, found = None, []
    while True:
        fields = {
            "topics": [{"name": name} for name in topics],
            "response_partition_limit": limit,
            "cursor": cursor,
        }
        answer = await client.ask("DescribeTopicPartitions", 0, fields)
        found.append(
            [
                (topic["name"], [partition["partition_index"] for partition in topic["partitions"]])
                for topic in answer["topics"]
            ]
        )
        cursor = answer["next_cursor"]
        if cursor is None:
            return found


def test_partitions_come_in_pages(tmp_path: Path) -> None:
    async def body(client: Client) -> None:
        await create(client, new_topic("b", 3), new_topic("a", 2), new_topic("c", 1))
        everything = [("a", [0, 1]), ("b", [0, 1, 2]), ("c", [0])]
        assert await pages(client, [], 2000) == [everything]
        assert await pages(client, [], 2) == [[("a", [0, 1])], [("b", [0, 1])], [("b", [2]), ("c", [0])]]
        assert await pages(client, ["c", "b"], 1) == [[("b", [0])], [("b", [1])], [("b", [2])], [("c", [0])]]
        assert await pages(client, ["a"], 0) == [[("a", [0])], [("a", [1])]]
        assert await pages(client, ["nothing", "c"], 5) == [[("c", [0]), ("nothing", [])]]

    run(tmp_path, body)


def test_partitions_are_described(tmp_path: Path) -> None:
    async def body(client: Client) -> None:
        await create(client, new_topic("a"))
        fields = {"topics": [{"name": "a"}, {"name": "b"}, {"name": "a b"}], "response_partition_limit": 9}
        answer = await client.ask("DescribeTopicPartitions", 0, fields | {"cursor": None})
        topics = {topic["name"]: topic for topic in answer["topics"]}
        assert topics["a"]["topic_id"] == topic_id(client, "a")
        assert topics["a"]["topic_authorized_operations"] == ALL_TOPIC_OPERATIONS
        (partition,) = topics["a"]["partitions"]
        assert partition["isr_nodes"] == partition["replica_nodes"] == [partition["leader_id"]]
        assert code(topics["b"]) == "unknown_topic_or_partition"
        assert code(topics["a b"]) == "invalid_topic_exception"

    run(tmp_path, body)


def test_the_broker_limits_a_page(tmp_path: Path) -> None:
    async def body(client: Client) -> None:
        await create(client, new_topic("a", 5))
        assert await pages(client, [], 2000) == [[("a", [0, 1, 2])], [("a", [3, 4])]]

    run(tmp_path, body, {"max.request.partition.size.limit": "3"})


@pytest.mark.parametrize(
    "cursor", [{"topic_name": "b", "partition_index": 0}, {"topic_name": "a", "partition_index": -1}]
)
def test_a_cursor_that_leads_nowhere_is_refused(tmp_path: Path, cursor: dict[str, Any]) -> None:
    async def body(client: Client) -> None:
        await create(client, new_topic("a"))
        fields = {"topics": [{"name": "a"}], "response_partition_limit": 9, "cursor": cursor}
        answer = await client.ask("DescribeTopicPartitions", 0, fields)
        assert [code(topic) for topic in answer["topics"]] == ["invalid_request"]

    run(tmp_path, body)


# DescribeCluster


@pytest.mark.parametrize(("name", "version"), each_version("DescribeCluster"))
def test_describe_cluster(tmp_path: Path, name: str, version: int) -> None:
    async def body(client: Client) -> None:
        fields = {
            "include_cluster_authorized_operations": True,
            "endpoint_type": 1,
            "include_fenced_brokers": True,
        }
        answer = await client.ask(name, version, fields)
        host, port = client.node.address
        (broker,) = answer["brokers"]
        assert code(answer) == "none"
        assert (broker["broker_id"], broker["host"], broker["port"]) == (client.node.node_id, host, port)
        assert answer["cluster_id"] == client.node.services.metadata.image.cluster_id
        assert answer["controller_id"] == client.node.node_id
        assert answer["cluster_authorized_operations"] == ALL_CLUSTER_OPERATIONS
        if version >= 1:
            for endpoint, expected in ((2, "mismatched_endpoint_type"), (7, "unsupported_endpoint_type")):
                answer = await client.ask(name, version, fields | {"endpoint_type": endpoint})
                assert (code(answer), answer["brokers"]) == (expected, [])
        if version >= 2:
            assert broker["is_fenced"] is False

    run(tmp_path, body)


def test_a_file_where_a_partitions_folder_belongs(tmp_path: Path) -> None:
    """The topic is not made: its producers would wait for a partition that cannot be."""

    async def body(client: Client) -> None:
        data = Path(client.node.config.data_dir)
        (data / "v-0").write_text("somebody's")
        (data / "w-2").write_text("somebody's")
        refused, grown, made = await create(client, new_topic("v"), new_topic("w", 2), new_topic("u"))
        assert [code(one) for one in (refused, grown, made)] == ["kafka_storage_error", "none", "none"]
        assert refused["error_message"] == (
            f"{data}/v-0: what is no partition's folder is in its place: move it away"
        )
        more = {"topics": [{"name": "w", "count": 3, "assignments": None}]}
        answer = await client.ask("CreatePartitions", 3, {**more, "timeout_ms": 1000, "validate_only": False})
        assert code(answer["results"][0]) == "kafka_storage_error"
        await client.ask("Metadata", 12, metadata_fields("v", allow_auto_topic_creation=True))
        assert client.node.services.metadata.image.topics.keys() == {"w", "u"}
        assert len(client.node.services.metadata.image.topics["w"].partitions) == 2
        (data / "v-0").unlink()
        assert code((await create(client, new_topic("v")))[0]) == "none"

    run(tmp_path, body)
