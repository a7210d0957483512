"""What a partition needs to know of others: the node around it, and the follower that asks; and what whoever
carries its proposals needs to know of it."""

from __future__ import annotations

from typing import Protocol
from uuid import UUID

from ottla.metadata.image import PartitionState
from ottla.types import TopicPartition


class Proposer(Protocol):
    """A partition whose leader proposes another state of it."""

    topic_partition: TopicPartition
    topic_id: UUID
    state: PartitionState

    def awaits(self, state: PartitionState) -> bool:
        """Whether it still leads, and waits for what becomes of ``state``."""
        ...

    def proposal_failed(self, state: PartitionState) -> None:
        """``state`` is known not to be in force, and the image is as new as what it lost against."""
        ...


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

    def propose(self, partition: Proposer, state: PartitionState) -> None:
        """Have the store replace the partition's state; the outcome shows in the image."""
        ...


class Position(Protocol):
    """Where a follower stands in a partition, as its request says."""

    fetch_offset: int
    current_leader_epoch: int
    last_fetched_epoch: int
    log_start_offset: int
