"""Markers until each partition has one, and what leaders ask coordinators: other nodes played by the test."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from types import SimpleNamespace
from typing import Any

import pytest
from coordinators_support import ManualClock, settle
from transactions_support import T0, T1, U0

from ottla.coordinators.transactions import markers as markers_module
from ottla.coordinators.transactions.markers import WRITTEN_AT_ONCE, Markers
from ottla.coordinators.transactions.requests import AddRequest, MarkersToSend
from ottla.coordinators.transactions.verification import (
    Operation,
    Verification,
    of_offset_commit,
    of_produce,
)
from ottla.env.deferred import Deferred
from ottla.env.slices import Slices
from ottla.errors import ErrorCode, KafkaError
from ottla.types import TopicPartition, TxnMarker
from ottla.wire.apis import ADD_PARTITIONS_TO_TXN, WRITE_TXN_MARKERS
from ottla.wire.messages import decode_request, decode_response, encode_request, encode_response

ME, OTHER, THIRD = 1, 2, 3
NONE = ErrorCode.none


class Nodes:
    """Requests that wait for the test to answer them, through the wire's codec."""

    def __init__(self) -> None:
        self.asked: list[tuple[int, Any, Callable[[Any], None]]] = []

    def ask(self, node_id: int, api_key: int, version: int, fields: dict[str, Any], answered: Any) -> None:
        request = decode_request(api_key, version, encode_request(api_key, version, fields))

        def answer(fields: Any) -> None:
            response = None
            if fields is not None:
                response = decode_response(api_key, version, encode_response(api_key, version, fields))
            answered(response)

        self.asked.append((node_id, request, answer))

    def written(self, error: Callable[[TopicPartition], int] = lambda where: NONE) -> list[tuple[int, Any]]:
        """Answer the WriteTxnMarkers that have come; to whom they went, with their markers."""
        asked, self.asked = self.asked, []
        for _, request, answer in asked:
            answer(
                {
                    "markers": [
                        {
                            "producer_id": marker.producer_id,
                            "topics": [
                                {
                                    "name": topic.name,
                                    "partitions": [
                                        {
                                            "partition_index": index,
                                            "error_code": error(TopicPartition(topic.name, index)),
                                        }
                                        for index in topic.partition_indexes
                                    ],
                                }
                                for topic in marker.topics
                            ],
                        }
                        for marker in request.markers
                    ]
                }
            )
        return [(node_id, request.markers) for node_id, request, _ in asked]


class Bench:
    def __init__(self) -> None:
        self.clock = ManualClock()
        self.nodes = Nodes()
        self.leaders = {T0: ME, T1: OTHER, U0: OTHER}
        self.alive = {ME, OTHER, THIRD}
        # What is written here, and what becomes of it; None: it is not known yet.
        self.here: list[tuple[TopicPartition, TxnMarker, Any]] = []
        self.error: ErrorCode | None = NONE
        self.done: list[set[TopicPartition]] = []
        self.is_wanted = True
        self.markers = Markers(ME, self, self, self.nodes, self.clock, Slices())  # type: ignore[arg-type]

    @property
    def image(self) -> Any:
        counts: dict[str, int] = {}
        for topic, index in self.leaders:
            counts[topic] = max(counts.get(topic, 0), index + 1)
        topics = {}
        for topic, count in counts.items():
            leaders = [self.leaders[TopicPartition(topic, index)] for index in range(count)]
            partitions = [SimpleNamespace(leader=leader) for leader in leaders]
            topics[topic] = SimpleNamespace(partitions=partitions)
        return SimpleNamespace(topics=topics, brokers=dict.fromkeys(self.alive))

    def write(self, where: TopicPartition, marker: TxnMarker, told: Callable[[ErrorCode], None]) -> None:
        self.here.append((where, marker, told))
        if self.error is not None:
            told(self.error)

    def send(self, *partitions: TopicPartition, producer_id: int = 7, name: str = "tx") -> None:
        asked = MarkersToSend(name, producer_id, 3, True, frozenset(partitions), 2)
        self.markers.send(asked, 5, self.done.append, lambda: self.is_wanted)


