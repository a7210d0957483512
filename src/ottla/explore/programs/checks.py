"""What programs between two topics must keep to: nothing lost, nothing twice, order, commits behind the work.

Each check compares what lies in topics after `World.settle`, and raises `Broken`, an AssertionError that
names the records. A check sees topics alone. A record that was never written to the first topic, since its
producer gave up, is no loss to it. An effect outside of Kafka (a mail, a row in a database) is not seen.
"""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from ottla.explore.world.machine import EPOCH_MS
from ottla.types import TopicPartition

if TYPE_CHECKING:
    # A program of the test's module that starts anew need not load a broker for it.
    from ottla.testing.contents import StoredCommit, StoredRecord

Identity = Callable[["StoredRecord"], Hashable]
# What a source becomes.
Results = Callable[["StoredRecord"], Iterable[Hashable]]
# Of what is wrong, so much is named.
NAMED_MAX = 10
NEVER_MS = 2**63
# The checks of sources that were made here, "nothing_lost at test_shop.py:64": whether any had a source.
made: dict[str, bool] = {}


class Broken(AssertionError):
    """A check does not hold. ``records`` are those that it is about, all of them."""

    def __init__(self, message: str, records: Sequence[StoredRecord] = ()) -> None:
        super().__init__(message)
        self.records = tuple(records)


def by_value(record: StoredRecord) -> Hashable:
    """Two records are the same if their values are."""
    return record.value


def by_key(record: StoredRecord) -> Hashable:
    """Two records are the same if their keys are."""
    return record.key


def nothing_lost(
    sources: Iterable[StoredRecord],
    targets: Iterable[StoredRecord],
    by: Identity = by_value,
    becomes: Results | None = None,
) -> None:
    """Each record of the first topic has its result in the second, however often: at least once.

    ``becomes`` says what a source becomes, as ``by`` says it of the targets: several results, or none where
    the program leaves it out. Without it a result is the same as its source. Whether the rest of a result is
    right is not seen.
    """
    sources = _kept(sources)
    there = {by(record) for record in targets}
    lost = [record for record in sources if not there.issuperset(_results(record, by, becomes))]
    if lost:
        raise Broken(f"{_records(len(lost))} lost: {_named(lost)}", lost)


def nothing_twice(records: Iterable[StoredRecord], by: Identity = by_value) -> None:
    """No two records of a topic are the same.

    Two records that a program meant to be two are one to this check, if ``by`` does not tell them apart.
    """
    kept = list(records)
    counts = Counter(map(by, kept))
    twice = [record for record in kept if counts[by(record)] > 1]
    if twice:
        several = len({by(record) for record in twice})
        raise Broken(f"{_records(several)} there more than once: {_named(twice)}", twice)


def nothing_else(
    sources: Iterable[StoredRecord],
    targets: Iterable[StoredRecord],
    by: Identity = by_value,
    becomes: Results | None = None,
) -> None:
    """Each record of the second topic is the result of one in the first: nothing comes from nowhere.

    So a program shows that has read what was never committed. ``becomes`` is as for `nothing_lost`.
    """
    sources = _kept(sources)
    wanted = {result for record in sources for result in _results(record, by, becomes)}
    others = [record for record in targets if by(record) not in wanted]
    if others:
        raise Broken(f"{_records(len(others))} of no source: {_named(others)}", others)


def exactly_once(
    sources: Iterable[StoredRecord],
    targets: Iterable[StoredRecord],
    by: Identity = by_value,
    becomes: Results | None = None,
) -> None:
    """Each record of the first topic has its result in the second once, and there is nothing else.

    This is what a program keeps to that reads, writes and commits in one transaction. Sources that are the
    same are one. ``becomes`` is as for `nothing_lost`.
    """
    kept, found = _kept(sources), list(targets)
    nothing_lost(kept, found, by, becomes)
    nothing_twice(found, by)
    nothing_else(kept, found, by, becomes)


def in_order(
    records: Iterable[StoredRecord],
    number: Callable[[StoredRecord], Any],
    key: Identity = by_key,
    *,
    repeats: bool = False,
) -> None:
    """Of each key, all in one partition, the numbers rise or stay the same from offset to offset.

    ``repeats``: a number that the key had before may come again, as from a program that goes back to its last
    commit: of each number the first one counts. What is missing between two numbers is not seen.
    """
    kept = sorted(records, key=lambda record: (record.partition, record.offset))
    last: dict[Hashable, StoredRecord] = {}
    had: set[Hashable] = set()
    for record in kept:
        before = last.get(key(record))
        if before is not None and before.partition != record.partition:
            raise Broken(f"one key in two partitions: {_named((before, record))}", (before, record))
        if repeats and (key(record), number(record)) in had:
            continue
        had.add((key(record), number(record)))
        if before is not None and number(record) < number(before):
            raise Broken(f"out of order: {_named((before, record))}", (before, record))
        last[key(record)] = record


