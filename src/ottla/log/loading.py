"""Opening a partition's folder (Kafka's LogLoader): which segments there are, and where the log ends.

After a clean shutdown nothing is read but the small files; after a crash the segments from the recovery point
on are looked through.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from uuid import UUID

from ottla.env.disk import Disk
from ottla.log.checkpoints import CheckpointDamaged, decode_epochs, decode_partition_metadata
from ottla.log.epochs import LeaderEpochs
from ottla.log.files import (
    EPOCHS_FILE,
    LOG_SUFFIX,
    PARTITION_METADATA_FILE,
    SEGMENT_SUFFIXES,
    SNAPSHOT_SUFFIX,
    FileCache,
    offset_name,
    offset_of,
)
from ottla.log.leftovers import clear
from ottla.log.producers import Producers
from ottla.log.recovery import recover_segment, replay_producers
from ottla.log.segment import Segment

logger = logging.getLogger(__name__)


@dataclass(slots=True, kw_only=True)
class Loader:
    """What is known of a folder before it is opened, and what has been found in it so far."""

    disk: Disk
    cache: FileCache
    directory: str
    # Whether the broker that wrote it last shut down in order.
    clean: bool
    # From the checkpoints: all before the first is on disk, all before the second is deleted.
    recovery_point: int
    log_start_offset: int
    # Compaction has been over all before it; -1: never.
    cleaned_offset: int
    now_ms: int
    producer_expiration_ms: int
    index_interval_bytes: int
    # Whether the topic is compacted now.
    compacted: bool

    segments: list[Segment] = field(default_factory=list)
    snapshots: list[int] = field(default_factory=list)
    epochs: LeaderEpochs = field(default_factory=LeaderEpochs)
    producers: Producers = field(init=False)
    log_end_offset: int = 0
    topic_id: UUID | None = None

    def load(self) -> Loader:
        """Open the folder, made where it is missing. OSError where the disk fails."""
        names = self._names()
        self.producers = Producers(0, self.producer_expiration_ms)
        self._find_segments(names)
        if not self._load_epochs(names) and any(segment.size for segment in self.segments):
            # Batches tell their epochs. Without these nobody would notice where this log parts from another.
            self.clean, self.recovery_point = False, 0
        if PARTITION_METADATA_FILE in names:
            self.topic_id = read_topic_id(self.disk, self.directory)
        if self.clean and self._trust_recovery_point():
            self.log_end_offset = self.recovery_point
        elif self.clean:
            self.log_end_offset = self.recovery_point = self._read_end_offset()
        else:
            self._recover()
        self._drop_deleted()
        self._begin_where_empty()
        if self.cleaned_offset > self.log_end_offset:
            self.cleaned_offset = -1
        self.epochs.truncate_from_end(self.log_end_offset + 1)
        self.epochs.truncate_from_start(self.log_start_offset)
        self._load_producers()
        self._drop_stray_snapshots()
        self.segments[-1].forget_recent(self.log_end_offset)
        return self

    # -- what is there ------------------------------------------------------------------------------------

    def _names(self) -> set[str]:
        """The folder's files, after what a crash may have left behind is cleared away."""
        if not self.disk.exists(self.directory):
            self.disk.make_dirs(self.directory)
            return set()
        return clear(self.disk, self.directory)

    def _remove(self, names: set[str], name: str) -> None:
        self.disk.remove(f"{self.directory}/{name}")
        names.discard(name)

    def _find_segments(self, names: set[str]) -> None:
        for name in sorted(names):
            offset = offset_of(name)
            if offset is None:
                continue
            if name.endswith(LOG_SUFFIX):
                size = self.disk.size(f"{self.directory}/{name}")
                self.segments.append(
                    Segment(self.disk, self.cache, self.directory, offset, size, self.now_ms)
                )
            elif name.endswith(SNAPSHOT_SUFFIX):
                self.snapshots.append(offset)
            elif name.endswith(SEGMENT_SUFFIXES) and offset_name(offset, LOG_SUFFIX) not in names:
                logger.warning("%s/%s has no log file, removing it", self.directory, name)
                self._remove(names, name)

    def _load_epochs(self, names: set[str]) -> bool:
        """Read the checkpoint of leader epochs; whether there is one that makes sense."""
        if EPOCHS_FILE not in names:
            return False
        try:
            data = self.disk.read_file(f"{self.directory}/{EPOCHS_FILE}")
            self.epochs = LeaderEpochs(decode_epochs(data))
        except CheckpointDamaged as error:
            logger.warning("%s/%s is damaged, reading the log for it: %s", self.directory, EPOCHS_FILE, error)
            return False
        return True

    # -- where it ends ------------------------------------------------------------------------------------

    def _trust_recovery_point(self) -> bool:
        """Whether the checkpoint can be the log's end: after a clean shutdown it is, if it was written."""
        if not self.segments:
            return False
        last = self.segments[-1]
        grown = self.recovery_point - last.base_offset
        return grown > 0 if last.size else grown == 0

    def _read_end_offset(self) -> int:
        """The log's end from its last batches: for a folder whose checkpoint is missing."""
        if not self.segments:
            return self.log_start_offset
        last = self.segments[-1]
        end = last.base_offset
        position = last.offset_index.positions[-1] if len(last.offset_index) else 0
        for header, _ in last.headers_from(position, last.file.read):
            end = header.next_offset
        return end

    def _recover(self) -> None:
        """Look through the segments from the recovery point on; keep the longest valid prefix."""
        if not self.segments:
            self.log_end_offset = self.recovery_point = self.log_start_offset
            return
        first = max(
            (i for i, segment in enumerate(self.segments) if segment.base_offset <= self.recovery_point),
            default=0,
        )
        start = self.segments[first].base_offset
        self._drop_snapshots_after(start)
        self._producers_at(start)
        self.epochs.truncate_from_end(start)
        for number in range(first, len(self.segments)):
            segment = self.segments[number]
            may_have_gaps = self.compacted or segment.base_offset <= self.cleaned_offset
            if number > first and not may_have_gaps and segment.base_offset != self.log_end_offset:
                self._drop_segments(number, f"{segment.base_offset} does not follow {self.log_end_offset}")
                break
            self.producers.end_offset = segment.base_offset
            if number > first:
                self._snapshot()
            cut = recover_segment(segment, self.producers, self.epochs, self.index_interval_bytes)
            self.log_end_offset = self.producers.end_offset
            if number + 1 < len(self.segments):
                self._save_indexes(segment)
            if cut:
                logger.warning(
                    "%s: cut %d bytes that are not whole batches after offset %d",
                    segment.path(LOG_SUFFIX), cut, self.log_end_offset - 1,
                )  # fmt: skip
                self._drop_segments(number + 1, "what comes before it was cut")
                break
        self.recovery_point = min(self.recovery_point, self.log_end_offset)

    def _save_indexes(self, segment: Segment) -> None:
        try:
            segment.save_indexes()
        except OSError as error:
            # The next flush tries again.
            logger.warning("the indexes of %s cannot be written: %s", segment.path(LOG_SUFFIX), error)

    def _drop_segments(self, first: int, why: str) -> None:
        for segment in self.segments[first:]:
            logger.warning("%s: removing it, %s", segment.path(LOG_SUFFIX), why)
            segment.close()
            for suffix in SEGMENT_SUFFIXES:
                self.disk.remove(segment.path(suffix))
        del self.segments[first:]

    def _drop_deleted(self) -> None:
        """Where DeleteRecords went beyond what is left, nothing is left."""
        if self.segments and self.log_end_offset < self.log_start_offset:
            self._drop_segments(0, f"the log starts at {self.log_start_offset}")
            self._drop_snapshots_after(-1)
            self.epochs = LeaderEpochs()
            self.log_end_offset = self.recovery_point = self.log_start_offset

    def _begin_where_empty(self) -> None:
        if not self.segments:
            self.log_end_offset = self.recovery_point = self.log_start_offset
            self.segments.append(
                Segment.create(self.disk, self.cache, self.directory, self.log_end_offset, self.now_ms)
            )
        self.log_start_offset = max(self.log_start_offset, self.segments[0].base_offset)

    # -- producers ----------------------------------------------------------------------------------------

    def _load_producers(self) -> None:
        """Producer state at the log's end, where recovery has not already come to it."""
        end = self.log_end_offset
        if self.producers.end_offset == end and not self.clean:
            return
        self._drop_snapshots_after(end)
        if not self.snapshots and self.clean:
            self.producers.clear(end)
            return
        self._producers_at(end)

    def _producers_at(self, offset: int) -> None:
        """Bring producer state to ``offset``: the newest snapshot before it, and the log from there on."""
        load_snapshot(self.disk, self.directory, self.producers, self.snapshots, offset, self.now_ms)
        if self.producers.end_offset < self.segments[0].base_offset:
            self.producers.end_offset = self.segments[0].base_offset
        replay(self.segments, self.producers, offset)

    def _snapshot(self) -> None:
        offset = self.producers.end_offset
        if offset not in self.snapshots:
            path = f"{self.directory}/{offset_name(offset, SNAPSHOT_SUFFIX)}"
            try:
                self.disk.write_file(path, self.producers.encode(), sync=False)
            except OSError as error:
                # A full disk, say. It only saves time at the next start.
                logger.warning("%s cannot be written: %s", path, error)
                return
            self.snapshots.append(offset)

    def _drop_stray_snapshots(self) -> None:
        """Keep the snapshots at the segments' starts, which recovery needs, and of the others the newest."""
        bases = {segment.base_offset for segment in self.segments}
        strays = sorted(offset for offset in self.snapshots if offset not in bases)
        keep = strays[-1:] if strays and strays[-1] > self.segments[-1].base_offset else []
        for snapshot in strays:
            if snapshot not in keep:
                self._drop_snapshot(snapshot)

    def _drop_snapshots_after(self, offset: int) -> None:
        """Snapshots beyond what is known to be sound may tell of batches that are gone."""
        for snapshot in [known for known in self.snapshots if known > offset]:
            self._drop_snapshot(snapshot)

    def _drop_snapshot(self, offset: int) -> None:
        self.disk.remove(f"{self.directory}/{offset_name(offset, SNAPSHOT_SUFFIX)}")
        self.snapshots.remove(offset)


