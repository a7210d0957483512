"""Groups that this node coordinates, and the coordinators of both kinds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from ottla.coordinators.groups.classic_group import ClassicGroup, GroupState
from ottla.coordinators.groups.group_machine import GroupMachine
from ottla.coordinators.runtime.host import Host
from ottla.observe.exposition import Page
from ottla.observe.labels import OTHERS
from ottla.observe.metric import gauge
from ottla.observe.parts import Parts

_GROUPS = "kafka.server:type=group-coordinator-metrics,name="

GROUPS = gauge(
    "ottla_groups", "Groups that this node coordinates, by Kafka's names of their states.",
    "Most are Stable; Empty ones have offsets and no members.",
    "Groups that stay in PreparingRebalance or CompletingRebalance: a member does not answer; see its log.",
    ("state",), _GROUPS + "group-count, consumer-group-count",
)  # fmt: skip
MEMBERS = gauge(
    "ottla_group_members", "Members of a group.", "As many as there are consumers.",
    "Fewer: they were found silent for session.timeout.ms, or max.poll.interval.ms.", ("group",),
)  # fmt: skip
GENERATION = gauge(
    "ottla_group_generation", "The group's generation: each rebalance has another.", "It stands still.",
    "If it grows all the time members come and go: see session.timeout.ms, max.poll.interval.ms, and use "
    "static members "
    "or the cooperative assignor.",
    ("group",), _GROUPS + "group-completed-rebalance-rate",
)  # fmt: skip
LAG = gauge(
    "ottla_group_lag_messages",
    "By how many records the group's committed offsets are behind the high watermarks, in all partitions of "
    "a topic "
    "that this node has a replica of.",
    "Up to what is consumed in a second or two.", "More consumers, up to one for each partition, or faster "
    "ones.",
    ("group", "topic"), "kafka.consumer:type=consumer-fetch-manager-metrics,records-lag",
)  # fmt: skip
UNKNOWN = gauge(
    "ottla_group_lag_unknown_partitions",
    "Partitions with committed offsets of which this node has no replica, so that it knows no lag.",
    "0 where each node has a replica of everything.",
    "Their lag is in no node's metrics, and no alert comes for it: `ottla group describe` and `ottla top` "
    "ask the nodes that lead them.", ("group",),
)  # fmt: skip
OFFSETS = gauge(
    "ottla_group_offsets", "Partitions of which groups have committed offsets.", "As many as are consumed.",
    "Groups that are made for each start of a program leave theirs for offsets.retention.minutes.", (),
    "kafka.server:type=GroupMetadataManager,name=NumOffsets",
)  # fmt: skip
COORDINATED = gauge(
    "ottla_coordinator_partitions",
    "Partitions of __consumer_offsets (`groups`) and of __transaction_state (`transactions`) that this node "
    "coordinates.",
    "About the same on all nodes.", "As for `ottla_leaders`.",
    ("coordinator",), _GROUPS + "num-partitions,state=active",
)  # fmt: skip
LOADING = gauge(
    "ottla_coordinator_loading_partitions", "Of these, those that are still being read.",
    "0, but for a moment when leaders change.", "Compaction does not keep up: see the size of their logs.",
    ("coordinator",), _GROUPS + "num-partitions,state=loading",
)  # fmt: skip
LOAD_MAX = gauge(
    "ottla_coordinator_load_seconds_max", "The longest that it took to read one of them.", "Below 1.",
    "As above: groups and producers wait for that when leaders change.",
    ("coordinator",), _GROUPS + "partition-load-time-max",
)  # fmt: skip
WRITES = gauge(
    "ottla_coordinator_waiting_writes", "What coordinators have written, and is not committed yet.", "Some.",
    "As for `ottla_waiting_produces`.", ("coordinator",), _GROUPS + "event-queue-size",
)  # fmt: skip

METRICS = (GROUPS, MEMBERS, GENERATION, LAG, UNKNOWN, OFFSETS, COORDINATED, LOADING, LOAD_MAX, WRITES)

GROUPS_AT_ONCE = 20
PARTITIONS_AT_ONCE = 200
# Samples of lags: of groups and topics beyond them there is one.
LAGS_MAX = 10_000


class _Tally:
    """What is summed up of groups."""

    def __init__(self) -> None:
        self.states: Counter[str] = Counter(dict.fromkeys((state.value for state in GroupState), 0))
        self.members: Counter[str] = Counter()
        self.lags: Counter[tuple[str, str]] = Counter()
        self.unknown: Counter[str] = Counter()
        self.offsets = 0


def collect(parts: Parts, page: Page) -> Iterator[None]:
    services = parts.services
    hosts: tuple[tuple[str, Host[Any]], ...] = (
        ("groups", services.groups.host), ("transactions", services.transactions.host),
    )  # fmt: skip
    for name, host in hosts:
        shards = list(host.shards.values())
        page.add(COORDINATED, len(shards), name)
        page.add(LOADING, sum(not shard.is_active for shard in shards), name)
        page.add(LOAD_MAX, max((shard.loaded_ms for shard in shards), default=0) / 1000, name)
        page.add(WRITES, sum(shard.machine.in_flight_count for shard in shards), name)
    tally = _Tally()
    present: set[str] = set()
    for shard in list(services.groups.host.shards.values()):
        machine: GroupMachine = shard.machine
        for count, group in enumerate(list(machine.tables.groups.values()), 1):
            present.add(group.group_id)
            yield from _add(parts, page, machine, group, tally)
            if count % GROUPS_AT_ONCE == 0:
                yield
    parts.groups.keep(present)
    for state, number in tally.states.items():
        page.add(GROUPS, number, state)
    for label, number in tally.members.items():
        page.add(MEMBERS, number, label)
    for label, number in tally.unknown.items():
        page.add(UNKNOWN, number, label)
    yield
    for count, ((label, topic), lag) in enumerate(tally.lags.items(), 1):
        page.add(LAG, lag, label, topic)
        if count % PARTITIONS_AT_ONCE == 0:
            yield
    page.add(OFFSETS, tally.offsets)


def _add(
    parts: Parts, page: Page, machine: GroupMachine, group: ClassicGroup, tally: _Tally
) -> Iterator[None]:
    name = group.group_id
    label = parts.groups.of(name)
    tally.states[group.state.value] += 1
    tally.members[label] += len(group.members)
    if label != OTHERS:
        page.add(GENERATION, group.generation_id, label)
    replicas = parts.services.replicas.partitions
    looked_at = 0
    tally.unknown[label] += 0
    for topic, offsets in list(machine.tables.offsets.by_group.get(name, {}).items()):
        where = label, parts.topics.of(topic)
        if where not in tally.lags and len(tally.lags) >= LAGS_MAX:
            where = OTHERS, OTHERS
        tally.offsets += len(offsets)
        for partition, kept in list(offsets.items()):
            replica = replicas.get((topic, partition))
            if replica is None:
                tally.unknown[label] += 1
            else:
                tally.lags[where] += max(replica.high_watermark - kept[0], 0)
            looked_at += 1
            if looked_at % PARTITIONS_AT_ONCE == 0:
                yield
