"""Three nodes and other people's clients: replication, leaders and coordinators that die, too few in sync."""

from __future__ import annotations

import asyncio
import shutil
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from cluster_support import QUIET, Cluster, running
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition
from confluent_kafka.admin import AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType

from interop.process import wait_until

pytestmark = pytest.mark.skipif(shutil.which("etcd") is None, reason="there is no etcd")


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with running(tmp_path_factory.mktemp("cluster")) as made:
        yield made


@pytest.fixture
def cluster(shared: Cluster) -> Iterator[Cluster]:
    """The shared cluster; a test may end nodes of it, which are there again for the next one."""
    yield shared
    shared.start()
    shared.wait_registered(list(shared.nodes))


def producer(cluster: Cluster, **settings: Any) -> Producer:
    return Producer({"bootstrap.servers": cluster.bootstrap, "linger.ms": 0, **QUIET, **settings})


def consumer(cluster: Cluster, group: str, **settings: Any) -> Consumer:
    return Consumer(
        {
            "bootstrap.servers": cluster.bootstrap,
            "group.id": group,
            "auto.offset.reset": "earliest",
            "session.timeout.ms": 6000,
            "heartbeat.interval.ms": 500,
            **QUIET,
            **settings,
        }
    )


def send(made: Producer, topic: str, *values: str) -> list[KafkaError | None]:
    """Produce to partition 0, and what became of each."""
    outcomes: list[KafkaError | None] = []
    for value in values:
        made.produce(topic, value, partition=0, on_delivery=lambda error, _: outcomes.append(error))
    assert made.flush(30) == 0
    return outcomes


def read(cluster: Cluster, topic: str, count: int, **settings: Any) -> list[str]:
    """The first ``count`` values of partition 0."""
    reader = consumer(cluster, f"read-{topic}", **settings)
    reader.assign([TopicPartition(topic, 0, 0)])
    values: list[str] = []

    def enough() -> bool:
        values.extend(value_of(message) for message in reader.consume(count, 0.2))
        return len(values) >= count

    try:
        wait_until(enough, what=f"{count} records of {topic}")
    finally:
        reader.close()
    return values


def value_of(message: Message) -> str:
    assert message.error() is None, message.error()
    value = message.value()
    assert value is not None
    return value.decode()


def numbers(count: int, start: int = 0) -> list[str]:
    return [str(number) for number in range(start, start + count)]


def test_three_clients_write_and_read_what_is_replicated(cluster: Cluster, name: str) -> None:
    from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
    from kafka import KafkaConsumer, KafkaProducer
    from kafka import TopicPartition as OldTopicPartition

    cluster.create(name, configs={"min.insync.replicas": "3"})
    assert send(producer(cluster), name, "confluent") == [None]

    async def modern() -> list[bytes]:
        async with AIOKafkaProducer(bootstrap_servers=cluster.bootstrap, acks="all") as made:
            await made.send_and_wait(name, b"aiokafka", partition=0)
        reader = AIOKafkaConsumer(
            name, bootstrap_servers=cluster.bootstrap, auto_offset_reset="earliest", group_id=None
        )
        async with reader:
            return [(await asyncio.wait_for(reader.getone(), 30)).value for _ in range(2)]

    assert asyncio.run(modern()) == [b"confluent", b"aiokafka"]
    old = KafkaProducer(bootstrap_servers=cluster.bootstrap.split(","), acks="all")
    assert old.send(name, b"kafka-python", partition=0).get(30).offset == 2
    old.close()
    reader = KafkaConsumer(bootstrap_servers=cluster.bootstrap.split(","), consumer_timeout_ms=30_000)
    reader.assign([OldTopicPartition(name, 0)])
    reader.seek(OldTopicPartition(name, 0), 0)
    values = [next(reader).value for _ in range(3)]
    reader.close()
    assert values == [b"confluent", b"aiokafka", b"kafka-python"]


def test_an_idempotent_producer_goes_on_when_its_leader_is_killed(cluster: Cluster, name: str) -> None:
    """The next leader knows from replication what it has sent: nothing is lost, twice or out of order."""
    cluster.create(name, replicas=[2, 3, 1], configs={"min.insync.replicas": "2"})
    made = producer(cluster, **{"enable.idempotence": True, "batch.num.messages": 20})
    acked: list[int] = []
    failed: list[str] = []
    killed = threading.Event()

    def delivered(error: KafkaError | None, message: Message) -> None:
        if error is not None:
            failed.append(error.str())
        else:
            acked.append(int(value_of(message)))

    for number in range(6_000):
        made.produce(name, str(number), partition=0, on_delivery=delivered)
        made.poll(0)
        if number == 2_000:
            # In the middle of batches under way.
            wait_until(lambda: made.poll(0) >= 0 and len(acked) > 100, pause_s=0)
            cluster.nodes[2].kill()
            killed.set()
    assert made.flush(60) == 0
    assert killed.is_set() and not failed
    assert acked == list(range(6_000))
    assert cluster.leader(name) == 3
    assert read(cluster, name, 6_000) == numbers(6_000)
    cluster.start()
    cluster.wait_isr(name, [1, 2, 3])


