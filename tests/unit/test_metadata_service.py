"""The service that keeps the image: what it does when its watch breaks, and what following costs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Generator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from metadata_support import Cluster, run

from measuring import HANG_S, cpu_at_most
from ottla.broker.views.cluster import known_brokers
from ottla.config import BrokerConfig
from ottla.env.clock import SystemClock
from ottla.errors import ErrorCode, KafkaError
from ottla.metadata import keys, service
from ottla.metadata.image import ClusterImage
from ottla.metadata.service import Metadata
from ottla.metadata.sqlite import SqliteStore
from ottla.metadata.store import CompactedError, Delete, Put, StoreError, WatchBatch
from ottla.metadata.topics import NewTopic

# CPU seconds; a multiple of what it takes, for busy machines.
LOAD_CPU_S_MAX = 1.0
SESSION_MS = 300


class BreakingStore:
    """A store whose watch breaks when it is told to."""

    def __init__(self, store: SqliteStore) -> None:
        self._store = store
        self.break_with: StoreError | None = None
        # While it is out of reach for watches.
        self.away = False
        self.watches = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def watch(self, prefix: str, from_revision: int) -> AsyncIterator[WatchBatch]:
        self.watches += 1
        async for batch in self._store.watch(prefix, from_revision):
            if self.away:
                raise StoreError("out of reach")
            if self.break_with is not None:
                error, self.break_with = self.break_with, None
                raise error
            yield batch


async def start(path: Path) -> tuple[BreakingStore, Metadata]:
    store = BreakingStore(await SqliteStore.open(str(path / "metadata.db"), SystemClock()))
    metadata = Metadata(store, BrokerConfig(), 1)  # type: ignore[arg-type]
    await metadata.start()
    await metadata.controller.register_broker(1, {"PLAINTEXT": ("h", 1)}, None)
    return store, metadata


def test_a_watch_that_missed_its_history_reads_everything_again(tmp_path: Path) -> None:
    async def body() -> None:
        store, metadata = await start(tmp_path)
        changes: list[tuple[ClusterImage, ClusterImage]] = []
        metadata.subscribe(lambda old, new: changes.append((old, new)))
        store.break_with = CompactedError(1)
        await metadata.controller.create_topics([NewTopic("t")])
        assert "t" in metadata.image.topics
        assert ("t" in changes[0][0].topics, "t" in changes[0][1].topics) == (False, True)
        await metadata.controller.create_topics([NewTopic("u")])
        assert metadata.image.topics.keys() == {"t", "u"}
        assert store.watches == 2
        await metadata.close()
        await store.close()

    asyncio.run(asyncio.wait_for(body(), HANG_S))


def test_a_watch_that_fails_is_taken_up_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def body() -> None:
        store, metadata = await start(tmp_path)
        changes: list[tuple[ClusterImage, ClusterImage]] = []
        metadata.subscribe(lambda old, new: changes.append((old, new)))
        for name in ("t", "u"):
            store.break_with = StoreError("out of reach")
            await metadata.controller.create_topics([NewTopic(name)])
            assert name in metadata.image.topics
        assert store.watches == 3
        for (_, image), (old, _) in pairwise(changes):
            assert old is image
        await metadata.close()
        await store.close()

    asyncio.run(asyncio.wait_for(body(), HANG_S))
    said = [record.message for record in caplog.records if "cannot be followed" in record.message]
    assert len(said) == 2, said
    assert "out of reach" in said[0]


def test_an_image_outlives_a_store_that_stays_away(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody waits for ever, it is logged once, and in the end all that was missed comes as one change."""
    monkeypatch.setattr(service, "REACHED_MS_MAX", 50)
    monkeypatch.setattr(service, "RETRY_MS_MIN", 1)
    monkeypatch.setattr(service, "RETRY_MS_MAX", 2)

    async def body() -> None:
        store, metadata = await start(tmp_path)
        changes: list[tuple[ClusterImage, ClusterImage]] = []
        metadata.subscribe(lambda old, new: changes.append((old, new)))
        store.away = True
        for name in ("t", "u"):
            with pytest.raises(KafkaError, match="has not received it") as caught:
                await metadata.controller.create_topics([NewTopic(name)])
            assert caught.value.code is ErrorCode.request_timed_out
        while store.watches < 20:
            await asyncio.sleep(0.001)
        assert not changes
        assert metadata.away_since_s is not None
        assert 1 in metadata.image.brokers
        await store.compact((await store.range("")).revision)
        store.away = False
        await metadata.controller.create_topics([NewTopic("v")])
        assert metadata.image.topics.keys() == {"t", "u", "v"}
        assert metadata.away_since_s is None
        assert changes[0][0].topics == {}
        assert changes[0][1].topics.keys() >= {"t", "u"}
        await metadata.close()
        with pytest.raises(StoreError, match="closed"):
            await metadata.reached(1_000)
        await store.close()

    asyncio.run(asyncio.wait_for(body(), HANG_S))
    said = [record.message for record in caplog.records if "cannot be followed" in record.message]
    assert len(said) == 1, said


