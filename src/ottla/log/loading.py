"""Opening a partition's folder (Kafka's LogLoader): which segments there are, and where the log ends.

After a clean shutdown the small files are read, and of the log only what they are held against: its last
batches and a few others. After a crash the segments from the recovery point on are looked through.
"""

from __future__ import annotations

import logging
import os.path
from dataclasses import dataclass, field
from functools import partial
from uuid import UUID

from ottla.env.disk import Disk
from ottla.errors import ErrorCode, KafkaError
from ottla.log import hints
from ottla.log.aborted import AbortedTransactions
from ottla.log.checkpoints import (
    CHECKPOINT_BYTES_MAX,
    OFFSET_MAX,
    CheckpointDamaged,
    decode_epochs,
    encode_partition_metadata,
)
from ottla.log.epochs import LeaderEpochs
from ottla.log.file_cache import FileCache
from ottla.log.files import (
    EPOCHS_FILE,
    LOG_SUFFIX,
    PARTITION_METADATA_FILE,
    SEGMENT_SUFFIXES,
    SNAPSHOT_SUFFIX,
    TXN_INDEX_SUFFIX,
    offset_name,
    offset_of,
    read_small,
    read_topic_id,
)
from ottla.log.folders import parse_folder
from ottla.log.leftovers import clear
from ottla.log.producers import Producers
from ottla.log.recovery import rebuild_aborted, recover_segment, replay
from ottla.log.segment import Segment
from ottla.log.segment_file import ColdRead
from ottla.log.snapshots import Snapshots
from ottla.log.strays import set_aside
from ottla.log.transaction_index import TransactionIndex
from ottla.wire.records import BatchHeader

logger = logging.getLogger(__name__)

# Of so many of the last segments with aborted transactions the first and the last entry are looked up.
ABORTED_TESTED_MAX = 2


