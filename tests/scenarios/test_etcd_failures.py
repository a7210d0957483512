"""What the store does while etcd's members die, hang, are cut off, or forget (docs/STORE.md)."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, suppress
from itertools import pairwise
from typing import Any

import pytest

from etcd_support import EtcdCluster, Proxy, namespace
from measuring import at_most
from ottla.env.clock import SystemClock
from ottla.metadata.etcd import EtcdStore
from ottla.metadata.store import (
    CompactedError,
    Compare,
    Delete,
    Event,
    MetadataStore,
    OutcomeUnknownError,
    Put,
    RewoundError,
    StoreError,
)
from ottla.metadata.stores import open_store

# A tenth of what a person would set, so that tests need not wait long.
TIMEOUT_MS = 1_500
TIMEOUT_S = 50.0


@pytest.fixture(scope="module")
def three() -> Iterator[EtcdCluster]:
    with EtcdCluster(3) as cluster:
        yield cluster


@pytest.fixture
def etcd(three: EtcdCluster) -> Iterator[EtcdCluster]:
    """Three members, all of them healthy again after the test."""
    yield three
    for index, member in enumerate(three.members):
        if member.alive():
            three.resume(index)
        else:
            member.kill()
    three.start()


@pytest.fixture
def single() -> Iterator[EtcdCluster]:
    with EtcdCluster(1) as cluster:
        yield cluster


def run(body: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(body, TIMEOUT_S))


@asynccontextmanager
async def opened(endpoints: str, cluster: str, timeout_ms: int = TIMEOUT_MS) -> AsyncIterator[EtcdStore]:
    url = f"etcd://{endpoints}?timeout-ms={timeout_ms}"
    store = await open_store(url, cluster=cluster, clock=SystemClock())
    assert isinstance(store, EtcdStore)
    try:
        yield store
    finally:
        await store.close()


async def put(store: MetadataStore, key: str, value: bytes, lease: int = 0) -> int:
    return (await store.txn([], [Put(key, value, lease)])).revision


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.005)


class Watcher:
    """Follows everything, in the background, from the revision after ``start``."""

    def __init__(self, store: MetadataStore, start: int) -> None:
        self.events: list[Event] = []
        self.error: StoreError | None = None
        self._task = asyncio.create_task(self._follow(store, start + 1))

    async def _follow(self, store: MetadataStore, start: int) -> None:
        try:
            async for batch in store.watch("", start):
                self.events += batch.events
        except StoreError as error:
            self.error = error

    def values(self, key: str) -> list[bytes | None]:
        """What the key was set to, each value once: `put_somehow` may write it several times."""
        return list(dict.fromkeys(event.value for event in self.events if event.key == key))

    async def sees(self, value: bytes) -> None:
        await until(lambda: any(event.value == value for event in self.events))


class Writer:
    """Writes one number after the other, and remembers which ones were acknowledged and when."""

    def __init__(self, store: MetadataStore) -> None:
        self.acknowledged: list[int] = []
        self.failures: list[StoreError] = []
        self.gap_s_max = 0.0
        self._store = store
        self._stop = False
        self._task = asyncio.create_task(self._write())

    async def _write(self) -> None:
        last = time.monotonic()
        number = 0
        while not self._stop:
            number += 1
            try:
                await put(self._store, "n", b"%d" % number)
            except StoreError as error:
                self.failures.append(error)
                continue
            now = time.monotonic()
            self.gap_s_max, last = max(self.gap_s_max, now - last), now
            self.acknowledged.append(number)
            await asyncio.sleep(0.002)

    async def more(self, count: int = 20) -> None:
        """Wait for so many further acknowledgements."""
        wanted = len(self.acknowledged) + count
        await until(lambda: len(self.acknowledged) >= wanted)

    async def stop(self) -> None:
        self._stop = True
        await self._task


def check_seen(watcher: Watcher, writer: Writer) -> None:
    """In order, each once, all that were acknowledged; else only what may have been done."""
    seen = [int(event.value or b"0") for event in watcher.events]
    assert all(before < after for before, after in pairwise(seen)), seen
    missing = set(writer.acknowledged) - set(seen)
    assert not missing
    unknown = sum(isinstance(error, OutcomeUnknownError) for error in writer.failures)
    assert len(set(seen) - set(writer.acknowledged)) <= unknown


def current(etcd: EtcdCluster, store: EtcdStore) -> int:
    return [member.endpoint for member in etcd.members].index(store.endpoint)


async def survives(
    etcd: EtcdCluster, harm: Callable[[EtcdStore], Coroutine[Any, Any, None]], gap_s_max: float
) -> None:
    """Watching and writing go on after ``harm`` and nothing is missed; a pause is at most so long."""
    async with opened(etcd.endpoints, namespace()) as store:
        watcher = Watcher(store, await put(store, "n", b"0"))
        writer = Writer(store)
        await writer.more()
        await harm(store)
        await writer.more()
        await writer.stop()
        await watcher.sees(b"%d" % writer.acknowledged[-1])
        check_seen(watcher, writer)
        print(f"gap {writer.gap_s_max:.2f} s, {len(writer.failures)} failures")
        assert writer.gap_s_max < gap_s_max


def test_the_member_that_is_asked_may_be_killed(etcd: EtcdCluster) -> None:
    async def harm(store: EtcdStore) -> None:
        follow(etcd, current(etcd, store))
        etcd.kill(current(etcd, store))

    run(survives(etcd, harm, 5.0))


def follow(etcd: EtcdCluster, index: int) -> None:
    """Have a member not be the leader: that is another test's."""
    if etcd.leader() == index:
        etcd.ctl("move-leader", _member_id(etcd, (index + 1) % 3))


