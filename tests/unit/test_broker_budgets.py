"""The largest request of each API that is accepted holds the event loop for 20 ms at most, step by step."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from budget_support import Watch, ask, largest, longest_step

from measuring import cpu_at_most
from ottla.broker.large import AT_ONCE_MAX
from ottla.broker.memory import UNSENT_BYTES_MAX
from ottla.broker.request import CloseConnection
from ottla.env.slices import Slices
from ottla.node import Node, NodeSettings
from ottla.security.acl import Authorizer
from ottla.types import Record
from ottla.wire.apis import APIS, FEW, Api
from ottla.wire.fields import ZERO, Field
from ottla.wire.messages import frame_request
from ottla.wire.records import build_batch, iter_batches, iter_records

BATCH = build_batch([Record(0, 1_000, None, b"v")])
STEP_S_MAX = 0.020
# A machine that runs other tests meanwhile is slower, in its CPU seconds too.
ROOM = 1.5
TOPICS = 50

LARGE = [api for api in APIS.values() if api.elements_max > FEW]


def value(kind: str, field: Field, number: int) -> Any:
    """A field's value where all that is asked for is unknown, known, or always the same known thing."""
    name = field.name
    if field.kind == "string":
        if name == "configuration_keys":
            return f"key-{number}"
        if field.nullable and not field.array and name not in ("name", "topic", "entity_name"):
            return None
        if name in ("entity_type", "key"):
            return {"entity_type": "user", "key": "producer_byte_rate"}[name]
        made = {"unknown": f"none-{number}", "known": f"t-{number % TOPICS}", "same": "t-0"}[kind]
        return f"User:{made}" if name == "principal" else made
    if field.kind == "uuid":
        return uuid.UUID(int=number + 1 if kind == "unknown" else 0)
    if field.kind in ("bytes", "records"):
        return b""
    if field.kind in ("bool", "float64"):
        return 1.0 if name == "value" else ZERO[field.kind]
    if name in ("partition", "partition_index", "partitions", "partition_indexes", "partition_id", "index"):
        return number if kind == "unknown" else 0
    if name in ("broker_ids", "replicas"):
        return number
    special = {
        "num_partitions": 1, "replication_factor": 1, "acks": 1, "resource_type": 2, "count": 2,
        "timestamp": -1, "replica_id": -1, "session_epoch": -1, "timeout_ms": 100, "current_leader_epoch": -1,
        "response_partition_limit": 2_000, "resource_type_filter": 2, "pattern_type_filter": 3,
        "resource_pattern_type": 3, "operation": 3, "permission_type": 3, "mechanism": 1, "iterations": 4_096,
    }  # fmt: skip
    return special.get(name, 0)


@asynccontextmanager
async def node_with_topics(path: Path, topics: int = TOPICS, partitions: int = 1) -> AsyncIterator[Node]:
    """A node in which nothing runs but what a test asks for."""
    properties = {"auto.create.topics.enable": "false"}
    node = Node(NodeSettings(data=str(path / "data"), port=0, properties=properties))
    await node.start()
    node.services.authorizer = Authorizer()
    try:
        new = [
            {
                "name": f"t-{i}",
                "num_partitions": partitions,
                "replication_factor": 1,
                "assignments": (),
                "configs": (),
            }
            for i in range(topics)
        ]
        await ask(node, "CreateTopics", 5, {"topics": new, "timeout_ms": 5_000, "validate_only": False})
        yield node
    finally:
        await node.stop()


async def check_steps(node: Node, frame: bytes, name: str) -> None:
    """No step of a request takes long."""
    for attempt in cpu_at_most(STEP_S_MAX, room=ROOM):
        attempt.took((await longest_step(node, frame))[0], name)


@pytest.mark.parametrize("api", LARGE, ids=lambda api: api.name)
def test_the_largest_request_holds_the_loop_for_a_moment(tmp_path: Path, api: Api) -> None:
    async def main() -> None:
        async with node_with_topics(tmp_path) as node:
            for kind, version in [
                ("unknown", api.version_max),
                ("known", api.version_max),
                ("same", api.version_max),
                ("unknown", api.version_min),
            ]:
                # Topics of which nothing is asked, too.
                bare = kind == "unknown"
                for name, frame in largest(api, version, partial(value, kind), bare=bare):
                    assert len(frame) <= api.frame_bytes_max, name
                    await check_steps(node, frame, f"{kind} {name}")

    asyncio.run(main())


def metadata(topics: Any) -> dict[str, Any]:
    return {
        "topics": topics,
        "allow_auto_topic_creation": False,
        "include_topic_authorized_operations": True,
    }


def test_a_small_request_with_a_large_answer_is_answered_in_pieces(tmp_path: Path) -> None:
    """All topics, or one with many partitions: the answer is that of the topics one by one."""

    async def main() -> None:
        async with node_with_topics(tmp_path, 3, AT_ONCE_MAX) as node:
            with Watch() as watch:
                answer = await ask(node, "Metadata", 12, metadata(None))
                assert watch.steps > 3
            single = []
            for index in range(3):
                topics = [{"name": f"t-{index}", "topic_id": None}]
                single += (await ask(node, "Metadata", 12, metadata(topics))).topics
            assert list(answer.topics) == single
            assert [len(topic.partitions) for topic in answer.topics] == [AT_ONCE_MAX] * 3
            by_id = [{"name": None, "topic_id": topic.topic_id} for topic in single]
            assert (await ask(node, "Metadata", 12, metadata(by_id))).topics == answer.topics

    asyncio.run(main())


