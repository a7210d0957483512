"""What is SQLite's own: its file, its limits on history, and that a kill at any moment loses nothing."""

from __future__ import annotations

import asyncio
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ottla.env.clock import SystemClock
from ottla.metadata import sqlite
from ottla.metadata.sqlite import SqliteStore
from ottla.metadata.store import CompactedError, LeaseError, Put, StoreError


def test_history_and_memory_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite, "HISTORY_REVISIONS_KEPT", 20)
    monkeypatch.setattr(sqlite, "HISTORY_REVISIONS_SLACK", 5)
    monkeypatch.setattr(sqlite, "RECENT_EVENTS_MAX", 7)
    monkeypatch.setattr(sqlite, "WATCH_EVENTS_MAX", 4)

    async def run() -> None:
        store = await SqliteStore.open(str(tmp_path / "m.db"), SystemClock())
        for number in range(100):
            await store.txn([], [Put("a", b""), Put(f"k{number % 5}", b"")])
        assert len(store._recent) <= 7
        with pytest.raises(CompactedError):
            async for _ in store.watch("", 1):
                pass
        seen = []
        async for batch in store.watch("", 85):
            seen += [event.revision for event in batch.events]
            if batch.revision == 100:
                break
        assert seen == [revision for revision in range(85, 101) for _ in range(2)]
        await store.close()

    asyncio.run(run())


def permissions(folder: Path) -> dict[str, int]:
    return {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}


def test_nobody_else_may_read_what_is_kept(tmp_path: Path) -> None:
    async def run() -> None:
        path = tmp_path / "m.db"
        store = await SqliteStore.open(str(path), SystemClock())
        await store.txn([], [Put("password", b"secret")])
        assert permissions(tmp_path) == {"m.db": 0o600, "m.db-wal": 0o600}
        await store.close()
        # One that is of before, and its owner's group reads.
        path.chmod(0o644)
        (tmp_path / "m.db-wal").write_bytes(b"")
        (tmp_path / "m.db-wal").chmod(0o644)
        store = await SqliteStore.open(str(path), SystemClock())
        await store.txn([], [Put("password", b"another")])
        assert not any(mode & 0o007 for mode in permissions(tmp_path).values())
        assert permissions(tmp_path)["m.db"] == 0o640
        await store.close()

    before = os.umask(0o022)
    try:
        asyncio.run(run())
    finally:
        os.umask(before)


def test_a_second_user_of_the_file_is_refused(tmp_path: Path) -> None:
    async def run() -> None:
        first = await SqliteStore.open(str(tmp_path / "m.db"), SystemClock())
        await first.txn([], [Put("a", b"")])
        with pytest.raises(StoreError, match="locked"):
            await SqliteStore.open(str(tmp_path / "m.db"), SystemClock())
        await first.close()

    asyncio.run(run())


def test_a_file_that_is_no_store_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.db"
    path.write_bytes(b"nothing that SQLite would know" * 100)
    with pytest.raises(StoreError, match="not a database"):
        asyncio.run(SqliteStore.open(str(path), SystemClock()))


def test_commits_are_synced(tmp_path: Path) -> None:
    async def run() -> None:
        store = await SqliteStore.open(str(tmp_path / "m.db"), SystemClock())
        modes = await store._run(
            lambda: [
                store._file._db.execute(f"PRAGMA {name}").fetchone()[0]
                for name in ("journal_mode", "synchronous")
            ]
        )
        assert modes == ["wal", 2]
        await store.close()

    asyncio.run(run())


def test_a_full_disk_fails_a_change_and_no_more(tmp_path: Path) -> None:
    async def run() -> None:
        store = await SqliteStore.open(str(tmp_path / "m.db"), SystemClock())
        await store.txn([], [Put("a", b"1")])

        def limit(pages: int) -> Callable[[], object]:
            return lambda: store._file._db.execute(f"PRAGMA max_page_count = {pages}").fetchone()

        await store._run(limit(1))  # as many as there are
        for _ in range(3):
            with pytest.raises(StoreError, match="full"):
                await store.txn([], [Put("a", b"2"), Put("b", bytes(1_000_000))])
        assert (await store.get("a")).value == b"1"  # type: ignore[union-attr]
        await store._run(limit(1_000_000))
        assert await store.txn([], [Put("b", bytes(1_000_000))]) == (True, 2)
        await store.close()

    asyncio.run(run())


WRITER = """
import asyncio, sys
from ottla.env.clock import SystemClock
from ottla.metadata.sqlite import SqliteStore
from ottla.metadata.store import Put

async def main():
    store = await SqliteStore.open(sys.argv[1], SystemClock())
    number = int((await store.get("n")).value) if await store.get("n") else 0
    while True:
        number += 1
        text = str(number).encode()
        await store.txn([], [Put("n", text), Put(f"k{number % 7}", text)])
        print(number, flush=True)

asyncio.run(main())
"""


def test_what_was_answered_survives_a_kill(tmp_path: Path) -> None:
    path = str(tmp_path / "m.db")
    for attempt in range(4):
        writer = subprocess.Popen([sys.executable, "-c", WRITER, path], stdout=subprocess.PIPE, text=True)
        assert writer.stdout is not None
        answered = int(writer.stdout.readline())
        deadline = time.monotonic() + 0.05 * (attempt + 1)
        while time.monotonic() < deadline:
            answered = int(writer.stdout.readline())
        os.kill(writer.pid, signal.SIGKILL)
        rest = writer.stdout.read().split()
        writer.wait()
        answered = int(rest[-1]) if rest else answered

        async def look(answered: int = answered) -> None:
            store = await SqliteStore.open(path, SystemClock())
            item = await store.get("n")
            assert item is not None
            stored = int(item.value)
            # One more may have been committed whose answer was not printed.
            assert answered <= stored <= answered + 1
            assert item.mod_revision == stored
            twin = await store.get(f"k{stored % 7}")
            assert twin is not None
            assert twin.value == item.value
            await store.close()

        asyncio.run(look())


def test_leases_begin_anew_where_the_store_stood_still(tmp_path: Path) -> None:
    """Nobody could keep them alive meanwhile; what asked to is read only afterwards."""

    class Clock(SystemClock):
        ahead_ms = 0

        def monotonic_ms(self) -> int:
            return super().monotonic_ms() + self.ahead_ms

    async def run() -> None:
        clock = Clock()
        store = await SqliteStore.open(str(tmp_path / "m.db"), clock)
        lease = await store.lease_grant(200)
        await store.txn([], [Put("a", b"", lease)])
        # As if the process had been stopped for ten seconds.
        clock.ahead_ms = 10_000
        await asyncio.sleep(0.3)
        assert await store.get("a") is not None
        await store.lease_keep_alive(lease)
        while await store.get("a") is not None:
            await asyncio.sleep(0.01)
        await store.close()

    asyncio.run(run())


def test_all_leases_can_be_ended_at_once(tmp_path: Path) -> None:
    async def run() -> None:
        store = await SqliteStore.open(str(tmp_path / "m.db"), SystemClock())
        leases = [await store.lease_grant(60_000) for _ in range(3)]
        await store.txn([], [Put(f"k{lease}", b"", lease) for lease in leases])
        await store.txn([], [Put("k", b"")])
        assert [store.lease_ttl_ms(lease) for lease in leases] == [60_000] * 3
        await store.end_leases()
        assert [item.key for item in (await store.range("")).items] == ["k"]
        with pytest.raises(LeaseError):
            store.lease_ttl_ms(leases[0])
        await store.close()

    asyncio.run(run())
