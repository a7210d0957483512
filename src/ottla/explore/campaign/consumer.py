"""Consumers: one reads whole partitions by itself, others share them as members of a group."""

from __future__ import annotations

import asyncio
import struct
from typing import Any

from ottla.errors import ErrorCode
from ottla.explore.campaign.client import NONE, Client, Connection, Disconnected
from ottla.types import TopicPartition
from ottla.wire.records import iter_batches, iter_records

MAX_WAIT_MS = 300
MAX_BYTES = 200_000
OUT_OF_RANGE = int(ErrorCode.offset_out_of_range)
EARLIEST, LATEST = -2, -1

SESSION_TIMEOUT_MS = 2_000
REBALANCE_TIMEOUT_MS = 3_000
HEARTBEAT_INTERVAL_S = 0.4
COMMIT_INTERVAL_S = 0.5

MEMBER_ID_REQUIRED = int(ErrorCode.member_id_required)
UNKNOWN_MEMBER = int(ErrorCode.unknown_member_id)
REBALANCE = int(ErrorCode.rebalance_in_progress)
# The coordinator is elsewhere, or not there yet.
LOOK_AGAIN = frozenset(
    int(code)
    for code in (
        ErrorCode.not_coordinator,
        ErrorCode.coordinator_not_available,
        ErrorCode.coordinator_load_in_progress,
    )
)


