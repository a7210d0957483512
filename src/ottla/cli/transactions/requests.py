"""What coordinators and leaders are asked about transactions, over plain connections.

A broker that does not answer, has no leader to name, or is still loading is asked again, within a time
limit; what is asked may be asked twice.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any, NamedTuple

from ottla.cli.direct import check, error_name
from ottla.cli.errors import CliError, ExitCode
from ottla.cli.requests import (
    NO_COORDINATOR,
    NO_LEADER,
    TRANSACTION,
    Again,
    ClusterRequests,
    batches,
    named_indexes,
    retry,
)
from ottla.cli.rights import Right
from ottla.cli.transactions.hanging import Description, ProducerState
from ottla.errors import ErrorCode
from ottla.types import TopicPartition

# The timeout that a producer which only fences has (Kafka's admin client gives its request timeout).
FENCE_TIMEOUT_MS = 30_000
# The first versions of ListTransactions with these filters.
DURATION_VERSION = 1
PATTERN_VERSION = 2


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


class TransactionRequests(ClusterRequests):
    """Asks a cluster. CliError where it has no answer, or that is an error."""

    def listed(self, filters: Filters) -> list[Listing]:
        """The transactional ids that all brokers coordinate."""
        found = []
        for node in self.nodes():
            found += self._persist(partial(self._list, node, filters))
        return sorted(found)

    def described(self, transactional_ids: Iterable[str]) -> dict[str, Description | None]:
        """What their coordinators know of transactional ids: None of what they do not know."""
        found: dict[str, Description | None] = {}
        for some in batches(sorted(set(transactional_ids))):
            self._persist(partial(self._describe, some, found))
        return found

    def producers(
        self, partitions: Iterable[TopicPartition], node: int | None = None
    ) -> dict[TopicPartition, list[ProducerState]]:
        """The producers that the leaders, or the replicas of one node, know."""
        found: dict[TopicPartition, list[ProducerState]] = {}
        if node is not None:
            self.check_node(node)
        for some in batches(sorted(set(partitions))):
            self._persist(partial(self._producers, some, node, found))
        return found

    def abort(self, marker: Marker) -> None:
        """Have the leader end a transaction in a partition, whatever its coordinator knows."""
        self._persist(partial(self._abort, marker))

    def fence(self, transactional_id: str) -> tuple[int, int]:
        """Abort what is open of a transactional id, and fence its producer: the new id and epoch."""
        return self._persist(partial(self._fence, transactional_id))

    # -- one try each

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

    def _describe(self, some: Sequence[str], found: dict[str, Description | None]) -> None:
        missing = [transactional_id for transactional_id in some if transactional_id not in found]
        for node, ids in self._coordinators(TRANSACTION, missing, _what).items():
            answer = self._cluster.ask_node(node, "DescribeTransactions", {"transactional_ids": ids})
            for one in answer.transaction_states:
                what = _what(one.transactional_id)
                if one.error_code == ErrorCode.transactional_id_not_found:
                    found[one.transactional_id] = None
                    continue
                retry(one.error_code, NO_COORDINATOR, what)
                check(one.error_code, None, what)
                found[one.transactional_id] = _description(node, one)

    def _producers(
        self,
        some: Sequence[TopicPartition],
        node: int | None,
        found: dict[TopicPartition, list[ProducerState]],
    ) -> None:
        missing = [partition for partition in some if partition not in found]
        for asked, partitions in (self._leaders(missing) if node is None else {node: missing}).items():
            answer = self._cluster.ask_node(asked, "DescribeProducers", {"topics": named_indexes(partitions)})
            for topic in answer.topics:
                for one in topic.partitions:
                    partition = TopicPartition(topic.name, one.partition_index)
                    if node is None:
                        retry(one.error_code, NO_LEADER, str(partition))
                    right = Right("read", "topic", topic.name)
                    check(one.error_code, one.error_message, f"{partition} on node {asked}", right)
                    found[partition] = [_producer(state) for state in one.active_producers]

    def _abort(self, marker: Marker) -> None:
        ((node, _),) = self._leaders([marker.partition]).items()
        fields = {
            "producer_id": marker.producer_id,
            "producer_epoch": marker.producer_epoch,
            "transaction_result": False,
            "topics": named_indexes([marker.partition]),
            "coordinator_epoch": marker.coordinator_epoch,
        }
        answer = self._cluster.ask_node(node, "WriteTxnMarkers", {"markers": [fields]})
        codes = [one.error_code for m in answer.markers for topic in m.topics for one in topic.partitions]
        if len(codes) != 1:
            raise CliError(f"{marker.partition}: the broker's answer has {len(codes)} partitions, not one")
        retry(codes[0], NO_LEADER, str(marker.partition))
        check(codes[0], None, str(marker.partition))

    def _fence(self, transactional_id: str) -> tuple[int, int]:
        (node,) = self._coordinators(TRANSACTION, [transactional_id], _what)
        fields = {
            "transactional_id": transactional_id,
            "transaction_timeout_ms": FENCE_TIMEOUT_MS,
            "producer_id": -1,
            "producer_epoch": -1,
        }
        answer = self._cluster.ask_node(node, "InitProducerId", fields)
        # What is open is aborted first: that takes as long as its markers take.
        again = NO_COORDINATOR | {ErrorCode.concurrent_transactions}
        retry(answer.error_code, again, _what(transactional_id))
        check(answer.error_code, None, _what(transactional_id))
        return answer.producer_id, answer.producer_epoch


def _what(transactional_id: str) -> str:
    return f"transactional id {transactional_id!r}"


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
