"""The contract of a metadata store. Every implementation passes these; add it to ``STORES``.

Revisions are compared with those that transactions returned: they may begin anywhere, and may have gaps.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, Protocol

import pytest
from hypothesis import given
from hypothesis import strategies as st

import etcd_support
from measuring import HANG_S
from ottla.env.clock import SystemClock, Timer
from ottla.metadata.memory import MemoryServer, MemoryStore
from ottla.metadata.socket_server import StoreServer
from ottla.metadata.socket_store import SocketStore
from ottla.metadata.sqlite import SqliteStore
from ottla.metadata.store import (
    TXN_OPERATIONS_MAX,
    CompactedError,
    Compare,
    Delete,
    Event,
    LeaseError,
    MetadataStore,
    Operation,
    Put,
    StoreError,
    WatchBatch,
    check_txn,
)
from ottla.metadata.stores import open_store

# The shortest lease that every store can give.
LEASE_MS = 2_000
TIMEOUT_S = 60.0


class Subject(Protocol):
    """A store under test: ``open`` opens it, again after a close as after a restart."""

    # Whether it can be opened twice at the same time.
    shared: bool

    async def open(self) -> MetadataStore: ...

    async def pass_time(self, by_ms: int) -> None:
        """Let time go by, as the store's leases see it."""
        ...


class ManualClock:
    """Time that moves when a test says so."""

    def __init__(self) -> None:
        self.time_ms = 1_000
        self._timers: list[ManualTimer] = []

    def now_ms(self) -> int:
        return self.time_ms

    def monotonic_ms(self) -> int:
        return self.time_ms

    def call_later(self, delay_ms: float, callback: Callable[[], object]) -> ManualTimer:
        timer = ManualTimer(self.time_ms + delay_ms, callback)
        self._timers.append(timer)
        return timer

    def advance(self, by_ms: int) -> None:
        self.time_ms += by_ms
        due = [timer for timer in self._timers if timer.at_ms <= self.time_ms]
        self._timers = [timer for timer in self._timers if timer.at_ms > self.time_ms]
        for timer in due:
            if not timer.cancelled:
                timer.callback()


class ManualTimer:
    def __init__(self, at_ms: float, callback: Callable[[], object]) -> None:
        self.at_ms, self.callback, self.cancelled = at_ms, callback, False

    def cancel(self) -> None:
        self.cancelled = True


class SqliteSubject:
    shared = False

    def __init__(self, path: Path) -> None:
        self._path = str(path / "metadata.db")
        self._clock = ManualClock()

    async def open(self) -> MetadataStore:
        return await SqliteStore.open(self._path, self._clock)

    async def pass_time(self, by_ms: int) -> None:
        self._clock.advance(by_ms)
        await asyncio.sleep(0.01)


class EtcdSubject:
    shared = True

    def __init__(self, path: Path) -> None:
        self._url = etcd_support.shared().url()
        self._cluster = etcd_support.namespace()

    async def open(self) -> MetadataStore:
        return await open_store(self._url, cluster=self._cluster, clock=SystemClock())

    async def pass_time(self, by_ms: int) -> None:
        await asyncio.sleep(by_ms / 1000)


class SocketSubject:
    """A store in SQLite as other processes have it: with the first client it is opened, and closed with the
    last."""

    shared = True

    def __init__(self, path: Path) -> None:
        self._path = path
        self._clients = 0
        self._store: SqliteStore
        self._server: StoreServer

    async def open(self) -> MetadataStore:
        if not self._clients:
            self._store = await SqliteStore.open(str(self._path / "metadata.db"), SystemClock())
            self._server = StoreServer(self._store, str(self._path / "store"))
            await self._server.open()
        self._clients += 1
        return ClosingStore(str(self._path / "store"), self._closed)

    async def _closed(self) -> None:
        self._clients -= 1
        if not self._clients:
            await self._server.close()
            await self._store.close()

    async def pass_time(self, by_ms: int) -> None:
        await asyncio.sleep(by_ms / 1000)


