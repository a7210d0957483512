"""Requests to a node whose high watermark lags, or that follows: what is told to whom, and that nothing stays
of those that nobody waits for any more.

The node stands by itself; its partition is told that it is one of several replicas.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from admin_support import Client, code, create, new_topic, run
from test_broker_fetch import by_partition, errors, fetch, wants

from measuring import HANG_S
from ottla.broker.api.records.produce import handler as produce
from ottla.metadata.image import BrokerImage, PartitionState
from ottla.replication.partition import Partition
from ottla.types import Record
from ottla.wire.records import build_batch

LEADING = PartitionState(1, 5, 1, (1, 2, 3), (1, 2))
FOLLOWING = replace(LEADING, leader=2, leader_epoch=6, partition_epoch=2)
CONSUMER, FOLLOWER, DEBUGGER = -1, 2, -2
LATEST, EARLIEST, MAX_TIMESTAMP = -1, -2, -3

Body = Callable[[Client, Partition], Coroutine[Any, Any, None]]


def batch(at_ms: int) -> bytes:
    return build_batch([Record(0, at_ms, None, b"v")])


def lagging(path: Path, body: Body, state: PartitionState = LEADING) -> None:
    """Six records at times 1,000 to 6,000, of which two are committed; it leads from offset 4 on."""

    async def main(client: Client) -> None:
        await create(client, new_topic("t"))
        it = client.node.services.replicas.get("t", 0)
        for number in range(2):
            it.append(batch(1_000 * (number + 1)), now_ms=0)
        assert it.high_watermark == 2
        it.apply(replace(LEADING, leader_epoch=4))
        for number in range(2, 4):
            it.append(batch(1_000 * (number + 1)), now_ms=0)
        it.apply(LEADING)
        for number in range(4, 6):
            it.append(batch(1_000 * (number + 1)), now_ms=0)
        it.apply(state)
        assert (it.high_watermark, it.log.log_end_offset) == (2, 6)
        await body(client, it)

    run(path, main)


async def list_offset(client: Client, timestamp: int, replica_id: int = CONSUMER, version: int = 7) -> Any:
    asked = {"partition_index": 0, "current_leader_epoch": -1, "timestamp": timestamp}
    fields = {
        "replica_id": replica_id,
        "isolation_level": 0,
        "topics": [{"name": "t", "partitions": [asked]}],
    }
    answer = (await client.ask("ListOffsets", version, fields))["topics"][0]["partitions"][0]
    return answer["offset"] if code(answer) == "none" else code(answer)


# ListOffsets ----------------------------------------------------------------------------------------------


def test_a_new_leader_does_not_say_where_it_ends_before_it_knows(tmp_path: Path) -> None:
    async def body(client: Client, it: Partition) -> None:
        assert await list_offset(client, LATEST) == "offset_not_available"
        assert await list_offset(client, LATEST, version=4) == "leader_not_available"
        assert await list_offset(client, MAX_TIMESTAMP) == "offset_not_available"
        # What is before the high watermark is known all the same.
        assert await list_offset(client, EARLIEST) == 0
        assert await list_offset(client, 1_500) == 1
        assert await list_offset(client, 2_500) == "offset_not_available"
        assert await list_offset(client, 9_999) == "offset_not_available"
        # Who replicates asks for what there is.
        assert await list_offset(client, LATEST, FOLLOWER) == 6
        it.high_watermark = 4
        assert await list_offset(client, LATEST) == 4
        assert await list_offset(client, 3_500) == 3
        assert [await list_offset(client, at) for at in (4_500, 9_999, MAX_TIMESTAMP)] == [-1, -1, -1]
        assert await list_offset(client, MAX_TIMESTAMP, FOLLOWER) == 5

    lagging(tmp_path, body)


def test_a_follower_answers_debuggers_alone(tmp_path: Path) -> None:
    async def body(client: Client, it: Partition) -> None:
        for replica_id in (CONSUMER, FOLLOWER):
            assert await list_offset(client, LATEST, replica_id) == "not_leader_or_follower"
        assert [await list_offset(client, at, DEBUGGER) for at in (LATEST, EARLIEST, 4_500)] == [6, 0, 4]

    lagging(tmp_path, body, FOLLOWING)


# Fetch ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", [LEADING, FOLLOWING])
def test_consumers_see_what_is_committed_and_wait_for_the_rest(tmp_path: Path, state: PartitionState) -> None:
    async def body(client: Client, it: Partition) -> None:
        found = by_partition(await fetch(client, wants("t", 0)))["t", 0]
        assert len(found["records"]) == 2 * len(batch(0)) and found["high_watermark"] == 2
        for offset, expected in ((2, "none"), (6, "none"), (7, "offset_out_of_range")):
            answer = await fetch(client, wants("t", 0, fetch_offset=offset))
            assert errors(answer) == {("t", 0): expected} and not by_partition(answer)["t", 0]["records"]

    lagging(tmp_path, body, state)


def test_older_consumers_are_not_served_by_followers(tmp_path: Path) -> None:
    async def body(client: Client, it: Partition) -> None:
        assert errors(await fetch(client, wants("t", 0), version=10)) == {("t", 0): "not_leader_or_follower"}
        asked = wants("t", 0, current_leader_epoch=5)
        assert errors(await fetch(client, asked)) == {("t", 0): "fenced_leader_epoch"}
        asked = wants("t", 0, current_leader_epoch=7)
        assert errors(await fetch(client, asked)) == {("t", 0): "unknown_leader_epoch"}

    lagging(tmp_path, body, FOLLOWING)


@pytest.mark.parametrize(
    ("last_epoch", "offset", "expected"),
    [(4, 4, None), (4, 5, (4, 4)), (3, 2, (0, 2)), (5, 6, None), (9, 6, "offset_out_of_range")],
)
def test_a_consumer_that_says_what_it_has_read_hears_where_that_parts(
    tmp_path: Path, last_epoch: int, offset: int, expected: Any
) -> None:
    async def body(client: Client, it: Partition) -> None:
        answer = await fetch(client, wants("t", 0, fetch_offset=offset, last_fetched_epoch=last_epoch))
        found = by_partition(answer)["t", 0]
        if isinstance(expected, str):
            assert code(found) == expected
            return
        where = found["diverging_epoch"]
        assert (where["epoch"], where["end_offset"]) == (expected or (-1, -1)) and code(found) == "none"

    lagging(tmp_path, body)


def test_the_replica_that_is_preferred(tmp_path: Path) -> None:
    async def body(client: Client, it: Partition) -> None:
        replicas = client.node.services.replicas
        image = replicas._image
        assert image is not None
        own = replace(image.brokers[1], rack="a")
        brokers = {1: own} | {
            node: BrokerImage(node, "h", 1, rack, 1, {"PLAINTEXT": ("h", 1)})
            for node, rack in ((2, "b"), (3, "b"), (4, "c"))
        }
        replicas._image = replace(image, brokers=brokers)
        it.apply(replace(LEADING, replicas=(1, 2, 3, 4), isr=(1, 2, 3, 4), partition_epoch=3))
        assert it.leading is not None
        ends = {2: (3, 9), 3: (3, 5), 4: (6, 1)}
        for node, (end, caught_up_ms) in ends.items():
            it.leading.followers[node].log_end_offset = end
            it.leading.followers[node].log_start_offset = 1
            it.leading.followers[node]._caught_up_ms = caught_up_ms

        def preferred(rack: str, offset: int = 2, listener: str = "PLAINTEXT") -> int | None:
            return replicas.preferred_replica(it, rack, offset, listener)

        assert preferred("b") is None, "it is not configured"
        client.node.config._values["replica.selector.class"] = (
            "org.apache.kafka.common.replica.RackAwareReplicaSelector"
        )
        assert preferred("b") == 2, "it was caught up last"
        it.leading.followers[3].log_end_offset = 4
        assert preferred("b") == 3, "it has most"
        assert [preferred(rack) for rack in ("a", "c", "x")] == [None, 4, None]
        assert preferred("c", listener="OTHER") is None
        assert [preferred("b", offset) for offset in (0, 1, 4, 5)] == [None, 3, 3, None]
        it.apply(replace(it.state, isr=(1, 2), partition_epoch=4))
        assert [preferred("b"), preferred("c")] == [2, None]
        it.apply(FOLLOWING)
        assert preferred("b") is None

    lagging(tmp_path, body)


# Produce --------------------------------------------------------------------------------------------------


def produce_fields(timeout_ms: int, acks: int = -1) -> dict[str, Any]:
    data = {"name": "t", "partition_data": [{"index": 0, "records": batch(1)}]}
    return {"transactional_id": None, "acks": acks, "timeout_ms": timeout_ms, "topic_data": [data]}


def waiting(client: Client, it: Partition) -> tuple[int, int]:
    """Producers that wait for commits, and deadlines that are set."""
    deadlines = client.node.services.deadlines
    return len(it.commits), sum(map(len, deadlines._ticks.values()))


async def settle(condition: Callable[[], bool]) -> None:
    for _ in range(2_000):
        if condition():
            return
        await asyncio.sleep(0.002)
    raise AssertionError("it does not come to that")


def test_a_produce_that_expires_leaves_its_batch_and_nothing_else(tmp_path: Path) -> None:
    async def body(client: Client, it: Partition) -> None:
        for offset in range(6, 11):
            answer = await client.ask("Produce", 9, produce_fields(20))
            found = answer["responses"][0]["partition_responses"][0]
            # As in Kafka it says where the batch lies all the same (DelayedProduce).
            assert code(found) == "request_timed_out" and found["base_offset"] == offset
        assert it.log.log_end_offset == 11 and it.high_watermark == 2
        assert waiting(client, it) == (0, 0)
        assert (
            code(
                (await client.ask("Produce", 9, produce_fields(20, acks=1)))["responses"][0][
                    "partition_responses"
                ][0]
            )
            == "none"
        )

    lagging(tmp_path, body)


@pytest.mark.parametrize(
    ("comes", "expected"),
    [("commit", "none"), ("resignation", "not_leader_or_follower"), ("both ways", "not_leader_or_follower")],
)
def test_what_comes_between_the_appends_of_a_large_produce_is_answered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, comes: str, expected: str
) -> None:
    """The replicas may have a partition's batch before the last one is appended."""
    monkeypatch.setattr(produce, "APPENDED_AT_ONCE_MAX", 1)

    async def body(client: Client, it: Partition) -> None:
        def meanwhile(ctx: Any) -> None:
            if it.log.log_end_offset != 7:
                return
            if comes == "commit":
                it.high_watermark = 7
                return
            it.apply(FOLLOWING)
            if comes == "both ways":
                it.apply(replace(LEADING, leader_epoch=7, partition_epoch=3))
                it.high_watermark = 7

        monkeypatch.setattr(produce, "check_pulse", meanwhile)
        fields = produce_fields(5_000)
        nowhere = [{"index": index, "records": batch(1)} for index in (8, 9)]
        fields["topic_data"][0]["partition_data"] += nowhere
        answer = await asyncio.wait_for(client.ask("Produce", 9, fields), HANG_S)
        found = answer["responses"][0]["partition_responses"]
        assert [code(one) for one in found] == [expected, *["unknown_topic_or_partition"] * 2]
        assert waiting(client, it) == (0, 0)

    lagging(tmp_path, body)


