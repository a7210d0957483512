"""A transaction machine on a bench: time that the test moves, a log in memory, requests in one line."""

from __future__ import annotations

import itertools
from typing import Any

from coordinators_support import WALL_START_MS

from ottla.coordinators.runtime.step import NEVER_MS
from ottla.coordinators.transactions import producers
from ottla.coordinators.transactions.metadata import TV_0, TV_2, TransactionMetadata
from ottla.coordinators.transactions.requests import (
    AddRequest,
    EndRequest,
    InitRequest,
    MarkersToSend,
    Producer,
    ProducerResponse,
)
from ottla.coordinators.transactions.schemas import TransactionRecord, decode_record, encode_record
from ottla.coordinators.transactions.settings import TransactionConfig
from ottla.coordinators.transactions.step import Pieces, Step
from ottla.coordinators.transactions.transaction_machine import TransactionMachine
from ottla.errors import ErrorCode
from ottla.types import TopicPartition

T0, T1, U0 = TopicPartition("t", 0), TopicPartition("t", 1), TopicPartition("u", 0)


class Ids:
    """Producer ids: 1000, 1001 and so on, as long as there are any."""

    def __init__(self) -> None:
        self.next = 1_000
        self.are_out = False

    def take(self) -> int | None:
        if self.are_out:
            return None
        self.next += 1
        return self.next - 1