class ClosingStore(SocketStore):
    """One that says when it is closed."""

    def __init__(self, folder: str, closed: Callable[[], Awaitable[None]]) -> None:
        super().__init__(folder, SystemClock())
        self._on_closed: Callable[[], Awaitable[None]] | None = closed

    async def close(self) -> None:
        await super().close()
        tell, self._on_closed = self._on_closed, None
        if tell is not None:
            await tell()


class FastClock(SystemClock):
    """Time that passes ten times as fast."""

    def monotonic_ms(self) -> int:
        return super().monotonic_ms() * 10

    def call_later(self, delay_ms: float, callback: Callable[[], object]) -> Timer:
        return super().call_later(delay_ms / 10, callback)


class MemorySubject:
    shared = True

    def __init__(self, path: Path) -> None:
        self._server = MemoryServer(FastClock())

    async def open(self) -> MetadataStore:
        return MemoryStore(self._server)

    async def pass_time(self, by_ms: int) -> None:
        await asyncio.sleep(by_ms / 10_000)


STORES: dict[str, Callable[[Path], Subject]] = {
    "sqlite": SqliteSubject,
    "etcd": EtcdSubject,
    "memory": MemorySubject,
    "socket": SocketSubject,
}


@pytest.fixture(params=sorted(STORES))
def subject(request: pytest.FixtureRequest, tmp_path: Path) -> Subject:
    return STORES[request.param](tmp_path)


def check(subject: Subject, body: Callable[[MetadataStore], Coroutine[Any, Any, None]]) -> None:
    async def run() -> None:
        store = await subject.open()
        try:
            await asyncio.wait_for(body(store), TIMEOUT_S)
        finally:
            await store.close()

    asyncio.run(run())


async def put(store: MetadataStore, key: str, value: bytes, lease: int = 0) -> int:
    return (await store.txn([], [Put(key, value, lease)])).revision


async def delete(store: MetadataStore, key: str) -> int:
    return (await store.txn([], [Delete(key)])).revision


async def value_of(store: MetadataStore, key: str) -> bytes | None:
    found = await store.get(key)
    return None if found is None else found.value


class Follower:
    """Takes what a watch yields, and checks that it comes in order and in whole revisions."""

    def __init__(self, store: MetadataStore, start: int, prefix: str = "") -> None:
        self.batches: list[WatchBatch] = []
        self.events: list[Event] = []
        self.revision = start - 1
        self._watch = store.watch(prefix, start)

    async def until(self, done: Callable[[], bool]) -> list[Event]:
        while not done():
            batch = await anext(self._watch)
            assert batch.revision > self.revision
            for event in batch.events:
                assert self.revision < event.revision <= batch.revision
            revisions = [event.revision for event in batch.events]
            assert revisions == sorted(revisions)
            self.revision = batch.revision
            self.batches.append(batch)
            self.events += batch.events
        return self.events

    async def reach(self, revision: int) -> list[Event]:
        return await self.until(lambda: self.revision >= revision)


async def take(store: MetadataStore, prefix: str, start: int, count: int) -> list[Event]:
    """The next ``count`` events of a watch, and what came with the last of them."""
    follower = Follower(store, start, prefix)
    return await follower.until(lambda: len(follower.events) >= count)


# ------------------------------------------------------------ keys and transactions


def test_a_new_store_is_empty(subject: Subject) -> None:
    async def body(store: MetadataStore) -> None:
        assert await store.get("a") is None
        found = await store.range("")
        assert found.items == []
        assert await put(store, "a", b"") > found.revision

    check(subject, body)


def test_keys_remember_when_they_were_made_and_changed(subject: Subject) -> None:
    async def body(store: MetadataStore) -> None:
        first = await put(store, "a", b"1")
        second = await put(store, "a", b"2")
        assert second > first
        assert await store.get("a") == ("a", b"2", first, second, 2, 0)
        await delete(store, "a")
        assert await store.get("a") is None
        again = await put(store, "a", b"3")
        assert await store.get("a") == ("a", b"3", again, again, 1, 0)

    check(subject, body)


