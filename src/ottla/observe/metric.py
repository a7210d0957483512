"""What one metric is: its name, its labels, and what its readers need to know."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Kind(Enum):
    """The values are those of the text formats."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"
    # "unknown" in OpenMetrics.
    UNKNOWN = "untyped"


@dataclass(frozen=True, slots=True, eq=False)
class Metric:
    """A family of Prometheus' samples. Names end in the unit; counters in ``_total``.

    ``meaning``: one sentence. ``normal``: what is to be expected; ``action``: what to do where it is not;
    empty where there is nothing to do. ``kafka``: what Kafka calls it among its JMX names, if it has it.
    """

    name: str
    kind: Kind
    meaning: str
    normal: str
    action: str = ""
    labels: tuple[str, ...] = ()
    kafka: str = ""


def counter(
    name: str, meaning: str, normal: str, action: str = "", labels: tuple[str, ...] = (), kafka: str = ""
) -> Metric:
    assert name.endswith("_total"), name
    return Metric(name, Kind.COUNTER, meaning, normal, action, labels, kafka)


def gauge(
    name: str, meaning: str, normal: str, action: str = "", labels: tuple[str, ...] = (), kafka: str = ""
) -> Metric:
    return Metric(name, Kind.GAUGE, meaning, normal, action, labels, kafka)


def histogram(
    name: str, meaning: str, normal: str, action: str = "", labels: tuple[str, ...] = (), kafka: str = ""
) -> Metric:
    return Metric(name, Kind.HISTOGRAM, meaning, normal, action, labels, kafka)
