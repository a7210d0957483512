"""The log file of a segment: opened and let go of, read, and what is damaged in it told."""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from ottla.env.disk import Disk, File
from ottla.errors import ErrorCode, KafkaError
from ottla.log.file_cache import FileCache
from ottla.log.files import LOG_SUFFIX, offset_name
from ottla.log.walking import Batch, Gap, salvage
from ottla.types import Buffer

T = TypeVar("T")

logger = logging.getLogger(__name__)


class ColdRead(Exception):
    """A look-up needs bytes that are not in memory. Run ``warm`` off the event loop and look up again."""

    def __init__(self, what: str, read: Callable[[], object]) -> None:
        super().__init__(what)
        self._read = read

    def warm(self) -> None:
        """Bring the bytes into memory. Blocks; safe in another thread.

        KafkaError KAFKA_STORAGE_ERROR where they cannot be read. That the file is gone is none: retention
        was faster, and the next look-up finds what there is now.
        """
        try:
            self._read()
        except FileNotFoundError:
            return
        except OSError as error:
            raise KafkaError(ErrorCode.kafka_storage_error, f"{self}: {error.strerror}") from error


class SegmentFile:
    """The file with the batches from ``base_offset`` on, ``size`` bytes of them."""

    __slots__ = ("_cache", "_closed", "_damaged", "_disk", "_file", "base_offset", "directory", "size")

    def __init__(self, disk: Disk, cache: FileCache, directory: str, base_offset: int, size: int) -> None:
        self._disk = disk
        self._cache = cache
        self.directory = directory
        self.base_offset = base_offset
        self.size = size
        self._file: File | None = None
        self._closed = False
        # Where it is known to be damaged.
        self._damaged: set[int] = set()

    def path(self, suffix: str) -> str:
        return f"{self.directory}/{offset_name(self.base_offset, suffix)}"

    @property
    def file(self) -> File:
        """The log file, opened where it is not. For the event loop only: other threads use ``own_file``."""
        file = self._file
        if file is None:
            self._check_open()
            file = self._file = self._cache.open(self.path(LOG_SUFFIX), self, create=False)
        elif self._cache.crowded:
            self._cache.used(self)
        return file

    def own_file(self) -> File:
        """The log file for reading and syncing in any thread.

        One that is opened here does not become the segment's. An open file knows where it ends; if two were
        appended to, one after the other, the second would write over what the first one wrote.
        """
        file = self._file
        if file is None:
            self._check_open()
            file = self._disk.open(self.path(LOG_SUFFIX))
        return file

    def let_go(self) -> None:
        """Drop the open file; it opens again when it is needed."""
        self._file = None

    def keep_only(self, file: File) -> None:
        """``file`` was appended to in a thread: one that was opened meanwhile does not know where it ends."""
        if self._file is not file:
            self._cache.forget(self)
            self._file = None

    def move_to(self, cache: FileCache) -> None:
        """Have the open file counted elsewhere from now on."""
        self._cache.forget(self)
        self._cache = cache
        if self._file is not None:
            cache.take_over(self)

    def close(self) -> None:
        """Give up the files for good. Nothing is written: see ``save_indexes``."""
        self._closed = True
        self._cache.forget(self)
        self._file = None

    def _check_open(self) -> None:
        """FileNotFoundError once it is closed: its paths may be those of another topic's files by now."""
        if self._closed:
            raise FileNotFoundError(errno.ENOENT, "the segment is closed", self.path(LOG_SUFFIX))

    def peek(self, position: int, size: int) -> Buffer:
        """Bytes that are in memory; ColdRead where they are not."""
        file = self.file
        data = file.read_cached(position, size)
        if data is None:
            raise ColdRead(f"{file.path} at {position}", lambda: file.read(position, size))
        return data

    def salvage(self, hints: Sequence[int]) -> Iterator[Batch]:
        """Every valid batch, also behind damage, which is told: see ``walking.salvage``. Blocks."""
        for found in salvage(self.own_file(), self.size, self.base_offset, hints):
            if isinstance(found, Gap):
                self.tell_damage(found.position, found.end)
            else:
                yield found

    @property
    def is_damaged(self) -> bool:
        """Whether the log itself is known to be damaged."""
        return bool(self._damaged)

    def tell_damage(self, position: int, end: int) -> None:
        """Say once that the log itself is damaged."""
        if position not in self._damaged:
            self._damaged.add(position)
            logger.error(
                "%s is damaged: no whole batches from position %d up to %d. Consumers of these records get "
                "CORRUPT_MESSAGE, 'ottla log verify' tells more",
                self.path(LOG_SUFFIX), position, end,
            )  # fmt: skip

    def outlast(self, look_up: Callable[[], T]) -> T:
        """What a look-up that blocks returns, after the indexes were built again where they were wrong."""
        try:
            return look_up()
        except ColdRead as cold:
            cold.warm()
            return look_up()