@dataclass(slots=True, kw_only=True)
class Loader:
    """What is known of a folder before it is opened, and what has been found in it so far."""

    disk: Disk
    cache: FileCache
    directory: str
    # Whether the broker that wrote it last shut down in order.
    clean: bool
    # From the checkpoints: all before the first is on disk (None: it is not known how much), all before the
    # second is deleted.
    recovery_point: int | None
    log_start_offset: int
    # Compaction has been over all before it; -1: never.
    cleaned_offset: int
    # Everything before it is committed, as far as is known; None: it does not matter.
    high_watermark: int | None = None
    now_ms: int
    producer_expiration_ms: int
    index_interval_bytes: int
    # Whether the topic is compacted now.
    compacted: bool
    # The topic that the folder belongs to; None: whatever the folder says.
    topic_id: UUID | None = None

    segments: list[Segment] = field(default_factory=list)
    snapshots: Snapshots = field(init=False)
    epochs: LeaderEpochs = field(default_factory=LeaderEpochs)
    producers: Producers = field(init=False)
    aborted: AbortedTransactions = field(init=False)
    # Segments, by their base offsets, whose transaction indexes have yet to be held against the log.
    _aborted_files: set[int] = field(default_factory=set)
    log_end_offset: int = 0
    # Once it is loaded: how much is known to be on the disk, and what a checkpoint there may say of that.
    synced_offset: int = 0
    checkpointed_offset: int = 0
    # Whether the folder was not there, so that this process has made all that is in it.
    made_here: bool = False

    def load(self) -> Loader:
        """Open the folder, made where it is missing.

        OSError where the disk fails; KafkaError INCONSISTENT_TOPIC_ID for another topic's folder.
        """
        self.checkpointed_offset = self.recovery_point or 0
        names = self._names()
        self.producers = Producers(0, self.producer_expiration_ms)
        self.aborted = AbortedTransactions(self.disk, self.directory, self.cache)
        self._find_segments(names)
        self._load_epochs(names)
        self._know_topic(names)
        end = self._clean_end() if self.clean else None
        if end is not None:
            self.log_end_offset = end
        else:
            self._recover()
            self.clean = False
        self._drop_deleted()
        self._begin_where_empty()
        if self.cleaned_offset > self.log_end_offset:
            self.cleaned_offset = -1
        self.epochs.truncate_from_end(self.log_end_offset + 1)
        self.epochs.truncate_from_start(self.log_start_offset)
        self._load_producers()
        self._know_uncommitted()
        self._load_aborted()
        self.snapshots.remove_strays({segment.base_offset for segment in self.segments})
        self.segments[-1].forget_recent(self.log_end_offset)
        self.synced_offset = self.recovery_point or 0
        return self

    # -- what is there ------------------------------------------------------------------------------------

    def _names(self) -> set[str]:
        """The folder's files, after what a crash may have left behind is cleared away."""
        if not self.disk.exists(self.directory):
            self.disk.make_dirs(self.directory)
            self.made_here = True
            return set()
        return clear(self.disk, self.directory)

    def _remove(self, names: set[str], name: str) -> None:
        self.disk.remove(f"{self.directory}/{name}")
        names.discard(name)

    def _find_segments(self, names: set[str]) -> None:
        snapshots = []
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
                snapshots.append(offset)
            elif name.endswith(SEGMENT_SUFFIXES) and offset_name(offset, LOG_SUFFIX) not in names:
                logger.warning("%s/%s has no log file, removing it", self.directory, name)
                self._remove(names, name)
            elif name.endswith(TXN_INDEX_SUFFIX):
                self._aborted_files.add(offset)
        self.snapshots = Snapshots(self.disk, self.directory, snapshots)

    def _load_epochs(self, names: set[str]) -> None:
        """Read the checkpoint of leader epochs, which ``_check_epochs`` holds against the log."""
        if EPOCHS_FILE not in names:
            return
        try:
            data = read_small(self.disk, f"{self.directory}/{EPOCHS_FILE}", CHECKPOINT_BYTES_MAX)
            self.epochs = LeaderEpochs(decode_epochs(data))
        except CheckpointDamaged as error:
            logger.warning("%s/%s is damaged, reading the log for it: %s", self.directory, EPOCHS_FILE, error)

    def _check_epochs(self, segments: list[Segment], last: BatchHeader | None = None) -> None:
        """Batches tell their epochs; with wrong ones nobody notices where this log parts from another.

        ``last``: the last batch of the segments, where it has been read.
        """
        if not segments or hints.agree(self.epochs, segments, last or hints.last_batch(segments)):
            return
        if self.epochs.entries:
            path = f"{self.directory}/{EPOCHS_FILE}"
            logger.warning("%s contradicts the log: reading the log for it", path)
        self.epochs = hints.derive_epochs(segments)

    def _know_topic(self, names: set[str]) -> None:
        """Read which topic the folder belongs to, or write it down."""
        found = read_topic_id(self.disk, self.directory) if PARTITION_METADATA_FILE in names else None
        if found is None:
            if self.topic_id is not None:
                path = f"{self.directory}/{PARTITION_METADATA_FILE}"
                self.disk.write_file(path, encode_partition_metadata(self.topic_id), sync=False)
            return
        if self.topic_id not in (None, found):
            raise KafkaError(
                ErrorCode.inconsistent_topic_id,
                f"{self.directory} belongs to topic {found}, not {self.topic_id}",
            )
        self.topic_id = found

    # -- where it ends ------------------------------------------------------------------------------------

    def _clean_end(self) -> int | None:
        """Where the log ends, by its last batches; None where they make no sense: it has to be recovered."""
        if not self.segments:
            return None
        last, point = self.segments[-1], self.recovery_point
        try:
            header = hints.last_of(last)
        except (KafkaError, ColdRead):
            path = last.path(LOG_SUFFIX)
            logger.warning("%s is damaged after a clean shutdown: recovering the log", path)
            return None
        end = last.base_offset if header is None else header.next_offset
        if point is None:
            self.recovery_point = last.base_offset
        elif point != end:
            logger.warning(
                "%s ends at %d, not at %d as %s says", self.directory, end, point, "its checkpoint"
            )
            self.recovery_point = min(point, end)
        self._check_epochs(self.segments, header)
        return end

    def _recover(self) -> None:
        """Look through the segments from the recovery point on; keep the longest valid prefix."""
        if not self.segments:
            self.log_end_offset = self.recovery_point = self.log_start_offset
            return
        point, count = self.recovery_point, len(self.segments)
        # Not knowing more: a segment is synced soon after it is closed.
        point = self.segments[max(0, count - 2)].base_offset if point is None else point
        # Where the broker was shut down in order all had been synced.
        synced_offset = OFFSET_MAX if self.clean else point
        first = self._first_to_recover()
        start = self.segments[first].base_offset
        self._check_epochs(self.segments[:first])
        self.snapshots.remove_after(start)
        self._producers_at(start)
        self.epochs.truncate_from_end(start)
        self.log_end_offset = start
        for number in range(first, count):
            segment = self.segments[number]
            if number > first and not self._follows(segment, point):
                self._drop_segments(number, f"{segment.base_offset} does not follow {self.log_end_offset}")
                break
            self.producers.advance_to(segment.base_offset)
            if number > first:
                self._snapshot()
            found = recover_segment(
                segment, self.producers, self.epochs, self.index_interval_bytes,
                synced_offset=synced_offset, is_last=number + 1 == count,
            )  # fmt: skip
            self.log_end_offset = self.producers.end_offset
            self._save_aborted(segment, found.aborted)
            if number + 1 < count:
                self._save_indexes(segment)
            if found.cut_bytes:
                logger.warning(
                    "%s: cut %d bytes that are not whole batches after offset %d",
                    segment.path(LOG_SUFFIX), found.cut_bytes, self.log_end_offset - 1,
                )  # fmt: skip
                self._drop_segments(number + 1, "what comes before it was cut")
                break
        self.recovery_point = min(point, self.log_end_offset)

    def _first_to_recover(self) -> int:
        """The number of the segment with the recovery point; the first one where it is not known."""
        point = self.recovery_point
        before = [i for i, one in enumerate(self.segments) if point is not None and one.base_offset <= point]
        return before[-1] if before else 0

    def _follows(self, segment: Segment, point: int) -> bool:
        """Whether a segment goes on where the log ends by now, or something between them is missing."""
        end, base = self.log_end_offset, segment.base_offset
        if base == end or self.compacted or base <= self.cleaned_offset:
            return True
        if end < base <= point:
            logger.error("%s: offsets %d to %d are missing", self.directory, end, base - 1)
            return True
        return False

    def _save_indexes(self, segment: Segment) -> None:
        try:
            segment.save_indexes()
        except OSError as error:
            # The next flush tries again.
            logger.warning("the indexes of %s cannot be written: %s", segment.path(LOG_SUFFIX), error)

    def _drop_segments(self, first: int, why: str) -> None:
        for segment in self.segments[first:]:
            logger.warning("%s: removing this segment: %s", segment.path(LOG_SUFFIX), why)
            segment.close()
            for suffix in SEGMENT_SUFFIXES:
                self.disk.remove(segment.path(suffix))
        gone = [segment.base_offset for segment in self.segments[first:]]
        self._aborted_files.difference_update(gone)
        self.aborted.forget(gone)
        del self.segments[first:]

    def _drop_deleted(self) -> None:
        """Where DeleteRecords went beyond what a crash has left, nothing is left.

        After a clean shutdown that cannot be: it is the checkpoint that is wrong.
        """
        if not self.segments or self.log_end_offset >= self.log_start_offset:
            return
        why = f"the log ends at {self.log_end_offset} and starts at {self.log_start_offset}"
        if self.clean:
            logger.warning("%s: log start offset of the checkpoint ignored: %s", self.directory, why)
            self.log_start_offset = 0
            return
        self._begin_again(why)
        self.epochs = LeaderEpochs()
        self.log_end_offset = self.recovery_point = self.log_start_offset

    def _begin_again(self, why: str) -> None:
        """Begin with an empty folder. What there is is set aside: it may be the checkpoint that is wrong."""
        data_dir, name = os.path.split(self.directory)
        where = parse_folder(name)
        if where is None or not any(segment.size for segment in self.segments):
            self._drop_segments(0, why)
            self.snapshots.remove_after(-1)
            return
        for segment in self.segments:
            segment.close()
        folder = set_aside(self.disk, data_dir, where)
        logger.warning("%s is set aside as %s: %s", self.directory, folder, why)
        self.disk.make_dirs(self.directory)
        self.segments = []
        self._aborted_files = set()
        self.snapshots = Snapshots(self.disk, self.directory)
        self.aborted = AbortedTransactions(self.disk, self.directory, self.cache)
        self._know_topic(set())

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
        self.snapshots.remove_after(end)
        self._producers_at(end)
        if self.clean:
            self.snapshots.closed_in_order(end)

    def _producers_at(self, offset: int) -> None:
        """Bring producer state to ``offset``: the newest snapshot before it, and the log from there on."""
        is_own = partial(hints.tells_of, segments=self.segments)
        self.snapshots.load(self.producers, offset, self.now_ms, is_own)
        has_none = self.clean and not self.producers.end_offset
        start = self._oldest_with_producers() if has_none else self.segments[0].base_offset
        if self.producers.end_offset < start:
            self.producers.advance_to(start)
        replay(self.segments, self.producers, offset)

    def _know_uncommitted(self) -> None:
        """Find out about transactions whose end may not be committed: a snapshot behind it does not tell, and
        the last stable offset would be beyond them."""
        committed, end = self.high_watermark, self.log_end_offset
        if committed is None or not any(one.coordinator_epoch >= 0 for one in self.producers):
            return
        committed = max(committed, self.segments[0].base_offset)
        if committed < end and hints.has_control(self.segments, committed):
            is_own = partial(hints.tells_of, segments=self.segments)
            self.snapshots.load(self.producers, committed, self.now_ms, is_own)
            self.producers.advance_to(max(self.producers.end_offset, self.segments[0].base_offset))
            replay(self.segments, self.producers, end)

    def _oldest_with_producers(self) -> int:
        """Where the first segment begins that has been written to since producers expire."""
        expired_ms = self.now_ms - self.producer_expiration_ms
        for segment in self.segments:
            if self.disk.modified_ms(segment.path(LOG_SUFFIX)) >= expired_ms:
                return segment.base_offset
        return self.log_end_offset

    def _snapshot(self) -> None:
        try:
            self.snapshots.write(self.producers)
        except OSError as error:
            # A full disk, say. It only saves time at the next start.
            logger.warning("%s: producer state cannot be written: %s", self.directory, error)

    # -- aborted transactions -----------------------------------------------------------------------------

    def _load_aborted(self) -> None:
        """Hold the transaction indexes that recovery has not written anew against the log."""
        ends = [segment.base_offset for segment in self.segments[1:]] + [self.log_end_offset]
        tested = sorted(self._aborted_files)[-ABORTED_TESTED_MAX:]
        for number, segment in enumerate(self.segments):
            base = segment.base_offset
            if base not in self._aborted_files:
                continue
            path = segment.path(TXN_INDEX_SUFFIX)
            index = TransactionIndex.decode(self.disk.read_file(path), base, ends[number])
            if index is not None and (base not in tested or self._are_aborted(segment, index)):
                self.aborted.put(base, index, saved=True, keep=number + 1 == len(self.segments))
                continue
            logger.warning("%s contradicts the log: building it again", path)
            self._save_aborted(segment, rebuild_aborted(self.segments, number, self.snapshots))

    def _are_aborted(self, segment: Segment, index: TransactionIndex) -> bool:
        entries = list(index)
        return all(hints.has_aborted(segment, entry) for entry in (*entries[:1], *entries[-1:]))

    def _save_aborted(self, segment: Segment, index: TransactionIndex) -> None:
        """Have the aborted transactions of a segment in its file; none where there are none."""
        base = segment.base_offset
        try:
            if not len(index) and base in self._aborted_files:
                self.disk.remove(segment.path(TXN_INDEX_SUFFIX))
            self.aborted.put(base, index, saved=False, keep=segment is self.segments[-1])
            self.aborted.save(base)
        except OSError as error:
            # The next flush tries again.
            logger.warning("%s cannot be written: %s", segment.path(TXN_INDEX_SUFFIX), error)
        self._aborted_files.discard(base)
