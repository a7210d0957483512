"""How long partitions have no leader, with default timeouts: three nodes, a real etcd, a steady producer.

Bounds are three times what is aimed for, and of three rounds at a time the middle one counts, so that a busy
machine is no finding; bench/failover.py takes the figures that docs/FAULTS.md has.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator

import pytest
from cluster_faults.failover import Failover, Outages, kill, pause, stop
from cluster_faults.machines import Node, cluster

from measuring import at_most

# What is done to a node, and how it is mended.
Harm = Callable[[Node], Callable[[], None]]
KILL_MS_MAX = 3 * 2_000
STOP_MS_MAX = 3 * 300
# A session's time, and as long again for a busy machine.
PAUSE_MS_MAX = 2 * 9_000


@pytest.fixture(scope="module")
def failover(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Failover]:
    folder = tmp_path_factory.mktemp("failover")
    with cluster(folder, {"min.insync.replicas": "2"}, cuts=False) as made, Failover(made) as measured:
        yield measured


def check(failover: Failover, harm: Harm, rounds: int, bound_ms: float) -> None:
    """In the middle one of so many rounds no partition is without a leader for longer."""
    for attempt in at_most(bound_ms, "ms without a leader", attempts=3):
        worst: list[tuple[float, float]] = []
        for _ in range(rounds):
            outages = Outages()
            failover.round(harm, outages)
            print(outages.show(harm.__doc__ or ""))
            worst.append((max(outages.metadata_ms), max(outages.producer_ms)))
        for name, figures in zip(("in Metadata", "for a producer"), zip(*worst, strict=True), strict=True):
            attempt.took(statistics.median(figures), name)


@pytest.mark.timeout(900)
def test_a_leader_is_killed(failover: Failover) -> None:
    check(failover, kill, 3, KILL_MS_MAX)


@pytest.mark.timeout(900)
def test_a_leader_is_stopped_in_order(failover: Failover) -> None:
    check(failover, stop, 3, STOP_MS_MAX)


def test_a_leader_hangs(failover: Failover) -> None:
    """Its connections stay open and its machine refuses nothing: it is missed when its lease ends."""
    check(failover, pause, 1, PAUSE_MS_MAX)
