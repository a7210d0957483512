"""The picture of a run: all that was recorded is in it, nothing of it becomes markup, it is bounded."""

from __future__ import annotations

import base64
import hashlib
import xml.etree.ElementTree as ElementTree
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from picture_support import HTML, LOST, SVG, committed, figures, shop, titles, tree, words, written

from ottla.explore.recording import picture
from ottla.explore.recording.picture import BYTES_MAX, drawing_of, picture_of
from ottla.explore.recording.recording import (
    Call,
    Committed,
    Kind,
    Read,
    Recording,
    Remark,
    Span,
    Written,
)
from ottla.testing.contents import StoredRecord

ATTACK = "</script><script>alert(1)</script><svg onload=alert(1)>\"'>&amp;\x00\x1b\u202e\ud800]]>"


def test_every_lane_and_every_time_down_or_under_a_fault_is_there() -> None:
    whole = figures(picture_of(shop(), "seed 4"))[0]
    assert {"n1", "n2", "shop", "shipping", "orders-0", "network", "store", "world"} <= words(whole)
    seen = {text: looks for looks, text in titles(whole)}
    expected = {
        "n2 is killed from 2.000 s to 3.000 s (1.0 s)": "down",
        "n1 stands still from 2.500 s to 2.800 s (300 ms)": "paused",
        "shop has ended from 2.000 s to the end": "ended",
        "shipping loses power from 1.450 s to 4.000 s (2.5 s)": "down",
        "n1 is cut off from n2 from 3.200 s to 3.900 s (700 ms)": "fault",
        "n2 to n1 takes 50 ms more from 3.500 s to 3.700 s (200 ms)": "fault",
        "the store is away from 3.300 s to 3.400 s (100 ms)": "fault",
        "shipping.2 runs from 4.000 s to the end": "runs",
    }
    assert {text: looks for text, looks in seen.items() if text in expected} == expected
    assert "2.100 s n1 leads orders-0 (epoch 1)" in seen
    assert "4.900 s world heals" in seen


def test_the_end_of_a_program_is_not_counted_as_a_fault() -> None:
    page = picture_of(shop(), "seed 4")
    # All blocks but those of what runs, and that in which the shop has ended.
    assert ", 6 times down, paused or under a fault, " in page


def test_every_record_is_marked_as_it_is_written_read_and_committed() -> None:
    whole = figures(picture_of(shop(), "seed 4"))[0]
    counts = Counter(looks for looks, _ in titles(whole))
    assert (counts["w"], counts["r"], counts["c"], counts["x"]) == (5, 3, 3, 2)
    seen = [text for _, text in titles(whole)]
    assert "1.200 s shop sends order 2 to orders-0: offset 2, acknowledged after 10 ms" in seen
    assert "1.600 s shop sends order 5 to orders-0: NOT_ENOUGH_REPLICAS" in seen
    assert "1.250 s shipping reads orders-0 offsets 0 to 2" in seen
    assert "1.400 s shipping commits orders-0 to 4 for group billing: it counts as read" in seen
    refused = "commits orders-0 to 5 for group billing: ILLEGAL_GENERATION"
    assert f"4.550 s shipping {refused}" in seen
    assert "billing: 5" in words(whole)


def test_later_offsets_are_higher_and_later_times_further_right() -> None:
    marks = [one for one in figures(picture_of(shop(), ""))[0].iter(f"{SVG}use") if one.get("class") == "w"]
    # The last one is the legend's.
    places = [(float(one.get("x", "")), float(one.get("y", ""))) for one in marks[:5]]
    assert places == sorted(places, key=lambda place: (place[0], -place[1]))
    assert len({x for x, _ in places}) == len({y for _, y in places}) == 5


def test_errors_and_lost_answers_are_on_the_programs_lane() -> None:
    seen = list(titles(figures(picture_of(shop(), ""))[0]))
    assert ("e", "4.200 s shipping: JoinGroup to n2, sent 100 ms before: MEMBER_ID_REQUIRED") in seen
    assert ("u", "1.450 s shipping: Fetch to n1, sent 40 ms before: its connection ends") in seen
    assert sum(looks == "e" for looks, _ in seen) == 1


