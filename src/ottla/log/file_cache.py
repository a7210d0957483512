"""The files of segments that are held open: those that were used last, as many as the process may have."""

from __future__ import annotations

import errno
import logging
from collections import OrderedDict
from typing import Protocol

from ottla.env.disk import Disk, File

logger = logging.getLogger(__name__)

# The share of the files and connections that the process may have open (RLIMIT_NOFILE). The rest is for
# connections, which is what there is more of in most places.
SHARE = 4


class Holder(Protocol):
    """What holds an open file and can do without it for a while."""

    def let_go(self) -> None: ...


class FileCache:
    """Opens segment files and bounds how many stay open; one for all logs of a broker.

    The file that was used least recently is let go first: whoever needs it opens it again. Letting go only
    drops the segment's reference. A reader that still holds the file reads on, and the descriptor closes with
    the last reference, so that it can never be reused under a reader.
    """

    def __init__(self, disk: Disk, open_files_max: int | None = None) -> None:
        """``open_files_max``: a share of what the process may have, where it is not said."""
        self._disk = disk
        self._max = max(1, disk.open_files_max() // SHARE if open_files_max is None else open_files_max)
        # The least recently used first.
        self._holders: OrderedDict[Holder, None] = OrderedDict()
        # Whether uses are to be told: not before half of what may be open is, so that it costs nothing where
        # there is room.
        self.crowded = False

    @property
    def open_count(self) -> int:
        return len(self._holders)

    def open(self, path: str, holder: Holder, *, create: bool) -> File:
        """Open a file for ``holder``, which has none. OSError where that fails."""
        self._make_room()
        try:
            file = self._disk.open(path, create=create)
        except OSError as error:
            if error.errno not in (errno.EMFILE, errno.ENFILE) or not self._holders:
                raise
            # Connections have taken what is left. Half of ours go, so that others get theirs, too.
            logger.warning(
                "too many open files (ulimit -n): of %d segments half are closed", len(self._holders)
            )
            self._let_go((len(self._holders) + 1) // 2)
            file = self._disk.open(path, create=create)
        self._add(holder)
        return file

    def take_over(self, holder: Holder) -> None:
        """Count a file that was opened elsewhere."""
        self._make_room()
        self._add(holder)

    def _add(self, holder: Holder) -> None:
        self._holders[holder] = None
        self.crowded = len(self._holders) * 2 > self._max

    def used(self, holder: Holder) -> None:
        """A holder's file is used: to be told where it is ``crowded``."""
        self._holders.move_to_end(holder)

    def forget(self, holder: Holder) -> None:
        """A holder has closed its file for good."""
        self._holders.pop(holder, None)
        self.crowded = len(self._holders) * 2 > self._max

    def _make_room(self) -> None:
        surplus = len(self._holders) + 1 - self._max
        if surplus > 0:
            self._let_go(surplus)

    def _let_go(self, count: int) -> None:
        for _ in range(count):
            holder, _none = self._holders.popitem(last=False)
            holder.let_go()