def _member_id(etcd: EtcdCluster, index: int) -> str:
    lines = etcd.ctl("endpoint", "status").splitlines()
    (line,) = [line for line in lines if line.startswith(etcd.members[index].endpoint)]
    return line.split(", ")[1]


def test_the_leader_of_etcd_may_be_killed(etcd: EtcdCluster) -> None:
    async def harm(store: EtcdStore) -> None:
        etcd.kill(etcd.leader())

    run(survives(etcd, harm, 8.0))


def test_the_member_that_is_asked_may_hang(etcd: EtcdCluster) -> None:
    """Its connections stay open, and nothing comes: only a deadline tells."""

    async def harm(store: EtcdStore) -> None:
        follow(etcd, current(etcd, store))
        # It may have gone to another one while leaders changed.
        hung = store.endpoint
        etcd.pause(current(etcd, store))
        assert await store.get("n") is not None
        assert store.endpoint != hung

    run(survives(etcd, harm, 8.0))


def test_a_watch_leaves_a_member_that_hangs_without_any_call(etcd: EtcdCluster) -> None:
    """The lease's keeper notices, or at last the connection's keep-alive."""

    async def body() -> None:
        name = namespace()
        async with opened(etcd.endpoints, name) as store, opened(etcd.endpoints, name) as other:
            start = await put(other, "n", b"0")
            watcher = Watcher(store, start)
            await store.lease_hold(await store.lease_grant(2_000), lambda: None)
            await put(other, "n", b"1")
            await watcher.sees(b"1")
            # The keeper and the watch may be at different members; both are to move.
            for index in range(3):
                if index != etcd.leader():
                    etcd.pause(index)
                    await put_somehow(other, b"paused %d" % index)
                    await watcher.sees(b"paused %d" % index)
                    etcd.resume(index)
                    etcd.wait_healthy()

    run(body())


async def put_somehow(store: MetadataStore, value: bytes) -> None:
    while True:
        with suppress(StoreError):
            await put(store, "n", value)
            return


def test_without_a_quorum_calls_fail_and_with_it_all_goes_on(etcd: EtcdCluster) -> None:
    async def body() -> None:
        async with opened(etcd.endpoints, namespace()) as store:
            watcher = Watcher(store, await put(store, "n", b"0"))
            await put(store, "n", b"1")
            await watcher.sees(b"1")
            alone = current(etcd, store)
            others = [index for index in range(3) if index != alone]
            etcd.pause(others[0])
            etcd.kill(others[1])
            # Until the last member has noticed that nobody follows it.
            # Each call ends within twice its timeout.
            for attempt in at_most(3 * 2 * TIMEOUT_MS / 1_000, "s", attempts=3):
                with attempt.wall():
                    with pytest.raises(StoreError):
                        await store.get("n")
                    with pytest.raises(StoreError):
                        await put(store, "n", b"2")
                    with pytest.raises(StoreError):
                        await store.lease_grant(2_000)
            etcd.resume(others[0])
            await put_somehow(store, b"3")
            await watcher.sees(b"3")
            assert [value for value in watcher.values("n") if value != b"2"] == [b"1", b"3"]

    run(body())


