"""What a librdkafka producer sent, and what it heard of it, from its debug log (``debug=eos,msg``), and
whether records that are there twice are its own doing (pure).

librdkafka numbers a partition's messages from 1 on, in the order in which they are handed over, so that its
log says of each record in which batches it was sent. Where it hears OUT_OF_ORDER_SEQUENCE_NUMBER, it waits
for all answers, begins another epoch, and sends again what it has no acknowledgement of, in all partitions
(docs/decisions/0010-refused-batches.md). No broker can tell that from new records. It is excused where it is
proved: the log has the copies under different epochs, nobody acknowledged the first, and the gap that began
all that is one that the client made.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

from cluster_faults.logs import Batch

# A partition.
Where = tuple[str, int]

# Level, wall clock, subject, client, thread, and the text.
_LINE = re.compile(r"%\d\|(\d+\.\d+)\|(\w+)\|[^|]*\| \[thrd:[^\]]*\]: (.*)$")
_SENT = re.compile(
    r"\S+/(-?\d+): (\S+) \[(\d+)\]: Produce MessageSet with (\d+) message\(s\) "
    r"\(.*MsgId (\d+), BaseSeq (\d+), PID\{Id:(\d+),Epoch:(\d+)\}"
)
_HEARD = re.compile(
    r"\S+/(-?\d+): (\S+) \[(\d+)\]: MessageSet with (\d+) message\(s\) \(MsgId (\d+), BaseSeq (\d+)\) "
    r"(?:delivered|encountered error: (.*))$"
)
_GAP = re.compile(
    r"\S+/(-?\d+): ProduceRequest for (\S+) \[(\d+)\] with \d+ message\(s\) failed due to skipped sequence "
    r"numbers \(PID\{Id:(\d+),Epoch:(\d+)\}, base seq (\d+) > next seq \d+\)"
)
# Lines that tell what it makes of an answer.
_TURNS = frozenset({"IDEMPSTATE", "NEWPID", "IMPLICITACK", "ERRPID", "DUPSEQ", "UNKPID"})
_TURNS_OF_DRAIN = ("epoch bump", "bumped epoch")
# Lines of a story: beyond them it is too long for anybody.
_STORY_MAX = 60


class Sent(NamedTuple):
    """A batch on its way; ``first`` is the number of its first record."""

    text: str
    node: int
    where: Where
    first: int
    count: int
    producer_id: int
    epoch: int
    base_sequence: int

    def has(self, number: int) -> bool:
        return self.first <= number < self.first + self.count


class Heard(NamedTuple):
    """What became of a batch; ``error`` is empty where it was acknowledged."""

    text: str
    node: int
    where: Where
    first: int
    count: int
    base_sequence: int
    error: str

    def is_of(self, sent: Sent) -> bool:
        """Whether it is of that batch, or, in another epoch, of the same records with the same numbers."""
        return self.where == sent.where and self[3:6] == (sent.first, sent.count, sent.base_sequence)


class Gap(NamedTuple):
    """The broker missed what comes before a batch, and the producer is going to begin another epoch."""

    text: str
    node: int
    where: Where
    producer_id: int
    epoch: int
    base_sequence: int


class Turn(NamedTuple):
    """Another line that tells why it does what it does next."""

    text: str


Event = Sent | Heard | Gap | Turn


def events_of(lines: Iterable[str]) -> list[Event]:
    """What a producer's debug log tells, in its order."""
    return [event for line in lines if (event := _event(line.rstrip("\n"))) is not None]


def _event(line: str) -> Event | None:
    parts = _LINE.match(line)
    if parts is None:
        return None
    _, subject, said = parts.groups()
    if subject == "PRODUCE" and (found := _SENT.match(said)):
        node, topic, partition, count, message, sequence, producer_id, epoch = found.groups()
        where = (topic, int(partition))
        first = int(message) - 1
        return Sent(line, int(node), where, first, int(count), int(producer_id), int(epoch), int(sequence))
    if subject == "MSGSET" and (found := _HEARD.match(said)):
        node, topic, partition, count, message, sequence, error = found.groups()
        where = (topic, int(partition))
        return Heard(line, int(node), where, int(message) - 1, int(count), int(sequence), error or "")
    if subject == "ERRSEQ" and (found := _GAP.match(said)):
        node, topic, partition, producer_id, epoch, sequence = found.groups()
        return Gap(line, int(node), (topic, int(partition)), int(producer_id), int(epoch), int(sequence))
    is_drain = subject == "DRAIN" and any(word in said for word in _TURNS_OF_DRAIN)
    return Turn(line) if is_drain or subject in _TURNS else None


