"""Going through a partition's folder with no broker running: what is damaged, and mending what can be.

Every batch is read. The files beside a log are held against its batches as the broker does when it meets
them, here all of them, entry by entry. What follows from the log can be written anew; a batch cannot. Blocks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

from ottla.env.disk import Disk
from ottla.errors import KafkaError
from ottla.log.checkpoints import (
    CHECKPOINT_BYTES_MAX,
    PROPERTIES_BYTES_MAX,
    CheckpointDamaged,
    decode_epochs,
    decode_partition_metadata,
    encode_epochs,
)
from ottla.log.epochs import LeaderEpochs
from ottla.log.files import (
    EPOCHS_FILE,
    INDEX_SUFFIX,
    LOG_SUFFIX,
    PARTITION_METADATA_FILE,
    SNAPSHOT_SUFFIX,
    TIME_INDEX_SUFFIX,
    TXN_INDEX_SUFFIX,
    offset_name,
    offset_of,
    read_small,
)
from ottla.log.index import OffsetIndex, TimeIndex
from ottla.log.index_files import IndexBuilder, read_index, write_index
from ottla.log.markers import marker_of
from ottla.log.producers import Producers, decode_snapshot
from ottla.log.recovery import note_aborted
from ottla.log.settings import LONG_MAX
from ottla.log.transaction_index import TransactionIndex
from ottla.log.walking import Batch, Gap, salvage
from ottla.wire.records import BatchHeader

# A snapshot's size: 63 bytes for each batch that is remembered of each producer.
SNAPSHOT_BYTES_MAX = 1 << 30


class Remedy(StrEnum):
    """What helps."""

    # It follows from the log, and ``repair`` writes it anew or removes it.
    REPAIR = "repair"
    # The next start cuts or corrects it by itself.
    START = "start"
    # Nothing: the bytes are gone. A replica may have them.
    NONE = "none"


class Problem(NamedTuple):
    """Something that is not as it should be. ``position``: bytes, or -1."""

    path: str
    position: int
    message: str
    remedy: Remedy


@dataclass(slots=True)
class Verified:
    """What came of going through a partition's folder."""

    directory: str
    problems: list[Problem] = field(default_factory=list)
    repaired: list[str] = field(default_factory=list)
    start_offset: int = 0
    end_offset: int = 0
    batches: int = 0
    size_bytes: int = 0


