"""The checkpoint files of a data directory: what the last run left in them, and what this one writes.

Used from the event loop. What is to be written is asked for and encoded in pieces, a thousand partitions in
each turn of the loop, and written in a thread: one that encoded all of it would keep the interpreter from the
loop for some milliseconds at a time. Of high watermarks, which are written every few seconds, only those that
have moved are asked, where they are few. Meanwhile logs go on, are cut, deleted and made, so that a file has
of each partition what was so at some time since the writing began:

- An offset that is older than the log is what the file would hold if it had been written earlier.
- A log that is cut remembers up to where a file may vouch for it (``Durability.truncated``).
- Whoever makes a partition of a name that a file may speak of has what it says erased before, and a file that
  was begun earlier is not written over that (``DataDir.write_offsets``).
"""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import Callable, Collection, Generator, Iterable, Mapping
from functools import partial
from itertools import count, islice
from typing import NamedTuple

from ottla.env.disk import Disk
from ottla.env.slices import Slices
from ottla.log.checkpoints import offset_line
from ottla.log.data_dir import (
    CHECKPOINT_FILES,
    CLEANED_FILE,
    HIGH_WATERMARKS_FILE,
    LOG_STARTS_FILE,
    RECOVERY_POINTS_FILE,
    DataDir,
)
from ottla.log.log import Log
from ottla.pieces import whole
from ottla.types import TopicPartition

# Partitions that are asked in one turn of the loop: some 1.5 microseconds each.
ASKED_AT_ONCE = 1000

Offsets = dict[TopicPartition, int]


class MovingOffsets(Mapping[TopicPartition, int]):
    """Offsets of partitions that tell which of them have moved, come or gone."""

    @abstractmethod
    def take_moved(self) -> list[TopicPartition] | None:
        """Those that have since this was asked before; None: all may have."""


class _Written(NamedTuple):
    """What a file holds: offsets, and the lines that they are."""

    offsets: Offsets
    lines: dict[TopicPartition, str]


