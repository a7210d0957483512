"""The shards of one coordinator on this node: finds the one that a name belongs to, loads and unloads them.

What a name stands for belongs to the partition of the internal topic that it hashes to; the node that leads
the partition coordinates it. The replication layer has partitions loaded when this node becomes their leader,
and unloaded when it no longer is. Until a shard is loaded its names get COORDINATOR_LOAD_IN_PROGRESS, and
those of partitions led elsewhere NOT_COORDINATOR.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from ottla.coordinators.runtime.hashing import partition_of
from ottla.coordinators.runtime.machine import Machine, Settings
from ottla.coordinators.runtime.shard import Shard
from ottla.coordinators.runtime.writes import CoordinatorLog
from ottla.env.clock import Clock
from ottla.env.deadlines import Deadlines
from ottla.env.slices import Slices
from ottla.errors import ErrorCode, KafkaError

M = TypeVar("M", bound=Machine)

# FindCoordinator answers for a shard that is being loaded at most this much later, to spare clients a retry.
READY_WAIT_MS = 1_000


class Host(Generic[M]):
    """See the module's docstring. ``shards`` is for reading."""

    __slots__ = (
        "_act",
        "_clock",
        "_deadlines",
        "_log",
        "_make",
        "_partition_count",
        "_ready",
        "_settings",
        "_slices",
        "shards",
    )

    def __init__(
        self,
        coordinator_log: CoordinatorLog,
        clock: Clock,
        deadlines: Deadlines,
        slices: Slices,
        settings: Settings,
        *,
        make: Callable[[], M],
        partition_count: int,
        act: Callable[[Shard[M], Any], None] | None = None,
    ) -> None:
        """``partition_count``: how many the topic will have, as long as it does not exist. ``act`` carries
        out an effect that a machine has put into its step."""
        self._log = coordinator_log
        self._clock = clock
        self._deadlines = deadlines
        self._slices = slices
        self._settings = settings
        self._make = make
        self._act = act
        self._partition_count = partition_count
        self.shards: dict[int, Shard[M]] = {}
        # Done when the partition is served.
        self._ready: dict[int, asyncio.Future[None]] = {}

    def partition_for(self, name: str) -> int:
        return partition_of(name, self._log.partition_count or self._partition_count)

    def find(self, name: str) -> Shard[M] | None:
        """The shard that a name belongs to, where this node leads its partition: served or not."""
        return self.shards.get(self.partition_for(name))

    def shard(self, name: str) -> Shard[M]:
        """The shard that a name belongs to. KafkaError where it is not served here."""
        return active(self.find(name))

    # -- fail-over

    async def ready(self, name: str) -> None:
        """Return when the name's shard is loaded, or after a while. For partitions of this node."""
        partition = self.partition_for(name)
        shard = self.shards.get(partition)
        if shard is None or not shard.is_active:
            if partition not in self._ready:
                self._ready[partition] = asyncio.get_running_loop().create_future()
            await asyncio.wait((self._ready[partition],), timeout=READY_WAIT_MS / 1000)

    async def load(self, partition: int, epoch: int) -> None:
        """This node leads the partition from leader epoch ``epoch`` on. Returns when it is served.

        In a later epoch of a partition that is already served everything is read anew: somebody else may have
        led it in between. KafkaError where the log cannot be read; the partition is then not served.
        """
        shard = self.shards.get(partition)
        if shard is not None:
            if epoch <= shard.epoch:
                return
            self._drop(shard)
        shard = self.shards[partition] = Shard(
            partition,
            epoch,
            self._make(),
            self._log,
            self._clock,
            self._deadlines,
            self._slices,
            self._settings,
            self._act,
        )
        try:
            await shard.load()
        finally:
            if not shard.is_active:
                self._drop(shard)
        if shard.is_active and partition in self._ready:
            self._ready.pop(partition).set_result(None)

    def unload(self, partition: int, epoch: int | None = None) -> None:
        """This node no longer leads the partition, as of leader epoch ``epoch``."""
        shard = self.shards.get(partition)
        if shard is not None and (epoch is None or epoch >= shard.epoch):
            self._drop(shard)

    def _drop(self, shard: Shard[M]) -> None:
        if self.shards.get(shard.partition) is shard:
            del self.shards[shard.partition]
        if not shard.is_closed:
            shard.close()

    def close(self) -> None:
        """Serve nothing any more: tell all who wait to look for another coordinator."""
        for shard in list(self.shards.values()):
            self._drop(shard)


def active(shard: Shard[M] | None) -> Shard[M]:
    """A shard that is served. KafkaError otherwise."""
    if shard is None:
        raise KafkaError(ErrorCode.not_coordinator)
    if not shard.is_active:
        raise KafkaError(ErrorCode.coordinator_load_in_progress)
    return shard
