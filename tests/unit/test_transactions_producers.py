"""InitProducerId with a transactional id, edge by edge, as Kafka's TransactionCoordinator has it."""

from __future__ import annotations

import pytest
from transactions_support import T0, T1, TransactionBench

from ottla.coordinators.transactions.metadata import NO_TIMEOUT_MS, TV_0
from ottla.errors import ErrorCode


def exhausted(bench: TransactionBench, epoch: int = 32_766, **fields: int) -> tuple[int, int]:
    """A producer at the last epoch that clients get."""
    bench.init()
    return bench.put(producer_epoch=epoch, **fields)


def test_a_new_id_begins_at_epoch_0_and_each_producer_fences_the_one_before() -> None:
    bench = TransactionBench()
    assert bench.init() == (1_000, 0)
    assert bench.init() == (1_000, 1)
    assert bench.add((1_000, 0)) == "producer_fenced"
    assert bench.end_error((1_000, 0)) == "producer_fenced"
    assert bench.add((1_000, 1)) == "none"
    assert bench.init(name="other") == (1_001, 0)


def test_what_is_wrong_with_a_request_is_said_whoever_coordinates_the_id() -> None:
    bench = TransactionBench(transaction_max_timeout_ms=900_000)
    assert bench.init_error(name="") == "invalid_request"
    assert bench.init_error(timeout_ms=0) == "invalid_transaction_timeout"
    assert bench.init_error(timeout_ms=900_001) == "invalid_transaction_timeout"
    assert bench.init_error(enable_2pc=True) == "transactional_id_authorization_failed"
    assert bench.init_error(keep_prepared=True) == "unsupported_version"
    assert bench.init(timeout_ms=900_000) == (1_000, 0)
    assert bench.init(timeout_ms=1) == (1_000, 1)
    assert bench.value().timeout_ms == 1


def test_a_two_phase_commit_has_no_timeout() -> None:
    bench = TransactionBench(transaction_two_phase_commit_enable=True)
    producer = bench.init(enable_2pc=True, timeout_ms=-5)
    assert bench.value().timeout_ms == NO_TIMEOUT_MS
    assert bench.init_error(enable_2pc=True, keep_prepared=True) == "unsupported_version"
    bench.add(producer)
    bench.wait(10**9)
    assert bench.state() == "Ongoing"


def test_while_a_producer_is_written_down_others_are_told_to_wait() -> None:
    bench = TransactionBench(auto_commit=False)
    first = bench.ask_init()
    assert bench.init_error() == "concurrent_transactions"
    assert bench.add((1_000, 0)) == "concurrent_transactions"
    assert bench.end_error((1_000, 0)) == "concurrent_transactions"
    assert bench.end_error((1_000, 0), version=TV_0) == "invalid_producer_id_mapping"
    assert first not in bench.replies
    bench.commit_all()
    assert bench.producer(first) == (1_000, 0)


def test_a_producer_that_cannot_be_written_down_has_not_begun() -> None:
    bench = TransactionBench(auto_commit=False)
    first = bench.ask_init()
    bench.fail_one(ErrorCode.not_enough_replicas)
    assert bench.error(first) == "coordinator_not_available"
    assert not bench.tables.pending
    again = bench.ask_init()
    bench.commit_all()
    # An id that nobody was told of is not used again; there are enough.
    assert bench.producer(again) == (1_001, 0)


def test_without_a_producer_id_at_hand_clients_are_to_try_again() -> None:
    bench = TransactionBench()
    bench.ids.are_out = True
    assert bench.init_error() == "coordinator_load_in_progress"
    assert not bench.tables.pending
    bench.ids.are_out = False
    assert bench.init() == (1_000, 0)


# -- producers that say what they have (KIP-360)


def test_a_producer_that_says_what_it_has_gets_the_next_epoch_and_the_same_if_it_asks_again() -> None:
    bench = TransactionBench()
    producer = bench.init()
    assert bench.init(producer) == (1_000, 1)
    assert bench.init(producer) == (1_000, 1)
    assert bench.init(producer) == (1_000, 1)
    assert bench.init((1_000, 1)) == (1_000, 2)
    assert bench.init_error(producer) == "producer_fenced"