class PartitionVerifier:
    """Goes through one partition's folder. ``done`` is told how many bytes of segments have been read."""

    def __init__(
        self,
        disk: Disk,
        directory: str,
        *,
        is_clean: bool,
        is_compacted: bool = False,
        log_start_offset: int = 0,
        repair: bool = False,
        done: Callable[[int], None] = lambda count: None,
    ) -> None:
        self._disk = disk
        self._directory = directory
        # Whether a start relies on the last segment as it is, or recovers it.
        self._is_clean = is_clean
        # Whether offsets may be missing between batches.
        self._is_compacted = is_compacted
        # Records before it are deleted, although their segment may be there.
        self._log_start_offset = log_start_offset
        self._repair = repair
        self._done = done
        self._epochs = LeaderEpochs()
        self._producers = Producers(0, LONG_MAX)
        # Whether damage at the end of the segment before tells what is missing; whether there is any damage.
        self._ends_in_gap = False
        self._has_gaps = False
        self._result = Verified(directory)

    def verify(self) -> Verified:
        """Go through it all. OSError where the disk fails."""
        result, names = self._result, set(self._disk.list(self._directory))
        logs = sorted(name for name in names if name.endswith(LOG_SUFFIX) and offset_of(name) is not None)
        for number, name in enumerate(logs):
            base_offset = offset_of(name)
            assert base_offset is not None
            if not number:
                result.start_offset = result.end_offset = base_offset
            self._check_place(name, base_offset)
            self._verify_segment(name, base_offset, is_last=number + 1 == len(logs))
        self._verify_epochs(EPOCHS_FILE in names)
        for name in sorted(names):
            if name.endswith(SNAPSHOT_SUFFIX) and offset_of(name) is not None:
                self._verify_snapshot(name)
        self._verify_topic_id()
        return result

    def _problem(self, name: str, position: int, message: str, remedy: Remedy) -> None:
        self._result.problems.append(Problem(f"{self._directory}/{name}", position, message, remedy))

    def _repaired(self, name: str) -> None:
        self._result.repaired.append(f"{self._directory}/{name}")

    def _check_place(self, name: str, base_offset: int) -> None:
        end = self._result.end_offset
        if base_offset < end:
            message = f"it begins at {base_offset}, and what comes before it ends at {end}"
            self._problem(name, -1, message, Remedy.NONE)
        elif base_offset > end and not self._is_compacted and not self._ends_in_gap:
            self._problem(name, -1, f"offsets {end} to {base_offset - 1} are missing before it", Remedy.NONE)
        self._result.end_offset = max(end, base_offset)

    # -- a segment ----------------------------------------------------------------------------------------

    def _verify_segment(self, name: str, base_offset: int, *, is_last: bool) -> None:
        stem = f"{self._directory}/{offset_name(base_offset, '')}"
        file = self._disk.open(stem + LOG_SUFFIX)
        try:
            size, read_before = file.size(), self._result.size_bytes
            indexes = _Indexes(self._disk, stem, base_offset, size)
            self._ends_in_gap = False
            ended = _Ended()
            for found in salvage(file, size, base_offset, indexes.hints):
                self._ends_in_gap = isinstance(found, Gap)
                if isinstance(found, Gap):
                    self._has_gaps = True
                    self._tell_gap(name, found, size, is_last)
                    continue
                indexes.note(found)
                ended.note(found, self._producers)
                self._note(found.header)
                self._done(read_before + found.position)
        finally:
            file.close()
        self._result.size_bytes += size
        if is_last and not self._is_clean:
            # Its indexes are built anew in any case.
            return
        self._verify_aborted(base_offset, ended)
        wrong = indexes.wrong(must_exist=not is_last)
        for suffix, message in wrong:
            self._problem(offset_name(base_offset, suffix), -1, message, Remedy.REPAIR)
        if wrong and self._repair:
            indexes.write()
            for suffix, _ in wrong:
                self._repaired(offset_name(base_offset, suffix))

    def _verify_aborted(self, base_offset: int, ended: _Ended) -> None:
        """A segment's transaction index; where nothing was aborted there need be none."""
        name = offset_name(base_offset, TXN_INDEX_SUFFIX)
        path = f"{self._directory}/{name}"
        data = read_index(self._disk, path)
        message = ended.contradiction(data, base_offset, self._result.end_offset, is_whole=not self._has_gaps)
        if not message:
            return
        self._problem(name, -1, message, Remedy.REPAIR)
        if self._repair:
            if len(ended.aborted):
                write_index(self._disk, path, ended.aborted.encode())
            else:
                self._disk.remove(path)
            self._repaired(name)

    def _tell_gap(self, name: str, gap: Gap, size: int, is_last: bool) -> None:
        is_tail = is_last and gap.end == size
        message = f"no whole batches up to position {gap.end}, where offset {self._result.end_offset} belongs"
        self._problem(name, gap.position, message, Remedy.START if is_tail else Remedy.NONE)

    def _note(self, header: BatchHeader) -> None:
        self._result.batches += 1
        self._result.end_offset = header.next_offset
        if header.partition_leader_epoch > self._epochs.latest:
            self._epochs.assign(header.partition_leader_epoch, header.base_offset)

    # -- beside the segments ------------------------------------------------------------------------------

    def _verify_epochs(self, exists: bool) -> None:
        right, path = self._epochs.entries, f"{self._directory}/{EPOCHS_FILE}"
        message = "it is missing" if right else ""
        if exists:
            try:
                entries = decode_epochs(read_small(self._disk, path, CHECKPOINT_BYTES_MAX))
                message = self._contradiction(LeaderEpochs(entries), right)
            except CheckpointDamaged as error:
                message = str(error)
        if not message:
            return
        self._problem(EPOCHS_FILE, -1, message, Remedy.REPAIR)
        if self._repair:
            self._disk.write_file(path, encode_epochs(right))
            self._repaired(EPOCHS_FILE)

    def _contradiction(self, told: LeaderEpochs, right: Sequence[tuple[int, int]]) -> str:
        """Where the checkpoint differs from the batches; empty where it does not.

        The first epoch may begin at the log's start, and one that wrote nothing at its end.
        """
        end = self._result.end_offset
        for number, (epoch, start) in enumerate(right):
            following = right[number + 1][1] if number + 1 < len(right) else end
            # Epochs are forgotten with the records that are deleted.
            for offset in (max(start, self._log_start_offset), following - 1):
                if self._log_start_offset <= offset < following and told.epoch_at(offset) != epoch:
                    return f"offset {offset} is of epoch {epoch}, not {told.epoch_at(offset)}"
        known = {epoch for epoch, _ in right}
        extra = [entry for entry in told.entries if entry[0] not in known and self._start <= entry[1] < end]
        return f"no batch is of epoch {extra[0][0]}" if extra and right else ""

    @property
    def _start(self) -> int:
        return self._result.start_offset

    def _verify_snapshot(self, name: str) -> None:
        offset = offset_of(name) or 0
        path = f"{self._directory}/{name}"
        message = ""
        try:
            entries = decode_snapshot(read_small(self._disk, path, SNAPSHOT_BYTES_MAX))
            lasts = [last for entry in entries if (last := entry.last_batch) is not None]
            if any(last.last_offset >= offset for last in lasts):
                message = f"it tells of batches at and after {offset}"
            elif offset > self._result.end_offset:
                message = f"the log ends at {self._result.end_offset}"
        except (ValueError, CheckpointDamaged) as error:
            message = str(error)
        if not message:
            return
        self._problem(name, -1, message, Remedy.REPAIR)
        if self._repair:
            self._disk.remove(path)
            self._repaired(name)

    def _verify_topic_id(self) -> None:
        path = f"{self._directory}/{PARTITION_METADATA_FILE}"
        try:
            decode_partition_metadata(read_small(self._disk, path, PROPERTIES_BYTES_MAX))
        except FileNotFoundError:
            self._problem(PARTITION_METADATA_FILE, -1, "it is missing", Remedy.START)
        except CheckpointDamaged as error:
            self._problem(PARTITION_METADATA_FILE, -1, str(error), Remedy.START)


