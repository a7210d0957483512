"""Keeps this node's partitions as the metadata image says they should be, and finds them for handlers."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from functools import partial as bind
from typing import TYPE_CHECKING
from uuid import UUID

from ottla.config import BrokerConfig
from ottla.config.replication import RACK_AWARE_SELECTOR
from ottla.env.clock import Clock, Timer
from ottla.env.disk import Disk
from ottla.errors import ErrorCode, KafkaError
from ottla.log.manager import LogManager
from ottla.log.settings import LogConfig
from ottla.metadata.image import BrokerImage, ClusterImage, PartitionState, TopicImage
from ottla.replication.attempts import attempt
from ottla.replication.behind import Raise
from ottla.replication.claims import Claims
from ottla.replication.hand_over import HandOvers
from ottla.replication.laggards import Laggards
from ottla.replication.log_configs import LogConfigs
from ottla.replication.moved_marks import MovedMarks
from ottla.replication.openings import Openings
from ottla.replication.partition import Partition
from ottla.replication.proposals import Commit, Proposals
from ottla.replication.removals import Removals
from ottla.replication.selector import preferred_replica
from ottla.replication.surroundings import Proposer
from ottla.replication.throttle import Quota, is_listed
from ottla.replication.traffic import Left
from ottla.types import TopicPartition

if TYPE_CHECKING:
    from ottla.replication.fetchers import Fetchers

log = logging.getLogger(__name__)

# Partitions that are given a role, or a configuration, in one turn: up to 20 microseconds each.
FOLLOWED_AT_ONCE = 200
NO_EPOCH = -1
# How long until a partition that could not take its role, or its configuration, tries again.
AGAIN_MS = 1_000
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
        self.proposals = Proposals(commit) if commit is not None else None
        self._image: ClusterImage | None = None
        self._claims = Claims(clock, config.inter_broker_listener, several=len(config.listeners()) > 1)
        # Plain dicts of pairs: a look-up is on the path of every Produce and Fetch.
        self.partitions: dict[tuple[str, int], Partition] = {}
        # Of those, whose high watermarks are to be written down.
        self.moved_marks = MovedMarks()
        self._hand_overs = HandOvers(node_id, self.propose, lambda: self._image, self.partitions, clock)
        self.stopping = False
        # Whether partitions take on the roles that the image gives them: not before the node has joined.
        self.active = False
        # The registration that the store says has ended, until the image shows another one.
        self._ended: int | None = None
        # Partitions that have yet to resign because of that.
        self._resigning: deque[Partition] = deque()
        # Whether a registration of this node's id is its own.
        self.is_own: Callable[[BrokerImage], bool] = lambda _: True
        self.openings = Openings(self, log_manager, clock)
        self._removals = Removals(log_manager, clock, self._let_go)
        self._log_configs = LogConfigs(config)
        # Partitions that could not be made what the image says, to be tried again soon.
        self._again: dict[TopicPartition, None] = {}
        self._again_timer: Timer | None = None
        # Told that a log can take nothing more until a restart. In a cluster others had better lead then.
        self.disk_failed: Callable[[str], None] | None = None
        self.lag_ms_max: int = config.get("replica.lag.time.max.ms")
        self._laggards = Laggards(self, clock, self.openings.try_again)
        # How many DeleteRecords wait for followers, which are told of log starts at once then.
        self.deletions = 0
        self.left = Left()
        # What goes to followers of throttled replicas.
        self._quota = Quota(
            config.get(RATE),
            1000 * config.get("replication.quota.window.size.seconds"),
            config.get("replication.quota.window.num"),
        )
        config.subscribe(self._config_changed)

    # ------------------------------------------------------------ look-ups

    def get(self, topic: str, index: int) -> Partition:
        """KafkaError: UNKNOWN_TOPIC_OR_PARTITION, NOT_LEADER_OR_FOLLOWER where it lives elsewhere,
        KAFKA_STORAGE_ERROR where it should be here and cannot be made."""
        partition = self.partitions.get((topic, index))
        return partition if partition is not None else self.openings.get(topic, index)

    @property
    def unopened(self) -> bool:
        """Whether there may be partitions that ``get`` would have to open: who may wait, and names some that
        are not in ``partitions``, waits for ``open`` first."""
        return self.openings.pending

    async def open(self, wanted: Iterable[tuple[str, int]]) -> None:
        """Have those open that are not: ``Openings.open``."""
        await self.openings.open(wanted)

    async def open_all(self) -> None:
        """Wait for whatever is to be here and had no turn to be opened yet: ``Openings.finish``."""
        await self.openings.finish()

    def exists(self, topic_id: UUID) -> bool:
        return self._image is not None and topic_id in self._image.topics_by_id

    def absent(self, name: str, index: int) -> TopicImage:
        """The topic of a partition that is to be here, open or not. KafkaError as ``get``."""
        topic = self._image.topics.get(name) if self._image is not None else None
        if topic is None or not 0 <= index < len(topic.partitions):
            raise KafkaError(ErrorCode.unknown_topic_or_partition)
        if self._node_id not in topic.partitions[index].replicas:
            raise KafkaError(ErrorCode.not_leader_or_follower)
        return topic

    def hand_over(self, topic: TopicImage, index: int) -> None:
        """Have another replica lead what cannot be opened here."""
        if self.proposals is not None and self.active:
            self._hand_overs.ask(topic, index, self.log_config(topic).min_insync_replicas)

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

    def follower_epoch(self, node_id: int, claim: int, listener: str, host: str) -> int:
        """The broker epoch of a follower that fetches: ``Claims.follower_epoch``."""
        return self._claims.follower_epoch(self._image, node_id, claim, listener, host)

    def check_replica(self, node_id: int, listener: str, host: str) -> None:
        """Refuse a request in a replica's name where nodes do not send theirs: ``Claims.check_listener``."""
        self._claims.check_listener(self._image, node_id, listener, host)

    def is_for_nodes(self, listener: str) -> bool:
        """As ``Claims.is_for_nodes``."""
        return self._claims.is_for_nodes(self._image, listener)

    def assigned(self) -> set[TopicPartition]:
        """The partitions that are to be on this node, those among them that cannot be opened."""
        topics = self._image.topics if self._image is not None else {}
        return {
            TopicPartition(name, index)
            for name, topic in topics.items()
            for index, state in enumerate(topic.partitions)
            if self._node_id in state.replicas
        }

    # ------------------------------------------------------------ following the image

    def activate(self) -> Generator[None, None, None]:
        """The node has joined: partitions take on their roles, in pieces, and at each change of the image."""
        self.active = True
        for count, partition in enumerate(list(self.partitions.values()), 1):
            topic = self._topic_of(partition)
            # It may have gone, or be another one's, since the first piece.
            if topic is not None and not partition.removed:
                self._take_role(partition, topic.partitions[partition.topic_partition.partition])
            if count % FOLLOWED_AT_ONCE == 0:
                yield
        if self._fetchers is not None:
            self.look_for_laggards()

    def apply(self, old: ClusterImage | None, new: ClusterImage) -> None:
        """Make the partitions what ``new`` says. Called on each change, in order.

        One that cannot be opened, at the start (no ``old``) or later, says why, and is tried again when it is
        asked for; the others serve.
        """
        for _ in self.follow(old, new):
            pass

    def follow(self, old: ClusterImage | None, new: ClusterImage) -> Generator[None, None, None]:
        """``apply`` in pieces: others may have their turn wherever this yields, and the next image waits.

        A partition is as it was until its turn comes, as if the image had come later; nobody finds what is
        deleted from the first piece on.
        """
        self._image = new
        if self._ended is not None:
            own = new.brokers.get(self._node_id)
            if own is not None and own.epoch != self._ended and self.is_own(own):
                # None that led for the registration before is to lead for this one.
                while self._resigning:
                    self._resign_some()
                self._ended = None
        for count, _ in enumerate(self._steps(old, new), 1):
            if count % FOLLOWED_AT_ONCE == 0:
                yield

    def _steps(self, old: ClusterImage | None, new: ClusterImage) -> Iterator[None]:
        """What there is to do at a change, about one partition in each step."""
        before: Mapping[str, TopicImage] = old.topics if old is not None else {}
        if self._fetchers is not None:
            # First, since who is followed from the next piece on is looked for where it is by now.
            self._fetchers.apply(old, new)
        if before is not new.topics:
            yield from self._apply_topics(before, new.topics)
        if old is None:
            self.openings.all_at_once()
        else:
            self.openings.some()
        if old is not None and old.broker_configs != new.broker_configs:
            # Topic defaults come from the broker's configuration.
            for topic in new.topics.values():
                yield from self._apply_config(topic)
        if self._fetchers is not None and old is not None:
            yield from self._look_at_nodes(old, new)

    def _apply_topics(
        self, before: Mapping[str, TopicImage], after: Mapping[str, TopicImage]
    ) -> Iterator[None]:
        for name, topic in before.items():
            now = after.get(name)
            if now is None or now.topic_id != topic.topic_id:
                self._forget_topic(topic)
        yield from self._removals.begin()
        for name, topic in after.items():
            if before.get(name) is not topic:
                yield from self._apply_topic(topic)

    def _look_at_nodes(self, old: ClusterImage, new: ClusterImage) -> Iterator[None]:
        if old.brokers is not new.brokers or old.stopping is not new.stopping:
            for partition in list(self.partitions.values()):
                what = "%s: a change of nodes cannot be looked at"
                attempt(partition.look_again, what, partition.topic_partition)
                yield

    def step_down(self) -> None:
        """This node's registration has ended, says the store: lead nothing, though the image may take a while
        to show who does. What names this node leader was made for that registration, until the image has
        another one."""
        own = self._image.brokers.get(self._node_id) if self._image is not None else None
        self._ended = own.epoch if own is not None else NO_EPOCH
        resigning, self._resigning = self._resigning, deque(self.partitions.values())
        if not resigning:
            self._resign_some()

    def _resign_some(self) -> None:
        """Have some partitions resign, and the others soon: as if the store had told a moment later."""
        for _ in range(min(FOLLOWED_AT_ONCE, len(self._resigning))):
            partition = self._resigning.popleft()
            if partition.leading is not None:
                attempt(partition.resign, "%s: resigning", partition.topic_partition)
                partition.wake()
        if self._resigning:
            self._clock.call_later(0, self._resign_some)

    def wake_all(self) -> Generator[None, None, None]:
        """Let every waiting fetch answer with what there is, in pieces: the node stops."""
        self.stopping = True
        for count, partition in enumerate(list(self.partitions.values()), 1):
            partition.wake()
            if count % FOLLOWED_AT_ONCE == 0:
                yield

    def close(self) -> None:
        """Fetch and propose nothing more."""
        self.stopping = True
        self._resigning.clear()
        self._removals.finish()
        self._laggards.close()
        if self._again_timer is not None:
            self._again_timer.cancel()
        if self._fetchers is not None:
            self._fetchers.close()
        if self.proposals is not None:
            self.proposals.close()

    def _topic_of(self, partition: Partition) -> TopicImage | None:
        """The topic of a partition in the image; None where it is gone, or another one of its name."""
        topic = self._image.topics.get(partition.topic_partition.topic) if self._image is not None else None
        return topic if topic is not None and topic.topic_id == partition.topic_id else None

    def _apply_topic(self, topic: TopicImage) -> Iterator[None]:
        config = self._log_configs.readable(topic)
        for index, state in enumerate(topic.partitions):
            partition = self.partitions.get((topic.name, index))
            if self._node_id not in state.replicas:
                self._forget_trouble(topic.name, index)
                if partition is not None:
                    log.info("%s: no longer assigned here: removing it", partition.topic_partition)
                    self._remove(partition)
            elif partition is None:
                self.openings.add(topic, index)
            else:
                if partition.state is not state:
                    self._take_role(partition, state)
                self._take_config(partition, config)
            yield

    def _take_role(self, partition: Partition, state: PartitionState) -> None:
        """Give a partition its role. One that cannot take it has none, and tries again soon; the others, and
        what else follows the image, go on."""
        where = partition.topic_partition
        what = "%s cannot take its role, and has none until it can"
        if not attempt(bind(self._give_role, partition, state), what, where):
            partition.state = state
            self._try_again(partition)
            if self._fetchers is not None:
                attempt(bind(self._fetchers.forget, partition), "%s: following nobody", where)
            attempt(partition.resign, "%s: resigning", where)
            partition.wake()

    def _take_config(self, partition: Partition, config: LogConfig | None) -> None:
        """The same for its configuration: until it can it goes on with that of before. So it does where that
        cannot be understood (None)."""
        what = "%s cannot take its configuration"
        if config is not None and not attempt(
            bind(self._configure, partition, config), what, partition.topic_partition
        ):
            self._try_again(partition)

    def _try_again(self, partition: Partition) -> None:
        self._again[partition.topic_partition] = None
        if self._again_timer is None and not self.stopping:
            self._again_timer = self._clock.call_later(AGAIN_MS, self._apply_again)

    def _apply_again(self) -> None:
        self._again_timer = None
        again, self._again = self._again, {}
        for name in again:
            partition = self.partitions.get(name)
            topic = self._topic_of(partition) if partition is not None else None
            if partition is not None and topic is not None:
                self._take_role(partition, topic.partitions[name.partition])
                self._take_config(partition, self._log_configs.readable(topic))

    def _give_role(self, partition: Partition, state: PartitionState) -> None:
        if not self.active:
            partition.state = state
            return
        behind = Raise.of(partition, state, self._node_id) if self.proposals is not None else None
        partition.apply(state, may_lead=self._ended is None and behind is None)
        if behind is not None:
            self.propose(behind, behind.raised)
        if self._fetchers is None:
            return
        if partition.leading is None and state.leader >= 0 and state.leader != self._node_id:
            self._fetchers.follow(partition, state.leader)
        else:
            self._fetchers.forget(partition)
        partition.propose_due()

    def make(self, topic: TopicImage, index: int) -> Partition:
        """Open a partition, at once. Raises whatever stands in the way: see ``Openings``."""
        name = TopicPartition(topic.name, index)
        self._removals.make_way(name)
        config = self.log_config(topic)
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
            moved_marks=self.moved_marks,
        )
        self._hand_overs.forget(name)
        self._take_role(partition, state)
        return partition

    def _apply_config(self, topic: TopicImage) -> Iterator[None]:
        config = self._log_configs.readable(topic)
        for index in range(len(topic.partitions)):
            partition = self.partitions.get((topic.name, index))
            if partition is not None:
                self._take_config(partition, config)
            yield

    def _configure(self, partition: Partition, config: LogConfig) -> None:
        before = partition.log.config
        partition.log.update_config(config)
        if config.min_insync_replicas != before.min_insync_replicas:
            partition.propose_due()
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

    def _forget_topic(self, topic: TopicImage) -> None:
        """Nobody finds its partitions from now on."""
        for index in range(len(topic.partitions)):
            self._forget_trouble(topic.name, index)
            partition = self.partitions.pop((topic.name, index), None)
            if partition is not None:
                self.left.add(topic.name, partition.traffic)
                self._removals.add(partition)

    def _forget_trouble(self, name: str, index: int) -> None:
        """What stood in the way of a partition is of no interest any more."""
        self.openings.forget(name, index)
        self._hand_overs.forget(TopicPartition(name, index))

    def _remove(self, partition: Partition) -> None:
        where = partition.topic_partition
        self.left.add(where.topic, self.partitions.pop(where).traffic)
        self._let_go(partition)
        attempt(bind(self._logs.delete, where), "%s: removing its log", where)

    def _let_go(self, partition: Partition) -> None:
        where = partition.topic_partition
        if self._fetchers is not None:
            attempt(bind(self._fetchers.forget, partition), "%s: following nobody", where)
        attempt(partition.remove, "%s: resigning", where)

    def log_config(self, topic: TopicImage) -> LogConfig:
        return self._log_configs.find(topic)

    def readable_config(self, topic: TopicImage) -> LogConfig | None:
        return self._log_configs.readable(topic)

    # ------------------------------------------------------------ who reads what from where

    @property
    def followers_serve(self) -> bool:
        """Whether consumers may be sent to followers, which must hear of commits at once then (KIP-392)."""
        return bool(self._config.get("replica.selector.class") == RACK_AWARE_SELECTOR)

    def preferred_replica(self, partition: Partition, rack: str, offset: int, listener: str) -> int | None:
        """Where a consumer in ``rack`` had better read ``offset`` from; None: from this leader."""
        if not self.followers_serve or self._image is None:
            return None
        return preferred_replica(self._image, partition, rack, offset, listener)

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

    def propose(self, partition: Proposer, state: PartitionState) -> None:
        """Send a leader's change of its ISR to the store."""
        image, proposals = self._image, self.proposals
        if image is None or proposals is None or not proposals.propose(image, partition, state):
            partition.proposal_failed(state)

    def look_for_laggards(self) -> None:
        """Take out of ISRs who does not keep up, and look whether all logs can still be written and made,
        now and again and again."""
        self._laggards.look()
