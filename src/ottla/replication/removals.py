"""Partitions of deleted topics: let go, and their logs removed, so many at a time that others do not wait."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from functools import partial as bind
from uuid import UUID

from ottla.env.clock import Clock
from ottla.log.manager import LogManager
from ottla.replication.attempts import attempt
from ottla.replication.partition import Partition
from ottla.types import TopicPartition

# Removed in one turn: some 20 microseconds each.
AT_ONCE_MAX = 100


class Removals:
    """Nobody finds what is added here any more. ``begin`` lets go of it, and from then on logs are removed;
    ``finish`` when the node stops."""

    def __init__(self, logs: LogManager, clock: Clock, let_go: Callable[[Partition], None]) -> None:
        self._logs = logs
        self._clock = clock
        self._let_go = let_go
        self._leaving: dict[TopicPartition, Partition] = {}
        self._waiting: deque[tuple[TopicPartition, UUID]] = deque()
        self._scheduled = False

    def add(self, partition: Partition) -> None:
        self._leaving[partition.topic_partition] = partition

    def begin(self) -> Iterator[None]:
        """Let go of what was added, one in each step."""
        while self._leaving:
            self._leave(self._leaving.popitem()[1])
            yield
        if self._waiting and not self._scheduled:
            self._some()

    def make_way(self, where: TopicPartition) -> None:
        """A partition is made: let go of the one of its name whose turn has not come."""
        partition = self._leaving.pop(where, None)
        if partition is not None:
            self._leave(partition)

    def finish(self) -> None:
        """Let go of all, and remove all that is left."""
        while self._leaving:
            self._leave(self._leaving.popitem()[1])
        while self._waiting:
            self._one()

    def _leave(self, partition: Partition) -> None:
        self._let_go(partition)
        self._waiting.append((partition.topic_partition, partition.topic_id))

    def _some(self) -> None:
        for _ in range(min(AT_ONCE_MAX, len(self._waiting))):
            self._one()
        self._scheduled = bool(self._waiting)
        if self._scheduled:
            self._clock.call_later(0, self._some)

    def _one(self) -> None:
        where, topic_id = self._waiting.popleft()
        log = self._logs.logs.get(where)
        # Where the topic was made anew meanwhile, its log has taken the place of this one.
        if log is not None and log.topic_id == topic_id:
            attempt(bind(self._logs.delete, where), "%s: removing its log", where)
