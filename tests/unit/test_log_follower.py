"""A follower's log: it is its leader's, byte for byte, whatever comes between."""

from __future__ import annotations

import errno
import struct
from collections.abc import Callable
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from log_support import FOLDER, NOW_MS, append, batch, open_log, read_all, reopen_clean, values
from memory_disk import MemoryDisk

from ottla.errors import ErrorCode, KafkaError
from ottla.log.index import RELATIVE_OFFSET_MAX
from ottla.log.log import Log
from ottla.log.settings import LogConfig, Origin
from ottla.types import Record
from ottla.wire.records import HEADER_BYTES, build_batch, iter_batches, read_header, seal_batch

IO_ERROR = OSError(errno.EIO, "Input/output error")
COMPARED = (".log", ".index", ".timeindex", ".snapshot", "leader-epoch-checkpoint")


class Write(NamedTuple):
    """One batch that the leader appends."""

    records: int
    value_bytes: int
    new_epochs: int
    # None: without a producer id; else which of a few, and whether it ends a transaction.
    producer: int | None
    marks: bool
    codec: int
    later_ms: int


class Leader:
    """A log that is written to as a leader would."""

    def __init__(self, config: LogConfig) -> None:
        self.disk = MemoryDisk()
        self.log = open_log(self.disk, config)
        self.epoch = 0
        self.at_ms = NOW_MS
        self.sequences: dict[int, int] = {}

    def write(self, write: Write) -> None:
        self.epoch += write.new_epochs
        self.at_ms += write.later_ms
        if write.producer is not None and write.marks:
            key, value = struct.pack(">hh", 0, write.records % 2), struct.pack(">hi", 0, self.epoch)
            data = build_batch(
                [Record(0, self.at_ms, key, value)],
                producer_id=write.producer, producer_epoch=0, transactional=True, control=True,
            )  # fmt: skip
        else:
            data = batch(
                *[bytes([65 + number]) * write.value_bytes for number in range(write.records)],
                at_ms=self.at_ms, compression=write.codec, **self._numbers(write),
            )  # fmt: skip
        self.log.append(data, leader_epoch=self.epoch, now_ms=NOW_MS, origin=Origin.COORDINATOR)

    def _numbers(self, write: Write) -> dict[str, int]:
        if write.producer is None:
            return {}
        first = self.sequences.get(write.producer, 0)
        self.sequences[write.producer] = first + write.records
        return {"producer_id": write.producer, "producer_epoch": 0, "base_sequence": first}


def fetch(leader: Log, offset: int, max_bytes: int = 1 << 30) -> bytes:
    """What a leader answers: the last batch may be cut off."""
    found = leader.read(offset, max_bytes, end_offset=leader.log_end_offset, min_one=True)
    return b"" if found is None else found.file.read(found.position, found.size)


def follow(leader: Log, follower: Log, max_bytes: int = 1 << 30) -> None:
    """Fetch until there is no more."""
    while follower.log_end_offset < leader.log_end_offset:
        before = follower.log_end_offset
        follower.append_as_follower(fetch(leader, before, max_bytes), now_ms=NOW_MS)
        assert follower.log_end_offset > before


def files(disk: MemoryDisk) -> dict[str, bytes]:
    return {name: bytes(inode.data) for name, inode in disk.files.items() if name.endswith(COMPARED)}


def contents(log: Log) -> bytes:
    return b"".join(segment.file.read(0, segment.size) for segment in log.segments)


def state(log: Log) -> tuple[object, ...]:
    """All that follows from a log's batches."""
    return (
        log.log_start_offset, log.log_end_offset, log.size_bytes, log.epochs.entries,
        log.producers.end_offset,
        [
            (entry.producer_id, entry.epoch, entry.coordinator_epoch, entry.last_timestamp_ms,
             entry.txn_first_offset, list(entry.batches))
            for entry in log.producers
        ],
    )  # fmt: skip