def shown(figure: ElementTree.Element) -> set[str]:
    """Words that need no zoom to be seen."""
    texts = list(figure.iter(f"{SVG}text"))
    return {one.text or "" for one in texts if "z" not in one.get("class", "").split()}


def test_the_only_fault_of_a_program_has_its_name_beside_its_sign() -> None:
    recording = shop()
    fault = Remark(lane="shop", at_s=1.0, text="shop is to be killed, 126 steps later")
    recording.remarks.append(fault)
    whole = figures(picture_of(recording, "seed 4"))[0]
    assert "1.000 s shop is to be killed, 126 steps later" in {text for _, text in titles(whole)}
    assert {"is to be killed", "is to be killed, 126 steps later"} & shown(whole)
    recording.remarks.append(replace(fault, lane="shipping", at_s=1.4))
    whole = figures(picture_of(recording, "seed 4"))[0]
    assert not {"is to be killed", "is to be killed, 126 steps later"} & words(whole)


def test_values_of_marked_records_do_not_lie_on_each_other() -> None:
    recording = shop()
    recording.written += [
        replace(written(10 + at, 1.7), value=b"a long value %d" % at, offset=10 + at) for at in range(3)
    ]
    records = [
        StoredRecord(0, 10 + at, LOST.timestamp_ms + 400, None, b"a long value %d" % at, ())
        for at in range(3)
    ]
    whole = figures(picture_of(recording, "seed 4", "Broken", records=records))[0]
    named = [one for one in whole.iter(f"{SVG}text") if "marked" in one.get("class", "").split()]
    heights = sorted(float(one.get("y", "")) for one in named)
    assert 1 <= len(named) < 3 and all(after - before >= 13 for before, after in pairwise(heights))
    assert sum(looks == "o" for looks, _ in titles(whole)) == 3


def test_the_numbers_of_several_records_do_not_lie_on_each_other() -> None:
    recording = shop()
    records = [
        StoredRecord(0, at, LOST.timestamp_ms - 300 + 100 * at, None, b"order %d" % at, ()) for at in range(3)
    ]
    whole, *near = figures(picture_of(recording, "seed 4", "Broken", records=records))
    numbers = [one.text or "" for one in whole.iter(f"{SVG}text") if one.get("class") == "b-text"]
    assert {number[0] for number in numbers} == {"A", "B", "C"}
    blocks = sorted(
        (float(one.get("x", "")), float(one.get("width", "")))
        for one in whole.iter(f"{SVG}rect")
        if one.get("class") == "b"
    )
    assert all(x + width <= after for (x, width), (after, _) in pairwise(blocks))
    assert len(near) == 3 and all(any("the run ends" in text for _, text in titles(one)) for one in near)


def test_who_leads_stands_at_the_partition() -> None:
    whole = figures(picture_of(shop(), ""))[0]
    assert "n1" in {one.text for one in whole.iter(f"{SVG}text") if "tiny" in one.get("class", "")}


def test_a_failure_is_stated_with_its_command_and_its_story() -> None:
    page = picture_of(
        shop(), "test_shop.py::test_orders, seed 4", "Broken: 1 record is lost", ["1.300 lost", "(9 others)"],
        command="ottla explore test_shop.py::test_orders --seed 4",
    )  # fmt: skip
    text = {one.text for one in tree(page).iter()}
    assert "Broken: 1 record is lost" in text
    assert "ottla explore test_shop.py::test_orders --seed 4" in text
    lines = {one.text: one.get("data-x") for one in tree(page).iter(f"{HTML}li")}
    assert float(lines["1.300 lost"] or "") > 0 and lines["(9 others)"] is None
    assert "The test passes" not in page
    assert "The test passes" in picture_of(shop(), "seed 5")


