"""Compaction against a model: whatever happens, and wherever it crashes, the last value of each key stays."""

from __future__ import annotations

import errno
from contextlib import suppress
from dataclasses import dataclass, field

import pytest
from compaction_support import Bench, stored
from hypothesis import given, settings
from hypothesis import strategies as st
from log_support import NOW_MS, open_log, read_all
from memory_disk import MemoryDisk

from ottla.errors import KafkaError
from ottla.log.cleaner import Aborted
from ottla.log.settings import LogConfig
from ottla.types import Record
from ottla.wire.records import build_batch

RETENTION_MS = 1000
CONFIG = LogConfig(
    cleanup_policy=("compact",),
    segment_bytes=700,
    index_interval_bytes=100,
    delete_retention_ms=RETENTION_MS,
    file_delete_delay_ms=0,
    message_timestamp_after_max_ms=2**62,
)

KEYS = [b"a", b"b", b"c", b"d", b"long" * 10, b"long" * 10 + b"!"]


class Crash(BaseException):
    """The process ends here."""


class CrashingDisk(MemoryDisk):
    """Ends the process, or fails, at an operation that changes something."""

    def __init__(self) -> None:
        super().__init__()
        self.crash_in: int | None = None
        self.error: OSError | None = None

    def fail(self, operation: str, path: str) -> None:
        super().fail(operation, path)
        if operation in ("read", "open") or self.crash_in is None:
            return
        self.crash_in -= 1
        if self.crash_in < 0:
            self.crash_in = None
            if self.error is not None:
                raise self.error
            raise Crash

    def remove(self, path: str) -> None:
        self.fail("remove", path)
        super().remove(path)


@dataclass
class Model:
    """What was appended: each key's last record, and how the producer numbered."""

    latest: dict[bytes, Record] = field(default_factory=dict)
    appended: dict[int, Record] = field(default_factory=dict)
    # For tombstones: when a compaction could first have met them.
    met_ms: dict[int, int] = field(default_factory=dict)
    sequence: int = 0


writes = st.tuples(
    st.just("append"),
    st.lists(st.tuples(st.sampled_from(KEYS), st.booleans()), min_size=1, max_size=5),
    st.sampled_from([0, 0, 0, 1, 2, 3, 4]),
)
steps = st.one_of(
    writes,
    writes,
    st.tuples(st.just("roll")),
    st.tuples(st.just("compact")),
    st.tuples(st.just("later"), st.sampled_from([1, 600, 1001])),
    st.tuples(st.just("crash"), st.integers(0, 60), st.booleans()),
    st.tuples(st.just("error"), st.integers(0, 60)),
    st.tuples(st.just("reopen")),
)


