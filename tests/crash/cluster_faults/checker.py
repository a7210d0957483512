"""What must hold of a history, whatever failed meanwhile (pure). A violation is a sentence for a person.

``patient`` producers live until they know what became of each record. What others sent and were not told of
may be there, once and in its place, or not. A record may be there again where it is proved that its producer
sent it again as a new one (sends.py).
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise

from cluster_faults.history import Commit, Committed, History, Stored, Stream
from cluster_faults.logs import Batch
from cluster_faults.sends import Where, objection, story

# So many violations of a kind are told in each partition; a broken run has thousands.
TOLD_MAX = 5


def check(
    history: History,
    patient: Sequence[str],
    groups: Sequence[str],
    doubtful: Sequence[tuple[float, float]] = (),
) -> list[str]:
    """All that is wrong, most telling first.

    ``doubtful``: times in which a node that was cut off or paused may not know yet that another coordinates
    its groups. As in Kafka it shows whoever asks for committed offsets those that it knows of, then: an older
    state, never one that was not. It can commit nothing, and nobody can join a group there.
    """
    found = [f"trouble: {what}" for what in history.trouble]
    for where in history.stored:
        found += _few(_check_offsets(where, history.stored[where]))
    for stream in sorted(history.sent):
        found += _few(_check_acked(stream, history))
        found += _few(_check_once(stream, history))
        found += _few(_check_order(stream, history))
        if stream[0] in patient:
            found += _few(_check_all_acked(stream, history))
    for where in history.stored:
        found += _few(_check_reads(where, history))
        for group in groups:
            found += _few(_check_all_read(where, group, history))
    for stream in history.committed:
        found += _few(_check_committed(stream, history, doubtful))
    return found


def _few(violations: Iterable[str]) -> list[str]:
    found = list(violations)
    more = len(found) - TOLD_MAX
    return found[:TOLD_MAX] + ([f"… and {more} more like that"] if more > 0 else [])


def _name(where: Where) -> str:
    return f"{where[0]}-{where[1]}"


def _of(stream: Stream, history: History) -> list[Stored]:
    """What a producer has in a partition, in the log's order."""
    producer, *where = stream
    return [record for record in history.stored.get((where[0], where[1]), ()) if record.producer == producer]


def _check_offsets(where: Where, stored: Sequence[Stored]) -> Iterator[str]:
    """Offsets begin at 0 and have no gap."""
    for expected, record in enumerate(stored):
        if record.offset != expected:
            yield f"{_name(where)}: offset {expected} is missing, {record.offset} comes next"
            return


def _check_acked(stream: Stream, history: History) -> Iterator[str]:
    """What was acknowledged is there, where the acknowledgement said."""
    producer, *_ = stream
    name = _name(stream[1:])
    places: dict[int, list[int]] = defaultdict(list)
    for record in _of(stream, history):
        places[record.number].append(record.offset)
    for ack in history.acked[stream]:
        found = places.get(ack.number)
        what = f"{name}: record {ack.number} of {producer}, acknowledged at {ack.acked_s:.3f}"
        if not found:
            yield f"LOST {what} with offset {ack.offset}, handed over at {ack.handed_over_s:.3f}"
        elif ack.offset >= 0 and ack.offset not in found:
            yield f"MOVED {what} with offset {ack.offset}, is at {found}"


def _check_once(stream: Stream, history: History) -> Iterator[str]:
    producer, *_ = stream
    name = _name(stream[1:])
    resent = resent_by(stream, history)
    for number, offsets in _places(stream, history).items():
        if len(offsets) > 1 and not set(offsets[1:]) <= resent.keys():
            yield "\n".join(
                [
                    f"TWICE {name}: record {number} of {producer} is at {offsets}: "
                    f"{_objection(stream, history, number, offsets)}",
                    *_story(stream, history, number, offsets),
                ]
            )
        if number >= history.sent[stream]:
            yield f"INVENTED {name}: record {number} of {producer}, which was never sent, is at {offsets}"


def with_copies(history: History) -> set[str]:
    """The producers of which a record is there more than once."""
    return {
        stream[0]
        for stream in history.sent
        if any(len(offsets) > 1 for offsets in _places(stream, history).values())
    }


def resent_by(stream: Stream, history: History) -> dict[int, int]:
    """The offsets of records that a producer has sent again as new ones, with those of their first copies."""
    found: dict[int, int] = {}
    known: dict[tuple[Batch, ...], str] = {}
    for number, offsets in _places(stream, history).items():
        if len(offsets) == 1:
            continue
        copies = tuple(_batches_at(stream, history, offsets))
        if copies not in known:
            known[copies] = _objection(stream, history, number, offsets)
        if not known[copies]:
            found |= dict.fromkeys(offsets[1:], offsets[0])
    return found


def _places(stream: Stream, history: History) -> dict[int, list[int]]:
    places: dict[int, list[int]] = defaultdict(list)
    for record in _of(stream, history):
        places[record.number].append(record.offset)
    return places


def _batches_at(stream: Stream, history: History, offsets: Iterable[int]) -> list[Batch]:
    _, topic, partition = stream
    batches = history.batches.get((topic, partition), [])
    at = [bisect_right(batches, offset, key=lambda batch: batch.base_offset) - 1 for offset in offsets]
    return [batches[index] for index in at if index >= 0]


