"""After a crash: the longest valid prefix, and all that follows from it, whatever the tail looks like."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from hypothesis import given
from hypothesis import strategies as st
from log_support import FOLDER, NOW_MS, append, batch, open_log, read_all, reopen_clean, values
from memory_disk import MemoryDisk

from ottla.log.files import InPlace
from ottla.log.settings import LogConfig
from ottla.log.walking import CHUNK_BYTES
from ottla.wire.records import HEADER, read_header

SMALL = LogConfig(segment_bytes=250, index_interval_bytes=50)
LOG = f"{FOLDER}/{0:020d}.log"


class Later(InPlace):
    """What is left for the background does not come to it."""

    def submit(self, work: Callable[[], None], delay_ms: int = 0) -> None:
        return


def written(count: int, config: LogConfig | None = None) -> MemoryDisk:
    """A disk with a log of ``count`` batches of one or two records, abandoned."""
    disk = MemoryDisk()
    log = open_log(disk, config)
    for number in range(count):
        append(log, f"first {number}", *(["second"] if number % 2 else []))
    return disk


def ends(disk: MemoryDisk, path: str = LOG) -> list[tuple[int, int]]:
    """(position, offset) at which each batch ends."""
    data, found, position = bytes(disk.files[path].data), [(0, 0)], 0
    while position < len(data):
        header = read_header(data, position)
        position += header.size
        found.append((position, header.next_offset))
    return found


def test_a_cut_at_every_byte_leaves_the_whole_batches_before_it() -> None:
    whole = written(4)
    places = ends(whole)
    data = bytes(whole.files[LOG].data)
    for cut in range(len(data) + 1):
        disk = MemoryDisk()
        disk.make_dirs(FOLDER)
        disk.open(LOG, create=True).append([data[:cut]])
        log = open_log(disk)
        position, offset = max(place for place in places if place[0] <= cut)
        assert (log.size_bytes, log.log_end_offset) == (position, offset), cut
        assert len(disk.files[LOG].data) == position
        assert [record.offset for record in read_all(log)] == list(range(offset))


def test_a_flipped_byte_anywhere_cuts_before_its_batch() -> None:
    whole = written(4)
    places = ends(whole)
    data = bytes(whole.files[LOG].data)
    for at in range(len(data)):
        damaged = bytearray(data)
        damaged[at] ^= 0xFF
        disk = MemoryDisk()
        disk.make_dirs(FOLDER)
        disk.open(LOG, create=True).append([damaged])
        log = open_log(disk)
        position, offset = max(place for place in places if place[0] <= at)
        in_header = at - position
        if 12 <= in_header < 16:
            # The leader epoch is stamped after the checksum: nothing tells that it is wrong, but that epochs
            # do not go back after it.
            following = min(place for place in places if place[0] > at)
            assert log.log_end_offset == (places[-1] if in_header == 12 else following)[1]
        elif 4 <= in_header < 8 and position == places[-2][0]:
            # So is the base offset; a larger one looks like a gap that compaction left.
            assert log.log_end_offset >= offset
        elif 4 <= in_header < 8:
            assert log.log_end_offset >= offset
        else:
            assert (log.size_bytes, log.log_end_offset) == (position, offset), at
        append(log, "goes on")
        assert values(log)[-1] == b"goes on"


@given(st.data())
def test_whatever_is_in_the_tail_the_acknowledged_prefix_stays(data: st.DataObject) -> None:
    disk = written(5)
    places = ends(disk)
    before = read_all(open_log(disk))
    keep_position, keep_offset = data.draw(st.sampled_from(places))
    tail = data.draw(st.binary(max_size=300))
    del disk.files[LOG].data[keep_position:]
    disk.files[LOG].data += tail
    log = open_log(disk)
    assert read_all(log)[:keep_offset] == before[:keep_offset]
    assert log.log_end_offset == keep_offset
    again = open_log(disk)
    assert read_all(again) == read_all(log)


def test_a_preallocated_tail_of_zeros_is_cut() -> None:
    disk = written(3)
    size = len(disk.files[LOG].data)
    disk.files[LOG].data += bytes(10_000)
    log = open_log(disk)
    assert log.size_bytes == size == len(disk.files[LOG].data)


def test_damage_in_an_earlier_segment_takes_the_later_ones_with_it() -> None:
    disk = written(12, SMALL)
    log = open_log(disk, SMALL)
    bases = [segment.base_offset for segment in log.segments]
    assert len(bases) > 3
    victim = log.segments[1]
    disk.files[victim.path(".log")].data[30] ^= 1
    recovered = open_log(disk, SMALL)
    assert recovered.log_end_offset == victim.base_offset
    assert [segment.base_offset for segment in recovered.segments] == bases[:2]
    assert not [name for name in disk.files if name.endswith(".log") and f"{bases[2]:020d}" in name]
    append(recovered, "more")
    assert read_all(recovered)[-1].offset == victim.base_offset


def test_a_segment_that_lost_whole_batches_ends_the_log() -> None:
    disk = written(12, SMALL)
    log = open_log(disk, SMALL)
    second = log.segments[1]
    places = ends(disk, second.path(".log"))
    del disk.files[second.path(".log")].data[places[-2][0] :]
    recovered = open_log(disk, SMALL)
    assert recovered.log_end_offset == places[-2][1]
    assert len(recovered.segments) == 2


def test_gaps_are_kept_where_compaction_may_have_left_them() -> None:
    disk = written(12, SMALL)
    log = open_log(disk, SMALL)
    second, end = log.segments[1], log.log_end_offset
    places = ends(disk, second.path(".log"))
    del disk.files[second.path(".log")].data[places[-2][0] :]
    compacted = LogConfig(segment_bytes=250, index_interval_bytes=50, cleanup_policy=("compact",))
    recovered = open_log(disk, compacted)
    assert recovered.log_end_offset == end
    gap = places[-2][1]
    assert gap not in [record.offset for record in read_all(recovered)]
    piece = recovered.read(gap, 1, end_offset=end, min_one=True)
    assert piece is not None
    assert read_header(piece.file.read(piece.position, piece.size)).base_offset == log.segments[2].base_offset


def test_only_the_segments_from_the_recovery_point_on_are_read() -> None:
    disk = written(20, SMALL)
    log = open_log(disk, SMALL)
    point = log.segments[3].base_offset + 1
    disk.reads.clear()
    open_log(disk, SMALL, recovery_point=point)
    # Of those before, the first batch and the last one, which tell whether the epochs are right.
    before = [disk.reads[f"{segment.base_offset:020d}.log"] for segment in log.segments[:3]]
    assert before == [1, 0, 1]
    assert all(disk.reads[f"{segment.base_offset:020d}.log"] for segment in log.segments[3:])


def test_a_clean_start_reads_a_few_batches_only() -> None:
    disk = written(20, SMALL)
    log = reopen_clean(disk, open_log(disk, SMALL))
    end, expected = log.log_end_offset, read_all(log)
    log.close()
    disk.reads.clear()
    again = open_log(disk, SMALL, clean=True, recovery_point=end)
    read = {name: times for name, times in disk.reads.items() if name.endswith((".log", "index"))}
    assert read == {
        f"{log.segments[0].base_offset:020d}.log": 1,
        f"{log.segments[-1].base_offset:020d}.log": 1,
    }
    assert again.log_end_offset == end
    assert read_all(again) == expected


def test_a_clean_folder_without_its_checkpoint_is_asked_for_its_end() -> None:
    disk = written(7)
    log = open_log(disk)
    log.close()
    again = open_log(disk, clean=True, recovery_point=0)
    assert again.log_end_offset == log.log_end_offset


def test_a_batch_larger_than_a_chunk_is_checked_piece_by_piece() -> None:
    disk = MemoryDisk()
    config = LogConfig(max_message_bytes=10_000_000)
    log = open_log(disk, config)
    append(log, "small")
    append(log, bytes(3 * CHUNK_BYTES // 2))
    append(log, "last")
    recovered = open_log(disk, config)
    assert recovered.log_end_offset == 3
    position = recovered.segments[0].locate(1)
    assert position is not None
    disk.files[LOG].data[position.position + position.size - 1] ^= 1
    assert open_log(disk, config).log_end_offset == 1


def test_batches_across_chunks_are_all_found() -> None:
    disk = MemoryDisk()
    log = open_log(disk)
    for number in range(30):
        append(log, bytes([number]) * 100_000)
    assert read_all(open_log(disk)) == read_all(log)


def test_indexes_are_rebuilt_as_they_were_written() -> None:
    config = LogConfig(index_interval_bytes=100)
    disk = MemoryDisk()
    log = open_log(disk, config)
    for number in range(50):
        append(log, f"value {number}", at_ms=NOW_MS + (number * 7) % 40)
    recovered = open_log(disk, config)
    old, new = log.segments[0], recovered.segments[0]
    assert new.offset_index.encode() == old.offset_index.encode()
    assert new.load_max_timestamp() == old.load_max_timestamp()
    assert new.time_index.encode()[: len(old.time_index) * 12] == old.time_index.encode()


def test_index_files_that_are_missing_or_damaged_are_built_again() -> None:
    disk = written(30, SMALL)
    log = reopen_clean(disk, open_log(disk, SMALL))
    expected, end = read_all(log), log.log_end_offset
    log.close()
    for number, segment in enumerate(log.segments):
        path = segment.path(".index")
        match number % 3:
            case 0:
                disk.remove(path)
            case 1:
                disk.files[path].data = bytearray(b"\xff" * 16)
            case 2:
                disk.remove(segment.path(".timeindex"))
    again = open_log(disk, SMALL, clean=True, recovery_point=end)
    assert read_all(again) == expected


def test_leader_epochs_come_back_with_the_batches() -> None:
    disk = MemoryDisk()
    log = open_log(disk)
    append(log, "a", epoch=3)
    append(log, "b", epoch=3)
    append(log, "c", epoch=5)
    recovered = open_log(disk)
    assert recovered.epochs.entries == [(3, 0), (5, 2)]
    disk.files[LOG].data[-1] ^= 1
    assert open_log(disk).epochs.entries == [(3, 0)]


def test_power_loss_keeps_what_was_flushed() -> None:
    disk = MemoryDisk()
    log = open_log(disk)
    append(log, "kept", epoch=1)
    log.flush()
    assert log.recovery_point == 1
    append(log, "not promised")
    disk.lose_power()
    recovered = open_log(disk, recovery_point=1)
    assert values(recovered) == [b"kept"]
    assert recovered.epochs.entries == [(1, 0)]


def test_a_segment_that_begins_after_a_flush_is_there_after_the_next() -> None:
    """Its name in the folder is to be on the disk, too."""
    disk = MemoryDisk()
    log = open_log(disk)
    append(log, "a")
    log.flush()
    log.roll(NOW_MS)
    append(log, "b")
    log.flush()
    disk.lose_power()
    assert values(open_log(disk, recovery_point=log.recovery_point)) == [b"a", b"b"]


def test_what_recovery_has_cut_off_does_not_come_back() -> None:
    """What lay behind the cut is not to be taken for what is written there."""
    disk = MemoryDisk()
    log = open_log(disk)
    append(log, "a")
    log.flush()
    size = log.size_bytes
    disk.files[LOG].synced += b"torn"
    disk.lose_power()
    open_log(disk, recovery_point=1)
    disk.lose_power()
    assert len(disk.files[LOG].data) == size


def test_a_roll_about_where_a_log_was_flushed_to_before_it_was_cut_short() -> None:
    """The checkpoint on disk says 5 and the log ends at 3: with 5 again, the rest must not be believed."""
    disk = MemoryDisk()
    log = open_log(disk)
    for number in range(5):
        append(log, f"old {number}")
    log.flush()
    del disk.files[LOG].data[ends(disk)[3][0] :]
    disk.files[LOG].synced = bytes(disk.files[LOG].data)
    log = open_log(disk, recovery_point=5, background=Later())
    assert log.log_end_offset == 3
    append(log, "new 3")
    append(log, "new 4")
    log.roll(NOW_MS)
    append(log, "last")
    # The disk writes the newest first.
    disk.sync_dir(FOLDER)
    log.segments[-1].file.sync()
    disk.lose_power()
    assert values(open_log(disk, recovery_point=5)) == [
        b"old 0", b"old 1", b"old 2", b"new 3", b"new 4", b"last"
    ]  # fmt: skip


# What happens to a log, appends more often than the rest.
OTHERS = ["flush", "roll", "cut", "start", "retain", "stop", "crash"]
STEPS = st.lists(st.sampled_from(["append"] * 4 + OTHERS), max_size=30)


@given(steps=STEPS, keeps_names=st.booleans(), numbers=st.randoms(use_true_random=False))
def test_power_loss_at_any_time_keeps_what_was_flushed_in_its_place(
    steps: list[str], keeps_names: bool, numbers: Random
) -> None:
    """Files and names are lost that were not synced; the recovery point that is known may be an old one."""
    disk, config = MemoryDisk(), LogConfig(segment_bytes=300, retention_bytes=600)
    log = open_log(disk, config)
    checkpointed = epoch = count = promised = 0
    # By offset what the log holds, and what it held before each cut that the disk may not know of.
    told: dict[int, bytes] = {}
    before: list[dict[int, bytes]] = []
    for step in [*steps, "crash"]:
        match step:
            case "append":
                count += 1
                told[append(log, f"{count:03}", epoch=epoch).base_offset] = b"%03d" % count
            case "flush":
                log.flush()
                promised, before = log.log_end_offset, []
                if numbers.random() < 0.5:
                    checkpointed = log.recovery_point
            case "roll":
                log.roll(NOW_MS)
            case "cut":
                epoch += 1
                before.append(dict(told))
                log.truncate_to(numbers.randint(log.log_start_offset, log.log_end_offset), NOW_MS)
                told = {offset: value for offset, value in told.items() if offset < log.log_end_offset}
                promised = min(promised, log.log_end_offset)
            case "start":
                log.advance_log_start(numbers.randint(log.log_start_offset, log.log_end_offset))
            case "retain":
                log.apply_retention(NOW_MS)
            case "stop":
                log = reopen_clean(disk, log, config)
                promised = checkpointed = log.log_end_offset
                before = []
            case "crash":
                start = log.log_start_offset
                disk.lose_power(keeps_names=keeps_names)
                log = open_log(disk, config, recovery_point=checkpointed, log_start_offset=start)
                end = log.log_end_offset
                assert end >= promised
                left = {record.offset: record.value for record in read_all(log)}
                assert left in [
                    {offset: value for offset, value in held.items() if start <= offset < end}
                    for held in (told, *before)
                ]
                told, before, promised = dict(left), [], end
                epoch += 1


def test_a_log_that_lost_more_than_was_deleted_begins_again_at_its_start() -> None:
    disk = written(3)
    disk.files[LOG].data.clear()
    log = open_log(disk, log_start_offset=4)
    assert (log.log_start_offset, log.log_end_offset) == (4, 4)
    assert append(log, "next").base_offset == 4
    # The empty file that was there began at 0.
    assert [segment.base_offset for segment in log.segments] == [4]
    assert values(reopen_clean(disk, log)) == [b"next"]


def test_indexes_of_before_a_crash_do_not_outlast_recovery() -> None:
    """They would look sound to whoever comes after another crash."""
    disk = written(3)
    reopen_clean(disk, open_log(disk))
    indexes = [LOG.replace(".log", suffix) for suffix in (".index", ".timeindex")]
    assert all(map(disk.exists, indexes))
    open_log(disk)
    assert not any(map(disk.exists, indexes))


def test_offsets_that_go_back_end_the_log() -> None:
    disk = written(3)
    data = disk.files[LOG].data
    data += data[: ends(disk)[1][0]]
    log = open_log(disk)
    assert log.log_end_offset == ends(disk)[-1][1] == 4


def test_files_that_a_crash_left_behind_are_cleared_away() -> None:
    disk = written(1)
    for name in ("00000000000000000007.log.deleted", "00000000000000000009.index", f"{0:020d}.snapshot.tmp"):
        disk.open(f"{FOLDER}/{name}", create=True)
    log = open_log(disk)
    assert log.log_end_offset == 1
    assert [name for name in disk.list(FOLDER) if not name.startswith(f"{0:020d}")] == []


def test_an_interrupted_swap_is_completed() -> None:
    """Compaction had written one segment in the place of the first three, and renamed it to .swap."""
    disk = written(12, SMALL)
    log = open_log(disk, SMALL)
    log.close()
    bases = [segment.base_offset for segment in log.segments]
    assert len(bases) > 4
    third = bytes(disk.files[log.segments[2].path(".log")].data)
    disk.open(f"{FOLDER}/{0:020d}.log.swap", create=True).append([third])
    compacted = LogConfig(segment_bytes=250, cleanup_policy=("compact",))
    recovered = open_log(disk, compacted)
    assert [segment.base_offset for segment in recovered.segments] == [0, *bases[3:]]
    assert [record.offset for record in read_all(recovered)] == list(range(bases[2], log.log_end_offset))
    assert not [name for name in disk.files if name.endswith(".swap")]


def test_an_unfinished_compaction_is_undone() -> None:
    disk = written(12, SMALL)
    log = open_log(disk, SMALL)
    expected = read_all(log)
    log.close()
    for name in (f"{0:020d}.log.cleaned", f"{0:020d}.log.swap", f"{4:020d}.index.swap"):
        disk.open(f"{FOLDER}/{name}", create=True).append([b"half"])
    assert read_all(open_log(disk, SMALL)) == expected
    assert not [name for name in disk.files if name.endswith((".swap", ".cleaned"))]


def test_a_header_of_extremes_ends_the_log() -> None:
    disk = written(1)
    fields = list(read_header(batch("x")).fields())
    for number, wrong in ((1, 2**31 - 1), (1, -(2**31)), (1, 0), (6, -1)):
        header = list(fields)
        header[number] = wrong
        disk.files[LOG].data[ends(disk)[0][0] :] = HEADER.pack(*header) + bytes(20)
        assert open_log(disk).log_end_offset == 0
