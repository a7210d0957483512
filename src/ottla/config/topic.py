"""Topic configurations (Kafka's ``TopicConfig``), and the broker names that give each its default."""

from __future__ import annotations

import re
from typing import NamedTuple

from ottla.config.definition import (
    Check,
    ConfigType,
    Definition,
    Effect,
    ListCheck,
    Rule,
    at_least,
    between,
    one_of,
    table,
)
from ottla.numbers import LONG_MAX

SEGMENT_BYTES_MIN = 1024 * 1024
TIERED = "tiered storage is not offered"

_HOUR_MS = 3_600_000
_MINUTE_MS = 60_000
_DAY_MS = 24 * _HOUR_MS
_THROTTLED = re.compile(r"\s*([0-9]+:[0-9]+)?(\s*,\s*[0-9]+:[0-9]+)*\s*")

CODECS = ("uncompressed", "zstd", "lz4", "snappy", "gzip", "producer")

GZIP_LEVEL = Check(
    "[1,...,9] or -1",
    lambda level: None if level == -1 or 1 <= level <= 9 else "Value must be between 1 and 9 or equal to -1",
)
LZ4_LEVEL = between(1, 17)
ZSTD_LEVEL = between(-131072, 22)


def _throttled_replicas(items: tuple[str, ...]) -> str | None:
    text = ",".join(items)
    if text == "*" or _THROTTLED.fullmatch(text):
        return None
    return (
        "Must be the literal '*' or a comma-separated list of [partitionId]:[brokerId] pairs, "
        "for example 0:1,1:2"
    )


THROTTLED_REPLICAS = Check("[partitionId]:[brokerId],[partitionId]:[brokerId],...", _throttled_replicas)


class Synonym(NamedTuple):
    """A broker configuration that gives a topic configuration its default, in another unit perhaps."""

    name: str
    factor: int = 1


def _define(
    name: str,
    type: ConfigType,
    default: object,
    doc: str,
    check: Rule | None = None,
    effect: Effect = Effect.ACTED_ON,
    note: str = "",
    importance: str = "medium",
    internal: bool = False,
) -> Definition:
    return Definition(
        name, type, default, importance, doc, check, effect=effect, note=note, internal=internal
    )


_T = ConfigType

