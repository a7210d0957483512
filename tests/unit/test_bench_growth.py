"""How brokers grow: options, axes of a plot, plots, tables, the page. Nothing is measured here."""

from __future__ import annotations

import json
import os
import re
import socketserver
import sys
import threading
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "bench"))

import addresses  # noqa: E402
import asking  # noqa: E402
import drawing  # noqa: E402
import growing  # noqa: E402
import growth_page  # noqa: E402
import load  # noqa: E402
import options  # noqa: E402
from drawing import Line  # noqa: E402
from growth_axes import AXES, Axis, points  # noqa: E402
from growth_subject import Rig, Subject  # noqa: E402

SIZES = st.floats(1e-4, 1e7)


def results(*brokers: str, **changes: Any) -> dict[str, Any]:
    """As two points of two axes would have been measured."""
    names = brokers or ("ottla",)
    return {
        "date": "2026-01-31",
        "command": "bench/growth",
        "machine": "2 cores",
        "seconds": 2.0,
        "brokers": [{"name": name, "version": "1", "about": "here"} for name in names],
        "axes": {
            "partitions": {
                "1000": {name: {"memory_mb": 50.0, "metadata_p50_ms": 2.5, "stop_s": 0.5} for name in names},
                "100": {name: {"memory_mb": 40.0, "metadata_p50_ms": 0.25} for name in names},
            },
            "log": {"16": {}},
        },
        "note": "",
        "errors": [],
        **changes,
    }


# ------------------------------------------------------------ options


def test_an_address_has_a_name_hosts_and_processes() -> None:
    found = addresses.parse("kafka=127.0.0.1:9092,[::1]:9093,4711")
    assert found.name == "kafka"
    assert found.hosts == (("127.0.0.1", 9092), ("::1", 9093))
    assert found.named == found.pids() == {4711}
    assert found.bootstrap.startswith("127.0.0.1:9092,")


@pytest.mark.parametrize(
    "text", ["", "kafka", "kafka=", "=h:1", "kafka=h", "kafka=h:0", "kafka=h:65536", "kafka=:1", "kafka=17"]
)
def test_what_is_no_address_is_said(text: str) -> None:
    with pytest.raises(ValueError, match=r"NAME=HOST:PORT|neither HOST:PORT|no HOST:PORT"):
        addresses.parse(text)


def test_points_are_in_order_and_once() -> None:
    assert points("1000,1,100,1") == (1, 100, 1000)


@pytest.mark.parametrize("text", ["", "x", "1,,2", "0", "-5,1", "1.5"])
def test_what_is_no_list_of_points_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="numbers"):
        points(text)


def test_a_tree_has_its_folders_name_or_the_one_that_is_given() -> None:
    assert options.named_tree(str(ROOT)) == (ROOT.name, ROOT)
    assert options.named_tree(f"old={ROOT}") == ("old", ROOT)
    with pytest.raises(ValueError, match="no tree of Ottla"):
        options.named_tree(str(ROOT / "docs"))


