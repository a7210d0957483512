"""The transactional ids of one partition of `__transaction_state`, and what is on its way into its log.

State is of two kinds. Durable: `metadata`; only `replay` changes it, with records that are committed in the
log, so that a fail-over finds the same. Soft: what each id is about to become (`pending`), which markers are
still to be written (`marking`), and with transaction.version 0 the epoch that a producer had before. While an
id is about to become something, whoever asks for another change of it is told CONCURRENT_TRANSACTIONS
(TransactionMetadata.pendingTransitionInProgress), so that each record follows from one that is committed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from ottla.coordinators.runtime.step import NEVER_MS, Waiter, Write
from ottla.coordinators.transactions.metadata import NO_PRODUCER_EPOCH, TV_1, TransactionMetadata
from ottla.coordinators.transactions.requests import AddRequest, MarkersToSend
from ottla.coordinators.transactions.schemas import TransactionRecord
from ottla.coordinators.transactions.states import DEAD, ONGOING, PREPARED, TransactionState
from ottla.coordinators.transactions.step import Step
from ottla.errors import ErrorCode
from ottla.types import TopicPartition

# How long until a record that could not be written is tried again, where nobody asks for it.
RETRY_MS = 100


class Waiting(NamedTuple):
    """A request for the next transaction, which waits for the one before to be over."""

    request: AddRequest
    waiter: Waiter
    until_ms: int


Then = Callable[[TransactionMetadata, Step], None]
Failed = Callable[[ErrorCode, Step], None]


class TransactionTables:
    """What the machine and its parts look things up in. The fields are theirs to read."""

    __slots__ = ("in_flight", "marking", "metadata", "ongoing", "pending", "retries", "waiting")

    def __init__(self) -> None:
        self.metadata: dict[str, TransactionMetadata] = {}
        # Those that are open, in the order in which they began.
        self.ongoing: dict[str, None] = {}
        self.pending: dict[str, TransactionState] = {}
        # Decided transactions: the partitions that have no marker yet.
        self.marking: dict[str, set[TopicPartition]] = {}
        # Those all of whose markers are written, while that cannot be noted: when it is tried again.
        self.retries: dict[str, int] = {}
        # Who waits for such a transaction to be over, one for each, by the time that they do so until.
        self.waiting: dict[str, Waiting] = {}
        # Writes that are neither committed nor failed, in log order.
        self.in_flight: deque[Write] = deque()

    def replay(self, record: TransactionRecord) -> None:
        """Apply a committed record."""
        transactional_id, value, _ = record
        if value is None:
            self.metadata.pop(transactional_id, None)
        else:
            self.metadata[transactional_id] = value
        if value is not None and value.state is ONGOING:
            self.ongoing.setdefault(transactional_id)
        else:
            self.ongoing.pop(transactional_id, None)

    # -- writes

    def write(
        self, transactional_id: str, value: TransactionMetadata | None, then: Then, failed: Failed, step: Step
    ) -> None:
        """Have an id become ``value``, or be removed; ``then`` is told of what it was, None aside, and is.

        Nothing else may be on its way for it.
        """
        version = 1 if step.level >= TV_1 else 0
        stored = None if value is None else value.storable(version)
        record = TransactionRecord(transactional_id, stored, version)
        self.pending[transactional_id] = DEAD if value is None else value.state

        def committed(step: Step) -> None:
            self.pending.pop(transactional_id, None)
            if stored is None or value is None:
                return
            if version == 0 and value.last_producer_epoch != NO_PRODUCER_EPOCH:
                # Records of that version cannot say it: it is soft, as in Kafka, and lost by a fail-over.
                became = stored._replace(last_producer_epoch=value.last_producer_epoch)
                self.metadata[transactional_id] = became
                then(became, step)
            else:
                then(stored, step)

        def not_written(code: ErrorCode, step: Step) -> None:
            self.pending.pop(transactional_id, None)
            failed(code, step)

        step.write((record,), committed, not_written)

    def submitted(self, write: Write) -> None:
        """``write`` is on its way, behind all that are."""
        self.in_flight.append(write)

    def committed(self, write: Write, step: Step) -> None:
        """``write``, the oldest in flight, is in the log for good."""
        self._arrived(write)
        for record in write.records:
            self.replay(record)
        write.committed(step)

    def failed(self, write: Write, code: ErrorCode, step: Step) -> None:
        """``write``, the oldest in flight, is not in the log and never will be."""
        self._arrived(write)
        write.failed(code, step)

    def _arrived(self, write: Write) -> None:
        head = self.in_flight.popleft()
        assert head is write

    # -- markers

    def mark(self, transactional_id: str, step: Step) -> None:
        """The id's transaction is decided, in the log: have its markers written, and that noted."""
        value = self.metadata[transactional_id]
        assert value.state in PREPARED
        self.pending[transactional_id] = value.completed_state
        if not value.partitions:
            self.complete(transactional_id, step)
            return
        self.marking[transactional_id] = set(value.partitions)
        step.effects.append(
            MarkersToSend(
                transactional_id,
                value.producer_id,
                value.producer_epoch,
                value.is_committing,
                value.partitions,
                value.client_version,
            )
        )

    def complete(self, transactional_id: str, step: Step) -> None:
        """Note that all markers are written. What cannot be written is tried again: nobody else would."""
        self.marking.pop(transactional_id, None)
        self.retries.pop(transactional_id, None)
        completed = self.metadata[transactional_id].completed(step.wall_ms)

        def failed(code: ErrorCode, step: Step) -> None:
            self.pending[transactional_id] = completed.state
            self.retries[transactional_id] = step.now_ms + RETRY_MS

        self.write(transactional_id, completed, _nothing, failed, step)

    @property
    def wake_ms(self) -> int:
        """When the next of them is tried again, or waits no longer (monotonic)."""
        wake_ms = next(iter(self.retries.values()), NEVER_MS)
        for waiting in self.waiting.values():
            return min(wake_ms, waiting.until_ms)
        return wake_ms


def _nothing(value: TransactionMetadata, step: Step) -> None:
    """Nothing follows."""
