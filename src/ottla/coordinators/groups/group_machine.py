"""The groups of one partition of `__consumer_offsets`: a pure machine (Kafka's GroupCoordinatorShard).

`tables` are its state. It is a `runtime.machine.Machine`, which says what the runtime does with it. Work that
is too much for one turn comes in `Pieces`: that of `removal`, and that of a fail-over.
"""

from __future__ import annotations

import logging
from collections.abc import Generator, Iterator
from heapq import heappop

from ottla.coordinators.groups import rebalance, sessions
from ottla.coordinators.groups.classic_group import STABLE, ClassicGroup, GroupState
from ottla.coordinators.groups.member import MemberBytes
from ottla.coordinators.groups.removal import Removal
from ottla.coordinators.groups.requests import (
    UNKNOWN_MEMBER_ID,
    DescribedGroup,
    DescribedMember,
    JoinRequest,
    JoinResponse,
    LeaveResponse,
    LeavingMember,
    LeftMember,
    ListedGroup,
    SyncRequest,
    SyncResponse,
)
from ottla.coordinators.groups.schemas import (
    CoordinatorRecord,
    GroupRecord,
    decode_record,
    decoding_record,
    encode_record,
    encoding_record,
)
from ottla.coordinators.groups.settings import GroupConfig
from ottla.coordinators.groups.step import Pieces, Step
from ottla.coordinators.groups.tables import GroupTables
from ottla.coordinators.runtime.machine import UnknownRecord
from ottla.coordinators.runtime.pieces import PIECE
from ottla.coordinators.runtime.step import NEVER_MS, Waiter, Write
from ottla.errors import ErrorCode
from ottla.types import Buffer
from ottla.wire.records import NO_PRODUCER_ID

log = logging.getLogger(__name__)

NONE = ErrorCode.none
GROUP_TYPE = "classic"
# How long until what was due in a group, and failed in an unexpected way, is tried again.
RETRY_MS = 1_000


