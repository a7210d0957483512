"""The parts of a node that are looked at, and what is remembered between two looks."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ottla.broker.entrances import Entrances
from ottla.broker.listeners import Listeners
from ottla.broker.services import Services
from ottla.env.lag import LoopLag
from ottla.metadata.measured import MeasuredStore
from ottla.observe.labels import Labels
from ottla.observe.requests import RequestWatcher
from ottla.replication.traffic import Traffic

if TYPE_CHECKING:
    from ottla.metadata.membership import Membership


@dataclass(slots=True)
class Exports:
    """How it goes to send metrics to a collector."""

    count: int = 0
    failures: int = 0
    is_failing: bool = False
    # Of what clients have sent: what waits to be sent on, and what was given up.
    kept_bytes: int = 0
    dropped_bytes: int = 0


@dataclass(slots=True)
class Parts:
    """See the module's docstring."""

    services: Services
    listeners: Listeners
    entrances: Entrances
    store: MeasuredStore
    # How late the loop is, where that is measured.
    lag: LoopLag | None
    # In a cluster.
    membership: Membership | None
    # Who has seen requests, while they were watched.
    requests: RequestWatcher
    # Which topics, and which groups, have labels of their own.
    topics: Labels = field(default_factory=Labels)
    groups: Labels = field(default_factory=Labels)
    # Of topics' labels, what is left of partitions whose topics have no sums of their own any more.
    left: dict[str, Traffic] = field(default_factory=dict)
    # The volume of the data directory, and what is free of it; None where that cannot be told.
    volume_bytes: tuple[int, int] | None = None
    exports: Exports = field(default_factory=Exports)
    # How often metrics of a subject could not be collected.
    failures: int = 0

    def keep_left(self, topic: str, traffic: Traffic) -> None:
        """Have the sums of partitions that have left stay where they have been told."""
        label = self.topics.known(topic)
        if label is not None:
            self.left.setdefault(label, Traffic()).add(traffic)

    def store_away_s(self) -> float | None:
        """For how long the metadata store has not answered, or not let its changes be followed; None: it does
        both.

        Requests and renewals of the node's lease tell of it first, within about half of the session."""
        found = (self.store.silent_since_s, self.services.metadata.away_since_s)
        since_s = min((one for one in found if one is not None), default=None)
        return None if since_s is None else asyncio.get_running_loop().time() - since_s
