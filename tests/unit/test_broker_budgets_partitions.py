"""Ten thousand partitions: whatever is asked about them, no step of the event loop takes more than 20 ms."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from budget_support import Watch, longest_step

from measuring import Attempt, cpu_at_most
from ottla.broker.api.records.list_offsets import LATEST
from ottla.errors import KafkaError
from ottla.node import Node, NodeSettings
from ottla.wire.apis import BY_NAME
from ottla.wire.messages import decode_response, frame_request, read_response_header

COUNT = 10_000
# What a request may name, and with the topic around it.
NAMED = BY_NAME["DeleteRecords"].elements_max - 10
STEP_S_MAX = 0.020
# See ``test_broker_budgets``: a machine with other work is slower, in CPU seconds too. Most of this cannot be
# done twice, so that another attempt begins with another node.
ROOM = 1.5
ATTEMPTS_MAX = 3


@asynccontextmanager
async def node(path: Path) -> AsyncIterator[Node]:
    made = Node(NodeSettings(data=str(path / "data"), port=0))
    await made.start()
    try:
        yield made
    finally:
        # In haste: an orderly end closes each log.
        await made.kill()


class Longest:
    """The longest step of a request and of what comes of it, by what was asked."""

    def __init__(self, node: Node, attempt: Attempt) -> None:
        self.node = node
        self._attempt = attempt

    async def ask(self, what: str, api: str, version: int, fields: dict[str, Any]) -> Any:
        key = BY_NAME[api].key
        longest_s, data = await longest_step(self.node, frame_request(key, version, 1, "client", fields)[4:])
        self._attempt.took(longest_s, f"{api} {what}")
        return decode_response(key, version, data, read_response_header(key, version, data[4:])[1] + 4)

    async def gone(self, partitions: int) -> None:
        """Wait until there are only so many partitions left, and look at what that takes."""
        gc.disable()
        try:
            with Watch() as watch:
                await settled(self.node, partitions)
        finally:
            gc.enable()
        self._attempt.took(watch.longest_s, "removal")


async def settled(node: Node, partitions: int) -> None:
    """Wait until there are so many partitions, all open."""
    replicas, logs = node.services.replicas, node.services.log_manager.logs
    async with asyncio.timeout(100):
        while len(replicas.partitions) != partitions or len(logs) != partitions:
            await asyncio.sleep(0.05)


def new(name: str, count: int) -> dict[str, Any]:
    topic = {"name": name, "num_partitions": count, "replication_factor": 1, "assignments": (), "configs": ()}
    return {"topics": [topic], "timeout_ms": 5_000, "validate_only": False}


def altered(kind: int, name: str, key: str, value: str) -> dict[str, Any]:
    change = {"name": key, "config_operation": 0, "value": value}
    resource = {"resource_type": kind, "resource_name": name, "configs": [change]}
    return {"resources": [resource], "validate_only": False}


def numbered(make: Callable[[int], Any]) -> list[Any]:
    return [make(index) for index in range(NAMED)]


def test_no_request_about_them_holds_the_loop(tmp_path: Path) -> None:
    """Made, changed, described, moved, deleted: the topic, its partitions, what the broker has for all."""

    async def main(attempt: Attempt, data: Path) -> None:
        async with node(data) as made:
            longest = Longest(made, attempt)
            answer = await longest.ask("of many", "CreateTopics", 7, new("t", COUNT))
            assert answer.topics[0].error_code == 0
            await settled(made, COUNT)
            for kind, name, key in (
                (2, "t", "retention.ms"),
                (2, "t", "leader.replication.throttled.replicas"),
                (4, "", "log.retention.ms"),
                (4, "1", "log.segment.bytes"),
            ):
                value = "*" if key.endswith("replicas") else "2000000"
                answer = await longest.ask(
                    f"of {key}", "IncrementalAlterConfigs", 1, altered(kind, name, key, value)
                )
                assert answer.responses[0].error_code == 0
            # In force for the first and the last when that is answered.
            configs = [made.services.replicas.get("t", index).log.config for index in (0, COUNT - 1)]
            assert {(one.retention_ms, one.segment_bytes) for one in configs} == {(2_000_000, 2_000_000)}
            await about_partitions(longest)
            answer = await longest.ask("of one", "CreateTopics", 7, new("m", 1))
            fields = {
                "topics": [{"name": "m", "count": 2_000, "assignments": None}],
                "timeout_ms": 5_000,
                "validate_only": False,
            }
            answer = await longest.ask("to many", "CreatePartitions", 3, fields)
            assert answer.results[0].error_code == 0
            await settled(made, COUNT + 2_000)
            fields = {"topics": [{"name": "t", "topic_id": None}], "timeout_ms": 5_000}
            answer = await longest.ask("of many", "DeleteTopics", 6, fields)
            assert answer.responses[0].error_code == 0
            with pytest.raises(KafkaError):
                made.services.replicas.get("t", COUNT - 1)
            await longest.gone(2_000)

    for number, attempt in enumerate(cpu_at_most(STEP_S_MAX, room=ROOM, attempts=ATTEMPTS_MAX)):
        asyncio.run(main(attempt, tmp_path / str(number)))


async def about_partitions(longest: Longest) -> None:
    """Each API that names partitions, with as many as it takes."""
    everything = {"name": "t", "partition_indexes": list(range(NAMED))}
    offsets = {"replica_id": -1, "isolation_level": 0}
    await longest.ask("latest", "ListOffsets", 8, offsets | {"topics": [of_topic(LATEST)]})
    await longest.ask("by time", "ListOffsets", 8, offsets | {"topics": [of_topic(5)]})
    epochs = numbered(lambda index: {"partition": index, "current_leader_epoch": -1, "leader_epoch": 0})
    topics = [{"topic": "t", "partitions": epochs}]
    await longest.ask("", "OffsetForLeaderEpoch", 4, {"replica_id": -2, "topics": topics})
    await longest.ask("", "DescribeProducers", 0, {"topics": [everything]})
    page = {"topics": [{"name": "t"}], "response_partition_limit": 2_000, "cursor": None}
    await longest.ask("", "DescribeTopicPartitions", 0, page)
    for topics in (None, [everything]):
        await longest.ask("", "ListPartitionReassignments", 0, {"timeout_ms": 5_000, "topics": topics})
    named = [{"topic": "t", "partitions": list(range(NAMED))}]
    for kind, elected in ((0, None), (0, named), (1, named)):
        fields = {"election_type": kind, "topic_partitions": elected, "timeout_ms": 5_000}
        await longest.ask(f"kind {kind}", "ElectLeaders", 2, fields)
    for replicas, count in (([1], NAMED // 2), (None, NAMED)):
        moved = [{"partition_index": index, "replicas": replicas} for index in range(count)]
        topics = [{"name": "t", "partitions": moved}]
        fields = {"timeout_ms": 5_000, "allow_replication_factor_change": True, "topics": topics}
        await longest.ask(f"to {replicas}", "AlterPartitionReassignments", 1, fields)
    deleted = numbered(lambda index: {"partition_index": index, "offset": -1})
    topics = [{"name": "t", "partitions": deleted}]
    await longest.ask("", "DeleteRecords", 2, {"timeout_ms": 5_000, "topics": topics})
    await longest.ask("", "DescribeLogDirs", 4, {"topics": None})


def of_topic(timestamp: int) -> dict[str, Any]:
    asked = {"current_leader_epoch": -1, "timestamp": timestamp}
    return {"name": "t", "partitions": numbered(lambda index: asked | {"partition_index": index})}


def test_many_topics_are_made_and_deleted_a_few_at_a_time(tmp_path: Path) -> None:
    """As one Metadata asks for, and many at once that somebody deletes."""

    async def main(attempt: Attempt, data: Path) -> None:
        async with node(data) as made:
            longest = Longest(made, attempt)
            fields = {
                "topics": [{"name": f"auto-{number}", "topic_id": None} for number in range(200)],
                "allow_auto_topic_creation": True,
                "include_topic_authorized_operations": False,
            }
            answer = await longest.ask("that makes topics", "Metadata", 12, fields)
            assert {topic.error_code for topic in answer.topics} == {0}
            await settled(made, 200)
            fields = {
                "topics": [{**topic, "topic_id": None} for topic in fields["topics"]],
                "timeout_ms": 5_000,
            }
            answer = await longest.ask("of 200", "DeleteTopics", 6, fields)
            assert {one.error_code for one in answer.responses} == {0}
            await longest.gone(0)

    for number, attempt in enumerate(cpu_at_most(STEP_S_MAX, room=ROOM, attempts=ATTEMPTS_MAX)):
        asyncio.run(main(attempt, tmp_path / str(number)))
