"""Broker configurations without effect here: accepted, with a warning where something is missed, or refused.

Grouped by why they have no effect, and by which values ask for nothing that is missing (``met``).
Refused are those that promise a protection or a feature that is not there: a broker must not start as if it had it. Setting one to its default is no promise, and accepted.
"""

# ruff: noqa: E501 - a row to a line
# fmt: off

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ottla.config.definition import (
    Check,
    ConfigType,
    Definition,
    Effect,
    ListCheck,
    Mode,
    Rule,
    at_least,
    between,
    table,
)
from ottla.config.inert_security import SECURITY
from ottla.numbers import INT_MAX, LONG_MAX

BOOLEAN, STRING, INT, SHORT = ConfigType.BOOLEAN, ConfigType.STRING, ConfigType.INT, ConfigType.SHORT
LONG, DOUBLE, LIST, CLASS = ConfigType.LONG, ConfigType.DOUBLE, ConfigType.LIST, ConfigType.CLASS
HIGH, MEDIUM, LOW = "high", "medium", "low"
READ_ONLY, PER_BROKER, CLUSTER = Mode.READ_ONLY, Mode.PER_BROKER, Mode.CLUSTER_WIDE
DOUBLE_MAX = 1.7976931348623157e308

Row = tuple[str, ConfigType, object, str, str, Rule | None, Mode]


def _row(
    name: str, type: ConfigType, default: object, importance: str, doc: str,
    check: Rule | None = None, mode: Mode = READ_ONLY,
) -> Row:
    return name, type, default, importance, doc, check, mode


def _group(
    note: str, *rows: Row, effect: Effect = Effect.NONE, met: Callable[[Any], bool] | None = None,
) -> list[Definition]:
    return [
        Definition(name, type, default, importance, doc, check, mode, effect, note, met=met)
        for name, type, default, importance, doc, check, mode in rows
    ]


def _always(value: object) -> bool:
    """Whatever such a setting tunes is not here, or needs no tuning."""
    return True


def _is_one(value: object) -> bool:
    """As many as there are."""
    return value == 1


_one = at_least(1)
_zero = at_least(0)
_ANY = ListCheck()
_ANY_BUT_NONE = ListCheck(empty_allowed=False)
_NON_EMPTY = Check("non-empty string", lambda text: None if text else "String must be non-empty")

_THREADS = _group(
    "one event loop does this work",
    _row("background.threads", INT, 10, HIGH, "Threads for background work.", _one, CLUSTER),
    _row("num.io.threads", INT, 8, HIGH, "Threads that handle requests.", _one, CLUSTER),
    _row("num.network.threads", INT, 3, HIGH, "Threads that read and write sockets.", _one, CLUSTER),
    _row("num.recovery.threads.per.data.dir", INT, 2, HIGH, "Threads that recover logs at start.", _one, CLUSTER),
    _row("num.replica.alter.log.dirs.threads", INT, None, HIGH, "Threads that move replicas between folders."),
    _row("group.coordinator.background.threads", INT, 2, HIGH, "Threads for the group coordinator's side work.", _one),
    _row("group.coordinator.threads", INT, 4, HIGH, "Threads of the group coordinator.", _one),
    _row("queued.max.requests", INT, 500, HIGH, "Requests that may wait for a handler thread.", _one),
    met=_always,
)

