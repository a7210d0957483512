"""Transactions that take too long, and transactional ids that nobody uses any more."""

from __future__ import annotations

from transactions_support import T0, TransactionBench

from ottla.coordinators.runtime.pieces import PIECE
from ottla.coordinators.runtime.step import NEVER_MS
from ottla.coordinators.transactions.expiry import WRITTEN_AT_ONCE
from ottla.coordinators.transactions.metadata import TV_0
from ottla.errors import ErrorCode

WEEK_MS = 604_800_000


def test_without_ids_nothing_ever_wakes() -> None:
    assert TransactionBench().machine.wake_ms == NEVER_MS


def test_a_transaction_that_takes_too_long_is_aborted_and_its_producer_fenced() -> None:
    bench = TransactionBench(abort_timed_out_interval_ms=10_000)
    producer = bench.init(timeout_ms=15_000)
    bench.add(producer)
    bench.wait(10_000)
    assert bench.state() == "Ongoing"
    bench.wait(9_999)
    assert bench.state() == "Ongoing"
    bench.wait(1)
    assert bench.state() == "CompleteAbort"
    assert [markers.commit for markers in bench.decided] == [False]
    assert bench.add(producer) == "producer_fenced"
    # It may go on, as whoever knows what it had.
    assert bench.init(producer) == (producer[0], 1)


def test_to_the_very_millisecond_of_its_timeout_a_transaction_may_go_on() -> None:
    bench = TransactionBench(abort_timed_out_interval_ms=10_000)
    producer = bench.init(timeout_ms=10_000)
    bench.add(producer)
    bench.wait(10_000)
    assert bench.state() == "Ongoing"
    bench.wait(10_000)
    assert bench.state() == "CompleteAbort"


def test_in_the_classic_protocol_a_timeout_fences_by_an_epoch_of_its_own() -> None:
    bench = TransactionBench()
    bench.level = TV_0
    producer = bench.init()
    bench.add(producer, version=TV_0)
    bench.wait(80_000)
    assert (bench.state(), bench.value().producer_epoch) == ("CompleteAbort", 1)
    assert bench.init_error(producer) == "producer_fenced"
    assert bench.init() == (producer[0], 2)


def test_an_abort_that_cannot_be_written_is_tried_at_the_next_look() -> None:
    bench = TransactionBench()
    producer = bench.init(timeout_ms=1)
    bench.add(producer)
    bench.auto_commit = False
    bench.wait(10_000)
    bench.fail_one(ErrorCode.not_enough_replicas)
    assert bench.state() == "Ongoing"
    bench.auto_commit = True
    bench.wait(9_999)
    assert bench.state() == "Ongoing"
    bench.wait(1)
    assert bench.state() == "CompleteAbort"
    assert bench.value().producer_epoch == 1


def test_without_a_producer_id_at_hand_a_timeout_waits_for_the_next_look() -> None:
    bench = TransactionBench()
    producer = bench.init(timeout_ms=1)
    bench.add(producer)
    bench.put(producer_epoch=32_766)
    bench.ids.are_out = True
    bench.wait(10_000)
    assert bench.state() == "Ongoing"
    bench.ids.are_out = False
    bench.wait(10_000)
    assert bench.state() == "CompleteAbort"


def test_what_is_about_to_end_does_not_time_out() -> None:
    bench = TransactionBench()
    producer = bench.init(timeout_ms=1)
    bench.add(producer)
    bench.auto_commit = False
    asked = bench.ask_end(producer)
    bench.wait(20_000)
    assert len(bench.tables.in_flight) == 1
    bench.commit_all()
    assert bench.error(asked) == "none"
    assert bench.state() == "CompleteCommit"


def test_many_transactions_time_out_in_pieces() -> None:
    bench = TransactionBench()
    for index in range(2 * PIECE + 1):
        name = f"tx-{index}"
        bench.add(bench.init(name=name, timeout_ms=1), name=name)
    bench.wait(10_000)
    assert {value.state.value for value in bench.tables.metadata.values()} == {"CompleteAbort"}
    assert not bench.tables.ongoing


def test_few_are_aborted_or_removed_at_a_time_and_more_looked_at() -> None:
    """What is written costs an append, and markers."""
    bench = TransactionBench()
    for index in range(WRITTEN_AT_ONCE + 10):
        name = f"tx-{index}"
        bench.add(bench.init(name=name, timeout_ms=1), name=name)
    bench.now_ms += 60_000
    bench.machine.expire(bench.step())
    written = []
    while bench.machine.has_work:
        step = bench.step()
        bench.machine.work(step)
        written.append(len(step.writes))
    assert [count for count in written if count] == [WRITTEN_AT_ONCE, 10]


def test_after_a_failover_open_transactions_still_time_out() -> None:
    bench = TransactionBench()
    bench.add(bench.init())
    bench.fail_over()
    bench.wait(80_000)
    assert bench.state() == "CompleteAbort"


def test_an_id_that_nobody_uses_is_forgotten() -> None:
    bench = TransactionBench(remove_expired_interval_ms=3_600_000)
    used, idle = bench.init(name="used"), bench.init(name="idle")
    bench.wait(WEEK_MS - 3_600_000)
    bench.end(used, commit=False, name="used")
    bench.wait(3_600_000 - 1)
    assert set(bench.tables.metadata) == {"used", "idle"}
    bench.wait(1)
    assert set(bench.tables.metadata) == {"used"}
    assert bench.log[-1] == ("idle", None, 1)
    assert bench.add(idle, name="idle") == "invalid_producer_id_mapping"
    # Whoever comes back is a new producer.
    assert bench.init(idle, name="idle") == (1_002, 0)


def test_an_id_with_an_open_transaction_is_kept() -> None:
    bench = TransactionBench(transaction_two_phase_commit_enable=True)
    bench.add(bench.init(enable_2pc=True), T0)
    bench.wait(2 * WEEK_MS)
    assert bench.state() == "Ongoing"


def test_while_an_id_is_being_removed_nobody_may_use_it() -> None:
    bench = TransactionBench()
    producer = bench.init()
    bench.auto_commit = False
    bench.wait(WEEK_MS + 3_600_000)
    assert len(bench.tables.in_flight) == 1
    assert bench.add(producer) == "concurrent_transactions"
    assert bench.init_error() == "concurrent_transactions"
    bench.fail_one()
    added = bench.ask_add(producer)
    bench.commit_all()
    assert bench.error(added) == "none"
    assert bench.state() == "Ongoing"
