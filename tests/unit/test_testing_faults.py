"""Faults: which requests they match, how they add up and end, and what is kept of what was asked."""

from __future__ import annotations

import threading
from collections import namedtuple
from typing import NamedTuple
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ottla.broker.faults import Fault
from ottla.testing.faults import REQUESTS_MAX, Faults, combine, topics_of
from ottla.wire.apis import APIS, BY_NAME
from ottla.wire.messages import decode_request, encode_request

ORDERS_ID = UUID("11111111-2222-3333-4444-555555555555")


class Context(NamedTuple):
    """What the broker tells of a request."""

    api_key: int
    api_version: int = 7
    client_id: str = "app-1"


Topic = namedtuple("Topic", "name")
ById = namedtuple("ById", "topic_id")
Produce = namedtuple("Produce", "acks timeout_ms topic_data")
Heartbeat = namedtuple("Heartbeat", "group_id generation_id")
Fetch = namedtuple("Fetch", "session_id topics")


def produce(*topics: str) -> Produce:
    return Produce(-1, 30_000, tuple(map(Topic, topics)))


def ask(faults: Faults, api: str, request: object, client_id: str = "app-1") -> Fault | None:
    return faults.before(Context(BY_NAME[api].key, client_id=client_id), request)


def test_no_fault_is_none() -> None:
    assert ask(Faults(), "Produce", produce("orders")) is None


def test_fail_applies_to_the_next_times_requests_of_its_api() -> None:
    faults = Faults()
    rule = faults.fail("Produce", "NOT_ENOUGH_REPLICAS", times=2)
    assert ask(faults, "Heartbeat", Heartbeat("g", 1)) is None
    assert ask(faults, "Produce", produce("a")) == Fault(error_code=19)
    assert rule.left == 1
    assert ask(faults, "Produce", produce("b")) == Fault(error_code=19)
    assert ask(faults, "Produce", produce("a")) is None
    assert (rule.hits, rule.left, faults.rules) == (2, 0, ())


def test_without_times_a_fault_lasts_until_it_is_ended() -> None:
    faults = Faults()
    rule = faults.drop("Produce")
    for _ in range(5):
        assert ask(faults, "Produce", produce("a")) == Fault(drop="before")
    rule.end()
    rule.end()
    assert ask(faults, "Produce", produce("a")) is None
    assert rule.hits == 5


def test_as_a_context_manager_it_ends_with_the_block_also_on_an_exception() -> None:
    faults = Faults()
    with pytest.raises(RuntimeError), faults.drop("Produce", after=True):
        assert ask(faults, "Produce", produce("a")) == Fault(drop="after")
        raise RuntimeError
    assert ask(faults, "Produce", produce("a")) is None


def test_clear_ends_all_and_keeps_what_was_seen() -> None:
    faults = Faults()
    faults.drop("Produce")
    faults.refuse_connections()
    ask(faults, "Produce", produce("a"))
    faults.clear()
    assert ask(faults, "Produce", produce("a")) is None
    assert not faults.refuses_connections()
    assert len(faults.requests) == 2


@pytest.mark.parametrize(
    ("pattern", "topic", "matches"),
    [("orders", "orders", True), ("orders", "orders2", False), ("ord*", "orders", True), ("*", "x", True)],
)
def test_topics_are_patterns(pattern: str, topic: str, matches: bool) -> None:
    faults = Faults()
    faults.fail("Produce", 6, topic=pattern)
    assert (ask(faults, "Produce", produce("other", topic)) is not None) == (matches or pattern == "*")


def test_a_topic_matches_no_request_without_topics() -> None:
    faults = Faults()
    faults.fail(None, "NOT_COORDINATOR", topic="*")
    assert ask(faults, "Heartbeat", Heartbeat("g", 1)) is None


def test_client_ids_are_patterns() -> None:
    faults = Faults()
    faults.delay(None, 5, client_id="slow-*")
    assert ask(faults, "Produce", produce("a"), "slow-7") == Fault(delay_ms=5)
    assert ask(faults, "Produce", produce("a"), "fast") is None
    assert ask(faults, "Produce", produce("a"), "") is None


