"""The service that keeps the image: what it does when its watch breaks, and what following costs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from metadata_support import Cluster, run

from ottla.config import BrokerConfig
from ottla.env.clock import SystemClock
from ottla.errors import ErrorCode, KafkaError
from ottla.metadata.image import ClusterImage
from ottla.metadata.service import Metadata
from ottla.metadata.sqlite import SqliteStore
from ottla.metadata.store import CompactedError, StoreError, WatchBatch
from ottla.metadata.topics import NewTopic

# CPU seconds; a multiple of what it takes, for busy machines.
LOAD_CPU_S_MAX = 1.0


class BreakingStore:
    """A store whose watch breaks when it is told to."""

    def __init__(self, store: SqliteStore) -> None:
        self._store = store
        self.break_with: StoreError | None = None
        self.watches = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def watch(self, prefix: str, from_revision: int) -> AsyncIterator[WatchBatch]:
        self.watches += 1
        async for batch in self._store.watch(prefix, from_revision):
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

    asyncio.run(asyncio.wait_for(body(), 20))


def test_whoever_waits_is_told_when_the_watch_is_lost(tmp_path: Path) -> None:
    async def body() -> None:
        store, metadata = await start(tmp_path)
        store.break_with = StoreError("out of reach")
        for _ in range(2):
            with pytest.raises(KafkaError, match="out of reach") as caught:
                await metadata.controller.create_topics([NewTopic("t")])
            assert caught.value.code is ErrorCode.request_timed_out
        await metadata.close()
        await store.close()

    asyncio.run(asyncio.wait_for(body(), 20))


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


def test_a_thousand_topics_are_read_in_no_time(tmp_path: Path) -> None:
    async def write(cluster: Cluster) -> None:
        await cluster.metadata.controller.create_topics([NewTopic(f"t{n}", 10) for n in range(1_000)])

    async def read(cluster: Cluster) -> int:
        return sum(len(topic.partitions) for topic in cluster.metadata.image.topics.values())

    run(tmp_path, write)
    before = time.process_time()
    assert run(tmp_path, read) == 10_000
    assert time.process_time() - before < LOAD_CPU_S_MAX
