"""Finding out what a log holds after a crash (Kafka's LogLoader and LogSegment.recover).

Every byte from the segment of the recovery point on is looked at. Behind the recovery point the
longest valid prefix is kept: the log is truncated at the first batch that is torn or damaged, and the
segments after it are removed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ottla.log.epochs import LeaderEpochs
from ottla.log.markers import marker_of
from ottla.log.producers import Producers
from ottla.log.segment import Segment
from ottla.log.settings import LONG_MAX
from ottla.log.snapshots import Snapshots
from ottla.log.transaction_index import AbortedTransaction, TransactionIndex
from ottla.log.transactions import Completed
from ottla.log.walking import Gap, salvage
from ottla.wire.records import LENGTH_OVERHEAD_BYTES


class Recovered(NamedTuple):
    """What recovery did to a segment: bytes that it cut off, and bytes of damage that it left; and the
    transactions whose abort markers are in it."""

    cut_bytes: int
    damaged_bytes: int
    aborted: TransactionIndex


def recover_segment(
    segment: Segment,
    producers: Producers,
    epochs: LeaderEpochs,
    interval: int,
    *,
    synced_offset: int,
    is_last: bool,
) -> Recovered:
    """Rebuild a segment's indexes and what follows from its batches; cut it where a crash has torn it.

    From ``synced_offset`` on that is behind the first batch that no valid one follows. What is before it had
    been synced, so that a crash has taken nothing: where that is damaged the disk did it, and batches behind
    it are kept. ``producers`` must be the state at the segment's start; on return its ``end_offset`` is where
    the segment ends.
    """
    hints = segment.index_positions()
    segment.reset()
    segment.drop_index_files()
    end = damaged = 0
    aborted = TransactionIndex()
    file = segment.file
    size = file.size()
    for found in salvage(file, size, segment.base_offset, hints):
        synced = producers.end_offset < synced_offset
        if isinstance(found, Gap):
            if not synced or (found.end == size and is_last):
                break
            segment.tell_damage(found.position, found.end)
            damaged += found.end - found.position
            continue
        header, position, batch = found
        if position != end:
            segment.index_behind_damage(header, position)
        if not synced and 0 <= header.partition_leader_epoch < epochs.latest:
            # Epochs only grow: a batch of an earlier one is what a truncation had cut off, and a loss of
            # power brought back behind what was written in its place.
            break
        end = position + header.length + LENGTH_OVERHEAD_BYTES
        segment.note((header,), position, interval)
        if header.partition_leader_epoch > epochs.latest:
            epochs.assign(header.partition_leader_epoch, header.base_offset)
        note_aborted(aborted, producers.update(header, marker_of(header, batch)))
    segment.truncate_to_position(end)
    if size != end:
        # What was cut must not come back with the next loss of power.
        file.sync()
    segment.seal()
    return Recovered(size - end, damaged, aborted)


def note_aborted(aborted: TransactionIndex, completed: Completed | None) -> None:
    """Take a transaction that ended in a segment into its index, if it was aborted."""
    if completed is not None and completed.is_aborted:
        aborted.append(AbortedTransaction(*completed[:-1]))


def replay_producers(
    segment: Segment, producers: Producers, end_offset: int, aborted: TransactionIndex | None = None
) -> None:
    """Bring producer state forward over a segment, up to the batch that begins at ``end_offset``; take the
    transactions that were aborted on the way into ``aborted``."""
    for header, position in segment.surviving_headers(producers.end_offset):
        if header.base_offset >= end_offset:
            return
        if header.last_offset < producers.end_offset:
            continue
        batch = segment.file.read(position, header.size) if header.is_control else None
        completed = producers.update(header, marker_of(header, batch))
        if aborted is not None:
            note_aborted(aborted, completed)


def replay(segments: Sequence[Segment], producers: Producers, offset: int) -> None:
    """Bring producer state forward from where it stands to ``offset``, reading headers."""
    for number, segment in enumerate(segments):
        last = number + 1 == len(segments)
        if segment.base_offset >= offset or producers.end_offset >= offset:
            break
        if last or segments[number + 1].base_offset > producers.end_offset:
            replay_producers(segment, producers, offset)
    producers.advance_to(offset)


def rebuild_aborted(segments: Sequence[Segment], number: int, snapshots: Snapshots) -> TransactionIndex:
    """The aborted transactions of a segment as its batches say, and those before it from the nearest snapshot
    on. Blocks; OSError where the disk fails."""
    segment, aborted = segments[number], TransactionIndex()
    producers = Producers(0, LONG_MAX)
    snapshots.load(producers, segment.base_offset, 0)
    producers.advance_to(max(producers.end_offset, segments[0].base_offset))
    replay(segments[:number], producers, segment.base_offset)
    replay_producers(segment, producers, LONG_MAX, aborted)
    return aborted
