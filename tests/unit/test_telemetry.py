"""Clients' metrics (KIP-714): who is asked for what, when they may send, and what is kept of it."""

from __future__ import annotations

import contextlib
import sys
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric, MetricsData

from ottla.errors import ErrorCode, KafkaError
from ottla.observe.protobuf import message, text
from ottla.telemetry import instances as known
from ottla.telemetry import otlp
from ottla.telemetry import received as kept
from ottla.telemetry.instances import Instances
from ottla.telemetry.otlp import Malformed, Reader
from ottla.telemetry.received import Received
from ottla.telemetry.subscriptions import INTERVAL_MS_DEFAULT, Asked, Subscription, asked_of, subscription_of
from ottla.text import id_text

NOBODY: dict[str, str | None] = {}
INTERVAL_MS = 1000


def numbered() -> Any:
    numbers = iter(range(2, 10**9))
    return lambda: UUID(int=next(numbers))


def asking(**configs: str) -> Instances:
    """One subscription; ``_`` in names stands for a dot."""
    made = Instances(numbered())
    made.change("one", {name.replace("_", "."): text for name, text in configs.items()})
    return made


def push(instance: Any, **given: Any) -> SimpleNamespace:
    fields = {"client_instance_id": instance.id, "subscription_id": instance.subscription_id}
    fields |= {"terminating": False, "compression_type": 0, "metrics": b"", **given}
    return SimpleNamespace(**fields)


def code(instances: Instances, request: Any, now_ms: int, bytes_max: int = 100) -> ErrorCode:
    try:
        instances.push(request, NOBODY, bytes_max, now_ms)
    except KafkaError as error:
        return error.code
    return ErrorCode.none


# ---------------------------------------------------------------- who is asked for what


def subscription(**configs: str) -> Subscription:
    made = subscription_of(configs | {"interval.ms": configs.pop("interval_ms", "1000")})
    assert made is not None
    return made


def test_all_subscriptions_that_match_are_put_together() -> None:
    java = {"client_software_name": "apache-kafka-java", "client_id": "shop-1"}
    subscriptions = {
        "a": subscription(metrics="x.,y.", match="client_software_name=apache.*", interval_ms="5000"),
        "b": subscription(metrics="y.,z.", match="client_software_name=apache.*,client_id=shop-\\d"),
        "c": subscription(metrics="other.", match="client_software_name=librdkafka", interval_ms="100"),
    }
    assert asked_of(subscriptions, java) == Asked(("x.", "y.", "z."), 1000)
    assert asked_of(subscriptions, {"client_id": "shop-1"}) == Asked((), INTERVAL_MS_DEFAULT)
    # A pattern is for all of the text.
    assert asked_of(subscriptions, java | {"client_id": "shop-12"}) == Asked(("x.", "y."), 5000)
    subscriptions["d"] = subscription(metrics="*,x.", interval_ms="7000")
    assert asked_of(subscriptions, java) == Asked(("*",), 1000)


def test_a_client_is_known_by_its_id_as_kafka_writes_it_also_by_one_it_is_just_given() -> None:
    instances = asking(metrics="x", match="client_instance_id=AAAAAAAAAAAAAAAAAAAAAg")
    assert [instances.get(None, NOBODY, 0).asked.metrics for _ in range(2)] == [("x",), ()]


def test_a_name_that_takes_long_to_match_is_for_nobody_and_costs_little() -> None:
    subscriptions = {"a": subscription(metrics="x", match="client_id=(a|aa)*b")}
    assert asked_of(subscriptions, {"client_id": "a" * 30_000}).metrics == ()
    assert asked_of(subscriptions, {"client_id": "aab"}).metrics == ("x",)


@given(st.integers(0, 2**128 - 1), st.sets(st.text(min_size=1), max_size=4), st.integers(100, 3_600_000))
def test_the_id_of_what_a_client_is_asked_for_is_an_int32_and_its_own(
    number: int, metrics: set[str], interval_ms: int
) -> None:
    asked = Asked(tuple(sorted(metrics)), interval_ms)
    found = asked.id_for(UUID(int=number))
    assert -(2**31) <= found < 2**31 and found == asked.id_for(UUID(int=number))
    assert found != Asked(asked.metrics, interval_ms + 1).id_for(UUID(int=number))


