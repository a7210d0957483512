"""What lists show: colours with words, whole ids, ranges of partitions, and types in JSON."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from inside_support import Inside

from ottla.cli import health, output, topic
from ottla.cli.errors import ExitCode
from ottla.testing import Acl, Broker

COLOURS = re.compile(r"\x1b\[[0-9;]*m")
ID = "consumer-billing-1-" + "0123456789abcdef" * 4


class Terminal(io.StringIO):
    """A terminal of 60 columns as standard output."""

    def isatty(self) -> bool:
        return True


Open = Callable[[], Terminal]


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Open:
    """Has standard output be a terminal."""
    for name, value in (("TERM", "xterm-256color"), ("COLUMNS", "60")):
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("NO_COLOR", raising=False)

    def begin() -> Terminal:
        made = Terminal()
        monkeypatch.setattr("sys.stdout", made)
        return made

    return begin


@pytest.fixture(scope="module")
def broker() -> Iterator[Broker]:
    with Broker(topics={"orders": 2, "bills": 1}) as broker:
        yield broker


@pytest.fixture
def ottla(broker: Broker, capsys: pytest.CaptureFixture[str]) -> Inside:
    return Inside(broker, capsys)


# ------------------------------------------------------------ terminals and pipes


def test_headings_are_alike_in_pipes_and_terminals(
    capsys: pytest.CaptureFixture[str], terminal: Open
) -> None:
    columns, rows = ("topic", "new start"), [("orders", 3)]
    output.table(columns, rows)
    assert capsys.readouterr().out.splitlines()[0] == "TOPIC   NEW START"
    shown = terminal()
    output.table(columns, rows)
    assert re.search(r"TOPIC +NEW START", COLOURS.sub("", shown.getvalue()))


def test_an_id_is_whole_in_a_narrow_terminal(terminal: Open) -> None:
    screen = terminal()
    output.table(("member", "host", "partitions"), [(ID, "127.0.0.1", "orders-[0-5] " * 9)])
    shown = COLOURS.sub("", screen.getvalue())
    assert ID in shown and "127.0.0.1" in shown
    assert all(line.count("orders") < 9 for line in shown.splitlines()), "what has blanks is folded"


def test_trouble_has_a_colour_and_words(terminal: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    screen = terminal()
    line = ("t: ", output.Marked("2 offline", output.ALARM), "\x1b[2J")
    output.table(("n", "trouble"), [(1, output.Marked("offline", output.ALARM)), (2, None)])
    output.say_marked(*line)
    shown = screen.getvalue()
    assert re.search(r"\x1b\[1;31m\s*offline", shown) and re.search(r"\x1b\[1;31m2 offline\x1b\[0m", shown)
    assert "\x1b[2J" not in shown
    monkeypatch.setenv("NO_COLOR", "1")
    plain = terminal()
    output.say_marked(*line)
    assert "31m" not in plain.getvalue() and "2 offline" in plain.getvalue()


def test_numbers_with_colours_are_aligned_as_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    output.table(("lag", "t"), [(output.Marked(1000, output.WARNING), "a"), (7, "b"), (None, "c")])
    assert capsys.readouterr().out.splitlines() == [" LAG  T", "1000  a", "   7  b", "   -  c"]


# ------------------------------------------------------------ trouble of partitions


REPORT: dict[str, Any] = {
    "cluster_id": "c",
    "controller": 1,
    "topics": 2,
    "partitions": 9,
    "brokers": [
        {"node_id": 1, "host": "h", "port": 1, "rack": None, "state": "alive", "leads": 8, "replicas": 9,
         "behind": 0},
        {"node_id": 2, "host": None, "port": None, "rack": None, "state": "fenced", "leads": 0, "replicas": 9,
         "behind": 9},
    ],
    "offline_partitions": ["orders-3"],
    "under_min_isr_partitions": [],
    "under_replicated_partitions": ["__consumer_offsets-0", *(f"orders-{i}" for i in range(6))],
    "moving_partitions": [],
}  # fmt: skip


def test_what_is_the_matter_with_a_cluster_is_said_in_kafkas_words(
    capsys: pytest.CaptureFixture[str],
) -> None:
    health.show(REPORT)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "cluster c: 2 topics, 9 partitions, 1 offline, 7 under-replicated"
    assert lines[3].split()[:4] == ["2", "-", "-", "fenced"]
    assert lines[4:] == [
        "offline: orders-3",
        "under-replicated: orders-[0-5] __consumer_offsets-0",
    ]
    well = {**REPORT, "offline_partitions": [], "under_replicated_partitions": []}
    health.show(well)
    assert capsys.readouterr().out.splitlines()[0] == "cluster c: 2 topics, 9 partitions, all in sync"


def test_of_many_topics_some_are_named() -> None:
    names = [f"t{i:02}-{partition}" for i in range(health.NAMES_MAX + 3) for partition in range(2)]
    assert health._some(names).endswith(" t19-[0-1] and 3 topics more")


def test_partitions_of_a_topic_that_are_not_well(capsys: pytest.CaptureFixture[str]) -> None:
    def partition(number: int, leader: int | None, *isr: int) -> dict[str, Any]:
        ends = {"start_offset": 0, "end_offset": 5} if leader else {"start_offset": None, "end_offset": None}
        return {"partition": number, "leader": leader, "replicas": [1, 2], "isr": list(isr), **ends}

    found = {
        "topic": "t",
        "topic_id": None,
        "replication_factor": 2,
        "configs": None,
        "partitions": [partition(0, 1, 1, 2), partition(1, 1, 1), partition(2, None)],
    }
    topic._show(found)
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [row[-1] for row in rows[1:]] == ["TROUBLE", "-", "under-replicated", "offline"]


# ------------------------------------------------------------ lists


def test_topics_of_users_come_first(ottla: Inside, broker: Broker) -> None:
    broker.create_topic("zebras")
    ottla.out("topic", "create", "__transaction_state", "-p", "1")
    names = [one["topic"] for one in ottla.json("topic", "list", "--internal")]
    assert names == ["bills", "orders", "zebras", "__transaction_state"]
    assert ottla.rows("topic", "list")[-1] == ["zebras", "1", "1"]


@pytest.mark.parametrize(
    "words",
    [
        ("topic", "list"),
        ("topic", "describe", "orders"),
        ("cluster", "describe"),
        ("config", "describe", "topic", "orders", "--all"),
        ("logdirs",),
        ("apis",),
        ("producers", "orders"),
        ("group", "list"),
        ("feature", "describe"),
        ("transaction", "list"),
        ("quota", "list"),
        ("cluster", "reassign"),
    ],
    ids=" ".join,
)
def test_json_is_one_document_whose_values_have_types(ottla: Inside, words: tuple[str, ...]) -> None:
    out = ottla.out(*words, "--json")
    assert out.count("\n") == 1
    for name, value in leaves(ottla.json(*words)):
        # Configurations have the words that Kafka has for them.
        if name != "value" and isinstance(value, str):
            assert not re.fullmatch(r"-?\d+|true|false|null|None|-", value), (name, value)


def leaves(document: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(document, dict):
        for key, value in document.items():
            yield from leaves(value, key)
    elif isinstance(document, list):
        for value in document:
            yield from leaves(value, name)
    else:
        yield name, document


def test_a_topic_is_described_without_the_right_to_its_configurations(
    capsys: pytest.CaptureFixture[str],
) -> None:
    rules = [Acl("ann", "describe", topic="t")]
    with Broker(topics=["t"], users={"ann": "secret"}, acls=rules) as broker:
        ann = Inside(broker, capsys, "ann")
        (described,) = ann.json("topic", "describe", "t")
        assert described["configs"] is None
        assert described["partitions"][0]["end_offset"] == 0
        assert "PARTITION" in ann.out("topic", "describe", "t")
        why = ann.fails(ExitCode.FAILED, "config", "describe", "topic", "t")
    assert "lacks the right to describe-configs on topic 't'" in why
