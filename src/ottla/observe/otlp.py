"""OpenTelemetry's ``MetricsData``, written: what a scrape has found, and what clients have sent (no I/O)."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from typing import Final

from ottla.observe.exposition import LABEL_CHARACTERS_MAX, Page
from ottla.observe.metric import Kind, Metric
from ottla.observe.protobuf import double, fixed64, integer, message, text
from ottla.observe.samples import Labels, ranges, samples
from ottla.telemetry.otlp import Reader

# Who measures (``InstrumentationScope``).
SCOPE: Final = "ottla"
# AGGREGATION_TEMPORALITY_CUMULATIVE
_CUMULATIVE: Final = 2
# Points that are written, or fields read, before others have their turn.
AT_ONCE: Final = 200
# What one client may have sent, with who it is in each of its resources; Java's have one for each metric.
NAMED_BYTES_MAX: Final = 4 * 1024 * 1024


def attributes(number: int, labels: Iterable[tuple[str, str]]) -> bytes:
    """Attributes of a point or of a resource, whose field has that number."""
    return b"".join(message(number, text(1, name) + message(2, text(1, value))) for name, value in labels)


class Written:
    """What a page says, as one ``ResourceMetrics`` of this node."""

    def __init__(self, resource: Mapping[str, str], start_ns: int, now_ns: int) -> None:
        """``start_ns``: since when counters count, in Unix time."""
        self._resource = message(1, attributes(1, resource.items()))
        self._times = fixed64(2, start_ns) + fixed64(3, now_ns)
        self._metrics: list[bytes] = []

    def put(self, metric: Metric, page: Page) -> Iterator[None]:
        """A metric, with a pause now and then. Of those that are clients' nothing: they go as they came."""
        if metric.kind is Kind.UNKNOWN:
            return
        points: list[bytes] = []
        if metric.kind is Kind.HISTOGRAM:
            for labels, bounds, counts, total in ranges(page.lines(metric)):
                points.append(message(1, self._histogram(labels, bounds, counts, total)))
                yield
        else:
            for sample in samples(page.lines(metric)):
                point = self._times + double(4, sample.value) + attributes(7, sample.labels)
                points.append(message(1, point))
                if len(points) % AT_ONCE == 0:
                    yield
        if points:
            self._metrics.append(message(2, _described(metric) + _data(metric.kind, b"".join(points))))

    def _histogram(
        self, labels: Labels, bounds: Sequence[float], counts: Sequence[int], total: float
    ) -> bytes:
        ranged = b"".join(fixed64(6, count) for count in counts) + b"".join(double(7, one) for one in bounds)
        whole = fixed64(4, sum(counts)) + double(5, total)
        return self._times + whole + ranged + attributes(9, labels)

    def message(self) -> bytes:
        """All of it."""
        scope = message(1, text(1, SCOPE)) + b"".join(self._metrics)
        return message(1, self._resource + message(2, scope))


def _described(metric: Metric) -> bytes:
    name = metric.name.removesuffix("_total")
    unit = {"seconds": "s", "bytes": "By"}.get(name.rpartition("_")[2], "")
    return text(1, metric.name) + text(2, metric.meaning) + text(3, unit)


def _data(kind: Kind, points: bytes) -> bytes:
    if kind is Kind.GAUGE:
        return message(5, points)
    if kind is Kind.COUNTER:
        return message(7, points + integer(2, _CUMULATIVE) + integer(3, 1))
    return message(9, points + integer(2, _CUMULATIVE))


def named(metrics: bytes, who: Mapping[str, str | None]) -> Generator[None, None, bytes]:
    """What a client has sent, with who it is among the attributes of each resource, with pauses. It was read
    before. Nothing where that becomes more than `NAMED_BYTES_MAX`: a client may send a resource in two bytes.

    A message that stands twice is one with the fields of both, so nothing of it has to be read again.
    """
    labels = [(name, value[:LABEL_CHARACTERS_MAX]) for name, value in who.items() if value]
    own = message(1, attributes(1, labels))
    found = bytearray()
    for done, resource in enumerate(Reader(metrics).resources(), 1):
        if done % AT_ONCE == 0:
            yield
        if resource is not None:
            start, end = resource
            found += message(1, metrics[start:end] + own)
            if len(found) > NAMED_BYTES_MAX:
                return b""
    return bytes(found)
