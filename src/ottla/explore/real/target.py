"""What strikes need of a cluster for tests, and what can be seen in it: `ottla.testing.Cluster`, and
`ottla.testing.Broker` as a cluster of one node."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, TypeVar

from ottla.coordinators.groups.requests import FetchedTopic
from ottla.errors import KafkaError
from ottla.testing.broker import Broker
from ottla.testing.cluster import Cluster
from ottla.testing.faults import Faults, Request
from ottla.testing.inside import Inside
from ottla.testing.running import RunningNodes

T = TypeVar("T")
# By these a member of a group shows that it lives.
MEMBERS_REQUESTS = frozenset({"Heartbeat", "JoinGroup", "SyncGroup", "OffsetCommit"})
Member = tuple[str, str]


class Node(Protocol):
    """A node, as strikes see it."""

    faults: Faults

    @property
    def running(self) -> bool: ...


class Target(Protocol):
    """The nodes by their ids, and what can be done to them (`ottla.testing.Cluster`)."""

    @property
    def nodes(self) -> Mapping[int, Node]: ...

    def start(self, node_id: int) -> Any: ...

    def stop(self, node_id: int) -> None: ...

    def kill(self, node_id: int) -> None: ...

    def disconnect(self, node_id: int) -> None: ...

    def isolate(self, node_id: int) -> None: ...

    def cut(self, one: int, other: int) -> None: ...

    def heal(self, *node_ids: int) -> None: ...


class OneNode:
    """A broker for tests, as a cluster of one node."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self.nodes: Mapping[int, Node] = {broker.node_id: broker}

    def start(self, node_id: int) -> None:
        self._broker.start()

    def stop(self, node_id: int) -> None:
        # With `Broker.stop` temporary data would be gone; this starts it again at once.
        self._broker.restart()

    def kill(self, node_id: int) -> None:
        self._broker.kill()

    def disconnect(self, node_id: int) -> None:
        self._broker.disconnect()

    def isolate(self, node_id: int) -> None:
        """It has nobody but its clients."""

    def cut(self, one: int, other: int) -> None:
        """There are no two."""

    def heal(self, *node_ids: int) -> None:
        """Nothing is cut."""


def target_of(inside: Cluster | Broker) -> Target:
    """The same, as strikes see it."""
    return inside if isinstance(inside, Cluster) else OneNode(inside)


class Seen(NamedTuple):
    """What is in a cluster at one moment."""

    # Where each partition ends, those of the groups' offsets as well.
    ends: dict[tuple[str, int], int]
    # Partitions some of whose replicas are not in sync.
    out_of_sync: list[str]
    members: frozenset[Member]
    # Whether there is a group, and each has members, and has committed up to all ends.
    all_read: bool


class Looking:
    """Looks into a cluster, and notes which members of groups have been heard of."""

    def __init__(self, inside: Cluster | Broker) -> None:
        self._inside: Inside = inside
        self._faults = inside.faults
        self.heard: set[Member] = set()

    def begin(self) -> None:
        """Note from now on who is heard of."""
        self._faults.listen(self._note)

    def end(self) -> None:
        self._faults.unlisten(self._note)

    def _note(self, request: Request) -> None:
        if request.api in MEMBERS_REQUESTS:
            self.heard.add((str(request.fields.get("group_id")), str(request.fields.get("member_id"))))

    def look(self) -> Seen:
        """What is there now."""
        return _call(self._inside, _seen)


def _call(inside: Inside, work: Callable[[RunningNodes], Coroutine[Any, Any, T]]) -> T:
    return inside._call(work)


async def _seen(nodes: RunningNodes) -> Seen:
    ends: dict[tuple[str, int], int] = {}
    marks: dict[tuple[str, int], int] = {}
    members: set[Member] = set()
    are_read: list[bool] = []
    for node in nodes.nodes.values():
        for key, partition in node.services.replicas.partitions.items():
            ends[key] = max(ends.get(key, 0), partition.log.log_end_offset)
            marks[key] = max(marks.get(key, 0), partition.high_watermark)
    for node in nodes.nodes.values():
        groups = node.services.groups
        try:
            listed = [group.group_id for group in groups.list_groups((), ())]
        except KafkaError:
            # It is loading them.
            are_read.append(False)
            continue
        for group in listed:
            own = {(group, member.member_id) for member in groups.describe(group).members}
            members |= own
            are_read.append(
                bool(own) and _has_read_all(groups.fetch(group, None, require_stable=False), marks)
            )
    return Seen(ends, list(_out_of_sync(nodes)), frozenset(members), bool(are_read) and all(are_read))


def _has_read_all(offsets: Sequence[FetchedTopic], ends: Mapping[tuple[str, int], int]) -> bool:
    """Whether a group has committed the ends of all partitions with records, of the topics that it reads."""
    committed = {(topic.topic, each.partition): each.offset for topic in offsets for each in topic.partitions}
    topics = {topic for topic, _ in committed}
    return bool(topics) and all(
        committed.get(where, 0) >= end for where, end in ends.items() if where[0] in topics
    )


def _out_of_sync(nodes: RunningNodes) -> Iterable[str]:
    for name, topic in nodes.image.topics.items():
        for index, state in enumerate(topic.partitions):
            if set(state.isr) != set(state.replicas):
                yield f"{name}-{index}"
