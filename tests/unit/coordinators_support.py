"""A group machine on a bench: time that the test moves, a log in memory, requests in one line."""

from __future__ import annotations

import asyncio
import itertools
import struct
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any
from uuid import UUID

from ottla.coordinators.groups import offset_requests
from ottla.coordinators.groups.classic_group import ClassicGroup
from ottla.coordinators.groups.group_machine import GroupMachine
from ottla.coordinators.groups.member import Protocol
from ottla.coordinators.groups.requests import (
    CommitRequest,
    FetchedOffset,
    FetchedTopic,
    FetchTopic,
    JoinRequest,
    LeavingMember,
    SyncRequest,
    TopicToCommit,
)
from ottla.coordinators.groups.schemas import CoordinatorRecord, decode_record, encode_record
from ottla.coordinators.groups.settings import GroupConfig
from ottla.coordinators.groups.step import Pieces, Step
from ottla.errors import ErrorCode, KafkaError
from ottla.pieces import whole
from ottla.types import Record, TxnMarker
from ottla.wire.commits import OffsetToCommit
from ottla.wire.primitives import UUID_ZERO
from ottla.wire.records import build_batch, check_batch

# Wall and monotonic time differ, so that a test notices where one is taken for the other.
WALL_START_MS = 1_700_000_000_000


def subscription(*topics: str, version: int = 0, rest: bytes = b"\xff\xff\xff\xff") -> bytes:
    """A consumer's metadata: its topics."""
    names = b"".join(struct.pack(">h", len(topic.encode())) + topic.encode() for topic in topics)
    return struct.pack(">hi", version, len(topics)) + names + rest


def protocols(*names: str, topics: tuple[str, ...] = ("t",)) -> tuple[Protocol, ...]:
    return tuple(Protocol(name, subscription(*topics)) for name in names)


