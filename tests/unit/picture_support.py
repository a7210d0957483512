"""Recordings made by hand, and what a picture of them has: for `test_explore_picture*.py`."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from dataclasses import replace

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
from ottla.explore.world.machine import EPOCH_MS
from ottla.testing.contents import StoredRecord

SVG = "{http://www.w3.org/2000/svg}"
HTML = "{http://www.w3.org/1999/xhtml}"
LOST = StoredRecord(0, 3, EPOCH_MS + 1_300, None, b"order 3", ())


def shop() -> Recording:
    """A shop writes five orders. `shipping` commits the fourth, is killed, and reads on behind it."""
    recording = Recording(lanes=["n1", "n2", "shop", "shipping"], nodes=2, end_s=80.0)
    for number in range(5):
        at_s = 1.0 + number / 10
        recording.written.append(written(number, at_s))
        recording.calls.append(
            Call(program="shop", node="n1", api="Produce", sent_s=at_s, answered_s=at_s + 0.01, result="ok")
        )
    recording.written.append(
        replace(written(5, 1.6), offset=None, acknowledged_s=None, result="NOT_ENOUGH_REPLICAS")
    )
    recording.read += [read(0, 2, 1.25), read(3, 3, 1.35), read(4, 4, 4.5)]
    recording.committed += [committed(3, 1.3), committed(4, 1.4), committed(5, 4.6)]
    recording.committed.append(replace(committed(5, 4.55), result="ILLEGAL_GENERATION"))
    recording.calls += [
        Call(
            program="shipping", node="n2", api="JoinGroup", sent_s=4.1, answered_s=4.2,
            result="MEMBER_ID_REQUIRED",
        ),
        Call(program="shipping", node="n1", api="Fetch", sent_s=1.41, lost_s=1.45),
    ]  # fmt: skip
    recording.spans += [
        Span(lane="n1", kind=Kind.RUNS, begin_s=0.0),
        Span(lane="n2", kind=Kind.RUNS, begin_s=0.0, end_s=2.0),
        Span(lane="n2", kind=Kind.DOWN, begin_s=2.0, end_s=3.0, text="is killed"),
        Span(lane="n2", kind=Kind.RUNS, begin_s=3.0),
        Span(lane="n1", kind=Kind.PAUSED, begin_s=2.5, end_s=2.8, text="stands still"),
        Span(lane="shop", kind=Kind.RUNS, begin_s=0.5, end_s=2.0),
        Span(lane="shop", kind=Kind.DOWN, begin_s=2.0, text="has ended"),
        Span(lane="shipping", kind=Kind.RUNS, begin_s=0.5, end_s=1.45),
        Span(lane="shipping", kind=Kind.DOWN, begin_s=1.45, end_s=4.0, text="loses power"),
        Span(lane="shipping", kind=Kind.RUNS, begin_s=4.0),
        Span(lane="network", kind=Kind.FAULT, begin_s=3.2, end_s=3.9, text="n1 is cut off from n2"),
        Span(lane="network", kind=Kind.FAULT, begin_s=3.5, end_s=3.7, text="n2 to n1 takes 50 ms more"),
        Span(lane="store", kind=Kind.FAULT, begin_s=3.3, end_s=3.4, text="the store is away"),
    ]
    recording.remarks += [
        Remark(lane="n1", at_s=2.1, text="n1 leads orders-0 (epoch 1)"),
        Remark(lane="world", at_s=4.9, text="heals"),
    ]
    return recording


def written(offset: int, at_s: float, value: bytes | None = None) -> Written:
    return Written(
        program="shop", topic="orders", partition=0, offset=offset, key=None,
        value=b"order %d" % offset if value is None else value,
        sent_s=at_s, acknowledged_s=at_s + 0.01, result="ok",
    )  # fmt: skip


def read(first: int, last: int, at_s: float) -> Read:
    return Read(
        program="shipping", topic="orders", partition=0, first_offset=first, last_offset=last, at_s=at_s
    )


def committed(offset: int, at_s: float) -> Committed:
    return Committed(
        program="shipping", group="billing", topic="orders", partition=0, offset=offset, at_s=at_s,
        result="ok",
    )  # fmt: skip


def tree(page: str) -> ElementTree.Element:
    """The page or the drawing, which is well-formed XML."""
    return ElementTree.fromstring(page.removeprefix("<!DOCTYPE html>\n"))


def figures(page: str) -> list[ElementTree.Element]:
    return [figure[0] for figure in tree(page).iter(f"{HTML}figure")]


def titles(element: ElementTree.Element) -> Iterator[tuple[str, str]]:
    """What is seen at each mark and block: its class and its words."""
    for one in element.iter():
        title = one.find(f"{SVG}title")
        if title is not None and title.text is not None:
            yield one.get("class", ""), title.text


def words(element: ElementTree.Element) -> set[str]:
    """All that stands in a drawing."""
    return {one.text or "" for one in element.iter(f"{SVG}text")}
