"""Transactions in a log: markers and transaction indexes byte for byte, who may append what, and what
read_committed sees of it."""

from __future__ import annotations

import errno
import struct
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from log_support import FOLDER, NOW_MS, batch
from log_transactions_support import (
    FOLLOWING,
    commit,
    consume,
    data_batch,
    end,
    open_partition,
    read_committed,
    send,
)
from memory_disk import MemoryDisk

from ottla.errors import ErrorCode, KafkaError
from ottla.log import transaction_index, verification
from ottla.log.aborted import AbortedTransactions
from ottla.log.file_cache import FileCache
from ottla.log.markers import EndMarker, build_marker, read_marker
from ottla.log.producer_entry import ProducerEntry
from ottla.log.settings import LogConfig, Origin
from ottla.log.transaction_index import AbortedTransaction, TransactionIndex
from ottla.log.transactions import NONE_UNSTABLE, Transactions
from ottla.log.verification import EXEMPT
from ottla.log.verify import PartitionVerifier
from ottla.metadata.image import PartitionState
from ottla.replication.partition import Partition
from ottla.types import Record
from ottla.wire.records import BatchHeader, build_batch, check_batch, iter_batches, iter_records

LEADING_AGAIN = PartitionState(leader=1, leader_epoch=2, partition_epoch=2, replicas=(1, 2), isr=(1, 2))
INDEX = f"{FOLDER}/{0:020d}.txnindex"


def refused(act: Callable[[], object]) -> ErrorCode:
    with pytest.raises(KafkaError) as raised:
        act()
    return raised.value.code


# -- bytes --------------------------------------------------------------------------------------------------

# As MemoryRecords.withEndTransactionMarker writes them: format 2, transactional and control, no sequence.
COMMIT = bytes.fromhex(
    "0000000000000000" "00000042" "ffffffff" "02" "{crc}" "0030" "00000000" "{time}" "{time}"
    "000000000000002a" "0007" "ffffffff" "00000001"
    "20" "00" "00" "00" "08" "00000001" "0c" "000000000005" "00"
    .format(crc="00000000", time="0000018bcfe56800")
)  # fmt: skip


def test_a_marker_has_kafkas_bytes() -> None:
    made = build_marker(EndMarker(True, 5), 42, 7, NOW_MS)
    assert made[:17] + made[21:] == COMMIT[:17] + COMMIT[21:]
    header = check_batch(made)
    assert (header.is_control, header.is_transactional, header.base_sequence) == (True, True, -1)
    assert read_marker(made) == EndMarker(True, 5)
    aborting = build_marker(EndMarker(False, 2**31 - 1), 42, 7, NOW_MS)
    (record,) = iter_records(aborting)
    assert (record.key, record.value) == (bytes(4), b"\0\0\x7f\xff\xff\xff")


@pytest.mark.parametrize(
    ("key", "value", "codec", "marker"),
    [
        (b"\0\0\0\1", b"\0\0\0\0\0\5", 0, EndMarker(True, 5)),
        (b"\0\0\0\0", b"\0\0\0\0\0\5", 0, EndMarker(False, 5)),
        # Of other kinds, such as a leader's, and of later versions.
        (b"\0\0\0\2", b"\0\0\0\0\0\5", 0, None),
        (b"\0\1\0\1", b"\0\1\0\0\0\5\0\0\0\7", 0, EndMarker(True, 5)),
        (b"\0\0\0\1", b"\0\0\0", 0, None),
        # As nobody writes them, and anybody may.
        (b"\0\0\0\1", b"\0\0\0\0\0\5", 1, EndMarker(True, 5)),
        (b"\0\0\0\1\0", b"\0\0\0\0\0", 0, None),
    ],
)
def test_markers_are_read_in_any_shape(
    key: bytes, value: bytes, codec: int, marker: EndMarker | None
) -> None:
    for headers in ((), (("h", b""),)):
        record = Record(0, NOW_MS, key, value, headers)
        batch = build_batch([record], control=True, transactional=True, compression=codec)
        assert read_marker(batch) == marker


def test_an_index_has_kafkas_bytes() -> None:
    """AbortedTxn's version 0: two bytes of it, then four numbers of eight bytes each."""
    index = TransactionIndex()
    entry = AbortedTransaction(42, 5, 9, 7)
    index.append(entry)
    data = index.encode()
    assert data.hex() == "0000000000000000002a000000000000000500000000000000090000000000000007"
    again = TransactionIndex.decode(data, 9, 10)
    assert again is not None and list(again) == [entry]


