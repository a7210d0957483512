"""The transaction coordinator of this node, as handlers know it (Kafka's TransactionCoordinator).

A transactional id belongs to the partition of `__transaction_state` that it hashes to: see `runtime.host`.
Until that is loaded its ids get COORDINATOR_LOAD_IN_PROGRESS, and those of partitions led elsewhere
NOT_COORDINATOR.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterator, Sequence
from functools import partial
from typing import Any, Protocol
from uuid import UUID

from ottla.coordinators.runtime.host import Host, active
from ottla.coordinators.runtime.shard import Shard
from ottla.coordinators.runtime.writes import CoordinatorLog
from ottla.coordinators.transactions.metadata import TV_2
from ottla.coordinators.transactions.producers import check_init
from ottla.coordinators.transactions.requests import (
    AddRequest,
    DescribedTransaction,
    EndRequest,
    InitRequest,
    ListedTransaction,
    MarkersToSend,
    ProducerResponse,
)
from ottla.coordinators.transactions.settings import TransactionConfig
from ottla.coordinators.transactions.transaction_machine import TransactionMachine
from ottla.env.clock import Clock
from ottla.env.deadlines import Deadlines
from ottla.env.deferred import Deferred
from ottla.env.slices import Slices
from ottla.errors import ErrorCode, KafkaError
from ottla.metadata.image import TRANSACTION_STATE_TOPIC
from ottla.types import TopicPartition

log = logging.getLogger(__name__)

TransactionShard = Shard[TransactionMachine]


class ProducerIds(Protocol):
    """Where new producer ids come from."""

    @property
    def is_at_hand(self) -> bool:
        """Whether ``at_once`` gives one."""
        ...

    def at_once(self) -> int | None:
        """One that nobody has had; None where they have to be reserved first."""
        ...

    async def reserve(self) -> None:
        """Have some at hand. KafkaError where none can be had now."""
        ...


class SendsMarkers(Protocol):
    """What has markers written: see `markers.Markers`."""

    def send(
        self,
        markers: MarkersToSend,
        coordinator_epoch: int,
        done: Callable[[set[TopicPartition]], None],
        is_wanted: Callable[[], bool],
    ) -> None: ...


class TransactionCoordinator:
    """What the handlers call. Promised answers fail with KafkaError only where the id is not served here."""

    def __init__(
        self,
        coordinator_log: CoordinatorLog,
        clock: Clock,
        config: TransactionConfig,
        ids: ProducerIds,
        markers: SendsMarkers,
        *,
        level: Callable[[], int] = lambda: TV_2,
        slices: Slices | None = None,
        deadlines: Deadlines | None = None,
    ) -> None:
        """``level``: that of the feature transaction.version."""
        self.config = config
        self._ids = ids
        self._markers = markers
        self._tasks: set[asyncio.Task[None]] = set()
        self._reserving: asyncio.Task[None] | None = None
        self.host = Host(
            coordinator_log,
            clock,
            deadlines or Deadlines(clock),
            slices or Slices(),
            config.runtime(),
            make=partial(TransactionMachine, config, take_id=self._take_id, level=level),
            partition_count=config.transaction_state_log_num_partitions,
            act=self._send,
        )

    def partition_for(self, transactional_id: str) -> int:
        return self.host.partition_for(transactional_id)

    # -- fail-over

    def is_ready(self, transactional_id: str) -> bool:
        """Whether the id is served here."""
        shard = self.host.find(transactional_id)
        return shard is not None and shard.is_active

    async def ready(self, transactional_id: str) -> None:
        """Return when the id's shard is loaded, or after a while. For ids of this node."""
        await self.host.ready(transactional_id)

    async def load(self, partition: int, epoch: int) -> None:
        """As ``Host.load``."""
        await self.host.load(partition, epoch)
        shard = self.host.shards.get(partition)
        if shard is not None and shard.epoch == epoch and (ids := shard.machine.tables.metadata):
            log.info(
                "partition %d: loaded its transactional ids (%d) in %d ms",
                partition,
                len(ids),
                shard.loaded_ms,
            )

    def unload(self, partition: int, epoch: int | None = None) -> None:
        """As ``Host.unload``."""
        self.host.unload(partition, epoch)

    def close(self) -> None:
        """The node stops: tell all who wait to look for another coordinator."""
        self.host.close()
        for task in self._tasks:
            task.cancel()

    def on_topics_deleted(self, topics: Sequence[tuple[str, UUID]]) -> None:
        """Forget all ids, if one of the topics is theirs."""
        if any(name == TRANSACTION_STATE_TOPIC for name, _ in topics):
            self.host.close()

    # -- producer ids

    def _take_id(self) -> int | None:
        producer_id = self._ids.at_once()
        if producer_id is None and self._reserving is None:
            # Whoever needed it asks again.
            self._reserving = self._spawn(self._reserve())
        return producer_id

    async def _reserve(self) -> None:
        try:
            await self._ids.reserve()
        except KafkaError as error:
            log.warning("no producer ids can be had now: %s", error)
        finally:
            self._reserving = None

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    # -- transactions

    def init(self, request: InitRequest) -> Deferred[ProducerResponse]:
        """InitProducerId with a transactional id."""
        answer: Deferred[ProducerResponse] = Deferred()
        code = check_init(request, self.config)
        if code != ErrorCode.none:
            answer.resolve(ProducerResponse(code))
        elif self._ids.is_at_hand or not self._may_need_id(request.transactional_id):
            self._ask(request.transactional_id, answer, lambda machine: machine.init, request)
        else:
            # It is not to be told to ask again for that.
            answer.follow(self._init_later(request))
        return answer

    def _may_need_id(self, transactional_id: str) -> bool:
        """Whether its producer may have to get a new id, of one that is served here."""
        shard = self.host.find(transactional_id)
        return shard is not None and shard.is_active and shard.machine.may_need_id(transactional_id)

    async def _init_later(self, request: InitRequest) -> ProducerResponse:
        try:
            await self._ids.reserve()
        except KafkaError as error:
            return ProducerResponse(error.code)
        answer: Deferred[ProducerResponse] = Deferred()
        self._ask(request.transactional_id, answer, lambda machine: machine.init, request)
        return await answer

    def end(self, request: EndRequest) -> Deferred[ProducerResponse]:
        """EndTxn."""
        answer: Deferred[ProducerResponse] = Deferred()
        if not request.transactional_id:
            answer.resolve(ProducerResponse(ErrorCode.invalid_request))
        else:
            self._ask(request.transactional_id, answer, lambda machine: machine.end, request)
        return answer

    def add(self, request: AddRequest) -> Deferred[ErrorCode]:
        """AddPartitionsToTxn, or AddOffsetsToTxn: all partitions or none."""
        answer: Deferred[ErrorCode] = Deferred()
        if not request.transactional_id:
            answer.resolve(ErrorCode.invalid_request)
        else:
            self._ask(request.transactional_id, answer, lambda machine: machine.add, request)
        return answer

    def _ask(
        self,
        transactional_id: str,
        answer: Deferred[Any],
        operation: Callable[[TransactionMachine], Callable[..., None]],
        request: object,
    ) -> None:
        try:
            shard = self.host.shard(transactional_id)
        except KafkaError as error:
            # Without the frames that it has come through: they know the answer, and so the error.
            answer.fail(error.with_traceback(None))
            return
        step = shard.step()
        operation(shard.machine)(request, answer, step)
        shard.finish(step, None, answer)

    def verify(self, request: AddRequest) -> dict[TopicPartition, ErrorCode]:
        """AddPartitionsToTxn that only asks (TransactionCoordinator.handleVerifyPartitionsInTransaction)."""
        if not request.transactional_id:
            return dict.fromkeys(request.partitions, ErrorCode.invalid_request)
        try:
            return self.host.shard(request.transactional_id).machine.verify(request)
        except KafkaError as error:
            return dict.fromkeys(request.partitions, error.code)

    # -- markers

    def _send(self, shard: TransactionShard, markers: MarkersToSend) -> None:
        self._markers.send(
            markers, shard.epoch, partial(self._marked, shard, markers), lambda: not shard.is_closed
        )

    def _marked(
        self, shard: TransactionShard, markers: MarkersToSend, partitions: set[TopicPartition]
    ) -> None:
        if shard.is_closed:
            return
        step = shard.step()
        shard.machine.marked(
            markers.transactional_id, markers.producer_id, markers.producer_epoch, partitions, step
        )
        shard.finish(step)

    # -- what there is

    def describe(self, transactional_id: str) -> DescribedTransaction:
        """DescribeTransactions, of one id."""
        if not transactional_id:
            return DescribedTransaction(transactional_id, ErrorCode.invalid_request)
        try:
            return self.host.shard(transactional_id).machine.describe(transactional_id)
        except KafkaError as error:
            return DescribedTransaction(transactional_id, error.code)

    def partition_count(self, transactional_id: str) -> int:
        """How many partitions the id's transaction has; 0 where it is not coordinated here."""
        shard = self.host.find(transactional_id)
        value = None if shard is None else shard.machine.tables.metadata.get(transactional_id)
        return 0 if value is None else len(value.partitions)

    def transactions(self) -> Iterator[ListedTransaction]:
        """All that this node coordinates, one at a time, so that other work may be done in between.

        KafkaError COORDINATOR_LOAD_IN_PROGRESS while any of its partitions is being loaded.
        """
        return _listed([active(shard) for shard in self.host.shards.values()])


def _listed(shards: Sequence[TransactionShard]) -> Iterator[ListedTransaction]:
    for shard in shards:
        if shard.is_active:
            yield from shard.machine.transactions()
