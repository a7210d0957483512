"""A snapshot as rows: brokers, topics, groups, clients (pure)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

from ottla.cli.top.snapshot import NO_LEADER, Broker, Connection, Group, Measure, Partition, Snapshot
from ottla.types import TopicPartition

CONTROLLER, ALIVE, SILENT, AWAY = "controller", "alive", "silent", "away"
# A group that is behind and comes no nearer, in seconds to go.
NEVER = float("inf")


class BrokerRow(NamedTuple):
    """A node."""

    node_id: int
    state: str
    rack: str | None
    address: str | None
    leads: int
    replicas: int
    # Of those that it leads: short of a replica in sync. Of its replicas: not in sync; without any leader.
    under_replicated: int
    behind: int
    offline: int
    size_bytes: int | None
    # Of the partitions that it leads.
    messages_per_s: float | None


class TopicRow(NamedTuple):
    """A topic. Sizes and rates are those of one copy."""

    topic: str
    internal: bool
    partitions: int
    replication_factor: int
    under_replicated: int
    offline: int
    messages_per_s: float | None
    bytes_per_s: float | None
    size_bytes: int | None


class GroupRow(NamedTuple):
    """A group."""

    group: str
    state: str
    type: str
    coordinator: int
    members: int | None
    lag: int | None
    lag_per_s: float | None
    consumed_per_s: float | None
    # None: it cannot be said; infinite: never, as things go.
    catch_up_s: float | None


Row = BrokerRow | TopicRow | GroupRow | Connection


def total(rates: Iterable[float | None]) -> float | None:
    """The sum of what is known; None where nothing is."""
    known = [rate for rate in rates if rate is not None]
    return sum(known) if known else None


def is_short(partition: Partition) -> bool:
    """Whether it lacks a replica in sync."""
    return len(partition.isr) < len(partition.replicas)


def brokers(snapshot: Snapshot) -> list[BrokerRow]:
    """All nodes that are there, or hold what they are not there for."""
    led, held, short, behind, offline = (Counter[int]() for _ in range(5))
    rates: dict[int, list[float | None]] = {}
    for name, partition in snapshot.partitions.items():
        led[partition.leader] += 1
        held.update(partition.replicas)
        short[partition.leader] += is_short(partition)
        behind.update(node for node in partition.replicas if node not in partition.isr)
        if partition.leader == NO_LEADER:
            offline.update(partition.replicas)
        rates.setdefault(partition.leader, []).append(_per_s(snapshot.ends.get(name)))
    return [
        BrokerRow(
            node_id=node,
            state=_state(snapshot, node),
            rack=None if broker is None else broker.rack,
            address=_address(broker),
            leads=led[node],
            replicas=held[node],
            under_replicated=short[node],
            behind=behind[node],
            offline=offline[node],
            size_bytes=snapshot.held_bytes.get(node),
            messages_per_s=total(rates.get(node, ())),
        )
        for node, broker in ((n, snapshot.brokers.get(n)) for n in sorted(snapshot.brokers.keys() | held))
    ]


def _state(snapshot: Snapshot, node: int) -> str:
    broker = snapshot.brokers.get(node)
    if broker is None or broker.is_fenced:
        return AWAY
    if node in snapshot.silent:
        return SILENT
    return CONTROLLER if node == snapshot.controller else ALIVE


def _address(broker: Broker | None) -> str | None:
    if broker is None or not broker.host or broker.port <= 0:
        return None
    host = f"[{broker.host}]" if ":" in broker.host else broker.host
    return f"{host}:{broker.port}"


def _per_s(measure: Measure | None) -> float | None:
    return None if measure is None else measure.per_s


def topics(snapshot: Snapshot, *, internal: bool = True) -> list[TopicRow]:
    """All topics. ``internal``: those that are Kafka's own among them."""
    found: dict[str, list[TopicPartition]] = {}
    for partition in snapshot.partitions:
        if internal or partition.topic not in snapshot.internal:
            found.setdefault(partition.topic, []).append(partition)
    return [_topic(snapshot, name, found[name]) for name in sorted(found)]


def _topic(snapshot: Snapshot, name: str, partitions: list[TopicPartition]) -> TopicRow:
    views = [snapshot.partitions[one] for one in partitions]
    sizes = [snapshot.sizes[one] for one in partitions if one in snapshot.sizes]
    return TopicRow(
        topic=name,
        internal=name in snapshot.internal,
        partitions=len(partitions),
        replication_factor=max(len(view.replicas) for view in views),
        under_replicated=sum(map(is_short, views)),
        offline=sum(view.leader == NO_LEADER for view in views),
        messages_per_s=total(_per_s(snapshot.ends.get(one)) for one in partitions),
        bytes_per_s=total(size.per_s for size in sizes),
        size_bytes=sum(size.value for size in sizes) if sizes else None,
    )


def groups(snapshot: Snapshot) -> list[GroupRow]:
    """All groups."""
    return [_group(name, group) for name, group in sorted(snapshot.groups.items())]


def _group(name: str, group: Group) -> GroupRow:
    lag, lag_per_s = (None, None) if group.lag is None else (group.lag.value, group.lag.per_s)
    return GroupRow(
        group=name,
        state=group.state,
        type=group.kind,
        coordinator=group.coordinator,
        members=group.members,
        lag=lag,
        lag_per_s=lag_per_s,
        consumed_per_s=total(offset.per_s for offset in group.committed.values()),
        catch_up_s=catch_up_s(lag, lag_per_s),
    )


def catch_up_s(lag: int | None, lag_per_s: float | None) -> float | None:
    """How long it takes until nothing is left to consume, as things go."""
    if lag == 0:
        return 0.0
    if lag is None or lag_per_s is None:
        return None
    return lag / -lag_per_s if lag_per_s < 0 else NEVER


def connections(snapshot: Snapshot) -> list[Connection]:
    """The slowest clients, as nodes with a metrics listener tell of them."""
    return sorted(snapshot.listened.connections, key=lambda one: (one.node_id, one.host, one.port))
