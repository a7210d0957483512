"""Leaders and in-sync replicas of a cluster for tests, on the event loop of the nodes."""

from __future__ import annotations

from ottla.metadata.image import PartitionState
from ottla.testing.running import RunningNodes
from ottla.testing.topics import Unmet


async def leader(nodes: RunningNodes, topic: str, partition: int) -> int:
    """The node that leads a partition. KafkaError."""
    return nodes.leader(topic, partition).node_id


async def wait_for_leader(
    nodes: RunningNodes, topic: str, partition: int, other_than: int | None, timeout_s: float
) -> int | Unmet:
    """The node that leads, once one other than this does and serves."""

    async def look() -> int | None:
        node, _ = await nodes.led(topic, partition)
        return None if node.node_id == other_than else node.node_id

    found = await nodes.until(look, (topic,), timeout_s)
    if found is not None:
        return found
    but = "" if other_than is None else f" other than node {other_than}"
    return Unmet(
        f"Partition {topic}-{partition} had no leader{but} after {timeout_s:g} s: "
        f"{_shown(nodes, topic, partition)}."
    )


async def isr(nodes: RunningNodes, topic: str, partition: int) -> tuple[int, ...]:
    """The nodes that are in sync. KafkaError."""
    nodes.check_exists(topic, partition)
    return tuple(sorted(_state(nodes, topic, partition).isr))


async def wait_for_isr(
    nodes: RunningNodes, topic: str, wanted: tuple[int, ...] | None, partition: int | None, timeout_s: float
) -> bool | Unmet:
    """Return once exactly these nodes are in sync; None: all replicas."""

    def indexes() -> range:
        count = nodes.check_exists(topic, partition)
        return range(count) if partition is None else range(partition, partition + 1)

    async def look() -> bool | None:
        for index in indexes():
            state = _state(nodes, topic, index)
            if set(state.isr) != set(state.replicas if wanted is None else wanted):
                return None
        return True

    if await nodes.until(look, (topic,), timeout_s):
        return True
    what = "all replicas" if wanted is None else f"exactly the nodes {_list(wanted)}"
    return Unmet(
        f"The ISR of {topic!r} was not {what} after {timeout_s:g} s: "
        + "; ".join(_shown(nodes, topic, index) for index in indexes())
        + f". The nodes that run are {_list(tuple(sorted(nodes.nodes)))}."
    )


async def controller(nodes: RunningNodes) -> int:
    """The controller, as the newest image has it."""
    return nodes.image.controller_id


def _state(nodes: RunningNodes, topic: str, partition: int) -> PartitionState:
    return nodes.image.topics[topic].partitions[partition]


def _shown(nodes: RunningNodes, topic: str, partition: int) -> str:
    nodes.check_exists(topic, partition)
    state = _state(nodes, topic, partition)
    held = f"ISR {_list(state.isr)}, replicas {_list(state.replicas)}"
    return f"{topic}-{partition} has leader {state.leader}, {held}"


def _list(node_ids: tuple[int, ...]) -> str:
    return ",".join(map(str, node_ids)) or "none"
