"""The protocols that transactional clients speak, by the generations of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ottla.errors import ErrorCode

CONCURRENT = int(ErrorCode.concurrent_transactions)
INVALID_STATE = int(ErrorCode.invalid_txn_state)
LOOK_AGAIN = frozenset(
    int(code)
    for code in (
        ErrorCode.not_coordinator,
        ErrorCode.coordinator_not_available,
        ErrorCode.coordinator_load_in_progress,
        ErrorCode.request_timed_out,
    )
)
# Another instance has begun; or its transaction took too long, which may have replaced the producer id, too.
FENCED = frozenset(
    int(code)
    for code in (
        ErrorCode.producer_fenced,
        ErrorCode.invalid_producer_epoch,
        ErrorCode.invalid_producer_id_mapping,
    )
)
ABORTABLE = frozenset(
    int(code)
    for code in (
        ErrorCode.transaction_abortable,
        ErrorCode.invalid_producer_epoch,
        ErrorCode.invalid_producer_id_mapping,
        ErrorCode.invalid_txn_state,
        ErrorCode.unknown_producer_id,
        # Of the group's member.
        ErrorCode.illegal_generation,
        ErrorCode.unknown_member_id,
        ErrorCode.rebalance_in_progress,
    )
)


@dataclass(frozen=True, slots=True)
class Protocol:
    """What differs between generations."""

    # Each transaction has an epoch of its own, and partitions are added by what is written to them (KIP-890,
    # transaction.version 2). Otherwise the client adds them, and a transaction goes on in the epoch of the
    # one before.
    bumps: bool
    # A producer may say what it has and go on with the next epoch (KIP-360).
    goes_on: bool = True
    # A group's offsets go with who commits them (KIP-447).
    names_member: bool = True
    versions: Mapping[str, int] = field(default_factory=dict)


KIP_890 = Protocol(bumps=True)
CLASSIC = Protocol(
    bumps=False,
    versions={"Produce": 11, "InitProducerId": 4, "EndTxn": 4, "TxnOffsetCommit": 4, "AddOffsetsToTxn": 3},
)
# As Kafka 0.11 has it.
FIRST = Protocol(
    bumps=False,
    goes_on=False,
    names_member=False,
    versions={
        "Produce": 3,
        "InitProducerId": 0,
        "AddPartitionsToTxn": 0,
        "AddOffsetsToTxn": 0,
        "EndTxn": 0,
        "TxnOffsetCommit": 0,
    },
)
