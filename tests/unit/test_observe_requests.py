"""What watches requests: counts, stages, errors; also what is nested, pending, refused or throttled."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

import pytest
from confluent_kafka import Consumer, Producer
from observe_support import Scraped, scrape

from interop.raw import RawClient, batch, fetch_fields, framed, produce_fields
from ottla.broker.pending import Pending
from ottla.broker.request import Client, CloseConnection
from ottla.errors import ErrorCode
from ottla.observe.requests import LOOKED_AT_MAX, UNKNOWN, WINDOW_NS, RequestWatcher, Seen
from ottla.testing import Broker
from ottla.wire.apis import FETCH, METADATA, PRODUCE


class Time:
    """Nanoseconds, as they are set."""

    def __init__(self) -> None:
        self.now = 1_000

    def __call__(self) -> int:
        return self.now


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def watcher(time: Time) -> RequestWatcher:
    return RequestWatcher(time)


def frame(key: int, size: int = 10) -> bytes:
    return struct.pack(">h", key) + bytes(size - 2)


CLIENT = Client("h", "L")


def test_what_is_answered_at_once(watcher: RequestWatcher, time: Time) -> None:
    def handle(client: Client, data: Any) -> Any:
        time.now += 70_000
        return [b"abc", b"de"]

    client = Client("h", "L")
    client.waited_ns = 3_000_000
    assert watcher.answer(client, frame(PRODUCE), handle) == [b"abc", b"de"]
    counts = watcher.counts[PRODUCE]
    assert (counts.requests, counts.request_bytes, counts.response_bytes) == (1, 14, 5)
    assert counts.local.counts[1] == 1 and counts.local.sum_ns == 70_000
    assert counts.queue.sum_ns == 3_000_000
    assert (client.waited_ns, sum(counts.remote.counts), counts.pended) == (0, 0, 0)


def test_what_is_handled_within_another_counts_for_itself(watcher: RequestWatcher, time: Time) -> None:
    def inner(client: Client, data: Any) -> Any:
        time.now += 500
        return [b""]

    def outer(client: Client, data: Any) -> Any:
        time.now += 20
        for _ in range(2):
            watcher.answer(client, frame(PRODUCE), inner)
        return [b""]

    watcher.answer(CLIENT, frame(FETCH), outer)
    assert watcher.counts[FETCH].local.sum_ns == 20
    assert watcher.counts[PRODUCE].local.sum_ns == 1_000
    watcher.answer(CLIENT, frame(PRODUCE), inner)
    assert watcher.counts[PRODUCE].local.sum_ns == 1_500


def test_what_is_pending_is_told_of_when_it_is_sent(watcher: RequestWatcher, time: Time) -> None:
    seen: list[Seen] = []
    watcher.listeners = (seen.append,)
    pending = Pending(True)
    pending.charge = lambda pieces: [*pieces, b"!"]

    def handle(client: Client, data: Any) -> Any:
        time.now += 5
        return pending

    client = Client("h", "L")
    assert watcher.answer(client, frame(FETCH), handle) is pending
    counts = watcher.counts[FETCH]
    assert (counts.pended, sum(counts.remote.counts), seen) == (1, 0, [])
    time.now += 40_000_000
    client.throttled_ms = 12
    assert pending.charge([b"ab"]) == [b"ab", b"!"]
    assert (counts.remote.sum_ns, counts.response_bytes) == (40_000_000, 3)
    assert (counts.throttle.sum_ns, client.throttled_ms) == (12_000_000, 0)
    (one,) = seen
    assert (one.api_key, one.client, one.frame) == (FETCH, client, frame(FETCH))
    told = (one.queue_ns, one.local_ns, one.remote_ns, one.response_bytes, one.throttle_ms)
    assert told == (0, 5, 40_000_000, 3, 12)


def test_no_answer_and_the_end_of_a_connection(watcher: RequestWatcher) -> None:
    def fails(client: Client, data: Any) -> Any:
        raise CloseConnection("no")

    assert watcher.answer(CLIENT, frame(PRODUCE), lambda client, data: None) is None
    for data in (frame(PRODUCE), frame(999), b"", b"x"):
        with pytest.raises(CloseConnection):
            watcher.answer(CLIENT, data, fails)
    assert (watcher.counts[PRODUCE].requests, watcher.counts[PRODUCE].closed) == (2, 1)
    assert (watcher.counts[UNKNOWN].requests, watcher.counts[UNKNOWN].closed) == (3, 3)
    assert set(watcher.counts) == {PRODUCE, UNKNOWN}
    seen: list[tuple[Any, ...]] = []
    watcher.listeners = (lambda one: seen.append((one.ended_connection, one.request_bytes, one.pieces)),)
    watcher.answer(CLIENT, frame(PRODUCE), lambda client, data: None)
    watcher.answer(CLIENT, frame(PRODUCE), lambda client, data: [b"ab"])
    with pytest.raises(CloseConnection):
        watcher.answer(CLIENT, frame(PRODUCE), fails)
    assert seen == [(False, 14, None), (False, 14, [b"ab"]), (True, 14, None)]


def test_a_listener_that_fails_spoils_nothing(
    watcher: RequestWatcher, caplog: pytest.LogCaptureFixture
) -> None:
    seen: list[Seen] = []

    def breaks(one: Seen) -> None:
        raise ValueError

    watcher.listeners = (breaks, seen.append)
    assert watcher.answer(CLIENT, frame(FETCH), lambda client, data: [b"ab"]) == [b"ab"]
    assert len(seen) == 1 and seen[0].pieces is None
    assert "cannot be told of" in caplog.text


def test_the_slowest_is_that_of_this_minute_and_the_last(watcher: RequestWatcher, time: Time) -> None:
    def takes(took: int) -> None:
        def handle(client: Client, data: Any) -> Any:
            time.now += took
            return [b""]

        watcher.answer(CLIENT, frame(FETCH), handle)

    def slowest() -> int:
        counts = watcher.counts[FETCH]
        return max(counts.slowest_ns, counts.slowest_before_ns)

    takes(700)
    takes(300)
    assert slowest() == 700
    takes(WINDOW_NS)
    assert slowest() == WINDOW_NS
    time.now += WINDOW_NS
    takes(5)
    assert slowest() == 5
    time.now += WINDOW_NS
    takes(3)
    takes(2)
    assert slowest() == 3


def test_errors_are_found_wherever_they_are(watcher: RequestWatcher) -> None:
    inner = [{"error_code": 3, "x": b"abc"}, {"error_code": 0}, {"error_code": ErrorCode.not_coordinator}]
    watcher.told(
        METADATA,
        {"error_code": 15, "names": ["a"], "topics": ({"error_code": 3, "partitions": inner},), "n": 1},
    )
    watcher.told(METADATA, {"error_code": 0, "topics": [b"written"], "more": [{"a": 1}, 2], "none": None})
    assert watcher.counts[METADATA].errors == {15: 1, 3: 2, 16: 1}
    many = [{"error_code": 1}] * (LOOKED_AT_MAX + 100)
    watcher.told(FETCH, {"responses": many, "others": many})
    assert watcher.counts[FETCH].errors[1] < LOOKED_AT_MAX


# ------------------------------------------------------------ of a broker


@pytest.fixture(scope="module")
def broker() -> Iterator[Broker]:
    with Broker(topics={"orders": 1}, metrics=True, config={"auto.create.topics.enable": False}) as running:
        yield running


def count(found: Scraped, api: str, stage: str) -> float:
    return found.value("ottla_request_duration_seconds_count", api=api, stage=stage)


def test_requests_of_clients_are_counted(broker: Broker) -> None:
    producer = Producer({"bootstrap.servers": broker.bootstrap_servers, "linger.ms": 0})
    for number in range(20):
        producer.produce("orders", b"x" * 100)
        if number % 2:
            producer.flush()
    consumer = Consumer(
        {"bootstrap.servers": broker.bootstrap_servers, "group.id": "g", "auto.offset.reset": "earliest"}
    )
    consumer.subscribe(["orders"])
    assert len(consumer.consume(20, timeout=60)) == 20
    consumer.close()
    found = scrape(broker)
    produces = found.value("ottla_requests_total", api="Produce")
    assert produces >= 10
    assert found.value("ottla_request_bytes_total", api="Produce") > 20 * 100
    assert found.value("ottla_response_bytes_total", api="Fetch") > 20 * 100
    for stage in ("queue", "local", "remote", "throttle"):
        assert count(found, "Produce", stage) == produces
    assert found.value("ottla_request_duration_seconds_sum", api="Produce", stage="local") > 0
    assert 0 < found.value("ottla_request_slowest_seconds", api="Produce") < 30
    assert count(found, "JoinGroup", "remote") >= 1
    assert found.value("ottla_request_errors_total", api="JoinGroup", error="MEMBER_ID_REQUIRED") >= 1
    later = scrape(broker)
    for key, value in found.samples.items():
        if key[0].endswith(("_total", "_bucket", "_count", "_sum")):
            assert later.samples[key] >= value, key


def test_errors_and_ends_of_connections_are_counted(broker: Broker) -> None:
    with RawClient(broker.bootstrap_servers) as client:
        # Of one batch, of several, and where all of it is refused; what was asked at once waits for its turn.
        assert client.produce("nowhere", batch(b"v")).error_code == ErrorCode.unknown_topic_or_partition
        assert client.fetch("nowhere").error_code == ErrorCode.unknown_topic_or_partition
        before = scrape(broker)
        client.send(client.frame("Metadata", 1, {"topics": []}) * 30)
        for _ in range(30):
            client.receive()
        client.send(framed(struct.pack(">hhih", METADATA, 0x7F00, 1, -1)))
        assert client.closed()
    found = scrape(broker)
    name = "UNKNOWN_TOPIC_OR_PARTITION"
    assert found.value("ottla_request_errors_total", api="Produce", error=name) == 1
    assert found.value("ottla_request_errors_total", api="Fetch", error=name) == 1
    assert found.value("ottla_request_closings_total", api="Metadata") == 1
    with RawClient(broker.bootstrap_servers) as client:
        client.send(client.frame("ApiVersions", 0, {}))
        client.receive()
        many = {"groups": ["g"] * 10_001, "include_authorized_operations": False}
        client.send(client.frame("DescribeGroups", 3, many))
        assert client.closed()
    refused = "ottla_request_element_refusals_total"
    assert scrape(broker).value(refused, api="DescribeGroups") == 1
    waited = "ottla_request_duration_seconds_sum"
    assert found.value(waited, api="Metadata", stage="queue") > before.total(
        waited, api="Metadata", stage="queue"
    )


def errors(broker: Broker, api: str, code: ErrorCode) -> float:
    return scrape(broker).total("ottla_request_errors_total", api=api, error=code.name.upper())


def test_errors_in_answers_that_are_written_at_once_are_counted(broker: Broker) -> None:
    """Of fetches of many partitions without a session, the first one and those that ask for the same; of
    commits of offsets."""
    broker.create_topic("many", 101)
    fields = fetch_fields("many")
    (one,) = fields["topics"][0]["partitions"]
    fields["topics"][0]["partitions"] = [one | {"partition": index} for index in range(101)]
    for index in (7, 9):
        fields["topics"][0]["partitions"][index]["fetch_offset"] = 5
    with RawClient(broker.bootstrap_servers) as client:
        for times in (1, 2, 3):
            assert len(client.call("Fetch", 12, **fields).responses[0].partitions) == 101
            assert errors(broker, "Fetch", ErrorCode.offset_out_of_range) == 2 * times
        offset = {"partition_index": 0, "committed_offset": 1, "committed_metadata": ""}
        topics = [{"name": "orders", "partitions": [offset | {"committed_leader_epoch": -1}]}]
        who = {"group_id": "nobody", "generation_id_or_member_epoch": 3, "member_id": "m"}
        answer = client.call("OffsetCommit", 8, **who, group_instance_id=None, topics=topics)
        code = ErrorCode(answer.topics[0].partitions[0].error_code)
        assert code is not ErrorCode.none
        assert errors(broker, "OffsetCommit", code) == 1


def test_clients_over_a_quota_are_counted() -> None:
    with Broker(topics=["a"], metrics=True) as running, RawClient(running.bootstrap_servers) as client:
        ops = [{"key": "producer_byte_rate", "value": 1000.0, "remove": False}]
        entry = {"entity": [{"entity_type": "client-id", "entity_name": None}], "ops": ops}
        client.call("AlterClientQuotas", 0, entries=[entry], validate_only=False)
        fields = produce_fields("a", batch(b"v" * 20_000))
        assert client.call("Produce", 9, **fields).throttle_time_ms > 0
        found = scrape(running)
        assert found.value("ottla_request_duration_seconds_sum", api="Produce", stage="throttle") > 0
        assert found.value("ottla_request_duration_seconds_count", api="Produce", stage="throttle") == 1
