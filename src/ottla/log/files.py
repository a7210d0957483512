"""Names of the files in a partition's folder (Kafka's LogFileUtils), and what a log leaves to others."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from typing import Protocol
from uuid import UUID

from ottla.env.disk import Begun, Disk
from ottla.errors import KafkaError
from ottla.log.checkpoints import (
    OFFSET_MAX,
    PROPERTIES_BYTES_MAX,
    CheckpointDamaged,
    decode_partition_metadata,
)
from ottla.log.flushing import Flushable
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

# While it is written, swapped in or removed a file has one of these, or more, in addition.
ASIDE_SUFFIX = ".tmp"
_SEGMENT_FILE = re.compile(
    r"([0-9]{20})(?:\.log|\.index|\.timeindex|\.txnindex|\.snapshot)(?:\.tmp|\.deleted|\.cleaned|\.swap)*"
)

EPOCHS_FILE = "leader-epoch-checkpoint"
PARTITION_METADATA_FILE = "partition.metadata"


def offset_name(offset: int, suffix: str) -> str:
    """``00000000000000000042.log`` for offset 42."""
    return f"{offset:020d}{suffix}"


def offset_of(name: str) -> int | None:
    """The offset in the name of a segment's file, also of one on its way in or out; None: it is none."""
    match = _SEGMENT_FILE.fullmatch(name)
    offset = int(match[1]) if match is not None else OFFSET_MAX + 1
    return offset if offset <= OFFSET_MAX else None


def read_small(disk: Disk, path: str, bytes_max: int) -> bytes:
    """A file that is known to be small. CheckpointDamaged where there is a folder, or a file that is larger.

    FileNotFoundError where there is none, OSError where the disk fails.
    """
    try:
        size = disk.size(path)
        if size > bytes_max:
            raise CheckpointDamaged(f"it has {size} bytes")
        return disk.read_file(path)
    except IsADirectoryError as error:
        raise CheckpointDamaged("it is a folder: move it away") from error


def read_topic_id(disk: Disk, directory: str) -> UUID | None:
    """The id of the topic that a folder belongs to; None where it is not known."""
    path = f"{directory}/{PARTITION_METADATA_FILE}"
    try:
        return decode_partition_metadata(read_small(disk, path, PROPERTIES_BYTES_MAX))
    except FileNotFoundError:
        return None
    except CheckpointDamaged as error:
        # A loss of power soon after it was made; the cluster's metadata knows the id too.
        logger.warning("%s is damaged, ignoring it: %s", path, error)
        return None


class Background(Protocol):
    """Where a log leaves work that must not be waited for: syncing a rolled segment, removing files."""

    def submit(self, work: Callable[[], None], delay_ms: int = 0) -> None:
        """Run blocking work off the event loop, after a delay; failures are the background's to report."""
        ...

    def begin_write(self, work: Callable[[], None], done: Callable[[], None]) -> Begun:
        """Have a large write made in a thread: ``Disk.begin_write``."""
        ...

    def start_moved(self) -> None:
        """A log's start has moved within a segment: only a checkpoint remembers it."""
        ...

    def segment_closed(self) -> None:
        """A log that is to be compacted has one closed segment more."""
        ...

    def config_changed(self, config: LogConfig) -> None:
        """A log has taken on a configuration."""
        ...

    def begins_unflushed(self, log: Flushable) -> None:
        """A log with flush.ms has something that is not on the disk, and had nothing before."""
        ...


class _NotBegun:
    """A write that is made when it has to be finished."""

    __slots__ = ("finish",)

    def __init__(self, work: Callable[[], None]) -> None:
        self.finish = work


class InPlace:
    """Does the work at once, whatever its delay: for tools and tests that have no event loop."""

    def submit(self, work: Callable[[], None], delay_ms: int = 0) -> None:
        try:
            work()
        except (KafkaError, OSError) as error:
            logger.error("background work failed: %s", error)

    def begin_write(self, work: Callable[[], None], done: Callable[[], None]) -> Begun:
        return _NotBegun(work)

    def start_moved(self) -> None:
        return

    def segment_closed(self) -> None:
        return

    def config_changed(self, config: LogConfig) -> None:
        return

    def begins_unflushed(self, log: Flushable) -> None:
        return
