"""Idempotent producers: what repeats, what follows, what is fenced, and what survives a restart."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st
from log_support import FOLDER, NOW_MS, append, batch, open_log, read_all, reopen_clean
from memory_disk import Meanwhile, MemoryDisk

from measuring import cpu_at_most
from ottla.errors import ErrorCode, KafkaError
from ottla.log.files import InPlace
from ottla.log.log import Log
from ottla.log.markers import EndMarker, build_marker, read_marker
from ottla.log.producer_entry import ProducerEntry
from ottla.log.producers import Producers, decode_snapshot, encode_snapshot
from ottla.log.settings import LogConfig, Origin
from ottla.log.verification import EXEMPT
from ottla.types import Record
from ottla.wire.records import SEQUENCE_MAX, build_batch, read_header

FIVE_DAYS_MS = 5 * 24 * 3600 * 1000


class Told(NamedTuple):
    """What is told of an append."""

    base_offset: int
    last_offset: int
    log_append_time_ms: int
    log_start_offset: int
    duplicate: bool


def send(log: Log, sequence: int, count: int = 1, *, pid: int = 7, epoch: int = 0, **options: Any) -> Told:
    data = batch(
        *["v"] * count, producer_id=pid, producer_epoch=epoch, base_sequence=sequence, **options
    )  # fmt: skip
    return Told(*log.append(data, leader_epoch=0, now_ms=NOW_MS).fields())


def refused(log: Log, sequence: int, count: int = 1, **options: Any) -> ErrorCode:
    before = log.log_end_offset
    with pytest.raises(KafkaError) as raised:
        send(log, sequence, count, **options)
    assert log.log_end_offset == before
    return raised.value.code


def state(producers: Iterable[ProducerEntry]) -> list[tuple[Any, ...]]:
    """All that matters of a log's producers; whichever batches are remembered."""
    return sorted(
        (e.producer_id, e.epoch, e.last_sequence, e.last_timestamp_ms, e.txn_first_offset) for e in producers
    )


def test_the_last_five_batches_are_recognized() -> None:
    log = open_log(MemoryDisk())
    first = [send(log, 10 * number, 10) for number in range(6)]
    for number in range(1, 6):
        again = send(log, 10 * number, 10)
        assert again == first[number]._replace(duplicate=True, log_append_time_ms=NOW_MS)
    assert log.log_end_offset == 60
    assert refused(log, 0, 10) is ErrorCode.out_of_order_sequence_number
    # A part of a batch is no repeat of it.
    assert refused(log, 50, 9) is ErrorCode.out_of_order_sequence_number
    assert refused(log, 51, 9) is ErrorCode.out_of_order_sequence_number
    assert send(log, 60).base_offset == 60


def test_a_producers_batches_are_nothing_to_the_collector_of_garbage() -> None:
    """There may be very many producers, and each of their batches takes the place of another."""
    log = open_log(MemoryDisk())
    for sequence in range(20):
        send(log, sequence)
    entry = log.producers.get(7)
    assert entry is not None and len(entry.recent) == 5
    parts = [one for one in gc.get_referents(entry) if not isinstance(one, type)]
    assert not any(map(gc.is_tracked, parts))
    assert sys.getsizeof(entry) + sum(map(sys.getsizeof, parts)) < 600


@pytest.mark.parametrize("sequence", [0, 1, 3, SEQUENCE_MAX])
def test_gaps_and_steps_back_are_refused(sequence: int) -> None:
    log = open_log(MemoryDisk())
    send(log, 5, 2)
    send(log, 7, 1)
    assert refused(log, sequence) is ErrorCode.out_of_order_sequence_number
    assert refused(log, 9) is ErrorCode.out_of_order_sequence_number
    assert send(log, 8).base_offset == 3


def test_an_unknown_producer_may_begin_anywhere() -> None:
    log = open_log(MemoryDisk())
    assert send(log, 1234).base_offset == 0
    assert send(log, 1235).base_offset == 1