_QUORUM = _group(
    "metadata is kept in a metadata store, not in a quorum of controllers",
    _row("controller.quorum.append.linger.ms", INT, 25, MEDIUM, "How long metadata writes are gathered.", _zero),
    _row("controller.quorum.auto.join.enable", BOOLEAN, False, LOW, "Let a controller join its quorum by itself."),
    _row("controller.quorum.bootstrap.servers", LIST, (), HIGH, "Controllers to ask first."),
    _row("controller.quorum.election.backoff.max.ms", INT, 1000, HIGH, "Longest wait between elections.", _zero),
    _row("controller.quorum.election.timeout.ms", INT, 1000, HIGH, "Silence that starts an election.", _zero),
    _row("controller.quorum.fetch.max.bytes", INT, 1048576, LOW, "Largest fetch of the metadata log.", _one),
    _row("controller.quorum.fetch.snapshot.max.bytes", INT, 1048576, LOW, "Largest fetch of a snapshot.", _one),
    _row("controller.quorum.fetch.timeout.ms", INT, 2000, HIGH, "Time without a fetch after which a role changes.", _zero),
    _row("controller.quorum.request.timeout.ms", INT, 2000, MEDIUM, "Time that a request to the quorum may take.", _zero),
    _row("controller.quorum.retry.backoff.ms", INT, 20, LOW, "Wait before a request is repeated.", _zero),
    _row("controller.quorum.voters", LIST, (), HIGH, "The voting controllers, as id@host:port."),
    _row("controller.socket.timeout.ms", INT, 30000, MEDIUM, "Time that the controller waits for a broker."),
    _row("metadata.log.max.record.bytes.between.snapshots", LONG, 20971520, HIGH, "Bytes of metadata between snapshots.", _one),
    _row("metadata.log.max.snapshot.interval.ms", LONG, 3600000, HIGH, "Time between snapshots.", _zero),
    _row("metadata.log.segment.bytes", INT, 1024**3, HIGH, "Segment size of the metadata log.", at_least(8388608)),
    _row("metadata.log.segment.ms", LONG, 604800000, HIGH, "Segment age of the metadata log."),
    _row("metadata.max.idle.interval.ms", INT, 500, LOW, "Time between no-op records in the metadata log.", _zero),
    _row("metadata.max.retention.bytes", LONG, 104857600, HIGH, "Size at which old metadata is dropped."),
    _row("metadata.max.retention.ms", LONG, 604800000, HIGH, "Age at which old metadata is dropped."),
    met=_always,
)

_QUORUM_WISHES = _group(
    "metadata is kept in a metadata store, not in a quorum of controllers",
    _row("early.start.listeners", LIST, None, HIGH, "Listeners that open before the authorizer is ready.", _ANY),
    _row("metadata.log.dir", STRING, None, HIGH, "Where the metadata log is kept."),
)

_REPLICATION = _group(
    "replication needs none of it here",
    _row("replica.alter.log.dirs.io.max.bytes.per.second", LONG, LONG_MAX, MEDIUM, "Rate at which replicas move between folders.", _zero, CLUSTER),
    _row("num.replica.fetchers", INT, 1, HIGH, "Fetchers for each broker that is followed; one event loop does the work.", _one, CLUSTER),
    _row("replica.socket.receive.buffer.bytes", INT, 65536, HIGH, "Receive buffer of a follower's socket; the system chooses it."),
    met=_always,
)

_COMPACTION = _group(
    "one task compacts all logs",
    _row("log.cleaner.threads", INT, 1, MEDIUM, "Threads that compact logs.", _zero, CLUSTER),
    met=_always,
)

_LOG = _group(
    "it is done with other work, or not needed",
    _row("log.dir.failure.timeout.ms", LONG, 30000, LOW, "How long a failed folder may go unreported.", _one),
    _row("log.flush.start.offset.checkpoint.interval.ms", INT, 60000, HIGH, "How often the logs' start offsets are written down.", _zero),
    _row("delete.records.purgatory.purge.interval.requests", INT, 1, MEDIUM, "How often finished DeleteRecords are swept."),
    _row("fetch.purgatory.purge.interval.requests", INT, 1000, MEDIUM, "How often finished fetches are swept."),
    _row("producer.purgatory.purge.interval.requests", INT, 1000, MEDIUM, "How often finished produces are swept."),
    _row("offsets.load.buffer.size", INT, 5242880, HIGH, "Bytes of offsets read at a time at start.", _one),
    _row("group.coordinator.append.linger.ms", INT, -1, MEDIUM, "How long the coordinator gathers writes.", at_least(-1)),
    _row("group.coordinator.cached.buffer.max.bytes", INT, 1048588, MEDIUM, "Largest write buffer that the coordinator keeps.", at_least(524288), CLUSTER),
    _row("request.timeout.ms", INT, 30000, HIGH, "Time that the broker's own requests may take."),
    _row("socket.connection.setup.timeout.max.ms", LONG, 30000, MEDIUM, "Longest time to connect to another broker."),
    _row("socket.connection.setup.timeout.ms", LONG, 10000, MEDIUM, "Time to connect to another broker."),
    met=_always,
)

