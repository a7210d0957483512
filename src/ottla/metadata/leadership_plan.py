"""What the controller has to change when the cluster changed: deaths, departures, reassignments (pure).

After Kafka's ``ReplicationControlManager``: every partition that a change concerns is brought to the state
that it should have. Planning is idempotent: a plan for a cluster in order is empty.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import NamedTuple

from ottla.config import BrokerConfig
from ottla.metadata.changes import PartitionChange
from ottla.metadata.elections import (
    elect,
    preferred,
    without_nodes,
    without_unneeded_elr,
)
from ottla.metadata.image import ClusterImage, PartitionState, TopicImage
from ottla.metadata.reassignment import complete_reassignment

log = logging.getLogger(__name__)

# Leaders that one round of balancing moves at most (Kafka's MAX_ELECTIONS_PER_IMBALANCE).
BALANCED_AT_ONCE_MAX = 1_000


class Rules(NamedTuple):
    """A topic's ``min.insync.replicas``, and whether an unclean leader is better than none."""

    min_isr: int
    unclean_enabled: bool


RulesOf = Callable[[TopicImage], Rules]


def rules_of(config: BrokerConfig) -> RulesOf:
    """How topics are to be treated, by their own configurations and the cluster's as they are now."""
    default = Rules(
        config.topic_default("min.insync.replicas"), config.topic_default("unclean.leader.election.enable")
    )

    def find(topic: TopicImage) -> Rules:
        if not topic.configs:
            return default
        values = config.topic_values(topic.configs)
        return Rules(values["min.insync.replicas"], values["unclean.leader.election.enable"])

    return find


class Nodes(NamedTuple):
    """Who can be what. ``restarted`` registered anew, and is in states of its earlier registration."""

    live: frozenset[int]
    stopping: frozenset[int]
    restarted: frozenset[int]
    # Those about whom there is nothing to do.
    steady: frozenset[int]

    @classmethod
    def of(cls, old: ClusterImage | None, new: ClusterImage) -> Nodes:
        """The nodes of ``new``; those restarted that had another registration in ``old``."""
        before = old.brokers if old is not None else new.brokers
        restarted = frozenset(
            node_id
            for node_id, broker in new.brokers.items()
            if before is not new.brokers and node_id in before and before[node_id].epoch != broker.epoch
        )
        stopping = frozenset(node_id for node_id in new.stopping if node_id in new.brokers)
        live = frozenset(new.brokers) - stopping
        return cls(live, stopping, restarted, live - restarted)


def plan(
    old: ClusterImage | None,
    new: ClusterImage,
    rules: RulesOf,
    again: Mapping[str, Collection[int]] | None = None,
) -> list[PartitionChange]:
    """Changes that bring ``new`` into order, given that ``old`` was when it was looked at (None: never was).

    ``again`` are partitions, by topic, to be looked at anyway. Changes of leaders come first: without them
    nothing can be written; after them those that only take nodes out of ISRs.
    """
    nodes = Nodes.of(old, new)
    leaders: list[PartitionChange] = []
    others: list[PartitionChange] = []
    # Many partitions are in few different states.
    settled: dict[tuple[PartitionState, Rules], PartitionState] = {}
    for topic, indexes in _concerned(old, new, again or {}):
        try:
            for change in _plan_topic(topic, indexes, nodes, rules(topic), settled):
                (leaders if change.moves_leader else others).append(change)
        except Exception:
            # The others are to be led all the same.
            log.exception("the partitions of topic %s cannot be brought into order", topic.name)
    return leaders + others


def _plan_topic(
    topic: TopicImage,
    indexes: Iterable[int],
    nodes: Nodes,
    rule: Rules,
    settled: dict[tuple[PartitionState, Rules], PartitionState],
) -> Iterator[PartitionChange]:
    steady = nodes.steady
    for index in indexes:
        state = topic.partitions[index]
        if state.leader in steady and steady.issuperset(state.isr) and not _is_unfinished(state):
            continue
        made = settled.get((state, rule))
        if made is None:
            made = settled[state, rule] = settle(state, nodes, rule)
        if made != state:
            yield PartitionChange(topic, index, state, made)


def _concerned(
    old: ClusterImage | None, new: ClusterImage, again: Mapping[str, Collection[int]]
) -> Iterator[tuple[TopicImage, Iterable[int]]]:
    """Topics and their partitions that may be out of order."""
    if (
        old is None
        or old.brokers is not new.brokers
        or old.stopping is not new.stopping
        or old.broker_configs is not new.broker_configs
    ):
        for topic in new.topics.values():
            yield topic, range(len(topic.partitions))
        return
    names: Iterable[str] = again
    if old.topics is not new.topics:
        names = {
            name: None for name, topic in new.topics.items() if old.topics.get(name) is not topic
        } | dict.fromkeys(again)
    for name in names:
        found = new.topics.get(name)
        if found is not None:
            yield found, _changed(old.topics.get(name), found, again.get(name, ()))


