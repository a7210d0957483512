"""Topics with very many partitions go so that nobody notices, and all of what they had goes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import UUID, uuid4

from admin_support import Client, code, create, new_topic, run

from measuring import HANG_S
from ottla.replication.removals import AT_ONCE_MAX, Removals
from ottla.types import Record, TopicPartition
from ottla.wire.records import build_batch

BATCH = build_batch([Record(0, 1_000, None, b"v")])
COUNT = 2 * AT_ONCE_MAX + 50


async def produce(client: Client, index: int) -> str:
    data = {"name": "t", "partition_data": [{"index": index, "records": BATCH}]}
    fields = {"transactional_id": None, "acks": 1, "timeout_ms": 1_000, "topic_data": [data]}
    answer = await client.ask("Produce", 9, fields)
    return code(answer["responses"][0]["partition_responses"][0])


async def delete(client: Client) -> None:
    answer = await client.ask("DeleteTopics", 5, {"topic_names": ["t"], "timeout_ms": 5_000})
    assert code(answer["responses"][0]) == "none"


def folders(path: Path) -> list[str]:
    return [one.name for one in (path / "data").iterdir() if one.name.startswith("t-")]


def test_nobody_finds_it_any_more_and_all_its_logs_go(tmp_path: Path) -> None:
    async def body(client: Client) -> None:
        await create(client, new_topic("t", COUNT))
        assert await produce(client, COUNT - 1) == "none"
        await delete(client)
        assert await produce(client, COUNT - 1) == "unknown_topic_or_partition"
        async with asyncio.timeout(HANG_S):
            while not all(name.endswith("-delete") for name in folders(tmp_path)):
                await asyncio.sleep(0.01)

    run(tmp_path, body)


def test_one_that_is_made_anew_at_once_has_logs_of_its_own(tmp_path: Path) -> None:
    async def body(client: Client) -> None:
        await create(client, new_topic("t", COUNT))
        assert await produce(client, COUNT - 1) == "none"
        await delete(client)
        assert code((await create(client, new_topic("t", COUNT)))[0]) == "none"
        assert await produce(client, COUNT - 1) == "none"
        logs = client.node.services.log_manager.logs
        topic_id = client.node.services.metadata.image.topics["t"].topic_id
        async with asyncio.timeout(HANG_S):
            while len(logs) < COUNT or any(log.topic_id != topic_id for log in logs.values()):
                await asyncio.sleep(0.01)
        assert logs[TopicPartition("t", COUNT - 1)].log_end_offset == 1
        assert sum(not name.endswith("-delete") for name in folders(tmp_path)) == COUNT

    run(tmp_path, body)


class Logs:
    """Stands for the log manager."""

    def __init__(self, topic_id: UUID) -> None:
        self.logs: dict[TopicPartition, Any] = {}
        self.topic_id = topic_id

    def make(self, count: int) -> list[TopicPartition]:
        made = [TopicPartition("t", index) for index in range(count)]
        self.logs.update(dict.fromkeys(made, self))
        return made

    def delete(self, where: TopicPartition) -> None:
        del self.logs[where]
        if where.partition == 1:
            raise ValueError("unexpected, once")


class Clock:
    def __init__(self) -> None:
        self.later: list[Callable[[], object]] = []

    def call_later(self, delay_ms: float, callback: Callable[[], object]) -> None:
        self.later.append(callback)


def test_so_many_at_a_time_and_all_at_the_end() -> None:
    topic_id = uuid4()
    logs, clock = Logs(topic_id), Clock()
    let_go: list[Any] = []
    removals = Removals(logs, clock, let_go.append)  # type: ignore[arg-type]
    partitions = [SimpleNamespace(topic_partition=where, topic_id=topic_id) for where in logs.make(COUNT)]
    for partition in partitions:
        removals.add(partition)  # type: ignore[arg-type]
    steps = removals.begin()
    next(steps)
    assert let_go == [partitions[-1]]
    # One that is made again does not wait for its turn.
    removals.make_way(partitions[0].topic_partition)
    assert let_go[1:] == [partitions[0]]
    assert sum(1 for _ in steps) == COUNT - 2 and len(let_go) == COUNT
    # Another topic that goes does not make it faster.
    assert not list(removals.begin())
    assert len(logs.logs) == COUNT - AT_ONCE_MAX and len(clock.later) == 1
    clock.later.pop()()
    assert len(logs.logs) == COUNT - 2 * AT_ONCE_MAX
    removals.finish()
    assert not logs.logs
    # What was to go on finds nothing to do.
    clock.later.pop()()
    assert not clock.later
