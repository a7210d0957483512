"""Transactions from their first partition to their last marker, in both protocols, edge by edge."""

from __future__ import annotations

import pytest
from transactions_support import T0, T1, U0, TransactionBench

from ottla.coordinators.transactions.metadata import TV_0, TV_2
from ottla.errors import ErrorCode
from ottla.types import TopicPartition


def open_transaction(bench: TransactionBench, *, version: int = TV_2) -> tuple[int, int]:
    producer = bench.init()
    assert bench.add(producer, version=version) == "none"
    return producer


# -- adding


def test_partitions_are_added_until_the_transaction_ends() -> None:
    bench = TransactionBench()
    producer = bench.init()
    assert bench.state() == "Empty"
    bench.wait(5)
    assert bench.add(producer, T0) == "none"
    began_ms = bench.wall_ms
    bench.wait(5)
    assert bench.add(producer, T1, U0) == "none"
    value = bench.value()
    assert (value.state.value, value.partitions) == ("Ongoing", {T0, T1, U0})
    assert (value.start_ms, value.last_update_ms) == (began_ms, bench.wall_ms)
    bench.wait(5)
    assert bench.end(producer) == (producer[0], 1)
    assert bench.state() == "CompleteCommit"
    assert bench.value().partitions == frozenset()
    assert bench.value().start_ms == began_ms
    bench.wait(5)
    assert bench.add((producer[0], 1), U0) == "none"
    assert bench.value().partitions == {U0}
    assert bench.value().start_ms == bench.wall_ms


def test_what_is_in_the_transaction_already_is_not_written_again() -> None:
    bench = TransactionBench()
    producer = bench.init()
    bench.add(producer, T0, T1)
    count = len(bench.log)
    assert bench.add(producer, T1) == "none"
    assert len(bench.log) == count


def test_who_may_not_add() -> None:
    bench = TransactionBench(auto_mark=False)
    assert bench.add((1, 0)) == "invalid_producer_id_mapping"
    producer = bench.init()
    assert bench.add((1, 0)) == "invalid_producer_id_mapping"
    assert bench.add((producer[0], 1)) == "producer_fenced"
    bench.add(producer)
    bench.end(producer)
    assert bench.add((producer[0], 1)) == "concurrent_transactions"


def test_partitions_that_cannot_be_written_down_are_not_in_the_transaction() -> None:
    bench = TransactionBench()
    producer = bench.init()
    bench.auto_commit = False
    added = bench.ask_add(producer)
    assert bench.verify(producer) == {T0: "transaction_abortable"}
    bench.fail_one(ErrorCode.not_leader_or_follower)
    assert bench.error(added) == "not_coordinator"
    assert bench.state() == "Empty"
    assert not bench.tables.ongoing


def test_a_transaction_has_at_most_what_one_record_can_hold() -> None:
    bench = TransactionBench()
    producer = bench.init()
    # As long as names of topics can be: some 3,800 fit.
    longest = [TopicPartition(f"{index:x>249}", 0) for index in range(4_000)]
    few = [TopicPartition("t", index) for index in range(700)]
    assert bench.add(producer, *longest[:3_700]) == "none"
    assert bench.add(producer, *few) == "none"
    assert bench.add(producer, *longest[3_700:]) == "unknown_server_error"
    assert bench.value().partitions == {*longest[:3_700], *few}
    assert bench.end(producer) == (producer[0], 1)


def test_verification_tells_what_is_in_an_open_transaction() -> None:
    bench = TransactionBench(auto_mark=False)
    assert bench.verify((1, 0)) == {T0: "invalid_producer_id_mapping"}
    producer = bench.init()
    assert bench.verify(producer) == {T0: "transaction_abortable"}
    bench.add(producer, T0)
    assert bench.verify(producer, T0, T1) == {T0: "none", T1: "transaction_abortable"}
    assert bench.verify((producer[0], 3)) == {T0: "producer_fenced"}
    bench.end(producer, version=TV_0)
    assert bench.verify(producer) == {T0: "concurrent_transactions"}
    bench.mark_one()
    assert bench.verify(producer) == {T0: "transaction_abortable"}


# -- ending, in the classic protocol


