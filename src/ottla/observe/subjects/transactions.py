"""Transactions that this node coordinates."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from ottla.coordinators.transactions.states import TransactionState
from ottla.observe.exposition import Page
from ottla.observe.metric import gauge
from ottla.observe.parts import Parts

IDS = gauge(
    "ottla_transactional_ids", "Transactional ids, by Kafka's names of the states that their transactions "
    "are in.",
    "Most are CompleteCommit or Empty.",
    "Many that are CompleteAbort: producers fail, or are too slow for transaction.timeout.ms. See `ottla "
    "transaction list`.",
    ("state",),
)  # fmt: skip
OLDEST = gauge(
    "ottla_transaction_oldest_seconds",
    "How long the oldest transaction has been open: consumers with read_committed read nothing behind it.",
    "Below transaction.timeout.ms of its producer.", "`ottla transaction list` has it, and aborts it.",
    (), "kafka.server:type=transaction-coordinator-metrics",
)  # fmt: skip
DECIDED = gauge(
    "ottla_transactions_awaiting_markers",
    "Transactions that are committed or aborted, and whose end is not in all of their partitions yet.",
    "Some, where there is load.", "A node does not answer, or a partition has no leader: see "
    "`ottla_offline_partitions`.",
    (), "kafka.coordinator.transaction:type=TransactionMarkerChannelManager,name=UnknownDestinationQueueSize",
)  # fmt: skip

METRICS = (IDS, OLDEST, DECIDED)

LOOKED_AT_ONCE = 500


def collect(parts: Parts, page: Page) -> Iterator[None]:
    services = parts.services
    states: Counter[str] = Counter(dict.fromkeys((state.value for state in TransactionState), 0))
    oldest_ms, decided = -1, 0
    for shard in list(services.transactions.host.shards.values()):
        tables = shard.machine.tables
        decided += len(tables.marking)
        for name in tables.ongoing:
            # The first one began first.
            found = tables.metadata.get(name)
            if found is not None:
                oldest_ms = found.start_ms if oldest_ms < 0 else min(oldest_ms, found.start_ms)
            break
        for count, metadata in enumerate(list(tables.metadata.values()), 1):
            states[metadata.state.value] += 1
            if count % LOOKED_AT_ONCE == 0:
                yield
    for state, number in states.items():
        page.add(IDS, number, state)
    page.add(OLDEST, 0 if oldest_ms < 0 else max(services.clock.now_ms() - oldest_ms, 0) / 1000)
    page.add(DECIDED, decided)
    yield
