"""Transactions, by the transactional API of each client in Python: librdkafka's, kafka-python's, aiokafka's.

What one client writes all of them read, and kcat. Those of Java and Node.js have theirs in `test_java.py` and
`test_node.py`.
"""

from __future__ import annotations

import asyncio
import itertools
import subprocess
from collections.abc import Callable
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka import TopicPartition as AiokafkaPartition
from aiokafka.errors import ProducerFenced
from confluent_kafka import (
    Consumer,
    ConsumerGroupTopicPartitions,
    IsolationLevel,
    KafkaError,
    KafkaException,
    Producer,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient, OffsetSpec
from kafka import IsolationLevel as KafkaPythonIsolation
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer
from kafka import OffsetAndMetadata as KafkaPythonOffset
from kafka import TopicPartition as KafkaPythonPartition
from kafka.admin import AbortTransactionSpec
from kafka.admin import OffsetSpec as KafkaPythonSpec
from kafka.errors import ProducerFencedError, TransactionalIdNotFoundError

from interop.process import wait_until

COMMITTED, UNCOMMITTED = "read_committed", "read_uncommitted"
# What `written` writes: half of it is aborted, in turns, to two partitions each.
TRANSACTIONS = 6
# How long a read may wait at the end of a partition, of which all readers want to know that it is the end.
WAIT_MS = 20


def values(number: int, partition: int) -> list[bytes]:
    return [b"%d-%d-%d" % (number, partition, i) for i in range(3)]


def expected(partition: int, isolation: str) -> list[bytes]:
    """What there is in a partition after `TRANSACTIONS`, of which the odd ones are aborted."""
    step = 2 if isolation == COMMITTED else 1
    return list(itertools.chain(*(values(number, partition) for number in range(0, TRANSACTIONS, step))))


def stable(admin: AdminClient, topic: str, index: int) -> int:
    return latest(admin, topic, index, IsolationLevel.READ_COMMITTED)


def end(admin: AdminClient, topic: str, index: int) -> int:
    return latest(admin, topic, index, IsolationLevel.READ_UNCOMMITTED)


def latest(admin: AdminClient, topic: str, index: int, isolation: IsolationLevel) -> int:
    where = TopicPartition(topic, index)
    found = admin.list_offsets({where: OffsetSpec.latest()}, isolation_level=isolation)[where].result(60)
    return int(found.offset)


def nothing_is_open(admin: AdminClient, topic: str, partitions: int) -> bool:
    return all(stable(admin, topic, index) == end(admin, topic, index) for index in range(partitions))


def offset_of(admin: AdminClient, group: str, topic: str) -> int | None:
    """What the group has committed of partition 0, None for nothing."""
    asked = admin.list_consumer_group_offsets([ConsumerGroupTopicPartitions(group)])[group].result(60)
    offsets = {at.partition: at.offset for at in asked.topic_partitions if at.topic == topic}
    return offsets.get(0)


def read_by_librdkafka(bootstrap: str, topic: str, partition: int, isolation: str) -> list[bytes]:
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": topic,
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "isolation.level": isolation,
            "fetch.wait.max.ms": WAIT_MS,
        }
    )
    consumer.assign([TopicPartition(topic, partition, 0)])
    found = []
    while True:
        message = consumer.poll(30)
        assert message is not None, "neither a message nor the end came"
        if message.error() is not None:
            assert message.error().code() == KafkaError._PARTITION_EOF
            break
        found.append(message.value())
    consumer.close()
    return found


def read_by_kafka_python(bootstrap: str, topic: str, partition: int, isolation: str) -> list[bytes]:
    consumer = KafkaConsumer(
        bootstrap_servers=bootstrap,
        auto_offset_reset="earliest",
        isolation_level=isolation,
        fetch_max_wait_ms=WAIT_MS,
    )
    where = KafkaPythonPartition(topic, partition)
    consumer.assign([where])
    (stop,) = consumer.end_offsets([where]).values()
    found: list[bytes] = []

    def all_read() -> bool:
        for records in consumer.poll(1000).values():
            found.extend(record.value for record in records)
        return bool(consumer.position(where) >= stop)

    wait_until(all_read, what="the end")
    consumer.close()
    return found


def read_by_aiokafka(bootstrap: str, topic: str, partition: int, isolation: str) -> list[bytes]:
    where = AiokafkaPartition(topic, partition)

    async def main() -> list[bytes]:
        found: list[bytes] = []
        async with AIOKafkaConsumer(
            bootstrap_servers=bootstrap,
            auto_offset_reset="earliest",
            isolation_level=isolation,
            fetch_max_wait_ms=WAIT_MS,
        ) as consumer:
            consumer.assign([where])
            (stop,) = (await consumer.end_offsets([where])).values()
            while await consumer.position(where) < stop:
                for records in (await consumer.getmany(where, timeout_ms=200)).values():
                    found.extend(record.value for record in records)
        return found

    return asyncio.run(asyncio.wait_for(main(), 60))


