"""What happened in a run that failed, in twenty lines that a person can read."""

from __future__ import annotations

from collections.abc import Iterator

from ottla.explore.programs.checks import Broken
from ottla.explore.programs.life import Life
from ottla.explore.recording.recording import NOT_WANTED, Kind, Recording
from ottla.explore.recording.words import Line, Words, seconds, told
from ottla.testing.contents import StoredRecord

LINES_MAX = 20
COLUMNS_MAX = 110
# Whoever waits for records waits so long without anything being wrong.
FETCH_S = 30.0
# What consumers ask for whatever they do.
ALWAYS = frozenset({"Fetch", "Heartbeat", "Metadata", "ApiVersions"})
# Records that are told of where a check is about no more than these.
RECORDS_MAX = 2
# How it stood at the end; what happened before.
NOW, BEFORE = range(2)


def story_of(recording: Recording, error: BaseException) -> list[str]:
    """The life of the first record that a broken check is about; otherwise how it came to the end."""
    words = Words(recording)
    if isinstance(error, Broken) and error.records:
        different: dict[object, StoredRecord] = {}
        for one in error.records:
            different.setdefault((one.key, one.value), one)
        first = list(different.values())
        told_of = first if len(first) <= RECORDS_MAX else first[:1]
        lines = [line for one in told_of for line in Life(recording, words, one, error.records).lines()]
        if lines:
            return told(lines, LINES_MAX, COLUMNS_MAX)
    lines = [*_now(recording, words), *_before(recording, words)]
    return told(lines, LINES_MAX, COLUMNS_MAX)


def _now(recording: Recording, words: Words) -> Iterator[Line]:
    """How it stands at the end: who is down or cut off, and what every program waits for or did last."""
    for span in recording.spans:
        if span.end_s is None and span.kind is not Kind.RUNS:
            yield Line(span.begin_s, words.span(span), NOW)
    for lane in recording.lanes[recording.nodes :]:
        waits = list(_unanswered(recording, words, lane))
        yield from waits or _last_request(recording, words, lane)


def _unanswered(recording: Recording, words: Words, program: str) -> Iterator[Line]:
    who = words.who(program, recording.end_s)
    for call in recording.calls:
        if call.program != program or call.result == NOT_WANTED:
            continue
        if call.answered_s is not None or call.lost_s is not None:
            continue
        if call.api != "Fetch" or recording.end_s - call.sent_s > FETCH_S:
            text = f"{who} waits since {seconds(call.sent_s)} for {words.call(call)}"
            yield Line(recording.end_s, text, NOW)


def _last_request(recording: Recording, words: Words, program: str) -> Iterator[Line]:
    calls = [call for call in recording.calls if call.program == program]
    call = next((call for call in reversed(calls) if call.api not in ALWAYS), None)
    if call is not None:
        result = call.result or "no answer"
        text = f"{words.who(program, call.sent_s)} asks for the last time: {words.call(call)}: {result}"
        yield Line(call.sent_s, text, NOW)


def _before(recording: Recording, words: Words) -> list[Line]:
    """What happened, the last of it first."""
    first = {span.lane: span for span in reversed(recording.spans) if span.kind is Kind.RUNS}
    # What is down says when it starts again.
    spans = [span for span in recording.spans if span.kind is not Kind.RUNS or first[span.lane] is span]
    lines = words.spans(spans, BEFORE)
    lines += words.remarks(recording.remarks, BEFORE)
    lines += words.failures(recording.calls, BEFORE)
    return sorted(lines, key=lambda line: -line.at_s)
