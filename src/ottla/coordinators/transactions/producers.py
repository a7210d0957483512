"""InitProducerId with a transactional id: who may go on, and as what (as TransactionCoordinator has it)."""

from __future__ import annotations

from ottla.coordinators.runtime.step import Waiter, append_error
from ottla.coordinators.transactions import endings
from ottla.coordinators.transactions.metadata import (
    NO_PRODUCER_EPOCH,
    NO_TIMEOUT_MS,
    TransactionMetadata,
    beginning,
    is_exhausted,
)
from ottla.coordinators.transactions.requests import InitRequest, Producer, ProducerResponse
from ottla.coordinators.transactions.settings import TransactionConfig
from ottla.coordinators.transactions.states import AT_REST, ONGOING
from ottla.coordinators.transactions.step import Step
from ottla.coordinators.transactions.tables import TransactionTables
from ottla.errors import ErrorCode, KafkaError

CONCURRENT = ErrorCode.concurrent_transactions


def check_init(request: InitRequest, config: TransactionConfig) -> ErrorCode:
    """What is wrong with a request, whoever coordinates the id. Of KIP-939 Kafka 4.4 has the first half."""
    if not request.transactional_id:
        return ErrorCode.invalid_request
    if request.enable_2pc and not config.transaction_two_phase_commit_enable:
        return ErrorCode.transactional_id_authorization_failed
    if request.keep_prepared:
        return ErrorCode.unsupported_version
    if not request.enable_2pc and not 0 < request.timeout_ms <= config.transaction_max_timeout_ms:
        return ErrorCode.invalid_transaction_timeout
    return ErrorCode.none


def init(tables: TransactionTables, request: InitRequest, waiter: Waiter, step: Step) -> None:
    """Give the id's producer what to go on with; what was open is aborted first, which the client is told to
    wait for. ``request`` has been through ``check_init``."""
    transactional_id, timeout_ms, expected, enable_2pc, _ = request
    value = tables.metadata.get(transactional_id)
    if transactional_id in tables.pending:
        step.reply(waiter, ProducerResponse(CONCURRENT))
    elif value is not None and expected is not None and not _is_known(value, expected):
        step.reply(waiter, ProducerResponse(ErrorCode.producer_fenced))
    elif value is not None and value.state is ONGOING:
        endings.abort(tables, transactional_id, lambda code, step: _fenced(waiter, code, step), step)
    elif value is not None and value.state not in AT_REST:
        step.reply(waiter, ProducerResponse(CONCURRENT))
    else:
        try:
            begun = _begun(value, NO_TIMEOUT_MS if enable_2pc else timeout_ms, expected, step)
        except KafkaError as error:
            step.reply(waiter, ProducerResponse(error.code))
            return
        tables.write(
            transactional_id,
            begun,
            lambda value, step: step.reply(
                waiter, ProducerResponse(ErrorCode.none, value.producer_id, value.producer_epoch)
            ),
            lambda code, step: step.reply(waiter, ProducerResponse(append_error(code))),
            step,
        )


def _fenced(waiter: Waiter, code: ErrorCode, step: Step) -> None:
    """What was open is decided now. The epoch that did so is given to nobody: the client asks again."""
    step.reply(waiter, ProducerResponse(CONCURRENT if code == ErrorCode.none else code))


def _is_known(value: TransactionMetadata, expected: Producer) -> bool:
    """Whether a producer is one that may still be the latest, or had been just before its id was replaced."""
    return expected.producer_id == value.producer_id or (
        expected.producer_id == value.previous_producer_id and is_exhausted(expected.epoch)
    )


def _begun(
    value: TransactionMetadata | None, timeout_ms: int, expected: Producer | None, step: Step
) -> TransactionMetadata:
    """What the id becomes (KIP-360). KafkaError PRODUCER_FENCED where another producer began since."""
    now_ms = step.wall_ms
    if value is None:
        value = beginning(new_id(step), timeout_ms, now_ms)
    producer_id, epoch, last = value.producer_id, value.producer_epoch, value.last_producer_epoch
    if expected is not None and epoch not in (NO_PRODUCER_EPOCH, expected.epoch):
        if expected.epoch != last:
            raise KafkaError(ErrorCode.producer_fenced)
        # It asks again, since it has not had the answer: and may once more, with what it had before.
        again = value.initialized(now_ms, timeout_ms, producer_id=producer_id, epoch=epoch, last_epoch=last)
        return again._replace(previous_producer_id=value.previous_producer_id)
    last = NO_PRODUCER_EPOCH if expected is None else epoch
    if value.is_exhausted:
        producer_id, epoch = new_id(step), 0
    else:
        epoch += 1
    return value.initialized(now_ms, timeout_ms, producer_id=producer_id, epoch=epoch, last_epoch=last)


def new_id(step: Step) -> int:
    """KafkaError COORDINATOR_LOAD_IN_PROGRESS, which clients retry, where there is none at hand."""
    producer_id = step.take_id()
    if producer_id is None:
        raise KafkaError(ErrorCode.coordinator_load_in_progress, "no producer id is at hand")
    return producer_id
