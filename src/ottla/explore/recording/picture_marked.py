"""The records that a failed check is about: where they are in a recording, and what became of them."""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from ottla.explore.recording.phrases import commits, fate, offsets, often, refusal
from ottla.explore.recording.picture_svg import shown
from ottla.explore.recording.recording import (
    TEXT_MAX,
    Committed,
    Kind,
    Read,
    Recording,
    Span,
    Written,
)
from ottla.explore.world.machine import EPOCH_MS
from ottla.testing.contents import StoredRecord

# Of so many records the steps are told.
TOLD_MAX = 3
# Of one record so many steps are told: the first ones and the last ones.
STEPS_MAX = 14
LAST_STEPS = 5
# Records with one value are one record that was written again; with so many, the value says nothing.
SAME_MAX = 12
# A program that ends so soon after it had to do with a record belongs to the record's steps.
NEAR_S = 3.0
# What is told of in the place of a machine.
RUN = "the run"
# So often is told that one program read a record.
READS_MAX = 3


class Place(NamedTuple):
    topic: str
    partition: int
    offset: int


class Step(NamedTuple):
    """Something that happened to a record, or to a program that had it."""

    at_s: float
    lane: str
    text: str
    # Where an arrow goes between the lane and the partition: "to" it, "from" it, or none.
    way: str = ""
    place: Place | None = None


@dataclass(frozen=True, slots=True)
class Told:
    """A record and its steps. ``places``: all where a record with its value lies."""

    name: str
    places: tuple[Place, ...]
    # Where it was sent to, with success or without.
    partitions: frozenset[tuple[str, int]]
    # The machines that had to do with it.
    lanes: tuple[str, ...]
    steps: tuple[Step, ...]
    # Whether there are others with its value.
    alike: str


@dataclass(frozen=True, slots=True)
class Marked:
    """``places``: of all records that the check is about. ``told``: the steps of the first of them."""

    places: frozenset[Place] = frozenset()
    told: tuple[Told, ...] = ()
    left_out: tuple[str, ...] = ()


def marked_of(recording: Recording, records: Sequence[StoredRecord]) -> Marked:
    by_place: dict[tuple[int, int], list[Written]] = {}
    by_value: dict[tuple[bytes | None, bytes | None], list[Written]] = {}
    for written in recording.written:
        by_value.setdefault((written.key, written.value), []).append(written)
        if written.offset is not None:
            by_place.setdefault((written.partition, written.offset), []).append(written)
    places, told, seen, missing = set[Place](), list[Told](), set[Place](), 0
    for record in records:
        found = _written_of(record, by_place.get((record.partition, record.offset), []))
        if found is None:
            missing += 1
            continue
        same = by_value[found.key, found.value] if found.value else [found]
        if len({one.offset for one in same}) > SAME_MAX:
            same = [found]
        there = {_place(one) for one in same if one.offset is not None}
        places |= there
        if _place(found) not in seen and len(told) < TOLD_MAX:
            told.append(_told(recording, found, same))
        seen |= there
    left_out = []
    if missing:
        left_out.append(f"{missing} of the records that the check is about: the recording does not have them")
    return Marked(frozenset(places), tuple(told), tuple(left_out))


def _at(step: Step) -> float:
    return step.at_s


def _place(written: Written) -> Place:
    assert written.offset is not None
    return Place(written.topic, written.partition, written.offset)


def _written_of(record: StoredRecord, candidates: Iterable[Written]) -> Written | None:
    """The one with this place and value; of several topics, the one that was sent when the record says so."""
    at_s = (record.timestamp_ms - EPOCH_MS) / 1000
    value = None if record.value is None else record.value[:TEXT_MAX]
    return min(
        (one for one in candidates if (one.value if one.value is None else one.value[:TEXT_MAX]) == value),
        key=lambda one: abs(one.sent_s - at_s),
        default=None,
    )