def read_by_kcat(bootstrap: str, topic: str, partition: int, isolation: str) -> list[bytes]:
    command = [
        "kcat",
        "-b",
        bootstrap,
        "-C",
        "-t",
        topic,
        "-p",
        str(partition),
        "-o",
        "beginning",
        "-e",
        "-q",
    ]
    command += ["-X", f"isolation.level={isolation}", "-X", f"fetch.wait.max.ms={WAIT_MS}"]
    return subprocess.run(command, check=True, capture_output=True, timeout=60).stdout.split()


READERS = [read_by_librdkafka, read_by_kafka_python, read_by_aiokafka, read_by_kcat]


def written_by_librdkafka(bootstrap: str, topic: str, group: str) -> None:
    """Transactions as `expected` has them; the group's offset in each is its number + 1."""
    producer = transactional(bootstrap, topic)
    member = Consumer({"bootstrap.servers": bootstrap, "group.id": group})
    for number in range(TRANSACTIONS):
        producer.begin_transaction()
        for partition in range(2):
            for value in values(number, partition):
                producer.produce(topic, value, partition=partition)
        offsets = [TopicPartition(topic, 0, number + 1)]
        producer.send_offsets_to_transaction(offsets, member.consumer_group_metadata(), 30)
        if number % 2:
            producer.abort_transaction(30)
        else:
            producer.commit_transaction(30)
    member.close()


def written_by_kafka_python(bootstrap: str, topic: str, group: str) -> None:
    producer = KafkaProducer(bootstrap_servers=bootstrap, transactional_id=topic)
    producer.init_transactions()
    for number in range(TRANSACTIONS):
        producer.begin_transaction()
        for partition in range(2):
            for value in values(number, partition):
                producer.send(topic, value, partition=partition)
        offsets = {KafkaPythonPartition(topic, 0): KafkaPythonOffset(number + 1, "", -1)}
        producer.send_offsets_to_transaction(offsets, group)
        if number % 2:
            producer.flush()
            producer.abort_transaction()
        else:
            producer.commit_transaction()
    producer.close()


def written_by_aiokafka(bootstrap: str, topic: str, group: str) -> None:
    async def main() -> None:
        async with AIOKafkaProducer(bootstrap_servers=bootstrap, transactional_id=topic) as producer:
            for number in range(TRANSACTIONS):
                await producer.begin_transaction()
                for partition in range(2):
                    for value in values(number, partition):
                        await producer.send(topic, value, partition=partition)
                offsets = {AiokafkaPartition(topic, 0): number + 1}
                await producer.send_offsets_to_transaction(offsets, group)
                if number % 2:
                    await producer.flush()
                    await producer.abort_transaction()
                else:
                    await producer.commit_transaction()

    asyncio.run(asyncio.wait_for(main(), 60))


@pytest.mark.parametrize("write", [written_by_librdkafka, written_by_kafka_python, written_by_aiokafka])
def test_what_is_committed_is_read_and_what_is_aborted_is_not(
    bootstrap: str, admin: AdminClient, make_topic: Callable[..., str], name: str, write: Any
) -> None:
    topic = make_topic(2)
    write(bootstrap, topic, name)
    wait_until(lambda: nothing_is_open(admin, topic, 2), what="the last markers")
    for read, partition in itertools.product(READERS, range(2)):
        assert read(bootstrap, topic, partition, COMMITTED) == expected(partition, COMMITTED), read
        # librdkafka throws away what it has not sent when a transaction is aborted.
        all_of_it = read(bootstrap, topic, partition, UNCOMMITTED)
        assert set(all_of_it) >= set(expected(partition, COMMITTED)), read
        if write is not written_by_librdkafka:
            assert all_of_it == expected(partition, UNCOMMITTED), read
    # The last one was aborted, and so were its offsets.
    assert offset_of(admin, name, topic) == TRANSACTIONS - 1


def transactional(bootstrap: str, name: str) -> Producer:
    producer = Producer({"bootstrap.servers": bootstrap, "transactional.id": name, "linger.ms": 0})
    producer.init_transactions(30)
    return producer


def test_what_is_open_is_seen_by_read_uncommitted_only(
    bootstrap: str, admin: AdminClient, make_topic: Callable[..., str], name: str
) -> None:
    topic = make_topic(2)
    producer = transactional(bootstrap, name)
    member = Consumer({"bootstrap.servers": bootstrap, "group.id": name})
    producer.begin_transaction()
    producer.produce(topic, b"open", partition=0)
    producer.flush(30)
    producer.send_offsets_to_transaction([TopicPartition(topic, 0, 7)], member.consumer_group_metadata(), 30)
    assert offset_of(admin, name, topic) is None
    assert (stable(admin, topic, 0), end(admin, topic, 0)) == (0, 1)
    for read in READERS:
        assert read(bootstrap, topic, 0, UNCOMMITTED) == [b"open"], read
        assert read(bootstrap, topic, 0, COMMITTED) == [], read
    producer.commit_transaction(30)
    wait_until(lambda: nothing_is_open(admin, topic, 2), what="the marker")
    wait_until(lambda: offset_of(admin, name, topic) == 7, what="the offset")
    for read in READERS:
        assert read(bootstrap, topic, 0, COMMITTED) == [b"open"], read
    member.close()


