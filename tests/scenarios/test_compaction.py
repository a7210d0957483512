"""Compacted topics, and the groups' own, with a real broker and librdkafka."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from confluent_kafka import Consumer, KafkaError, Message, Producer, TopicPartition
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewTopic,
    ResourceType,
)

from interop.process import BrokerProcess, wait_until
from measuring import cpu_at_most

Start = Callable[..., BrokerProcess]
MIB = 1024 * 1024
# Of a broker from its start until 50 offsets that were committed 1,500 times each are known.
LOADING_CPU_S_MAX = 2.0

SETTINGS = {
    "log.cleaner.backoff.ms": "500",
    "log.segment.delete.delay.ms": "0",
    "offsets.topic.num.partitions": "1",
    "offsets.topic.segment.bytes": str(MIB),
}
COMPACTED = {"cleanup.policy": "compact", "segment.bytes": str(MIB), "min.cleanable.dirty.ratio": "0.01"}


def create(broker: BrokerProcess, topic: str, **config: str) -> None:
    admin = AdminClient({"bootstrap.servers": broker.bootstrap})
    admin.create_topics([NewTopic(topic, 1, 1, config=config)])[topic].result(60)


def produce(
    broker: BrokerProcess, topic: str, pairs: Iterator[tuple[bytes, bytes | None]], **settings: str
) -> None:
    failures: list[KafkaError] = []
    producer = Producer({"bootstrap.servers": broker.bootstrap, "linger.ms": 5, **settings})

    def done(error: KafkaError | None, _: Message) -> None:
        if error is not None:
            failures.append(error)

    for key, value in pairs:
        while True:
            try:
                producer.produce(topic, value, key, on_delivery=done)
                break
            except BufferError:
                producer.poll(0.1)
    assert producer.flush(60) == 0
    assert not failures


def consume(broker: BrokerProcess, topic: str) -> list[Message]:
    """Everything from the beginning."""
    consumer = Consumer(
        {"bootstrap.servers": broker.bootstrap, "group.id": "reader", "enable.partition.eof": True}
    )
    consumer.assign([TopicPartition(topic, 0, 0)])
    found: list[Message] = []
    try:
        while True:
            message = consumer.poll(20)
            assert message is not None, "nothing came for 20 s"
            error = message.error()
            if error is not None:
                assert error.code() == KafkaError._PARTITION_EOF, error
                return found
            found.append(message)
    finally:
        consumer.close()


def size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob("*.log"))


def cleaned_to(broker: BrokerProcess, topic: str) -> int:
    """The offset that the topic's only partition is compacted up to."""
    path = broker.data / "cleaner-offset-checkpoint"
    lines = path.read_text().splitlines()[2:] if path.exists() else []
    return next((int(line.split()[2]) for line in lines if line.startswith(f"{topic} 0 ")), 0)


def closed_size(folder: Path) -> int:
    """Bytes of all segments but the one that is appended to, which stays as it is."""
    return sum(path.stat().st_size for path in sorted(folder.glob("*.log"))[:-1])


def rounds(count: int, keys: int, size: int) -> Iterator[tuple[bytes, bytes]]:
    for number in range(count):
        for key in range(keys):
            yield b"key-%d" % key, b"%d " % number + b"x" * size


def test_a_consumer_from_the_beginning_sees_each_key_once(ottla_process: Start) -> None:
    broker = ottla_process(settings=SETTINGS)
    create(broker, "state", **COMPACTED)
    keys = 100
    produce(broker, "state", rounds(60, keys, 1000), **{"compression.type": "none"})
    produce(
        broker, "state", rounds(60, keys, 1000), **{"enable.idempotence": "true", "compression.type": "lz4"}
    )
    # What is in the active segment stays: fill another one with a key of its own.
    produce(broker, "state", ((b"filler", b"x" * 10_000) for _ in range(110)), **{"batch.size": "20000"})
    wait_until(lambda: cleaned_to(broker, "state") >= 12_000, 30, "compaction")
    found = consume(broker, "state")
    latest = {message.key(): message.value() for message in found}
    assert latest == {b"key-%d" % key: b"59 " + b"x" * 1000 for key in range(keys)} | {
        b"filler": b"x" * 10_000
    }
    of_keys = [message for message in found if message.key() != b"filler"]
    assert len(of_keys) == keys
    assert [message.offset() for message in of_keys] == list(range(11_900, 12_000))

    # The same after a crash, and an idempotent producer goes on.
    broker.kill()
    broker.start()
    assert [m.offset() for m in consume(broker, "state")] == [m.offset() for m in found]
    produce(broker, "state", iter([(b"key-0", b"new")]), **{"enable.idempotence": "true"})
    assert consume(broker, "state")[-1].value() == b"new"


def test_a_policy_that_changes_while_the_topic_is_in_use(ottla_process: Start) -> None:
    broker = ottla_process(settings=SETTINGS)
    create(broker, "state", **{**COMPACTED, "cleanup.policy": "delete"})
    produce(broker, "state", rounds(40, 100, 1000), **{"compression.type": "none"})
    folder = broker.data / "state-0"
    assert closed_size(folder) >= 2 * MIB
    admin = AdminClient({"bootstrap.servers": broker.bootstrap})
    change = ConfigEntry("cleanup.policy", "compact,delete", incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ResourceType.TOPIC, "state", incremental_configs=[change])
    admin.incremental_alter_configs([resource])[resource].result(60)
    wait_until(lambda: closed_size(folder) < MIB / 2, 30, "compaction")
    assert len({message.key() for message in consume(broker, "state")}) == 100


def test_the_offsets_topic_stays_small_and_loads_fast(ottla_process: Start) -> None:
    broker = ottla_process(settings=SETTINGS)
    partitions, commits = 50, 1500
    admin = AdminClient({"bootstrap.servers": broker.bootstrap})
    admin.create_topics([NewTopic("wide", partitions, 1)])["wide"].result(60)
    committer = Consumer(
        {"bootstrap.servers": broker.bootstrap, "group.id": "g", "enable.auto.commit": False}
    )
    folder = broker.data / "__consumer_offsets-0"
    for number in range(1, commits + 1):
        offsets = [TopicPartition("wide", index, number) for index in range(partitions)]
        committer.commit(offsets=offsets, asynchronous=False)
    committer.close()
    wait_until(lambda: closed_size(folder) < MIB / 4, 30, "compaction")
    # A commit takes 60 bytes and more.
    assert size(folder) < MIB * 1.25 < partitions * commits * 60 / 3
    asked = [TopicPartition("wide", index) for index in range(partitions)]
    for attempt in cpu_at_most(LOADING_CPU_S_MAX):
        broker.stop()
        broker.start()
        reader = Consumer({"bootstrap.servers": broker.bootstrap, "group.id": "g"})
        try:
            assert {found.offset for found in reader.committed(asked, 20)} == {commits}
        finally:
            reader.close()
        attempt.took(broker.cpu_s())
