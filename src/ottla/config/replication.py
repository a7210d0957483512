"""Broker configurations of the cluster: liveness, leadership, followers (Kafka's ``ReplicationConfigs``)."""

from __future__ import annotations

from ottla.config.definition import ConfigType, Definition, Mode, at_least, one_of, table
from ottla.numbers import LONG_MAX

HIGH, MEDIUM, LOW = "high", "medium", "low"
_BOOLEAN, _STRING, _INT, _LONG = ConfigType.BOOLEAN, ConfigType.STRING, ConfigType.INT, ConfigType.LONG
_CLUSTER = Mode.CLUSTER_WIDE

# The one selector that there is (KIP-392); without it consumers read from leaders.
RACK_AWARE_SELECTOR = "org.apache.kafka.common.replica.RackAwareReplicaSelector"
_LEADER_SELECTOR = "org.apache.kafka.common.replica.LeaderSelector"


_LIVENESS = (
    Definition(
        "broker.heartbeat.interval.ms", _INT, 2000, MEDIUM,
        "How often a node of a cluster keeps its lease alive, at the longest.", at_least(1),
    ),
    Definition(
        "broker.session.timeout.ms", _INT, 9000, MEDIUM,
        "Silence after which a node of a cluster is considered dead; whole seconds, at least 2, in "
        "etcd. One whose process has ended is noticed at once.",
        at_least(1),
    ),
    Definition(
        "initial.broker.registration.timeout.ms", _INT, 60_000, MEDIUM,
        "How long a node tries to join its cluster before it gives up.", at_least(1),
    ),
    Definition(
        "controlled.shutdown.enable", _BOOLEAN, True, MEDIUM, "Hand leadership over before stopping.",
    ),
    Definition(
        "inter.broker.listener.name", _STRING, None, MEDIUM,
        "The listener that nodes use among themselves; by default the first of their listeners.",
    ),
)  # fmt: skip

_LEADERS = (
    Definition(
        "auto.leader.rebalance.enable", _BOOLEAN, True, HIGH,
        "Let preferred replicas lead again if a node leads too few of its partitions.",
    ),
    Definition(
        "leader.imbalance.check.interval.seconds", _LONG, 300, HIGH,
        "Interval at which the controller checks the balance of leaders.", at_least(1),
    ),
    Definition(
        "leader.imbalance.per.broker.percentage", _INT, 10, HIGH,
        "Share of a node's preferred partitions that others may lead before they are moved back.",
    ),
    Definition(
        "unclean.leader.election.enable", _BOOLEAN, False, HIGH,
        "Let a replica outside the in-sync set lead when none inside it is left, losing records; for "
        "topics without a value of their own.",
        None, _CLUSTER,
    ),
    Definition(
        "replica.lag.time.max.ms", _LONG, 30_000, HIGH,
        "A follower that has not caught up for this long is out of sync.",
    ),
    Definition(
        "replica.selector.class", _STRING, None, MEDIUM,
        "Chooses the replica that a consumer reads from: Kafka's RackAwareReplicaSelector sends consumers to "
        "one in their rack.",
        one_of(RACK_AWARE_SELECTOR, _LEADER_SELECTOR),
    ),
    Definition(
        "leader.replication.throttled.rate", _LONG, LONG_MAX, MEDIUM,
        "Bytes a second that a node sends to followers of throttled replicas.", at_least(0), _CLUSTER,
    ),
)  # fmt: skip

_FOLLOWERS = (
    Definition(
        "replica.fetch.backoff.ms", _INT, 1000, MEDIUM,
        "Wait of a follower after a failed fetch of a partition.", at_least(0),
    ),
    Definition(
        "replica.fetch.max.bytes", _INT, 1_048_576, MEDIUM,
        "Bytes of a partition that a follower fetches at a time. A larger batch is fetched whole.",
        at_least(0),
    ),
    Definition(
        "replica.fetch.min.bytes", _INT, 1, HIGH, "Bytes that a follower's fetch waits for.",
    ),
    Definition(
        "replica.fetch.response.max.bytes", _INT, 10_485_760, MEDIUM, "Largest response to a follower.",
        at_least(0),
    ),
    Definition(
        "replica.fetch.wait.max.ms", _INT, 500, HIGH,
        "How long a fetch of a follower waits for records. If nothing has been written for a while: ten"
        " times as long.",
    ),
    Definition(
        "replica.high.watermark.checkpoint.interval.ms", _LONG, 5000, HIGH,
        "How often high watermarks are written down.",
    ),
    Definition(
        "replica.socket.timeout.ms", _INT, 30_000, HIGH,
        "How long a follower waits for an answer of its leader.",
    ),
    Definition(
        "follower.replication.throttled.rate", _LONG, LONG_MAX, MEDIUM,
        "Bytes a second that a node fetches of throttled replicas.", at_least(0), _CLUSTER,
    ),
    Definition(
        "replication.quota.window.num", _INT, 11, LOW, "Samples kept of the throttled rate.", at_least(1),
    ),
    Definition(
        "replication.quota.window.size.seconds", _INT, 1, LOW, "Length of each such sample.", at_least(1),
    ),
)  # fmt: skip

REPLICATION: dict[str, Definition] = table(*_LIVENESS, *_LEADERS, *_FOLLOWERS)