class GroupMachine:
    """See the module's docstring."""

    def __init__(self, config: GroupConfig, member_bytes: MemberBytes | None = None) -> None:
        self._config = config
        self.tables = GroupTables(member_bytes)
        self.removal = Removal(self.tables)

    def step(self, now_ms: int, wall_ms: int) -> Step:
        return Step(now_ms, wall_ms, self._config)

    # -- records

    def encode(self, record: CoordinatorRecord) -> tuple[bytes, bytes | None]:
        return encode_record(record)

    def is_large(self, record: CoordinatorRecord) -> bool:
        return (
            isinstance(record, GroupRecord) and record.value is not None and len(record.value.members) > PIECE
        )

    def encoding(self, record: CoordinatorRecord) -> Generator[None, None, tuple[bytes, bytes | None]]:
        return encoding_record(record)

    def decode(self, key: Buffer | None, value: Buffer | None) -> CoordinatorRecord | UnknownRecord:
        return decode_record(key, value)

    def decoding(
        self, key: Buffer | None, value: Buffer | None
    ) -> Generator[None, None, CoordinatorRecord | UnknownRecord]:
        return decoding_record(key, value)

    def replay(self, record: CoordinatorRecord, producer_id: int = NO_PRODUCER_ID) -> None:
        self.tables.replay(record, producer_id)

    def end_transaction(self, producer_id: int, *, committed: bool) -> Iterator[None]:
        return self.tables.offsets.end_transaction(producer_id, committed=committed)

    # -- writes

    @property
    def in_flight_count(self) -> int:
        return len(self.tables.in_flight)

    def submitted(self, write: Write) -> None:
        self.tables.submitted(write)

    def committed(self, write: Write, step: Step) -> None:
        """``write``, the oldest in flight, is in the log for good."""
        self.tables.committed(write, step)
        self.removal.arrived(write)

    def failed(self, write: Write, code: ErrorCode, step: Step) -> None:
        """``write``, the oldest in flight, is not in the log and never will be."""
        self.tables.failed(write, code, step)
        self.removal.arrived(write)

    # -- fail-over

    def loading(self) -> Pieces:
        """All of the log was replayed: bring the groups to life."""
        step = yield
        tables = self.tables
        count = 0
        for group_id in list(tables.metadata):
            restoring = ClassicGroup.from_metadata(
                group_id, tables.metadata[group_id], tables.wakes, tables.member_bytes
            )
            while True:
                try:
                    next(restoring)
                except StopIteration as end:
                    group: ClassicGroup = end.value
                    break
                step = yield
            tables.groups[group_id] = group
            sessions.resume(group, step)
            count += 1 + len(group.members) % PIECE
            if count >= PIECE:
                count = 0
                step = yield
        for count, group_id in enumerate(list(tables.offsets.by_group), 1):
            if group_id not in tables.groups:
                tables.ensure_group(group_id, step.wall_ms).is_of_offsets = True
            if count % PIECE == 0:
                step = yield

    def unloading(self) -> Pieces:
        """Another node takes over: tell all who wait, and forget everything."""
        step = yield
        tables = self.tables
        tables.wakes.clear()
        count = 0
        while tables.groups:
            _, group = tables.groups.popitem()
            sessions.abandon(group, step)
            count += 1 + len(group.members)
            if count >= PIECE:
                count = 0
                step = yield
        # Only now, for what follows from a failure is no longer for the groups here to decide.
        while tables.in_flight:
            tables.in_flight.popleft().failed(ErrorCode.not_coordinator, step)
        self.removal.abandon(step)
        for table in (tables.metadata, tables.offsets.by_group):
            while table:
                table.popitem()
                count += 1
                if count >= PIECE:
                    count = 0
                    step = yield

    # -- membership

    def join(self, request: JoinRequest, waiter: Waiter, step: Step) -> None:
        tables = self.tables
        if request.group_id in tables.deleting:
            step.reply(waiter, JoinResponse(ErrorCode.coordinator_not_available, request.member_id))
            return
        if request.group_id not in tables.groups and request.member_id != UNKNOWN_MEMBER_ID:
            step.reply(waiter, JoinResponse(ErrorCode.unknown_member_id, request.member_id))
            return
        group = tables.ensure_group(request.group_id, step.wall_ms)
        rebalance.join(group, request, waiter, step)
        tables.forget_if_unborn(group)

    def sync(self, request: SyncRequest, waiter: Waiter, step: Step) -> None:
        group = self.tables.groups.get(request.group_id)
        if group is None:
            step.reply(waiter, SyncResponse(ErrorCode.unknown_member_id))
        else:
            rebalance.sync(group, request, waiter, step)

    def heartbeat(
        self, group_id: str, member_id: str, group_instance_id: str | None, generation_id: int, now_ms: int
    ) -> ErrorCode:
        group = self.tables.groups.get(group_id)
        if group is None:
            return ErrorCode.unknown_member_id
        return sessions.heartbeat(group, member_id, group_instance_id, generation_id, now_ms)

    def leave(self, group_id: str, leaving: tuple[LeavingMember, ...], waiter: Waiter, step: Step) -> None:
        group = self.tables.groups.get(group_id)
        if group is None:
            unknown = ErrorCode.unknown_member_id
            step.reply(
                waiter,
                LeaveResponse(
                    NONE,
                    tuple(LeftMember(each.member_id, each.group_instance_id, unknown) for each in leaving),
                ),
            )
            return
        sessions.leave(group, leaving, waiter, step)
        self.tables.forget_if_unborn(group)

    @property
    def wake_ms(self) -> int:
        wakes = self.tables.wakes
        return wakes[0].deadline_ms if wakes else NEVER_MS

    @property
    def has_work(self) -> bool:
        return bool(self.removal.pieces)

    def work(self, step: Step) -> None:
        """Remove a piece of what is to be removed."""
        self.removal.work(step)

    def expire(self, step: Step) -> None:
        """Do what groups' deadlines ask for by now: a piece of it, where it is much."""
        tables = self.tables
        wakes = tables.wakes
        looked_at = 0
        while wakes and wakes[0].deadline_ms <= step.now_ms and looked_at < PIECE:
            wake = heappop(wakes)
            group = tables.groups.get(wake.group_id)
            if group is None or group.wake_ms != wake.deadline_ms:
                continue
            looked_at += 1 + len(group.members)
            try:
                sessions.expire(group, step)
                tables.forget_if_unborn(group)
            except Exception:
                log.exception("group %s: what was due is tried again", group.group_id)
                group.try_again_at(step.now_ms + RETRY_MS)

    # -- whole groups

    def describe(self, group_id: str) -> DescribedGroup:
        group = self.tables.groups.get(group_id)
        if group is None:
            return DescribedGroup(group_id, ErrorCode.group_id_not_found, GroupState.DEAD.value)
        stable = group.state is STABLE
        return DescribedGroup(
            group_id=group_id,
            error=NONE,
            state=group.state.value,
            protocol_type=group.protocol_type or "",
            protocol_data=(group.protocol_name or "") if stable else "",
            members=tuple(
                [
                    DescribedMember(
                        member.member_id,
                        member.group_instance_id,
                        member.client_id,
                        member.client_host,
                        member.metadata(group.protocol_name) if stable else b"",
                        member.assignment,
                    )
                    for member in group.members.values()
                ]
            ),
        )

    def groups(self) -> Iterator[ListedGroup]:
        """Those that there are now, as they are when their turn comes."""
        for group in list(self.tables.groups.values()):
            yield ListedGroup(group.group_id, group.protocol_type or "", group.state.value, GROUP_TYPE)