def test_a_producer_that_goes_away_is_forgotten(tmp_path: Path) -> None:
    async def body(client: Client, it: Partition) -> None:
        for _ in range(3):
            client.send("Produce", 9, produce_fields(600_000))
        await settle(lambda: waiting(client, it) == (3, 3))
        client.close()
        await settle(lambda: waiting(client, it) == (0, 0))
        assert it.log.log_end_offset == 9

    lagging(tmp_path, body)


def test_a_producer_whose_leader_resigns_hears_who_leads(tmp_path: Path) -> None:
    async def body(client: Client, it: Partition) -> None:
        metadata = client.node.services.metadata
        asking = asyncio.ensure_future(client.ask("Produce", 10, produce_fields(600_000)))
        await settle(lambda: waiting(client, it) == (1, 1))
        topic = metadata.image.topics["t"]
        metadata.image = replace(
            metadata.image,
            topics={"t": replace(topic, partitions=(FOLLOWING,))},
            brokers=metadata.image.brokers
            | {2: BrokerImage(2, "there", 9, None, 1, {"PLAINTEXT": ("there", 9)})},
        )
        it.apply(FOLLOWING)
        answer = await asking
        found = answer["responses"][0]["partition_responses"][0]
        assert code(found) == "not_leader_or_follower"
        assert (found["current_leader"]["leader_id"], found["current_leader"]["leader_epoch"]) == (2, 6)
        assert [(node["node_id"], node["host"]) for node in answer["node_endpoints"]] == [(2, "there")]
        assert waiting(client, it) == (0, 0)

    lagging(tmp_path, body)


