"""The log of slow requests: what counts as slow, what it says, and that it is bounded."""

from __future__ import annotations

import asyncio
import json
import logging
import struct
from collections.abc import Iterator
from typing import Any

import pytest
from coordinators_support import ManualClock
from hypothesis import given
from hypothesis import strategies as st

from interop.raw import RawClient, batch, fetch_fields, produce_fields
from ottla.broker.request import Client
from ottla.errors import ErrorCode
from ottla.logging_setup import JsonFormatter, TextFormatter
from ottla.observe.described import ANSWER_BYTES_MAX, errors_of, read_head
from ottla.observe.patience import UNBOUNDED_NS, asked_ns, unasked_ns
from ottla.observe.requests import SEEN_BYTES, Seen
from ottla.observe.slow import LINES_PER_SECOND_MAX, SlowRequests
from ottla.testing import Broker
from ottla.wire.apis import API_VERSIONS, FETCH, METADATA, PRODUCE, SASL_AUTHENTICATE
from ottla.wire.messages import RequestHeader, frame_request, frame_response

MS = 1_000_000
# What the tests with a broker wait.
WAIT_MS = 150


def request(key: int, version: int, fields: dict[str, Any], client_id: str = "c") -> bytes:
    """A request without its size."""
    return frame_request(key, version, 7, client_id, fields)[4:]


METADATA_FRAME = request(METADATA, 1, {"topics": []})


def seen(
    frame: bytes = METADATA_FRAME, *, began_ms: int = 10_000, client: Client | None = None, **of: Any
) -> Seen:
    one = Seen(
        client or Client("10.0.0.7", "L"),
        struct.unpack_from(">h", frame)[0],
        frame[:SEEN_BYTES],
        len(frame) + 4,
        began_ms * MS,
        of.pop("queue_ms", 0) * MS,
        of.pop("local_ms", 0) * MS,
    )
    one.remote_ns = of.pop("remote_ms", 0) * MS
    for name, value in of.items():
        setattr(one, name, value)
    return one


