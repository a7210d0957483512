"""Which brokers hold a new partition: striped over racks, then over each rack's brokers (pure).

In the spirit of Kafka's ``StripedReplicaPlacer``: replicas go to the racks in turn, each partition starting
one rack further, and within a rack to its brokers in turn. So no broker is used twice for a partition, racks
are used evenly, and leaders spread.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ottla.errors import ErrorCode, KafkaError


def place(
    racks: Mapping[int, str | None], partitions: int, replication_factor: int, start: int
) -> list[tuple[int, ...]]:
    """Replicas of each of ``partitions`` new partitions, the first of them its leader.

    ``racks`` maps each live broker to its rack. ``start`` is any number: it turns the stripes, so that
    topics do not all begin with the same broker. KafkaError(INVALID_REPLICATION_FACTOR) where there are
    too few brokers.
    """
    if replication_factor > len(racks):
        raise KafkaError(
            ErrorCode.invalid_replication_factor,
            f"Unable to replicate the partition {replication_factor} time(s): The target replication factor "
            f"of {replication_factor} cannot be reached because only {len(racks)} broker(s) are registered.",
        )
    stripes = _stripes(racks)
    return [
        _place_one(stripes, replication_factor, start + index, (start + index) // len(stripes))
        for index in range(partitions)
    ]


def _stripes(racks: Mapping[int, str | None]) -> list[list[int]]:
    """Brokers of each rack, both sorted. Brokers without a rack stand in one of their own, together."""
    by_rack: dict[str, list[int]] = {}
    for node_id in sorted(racks):
        by_rack.setdefault(racks[node_id] or "", []).append(node_id)
    return [by_rack[rack] for rack in sorted(by_rack)]


def _place_one(stripes: Sequence[Sequence[int]], count: int, first: int, turn: int) -> tuple[int, ...]:
    """``count`` different brokers, from rack ``first`` on; ``turn`` says where in each rack to begin."""
    chosen: list[int] = []
    taken = [0] * len(stripes)
    rack = first
    while len(chosen) < count:
        position = rack % len(stripes)
        brokers = stripes[position]
        if taken[position] < len(brokers):
            chosen.append(brokers[(turn + taken[position]) % len(brokers)])
            taken[position] += 1
        rack += 1
    return tuple(chosen)