class TransactionBench:
    """``replies`` maps each waiter to its answer. Writes wait in the machine unless ``auto_commit``, markers
    in ``markers`` unless ``auto_mark``."""

    def __init__(self, *, auto_commit: bool = True, auto_mark: bool = True, **settings: Any) -> None:
        self.config = TransactionConfig(**settings)
        self.ids = Ids()
        self.level = TV_2
        self.now_ms = 1_000
        self.auto_commit = auto_commit
        self.auto_mark = auto_mark
        self.replies: dict[str, Any] = {}
        self.log: list[TransactionRecord] = []
        self.markers: list[MarkersToSend] = []
        # All that were ever to be sent.
        self.decided: list[MarkersToSend] = []
        self._count = 0
        self._is_settling = False
        self.machine = TransactionMachine(self.config, take_id=self.ids.take, level=lambda: self.level)

    @property
    def tables(self) -> Any:
        return self.machine.tables

    # Time, the log and the markers

    def step(self) -> Step:
        return self.machine.step(self.now_ms, WALL_START_MS + self.now_ms)

    @property
    def wall_ms(self) -> int:
        return WALL_START_MS + self.now_ms

    def finish(self, step: Step) -> None:
        for waiter, response in itertools.chain(step.replies, *step.later):
            assert waiter not in self.replies, f"{waiter} is answered twice"
            self.replies[waiter] = response
        for write in step.writes:
            self.machine.submitted(write)
        self.markers += step.effects
        self.decided += step.effects
        if not self._is_settling:
            self._is_settling = True
            self._settle()
            self._is_settling = False

    def _settle(self) -> None:
        """Whatever follows by itself."""
        while True:
            if self.auto_commit and self.tables.in_flight:
                self.commit_one()
            elif self.auto_mark and self.markers:
                self.mark_one()
            elif self.machine.has_work:
                step = self.step()
                self.machine.work(step)
                self.finish(step)
            else:
                return

    def commit_one(self) -> None:
        write = self.tables.in_flight[0]
        for record in write.records:
            # What the log keeps has been through the schemas.
            stored = decode_record(*encode_record(record))
            assert isinstance(stored, TransactionRecord)
            assert record.value is None or stored == record
            self.log.append(stored)
        step = self.step()
        self.machine.committed(write, step)
        self.finish(step)

    def commit_all(self) -> None:
        while self.tables.in_flight:
            self.commit_one()

    def fail_one(self, code: ErrorCode = ErrorCode.not_enough_replicas) -> None:
        step = self.step()
        self.machine.failed(self.tables.in_flight[0], code, step)
        self.finish(step)

    def mark_one(self, *partitions: TopicPartition) -> None:
        """Partitions of the oldest transaction that waits for markers have theirs; all, if none is said."""
        markers = self.markers[0]
        left = markers.partitions - set(partitions) if partitions else frozenset[TopicPartition]()
        if left:
            self.markers[0] = markers._replace(partitions=left)
        else:
            del self.markers[0]
        self.marked(markers, *(partitions or markers.partitions))

    def marked(self, markers: MarkersToSend, *partitions: TopicPartition) -> None:
        step = self.step()
        self.machine.marked(
            markers.transactional_id, markers.producer_id, markers.producer_epoch, set(partitions), step
        )
        self.finish(step)

    def wait(self, delay_ms: int) -> None:
        """Time goes by; deadlines are met at their very millisecond."""
        end_ms = self.now_ms + delay_ms
        while (wake_ms := self.machine.wake_ms) <= end_ms and wake_ms != NEVER_MS:
            self.now_ms = max(self.now_ms, wake_ms)
            step = self.step()
            self.machine.expire(step)
            self.finish(step)
        self.now_ms = end_ms

    def fail_over(self) -> None:
        """Another node takes over, with what it finds in the log."""
        self.do_pieces(self.machine.unloading())
        assert not self.tables.metadata
        assert not self.tables.pending
        assert not self.tables.in_flight
        self.markers = []
        self.machine = TransactionMachine(self.config, take_id=self.ids.take, level=lambda: self.level)
        for record in self.log:
            self.machine.replay(record)
        self.do_pieces(self.machine.loading())

    def do_pieces(self, pieces: Pieces) -> None:
        next(pieces)
        for _ in itertools.count():
            step = self.step()
            try:
                pieces.send(step)
            except StopIteration:
                return
            finally:
                self.finish(step)

    # Requests

    def _waiter(self, kind: str) -> str:
        self._count += 1
        return f"{kind}-{self._count}"

    def ask_init(
        self,
        expected: tuple[int, int] | None = None,
        *,
        name: str = "tx",
        timeout_ms: int = 60_000,
        **more: Any,
    ) -> str:
        waiter = self._waiter("init")
        request = InitRequest(name, timeout_ms, Producer(*expected) if expected else None, **more)
        code = producers.check_init(request, self.config)
        if code != ErrorCode.none:
            self.replies[waiter] = ProducerResponse(code)
            return waiter
        step = self.step()
        self.machine.init(request, waiter, step)
        self.finish(step)
        return waiter

    def ask_add(
        self,
        producer: tuple[int, int],
        *partitions: TopicPartition,
        name: str = "tx",
        version: int = TV_2,
        may_wait: bool = False,
    ) -> str:
        waiter = self._waiter("add")
        step = self.step()
        self.machine.add(
            AddRequest(name, *producer, frozenset(partitions or (T0,)), version, may_wait), waiter, step
        )
        self.finish(step)
        return waiter

    def ask_end(
        self, producer: tuple[int, int], *, commit: bool = True, name: str = "tx", version: int = TV_2
    ) -> str:
        waiter = self._waiter("end")
        step = self.step()
        self.machine.end(EndRequest(name, *producer, commit, version), waiter, step)
        self.finish(step)
        return waiter

    # Requests, and their answers

    def producer(self, waiter: str) -> tuple[int, int]:
        """The producer id and epoch that a request was answered with."""
        response = self.replies[waiter]
        assert response.error == ErrorCode.none, response
        return response.producer_id, response.epoch

    def error(self, waiter: str) -> str:
        """The name of the error that a request was answered with."""
        reply = self.replies[waiter]
        return reply.error.name if isinstance(reply, ProducerResponse) else reply.name

    def init(self, expected: tuple[int, int] | None = None, **more: Any) -> tuple[int, int]:
        return self.producer(self.ask_init(expected, **more))

    def add(self, producer: tuple[int, int], *partitions: TopicPartition, **more: Any) -> str:
        return self.error(self.ask_add(producer, *partitions, **more))

    def end(self, producer: tuple[int, int], **more: Any) -> tuple[int, int]:
        return self.producer(self.ask_end(producer, **more))

    def end_error(self, producer: tuple[int, int], **more: Any) -> str:
        return self.error(self.ask_end(producer, **more))

    def init_error(self, expected: tuple[int, int] | None = None, **more: Any) -> str:
        return self.error(self.ask_init(expected, **more))

    def verify(
        self, producer: tuple[int, int], *partitions: TopicPartition, name: str = "tx"
    ) -> dict[TopicPartition, str]:
        request = AddRequest(name, *producer, frozenset(partitions or (T0,)), TV_0)
        return {where: error.name for where, error in self.machine.verify(request).items()}

    # What there is

    def value(self, name: str = "tx") -> TransactionMetadata:
        value: TransactionMetadata = self.tables.metadata[name]
        return value

    def state(self, name: str = "tx") -> str:
        return self.value(name).state.value

    def put(self, name: str = "tx", **fields: Any) -> tuple[int, int]:
        """Have an id be what no short story leads to."""
        value = self.value(name)._replace(**fields)
        record = TransactionRecord(name, value)
        self.log.append(record)
        self.machine.replay(record)
        return value.producer_id, value.producer_epoch
