"""Transactions of a log against a naive model of it, whatever happens to it: appends of several producers,
markers, truncations, restarts, rolls, deletions, and commits that come late."""

from __future__ import annotations

from typing import Any, NamedTuple

from hypothesis import given, settings
from hypothesis import strategies as st
from log_support import NOW_MS
from log_transactions_support import (
    FOLLOWING,
    STATE,
    commit,
    consume,
    end,
    open_partition,
    read_committed,
    send,
)
from memory_disk import MemoryDisk

from ottla.log.producer_entry import NO_BATCH
from ottla.log.producers import Producers
from ottla.log.recovery import replay
from ottla.log.settings import LONG_MAX, LogConfig
from ottla.log.transaction_index import TransactionIndex
from ottla.replication.partition import Partition
from ottla.wire.records import iter_batches

CONFIG = LogConfig(segment_bytes=700, index_interval_bytes=100)


class Written(NamedTuple):
    """A batch: data, of a transaction or of none, or a marker."""

    base: int
    last: int
    pid: int
    kind: str
    values: tuple[bytes, ...] = ()


class Txn(NamedTuple):
    """A transaction, with where it ended and how, if it has."""

    pid: int
    first: int
    last: int
    aborted: bool


class Model:
    """What a log holds, and what follows from it, worked out anew each time."""

    def __init__(self) -> None:
        self.batches: list[Written] = []
        self.start = self.committed = self.end = 0

    def transactions(self) -> list[Txn]:
        opened: dict[int, int] = {}
        found = []
        for one in self.batches:
            if one.kind == "txn":
                opened.setdefault(one.pid, one.base)
            elif one.kind != "data" and one.pid in opened:
                found.append(Txn(one.pid, opened.pop(one.pid), one.last, one.kind == "abort"))
        return found + [Txn(pid, first, 2**62, False) for pid, first in opened.items()]

    @property
    def open(self) -> set[int]:
        return {one.pid for one in self.transactions() if one.last == 2**62}

    @property
    def stable(self) -> int:
        unstable = [one.first for one in self.transactions() if one.last >= self.committed]
        return min(self.committed, max(self.start, min(unstable, default=2**62)))

    def aborted(self, offset: int, upper: int) -> list[tuple[int, int]]:
        """Those that have anything between two offsets, in the order of their markers."""
        ends = sorted(one for one in self.transactions() if one.aborted)
        ends.sort(key=lambda one: one.last)
        return [(one.pid, one.first) for one in ends if one.last >= offset and one.first < upper]

    def visible(self) -> list[tuple[int, bytes]]:
        dropped = {
            offset
            for one in self.transactions()
            if one.aborted
            for batch in self.batches
            if batch.kind == "txn" and batch.pid == one.pid and one.first <= batch.base < one.last
            for offset in range(batch.base, batch.last + 1)
        }
        return [
            (batch.base + number, value)
            for batch in self.batches
            if batch.kind in ("data", "txn")
            for number, value in enumerate(batch.values)
            if self.start <= batch.base + number < self.stable and batch.base + number not in dropped
        ]

    def add(self, base: int, pid: int, kind: str, values: tuple[bytes, ...] = (b"",)) -> None:
        self.batches.append(Written(base, base + len(values) - 1, pid, kind, values))
        self.end = base + len(values)

    def truncate(self, offset: int) -> None:
        self.batches = [one for one in self.batches if one.last < offset]
        self.end = min(self.end, offset)
        self.committed = min(self.committed, self.end)
        self.start = min(self.start, self.end)


PRODUCERS = st.sampled_from([1, 2, 3])
STEPS = st.one_of(
    st.tuples(st.just("txn"), PRODUCERS, st.integers(1, 3)),
    st.tuples(st.just("txn"), PRODUCERS, st.integers(1, 3)),
    st.tuples(st.just("data"), st.sampled_from([8, 9]), st.integers(1, 3)),
    st.tuples(st.just("end"), PRODUCERS, st.booleans()),
    st.tuples(st.just("end"), PRODUCERS, st.booleans()),
    st.tuples(st.just("commit"), st.integers(0, 100), st.none()),
    st.tuples(st.just("commit"), st.just(100), st.none()),
    st.tuples(st.just("roll"), st.none(), st.none()),
    st.tuples(st.just("truncate"), st.integers(0, 100), st.none()),
    st.tuples(st.just("close"), st.integers(0, 100), st.none()),
    st.tuples(st.just("crash"), st.integers(0, 100), st.none()),
    st.tuples(st.just("delete"), st.integers(0, 100), st.none()),
)


