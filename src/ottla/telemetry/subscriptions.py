"""Which clients are asked for which metrics: the subscriptions of the cluster's configuration.

Kafka's ``ClientMetricsManager`` and ``ClientMetricsConfigs`` (KIP-714).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple
from uuid import UUID

from ottla.checksum import crc32c
from ottla.config.client_metrics import CLIENT_METRICS, client_metrics_values
from ottla.numbers import trim
from ottla.security.patterns.match import JavaPattern, TooMuchWork, Work
from ottla.security.patterns.parse import PatternError

# Stands for all metrics there are.
ALL_METRICS: Final = "*"
INTERVAL_MS_DEFAULT: Final[int] = CLIENT_METRICS["interval.ms"].default
# What matching one client with all subscriptions may take: some milliseconds.
MATCHING_WORK_MAX: Final = 10_000


class Subscription(NamedTuple):
    """What clients that match all of some patterns are asked for, and how often in milliseconds."""

    metrics: frozenset[str]
    interval_ms: int
    match: Mapping[str, JavaPattern]

    def is_for(self, attributes: Mapping[str, str | None], work: Work) -> bool:
        """Whether a client with these attributes is meant. TooMuchWork."""
        for name, pattern in self.match.items():
            value = attributes.get(name)
            if value is None or pattern.matches(value, work) is None:
                return False
        return True


class Asked(NamedTuple):
    """What one client is asked for: prefixes of names, in order, or `ALL_METRICS`; how often."""

    metrics: tuple[str, ...]
    interval_ms: int

    def id_for(self, instance_id: UUID) -> int:
        """What this client knows it by: the same on each node (``computeSubscriptionId``)."""
        text = f"[{', '.join(self.metrics)}]{self.interval_ms}"
        halves = (instance_id.int >> 64) ^ instance_id.int
        mixed = (halves >> 32 ^ halves) & 0xFFFFFFFF
        unsigned = crc32c(text.encode()) ^ mixed
        return unsigned - (1 << 32) if unsigned >> 31 else unsigned


def patterns_of(texts: tuple[str, ...]) -> dict[str, JavaPattern]:
    """The patterns of a subscription's ``match``, which have been checked, by attribute. PatternError: one is
    beyond what is matched here."""
    found = {}
    for text in texts:
        name, _, pattern = text.partition("=")
        found[trim(name)] = JavaPattern(trim(pattern.rstrip("=")))
    return found


def subscription_of(configs: Mapping[str, str]) -> Subscription | None:
    """What a subscription's configuration says; None where its patterns are beyond us."""
    values = client_metrics_values(configs)
    try:
        match = patterns_of(values["match"])
    except PatternError:
        return None
    return Subscription(frozenset(values["metrics"]), values["interval.ms"], match)


def asked_of(subscriptions: Mapping[str, Subscription], attributes: Mapping[str, str | None]) -> Asked:
    """What all subscriptions together ask of a client: the shortest interval, and each metric once."""
    metrics: set[str] = set()
    interval_ms, work = INTERVAL_MS_DEFAULT, Work(MATCHING_WORK_MAX)
    for one in subscriptions.values():
        try:
            is_for = one.is_for(attributes, work)
        except TooMuchWork:
            # It is for none of those that are left: a client's long name is no reason to hold others up.
            break
        if is_for:
            metrics |= one.metrics
            interval_ms = min(interval_ms, one.interval_ms)
    return Asked((ALL_METRICS,) if ALL_METRICS in metrics else tuple(sorted(metrics)), interval_ms)