def test_several_apis_at_once() -> None:
    faults = Faults()
    faults.fail(["Heartbeat", "Produce"], "COORDINATOR_NOT_AVAILABLE")
    assert ask(faults, "Heartbeat", Heartbeat("g", 1)) == ask(faults, "Produce", produce("a"))
    assert ask(faults, "Fetch", Fetch(0, ())) is None


def test_matching_faults_add_up() -> None:
    faults = Faults()
    faults.delay("Produce", 100)
    faults.fail("Produce", 19, times=1)
    faults.delay(None, 50)
    faults.fail("Produce", 20)
    faults.drop("Produce", after=True)
    assert ask(faults, "Produce", produce("a")) == Fault(19, 150, "after")
    assert ask(faults, "Produce", produce("a")) == Fault(20, 150, "after")


FAULTS = st.builds(
    Fault,
    st.none() | st.integers(1, 100),
    st.integers(0, 1000).map(float),
    st.none() | st.sampled_from(["before", "after"]),
    st.none() | st.sampled_from(["orders", "a*"]),
)


@given(st.lists(FAULTS))
def test_combining_is_the_sum_of_delays_and_the_first_of_the_rest(faults: list[Fault]) -> None:
    combined = combine(faults)
    if not faults:
        assert combined is None
        return
    assert combined is not None
    assert combined.delay_ms == sum(f.delay_ms for f in faults)
    failing = [fault for fault in faults if fault.error_code is not None]
    assert combined.error_code == (failing[0].error_code if failing else None)
    if failing:
        assert combined.topic == failing[0].topic
    assert combined.drop == next((f.drop for f in faults if f.drop is not None), None)


def test_refused_connections_are_counted_and_end() -> None:
    faults = Faults()
    refusal = faults.refuse_connections(times=2)
    assert [faults.refuses_connections() for _ in range(3)] == [True, True, False]
    assert refusal.hits == 2
    with faults.refuse_connections():
        assert faults.refuses_connections()
        assert ask(faults, "Produce", produce("a")) is None
    assert not faults.refuses_connections()


@pytest.mark.parametrize(
    "wrong",
    [
        lambda faults: faults.fail("Prodcue", "NOT_ENOUGH_REPLICAS"),
        lambda faults: faults.fail("Produce", "NOT_ENOUGH"),
        lambda faults: faults.fail("Produce", 9999),
        lambda faults: faults.fail("Produce", "NONE"),
        lambda faults: faults.drop("Produce", times=0),
        lambda faults: faults.delay("Produce", -1),
        lambda faults: faults.seen("produce"),
    ],
)
def test_what_cannot_be_is_refused_when_it_is_asked_for(wrong: object) -> None:
    faults = Faults()
    with pytest.raises(ValueError):
        wrong(faults)  # type: ignore[operator]
    assert faults.rules == ()


def test_requests_are_kept_with_topics_plain_fields_and_their_fault() -> None:
    faults = Faults()
    faults.fail("Produce", "REQUEST_TIMED_OUT", times=1)
    ask(faults, "Produce", produce("orders", "audit"), "shop")
    (request,) = faults.requests
    assert (request.api, request.version, request.client_id) == ("Produce", 7, "shop")
    assert request.topics == ("orders", "audit")
    assert request.fields == {"acks": -1, "timeout_ms": 30_000}
    assert request.fault == Fault(error_code=7)


def test_seen_chooses_by_api_topic_and_client() -> None:
    faults = Faults()
    ask(faults, "Produce", produce("orders"), "a")
    ask(faults, "Produce", produce("audit"), "b")
    ask(faults, "Heartbeat", Heartbeat("g", 3), "b")
    assert [r.topics for r in faults.seen("Produce")] == [("orders",), ("audit",)]
    assert [r.client_id for r in faults.seen(topic="aud*")] == ["b"]
    assert [r.api for r in faults.seen(client_id="b")] == ["Produce", "Heartbeat"]
    assert faults.seen("Heartbeat")[0].fields == {"group_id": "g", "generation_id": 3}
    faults.forget()
    assert faults.seen() == []


def test_what_is_kept_is_bounded() -> None:
    faults = Faults()
    for number in range(REQUESTS_MAX + 10):
        ask(faults, "Heartbeat", Heartbeat("g", number))
    assert len(faults.requests) == REQUESTS_MAX
    assert faults.requests[0].fields["generation_id"] == 10


