"""A topic's configuration as its logs use it: Kafka's names and defaults, with underscores."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from enum import Enum
from typing import Final

from ottla.wire.compression import Codec

LONG_MAX: Final = 2**63 - 1
DAY_MS = 24 * 60 * 60 * 1000

# Kafka's name for "as the producer sent it".
PRODUCER_CODEC: Final = -1
_CODECS = {
    "producer": PRODUCER_CODEC,
    "uncompressed": int(Codec.NONE),
    "gzip": int(Codec.GZIP),
    "snappy": int(Codec.SNAPPY),
    "lz4": int(Codec.LZ4),
    "zstd": int(Codec.ZSTD),
}


class Origin(Enum):
    """Who appends (Kafka's AppendOrigin): how much of a batch has to be checked."""

    CLIENT = "client"
    COORDINATOR = "coordinator"
    REPLICATION = "replication"


@dataclass(frozen=True, slots=True, kw_only=True)
class LogConfig:
    """What of a topic's configuration decides how its logs behave (Kafka's LogConfig).

    ``-1`` in a retention means no limit. Times are milliseconds, sizes bytes.
    """

    cleanup_policy: tuple[str, ...] = ("delete",)
    compression_type: str = "producer"
    compression_gzip_level: int = -1
    compression_lz4_level: int = 9
    compression_zstd_level: int = 3
    delete_retention_ms: int = DAY_MS
    file_delete_delay_ms: int = 60_000
    flush_messages: int = LONG_MAX
    flush_ms: int = LONG_MAX
    index_interval_bytes: int = 4096
    max_compaction_lag_ms: int = LONG_MAX
    max_message_bytes: int = 1_048_588
    message_timestamp_after_max_ms: int = 3_600_000
    message_timestamp_before_max_ms: int = LONG_MAX
    message_timestamp_type: str = "CreateTime"
    min_cleanable_dirty_ratio: float = 0.5
    min_compaction_lag_ms: int = 0
    min_insync_replicas: int = 1
    retention_bytes: int = -1
    retention_ms: int = 7 * DAY_MS
    segment_bytes: int = 1024 * 1024 * 1024
    segment_index_bytes: int = 10 * 1024 * 1024
    segment_jitter_ms: int = 0
    segment_ms: int = 7 * DAY_MS
    unclean_leader_election_enable: bool = False
    leader_replication_throttled_replicas: tuple[str, ...] = ()
    follower_replication_throttled_replicas: tuple[str, ...] = ()

    @classmethod
    def from_values(cls, values: Mapping[str, object]) -> LogConfig:
        """From typed values by Kafka's names (``retention.ms``); names that no log acts on are left out."""
        known = {}
        for field in fields(cls):
            value = values.get(field.name.replace("_", "."))
            if value is not None:
                known[field.name] = value
        policy = known.get("cleanup_policy")
        if isinstance(policy, str):
            known["cleanup_policy"] = tuple(part.strip() for part in policy.split(",") if part.strip())
        elif isinstance(policy, list):
            known["cleanup_policy"] = tuple(policy)
        return cls(**known)  # type: ignore[arg-type]

    @property
    def deletes(self) -> bool:
        """Whether retention by time and size may delete segments."""
        return "delete" in self.cleanup_policy

    @property
    def compacts(self) -> bool:
        """Whether records are kept by key, so that each must have one."""
        return "compact" in self.cleanup_policy

    @property
    def roll_ms(self) -> int:
        """How old a segment grows: compaction, which must look at records in time, sees closed ones only."""
        return min(self.segment_ms, self.max_compaction_lag_ms) if self.compacts else self.segment_ms

    @property
    def stamps_append_time(self) -> bool:
        return self.message_timestamp_type == "LogAppendTime"

    @property
    def codec(self) -> int:
        """The codec that batches are stored with; ``PRODUCER_CODEC`` leaves them as they came."""
        return _CODECS[self.compression_type]

    def level_for(self, codec: int) -> int | None:
        """The level configured for a codec, None where it has none."""
        match codec:
            case Codec.GZIP:
                return self.compression_gzip_level
            case Codec.LZ4:
                return self.compression_lz4_level
            case Codec.ZSTD:
                return self.compression_zstd_level
        return None
