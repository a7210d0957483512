"""Compaction of a log with transactions, against what a read_committed consumer saw of it before."""

from __future__ import annotations

from typing import Any

from compaction_support import Bench, stored
from hypothesis import given, settings
from hypothesis import strategies as st
from log_support import NOW_MS
from log_transactions_support import commit, consume, end, open_partition, send
from memory_disk import MemoryDisk

from ottla.log.settings import LogConfig
from ottla.replication.partition import Partition

CONFIG = LogConfig(
    cleanup_policy=("compact",),
    segment_bytes=600,
    index_interval_bytes=100,
    delete_retention_ms=5,
    min_cleanable_dirty_ratio=0.0,
)
PRODUCERS = st.sampled_from([1, 2, 3])
STEPS = st.one_of(
    st.tuples(st.just("txn"), PRODUCERS, st.sampled_from([b"a", b"b", b"c"])),
    st.tuples(st.just("txn"), PRODUCERS, st.sampled_from([b"a", b"b", b"c"])),
    st.tuples(st.just("data"), st.just(9), st.sampled_from([b"a", b"b", b"c"])),
    st.tuples(st.just("end"), PRODUCERS, st.booleans()),
    st.tuples(st.just("commit"), st.none(), st.none()),
    st.tuples(st.just("roll"), st.none(), st.none()),
    st.tuples(st.just("compact"), st.sampled_from([0, 1, 10]), st.booleans()),
    st.tuples(st.just("restart"), st.booleans(), st.none()),
)


class Run:
    def __init__(self) -> None:
        self.disk = MemoryDisk()
        self.it: Partition = open_partition(self.disk, CONFIG)
        self.now_ms = NOW_MS

    def step(self, what: str, one: Any, two: Any) -> None:
        it = self.it
        if what in ("txn", "data"):
            entry = it.log.producers.get(one)
            sequence = 0 if entry is None else max(entry.next_sequence, 0)
            send(it, one, sequence, transactional=what == "txn", key=two)
        elif what == "end":
            end(it, one, commits=two)
        elif what == "commit":
            commit(it)
        elif what == "roll":
            it.log.roll(NOW_MS)
        elif what == "compact":
            self.compact(one, again=two)
        else:
            self.restart(clean=one)

    def compact(self, passes_ms: int, *, again: bool) -> None:
        """A round, as far as is stable, from the start of the log again or where the last one ended."""
        self.now_ms += passes_ms
        log = self.it.log
        if again:
            log.replacement.advance(-1)
        bases = [segment.base_offset for segment in log.segments[1:]]
        end_offset = max((base for base in bases if base <= self.it.last_stable_offset), default=0)
        if end_offset > max(log.cleaned_offset, log.log_start_offset):
            Bench(self.disk, log, self.now_ms).compact_to(end_offset)

    def restart(self, *, clean: bool) -> None:
        log = self.it.log
        (log.close if clean else log.abandon)()
        point = log.log_end_offset if clean else 0
        self.it = open_partition(
            self.disk, CONFIG, high_watermark=self.it.high_watermark, clean=clean, recovery_point=point,
            cleaned_offset=log.cleaned_offset,
        )  # fmt: skip


def latest(partition: Partition) -> dict[bytes | None, tuple[int, bytes | None]]:
    return {one.key: (one.offset, one.value) for one in consume(partition, max_bytes=200)}


@settings(deadline=None)
@given(st.lists(STEPS, max_size=40))
def test_a_consumer_finds_the_last_of_each_key_that_was_committed(steps: list[tuple[str, Any, Any]]) -> None:
    run = Run()
    model: dict[bytes | None, tuple[int, bytes | None]] = {}
    for what, one, two in steps:
        before, stable = consume(run.it), run.it.last_stable_offset
        run.step(what, one, two)
        assert run.it.last_stable_offset >= stable
        model |= latest(run.it)
        # What is gone has been superseded, and what has been there is not otherwise now.
        assert latest(run.it) == model
        assert {one.offset: one for one in before}.items() >= {
            one.offset: one for one in consume(run.it) if one.offset < stable
        }.items()
    for pid in (1, 2, 3):
        run.step("end", pid, False)
    run.step("commit", None, None)
    model |= latest(run.it)
    assert run.it.last_stable_offset == run.it.high_watermark
    # The horizons have passed: of what was aborted nothing is left that anybody could take for a record.
    run.step("roll", None, None)
    for _ in range(3):
        run.step("compact", 100, True)
    left = {record.offset for _, records in stored(run.it.log) for record in records}
    assert latest(run.it) == model
    markers = {header.base_offset for header, _ in stored(run.it.log) if header.is_control}
    assert left - markers == {one.offset for one in consume(run.it)}


def test_what_was_aborted_in_the_segment_that_a_round_begins_within_supersedes_nothing() -> None:
    disk = MemoryDisk()
    it = open_partition(disk, CONFIG)
    send(it, 9, 0, transactional=False, key=b"a")
    send(it, 1, 0, key=b"a")
    end(it, 1, commits=False)
    commit(it)
    it.log.roll(NOW_MS)
    before = consume(it)
    # Where the round before had no more room for keys.
    it.log.replacement.advance(1)
    Bench(disk, it.log, NOW_MS).compact_to(it.log.log_end_offset)
    assert [one.key for one in before] == [b"a"]
    assert consume(it) == before
