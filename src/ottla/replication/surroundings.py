"""What a partition needs to know of others: the node around it, and the follower that asks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from ottla.metadata.image import PartitionState

if TYPE_CHECKING:
    from ottla.replication.partition import Partition


class Cluster(Protocol):
    """What a partition asks of the node around it."""

    lag_ms_max: int

    def monotonic_ms(self) -> int: ...

    def is_eligible(self, node_id: int, broker_epoch: int) -> bool:
        """Whether a node lives with this registration and is not about to stop: it may join an ISR."""
        ...

    def is_alive(self, node_id: int) -> bool:
        """Whether a node is registered."""
        ...

    def propose(self, partition: Partition, state: PartitionState) -> None:
        """Have the store replace the partition's state; the outcome shows in the image."""
        ...


class Position(Protocol):
    """Where a follower stands in a partition, as its request says."""

    fetch_offset: int
    current_leader_epoch: int
    last_fetched_epoch: int
    log_start_offset: int