WRITES = st.builds(
    Write,
    records=st.integers(1, 4),
    value_bytes=st.sampled_from([0, 5, 90, 700]),
    new_epochs=st.sampled_from([0, 0, 0, 1, 3]),
    producer=st.sampled_from([None, None, 7, 8]),
    marks=st.sampled_from([False, False, True]),
    codec=st.sampled_from([0, 0, 1, 4]),
    later_ms=st.sampled_from([0, 1, 40]),
)
CONFIGS = st.builds(
    LogConfig,
    segment_bytes=st.sampled_from([3000, 8000, 10**6]),
    segment_ms=st.sampled_from([100, 10**9]),
    segment_index_bytes=st.sampled_from([60, 10**6]),
    index_interval_bytes=st.sampled_from([0, 100, 4096]),
)


@settings(max_examples=200, deadline=None)
@given(
    writes=st.lists(st.tuples(WRITES, st.sampled_from([0, 0, 1, 70, 400, 1 << 30])), min_size=1, max_size=60),
    config=CONFIGS,
)
def test_a_follower_is_its_leader_byte_for_byte(writes: list[tuple[Write, int]], config: LogConfig) -> None:
    """Whatever was written, wherever answers were cut off, however much lay in one."""
    leader, disk = Leader(config), MemoryDisk()
    follower = open_log(disk, config)
    for write, max_bytes in writes:
        leader.write(write)
        if max_bytes:
            follower.append_as_follower(fetch(leader.log, follower.log_end_offset, max_bytes), now_ms=NOW_MS)
    follow(leader.log, follower)
    assert state(follower) == state(leader.log)
    assert read_all(follower) == read_all(leader.log)
    for log in (leader.log, follower):
        log.roll(NOW_MS)
        log.flush()
    assert files(disk) == files(leader.disk)
    assert state(open_log(disk, config))[:4] == state(leader.log)[:4]


def truncate_as_follower(leader: Log, follower: Log) -> None:
    """Cut the follower to where it parts from its leader, epoch by epoch (KIP-101, KIP-279)."""
    while True:
        last = follower.latest_epoch
        epoch, end = leader.epoch_end_offset(last)
        if epoch == last and end >= follower.log_end_offset:
            return
        if epoch < 0:
            follower.truncate_fully_to(leader.log_start_offset, NOW_MS)
            return
        if epoch < last:
            end = min(end, follower.epoch_end_offset(epoch)[1])
        follower.truncate_to(min(end, follower.log_end_offset), NOW_MS)
        if epoch == follower.latest_epoch or follower.log_end_offset == 0:
            return


@settings(max_examples=150, deadline=None)
@given(
    common=st.lists(WRITES, min_size=1, max_size=15),
    own=st.lists(WRITES, max_size=15),
    others=st.lists(WRITES, min_size=1, max_size=15),
    config=CONFIGS,
    closed=st.booleans(),
)
def test_a_leader_that_was_replaced_drops_what_is_only_its_own_and_follows(
    common: list[Write], own: list[Write], others: list[Write], config: LogConfig, closed: bool
) -> None:
    first, second = Leader(config), Leader(config)
    for write in common:
        first.write(write)
    follow(first.log, second.log)
    second.sequences = dict(first.sequences)
    second.epoch = first.epoch
    for write in own:
        first.write(write._replace(new_epochs=0))
    second.epoch += 1
    for write in others:
        second.write(write)
    log = reopen_clean(first.disk, first.log) if closed else first.log
    truncate_as_follower(second.log, log)
    follow(second.log, log, 300)
    assert contents(log) == contents(second.log)
    assert read_all(log) == read_all(second.log)
    # Of a producer's batches a snapshot knows the last.
    known = [(one.producer_id, one.epoch, one.last_sequence, one.txn_first_offset) for one in log.producers]
    expected = second.log.producers
    assert sorted(known) == sorted(
        (one.producer_id, one.epoch, one.last_sequence, one.txn_first_offset) for one in expected
    )
    assert state(log)[:5] == state(second.log)[:5]
    assert read_all(open_log(first.disk, config)) == read_all(second.log)