@pytest.mark.parametrize("commit", [True, False])
def test_the_classic_protocol_keeps_the_epoch(commit: bool) -> None:
    bench = TransactionBench(auto_mark=False)
    producer = open_transaction(bench, version=TV_0)
    assert bench.end(producer, commit=commit, version=TV_0) == (-1, -1)
    (markers,) = bench.markers
    assert (markers.producer_id, markers.producer_epoch) == producer
    assert (markers.commit, markers.transaction_version) == (commit, 0)
    assert bench.end_error(producer, commit=commit, version=TV_0) == "concurrent_transactions"
    bench.mark_one()
    assert bench.state() == ("CompleteCommit" if commit else "CompleteAbort")
    # Asked again, since the answer was lost.
    assert bench.end_error(producer, commit=commit, version=TV_0) == "none"
    assert bench.end_error(producer, commit=not commit, version=TV_0) == "invalid_txn_state"
    assert bench.add(producer, version=TV_0) == "none"


def test_the_classic_protocol_ends_nothing_that_has_not_begun() -> None:
    bench = TransactionBench()
    assert bench.end_error((1, 0), version=TV_0) == "invalid_producer_id_mapping"
    producer = bench.init()
    assert bench.end_error(producer, version=TV_0) == "invalid_txn_state"
    assert bench.end_error(producer, commit=False, version=TV_0) == "invalid_txn_state"
    assert bench.end_error((producer[0], 1), version=TV_0) == "producer_fenced"
    assert bench.end_error((5, 0), version=TV_0) == "invalid_producer_id_mapping"


# -- ending, in KIP-890's


@pytest.mark.parametrize("commit", [True, False])
def test_each_transaction_has_an_epoch_of_its_own(commit: bool) -> None:
    bench = TransactionBench(auto_mark=False)
    producer_id, epoch = open_transaction(bench)
    assert bench.end((producer_id, epoch), commit=commit) == (producer_id, epoch + 1)
    (markers,) = bench.markers
    assert (markers.producer_id, markers.producer_epoch) == (producer_id, epoch + 1)
    assert (markers.commit, markers.transaction_version) == (commit, 2)
    assert bench.end_error((producer_id, epoch), commit=commit) == "concurrent_transactions"
    bench.mark_one()
    assert bench.end((producer_id, epoch), commit=commit) == (producer_id, epoch + 1)
    assert bench.end_error((producer_id, epoch), commit=not commit) == "invalid_txn_state"


# What a request is told at rest: Kafka's table beside TransactionCoordinator.endTransaction. A retry has the
# epoch before the present one.
AT_REST = [
    ("Empty", False, False, "none"),
    ("Empty", False, True, "invalid_txn_state"),
    ("Empty", True, False, "producer_fenced"),
    ("Empty", True, True, "producer_fenced"),
    ("CompleteAbort", False, False, "none"),
    ("CompleteAbort", False, True, "invalid_txn_state"),
    ("CompleteAbort", True, False, "none"),
    ("CompleteAbort", True, True, "invalid_txn_state"),
    ("CompleteCommit", False, False, "none"),
    ("CompleteCommit", False, True, "invalid_txn_state"),
    ("CompleteCommit", True, False, "invalid_txn_state"),
    ("CompleteCommit", True, True, "none"),
]


@pytest.mark.parametrize(("state", "is_retry", "commit", "error"), AT_REST)
def test_what_is_ended_at_rest(state: str, is_retry: bool, commit: bool, error: str) -> None:
    bench = TransactionBench()
    if state == "Empty":
        bench.init()
        producer_id, epoch = bench.init()
    else:
        producer_id, epoch = bench.end(open_transaction(bench), commit=state == "CompleteCommit")
    assert bench.state() == state
    asked = bench.ask_end((producer_id, epoch - is_retry), commit=commit)
    assert bench.error(asked) == error
    if error == "none":
        # A repetition changes nothing; an abort of what may have begun takes an epoch.
        assert bench.producer(asked) == (producer_id, epoch + (not is_retry))
        assert bench.state() == (state if is_retry else "CompleteAbort")


