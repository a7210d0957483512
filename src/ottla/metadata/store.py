"""The contract of a metadata store: revisioned keys, compare-and-swap, ordered watch, leases.

It is etcd v3's model, so that etcd can stand behind it as it is. Keys are text, values bytes. Every
transaction that writes makes one new revision, larger than all before it, and all of its changes carry it.
Revisions may skip numbers: others may write to the same etcd. Reads are linearizable: they see every
transaction that was answered before they were asked for.

A store belongs to one event loop. Calls may be made at the same time; none waits for another.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from typing import NamedTuple, Protocol


class StoreError(Exception):
    """The store could not do what was asked. A transaction had no effect, unless the error is one of
    OutcomeUnknownError."""


class OutcomeUnknownError(StoreError):
    """Contact was lost: whether the transaction took effect, or still will, is not known."""


class RewoundError(StoreError):
    """The store has forgotten what it had answered: it lost its data, or was restored from a backup.

    It stays so until the store is opened anew, since nothing that was learnt from it can be trusted.
    """


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
    """``revision`` is that of the transaction. Where it changed nothing, it is one by which all that its
    comparisons saw had happened; a watch of all keys gets there without further changes."""

    succeeded: bool
    revision: int


class WatchBatch(NamedTuple):
    """All events up to ``revision`` that no batch before had, in order. There may be none: then the watch
    has only got further."""

    revision: int
    events: tuple[Event, ...]


# Most operations, and most comparisons, in one transaction: etcd's default. A Compare of both revision and
# value counts twice.
TXN_OPERATIONS_MAX = 128


def check_txn(compares: Sequence[Compare], operations: Sequence[Operation]) -> None:
    """ValueError for a transaction that etcd would refuse; every store asks, so that it shows early."""
    conditions = sum((c.mod_revision is not None) + (c.value is not None) for c in compares)
    if conditions > TXN_OPERATIONS_MAX or len(operations) > TXN_OPERATIONS_MAX:
        raise ValueError(f"{conditions} comparisons and {len(operations)} operations are too many for one")
    puts = [operation.key for operation in operations if isinstance(operation, Put)]
    written = set(puts)
    if len(written) < len(puts):
        raise ValueError("a key is put twice in one transaction")
    for operation in operations:
        if isinstance(operation, Delete) and (
            any(key.startswith(operation.key) for key in puts)
            if operation.prefix
            else operation.key in written
        ):
            raise ValueError(f"{operation.key} is put and deleted in one transaction")


class MetadataStore(Protocol):
    """Every method but ``watch`` raises StoreError where the store is out of reach."""

    @property
    def silent_since_s(self) -> float | None:
        """Since when nothing has been answered, by the event loop's clock: from the first request, renewal of
        a lease or watch that failed after the last one that did not. None: the last one did not."""
        ...

    async def get(self, key: str) -> KeyValue | None:
        """A key, or None where there is none."""
        ...

    async def range(self, prefix: str) -> Range:
        """All keys that begin with ``prefix``, at one revision."""
        ...

    async def txn(self, compares: Sequence[Compare], operations: Sequence[Operation]) -> TxnResult:
        """Do all the operations, in order, if every comparison holds; otherwise nothing.

        Durable once it returns. No key may be put twice, nor put and deleted, and there may be no more of
        either than TXN_OPERATIONS_MAX: ValueError, as ``check_txn``. LeaseError where an operation names a
        lease that is not there, OutcomeUnknownError where contact was lost meanwhile. A store never does a
        transaction twice; it repeats one on its own only if a ``mod_revision`` above 0 is compared of a key
        that it writes, since that can hold only once.
        """
        ...

    def watch(self, prefix: str, from_revision: int) -> AsyncIterator[WatchBatch]:
        """Every change to keys that begin with ``prefix``, from ``from_revision`` on, as they come.

        While the store is out of reach nothing comes, and afterwards it goes on where it was. CompactedError
        where the history from there is gone. Ends when the store closes. StoreError where the store will not
        answer by itself again, such as RewoundError.
        """
        ...

    async def compact(self, revision: int) -> None:
        """Forget the history up to and including ``revision``. The keys themselves stay."""
        ...

    async def lease_grant(self, ttl_ms: int) -> int:
        """A lease that ends ``ttl_ms`` after it was last kept alive, and deletes its keys then, all at one
        revision. It never ends earlier; etcd counts in seconds, at least two, and somewhat longer after an
        election of its own.
        """
        ...

    async def lease_keep_alive(self, lease: int) -> None:
        """Have the lease last for its time from now on. LeaseError where it has ended."""
        ...

    async def lease_hold(self, lease: int, lost: Callable[[], None]) -> None:
        """Keep a lease alive, by itself, for as long as the event loop turns, however busy it is.

        A loop that stands still for two thirds of the lease's time may lose it. Held until ``lease_release``,
        ``lease_revoke`` or ``close``. ``lost`` is called once, on the event loop, when the store has said
        that the lease has ended, and never because the store does not answer.
        LeaseError where it has ended already.
        """
        ...

    def lease_lasts(self, lease: int) -> bool:
        """Whether a lease is held and cannot have ended yet, by what the store has said of it so far."""
        ...

    async def lease_release(self, lease: int) -> None:
        """Hold a lease no more: it ends after its time, and ``lost`` is not called. Nothing if not held."""
        ...

    async def lease_revoke(self, lease: int) -> None:
        """End a lease now, with its keys. LeaseError where it has ended. ``lost`` is not called."""
        ...

    async def close(self) -> None:
        """End watches and let go of the store. Leases run on until their time; ``lost`` is not called."""
        ...
