"""Clients' own metrics in a scrape, and what is told of how they come."""

from __future__ import annotations

from collections.abc import Iterator
from uuid import UUID

import pytest
from observe_support import get, scrape
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from test_telemetry import gauge, metrics

from interop.raw import RawClient
from ottla.testing import Broker
from ottla.text import id_text

NAMELESS = UUID(int=0)


@pytest.fixture
def broker() -> Iterator[Broker]:
    with Broker(metrics=True) as running:
        yield running


def push(
    client: RawClient,
    asked: object,
    data: bytes,
    subscription: int | None = None,
    *,
    terminating: bool = False,
) -> int:
    answer = client.call(
        "PushTelemetry",
        client_instance_id=asked.client_instance_id,  # type: ignore[attr-defined]
        subscription_id=asked.subscription_id if subscription is None else subscription,  # type: ignore[attr-defined]
        terminating=terminating,
        compression_type=0,
        metrics=data,
    )
    return int(answer.error_code)


def test_clients_metrics_are_shown_with_who_has_sent_them(broker: Broker) -> None:
    assert scrape(broker).value("ottla_telemetry_clients") == 0
    data = metrics(*(gauge(f"org.apache.kafka.m{n}", n, topic='a"b') for n in range(2_001)))
    with RawClient(broker.bootstrap_servers) as client:
        asked = client.call("GetTelemetrySubscriptions", client_instance_id=NAMELESS)
        assert push(client, asked, b"", subscription=asked.subscription_id + 1)
        assert push(client, asked, b"")
        # Its last one may come at any time.
        assert not push(client, asked, data.SerializeToString(), terminating=True)
        found = scrape(broker)
        assert found.value("ottla_telemetry_clients") == 1
    labels = {"client_instance_id": id_text(asked.client_instance_id), "topic": 'a"b'}
    assert found.total("kafka_client_m7", **labels) == 7
    assert found.value("ottla_telemetry_pushes_total") == 1
    assert found.value("ottla_telemetry_throttled_total") == 1
    assert found.value("ottla_telemetry_unknown_subscriptions_total") == 1
    assert found.value("ottla_telemetry_values") == 2_000
    assert found.value("ottla_telemetry_dropped_values_total") == 1
    answer = get(broker.metrics_address, "/metrics", Accept="application/openmetrics-text")
    families = {one.name: one.type for one in parse_openmetrics(answer.body.decode())}
    assert families["kafka_client_m7"] == "unknown"


def test_they_are_asked_for_while_metrics_are_served(broker: Broker) -> None:
    def listed() -> set[int]:
        with RawClient(broker.bootstrap_servers) as client:
            return {api.api_key for api in client.call("ApiVersions", 2).api_keys}

    assert {71, 72} <= listed()
    with Broker() as silent, RawClient(silent.bootstrap_servers) as client:
        assert not {71, 72} & {api.api_key for api in client.call("ApiVersions", 2).api_keys}