def test_a_producer_that_another_has_followed_is_fenced() -> None:
    bench = TransactionBench()
    zombie = bench.init()
    assert bench.init() == (1_000, 1)
    assert bench.init_error(zombie) == "producer_fenced"
    assert bench.init_error((999, 0)) == "producer_fenced"
    assert bench.init_error((1_000, 2)) == "producer_fenced"


def test_a_producer_whose_id_has_expired_gets_a_new_one() -> None:
    assert TransactionBench().init((77, 5)) == (1_000, 0)


def test_a_retry_after_a_failover_gets_the_same_answer() -> None:
    """What Kafka keeps in memory only: the record of who has begun anew says from what (KAFKA-20357)."""
    bench = TransactionBench()
    producer = bench.init()
    bench.init(producer)
    bench.fail_over()
    assert bench.init(producer) == (1_000, 1)


@pytest.mark.parametrize("level", [0, 1, 2])
def test_a_retry_is_told_the_same_also_behind_a_classic_transaction(level: int) -> None:
    bench = TransactionBench()
    bench.level = level
    producer = bench.init()
    assert bench.init(producer) == (1_000, 1)
    assert bench.init(producer) == (1_000, 1)
    assert bench.add((1_000, 1), version=0) == "none"
    bench.end((1_000, 1), version=0)
    assert bench.init(producer) == (1_000, 1)
    assert bench.init((1_000, 1)) == (1_000, 2)
    assert bench.init_error(producer) == "producer_fenced"


def test_with_transaction_version_0_a_retry_after_a_failover_is_fenced() -> None:
    """Its records have no place for the epoch before."""
    bench = TransactionBench()
    bench.level = 0
    producer = bench.init()
    bench.init(producer)
    bench.fail_over()
    assert bench.init_error(producer) == "producer_fenced"


# -- epochs that are used up


def test_behind_the_last_epoch_comes_a_new_producer_id() -> None:
    bench = TransactionBench()
    exhausted(bench)
    assert bench.init() == (1_001, 0)
    assert bench.value().previous_producer_id == 1_000
    assert bench.add((1_000, 32_766)) == "invalid_producer_id_mapping"
    assert bench.add((1_001, 0)) == "none"


def test_the_epoch_before_the_last_still_has_one_behind_it() -> None:
    bench = TransactionBench()
    exhausted(bench, 32_765)
    assert bench.init() == (1_000, 32_766)


def test_a_rotation_that_fenced_the_old_producer_is_no_answer_for_it() -> None:
    bench = TransactionBench()
    zombie = exhausted(bench)
    bench.init()
    assert bench.init_error(zombie) == "producer_fenced"
    bench.fail_over()
    assert bench.init_error(zombie) == "producer_fenced"


def test_kafka_20310_and_20357_retry_of_a_rotation_after_a_failover() -> None:
    bench = TransactionBench()
    producer = exhausted(bench)
    assert bench.init(producer) == (1_001, 0)
    assert bench.init(producer) == (1_001, 0)
    bench.fail_over()
    assert bench.init(producer) == (1_001, 0)
    # And who goes on with it is not disturbed by who asks late.
    assert bench.add((1_001, 0)) == "none"
    bench.end((1_001, 0))
    assert bench.init_error(producer) == "producer_fenced"


def test_kafka_20310_failover_between_an_overflow_and_its_completion() -> None:
    bench = TransactionBench(auto_mark=False)
    producer = exhausted(bench)
    bench.add(producer)
    assert bench.end(producer) == (1_001, 0)
    assert (bench.value().producer_epoch, bench.value().next_producer_id) == (32_767, 1_001)
    bench.fail_over()
    bench.mark_one()
    assert (bench.value().producer_id, bench.value().producer_epoch) == (1_001, 0)
    # The client that has not had the answer asks again, of either kind.
    assert bench.end(producer) == (1_001, 0)
    assert bench.init(producer) == (1_001, 0)


def test_kafka_20090_the_very_last_epoch_is_written_read_and_left_again() -> None:
    """Epoch 32767 is never given to a client; brokers that had this wrong have left transactions at it."""
    bench = TransactionBench()
    producer = exhausted(bench)
    bench.add(producer)
    broken = bench.put(producer_epoch=32_767)
    bench.fail_over()
    assert bench.init_error() == "concurrent_transactions"
    assert bench.state() == "CompleteAbort"
    assert (bench.value().producer_id, bench.value().producer_epoch) == (1_001, 0)
    assert bench.init() == (1_001, 1)
    assert bench.add(broken) == "invalid_producer_id_mapping"


