"""All metrics there are, by subject. docs/METRICS.md is made from this, and a test holds scrapes against
it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

from ottla.observe.exposition import Page
from ottla.observe.metric import Metric, counter
from ottla.observe.parts import Parts
from ottla.observe.subjects import (
    cluster,
    connections,
    groups,
    memory,
    partitions,
    process,
    requests,
    security,
    store,
    telemetry,
    topics,
    transactions,
)


class Subject(NamedTuple):
    """What belongs together, as the document has it."""

    title: str
    metrics: tuple[Metric, ...]
    # Puts what there is into the page, in pieces.
    collect: Callable[[Parts, Page], Iterator[None]]


FAILURES = counter(
    "ottla_scrape_failures_total",
    "How often metrics of one of these subjects could not be collected, and are missing.", "0.",
    "The log says why: report it.",
)  # fmt: skip


def _nothing(parts: Parts, page: Page) -> Iterator[None]:
    return iter(())


SUBJECTS: Final = (
    Subject("The process and its event loop", process.METRICS, process.collect),
    Subject("Requests", requests.METRICS, requests.collect),
    Subject("Partitions and their replicas", partitions.METRICS, partitions.collect),
    Subject("Topics and their logs", topics.METRICS, topics.collect),
    Subject("Groups and coordinators", groups.METRICS, groups.collect),
    Subject("Transactions", transactions.METRICS, transactions.collect),
    Subject("The cluster", cluster.METRICS, cluster.collect),
    Subject("Connections", connections.METRICS, connections.collect),
    Subject("Logins, rights and quotas", security.METRICS, security.collect),
    Subject("Memory", memory.METRICS, memory.collect),
    Subject("The metadata store", store.METRICS, store.collect),
    Subject("Metrics of clients", telemetry.METRICS, telemetry.collect),
    Subject("Scrapes", (FAILURES,), _nothing),
)
METRICS: Final = tuple(metric for subject in SUBJECTS for metric in subject.metrics)