def story(tell: Callable[[Bench], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    def test() -> None:
        asyncio.run(tell(Bench()))

    return test


# -- markers


@story
async def test_each_leader_gets_the_markers_of_its_partitions(bench: Bench) -> None:
    bench.send(T0, T1, U0)
    assert [(where, marker) for where, marker, _ in bench.here] == [(T0, TxnMarker(7, 3, 5, True, 2))]
    ((node_id, (marker,)),) = bench.nodes.written()
    assert node_id == OTHER
    assert (marker.producer_id, marker.producer_epoch, marker.coordinator_epoch) == (7, 3, 5)
    assert (marker.transaction_result, marker.transaction_version) == (True, 2)
    assert {(topic.name, *topic.partition_indexes) for topic in marker.topics} == {("t", 1), ("u", 0)}
    assert bench.done == [{T0}, {T1, U0}]
    assert not bench.clock.timers


@story
async def test_one_request_at_a_time_goes_to_a_node_with_all_that_has_come(bench: Bench) -> None:
    bench.send(T1)
    bench.send(U0, producer_id=8)
    bench.send(T1, producer_id=9)
    # Of one producer two ends do not go together: the answer could not tell them apart.
    bench.send(U0, producer_id=8)
    assert len(bench.nodes.asked) == 1
    bench.nodes.written()
    ((_, markers),) = bench.nodes.written()
    assert sorted(marker.producer_id for marker in markers) == [8, 9]
    ((_, markers),) = bench.nodes.written()
    assert [marker.producer_id for marker in markers] == [8]
    assert not bench.nodes.asked


@story
async def test_what_a_leader_refuses_is_sent_again_to_who_leads_then(bench: Bench) -> None:
    bench.send(T1, U0)
    bench.nodes.written(lambda where: ErrorCode.not_leader_or_follower if where == T1 else NONE)
    assert bench.done == [{U0}]
    bench.leaders[T1] = THIRD
    await bench.clock.advance(49)
    assert not bench.nodes.asked
    await bench.clock.advance(1)
    ((node_id, _),) = bench.nodes.written()
    assert node_id == THIRD
    assert bench.done == [{U0}, {T1}]


@story
async def test_a_connection_that_is_lost_is_no_answer(bench: Bench) -> None:
    bench.send(T1)
    for wait_ms in (50, 100, 200, 400, 800, 1_000, 1_000):
        ((_, _, answer),) = bench.nodes.asked
        bench.nodes.asked.clear()
        answer(None)
        await bench.clock.advance(wait_ms - 1)
        assert not bench.nodes.asked
        await bench.clock.advance(1)
    bench.nodes.written()
    assert bench.done == [{T1}]


@story
async def test_without_a_leader_that_lives_it_is_waited_for_one(bench: Bench) -> None:
    bench.alive.discard(OTHER)
    bench.send(T1)
    assert not bench.nodes.asked
    bench.alive.add(OTHER)
    await bench.clock.advance(50)
    bench.nodes.written()
    assert bench.done == [{T1}]


@story
async def test_topics_that_are_gone_count_as_done(bench: Bench) -> None:
    gone = {TopicPartition("gone", 0), TopicPartition("t", 9), TopicPartition("t", -1)}
    bench.send(*gone, T1)
    assert bench.done == [gone]
    bench.nodes.written(lambda where: ErrorCode.unknown_topic_or_partition)
    del bench.leaders[T1]
    await bench.clock.advance(50)
    assert bench.done[1:] == [{T1}]


@story
async def test_a_later_producer_needs_no_marker_of_the_one_before(bench: Bench) -> None:
    bench.send(T1)
    bench.nodes.written(lambda where: ErrorCode.invalid_producer_epoch)
    assert bench.done == [{T1}]


@story
async def test_errors_of_later_releases_are_tried_again(bench: Bench) -> None:
    bench.send(T1)
    bench.nodes.written(lambda where: 9_999)
    assert not bench.done
    await bench.clock.advance(50)
    bench.nodes.written()
    assert bench.done == [{T1}]


@story
async def test_a_coordinator_that_is_none_any_more_sends_nothing_and_hears_nothing(bench: Bench) -> None:
    bench.error = None
    bench.send(T0, T1, U0)
    bench.is_wanted = False
    bench.nodes.written(lambda where: ErrorCode.not_leader_or_follower)
    for _, _, told in bench.here:
        told(NONE)
    await bench.clock.advance(5_000)
    assert not bench.nodes.asked
    assert not bench.done


@story
async def test_a_node_that_stops_sends_nothing_more(bench: Bench) -> None:
    bench.alive.discard(OTHER)
    bench.send(T1)
    bench.markers.close()
    assert not bench.clock.timers
    bench.send(T0)
    assert not bench.here


@story
async def test_what_is_written_here_is_told_when_it_is(bench: Bench) -> None:
    bench.error = None
    bench.send(T0)
    assert not bench.done
    bench.here[0][2](ErrorCode.not_enough_replicas)
    await bench.clock.advance(50)
    bench.here[1][2](NONE)
    assert bench.done == [{T0}]


@story
async def test_what_fails_here_one_by_one_is_tried_again_together(bench: Bench) -> None:
    many = [TopicPartition("many", index) for index in range(5)]
    bench.leaders |= dict.fromkeys(many, ME)
    bench.error = None
    bench.send(*many)
    for _, _, told in list(bench.here):
        told(ErrorCode.not_enough_replicas)
    assert len(bench.clock.timers) == 1
    bench.here.clear()
    await bench.clock.advance(50)
    assert {where for where, _, _ in bench.here} == set(many)
    for _, _, told in list(bench.here):
        told(ErrorCode.not_enough_replicas)
    # Once more, and later, but not as much as each of them had asked for.
    await bench.clock.advance(99)
    assert len(bench.here) == len(many)
    await bench.clock.advance(1)
    assert len(bench.here) == 2 * len(many)


@story
async def test_many_partitions_here_are_written_in_pieces(bench: Bench) -> None:
    many = [TopicPartition("many", index) for index in range(WRITTEN_AT_ONCE * 2 + 1)]
    bench.leaders |= dict.fromkeys(many, ME)
    bench.send(*many)
    assert len(bench.here) == WRITTEN_AT_ONCE
    await settle()
    assert {where for where, _, _ in bench.here} == set(many)
    assert set().union(*bench.done) == set(many)
    assert [len(each) for each in bench.done] == [WRITTEN_AT_ONCE, WRITTEN_AT_ONCE, 1]


@story
async def test_many_transactions_here_are_ended_in_pieces(bench: Bench) -> None:
    """As where those of many producers have been decided in one batch, or take too long at the same time."""
    many = [TopicPartition("many", index) for index in range(WRITTEN_AT_ONCE * 2 + 1)]
    bench.leaders |= dict.fromkeys(many, ME)
    for number, where in enumerate(many):
        bench.send(where, producer_id=number, name=f"tx-{number}")
    assert len(bench.here) == WRITTEN_AT_ONCE
    await settle()
    assert [where for where, _, _ in bench.here] == many
    assert [len(each) for each in bench.done] == [1] * len(many)


def test_many_partitions_go_into_several_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(markers_module, "PARTITIONS_PER_REQUEST", 2)
    many = [TopicPartition("many", index) for index in range(5)]

    async def tell(bench: Bench) -> None:
        bench.leaders |= dict.fromkeys(many, OTHER)
        bench.send(*many)
        sizes = []
        while bench.nodes.asked:
            ((_, (marker,)),) = bench.nodes.written()
            sizes.append(sum(len(topic.partition_indexes) for topic in marker.topics))
        assert sizes == [2, 2, 1]
        assert set().union(*bench.done) == set(many)

    asyncio.run(tell(Bench()))


# -- verification


class Coordinator:
    """Of this node."""

    def __init__(self) -> None:
        self.verified: dict[TopicPartition, ErrorCode] = {}
        self.added: list[tuple[AddRequest, Deferred[ErrorCode]]] = []

    def partition_for(self, transactional_id: str) -> int:
        return 0

    def verify(self, request: AddRequest) -> dict[TopicPartition, ErrorCode]:
        return self.verified

    def add(self, request: AddRequest) -> Deferred[ErrorCode]:
        answer: Deferred[ErrorCode] = Deferred()
        self.added.append((request, answer))
        return answer


class Asking:
    def __init__(self, leader: int = OTHER, *, alone: bool = False) -> None:
        self.nodes = Nodes()
        self.coordinator = Coordinator()
        partitions = [SimpleNamespace(leader=leader)]
        self.image = SimpleNamespace(
            topics={"__transaction_state": SimpleNamespace(partitions=partitions)},
            brokers={ME: None, OTHER: None},
        )
        nodes = None if alone else self.nodes
        self.verification = Verification(ME, self, self.coordinator, nodes)  # type: ignore[arg-type]

    def ask(
        self,
        *partitions: TopicPartition,
        operation: Operation = Operation.DEFAULT_ERROR,
        epoch: int = 0,
        name: str = "tx",
    ) -> list[dict[TopicPartition, str]]:
        """What is told, which comes to be in the list."""
        told: list[dict[TopicPartition, str]] = []
        self.verification.ask(
            name, 7, epoch, frozenset(partitions or (T0,)), operation,
            lambda errors: told.append({where: code.name for where, code in errors.items()}),
        )  # fmt: skip
        return told

    def answer(self, code: int, top: int = 0) -> None:
        node_id, request, answer = self.nodes.asked.pop(0)
        assert node_id == OTHER
        answer(
            {
                "error_code": top,
                "results_by_transaction": [
                    {
                        "transactional_id": one.transactional_id,
                        "topic_results": [
                            {
                                "name": topic.name,
                                "results_by_partition": [
                                    {"partition_index": index, "partition_error_code": code}
                                    for index in topic.partitions
                                ],
                            }
                            for topic in one.topics
                        ],
                    }
                    for one in (request.transactions if not top else ())
                ],
            }
        )


@pytest.mark.parametrize(
    ("operation", "code", "told"),
    [
        (Operation.DEFAULT_ERROR, "none", {}),
        (Operation.DEFAULT_ERROR, "producer_fenced", {T0: "invalid_producer_epoch"}),
        (Operation.DEFAULT_ERROR, "transaction_abortable", {T0: "invalid_txn_state"}),
        (Operation.GENERIC_ERROR, "transaction_abortable", {T0: "transaction_abortable"}),
        (Operation.ADD_PARTITION, "concurrent_transactions", {T0: "concurrent_transactions"}),
    ],
)
def test_what_the_coordinator_says_is_told_as_leaders_tell_it(
    operation: Operation, code: str, told: dict[TopicPartition, str]
) -> None:
    asking = Asking()
    answers = asking.ask(operation=operation)
    ((_, request, _),) = asking.nodes.asked
    assert request.transactions[0].verify_only is (operation is not Operation.ADD_PARTITION)
    asking.answer(ErrorCode[code])
    assert answers == [told]


def test_coordinators_that_cannot_be_asked() -> None:
    for asking in (Asking(leader=-1), Asking(leader=9), Asking(alone=True)):
        assert asking.ask() == [{T0: "coordinator_not_available"}]
    nowhere = Asking()
    nowhere.image.topics = {}
    assert nowhere.ask() == [{T0: "coordinator_not_available"}]
    asking = Asking()
    answers = asking.ask()
    asking.nodes.asked.pop()[2](None)
    assert answers == [{T0: "network_exception"}]
    answers = asking.ask()
    asking.answer(0, top=ErrorCode.cluster_authorization_failed)
    assert answers == [{T0: "invalid_txn_state"}]


def test_one_request_at_a_time_asks_for_all_that_has_come() -> None:
    asking = Asking()
    first = asking.ask(name="a")
    others = [asking.ask(T0, T1, name=name) for name in ("b", "c")]
    assert len(asking.nodes.asked) == 1
    asking.answer(NONE)
    assert first == [{}]
    ((_, request, _),) = asking.nodes.asked
    assert [one.transactional_id for one in request.transactions] == ["b", "c"]
    asking.answer(NONE)
    assert others == [[{}], [{}]]


def test_of_one_id_there_is_one_question_at_a_time() -> None:
    asking = Asking()
    asking.ask(name="busy")
    old = asking.ask(epoch=3)
    assert asking.ask(epoch=2) == [{T0: "invalid_producer_epoch"}]
    same = asking.ask(epoch=3)
    assert old == [{T0: "network_exception"}]
    newer = asking.ask(epoch=4)
    assert same == [{T0: "invalid_producer_epoch"}]
    asking.answer(NONE)
    asking.answer(NONE)
    assert newer == [{}]


def test_the_coordinator_of_this_node_is_asked_without_a_request() -> None:
    asking = Asking(leader=ME)
    asking.coordinator.verified = {T0: NONE, T1: ErrorCode.transaction_abortable}
    assert asking.ask(T0, T1) == [{T1: "invalid_txn_state"}]
    answers = asking.ask(T0, T1, operation=Operation.ADD_PARTITION)
    ((request, answer),) = asking.coordinator.added
    assert request.may_wait
    assert answers == []
    answer.resolve(ErrorCode.none)
    assert answers == [{}]
    answers = asking.ask(operation=Operation.ADD_PARTITION)
    asking.coordinator.added[1][1].fail(KafkaError(ErrorCode.not_coordinator))
    assert answers == [{T0: "not_coordinator"}]


def test_what_each_version_can_be_told() -> None:
    assert [of_produce(version) for version in (10, 11, 12)] == list(Operation)
    assert [of_offset_commit(version) for version in (3, 4, 5)] == list(Operation)
    assert (ADD_PARTITIONS_TO_TXN, WRITE_TXN_MARKERS) == (24, 27)
