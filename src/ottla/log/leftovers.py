"""Clearing away what a crash left in a partition's folder (LogLoader's first three passes)."""

from __future__ import annotations

import logging

from ottla.env.disk import Disk
from ottla.log.files import (
    ASIDE_SUFFIX,
    CLEANED_SUFFIX,
    DELETED_SUFFIX,
    EPOCHS_FILE,
    LOG_SUFFIX,
    PARTITION_METADATA_FILE,
    SWAP_SUFFIX,
    offset_of,
)
from ottla.log.walking import valid_batches

logger = logging.getLogger(__name__)

_PASSING = (DELETED_SUFFIX, CLEANED_SUFFIX, SWAP_SUFFIX, ASIDE_SUFFIX)
# Beside segments' files, what is written aside before it takes its name.
_ASIDE_FILES = frozenset(name + ASIDE_SUFFIX for name in (EPOCHS_FILE, PARTITION_METADATA_FILE))


def clear(disk: Disk, directory: str) -> set[str]:
    """Finish or undo what was under way when the broker ended; the names that are left.

    A file marked as deleted goes. Of a compaction, ``.cleaned`` files were not whole yet and go; ``.swap``
    files were, and take the place of the segments between the first and the last offset of all of them. Files
    whose names are not a log's are left alone.
    """
    names = set(disk.list(directory))
    if not any(name.endswith(_PASSING) for name in names):
        return names

    def remove(name: str) -> None:
        disk.remove(f"{directory}/{name}")
        names.discard(name)

    _drop_damaged_swaps(disk, directory, names)
    cleaned = [name for name in names if name.endswith(CLEANED_SUFFIX)]
    unfinished = min((offset for name in cleaned if (offset := offset_of(name)) is not None), default=None)
    for name in sorted(names):
        offset = offset_of(name)
        if offset is None:
            if name in _ASIDE_FILES:
                remove(name)
            continue
        # A split writes its files from the front on: what comes after an unfinished one is of no use.
        is_stale_swap = name.endswith(SWAP_SUFFIX) and unfinished is not None and offset >= unfinished
        if name.endswith((DELETED_SUFFIX, CLEANED_SUFFIX, ASIDE_SUFFIX)) or is_stale_swap:
            remove(name)
    swaps = sorted(name for name in names if name.endswith(SWAP_SUFFIX) and offset_of(name) is not None)
    if swaps:
        logger.warning("%s: completing an interrupted compaction: %s", directory, ", ".join(swaps))
        first, end = _range_of(disk, directory, swaps)
        for name in sorted(names - set(swaps)):
            offset = offset_of(name)
            if offset is not None and first <= offset < end:
                remove(name)
        for name in swaps:
            final = name.removesuffix(SWAP_SUFFIX)
            disk.rename(f"{directory}/{name}", f"{directory}/{final}")
            names.discard(name)
            names.add(final)
    return names


def _drop_damaged_swaps(disk: Disk, directory: str, names: set[str]) -> None:
    """Where what a compaction wrote is damaged, and what it was made of is still there, that stays."""
    if any(name.endswith(DELETED_SUFFIX) for name in names):
        return
    for name in [name for name in names if name.endswith(LOG_SUFFIX + SWAP_SUFFIX)]:
        base_offset = offset_of(name)
        source = name.removesuffix(SWAP_SUFFIX)
        if base_offset is None or source not in names or _is_whole(disk, f"{directory}/{name}", base_offset):
            continue
        logger.warning("%s/%s is damaged, and %s still there: removing the former", directory, name, source)
        for swap in [other for other in names if other.endswith(SWAP_SUFFIX)]:
            if offset_of(swap) == base_offset:
                disk.remove(f"{directory}/{swap}")
                names.discard(swap)


def _is_whole(disk: Disk, path: str, base_offset: int) -> bool:
    file, end = disk.open(path), 0
    try:
        for header, position, _ in valid_batches(file, file.size(), base_offset):
            end = position + header.size
        return end == file.size()
    finally:
        file.close()


def _range_of(disk: Disk, directory: str, swaps: list[str]) -> tuple[int, int]:
    """The first offset of the segments to be swapped in, and the offset after their last."""
    first, end = 2**63 - 1, -1
    for name in swaps:
        base_offset = offset_of(name)
        if not name.endswith(LOG_SUFFIX + SWAP_SUFFIX) or base_offset is None:
            continue
        first, end = min(first, base_offset), max(end, base_offset)
        file = disk.open(f"{directory}/{name}")
        try:
            for header, _, _ in valid_batches(file, file.size(), base_offset):
                end = max(end, header.next_offset)
        finally:
            file.close()
    return first, end