def objection(
    events: Sequence[Event],
    where: Where,
    number: int,
    copies: Sequence[Batch],
    logs: Mapping[Where, Sequence[Batch]],
) -> str:
    """Why it is not its producer's doing alone that a record is there in each of ``copies``, batches in the
    log's order; empty where it is."""
    for before, after in pairwise(copies):
        if before.producer_id != after.producer_id or before.producer_epoch >= after.producer_epoch:
            return "no later epoch of its producer"
        first, again = (_index(events, where, number, batch) for batch in (before, after))
        if first is None or again is None:
            missing = before if first is None else after
            return f"its producer did not send it in epoch {missing.producer_epoch}"
        sent = events[first]
        assert isinstance(sent, Sent)
        # Before it begins another epoch it waits for all answers.
        heard = (event for event in events[first:again] if isinstance(event, Heard) and event.is_of(sent))
        if any(not event.error for event in heard):
            return "the first copy had been acknowledged"
        for epoch in range(before.producer_epoch, after.producer_epoch):
            why = _objection_to_epoch(events, before.producer_id, epoch, logs)
            if why:
                return why
    return ""


def _index(events: Sequence[Event], where: Where, number: int, batch: Batch) -> int | None:
    """Where a producer first sent a record in a batch."""
    wanted = (where, batch.producer_id, batch.producer_epoch, batch.base_sequence, batch.count)
    for index, event in enumerate(events):
        if isinstance(event, Sent) and event.has(number):
            made = (event.where, event.producer_id, event.epoch, event.base_sequence, event.count)
            if made == wanted:
                return index
    return None


def _objection_to_epoch(
    events: Sequence[Event], producer_id: int, epoch: int, logs: Mapping[Where, Sequence[Batch]]
) -> str:
    """Why it may be the broker's fault that a producer ended an epoch; empty where it is not.

    What counts is the first gap that it heard of. It is the client's where the client knew that the batch
    before had been refused, or had sent it to another node only, and the log is without it.
    """
    mine = (
        index
        for index, event in enumerate(events)
        if isinstance(event, Gap) and (event.producer_id, event.epoch) == (producer_id, epoch)
    )
    index = next(mine, -1)
    if index < 0:
        return f"nothing tells why it ended epoch {epoch}"
    gap = events[index]
    assert isinstance(gap, Gap)
    missing = gap.base_sequence - 1
    for batch in logs.get(gap.where, ()):
        of_epoch = (batch.producer_id, batch.producer_epoch) == (producer_id, epoch)
        if of_epoch and batch.base_sequence <= missing < batch.base_sequence + batch.count:
            return f"a gap was found before sequence number {gap.base_sequence} where the log has none"
    return "" if _is_clients(events[:index], gap) else f"node {gap.node} missed what it was sent: {gap.text}"


def _is_clients(events: Sequence[Event], gap: Gap) -> bool:
    """Whether the batch before a gap was not on its way to the same node when the one behind it was sent."""
    sent = [
        (index, event)
        for index, event in enumerate(events)
        if isinstance(event, Sent)
        and (event.where, event.producer_id, event.epoch) == (gap.where, gap.producer_id, gap.epoch)
    ]
    behind = [at for at, event in sent if event.base_sequence == gap.base_sequence and event.node == gap.node]
    if not behind:
        return False
    missing = gap.base_sequence - 1
    before = [
        (at, event)
        for at, event in sent
        if at < behind[-1] and event.base_sequence <= missing < event.base_sequence + event.count
    ]
    if not before:
        return False
    at, last = before[-1]
    if last.node != gap.node:
        return True
    heard = [e for e in events[at : behind[-1]] if isinstance(e, Heard) and e.is_of(last) and e.error]
    return bool(heard)


def story(events: Sequence[Event], where: Where, number: int, copies: Sequence[Batch]) -> list[str]:
    """All that is known of a record that is there several times, for a person."""
    gaps = [event for event in events if isinstance(event, Gap)]
    lines = [event.text for event in events if _concerns(event, where, number, gaps)]
    more = len(lines) - _STORY_MAX
    told = [f"  in the log: {batch}" for batch in copies] + [f"  {line}" for line in lines[:_STORY_MAX]]
    return told + ([f"  … and {more} more"] if more > 0 else [])


def _concerns(event: Event, where: Where, number: int, gaps: Sequence[Gap]) -> bool:
    """Whether an event is of a record, or of a batch beside a gap, or tells why what came next did."""
    if isinstance(event, Gap | Turn):
        return True
    if event.where == where and event.first <= number < event.first + event.count:
        return True
    ends = (event.base_sequence, event.base_sequence + event.count)
    return any(event.where == gap.where and gap.base_sequence in ends for gap in gaps)
