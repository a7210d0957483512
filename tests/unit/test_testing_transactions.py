"""The embedded broker's transactions: what a test sees of them, ends and holds."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
from confluent_kafka import KafkaError as ClientError
from confluent_kafka import KafkaException, Producer

from measuring import HANG_S
from ottla.errors import ErrorCode, KafkaError
from ottla.testing import Broker
from ottla.types import TopicPartition


@pytest.fixture(scope="module")
def broker() -> Iterator[Broker]:
    with Broker() as broker:
        yield broker


@pytest.fixture
def topic(broker: Broker, request: pytest.FixtureRequest) -> str:
    name: str = request.node.name[:40]
    broker.create_topic(name)
    return name


def transactional(broker: Broker, name: str) -> Producer:
    producer = Producer(
        {
            "bootstrap.servers": broker.bootstrap_servers,
            "transactional.id": name,
            "transaction.timeout.ms": 60_000,
        }
    )
    producer.init_transactions(HANG_S)
    return producer


def write(producer: Producer, topic: str, *values: str) -> None:
    producer.begin_transaction()
    for value in values:
        producer.produce(topic, value, partition=0)
    assert producer.flush(HANG_S) == 0


def values(broker: Broker, topic: str, **options: Any) -> list[bytes | None]:
    return [record.value for record in broker.records(topic, **options)]


def test_a_test_sees_what_is_open_and_what_was_committed(broker: Broker, topic: str) -> None:
    producer = transactional(broker, topic)
    write(producer, topic, "a")
    state = broker.transactions()[topic]
    assert (state.state, state.partitions) == ("Ongoing", (TopicPartition(topic, 0),))
    assert values(broker, topic) == [b"a"]
    assert values(broker, topic, read_committed=True) == []
    producer.commit_transaction(HANG_S)
    write(producer, topic, "b")
    producer.abort_transaction(HANG_S)
    write(producer, topic, "c")
    broker.produce(topic, "d")
    assert values(broker, topic) == [b"a", b"b", b"c", b"d"]
    assert values(broker, topic, read_committed=True) == [b"a"]
    producer.commit_transaction(HANG_S)
    wait_for(broker, topic, "CompleteCommit")
    assert values(broker, topic, read_committed=True) == [b"a", b"c", b"d"]


def wait_for(broker: Broker, name: str, state: str) -> None:
    deadline = time.monotonic() + HANG_S
    while broker.transactions()[name].state != state:
        assert time.monotonic() < deadline, broker.transactions()[name]
        time.sleep(0.01)


def test_a_test_aborts_what_is_open_and_its_producer_is_fenced(broker: Broker, topic: str) -> None:
    producer = transactional(broker, topic)
    write(producer, topic, "a")
    broker.abort(topic)
    wait_for(broker, topic, "CompleteAbort")
    with pytest.raises(KafkaException) as caught:
        producer.commit_transaction(HANG_S)
    assert caught.value.args[0].code() in (ClientError._FENCED, ClientError.INVALID_PRODUCER_EPOCH)
    assert values(broker, topic, read_committed=True) == []
    # Nothing is open.
    broker.abort(topic)


def test_nobody_has_had_an_id(broker: Broker) -> None:
    with pytest.raises(KafkaError) as caught:
        broker.abort("nobody")
    assert caught.value.code == ErrorCode.transactional_id_not_found


def test_markers_are_held_until_the_test_lets_them_go(broker: Broker, topic: str) -> None:
    producer = transactional(broker, topic)
    write(producer, topic, "a")
    with broker.faults.hold_markers(topic=f"{topic[:10]}*") as held:
        producer.commit_transaction(HANG_S)
        assert broker.transactions()[topic].state == "PrepareCommit"
        assert values(broker, topic, read_committed=True) == []
        assert held.hits > 0
    wait_for(broker, topic, "CompleteCommit")
    assert values(broker, topic, read_committed=True) == [b"a"]
