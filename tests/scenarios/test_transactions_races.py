"""Transactions of KIP-890 (Produce 12, EndTxn 5) by raw requests: the next one is faster than the end of the
one before, requests are late and come to a later one, and brokers are killed before something is repeated."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from test_transactions_versions import NONE, Transactional

from interop.process import BrokerProcess, wait_until
from interop.raw import RawClient, batch, produce_fields
from ottla.errors import ErrorCode

Producer = tuple[int, int]
STATE = "__transaction_state"


@pytest.fixture
def broker(ottla_process: Callable[..., BrokerProcess]) -> BrokerProcess:
    return ottla_process({"transaction.state.log.num.partitions": "1"})


class Racing(Transactional):
    """Nothing is added to a transaction but by Produce."""

    def produce(
        self, producer: Producer, value: bytes = b"x", *, sequence: int = 0, version: int = 12
    ) -> int:
        data = batch(
            value,
            producer_id=producer[0],
            producer_epoch=producer[1],
            base_sequence=sequence,
            transactional=True,
        )
        fields = {**produce_fields(self.name, data), "transactional_id": self.name}
        answer = self.client.call("Produce", version, **fields).responses[0].partition_responses[0]
        return int(answer.error_code)

    def ended(self, producer: Producer, *, commit: bool = True) -> Producer:
        """Who the producer of the next transaction is."""
        answer = self.end(producer, commit=commit)
        assert answer.error_code == NONE
        return answer.producer_id, answer.producer_epoch

    def states_written(self) -> int:
        """How many records of transactions there are."""
        return int(self.client.fetch(STATE).high_watermark)


@pytest.fixture
def racing(broker: BrokerProcess, name: str) -> Iterator[Racing]:
    made = Racing(RawClient(broker.bootstrap), name)
    yield made
    made.client.socket.close()


def test_the_next_transaction_does_not_wait_for_another_request(racing: Racing) -> None:
    """KAFKA-18575, 18654: its first Produce comes before the markers of the one before are written
    everywhere. It is not told to ask again, which costs clients some 20 ms each time."""
    producer = racing.begin()
    before = racing.states_written()
    for _ in range(100):
        assert racing.produce(producer) == NONE
        following = racing.ended(producer)
        assert following == (producer[0], producer[1] + 1)
        producer = following
    racing.wait_for("CompleteCommit")
    # Each is in there once: open, decided, done.
    assert racing.states_written() - before == 3 * 100


@pytest.mark.parametrize("commit", [True, False])
def test_an_end_that_is_late_does_not_end_a_later_transaction(racing: Racing, *, commit: bool) -> None:
    first = racing.begin()
    assert racing.produce(first) == NONE
    second = racing.ended(first, commit=True)
    assert racing.produce(second) == NONE
    assert racing.end(first, commit=commit).error_code == ErrorCode.producer_fenced
    state = racing.describe()
    assert (state.transaction_state, state.producer_epoch) == ("Ongoing", second[1])
    assert racing.produce(second, sequence=1) == NONE
    racing.ended(second)
    racing.wait_for("CompleteCommit")


def test_a_batch_that_is_late_does_not_get_into_a_later_transaction(racing: Racing) -> None:
    first = racing.begin()
    assert racing.produce(first) == NONE
    second = racing.ended(first, commit=False)
    racing.wait_for("CompleteAbort")
    # Neither while there is none,
    late = racing.produce(first, b"late", sequence=1)
    assert late == ErrorCode.invalid_producer_epoch
    assert racing.describe().transaction_state == "CompleteAbort"
    # nor into one that is open.
    assert racing.produce(second) == NONE
    assert racing.produce(first, b"late", sequence=1) == late
    racing.ended(second)
    racing.wait_for("CompleteCommit")
    assert b"late" not in racing.client.values(racing.name)


@pytest.mark.parametrize("version", [3, 10, 11])
def test_a_classic_batch_that_is_late_begins_nothing(racing: Racing, version: int) -> None:
    """Before KIP-890's protocol transactions share their epochs: what is late is known by it that nobody has
    added its partition, and would leave a transaction open that nobody ends (a hanging one)."""
    producer = racing.begin()
    assert racing.add(producer) == [NONE]
    assert racing.produce(producer, version=version) == NONE
    assert racing.end(producer, commit=False, version=4).error_code == NONE
    racing.wait_for("CompleteAbort")
    late = racing.produce(producer, b"late", sequence=1, version=version)
    known = ErrorCode.transaction_abortable if version >= 11 else ErrorCode.invalid_txn_state
    assert late == known
    assert racing.describe().transaction_state == "CompleteAbort"
    # Its record and its marker.
    assert racing.client.fetch(racing.name).high_watermark == 2


def test_what_is_asked_again_after_a_crash_gets_the_same_answer(
    broker: BrokerProcess, racing: Racing
) -> None:
    """KAFKA-20357: the answers of EndTxn and InitProducerId are lost with the broker that gave them."""
    first = racing.begin()
    assert racing.produce(first) == NONE
    second = racing.ended(first)
    crash(broker, racing)
    assert racing.ended(first) == second
    assert racing.produce(second) == NONE
    third = racing.ended(second, commit=False)
    crash(broker, racing)
    assert racing.ended(second, commit=False) == third
    begun = racing.init(producer=third)
    crash(broker, racing)
    again = racing.init(producer=third)
    assert (again.error_code, again.producer_id, again.producer_epoch) == (
        NONE,
        begun.producer_id,
        begun.producer_epoch,
    )


def crash(broker: BrokerProcess, racing: Racing) -> None:
    broker.kill()
    broker.start()
    racing.client.socket.close()
    racing.client = RawClient(broker.bootstrap)
    wait_until(lambda: racing.describe().error_code == NONE, what="its coordinator has loaded")
