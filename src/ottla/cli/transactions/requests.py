"""What coordinators and leaders are asked about transactions, over plain connections.

A broker that does not answer, has no leader to name, or is still loading is asked again, within a time
limit; what is asked may be asked twice.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple, TypeVar

from ottla.cli.direct import RETRY_S, RETRY_STEP_S, DirectCluster, Unanswered, check, error_name
from ottla.cli.errors import CliError, ExitCode
from ottla.cli.transactions.hanging import Description, ProducerState
from ottla.errors import ErrorCode
from ottla.types import TopicPartition

T = TypeVar("T")

# How many partitions, or transactional ids, one request asks about.
BATCH = 500
# The type of a coordinator in FindCoordinator.
TRANSACTION = 1
# The timeout that a producer which only fences has (Kafka's admin client gives its request timeout).
FENCE_TIMEOUT_MS = 30_000
# The first versions of ListTransactions with these filters.
DURATION_VERSION = 1
PATTERN_VERSION = 2

# What another leader, or the same one a little later, does better.
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


class Listing(NamedTuple):
    """A transactional id as ListTransactions shows it."""

    transactional_id: str
    coordinator_id: int
    producer_id: int
    state: str


class Filters(NamedTuple):
    """Which transactional ids are listed: all, unless something is given.

    ``duration_ms``: those whose transaction runs longer, -1 for any. ``pattern``: a regular expression of
    RE2 that a whole transactional id matches.
    """

    states: Sequence[str] = ()
    producer_ids: Sequence[int] = ()
    duration_ms: int = -1
    pattern: str | None = None


class Marker(NamedTuple):
    """Which transaction is to be aborted, in one partition (Kafka's AbortTransactionSpec)."""

    partition: TopicPartition
    producer_id: int
    producer_epoch: int
    coordinator_epoch: int


class TransactionRequests:
    """Asks a cluster. CliError where it has no answer, or that is an error."""

    def __init__(self, cluster: DirectCluster, retry_s: float = RETRY_S) -> None:
        self._cluster = cluster
        self._retry_s = retry_s

    def listed(self, filters: Filters) -> list[Listing]:
        """The transactional ids that all brokers coordinate."""
        found = []
        for node in self.nodes():
            found += self._persist(partial(self._list, node, filters))
        return sorted(found)

    def described(self, transactional_ids: Iterable[str]) -> dict[str, Description | None]:
        """What their coordinators know of transactional ids: None of what they do not know."""
        found: dict[str, Description | None] = {}
        for some in _batches(sorted(set(transactional_ids))):
            self._persist(partial(self._describe, some, found))
        return found

    def producers(
        self, partitions: Iterable[TopicPartition], node: int | None = None
    ) -> dict[TopicPartition, list[ProducerState]]:
        """The producers that the leaders, or the replicas of one node, know."""
        found: dict[TopicPartition, list[ProducerState]] = {}
        if node is not None and node not in self.nodes():
            raise CliError(f"node {node} is not there", ExitCode.NOT_FOUND)
        for some in _batches(sorted(set(partitions))):
            self._persist(partial(self._producers, some, node, found))
        return found

    def abort(self, marker: Marker) -> None:
        """Have the leader end a transaction in a partition, whatever its coordinator knows."""
        self._persist(partial(self._abort, marker))

    def fence(self, transactional_id: str) -> tuple[int, int]:
        """Abort what is open of a transactional id, and fence its producer: the new id and epoch."""
        return self._persist(partial(self._fence, transactional_id))

    def nodes(self) -> list[int]:
        """All brokers."""
        return sorted(broker.node_id for broker in self._metadata([]).brokers)

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

    # -- one try each

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

    def _list(self, node: int, filters: Filters) -> list[Listing]:
        version_min = PATTERN_VERSION if filters.pattern else DURATION_VERSION * (filters.duration_ms >= 0)
        answer = self._cluster.ask_node(
            node,
            "ListTransactions",
            {
                "state_filters": list(filters.states),
                "producer_id_filters": list(filters.producer_ids),
                "duration_filter": filters.duration_ms,
                "transactional_id_pattern": filters.pattern or None,
            },
            version_min=version_min,
        )
        if answer.error_code == ErrorCode.coordinator_load_in_progress:
            raise Again(f"node {node}: {error_name(answer.error_code)}")
        if answer.error_code == ErrorCode.invalid_regular_expression:
            raise CliError(f"{filters.pattern!r} is no regular expression to the broker", ExitCode.USAGE)
        check(answer.error_code, None, f"node {node}")
        if unknown := ", ".join(map(repr, answer.unknown_state_filters)):
            raise CliError(f"the broker knows no state {unknown}", ExitCode.USAGE)
        return [
            Listing(one.transactional_id, node, one.producer_id, one.transaction_state)
            for one in answer.transaction_states
        ]

    def _coordinators(self, transactional_ids: Sequence[str]) -> dict[int, list[str]]:
        """The coordinators of transactional ids, by node."""
        found: dict[int, list[str]] = {}
        for transactional_id, one in self._find_coordinators(transactional_ids):
            _retry(one.error_code, NO_COORDINATOR, _what(transactional_id))
            check(one.error_code, one.error_message, _what(transactional_id))
            self._cluster.learn_broker(one.node_id, (one.host, one.port))
            found.setdefault(one.node_id, []).append(transactional_id)
        return found

    def _find_coordinators(self, transactional_ids: Sequence[str]) -> Iterator[tuple[str, Any]]:
        left = list(transactional_ids)
        while left:
            fields = {"key": left[0], "key_type": TRANSACTION, "coordinator_keys": left}
            answer = self._cluster.ask("FindCoordinator", fields)
            if hasattr(answer, "coordinators"):
                yield from ((one.key, one) for one in answer.coordinators)
                return
            # Before version 4 it is of one at a time.
            yield left.pop(0), answer

    def _describe(self, some: Sequence[str], found: dict[str, Description | None]) -> None:
        missing = [transactional_id for transactional_id in some if transactional_id not in found]
        for node, ids in self._coordinators(missing).items():
            answer = self._cluster.ask_node(node, "DescribeTransactions", {"transactional_ids": ids})
            for one in answer.transaction_states:
                what = _what(one.transactional_id)
                if one.error_code == ErrorCode.transactional_id_not_found:
                    found[one.transactional_id] = None
                    continue
                _retry(one.error_code, NO_COORDINATOR, what)
                check(one.error_code, None, what)
                found[one.transactional_id] = _description(node, one)

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

    def _producers(
        self,
        some: Sequence[TopicPartition],
        node: int | None,
        found: dict[TopicPartition, list[ProducerState]],
    ) -> None:
        missing = [partition for partition in some if partition not in found]
        for asked, partitions in (self._leaders(missing) if node is None else {node: missing}).items():
            answer = self._cluster.ask_node(asked, "DescribeProducers", {"topics": _by_topic(partitions)})
            for topic in answer.topics:
                for one in topic.partitions:
                    partition = TopicPartition(topic.name, one.partition_index)
                    if node is None:
                        _retry(one.error_code, NO_LEADER, str(partition))
                    check(one.error_code, one.error_message, f"{partition} on node {asked}")
                    found[partition] = [_producer(state) for state in one.active_producers]

    def _abort(self, marker: Marker) -> None:
        ((node, _),) = self._leaders([marker.partition]).items()
        fields = {
            "producer_id": marker.producer_id,
            "producer_epoch": marker.producer_epoch,
            "transaction_result": False,
            "topics": _by_topic([marker.partition]),
            "coordinator_epoch": marker.coordinator_epoch,
        }
        answer = self._cluster.ask_node(node, "WriteTxnMarkers", {"markers": [fields]})
        codes = [one.error_code for m in answer.markers for topic in m.topics for one in topic.partitions]
        if len(codes) != 1:
            raise CliError(f"{marker.partition}: the broker's answer has {len(codes)} partitions, not one")
        _retry(codes[0], NO_LEADER, str(marker.partition))
        check(codes[0], None, str(marker.partition))

    def _fence(self, transactional_id: str) -> tuple[int, int]:
        (node,) = self._coordinators([transactional_id])
        fields = {
            "transactional_id": transactional_id,
            "transaction_timeout_ms": FENCE_TIMEOUT_MS,
            "producer_id": -1,
            "producer_epoch": -1,
        }
        answer = self._cluster.ask_node(node, "InitProducerId", fields)
        # What is open is aborted first: that takes as long as its markers take.
        again = NO_COORDINATOR | {ErrorCode.concurrent_transactions}
        _retry(answer.error_code, again, _what(transactional_id))
        check(answer.error_code, None, _what(transactional_id))
        return answer.producer_id, answer.producer_epoch


def _retry(error_code: int, codes: Iterable[int], what: str) -> None:
    if error_code in codes:
        raise Again(f"{what}: {error_name(error_code)}")


def _check_topic(topic: Any) -> None:
    if topic.error_code == ErrorCode.unknown_topic_or_partition:
        raise CliError(f"topic {topic.name!r} does not exist; see 'ottla topic list'", ExitCode.NOT_FOUND)
    _retry(topic.error_code, NO_LEADER, f"topic {topic.name!r}")
    check(topic.error_code, None, f"topic {topic.name!r}")


def _what(transactional_id: str) -> str:
    return f"transactional id {transactional_id!r}"


def _by_topic(partitions: Iterable[TopicPartition]) -> list[Mapping[str, Any]]:
    topics: dict[str, list[int]] = {}
    for topic, index in partitions:
        topics.setdefault(topic, []).append(index)
    return [{"name": name, "partition_indexes": indexes} for name, indexes in topics.items()]


def _batches(items: Sequence[T]) -> Iterator[Sequence[T]]:
    for start in range(0, len(items), BATCH):
        yield items[start : start + BATCH]


def _producer(state: Any) -> ProducerState:
    return ProducerState(
        state.producer_id,
        state.producer_epoch,
        state.coordinator_epoch,
        state.last_sequence,
        state.last_timestamp,
        state.current_txn_start_offset,
    )


def _description(node: int, one: Any) -> Description:
    return Description(
        one.transactional_id,
        node,
        one.producer_id,
        one.producer_epoch,
        one.transaction_state,
        one.transaction_timeout_ms,
        one.transaction_start_time_ms,
        frozenset(TopicPartition(topic.topic, index) for topic in one.topics for index in topic.partitions),
    )