def test_sequence_numbers_wrap_within_and_between_batches() -> None:
    log = open_log(MemoryDisk())
    send(log, SEQUENCE_MAX - 3, 2)
    wrapped = send(log, SEQUENCE_MAX - 1, 4)
    assert send(log, SEQUENCE_MAX - 1, 4) == wrapped._replace(duplicate=True, log_append_time_ms=NOW_MS)
    assert send(log, 2).base_offset == 6
    other = open_log(MemoryDisk())
    send(other, SEQUENCE_MAX)
    assert send(other, 0).base_offset == 1


def test_a_new_epoch_begins_at_zero_and_fences_the_old() -> None:
    log = open_log(MemoryDisk())
    send(log, 0, 3)
    assert refused(log, 3, epoch=1) is ErrorCode.out_of_order_sequence_number
    send(log, 0, epoch=1)
    assert refused(log, 3, epoch=0) is ErrorCode.invalid_producer_epoch
    # Even a batch that was a repeat under the old epoch.
    assert refused(log, 0, 3, epoch=0) is ErrorCode.invalid_producer_epoch
    assert send(log, 1, epoch=1).base_offset == 4


def test_producers_do_not_get_in_each_others_way() -> None:
    log = open_log(MemoryDisk())
    send(log, 0, pid=1)
    send(log, 0, pid=2)
    assert send(log, 1, pid=1).base_offset == 2
    log.append(batch("no producer"), leader_epoch=0, now_ms=NOW_MS)
    assert send(log, 1, pid=2).base_offset == 4


def test_a_repeat_is_told_its_append_time() -> None:
    log = open_log(MemoryDisk(), LogConfig(message_timestamp_type="LogAppendTime"))
    original = send(log, 0)
    assert original.log_append_time_ms == NOW_MS
    assert send(log, 0) == original._replace(duplicate=True, log_append_time_ms=NOW_MS)


def test_coordinators_are_only_held_to_epochs() -> None:
    log = open_log(MemoryDisk())
    for sequence in (5, 5, 0):
        data = batch("v", producer_id=7, producer_epoch=3, base_sequence=sequence)
        log.append(data, leader_epoch=0, now_ms=NOW_MS, origin=Origin.COORDINATOR)
    assert log.log_end_offset == 3
    stale = batch("v", producer_id=7, producer_epoch=2, base_sequence=0)
    with pytest.raises(KafkaError) as raised:
        log.append(stale, leader_epoch=0, now_ms=NOW_MS, origin=Origin.COORDINATOR)
    assert raised.value.code is ErrorCode.invalid_producer_epoch


def test_clients_take_no_part_in_transactions_yet() -> None:
    log = open_log(MemoryDisk())
    assert refused(log, 0, transactional=True) is ErrorCode.invalid_txn_state


@pytest.mark.parametrize("clean", [True, False])
@given(steps=st.lists(st.tuples(st.integers(1, 3), st.integers(1, 4)), min_size=1, max_size=25))
def test_state_survives_a_restart(clean: bool, steps: list[tuple[int, int]]) -> None:
    config = LogConfig(segment_bytes=300)
    disk = MemoryDisk()
    log = open_log(disk, config)
    following = {1: 0, 2: 0, 3: 0}
    last: dict[int, tuple[int, int, Told]] = {}
    for pid, count in steps:
        done = send(log, following[pid], count, pid=pid)
        last[pid] = (following[pid], count, done)
        following[pid] += count
    before = state(log.producers)
    log = reopen_clean(disk, log) if clean else open_log(disk, config)
    assert state(log.producers) == before
    assert log.producers.end_offset == log.log_end_offset
    for pid, (sequence, count, done) in last.items():
        assert send(log, sequence, count, pid=pid) == done._replace(duplicate=True, log_append_time_ms=NOW_MS)
        assert refused(log, following[pid] + 1, pid=pid) is ErrorCode.out_of_order_sequence_number
        send(log, following[pid], pid=pid)


def test_recovery_remembers_all_five_batches_that_it_reads() -> None:
    disk = MemoryDisk()
    log = open_log(disk)
    first = [send(log, number) for number in range(6)]
    log = open_log(disk)
    for number in range(1, 6):
        assert send(log, number) == first[number]._replace(duplicate=True, log_append_time_ms=NOW_MS)


