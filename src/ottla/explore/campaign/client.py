"""A client of the cluster in Kafka's protocol, over simulated connections: what producers, consumers and the
administrator share. It believes no metadata that is older than what it has, as Kafka's clients do."""

from __future__ import annotations

import asyncio
import struct
from collections import deque
from collections.abc import Callable, Mapping
from random import Random
from typing import Any

from ottla.errors import ErrorCode
from ottla.explore.campaign.model import Model
from ottla.explore.world.loop import Process, VirtualLoop
from ottla.explore.world.network import Fabric, SimNetwork
from ottla.types import TopicPartition
from ottla.wire.apis import BY_NAME
from ottla.wire.messages import (
    MalformedMessage,
    decode_response,
    encode_request,
    response_header_flexible,
)
from ottla.wire.messages import _request as request_codec

# Versions that are spoken, at most: later ones name topics by id.
VERSIONS = {
    "Produce": 12,
    "Fetch": 12,
    "Metadata": 12,
    "ListOffsets": 8,
    "FindCoordinator": 4,
    "JoinGroup": 9,
    "SyncGroup": 5,
    "Heartbeat": 4,
    "OffsetCommit": 8,
    "OffsetFetch": 8,
    "CreateTopics": 7,
    "InitProducerId": 5,
    "EndTxn": 5,
    "TxnOffsetCommit": 5,
    "AddPartitionsToTxn": 3,
    "AddOffsetsToTxn": 4,
    "UpdateFeatures": 1,
    "DeleteRecords": 2,
    "LeaveGroup": 5,
    "IncrementalAlterConfigs": 1,
    "CreatePartitions": 3,
    "ElectLeaders": 2,
    "AlterPartitionReassignments": 0,
    "CreateAcls": 3,
    "DeleteAcls": 3,
    "AlterClientQuotas": 1,
}
REQUEST_TIMEOUT_MS = 3_000
CONNECT_TIMEOUT_S = 2.0
CLOSED = "the connection has ended"

NONE = int(ErrorCode.none)


class Disconnected(Exception):
    """What became of the request is not known."""


class Connection(asyncio.Protocol):
    """Requests out, responses in the order of the requests."""

    def __init__(self, loop: VirtualLoop, client_id: str) -> None:
        self.transport: Any = None
        self.closed = False
        self._loop = loop
        self._client_id = client_id.encode()
        self._correlation = 0
        self._buffer = bytearray()
        self._waiting: deque[tuple[int, int, int, asyncio.Future[Any], Any]] = deque()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        waiting, self._waiting = self._waiting, deque()
        for *_, future, timer in waiting:
            timer.cancel()
            if not future.done():
                future.set_exception(Disconnected(CLOSED))
                # Whoever waited may have gone.
                future.exception()

    def data_received(self, data: bytes) -> None:
        buffer = self._buffer
        buffer += data
        while len(buffer) >= 4:
            size = int.from_bytes(buffer[:4])
            if len(buffer) < 4 + size:
                return
            frame = bytes(buffer[4 : 4 + size])
            del buffer[: 4 + size]
            self._answer(frame)

    def _answer(self, frame: bytes) -> None:
        correlation, api_key, version, future, timer = self._waiting.popleft()
        timer.cancel()
        if int.from_bytes(frame[:4]) != correlation:
            raise MalformedMessage("an answer to another request")
        offset = 5 if response_header_flexible(api_key, version) else 4
        if not future.done():
            future.set_result(decode_response(api_key, version, frame, offset))

    def send(self, api: str, version: int, fields: dict[str, Any], timeout_ms: int) -> asyncio.Future[Any]:
        """A future of the response. Disconnected where the connection ends first; it is ended after the
        timeout, as Kafka's clients do."""
        future: asyncio.Future[Any] = self._loop.create_future()
        if self.closed:
            future.set_exception(Disconnected(CLOSED))
            future.exception()
            return future
        key = BY_NAME[api].key
        self._correlation += 1
        head = struct.pack(">hhih", key, version, self._correlation, len(self._client_id)) + self._client_id
        if request_codec(key, version).flexible_header:
            head += b"\0"
        body = encode_request(key, version, fields)
        timer = self._loop.call_later(timeout_ms / 1000, self.close)
        self._waiting.append((self._correlation, key, version, future, timer))
        self.transport.write(struct.pack(">i", len(head) + len(body)) + head + body)
        return future

    def close(self) -> None:
        if not self.closed:
            self.transport.abort()