# DeleteRecords and the rest -------------------------------------------------------------------------------


def test_records_are_deleted_up_to_the_high_watermark(tmp_path: Path) -> None:
    async def delete(client: Client, offset: int, timeout_ms: int = 20) -> tuple[str, int]:
        asked = {"name": "t", "partitions": [{"partition_index": 0, "offset": offset}]}
        answer = await client.ask("DeleteRecords", 2, {"topics": [asked], "timeout_ms": timeout_ms})
        found = answer["topics"][0]["partitions"][0]
        return code(found), found["low_watermark"]

    async def body(client: Client, it: Partition) -> None:
        replicas = client.node.services.replicas
        assert await delete(client, 3) == ("offset_out_of_range", -1)
        # No other node lives, so there is nobody to wait for.
        assert await delete(client, -1) == ("none", 2)
        image = replicas._image
        assert image is not None and it.leading is not None
        replicas._image = replace(image, brokers=image.brokers | {2: BrokerImage(2, "h", 1, None, 1)})
        assert await delete(client, 2) == ("request_timed_out", -1)
        it.leading.followers[2].log_start_offset = 1
        assert await delete(client, 2) == ("request_timed_out", 1)
        assert (len(it.deletions), replicas.deletions) == (0, 0)
        client.send(
            "DeleteRecords",
            2,
            {
                "topics": [{"name": "t", "partitions": [{"partition_index": 0, "offset": 2}]}],
                "timeout_ms": 600_000,
            },
        )
        await settle(lambda: replicas.deletions == 1)
        it.apply(FOLLOWING)
        await settle(lambda: replicas.deletions == 0)
        assert len(it.deletions) == 0

    lagging(tmp_path, body)


def test_where_epochs_end_is_told_by_the_leader_alone(tmp_path: Path) -> None:
    async def epoch_end(client: Client, epoch: int) -> Any:
        asked = {"partition": 0, "current_leader_epoch": -1, "leader_epoch": epoch}
        fields = {"replica_id": CONSUMER, "topics": [{"topic": "t", "partitions": [asked]}]}
        found = (await client.ask("OffsetForLeaderEpoch", 4, fields))["topics"][0]["partitions"][0]
        return (found["leader_epoch"], found["end_offset"]) if code(found) == "none" else code(found)

    async def body(client: Client, it: Partition) -> None:
        assert [await epoch_end(client, epoch) for epoch in (0, 3, 4, 5, 6)] == [
            (0, 2), (0, 2), (4, 4), (5, 6), (-1, -1),
        ]  # fmt: skip
        it.apply(FOLLOWING)
        assert await epoch_end(client, 4) == "not_leader_or_follower"

    lagging(tmp_path, body)
