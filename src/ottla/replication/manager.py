"""Keeps this node's partitions as the metadata image says they should be, and finds them for handlers."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Mapping
from uuid import UUID

from ottla.config import BrokerConfig
from ottla.config.replication import RACK_AWARE_SELECTOR
from ottla.env.clock import Clock, Timer
from ottla.env.disk import Disk
from ottla.errors import ErrorCode, KafkaError
from ottla.log.manager import LogManager
from ottla.log.settings import LogConfig
from ottla.metadata.changes import PartitionChange
from ottla.metadata.image import ClusterImage, PartitionState, TopicImage
from ottla.replication.fetchers import Fetchers
from ottla.replication.partition import Partition
from ottla.replication.proposals import Commit, Proposal, Proposals
from ottla.replication.throttle import Quota, is_listed
from ottla.types import TopicPartition

log = logging.getLogger(__name__)

# Partitions that are made in one turn of the event loop: a quarter of a millisecond each.
OPENED_AT_ONCE_MAX = 20
NO_EPOCH = -1
RATE = "leader.replication.throttled.rate"
_RATES = (RATE, "follower.replication.throttled.rate")


class ReplicaManager:
    """The partitions that this node holds, by topic name and index."""

    def __init__(
        self,
        node_id: int,
        log_manager: LogManager,
        config: BrokerConfig,
        clock: Clock,
        disk: Disk,
        *,
        fetchers: Fetchers | None = None,
        commit: Commit | None = None,
    ) -> None:
        """``fetchers`` and ``commit`` (of ISR changes) are for a node of a cluster."""
        self._node_id = node_id
        self._logs = log_manager
        self._config = config
        self._clock = clock
        self._disk = disk
        self._fetchers = fetchers
        self._proposals = Proposals(commit) if commit is not None else None
        self._image: ClusterImage | None = None
        # Plain dicts of pairs: a look-up is on the path of every Produce and Fetch.
        self.partitions: dict[tuple[str, int], Partition] = {}
        self.stopping = False
        # Whether partitions take on the roles that the image gives them: not before the node has joined.
        self.active = False
        # The registration that the store says has ended, until the image shows another one; None: there is no
        # such thing.
        self._ended: int | None = None
        # New partitions that are not open yet; whoever asks for one of them has it opened at once.
        self._unopened: deque[tuple[TopicImage, int]] = deque()
        # Those that the disk could not take, to be tried again from time to time.
        self._failing: list[tuple[TopicImage, int]] = []
        self._lag_timer: Timer | None = None
        # Told that a log can take nothing more until a restart. In a cluster others had better lead then.
        self.disk_failed: Callable[[str], None] | None = None
        self.lag_ms_max: int = config.get("replica.lag.time.max.ms")
        # How many DeleteRecords wait for followers, which are told of log starts at once then.
        self.deletions = 0
        # What goes to followers of throttled replicas.
        self._quota = Quota(
            config.get(RATE),
            1000 * config.get("replication.quota.window.size.seconds"),
            config.get("replication.quota.window.num"),
        )
        config.subscribe(self._config_changed)

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

    def activate(self) -> None:
        """The node has joined: partitions take on their roles now, and at each change of the image."""
        self.active = True
        for (name, index), partition in self.partitions.items():
            if self._image is not None and name in self._image.topics:
                self._give_role(partition, self._image.topics[name].partitions[index])
        if self._fetchers is not None:
            self.look_for_laggards()

    def apply(self, old: ClusterImage | None, new: ClusterImage) -> None:
        """Make the partitions what ``new`` says. Called on each change, in order.

        Of those that are there at the start (no ``old``) each must open: OSError, KafkaError. A later one
        that does not is tried again when it is asked for.
        """
        self._image = new
        if self._ended is not None:
            own = new.brokers.get(self._node_id)
            if own is not None and own.epoch != self._ended:
                self._ended = None
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
        if self._fetchers is not None:
            self._follow_nodes(self._fetchers, old, new)

    def _follow_nodes(self, fetchers: Fetchers, old: ClusterImage | None, new: ClusterImage) -> None:
        if old is not None and (old.brokers is not new.brokers or old.stopping is not new.stopping):
            for partition in self.partitions.values():
                partition.look_again()
        fetchers.apply(old, new)

    def step_down(self) -> None:
        """This node's registration has ended, says the store: lead nothing, though the image may take a while
        to show who does. What names this node leader was made for that registration, until the image has
        another one."""
        own = self._image.brokers.get(self._node_id) if self._image is not None else None
        self._ended = own.epoch if own is not None else NO_EPOCH
        for partition in self.partitions.values():
            if partition.leading is not None:
                partition.resign()
                partition.wake()

    def wake_all(self) -> None:
        """Let every waiting fetch answer with what there is: the node stops."""
        self.stopping = True
        for partition in self.partitions.values():
            partition.wake()

    def close(self) -> None:
        """Fetch and propose nothing more."""
        self.stopping = True
        if self._lag_timer is not None:
            self._lag_timer.cancel()
        if self._fetchers is not None:
            self._fetchers.close()
        if self._proposals is not None:
            self._proposals.close()

    def _apply_topic(self, topic: TopicImage) -> None:
        config = self._log_config(topic)
        for index, state in enumerate(topic.partitions):
            partition = self.partitions.get((topic.name, index))
            if self._node_id not in state.replicas:
                if partition is not None:
                    log.info("%s: it is held by others now: removing it", partition.topic_partition)
                    self._remove(partition)
            elif partition is None:
                self._unopened.append((topic, index))
            else:
                self._configure(partition, config)
                if partition.state is not state:
                    self._give_role(partition, state)

    def _give_role(self, partition: Partition, state: PartitionState) -> None:
        if not self.active:
            partition.state = state
            return
        partition.apply(state, may_lead=self._ended is None)
        if self._fetchers is None:
            return
        if partition.leading is None and state.leader >= 0 and state.leader != self._node_id:
            self._fetchers.follow(partition, state.leader)
        else:
            self._fetchers.forget(partition)
        partition.settle()

    def _open_some(self) -> None:
        """Open new partitions, so many that other clients do not have to wait, and go on soon."""
        for _ in range(min(OPENED_AT_ONCE_MAX, len(self._unopened))):
            topic, index = self._unopened.popleft()
            try:
                if self._image is not None and topic.topic_id in self._image.topics_by_id:
                    self.get(topic.name, index)
            except KafkaError as error:
                # Otherwise it is gone again. Clients may not ask for a partition that is led elsewhere.
                if error.code is ErrorCode.kafka_storage_error:
                    self._failing.append((topic, index))
        if self._unopened and not self.stopping:
            self._clock.call_later(0, self._open_some)

    def _open(self, topic: TopicImage, index: int) -> Partition:
        name = TopicPartition(topic.name, index)
        config = self._log_config(topic)
        high_watermark = self._logs.recorded_high_watermark(name)
        opened = self._logs.get_or_create(name, topic.topic_id, config, self._clock.now_ms())
        state = topic.partitions[index]
        partition = self.partitions[topic.name, index] = Partition(
            name,
            topic.topic_id,
            state,
            opened,
            node_id=self._node_id,
            disk=self._disk,
            cluster=self,
            high_watermark=high_watermark,
        )
        self._give_role(partition, state)
        return partition

    def _apply_config(self, topic: TopicImage) -> None:
        config = self._log_config(topic)
        for index in range(len(topic.partitions)):
            partition = self.partitions.get((topic.name, index))
            if partition is not None:
                self._configure(partition, config)

    def _configure(self, partition: Partition, config: LogConfig) -> None:
        before = partition.log.config
        partition.log.update_config(config)
        if config.min_insync_replicas != before.min_insync_replicas:
            partition.settle()
            partition.advance()
        if (
            config.leader_replication_throttled_replicas,
            config.follower_replication_throttled_replicas,
        ) != (before.leader_replication_throttled_replicas, before.follower_replication_throttled_replicas):
            self._throttle_changed([partition])

    def _config_changed(self, names: frozenset[str]) -> None:
        if any(name in names for name in _RATES):
            self._quota.rate_max = self._config.get(RATE)
            self._throttle_changed(list(self.partitions.values()))

    def _throttle_changed(self, partitions: list[Partition]) -> None:
        """Let followers that are held back, here or at their leaders, look again."""
        if self._fetchers is None:
            return
        for partition in partitions:
            if partition.log.config.leader_replication_throttled_replicas:
                partition.wake()
        self._fetchers.throttle_changed()

    def _remove_topic(self, topic: TopicImage) -> None:
        for index in range(len(topic.partitions)):
            partition = self.partitions.get((topic.name, index))
            if partition is not None:
                self._remove(partition)

    def _remove(self, partition: Partition) -> None:
        del self.partitions[partition.topic_partition]
        if self._fetchers is not None:
            self._fetchers.forget(partition)
        self._logs.delete(partition.topic_partition)
        partition.resign()
        partition.wake()

    def _log_config(self, topic: TopicImage) -> LogConfig:
        return LogConfig.from_values(self._config.topic_values(topic.configs))

    # ------------------------------------------------------------ who reads what from where

    @property
    def followers_serve(self) -> bool:
        """Whether consumers may be sent to followers, which must hear of commits at once then (KIP-392)."""
        return bool(self._config.get("replica.selector.class") == RACK_AWARE_SELECTOR)

    def preferred_replica(self, partition: Partition, rack: str, offset: int, listener: str) -> int | None:
        """The follower that a consumer in ``rack`` had better read ``offset`` from; None: from this leader
        (ReplicaManager.findPreferredReadReplica, RackAwareReplicaSelector).

        One in sync that has the offset and can be reached by ``listener``: the one that has most, then the
        one that was caught up last, then the one with the largest id.
        """
        if not self.followers_serve or self._image is None or partition.leading is None:
            return None
        brokers = self._image.brokers
        own = brokers.get(self._node_id)
        if own is not None and own.rack == rack:
            return None
        best: tuple[int, int, int] | None = None
        for node_id in partition.state.isr:
            follower = partition.leading.followers.get(node_id)
            broker = brokers.get(node_id)
            if follower is None or broker is None or broker.rack != rack or not broker.endpoint(listener):
                continue
            if follower.log_start_offset <= offset <= follower.log_end_offset:
                found = (follower.log_end_offset, follower.caught_up_ms, node_id)
                best = found if best is None else max(best, found)
        return best[2] if best is not None else None

    def may_send(self, partition: Partition, follower_id: int) -> bool:
        """Whether a follower may be sent more now: one that is throttled waits while the node sends more than
        leader.replication.throttled.rate, unless it is in sync (ReplicaManager.shouldLeaderThrottle)."""
        return not (
            self._is_throttled(partition)
            and follower_id not in partition.state.isr
            and self._quota.pause_ms(self._clock.monotonic_ms()) > 0
        )

    def sent(self, partition: Partition, size: int) -> None:
        """Count what a follower is sent, in sync or not, if the partition is throttled."""
        if self._is_throttled(partition):
            self._quota.record(size, self._clock.monotonic_ms())

    def _is_throttled(self, partition: Partition) -> bool:
        replicas = partition.log.config.leader_replication_throttled_replicas
        return bool(replicas) and is_listed(replicas, partition.topic_partition.partition, self._node_id)

    # ------------------------------------------------------------ what partitions ask (partition.Cluster)

    def monotonic_ms(self) -> int:
        return self._clock.monotonic_ms()

    def is_eligible(self, node_id: int, broker_epoch: int) -> bool:
        """Whether a node lives with this registration and is not about to stop."""
        image = self._image
        if image is None or node_id in image.stopping:
            return False
        broker = image.brokers.get(node_id)
        return broker is not None and broker.epoch == broker_epoch

    def is_alive(self, node_id: int) -> bool:
        """Whether a node is registered."""
        return self._image is not None and node_id in self._image.brokers

    def propose(self, partition: Partition, state: PartitionState) -> None:
        """Send a leader's change of its ISR to the store."""
        image = self._image
        topic = image.topics_by_id.get(partition.topic_id) if image is not None else None
        if self._proposals is None or topic is None or image is None:
            partition.proposal_failed(state)
            return
        joining = [node_id for node_id in state.isr if node_id not in partition.state.isr]
        registrations = {node_id: image.brokers[node_id].epoch for node_id in joining}
        change = PartitionChange(topic, partition.topic_partition.partition, partition.state, state)
        self._proposals.add(Proposal(partition, change, registrations))

    def look_for_laggards(self) -> None:
        """Take out of ISRs who does not keep up; look whether all logs can still be written, and those that
        could not be made be made by now.

        Every half of replica.lag.time.max.ms, so that a follower is out after one and a half at most.
        """
        for partition in list(self.partitions.values()):
            if partition.log.failed is not None and self.disk_failed is not None:
                self.disk_failed(f"{partition.topic_partition}: {partition.log.failed.strerror}")
                return
            partition.look_again()
            partition.shrink()
        if self._failing:
            failing, self._failing = self._failing, []
            self._unopened.extend(failing)
            self._open_some()
        self._lag_timer = self._clock.call_later(max(self.lag_ms_max / 2, 1), self.look_for_laggards)