def test_a_command_is_shown_without_folders_of_this_machine() -> None:
    arguments = [
        "--tree",
        f"old={ROOT}",
        "--tree",
        "../older/",
        "--peer",
        "k=h:9,5",
        "--with",
        "",
        "--note",
        "a b",
    ]
    assert options.shown("bench/growth", arguments) == (
        f"bench/growth --tree old=…/{ROOT.name} --tree …/older --peer k=h:9,5 --with '' --note 'a b'"
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--axes", "partitions,size"], "there is no size"),
        (["--seconds", "0"], "more than 0"),
        (["--minutes", "-1"], "more than 0"),
        (["--peer", "kafka"], "NAME=HOST:PORT"),
        (["--partitions", "many"], "not a list of numbers"),
        (["--tree", "/nowhere"], "no tree of Ottla"),
    ],
)
def test_mistakes_are_said_before_anything_is_measured(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        growing.main(arguments)
    assert said in capsys.readouterr().err


def test_a_peer_that_is_not_there_ends_it(tmp_path: Path) -> None:
    chosen = growing.parser().parse_args(["--no-own", "--peer", "gone=127.0.0.1:1"])
    with pytest.raises(growing.Refused, match=r"nobody answers at 127\.0\.0\.1:1"):
        growing.candidates(chosen, tmp_path)
    with pytest.raises(growing.Refused, match="nobody to measure"):
        growing.candidates(growing.parser().parse_args(["--no-own"]), tmp_path)


def test_the_options_name_every_axis() -> None:
    chosen = vars(growing.parser().parse_args([]))
    assert all(chosen[axis.name] == axis.points for axis in AXES)
    assert [axis.name for axis in AXES] == [section.axis for section in growth_page.SECTIONS]


def test_where_it_is_late_the_ends_of_an_axis_are_measured_and_failures_are_kept(tmp_path: Path) -> None:
    seen = []

    def at(subject: Subject, point: int, rig: Rig, figures: dict[str, float]) -> None:
        seen.append(point)
        figures["memory_mb"] = 1.0
        if point == 9:
            raise asking.Refused("too many")

    @contextmanager
    def opened() -> Iterator[Subject]:
        yield Subject("a", "127.0.0.1", 9, frozenset, None)

    broker = growing.Candidate("a", "1", "", opened)
    rig = Rig(load.Program(tmp_path, tmp_path), 1, lambda said: None)
    axis = Axis("log", "things", at, ())
    axes, errors = growing.measure([(axis, (1, 3, 9))], [broker], rig, lambda: len(seen) > 1)
    assert seen == [1, 3, 9]
    # What it had when it failed stands.
    assert axes == {"log": {n: {"a": {"memory_mb": 1.0}} for n in ("1", "3", "9")}}
    assert errors == [{"axis": "log", "point": 9, "broker": "a", "error": "too many"}]
    seen.clear()
    growing.measure([(axis, (1, 3, 9))], [broker], rig, lambda: True)
    assert seen == [1, 9]


# ------------------------------------------------------------ requests


def test_places_in_requests_and_responses_are_where_the_protocol_has_them() -> None:
    from ottla.wire.messages import encode_response

    topic = "a-topic"
    fields = {
        "throttle_time_ms": 0,
        "error_code": 0,
        "session_id": 77,
        "responses": [
            {
                "topic": topic,
                "partitions": [
                    {
                        "partition_index": 0,
                        "error_code": 0,
                        "high_watermark": 4711,
                        "last_stable_offset": 1,
                        "log_start_offset": 0,
                        "aborted_transactions": [],
                        "preferred_read_replica": -1,
                        "records": b"x" * 9,
                    }
                ],
            }
        ],
    }
    response = b"\0\0\0\1" + encode_response(1, asking.VERSIONS["Fetch"], fields)
    at = asking.fetch_end_at(topic)
    assert int.from_bytes(response[at : at + 8], "big") == 4711
    assert asking.fetch_session(response) == 77
    assert asking.fetched_bytes(response, topic) == 9
    request = asking.fetch({topic: {0: 258}})
    at = asking.fetch_offset_at(topic)
    assert request[at : at + 8] == b"\0\0\0\0\0\0\1\2"


# ------------------------------------------------------------ the load program


@contextmanager
def answering(reply: bytes | None) -> Iterator[int]:
    """The port of a server that gives each request the same answer, or closes the connection."""

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            while head := self.rfile.read(4):
                self.rfile.read(int.from_bytes(head, "big"))
                if reply is None:
                    return
                self.wfile.write(len(reply).to_bytes(4, "big") + reply)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> load.Program:
    if load.compiler() is None:
        pytest.skip("bench/load.c needs a C compiler")
    return load.build(tmp_path_factory.mktemp("load"))


def targets(port: int, count: int = 1) -> list[load.Target]:
    return [load.Target("127.0.0.1", port, b"\0\0\0\4" + bytes([0, 0, 0, n])) for n in range(count)]


def test_the_load_counts_what_is_answered_and_how_long_that_takes(program: load.Program) -> None:
    with answering(b"\0\0\0\1\0\0") as port:
        running = program.ask(
            targets(port, 3), 2, 0.2, in_flight=3, warmup_s=0.05, error_at=4, brokers=[os.getpid()]
        )
        found = running.result()
    assert found["count"] > 0 and found["failed"] == 0
    assert found["bytes"] >= 8 * found["count"] - 8 * 2 * 3
    assert 0 < found["p50_ms"] <= found["p99_ms"] <= found["p99.9_ms"] <= found["max_ms"] * 1.02
    assert "broker_cpu_s" in found and found["broker_memory_mb"] > 1
    # What it was given is not left behind.
    assert [path.name for path in program.folder.iterdir()] == ["load"]


def test_the_load_goes_by_the_clock_where_it_is_told_to(program: load.Program) -> None:
    with answering(b"\0\0\0\1") as port:
        found = program.ask(targets(port), 1, 0.5, in_flight=100, rate=200, warmup_s=0).result()
    # 100 are due. A machine that is busy lets the last ones come late, but never more go out.
    assert 0 < found["count"] <= 101


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        (b"\0\0\0\1\0\5", "refused, one with error 5"),
        (None, "closed a connection"),
    ],
)
def test_what_fails_is_said(program: load.Program, reply: bytes | None, said: str) -> None:
    with answering(reply) as port, pytest.raises(asking.Refused, match=said):
        program.ask(targets(port), 1, 0.1, warmup_s=0, error_at=4).result()


def test_where_nobody_listens_the_load_says_so(program: load.Program) -> None:
    with pytest.raises(asking.Refused, match="cannot connect: Connection refused"):
        program.ask(targets(1), 1, 0.1).result()


# ------------------------------------------------------------ plots


