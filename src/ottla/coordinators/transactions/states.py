"""The states of a transaction, and the valid transitions (Kafka's TransactionState)."""

from __future__ import annotations

from enum import Enum


class TransactionState(Enum):
    """By the names that DescribeTransactions and ListTransactions show."""

    # No transaction since the producer's last InitProducerId.
    EMPTY = "Empty"
    ONGOING = "Ongoing"
    # Decided, and markers are being written; then there are none left to write.
    PREPARE_COMMIT = "PrepareCommit"
    PREPARE_ABORT = "PrepareAbort"
    COMPLETE_COMMIT = "CompleteCommit"
    COMPLETE_ABORT = "CompleteAbort"
    # About to be removed, since its transactional id has expired.
    DEAD = "Dead"
    # Kafka's coordinators pass through it while they fence a producer; it is in no record.
    PREPARE_EPOCH_FENCE = "PrepareEpochFence"

    # An enumeration's own is in Python, and states are looked up with each step.
    __hash__ = object.__hash__


EMPTY = TransactionState.EMPTY
ONGOING = TransactionState.ONGOING
PREPARE_COMMIT = TransactionState.PREPARE_COMMIT
PREPARE_ABORT = TransactionState.PREPARE_ABORT
COMPLETE_COMMIT = TransactionState.COMPLETE_COMMIT
COMPLETE_ABORT = TransactionState.COMPLETE_ABORT
DEAD = TransactionState.DEAD

# A state's number in records is its place here.
BY_NUMBER = tuple(TransactionState)
NUMBERS = {state: number for number, state in enumerate(BY_NUMBER)}
BY_NAME = {state.value: state for state in TransactionState}

# Decided, but not everywhere yet.
PREPARED = frozenset({PREPARE_COMMIT, PREPARE_ABORT})
# Nothing is open: an id may expire, a new transaction may begin.
AT_REST = frozenset({EMPTY, COMPLETE_COMMIT, COMPLETE_ABORT})

# From which states each may be come to (TransactionState.VALID_PREVIOUS_STATES). That an abort may begin at
# rest is KIP-890's: the client may not know whether its transaction had begun.
PREVIOUS = {
    EMPTY: AT_REST,
    ONGOING: AT_REST | {ONGOING},
    PREPARE_COMMIT: frozenset({ONGOING}),
    PREPARE_ABORT: AT_REST | {ONGOING, TransactionState.PREPARE_EPOCH_FENCE},
    COMPLETE_COMMIT: frozenset({PREPARE_COMMIT}),
    COMPLETE_ABORT: frozenset({PREPARE_ABORT}),
    DEAD: AT_REST,
    TransactionState.PREPARE_EPOCH_FENCE: frozenset({ONGOING}),
}