def _changed(old: TopicImage | None, new: TopicImage, again: Collection[int]) -> Iterable[int]:
    count = len(new.partitions)
    if old is None or old.topic_id != new.topic_id or old.configs != new.configs:
        return range(count)
    before = old.partitions
    changed = {
        index: None
        for index, state in enumerate(new.partitions)
        if index >= len(before) or state is not before[index]
    }
    return changed | {index: None for index in again if index < count}


def _is_unfinished(state: PartitionState) -> bool:
    return bool(state.elr or state.adding_replicas or state.removing_replicas)


def settle(state: PartitionState, nodes: Nodes, rule: Rules) -> PartitionState:
    """The state as it should be, given who is there; the same object where it is so already."""
    made = _without_leaving(state, nodes, rule)
    if made is state:
        made = elect(
            state,
            nodes.live,
            rule.min_isr,
            stopping=nodes.stopping,
            unclean_enabled=rule.unclean_enabled,
        )
    if made is state:
        # The next step of what takes several follows when the image has this one.
        done = complete_reassignment(state, nodes.live, rule.min_isr, stopping=nodes.stopping)
        made = done if done is not None else without_unneeded_elr(state, rule.min_isr)
    return made


def _without_leaving(state: PartitionState, nodes: Nodes, rule: Rules) -> PartitionState:
    """Take out of the ISR who died or restarted; and who is stopping, if that leaves others in it."""
    there = (nodes.live | nodes.stopping) - nodes.restarted
    isr = state.isr
    if isr and any(node_id in nodes.steady for node_id in isr):
        there = nodes.steady
    gone = frozenset(node_id for node_id in (*isr, state.leader) if node_id not in there and node_id >= 0)
    if not gone:
        return state
    return without_nodes(
        state,
        gone,
        nodes.live,
        rule.min_isr,
        stopping=nodes.stopping,
        unclean_enabled=rule.unclean_enabled,
    )


def claims(image: ClusterImage, node_id: int, rules: RulesOf, *, lost_data: bool) -> list[PartitionChange]:
    """Changes after which no partition is led by ``node_id`` or has it in its ISR.

    With ``lost_data`` it leaves ELRs as well. Who leads instead is the controller's to say.
    """
    me = frozenset((node_id,))
    lost = me if lost_data else frozenset()
    changes = []
    for topic in image.topics.values():
        for index, state in enumerate(topic.partitions):
            if node_id == state.leader or node_id in state.isr or (lost_data and node_id in state.elr):
                others = frozenset((state.leader,)) - me
                made = without_nodes(state, me, others, rules(topic).min_isr, lost=lost)
                changes.append(PartitionChange(topic, index, state, made))
    return changes


def awaits_hand_over(image: ClusterImage, node_id: int, topic: TopicImage) -> bool:
    """Whether a node that is stopping is still in an ISR that others can go on with."""
    return any(
        node_id in state.isr
        and any(
            other != node_id and other in image.brokers and other not in image.stopping for other in state.isr
        )
        for state in topic.partitions
    )


def balance(image: ClusterImage, percentage_max: int) -> list[PartitionChange]:
    """Moves of leadership back to preferred replicas, away from where too few of them lead.

    A node is out of balance where others lead more than ``percentage_max`` percent of the partitions that
    prefer it (``leader.imbalance.per.broker.percentage``).
    """
    live = frozenset(image.brokers) - frozenset(image.stopping)
    prefer: dict[int, int] = {}
    led_by_others: dict[int, int] = {}
    moves: dict[int, list[PartitionChange]] = {}
    for topic in image.topics.values():
        for index, state in enumerate(topic.partitions):
            first = state.replicas[0]
            prefer[first] = prefer.get(first, 0) + 1
            if state.leader != first:
                led_by_others[first] = led_by_others.get(first, 0) + 1
                made = preferred(state, live)
                if made is not None:
                    moves.setdefault(first, []).append(PartitionChange(topic, index, state, made))
    out_of_balance = [
        change
        for node_id, changes in moves.items()
        if led_by_others[node_id] * 100 > percentage_max * prefer[node_id]
        for change in changes
    ]
    return out_of_balance[:BALANCED_AT_ONCE_MAX]
