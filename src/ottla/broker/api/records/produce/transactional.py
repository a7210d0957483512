"""Produce with a transactional id: before a transaction's first batch its coordinator is asked (KIP-890).

ReplicaManager.handleProduceAppend. Up to v11 it is asked whether the transaction has the partitions; from v12
on they are added to it by that, and where the one before is still being ended it is asked again for a moment
(add.partitions.to.txn.retry.backoff.max.ms), so that the client does not have to. Once a partition has the
transaction nobody is asked. What the connection sends meanwhile waits.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator, Iterable, Iterator
from typing import Any, Final
from uuid import UUID

from ottla.broker.api.records.produce.rights import writable
from ottla.broker.large import Pace, is_large
from ottla.broker.metering import metered
from ottla.broker.pending import Unbegun
from ottla.broker.request import RequestContext
from ottla.coordinators.transactions.verification import FINAL, Errors, Operation, of_produce
from ottla.env.deferred import Deferred
from ottla.errors import ErrorCode, KafkaError
from ottla.log.verification import EXEMPT, VerificationGuard
from ottla.pieces import whole
from ottla.types import Buffer, TopicPartition
from ottla.wire.produce import TOPIC_ID_SINCE, OneBatch
from ottla.wire.records import HEADER_BYTES, MAGIC, STAMP_BYTES, TRANSACTIONAL_BIT, header_at

# The low byte of a batch's attributes, which hold its codec.
ATTRIBUTES_POSITION: Final = 22
# How soon a transaction that waits for the one before is asked for again: at first, and doubled from then on.
RETRY_MS_MIN: Final = 2
# Batches that are looked at in one piece, where there are more.
LOOKED_AT_ONCE_MAX: Final = 200

# What clients do not know that it passes, and are told as if replicas were missing: then they ask again, and
# not for metadata first.
_PASSING: Final = frozenset(
    {
        ErrorCode.network_exception,
        ErrorCode.coordinator_load_in_progress,
        ErrorCode.coordinator_not_available,
        ErrorCode.not_coordinator,
    }
)


class Unverified(KafkaError):
    """A batch that the log was not asked about: the coordinator, or what is known of its producer, is against
    it."""


class Verified:
    """What a request's batches may be appended with, and which of them may not be."""

    __slots__ = ("_guards", "_is_exempt", "_refused")

    def __init__(self, *, is_exempt: bool = False) -> None:
        """``is_exempt``: no coordinator is asked."""
        self._is_exempt = is_exempt
        self._guards: dict[TopicPartition, VerificationGuard] = {}
        self._refused: dict[TopicPartition, Unverified] = {}

    def guard(self, where: TopicPartition) -> VerificationGuard | None:
        """For a partition's batch; None where its transaction is open there. Unverified if it is refused."""
        error = self._refused.get(where)
        if error is not None:
            raise Unverified(error.code, error.message)
        return self._guards.get(where)

    def begun(self, where: TopicPartition, guard: VerificationGuard) -> None:
        self._guards[where] = guard

    def told(self, errors: Errors, operation: Operation) -> None:
        """What the coordinator has said."""
        for where, code in errors.items():
            self._refused[where] = _refusal(code, operation)

    def refused_for_good(self, errors: Errors) -> list[tuple[TopicPartition, VerificationGuard]]:
        """What nobody will append with any more."""
        return [
            (where, self._guards[where])
            for where, code in errors.items()
            if code in FINAL and where in self._guards
        ]

    @property
    def must_ask(self) -> bool:
        """Whether there is something to ask a coordinator about."""
        return bool(self._guards) and not self._is_exempt

    @property
    def asked(self) -> frozenset[TopicPartition]:
        """The partitions that a coordinator has to be asked about."""
        return frozenset(self._guards)


def _refusal(code: ErrorCode, operation: Operation) -> Unverified:
    waits = code == ErrorCode.concurrent_transactions and operation is not Operation.ADD_PARTITION
    if waits or code in _PASSING:
        why = f"the transaction cannot be asked for now: {code.name}"
        return Unverified(ErrorCode.not_enough_replicas, why)
    if code == ErrorCode.invalid_txn_state:
        return Unverified(code, "the partition was not added to the transaction")
    return Unverified(code)


