"""A partition's log (Kafka's UnifiedLog): its start, its epochs, its producers, one way to write.

``Segments`` hold the bytes and tell where they end, ``Durability`` how many of them are on the disk for good.
Synchronous and used from one thread, but for ``flush``, which may run in another. Offsets are absolute, sizes
bytes, times milliseconds. A disk error is raised as KafkaError KAFKA_STORAGE_ERROR.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Final, final
from uuid import UUID

from ottla.env.disk import Disk
from ottla.errors import ErrorCode, KafkaError
from ottla.log import fetched, retention
from ottla.log.durability import Durability
from ottla.log.file_cache import FileCache
from ottla.log.files import Background, InPlace
from ottla.log.index import RELATIVE_OFFSET_MAX
from ottla.log.loading import Loader
from ottla.log.markers import EndMarker, marker_of
from ottla.log.recovery import replay
from ottla.log.replacement import Replacement
from ottla.log.segment import Segment
from ottla.log.segment_file import ColdRead
from ottla.log.segments import Segments, Slice, State
from ottla.log.settings import LONG_MAX, LogConfig, Origin
from ottla.log.validation import Appended, Prepared, Rules, prepare
from ottla.log.verification import VerificationGuard
from ottla.log.writing import Aside, Then, Writing
from ottla.types import Buffer, TopicPartition
from ottla.wire.records import CONTROL_BIT, STAMP, BatchHeader

logger = logging.getLogger(__name__)

PRODUCER_EXPIRATION_MS: Final = 24 * 60 * 60 * 1000
# Leader epochs are 32 bits.
LEADER_EPOCH_MAX: Final = 2**31 - 1

# Looking an enum's member up takes longer than all else that an append asks of it.
_SOUND: Final = State.SOUND
_CLIENT: Final = Origin.CLIENT
_NO_MARKERS: Final[Mapping[int, EndMarker | None]] = {}
_pack_stamp: Final = STAMP.pack


@final
class Log:
    """One partition's log. ``Log.open`` makes one."""

    def __init__(
        self, loaded: Loader, config: LogConfig, topic_partition: TopicPartition, background: Background
    ) -> None:
        self.directory = loaded.directory
        # Whether this process has made the folder and all that is in it.
        self.made_here = loaded.made_here
        self.topic_partition = topic_partition
        self.topic_id: UUID | None = loaded.topic_id
        self.config = config
        self.rules = Rules(config)
        self.producers = loaded.producers
        self.epochs = loaded.epochs
        self.log_start_offset = loaded.log_start_offset
        self._background = background
        self.snapshots = loaded.snapshots
        self._segments = Segments(
            loaded.disk, loaded.cache, loaded.directory, loaded.segments, loaded.log_end_offset,
            loaded.snapshots, background, config, loaded.aborted,
        )  # fmt: skip
        self.aborted = loaded.aborted
        self.durability = Durability(
            loaded.disk, self._segments, self.epochs, loaded.synced_offset,
            checkpointed=loaded.checkpointed_offset, names_topic=loaded.topic_id is not None,
            recovered=not loaded.clean and loaded.log_end_offset > 0,
        )  # fmt: skip
        self.replacement = Replacement(self._segments, self.durability, loaded.cleaned_offset)
        # A large batch that is being written. Whatever else concerns the log's end waits for it (``settle``).
        self._aside = Aside(self._segments, background)
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
        recovery_point: int | None = 0,
        log_start_offset: int = 0,
        cleaned_offset: int = -1,
        high_watermark: int | None = None,
        cache: FileCache | None = None,
        background: Background | None = None,
        producer_expiration_ms: int = PRODUCER_EXPIRATION_MS,
    ) -> Log:
        """Open a partition's folder, making it where it is missing.

        ``clean``: the broker shut down in order, so that ``recovery_point`` is where the log ends, if its
        last batches say so too, and its bytes need not be looked at. Otherwise the segments from the recovery
        point on are recovered; None: it is not known. ``high_watermark``: as it was written down.
        """
        loaded = Loader(
            disk=disk,
            cache=cache or FileCache(disk),
            directory=directory,
            clean=clean,
            recovery_point=recovery_point,
            log_start_offset=log_start_offset,
            cleaned_offset=cleaned_offset,
            high_watermark=high_watermark,
            now_ms=now_ms,
            producer_expiration_ms=producer_expiration_ms,
            index_interval_bytes=config.index_interval_bytes,
            compacted=config.compacts,
            topic_id=topic_id,
        ).load()
        return cls(loaded, config, topic_partition, background or InPlace())

    def update_config(self, config: LogConfig) -> None:
        """Take on a changed topic configuration, from the next append on."""
        self.config = config
        self.rules = Rules(config)
        # By default neither does: one look at each append, then.
        self._asks_for_flushes = config.flush_messages < LONG_MAX or config.flush_ms < LONG_MAX
        self._segments.update_config(config)
        self._background.config_changed(config)
        self._tell_unflushed()

    def _tell_unflushed(self) -> None:
        if self.config.flush_ms < LONG_MAX and self.unflushed_messages:
            self._background.begins_unflushed(self)

    # -- what there is ------------------------------------------------------------------------------------

    @property
    def log_end_offset(self) -> int:
        """The offset that the next record gets."""
        return self._segments.end_offset

    @property
    def size_bytes(self) -> int:
        return self._segments.size_bytes

    @property
    def segments(self) -> Sequence[Segment]:
        """Oldest first; at least one, of which the last is appended to."""
        return self._segments.all

    @property
    def cleaned_offset(self) -> int:
        """Compaction has been over everything before it; -1: never."""
        return self.replacement.cleaned_offset

    @property
    def deleted(self) -> bool:
        """Whether the partition is gone: nothing is written any more."""
        return self._segments.state is State.DELETED

    @property
    def writing(self) -> Writing | None:
        """The large batch that a thread writes now, if any. It is not in the log yet."""
        return self._aside.writing

    @property
    def taken(self) -> bool:
        """Whether who has something to append is to ``wait``: behind ``writing``, or others that waited."""
        return self._aside.taken

    @property
    def waiting(self) -> int:
        """How many wait to append."""
        return self._aside.waiting

    def wait(self, let_in: Callable[[None], object], *, is_large: bool) -> None:
        """Stand in line to append: see ``Aside.wait``. Only while it is ``taken``."""
        self._aside.wait(let_in, is_large=is_large)

    @property
    def failed(self) -> OSError | None:
        """Why it is not known any more what the disk holds; None where it is."""
        return self.durability.failed

    # -- appending ----------------------------------------------------------------------------------------

    def append(
        self,
        records: Buffer,
        *,
        leader_epoch: int,
        now_ms: int,
        origin: Origin = _CLIENT,
        prepared: Prepared | None = None,
        then: Then | None = None,
        guard: VerificationGuard | None = None,
        transaction_version: int = 0,
    ) -> Appended:
        """Append one batch as the leader: check it, number it, write it.

        A client's batch that takes long to check is to be ``prepared`` elsewhere: TakesLong where it is not.
        ``then``: have it written in a thread. As long as there is ``writing`` the batch is not in the log,
        and what is returned not true; ``then`` is told when it is, or of the error that this would raise.
        ``guard``: see ``Producers.begin_verification``. ``transaction_version``: of who sends a marker.

        KafkaError as ``validation.prepare``, ``Producers.check`` and ``check_marker`` say,
        KAFKA_STORAGE_ERROR where it cannot be written; the log is then as it was before.
        """
        if self._aside.writing is not None:
            self.settle()
        if prepared is None:
            prepared = prepare(records, self.rules, now_ms, origin, at_once=origin is _CLIENT)
        header, body = prepared
        if header.producer_id >= 0 and not header.attributes & CONTROL_BIT:
            original = self.producers.check(header, origin, guard)
            if original is not None:
                # As in Kafka the answer to a repeat bears the original's time, whoever set it.
                stamped = original.timestamp_ms
                return Appended(
                    original.first_offset, original.last_offset, stamped, self.log_start_offset, True
                )
        base_offset = self._segments.end_offset
        stamp = _pack_stamp(base_offset, header.length, leader_epoch)
        header.base_offset = base_offset
        header.partition_leader_epoch = leader_epoch
        markers = _NO_MARKERS
        if header.attributes & CONTROL_BIT:
            marker = marker_of(header, b"".join((stamp, body)))
            if marker is not None:
                self.producers.check_marker(header, marker, transaction_version)
            markers = {base_offset: marker}
        if then is None:
            self._write((stamp, body), (header,), markers, now_ms)
        else:
            self._begin_write((stamp, body), (header,), markers, now_ms, then)
        append_time_ms = header.max_timestamp_ms if self.rules.stamps_append_time else -1
        last_offset = base_offset + header.last_offset_delta
        return Appended(base_offset, last_offset, append_time_ms, self.log_start_offset, False)

    def append_as_follower(
        self, records: Buffer, *, now_ms: int, leader_epoch: int = LEADER_EPOCH_MAX
    ) -> None:
        """Append what a fetch from the leader, in its ``leader_epoch``, returned (appendAsFollower).

        All batches are checked before the first is written, and stay the leader's byte for byte; a last one
        that is cut off is left out. Blocks for the write. KafkaError as ``fetched.check`` says: nothing is
        appended then. KAFKA_STORAGE_ERROR where the disk fails: what was written to segments that are full
        by then stays, the rest is taken back. ``log_end_offset`` always tells.
        """
        self.settle()
        view = memoryview(records)
        end = self._segments.end_offset
        # Of an empty log the start may lie within the leader's first batch: records before it were deleted.
        is_empty = end == self.log_start_offset
        headers, markers = fetched.check(view, 0 if is_empty else end, self.epochs.latest, leader_epoch)
        if not headers:
            return
        # A last batch that is cut off stays out.
        whole = (view[: sum(header.size for header in headers)],)
        if headers[0].base_offset >= end:
            self._write(whole, headers, markers, now_ms)
            return
        if headers[0].last_offset < end:
            raise fetched.discontinuous(f"offset {headers[0].base_offset} is before the log's end, {end}")
        # Begin the empty log before its start (Partition's handling of UnexpectedAppendOffsetException).
        self._get_ready()
        self._begin_again(headers[0].base_offset, now_ms)
        self._write(whole, headers, markers, now_ms)
        self.advance_log_start(end)

    def _write(
        self,
        buffers: tuple[Buffer, ...],
        headers: tuple[BatchHeader, ...],
        markers: Mapping[int, EndMarker | None],
        now_ms: int,
    ) -> None:
        """Write batches that have been checked and numbered, as many at once as go to one segment.

        ``buffers`` hold one batch, or are one buffer of several, one after the other.
        """
        segments, durability = self._segments, self.durability
        if segments.state is not _SOUND or not segments.active.ready or durability.failed is not None:
            self._get_ready()
        while headers:
            before = segments.end_offset
            count, size = segments.write(buffers, headers, now_ms)
            if not count:
                self._make_room(headers[0], now_ms)
                continue
            self._note_written(headers if count == len(headers) else headers[:count], markers, before, now_ms)
            if count == len(headers):
                return
            headers, buffers = headers[count:], (memoryview(buffers[0])[size:],)

    def _note_written(
        self,
        headers: tuple[BatchHeader, ...],
        markers: Mapping[int, EndMarker | None],
        before: int,
        now_ms: int,
    ) -> None:
        """Note what follows from batches that have been written behind ``before``, where the log ended."""
        durability, epochs, producers = self.durability, self.epochs, self.producers
        if durability.point.offset == before:
            durability.begins_unflushed(now_ms)
            self._tell_unflushed()
        for header in headers:
            if header.partition_leader_epoch > epochs.latest:
                epochs.assign(header.partition_leader_epoch, header.base_offset)
            if header.producer_id >= 0:
                completed = producers.update(header, markers.get(header.base_offset))
                if completed is not None and completed.is_aborted:
                    self._segments.note_aborted(completed)
        producers.advance_to(self._segments.end_offset)

    def _begin_write(
        self,
        buffers: tuple[Buffer, ...],
        headers: tuple[BatchHeader, ...],
        markers: Mapping[int, EndMarker | None],
        now_ms: int,
        then: Then,
    ) -> None:
        """As ``_write`` of one batch, in a thread. KafkaError where it cannot be begun."""
        segments = self._segments
        self._get_ready()
        while not segments.fit(headers, now_ms)[0]:
            self._make_room(headers[0], now_ms)
        self._aside.begin(buffers, headers, markers, now_ms, self._note_written, then)

    def settle(self) -> None:
        """Have what is being written in the log, or refused, now: see ``Aside.settle``.

        Whoever changes the log's end in any other way, or who leads it, does this first.
        """
        self._aside.settle()

    def _make_room(self, header: BatchHeader, now_ms: int) -> None:
        """Begin a segment at the log's end; after a gap of more offsets than one can hold, behind that."""
        end = self._segments.end_offset
        is_far = header.last_offset - end > RELATIVE_OFFSET_MAX
        if self._segments.active.size:
            self.roll(now_ms, header.base_offset if is_far else end)
            return
        self._segments.move_active(header.base_offset, now_ms)
        self.durability.folder_changed()

    def _get_ready(self) -> None:
        """Before the first write, and after one that failed: make sure of all it needs, or refuse again."""
        if not self.deleted:
            self.durability.check()
        self._segments.get_ready()

    def roll(self, now_ms: int, base_offset: int | None = None) -> Segment:
        """Close the active segment and begin a new one at the log's end; the old one is synced later.

        ``base_offset``: begin it there instead, after the log's end. Nothing happens where the active segment
        is empty. KafkaError KAFKA_STORAGE_ERROR where the new file cannot be made; the log is then as it was.
        """
        self.settle()
        segments, end = self._segments, self._segments.end_offset
        if not segments.active.size:
            return segments.active
        if self.durability.must_flush_to_roll():
            self.flush()
        segments.roll(now_ms, end if base_offset is None else base_offset)
        self.durability.folder_changed()
        self._background.submit(partial(self.flush, end, self.snapshots.take(self.producers)))
        if self.config.compacts:
            self._background.segment_closed()
        return segments.active

    # -- reading ------------------------------------------------------------------------------------------

    def read(self, offset: int, max_bytes: int, *, end_offset: int, min_one: bool = False) -> Slice | None:
        """Where the batches from ``offset`` on are, before ``end_offset``, up to ``max_bytes`` of them.

        Begins with the batch that holds ``offset``, which is always whole; the last batch may be cut off.
        ``min_one``: the first is there even where it is larger than ``max_bytes``. None where there is
        nothing to be had. Kafka's clients take a piece without one whole batch for a broken broker.

        KafkaError OFFSET_OUT_OF_RANGE before the log's start and after its end. ColdRead: see
        ``lookups.look_up_warm``.
        """
        start, end = self.log_start_offset, self._segments.end_offset
        if not start <= offset <= end:
            why = f"offset {offset} is not within [{start}, {end}]"
            raise KafkaError(ErrorCode.offset_out_of_range, why)
        if offset >= end_offset or offset == end:
            return None
        try:
            return self._segments.read(offset, max_bytes, end_offset, min_one)
        except OSError as error:
            why = f"the log cannot be read: {error.strerror}"
            raise KafkaError(ErrorCode.kafka_storage_error, why) from error

    def aborted_in(self, offset: int, end_offset: int, piece: Slice) -> list[tuple[int, int]]:
        """The aborted transactions in what ``read`` has found: ``Segments.aborted_in``."""
        try:
            return self._segments.aborted_in(offset, end_offset, piece)
        except OSError as error:
            why = f"the log cannot be read: {error.strerror}"
            raise KafkaError(ErrorCode.kafka_storage_error, why) from error

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
        return self.epochs.end_offset_for(epoch, self._segments.end_offset)

    # -- durability ---------------------------------------------------------------------------------------

    @property
    def recovery_point(self) -> int:
        """Everything before it would survive a loss of power."""
        return self.durability.point.offset

    @property
    def unflushed_messages(self) -> int:
        """Records that a loss of power might take."""
        return self.durability.unflushed_messages

    def sync_due(self, now_ms: int) -> bool:
        """Whether flush.messages or flush.ms asks for a flush."""
        return self._asks_for_flushes and self.durability.is_due(self.config, now_ms)

    def flush(self, before: int | None = None, save: Callable[[], None] | None = None) -> None:
        """Make everything that is appended by now survive a loss of power: see ``Durability.flush``."""
        self.durability.flush(before, save)

    def write_out(self) -> list[str]:
        """Write all that a clean start relies on; the files that have yet to be synced. Blocks.

        KafkaError KAFKA_STORAGE_ERROR where that fails: the log must then be opened as after a crash.
        """
        self.settle()
        segments = self._segments
        if segments.state is not _SOUND or self.durability.failed is not None:
            # What a failed write left must be gone.
            self._get_ready()
        try:
            written = [*segments.write_indexes(), *self.durability.write_epochs()]
            # Recovery finds out about producers by itself; a clean start has only this.
            return written + self.snapshots.write(self.producers)
        except OSError as error:
            raise KafkaError(ErrorCode.kafka_storage_error, str(error)) from error

    def close(self, written: Iterable[str] = ()) -> None:
        """Have all that a clean start relies on on the disk, and let the files go: as ``write_out``, of which
        ``written`` is what earlier ones returned."""
        self.durability.sync_all({*written, *self.write_out()})
        self._segments.close()

    def abandon(self) -> None:
        """Let the files go and write nothing more: as a crash would, or since all is on the disk."""
        self._aside.give_up(KafkaError(ErrorCode.kafka_storage_error, "the broker ends"))
        self._segments.close()

    def retire(self) -> None:
        """The partition is gone: let the files go; whoever still has the log cannot write to it any more."""
        self._aside.give_up(
            KafkaError(ErrorCode.unknown_topic_or_partition, "the partition has been deleted")
        )
        self._segments.retire()
        self.snapshots.forget_all()

    # -- its end ------------------------------------------------------------------------------------------

    def truncate_to(self, offset: int, now_ms: int) -> bool:
        """Cut off everything at and after ``offset``; whether there was anything (UnifiedLog.truncateTo).

        A batch that ``offset`` lies within goes as a whole. Blocks. OSError where the disk fails: nothing is
        appended then until a restart has looked at what is left.
        """
        self.settle()
        segments = self._segments
        if offset >= segments.end_offset:
            self.epochs.truncate_from_end(segments.end_offset)
            return False
        if offset < segments.all[0].base_offset:
            self.truncate_fully_to(offset, now_ms)
            return True
        cut, end_before = segments.find_cut(offset), segments.end_offset
        try:
            segments.truncate(cut)
            self._ends_now(end_before, now_ms)
        except OSError as error:
            # What was to go may still be there, whole or in part.
            self.durability.fail(error)
            raise
        return True

    def truncate_fully_to(self, offset: int, now_ms: int) -> None:
        """Drop everything and begin again, empty, at ``offset``. OSError where the disk fails."""
        self.settle()
        end_before = self._segments.end_offset
        self._segments.begin_again(offset, now_ms)
        self.log_start_offset = offset
        self.epochs.truncate_from_end(0)
        self.snapshots.remove_after(-1)
        self.producers.clear(offset)
        self._ends_now(end_before, now_ms)

    def _ends_now(self, end_before: int, now_ms: int) -> None:
        """Bring all that follows from the batches back to a log that was cut, and ended there before."""
        end = self._segments.end_offset
        self.log_start_offset = min(self.log_start_offset, end)
        self.durability.truncated(end_before, end)
        self.replacement.truncated(end)
        self.epochs.truncate_from_end(end)
        self.snapshots.remove_after(end)
        if not self.producers.truncate_to(end):
            # Reading back to the last snapshot, at the active segment's start, may take seconds.
            self.snapshots.load(self.producers, end, now_ms)
            replay(self._segments.all, self.producers, end)

    def _begin_again(self, offset: int, now_ms: int) -> None:
        """``truncate_fully_to``, where it serves a write: KafkaError KAFKA_STORAGE_ERROR."""
        try:
            self.truncate_fully_to(offset, now_ms)
        except OSError as error:
            raise self._segments.write_failed(error, now_ms) from error

    # -- its start ----------------------------------------------------------------------------------------

    def advance_log_start(self, offset: int) -> bool:
        """Let the log begin at ``offset``, for DeleteRecords; whether that is later than before.

        The caller checks it against the high watermark. Segments before it go at the next retention.
        KafkaError OFFSET_OUT_OF_RANGE beyond the log's end. Followers use ``follow_log_start``.
        """
        if offset > self._segments.end_offset:
            why = f"the log cannot begin at {offset}, it ends at {self._segments.end_offset}"
            raise KafkaError(ErrorCode.offset_out_of_range, why)
        if offset <= self.log_start_offset:
            return False
        self.log_start_offset = offset
        self.epochs.truncate_from_start(offset)
        self._background.start_moved()
        return True

    def follow_log_start(self, leader_log_start: int, now_ms: int) -> bool:
        """Let the log begin where its leader's does, or stay where it begins later; whether it moved.

        Where the leader's begins after this log's end there is nothing in common: it begins again there,
        empty (ReplicaFetcherThread.fetchOffsetAndTruncate). KafkaError KAFKA_STORAGE_ERROR where the disk
        fails.
        """
        self.settle()
        if leader_log_start <= self._segments.end_offset:
            return self.advance_log_start(leader_log_start)
        self._begin_again(leader_log_start, now_ms)
        return True

    def apply_retention(self, now_ms: int, high_watermark: int | None = None) -> int:
        """Delete the segments that are due, oldest first; how many (UnifiedLog.deleteOldSegments).

        Those that lie wholly before the log's start always; where cleanup.policy says delete, also as many
        as retention.bytes allows, and those whose newest record is older than retention.ms. None that
        reaches the high watermark. Where all are due the active one rolls first, so that the log keeps its
        end. KafkaError KAFKA_STORAGE_ERROR where the disk fails.
        """
        self.settle()
        segments, deleted = self._segments, 0
        visible = segments.end_offset if high_watermark is None else high_watermark
        try:
            for count, why in retention.due(segments, self.config, self.log_start_offset, visible, now_ms):
                deleted += self._delete(count, now_ms, why)
        except ColdRead:
            # The log has to be asked whether time indexes are right: the next round knows.
            asked = map(Segment.largest_timestamp_ms, retention.candidates(segments, visible))
            self._background.submit(partial(retention.ask, asked, now_ms, self.config.retention_ms))
        except OSError as error:
            logger.error("%s: cannot delete segments: %s", self.directory, error)
            raise KafkaError(ErrorCode.kafka_storage_error, str(error)) from error
        return deleted

    def _delete(self, count: int, now_ms: int, why: str) -> int:
        """Delete so many of the oldest segments."""
        if not count:
            return 0
        if count == len(self._segments.all):
            self.roll(now_ms)
        bases = [segment.base_offset for segment in self._segments.all[: count + 1]]
        logger.info("%s: deleting segments %s because %s", self.directory, bases[:-1], why)
        self.advance_log_start(bases[-1])
        self._segments.drop_first(count)
        return count
