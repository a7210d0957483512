"""Names of the files in a partition's folder (Kafka's LogFileUtils), and the files that are held open."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable
from typing import Protocol

from ottla.env.disk import Disk, File
from ottla.errors import KafkaError
from ottla.log.settings import LogConfig

logger = logging.getLogger(__name__)

LOG_SUFFIX = ".log"
INDEX_SUFFIX = ".index"
TIME_INDEX_SUFFIX = ".timeindex"
TXN_INDEX_SUFFIX = ".txnindex"
SNAPSHOT_SUFFIX = ".snapshot"
DELETED_SUFFIX = ".deleted"
CLEANED_SUFFIX = ".cleaned"
SWAP_SUFFIX = ".swap"

# Everything that belongs to one segment. The snapshot is of the state at its start.
SEGMENT_SUFFIXES = (LOG_SUFFIX, INDEX_SUFFIX, TIME_INDEX_SUFFIX, TXN_INDEX_SUFFIX, SNAPSHOT_SUFFIX)

EPOCHS_FILE = "leader-epoch-checkpoint"
PARTITION_METADATA_FILE = "partition.metadata"

# Segment files that are held open at once, over all logs of a broker.
OPEN_FILES_MAX = 2000


def offset_name(offset: int, suffix: str) -> str:
    """``00000000000000000042.log`` for offset 42."""
    return f"{offset:020d}{suffix}"


def offset_of(name: str) -> int | None:
    """The offset that a file's name begins with, None where it begins with none."""
    stem = name.partition(".")[0]
    return int(stem) if len(stem) == 20 and stem.isascii() and stem.isdigit() else None


class Holder(Protocol):
    """What holds an open file and can do without it for a while."""

    def let_go(self) -> None: ...


class FileCache:
    """Opens segment files and bounds how many stay open.

    The file that was opened first is let go first, whether it is in use or not: whoever needs it opens it
    again. Letting go only drops the segment's reference. A reader that still holds the file reads on, and
    the descriptor closes with the last reference, so that it can never be reused under a reader.
    """

    def __init__(self, disk: Disk, open_files_max: int = OPEN_FILES_MAX) -> None:
        self._disk = disk
        self._max = open_files_max
        self._holders: OrderedDict[Holder, None] = OrderedDict()

    def open(self, path: str, holder: Holder, *, create: bool) -> File:
        while len(self._holders) >= self._max:
            self._holders.popitem(last=False)[0].let_go()
        file = self._disk.open(path, create=create)
        self._holders[holder] = None
        return file

    def forget(self, holder: Holder) -> None:
        """A holder has closed its file for good."""
        self._holders.pop(holder, None)


class Background(Protocol):
    """Where a log leaves work that must not be waited for: syncing a rolled segment, removing files."""

    def submit(self, work: Callable[[], None], delay_ms: int = 0) -> None:
        """Run blocking work off the event loop, after a delay; failures are the background's to report."""
        ...

    def start_moved(self) -> None:
        """A log's start has moved within a segment: only a checkpoint remembers it."""
        ...

    def config_changed(self, config: LogConfig) -> None:
        """A log has taken on a configuration, which may ask for flushes by age."""
        ...


class InPlace:
    """Does the work at once, whatever its delay: for tools and tests that have no event loop."""

    def submit(self, work: Callable[[], None], delay_ms: int = 0) -> None:
        try:
            work()
        except (KafkaError, OSError) as error:
            logger.error("background work failed: %s", error)

    def start_moved(self) -> None:
        return

    def config_changed(self, config: LogConfig) -> None:
        return
