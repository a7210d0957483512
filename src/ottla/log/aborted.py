"""The aborted transactions of a log: the ``.txnindex`` files of its segments (Kafka's TransactionIndex).

A segment in which no transaction was aborted has no file. The entries of the segment that is appended to are
in memory, and in its file as well; those of the others are read when they are asked for. ``loading`` holds
the files against the log when it is opened.

Used from one thread, but for ``save``, ``read`` and ``overlapping``, which may run in any.
"""

from __future__ import annotations

import errno
import logging
from bisect import bisect_right
from collections.abc import Iterable
from functools import partial
from typing import Final, final

from ottla.env.disk import Disk, File
from ottla.errors import ErrorCode, KafkaError
from ottla.log.checkpoints import OFFSET_MAX
from ottla.log.file_cache import FileCache
from ottla.log.files import TXN_INDEX_SUFFIX, offset_name
from ottla.log.index_files import write_index
from ottla.log.segment_file import ColdRead
from ottla.log.transaction_index import ENTRY_BYTES, AbortedTransaction, TransactionIndex, encode_entry

logger = logging.getLogger(__name__)

# Entries of segments that are not appended to, held in memory for each log.
LOADED_ENTRIES_MAX: Final = 100_000
# A file of this size is read where it is needed, a larger one off the event loop.
LOADED_IN_PLACE_BYTES_MAX: Final = 256 * 1024


class _Held:
    """What is known of one segment's entries."""

    __slots__ = ("index", "saved")

    def __init__(self, index: TransactionIndex | None, saved: bool) -> None:
        # None: they are in the file only.
        self.index = index
        # Whether the file has all of them, for good.
        self.saved = saved


@final
class _Appended:
    """The file that is appended to, open from one abort to the next."""

    __slots__ = ("_cache", "_file", "_path")

    def __init__(self, cache: FileCache) -> None:
        self._cache = cache
        self._file: File | None = None
        self._path = ""

    def write(self, path: str, position: int, data: bytes) -> None:
        """OSError where that fails."""
        file = self._file
        if file is None or self._path != path:
            self.close()
            file = self._file = self._cache.open(path, self, create=True)
            self._path = path
        elif self._cache.crowded:
            self._cache.used(self)
        file.write_at(position, data)

    def let_go(self) -> None:
        """As ``Holder``."""
        self._file = None

    def close(self) -> None:
        """What is written next is another file, be it of the same name."""
        if self._file is not None:
            self._file = None
            self._cache.forget(self)


