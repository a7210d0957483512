"""What is in a node, for tests: its topics, their records, and the offsets that groups have committed.

Each function runs on the node's event loop.
"""

from __future__ import annotations

from typing import NamedTuple

from ottla.coordinators.groups.schemas import OffsetRecord, decode_record
from ottla.metadata.image import OFFSETS_TOPIC
from ottla.metadata.topics import NewTopic
from ottla.node import Node
from ottla.replication.internal_topic import InternalTopicLog
from ottla.testing import transactions
from ottla.types import TopicPartition
from ottla.wire.records import iter_batches, iter_records


class StoredRecord(NamedTuple):
    """A record as it lies in a topic. ``timestamp_ms`` is since the Unix epoch."""

    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...]


class StoredCommit(NamedTuple):
    """An offset that a group has committed once: ``committed`` is the next one to be read."""

    timestamp_ms: int
    topic: str
    partition: int
    committed: int


async def create_topic(node: Node, name: str, partitions: int, configs: dict[str, str]) -> None:
    """Create a topic, ready to be used when this returns. KafkaError where it cannot be."""
    new = NewTopic(name, num_partitions=partitions, configs=configs)
    (result,) = await node.services.metadata.controller.create_topics([new])
    if result.error is not None:
        raise result.error


def topics(node: Node) -> dict[str, int]:
    """The topics and their numbers of partitions, without Kafka's internal ones."""
    image = node.services.metadata.image
    return {name: len(topic.partitions) for name, topic in image.topics.items() if not name.startswith("__")}


async def records(node: Node, topic: str, index: int, read_committed: bool) -> list[StoredRecord]:
    """What lies in a partition that the node leads, by offset. KafkaError if it has none."""
    services = node.services
    start = services.replicas.get(topic, index).log.log_start_offset
    log = InternalTopicLog(topic, services.replicas, services.clock, services.disk)
    batches = [one async for piece in log.read_all(index) for one in iter_batches(piece)]
    return [
        StoredRecord(index, *record)
        for header, batch in (transactions.read_committed(batches) if read_committed else batches)
        if not header.is_control
        for record in iter_records(batch)
        if record.offset >= start
    ]


async def committed(node: Node, group: str) -> dict[TopicPartition, int]:
    """The offsets that a group has committed; empty where it has none."""
    if OFFSETS_TOPIC not in node.services.metadata.image.topics:
        return {}
    topics = node.services.groups.fetch(group, None, require_stable=False)
    return {TopicPartition(t.topic, p.partition): p.offset for t in topics for p in t.partitions}


async def commits(node: Node, group: str, index: int) -> list[StoredCommit]:
    """All that a group has committed, as the partition of __consumer_offsets has it that the node leads."""
    found = []
    for record in await records(node, OFFSETS_TOPIC, index, read_committed=True):
        decoded = decode_record(record.key, record.value)
        if isinstance(decoded, OffsetRecord) and decoded.group_id == group and decoded.value is not None:
            topic, partition = decoded.topic, decoded.partition
            found.append(StoredCommit(record.timestamp_ms, topic, partition, decoded.value.offset))
    return found


async def disconnect(node: Node) -> None:
    """Close every connection of clients, at once."""
    node.disconnect()
