"""When logs are compacted, what a round does to a log, and what stops it."""

from __future__ import annotations

import asyncio
import errno
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from compaction_support import WHERE, Bench, stored
from log_support import FOLDER, NOW_MS, first_from, newest_of, open_log, read_all
from log_transactions_support import commit, consume, end, open_partition, send
from memory_disk import MemoryDisk, T

from measuring import HANG_S
from ottla.config import BrokerConfig
from ottla.env.clock import SystemClock
from ottla.env.slices import Slices
from ottla.errors import KafkaError
from ottla.log.checkpoints import decode_offsets
from ottla.log.cleaner import (
    FAILED_REST_MS,
    WAKE_DELAY_MS,
    Aborted,
    advance,
    bytes_per_second,
    keys_at_once,
    look_at,
)
from ottla.log.compaction import RECORDS_AT_ONCE
from ottla.log.files import InPlace
from ottla.log.log import Log
from ottla.log.manager import LogManager
from ottla.log.segments import State
from ottla.log.settings import LogConfig
from ottla.log.transaction_index import AbortedTransaction, TransactionIndex
from ottla.types import Record
from ottla.wire.records import DELETE_HORIZON_BIT, build_batch

CONFIG = LogConfig(
    cleanup_policy=("compact",), segment_bytes=1000, index_interval_bytes=100, file_delete_delay_ms=0,
    message_timestamp_after_max_ms=2**62,
)  # fmt: skip


def put(log: Log, *keys: bytes, at_ms: int = NOW_MS, value: bytes | None = b"v" * 20, **options: Any) -> None:
    raw = build_batch([Record(0, at_ms, key, value) for key in keys], **options)
    log.append(raw, leader_epoch=0, now_ms=NOW_MS)


def filled(disk: MemoryDisk, config: LogConfig = CONFIG, rounds: int = 40, at_ms: int = NOW_MS) -> Log:
    """Four keys, written again and again."""
    log = open_log(disk, config)
    for number in range(rounds):
        put(log, b"a", b"b", b"c", b"d", at_ms=at_ms + number)
    return log


def offsets(log: Log, before: int) -> list[int]:
    return [record.offset for record in read_all(log) if record.offset < before]


# -- when ---------------------------------------------------------------------------------------------------


def test_a_log_is_dirty_when_enough_of_it_is() -> None:
    disk = MemoryDisk()
    log = open_log(disk, CONFIG)
    bench = Bench(disk, log, NOW_MS)
    put(log, *[b"%d" % n for n in range(25)])
    assert bench.dirty() is None, "the active segment is never dirty"
    log.roll(NOW_MS)
    dirty = bench.dirty()
    assert dirty is not None
    assert (dirty.ratio, dirty.dirty_offset, dirty.end_offset) == (1.0, 0, 25)
    bench.compact()
    put(log, b"1")
    log.roll(NOW_MS)
    assert bench.dirty() is None
    put(log, *[b"%d" % n for n in range(25)])
    log.roll(NOW_MS)
    dirty = bench.dirty()
    assert dirty is not None
    assert 0.5 < dirty.ratio < 0.6
    assert dirty.dirty_offset == 25


def test_nothing_beyond_the_high_watermark_is_compacted() -> None:
    log = filled(MemoryDisk())
    ends = [segment.base_offset for segment in log.segments[1:]]
    dirty, _ = look_at(WHERE, log, ends[2] - 1, NOW_MS)
    assert dirty is not None
    assert dirty.end_offset == ends[1]
    assert look_at(WHERE, log, ends[0] - 1, NOW_MS) == (None, False)


def test_young_records_are_safe() -> None:
    config = LogConfig(**{**_fields(CONFIG), "min_compaction_lag_ms": 1000})
    log = open_log(MemoryDisk(), config)
    for number in range(3):
        put(log, b"a", at_ms=NOW_MS + number * 1000)
        log.roll(NOW_MS)
    found = {now: look_at(WHERE, log, 3, NOW_MS + now) for now in (999, 1000, 2500, 3000)}
    assert found[999] == (None, True)
    assert [dirty.end_offset for dirty, _ in list(found.values())[1:] if dirty] == [1, 2, 3]
    assert [waits for _, waits in found.values()] == [True, True, True, False]


