"""A partition in its roles: who is told of commits and deletions, what fetches do, who is refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from log_support import NOW_MS
from memory_disk import MemoryDisk
from replication_support import LAG_MS_MAX, Surroundings, make_partition

from ottla.errors import ErrorCode, KafkaError
from ottla.log.settings import LogConfig
from ottla.metadata.elections import with_isr
from ottla.metadata.image import PartitionState
from ottla.replication.divergence import Divergence
from ottla.replication.partition import Partition
from ottla.types import Record
from ottla.wire.records import build_batch

EPOCH = 5


def state(
    leader: int = 1, isr: tuple[int, ...] = (1, 2, 3), epoch: int = EPOCH, **more: Any
) -> PartitionState:
    return replace(PartitionState(leader, epoch, 1, (1, 2, 3), isr), **more)


class Bench:
    """A partition on node 1, led by it, and what it told whom."""

    def __init__(self, where: PartitionState | None = None, min_isr: int = 1) -> None:
        self.around = Surroundings()
        self.around.registered = {2: 20, 3: 30}
        self.disk = MemoryDisk()
        config = LogConfig(min_insync_replicas=min_isr)
        self.it = make_partition(self.disk, where or state(), config, self.around)
        self.told: list[tuple[str, Any]] = []

    def append(self, count: int = 1, acks: int = 1) -> int:
        batch = build_batch([Record(i, NOW_MS, None, b"v") for i in range(count)])
        return self.it.append(batch, now_ms=NOW_MS, acks=acks).last_offset

    def wait(self, name: str, offset: int) -> Any:
        def committed(error: KafkaError | None) -> None:
            self.told.append((name, None if error is None else error.code.name))

        self.it.when_committed(offset, committed)
        return committed

    def wait_deleted(self, name: str, offset: int) -> Any:
        def deleted(outcome: int | KafkaError) -> None:
            self.told.append((name, outcome.code.name if isinstance(outcome, KafkaError) else outcome))

        self.it.when_deleted(offset, deleted)
        return deleted

    def fetch(self, node_id: int, offset: int, epoch: int = -1, **options: int) -> Any:
        options = {"broker_epoch": self.around.registered.get(node_id, 1), "log_start_offset": 0, **options}
        return self.it.follower_fetched(
            node_id,
            options["broker_epoch"],
            offset,
            epoch,
            options["log_start_offset"],
            current_leader_epoch=options.get("current_leader_epoch", self.it.leader_epoch),
        )

    def refusal(self, *arguments: Any, **options: Any) -> str:
        with pytest.raises(KafkaError) as raised:
            self.fetch(*arguments, **options)
        return raised.value.code.name


# Commits --------------------------------------------------------------------------------------------------


def test_commits_are_told_in_order_as_the_last_follower_has_them() -> None:
    bench = Bench()
    for name in "abc":
        bench.wait(name, bench.append() + 1)
    bench.fetch(2, 3)
    assert bench.told == [] and bench.it.high_watermark == 0
    bench.fetch(3, 2)
    assert bench.told == [("a", None), ("b", None)] and bench.it.high_watermark == 2
    bench.fetch(3, 2)
    assert len(bench.told) == 2
    bench.fetch(3, 3)
    assert bench.told[2:] == [("c", None)]


def test_a_repeated_batch_waits_for_the_first() -> None:
    bench = Bench()
    first, second = bench.append() + 1, bench.append() + 1
    bench.wait("second", second)
    bench.wait("first again", first)
    bench.fetch(2, 2)
    bench.fetch(3, 1)
    assert bench.told == [("first again", None)]
    bench.fetch(3, 2)
    assert bench.told[1:] == [("second", None)]


def test_whoever_gave_up_is_not_told() -> None:
    bench = Bench()
    committed = bench.wait("gone", bench.append() + 1)
    bench.wait("there", bench.append() + 1)
    assert bench.it.forget_commit(committed)
    assert not bench.it.forget_commit(committed)
    bench.fetch(2, 2)
    bench.fetch(3, 2)
    assert bench.told == [("there", None)]


@pytest.mark.parametrize("after", [state(2, epoch=6), state(-1, epoch=6)])
def test_whoever_waits_is_sent_to_the_next_leader(after: PartitionState) -> None:
    bench = Bench()
    bench.wait("a", bench.append() + 1)
    bench.wait_deleted("d", 1)
    bench.it.apply(after)
    assert bench.told == [("a", "not_leader_or_follower"), ("d", "not_leader_or_follower")]
    # What an old follower still says changes nothing.
    assert bench.refusal(2, 1) == "not_leader_or_follower"
    assert bench.it.high_watermark == 0


def test_a_leader_that_is_elected_again_keeps_its_waiters_and_forgets_its_followers() -> None:
    bench = Bench()
    bench.wait("a", bench.append() + 1)
    bench.fetch(2, 1)
    bench.it.apply(state(epoch=6, partition_epoch=2))
    assert bench.told == []
    bench.fetch(3, 1)
    assert bench.told == [], "what node 2 said in another leader epoch does not count"
    bench.fetch(2, 1)
    assert bench.told == [("a", None)]


def test_it_is_committed_when_the_laggard_is_out_and_not_before() -> None:
    bench = Bench()
    bench.wait("a", bench.append() + 1)
    bench.fetch(2, 1)
    bench.around.now_ms += LAG_MS_MAX + 1
    bench.it.shrink()
    (proposed,) = bench.around.proposed
    assert proposed.isr == (1, 2) and bench.told == []
    bench.it.shrink()
    assert len(bench.around.proposed) == 1, "one proposal at a time"
    bench.it.apply(proposed)
    assert bench.told == [("a", None)]


def test_a_lost_proposal_is_made_again() -> None:
    bench = Bench()
    bench.append()
    bench.fetch(2, 1)
    bench.around.now_ms += LAG_MS_MAX + 1
    bench.it.shrink()
    (proposed,) = bench.around.proposed
    bench.it.proposal_failed(replace(proposed))
    assert bench.it.leading is not None and bench.it.leading.pending is proposed, "that was another one"
    bench.it.proposal_failed(proposed)
    assert bench.it.high_watermark == 0
    bench.it.shrink()
    assert len(bench.around.proposed) == 2


# min.insync.replicas --------------------------------------------------------------------------------------


def test_too_few_in_sync_refuse_all_and_take_one() -> None:
    bench = Bench(state(isr=(1,)), min_isr=2)
    with pytest.raises(KafkaError) as raised:
        bench.append(acks=-1)
    assert raised.value.code is ErrorCode.not_enough_replicas
    assert bench.it.log.log_end_offset == 0
    assert bench.append(acks=1) == 0 and bench.it.high_watermark == 0


def test_what_was_appended_before_too_few_were_in_sync_waits_until_there_are_enough() -> None:
    bench = Bench(state(isr=(1, 2)), min_isr=2)
    bench.wait("a", bench.append(acks=-1) + 1)
    alone = with_isr(bench.it.state, (1,), 2)
    assert alone.elr == (2,)
    bench.it.apply(alone)
    assert bench.told == [] and bench.it.high_watermark == 0
    bench.fetch(2, 1)
    joined = bench.around.proposed[-1]
    assert (joined.isr, joined.elr) == ((1, 2), ()) and bench.told == []
    bench.it.apply(joined)
    assert bench.told == [("a", None)]


def test_it_says_where_it_is_committed_by_fewer_than_there_should_be() -> None:
    """min.insync.replicas became larger while the batch waited."""
    bench = Bench(state(isr=(1, 2)), min_isr=2)
    bench.wait("a", bench.append(acks=-1) + 1)
    it = bench.it
    assert it.leading is not None
    bench.fetch(2, 1)
    assert bench.told == [("a", None)]
    bench.wait("b", bench.append(acks=-1) + 1)
    it.leading.followers[2].log_end_offset = 2
    it.log.update_config(LogConfig(min_insync_replicas=3))
    it.advance()
    assert bench.told[1:] == [], "nothing is committed while too few are in sync"
    it.high_watermark = 2
    it._tell_commits(2)
    assert bench.told[1:] == [("b", "not_enough_replicas_after_append")]


def test_an_elr_that_is_not_needed_is_given_up() -> None:
    bench = Bench(state(isr=(1,), elr=(2,)), min_isr=2)
    bench.it.log.update_config(LogConfig(min_insync_replicas=1))
    bench.append()
    assert bench.it.high_watermark == 0
    bench.it.propose_due()
    (proposed,) = bench.around.proposed
    assert (proposed.isr, proposed.elr) == ((1,), ())
    bench.it.apply(proposed)
    assert bench.it.high_watermark == 1
    bench.it.propose_due()
    assert len(bench.around.proposed) == 1


# Followers ------------------------------------------------------------------------------------------------


def test_a_follower_joins_with_the_registration_that_it_fetches_with() -> None:
    bench = Bench(state(isr=(1, 2)))
    bench.append()
    bench.fetch(2, 1)
    bench.fetch(3, 1, broker_epoch=29)
    assert bench.around.proposed == [], "it has registered anew since"
    bench.fetch(3, 0)
    assert bench.around.proposed == [], "it lacks what is committed"
    bench.fetch(3, 1)
    (proposed,) = bench.around.proposed
    assert proposed.isr == (1, 2, 3) and proposed.partition_epoch == 2
    bench.fetch(3, 1)
    assert len(bench.around.proposed) == 1


def test_one_that_stops_or_is_gone_does_not_join() -> None:
    bench = Bench(state(isr=(1, 2)))
    del bench.around.registered[3]
    bench.append()
    bench.fetch(3, 1)
    assert bench.around.proposed == []


def test_what_a_process_that_has_ended_said_does_not_count() -> None:
    bench = Bench()
    bench.append()
    bench.fetch(2, 0, broker_epoch=21)
    assert bench.refusal(2, 1, broker_epoch=20) == "not_leader_or_follower"
    assert bench.it.leading is not None
    assert bench.it.leading.followers[2].log_end_offset == 0


def test_one_that_is_no_replica_is_told_to_ask_again() -> None:
    bench = Bench()
    assert bench.refusal(4, 0) == "unknown_leader_epoch"
    assert bench.refusal(4, 0, current_leader_epoch=-1) == "not_leader_or_follower"


@pytest.mark.parametrize(
    ("offset", "epoch", "expected"),
    [
        (3, EPOCH, None),
        (2, -1, None),
        (4, -1, "offset_out_of_range"),
        (-1, -1, "offset_out_of_range"),
        (4, EPOCH, (EPOCH, 3)),
        (3, EPOCH - 1, (EPOCH - 1, 0)),
        (0, EPOCH - 1, None),
        (3, EPOCH + 1, "offset_out_of_range"),
    ],
)
def test_what_does_not_continue_our_log_is_no_progress(offset: int, epoch: int, expected: Any) -> None:
    bench = Bench()
    bench.append(3)
    if expected is None:
        assert bench.fetch(2, offset, epoch).log_end_offset == offset
        return
    if isinstance(expected, tuple):
        with pytest.raises(Divergence) as raised:
            bench.fetch(2, offset, epoch)
        assert (raised.value.epoch, raised.value.end_offset) == expected
    else:
        assert bench.refusal(2, offset, epoch) == expected
    assert bench.it.leading is not None and bench.it.leading.followers[2].log_end_offset == -1


def test_before_the_log_begins_it_is_out_of_range_whatever_the_epoch() -> None:
    bench = Bench(state(isr=(1,)))
    bench.append(3)
    bench.it.log.advance_log_start(2)
    for epoch in (-1, EPOCH - 1, EPOCH):
        assert bench.refusal(2, 1, epoch) == "offset_out_of_range"


def test_a_follower_does_not_know_where_epochs_end_that_it_has_not() -> None:
    bench = Bench(state(leader=2))
    assert bench.it.epoch_end_offset(EPOCH) == (-1, -1)
    with pytest.raises(KafkaError) as raised:
        bench.it.check_divergence(0, EPOCH)
    assert raised.value.code is ErrorCode.offset_out_of_range
    bench.it.check_divergence(0, -1)


# Deletions ------------------------------------------------------------------------------------------------


def test_a_deletion_is_told_when_each_living_replica_begins_there() -> None:
    bench = Bench()
    bench.append(9)
    for node in (2, 3):
        bench.fetch(node, 9)
    bench.it.log.advance_log_start(5)
    assert bench.it.low_watermark() == 0
    bench.wait_deleted("five", 5)
    bench.wait_deleted("three", 3)
    bench.fetch(2, 9, log_start_offset=6)
    assert bench.told == []
    bench.fetch(3, 9, log_start_offset=4)
    assert bench.told == [("three", 4)]
    bench.fetch(3, 9, log_start_offset=7)
    # The leader begins at 5, and that is the least.
    assert bench.told[1:] == [("five", 5)] and bench.it.low_watermark() == 5


def test_a_deletion_does_not_wait_for_the_dead_nor_for_who_gave_up() -> None:
    bench = Bench()
    bench.append(4)
    bench.fetch(2, 4)
    bench.it.log.advance_log_start(2)
    deleted = bench.wait_deleted("gone", 1)
    bench.wait_deleted("there", 2)
    assert bench.it.low_watermark() == -1, "node 3 lives, and has not said where it begins"
    assert bench.it.forget_deletion(deleted) and not bench.it.forget_deletion(deleted)
    bench.fetch(2, 4, log_start_offset=2)
    assert bench.told == []
    del bench.around.registered[3]
    bench.it.apply(with_isr(bench.it.state, (1, 2), 1))
    assert bench.told == [("there", 2)]


def test_a_deletion_that_waits_for_a_node_is_told_when_that_dies() -> None:
    """Nothing happens to the partition then: it is in no ISR any more, and all is committed."""
    bench = Bench(state(isr=(1, 2)))
    bench.append(4)
    bench.fetch(2, 4)
    bench.it.log.advance_log_start(2)
    bench.wait_deleted("there", 2)
    bench.fetch(2, 4, log_start_offset=2)
    bench.it.look_again()
    assert bench.told == [] and bench.it.high_watermark == bench.it.log.log_end_offset
    del bench.around.registered[3]
    bench.it.look_again()
    assert bench.told == [("there", 2)]


# Following ------------------------------------------------------------------------------------------------


def leaders_bytes(*counts: int, epoch: int = EPOCH) -> tuple[Partition, bytes]:
    bench = Bench(state(epoch=epoch, isr=(1,)))
    for count in counts:
        bench.append(count)
    piece = bench.it.read_uncommitted(0, 1 << 20, min_one=True)
    assert piece is not None
    return bench.it, piece.file.read(piece.position, piece.size)


def test_a_follower_goes_along_and_never_back() -> None:
    _, data = leaders_bytes(3, 2)
    bench = Bench(state(leader=2))
    it = bench.it
    woken: list[int] = []
    it.add_waiter(lambda: woken.append(it.high_watermark))
    it.append_as_follower(data, 4, 0, NOW_MS)
    assert (it.log.log_end_offset, it.high_watermark, woken) == (5, 4, [4])
    # A new leader knows of less at first.
    it.append_as_follower(b"", 2, 0, NOW_MS)
    assert it.high_watermark == 4
    it.append_as_follower(b"", 99, 1, NOW_MS)
    assert (it.high_watermark, it.log.log_start_offset, woken) == (5, 1, [4, 5])
    it.truncate_to(3, NOW_MS)
    assert (it.high_watermark, it.log.log_end_offset) == (3, 3)
    it.restart_at(8, NOW_MS)
    assert (it.high_watermark, it.log.log_start_offset, it.log.log_end_offset) == (8, 8, 8)


def test_a_follower_refuses_what_is_of_a_later_epoch_or_does_not_continue_its_log() -> None:
    _, data = leaders_bytes(3, epoch=EPOCH + 1)
    bench = Bench(state(leader=2))
    bench.it.append_as_follower(data, 3, 0, NOW_MS)
    assert bench.it.log.log_end_offset == bench.it.high_watermark == 0
    _, data = leaders_bytes(3)
    bench.it.append_as_follower(data, 3, 0, NOW_MS)
    with pytest.raises(KafkaError) as raised:
        bench.it.append_as_follower(data, 3, 0, NOW_MS)
    assert raised.value.code is ErrorCode.invalid_record
    assert bench.it.log.log_end_offset == 3


def test_the_high_watermark_that_was_written_down_is_believed_within_the_log() -> None:
    for written, expected in ((0, 0), (2, 2), (9, 3), (-5, 0)):
        disk = MemoryDisk()
        first = make_partition(disk, state(isr=(1,)))
        first.append(build_batch([Record(i, NOW_MS, None, b"v") for i in range(3)]), now_ms=NOW_MS)
        first.log.close()
        again = Partition(
            first.topic_partition,
            first.topic_id,
            state(leader=2),
            make_partition(disk, state(leader=2)).log,
            node_id=1,
            disk=disk,
            cluster=Surroundings(),
            high_watermark=written,
        )
        assert again.high_watermark == expected
