"""`ottla transaction`: what is asked of whom, what is tried again, and which transactions hang."""

from __future__ import annotations

import json
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ottla.cli import requests as requests_module
from ottla.cli.app import run
from ottla.cli.direct import DirectCluster, Unanswered
from ottla.cli.errors import CliError, ExitCode
from ottla.cli.transactions import app as commands
from ottla.cli.transactions.hanging import Description, OpenTransaction, ProducerState, hanging, open_longer
from ottla.cli.transactions.requests import Filters, TransactionRequests
from ottla.errors import ErrorCode
from ottla.types import TopicPartition

ORDERS = TopicPartition("orders", 0)
NOW_MS = 1_700_000_000_000
STUCK = ProducerState(7, 3, -1, 41, NOW_MS - 3_600_000, 100)
IDLE = ProducerState(8, 0, 5, 9, NOW_MS - 3_600_000, -1)
FRESH = ProducerState(9, 0, 5, 9, NOW_MS - 1_000, 120)


def spaces(value: Any) -> Any:
    """Dicts as what a decoded response is."""
    if isinstance(value, Mapping):
        return SimpleNamespace(**{name: spaces(field) for name, field in value.items()})
    return [spaces(item) for item in value] if isinstance(value, list) else value


class FakeCluster(DirectCluster):
    """Two brokers: node 1 leads orders-0 and coordinates, node 2 leads orders-1. ``refusals``: errors that
    come before an answer, by request."""

    def __init__(self) -> None:
        super().__init__("127.0.0.1:9092")
        self.asked: list[tuple[int | None, str, Mapping[str, Any], int]] = []
        self.refusals: dict[str, list[int | Unanswered]] = {}
        self.producers: dict[TopicPartition, list[ProducerState]] = {ORDERS: [STUCK, IDLE, FRESH]}
        self.transactions: dict[str, Description] = {}
        self.is_old = False

    def ask(self, name: str, fields: Mapping[str, Any], *, retry_s: float = 0) -> Any:
        return self._answer(None, name, fields, 0)

    def ask_node(self, node: int, name: str, fields: Mapping[str, Any], *, version_min: int = 0) -> Any:
        return self._answer(node, name, fields, version_min)

    def _answer(self, node: int | None, name: str, fields: Mapping[str, Any], version_min: int) -> Any:
        self.asked.append((node, name, fields, version_min))
        left = self.refusals.get(name)
        refusal = left.pop(0) if left else 0
        if isinstance(refusal, Unanswered):
            raise refusal
        return spaces(getattr(self, f"_{name}")(node, fields, refusal))

    def _Metadata(self, node: int | None, fields: Mapping[str, Any], error: int) -> Any:
        wanted = [one["name"] for one in fields["topics"]] if fields["topics"] is not None else ["orders"]
        partitions = [
            {"partition_index": 0, "leader_id": 1, "replica_nodes": [1, 2]},
            {"partition_index": 1, "leader_id": 2, "replica_nodes": [2]},
        ]
        missing = ErrorCode.unknown_topic_or_partition
        topics = [
            {"name": name, "error_code": 0 if name == "orders" else missing, "partitions": partitions}
            for name in wanted
        ]
        brokers = [{"node_id": id_, "host": "h", "port": 9092} for id_ in (1, 2)]
        return {"brokers": brokers, "controller_id": 1, "topics": topics}

    def _FindCoordinator(self, node: int | None, fields: Mapping[str, Any], error: int) -> Any:
        one = {"error_code": error, "error_message": None, "node_id": 1, "host": "h", "port": 9092}
        if self.is_old:
            return one
        return {"coordinators": [{"key": key, **one} for key in fields["coordinator_keys"]]}

    def _DescribeTransactions(self, node: int, fields: Mapping[str, Any], error: int) -> Any:
        return {"transaction_states": [self._state(one, error) for one in fields["transactional_ids"]]}

    def _state(self, transactional_id: str, error: int) -> Any:
        found = self.transactions.get(transactional_id)
        if found is None or error:
            missing = error or ErrorCode.transactional_id_not_found
            return {"error_code": missing, "transactional_id": transactional_id}
        return {
            "error_code": 0,
            "transactional_id": transactional_id,
            "producer_id": found.producer_id,
            "producer_epoch": found.producer_epoch,
            "transaction_state": found.state,
            "transaction_timeout_ms": found.timeout_ms,
            "transaction_start_time_ms": found.start_ms,
            "topics": [{"topic": topic, "partitions": [index]} for topic, index in found.partitions],
        }

    def _ListTransactions(self, node: int, fields: Mapping[str, Any], error: int) -> Any:
        states = [
            {
                "transactional_id": one.transactional_id,
                "producer_id": one.producer_id,
                "transaction_state": one.state,
            }
            for one in self.transactions.values()
            if one.coordinator_id == node
        ]
        unknown = [state for state in fields["state_filters"] if state == "Nonsense"]
        return {"error_code": error, "transaction_states": states, "unknown_state_filters": unknown}

    def _DescribeProducers(self, node: int, fields: Mapping[str, Any], error: int) -> Any:
        def state(one: ProducerState) -> Any:
            return {
                "producer_id": one.producer_id,
                "producer_epoch": one.producer_epoch,
                "coordinator_epoch": one.coordinator_epoch,
                "last_sequence": one.last_sequence,
                "last_timestamp": one.last_timestamp_ms,
                "current_txn_start_offset": one.start_offset,
            }

        def partition(topic: str, index: int) -> Any:
            producers = self.producers.get(TopicPartition(topic, index), [])
            active = [state(one) for one in producers]
            told = {"partition_index": index, "error_message": None, "active_producers": active}
            return {**told, "error_code": error}

        return {
            "topics": [
                {
                    "name": topic["name"],
                    "partitions": [partition(topic["name"], i) for i in topic["partition_indexes"]],
                }
                for topic in fields["topics"]
            ]
        }

    def _WriteTxnMarkers(self, node: int, fields: Mapping[str, Any], error: int) -> Any:
        return {"markers": [{"topics": [{"partitions": [{"error_code": error}]}]}]}

    def _InitProducerId(self, node: int, fields: Mapping[str, Any], error: int) -> Any:
        return {"error_code": error, "producer_id": 7, "producer_epoch": 4}

    def names(self) -> list[str]:
        return [name for _, name, _, _ in self.asked]

    def markers(self) -> list[Mapping[str, Any]]:
        return [fields["markers"][0] for _, name, fields, _ in self.asked if name == "WriteTxnMarkers"]


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> FakeCluster:
    made = FakeCluster()
    monkeypatch.setattr(commands, "DirectCluster", lambda *arguments: made)
    monkeypatch.setattr(commands, "_now_ms", lambda: NOW_MS)
    monkeypatch.setattr(requests_module, "RETRY_STEP_S", 0.0)
    return made


