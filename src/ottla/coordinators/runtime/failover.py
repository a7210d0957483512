"""The partitions of an internal topic that this node coordinates, as the metadata image changes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Protocol
from uuid import UUID

from ottla.errors import ErrorCode, KafkaError
from ottla.metadata.image import ClusterImage, PartitionState

log = logging.getLogger(__name__)

# How long until a partition that could not be read is tried again.
RETRY_MS = 1_000


class Coordinator(Protocol):
    """What has its partitions loaded and unloaded."""

    async def load(self, partition: int, epoch: int) -> None:
        """As ``Host.load``."""
        ...

    def unload(self, partition: int, epoch: int | None = None) -> None:
        """As ``Host.unload``."""
        ...


class Failover:
    """Loads and unloads shards. ``apply`` at each change, after the partitions have taken on their roles."""

    def __init__(
        self,
        node_id: int,
        topic: str,
        coordinator: Coordinator,
        on_topics_deleted: Callable[[Sequence[tuple[str, UUID]]], None] | None = None,
    ) -> None:
        """``on_topics_deleted`` is told of topics that are gone, before what else follows from a change."""
        self._node_id = node_id
        self._topic = topic
        self._coordinator = coordinator
        self._on_topics_deleted = on_topics_deleted
        self._loading: dict[int, asyncio.Task[None]] = {}
        # Partitions that there may be shards of.
        self._count = 0

    def apply(self, old: ClusterImage | None, new: ClusterImage) -> None:
        """Serve the partitions that this node leads now."""
        before = old.topics.get(self._topic) if old is not None else None
        after = new.topics.get(self._topic)
        if self._on_topics_deleted is not None and old is not None and old.topics is not new.topics:
            deleted = _deleted(old, new)
            if deleted:
                self._on_topics_deleted(deleted)
        if after is not None and after is not before:
            self._count = len(after.partitions)
            known: tuple[PartitionState, ...] = ()
            if before is not None and before.topic_id == after.topic_id:
                known = before.partitions
            for index, state in enumerate(after.partitions):
                if index >= len(known) or known[index].leader_epoch != state.leader_epoch:
                    self._lead(index, state)

    def step_down(self) -> None:
        """This node leads nothing any more, whatever the image shows: coordinate nothing, so that nobody is
        told of what there was."""
        self.close()
        self._loading.clear()
        for index in range(self._count):
            self._coordinator.unload(index)

    def _lead(self, index: int, state: PartitionState) -> None:
        loading = self._loading.pop(index, None)
        if loading is not None:
            loading.cancel()
        if state.leader == self._node_id:
            # Also where it did before: others may have led in between, and what they did is to be read.
            self._coordinator.unload(index, state.leader_epoch - 1)
            task = asyncio.ensure_future(self._load(index, state.leader_epoch))
            self._loading[index] = task
            task.add_done_callback(lambda done: self._done(index, done))
        else:
            self._coordinator.unload(index, state.leader_epoch)

    def _done(self, index: int, task: asyncio.Task[None]) -> None:
        if self._loading.get(index) is task:
            del self._loading[index]
        if not task.cancelled() and (error := task.exception()) is not None:
            # A bug of ours. Nobody waits for the task, and clients would be told nothing but NOT_COORDINATOR.
            where = f"{self._topic}-{index}"
            log.error("%s cannot be read, and is not served", where, exc_info=error)

    async def _load(self, partition: int, epoch: int) -> None:
        """Have a partition served. What a disk cannot give now is tried again; where the log makes no
        sense it is NOT_COORDINATOR from then on (Kafka's CoordinatorState.FAILED)."""
        said = ""
        while True:
            try:
                await self._coordinator.load(partition, epoch)
                if said:
                    log.info("%s-%d can be read again", self._topic, partition)
                return
            except KafkaError as error:
                if error.code == ErrorCode.not_leader_or_follower:
                    # Another node leads already; the image will say so.
                    return
                if said != str(error):
                    said = str(error)
                    log.error("%s-%d cannot be read: %s", self._topic, partition, said)
                if error.code != ErrorCode.kafka_storage_error:
                    return
            await asyncio.sleep(RETRY_MS / 1000)

    def close(self) -> None:
        for task in self._loading.values():
            task.cancel()


def _deleted(old: ClusterImage, new: ClusterImage) -> list[tuple[str, UUID]]:
    """Topics that are gone, also those that have been made again in the same step: names and ids."""
    gone = []
    for name, topic in old.topics.items():
        now = new.topics.get(name)
        if now is not topic and (now is None or now.topic_id != topic.topic_id):
            gone.append((name, topic.topic_id))
    return sorted(gone)
