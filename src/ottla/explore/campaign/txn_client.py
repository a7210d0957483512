"""A transactional client by the rules of Kafka's (TransactionManager), of any generation (`txn_protocol`).

What is not answered is repeated as it was; what the client may not go on with is aborted, or ends its
instance. Where a transaction has no epoch of its own, what is late may come to the next one (the hole that
KIP-890 has closed): such a client has another epoch after whatever was not answered at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NoReturn

from ottla.errors import ErrorCode
from ottla.explore.campaign.client import NONE, Client, Disconnected
from ottla.explore.campaign.model import SEQUENCES, STALE_REFUSED
from ottla.explore.campaign.producer import DUPLICATE, OUT_OF_ORDER, RETRIABLE
from ottla.explore.campaign.txn_model import ONE_EPOCH, ZOMBIE, Outcome, Transaction, TransactionModel
from ottla.explore.campaign.txn_protocol import (
    ABORTABLE,
    CONCURRENT,
    FENCED,
    INVALID_STATE,
    KIP_890,
    LOOK_AGAIN,
    Protocol,
)
from ottla.explore.world.machine import EPOCH_MS
from ottla.types import Record, TopicPartition
from ottla.wire.records import build_batch

GROUP_KEY, TRANSACTION_KEY = 0, 1
TIMEOUT_MS = 4_000
DELIVERY_TIMEOUT_MS = 2_000
# How long a batch is repeated, in virtual seconds: then its transaction is aborted.
DELIVERY_S = 8.0
UNKNOWN_PARTITION = int(ErrorCode.unknown_topic_or_partition)


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
    # What was added to the open transaction, where the client does so: partitions, and groups.
    added: set[TopicPartition | str] = field(default_factory=set)
    # Something of this epoch may still be under way although nobody waits for it.
    is_doubtful: bool = False


@dataclass(frozen=True, slots=True)
class Member:
    """Who commits a group's offsets, where it is a member of the group."""

    member_id: str = ""
    generation: int = -1


NO_MEMBER = Member()


@contextmanager
def in_doubt(instance: Instance) -> Iterator[None]:
    """What fails, or is given up, may still be under way."""
    try:
        yield
    except BaseException:
        instance.is_doubtful = True
        raise


