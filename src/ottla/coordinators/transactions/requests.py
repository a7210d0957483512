"""Requests to the transaction machine, and its answers."""

from __future__ import annotations

from typing import NamedTuple

from ottla.coordinators.transactions.metadata import NO_PRODUCER_EPOCH, NO_PRODUCER_ID
from ottla.errors import ErrorCode
from ottla.types import TopicPartition


class Producer(NamedTuple):
    """A producer id and an epoch of it."""

    producer_id: int
    epoch: int


class InitRequest(NamedTuple):
    """InitProducerId with a transactional id."""

    transactional_id: str
    timeout_ms: int
    # What the producer has now, where it says (KIP-360): another one must not have begun since.
    expected: Producer | None = None
    # KIP-939: take part in a two-phase commit; keep what is open.
    enable_2pc: bool = False
    keep_prepared: bool = False


class ProducerResponse(NamedTuple):
    """What InitProducerId and EndTxn answer: the id and epoch to go on with."""

    error: ErrorCode
    producer_id: int = NO_PRODUCER_ID
    epoch: int = NO_PRODUCER_EPOCH


class AddRequest(NamedTuple):
    """Partitions that a transaction is to have, or is thought to have."""

    transactional_id: str
    producer_id: int
    producer_epoch: int
    partitions: frozenset[TopicPartition]
    # What the client speaks: TV_2 where partitions are added by what is written to them.
    client_version: int
    # Whether it may wait a moment for the transaction before to be over: nobody else waits for its answer.
    may_wait: bool = False


class EndRequest(NamedTuple):
    """EndTxn."""

    transactional_id: str
    producer_id: int
    producer_epoch: int
    commit: bool
    client_version: int


class MarkersToSend(NamedTuple):
    """A transaction is decided, and each of these partitions is to have its marker.

    They are sent in the name of the partition of `__transaction_state` that the machine has, in its leader
    epoch (the coordinator's epoch). What has come of it goes to ``TransactionMachine.marked``.
    """

    transactional_id: str
    producer_id: int
    producer_epoch: int
    commit: bool
    partitions: frozenset[TopicPartition]
    # With TV_2, the markers' epoch is above that of what was written.
    transaction_version: int


class DescribedTransaction(NamedTuple):
    """An entry of DescribeTransactions: all but the id is empty where there is an error."""

    transactional_id: str
    error: ErrorCode
    state: str = ""
    timeout_ms: int = 0
    start_ms: int = 0
    producer_id: int = 0
    producer_epoch: int = 0
    partitions: frozenset[TopicPartition] = frozenset()


class ListedTransaction(NamedTuple):
    """An entry of ListTransactions."""

    transactional_id: str
    producer_id: int
    state: str
    start_ms: int