def test_old_records_are_compacted_however_few() -> None:
    config = LogConfig(**{**_fields(CONFIG), "max_compaction_lag_ms": 1000, "min_cleanable_dirty_ratio": 1.0})
    log = open_log(MemoryDisk(), config)
    put(log, b"a")
    log.roll(NOW_MS)
    assert look_at(WHERE, log, 1, NOW_MS + 1000) == (None, True)
    dirty, waits = look_at(WHERE, log, 1, NOW_MS + 1001)
    assert dirty is not None
    assert not waits


def test_a_compacted_segment_rolls_in_time_to_be_compacted() -> None:
    config = LogConfig(**{**_fields(CONFIG), "max_compaction_lag_ms": 1000})
    log = open_log(MemoryDisk(), config)
    put(log, b"a")
    put(log, b"a", at_ms=NOW_MS + 1000)
    assert len(log.segments) == 1
    put(log, b"a", at_ms=NOW_MS + 1001)
    assert len(log.segments) == 2
    assert LogConfig(max_compaction_lag_ms=5).roll_ms == LogConfig().segment_ms


class Waking(InPlace):
    """A background that tells when a segment has closed."""

    wake: Callable[[], None]

    def segment_closed(self) -> None:
        self.wake()


def test_a_closed_segment_wakes_the_cleaner_and_an_idle_one_has_no_timer() -> None:
    disk = MemoryDisk()
    background = Waking()
    log = open_log(disk, CONFIG, background=background)
    bench = Bench(disk, log, NOW_MS)
    background.wake = bench.cleaner.wake
    put(log, b"a")
    assert bench.clock.timers == []
    for _ in range(50):
        put(log, b"a")
    assert [delay for delay, _ in bench.clock.timers] == [WAKE_DELAY_MS]
    bench.run()
    end = log.segments[-1].base_offset
    assert offsets(log, end) == [end - 1]
    assert bench.checkpoints == [end] == [log.cleaned_offset]
    assert bench.clock.timers == []


def test_closing_again_and_again_does_not_put_the_look_off() -> None:
    disk = MemoryDisk()
    bench = Bench(disk, filled(disk), NOW_MS)
    bench.cleaner.wake()
    for _ in range(5):
        bench.clock.ms += WAKE_DELAY_MS - 1
        bench.cleaner.wake()
    assert [delay for delay, _ in bench.clock.timers] == [WAKE_DELAY_MS]
    bench.run()
    assert len(bench.checkpoints) == 1


def test_what_time_makes_dirty_is_looked_at_again() -> None:
    config = LogConfig(**{**_fields(CONFIG), "min_compaction_lag_ms": 60_000})
    disk = MemoryDisk()
    log = filled(disk, config)
    bench = Bench(disk, log, NOW_MS)
    bench.cleaner.wake()
    bench.run()
    assert bench.checkpoints == []
    assert [delay for delay, _ in bench.clock.timers] == [15_000]
    bench.clock.ms += 61_000
    bench.run()
    assert bench.checkpoints == [log.segments[-1].base_offset]
    assert bench.clock.timers == []


def test_a_cleaner_that_is_off_or_closed_does_nothing() -> None:
    disk = MemoryDisk()
    log = filled(disk)
    bench = Bench(disk, log, NOW_MS, {"log.cleaner.enable": "false"})
    bench.cleaner.wake()
    assert bench.clock.timers == []
    bench = Bench(disk, log, NOW_MS)
    bench.cleaner.wake()
    bench.cleaner.close()
    assert bench.clock.timers == []
    bench.cleaner.wake()
    assert bench.clock.timers == []


def test_a_topic_that_is_not_compacted_is_left_alone() -> None:
    disk = MemoryDisk()
    log = filled(disk, LogConfig(segment_bytes=1000))
    bench = Bench(disk, log, NOW_MS)
    assert asyncio.run(Slices().run(bench.cleaner.look(NOW_MS))) == ([], False)
    log.update_config(CONFIG)
    found, _ = asyncio.run(Slices().run(bench.cleaner.look(NOW_MS)))
    assert [dirty.log for dirty in found] == [log]
    bench.compact()
    end = log.segments[-1].base_offset
    assert len(offsets(log, end)) == 4


