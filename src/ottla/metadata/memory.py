"""The metadata store in memory: one server that all nodes of a process share, and each node's handle on it.

Clusters for tests and simulated ones have it; nothing of it outlives the process. The server keeps the
contract of ``ottla.metadata.store``. Faults are on the way to it: an answer that is lost, so that nobody
knows whether a transaction took effect, a server that cannot be reached, a watch that stands still and goes
on later.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Protocol, TypeVar

from ottla.env.clock import Clock, Timer
from ottla.metadata.store import (
    CompactedError,
    Compare,
    Delete,
    Event,
    KeyValue,
    LeaseError,
    Operation,
    Put,
    Range,
    StoreError,
    TxnResult,
    WatchBatch,
    check_txn,
)

T = TypeVar("T")

# Revisions that a watch is given at once.
WATCH_REVISIONS_MAX = 100


class Lease:
    """A lease of the server: it ends at its time, and its keys with it."""

    def __init__(self, ttl_ms: int) -> None:
        self.ttl_ms = ttl_ms
        self.ends_ms = 0
        self.keys: dict[str, None] = {}
        self.timer: Timer | None = None


class MemoryServer:
    """The one store of a cluster: keys, their history, leases."""

    def __init__(self, clock: Clock) -> None:
        self.keys: dict[str, KeyValue] = {}
        self.revision = 0
        self.compacted = 0
        self.leases: dict[int, Lease] = {}
        self.clock = clock
        # By revision, from the first that is kept.
        self._history: list[tuple[int, tuple[Event, ...]]] = []
        self._last_lease = 0
        self._watchers: dict[asyncio.Future[None], None] = {}
        # Told of each change; for faults that strike when something is about to happen.
        self.on_change: Callable[[list[Event]], None] | None = None
        # The same, for who only looks on.
        self.observer: Callable[[list[Event]], None] | None = None

    # ------------------------------------------------------------ keys

    def range(self, prefix: str) -> Range:
        found = [self.keys[key] for key in sorted(self.keys) if key.startswith(prefix)]
        return Range(self.revision, found)

    def txn(self, compares: Sequence[Compare], operations: Sequence[Operation]) -> TxnResult:
        if not all(self._holds(compare) for compare in compares):
            return TxnResult(False, self.revision)
        for operation in operations:
            if isinstance(operation, Put) and operation.lease and operation.lease not in self.leases:
                raise LeaseError(f"there is no lease {operation.lease}")
        revision = self.revision + 1
        events: list[Event] = []
        for operation in operations:
            if isinstance(operation, Put):
                self._put(operation, revision)
                events.append(Event(operation.key, operation.value, revision))
            else:
                for key in self._named(operation):
                    self._remove(key)
                    events.append(Event(key, None, revision))
        if events:
            self._commit(revision, events)
        return TxnResult(True, self.revision)

    def _holds(self, compare: Compare) -> bool:
        item = self.keys.get(compare.key)
        if compare.mod_revision is not None and compare.mod_revision != (item.mod_revision if item else 0):
            return False
        return compare.value is None or (item is not None and item.value == compare.value)

    def _put(self, put: Put, revision: int) -> None:
        old = self.keys.get(put.key)
        if old is not None and old.lease != put.lease and old.lease in self.leases:
            self.leases[old.lease].keys.pop(put.key, None)
        if put.lease:
            self.leases[put.lease].keys[put.key] = None
        created, version = (old.create_revision, old.version + 1) if old is not None else (revision, 1)
        self.keys[put.key] = KeyValue(put.key, put.value, created, revision, version, put.lease)

    def _named(self, delete: Delete) -> list[str]:
        if not delete.prefix:
            return [delete.key] if delete.key in self.keys else []
        return sorted(key for key in self.keys if key.startswith(delete.key))

    def _remove(self, key: str) -> None:
        item = self.keys.pop(key)
        if item.lease in self.leases:
            self.leases[item.lease].keys.pop(key, None)

    def _commit(self, revision: int, events: list[Event]) -> None:
        self.revision = revision
        self._history.append((revision, tuple(events)))
        self._wake()
        if self.observer is not None:
            self.observer(events)
        if self.on_change is not None:
            self.on_change(events)

    # ------------------------------------------------------------ history

    def since(self, prefix: str, revision: int) -> WatchBatch | None:
        """What happened from ``revision`` on, if anything did. CompactedError where that is forgotten."""
        if revision <= self.compacted:
            raise CompactedError(self.compacted)
        first = bisect_left(self._history, (revision,))
        found = self._history[first : first + WATCH_REVISIONS_MAX]
        if not found:
            return None
        events = tuple(event for _, made in found for event in made if event.key.startswith(prefix))
        return WatchBatch(found[-1][0], events)

    def compact(self, revision: int) -> None:
        self.compacted = max(self.compacted, min(revision, self.revision))
        del self._history[: bisect_left(self._history, (self.compacted + 1,))]

    def changed(self) -> asyncio.Future[None]:
        """Done at the next change; for whoever has seen all so far."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._watchers[future] = None
        return future

    def forget(self, future: asyncio.Future[None]) -> None:
        self._watchers.pop(future, None)

    def _wake(self) -> None:
        watchers, self._watchers = self._watchers, {}
        for future in watchers:
            if not future.done():
                future.set_result(None)

    # ------------------------------------------------------------ leases

    def grant(self, ttl_ms: int) -> int:
        self._last_lease += 1
        self.leases[self._last_lease] = Lease(ttl_ms)
        self.keep_alive(self._last_lease)
        return self._last_lease

    def keep_alive(self, lease_id: int) -> int:
        """The lease has its whole time again, in milliseconds."""
        lease = self._lease(lease_id)
        lease.ends_ms = self.clock.monotonic_ms() + lease.ttl_ms
        if lease.timer is None:
            self._arm(lease_id, lease)
        return lease.ttl_ms

    def _arm(self, lease_id: int, lease: Lease) -> None:
        left_ms = lease.ends_ms - self.clock.monotonic_ms()
        lease.timer = self.clock.call_later(left_ms, lambda: self._expire(lease_id))

    def _expire(self, lease_id: int) -> None:
        lease = self.leases.get(lease_id)
        if lease is None:
            return
        lease.timer = None
        if lease.ends_ms > self.clock.monotonic_ms():
            self._arm(lease_id, lease)
        else:
            self.revoke(lease_id)

    def revoke(self, lease_id: int) -> None:
        """End a lease; its keys go in one transaction."""
        lease = self._lease(lease_id)
        del self.leases[lease_id]
        if lease.timer is not None:
            lease.timer.cancel()
        if lease.keys:
            revision = self.revision + 1
            events = []
            for key in sorted(lease.keys):
                del self.keys[key]
                events.append(Event(key, None, revision))
            self._commit(revision, events)

    def _lease(self, lease_id: int) -> Lease:
        if lease_id not in self.leases:
            raise LeaseError(f"there is no lease {lease_id}")
        return self.leases[lease_id]