_LOG_WISHES = _group(
    "it is left to the system",
    _row("log.preallocate", BOOLEAN, False, MEDIUM, "Reserve a new segment's space on disk at once.", None, CLUSTER),
    _row("socket.listen.backlog.size", INT, 50, MEDIUM, "Connections that may wait to be accepted.", _one),
    _row("socket.receive.buffer.bytes", INT, 102400, HIGH, "Receive buffer of a client's socket; the system chooses it."),
    _row("socket.send.buffer.bytes", INT, 102400, HIGH, "Send buffer of a client's socket; the system chooses it."),
)

_QUOTAS = _group(
    "clients are not throttled",
    _row("alter.log.dirs.replication.quota.window.num", INT, 11, LOW, "Samples kept of the rate between folders.", _one),
    _row("alter.log.dirs.replication.quota.window.size.seconds", INT, 1, LOW, "Length of each such sample.", _one),
)

_METRICS = _group(
    "metrics are not reported through Java classes",
    _row("kafka.metrics.polling.interval.secs", INT, 10, LOW, "How often reporters look.", _one),
    _row("kafka.metrics.reporters", LIST, (), LOW, "Reporters of the older kind.", _ANY),
    _row("metric.reporters", LIST, ("org.apache.kafka.common.metrics.JmxReporter",), LOW, "Reporters.", _ANY, CLUSTER),
    _row("metrics.num.samples", INT, 2, LOW, "Samples behind each metric.", _one),
    _row("metrics.recording.level", STRING, "INFO", LOW, "How much is measured."),
    _row("metrics.sample.window.ms", LONG, 30000, LOW, "Length of each sample.", _one),
)

_TRANSACTIONS = _group(
    "logs and coordinators look and read as they need",
    _row("producer.id.expiration.check.interval.ms", INT, 600000, LOW, "How often silent producers are looked for.", _one),
    _row("transaction.state.log.load.buffer.size", INT, 5242880, HIGH, "Bytes of __transaction_state read at a time.", _one),
    met=_always,
)

_CONSUMER_GROUPS = _group(
    "groups use the classic protocol",
    _row("group.consumer.assignment.interval.ms", INT, 1000, MEDIUM, "Time between assignments of a consumer group.", _zero, CLUSTER),
    _row("group.consumer.assignors", LIST, ("uniform", "range"), MEDIUM, "Assignors on the broker, the default first.", _ANY_BUT_NONE),
    _row("group.consumer.heartbeat.interval.ms", INT, 5000, MEDIUM, "Time between members' heartbeats.", _one),
    _row("group.consumer.max.assignment.interval.ms", INT, 15000, MEDIUM, "Longest assignment interval of a group.", _zero),
    _row("group.consumer.max.heartbeat.interval.ms", INT, 15000, MEDIUM, "Longest heartbeat interval of a group.", _one),
    _row("group.consumer.max.session.timeout.ms", INT, 60000, MEDIUM, "Longest session timeout of a group.", _one),
    _row("group.consumer.max.size", INT, INT_MAX, MEDIUM, "Most members of a consumer group.", _one),
    _row("group.consumer.migration.policy", STRING, "bidirectional", MEDIUM, "Whether groups may change between protocols while in use.", Check("[DISABLED, DOWNGRADE, UPGRADE, BIDIRECTIONAL], any case", lambda text: None if text.upper() in ("DISABLED", "DOWNGRADE", "UPGRADE", "BIDIRECTIONAL") else "String must be one of (case insensitive): DISABLED, DOWNGRADE, UPGRADE, BIDIRECTIONAL")),
    _row("group.consumer.min.assignment.interval.ms", INT, 0, MEDIUM, "Shortest assignment interval of a group.", _zero),
    _row("group.consumer.min.heartbeat.interval.ms", INT, 5000, MEDIUM, "Shortest heartbeat interval of a group.", _one),
    _row("group.consumer.min.session.timeout.ms", INT, 45000, MEDIUM, "Shortest session timeout of a group.", _one),
    _row("group.consumer.session.timeout.ms", INT, 45000, MEDIUM, "Silence after which a member is removed.", _one),
    _row("group.streams.assignors", LIST, ("sticky",), MEDIUM, "Assignors of streams groups, the default first.", _ANY_BUT_NONE),
    _row("group.streams.assignment.interval.ms", INT, 1000, MEDIUM, "Time between assignments of a streams group.", _zero, CLUSTER),
    _row("group.streams.heartbeat.interval.ms", INT, 5000, MEDIUM, "Time between streams members' heartbeats.", _one),
    _row("group.streams.initial.rebalance.delay.ms", INT, 3000, MEDIUM, "How long a new streams group waits for more members.", _zero),
    _row("group.streams.max.assignment.interval.ms", INT, 15000, MEDIUM, "Longest assignment interval of a streams group.", _zero),
    _row("group.streams.max.heartbeat.interval.ms", INT, 15000, MEDIUM, "Longest heartbeat interval of a streams group.", _one),
    _row("group.streams.max.session.timeout.ms", INT, 60000, MEDIUM, "Longest session timeout of a streams group.", _one),
    _row("group.streams.max.size", INT, INT_MAX, MEDIUM, "Most members of a streams group.", _one),
    _row("group.streams.max.standby.replicas", INT, 2, MEDIUM, "Most standby replicas of a streams group.", _zero),
    _row("group.streams.min.assignment.interval.ms", INT, 0, MEDIUM, "Shortest assignment interval of a streams group.", _zero),
    _row("group.streams.min.heartbeat.interval.ms", INT, 5000, MEDIUM, "Shortest heartbeat interval of a streams group.", _one),
    _row("group.streams.min.session.timeout.ms", INT, 45000, MEDIUM, "Shortest session timeout of a streams group.", _one),
    _row("group.streams.num.standby.replicas", INT, 0, MEDIUM, "Standby replicas of each streams task.", _zero),
    _row("group.streams.rack.aware.assignment.tags", LIST, (), LOW, "Tags of clients that standby tasks are spread over.", _ANY),
    _row("group.streams.session.timeout.ms", INT, 45000, MEDIUM, "Silence after which a streams member is removed.", _one),
)