@final
class AbortedTransactions:
    """Which segments, by their base offsets, have any aborted transactions, and which."""

    __slots__ = ("_appended", "_disk", "_held", "_loaded", "directory")

    def __init__(self, disk: Disk, directory: str, cache: FileCache) -> None:
        self._disk = disk
        self.directory = directory
        self._appended = _Appended(cache)
        # In order of their bases.
        self._held: dict[int, _Held] = {}
        # Those whose entries were read and are in memory, the one that was read last in the end.
        self._loaded: dict[int, int] = {}

    def __bool__(self) -> bool:
        return bool(self._held)

    @property
    def bases(self) -> list[int]:
        """The base offsets of the segments that have any."""
        return list(self._held)

    def path(self, base_offset: int) -> str:
        return f"{self.directory}/{offset_name(base_offset, TXN_INDEX_SUFFIX)}"

    # -- writing ------------------------------------------------------------------------------------------

    def put(self, base_offset: int, index: TransactionIndex, *, saved: bool, keep: bool = False) -> None:
        """A segment has these entries, and no others. ``saved``: so has its file. ``keep``: it is the one
        that is appended to; the others are read when they are asked for, once they are saved."""
        self.forget((base_offset,))
        if not len(index):
            return
        is_last = not self._held or base_offset > next(reversed(self._held))
        self._held[base_offset] = _Held(index if keep or not saved else None, saved)
        if not keep:
            self.closed(base_offset)
        if not is_last:
            self._held = dict(sorted(self._held.items()))

    def add(self, base_offset: int, entry: AbortedTransaction) -> None:
        """An abort marker has been appended to a segment, the last one.

        Where its file cannot be written that is logged, and done again when the segment is closed.
        """
        held = self._held.get(base_offset)
        if held is None:
            held = self._held[base_offset] = _Held(TransactionIndex(), False)
        index = held.index
        # Of the last segment they always are in memory.
        assert index is not None
        if held.saved:
            # Its file has another in its place.
            self._appended.close()
        index.append(entry)
        held.saved = False
        path = self.path(base_offset)
        try:
            self._appended.write(path, (len(index) - 1) * ENTRY_BYTES, encode_entry(entry))
        except OSError as error:
            # It is not known what the file holds.
            self._appended.close()
            logger.warning("%s cannot be written: %s", path, error)

    def closed(self, base_offset: int) -> None:
        """A segment is not appended to any more."""
        self._appended.close()
        held = self._held.get(base_offset)
        if held is not None and held.index is not None:
            self._loaded[base_offset] = len(held.index)

    def save(self, base_offset: int, *, sync: bool = True) -> list[str]:
        """Have a segment's file on the disk, where it is not up to date. Blocks; OSError where that fails.

        The file, if it has yet to be synced."""
        held = self._held.get(base_offset)
        if held is None or held.saved or held.index is None:
            return []
        # Before the work: an entry that comes meanwhile is to be written again.
        held.saved = True
        try:
            write_index(self._disk, self.path(base_offset), held.index.encode(), sync=sync)
        except OSError:
            held.saved = False
            raise
        return [] if sync else [self.path(base_offset)]

    def is_saved(self, base_offset: int) -> bool:
        """Whether a segment's file is up to date, or it needs none."""
        held = self._held.get(base_offset)
        return held is None or held.saved

    # -- segments come and go -----------------------------------------------------------------------------

    def forget(self, bases: Iterable[int]) -> None:
        """These segments are gone, and their files."""
        self._appended.close()
        for base_offset in bases:
            self._held.pop(base_offset, None)
            self._loaded.pop(base_offset, None)

    def close(self) -> None:
        """Let the files go."""
        self._appended.close()

    def move_to(self, cache: FileCache) -> None:
        """Have open files counted elsewhere from now on."""
        self._appended.close()
        self._appended = _Appended(cache)

    def truncate_to(self, base_offset: int, offset: int) -> None:
        """A segment, the last one now, was cut and ends at ``offset``. OSError where the disk fails."""
        self._appended.close()
        held = self._held.get(base_offset)
        if held is None:
            return
        index = held.index if held.index is not None else self._load(base_offset)
        self._loaded.pop(base_offset, None)
        held.index = index
        if not index.truncate_to(offset):
            return
        held.saved = False
        if len(index):
            self.save(base_offset)
        else:
            self.forget((base_offset,))
            self._disk.remove(self.path(base_offset))

    # -- reading ------------------------------------------------------------------------------------------

    def collect(self, base_offset: int, fetch_offset: int, upper_bound: int) -> list[tuple[int, int]]:
        """(producer id, first offset) of the aborted transactions with records from ``fetch_offset`` on,
        which is in the segment at ``base_offset``, up to before ``upper_bound``; in the order of the markers.

        ColdRead, to be asked again; KafkaError KAFKA_STORAGE_ERROR where a file cannot be read.
        """
        found: list[tuple[int, int]] = []
        base = -1
        for base, held in self._held.items():
            if base < base_offset:
                continue
            index = held.index
            if index is None:
                index = self._loaded_index(base)
            if index.collect(found, fetch_offset, upper_bound):
                break
        if len(self._loaded) > 1:
            self._let_go(base)
        return found

    def _loaded_index(self, base_offset: int) -> TransactionIndex:
        """The entries of a segment that is not appended to any more, kept for the next to ask."""
        path = self.path(base_offset)
        try:
            if self._disk.size(path) > LOADED_IN_PLACE_BYTES_MAX:
                raise ColdRead(path, partial(self._keep, base_offset))
            return self._keep(base_offset)
        except OSError as error:
            why = f"{path} cannot be read: {error.strerror}"
            raise KafkaError(ErrorCode.kafka_storage_error, why) from error

    def _keep(self, base_offset: int) -> TransactionIndex:
        index = self._load(base_offset)
        held = self._held.get(base_offset)
        if held is not None and held.index is None:
            held.index = index
            self._loaded[base_offset] = len(index)
        return index

    def _let_go(self, used: int) -> None:
        """Forget what was read, the oldest first, where it is too much to be kept."""
        total = sum(list(self._loaded.values()))
        for base in list(self._loaded):
            if total <= LOADED_ENTRIES_MAX:
                return
            held = self._held.get(base)
            if base != used and (held is None or held.saved):
                total -= self._loaded.pop(base, 0)
                if held is not None:
                    held.index = None

    def _load(self, base_offset: int) -> TransactionIndex:
        """Read from the file, which was right when the log was opened. OSError."""
        path = self.path(base_offset)
        index = TransactionIndex.decode(self._disk.read_file(path), base_offset, OFFSET_MAX)
        if index is None:
            logger.error("%s is damaged: a restart builds it again", path)
            raise OSError(errno.EIO, "it is damaged", path)
        return index

    def overlapping(self, start_offset: int, upper_bound: int) -> list[AbortedTransaction]:
        """As ``collect``, whole entries, with records between two offsets, either of which may lie within a
        segment. Blocks; OSError where a file cannot be read."""
        found: list[AbortedTransaction] = []
        bases = list(self._held)
        # The segment that has the first offset, or one before it: none of whose entries reach so far.
        first = max(bisect_right(bases, start_offset) - 1, 0)
        for base in bases[first:]:
            if self.read(base).overlapping(found, start_offset, upper_bound):
                break
        return found

    def read(self, base_offset: int) -> TransactionIndex:
        """The entries of a segment. Blocks; OSError where the file cannot be read."""
        held = self._held.get(base_offset)
        if held is None:
            return TransactionIndex()
        index = held.index
        return index if index is not None else self._load(base_offset)