@pytest.mark.parametrize(
    "entries",
    [
        [(1, 1, 2, 3, 3)],  # of another version
        [(0, -1, 2, 3, 3)],  # of no producer
        [(0, 1, 4, 3, 3)],  # begins behind its end
        [(0, 1, 0, 1, 1)],  # before the segment
        [(0, 1, 0, 9, 1)],  # behind it
        [(0, 1, 0, 3, 5)],  # stable beyond what there was
        [(0, 1, 0, 3, 3), (0, 2, 1, 3, 3)],  # twice at one place
        [(0, 1, 0, 3, 3), (0, 2, 1, 4, 2)],  # stable before what was
    ],
)
def test_what_cannot_be_an_index_is_none(entries: list[tuple[int, int, int, int, int]]) -> None:
    data = b"".join(struct.pack(">hqqqq", *entry) for entry in entries)
    assert TransactionIndex.decode(data, 2, 9) is None


def test_an_index_that_is_cut_off_is_none() -> None:
    assert TransactionIndex.decode(bytes(33), 0, 9) is None
    empty = TransactionIndex.decode(b"", 0, 9)
    assert empty is not None and not len(empty)


@given(
    st.lists(st.tuples(st.integers(0, 40), st.booleans()), max_size=60),
    st.lists(st.tuples(st.integers(0, 300), st.integers(1, 80)), max_size=8),
    st.integers(0, 300),
)
def test_what_overlaps_is_found_and_nothing_else(
    aborts: list[tuple[int, bool]], looks: list[tuple[int, int]], cut: int
) -> None:
    """Whatever was long open meanwhile, in blocks of four."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(transaction_index, "BLOCK_ENTRIES", 4)
        index, entries, stable, offset = TransactionIndex(), [], 0, 0
        for number, (age, is_decided) in enumerate(aborts):
            offset += 3
            first = max(stable, offset - age)
            # What is still open begins between what was stable and here.
            stable = offset + 1 if is_decided else max(stable, first - age // 2)
            entries.append(AbortedTransaction(number, first, offset, stable))
            index.append(entries[-1])
        index.truncate_to(cut)
        entries = [one for one in entries if one.last_offset < cut]
        assert list(index) == entries
        for start, length in looks:
            found: list[tuple[int, int]] = []
            whole: list[AbortedTransaction] = []
            index.collect(found, start, start + length)
            index.overlapping(whole, start, start + length)
            right = [one for one in entries if one.last_offset >= start and one.first_offset < start + length]
            assert found == [one[:2] for one in right] and whole == right


def test_a_look_among_very_many_takes_no_time() -> None:
    """All aborted while one transaction was open, which holds the stable offset of each."""
    index = TransactionIndex()
    for number in range(200_000):
        index.append(AbortedTransaction(1, 10 + 2 * number, 11 + 2 * number, 5))
    index.append(AbortedTransaction(2, 5, 10**6, 10**6 + 1))
    found: list[tuple[int, int]] = []
    looked = 0

    class Counted(type(index._firsts)):  # type: ignore[misc]
        def __getitem__(self, at: Any) -> Any:
            nonlocal looked
            looked += 1
            return super().__getitem__(at)

    index._firsts = Counted("q", index._firsts)
    index.collect(found, 5, 30)
    assert found == [(1, 10 + 2 * n) for n in range(10)] + [(2, 5)]
    assert looked < 3 * transaction_index.BLOCK_ENTRIES


# -- open and ended -----------------------------------------------------------------------------------------


class NaiveTransactions:
    """The same by looking at all of them."""

    def __init__(self) -> None:
        self.all: list[list[int]] = []
        self.committed = 0

    @property
    def unstable(self) -> int:
        return min([one[1] for one in self.all if not 0 <= one[2] < self.committed], default=NONE_UNSTABLE)


@given(
    st.lists(st.tuples(st.sampled_from(["begin", "end", "commit", "cut"]), st.integers(0, 9)), max_size=60)
)
def test_the_first_unstable_offset_is_the_least_of_all(steps: list[tuple[str, int]]) -> None:
    it, naive, offset = Transactions(), NaiveTransactions(), 0
    for what, which in steps:
        opened = [one for one in naive.all if one[2] < 0]
        if what == "begin":
            it.begin(offset, offset)
            naive.all.append([offset, offset, -1])
        elif what == "end" and opened:
            one = opened[which % len(opened)]
            one[2] = offset
            others = [other[1] for other in opened if other is not one]
            completed = it.end(one[0], one[1], offset, True)
            assert completed.last_stable_offset == min(others, default=offset + 1)
        elif what == "commit":
            naive.committed = max(naive.committed, offset * which // 9)
            it.committed_to(naive.committed)
        elif what == "cut":
            # Never below what is committed: what is forgotten as committed stays so.
            cut = max(naive.committed, offset - which)
            kept = [one for one in naive.all if one[1] < cut]
            naive.all = [[*one[:2], one[2] if one[2] < cut else -1] for one in kept]
            it.restart([(one[1], one[0]) for one in naive.all if one[2] < 0], cut)
            offset = max(cut, max((one[1] + 1 for one in naive.all), default=0))
        offset += 1
        assert it.first_unstable_offset == naive.unstable
        assert it.first_undecided_offset == min(
            (one[1] for one in naive.all if one[2] < 0), default=NONE_UNSTABLE
        )
        assert it.awaits_commit == any(one[2] >= naive.committed for one in naive.all)


def test_what_has_ended_is_unstable_until_its_end_is_committed() -> None:
    it = open_partition(MemoryDisk())
    send(it, 1, 0)
    send(it, 2, 0)
    commit(it)
    assert (it.high_watermark, it.last_stable_offset) == (2, 0)
    end(it, 1, commits=True)
    assert it.last_stable_offset == 0
    commit(it)
    assert it.last_stable_offset == 1
    end(it, 2, commits=False)
    commit(it)
    assert it.last_stable_offset == it.high_watermark == 4
    assert [one.value for one in consume(it)] == [b"1.0.0"]


def test_deletion_beyond_an_open_transaction_moves_the_stable_offset() -> None:
    it = open_partition(MemoryDisk())
    send(it, 1, 0, 3)
    commit(it)
    it.log.advance_log_start(2)
    assert it.last_stable_offset == 2
    send(it, 9, 0, transactional=False)
    commit(it)
    assert it.last_stable_offset == 2
    end(it, 1, commits=True)
    commit(it)
    assert it.last_stable_offset == 5


def test_no_producer_expires_that_has_a_transaction_open() -> None:
    disk = MemoryDisk()
    it = open_partition(disk)
    send(it, 1, 0)
    send(it, 2, 0, transactional=False)
    list(it.log.producers.expire(2 * NOW_MS, 1))
    assert [one.producer_id for one in it.log.producers] == [1]
    it.log.roll(NOW_MS)
    again = open_partition(disk, now_ms=2 * NOW_MS, recovery_point=2)
    assert [one.producer_id for one in again.log.producers] == [1]
    commit(again)
    assert (again.high_watermark, again.last_stable_offset) == (2, 0)


@pytest.mark.parametrize("commits", [True, False])
@pytest.mark.parametrize("clean", [True, False])
def test_a_transaction_that_was_open_in_a_snapshot_ends_after_a_restart(clean: bool, commits: bool) -> None:
    """The last stable offset does not stay before it for ever: the snapshot, which is all that is read of
    what lies before it, has the transaction, though its producer has not written for long."""
    disk = MemoryDisk()
    it = open_partition(disk)
    send(it, 1, 0)
    it.log.roll(NOW_MS)
    send(it, 2, 0, transactional=False)
    list(it.log.producers.expire(2 * NOW_MS, 1))
    it.log.roll(NOW_MS)
    send(it, 3, 0, transactional=False)
    if clean:
        it.log.close()
    again = open_partition(disk, high_watermark=3, clean=clean, recovery_point=3, now_ms=2 * NOW_MS)
    assert again.last_stable_offset == 0
    end(again, 1, commits=commits, epoch=1, version=2)
    commit(again)
    assert again.last_stable_offset == again.log.log_end_offset == 4
    assert len(consume(again)) == (3 if commits else 2)


def test_a_follower_knows_as_much() -> None:
    """Of what it is sent, with the high watermark that it is told."""
    leader, disk = open_partition(MemoryDisk()), MemoryDisk()
    follower = open_partition(disk)
    follower.apply(FOLLOWING)
    send(leader, 1, 0)
    send(leader, 2, 0)
    end(leader, 1, commits=False)
    piece = leader.read_uncommitted(0, 1 << 20, min_one=True)
    assert piece is not None
    follower.append_as_follower(piece.file.read(piece.position, piece.size), 2, 0, NOW_MS)
    assert (follower.high_watermark, follower.last_stable_offset) == (2, 0)
    follower.append_as_follower(b"", 3, 0, NOW_MS)
    assert (follower.high_watermark, follower.last_stable_offset) == (3, 1)
    assert read_committed(follower, 0)[1] == [(1, 0)]
    assert disk.read_file(INDEX).hex() == "0000" + "".join(f"{n:016x}" for n in (1, 0, 2, 1))
    follower.restart_at(7, NOW_MS)
    assert follower.last_stable_offset == follower.high_watermark == 7
    assert not disk.exists(INDEX)


def test_a_truncation_opens_again_what_had_ended() -> None:
    it = open_partition(MemoryDisk())
    send(it, 1, 0)
    end(it, 1, commits=False)
    commit(it, 1)
    assert it.last_stable_offset == 0
    it.truncate_to(1, NOW_MS)
    entry = it.log.producers.get(1)
    assert entry is not None and entry.txn_first_offset == 0
    assert it.log.producers.transactions.first_undecided_offset == 0
    assert read_committed(it, 0) == (b"", [])
    end(it, 1, commits=True)
    commit(it)
    assert it.last_stable_offset == 2
    assert read_committed(it, 0)[1] == []


# -- indexes ------------------------------------------------------------------------------------------------


def aborted_at(disk: MemoryDisk, base: int = 0) -> list[AbortedTransaction]:
    index = TransactionIndex.decode(disk.read_file(f"{FOLDER}/{base:020d}.txnindex"), base, 2**62)
    assert index is not None
    return list(index)


def three_segments(disk: MemoryDisk) -> Partition:
    """Transactions that were aborted in the first and the last segment, one of them begun in the first."""
    it = open_partition(disk)
    send(it, 1, 0)
    end(it, 1, commits=False)
    send(it, 2, 0)
    it.log.roll(NOW_MS)
    send(it, 3, 0)
    end(it, 3, commits=True)
    it.log.roll(NOW_MS)
    end(it, 2, commits=False)
    commit(it)
    return it


def test_each_segment_has_the_ends_that_are_in_it() -> None:
    disk = MemoryDisk()
    it = three_segments(disk)
    assert sorted(name[-11:] for name in disk.files if name.endswith(".txnindex")) == [
        "00.txnindex",
        "05.txnindex",
    ]
    assert aborted_at(disk) == [(1, 0, 1, 2)]
    assert aborted_at(disk, 5) == [(2, 2, 5, 6)]
    assert read_committed(it, 0)[1] == [(1, 0), (2, 2)]
    assert read_committed(it, 2)[1] == [(2, 2)]
    assert read_committed(it, 3)[1] == [(2, 2)]
    assert [one.value for one in consume(it)] == [b"3.0.0"]
    it.truncate_to(3, NOW_MS)
    assert not disk.exists(f"{FOLDER}/{5:020d}.txnindex")
    assert [one.offset for one in consume(it)] == []
    it.truncate_to(1, NOW_MS)
    assert not disk.exists(INDEX)
    it.log.roll(NOW_MS)
    it.log.advance_log_start(1)
    it.log.apply_retention(NOW_MS, 1)
    assert not it.log._segments.aborted


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "cut off": lambda data: data[:-1],
    "of another version": lambda data: b"\1" + data[1:],
    "of another producer": lambda data: data[:9] + b"\7" + data[10:],
    "of an offset that is none": lambda data: data[:25] + b"\0" + data[26:],
    "one too many": lambda data: data + struct.pack(">hqqqq", 0, 3, 3, 4, 5),
    "zeros": lambda data: bytes(len(data)),
}


@pytest.mark.parametrize("clean", [True, False])
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_index_is_built_again(damage: str, clean: bool, caplog: pytest.LogCaptureFixture) -> None:
    disk = MemoryDisk()
    it = three_segments(disk)
    right = {base: disk.read_file(f"{FOLDER}/{base:020d}.txnindex") for base in (0, 5)}
    it.log.close()
    for base in (0, 5):
        disk.write_file(f"{FOLDER}/{base:020d}.txnindex", DAMAGES[damage](right[base]))
    again = open_partition(disk, high_watermark=6, clean=clean, recovery_point=6)
    assert {base: disk.read_file(f"{FOLDER}/{base:020d}.txnindex") for base in (0, 5)} == right
    assert [one.value for one in consume(again)] == [b"3.0.0"]
    assert "00000000000000000000.txnindex contradicts the log" in caplog.text


def verified(disk: MemoryDisk, **options: bool) -> list[tuple[str, str]]:
    found = PartitionVerifier(disk, FOLDER, is_clean=True, **options).verify()
    problems = [(one.path.rpartition("/")[2], one.message) for one in found.problems]
    return [one for one in problems if one[0] != "partition.metadata"]


@pytest.mark.parametrize("damage", [*DAMAGES, "gone"])
def test_offline_a_wrong_index_is_told_and_mended(damage: str) -> None:
    disk = MemoryDisk()
    it = three_segments(disk)
    it.log.close()
    right = disk.read_file(INDEX)
    assert verified(disk) == []
    if damage == "gone":
        disk.remove(INDEX)
    else:
        disk.write_file(INDEX, DAMAGES[damage](right))
    ((name, _),) = verified(disk, repair=True)
    assert name == f"{0:020d}.txnindex" and disk.read_file(INDEX) == right
    assert verified(disk) == []


def test_offline_an_index_of_nothing_is_removed() -> None:
    disk = MemoryDisk()
    it = three_segments(disk)
    it.log.close()
    stray = f"{FOLDER}/{3:020d}.txnindex"
    disk.write_file(stray, struct.pack(">hqqqq", 0, 3, 3, 4, 4))
    assert verified(disk, repair=True) == [
        (f"{3:020d}.txnindex", "it tells that producer 3 aborted at 4, where no marker is")
    ]
    assert not disk.exists(stray)


def test_an_index_may_know_of_a_marker_that_is_damaged() -> None:
    """What was aborted does not come back because its end cannot be read."""
    disk = MemoryDisk()
    it = three_segments(disk)
    it.log.close()
    path, right = f"{FOLDER}/{0:020d}.log", disk.read_file(INDEX)
    data = bytearray(disk.read_file(path))
    (marker,) = [at for at, one in batches_at(bytes(data)) if one.is_control]
    data[marker + 8 : marker + 12] = b"\xff\xff\xff\xff"
    disk.write_file(path, bytes(data))
    assert all(name.endswith(".log") for name, _ in verified(disk, repair=True))
    assert disk.read_file(INDEX) == right
    again = open_partition(disk, high_watermark=6, clean=True, recovery_point=6)
    assert disk.read_file(INDEX) == right
    assert read_committed(again, 0)[1] == [(1, 0), (2, 2)]


def batches_at(data: bytes) -> list[tuple[int, BatchHeader]]:
    found, position = [], 0
    for header, _ in iter_batches(data):
        found.append((position, header))
        position += header.size
    return found


def test_what_recovery_goes_through_has_its_index_whether_it_was_there_or_not() -> None:
    disk = MemoryDisk()
    it = three_segments(disk)
    it.log.abandon()
    for base in (0, 5):
        disk.remove(f"{FOLDER}/{base:020d}.txnindex")
    disk.write_file(f"{FOLDER}/{3:020d}.txnindex", bytes(34))
    again = open_partition(disk, high_watermark=6, recovery_point=0)
    assert aborted_at(disk) == [(1, 0, 1, 2)] and aborted_at(disk, 5) == [(2, 2, 5, 6)]
    assert not disk.exists(f"{FOLDER}/{3:020d}.txnindex")
    assert [one.value for one in consume(again)] == [b"3.0.0"]


def test_a_full_disk_does_not_stop_a_marker() -> None:
    """What could not be written to the index is, when its segment is closed and flushed."""
    disk = MemoryDisk()
    it = open_partition(disk)
    send(it, 1, 0)
    disk.fail_with["write_at"], disk.fails_on = OSError(errno.ENOSPC, "No space left on device"), ".txnindex"
    end(it, 1, commits=False)
    assert disk.read_file(INDEX) == b""
    disk.fail_with.clear()
    send(it, 1, 1)
    end(it, 1, commits=False)
    commit(it)
    assert read_committed(it, 0)[1] == [(1, 0), (1, 2)]
    it.log.roll(NOW_MS)
    assert aborted_at(disk) == [(1, 0, 1, 2), (1, 2, 3, 4)]


def test_the_index_is_open_from_one_abort_to_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    """As long as it is the same file: one that was written anew is another."""
    disk = MemoryDisk()
    cache = FileCache(disk)
    it = open_partition(disk, cache=cache)
    opened: list[str] = []
    really = disk.open
    monkeypatch.setattr(disk, "open", lambda path, **how: opened.append(path[-8:]) or really(path, **how))

    def abort(pid: int) -> None:
        send(it, pid, 0)
        end(it, pid, commits=False)

    abort(1)
    abort(2)
    assert opened.count("txnindex") == 1
    it.log.write_out()
    opened.clear()
    abort(3)
    cache._let_go(cache.open_count)
    abort(4)
    assert opened.count("txnindex") == 2
    it.log.truncate_to(it.log.log_end_offset - 2, NOW_MS)
    abort(5)
    assert [one.producer_id for one in aborted_at(disk)] == [1, 2, 3, 5]
    it.log.roll(NOW_MS)
    it.log.abandon()
    assert not cache.open_count


def test_a_loss_of_power_takes_no_index_of_what_was_flushed() -> None:
    disk = MemoryDisk()
    it = three_segments(disk)
    it.log.flush()
    disk.lose_power()
    again = open_partition(disk, high_watermark=6, recovery_point=6)
    assert [one.value for one in consume(again)] == [b"3.0.0"]


def test_no_more_entries_stay_in_memory_than_are_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ottla.log.aborted.LOADED_ENTRIES_MAX", 3)
    disk = MemoryDisk()
    it = open_partition(disk, LogConfig(segment_bytes=500))
    for number in range(20):
        send(it, 1, number)
        end(it, 1, commits=False)
    commit(it)
    send(it, 9, 0, transactional=False)
    commit(it)
    held: AbortedTransactions = it.log._segments.aborted
    for _ in range(2):
        assert [one.value for one in consume(it)] == [b"9.0.0"]
        assert read_committed(it, 0)[1][0] == (1, 0)
        assert sum(held._loaded.values()) <= 4
    assert sum(len(held.read(base)) for base in held.bases) == 20


# -- who may append what ------------------------------------------------------------------------------------


def test_markers_of_zombies_are_refused() -> None:
    it = open_partition(MemoryDisk())
    send(it, 1, 0, epoch=3)
    assert refused(lambda: end(it, 1, commits=True, epoch=2)) is ErrorCode.invalid_producer_epoch
    end(it, 1, commits=True, epoch=3, coordinator_epoch=7)
    send(it, 1, 1, epoch=3)
    fenced = refused(lambda: end(it, 1, commits=False, epoch=3, coordinator_epoch=6))
    assert fenced is ErrorCode.transaction_coordinator_fenced
    assert it.log.log_end_offset == 3
    end(it, 1, commits=False, epoch=4, coordinator_epoch=7)
    assert refused(lambda: send(it, 1, 2, epoch=3)) is ErrorCode.invalid_producer_epoch
    # A marker of a producer that the log does not know is written, and ends nothing.
    end(it, 5, commits=True)


def test_a_marker_raises_the_epoch_from_version_two_on() -> None:
    """KAFKA-19999: one whose answer was lost comes again, and is taken."""
    it = open_partition(MemoryDisk())
    send(it, 1, 0, epoch=3)
    assert refused(lambda: end(it, 1, commits=True, epoch=3, version=2)) is ErrorCode.invalid_producer_epoch
    end(it, 1, commits=True, epoch=4, version=2)
    commit(it)
    assert it.last_stable_offset == 2
    # Written again, since its answer was lost: nothing is open, and nothing ends.
    end(it, 1, commits=True, epoch=4, version=2)
    # The next transaction is in the epoch that the marker had, from 0 on.
    late = refused(lambda: send(it, 1, 1, epoch=4))
    assert late is ErrorCode.out_of_order_sequence_number
    send(it, 1, 0, epoch=4)
    assert refused(lambda: end(it, 1, commits=False, epoch=4, version=2)) is ErrorCode.invalid_producer_epoch
    assert refused(lambda: end(it, 1, commits=False, epoch=3, version=2)) is ErrorCode.invalid_producer_epoch
    commit(it)
    assert it.last_stable_offset == 3


def test_a_marker_is_retried_after_a_restart() -> None:
    """KAFKA-19999: it comes again in the epoch that the log has, from who has taken over."""
    disk = MemoryDisk()
    it = open_partition(disk)
    send(it, 1, 0, epoch=3)
    end(it, 1, commits=False, epoch=4, version=2)
    it.log.close()
    again = open_partition(disk, high_watermark=2, clean=True, recovery_point=2)
    end(again, 1, commits=False, epoch=4, version=2)
    assert again.log.log_end_offset == 3
    assert aborted_at(disk) == [(1, 0, 1, 2)]


def test_the_last_epoch_of_all_may_end_its_own_transaction() -> None:
    it = open_partition(MemoryDisk())
    last = 2**15 - 1
    send(it, 1, 0, epoch=last)
    end(it, 1, commits=True, epoch=last, version=2)
    commit(it)
    assert it.last_stable_offset == 2


def test_only_a_leader_with_enough_replicas_appends_markers() -> None:
    it = open_partition(MemoryDisk(), LogConfig(min_insync_replicas=2))
    send(it, 1, 0)
    it.apply(PartitionState(leader=1, leader_epoch=0, partition_epoch=1, replicas=(1, 2), isr=(1,)))
    assert refused(lambda: end(it, 1, commits=True)) is ErrorCode.not_enough_replicas
    it.apply(FOLLOWING)
    assert refused(lambda: end(it, 1, commits=True)) is ErrorCode.not_leader_or_follower
    begin = refused(lambda: it.begin_verification(1, 0, 0, NOW_MS, bumps_epoch=True))
    assert begin is ErrorCode.not_leader_or_follower


def test_a_producer_keeps_to_the_transaction_that_it_has_open() -> None:
    it = open_partition(MemoryDisk())
    send(it, 1, 0)
    assert refused(lambda: send(it, 1, 1, transactional=False)) is ErrorCode.invalid_txn_state
    assert refused(lambda: send(it, 1, 0, epoch=1, transactional=False)) is ErrorCode.invalid_txn_state
    end(it, 1, commits=True)
    send(it, 1, 1, transactional=False)
    send(it, 1, 2)


def test_a_client_cannot_write_markers() -> None:
    it = open_partition(MemoryDisk())
    marker = build_marker(EndMarker(True, 0), 1, 0, NOW_MS)
    assert refused(lambda: it.append(marker, now_ms=NOW_MS)) is ErrorCode.invalid_record


def test_a_repeat_is_recognized_after_its_transaction_has_ended() -> None:
    it = open_partition(MemoryDisk())
    send(it, 1, 0)
    end(it, 1, commits=True)
    again = it.append(data_batch(1, 0), now_ms=NOW_MS)
    assert (again.base_offset, again.duplicate) == (0, True)


# -- verification -------------------------------------------------------------------------------------------


def begin(it: Partition, pid: int, sequence: int = 0, *, epoch: int = 0, bumps: bool = False) -> Any:
    return it.begin_verification(pid, epoch, sequence, NOW_MS, bumps_epoch=bumps)


@pytest.mark.parametrize("origin", [Origin.CLIENT, Origin.COORDINATOR])
def test_a_transaction_begins_with_the_guard_of_its_verification(origin: Origin) -> None:
    it = open_partition(MemoryDisk())

    def append(sequence: int, guard: Any) -> None:
        it.append(data_batch(1, sequence), now_ms=NOW_MS, origin=origin, guard=guard)

    assert refused(lambda: append(0, None)) is ErrorCode.invalid_txn_state
    guard = begin(it, 1)
    assert guard is not None and begin(it, 1) is guard
    assert refused(lambda: append(0, None)) is ErrorCode.invalid_txn_state
    assert refused(lambda: append(0, begin(it, 2))) is ErrorCode.invalid_txn_state
    append(0, guard)
    # Open: nobody need be asked, and no guard is worth anything.
    assert begin(it, 1) is None
    append(1, None)
    end(it, 1, commits=True)
    assert refused(lambda: append(2, None)) is ErrorCode.invalid_txn_state
    assert refused(lambda: append(2, guard)) is ErrorCode.invalid_txn_state
    append(2, begin(it, 1, 2))


def test_a_marker_takes_the_force_of_a_guard() -> None:
    """What the coordinator said was of a transaction that has ended since."""
    it = open_partition(MemoryDisk())
    guard = begin(it, 1)
    end(it, 1, commits=False)
    assert refused(lambda: send(it, 1, 0, guard=guard)) is ErrorCode.invalid_txn_state
    # Not that of the next transaction's, whose epoch the marker of the one before has raised.
    guard = begin(it, 2, epoch=4, bumps=True)
    end(it, 2, commits=False, epoch=4, version=2)
    send(it, 2, 0, epoch=4, guard=guard)
    guard = begin(it, 3, epoch=4, bumps=True)
    end(it, 3, commits=False, epoch=5, version=2)
    assert refused(lambda: send(it, 3, 0, epoch=4, guard=guard)) is ErrorCode.invalid_producer_epoch
    assert refused(lambda: send(it, 3, 0, epoch=5, guard=guard)) is ErrorCode.invalid_txn_state


def test_a_guard_is_worth_nothing_to_who_begins_anew_behind_what_it_has_not_read() -> None:
    it = open_partition(MemoryDisk())
    guard = begin(it, 1)
    it.apply(FOLLOWING)
    it.restart_at(50, NOW_MS)
    it.apply(LEADING_AGAIN)
    assert refused(lambda: send(it, 1, 0, guard=guard)) is ErrorCode.invalid_txn_state


def test_a_stale_epoch_is_told_before_anybody_is_asked() -> None:
    it = open_partition(MemoryDisk())
    end(it, 1, commits=True, epoch=5)
    assert refused(lambda: begin(it, 1, epoch=4)) is ErrorCode.invalid_producer_epoch
    assert refused(lambda: send(it, 1, 0, epoch=4, guard=None)) is ErrorCode.invalid_producer_epoch


def test_with_raised_epochs_an_unknown_producer_begins_at_zero() -> None:
    """KAFKA-18202: of what came before nothing is known, and it may be missing."""
    it = open_partition(MemoryDisk())
    guard = begin(it, 1, 3, bumps=True)
    assert refused(lambda: send(it, 1, 3, guard=guard)) is ErrorCode.out_of_order_sequence_number
    before = begin(it, 2, 3)
    send(it, 2, 3, guard=before)


def test_no_batch_passes_one_that_waits_for_its_verification() -> None:
    it = open_partition(MemoryDisk())
    guard = begin(it, 1, 2)
    assert begin(it, 1, 0) is guard
    assert refused(lambda: send(it, 1, 2, guard=guard)) is ErrorCode.out_of_order_sequence_number
    send(it, 1, 0, 2, guard=guard)
    send(it, 1, 2, guard=None)
    # In another epoch another sequence is the lowest.
    end(it, 1, commits=True, epoch=1)
    guard = begin(it, 1, 5, epoch=1)
    assert begin(it, 1, 0, epoch=2) is guard
    send(it, 1, 0, epoch=2, guard=guard)


def test_a_verification_that_was_refused_for_good_takes_no_room() -> None:
    it = open_partition(MemoryDisk())
    guard = begin(it, 1)
    assert guard is not None
    verifications = it.log.producers.verifications
    # Not another one's.
    verifications.forget(1, EXEMPT)
    verifications.forget(2, guard)
    assert list(verifications.waiting) == [1]
    verifications.forget(1, guard)
    assert not verifications.waiting


def test_verifications_are_forgotten_in_time_and_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verification, "WAITING_MAX", 3)
    it = open_partition(MemoryDisk())
    guards = [begin(it, pid) for pid in range(5)]
    waiting = it.log.producers.verifications.waiting
    assert list(waiting) == [2, 3, 4]
    assert refused(lambda: send(it, 0, 0, guard=guards[0])) is ErrorCode.invalid_txn_state
    send(it, 4, 0, guard=guards[4])
    list(it.log.producers.expire(NOW_MS + 999, 1000))
    assert list(waiting) == [2, 3]
    list(it.log.producers.expire(NOW_MS + 1000, 1000))
    assert not waiting


def test_a_verification_makes_no_other_producers_batches_be_looked_at_closely(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    it = open_partition(MemoryDisk())
    send(it, 1, 0)
    send(it, 9, 0, transactional=False)
    begin(it, 2)
    with monkeypatch.context() as patch:
        patch.setattr(ProducerEntry, "find_duplicate", None)
        send(it, 1, 1, guard=None)
        send(it, 9, 1, transactional=False)
    # One's own does: a batch that is to come first may be under way.
    begin(it, 9, 1)
    assert refused(lambda: send(it, 9, 2, transactional=False)) is ErrorCode.out_of_order_sequence_number


def test_who_is_exempt_needs_no_guard() -> None:
    it = open_partition(MemoryDisk())
    send(it, 1, 0, guard=EXEMPT)
    begin(it, 2)
    send(it, 2, 0, guard=EXEMPT)
    assert not it.log.producers.verifications.waiting


def test_a_batch_of_no_transaction_is_read_as_ever() -> None:
    it = open_partition(MemoryDisk())
    it.append(batch("a", "b"), now_ms=NOW_MS)
    commit(it)
    data, aborted = read_committed(it, 0)
    assert aborted == [] and [header.base_offset for header, _ in iter_batches(data)] == [0]
