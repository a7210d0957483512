"""librdkafka through confluent-kafka: producing, consuming, groups and admin calls."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable
from typing import Any

import pytest
from confluent_kafka import (
    OFFSET_BEGINNING,
    OFFSET_END,
    OFFSET_INVALID,
    TIMESTAMP_CREATE_TIME,
    TIMESTAMP_LOG_APPEND_TIME,
    Consumer,
    ConsumerGroupState,
    ConsumerGroupTopicPartitions,
    KafkaError,
    KafkaException,
    Message,
    Producer,
    TopicCollection,
    TopicPartition,
)
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewPartitions,
    NewTopic,
    OffsetSpec,
    ResourceType,
)

from interop.process import wait_until
from measuring import not_waiting

CODECS = ["none", "gzip", "snappy", "lz4", "zstd"]


def produce(bootstrap: str, topic: str, messages: list[dict[str, Any]], **config: Any) -> list[Message]:
    """Send `messages` and give their delivery reports, in the order of delivery."""
    reports: list[tuple[KafkaError | None, Message]] = []
    producer = Producer({"bootstrap.servers": bootstrap, **config})
    for message in messages:
        producer.produce(topic, on_delivery=lambda error, done: reports.append((error, done)), **message)
    assert producer.flush(30) == 0
    assert [error for error, _ in reports if error is not None] == []
    return [message for _, message in reports]


def consume(consumer: Consumer, count: int, timeout_s: float = 30.0) -> list[Message]:
    """Exactly `count` messages, then make sure that no further one is at hand."""
    got: list[Message] = []
    deadline = time.monotonic() + timeout_s
    while len(got) < count:
        assert time.monotonic() < deadline, f"{len(got)} of {count} messages"
        for message in consumer.consume(count - len(got), 0.5):
            assert message.error() is None, message.error()
            got.append(message)
    return got


def reader(bootstrap: str, *partitions: TopicPartition, **config: Any) -> Consumer:
    """A consumer that is assigned `partitions`, without group management."""
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": f"g-{uuid.uuid4().hex}",
            "enable.auto.commit": False,
            "auto.offset.reset": "error",
            **config,
        }
    )
    consumer.assign(list(partitions))
    return consumer


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("acks", ["0", "1", "all", "idempotent"])
def test_round_trip(bootstrap: str, make_topic: Callable[..., str], codec: str, acks: str) -> None:
    topic = make_topic()
    config = {"acks": "all", "enable.idempotence": True} if acks == "idempotent" else {"acks": acks}
    messages = [
        {
            "key": None if i % 7 == 0 else f"key {i}".encode(),
            "value": None if i % 11 == 0 else b"x" * (i % 300),
            "headers": [("a", b"1"), ("a", b"2"), ("nothing", None), ("n", str(i).encode())],
            "timestamp": 1_600_000_000_000 + i,
            "partition": 0,
        }
        for i in range(500)
    ]
    produce(bootstrap, topic, messages, **config, **{"compression.type": codec, "linger.ms": 20})
    consumer = reader(bootstrap, TopicPartition(topic, 0, OFFSET_BEGINNING))
    got = consume(consumer, len(messages))
    for i, (sent, message) in enumerate(zip(messages, got, strict=True)):
        assert message.offset() == i
        assert message.key() == sent["key"]
        assert message.value() == sent["value"]
        assert message.headers() == sent["headers"]
        assert message.timestamp() == (TIMESTAMP_CREATE_TIME, sent["timestamp"])
    consumer.close()


def test_delivery_reports_carry_offsets(bootstrap: str, make_topic: Callable[..., str]) -> None:
    topic = make_topic()
    reports = produce(bootstrap, topic, [{"value": b"%d" % i} for i in range(100)], acks="all")
    assert [report.offset() for report in reports] == list(range(100))


def test_big_messages(bootstrap: str, make_topic: Callable[..., str]) -> None:
    topic = make_topic(max_message_bytes=str(8 << 20))
    values = [bytes([i]) * (i << 20) for i in range(1, 7)]
    produce(
        bootstrap,
        topic,
        [{"value": value} for value in values],
        **{"message.max.bytes": 10 << 20, "acks": "all"},
    )
    consumer = reader(
        bootstrap,
        TopicPartition(topic, 0, OFFSET_BEGINNING),
        **{"fetch.message.max.bytes": 1 << 20, "receive.message.max.bytes": 100 << 20},
    )
    assert [message.value() for message in consume(consumer, len(values))] == values
    consumer.close()


def test_message_larger_than_the_topic_allows(bootstrap: str, make_topic: Callable[..., str]) -> None:
    topic = make_topic(max_message_bytes="10000")
    errors: list[KafkaError | None] = []
    producer = Producer({"bootstrap.servers": bootstrap, "message.max.bytes": 1_000_000})
    producer.produce(topic, b"x" * 20_000, on_delivery=lambda error, _: errors.append(error))
    assert producer.flush(20) == 0
    assert [error and error.code() for error in errors] == [KafkaError.MSG_SIZE_TOO_LARGE]


def test_log_append_time(bootstrap: str, make_topic: Callable[..., str]) -> None:
    topic = make_topic(message_timestamp_type="LogAppendTime")
    before_ms = int(time.time() * 1000)
    reports = produce(bootstrap, topic, [{"value": b"v", "timestamp": 1000}] * 3)
    after_ms = int(time.time() * 1000)
    consumer = reader(bootstrap, TopicPartition(topic, 0, OFFSET_BEGINNING))
    for message in reports + consume(consumer, 3):
        kind, timestamp_ms = message.timestamp()
        assert kind == TIMESTAMP_LOG_APPEND_TIME
        assert before_ms <= timestamp_ms <= after_ms
    consumer.close()


def test_broker_side_recompression(bootstrap: str, make_topic: Callable[..., str]) -> None:
    topic = make_topic(compression_type="zstd")
    produce(
        bootstrap,
        topic,
        [
            {"value": b"v%d" % i, "timestamp": 1_600_000_000_000 + i, "headers": [("h", b"x")]}
            for i in range(50)
        ],
        **{"compression.type": "gzip", "enable.idempotence": True},
    )
    consumer = reader(bootstrap, TopicPartition(topic, 0, OFFSET_BEGINNING))
    got = consume(consumer, 50)
    assert [message.value() for message in got] == [b"v%d" % i for i in range(50)]
    assert [message.timestamp()[1] for message in got] == [1_600_000_000_000 + i for i in range(50)]
    consumer.close()


def test_auto_creation(bootstrap: str, name: str) -> None:
    produce(bootstrap, name, [{"value": b"first"}])
    consumer = reader(bootstrap, TopicPartition(name, 0, OFFSET_BEGINNING))
    assert consume(consumer, 1)[0].value() == b"first"
    consumer.close()


def test_seek_watermarks_and_times(bootstrap: str, make_topic: Callable[..., str]) -> None:
    topic = make_topic()
    produce(
        bootstrap,
        topic,
        [{"value": b"%d" % i, "timestamp": 1_600_000_000_000 + 1000 * i, "partition": 0} for i in range(100)],
        **{"batch.num.messages": 10},
    )
    consumer = reader(bootstrap, TopicPartition(topic, 0, OFFSET_BEGINNING))
    assert consumer.get_watermark_offsets(TopicPartition(topic, 0), timeout=60) == (0, 100)
    assert consume(consumer, 1)[0].offset() == 0
    consumer.seek(TopicPartition(topic, 0, 42))
    assert consume(consumer, 1)[0].value() == b"42"
    consumer.seek(TopicPartition(topic, 0, 7))
    assert [message.offset() for message in consume(consumer, 93)] == list(range(7, 100))

    def at(timestamp_ms: int) -> int:
        (found,) = consumer.offsets_for_times([TopicPartition(topic, 0, timestamp_ms)], timeout=60)
        assert found.error is None
        return int(found.offset)

    assert at(1_600_000_000_000) == 0
    assert at(1_600_000_000_001) == 1
    assert at(1_600_000_055_000) == 55
    assert at(1_600_000_098_001) == 99
    assert at(1_600_000_099_001) == OFFSET_END
    consumer.close()


def test_offset_out_of_range_resets(bootstrap: str, make_topic: Callable[..., str]) -> None:
    topic = make_topic()
    produce(bootstrap, topic, [{"value": b"%d" % i} for i in range(5)])
    consumer = reader(bootstrap, TopicPartition(topic, 0, 1000), **{"auto.offset.reset": "earliest"})
    assert [message.offset() for message in consume(consumer, 5)] == list(range(5))
    consumer.close()


def test_long_poll_wakes_at_the_append(bootstrap: str, make_topic: Callable[..., str]) -> None:
    topic = make_topic()
    consumer = reader(
        bootstrap,
        TopicPartition(topic, 0, OFFSET_BEGINNING),
        **{"fetch.wait.max.ms": 40_000, "auto.offset.reset": "earliest"},
    )
    assert consumer.poll(0.5) is None
    produce(bootstrap, topic, [{"value": b"now"}])
    with not_waiting(40):
        assert consume(consumer, 1)[0].value() == b"now"
    consumer.close()


class Member(threading.Thread):
    """A group member that polls in a thread and keeps what it read and was assigned."""

    def __init__(self, bootstrap: str, topics: list[str], group: str, **config: Any) -> None:
        super().__init__(daemon=True)
        self.consumer = Consumer(
            {
                "bootstrap.servers": bootstrap,
                "group.id": group,
                "auto.offset.reset": "earliest",
                "session.timeout.ms": 10_000,
                "heartbeat.interval.ms": 200,
                "auto.commit.interval.ms": 200,
                **config,
            }
        )
        self.cooperative = config.get("partition.assignment.strategy") == "cooperative-sticky"
        self.values: list[bytes | None] = []
        self.assigned: set[tuple[str, int]] = set()
        self.assignments = 0
        self.revoked_all = 0
        self.failure: Exception | None = None
        self._leaving = threading.Event()
        self.consumer.subscribe(topics, on_assign=self._assign, on_revoke=self._revoke, on_lost=self._revoke)
        self.start()

    def _assign(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self.assigned |= {(p.topic, p.partition) for p in partitions}
        self.assignments += 1
        if self.cooperative:
            consumer.incremental_assign(partitions)
        else:
            consumer.assign(partitions)

    def _revoke(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        gone = {(p.topic, p.partition) for p in partitions}
        self.revoked_all += gone == self.assigned and bool(gone)
        self.assigned -= gone
        if self.cooperative:
            consumer.incremental_unassign(partitions)
        else:
            consumer.unassign()

    def run(self) -> None:
        try:
            while not self._leaving.is_set():
                message = self.consumer.poll(0.05)
                if message is not None:
                    assert message.error() is None, message.error()
                    self.values.append(message.value())
        except Exception as failure:  # noqa: BLE001 - shown by leave() in the test's own thread
            self.failure = failure
        finally:
            self.consumer.close()

    def leave(self) -> None:
        self._leaving.set()
        self.join(60)
        assert not self.is_alive()
        if self.failure is not None:
            raise self.failure


def owners(members: list[Member], topic: str, partitions: int) -> bool:
    """True if every partition of `topic` has exactly one owner and each member owns its even share."""
    held = sorted(p for member in members for _, p in member.assigned)
    shares = [len(member.assigned) for member in members]
    return held == list(range(partitions)) and max(shares) - min(shares) <= 1


@pytest.mark.parametrize("strategy", ["range", "roundrobin", "cooperative-sticky"])
def test_rebalancing(bootstrap: str, make_topic: Callable[..., str], name: str, strategy: str) -> None:
    """Members come and go while messages flow; in the end every message was read."""
    topic = make_topic(6)
    config = {"partition.assignment.strategy": strategy}
    sent: list[bytes] = []

    def send(count: int) -> None:
        values = [b"%d" % i for i in range(len(sent), len(sent) + count)]
        produce(
            bootstrap,
            topic,
            [{"value": value, "partition": i % 6} for i, value in enumerate(values)],
            acks="all",
        )
        sent.extend(values)

    first = Member(bootstrap, [topic], name, **config)
    wait_until(lambda: owners([first], topic, 6), what="the first member owns all")
    send(60)
    second = Member(bootstrap, [topic], name, **config)
    wait_until(lambda: owners([first, second], topic, 6), what="two members share")
    if strategy == "cooperative-sticky":
        assert first.revoked_all == 0
    send(60)
    third = Member(bootstrap, [topic], name, **config)
    wait_until(lambda: owners([first, second, third], topic, 6), what="three members share")
    send(60)
    first.leave()
    wait_until(lambda: owners([second, third], topic, 6), what="two members share what the first left")
    send(60)
    members = [first, second, third]
    wait_until(
        lambda: {value for member in members for value in member.values} >= set(sent),
        what="all messages read",
    )
    second.leave()
    third.leave()
    read = [value for member in members for value in member.values]
    assert set(read) == set(sent)


def test_static_member_returns_without_a_rebalance(
    bootstrap: str, admin: AdminClient, make_topic: Callable[..., str], name: str
) -> None:
    topic = make_topic(4)
    config = {"session.timeout.ms": 30_000}
    one = Member(bootstrap, [topic], name, **{"group.instance.id": "one", **config})
    two = Member(bootstrap, [topic], name, **{"group.instance.id": "two", **config})
    wait_until(lambda: owners([one, two], topic, 4), what="two static members share")
    held, assignments = set(one.assigned), two.assignments
    one.leave()
    back = Member(bootstrap, [topic], name, **{"group.instance.id": "one", **config})
    wait_until(lambda: back.assigned == held, what="the returning member has its partitions again")
    assert two.assignments == assignments
    described = admin.describe_consumer_groups([name])[name].result(60)
    assert sorted(member.group_instance_id for member in described.members) == ["one", "two"]
    back.leave()
    two.leave()


def test_two_static_members_of_one_id_fence(
    bootstrap: str, make_topic: Callable[..., str], name: str
) -> None:
    topic = make_topic(1)
    old = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": name,
            "group.instance.id": "same",
            "heartbeat.interval.ms": 100,
        }
    )
    old.subscribe([topic])
    wait_until(lambda: (old.poll(0.05), old.assignment())[1], what="the old member's assignment")
    new = Member(bootstrap, [topic], name, **{"group.instance.id": "same"})
    wait_until(lambda: new.assigned, what="the new member's assignment")

    told = wait_until(lambda: old.poll(0.05), what="the old member is told")
    assert told.error().code() == KafkaError._FATAL
    assert "fenced" in told.error().str()
    new.leave()
    old.close()


def test_silent_member_is_removed(bootstrap: str, make_topic: Callable[..., str], name: str) -> None:
    """A member that stops polling past max.poll.interval.ms leaves; its partitions go to the other."""
    topic = make_topic(2)
    silent = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": name,
            "session.timeout.ms": 6000,
            "heartbeat.interval.ms": 300,
            "max.poll.interval.ms": 6000,
        }
    )
    silent.subscribe([topic])
    wait_until(lambda: (silent.poll(0.05), silent.assignment())[1], what="an assignment")
    other = Member(bootstrap, [topic], name)
    wait_until(lambda: len(other.assigned) == 2, what="the other member owns both")
    other.leave()
    silent.close()


def test_commits_survive_and_metadata(bootstrap: str, make_topic: Callable[..., str], name: str) -> None:
    topic = make_topic(2)
    produce(bootstrap, topic, [{"value": b"%d" % i, "partition": i % 2} for i in range(20)])
    consumer = reader(bootstrap, TopicPartition(topic, 0, 0), **{"group.id": name})
    empty = consumer.committed([TopicPartition(topic, 0)], timeout=60)
    assert empty[0].offset == OFFSET_INVALID
    done = consumer.commit(offsets=[TopicPartition(topic, 0, 5, "note")], asynchronous=False)
    assert done[0].error is None
    consumer.close()
    again = reader(bootstrap, TopicPartition(topic, 0, 0), **{"group.id": name})
    (found,) = again.committed([TopicPartition(topic, 0)], timeout=60)
    assert (found.offset, found.metadata) == (5, "note")
    again.close()


def test_group_resumes_at_its_commit(bootstrap: str, make_topic: Callable[..., str], name: str) -> None:
    topic = make_topic(1)
    produce(bootstrap, topic, [{"value": b"%d" % i} for i in range(10)])
    config = {
        "bootstrap.servers": bootstrap,
        "group.id": name,
        "auto.offset.reset": "earliest",
        "enable.auto.commit": False,
    }
    first = Consumer(config)
    first.subscribe([topic])
    message = consume(first, 4)[-1]
    first.commit(message, asynchronous=False)
    first.close()
    second = Consumer(config)
    second.subscribe([topic])
    assert [message.offset() for message in consume(second, 6)] == [4, 5, 6, 7, 8, 9]
    second.close()


def test_admin_topics(admin: AdminClient, name: str) -> None:
    futures = admin.create_topics([NewTopic(name, 3, 1, config={"retention.ms": "3600000"})])
    futures[name].result(60)
    with pytest.raises(KafkaException) as refused:
        admin.create_topics([NewTopic(name, 3, 1)])[name].result(60)
    assert refused.value.args[0].code() == KafkaError.TOPIC_ALREADY_EXISTS
    with pytest.raises(KafkaException) as refused:
        admin.create_topics([NewTopic("a/b", 1, 1)])["a/b"].result(60)
    assert refused.value.args[0].code() == KafkaError.TOPIC_EXCEPTION
    with pytest.raises(KafkaException) as refused:
        admin.create_topics([NewTopic(name + "-x", 1, 3)])[name + "-x"].result(60)
    assert refused.value.args[0].code() == KafkaError.INVALID_REPLICATION_FACTOR
    described = admin.describe_topics(TopicCollection([name]))[name].result(60)
    assert described.name == name
    assert [p.id for p in described.partitions] == [0, 1, 2]
    assert all(p.leader.id == p.replicas[0].id == p.isr[0].id for p in described.partitions)
    admin.create_partitions([NewPartitions(name, 5)])[name].result(60)
    assert len(admin.list_topics(name, timeout=60).topics[name].partitions) == 5
    with pytest.raises(KafkaException) as refused:
        admin.create_partitions([NewPartitions(name, 2)])[name].result(60)
    assert refused.value.args[0].code() == KafkaError.INVALID_PARTITIONS
    admin.delete_topics([name])[name].result(60)
    assert name not in admin.list_topics(timeout=60).topics
    with pytest.raises(KafkaException) as refused:
        admin.delete_topics([name])[name].result(60)
    assert refused.value.args[0].code() == KafkaError.UNKNOWN_TOPIC_OR_PART


def test_admin_configs(admin: AdminClient, make_topic: Callable[..., str]) -> None:
    topic = make_topic(retention_ms="3600000")

    def config() -> dict[str, ConfigEntry]:
        resource = ConfigResource(ResourceType.TOPIC, topic)
        return admin.describe_configs([resource])[resource].result(60)

    def change(*entries: tuple[str, str | None, AlterConfigOpType]) -> None:
        resource = ConfigResource(
            ResourceType.TOPIC,
            topic,
            incremental_configs=[ConfigEntry(n, v, incremental_operation=op) for n, v, op in entries],
        )
        admin.incremental_alter_configs([resource])[resource].result(60)

    assert config()["retention.ms"].value == "3600000"
    assert not config()["retention.ms"].is_default
    assert config()["segment.bytes"].value == str(1 << 30)
    assert config()["segment.bytes"].is_default
    change(
        ("segment.bytes", "2000000", AlterConfigOpType.SET),
        ("retention.ms", None, AlterConfigOpType.DELETE),
        ("cleanup.policy", "compact", AlterConfigOpType.APPEND),
    )
    assert config()["segment.bytes"].value == "2000000"
    assert config()["retention.ms"].value == str(7 * 24 * 3600 * 1000)
    assert sorted(config()["cleanup.policy"].value.split(",")) == ["compact", "delete"]
    change(("cleanup.policy", "compact", AlterConfigOpType.SUBTRACT))
    assert config()["cleanup.policy"].value == "delete"
    for bad in [("segment.bytes", "many"), ("no.such.config", "1")]:
        with pytest.raises(KafkaException) as refused:
            change((*bad, AlterConfigOpType.SET))
        assert refused.value.args[0].code() == KafkaError.INVALID_CONFIG


def test_admin_broker_configs(admin: AdminClient) -> None:
    node = next(iter(admin.list_topics(timeout=60).brokers))
    resource = ConfigResource(ResourceType.BROKER, str(node))
    config = admin.describe_configs([resource])[resource].result(60)
    assert config["num.partitions"].value == "1"
    assert config["group.initial.rebalance.delay.ms"].value is not None


def test_admin_records_and_offsets(
    bootstrap: str, admin: AdminClient, make_topic: Callable[..., str]
) -> None:
    topic = make_topic()
    produce(
        bootstrap,
        topic,
        [{"value": b"%d" % i, "timestamp": 1_600_000_000_000 + (i * 7 % 10)} for i in range(10)],
    )
    partition = TopicPartition(topic, 0)

    def offset(spec: OffsetSpec) -> int:
        return int(admin.list_offsets({partition: spec})[partition].result(60).offset)

    assert offset(OffsetSpec.earliest()) == 0
    assert offset(OffsetSpec.latest()) == 10
    assert offset(OffsetSpec.for_timestamp(1_600_000_000_008)) == 4
    assert offset(OffsetSpec.max_timestamp()) == 7
    target = TopicPartition(topic, 0, 6)
    deleted = admin.delete_records([target])[target].result(60)
    assert deleted.low_watermark == 6
    assert offset(OffsetSpec.earliest()) == 6
    beyond = TopicPartition(topic, 0, 11)
    with pytest.raises(KafkaException) as refused:
        admin.delete_records([beyond])[beyond].result(60)
    assert refused.value.args[0].code() == KafkaError.OFFSET_OUT_OF_RANGE


def test_admin_groups(bootstrap: str, admin: AdminClient, make_topic: Callable[..., str], name: str) -> None:
    topic = make_topic(2)
    produce(bootstrap, topic, [{"value": b"v", "partition": i % 2} for i in range(10)])
    member = Member(bootstrap, [topic], name, **{"client.id": "the-client"})
    wait_until(lambda: len(member.values) == 10, what="the messages read")
    described = admin.describe_consumer_groups([name])[name].result(60)
    assert described.state == ConsumerGroupState.STABLE
    assert described.partition_assignor == "range"
    (found,) = described.members
    assert found.client_id == "the-client"
    assert {(p.topic, p.partition) for p in found.assignment.topic_partitions} == {(topic, 0), (topic, 1)}
    listed = admin.list_consumer_groups(states={ConsumerGroupState.STABLE}).result(60)
    assert name in [group.group_id for group in listed.valid]
    assert name not in [
        group.group_id
        for group in admin.list_consumer_groups(states={ConsumerGroupState.EMPTY}).result(60).valid
    ]
    with pytest.raises(KafkaException) as refused:
        admin.delete_consumer_groups([name])[name].result(60)
    assert refused.value.args[0].code() == KafkaError.NON_EMPTY_GROUP
    member.leave()

    def offsets() -> dict[int, int]:
        request = [ConsumerGroupTopicPartitions(name)]
        found = admin.list_consumer_group_offsets(request)[name].result(60)
        return {p.partition: p.offset for p in found.topic_partitions}

    assert offsets() == {0: 5, 1: 5}
    change = ConsumerGroupTopicPartitions(name, [TopicPartition(topic, 1, 2)])
    admin.alter_consumer_group_offsets([change])[name].result(60)
    assert offsets() == {0: 5, 1: 2}
    admin.delete_consumer_groups([name])[name].result(60)
    assert offsets() == {}
    with pytest.raises(KafkaException) as refused:
        admin.delete_consumer_groups([name])[name].result(60)
    assert refused.value.args[0].code() == KafkaError.GROUP_ID_NOT_FOUND


def test_admin_cluster(bootstrap: str, admin: AdminClient) -> None:
    cluster = admin.describe_cluster().result(60)
    assert cluster.cluster_id
    (node,) = cluster.nodes
    assert f"{node.host}:{node.port}" == bootstrap
    assert cluster.controller.id == node.id


def test_the_consumer_protocol_is_refused_at_once(bootstrap: str, name: str) -> None:
    """Where the API is not listed librdkafka looks for another coordinator again and again (KIP-848)."""
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": name, "group.protocol": "consumer"})
    consumer.subscribe([name])
    told: list[KafkaError] = []

    def refused() -> bool:
        message = consumer.poll(0.1)
        error = message.error() if message is not None else None
        told.extend([error] if error is not None else [])
        return any(each.code() == KafkaError._FATAL for each in told)

    with not_waiting(30):
        wait_until(refused, what="the error")
    assert "API version not supported" in told[-1].str()
    consumer.close()


def test_unknown_topic(bootstrap: str, name: str) -> None:
    """With allow.auto.create.topics off a consumer learns that its topic is not there."""
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": name, "allow.auto.create.topics": False})
    consumer.subscribe([name])

    def told() -> bool:
        message = consumer.poll(0.1)
        if message is None:
            return False
        assert message.error() is not None
        return message.error().code() == KafkaError.UNKNOWN_TOPIC_OR_PART

    wait_until(told, what="the error")
    consumer.close()
