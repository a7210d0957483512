"""A transactional client by the rules of Kafka's (TransactionManager, KIP-890's protocol).

Partitions are added by the first batch, each transaction's end gives the epoch of the next one. What is not
answered is repeated as it was; what the client may not go on with is aborted, or ends its instance.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

from ottla.errors import ErrorCode
from ottla.types import Record, TopicPartition
from ottla.wire.records import build_batch
from sim.client import NONE, Client, Disconnected
from sim.machine import EPOCH_MS
from sim.model import SEQUENCES
from sim.producer import DUPLICATE, OUT_OF_ORDER, RETRIABLE
from sim.txn_model import ONE_EPOCH, ZOMBIE, Outcome, Transaction, TransactionModel

GROUP_KEY, TRANSACTION_KEY = 0, 1
TIMEOUT_MS = 4_000
DELIVERY_TIMEOUT_MS = 2_000
# How long a batch is repeated, in virtual seconds: then its transaction is aborted.
DELIVERY_S = 8.0

CONCURRENT = int(ErrorCode.concurrent_transactions)
LOOK_AGAIN = frozenset(
    int(code)
    for code in (
        ErrorCode.not_coordinator,
        ErrorCode.coordinator_not_available,
        ErrorCode.coordinator_load_in_progress,
        ErrorCode.request_timed_out,
    )
)
INVALID_STATE = int(ErrorCode.invalid_txn_state)
FENCED = frozenset(int(code) for code in (ErrorCode.producer_fenced, ErrorCode.invalid_producer_epoch))
ABORTABLE = frozenset(
    int(code)
    for code in (
        ErrorCode.transaction_abortable,
        ErrorCode.invalid_producer_epoch,
        ErrorCode.invalid_txn_state,
        ErrorCode.unknown_producer_id,
    )
)


class FencedError(Exception):
    """The instance has ended: another one has its transactional id."""


class AbortableError(Exception):
    """The transaction cannot be committed any more."""


@dataclass(slots=True, eq=False)
class Instance:
    """A producer since its InitProducerId: its id and epoch, and the sequences of the open transaction."""

    number: int
    producer_id: int
    epoch: int
    sequences: dict[TopicPartition, int] = field(default_factory=dict)


class TransactionalClient(Client):
    """What transactional clients share; ``name`` is the transactional id."""

    def __init__(self, *args: Any, transactions: TransactionModel, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.transactions = transactions
        self._coordinators: dict[tuple[int, str], tuple[str, int]] = {}

    def unexpected(self, api: str, code: int) -> None:
        """An error that no fault explains."""
        self.loop.failures.append(f"{self.name}: {api}: {ErrorCode(code).name}")

    async def _ask_coordinator(self, kind: int, key: str, api: str, fields: dict[str, Any]) -> Any:
        """The answer of who coordinates a group or a transactional id. Disconnected."""
        address = self._coordinators.get((kind, key))
        if address is None:
            response = await self.ask(
                await self.anyone(), "FindCoordinator", {"key_type": kind, "coordinator_keys": [key]}
            )
            found = response.coordinators[0]
            if found.error_code != NONE:
                raise Disconnected("no coordinator")
            address = self._coordinators[kind, key] = (found.host, found.port)
        try:
            return await self.ask(await self.connect(address), api, fields)
        except Disconnected:
            self._coordinators.pop((kind, key), None)
            raise

    async def _again(self, kind: int, key: str, api: str, code: int) -> bool:
        """Whether a coordinator's error passes; then it has been waited for a moment."""
        if code in LOOK_AGAIN:
            self._coordinators.pop((kind, key), None)
        elif code != CONCURRENT:
            return False
        self.trace(self.name, f"{api}: {ErrorCode(code).name}")
        await self.pause()
        return True

    # ------------------------------------------------------------ the instance

    async def init(self) -> Instance:
        """A new instance: what another one has left open is aborted."""
        fields = {
            "transactional_id": self.name,
            "transaction_timeout_ms": TIMEOUT_MS,
            "producer_id": -1,
            "producer_epoch": -1,
        }
        while True:
            try:
                response = await self._ask_coordinator(TRANSACTION_KEY, self.name, "InitProducerId", fields)
            except Disconnected:
                await self.pause()
                continue
            code = response.error_code
            if code == NONE:
                number = self.transactions.instance(self.name)
                self.trace(self.name, f"instance {number}: {response.producer_id}/{response.producer_epoch}")
                return Instance(number, response.producer_id, response.producer_epoch)
            if not await self._again(TRANSACTION_KEY, self.name, "InitProducerId", code):
                if code not in FENCED:
                    self.unexpected("InitProducerId", code)
                await self.pause()

    def is_zombie(self, instance: Instance) -> bool:
        return instance.number < self.transactions.instances[self.name]

    def _taken(self, instance: Instance, was_zombie: bool, what: str) -> None:
        """A request was answered without an error."""
        if was_zombie:
            self.transactions.violate(
                ONE_EPOCH,
                f"{self.name}: {what} of instance {instance.number} "
                f"({instance.producer_id}/{instance.epoch}) is taken after another one has begun",
            )

    # ------------------------------------------------------------ in a transaction

    async def produce(
        self, instance: Instance, transaction: Transaction, where: TopicPartition, values: list[bytes]
    ) -> None:
        """Have a batch written. FencedError, AbortableError."""
        now_ms = EPOCH_MS + self.loop.now_us // 1000
        sequence = instance.sequences.get(where, 0)
        data = build_batch(
            [Record(0, now_ms, b"x" * 10, value) for value in values],
            producer_id=instance.producer_id,
            producer_epoch=instance.epoch,
            base_sequence=sequence,
            transactional=True,
        )
        for value in values:
            transaction.written[value] = where, None
        ends_s = self.loop.time() + DELIVERY_S
        while self.loop.time() < ends_s:
            was_zombie = self.is_zombie(instance)
            try:
                answer = await self._send_batch(where, data)
            except Disconnected:
                await self.pause()
                await self.refresh()
                continue
            code = answer.error_code
            self.trace(self.name, f"{ErrorCode(code).name} {where} {answer.base_offset} {values[0]!r}")
            if code in (NONE, DUPLICATE):
                self._taken(instance, was_zombie, f"a batch at {where} {answer.base_offset}")
                instance.sequences[where] = sequence + len(values)
                for position, value in enumerate(values):
                    offset = answer.base_offset + position if answer.base_offset >= 0 else -1
                    transaction.written[value] = where, offset
                return
            if code == int(ErrorCode.producer_fenced):
                raise FencedError
            if code in ABORTABLE:
                raise AbortableError
            if code == OUT_OF_ORDER:
                if not self.is_zombie(instance):
                    self.model.violate(SEQUENCES, f"{where}: {values[0]!r} of {self.name} is refused")
                raise AbortableError
            if code not in RETRIABLE and code != CONCURRENT:
                self.unexpected(f"Produce to {where}", code)
                raise AbortableError
            await self.pause()
            if code != CONCURRENT:
                await self.refresh()
        raise AbortableError

    async def _send_batch(self, where: TopicPartition, data: bytes) -> Any:
        connection, _ = await self.leader(where)
        partition = {"index": where.partition, "records": data}
        response = await self.ask(
            connection,
            "Produce",
            {
                "transactional_id": self.name,
                "acks": -1,
                "timeout_ms": DELIVERY_TIMEOUT_MS,
                "topic_data": [{"name": where.topic, "partition_data": [partition]}],
            },
        )
        return response.responses[0].partition_responses[0]

    async def commit_offset(
        self, instance: Instance, transaction: Transaction, group: str, where: TopicPartition, offset: int
    ) -> None:
        """TxnOffsetCommit, of no member. FencedError, AbortableError."""
        partition = {"partition_index": where.partition, "committed_offset": offset, "committed_metadata": ""}
        fields = {
            "transactional_id": self.name,
            "group_id": group,
            "producer_id": instance.producer_id,
            "producer_epoch": instance.epoch,
            "generation_id": -1,
            "member_id": "",
            "topics": [{"name": where.topic, "partitions": [partition]}],
        }
        transaction.offsets[where] = offset
        ends_s = self.loop.time() + DELIVERY_S
        while self.loop.time() < ends_s:
            was_zombie = self.is_zombie(instance)
            try:
                response = await self._ask_coordinator(GROUP_KEY, group, "TxnOffsetCommit", fields)
            except Disconnected:
                await self.pause()
                continue
            code = response.topics[0].partitions[0].error_code
            self.trace(self.name, f"{ErrorCode(code).name} offset {where} {offset} {transaction.tag!r}")
            if code == NONE:
                self._taken(instance, was_zombie, f"an offset of {where}")
                return
            if code in FENCED:
                raise FencedError
            if code in ABORTABLE:
                raise AbortableError
            if code == int(ErrorCode.unknown_topic_or_partition):
                await self.pause()
            elif not await self._again(GROUP_KEY, group, "TxnOffsetCommit", code):
                self.unexpected("TxnOffsetCommit", code)
                raise AbortableError
        raise AbortableError

    async def end(self, instance: Instance, transaction: Transaction, *, commit: bool) -> None:
        """EndTxn, until it is answered. FencedError, AbortableError."""
        fields = {
            "transactional_id": self.name,
            "producer_id": instance.producer_id,
            "producer_epoch": instance.epoch,
            "committed": commit,
        }
        if commit:
            self.transactions.commit_sent(transaction)
        # Whether it may have been done although no answer has said so.
        in_doubt = False
        while True:
            was_zombie = self.is_zombie(instance)
            try:
                response = await self._ask_coordinator(TRANSACTION_KEY, self.name, "EndTxn", fields)
            except Disconnected:
                in_doubt = True
                await self.pause()
                continue
            code = response.error_code
            self.trace(self.name, f"{ErrorCode(code).name} commit {commit} {transaction.tag!r}")
            if code == NONE:
                self._taken(instance, was_zombie, "an end")
                self.transactions.ended(transaction, Outcome.COMMITTED if commit else Outcome.ABORTED)
                self._next(instance, response.producer_id, response.producer_epoch)
                return
            if await self._again(TRANSACTION_KEY, self.name, "EndTxn", code):
                in_doubt = True
                continue
            self.transactions.ended(transaction, Outcome.UNKNOWN if in_doubt else Outcome.ABORTED)
            if code in FENCED or code == INVALID_STATE:
                # The latter where it was aborted by somebody else: it takes this for a repetition.
                raise FencedError
            if code == int(ErrorCode.transaction_abortable) and commit:
                raise AbortableError
            self.unexpected(f"EndTxn {commit}", code)
            raise FencedError

    def _next(self, instance: Instance, producer_id: int, epoch: int) -> None:
        """The next transaction has an epoch of its own."""
        if producer_id == instance.producer_id and epoch <= instance.epoch:
            self.transactions.violate(
                ONE_EPOCH, f"{self.name}: {producer_id}/{epoch} follows {instance.epoch}"
            )
        instance.producer_id, instance.epoch = producer_id, epoch
        instance.sequences.clear()

    # ------------------------------------------------------------ a zombie

    async def come_back(self, instance: Instance, transaction: Transaction, where: TopicPartition) -> None:
        """Go on where a new instance has taken over, or is about to: write, and commit."""
        self.transactions.zombie_count += 1
        await asyncio.sleep(self.rng.choice((0.0, 0.1, 0.6, 2.0)) * self.rng.random())
        try:
            await self.produce(instance, transaction, where, [transaction.tag + b"|" + ZOMBIE])
            await self.end(instance, transaction, commit=True)
        except AbortableError:
            await self._end_in_vain(instance, transaction)
        except FencedError:
            self.transactions.fenced_count += 1

    async def _end_in_vain(self, instance: Instance, transaction: Transaction) -> None:
        try:
            await self.end(instance, transaction, commit=False)
        except FencedError:
            self.transactions.fenced_count += 1
