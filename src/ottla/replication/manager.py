"""Keeps this node's partitions as the metadata image says they should be, and finds them for handlers."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from uuid import UUID

from ottla.config import BrokerConfig
from ottla.env.clock import Clock
from ottla.env.disk import Disk
from ottla.errors import ErrorCode, KafkaError
from ottla.log.manager import LogManager
from ottla.log.settings import LogConfig
from ottla.metadata.image import ClusterImage, TopicImage
from ottla.replication.partition import Partition
from ottla.types import TopicPartition

log = logging.getLogger(__name__)

# Partitions that are made in one turn of the event loop: a quarter of a millisecond each.
OPENED_AT_ONCE_MAX = 20


class ReplicaManager:
    """The partitions that this node holds, by topic name and index."""

    def __init__(
        self, node_id: int, log_manager: LogManager, config: BrokerConfig, clock: Clock, disk: Disk
    ) -> None:
        self._node_id = node_id
        self._logs = log_manager
        self._config = config
        self._clock = clock
        self._disk = disk
        self._image: ClusterImage | None = None
        # Plain dicts of pairs: a look-up is on the path of every Produce and Fetch.
        self.partitions: dict[tuple[str, int], Partition] = {}
        self.stopping = False
        # New partitions that are not open yet; whoever asks for one of them has it opened at once.
        self._unopened: deque[tuple[TopicImage, int]] = deque()

    # ------------------------------------------------------------ look-ups

    def get(self, topic: str, index: int) -> Partition:
        """The partition, or KafkaError: UNKNOWN_TOPIC_OR_PARTITION, NOT_LEADER_OR_FOLLOWER where it exists
        and lives elsewhere, KAFKA_STORAGE_ERROR where it should be here and cannot be made."""
        partition = self.partitions.get((topic, index))
        return partition if partition is not None else self._get_absent(topic, index)

    def _get_absent(self, name: str, index: int) -> Partition:
        topic = self._image.topics.get(name) if self._image is not None else None
        if topic is None or not 0 <= index < len(topic.partitions):
            raise KafkaError(ErrorCode.unknown_topic_or_partition)
        if self._node_id not in topic.partitions[index].replicas:
            raise KafkaError(ErrorCode.not_leader_or_follower)
        # Its turn has not come yet; or it failed when the topic was made, and by now the disk may have room.
        try:
            return self._open(topic, index)
        except OSError as error:
            log.error("%s-%d cannot be opened: %s", name, index, error)
            raise KafkaError(
                ErrorCode.kafka_storage_error, f"{name}-{index} cannot be opened: {error}"
            ) from error

    def topic_name(self, topic_id: UUID) -> str:
        """The name of a topic by its id, or KafkaError(UNKNOWN_TOPIC_ID)."""
        topic = self._image.topics_by_id.get(topic_id) if self._image is not None else None
        if topic is None:
            raise KafkaError(ErrorCode.unknown_topic_id)
        return topic.name

    def partition_count(self, name: str) -> int:
        """How many partitions a topic has; 0 where there is no such topic."""
        topic = self._image.topics.get(name) if self._image is not None else None
        return len(topic.partitions) if topic is not None else 0

    def high_watermarks(self) -> dict[TopicPartition, int]:
        """That of every partition, for the checkpoint and for compaction, which stops there."""
        return {p.topic_partition: p.high_watermark for p in self.partitions.values()}

    # ------------------------------------------------------------ following the image

    def apply(self, old: ClusterImage | None, new: ClusterImage) -> None:
        """Make the partitions what ``new`` says. Called on each change, in order.

        Of those that are there at the start (no ``old``) each must open: OSError, KafkaError. A later one
        that does not is tried again when it is asked for.
        """
        self._image = new
        before: Mapping[str, TopicImage] = old.topics if old is not None else {}
        if before is not new.topics:
            for name, topic in before.items():
                after = new.topics.get(name)
                if after is None or after.topic_id != topic.topic_id:
                    self._remove_topic(topic)
            for name, topic in new.topics.items():
                if before.get(name) is not topic:
                    self._apply_topic(topic)
        if old is None:
            while self._unopened:
                self._open(*self._unopened.popleft())
        elif self._unopened:
            self._open_some()
        if old is not None and old.broker_configs != new.broker_configs:
            # Topic defaults come from the broker's configuration.
            for topic in new.topics.values():
                self._apply_config(topic)

    def wake_all(self) -> None:
        """Let every waiting fetch answer with what there is: the node stops."""
        self.stopping = True
        for partition in self.partitions.values():
            partition.wake()

    def _apply_topic(self, topic: TopicImage) -> None:
        config = self._log_config(topic)
        for index, state in enumerate(topic.partitions):
            if self._node_id not in state.replicas:
                continue
            partition = self.partitions.get((topic.name, index))
            if partition is None:
                self._unopened.append((topic, index))
                continue
            partition.log.update_config(config)
            changed, partition.state = partition.state is not state, state
            if changed:
                partition.wake()

    def _open_some(self) -> None:
        """Open new partitions, so many that other clients do not have to wait, and go on soon."""
        for _ in range(min(OPENED_AT_ONCE_MAX, len(self._unopened))):
            topic, index = self._unopened.popleft()
            with suppress(KafkaError):  # it is gone again, or opening failed and was logged
                if self._image is not None and self._image.topics.get(topic.name) is topic:
                    self.get(topic.name, index)
        if self._unopened and not self.stopping:
            self._clock.call_later(0, self._open_some)

    def _open(self, topic: TopicImage, index: int) -> Partition:
        name = TopicPartition(topic.name, index)
        config = self._log_config(topic)
        opened = self._logs.get_or_create(name, topic.topic_id, config, self._clock.now_ms())
        partition = self.partitions[topic.name, index] = Partition(
            name,
            topic.topic_id,
            topic.partitions[index],
            opened,
            node_id=self._node_id,
            disk=self._disk,
        )
        return partition

    def _apply_config(self, topic: TopicImage) -> None:
        config = self._log_config(topic)
        for index in range(len(topic.partitions)):
            partition = self.partitions.get((topic.name, index))
            if partition is not None:
                partition.log.update_config(config)

    def _remove_topic(self, topic: TopicImage) -> None:
        for index in range(len(topic.partitions)):
            partition = self.partitions.pop((topic.name, index), None)
            if partition is not None:
                self._logs.delete(partition.topic_partition)
                partition.wake()

    def _log_config(self, topic: TopicImage) -> LogConfig:
        return LogConfig.from_values(self._config.topic_values(topic.configs))
