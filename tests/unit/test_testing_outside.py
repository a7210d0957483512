"""A broker outside of the test's process, as `ottla.testing.OutsideBroker` reaches it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from confluent_kafka import Consumer, Producer
from confluent_kafka import TopicPartition as At

from ottla.errors import ErrorCode
from ottla.testing import Broker, KafkaError, OutsideBroker, StoredRecord
from ottla.types import TopicPartition


@pytest.fixture(scope="module")
def inside() -> Iterator[Broker]:
    with Broker() as broker:
        yield broker


@pytest.fixture
def outside(inside: Broker) -> OutsideBroker:
    inside.reset()
    # The first that can be reached is asked.
    return OutsideBroker(f"127.0.0.1:1,{inside.bootstrap_servers}")


def test_topics_come_and_go(inside: Broker, outside: OutsideBroker) -> None:
    outside.create_topic("orders", 2, config={"retention.ms": 60_000})
    assert outside.topics() == inside.topics() == {"orders": 2}
    with pytest.raises(KafkaError) as raised:
        outside.create_topic("orders")
    assert raised.value.code is ErrorCode.topic_already_exists
    with pytest.raises(KafkaError, match=r"Topic 'order' does not exist. Did you mean 'orders'"):
        outside.delete_topic("order")
    outside.delete_topic("orders")
    assert inside.topics() == {}


def test_records_are_those_that_the_broker_has(inside: Broker, outside: OutsideBroker) -> None:
    inside.create_topic("orders", 2)
    assert outside.produce("orders", "a", None, key="k", headers={"h": b"1"}, timestamp_ms=5) == 0
    assert outside.produce("orders", "x" * 100_000, partition=1) == 0
    assert outside.records("orders") == inside.records("orders")
    assert outside.records("orders", 0)[0] == StoredRecord(0, 0, 5, b"k", b"a", (("h", b"1"),))
    assert len(outside.wait_for_records("orders", 3)) == 3
    with pytest.raises(TimeoutError, match=r"3 of 4 records of 'orders' were there after 0 s"):
        outside.wait_for_records("orders", 4, timeout_s=0)
    with pytest.raises(KafkaError, match="has no partition 2: it has 2, from 0"):
        outside.records("orders", 2)
    outside.delete_records("orders", 0)
    assert [one.partition for one in outside.records("orders")] == [1]


def test_records_of_transactions(inside: Broker, outside: OutsideBroker) -> None:
    inside.create_topic("orders")
    producer = Producer({"bootstrap.servers": inside.bootstrap_servers, "transactional.id": "t"})
    producer.init_transactions(10)
    for value in (b"aborted", b"committed"):
        producer.begin_transaction()
        producer.produce("orders", value, partition=0)
        producer.flush(10)
        producer.abort_transaction(10) if value == b"aborted" else producer.commit_transaction(10)
    assert [one.value for one in outside.records("orders", read_committed=True)] == [b"committed"]
    assert len(outside.records("orders")) == 2


def test_groups_are_followed(inside: Broker, outside: OutsideBroker) -> None:
    inside.create_topic("orders", 2)
    inside.produce("orders", "a", "b")
    assert outside.committed("g") == {}
    with pytest.raises(TimeoutError, match="orders-0: nothing is committed, the end is 2"):
        outside.wait_until_consumed("g", "orders", timeout_s=0)
    with pytest.raises(TimeoutError, match="the group has committed nothing"):
        outside.wait_until_consumed("g", timeout_s=0)

    with Consumer(
        outside.client_properties() | {"group.id": "g", "bootstrap.servers": inside.bootstrap_servers}
    ) as c:
        c.commit(offsets=[At("orders", 0, 2)], asynchronous=False)
    assert outside.committed("g") == {TopicPartition("orders", 0): 2}
    outside.wait_until_consumed("g")


def test_what_is_not_there_yet_is_waited_for(outside: OutsideBroker) -> None:
    with pytest.raises(TimeoutError, match=r"had not consumed 'later' after 0 s: Topic 'later' does not"):
        outside.wait_until_consumed("g", "later", timeout_s=0)


def test_a_cluster_without_a_controller_is_an_error_of_kafka(
    outside: OutsideBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(OutsideBroker, "_metadata", lambda self: {})
    with pytest.raises(KafkaError, match="no controller") as raised:
        outside.create_topic("orders")
    assert raised.value.code is ErrorCode.broker_not_available


def test_what_an_outside_broker_cannot_do_says_so(outside: OutsideBroker) -> None:
    with pytest.raises(AttributeError, match=r"'faults' needs a broker in the test's process: 127.0.0.1:1,"):
        _ = outside.faults
    with pytest.raises(AttributeError, match="'kill' needs a broker"):
        outside.kill()
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = outside.nothing
    with pytest.raises(ConnectionError, match=r"no broker of 127\.0\.0\.1:1 can be reached: "):
        OutsideBroker("127.0.0.1:1").topics()
    with pytest.raises(ValueError, match="'here' is not HOST:PORT"):
        OutsideBroker("here")
    with pytest.raises(ValueError, match="'here:70000' is not HOST:PORT"):
        OutsideBroker("here:70000")
