"""One transactional id, as its records say, and what may follow (Kafka's TransactionMetadata).

Values do not change: each transition gives the next one, which holds once its record is committed.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from ottla.coordinators.transactions.states import (
    COMPLETE_ABORT,
    COMPLETE_COMMIT,
    EMPTY,
    ONGOING,
    PREPARE_ABORT,
    PREPARE_COMMIT,
    PREVIOUS,
    TransactionState,
)
from ottla.types import TopicPartition

NO_PRODUCER_ID: Final = -1
NO_PRODUCER_EPOCH: Final = -1
NO_TIMESTAMP: Final = -1
EPOCH_MAX: Final = 32_767
# The last one that a client is given: the coordinator keeps one more, to fence with.
CLIENT_EPOCH_MAX: Final = EPOCH_MAX - 1
# A timeout that never comes: the transaction takes part in a two-phase commit (KIP-939).
NO_TIMEOUT_MS: Final = 2**31 - 1

NO_PARTITIONS: Final[frozenset[TopicPartition]] = frozenset()

# Levels of the feature transaction.version, which is also what of the protocol a client speaks.
TV_0: Final = 0
# Records with tagged fields.
TV_1: Final = 1
# An epoch for each transaction (KIP-890).
TV_2: Final = 2


def is_exhausted(producer_epoch: int) -> bool:
    """Whether no client may be given an epoch behind this one."""
    return producer_epoch >= CLIENT_EPOCH_MAX


class TransactionMetadata(NamedTuple):
    """TransactionLogValue: what is known of a transactional id."""

    producer_id: int
    # The one before the last transition; the same where that did not change it.
    previous_producer_id: int
    # What the id is to be once the markers are written, where the epochs are used up.
    next_producer_id: int
    producer_epoch: int
    # With which the producer asked for what it has now, -1 where it did not say: whoever asks with it again
    # has not had the answer. It does not outlive the beginning of the next transaction.
    last_producer_epoch: int
    timeout_ms: int
    state: TransactionState
    # What has been written to; while markers are written, too.
    partitions: frozenset[TopicPartition]
    # Wall time; -1 where no transaction has begun.
    start_ms: int
    last_update_ms: int
    client_version: int

    @property
    def is_exhausted(self) -> bool:
        return is_exhausted(self.producer_epoch)

    @property
    def is_committing(self) -> bool:
        """Whether what is decided is a commit."""
        return self.state is PREPARE_COMMIT

    def _may_become(self, state: TransactionState) -> bool:
        return self.state in PREVIOUS[state]

    # -- producers

    def initialized(
        self, now_ms: int, timeout_ms: int, *, producer_id: int, epoch: int, last_epoch: int
    ) -> TransactionMetadata:
        """A producer begins, or begins anew, with this id and epoch."""
        assert self._may_become(EMPTY), self.state
        return _made(
            producer_id,
            self.producer_id,
            self.next_producer_id,
            epoch,
            last_epoch,
            timeout_ms,
            EMPTY,
            NO_PARTITIONS,
            NO_TIMESTAMP,
            now_ms,
            self.client_version,
        )

    # -- transactions

    def with_partitions(
        self, now_ms: int, partitions: frozenset[TopicPartition], client_version: int
    ) -> TransactionMetadata:
        """The transaction begins or goes on, with these partitions as well.

        In the classic protocol, which keeps the epoch, the one before is kept, too: the producer may still
        repeat the InitProducerId that it has not heard the answer to. Where the epoch goes up with each
        transaction it is not needed, as an ending sets it.
        """
        assert self._may_become(ONGOING), self.state
        return _made(
            self.producer_id,
            self.producer_id,
            self.next_producer_id,
            self.producer_epoch,
            NO_PRODUCER_EPOCH if client_version >= TV_2 else self.last_producer_epoch,
            self.timeout_ms,
            ONGOING,
            self.partitions | partitions if self.partitions else partitions,
            self.start_ms if self.state is ONGOING else now_ms,
            now_ms,
            client_version,
        )

    def decided(self, now_ms: int, *, commit: bool) -> TransactionMetadata:
        """It ends as the classic protocol has it: the epoch stays."""
        return self._decided(
            now_ms, commit, NO_PRODUCER_ID, self.producer_epoch, self.last_producer_epoch, TV_0
        )

    def fenced(self, now_ms: int) -> TransactionMetadata:
        """It is aborted so that its producer is fenced, in the classic protocol."""
        epoch = min(self.producer_epoch + 1, EPOCH_MAX)
        return self._decided(now_ms, False, NO_PRODUCER_ID, epoch, NO_PRODUCER_EPOCH, TV_0)

    def decided_with_bump(self, now_ms: int, next_id: int, *, commit: bool) -> TransactionMetadata:
        """It ends as KIP-890 has it: with the next epoch, and a new producer id behind the last one.

        ``next_id``: that new id where the epochs are used up, -1 otherwise. A producer that is at the very
        last epoch, which no client ever gets, keeps it: so it can still be aborted (KAFKA-20090).
        """
        epoch = min(self.producer_epoch + 1, EPOCH_MAX)
        return self._decided(now_ms, commit, next_id, epoch, epoch - 1, TV_2)

    def _decided(
        self, now_ms: int, commit: bool, next_id: int, epoch: int, last_epoch: int, client_version: int
    ) -> TransactionMetadata:
        state = PREPARE_COMMIT if commit else PREPARE_ABORT
        assert self._may_become(state), f"{self.state} to {state}"
        # An abort at rest: nothing has begun, and yet it is to have a time.
        begins_now = client_version >= TV_2 and self.state is not ONGOING
        return _made(
            self.producer_id,
            self.producer_id,
            next_id,
            epoch,
            last_epoch,
            self.timeout_ms,
            state,
            self.partitions,
            now_ms if begins_now else self.start_ms,
            now_ms,
            client_version,
        )

    @property
    def _rotates(self) -> bool:
        return self.client_version >= TV_2 and self.next_producer_id != NO_PRODUCER_ID

    @property
    def completed_state(self) -> TransactionState:
        """What it is once all markers are written."""
        return COMPLETE_COMMIT if self.is_committing else COMPLETE_ABORT

    @property
    def completed_producer(self) -> tuple[int, int]:
        """The id and epoch that its producer has then."""
        return (self.next_producer_id, 0) if self._rotates else (self.producer_id, self.producer_epoch)

    def completed(self, now_ms: int) -> TransactionMetadata:
        """All markers are written."""
        state = self.completed_state
        assert self._may_become(state), f"{self.state} to {state}"
        producer_id, epoch = self.completed_producer
        return _made(
            producer_id,
            self.producer_id,
            NO_PRODUCER_ID,
            epoch,
            self.last_producer_epoch,
            self.timeout_ms,
            state,
            NO_PARTITIONS,
            self.start_ms,
            now_ms,
            self.client_version,
        )

    # -- what is stored

    def storable(self, version: int) -> TransactionMetadata:
        """What of it a TransactionLogValue of that version keeps; the first has no tagged fields."""
        if version >= 1:
            return self
        return self._replace(
            previous_producer_id=NO_PRODUCER_ID,
            next_producer_id=NO_PRODUCER_ID,
            last_producer_epoch=NO_PRODUCER_EPOCH,
            client_version=TV_0,
        )


_new: Final = tuple.__new__


def _made(
    producer_id: int,
    previous_producer_id: int,
    next_producer_id: int,
    producer_epoch: int,
    last_producer_epoch: int,
    timeout_ms: int,
    state: TransactionState,
    partitions: frozenset[TopicPartition],
    start_ms: int,
    last_update_ms: int,
    client_version: int,
) -> TransactionMetadata:
    """A value of these fields, without a named tuple's own way of making one, which takes twice as long."""
    return _new(
        TransactionMetadata,
        (
            producer_id, previous_producer_id, next_producer_id, producer_epoch, last_producer_epoch,
            timeout_ms, state, partitions, start_ms, last_update_ms, client_version,
        ),
    )  # fmt: skip


def beginning(producer_id: int, timeout_ms: int, now_ms: int) -> TransactionMetadata:
    """An id that nothing is known of yet: what its first record follows from."""
    return TransactionMetadata(
        producer_id=producer_id,
        previous_producer_id=NO_PRODUCER_ID,
        next_producer_id=NO_PRODUCER_ID,
        producer_epoch=NO_PRODUCER_EPOCH,
        last_producer_epoch=NO_PRODUCER_EPOCH,
        timeout_ms=timeout_ms,
        state=EMPTY,
        partitions=NO_PARTITIONS,
        start_ms=NO_TIMESTAMP,
        last_update_ms=now_ms,
        client_version=TV_0,
    )
