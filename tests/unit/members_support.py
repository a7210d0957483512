"""Several members of one cluster in one process: each with its own image, over one store."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any

from memory_disk import MemoryDisk
from test_metadata_store_contract import ManualClock

from measuring import HANG_S
from ottla.config import BrokerConfig
from ottla.env.network import Listener
from ottla.log.data_dir import RegistrationMark
from ottla.metadata.elections import with_isr
from ottla.metadata.image import ClusterImage, PartitionState
from ottla.metadata.leadership import Leadership
from ottla.metadata.leadership_plan import rules_of
from ottla.metadata.liveness import Liveness
from ottla.metadata.membership import Membership
from ottla.metadata.service import Metadata
from ottla.metadata.sqlite import SqliteStore
from ottla.metadata.store import (
    Compare,
    KeyValue,
    Operation,
    Range,
    StoreError,
    TxnResult,
    WatchBatch,
)
from ottla.metadata.topics import NewTopic

LISTENER = "PLAINTEXT"
SESSION_MS = 9_000


class NodeStore:
    """The store as one node sees it: it may be out of its reach, or answer without being heard."""

    def __init__(self, store: SqliteStore) -> None:
        self.store = store
        self.out_of_reach = False
        # Its watch stands still.
        self.behind = False
        # Transactions to do and then fail, as when the answer is lost.
        self.unheard = 0
        self.txns: list[tuple[Sequence[Compare], Sequence[Operation]]] = []
        self.before_txn: Callable[[], Coroutine[Any, Any, None]] | None = None
        self.held: list[int] = []
        # Whether leases that are held cannot have ended.
        self.lasts = True

    def _check(self) -> None:
        if self.out_of_reach:
            raise StoreError("out of reach")

    async def get(self, key: str) -> KeyValue | None:
        self._check()
        return await self.store.get(key)

    async def range(self, prefix: str) -> Range:
        self._check()
        return await self.store.range(prefix)

    async def txn(self, compares: Sequence[Compare], operations: Sequence[Operation]) -> TxnResult:
        self._check()
        if self.before_txn is not None:
            before, self.before_txn = self.before_txn, None
            await before()
        self.txns.append((compares, operations))
        done = await self.store.txn(compares, operations)
        if self.unheard and operations:
            self.unheard -= 1
            raise StoreError("no answer")
        return done

    async def watch(self, prefix: str, from_revision: int) -> AsyncIterator[WatchBatch]:
        async for batch in self.store.watch(prefix, from_revision):
            while self.out_of_reach or self.behind:
                await asyncio.sleep(0.01)
            yield batch

    async def compact(self, revision: int) -> None:
        await self.store.compact(revision)

    async def lease_grant(self, ttl_ms: int) -> int:
        self._check()
        return await self.store.lease_grant(ttl_ms)

    async def lease_keep_alive(self, lease: int) -> None:
        self._check()
        await self.store.lease_keep_alive(lease)

    async def lease_hold(self, lease: int, lost: Callable[[], None]) -> None:
        self._check()
        await self.store.lease_hold(lease, lost)
        self.held.append(lease)

    @property
    def silent_since_s(self) -> float | None:
        return self.store.silent_since_s

    def lease_lasts(self, lease: int) -> bool:
        return self.lasts and self.store.lease_lasts(lease)

    async def lease_release(self, lease: int) -> None:
        await self.store.lease_release(lease)

    async def lease_revoke(self, lease: int) -> None:
        self._check()
        await self.store.lease_revoke(lease)

    async def close(self) -> None:
        for lease in self.held:
            await self.store.lease_release(lease)


class SilentTransport(asyncio.Transport):
    def close(self) -> None:
        self.closed = True


class SilentNetwork:
    """Machines that take connections, refuse them or do not answer, and say nothing."""

    def __init__(self) -> None:
        self.listening: dict[str, bool] = {}
        self.cut_off: dict[str, bool] = {}
        self.lines: dict[str, list[asyncio.BaseProtocol]] = {}
        self.attempts: list[str] = []

    async def bind(self, factory: Callable[[], asyncio.BaseProtocol], host: str, port: int) -> Listener:
        raise NotImplementedError

    async def connect(self, factory: Callable[[], asyncio.BaseProtocol], host: str, port: int) -> None:
        self.attempts.append(host)
        if host in self.cut_off:
            raise OSError(113, "No route to host")
        if host not in self.listening:
            raise ConnectionRefusedError(111, "Connection refused")
        line = factory()
        self.lines.setdefault(host, []).append(line)
        line.connection_made(SilentTransport())

    def listen(self, host: str) -> None:
        self.listening[host] = True

    def drop(self, host: str) -> None:
        """End all connections to a machine."""
        for line in self.lines.pop(host, []):
            assert isinstance(line, asyncio.Protocol | asyncio.BufferedProtocol)
            line.connection_lost(None)

    def end(self, host: str) -> None:
        """The process on a machine ends."""
        self.listening.pop(host, None)
        self.drop(host)


class Member:
    """One run of a node. Its disk outlives it."""

    def __init__(
        self, store: SqliteStore, node_id: int, disk: MemoryDisk, properties: Mapping[str, str]
    ) -> None:
        self.node_id = node_id
        self.disk = disk
        self.config = BrokerConfig({"node.id": str(node_id)} | dict(properties))
        self.store = NodeStore(store)
        self.metadata = Metadata(self.store, self.config, node_id)
        self.mark = RegistrationMark(disk, "/data")
        self.membership = Membership(self.store, self.metadata, self.config, disk, self.mark, node_id)
        self.leadership = Leadership(self.store, self.metadata, self.config, self.membership)
        self.liveness: Liveness | None = None

    @property
    def image(self) -> ClusterImage:
        return self.metadata.image

    @property
    def endpoints(self) -> dict[str, tuple[str, int]]:
        return {LISTENER: (f"host{self.node_id}", 9000 + self.node_id)}

    async def start(self, *, leads: bool = True) -> None:
        await self.metadata.start()
        await self.membership.join(self.endpoints, None)
        if leads:
            self.leadership.start()

    def watch(self, network: SilentNetwork) -> None:
        """Look after other nodes' processes."""
        network.listen(f"host{self.node_id}")
        self.liveness = Liveness(self.store, self.metadata, network, self.node_id, LISTENER)
        self.liveness.start()

    async def stop(self) -> None:
        await self.membership.leave()
        if self.liveness is not None:
            await self.liveness.close()
        await self.leadership.close()
        await self.membership.mark_clean()
        await self.metadata.close()

    async def kill(self) -> None:
        if self.liveness is not None:
            await self.liveness.close()
        await self.leadership.close()
        await self.membership.close()
        await self.metadata.close()
        await self.store.close()


