"""The lanes of nodes, programs, the network and the store: when each was up, down, paused or cut off."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from ottla.explore.recording.picture_axis import Axis
from ottla.explore.recording.picture_svg import Sheet, duration, seconds, words_width
from ottla.explore.recording.recording import NETWORK, Call, Kind, Recording, Remark, Span

T = TypeVar("T")
# Heights, in pixels: a bar, the strip below it with a program's calls, and what is between lanes.
BAR, STRIP, GAP = 20.0, 11.0, 7.0
# How far beside the middle of a sign its words begin.
SIGN = 8.0
# Spans that overlap lie below each other in so many bars at most.
BARS_MAX = 5
# So many lanes of a kind are drawn.
LANES_MAX = 30
# Clients ask these all the time: what happens to them says nothing of the run's progress.
HUMMING = frozenset({"ApiVersions", "Fetch", "FindCoordinator", "Heartbeat", "Metadata"})


@dataclass(slots=True, kw_only=True)
class View:
    """What is drawn, where times are, and how many marks there may be. ``left_out`` grows meanwhile."""

    recording: Recording
    axis: Axis
    sheet: Sheet
    # Of processes, by the identities of their spans.
    names: dict[int, str]
    marks_max: int
    is_close_up: bool = False
    left_out: list[str] = field(default_factory=list)
    # The lower edge of each machine's lane, and how high the offsets of each partition are.
    edges: dict[str, float] = field(default_factory=dict)
    heights: dict[tuple[str, int], Callable[[float], float]] = field(default_factory=dict)

    def x(self, at_s: float) -> float:
        return self.axis.x(at_s)


@dataclass(slots=True)
class Lanes:
    """The names of lanes by what they are of."""

    nodes: list[str]
    programs: list[str]
    # The network, the store, and whatever else something is told of.
    others: list[str]


def lanes_of(recording: Recording) -> Lanes:
    lanes = list(dict.fromkeys(recording.lanes))
    told = [*(span.lane for span in recording.spans), *(remark.lane for remark in recording.remarks)]
    others = [lane for lane in dict.fromkeys(told) if lane not in lanes]
    # What was written by whom nothing else is told of has a lane all the same.
    asking = {call.program for call in recording.calls} | {one.program for one in recording.written}
    behind = sorted(asking.difference(lanes, others))
    return Lanes(lanes[: recording.nodes], [*lanes[recording.nodes :], *behind], others)


def draw_machines(view: View, heading: str, lanes: Sequence[str], y: float) -> float:
    """Draw them below ``y``; how far down it goes then."""
    if not lanes:
        return y
    view.sheet.label(-12, y + 15, heading, "h")
    y += 22
    drawn = lanes[: min(LANES_MAX, max(6, view.marks_max // 20))]
    if len(drawn) < len(lanes):
        view.left_out.append(f"{len(lanes) - len(drawn)} of {len(lanes)} lanes of {heading}")
    spans: dict[str, list[Span]] = {lane: [] for lane in drawn}
    for span in view.recording.spans:
        spans.get(span.lane, []).append(span)
    remarks: dict[str, list[Remark]] = {lane: [] for lane in drawn}
    for remark in view.recording.remarks:
        remarks.get(remark.lane, []).append(remark)
    calls: dict[str, list[Call]] = {lane: [] for lane in drawn}
    for call in view.recording.calls:
        calls.get(call.program, []).append(call)
    for lane in drawn:
        y = _lane(view, lane, spans[lane], remarks[lane], calls[lane], y)
    return y


def _lane(
    view: View, lane: str, spans: list[Span], remarks: list[Remark], calls: list[Call], y: float
) -> float:
    bars, beyond = _bars(spans)
    if beyond:
        view.left_out.append(f"{beyond} faults on {lane}, where more than {BARS_MAX} were at one time")
    tall = BAR * len(bars) + (STRIP if calls else 0)
    view.sheet.label(-12, y + BAR / 2 + 4, lane, "n", most=18)
    view.sheet.band(0, y, view.axis.width, tall, "band")
    view.edges[lane] = y + tall
    for number, bar in enumerate(bars):
        for span in _longest(view, lane, bar):
            _span(view, view.names.get(id(span), lane), span, y + number * BAR)
    _remarks(view, lane, remarks, y + BAR / 2, has_words=not spans)
    if spans and remarks and remarks == _only_fault(view.recording):
        _name_fault(view, lane, spans, remarks[0], y + BAR / 2)
    if calls:
        draw_calls(view, calls, y + BAR * len(bars), STRIP)
    return y + tall + GAP


def names_of(spans: Iterable[Span]) -> dict[int, str]:
    """The names of processes, which each machine numbers, by the identities of their spans."""
    names, counts = {}, Counter[str]()
    for span in sorted(spans, key=lambda span: span.begin_s):
        if span.kind is Kind.RUNS:
            counts[span.lane] += 1
            names[id(span)] = f"{span.lane}.{counts[span.lane]}"
    return names


def _bars(spans: Iterable[Span]) -> tuple[list[list[Span]], int]:
    """Processes in the first bar with what does not overlap, the rest below; how many find no room."""
    bars: list[list[Span]] = [[]]
    ends: list[float] = [float("-inf")]
    beyond = 0
    for span in sorted(spans, key=lambda span: span.begin_s):
        if span.kind is Kind.RUNS:
            bars[0].insert(0, span)
            continue
        free = next((at for at, end_s in enumerate(ends) if end_s <= span.begin_s), len(ends))
        if free == BARS_MAX:
            beyond += 1
            continue
        if free == len(bars):
            bars.append([])
            ends.append(0.0)
        bars[free].append(span)
        ends[free] = float("inf") if span.end_s is None else span.end_s
    return bars, beyond


def _longest(view: View, lane: str, bar: list[Span]) -> list[Span]:
    """Those that are drawn, if there are too many."""
    most = max(4, view.marks_max // 12)
    if len(bar) <= most:
        return bar
    view.left_out.append(f"{len(bar) - most} of {len(bar)} spans on {lane}: the shortest ones")
    kept = sorted(bar, key=lambda span: span.begin_s - _end_s(view, span))[:most]
    return sorted(kept, key=lambda span: (span.kind is not Kind.RUNS, span.begin_s))


def _end_s(view: View, span: Span) -> float:
    return view.axis.end_s if span.end_s is None else span.end_s


def _span(view: View, name: str, span: Span, y: float) -> None:
    """``name``: of the lane, or of the process."""
    end_s = _end_s(view, span)
    left, right = view.x(span.begin_s), view.x(end_s)
    words = span.text or (name if span.kind is Kind.RUNS else span.kind.value)
    told = _told(name, span.text or span.kind.value)
    until = "the end" if span.end_s is None else f"{seconds(end_s)} ({duration(end_s - span.begin_s)})"
    title = f"{told} from {seconds(span.begin_s)} to {until}"
    inset = 0.0 if span.kind in (Kind.RUNS, Kind.DOWN) else 3.0
    looks = "ended" if has_ended(span) else span.kind.value
    view.sheet.block(left, right, y + inset, BAR - 2 * inset, looks, title)
    # A node serves as soon as it runs: the sign for that is at its begin.
    looks, shift = ("small", 8) if span.kind is Kind.RUNS else ("small halo", 4)
    view.sheet.words(left, y + BAR / 2 + 4, words, looks, room=max(right - left - shift, 1), shift=shift)


def has_ended(span: Span) -> bool:
    """Whether a program has done what it was to do: that is no fault."""
    return span.kind is Kind.DOWN and span.text.endswith("ended")


def _remarks(view: View, lane: str, remarks: list[Remark], y: float, *, has_words: bool) -> None:
    """A sign for each, or for several at one place; ``has_words``: with its words if there is room."""
    found = cells(remarks, lambda remark: view.x(remark.at_s), max(4, view.marks_max // 12))
    places = [view.x(group[0].at_s) for group in found]
    for number, group in enumerate(found):
        x = places[number]
        text = f"{seconds(group[0].at_s)} " + "; ".join(
            dict.fromkeys(_told(lane, one.text) for one in group[:4])
        )
        more = f" and {len(group) - 4} more" if len(group) > 4 else ""
        view.sheet.mark("m", x, y, text + more)
        if has_words:
            room = (places[number + 1] if number + 1 < len(places) else view.axis.width) - x - 4
            view.sheet.words(x, y + 4, group[0].text, "small halo", room=max(room, 1.0), shift=7)


def _only_fault(recording: Recording) -> list[Remark]:
    """That which strikes a program, where it is the only one."""
    programs = recording.lanes[recording.nodes :]
    found = [remark for remark in recording.remarks if remark.lane in programs]
    return found if len(found) == 1 else []


def _name_fault(view: View, lane: str, spans: list[Span], fault: Remark, y: float) -> None:
    """Its words beside its sign, on the side with more room; what stands behind a comma only if it fits."""
    x = view.x(fault.at_s)
    right = min(
        (view.x(span.begin_s) for span in spans if span.begin_s > fault.at_s), default=view.axis.width
    )
    before = [span for span in spans if span.begin_s <= fault.at_s]
    named = max(before, key=lambda span: span.begin_s, default=None)
    left = 0.0
    if named is not None:
        words = named.text or view.names.get(id(named), lane)
        left = view.x(named.begin_s) + words_width(words)
    if x < left:
        # It stands on those words.
        return
    room = max(x - left, right - x) - SIGN
    whole = fault.text.removeprefix(f"{lane} ")
    text = whole if words_width(whole) <= room else whole.partition(",")[0]
    if right - x >= x - left:
        view.sheet.words(x, y + 4, text, "small halo", room=max(room, 1.0), shift=SIGN)
    else:
        view.sheet.words(x, y + 4, text, "small halo end", room=max(room, 1.0), shift=-SIGN)


def _told(lane: str, text: str) -> str:
    """With whom it is about, where the text does not say so itself."""
    return text if lane == NETWORK or lane in text else f"{lane} {text}"


def draw_calls(view: View, calls: list[Call], y: float, height: float) -> None:
    """Below a program's bar: how long it waited for answers, which were errors, which never came."""
    middle = y + height / 2
    waits = [(view.x(one.sent_s), view.x(_heard_s(view, one))) for one in calls if _is_waited_for(one)]
    path = "".join(
        f"M{left:.1f} {middle:.1f}H{right:.1f}" for left, right in _joined(waits, 2.0, view.marks_max // 4)
    )
    if path:
        view.sheet.line(path, "wait")
    errors = [one for one in calls if one.answered_s is not None and one.result != "ok"]
    lost = [one for one in calls if one.lost_s is not None]
    for looks, chosen in (("e", errors), ("u", lost)):
        for group in cells(chosen, lambda one: view.x(_heard_s(view, one)), max(8, view.marks_max // 8)):
            one = group[0]
            text = f"{seconds(_heard_s(view, one))} {one.program}: {one.api} to {one.node}"
            text += f" ({one.about})" if one.about else ""
            text += f", sent {duration(_heard_s(view, one) - one.sent_s)} before: "
            text += one.result if looks == "e" else "its connection ends"
            more = f"; and {len(group) - 1} more, until {seconds(group[-1].sent_s)}" if group[1:] else ""
            view.sheet.mark(looks, view.x(_heard_s(view, one)), middle, text + more)


def _is_waited_for(call: Call) -> bool:
    """Fetch is answered when there is something: to wait for that is no trouble."""
    return call.api != "Fetch" and (call.answered_s is not None or call.lost_s is not None)


def _heard_s(view: View, call: Call) -> float:
    """When a program heard of an answer, or that there will be none."""
    heard_s = call.answered_s if call.answered_s is not None else call.lost_s
    return view.axis.end_s if heard_s is None else heard_s


def _joined(spans: list[tuple[float, float]], least: float, most: int) -> list[tuple[float, float]]:
    """Stretches of at least so many pixels, those that touch made one, the first ``most``."""
    found: list[tuple[float, float]] = []
    for left, right in sorted(spans):
        if right - left < least:
            continue
        if found and left <= found[-1][1] + 1:
            found[-1] = found[-1][0], max(found[-1][1], right)
        else:
            found.append((left, right))
    return found[:most]


def cells(entries: Sequence[T], x: Callable[[T], float], most: int) -> list[list[T]]:
    """Entries by time, those together that are so near that there are no more than ``most`` marks."""
    if not entries:
        return []
    places = [x(entry) for entry in entries]
    width = 0.5
    while len({int(place / width) for place in places}) > most:
        width *= 2
    found: dict[int, list[T]] = {}
    for entry, place in zip(entries, places, strict=True):
        found.setdefault(int(place / width), []).append(entry)
    return [found[at] for at in sorted(found)]