def test_keys_are_any_text_and_values_any_bytes(subject: Subject) -> None:
    names = ["", " ", "a/ü/\N{SNOWMAN}", "a\0b", "\N{GRINNING FACE}", "/", "a" * 300]
    values = [b"", b"\0", bytes(range(256)), b"x" * 1_000_000]

    async def body(store: MetadataStore) -> None:
        for name in names[1:]:
            await put(store, name, name.encode())
        assert [item.key for item in (await store.range("")).items] == sorted(names[1:], key=str.encode)
        for value in values:
            await put(store, "a/ü/\N{SNOWMAN}", value)
            assert await value_of(store, "a/ü/\N{SNOWMAN}") == value

    check(subject, body)


def test_a_transaction_is_one_revision_and_keeps_its_order(subject: Subject) -> None:
    async def body(store: MetadataStore) -> None:
        await put(store, "d", b"")
        succeeded, revision = await store.txn([], [Put("b", b"1"), Delete("d"), Put("a", b"2")])
        assert succeeded
        events = await take(store, "", revision, 3)
        assert events == [("b", b"1", revision), ("d", None, revision), ("a", b"2", revision)]

    check(subject, body)


def test_a_transaction_may_be_as_large_as_it_says(subject: Subject) -> None:
    async def body(store: MetadataStore) -> None:
        names = [f"{index:03}" for index in range(TXN_OPERATIONS_MAX)]
        compares = [Compare(name, 0) for name in names]
        assert (await store.txn(compares, [Put(name, b"x" * 1_000) for name in names])).succeeded
        assert not (await store.txn(compares, [])).succeeded
        assert len((await store.range("")).items) == TXN_OPERATIONS_MAX

    check(subject, body)


