"""`ottla topic trim` against an embedded broker."""

from __future__ import annotations

import io
from collections.abc import Iterator
from uuid import uuid4

import pytest
from inside_support import Inside

from ottla.cli.errors import ExitCode
from ottla.testing import Acl, Broker

MESSAGES = 10


@pytest.fixture(scope="module")
def broker() -> Iterator[Broker]:
    with Broker() as broker:
        yield broker


@pytest.fixture
def ottla(broker: Broker, capsys: pytest.CaptureFixture[str]) -> Inside:
    return Inside(broker, capsys)


@pytest.fixture
def topic(broker: Broker) -> str:
    """A topic with some messages in each of its three partitions."""
    name = f"t-{uuid4().hex[:10]}"
    broker.create_topic(name, 3)
    for partition in range(3):
        broker.produce(name, *(f"m{i}" for i in range(MESSAGES)), partition=partition)
    return name


def starts(ottla: Inside, topic: str) -> list[int]:
    (described,) = ottla.json("topic", "describe", topic)
    return [one["start_offset"] for one in described["partitions"]]


def test_records_before_an_offset_are_deleted(ottla: Inside, topic: str) -> None:
    out = ottla.out("topic", "trim", topic, "--before", "4", "--yes").splitlines()
    assert out[0].split() == ["PARTITION", "START", "NEW", "START", "DELETED"]
    assert [line.split() for line in out[1:4]] == [[str(i), "0", "4", "4"] for i in range(3)]
    assert out[4] == f"{topic}: 12 offsets deleted in 3 partitions"
    assert starts(ottla, topic) == [4, 4, 4]
    # Another time there is nothing to delete, and nobody is asked.
    assert ottla.out("topic", "trim", topic, "--before", "3").count("\n") == 4


def test_each_partition_has_its_position(ottla: Inside, topic: str, broker: Broker) -> None:
    done = ottla.json("topic", "trim", topic, "--before", "0-1=7", "--before", "end", "--yes")
    assert done == {
        "topic": topic,
        "executed": True,
        "partitions": [
            {"partition": i, "start_offset": 0, "new_start_offset": end, "deleted_offsets": end}
            for i, end in ((0, 7), (1, 7), (2, MESSAGES))
        ],
    }
    assert starts(ottla, topic) == [7, 7, MESSAGES]
    ottla.out("topic", "trim", topic, "-p", "1", "--before", "-1", "-y")
    assert starts(ottla, topic) == [7, 9, MESSAGES]
    # All messages are younger than an hour.
    assert ottla.json("topic", "trim", topic, "--before", "1h")["partitions"] == []


def test_a_dry_run_deletes_nothing(ottla: Inside, topic: str) -> None:
    done = ottla.json("topic", "trim", topic, "-p", "2", "--before", "end", "--dry-run")
    assert (done["executed"], len(done["partitions"])) == (False, 1)
    assert done["partitions"][0]["new_start_offset"] == MESSAGES
    assert starts(ottla, topic) == [0, 0, 0]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_it_asks_before_it_deletes(ottla: Inside, topic: str, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ("topic", "trim", topic, "--before", "1")
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    assert "give --yes" in ottla.fails(ExitCode.USAGE, *words)
    monkeypatch.setattr("sys.stdin", Terminal("n\n"))
    assert ottla.fails(ExitCode.FAILED, *words) == "nothing was deleted"
    assert starts(ottla, topic) == [0, 0, 0]
    monkeypatch.setattr("sys.stdin", Terminal("y\n"))
    ottla.out(*words)
    assert starts(ottla, topic) == [1, 1, 1]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--before", "11"], "ends at offset 10; give 'end'"),
        (["--before", "soon"], "--before 'soon': give"),
        (["--before", "x=1"], "0-5,8"),
        (["--before", "1", "--before", "2"], "one position for all"),
        (["--before", "0-1=1", "--before", "1=2"], "partition 1 is named twice"),
        (["--before", "0=1", "-p", "0"], "not both"),
    ],
)
def test_what_cannot_be_meant_is_refused(ottla: Inside, topic: str, arguments: list[str], said: str) -> None:
    assert said in ottla.fails(ExitCode.USAGE, "topic", "trim", topic, *arguments, "--yes")
    assert starts(ottla, topic) == [0, 0, 0]


def test_what_is_not_there_and_what_may_not_be_trimmed(ottla: Inside, broker: Broker) -> None:
    assert "does not exist" in ottla.fails(ExitCode.NOT_FOUND, "topic", "trim", "no", "--before", "1", "-y")
    broker.create_topic("compacted", config={"cleanup.policy": "compact"})
    broker.produce("compacted", "v", key="k")
    words = ("topic", "trim", "compacted", "--before", "end", "--yes")
    assert "compacted-0: " in ottla.fails(ExitCode.FAILED, *words)
    assert "no partition 7" in ottla.fails(ExitCode.NOT_FOUND, *words, "-p", "7")


def test_the_right_that_is_missing_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    rules = [Acl("ann", "read", topic="t")]
    with Broker(topics=["t"], users={"ann": "secret"}, acls=rules) as broker:
        broker.produce("t", "m")
        ann = Inside(broker, capsys, "ann")
        why = ann.fails(ExitCode.FAILED, "topic", "trim", "t", "--before", "end", "--yes")
    assert "lacks the right to delete on topic 't'" in why
    assert "--operation delete --topic t" in why
