"""kafka-python: the synchronous client, its groups and its admin client."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any
from uuid import UUID

import kafka.codec
import pytest
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, OffsetAndMetadata, TopicPartition
from kafka.admin import ConfigResource, MemberToRemove, OffsetSpec
from kafka.errors import MessageSizeTooLargeError, NoError, TopicAlreadyExistsError

from interop.process import wait_until

CODECS = [None] + [
    codec for codec in ("gzip", "snappy", "lz4", "zstd") if getattr(kafka.codec, f"has_{codec}")()
]

# This client (3.0.12) loses an assignment that arrives just after a short poll gave up waiting for it.
POLL_MS = 1000


@pytest.fixture
def client(bootstrap: str) -> Any:
    admin = KafkaAdminClient(bootstrap_servers=bootstrap)
    yield admin
    admin.close()


def take(consumer: KafkaConsumer, count: int, timeout_s: float = 30.0) -> list[Any]:
    """`count` records, in the order in which poll gave them."""
    got: list[Any] = []
    deadline = time.monotonic() + timeout_s
    while len(got) < count:
        assert time.monotonic() < deadline, f"{len(got)} of {count} records"
        for records in consumer.poll(POLL_MS, max_records=count - len(got)).values():
            got.extend(records)
    return got


def fill(bootstrap: str, topic: str, count: int, partition: int = 0) -> None:
    """`count` records with values 0, 1, … and timestamps 1 s apart."""
    producer = KafkaProducer(bootstrap_servers=bootstrap)
    for i in range(count):
        producer.send(topic, b"%d" % i, partition=partition, timestamp_ms=1000 * i)
    producer.flush()
    producer.close()


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("acks", [0, 1, "all", "idempotent"])
def test_round_trip(
    bootstrap: str, make_topic: Callable[..., str], codec: str | None, acks: int | str
) -> None:
    topic = make_topic()
    config = {"enable_idempotence": True} if acks == "idempotent" else {"acks": acks}
    sent = [
        (
            None if i % 6 == 0 else b"key %d" % i,
            None if i % 6 == 3 else b"x" * (i % 300),
            [("a", b"1"), ("a", b"2"), ("n", b"%d" % i)],
            1_600_000_000_000 + i,
        )
        for i in range(300)
    ]
    producer = KafkaProducer(bootstrap_servers=bootstrap, compression_type=codec, linger_ms=20, **config)
    futures = [
        producer.send(topic, value, key, headers, 0, timestamp_ms)
        for key, value, headers, timestamp_ms in sent
    ]
    producer.flush()
    if acks != 0:
        assert [future.get(20).offset for future in futures] == list(range(300))
    producer.close()
    consumer = KafkaConsumer(bootstrap_servers=bootstrap, auto_offset_reset="earliest")
    consumer.assign([TopicPartition(topic, 0)])
    for i, (got, (key, value, headers, timestamp_ms)) in enumerate(
        zip(take(consumer, 300), sent, strict=True)
    ):
        assert (got.offset, got.key, got.value, got.timestamp) == (i, key, value, timestamp_ms)
        assert list(got.headers) == headers
    consumer.close()


def test_seek_offsets_and_times(bootstrap: str, make_topic: Callable[..., str]) -> None:
    topic = make_topic()
    partition = TopicPartition(topic, 0)
    fill(bootstrap, topic, 50)
    consumer = KafkaConsumer(bootstrap_servers=bootstrap, auto_offset_reset="earliest")
    consumer.assign([partition])
    assert consumer.beginning_offsets([partition]) == {partition: 0}
    assert consumer.end_offsets([partition]) == {partition: 50}
    for timestamp_ms, offset in [(0, 0), (1, 1), (20_000, 20), (49_000, 49)]:
        assert consumer.offsets_for_times({partition: timestamp_ms})[partition].offset == offset
    assert consumer.offsets_for_times({partition: 49_001})[partition] is None
    consumer.seek(partition, 33)
    assert take(consumer, 1)[0].value == b"33"
    consumer.seek_to_end(partition)
    assert consumer.position(partition) == 50
    consumer.seek_to_beginning(partition)
    assert take(consumer, 50)[0].offset == 0
    assert consumer.highwater(partition) == 50
    consumer.close()


def test_too_large(bootstrap: str, make_topic: Callable[..., str]) -> None:
    topic = make_topic(max_message_bytes="5000")
    producer = KafkaProducer(bootstrap_servers=bootstrap, enable_idempotence=False)
    with pytest.raises(MessageSizeTooLargeError):
        producer.send(topic, b"x" * 10_000).get(20)
    assert producer.send(topic, b"x").get(20).offset == 0
    producer.close()


class Member(threading.Thread):
    def __init__(self, bootstrap: str, topic: str, group: str, **config: Any) -> None:
        super().__init__(daemon=True)
        self.consumer = KafkaConsumer(
            topic,
            bootstrap_servers=bootstrap,
            group_id=group,
            auto_offset_reset="earliest",
            heartbeat_interval_ms=200,
            session_timeout_ms=10_000,
            auto_commit_interval_ms=100,
            **config,
        )
        self.values: list[bytes] = []
        self.assigned: set[TopicPartition] = set()
        self.failure: Exception | None = None
        self._leaving = threading.Event()
        self.start()

    def run(self) -> None:
        try:
            while not self._leaving.is_set():
                for records in self.consumer.poll(POLL_MS).values():
                    self.values.extend(record.value for record in records)
                self.assigned = set(self.consumer.assignment())
            self.consumer.close()
        except Exception as failure:  # noqa: BLE001 - shown by leave() in the test's own thread
            self.failure = failure

    def leave(self) -> None:
        self._leaving.set()
        self.join(60)
        assert not self.is_alive()
        if self.failure is not None:
            raise self.failure


def test_rebalancing(bootstrap: str, make_topic: Callable[..., str], name: str) -> None:
    topic = make_topic(4)
    sent: list[bytes] = []
    producer = KafkaProducer(bootstrap_servers=bootstrap)

    def send(count: int) -> None:
        for _ in range(count):
            value = b"%d" % len(sent)
            producer.send(topic, value, partition=len(sent) % 4)
            sent.append(value)
        producer.flush()

    first = Member(bootstrap, topic, name)
    wait_until(lambda: len(first.assigned) == 4, what="the first member owns all")
    send(40)
    second = Member(bootstrap, topic, name)
    wait_until(
        lambda: len(first.assigned) == 2 == len(second.assigned) and not first.assigned & second.assigned,
        what="two members share",
    )
    send(40)
    second.leave()
    wait_until(lambda: len(first.assigned) == 4, what="the first member owns all again")
    send(40)
    wait_until(lambda: set(first.values) | set(second.values) == set(sent), what="all messages read")
    first.leave()
    producer.close()


def test_commits(bootstrap: str, make_topic: Callable[..., str], name: str) -> None:
    topic = make_topic()
    partition = TopicPartition(topic, 0)
    fill(bootstrap, topic, 10)
    config = {"bootstrap_servers": bootstrap, "group_id": name, "auto_offset_reset": "earliest"}
    consumer = KafkaConsumer(topic, enable_auto_commit=False, **config)
    assert take(consumer, 1)[0].offset == 0
    assert consumer.committed(partition) is None
    consumer.commit({partition: OffsetAndMetadata(6, "note", -1)})
    found = consumer.committed(partition, metadata=True)
    assert (found.offset, found.metadata) == (6, "note")
    consumer.close(autocommit=False)
    consumer = KafkaConsumer(topic, **config)
    assert take(consumer, 1)[0].offset == 6
    consumer.close()


def test_admin_topics_and_configs(client: KafkaAdminClient, name: str) -> None:
    client.create_topics({name: {"num_partitions": 2, "configs": {"retention.ms": "1000"}}})
    with pytest.raises(TopicAlreadyExistsError):
        client.create_topics([name])
    (described,) = client.describe_topics([name])
    assert len(described["partitions"]) == 2
    (by_id,) = client.describe_topics([UUID(str(described["topic_id"]))])
    assert by_id["name"] == name
    client.create_partitions({name: 3})
    found = client.describe_topic_partitions([name], response_partition_limit=2)
    assert [len(topic["partitions"]) for topic in found["topics"]] == [2]
    assert found["next_cursor"]["partition_index"] == 2
    rest = client.describe_topic_partitions([name], cursor=found["next_cursor"])
    assert [p["partition_index"] for p in rest["topics"][0]["partitions"]] == [2]
    assert rest["next_cursor"] is None

    def config() -> dict[str, Any]:
        resource = ConfigResource("TOPIC", name)
        return client.describe_configs([resource], config_filter="all")["topic"][name]

    assert config()["retention.ms"]["value"] == "1000"
    client.alter_configs([ConfigResource("TOPIC", name, {"segment.bytes": "1234567"})])
    assert config()["segment.bytes"]["value"] == "1234567"
    client.reset_configs([ConfigResource("TOPIC", name, ["retention.ms"])])
    assert config()["retention.ms"]["value"] == "604800000"
    assert config()["segment.bytes"]["value"] == "1234567"
    assert name in client.list_config_resources(["TOPIC"])["topic"]
    client.delete_topics([name])
    assert name not in client.list_topics()


def test_admin_records_and_log_dirs(
    bootstrap: str, client: KafkaAdminClient, make_topic: Callable[..., str]
) -> None:
    topic = make_topic()
    fill(bootstrap, topic, 10)
    partition = TopicPartition(topic, 0)
    for spec, offset in [
        (OffsetSpec.EARLIEST, 0),
        (OffsetSpec.LATEST, 10),
        (OffsetSpec.MAX_TIMESTAMP, 9),
        (4500, 5),
    ]:
        assert client.list_partition_offsets({partition: spec})[partition].offset == offset
    client.delete_records({partition: 4})
    assert client.list_partition_offsets({partition: OffsetSpec.EARLIEST})[partition].offset == 4
    (broker,) = client.describe_log_dirs([topic])
    sizes = [
        part["partition_size"]
        for folder in broker["log_dirs"]
        for entry in folder["topics"]
        for part in entry["partitions"]
        if entry["name"] == topic
    ]
    assert len(sizes) == 1
    assert sizes[0] > 100
    assert client.describe_cluster()["cluster_id"]


def test_admin_groups(
    bootstrap: str, client: KafkaAdminClient, make_topic: Callable[..., str], name: str
) -> None:
    topic = make_topic()
    fill(bootstrap, topic, 10)
    partition = TopicPartition(topic, 0)
    member = Member(bootstrap, topic, name, group_instance_id="one")
    wait_until(lambda: len(member.values) == 10, what="all messages read")
    described = client.describe_groups([name])[name]
    assert described["group_state"] == "Stable"
    assert [found["group_instance_id"] for found in described["members"]] == ["one"]
    assert name in [group["group_id"] for group in client.list_groups()]
    member.leave()
    removed = client.remove_group_members(name, [MemberToRemove(group_instance_id="one")])
    assert list(removed.values()) == [NoError]
    assert client.list_group_offsets(name)[name][partition].offset == 10
    assert client.alter_group_offsets(name, {partition: OffsetAndMetadata(3, "m", -1)}) == {
        partition: NoError
    }
    found = client.list_group_offsets(name)[name][partition]
    assert (found.offset, found.metadata) == (3, "m")
    assert client.delete_group_offsets(name, [partition]) == {partition: NoError}
    assert partition not in client.list_group_offsets(name)[name]
    client.alter_group_offsets(name, {partition: OffsetAndMetadata(3, "m", -1)})
    assert client.delete_groups([name]) == {name: "OK"}
    assert name not in [group["group_id"] for group in client.list_groups()]
