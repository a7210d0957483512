"""The nodes of a broker or a cluster for tests that run now, and waiting for what happens on them.

Everything here runs on the event loop of the nodes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from typing import Any, TypeVar

from ottla.coordinators.runtime.hashing import partition_of
from ottla.coordinators.runtime.host import Host, active
from ottla.errors import ErrorCode, KafkaError
from ottla.metadata.image import EMPTY, OFFSETS_TOPIC, ClusterImage
from ottla.node import Node
from ottla.replication.partition import Partition
from ottla.testing.names import did_you_mean, listed

T = TypeVar("T")

# However little happens, those who wait look again after so long.
LOOK_AGAIN_S = 0.5
# How long a coordinator may take to move to another node and to be loaded there, and how often one looks.
SERVED_S_MAX, SERVED_AGAIN_S = 20.0, 0.02
# What is answered meanwhile.
_MOVING = frozenset(
    {
        ErrorCode.coordinator_load_in_progress,
        ErrorCode.coordinator_not_available,
        ErrorCode.leader_not_available,
        ErrorCode.not_coordinator,
        ErrorCode.not_leader_or_follower,
    }
)


class RunningNodes:
    """``add`` and ``remove`` nodes; ask for the node that has something; wait until something is so."""

    def __init__(self) -> None:
        self.nodes: dict[int, Node] = {}
        self._waiting: dict[Callable[[], None], None] = {}

    def add(self, node: Node) -> None:
        """A node has started."""
        self.nodes[node.node_id] = node
        node.services.metadata.subscribe(lambda old, new: self._wake())
        self._wake()

    def remove(self, node_id: int) -> None:
        """A node is about to end."""
        self.nodes.pop(node_id, None)
        self._wake()

    def _wake(self) -> None:
        for wake in tuple(self._waiting):
            wake()

    @property
    def image(self) -> ClusterImage:
        """The newest image that a node has."""
        images = [node.services.metadata.image for node in self.nodes.values()]
        return max(images, key=lambda image: image.revision, default=EMPTY)

    @property
    def any(self) -> Node:
        """One of the nodes, with the newest image. RuntimeError: none runs."""
        if not self.nodes:
            raise RuntimeError("no node is running")
        return max(self.nodes.values(), key=lambda node: node.services.metadata.image.revision)

    def check_exists(self, topic: str, partition: int | None = None) -> int:
        """The number of the topic's partitions. KafkaError as a client would get it, but with a message that
        says which topics and partitions there are."""
        topics = self.image.topics
        if topic not in topics:
            user = [name for name in topics if not name.startswith("__")]
            there = f" The topics are {listed(user)}." if user else " There is no topic."
            near = did_you_mean(topic, topics)
            raise KafkaError(
                ErrorCode.unknown_topic_or_partition, f"Topic {topic!r} does not exist.{near or there}"
            )
        count = len(topics[topic].partitions)
        if partition is not None and not 0 <= partition < count:
            raise KafkaError(
                ErrorCode.unknown_topic_or_partition,
                f"Topic {topic!r} has no partition {partition}: it has {count}, from 0.",
            )
        return count

    def leader(self, topic: str, partition: int) -> Node:
        """The node that leads a partition. KafkaError LEADER_NOT_AVAILABLE: none that runs does."""
        self.check_exists(topic, partition)
        leader = self.image.topics[topic].partitions[partition].leader
        node = self.nodes.get(leader)
        if node is None:
            raise KafkaError(
                ErrorCode.leader_not_available,
                f"Partition {topic}-{partition} has no leader among the nodes that run.",
            )
        return node

    async def led(self, topic: str, partition: int) -> tuple[Node, Partition]:
        """The replica of a partition that leads it, with its node. KafkaError as ``leader``, or
        NOT_LEADER_OR_FOLLOWER while the node has not taken it over."""
        node = self.leader(topic, partition)
        replicas = node.services.replicas
        if replicas.unopened:
            await replicas.open([(topic, partition)])
        replica = replicas.get(topic, partition)
        replica.check_leader()
        return node, replica

    async def coordinator(self, internal_topic: str, name: str) -> Node | None:
        """The node that coordinates a group or a transactional id; None while there is no such topic."""
        topic = self.image.topics.get(internal_topic)
        if topic is None:
            return None
        index = partition_of(name, len(topic.partitions))
        node, _ = await self.led(internal_topic, index)
        return node

    def check_served(self, internal_topic: str) -> None:
        """KafkaError while the coordinator of one of the topic's partitions is moving or being loaded.
        Partitions without a leader do not count: nobody coordinates what belongs to them."""
        topic = self.image.topics.get(internal_topic)
        for index, partition in enumerate(topic.partitions if topic is not None else ()):
            if partition.leader < 0:
                continue
            node = self.nodes.get(partition.leader)
            if node is None:
                raise KafkaError(ErrorCode.coordinator_not_available)
            services = node.services
            is_groups = internal_topic == OFFSETS_TOPIC
            host: Host[Any] = services.groups.host if is_groups else services.transactions.host
            active(host.shards.get(index))

    async def served(self, look: Callable[[], Awaitable[T]]) -> T:
        """What ``look`` returns, which is called again while it raises that a coordinator or a leader is
        moving or being loaded. KafkaError: still so after `SERVED_S_MAX`, or another one."""
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + SERVED_S_MAX
        while True:
            try:
                return await look()
            except KafkaError as error:
                if error.code not in _MOVING or loop.time() >= deadline_s:
                    raise
            await asyncio.sleep(SERVED_AGAIN_S)

    async def until(
        self, look: Callable[[], Awaitable[T | None]], topics: Iterable[str], timeout_s: float
    ) -> T | None:
        """What ``look`` returns, once it is not None; None after ``timeout_s``.

        It looks again whenever more can be read of one of the topics, metadata have changed, or a node has
        come or gone; also where it could not look since a leader or coordinator is moving.
        """
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + timeout_s
        changed = asyncio.Event()
        wake = changed.set
        self._waiting[wake] = None
        try:
            while True:
                changed.clear()
                watched = self._watch(topics, wake)
                try:
                    with suppress(KafkaError):
                        found = await look()
                        if found is not None:
                            return found
                    left_s = deadline_s - loop.time()
                    if left_s <= 0:
                        return None
                    with suppress(TimeoutError):
                        await asyncio.wait_for(changed.wait(), min(left_s, LOOK_AGAIN_S))
                finally:
                    for replica in watched:
                        replica.remove_waiter(wake)
        finally:
            self._waiting.pop(wake, None)

    def _watch(self, topics: Iterable[str], wake: Callable[[], None]) -> list[Partition]:
        wanted = frozenset(topics)
        watched = [
            replica
            for node in self.nodes.values()
            for (topic, _), replica in node.services.replicas.partitions.items()
            if topic in wanted
        ]
        for replica in watched:
            replica.add_waiter(wake)
        return watched
