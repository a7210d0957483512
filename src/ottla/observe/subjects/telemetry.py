"""Metrics that clients send of themselves (KIP-714), and how that goes."""

from __future__ import annotations

from collections.abc import Iterator

from ottla.observe.exposition import Page, braced, number
from ottla.observe.metric import Kind, Metric, counter, gauge
from ottla.observe.parts import Parts

_GROUP = "kafka.server:type=client-metrics,name="

CLIENTS = gauge(
    "ottla_telemetry_clients", "Clients that this node has asked for metrics, and that it still knows.",
    "As many as connect with a client that has such metrics.", "", (), _GROUP + "instance-count",
)  # fmt: skip
PUSHES = counter(
    "ottla_telemetry_pushes_total", "Sets of metrics that clients have sent.",
    "One for each client and `interval.ms`.",
)  # fmt: skip
THROTTLED = counter(
    "ottla_telemetry_throttled_total",
    "Requests about metrics that came before the client's interval was over.",
    "It stands still.", "A client that was started again with its old id: otherwise report it to its makers.",
    (), _GROUP + "throttle-count",
)  # fmt: skip
UNKNOWN = counter(
    "ottla_telemetry_unknown_subscriptions_total", "Sets of metrics for subscriptions that have changed.",
    "One for each client when a subscription changes.", "", (), _GROUP + "unknown-subscription-request-count",
)  # fmt: skip
VALUES = gauge(
    "ottla_telemetry_values", "Values of clients' metrics that are shown.", "Some hundred for each client.",
    "Ask for fewer metrics (`metrics`), or of fewer clients (`match`): 50,000 are kept at most, of 5,000 "
    "names, and in 64 MiB.",
)  # fmt: skip
DROPPED = counter(
    "ottla_telemetry_dropped_values_total", "Values that were not kept, since there were too many.",
    "It stands still.", "As for ottla_telemetry_values.",
)  # fmt: skip

EXPORTS = counter(
    "ottla_exports_total", "How often all metrics were sent to the collector (otlp.endpoint).",
    "Once in each otlp.interval.ms.",
)  # fmt: skip
EXPORT_FAILURES = counter(
    "ottla_export_failures_total", "How often that failed.", "It stands still.",
    "The log says why. The node's own metrics are told the next time, clients' as far as they are kept.",
)  # fmt: skip
EXPORT_KEPT = gauge(
    "ottla_export_kept_bytes", "What clients have sent, and waits to be sent on.",
    "What comes in one otlp.interval.ms.", "As for ottla_export_failures_total: 8 MiB are kept at most.",
)  # fmt: skip
EXPORT_DROPPED = counter(
    "ottla_export_dropped_bytes_total", "What clients have sent, and was not sent on.", "It stands still.",
    "As for ottla_export_failures_total.",
)  # fmt: skip

METRICS = (
    CLIENTS, PUSHES, THROTTLED, UNKNOWN, VALUES, DROPPED,
    EXPORTS, EXPORT_FAILURES, EXPORT_KEPT, EXPORT_DROPPED,
)  # fmt: skip

# Values that are written down before others have their turn.
_AT_ONCE = 200


def collect(parts: Parts, page: Page) -> Iterator[None]:
    telemetry = parts.services.telemetry
    instances = telemetry.instances(parts.services.metadata.image)
    received, now_ms = telemetry.received, parts.services.clock.monotonic_ms()
    instances.forget_expired(now_ms)
    while received.forget_expired(now_ms):
        yield
    page.add(CLIENTS, len(instances))
    page.add(PUSHES, received.pushes)
    page.add(THROTTLED, instances.throttled)
    page.add(UNKNOWN, instances.unknown_subscriptions)
    page.add(VALUES, received.count)
    page.add(DROPPED, received.dropped)
    page.add(EXPORTS, parts.exports.count)
    page.add(EXPORT_FAILURES, parts.exports.failures)
    page.add(EXPORT_KEPT, parts.exports.kept_bytes)
    page.add(EXPORT_DROPPED, parts.exports.dropped_bytes)
    yield
    for name in received.names:
        # What clients call so, and which kind it is, is theirs.
        lines = page.lines(Metric(name, Kind.UNKNOWN, "Sent by clients.", ""))
        for done, (labels, value) in enumerate(received.samples(name), 1):
            names, values = zip(*labels, strict=True)
            lines.append(f"{name}{braced(names, values)} {number(value)}\n")
            if done % _AT_ONCE == 0:
                yield
        yield