def test_snapshots_are_written_on_roll_and_close_and_old_ones_go() -> None:
    disk = MemoryDisk()
    log = open_log(disk, LogConfig(segment_bytes=100))
    for number in range(4):
        send(log, number)
    names = {name for name in disk.list(FOLDER) if name.endswith(".snapshot")}
    assert names == {f"{offset:020d}.snapshot" for offset in (1, 2, 3)}
    for _ in range(3):
        log = reopen_clean(disk, log)
        send(log, log.log_end_offset)
    log.close()
    names = {name for name in disk.list(FOLDER) if name.endswith(".snapshot")}
    bases = {f"{segment.base_offset:020d}.snapshot" for segment in log.segments[1:]}
    assert len(names - bases) <= 2 and f"{log.log_end_offset:020d}.snapshot" in names


def test_a_gap_whose_number_an_older_epoch_used_is_a_gap() -> None:
    """What a producer wrote in its last epoch is no repeat of anything: the batch would be lost."""
    log = open_log(MemoryDisk())
    for number in range(5):
        send(log, number)
    send(log, 0, epoch=1)
    assert refused(log, 3, epoch=1) is ErrorCode.out_of_order_sequence_number
    assert send(log, 1, epoch=1).base_offset == 6
    entry = log.producers.get(7)
    assert entry is not None and [one.last_offset for one in entry.batches] == [5, 6]


def test_a_transaction_that_began_with_the_log_is_open() -> None:
    producers = Producers(0, FIVE_DAYS_MS)
    options = {"producer_id": 0, "producer_epoch": 0, "transactional": True}
    producers.update(read_header(batch("v", base_offset=0, base_sequence=0, **options)))
    entry = producers.get(0)
    assert entry is not None and entry.txn_first_offset == 0
    producers.update(read_header(batch("v", base_offset=1, base_sequence=1, **options)))
    assert entry.txn_first_offset == 0
    list(producers.expire(NOW_MS * 2, FIVE_DAYS_MS))
    assert len(producers) == 1
    again = Producers(0, FIVE_DAYS_MS)
    again.load(encode_snapshot(producers), 2, NOW_MS * 2)
    assert [entry.txn_first_offset for entry in again] == [0]
    assert producers.truncate_to(1) and producers.end_offset == 1
    assert (entry.txn_first_offset, entry.next_sequence) == (0, 1)
    # What was before a marker does not show, and is kept until that is committed.
    marker = build_marker(EndMarker(True, 0), 0, 0, NOW_MS)
    for _ in range(2):
        producers.update(read_header(marker).replaced(base_offset=1), EndMarker(True, 0))
        assert producers.truncate_to(1) and producers.end_offset == 1
        entry = producers.get(0)
        assert entry is not None and (entry.txn_first_offset, entry.coordinator_epoch) == (0, -1)
    producers.update(read_header(marker).replaced(base_offset=1), EndMarker(True, 0))
    producers.committed_to(2)
    assert not producers.truncate_to(1) and producers.end_offset == 2


UNDO_STEPS = st.lists(
    st.one_of(
        # A producer, and what it does: a batch in a transaction, its end in the next epoch or the same.
        st.tuples(st.integers(0, 2), st.sampled_from(["batch", "batch", "bump", "end"])),
        st.tuples(st.integers(0, 100), st.sampled_from(["cut", "commit", "freeze"])),
    ),
    max_size=40,
)


