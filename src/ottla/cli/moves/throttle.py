"""Slowing moves down: Kafka's replication quotas (KIP-73), as kafka-reassign-partitions sets them.

The rate is a configuration of each broker that takes part; which replicas it holds for is one of each topic.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from ottla.cli.direct import Unanswered
from ottla.cli.moves.requests import Requests, by_topic
from ottla.types import TopicPartition

LEADER_RATE, FOLLOWER_RATE = "leader.replication.throttled.rate", "follower.replication.throttled.rate"
LEADER_REPLICAS = "leader.replication.throttled.replicas"
FOLLOWER_REPLICAS = "follower.replication.throttled.replicas"


def set_throttle(
    requests: Requests,
    current: Mapping[TopicPartition, Sequence[int]],
    planned: Mapping[TopicPartition, Sequence[int]],
    bytes_per_s: int,
) -> None:
    """Hold the copying that a plan needs to a rate for each broker, and nothing else."""
    for topic, configs in throttled_replicas(current, planned).items():
        requests.alter_topic(topic, configs)
    for node in sorted({n for p in planned for n in (*current[p], *planned[p])}):
        _alter_broker(requests, node, str(bytes_per_s))


def throttled_replicas(
    current: Mapping[TopicPartition, Sequence[int]], planned: Mapping[TopicPartition, Sequence[int]]
) -> dict[str, dict[str, str | None]]:
    """The configurations of each topic that name the replicas which send, and those which come."""
    found: dict[str, dict[str, str | None]] = {}
    for topic, numbers in by_topic(planned).items():
        sending, coming = [], []
        for number in numbers:
            partition = TopicPartition(topic, number)
            new = [node for node in planned[partition] if node not in current[partition]]
            if new:
                sending += [f"{number}:{node}" for node in current[partition]]
                coming += [f"{number}:{node}" for node in new]
        if coming:
            found[topic] = {LEADER_REPLICAS: ",".join(sending), FOLLOWER_REPLICAS: ",".join(coming)}
    return found


def remove_throttle(requests: Requests, topics: Iterable[str], nodes: Iterable[int]) -> None:
    """Let copying be as fast as it can again."""
    for topic in sorted(topics):
        requests.alter_topic(topic, {LEADER_REPLICAS: None, FOLLOWER_REPLICAS: None})
    for node in sorted(nodes):
        _alter_broker(requests, node, None)


def _alter_broker(requests: Requests, node: int, rate: str | None) -> None:
    try:
        requests.alter_broker(node, {LEADER_RATE: rate, FOLLOWER_RATE: rate})
    except Unanswered:
        # It is gone, and copies nothing.
        return