# ---------------------------------------------------------------- when they may


def test_a_client_asks_and_sends_once_in_each_interval() -> None:
    instances = asking(metrics="*", interval_ms=str(INTERVAL_MS))
    one = instances.get(None, NOBODY, 0)
    assert one.id.int and instances.get(UUID(int=0), NOBODY, 0).id != one.id
    with pytest.raises(KafkaError) as refused:
        instances.get(one.id, NOBODY, INTERVAL_MS - 1)
    assert refused.value.code is ErrorCode.throttling_quota_exceeded and instances.throttled == 1
    # The first push comes at any time, since clients spread theirs; then the interval counts.
    assert code(instances, push(one), 1) is ErrorCode.none
    assert code(instances, push(one), INTERVAL_MS) is ErrorCode.throttling_quota_exceeded
    assert code(instances, push(one), INTERVAL_MS + 1) is ErrorCode.none
    with pytest.raises(KafkaError):
        instances.get(one.id, NOBODY, 2 * INTERVAL_MS)
    assert instances.get(one.id, NOBODY, 2 * INTERVAL_MS + 1) is one


def test_what_is_wrong_with_a_push_is_told_in_this_order() -> None:
    instances = asking(metrics="*", interval_ms=str(INTERVAL_MS))
    for reserved in known.RESERVED:
        request = SimpleNamespace(client_instance_id=reserved)
        assert code(instances, request, 0) is ErrorCode.invalid_request
    one = instances.get(None, NOBODY, 0)
    wrong = {"subscription_id": one.subscription_id + 1, "compression_type": 9, "metrics": bytes(101)}
    assert code(instances, push(one, **wrong), 0) is ErrorCode.unknown_subscription_id
    assert instances.unknown_subscriptions == 1
    # It may ask at once, and then send.
    assert instances.get(one.id, NOBODY, 0) is one
    del wrong["subscription_id"]
    now_ms = INTERVAL_MS
    assert code(instances, push(one, **wrong), now_ms) is ErrorCode.unsupported_compression_type
    assert instances.get(one.id, NOBODY, now_ms) is one
    del wrong["compression_type"]
    assert code(instances, push(one, **wrong), now_ms * 2) is ErrorCode.telemetry_too_large
    # Too early counts for less than that the client ends, which it does once.
    assert code(instances, push(one, terminating=True), now_ms * 2) is ErrorCode.none
    assert code(instances, push(one), now_ms * 9) is ErrorCode.invalid_request


def test_changed_subscriptions_are_told_at_once() -> None:
    instances = asking(metrics="a", interval_ms=str(INTERVAL_MS))
    one = instances.get(None, NOBODY, 0)
    instances.change("two", {"metrics": "b"})
    assert code(instances, push(one), 0) is ErrorCode.unknown_subscription_id
    again = instances.get(one.id, NOBODY, 0)
    assert again.asked.metrics == ("a", "b") and again.subscription_id != one.subscription_id
    for name in ("one", "two"):
        instances.change(name, {})
    assert instances.get(one.id, NOBODY, 0).asked == Asked((), INTERVAL_MS_DEFAULT)
    assert not instances.is_subscribed


def test_no_more_clients_are_known_than_that_and_none_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(known, "INSTANCES_MAX", 3)
    instances = asking(metrics="a")
    ones = [instances.get(None, NOBODY, now_ms) for now_ms in range(3)]
    assert code(instances, push(ones[0]), 10) is ErrorCode.none
    fourth = instances.get(None, NOBODY, 11)
    assert len(instances) == 3
    # Who has been quiet for longest is not known any more, and may ask at once.
    assert instances.get(ones[1].id, NOBODY, 12) is not ones[1]
    fourth.end()
    assert len(instances) == 2
    instances.forget_expired(12 + known.KNOWN_INTERVALS * INTERVAL_MS_DEFAULT - 1)
    assert len(instances) == 1
    instances.forget_expired(12 + known.KNOWN_INTERVALS * INTERVAL_MS_DEFAULT)
    assert len(instances) == 0