class Way(Protocol):
    """The way between a node and the server."""

    async def call(self, work: Callable[[], T]) -> T:
        """Have the server do something, and return what it returned. StoreError where it cannot be asked,
        OutcomeUnknownError where its answer is lost, or comes too late, or it has not been asked yet."""
        ...

    async def deliver(self) -> None:
        """A watch's events travel; it takes as long as it takes."""
        ...

    def keeps_alive(self) -> bool:
        """Whether what keeps leases alive runs, and gets through."""
        ...

    def tell(self, callback: Callable[[], None]) -> None:
        """Have the node run a callback soon."""
        ...


class ShortWay:
    """No distance, no faults."""

    async def call(self, work: Callable[[], T]) -> T:
        # Who asks again and again must not keep the loop from everybody else.
        await asyncio.sleep(0)
        return work()

    async def deliver(self) -> None:
        return

    def keeps_alive(self) -> bool:
        return True

    def tell(self, callback: Callable[[], None]) -> None:
        asyncio.get_running_loop().call_soon(callback)


class MemoryStore:
    """``MetadataStore``: one node's handle."""

    def __init__(self, server: MemoryServer, way: Way | None = None) -> None:
        self.server = server
        self._way = way or ShortWay()
        self._closed = False
        self._waiting: dict[asyncio.Future[None], None] = {}
        self._held: dict[int, Timer] = {}
        # Until when those last that are held, by what the server has said.
        self._until_ms: dict[int, int] = {}

    async def get(self, key: str) -> KeyValue | None:
        return await self._call(lambda: self.server.keys.get(key))

    async def range(self, prefix: str) -> Range:
        return await self._call(lambda: self.server.range(prefix))

    async def txn(self, compares: Sequence[Compare], operations: Sequence[Operation]) -> TxnResult:
        check_txn(compares, operations)
        return await self._call(lambda: self.server.txn(compares, operations))

    async def watch(self, prefix: str, from_revision: int) -> AsyncIterator[WatchBatch]:
        revision = max(from_revision, 1)
        while not self._closed:
            if self.server.since("", revision) is None:
                await self._next_change()
                continue
            await self._way.deliver()
            batch = self.server.since(prefix, revision)
            if batch is not None and not self._closed:
                revision = batch.revision + 1
                yield batch

    async def _next_change(self) -> None:
        future = self.server.changed()
        self._waiting[future] = None
        try:
            await future
        finally:
            self._waiting.pop(future, None)
            self.server.forget(future)

    async def compact(self, revision: int) -> None:
        await self._call(lambda: self.server.compact(revision))

    async def lease_grant(self, ttl_ms: int) -> int:
        return await self._call(lambda: self.server.grant(ttl_ms))

    async def lease_keep_alive(self, lease: int) -> None:
        await self._call(lambda: self.server.keep_alive(lease))

    async def lease_hold(self, lease: int, lost: Callable[[], None]) -> None:
        sent_ms = self.server.clock.monotonic_ms()
        ttl_ms = await self._call(lambda: self.server.keep_alive(lease))
        self._until_ms[lease] = sent_ms + ttl_ms
        self._hold(lease, ttl_ms, lost)

    def _hold(self, lease: int, ttl_ms: int, lost: Callable[[], None]) -> None:
        """Three times in a lease's life, as etcd's clients do."""

        def keep() -> None:
            if self._held.get(lease) is not timer or self._closed:
                return
            try:
                if self._way.keeps_alive():
                    self.server.keep_alive(lease)
                    self._until_ms[lease] = self.server.clock.monotonic_ms() + ttl_ms
            except LeaseError:
                del self._held[lease]
                self._way.tell(lost)
            else:
                self._hold(lease, ttl_ms, lost)

        timer = self._held[lease] = self.server.clock.call_later(ttl_ms / 3, keep)

    @property
    def silent_since_s(self) -> float | None:
        # It is in this process.
        return None

    def lease_lasts(self, lease: int) -> bool:
        return lease in self._held and self.server.clock.monotonic_ms() < self._until_ms[lease]

    async def lease_release(self, lease: int) -> None:
        if self._let_go(lease):
            await self._call(lambda: self.server.keep_alive(lease))

    def _let_go(self, lease: int) -> bool:
        timer = self._held.pop(lease, None)
        if timer is not None:
            timer.cancel()
        return timer is not None

    async def lease_revoke(self, lease: int) -> None:
        self._let_go(lease)
        await self._call(lambda: self.server.revoke(lease))

    async def close(self) -> None:
        self._closed = True
        for lease in list(self._held):
            self._let_go(lease)
        for future in self._waiting:
            if not future.done():
                future.set_result(None)

    async def _call(self, work: Callable[[], T]) -> T:
        if self._closed:
            raise StoreError("the store is closed")
        return await self._way.call(work)