class TransactionalClient(Client):
    """What transactional clients share; ``name`` is the transactional id."""

    def __init__(
        self, *args: Any, transactions: TransactionModel, protocol: Protocol = KIP_890, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self.transactions = transactions
        self.protocol = protocol
        self.versions = protocol.versions
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
        while True:
            try:
                response = await self._init_producer_id(-1, -1)
            except FencedError:
                await self.pause()
                continue
            number = self.transactions.instance(self.name)
            self.trace(self.name, f"instance {number}: {response.producer_id}/{response.producer_epoch}")
            return Instance(number, response.producer_id, response.producer_epoch)

    async def _init_producer_id(self, producer_id: int, epoch: int) -> Any:
        """The answer that gives a producer id and an epoch. FencedError."""
        fields = {
            "transactional_id": self.name,
            "transaction_timeout_ms": TIMEOUT_MS,
            "producer_id": producer_id,
            "producer_epoch": epoch,
        }
        while True:
            try:
                response = await self._ask_coordinator(TRANSACTION_KEY, self.name, "InitProducerId", fields)
            except Disconnected:
                await self.pause()
                continue
            code = response.error_code
            if code == NONE:
                return response
            if code in FENCED:
                raise FencedError
            if not await self._again(TRANSACTION_KEY, self.name, "InitProducerId", code):
                self.unexpected("InitProducerId", code)
                await self.pause()

    async def _take_next_epoch(self, instance: Instance) -> None:
        """Have what may still be under way be refused (KIP-360). FencedError, also where the protocol does
        not have that: then another instance has to begin."""
        if not self.protocol.goes_on:
            raise FencedError
        was_zombie = self.is_zombie(instance)
        response = await self._init_producer_id(instance.producer_id, instance.epoch)
        self._taken(instance, was_zombie, "the next epoch")
        self._next(instance, response.producer_id, response.producer_epoch)

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
        with in_doubt(instance):
            if not self.protocol.bumps:
                await self._add_partition(instance, where)
            await self._produce(instance, transaction, where, values)

    async def _produce(
        self, instance: Instance, transaction: Transaction, where: TopicPartition, values: list[bytes]
    ) -> None:
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
                instance.is_doubtful = True
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

    # ------------------------------------------------------------ what the client adds by itself

    async def _add_partition(self, instance: Instance, where: TopicPartition) -> None:
        topics = [{"name": where.topic, "partitions": [where.partition]}]
        fields = {
            "v3_and_below_transactional_id": self.name,
            "v3_and_below_producer_id": instance.producer_id,
            "v3_and_below_producer_epoch": instance.epoch,
            "v3_and_below_topics": topics,
        }

        def code_of(response: Any) -> int:
            results = response.results_by_topic_v3_and_below[0].results_by_partition
            return int(results[0].partition_error_code)

        await self._add(instance, where, "AddPartitionsToTxn", fields, code_of)

    async def _add_offsets(self, instance: Instance, group: str) -> None:
        fields = {
            "transactional_id": self.name,
            "producer_id": instance.producer_id,
            "producer_epoch": instance.epoch,
            "group_id": group,
        }
        await self._add(instance, group, "AddOffsetsToTxn", fields, lambda response: int(response.error_code))

    async def _add(
        self,
        instance: Instance,
        what: TopicPartition | str,
        api: str,
        fields: dict[str, Any],
        code_of: Callable[[Any], int],
    ) -> None:
        ends_s = self.loop.time() + DELIVERY_S
        while what not in instance.added:
            was_zombie = self.is_zombie(instance)
            try:
                response = await self._ask_coordinator(TRANSACTION_KEY, self.name, api, fields)
            except Disconnected:
                instance.is_doubtful = True
                await self.pause()
            else:
                code = code_of(response)
                if code == NONE:
                    self._taken(instance, was_zombie, f"{what}, added,")
                    instance.added.add(what)
                elif code == UNKNOWN_PARTITION:
                    await self.pause()
                elif not await self._again(TRANSACTION_KEY, self.name, api, code):
                    self._refused(api, code)
            if self.loop.time() > ends_s:
                raise AbortableError

    def _refused(self, api: str, code: int) -> NoReturn:
        if code in FENCED:
            raise FencedError
        if code not in ABORTABLE:
            self.unexpected(api, code)
        raise AbortableError

    # ------------------------------------------------------------ offsets, and the end

    async def commit_offset(
        self,
        instance: Instance,
        transaction: Transaction,
        group: str,
        where: TopicPartition,
        offset: int,
        member: Member = NO_MEMBER,
    ) -> None:
        """TxnOffsetCommit. FencedError, AbortableError."""
        partition = {"partition_index": where.partition, "committed_offset": offset, "committed_metadata": ""}
        fields = {
            "transactional_id": self.name,
            "group_id": group,
            "producer_id": instance.producer_id,
            "producer_epoch": instance.epoch,
            "generation_id": member.generation,
            "member_id": member.member_id,
            "topics": [{"name": where.topic, "partitions": [partition]}],
        }
        transaction.offsets[where] = offset
        with in_doubt(instance):
            if not self.protocol.bumps:
                await self._add_offsets(instance, group)
            await self._commit_offset(instance, transaction, group, fields)

    async def _commit_offset(
        self, instance: Instance, transaction: Transaction, group: str, fields: dict[str, Any]
    ) -> None:
        ends_s = self.loop.time() + DELIVERY_S
        while self.loop.time() < ends_s:
            was_zombie = self.is_zombie(instance)
            newest = self.model.group(group).generation
            try:
                response = await self._ask_coordinator(GROUP_KEY, group, "TxnOffsetCommit", fields)
            except Disconnected:
                instance.is_doubtful = True
                await self.pause()
                continue
            code = response.topics[0].partitions[0].error_code
            self.trace(self.name, f"{ErrorCode(code).name} offsets {transaction.offsets} {transaction.tag!r}")
            if code == NONE:
                self._taken(instance, was_zombie, "an offset")
                if 0 <= fields["generation_id"] < newest:
                    self.model.violate(
                        STALE_REFUSED, f"{self.name}: of generation {fields['generation_id']}, not {newest}"
                    )
                return
            if code == UNKNOWN_PARTITION:
                await self.pause()
            elif not await self._again(GROUP_KEY, group, "TxnOffsetCommit", code):
                self._refused("TxnOffsetCommit", code)
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
        if not self.protocol.bumps and not instance.added and not instance.is_doubtful:
            # Nothing has begun for whoever does not say what it adds.
            self.transactions.ended(transaction, Outcome.COMMITTED if commit else Outcome.ABORTED)
            return
        # Whether it may have been done although no answer has said so.
        unknown = False
        while True:
            was_zombie = self.is_zombie(instance)
            try:
                response = await self._ask_coordinator(TRANSACTION_KEY, self.name, "EndTxn", fields)
            except Disconnected:
                unknown = instance.is_doubtful = True
                await self.pause()
                continue
            code = response.error_code
            self.trace(self.name, f"{ErrorCode(code).name} commit {commit} {transaction.tag!r}")
            if code == NONE:
                self._taken(instance, was_zombie, "an end")
                self.transactions.ended(transaction, Outcome.COMMITTED if commit else Outcome.ABORTED)
                if self.protocol.bumps:
                    self._next(instance, response.producer_id, response.producer_epoch)
                else:
                    instance.added.clear()
                    if instance.is_doubtful:
                        await self._take_next_epoch(instance)
                return
            if await self._again(TRANSACTION_KEY, self.name, "EndTxn", code):
                unknown = True
                continue
            self.transactions.ended(transaction, Outcome.UNKNOWN if unknown else Outcome.ABORTED)
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
        self.transactions.rotation_count += producer_id != instance.producer_id
        instance.producer_id, instance.epoch = producer_id, epoch
        instance.sequences.clear()
        instance.added.clear()
        instance.is_doubtful = False

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
