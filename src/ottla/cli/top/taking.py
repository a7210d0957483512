"""Takes snapshots of a cluster by Kafka's protocol, each after the one before, a bounded part at a time.

Who is there, and which groups there are, is asked each time. Topics and partitions, where logs end, sizes
and groups' offsets cost brokers something for each, so that of many of them some are asked for now and others
next time: first what is looked at, then what was asked for the longest time ago.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

from ottla.cli.top.nodes import Ask, Nodes
from ottla.cli.top.snapshot import (
    Broker,
    Group,
    Listened,
    Measure,
    Partition,
    Snapshot,
    Wanted,
    group_lag,
    measured,
)
from ottla.types import TopicPartition

# What is asked for at a time.
ENDS_MAX = 4_000
GROUPS_MAX = 200
# How many partitions there may be for each second between two looks at all of them, and at all their sizes.
METADATA_PER_S = 2_500
SIZES_PER_S = 1_000
LATEST = -1
# Consumers commit every five seconds, most of them: what they do is averaged over more than that.
GROUP_RATES_OVER_S = 10.0
NO_OFFSET = -1
# Groups that commit offsets. Of their members only those of the first kind can be asked for everywhere.
CLASSIC, CONSUMER = "classic", "consumer"
COMMITTING = (CLASSIC, CONSUMER)

METADATA = {
    "topics": None,
    "allow_auto_topic_creation": False,
    "include_topic_authorized_operations": False,
    "include_cluster_authorized_operations": False,
}
CLUSTER = {"include_cluster_authorized_operations": False, "endpoint_type": 1, "include_fenced_brokers": True}


class Taker:
    """``take`` one snapshot after the other; ``close`` in the end."""

    def __init__(
        self,
        nodes: Nodes,
        listen: Callable[[Snapshot, Nodes], Listened] | None = None,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """``listen``: asks nodes' metrics listeners about clients."""
        self._nodes = nodes
        self._listen = listen
        self._now_s = now_s

    def close(self) -> None:
        self._nodes.close()

    def take(self, before: Snapshot | None, wanted: Wanted) -> Snapshot:
        """The cluster now. CliError where it cannot be reached."""
        began_s = self._now_s()
        found = replace(before or Snapshot(at_s=began_s), at_s=began_s)
        found = self._brokers(found)
        if wanted.everything or _is_due(found.metadata_at_s, began_s, len(found.partitions), METADATA_PER_S):
            found = self._partitions(found)
        found = self._groups(found, wanted)
        found = self._ends(found, wanted)
        if wanted.everything or _is_due(found.sizes_at_s, began_s, len(found.partitions), SIZES_PER_S):
            found = self._sizes(found)
        if self._listen is not None:
            found = replace(found, listened=self._listen(found, self._nodes))
        return replace(found, silent=self._nodes.silent(), took_s=self._now_s() - began_s)

    # ------------------------------------------------------------ who and what there is

    def _brokers(self, found: Snapshot) -> Snapshot:
        answer = self._nodes.ask_any("DescribeCluster", CLUSTER)
        brokers = {
            int(b.broker_id): Broker(b.host, b.port, b.rack, getattr(b, "is_fenced", False))
            for b in answer.brokers
        }
        self._nodes.learn(brokers)
        return replace(
            found,
            cluster_id=answer.cluster_id,
            controller=answer.controller_id,
            brokers=dict(sorted(brokers.items())),
        )

    def _partitions(self, found: Snapshot) -> Snapshot:
        answer = self._nodes.ask_any("Metadata", METADATA)
        partitions = {
            TopicPartition(topic.name, p.partition_index): Partition(
                p.leader_id, tuple(p.replica_nodes), tuple(p.isr_nodes)
            )
            for topic in answer.topics
            for p in topic.partitions
        }
        return replace(
            found,
            partitions=partitions,
            internal=frozenset(topic.name for topic in answer.topics if topic.is_internal),
            ends={name: end for name, end in found.ends.items() if name in partitions},
            sizes={name: size for name, size in found.sizes.items() if name in partitions},
            metadata_at_s=found.at_s,
        )

    # ------------------------------------------------------------ groups

    def _groups(self, found: Snapshot, wanted: Wanted) -> Snapshot:
        alive = [node for node, broker in found.brokers.items() if not broker.is_fenced]
        listed = self._nodes.ask_each(dict.fromkeys(alive, _list_groups))
        groups: dict[str, Group] = {}
        for name, group in found.groups.items():
            # Those of a node that does not answer stay as they were.
            if group.coordinator in alive and group.coordinator not in listed:
                groups[name] = group
        for node, answer in listed.items():
            for one in answer:
                known = found.groups.get(one.group_id, Group("", "", node))
                state, kind = getattr(one, "group_state", ""), getattr(one, "group_type", "") or CLASSIC
                groups[one.group_id] = known._replace(state=state, kind=kind.lower(), coordinator=node)
        chosen = _chosen(
            {name: group.at_s for name, group in groups.items() if group.kind in COMMITTING},
            wanted.groups,
            len(groups) if wanted.everything else GROUPS_MAX,
        )
        by_node: dict[int, list[str]] = {}
        for name in chosen:
            by_node.setdefault(groups[name].coordinator, []).append(name)
        work = {node: _group_work(names, groups) for node, names in by_node.items()}
        for members, offsets in self._nodes.ask_each(work).values():
            at_s = self._now_s()
            for name, committed in offsets.items():
                groups[name] = _after(groups[name], at_s, members.get(name), committed)
        return replace(found, groups=groups)

    # ------------------------------------------------------------ where logs end, and how large they are

    def _ends(self, found: Snapshot, wanted: Wanted) -> Snapshot:
        topics = set(wanted.topics)
        # Those of groups just asked for: their lag is to be of the same moment.
        fresh = [g for g in found.groups.values() if g.at_s is not None and g.at_s >= found.at_s]
        first = [p for g in fresh for p in g.committed if p in found.partitions]
        first += [p for p in found.partitions if p.topic in topics]
        chosen = _chosen(
            {p: None if p not in found.ends else found.ends[p].at_s for p in found.partitions},
            first,
            len(found.partitions) if wanted.everything else ENDS_MAX,
        )
        by_node: dict[int, list[TopicPartition]] = {}
        for partition in chosen:
            by_node.setdefault(found.partitions[partition].leader, []).append(partition)
        ends = dict(found.ends)
        work = {node: _ends_work(partitions) for node, partitions in by_node.items()}
        for answer in self._nodes.ask_each(work).values():
            at_s = self._now_s()
            for partition, end in answer.items():
                ends[partition] = measured(ends.get(partition), at_s, end)
        groups = dict(found.groups)
        for name, group in groups.items():
            if group.at_s is not None and group.at_s >= found.at_s:
                lag = group_lag(group, ends)
                if lag is not None:
                    groups[name] = group._replace(lag=_lag(group, group.at_s, lag))
        return replace(found, ends=ends, groups=groups)

    def _sizes(self, found: Snapshot) -> Snapshot:
        alive = [node for node, broker in found.brokers.items() if not broker.is_fenced]
        sizes = dict(found.sizes)
        held_bytes = {node: held for node, held in found.held_bytes.items() if node in alive}
        for node, held in self._nodes.ask_each(dict.fromkeys(alive, _describe_log_dirs)).items():
            at_s = self._now_s()
            held_bytes[node] = sum(held.values())
            for name, size in held.items():
                partition = found.partitions.get(name)
                if partition is not None and partition.leader == node:
                    sizes[name] = measured(sizes.get(name), at_s, size)
        return replace(found, sizes=sizes, held_bytes=held_bytes, sizes_at_s=found.at_s)