class Checkpointing:
    """The offsets of ``logs`` that outlast the process. ``read`` comes first.

    ``recovery_points``, ``log_starts``, ``recorded_high_watermarks`` and ``cleaned`` are what the last run
    left of partitions that have not been opened yet.
    """

    def __init__(self, disk: Disk, logs: Mapping[TopicPartition, Log], slices: Slices) -> None:
        # That of each partition, as it is when it is asked for; None: nobody knows of any.
        self.high_watermarks: Mapping[TopicPartition, int] | None = None
        self.recovery_points: Offsets = {}
        self.log_starts: Offsets = {}
        self.recorded_high_watermarks: Offsets = {}
        self.cleaned: Offsets = {}
        self._disk = disk
        self._logs = logs
        self._slices = slices
        self._dir: DataDir
        # Whether logs that are not open yet end where their recovery points say.
        self._clean = False
        # The partitions that a file speaks of, or that one speaks of which is being written.
        self._named: set[TopicPartition] = set()
        # Those of the files that are written while names are to be erased; None: that is not so.
        self._named_anew: set[TopicPartition] | None = None
        # What the file of high watermarks holds; None: that is not known, and all are to be asked. How often
        # that has been doubted.
        self._marks: _Written | None = None
        self._doubts = 0
        self._turns = count()
        self._writing = asyncio.Lock()

    def read(self, data_dir: DataDir) -> bool:
        """Read what the last run left; whether it shut down in order. OSError where the disk fails."""
        self._dir = data_dir
        self._clean = data_dir.take_clean_mark()
        recovery_points = data_dir.read_offsets(RECOVERY_POINTS_FILE)
        if recovery_points is None:
            self._clean = False
        self.recovery_points = recovery_points or {}
        self.log_starts = data_dir.read_offsets(LOG_STARTS_FILE) or {}
        self.recorded_high_watermarks = data_dir.read_offsets(HIGH_WATERMARKS_FILE) or {}
        self.cleaned = data_dir.read_offsets(CLEANED_FILE) or {}
        self._named.update(*data_dir.checkpoints.values())
        return self._clean

    def names(self, where: TopicPartition) -> bool:
        """Whether a file may speak of a partition."""
        return where in self._named

    def forget(self, where: TopicPartition) -> None:
        """What the last run left of a partition has been taken on, or is not true any more."""
        if where in self.recorded_high_watermarks:
            self._doubt_marks()
        for recorded in (self.recovery_points, self.log_starts, self.recorded_high_watermarks, self.cleaned):
            recorded.pop(where, None)

    def keep_log_start(self, where: TopicPartition, offset: int) -> None:
        """Have a log that is about to be put back begin there. Blocks; OSError where the disk fails."""
        self.log_starts[where] = offset
        self._write_at_once(LOG_STARTS_FILE, next(self._turns))

    def erase(self, where: TopicPartition) -> None:
        """Take out of the files what they say of an older partition of this name.

        Before a folder is made: after a crash the new one would be cut and hidden as the old one was.
        Blocks where there is anything. OSError where that fails.
        """
        self.forget(where)
        if where not in self._named:
            return
        before, self._named = self._named, set()
        turn = next(self._turns)
        try:
            for name in self._all_files():
                self._write_at_once(name, turn)
        except OSError:
            self._named |= before
            raise

    async def erase_all(self, gone: Collection[TopicPartition]) -> None:
        """``erase`` of several, in pieces and in a thread."""
        for where in gone:
            self.forget(where)
        async with self._writing:
            if self._named.isdisjoint(gone):
                return
            before = self._named
            # All are to be named anew.
            self._doubt_marks()
            anew = self._named_anew = set()
            try:
                await self._write(self._all_files())
            finally:
                self._named_anew = None
            if self._named is before:
                # Otherwise an erasure that could not wait has been faster.
                self._named = anew

    def _write_at_once(self, name: str, turn: int) -> None:
        self._dir.write_offsets(name, whole(self._offsets(name)), turn)

    async def write_all(self) -> None:
        """Write the files that are not up to date. OSError where that fails."""
        await self.write(*self._all_files())

    async def write(self, *names: str) -> None:
        """Write these where they are not up to date. OSError where that fails.

        One after the other, and each asks for what is so when its turn comes: two at once would fight over
        the temporary file, and the older could come to rest over the newer.
        """
        async with self._writing:
            await self._write(names)

    async def _write(self, names: Iterable[str]) -> None:
        for name in names:
            if name == HIGH_WATERMARKS_FILE:
                await self._write_marks()
                continue
            turn = next(self._turns)
            offsets = await self._slices.run(self._offsets(name))
            if not self._dir.holds(name, offsets):
                lines = await self._slices.run(_lines(offsets))
                write = partial(self._dir.write_offsets, name, offsets, turn, list(lines.values()))
                await self._disk.run(write)

    async def _write_marks(self) -> None:
        """The same for high watermarks, of which those that have moved are asked, or all."""
        name, turn = HIGH_WATERMARKS_FILE, next(self._turns)
        known, doubts = self.high_watermarks, self._doubts
        moved = known.take_moved() if isinstance(known, MovingOffsets) else None
        # Until it is written the file holds neither what it did nor what it is to.
        before, self._marks = self._marks, None
        if before is not None and moved is not None:
            is_new = bool(moved)
            written = self._with_moved(before, moved) if moved else before
        else:
            offsets = await self._slices.run(self._offsets(name))
            is_new = not self._dir.holds(name, offsets)
            written = _Written(offsets, await self._slices.run(_lines(offsets)))
        if is_new:
            lines = list(written.lines.values())
            await self._disk.run(partial(self._dir.write_offsets, name, written.offsets, turn, lines))
        if isinstance(known, MovingOffsets) and doubts == self._doubts:
            self._marks = written

    def _with_moved(self, before: _Written, moved: Iterable[TopicPartition]) -> _Written:
        """What the file is to hold once some partitions have moved, come or gone."""
        # What the file holds is still compared with.
        offsets, lines = dict(before.offsets), before.lines
        known = self.high_watermarks or {}
        for where in moved:
            offset = known.get(where)
            if offset is None:
                offsets.pop(where, None)
                lines.pop(where, None)
            else:
                offsets[where] = offset
                lines[where] = offset_line(where, offset)
                self._named.add(where)
        return _Written(offsets, lines)

    def _doubt_marks(self) -> None:
        """The file of high watermarks may not be to hold what it does, whatever moves: ask all."""
        self._marks = None
        self._doubts += 1

    def _all_files(self) -> list[str]:
        has_marks = self.high_watermarks is not None
        return [name for name in CHECKPOINT_FILES if has_marks or name != HIGH_WATERMARKS_FILE]

    # -- what they are to say -----------------------------------------------------------------------------

    def _offsets(self, name: str) -> Generator[None, None, Offsets]:
        """What a file is to hold."""
        if name == HIGH_WATERMARKS_FILE:
            marks = self.high_watermarks if self.high_watermarks is not None else {}
            return self._collect(self.recorded_high_watermarks, marks, marks.get)
        if name == RECOVERY_POINTS_FILE:
            # What is not opened yet ends where it ended, if that was in order.
            return self._collect(self.recovery_points if self._clean else {}, self._logs, self._point)
        if name == LOG_STARTS_FILE:
            return self._collect(self.log_starts, self._logs, self._log_start)
        assert name == CLEANED_FILE
        return self._collect(self.cleaned, self._logs, self._cleaned)

    def _collect(
        self,
        before: Offsets,
        known: Collection[TopicPartition],
        ask: Callable[[TopicPartition], int | None],
    ) -> Generator[None, None, Offsets]:
        """What the last run left, and in its place what is so by now of the partitions that are ``known``."""
        offsets = dict(before)
        named = self._named
        named.update(before)
        for number, where in enumerate(list(known), 1):
            offset = ask(where)
            if offset is not None:
                offsets[where] = offset
                named.add(where)
            if not number % ASKED_AT_ONCE:
                yield
                # An erasure has put another in its place: then this is not written, or erased again.
                named = self._named
        if self._named_anew is not None:
            self._named_anew.update(offsets)
        return offsets

    def _point(self, where: TopicPartition) -> int | None:
        log = self._logs.get(where)
        return log.recovery_point if log is not None else None

    def _log_start(self, where: TopicPartition) -> int | None:
        """Of a log that begins within its first segment: the others need no checkpoint."""
        log = self._logs.get(where)
        if log is None or log.log_start_offset <= log.segments[0].base_offset:
            return None
        return log.log_start_offset

    def _cleaned(self, where: TopicPartition) -> int | None:
        log = self._logs.get(where)
        return log.cleaned_offset if log is not None and log.cleaned_offset >= 0 else None


def _lines(offsets: Offsets) -> Generator[None, None, dict[TopicPartition, str]]:
    """What a file is to consist of, made in pieces."""
    lines: dict[TopicPartition, str] = {}
    left = iter(offsets.items())
    while some := list(islice(left, ASKED_AT_ONCE)):
        lines.update([(where, offset_line(where, offset)) for where, offset in some])
        yield
    return lines
