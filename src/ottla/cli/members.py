"""A group and its members, asked over plain connections where that is possible.

librdkafka ends the whole process where the assignment of a member is not what consumers have, which any
client may bring about: Kafka Connect's are of another form, and a broker keeps whatever a leader gives it.
It is asked only where there is no plain connection, and for groups of the newer protocols, whose assignments
are no bytes.
"""

from __future__ import annotations

import struct
from contextlib import closing
from functools import partial
from typing import Any, NamedTuple

from ottla.cli import output
from ottla.cli.client import REQUEST_TIMEOUT_S, Cluster
from ottla.cli.direct import DirectCluster, Unanswered, check
from ottla.cli.errors import CliError
from ottla.cli.requests import GROUP, NO_COORDINATOR, ClusterRequests, retry
from ottla.cli.rights import Right
from ottla.cli.values import check_group
from ottla.errors import ErrorCode
from ottla.types import TopicPartition

# The type of the protocol whose assignments are partitions.
CONSUMER = "consumer"
# A state, and a type, as Kafka writes them.
DEAD, CLASSIC = "Dead", "Classic"
# States as librdkafka has them, where that is not what Kafka calls them.
_STATES = {
    "PREPARING_REBALANCING": "PreparingRebalance",
    "COMPLETING_REBALANCING": "CompletingRebalance",
}
_SHORT, _INT = struct.Struct(">h"), struct.Struct(">i")


class Member(NamedTuple):
    """A member of a group. ``partitions`` is None where its assignment is not what consumers have."""

    member_id: str
    instance_id: str | None
    client_id: str
    host: str
    partitions: list[TopicPartition] | None


class Group(NamedTuple):
    """A group. ``state`` and ``type`` are as Kafka writes them; ``coordinator`` is a node's id."""

    state: str
    type: str | None
    assignor: str | None
    coordinator: int | None
    members: list[Member]


def describe(cluster: Cluster, name: str) -> Group:
    """A group; one that does not exist is dead and has no members. CliError where nobody answers."""
    check_group(name)
    return _over_plain_connection(cluster, name) or _through_librdkafka(cluster, name)


class Listed(NamedTuple):
    """A group as a listing has it. An old broker says neither state nor type."""

    group: str
    state: str | None
    type: str | None


def listed(cluster: Cluster) -> list[Listed]:
    """The groups of all brokers. It is said of a broker that does not answer."""
    try:
        direct = DirectCluster(cluster.bootstrap, cluster.given)
    except CliError:
        return _listed_through_librdkafka(cluster)
    found: dict[str, Listed] = {}
    with closing(direct):
        for node in ClusterRequests(direct).nodes():
            try:
                answer = direct.ask_node(node, "ListGroups", {"states_filter": [], "types_filter": []})
                check(answer.error_code, None, f"groups of node {node}")
            except (Unanswered, CliError) as error:
                output.warn(f"incomplete, a broker did not answer: {error}")
                continue
            for one in answer.groups:
                state = getattr(one, "group_state", None) or None
                # Brokers write it in small letters, Kafka's tools do not.
                kind = (getattr(one, "group_type", None) or "").capitalize() or None
                found[one.group_id] = Listed(one.group_id, state, kind)
    return [found[name] for name in sorted(found)]


def _listed_through_librdkafka(cluster: Cluster) -> list[Listed]:
    found = cluster.wait(cluster.admin.list_consumer_groups(request_timeout=REQUEST_TIMEOUT_S), "groups")
    if found.errors:
        output.warn(f"incomplete, a broker did not answer: {found.errors[0]}")
    return sorted(
        Listed(one.group_id, word_of(one.state), word_of(getattr(one, "type", None)))
        for one in found.valid or ()
    )


