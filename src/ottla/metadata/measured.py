"""A metadata store whose round trips are counted: how many there are, how long they take, how many fail."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import TypeVar

from ottla.env.clock import Clock
from ottla.metadata.store import (
    Compare,
    KeyValue,
    MetadataStore,
    Operation,
    Range,
    StoreError,
    TxnResult,
    WatchBatch,
)
from ottla.metrics import Histogram

T = TypeVar("T")

BOUNDS_MS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000)


class RoundTrips:
    """Those of one kind."""

    __slots__ = ("failures", "took")

    def __init__(self) -> None:
        self.took = Histogram(BOUNDS_MS)
        self.failures = 0


class MeasuredStore:
    """A ``MetadataStore`` by way of another one."""

    def __init__(self, store: MetadataStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self.gets, self.ranges, self.txns, self.leases = (RoundTrips() for _ in range(4))

    @property
    def silent_since_s(self) -> float | None:
        return self._store.silent_since_s

    async def _measure(self, trips: RoundTrips, asked: Awaitable[T]) -> T:
        began_ms = self._clock.monotonic_ms()
        try:
            return await asked
        except StoreError:
            trips.failures += 1
            raise
        finally:
            trips.took.add(self._clock.monotonic_ms() - began_ms)

    async def get(self, key: str) -> KeyValue | None:
        return await self._measure(self.gets, self._store.get(key))

    async def range(self, prefix: str) -> Range:
        return await self._measure(self.ranges, self._store.range(prefix))

    async def txn(self, compares: Sequence[Compare], operations: Sequence[Operation]) -> TxnResult:
        return await self._measure(self.txns, self._store.txn(compares, operations))

    def watch(self, prefix: str, from_revision: int) -> AsyncIterator[WatchBatch]:
        return self._store.watch(prefix, from_revision)

    async def compact(self, revision: int) -> None:
        await self._store.compact(revision)

    async def lease_grant(self, ttl_ms: int) -> int:
        return await self._measure(self.leases, self._store.lease_grant(ttl_ms))

    async def lease_keep_alive(self, lease: int) -> None:
        await self._measure(self.leases, self._store.lease_keep_alive(lease))

    async def lease_hold(self, lease: int, lost: Callable[[], None]) -> None:
        await self._store.lease_hold(lease, lost)

    def lease_lasts(self, lease: int) -> bool:
        return self._store.lease_lasts(lease)

    async def lease_release(self, lease: int) -> None:
        await self._store.lease_release(lease)

    async def lease_revoke(self, lease: int) -> None:
        await self._measure(self.leases, self._store.lease_revoke(lease))

    async def close(self) -> None:
        await self._store.close()
