"""The metadata store of a cluster: etcd v3, under ``/ottla/<cluster>/`` (docs/STORE.md).

``etcd_client`` finds a member that answers, ``etcd_watch`` follows changes, ``etcd_leases`` keeps leases
alive; here are the store's operations in etcd's terms. Revisions are etcd's: other clusters that share it
make revisions, too, which no watch of this one would show. So the key ``.sync`` is written where somebody is
to wait for a revision at which nothing else of this cluster may have changed.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

from ottla.env.clock import Clock
from ottla.metadata import etcd_messages as rpc
from ottla.metadata.etcd_client import EtcdClient, TooLargeError, prefix_end
from ottla.metadata.etcd_leases import LeaseKeeper
from ottla.metadata.etcd_settings import EtcdSettings
from ottla.metadata.etcd_watch import EtcdWatch
from ottla.metadata.store import (
    CompactedError,
    Compare,
    KeyValue,
    LeaseError,
    Operation,
    OutcomeUnknownError,
    Put,
    Range,
    StoreError,
    TxnResult,
    WatchBatch,
    check_txn,
)

# Keys that are read at a time; fewer where they are large.
PAGE_KEYS = 1_000
LEASE_S_MIN = 2
# Reading everything is begun again where etcd compacts the revision that is being read.
READ_ATTEMPTS_MAX = 5

_SYNC = ".sync"


class EtcdStore:
    """A MetadataStore in etcd. Made by ``stores.open_store``; belongs to one event loop."""

    def __init__(self, settings: EtcdSettings, clock: Clock) -> None:
        """OSError where a file that the settings name cannot be read."""
        self._namespace = f"/ottla/{settings.cluster}/".encode()
        self._client = EtcdClient(settings)
        self._clock = clock
        self._keeper: LeaseKeeper | None = None

    @property
    def endpoint(self) -> str:
        """The member of etcd that is asked at present."""
        return self._client.member.address

    @property
    def silent_since_s(self) -> float | None:
        return self._client.silent_since_s

    async def get(self, key: str) -> KeyValue | None:
        answer = await self._client.call("Range", rpc.RangeRequest(key=self._key(key)), repeat=True)
        return self._item(answer.kvs[0]) if answer.kvs else None

    async def range(self, prefix: str) -> Range:
        for _ in range(READ_ATTEMPTS_MAX):
            try:
                return await self._range(self._key(prefix))
            except CompactedError:
                continue
        raise StoreError("etcd compacts its history faster than it can be read")

    async def _range(self, prefix: bytes) -> Range:
        start, end, revision, limit = prefix, prefix_end(prefix), 0, PAGE_KEYS
        items: list[KeyValue] = []
        while True:
            request = rpc.RangeRequest(key=start, range_end=end, limit=limit, revision=revision)
            try:
                answer = await self._client.call("Range", request, repeat=True)
            except TooLargeError:
                if limit == 1:
                    raise
                limit = max(limit // 8, 1)
                continue
            revision = revision or answer.header.revision
            items += [self._item(kv) for kv in answer.kvs if kv.key != self._sync]
            if not answer.more:
                return Range(revision, items)
            start = answer.kvs[-1].key + b"\0"

    async def txn(self, compares: Sequence[Compare], operations: Sequence[Operation]) -> TxnResult:
        check_txn(compares, operations)
        request = rpc.TxnRequest(
            compare=[made for compare in compares for made in self._compares(compare)],
            success=[self._operation(operation) for operation in operations],
            failure=[
                rpc.RequestOp(request_range=rpc.RangeRequest(key=self._key(key), keys_only=True))
                for key in dict.fromkeys(compare.key for compare in compares)
            ],
        )
        answer, repeated = await self._client.call_saying("Txn", request, repeat=_once(compares, operations))
        if answer.succeeded:
            if _has_changed(answer):
                return TxnResult(True, answer.header.revision)
            return TxnResult(True, await self._sync_revision())
        if repeated:
            raise OutcomeUnknownError("lost contact with etcd: either it was done, or somebody was faster")
        return TxnResult(False, await self._seen(compares, answer))

    def watch(self, prefix: str, from_revision: int) -> AsyncIterator[WatchBatch]:
        return EtcdWatch(self._client, self._namespace, self._sync, prefix, from_revision).batches()

    async def compact(self, revision: int) -> None:
        answer = await self._client.call("Range", rpc.RangeRequest(key=self._sync), repeat=True)
        request = rpc.CompactionRequest(revision=min(revision, answer.header.revision))
        try:
            await self._client.call("Compact", request, repeat=True)
        except CompactedError:
            # By somebody else, or by an attempt that was thought to have failed.
            return

    async def lease_grant(self, ttl_ms: int) -> int:
        ttl_s = max(-(-ttl_ms // 1000), LEASE_S_MIN)
        answer = await self._client.call("LeaseGrant", rpc.LeaseGrantRequest(TTL=ttl_s), repeat=True)
        lease: int = answer.ID
        return lease

    async def lease_keep_alive(self, lease: int) -> None:
        await self._renew(lease)

    async def lease_hold(self, lease: int, lost: Callable[[], None]) -> None:
        sent_ms = self._clock.monotonic_ms()
        ttl_s = await self._renew(lease)
        if self._keeper is None:
            self._keeper = LeaseKeeper(self._client, self._clock)
        self._keeper.hold(lease, ttl_s, sent_ms, lost)

    def lease_lasts(self, lease: int) -> bool:
        return self._keeper is not None and self._keeper.lasts(lease)

    async def lease_release(self, lease: int) -> None:
        if self._keeper is not None and self._keeper.release(lease):
            await self._renew(lease)

    async def lease_revoke(self, lease: int) -> None:
        if self._keeper is not None:
            self._keeper.release(lease)
        request = rpc.LeaseRevokeRequest(ID=lease)
        await self._client.call("LeaseRevoke", request, repeat=True)

    async def close(self) -> None:
        if self._client.closed:
            return
        await self._client.close()
        if self._keeper is not None:
            await self._keeper.close()

    # Inside

    @property
    def _sync(self) -> bytes:
        return self._namespace + _SYNC.encode()

    def _key(self, key: str) -> bytes:
        return self._namespace + key.encode()

    def _item(self, kv: Any) -> KeyValue:
        key = kv.key[len(self._namespace) :].decode("utf-8", "surrogateescape")
        return KeyValue(key, kv.value, kv.create_revision, kv.mod_revision, kv.version, kv.lease)

    def _compares(self, compare: Compare) -> list[Any]:
        key = self._key(compare.key)
        made = []
        if compare.mod_revision is not None:
            made.append(
                rpc.Compare(
                    key=key,
                    target=rpc.COMPARE_MOD,
                    result=rpc.COMPARE_EQUAL,
                    mod_revision=compare.mod_revision,
                )
            )
        if compare.value is not None:
            made.append(
                rpc.Compare(key=key, target=rpc.COMPARE_VALUE, result=rpc.COMPARE_EQUAL, value=compare.value)
            )
        return made

    def _operation(self, operation: Operation) -> Any:
        key = self._key(operation.key)
        if isinstance(operation, Put):
            put = rpc.PutRequest(key=key, value=operation.value, lease=operation.lease)
            return rpc.RequestOp(request_put=put)
        end = prefix_end(key) if operation.prefix else b""
        return rpc.RequestOp(request_delete_range=rpc.DeleteRangeRequest(key=key, range_end=end))

    async def _renew(self, lease: int) -> int:
        """The seconds that the lease has from now on. LeaseError where it has ended."""
        request = rpc.LeaseKeepAliveRequest(ID=lease)
        answer = await self._client.call("LeaseKeepAlive", request, repeat=True)
        if answer.TTL <= 0:
            raise LeaseError(f"there is no lease {lease}")
        ttl_s: int = answer.TTL
        return ttl_s

    async def _seen(self, compares: Sequence[Compare], answer: Any) -> int:
        """A revision by which had happened what made comparisons fail, and which watches will get to."""
        found = {
            kv.key: kv.mod_revision for response in answer.responses for kv in response.response_range.kvs
        }
        for compare in compares:
            if (compare.mod_revision or compare.value is not None) and self._key(compare.key) not in found:
                # Nothing tells when the key was deleted.
                return await self._sync_revision()
        return max(found.values(), default=0)

    async def _sync_revision(self) -> int:
        put = rpc.RequestOp(request_put=rpc.PutRequest(key=self._sync))
        answer = await self._client.call("Txn", rpc.TxnRequest(success=[put]), repeat=True)
        revision: int = answer.header.revision
        return revision


def _has_changed(answer: Any) -> bool:
    return any(
        response.WhichOneof("response") == "response_put" or response.response_delete_range.deleted
        for response in answer.responses
    )


def _once(compares: Sequence[Compare], operations: Sequence[Operation]) -> bool:
    """Whether the transaction can only succeed once, however often it is tried: it writes a key that it
    compares with a revision, and no revision comes twice. (That a key is absent may become true again.)"""
    for compare in compares:
        if compare.mod_revision:
            for operation in operations:
                if operation.key == compare.key or (
                    not isinstance(operation, Put)
                    and operation.prefix
                    and compare.key.startswith(operation.key)
                ):
                    return True
    return False
