"""The settings of the group coordinator, as plain values (Kafka's GroupCoordinatorConfig)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from ottla.coordinators.runtime.machine import Settings

GROUP_METADATA_TOPIC = "__consumer_offsets"


class ConfigSource(Protocol):
    """The part of `ottla.config.BrokerConfig` that is needed here."""

    def get(self, name: str) -> Any: ...


@dataclass(frozen=True, slots=True)
class GroupConfig:
    """Each field is the configuration of the same name with dots for underscores, unless a comment says more.

    Defaults are Kafka's.
    """

    group_min_session_timeout_ms: int = 6_000
    group_max_session_timeout_ms: int = 1_800_000
    group_initial_rebalance_delay_ms: int = 3_000
    group_max_size: int = 2**31 - 1
    # In UTF-16 code units, as Java's String.length().
    offset_metadata_max_bytes: int = 4_096
    # offsets.retention.minutes
    offsets_retention_ms: int = 10_080 * 60_000
    offsets_retention_check_interval_ms: int = 600_000
    offsets_commit_timeout_ms: int = 5_000
    offsets_topic_num_partitions: int = 50
    offsets_topic_compression_codec: int = 0
    # A member that joins without ever having had an id cannot send heartbeats while it waits, so its
    # JoinGroup is given up after this long. As in Kafka (CLASSIC_GROUP_NEW_MEMBER_JOIN_TIMEOUT_MS).
    new_member_join_timeout_ms: int = 5 * 60_000

    @classmethod
    def from_config(cls, config: ConfigSource) -> GroupConfig:
        return cls(
            group_min_session_timeout_ms=config.get("group.min.session.timeout.ms"),
            group_max_session_timeout_ms=config.get("group.max.session.timeout.ms"),
            group_initial_rebalance_delay_ms=config.get("group.initial.rebalance.delay.ms"),
            group_max_size=config.get("group.max.size"),
            offset_metadata_max_bytes=config.get("offset.metadata.max.bytes"),
            offsets_retention_ms=config.get("offsets.retention.minutes") * 60_000,
            offsets_retention_check_interval_ms=config.get("offsets.retention.check.interval.ms"),
            offsets_commit_timeout_ms=config.get("offsets.commit.timeout.ms"),
            offsets_topic_num_partitions=config.get("offsets.topic.num.partitions"),
            offsets_topic_compression_codec=config.get("offsets.topic.compression.codec"),
        )

    def runtime(self) -> Settings:
        """What of it any coordinator has."""
        return Settings(self.offsets_commit_timeout_ms, self.offsets_topic_compression_codec)