def test_a_group_goes_on_when_its_coordinator_is_killed(cluster: Cluster, name: str) -> None:
    cluster.create(name)
    made = producer(cluster)
    assert send(made, name, *numbers(100)) == [None] * 100
    member = consumer(cluster, name, **{"enable.auto.commit": False})
    member.subscribe([name])
    values: list[str] = []

    def until(count: int) -> None:
        def enough() -> bool:
            values.extend(value_of(message) for message in member.consume(count - len(values), 0.1))
            return len(values) >= count

        wait_until(enough, 40, f"{count} records")

    until(60)
    member.commit(asynchronous=False)
    found = cluster.admin().describe_consumer_groups([name])[name].result(60)
    coordinator = found.coordinator.id
    cluster.nodes[coordinator].kill()
    assert send(made, name, *numbers(50, 100)) == [None] * 50
    until(150)
    assert values == numbers(150), "nothing is read twice: the member kept its partition"
    wait_until(lambda: _commits(member), 40, "a commit")
    member.close()
    later = consumer(cluster, name)
    (committed,) = later.committed([TopicPartition(name, 0)], 30)
    assert committed.offset == 150
    later.close()
    after = cluster.admin().describe_consumer_groups([name])[name].result(60).coordinator.id
    assert after not in (coordinator, -1)


def _commits(member: Consumer) -> bool:
    try:
        member.commit(asynchronous=False)
    except KafkaException as failure:
        assert failure.args[0].code() in (
            KafkaError.NOT_COORDINATOR,
            KafkaError.COORDINATOR_NOT_AVAILABLE,
            KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
            KafkaError._WAIT_COORD,
            KafkaError._TRANSPORT,
            KafkaError._TIMED_OUT,
            KafkaError._NO_OFFSET,
        ), failure
        return failure.args[0].code() == KafkaError._NO_OFFSET
    return True


def test_too_few_in_sync_refuse_acks_all_and_take_acks_one(cluster: Cluster, name: str) -> None:
    cluster.create(name, replicas=[1, 2], configs={"min.insync.replicas": "2"})
    patient = producer(cluster, **{"message.timeout.ms": 20_000})
    assert send(patient, name, "0") == [None]
    cluster.nodes[2].kill()
    cluster.wait_isr(name, [1])
    hasty = producer(cluster, retries=0)
    (refused,) = send(hasty, name, "refused")
    assert refused is not None and refused.code() == KafkaError.NOT_ENOUGH_REPLICAS
    assert send(producer(cluster, acks=1), name, "1") == [None]
    # It is not committed, so nobody sees it.
    assert _end(cluster, name) == 1
    cluster.start()
    cluster.wait_isr(name, [1, 2])
    wait_until(lambda: _end(cluster, name) == 2, what="it is committed")
    assert send(patient, name, "2") == [None]
    assert read(cluster, name, 3) == numbers(3)


def _end(cluster: Cluster, topic: str) -> int:
    reader = consumer(cluster, "end")
    try:
        end: int = reader.get_watermark_offsets(TopicPartition(topic, 0), timeout=60)[1]
    finally:
        reader.close()
    return end


def test_a_leader_outside_the_isr_is_elected_only_where_that_is_wanted(cluster: Cluster, name: str) -> None:
    cluster.create(name, replicas=[1, 2])
    made = producer(cluster)
    assert send(made, name, "both") == [None]
    cluster.nodes[2].kill()
    cluster.wait_isr(name, [1])
    assert send(made, name, "only node 1") == [None]
    cluster.nodes[1].kill()
    wait_until(lambda: cluster.leader(name) == -1, what="nobody leads")
    cluster.nodes[2].start()
    cluster.wait_registered([2, 3])
    assert cluster.leader(name) == -1, "node 2 lacks what was acknowledged"
    entry = ConfigEntry("unclean.leader.election.enable", "true", incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ResourceType.TOPIC, name, incremental_configs=[entry])
    admin = cluster.admin()
    admin.incremental_alter_configs([resource])[resource].result(60)
    assert cluster.wait_leader(name) == 2
    assert send(producer(cluster), name, "node 2 instead") == [None]
    cluster.nodes[1].start()
    cluster.wait_isr(name, [1, 2])
    assert read(cluster, name, 2) == ["both", "node 2 instead"]
    # Node 1 has given up what only it had.
    cluster.nodes[2].kill()
    assert cluster.wait_leader(name, other_than=2) == 1
    assert read(cluster, name, 2) == ["both", "node 2 instead"]


def test_controlled_shutdown_moves_leaders_before_it_goes(cluster: Cluster, name: str) -> None:
    cluster.create(name, replicas=[3, 1, 2])
    made = producer(cluster, **{"enable.idempotence": True})
    outcomes: list[KafkaError | None] = []
    stopping = threading.Thread(target=cluster.nodes[3].stop)
    for number in range(500):
        if number == 100:
            stopping.start()
        made.produce(name, str(number), partition=0, on_delivery=lambda error, _: outcomes.append(error))
        made.poll(0.001)
    assert made.flush(30) == 0
    stopping.join()
    assert outcomes == [None] * 500
    assert cluster.leader(name) == 1
    assert read(cluster, name, 500) == numbers(500)