# ---------------------------------------------------------------- what is kept


def metrics(*made: Metric) -> MetricsData:
    data = MetricsData()
    for one in made:
        data.resource_metrics.add().scope_metrics.add().metrics.append(one)
    return data


def gauge(name: str, value: float, **labels: str) -> Metric:
    made = Metric(name=name)
    made.gauge.data_points.add(as_double=value, attributes=attributes(labels))
    return made


def growth(name: str, value: int, *, delta: bool = True) -> Metric:
    made = Metric(name=name)
    made.sum.aggregation_temporality = 1 if delta else 2
    made.sum.data_points.add(as_int=value)
    return made


def attributes(labels: dict[str, str]) -> list[KeyValue]:
    return [KeyValue(key=key, value=AnyValue(string_value=text)) for key, text in labels.items()]


def take(received: Received, data: MetricsData, number: int = 1, **who: str) -> int:
    """How many pauses it took."""
    return sum(1 for _ in received.take(UUID(int=number), who, data.SerializeToString(), expires_ms=1000))


def values(received: Received) -> dict[str, list[float]]:
    return {name: [one.value for one in received.samples(name)] for name in received.names}


def test_gauges_are_replaced_sums_are_added_up_and_histograms_are_two_values() -> None:
    received = Received()
    histogram = Metric(name="took")
    histogram.histogram.aggregation_temporality = 1
    histogram.histogram.data_points.add(count=3, sum=4.5)
    for value in (1, 2):
        every = [
            gauge("org.apache.kafka.producer.queue.time.avg", value),
            growth("sent", value),
            growth("all", value, delta=False),
        ]
        take(received, metrics(*every, histogram), client_id="shop", client_software_name="it")
    assert values(received) == {
        "kafka_client_producer_queue_time_avg": [2],
        "kafka_client_sent": [3],
        "kafka_client_all": [2],
        "kafka_client_took_count": [6],
        "kafka_client_took_sum": [9],
    }
    [sample] = received.samples("kafka_client_sent")
    assert dict(sample.labels) == {
        "client_id": "shop",
        "client_instance_id": id_text(UUID(int=1)),
        "client_software_name": "it",
    }


def test_labels_are_such_as_prometheus_takes_and_nobody_sends_for_another() -> None:
    received = Received()
    labels = {"client-topic": "a\n", "client_id": "somebody else", "9": "x", "__name__": "y"}
    labels["long"] = "z" * 999
    take(received, metrics(gauge("a b{}", 1, **labels)), client_id="me")
    [name] = received.names
    assert name == "kafka_client_a_b__"
    [sample] = received.samples(name)
    found = dict(sample.labels)
    assert found["client_id"] == "me" and found["client_topic"] == "a\n"
    assert set(found) == {"client_id", "client_instance_id", "client_topic", "long"}
    assert len(found["long"]) == kept.TEXT_MAX
    take(received, metrics(gauge("", 1), gauge("n" * 999, 1)))
    assert received.names == [name]


def test_what_one_client_sends_and_what_all_do_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "VALUES_OF_ONE_MAX", 4)
    monkeypatch.setattr(kept, "VALUES_MAX", 6)
    monkeypatch.setattr(kept, "SENDERS_MAX", 3)
    received = Received()
    many = metrics(*(gauge(f"m{number}", number) for number in range(6)))
    take(received, many, 1)
    assert received.count == 4 and received.dropped == 2
    # Others come in place of who has been quiet for longest.
    take(received, metrics(gauge("a", 1), gauge("b", 1)), 2)
    assert received.count == 6
    take(received, metrics(gauge("c", 1)), 3)
    assert values(received) == {"kafka_client_a": [1], "kafka_client_b": [1], "kafka_client_c": [1]}
    assert received.count == 3
    for number in (4, 5):
        take(received, metrics(gauge("d", 1)), number)
    assert values(received) == {"kafka_client_c": [1], "kafka_client_d": [1, 1]}
    assert not received.forget_expired(999)
    assert received.count == 3
    forget_all(received)
    assert received.count == received.bytes == 0 and not received.names


def forget_all(received: Received) -> None:
    while received.forget_expired(1000):
        pass


