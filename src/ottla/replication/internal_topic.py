"""An internal topic's partitions as the log of a coordinator: append, and read everything back at a load.

The latter is in ``internal_topic_reading``: what is an asynchronous generator cannot be compiled.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Final, cast

from ottla.env.clock import Clock
from ottla.env.disk import Disk
from ottla.errors import ErrorCode, KafkaError
from ottla.log.markers import EndMarker
from ottla.log.settings import Origin
from ottla.log.validation import Appended
from ottla.log.verification import VerificationGuard
from ottla.replication.internal_topic_reading import read_all
from ottla.replication.manager import ReplicaManager
from ottla.replication.partition import Partition
from ottla.types import TxnMarker

Ended = Callable[[KafkaError | None], None]

# Looking an enum's member up takes a while.
_COORDINATOR: Final = Origin.COORDINATOR


class InternalTopicLog:
    """What a coordinator needs of its topic (``coordinators.runtime.writes.CoordinatorLog``)."""

    def __init__(self, topic: str, replicas: ReplicaManager, clock: Clock, disk: Disk) -> None:
        self._topic = topic
        self._replicas = replicas
        self._clock = clock
        self._disk = disk

    @property
    def partition_count(self) -> int:
        """How many partitions the topic has; 0 while there is no such topic."""
        return self._replicas.partition_count(self._topic)

    def batch_bytes_max(self, partition: int) -> int:
        """The topic's max.message.bytes. KafkaError where this node does not lead the partition."""
        return self._replicas.get(self._topic, partition).log.config.max_message_bytes

    def append(
        self,
        partition: int,
        batch: bytes,
        ended: Ended,
        guard: object | None = None,
    ) -> bool:
        """Append one batch with acks=all; whether it is committed by now.

        If not, ``ended`` is called once it is, however long that takes: with NOT_LEADER_OR_FOLLOWER where
        this node stops leading before. KafkaError as a Produce. ``guard``: that of a verification, with the
        batch of a transaction (``Partition.begin_verification``).
        """
        replica = self._replicas.get(self._topic, partition)
        now_ms = self._clock.now_ms()
        appended = replica.append(
            batch,
            now_ms=now_ms,
            acks=-1,
            origin=_COORDINATOR,
            guard=cast("VerificationGuard | None", guard),
        )
        return _is_committed(replica, appended, now_ms, ended)

    def append_marker(self, partition: int, marker: TxnMarker, ended: Ended) -> bool:
        """As ``append``, of the control batch that ends a transaction."""
        return append_marker(self._replicas, self._clock, self._topic, partition, marker, ended)

    def read_all(self, partition: int) -> AsyncIterator[bytes]:
        """Everything committed, from the log's start: see ``internal_topic_reading.read_all``."""
        return read_all(self._replicas, self._disk, self._topic, partition)


def append_marker(
    replicas: ReplicaManager, clock: Clock, topic: str, partition: int, marker: TxnMarker, ended: Ended
) -> bool:
    """As ``InternalTopicLog.append``, of the control batch that ends a transaction, in any topic: see
    ``Partition.append_marker``."""
    replica = replicas.get(topic, partition)
    now_ms = clock.now_ms()
    appended = replica.append_marker(
        EndMarker(marker.commits, marker.coordinator_epoch),
        marker.producer_id,
        marker.producer_epoch,
        now_ms=now_ms,
        transaction_version=marker.transaction_version,
    )
    return _is_committed(replica, appended, now_ms, ended)


def _is_committed(replica: Partition, appended: Appended, now_ms: int, ended: Ended) -> bool:
    """Whether what was appended is committed, and flushed where that is due; if not, ``ended`` is told."""
    is_committed = replica.high_watermark > appended.last_offset
    if is_committed and not replica.log.sync_due(now_ms):
        return True

    def committed(error: KafkaError | None) -> None:
        if error is not None and error.code is not ErrorCode.not_enough_replicas_after_append:
            ended(error)
        elif replica.log.sync_due(now_ms):
            replica.flushed().add_done_callback(lambda done: ended(_failure(done)))
        else:
            ended(None)

    if is_committed:
        committed(None)
    else:
        replica.when_committed(appended.last_offset + 1, committed)
    return False


def _failure(flushed: asyncio.Future[None]) -> KafkaError | None:
    """Why what is committed is not on this node's disk."""
    error = None if flushed.cancelled() else flushed.exception()
    if flushed.cancelled() or (error is not None and not isinstance(error, KafkaError)):
        return KafkaError(ErrorCode.unknown_server_error, f"the log could not be flushed: {error}")
    return error
