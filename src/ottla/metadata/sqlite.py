"""The embedded metadata store: one SQLite file, written ahead and synced at each commit.

The file is opened by one process only. Blocking work is done on one thread of its own; the newest events
stay in memory, so that a watcher that keeps up never reads the file. Leases that the file remembers start
anew when it is opened, as etcd's do when its leader changes.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sqlite3
import stat
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TypeVar

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

log = logging.getLogger(__name__)

T = TypeVar("T")

# Revisions whose events are kept for watchers that start in the past, and how many more may pile up
# before the oldest are dropped.
HISTORY_REVISIONS_KEPT = 10_000
HISTORY_REVISIONS_SLACK = 1_000
# The newest events, in memory.
RECENT_EVENTS_MAX = 1_024
# Where the end of a lease is noticed so much later, the process has stood still.
STOOD_STILL_MS = 1_000
# Events that a watcher which fell behind reads from the file at a time.
WATCH_EVENTS_MAX = 1_000
# Permissions of those who are neither the file's owner nor of its group.
_OTHERS = 0o007

_SCHEMA = """
CREATE TABLE IF NOT EXISTS kv (
    key TEXT PRIMARY KEY, value BLOB NOT NULL, create_revision INTEGER NOT NULL,
    mod_revision INTEGER NOT NULL, version INTEGER NOT NULL, lease INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS history (
    revision INTEGER NOT NULL, ordinal INTEGER NOT NULL, key TEXT NOT NULL, value BLOB,
    PRIMARY KEY (revision, ordinal)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS leases (id INTEGER PRIMARY KEY AUTOINCREMENT, ttl_ms INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS state (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
INSERT OR IGNORE INTO state VALUES ('revision', 0), ('compacted', 0);
"""
_COLUMNS = "key, value, create_revision, mod_revision, version, lease"


def _keep_private(path: str) -> None:
    """Have nobody but this user, and its group where that was so, read the file: it has credentials, and
    passwords among its configurations. It is not opened if it is there, since to close it again would end
    whichever locks this process has of it; where anything is wrong with it, SQLite will say so."""
    with suppress(OSError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))
    # What SQLite makes beside it has the file's own permissions.
    for each in (path, f"{path}-wal"):
        with suppress(OSError):
            mode = stat.S_IMODE(os.stat(each).st_mode)
            if mode & _OTHERS:
                os.chmod(each, mode & ~_OTHERS)


class _File:
    """The database, as its thread uses it. Every method blocks."""

    def __init__(self, path: str) -> None:
        _keep_private(path)
        # Transactions are begun and ended by hand.
        self._db = sqlite3.connect(path, timeout=0, isolation_level=None, check_same_thread=False)
        try:
            state = self._prepare()
        except BaseException:
            self._db.close()
            raise
        self.revision: int = state["revision"]
        self.compacted: int = state["compacted"]

    def _prepare(self) -> dict[str, int]:
        """Lock the file, make what is missing, and return its state."""
        db = self._db
        db.execute("PRAGMA locking_mode = EXCLUSIVE")
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        known = db.execute("SELECT count(*) FROM sqlite_master WHERE name = 'state'").fetchone()[0]
        if not known:
            db.executescript(f"BEGIN;{_SCHEMA}COMMIT;")
        state = dict(db.execute("SELECT name, value FROM state"))
        if not state.keys() >= {"revision", "compacted"}:
            raise sqlite3.DatabaseError("it does not hold the metadata of a broker")
        return state

    def close(self) -> None:
        self._db.close()

    def get(self, key: str) -> KeyValue | None:
        row = self._db.execute(f"SELECT {_COLUMNS} FROM kv WHERE key = ?", (key,)).fetchone()
        return None if row is None else KeyValue(*row)

    def range(self, prefix: str) -> list[KeyValue]:
        where, bounds = _between(prefix)
        rows = self._db.execute(f"SELECT {_COLUMNS} FROM kv {where} ORDER BY key", bounds)
        return [KeyValue(*row) for row in rows]

    def leases(self) -> dict[int, int]:
        return dict(self._db.execute("SELECT id, ttl_ms FROM leases"))

    def add_lease(self, ttl_ms: int) -> int:
        lease = self._db.execute("INSERT INTO leases (ttl_ms) VALUES (?)", (ttl_ms,)).lastrowid
        assert lease is not None
        return lease

    def txn(self, compares: Sequence[Compare], operations: Sequence[Operation]) -> tuple[bool, list[Event]]:
        if not all(map(self._holds, compares)):
            return False, []
        with _Transaction(self._db):
            events = self._write(operations)
        if events:
            self.revision = events[0].revision
        return True, events

    def end_lease(self, lease: int) -> list[Event]:
        """Delete the lease and its keys."""
        with _Transaction(self._db):
            self._db.execute("DELETE FROM leases WHERE id = ?", (lease,))
            owned = self._db.execute("SELECT key FROM kv WHERE lease = ? ORDER BY key", (lease,))
            events = self._write([Delete(key) for (key,) in owned.fetchall()])
        if events:
            self.revision = events[0].revision
        return events

    def compact(self, revision: int) -> None:
        if revision > self.compacted:
            with _Transaction(self._db):
                self._db.execute("DELETE FROM history WHERE revision <= ?", (revision,))
                self._db.execute("UPDATE state SET value = ? WHERE name = 'compacted'", (revision,))
            self.compacted = revision

    def history(self, prefix: str, from_revision: int) -> tuple[int, list[Event]]:
        """Events of whole revisions, and the last revision that they cover."""
        if from_revision <= self.compacted:
            raise CompactedError(self.compacted)
        rows = self._db.execute(
            "SELECT key, value, revision FROM history WHERE revision >= ? ORDER BY revision, ordinal",
            (from_revision,),
        )
        events: list[Event] = []
        for row in rows:
            event = Event(*row)
            if len(events) >= WATCH_EVENTS_MAX and event.revision != events[-1].revision:
                rows.close()
                return events[-1].revision, _matching(events, prefix)
            events.append(event)
        return self.revision, _matching(events, prefix)

    def _holds(self, compare: Compare) -> bool:
        row = self._db.execute("SELECT mod_revision, value FROM kv WHERE key = ?", (compare.key,)).fetchone()
        mod_revision, value = row or (0, None)
        return (compare.mod_revision is None or compare.mod_revision == mod_revision) and (
            compare.value is None or compare.value == value
        )

    def _write(self, operations: Sequence[Operation]) -> list[Event]:
        revision = self.revision + 1
        events: list[Event] = []
        for operation in operations:
            if isinstance(operation, Put):
                self._put(operation, revision)
                events.append(Event(operation.key, operation.value, revision))
            else:
                events += [Event(key, None, revision) for key in self._delete(operation)]
        if events:
            self._db.executemany(
                "INSERT INTO history VALUES (?, ?, ?, ?)",
                [(revision, ordinal, event.key, event.value) for ordinal, event in enumerate(events)],
            )
            self._db.execute("UPDATE state SET value = ? WHERE name = 'revision'", (revision,))
        return events

    def _put(self, put: Put, revision: int) -> None:
        if put.lease:
            held = self._db.execute("SELECT 1 FROM leases WHERE id = ?", (put.lease,)).fetchone()
            if held is None:
                raise LeaseError(f"there is no lease {put.lease}")
        self._db.execute(
            "INSERT INTO kv VALUES (?, ?, ?, ?, 1, ?) ON CONFLICT (key) DO UPDATE SET "
            "value = excluded.value, mod_revision = excluded.mod_revision, version = version + 1, "
            "lease = excluded.lease",
            (put.key, put.value, revision, revision, put.lease),
        )

    def _delete(self, delete: Delete) -> list[str]:
        where, bounds = _between(delete.key) if delete.prefix else ("WHERE key = ?", (delete.key,))
        keys = [key for (key,) in self._db.execute(f"SELECT key FROM kv {where} ORDER BY key", bounds)]
        if keys:
            self._db.execute(f"DELETE FROM kv {where}", bounds)
        return keys


class _Transaction:
    """BEGIN; then COMMIT, or ROLLBACK where the block or the commit itself failed (a full disk)."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def __enter__(self) -> None:
        self._db.execute("BEGIN IMMEDIATE")

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self._db.execute("COMMIT")
        finally:
            # SQLite ends some transactions by itself when they fail.
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")


def _between(prefix: str) -> tuple[str, tuple[str, ...]]:
    """Keys that begin with a prefix, as a condition that the primary key's index serves."""
    return ("WHERE key >= ? AND key < ?", (prefix, prefix + "\U0010ffff")) if prefix else ("", ())


def _matching(events: Sequence[Event], prefix: str) -> list[Event]:
    return [event for event in events if event.key.startswith(prefix)]


class SqliteStore:
    """A MetadataStore in one file. Made by ``SqliteStore.open``; belongs to one event loop."""

    def __init__(self, file: _File, pool: ThreadPoolExecutor, clock: Clock) -> None:
        self._file = file
        self._pool = pool
        self._clock = clock
        self._revision = file.revision
        self._recent: deque[Event] = deque()
        # Every event after this revision is in _recent.
        self._recent_after = file.revision
        self._changed = asyncio.Event()
        self._closed = False
        self._deadlines_ms: dict[int, int] = {}
        self._ttls_ms: dict[int, int] = {}
        # Leases that are held: they are extended when their time comes. Only this store could end them.
        self._held: dict[int, None] = {}
        self._timer: Timer | None = None
        self._expiring: asyncio.Task[None] | None = None

    @classmethod
    async def open(cls, path: str, clock: Clock) -> SqliteStore:
        """Open the file, made where it is missing. StoreError where it cannot be used."""
        pool = ThreadPoolExecutor(1, thread_name_prefix="ottla-metadata")
        loop = asyncio.get_running_loop()
        try:
            file = await loop.run_in_executor(pool, _File, path)
        except sqlite3.Error as error:
            pool.shutdown()
            raise StoreError(f"{path}: {error}") from error
        store = cls(file, pool, clock)
        try:
            leases = await store._run(file.leases)
        except BaseException:
            await store.close()
            raise
        for lease, ttl_ms in leases.items():
            store._ttls_ms[lease] = ttl_ms
            store._extend(lease)
        return store

    async def get(self, key: str) -> KeyValue | None:
        return await self._run(lambda: self._file.get(key))

    async def range(self, prefix: str) -> Range:
        def read() -> Range:
            return Range(self._file.revision, self._file.range(prefix))

        return await self._run(read)

    async def txn(self, compares: Sequence[Compare], operations: Sequence[Operation]) -> TxnResult:
        check_txn(compares, operations)

        def write() -> tuple[bool, list[Event], int]:
            succeeded, events = self._file.txn(compares, operations)
            return succeeded, events, self._file.revision

        succeeded, events, revision = await self._run(write)
        await self._publish(events)
        return TxnResult(succeeded, revision)

    async def watch(self, prefix: str, from_revision: int) -> AsyncIterator[WatchBatch]:
        position = from_revision
        while not self._closed:
            changed = self._changed
            if position > self._revision:
                await changed.wait()
                continue
            if position > self._recent_after:
                through = self._revision
                events = self._newest(prefix, position)
            else:
                through, events = await self._run(
                    lambda start=position: self._file.history(prefix, start)  # type: ignore[misc]
                )
            position = through + 1
            if events:
                yield WatchBatch(through, tuple(events))

    async def compact(self, revision: int) -> None:
        await self._run(lambda: self._file.compact(min(revision, self._file.revision)))
        while self._recent and self._recent[0].revision <= revision:
            self._recent_after = self._recent.popleft().revision
        self._recent_after = max(self._recent_after, min(revision, self._revision))

    async def lease_grant(self, ttl_ms: int) -> int:
        lease = await self._run(lambda: self._file.add_lease(ttl_ms))
        self._ttls_ms[lease] = ttl_ms
        self._extend(lease)
        return lease

    async def lease_keep_alive(self, lease: int) -> None:
        self._extend(lease)

    async def lease_hold(self, lease: int, lost: Callable[[], None]) -> None:
        self._extend(lease)
        self._held[lease] = None

    def lease_lasts(self, lease: int) -> bool:
        # Nobody else could end it.
        return lease in self._held

    async def lease_release(self, lease: int) -> None:
        if lease in self._held:
            del self._held[lease]
            self._extend(lease)

    async def lease_revoke(self, lease: int) -> None:
        self._held.pop(lease, None)
        if self._ttls_ms.pop(lease, None) is None:
            raise LeaseError(f"there is no lease {lease}")
        self._deadlines_ms.pop(lease, None)
        await self._publish(await self._run(lambda: self._file.end_lease(lease)))

    @property
    def silent_since_s(self) -> float | None:
        # Nobody is between us and the file; each failure of the disk is told to who asked, and to watches.
        return None

    def has_lease(self, lease: int) -> bool:
        """Whether there is such a lease."""
        return lease in self._ttls_ms

    def lease_ttl_ms(self, lease: int) -> int:
        """How long a lease lasts when it is not kept alive. LeaseError where there is none."""
        if lease not in self._ttls_ms:
            raise LeaseError(f"there is no lease {lease}")
        return self._ttls_ms[lease]

    async def end_leases(self) -> None:
        """End all leases now, with their keys: for who knows that those who had them are gone."""
        for lease in list(self._ttls_ms):
            await self.lease_revoke(lease)

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        if self._expiring is not None:
            await asyncio.wait([self._expiring])
        self._changed.set()
        await asyncio.get_running_loop().run_in_executor(self._pool, self._file.close)
        self._pool.shutdown()

    # Inside

    def _newest(self, prefix: str, from_revision: int) -> list[Event]:
        events = []
        for event in reversed(self._recent):
            if event.revision < from_revision:
                break
            if event.key.startswith(prefix):
                events.append(event)
        events.reverse()
        return events

    async def _run(self, work: Callable[[], T]) -> T:
        if self._closed:
            raise StoreError("the metadata store is closed")
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, work)
        except sqlite3.Error as error:
            raise StoreError(f"metadata store: {error}") from error

    async def _publish(self, events: Sequence[Event]) -> None:
        """Hand events to the watchers, in the order in which they were written."""
        if not events:
            return
        self._revision = events[-1].revision
        self._recent.extend(events)
        while len(self._recent) > RECENT_EVENTS_MAX:
            # A revision leaves whole.
            self._recent_after = self._recent[0].revision
            while self._recent and self._recent[0].revision == self._recent_after:
                self._recent.popleft()
        self._changed.set()
        self._changed = asyncio.Event()
        if self._revision - self._file.compacted >= HISTORY_REVISIONS_KEPT + HISTORY_REVISIONS_SLACK:
            await self.compact(self._revision - HISTORY_REVISIONS_KEPT)

    def _extend(self, lease: int) -> None:
        ttl_ms = self._ttls_ms.get(lease)
        if ttl_ms is None:
            raise LeaseError(f"there is no lease {lease}")
        self._deadlines_ms[lease] = self._clock.monotonic_ms() + ttl_ms
        self._schedule()

    def _schedule(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._deadlines_ms and not self._closed:
            delay_ms = min(self._deadlines_ms.values()) - self._clock.monotonic_ms()
            self._timer = self._clock.call_later(max(delay_ms, 0), self._expire)

    def _expire(self) -> None:
        now_ms = self._clock.monotonic_ms()
        if now_ms - min(self._deadlines_ms.values(), default=now_ms) > STOOD_STILL_MS:
            # Nobody could keep one alive meanwhile: all begin anew, as etcd's do with a new leader.
            for lease in self._deadlines_ms:
                self._deadlines_ms[lease] = now_ms + self._ttls_ms[lease]
            self._schedule()
            return
        if not self._closed and (self._expiring is None or self._expiring.done()):
            self._expiring = asyncio.ensure_future(self._expire_due())

    async def _expire_due(self) -> None:
        now_ms = self._clock.monotonic_ms()
        for lease in [lease for lease, at_ms in self._deadlines_ms.items() if at_ms <= now_ms]:
            # It may have been kept alive or revoked while another one was ended.
            if self._deadlines_ms.get(lease, now_ms + 1) <= now_ms:
                if lease in self._held:
                    self._extend(lease)
                    continue
                try:
                    await self.lease_revoke(lease)
                except StoreError as error:
                    log.error("lease %d has ended, and its keys are still there: %s", lease, error)
                except Exception:
                    log.exception("lease %d has ended, and its keys are still there", lease)
        self._schedule()