def known(transactional_id: str, *partitions: TopicPartition, **fields: Any) -> Description:
    found = Description(transactional_id, 1, 7, 3, "Ongoing", 60_000, NOW_MS - 5_000, frozenset(partitions))
    return found._replace(**fields)


def ran(capsys: pytest.CaptureFixture[str], *words: str) -> Any:
    assert run(["transaction", *words, "--json"]) == ExitCode.OK
    return json.loads(capsys.readouterr().out)


def failed(*words: str) -> CliError:
    with pytest.raises(CliError) as caught:
        run(["transaction", *words])
    return caught.value


def test_all_brokers_are_asked_for_what_they_coordinate(
    cluster: FakeCluster, capsys: pytest.CaptureFixture[str]
) -> None:
    cluster.transactions = {"b": known("b"), "a": known("a", coordinator_id=2, state="Empty")}
    assert ran(capsys, "list") == [
        {"transactional_id": "a", "coordinator_id": 2, "producer_id": 7, "state": "Empty"},
        {"transactional_id": "b", "coordinator_id": 1, "producer_id": 7, "state": "Ongoing"},
    ]
    assert [node for node, name, _, _ in cluster.asked if name == "ListTransactions"] == [1, 2]


@pytest.mark.parametrize(
    ("words", "field", "value", "version_min"),
    [
        (("--state", "Ongoing", "-s", "Empty"), "state_filters", ["Ongoing", "Empty"], 0),
        (("--producer-id", "7"), "producer_id_filters", [7], 0),
        (("--duration-filter", "0"), "duration_filter", 0, 1),
        (("--duration-filter", "-9"), "duration_filter", -1, 0),
        (("--transactional-id-pattern", "a.*"), "transactional_id_pattern", "a.*", 2),
        (("--transactional-id-pattern", ""), "transactional_id_pattern", None, 0),
    ],
)
def test_filters_are_never_lost_at_an_old_broker(
    cluster: FakeCluster,
    capsys: pytest.CaptureFixture[str],
    words: tuple[str, ...],
    field: str,
    value: Any,
    version_min: int,
) -> None:
    assert ran(capsys, "list", *words) == []
    _, _, fields, version = cluster.asked[-1]
    assert (fields[field], version) == (value, version_min)