class Reader(Client):
    """Fetches partitions from their leaders; what it is given goes to the model."""

    # 0: read_uncommitted, 1: read_committed.
    isolation_level = 0

    def __init__(self, *args: Any, topics: list[str], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.topics = topics
        self.positions: dict[TopicPartition, int] = {}

    async def fetch_some(self, mine: list[TopicPartition]) -> None:
        """One fetch from each leader of these partitions."""
        by_leader: dict[int, list[TopicPartition]] = {}
        for where in mine:
            leader_id, _ = self.leaders.get(where, (-1, -1))
            by_leader.setdefault(leader_id, []).append(where)
        if -1 in by_leader:
            await self.refresh()
            await self.pause()
            del by_leader[-1]
        await asyncio.gather(*(self._fetch(leader, wheres) for leader, wheres in by_leader.items()))

    async def _fetch(self, leader_id: int, wheres: list[TopicPartition]) -> None:
        for where in wheres:
            if where not in self.positions and not await self._reset(where, EARLIEST):
                await self._recover()
                return
        try:
            connection = await self.node(leader_id)
            response = await self.ask(connection, "Fetch", self._request(wheres))
        except Disconnected:
            await self._recover()
            return
        troubled = response.error_code != NONE
        for topic in response.responses:
            for answer in topic.partitions:
                where = TopicPartition(topic.topic, answer.partition_index)
                if answer.error_code == NONE:
                    self._take_answer(where, answer)
                elif answer.error_code == OUT_OF_RANGE:
                    self.trace(self.name, f"out of range {where} {self.positions[where]}")
                    self.positions.pop(where)
                else:
                    troubled = True
        if troubled:
            await self._recover()

    async def _recover(self) -> None:
        await self.pause()
        await self.refresh()

    def _request(self, wheres: list[TopicPartition]) -> dict[str, Any]:
        topics: dict[str, list[dict[str, Any]]] = {}
        for where in wheres:
            topics.setdefault(where.topic, []).append(
                {
                    "partition": where.partition,
                    "current_leader_epoch": self.leaders[where][1],
                    "fetch_offset": self.positions[where],
                    "partition_max_bytes": MAX_BYTES,
                }
            )
        return {
            "max_wait_ms": MAX_WAIT_MS,
            "min_bytes": 1,
            "max_bytes": MAX_BYTES,
            "isolation_level": self.isolation_level,
            "topics": [{"topic": name, "partitions": asked} for name, asked in topics.items()],
            "forgotten_topics_data": [],
        }

    def _take_answer(self, where: TopicPartition, answer: Any) -> None:
        """What a Fetch says of a partition, without an error."""
        self._take(where, answer.records or b"")

    def _take(self, where: TopicPartition, data: Any) -> None:
        position = self.positions[where]
        for _, batch in iter_batches(data):
            for record in iter_records(batch):
                if record.offset < position:
                    continue
                if record.offset > position:
                    self.model.gap(where, position, record.offset, self.name)
                self.model.saw(where, record.offset, record.value or b"", self.name)
                position = record.offset + 1
        self.positions[where] = position

    async def _reset(self, where: TopicPartition, timestamp: int) -> bool:
        """Begin where the partition begins."""
        offset = await self.list_offset(where, timestamp)
        if offset is None:
            return False
        self.positions[where] = offset
        return True

    async def list_offset(self, where: TopicPartition, timestamp: int) -> int | None:
        """The partition's first (EARLIEST) or next (LATEST) offset, None where nobody can say now."""
        try:
            connection, epoch = await self.leader(where)
            asked = {
                "partition_index": where.partition,
                "current_leader_epoch": epoch,
                "timestamp": timestamp,
            }
            response = await self.ask(
                connection,
                "ListOffsets",
                {
                    "replica_id": -1,
                    "isolation_level": self.isolation_level,
                    "topics": [{"name": where.topic, "partitions": [asked]}],
                },
            )
        except Disconnected:
            return None
        answer = response.topics[0].partitions[0]
        return answer.offset if answer.error_code == NONE else None

    def all_partitions(self) -> list[TopicPartition]:
        return [
            TopicPartition(topic, index)
            for topic in self.topics
            for index in range(self.partition_counts.get(topic, 0))
        ]


class Consumer(Reader):
    """Reads all partitions of its topics, again and again from the start now and then."""

    async def run(self) -> None:
        while not self.stopping:
            wheres = self.all_partitions()
            if not wheres:
                await self.refresh()
                await self.pause()
                continue
            await self.fetch_some(wheres)
            if self.rng.random() < 0.01:
                self.positions.pop(self.rng.choice(wheres), None)


class GroupConsumer(Reader):
    """A member of a group, by the classic protocol. It may leave and join again as another."""

    def __init__(self, *args: Any, group: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.group = group
        self.generation = -1
        self._member_id = ""
        self._coordinator: tuple[str, int] | None = None
        self._mine: list[TopicPartition] = []
        self._joined = False
        self._heartbeat_at = self._commit_at = 0.0

    async def run(self) -> None:
        while not self.partition_counts.keys() >= set(self.topics):
            await self.refresh()
            await self.pause()
        while not self.stopping:
            try:
                if self._coordinator is None:
                    await self._find()
                elif not self._joined:
                    await self._join()
                else:
                    await self._work()
            except Disconnected:
                self._coordinator = None
                await self.pause()
        await self._leave()

    async def _find(self) -> None:
        response = await self.ask(
            await self.anyone(), "FindCoordinator", {"key_type": 0, "coordinator_keys": [self.group]}
        )
        found = response.coordinators[0]
        if found.error_code == NONE:
            self._coordinator = (found.host, found.port)
        else:
            await self.pause(50, 300)

    async def _ask(self, api: str, fields: dict[str, Any], timeout_ms: int = 3_000) -> Any:
        if self._coordinator is None:
            raise Disconnected("no coordinator")
        connection: Connection = await self.connect(self._coordinator)
        return await self.ask(connection, api, {"group_id": self.group, **fields}, timeout_ms)

    async def _failed(self, code: int) -> None:
        """What an error means for membership."""
        self.trace(self.name, f"group: {ErrorCode(code).name}")
        if code in LOOK_AGAIN:
            self._coordinator = None
        elif code == UNKNOWN_MEMBER:
            self._member_id = ""
            self._joined = False
        else:
            self._joined = False
        await self.pause()

    async def _join(self) -> None:
        response = await self._ask(
            "JoinGroup",
            {
                "session_timeout_ms": SESSION_TIMEOUT_MS,
                "rebalance_timeout_ms": REBALANCE_TIMEOUT_MS,
                "member_id": self._member_id,
                "protocol_type": "consumer",
                "protocols": [{"name": "range", "metadata": _subscription(self.topics)}],
            },
            REBALANCE_TIMEOUT_MS + 3_000,
        )
        if response.error_code == MEMBER_ID_REQUIRED:
            self._member_id = response.member_id
            return
        if response.error_code != NONE:
            await self._failed(response.error_code)
            return
        self._member_id = response.member_id
        await self._sync(response)

    async def _sync(self, joined: Any) -> None:
        assignments = []
        if joined.leader == joined.member_id:
            assignments = self._assign([member.member_id for member in joined.members])
        response = await self._ask(
            "SyncGroup",
            {
                "generation_id": joined.generation_id,
                "member_id": self._member_id,
                "protocol_type": "consumer",
                "protocol_name": "range",
                "assignments": assignments,
            },
            REBALANCE_TIMEOUT_MS + 3_000,
        )
        if response.error_code != NONE:
            await self._failed(response.error_code)
            return
        mine = _partitions_of(response.assignment)
        self.trace(self.name, f"group: generation {joined.generation_id} {len(mine)} partitions")
        self.model.assigned(self.group, joined.generation_id, self._member_id, mine)
        self.generation, self._mine, self._joined = joined.generation_id, mine, True
        self.positions.clear()
        self._heartbeat_at = self.loop.time() + HEARTBEAT_INTERVAL_S
        self._commit_at = self.loop.time() + COMMIT_INTERVAL_S
        if mine:
            await self._fetch_committed()

    def _assign(self, members: list[str]) -> list[dict[str, Any]]:
        wheres = self.all_partitions()
        shares: dict[str, list[TopicPartition]] = {member: [] for member in members}
        for index, where in enumerate(wheres):
            shares[members[index % len(members)]].append(where)
        return [{"member_id": member, "assignment": _assignment(mine)} for member, mine in shares.items()]

    async def _fetch_committed(self) -> None:
        """Where to go on; partitions without a commit begin at their start."""
        known = self.model.group(self.group).committed
        least = {where: known.get(where, -1) for where in self._mine}
        topics = [
            {"name": topic, "partition_indexes": [w.partition for w in self._mine if w.topic == topic]}
            for topic in self.topics
        ]
        if self._coordinator is None:
            raise Disconnected("no coordinator")
        connection = await self.connect(self._coordinator)
        response = await self.ask(
            connection, "OffsetFetch", {"groups": [{"group_id": self.group, "topics": topics}]}
        )
        group = response.groups[0]
        if group.error_code != NONE:
            await self._failed(group.error_code)
            self._joined = False
            return
        for topic in group.topics:
            for answer in topic.partitions:
                where = TopicPartition(topic.name, answer.partition_index)
                if answer.error_code == NONE:
                    self.model.fetched_commit(self.group, where, least[where], answer.committed_offset)
                    if answer.committed_offset >= 0:
                        self.positions[where] = answer.committed_offset

    async def _work(self) -> None:
        """Read for a while, commit, and say that one lives."""
        if self._mine:
            await self.fetch_some(self._mine)
        else:
            await self.pause(100, 300)
        now = self.loop.time()
        if now >= self._commit_at:
            self._commit_at = now + COMMIT_INTERVAL_S
            await self._commit()
        if now >= self._heartbeat_at and self._joined:
            self._heartbeat_at = now + HEARTBEAT_INTERVAL_S
            response = await self._ask(
                "Heartbeat", {"generation_id": self.generation, "member_id": self._member_id}
            )
            if response.error_code != NONE:
                await self._failed(response.error_code)
        if self.rng.random() < 0.002:
            await self._leave()

    async def _commit(self) -> None:
        offsets = {where: self.positions[where] for where in self._mine if where in self.positions}
        if not offsets:
            return
        topics = [
            {
                "name": topic,
                "partitions": [
                    {"partition_index": w.partition, "committed_offset": offset, "committed_metadata": ""}
                    for w, offset in offsets.items()
                    if w.topic == topic
                ],
            }
            for topic in self.topics
        ]
        generation = self.generation
        newest = self.model.group(self.group).generation
        self.model.committing(self.group, offsets)
        response = await self._ask(
            "OffsetCommit",
            {
                "generation_id_or_member_epoch": generation,
                "member_id": self._member_id,
                "topics": topics,
            },
        )
        code = NONE
        for topic in response.topics:
            for answer in topic.partitions:
                where = TopicPartition(topic.name, answer.partition_index)
                if answer.error_code == NONE:
                    self.model.committed(self.group, generation, newest, {where: offsets[where]})
                else:
                    code = answer.error_code
                    if code != int(ErrorCode.request_timed_out):
                        self.model.not_committed(self.group, {where: offsets[where]})
        if code != NONE:
            await self._failed(code)

    async def _leave(self) -> None:
        """Go; whoever runs on comes back as a new member."""
        member, self._member_id, self._joined = self._member_id, "", False
        if member:
            try:
                await self._ask("LeaveGroup", {"members": [{"member_id": member}]})
            except Disconnected:
                self._coordinator = None


# The consumer protocol's messages (ConsumerProtocolSubscription, ConsumerProtocolAssignment), version 0.


def _subscription(topics: list[str]) -> bytes:
    return struct.pack(">hi", 0, len(topics)) + b"".join(map(_string, topics)) + struct.pack(">i", -1)


def _assignment(mine: list[TopicPartition]) -> bytes:
    topics: dict[str, list[int]] = {}
    for where in mine:
        topics.setdefault(where.topic, []).append(where.partition)
    out = struct.pack(">hi", 0, len(topics))
    for topic, indexes in topics.items():
        out += _string(topic) + struct.pack(f">i{len(indexes)}i", len(indexes), *indexes)
    return out + struct.pack(">i", -1)


def _partitions_of(assignment: bytes) -> list[TopicPartition]:
    if not len(assignment):
        return []
    data = bytes(assignment)
    (count,) = struct.unpack_from(">i", data, 2)
    position, found = 6, []
    for _ in range(count):
        (size,) = struct.unpack_from(">h", data, position)
        name = data[position + 2 : position + 2 + size].decode()
        position += 2 + size
        (partitions,) = struct.unpack_from(">i", data, position)
        indexes = struct.unpack_from(f">{partitions}i", data, position + 4)
        position += 4 + 4 * partitions
        found += [TopicPartition(name, index) for index in indexes]
    return found


def _string(text: str) -> bytes:
    data = text.encode()
    return struct.pack(">h", len(data)) + data