def _is_due(before_s: float | None, now_s: float, count: int, per_s: int) -> bool:
    """Whether what costs something for each of so many is to be asked for again."""
    return before_s is None or now_s - before_s >= count / per_s


def _chosen(ages: Mapping[Any, float | None], first: Iterable[Any], count_max: int) -> list[Any]:
    """At most so many of those with an age: ``first`` of all those, then those that were asked for the
    longest time ago, or never."""
    if len(ages) <= count_max:
        return list(ages)
    chosen = dict.fromkeys(one for one in first if one in ages)
    for one in sorted(ages, key=lambda one: -1.0 if (at_s := ages[one]) is None else at_s):
        if len(chosen) >= count_max:
            break
        chosen[one] = None
    return list(chosen)[:count_max]


def _list_groups(ask: Ask) -> Any:
    return ask("ListGroups", {"states_filter": [], "types_filter": []}).groups


def _group_work(
    names: list[str], groups: Mapping[str, Group]
) -> Callable[[Ask], tuple[dict[str, int], dict[str, dict[TopicPartition, int]]]]:
    classic = [name for name in names if groups[name].kind == CLASSIC]

    def work(ask: Ask) -> tuple[dict[str, int], dict[str, dict[TopicPartition, int]]]:
        members = {}
        if classic:
            answer = ask("DescribeGroups", {"groups": classic, "include_authorized_operations": False})
            members = {one.group_id: len(one.members) for one in answer.groups if not one.error_code}
        wanted = [{"group_id": name, "topics": None, "member_id": None, "member_epoch": -1} for name in names]
        # From version 10 on topics have ids there, and no names; 8 takes many groups.
        answer = ask("OffsetFetch", {"groups": wanted, "require_stable": False}, version=8)
        return members, {
            group.group_id: {
                TopicPartition(topic.name, p.partition_index): p.committed_offset
                for topic in group.topics
                for p in topic.partitions
                if not p.error_code and p.committed_offset > NO_OFFSET
            }
            for group in answer.groups
            if not group.error_code and group.group_id in groups
        }

    return work


