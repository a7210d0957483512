"""Where groups are in their partitions: committed offsets (the state of Kafka's OffsetMetadataManager).

Only `replay` and `end_transaction` change anything. Offsets that were written inside a transaction stay
pending until it ends, and the partition is unstable as long as there are any. A later commit of the same
partition prevails over them, whenever they end; its removal ends them at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Final, NamedTuple
from uuid import UUID

from ottla.coordinators.groups.schemas import NO_TIMESTAMP, CommittedOffset, OffsetRecord
from ottla.coordinators.runtime.pieces import PIECE

NO_PRODUCER_ID: Final = -1

# An offset as it is kept: `CommittedOffset` as a plain tuple, its topic's id as a number. There may be
# millions, and Python's collector of garbage passes over plain tuples of plain values. Kept as they come they
# would make each of its full collections stop the event loop for a microsecond per offset.
Kept = tuple[int, int, str, int, int, int]
# Offsets by topic and partition.
GroupOffsets = dict[str, dict[int, Kept]]


class OffsetKey(NamedTuple):
    group_id: str
    topic: str
    partition: int


class PendingOffset(NamedTuple):
    """An offset of an open transaction, with its place among all replayed records."""

    sequence: int
    value: CommittedOffset


class Unstable:
    """What open transactions would commit of one partition."""

    __slots__ = ("by_producer", "prevailing")

    def __init__(self) -> None:
        self.by_producer: dict[int, PendingOffset] = {}
        # The place of what was committed last since the first of them was written: later ones alone count.
        self.prevailing = 0


class Offsets:
    """The offsets of all groups of one partition of `__consumer_offsets`. ``by_group`` is for reading."""

    __slots__ = ("_groups_of", "_pending", "_producers", "_sequence", "by_group")

    def __init__(self) -> None:
        self.by_group: dict[str, GroupOffsets] = {}
        # The groups that have offsets of a topic, in the order of their coming: how many there are that are
        # pending, and one for those that are committed.
        self._groups_of: dict[str, dict[str, int]] = {}
        # What open transactions would commit: by group and partition.
        self._pending: dict[str, dict[OffsetKey, Unstable]] = {}
        self._producers: dict[int, dict[OffsetKey, None]] = {}
        self._sequence = 0

    def replay(self, record: OffsetRecord, producer_id: int = NO_PRODUCER_ID) -> None:
        """Apply a committed record; ``producer_id`` is that of a transactional batch."""
        group_id, topic, partition, value = record
        if producer_id != NO_PRODUCER_ID and value is not None:
            self._add_pending(OffsetKey(group_id, topic, partition), producer_id, value)
            return
        keys = self._pending.get(group_id)
        unstable = None if keys is None else keys.get(OffsetKey(group_id, topic, partition))
        if value is not None:
            if unstable is not None:
                unstable.prevailing = self._sequence
            self._set(group_id, topic, partition, value)
            return
        if unstable is not None:
            for each in list(unstable.by_producer):
                self._drop_pending(OffsetKey(group_id, topic, partition), each)
        self._remove(group_id, topic, partition)

    def _set(self, group_id: str, topic: str, partition: int, value: CommittedOffset) -> None:
        topics = self.by_group.get(group_id)
        if topics is None:
            topics = self.by_group[group_id] = {}
        partitions = topics.get(topic)
        if partitions is None:
            partitions = topics[topic] = {}
            self._count(group_id, topic, 1)
        offset, leader_epoch, metadata, commit_ms, expire_ms, topic_id = value
        partitions[partition] = (offset, leader_epoch, metadata, commit_ms, expire_ms, topic_id.int)

    def _remove(self, group_id: str, topic: str, partition: int) -> None:
        topics = self.by_group.get(group_id)
        partitions = topics.get(topic) if topics is not None else None
        if topics is None or partitions is None:
            return
        partitions.pop(partition, None)
        if not partitions:
            del topics[topic]
            self._count(group_id, topic, -1)
        if not topics:
            del self.by_group[group_id]

    def _count(self, group_id: str, topic: str, change: int) -> None:
        """Keep ``_groups_of``."""
        groups = self._groups_of.setdefault(topic, {})
        count = groups.get(group_id, 0) + change
        if count:
            groups[group_id] = count
            return
        del groups[group_id]
        if not groups:
            del self._groups_of[topic]

    # -- transactions

    def _add_pending(self, key: OffsetKey, producer_id: int, value: CommittedOffset) -> None:
        self._sequence += 1
        keys = self._pending.setdefault(key.group_id, {})
        if key not in keys:
            keys[key] = Unstable()
            self._count(key.group_id, key.topic, 1)
        keys[key].by_producer[producer_id] = PendingOffset(self._sequence, value)
        self._producers.setdefault(producer_id, {})[key] = None

    def end_transaction(self, producer_id: int, *, committed: bool) -> Iterator[None]:
        """Apply a transaction's marker; yields after each piece, and is to be run to its end."""
        for count, key in enumerate(list(self._producers.get(producer_id, ())), 1):
            unstable = self._pending[key.group_id][key]
            sequence, value = unstable.by_producer[producer_id]
            if committed and sequence > unstable.prevailing:
                # Another open transaction may have written the partition before or after this one did.
                unstable.prevailing = sequence
                self._set(key.group_id, key.topic, key.partition, value)
            self._drop_pending(key, producer_id)
            if count % PIECE == 0:
                yield

    def _drop_pending(self, key: OffsetKey, producer_id: int) -> None:
        keys = self._pending[key.group_id]
        unstable = keys[key]
        del unstable.by_producer[producer_id]
        if not unstable.by_producer:
            del keys[key]
            self._count(key.group_id, key.topic, -1)
        if not keys:
            del self._pending[key.group_id]
        mine = self._producers[producer_id]
        del mine[key]
        if not mine:
            del self._producers[producer_id]

    # -- look-ups

    def kept(self, group_id: str, topic: str, partition: int) -> Kept | None:
        """A committed offset as it is kept; None where there is none."""
        topics = self.by_group.get(group_id)
        partitions = topics.get(topic) if topics is not None else None
        return partitions.get(partition) if partitions is not None else None

    def get(self, group_id: str, topic: str, partition: int) -> CommittedOffset | None:
        kept = self.kept(group_id, topic, partition)
        if kept is None:
            return None
        offset, leader_epoch, metadata, commit_ms, expire_ms, topic_id = kept
        return CommittedOffset(offset, leader_epoch, metadata, commit_ms, expire_ms, _uuid(topic_id))

    def is_unstable(self, group_id: str, topic: str, partition: int) -> bool:
        """Whether an open transaction would change the offset."""
        keys = self._pending.get(group_id)
        return keys is not None and OffsetKey(group_id, topic, partition) in keys

    def has_any(self, group_id: str) -> bool:
        """Whether the group has offsets, committed or pending."""
        return group_id in self.by_group or group_id in self._pending

    def count_of(self, group_id: str) -> int:
        """How many partitions the group has offsets of; those committed and pending count twice."""
        committed = sum(map(len, self.by_group.get(group_id, {}).values()))
        return committed + len(self._pending.get(group_id, ()))

    def keys(self, group_id: str) -> Iterator[OffsetKey]:
        """What the group has committed, or may have once transactions end (then possibly twice).

        Offsets may be replayed between two of them; those that are new by then are left out, or not.
        """
        for topic in list(self.by_group.get(group_id, ())):
            for partition in list(self.by_group.get(group_id, {}).get(topic, ())):
                yield OffsetKey(group_id, topic, partition)
        yield from list(self._pending.get(group_id, ()))

    def groups_of(self, topic: str) -> list[str]:
        """The groups that have offsets of the topic, committed or pending."""
        return list(self._groups_of.get(topic, ()))

    def pending_of(self, group_id: str, topic: str) -> list[OffsetKey]:
        """The group's partitions of the topic that open transactions would commit."""
        return [key for key in self._pending.get(group_id, ()) if key.topic == topic]


@lru_cache(maxsize=1_000)
def _uuid(number: int) -> UUID:
    """Few topics have very many offsets."""
    return UUID(int=number)


def is_expired(offset: CommittedOffset, base_timestamp_ms: int, wall_ms: int, retention_ms: int) -> bool:
    """KIP-211: kept for the retention from ``base_timestamp_ms`` on, or until an expiry of its own."""
    if offset.expire_timestamp_ms != NO_TIMESTAMP:
        return wall_ms >= offset.expire_timestamp_ms
    return wall_ms - base_timestamp_ms >= retention_ms