def test_there_is_no_room_for_large_answers_that_nobody_takes(tmp_path: Path) -> None:
    """They count from when they are made; what is small goes on being answered."""

    async def main() -> None:
        async with node_with_topics(tmp_path, 3, AT_ONCE_MAX) as node:
            memory = node.services.memory
            memory.unsent_bytes = UNSENT_BYTES_MAX - 10_000
            await ask(node, "Metadata", 12, metadata([{"name": "t-0", "topic_id": None}]))
            assert memory.unsent_bytes == UNSENT_BYTES_MAX - 10_000
            wide = metadata([{"name": "x" * 249 + str(i), "topic_id": None} for i in range(2_000)])
            with pytest.raises(CloseConnection, match="no room"):
                await ask(node, "Metadata", 12, wide)
            assert memory.unsent_bytes == UNSENT_BYTES_MAX - 10_000
            memory.unsent_bytes = 0
            assert len((await ask(node, "Metadata", 12, wide)).topics) == 2_000 and not memory.unsent_bytes

    asyncio.run(main())


def test_many_names_are_answered_as_few_are(tmp_path: Path) -> None:
    async def main() -> None:
        async with node_with_topics(tmp_path, 2) as node:
            names = ["t-0", "none", "t-0", "..", "t-1", *(f"none-{i}" for i in range(AT_ONCE_MAX))]
            topics = [{"name": name, "topic_id": None} for name in names]
            answer = await ask(node, "Metadata", 12, metadata(topics))
            few = await ask(node, "Metadata", 12, metadata(topics[:5]))
            assert answer.topics[:4] == few.topics and len(answer.topics) == 4 + AT_ONCE_MAX
            assert [topic.error_code for topic in few.topics] == [0, 3, 17, 0]

    asyncio.run(main())


def test_a_large_request_that_fails_as_a_whole_is_told_of_each_element(tmp_path: Path) -> None:
    async def main() -> None:
        async with node_with_topics(tmp_path, 1) as node:
            count = 10 * AT_ONCE_MAX
            new = [
                {
                    "name": f"new-{i}",
                    "num_partitions": 5,
                    "replication_factor": 1,
                    "assignments": (),
                    "configs": (),
                }
                for i in range(count)
            ]
            fields = {"topics": new, "timeout_ms": 100, "validate_only": True}
            answer = await ask(node, "CreateTopics", 5, fields)
            assert [topic.name for topic in answer.topics] == [topic["name"] for topic in new]
            assert {topic.error_code for topic in answer.topics} == {44}

    asyncio.run(main())


def test_a_large_produce_is_appended_in_order_and_answered_in_full(tmp_path: Path) -> None:
    """What follows it on its connection is handled behind it."""

    async def main() -> None:
        async with node_with_topics(tmp_path, 1, 300) as node:
            data = [{"index": i, "records": BATCH} for i in range(300)]
            fields = {"transactional_id": None, "acks": -1, "timeout_ms": 1_000}
            topic_data = [{"name": "t-0", "partition_data": data}]
            with Watch() as watch:
                answer = await ask(node, "Produce", 9, fields | {"topic_data": topic_data})
                assert watch.steps > 2
            (topic,) = answer.responses
            assert [(p.index, p.error_code, p.base_offset) for p in topic.partition_responses] == [
                (i, 0, 0) for i in range(300)
            ]

    asyncio.run(main())


def produced(batch: bytes, count: int, topic: str = "t-0") -> dict[str, Any]:
    """A Produce of the same batch to so many partitions."""
    data = [{"index": i, "records": batch} for i in range(count)]
    topic_data = [{"name": topic, "partition_data": data}]
    return {"transactional_id": None, "acks": 1, "timeout_ms": 1_000, "topic_data": topic_data}


def test_a_produce_of_many_bytes_is_appended_in_pieces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fewer partitions than are appended to at once, with a megabyte for each."""
    pauses = 0
    pause = Slices.pause

    async def counted(slices: Slices) -> None:
        nonlocal pauses
        pauses += 1
        await pause(slices)

    monkeypatch.setattr(Slices, "pause", counted)

    async def main() -> None:
        nonlocal pauses
        async with node_with_topics(tmp_path, 1, 60) as node:
            batch = build_batch([Record(0, 1_000, None, bytes(1_000_000))])
            frame = frame_request(0, 9, 1, "client", produced(batch, 60))[4:]
            pauses = 0
            await check_steps(node, frame, "Produce")
            assert pauses > 0
            answer = await ask(node, "Produce", 9, produced(batch, 60))
            (topic,) = answer.responses
            assert [(p.index, p.error_code) for p in topic.partition_responses] == [(i, 0) for i in range(60)]

    asyncio.run(main())


def test_what_of_a_produce_has_to_wait_stays_in_its_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where time is up after each partition: one that is named twice gets both batches as they were sent."""
    monkeypatch.setattr("ottla.broker.turn.TURN_MS", 0)

    async def main() -> None:
        async with node_with_topics(tmp_path, 1, 3) as node:
            batches = [build_batch([Record(0, 1_000, None, b"%d" % i)]) for i in range(6)]
            data = [{"index": i % 3, "records": batch} for i, batch in enumerate(batches)]
            fields = produced(b"", 0) | {"topic_data": [{"name": "t-0", "partition_data": data}]}
            answer = await ask(node, "Produce", 9, fields)
            assert [(p.index, p.base_offset) for p in answer.responses[0].partition_responses] == [
                (0, 0), (1, 0), (2, 0), (0, 1), (1, 1), (2, 1)
            ]  # fmt: skip
            for index in range(3):
                log = node.services.replicas.get("t-0", index).log
                piece = log.read(0, 10_000, end_offset=log.log_end_offset)
                assert piece is not None
                written = piece.file.read(piece.position, piece.size)
                values = [record.value for _, one in iter_batches(written) for record in iter_records(one)]
                assert values == [b"%d" % index, b"%d" % (index + 3)]

    asyncio.run(main())
