"""The control port's endpoints for consumer groups: what they have committed, and waiting for them."""

from __future__ import annotations

from functools import partial

from ottla.metadata.image import OFFSETS_TOPIC
from ottla.observe.http import Response
from ottla.testing import groups as of_groups
from ottla.testing.control.asked import Asked
from ottla.testing.control.errors import meant, shown, timed_out
from ottla.testing.control.reading import has_more
from ottla.testing.control.values import answer, answer_list
from ottla.types import TopicPartition

MEMBERS_MAX = 10_000
# Partitions that an error names.
NAMED_MAX = 10


async def all_groups(asked: Asked) -> Response:
    asked.fields.end()
    found = await of_groups.groups(asked.nodes)
    shown_all = [{"group": name, "state": state, "members": count} for name, (state, count) in found.items()]
    return await asked.aside(partial(answer_list, "groups", shown_all))


async def offsets(asked: Asked) -> Response:
    asked.fields.end()
    found = await of_groups.committed(asked.nodes, asked.path["group"])
    committed = (
        {"topic": where.topic, "partition": where.partition, "offset": offset}
        for where, offset in sorted(found.items())
    )
    return await asked.aside(partial(answer_list, "offsets", committed))


async def wait_for_group(asked: Asked) -> Response:
    """Until it has so many members, where ``members`` is given; or else until it has consumed all."""
    fields, group, timeout_s = asked.fields, asked.path["group"], asked.timeout_s()
    if fields.has("members"):
        members = fields.whole("members", 0, MEMBERS_MAX)
        fields.end()
        found = await of_groups.wait_for_group(asked.nodes, group, members, timeout_s)
        if isinstance(found, of_groups.Unmet):
            raise timed_out(found.message)
        return answer({"group": group, "members": members})
    topic = fields.text_or_none("topic")
    fields.end()

    async def look() -> bool | None:
        return None if await _behind(asked, group, topic) else True

    watched = (OFFSETS_TOPIC,) if topic is None else (OFFSETS_TOPIC, topic)
    if not await asked.nodes.until(look, watched, timeout_s):
        raise timed_out(await _why(asked, group, topic, timeout_s))
    return answer({"group": group, "consumed": True})


async def _behind(asked: Asked, group: str, topic: str | None) -> list[tuple[TopicPartition, int]]:
    """The partitions that it has not consumed up to their ends, with the offset that it has committed, or -1.
    KafkaError where a topic does not exist. Without a topic: all that it has committed offsets of; if there
    are none, it is behind with an unknown one."""
    committed = await of_groups.committed_now(asked.nodes, group)
    names = sorted({where.topic for where in committed} if topic is None else {topic})
    if not names:
        return [(TopicPartition("", 0), -1)]
    behind = []
    for name in names:
        for index in range(asked.nodes.check_exists(name)):
            where = TopicPartition(name, index)
            offset = committed.get(where, -1)
            if await has_more(asked.node, where, offset):
                behind.append((where, offset))
    return behind


async def _why(asked: Asked, group: str, topic: str | None, timeout_s: float) -> str:
    what = "all topics that it reads" if topic is None else f"the topic {shown(topic)}"
    says = f"The group {shown(group)} has not consumed {what} after {timeout_s:g} s."
    known = await of_groups.groups_now(asked.nodes)
    if group not in known:
        return f"{says} There is no such group. {meant(group, known)}"
    behind = await _behind(asked, group, topic)
    named = [f"{where} from {max(offset, 0)}" for where, offset in behind[:NAMED_MAX] if where.topic]
    return (
        f"{says} Records are left in: {', '.join(named)}." if named else f"{says} It has committed nothing."
    )