def test_records_of_the_check_are_ringed_and_told_of_step_by_step() -> None:
    page = picture_of(shop(), "seed 4", "Broken", records=[LOST])
    whole, near = figures(page)
    for figure in (whole, near):
        ringed = [text for looks, text in titles(figure) if looks == "o"]
        assert ringed == [
            "The check is about this record. "
            "1.300 s shop sends order 3 to orders-0: offset 3, acknowledged after 10 ms"
        ]
    steps = ["".join(one.itertext()) for one in tree(page).iter(f"{HTML}li")]
    assert steps[3] == "41.450 sshipping loses power"
    arrows = [one for one in near.iter(f"{SVG}path") if one.get("class") == "arrow"]
    assert len(arrows) == 4 and not any(one.get("class") == "arrow" for one in whole.iter(f"{SVG}path"))


def test_processes_have_the_same_names_in_a_close_up() -> None:
    recording = shop()
    recording.spans.insert(0, Span(lane="shipping", kind=Kind.RUNS, begin_s=0.1, end_s=0.2))
    for figure in figures(picture_of(recording, "seed 4", "Broken", records=[LOST])):
        assert "shipping.3 runs from 4.000 s to the end" in {text for _, text in titles(figure)}


def test_the_drawing_is_the_same_as_one_svg() -> None:
    drawing = tree(drawing_of(shop(), "seed 4", "Broken: 1 record is lost", records=[LOST]))
    assert drawing.tag == f"{SVG}svg" and drawing.get("role") == "img"
    assert {"seed 4", "Broken: 1 record is lost", "What became of order 3", "orders-0"} <= words(drawing)
    assert "4.  1.450 s  shipping loses power" in words(drawing)
    assert drawing.find(f"{SVG}style") is not None and drawing.find(f"{SVG}defs") is not None


def test_a_file_has_the_drawing_or_the_page_by_its_name(tmp_path: Path) -> None:
    for name, expected in (
        ("run.svg", drawing_of(shop(), "seed 4", "Broken", records=[LOST])),
        ("run.html", picture_of(shop(), "seed 4", "Broken", ["1.0 x"], command="c", records=[LOST])),
    ):
        file = tmp_path / name
        picture.save(str(file), shop(), "seed 4", "Broken", ["1.0 x"], command="c", records=[LOST])
        assert file.read_text(encoding="utf-8") == expected


# ------------------------------------------------------------ what programs say


class Scripts(HTMLParser):
    """What a browser would run: the scripts, and attributes that are scripts."""

    def __init__(self) -> None:
        super().__init__()
        self.elements: Counter[str] = Counter()
        self.attributes: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements[tag] += 1
        self.attributes |= {name for name, _ in attrs}


def attacked() -> Recording:
    recording = shop()
    recording.lanes.append(ATTACK)
    recording.written.append(written(6, 2.0, ATTACK.encode(errors="surrogatepass")))
    recording.written[-1].topic = ATTACK
    recording.written.append(written(7, 2.1, ATTACK.encode(errors="surrogatepass")))
    recording.committed.append(committed(7, 2.2))
    recording.committed[-1].group = recording.committed[-1].result = ATTACK
    recording.committed.append(committed(8, 2.3))
    recording.committed[-1].group = ATTACK
    recording.spans.append(Span(lane=ATTACK, kind=Kind.FAULT, begin_s=1.0, end_s=20.0, text=ATTACK))
    recording.remarks.append(Remark(lane="n1", at_s=2.0, text=ATTACK))
    recording.remarks.append(Remark(lane="there", at_s=2.0, text=ATTACK))
    recording.calls.append(
        Call(program=ATTACK, node=ATTACK, api=ATTACK, sent_s=1, answered_s=2, about=ATTACK, result=ATTACK)
    )
    return recording


