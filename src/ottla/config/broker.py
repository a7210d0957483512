"""Broker configurations that this broker acts on (Kafka's ``KafkaConfig``); ``inert`` has all the others."""

from __future__ import annotations

from ottla.config.definition import (
    ConfigType,
    Definition,
    ListCheck,
    Mode,
    at_least,
    between,
    one_of,
    table,
)
from ottla.config.topic import CODECS, GZIP_LEVEL, LZ4_LEVEL, SEGMENT_BYTES_MIN, ZSTD_LEVEL
from ottla.numbers import INT_MAX, LONG_MAX

HIGH, MEDIUM, LOW = "high", "medium", "low"

_BOOLEAN, _STRING, _INT, _SHORT = ConfigType.BOOLEAN, ConfigType.STRING, ConfigType.INT, ConfigType.SHORT
_LONG, _LIST, _DOUBLE = ConfigType.LONG, ConfigType.LIST, ConfigType.DOUBLE
_CLUSTER = Mode.CLUSTER_WIDE

_HOUR_MS = 3_600_000
_DAY_MS = 24 * _HOUR_MS
_MIB = 1024 * 1024
_DOUBLE_MAX = 1.7976931348623157e308

_ANY_BUT_NONE = ListCheck(empty_allowed=False)


_define = Definition

_NODE = (
    _define(
        "node.id", _INT, -1, HIGH,
        "Id of this node, unique in its cluster. If neither node.id nor broker.id is set: 1.",
    ),
    _define("broker.id", _INT, -1, HIGH, "Older name of node.id. If both are set, they must be equal."),
    _define(
        "broker.rack", _STRING, None, MEDIUM,
        "Rack or zone of the node. Replicas of a partition are spread over racks.",
    ),
    _define(
        "process.roles", _LIST, (), HIGH,
        "What the process does. 'broker' must be among them; 'controller' is taken care of by the metadata "
        "store and changes nothing.",
        ListCheck(("broker", "controller")),
    ),
)  # fmt: skip

_NETWORK = (
    _define(
        "listeners", _LIST, ("PLAINTEXT://:9092",), HIGH,
        "Addresses at which the broker listens, as NAME://host:port. An empty host is every address. "
        "Listeners named in controller.listener.names are left out.",
        _ANY_BUT_NONE,
    ),
    _define(
        "advertised.listeners", _LIST, None, HIGH,
        "Addresses that the broker tells clients to connect to, one for each listener. Default: the "
        "listeners.",
        _ANY_BUT_NONE,
    ),
    _define(
        "listener.security.protocol.map", _STRING,
        "SASL_SSL:SASL_SSL,PLAINTEXT:PLAINTEXT,SSL:SSL,SASL_PLAINTEXT:SASL_PLAINTEXT", LOW,
        "The security protocol of each listener name.",
    ),
    _define(
        "controller.listener.names", _LIST, (), HIGH,
        "Listeners of Kafka's own controller quorum. They are not opened here.",
        ListCheck(),
    ),
    _define(
        "socket.request.max.bytes", _INT, 100 * _MIB, HIGH,
        "Largest request; a connection that announces a larger one is closed.", at_least(1),
    ),
    _define(
        "queued.max.request.bytes", _LONG, -1, MEDIUM,
        "Bytes of requests that may be kept for all clients: where there are more, nothing is received from "
        "those that hold much, until some are answered. Up to 0: 512 MiB.",
    ),
    _define(
        "max.connections", _INT, INT_MAX, MEDIUM,
        "Most connections at a time, and of each listener, which may have a limit of its own, as "
        "listener.name.NAME.max.connections. By the listener of nodes, where clients have others, more may "
        "come: connections of clients are closed for them.",
        at_least(0), _CLUSTER,
    ),
    _define(
        "max.connections.per.ip", _INT, INT_MAX, MEDIUM,
        "Most connections at a time from one address.", at_least(0), _CLUSTER,
    ),
    _define(
        "max.connections.per.ip.overrides", _STRING, "", MEDIUM,
        "Other such limits of single hosts, as 10.0.0.1:100,build.example.org:200. What a name stands for is "
        "looked up at the start and when this changes.",
        None, _CLUSTER,
    ),
    _define(
        "max.connection.creation.rate", _INT, INT_MAX, MEDIUM,
        "New connections a second: those beyond are heard later. Listeners may have limits of their own, as "
        "listener.name.NAME.max.connection.creation.rate; that of nodes, where clients have others, has the "
        "limit for itself.",
        at_least(0), _CLUSTER,
    ),
    _define(
        "connections.max.idle.ms", _LONG, 600_000, MEDIUM,
        "A connection is closed when it has been silent for this long.",
    ),
    _define(
        "fetch.max.bytes", _INT, 55 * _MIB, MEDIUM,
        "Most bytes in one Fetch response, whatever the client asks for.", at_least(1024),
    ),
    _define(
        "telemetry.max.bytes", _INT, 1048576, LOW,
        "Largest set of metrics that a client may push, packed or unpacked, in bytes; 16 MiB at most.",
        at_least(1),
    ),
    _define(
        "max.incremental.fetch.session.cache.slots", _INT, 1000, MEDIUM,
        "Incremental fetch sessions kept at a time.", at_least(0),
    ),
    _define(
        "max.request.partition.size.limit", _INT, 2000, MEDIUM,
        "Most partitions described in one DescribeTopicPartitions response.", at_least(1),
    ),
)  # fmt: skip

