"""Transactions by raw requests: every API of theirs at every version, one node, real sockets."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from interop.process import BrokerProcess
from interop.raw import RawClient
from ottla.errors import ErrorCode
from ottla.wire.apis import BY_NAME

NONE = ErrorCode.none


def versions(api: str) -> Any:
    found = BY_NAME[api]
    return pytest.mark.parametrize("version", range(found.version_min, found.version_max + 1))


@pytest.fixture(scope="module")
def broker(ottla_process_module: Callable[..., BrokerProcess]) -> BrokerProcess:
    return ottla_process_module({"transaction.state.log.num.partitions": "3"})


@pytest.fixture
def client(broker: BrokerProcess) -> Iterator[RawClient]:
    with RawClient(broker.bootstrap) as connection:
        yield connection


class Transactional:
    """A producer of one transactional id, by hand."""

    def __init__(self, client: RawClient, name: str) -> None:
        self.client = client
        self.name = name
        assert client.create_topic(name, 2).error_code == NONE
        answer = client.call("FindCoordinator", 4, key_type=1, coordinator_keys=[name])
        assert [(one.error_code, one.node_id) for one in answer.coordinators] == [(NONE, 1)]

    def init(self, version: int = 5, producer: tuple[int, int] = (-1, -1), timeout_ms: int = 60_000) -> Any:
        return self.client.call(
            "InitProducerId",
            version,
            transactional_id=self.name,
            transaction_timeout_ms=timeout_ms,
            producer_id=producer[0],
            producer_epoch=producer[1],
        )

    def begin(self) -> tuple[int, int]:
        answer = self.init()
        assert answer.error_code == NONE
        return answer.producer_id, answer.producer_epoch

    def add(
        self, producer: tuple[int, int], *partitions: int, version: int = 3, topic: str = ""
    ) -> list[int]:
        """The errors of partitions, by their numbers."""
        topics = [{"name": topic or self.name, "partitions": partitions or (0,)}]
        if version < 4:
            answer = self.client.call(
                "AddPartitionsToTxn",
                version,
                v3_and_below_transactional_id=self.name,
                v3_and_below_producer_id=producer[0],
                v3_and_below_producer_epoch=producer[1],
                v3_and_below_topics=topics,
            )
            results = answer.results_by_topic_v3_and_below
        else:
            results = self.ask(producer, topics, version=version, verify_only=False)
        return errors_of(results)

    def ask(
        self, producer: tuple[int, int], topics: list[dict[str, Any]], *, version: int, verify_only: bool
    ) -> Any:
        one = {
            "transactional_id": self.name,
            "producer_id": producer[0],
            "producer_epoch": producer[1],
            "verify_only": verify_only,
            "topics": topics,
        }
        answer = self.client.call("AddPartitionsToTxn", version, transactions=[one])
        assert answer.error_code == NONE
        (result,) = answer.results_by_transaction
        assert result.transactional_id == self.name
        return result.topic_results

    def verify(self, producer: tuple[int, int], *partitions: int, version: int = 5) -> list[int]:
        topics = [{"name": self.name, "partitions": partitions}]
        return errors_of(self.ask(producer, topics, version=version, verify_only=True))

    def end(self, producer: tuple[int, int], *, commit: bool = True, version: int = 5) -> Any:
        return self.client.call(
            "EndTxn",
            version,
            transactional_id=self.name,
            producer_id=producer[0],
            producer_epoch=producer[1],
            committed=commit,
        )

    def describe(self) -> Any:
        answer = self.client.call("DescribeTransactions", 0, transactional_ids=[self.name])
        (state,) = answer.transaction_states
        return state

    def wait_for(self, state: str) -> None:
        deadline = time.monotonic() + 60
        while self.describe().transaction_state != state:
            assert time.monotonic() < deadline, self.describe()
            time.sleep(0.01)


def errors_of(results: Any) -> list[int]:
    errors = {
        one.partition_index: one.partition_error_code
        for topic in results
        for one in topic.results_by_partition
    }
    return [errors[index] for index in sorted(errors)]


@pytest.fixture
def transactional(client: RawClient, name: str) -> Transactional:
    return Transactional(client, name)


@versions("InitProducerId")
def test_init_producer_id(transactional: Transactional, version: int) -> None:
    first = transactional.init(version)
    assert (first.error_code, first.producer_epoch) == (NONE, 0)
    second = transactional.init(version)
    assert (second.error_code, second.producer_id, second.producer_epoch) == (NONE, first.producer_id, 1)
    if version >= 3:
        fenced = transactional.init(version, (first.producer_id, 0))
        old = ErrorCode.invalid_producer_epoch
        assert fenced.error_code == (ErrorCode.producer_fenced if version >= 4 else old)
        assert (fenced.producer_id, fenced.producer_epoch) == (-1, -1)
    assert transactional.init(version, timeout_ms=10**9).error_code == ErrorCode.invalid_transaction_timeout


@versions("AddPartitionsToTxn")
def test_add_partitions_to_txn(transactional: Transactional, version: int) -> None:
    producer = transactional.begin()
    assert transactional.add(producer, 0, 1, version=version) == [NONE, NONE]
    state = transactional.describe()
    assert [(one.topic, sorted(one.partitions)) for one in state.topics] == [(transactional.name, [0, 1])]
    old = ErrorCode.invalid_producer_epoch
    fenced = ErrorCode.producer_fenced if version >= 2 else old
    assert transactional.add((producer[0], 7), 1, version=version) == [fenced]
    unknown = [ErrorCode.operation_not_attempted, ErrorCode.unknown_topic_or_partition]
    assert transactional.add(producer, 1, 9, version=version) == unknown
    internal = ErrorCode.topic_authorization_failed if version < 4 else NONE
    assert transactional.add(producer, 0, version=version, topic="__transaction_state") == [internal]


@pytest.mark.parametrize("version", [4, 5])
def test_verification(transactional: Transactional, version: int) -> None:
    producer = transactional.begin()
    transactional.add(producer, 0)
    abortable = ErrorCode.transaction_abortable
    assert transactional.verify(producer, 0, 1, version=version) == [NONE, abortable]
    another = (producer[0] + 1_000, 0)
    assert transactional.verify(another, 0, version=version) == [ErrorCode.invalid_producer_id_mapping]


@pytest.mark.parametrize("verify_only", [True, False])
def test_very_many_transactions_are_asked_for_in_pieces(
    transactional: Transactional, verify_only: bool
) -> None:
    producer_id, epoch = transactional.begin()
    topics = [{"name": transactional.name, "partitions": [0]}]
    names = [transactional.name, *(f"{transactional.name}-{number}" for number in range(1_500))]
    asked = [
        {
            "transactional_id": name,
            "producer_id": producer_id,
            "producer_epoch": epoch,
            "verify_only": verify_only,
            "topics": topics,
        }
        for name in names
    ]
    answer = transactional.client.call("AddPartitionsToTxn", 5, transactions=asked)
    results = answer.results_by_transaction
    assert [one.transactional_id for one in results] == names
    first = ErrorCode.transaction_abortable if verify_only else NONE
    unknown = ErrorCode.invalid_producer_id_mapping
    assert [errors_of(one.topic_results) for one in results] == [[first]] + [[unknown]] * 1_500


@versions("AddOffsetsToTxn")
def test_add_offsets_to_txn(transactional: Transactional, version: int) -> None:
    producer = transactional.begin()
    client = transactional.client
    fields = {"transactional_id": transactional.name, "group_id": "g", "producer_id": producer[0]}
    assert client.call("AddOffsetsToTxn", version, **fields, producer_epoch=0).error_code == NONE
    assert [one.topic for one in transactional.describe().topics] == ["__consumer_offsets"]
    old = ErrorCode.invalid_producer_epoch
    fenced = client.call("AddOffsetsToTxn", version, **fields, producer_epoch=5).error_code
    assert fenced == (ErrorCode.producer_fenced if version >= 2 else old)


@versions("EndTxn")
def test_end_txn(transactional: Transactional, version: int) -> None:
    producer_id, epoch = transactional.begin()
    for commit in (True, False):
        assert transactional.add((producer_id, epoch), 0, 1) == [NONE, NONE]
        answer = transactional.end((producer_id, epoch), commit=commit, version=version)
        assert answer.error_code == NONE
        if version >= 5:
            assert (answer.producer_id, answer.producer_epoch) == (producer_id, epoch + 1)
            epoch += 1
        transactional.wait_for("CompleteCommit" if commit else "CompleteAbort")
    fenced = transactional.end((producer_id, 9), version=version).error_code
    assert fenced == (ErrorCode.producer_fenced if version >= 2 else ErrorCode.invalid_producer_epoch)


@versions("WriteTxnMarkers")
def test_write_txn_markers(transactional: Transactional, version: int) -> None:
    marker = {
        "producer_id": 4_000,
        "producer_epoch": 0,
        "transaction_result": True,
        "topics": [
            {"name": transactional.name, "partition_indexes": [0, 1, 7]},
            {"name": "no-such-topic", "partition_indexes": [0]},
        ],
        "coordinator_epoch": 0,
        "transaction_version": 0,
    }
    answer = transactional.client.call("WriteTxnMarkers", version, markers=[marker])
    (result,) = answer.markers
    assert result.producer_id == 4_000
    told = {
        (topic.name, one.partition_index): one.error_code
        for topic in result.topics
        for one in topic.partitions
    }
    unknown = ErrorCode.unknown_topic_or_partition
    assert told == {
        (transactional.name, 0): NONE,
        (transactional.name, 1): NONE,
        (transactional.name, 7): unknown,
        ("no-such-topic", 0): unknown,
    }
    assert transactional.client.call("WriteTxnMarkers", version, markers=[]).markers == ()


@pytest.mark.parametrize("producer", [(-1, 0), (4_000, -1)])
def test_markers_of_no_producer_are_not_written(
    transactional: Transactional, producer: tuple[int, int]
) -> None:
    """Kafka fails where it would make a batch of them, and tells UNKNOWN_SERVER_ERROR."""
    marker = {
        "producer_id": producer[0],
        "producer_epoch": producer[1],
        "transaction_result": False,
        "topics": [{"name": transactional.name, "partition_indexes": [0]}],
        "coordinator_epoch": 0,
        "transaction_version": 0,
    }
    (result,) = transactional.client.call("WriteTxnMarkers", 2, markers=[marker]).markers
    assert result.producer_id == producer[0]
    assert result.topics[0].partitions[0].error_code == ErrorCode.invalid_request


def test_describe_transactions(transactional: Transactional) -> None:
    client = transactional.client
    answer = client.call("DescribeTransactions", 0, transactional_ids=["nobody", "", transactional.name])
    missing = ErrorCode.transactional_id_not_found
    assert [one.error_code for one in answer.transaction_states] == [
        missing,
        ErrorCode.invalid_request,
        missing,
    ]
    producer = transactional.begin()
    state = transactional.describe()
    assert (state.error_code, state.transaction_state, state.producer_id, state.producer_epoch) == (
        NONE, "Empty", *producer,
    )  # fmt: skip
    assert (state.transaction_timeout_ms, state.transaction_start_time_ms) == (60_000, -1)


@versions("ListTransactions")
def test_list_transactions(transactional: Transactional, version: int) -> None:
    client, name = transactional.client, transactional.name
    producer = transactional.begin()

    def listed(**filters: Any) -> Any:
        fields = {"state_filters": [], "producer_id_filters": [], "duration_filter": -1}
        answer = client.call(
            "ListTransactions", version, **{**fields, "transactional_id_pattern": None, **filters}
        )
        assert answer.error_code == NONE
        mine = [one.transaction_state for one in answer.transaction_states if one.transactional_id == name]
        return mine, list(answer.unknown_state_filters)

    assert listed() == (["Empty"], [])
    assert listed(state_filters=["Ongoing", "Nonsense"]) == ([], ["Nonsense"])
    assert listed(producer_id_filters=[producer[0]]) == (["Empty"], [])
    assert listed(producer_id_filters=[producer[0] + 10_000]) == ([], [])
    transactional.add(producer, 0)
    assert listed(state_filters=["Ongoing"]) == (["Ongoing"], [])
    if version >= 1:
        assert listed(duration_filter=10**7) == ([], [])
    if version >= 2:
        assert listed(transactional_id_pattern=f"{name}.*") == (["Ongoing"], [])
        assert listed(transactional_id_pattern=name[1:]) == ([], [])
        answer = client.call(
            "ListTransactions", version, state_filters=[], producer_id_filters=[], duration_filter=-1,
            transactional_id_pattern="(",
        )  # fmt: skip
        assert answer.error_code == ErrorCode.invalid_regular_expression
