"""The cluster's metadata as this node knows it: the image, who follows its changes, and the controller.

While the store is out of reach the image stays as it was, for as long as that takes; afterwards it is brought
up to date, and each subscriber sees one change.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Generator
from typing import Any
from uuid import UUID

from ottla.config import BrokerConfig
from ottla.env.slices import Slices
from ottla.metadata import keys
from ottla.metadata.changes import Elections
from ottla.metadata.controller import Controller, random_start, random_topic_id
from ottla.metadata.features import SUPPORTED, Supported
from ottla.metadata.founding import MIN_ISR, missing, static_min_isr, without_min_isr
from ottla.metadata.image import EMPTY, BrokerImage, ClusterImage, apply, load
from ottla.metadata.store import (
    CompactedError,
    MetadataStore,
    RewoundError,
    StoreError,
    WatchBatch,
)
from ottla.text import id_text

log = logging.getLogger(__name__)

# What there is to do at a change, at once or in pieces.
Subscriber = Callable[[ClusterImage, ClusterImage], Generator[None, None, None] | None]

# How long somebody waits for the image to have a change that the store has taken.
REACHED_MS_MAX = 30_000
# Pauses between attempts to follow a store that fails.
RETRY_MS_MIN = 100
RETRY_MS_MAX = 5_000


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
        slices: Slices | None = None,
        supported: Supported = SUPPORTED,
    ) -> None:
        """``supported``: the levels of features that this node's release has."""
        self.image: ClusterImage = EMPTY
        # What handlers derived from the image's topics and brokers; dropped when these change.
        self.views: dict[Any, Any] = {}
        # Nodes that went a short while ago. Clients are still told of them, until the session would have
        # ended by itself: librdkafka loses a partition's new leader, and its epoch, where one answer both
        # names that leader and leaves out the old one, and asks again only a second later.
        self.departed: dict[int, BrokerImage] = {}
        self.supported = supported
        self._store = store
        self._config = config
        self._node_id = node_id
        self._new_id = new_id
        self._subscribers: list[Subscriber] = []
        self._slices = slices or Slices()
        # Up to where every subscriber has done what there was to do.
        self._told_revision = 0
        self._waiting: list[tuple[int, asyncio.Future[None]]] = []
        self._watching: asyncio.Task[None] | None = None
        self._closed = False
        # The kind of failure of the store that was last told of, None while all is well.
        self._trouble: type[StoreError] | None = None
        # Since when it fails, by the event loop's clock, in seconds; None: it does not.
        self.away_since_s: float | None = None
        self.elections = Elections()
        # How often another node became controller.
        self.controller_changes = 0
        self.controller = Controller(
            store,
            self,
            config,
            self._slices,
            new_id=new_id,
            placement_start=placement_start,
            supported=supported,
        )

    async def start(self) -> None:
        """Read the image, make what every cluster has where it is missing, and follow changes from there."""
        await self._load()
        while True:
            compares, operations = missing(
                self.image, self._config, lambda: id_text(self._new_id()), self.supported
            )
            if not operations:
                break
            # Another node may be faster.
            await self._store.txn(compares, operations)
            await self._load()
        self._tell_what_does_not_count()
        self._watching = asyncio.create_task(self._watch(), name="metadata-watch")

    async def close(self) -> None:
        """Stop following changes. The store is the caller's to close."""
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.wait([self._watching])
        self._closed = True
        waiting, self._waiting = self._waiting, []
        for _, future in waiting:
            if not future.done():
                future.set_exception(StoreError("the metadata service is closed"))
        await self.controller.close()

    def subscribe(self, subscriber: Subscriber) -> None:
        """Call ``subscriber(old, new)`` at each change of the image, in order, on the event loop.

        The broker's configuration is up to date by then, and operations of the controller return
        only afterwards. A subscriber that has much to do returns a generator of it, which yields wherever
        others may have their turn: the next subscriber, and the next change, wait until it is through.
        """
        self._subscribers.append(subscriber)

    async def reached(self, revision: int) -> None:
        """Return once the image is at ``revision`` and subscribers know it.

        StoreError where that takes longer than REACHED_MS_MAX, or the service closes.
        """
        if self._told_revision >= revision:
            return
        if self._closed:
            raise StoreError("the metadata service is closed")
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiter = (revision, future)
        self._waiting.append(waiter)
        try:
            async with asyncio.timeout(REACHED_MS_MAX / 1000):
                await future
        except TimeoutError:
            raise StoreError(
                f"the change was stored, but this node has not received it within {REACHED_MS_MAX} ms"
            ) from None
        finally:
            if not future.done() or future.cancelled():
                self._waiting = [other for other in self._waiting if other is not waiter]

    # Inside

    def _tell_what_does_not_count(self) -> None:
        own, found = static_min_isr(self._config), self._config.dynamic_cluster[MIN_ISR]
        if MIN_ISR in self._config.static and own != found:
            log.warning(
                "%s=%s of this node has no effect: it is %s for the whole cluster, until that is changed "
                "(ottla config set)",
                MIN_ISR,
                own,
                found,
            )

    async def _load(self) -> None:
        found = await self._store.range("")
        if found.revision < self.image.revision:
            raise RewoundError(f"the store is at {found.revision}, and was at {self.image.revision} before")
        await self._replace(await self._slices.run(load(found.items, found.revision)))

    async def _watch(self) -> None:
        """Follow the store for ever, whatever happens to it."""
        pause_ms = RETRY_MS_MIN
        unreadable = False
        while True:
            revision = self.image.revision
            try:
                if unreadable:
                    await self._load()
                    unreadable = False
                await self._follow()
            except StoreError as error:
                if self.image.revision > revision:
                    pause_ms = RETRY_MS_MIN
                self._say(error)
                await asyncio.sleep(pause_ms / 1000)
                pause_ms = min(pause_ms * 2, RETRY_MS_MAX)
            except Exception:
                # Something in the store that this version does not understand. To follow nothing more, and
                # say nothing, would be worse than to try, and say so, again and again.
                log.exception("the metadata of the cluster cannot be decoded, reading all of it again")
                unreadable = True
                await asyncio.sleep(RETRY_MS_MAX / 1000)

    async def _follow(self) -> None:
        """Apply changes until the watch ends, and say why it did: StoreError, unless all was read again."""
        try:
            async for batch in self._store.watch("", self.image.revision + 1):
                await self._apply(batch)
                self._say(None)
        except CompactedError:
            log.warning("the metadata store has removed the history of changes: reading all metadata again")
            await self._load()
            self._say(None)
        else:
            raise StoreError("the metadata store ended the watch")

    def _say(self, trouble: StoreError | None) -> None:
        """Log once that the store fails, for each kind of failure, and once that it does no more."""
        kind = None if trouble is None else type(trouble)
        if kind is not self._trouble:
            if trouble is None:
                log.info("the metadata of the cluster is followed again")
                self.away_since_s = None
            else:
                if self.away_since_s is None:
                    self.away_since_s = asyncio.get_running_loop().time()
                log.error("the metadata of the cluster cannot be followed, retrying: %s", trouble)
        self._trouble = kind

    async def _apply(self, batch: WatchBatch) -> None:
        await self._replace(await self._slices.run(apply(self.image, batch.events, batch.revision)))

    async def _replace(self, image: ClusterImage) -> None:
        """Have another image from now on, and tell everybody. One at a time: the image is changed by whoever
        follows the store, alone."""
        old, self.image = self.image, image
        self.controller_changes += old.controller_epoch > 0 and old.controller_epoch != image.controller_epoch
        if image.topics is not old.topics or image.brokers is not old.brokers:
            self.views = {}
        if image.brokers is not old.brokers or image.nodes is not old.nodes:
            self._note_departures(old, image)
        # One part that fails must not keep the others, and every operation to come, from going on.
        if old.broker_configs is not image.broker_configs:
            try:
                self._update_config(image)
            except Exception:
                log.exception("a change of the configuration could not be applied")
        # Whoever subscribes meanwhile begins with the new image.
        for subscriber in tuple(self._subscribers):
            try:
                pieces = subscriber(old, image)
                if pieces is not None:
                    await self._slices.run(pieces)
            except Exception:
                log.exception("a change of the metadata could not be applied")
        self._told_revision = image.revision
        reached = [future for revision, future in self._waiting if revision <= image.revision]
        self._waiting = [waiter for waiter in self._waiting if waiter[0] > image.revision]
        for future in reached:
            if not future.done():
                future.set_result(None)

    def _update_config(self, image: ClusterImage) -> None:
        self._config.update_dynamic(
            image.broker_configs.get(keys.DEFAULT_BROKER, {}),
            without_min_isr(image.broker_configs.get(self._node_id, {})),
        )

    def _note_departures(self, old: ClusterImage, image: ClusterImage) -> None:
        for node_id, broker in old.brokers.items():
            if node_id not in image.brokers:
                self.departed[node_id] = broker
                session_ms = self._config.get("broker.session.timeout.ms")
                asyncio.get_running_loop().call_later(session_ms / 1000, self._forget, broker)
        unregistered = old.nodes.keys() - image.nodes.keys()
        for node_id in [one for one in self.departed if one in image.brokers or one in unregistered]:
            del self.departed[node_id]
            self.views = {}

    def _forget(self, broker: BrokerImage) -> None:
        if self.departed.get(broker.node_id) is broker:
            del self.departed[broker.node_id]
            self.views = {}
