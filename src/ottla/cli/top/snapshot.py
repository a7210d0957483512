"""What is known of a cluster at one moment, and how it came to be since the moment before (pure).

Of a large cluster not everything is asked for at once: each figure knows when it was taken, and how fast it
has moved since it was taken before.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from ottla.types import TopicPartition

NO_LEADER = -1


class Measure(NamedTuple):
    """A figure, and how much it grows in a second; None where that cannot be said. ``past``: when it was
    what, the oldest of which is what it is compared with."""

    at_s: float
    value: int
    per_s: float | None = None
    past: tuple[tuple[float, int], ...] = ()


# As many figures are kept for the time over which one is compared.
PAST_MAX = 5


def measured(
    before: Measure | None, at_s: float, value: int, *, shrinks: bool = False, over_s: float = 0.0
) -> Measure:
    """The figure as it is found after ``before``.

    ``shrinks``: it may become less. Otherwise it has begun anew where it has, and nothing can be said of how
    fast it grows. ``over_s``: compare it with what it was so long ago, as far as that is known; 0: with the
    one before.
    """
    if before is None:
        return Measure(at_s, value)
    if at_s <= before.at_s:
        return Measure(at_s, value, before.per_s, before.past)
    if value < before.value and not shrinks:
        return Measure(at_s, value)
    past = before.past
    if not past or before.at_s - past[-1][0] >= over_s / PAST_MAX:
        past = (*past, (before.at_s, before.value))
    while len(past) > 1 and at_s - past[1][0] >= over_s:
        past = past[1:]
    then_s, then = past[0]
    return Measure(at_s, value, (value - then) / (at_s - then_s), past)


class Broker(NamedTuple):
    """A node that the cluster knows. ``is_fenced``: it has been there, and is not."""

    host: str
    port: int
    rack: str | None
    is_fenced: bool = False


class Partition(NamedTuple):
    """A partition as metadata has it."""

    leader: int
    replicas: tuple[int, ...]
    isr: tuple[int, ...]


class Group(NamedTuple):
    """A group. ``committed``: of each partition, as far as they have been asked for."""

    state: str
    kind: str
    coordinator: int
    members: int | None = None
    committed: Mapping[TopicPartition, Measure] = {}
    lag: Measure | None = None
    # When its members and offsets were asked for.
    at_s: float | None = None


class Connection(NamedTuple):
    """What a node tells of a connection; all of it per second where it is a rate."""

    node_id: int
    host: str
    port: int
    client_id: str
    principal: str
    listener: str
    requests_per_s: float
    # Of each second, how much of it the node's event loop was busy for this one.
    busy_ms_per_s: float
    request_bytes_per_s: float
    response_bytes_per_s: float
    unsent_bytes: int
    oldest_unanswered_ms: float | None


class Listened(NamedTuple):
    """What nodes with a metrics listener tell. ``asked``: where they were asked; ``notes``: which have none,
    or do not answer there."""

    connections: tuple[Connection, ...] = ()
    asked: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Snapshot:
    """The cluster. Times are those of a clock that never goes back, in seconds. One is equal to itself alone:
    what is made of it is remembered with it."""

    at_s: float
    cluster_id: str | None = None
    controller: int = NO_LEADER
    brokers: Mapping[int, Broker] = field(default_factory=dict)
    partitions: Mapping[TopicPartition, Partition] = field(default_factory=dict)
    # Topics that are Kafka's own.
    internal: frozenset[str] = frozenset()
    # Where logs end.
    ends: Mapping[TopicPartition, Measure] = field(default_factory=dict)
    # Bytes: of the leader's replica, and of all that a node holds.
    sizes: Mapping[TopicPartition, Measure] = field(default_factory=dict)
    held_bytes: Mapping[int, int] = field(default_factory=dict)
    groups: Mapping[str, Group] = field(default_factory=dict)
    listened: Listened = field(default_factory=Listened)
    # Nodes that are asked and do not answer, and why.
    silent: Mapping[int, str] = field(default_factory=dict)
    # When topics and partitions, and sizes, were asked for.
    metadata_at_s: float | None = None
    sizes_at_s: float | None = None
    # What it took to find all this out, in seconds.
    took_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is looked at, and is to be asked for first. ``everything``: all else too, at once."""

    topics: Collection[str] = ()
    groups: Sequence[str] = ()
    everything: bool = False


def group_lag(group: Group, ends: Mapping[TopicPartition, Measure]) -> int | None:
    """Messages that are there and not consumed, of the partitions that the group has offsets for; None where
    nothing is known."""
    known = [(ends[p].value, offset.value) for p, offset in group.committed.items() if p in ends]
    return sum(max(0, end - offset) for end, offset in known) if known else None
