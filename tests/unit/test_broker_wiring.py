"""What the handlers of Produce and Fetch ask of the parts that they are made of, by what comes of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from admin_support import Client, code, create, new_topic, run
from test_broker_fetch import by_partition, fetch, wants
from test_broker_refusals import batch

from ottla.log.producer_entry import BATCHES_HELD
from ottla.metadata.image import BrokerImage, PartitionState
from ottla.replication.partition import Partition

LEADING = PartitionState(1, 5, 1, (1, 2, 3), (1, 2))
ELSEWHERE = replace(LEADING, leader=2, leader_epoch=6, partition_epoch=2)


async def produce(client: Client, records: bytes, *, version: int = 10, acks: int = 1) -> dict[str, Any]:
    data = {"name": "t", "partition_data": [{"index": 0, "records": records}]}
    fields = {"transactional_id": None, "acks": acks, "timeout_ms": 1_000, "topic_data": [data]}
    return await client.ask("Produce", version, fields)


async def produced(client: Client, records: bytes, *, acks: int = 1) -> str:
    answer = await produce(client, records, acks=acks)
    return code(answer["responses"][0]["partition_responses"][0])


async def leading(client: Client) -> Partition:
    await create(client, new_topic("t"))
    it = client.node.services.replicas.get("t", 0)
    it.apply(LEADING)
    return it


def heard_from(client: Client, it: Partition, ago_ms: int) -> None:
    """Follower 2 has fetched so long ago."""
    assert it.leading is not None
    it.leading.followers[2]._fetched_ms = client.node.services.clock.monotonic_ms() - ago_ms


def test_a_gap_ends_a_producer_only_where_the_leader_is_followed(tmp_path: Path) -> None:
    async def body(client: Client) -> None:
        it = await leading(client)
        # As many as a client has in flight: what it sent to the leader before has come by now.
        for sequence in range(BATCHES_HELD):
            assert await produced(client, batch(sequence)) == "none"
        heard_from(client, it, 0)
        gap = batch(BATCHES_HELD + 4)
        assert await produced(client, gap) == "out_of_order_sequence_number"
        # Nobody follows: another may lead, and have what is missing here.
        heard_from(client, it, 60_000)
        assert await produced(client, gap) == "not_leader_or_follower"
        heard_from(client, it, 0)
        assert await produced(client, batch(BATCHES_HELD)) == "none"

    run(tmp_path, body)


def test_a_gap_of_a_producer_that_has_come_over_is_excused(tmp_path: Path) -> None:
    async def body(client: Client) -> None:
        it = await leading(client)
        assert await produced(client, batch(0)) == "none"
        it.apply(replace(LEADING, leader_epoch=6, partition_epoch=2))
        heard_from(client, it, 0)
        assert await produced(client, batch(5)) == "not_leader_or_follower"
        # Of one that is unknown here, where all replicas have to have it.
        assert await produced(client, batch(5, producer=8), acks=-1) == "not_leader_or_follower"

    run(tmp_path, body)


def led_elsewhere(client: Client, it: Partition) -> None:
    metadata = client.node.services.metadata
    topic = replace(metadata.image.topics["t"], partitions=(ELSEWHERE,))
    there = BrokerImage(2, "there", 9, "r", 1, {"PLAINTEXT": ("there", 9)})
    metadata.image = replace(
        metadata.image,
        topics={"t": topic},
        topics_by_id={topic.topic_id: topic},
        brokers={**metadata.image.brokers, 2: there},
    )
    it.apply(ELSEWHERE)


@pytest.mark.parametrize("api", ["Produce", "Fetch"])
def test_a_refusal_that_comes_at_once_says_where_the_leader_is(tmp_path: Path, api: str) -> None:
    async def body(client: Client) -> None:
        it = await leading(client)
        led_elsewhere(client, it)
        if api == "Produce":
            answer = await produce(client, batch(0))
            found = answer["responses"][0]["partition_responses"][0]
        else:
            asked = wants("t", 0, current_leader_epoch=5) | {"topic_id": it.topic_id}
            state = {"replica_id": -1, "replica_epoch": -1}
            answer = await fetch(client, asked, version=17, replica_state=state, max_wait_ms=20_000)
            found = answer["responses"][0]["partitions"][0]
        assert code(found) == ("not_leader_or_follower" if api == "Produce" else "fenced_leader_epoch")
        assert (found["current_leader"]["leader_id"], found["current_leader"]["leader_epoch"]) == (2, 6)
        (there,) = answer["node_endpoints"]
        assert (there["node_id"], there["host"], there["port"], there["rack"]) == (2, "there", 9, "r")

    run(tmp_path, body)


def test_an_empty_partition_that_comes_into_a_session_later_is_news(tmp_path: Path) -> None:
    """Its high watermark and its log's start are nothing, which the client is to know."""

    async def body(client: Client) -> None:
        await create(client, new_topic("t", 2))
        answer = await fetch(client, wants("t", 0), session_epoch=0)
        session_id = answer["session_id"]
        assert session_id and set(by_partition(answer)) == {("t", 0)}
        answer = await fetch(client, wants("t", 1), session_id=session_id, session_epoch=1)
        found = by_partition(answer)
        assert set(found) == {("t", 1)}
        assert (found["t", 1]["high_watermark"], found["t", 1]["log_start_offset"]) == (0, 0)
        answer = await fetch(client, session_id=session_id, session_epoch=2)
        assert by_partition(answer) == {}

    run(tmp_path, body)