# A batch, and the partition that it is for.
Batch = tuple[TopicPartition, Buffer]
# Its id and epoch.
Producer = tuple[int, int]

# What goes on with a request once it is known what may be appended.
Then = Callable[[RequestContext, Any, Verified], Any]


def when_verified(ctx: RequestContext, request: Any, then: Then) -> Any:
    """What ``then`` gives: now, or a promise of it.

    KafkaError INVALID_PRODUCER_ID_MAPPING where the batches are of several producers.
    """
    if ctx.services.replicas.unopened or is_large(ctx):
        return _slowly(ctx, request, then)
    looked_at = whole(_look_at(ctx, _batches(ctx, request)))
    return _verify(ctx, request, then, *looked_at)


async def _slowly(ctx: RequestContext, request: Any, then: Then) -> Any:
    """In pieces. Logs are opened that are not yet: only they know which transactions are open."""
    batches: list[Batch | None] = []
    pace = Pace(ctx)
    for batch in _batches(ctx, request):
        batches.append(batch)
        if pace.is_over():
            await pace.pause()
    if ctx.services.replicas.unopened:
        await ctx.services.replicas.open([batch[0] for batch in batches if batch is not None])
    verified, producer = await ctx.services.slices.run(_look_at(ctx, batches))
    result = _verify(ctx, request, then, verified, producer)
    if isinstance(result, Deferred):
        # The connection goes on once what is to be appended has been.
        return await result
    return await result if _is_coroutine(result) else result


def _verify(
    ctx: RequestContext, request: Any, then: Then, verified: Verified, producer: Producer | None
) -> Any:
    if producer is None or not verified.must_ask:
        return then(ctx, request, verified)
    operation = of_produce(ctx.header.api_version)
    return _Question(ctx, request, then, producer, verified, operation).begin()


def _look_at(
    ctx: RequestContext, batches: Iterable[Batch | None]
) -> Generator[None, None, tuple[Verified, Producer | None]]:
    """What is known of the batches' transaction already, and whose they are; in pieces."""
    operation = of_produce(ctx.header.api_version)
    is_exempt = operation is not Operation.ADD_PARTITION and not ctx.services.config.get(
        "transaction.partition.verification.enable"
    )
    verified = Verified(is_exempt=is_exempt)
    producer: Producer | None = None
    count = 0
    for batch in batches:
        count += 1
        if count % LOOKED_AT_ONCE_MAX == 0:
            yield
        if batch is None:
            continue
        where, records = batch
        if not _has_producer(records):
            continue
        header = header_at(records, 0)
        found = header.producer_id, header.producer_epoch
        if producer is not None and found != producer:
            raise KafkaError(ErrorCode.invalid_producer_id_mapping, "batches of several producers")
        producer = found
        if is_exempt:
            verified.begun(where, EXEMPT)
        else:
            _begin(ctx, where, header.base_sequence, producer, operation, verified)
    return verified, producer


def _begin(
    ctx: RequestContext,
    where: TopicPartition,
    sequence: int,
    producer: Producer,
    operation: Operation,
    verified: Verified,
) -> None:
    partition = ctx.services.replicas.partitions.get(where)
    if partition is None:
        # It is told where it is appended to.
        return
    try:
        guard = partition.begin_verification(
            *producer,
            sequence,
            ctx.services.clock.now_ms(),
            bumps_epoch=operation is Operation.ADD_PARTITION,
        )
    except KafkaError as error:
        verified.told({where: ErrorCode(error.code)}, operation)
    else:
        if guard is not None:
            verified.begun(where, guard)