class Members:
    """A cluster. ``start`` a node, again after it was stopped or killed."""

    def __init__(self, store: SqliteStore, clock: ManualClock, properties: Mapping[str, str]) -> None:
        self.store = store
        self.clock = clock
        self.properties = properties
        self.disks: dict[int, MemoryDisk] = {}
        self.nodes: dict[int, Member] = {}

    def make(self, node_id: int) -> Member:
        disk = self.disks.setdefault(node_id, MemoryDisk())
        disk.make_dirs("/data")
        made = self.nodes[node_id] = Member(self.store, node_id, disk, self.properties)
        return made

    async def start(self, *node_ids: int, leads: bool = True) -> None:
        for node_id in node_ids:
            await self.make(node_id).start(leads=leads)

    async def kill(self, node_id: int, *, expire: bool = True) -> None:
        await self.nodes.pop(node_id).kill()
        if expire:
            self.expire()

    async def stop(self, node_id: int) -> None:
        await self.nodes.pop(node_id).stop()

    def expire(self) -> None:
        """Have the leases end that nobody holds."""
        # Not at once: a store whose clock jumps has stood still.
        for _ in range(0, SESSION_MS + 1, 500):
            self.clock.advance(500)

    def wipe(self, node_id: int) -> None:
        self.disks[node_id] = MemoryDisk()

    def any(self) -> Member:
        return next(iter(self.nodes.values()))

    async def create(self, name: str, *replicas: Sequence[int], **configs: str) -> None:
        new = NewTopic(
            name,
            assignments=list(enumerate(replicas)),
            configs={key.replace("_", "."): value for key, value in configs.items()},
        )
        (result,) = await self.any().metadata.controller.create_topics([new])
        assert result.error is None, result.error

    def state(self, name: str = "t", index: int = 0) -> PartitionState:
        return self.any().image.topics[name].partitions[index]

    async def until(self, condition: Callable[[], object]) -> None:
        """Wait for a condition on the image of any node."""
        deadline = asyncio.get_running_loop().time() + HANG_S
        while not condition():
            assert asyncio.get_running_loop().time() < deadline, self.any().image
            await asyncio.sleep(0.002)

    async def until_state(
        self, leader: int, isr: Sequence[int], elr: Sequence[int] = (), name: str = "t", index: int = 0
    ) -> PartitionState:
        wanted = (leader, tuple(isr), tuple(elr))

        def found() -> bool:
            state = self.state(name, index)
            return (state.leader, state.isr, state.elr) == wanted

        try:
            await self.until(found)
        except AssertionError:
            raise AssertionError(f"{self.state(name, index)} is not {wanted}") from None
        return self.state(name, index)

    async def set_isr(self, *isr: int, name: str = "t", index: int = 0) -> None:
        """As a leader would, by its followers' progress."""
        node = self.any()
        topic = node.image.topics[name]
        state = topic.partitions[index]
        made = with_isr(state, isr, rules_of(node.config)(topic).min_isr)
        assert await node.metadata.controller.change_partition(topic, index, state, made)

    async def close(self) -> None:
        for node_id in list(self.nodes):
            await self.kill(node_id, expire=False)
        await self.store.close()


def run(
    path: Path,
    body: Callable[[Members], Coroutine[Any, Any, None]],
    properties: Mapping[str, str] | None = None,
) -> None:
    async def main() -> None:
        clock = ManualClock()
        store = await SqliteStore.open(str(path / "metadata.db"), clock)
        members = Members(store, clock, properties or {})
        try:
            await asyncio.wait_for(body(members), 60)
        finally:
            await members.close()

    asyncio.run(main())