class Bench:
    """``replies`` maps each waiter to its answer. Writes wait in the machine unless ``auto_commit``."""

    def __init__(self, *, auto_commit: bool = True, **settings: Any) -> None:
        self.config = GroupConfig(**settings)
        self.machine = GroupMachine(self.config)
        self.tables = self.machine.tables
        self.now_ms = 1_000
        self.auto_commit = auto_commit
        # Whether what is to be removed piece by piece is removed at once.
        self.auto_remove = True
        self.replies: dict[str, Any] = {}
        self.log: list[CoordinatorRecord] = []
        self._count = 0

    # Time and the log

    def step(self) -> Step:
        return Step(self.now_ms, WALL_START_MS + self.now_ms, self.config)

    def finish(self, step: Step) -> None:
        for waiter, response in itertools.chain(step.replies, *step.later):
            assert waiter not in self.replies, f"{waiter} is answered twice"
            self.replies[waiter] = response
        for write in step.writes:
            self.tables.submitted(write)
        while self.auto_commit and self.tables.in_flight:
            self.commit_one()
        while self.auto_remove and self.machine.removal.pieces:
            self.remove_piece()

    def remove_piece(self) -> None:
        step = self.step()
        self.machine.removal.work(step)
        self.finish(step)

    def commit_one(self) -> None:
        write = self.tables.in_flight[0]
        # What the log keeps has been through the schemas.
        self.log += [decode_record(*encode_record(record)) for record in write.records]
        step = self.step()
        self.machine.committed(write, step)
        self.finish(step)

    def commit_all(self) -> None:
        while self.tables.in_flight:
            self.commit_one()

    def fail_one(self, code: ErrorCode = ErrorCode.kafka_storage_error) -> None:
        step = self.step()
        self.machine.failed(self.tables.in_flight[0], code, step)
        self.finish(step)

    def wait(self, delay_ms: int) -> None:
        """Time goes by; deadlines are met at their very millisecond."""
        end_ms = self.now_ms + delay_ms
        while self.tables.wakes and self.tables.wakes[0].deadline_ms <= end_ms:
            self.now_ms = max(self.now_ms, self.tables.wakes[0].deadline_ms)
            step = self.step()
            self.machine.expire(step)
            self.finish(step)
        self.now_ms = end_ms

    def failed_over(self) -> Bench:
        """What another node finds in the log."""
        other = Bench(auto_commit=self.auto_commit)
        other.config, other.now_ms, other.log = self.config, self.now_ms, list(self.log)
        for record in self.log:
            other.tables.replay(record)
        other.do_pieces(other.machine.loading())
        return other

    def unload(self) -> None:
        self.do_pieces(self.machine.unloading())

    def do_pieces(self, pieces: Pieces) -> int:
        """Do all of a piece of work; how many pieces it came in."""
        next(pieces)
        for count in itertools.count(1):
            step = self.step()
            try:
                pieces.send(step)
            except StopIteration:
                return count
            finally:
                self.finish(step)
        raise AssertionError

    # Requests

    def group(self, group_id: str = "g") -> ClassicGroup:
        return self.tables.groups[group_id]

    def _waiter(self, kind: str) -> str:
        self._count += 1
        return f"{kind}-{self._count}"

    def run(self, kind: str, operation: Callable[[str, Step], None]) -> str:
        waiter = self._waiter(kind)
        step = self.step()
        operation(waiter, step)
        self.finish(step)
        return waiter

    def join(
        self,
        member_id: str = "",
        *,
        group_id: str = "g",
        new_id: str | None = None,
        instance: str | None = None,
        protocol_type: str = "consumer",
        offered: tuple[Protocol, ...] | None = None,
        session_ms: int = 10_000,
        rebalance_ms: int = 60_000,
        version: int = 3,
        client: str = "c",
    ) -> str:
        return self.run(
            "join",
            lambda waiter, step: self.machine.join(
                JoinRequest(
                    group_id=group_id,
                    member_id=member_id,
                    new_member_id=new_id or f"{instance or client}-{self._count}",
                    group_instance_id=instance,
                    client_id=client,
                    client_host="/127.0.0.1",
                    protocol_type=protocol_type,
                    protocols=protocols("range") if offered is None else offered,
                    session_timeout_ms=session_ms,
                    rebalance_timeout_ms=rebalance_ms,
                    requires_known_member_id=version >= 4,
                    supports_skipping_assignment=version >= 9,
                ),
                waiter,
                step,
            ),
        )

    def sync(
        self,
        member_id: str,
        generation: int,
        assignments: dict[str, bytes] | None = None,
        *,
        group_id: str = "g",
        instance: str | None = None,
        protocol_type: str | None = None,
        protocol_name: str | None = None,
    ) -> str:
        request = SyncRequest(
            group_id, generation, member_id, instance, protocol_type, protocol_name, assignments or {}
        )
        return self.run("sync", lambda waiter, step: self.machine.sync(request, waiter, step))

    def heartbeat(
        self, member_id: str, generation: int, *, group_id: str = "g", instance: str | None = None
    ) -> ErrorCode:
        return self.machine.heartbeat(group_id, member_id, instance, generation, self.now_ms)

    def leave(self, *leaving: str | LeavingMember, group_id: str = "g") -> str:
        members = tuple(LeavingMember(each) if isinstance(each, str) else each for each in leaving)
        return self.run("leave", lambda waiter, step: self.machine.leave(group_id, members, waiter, step))

    def commit(
        self,
        offset: int = 1,
        *,
        group_id: str = "g",
        member_id: str = "",
        generation: int = -1,
        instance: str | None = None,
        topic: str = "t",
        partition: int = 0,
        metadata: str | None = "",
        retention_ms: int = -1,
        version: int = 9,
        topic_id: Any = UUID_ZERO,
    ) -> str:
        """Like the others, but what is raised for the whole request is its reply."""
        request = CommitRequest(
            group_id,
            generation,
            member_id,
            instance,
            retention_ms,
            version >= 9,
            [TopicToCommit(topic, topic_id, [OffsetToCommit(partition, offset, 3, metadata)])],
        )
        waiter = self._waiter("commit")
        step = self.step()
        try:
            prepared = whole(offset_requests.prepare_commit(request, step.wall_ms, self.config))
            offset_requests.commit(self.tables, request, prepared, waiter, step)
        except KafkaError as error:
            self.replies[waiter] = error
        self.finish(step)
        return waiter

    def fetch(
        self, group_id: str, topics: Sequence[FetchTopic] | None, *, require_stable: bool = False
    ) -> list[FetchedTopic]:
        def one(topic: FetchTopic, partition: int) -> FetchedOffset:
            return offset_requests.fetch_one(
                self.tables, group_id, topic, partition, require_stable=require_stable
            )

        wanted = offset_requests.all_topics(self.tables, group_id) if topics is None else topics
        return [
            FetchedTopic(each.topic, each.topic_id, [one(each, index) for index in each.partitions])
            for each in wanted
        ]

    def delete_group(self, group_id: str = "g") -> str:
        return self.run(
            "delete", lambda waiter, step: self.machine.removal.delete_group(group_id, waiter, step)
        )

    def delete_offsets(self, topic: str, *partitions: int, group_id: str = "g") -> str:
        return self.run(
            "delete",
            lambda waiter, step: offset_requests.delete_offsets(
                self.tables, group_id, [(topic, partitions)], waiter, step
            ),
        )

    def expire_offsets(self) -> None:
        self.machine.removal.expire_offsets()
        self.finish(self.step())

    def topic_deleted(self, topic: str, topic_id: UUID = UUID_ZERO) -> None:
        step = self.step()
        self.machine.removal.topics_deleted([(topic, topic_id)], step)
        self.finish(step)

    # Whole stories

    def stable(self, *member_ids: str, **join: Any) -> int:
        """A stable group of these members, the first of which leads. Returns the generation."""
        joins = [self.join(new_id=each, **join) for each in member_ids]
        self.wait(self.config.group_initial_rebalance_delay_ms)
        while not all(each in self.replies for each in joins):
            self.wait(self.config.group_initial_rebalance_delay_ms)
        generation: int = self.replies[joins[0]].generation_id
        for each in member_ids:
            self.sync(each, generation, {m: f"a-{m}".encode() for m in member_ids})
        assert self.group().state.value == "Stable"
        return generation

    def committed(self, topic: str = "t", partition: int = 0, group_id: str = "g") -> int | None:
        value = self.tables.offsets.get(group_id, topic, partition)
        return None if value is None else value.offset

    def error(self, waiter: str) -> str:
        """The name of the error that a request was answered with."""
        reply = self.replies[waiter]
        if isinstance(reply, KafkaError):
            return reply.code.name
        if isinstance(reply, list):
            ((_, ((_, error),)),) = reply
            return error.name
        error = reply.error
        return error.name


