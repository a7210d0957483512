"""The cluster's metadata as this node knows it: the image, who follows its changes, and the controller."""

from __future__ import annotations

import asyncio
import logging
from base64 import urlsafe_b64encode
from collections.abc import Callable
from typing import Any
from uuid import UUID

from ottla.config import BrokerConfig
from ottla.metadata import keys
from ottla.metadata.controller import Controller, random_start, random_topic_id
from ottla.metadata.image import EMPTY, ClusterImage, apply, load
from ottla.metadata.store import CompactedError, Compare, MetadataStore, Put, StoreError, WatchBatch

log = logging.getLogger(__name__)

Subscriber = Callable[[ClusterImage, ClusterImage], None]


class Metadata:
    """The image, kept current by a watch. ``image`` is replaced whole and never changed."""

    def __init__(
        self,
        store: MetadataStore,
        config: BrokerConfig,
        node_id: int,
        *,
        new_id: Callable[[], UUID] = random_topic_id,
        placement_start: Callable[[], int] = random_start,
    ) -> None:
        self.image: ClusterImage = EMPTY
        # What handlers derived from the image's topics and brokers; dropped when these change.
        self.views: dict[Any, Any] = {}
        self._store = store
        self._config = config
        self._node_id = node_id
        self._new_id = new_id
        self._subscribers: list[Subscriber] = []
        self._waiting: list[tuple[int, asyncio.Future[None]]] = []
        self._watching: asyncio.Task[None] | None = None
        self._failed: StoreError | None = None
        self.controller = Controller(store, self, config, new_id=new_id, placement_start=placement_start)

    async def start(self) -> None:
        """Read the image, name the cluster where it has no name yet, and follow changes from there."""
        await self._load()
        if not self.image.cluster_id:
            value = keys.encode({"id": format_id(self._new_id())})
            await self._store.txn([Compare(keys.CLUSTER, 0)], [Put(keys.CLUSTER, value)])
            await self._load()
        self._watching = asyncio.create_task(self._watch(), name="metadata-watch")

    async def close(self) -> None:
        """Stop following changes. The store is the caller's to close."""
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.wait([self._watching])
        self._fail(StoreError("the metadata service is closed"))

    def subscribe(self, subscriber: Subscriber) -> None:
        """Call ``subscriber(old, new)`` at each change of the image, in order, on the event loop.

        The broker's configuration is up to date by then, and operations of the controller return
        only afterwards.
        """
        self._subscribers.append(subscriber)

    async def reached(self, revision: int) -> None:
        """Return once the image is at ``revision`` and subscribers know it. StoreError if it never will."""
        if self.image.revision >= revision:
            return
        if self._failed is not None:
            raise self._failed
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((revision, future))
        await future

    # Inside

    async def _load(self) -> None:
        found = await self._store.range("")
        self._replace(load(found.items, found.revision))

    async def _watch(self) -> None:
        try:
            while True:
                try:
                    async for batch in self._store.watch("", self.image.revision + 1):
                        self._apply(batch)
                    raise StoreError("the metadata store ended the watch")
                except CompactedError:
                    log.warning("the metadata's history is gone: reading all of it again")
                    await self._load()
        except StoreError as error:
            self._fail(error)

    def _apply(self, batch: WatchBatch) -> None:
        self._replace(apply(self.image, batch.events, batch.revision))

    def _replace(self, image: ClusterImage) -> None:
        old, self.image = self.image, image
        if image.topics is not old.topics or image.brokers is not old.brokers:
            self.views = {}
        if old.broker_configs is not image.broker_configs:
            self._config.update_dynamic(
                image.broker_configs.get(keys.DEFAULT_BROKER, {}),
                image.broker_configs.get(self._node_id, {}),
            )
        for subscriber in self._subscribers:
            try:
                subscriber(old, image)
            except Exception:
                # One part that fails must not keep the others, and every operation to come, from going on.
                log.exception("a change of the metadata could not be put into effect")
        reached = [future for revision, future in self._waiting if revision <= image.revision]
        self._waiting = [waiter for waiter in self._waiting if waiter[0] > image.revision]
        for future in reached:
            if not future.done():
                future.set_result(None)

    def _fail(self, error: StoreError) -> None:
        """Nothing more will come: whoever waits must know."""
        self._failed = error
        waiting, self._waiting = self._waiting, []
        for _, future in waiting:
            if not future.done():
                future.set_exception(error)


def format_id(made: UUID) -> str:
    """An id as Kafka writes it: 22 characters of URL-safe base64."""
    return urlsafe_b64encode(made.bytes).rstrip(b"=").decode()