def test_librdkafka_is_fenced(bootstrap: str, admin: AdminClient, make_topic: Callable[..., str]) -> None:
    name = make_topic()
    zombie = transactional(bootstrap, name)
    zombie.begin_transaction()
    zombie.produce(name, "of the zombie", partition=0)
    zombie.flush(30)
    assert stable(admin, name, 0) < end(admin, name, 0)
    # It aborts what the first has open, and is told to wait for that.
    producer = transactional(bootstrap, name)
    wait_until(lambda: nothing_is_open(admin, name, 1))
    with pytest.raises(KafkaException) as fenced:
        zombie.commit_transaction(30)
    assert fenced.value.args[0].fatal()
    assert fenced.value.args[0].code() == KafkaError._FENCED
    producer.begin_transaction()
    producer.produce(name, "of its successor", partition=0)
    producer.commit_transaction(30)
    assert read_by_kcat(bootstrap, name, 0, COMMITTED) == [b"of", b"its", b"successor"]


def test_kafka_python_is_fenced(bootstrap: str, admin: AdminClient, make_topic: Callable[..., str]) -> None:
    name = make_topic()
    zombie, producer = (KafkaProducer(bootstrap_servers=bootstrap, transactional_id=name) for _ in range(2))
    zombie.init_transactions()
    zombie.begin_transaction()
    zombie.send(name, b"zombie", partition=0)
    zombie.flush()
    producer.init_transactions()
    with pytest.raises(ProducerFencedError):
        zombie.commit_transaction()
    producer.begin_transaction()
    producer.send(name, b"successor", partition=0)
    producer.commit_transaction()
    wait_until(lambda: nothing_is_open(admin, name, 1))
    assert read_by_kafka_python(bootstrap, name, 0, COMMITTED) == [b"successor"]
    producer.close()
    zombie.close()


def test_aiokafka_is_fenced(bootstrap: str, admin: AdminClient, make_topic: Callable[..., str]) -> None:
    name = make_topic()

    async def main() -> None:
        zombie, producer = (
            AIOKafkaProducer(bootstrap_servers=bootstrap, transactional_id=name) for _ in range(2)
        )
        await zombie.start()
        await zombie.begin_transaction()
        await zombie.send_and_wait(name, b"zombie", partition=0)
        await producer.start()
        with pytest.raises(ProducerFenced):
            await zombie.commit_transaction()
        async with producer.transaction():
            await producer.send(name, b"successor", partition=0)
        await producer.stop()
        await zombie.stop()

    asyncio.run(asyncio.wait_for(main(), 60))
    wait_until(lambda: nothing_is_open(admin, name, 1))
    assert read_by_aiokafka(bootstrap, name, 0, COMMITTED) == [b"successor"]


def test_kafka_python_administers(bootstrap: str, admin: AdminClient, make_topic: Callable[..., str]) -> None:
    """List, describe, and abort what hangs as an operator does: with its producer's id and epoch."""
    name = make_topic(2)
    where = KafkaPythonPartition(name, 1)
    client: Any = KafkaAdminClient(bootstrap_servers=bootstrap)
    producer = transactional(bootstrap, name)
    producer.begin_transaction()
    producer.produce(name, "open", partition=1)
    producer.flush(30)

    described = client.describe_transactions([name])[name]
    assert described.state == "Ongoing"
    assert described.topic_partitions == {where}
    (listed,) = (
        each
        for listings in client.list_transactions(transactional_id_pattern=f"^{name}$").values()
        for each in listings
    )
    assert (listed.transactional_id, listed.producer_id) == (name, described.producer_id)
    assert client.find_hanging_transactions() == []
    (active,) = client.describe_producers([where])[where].active_producers
    assert (active.producer_id, active.current_transaction_start_offset) == (described.producer_id, 0)
    committed, uncommitted = (
        client.list_partition_offsets({where: KafkaPythonSpec.LATEST}, isolation)[where].offset
        for isolation in (KafkaPythonIsolation.READ_COMMITTED, KafkaPythonIsolation.READ_UNCOMMITTED)
    )
    assert (committed, uncommitted) == (0, 1)
    with pytest.raises(TransactionalIdNotFoundError):
        client.describe_transactions([f"{name}-none"])

    client.abort_transaction(
        AbortTransactionSpec(where, active.producer_id, active.producer_epoch, active.coordinator_epoch)
    )
    wait_until(lambda: nothing_is_open(admin, name, 2))
    assert read_by_kcat(bootstrap, name, 1, COMMITTED) == []
    client.close()
