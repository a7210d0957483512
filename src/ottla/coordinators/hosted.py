"""The coordinators of one node, with what they need of it: built together, served, and closed."""

from __future__ import annotations

from collections.abc import Callable

from ottla.config import BrokerConfig
from ottla.coordinators.groups.coordinator import GroupCoordinator
from ottla.coordinators.groups.settings import GroupConfig
from ottla.coordinators.runtime.failover import Failover
from ottla.coordinators.transactions.coordinator import ProducerIds, TransactionCoordinator
from ottla.coordinators.transactions.marker_writer import MarkerWriter
from ottla.coordinators.transactions.markers import HasImage, Markers
from ottla.coordinators.transactions.settings import TransactionConfig
from ottla.coordinators.transactions.verification import Verification
from ottla.env.clock import Clock
from ottla.env.deadlines import Deadlines
from ottla.env.disk import Disk
from ottla.env.network import Network
from ottla.env.slices import Slices
from ottla.metadata.feature_levels import TRANSACTION_VERSION
from ottla.metadata.image import OFFSETS_TOPIC, TRANSACTION_STATE_TOPIC, ClusterImage
from ottla.replication.internal_topic import InternalTopicLog
from ottla.replication.manager import ReplicaManager
from ottla.replication.nodes import Nodes


class Coordinators:
    """See the module's docstring. ``apply`` at each change of the image, after the partitions have taken on
    their roles."""

    def __init__(
        self,
        node_id: int,
        config: BrokerConfig,
        images: HasImage,
        replicas: ReplicaManager,
        producer_ids: ProducerIds,
        clock: Clock,
        disk: Disk,
        slices: Slices,
        deadlines: Deadlines,
        network: Network | None,
        holds_marker: Callable[[str], bool] | None = None,
    ) -> None:
        """``network``: how to reach other nodes; None where there are none. ``holds_marker``: see
        ``MarkerWriter``."""
        self.groups = groups = GroupCoordinator(
            InternalTopicLog(OFFSETS_TOPIC, replicas, clock, disk),
            clock,
            GroupConfig.from_config(config),
            slices=slices,
            deadlines=deadlines,
        )
        self._node_id = node_id
        self._listener = config.inter_broker_listener
        self._images = images
        self._clock = clock
        self._network = network
        self._asking: list[Nodes] = []
        self.marker_writer = MarkerWriter(replicas, clock, groups, holds_marker)
        self._markers = Markers(node_id, images, self.marker_writer, self._nodes("markers"), clock, slices)
        self.transactions = transactions = TransactionCoordinator(
            InternalTopicLog(TRANSACTION_STATE_TOPIC, replicas, clock, disk),
            clock,
            TransactionConfig.from_config(config),
            producer_ids,
            self._markers,
            level=lambda: images.image.features.level(TRANSACTION_VERSION),
            slices=slices,
            deadlines=deadlines,
        )
        self.verification = Verification(node_id, images, transactions, self._nodes("verification"))
        self._failovers = [
            Failover(node_id, OFFSETS_TOPIC, groups, groups.on_topics_deleted),
            Failover(node_id, TRANSACTION_STATE_TOPIC, transactions, transactions.on_topics_deleted),
        ]

    def _nodes(self, purpose: str) -> Nodes | None:
        """What asks other nodes something; None where there are none."""
        if self._network is None:
            return None
        nodes = Nodes(f"broker-{self._node_id}-{purpose}", self._network, self._clock, self._endpoint)
        self._asking.append(nodes)
        return nodes

    def _endpoint(self, node_id: int) -> tuple[str, int] | None:
        """Where a node listens for others; None while it does not live."""
        broker = self._images.image.brokers.get(node_id)
        return None if broker is None else broker.endpoint(self._listener) or (broker.host, broker.port)

    def apply(self, old: ClusterImage | None, new: ClusterImage) -> None:
        """Serve the partitions that this node leads now."""
        if old is not None and old.brokers is not new.brokers:
            ended = [
                node_id
                for node_id, broker in old.brokers.items()
                if node_id not in new.brokers or new.brokers[node_id].epoch != broker.epoch
            ]
            for nodes in self._asking:
                nodes.leave(ended)
        self._each(lambda failover: failover.apply(old, new))

    def step_down(self) -> None:
        """This node leads nothing any more, whatever the image shows: coordinate nothing."""
        self._each(Failover.step_down)

    def _each(self, do: Callable[[Failover], None]) -> None:
        for failover in self._failovers:
            do(failover)

    def close(self) -> None:
        """The node stops: tell all who wait to look for another coordinator, and ask nobody any more."""
        self.groups.close()
        self.transactions.close()
        self._each(Failover.close)
        self._markers.close()
        self.verification.close()
        for nodes in self._asking:
            nodes.close()
