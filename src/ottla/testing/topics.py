"""Topics of a broker or a cluster for tests, and the records in them, on the event loop of the nodes."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from ottla.config import TOPIC
from ottla.errors import ErrorCode, KafkaError
from ottla.metadata.image import TopicImage
from ottla.metadata.topics import NewTopic
from ottla.replication.partition import Partition
from ottla.testing import contents
from ottla.testing.contents import StoredRecord
from ottla.testing.names import did_you_mean
from ottla.testing.running import RunningNodes

# How long a change of a topic may take to be known to all nodes.
SPREAD_S_MAX = 20.0
# As many of the records that came are shown where too few came.
SHOWN_MAX = 5


class Unmet(NamedTuple):
    """What was waited for did not come in time; ``message`` says what there is."""

    message: str


async def topics(nodes: RunningNodes) -> dict[str, int]:
    """The topics that are not internal, with their numbers of partitions."""
    return contents.topics(nodes.any)


async def create(
    nodes: RunningNodes, name: str, partitions: int, replication_factor: int, configs: Mapping[str, str]
) -> None:
    """Create a topic; each partition has a leader when this returns. KafkaError."""
    for setting in configs:
        if setting not in TOPIC:
            near = did_you_mean(setting, TOPIC)
            raise KafkaError(ErrorCode.invalid_config, f"{setting!r} is no configuration of topics.{near}")
    new = NewTopic(name, partitions, replication_factor, configs=configs)
    (result,) = await nodes.any.services.metadata.controller.create_topics([new])
    if result.error is not None:
        raise result.error
    await ready(nodes, [name])


async def ready(nodes: RunningNodes, names: Iterable[str]) -> None:
    """Return once all nodes that run know the topics, and their leaders lead. TimeoutError."""
    wanted = list(names)

    async def look() -> bool | None:
        for name in wanted:
            if any(name not in node.services.metadata.image.topics for node in nodes.nodes.values()):
                return None
            for index in range(nodes.check_exists(name)):
                await nodes.led(name, index)
        return True

    if await nodes.until(look, wanted, SPREAD_S_MAX) is None:
        raise TimeoutError(f"not all partitions of {wanted} had leaders after {SPREAD_S_MAX:g} s")


async def delete(nodes: RunningNodes, name: str) -> None:
    """Delete a topic; no node that runs knows it when this returns. KafkaError."""
    nodes.check_exists(name)
    node = nodes.any
    topic = node.services.metadata.image.topics[name]
    (error,) = await node.services.metadata.controller.delete_topics([topic.topic_id])
    if error is not None:
        raise error
    await _gone(nodes, topic)


async def _gone(nodes: RunningNodes, topic: TopicImage) -> None:
    async def look() -> bool | None:
        images = [node.services.metadata.image for node in nodes.nodes.values()]
        return None if any(topic.topic_id in image.topics_by_id for image in images) else True

    if await nodes.until(look, (), SPREAD_S_MAX) is None:
        raise TimeoutError(f"topic {topic.name!r} was still there after {SPREAD_S_MAX:g} s")


async def delete_records(nodes: RunningNodes, topic: str, partition: int | None) -> None:
    """Have the partitions begin at their high watermarks. KafkaError."""
    for index in _indexes(nodes, topic, partition):
        node, replica = await nodes.led(topic, index)
        replica.log.advance_log_start(replica.high_watermark)
        await node.services.log_manager.checkpoint_log_starts()


async def append(nodes: RunningNodes, topic: str, partition: int, batch: bytes) -> int:
    """Append a batch with acks=all; its first offset once it is committed. KafkaError as a Produce."""
    node, replica = await nodes.led(topic, partition)
    appended = replica.append(batch, now_ms=node.services.clock.now_ms(), acks=-1)
    if replica.high_watermark <= appended.last_offset:
        await _committed(replica, appended.last_offset + 1)
    return appended.base_offset


async def _committed(replica: Partition, offset: int) -> None:
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def committed(error: KafkaError | None) -> None:
        if future.done():
            return
        if error is None:
            future.set_result(None)
        else:
            future.set_exception(error)

    replica.when_committed(offset, committed)
    await future


def _indexes(nodes: RunningNodes, topic: str, partition: int | None) -> Iterable[int]:
    count = nodes.check_exists(topic, partition)
    return range(count) if partition is None else (partition,)


async def records(
    nodes: RunningNodes, topic: str, partition: int | None, read_committed: bool
) -> list[StoredRecord]:
    """The records up to the high watermarks, with ``read_committed`` up to the last stable offsets.
    KafkaError."""
    found: list[StoredRecord] = []
    for index in _indexes(nodes, topic, partition):
        node, _ = await nodes.led(topic, index)
        found += await contents.records(node, topic, index, read_committed)
    return found


async def wait_for_records(
    nodes: RunningNodes,
    topic: str,
    partition: int | None,
    read_committed: bool,
    count: int,
    timeout_s: float,
) -> list[StoredRecord] | Unmet:
    """All records of a topic once there are ``count``; Unmet after ``timeout_s``."""

    async def look() -> list[StoredRecord] | None:
        # Offsets are cheap to look at, and there are no more records than offsets.
        offsets = 0
        for index in _indexes(nodes, topic, partition):
            _, replica = await nodes.led(topic, index)
            offsets += replica.high_watermark - replica.log.log_start_offset
        if offsets < count:
            return None
        found = await records(nodes, topic, partition, read_committed)
        return found if len(found) >= count else None

    found = await nodes.until(look, (topic,), timeout_s)
    return (
        Unmet(await _missing(nodes, topic, partition, read_committed, count, timeout_s))
        if found is None
        else found
    )


async def _missing(
    nodes: RunningNodes,
    topic: str,
    partition: int | None,
    read_committed: bool,
    count: int,
    timeout_s: float,
) -> str:
    where = repr(topic) if partition is None else f"partition {partition} of {topic!r}"
    try:
        found = await records(nodes, topic, partition, read_committed)
    except KafkaError as error:
        return f"no record of {where} could be read after {timeout_s:g} s: {error.text}"
    says = f"{len(found)} of {count} records of {where} were there after {timeout_s:g} s"
    shown = [f"{one.partition}-{one.offset}: {_short(one.value)}" for one in found[-SHOWN_MAX:]]
    before = ["..."] if len(found) > SHOWN_MAX else []
    says += "; partition-offset: value are " + ", ".join(before + shown) if found else ""
    if read_committed and (hidden := len(await records(nodes, topic, partition, False)) - len(found)):
        says += f"; {hidden} more are of transactions that are aborted or open"
    return says + "."


def _short(value: bytes | None) -> str:
    return "None" if value is None else repr(value if len(value) <= 40 else value[:40] + b"...")