_TOPICS = (
    _define("auto.create.topics.enable", _BOOLEAN, True, HIGH, "Create a topic when it is first asked for."),
    _define("delete.topic.enable", _BOOLEAN, True, HIGH, "Whether topics may be deleted."),
    _define("num.partitions", _INT, 1, MEDIUM,
        "Number of partitions of a topic that is created without one.", at_least(1)),
    _define(
        "default.replication.factor", _INT, 1, MEDIUM,
        "Number of replicas of a topic that is created without one.",
    ),
    _define(
        "min.insync.replicas", _INT, 1, HIGH,
        "In-sync replicas below which acks=all writes are refused, for topics without a value of their "
        "own. One value for the whole cluster, recorded when it first starts: what a node is given "
        "later has no effect.",
        at_least(1), _CLUSTER,
    ),
    _define(
        "message.max.bytes", _INT, 1048588, HIGH,
        "Largest record batch accepted, compressed as it is.", at_least(0), _CLUSTER,
    ),
    _define(
        "compression.type", _STRING, "producer", HIGH,
        "Compression of stored batches. 'producer' keeps that of the producer; any other value "
        "compresses batches again.",
        one_of(*CODECS), _CLUSTER,
    ),
    _define("compression.gzip.level", _INT, -1, MEDIUM, "Level for gzip.", GZIP_LEVEL, _CLUSTER),
    _define("compression.lz4.level", _INT, 9, MEDIUM, "Level for lz4.", LZ4_LEVEL, _CLUSTER),
    _define("compression.zstd.level", _INT, 3, MEDIUM, "Level for zstd.", ZSTD_LEVEL, _CLUSTER),
)  # fmt: skip

