"""Consumer groups of a broker or a cluster for tests, on the event loop of the nodes."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

from ottla.errors import ErrorCode, KafkaError
from ottla.metadata.image import OFFSETS_TOPIC
from ottla.testing import topics
from ottla.testing.names import did_you_mean, listed
from ottla.testing.running import RunningNodes
from ottla.testing.topics import Unmet as Unmet
from ottla.types import TopicPartition

NO_GROUP = ("Dead", 0)
# Nothing is left to be deleted, or somebody has come meanwhile.
_DELETED = (ErrorCode.none, ErrorCode.non_empty_group, ErrorCode.group_id_not_found)


async def groups(nodes: RunningNodes) -> dict[str, tuple[str, int]]:
    """The state of each group, and how many members it has, once all coordinators are loaded."""
    return await nodes.served(partial(groups_now, nodes))


async def groups_now(nodes: RunningNodes) -> dict[str, tuple[str, int]]:
    """The same. KafkaError while a coordinator is moving or being loaded."""
    nodes.check_served(OFFSETS_TOPIC)
    found = {}
    for node in nodes.nodes.values():
        coordinator = node.services.groups
        for listed_group in coordinator.list_groups((), ()):
            name = listed_group.group_id
            found[name] = (listed_group.state, coordinator.member_count(name))
    return dict(sorted(found.items()))


async def committed(nodes: RunningNodes, group: str) -> dict[TopicPartition, int]:
    """The offsets that a group has committed, once its coordinator is loaded."""
    return await nodes.served(partial(committed_now, nodes, group))


async def committed_now(nodes: RunningNodes, group: str) -> dict[TopicPartition, int]:
    """The same. KafkaError while its coordinator is moving or being loaded."""
    node = await nodes.coordinator(OFFSETS_TOPIC, group)
    if node is None:
        return {}
    found = node.services.groups.fetch(group, None, require_stable=False)
    return {TopicPartition(t.topic, p.partition): p.offset for t in found for p in t.partitions}


async def delete_empty(nodes: RunningNodes) -> None:
    """Delete each group that has no members, once all coordinators are loaded."""
    await nodes.served(partial(_delete_empty, nodes))


async def _delete_empty(nodes: RunningNodes) -> None:
    nodes.check_served(OFFSETS_TOPIC)
    for node in nodes.nodes.values():
        coordinator = node.services.groups
        for one in list(coordinator.list_groups((), ())):
            if not coordinator.member_count(one.group_id):
                deleted = await coordinator.delete_group(one.group_id)
                if deleted.error not in _DELETED:
                    raise KafkaError(deleted.error)


async def wait_for_group(nodes: RunningNodes, group: str, members: int, timeout_s: float) -> bool | Unmet:
    """Return once a group has so many members, and each its partitions."""

    async def look() -> bool | None:
        state, count = (await groups_now(nodes)).get(group, NO_GROUP)
        return True if count == members and (state == "Stable" or not members) else None

    if await nodes.until(look, (OFFSETS_TOPIC,), timeout_s):
        return True
    try:
        found = await groups_now(nodes)
    except KafkaError as error:
        return Unmet(f"Group {group!r} could not be looked at after {timeout_s:g} s: {error.text}")
    if group not in found:
        there = f" The groups are {listed(found)}." if found else " There is no group."
        near = did_you_mean(group, found)
        return Unmet(f"There was no group {group!r} after {timeout_s:g} s.{near or there}")
    state, count = found[group]
    return Unmet(
        f"Group {group!r} had {count} members and was {state} after {timeout_s:g} s; it was to be Stable "
        f"with {members}."
    )


async def wait_until_consumed(
    nodes: RunningNodes, group: str, topic: str | None, timeout_s: float
) -> bool | Unmet:
    """Return once a group has committed up to the ends of the partitions."""

    async def look() -> bool | None:
        offsets = await committed_now(nodes, group)
        names = {each.topic for each in offsets} if topic is None else {topic}
        if not names:
            return None
        for name in sorted(names):
            for index in range(nodes.check_exists(name)):
                if await _left(nodes, name, index, offsets.get(TopicPartition(name, index), -1)):
                    return None
        return True

    watched = (OFFSETS_TOPIC,) if topic is None else (OFFSETS_TOPIC, topic)
    if await nodes.until(look, watched, timeout_s):
        return True
    return Unmet(await _behind(nodes, group, topic, timeout_s))


async def _left(nodes: RunningNodes, topic: str, index: int, offset: int) -> int:
    """How many records a group that is at an offset has yet to consume; -1 is before all."""
    _, replica = await nodes.led(topic, index)
    if offset >= replica.high_watermark:
        return 0
    # What is left may be ends of transactions, which no consumer gets.
    found = await topics.records(nodes, topic, index, True)
    return sum(record.offset >= offset for record in found)


async def _behind(nodes: RunningNodes, group: str, topic: str | None, timeout_s: float) -> str:
    what = "its topics" if topic is None else repr(topic)
    says = f"Group {group!r} had not consumed {what} after {timeout_s:g} s"
    try:
        offsets = await committed_now(nodes, group)
        names: Iterable[str] = {each.topic for each in offsets} if topic is None else {topic}
        lines = [
            await _place(nodes, name, index, offsets.get(TopicPartition(name, index)))
            for name in sorted(names)
            for index in range(nodes.check_exists(name))
        ]
        known = await groups_now(nodes)
    except KafkaError as error:
        return f"{says}: {error.text}"
    if not offsets:
        near = "" if group in known else did_you_mean(group, known)
        there = f" The groups are {listed(known)}." if known else " There is no group."
        lines.append(f"the group has committed nothing.{near or there}")
    return f"{says}: " + "; ".join(lines)


async def _place(nodes: RunningNodes, topic: str, index: int, offset: int | None) -> str:
    left = await _left(nodes, topic, index, -1 if offset is None else offset)
    _, replica = await nodes.led(topic, index)
    at = "nothing is committed" if offset is None else f"{offset} is committed"
    return f"{topic}-{index}: {at}, the end is {replica.high_watermark}, {left} records are left"