def test_filters_that_a_broker_does_not_take(cluster: FakeCluster) -> None:
    error = failed("list", "--state", "Nonsense")
    assert (error.code, str(error)) == (ExitCode.USAGE, "the broker knows no state 'Nonsense'")
    cluster.refusals["ListTransactions"] = [ErrorCode.invalid_regular_expression]
    error = failed("list", "--transactional-id-pattern", "(")
    assert (error.code, str(error)) == (ExitCode.USAGE, "'(' is no regular expression to the broker")


def test_what_loads_or_moves_is_asked_again(cluster: FakeCluster, capsys: pytest.CaptureFixture[str]) -> None:
    cluster.transactions = {"a": known("a", ORDERS)}
    load, moved = ErrorCode.coordinator_load_in_progress, ErrorCode.not_coordinator
    cluster.refusals = {
        "ListTransactions": [load, Unanswered("gone")],
        "FindCoordinator": [ErrorCode.coordinator_not_available],
        "DescribeTransactions": [moved, load],
        "DescribeProducers": [ErrorCode.not_leader_or_follower],
    }
    assert [one["transactional_id"] for one in ran(capsys, "list")] == ["a"]
    assert ran(capsys, "describe", "a") == {
        "transactional_id": "a",
        "coordinator_id": 1,
        "producer_id": 7,
        "producer_epoch": 3,
        "state": "Ongoing",
        "timeout_ms": 60_000,
        "start_ms": NOW_MS - 5_000,
        "partitions": ["orders-0"],
        "duration_ms": 5_000,
    }
    assert cluster.names().count("FindCoordinator") == 4
    assert len(ran(capsys, "describe-producers", "-t", "orders", "-p", "0")) == 3
    assert not any(cluster.refusals.values())


def test_trying_again_ends(cluster: FakeCluster) -> None:
    requests = TransactionRequests(cluster, retry_s=0)
    cluster.refusals["ListTransactions"] = [ErrorCode.coordinator_load_in_progress]
    with pytest.raises(CliError, match="node 1: coordinator load in progress") as caught:
        requests.listed(Filters())
    assert caught.value.code is ExitCode.FAILED
    cluster.refusals["ListTransactions"] = [Unanswered("h:9092: refused")]
    with pytest.raises(CliError, match="h:9092: refused") as caught:
        requests.listed(Filters())
    assert caught.value.code is ExitCode.UNREACHABLE


def test_coordinators_of_before_version_4_are_found_one_by_one(cluster: FakeCluster) -> None:
    cluster.is_old = True
    cluster.transactions = {name: known(name) for name in ("a", "b")}
    found = TransactionRequests(cluster).described(["b", "a", "c", "a"])
    assert {name: one and one.transactional_id for name, one in found.items()} == {
        "a": "a",
        "b": "b",
        "c": None,
    }
    assert cluster.names() == ["FindCoordinator"] * 3 + ["DescribeTransactions"]