_LOG = (
    _define(
        "log.dirs", _LIST, None, HIGH,
        "The data folder; --data on the command line goes before it. One folder only.",
        _ANY_BUT_NONE,
    ),
    _define(
        "log.dir", _LIST, ("/tmp/kafka-logs",), HIGH, "Data directory if log.dirs is not set.",
        _ANY_BUT_NONE,
    ),
    _define(
        "log.segment.bytes", _INT, 1024**3, HIGH,
        "Size at which a log starts a new segment.", at_least(SEGMENT_BYTES_MIN), _CLUSTER,
    ),
    _define("log.roll.ms", _LONG, None, HIGH, "Age at which a log starts a new segment.", None, _CLUSTER),
    _define(
        "log.roll.hours", _INT, 168, HIGH,
        "Age at which a log starts a new segment, in hours, if log.roll.ms is not set.", at_least(1),
    ),
    _define(
        "log.roll.jitter.ms", _LONG, None, HIGH, "Random time taken off the age to roll.", None, _CLUSTER
    ),
    _define(
        "log.roll.jitter.hours", _INT, 0, HIGH,
        "Random time taken off the age to roll, in hours, if log.roll.jitter.ms is not set.", at_least(0),
    ),
    _define(
        "log.retention.ms", _LONG, None, HIGH,
        "Age beyond which segments are dropped; -1 is no limit.", None, _CLUSTER,
    ),
    _define(
        "log.retention.minutes", _INT, None, HIGH,
        "Age beyond which segments are dropped, in minutes, if log.retention.ms is not set.",
    ),
    _define(
        "log.retention.hours", _INT, 168, HIGH,
        "Age beyond which segments are dropped, in hours, if neither log.retention.ms nor "
        "log.retention.minutes is set.",
    ),
    _define(
        "log.retention.bytes", _LONG, -1, HIGH,
        "Size beyond which a partition's oldest segments are dropped; -1 is no limit.", None, _CLUSTER,
    ),
    _define(
        "log.retention.check.interval.ms", _LONG, 300_000, MEDIUM,
        "How often logs are looked through for segments to drop.", at_least(1),
    ),
    _define(
        "log.cleanup.policy", _LIST, ("delete",), MEDIUM,
        "How old segments are cleaned: delete, compact, both, or neither.",
        ListCheck(("compact", "delete")), _CLUSTER,
    ),
    _define(
        "log.index.size.max.bytes", _INT, 10 * _MIB, MEDIUM,
        "Largest size of a segment's index.", at_least(4), _CLUSTER,
    ),
    _define(
        "log.index.interval.bytes", _INT, 4096, MEDIUM,
        "Bytes of log between two entries of the offset index.", at_least(0), _CLUSTER,
    ),
    _define(
        "log.flush.interval.messages", _LONG, LONG_MAX, HIGH,
        "Force data to disk (fsync) after this many messages.", at_least(1), _CLUSTER,
    ),
    _define(
        "log.flush.interval.ms", _LONG, None, HIGH,
        "Force data to disk (fsync) when it has waited this long.", None, _CLUSTER,
    ),
    _define(
        "log.flush.scheduler.interval.ms", _LONG, LONG_MAX, HIGH,
        "How often logs are looked through for data to force to disk.",
    ),
    _define(
        "log.flush.offset.checkpoint.interval.ms", _INT, 60_000, HIGH,
        "How often the point from which recovery must start is written down.", at_least(0),
    ),
    _define(
        "log.segment.delete.delay.ms", _LONG, 60_000, HIGH,
        "Time between a segment leaving the log and its files leaving the disk.", at_least(0), _CLUSTER,
    ),
    _define(
        "log.message.timestamp.type", _STRING, "CreateTime", MEDIUM,
        "Whether records carry their producer's time or that of their append.",
        one_of("CreateTime", "LogAppendTime"), _CLUSTER,
    ),
    _define(
        "log.message.timestamp.before.max.ms", _LONG, LONG_MAX, MEDIUM,
        "How far behind the broker's clock a CreateTime timestamp may be.", at_least(0), _CLUSTER,
    ),
    _define(
        "log.message.timestamp.after.max.ms", _LONG, _HOUR_MS, MEDIUM,
        "How far ahead of the broker's clock a CreateTime timestamp may be.", at_least(0), _CLUSTER,
    ),
    _define(
        "producer.id.expiration.ms", _INT, 86_400_000, LOW,
        "How long a silent producer's sequence numbers are remembered.", at_least(1), _CLUSTER,
    ),
)  # fmt: skip