_PROTOCOLS = _group(
    "groups use the classic protocol",
    _row("group.coordinator.rebalance.protocols", LIST, ("classic", "consumer", "streams"), MEDIUM, "Protocols that groups may use.", ListCheck(("classic", "consumer", "share", "streams"), empty_allowed=False)),
    met=lambda protocols: protocols == ("classic",),
)

_SHARE_GROUPS = _group(
    "there are no share groups yet",
    _row("group.share.assignment.interval.ms", INT, 1000, MEDIUM, "Time between assignments of a share group.", _zero, CLUSTER),
    _row("group.share.assignors", LIST, ("simple",), MEDIUM, "The assignor of share groups.", _ANY_BUT_NONE),
    _row("group.share.delivery.count.limit", INT, 5, MEDIUM, "How often a record is delivered before it is given up.", between(2, 10)),
    _row("group.share.heartbeat.interval.ms", INT, 5000, MEDIUM, "Time between members' heartbeats.", _one),
    _row("group.share.max.assignment.interval.ms", INT, 15000, MEDIUM, "Longest assignment interval of a group.", _zero),
    _row("group.share.max.delivery.count.limit", INT, 10, MEDIUM, "Most deliveries that a group may ask for.", between(5, 25)),
    _row("group.share.max.heartbeat.interval.ms", INT, 15000, MEDIUM, "Longest heartbeat interval of a group.", _one),
    _row("group.share.max.partition.max.record.locks", INT, 4000, MEDIUM, "Most record locks that a group may ask for.", between(2000, 10000)),
    _row("group.share.max.record.lock.duration.ms", INT, 60000, MEDIUM, "Longest lock that a group may ask for.", between(30000, 3600000)),
    _row("group.share.max.session.timeout.ms", INT, 60000, MEDIUM, "Longest session timeout of a group.", _one),
    _row("group.share.max.share.sessions", INT, 2000, MEDIUM, "Most share sessions of a broker.", _one),
    _row("group.share.max.size", INT, 200, MEDIUM, "Most members of a share group.", between(1, 1000)),
    _row("group.share.min.assignment.interval.ms", INT, 0, MEDIUM, "Shortest assignment interval of a group.", _zero),
    _row("group.share.min.delivery.count.limit", INT, 2, MEDIUM, "Fewest deliveries that a group may ask for.", between(2, 5)),
    _row("group.share.min.heartbeat.interval.ms", INT, 5000, MEDIUM, "Shortest heartbeat interval of a group.", _one),
    _row("group.share.min.partition.max.record.locks", INT, 100, MEDIUM, "Fewest record locks that a group may ask for.", between(100, 2000)),
    _row("group.share.min.record.lock.duration.ms", INT, 15000, MEDIUM, "Shortest lock that a group may ask for.", between(1000, 30000)),
    _row("group.share.min.session.timeout.ms", INT, 45000, MEDIUM, "Shortest session timeout of a group.", _one),
    _row("group.share.partition.max.record.locks", INT, 2000, MEDIUM, "Records of a partition that may be locked at a time.", between(100, 10000)),
    _row("group.share.record.lock.duration.ms", INT, 30000, MEDIUM, "How long a member may keep a record.", between(1000, 3600000)),
    _row("group.share.session.timeout.ms", INT, 45000, MEDIUM, "Silence after which a member is removed.", _one),
    _row("errors.deadletterqueue.auto.create.topics.enable", BOOLEAN, False, MEDIUM, "Create the topics that take what share groups cannot process.", None, CLUSTER),
    _row("errors.deadletterqueue.topic.name.prefix", STRING, "dlq.", MEDIUM, "What the names of such topics must begin with.", None, CLUSTER),
    _row("share.coordinator.append.linger.ms", INT, -1, MEDIUM, "How long the share coordinator gathers writes.", at_least(-1)),
    _row("share.coordinator.cached.buffer.max.bytes", INT, 1048588, MEDIUM, "Largest write buffer that it keeps.", at_least(524288), CLUSTER),
    _row("share.coordinator.load.buffer.size", INT, 5242880, HIGH, "Bytes of its topic read at a time.", _one),
    _row("share.coordinator.snapshot.update.records.per.snapshot", INT, 500, MEDIUM, "Updates between snapshots.", between(0, 500)),
    _row("share.coordinator.state.topic.compression.codec", INT, 0, HIGH, "Codec of __share_group_state."),
    _row("share.coordinator.state.topic.segment.bytes", INT, 104857600, HIGH, "Segment size of __share_group_state.", _one),
    _row("share.coordinator.threads", INT, 1, MEDIUM, "Threads of the share coordinator.", _one),
    _row("share.coordinator.write.timeout.ms", INT, 5000, HIGH, "How long its writes may take.", _one),
    _row("share.fetch.purgatory.purge.interval.requests", INT, 1000, MEDIUM, "How often finished share fetches are swept."),
)

