"""A recording in words: lines with their times, which a person can read one after the other (pure)."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass

from ottla.explore.recording.recording import NOT_WANTED, WORLD, Call, Kind, Recording, Remark, Span
from ottla.text import printable

# Calls that fail alike are one line if no more than this is between them.
TOGETHER_S = 10.0
# Answers that are errors by their names, and part of every life.
USUAL = frozenset({"MEMBER_ID_REQUIRED", "REBALANCE_IN_PROGRESS", NOT_WANTED, "ok"})
ENDED = "has ended"
# How a process ends that is started again and again.
BY_ITSELF = ("ended by ", "cannot start", "gives up")
# An election, and of how many at once the partitions are named.
ELECTED = re.compile(r"(\S+) leads (\S+) \(epoch \d+\)")
PARTITIONS_MAX = 4


@dataclass(slots=True)
class Line:
    """Something that happened. ``weight``: the lower, the more it has to do with what is told."""

    at_s: float
    text: str
    weight: int = 0


def seconds(at_s: float) -> str:
    return f"{at_s:.3f}"


def ordinal(number: int) -> str:
    """1st, 2nd, 3rd, 4th."""
    last = 0 if number % 100 in (11, 12, 13) else number % 10
    return f"{number}{('th', 'st', 'nd', 'rd')[last] if last < 4 else 'th'}"


class Words:
    """Says what a recording's entries are."""

    def __init__(self, recording: Recording) -> None:
        self._recording = recording
        self._nodes = frozenset(recording.lanes[: recording.nodes])
        # When each lane's processes began.
        self._begins_s: dict[str, list[float]] = {}
        self._ends_s: set[tuple[str, float]] = set()
        for span in recording.spans:
            if span.kind is Kind.RUNS:
                self._begins_s.setdefault(span.lane, []).append(span.begin_s)
                if span.end_s is not None:
                    self._ends_s.add((span.lane, span.end_s))

    def who(self, lane: str, at_s: float) -> str:
        """A program with the number of its start, where it has more than one; a node by its name."""
        begins_s = self._begins_s.get(lane, [])
        if len(begins_s) < 2 or lane in self._nodes:
            return lane
        return f"{lane} ({ordinal(max(1, bisect_right(begins_s, at_s)))} start)"

    def run_of(self, lane: str, at_s: float) -> int:
        """Which of its processes ran then, counted from 1."""
        return bisect_right(self._begins_s.get(lane, []), at_s)

    def span(self, span: Span) -> str:
        """How it begins, and until when it lasts."""
        who, end_s = self.who(span.lane, span.begin_s), span.end_s
        if span.kind is Kind.RUNS:
            return f"{who} starts"
        if span.kind is Kind.PAUSED:
            return f"{who} is paused" + (f" until {seconds(end_s)}" if end_s is not None else "")
        if span.kind is Kind.FAULT:
            return span.text + (f", until {seconds(end_s)}" if end_s is not None else ", to the end")
        if span.text == ENDED:
            return f"{who} has ended"
        again = f", and starts again at {seconds(end_s)}" if end_s is not None else ", and stays so"
        return f"{who} {span.text}{again}"

    def spans(self, spans: Iterable[Span], weight: int = 0) -> list[Line]:
        """A line for each, and one for a process that ends again and again in the same way."""
        lines: list[Line] = []
        last: dict[tuple[str, str], tuple[Line, int, float]] = {}
        for span in spans:
            line, count, begin_s = last.get((span.lane, span.text), (None, 0, 0.0))
            is_again = span.text.startswith(BY_ITSELF) and span.begin_s - begin_s <= TOGETHER_S
            if line is None or not is_again:
                line, count = Line(span.begin_s, self.span(span), weight), 1
                lines.append(line)
            else:
                count += 1
                line.text = f"{span.lane}, {count} times until {seconds(span.begin_s)}: {span.text}"
            if span.text.startswith(BY_ITSELF):
                last[span.lane, span.text] = line, count, span.begin_s
        return lines

    def call(self, call: Call) -> str:
        """What is asked of whom."""
        return f"{call.api} to {call.node}" + (f" ({call.about})" if call.about else "")

    def failure(self, call: Call) -> str:
        """Why a call failed; empty if it did not, or is still under way, or ended with its program."""
        if call.result and call.result not in USUAL:
            return call.result
        if call.lost_s is None or call.api == "Fetch" or (call.program, call.lost_s) in self._ends_s:
            return ""
        return "no answer, the connection ended"

    def failures(self, calls: Iterable[Call], weight: int = 0) -> list[Line]:
        """A line for each call that failed, or for several that failed alike, by the time of the first."""
        lines: list[Line] = []
        # Of what fails alike: the line, the first call, how many there are, when the last one was sent.
        last: dict[tuple[str, str, str, str], tuple[Line, Call, int, float]] = {}
        for call in calls:
            why = self.failure(call)
            if not why:
                continue
            alike = call.program, call.api, call.node, why
            before = last.get(alike)
            if before is None or call.sent_s - before[3] > TOGETHER_S:
                who = self.who(call.program, call.sent_s)
                lines.append(Line(call.sent_s, f"{who}: {self.call(call)}: {why}", weight))
                last[alike] = lines[-1], call, 1, call.sent_s
                continue
            line, first, count, _ = before
            who = self.who(call.program, call.sent_s)
            if who != self.who(call.program, first.sent_s):
                who = call.program
            line.text = (
                f"{who}: {call.api} to {call.node}: {why}, {count + 1} times until {seconds(call.sent_s)}"
            )
            last[alike] = line, first, count + 1, call.sent_s
        return lines

    def remarks(self, remarks: Iterable[Remark], weight: int = 0) -> list[Line]:
        """A line for each; elections of the same moment are one."""
        lines: list[Line] = []
        elected: dict[tuple[float, str], tuple[Line, list[str]]] = {}
        for remark in remarks:
            match = ELECTED.fullmatch(remark.text)
            if match is None:
                text = f"{remark.lane} {remark.text}" if remark.lane == WORLD else remark.text
                lines.append(Line(remark.at_s, text, weight))
                continue
            at = remark.at_s, match[1]
            if at not in elected:
                lines.append(Line(remark.at_s, remark.text, weight))
                elected[at] = lines[-1], [match[2]]
            else:
                line, partitions = elected[at]
                partitions.append(match[2])
                shown = ", ".join(sorted(partitions)[:PARTITIONS_MAX])
                more = len(partitions) - PARTITIONS_MAX
                line.text = f"{match[1]} leads {shown}" + (f" and {more} more" if more > 0 else "")
        return lines


def told(lines: Iterable[Line], lines_max: int, columns_max: int) -> list[str]:
    """The weightiest lines, by their time."""
    different = {(line.at_s, line.text): line for line in sorted(lines, key=lambda line: -line.weight)}
    kept = sorted(different.values(), key=lambda line: line.weight)[:lines_max]
    # Names and results come from programs: nothing in them begins a line, or changes a terminal.
    texts = [
        f"{seconds(line.at_s):>8}  {printable(line.text)}"
        for line in sorted(kept, key=lambda line: line.at_s)
    ]
    return [text if len(text) <= columns_max else f"{text[: columns_max - 1]}…" for text in texts]