class Log:
    """A log of slow requests, with the limit of 100 ms."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.lines: list[str] = []
        self.fields: list[dict[str, Any]] = []
        self.slow = SlowRequests(self.clock, 100, self._write)

    def _write(self, line: str, fields: dict[str, Any]) -> None:
        self.lines.append(line)
        self.fields.append(fields)

    def took_ms(self, one: Seen) -> float | None:
        """What the log has for a request; None where it has nothing."""
        before = len(self.lines)
        self.slow(one)
        return self.fields[-1]["took_ms"] if len(self.lines) > before else None


def fetch(version: int, max_wait_ms: int, client_id: str = "c") -> bytes:
    fields = fetch_fields("t", max_wait_ms=max_wait_ms)
    if version > 12:
        fields = fields | {"topics": []}
    return request(FETCH, version, fields, client_id)


def produce(version: int, acks: int, transactional_id: str | None = None) -> bytes:
    fields = produce_fields("t", batch(b"v"), acks=acks) | {"timeout_ms": 300}
    return request(PRODUCE, version, fields | {"transactional_id": transactional_id})


@pytest.mark.parametrize(
    ("frame", "asked_ms"),
    [
        (fetch(4, 250), 250),
        (fetch(12, 250), 250),
        (fetch(14, 250), 250),
        (fetch(15, 250), 250),
        (fetch(17, 0), 0),
        (produce(3, -1), 300),
        (produce(3, -1, "tx" * 100), 300),
        (produce(8, 1), 0),
        (produce(9, -1), 300),
        (produce(9, -1, "tx" * 100), 300),
        (produce(9, 1, "tx"), 0),
        (METADATA_FRAME, 0),
    ],
    ids=lambda value: "frame" if isinstance(value, bytes) else str(value),
)
def test_what_a_request_asks_to_wait_is_read(frame: bytes, asked_ms: int) -> None:
    key, version = struct.unpack_from(">hh", frame)
    assert asked_ns(key, version, frame, read_head(frame).body_offset) == asked_ms * MS


@pytest.mark.parametrize("key", [11, 14, 21])
def test_who_waits_for_others_may_take_long(key: int) -> None:
    assert asked_ns(key, 0, b"", 0) == UNBOUNDED_NS


def test_what_is_not_there_of_a_request_is_not_held_against_it() -> None:
    frame = fetch(11, 5, "c" * 2000)
    assert Log().took_ms(seen(frame, remote_ms=60_000)) is None
    for size in range(len(produce(9, -1, "tx" * 70)) - 30):
        asked_ns(PRODUCE, 9, produce(9, -1, "tx" * 70)[:size], 11)


def test_time_that_was_asked_for_is_not_slow() -> None:
    log = Log()
    assert log.took_ms(seen(fetch(12, 500), remote_ms=500, local_ms=1)) is None
    assert log.took_ms(seen(fetch(12, 500), remote_ms=599, local_ms=1)) == 100
    assert log.took_ms(seen(produce(9, -1), remote_ms=300)) is None
    assert log.took_ms(seen(produce(9, 1), remote_ms=300)) == 300
    assert log.took_ms(seen(remote_ms=60, local_ms=20, queue_ms=20)) == 100
    assert log.took_ms(seen(remote_ms=60, local_ms=20, queue_ms=19)) is None
    assert log.took_ms(seen(local_ms=99)) is None
    assert log.took_ms(seen(local_ms=100)) == 100


def test_what_stands_behind_one_that_waits_is_not_slow_for_that() -> None:
    log, client = Log(), Client("h", "L")
    assert log.took_ms(seen(fetch(12, 500), began_ms=1000, remote_ms=500, client=client)) is None
    # It came 10 ms after the Fetch, and was handled when that had been answered.
    assert log.took_ms(seen(began_ms=1500, queue_ms=490, client=client)) is None
    # It waited 150 ms more.
    assert log.took_ms(seen(began_ms=1650, queue_ms=640, client=client)) == 150
    assert log.took_ms(seen(began_ms=1500, queue_ms=490)) == 490
    # Two in a row.
    assert log.took_ms(seen(fetch(12, 500), began_ms=1502, remote_ms=500, client=client)) is None
    assert log.took_ms(seen(began_ms=2003, queue_ms=980, client=client)) is None
    # Later on that is no excuse any more.
    assert log.took_ms(seen(began_ms=9000, queue_ms=400, client=client)) == 400
    assert log.took_ms(seen(fetch(12, 10), began_ms=9100, remote_ms=10, client=client)) is None
    assert log.took_ms(seen(began_ms=9110, queue_ms=400, client=client)) == 390


def test_a_produce_keeps_nobody_waiting() -> None:
    log, client = Log(), Client("h", "L")
    assert log.took_ms(seen(produce(9, -1), began_ms=1000, remote_ms=300, client=client)) is None
    assert log.took_ms(seen(began_ms=1300, queue_ms=290, client=client)) == 290


def test_who_is_over_a_quota_waits_for_that() -> None:
    log, client = Log(), Client("h", "L")
    assert log.took_ms(seen(began_ms=1000, remote_ms=30, throttle_ms=500, client=client)) is None
    assert log.took_ms(seen(began_ms=1530, queue_ms=500, client=client)) is None
    assert log.took_ms(seen(began_ms=1700, queue_ms=700, client=client)) == 200


@given(st.lists(st.integers(0, 10**12), min_size=6, max_size=6), st.sampled_from([0, 5 * MS, UNBOUNDED_NS]))
def test_what_counts_is_never_more_than_there_was(times: list[int], asked: int) -> None:
    client = Client("h", "L")
    client.excused_from_ns, client.excused_to_ns = times[4], times[4] + times[5]
    one = Seen(client, METADATA, METADATA_FRAME, 1, times[0] + times[1], times[1], times[2])
    one.remote_ns = times[3]
    assert times[2] <= unasked_ns(one, asked) <= times[1] + times[2] + times[3]


# ------------------------------------------------------------ what it says


def test_a_line_has_all_that_is_known() -> None:
    log = Log()
    header = RequestHeader(METADATA, 1, 7, "c", 0)
    topic = {"error_code": 3, "name": "t", "is_internal": False, "partitions": []}
    fields = {"brokers": [], "controller_id": 1, "topics": [topic, topic]}
    log.slow(seen(local_ms=120, response_bytes=33, pieces=frame_response(header, fields)))
    log.slow(seen(local_ms=100, ended_connection=True))
    assert log.lines == [
        "slow: Metadata v1 of 10.0.0.7 client 'c' (User:ANONYMOUS) took 120.0 ms: queue 0.0, local 120.0, "
        f"remote 0.0, throttle 0; {len(METADATA_FRAME) + 4} bytes, answered with 33; "
        "UNKNOWN_TOPIC_OR_PARTITION and 1 more",
        "slow: Metadata v1 of 10.0.0.7 client 'c' (User:ANONYMOUS) took 100.0 ms: queue 0.0, local 100.0, "
        f"remote 0.0, throttle 0; {len(METADATA_FRAME) + 4} bytes, answered with 0; it ended its connection",
    ]
    assert log.fields[0]["error"] == "UNKNOWN_TOPIC_OR_PARTITION"
    assert (log.fields[0]["errors"], log.fields[0]["host"]) == (2, "10.0.0.7")


@pytest.mark.parametrize("frame", [b"", b"\x00", struct.pack(">h", 3), struct.pack(">hhih", 999, 1, 2, -1)])
def test_what_is_no_request_is_told_as_far_as_it_goes(frame: bytes) -> None:
    log = Log()
    one = seen(frame + b"\0\0", local_ms=100) if len(frame) < 2 else seen(frame, local_ms=100)
    log.slow(one)
    assert len(log.lines) == 1 and log.fields[0]["client_id"] is None


@given(st.text(max_size=60) | st.text(min_size=900, max_size=1500))
def test_a_client_id_neither_begins_a_line_nor_makes_it_long(client_id: str) -> None:
    log = Log()
    log.slow(seen(request(METADATA, 1, {"topics": []}, client_id), local_ms=100))
    (line,) = log.lines
    assert line.isprintable() and len(line) < 3000
    assert log.fields[0]["client_id"][:100] == client_id[:100]


def test_the_size_of_a_password_is_not_told() -> None:
    log = Log()
    log.slow(seen(request(SASL_AUTHENTICATE, 0, {"auth_bytes": b"\0u\0secret"}), local_ms=100))
    assert log.fields[0]["request_bytes"] is None and " bytes," not in log.lines[0]


def test_answers_are_looked_through_as_far_as_they_are_small() -> None:
    header = RequestHeader(METADATA, 1, 7, "c", 0)
    topic = {"error_code": 3, "name": "t", "is_internal": False, "partitions": []}

    def errors(topics: list[Any], version: int = 1) -> tuple[str | None, int]:
        fields = {"brokers": [], "controller_id": 1, "topics": topics}
        return errors_of(METADATA, version, frame_response(header, fields))

    assert errors([topic]) == ("UNKNOWN_TOPIC_OR_PARTITION", 1)
    assert errors([topic | {"error_code": 0}]) == (None, 0)
    assert errors([topic] * 2000) == (None, 0)
    assert errors([topic | {"name": "t" * 30_000}] * (ANSWER_BYTES_MAX // 30_000 + 1)) == (None, 0)
    assert errors_of(METADATA, 99, [b"x"]) == errors_of(METADATA, 1, None) == (None, 0)
    # An answer in version 0 to a version that there is not.
    refused = {"error_code": ErrorCode.unsupported_version, "api_keys": []}
    assert errors_of(API_VERSIONS, 3, frame_response(RequestHeader(API_VERSIONS, 0, 1, "", 0), refused)) in (
        (None, 0),
        ("UNSUPPORTED_VERSION", 1),
    )


# ------------------------------------------------------------ how much it says


def test_a_flood_is_so_many_lines_and_how_many_were_left_out() -> None:
    log = Log()
    for number in range(1000):
        log.slow(seen(local_ms=100 + number))
    assert len(log.lines) == LINES_PER_SECOND_MAX
    asyncio.run(log.clock.advance(1000))
    assert log.lines[-1] == "990 more slow requests within a second, the slowest took 1099.0 ms"
    assert log.fields[-1] == {"left_out": 990, "slowest_ms": 1099.0}
    log.slow(seen(local_ms=100))
    assert len(log.lines) == LINES_PER_SECOND_MAX + 2
    asyncio.run(log.clock.advance(5000))
    assert len(log.lines) == LINES_PER_SECOND_MAX + 2
    for _ in range(LINES_PER_SECOND_MAX + 1):
        log.slow(seen(local_ms=100))
    log.slow.close()
    assert log.fields[-1]["left_out"] == 1


def test_lines_for_programs_have_values(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        SlowRequests(ManualClock(), 100)(seen(local_ms=150))
    (record,) = caplog.records
    document = json.loads(JsonFormatter().format(record))
    assert document["slow_request"]["took_ms"] == 150.0
    assert document["slow_request"]["api"] == "Metadata"
    assert document["message"].startswith("slow: Metadata v1 of 10.0.0.7 ")
    assert TextFormatter("%(message)s").format(record) == document["message"]


# ------------------------------------------------------------ of a broker


@pytest.fixture(scope="module")
def broker() -> Iterator[Broker]:
    with Broker(topics={"t": 1}) as running:
        yield running


def set_limit(client: RawClient, limit_ms: int) -> None:
    config = {"name": "slow.request.ms", "config_operation": 0, "value": str(limit_ms)}
    resource = {"resource_type": 4, "resource_name": "", "configs": [config]}
    (one,) = client.call("IncrementalAlterConfigs", 0, resources=[resource], validate_only=False).responses
    assert one.error_code == 0


def test_a_broker_logs_what_it_holds_up_and_not_what_asks_to_wait(
    broker: Broker, caplog: pytest.LogCaptureFixture
) -> None:
    def logged() -> list[Any]:
        return [record.fields["slow_request"] for record in caplog.records if hasattr(record, "fields")]

    def long_poll(client: RawClient) -> None:
        """A Fetch that waits, and a Metadata behind it."""
        frames = client.frame("Fetch", 11, fetch_fields("t", max_wait_ms=WAIT_MS), 1)
        client.send(frames + client.frame("Metadata", 1, {"topics": []}, 2))
        client.answer("Fetch", 11, 1)
        client.answer("Metadata", 1, 2)

    with RawClient(broker.bootstrap_servers) as client, caplog.at_level(logging.WARNING):
        gate = broker._node._gate
        assert gate._watcher is None
        set_limit(client, WAIT_MS)
        assert gate._watcher is not None
        with broker.faults.delay("Metadata", WAIT_MS, times=1):
            client.call("Metadata", 1, topics=[])
        (line,) = logged()
        assert (line["api"], line["host"], line["client_id"]) == ("Metadata", "127.0.0.1", "raw")
        assert line["took_ms"] >= line["remote_ms"] >= WAIT_MS
        caplog.clear()

        def attempt() -> bool:
            # The machine may be as slow as that itself.
            long_poll(client)
            found = logged()
            caplog.clear()
            return not found

        assert any(attempt() for _ in range(5))
        set_limit(client, 0)
        assert gate._watcher is None
        with broker.faults.delay("Metadata", WAIT_MS, times=1):
            client.call("Metadata", 1, topics=[])
        assert logged() == []