def test_a_description_for_people(cluster: FakeCluster, capsys: pytest.CaptureFixture[str]) -> None:
    cluster.transactions = {"a": known("a", state="Empty", start_ms=-1)}
    assert run(["transaction", "describe", "a"]) == ExitCode.OK
    lines = dict(line.split("  ", 1) for line in capsys.readouterr().out.splitlines())
    told = {name.strip(): value.strip() for name, value in lines.items()}
    assert told["state"] == "Empty"
    assert told["start"] == told["duration (ms)"] == told["partitions"] == "-"
    error = failed("describe", "b")
    assert (error.code, str(error).partition(";")[0]) == (
        ExitCode.NOT_FOUND,
        "transactional id 'b' is not known",
    )


def test_producers_are_asked_of_the_leader_or_of_a_replica(
    cluster: FakeCluster, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("describe-producers", "--topic", "orders", "--partition")
    found = ran(capsys, *words, "0")
    assert [one["start_offset"] for one in found] == [100, None, 120]
    assert cluster.asked[-1][0] == 1
    assert ran(capsys, *words, "1", "--broker-id", "2") == []
    assert cluster.asked[-1][0] == 2
    assert failed(*words, "0", "--broker-id", "3").code is ExitCode.NOT_FOUND
    cluster.refusals["DescribeProducers"] = [ErrorCode.not_leader_or_follower]
    error = failed(*words, "0", "--broker-id", "2")
    assert str(error) == "orders-0 on node 2: not leader or follower"
    error = failed(*words, "2")
    assert (error.code, str(error)) == (
        ExitCode.NOT_FOUND,
        "topic 'orders' has no partition 2: it has 2, from 0",
    )
    assert failed("describe-producers", "-t", "other", "-p", "0").code is ExitCode.NOT_FOUND


def test_a_transaction_is_aborted_where_it_begins(
    cluster: FakeCluster, capsys: pytest.CaptureFixture[str]
) -> None:
    cluster.refusals["WriteTxnMarkers"] = [ErrorCode.not_leader_or_follower]
    told = ran(capsys, "abort", "-t", "orders", "-p", "0", "--start-offset", "100")
    assert told == {
        "topic": "orders",
        "partition": 0,
        "producer_id": 7,
        "producer_epoch": 3,
        "coordinator_epoch": 0,
    }
    marker = {
        "producer_id": 7,
        "producer_epoch": 3,
        "transaction_result": False,
        "topics": [{"name": "orders", "partition_indexes": [0]}],
        "coordinator_epoch": 0,
    }
    assert cluster.markers() == [marker, marker]
    assert cluster.asked[-1][0] == 1
    error = failed("abort", "-t", "orders", "-p", "0", "--start-offset", "101")
    assert error.code is ExitCode.NOT_FOUND


def test_a_transaction_is_aborted_by_its_producer(cluster: FakeCluster) -> None:
    words = ["abort", "-t", "orders", "-p", "1", "--producer-id", "5", "--producer-epoch", "2"]
    assert run(["transaction", *words, "--coordinator-epoch", "-1"]) == ExitCode.OK
    (marker,) = cluster.markers()
    assert (marker["producer_id"], marker["producer_epoch"], marker["coordinator_epoch"]) == (5, 2, 0)
    assert cluster.asked[-1][0] == 2
    cluster.refusals["WriteTxnMarkers"] = [ErrorCode.transaction_coordinator_fenced]
    error = failed(*words, "--coordinator-epoch", "3")
    assert str(error) == "orders-1: transaction coordinator fenced"


@pytest.mark.parametrize(
    "words",
    [
        ("abort", "-t", "t", "-p", "0"),
        ("abort", "-t", "t", "-p", "0", "--producer-id", "1"),
        ("abort", "-t", "t", "-p", "0", "--producer-id", "1", "--producer-epoch", "1"),
        ("abort", "-t", "t", "-p", "0", "--producer-id", "1", "--start-offset", "1"),
        ("abort", "-t", "t", "-p", "0", "--producer-epoch", "32768"),
        ("abort", "-t", "t"),
        ("describe", ""),
        ("describe", "x" * 32_768),
        ("force-terminate", ""),
        ("find-hanging",),
        ("find-hanging", "--partition", "1", "--broker-id", "1"),
    ],
)
def test_command_lines_that_are_wrong(cluster: FakeCluster, words: tuple[str, ...]) -> None:
    assert failed(*words).code is ExitCode.USAGE
    assert not cluster.asked


def test_an_id_is_fenced_once_its_transaction_is_aborted(
    cluster: FakeCluster, capsys: pytest.CaptureFixture[str]
) -> None:
    cluster.transactions = {"a": known("a", ORDERS)}
    cluster.refusals["InitProducerId"] = [ErrorCode.concurrent_transactions, ErrorCode.not_coordinator]
    told = ran(capsys, "force-terminate", "a")
    assert told == {"transactional_id": "a", "producer_id": 7, "producer_epoch": 4}
    fields = cluster.asked[-1][2]
    assert (fields["transactional_id"], fields["producer_id"], fields["producer_epoch"]) == ("a", -1, -1)
    assert cluster.names().count("InitProducerId") == 3


def test_no_id_is_made_by_whoever_misspells_one(cluster: FakeCluster) -> None:
    assert failed("force-terminate", "a").code is ExitCode.NOT_FOUND
    assert "InitProducerId" not in cluster.names()


@pytest.mark.parametrize(
    ("partitions", "start_offsets"), [((), [100]), ((ORDERS,), []), ((TopicPartition("orders", 1),), [100])]
)
def test_what_hangs_is_what_no_coordinator_will_end(
    cluster: FakeCluster,
    capsys: pytest.CaptureFixture[str],
    partitions: tuple[TopicPartition, ...],
    start_offsets: list[int],
) -> None:
    cluster.transactions = {"a": known("a", *partitions)}
    found = ran(capsys, "find-hanging", "--topic", "orders")
    assert [one["start_offset"] for one in found] == start_offsets
    # The newer one is no candidate, until transactions may last no time at all.
    ended = ran(capsys, "find-hanging", "--broker-id", "1", "--max-transaction-timeout", "0")
    assert [one["start_offset"] for one in ended] == [*start_offsets, 120]
    asked = [fields for _, name, fields, _ in cluster.asked if name == "ListTransactions"]
    assert asked[-1]["producer_id_filters"] == [7, 9]


def test_nothing_is_asked_of_coordinators_where_nothing_is_open(
    cluster: FakeCluster, capsys: pytest.CaptureFixture[str]
) -> None:
    cluster.producers = {ORDERS: [IDLE]}
    assert ran(capsys, "find-hanging", "--topic", "orders", "--partition", "0") == []
    assert "ListTransactions" not in cluster.names()


OFFSETS = st.integers(-1, 3)
PARTITIONS = st.builds(TopicPartition, st.sampled_from("tu"), st.integers(0, 2))
STATES = st.builds(
    ProducerState, st.integers(0, 3), st.just(0), st.just(0), st.just(0), st.integers(0, 100), OFFSETS
)


@given(
    st.dictionaries(PARTITIONS, st.lists(STATES, max_size=4)),
    st.dictionaries(st.integers(0, 3), st.frozensets(PARTITIONS)),
    st.integers(0, 100),
)
def test_all_that_is_open_hangs_or_is_known(
    producers: dict[TopicPartition, list[ProducerState]],
    known_partitions: dict[int, frozenset[TopicPartition]],
    timeout_ms: int,
) -> None:
    candidates = list(open_longer(producers, 100, timeout_ms))
    assert all(one.producer.is_open and one.age_ms(100) > timeout_ms for one in candidates)
    ids = {producer: f"id-{producer}" for producer in known_partitions}
    descriptions: dict[str, Description | None] = {
        f"id-{producer}": known(f"id-{producer}", *partitions)
        for producer, partitions in known_partitions.items()
    }
    found = hanging(candidates, ids, descriptions)
    left = [one for one in candidates if one not in found]
    assert all(one.partition in known_partitions[one.producer.producer_id] for one in left)
    assert not any(one.partition in known_partitions.get(one.producer.producer_id, ()) for one in found)


def test_an_id_that_is_gone_when_it_is_described_ends_nothing() -> None:
    one = OpenTransaction(ORDERS, STUCK)
    assert hanging([one], {7: "a"}, {"a": None}) == [one]