_COMPACTION = (
    _define("log.cleaner.enable", _BOOLEAN, True, MEDIUM, "Whether logs are compacted."),
    _define(
        "log.cleaner.backoff.ms", _LONG, 15_000, MEDIUM,
        "Time between two looks at logs that only time makes worth compacting; otherwise a closed segment "
        "is what makes compaction look.",
        at_least(0), _CLUSTER,
    ),
    _define(
        "log.cleaner.dedupe.buffer.size", _LONG, 128 * _MIB, MEDIUM,
        "Memory for the keys of what is compacted in one round, at 192 bytes a key.", None, _CLUSTER,
    ),
    _define(
        "log.cleaner.io.buffer.load.factor", _DOUBLE, 0.9, MEDIUM,
        "How full the memory for keys may get.", None, _CLUSTER,
    ),
    _define(
        "log.cleaner.io.buffer.size", _INT, 512 * 1024, MEDIUM,
        "Bytes that compaction reads or writes at a time.", at_least(0), _CLUSTER,
    ),
    _define(
        "log.cleaner.io.max.bytes.per.second", _DOUBLE, _DOUBLE_MAX, MEDIUM,
        "Bytes a second that compaction may read and write.", None, _CLUSTER,
    ),
    _define(
        "log.cleaner.delete.retention.ms", _LONG, _DAY_MS, MEDIUM,
        "How long compaction keeps a tombstone, for topics without a value of their own.",
        at_least(0), _CLUSTER,
    ),
    _define(
        "log.cleaner.min.cleanable.ratio", _DOUBLE, 0.5, MEDIUM,
        "Share of a log that must be uncompacted before compaction is worth its while, for topics "
        "without a value of their own.",
        between(0, 1), _CLUSTER,
    ),
    _define(
        "log.cleaner.min.compaction.lag.ms", _LONG, 0, MEDIUM,
        "Time for which a record is safe from compaction, for topics without a value of their own.",
        at_least(0), _CLUSTER,
    ),
    _define(
        "log.cleaner.max.compaction.lag.ms", _LONG, LONG_MAX, MEDIUM,
        "Longest time that a record may wait before compaction must look at it, for topics without a "
        "value of their own.",
        at_least(1), _CLUSTER,
    ),
)  # fmt: skip

_GROUPS = (
    _define("group.min.session.timeout.ms", _INT, 6_000, MEDIUM, "Shortest session timeout to ask for."),
    _define(
        "group.max.session.timeout.ms", _INT, 1_800_000, MEDIUM,
        "Longest session timeout to ask for.",
    ),
    _define(
        "group.initial.rebalance.delay.ms", _INT, 3_000, MEDIUM,
        "How long a new group waits for more members before its first rebalance.",
    ),
    _define(
        "group.max.size", _INT, INT_MAX, MEDIUM,
        "Most members of a classic group; never more than 10,000.", at_least(1),
    ),
    _define("offset.metadata.max.bytes", _INT, 4096, HIGH, "Largest metadata text of a committed offset."),
    _define(
        "offsets.commit.timeout.ms", _INT, 5_000, HIGH,
        "How long the coordinator waits for its writes to be replicated.", at_least(1),
    ),
    _define(
        "offsets.retention.minutes", _INT, 10_080, HIGH,
        "How long an empty group's offsets are kept.", at_least(1),
    ),
    _define(
        "offsets.retention.check.interval.ms", _LONG, 600_000, HIGH,
        "How often expired offsets are looked for.", at_least(1),
    ),
    _define(
        "offsets.topic.num.partitions", _INT, 50, HIGH, "Partitions of __consumer_offsets.", at_least(1),
    ),
    _define(
        "offsets.topic.replication.factor", _SHORT, 3, HIGH,
        "Replicas of __consumer_offsets, which is made once so many nodes live. Unless set, a node by itself "
        "takes 1.",
        at_least(1),
    ),
    _define(
        "offsets.topic.segment.bytes", _INT, 100 * _MIB, HIGH,
        "Segment size of __consumer_offsets; small ones compact and load fast.", at_least(1),
    ),
    _define(
        "offsets.topic.compression.codec", _INT, 0, HIGH, "Codec of __consumer_offsets, by Kafka's number.",
    ),
)  # fmt: skip

ACTED_ON = table(*_NODE, *_NETWORK, *_TOPICS, *_LOG, *_COMPACTION, *_GROUPS)