def _objection(stream: Stream, history: History, number: int, offsets: Sequence[int]) -> str:
    producer, topic, partition = stream
    copies = _batches_at(stream, history, offsets)
    if producer not in history.events or len(copies) < len(offsets):
        return "nothing is known of what its producer sent"
    return objection(history.events[producer], (topic, partition), number, copies, history.batches)


def _story(stream: Stream, history: History, number: int, offsets: Sequence[int]) -> list[str]:
    producer, topic, partition = stream
    copies = _batches_at(stream, history, offsets)
    return story(history.events.get(producer, []), (topic, partition), number, copies)


def _check_order(stream: Stream, history: History) -> Iterator[str]:
    """Records are in the order in which they were sent, none left out before one that is there."""
    resent = resent_by(stream, history)
    stored = [record for record in _of(stream, history) if record.offset not in resent]
    for before, after in pairwise(stored):
        if after.number != before.number + 1:
            yield (
                f"ORDER {_name(stream[1:])}: after record {before.number} of {stream[0]} at {before.offset} "
                f"comes {after.number} at {after.offset}"
            )


def _check_all_acked(stream: Stream, history: History) -> Iterator[str]:
    """A patient producer was told of each record in the end."""
    for failure in history.failed[stream]:
        # A producer without a time limit is told of an error only where there is no hope.
        yield f"FAILED {_name(stream[1:])}: record {failure.number} of {stream[0]}: {failure.error}"
    acked = {ack.number for ack in history.acked[stream]}
    for number in range(history.sent[stream]):
        if number not in acked:
            yield f"SILENCE {_name(stream[1:])}: nobody knows what became of {number} of {stream[0]}"


def _check_reads(where: Where, history: History) -> Iterator[str]:
    """No offset showed anybody another record than the one that is there."""
    there = {record.offset: record.hash for record in history.stored[where]}
    for read in history.reads[where]:
        if there.get(read.offset) != read.hash:
            yield (
                f"CHANGED {_name(where)}: {read.member} of {read.group} read {read.hash:08x} at "
                f"{read.offset}, where there is {there.get(read.offset, 0):08x}"
            )


def _check_all_read(where: Where, group: str, history: History) -> Iterator[str]:
    """The members of a group saw everything, together."""
    seen = {read.offset for read in history.reads[where] if read.group == group}
    for record in history.stored[where]:
        if record.offset not in seen:
            yield f"UNSEEN {_name(where)}: nobody of {group} read offset {record.offset}"


def _check_committed(
    stream: Stream, history: History, doubtful: Sequence[tuple[float, float]]
) -> Iterator[str]:
    """A committed offset is one that somebody committed, and never less than one that was acknowledged, or
    seen, before one asked."""
    group, *_ = stream
    name = f"{group} in {_name(stream[1:])}"
    known: list[tuple[float, int, str]] = []
    for commit in history.commits.get(stream, ()):
        if not commit.error:
            known.append((commit.answered_s, commit.offset, f"{commit.member} committed"))
    looks = history.committed[stream]
    tried = {commit.offset for commit in history.commits.get(stream, ())} | {-1}
    known += [(look.answered_s, look.offset, f"{look.member} saw") for look in looks]
    known.sort()
    position, best = 0, (0.0, -1, "")
    for look in sorted(looks, key=lambda look: look.asked_s):
        while position < len(known) and known[position][0] < look.asked_s:
            best = max(best, known[position], key=lambda entry: entry[1])
            position += 1
        if look.offset not in tried:
            yield f"INVENTED {name}: {look.member} was told {look.offset}, which nobody committed"
        old = any(begin <= look.answered_s and look.asked_s <= end for begin, end in doubtful)
        if look.offset < best[1] and not old:
            yield (
                f"BACK {name}: {look.member} was told {look.offset} at {look.answered_s:.3f}, though "
                f"{best[2]} {best[1]} at {best[0]:.3f}{_explained(look, history.commits.get(stream, ()))}"
            )


def _explained(look: Committed, commits: Iterable[Commit]) -> str:
    """Who else tried to commit what was seen; it helps to see what went wrong."""
    tries = [c for c in commits if c.offset == look.offset]
    return "".join(f"; {c.member} tried that at {c.asked_s:.3f}: {c.error or 'acknowledged'}" for c in tries)


def told_of_resent(history: History) -> list[str]:
    """What producers sent again as new: a line for each stretch of records, and what led to the first."""
    lines: list[str] = []
    for stream in sorted(history.sent):
        resent = resent_by(stream, history)
        if not resent:
            continue
        producer, *_ = stream
        lines.append(
            f"{len(resent)} records of {producer} are in {_name(stream[1:])} twice, by its own doing: "
            f"{min(resent.values())} to {max(resent.values())} again at {min(resent)} to {max(resent)}"
        )
        offset, first = next(iter(resent.items()))
        number = next(record.number for record in _of(stream, history) if record.offset == first)
        lines += _story(stream, history, number, [first, offset])
    return lines


def summary(history: History) -> str:
    """The size of it, in a line."""
    records = sum(len(stored) for stored in history.stored.values())
    acked = sum(len(acks) for acks in history.acked.values())
    failed = sum(len(failures) for failures in history.failed.values())
    reads = sum(len(reads) for reads in history.reads.values())
    outcomes = Counter(bool(c.error) for commits in history.commits.values() for c in commits)
    looks = sum(len(looks) for looks in history.committed.values())
    return (
        f"{records} records in the logs, {acked} acknowledged, {failed} of unknown outcome; {reads} reads; "
        f"{outcomes[False]} commits acknowledged, {outcomes[True]} refused or unknown, {looks} looks at them"
    )
