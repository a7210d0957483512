"""What tests of replication share: a partition with nobody around it but what the test says."""

from __future__ import annotations

from uuid import UUID

from log_support import open_log
from memory_disk import MemoryDisk

from ottla.log.settings import LogConfig
from ottla.metadata.image import PartitionState
from ottla.replication.partition import Partition
from ottla.types import TopicPartition

LAG_MS_MAX = 30_000


def topic_id_of(name: str) -> UUID:
    return UUID(int=int.from_bytes(name.encode()))


class Surroundings:
    """A node around a partition: who is alive is what the test puts into ``registered``."""

    def __init__(self) -> None:
        self.lag_ms_max = LAG_MS_MAX
        self.now_ms = 1_000
        self.registered: dict[int, int] = {}
        self.proposed: list[PartitionState] = []

    def monotonic_ms(self) -> int:
        return self.now_ms

    def is_eligible(self, node_id: int, broker_epoch: int) -> bool:
        return self.registered.get(node_id) == broker_epoch

    def is_alive(self, node_id: int) -> bool:
        return node_id in self.registered

    def propose(self, partition: Partition, state: PartitionState) -> None:
        self.proposed.append(state)


def make_partition(
    disk: MemoryDisk,
    state: PartitionState,
    config: LogConfig | None = None,
    around: Surroundings | None = None,
    node_id: int = 1,
    name: str = "t",
) -> Partition:
    """A partition in the role that ``state`` gives node ``node_id``."""
    made = Partition(
        TopicPartition(name, 0),
        topic_id_of(name),
        state,
        open_log(disk, config or LogConfig()),
        node_id=node_id,
        disk=disk,
        cluster=around or Surroundings(),
    )
    made.apply(state)
    return made
