"""A node's fetchers: one for each node that leads a partition which we follow (ReplicaFetcherManager)."""

from __future__ import annotations

from collections.abc import Callable

from ottla.config import BrokerConfig
from ottla.env.clock import Clock
from ottla.env.network import Network
from ottla.metadata.image import ClusterImage
from ottla.replication.attempts import attempt
from ottla.replication.follower import Fetcher
from ottla.replication.partition import Partition
from ottla.replication.throttle import Quota, is_listed

NO_EPOCH = -1
RATE = "follower.replication.throttled.rate"


class Fetchers:
    """Who is followed where. ``broker_epoch`` gives this node's registration, -1 where it has none."""

    def __init__(
        self,
        node_id: int,
        network: Network,
        clock: Clock,
        config: BrokerConfig,
        broker_epoch: Callable[[], int],
        listener: str,
    ) -> None:
        self._broker_epoch = broker_epoch
        self._node_id = node_id
        self._network = network
        self._clock = clock
        self._config = config
        self._listener = listener
        self._image: ClusterImage | None = None
        self._fetchers: dict[int, Fetcher] = {}
        self._leaders: dict[Partition, int] = {}
        self._quota = Quota(
            config.get(RATE),
            1000 * config.get("replication.quota.window.size.seconds"),
            config.get("replication.quota.window.num"),
        )

    def follow(self, partition: Partition, leader_id: int) -> None:
        """Fetch a partition from its leader from now on."""
        if self._leaders.get(partition) != leader_id:
            self.forget(partition)
            self._leaders[partition] = leader_id
        fetcher = self._fetchers.get(leader_id)
        if fetcher is None:
            fetcher = self._fetchers[leader_id] = Fetcher(
                self._node_id, leader_id, self, self._network, self._clock, self._config
            )
        fetcher.follow(partition)

    def forget(self, partition: Partition) -> None:
        """Fetch a partition from nobody."""
        leader_id = self._leaders.pop(partition, None)
        if leader_id is None:
            return
        fetcher = self._fetchers[leader_id]
        fetcher.forget(partition)
        if not len(fetcher):
            del self._fetchers[leader_id]
            fetcher.close()

    def apply(self, old: ClusterImage | None, new: ClusterImage) -> None:
        """Nodes may have come, gone, or moved."""
        self._image = new
        if old is None or old.brokers is new.brokers:
            return
        for leader_id, fetcher in self._fetchers.items():
            if leader_id in new.brokers and new.brokers[leader_id] is not old.brokers.get(leader_id):
                attempt(fetcher.reconnect, "node %d: following it goes on as before", leader_id)

    def throttle_changed(self) -> None:
        """The rate, or who is held to it, is another one: look again at those who are held back."""
        self._quota.rate_max = self._config.get(RATE)
        for fetcher in self._fetchers.values():
            fetcher.end_rests()

    def close(self) -> None:
        for fetcher in self._fetchers.values():
            fetcher.close()

    # What fetchers ask (follower.Surroundings).

    def claim(self, leader_id: int) -> int:
        """What a fetch from a leader carries to show that it is from this node's registration; -1 while there
        is none. A leader of a release without keys is shown the broker epoch."""
        epoch = self._broker_epoch()
        brokers = self._image.brokers if self._image is not None else {}
        own, leader = brokers.get(self._node_id), brokers.get(leader_id)
        if own is None or own.epoch != epoch or leader is None:
            return NO_EPOCH
        return own.claim if leader.fetch_key else epoch

    def endpoint(self, node_id: int) -> tuple[str, int] | None:
        """Where a node listens for others; None while it does not live."""
        broker = self._image.brokers.get(node_id) if self._image is not None else None
        if broker is None:
            return None
        return broker.endpoint(self._listener) or (broker.host, broker.port)

    def received(self, partition: Partition, size: int) -> None:
        """Count what was fetched, in sync or not, if the partition is throttled."""
        if self._is_throttled(partition):
            self._quota.record(size, self._clock.monotonic_ms())

    def held_ms(self, partition: Partition) -> int:
        """For how long a partition that is behind is not to be fetched: the node keeps to its rate."""
        return self._quota.pause_ms(self._clock.monotonic_ms()) if self._is_throttled(partition) else 0

    def _is_throttled(self, partition: Partition) -> bool:
        replicas = partition.log.config.follower_replication_throttled_replicas
        return bool(replicas) and is_listed(replicas, partition.topic_partition.partition, self._node_id)