# -- what is not taken -------------------------------------------------------------------------------------


def three_batches() -> tuple[Log, list[bytes]]:
    leader = open_log(MemoryDisk())
    for number in range(3):
        append(leader, "a" * 40, "b", epoch=number)
    return leader, [bytes(raw) for _, raw in iter_batches(fetch(leader, 0))]


@pytest.mark.parametrize("damaged", range(3))
def test_nothing_is_taken_of_an_answer_with_a_damaged_batch(damaged: int) -> None:
    """Whichever byte it is, but the leader's stamp, which no checksum covers."""
    _, batches = three_batches()
    for position in range(16, len(batches[damaged])):
        disk = MemoryDisk()
        follower = open_log(disk)
        raw = bytearray(batches[damaged])
        raw[position] ^= 0x10
        with pytest.raises(KafkaError) as raised:
            follower.append_as_follower(
                b"".join([*batches[:damaged], raw, *batches[damaged + 1 :]]), now_ms=NOW_MS
            )
        assert raised.value.code is ErrorCode.corrupt_message
        assert (follower.log_end_offset, follower.size_bytes, contents(follower)) == (0, 0, b"")


@pytest.mark.parametrize("length", [-1, 0, 48, -(2**31)])
def test_a_length_that_no_batch_has_is_damage(length: int) -> None:
    _, batches = three_batches()
    raw = bytearray(batches[1])
    raw[8:12] = struct.pack(">i", length)
    follower = open_log(MemoryDisk())
    with pytest.raises(KafkaError) as raised:
        follower.append_as_follower(batches[0] + raw, now_ms=NOW_MS)
    assert raised.value.code is ErrorCode.corrupt_message
    assert follower.log_end_offset == 0


def test_a_last_batch_that_is_cut_off_is_left_for_the_next_fetch() -> None:
    _, batches = three_batches()
    for cut in range(len(batches[1])):
        follower = open_log(MemoryDisk())
        follower.append_as_follower(batches[0] + batches[1][:cut], now_ms=NOW_MS)
        assert (follower.log_end_offset, contents(follower)) == (2, batches[0])
    follower = open_log(MemoryDisk())
    for nothing in (b"", batches[0][:-1], bytearray(batches[0][:61])):
        follower.append_as_follower(nothing, now_ms=NOW_MS)
        assert follower.log_end_offset == 0


def test_a_batch_without_records_is_taken() -> None:
    """Compaction leaves such ones, for their producers' sake: nothing but headers, also in the end."""
    _, batches = three_batches()
    empty = seal_batch(read_header(batches[1]).replaced(record_count=0), b"")
    assert len(empty) == HEADER_BYTES
    follower = open_log(MemoryDisk())
    follower.append_as_follower(batches[0] + empty, now_ms=NOW_MS)
    assert (follower.log_end_offset, contents(follower)) == (4, batches[0] + empty)


def test_what_does_not_continue_the_log_is_refused() -> None:
    leader, batches = three_batches()

    def refused(follower: Log, *raw: bytes) -> None:
        before = state(follower)
        with pytest.raises(KafkaError) as raised:
            follower.append_as_follower(b"".join(raw), now_ms=NOW_MS)
        assert raised.value.code is ErrorCode.invalid_record
        assert state(follower) == before

    follower = open_log(MemoryDisk())
    follower.append_as_follower(b"".join(batches[:2]), now_ms=NOW_MS)
    refused(follower, batches[0])
    refused(follower, batches[1], batches[2])
    refused(follower, batches[2], batches[2])
    refused(follower, batches[2], batches[1])
    # An older epoch at the right place: the batch of a leader that was replaced.
    stale = bytearray(batches[2])
    stale[12:16] = struct.pack(">i", 0)
    refused(follower, bytes(stale))
    backwards = build_batch([Record(0, 0, None, b"x")] * 3, base_offset=4, leader_epoch=2)
    header = bytearray(backwards)
    header[23:27] = struct.pack(">i", -1)
    from crc32c import crc32c

    header[17:21] = struct.pack(">I", crc32c(bytes(header[21:])))
    refused(follower, bytes(header))
    # The log holds records of its own: the batch that its end lies within is not theirs.
    follow(leader, follower)
    wide = build_batch([Record(0, 0, None, b"x")] * 4, base_offset=4, leader_epoch=2)
    refused(follower, wide)


