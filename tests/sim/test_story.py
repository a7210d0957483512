"""The story of a failure: the life of the record that is lost or there twice, or how it came to the end."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path

import pytest

from ottla.explore import checks
from ottla.explore.finding import document, find, report
from ottla.explore.plan import Plan
from ottla.explore.programs.story import COLUMNS_MAX, LINES_MAX, story_of
from ottla.explore.recording.recording import (
    TEXT_MAX,
    Call,
    Committed,
    Kind,
    Read,
    Recording,
    Remark,
    Span,
    Written,
)
from ottla.explore.recording.words import Words, ordinal
from ottla.explore.workers import Workers
from ottla.testing.contents import StoredRecord


@pytest.fixture(scope="module")
def stories() -> Iterator[Workers]:
    with Workers(str(Path(__file__).with_name("stories.py"))) as made:
        yield made


def story(workers: Workers, test: str) -> str:
    """The story without its times."""
    (run,) = workers.runs([Plan(test=test, seed=1, is_told=True)])
    assert run.error and run.story
    assert all(re.match(r" *\d+\.\d{3}  \S", line) for line in run.story)
    return "\n".join(line.lstrip().partition("  ")[2] for line in run.story)


def test_what_was_sent_again_since_nobody_answered(stories: Workers) -> None:
    told = story(stories, "paid_twice").splitlines()
    assert told[0] == "bank sends 'payment 1' to payments-0: offset 1, of which it never hears"
    assert told[1].startswith("bank sends 'payment 1' to payments-0: offset 2")
    assert not any("no program" in line for line in told)


def test_what_was_never_read(stories: Workers) -> None:
    told = story(stories, "read_too_late")
    assert "bank sends 'payment 0' to payments-0: offset 0\n" in told
    assert "late reads payments-0 from offset 1 on, and so never reads it\n" in told
    assert "late is given payments-0 (group late, generation 1)\n" in told
    assert "has written" not in told


def test_what_programs_wait_for_at_the_end_and_who_is_down(stories: Workers) -> None:
    told = story(stories, "not_paid").splitlines()
    waits = r"bank waits since 1\.1\d\d for Produce to n1 \(payments-0 \(1 record\)\)"
    assert any(re.fullmatch(waits, line) for line in told)
    assert "n1 is killed, and stays so" in told


# ------------------------------------------------------------ of recordings that were made up


def record(offset: int, value: bytes = b"a", key: bytes | None = None) -> StoredRecord:
    return StoredRecord(0, offset, 0, key, value, ())


def written(program: str, topic: str, offset: int | None, at_s: float, **other: object) -> Written:
    given: dict[str, object] = {
        "key": None,
        "value": b"a",
        "acknowledged_s": at_s + 0.1,
        "result": "ok",
        **other,
    }
    return Written(program=program, topic=topic, partition=0, offset=offset, sent_s=at_s, **given)  # type: ignore[arg-type]


def read(program: str, first: int, last: int, at_s: float) -> Read:
    return Read(program=program, topic="orders", partition=0, first_offset=first, last_offset=last, at_s=at_s)


def committed(offset: int, at_s: float, **other: str) -> Committed:
    given = {"result": "ok", **other}
    return Committed(
        program="shipping", group="g", topic="orders", partition=0, offset=offset, at_s=at_s, **given
    )


def call(at_s: float, result: str = "ok", program: str = "shipping", **other: object) -> Call:
    given: dict[str, object] = {"api": "Produce", "node": "n1", "answered_s": at_s + 0.1, **other}
    return Call(program=program, sent_s=at_s, result=result, **given)  # type: ignore[arg-type]


def starts(lane: str, *times_s: float, why: str = "is killed") -> list[Span]:
    """It starts at the first time, is down from the second to the third, and so on."""
    kinds = [Kind.RUNS if number % 2 == 0 else Kind.DOWN for number in range(len(times_s))]
    ends = [*times_s[1:], None]
    return [
        Span(lane=lane, kind=kind, begin_s=begin, end_s=end, text=why if kind is Kind.DOWN else "")
        for kind, begin, end in zip(kinds, times_s, ends, strict=True)
    ]


def recording(**lists: object) -> Recording:
    made = Recording(lanes=["n1", "shop", "shipping"], nodes=1, end_s=50.0, **lists)  # type: ignore[arg-type]
    made.spans = [*starts("shipping", 0.0, 5.0, 8.0), *made.spans]
    return made


def test_a_record_that_is_there_twice_since_it_was_read_twice() -> None:
    made = recording(
        written=[
            written("shop", "orders", 7, 1.0),
            written("shipping", "shipped", 3, 4.0),
            written("shipping", "shipped", 4, 9.0),
        ],
        read=[read("shipping", 5, 9, 2.0), read("shipping", 7, 9, 8.5)],
        committed=[committed(6, 3.0), committed(8, 10.0), committed(9, 11.0)],
    )
    twice = [record(3), record(4)]
    assert story_of(made, checks.Broken("twice", twice)) == [
        "   1.000  shop sends 'a' to orders-0: offset 7",
        "   2.000  shipping (1st start) reads it: orders-0 offsets 5 to 9",
        "   4.000  shipping (1st start) sends 'a' to shipped-0: offset 3",
        "   5.000  shipping (1st start) is killed, and starts again at 8.000",
        "   8.500  shipping (2nd start) reads it: orders-0 offsets 7 to 9",
        "   9.000  shipping (2nd start) sends 'a' to shipped-0: offset 4",
        "  10.000  shipping (2nd start) commits orders-0 to 8 for group g: it counts as read",
    ]


def test_a_record_of_the_same_value_is_another_one() -> None:
    made = recording(
        written=[
            written("shop", "orders", 7, 1.0),
            written("shop", "orders", 8, 1.5),
            written("shipping", "shipped", 3, 9.0),
        ],
        read=[read("shipping", 7, 7, 2.0), read("shipping", 8, 8, 2.5), read("shipping", 8, 8, 8.5)],
        committed=[committed(8, 3.0)],
    )
    told = story_of(made, checks.Broken("lost", [record(7)]))
    assert not any("shipped" in line or ("offset 8" in line and "reads it" in line) for line in told)
    assert "  50.000  the run ends, and no program that read it has written a record with this value" in told
    assert "   8.500  shipping (2nd start) reads on behind it: orders-0 offset 8" in told


def test_a_result_is_known_by_a_key_of_its_own() -> None:
    entries = [
        written("shop", "orders", 7, 1.0, key=b"k"),
        written("shipping", "shipped", 3, 4.0, key=b"k", value=b"b"),
    ]
    made = recording(written=entries, read=[read("shipping", 7, 7, 2.0)])
    broken = checks.Broken("wrong", [record(7, key=b"k")])
    assert any("to shipped-0: offset 3" in line for line in story_of(made, broken))
    made.written.append(written("shop", "orders", 8, 1.5, key=b"k", value=b"c"))
    assert not any("to shipped-0" in line for line in story_of(made, broken))


def test_commits_that_failed_and_transactions_that_were_aborted() -> None:
    of = {"transaction": "t", "outcome": "aborted"}
    made = recording(
        written=[written("shop", "orders", 7, 1.0, **of)],
        read=[read("shipping", 7, 7, 2.0)],
        committed=[
            committed(8, 2.1, result="NOT_COORDINATOR"),
            committed(8, 2.2, result="NOT_COORDINATOR"),
            committed(8, 2.3, **of),
            committed(8, 2.4, result=""),
        ],
    )
    told = story_of(made, checks.Broken("lost", [record(7)]))
    begins = "shipping (1st start) commits orders-0 to 8 for group g: "
    assert told[0] == "   1.000  shop sends 'a' to orders-0: offset 7 (transaction t, aborted)"
    assert told[2:5] == [
        f"   2.100  {begins}NOT_COORDINATOR, 2 times until 2.200",
        f"   2.300  {begins}transaction t was aborted",
        f"   2.400  {begins}no answer",
    ]


def test_two_records_out_of_order_are_told_of_both() -> None:
    made = recording(
        written=[written("shop", "orders", 4, 1.0, value=b"b"), written("shop", "orders", 5, 2.0)]
    )
    told = story_of(made, checks.Broken("out of order", [record(4, b"b"), record(5)]))
    assert told == [
        "   1.000  shop sends 'b' to orders-0: offset 4",
        "   2.000  shop sends 'a' to orders-0: offset 5",
    ]


def test_retries_are_one_line_and_what_is_usual_is_none() -> None:
    calls = [
        call(1.0 + number, "NOT_LEADER_OR_FOLLOWER", about="orders-0 (1 record)") for number in range(14)
    ]
    calls += [
        call(2.0, "MEMBER_ID_REQUIRED", api="JoinGroup"),
        call(3.0),
        call(40.0, "NOT_LEADER_OR_FOLLOWER"),
    ]
    # The end of its process is not that of the node.
    calls += [
        call(4.0, "", answered_s=None, lost_s=5.0),
        call(9.0, "", answered_s=None, lost_s=9.5, node="n2"),
    ]
    calls += [call(20.0 + number, "REQUEST_TIMED_OUT") for number in range(2)]
    made = recording(calls=sorted(calls, key=lambda one: one.sent_s))
    assert [(line.at_s, line.text) for line in Words(made).failures(made.calls)] == [
        (1.0, "shipping: Produce to n1: NOT_LEADER_OR_FOLLOWER, 14 times until 14.000"),
        (9.0, "shipping (2nd start): Produce to n2: no answer, the connection ended"),
        (20.0, "shipping (2nd start): Produce to n1: REQUEST_TIMED_OUT, 2 times until 21.000"),
        (40.0, "shipping (2nd start): Produce to n1: NOT_LEADER_OR_FOLLOWER"),
    ]


def test_faults_and_failures_near_the_record_and_no_others() -> None:
    def fault(lane: str, begin_s: float, text: str) -> Span:
        return Span(lane=lane, kind=Kind.FAULT, begin_s=begin_s, end_s=begin_s + 1, text=text)

    made = recording(
        written=[written("shop", "orders", 7, 20.0)],
        calls=[
            call(19.0, "REQUEST_TIMED_OUT", "shop"),
            call(2.0, "REQUEST_TIMED_OUT", "shop"),
            call(20.0, "x", "other"),
        ],
        spans=[
            fault("n1", 19.5, "n1 is cut off from shop"),
            fault("n1", 2.0, "n1's disk is full"),
            fault("network", 19.5, "shipping does not reach n1"),
            fault("network", 19.6, "shop does not reach store"),
            fault("network", 19.7, "shop to shipping takes 5 ms more"),
        ],
        remarks=[
            Remark(lane="n1", at_s=19.8, text="n1 leads orders-0 (epoch 3)"),
            Remark(lane="n1", at_s=19.8, text="n1 leads orders-1 (epoch 3)"),
        ],
    )
    assert story_of(made, checks.Broken("lost", [record(7)])) == [
        "  19.000  shop: Produce to n1: REQUEST_TIMED_OUT",
        "  19.500  n1 is cut off from shop, until 20.500",
        "  19.800  n1 leads orders-0 (epoch 3)",
        "  20.000  shop sends 'a' to orders-0: offset 7",
    ]


def test_a_story_has_its_bounds() -> None:
    made = recording(
        written=[written("shop", "orders", 7, 1.0, value=b"x" * TEXT_MAX)],
        read=[read("shipping", 7, 7, 2.0 + number) for number in range(100)],
        calls=[call(1.0 + number / 100, f"E{number}", "shop", about="y" * 200) for number in range(100)],
        remarks=[Remark(lane="n1", at_s=number / 10, text=f"n1 is {number}") for number in range(100)],
    )
    for error in (checks.Broken("lost", [record(7, b"x" * 5000)]), ValueError("no")):
        told = story_of(made, error)
        assert len(told) == LINES_MAX and max(map(len, told)) <= COLUMNS_MAX
    assert "sends 'xxxxxxxx" in story_of(made, checks.Broken("lost", [record(7, b"x" * 5000)]))[0]
    assert len(story_of(Recording(), ValueError("no"))) == 0


def test_how_it_came_to_the_end() -> None:
    made = recording(
        calls=[
            call(10.0, api="OffsetCommit", about="group g"),
            call(11.0, api="Heartbeat"),
            call(49.0, "", answered_s=None, api="Fetch"),
            call(12.0, "", "shop", answered_s=None, api="Metadata"),
            call(49.0, "acks=0", "shop", answered_s=None),
        ],
        spans=starts("n1", 0.0, 1.0, 2.0, 3.0, why="loses power"),
        remarks=[
            Remark(lane="world", at_s=20.0, text="heals"),
            Remark(lane="n1", at_s=21.0, text="n1 leads orders-0 (epoch 3)"),
            Remark(lane="n1", at_s=21.0, text="n1 leads orders-1 (epoch 3)"),
        ],
    )
    assert story_of(made, checks.Broken("no progress for 7.0 s")) == [
        "   0.000  shipping (1st start) starts",
        "   0.000  n1 starts",
        "   1.000  n1 loses power, and starts again at 2.000",
        "   3.000  n1 loses power, and stays so",
        "   5.000  shipping (1st start) is killed, and starts again at 8.000",
        "  10.000  shipping (2nd start) asks for the last time: OffsetCommit to n1 (group g): ok",
        "  20.000  world heals",
        "  21.000  n1 leads orders-0, orders-1",
        "  50.000  shop waits since 12.000 for Metadata to n1",
    ]


def test_a_program_that_ends_again_and_again_is_one_line() -> None:
    made = recording(spans=starts("shop", *map(float, range(10, 21)), why="ended by Failure()"))
    told = story_of(made, ValueError("no"))
    assert "  11.000  shop, 5 times until 19.000: ended by Failure()" in told


def test_ordinals() -> None:
    assert [ordinal(n) for n in (1, 2, 3, 4, 11, 12, 13, 21, 101, 111)] == [
        "1st", "2nd", "3rd", "4th", "11th", "12th", "13th", "21st", "101st", "111th",
    ]  # fmt: skip


def test_what_programs_say_is_shown_and_changes_nothing(stories: Workers, tmp_path: Path) -> None:
    """In the report, of the command and of pytest, as JSON, and in both pictures."""
    for name in ("run.html", "run.svg"):
        plan = Plan(test="is_hostile", seed=1, picture=str(tmp_path / name))
        (whole,) = stories.runs([plan])
        finding = find(stories, "stories.py::is_hostile", plan, whole, shrink_s=0)
        assert finding.is_repeatable and not finding.no_picture
        text = (tmp_path / name).read_text(encoding="utf-8")
        ElementTree.fromstring(text)
        assert "<script>alert" not in text and re.search(r"[^\n -~–—…’−\xb7]", text) is None
    told = report(finding)
    assert re.search(r"[^\n -~…]", told) is None
    group = r"for group \x1b[2J\r\n\x9b\u202eevil"
    assert any(group in line for line in finding.run.story)
    assert "seed 1: Broken: lost: \\x1b[2J\n" in told and r"\udc80" in told
    assert "is paused" in told and "\nWhat it printed last:\n    \\x1b[2J\n" in told
    assert json.loads(json.dumps(document(finding)))["error"] == finding.run.error
