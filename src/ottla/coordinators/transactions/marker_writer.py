"""Markers into the partitions that this node leads: for WriteTxnMarkers, and for its own coordinator."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from ottla.env.clock import Clock
from ottla.env.deferred import Deferred
from ottla.errors import ErrorCode, KafkaError
from ottla.metadata.image import OFFSETS_TOPIC
from ottla.replication.internal_topic import append_marker
from ottla.replication.manager import ReplicaManager
from ottla.types import TopicPartition, TxnMarker

Told = Callable[[ErrorCode], None]

# What a coordinator of groups says that is not ready: others take it for a leader that is not (KafkaApis).
_NOT_READY = frozenset(
    {
        ErrorCode.coordinator_not_available,
        ErrorCode.coordinator_load_in_progress,
        ErrorCode.not_coordinator,
    }
)


class OffsetsInTransactions(Protocol):
    """The coordinator of groups: offsets that were committed in a transaction count from its marker on."""

    def complete_transaction(self, partition: int, marker: TxnMarker) -> Deferred[None]:
        """Write the marker into a partition of `__consumer_offsets`; done once the offsets can be seen."""
        ...


class MarkerWriter:
    """See the module's docstring."""

    def __init__(
        self,
        replicas: ReplicaManager,
        clock: Clock,
        offsets: OffsetsInTransactions,
        holds: Callable[[str], bool] | None = None,
    ) -> None:
        """``holds``: for tests, whether a topic is to take no markers for now."""
        self._replicas = replicas
        self._clock = clock
        self._offsets = offsets
        self._holds = holds

    def write(self, where: TopicPartition, marker: TxnMarker, told: Told) -> None:
        """Append a marker; ``told`` of it once it is committed, or cannot be: now, or however long it takes.

        Errors are those of WriteTxnMarkers.
        """

        if self._holds is not None and self._holds(where.topic):
            told(ErrorCode.not_leader_or_follower)
            return

        def ended(error: KafkaError | None) -> None:
            told(ErrorCode.none if error is None else error.code)

        try:
            if where.topic == OFFSETS_TOPIC:
                done = self._offsets.complete_transaction(where.partition, marker)
                done.listen(lambda done: told(_outcome(done)))
                return
            topic, partition = where
            is_committed = append_marker(self._replicas, self._clock, topic, partition, marker, ended)
        except KafkaError as error:
            told(_as_log(error.code))
            return
        if is_committed:
            told(ErrorCode.none)


def _outcome(done: Deferred[None]) -> ErrorCode:
    error = done.error
    if error is None:
        return ErrorCode.none
    return _as_log(error.code) if isinstance(error, KafkaError) else ErrorCode.unknown_server_error


def _as_log(code: ErrorCode) -> ErrorCode:
    return ErrorCode.not_leader_or_follower if code in _NOT_READY else code
