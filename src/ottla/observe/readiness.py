"""Whether a node is ready for clients, and if not, why: what an orchestrator or a load balancer asks for."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

from ottla.metadata.elections import NO_LEADER
from ottla.metadata.membership import NOT_REGISTERED
from ottla.observe.parts import Parts

# Partitions that are looked at between two yields, and how many are named.
LOOKED_AT_ONCE = 200
NAMED_MAX = 10

Reason = dict[str, Any]


def reasons(parts: Parts) -> Generator[None, None, list[Reason]]:
    """Why it is not ready, in pieces; none where it is."""
    services = parts.services
    found: list[Reason] = []
    if services.replicas.stopping:
        found.append({"reason": "stopping"})
    elif not services.replicas.active or not all(server.serves for server in parts.listeners.servers):
        found.append({"reason": "joining"})
    elif parts.membership is not None and parts.membership.broker_epoch == NOT_REGISTERED:
        found.append({"reason": "registering again: the node is fenced"})
    away_s = parts.store_away_s()
    if away_s is not None:
        found.append({"reason": "the metadata store is away", "seconds": round(away_s, 1)})
    found += _session(parts)
    offline, failed = yield from _look(parts)
    if offline:
        found.append({"reason": "partitions are offline", "count": len(offline), "some": offline[:NAMED_MAX]})
    if failed:
        found.append({"reason": "the disk has failed", "count": len(failed), "some": failed[:NAMED_MAX]})
    unopened = services.replicas.openings.refused_count
    if unopened:
        found.append({"reason": "partitions cannot be opened", "count": unopened})
    return found


def _look(parts: Parts) -> Generator[None, None, tuple[list[str], list[str]]]:
    """Partitions of this node that nobody leads, and those to which nothing can be written any more."""
    offline: list[str] = []
    failed: list[str] = []
    for count, partition in enumerate(list(parts.services.replicas.partitions.values()), 1):
        if count % LOOKED_AT_ONCE == 0:
            yield
        if partition.removed:
            continue
        if partition.state.leader == NO_LEADER:
            offline.append(str(partition.topic_partition))
        if partition.log.failed is not None:
            failed.append(str(partition.topic_partition))
    return offline, failed


def _session(parts: Parts) -> list[Reason]:
    """Whether this node's place in the cluster may have ended without its knowing."""
    lease = 0 if parts.membership is None else parts.membership.lease
    if not lease or parts.store.lease_lasts(lease):
        return []
    return [{"reason": "the metadata store does not answer: the node's session may have ended"}]
