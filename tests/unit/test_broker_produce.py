"""Produce, InitProducerId, DeleteRecords and epochs against a whole broker: errors and durability."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from admin_support import Client, code, create, new_topic, run

from ottla.errors import ErrorCode, KafkaError
from ottla.types import Record
from ottla.wire.records import build_batch

EACH_FLUSHED = {"flush.messages": "1"}
BATCH = build_batch([Record(0, 1_000, None, b"v")])


def fields(topic: str, *partitions: int, acks: int = 1, records: bytes | None = BATCH) -> dict[str, Any]:
    data = [{"index": index, "records": records} for index in partitions]
    topics = [{"name": topic, "partition_data": data}]
    return {"transactional_id": None, "acks": acks, "timeout_ms": 1_000, "topic_data": topics}


def answers(answer: dict[str, Any]) -> list[tuple[int, str, int]]:
    return [
        (one["index"], code(one), one["base_offset"])
        for topic in answer["responses"]
        for one in topic["partition_responses"]
    ]


@pytest.mark.parametrize("version", [3, 9, 12])
def test_each_partition_fails_or_succeeds_on_its_own(tmp_path: Path, version: int) -> None:
    async def body(client: Client) -> None:
        await create(client, new_topic("t", 2))
        answer = await client.ask("Produce", version, fields("t", 0, 7, 1, 0))
        unknown = (7, "unknown_topic_or_partition", -1)
        assert answers(answer) == [(0, "none", 0), unknown, (1, "none", 0), (0, "none", 1)]
        for acks in (2, -2):
            answer = await client.ask("Produce", version, fields("t", 0, acks=acks))
            assert answers(answer) == [(0, "invalid_required_acks", -1)]
        for records in (b"", None, BATCH + BATCH):
            answer = await client.ask("Produce", version, fields("t", 0, 1, records=records))
            assert answers(answer) == [(0, "invalid_record", -1), (1, "invalid_record", -1)]
        answer = await client.ask("Produce", version, fields("t", 0, acks=-1))
        assert answers(answer) == [(0, "none", 2)]

    run(tmp_path, body)


def test_a_flush_that_fails_fails_its_own_partition_only(tmp_path: Path) -> None:
    """What the client is told has failed it sends again."""

    async def body(client: Client) -> None:
        await create(client, new_topic("t", 3, configs=EACH_FLUSHED))
        log = client.node.services.replicas.get("t", 1).log

        def fail(*_: object) -> None:
            raise KafkaError(ErrorCode.kafka_storage_error)

        flush, log.flush = log.flush, fail  # type: ignore[method-assign]
        answer = await client.ask("Produce", 9, fields("t", 0, 1, 2))
        assert answers(answer) == [(0, "none", 0), (1, "kafka_storage_error", -1), (2, "none", 0)]
        log.flush = flush  # type: ignore[method-assign]
        assert answers(await client.ask("Produce", 9, fields("t", 1))) == [(1, "none", 1)]

    run(tmp_path, body)


def test_what_nobody_waits_for_is_flushed_as_well(tmp_path: Path) -> None:
    async def body(client: Client) -> None:
        await create(client, new_topic("t", configs=EACH_FLUSHED))
        log = client.node.services.replicas.get("t", 0).log
        client.send("Produce", 9, fields("t", 0, acks=0))
        while not log.recovery_point:
            await asyncio.sleep(0.001)
        assert log.recovery_point == log.log_end_offset == 1

    run(tmp_path, body)


def test_an_acks_0_produce_that_fails_ends_the_connection(tmp_path: Path) -> None:
    async def body(client: Client) -> None:
        client.send("Produce", 9, fields("nowhere", 0, acks=0))
        with pytest.raises(asyncio.IncompleteReadError):
            await client.ask("ApiVersions", 0)

    run(tmp_path, body)


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({}, "none"),
        ({"producer_id": 7, "producer_epoch": 3}, "none"),
        ({"producer_id": 7}, "invalid_request"),
        ({"producer_epoch": 7}, "invalid_request"),
        ({"transactional_id": ""}, "invalid_request"),
        ({"transactional_id": "t"}, "unsupported_version"),
    ],
)
def test_producer_ids(tmp_path: Path, asked: dict[str, Any], expected: str) -> None:
    async def body(client: Client) -> None:
        common = {"transactional_id": None, "transaction_timeout_ms": 1000}
        given = common | {"producer_id": -1, "producer_epoch": -1} | asked
        first, second = [await client.ask("InitProducerId", 4, given) for _ in range(2)]
        assert code(first) == expected
        assert (first["producer_id"] < second["producer_id"]) is (expected == "none")

    run(tmp_path, body)


def test_records_of_internal_topics_cannot_be_deleted(tmp_path: Path) -> None:
    async def body(client: Client) -> None:
        await client.ask("FindCoordinator", 4, {"key_type": 0, "coordinator_keys": ["g"]})
        await create(client, new_topic("t"))
        topics = [
            {"name": name, "partitions": [{"partition_index": 0, "offset": -1}]}
            for name in ("__consumer_offsets", "t")
        ]
        answer = await client.ask("DeleteRecords", 2, {"topics": topics, "timeout_ms": 1000})
        codes = [code(partition) for topic in answer["topics"] for partition in topic["partitions"]]
        assert codes == ["invalid_topic_exception", "none"]

    run(tmp_path, body)


def test_the_latest_offset_and_its_epoch_agree_on_an_empty_topic(tmp_path: Path) -> None:
    """A consumer that begins at the end validates the epoch it was told before the first record comes."""

    async def body(client: Client) -> None:
        await create(client, new_topic("t"))
        asked = {"partition_index": 0, "current_leader_epoch": -1, "timestamp": -1}
        request = {
            "replica_id": -1,
            "isolation_level": 0,
            "topics": [{"name": "t", "partitions": [asked]}],
        }
        latest = (await client.ask("ListOffsets", 7, request))["topics"][0]["partitions"][0]
        assert (latest["offset"], latest["leader_epoch"]) == (0, 0)
        epoch = {"partition": 0, "current_leader_epoch": 0, "leader_epoch": latest["leader_epoch"]}
        request = {"replica_id": -1, "topics": [{"topic": "t", "partitions": [epoch]}]}
        answer = await client.ask("OffsetForLeaderEpoch", 4, request)
        found = answer["topics"][0]["partitions"][0]
        assert (code(found), found["leader_epoch"], found["end_offset"]) == ("none", 0, 0)

    run(tmp_path, body)