TOPIC = table(
    _define(
        "cleanup.policy",
        _T.LIST,
        ("delete",),
        "What becomes of old segments: 'delete' drops them by age and size, 'compact' keeps each key's "
        "last value; with both, both are done, with neither everything is kept.",
        ListCheck(("compact", "delete")),
    ),
    _define(
        "compression.gzip.level",
        _T.INT,
        -1,
        "Level for compression.type=gzip; -1 is gzip's own default.",
        GZIP_LEVEL,
    ),
    _define("compression.lz4.level", _T.INT, 9, "Level for compression.type=lz4.", LZ4_LEVEL),
    _define(
        "compression.type",
        _T.STRING,
        "producer",
        "How batches are stored: 'producer' keeps what the producer chose; a codec's name or 'uncompressed' "
        "recompresses whatever differs.",
        one_of(*CODECS),
    ),
    _define("compression.zstd.level", _T.INT, 3, "Level for compression.type=zstd.", ZSTD_LEVEL),
    _define(
        "delete.retention.ms",
        _T.LONG,
        _DAY_MS,
        "How long compaction keeps a tombstone, so that a reader who starts at the beginning still sees it.",
        at_least(0),
    ),
    _define(
        "errors.deadletterqueue.group.enable",
        _T.BOOLEAN,
        False,
        "Let share groups write records that they cannot process to the topic.",
        effect=Effect.NONE,
        note="there are no share groups yet",
    ),
    _define(
        "file.delete.delay.ms",
        _T.LONG,
        _MINUTE_MS,
        "Time between a segment leaving the log and its files leaving the disk.",
        at_least(0),
    ),
    _define(
        "flush.messages",
        _T.LONG,
        LONG_MAX,
        "Force data to disk (fsync) after this many messages.",
        at_least(1),
    ),
    _define(
        "flush.ms", _T.LONG, LONG_MAX, "Force data to disk (fsync) when it has waited this long.", at_least(0)
    ),
    _define(
        "follower.replication.throttled.replicas",
        _T.LIST,
        (),
        "Replicas, as partition:broker pairs or '*', whose followers are held to the throttled rate.",
        THROTTLED_REPLICAS,
    ),
    _define(
        "index.interval.bytes",
        _T.INT,
        4096,
        "Bytes of log between two entries of the offset index.",
        at_least(0),
    ),
    _define(
        "internal.segment.bytes",
        _T.INT,
        None,
        "Overrides segment.bytes without its lower limit, so that tests can roll small segments.",
        internal=True,
    ),
    _define(
        "leader.replication.throttled.replicas",
        _T.LIST,
        (),
        "Replicas, as partition:broker pairs or '*', whose leaders are held to the throttled rate.",
        THROTTLED_REPLICAS,
    ),
    _define(
        "local.retention.bytes",
        _T.LONG,
        -2,
        "Local size limit of a tiered partition; -2 takes retention.bytes.",
        at_least(-2),
        Effect.NONE,
        TIERED,
    ),
    _define(
        "local.retention.ms",
        _T.LONG,
        -2,
        "Local age limit of a tiered partition; -2 takes retention.ms.",
        at_least(-2),
        Effect.NONE,
        TIERED,
    ),
    _define(
        "max.compaction.lag.ms",
        _T.LONG,
        LONG_MAX,
        "Longest time that a record may wait before compaction must look at it.",
        at_least(1),
    ),
    _define(
        "max.message.bytes",
        _T.INT,
        1048588,
        "Largest record batch accepted, compressed as it is.",
        at_least(0),
    ),
    _define(
        "message.timestamp.after.max.ms",
        _T.LONG,
        _HOUR_MS,
        "How far ahead of the broker's clock a CreateTime timestamp may be.",
        at_least(0),
    ),
    _define(
        "message.timestamp.before.max.ms",
        _T.LONG,
        LONG_MAX,
        "How far behind the broker's clock a CreateTime timestamp may be.",
        at_least(0),
    ),
    _define(
        "message.timestamp.type",
        _T.STRING,
        "CreateTime",
        "Whether a record carries its producer's time (CreateTime) or that of its append (LogAppendTime).",
        one_of("CreateTime", "LogAppendTime"),
    ),
    _define(
        "min.cleanable.dirty.ratio",
        _T.DOUBLE,
        0.5,
        "Share of the log that must be uncompacted before compaction is worth its while.",
        between(0, 1),
    ),
    _define(
        "min.compaction.lag.ms",
        _T.LONG,
        0,
        "Time for which a record is safe from compaction.",
        at_least(0),
    ),
    _define(
        "min.insync.replicas",
        _T.INT,
        1,
        "In-sync replicas, the leader among them, below which acks=all writes are refused.",
        at_least(1),
    ),
    _define(
        "preallocate",
        _T.BOOLEAN,
        False,
        "Reserve a new segment's space on disk at once.",
        effect=Effect.NONE,
        note="segments grow as they are written",
    ),
    _define(
        "remote.copy.lag.bytes",
        _T.LONG,
        -1,
        "Bytes that must follow a segment before it is copied to remote storage; -1: local.retention.bytes.",
        at_least(-1),
        Effect.NONE,
        TIERED,
    ),
    _define(
        "remote.copy.lag.ms",
        _T.LONG,
        0,
        "Age that a segment must have before it is copied to remote storage; -1: local.retention.ms.",
        at_least(-1),
        Effect.NONE,
        TIERED,
    ),
    _define(
        "remote.log.copy.disable",
        _T.BOOLEAN,
        False,
        "Stop copying a tiered topic to remote storage.",
        effect=Effect.REFUSED,
        note=TIERED,
    ),
    _define(
        "remote.log.delete.on.disable",
        _T.BOOLEAN,
        False,
        "Drop remote data when tiered storage is turned off for the topic.",
        effect=Effect.REFUSED,
        note=TIERED,
    ),
    _define(
        "remote.storage.enable",
        _T.BOOLEAN,
        False,
        "Keep old segments in remote storage.",
        effect=Effect.REFUSED,
        note=TIERED,
    ),
    _define(
        "retention.bytes",
        _T.LONG,
        -1,
        "Size beyond which a partition's oldest segments are dropped; -1 is no limit.",
    ),
    _define(
        "retention.ms",
        _T.LONG,
        7 * _DAY_MS,
        "Age beyond which segments are dropped; -1 is no limit.",
        at_least(-1),
    ),
    _define(
        "segment.bytes",
        _T.INT,
        1024**3,
        "Size at which a log starts a new segment.",
        at_least(SEGMENT_BYTES_MIN),
    ),
    _define(
        "segment.index.bytes",
        _T.INT,
        10 * 1024**2,
        "Largest size of a segment's index; a full one starts a new segment.",
        at_least(4),
    ),
    _define(
        "segment.jitter.ms",
        _T.LONG,
        0,
        "Random time taken off segment.ms, so that segments do not all roll together.",
        at_least(0),
    ),
    _define("segment.ms", _T.LONG, 7 * _DAY_MS, "Age at which a log starts a new segment.", at_least(1)),
    _define(
        "unclean.leader.election.enable",
        _T.BOOLEAN,
        False,
        "Let a replica outside the in-sync set lead when none inside it is left, losing records.",
    ),
)

