"""Metrics sent to an OpenTelemetry collector: how they are written, and when they are sent."""

from __future__ import annotations

import gzip
import queue
import socket
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple
from urllib.error import URLError
from uuid import UUID

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st
from observe_support import scrape
from opentelemetry.proto.metrics.v1.metrics_pb2 import MetricsData
from test_telemetry import gauge, metrics

from interop.process import wait_until
from interop.raw import RawClient
from measuring import HANG_S
from ottla.config import ConfigError
from ottla.config.observing import OBSERVING, OTLP_ENDPOINT, OTLP_HEADERS, parse_headers
from ottla.config.values import BROKER
from ottla.observe import exporter
from ottla.observe.exposition import LABEL_CHARACTERS_MAX, Page
from ottla.observe.metric import Kind, Metric
from ottla.observe.metric import counter as a_counter
from ottla.observe.metric import gauge as a_gauge
from ottla.observe.metric import histogram as a_histogram
from ottla.observe.otlp import AT_ONCE, NAMED_BYTES_MAX, Written, named
from ottla.observe.protobuf import message
from ottla.observe.samples import Sample, samples
from ottla.pieces import whole
from ottla.testing import Broker

TEXTS = st.text(max_size=LABEL_CHARACTERS_MAX)
GAUGE = a_gauge("g_bytes", "G.", "", labels=("a", "b"))
COUNTER = a_counter("c_total", "C.", "")
TIMED = a_histogram("t_seconds", "T.", "", labels=("who",))


# ------------------------------------------------------------ how they are written


@given(TEXTS, TEXTS, st.one_of(st.integers(), st.floats(allow_nan=False)))
def test_a_line_is_read_back_as_it_was(one: str, other: str, value: float) -> None:
    page = Page()
    page.add(GAUGE, value, one, other)
    assert list(samples(page.lines(GAUGE))) == [Sample("g_bytes", (("a", one), ("b", other)), float(value))]


def test_each_kind_is_written_as_opentelemetry_has_it() -> None:
    page = Page()
    page.add(GAUGE, 1.5, 'x"\\\n', "ü")
    page.add(COUNTER, 7)
    page.add_ranges(TIMED, (0.5, 1), (1, 0, 2), 9.25, "w")
    page.add_ranges(TIMED, (0.5, 1), (0, 3, 0), 2, "v")
    page.lines(Metric("theirs", Kind.UNKNOWN, "", "")).append("theirs 1\n")
    written = Written({"service.name": "ottla"}, 5, 9)
    for metric in (GAUGE, COUNTER, TIMED, Metric("theirs", Kind.UNKNOWN, "", "")):
        for _ in written.put(metric, page):
            pass
    [resource] = MetricsData.FromString(written.message()).resource_metrics
    assert [(one.key, one.value.string_value) for one in resource.resource.attributes] == [
        ("service.name", "ottla")
    ]
    [scope] = resource.scope_metrics
    assert scope.scope.name == "ottla"
    found = {one.name: one for one in scope.metrics}
    assert set(found) == {"g_bytes", "c_total", "t_seconds"}
    [point] = found["g_bytes"].gauge.data_points
    assert (point.as_double, found["g_bytes"].unit, found["g_bytes"].description) == (1.5, "By", "G.")
    assert [(one.key, one.value.string_value) for one in point.attributes] == [("a", 'x"\\\n'), ("b", "ü")]
    counted = found["c_total"].sum
    assert counted.is_monotonic and counted.aggregation_temporality == 2
    [point] = counted.data_points
    assert (point.as_double, point.start_time_unix_nano, point.time_unix_nano) == (7, 5, 9)
    first, second = found["t_seconds"].histogram.data_points
    assert (list(first.bucket_counts), list(first.explicit_bounds)) == ([1, 0, 2], [0.5, 1])
    assert (first.count, first.sum, second.count, list(second.bucket_counts)) == (3, 9.25, 3, [0, 3, 0])
    assert [one.value.string_value for one in (*first.attributes, *second.attributes)] == ["w", "v"]


def test_what_a_client_has_sent_goes_on_with_who_it_is() -> None:
    sent = metrics(gauge("x", 1), gauge("y", 2))
    sent.resource_metrics[0].resource.attributes.add(key="theirs").value.string_value = "kept"
    read = MetricsData.FromString(
        whole(named(sent.SerializeToString(), {"client_id": "shop", "client_software_name": None}))
    )
    attributes = [
        [(one.key, one.value.string_value) for one in resource.resource.attributes]
        for resource in read.resource_metrics
    ]
    assert attributes == [[("theirs", "kept"), ("client_id", "shop")], [("client_id", "shop")]]
    assert [one.scope_metrics for one in read.resource_metrics] == [
        one.scope_metrics for one in sent.resource_metrics
    ]


