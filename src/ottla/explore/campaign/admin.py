"""The administrator: makes topics, and changes things in the middle of everything."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ottla.errors import ErrorCode
from ottla.explore.campaign.client import NONE, Disconnected
from ottla.explore.campaign.consumer import LATEST, Reader
from ottla.types import TopicPartition

EXISTS = int(ErrorCode.topic_already_exists)
TOPIC_RESOURCE = 2
SET_OPERATION = 0
SAFE_DOWNGRADE = 2
# What a topic's configuration may be changed to while it is used, whatever else goes on.
CONFIG_CHANGES = (
    ("segment.ms", ("1000", "5000", "604800000")),
    ("flush.messages", ("1", "10", "9223372036854775807")),
    ("index.interval.bytes", ("128", "4096")),
    ("retention.ms", ("604800000", "-1")),
)


class Admin(Reader):
    """Every method says whether it was answered without an error; otherwise it may have been done."""

    async def create(self, topic: str, partitions: int, factor: int, configs: dict[str, str]) -> None:
        """Make a topic, however long it takes."""
        made = {
            "name": topic,
            "num_partitions": partitions,
            "replication_factor": factor,
            "assignments": [],
            "configs": [{"name": name, "value": value} for name, value in configs.items()],
        }
        while topic not in self.partition_counts:
            await self._try("CreateTopics", {"topics": [made], "timeout_ms": 2_000})
            await self.refresh()
            await self.pause()

    async def change_config(self, topic: str, keep: str = "") -> None:
        """Change one of a topic's configurations, but not ``keep``."""
        name, values = self.rng.choice([change for change in CONFIG_CHANGES if change[0] != keep])
        value = self.rng.choice(values)
        self.trace(self.name, f"{topic}: {name}={value}")
        change = {"name": name, "config_operation": SET_OPERATION, "value": value}
        resource = {"resource_type": TOPIC_RESOURCE, "resource_name": topic, "configs": [change]}
        await self._try("IncrementalAlterConfigs", {"resources": [resource], "validate_only": False})

    async def delete_records(self, topic: str) -> None:
        """Delete the first part of a partition."""
        if not self.partition_counts.get(topic):
            return
        where = TopicPartition(topic, self.rng.randrange(self.partition_counts[topic]))
        end = await self.list_offset(where, LATEST)
        if not end:
            return
        offset = self.rng.randrange(end + 1) // 2
        model = self.model.of(where)
        model.deletable = max(model.deletable, offset)
        self.trace(self.name, f"delete {where} before {offset}")
        asked = {"partition_index": where.partition, "offset": offset}
        try:
            connection, _ = await self.leader(where)
            await self.ask(
                connection,
                "DeleteRecords",
                {"topics": [{"name": topic, "partitions": [asked]}], "timeout_ms": 2_000},
            )
        except Disconnected:
            return

    async def reassign(self, where: TopicPartition, replicas: Sequence[int]) -> None:
        """Have a partition held by other nodes."""
        self.trace(self.name, f"reassign {where} to {list(replicas)}")
        asked = {"partition_index": where.partition, "replicas": list(replicas)}
        await self._try(
            "AlterPartitionReassignments",
            {"timeout_ms": 3_000, "topics": [{"name": where.topic, "partitions": [asked]}]},
        )

    async def set_level(self, feature: str, level: int) -> None:
        """Have a feature be at another level, however long it takes."""
        change = {"feature": feature, "max_version_level": level, "upgrade_type": SAFE_DOWNGRADE}
        fields = {"timeout_ms": 2_000, "feature_updates": [change], "validate_only": False}
        while True:
            try:
                response = await self.ask(await self.anyone(), "UpdateFeatures", fields)
            except Disconnected:
                await self.pause()
                continue
            if response.error_code == NONE:
                return
            self.trace(self.name, f"UpdateFeatures: {response.error_message}")
            await self.pause()

    async def elect_preferred(self) -> None:
        """Give every partition to its first replica."""
        await self._try("ElectLeaders", {"election_type": 0, "topic_partitions": None, "timeout_ms": 3_000})

    async def _try(self, api: str, fields: dict[str, Any]) -> None:
        try:
            await self.ask(await self.anyone(), api, fields)
        except Disconnected:
            await self.pause()


__all__ = ("EXISTS", "NONE", "Admin")