def _told(recording: Recording, found: Written, same: list[Written]) -> Told:
    places = tuple(dict.fromkeys(_place(one) for one in same if one.offset is not None))
    steps = _sends(same)
    for place in places:
        steps += _reads(recording.read, place)
        steps += _commits(recording.committed, place, min(one.sent_s for one in same))
    lanes = tuple(dict.fromkeys(step.lane for step in sorted(steps, key=_at)))
    is_read = any(step.way == "from" for step in steps)
    steps += _ends(recording, steps, same)
    steps += _nothing_more(recording, found, same, is_read=is_read)
    ordered = sorted(dict.fromkeys(steps), key=_at)
    if len(ordered) > STEPS_MAX:
        ordered = [*ordered[: STEPS_MAX - LAST_STEPS], *ordered[-LAST_STEPS:]]
    name = shown(found.value) if found.value is not None else f"key {shown(found.key)}"
    partitions = frozenset((one.topic, one.partition) for one in same)
    count = len(places)
    alike = f"{count} records have this value." if count > 1 else "No other record has this value."
    return Told(name, places, partitions, lanes, tuple(ordered), alike if found.value else "")


def _sends(same: Iterable[Written]) -> list[Step]:
    """A record is sent again and again until that succeeds: what has one outcome is one step."""
    steps: list[Step] = []
    groups: list[list[Written]] = []
    for one in same:
        last = groups[-1][-1] if groups else None
        if last is not None and one.offset is None and fate(last) == fate(one):
            groups[-1].append(one)
        else:
            groups.append([one])
    for group in groups:
        one = group[0]
        place = None if one.offset is None else _place(one)
        text = f"sends it to {one.topic}-{one.partition}: {fate(one, is_timed=True)}"
        text += often(len(group), group[-1].sent_s)
        steps.append(Step(one.sent_s, one.program, text, "to", place))
    return steps


def _reads(reads: Iterable[Read], place: Place) -> list[Step]:
    steps: list[Step] = []
    counts: dict[str, int] = {}
    for read in reads:
        if (read.topic, read.partition) != place[:2]:
            continue
        if not read.first_offset <= place.offset <= read.last_offset:
            continue
        counts[read.program] = counts.get(read.program, 0) + 1
        if counts[read.program] <= READS_MAX:
            steps.append(Step(read.at_s, read.program, f"reads it: {offsets(read)}", "from", place))
    return steps


def _commits(committed: Iterable[Committed], place: Place, since_s: float) -> list[Step]:
    """Of each group the first commit behind the record, and those that were refused before."""
    steps: list[Step] = []
    done: set[str] = set()
    refused: set[tuple[str, str]] = set()
    for one in sorted(committed, key=lambda one: one.at_s):
        if (one.topic, one.partition) != place[:2] or one.offset <= place.offset:
            continue
        if one.at_s < since_s or one.group in done:
            continue
        why = refusal(one)
        if not why:
            done.add(one.group)
        elif (one.program, why) in refused:
            continue
        refused.add((one.program, why))
        steps.append(Step(one.at_s, one.program, commits(one), "to", place))
    return steps


def _ends(recording: Recording, steps: Sequence[Step], same: Sequence[Written]) -> list[Step]:
    """What struck the programs while they had the record, and where they go on after it."""
    first_s, last_s = min(map(_at, steps)), max(map(_at, steps))
    partitions = {(one.topic, one.partition) for one in same}
    # A program has a record from when it reads it on, and while it has not heard of what it sent.
    had = [(step.lane, step.at_s, None) for step in steps if step.way == "from"]
    sent = [(one.program, one.sent_s, one.acknowledged_s) for one in same]
    struck: dict[str, list[Span]] = {}
    for span in recording.spans:
        if span.kind is Kind.RUNS or not first_s <= span.begin_s <= last_s + NEAR_S:
            continue
        if any(
            span.lane == lane and since_s <= span.begin_s and (until_s is None or span.begin_s <= until_s)
            for lane, since_s, until_s in (*had, *sent)
        ):
            struck.setdefault(span.lane, []).append(span)
    found = []
    for lane, spans in struck.items():
        for group in _in_vain(spans, [step.at_s for step in steps if step.lane == lane]):
            text = _struck(group[0]) + often(len(group), group[-1].begin_s)
            found.append(Step(group[0].begin_s, lane, text))
            end_s = group[-1].end_s
            if end_s is not None:
                found += _goes_on(recording, lane, end_s, partitions)
    return found