def test_kafka_18401_a_commit_with_no_records_is_none() -> None:
    """Whoever has written nothing has nothing to commit: clients do not ask, and are told so."""
    bench = TransactionBench()
    producer = bench.init()
    assert bench.end_error(producer) == "invalid_txn_state"
    assert bench.end(producer, commit=False) == (producer[0], 1)
    assert bench.value().start_ms == bench.wall_ms
    assert not bench.decided
    assert bench.end_error((producer[0], 1)) == "invalid_txn_state"


def test_kafka_18464_an_empty_abort_waits_for_the_markers_of_a_commit() -> None:
    bench = TransactionBench(auto_mark=False)
    producer = open_transaction(bench)
    following = bench.end(producer)
    assert bench.end_error(following, commit=False) == "concurrent_transactions"
    assert bench.state() == "PrepareCommit"
    bench.mark_one()
    assert bench.end(following, commit=False) == (producer[0], 2)
    assert bench.state() == "CompleteAbort"


def test_kafka_18660_behind_the_last_epoch_comes_a_new_id_and_nobody_fences_itself() -> None:
    bench = TransactionBench(auto_mark=False)
    open_transaction(bench)
    old = bench.put(producer_epoch=32_766)
    new = bench.end(old)
    assert new == (1_001, 0)
    # The client may begin at once, while only the old id is in the log.
    assert bench.add(new) == "concurrent_transactions"
    assert bench.end_error(new, commit=False) == "concurrent_transactions"
    assert bench.end_error(old) == "concurrent_transactions"
    (markers,) = bench.markers
    assert (markers.producer_id, markers.producer_epoch) == (old[0], 32_767)
    bench.mark_one()
    assert bench.end(old) == new
    assert bench.end_error(old, commit=False) == "invalid_txn_state"
    assert bench.add(new) == "none"
    assert bench.end(new) == (1_001, 1)
    bench.mark_one()
    assert bench.end_error(old) == "invalid_producer_id_mapping"


def test_at_the_end_of_the_epochs_and_without_a_new_id_at_hand_nothing_is_decided() -> None:
    bench = TransactionBench()
    open_transaction(bench)
    producer = bench.put(producer_epoch=32_766)
    bench.ids.are_out = True
    assert bench.end_error(producer) == "coordinator_load_in_progress"
    assert bench.init_error() == "coordinator_load_in_progress"
    assert bench.state() == "Ongoing"
    bench.ids.are_out = False
    assert bench.end(producer) == (1_001, 0)


def test_an_id_that_never_was_replaced_has_no_overflow_to_repeat() -> None:
    """The last epoch of the very id that a classic producer has at epoch 0 is nobody's."""
    bench = TransactionBench()
    producer = open_transaction(bench, version=TV_0)
    bench.end(producer, version=TV_0)
    assert bench.end_error((producer[0], 32_766)) == "producer_fenced"


# -- what comes late


def test_jepsen_a_delayed_end_does_not_reach_a_later_transaction() -> None:
    bench = TransactionBench()
    first = open_transaction(bench)
    second = bench.end(first)
    bench.add(second, T1)
    assert bench.end_error(first) == "producer_fenced"
    assert bench.end_error(first, commit=False) == "producer_fenced"
    assert bench.state() == "Ongoing"
    assert bench.add(first, U0) == "producer_fenced"
    assert bench.value().partitions == {T1}


def test_jepsen_the_classic_protocol_cannot_tell_a_delayed_end() -> None:
    """Why KIP-890 came: the request is the very one that the later transaction would end with."""
    bench = TransactionBench()
    producer = open_transaction(bench, version=TV_0)
    bench.end(producer, version=TV_0)
    bench.add(producer, T1, version=TV_0)
    assert bench.end_error(producer, version=TV_0) == "none"
    assert bench.state() == "CompleteCommit"
    # It does fence what is of an earlier producer.
    bench.init()
    assert bench.end_error(producer, version=TV_0) == "producer_fenced"


def test_a_duplicate_commit_after_a_timeout_is_refused() -> None:
    bench = TransactionBench()
    producer = open_transaction(bench)
    bench.wait(80_000)
    assert bench.state() == "CompleteAbort"
    assert bench.end_error(producer) == "invalid_txn_state"
    # An abort is what it has come to.
    assert bench.end(producer, commit=False) == (producer[0], 1)


