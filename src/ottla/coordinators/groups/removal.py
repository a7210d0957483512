"""Removing groups and offsets: on request, when their time is over, and with the topics that they belong to.

A group may have very many offsets, a topic very many groups, a partition of `__consumer_offsets` very many of
both. What is more than a piece is therefore done piece by piece (`Pieces`), and each looks anew at what there
is by then.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import chain
from uuid import UUID

from ottla.coordinators.groups.classic_group import EMPTY, STABLE, ClassicGroup
from ottla.coordinators.groups.offsets import OffsetKey, is_expired
from ottla.coordinators.groups.requests import DeletedGroup
from ottla.coordinators.groups.schemas import CoordinatorRecord, GroupRecord, OffsetRecord
from ottla.coordinators.groups.step import Pieces, Step
from ottla.coordinators.groups.tables import GroupTables
from ottla.coordinators.runtime.pieces import PIECE
from ottla.coordinators.runtime.step import Waiter, Write, append_error
from ottla.errors import ErrorCode

log = logging.getLogger(__name__)

NONE = ErrorCode.none
# Bytes of tombstones that are written together: few, so that any number fits into batches of any size.
TOMBSTONES_BYTES_MAX = 16 * 1024
# What a tombstone takes besides the names of group and topic.
TOMBSTONE_BYTES = 10

# Told how a removal went.
Done = Callable[[ErrorCode, Step], None]
Failed = Callable[[ErrorCode, Step], None]


class Tombstones:
    """Gathers tombstones, and writes as many together as TOMBSTONES_BYTES_MAX takes."""

    __slots__ = ("_failed", "_records", "_size")

    def __init__(self, failed: Failed) -> None:
        self._failed = failed
        self._records: list[CoordinatorRecord] = []
        self._size = 0

    def add(self, key: OffsetKey, step: Step) -> None:
        self._records.append(OffsetRecord(key.group_id, key.topic, key.partition, None))
        self._size += TOMBSTONE_BYTES + len(key.group_id.encode()) + len(key.topic.encode())
        if self._size >= TOMBSTONES_BYTES_MAX:
            self.write(step)

    def write(self, step: Step) -> None:
        """Write what is gathered."""
        if self._records:
            step.write(tuple(self.take()), _nothing, self._failed)

    def take(self) -> list[CoordinatorRecord]:
        """What is gathered and was not written."""
        records, self._records, self._size = self._records, [], 0
        return records


class Removal:
    """What is to be removed from a partition's tables, first come, first served."""

    __slots__ = ("_awaited", "_deletions", "_expiring", "_tables", "pieces")

    def __init__(self, tables: GroupTables) -> None:
        self._tables = tables
        # What is to be done. For reading: whether there is any.
        self.pieces: deque[Pieces] = deque()
        self._expiring = False
        # Who waits for groups to be deleted that take more than a piece.
        self._deletions: dict[str, Done] = {}
        # Topics that are gone, each behind the write that was the last in flight when it went.
        self._awaited: deque[tuple[Write, Pieces]] = deque()

    def work(self, step: Step) -> None:
        """Do one piece. Should it fail in an unexpected way, that work is left, and the next done."""
        try:
            self.pieces[0].send(step)
        except StopIteration:
            self.pieces.popleft()
        except Exception:
            self.pieces.popleft()
            log.exception("offsets or groups that were to be removed are left")

    def _begin(self, pieces: Pieces) -> None:
        next(pieces)
        self.pieces.append(pieces)

    def abandon(self, step: Step) -> None:
        """Another node takes over: tell all who wait, and forget everything."""
        for done in self._deletions.values():
            done(ErrorCode.not_coordinator, step)
        self._deletions.clear()
        self._awaited.clear()
        self.pieces.clear()

    # -- groups

    def delete_group(self, group_id: str, waiter: Waiter, step: Step) -> None:
        """Handle one group of a DeleteGroups; the reply is `DeletedGroup`."""
        group = self._tables.groups.get(group_id)
        if group is None or group.state is not EMPTY:
            error = ErrorCode.group_id_not_found if group is None else ErrorCode.non_empty_group
            step.reply(waiter, DeletedGroup(group_id, error))
            return
        self._delete(group, step, lambda error, step: step.reply(waiter, DeletedGroup(group_id, error)))

    def _delete(self, group: ClassicGroup, step: Step, done: Done) -> None:
        """Write the tombstones of a group and of all its offsets: in several writes where they are many.

        Where one of them fails the group is still there, with the offsets that are left, to be deleted again.
        """
        tables, group_id = self._tables, group.group_id
        # Whoever joins from now on founds a new group.
        del tables.groups[group_id]
        new = (key for key in tables.keys_in_flight(group_id) if tables.offsets.get(*key) is None)
        keys = chain(tables.offsets.keys(group_id), list(dict.fromkeys(new)))
        pieces = self._deletion(group, keys, done)
        if tables.offsets.count_of(group_id) + tables.keys_in_flight_count(group_id) > PIECE:
            tables.deleting[group_id] = None
            self._deletions[group_id] = done
            self._begin(pieces)
            return
        next(pieces)
        with suppress(StopIteration):
            while True:
                pieces.send(step)

    def _deletion(self, group: ClassicGroup, keys: Iterable[OffsetKey], done: Done) -> Pieces:
        tables, group_id = self._tables, group.group_id
        errors: list[ErrorCode] = []

        def part_failed(code: ErrorCode, step: Step) -> None:
            errors.append(code)

        def failed(code: ErrorCode, step: Step) -> None:
            tables.groups.setdefault(group_id, group)
            done(append_error(code), step)

        def committed(step: Step) -> None:
            if errors:
                failed(errors[0], step)
            else:
                done(NONE, step)

        tombstones = Tombstones(part_failed)
        step = yield
        is_asked = False
        try:
            for count, key in enumerate(keys, 1):
                tombstones.add(key, step)
                if count % PIECE == 0:
                    tombstones.write(step)
                    step = yield
            step.write((*tombstones.take(), GroupRecord(group_id, None)), committed, failed)
            is_asked = True
        except Exception:
            done(ErrorCode.unknown_server_error, step)
            raise
        finally:
            tables.deleting.pop(group_id, None)
            self._deletions.pop(group_id, None)
            if not is_asked:
                tables.groups.setdefault(group_id, group)

    # -- retention

    def expire_offsets(self) -> None:
        """Remove offsets whose retention is over, and empty groups that have none left (KIP-211)."""
        if not self._expiring:
            self._expiring = True
            self._begin(self._expiry())

    def _expiry(self) -> Pieces:
        try:
            step = yield
            tombstones = Tombstones(_ignored)
            looked_at = 0
            for group_id in list(self._tables.groups):
                size = 1 + self._tables.offsets.count_of(group_id)
                if looked_at and looked_at + size > PIECE:
                    tombstones.write(step)
                    step = yield
                    looked_at = 0
                looked_at += size
                try:
                    if size <= PIECE:
                        self._expire_group(group_id, tombstones, step)
                    else:
                        step = yield from self._expire_large(group_id, tombstones, step)
                except Exception:
                    log.exception("group %s: its expired offsets are left", group_id)
            tombstones.write(step)
        finally:
            self._expiring = False

    def _expire_group(self, group_id: str, tombstones: Tombstones, step: Step) -> None:
        tables = self._tables
        group = tables.groups.get(group_id)
        if group is None:
            return
        in_flight = frozenset(tables.keys_in_flight(group_id))
        expired = [
            key
            for topic, partitions in tables.offsets.by_group.get(group_id, {}).items()
            for key in self._expired(group, topic, partitions, step)
            if key not in in_flight
        ]
        is_empty = group.state is EMPTY and not group.pending
        if is_empty and not in_flight and len(expired) == tables.offsets.count_of(group_id):
            self._delete(group, step, _done_quietly)
            return
        for key in expired:
            tombstones.add(key, step)

    def _expire_large(self, group_id: str, tombstones: Tombstones, step: Step) -> Generator[None, Step, Step]:
        """A group with more offsets than one piece. Should none be left the group goes the next time."""
        tables = self._tables
        for topic in list(tables.offsets.by_group.get(group_id, ())):
            partitions = list(tables.offsets.by_group.get(group_id, {}).get(topic, ()))
            for start in range(0, len(partitions), PIECE):
                group = tables.groups.get(group_id)
                now = tables.offsets.by_group.get(group_id, {}).get(topic, {})
                if group is None:
                    return step
                in_flight = frozenset(tables.keys_in_flight(group_id))
                piece = [each for each in partitions[start : start + PIECE] if each in now]
                for key in self._expired(group, topic, piece, step):
                    if key not in in_flight:
                        tombstones.add(key, step)
                tombstones.write(step)
                step = yield
        return step

    def _expired(
        self, group: ClassicGroup, topic: str, partitions: Iterable[int], step: Step
    ) -> list[OffsetKey]:
        """Kafka's ClassicGroup.offsetExpirationCondition, for some of a group's offsets of one topic."""
        since_ms: int | None = None
        if group.protocol_type is not None:
            if group.state is EMPTY:
                since_ms = group.empty_since_ms
            elif not (
                group.state is STABLE and group.uses_consumer_protocol and group.subscribed_topics is not None
            ):
                return []
        if group.is_subscribed_to(topic):
            return []
        retention_ms = step.config.offsets_retention_ms
        offsets = self._tables.offsets
        expired = []
        for partition in partitions:
            key = OffsetKey(group.group_id, topic, partition)
            offset = offsets.get(*key)
            if offset is None or offsets.is_unstable(*key):
                continue
            base_ms = offset.commit_timestamp_ms if since_ms is None else since_ms
            if is_expired(offset, base_ms, step.wall_ms, retention_ms):
                expired.append(key)
        return expired

    # -- topics

    def topics_deleted(self, topics: Sequence[tuple[str, UUID]], step: Step) -> None:
        """Remove all groups' offsets of topics that are no more: once what is in flight has arrived."""
        pieces = self._topics_removal(topics, step.wall_ms)
        if self._tables.in_flight:
            self._awaited.append((self._tables.in_flight[-1], pieces))
        else:
            self._begin(pieces)

    def arrived(self, write: Write) -> None:
        """``write``, which was in flight, is committed or has failed."""
        while self._awaited and self._awaited[0][0] is write:
            self._begin(self._awaited.popleft()[1])

    def _topics_removal(self, topics: Sequence[tuple[str, UUID]], deleted_ms: int) -> Pieces:
        """Offsets of another topic of the same name, which has been made since, stay. What cannot be written
        does no harm: it does not count for such a topic, which has another id."""
        tombstones = Tombstones(_ignored)
        looked_at = 0
        step = yield
        for topic, topic_id in topics:
            looked_at += 1
            for group_id in self._tables.offsets.groups_of(topic):
                keys = self._keys_of_topic(group_id, topic)
                for start in range(0, len(keys), PIECE):
                    piece = keys[start : start + PIECE]
                    if looked_at + len(piece) > PIECE:
                        tombstones.write(step)
                        step = yield
                        looked_at = 0
                    looked_at += len(piece)
                    for key in self._older(group_id, piece, topic_id, deleted_ms):
                        tombstones.add(key, step)
            if looked_at >= PIECE:
                tombstones.write(step)
                step = yield
                looked_at = 0
        tombstones.write(step)

    def _older(
        self, group_id: str, keys: Sequence[OffsetKey], topic_id: UUID, deleted_ms: int
    ) -> Iterator[OffsetKey]:
        """Those that are not, nor are about to be, offsets of a topic that came after the deleted one."""
        in_flight = frozenset(self._tables.keys_in_flight(group_id))
        for key in keys:
            offset = self._tables.offsets.get(*key)
            is_newer = (
                offset is not None and offset.commit_timestamp_ms > deleted_ms and offset.topic_id != topic_id
            )
            if not is_newer and key not in in_flight:
                yield key

    def _keys_of_topic(self, group_id: str, topic: str) -> list[OffsetKey]:
        offsets = self._tables.offsets
        committed = offsets.by_group.get(group_id, {}).get(topic, ())
        keys = [OffsetKey(group_id, topic, partition) for partition in committed]
        return [
            *keys,
            *(key for key in offsets.pending_of(group_id, topic) if key.partition not in committed),
        ]


def _nothing(step: Step) -> None:
    """Nothing follows."""


def _ignored(code: ErrorCode, step: Step) -> None:
    """What has expired is found again the next time; what belongs to a topic that is gone does not count."""


def _done_quietly(error: ErrorCode, step: Step) -> None:
    """Nobody asked for it."""