def test_nobody_makes_much_of_little_by_sending_many_resources() -> None:
    who = {"client_id": "x" * 32_000}
    pieces = named(message(1, b"") * 150_000, who)
    assert sum(1 for _ in pieces) <= NAMED_BYTES_MAX // LABEL_CHARACTERS_MAX // AT_ONCE
    assert whole(named(message(1, b"") * 150_000, who)) == b""
    assert len(whole(named(message(1, b""), who))) < 2 * LABEL_CHARACTERS_MAX


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (None, {}),
        ("a=b, c-d = e f,", {"a": "b", "c-d": "e f"}),
        ("a=b=c", {"a": "b=c"}),
        ("a", None),
        ("a b=c", None),
        ("a=b\nc", None),
        ("a=ü", None),
        (",".join(f"h{n}=x" for n in range(30)), None),
    ],
)
def test_headers(text: str | None, expected: dict[str, str] | None) -> None:
    assert parse_headers(text) == expected


# ------------------------------------------------------------ when they are sent


class Request(NamedTuple):
    path: str
    headers: dict[str, str]
    data: MetricsData


class Collector:
    """Takes what comes, and answers ``status``; what cannot be read is refused."""

    def __init__(self) -> None:
        self.status = 200
        self.refused = 0
        self.requests: queue.Queue[Request] = queue.Queue()
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                try:
                    data = MetricsData.FromString(gzip.decompress(body))
                except DecodeError:
                    collector.refused += 1
                    self.send_response(400)
                    self.end_headers()
                    return
                collector.requests.put(
                    Request(self.path, {k.lower(): v for k, v in self.headers.items()}, data)
                )
                self.send_response(collector.status)
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}/v1/metrics"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def until(self, is_it: Callable[[Request], bool]) -> Request:
        """The next request that is so."""
        while True:
            request = self.requests.get(timeout=HANG_S)
            if is_it(request):
                return request

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def collector() -> Iterator[Collector]:
    made = Collector()
    yield made
    made.close()


def configure(broker: Broker, **configs: str) -> None:
    entries = [
        {"name": name.replace("_", "."), "value": value, "config_operation": 0}
        for name, value in configs.items()
    ]
    resources = [{"resource_type": 4, "resource_name": "", "configs": entries}]
    with RawClient(broker.bootstrap_servers) as client:
        answer = client.call("IncrementalAlterConfigs", resources=resources, validate_only=False)
    assert not answer.responses[0].error_code, answer


def push(client: RawClient, data: bytes) -> None:
    asked = client.call("GetTelemetrySubscriptions", client_instance_id=UUID(int=0))
    fields = {"client_instance_id": asked.client_instance_id, "subscription_id": asked.subscription_id}
    answer = client.call("PushTelemetry", terminating=False, compression_type=0, metrics=data, **fields)
    assert not answer.error_code


def names(request: Request) -> set[str]:
    return {
        metric.name
        for resource in request.data.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
    }


def is_own(request: Request) -> bool:
    return "ottla_node_info" in names(request)


def test_a_node_and_its_clients_are_told_to_the_collector(collector: Collector) -> None:
    config = {
        "otlp.endpoint": collector.endpoint,
        "otlp.interval.ms": 1000,
        "otlp.headers": "x-key=secret",
        "metrics.listener": "127.0.0.1:0",
    }
    with Broker(config=config) as broker, RawClient(broker.bootstrap_servers) as client:
        request = collector.until(is_own)
        assert request.path == "/v1/metrics" and request.headers["x-key"] == "secret"
        assert request.headers["content-type"] == "application/x-protobuf"
        [resource] = request.data.resource_metrics
        about = {one.key: one.value.string_value for one in resource.resource.attributes}
        assert about["service.name"] == "ottla" and about["service.instance.id"] == "1"
        push(client, metrics(gauge("theirs", 1)).SerializeToString())
        theirs = collector.until(lambda request: "theirs" in names(request))
        [resource] = theirs.data.resource_metrics
        assert "client_instance_id" in {one.key for one in resource.resource.attributes}
        wait_until(lambda: scrape(broker).value("ottla_exports_total") >= 1)
        assert scrape(broker).value("ottla_export_kept_bytes") == 0
        # It is told by nobody what goes with it.
        described = client.call(
            "DescribeConfigs",
            resources=[{"resource_type": 4, "resource_name": "1", "configuration_keys": ["otlp.headers"]}],
        )
        assert "secret" not in str(described)


