"""Where groups are in their partitions: committed offsets (the state of Kafka's OffsetMetadataManager).

Only `replay` and `end_transaction` change anything. Offsets that were written inside a transaction stay
pending until it ends; a later plain commit or removal of the same partition prevails over them at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from ottla.coordinators.schemas import NO_TIMESTAMP, CommittedOffset, OffsetRecord

NO_PRODUCER_ID = -1

# Offsets by topic and partition.
GroupOffsets = dict[str, dict[int, CommittedOffset]]


class OffsetKey(NamedTuple):
    group_id: str
    topic: str
    partition: int


class PendingOffset(NamedTuple):
    """An offset of an open transaction, with its place among all replayed records."""

    sequence: int
    value: CommittedOffset


class Offsets:
    """The offsets of all groups of one partition of `__consumer_offsets`."""

    __slots__ = ("_pending", "_sequence", "by_group")

    def __init__(self) -> None:
        self.by_group: dict[str, GroupOffsets] = {}
        self._pending: dict[int, dict[OffsetKey, PendingOffset]] = {}
        self._sequence = 0

    def replay(self, record: OffsetRecord, producer_id: int = NO_PRODUCER_ID) -> None:
        """Apply a committed record; ``producer_id`` is that of a transactional batch."""
        if producer_id != NO_PRODUCER_ID and record.value is not None:
            self._sequence += 1
            key = OffsetKey(record.group_id, record.topic, record.partition)
            self._pending.setdefault(producer_id, {})[key] = PendingOffset(self._sequence, record.value)
            return
        if self._pending:
            self._drop_pending(OffsetKey(record.group_id, record.topic, record.partition))
        if record.value is None:
            self._remove(record)
        else:
            topics = self.by_group.setdefault(record.group_id, {})
            topics.setdefault(record.topic, {})[record.partition] = record.value

    def _remove(self, record: OffsetRecord) -> None:
        topics = self.by_group.get(record.group_id)
        partitions = topics.get(record.topic) if topics is not None else None
        if topics is None or partitions is None:
            return
        partitions.pop(record.partition, None)
        if not partitions:
            del topics[record.topic]
        if not topics:
            del self.by_group[record.group_id]

    def end_transaction(self, producer_id: int, *, committed: bool) -> None:
        """Apply a transaction's marker."""
        ended = self._pending.pop(producer_id, None)
        if ended is None or not committed:
            return
        for key, pending in ended.items():
            # Another open transaction may have written the partition before or after this one did.
            self._drop_pending(key, before=pending.sequence)
            topics = self.by_group.setdefault(key.group_id, {})
            topics.setdefault(key.topic, {})[key.partition] = pending.value

    def _drop_pending(self, key: OffsetKey, before: int | None = None) -> None:
        for producer_id, pending in list(self._pending.items()):
            entry = pending.get(key)
            if entry is not None and (before is None or entry.sequence < before):
                del pending[key]
                if not pending:
                    del self._pending[producer_id]

    def get(self, group_id: str, topic: str, partition: int) -> CommittedOffset | None:
        return self.by_group.get(group_id, {}).get(topic, {}).get(partition)

    def is_unstable(self, group_id: str, topic: str, partition: int) -> bool:
        """Whether an open transaction would change the offset."""
        if not self._pending:
            return False
        key = OffsetKey(group_id, topic, partition)
        return any(key in pending for pending in self._pending.values())

    def keys(self, group_id: str) -> Iterator[OffsetKey]:
        """What the group has committed, or may have once transactions end (then possibly twice)."""
        for topic, partitions in self.by_group.get(group_id, {}).items():
            for partition in partitions:
                yield OffsetKey(group_id, topic, partition)
        for key in self.pending_keys():
            if key.group_id == group_id:
                yield key

    def pending_keys(self) -> Iterator[OffsetKey]:
        for pending in self._pending.values():
            yield from pending


def is_expired(offset: CommittedOffset, base_timestamp_ms: int, wall_ms: int, retention_ms: int) -> bool:
    """KIP-211: kept for the retention from ``base_timestamp_ms`` on, or until an expiry of its own."""
    if offset.expire_timestamp_ms != NO_TIMESTAMP:
        return wall_ms >= offset.expire_timestamp_ms
    return wall_ms - base_timestamp_ms >= retention_ms