def test_all_members_may_stop_and_start_again(etcd: EtcdCluster, caplog: pytest.LogCaptureFixture) -> None:
    async def body() -> None:
        name = namespace()
        async with opened(etcd.endpoints, name) as store, opened(etcd.endpoints, name) as other:
            lost: list[str] = []
            start = await put(store, "n", b"0")
            lease = await store.lease_grant(2_000)
            await store.lease_hold(lease, lambda: lost.append("lost"))
            await put(store, "leased", b"", lease)
            watchers = [Watcher(store, start), Watcher(other, start)]
            etcd.kill_all()
            for attempt in at_most(2 * 2 * TIMEOUT_MS / 1_000, "s"):
                with attempt.wall():
                    with pytest.raises(StoreError) as caught:
                        await store.get("n")
                    assert not isinstance(caught.value, OutcomeUnknownError)
                    with pytest.raises(StoreError):
                        await put(store, "n", b"x")
            # Nothing could have arrived: that is known.
            with pytest.raises(StoreError) as caught:
                await put(store, "n", b"x")
            assert not isinstance(caught.value, OutcomeUnknownError)
            await asyncio.to_thread(etcd.start)
            await put_somehow(other, b"1")
            for watcher in watchers:
                await watcher.sees(b"1")
                assert watcher.values("n") == [b"1"]
            # The outage was longer than the lease; but etcd, which alone could end it, was away, too.
            assert not lost
            assert await store.get("leased") is not None

    run(body())
    said = [
        record.message for record in caplog.records if "etcd cannot be reached, retrying" in record.message
    ]
    assert 1 <= len(said) <= 2, said


def test_a_watch_that_was_cut_off_goes_on_where_it_was(single: EtcdCluster) -> None:
    async def body() -> None:
        name = namespace()
        proxy = await Proxy(single.members[0]).open()
        async with opened(proxy.endpoint, name) as store, opened(single.endpoints, name) as other:
            watcher = Watcher(store, await put(other, "n", b"0"))
            await put(other, "n", b"1")
            await watcher.sees(b"1")
            await proxy.refuse()
            for number in range(2, 50):
                await put(other, "n", b"%d" % number)
            await proxy.open()
            await watcher.sees(b"49")
            assert [event.value for event in watcher.events] == [b"%d" % number for number in range(1, 50)]
        await proxy.refuse()

    run(body())


def test_a_watch_that_was_cut_off_for_too_long_says_so(single: EtcdCluster) -> None:
    """etcd was compacted meanwhile."""

    async def body() -> None:
        name = namespace()
        proxy = await Proxy(single.members[0]).open()
        async with opened(proxy.endpoint, name) as store, opened(single.endpoints, name) as other:
            watcher = Watcher(store, await put(other, "n", b"0"))
            await put(other, "n", b"1")
            await watcher.sees(b"1")
            await proxy.refuse()
            compacted = await put(other, "n", b"2")
            await put(other, "n", b"3")
            await other.compact(compacted)
            await proxy.open()
            await until(lambda: watcher.error is not None)
            assert isinstance(watcher.error, CompactedError)
            assert watcher.error.compact_revision == compacted
            # Compaction is no fault of those who are up to date.
            watcher = Watcher(store, compacted)
            await watcher.sees(b"3")
        await proxy.refuse()

    run(body())


def test_an_outcome_that_is_unknown_is_called_so_and_never_repeated(single: EtcdCluster) -> None:
    async def body() -> None:
        name = namespace()
        proxy = await Proxy(single.members[0]).open()
        async with opened(proxy.endpoint, name) as store, opened(single.endpoints, name) as other:
            start = await put(store, "n", b"0")
            watcher = Watcher(other, start)
            proxy.mute = True
            with pytest.raises(OutcomeUnknownError):
                await put(store, "n", b"1")
            with pytest.raises(OutcomeUnknownError):
                await store.txn([Compare("m", 0)], [Put("m", b"1")])
            proxy.mute = False
            await proxy.refuse()
            await proxy.open()
            await put_somehow(store, b"2")
            await watcher.sees(b"2")
            assert [event.value for event in watcher.events] == [b"1", b"1", b"2"]
        await proxy.refuse()

    run(body())


