"""A metadata service over a real store, for the tests of metadata and of admin handlers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from measuring import HANG_S
from ottla.config import BrokerConfig
from ottla.env.clock import SystemClock
from ottla.metadata import image as images
from ottla.metadata.image import ClusterImage
from ottla.metadata.service import Metadata
from ottla.metadata.sqlite import SqliteStore
from ottla.metadata.store import Event
from ottla.pieces import whole

T = TypeVar("T")

LISTENER = "PLAINTEXT"


def apply(image: ClusterImage, events: Iterable[Event], revision: int) -> ClusterImage:
    """The next image, all of it at once."""
    return whole(images.apply(image, events, revision))


class Cluster:
    """The store, the service, and the configuration of broker 1."""

    def __init__(self, store: SqliteStore, metadata: Metadata, config: BrokerConfig) -> None:
        self.store = store
        self.metadata = metadata
        self.config = config

    async def register(self, node_id: int, rack: str | None = None) -> None:
        await self.metadata.controller.register_broker(
            node_id, {LISTENER: (f"host{node_id}", 9000 + node_id)}, rack, is_controller=node_id == 1
        )


def run(
    path: Path,
    body: Callable[[Cluster], Coroutine[Any, Any, T]],
    *,
    brokers: int = 1,
    properties: Mapping[str, str] | None = None,
) -> T:
    """Run ``body`` with a cluster of so many brokers; again with the same path is a restart."""

    async def main() -> T:
        store = await SqliteStore.open(str(path / "metadata.db"), SystemClock())
        config = BrokerConfig({"node.id": "1"} | dict(properties or {}))
        metadata = Metadata(store, config, 1)
        try:
            await metadata.start()
            cluster = Cluster(store, metadata, config)
            for node_id in range(1, brokers + 1):
                await cluster.register(node_id)
            return await asyncio.wait_for(body(cluster), HANG_S)
        finally:
            await metadata.close()
            await store.close()

    return asyncio.run(main())