class Client:
    """One client process. Its coroutines run until they are told to stop."""

    # Where it speaks others than ``VERSIONS``.
    versions: Mapping[str, int] = {}

    def __init__(
        self, name: str, process: Process, fabric: Fabric, bootstrap: list[tuple[str, int]], rng: Random,
        model: Model,
    ) -> None:  # fmt: skip
        self.name = name
        self.process = process
        self.model = model
        self.rng = rng
        self.loop = fabric.loop
        self.trace = fabric.trace
        # Set: finish what is under way and end.
        self.stopping = False
        self.leaders: dict[TopicPartition, tuple[int, int]] = {}
        self.partition_counts: dict[str, int] = {}
        self._network: SimNetwork = fabric.network(process)
        self._bootstrap = bootstrap
        self._brokers: dict[int, tuple[str, int]] = {}
        self._connections: dict[tuple[str, int], Connection] = {}
        self._refreshing: asyncio.Task[None] | None = None

    # ------------------------------------------------------------ connections

    async def connect(self, address: tuple[str, int]) -> Connection:
        """A connection to an address, the one that there is or a new one. Disconnected: there is none."""
        found = self._connections.get(address)
        if found is not None and not found.closed:
            return found
        made = Connection(self.loop, self.name)
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                await self._network.connect(lambda: made, *address)
        except (OSError, TimeoutError) as error:
            raise Disconnected(str(error)) from error
        self._connections[address] = made
        return made

    async def node(self, node_id: int) -> Connection:
        """A connection to a node by its id."""
        address = self._brokers.get(node_id)
        if address is None:
            raise Disconnected(f"node {node_id} is not known")
        return await self.connect(address)

    async def anyone(self) -> Connection:
        """A connection to whichever node can be reached."""
        addresses = self._bootstrap
        if self._brokers and self.rng.random() < 0.7:
            addresses = list(self._brokers.values())
        return await self.connect(self.rng.choice(addresses))

    async def pause(self, least_ms: int = 20, most_ms: int = 150) -> None:
        await asyncio.sleep(self.rng.uniform(least_ms, most_ms) / 1000)

    async def ask(
        self, connection: Connection, api: str, fields: dict[str, Any], timeout_ms: int = REQUEST_TIMEOUT_MS
    ) -> Any:
        """One request, one response. Disconnected."""
        return await self.send(connection, api, fields, timeout_ms)

    def send(
        self, connection: Connection, api: str, fields: dict[str, Any], timeout_ms: int = REQUEST_TIMEOUT_MS
    ) -> asyncio.Future[Any]:
        """As ``Connection.send``, in this client's version."""
        version = self.versions.get(api, min(VERSIONS[api], BY_NAME[api].version_max))
        return connection.send(api, version, fields, timeout_ms)

    # ------------------------------------------------------------ metadata

    async def refresh(self) -> None:
        """Look again who leads what, one look at a time for all who ask."""
        if self._refreshing is None or self._refreshing.done():
            self._refreshing = asyncio.create_task(self._refresh())
        await asyncio.shield(self._refreshing)

    async def _refresh(self) -> None:
        try:
            connection = await self.anyone()
            response = await self.ask(
                connection,
                "Metadata",
                {
                    "topics": None,
                    "allow_auto_topic_creation": False,
                    "include_topic_authorized_operations": False,
                },
            )
        except Disconnected:
            await self.pause()
            return
        if not response.brokers:
            return
        self._brokers = {broker.node_id: (broker.host, broker.port) for broker in response.brokers}
        for topic in response.topics:
            if topic.error_code == NONE and topic.name is not None:
                self.partition_counts[topic.name] = max(
                    len(topic.partitions), self.partition_counts.get(topic.name, 0)
                )
                for partition in topic.partitions:
                    self._learn(TopicPartition(topic.name, partition.partition_index), partition)

    def _learn(self, where: TopicPartition, partition: Any) -> None:
        known = self.leaders.get(where)
        if known is None or partition.leader_epoch >= known[1]:
            self.leaders[where] = (partition.leader_id, partition.leader_epoch)

    async def leader(self, where: TopicPartition) -> tuple[Connection, int]:
        """A connection to a partition's leader, and its epoch. Disconnected where there is none now."""
        leader_id, epoch = self.leaders.get(where, (-1, -1))
        if leader_id < 0:
            await self.refresh()
            leader_id, epoch = self.leaders.get(where, (-1, -1))
            if leader_id < 0:
                raise Disconnected(f"{where} has no leader")
        return await self.node(leader_id), epoch

    async def until(self, done: Callable[[], bool], most_s: float = 120) -> bool:
        """Wait for a condition; whether it came."""
        end = self.loop.time() + most_s
        while not done() and self.loop.time() < end:
            await asyncio.sleep(0.05)
        return done()
