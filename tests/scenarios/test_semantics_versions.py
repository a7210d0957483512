"""Every API at every version that we serve: a sensible request gets a sensible answer, byte for byte.

The messages are encoded and decoded by the same tables as the broker's, which have their own tests against
kio's; what is tested here is that no handler forgets a version.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import test_security_versions
import test_transactions_offsets
import test_transactions_versions
from confluent_kafka.admin import AdminClient

from interop.process import BrokerProcess
from interop.raw import RawClient, batch, fetch_fields, produce_fields
from ottla.errors import ErrorCode
from ottla.wire import records
from ottla.wire.apis import APIS, BY_NAME

NO_ID = UUID(int=0)
TOPIC, CONFIG_BROKER = 2, 4


def versions(api: str) -> Any:
    found = BY_NAME[api]
    return pytest.mark.parametrize("version", range(found.version_min, found.version_max + 1))


@pytest.fixture(scope="module")
def broker(ottla_process_module: Callable[..., BrokerProcess]) -> BrokerProcess:
    return ottla_process_module()


@pytest.fixture
def client(broker: BrokerProcess) -> Iterator[RawClient]:
    with RawClient(broker.bootstrap) as connection:
        yield connection


@pytest.fixture
def topic(client: RawClient, name: str) -> str:
    assert client.create_topic(name, 2).error_code == 0
    return name


@pytest.fixture
def topic_id(client: RawClient, topic: str) -> UUID:
    answer = client.call("Metadata", 12, **metadata_fields(topic))
    found: UUID = answer.topics[0].topic_id
    assert found != NO_ID
    return found


def metadata_fields(*names: str) -> dict[str, Any]:
    return {
        "topics": [{"topic_id": NO_ID, "name": name} for name in names],
        "allow_auto_topic_creation": False,
        "include_cluster_authorized_operations": False,
        "include_topic_authorized_operations": False,
    }


def test_every_api_is_tested() -> None:
    """Here, or with the transactions, or with security."""
    elsewhere = (test_transactions_versions, test_transactions_offsets, test_security_versions)
    tested = set(globals()).union(*map(vars, elsewhere))
    assert [api.name for api in APIS.values() if f"test_{api.schema}" not in tested] == []


@versions("Produce")
def test_produce(client: RawClient, topic: str, topic_id: UUID, version: int) -> None:
    fields = produce_fields(topic, batch(b"a", b"b"), partition=1)
    fields["topic_data"][0]["topic_id"] = topic_id
    answer = client.call("Produce", version, **fields)
    (partition,) = answer.responses[0].partition_responses
    assert (partition.index, partition.error_code, partition.base_offset) == (1, 0, 0)
    assert partition.log_append_time_ms == -1
    if version >= 5:
        assert partition.log_start_offset == 0
    assert client.values(topic, partition=1) == [b"a", b"b"]


@versions("Fetch")
def test_fetch(client: RawClient, topic: str, topic_id: UUID, version: int) -> None:
    client.produce(topic, batch(b"a"), partition=1)
    client.produce(topic, batch(b"b"), partition=1)
    fields = fetch_fields(topic, 1, partition=1)
    fields["topics"][0]["topic_id"] = topic_id
    (answered,) = client.call("Fetch", version, **fields).responses
    if version >= 13:
        assert answered.topic_id == topic_id
    else:
        assert answered.topic == topic
    (partition,) = answered.partitions
    assert (partition.partition_index, partition.error_code, partition.high_watermark) == (1, 0, 2)
    assert partition.last_stable_offset == 2
    (found,) = records.iter_batches(partition.records)
    assert [bytes(r.value or b"") for r in records.iter_records(found[1])] == [b"b"]


@versions("ListOffsets")
def test_list_offsets(client: RawClient, topic: str, version: int) -> None:
    client.produce(topic, batch(b"a", timestamp_ms=1000))
    client.produce(topic, batch(b"b", timestamp_ms=3000))
    client.produce(topic, batch(b"c", timestamp_ms=2000))

    def ask(timestamp_ms: int) -> tuple[int, int]:
        partition = {"partition_index": 0, "current_leader_epoch": -1, "timestamp": timestamp_ms}
        topics = [{"name": topic, "partitions": [partition]}]
        answer = client.call(
            "ListOffsets", version, replica_id=-1, isolation_level=0, topics=topics, timeout_ms=1000
        )
        (found,) = answer.topics[0].partitions
        if found.error_code:
            return int(found.error_code), 0
        return found.timestamp, found.offset

    assert ask(-1) == (-1, 3)
    assert ask(-2) == (-1, 0)
    assert ask(1001) == (3000, 1)
    assert ask(1000) == (1000, 0)
    assert ask(3001) == (-1, -1)
    if version >= 7:
        assert ask(-3) == (3000, 1)


@versions("Metadata")
def test_metadata(broker: BrokerProcess, client: RawClient, topic: str, topic_id: UUID, version: int) -> None:
    answer = client.call("Metadata", version, **metadata_fields(topic))
    (node,) = answer.brokers
    assert f"{node.host}:{node.port}" == broker.bootstrap
    (found,) = answer.topics
    assert (found.name, found.error_code) == (topic, 0)
    assert sorted(p.partition_index for p in found.partitions) == [0, 1]
    for partition in found.partitions:
        nodes = (node.node_id,)
        assert (partition.leader_id, partition.replica_nodes, partition.isr_nodes) == (
            node.node_id,
            nodes,
            nodes,
        )
    if version >= 1:
        assert answer.controller_id == node.node_id
        assert not found.is_internal
    if version >= 10:
        assert found.topic_id == topic_id
    everything = {**metadata_fields(), "topics": () if version == 0 else None}
    assert topic in [entry.name for entry in client.call("Metadata", version, **everything).topics]
    if version >= 1:
        assert client.call("Metadata", version, **metadata_fields()).topics == ()
    if version >= 12:
        by_id = {**metadata_fields(), "topics": [{"topic_id": topic_id, "name": None}]}
        assert client.call("Metadata", version, **by_id).topics[0].name == topic
    if version >= 4:
        unknown = client.call("Metadata", version, **metadata_fields(f"{topic}-none")).topics[0]
        assert unknown.error_code == ErrorCode.unknown_topic_or_partition


def find_coordinator(client: RawClient, group: str) -> None:
    client.call("FindCoordinator", 4, key_type=0, coordinator_keys=[group])


def commit_fields(group: str, topic: str, topic_id: UUID, offset: int) -> dict[str, Any]:
    partition = {
        "partition_index": 1,
        "committed_offset": offset,
        "committed_leader_epoch": 0,
        "committed_metadata": "note",
    }
    return {
        "group_id": group,
        "generation_id_or_member_epoch": -1,
        "member_id": "",
        "group_instance_id": None,
        "retention_time_ms": -1,
        "topics": [{"name": topic, "topic_id": topic_id, "partitions": [partition]}],
    }


def commit(
    client: RawClient, group: str, topic: str, offset: int, version: int = 9, topic_id: UUID = NO_ID
) -> int:
    answer = client.call("OffsetCommit", version, **commit_fields(group, topic, topic_id, offset))
    (found,) = answer.topics[0].partitions
    return int(found.error_code)


@versions("OffsetCommit")
def test_offset_commit(client: RawClient, topic: str, topic_id: UUID, name: str, version: int) -> None:
    find_coordinator(client, name)
    assert commit(client, name, topic, 17, version, topic_id) == 0
    fields = {"groups": [{"group_id": name, "member_id": None, "member_epoch": -1, "topics": None}]}
    answer = client.call("OffsetFetch", 9, **fields, require_stable=False)
    (partition,) = answer.groups[0].topics[0].partitions
    assert (partition.partition_index, partition.committed_offset, partition.metadata) == (1, 17, "note")


@versions("OffsetFetch")
def test_offset_fetch(client: RawClient, topic: str, topic_id: UUID, name: str, version: int) -> None:
    find_coordinator(client, name)
    assert commit(client, name, topic, 17) == 0
    topics = [{"name": topic, "topic_id": topic_id, "partition_indexes": [0, 1]}]
    group = {"group_id": name, "member_id": None, "member_epoch": -1, "topics": topics}
    answer = client.call(
        "OffsetFetch", version, group_id=name, topics=topics, groups=[group], require_stable=False
    )
    found = answer.groups[0] if version >= 8 else answer
    if version >= 2:
        assert found.error_code == 0
    offsets = {p.partition_index: (p.committed_offset, p.metadata) for p in found.topics[0].partitions}
    assert offsets == {0: (-1, ""), 1: (17, "note")}
    if version >= 2:
        answer = client.call(
            "OffsetFetch",
            version,
            group_id=name,
            topics=None,
            groups=[{**group, "topics": None}],
            require_stable=False,
        )
        found = answer.groups[0] if version >= 8 else answer
        assert [p.partition_index for p in found.topics[0].partitions] == [1]


@versions("FindCoordinator")
def test_find_coordinator(broker: BrokerProcess, client: RawClient, name: str, version: int) -> None:
    answer = client.call("FindCoordinator", version, key=name, key_type=0, coordinator_keys=[name])
    found = answer.coordinators[0] if version >= 4 else answer
    assert (found.error_code, f"{found.host}:{found.port}") == (0, broker.bootstrap)


def join_fields(group: str, member_id: str) -> dict[str, Any]:
    return {
        "group_id": group,
        "session_timeout_ms": 10_000,
        "rebalance_timeout_ms": 10_000,
        "member_id": member_id,
        "group_instance_id": None,
        "protocol_type": "consumer",
        "protocols": [{"name": "range", "metadata": b"subscription"}],
        "reason": None,
    }


def join(client: RawClient, group: str, version: int = 9) -> Any:
    """A new member that becomes the leader of an empty group."""
    find_coordinator(client, group)
    answer = client.call("JoinGroup", version, **join_fields(group, ""))
    if version >= 4:
        assert answer.error_code == ErrorCode.member_id_required
        answer = client.call("JoinGroup", version, **join_fields(group, answer.member_id))
    assert answer.error_code == 0
    return answer


def sync(client: RawClient, group: str, joined: Any, version: int = 5) -> Any:
    return client.call(
        "SyncGroup",
        version,
        group_id=group,
        generation_id=joined.generation_id,
        member_id=joined.member_id,
        group_instance_id=None,
        protocol_type="consumer",
        protocol_name="range",
        assignments=[{"member_id": joined.member_id, "assignment": b"yours"}],
    )


def heartbeat(client: RawClient, group: str, joined: Any, version: int = 4) -> int:
    answer = client.call(
        "Heartbeat",
        version,
        group_id=group,
        generation_id=joined.generation_id,
        member_id=joined.member_id,
        group_instance_id=None,
    )
    return int(answer.error_code)


@versions("JoinGroup")
def test_join_group(client: RawClient, name: str, version: int) -> None:
    joined = join(client, name, version)
    assert joined.generation_id == 1
    assert joined.protocol_name == "range"
    assert joined.leader == joined.member_id
    assert [(m.member_id, m.metadata) for m in joined.members] == [(joined.member_id, b"subscription")]


@versions("SyncGroup")
def test_sync_group(client: RawClient, name: str, version: int) -> None:
    synced = sync(client, name, join(client, name), version)
    assert (synced.error_code, synced.assignment) == (0, b"yours")


@versions("Heartbeat")
def test_heartbeat(client: RawClient, name: str, version: int) -> None:
    joined = join(client, name)
    sync(client, name, joined)
    assert heartbeat(client, name, joined, version) == 0
    assert heartbeat(client, name, joined._replace(generation_id=7), version) == ErrorCode.illegal_generation
    assert heartbeat(client, name, joined._replace(member_id="x"), version) == ErrorCode.unknown_member_id


@versions("LeaveGroup")
def test_leave_group(client: RawClient, name: str, version: int) -> None:
    joined = join(client, name)
    sync(client, name, joined)
    member = {"member_id": joined.member_id, "group_instance_id": None, "reason": "done"}
    answer = client.call("LeaveGroup", version, group_id=name, member_id=joined.member_id, members=[member])
    assert answer.error_code == 0
    if version >= 3:
        assert [m.error_code for m in answer.members] == [0]
    assert heartbeat(client, name, joined) == ErrorCode.unknown_member_id


@versions("DescribeGroups")
def test_describe_groups(client: RawClient, name: str, version: int) -> None:
    joined = join(client, name)
    sync(client, name, joined)
    fields = {"groups": [name, f"{name}-none"], "include_authorized_operations": False}
    found, none = client.call("DescribeGroups", version, **fields).groups
    assert (found.error_code, found.group_id, found.group_state) == (0, name, "Stable")
    assert (found.protocol_type, found.protocol_data) == ("consumer", "range")
    (member,) = found.members
    assert (member.member_id, member.client_id) == (joined.member_id, "raw")
    assert (member.member_metadata, member.member_assignment) == (b"subscription", b"yours")
    assert none.group_state == "Dead"
    assert none.error_code == (ErrorCode.group_id_not_found if version >= 6 else 0)


@versions("ListGroups")
def test_list_groups(client: RawClient, name: str, version: int) -> None:
    sync(client, name, join(client, name))

    def listed(states: list[str], types: list[str]) -> list[Any]:
        answer = client.call("ListGroups", version, states_filter=states, types_filter=types)
        assert answer.error_code == 0
        return [group for group in answer.groups if group.group_id == name]

    (group,) = listed([], [])
    assert group.protocol_type == "consumer"
    if version >= 4:
        assert group.group_state == "Stable"
        assert listed(["stable"], [])
        assert not listed(["Empty"], [])
    if version >= 5:
        assert group.group_type == "classic"
        assert listed([], ["Classic"])
        assert not listed([], ["consumer"])


@versions("DeleteGroups")
def test_delete_groups(client: RawClient, topic: str, name: str, version: int) -> None:
    find_coordinator(client, name)
    assert commit(client, name, topic, 1) == 0
    busy = f"{name}-busy"
    sync(client, busy, join(client, busy))
    answer = client.call("DeleteGroups", version, groups_names=[name, busy, f"{name}-none"])
    codes = {result.group_id: result.error_code for result in answer.results}
    assert codes == {
        name: 0,
        busy: ErrorCode.non_empty_group,
        f"{name}-none": ErrorCode.group_id_not_found,
    }


@versions("OffsetDelete")
def test_offset_delete(client: RawClient, topic: str, name: str, version: int) -> None:
    find_coordinator(client, name)
    assert commit(client, name, topic, 1) == 0
    topics = [{"name": topic, "partitions": [{"partition_index": 1}]}]
    answer = client.call("OffsetDelete", version, group_id=name, topics=topics)
    assert (answer.error_code, answer.topics[0].partitions[0].error_code) == (0, 0)
    fields = {"groups": [{"group_id": name, "member_id": None, "member_epoch": -1, "topics": None}]}
    assert client.call("OffsetFetch", 9, **fields, require_stable=False).groups[0].topics == ()


@versions("ApiVersions")
def test_api_versions(client: RawClient, version: int) -> None:
    answer = client.call("ApiVersions", version, client_software_name="raw", client_software_version="1.0")
    assert answer.error_code == 0
    listed = {entry.api_key: (entry.min_version, entry.max_version) for entry in answer.api_keys}
    # Of telemetry only while somebody reads it.
    assert set(listed) == {api.key for api in APIS.values() if api.room != "telemetry"}
    assert listed[0] == (0, 13)
    assert listed[1] == (4, 18)
    if version >= 3:
        assert {one.name for one in answer.finalized_features} >= {"metadata.version"}
        assert answer.finalized_features_epoch >= 1


@versions("CreateTopics")
def test_create_topics(client: RawClient, name: str, version: int) -> None:
    def create(**change: Any) -> Any:
        topic = {"name": name, "num_partitions": 2, "replication_factor": 1, "assignments": []}
        fields = {"topics": [{**topic, "configs": [], **change}], "timeout_ms": 5000}
        return client.call("CreateTopics", version, **fields, validate_only=False).topics[0]

    made = create(configs=[{"name": "retention.ms", "value": "1234"}])
    assert (made.name, made.error_code) == (name, 0)
    if version >= 5:
        assert (made.num_partitions, made.replication_factor) == (2, 1)
        assert {c.name: c.value for c in made.configs}["retention.ms"] == "1234"
    if version >= 7:
        assert made.topic_id != NO_ID
    assert create().error_code == ErrorCode.topic_already_exists
    node = client.call("Metadata", 12, **metadata_fields()).brokers[0].node_id
    placed = [{"partition_index": i, "broker_ids": [node]} for i in range(3)]
    manual = create(name=f"{name}-m", num_partitions=-1, replication_factor=-1, assignments=placed)
    assert manual.error_code == 0
    if version >= 4:
        assert create(name=f"{name}-d", num_partitions=-1, replication_factor=-1).error_code == 0


@versions("DeleteTopics")
def test_delete_topics(client: RawClient, topic: str, version: int) -> None:
    fields = {"topic_names": [topic], "topics": [{"name": topic, "topic_id": NO_ID}], "timeout_ms": 5000}
    (answer,) = client.call("DeleteTopics", version, **fields).responses
    assert (answer.name, answer.error_code) == (topic, 0)
    (answer,) = client.call("DeleteTopics", version, **fields).responses
    assert answer.error_code == ErrorCode.unknown_topic_or_partition
    fetched = client.fetch(topic)
    assert fetched.error_code == ErrorCode.unknown_topic_or_partition


@versions("DeleteRecords")
def test_delete_records(client: RawClient, topic: str, version: int) -> None:
    client.produce(topic, batch(b"a", b"b", b"c"))
    topics = [{"name": topic, "partitions": [{"partition_index": 0, "offset": 2}]}]
    answer = client.call("DeleteRecords", version, topics=topics, timeout_ms=5000)
    (partition,) = answer.topics[0].partitions
    assert (partition.error_code, partition.low_watermark) == (0, 2)
    assert client.fetch(topic, 1).error_code == ErrorCode.offset_out_of_range
    assert client.fetch(topic, 2).error_code == 0


@versions("InitProducerId")
def test_init_producer_id(client: RawClient, version: int) -> None:
    fields = {"transaction_timeout_ms": 1000, "producer_id": -1, "producer_epoch": -1}
    ids = set()
    for _ in range(3):
        answer = client.call("InitProducerId", version, transactional_id=None, **fields)
        assert (answer.error_code, answer.producer_epoch) == (0, 0)
        ids.add(answer.producer_id)
    assert len(ids) == 3


@versions("ConsumerGroupHeartbeat")
def test_consumer_group_heartbeat(client: RawClient, version: int) -> None:
    """As of a Kafka whose groups are classic ones only."""
    fields = dict.fromkeys(("instance_id", "rack_id", "subscribed_topic_names", "subscribed_topic_regex"))
    fields |= dict.fromkeys(("server_assignor", "topic_partitions"))
    answer = client.call(
        "ConsumerGroupHeartbeat",
        version,
        group_id="g",
        member_id="m",
        member_epoch=0,
        rebalance_timeout_ms=-1,
        **fields,
    )
    assert answer.error_code == ErrorCode.unsupported_version


@versions("OffsetForLeaderEpoch")
def test_offset_for_leader_epoch(client: RawClient, topic: str, version: int) -> None:
    client.produce(topic, batch(b"a", b"b"))

    def ask(leader_epoch: int, current: int = -1) -> tuple[int, int, int]:
        partition = {"partition": 0, "current_leader_epoch": current, "leader_epoch": leader_epoch}
        topics = [{"topic": topic, "partitions": [partition]}]
        answer = client.call("OffsetForLeaderEpoch", version, replica_id=-1, topics=topics)
        (found,) = answer.topics[0].partitions
        return found.error_code, found.leader_epoch, found.end_offset

    assert ask(0) == (0, 0, 2)
    assert ask(0, 0) == (0, 0, 2)
    assert ask(5) == (0, -1, -1)
    assert ask(0, 3)[0] == ErrorCode.unknown_leader_epoch


@versions("DescribeConfigs")
def test_describe_configs(client: RawClient, topic: str, version: int) -> None:
    node = client.call("Metadata", 12, **metadata_fields()).brokers[0].node_id

    def describe(kind: int, name: str, keys: list[str] | None) -> Any:
        resource = {"resource_type": kind, "resource_name": name, "configuration_keys": keys}
        answer = client.call(
            "DescribeConfigs",
            version,
            resources=[resource],
            include_synonyms=True,
            include_documentation=True,
        )
        return answer.results[0]

    found = describe(TOPIC, topic, ["segment.bytes", "no.such"])
    assert [(c.name, c.value) for c in found.configs] == [("segment.bytes", "1073741824")]
    assert [(s.name, s.value) for s in found.configs[0].synonyms] == [("log.segment.bytes", "1073741824")]
    if version >= 3:
        assert found.configs[0].documentation
    assert len(describe(TOPIC, topic, None).configs) > 20
    assert describe(TOPIC, f"{topic}-none", None).error_code == ErrorCode.unknown_topic_or_partition
    whole = describe(CONFIG_BROKER, str(node), None)
    assert whole.error_code == 0
    assert len(whole.configs) > 100
    assert describe(CONFIG_BROKER, str(node + 1), None).error_code == ErrorCode.invalid_request


@versions("AlterConfigs")
def test_alter_configs(client: RawClient, topic: str, version: int) -> None:
    def alter(value: str) -> int:
        resource = {"resource_type": TOPIC, "resource_name": topic}
        configs = [{"name": "retention.ms", "value": value}]
        answer = client.call(
            "AlterConfigs", version, resources=[{**resource, "configs": configs}], validate_only=False
        )
        return int(answer.responses[0].error_code)

    assert alter("5555") == 0
    assert alter("x") == ErrorCode.invalid_config
    assert topic_config(client, topic, "retention.ms") == "5555"


def topic_config(client: RawClient, topic: str, key: str) -> str | None:
    resource = {"resource_type": TOPIC, "resource_name": topic, "configuration_keys": [key]}
    fields = {"resources": [resource], "include_synonyms": False, "include_documentation": False}
    value: str | None = client.call("DescribeConfigs", 4, **fields).results[0].configs[0].value
    return value


@versions("IncrementalAlterConfigs")
def test_incremental_alter_configs(client: RawClient, topic: str, version: int) -> None:
    def alter(value: str, *, dry: bool) -> int:
        resource = {"resource_type": TOPIC, "resource_name": topic}
        configs = [{"name": "retention.ms", "config_operation": 0, "value": value}]
        answer = client.call(
            "IncrementalAlterConfigs",
            version,
            resources=[{**resource, "configs": configs}],
            validate_only=dry,
        )
        return int(answer.responses[0].error_code)

    assert alter("5555", dry=False) == 0
    assert alter("6666", dry=True) == 0
    assert alter("x", dry=True) == ErrorCode.invalid_config
    assert topic_config(client, topic, "retention.ms") == "5555"


@versions("DescribeLogDirs")
def test_describe_log_dirs(broker: BrokerProcess, client: RawClient, topic: str, version: int) -> None:
    client.produce(topic, batch(bytes(1000)), partition=1)
    topics = [{"topic": topic, "partitions": [0, 1]}]
    (folder,) = client.call("DescribeLogDirs", version, topics=topics).results
    assert (folder.error_code, folder.log_dir) == (0, str(broker.data))
    sizes = {p.partition_index: p.partition_size for p in folder.topics[0].partitions}
    assert sizes[0] == 0
    assert sizes[1] > 1000
    everything = client.call("DescribeLogDirs", version, topics=None).results[0]
    assert topic in [entry.name for entry in everything.topics]


@versions("AlterReplicaLogDirs")
def test_alter_replica_log_dirs(broker: BrokerProcess, client: RawClient, topic: str, version: int) -> None:
    def move(path: str, *indexes: int) -> dict[int, int]:
        dirs = [{"path": path, "topics": [{"name": topic, "partitions": list(indexes)}]}]
        (answered,) = client.call("AlterReplicaLogDirs", version, dirs=dirs).results
        assert answered.topic_name == topic
        return {p.partition_index: int(p.error_code) for p in answered.partitions}

    assert move(str(broker.data), 0, 1) == {0: 0, 1: 0}
    assert move(str(broker.data), 0, 9) == {0: 0, 9: ErrorCode.unknown_topic_or_partition}
    assert move(f"{broker.data}/elsewhere", 0) == {0: ErrorCode.log_dir_not_found}


@versions("CreatePartitions")
def test_create_partitions(client: RawClient, topic: str, version: int) -> None:
    def grow(count: int, *, dry: bool = False) -> int:
        topics = [{"name": topic, "count": count, "assignments": None}]
        answer = client.call("CreatePartitions", version, topics=topics, timeout_ms=5000, validate_only=dry)
        return int(answer.results[0].error_code)

    assert grow(4, dry=True) == 0
    assert len(client.call("Metadata", 12, **metadata_fields(topic)).topics[0].partitions) == 2
    assert grow(4) == 0
    assert len(client.call("Metadata", 12, **metadata_fields(topic)).topics[0].partitions) == 4
    assert grow(4) == ErrorCode.invalid_partitions
    assert client.produce(topic, batch(b"v"), partition=3).error_code == 0


@versions("UpdateFeatures")
def test_update_features(client: RawClient, version: int) -> None:
    def update(level: int) -> Any:
        feature = {"feature": "metadata.version", "max_version_level": level}
        asked = [{**feature, "allow_downgrade": False, "upgrade_type": 1}]
        fields = {"timeout": 1000, "feature_updates": asked, "validate_only": True}
        return client.call("UpdateFeatures", version, **fields)

    taken, refused = update(30), update(31)
    assert (taken.error_code, taken.error_message) == (0, None)
    if version < 2:
        assert [(one.feature, one.error_code) for one in taken.results] == [("metadata.version", 0)]
        assert refused.results == ()
    assert refused.error_code == ErrorCode.invalid_update_version
    assert refused.error_message.endswith("Local controller 1 only supports versions 7-30")


@versions("DescribeCluster")
def test_describe_cluster(broker: BrokerProcess, client: RawClient, version: int) -> None:
    answer = client.call(
        "DescribeCluster",
        version,
        include_cluster_authorized_operations=False,
        endpoint_type=1,
        include_fenced_brokers=False,
    )
    (node,) = answer.brokers
    assert (answer.error_code, answer.controller_id) == (0, node.broker_id)
    assert f"{node.host}:{node.port}" == broker.bootstrap
    assert answer.cluster_id


@versions("DescribeProducers")
def test_describe_producers(client: RawClient, topic: str, version: int) -> None:
    client.produce(topic, batch(b"a", b"b", producer_id=9, producer_epoch=0, base_sequence=0))
    topics = [{"name": topic, "partition_indexes": [0, 1]}]
    one, none = client.call("DescribeProducers", version, topics=topics).topics[0].partitions
    (producer,) = one.active_producers
    assert (producer.producer_id, producer.producer_epoch, producer.last_sequence) == (9, 0, 1)
    assert none.active_producers == ()


@versions("ListConfigResources")
def test_list_config_resources(client: RawClient, topic: str, version: int) -> None:
    answer = client.call("ListConfigResources", version, resource_types=[TOPIC, CONFIG_BROKER])
    assert answer.error_code == 0
    if version >= 1:
        found = {(r.resource_type, r.resource_name) for r in answer.config_resources}
        assert (TOPIC, topic) in found
        assert {kind for kind, _ in found} == {TOPIC, CONFIG_BROKER}


@versions("GetTelemetrySubscriptions")
def test_get_telemetry_subscriptions(client: RawClient, version: int) -> None:
    answer = client.call("GetTelemetrySubscriptions", version, client_instance_id=NO_ID)
    assert (answer.error_code, answer.requested_metrics) == (0, ()) and answer.client_instance_id != NO_ID
    again = client.call("GetTelemetrySubscriptions", version, client_instance_id=answer.client_instance_id)
    assert again.error_code == ErrorCode.throttling_quota_exceeded


@versions("PushTelemetry")
def test_push_telemetry(client: RawClient, version: int) -> None:
    asked = client.call("GetTelemetrySubscriptions", 0, client_instance_id=NO_ID)
    fields = {"terminating": True, "compression_type": 0, "metrics": b""}
    for instance_id, expected in ((NO_ID, ErrorCode.invalid_request), (asked.client_instance_id, 0)):
        answer = client.call(
            "PushTelemetry",
            version,
            client_instance_id=instance_id,
            subscription_id=asked.subscription_id,
            **fields,
        )
        assert answer.error_code == expected


@versions("DescribeTopicPartitions")
def test_describe_topic_partitions(client: RawClient, topic: str, topic_id: UUID, version: int) -> None:
    fields = {"topics": [{"name": topic}, {"name": f"{topic}-none"}], "response_partition_limit": 1}
    answer = client.call("DescribeTopicPartitions", version, **fields, cursor=None)
    (found,) = answer.topics[:1]
    assert (found.error_code, found.topic_id, len(found.partitions)) == (0, topic_id, 1)
    assert (answer.next_cursor.topic_name, answer.next_cursor.partition_index) == (topic, 1)
    cursor = {"topic_name": topic, "partition_index": 1}
    rest = client.call(
        "DescribeTopicPartitions", version, **{**fields, "response_partition_limit": 9}, cursor=cursor
    )
    assert [p.partition_index for p in rest.topics[0].partitions] == [1]
    assert rest.topics[1].error_code == ErrorCode.unknown_topic_or_partition
    assert rest.next_cursor is None


@versions("ElectLeaders")
def test_elect_leaders(client: RawClient, topic: str, version: int) -> None:
    asked = [{"topic": topic, "partitions": [0, 7]}]
    answer = client.call("ElectLeaders", version, election_type=0, topic_partitions=asked, timeout_ms=1000)
    (found,) = answer.replica_election_results
    errors = {one.partition_id: one.error_code for one in found.partition_result}
    assert (found.topic, errors) == (
        topic,
        {0: ErrorCode.election_not_needed, 7: ErrorCode.unknown_topic_or_partition},
    )
    if version >= 1:
        assert answer.error_code == 0
    answer = client.call("ElectLeaders", version, election_type=0, topic_partitions=None, timeout_ms=1000)
    assert list(answer.replica_election_results) == []


@versions("AlterPartitionReassignments")
def test_alter_partition_reassignments(client: RawClient, topic: str, version: int) -> None:
    wishes: list[tuple[int, list[int] | None]] = [(0, [1]), (1, [1, 2]), (2, None)]
    partitions = [{"partition_index": index, "replicas": replicas} for index, replicas in wishes]
    answer = client.call(
        "AlterPartitionReassignments",
        version,
        timeout_ms=1000,
        allow_replication_factor_change=True,
        topics=[{"name": topic, "partitions": partitions}],
    )
    assert answer.error_code == 0
    (found,) = answer.responses
    assert (found.name, [(one.partition_index, one.error_code) for one in found.partitions]) == (
        topic,
        [(0, 0), (1, ErrorCode.invalid_replica_assignment), (2, ErrorCode.unknown_topic_or_partition)],
    )
    if version >= 1:
        assert answer.allow_replication_factor_change


@versions("ListPartitionReassignments")
def test_list_partition_reassignments(client: RawClient, topic: str, version: int) -> None:
    for asked in (None, [{"name": topic, "partition_indexes": [0, 1, 9]}]):
        answer = client.call("ListPartitionReassignments", version, timeout_ms=1000, topics=asked)
        assert (answer.error_code, list(answer.topics)) == (0, [])


@versions("UnregisterBroker")
def test_unregister_broker(client: RawClient, version: int) -> None:
    assert (
        client.call("UnregisterBroker", version, broker_id=9).error_code == ErrorCode.broker_id_not_registered
    )
    assert client.call("UnregisterBroker", version, broker_id=1).error_code == ErrorCode.invalid_request


def test_an_ipv6_listener(tmp_path: Path) -> None:
    """The line that says where it listens can be given to a client as it is."""
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no IPv6 loopback")
    broker = BrokerProcess(tmp_path)
    broker.host = "[::1]"
    with broker:
        told = (tmp_path / "broker.1.stdout").read_text().strip()
        assert told == f"ottla: listening on [::1]:{broker.port}"
        admin = AdminClient({"bootstrap.servers": told.removeprefix("ottla: listening on ")})
        assert list(admin.list_topics(timeout=60).brokers) != []