def commits_behind(
    topic: str,
    sources: Iterable[StoredRecord],
    committed: Mapping[TopicPartition, int],
    targets: Iterable[StoredRecord],
    by: Identity = by_value,
) -> None:
    """No record below an offset that is committed now is without its result.

    How it was before is not seen: see `commits_always_behind`.
    """
    sources = _kept(sources)
    below = [r for r in sources if r.offset < committed.get(TopicPartition(topic, r.partition), 0)]
    there = {by(record) for record in targets}
    ahead = [record for record in below if by(record) not in there]
    if ahead:
        raise Broken(f"{_records(len(ahead))} committed, and not processed: {_named(ahead)}", ahead)


def commits_always_behind(
    topic: str,
    sources: Iterable[StoredRecord],
    commits: Iterable[StoredCommit],
    targets: Iterable[StoredRecord],
    by: Identity = by_value,
) -> None:
    """At no time an offset was committed with records below it whose results were not yet sent.

    It finds a program that commits ahead of its work although nobody has killed it in between. ``commits``
    are all that a group has made (`World.commits`). The time of a result is its timestamp, that of its first
    send, so it is not seen that a program does not wait until its result is acknowledged: `nothing_lost`
    sees that, if the result is lost. Timestamps that a program makes up mislead it.
    """
    sources = _kept(sources)
    sent_ms: dict[Hashable, int] = {}
    for record in targets:
        identity = by(record)
        sent_ms[identity] = min(record.timestamp_ms, sent_ms.get(identity, record.timestamp_ms))
    of_partition: dict[int, list[StoredRecord]] = {}
    for record in sources:
        of_partition.setdefault(record.partition, []).append(record)
    for commit in commits:
        if commit.topic != topic:
            continue
        below = (r for r in of_partition.get(commit.partition, ()) if r.offset < commit.committed)
        ahead = [record for record in below if sent_ms.get(by(record), NEVER_MS) > commit.timestamp_ms]
        if ahead:
            raise Broken(
                f"{_records(len(ahead))} committed before their results were sent, by the commit of"
                f" {commit.committed} in partition {commit.partition}: {_named(ahead)}",
                ahead,
            )


def no_standstill(times_s: Iterable[float], begin_s: float, end_s: float, most_s: float) -> None:
    """Between ``begin_s`` and ``end_s`` no gap between two times of progress is longer than ``most_s``.

    The times are those of results (`times_s`), the bounds come from `World.now_s`: around `World.run` for
    progress while faults strike, from `World.settle` on for progress after them. That a program works, and
    repeats its work, is progress to this check if its results are records.
    """
    inside = sorted(time_s for time_s in times_s if begin_s <= time_s <= end_s)
    points = [begin_s, *inside, end_s]
    for before_s, after_s in pairwise(points):
        if after_s - before_s > most_s:
            raise Broken(f"no progress for {after_s - before_s:.1f} s, from {before_s:.1f} s on")


def times_s(records: Iterable[StoredRecord]) -> list[float]:
    """When records were sent, by their timestamps, in virtual seconds since a simulated run began."""
    return [(record.timestamp_ms - EPOCH_MS) / 1000 for record in records]


def _kept(sources: Iterable[StoredRecord]) -> list[StoredRecord]:
    """All of them. It is noted for which check, and whether there are any: a check of nothing holds."""
    kept = list(sources)
    check = sys._getframe(1)
    while check.f_back is not None and check.f_back.f_code.co_filename == __file__:
        check = check.f_back
    user = check.f_back
    where = "?" if user is None else f"{os.path.basename(user.f_code.co_filename)}:{user.f_lineno}"
    name = f"{check.f_code.co_name} at {where}"
    made[name] = made.get(name, False) or bool(kept)
    return kept


def _results(record: StoredRecord, by: Identity, becomes: Results | None) -> Iterable[Hashable]:
    return (by(record),) if becomes is None else becomes(record)


def _records(count: int) -> str:
    return f"{count} record is" if count == 1 else f"{count} records are"


def _named(records: Sequence[StoredRecord]) -> str:
    """The first of them, by partition and offset, with key and value."""
    shown = [f"{r.partition}@{r.offset} {_text(r.key)}={_text(r.value)}" for r in records[:NAMED_MAX]]
    more = len(records) - NAMED_MAX
    return ", ".join(shown) + (f" and {more} more" if more > 0 else "")


def _text(data: bytes | None) -> str:
    if data is None:
        return "null"
    text = data[:40].decode(errors="backslashreplace")
    return repr(text) + ("…" if len(data) > 40 else "")