def test_an_image_never_goes_back(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A store that was emptied is not believed: what it says may be of another life."""

    async def body() -> None:
        store, metadata = await start(tmp_path)
        await metadata.controller.create_topics([NewTopic("t")])
        old, store._store = store._store, await SqliteStore.open(str(tmp_path / "new.db"), SystemClock())
        store.break_with = CompactedError(1)
        await old.txn([], [Put("cluster", b'{"id":"x"}')])
        while not any("was at" in record.message for record in caplog.records):
            await asyncio.sleep(0.001)
        assert metadata.image.topics.keys() == {"t"}
        await metadata.close()
        await store.close()
        await old.close()

    asyncio.run(asyncio.wait_for(body(), HANG_S))


def test_views_are_dropped_when_topics_or_brokers_change_and_only_then(tmp_path: Path) -> None:
    async def body(cluster: Cluster) -> None:
        metadata = cluster.metadata
        metadata.views["mine"] = 1
        await metadata.controller.reserve_producer_ids()
        assert metadata.views == {"mine": 1}
        await metadata.controller.create_topics([NewTopic("t")])
        assert metadata.views == {}
        metadata.views["mine"] = 1
        await cluster.register(2)
        assert metadata.views == {}

    run(tmp_path, body)


def test_clients_are_told_of_a_node_that_went_until_its_session_would_have_ended(tmp_path: Path) -> None:
    async def body(cluster: Cluster) -> None:
        store, metadata = cluster.store, cluster.metadata

        async def change(*operations: Put | Delete) -> None:
            await metadata.reached((await store.txn([], operations)).revision)

        async def register(port: int) -> None:
            value = keys.broker_value({"PLAINTEXT": ("h", port)}, None)
            await change(Put(keys.node(2), value), Put(keys.broker(2), value))

        def told() -> dict[int, int]:
            brokers = known_brokers(metadata, "PLAINTEXT")
            return {broker["node_id"]: broker["port"] for broker in brokers}

        await register(7)
        await change(Delete(keys.broker(2)))
        assert 2 not in metadata.image.brokers
        assert told() == {1: 9001, 2: 7}
        await register(8)
        assert told() == {1: 9001, 2: 8}
        begun = time.monotonic()
        await change(Delete(keys.broker(2)))
        while told() != {1: 9001}:
            assert told() == {1: 9001, 2: 8}
            assert time.monotonic() < begun + 10
            await asyncio.sleep(0.01)
        assert time.monotonic() >= begun + SESSION_MS / 1000, "its first departure's timer counted"
        await register(9)
        await change(Delete(keys.broker(2)))
        await metadata.controller.unregister_node(2)
        assert told() == {1: 9001}, "of one that is forgotten nobody is told"

    run(tmp_path, body, properties={"broker.session.timeout.ms": str(SESSION_MS)})


def test_a_thousand_topics_are_read_in_no_time(tmp_path: Path) -> None:
    async def write(cluster: Cluster) -> None:
        await cluster.metadata.controller.create_topics([NewTopic(f"t{n}", 10) for n in range(1_000)])

    async def read(cluster: Cluster) -> int:
        return sum(len(topic.partitions) for topic in cluster.metadata.image.topics.values())

    run(tmp_path, write)
    for attempt in cpu_at_most(LOAD_CPU_S_MAX):
        with attempt.process_cpu():
            assert run(tmp_path, read) == 10_000


def test_what_is_done_at_a_change_in_pieces_is_done_before_the_next_and_before_operations_return(
    tmp_path: Path,
) -> None:
    async def body(cluster: Cluster) -> None:
        metadata, done = cluster.metadata, []
        turns = 0

        def slow(old: ClusterImage, new: ClusterImage) -> Generator[None, None, None]:
            for number in range(3):
                done.append((len(new.topics), number))
                yield
            # Clients see the new image meanwhile.
            assert metadata.image is new

        async def tick() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        metadata.subscribe(slow)
        metadata.subscribe(lambda old, new: done.append((len(new.topics), "next")))
        ticking = asyncio.create_task(tick())
        create = metadata.controller.create_topics
        try:
            await create([NewTopic("a")])
            assert done == [(1, 0), (1, 1), (1, 2), (1, "next")]
            before = turns
            await asyncio.gather(create([NewTopic("b")]), create([NewTopic("c")]))
            assert done[4:] == [(count, step) for count in (2, 3) for step in (0, 1, 2, "next")]
            assert turns - before >= 6
        finally:
            ticking.cancel()

    run(tmp_path, body)