def test_a_duplicate_commit_after_a_timeout_is_refused_in_the_classic_protocol() -> None:
    bench = TransactionBench()
    bench.level = TV_0
    producer = open_transaction(bench, version=TV_0)
    bench.wait(80_000)
    assert bench.state() == "CompleteAbort"
    assert bench.end_error(producer, version=TV_0) == "producer_fenced"
    assert bench.end_error(producer, commit=False, version=TV_0) == "producer_fenced"


def test_the_next_transaction_races_the_markers_of_the_one_before() -> None:
    """KAFKA-18575, 18654: until then its first partition is to be asked for again, and nothing is lost."""
    bench = TransactionBench(auto_mark=False)
    first = open_transaction(bench)
    second = bench.end(first)
    assert bench.add(second) == "concurrent_transactions"
    bench.mark_one()
    assert bench.add(second) == "none"
    assert bench.end(second, commit=False) == (first[0], 2)
    assert [markers.commit for markers in bench.decided] == [True, False]


# -- writes and markers that fail


def test_a_decision_that_cannot_be_written_is_none() -> None:
    bench = TransactionBench()
    producer = open_transaction(bench)
    bench.auto_commit = False
    asked = bench.ask_end(producer)
    assert bench.end_error(producer, commit=False) == "concurrent_transactions"
    bench.fail_one(ErrorCode.not_enough_replicas)
    assert bench.error(asked) == "coordinator_not_available"
    assert not bench.decided
    bench.auto_commit = True
    # Nothing was decided: the other way is free.
    assert bench.end(producer, commit=False) == (producer[0], 1)


def test_a_completion_that_cannot_be_written_is_tried_again() -> None:
    bench = TransactionBench()
    producer = open_transaction(bench)
    bench.auto_commit = False
    bench.ask_end(producer)
    bench.commit_one()
    for _ in range(3):
        bench.fail_one(ErrorCode.not_enough_replicas)
        assert bench.state() == "PrepareCommit"
        assert bench.add((producer[0], 1)) == "concurrent_transactions"
        bench.wait(99)
        assert not bench.tables.in_flight
        bench.wait(1)
    bench.commit_all()
    assert bench.state() == "CompleteCommit"
    assert not bench.tables.retries


def test_outcomes_of_markers_that_nobody_waits_for_change_nothing() -> None:
    bench = TransactionBench(auto_mark=False)
    producer = open_transaction(bench)
    second = bench.end(producer)
    (first,) = bench.markers
    bench.mark_one()
    bench.add(second, T0)
    bench.marked(first, T0)
    assert bench.state() == "Ongoing"
    bench.end(second)
    # Those of the first transaction are none of the second.
    bench.marked(first, T0)
    assert bench.state() == "PrepareCommit"
    bench.mark_one()
    assert bench.state() == "CompleteCommit"


@pytest.mark.parametrize("commit", [True, False])
def test_kafka_19999_what_was_decided_is_finished_by_whoever_takes_over(commit: bool) -> None:
    """Its markers are sent again, at the same epoch: also those that had been written."""
    bench = TransactionBench(auto_mark=False)
    producer = bench.init()
    bench.add(producer, T0, T1)
    bench.end(producer, commit=commit)
    bench.mark_one(T0)
    (first, *_) = bench.decided
    bench.fail_over()
    (again,) = bench.markers
    assert again == first
    assert bench.add((producer[0], 1)) == "concurrent_transactions"
    bench.mark_one()
    assert bench.state() == ("CompleteCommit" if commit else "CompleteAbort")
    assert bench.end(producer, commit=commit) == (producer[0], 1)


def test_who_takes_over_sends_the_markers_of_one_transaction_at_a_time() -> None:
    bench = TransactionBench(auto_mark=False)
    for number in range(3):
        name = f"tx-{number}"
        producer = bench.init(name=name)
        bench.add(producer, T0, T1, name=name)
        bench.end(producer, name=name)
    pieces = bench.machine.loading()
    next(pieces)
    for number in range(3):
        step = bench.step()
        pieces.send(step)
        assert [each.transactional_id for each in step.effects] == [f"tx-{number}"]
    with pytest.raises(StopIteration):
        pieces.send(bench.step())


