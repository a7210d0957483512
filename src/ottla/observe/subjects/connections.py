"""Connections, by listener."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from ottla.observe.exposition import Page
from ottla.observe.metric import counter, gauge
from ottla.observe.parts import Parts

_SERVER = "kafka.server:type=socket-server-metrics,name="

CONNECTIONS = gauge(
    "ottla_connections", "Connections that there are, those of other nodes among them.",
    "Two to five for each client.", "Beyond max.connections others are refused.",
    ("listener",), _SERVER + "connection-count",
)  # fmt: skip
ACCEPTED = counter(
    "ottla_connections_accepted_total", "Connections that were taken.", "Some for each client that starts.",
    "Clients that connect again and again are closed, or misconfigured: the log says whose connections end.",
    ("listener",), _SERVER + "connection-creation-total",
)  # fmt: skip
CLOSED = counter(
    "ottla_connections_closed_total", "Connections that ended, whoever ended them.",
    "As those that were taken.",
    "",
    ("listener",), _SERVER + "connection-close-total",
)  # fmt: skip
REFUSED = counter(
    "ottla_connections_refused_total",
    "Connections that were closed at once: `connections` (max.connections), `connections_per_ip` "
    "(max.connections.per.ip), `files` (of those that the process may have open too few are left), `rate` (a "
    "quota of "
    "their address, connection_creation_rate), `stopping`.",
    "It stands still.", "Raise the limit, or find who connects so often.",
    ("listener", "limit"), "kafka.server:type=socket-server-metrics,name=connections-rejected",
)  # fmt: skip
DELAYED = counter(
    "ottla_connections_delayed_total", "Connections that are heard later, since too many came in a second: "
    "max.connection.creation.rate.",
    "It stands still.", "As for those that were refused.", ("listener",), _SERVER +
    "connection-accept-throttle-time",
)  # fmt: skip
ENDED = counter(
    "ottla_connections_ended_total",
    "Connections that were ended: `idle` (connections.max.idle.ms), `stuck` (nothing moves on it, or its "
    "request keeps "
    "others waiting), `request_bytes` (a request larger than it may be: socket.request.max.bytes, that of "
    "its API, or "
    "sasl.server.max.receive.size before a login), `memory` (there was none for it), `frame` (it was none), "
    "`room` (max.connections: nodes came by a listener of their own, or the limit has become lower).",
    "Idle ones now and then.", "The log has a line for each of the others.", ("listener", "reason"),
    _SERVER + "expired-connections-killed-count",
)  # fmt: skip

METRICS = (CONNECTIONS, ACCEPTED, CLOSED, REFUSED, DELAYED, ENDED)


def collect(parts: Parts, page: Page) -> Iterator[None]:
    found: dict[str, Counter[tuple[object, ...]]] = {}
    for server in parts.listeners.servers:
        # One that is shared with other nodes has the name of its own.
        sums = found.setdefault(server.listener, Counter())
        counts = server.counts
        sums[CONNECTIONS,] += len(server.connections)
        sums[ACCEPTED,] += counts.accepted
        sums[CLOSED,] += counts.accepted - len(server.connections)
        sums[DELAYED,] += counts.delayed
        for limit, count in counts.refused.items():
            sums[REFUSED, limit] += count
        for reason, count in counts.ended.items():
            sums[ENDED, reason] += count
    for listener, sums in found.items():
        for (metric, *labels), count in sums.items():
            page.add(metric, count, listener, *labels)  # type: ignore[arg-type]
    yield
