"""A partition's log (Kafka's UnifiedLog and LocalLog): append, read, roll, truncate, flush.

Synchronous and used from one thread, but for ``flush``, which may run in another. Offsets are absolute, sizes
bytes, times milliseconds. What fails on disk is raised as KafkaError KAFKA_STORAGE_ERROR.
"""

from __future__ import annotations

import logging
import random
import threading
from bisect import bisect_right
from collections.abc import Callable
from functools import partial
from typing import NamedTuple
from uuid import UUID

from ottla.env.disk import Disk, File
from ottla.errors import ErrorCode, KafkaError
from ottla.log import durability, follower, lookups, retention, truncation
from ottla.log.checkpoints import encode_partition_metadata
from ottla.log.files import (
    DELETED_SUFFIX,
    PARTITION_METADATA_FILE,
    SEGMENT_SUFFIXES,
    SNAPSHOT_SUFFIX,
    Background,
    FileCache,
    InPlace,
    offset_name,
)
from ottla.log.index import RELATIVE_OFFSET_MAX
from ottla.log.loading import Loader
from ottla.log.lookups import TimestampOffset
from ottla.log.recovery import marker_of
from ottla.log.segment import Located, Segment
from ottla.log.settings import LogConfig, Origin
from ottla.log.validation import Rules, prepare
from ottla.types import Buffer, TopicPartition
from ottla.wire.records import STAMP, STAMP_BYTES, TRANSACTIONAL_BIT

logger = logging.getLogger(__name__)

# Clients try again and again while a disk is full: one line tells it.
COMPLAINT_INTERVAL_MS = 10_000

PRODUCER_EXPIRATION_MS = 24 * 60 * 60 * 1000
# Leader epochs are 32 bits.
LEADER_EPOCH_MAX = 2**31 - 1


class Appended(NamedTuple):
    """Where a batch went; for a repeated one, where the original is."""

    base_offset: int
    last_offset: int
    # -1 where records keep the time that their producer gave.
    log_append_time_ms: int
    log_start_offset: int
    duplicate: bool


class Slice(NamedTuple):
    """Bytes of a log to be read: ``file.read_cached(position, size)``, or ``file.read`` off the loop."""

    file: File
    position: int
    size: int


