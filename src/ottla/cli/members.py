"""A group and its members, asked over plain connections where that is possible.

librdkafka ends the whole process where the assignment of a member is not what consumers have, which any
client may bring about: Kafka Connect's are of another form, and a broker keeps whatever a leader gives it.
It is asked only where there is no plain connection, and for groups of the newer protocols, whose assignments
are no bytes.
"""

from __future__ import annotations

import struct
from contextlib import closing
from typing import Any, NamedTuple

from ottla.cli.client import REQUEST_TIMEOUT_S, Cluster
from ottla.cli.direct import DirectCluster, Unanswered, check
from ottla.cli.errors import CliError
from ottla.cli.values import check_group
from ottla.errors import ErrorCode
from ottla.types import TopicPartition

# The type of the protocol whose assignments are partitions.
CONSUMER = "consumer"
_GROUP = 0
_SHORT, _INT = struct.Struct(">h"), struct.Struct(">i")


class Member(NamedTuple):
    """A member of a group. ``partitions`` is None where its assignment is not what consumers have."""

    member_id: str
    instance_id: str | None
    client_id: str
    host: str
    partitions: list[TopicPartition] | None


class Group(NamedTuple):
    """A group. ``state`` and ``type`` are in small letters; ``coordinator`` is a node's id."""

    state: str
    type: str
    assignor: str | None
    coordinator: int | None
    members: list[Member]


def describe(cluster: Cluster, name: str) -> Group:
    """A group; one that does not exist is dead and has no members. CliError where nobody answers."""
    check_group(name)
    return _over_plain_connection(cluster, name) or _through_librdkafka(cluster, name)


def _over_plain_connection(cluster: Cluster, name: str) -> Group | None:
    """A group of the classic protocol; None where there is none of this name, or no plain connection."""
    try:
        direct = DirectCluster(cluster.bootstrap, cluster.given)
    except CliError:
        return None
    with closing(direct):
        found = direct.ask("FindCoordinator", {"key": name, "key_type": _GROUP, "coordinator_keys": [name]})
        coordinator = found.coordinators[0] if hasattr(found, "coordinators") else found
        check(coordinator.error_code, coordinator.error_message, f"group {name!r}")
        direct.learn_broker(coordinator.node_id, (coordinator.host, coordinator.port))
        try:
            answer = direct.ask_node(
                coordinator.node_id,
                "DescribeGroups",
                {"groups": [name], "include_authorized_operations": False},
            )
        except Unanswered as error:
            raise CliError(f"group {name!r}: its coordinator does not answer: {error}") from None
    (group,) = answer.groups
    state = group.group_state.lower().replace(" ", "")
    if group.error_code == ErrorCode.group_id_not_found or state in ("", "dead"):
        return None
    check(group.error_code, getattr(group, "error_message", None), f"group {name!r}")
    return Group(
        _STATES.get(state, state),
        "classic",
        group.protocol_data or None,
        int(coordinator.node_id),
        [_member(one, group.protocol_type) for one in group.members],
    )


# As librdkafka writes them, so that scripts find the same words.
_STATES = {"preparingrebalance": "preparing_rebalance", "completingrebalance": "completing_rebalance"}


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
    found = cluster.wait(futures[name], f"group {name!r}")
    return Group(
        _word(found.state),
        _word(getattr(found, "type", None)),
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


def _word(value: Any) -> str:
    return "-" if value is None else str(value.name).lower()
