"""The transactional ids of one partition of `__transaction_state`: a pure machine.

It decides what Kafka's TransactionCoordinator and TransactionStateManager decide. `tables` are its state. It
is a `runtime.machine.Machine`, which says what the runtime does with it. What it wants done by others it puts
into a step's effects: `MarkersToSend`, whose outcome comes back to ``marked``.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Set

from ottla.coordinators.runtime.machine import UnknownRecord
from ottla.coordinators.runtime.pieces import PIECE
from ottla.coordinators.runtime.step import Waiter, Write, append_error
from ottla.coordinators.transactions import endings, producers
from ottla.coordinators.transactions.expiry import Expiry
from ottla.coordinators.transactions.metadata import TV_2, TransactionMetadata
from ottla.coordinators.transactions.requests import (
    AddRequest,
    DescribedTransaction,
    EndRequest,
    InitRequest,
    ListedTransaction,
)
from ottla.coordinators.transactions.schemas import (
    TransactionRecord,
    decode_record,
    decoding_record,
    encode_record,
    encoding_record,
    size_of,
)
from ottla.coordinators.transactions.settings import TransactionConfig
from ottla.coordinators.transactions.states import ONGOING, PREPARED
from ottla.coordinators.transactions.step import Pieces, Step
from ottla.coordinators.transactions.tables import TransactionTables, Waiting
from ottla.errors import ErrorCode
from ottla.types import Buffer, TopicPartition
from ottla.wire.records import NO_PRODUCER_ID

NONE = ErrorCode.none
CONCURRENT = ErrorCode.concurrent_transactions
# What a transaction's partitions may take of its record. The log takes records of 1 MiB by default; those
# that end the transaction are some bytes longer, and have to fit.
PARTITIONS_BYTES_MAX = 1_000_000


class TransactionMachine:
    """See the module's docstring."""

    def __init__(
        self,
        config: TransactionConfig,
        *,
        take_id: Callable[[], int | None],
        level: Callable[[], int] = lambda: TV_2,
    ) -> None:
        """``take_id``: a producer id that nobody has had, None where none is at hand. ``level``: that of the
        feature transaction.version."""
        self._config = config
        self._take_id = take_id
        self._level = level
        self.tables = TransactionTables()
        self.expiry = Expiry(self.tables, config)

    def step(self, now_ms: int, wall_ms: int) -> Step:
        return Step(now_ms, wall_ms, self._config, self._level(), self._take_id)

    # -- records

    def encode(self, record: TransactionRecord) -> tuple[bytes, bytes | None]:
        return encode_record(record)

    def is_large(self, record: TransactionRecord) -> bool:
        return record.value is not None and len(record.value.partitions) > PIECE

    def encoding(self, record: TransactionRecord) -> Generator[None, None, tuple[bytes, bytes | None]]:
        return encoding_record(record)

    def decode(self, key: Buffer | None, value: Buffer | None) -> TransactionRecord | UnknownRecord:
        return decode_record(key, value)

    def decoding(
        self, key: Buffer | None, value: Buffer | None
    ) -> Generator[None, None, TransactionRecord | UnknownRecord]:
        return decoding_record(key, value)

    def replay(self, record: TransactionRecord, producer_id: int = NO_PRODUCER_ID) -> None:
        self.tables.replay(record)

    def end_transaction(self, producer_id: int, *, committed: bool) -> Iterator[None]:
        """Nothing is written to this topic in a transaction."""
        return iter(())

    # -- writes

    @property
    def in_flight_count(self) -> int:
        return len(self.tables.in_flight)

    def submitted(self, write: Write) -> None:
        self.tables.submitted(write)

    def committed(self, write: Write, step: Step) -> None:
        """``write``, the oldest in flight, is in the log for good."""
        self.tables.committed(write, step)
        if self.tables.waiting:
            self._go_on(write, step)
        self.expiry.arm(step.now_ms)

    def _go_on(self, write: Write, step: Step) -> None:
        """Whoever waited for a transaction to be over begins the next."""
        for record in write.records:
            if record.transactional_id not in self.tables.pending:
                waiting = self.tables.waiting.pop(record.transactional_id, None)
                if waiting is not None:
                    self.add(waiting.request, waiting.waiter, step)

    def failed(self, write: Write, code: ErrorCode, step: Step) -> None:
        """``write``, the oldest in flight, is not in the log and never will be."""
        self.tables.failed(write, code, step)

    # -- time

    @property
    def wake_ms(self) -> int:
        return self.expiry.wake_ms

    def expire(self, step: Step) -> None:
        self.expiry.expire(step)

    @property
    def has_work(self) -> bool:
        return self.expiry.has_work

    def work(self, step: Step) -> None:
        self.expiry.work(step)

    # -- fail-over

    def loading(self) -> Pieces:
        """All of the log was replayed: finish what was decided."""
        step = yield
        tables = self.tables
        for count, transactional_id in enumerate(list(tables.metadata), 1):
            is_decided = tables.metadata[transactional_id].state in PREPARED
            if is_decided:
                tables.mark(transactional_id, step)
            # The markers of each go out at once, and there may be thousands.
            if is_decided or count % PIECE == 0:
                step = yield
        self.expiry.arm(step.now_ms)

    def unloading(self) -> Pieces:
        """Another node takes over: tell all who wait, and forget everything."""
        step = yield
        tables = self.tables
        self.expiry.abandon()
        while tables.waiting:
            step.reply(tables.waiting.popitem()[1].waiter, ErrorCode.not_coordinator)
        count = 0
        while tables.in_flight:
            tables.in_flight.popleft().failed(ErrorCode.not_coordinator, step)
            count += 1
            if count % PIECE == 0:
                step = yield
        for table in (tables.pending, tables.retries, tables.ongoing, tables.marking, tables.metadata):
            while table:
                table.popitem()
                count += 1
                if count % PIECE == 0:
                    step = yield

    # -- requests

    def init(self, request: InitRequest, waiter: Waiter, step: Step) -> None:
        """InitProducerId; the answer is a ProducerResponse. First of all comes ``producers.check_init``."""
        producers.init(self.tables, request, waiter, step)

    def may_need_id(self, transactional_id: str) -> bool:
        """Whether ``init`` may take a producer id: for one that is not known, or has used its epochs up."""
        value = self.tables.metadata.get(transactional_id)
        return value is None or value.is_exhausted

    def end(self, request: EndRequest, waiter: Waiter, step: Step) -> None:
        """EndTxn; the answer is a ProducerResponse."""
        endings.end(self.tables, request, waiter, step)

    def add(self, request: AddRequest, waiter: Waiter, step: Step) -> None:
        """AddPartitionsToTxn, AddOffsetsToTxn: all of the partitions or none; the answer is an ErrorCode."""
        tables = self.tables
        value = tables.metadata.get(request.transactional_id)
        if request.transactional_id in tables.pending:
            # First of all: the producer may have what is only about to be (KAFKA-18660).
            if not self._waits(value, request, waiter, step):
                step.reply(waiter, CONCURRENT)
            return
        error = _not_open(value, request)
        if error is not NONE:
            step.reply(waiter, error)
            return
        assert value is not None
        if value.state is ONGOING and request.partitions <= value.partitions:
            step.reply(waiter, NONE)
            return
        following = value.with_partitions(step.wall_ms, request.partitions, request.client_version)
        if size_of(following.partitions) > PARTITIONS_BYTES_MAX:
            # As where the log refuses the record.
            step.reply(waiter, ErrorCode.unknown_server_error)
            return
        tables.write(
            request.transactional_id,
            following,
            lambda value, step: step.reply(waiter, NONE),
            lambda code, step: step.reply(waiter, append_error(code)),
            step,
        )

    def _waits(
        self, value: TransactionMetadata | None, request: AddRequest, waiter: Waiter, step: Step
    ) -> bool:
        """Whether a request waits for the transaction before its own to be over: one for each id at a time,
        of the producer that the next is for. In Kafka clients ask again, some 20 ms later (KAFKA-18654)."""
        if value is None or value.state not in PREPARED or not request.may_wait:
            return False
        wait_ms = step.config.add_partitions_wait_ms
        tables = self.tables
        if (
            request.transactional_id in tables.waiting
            or value.completed_producer != (request.producer_id, request.producer_epoch)
            or not wait_ms
        ):
            return False
        tables.waiting[request.transactional_id] = Waiting(request, waiter, step.now_ms + wait_ms)
        return True

    def verify(self, request: AddRequest) -> dict[TopicPartition, ErrorCode]:
        """AddPartitionsToTxn that only asks whether partitions are in a transaction that is open.

        As in Kafka, of what is about to be nothing is looked at: the log looks again when it appends.
        """
        value = self.tables.metadata.get(request.transactional_id)
        error = _not_open(value, request)
        if error is not NONE:
            return dict.fromkeys(request.partitions, error)
        assert value is not None
        abortable = ErrorCode.transaction_abortable
        return {each: NONE if each in value.partitions else abortable for each in request.partitions}

    def marked(
        self,
        transactional_id: str,
        producer_id: int,
        producer_epoch: int,
        partitions: Set[TopicPartition],
        step: Step,
    ) -> None:
        """Partitions have the markers of a transaction that ended as this producer's, or are no more."""
        tables = self.tables
        left = tables.marking.get(transactional_id)
        if left is None:
            return
        value = tables.metadata[transactional_id]
        if (value.producer_id, value.producer_epoch) != (producer_id, producer_epoch):
            return
        left -= partitions
        if not left:
            tables.complete(transactional_id, step)

    # -- what there is

    def describe(self, transactional_id: str) -> DescribedTransaction:
        value = self.tables.metadata.get(transactional_id)
        if value is None:
            return DescribedTransaction(transactional_id, ErrorCode.transactional_id_not_found)
        partitions = value.partitions
        if value.state in PREPARED:
            partitions = frozenset(self.tables.marking.get(transactional_id, ()))
        return DescribedTransaction(
            transactional_id,
            NONE,
            value.state.value,
            value.timeout_ms,
            value.start_ms,
            value.producer_id,
            value.producer_epoch,
            partitions,
        )

    def transactions(self) -> Iterator[ListedTransaction]:
        """Those that there are now, as they are when their turn comes."""
        for transactional_id in list(self.tables.metadata):
            value = self.tables.metadata.get(transactional_id)
            if value is not None:
                yield ListedTransaction(
                    transactional_id, value.producer_id, value.state.value, value.start_ms
                )


def _not_open(value: TransactionMetadata | None, request: AddRequest) -> ErrorCode:
    """Why a producer may not add to a transaction of this id."""
    if value is None or value.producer_id != request.producer_id:
        return ErrorCode.invalid_producer_id_mapping
    if value.producer_epoch != request.producer_epoch:
        return ErrorCode.producer_fenced
    return CONCURRENT if value.state in PREPARED else NONE