class DescribeRequests(ClusterRequests):
    """Asks the coordinator of a group about it."""

    def described(self, name: str) -> Group | None:
        """A group of the classic protocol; None where there is none of this name."""
        return self._persist(partial(self._describe, name))

    def _describe(self, name: str) -> Group | None:
        what, right = f"group {name!r}", Right("describe", "group", name)
        ((node, _),) = self._coordinators(GROUP, [name], lambda _: what).items()
        fields = {"groups": [name], "include_authorized_operations": False}
        answer = self._cluster.ask_node(node, "DescribeGroups", fields)
        (group,) = answer.groups
        if group.error_code == ErrorCode.group_id_not_found:
            return None
        retry(group.error_code, NO_COORDINATOR, what)
        check(group.error_code, getattr(group, "error_message", None), what, right)
        if group.group_state in ("", DEAD):
            return None
        return Group(
            group.group_state,
            CLASSIC,
            group.protocol_data or None,
            node,
            [_member(one, group.protocol_type) for one in group.members],
        )


def _over_plain_connection(cluster: Cluster, name: str) -> Group | None:
    """A group of the classic protocol; None where there is none of this name, or no plain connection."""
    try:
        direct = DirectCluster(cluster.bootstrap, cluster.given)
    except CliError:
        return None
    with closing(direct):
        return DescribeRequests(direct).described(name)


def _member(found: Any, protocol_type: str) -> Member:
    return Member(
        found.member_id,
        getattr(found, "group_instance_id", None),
        found.client_id,
        found.client_host.lstrip("/"),
        decode_assignment(bytes(found.member_assignment)) if protocol_type == CONSUMER else None,
    )


def decode_assignment(data: bytes) -> list[TopicPartition] | None:
    """The partitions in a member's assignment (``ConsumerProtocolAssignment``, any version); None where it is
    none. A member that has none yet has an empty one."""
    if not data:
        return []
    found: list[TopicPartition] = []
    try:
        position = _SHORT.size
        (count,) = _INT.unpack_from(data, position)
        position += _INT.size
        for _ in range(count):
            (length,) = _SHORT.unpack_from(data, position)
            position += _SHORT.size
            topic = data[position : position + length].decode()
            if length < 0 or position + length > len(data):
                return None
            position += length
            (partitions,) = _INT.unpack_from(data, position)
            position += _INT.size
            if not 0 <= partitions <= (len(data) - position) // _INT.size:
                return None
            numbers = struct.unpack_from(f">{partitions}i", data, position)
            position += partitions * _INT.size
            found += [TopicPartition(topic, number) for number in numbers]
    except (struct.error, UnicodeDecodeError):
        return None
    return found


def _through_librdkafka(cluster: Cluster, name: str) -> Group:
    futures = cluster.admin.describe_consumer_groups([name], request_timeout=REQUEST_TIMEOUT_S)
    found = cluster.wait(futures[name], f"group {name!r}", Right("describe", "group", name))
    return Group(
        word_of(found.state) or "Unknown",
        word_of(getattr(found, "type", None)),
        found.partition_assignor or None,
        None if found.coordinator is None else int(found.coordinator.id),
        [
            Member(
                member.member_id,
                member.group_instance_id,
                member.client_id,
                member.host.lstrip("/"),
                [TopicPartition(p.topic, p.partition) for p in member.assignment.topic_partitions],
            )
            for member in found.members
        ],
    )


def word_of(value: Any) -> str | None:
    """A state or type of librdkafka's as Kafka writes it; None where it has none."""
    name = getattr(value, "name", "UNKNOWN")
    return None if name == "UNKNOWN" else _STATES.get(name, name.capitalize())


def committed(cluster: Cluster, group: str) -> dict[TopicPartition, int]:
    """The committed offset of each partition for which the group has one."""
    from confluent_kafka import ConsumerGroupTopicPartitions

    futures = cluster.admin.list_consumer_group_offsets(
        [ConsumerGroupTopicPartitions(group)], request_timeout=REQUEST_TIMEOUT_S
    )
    found = cluster.wait(futures[group], f"group {group!r}", Right("describe", "group", group))
    return {TopicPartition(p.topic, p.partition): p.offset for p in found.topic_partitions if p.offset >= 0}