_SHARE_GROUPS_TOPIC = _group(
    "there are no share groups yet",
    _row("share.coordinator.state.topic.min.isr", SHORT, 2, HIGH, "min.insync.replicas of __share_group_state.", _one),
    _row("share.coordinator.state.topic.num.partitions", INT, 50, HIGH, "Partitions of __share_group_state.", _one),
    _row("share.coordinator.state.topic.replication.factor", SHORT, 3, HIGH, "Replicas of __share_group_state.", _one),
    met=_is_one,
)

_TIERED_NOTE = "tiered storage is not offered"
_RLMM = "org.apache.kafka.server.log.remote.metadata.storage.TopicBasedRemoteLogMetadataManager"
_TIERED = _group(
    _TIERED_NOTE,
    _row("follower.fetch.last.tiered.offset.enable", BOOLEAN, False, MEDIUM, "Let an empty follower skip what is tiered.", None, CLUSTER),
    _row("log.local.retention.bytes", LONG, -2, MEDIUM, "Local size limit of a tiered partition.", at_least(-2), CLUSTER),
    _row("log.local.retention.ms", LONG, -2, MEDIUM, "Local age limit of a tiered partition.", at_least(-2), CLUSTER),
    _row("log.remote.copy.lag.bytes", LONG, -1, MEDIUM, "Bytes that must follow a segment before it is copied.", at_least(-1), CLUSTER),
    _row("log.remote.copy.lag.ms", LONG, 0, MEDIUM, "Age that a segment must have before it is copied.", at_least(-1), CLUSTER),
    _row("remote.fetch.max.wait.ms", INT, 500, MEDIUM, "How long a fetch waits for remote data.", _one, CLUSTER),
    _row("remote.list.offsets.request.timeout.ms", LONG, 30000, MEDIUM, "How long ListOffsets waits for remote data.", _one, CLUSTER),
    _row("remote.log.index.file.cache.total.size.bytes", LONG, 1024**3, LOW, "Space for remote indexes.", _one, CLUSTER),
    _row("remote.log.manager.copier.thread.pool.size", INT, 10, MEDIUM, "Threads that copy segments.", _one, CLUSTER),
    _row("remote.log.manager.copy.max.bytes.per.second", LONG, LONG_MAX, MEDIUM, "Bytes a second to remote storage.", _one, CLUSTER),
    _row("remote.log.manager.copy.quota.window.num", INT, 11, MEDIUM, "Samples kept of that rate.", _one),
    _row("remote.log.manager.copy.quota.window.size.seconds", INT, 1, MEDIUM, "Length of each such sample.", _one),
    _row("remote.log.manager.expiration.thread.pool.size", INT, 10, MEDIUM, "Threads that drop remote segments.", _one, CLUSTER),
    _row("remote.log.manager.fetch.max.bytes.per.second", LONG, LONG_MAX, MEDIUM, "Bytes a second from remote storage.", _one, CLUSTER),
    _row("remote.log.manager.fetch.quota.window.num", INT, 11, MEDIUM, "Samples kept of that rate.", _one),
    _row("remote.log.manager.fetch.quota.window.size.seconds", INT, 1, MEDIUM, "Length of each such sample.", _one),
    _row("remote.log.manager.follower.thread.pool.size", INT, 2, MEDIUM, "Threads that read remote offsets for followers.", _one, CLUSTER),
    _row("remote.log.manager.task.interval.ms", LONG, 30000, LOW, "Time between rounds of copying.", _one),
    _row("remote.log.manager.thread.pool.size", INT, 2, MEDIUM, "An older name for the followers' threads.", _one),
    _row("remote.log.metadata.custom.metadata.max.bytes", INT, 128, LOW, "Largest custom metadata of a segment.", _zero),
    _row("remote.log.metadata.manager.class.name", STRING, _RLMM, MEDIUM, "The Java class that keeps remote metadata.", _NON_EMPTY),
    _row("remote.log.metadata.manager.class.path", STRING, None, MEDIUM, "Where that class is."),
    _row("remote.log.metadata.manager.impl.prefix", STRING, "rlmm.config.", MEDIUM, "Prefix of its configurations.", _NON_EMPTY),
    _row("remote.log.metadata.manager.listener.name", STRING, None, MEDIUM, "The listener that it uses.", _NON_EMPTY),
    _row("remote.log.reader.max.pending.tasks", INT, 100, MEDIUM, "Remote reads that may wait.", _one),
    _row("remote.log.reader.threads", INT, 10, MEDIUM, "Threads that read remote data.", _one, CLUSTER),
    _row("remote.log.storage.manager.class.name", STRING, None, MEDIUM, "The Java class that stores segments.", _NON_EMPTY),
    _row("remote.log.storage.manager.class.path", STRING, None, MEDIUM, "Where that class is."),
    _row("remote.log.storage.manager.impl.prefix", STRING, "rsm.config.", MEDIUM, "Prefix of its configurations.", _NON_EMPTY),
)