def test_what_cannot_be_sent_is_sent_later_or_dropped(
    collector: Collector, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    collector.status = 503
    config = {
        "otlp.endpoint": collector.endpoint,
        "otlp.interval.ms": 1000,
        "metrics.listener": "127.0.0.1:0",
    }
    with Broker(config=config) as broker:

        def send(data: bytes) -> None:
            with RawClient(broker.bootstrap_servers) as client:
                push(client, data)

        first, second = (metrics(gauge(name, 1)).SerializeToString() for name in ("first", "second"))
        send(first)
        send(second)
        wait_until(lambda: scrape(broker).value("ottla_export_failures_total") >= 2)
        kept = scrape(broker).value("ottla_export_kept_bytes")
        assert kept > len(first) + len(second)
        collector.status = 200
        told = collector.until(lambda request: "second" in names(request))
        # In the order in which they came, and as few requests as it takes.
        assert names(told) == {"first", "second"}

        def said(words: str) -> int:
            lines = [record.getMessage() for record in caplog.records]
            return sum("metrics" in line and words in line for line in lines)

        # It has been answered then, which is after it came.
        wait_until(lambda: said("again") > 0)
        assert (said("again"), said("cannot be sent")) == (1, 1)
        assert scrape(broker).value("ottla_export_kept_bytes") == 0
        # What cannot be understood is not sent for ever.
        collector.status = 400
        send(first)
        wait_until(lambda: scrape(broker).value("ottla_export_failures_total") >= 3)
        monkeypatch.setattr(exporter, "KEPT_BYTES_MAX", 10)
        collector.status = 503
        send(first)
        wait_until(lambda: scrape(broker).value("ottla_export_dropped_bytes_total") > 0)
        assert scrape(broker).value("ottla_export_kept_bytes") <= 10


def test_what_one_client_sends_has_nothing_of_others_refused(collector: Collector) -> None:
    collector.status = 503
    config = {
        "otlp.endpoint": collector.endpoint,
        "otlp.interval.ms": 1000,
        "metrics.listener": "127.0.0.1:0",
    }
    # A resource that is none, of which nothing is read here.
    hostile = message(1, message(1, b"\xff\xff"))
    with Broker(config=config) as broker:
        for number in range(9):
            with RawClient(broker.bootstrap_servers) as client:
                push(client, metrics(gauge(f"m{number}", 1)).SerializeToString())
            with RawClient(broker.bootstrap_servers) as client:
                push(client, hostile)
        collector.status = 200
        left = {f"m{number}" for number in range(9)}
        while left:
            left -= names(collector.requests.get(timeout=HANG_S))
        wait_until(lambda: scrape(broker).value("ottla_export_kept_bytes") == 0)
        dropped = scrape(broker).value("ottla_export_dropped_bytes_total")
        assert 0 < dropped < 9 * 300 and collector.refused < 30


def test_it_begins_and_ends_as_it_is_configured(collector: Collector) -> None:
    with Broker(config={"otlp.interval.ms": 1000}) as broker:
        telemetry = broker._node.services.telemetry
        assert telemetry.readers == 0
        configure(broker, otlp_endpoint=collector.endpoint)
        collector.until(is_own)
        assert telemetry.readers == 1
        configure(broker, otlp_endpoint="")
        wait_until(lambda: telemetry.readers == 0)
        assert telemetry.forward is None


def test_nobody_waits_for_a_collector_that_does_not_answer_when_a_node_stops(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(exporter, "TIMEOUT_S", HANG_S)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        with Broker(config={"otlp.endpoint": endpoint, "otlp.interval.ms": 1000}):
            connection, _ = silent.accept()
            assert connection.recv(1)
        waiting = [one for one in threading.enumerate() if one.name == "ottla-aside"]
        connection.close()
    assert waiting
    for one in waiting:
        one.join(HANG_S)


@pytest.mark.parametrize(
    "endpoint",
    [
        "file:///etc/passwd",
        "collector:4318",
        "http://",
        "http://a:99999/",
        "http://a/\u2028x",
        "http://a/b c",
        "http://name:password@a/",
    ],
)
def test_an_endpoint_is_an_http_address(endpoint: str) -> None:
    with pytest.raises(Exception, match=r"otlp\.endpoint"), Broker(config={"otlp.endpoint": endpoint}):
        pass


def test_what_is_wrong_with_a_secret_is_told_without_it() -> None:
    checked = [one for one in BROKER.values() if one.sensitive and one.check is not None]
    assert OBSERVING[OTLP_HEADERS] in checked
    for one in checked:
        with pytest.raises(ConfigError) as refused:
            one.parse("x-key secret")
        assert "secret" not in str(refused.value)


def test_no_password_is_taken_in_an_address() -> None:
    with pytest.raises(ConfigError, match=r"otlp\.headers"):
        OBSERVING[OTLP_ENDPOINT].parse("http://name:password@a/")


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (URLError(ConnectionRefusedError(111, "Connection refused")), "connection refused"),
        (OSError(111, "Connection refused"), "connection refused"),
        (
            OSError("http://collector: it takes too long to come"),
            "http://collector: it takes too long to come",
        ),
    ],
)
def test_why_nothing_could_be_sent_is_said_in_words(error: OSError, told: str) -> None:
    assert exporter._why(error) == told
