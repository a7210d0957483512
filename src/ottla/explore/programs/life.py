"""The life of a record in a run: who sent it, read it, committed its offset, and wrote what came of it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from ottla.explore.recording.phrases import commits, fate, offsets, often, refusal
from ottla.explore.recording.recording import NETWORK, TEXT_MAX, Kind, Read, Recording, Span, Written
from ottla.explore.recording.words import Line, Words
from ottla.testing.contents import StoredRecord

STORE = "store"
# What comes so soon before or after what became of a record may have to do with it.
NEAR_S = 3.0
# Of what happens to a record again and again, the first few are told.
AGAIN_MAX = 4
# Of a record's key and value so many characters are shown.
SHOWN_MAX = 24
# How much it has to do with the record: its life, what its programs heard meanwhile, faults, leaders.
LIFE, FAILURES, FAULTS, LEADERS = range(4)

# The requests whose answers say which partitions a member of a group has.
GIVING = frozenset({"SyncGroup", "ConsumerGroupHeartbeat"})
FETCHED_FROM = re.compile(r"(\S+)-(\d+) from (\d+)")


def shown(record: StoredRecord) -> str:
    """A record by its value, or its key where it has none."""
    data = record.key if record.value is None else record.value
    if data is None:
        return "a record of nothing"
    text = repr(data[: SHOWN_MAX + 1].decode(errors="backslashreplace"))
    return text if len(data) <= SHOWN_MAX else f"{text[:SHOWN_MAX]}…'"


class Life:
    """Of one record that a check is about; ``alike``: all that it is about, perhaps its copies among them."""

    def __init__(
        self, recording: Recording, words: Words, record: StoredRecord, alike: Sequence[StoredRecord]
    ) -> None:
        self._recording = recording
        self._words = words
        self._record = record
        self._alike = [one for one in alike if (one.key, one.value) == (record.key, record.value)]
        self._by_value = [one for one in recording.written if self._has_value(one)]
        self._copies = self._by_value
        self.topic = self._home()
        by_key = [one for one in recording.written if self._has_key(one)]
        if all(one.topic != self.topic or self._has_value(one) for one in by_key):
            # Its key is its own, so what came of it may have that and another value.
            self._copies = [one for one in recording.written if self._has_value(one) or self._has_key(one)]
        self._sources, self._results = self._parted()
        # The programs that it went through, with their processes.
        self._through: set[tuple[str, int]] = set()
        self._was_read = False

    # ------------------------------------------------------------ which records

    def _has_value(self, one: Written) -> bool:
        value, key = self._record.value, self._record.key
        if value is None:
            return one.value is None and one.key == (None if key is None else key[:TEXT_MAX])
        return one.value == value[:TEXT_MAX]

    def _has_key(self, one: Written) -> bool:
        key = self._record.key
        return key is not None and one.key == key[:TEXT_MAX]

    def _home(self) -> str:
        """The topic that it lies in; empty where nobody is seen to have sent it."""
        place = self._record.partition, self._record.offset
        for one in self._by_value:
            if (one.partition, one.offset) == place:
                return one.topic
        # Its sender may have got no answer.
        unanswered = (one.topic for one in self._by_value if one.partition == place[0] and not one.result)
        return next(unanswered, "")

    def _parted(self) -> tuple[list[Written], list[Written]]:
        """The record that programs read, as it was sent, and what those that read it wrote elsewhere."""
        first_s: dict[str, float] = {}
        for one in self._copies:
            first_s.setdefault(one.topic, one.sent_s)
        source = min(first_s, key=lambda topic: first_s[topic], default=self.topic)
        here = {(self.topic, one.partition, one.offset) for one in (self._record, *self._alike)}
        sources, results = [], []
        places: set[tuple[str, int, int | None]] = {*here}
        for one in self._copies:
            place = one.topic, one.partition, one.offset
            if one.topic == source:
                # At another offset it is another record, unless the check is about a copy of it elsewhere.
                if source != self.topic or (self._has_value(one) and (one.offset is None or place in here)):
                    sources.append(one)
                    places.add(place)
            elif place in here or self._comes_of(one, places):
                results.append(one)
                places.add(place)
        return sources, results

    def _comes_of(self, one: Written, places: set[tuple[str, int, int | None]]) -> bool:
        """Whether the process that wrote it had read one of these."""
        run = self._words.run_of(one.program, one.sent_s)
        return any(
            read.program == one.program
            and read.at_s <= one.sent_s
            and self._words.run_of(read.program, read.at_s) == run
            and any(
                (topic, partition) == (read.topic, read.partition)
                and offset is not None
                and read.first_offset <= offset <= read.last_offset
                for topic, partition, offset in places
            )
            for read in self._recording.read
        )

    # ------------------------------------------------------------ lines

    def lines(self) -> list[Line]:
        """All that is known of it."""
        lines = [*self._writings(self._sources), *self._writings(self._results)]
        for topic, partition, offset in dict.fromkeys(self._places()):
            lines += self._readings(topic, partition, offset)
            lines += self._commits(topic, partition, offset)
        if not self._results and self._was_read:
            what = "key or value" if self._record.key is not None else "value"
            text = f"the run ends, and no program that read it has written a record with this {what}"
            lines.append(Line(self._recording.end_s, text))
        moments_s = [line.at_s for line in lines]
        lines += self._ends(moments_s)
        lines += self._members(moments_s)
        lines += self._surroundings(moments_s)
        return lines

    def _is_read(self) -> bool:
        """Whether programs read what it lies in at all."""
        topics = {self.topic, *(one.topic for one in self._sources)}
        return any(one.topic in topics for one in self._recording.read)

    def _places(self) -> Iterator[tuple[str, int, int]]:
        """Where the record lies that programs read: topic, partition, offset."""
        for one in self._sources:
            if one.offset is not None:
                yield one.topic, one.partition, one.offset
        if not self._results and self.topic:
            yield self.topic, self._record.partition, self._record.offset

    def _writings(self, entries: Iterable[Written]) -> Iterator[Line]:
        last: tuple[str, Line, int] | None = None
        for one in entries:
            self._goes_through(one.program, one.sent_s)
            who = self._words.who(one.program, one.sent_s)
            text = f"{who} sends {shown(self._record)} to {one.topic}-{one.partition}: {fate(one)}"
            if last is not None and last[0] == text:
                count = last[2] + 1
                last[1].text = text + often(count, one.sent_s)
                last = text, last[1], count
            else:
                line = Line(one.sent_s, text, LIFE)
                last = text, line, 1
                yield line

    def _readings(self, topic: str, partition: int, offset: int) -> Iterator[Line]:
        of = [one for one in self._recording.read if (one.topic, one.partition) == (topic, partition)]
        covering = [one for one in of if one.first_offset <= offset <= one.last_offset]
        self._was_read = self._was_read or bool(covering)
        for one in covering[:AGAIN_MAX]:
            self._goes_through(one.program, one.at_s)
            yield Line(one.at_s, f"{self._words.who(one.program, one.at_s)} reads it: {offsets(one)}", LIFE)
        last_s = covering[-1].at_s if covering else self._sent_s(topic)
        for one in of:
            if one.first_offset > offset and one.at_s > last_s and self._run(one) not in self._through:
                who = self._words.who(one.program, one.at_s)
                yield Line(one.at_s, f"{who} reads on behind it: {offsets(one)}", LIFE)
                break
        if not covering and self._is_read():
            yield from self._passes(topic, partition, offset, last_s)

    def _sent_s(self, topic: str) -> float:
        return min((one.sent_s for one in self._sources if one.topic == topic), default=0.0)

    def _passes(self, topic: str, partition: int, offset: int, since_s: float) -> Iterator[Line]:
        """Nobody has read it: whoever asks for what is behind it."""
        where = f"{topic}-{partition}"
        for call in self._recording.calls:
            if call.api != "Fetch" or call.sent_s < since_s:
                continue
            for name, index, begin in FETCHED_FROM.findall(call.about):
                if (name, int(index)) == (topic, partition) and int(begin) > offset:
                    self._goes_through(call.program, call.sent_s)
                    who = self._words.who(call.program, call.sent_s)
                    yield Line(
                        call.sent_s,
                        f"{who} reads {where} from offset {begin} on, and so never reads it",
                        LIFE,
                    )
                    return
        yield from self._still_failing(since_s)
        yield Line(
            self._recording.end_s, f"the run ends, and no program has read {where} offset {offset}", LIFE
        )

    def _still_failing(self, since_s: float) -> Iterator[Line]:
        """What other programs than its writers have asked for since then, and are refused to the end."""
        writers = {one.program for one in self._sources}
        calls = [
            call
            for call in self._recording.calls
            if call.sent_s >= since_s and call.program not in writers and self._words.failure(call)
        ]
        late = {
            (call.program, call.api, call.node)
            for call in calls
            if call.sent_s > self._recording.end_s - NEAR_S
        }
        refused = [call for call in calls if (call.program, call.api, call.node) in late]
        yield from self._words.failures(refused, LIFE)

    def _commits(self, topic: str, partition: int, offset: int) -> Iterator[Line]:
        """The first commit of each group that covers it, and those before that failed."""
        done: set[str] = set()
        failed: dict[tuple[str, str], tuple[Line, int]] = {}
        for one in self._recording.committed:
            if (one.topic, one.partition) != (topic, partition) or one.offset <= offset or one.group in done:
                continue
            who = self._words.who(one.program, one.at_s)
            text = f"{who} {commits(one)}"
            why = refusal(one)
            if not why:
                done.add(one.group)
                self._goes_through(one.program, one.at_s)
                yield Line(one.at_s, text, LIFE)
                continue
            line, count = failed.get((who, why), (None, 0))
            if line is None:
                line = Line(one.at_s, text, LIFE)
                yield line
            else:
                line.text = text + often(count + 1, one.at_s)
            failed[who, why] = line, count + 1

    def _run(self, read: Read) -> tuple[str, int]:
        return read.program, self._words.run_of(read.program, read.at_s)

    def _goes_through(self, program: str, at_s: float) -> None:
        self._through.add((program, self._words.run_of(program, at_s)))

    # ------------------------------------------------------------ around it

    def _ends(self, moments_s: Sequence[float]) -> Iterator[Line]:
        """How the processes that it went through ended, or stood still, soon after."""
        for span in self._recording.spans:
            if span.kind not in (Kind.DOWN, Kind.PAUSED):
                continue
            through = (span.lane, self._words.run_of(span.lane, span.begin_s)) in self._through
            if through and _is_near(span.begin_s, moments_s, 0, NEAR_S):
                yield Line(span.begin_s, self._words.span(span), LIFE)

    def _surroundings(self, moments_s: Sequence[float]) -> Iterator[Line]:
        programs = {program for program, _ in self._through}
        # Of these the result is told.
        sent = {(one.program, one.sent_s) for one in (*self._sources, *self._results)}
        calls = [
            call
            for call in self._recording.calls
            if call.program in programs
            and _is_near(call.sent_s, moments_s, NEAR_S, NEAR_S)
            and not (call.api == "Produce" and (call.program, call.sent_s) in sent)
        ]
        yield from self._words.failures(calls, FAILURES)
        lanes = programs | {call.node for call in calls} | {NETWORK, STORE}
        for span in self._recording.spans:
            if self._is_among(span, lanes) and self._concerns(span, programs, moments_s):
                yield Line(span.begin_s, self._words.span(span), FAULTS)
        where = {f" leads {one.topic}-{one.partition} " for one in (*self._sources, *self._results)}
        remarks = [
            remark
            for remark in self._recording.remarks
            if any(text in remark.text for text in where) and _is_near(remark.at_s, moments_s, NEAR_S, NEAR_S)
        ]
        yield from self._words.remarks(remarks, LEADERS)

    def _is_among(self, span: Span, lanes: set[str]) -> bool:
        """Whether what a fault names is all of these lanes, and no program with another one or the store."""
        names = set(re.findall(r"[^\s,]+", span.text)) & {*self._recording.lanes, STORE}
        programs = names.intersection(self._recording.lanes[self._recording.nodes :])
        return {span.lane, *names} <= lanes and not (programs and STORE in names) and len(programs) < 2

    def _members(self, moments_s: Sequence[float]) -> Iterator[Line]:
        """What members of its groups are given, where that has to do with the partitions that it lies in."""
        where = {f"{topic}-{partition}" for topic, partition, _ in self._places()}
        for call in self._recording.calls:
            if call.api in GIVING and call.answered_s is not None and call.result == "ok":
                group, _, given = call.about.partition(": ")
                if where.intersection(given.split(", ")) and _is_near(
                    call.answered_s, moments_s, NEAR_S, NEAR_S
                ):
                    who = self._words.who(call.program, call.sent_s)
                    yield Line(call.answered_s, f"{who} is given {given} ({group})", FAULTS)

    def _concerns(self, span: Span, programs: set[str], moments_s: Sequence[float]) -> bool:
        """Whether a span lasts or begins where something becomes of the record, and is not told of yet."""
        if span.kind is Kind.RUNS or (span.lane in programs and span.kind is not Kind.FAULT):
            return False
        end_s = self._recording.end_s if span.end_s is None else span.end_s
        lasts = any(span.begin_s <= moment_s <= end_s for moment_s in moments_s[:-1] or moments_s)
        return lasts or _is_near(span.begin_s, moments_s, NEAR_S, NEAR_S)


def _is_near(at_s: float, moments_s: Iterable[float], before_s: float, after_s: float) -> bool:
    return any(moment_s - before_s <= at_s <= moment_s + after_s for moment_s in moments_s)
