"""What clients ask for single partitions: to be moved, to go back, to be led by another replica.

Each is planned against the image (``reassignment``, ``elections``) and committed by compare-and-swap; one
that lost against another change is planned anew on the newer image. Any node can do it: there is nothing that
only the controller may decide here, and what it does meanwhile shows in the partition's key.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from ottla.config import BrokerConfig
from ottla.errors import ErrorCode, KafkaError
from ottla.metadata.changes import PartitionChange, in_txns, new_leaders
from ottla.metadata.elections import NO_LEADER, elect_unclean, preferred
from ottla.metadata.image import ClusterImage, PartitionState, TopicImage
from ottla.metadata.leadership_plan import Nodes, RulesOf, rules_of
from ottla.metadata.reassignment import cancel_reassignment, check_factor_unchanged, reassign
from ottla.metadata.service import Metadata
from ottla.metadata.topics import check_assignment
from ottla.types import TopicPartition

# A change that keeps losing against others is given up after this many attempts.
ATTEMPTS_MAX = 20
# How many partitions are looked at before others have their turn.
PLANNED_AT_ONCE = 500


class View(NamedTuple):
    """What a plan is made against."""

    image: ClusterImage
    nodes: Nodes
    rules: RulesOf

    def find(self, where: TopicPartition) -> tuple[TopicImage, PartitionState]:
        """KafkaError(UNKNOWN_TOPIC_OR_PARTITION) where it does not exist."""
        topic = self.image.topics.get(where.topic)
        if topic is None:
            raise KafkaError(
                ErrorCode.unknown_topic_or_partition, f"Unable to find a topic named {where.topic}."
            )
        if not 0 <= where.partition < len(topic.partitions):
            raise KafkaError(
                ErrorCode.unknown_topic_or_partition,
                f"Unable to find partition {where.topic}:{where.partition}.",
            )
        return topic, topic.partitions[where.partition]


# The state that a partition should have, the one that it has, or a KafkaError.
Plan = Callable[[View, TopicPartition], PartitionState]


def moves_to(target: Sequence[int], *, allow_factor_change: bool) -> Plan:
    """Have a partition's replicas on ``target``. KafkaError where these are none that it can be on."""

    def plan(view: View, where: TopicPartition) -> PartitionState:
        topic, state = view.find(where)
        check_assignment(view.image, target)
        if not allow_factor_change:
            check_factor_unchanged(state, target)
        nodes = view.nodes
        return reassign(state, target, nodes.live, view.rules(topic).min_isr, stopping=nodes.stopping)

    return plan


def goes_back(view: View, where: TopicPartition) -> PartitionState:
    """Cancel a partition's reassignment. KafkaError where there is none, or it cannot be."""
    topic, state = view.find(where)
    rules, nodes = view.rules(topic), view.nodes
    return cancel_reassignment(
        state,
        nodes.live,
        rules.min_isr,
        stopping=nodes.stopping,
        unclean_enabled=rules.unclean_enabled,
    )


def elects_preferred(view: View, where: TopicPartition) -> PartitionState:
    """Have the first replica lead. KafkaError: ELECTION_NOT_NEEDED, PREFERRED_LEADER_NOT_AVAILABLE."""
    _, state = view.find(where)
    if state.leader == state.replicas[0]:
        raise KafkaError(ErrorCode.election_not_needed)
    made = preferred(state, view.nodes.live)
    if made is None:
        raise KafkaError(ErrorCode.preferred_leader_not_available)
    return made


def elects_unclean(view: View, where: TopicPartition) -> PartitionState:
    """Have anybody lead who lives, where nobody does. KafkaError: ELECTION_NOT_NEEDED,
    ELIGIBLE_LEADERS_NOT_AVAILABLE."""
    topic, state = view.find(where)
    if state.leader != NO_LEADER:
        raise KafkaError(ErrorCode.election_not_needed)
    made = elect_unclean(state, view.nodes.live, view.rules(topic).min_isr)
    if made is None:
        raise KafkaError(ErrorCode.eligible_leaders_not_available)
    return made


async def change_each(
    metadata: Metadata, config: BrokerConfig, plans: Mapping[TopicPartition, Plan]
) -> dict[TopicPartition, KafkaError | None]:
    """Carry out what is planned for each partition, on its own; the error of each, or None."""
    results: dict[TopicPartition, KafkaError | None] = dict.fromkeys(plans)
    pending = list(plans)
    for _ in range(ATTEMPTS_MAX):
        view = View(metadata.image, Nodes.of(None, metadata.image), rules_of(config))
        changes: list[PartitionChange] = []
        for count, where in enumerate(pending, 1):
            if count % PLANNED_AT_ONCE == 0:
                await asyncio.sleep(0)
            try:
                made = plans[where](view, where)
            except KafkaError as error:
                results[where] = error
                continue
            topic, state = view.find(where)
            if made is not state:
                changes.append(PartitionChange(topic, where.partition, state, made))
        pending = await _commit(metadata, view.image, changes, results)
        if not pending:
            return results
    busy = KafkaError(ErrorCode.request_timed_out, "Too many other changes at the same time; try again.")
    return results | dict.fromkeys(pending, busy)


async def _commit(
    metadata: Metadata,
    image: ClusterImage,
    changes: Sequence[PartitionChange],
    results: dict[TopicPartition, KafkaError | None],
) -> list[TopicPartition]:
    """Make the changes; those that lost against others are to be planned anew. Once the store has failed the
    rest is not tried: each attempt would take its time, and nobody waits for all of them."""
    lost: list[TopicPartition] = []
    failed: KafkaError | None = None
    for chunk in in_txns(changes):
        places = [TopicPartition(change.topic.name, change.index) for change in chunk]
        epochs = {node_id: image.brokers[node_id].epoch for node_id in new_leaders(chunk)}
        if failed is None:
            try:
                done = await metadata.controller.change_partitions(chunk, epochs)
            except KafkaError as error:
                failed = error
        if failed is not None:
            results.update(dict.fromkeys(places, failed))
            continue
        if not done:
            lost += places
    return lost
