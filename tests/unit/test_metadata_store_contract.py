"""The contract of a metadata store. Every implementation passes these; add it to ``STORES``."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ottla.metadata.sqlite import SqliteStore
from ottla.metadata.store import (
    CompactedError,
    Compare,
    Delete,
    Event,
    LeaseError,
    MetadataStore,
    Put,
    StoreError,
)


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


Open = Callable[[], Awaitable[MetadataStore]]
STORES: dict[str, Callable[[Path, ManualClock], Open]] = {
    "sqlite": lambda path, clock: lambda: SqliteStore.open(str(path / "metadata.db"), clock),
}


class Subject:
    """A store under test: ``open`` opens it, again after a close as after a restart."""

    def __init__(self, kind: str, path: Path) -> None:
        self.clock = ManualClock()
        self.open = STORES[kind](path, self.clock)


@pytest.fixture(params=sorted(STORES))
def subject(request: pytest.FixtureRequest, tmp_path: Path) -> Subject:
    return Subject(request.param, tmp_path)


def check(subject: Subject, body: Callable[[MetadataStore], Coroutine[Any, Any, None]]) -> None:
    async def run() -> None:
        store = await subject.open()
        try:
            await asyncio.wait_for(body(store), 20)
        finally:
            await store.close()

    asyncio.run(run())


async def put(store: MetadataStore, key: str, value: bytes, lease: int = 0) -> int:
    return (await store.txn([], [Put(key, value, lease)])).revision


async def take(store: MetadataStore, prefix: str, start: int, count: int) -> list[Event]:
    """The next ``count`` events of a watch, which must come in whole revisions."""
    events: list[Event] = []
    async for batch in store.watch(prefix, start):
        assert batch.events
        assert batch.events[-1].revision <= batch.revision
        events += batch.events
        if len(events) >= count:
            return events
    return events


def test_a_new_store_is_empty(subject: Subject) -> None:
    async def body(store: MetadataStore) -> None:
        assert await store.get("a") is None
        assert await store.range("") == (0, [])

    check(subject, body)


def test_keys_remember_when_they_were_made_and_changed(subject: Subject) -> None:
    async def body(store: MetadataStore) -> None:
        first = await put(store, "a", b"1")
        second = await put(store, "a", b"2")
        assert second == first + 1
        assert await store.get("a") == ("a", b"2", first, second, 2, 0)
        await store.txn([], [Delete("a")])
        assert await store.get("a") is None
        again = await put(store, "a", b"3")
        assert await store.get("a") == ("a", b"3", again, again, 1, 0)

    check(subject, body)


def test_a_transaction_is_one_revision_and_keeps_its_order(subject: Subject) -> None:
    async def body(store: MetadataStore) -> None:
        result = await store.txn([], [Put("b", b"1"), Put("a", b"2"), Put("b", b"3")])
        assert result == (True, 1)
        assert (await store.get("b")).value == b"3"  # type: ignore[union-attr]
        events = await take(store, "", 1, 3)
        assert events == [("b", b"1", 1), ("a", b"2", 1), ("b", b"3", 1)]

    check(subject, body)


def test_a_range_is_ordered_and_of_one_revision(subject: Subject) -> None:
    async def body(store: MetadataStore) -> None:
        for key in ("t/b", "t/a", "s", "t0", "t/a/1", "u"):
            await put(store, key, key.encode())
        found = await store.range("t/")
        assert [item.key for item in found.items] == ["t/a", "t/a/1", "t/b"]
        assert found.revision == 6
        assert len((await store.range("")).items) == 6

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
        ):
            result = await store.txn([Compare("a", revision), compare], [Put("a", b"9"), Put("b", b"9")])
            assert result == (False, revision)
        assert (await store.range("")).items[0].value == b"1"
        for compare in (Compare("a", revision), Compare("a", value=b"1"), Compare("none", 0)):
            assert (await store.txn([compare], [])).succeeded

    check(subject, body)


def test_of_two_that_compare_the_same_one_wins(subject: Subject) -> None:
    async def body(store: MetadataStore) -> None:
        racing = [store.txn([Compare("a", 0)], [Put("a", str(who).encode())]) for who in range(20)]
        results = await asyncio.gather(*racing)
        assert sum(result.succeeded for result in results) == 1

    check(subject, body)


def test_deleting_a_prefix_deletes_what_begins_with_it(subject: Subject) -> None:
    async def body(store: MetadataStore) -> None:
        await store.txn([], [Put("p/1", b""), Put("p/2", b""), Put("p", b""), Put("q", b"")])
        result = await store.txn([], [Delete("p/", prefix=True)])
        assert [item.key for item in (await store.range("")).items] == ["p", "q"]
        events = await take(store, "p/", result.revision, 2)
        assert events == [("p/1", None, 2), ("p/2", None, 2)]

    check(subject, body)


def test_deleting_nothing_makes_no_revision(subject: Subject) -> None:
    async def body(store: MetadataStore) -> None:
        await put(store, "a", b"")
        assert await store.txn([], [Delete("b"), Delete("c", prefix=True)]) == (True, 1)

    check(subject, body)


def test_a_watch_from_the_past_goes_on_into_the_future(subject: Subject) -> None:
    async def body(store: MetadataStore) -> None:
        await put(store, "a", b"1")
        await put(store, "x", b"")
        watcher = asyncio.create_task(take(store, "a", 1, 3))
        await asyncio.sleep(0)
        await put(store, "a", b"2")
        await store.txn([], [Delete("a")])
        assert await watcher == [("a", b"1", 1), ("a", b"2", 3), ("a", None, 4)]

    check(subject, body)


def test_a_watch_starts_where_it_is_told(subject: Subject) -> None:
    async def body(store: MetadataStore) -> None:
        for value in range(5):
            await put(store, "a", str(value).encode())
        assert [event.revision for event in await take(store, "", 4, 2)] == [4, 5]

    check(subject, body)


def test_watchers_do_not_disturb_each_other(subject: Subject) -> None:
    async def body(store: MetadataStore) -> None:
        watchers = [asyncio.create_task(take(store, "", 1, 50)) for _ in range(5)]
        for value in range(50):
            await put(store, f"k{value % 3}", str(value).encode())
        seen = await asyncio.gather(*watchers)
        assert all(events == seen[0] for events in seen)
        assert [event.revision for event in seen[0]] == list(range(1, 51))

    check(subject, body)


def test_a_watch_ends_with_the_store(subject: Subject) -> None:
    async def run() -> None:
        store = await subject.open()
        watcher = asyncio.create_task(take(store, "", 1, 1))
        await asyncio.sleep(0.01)
        await store.close()
        with contextlib.suppress(StoreError):  # as good: nobody is left waiting
            assert await asyncio.wait_for(watcher, 20) == []
        with pytest.raises(StoreError):
            await store.get("a")

    asyncio.run(run())


def test_compaction_forgets_the_past_and_says_so(subject: Subject) -> None:
    async def body(store: MetadataStore) -> None:
        for value in range(10):
            await put(store, "a", str(value).encode())
        await store.compact(6)
        with pytest.raises(CompactedError) as caught:
            await take(store, "", 6, 1)
        assert caught.value.compact_revision == 6
        assert [event.revision for event in await take(store, "", 7, 4)] == [7, 8, 9, 10]
        assert (await store.get("a")).value == b"9"  # type: ignore[union-attr]

    check(subject, body)


def test_what_was_answered_survives_a_restart(subject: Subject) -> None:
    async def write(store: MetadataStore) -> None:
        await store.txn([], [Put("a", b"1"), Put("b", b"2")])
        await store.txn([], [Delete("a")])

    async def read(store: MetadataStore) -> None:
        found = await store.range("")
        assert (found.revision, [item.key for item in found.items]) == (2, ["b"])
        assert len(await take(store, "", 1, 3)) == 3
        assert await put(store, "c", b"") == 3

    check(subject, write)
    check(subject, read)


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    while not await condition():
        await asyncio.sleep(0.001)


async def gone(store: MetadataStore, key: str) -> bool:
    return await store.get(key) is None


def test_a_lease_that_ends_takes_its_keys_along(subject: Subject) -> None:
    async def body(store: MetadataStore) -> None:
        lease = await store.lease_grant(1_000)
        other = await store.lease_grant(5_000)
        await put(store, "a", b"", lease)
        await put(store, "b", b"", other)
        await put(store, "c", b"")
        revision = await put(store, "d", b"", lease)
        subject.clock.advance(999)
        assert not await gone(store, "a")
        subject.clock.advance(1)
        await until(lambda: gone(store, "a"))
        assert [item.key for item in (await store.range("")).items] == ["b", "c"]
        events = await take(store, "", revision + 1, 2)
        assert {(event.key, event.value, event.revision) for event in events} == {
            ("a", None, revision + 1),
            ("d", None, revision + 1),
        }
        with pytest.raises(LeaseError):
            await store.lease_keep_alive(lease)
        with pytest.raises(LeaseError):
            await put(store, "e", b"", lease)
        assert await gone(store, "e")

    check(subject, body)


def test_a_lease_that_is_kept_alive_does_not_end(subject: Subject) -> None:
    async def body(store: MetadataStore) -> None:
        lease = await store.lease_grant(1_000)
        await put(store, "a", b"", lease)
        for _ in range(5):
            subject.clock.advance(900)
            await store.lease_keep_alive(lease)
        await asyncio.sleep(0.01)
        assert not await gone(store, "a")

    check(subject, body)


def test_a_lease_that_is_revoked_ends_at_once(subject: Subject) -> None:
    async def body(store: MetadataStore) -> None:
        lease = await store.lease_grant(60_000)
        await put(store, "a", b"", lease)
        await put(store, "b", b"", lease)
        await put(store, "b", b"", 0)
        await store.lease_revoke(lease)
        assert await gone(store, "a")
        assert not await gone(store, "b")
        with pytest.raises(LeaseError):
            await store.lease_revoke(lease)

    check(subject, body)


def test_leases_outlive_a_restart_by_their_time(subject: Subject) -> None:
    async def write(store: MetadataStore) -> None:
        await put(store, "a", b"", await store.lease_grant(1_000))

    async def read(store: MetadataStore) -> None:
        assert not await gone(store, "a")
        subject.clock.advance(1_000)
        await until(lambda: gone(store, "a"))

    check(subject, write)
    check(subject, read)


keys = st.sampled_from(["a", "a/1", "a/2", "b"])
operations = st.one_of(
    st.builds(Put, keys, st.binary(max_size=3), st.just(0)),
    st.builds(Delete, keys, st.booleans()),
)
compares = st.builds(Compare, keys, st.none() | st.integers(0, 6), st.none() | st.binary(max_size=1))
transactions = st.tuples(st.lists(compares, max_size=1), st.lists(operations, max_size=4))


@pytest.mark.parametrize("kind", sorted(STORES))
@given(history=st.lists(transactions, max_size=12))
def test_a_store_does_what_a_dict_would(
    kind: str, tmp_path_factory: pytest.TempPathFactory, history: list[Any]
) -> None:
    subject = Subject(kind, tmp_path_factory.mktemp("store"))

    async def body(store: MetadataStore) -> None:
        model: dict[str, tuple[bytes, int]] = {}
        expected: list[Event] = []
        revision = 0
        for conditions, changes in history:
            holds = all(
                (c.mod_revision is None or c.mod_revision == model.get(c.key, (b"", 0))[1])
                and (c.value is None or (c.key in model and model[c.key][0] == c.value))
                for c in conditions
            )
            events: list[Event] = []
            for change in changes if holds else ():
                if isinstance(change, Put):
                    model[change.key] = (change.value, revision + 1)
                    events.append(Event(change.key, change.value, revision + 1))
                    continue
                matches = [
                    k
                    for k in sorted(model)
                    if k == change.key or (change.prefix and k.startswith(change.key))
                ]
                for key in matches:
                    del model[key]
                    events.append(Event(key, None, revision + 1))
            revision += bool(events)
            expected += events
            assert await store.txn(conditions, changes) == (holds, revision)
        found = await store.range("")
        assert found.revision == revision
        assert {item.key: (item.value, item.mod_revision) for item in found.items} == model
        if expected:
            assert await take(store, "", 1, len(expected)) == expected

    check(subject, body)
