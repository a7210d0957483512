"""Clearing away what a crash left in a partition's folder (LogLoader's first three passes)."""

from __future__ import annotations

import logging

from ottla.env.disk import Disk
from ottla.log.files import CLEANED_SUFFIX, DELETED_SUFFIX, LOG_SUFFIX, SWAP_SUFFIX, offset_of
from ottla.log.recovery import valid_batches

logger = logging.getLogger(__name__)

_ASIDE_SUFFIX = ".tmp"


def clear(disk: Disk, directory: str) -> set[str]:
    """Finish or undo what was under way when the broker ended; the names that are left.

    A file marked as deleted goes. Of a compaction, ``.cleaned`` files were not whole yet and go; ``.swap``
    files were, and take the place of the segments between the first and the last offset of all of them.
    """
    names = set(disk.list(directory))

    def remove(name: str) -> None:
        disk.remove(f"{directory}/{name}")
        names.discard(name)

    cleaned = [name for name in names if name.endswith(CLEANED_SUFFIX)]
    unfinished = min((offset for name in cleaned if (offset := offset_of(name)) is not None), default=None)
    for name in sorted(names):
        offset = offset_of(name)
        is_swap = name.endswith(SWAP_SUFFIX) and offset is not None
        # A split writes its files from the front on: what comes after an unfinished one is of no use.
        is_stale_swap = is_swap and unfinished is not None and offset is not None and offset >= unfinished
        if name.endswith((DELETED_SUFFIX, CLEANED_SUFFIX, _ASIDE_SUFFIX)) or is_stale_swap:
            remove(name)
    swaps = sorted(name for name in names if name.endswith(SWAP_SUFFIX))
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