def test_batches_of_a_later_epoch_than_they_were_fetched_in_are_left_out() -> None:
    _, batches = three_batches()
    follower = open_log(MemoryDisk())
    follower.append_as_follower(b"".join(batches), now_ms=NOW_MS, leader_epoch=1)
    assert follower.log_end_offset == 4
    follower.append_as_follower(b"".join(batches[2:]), now_ms=NOW_MS, leader_epoch=1)
    assert (follower.log_end_offset, follower.latest_epoch) == (4, 1)
    follower.append_as_follower(b"".join(batches[2:]), now_ms=NOW_MS, leader_epoch=2)
    assert (follower.log_end_offset, follower.latest_epoch) == (6, 2)


def test_a_control_batch_that_cannot_be_read_changes_nothing() -> None:
    good = batch("a")
    bad = bytearray(build_batch([Record(0, 0, b"key", b"value")], base_offset=1, control=True, producer_id=1))
    bad[61] = 0x7F  # the record claims more bytes than there are
    from crc32c import crc32c

    bad[17:21] = struct.pack(">I", crc32c(bytes(bad[21:])))
    follower = open_log(MemoryDisk())
    with pytest.raises(KafkaError):
        follower.append_as_follower(good + bad, now_ms=NOW_MS)
    assert (follower.log_end_offset, follower.size_bytes) == (0, 0)


# -- gaps and starts ---------------------------------------------------------------------------------------


def test_gaps_that_compaction_left_are_followed() -> None:
    raw = [build_batch([Record(0, NOW_MS, b"k", b"v")], base_offset=base) for base in (3, 4, 90)]
    disk = MemoryDisk()
    follower = open_log(disk, LogConfig(segment_bytes=140))
    follower.append_as_follower(b"".join(raw), now_ms=NOW_MS)
    assert [record.offset for record in read_all(follower)] == [3, 4, 90]
    assert follower.log_start_offset == 0
    assert [record.offset for record in read_all(open_log(disk, follower.config))] == [3, 4, 90]


def test_a_gap_that_no_segment_can_hold_begins_another() -> None:
    far = RELATIVE_OFFSET_MAX + 100
    raw = [
        build_batch([Record(0, NOW_MS, b"k", b"v")], base_offset=base) for base in (far, 3 * far, 3 * far + 1)
    ]
    disk = MemoryDisk()
    follower = open_log(disk, LogConfig(cleanup_policy=("compact",)))
    follower.append_as_follower(b"".join(raw), now_ms=NOW_MS)
    offsets = [far, 3 * far, 3 * far + 1]
    assert [record.offset for record in read_all(follower)] == offsets
    assert [segment.base_offset for segment in follower.segments] == [far, 3 * far]
    assert [record.offset for record in read_all(open_log(disk, follower.config))] == offsets


