"""The metadata store, as this node finds it."""

from __future__ import annotations

from collections.abc import Iterator

from ottla.observe.exposition import Page
from ottla.observe.metric import counter, gauge, histogram
from ottla.observe.parts import Parts

TOOK = histogram(
    "ottla_store_request_seconds",
    "How long the metadata store took to answer: `get` and `range` read, `txn` changes something, `lease` "
    "grants or "
    "ends one.",
    "Below 0.05, of SQLite below 0.02.",
    "Look at etcd's disk (`etcd_disk_wal_fsync_duration_seconds`) and the network to it; of SQLite at the "
    "disk of "
    "the data directory.",
    ("operation",), "kafka.server:type=raft-metrics,name=commit-latency-avg",
)  # fmt: skip
FAILURES = counter(
    "ottla_store_request_failures_total", "Requests that failed: the store was out of reach, or refused.",
    "It stands still.", "See `ottla_store_away_seconds`, and the log.", ("operation",),
)  # fmt: skip
AWAY = gauge(
    "ottla_store_away_seconds",
    "For how long the metadata store has not answered requests and renewals of the node's lease, or not let "
    "its changes be followed.", "0.",
    "Nothing changes meanwhile, and clients are served; but no leader can be replaced. See docs/STORE.md.",
    (), "kafka.server:type=broker-metadata-metrics,name=metadata-apply-error-count",
)  # fmt: skip

METRICS = (TOOK, FAILURES, AWAY)


def collect(parts: Parts, page: Page) -> Iterator[None]:
    store = parts.store
    for operation, trips in (
        ("get", store.gets), ("range", store.ranges), ("txn", store.txns), ("lease", store.leases),
    ):  # fmt: skip
        page.add_milliseconds(TOOK, trips.took, operation)
        page.add(FAILURES, trips.failures, operation)
    page.add(AWAY, parts.store_away_s() or 0)
    yield
