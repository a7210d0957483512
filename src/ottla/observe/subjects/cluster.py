"""The cluster as this node knows it, and the node's place in it."""

from __future__ import annotations

from collections.abc import Iterator

from ottla.metadata.elections import NO_LEADER
from ottla.observe.exposition import Page
from ottla.observe.metric import counter, gauge
from ottla.observe.parts import Parts
from ottla.observe.readiness import reasons

_CONTROLLER = "kafka.controller:type=KafkaController,name="

READY = gauge(
    "ottla_ready", "1 where /readyz would answer 200, 0 where it would not.", "1.", "Ask /readyz why.",
    (), "kafka.server:type=KafkaServer,name=BrokerState",
)  # fmt: skip
BROKERS = gauge(
    "ottla_brokers", "Nodes that live, as this node knows.", "As many as were started.",
    "Look for the missing ones: `ottla cluster describe`.", (), _CONTROLLER + "ActiveBrokerCount",
)  # fmt: skip
FENCED = gauge(
    "ottla_fenced_brokers", "Nodes that were members and live no more.", "0.",
    "Start them, or have them forgotten: `ottla cluster drain N --unregister`.",
    (), _CONTROLLER + "FencedBrokerCount",
)  # fmt: skip
CONTROLLER = gauge(
    "ottla_active_controller", "1 on the node that is the controller, 0 on all others.",
    "1 in the sum of all nodes.", "See that nodes reach the metadata store: the next controller is made "
    "there.",
    (), _CONTROLLER + "ActiveControllerCount",
)  # fmt: skip
CONTROLLERS = counter(
    "ottla_controller_changes_total", "How often another node became controller, as this node has seen.",
    "It stands still, but when nodes stop.", "See `ottla_loop_lag_seconds` and `ottla_store_request_seconds` "
    "of "
    "the nodes that lost the office.",
    (), _CONTROLLER + "NewActiveControllersCount",
)  # fmt: skip
ELECTIONS = counter(
    "ottla_leader_changes_total",
    "Partitions that this node has given another leader, or another leader epoch: as controller, or since "
    "somebody asked for it.",
    "It moves when nodes stop or start, and when leaders are balanced.", "", (),
    "kafka.controller:type=ControllerStats,name=LeaderElectionRateAndTimeMs",
)  # fmt: skip
LEADERLESS = counter(
    "ottla_leader_losses_total", "Of these, how often there was nobody who could lead.", "It stands still.",
    "See `ottla_offline_partitions`.",
)  # fmt: skip
UNCLEAN = counter(
    "ottla_unclean_leader_elections_total",
    "Of these, how often one was to lead that may have lost records: neither in sync nor an eligible leader "
    "replica (KIP-966).",
    "It stands still.",
    "Records may be lost: see which nodes failed. Only unclean.leader.election.enable and "
    "`ottla cluster elect --unclean` have it happen.",
    (), "kafka.controller:type=ControllerStats,name=UncleanLeaderElectionsPerSec",
)  # fmt: skip
TOPICS = gauge(
    "ottla_topics",
    "Topics of the cluster.",
    "As many as were made.",
    "",
    (),
    _CONTROLLER + "GlobalTopicCount",
)
PARTITIONS = gauge(
    "ottla_partitions", "Partitions of the cluster.", "As many as were made.", "", (),
    _CONTROLLER + "GlobalPartitionCount",
)  # fmt: skip
ALL_OFFLINE = gauge(
    "ottla_cluster_offline_partitions", "Partitions of the cluster that nobody leads.", "0.",
    "See `ottla_offline_partitions` of each node for where they are.", (), _CONTROLLER +
    "OfflinePartitionsCount",
)  # fmt: skip
REVISION = gauge(
    "ottla_metadata_revision", "The store's revision that this node's view of the cluster is of.",
    "Within seconds that of all other nodes.", "See `ottla_store_away_seconds`.",
    (), "kafka.server:type=broker-metadata-metrics,name=last-applied-record-offset",
)  # fmt: skip

METRICS = (
    READY, BROKERS, FENCED, CONTROLLER, CONTROLLERS, ELECTIONS, LEADERLESS, UNCLEAN, TOPICS, PARTITIONS,
    ALL_OFFLINE, REVISION,
)  # fmt: skip

# Topics that are looked at between two yields; of many partitions fewer.
TOPICS_AT_ONCE = 50
PARTITIONS_AT_ONCE = 500


def collect(parts: Parts, page: Page) -> Iterator[None]:
    metadata = parts.services.metadata
    image = metadata.image
    page.add(READY, not (yield from reasons(parts)))
    page.add(BROKERS, len(image.brokers))
    page.add(FENCED, sum(1 for node_id in image.nodes if node_id not in image.brokers))
    page.add(CONTROLLER, image.controller_id == parts.services.node_id)
    page.add(CONTROLLERS, metadata.controller_changes)
    page.add(REVISION, image.revision)
    page.add(ELECTIONS, metadata.elections.changes)
    page.add(LEADERLESS, metadata.elections.losses)
    page.add(UNCLEAN, metadata.elections.unclean)
    partitions, offline = 0, 0
    for count, topic in enumerate(list(image.topics.values()), 1):
        partitions += len(topic.partitions)
        for index, state in enumerate(topic.partitions, 1):
            offline += state.leader == NO_LEADER
            if index % PARTITIONS_AT_ONCE == 0:
                yield
        if count % TOPICS_AT_ONCE == 0:
            yield
    page.add(TOPICS, len(image.topics))
    page.add(PARTITIONS, partitions)
    page.add(ALL_OFFLINE, offline)