class _Ended:
    """The transactions that ended in a segment, as its batches say, and those before it."""

    def __init__(self) -> None:
        self.aborted = TransactionIndex()
        # Producers and offsets of abort markers, also of those that end nothing that is still there.
        self._markers: set[tuple[int, int]] = set()

    def note(self, batch: Batch, producers: Producers) -> None:
        header = batch.header
        marker = None
        with suppress(KafkaError):
            marker = marker_of(header, batch.data)
        if marker is not None and not marker.commits:
            self._markers.add((header.producer_id, header.last_offset))
        note_aborted(self.aborted, producers.update(header, marker))

    def contradiction(self, data: bytes | None, base_offset: int, end_offset: int, *, is_whole: bool) -> str:
        """Where an index differs; empty where it does not. ``is_whole``: nothing of the log is damaged.

        Of a transaction whose first batches are gone the index may know more than the log, as it may of
        markers that are damaged. Compaction may have left a marker whose entry is gone.
        """
        if data is None:
            return "it is missing" if len(self.aborted) else ""
        index = TransactionIndex.decode(data, base_offset, end_offset)
        if index is None:
            return "it makes no sense"
        told = {(entry.producer_id, entry.last_offset): entry for entry in index}
        for entry in self.aborted:
            known = told.pop((entry.producer_id, entry.last_offset), None)
            if (
                known is None
                or known.first_offset > entry.first_offset
                or (is_whole and known.last_stable_offset > entry.last_stable_offset)
            ):
                return f"it does not tell what producer {entry.producer_id} aborted at {entry.last_offset}"
        for producer_id, last_offset in told:
            if is_whole and (producer_id, last_offset) not in self._markers:
                return f"it tells that producer {producer_id} aborted at {last_offset}, where no marker is"
        return ""


