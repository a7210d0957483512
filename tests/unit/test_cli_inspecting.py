"""`ottla apis`, `ottla logdirs` and `ottla producers` against an embedded broker."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import Producer
from inside_support import Inside

from ottla.cli import apis as apis_command
from ottla.cli import logdirs as logdirs_command
from ottla.cli import ranges
from ottla.cli.direct import DirectCluster, Unanswered
from ottla.cli.errors import CliError, ExitCode
from ottla.errors import ErrorCode
from ottla.testing import Acl, Broker
from ottla.types import TopicPartition
from ottla.wire.apis import APIS

TOPICS = {"orders": 6, "quiet": 1}


@pytest.fixture(scope="module")
def broker() -> Iterator[Broker]:
    with Broker(topics=TOPICS) as broker:
        yield broker


@pytest.fixture(scope="module")
def guarded() -> Iterator[Broker]:
    users = {"nobody": "secret", "reader": "secret"}
    rules = [Acl("nobody", "describe", topic="orders"), Acl("reader", "read", topic="orders")]
    with Broker(topics=TOPICS, users=users, acls=rules) as broker:
        yield broker


@pytest.fixture
def ottla(broker: Broker, capsys: pytest.CaptureFixture[str]) -> Inside:
    return Inside(broker, capsys)


# ------------------------------------------------------------ apis


def test_every_api_is_shown_with_the_versions_that_are_shared(ottla: Inside) -> None:
    (node,) = ottla.json("apis")
    assert node["node_id"] == 1
    found = {one["key"]: one for one in node["apis"]}
    # Those of telemetry are listed where somebody subscribes.
    assert APIS.keys() - found.keys() == {71, 72}
    for key in found:
        api = APIS[key]
        shared = found[key]["shared_min"], found[key]["shared_max"]
        assert (found[key]["name"], shared) == (api.name, (api.version_min, api.version_max))
    assert found[0]["version_min"] == 0, "Produce is listed from version 0, and asked from 3"
    assert "metadata.version" in {one["feature"] for one in node["features"]}
    rows = ottla.rows("apis", "--broker-id", "1")
    assert rows[:3] == [
        ["node", "1:", str(len(found)), "APIs"],
        ["API", "KEY", "VERSIONS", "SHARED"],
        ["Produce", "0", "0-13", "3-13"],
    ]
    assert ["FEATURE", "SUPPORTED", "FINALIZED"] in rows


def test_an_api_of_another_release_is_shared_as_far_as_both_know_it() -> None:
    assert apis_command._supported(1, 0, 5).shared == (4, 5)
    assert apis_command._supported(1, 0, 3).shared is None
    assert apis_command._supported(78, 0, 1)[1:] == ("ShareFetch", 0, 1, None)
    assert apis_command._supported(94, 0, 0).name == "UnregisterController"
    assert apis_command._supported(9_999, 0, 1).name is None


def test_nodes_that_answer_alike_are_shown_together(capsys: pytest.CaptureFixture[str]) -> None:
    one = apis_command.Node([apis_command._supported(9_999, 0, 0)], [])
    other = apis_command.Node([], [])
    apis_command._show({1: one, 2: other, 3: one})
    assert capsys.readouterr().out.splitlines() == [
        "nodes 1,3: 1 API",
        "API   KEY  VERSIONS  SHARED",
        "-    9999  0         none",
        "",
        "node 2: 0 APIs",
        "API  KEY  VERSIONS  SHARED",
    ]


@pytest.mark.parametrize("command", ["apis", "logdirs"])
def test_a_node_that_is_not_there_and_one_that_is_silent(
    ottla: Inside, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    assert "node 7 is not there" in ottla.fails(ExitCode.NOT_FOUND, command, "--broker-id", "7")

    def silent(self: DirectCluster, node: int, *arguments: Any, **options: Any) -> Any:
        raise Unanswered("connection refused")

    monkeypatch.setattr(DirectCluster, "ask_node", silent)
    why = ottla.fails(ExitCode.UNREACHABLE, command)
    assert why == "node 1 does not answer: connection refused"


# ------------------------------------------------------------ logdirs


def test_directories_are_shown_with_sizes_and_totals(capsys: pytest.CaptureFixture[str]) -> None:
    with Broker(topics=TOPICS) as broker:
        ottla = Inside(broker, capsys)
        broker.produce("orders", b"x" * 1000, partition=2)
        (directory,) = ottla.json("logdirs")
        assert (directory["node_id"], directory["error"]) == (1, None)
        assert directory["directory"] == str(broker.data)
        assert directory["total_bytes"] >= directory["usable_bytes"] > 0
        sizes = {(one["topic"], one["partition"]): one["size_bytes"] for one in directory["partitions"]}
        assert sizes["orders", 2] > 1000 and sizes["orders", 1] == sizes["quiet", 0] == 0
        assert directory["size_bytes"] == sum(sizes.values())
        assert all((one["lag"], one["future"]) == (0, False) for one in directory["partitions"])

        head, orders, quiet, empty, total = ottla.rows("logdirs")
        assert head == ["NODE", "DIRECTORY", "TOPIC", "PARTITIONS", "BYTES", "LAG", "FUTURE"]
        assert orders == ["1", str(broker.data), "orders", "0-5", str(sizes["orders", 2]), "0", "-"]
        assert quiet == ["1", str(broker.data), "quiet", "0", "0", "0", "-"]
        assert not empty
        assert " ".join(total).startswith(f"node 1, {broker.data}: 7 replicas, 1.1 kB, ")
        assert len(ottla.rows("logdirs", "--topic", "orders", "--partitions")) == 1 + 6 + 2
        assert "does not exist" in ottla.fails(ExitCode.NOT_FOUND, "logdirs", "--topic", "nothing")


def test_a_topic_that_is_named_twice_is_counted_once(ottla: Inside, broker: Broker) -> None:
    broker.produce("orders", "twice")
    twice = ottla.json("logdirs", "--topic", "orders", "--topic", "orders")
    once = ottla.json("logdirs", "--topic", "orders")
    for directory in (*twice, *once):
        # Others write to the same disk meanwhile.
        del directory["usable_bytes"]
    assert twice == once


@pytest.mark.parametrize("answer", [{}, {"error_code": ErrorCode.cluster_authorization_failed}])
def test_no_directory_is_a_right_that_is_missing(
    ottla: Inside, monkeypatch: pytest.MonkeyPatch, answer: dict[str, Any]
) -> None:
    """Before version 3 of DescribeLogDirs an answer has no field for the error."""
    monkeypatch.setattr(DirectCluster, "ask_node", lambda *_, **__: SimpleNamespace(results=(), **answer))
    why = ottla.fails(ExitCode.FAILED, "logdirs")
    assert "lacks the right to describe on the cluster" in why


def test_a_directory_that_is_offline_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    moving = logdirs_command.Replica("t", 3, 10, 7, True)
    internal = logdirs_command.Replica("__consumer_offsets", 0, 1, 0, False)
    well = logdirs_command.Directory(1, "/a", None, -1, -1, [moving, internal])
    lost = logdirs_command.Directory(2, "/b", "KAFKA_STORAGE_ERROR", -1, -1, [])
    logdirs_command._show([well, lost], False)
    assert capsys.readouterr().out.splitlines() == [
        "NODE  DIRECTORY  TOPIC               PARTITIONS  BYTES  LAG  FUTURE",
        "   1  /a         t                   3              10    7  3",
        "   1  /a         __consumer_offsets  0               1    0  -",
        "",
        "node 1, /a: 2 replicas, 11 bytes",
        "node 2, /b: offline (KAFKA_STORAGE_ERROR)",
        "all: 2 replicas, 11 bytes",
    ]
    assert logdirs_command._json(lost)["total_bytes"] is None


# ------------------------------------------------------------ producers


def test_producers_of_all_partitions_are_shown(ottla: Inside, broker: Broker) -> None:
    producer = Producer(broker.client_properties() | {"transactional.id": "x"})
    producer.init_transactions()
    producer.begin_transaction()
    for partition in (1, 4):
        producer.produce("orders", b"m", partition=partition)
    producer.flush()
    found = ottla.json("producers", "orders")
    assert [(one["topic"], one["partition"], one["start_offset"]) for one in found] == [
        ("orders", 1, 0),
        ("orders", 4, 0),
    ]
    assert len({one["producer_id"] for one in found}) == 1
    assert [one["partition"] for one in ottla.json("producers", "orders", "-p", "2-4")] == [4]
    producer.abort_transaction()
    assert [one["start_offset"] for one in ottla.json("producers", "orders")] == [None, None]
    head, *rows = ottla.rows("producers", "orders", "--broker-id", "1")
    assert head[:3] == ["PARTITION", "PRODUCER", "ID"]
    assert [row[0] for row in rows] == ["1", "4"]
    assert ottla.out("producers", "quiet") == ""


def test_what_has_no_producers_to_show_is_said(ottla: Inside) -> None:
    assert "does not exist" in ottla.fails(ExitCode.NOT_FOUND, "producers", "nothing")
    assert "no partition 6: it has 6" in ottla.fails(ExitCode.NOT_FOUND, "producers", "orders", "-p", "6")
    assert "node 7" in ottla.fails(ExitCode.NOT_FOUND, "producers", "orders", "--broker-id", "7")
    assert "0-5,8" in ottla.fails(ExitCode.USAGE, "producers", "orders", "-p", "2-1")


# ------------------------------------------------------------ rights


def test_the_right_that_is_missing_is_named(guarded: Broker, capsys: pytest.CaptureFixture[str]) -> None:
    nobody, reader = (Inside(guarded, capsys, user) for user in ("nobody", "reader"))
    why = nobody.fails(ExitCode.FAILED, "logdirs")
    assert "lacks the right to describe on the cluster" in why
    assert "'ottla acl add USER --operation describe --cluster'" in why
    why = nobody.fails(ExitCode.FAILED, "producers", "orders")
    assert "'ottla acl add USER --operation read --topic orders'" in why
    why = nobody.fails(ExitCode.FAILED, "producers", "quiet")
    assert "lacks the right to describe on topic 'quiet'" in why
    assert reader.json("producers", "orders") == []
    assert nobody.json("apis")[0]["apis"]


# ------------------------------------------------------------ ranges


def test_ranges_of_partitions_are_written_and_read() -> None:
    assert ranges.numbers([]) == ""
    assert ranges.numbers([3, 1, 2, 2, 8]) == "1-3,8"
    partitions = [TopicPartition("__consumer_offsets", 1), *(TopicPartition("a-b", n) for n in (0, 1, 5))]
    assert ranges.compressed(partitions) == ["a-b-[0-1,5]", "__consumer_offsets-1"]
    assert ranges.compressed_names(map(str, partitions)) == ranges.compressed(partitions)
    known = range(10)
    assert ranges.parse("-p", " 7, 0-2 ,1", known) == [0, 1, 2, 7]
    for text in ("", "1,", "-1", "3-", "a", "2-1", "1_0", "0-99999999999"):
        with pytest.raises(CliError) as caught:
            ranges.parse("-p", text, known)
        assert caught.value.code is ExitCode.USAGE, text
    with pytest.raises(CliError) as caught:
        ranges.parse("-p", "0-2000000000", known)
    assert caught.value.code is ExitCode.NOT_FOUND


@pytest.mark.parametrize(
    ("words", "lacking"),
    [
        (("topic", "create", "t"), "create --topic t"),
        (("topic", "delete", "orders"), "delete --topic orders"),
        (("topic", "alter", "orders", "-p", "9"), "alter --topic orders"),
        (("config", "set", "topic", "orders", "retention.ms=1"), "alter-configs --topic orders"),
        (("config", "describe", "broker", "1"), "describe-configs --cluster"),
        (("config", "describe", "broker", "default"), "describe-configs --cluster"),
        (("config", "describe", "group", "g"), "describe-configs --group g"),
        (("group", "delete", "g"), "delete --group g"),
    ],
)
def test_what_changes_something_names_its_right(
    guarded: Broker, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], lacking: str
) -> None:
    why = Inside(guarded, capsys, "nobody").fails(ExitCode.FAILED, *words)
    assert f"'ottla acl add USER --operation {lacking}' gives it" in why
