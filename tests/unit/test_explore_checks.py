"""Checks of what programs did: each holds of right outcomes, and names the records of wrong ones."""

from __future__ import annotations

import inspect
import re
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ottla.explore.programs import checks
from ottla.explore.programs.checks import Broken
from ottla.explore.world.machine import EPOCH_MS
from ottla.testing.contents import StoredCommit, StoredRecord
from ottla.types import TopicPartition


def records(*values: str, partition: int = 0, key: bytes | None = b"k") -> list[StoredRecord]:
    return [
        StoredRecord(partition, offset, 0, key, value.encode(), ()) for offset, value in enumerate(values)
    ]


def test_a_lost_record_is_named() -> None:
    checks.nothing_lost(records("a", "b"), records("b", "a", "a"))
    with pytest.raises(Broken, match=r"1 record is lost: 0@1 'k'='b'") as broken:
        checks.nothing_lost(records("a", "b"), records("a"))
    assert broken.value.records == tuple(records("a", "b")[1:])


def test_a_record_that_is_there_twice_is_named_with_each_place() -> None:
    checks.nothing_twice(records("a", "b"))
    with pytest.raises(Broken, match=r"1 record is there more than once: 0@0 'k'='a', 0@2 'k'='a'"):
        checks.nothing_twice(records("a", "b", "a"))


def test_exactly_once_is_neither_lost_nor_twice_nor_made_up() -> None:
    checks.exactly_once(records("a", "b"), records("b", "a"))
    for found, problem in (("a", "lost"), ("aab", "more than once"), ("abc", "of no source")):
        with pytest.raises(Broken, match=problem):
            checks.exactly_once(records("a", "b"), records(*found))


@given(st.lists(st.sampled_from("abc")), st.lists(st.sampled_from("abcd")))
def test_exactly_once_is_a_comparison_of_counts(sources: list[str], targets: list[str]) -> None:
    is_once = set(sources) == set(targets) and max(Counter(targets).values(), default=1) == 1
    try:
        checks.exactly_once(records(*sources), records(*targets))
    except Broken:
        assert not is_once
    else:
        assert is_once


def _sides(record: StoredRecord) -> list[bytes | None]:
    """An order becomes an invoice and a parcel; a note becomes nothing."""
    value = record.value or b""
    return [] if value.startswith(b"note") else [value + b" invoice", value + b" parcel"]


def test_a_source_may_become_several_records_or_none() -> None:
    sources = records("1", "note", "2")
    targets = ["1 invoice", "1 parcel", "2 invoice", "2 parcel"]
    checks.exactly_once(sources, records(*targets), becomes=_sides)
    with pytest.raises(Broken, match=r"1 record is lost: 0@2 'k'='2'"):
        checks.nothing_lost(sources, records(*targets[:3]), becomes=_sides)
    with pytest.raises(Broken, match=r"1 record is of no source: 0@4 'k'='note'"):
        checks.exactly_once(sources, records(*targets, "note"), becomes=_sides)
    with pytest.raises(Broken, match="2 records are of no source"):
        checks.nothing_else(records("1"), records(*targets), becomes=_sides)


def test_order_is_of_each_key() -> None:
    def number(record: StoredRecord) -> int:
        return int(record.value or b"0")

    checks.in_order(records("1", "2", "2", "5"), number)
    checks.in_order([*records("5", key=b"a"), *records("1", partition=1, key=b"b")], number)
    with pytest.raises(Broken, match=r"out of order: 0@1 'k'='3', 0@2 'k'='2'"):
        checks.in_order(records("1", "3", "2"), number)
    with pytest.raises(Broken, match="one key in two partitions"):
        checks.in_order([*records("1"), *records("2", partition=1)], number)


def test_a_repeat_is_out_of_order_only_where_it_is_not_allowed() -> None:
    def number(record: StoredRecord) -> int:
        return int(record.value or b"0")

    checks.in_order(records("1", "2", "3", "2", "3", "4"), number, repeats=True)
    with pytest.raises(Broken, match="out of order: 0@2 'k'='3', 0@3 'k'='2'"):
        checks.in_order(records("1", "2", "3", "2", "3", "4"), number)
    with pytest.raises(Broken, match="out of order: 0@3 'k'='4', 0@4 'k'='3'"):
        checks.in_order(records("1", "2", "1", "4", "3"), number, repeats=True)


def test_a_commit_ahead_of_the_work_is_named() -> None:
    committed = {TopicPartition("orders", 0): 2}
    checks.commits_behind("orders", records("a", "b", "c"), committed, records("a", "b"))
    with pytest.raises(Broken, match=r"1 record is committed, and not processed: 0@1 'k'='b'"):
        checks.commits_behind("orders", records("a", "b", "c"), committed, records("a"))
    checks.commits_behind("orders", records("a"), {}, [])


def test_a_commit_that_was_ahead_once_is_named() -> None:
    sources = records("a", "b", "c")
    targets = [one._replace(timestamp_ms=10 * (one.offset + 1)) for one in records("a", "b", "a")]
    commits = [StoredCommit(10, "orders", 0, 1), StoredCommit(20, "orders", 0, 2)]
    others = [StoredCommit(5, "orders", 1, 9), StoredCommit(5, "parcels", 0, 3)]
    checks.commits_always_behind("orders", sources, [*commits, *others], targets)
    with pytest.raises(
        Broken, match=r"1 record is committed before .* commit of 2 in partition 0: 0@1 'k'='b'"
    ):
        checks.commits_always_behind("orders", sources, [StoredCommit(19, "orders", 0, 2)], targets)
    with pytest.raises(Broken, match=r"commit of 3 in partition 0: 0@2 'k'='c'"):
        checks.commits_always_behind("orders", sources, [StoredCommit(99, "orders", 0, 3)], targets)


def test_times_are_seconds_of_the_run() -> None:
    assert checks.times_s([records("a")[0]._replace(timestamp_ms=EPOCH_MS + 1_500)]) == [1.5]


def test_a_standstill_is_a_gap_anywhere() -> None:
    checks.no_standstill([1, 2, 3], 0, 4, 1)
    for times, since in (((3.0,), "0.0"), ((1.0,), "1.0"), ((), "0.0")):
        with pytest.raises(Broken, match=re.escape(f"from {since} s on")):
            checks.no_standstill(times, 0, 4, 2)


def test_much_that_is_wrong_is_named_in_part() -> None:
    with pytest.raises(Broken, match=r"^25 records are lost: .*'k'='9' and 15 more$"):
        checks.nothing_lost(records(*map(str, range(25))), [])


def test_long_values_and_bytes_are_named_in_part() -> None:
    record = StoredRecord(0, 7, 0, None, b"\xff" + b"x" * 100, ())
    with pytest.raises(Broken, match=r"0@7 null='\\\\xffx{39}'…"):
        checks.nothing_lost([record], [])


def test_it_is_noted_by_the_users_line_whether_a_check_had_sources(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "made", {})
    line = inspect.stack()[0].lineno
    checks.exactly_once([], [])
    for sources in ([], records("a"), []):
        checks.nothing_lost(iter(sources), records("a"))
    checks.nothing_twice([])
    assert checks.made == {
        f"exactly_once at test_explore_checks.py:{line + 1}": False,
        f"nothing_lost at test_explore_checks.py:{line + 3}": True,
    }