class _Indexes:
    """The two indexes of a segment as its files have them, and as its batches say."""

    def __init__(self, disk: Disk, stem: str, base_offset: int, size: int) -> None:
        self._disk = disk
        self._stem = stem
        self._base_offset = base_offset
        offsets = read_index(disk, stem + INDEX_SUFFIX)
        times = read_index(disk, stem + TIME_INDEX_SUFFIX)
        self._exist = {INDEX_SUFFIX: offsets is not None, TIME_INDEX_SUFFIX: times is not None}
        self._offsets = OffsetIndex.decode(base_offset, offsets, size) if offsets is not None else None
        self._times = TimeIndex.decode(base_offset, times) if times is not None else None
        self._builder = IndexBuilder(base_offset)
        self._is_empty = True
        self._messages: dict[str, str] = {}
        self._offset_entry = self._time_entry = 0

    @property
    def hints(self) -> Sequence[int]:
        return self._offsets.positions if self._offsets is not None else ()

    def note(self, batch: Batch) -> None:
        """Hold the entries that are of this batch, in order, against it."""
        header, position, _ = batch
        self._is_empty = False
        index = self._offsets
        while index is not None and self._offset_entry < len(index):
            number = self._offset_entry
            if index.positions[number] > position:
                break
            offset = self._base_offset + index.offsets[number]
            if index.positions[number] < position or header.base_offset > offset:
                self._messages.setdefault(
                    INDEX_SUFFIX, f"entry {number} says that offset {offset} is at {index.positions[number]}"
                )
            self._offset_entry += 1
        largest_before_ms = self._builder.largest_ms
        self._builder.note(header, position)
        times = self._times
        while times is not None and self._time_entry < len(times):
            number = self._time_entry
            offset, timestamp_ms = self._base_offset + times.offsets[number], times.timestamps[number]
            if offset > header.last_offset:
                break
            if header.max_timestamp_ms != timestamp_ms or largest_before_ms >= timestamp_ms:
                self._messages.setdefault(
                    TIME_INDEX_SUFFIX, f"entry {number} says that offset {offset} has time {timestamp_ms}"
                )
            self._time_entry += 1

    def wrong(self, *, must_exist: bool) -> list[tuple[str, str]]:
        """What is wrong with them, by their suffixes, when all batches have been noted."""
        if self._is_empty:
            return []
        for suffix, index in ((INDEX_SUFFIX, self._offsets), (TIME_INDEX_SUFFIX, self._times)):
            if not self._exist[suffix]:
                if must_exist:
                    self._messages[suffix] = "it is missing"
            elif index is None:
                self._messages[suffix] = "it makes no sense"
        if self._offsets is not None and self._offset_entry < len(self._offsets):
            self._messages.setdefault(INDEX_SUFFIX, f"entry {self._offset_entry} is of no batch")
        if self._times is not None:
            if self._time_entry < len(self._times):
                self._messages.setdefault(TIME_INDEX_SUFFIX, f"entry {self._time_entry} is of no batch")
            elif self._times.last[0] != self._builder.largest_ms:
                told, right = self._times.last[0], self._builder.largest_ms
                message = f"its largest time is {told}, and that of the log {right}"
                self._messages.setdefault(TIME_INDEX_SUFFIX, message)
        return sorted(self._messages.items())

    def write(self) -> None:
        """Write both as the batches say. OSError where the disk fails."""
        offsets, times = self._builder.sealed()
        write_index(self._disk, self._stem + INDEX_SUFFIX, offsets.encode())
        write_index(self._disk, self._stem + TIME_INDEX_SUFFIX, times.encode())


def segment_bytes(disk: Disk, directory: str) -> int:
    """How much there is to be read in a partition's folder."""
    return sum(disk.size(f"{directory}/{name}") for name in _segment_names(disk, directory))


def _segment_names(disk: Disk, directory: str) -> Iterator[str]:
    for name in disk.list(directory):
        if name.endswith(LOG_SUFFIX) and offset_of(name) is not None:
            yield name