def test_a_log_that_begins_within_a_batch_takes_the_whole_batch() -> None:
    leader = open_log(MemoryDisk())
    append(leader, "a", "b", "c", "d", epoch=3)
    append(leader, "e", epoch=3)
    leader.advance_log_start(2)
    disk = MemoryDisk()
    follower = open_log(disk)
    assert follower.follow_log_start(2, NOW_MS) is True
    follow(leader, follower)
    assert (follower.log_start_offset, follower.log_end_offset) == (2, 5)
    assert contents(follower) == contents(leader)
    assert follower.epochs.entries == leader.epochs.entries == [(3, 2)]
    assert values(follower) == [b"c", b"d", b"e"]
    assert values(reopen_clean(disk, follower)) == [b"c", b"d", b"e"]
    assert values(open_log(disk, log_start_offset=2)) == [b"c", b"d", b"e"]


def test_a_log_that_begins_at_the_last_record_of_a_batch_takes_the_whole_batch() -> None:
    follower = open_log(MemoryDisk())
    follower.follow_log_start(3, NOW_MS)
    follower.append_as_follower(batch("a", "b", "c", "d"), now_ms=NOW_MS)
    assert (follower.log_start_offset, follower.log_end_offset) == (3, 4)
    assert values(follower) == [b"d"]


def test_a_log_that_begins_within_a_batch_takes_no_batch_before_it() -> None:
    follower = open_log(MemoryDisk())
    follower.follow_log_start(5, NOW_MS)
    with pytest.raises(KafkaError) as raised:
        follower.append_as_follower(batch("a", "b", "c", "d", "e"), now_ms=NOW_MS)
    assert raised.value.code is ErrorCode.invalid_record
    assert (follower.log_start_offset, follower.log_end_offset) == (5, 5)


def test_a_follower_begins_where_its_leader_does() -> None:
    leader, _ = three_batches()
    follower = open_log(MemoryDisk())
    follow(leader, follower)
    assert follower.follow_log_start(3, NOW_MS) is True
    assert (follower.log_start_offset, follower.log_end_offset) == (3, 6)
    assert follower.follow_log_start(1, NOW_MS) is False
    assert follower.log_start_offset == 3
    assert follower.follow_log_start(100, NOW_MS) is True
    assert (follower.log_start_offset, follower.log_end_offset, follower.size_bytes) == (100, 100, 0)
    assert (follower.epochs.entries, len(follower.producers)) == ([], 0)


# -- disks -------------------------------------------------------------------------------------------------


def test_a_full_disk_takes_nothing_and_later_all() -> None:
    leader, batches = three_batches()
    data = b"".join(batches)
    for room in range(len(data)):
        disk = MemoryDisk()
        follower = open_log(disk)
        disk.capacity = room
        with pytest.raises(KafkaError) as raised:
            follower.append_as_follower(data, now_ms=NOW_MS)
        assert raised.value.code is ErrorCode.kafka_storage_error
        assert (follower.log_end_offset, contents(follower), disk.size(f"{FOLDER}/{0:020d}.log")) == (
            0,
            b"",
            0,
        )
        disk.capacity = 1 << 30
        follow(leader, follower)
        assert contents(follower) == data


def test_a_write_that_cannot_be_taken_back_is_before_the_next() -> None:
    leader, batches = three_batches()
    disk = MemoryDisk()
    follower = open_log(disk)
    disk.capacity = len(batches[0]) + 5
    disk.fail_with["truncate"] = IO_ERROR
    for _ in range(2):
        with pytest.raises(KafkaError):
            follower.append_as_follower(b"".join(batches), now_ms=NOW_MS)
    disk.capacity = 1 << 30
    disk.fail_with.clear()
    follow(leader, follower)
    assert contents(follower) == contents(leader)


def test_what_earlier_segments_took_stays_where_a_later_one_fails() -> None:
    leader, batches = three_batches()
    disk = MemoryDisk()
    follower = open_log(disk, LogConfig(segment_bytes=2 * len(batches[0]) + 1))
    disk.fail_with["create"] = OSError(errno.ENOSPC, "No space left on device")
    disk.fails_on = f"{4:020d}.log"
    with pytest.raises(KafkaError) as raised:
        follower.append_as_follower(b"".join(batches), now_ms=NOW_MS)
    assert raised.value.code is ErrorCode.kafka_storage_error
    assert state(follower)[1:4] == (4, len(batches[0]) * 2, [(0, 0), (1, 2)])
    disk.fail_with.clear()
    follow(leader, follower)
    assert state(follower) == state(leader)
    assert contents(follower) == contents(leader)


