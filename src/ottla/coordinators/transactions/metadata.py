"""One transactional id, as its records say, and what may follow (Kafka's TransactionMetadata).

Values do not change: each transition gives the next one, which holds once its record is committed.
"""

from __future__ import annotations

from typing import NamedTuple

from ottla.coordinators.transactions.states import (
    COMPLETE_ABORT,
    COMPLETE_COMMIT,
    EMPTY,
    ONGOING,
    PREPARE_ABORT,
    PREPARE_COMMIT,
    PREPARED,
    PREVIOUS,
    TransactionState,
)
from ottla.types import TopicPartition

NO_PRODUCER_ID = -1
NO_PRODUCER_EPOCH = -1
NO_TIMESTAMP = -1
EPOCH_MAX = 32_767
# The last one that a client is given: the coordinator keeps one more, to fence with.
CLIENT_EPOCH_MAX = EPOCH_MAX - 1
# A timeout that never comes: the transaction takes part in a two-phase commit (KIP-939).
NO_TIMEOUT_MS = 2**31 - 1

# Levels of the feature transaction.version, which is also what of the protocol a client speaks.
TV_0 = 0
# Records with tagged fields.
TV_1 = 1
# An epoch for each transaction (KIP-890).
TV_2 = 2


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

    def _to(self, state: TransactionState, **changes: object) -> TransactionMetadata:
        assert self.state in PREVIOUS[state], f"{self.state} to {state}"
        following = self._replace(state=state, previous_producer_id=self.producer_id)
        return following._replace(**changes)  # type: ignore[arg-type]

    # -- producers

    def initialized(
        self, now_ms: int, timeout_ms: int, *, producer_id: int, epoch: int, last_epoch: int
    ) -> TransactionMetadata:
        """A producer begins, or begins anew, with this id and epoch."""
        return self._to(
            EMPTY,
            producer_id=producer_id,
            producer_epoch=epoch,
            last_producer_epoch=last_epoch,
            timeout_ms=timeout_ms,
            partitions=frozenset(),
            start_ms=NO_TIMESTAMP,
            last_update_ms=now_ms,
        )

    # -- transactions

    def with_partitions(
        self, now_ms: int, partitions: frozenset[TopicPartition], client_version: int
    ) -> TransactionMetadata:
        """The transaction begins or goes on, with these partitions as well."""
        return self._to(
            ONGOING,
            partitions=self.partitions | partitions if self.partitions else partitions,
            start_ms=self.start_ms if self.state is ONGOING else now_ms,
            last_update_ms=now_ms,
            last_producer_epoch=NO_PRODUCER_EPOCH,
            client_version=client_version,
        )

    def decided(self, now_ms: int, *, commit: bool) -> TransactionMetadata:
        """It ends as the classic protocol has it: the epoch stays."""
        return self._to(
            PREPARE_COMMIT if commit else PREPARE_ABORT,
            last_update_ms=now_ms,
            next_producer_id=NO_PRODUCER_ID,
            client_version=TV_0,
        )

    def fenced(self, now_ms: int) -> TransactionMetadata:
        """It is aborted so that its producer is fenced, in the classic protocol."""
        epoch = min(self.producer_epoch + 1, EPOCH_MAX)
        aborted = self.decided(now_ms, commit=False)
        return aborted._replace(producer_epoch=epoch, last_producer_epoch=NO_PRODUCER_EPOCH)

    def decided_with_bump(self, now_ms: int, next_id: int, *, commit: bool) -> TransactionMetadata:
        """It ends as KIP-890 has it: with the next epoch, and a new producer id behind the last one.

        ``next_id``: that new id where the epochs are used up, -1 otherwise. A producer that is at the very
        last epoch, which no client ever gets, keeps it: so it can still be aborted (KAFKA-20090).
        """
        epoch = min(self.producer_epoch + 1, EPOCH_MAX)
        return self._to(
            PREPARE_COMMIT if commit else PREPARE_ABORT,
            producer_epoch=epoch,
            last_producer_epoch=epoch - 1,
            # An abort at rest: nothing has begun, and yet it is to have a time.
            start_ms=self.start_ms if self.state is ONGOING else now_ms,
            last_update_ms=now_ms,
            next_producer_id=next_id,
            client_version=TV_2,
        )

    def completed(self, now_ms: int) -> TransactionMetadata:
        """All markers are written."""
        assert self.state in PREPARED
        rotates = self.client_version >= TV_2 and self.next_producer_id != NO_PRODUCER_ID
        return self._to(
            COMPLETE_COMMIT if self.is_committing else COMPLETE_ABORT,
            producer_id=self.next_producer_id if rotates else self.producer_id,
            producer_epoch=0 if rotates else self.producer_epoch,
            next_producer_id=NO_PRODUCER_ID,
            partitions=frozenset(),
            last_update_ms=now_ms,
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
        partitions=frozenset(),
        start_ms=NO_TIMESTAMP,
        last_update_ms=now_ms,
        client_version=TV_0,
    )