@pytest.mark.parametrize("fault", ["deaf", "mute"])
def test_a_transaction_that_can_succeed_only_once_is_tried_again(single: EtcdCluster, fault: str) -> None:
    """Never done: it succeeds elsewhere. Done, and nobody said so: it is not known whether it was ours."""

    async def body() -> None:
        name = namespace()
        proxy = await Proxy(single.members[0]).open()
        both = f"{proxy.endpoint},{single.endpoints}"
        async with opened(both, name) as store, opened(single.endpoints, name) as other:
            revision = await put(other, "n", b"0")
            watcher = Watcher(other, revision)
            await ask(store, proxy.endpoint)
            # Connected: a greeting that is swallowed would keep the call from being sent.
            assert await store.get("n") is not None
            setattr(proxy, fault, True)
            for operation in (Put("n", b"1"), Delete("n")):
                await ask(store, proxy.endpoint)
                again = store.txn([Compare("n", revision)], [operation])
                if fault == "deaf":
                    succeeded, revision = await again
                    assert succeeded
                else:
                    with pytest.raises(OutcomeUnknownError):
                        await again
                    found = await other.get("n")
                    revision = 0 if found is None else found.mod_revision
                assert store.endpoint != proxy.endpoint
            await until(lambda: len(watcher.events) == 2)
            assert [event.value for event in watcher.events] == [b"1", None]
        await proxy.refuse()

    run(body())


async def ask(store: EtcdStore, endpoint: str) -> None:
    """Have the store ask this one next."""
    while store.endpoint != endpoint:
        store._client.suspect(store.endpoint)


def test_etcd_that_has_lost_its_data_is_not_believed(single: EtcdCluster) -> None:
    async def body() -> None:
        name = namespace()
        async with opened(single.endpoints, name) as store, opened(single.endpoints, name) as idle:
            start = await put(store, "n", b"0")
            await put(idle, "n", b"1")
            watcher = Watcher(idle, start)
            await watcher.sees(b"1")
            single.wipe()
            await asyncio.to_thread(single.start)
            # The watch finds out by itself, and so does who asks.
            await until(lambda: watcher.error is not None)
            assert isinstance(watcher.error, RewoundError)
            for asked in (store, idle):
                with pytest.raises(RewoundError, match="restart"):
                    await asked.get("n")
                with pytest.raises(RewoundError):
                    await put(asked, "n", b"2")
        async with opened(single.endpoints, name) as store:
            assert (await store.range("")).items == []

    run(body())


def test_clusters_that_share_etcd_do_not_see_each_other(single: EtcdCluster) -> None:
    """Not their keys, nor by waiting for revisions that the other one made."""

    async def body() -> None:
        async with opened(single.endpoints, "a") as store, opened(single.endpoints, "a2") as other:
            first = await put(store, "k", b"1")
            watcher = Watcher(store, first - 1)
            reached: list[int] = []

            async def follow() -> None:
                async for batch in store.watch("", first):
                    reached.append(batch.revision)

            following = asyncio.create_task(follow())
            for number in range(20):
                await put(other, f"k{number}", b"")
            failed = await store.txn([Compare("k", 0)], [Put("k", b"2")])
            await until(lambda: bool(reached) and reached[-1] >= failed.revision)
            await store.txn([], [Delete("k")])
            for number in range(20):
                await put(other, f"k{number}", b"")
            gone = await store.txn([Compare("k", first)], [Put("k", b"2")])
            await until(lambda: reached[-1] >= gone.revision)
            following.cancel()
            assert (await store.range("")).items == []
            assert [event.value for event in watcher.events] == [b"1", None]
            assert len((await other.range("")).items) == 20
            await other.txn([], [Delete("", prefix=True)])
            await put(store, "k", b"3")
            assert await store.get("k") is not None

    run(body())


# ------------------------------------------------------------ leases


def test_a_lease_is_kept_while_the_loop_turns_however_slowly(etcd: EtcdCluster) -> None:
    """Busy with Python code, which does not give up the interpreter by itself; or asleep, as in a system
    call."""

    async def body() -> None:
        lost: list[str] = []
        async with opened(etcd.endpoints, namespace()) as store:
            lease = await store.lease_grant(2_000)
            await store.lease_hold(lease, lambda: lost.append("lost"))
            await put(store, "a", b"", lease)
            for _ in range(4):
                end = time.monotonic() + 1
                while time.monotonic() < end:
                    sum(range(10_000))
                await asyncio.sleep(0)
                assert store.lease_lasts(lease)
            for _ in range(4):
                time.sleep(1)
                await asyncio.sleep(0)
            assert await store.get("a") is not None
            assert store.lease_lasts(lease) and not lost

    run(body())


