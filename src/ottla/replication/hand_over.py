"""Partitions that this node leads, says the image, and cannot open: other replicas lead them instead.

So does Kafka's controller where a log directory has failed
(``ReplicationControlManager.handleDirectoriesOffline``). Where no other replica in sync lives, one stays:
this node has all that was committed, and tries again.

Kafka's controller knows which directories have failed. Here only who leads finds out: where none of them can
open a partition, those that may lead it (its ELR) would hand it round for ever. So who gets back what it has
handed over, without having opened it, waits for longer each time.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from functools import partial

from ottla.env.clock import Clock
from ottla.metadata.elections import NO_LEADER, without_nodes
from ottla.metadata.image import ClusterImage, PartitionState, TopicImage
from ottla.replication.surroundings import Proposer
from ottla.types import TopicPartition

log = logging.getLogger(__name__)

# What comes back is handed over again after so long, and twice as long each time; not longer than that.
AGAIN_AFTER_MS = 5_000
AGAIN_AFTER_MS_MAX = 600_000


class HandOver:
    """The proposal of another leader (``surroundings.Proposer``)."""

    def __init__(self, topic: TopicImage, index: int, current: Callable[[], PartitionState | None]) -> None:
        self.topic_partition = TopicPartition(topic.name, index)
        self.topic_id = topic.topic_id
        self.state = topic.partitions[index]
        # The state in force, while the partition cannot be opened.
        self._current = current

    def awaits(self, state: PartitionState) -> bool:
        """Whether it still is in the state that is to be replaced, and cannot be opened."""
        return self._current() is self.state

    def proposal_failed(self, state: PartitionState) -> None:
        """Another state is in force, and is looked at when the partition is tried again."""


class HandOvers:
    """Those of one node."""

    def __init__(
        self,
        node_id: int,
        propose: Callable[[Proposer, PartitionState], None],
        image: Callable[[], ClusterImage | None],
        opened: Mapping[tuple[str, int], object],
        clock: Clock,
    ) -> None:
        self._node_id = node_id
        self._propose = propose
        self._image = image
        self._opened = opened
        self._clock = clock
        # When others may be asked again to lead, and for how long that is.
        self._asked: dict[TopicPartition, tuple[int, int]] = {}

    def ask(self, topic: TopicImage, index: int, min_isr: int) -> None:
        """Propose another leader of what cannot be opened, if there can be one, and not too often."""
        image = self._image()
        where, state = TopicPartition(topic.name, index), topic.partitions[index]
        handed = None if image is None else handed_over(image, state, self._node_id, min_isr)
        now_ms = self._clock.monotonic_ms()
        again_ms, pause_ms = self._asked.get(where, (now_ms, AGAIN_AFTER_MS))
        if handed is not None and now_ms >= again_ms:
            self._asked[where] = now_ms + pause_ms, min(2 * pause_ms, AGAIN_AFTER_MS_MAX)
            log.warning(
                "%s: the leader cannot open the log: proposing node %d as the leader", where, handed.leader
            )
            self._propose(HandOver(topic, index, partial(self._current, topic, index)), handed)

    def forget(self, where: TopicPartition) -> None:
        """A partition is open, or is to be here no more."""
        self._asked.pop(where, None)

    def _current(self, topic: TopicImage, index: int) -> PartitionState | None:
        """The state in force; None where the partition is open by now, or gone."""
        image = self._image()
        known = None if image is None else image.topics_by_id.get(topic.topic_id)
        return None if known is None or (topic.name, index) in self._opened else known.partitions[index]


def handed_over(
    image: ClusterImage, state: PartitionState, node_id: int, min_isr: int
) -> PartitionState | None:
    """The state led by another node than ``node_id``; None where that does not lead, or nobody else can."""
    if state.leader != node_id:
        return None
    others = [other for other in image.brokers if other != node_id and other not in image.stopping]
    handed = without_nodes(state, (node_id,), others, min_isr)
    return None if handed.leader == NO_LEADER else handed
