"""Which nodes hold a new partition: leaders in turn, followers striped over the other racks (pure).

In the spirit of Kafka's ``StripedReplicaPlacer``. Among nodes that live every one leads as often as any
other, whatever the sizes of their racks; Kafka gives racks the same share. A partition's replicas go to the
racks in turn, so that no rack has two more than another that had a node left, and in each rack to those that
hold the least. The partitions that a node leads have followers on different nodes, which share them when it
fails.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TypeVar

from ottla.errors import ErrorCode, KafkaError

T = TypeVar("T")

_NONE: Mapping[int, str | None] = {}


def place(
    racks: Mapping[int, str | None],
    partitions: int,
    replication_factor: int,
    start: int,
    spare: Mapping[int, str | None] = _NONE,
) -> Iterator[tuple[int, ...]]:
    """Replicas of each of ``partitions`` new partitions, the first of them its leader, made one by one.

    ``racks`` maps each node that can be used to its rack, ``spare`` those that are to be used only where
    these are too few: they are dead, or about to stop, and follow. ``start`` is any number: it turns the
    order, so that topics do not all begin with the same node. KafkaError(INVALID_REPLICATION_FACTOR) where
    there are too few of both, or none to lead.
    """
    if replication_factor > len(racks) + len(spare):
        raise KafkaError(
            ErrorCode.invalid_replication_factor,
            f"Unable to replicate the partition {replication_factor} time(s): The target replication factor "
            f"of {replication_factor} cannot be reached because only {len(racks) + len(spare)} broker(s) are "
            "registered.",
        )
    if not racks:
        raise KafkaError(
            ErrorCode.invalid_replication_factor,
            f"Unable to replicate the partition {replication_factor} time(s): All brokers are currently "
            "fenced or in controlled shutdown.",
        )
    placing = _Placing(racks, spare, start)
    return (placing.next(start + index, replication_factor) for index in range(partitions))


class _Placing:
    """The placement of one request's partitions."""

    def __init__(self, racks: Mapping[int, str | None], spare: Mapping[int, str | None], start: int) -> None:
        self._stripes = _stripes(racks)
        self._spare_stripes = _stripes(spare)
        # Nodes of all racks in turn: so they lead.
        self._leaders = _interleaved(self._stripes)
        self._rack_of = {node: number for number, nodes in enumerate(self._stripes) for node in nodes}
        # Replicas that each node was given by this request, and those that follow each leader.
        self._held = dict.fromkeys((*racks, *spare), 0)
        self._following: dict[tuple[int, int], int] = {}

    def next(self, turn: int, count: int) -> tuple[int, ...]:
        round_number, position = divmod(turn, len(self._leaders))
        leader = self._leaders[position]
        own = self._rack_of[leader]
        others = [*range(own + 1, len(self._stripes)), *range(own)]
        # The leader's own rack comes last: it has one already.
        order = [self._stripes[number] for number in (*_turned(others, round_number), own)]
        chosen = [leader]
        self._held[leader] += 1
        self._choose(order, min(count, len(self._leaders)), chosen, turn + round_number)
        if len(chosen) < count:
            self._choose(_turned(self._spare_stripes, turn), count, chosen, turn)
        return tuple(chosen)

    def _choose(self, racks: Sequence[Sequence[int]], count: int, chosen: list[int], turn: int) -> None:
        """Add nodes of these racks, one of each in turn, until there are ``count``: of each rack one that
        has followed the first of ``chosen`` the least, and then one that holds the least."""
        leader, following = chosen[0], self._following
        free = [[node for node in _turned(nodes, turn) if node not in chosen] for nodes in racks]
        while len(chosen) < count:
            for nodes in free:
                if nodes and len(chosen) < count:
                    node = min(nodes, key=lambda node: (following.get((leader, node), 0), self._held[node]))
                    nodes.remove(node)
                    chosen.append(node)
                    self._held[node] += 1
                    following[leader, node] = following.get((leader, node), 0) + 1


def _turned(items: Sequence[T], by: int) -> list[T]:
    """The items from number ``by`` on, and then those before."""
    first = by % len(items) if items else 0
    return [*items[first:], *items[:first]]


def _stripes(racks: Mapping[int, str | None]) -> list[list[int]]:
    """Nodes of each rack, both sorted. Nodes without a rack stand in one of their own, together."""
    by_rack: dict[str, list[int]] = {}
    for node_id in sorted(racks):
        by_rack.setdefault(racks[node_id] or "", []).append(node_id)
    return [by_rack[rack] for rack in sorted(by_rack)]


def _interleaved(stripes: Sequence[Sequence[int]]) -> list[int]:
    """The first node of each rack, the second of each, and so on."""
    longest = max(map(len, stripes))
    return [nodes[at] for at in range(longest) for nodes in stripes if at < len(nodes)]