def test_a_transaction_without_partitions_is_finished_by_whoever_takes_over() -> None:
    bench = TransactionBench()
    producer = bench.init()
    bench.auto_commit = False
    bench.ask_end(producer, commit=False)
    bench.commit_one()
    assert bench.state() == "PrepareAbort"
    bench.fail_over()
    bench.commit_all()
    assert bench.state() == "CompleteAbort"


def test_who_waits_when_another_node_takes_over_is_told_to_look_for_it() -> None:
    bench = TransactionBench(auto_commit=False)
    asked = [bench.ask_init(name=name) for name in ("a", "b")]
    bench.fail_over()
    assert [bench.error(each) for each in asked] == ["not_coordinator"] * 2
    assert not bench.log


def test_levels_of_the_feature_decide_what_records_look_like() -> None:
    bench = TransactionBench()
    bench.level = 0
    producer = open_transaction(bench, version=TV_0)
    assert [record.version for record in bench.log] == [0, 0]
    assert bench.value().previous_producer_id == -1
    bench.level = 1
    bench.end(producer, version=TV_0)
    assert [record.version for record in bench.log[2:]] == [1, 1]
    assert bench.value().previous_producer_id == producer[0]


def test_what_is_shown_of_a_transaction() -> None:
    bench = TransactionBench(auto_mark=False)
    assert bench.machine.describe("tx").error == ErrorCode.transactional_id_not_found
    producer = bench.init(timeout_ms=7_000)
    shown = bench.machine.describe("tx")
    assert (shown.state, shown.timeout_ms, shown.start_ms) == ("Empty", 7_000, -1)
    assert not shown.partitions
    bench.add(producer, T0)
    shown = bench.machine.describe("tx")
    assert (shown.state, shown.start_ms, shown.partitions) == ("Ongoing", bench.wall_ms, {T0})
    bench.init(name="other")
    assert [(each.transactional_id, each.state) for each in bench.machine.transactions()] == [
        ("tx", "Ongoing"),
        ("other", "Empty"),
    ]


# -- who waits for the transaction before


def test_the_next_transaction_waits_a_moment_for_the_one_before() -> None:
    bench = TransactionBench(auto_mark=False)
    producer = open_transaction(bench)
    following = bench.end(producer)
    added = bench.ask_add(following, T1, may_wait=True)
    assert added not in bench.replies
    bench.wait(99)
    bench.mark_one()
    assert bench.error(added) == "none"
    assert (bench.state(), bench.value().partitions) == ("Ongoing", {T1})


def test_who_has_waited_for_long_is_told_to_ask_again() -> None:
    bench = TransactionBench(auto_mark=False)
    following = bench.end(open_transaction(bench))
    added = bench.ask_add(following, may_wait=True)
    bench.wait(99)
    assert added not in bench.replies
    bench.wait(1)
    assert bench.error(added) == "concurrent_transactions"
    bench.mark_one()
    assert bench.state() == "CompleteCommit"


def test_one_waits_at_a_time_and_of_others_nobody() -> None:
    bench = TransactionBench(auto_mark=False)
    producer = open_transaction(bench)
    following = bench.end(producer)
    assert bench.add(producer, may_wait=True) == "concurrent_transactions"
    assert bench.add((5, 1), may_wait=True) == "concurrent_transactions"
    first = bench.ask_add(following, may_wait=True)
    assert bench.add(following, may_wait=True) == "concurrent_transactions"
    bench.fail_over()
    assert bench.error(first) == "not_coordinator"
    never = TransactionBench(auto_mark=False, add_partitions_wait_ms=0)
    assert never.add(never.end(open_transaction(never)), may_wait=True) == "concurrent_transactions"


def test_who_waits_is_not_told_before_the_end_is_written() -> None:
    bench = TransactionBench()
    producer = open_transaction(bench)
    bench.auto_commit = False
    bench.ask_end(producer)
    bench.commit_one()
    added = bench.ask_add((producer[0], 1), may_wait=True)
    bench.fail_one()
    assert added not in bench.replies
    bench.auto_commit = True
    bench.wait(100)
    assert bench.error(added) == "concurrent_transactions"
    assert bench.state() == "CompleteCommit"