@pytest.mark.parametrize(
    ("compares", "operations"),
    [
        ([], [Put("a", b"1"), Put("a", b"2")]),
        ([], [Put("a", b"1"), Delete("a")]),
        ([], [Delete("a", prefix=True), Put("a/b", b"")]),
        ([], [Put(str(index), b"") for index in range(TXN_OPERATIONS_MAX + 1)]),
        ([Compare(str(index), 0) for index in range(TXN_OPERATIONS_MAX + 1)], []),
        ([Compare(str(index), 1, b"") for index in range(TXN_OPERATIONS_MAX // 2 + 1)], []),
    ],
)
def test_a_transaction_that_etcd_would_refuse_is_refused_by_all(
    subject: Subject, compares: Sequence[Compare], operations: Sequence[Operation]
) -> None:
    async def body(store: MetadataStore) -> None:
        with pytest.raises(ValueError):
            await store.txn(compares, operations)
        assert (await store.range("")).items == []

    check(subject, body)


def test_a_range_is_ordered_and_of_one_revision(subject: Subject) -> None:
    async def body(store: MetadataStore) -> None:
        for key in ("t/b", "t/a", "s", "t0", "t/a/1", "u"):
            revision = await put(store, key, key.encode())
        found = await store.range("t/")
        assert [item.key for item in found.items] == ["t/a", "t/a/1", "t/b"]
        assert found.revision >= revision
        assert len((await store.range("")).items) == 6
        assert [item.key for item in (await store.range("t")).items] == ["t/a", "t/a/1", "t/b", "t0"]

    check(subject, body)


def test_twenty_thousand_keys_are_read_at_one_revision(subject: Subject) -> None:
    """While others write: what belongs together is seen together, at both ends of the range."""

    async def body(store: MetadataStore) -> None:
        size, width = 20_480, TXN_OPERATIONS_MAX
        names = [f"k/{index:05}" for index in range(size)]
        for first in range(0, size, width):
            await store.txn([], [Put(name, name.encode()) for name in names[first : first + width]])

        await store.txn([], [Put("k/", b""), Put("k/~", b"")])

        async def write() -> None:
            for count in range(1_000_000):
                await store.txn([], [Put(name, b"%d" % count) for name in ("k/", "k/~")])

        writer = asyncio.create_task(write())
        for _ in range(2):
            found = await store.range("k/")
            assert found.items[0].value == found.items[-1].value
            assert max(item.mod_revision for item in found.items) <= found.revision
            middle = [item for item in found.items if item.key not in ("k/", "k/~")]
            assert [item.key for item in middle] == names
            assert all(item.value == item.key.encode() for item in middle)
        writer.cancel()
        await asyncio.wait([writer])

    check(subject, body)


def test_large_values_are_read_whole(subject: Subject) -> None:
    async def body(store: MetadataStore) -> None:
        values = {f"{index:02}": bytes([index]) * 1_000_000 for index in range(25)}
        start = 0
        for key, value in values.items():
            start = start or await put(store, key, value)
            await put(store, key, value)
        assert {item.key: item.value for item in (await store.range("")).items} == values
        events = await take(store, "", start + 1, 25)
        assert {event.key: event.value for event in events} == values

    check(subject, body)


def test_a_comparison_that_fails_changes_nothing(subject: Subject) -> None:
    async def body(store: MetadataStore) -> None:
        revision = await put(store, "a", b"1")
        for compare in (
            Compare("a", 0),
            Compare("a", revision + 1),
            Compare("a", value=b"2"),
            Compare("none", revision),
            Compare("none", value=b""),
            Compare("a", revision, b"2"),
            Compare("a", 0, b"1"),
        ):
            result = await store.txn([Compare("a", revision), compare], [Put("a", b"9"), Put("b", b"9")])
            assert not result.succeeded
            assert result.revision >= revision
        assert [item.value for item in (await store.range("")).items] == [b"1"]
        for compare in (Compare("a", revision), Compare("a", value=b"1"), Compare("none", 0)):
            assert (await store.txn([compare], [])).succeeded
        assert (
            await store.txn([Compare("a", revision, b"1"), Compare("none", 0)], [Put("a", b"2")])
        ).succeeded

    check(subject, body)


def test_of_two_that_compare_the_same_one_wins(subject: Subject) -> None:
    async def body(store: MetadataStore) -> None:
        racing = [store.txn([Compare("a", 0)], [Put("a", str(who).encode())]) for who in range(20)]
        results = await asyncio.gather(*racing)
        assert sum(result.succeeded for result in results) == 1

    check(subject, body)


def test_nothing_is_lost_among_writers_that_compare(subject: Subject) -> None:
    async def body(store: MetadataStore) -> None:
        start = await put(store, "n", b"0")

        async def add(times: int) -> None:
            while times:
                found = await store.get("n")
                assert found is not None
                compare = Compare("n", found.mod_revision)
                more = b"%d" % (int(found.value) + 1)
                times -= (await store.txn([compare], [Put("n", more)])).succeeded

        await asyncio.gather(*(add(20) for _ in range(5)))
        assert await value_of(store, "n") == b"100"
        events = await take(store, "n", start, 101)
        assert [event.value for event in events] == [b"%d" % count for count in range(101)]

    check(subject, body)


def test_readers_never_see_half_a_transaction(subject: Subject) -> None:
    async def body(store: MetadataStore) -> None:
        names = ["x/1", "x/2", "y"]
        start = (await store.txn([], [Put(name, b"0") for name in names])).revision

        async def write() -> None:
            for count in range(1, 200):
                await store.txn([], [Put(name, b"%d" % count) for name in names])

        writer = asyncio.create_task(write())
        while not writer.done():
            assert len({item.value for item in (await store.range("")).items}) == 1
        await writer
        follower = Follower(store, start)
        await follower.until(lambda: len(follower.events) >= 600)
        for batch in follower.batches:
            for revision in {event.revision for event in batch.events}:
                of_one = [event for event in batch.events if event.revision == revision]
                assert [event.key for event in of_one] == names
                assert len({event.value for event in of_one}) == 1

    check(subject, body)


def test_deleting_a_prefix_deletes_what_begins_with_it(subject: Subject) -> None:
    async def body(store: MetadataStore) -> None:
        await store.txn([], [Put(key, b"") for key in ("p/1", "p/2", "p", "q", "p0", "p/\N{SNOWMAN}")])
        result = await store.txn([], [Delete("p/", prefix=True), Put("z", b"")])
        assert [item.key for item in (await store.range("")).items] == ["p", "p0", "q", "z"]
        events = await take(store, "p/", result.revision, 3)
        assert events == [(key, None, result.revision) for key in ("p/1", "p/2", "p/\N{SNOWMAN}")]
        await store.txn([], [Delete("", prefix=True)])
        assert (await store.range("")).items == []

    check(subject, body)


# ------------------------------------------------------------ watches


def test_who_changed_nothing_is_told_a_revision_that_watches_reach(subject: Subject) -> None:
    """Also where the key that was compared is gone, and without any further change."""

    async def body(store: MetadataStore) -> None:
        start = await put(store, "a", b"1")
        follower = Follower(store, start)
        changed = await put(store, "a", b"2")
        results = [
            await store.txn([Compare("a", start)], [Put("a", b"3")]),
            await store.txn([Compare("a", 0)], [Put("a", b"3")]),
        ]
        deleted = await delete(store, "a")
        results += [
            await store.txn([Compare("a", changed)], [Put("a", b"3")]),
            await store.txn([Compare("a", value=b"2")], [Put("a", b"3")]),
            await store.txn([], [Delete("a"), Delete("b", prefix=True)]),
            await store.txn([Compare("a", 0)], []),
        ]
        assert [result.succeeded for result in results] == [False, False, False, False, True, True]
        assert all(result.revision >= changed for result in results[:2])
        assert all(result.revision >= deleted for result in results[2:])
        await follower.reach(max(result.revision for result in results))
        assert [event.value for event in follower.events] == [b"1", b"2", None]

    check(subject, body)


def test_a_watch_from_the_past_goes_on_into_the_future(subject: Subject) -> None:
    async def body(store: MetadataStore) -> None:
        first = await put(store, "a", b"1")
        await put(store, "x", b"")
        watcher = asyncio.create_task(take(store, "a", first, 3))
        await asyncio.sleep(0)
        second = await put(store, "a", b"2")
        third = await delete(store, "a")
        assert await watcher == [("a", b"1", first), ("a", b"2", second), ("a", None, third)]

    check(subject, body)


def test_a_watch_starts_where_it_is_told(subject: Subject) -> None:
    async def body(store: MetadataStore) -> None:
        revisions = [await put(store, "a", str(value).encode()) for value in range(5)]
        for start in range(5):
            events = await take(store, "", revisions[start], 5 - start)
            assert [event.revision for event in events] == revisions[start:]
        after = asyncio.create_task(take(store, "", revisions[-1] + 1, 1))
        await asyncio.sleep(0.02)
        assert not after.done()
        last = await put(store, "a", b"5")
        assert await after == [("a", b"5", last)]

    check(subject, body)


def test_a_watch_goes_on_from_what_was_read(subject: Subject) -> None:
    """Read all, then watch: together, nothing is missed and nothing seen twice, while others write."""

    async def body(store: MetadataStore) -> None:
        read_enough = False

        async def write() -> None:
            for count in itertools.count():
                key = f"k{count % 7}"
                await store.txn([], [Delete(key) if count % 5 == 4 else Put(key, b"%d" % count)])
                if read_enough:
                    break
            await put(store, "kend", b"")

        writer = asyncio.create_task(write())
        for _ in range(5):
            found = await store.range("k")
            image = {item.key: item.value for item in found.items}
            follower = Follower(store, found.revision + 1, "k")
            await follower.reach(found.revision + 20)
        read_enough = True
        await writer
        await follower.until(lambda: follower.events[-1].key == "kend")
        for key, value, _ in follower.events:
            if value is None:
                image.pop(key, None)
            else:
                image[key] = value
        assert image == {item.key: item.value for item in (await store.range("k")).items}

    check(subject, body)


def test_watchers_do_not_disturb_each_other(subject: Subject) -> None:
    async def body(store: MetadataStore) -> None:
        start = (await store.range("")).revision + 1
        watchers = [asyncio.create_task(take(store, "", start, 50)) for _ in range(5)]
        given_up = asyncio.create_task(take(store, "", start, 1_000))
        revisions = []
        for value in range(50):
            revisions.append(await put(store, f"k{value % 3}", str(value).encode()))
            if value == 25:
                given_up.cancel()
        seen = await asyncio.gather(*watchers)
        assert all(events == seen[0] for events in seen)
        assert [event.revision for event in seen[0]] == revisions

    check(subject, body)


def test_a_watcher_that_falls_behind_misses_nothing(subject: Subject) -> None:
    async def body(store: MetadataStore) -> None:
        follower = Follower(store, await put(store, "k", b"0"))
        await follower.until(lambda: bool(follower.events))
        await asyncio.gather(*(put(store, f"k{count}", b"x" * 2_000) for count in range(1_500)))
        await follower.until(lambda: len(follower.events) >= 1_501)
        assert {event.key for event in follower.events[1:]} == {f"k{count}" for count in range(1_500)}

    check(subject, body)


def test_a_watch_may_be_left_and_taken_up_again(subject: Subject) -> None:
    async def body(store: MetadataStore) -> None:
        position = await put(store, "a", b"0")
        seen: list[Event] = []
        for value in range(1, 20):
            await put(store, "a", b"%d" % value)
            async for batch in store.watch("a", position):
                seen += batch.events
                position = batch.revision + 1
                break
        if len(seen) < 20:
            seen += await take(store, "a", position, 20 - len(seen))
        assert [event.value for event in seen] == [b"%d" % value for value in range(20)]

    check(subject, body)


def test_a_watch_ends_with_the_store(subject: Subject) -> None:
    async def run() -> None:
        store = await subject.open()
        start = (await store.range("")).revision + 1
        watcher = asyncio.create_task(take(store, "", start, 1))
        await asyncio.sleep(0.05)
        await store.close()
        # Either is good, as long as nobody is left waiting.
        with contextlib.suppress(StoreError, StopAsyncIteration, RuntimeError):
            assert await asyncio.wait_for(watcher, HANG_S) == []
        with pytest.raises(StoreError):
            await store.get("a")
        await store.close()

    asyncio.run(run())


def test_compaction_forgets_the_past_and_says_so(subject: Subject) -> None:
    async def body(store: MetadataStore) -> None:
        revisions = [await put(store, "a", str(value).encode()) for value in range(10)]
        present = Follower(store, revisions[-1])
        await present.until(lambda: bool(present.events))
        await store.compact(revisions[5])
        for start in (revisions[0], revisions[5]):
            with pytest.raises(CompactedError) as caught:
                await take(store, "", start, 1)
            assert caught.value.compact_revision == revisions[5]
        events = await take(store, "", revisions[6], 4)
        assert [event.revision for event in events] == revisions[6:]
        assert await value_of(store, "a") == b"9"
        # Again, before, and after all that there is.
        for revision in (revisions[5], revisions[2], revisions[9] + 1_000_000):
            await store.compact(revision)
        last = await put(store, "a", b"10")
        await present.reach(last)
        assert [event.value for event in present.events] == [b"9", b"10"]

    check(subject, body)


def test_a_deletion_is_not_lost_where_the_history_begins(subject: Subject) -> None:
    async def body(store: MetadataStore) -> None:
        await put(store, "a", b"")
        deleted = await delete(store, "a")
        last = await put(store, "b", b"")
        await store.compact(deleted - 1)
        assert await take(store, "", deleted, 2) == [("a", None, deleted), ("b", b"", last)]
        await store.compact(deleted)
        with pytest.raises(CompactedError):
            await take(store, "", deleted, 1)
        assert await take(store, "", deleted + 1, 1) == [("b", b"", last)]

    check(subject, body)


def test_what_was_answered_survives_a_restart(subject: Subject) -> None:
    revisions = []

    async def write(store: MetadataStore) -> None:
        revisions.append((await store.txn([], [Put("a", b"1"), Put("b", b"2")])).revision)
        revisions.append(await delete(store, "a"))

    async def read(store: MetadataStore) -> None:
        found = await store.range("")
        assert found.revision >= revisions[1]
        assert [item.key for item in found.items] == ["b"]
        assert [event.revision for event in await take(store, "", revisions[0], 3)] == [
            revisions[0],
            revisions[0],
            revisions[1],
        ]
        assert await put(store, "c", b"") > found.revision

    check(subject, write)
    check(subject, read)


# ------------------------------------------------------------ leases


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    while not await condition():
        await asyncio.sleep(0.001)


async def gone(store: MetadataStore, key: str) -> bool:
    return await store.get(key) is None


def test_a_lease_that_ends_takes_its_keys_along(subject: Subject) -> None:
    async def body(store: MetadataStore) -> None:
        lease = await store.lease_grant(LEASE_MS)
        other = await store.lease_grant(60_000)
        await put(store, "a", b"", lease)
        await put(store, "b", b"", other)
        await put(store, "c", b"")
        revision = await put(store, "d", b"", lease)
        found = await store.get("d")
        assert found is not None
        assert found.lease == lease
        await subject.pass_time(LEASE_MS - 1_000)
        assert not await gone(store, "a")
        await subject.pass_time(1_000)
        await until(lambda: gone(store, "a"))
        assert [item.key for item in (await store.range("")).items] == ["b", "c"]
        events = await take(store, "", revision + 1, 2)
        assert sorted(event.key for event in events) == ["a", "d"]
        assert {event.value for event in events} == {None}
        assert len({event.revision for event in events}) == 1
        with pytest.raises(LeaseError):
            await store.lease_keep_alive(lease)
        with pytest.raises(LeaseError):
            await store.lease_hold(lease, lambda: None)
        with pytest.raises(LeaseError):
            await store.txn([], [Put("f", b""), Put("e", b"", lease)])
        assert [item.key for item in (await store.range("")).items] == ["b", "c"]

    check(subject, body)


def test_a_lease_that_is_kept_alive_does_not_end(subject: Subject) -> None:
    async def body(store: MetadataStore) -> None:
        lease = await store.lease_grant(LEASE_MS)
        await put(store, "a", b"", lease)
        # The last look is beyond what the first renewal alone would have given.
        for _ in range(3):
            await subject.pass_time(LEASE_MS * 3 // 5)
            await store.lease_keep_alive(lease)
        assert not await gone(store, "a")

    check(subject, body)


def test_a_lease_that_is_held_does_not_end_until_it_is_released(subject: Subject) -> None:
    async def body(store: MetadataStore) -> None:
        lost: list[str] = []
        lease = await store.lease_grant(LEASE_MS)
        await store.lease_hold(lease, lambda: lost.append("lost"))
        await put(store, "a", b"", lease)
        for _ in range(3):
            await subject.pass_time(LEASE_MS)
        assert not await gone(store, "a")
        await store.lease_release(lease)
        await store.lease_release(lease)
        await subject.pass_time(LEASE_MS)
        await until(lambda: gone(store, "a"))
        assert not lost

    check(subject, body)


def test_a_lease_that_is_revoked_ends_at_once(subject: Subject) -> None:
    async def body(store: MetadataStore) -> None:
        lost: list[str] = []
        lease = await store.lease_grant(60_000)
        await put(store, "a", b"", lease)
        await put(store, "b", b"", lease)
        await put(store, "b", b"", 0)
        await store.lease_hold(lease, lambda: lost.append("lost"))
        await store.lease_revoke(lease)
        assert await gone(store, "a")
        assert not await gone(store, "b")
        with pytest.raises(LeaseError):
            await store.lease_revoke(lease)
        await subject.pass_time(500)
        assert not lost

    check(subject, body)


def test_who_holds_a_lease_is_told_once_when_another_ends_it(subject: Subject) -> None:
    if not subject.shared:
        pytest.skip("nobody else can end its leases")

    async def body(store: MetadataStore) -> None:
        other = await subject.open()
        loop = asyncio.get_running_loop()
        lost: list[object] = []
        told = asyncio.Event()

        def lose() -> None:
            lost.append(asyncio.get_running_loop())
            told.set()

        lease = await store.lease_grant(LEASE_MS)
        kept = await store.lease_grant(LEASE_MS)
        await put(store, "a", b"", lease)
        await store.lease_hold(lease, lose)
        await store.lease_hold(kept, lose)
        await other.lease_revoke(lease)
        await told.wait()
        await subject.pass_time(LEASE_MS)
        assert lost == [loop]
        await store.lease_keep_alive(kept)
        await other.close()

    check(subject, body)


def test_leases_outlive_a_restart_by_their_time(subject: Subject) -> None:
    if isinstance(subject, MemorySubject):
        pytest.skip("it belongs to one event loop")

    async def write(store: MetadataStore) -> None:
        lease = await store.lease_grant(LEASE_MS)
        await store.lease_hold(lease, lambda: None)
        await put(store, "a", b"", lease)

    async def read(store: MetadataStore) -> None:
        assert not await gone(store, "a")
        await subject.pass_time(LEASE_MS)
        await until(lambda: gone(store, "a"))

    check(subject, write)
    check(subject, read)


# ------------------------------------------------------------ against a model


keys = st.sampled_from(["a", "a/1", "a/2", "b"])
operations = st.one_of(
    st.builds(Put, keys, st.binary(max_size=3), st.just(0)),
    st.builds(Delete, keys, st.booleans()),
)
# Which of the revisions so far a comparison names is drawn as an index, from the end.
compares = st.builds(Compare, keys, st.none() | st.integers(0, 4), st.none() | st.binary(max_size=1))
transactions = st.tuples(st.lists(compares, max_size=2), st.lists(operations, max_size=4))


def allowed(drawn: Sequence[Operation]) -> list[Operation]:
    """Those operations that one transaction may hold, from the first on."""
    chosen: list[Operation] = []
    for operation in drawn:
        try:
            check_txn([], [*chosen, operation])
        except ValueError:
            continue
        chosen.append(operation)
    return chosen


class Model:
    """What a dict would do."""

    def __init__(self) -> None:
        self.items: dict[str, tuple[bytes, int]] = {}
        self.revisions: list[int] = []
        self.events: list[Event] = []

    def named(self, drawn: Compare) -> Compare:
        """With a revision of this history in place of the index that was drawn."""
        index = drawn.mod_revision
        if not index or index > len(self.revisions):
            return drawn._replace(mod_revision=None if index is None else 0)
        return drawn._replace(mod_revision=self.revisions[-index])

    def holds(self, compare: Compare) -> bool:
        value, revision = self.items.get(compare.key, (None, 0))
        return (compare.mod_revision is None or compare.mod_revision == revision) and (
            compare.value is None or compare.value == value
        )

    def changes(self, operations: Sequence[Operation]) -> list[tuple[str, bytes | None]]:
        """What the operations change, in order, beginning with what is there."""
        present, changes = dict.fromkeys(self.items), []
        for operation in operations:
            if isinstance(operation, Put):
                present[operation.key] = None
                changes.append((operation.key, operation.value))
                continue
            for key in sorted(present):
                if key == operation.key or (operation.prefix and key.startswith(operation.key)):
                    del present[key]
                    changes.append((key, None))
        return changes

    def apply(self, changes: Sequence[tuple[str, bytes | None]], revision: int) -> None:
        for key, value in changes:
            if value is None:
                del self.items[key]
            else:
                self.items[key] = (value, revision)
            self.events.append(Event(key, value, revision))
        if changes:
            self.revisions.append(revision)


@pytest.mark.parametrize("kind", sorted(STORES))
@given(history=st.lists(transactions, max_size=12))
def test_a_store_does_what_a_dict_would(
    kind: str, tmp_path_factory: pytest.TempPathFactory, history: list[Any]
) -> None:
    subject = STORES[kind](tmp_path_factory.mktemp("store"))

    async def body(store: MetadataStore) -> None:
        model = Model()
        start = (await store.range("")).revision + 1
        told = start - 1
        for drawn, operations in history:
            conditions = [model.named(compare) for compare in drawn]
            operations = allowed(operations)
            holds = all(map(model.holds, conditions))
            changes = model.changes(operations) if holds else []
            succeeded, revision = await store.txn(conditions, operations)
            assert succeeded == holds
            if changes:
                assert revision > max(told, *model.revisions, 0)
            told = max(told, revision)
            model.apply(changes, revision)
        found = await store.range("")
        assert found.revision >= told
        assert {item.key: (item.value, item.mod_revision) for item in found.items} == model.items
        assert await Follower(store, start).reach(told) == model.events

    check(subject, body)