def _after(group: Group, at_s: float, members: int | None, committed: Mapping[TopicPartition, int]) -> Group:
    """The group with what was found of it now."""
    before = group.committed
    offsets: dict[TopicPartition, Measure] = {
        partition: measured(before.get(partition), at_s, offset, over_s=GROUP_RATES_OVER_S)
        for partition, offset in committed.items()
    }
    return group._replace(members=members, committed=offsets, at_s=at_s)


def _lag(group: Group, at_s: float, lag: int) -> Measure:
    return measured(group.lag, at_s, lag, shrinks=True, over_s=GROUP_RATES_OVER_S)


def _ends_work(partitions: list[TopicPartition]) -> Callable[[Ask], dict[TopicPartition, int]]:
    topics: dict[str, list[int]] = {}
    for topic, partition in partitions:
        topics.setdefault(topic, []).append(partition)
    fields = {
        "replica_id": -1,
        "isolation_level": 0,
        "topics": [
            {
                "name": topic,
                "partitions": [
                    {"partition_index": p, "current_leader_epoch": -1, "timestamp": LATEST} for p in found
                ],
            }
            for topic, found in topics.items()
        ],
        "timeout_ms": 2_000,
    }

    def work(ask: Ask) -> dict[TopicPartition, int]:
        return {
            TopicPartition(topic.name, p.partition_index): p.offset
            for topic in ask("ListOffsets", fields).topics
            for p in topic.partitions
            # Another has become the leader, or the topic is gone: next time.
            if not p.error_code and p.offset >= 0
        }

    return work


def _describe_log_dirs(ask: Ask) -> dict[TopicPartition, int]:
    held: dict[TopicPartition, int] = {}
    for folder in ask("DescribeLogDirs", {"topics": None}).results:
        for topic in folder.topics:
            for p in topic.partitions:
                if not p.is_future_key:
                    held[TopicPartition(topic.name, p.partition_index)] = p.partition_size
    return held
