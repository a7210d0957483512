"""Produce, InitProducerId, DeleteRecords and epochs against a whole broker: errors and durability."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from admin_support import Client, code, create, new_topic, run

from measuring import HANG_S
from ottla.broker import gate
from ottla.broker.producer_ids import ProducerIds
from ottla.errors import ErrorCode, KafkaError
from ottla.log import validation
from ottla.replication.partition import Partition
from ottla.types import Record
from ottla.wire import messages
from ottla.wire.records import build_batch, iter_batches, iter_records

EACH_FLUSHED = {"flush.messages": "1"}
BATCH = build_batch([Record(0, 1_000, None, b"v")])
KEYED = build_batch([Record(0, 1_000, b"k", b"v")])


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


@pytest.mark.parametrize("acks", [-1, 1])
def test_one_batch_is_read_and_answered_by_the_shortest_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, acks: int
) -> None:
    """Most of what a message by itself costs is the codec's dicts and tuples."""

    def unexpected(*of: Any) -> Any:
        raise AssertionError("the codec is not needed for that")

    async def body(client: Client) -> None:
        await create(client, new_topic("t"))
        assert answers(await client.ask("Produce", 9, fields("t", 0, acks=acks))) == [(0, "none", 0)]
        monkeypatch.setattr(messages, "_read", unexpected)
        monkeypatch.setattr(gate, "frame_response", unexpected)
        for number, version in enumerate((3, 5, 8, 9, 12), 1):
            answer = await client.ask("Produce", version, fields("t", 0, acks=acks))
            assert answers(answer) == [(0, "none", number)]
        monkeypatch.undo()

    run(tmp_path, body)


def test_from_version_13_on_topics_are_named_by_their_ids(tmp_path: Path) -> None:
    async def body(client: Client) -> None:
        await create(client, new_topic("t"))
        asked = fields("", 0)
        for topic_id, expected in (
            (client.node.services.replicas.get("t", 0).topic_id, (0, "none", 0)),
            (UUID(int=5), (0, "unknown_topic_id", -1)),
        ):
            asked["topic_data"][0]["topic_id"] = topic_id
            assert answers(await client.ask("Produce", 13, asked)) == [expected]

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


def test_the_records_at_fault_of_a_large_batch_are_found_off_the_loop(tmp_path: Path) -> None:
    """The other partition is appended to all the same, and both answers come together."""

    async def body(client: Client) -> None:
        await create(client, new_topic("t", 2, configs={"cleanup.policy": "compact"}))
        loop_thread = threading.get_ident()
        seen: list[int] = []

        def find_faults(*arguments: Any) -> Any:
            seen.append(threading.get_ident())
            return validation_find_faults(*arguments)

        validation_find_faults = validation.find_faults
        keyless = build_batch([Record(0, 1_000, b"k" if at % 3 else None, b"v") for at in range(3000)])
        request = fields("t", 0, records=keyless)
        request["topic_data"][0]["partition_data"].append({"index": 1, "records": KEYED})
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(validation, "find_faults", find_faults)
            answer = await client.ask("Produce", 9, request)
        assert answers(answer) == [(0, "invalid_record", -1), (1, "none", 0)]
        refused, _ = answer["responses"][0]["partition_responses"]
        assert [one["batch_index"] for one in refused["record_errors"]] == list(range(0, 3000, 3))
        assert seen and loop_thread not in seen

    run(tmp_path, body)


@pytest.mark.parametrize("version", [3, 8, 13])
def test_a_batch_of_no_transaction_fails_the_whole_request(tmp_path: Path, version: int) -> None:
    async def body(client: Client) -> None:
        await create(client, new_topic("t", 2))
        topic_id = client.node.services.metadata.image.topics["t"].topic_id
        transactional = build_batch([Record(0, 1_000, None, b"v")], transactional=True)
        request = fields("t", 0)
        request["topic_data"][0]["topic_id"] = topic_id
        request["topic_data"][0]["partition_data"].append({"index": 1, "records": transactional})
        answer = await client.ask("Produce", version, request)
        refusal = "transactional_id_authorization_failed"
        assert answers(answer) == [(0, refusal, -1), (1, refusal, -1)]
        assert client.node.services.replicas.get("t", 0).log.log_end_offset == 0

    run(tmp_path, body)


def test_a_refusal_says_where_the_log_begins(tmp_path: Path) -> None:
    """But for those that tell nothing of the log (ReplicaManager.appendToLocalLog)."""

    async def body(client: Client) -> None:
        await create(client, new_topic("t", configs={"max.message.bytes": "200"}))
        for _ in range(3):
            await client.ask("Produce", 9, fields("t", 0))
        client.node.services.replicas.get("t", 0).log.advance_log_start(2)
        control = build_batch([Record(0, 1_000, None, b"v")], control=True)
        gap = {"producer_id": 7, "producer_epoch": 0}
        await client.ask("Produce", 9, fields("t", 0, records=numbered(0, **gap)))
        starts = {
            "a control batch": (control, 2),
            "a gap": (numbered(9, **gap), 2),
            "too large": (build_batch([Record(0, 1_000, None, b"v" * 300)]), -1),
            "no batch": (b"", -1),
            "a checksum": (BATCH[:-1] + b"?", -1),
            "an old format": (BATCH[:16] + b"\1" + BATCH[17:], -1),
        }
        for kind, (records, start) in starts.items():
            answer = await client.ask("Produce", 9, fields("t", 0, records=records))
            (refused,) = answer["responses"][0]["partition_responses"]
            assert (kind, refused["base_offset"], refused["log_start_offset"]) == (kind, -1, start)

    run(tmp_path, body)