_REFUSED = [
    *_group(
        _TIERED_NOTE,
        _row("remote.log.storage.system.enable", BOOLEAN, False, MEDIUM, "Tiered storage for the whole broker."),
        effect=Effect.REFUSED,
    ),
    *_group(
        "policies written in Java cannot be run",
        _row("alter.config.policy.class.name", CLASS, None, LOW, "A Java class that may refuse configurations."),
        _row("create.topic.policy.class.name", CLASS, None, LOW, "A Java class that may refuse topics."),
        _row("client.quota.callback.class", CLASS, None, LOW, "A Java class that decides clients' quotas."),
        _row("group.streams.topology.description.plugin.class", CLASS, None, MEDIUM, "A Java class that is told of the topologies of streams groups."),
        effect=Effect.REFUSED,
    ),
    *_group(
        "values are taken as they stand",
        _row("config.providers", LIST, (), LOW, "Java classes that fill in placeholders in values.", _ANY, CLUSTER),
        effect=Effect.REFUSED,
    ),
    *_group(
        "there is one data folder",
        _row("cordoned.log.dirs", LIST, (), MEDIUM, "Folders that get no new partitions.", _ANY, PER_BROKER),
        effect=Effect.REFUSED,
    ),
]

INERT = table(
    *_THREADS, *_QUORUM, *_QUORUM_WISHES, *_REPLICATION, *_COMPACTION, *_LOG, *_LOG_WISHES,
    *_QUOTAS, *_METRICS, *_TRANSACTIONS, *_CONSUMER_GROUPS, *_PROTOCOLS,
    *_SHARE_GROUPS, *_SHARE_GROUPS_TOPIC, *_TIERED, *_REFUSED, *SECURITY,
)
