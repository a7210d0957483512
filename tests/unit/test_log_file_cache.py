"""Which segment files stay open: those that were used last, against a list that says so the plain way."""

from __future__ import annotations

import errno

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from log_support import NOW_MS, batch
from memory_disk import MemoryDisk

from ottla.env.disk import open_files_max
from ottla.log.file_cache import FileCache
from ottla.log.segment import Segment
from ottla.wire.records import read_header

BATCH = batch("x")
HEADER = read_header(BATCH)
NUMBERS = st.integers(0, 9)


class OpenFiles(RuleBasedStateMachine):
    """Segments that are made, appended to, read, closed; ``used`` has those with an open file, newest
    last; while no more than half may be open they stay in the order in which they were opened."""

    @initialize(open_max=st.integers(1, 6))
    def begin(self, open_max: int) -> None:
        self.open_max = open_max
        self.disk = MemoryDisk()
        self.cache = FileCache(self.disk, open_max)
        self.segments: dict[int, Segment] = {}
        self.sizes: dict[int, int] = {}
        self.used: list[int] = []

    def use(self, number: int) -> None:
        if number in self.used and len(self.used) * 2 <= self.open_max:
            return
        self.used = [one for one in self.used if one != number] + [number]
        del self.used[: -self.open_max]

    @rule(number=NUMBERS)
    def make(self, number: int) -> None:
        if number not in self.segments:
            self.segments[number] = Segment.create(self.disk, self.cache, f"folder-{number}", 0, NOW_MS)
            self.sizes[number] = 0
            self.use(number)

    @rule(number=NUMBERS)
    def append(self, number: int) -> None:
        if number in self.segments:
            self.segments[number].append((BATCH,), (HEADER,), 4096)
            self.sizes[number] += len(BATCH)
            self.use(number)

    @rule(number=NUMBERS)
    def read(self, number: int) -> None:
        if number in self.segments:
            assert self.segments[number].file.size() == self.sizes[number]
            self.use(number)

    @rule(number=NUMBERS)
    def close(self, number: int) -> None:
        if number in self.segments:
            self.segments.pop(number).close()
            self.used = [one for one in self.used if one != number]

    @rule(number=NUMBERS)
    def move(self, number: int) -> None:
        """One that a thread has made: its file is counted from then on."""
        if number not in self.segments:
            made = Segment.create(self.disk, FileCache(self.disk), f"folder-{number}", 0, NOW_MS)
            made.move_to(self.cache)
            self.segments[number], self.sizes[number] = made, 0
            self.use(number)

    @precondition(lambda self: self.used)
    @rule(number=NUMBERS)
    def run_out_of_descriptors(self, number: int) -> None:
        """Half of the files are let go, and the one that is asked for is opened."""
        if number not in self.segments or number in self.used or self.open_max == 1:
            return
        del self.used[: max(0, len(self.used) + 1 - self.open_max)]
        kept = len(self.used) // 2
        failing = OSError(errno.EMFILE, "Too many open files")
        count = len(self.used)

        class Full(MemoryDisk):
            def fail(disk, operation: str, path: str) -> None:
                if operation == "open" and self.cache.open_count == count:
                    raise failing

        full = Full()
        full.files = self.disk.files
        self.cache._disk = full
        self.segments[number]._file = None
        assert self.segments[number].file.size() == self.sizes[number]
        self.cache._disk = self.disk
        self.used = self.used[count - kept :] if kept else []
        self.use(number)

    @invariant()
    def those_used_last_are_open(self) -> None:
        if hasattr(self, "segments"):
            opened = {number for number, segment in self.segments.items() if segment._file is not None}
            assert opened == set(self.used)
            assert self.cache.open_count == len(self.used) <= self.open_max


OpenFiles.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestOpenFiles = OpenFiles.TestCase


def test_how_many_follows_what_the_process_may_have_open() -> None:
    """A quarter, however much that is: two thousand were too few for as many partitions in use."""

    class Roomy(MemoryDisk):
        def open_files_max(self) -> int:
            return 40_000

    assert open_files_max() > 0
    disk = Roomy()
    cache = FileCache(disk)
    segments = [Segment.create(disk, cache, f"folder-{n}", 0, NOW_MS) for n in range(10_001)]
    assert [segment._file is None for segment in segments] == [True] + [False] * 10_000


def test_without_any_file_to_let_go_running_out_of_them_is_an_error() -> None:
    disk = MemoryDisk()
    disk.fail_with["open"] = OSError(errno.EMFILE, "Too many open files")
    with pytest.raises(OSError, match="Too many"):
        Segment.create(disk, FileCache(disk, 5), "folder", 0, NOW_MS)


def test_other_errors_close_nothing() -> None:
    disk = MemoryDisk()
    cache = FileCache(disk, 5)
    first = Segment.create(disk, cache, "folder-1", 0, NOW_MS)
    disk.fail_with["open"] = OSError(errno.EIO, "Input/output error")
    with pytest.raises(OSError, match="Input"):
        Segment.create(disk, cache, "folder-2", 0, NOW_MS)
    assert first._file is not None
    assert cache.open_count == 1