class Run:
    def __init__(self) -> None:
        self.disk = CrashingDisk()
        self.now_ms = NOW_MS
        self.model = Model()
        self.log = open_log(self.disk, CONFIG)

    def append(self, entries: list[tuple[bytes, bool]], codec: int) -> None:
        model = self.model
        base = self.log.log_end_offset
        records = [
            Record(
                base + number, self.now_ms - number, key, None if is_tombstone else b"%d" % (base + number)
            )
            for number, (key, is_tombstone) in enumerate(entries)
        ]
        numbered = {"producer_id": 7, "producer_epoch": 0, "base_sequence": model.sequence}
        raw = build_batch(records, compression=codec, **numbered)
        done = self.log.append(raw, leader_epoch=0, now_ms=self.now_ms)
        assert done.base_offset == base
        model.sequence += len(records)
        for record in records:
            model.appended[record.offset] = record
            model.latest[record.key or b""] = record

    def roll(self) -> None:
        self.log.roll(self.now_ms)

    def later(self, by_ms: int) -> None:
        self.now_ms += by_ms

    def compact(self) -> None:
        end = self.log.segments[-1].base_offset
        for offset, record in self.model.appended.items():
            if record.value is None and offset < end:
                self.model.met_ms.setdefault(offset, self.now_ms)
        Bench(self.disk, self.log, self.now_ms).compact()

    def crash(self, after: int, power: bool) -> None:
        """Compact, and end at some operation of it; what was appended before is on the disk."""
        self.log.flush()
        cleaned = self.log.cleaned_offset
        self.disk.crash_in = after
        with suppress(Crash):
            self.compact()
            cleaned = self.log.cleaned_offset
        self.disk.crash_in = None
        if power:
            self.disk.lose_power()
        self.log = open_log(self.disk, CONFIG, now_ms=self.now_ms)
        self.log.replacement.advance(cleaned)

    def error(self, after: int) -> None:
        """Compact on a disk that fails once."""
        self.disk.crash_in = after
        self.disk.error = OSError(errno.EIO, "it failed")
        with suppress(KafkaError, OSError, Aborted):
            self.compact()
        self.disk.crash_in = self.disk.error = None
        if self.log.failed is not None:
            self.reopen_unclean()

    def reopen_unclean(self) -> None:
        cleaned = self.log.cleaned_offset
        self.log = open_log(self.disk, CONFIG, now_ms=self.now_ms)
        self.log.replacement.advance(cleaned)

    def reopen(self) -> None:
        cleaned, end = self.log.cleaned_offset, self.log.log_end_offset
        self.log.close()
        self.log = open_log(self.disk, CONFIG, clean=True, recovery_point=end, now_ms=self.now_ms)
        self.log.replacement.advance(cleaned)

    def check(self) -> None:
        log, model = self.log, self.model
        assert log.log_end_offset == len(model.appended)
        found = read_all(log)
        offsets = [record.offset for record in found]
        assert offsets == sorted(set(offsets))
        for record in found:
            assert record == model.appended[record.offset]
        there = set(offsets)
        for record in model.latest.values():
            if record.offset in there:
                continue
            assert record.value is None, f"the last value of {record.key!r} is lost"
            met_ms = model.met_ms.get(record.offset)
            assert met_ms is not None
            assert self.now_ms >= met_ms + RETENTION_MS, "a tombstone went too soon"
        self.check_state(found)
        self.check_sequence()

    def check_state(self, found: list[Record]) -> None:
        """Who reads everything arrives at the same state."""
        state = {record.key: record.value for record in found}
        expected = {key: record.value for key, record in self.model.latest.items()}
        assert {k: v for k, v in state.items() if v is not None} == {
            k: v for k, v in expected.items() if v is not None
        }

    def check_sequence(self) -> None:
        entry = self.log.producers.get(7)
        if self.model.sequence:
            assert entry is not None
            assert entry.last_sequence == self.model.sequence - 1

    def check_files(self) -> None:
        """Indexes that were built again say the same as those there are; segments follow one another."""
        for segment, after in zip(self.log.segments, self.log.segments[1:], strict=False):
            headers = [header for header, _ in segment.headers_from(0, segment.file.read)]
            assert headers[-1].next_offset == after.base_offset
            for header, _ in segment.headers_from(0, segment.file.read):
                located = segment.locate(header.last_offset)
                assert located is not None
        assert not [name for name in self.disk.files if name.endswith((".cleaned", ".swap"))]


@settings(max_examples=150)
@given(st.lists(steps, max_size=25))
def test_no_last_value_is_ever_lost(script: list[tuple[object, ...]]) -> None:
    run = Run()
    for name, *arguments in script:
        getattr(run, str(name))(*arguments)
        run.check()
        run.check_files()
    run.roll()
    run.compact()
    run.check()
    # Of what is closed every key is there once.
    end = run.log.segments[-1].base_offset
    keys = [record.key for record in read_all(run.log) if record.offset < end]
    assert len(keys) == len(set(keys))
    run.later(RETENTION_MS)
    run.append([(b"other", False)], 0)
    run.roll()
    run.compact()
    run.check()
    assert all(record.value is not None for record in read_all(run.log) if record.offset < end)
    run.reopen_unclean()
    run.check()
    run.check_files()


@pytest.mark.parametrize("power", [False, True])
@pytest.mark.parametrize("after", range(40))
def test_a_crash_at_every_operation(after: int, power: bool) -> None:
    run = Run()
    for number in range(30):
        run.append([(KEYS[number % 3], number % 7 == 0), (KEYS[3], False)], number % 5)
    assert len(run.log.segments) > 4
    run.crash(after, power)
    run.check()
    run.check_files()
    run.compact()
    run.check()
    keys = [r.key for r in read_all(run.log) if r.offset < run.log.segments[-1].base_offset]
    assert len(keys) == len(set(keys))
    assert stored(run.log)
