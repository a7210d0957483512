"""A broker by itself that loses the end of a log in a crash: readers notice that what they read is gone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, KafkaError, Producer, TopicPartition

from interop.process import BrokerProcess, wait_until
from interop.raw import RawClient
from ottla.wire import records

QUIET = {"log_level": 0}
READ, KEPT, WRITTEN = 10, 5, 8


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[BrokerProcess]:
    with BrokerProcess(tmp_path) as made:
        yield made


def produce(broker: BrokerProcess, topic: str, *values: str) -> None:
    made = Producer({"bootstrap.servers": broker.bootstrap, "batch.num.messages": 1, **QUIET})
    for value in values:
        made.produce(topic, value, partition=0)
    assert made.flush(30) == 0


def leader_epoch(broker: BrokerProcess, topic: str) -> int:
    with RawClient(broker.bootstrap) as client:
        answer = client.call(
            "Metadata",
            topics=[{"topic_id": None, "name": topic}],
            allow_auto_topic_creation=False,
            include_topic_authorized_operations=False,
        )
    return int(answer.topics[0].partitions[0].leader_epoch)


def lose_tail(broker: BrokerProcess, topic: str, kept: int) -> None:
    """As when the machine lost what was not synced: whole batches from the log's end."""
    (path,) = (broker.data / f"{topic}-0").glob("*.log")
    data = path.read_bytes()
    size = sum(len(batch) for _, batch in list(records.iter_batches(data))[:kept])
    path.write_bytes(data[:size])


class Reader:
    """Somebody who reads on, whatever becomes of the broker."""

    def __init__(self, broker: BrokerProcess, topic: str, reset: str) -> None:
        self.values: list[str] = []
        self.errors: list[KafkaError] = []
        settings: dict[str, Any] = {
            "bootstrap.servers": broker.bootstrap,
            "group.id": "reader",
            "auto.offset.reset": reset,
            "reconnect.backoff.max.ms": 500,
            "enable.auto.commit": False,
        }
        self._consumer = Consumer({**settings, **QUIET})
        self._consumer.assign([TopicPartition(topic, 0, 0)])

    def poll(self) -> None:
        for message in self._consumer.consume(100, 0.1):
            error = message.error()
            if error is None:
                value = message.value()
                assert value is not None
                self.values.append(value.decode())
            elif error.code() not in (KafkaError._TRANSPORT, KafkaError._ALL_BROKERS_DOWN):
                self.errors.append(error)

    def close(self) -> None:
        self._consumer.close()


@pytest.mark.parametrize("reset", ["earliest", "error"])
def test_a_consumer_notices_that_what_it_read_is_gone(broker: BrokerProcess, name: str, reset: str) -> None:
    """By the leader epoch, which is another one after each start (KIP-320): its offset is there again, and
    what is before it is not what it read."""
    with RawClient(broker.bootstrap) as client:
        client.create_topic(name)
    old = [f"old-{number}" for number in range(READ)]
    new = [f"new-{number}" for number in range(WRITTEN)]
    produce(broker, name, *old)
    assert leader_epoch(broker, name) == 0
    reader = Reader(broker, name, reset)
    try:
        wait_until(lambda: reader.poll() or len(reader.values) == READ, what="what was written")
        broker.kill()
        lose_tail(broker, name, KEPT)
        broker.start()
        produce(broker, name, *new)
        if reset == "error":
            wait_until(lambda: reader.poll() or reader.errors, what="an error")
            assert "truncation" in reader.errors[0].str().lower(), reader.errors
            assert reader.values == old
        else:
            # librdkafka goes to where the logs part.
            expected = old + new
            wait_until(lambda: reader.poll() or len(reader.values) >= len(expected), what="all of it")
            assert reader.values == expected
    finally:
        reader.close()


def test_each_start_begins_a_new_leader_epoch(broker: BrokerProcess, name: str) -> None:
    """Also one after an orderly stop, as in Kafka, where the node registers anew."""
    with RawClient(broker.bootstrap) as client:
        client.create_topic(name, 3)
    for start in range(3):
        assert leader_epoch(broker, name) == start
        produce(broker, name, str(start))
        assert broker.stop() == 0
        broker.start()
    with RawClient(broker.bootstrap) as client:
        assert client.values(name) == [b"0", b"1", b"2"]
        for epoch, end_offset in ((0, 1), (1, 2), (2, 3)):
            fields = {"partition": 0, "current_leader_epoch": 3, "leader_epoch": epoch}
            answer = client.call(
                "OffsetForLeaderEpoch", replica_id=-2, topics=[{"topic": name, "partitions": [fields]}]
            )
            found = answer.topics[0].partitions[0]
            assert (found.error_code, found.leader_epoch, found.end_offset) == (0, epoch, end_offset)
