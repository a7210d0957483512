"""How transactions end: EndTxn of both protocols, and the aborts that nobody asks for.

Which requests are taken in which state, and what they are told, is TransactionCoordinator.endTransaction's.
"""

from __future__ import annotations

from collections.abc import Callable

from ottla.coordinators.runtime.step import Waiter, append_error
from ottla.coordinators.transactions.metadata import (
    CLIENT_EPOCH_MAX,
    NO_PRODUCER_ID,
    TV_2,
    TransactionMetadata,
)
from ottla.coordinators.transactions.requests import EndRequest, ProducerResponse
from ottla.coordinators.transactions.states import (
    COMPLETE_ABORT,
    COMPLETE_COMMIT,
    EMPTY,
    ONGOING,
    PREPARE_ABORT,
    PREPARE_COMMIT,
    PREPARED,
)
from ottla.coordinators.transactions.step import Step
from ottla.coordinators.transactions.tables import TransactionTables
from ottla.errors import ErrorCode

NONE = ErrorCode.none
CONCURRENT = ErrorCode.concurrent_transactions
FENCED = ErrorCode.producer_fenced
UNKNOWN_PRODUCER = ErrorCode.invalid_producer_id_mapping
INVALID_STATE = ErrorCode.invalid_txn_state
# There is no producer id at hand, as for `producers.new_id`.
NO_ID_AT_HAND = ErrorCode.coordinator_load_in_progress

_COMMITS = (COMPLETE_COMMIT, PREPARE_COMMIT)
_ABORTS = (COMPLETE_ABORT, PREPARE_ABORT)


def end(tables: TransactionTables, request: EndRequest, waiter: Waiter, step: Step) -> None:
    """Decide a transaction. It is answered once that is in the log; the markers follow."""
    with_bump = request.client_version >= TV_2
    value = tables.metadata.get(request.transactional_id)
    error = _refused_with_bump(tables, value, request) if with_bump else _refused(tables, value, request)
    if error is not None:
        producer = (NO_PRODUCER_ID, -1)
        if error is NONE and with_bump:
            assert value is not None
            producer = (value.producer_id, value.producer_epoch)
        step.reply(waiter, ProducerResponse(error, *producer))
        return
    assert value is not None
    if with_bump:
        next_id = _next_id(value, step)
        if next_id is None:
            step.reply(waiter, ProducerResponse(NO_ID_AT_HAND))
            return
        decided = value.decided_with_bump(step.wall_ms, next_id, commit=request.commit)
    else:
        decided = value.decided(step.wall_ms, commit=request.commit)

    def then(value: TransactionMetadata, step: Step) -> None:
        if with_bump:
            step.reply(waiter, ProducerResponse(NONE, *value.completed_producer))
        else:
            step.reply(waiter, ProducerResponse(NONE))
        tables.mark(request.transactional_id, step)

    def failed(code: ErrorCode, step: Step) -> None:
        step.reply(waiter, ProducerResponse(append_error(code)))

    tables.write(request.transactional_id, decided, then, failed, step)


def _refused(
    tables: TransactionTables, value: TransactionMetadata | None, request: EndRequest
) -> ErrorCode | None:
    """Why the classic protocol does not end a transaction now; NONE where it has; None where it does."""
    if value is None or value.producer_id != request.producer_id:
        return UNKNOWN_PRODUCER
    if value.producer_epoch != request.producer_epoch:
        return FENCED
    if request.transactional_id in tables.pending:
        return CONCURRENT
    if value.state is ONGOING:
        return None
    return _repeated(value, request)


def _repeated(value: TransactionMetadata, request: EndRequest) -> ErrorCode:
    """Of a transaction that is decided: NONE where it is what was asked for."""
    if value.state not in (_COMMITS if request.commit else _ABORTS):
        return INVALID_STATE
    return CONCURRENT if value.state in PREPARED else NONE


def _refused_with_bump(
    tables: TransactionTables, value: TransactionMetadata | None, request: EndRequest
) -> ErrorCode | None:
    """As ``_refused``, in KIP-890's protocol: there each transaction has an epoch of its own, so that a
    request with the one before is a repetition, and one with the present epoch begins something new."""
    if request.transactional_id in tables.pending:
        # First of all: the producer may have what is only about to be (KAFKA-18660).
        return CONCURRENT
    if value is None:
        return UNKNOWN_PRODUCER
    after_overflow = (
        value.previous_producer_id == request.producer_id != value.producer_id
        and request.producer_epoch == CLIENT_EPOCH_MAX
        and value.producer_epoch == 0
    )
    if value.producer_id != request.producer_id and not after_overflow:
        return UNKNOWN_PRODUCER
    if value.state is ONGOING or value.state is EMPTY:
        if request.producer_epoch != value.producer_epoch:
            return FENCED
        # An empty transaction may be aborted, since the client may not know that it is; not committed.
        return None if value.state is ONGOING or not request.commit else INVALID_STATE
    if after_overflow or request.producer_epoch + 1 == value.producer_epoch:
        return _repeated(value, request)
    if value.state in PREPARED or request.producer_epoch != value.producer_epoch:
        return FENCED
    return INVALID_STATE if request.commit else None


def _next_id(value: TransactionMetadata, step: Step) -> int | None:
    """The producer id for after the transaction, -1 where it stays; None where there is none at hand."""
    return step.take_id() if value.is_exhausted else NO_PRODUCER_ID


def abort(
    tables: TransactionTables, transactional_id: str, then: Callable[[ErrorCode, Step], None], step: Step
) -> None:
    """Abort an open transaction that nothing is on its way for, and fence its producer by the next epoch.

    In KIP-890's protocol the abort's own bump is that (KAFKA-19367). ``then`` is told once it is decided, or
    that it cannot be.
    """
    value = tables.metadata[transactional_id]
    if step.level >= TV_2:
        next_id = _next_id(value, step)
        if next_id is None:
            then(NO_ID_AT_HAND, step)
            return
        aborted = value.decided_with_bump(step.wall_ms, next_id, commit=False)
    else:
        aborted = value.fenced(step.wall_ms)

    def decided(value: TransactionMetadata, step: Step) -> None:
        then(NONE, step)
        tables.mark(transactional_id, step)

    tables.write(transactional_id, aborted, decided, lambda code, step: then(append_error(code), step), step)