class Run:
    """A partition and its model, one step after the other."""

    def __init__(self) -> None:
        self.disk = MemoryDisk()
        self.model = Model()
        self.it: Partition = open_partition(self.disk, CONFIG)
        self.sequences: dict[tuple[int, int], int] = {}

    def share(self, low: int, high: int, percent: int) -> int:
        """A batch's beginning, or the end, about so far between two offsets."""
        wanted = low + (high - low) * percent // 100
        places = [one.base for one in self.model.batches if low <= one.base <= high]
        return max((place for place in [*places, low] if place <= wanted), default=low)

    def step(self, what: str, one: Any, two: Any) -> None:
        it, model = self.it, self.model
        if what in ("txn", "data"):
            entry = it.log.producers.get(one)
            sequence = 0 if entry is None else max(entry.next_sequence, 0)
            values = tuple(f"{one}.0.{sequence + n}".encode() for n in range(two))
            base = send(it, one, sequence, two, transactional=what == "txn")
            model.add(base, one, what, values)
        elif what == "end":
            model.add(end(it, one, commits=two), one, "commit" if two else "abort")
        elif what == "commit":
            offset = model.end if one == 100 else self.share(model.committed, model.end, one)
            commit(it, offset)
            model.committed = max(model.committed, offset)
        elif what == "roll":
            it.log.roll(NOW_MS)
        elif what == "truncate":
            offset = self.share(model.start, model.end, one)
            it.apply(FOLLOWING)
            it.truncate_to(offset, NOW_MS)
            model.truncate(offset)
            it.apply(STATE)
            self.check_producers()
        elif what == "delete":
            offset = self.share(model.start, model.committed, one)
            it.log.advance_log_start(offset)
            it.log.apply_retention(NOW_MS, model.committed)
            model.start = max(model.start, offset)
        else:
            self.restart(clean=what == "close", percent=one)

    def check_producers(self) -> None:
        """What a truncation has taken back is what is read from the log, as far as that goes back."""
        log = self.it.log
        again = Producers(0, LONG_MAX)
        again.advance_to(log.segments[0].base_offset)
        replay(log.segments, again, log.log_end_offset)
        known = {one.producer_id: one for one in log.producers}
        for one in again:
            left = known.pop(one.producer_id)
            assert (left.epoch, left.coordinator_epoch) == (one.epoch, one.coordinator_epoch)
            assert left.next_sequence == one.next_sequence
            assert (left.txn_first_offset < 0) == (one.txn_first_offset < 0)
            assert left.recent[-1:] == one.recent[-1:]
        # Of others the batches are gone with their segments.
        assert all(
            (one.last_batch or NO_BATCH).last_offset < log.segments[0].base_offset for one in known.values()
        )

    def restart(self, *, clean: bool, percent: int) -> None:
        log, model = self.it.log, self.model
        if clean:
            log.close()
            point = log.log_end_offset
        else:
            # What had been flushed by the time, as far as anybody has written down.
            point = log.recovery_point * percent // 100
            log.abandon()
        self.it = open_partition(
            self.disk, CONFIG, high_watermark=model.committed, clean=clean, recovery_point=point,
            log_start_offset=model.start,
        )  # fmt: skip

    def check(self) -> None:
        it, model = self.it, self.model
        assert (it.log.log_end_offset, it.high_watermark) == (model.end, model.committed)
        assert it.last_stable_offset == model.stable
        assert [(one.offset, one.value) for one in consume(it, max_bytes=150)] == model.visible()
        assert [(one.offset, one.value) for one in consume(it)] == model.visible()
        for offset in {model.start, (model.start + model.stable) // 2}:
            data, told = read_committed(it, offset, 200)
            upper = max((header.next_offset for header, _ in iter_batches(data)), default=0)
            all_behind = model.aborted(offset, 2**62)
            assert [one for one in all_behind if one in told] == told, "no others, in the markers' order"
            firsts = dict.fromkeys(model.aborted(max(offset, model.start), upper)) if data else {}
            assert set(firsts) <= set(told)


@settings(deadline=None)
@given(st.lists(STEPS, max_size=30))
def test_a_log_agrees_with_its_model(steps: list[tuple[str, Any, Any]]) -> None:
    run = Run()
    stable = 0
    for what, one, two in steps:
        run.step(what, one, two)
        run.check()
        if what != "truncate":
            assert run.it.last_stable_offset >= stable, "it goes back"
        stable = run.it.last_stable_offset
    # Nothing sticks: all that is open ends, and is committed.
    for pid in (1, 2, 3):
        run.step("end", pid, False)
    run.step("commit", 100, None)
    run.check()
    assert run.it.last_stable_offset == run.model.end
    assert not run.it.log.producers.transactions.awaits_commit


def test_the_files_of_an_index_are_what_is_in_memory() -> None:
    """Whatever was appended is in the file at once, and what is read back is the same."""
    run = Run()
    for number in range(12):
        run.step("txn", 1 + number % 3, 1)
        run.step("end", 1 + number % 3, number % 4 == 0)
    for base in run.it.log._segments.aborted.bases:
        path = run.it.log._segments.aborted.path(base)
        data = run.disk.read_file(path)
        index = TransactionIndex.decode(data, base, run.model.end)
        assert index is not None and list(index) == list(run.it.log._segments.aborted.read(base))