def _nothing_more(
    recording: Recording, found: Written, same: Iterable[Written], *, is_read: bool
) -> list[Step]:
    """That nobody has read it, or that nothing came of it, as the story says it."""
    topic = found.topic
    if not is_read:
        if all(read.topic != topic for read in recording.read):
            return []
        text = f"ends, and no program has read {topic}-{found.partition} offset {found.offset}"
        return [Step(recording.end_s, RUN, text)]
    by_key = [one for one in recording.written if found.key is not None and one.key == found.key]
    if any(one.topic == topic and one.value != found.value for one in by_key):
        # Its key is that of others, too.
        by_key = []
    if any(one.topic != topic for one in (*same, *by_key)):
        return []
    what = "value" if found.key is None else "key or value"
    text = f"ends, and no program that read it has written a record with this {what}"
    return [Step(recording.end_s, RUN, text)]


def _in_vain(spans: Sequence[Span], times_s: Sequence[float]) -> list[list[Span]]:
    """Those together between which a program did nothing with the record."""
    groups: list[list[Span]] = []
    for span in spans:
        last_s = groups[-1][-1].begin_s if groups else None
        if last_s is not None and not any(last_s < at_s < span.begin_s for at_s in times_s):
            groups[-1].append(span)
        else:
            groups.append([span])
    return groups


def _struck(span: Span) -> str:
    return span.text or {Kind.DOWN: "ends", Kind.PAUSED: "is paused"}.get(span.kind, "is struck by a fault")


def _goes_on(
    recording: Recording, lane: str, since_s: float, partitions: Container[tuple[str, int]]
) -> list[Step]:
    """The start of a program, and from which offset it then reads on where the record lies."""
    begun = next(
        (
            span
            for span in recording.spans
            if span.lane == lane and span.kind is Kind.RUNS and span.begin_s >= since_s
        ),
        None,
    )
    if begun is None:
        return [Step(since_s, lane, "goes on")]
    steps = [Step(begun.begin_s, lane, "starts again")]
    for read in recording.read:
        if read.at_s < begun.begin_s or read.program != lane:
            continue
        if (read.topic, read.partition) in partitions:
            first = Place(read.topic, read.partition, read.first_offset)
            steps.append(Step(read.at_s, read.program, f"reads on: {offsets(read)}", "from", first))
            break
    return steps


def close_up(recording: Recording, told: Told) -> Recording:
    """What of a recording has to do with a record, in the time of its steps and a little around it."""
    first_s, last_s = told.steps[0].at_s, told.steps[-1].at_s
    # The end of the run may be long after all else.
    done_s = max((step.at_s for step in told.steps if step.lane != RUN), default=last_s)
    around_s = max(0.04 * (done_s - first_s), 0.002)
    begin_s, end_s = first_s - around_s, last_s + around_s
    topics = told.partitions
    nodes = recording.lanes[: recording.nodes]
    lanes = [*nodes, *(lane for lane in recording.lanes[recording.nodes :] if lane in told.lanes)]

    def near(at_s: float) -> bool:
        return begin_s <= at_s <= end_s

    def overlaps(since_s: float, until_s: float | None) -> bool:
        return since_s <= end_s and (until_s is None or until_s >= begin_s)

    return replace(
        recording,
        lanes=lanes,
        spans=[
            one
            for one in recording.spans
            if overlaps(one.begin_s, one.end_s) and (one.lane in lanes or one.lane not in recording.lanes)
        ],
        calls=[
            one
            for one in recording.calls
            if one.program in told.lanes and overlaps(one.sent_s, one.answered_s or one.lost_s)
        ],
        written=[
            one for one in recording.written if near(one.sent_s) and (one.topic, one.partition) in topics
        ],
        read=[one for one in recording.read if near(one.at_s) and (one.topic, one.partition) in topics],
        committed=[
            one
            for one in _with_last_before(recording.committed, begin_s)
            if one.at_s <= end_s and (one.topic, one.partition) in topics
        ],
        remarks=[one for one in recording.remarks if near(one.at_s) and one.lane in lanes],
        end_s=end_s,
    )


def _with_last_before(commits: Iterable[Committed], begin_s: float) -> list[Committed]:
    """The commits from a time on, and of each group and partition where it stood until then."""
    before: dict[tuple[str, str, int], Committed] = {}
    after = []
    for one in commits:
        if one.at_s >= begin_s:
            after.append(one)
        elif one.result == "ok":
            before[one.group, one.topic, one.partition] = one
    return [*before.values(), *after]
