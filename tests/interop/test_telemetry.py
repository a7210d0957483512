"""Clients that send metrics of their own when they are asked (KIP-714): librdkafka's and Java's."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from confluent_kafka import Producer
from observe_support import scrape

from interop import test_java
from interop.process import wait_until
from interop.raw import RawClient
from measuring import HANG_S
from ottla.testing import Broker
from prometheus_support import MONITORING

classes, java = test_java.classes, test_java.java


@pytest.fixture
def broker() -> Iterator[Broker]:
    """Asks all clients for all metrics, ten times a second."""
    with Broker(topics=["t"], metrics=True) as made:
        configs = [
            {"name": name, "value": value, "config_operation": 0}
            for name, value in (("metrics", "*"), ("interval.ms", "100"))
        ]
        resources = [{"resource_type": 16, "resource_name": "all", "configs": configs}]
        with RawClient(made.bootstrap_servers) as client:
            answer = client.call("IncrementalAlterConfigs", resources=resources, validate_only=False)
        assert not answer.responses[0].error_code
        yield made


def sent(broker: Broker, software: str) -> set[str]:
    """The names of the metrics that clients of some software have sent."""
    found = scrape(broker).samples
    return {name for name, labels in found if dict(labels).get("client_software_name") == software}


def test_librdkafka(broker: Broker) -> None:
    producer = Producer({"bootstrap.servers": broker.bootstrap_servers, "client.id": "shop"})
    producer.produce("t", b"x")
    assert producer.flush(HANG_S) == 0
    names = wait_until(lambda: sent(broker, "librdkafka") or sent(broker, "confluent-kafka-python"), HANG_S)
    assert names and all(name.startswith("kafka_client_producer_") for name in names), names


def test_java(broker: Broker, java: Callable[..., list[tuple[str, Any]]]) -> None:
    # It takes a while, of which it tells ten times a second.
    java("produce", "t", "all", 100_000, "none", at=broker.bootstrap_servers)
    names = sent(broker, "apache-kafka-java")
    assert "kafka_client_producer_connection_creation_total" in names, names
    # What the dashboard shows of producers.
    shown = set(re.findall(r"kafka_client_producer_\w+", (MONITORING / "ottla-dashboard.json").read_text()))
    assert shown and shown <= names