def test_work_is_cut_into_slices() -> None:
    steps = iter([RECORDS_AT_ONCE // 2] * 5)
    assert [advance(steps) for _ in range(3)] == [True, True, False]


# -- what a round does --------------------------------------------------------------------------------------


def test_segments_are_merged_and_offsets_stay() -> None:
    disk = MemoryDisk()
    log = filled(disk)
    before = {record.offset: record for record in read_all(log)}
    bases = [segment.base_offset for segment in log.segments]
    Bench(disk, log, NOW_MS).compact()
    # What is merged goes by the sizes before: the next round finds them small.
    assert [segment.base_offset for segment in log.segments] == bases
    log.roll(NOW_MS)
    Bench(disk, log, NOW_MS).compact()
    end = log.segments[-1].base_offset
    assert [segment.base_offset for segment in log.segments] == [0, bases[-1], end]
    assert offsets(log, end) == list(range(end - 4, end))
    assert all(before[record.offset] == record for record in read_all(log))
    assert log.size_bytes == sum(segment.size for segment in log.segments)
    assert (log.log_start_offset, log.log_end_offset) == (0, len(before))
    assert [name for name in disk.list(FOLDER) if name.startswith(f"{0:020d}")] == [
        f"{0:020d}{suffix}" for suffix in (".index", ".log", ".timeindex")
    ]
    # Recovery finds the same.
    assert read_all(open_log(disk, CONFIG)) == read_all(log)


def test_reading_goes_on_with_the_next_batch() -> None:
    disk = MemoryDisk()
    log = filled(disk)
    Bench(disk, log, NOW_MS).compact()
    end = log.segments[-1].base_offset
    for offset in (0, 1, end // 2, end - 5, end - 4):
        assert read_all(log, offset)[0].offset == end - 4


def test_times_are_found_after_compaction() -> None:
    disk = MemoryDisk()
    log = filled(disk)
    Bench(disk, log, NOW_MS).compact()
    first = read_all(log)[0]
    for timestamp in (0, NOW_MS, first.timestamp_ms):
        found = first_from(log, timestamp)
        assert found is not None
        assert (found.offset, found.timestamp_ms) == (first.offset, first.timestamp_ms)
    newest = newest_of(log)
    assert newest is not None
    assert newest.timestamp_ms == NOW_MS + 39


def test_a_read_that_is_under_way_sees_the_old_file() -> None:
    disk = MemoryDisk()
    log = filled(disk)
    piece = log.read(0, 10_000, end_offset=log.log_end_offset)
    assert piece is not None
    before = piece.file.read(piece.position, piece.size)
    Bench(disk, log, NOW_MS).compact()
    assert piece.file.read(piece.position, piece.size) == before


def test_a_producer_goes_on_where_it_was() -> None:
    disk = MemoryDisk()
    log = open_log(disk, CONFIG)
    numbered: dict[str, int] = {"producer_id": 5, "producer_epoch": 0}
    put(log, b"a", b"b", base_sequence=0, **numbered)
    put(log, b"a", b"b", base_sequence=2, **numbered)
    for _ in range(30):
        put(log, b"a", b"b")
    Bench(disk, log, NOW_MS).compact()
    kept = [header for header, _ in stored(log) if header.producer_id == 5]
    assert [(header.record_count, header.base_offset, header.last_sequence) for header in kept] == [(0, 2, 3)]
    for name in [name for name in disk.files if name.endswith(".snapshot")]:
        disk.remove(name)
    log = open_log(disk, CONFIG)
    entry = log.producers.get(5)
    assert entry is not None
    assert entry.last_sequence == 3
    put(log, b"a", b"b", base_sequence=4, **numbered)
    with pytest.raises(KafkaError):
        put(log, b"a", base_sequence=9, **numbered)


def test_a_batch_larger_than_the_buffer() -> None:
    disk = MemoryDisk()
    config = LogConfig(**{**_fields(CONFIG), "segment_bytes": 1 << 20})
    log = open_log(disk, config)
    put(log, b"small")
    put(log, b"large", value=b"x" * 300_000)
    put(log, b"small")
    log.roll(NOW_MS)
    Bench(disk, log, NOW_MS, {"log.cleaner.io.buffer.size": "0"}).compact()
    assert [(record.offset, len(record.value or b"")) for record in read_all(log)] == [(1, 300_000), (2, 20)]


@pytest.mark.parametrize(
    ("load_factor", "keys"),
    [(0.5, 10), (1.0, 20), (7.5, 20), (0.0, 1), (-1.0, 1), (math.inf, 20), (-math.inf, 1), (math.nan, 1)],
)
def test_any_load_factor_leaves_room_for_a_key(load_factor: float, keys: int) -> None:
    assert keys_at_once(192 * 20, load_factor) == keys


def test_a_rate_that_is_no_number_or_negative_holds_nothing_back() -> None:
    assert bytes_per_second(math.nan) == bytes_per_second(-1.0) == bytes_per_second(-math.inf) == math.inf
    assert bytes_per_second(0.0) == bytes_per_second(0.5) == 1.0
    assert bytes_per_second(5e6) == 5e6


def test_more_keys_than_memory_take_several_rounds() -> None:
    disk = MemoryDisk()
    log = open_log(disk, CONFIG)
    for number in range(200):
        put(log, b"%d" % (number % 50))
    bench = Bench(disk, log, NOW_MS, {"log.cleaner.io.buffer.load.factor": repr(192 * 20 / 2**27)})
    bench.cleaner.wake()
    bench.run()
    end = log.segments[-1].base_offset
    assert len(bench.checkpoints) > 1
    assert bench.checkpoints == sorted(set(bench.checkpoints))
    latest = {record.key: record.offset for record in read_all(log) if record.offset < end}
    assert latest == {b"%d" % (n % 50): n for n in range(end - 50, end)}


def test_producer_state_of_merged_segments_goes_with_them() -> None:
    disk = MemoryDisk()
    log = filled(disk)
    bases = [segment.base_offset for segment in log.segments]
    assert log.snapshots.offsets == bases[1:]
    Bench(disk, log, NOW_MS).compact()
    assert log.snapshots.offsets == bases[1:]
    log.roll(NOW_MS)
    Bench(disk, log, NOW_MS).compact()
    kept = [bases[-1], log.log_end_offset]
    assert log.snapshots.offsets == kept
    assert [name for name in disk.list(FOLDER) if name.endswith(".snapshot")] == [
        f"{base:020d}.snapshot" for base in kept
    ]


def test_aborted_transactions_go_and_their_markers_after_them() -> None:
    """Over segments that are merged: the index says what is left, and the markers have a horizon."""
    disk = MemoryDisk()
    config = LogConfig(**{**_fields(CONFIG), "delete_retention_ms": 1000})
    it = open_partition(disk, config)
    for number in range(3):
        send(it, 1, number, key=b"a")
        send(it, 2, number, key=b"b")
        end(it, 1, commits=False)
        it.log.roll(NOW_MS)
        end(it, 2, commits=number != 1)
        it.log.roll(NOW_MS)
    # Still open: nothing of it is compacted, nor what follows it.
    send(it, 3, 0, key=b"b")
    it.log.roll(NOW_MS)
    commit(it)
    bench = Bench(disk, it.log, NOW_MS)
    dirty = bench.dirty()
    assert dirty is not None and dirty.end_offset == it.last_stable_offset == 12
    before = consume(it)
    bench.compact_to(12)
    again = consume(it)
    assert [one.value for one in again] == [b"2.0.2"] and again[0] in before
    # The last batch of a producer stays, without its records, and so does the marker behind it.
    kinds = [(h.base_offset, h.is_control, h.record_count) for h, _ in stored(it.log)]
    assert (8, False, 0) in kinds
    assert indexed(disk) == [(1, 0, 2, 1), (1, 4, 6, 5), (2, 5, 7, 8), (1, 8, 10, 9)]
    bench.clock.ms += 1
    it.log.replacement.advance(0)
    bench.compact_to(12)
    assert indexed(disk) == [(1, 8, 10, 9)]
    horizons = {
        h.base_offset for h, _ in stored(it.log) if h.attributes & DELETE_HORIZON_BIT and h.is_control
    }
    assert horizons == {2, 3, 6, 7}
    bench.clock.ms += 1000
    it.log.replacement.advance(0)
    bench.compact_to(12)
    assert [h.base_offset for h, _ in stored(it.log) if h.is_control] == [10, 11]
    log = it.log
    log.close()
    reopened = open_partition(
        disk, config, high_watermark=13, clean=True, recovery_point=log.log_end_offset, cleaned_offset=12
    )  # fmt: skip
    assert (reopened.last_stable_offset, consume(reopened)) == (12, again)


def indexed(disk: MemoryDisk) -> list[AbortedTransaction]:
    index = TransactionIndex.decode(disk.read_file(f"{FOLDER}/{0:020d}.txnindex"), 0, 99)
    assert index is not None
    return list(index)


def test_deleted_records_and_old_segments_go_all_the_same() -> None:
    disk = MemoryDisk()
    config = LogConfig(**{**_fields(CONFIG), "cleanup_policy": ("compact", "delete"), "retention_ms": 1000})
    log = filled(disk, config)
    Bench(disk, log, NOW_MS).compact()
    end = log.segments[-1].base_offset
    log.advance_log_start(end - 2)
    assert read_all(log)[0].offset == end - 2
    log.apply_retention(NOW_MS + 1000 + 40)
    assert log.log_start_offset == log.segments[0].base_offset >= end


def test_a_group_that_is_clean_is_not_replaced() -> None:
    disk = MemoryDisk()
    log = open_log(disk, CONFIG)
    put(log, *[b"%d" % number for number in range(25)])
    put(log, *[b"%d" % number for number in range(25, 50)])
    segment = log.segments[0]
    bench = Bench(disk, log, NOW_MS)
    bench.compact()
    assert log.segments[0] is segment
    assert not [name for name in disk.files if name.endswith(".cleaned")]
    assert log.cleaned_offset == 25


# -- what stops it ------------------------------------------------------------------------------------------


class Interrupting(MemoryDisk):
    """Calls ``meanwhile`` between two pieces of work in the background."""

    def __init__(self) -> None:
        super().__init__()
        self.meanwhile: Callable[[], object] | None = None

    async def run(self, work: Callable[[], T]) -> T:
        done = work()
        if self.meanwhile is not None and any(name.endswith(".log.cleaned") for name in self.files):
            self.meanwhile, call = None, self.meanwhile
            call()
        return done


def delete_first(log: Log) -> None:
    log.advance_log_start(log.segments[1].base_offset)
    log.apply_retention(NOW_MS)


def stop_compacting(log: Log) -> None:
    log.update_config(LogConfig(segment_bytes=1000))


def delete_log(log: Log) -> None:
    log._segments.state = State.DELETED


def replace_end(log: Log) -> None:
    """What the older records are to be removed for is not there any more, and others are in its place."""
    log.truncate_to(log.segments[1].base_offset + 4, NOW_MS)
    while len(log.segments) < 5:
        put(log, b"others", b"only")


@pytest.mark.parametrize(
    "change",
    [delete_first, stop_compacting, delete_log, lambda log: log.truncate_to(3, NOW_MS), replace_end],
)
def test_a_log_that_changes_meanwhile_is_left_as_it_is(change: Callable[[Log], object]) -> None:
    disk = Interrupting()
    log = filled(disk)
    disk.meanwhile = lambda: change(log)
    with pytest.raises(Aborted):
        Bench(disk, log, NOW_MS).compact()
    assert disk.meanwhile is None
    start = log.log_start_offset
    assert [r.offset for r in read_all(log)] == list(range(start, log.log_end_offset))
    assert log.cleaned_offset == -1
    assert not [name for name in disk.files if name.endswith((".cleaned", ".swap"))]


def test_a_full_disk_is_not_filled_further() -> None:
    disk = MemoryDisk()
    log = filled(disk)
    disk.capacity = sum(len(inode.data) for inode in disk.files.values()) + 100
    bench = Bench(disk, log, NOW_MS)
    bench.cleaner.wake()
    bench.run()
    assert bench.checkpoints == []
    assert not [name for name in disk.files if name.endswith(".cleaned")]
    # It is tried again, but not at once.
    assert [delay for delay, _ in bench.clock.timers] == [15_000]
    assert (bench.cleaner.failures, bench.cleaner.rounds, log.replacement.fails) == (1, 0, True)
    disk.capacity = 1 << 30
    bench.run()
    assert bench.checkpoints == []
    bench.clock.ms += FAILED_REST_MS
    bench.run()
    assert len(bench.checkpoints) == 1
    assert (bench.cleaner.failures, bench.cleaner.rounds, log.replacement.fails) == (1, 1, False)
    # Nothing was left to do when it looked last.
    assert bench.cleaner.dirty_ratio == 0


def test_renames_that_fail_are_taken_back() -> None:
    disk = MemoryDisk()
    log = filled(disk)
    before = read_all(log)
    disk.fail_with["rename"] = OSError(errno.EIO, "it failed")
    disk.fails_on = ".timeindex.swap"
    with pytest.raises(KafkaError):
        Bench(disk, log, NOW_MS).compact()
    disk.fail_with.clear()
    assert read_all(log) == before
    if log.failed is None:
        Bench(disk, log, NOW_MS).compact()
    assert read_all(open_log(disk, CONFIG))[-1] == before[-1]


def test_a_stop_does_not_wait_for_a_slow_rate() -> None:
    disk = MemoryDisk()
    log = filled(disk)
    bench = Bench(disk, log, NOW_MS, {"log.cleaner.io.max.bytes.per.second": "1"})
    dirty = bench.dirty()
    assert dirty is not None

    async def body() -> None:
        cleaning = asyncio.create_task(bench.cleaner.clean(dirty))
        await asyncio.sleep(0.05)
        assert not cleaning.done()
        bench.cleaner.close()
        with pytest.raises(Aborted):
            async with asyncio.timeout(HANG_S):
                await cleaning

    asyncio.run(body())
    assert log.cleaned_offset == -1


def test_truncation_takes_the_mark_along() -> None:
    disk = MemoryDisk()
    log = filled(disk)
    Bench(disk, log, NOW_MS).compact()
    log.truncate_to(5, NOW_MS)
    assert log.cleaned_offset <= log.log_end_offset


# -- in a broker --------------------------------------------------------------------------------------------


def _fields(config: LogConfig) -> dict[str, Any]:
    return {name: getattr(config, name) for name in config.__slots__}


def test_the_manager_compacts_and_remembers_how_far(tmp_path: Path) -> None:
    from ottla.env.disk import RealDisk

    topic_id = uuid4()
    config = LogConfig(**{**_fields(CONFIG), "min_cleanable_dirty_ratio": 0.1})
    checkpoint = tmp_path / "cleaner-offset-checkpoint"

    async def body() -> None:
        disk = RealDisk()
        broker = BrokerConfig({"log.dirs": str(tmp_path)})
        manager = LogManager(disk, str(tmp_path), broker, SystemClock(), node_id=1)
        await manager.start()
        log = manager.get_or_create(WHERE, topic_id, config, NOW_MS)
        for _ in range(60):
            put(log, b"a", b"b")
        async with asyncio.timeout(HANG_S):
            while log.cleaned_offset < log.segments[-1].base_offset:
                await asyncio.sleep(0.01)
        cleaned = log.cleaned_offset
        assert len(offsets(log, cleaned)) == 2
        await manager.close()
        assert decode_offsets(checkpoint.read_bytes()) == {WHERE: cleaned}

        manager = LogManager(disk, str(tmp_path), broker, SystemClock(), node_id=1)
        await manager.start()
        log = manager.get_or_create(WHERE, topic_id, config, NOW_MS)
        assert log.cleaned_offset == cleaned
        manager.delete(WHERE)
        await manager.close()
        assert decode_offsets(checkpoint.read_bytes()) == {}
        disk.close()

    asyncio.run(body())