# Where a topic configuration's default comes from: the first of these that is set (Kafka's
# ServerTopicConfigSynonyms). A name that is missing here has no broker-wide default.
SYNONYMS: dict[str, tuple[Synonym, ...]] = {
    "cleanup.policy": (Synonym("log.cleanup.policy"),),
    "compression.gzip.level": (Synonym("compression.gzip.level"),),
    "compression.lz4.level": (Synonym("compression.lz4.level"),),
    "compression.type": (Synonym("compression.type"),),
    "compression.zstd.level": (Synonym("compression.zstd.level"),),
    "delete.retention.ms": (Synonym("log.cleaner.delete.retention.ms"),),
    "file.delete.delay.ms": (Synonym("log.segment.delete.delay.ms"),),
    "flush.messages": (Synonym("log.flush.interval.messages"),),
    "flush.ms": (Synonym("log.flush.interval.ms"), Synonym("log.flush.scheduler.interval.ms")),
    "index.interval.bytes": (Synonym("log.index.interval.bytes"),),
    "local.retention.bytes": (Synonym("log.local.retention.bytes"),),
    "local.retention.ms": (Synonym("log.local.retention.ms"),),
    "max.compaction.lag.ms": (Synonym("log.cleaner.max.compaction.lag.ms"),),
    "max.message.bytes": (Synonym("message.max.bytes"),),
    "message.timestamp.after.max.ms": (Synonym("log.message.timestamp.after.max.ms"),),
    "message.timestamp.before.max.ms": (Synonym("log.message.timestamp.before.max.ms"),),
    "message.timestamp.type": (Synonym("log.message.timestamp.type"),),
    "min.cleanable.dirty.ratio": (Synonym("log.cleaner.min.cleanable.ratio"),),
    "min.compaction.lag.ms": (Synonym("log.cleaner.min.compaction.lag.ms"),),
    "min.insync.replicas": (Synonym("min.insync.replicas"),),
    "preallocate": (Synonym("log.preallocate"),),
    "remote.copy.lag.bytes": (Synonym("log.remote.copy.lag.bytes"),),
    "remote.copy.lag.ms": (Synonym("log.remote.copy.lag.ms"),),
    "retention.bytes": (Synonym("log.retention.bytes"),),
    "retention.ms": (
        Synonym("log.retention.ms"),
        Synonym("log.retention.minutes", _MINUTE_MS),
        Synonym("log.retention.hours", _HOUR_MS),
    ),
    "segment.bytes": (Synonym("log.segment.bytes"),),
    "segment.index.bytes": (Synonym("log.index.size.max.bytes"),),
    "segment.jitter.ms": (Synonym("log.roll.jitter.ms"), Synonym("log.roll.jitter.hours", _HOUR_MS)),
    "segment.ms": (Synonym("log.roll.ms"), Synonym("log.roll.hours", _HOUR_MS)),
    "unclean.leader.election.enable": (Synonym("unclean.leader.election.enable"),),
}