def read_topic_id(disk: Disk, directory: str) -> UUID | None:
    """The id of the topic that a folder belongs to; None where it is not known."""
    path = f"{directory}/{PARTITION_METADATA_FILE}"
    try:
        return decode_partition_metadata(disk.read_file(path))
    except FileNotFoundError:
        return None
    except CheckpointDamaged as error:
        # A loss of power soon after it was made; the cluster's metadata knows the id too.
        logger.warning("%s is damaged, ignoring it: %s", path, error)
        return None


def load_snapshot(
    disk: Disk, directory: str, producers: Producers, snapshots: list[int], offset: int, now_ms: int
) -> None:
    """The newest snapshot at or before ``offset`` into ``producers``; an empty state where there is none.

    A damaged one is removed, from the disk and from ``snapshots``.
    """
    for snapshot in sorted(snapshots, reverse=True):
        if snapshot > offset:
            continue
        path = f"{directory}/{offset_name(snapshot, SNAPSHOT_SUFFIX)}"
        try:
            producers.load(disk.read_file(path), snapshot, now_ms)
            return
        except ValueError as error:
            logger.warning("%s: removing it, %s", path, error)
            disk.remove(path)
            snapshots.remove(snapshot)
    producers.clear(0)


def replay(segments: list[Segment], producers: Producers, offset: int) -> None:
    """Bring producer state forward from where it stands to ``offset``, reading headers."""
    for number, segment in enumerate(segments):
        last = number + 1 == len(segments)
        if segment.base_offset >= offset or producers.end_offset >= offset:
            break
        if last or segments[number + 1].base_offset > producers.end_offset:
            replay_producers(segment, producers, offset)
    producers.end_offset = offset