def numbered(sequence: int, **producer: int) -> bytes:
    return build_batch([Record(0, 1_000, None, b"v")], base_sequence=sequence, **producer)


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
        ({"transactional_id": "t"}, "not_coordinator"),
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


def test_producer_ids_of_a_block_are_there_at_once_but_while_the_next_is_reserved() -> None:
    async def main() -> None:
        blocks, may_reserve = iter([range(2), range(10, 12)]), asyncio.Event()

        async def reserve() -> range:
            await may_reserve.wait()
            return next(blocks)

        ids = ProducerIds(reserve)
        assert ids.at_once() is None
        waiting = asyncio.ensure_future(ids.next())
        await asyncio.sleep(0)
        assert ids.at_once() is None
        may_reserve.set()
        assert await waiting == 0
        assert [ids.at_once(), ids.at_once(), await ids.next(), ids.at_once()] == [1, None, 10, 11]

    asyncio.run(main())


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


async def values(client: Client, topic: str) -> list[bytes | None]:
    log = client.node.services.replicas.get(topic, 0).log
    piece = log.read(0, 1 << 26, end_offset=log.log_end_offset)
    if piece is None:
        return []
    data = piece.file.read(piece.position, piece.size)
    return [record.value for _, batch in iter_batches(data) for record in iter_records(batch)]


@pytest.mark.parametrize("acks", [0, 1, -1])
def test_what_takes_long_is_not_overtaken_on_its_connection(tmp_path: Path, acks: int) -> None:
    """A large batch that is compressed again, small ones before and behind it; another client goes on."""
    large = build_batch([Record(0, 1_000, None, b"large%d" % (n % 7)) for n in range(3_000)])

    async def body(client: Client) -> None:
        await create(client, new_topic("t", configs={"compression.type": "zstd"}), new_topic("other"))
        other = Client(client.node, *await asyncio.open_connection(*client.node.address))
        manager = client.node.services.log_manager
        gate = asyncio.Event()
        prepare = manager.prepare

        async def prepare_later(*arguments: Any) -> Any:
            await gate.wait()
            return await prepare(*arguments)

        manager.prepare = prepare_later  # type: ignore[method-assign]
        small = [build_batch([Record(0, 1_000, None, b"small%d" % n)]) for n in range(3)]
        client.send("Produce", 9, fields("t", 0, acks=acks, records=small[0]))
        client.send("Produce", 9, fields("t", 0, acks=acks, records=large))
        client.send("Produce", 9, fields("t", 0, acks=acks, records=small[1]))
        # Within a request too.
        topics = [
            {
                "name": "t",
                "partition_data": [{"index": 0, "records": large}, {"index": 0, "records": small[2]}],
            }
        ]
        client.send("Produce", 9, fields("t", acks=acks) | {"topic_data": topics})
        for _ in range(3):
            assert answers(await other.ask("Produce", 9, fields("other", 0)))[0][1] == "none"
        assert await values(client, "t") == [b"small0"]
        gate.set()
        expected = 3 + 2 * 3_000
        while (found := await values(client, "t")) != [] and len(found) < expected:
            await asyncio.sleep(0.01)
        assert [value for value in found if value in (b"small0", b"small1", b"small2")] == [
            b"small0", b"small1", b"small2"
        ]  # fmt: skip
        assert [found.index(value) for value in (b"small0", b"large0", b"small1")] == [0, 1, 3_001]
        assert found[-1] == b"small2"
        other.close()

    run(tmp_path, body)


def test_what_waits_for_replicas_holds_up_nothing_however_long_it_took(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A large batch that is appended and not committed yet: what the producer sends next is appended, too."""
    large = build_batch([Record(0, 1_000, None, b"v")] * 3_000)

    async def body(client: Client) -> None:
        await create(client, new_topic("t", configs={"compression.type": "zstd"}))
        partition = client.node.services.replicas.get("t", 0)
        with monkeypatch.context() as patch:
            patch.setattr(Partition, "advance", lambda self: None)
            for records in (large, BATCH):
                wanted = fields("t", 0, acks=-1, records=records) | {"timeout_ms": 20_000}
                client.send("Produce", 9, wanted)
            async with asyncio.timeout(HANG_S):
                while partition.log.log_end_offset < 3_001:
                    await asyncio.sleep(0.01)
        partition.advance()
        assert [answers(await client.receive("Produce", 9)) for _ in range(2)] == [
            [(0, "none", 0)], [(0, "none", 3_000)]
        ]  # fmt: skip
        assert partition.high_watermark == 3_001

    run(tmp_path, body)


def test_a_large_batch_that_cannot_be_taken_is_refused_as_a_small_one(tmp_path: Path) -> None:
    """And what came with it is taken."""
    keyless = build_batch([Record(0, 1_000, None, b"v")] * 3_000)
    keyed = build_batch([Record(0, 1_000, b"k", b"v")] * 3_000)

    async def body(client: Client) -> None:
        await create(client, new_topic("t", 2, configs={"cleanup.policy": "compact"}))
        topics = [
            {
                "name": "t",
                "partition_data": [{"index": 0, "records": keyless}, {"index": 1, "records": keyed}],
            }
        ]
        answer = await client.ask("Produce", 9, fields("t", acks=-1) | {"topic_data": topics})
        assert answers(answer) == [(0, "invalid_record", -1), (1, "none", 0)]
        named = answer["responses"][0]["partition_responses"][0]["record_errors"]
        assert [one["batch_index"] for one in named] == list(range(3_000))
        # A connection is all that can be lost with acks=0.
        client.send("Produce", 9, fields("t", 0, acks=0, records=keyless))
        with pytest.raises(asyncio.IncompleteReadError):
            await client.ask("Produce", 9, fields("t", 1, records=keyed))

    run(tmp_path, body)
