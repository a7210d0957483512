"""Producer state on the disk: the ``.snapshot`` files of one log (the files of ProducerStateManager).

A snapshot tells the state before the offset in its name. It only saves time: what is missing is read from the
log. OSError, from any of the methods, where the disk fails.

Those that are taken when a segment rolls are written by a thread. The event loop decides which offsets have
one: a snapshot that it has struck out meanwhile is removed by whoever was writing it.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Collection, Iterable
from functools import partial

from ottla.env.disk import Disk
from ottla.log.files import SNAPSHOT_SUFFIX, offset_name
from ottla.log.producers import Frozen, Producers, encode_snapshot

logger = logging.getLogger(__name__)


class Snapshots:
    """The offsets that there is a snapshot for, or will be, and their files."""

    def __init__(self, disk: Disk, directory: str, offsets: Iterable[int] = ()) -> None:
        self._disk = disk
        self._directory = directory
        # Each with an object of its own, which tells one from another that was taken at the same offset.
        self._taken: dict[int, object] = {offset: object() for offset in offsets}
        # The offset of one that is known to be on the disk for good.
        self._synced = -1
        # One is written at a time.
        self._writing = threading.Lock()

    @property
    def offsets(self) -> list[int]:
        """In order."""
        return sorted(self._taken)

    def _path(self, offset: int) -> str:
        return f"{self._directory}/{offset_name(offset, SNAPSHOT_SUFFIX)}"

    def take(self, producers: Producers) -> Callable[[], None] | None:
        """Have the state as it is now written down: what is returned does that, in any thread.

        None where there is a snapshot at its offset, or the offset is 0.
        """
        offset = producers.end_offset
        if offset in self._taken or not offset:
            return None
        taken = self._taken[offset] = object()
        return partial(self._write_taken, producers.freeze(), taken)

    def _write_taken(self, frozen: Frozen, taken: object) -> None:
        offset = frozen.end_offset
        with self._writing:
            if self._taken.get(offset) is not taken:
                return
            try:
                self._disk.write_file(self._path(offset), encode_snapshot(frozen.entries), sync=False)
            except OSError:
                self.forget(offset)
                raise
            if self._taken.get(offset) is not taken:
                self._disk.remove(self._path(offset))

    def write(self, producers: Producers) -> list[str]:
        """Write a state down at once, unless there is a snapshot for its offset; the file, where it has yet
        to be synced."""
        offset = producers.end_offset
        if not offset or offset == self._synced:
            return []
        if offset not in self._taken:
            with self._writing:
                self._disk.write_file(self._path(offset), encode_snapshot(producers), sync=False)
                self._taken[offset] = object()
        return [self._path(offset)]

    def closed_in_order(self, offset: int) -> None:
        """The log was closed in order, and ends at ``offset``: the snapshot there, if there is one, is on the
        disk for good."""
        if offset in self._taken:
            self._synced = offset

    def load(
        self,
        producers: Producers,
        offset: int,
        now_ms: int,
        is_own: Callable[[Producers], bool] | None = None,
    ) -> None:
        """The newest snapshot at or before ``offset``; an empty state where there is none.

        A damaged one is removed, and one whose state ``is_own`` says to be of another log.
        """
        for snapshot in reversed(self.offsets):
            if snapshot > offset:
                continue
            try:
                producers.load(self._disk.read_file(self._path(snapshot)), snapshot, now_ms)
                if is_own is None or is_own(producers):
                    return
                raise ValueError("it tells of another log")
            except FileNotFoundError:
                # It is still to be written, or could not be.
                continue
            except ValueError as error:
                logger.warning("%s: removing this snapshot: %s", self._path(snapshot), error)
                self._remove(snapshot)
        producers.clear(0)

    def remove_after(self, offset: int) -> None:
        """Remove those that tell of batches at ``offset`` and later, of which some may be gone."""
        for snapshot in self.offsets:
            if snapshot > offset:
                self._remove(snapshot)

    def remove_strays(self, bases: Collection[int]) -> None:
        """Keep those at the segments' starts, which recovery needs, and of the others the newest."""
        strays = [offset for offset in self.offsets if offset not in bases]
        if strays and strays[-1] > max(bases):
            del strays[-1]
        for snapshot in strays:
            self._remove(snapshot)

    def forget(self, offset: int) -> None:
        """A snapshot's file has gone with its segment."""
        self._taken.pop(offset, None)
        if offset == self._synced:
            self._synced = -1

    def forget_all(self) -> None:
        """The folder is another's by now: nothing is written there any more."""
        self._taken.clear()

    def _remove(self, offset: int) -> None:
        # First what the thread looks at.
        self.forget(offset)
        self._disk.remove(self._path(offset))
