"""Holding what lies beside a log against its batches: the checkpoint of epochs, and snapshots of producers.

The log is the truth. Only a few batches are read, so that a start is quick: those at the places that a file
names. Blocks; OSError where the disk fails.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from heapq import nlargest

from ottla.errors import KafkaError
from ottla.log.epochs import UNDEFINED_EPOCH, LeaderEpochs
from ottla.log.markers import marker_of
from ottla.log.producer_entry import ProducerEntry
from ottla.log.producers import Producers
from ottla.log.segment import Segment
from ottla.log.segment_file import ColdRead
from ottla.log.transaction_index import AbortedTransaction
from ottla.wire.records import BatchHeader

# So many of the latest epochs, and of the producers that wrote last, are looked up.
EPOCHS_TESTED_MAX = 4
PRODUCERS_TESTED_MAX = 2


def batch_at(segments: Sequence[Segment], offset: int) -> BatchHeader | None:
    """The first batch that ends at or after an offset; None where there is none, or damage is in the way."""
    for segment, following in zip(segments, (*segments[1:], None), strict=True):
        if following is None or following.base_offset > offset:
            for header, _ in segment.surviving_headers(offset):
                if header.last_offset >= offset:
                    return header
    return None


def last_of(segment: Segment) -> BatchHeader | None:
    """A segment's last batch; None where it has none. KafkaError and ColdRead where there is damage."""
    found = None
    for header, _ in segment.last_headers():
        found = header
    return found


def last_batch(segments: Sequence[Segment]) -> BatchHeader | None:
    """The last batch that can be read of the last segment that has any."""
    for segment in reversed(segments):
        try:
            found = segment.outlast(partial(last_of, segment))
        except (KafkaError, ColdRead):
            found = None
            for batch in segment.salvage(segment.index_positions()):
                found = batch.header
        if found is not None:
            return found
    return None


def agree(epochs: LeaderEpochs, segments: Sequence[Segment], last: BatchHeader | None) -> bool:
    """Whether the batches of these segments, of which ``last`` is the last, were written in these epochs.

    Epochs only grow: where the batches before and after each start are right, so are those between.
    """
    if last is None or last.partition_leader_epoch < 0:
        return True
    if epochs.epoch_at(last.base_offset) != last.partition_leader_epoch:
        return False
    entries = [entry for entry in epochs.entries if entry[1] <= last.last_offset]
    before = entries[: -EPOCHS_TESTED_MAX or None][-1:] if len(entries) > EPOCHS_TESTED_MAX else []
    tested = entries[-EPOCHS_TESTED_MAX:]
    previous_epoch = before[0][0] if before else UNDEFINED_EPOCH
    for epoch, start in tested:
        first = segments[0].base_offset
        header = batch_at(segments, start) if start > first else _first_batch(segments)
        if header is not None and header.partition_leader_epoch < epoch:
            return False
        if start > first and header is not None and header.base_offset < start:
            return False
        earlier = batch_at(segments, start - 1) if start > first and previous_epoch >= 0 else None
        if (
            earlier is not None
            and earlier.last_offset < start
            and earlier.partition_leader_epoch > previous_epoch
        ):
            return False
        previous_epoch = epoch
    return True


def _first_batch(segments: Sequence[Segment]) -> BatchHeader | None:
    for segment in segments:
        for header, _ in segment.surviving_headers(segment.base_offset):
            return header
    return None


def derive_epochs(segments: Sequence[Segment]) -> LeaderEpochs:
    """The epochs that the batches were written in. Reads all headers."""
    epochs = LeaderEpochs()
    for segment in segments:
        for header, _ in segment.surviving_headers(segment.base_offset):
            if header.partition_leader_epoch > epochs.latest:
                epochs.assign(header.partition_leader_epoch, header.base_offset)
    epochs.mark_saved(False)
    return epochs


def tells_of(producers: Producers, segments: Sequence[Segment]) -> bool:
    """Whether a snapshot of producers is one of this log: the batches that it names are theirs."""
    entries = [entry for entry in producers if entry.batches]
    if any(entry.batches[-1].last_offset >= producers.end_offset for entry in entries):
        return False
    for entry in nlargest(PRODUCERS_TESTED_MAX, entries, key=_last_offset):
        offset = _last_offset(entry)
        if offset < segments[0].base_offset:
            continue
        header = batch_at(segments, offset)
        # One that ends elsewhere tells nothing: compaction has taken the batch that was meant.
        if header is None or header.last_offset != offset:
            continue
        if header.producer_id != entry.producer_id or header.producer_epoch > entry.epoch:
            return False
    return True


def has_aborted(segment: Segment, entry: AbortedTransaction) -> bool:
    """Whether there is an abort marker in a segment where an entry of its transaction index says so; where
    the log is damaged there, the entry is all that there is left of it."""
    for header, position in segment.surviving_headers(entry.last_offset):
        if header.base_offset > entry.last_offset:
            return segment.is_damaged
        if header.last_offset != entry.last_offset or header.producer_id != entry.producer_id:
            return False
        marker = marker_of(header, segment.file.read(position, header.size))
        return marker is not None and not marker.commits
    return segment.is_damaged


def has_control(segments: Sequence[Segment], offset: int) -> bool:
    """Whether there is a control batch at an offset or behind it."""
    for segment, following in zip(segments, (*segments[1:], None), strict=True):
        if following is None or following.base_offset > offset:
            for header, _ in segment.surviving_headers(max(offset, segment.base_offset)):
                if header.is_control and header.last_offset >= offset:
                    return True
    return False


def _last_offset(entry: ProducerEntry) -> int:
    return entry.batches[-1].last_offset