def test_long_labels_and_many_names_take_no_more_memory_than_that(monkeypatch: pytest.MonkeyPatch) -> None:
    # Two of them fit, of 32.5 KB each, and not nearly three: since Python 3.12 strings take a little less.
    monkeypatch.setattr(kept, "BYTES_MAX", 90_000)
    received = Received()
    # Four bytes for each character.
    long = {f"label{number}": "\N{GRINNING FACE}" * 999 for number in range(8)}
    for number in range(1, 40):
        take(received, metrics(*(gauge(f"m{n}", 1, **long) for n in range(4))), number)
        assert received.bytes <= 90_000
        assert held_bytes(received) <= 1.2 * received.bytes
    assert received.count == 8 and received.dropped == 0
    # Who it is is shown with each value.
    take(
        received,
        metrics(*(gauge(f"short{n}", 1) for n in range(400))),
        39,
        client_id="\N{GRINNING FACE}" * 999,
    )
    assert received.count < 400 and held_bytes(received) <= 4 * received.bytes
    # Of one client alone the last are not kept.
    take(received, metrics(*(gauge(f"m{n}", 1, **long) for n in range(99))), 40)
    assert received.dropped > 0 and received.bytes <= 90_000
    monkeypatch.setattr(kept, "NAMES_MAX", 30)
    for number in range(41, 50):
        take(received, metrics(*(gauge(f"n{number}.{n}", 1) for n in range(20)), gauge("one", 1)), number)
        assert len(received.names) <= 30


def held_bytes(received: Received) -> int:
    """What the texts of all values take, as they are."""
    labels = (one.labels for name in received.names for one in received.samples(name))
    return sum(sys.getsizeof(text) for many in labels for pair in many for text in pair)


def test_many_values_are_taken_in_pieces() -> None:
    received = Received()
    many = metrics(*(gauge(f"m{number}", number) for number in range(kept.FIELDS_AT_ONCE)))
    # A resource, a scope, the metric, its name and kind, the temporality that there is none of, a point and
    # its value.
    assert 5 <= take(received, many) <= 9


@given(st.lists(st.tuples(st.integers(1, 5), st.integers(0, 9), st.floats()), max_size=40))
def test_the_count_is_what_is_there(sent: list[tuple[int, int, float]]) -> None:
    received = Received()
    for number, metric, value in sent:
        take(received, metrics(gauge(f"m{metric}", value)), number)
        assert received.count == sum(len(list(received.samples(name))) for name in received.names)
    forget_all(received)
    assert received.count == received.bytes == 0


# ---------------------------------------------------------------- its bytes

TEXTS = st.text(max_size=4)
NUMBERS = st.one_of(
    st.builds(lambda value: {"as_double": value}, st.floats()),
    st.builds(lambda value: {"as_int": value}, st.integers(-(2**63), 2**63 - 1)),
    st.just({}),
)
ANY = st.one_of(
    st.builds(lambda text: AnyValue(string_value=text), TEXTS),
    st.builds(lambda value: AnyValue(bool_value=value), st.booleans()),
    st.builds(lambda value: AnyValue(int_value=value), st.integers(-(2**63), 2**63 - 1)),
    st.builds(lambda value: AnyValue(double_value=value), st.floats()),
    st.just(AnyValue(bytes_value=b"x")),
)


@st.composite
def drawn(draw: st.DrawFn) -> tuple[Metric, list[Any]]:
    """A metric, and what is to be read of it."""
    metric, expected = Metric(name=draw(TEXTS), unit="ms", description="of it"), []
    kind = draw(st.sampled_from(["gauge", "sum", "histogram", "none"]))
    temporality = draw(st.integers(0, 2)) if kind in ("sum", "histogram") else 2
    for _ in range(draw(st.integers(0, 3)) if kind != "none" else 0):
        keys = [KeyValue(key=draw(TEXTS), value=draw(ANY)) for _ in range(draw(st.integers(0, 3)))]
        named = tuple((one.key, shown(one.value)) for one in keys)
        if kind == "histogram":
            count, total = draw(st.integers(0, 2**64 - 1)), draw(st.floats())
            metric.histogram.data_points.add(attributes=keys, count=count, sum=total)
            values = [(f"{metric.name}_count", float(count)), (f"{metric.name}_sum", total)]
        else:
            number = draw(NUMBERS)
            getattr(metric, kind).data_points.add(attributes=keys, time_unix_nano=5, **number)
            values = [(metric.name, float(value)) for value in number.values()]
        expected += [(name, named, repr(value), temporality != 2) for name, value in values]
    if kind in ("sum", "histogram"):
        getattr(metric, kind).aggregation_temporality = temporality
    return metric, expected if metric.name else []