def test_wait_for_returns_once_enough_has_been_asked() -> None:
    faults = Faults()
    ask(faults, "Produce", produce("a"))
    asker = threading.Thread(target=lambda: [ask(faults, "Produce", produce("a")) for _ in range(2)])
    asker.start()
    assert len(faults.wait_for("Produce", 3)) == 3
    asker.join()


def test_wait_for_says_what_did_not_come() -> None:
    with pytest.raises(
        TimeoutError, match=r"0 of 1 requests \(Produce, topic 'shop-\*', client 'a'\) in 0.01 s"
    ):
        Faults().wait_for("Produce", topic="shop-*", client_id="a", timeout_s=0.01)
    with pytest.raises(TimeoutError, match=r"0 of 1 requests \(any\)"):
        Faults().wait_for(timeout_s=0.01)


def test_topic_ids_are_looked_up() -> None:
    faults = Faults(topic_name={ORDERS_ID: "orders"}.get)
    faults.fail("Produce", 3, topic="orders")
    assert ask(faults, "Produce", Produce(-1, 1, (ById(ORDERS_ID),))) is not None
    assert ask(faults, "Produce", Produce(-1, 1, (ById(UUID(int=7)),))) is None


PARTITION = {
    "index": 0,
    "partition": 0,
    "partition_index": 0,
    "records": b"",
    "fetch_offset": 0,
    "partition_max_bytes": 1,
    "timestamp": -1,
    "committed_offset": 1,
    "committed_metadata": None,
    "offset": 0,
    "leader_epoch": 0,
}
REQUESTS = {
    "Produce": {"acks": 1, "timeout_ms": 1, "transactional_id": None, "topic_data": "partition_data"},
    "Fetch": {
        "max_wait_ms": 1,
        "min_bytes": 1,
        "max_bytes": 1,
        "topics": "partitions",
        "forgotten_topics_data": [],
    },
    "ListOffsets": {"timeout_ms": 1, "replica_id": -1, "isolation_level": 0, "topics": "partitions"},
    "OffsetCommit": {
        "group_id": "g",
        "generation_id_or_member_epoch": 1,
        "member_id": "",
        "retention_time_ms": -1,
        "topics": "partitions",
    },
    "OffsetForLeaderEpoch": {"topics": "partitions"},
    "DeleteRecords": {"timeout_ms": 1, "topics": "partitions"},
}


def _cases() -> list[tuple[str, int]]:
    return [
        (name, version)
        for name in REQUESTS
        for version in range(BY_NAME[name].version_min, BY_NAME[name].version_max + 1)
    ]


@pytest.mark.parametrize(("api", "version"), _cases())
def test_topics_are_found_in_every_version_of_real_requests(api: str, version: int) -> None:
    """By name or by id, as the version has it."""
    fields = dict(REQUESTS[api])
    for name in ("topics", "topic_data"):
        if name in fields:
            topic = {"name": "orders", "topic": "orders", "topic_id": ORDERS_ID, fields[name]: [PARTITION]}
            fields[name] = [topic]
    key = BY_NAME[api].key
    request = decode_request(key, version, encode_request(key, version, fields))
    assert list(topics_of(request, {ORDERS_ID: "orders"}.get)) == ["orders"]


def test_topics_of_group_requests_and_of_config_resources() -> None:
    fetch = BY_NAME["OffsetFetch"]
    groups = [{"group_id": "g", "topics": [{"name": "orders", "partition_indexes": [0]}]}]
    request = decode_request(
        fetch.key, 9, encode_request(fetch.key, 9, {"groups": groups, "require_stable": False})
    )
    assert list(topics_of(request, lambda _: None)) == ["orders"]

    configs = BY_NAME["DescribeConfigs"]
    resources = [
        {"resource_type": 2, "resource_name": "orders", "configuration_keys": None},
        {"resource_type": 4, "resource_name": "0", "configuration_keys": None},
    ]
    request = decode_request(configs.key, 4, encode_request(configs.key, 4, {"resources": resources}))
    assert list(topics_of(request, lambda _: None)) == ["orders"]


def test_every_api_that_is_served_can_be_named() -> None:
    faults = Faults()
    faults.delay([api.name for api in APIS.values()], 1)
    for api in APIS.values():
        assert faults.before(Context(api.key), Heartbeat("g", 1)) == Fault(delay_ms=1)