def test_a_lease_ends_while_the_loop_stands_still(etcd: EtcdCluster) -> None:
    """Nobody renews it then. What is asked first thing afterwards is told that it may have ended, before etcd
    is heard of it."""

    async def body() -> None:
        name = namespace()
        lost = asyncio.Event()
        async with opened(etcd.endpoints, name) as store, opened(etcd.endpoints, name) as other:
            lease = await store.lease_grant(2_000)
            await store.lease_hold(lease, lost.set)
            await put(store, "a", b"", lease)
            await asyncio.sleep(2.5)
            assert store.lease_lasts(lease)
            # As long as etcd may take to notice, and more.
            time.sleep(5)
            assert not store.lease_lasts(lease)
            await lost.wait()
            assert not store.lease_lasts(lease)
            assert await other.get("a") is None

    run(body())


def test_a_lease_is_kept_while_members_come_and_go(etcd: EtcdCluster) -> None:
    async def body() -> None:
        lost: list[str] = []
        async with opened(etcd.endpoints, namespace()) as store:
            lease = await store.lease_grant(2_000)
            await store.lease_hold(lease, lambda: lost.append("lost"))
            await put(store, "a", b"", lease)
            for index in range(3):
                etcd.kill(index)
                await asyncio.sleep(1.5)
                await asyncio.to_thread(etcd.start_member, index)
            assert not lost
            assert await store.get("a") is not None

    run(body())


HOLDER = """
import asyncio, sys
from ottla.env.clock import SystemClock
from ottla.metadata.store import Put
from ottla.metadata.stores import open_store

async def main():
    store = await open_store(sys.argv[1], cluster=sys.argv[2], clock=SystemClock())
    lease = await store.lease_grant(2_000)
    lost = asyncio.Event()
    await store.lease_hold(lease, lambda: (print("lost", flush=True), lost.set()))
    await store.txn([], [Put("a", b"", lease)])
    print("held", flush=True)
    await lost.wait()
    await store.close()

asyncio.run(main())
"""


def test_a_lease_is_lost_by_a_process_that_was_stopped_for_too_long(etcd: EtcdCluster) -> None:
    name = namespace()
    command = [sys.executable, "-c", HOLDER, f"etcd://{etcd.endpoints}", name]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        try:
            assert holder.stdout.readline() == "held\n"

            async def gone() -> None:
                async with opened(etcd.endpoints, name) as store:
                    assert await store.get("a") is not None
                    holder.send_signal(signal.SIGSTOP)
                    while await store.get("a") is not None:
                        await asyncio.sleep(0.05)

            run(gone())
            holder.send_signal(signal.SIGCONT)
            assert holder.stdout.readline() == "lost\n"
            assert holder.wait(60) == 0
        finally:
            holder.kill()


@pytest.mark.parametrize("harm", ["hangs", "is gone"])
def test_a_store_that_does_not_answer_is_told_of_before_the_lease_may_have_ended(
    single: EtcdCluster, harm: str
) -> None:
    """Nobody asks anything: the lease's keeper notices, or the watch."""

    async def body() -> None:
        async with opened(single.endpoints, namespace()) as store:
            await put(store, "n", b"0")
            watcher = Watcher(store, 0)
            await watcher.sees(b"0")
            lease = await store.lease_grant(4_000)
            await store.lease_hold(lease, lambda: None)
            assert store.silent_since_s is None
            if harm == "hangs":
                single.pause(0)
            else:
                single.kill(0)
            await until(lambda: store.silent_since_s is not None)
            assert store.lease_lasts(lease)
            # It goes on from the first failure.
            since_s = store.silent_since_s
            with pytest.raises(StoreError):
                await store.get("n")
            assert store.silent_since_s == since_s
            if harm == "hangs":
                single.resume(0)
            else:
                single.start_member(0, wait=False)
            await until(lambda: store.silent_since_s is None)
            assert (found := await store.get("n")) is not None and found.value == b"0"

    run(body())