def test_after_a_crash_at_any_byte_whole_batches_are_left_and_following_goes_on() -> None:
    leader, batches = three_batches()
    data = b"".join(batches)
    ends = [0, len(batches[0]), len(batches[0]) + len(batches[1]), len(data)]
    for cut in range(len(data) + 1):
        disk = MemoryDisk()
        open_log(disk).append_as_follower(data, now_ms=NOW_MS)
        del disk.files[f"{FOLDER}/{0:020d}.log"].data[cut:]
        follower = open_log(disk)
        whole = max(number for number, end in enumerate(ends) if end <= cut)
        assert (follower.log_end_offset, contents(follower)) == (2 * whole, data[: ends[whole]])
        follow(leader, follower)
        assert state(follower) == state(leader)
        assert contents(follower) == data


def test_a_flush_of_what_was_followed_survives_a_loss_of_power() -> None:
    leader, _ = three_batches()
    disk = MemoryDisk()
    config = LogConfig(flush_messages=6, flush_ms=1000)
    follower = open_log(disk, config)
    follower.append_as_follower(fetch(leader, 0, 1), now_ms=NOW_MS)
    assert not follower.sync_due(NOW_MS + 999)
    assert follower.sync_due(NOW_MS + 1000)
    follower.append_as_follower(fetch(leader, 2), now_ms=NOW_MS)
    assert follower.sync_due(NOW_MS)
    follower.flush()
    assert not follower.sync_due(NOW_MS + 5000)
    disk.lose_power()
    assert state(open_log(disk, config, recovery_point=6)) == state(leader)


def refuses(log: Log, write: Callable[[], object], code: ErrorCode) -> None:
    with pytest.raises(KafkaError) as raised:
        write()
    assert raised.value.code is code


def test_a_log_that_is_deleted_or_failed_takes_nothing() -> None:
    _, batches = three_batches()
    follower = open_log(MemoryDisk())
    follower.durability.fail(IO_ERROR)
    refuses(
        follower,
        lambda: follower.append_as_follower(batches[0], now_ms=NOW_MS),
        ErrorCode.kafka_storage_error,
    )
    follower = open_log(MemoryDisk())
    follower.retire()
    refuses(
        follower,
        lambda: follower.append_as_follower(batches[0], now_ms=NOW_MS),
        ErrorCode.unknown_topic_or_partition,
    )
    assert follower.log_end_offset == 0


def test_many_batches_in_one_answer_are_found_one_by_one() -> None:
    """More than the dense list of recent batches holds."""
    leader = open_log(MemoryDisk())
    for number in range(2500):
        append(leader, str(number))
    follower = open_log(MemoryDisk())
    follow(leader, follower)
    for offset in (0, 1, 1023, 1024, 1475, 1476, 1988, 2499):
        assert fetch(follower, offset, 1) == fetch(leader, offset, 1)


@pytest.mark.parametrize(("beyond", "bases"), [(0, [0]), (1, [0, 1])])
def test_a_segment_takes_offsets_up_to_the_largest_that_its_index_can_tell(
    beyond: int, bases: list[int]
) -> None:
    log = open_log(MemoryDisk())
    append(log, "a")
    last = build_batch(
        [Record(0, NOW_MS, None, b"b")], base_offset=RELATIVE_OFFSET_MAX + beyond, leader_epoch=0
    )
    log.append_as_follower(last, now_ms=NOW_MS)
    assert [segment.base_offset for segment in log.segments] == bases
    assert [record.offset for record in read_all(log)] == [0, RELATIVE_OFFSET_MAX + beyond]