class MemoryLog:
    """`CoordinatorLog` in memory. Appends wait for ``release`` while ``held``."""

    def __init__(self, partition_count: int = 1) -> None:
        self.partition_count = partition_count
        self.batches: dict[int, list[bytes]] = {index: [] for index in range(partition_count)}
        self.held = False
        self.error: KafkaError | None = None
        self.waiting: list[Any] = []
        # What came with each append.
        self.guards: list[object | None] = []
        self.max_message_bytes = 1_048_588

    def batch_bytes_max(self, partition: int) -> int:
        return self.max_message_bytes

    def append(
        self,
        partition: int,
        batch: bytes,
        ended: Callable[[KafkaError | None], None],
        guard: object | None = None,
    ) -> bool:
        if self.error is not None:
            raise self.error
        self.guards.append(guard)
        check_batch(batch)
        if len(batch) > self.max_message_bytes:
            raise KafkaError(ErrorCode.message_too_large)
        self.batches[partition].append(batch)
        if self.held:
            self.waiting.append(ended)
        return not self.held

    def append_marker(
        self, partition: int, marker: TxnMarker, ended: Callable[[KafkaError | None], None]
    ) -> bool:
        key = struct.pack(">hh", 0, int(marker.commits))
        value = struct.pack(">hi", 0, marker.coordinator_epoch)
        batch = build_batch(
            [Record(0, 0, key, value, ())],
            producer_id=marker.producer_id,
            producer_epoch=marker.producer_epoch,
            transactional=True,
            control=True,
        )
        return self.append(partition, batch, ended)

    def release(self) -> None:
        waiting, self.waiting = self.waiting, []
        for ended in waiting:
            ended(None)

    async def read_all(self, partition: int) -> AsyncIterator[bytes]:
        for batch in list(self.batches[partition]):
            yield batch


def durable(machine: GroupMachine) -> tuple[Any, Any]:
    """What a fail-over must find again."""
    tables = machine.tables
    return dict(tables.metadata), {group: dict(topics) for group, topics in tables.offsets.by_group.items()}


class ManualClock:
    """Time that only the test moves."""

    def __init__(self) -> None:
        self.ms = 1_000
        self.timers: list[ManualTimer] = []

    def now_ms(self) -> int:
        return 1_700_000_000_000 + self.ms

    def monotonic_ms(self) -> int:
        return self.ms

    def call_later(self, delay_ms: float, callback: Callable[[], object]) -> ManualTimer:
        timer = ManualTimer(self, self.ms + delay_ms, callback)
        self.timers.append(timer)
        return timer

    async def advance(self, delay_ms: int) -> None:
        end_ms = self.ms + delay_ms
        await settle()
        while self.timers and (timer := min(self.timers, key=lambda t: t.at_ms)).at_ms <= end_ms:
            self.timers.remove(timer)
            self.ms = max(self.ms, int(timer.at_ms))
            timer.callback()
            await settle()
        self.ms = end_ms


class ManualTimer:
    def __init__(self, clock: ManualClock, at_ms: float, callback: Callable[[], object]) -> None:
        self.clock, self.at_ms, self.callback = clock, at_ms, callback

    def cancel(self) -> None:
        if self in self.clock.timers:
            self.clock.timers.remove(self)


async def settle() -> None:
    """Let everything happen that can without time going by."""
    for _ in range(20):
        await asyncio.sleep(0)
