"""A picture of one run: nodes, programs and partitions as lanes over time, for a person who looks.

`picture_of` is a page of HTML that needs nothing else, `drawing_of` the same as SVG, for documents.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ottla.explore.recording.picture_axis import Axis, elastic, linear
from ottla.explore.recording.picture_machines import (
    HUMMING,
    View,
    draw_machines,
    has_ended,
    lanes_of,
    names_of,
)
from ottla.explore.recording.picture_marked import RUN, Marked, Step, Told, close_up, marked_of
from ottla.explore.recording.picture_page import STYLE, Page, Section, page
from ottla.explore.recording.picture_partitions import draw_partitions
from ottla.explore.recording.picture_svg import DEFINITIONS, Sheet, clean, number, seconds
from ottla.explore.recording.recording import ENTRIES_MAX, Kind, Recording
from ottla.testing.contents import StoredRecord

# A picture has so many bytes at most.
BYTES_MAX = 3_000_000
# So many marks to begin with; fewer, until the picture is small enough.
MARKS_MAX, MARKS_MIN = 6_000, 50
# In pixels: all, what stands left of the lanes, and right of them.
WIDTH, LEFT, RIGHT = 1240, 150, 24
# Beside a close-up is the list of its steps.
CLOSE_UP_WIDTH = 860
LEGEND = (
    ("w", "written", "w"),
    ("r", "read", "r"),
    ("c", "committed", "c"),
    ("a", "aborted", "w"),
    ("x", "refused or not answered", "x"),
    ("e", "an answer that is an error", "e"),
    ("u", "a connection lost before the answer", "e"),
    ("m", "something to note", "m"),
)
BLOCKS = (
    ("runs", "runs"),
    ("down", "down"),
    ("ended", "has ended"),
    ("paused", "paused"),
    ("fault", "fault"),
    ("cut", "time cut out"),
)


@dataclass(frozen=True, slots=True)
class _Panel:
    """A part of the picture. ``body``: SVG that is ``height`` high."""

    body: str
    height: float
    axis: Axis
    left_out: tuple[str, ...]


def picture_of(
    recording: Recording,
    title: str,
    error: str = "",
    story: Sequence[str] = (),
    *,
    command: str = "",
    records: Sequence[StoredRecord] = (),
) -> str:
    """One HTML file about a run. ``title``: which test and seed. ``error``: empty if the test passed.

    ``command`` repeats the run. ``records`` are those that the check is about: they are marked, and the first
    of them are told of step by step. The page is no longer than `BYTES_MAX`, and says what it leaves out.
    """
    marked = marked_of(recording, records)
    return _bounded(lambda marks_max: _page(recording, title, error, story, command, marked, marks_max))


def drawing_of(
    recording: Recording, title: str, error: str = "", *, records: Sequence[StoredRecord] = ()
) -> str:
    """The run, and the first record that the check is about, as one SVG that has its colours with it."""
    marked = marked_of(recording, records)
    return _bounded(lambda marks_max: _drawing(recording, title, error, marked, marks_max))


def save(
    file: str,
    recording: Recording,
    title: str,
    error: str = "",
    story: Sequence[str] = (),
    *,
    command: str = "",
    records: Sequence[StoredRecord] = (),
) -> None:
    """Write the picture to a file: `drawing_of` if its name ends with ``.svg``, else `picture_of`."""
    if file.endswith(".svg"):
        text = drawing_of(recording, title, error, records=records)
    else:
        text = picture_of(recording, title, error, story, command=command, records=records)
    Path(file).write_text(text, encoding="utf-8")


def _bounded(draw: Callable[[int], str]) -> str:
    """What ``draw`` makes with as many marks as there may be."""
    marks_max = MARKS_MAX
    while True:
        text = draw(marks_max)
        size_bytes = len(text.encode())
        if size_bytes <= BYTES_MAX or marks_max <= MARKS_MIN:
            return text
        marks_max = max(MARKS_MIN, int(marks_max * min(0.7, 0.9 * BYTES_MAX / size_bytes)))


def _drawing(recording: Recording, title: str, error: str, marked: Marked, marks_max: int) -> str:
    """All panels below each other, each under its heading."""
    panels = [(_panel(recording, marked, marks_max), title, error)]
    for told in marked.told[:1]:
        near = _close_up(recording, told, marked, max(MARKS_MIN, marks_max // 6), WIDTH)
        panels.append((near, f"What became of {told.name}", ""))
    parts, y = [], 0.0
    for panel, heading, below in panels:
        parts.append(f'<text class="head" x="22" y="{number(y + 32)}">{clean(heading, 120)}</text>')
        if below:
            parts.append(f'<text class="bad" x="22" y="{number(y + 52)}">{clean(below, 150)}</text>')
        top = y + (62 if below else 44)
        parts.append(f'<g transform="translate(0,{number(top)})">{panel.body}</g>')
        y = top + panel.height
    for told in marked.told[:1]:
        for at, step in enumerate(told.steps, 1):
            words = f"{at}.  {seconds(step.at_s)}  {step.lane} {step.text}"
            parts.append(f'<text x="{LEFT}" y="{number(y + 22)}">{clean(words, 170)}</text>')
            y += 19
        y += 14
    height = number(y + 8)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" '
        f'height="{height}" role="img" aria-label="{clean(title, 200)}">\n'
        f"<title>{clean(title, 200)}</title>\n"
        f"<style>{STYLE}</style>\n{DEFINITIONS}"
        f'<rect class="card" x="0.5" y="0.5" width="{WIDTH - 1}" height="{number(y + 7)}" rx="10"/>\n'
        + "\n".join(parts)
        + "\n</svg>\n"
    )


def _page(
    recording: Recording,
    title: str,
    error: str,
    story: Sequence[str],
    command: str,
    marked: Marked,
    marks_max: int,
) -> str:
    panel = _panel(recording, marked, marks_max)
    sections = [Section("The run", _figure(panel, title, _described(recording)), zooms=True)]
    left_out = [*_ended(recording), *marked.left_out, *panel.left_out]
    for told in marked.told:
        near = _close_up(recording, told, marked, max(MARKS_MIN, marks_max // 6))
        steps = [
            (str(at), seconds(step.at_s), f"{step.lane} {step.text}") for at, step in enumerate(told.steps, 1)
        ]
        words = "; ".join(f"{time} {text}" for _, time, text in steps)
        figure = _figure(near, f"What became of {told.name}", words)
        sections.append(Section(f"What became of {told.name}", figure, steps=steps, below=told.alike))
        left_out += [f"{line} (of {told.name})" for line in near.left_out]
    return page(
        Page(
            title=title,
            error=error,
            command=command,
            facts=_facts(recording),
            sections=sections,
            story=[(line, _x(line, panel.axis)) for line in story],
            left_out=list(dict.fromkeys(left_out)),
        )
    )


def _figure(panel: _Panel, title: str, described: str) -> str:
    width = number(LEFT + panel.axis.width + RIGHT)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {number(panel.height)}" role="img" '
        f'aria-label="{clean(title, 200)}"><title>{clean(title, 200)}</title>'
        f"<desc>{clean(described, 2_000)}</desc>{panel.body}</svg>"
    )


def _panel(recording: Recording, marked: Marked, marks_max: int) -> _Panel:
    end_s = max([recording.end_s, *_times_s(recording)])
    begin_s = min([0.0, *_times_s(recording)])
    axis = linear(_times_s(recording), begin_s, end_s, WIDTH - LEFT - RIGHT)
    names = names_of(recording.spans)
    view = View(recording=recording, axis=axis, sheet=Sheet(), names=names, marks_max=marks_max)
    return _drawn(view, marked, marked.told, legend=True)


def _close_up(
    recording: Recording, told: Told, marked: Marked, marks_max: int, width: int = CLOSE_UP_WIDTH
) -> _Panel:
    part = close_up(recording, told)
    first_s, last_s = told.steps[0].at_s, told.steps[-1].at_s
    around_s = part.end_s - last_s
    points_s = (step.at_s for step in told.steps)
    axis = elastic(points_s, first_s - around_s, part.end_s, width - LEFT - RIGHT)
    view = View(
        recording=part,
        axis=axis,
        sheet=Sheet(),
        names=names_of(recording.spans),
        marks_max=marks_max,
        is_close_up=True,
    )
    return _drawn(view, marked, (told,), legend=False)


def _drawn(view: View, marked: Marked, told: Sequence[Told], *, legend: bool) -> _Panel:
    """All lanes from above downwards, with the axis above and the legend below them."""
    sheet, lanes = view.sheet, lanes_of(view.recording)
    top = 26.0 if told else 6.0
    y = top + 20
    y = draw_machines(view, "nodes", lanes.nodes, y)
    y = draw_machines(view, "programs", lanes.programs, y)
    y = draw_partitions(view, marked, y)
    y = draw_machines(view, "others", lanes.others, y)
    behind = Sheet()
    _axis(view, behind, top, y)
    labels = Sheet()
    _ticks(view, labels, top)
    taken: list[tuple[float, float]] = []
    for at, one in enumerate(told):
        _guides(view, one, "ABC"[at] if len(told) > 1 else "", top, y, taken)
    height = y + 6
    below = ""
    if legend:
        below, height = _legend(height + 16)
    body = (
        f'<g transform="translate({LEFT},0)">{"".join(sheet.margin)}</g>'
        f'<svg class="zooms" x="{LEFT}" y="0" width="{number(view.axis.width)}" '
        f'height="{number(y + 2)}" overflow="hidden">'
        f"{''.join(behind.plot)}\n"
        + "\n".join([*sheet.plot, *labels.plot])
        + ('<path id="cursor" d="M0 0"/>' if legend else "")
        + f"</svg>{below}"
    )
    return _Panel(body, height, view.axis, tuple(view.left_out))


def _axis(view: View, sheet: Sheet, top: float, bottom: float) -> None:
    for tick in view.axis.ticks():
        if tick.zoom == 1 and not view.is_close_up:
            sheet.line(f"M{number(tick.x)} {top + 15}V{number(bottom)}", "grid")
    for cut, label in zip(view.axis.cuts, view.axis.labels(), strict=True):
        sheet.block(cut.left, cut.right, top + 15, bottom - top - 15, "cut", label.title)


def _ticks(view: View, sheet: Sheet, top: float) -> None:
    """The labels of the axis, which stand before all lines."""
    for tick in view.axis.ticks():
        looks = ("tick begin" if tick.x == 0 else "tick") + (" z" if tick.zoom > 1 else "")
        hidden = f' data-k="{tick.zoom:g}"' if tick.zoom > 1 else ""
        sheet.plot.append(
            f'<text class="{looks}"{hidden} x="{number(tick.x)}" y="{top + 10}">{tick.label}</text>'
        )
    for label in view.axis.labels():
        sheet.words(label.x, top + 10, label.text, "tick later")


def _guides(
    view: View, told: Told, letter: str, top: float, bottom: float, taken: list[tuple[float, float]]
) -> None:
    """Numbered lines through all lanes, one for each step; those that are near each other have one number.

    ``taken`` is where the numbers of other records are: this one's are to their right.
    """
    groups: list[list[tuple[int, Step, float]]] = []
    for at, step in enumerate(told.steps, 1):
        if letter and step.lane == RUN:
            # That is the same of all.
            continue
        x = view.x(step.at_s)
        if groups and x - groups[-1][-1][2] < 19:
            groups[-1].append((at, step, x))
        else:
            groups.append([(at, step, x)])
    for group in groups:
        for x in dict.fromkeys(round(x, 1) for _, _, x in (group if view.is_close_up else group[:1])):
            view.sheet.line(f"M{number(x)} {top - 4}V{number(bottom)}", "guide")
        if view.is_close_up:
            for _, step, x in group:
                _arrow(view, step, x)
        numbers = [at for at, _, _ in group]
        label = f"{letter}{numbers[0]}" + (f"–{numbers[-1]}" if len(numbers) > 1 else "")
        half = 4 + 3.4 * len(label)
        # No number is cut off at an edge.
        x = min(max(sum(x for _, _, x in group) / len(group), half), view.axis.width - half)
        for left, right in sorted(taken):
            if x - half < right and left < x + half:
                x = right + half + 1
        if x + half > view.axis.width:
            continue
        taken.append((x - half, x + half))
        title = "; ".join(f"{seconds(step.at_s)} {step.lane} {step.text}" for _, step, _ in group)
        view.sheet.block(x - half, x + half, top - 22, 17, "b", title)
        view.sheet.plot.append(f'<text class="b-text" x="{number(x)}" y="{top - 9.5}">{label}</text>')


def _arrow(view: View, step: Step, x: float) -> None:
    """From a program to the record, or from the record to a program."""
    lane = view.edges.get(step.lane)
    height = None if step.place is None else view.heights.get(step.place[:2])
    if lane is None or height is None or step.place is None:
        return
    # The mark itself stays to be seen.
    begin, end = lane, height(step.place.offset) - 7
    if step.way == "from":
        begin, end = end, begin
    view.sheet.plot.append(
        f'<path class="arrow" d="M{number(x)} {number(begin)}V{number(end)}" marker-end="url(#head)"/>'
    )


def _legend(y: float) -> tuple[str, float]:
    parts, x = [], float(LEFT)
    for looks, words, of in LEGEND:
        attribute = f' class="key" data-of="{of}"' if of else ""
        parts.append(
            f'<g{attribute}><use class="{looks}" href="#{looks}" x="{number(x)}" y="{y}"/>'
            f'<text x="{number(x + 10)}" y="{y + 4}">{words}</text></g>'
        )
        x += 34 + 6.3 * len(words)
    y, x = y + 24, float(LEFT) - 4
    for looks, words in BLOCKS:
        parts.append(
            f'<rect class="{looks}" x="{number(x)}" y="{y - 7}" width="20" height="13"/>'
            f'<text x="{number(x + 27)}" y="{y + 4}">{words}</text>'
        )
        x += 56 + 6.3 * len(words)
    parts.append(
        f'<path class="stairs" d="M{number(x)} {y + 5}h8v-5h8v-5h8"/><text x="{number(x + 32)}" y="{y + 4}">'
        "a group’s committed offset: what lies below it counts as read</text>"
    )
    return "".join(parts), y + 18


# ------------------------------------------------------------ what is said of a run


def _times_s(recording: Recording) -> list[float]:
    return list(_all_times_s(recording))


def _all_times_s(recording: Recording) -> Iterator[float]:
    """When something happens, but for what clients ask all the time and commits that change nothing."""
    for span in recording.spans:
        yield span.begin_s
        if span.end_s is not None:
            yield span.end_s
    for call in recording.calls:
        if call.api not in HUMMING and call.result not in ("ok", ""):
            yield call.sent_s
    for written in recording.written:
        yield written.sent_s
        if written.acknowledged_s is not None:
            yield written.acknowledged_s
    yield from (read.at_s for read in recording.read)
    last: dict[tuple[str, str, int], int] = {}
    for one in recording.committed:
        key = one.group, one.topic, one.partition
        if last.get(key) != one.offset:
            last[key] = one.offset
            yield one.at_s
    yield from (remark.at_s for remark in recording.remarks)


def _facts(recording: Recording) -> str:
    lanes = lanes_of(recording)
    faults = sum(span.kind is not Kind.RUNS and not has_ended(span) for span in recording.spans)
    errors = sum(call.result not in ("ok", "") for call in recording.calls)
    counted = (
        (len(lanes.nodes), "node"),
        (len(lanes.programs), "program"),
        (faults, "time down, paused or under a fault"),
        (sum(one.offset is not None for one in recording.written), "record written"),
        (len(recording.committed), "offset committed"),
        (errors, "call with an error"),
    )
    words = [f"{recording.end_s:.1f} virtual seconds"]
    words += [f"{count:,} {_plural(count, what)}" for count, what in counted]
    return ", ".join(words)


def _plural(count: int, what: str) -> str:
    if count == 1:
        return what
    first, _, rest = what.partition(" ")
    return f"{first}s {rest}".rstrip()


def _described(recording: Recording) -> str:
    """For those who do not see the picture."""
    told = [
        f"{span.lane} {span.text or span.kind.value} from {span.begin_s:.3f} s"
        + ("" if span.end_s is None else f" to {span.end_s:.3f} s")
        for span in recording.spans
        if span.kind is not Kind.RUNS
    ]
    return f"{_facts(recording)}. " + "; ".join(told[:40])


def _ended(recording: Recording) -> list[str]:
    lists: dict[str, Sequence[object]] = {
        "times up, down or under a fault": recording.spans,
        "calls": recording.calls,
        "records": recording.written,
        "reads": recording.read,
        "commits": recording.committed,
        "remarks": recording.remarks,
    }
    return [
        f"{what} after the first {ENTRIES_MAX:,}: so many a recording keeps"
        for what, entries in lists.items()
        if len(entries) >= ENTRIES_MAX
    ]


def _x(line: str, axis: Axis) -> float | None:
    """Where a line of the story that begins with its time is."""
    try:
        at_s = float(line.partition(" ")[0])
    except ValueError:
        return None
    return axis.x(at_s) if axis.begin_s <= at_s <= axis.end_s else None