@pytest.mark.parametrize("version", [0, 2])
def test_kafka_20090_at_the_very_last_epoch_a_transaction_can_time_out(version: int) -> None:
    bench = TransactionBench()
    bench.level = version
    producer = exhausted(bench)
    bench.add(producer, version=version)
    bench.put(producer_epoch=32_767)
    bench.wait(80_000)
    assert bench.state() == "CompleteAbort"
    expected = (1_000, 32_767) if version == 0 else (1_001, 0)
    assert (bench.value().producer_id, bench.value().producer_epoch) == expected
    assert bench.init() == ((1_001, 0) if version == 0 else (1_001, 1))


# -- producers that come while a transaction is open


def test_what_is_open_is_aborted_first_and_the_producer_asks_again() -> None:
    bench = TransactionBench(auto_commit=False, auto_mark=False)
    ask = bench.ask_init()
    bench.commit_all()
    zombie = bench.producer(ask)
    bench.ask_add(zombie, T0, T1)
    bench.commit_all()
    first = bench.ask_init()
    assert first not in bench.replies
    assert bench.init_error() == "concurrent_transactions"
    bench.commit_one()
    assert bench.error(first) == "concurrent_transactions"
    assert bench.state() == "PrepareAbort"
    assert bench.init_error() == "concurrent_transactions"
    (markers,) = bench.markers
    assert markers.partitions == {T0, T1}
    assert not markers.commit
    assert (markers.producer_epoch, markers.transaction_version) == (1, 2)
    bench.mark_one(T0)
    assert bench.machine.describe("tx").partitions == {T1}
    bench.mark_one()
    bench.commit_all()
    assert bench.state() == "CompleteAbort"
    again = bench.ask_init()
    bench.commit_all()
    assert bench.producer(again) == (1_000, 2)


def test_kafka_19367_an_open_transaction_costs_one_epoch_and_the_new_producer_another() -> None:
    bench = TransactionBench()
    zombie = bench.init()
    bench.add(zombie)
    assert bench.init_error() == "concurrent_transactions"
    assert bench.value().producer_epoch == 1
    assert bench.init() == (1_000, 2)


def test_kafka_19367_an_abort_that_cannot_be_written_costs_no_epoch() -> None:
    bench = TransactionBench()
    producer = bench.init()
    bench.add(producer)
    bench.auto_commit = False
    for _ in range(3):
        asked = bench.ask_init()
        bench.fail_one(ErrorCode.not_enough_replicas)
        assert bench.error(asked) == "coordinator_not_available"
        assert bench.state() == "Ongoing"
    bench.auto_commit = True
    assert bench.init_error() == "concurrent_transactions"
    assert bench.init() == (1_000, 2)


def test_kafka_19367_the_last_epoch_is_not_passed_by_an_abort() -> None:
    bench = TransactionBench()
    producer = exhausted(bench)
    bench.add(producer)
    assert bench.init_error() == "concurrent_transactions"
    assert (bench.value().producer_id, bench.value().producer_epoch) == (1_001, 0)
    assert bench.init() == (1_001, 1)


def test_in_the_classic_protocol_the_fencing_epoch_is_written_with_the_abort() -> None:
    bench = TransactionBench(auto_mark=False)
    bench.level = TV_0
    producer = bench.init()
    bench.add(producer, version=TV_0)
    assert bench.init_error() == "concurrent_transactions"
    (markers,) = bench.markers
    assert (markers.producer_epoch, markers.transaction_version) == (1, 0)
    bench.mark_one()
    assert bench.init() == (1_000, 2)


def test_a_producer_that_says_what_it_has_may_end_its_own_transaction_so() -> None:
    bench = TransactionBench()
    producer = bench.init()
    bench.add(producer)
    assert bench.init_error(producer) == "concurrent_transactions"
    # The abort's epoch is the one that it would have had from EndTxn.
    assert bench.init(producer) == (1_000, 1)
    assert bench.init_error((5, 0)) == "producer_fenced"