def test_what_programs_say_is_no_markup() -> None:
    value = ATTACK.encode(errors="surrogatepass")
    records = [LOST, StoredRecord(0, 7, LOST.timestamp_ms, None, value, ())]
    page = picture_of(attacked(), ATTACK, ATTACK, [ATTACK], command=ATTACK, records=records)
    harmless = picture_of(shop(), "seed 4", "Broken", ["1.0 what"], command="ottla", records=[LOST])
    found, expected = Scripts(), Scripts()
    found.feed(page)
    expected.feed(harmless)
    assert found.elements["script"] == 1
    assert found.attributes <= expected.attributes | {"data-x"}
    assert set(found.elements) == set(expected.elements)
    # And it is XML still, as the drawing is, with nothing in it that turns the reader's eye around.
    for text in (page, drawing_of(attacked(), ATTACK, ATTACK, records=records)):
        tree(text)
        assert "\u202e" not in text and "\x1b" not in text and "\\u202e" in text


def test_only_the_pages_own_script_may_run_and_nothing_is_loaded() -> None:
    page = tree(picture_of(shop(), "seed 4"))
    script = page.find(f".//{HTML}script")
    assert script is not None and script.text is not None
    digest = base64.b64encode(hashlib.sha256(script.text.encode()).digest()).decode()
    policy = next(one.get("content", "") for one in page.iter(f"{HTML}meta") if one.get("http-equiv"))
    assert policy == f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    links = {value for one in page.iter() for name, value in one.attrib.items() if name in ("href", "src")}
    assert all(link.startswith("#") for link in links)


def test_all_that_is_pointed_to_is_there() -> None:
    page = tree(picture_of(shop(), "seed 4", "Broken", records=[LOST]))
    names = Counter(one.get("id") for one in page.iter() if one.get("id"))
    assert max(names.values()) == 1
    assert {one.get("href") for one in page.iter() if one.get("href")} <= {f"#{name}" for name in names}


# ------------------------------------------------------------ much of everything


def crowded(count: int) -> Recording:
    """So many of everything, with values that grow when they are escaped."""
    recording = Recording(lanes=[f"n{at}" for at in range(9)] + [f"p{at}" for at in range(50)], nodes=9)
    kinds = list(Kind)
    for at in range(count):
        at_s, name, value = at * 700 / count, f"p{at % 50}", b"&<>\xff" * 50
        topic, partition = f"topic-{at % 5}", at % 13
        recording.written.append(
            Written(
                program=name, topic=topic, partition=partition, offset=at // 5, key=value, value=value,
                sent_s=at_s, acknowledged_s=at_s + 0.1,
            )
        )  # fmt: skip
        recording.read.append(
            Read(
                program=name,
                topic=topic,
                partition=partition,
                first_offset=at // 6,
                last_offset=at // 5,
                at_s=at_s + 0.2,
            )
        )
        recording.committed.append(
            Committed(
                program=name,
                group=f"g{at % 7}",
                topic=topic,
                partition=partition,
                offset=at // 5,
                at_s=at_s,
                result="ok",
            )
        )
        recording.calls.append(
            Call(program=name, node="&" * 200, api="&" * 50, sent_s=at_s, answered_s=at_s, result="&" * 200)
        )
        lane = recording.lanes[at % 59]
        recording.spans.append(
            Span(lane=lane, kind=kinds[at % 4], begin_s=at_s, end_s=at_s + 3, text="&" * 200)
        )
        recording.remarks.append(Remark(lane=lane, at_s=at_s, text="&" * 200))
    recording.end_s = 700
    return recording


def test_a_picture_is_bounded_and_says_what_it_leaves_out() -> None:
    recording = crowded(2_000)
    records = [
        StoredRecord(one.partition, one.offset or 0, 0, one.key, one.value, ()) for one in recording.written
    ]
    page = picture_of(recording, "&" * 5_000, "&" * 50_000, ["&" * 5_000] * 500, records=records[:900])
    assert len(page.encode()) <= BYTES_MAX
    told = [one.text or "" for one in tree(page).iter(f"{HTML}li")]
    assert any("of 65 partitions" in line for line in told)
    assert any("of 50 lanes of programs" in line for line in told)
    assert any("records that the check is about" in line for line in told)
    assert len(drawing_of(recording, "&" * 5_000, records=records[:10]).encode()) <= BYTES_MAX


