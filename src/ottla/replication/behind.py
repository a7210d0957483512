"""A partition whose metadata is older than its log: it was restored from a backup, or the log was adopted.

A leader that wrote in an earlier epoch than its log has already would write what recovery takes for the
remains of a truncation, and followers could not tell its records from others. So it does not lead before the
metadata has a later epoch, which it asks for.
"""

from __future__ import annotations

import logging

from ottla.metadata.elections import led_anew
from ottla.metadata.image import PartitionState
from ottla.replication.partition import Partition

log = logging.getLogger(__name__)


class Raise:
    """The proposal of a later epoch (``surroundings.Proposer``)."""

    def __init__(self, partition: Partition, state: PartitionState) -> None:
        self._partition = partition
        self.topic_partition = partition.topic_partition
        self.topic_id = partition.topic_id
        self.state = state

    @classmethod
    def of(cls, partition: Partition, state: PartitionState, node_id: int) -> Raise | None:
        """What a node has to propose before it leads in ``state``; None where it need not."""
        if state.leader != node_id or partition.log.latest_epoch <= state.leader_epoch:
            return None
        log.warning(
            "%s: the leader epoch of the log (%d) is above that of the metadata (%d), which "
            "may be from a backup: raising that of the metadata",
            partition.topic_partition, partition.log.latest_epoch, state.leader_epoch,
        )  # fmt: skip
        return cls(partition, state)

    @property
    def raised(self) -> PartitionState:
        return led_anew(self.state, self._partition.log.latest_epoch)

    def awaits(self, state: PartitionState) -> bool:
        """Whether the partition still is in the state that is to be replaced."""
        return self._partition.state is self.state

    def proposal_failed(self, state: PartitionState) -> None:
        """Another state is in force, and will be looked at when it comes."""
