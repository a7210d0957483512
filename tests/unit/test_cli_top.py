"""`ottla top`'s pure parts: how fast figures move, rows, sorting, what fits, keys and what is drawn."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from ottla.cli.errors import CliError, ExitCode
from ottla.cli.top import once, rows
from ottla.cli.top.listening import CONNECTIONS_MAX, connections, parse_addresses
from ottla.cli.top.look import INTERVALS_S, Look, press, wanted
from ottla.cli.top.panels import (
    BROKERS,
    CLIENTS,
    GAP,
    GROUPS,
    PANELS,
    TOPICS,
    cells,
    cut,
    figure,
    fit,
    milliseconds,
    percent,
    search,
    signed,
    sort,
    span,
)
from ottla.cli.top.picture import FOOT_LINES, HEAD_LINES, Seen, Style, draw, page
from ottla.cli.top.rows import NEVER, TopicRow
from ottla.cli.top.snapshot import (
    Broker,
    Connection,
    Group,
    Listened,
    Measure,
    Partition,
    Snapshot,
    group_lag,
    measured,
)
from ottla.types import TopicPartition

A0, A1, B0 = TopicPartition("a", 0), TopicPartition("a", 1), TopicPartition("__b", 0)


def snapshot(**changes: Any) -> Snapshot:
    """Three nodes, of which one is away; two topics; one group that is behind."""
    ends = {A0: Measure(10.0, 100, 5.0), A1: Measure(10.0, 50, 2.5), B0: Measure(10.0, 7, None)}
    groups = {
        "g": Group("Stable", "classic", 1, 2, {A0: Measure(10.0, 90, 4.0)}, Measure(10.0, 10, -2.0), 10.0)
    }
    made = Snapshot(
        at_s=10.0,
        cluster_id="c",
        controller=1,
        brokers={
            1: Broker("h", 9092, "r1"),
            2: Broker("::1", 9093, None),
            3: Broker("", -1, None, is_fenced=True),
        },
        partitions={
            A0: Partition(1, (1, 2), (1, 2)),
            A1: Partition(2, (2, 3), (2,)),
            B0: Partition(-1, (3,), (3,)),
        },
        internal=frozenset(("__b",)),
        ends=ends,
        sizes={A0: Measure(10.0, 1_000, 50.0)},
        held_bytes={1: 1_000, 2: 500},
        groups=groups,
    )
    return replace(made, **changes)


# ------------------------------------------------------------ figures that move


@given(st.lists(st.tuples(st.floats(0.001, 1e3), st.integers(0, 10**9)), min_size=1), st.booleans())
def test_what_is_measured_adds_up(steps: list[tuple[float, int]], shrinks: bool) -> None:
    """Whatever came, each rate times its time is the change; none is negative where nothing shrinks."""
    measure, now_s = measured(None, 0.0, 0), 0.0
    assert measure == (0.0, 0, None, ())
    for after_s, value in steps:
        now_s += after_s
        before, measure = measure, measured(measure, now_s, value, shrinks=shrinks)
        assert (measure.at_s, measure.value) == (now_s, value)
        if measure.per_s is None:
            assert not shrinks and value < before.value
        else:
            assert shrinks or measure.per_s >= 0
            took_s = measure.at_s - before.at_s
            assert math.isclose(measure.per_s * took_s, value - before.value, rel_tol=1e-6, abs_tol=1e-6)


def test_two_looks_at_the_same_moment_say_nothing_new() -> None:
    before = Measure(5.0, 10, 3.0)
    assert measured(before, 5.0, 12) == (5.0, 12, 3.0, ())


@given(st.lists(st.tuples(st.floats(0.01, 5), st.integers(0, 1000)), min_size=1), st.floats(0, 20))
def test_a_rate_is_over_as_long_as_it_should_be(steps: list[tuple[float, int]], over_s: float) -> None:
    """Compared with what it was then, not with what it was much earlier, and little of it is kept."""
    seen = [(0.0, 0)]
    measure = measured(None, 0.0, 0)
    for after_s, value in steps:
        now_s = seen[-1][0] + after_s
        measure = measured(measure, now_s, value, shrinks=True, over_s=over_s)
        then_s, then = measure.past[0]
        assert (then_s, then) in seen
        assert measure.per_s == (value - then) / (now_s - then_s)
        # As old as asked for, but for what a fifth of that and the step make of it; or all that there is.
        assert now_s - then_s >= min(over_s, now_s) - 1e-9
        assert now_s - then_s <= over_s * 1.2 + 10
        assert len(measure.past) <= 8
        seen.append((now_s, value))


def test_a_group_that_commits_now_and_then_consumes_evenly() -> None:
    measure = None
    for second in range(0, 41, 2):
        measure = measured(measure, float(second), second // 5 * 500, over_s=10.0)
        if second >= 20:
            assert measure.per_s is not None and 75 <= measure.per_s <= 125


def test_lag_is_of_what_is_known() -> None:
    ends = {A0: Measure(1.0, 10), A1: Measure(1.0, 5)}
    committed = {A0: Measure(1.0, 4), A1: Measure(1.0, 9), B0: Measure(1.0, 1)}
    assert group_lag(Group("", "", 1, 0, committed), ends) == 6
    assert group_lag(Group("", "", 1, 0, {B0: Measure(1.0, 1)}), ends) is None
    assert group_lag(Group("", "", 1), ends) is None


# ------------------------------------------------------------ rows


def test_rows_of_brokers() -> None:
    one, two, three = rows.brokers(snapshot(silent={2: "why"}))
    assert (one.state, two.state, three.state) == ("controller", "silent", "away")
    assert (one.address, two.address, three.address) == ("h:9092", "[::1]:9093", None)
    assert (one.leads, one.replicas, one.behind, one.under_replicated, one.offline) == (1, 1, 0, 0, 0)
    assert (two.leads, two.replicas, two.under_replicated) == (1, 2, 1)
    assert (three.leads, three.replicas, three.behind, three.offline) == (0, 2, 1, 1)
    assert (one.messages_per_s, two.messages_per_s, three.messages_per_s) == (5.0, 2.5, None)
    assert (one.size_bytes, three.size_bytes) == (1_000, None)


def test_a_broker_that_holds_something_and_is_not_known() -> None:
    assert [row.state for row in rows.brokers(snapshot(brokers={1: Broker("h", 1, None)}))] == [
        "controller",
        "away",
        "away",
    ]


def test_rows_of_topics() -> None:
    hidden, a = rows.topics(snapshot())
    assert (a.topic, a.partitions, a.replication_factor, a.under_replicated, a.offline) == ("a", 2, 2, 1, 0)
    assert (a.messages_per_s, a.bytes_per_s, a.size_bytes) == (7.5, 50.0, 1_000)
    assert (hidden.topic, hidden.internal, hidden.offline, hidden.size_bytes) == ("__b", True, 1, None)
    assert [row.topic for row in rows.topics(snapshot(), internal=False)] == ["a"]


def test_rows_of_groups() -> None:
    (row,) = rows.groups(snapshot())
    assert (row.lag, row.lag_per_s, row.consumed_per_s, row.catch_up_s) == (10, -2.0, 4.0, 5.0)


@pytest.mark.parametrize(
    ("lag", "per_s", "result"),
    [(0, 1.0, 0.0), (None, None, None), (5, None, None), (5, 0.0, NEVER), (5, 1.0, NEVER), (5, -0.5, 10.0)],
)
def test_the_time_to_catch_up(lag: int | None, per_s: float | None, result: float | None) -> None:
    assert rows.catch_up_s(lag, per_s) == result


# ------------------------------------------------------------ sorting, searching, fitting

values = st.none() | st.floats(-1e6, 1e6) | st.integers(-100, 100)


def topic(name: str, rate: float | None) -> TopicRow:
    return TopicRow(name, False, 1, 1, 0, 0, rate, None, None)


@given(st.lists(st.tuples(st.text(max_size=5), values)), st.booleans())
def test_sorting_has_the_unknown_last(made: list[tuple[str, float | None]], reverse: bool) -> None:
    found = sort(TOPICS, [topic(name, rate) for name, rate in made], "messages_per_s", reverse=reverse)
    rates = [row.messages_per_s for row in found]  # type: ignore[union-attr]
    known = [rate for rate in rates if rate is not None]
    assert rates[len(known) :] == [None] * (len(rates) - len(known))
    assert known == sorted(known, reverse=not reverse)
    for one, next_one in pairwise(found):
        if one.messages_per_s == next_one.messages_per_s:  # type: ignore[union-attr]
            assert one.topic <= next_one.topic  # type: ignore[union-attr]
    assert sorted(map(repr, found)) == sorted(repr(topic(*one)) for one in made)


def test_names_are_in_order_and_ids_are_numbers() -> None:
    made = snapshot(brokers={node: Broker("h", node, None) for node in (10, 9, 100)}, partitions={})
    found = rows.brokers(made)
    assert [row.node_id for row in sort(BROKERS, found, "node_id")] == [9, 10, 100]  # type: ignore[union-attr]
    back = sort(BROKERS, found, "node_id", reverse=True)
    assert [row.node_id for row in back] == [100, 10, 9]  # type: ignore[union-attr]


def test_a_search_looks_at_names_in_capitals_or_not() -> None:
    found = [topic("Orders", 1.0), topic("clicks", 2.0)]
    assert search(TOPICS, found, "ORD") == found[:1]
    assert search(TOPICS, found, "") == found
    assert search(TOPICS, found, "2") == []


@given(
    st.lists(st.tuples(st.text(max_size=40), st.none() | st.floats(0, 1e12)), max_size=5),
    st.integers(1, 200),
)
def test_whatever_comes_there_is_room_for_it(made: list[tuple[str, float | None]], width: int) -> None:
    texts = [cells(TOPICS, topic(*one)) for one in made]
    places = fit(TOPICS, texts, width)
    indices = [index for index, _ in places]
    assert indices == sorted(set(indices))
    assert {i for i, c in enumerate(TOPICS.columns) if not c.rank} <= set(indices)
    used = sum(size for _, size in places) + len(GAP) * (len(places) - 1)
    assert used <= width or all(size == 1 for _, size in places)


def test_in_80_columns_names_stay_whole_while_they_can() -> None:
    for panel, row in (
        (BROKERS, rows.brokers(snapshot())[0]),
        (TOPICS, topic("a-topic-with-a-name", 1.0)),
        (GROUPS, rows.groups(snapshot())[0]),
    ):
        texts = cells(panel, row)
        places = fit(panel, [texts], 80)
        assert len(places) >= len(panel.columns) - 1
        assert all(size >= len(texts[index]) for index, size in places)


@given(st.text(max_size=30), st.integers(0, 20))
def test_what_is_cut_is_never_too_wide(text: str, width: int) -> None:
    assert cell_len(cut(text, width)) <= max(width, 0)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "-"), (0, "0"), (0.004, "0"), (0.05, "0.05"), (1.5, "1.5"), (7, "7"), (9999, "9999"),
        (9999.4, "9999"), (9999.6, "10.0k"), (99_949, "99.9k"), (99_950, "100k"), (999_400, "999k"),
        (999_600, "1.0M"), (12_300_000, "12.3M"), (-1234, "-1234"), (3 * 10**21, "3000E"),
    ],
)  # fmt: skip
def test_figures(value: float | None, text: str) -> None:
    assert figure(value) == text


@given(st.floats(0, 1e20))
def test_figures_are_short(value: float) -> None:
    assert len(figure(value)) <= 6


def test_other_figures() -> None:
    assert [signed(value) for value in (None, 0, 0.001, 12.0, -3)] == ["-", "0", "0", "+12", "-3"]
    assert [span(value) for value in (None, NEVER, 0, 59.4, 59.6, 3600, 86_400 * 12)] == [
        "-", "never", "0s", "59s", "1m00s", "1h00m", "12d",
    ]  # fmt: skip
    assert [milliseconds(value) for value in (None, 0.5, 9.96, 46.3, 12_000)] == [
        "-", "0.5ms", "9.96ms", "46ms", "12s",
    ]  # fmt: skip
    assert [percent(value) for value in (None, 6.3, 1000.0)] == ["-", "0.6%", "100.0%"]


# ------------------------------------------------------------ keys


def pressed(look: Look, *keys: str, page: int = 10, count: int = 100) -> Look:
    for key in keys:
        look = press(look, key, key if len(key) == 1 else None, page, count)
    return look


def test_keys_switch_panels() -> None:
    assert [pressed(Look(), key).panel for key in ("1", "2", "3", "4")] == list(PANELS)
    assert pressed(Look(), "tab").panel is TOPICS
    assert pressed(Look(), "shift+tab").panel is CLIENTS
    assert pressed(Look(), *["tab"] * 4).panel is BROKERS


def test_keys_sort() -> None:
    assert Look().sorted_by == ("node_id", False)
    assert pressed(Look(), ">").sorted_by == ("state", False)
    assert pressed(Look(), ">", "left").sorted_by == ("node_id", False)
    assert pressed(Look(), "less_than_sign").sorted_by == ("messages_per_s", False)
    assert pressed(Look(), "r").sorted_by == ("node_id", True)
    # Each panel has its own.
    assert pressed(Look(), "r", "2", "1").sorted_by == ("node_id", True)
    assert pressed(Look(), "r", "2").sorted_by == ("messages_per_s", False)
    assert pressed(Look(), "end", "r").offset == 0


def test_keys_search() -> None:
    typing = pressed(Look(), "/", "q", "x", "p")
    assert (typing.is_typing, typing.searched, typing.wants_end, typing.is_paused) == (
        True, "qxp", False, False,
    )  # fmt: skip
    assert pressed(typing, "backspace").searched == "qx"
    kept = pressed(typing, "enter")
    assert (kept.is_typing, kept.searched) == (False, "qxp")
    assert pressed(kept, "escape").searched == ""
    dropped = pressed(typing, "escape")
    assert (dropped.is_typing, dropped.searched) == (False, "")
    assert pressed(typing, "ctrl+u").searched == ""
    assert pressed(typing, "ctrl+c").wants_end
    assert pressed(typing, *"y" * 500).searched.startswith("qxpyyy")
    assert len(pressed(typing, *"y" * 500).searched) == 100


def test_keys_scroll_no_further_than_there_are_rows() -> None:
    assert pressed(Look(), "up").offset == 0
    assert pressed(Look(), "pagedown", "down", "k", "j").offset == 11
    assert pressed(Look(), "end").offset == 90
    assert pressed(Look(), "end", "home").offset == 0
    assert pressed(Look(), "end", count=5).offset == 0
    assert pressed(pressed(Look(), "end"), "tab").offset == 0


def test_other_keys() -> None:
    assert pressed(Look(), "p").is_paused and not pressed(Look(), "p", "space").is_paused
    assert pressed(Look(), "+").interval_s == 1.0 and pressed(Look(), "minus").interval_s == 5.0
    assert pressed(Look(), *["-"] * 20).interval_s == INTERVALS_S[-1]
    assert pressed(Look(), *["+"] * 20).interval_s == INTERVALS_S[0]
    assert pressed(Look(interval_s=3.0), "-").interval_s == 5.0
    assert pressed(Look(), "i").shows_internal
    assert pressed(Look(), "?").shows_help and not pressed(Look(), "?", "?").shows_help
    assert not pressed(Look(), "?", "escape").shows_help
    assert pressed(Look(), "q").wants_end and pressed(Look(), "ctrl+c").wants_end
    assert pressed(Look(), "f12") == Look()


KEYS = [
    "tab",
    "1",
    "2",
    "3",
    "4",
    "<",
    ">",
    "r",
    "/",
    "a",
    "enter",
    "escape",
    "i",
    "p",
    "+",
    "-",
    "down",
    "up",
    "pagedown",
    "end",
    "home",
    "?",
    "backspace",
]


@given(st.lists(st.sampled_from(KEYS)))
def test_whatever_is_pressed_fits_the_terminal(keys: list[str]) -> None:
    look = pressed(Look(), *keys, page=page(24), count=3)
    for made in (None, snapshot(), snapshot(silent={1: "why\x1b"})):
        for width, height in ((80, 24), (20, 6), (5, 2)):
            lines = draw(Seen(made, look), width, height)
            assert len(lines) == height
            for line in lines:
                assert cell_len("".join(text for text, _ in line)) <= width
                assert all(text.isprintable() for text, _ in line)


# ------------------------------------------------------------ what is drawn


def drawn(seen: Seen, width: int = 80, height: int = 24) -> list[str]:
    return ["".join(text for text, _ in line).rstrip() for line in draw(seen, width, height)]


def test_the_picture_of_brokers() -> None:
    lines = drawn(Seen(snapshot(), Look(), taken="12:00:00"))
    assert lines[0] == "2 brokers, 2 topics, 3 partitions, 1 group, 7.5 msg/s  cluster c"
    assert lines[1] == "1 offline; 1 under-replicated; node 3 away"
    assert lines[2].split()[:8] == ["1", "Brokers", "2", "Topics", "3", "Groups", "4", "Clients"]
    assert lines[2].endswith("12:00:00, every 2 s")
    assert lines[3].split()[0] == "id▲"
    # Titles stand where their figures do: names at the left, numbers at the right.
    assert lines[3].index("state") == lines[4].index("controller")
    assert lines[3].index("leads") + len("leads") - 1 == lines[4].index(" 1  ", 30) + 1
    assert lines[4].split() == ["1", "controller", "r1", "h:9092", "1", "1", "0", "0", "1000", "5"]
    assert lines[-1].startswith("3  Tab panel")
    styles = [line[0][1] for line in draw(Seen(snapshot(), Look()), 80, 24)[4:7]]
    assert styles == [Style.PLAIN, Style.WARNING, Style.ALARM]


def test_topics_of_kafkas_own_are_hidden_until_they_are_wanted() -> None:
    look = pressed(Look(), "2")
    assert not any("__b" in line for line in drawn(Seen(snapshot(), look)))
    assert any("__b" in line for line in drawn(Seen(snapshot(), pressed(look, "i"))))


def test_trouble_is_told_and_what_was_known_stays() -> None:
    lines = drawn(Seen(snapshot(), Look(), trouble="cannot reach a broker"))
    assert lines[1] == "cannot reach a broker" and lines[4].startswith("1 ")
    assert drawn(Seen(None, Look()))[1] == "looking for the cluster …"
    assert drawn(Seen(snapshot(), Look(is_paused=True)))[1].startswith("paused ")


def test_clients_that_nobody_tells_of() -> None:
    look = pressed(Look(), "4")
    text = "\n".join(drawn(Seen(snapshot(listened=Listened(notes=("node 1 has none",))), look)))
    assert "ottla config set broker ID metrics.listener=127.0.0.1:9308" in text
    assert "node 1 has none" in text
    quiet = drawn(Seen(snapshot(listened=Listened(asked=("h:1",))), look))
    assert quiet[4] == "no client has asked for anything since the last look"
    listened = Listened((Connection(1, "h", 1, "me\x1b", "p", "l", 1.0, 6.3, 0.0, 0.0, 0, 5.0),), ("h:1",))
    lines = drawn(Seen(snapshot(listened=listened), look))
    assert "me\\x1b" in lines[4] and "0.6%" in lines[4]


def test_rows_are_scrolled_and_counted() -> None:
    names = {TopicPartition(f"t{i:03}", 0): Partition(1, (1,), (1,)) for i in range(100)}
    look = pressed(Look(), "2", "pagedown", page=page(24))
    lines = drawn(Seen(snapshot(partitions=names, ends={}), look))
    rows_shown = 24 - HEAD_LINES - FOOT_LINES
    assert lines[4].startswith(f"t{rows_shown:03}")
    assert lines[-1].startswith(f"{rows_shown + 1}-{2 * rows_shown} of 100")
    assert wanted(look, snapshot(partitions=names, ends={}), 10).topics[0] == f"t{rows_shown:03}"
    assert wanted(look, None, 10).topics == ()


def test_groups_that_fall_behind_stand_out() -> None:
    lag = Measure(10.0, 10, 2.0)
    groups = {
        "a": Group("Empty", "classic", 1, 0, {}, lag, 10.0),
        "b": Group("Stable", "classic", 1, 1, {}, lag, 10.0),
        "c": Group("PreparingRebalance", "classic", 1, 1, {}, lag._replace(per_s=-1.0), 10.0),
        "d": Group("Stable", "classic", 1, 1, {}, lag._replace(per_s=0.0), 10.0),
        "e": Group("Stable", "classic", 1),
    }
    lines = draw(Seen(snapshot(groups=groups), pressed(Look(), "3", "<", "<", "<", "<", "<")), 80, 24)[4:9]
    assert [line[0][1] for line in lines] == [
        Style.ALARM, Style.WARNING, Style.WARNING, Style.PLAIN, Style.PLAIN,
    ]  # fmt: skip
    assert lines[2][0][0].split()[:2] == ["c", "Preparing"]


# ------------------------------------------------------------ one document, and what nodes tell


def test_the_document_is_json_for_anybody() -> None:
    behind = {"g": Group("Stable", "classic", 1, 2, {}, Measure(10.0, 10, 2.0), 10.0)}
    made = once.document(snapshot(groups=behind, silent={2: "why"}), 2.0, internal=False)
    text = json.dumps(made, allow_nan=False)
    assert json.loads(text)["groups"][0]["catch_up_s"] is None
    assert made["silent"] == [{"node_id": 2, "reason": "why"}]
    assert [row["topic"] for row in made["topics"]] == ["a"]
    assert once.document(snapshot(controller=9), 2.0, internal=True)["controller"] is None


def test_connections_as_a_node_tells_of_them() -> None:
    document = {
        "node_id": 3,
        "over_ms": 500.0,
        "clients": [{"host": "h", "port": 5, "client_id": "c", "requests": 10, "busy_ms": 2.5}],
    }
    (one,) = connections(document)
    assert (one.node_id, one.host, one.port, one.client_id) == (3, "h", 5, "c")
    assert (one.requests_per_s, one.busy_ms_per_s, one.oldest_unanswered_ms) == (20.0, 5.0, None)


anything: Any = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
)


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "node_id": anything,
            "over_ms": st.just(1000.0) | anything,
            "clients": anything
            | st.lists(st.dictionaries(st.sampled_from(Connection._fields), anything), max_size=3),
        },
    )
)
def test_whatever_a_node_tells_can_be_drawn(document: dict[str, Any]) -> None:
    listened = Listened(tuple(connections(document)), ("h:1",))
    draw(Seen(snapshot(listened=listened), pressed(Look(), "4")), 80, 24)
    json.dumps(once.document(snapshot(listened=listened), 1.0, internal=True), allow_nan=False)


def test_no_more_connections_are_taken_than_there_may_be() -> None:
    many = {"over_ms": 1000, "clients": [{}] * (CONNECTIONS_MAX + 1)}
    assert len(connections(many)) == CONNECTIONS_MAX


def test_addresses() -> None:
    assert parse_addresses("h:1,[::1]:2") == [("h", 1), ("::1", 2)]
    with pytest.raises(CliError, match="--metrics 'h:x': give HOST:PORT"):
        parse_addresses("h:x")


# ------------------------------------------------------------ mistakes


def refused(*arguments: str) -> CliError:
    from ottla.cli.app import run

    with pytest.raises(CliError) as caught:
        run(["top", *arguments])
    return caught.value


def test_mistakes_are_told_in_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    assert (refused("--json").code, "add --once" in str(refused("--json"))) == (2, True)
    assert "this is no terminal" in str(refused())
    assert refused("--once", "--metrics", "x:y").code == ExitCode.USAGE
    unreachable = refused("--once", "-b", "127.0.0.1:1")
    assert (unreachable.code, "cannot reach a broker" in str(unreachable)) == (3, True)


def test_what_is_missing_is_said_with_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", SimpleNamespace(isatty=lambda: True))
    monkeypatch.setattr("sys.stdout", SimpleNamespace(isatty=lambda: True))
    monkeypatch.setitem(sys.modules, "textual", None)
    assert "pip install 'ottla[top]'; --once does without it" in str(refused())


def test_only_the_live_view_loads_textual() -> None:
    script = "import sys, ottla.cli.app, ottla.cli.top.once; sys.exit('textual' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
