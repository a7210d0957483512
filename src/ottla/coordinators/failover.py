"""Which partitions of `__consumer_offsets` this node coordinates, as the metadata image changes."""

from __future__ import annotations

import asyncio
import logging

from ottla.coordinators.runtime import GroupCoordinator
from ottla.coordinators.settings import GROUP_METADATA_TOPIC
from ottla.errors import ErrorCode, KafkaError
from ottla.metadata.image import ClusterImage, PartitionState

log = logging.getLogger(__name__)

# How long until groups that could not be read are tried again.
RETRY_MS = 1_000


class GroupFailover:
    """Loads and unloads shards. ``apply`` at each change, after the partitions have taken on their roles."""

    def __init__(self, node_id: int, groups: GroupCoordinator) -> None:
        self._node_id = node_id
        self._groups = groups
        self._loading: dict[int, asyncio.Task[None]] = {}
        # Partitions that there may be shards of.
        self._count = 0

    def apply(self, old: ClusterImage | None, new: ClusterImage) -> None:
        """Serve the groups of partitions that this node leads now; forget those of topics that are gone."""
        before = old.topics.get(GROUP_METADATA_TOPIC) if old is not None else None
        after = new.topics.get(GROUP_METADATA_TOPIC)
        if old is not None and old.topics is not new.topics:
            for name in _deleted(old, new):
                self._groups.on_topic_deleted(name)
        if after is not None and after is not before:
            self._count = len(after.partitions)
            known: tuple[PartitionState, ...] = ()
            if before is not None and before.topic_id == after.topic_id:
                known = before.partitions
            for index, state in enumerate(after.partitions):
                if index >= len(known) or known[index].leader_epoch != state.leader_epoch:
                    self._lead(index, state)

    def step_down(self) -> None:
        """This node leads nothing any more, whatever the image shows: coordinate no groups, so that nobody is
        told of what they were."""
        self.close()
        self._loading.clear()
        for index in range(self._count):
            self._groups.unload(index)

    def _lead(self, index: int, state: PartitionState) -> None:
        loading = self._loading.pop(index, None)
        if loading is not None:
            loading.cancel()
        if state.leader == self._node_id:
            task = asyncio.ensure_future(self._load(index, state.leader_epoch))
            self._loading[index] = task
            task.add_done_callback(lambda done: self._done(index, done))
        else:
            self._groups.unload(index, state.leader_epoch)

    def _done(self, index: int, task: asyncio.Task[None]) -> None:
        if self._loading.get(index) is task:
            del self._loading[index]
        if not task.cancelled() and (error := task.exception()) is not None:
            # A bug of ours. Nobody waits for the task, and clients would be told nothing but NOT_COORDINATOR.
            where = f"{GROUP_METADATA_TOPIC}-{index}"
            log.error("the groups of %s cannot be read, and are not served", where, exc_info=error)

    async def _load(self, partition: int, epoch: int) -> None:
        """Have a partition's groups served. What a disk cannot give now is tried again; where the log makes
        no sense its groups get NOT_COORDINATOR from then on (Kafka's CoordinatorState.FAILED)."""
        said = ""
        while True:
            try:
                await self._groups.load(partition, epoch)
                if said:
                    log.info("the groups of %s-%d can be read again", GROUP_METADATA_TOPIC, partition)
                return
            except KafkaError as error:
                if error.code == ErrorCode.not_leader_or_follower:
                    # Another node leads already; the image will say so.
                    return
                if said != str(error):
                    said = str(error)
                    log.error("the groups of %s-%d cannot be read: %s", GROUP_METADATA_TOPIC, partition, said)
                if error.code != ErrorCode.kafka_storage_error:
                    return
            await asyncio.sleep(RETRY_MS / 1000)

    def close(self) -> None:
        for task in self._loading.values():
            task.cancel()


def _deleted(old: ClusterImage, new: ClusterImage) -> list[str]:
    """Topics that are gone, also those that have been made again in the same step."""
    gone = []
    for name, topic in old.topics.items():
        now = new.topics.get(name)
        if now is not topic and (now is None or now.topic_id != topic.topic_id):
            gone.append(name)
    return sorted(gone)