@given(UNDO_STEPS, st.sampled_from([2, 256]))
def test_what_is_taken_back_is_as_if_it_had_never_been(steps: list[tuple[int, str]], undone_max: int) -> None:
    """Or is said to be unknown: not where all of it came behind what is committed, and is not very much."""

    def taken(batches: Iterable[tuple[Any, EndMarker | None]], end_offset: int) -> Producers:
        made = Producers(0, FIVE_DAYS_MS)
        for header, marker in batches:
            made.update(header, marker)
        made.advance_to(end_offset)
        return made

    def state(of: Producers) -> Any:
        entries = [
            (one.producer_id, one.epoch, one.coordinator_epoch, one.recent, one.txn_first_offset)
            for one in of
        ]
        return of.end_offset, of.transactions.first_undecided_offset, sorted(entries)

    producers, batches, committed = Producers(0, FIVE_DAYS_MS), [], 0
    frozen, before = producers.freeze().entries, []
    epochs, numbers = [0, 0, 0], [0, 0, 0]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ottla.log.producers.UNDONE_MAX", undone_max)
        for which, what in steps:
            end = producers.end_offset
            if what in ("batch", "bump", "end"):
                marker = None if what == "batch" else EndMarker(True, 1)
                epochs[which] += what == "bump"
                options: dict[str, Any] = {"producer_id": which, "producer_epoch": epochs[which]}
                if marker is None:
                    made = batch("v", base_sequence=numbers[which], transactional=True, **options)
                    numbers[which] += 1
                else:
                    made = build_marker(marker, which, epochs[which], NOW_MS)
                    numbers[which] = 0 if what == "bump" else numbers[which]
                header = read_header(made).replaced(base_offset=end)
                batches.append((header, marker))
                producers.update(header, marker)
            elif what == "freeze":
                frozen = producers.freeze().entries
                before = [(one.producer_id, one.recent, one.epoch) for one in frozen]
            elif what == "commit":
                committed = max(committed, end * which // 100)
                producers.committed_to(committed)
            else:
                cut = end * which // 100
                left = [one for one in batches if one[0].base_offset < cut]
                if not producers.truncate_to(cut):
                    assert undone_max == 2 or cut < committed or end - cut > 5
                    producers = taken(left, cut)
                assert state(producers) == state(taken(left, cut))
                batches, committed = left, min(committed, cut)
                for one in producers:
                    epochs[one.producer_id], numbers[one.producer_id] = one.epoch, max(one.next_sequence, 0)
            assert [(one.producer_id, one.recent, one.epoch) for one in frozen] == before


def test_a_snapshot_does_not_tell_what_was_before_it() -> None:
    """All that it has of a producer may go, and there was more: the log has to be read for that."""
    producers = Producers(0, FIVE_DAYS_MS)
    for number in range(9):
        options = {"producer_id": 7, "producer_epoch": 0, "base_sequence": number}
        producers.update(read_header(batch("v", base_offset=number, **options)))
    again = Producers(0, FIVE_DAYS_MS)
    again.load(encode_snapshot(producers), 9, NOW_MS)
    assert not again.truncate_to(3) and again.end_offset == 9
    assert again.truncate_to(7) and again.end_offset == 7


class Later(InPlace):
    """Background work that waits until it is told to run."""

    def __init__(self) -> None:
        self.work: list[Callable[[], None]] = []

    def submit(self, work: Callable[[], None], delay_ms: int = 0) -> None:
        self.work.append(work)

    def run(self) -> None:
        while self.work:
            self.work.pop(0)()


def snapshots(disk: MemoryDisk) -> dict[int, list[ProducerEntry]]:
    """What each snapshot on the disk says."""
    names = [name for name in disk.list(FOLDER) if name.endswith(".snapshot")]
    return {int(name[:20]): decode_snapshot(bytes(disk.files[f"{FOLDER}/{name}"].data)) for name in names}


def test_a_snapshot_is_of_the_roll_however_late_it_is_written() -> None:
    disk, later = MemoryDisk(), Later()
    log = open_log(disk, LogConfig(segment_bytes=250), background=later)
    at_roll = {}
    for number in range(12):
        before, segments = encode_snapshot(log.producers), len(log.segments)
        send(log, number // 3, pid=number % 3)
        if len(log.segments) > segments:
            at_roll[log.segments[-1].base_offset] = decode_snapshot(before)
    assert len(at_roll) > 2 and snapshots(disk) == {}
    later.run()
    assert {at: state(entries) for at, entries in snapshots(disk).items()} == {
        at: state(entries) for at, entries in at_roll.items()
    }
    assert log.snapshots.offsets == sorted(at_roll)


@given(
    sent=st.lists(st.tuples(st.integers(0, 3), st.sampled_from([0, 0, 0, 1])), max_size=20),
    more=st.lists(st.tuples(st.integers(0, 3), st.sampled_from([0, 0, 0, 1])), max_size=20),
    cut=st.integers(0, 40),
)
def test_what_is_frozen_does_not_change(
    sent: list[tuple[int, int]], more: list[tuple[int, int]], cut: int
) -> None:
    log = open_log(MemoryDisk())
    following: dict[int, tuple[int, int]] = {}

    def send_all(batches: list[tuple[int, int]]) -> None:
        for pid, bump in batches:
            epoch, sequence = following.get(pid, (0, 0))
            epoch, sequence = (epoch + 1, 0) if bump else (epoch, sequence)
            if log.producers.get(pid) is None:
                sequence = 0
            log.append(
                batch("v", producer_id=pid, producer_epoch=epoch, base_sequence=sequence),
                leader_epoch=0, now_ms=NOW_MS, origin=Origin.COORDINATOR,
            )  # fmt: skip
            following[pid] = epoch, sequence + 1

    send_all(sent)
    before = encode_snapshot(log.producers)
    frozen = log.producers.freeze()
    send_all(more)
    log.truncate_to(cut, NOW_MS)
    send_all(more)
    list(log.producers.expire(NOW_MS * 2, 0))
    assert encode_snapshot(frozen.entries) == before
    assert frozen.end_offset == len(sent)


@pytest.mark.parametrize("moment", ["before", "while"])
@pytest.mark.parametrize("grows", [False, True])
@pytest.mark.parametrize("is_late", [False, True])
def test_a_snapshot_of_what_was_cut_off_meanwhile_does_not_stay(
    moment: str, grows: bool, is_late: bool
) -> None:
    """The thread that writes it is slow, and the log is cut; perhaps it grows over the same offset again, and
    the snapshot of that is written first."""
    disk, later = Meanwhile(), Later()
    log = open_log(disk, LogConfig(segment_bytes=100), background=later)
    send(log, 0)
    send(log, 1)

    def cut() -> None:
        log.truncate_to(0, NOW_MS)
        if grows:
            send(log, 0, pid=8)

    def roll() -> None:
        if grows:
            send(log, 1, pid=8)

    if moment == "before":
        cut()
        roll()
    else:
        disk.during["write_file", ".snapshot"] = cut
        later.work.pop(0)()
        # A roll where a log was cut waits for the flush that is under way.
        roll()
    if is_late and moment == "before":
        later.work.reverse()
    later.run()
    assert not disk.during
    expected = {1: [8]} if grows else {}
    assert {at: [e.producer_id for e in entries] for at, entries in snapshots(disk).items()} == expected
    log.truncate_to(0, NOW_MS)
    assert snapshots(disk) == {} and log.snapshots.offsets == []


def test_a_clean_stop_does_not_rely_on_a_snapshot_that_a_roll_has_written() -> None:
    disk = MemoryDisk()
    log = open_log(disk)
    send(log, 0)
    log.roll(NOW_MS)
    assert list(snapshots(disk)) == [1]
    log.close()
    disk.lose_power()
    log = open_log(disk, clean=True, recovery_point=1)
    assert state(log.producers) == [(7, 0, 0, NOW_MS, -1)]


def test_a_snapshot_that_cannot_be_written_at_a_roll_is_written_at_the_end() -> None:
    disk, later = MemoryDisk(), Later()
    log = open_log(disk, LogConfig(segment_bytes=100), background=later)
    send(log, 0)
    log.roll(NOW_MS)
    disk.fail_with["write_file"], disk.fails_on = OSError(28, "No space left on device"), ".snapshot"
    later.run()
    assert log.snapshots.offsets == [] and log.recovery_point == 1
    disk.fail_with.clear()
    log = reopen_clean(disk, log)
    assert state(log.producers) == [(7, 0, 0, NOW_MS, -1)]


def test_a_roll_with_very_many_producers_takes_the_event_loop_no_time() -> None:
    data = read_header(batch("v", producer_id=1, producer_epoch=0, base_sequence=0))
    for attempt in cpu_at_most(0.02):
        later = Later()
        log = open_log(MemoryDisk(), background=later)
        for pid in range(50_000):
            log.producers.update(data.replaced(producer_id=pid))
        append(log, "a")
        with attempt.cpu():
            log.roll(NOW_MS)
        later.run()


def test_very_many_producers_expire_in_pieces() -> None:
    data = read_header(batch("v", producer_id=1, producer_epoch=0, base_sequence=0))
    for attempt in cpu_at_most(0.02):
        log = open_log(MemoryDisk())
        for pid in range(50_000):
            log.producers.update(data.replaced(producer_id=pid))
        pieces, turns, goes_on = log.producers.expire(NOW_MS * 2, 1), 0, True
        while goes_on:
            with attempt.cpu():
                goes_on = next(pieces, "over") is None
            turns += goes_on
        assert len(log.producers) == 0 and turns >= 5


def test_the_last_five_batches_are_recognized_after_a_restart() -> None:
    """Kafka's snapshot has the last one only: a client that repeats those before it hears of a gap."""
    disk = MemoryDisk()
    log = open_log(disk)
    first = [send(log, 10 * number, 10) for number in range(6)]
    other = send(log, 0, 3, pid=8)
    for _ in range(2):
        log = reopen_clean(disk, log)
        for number in range(1, 6):
            assert send(log, 10 * number, 10) == first[number]._replace(
                duplicate=True, log_append_time_ms=NOW_MS
            )
        assert send(log, 0, 3, pid=8) == other._replace(duplicate=True, log_append_time_ms=NOW_MS)
        assert refused(log, 0, 10) is ErrorCode.out_of_order_sequence_number
    (last,) = [entry for entry in decode_snapshot(encode_snapshot(log.producers)) if entry.producer_id == 7]
    assert last.last_sequence == 59


def test_a_damaged_snapshot_is_passed_over() -> None:
    disk = MemoryDisk()
    log = open_log(disk, LogConfig(segment_bytes=100))
    for number in range(4):
        send(log, number)
    before = state(log.producers)
    for name in disk.list(FOLDER):
        if name.endswith(".snapshot"):
            disk.files[f"{FOLDER}/{name}"].data[8] ^= 1
    assert state(open_log(disk, LogConfig(segment_bytes=100)).producers) == before


def test_a_snapshot_of_batches_that_were_lost_is_not_believed() -> None:
    disk = MemoryDisk()
    log = open_log(disk)
    send(log, 0)
    size = log.size_bytes
    send(log, 1)
    log.close()
    del disk.files[f"{FOLDER}/{0:020d}.log"].data[size:]
    log = open_log(disk)
    assert log.log_end_offset == 1
    assert send(log, 1).duplicate is False


def test_truncation_takes_the_producers_back() -> None:
    log = open_log(MemoryDisk(), LogConfig(segment_bytes=300))
    for number in range(9):
        send(log, number)
    for end in (7, 5, 1, 0):
        log.truncate_to(end, NOW_MS)
        assert log.producers.end_offset == log.log_end_offset == end
        assert [entry.last_sequence for entry in log.producers] == ([end - 1] if end else [])
    assert [record.offset for record in read_all(log)] == []


@given(
    sent=st.lists(st.tuples(st.sampled_from([7, 7, 8, 9]), st.sampled_from([0, 0, 0, 0, 1])), max_size=25),
    cuts=st.lists(st.integers(0, 25), min_size=1, max_size=3),
    segment_bytes=st.sampled_from([300, 10**6]),
    closed=st.booleans(),
)
def test_after_a_truncation_producers_are_what_the_log_tells(
    sent: list[tuple[int, int]], cuts: list[int], segment_bytes: int, closed: bool
) -> None:
    disk = MemoryDisk()
    config = LogConfig(segment_bytes=segment_bytes)
    log = open_log(disk, config)
    following: dict[int, tuple[int, int]] = {}
    for number, (pid, bumps) in enumerate(sent):
        epoch, sequence = following.get(pid, (0, 0))
        epoch, sequence = (epoch + 1, 0) if bumps else (epoch, sequence)
        send(log, sequence, pid=pid, epoch=epoch, at_ms=NOW_MS + number)
        following[pid] = epoch, sequence + 1
        if closed and number == 12:
            log = reopen_clean(disk, log)
    for cut in cuts:
        log.truncate_to(cut, NOW_MS)
        # Of a copy: two logs on one disk would take each other's files away.
        told = open_log(disk.copy(), config).producers
        assert state(log.producers) == state(told)
        assert log.producers.end_offset == told.end_offset
        for entry in log.producers:
            again = told.get(entry.producer_id)
            assert again is not None and again.recent[-len(entry.recent) :] == entry.recent


def test_cutting_off_what_was_in_flight_reads_no_log(monkeypatch: pytest.MonkeyPatch) -> None:
    log = open_log(MemoryDisk())
    for number in range(20):
        send(log, number)
    for number in range(5):
        send(log, number, pid=8)
    monkeypatch.setattr("ottla.log.log.replay", None)
    log.truncate_to(15, NOW_MS)
    assert state(log.producers) == [(7, 0, 14, NOW_MS, -1)]
    assert send(log, 14).duplicate
    assert refused(log, 16) is ErrorCode.out_of_order_sequence_number
    assert send(log, 15).base_offset == 15


def test_producers_expire() -> None:
    log = open_log(MemoryDisk())
    send(log, 0)
    list(log.producers.expire(NOW_MS + log.producers.expiration_ms - 1, log.producers.expiration_ms))
    assert refused(log, 5) is ErrorCode.out_of_order_sequence_number
    list(log.producers.expire(NOW_MS + log.producers.expiration_ms, log.producers.expiration_ms))
    assert len(log.producers) == 0
    assert send(log, 5).base_offset == 1


def test_expired_producers_are_not_loaded() -> None:
    disk = MemoryDisk()
    log = open_log(disk)
    send(log, 0)
    log = reopen_clean(disk, log, now_ms=NOW_MS + FIVE_DAYS_MS)
    assert len(log.producers) == 0


def test_markers_end_transactions() -> None:
    producers = Producers(0, FIVE_DAYS_MS)
    options = {"producer_id": 1, "producer_epoch": 0, "transactional": True}
    data = batch("v", base_offset=10, base_sequence=0, **options)
    producers.update(read_header(data))
    entry = producers.get(1)
    assert entry is not None and entry.txn_first_offset == 10
    list(producers.expire(NOW_MS * 2, producers.expiration_ms))
    assert len(producers) == 1
    marker = build_batch(
        [Record(0, NOW_MS, b"\0\0\0\1", b"\0\0\0\0\0\5")],
        base_offset=11, control=True, **options,
    )  # fmt: skip
    assert read_marker(marker) == EndMarker(commits=True, coordinator_epoch=5)
    producers.update(read_header(marker), read_marker(marker))
    assert (entry.txn_first_offset, entry.coordinator_epoch, producers.end_offset) == (-1, 5, 12)
    assert entry.last_sequence == 0


def test_transactions_in_a_folder_of_kafkas_are_followed() -> None:
    disk = MemoryDisk()
    log = open_log(disk)
    options = {"producer_id": 1, "producer_epoch": 0, "transactional": True}
    data = batch("v", base_offset=10, base_sequence=0, **options)
    marker = build_batch(
        [Record(0, NOW_MS, b"\0\0\0\0", b"\0\0\0\0\0\2")],
        base_offset=11, control=True, **options,
    )  # fmt: skip
    for one in (data, marker):
        log.append(one, leader_epoch=0, now_ms=NOW_MS, origin=Origin.COORDINATOR, guard=EXEMPT)
    for again in (log, open_log(disk)):
        entry = again.producers.get(1)
        assert entry is not None
        assert (entry.txn_first_offset, entry.coordinator_epoch) == (-1, 2)


@given(
    st.lists(
        st.builds(ProducerEntry, st.integers(0, 2**60), st.integers(0, 2**15 - 1), st.integers(-1, 9),
                  st.integers(NOW_MS, 2**50), st.integers(-1, 2**50)),
        unique_by=lambda entry: entry.producer_id, max_size=5,
    )
)  # fmt: skip
def test_snapshots_read_back(entries: list[ProducerEntry]) -> None:
    producers = Producers(0, FIVE_DAYS_MS)
    producers._entries = {entry.producer_id: entry for entry in entries}
    data = encode_snapshot(producers)
    loaded = Producers(0, FIVE_DAYS_MS)
    loaded.load(data, 99, NOW_MS)
    assert state(loaded) == state(producers) and loaded.end_offset == 99
    for cut in range(len(data)):
        with pytest.raises(ValueError, match="snapshot"):
            decode_snapshot(data[:cut])
