"""What tests of replication share: a partition with nobody around it but what the test says, and a leader
behind a network in memory, whose answers are the test's."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any
from uuid import UUID

from log_support import open_log
from memory_disk import MemoryDisk

from ottla.env.network import Listener
from ottla.errors import ErrorCode
from ottla.log.files import Background
from ottla.log.settings import LogConfig
from ottla.metadata.image import PartitionState
from ottla.replication.partition import Partition
from ottla.types import TopicPartition
from ottla.wire.apis import FETCH
from ottla.wire.messages import RequestHeader, decode_request, frame_response, read_header

LAG_MS_MAX = 30_000
# What a follower does not ask before then it asks too late: one whose request hangs gives it up after 30 s.
ASKED_S = 20.0
Fields = dict[str, Any]


def topic_id_of(name: str) -> UUID:
    return UUID(int=int.from_bytes(name.encode()))


class Surroundings:
    """A node around a partition: who is alive is what the test puts into ``registered``."""

    def __init__(self) -> None:
        self.lag_ms_max = LAG_MS_MAX
        self.now_ms = 1_000
        self.registered: dict[int, int] = {}
        self.proposed: list[PartitionState] = []

    def monotonic_ms(self) -> int:
        return self.now_ms

    def is_eligible(self, node_id: int, broker_epoch: int) -> bool:
        return self.registered.get(node_id) == broker_epoch

    def is_alive(self, node_id: int) -> bool:
        return node_id in self.registered

    def propose(self, partition: Partition, state: PartitionState) -> None:
        self.proposed.append(state)


def make_partition(
    disk: MemoryDisk,
    state: PartitionState,
    config: LogConfig | None = None,
    around: Surroundings | None = None,
    node_id: int = 1,
    name: str = "t",
    background: Background | None = None,
) -> Partition:
    """A partition in the role that ``state`` gives node ``node_id``."""
    made = Partition(
        TopicPartition(name, 0),
        topic_id_of(name),
        state,
        open_log(disk, config or LogConfig(), background=background),
        node_id=node_id,
        disk=disk,
        cluster=around or Surroundings(),
    )
    made.apply(state)
    return made


class Asked:
    """A request that a leader got."""

    def __init__(self, header: RequestHeader, request: Any) -> None:
        self.header = header
        self.request = request

    @property
    def session(self) -> tuple[int, int]:
        return self.request.session_id, self.request.session_epoch

    @property
    def partitions(self) -> dict[str, Fields]:
        """What is asked of each partition, by its topic's name."""
        assert self.header.api_key == FETCH
        return {
            _name_of(topic.topic_id): {
                "offset": p.fetch_offset,
                "epoch": p.current_leader_epoch,
                "last_epoch": p.last_fetched_epoch,
                "start": p.log_start_offset,
            }
            for topic in self.request.topics
            for p in topic.partitions
        }

    @property
    def forgotten(self) -> list[str]:
        return [_name_of(topic.topic_id) for topic in self.request.forgotten_topics_data]


class Link(asyncio.Transport):
    """A connection to the leader, the follower's end of it."""

    def __init__(self, leader: FakeLeader, protocol: asyncio.BufferedProtocol) -> None:
        super().__init__()
        self.leader = leader
        self.protocol = protocol
        self.open = True
        self._received = b""

    def write(self, data: Any) -> None:
        if not self.open:
            return
        self._received += bytes(data)
        while len(self._received) >= 4 and len(self._received) >= 4 + int.from_bytes(self._received[:4]):
            end = 4 + int.from_bytes(self._received[:4])
            frame, self._received = self._received[4:end], self._received[end:]
            header = read_header(frame)
            request = decode_request(header.api_key, header.api_version, frame, header.body_offset)
            self.leader.requests.put_nowait(Asked(header, request))

    def send(self, data: bytes, piece: int = 1 << 30) -> None:
        """Let bytes arrive at the follower, in pieces of that size."""
        for start in range(0, len(data), piece):
            part = data[start : start + piece]
            while part and self.open:
                buffer = self.protocol.get_buffer(-1)
                count = min(len(part), len(buffer))
                buffer[:count] = part[:count]
                part = part[count:]
                self.protocol.buffer_updated(count)

    def abort(self) -> None:
        self.drop()

    def close(self) -> None:
        self.drop()

    def drop(self) -> None:
        """The connection breaks."""
        if self.open:
            self.open = False
            asyncio.get_running_loop().call_soon(self.protocol.connection_lost, None)


class FakeLeader:
    """A node to follow, and the network that leads to it. ``behaviour``: what becomes of a connection:
    ``accept``, ``refuse``, ``hang`` (no answer), ``hang up`` (at once)."""

    def __init__(self) -> None:
        self.behaviour = "accept"
        self.requests: asyncio.Queue[Asked] = asyncio.Queue()
        self.links: list[Link] = []
        self.attempts = 0

    @property
    def link(self) -> Link:
        return self.links[-1]

    async def connect(self, factory: Callable[[], asyncio.BaseProtocol], host: str, port: int) -> None:
        self.attempts += 1
        await asyncio.sleep(0)
        if self.behaviour == "hang":
            await asyncio.Event().wait()
        if self.behaviour == "refuse":
            raise ConnectionRefusedError("refused")
        protocol = factory()
        assert isinstance(protocol, asyncio.BufferedProtocol)
        link = Link(self, protocol)
        self.links.append(link)
        protocol.connection_made(link)
        if self.behaviour == "hang up":
            link.open = False
            protocol.connection_lost(None)

    async def bind(self, factory: Callable[[], asyncio.BaseProtocol], host: str, port: int) -> Listener:
        raise NotImplementedError

    async def asked(self) -> Asked:
        """The next request."""
        return await asyncio.wait_for(self.requests.get(), ASKED_S)

    async def silence(self, ms: int = 60) -> None:
        """Nothing is asked for a while."""
        await asyncio.sleep(ms / 1000)
        assert self.requests.empty(), self.requests.get_nowait().request

    def answer(self, asked: Asked, *partitions: Fields, session: int = 7, error: int = 0) -> None:
        """Answer a Fetch."""
        fields = {
            "error_code": error,
            "session_id": session,
            "responses": [{"topic_id": topic_id_of(one["name"]), "partitions": [one]} for one in partitions],
            "throttle_time_ms": 0,
        }
        self.reply(asked, fields)

    def reply(self, asked: Asked, fields: Fields) -> None:
        self.link.send(b"".join(bytes(piece) for piece in frame_response(asked.header, fields)))


def answer_of(name: str = "t", records: bytes = b"", high_watermark: int = 0, **more: Any) -> Fields:
    """A leader's answer for one partition."""
    return {
        "name": name,
        "partition_index": 0,
        "error_code": ErrorCode.none,
        "high_watermark": high_watermark,
        "last_stable_offset": high_watermark,
        "log_start_offset": 0,
        "aborted_transactions": None,
        "records": records,
        **more,
    }


def _name_of(topic_id: UUID) -> str:
    return topic_id.bytes.lstrip(b"\0").decode()
