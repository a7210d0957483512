"""Batches behind one that was refused: refused alike, for a moment, and taken in their order."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from admin_support import Client, code, create, new_topic, run
from memory_disk import MemoryDisk
from replication_support import Surroundings, make_partition

from ottla.broker.api.records.produce import refusals
from ottla.broker.api.records.produce.refusals import (
    EXCUSED_MS_MAX,
    REMEMBERED_MS_MAX,
    Refusals,
    has_come_over,
    is_followed,
    is_unknown,
)
from ottla.errors import ErrorCode, KafkaError
from ottla.log.producer_entry import BATCHES_HELD
from ottla.metadata.image import PartitionState
from ottla.replication.partition import Partition
from ottla.types import Record
from ottla.wire.records import SEQUENCE_MAX, build_batch

NOT_LEADER = KafkaError(ErrorCode.not_leader_or_follower)


def batch(sequence: int, producer: int = 7, epoch: int = 0) -> bytes:
    return build_batch(
        [Record(0, 1_000, None, b"v")], producer_id=producer, producer_epoch=epoch, base_sequence=sequence
    )


def passes(
    known: Refusals,
    records: bytes | None,
    *,
    index: int = 0,
    partition: Partition | None = None,
    now_ms: int = 0,
) -> bool:
    if partition is None:
        partition = make_partition(MemoryDisk(), PartitionState(1, 0, 0, (1,), (1,)))
    try:
        known.check("t", index, records, partition, now_ms)
    except KafkaError as error:
        assert error.code == ErrorCode.not_leader_or_follower
        return False
    return True


def refused(sequence: int = 5, now_ms: int = 0) -> Refusals:
    known = Refusals()
    known.refused("t", 0, batch(sequence), NOT_LEADER, now_ms)
    return known


def test_what_comes_behind_a_refused_batch_is_refused_and_nothing_else() -> None:
    known = refused(5)
    assert not passes(known, batch(6))
    assert not passes(known, batch(900))
    assert passes(known, batch(5)), "it is sent again"
    assert passes(known, batch(4)), "a repetition of what came before"
    assert passes(known, batch(6), index=1)
    assert passes(known, batch(6, producer=8))
    assert passes(known, batch(6, epoch=1))
    assert passes(known, build_batch([Record(0, 1_000, None, b"v")])), "of no producer"
    assert passes(known, b"")
    assert passes(known, None)


def test_once_it_is_appended_all_is_well() -> None:
    known = refused(5)
    known.appended("t", 0, batch(5))
    assert not known
    assert passes(known, batch(6))


def test_those_behind_it_do_not_take_its_place() -> None:
    known = refused(5, now_ms=0)
    known.refused("t", 0, batch(6), NOT_LEADER, REMEMBERED_MS_MAX)
    assert passes(known, batch(5))
    assert not passes(known, batch(6), now_ms=REMEMBERED_MS_MAX)
    assert passes(known, batch(6), now_ms=REMEMBERED_MS_MAX + 1), "nor make it last longer"
    assert not known


def test_it_counts_as_long_as_the_log_lacks_the_batch() -> None:
    """What was sent behind it may be late: a node was paused, or packets were lost and sent again."""
    late = REMEMBERED_MS_MAX
    for sequence, epoch, lacks in ((3, 0, True), (4, 0, True), (2, 0, False), (0, 0, False), (5, 1, True)):
        known = Refusals()
        known.refused("t", 0, batch(sequence, epoch=epoch), NOT_LEADER, 0)
        # The log has what is numbered up to 2.
        assert passes(known, batch(6, epoch=epoch), partition=led(3), now_ms=late) is not lacks
        assert bool(known) is lacks, "another leader has taken it"
    known = refused(5)
    partition = led(3)
    partition.append(batch(0, epoch=1), now_ms=0, acks=-1)
    assert passes(known, batch(6), partition=partition), "the producer goes on without it"


def test_an_earlier_one_does() -> None:
    known = refused(5)
    known.refused("t", 0, batch(4), NOT_LEADER, 10)
    assert not passes(known, batch(5))


def test_sequence_numbers_begin_again() -> None:
    known = refused(SEQUENCE_MAX)
    assert not passes(known, batch(0))
    assert passes(known, batch(SEQUENCE_MAX - 1))


def test_errors_that_stay_are_not_remembered() -> None:
    known = Refusals()
    for error in (ErrorCode.corrupt_message, ErrorCode.out_of_order_sequence_number, ErrorCode.none):
        known.refused("t", 0, batch(5), KafkaError(error), 0)
    known.refused("t", 0, None, NOT_LEADER, 0)
    assert not known


def test_what_is_remembered_has_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refusals, "REMEMBERED_MAX", 2)
    known = Refusals()
    for index in range(3):
        known.refused("t", index, batch(5), NOT_LEADER, 0)
    assert len(known) == 2
    assert passes(known, batch(6), index=2)


def led(end_of_first: int = 3) -> Partition:
    """A partition that node 1 leads in epoch 1; producer 7 wrote ``end_of_first`` batches in epoch 0."""
    disk = MemoryDisk()
    partition = make_partition(disk, PartitionState(2, 0, 0, (1, 2), (1, 2)))
    for sequence in range(end_of_first):
        records = bytearray(batch(sequence))
        records[:8] = sequence.to_bytes(8, "big")
        records[12:16] = bytes(4)
        partition.append_as_follower(bytes(records), 0, 0, now_ms=0)
    partition.apply(PartitionState(1, 1, 1, (1, 2), (1, 2)))
    return partition


def test_a_gap_of_a_producer_that_has_come_over_may_be_the_order_only() -> None:
    partition = led(3)
    assert has_come_over(partition, batch(4))
    assert not has_come_over(partition, batch(3)), "it is no gap"
    assert not has_come_over(partition, batch(1)), "it is behind"
    assert has_come_over(partition, batch(4, epoch=1)), "the first of its epoch is missing"
    assert not has_come_over(partition, batch(0, epoch=1))
    assert not has_come_over(partition, batch(4, producer=8)), "nothing is known of it"
    assert not has_come_over(partition, build_batch([Record(0, 1_000, None, b"v")]))


def test_a_producer_comes_over_with_all_that_it_had_under_way() -> None:
    """librdkafka may give back a batch that the old leader refused only when it has sent those before it, and
    the next one, to the new leader: that takes the first, and finds a gap before the last."""
    partition = led(3)
    for sequence in range(3, 8):
        partition.append(batch(sequence), now_ms=0, acks=-1)
        assert has_come_over(partition, batch(sequence + 2))
        assert not has_come_over(partition, batch(sequence + 1)), "it is no gap"
    partition.append(batch(8), now_ms=0, acks=-1)
    assert not has_come_over(partition, batch(10)), "it is here already"
    partition.resign()
    assert not has_come_over(partition, batch(9))


def test_a_producer_that_has_just_begun_may_have_begun_elsewhere() -> None:
    partition = led(0)
    for sequence in range(BATCHES_HELD):
        partition.append(batch(sequence), now_ms=0, acks=-1)
        assert has_come_over(partition, batch(sequence + 2)) is (sequence + 1 < BATCHES_HELD)
    first = make_partition(MemoryDisk(), PartitionState(1, 0, 0, (1, 2), (1, 2)))
    first.append(batch(0), now_ms=0, acks=-1)
    assert not has_come_over(first, batch(2)), "there was no other leader"


def test_a_producer_of_which_a_new_leader_has_nothing() -> None:
    """Otherwise its second batch would be the log's first, and the first one lost."""
    partition = led(3)
    assert is_unknown(partition, batch(4, producer=8))
    assert not is_unknown(partition, batch(0, producer=8))
    assert not is_unknown(partition, batch(9)), "known"
    assert not is_unknown(partition, build_batch([Record(0, 1_000, None, b"v")]))
    assert not is_unknown(partition, None)
    first = make_partition(MemoryDisk(), PartitionState(1, 0, 0, (1, 2), (1, 2)))
    assert not is_unknown(first, batch(4)), "there was no other leader"
    alone = make_partition(MemoryDisk(), PartitionState(1, 1, 1, (1,), (1,)))
    assert not is_unknown(alone, batch(4))