@given(st.lists(SIZES, min_size=1))
def test_a_logarithmic_axis_holds_all_values_and_has_a_few_labels(values: list[float]) -> None:
    scale = drawing.log_scale(values)
    assert all(-1e-6 <= scale.share(value) <= 1 + 1e-6 for value in values)
    assert 2 <= len(scale.ticks) <= 14


@given(st.lists(SIZES, min_size=1))
def test_a_linear_axis_begins_at_nothing_and_holds_all_values(values: list[float]) -> None:
    scale = drawing.linear_scale(values)
    assert scale.ticks[0] == 0
    assert all(0 <= scale.share(value) <= 1 + 1e-6 for value in values)
    assert 2 <= len(scale.ticks) <= 7


def test_labels_of_what_grows_are_its_points_as_far_as_there_is_room() -> None:
    assert drawing.point_scale([10_000, 100, 1000], is_log=True).ticks == (100, 1000, 10_000)
    assert drawing.point_scale([1, 9_999, 10_000], is_log=True).ticks == (1, 9_999)


def test_a_plot_is_a_picture_with_both_axes_named() -> None:
    svg = drawing.chart(
        "A & B", "things", "ms <p50>", [Line("one", [(1, 0.5), (10, 5)]), Line("two", [(1, 1)])]
    )
    root = ElementTree.fromstring(svg)
    said = "".join(root.itertext())
    assert all(text in said for text in ("A & B", "things", "ms <p50>", "one", "two"))
    assert "prefers-color-scheme:dark" in svg
    # On both axes values grow as they should: to the right, and up.
    (line, _) = re.findall(r'<polyline[^>]*points="([^"]+)"', svg)
    (x1, y1), (x2, y2) = (map(float, pair.split(",")) for pair in line.split())
    assert x1 < x2 and y1 > y2


def test_what_has_no_place_on_a_logarithmic_axis_is_left_out() -> None:
    svg = drawing.chart("t", "x", "y", [Line("one", [(1, 0), (10, 5)]), Line("none", [(1, 0)])])
    assert svg.count("<circle") == 1
    with pytest.raises(ValueError, match="nothing to draw"):
        drawing.chart("t", "x", "y", [Line("none", [(1, 0)])])


def test_one_broker_has_a_colour_for_each_figure_and_several_have_one_each() -> None:
    section = growth_page.SECTIONS[0]
    (asked,) = [plot for plot in section.plots if plot.name == "asked"]
    alone = growth_page.lines(results(), section, asked)
    assert [(line.label, line.points) for line in alone] == [("Metadata", [(100, 0.25), (1000, 2.5)])]
    two = growth_page.lines(results("ottla", "kafka"), section, asked)
    assert [(line.label, line.colour) for line in two] == [("ottla: Metadata", 0), ("kafka: Metadata", 1)]
    named = growth_page.legend(results("ottla", "kafka"), asked)
    assert named is not None and [(line.label, line.colour) for line in named[:3]] == [
        ("ottla", 0),
        ("kafka", 1),
        ("Fetch without a session", None),
    ]


# ------------------------------------------------------------ tables and page


def test_the_table_has_a_row_for_each_figure_that_was_measured() -> None:
    rows = growth_page.table(results(), growth_page.SECTIONS[0])
    assert rows[0] == ["", "100", "1,000"]
    assert ["memory, MB", "40", "50"] in rows
    assert ["clean stop, s", "-", "0.50"] in rows
    assert len(rows) == 4
    assert ["memory, MB", "b", "40", "50"] in growth_page.table(results("a", "b"), growth_page.SECTIONS[0])


def test_the_page_has_what_was_measured_how_and_what_failed() -> None:
    failed = {"axis": "partitions", "point": 1000, "broker": "ottla", "error": "it broke"}
    text = growth_page.render(results(errors=[failed]))
    assert "on 2026-01-31: `bench/growth`" in text
    assert "| ottla | 1 | here |" in text
    assert "| memory, MB | 40 | 50 |" in text
    assert "ottla, 1,000: failed (it broke)." in text
    assert "## Consumer groups" not in text
    assert "partitions 1,000, ottla: failed (it broke)" in growth_page.text(results(errors=[failed]))


def test_the_page_is_drawn_anew_without_measuring(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, page = tmp_path / "growth.json", tmp_path / "docs" / "GROWTH.md"
    file.write_text(json.dumps(results()))
    stale = tmp_path / "docs" / growth_page.PICTURES / "old.svg"
    stale.parent.mkdir(parents=True)
    stale.touch()
    assert growing.main(["--draw", "--results", str(file), "--page", str(page)]) == 0
    shown = re.findall(r"!\[[^]]+\]\(([^)]+)\)", page.read_text())
    assert shown and all((page.parent / name).exists() for name in shown)
    assert not stale.exists()
    assert "memory, MB" in capsys.readouterr().out
