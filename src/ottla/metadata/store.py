"""The contract of a metadata store: revisioned keys, compare-and-swap, ordered watch, leases.

It is etcd v3's model, so that etcd can stand behind it as it is. Keys are text, values bytes. Every
transaction that writes makes one new revision, counted from 1, and all of its changes carry it. Reads are
linearizable: they see every transaction that was answered before they were asked for.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import NamedTuple, Protocol


class StoreError(Exception):
    """The store could not do what was asked; whether a transaction took effect may be unknown."""


class CompactedError(StoreError):
    """The history from the revision that was asked for is gone: read the keys and watch from there."""

    def __init__(self, compact_revision: int) -> None:
        super().__init__(f"history is kept from revision {compact_revision + 1} on")
        self.compact_revision = compact_revision


class LeaseError(StoreError):
    """There is no such lease, or no longer."""


class KeyValue(NamedTuple):
    """A key as it is. ``version`` counts its changes since it was made; ``lease`` is 0 for none."""

    key: str
    value: bytes
    create_revision: int
    mod_revision: int
    version: int
    lease: int


class Event(NamedTuple):
    """A change to a key at a revision; ``value`` is None where the key was deleted."""

    key: str
    value: bytes | None
    revision: int


class Compare(NamedTuple):
    """A condition on a key: its modification revision (0: there is no such key), or its value."""

    key: str
    mod_revision: int | None = None
    value: bytes | None = None


class Put(NamedTuple):
    """Set a key, and have it deleted with ``lease`` when that ends (0: never)."""

    key: str
    value: bytes
    lease: int = 0


class Delete(NamedTuple):
    """Delete a key, or with ``prefix`` every key that begins with it. No key, no change."""

    key: str
    prefix: bool = False


Operation = Put | Delete


class Range(NamedTuple):
    """Keys in their order, all as they were at ``revision``."""

    revision: int
    items: list[KeyValue]


class TxnResult(NamedTuple):
    """``revision`` is that of the transaction, or the store's where it changed nothing."""

    succeeded: bool
    revision: int


class WatchBatch(NamedTuple):
    """Events in order, none of a revision left out; the last of them is at ``revision``."""

    revision: int
    events: tuple[Event, ...]


# Most operations in one transaction: etcd's default.
TXN_OPERATIONS_MAX = 128


class MetadataStore(Protocol):
    """Every method but ``watch`` raises StoreError where the store is out of reach."""

    async def get(self, key: str) -> KeyValue | None:
        """A key, or None where there is none."""
        ...

    async def range(self, prefix: str) -> Range:
        """All keys that begin with ``prefix``, at one revision."""
        ...

    async def txn(self, compares: Sequence[Compare], operations: Sequence[Operation]) -> TxnResult:
        """Do all the operations, in order, if every comparison holds; otherwise nothing.

        Durable once it returns. LeaseError where an operation names a lease that is not there.
        """
        ...

    def watch(self, prefix: str, from_revision: int) -> AsyncIterator[WatchBatch]:
        """Every change to keys that begin with ``prefix``, from ``from_revision`` on, as they come.

        CompactedError where the history from there is gone. Ends when the store closes.
        """
        ...

    async def compact(self, revision: int) -> None:
        """Forget the history up to and including ``revision``. The keys themselves stay."""
        ...

    async def lease_grant(self, ttl_ms: int) -> int:
        """A lease that ends ``ttl_ms`` after it was last kept alive, and deletes its keys then."""
        ...

    async def lease_keep_alive(self, lease: int) -> None:
        """LeaseError where the lease has ended."""
        ...

    async def lease_revoke(self, lease: int) -> None:
        """End a lease now. LeaseError where it has ended."""
        ...

    async def close(self) -> None:
        """End watches and let go of the store. Leases run on until their time."""
        ...
