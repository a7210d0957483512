"""What a fault does to a request: an error for one topic spares the others."""

from __future__ import annotations

import socket
from collections import namedtuple
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ottla.broker.faults import merge, split
from ottla.testing import Broker
from ottla.types import Record
from ottla.wire.apis import BY_NAME
from ottla.wire.messages import decode_response, encode_request, response_header_flexible
from ottla.wire.records import build_batch

Request = namedtuple("Request", "acks topics")
Fetch = namedtuple("Fetch", "max_wait_ms session_id session_epoch topics")


@given(st.lists(st.integers(0, 9)), st.sets(st.integers(0, 9)))
def test_split_loses_nothing_and_keeps_the_order(topics: list[int], failing: set[int]) -> None:
    request = Request(-1, tuple(topics))
    hit, spared = split(request, failing.__contains__)
    expected = [topic for topic in topics if topic not in failing]
    if not expected or len(expected) == len(topics):
        assert (hit, spared) == (request, None)
    else:
        assert spared == Request(-1, tuple(expected))
        assert hit == Request(-1, tuple(topic for topic in topics if topic in failing))


def test_what_is_left_of_a_fetch_neither_waits_nor_begins_a_session() -> None:
    hit, spared = split(Fetch(500, 0, 0, (1, 2)), lambda topic: topic == 1)
    assert hit == Fetch(500, 0, 0, (1,))
    assert spared == Fetch(0, 0, -1, (2,))


def test_merge_joins_lists_and_takes_the_rest_from_what_was_served() -> None:
    served = {"throttle_time_ms": 7, "error_code": 0, "topics": [1, 2]}
    failed = {"error_code": 5, "topics": [3], "message": "m"}
    assert merge(served, failed) == {
        "throttle_time_ms": 7,
        "error_code": 0,
        "topics": [1, 2, 3],
        "message": "m",
    }
    assert merge({}, failed) == failed


# ------------------------------------------------------------ over the wire


@pytest.fixture(scope="module")
def broker() -> Iterator[Broker]:
    with Broker(topics=["orders", "audit"]) as broker:
        yield broker


def ask(broker: Broker, api: str, version: int, fields: dict[str, Any]) -> Any:
    """One request on a connection of its own, and its response."""
    key = BY_NAME[api].key
    flexible = response_header_flexible(key, version)
    header = key.to_bytes(2) + version.to_bytes(2) + (7).to_bytes(4) + b"\xff\xff" + b"\0" * flexible
    body = header + encode_request(key, version, fields)
    with socket.create_connection((broker.host, broker.port), timeout=60) as client:
        client.sendall(len(body).to_bytes(4) + body)
        with client.makefile("rb") as stream:
            response = stream.read(int.from_bytes(stream.read(4)))
    assert int.from_bytes(response[:4]) == 7
    return decode_response(key, version, response, 5 if flexible else 4)


@pytest.mark.parametrize("version", [7, 9])
def test_produce_to_two_topics_of_which_one_fails(broker: Broker, version: int) -> None:
    before = len(broker.records("audit"))
    batch = build_batch([Record(0, 1, None, b"x")])
    topics = [
        {"name": name, "partition_data": [{"index": 0, "records": batch}]} for name in ("orders", "audit")
    ]
    fields = {"transactional_id": None, "acks": -1, "timeout_ms": 1000, "topic_data": topics}
    with broker.faults.fail("Produce", "TOPIC_AUTHORIZATION_FAILED", topic="ord*"):
        response = ask(broker, "Produce", version, fields)
    codes = {t.name: [p.error_code for p in t.partition_responses] for t in response.responses}
    assert codes == {"orders": [29], "audit": [0]}
    assert broker.records("orders") == []
    assert len(broker.records("audit")) == before + 1


@pytest.mark.parametrize("version", [6, 12])
def test_fetch_from_two_topics_of_which_one_fails(broker: Broker, version: int) -> None:
    """Before sessions and with them; it does not wait, although there is too little."""
    broker.produce("audit", b"y")
    partition = {"partition": 0, "fetch_offset": 0, "partition_max_bytes": 1 << 20}
    fields = {
        "max_wait_ms": 30_000,
        "min_bytes": 1 << 20,
        "max_bytes": 1 << 20,
        "session_epoch": 0,
        "topics": [{"topic": name, "partitions": [partition]} for name in ("orders", "audit")],
        "forgotten_topics_data": [],
    }
    with broker.faults.fail("Fetch", "NOT_LEADER_OR_FOLLOWER", topic="orders"):
        response = ask(broker, "Fetch", version, fields)
    answers = {t.topic: t.partitions[0] for t in response.responses}
    assert (answers["orders"].error_code, answers["audit"].error_code) == (6, 0)
    assert not answers["orders"].records
    assert answers["audit"].records


def test_metadata_keeps_brokers_and_other_topics(broker: Broker) -> None:
    with broker.faults.fail("Metadata", "LEADER_NOT_AVAILABLE", topic="orders"):
        response = ask(broker, "Metadata", 1, {"topics": [{"name": "orders"}, {"name": "audit"}]})
    assert len(response.brokers) == 1
    found = {t.name: (t.error_code, len(t.partitions)) for t in response.topics}
    assert found == {"orders": (5, 0), "audit": (0, 1)}


def test_an_admin_request_for_two_topics_of_which_one_fails(broker: Broker) -> None:
    fields = {
        "timeout_ms": 1000,
        "topics": [
            {"name": n, "num_partitions": 1, "replication_factor": 1, "assignments": [], "configs": []}
            for n in ("new-1", "new-2")
        ],
    }
    with broker.faults.fail("CreateTopics", "POLICY_VIOLATION", topic="new-1"):
        response = ask(broker, "CreateTopics", 5, fields)
    assert {t.name: t.error_code for t in response.topics} == {"new-1": 44, "new-2": 0}
    assert "new-1" not in broker.topics()
    assert "new-2" in broker.topics()