def shown(value: AnyValue) -> str:
    kind = value.WhichOneof("value")
    if kind == "bool_value":
        return str(value.bool_value).lower()
    return "" if kind == "bytes_value" else str(getattr(value, kind))


@given(st.lists(drawn(), max_size=4))
def test_what_is_read_is_what_the_library_wrote(many: list[tuple[Metric, list[Any]]]) -> None:
    data = metrics(*(metric for metric, _ in many))
    read = [one for one in Reader(data.SerializeToString()).values() if one is not None]
    assert [(one.name, one.attributes, repr(one.value), one.adds) for one in read] == [
        one for _, expected in many for one in expected
    ]


@given(
    st.one_of(st.binary(max_size=60), drawn().map(lambda made: metrics(made[0]).SerializeToString())),
    st.data(),
)
def test_any_bytes_are_read_or_malformed(data: bytes, more: st.DataObject) -> None:
    changed = bytearray(data)
    for _ in range(more.draw(st.integers(0, 3)) if data else 0):
        changed[more.draw(st.integers(0, len(data) - 1))] = more.draw(st.integers(0, 255))
    with contextlib.suppress(Malformed):
        list(Reader(bytes(changed)).values())


def in_metric(*parts: bytes) -> bytes:
    """A metric called x with these fields, on the way to which there is nothing else."""
    return message(1, message(2, message(2, text(1, "x") + b"".join(parts))))


NOTHING = b"\x10\x00" * (otlp.FIELDS_MAX // 3)


@pytest.mark.parametrize(
    "hostile",
    [
        message(1, b"") * 200_000,
        message(1, message(2, message(2, b""))) * 150_000,
        # What is none of ours, at each level.
        NOTHING,
        message(1, NOTHING),
        message(1, message(2, NOTHING)),
        in_metric(NOTHING),
        in_metric(message(5, NOTHING)),
        in_metric(message(7, NOTHING)),
        in_metric(message(5, message(1, NOTHING))),
        in_metric(message(5, message(1, message(7, b"\x18\x00" * 190) * 190))),
        in_metric(message(9, message(1, message(9, message(2, b"\x30\x00" * 19) * 190) * 90))),
        in_metric(message(5, message(1, b"") * 50_000)),
    ],
)
def test_a_megabyte_of_nothing_is_read_in_small_steps(hostile: bytes) -> None:
    reader, read_before = Reader(hostile), 0
    with contextlib.suppress(Malformed):
        for _ in reader.values():
            assert reader.fields - read_before <= otlp.FIELDS_OF_ONE_MAX + 10
            read_before = reader.fields
    assert reader.fields - read_before <= otlp.FIELDS_OF_ONE_MAX + 10
    assert reader.fields <= otlp.FIELDS_MAX + 1


def test_who_reads_pauses_as_often_as_it_takes() -> None:
    steps = sum(1 for _ in Received().take(UUID(int=1), {}, NOTHING, expires_ms=1))
    assert steps == otlp.FIELDS_MAX // 3 // kept.FIELDS_AT_ONCE


def test_a_value_has_no_more_fields_than_that_and_a_name_no_more_bytes() -> None:
    received = Received()
    many_attributes = Metric(name="m")
    many_attributes.gauge.data_points.add(as_int=1, attributes=attributes({str(n): "x" for n in range(300)}))
    with pytest.raises(Malformed):
        take(received, metrics(many_attributes))
    # It would be written anew for each of the points.
    reader = Reader(message(1, message(2, message(2, text(1, "x" * 500_000) + message(9, b"\x0a\x00" * 9)))))
    assert all(value is None for value in reader.values()) and reader.fields == 5