def test_what_is_too_large_is_drawn_with_fewer_marks(monkeypatch: pytest.MonkeyPatch) -> None:
    recording = crowded(300)
    whole = picture_of(recording, "")
    bytes_max = len(whole.encode()) * 2 // 3
    monkeypatch.setattr(picture, "BYTES_MAX", bytes_max)
    smaller = picture_of(recording, "")
    assert len(smaller.encode()) <= bytes_max
    assert len(list(titles(figures(smaller)[0]))) < len(list(titles(figures(whole)[0])))


def test_marks_that_are_near_each_other_are_one_that_says_so() -> None:
    recording = Recording(lanes=["n1", "shop"], nodes=1, end_s=100.0)
    recording.written += [written(offset, offset * 0.01) for offset in range(9_000)]
    page = picture_of(recording, "")
    whole = figures(page)[0]
    marks = [text for looks, text in titles(whole) if looks == "w"]
    assert len(marks) <= picture.MARKS_MAX
    several = [int(text.split()[0]) for text in marks if "records are written from" in text]
    assert sum(several) + len(marks) - len(several) == 9_000
    line = f"{len(several)} marks stand for several records each, which are near each other"
    assert line in {one.text for one in tree(page).iter(f"{HTML}li")}


NAMES = st.sampled_from(["n1", "n2", "shop", "a", "network", "world", ATTACK])
TIMES = st.floats(-1.0, 1e6, allow_nan=False)
LATER = st.none() | TIMES
OFFSETS = st.integers(0, 2**63 - 1)
DATA = st.none() | st.binary(max_size=30)
TEXTS = st.sampled_from(["", "ok", "is killed", "n1 leads a-0 (epoch 3)", ATTACK]) | st.text(max_size=20)
TOPICS = st.sampled_from(["orders", "a", ATTACK])
RECORDINGS = st.builds(
    Recording,
    lanes=st.lists(NAMES, max_size=4),
    nodes=st.integers(0, 3),
    spans=st.lists(
        st.builds(Span, lane=NAMES, kind=st.sampled_from(Kind), begin_s=TIMES, end_s=LATER, text=TEXTS),
        max_size=8,
    ),
    calls=st.lists(
        st.builds(
            Call, program=NAMES, node=NAMES, api=TEXTS, sent_s=TIMES, answered_s=LATER, lost_s=LATER,
            about=TEXTS, result=TEXTS,
        ),
        max_size=4,
    ),
    written=st.lists(
        st.builds(
            Written, program=NAMES, topic=TOPICS, partition=st.integers(0, 3), offset=st.none() | OFFSETS,
            key=DATA, value=DATA, sent_s=TIMES, acknowledged_s=LATER, result=TEXTS, outcome=TEXTS,
        ),
        max_size=6,
    ),
    read=st.lists(
        st.builds(
            Read, program=NAMES, topic=TOPICS, partition=st.integers(0, 3), first_offset=OFFSETS,
            last_offset=OFFSETS, at_s=TIMES,
        ),
        max_size=4,
    ),
    committed=st.lists(
        st.builds(
            Committed, program=NAMES, group=TEXTS, topic=TOPICS, partition=st.integers(0, 3), offset=OFFSETS,
            at_s=TIMES, result=TEXTS,
        ),
        max_size=4,
    ),
    remarks=st.lists(st.builds(Remark, lane=NAMES, at_s=TIMES, text=TEXTS), max_size=4),
    end_s=TIMES,
)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(recording=RECORDINGS, title=st.text(max_size=9), story=st.lists(st.text(max_size=9), max_size=3))
def test_every_recording_has_a_picture(recording: Recording, title: str, story: list[str]) -> None:
    records = [
        StoredRecord(one.partition, one.offset, 0, one.key, one.value, ())
        for one in recording.written
        if one.offset is not None
    ]
    page = tree(picture_of(recording, title, title, story, records=records))
    tree(drawing_of(recording, title, records=records))
    for one in page.iter():
        for name in ("x", "y", "width", "height"):
            assert "nan" not in one.get(name, "") and "inf" not in one.get(name, "")
