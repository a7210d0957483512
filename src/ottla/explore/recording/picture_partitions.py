"""The lanes of partitions: records by their offsets, as they are written, read and committed.

Time runs from left to right and offsets from below upwards, so that what was read twice falls back, and a
group's committed offset is a staircase with all that counts as done below it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from ottla.explore.recording import phrases
from ottla.explore.recording.picture_machines import GAP, View, cells
from ottla.explore.recording.picture_marked import Marked, Place
from ottla.explore.recording.picture_svg import number, seconds, shown, words_width
from ottla.explore.recording.recording import Committed, Read, Recording, Remark, Written

# So many partitions are drawn: those with marked records, and then those with most to tell.
PARTITIONS_MAX = 24
# So many staircases a partition has at most, one for each group.
GROUPS_MAX = 4
# Heights in pixels: of few and of many partitions, and of those with records that a check is about.
TALL, MIDDLE, LOW, MARKED, CLOSE_UP = 58.0, 42.0, 30.0, 92.0, 132.0
# Room above the last offset and below the first one.
EDGE = 4.0
# From one line of words to the next, in pixels.
LINE = 13.0
# What the recorder says of an election.
LEADS = re.compile(r"(?P<who>.+?) (?:leads|lead) (?P<topic>.+)-(?P<partition>\d+) \(epoch \d+\)")
Partition = tuple[str, int]


class Point(NamedTuple):
    looks: str
    x: float
    y: float
    entry: Written | Read | Committed


@dataclass(slots=True)
class Chart:
    """The lane of a partition: which offset is how high."""

    name: Partition
    top: float
    height: float
    first: int
    last: int
    points: list[Point] = field(default_factory=list)

    def y(self, offset: float) -> float:
        part = (offset - self.first + 0.5) / (self.last - self.first + 1)
        return self.top + self.height - EDGE - min(max(part, 0.0), 1.0) * (self.height - 2 * EDGE)


@dataclass(slots=True)
class Entries:
    """What a recording has of a partition."""

    written: list[Written] = field(default_factory=list)
    read: list[Read] = field(default_factory=list)
    committed: list[Committed] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.written) + len(self.read) + len(self.committed)

    def offsets(self) -> tuple[int, int]:
        """The first and the last that anything is told of."""
        found = [one.offset for one in self.written if one.offset is not None]
        found += [one.first_offset for one in self.read] + [one.last_offset for one in self.read]
        # The committed offset is one behind the record.
        found += [max(one.offset - 1, 0) for one in self.committed]
        return min(found, default=0), max(found, default=0)


def draw_partitions(view: View, marked: Marked, y: float) -> float:
    """Draw all topics below ``y``; how far down they go then."""
    entries = _entries(view.recording)
    drawn = _chosen(entries, marked, min(PARTITIONS_MAX, max(6, view.marks_max // 20)))
    if len(drawn) < len(entries):
        view.left_out.append(f"{len(entries) - len(drawn)} of {len(entries)} partitions")
    charts: list[Chart] = []
    topic, leaders = None, _leaders(view.recording.remarks)
    special = {place[:2] for place in marked.places}
    for name in drawn:
        if name[0] != topic:
            topic = name[0]
            view.sheet.label(-12, y + 15, f"topic {topic}", "h", most=22)
            y += 22
        height = _height(view, len(drawn), name in special)
        first, last = entries[name].offsets()
        chart = Chart(name, y, height, first, last)
        charts.append(chart)
        _frame(view, chart)
        _draw_leaders(view, chart, leaders.get(name, []))
        _staircases(view, chart, entries[name].committed)
        _points(view, chart, entries[name])
        y += height + GAP
    _marks(view, charts, marked)
    return y


def _entries(recording: Recording) -> dict[Partition, Entries]:
    """Topics in the order in which they first appear, their partitions by number."""
    found: dict[Partition, Entries] = {}
    for written in recording.written:
        found.setdefault((written.topic, written.partition), Entries()).written.append(written)
    for read in recording.read:
        found.setdefault((read.topic, read.partition), Entries()).read.append(read)
    for committed in recording.committed:
        found.setdefault((committed.topic, committed.partition), Entries()).committed.append(committed)
    topics = {topic: at for at, topic in enumerate(dict.fromkeys(topic for topic, _ in found))}
    return {name: found[name] for name in sorted(found, key=lambda name: (topics[name[0]], name[1]))}


def _chosen(entries: dict[Partition, Entries], marked: Marked, most: int) -> list[Partition]:
    if len(entries) <= most:
        return list(entries)
    special = {place[:2] for place in marked.places}
    best = sorted(entries, key=lambda name: (name not in special, -len(entries[name])))[:most]
    return [name for name in entries if name in best]


def _height(view: View, count: int, is_marked: bool) -> float:
    if view.is_close_up:
        return CLOSE_UP if count <= 3 else MARKED
    if is_marked and count <= 12:
        return MARKED
    return TALL if count <= 6 else MIDDLE if count <= 12 else LOW


def _frame(view: View, chart: Chart) -> None:
    topic, partition = chart.name
    middle = chart.top + chart.height / 2
    view.heights[chart.name] = chart.y
    view.sheet.band(0, chart.top, view.axis.width, chart.height, "band")
    view.sheet.label(-12, middle + (0 if chart.height > 36 else 4), f"{topic}-{partition}", "n", most=18)
    if chart.height > 36:
        offsets = (
            f"offsets {chart.first} to {chart.last}" if chart.last > chart.first else f"offset {chart.first}"
        )
        view.sheet.label(-12, middle + 14, offsets, "s", most=22)


def _leaders(remarks: Iterable[Remark]) -> dict[Partition, list[tuple[Remark, str]]]:
    """Who was elected, of each partition."""
    found: dict[Partition, list[tuple[Remark, str]]] = {}
    for remark in remarks:
        told = LEADS.fullmatch(remark.text)
        if told:
            name = told["topic"], int(told["partition"])
            found.setdefault(name, []).append((remark, told["who"]))
    return found


def _draw_leaders(view: View, chart: Chart, leaders: Sequence[tuple[Remark, str]]) -> None:
    """Along the upper edge: from when on who leads."""
    found = cells(leaders, lambda one: view.x(one[0].at_s), max(4, view.marks_max // 200))
    places = [view.x(group[-1][0].at_s) for group in found]
    for at, (group, x) in enumerate(zip(found, places, strict=True)):
        remark, who = group[-1]
        end = places[at + 1] if at + 1 < len(places) else view.axis.width
        view.sheet.line(
            f"M{number(x)} {number(chart.top)}v9", "leads", f"{seconds(remark.at_s)} {remark.text}"
        )
        view.sheet.words(x, chart.top + 9, who, "tiny", room=max(end - x, 1.0), shift=3)


def _staircases(view: View, chart: Chart, committed: Iterable[Committed]) -> None:
    """Of each group a line above the last record that counts as done, and a tint below it."""
    groups: dict[str, list[Committed]] = {}
    for one in committed:
        if one.result == "ok":
            groups.setdefault(one.group, []).append(one)
    if len(groups) > GROUPS_MAX:
        view.left_out.append(f"{len(groups) - GROUPS_MAX} groups on {chart.name[0]}-{chart.name[1]}")
    for at, (group, commits) in enumerate(list(groups.items())[:GROUPS_MAX]):
        stairs = _stairs(view, chart, commits)
        path = f"M{number(stairs[0][0])} {number(stairs[0][1])}"
        path += "".join(f"H{number(x)}V{number(y)}" for x, y in stairs[1:])
        right, bottom = view.axis.width, number(chart.top + chart.height)
        if at == 0:
            view.sheet.line(f"{path}H{number(right)}V{bottom}H{number(stairs[0][0])}Z", "done")
        view.sheet.line(f"{path}H{number(right)}", "stairs")
        y = stairs[-1][1]
        below = y - 5 < chart.top + 9
        words = f"{group}: {commits[-1].offset}"
        view.sheet.words(right, y + 13 if below else y - 5, words, "small c-text halo end", shift=-5)


def _stairs(view: View, chart: Chart, commits: list[Committed]) -> list[tuple[float, float]]:
    """Where the line turns; of turns within a pixel, the last one."""
    step = max(0.5, view.axis.width * PARTITIONS_MAX / view.marks_max / 4)
    found: list[tuple[float, float]] = []
    for one in sorted(commits, key=lambda one: one.at_s):
        # Between the last record that is done and the next one.
        x, y = view.x(one.at_s), chart.y(one.offset - 0.5)
        if found and (y == found[-1][1] or x - found[-1][0] < step):
            found[-1] = (found[-1][0], y)
        else:
            found.append((x, y))
    return found


def _points(view: View, chart: Chart, entries: Entries) -> None:
    waits = []
    following = chart.first
    for one in sorted(entries.written, key=lambda one: one.sent_s):
        x = view.x(one.sent_s)
        if one.offset is None:
            chart.points.append(Point("x", x, chart.y(following), one))
            continue
        following = max(following, one.offset + 1)
        y = chart.y(one.offset)
        chart.points.append(Point("a" if one.outcome == "aborted" else "w", x, y, one))
        if one.acknowledged_s is not None and (right := view.x(one.acknowledged_s)) - x > 2:
            waits.append(f"M{number(x)} {number(y)}H{number(right)}")
    spans = []
    for read in entries.read:
        x, y = view.x(read.at_s), chart.y(read.last_offset)
        chart.points.append(Point("r", x, y, read))
        if read.last_offset > read.first_offset:
            spans.append(f"M{number(x)} {number(chart.y(read.first_offset))}V{number(y)}")
    reached: dict[str, int] = {}
    for commit in entries.committed:
        looks = "c" if commit.result == "ok" else "x"
        # A commit that changes nothing has no mark.
        if looks == "c" and reached.get(commit.group) == commit.offset:
            continue
        reached[commit.group] = commit.offset
        chart.points.append(Point(looks, view.x(commit.at_s), chart.y(commit.offset - 0.5), commit))
    for paths, looks in ((waits, "w-line"), (spans, "r-line")):
        # Lines at one place are one.
        distinct = list(dict.fromkeys(paths))[: view.marks_max // 6]
        if distinct:
            view.sheet.line("".join(distinct), looks)


def _marks(view: View, charts: Sequence[Chart], marked: Marked) -> None:
    """Draw the points of all partitions; those that lie at one place are one mark."""
    size = 0.5
    while len(found := _cells(charts, size)) > view.marks_max:
        size *= 1.5
    order = {"c": 0, "w": 1, "a": 2, "r": 3, "x": 4}
    counts = Counter(len(group) > 1 for group in found)
    if counts[True]:
        view.left_out.append(
            f"{counts[True]} marks stand for several records each, which are near each other"
        )
    for group in sorted(found, key=lambda group: order[group[0].looks]):
        view.sheet.mark(group[0].looks, group[0].x, group[0].y, _told(group))
    _rings(view, charts, marked)


def _cells(charts: Sequence[Chart], size: float) -> list[list[Point]]:
    found: dict[tuple[str, int, int, int], list[Point]] = {}
    for at, chart in enumerate(charts):
        for point in chart.points:
            key = (point.looks, at, int(point.x / size), int(point.y / size))
            found.setdefault(key, []).append(point)
    return list(found.values())


def _rings(view: View, charts: Sequence[Chart], marked: Marked) -> None:
    """A ring around each record that the check is about, and a line along its offset."""
    named = {place: told.name for told in marked.told for place in told.places}
    done: set[Place] = set()
    names: list[tuple[Chart, Point, str]] = []
    for chart in charts:
        for point in chart.points:
            one = point.entry
            if not isinstance(one, Written) or one.offset is None:
                continue
            place = Place(one.topic, one.partition, one.offset)
            if place not in marked.places or place in done or len(done) >= max(8, view.marks_max // 16):
                continue
            done.add(place)
            view.sheet.line(f"M{number(point.x)} {number(point.y)}H{number(view.axis.width)}", "along")
            view.sheet.mark("o", point.x, point.y, "The check is about this record. " + _told([point]))
            if place in named:
                names.append((chart, point, named[place]))
    # Before all rings.
    taken: list[tuple[float, float, float]] = []
    for chart, point, name in names:
        _name(view, chart, point, name, taken)
    if len(done) < len(marked.places):
        view.left_out.append(f"rings around {len(marked.places) - len(done)} records that the check is about")


def _name(view: View, chart: Chart, point: Point, name: str, taken: list[tuple[float, float, float]]) -> None:
    """The value beside a record: to its right, or to its left where there is more room.

    ``taken`` is where other values stand, their left and right ends and heights: none lies on another.
    """
    text = name if len(name) <= 22 else name[:21] + "…"
    y = point.y - 8 if point.y - 8 > chart.top + 9 else point.y + 18
    is_left = point.x > view.axis.width * 0.8
    begin = point.x - 10 - words_width(text) if is_left else point.x + 10
    end = begin + words_width(text)
    if any(begin < right and left < end and abs(y - other) < LINE for left, right, other in taken):
        return
    taken.append((begin, end, y))
    if is_left:
        view.sheet.words(point.x, y, text, "marked halo end", shift=-10)
    else:
        view.sheet.words(point.x, y, text, "marked halo", shift=10)


def _told(group: Sequence[Point]) -> str:
    """What is seen when somebody points at a mark."""
    one = group[0].entry
    if len(group) > 1:
        times = [_at_s(point.entry) for point in group]
        first, last = min(times), max(times)
        what = {
            "w": "records are written",
            "a": "records are aborted",
            "r": "times records are read",
            "c": "commits",
        }
        return (
            f"{len(group)} {what.get(group[0].looks, 'failures')} from {seconds(first)} to {seconds(last)}, "
            f"the first: {_of(one)}"
        )
    return _of(one)


def _at_s(entry: Written | Read | Committed) -> float:
    return entry.sent_s if isinstance(entry, Written) else entry.at_s


def _of(one: Written | Read | Committed) -> str:
    who = f"{seconds(_at_s(one))} {one.program}"
    if isinstance(one, Read):
        return f"{who} reads {phrases.offsets(one)}"
    if isinstance(one, Committed):
        return f"{who} {phrases.commits(one)}"
    key = "" if one.key is None else f"{shown(one.key, 20)}="
    where = f"{one.topic}-{one.partition}"
    return f"{who} sends {key}{shown(one.value)} to {where}: {phrases.fate(one, is_timed=True)}"