class Log:
    """One partition's log. ``Log.open`` makes one."""

    def __init__(self, loaded: Loader, config: LogConfig, background: Background) -> None:
        self.disk = loaded.disk
        self.cache = loaded.cache
        self.directory = loaded.directory
        self.topic_partition = TopicPartition("", 0)
        self.topic_id: UUID | None = loaded.topic_id
        self.background = background
        self.segments = loaded.segments
        self.producers = loaded.producers
        self.epochs = loaded.epochs
        self.log_start_offset = loaded.log_start_offset
        self.log_end_offset = loaded.log_end_offset
        self.durable = durability.Durable(loaded.recovery_point)
        # One flush at a time: what a second one finds done has to be on the disk.
        self.flushing = threading.Lock()
        # A checkpoint on disk may still hold a recovery point of up to this, from before a truncation.
        self.stale_point = -1
        # Compaction has been over everything before it; -1: never.
        self.cleaned_offset = loaded.cleaned_offset
        # Told when a segment of a compacted log has closed.
        self.closed_one: Callable[[], None] | None = None
        self.size_bytes = sum(segment.size for segment in self.segments)
        # Offsets at which producer state is on disk.
        self.snapshots = loaded.snapshots
        self._bases = [segment.base_offset for segment in self.segments]
        self._active = self.segments[-1]
        self.unflushed_since_ms = 0
        # Bytes of a failed write may lie after the end of the active segment.
        self._torn = False
        self._complained_ms = -COMPLAINT_INTERVAL_MS
        # A sync failed: what the disk holds is not known any more.
        self.failed: OSError | None = None
        # Whether the folder's own list of files is on disk, and its place among the others.
        self.folder_synced = False
        self.parent_synced = False
        # The partition is gone: nothing is written any more.
        self.deleted = False
        self.update_config(config)

    @classmethod
    def open(
        cls,
        disk: Disk,
        directory: str,
        config: LogConfig,
        *,
        topic_partition: TopicPartition,
        now_ms: int,
        clean: bool,
        topic_id: UUID | None = None,
        recovery_point: int = 0,
        log_start_offset: int = 0,
        cleaned_offset: int = -1,
        cache: FileCache | None = None,
        background: Background | None = None,
        producer_expiration_ms: int = PRODUCER_EXPIRATION_MS,
    ) -> Log:
        """Open a partition's folder, making it where it is missing.

        ``clean``: the broker shut down in order, so that ``recovery_point`` is where the log ends and its
        bytes need not be looked at. Otherwise the segments from the recovery point on are recovered.
        """
        loaded = Loader(
            disk=disk,
            cache=cache or FileCache(disk),
            directory=directory,
            clean=clean,
            recovery_point=recovery_point,
            log_start_offset=log_start_offset,
            cleaned_offset=cleaned_offset,
            now_ms=now_ms,
            producer_expiration_ms=producer_expiration_ms,
            index_interval_bytes=config.index_interval_bytes,
            compacted=config.compacts,
        ).load()
        log = cls(loaded, config, background or InPlace())
        log.topic_partition = topic_partition
        if topic_id is not None and log.topic_id is None:
            log.topic_id = topic_id
            path = f"{directory}/{PARTITION_METADATA_FILE}"
            disk.write_file(path, encode_partition_metadata(topic_id), sync=False)
        elif topic_id is not None and log.topic_id != topic_id:
            raise KafkaError(
                ErrorCode.inconsistent_topic_id,
                f"{directory} belongs to topic {log.topic_id}, not {topic_id}",
            )
        return log

    def update_config(self, config: LogConfig) -> None:
        """Take on a changed topic configuration, from the next append on."""
        self.config = config
        self.background.config_changed(config)
        self.rules = Rules(config)
        self._interval = config.index_interval_bytes
        self._active.limit_indexes(config.segment_index_bytes)
        self._draw_roll_age()

    def _draw_roll_age(self) -> None:
        """How old a segment grows: segment.ms less a jitter, so that not all logs roll at once."""
        age_ms = self.config.roll_ms
        jitter = min(self.config.segment_jitter_ms, age_ms)
        self._roll_age_ms = age_ms - (random.randrange(jitter) if jitter > 0 else 0)

    # -- appending ----------------------------------------------------------------------------------------

    def append(
        self, records: Buffer, *, leader_epoch: int, now_ms: int, origin: Origin = Origin.CLIENT
    ) -> Appended:
        """Append one batch as the leader: check it, number it, write it.

        KafkaError as ``validation.prepare`` and ``Producers.check`` say, INVALID_TXN_STATE for a
        transactional batch from a client, KAFKA_STORAGE_ERROR where it cannot be written; the log is then
        as it was before.
        """
        header, body = prepare(records, self.rules, now_ms, origin)
        base_offset = self.log_end_offset
        if header.producer_id >= 0:
            if header.attributes & TRANSACTIONAL_BIT and origin is Origin.CLIENT:
                raise KafkaError(
                    ErrorCode.invalid_txn_state, "the batch is not part of a transaction that is under way"
                )
            original = self.producers.check(header, origin)
            if original is not None:
                stamped = original.timestamp_ms if self.rules.stamps_append_time else -1
                return Appended(
                    original.first_offset, original.last_offset, stamped, self.log_start_offset, True
                )
        last_offset = base_offset + header.last_offset_delta
        max_timestamp_ms = header.max_timestamp_ms
        size = len(body) + STAMP_BYTES
        segment = self._active
        if not segment.ready or self._torn or self.failed is not None or self.deleted:
            self.get_ready()
        if (
            segment.size + size > self.rules.segment_bytes
            or last_offset - segment.base_offset > RELATIVE_OFFSET_MAX
            or self.has_aged(segment, segment.first_timestamp_ms, max_timestamp_ms, now_ms)
            or segment.full
        ) and segment.size:
            segment = self.roll(now_ms)
        stamp = STAMP.pack(base_offset, header.length, leader_epoch)
        try:
            segment.append((stamp, body), size, last_offset, max_timestamp_ms, self._interval)
        except OSError as error:
            raise self.write_failed(error, now_ms) from error
        if leader_epoch > self.epochs.latest:
            self.epochs.assign(leader_epoch, base_offset)
        if self.durable.offset == base_offset:
            self.unflushed_since_ms = now_ms
        self.log_end_offset = last_offset + 1
        self.size_bytes += size
        if header.producer_id >= 0:
            batch = None if not header.is_control else b"".join((stamp, body))
            self.producers.update(header, base_offset, marker_of(header, batch))
        else:
            self.producers.end_offset = last_offset + 1
        append_time_ms = max_timestamp_ms if self.rules.stamps_append_time else -1
        return Appended(base_offset, last_offset, append_time_ms, self.log_start_offset, False)

    def append_as_follower(
        self, records: Buffer, *, now_ms: int, leader_epoch: int = LEADER_EPOCH_MAX
    ) -> None:
        """Append what a fetch from the leader, in its ``leader_epoch``, returned: see ``follower``."""
        follower.append_as_follower(self, records, now_ms, leader_epoch)

    def has_aged(self, segment: Segment, first_ms: int | None, timestamp_ms: int, now_ms: int) -> bool:
        """Whether a segment has to roll for its age, by the records' clock where they have one.

        ``first_ms``: the first batch's largest timestamp; None: there is no batch.
        """
        if first_ms is not None and first_ms >= 0:
            return timestamp_ms - first_ms > self._roll_age_ms
        return now_ms - segment.created_ms > self._roll_age_ms

    def write_failed(self, error: OSError, now_ms: int) -> KafkaError:
        """A write did not succeed: take back what it may have left."""
        self._torn = True
        if now_ms - self._complained_ms >= COMPLAINT_INTERVAL_MS:
            self._complained_ms = now_ms
            logger.error("%s: cannot write: %s", self.directory, error)
        try:
            self._take_back()
        except OSError as again:
            logger.error("%s: cannot take back a failed write: %s", self.directory, again)
        return KafkaError(ErrorCode.kafka_storage_error, f"the log cannot be written: {error.strerror}")

    def _take_back(self) -> None:
        self._active.file.truncate(self._active.size)
        self._active.cut_unsynced = True
        self._torn = False

    def get_ready(self) -> None:
        """Before the first write, and after one that failed: make sure of all it needs, or refuse again."""
        if self.deleted:
            raise KafkaError(ErrorCode.unknown_topic_or_partition, "the partition has been deleted")
        if self.failed is not None:
            raise KafkaError(ErrorCode.kafka_storage_error, f"the disk failed: {self.failed.strerror}")
        try:
            if self._torn:
                self._take_back()
            if not self._active.ready:
                self._active.get_ready()
        except OSError as error:
            raise KafkaError(
                ErrorCode.kafka_storage_error, f"the log cannot be written: {error.strerror}"
            ) from error

    def get_ready_to_close(self) -> None:
        """Before closing: what a failed write left must be gone, KAFKA_STORAGE_ERROR where it is not."""
        if self._torn or self.failed is not None:
            self.get_ready()

    def roll(self, now_ms: int, base_offset: int | None = None) -> Segment:
        """Close the active segment and begin a new one at the log's end; the old one is synced later.

        ``base_offset``: begin it there instead, after the log's end. Nothing happens where the active segment
        is empty. KafkaError KAFKA_STORAGE_ERROR where the new file cannot be made; the log is then as it was.
        """
        old, end = self._active, self.log_end_offset
        if not old.size:
            return old
        if end <= self.stale_point:
            # Recovery might begin behind this segment and take what it holds for sound.
            self.flush()
        start = end if base_offset is None else base_offset
        try:
            # First what may fail: a new file must not stay behind an old segment that goes on.
            old.seal()
            new = Segment.create(self.disk, self.cache, self.directory, start, now_ms)
        except OSError as error:
            raise self.write_failed(error, now_ms) from error
        new.limit_indexes(self.config.segment_index_bytes)
        old.forget_recent()
        self.segments.append(new)
        self._bases.append(start)
        self._active = new
        self.folder_synced = False
        self._draw_roll_age()
        try:
            self.write_snapshot(sync=False)
        except OSError as error:
            # Recovery begins at an earlier one then.
            logger.warning("%s: producer state cannot be written: %s", self.directory, error)
        self.background.submit(partial(self.flush, end))
        if self.closed_one is not None and self.config.compacts:
            self.closed_one()
        return new

    def write_snapshot(self, *, sync: bool) -> None:
        """Producer state at the log's end, where it is newer than the last snapshot. OSError: it cannot."""
        offset = self.producers.end_offset
        if offset in self.snapshots or not offset:
            return
        path = f"{self.directory}/{offset_name(offset, SNAPSHOT_SUFFIX)}"
        self.disk.write_file(path, self.producers.encode(), sync=sync)
        self.snapshots.append(offset)

    # -- reading ------------------------------------------------------------------------------------------

    def read(self, offset: int, max_bytes: int, *, end_offset: int, min_one: bool = False) -> Slice | None:
        """Where the batches from ``offset`` on are, before ``end_offset``, up to ``max_bytes`` of them.

        Begins with the batch that holds ``offset``, which is always whole; the last batch may be cut off.
        ``min_one``: the first is there even where it is larger than ``max_bytes``. None where there is
        nothing to be had. Kafka's clients take a piece without one whole batch for a broken broker.

        KafkaError OFFSET_OUT_OF_RANGE before the log's start and after its end. ColdRead: see ``settle``.
        """
        if offset > self.log_end_offset or offset < self.log_start_offset:
            raise KafkaError(
                ErrorCode.offset_out_of_range,
                f"offset {offset} is not within [{self.log_start_offset}, {self.log_end_offset}]",
            )
        if offset >= end_offset or offset == self.log_end_offset:
            return None
        try:
            segment = self._active
            if offset >= segment.base_offset:
                number = len(self.segments) - 1
                found = segment.locate(offset)
            else:
                number, found = self._locate_before_active(offset, end_offset)
                segment = self.segments[number]
            if found is None:
                return None
            position, first_size = found
            limit = segment.size
            if end_offset < self.log_end_offset and end_offset < self._end_of(number):
                end = segment.locate(end_offset)
                limit = end.position if end is not None else limit
            size = limit - position
            if size > max_bytes:
                if first_size > max_bytes and not min_one:
                    return None
                size = max(max_bytes, first_size)
            return Slice(segment.file, position, size) if size > 0 else None
        except OSError as error:
            raise KafkaError(
                ErrorCode.kafka_storage_error, f"the log cannot be read: {error.strerror}"
            ) from error

    def _locate_before_active(self, offset: int, end_offset: int) -> tuple[int, Located | None]:
        """The segment's number and the place of the first batch that ends at or after ``offset``.

        Where compaction has removed what was there, it is the first of a later segment.
        """
        number = self.segment_index(offset)
        found = self.segments[number].locate(offset)
        while found is None and number + 1 < len(self.segments):
            number += 1
            if self._bases[number] >= end_offset:
                break
            found = self.segments[number].locate(offset)
        return number, found

    def _end_of(self, number: int) -> int:
        """The offset that a segment ends before."""
        return self._bases[number + 1] if number + 1 < len(self._bases) else self.log_end_offset

    # -- epochs -------------------------------------------------------------------------------------------

    def epoch_for_offset(self, offset: int) -> int:
        """The leader epoch that wrote an offset, -1 where it is not known."""
        return self.epochs.epoch_at(offset)

    @property
    def latest_epoch(self) -> int:
        """The leader epoch that wrote last, -1 where there is none."""
        return self.epochs.latest

    def epoch_end_offset(self, epoch: int) -> tuple[int, int]:
        """(epoch, end offset) of the largest epoch up to ``epoch``: see ``LeaderEpochs.end_offset_for``."""
        return self.epochs.end_offset_for(epoch, self.log_end_offset)

    # -- durability ---------------------------------------------------------------------------------------

    @property
    def recovery_point(self) -> int:
        """Everything before it would survive a loss of power."""
        return self.durable.offset

    @property
    def unflushed_messages(self) -> int:
        """Records that a loss of power might take."""
        return self.log_end_offset - self.recovery_point

    def sync_due(self, now_ms: int) -> bool:
        """Whether flush.messages or flush.ms asks for a flush."""
        unflushed = self.unflushed_messages
        return unflushed >= self.config.flush_messages or (
            unflushed > 0 and now_ms - self.unflushed_since_ms >= self.config.flush_ms
        )

    def flush(self, before: int | None = None) -> None:
        """Have what is appended by now survive a loss of power: see ``durability``. Thread-safe."""
        durability.flush(self, before)

    def close(self) -> None:
        """Write out all that a clean start relies on, and let the files go: see ``durability``."""
        durability.close(self)

    # -- the rest of it lives beside ----------------------------------------------------------------------

    def truncate_to(self, offset: int, now_ms: int) -> bool:
        """Cut off everything at and after ``offset``: see ``truncation``."""
        return truncation.truncate_to(self, offset, now_ms)

    def truncate_fully_to(self, offset: int, now_ms: int) -> None:
        """Drop everything and begin again, empty, at ``offset``: see ``truncation``."""
        truncation.truncate_fully_to(self, offset, now_ms)

    def advance_log_start(self, offset: int) -> bool:
        """A leader's log begins later, for DeleteRecords: see ``retention``. Followers use the next one."""
        return retention.advance_log_start(self, offset)

    def follow_log_start(self, leader_log_start: int, now_ms: int) -> bool:
        """A follower's log begins where its leader's does: see ``follower``."""
        return follower.follow_log_start(self, leader_log_start, now_ms)

    def apply_retention(self, now_ms: int, high_watermark: int | None = None) -> int:
        """Delete the segments that are due; how many: see ``retention``."""
        return retention.apply_retention(self, now_ms, high_watermark)

    def offset_for_timestamp(self, timestamp_ms: int) -> TimestampOffset | None:
        """The first record at or after a time: see ``lookups``."""
        return lookups.offset_for_timestamp(self, timestamp_ms)

    def max_timestamp_offset(self) -> TimestampOffset | None:
        """The first record that has the largest timestamp: see ``lookups``."""
        return lookups.max_timestamp_offset(self)

    # -- for those modules --------------------------------------------------------------------------------

    def segment_index(self, offset: int) -> int:
        """The number of the segment that holds ``offset``."""
        return max(0, bisect_right(self._bases, offset) - 1)

    def set_segments(self, segments: list[Segment]) -> None:
        """Put other segments in the place of the ones there are; at least one."""
        self.segments = segments
        self._bases = [segment.base_offset for segment in segments]
        self._active = segments[-1]
        self._active.limit_indexes(self.config.segment_index_bytes)
        self.size_bytes = sum(segment.size for segment in segments)

    def forget_snapshots_after(self, offset: int) -> None:
        """Remove the snapshots of producer state that tell of batches at ``offset`` and later."""
        for snapshot in [known for known in self.snapshots if known > offset]:
            self.disk.remove(f"{self.directory}/{offset_name(snapshot, SNAPSHOT_SUFFIX)}")
            self.snapshots.remove(snapshot)

    def discard(self, segments: list[Segment]) -> None:
        """Rename the files of segments that are no longer used, and remove them after file.delete.delay.ms.

        Whoever still reads from one holds its open file.
        """
        doomed = []
        for segment in segments:
            segment.close()
            if segment.base_offset in self.snapshots:
                self.snapshots.remove(segment.base_offset)
            for suffix in SEGMENT_SUFFIXES:
                path = segment.path(suffix)
                if self.disk.exists(path):
                    self.disk.rename(path, path + DELETED_SUFFIX)
                    doomed.append(path + DELETED_SUFFIX)

        def remove() -> None:
            for path in doomed:
                self.disk.remove(path)

        self.background.submit(remove, self.config.file_delete_delay_ms)
