"""One broker process for the interop tests of a worker, fresh names for each test.

With OTTLA_INTEROP_BOOTSTRAP=host:port the same tests run against that Kafka-compatible broker instead: the
way to tell a wrong test from a wrong broker.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable

import pytest
from confluent_kafka.admin import AdminClient, NewTopic

from interop.process import BrokerProcess


@pytest.fixture(scope="session")
def bootstrap(request: pytest.FixtureRequest) -> str:
    """Address of the broker under test."""
    outside = os.environ.get("OTTLA_INTEROP_BOOTSTRAP")
    if outside:
        return outside
    broker: BrokerProcess = request.getfixturevalue("ottla_server")
    return broker.bootstrap


@pytest.fixture
def name() -> str:
    """A name for a topic or group that no other test uses."""
    return f"t-{uuid.uuid4().hex[:12]}"


@pytest.fixture(scope="session")
def admin(bootstrap: str) -> AdminClient:
    return AdminClient({"bootstrap.servers": bootstrap})


@pytest.fixture
def make_topic(admin: AdminClient) -> Callable[..., str]:
    """make_topic(partitions=1, **config with underscores) creates a topic and gives its name.

    Nothing expires unless told: the tests write records with timestamps of years ago."""

    def make(partitions: int = 1, **config: str) -> str:
        topic = f"t-{uuid.uuid4().hex[:12]}"
        config = {"retention_ms": "-1", **config}
        new = NewTopic(
            topic,
            num_partitions=partitions,
            replication_factor=1,
            config={key.replace("_", "."): str(value) for key, value in config.items()},
        )
        admin.create_topics([new])[topic].result(timeout=60)
        return topic

    return make