def test_a_leader_that_nobody_follows_is_found_out() -> None:
    around = Surroundings()
    around.registered = {1: 1, 2: 1, 3: 1}
    partition = make_partition(MemoryDisk(), PartitionState(1, 0, 0, (1, 2, 3), (1, 2)), around=around)

    def followed(now_ms: int) -> bool:
        return is_followed(partition, now_ms, 1_500)

    around.now_ms = 10_000
    for node_id in (2, 3):
        partition.follower_fetched(node_id, 1, 0, -1, 0, current_leader_epoch=0)
    assert followed(11_500)
    assert not followed(11_501)
    around.now_ms = 12_000
    partition.follower_fetched(3, 1, 0, -1, 0, current_leader_epoch=0)
    assert not followed(12_000), "who is not in sync is not elected either"
    partition.apply(PartitionState(1, 0, 1, (1, 2, 3), (1,)))
    assert followed(99_000), "nobody else is in sync"
    partition.resign()
    assert followed(99_000)


def test_a_partition_with_one_replica_has_no_other_leaders() -> None:
    partition = make_partition(MemoryDisk(), PartitionState(1, 0, 0, (1,), (1,)))
    partition.append(batch(0), now_ms=0, acks=-1)
    partition.apply(PartitionState(1, 1, 1, (1,), (1,)))
    assert not has_come_over(partition, batch(4))


def test_a_gap_is_excused_for_a_moment() -> None:
    known = Refusals()
    assert known.excuses_gap("t", 0, batch(4), 10)
    assert known.excuses_gap("t", 0, batch(4), 10 + EXCUSED_MS_MAX)
    for _ in range(2):
        assert not known.excuses_gap("t", 0, batch(4), 11 + EXCUSED_MS_MAX), "something is missing"
    known.appended("t", 0, batch(3))
    assert not known
    assert known.excuses_gap("t", 0, batch(9), 11 + EXCUSED_MS_MAX)


def test_a_topic_that_comes_between_two_batches(tmp_path: Path) -> None:
    """A producer that the log does not know may begin with any number: it must not be the second."""

    def fields(sequence: int) -> dict[str, Any]:
        topics = [{"name": "t", "partition_data": [{"index": 0, "records": batch(sequence)}]}]
        return {"transactional_id": None, "acks": -1, "timeout_ms": 1_000, "topic_data": topics}

    async def body(client: Client) -> None:
        async def produce(sequence: int) -> str:
            answer = await client.ask("Produce", 9, fields(sequence))
            return code(answer["responses"][0]["partition_responses"][0])

        assert await produce(0) == "unknown_topic_or_partition"
        await create(client, new_topic("t"))
        assert await produce(1) == "unknown_topic_or_partition"
        assert [await produce(sequence) for sequence in (0, 1, 2)] == ["none"] * 3
        assert await produce(5) == "out_of_order_sequence_number"

    run(tmp_path, body)
