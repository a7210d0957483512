"""Requests that go to the leaders of partitions, to coordinators or to each broker, over plain connections.

If a broker does not answer, has no leader to name or is still loading, it is asked again within a time limit.
So a request must have the same effect when it is sent twice.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from ottla.cli.direct import RETRY_S, RETRY_STEP_S, DirectCluster, Unanswered, check, error_name
from ottla.cli.errors import CliError, ExitCode
from ottla.cli.rights import Right
from ottla.errors import ErrorCode
from ottla.types import TopicPartition

T = TypeVar("T")

# How many partitions, or transactional ids, one request asks about.
BATCH = 500
# Types of coordinators in FindCoordinator.
GROUP, TRANSACTION = 0, 1

# Errors that another leader, or the same one a little later, does not have.
NO_LEADER = frozenset(
    {
        ErrorCode.not_leader_or_follower,
        ErrorCode.replica_not_available,
        ErrorCode.broker_not_available,
        ErrorCode.unknown_topic_or_partition,
        ErrorCode.leader_not_available,
    }
)
NO_COORDINATOR = frozenset(
    {
        ErrorCode.coordinator_load_in_progress,
        ErrorCode.coordinator_not_available,
        ErrorCode.not_coordinator,
    }
)


class Again(Exception):
    """It cannot be said yet; the message says why."""


class ClusterRequests:
    """Asks a cluster. CliError where it has no answer, or that is an error."""

    def __init__(self, cluster: DirectCluster, retry_s: float = RETRY_S) -> None:
        self._cluster = cluster
        self._retry_s = retry_s

    def nodes(self) -> list[int]:
        """The ids of all brokers."""
        return sorted(broker.node_id for broker in self._metadata([]).brokers)

    def check_node(self, node: int) -> None:
        """CliError (not found) where there is no such broker."""
        if node not in self.nodes():
            raise CliError(f"node {node} is not there", ExitCode.NOT_FOUND)

    def partitions(self, topic: str | None = None, node: int | None = None) -> list[TopicPartition]:
        """All partitions, or those of a topic; of which this node has a replica."""
        metadata = self._metadata(None if topic is None else [topic])
        for one in metadata.topics:
            _check_topic(one)
        return [
            TopicPartition(one.name, partition.partition_index)
            for one in metadata.topics
            for partition in one.partitions
            if node is None or node in partition.replica_nodes
        ]

    def _persist(self, step: Callable[[], T]) -> T:
        deadline_s = time.monotonic() + self._retry_s
        while True:
            try:
                return step()
            except (Unanswered, Again) as error:
                if time.monotonic() >= deadline_s:
                    code = ExitCode.FAILED if isinstance(error, Again) else ExitCode.UNREACHABLE
                    raise CliError(str(error), code) from None
            time.sleep(RETRY_STEP_S)

    def _metadata(self, topics: Sequence[str] | None) -> Any:
        metadata = self._cluster.ask(
            "Metadata",
            {
                "topics": None if topics is None else [{"topic_id": None, "name": name} for name in topics],
                "allow_auto_topic_creation": False,
                "include_cluster_authorized_operations": False,
                "include_topic_authorized_operations": False,
            },
        )
        self._cluster.learn(metadata)
        return metadata

    def _coordinators(
        self, kind: int, keys: Sequence[str], what: Callable[[str], str]
    ) -> dict[int, list[str]]:
        """The coordinators of transactional ids, or of groups, by node; ``what`` names one for errors."""
        resource = "group" if kind == GROUP else "transactional id"
        found: dict[int, list[str]] = {}
        for key, one in self._find_coordinators(kind, keys):
            retry(one.error_code, NO_COORDINATOR, what(key))
            check(one.error_code, one.error_message, what(key), Right("describe", resource, key))
            self._cluster.learn_broker(one.node_id, (one.host, one.port))
            found.setdefault(one.node_id, []).append(key)
        return found

    def _find_coordinators(self, kind: int, keys: Sequence[str]) -> Iterator[tuple[str, Any]]:
        left = list(keys)
        while left:
            fields = {"key": left[0], "key_type": kind, "coordinator_keys": left}
            answer = self._cluster.ask("FindCoordinator", fields)
            if hasattr(answer, "coordinators"):
                yield from ((one.key, one) for one in answer.coordinators)
                return
            # Before version 4 it is of one at a time.
            yield left.pop(0), answer

    def _leaders(self, partitions: Sequence[TopicPartition]) -> dict[int, list[TopicPartition]]:
        """The partitions by the nodes that lead them."""
        leaders: dict[TopicPartition, int] = {}
        counts: dict[str, int] = {}
        for topic in self._metadata(sorted({partition.topic for partition in partitions})).topics:
            _check_topic(topic)
            counts[topic.name] = len(topic.partitions)
            for one in topic.partitions:
                leaders[TopicPartition(topic.name, one.partition_index)] = one.leader_id
        found: dict[int, list[TopicPartition]] = {}
        for partition in partitions:
            if partition not in leaders:
                count = counts.get(partition.topic, 0)
                text = f"topic {partition.topic!r} has no partition {partition.partition}"
                raise CliError(f"{text}: it has {count}, from 0", ExitCode.NOT_FOUND)
            if leaders[partition] < 0:
                raise Again(f"{partition} has no leader")
            found.setdefault(leaders[partition], []).append(partition)
        return found


def retry(error_code: int, codes: Iterable[int], what: str) -> None:
    """Again where the error is one of ``codes``."""
    if error_code in codes:
        raise Again(f"{what}: {error_name(error_code)}")


def _check_topic(topic: Any) -> None:
    if topic.error_code == ErrorCode.unknown_topic_or_partition:
        raise CliError(f"topic {topic.name!r} does not exist; see 'ottla topic list'", ExitCode.NOT_FOUND)
    retry(topic.error_code, NO_LEADER, f"topic {topic.name!r}")
    check(topic.error_code, None, f"topic {topic.name!r}", Right("describe", "topic", topic.name))


def by_topic(partitions: Iterable[TopicPartition]) -> dict[str, list[int]]:
    """The numbers of partitions, by topic."""
    topics: dict[str, list[int]] = {}
    for topic, index in partitions:
        topics.setdefault(topic, []).append(index)
    return topics


def batches(items: Sequence[T]) -> Iterator[Sequence[T]]:
    """Items in the numbers that one request takes."""
    for start in range(0, len(items), BATCH):
        yield items[start : start + BATCH]


def named_indexes(partitions: Iterable[TopicPartition]) -> list[Mapping[str, Any]]:
    """Partitions as most requests have them."""
    return [{"name": name, "partition_indexes": indexes} for name, indexes in by_topic(partitions).items()]