class _Question:
    """A coordinator is asked, and the request goes on then."""

    __slots__ = (
        "_answer", "_ctx", "_ends_ms", "_operation", "_producer", "_request", "_result", "_retry_ms", "_then",
        "_verified",
    )  # fmt: skip

    def __init__(
        self,
        ctx: RequestContext,
        request: Any,
        then: Then,
        producer: Producer,
        verified: Verified,
        operation: Operation,
    ) -> None:
        self._ctx = ctx
        self._request = request
        self._then = then
        self._producer = producer
        self._verified = verified
        self._operation = operation
        self._answer: Unbegun | None = None
        self._result: tuple[Any] | None = None
        self._retry_ms = RETRY_MS_MIN
        self._ends_ms = 0
        if operation is Operation.ADD_PARTITION:
            limit_ms = ctx.services.config.get("add.partitions.to.txn.retry.backoff.max.ms")
            self._ends_ms = ctx.services.clock.monotonic_ms() + limit_ms

    def begin(self) -> Any:
        self._ask()
        if self._result is not None:
            return self._result[0]
        self._answer = Unbegun()
        return self._answer

    def _ask(self) -> None:
        self._ctx.services.verification.ask(
            self._request.transactional_id, *self._producer, self._verified.asked, self._operation, self._told
        )

    def _told(self, errors: Errors) -> None:
        if errors:
            partitions = self._ctx.services.replicas.partitions
            for where, guard in self._verified.refused_for_good(errors):
                if (partition := partitions.get(where)) is not None:
                    partition.log.producers.verifications.forget(self._producer[0], guard)
        if self._answer is not None and self._answer.done:
            # The client is gone.
            return
        if ErrorCode.concurrent_transactions in errors.values() and self._asks_again():
            return
        self._verified.told(errors, self._operation)
        if self._answer is None:
            self._result = (self._go_on(),)
            return
        try:
            result = self._go_on()
        except Exception as error:  # noqa: BLE001 - whoever waits hears of it
            self._answer.fail(error)
            return
        if _is_coroutine(result):
            # There is more to append: the connection waits for that.
            self._answer.follow(metered(self._ctx, result))
        else:
            self._answer.resolve(result)

    def _go_on(self) -> Any:
        return self._then(self._ctx, self._request, self._verified)

    def _asks_again(self) -> bool:
        """The transaction before is still being ended: whether that is waited for."""
        services = self._ctx.services
        if services.clock.monotonic_ms() >= self._ends_ms:
            return False
        delay_ms = min(self._retry_ms, services.config.get("add.partitions.to.txn.retry.backoff.ms"))
        self._retry_ms *= 2
        services.clock.call_later(delay_ms, self._ask_again)
        return True

    def _ask_again(self) -> None:
        if self._answer is None or not self._answer.done:
            self._ask()


def _is_coroutine(result: Any) -> bool:
    """Something that has still to be run, and is no promise."""
    return (
        isinstance(result, Awaitable)
        and not hasattr(result, "add_done_callback")
        and not isinstance(result, Deferred)
    )


def _batches(ctx: RequestContext, request: Any) -> Iterator[Batch | None]:
    """The transactional batches, of topics that are there and that the client may write to; None for what is
    passed over."""
    if isinstance(request, OneBatch):
        topic, records = request.topic, request.records
        if is_transactional(records) and (name := _writable(ctx, topic)) is not None:
            yield TopicPartition(name, request.index), records
        return
    by_id = ctx.header.api_version >= TOPIC_ID_SINCE
    for topic in request.topic_data:
        # Also where there is no partition of it.
        yield None
        name = _writable(ctx, topic.topic_id if by_id else topic.name)
        if name is None:
            continue
        for data in topic.partition_data:
            if data.records is not None and is_transactional(data.records):
                yield TopicPartition(name, data.index), data.records
            else:
                yield None


def _writable(ctx: RequestContext, topic: str | UUID) -> str | None:
    """The name of a topic to which the client may write. None: it is told why where it is appended to."""
    try:
        return writable(ctx, topic)
    except KafkaError:
        return None


def _has_producer(records: Buffer) -> bool:
    return len(records) >= HEADER_BYTES and header_at(records, 0).producer_id >= 0


def has_transactional(request: Any) -> bool:
    """Whether one of the batches says that it is part of a transaction."""
    for topic in request.topic_data:
        for data in topic.partition_data:
            if data.records is not None and is_transactional(data.records):
                return True
    return False


def is_transactional(records: Buffer) -> bool:
    return (
        len(records) > ATTRIBUTES_POSITION
        and records[ATTRIBUTES_POSITION] & TRANSACTIONAL_BIT != 0
        and records[STAMP_BYTES] == MAGIC
    )
