"""Files beside a log are hints: whatever they say, the log is the truth, and what is damaged is told."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from uuid import UUID

import pytest
from log_support import FOLDER, NOW_MS, append, open_log, read_all, records
from memory_disk import MemoryDisk

from ottla.errors import ErrorCode, KafkaError
from ottla.log.log import Log
from ottla.log.lookups import TimeLookUps
from ottla.log.segment_file import ColdRead
from ottla.log.settings import LogConfig
from ottla.log.walking import Gap, salvage
from ottla.types import Record
from ottla.wire.records import build_batch, check_batch

CONFIG = LogConfig(segment_bytes=4000, index_interval_bytes=200)
COUNT = 200
STEP_MS = 10


def written(count: int = COUNT, *, epochs: int = 1, closed: bool = True) -> tuple[MemoryDisk, Log]:
    """A log of several segments, an index entry for every other batch, and as many epochs."""
    disk = MemoryDisk()
    log = open_log(disk, CONFIG)
    for number in range(count):
        append(
            log, f"{number:06d}" + "x" * 80, at_ms=NOW_MS + number * STEP_MS, epoch=number * epochs // count,
            producer_id=7, producer_epoch=0, base_sequence=number,
        )  # fmt: skip
    assert len(log.segments) > 4
    if closed:
        log.close()
    else:
        log.flush()
    return disk, log


def opened(disk: MemoryDisk, point: int = COUNT, *, clean: bool = True) -> Log:
    return open_log(disk, CONFIG, clean=clean, recovery_point=point)


def warm(look_up: Callable[[], object]) -> object:
    """What a look-up finds, after whatever it asks for was done off the loop."""
    for _ in range(100):
        try:
            return look_up()
        except ColdRead as cold:
            cold.warm()
    raise AssertionError("it asks for ever")


def served(log: Log) -> list[int]:
    """The offsets of all records that can be read, each asked for by itself."""
    found = []
    for offset in range(log.log_start_offset, log.log_end_offset):
        try:
            piece = warm(lambda at=offset: log.read(at, 1, end_offset=log.log_end_offset, min_one=True))  # type: ignore[misc]
        except KafkaError as error:
            assert error.code is ErrorCode.corrupt_message
            continue
        data = piece.file.read(piece.position, piece.size)  # type: ignore[attr-defined]
        with suppress(KafkaError):
            # As a consumer does.
            check_batch(data)
            if offset == int.from_bytes(data[:8], "big") and f"{offset:06d}".encode() in data:
                found.append(offset)
    return found


def flip(disk: MemoryDisk, path: str, at: int, bit: int = 1) -> None:
    disk.files[path].data[at] ^= bit


def epoch_file(disk: MemoryDisk) -> bytearray:
    return disk.files[f"{FOLDER}/leader-epoch-checkpoint"].data


# -- epochs


@pytest.mark.parametrize("clean", [True, False])
@pytest.mark.parametrize(
    "content",
    [
        b"0\n1\n9 0\n", b"0\n2\n0 0\n9 66\n", b"0\n3\n0 0\n1 66\n2 133\n", b"0\n4\n0 0\n1 67\n2 134\n3 180\n",
        b"0\n0\n", b"", b"0\n2\n0 0\n2 134\n", b"0\n1\n2 0\n", b"garbage", b"0\n3\n0 0\n1 67\n2 135\n",
    ],
)  # fmt: skip
def test_epochs_are_what_the_batches_tell(content: bytes, clean: bool) -> None:
    disk, log = written(epochs=3, closed=clean)
    right = log.epochs.entries
    assert right == [(0, 0), (1, 67), (2, 134)]
    epoch_file(disk)[:] = content
    again = opened(disk, clean=clean)
    assert again.epochs.entries == right
    assert len(read_all(again)) == COUNT
    again.close()
    assert epoch_file(disk) == b"0\n3\n0 0\n1 67\n2 134\n"


def test_epochs_that_are_right_are_left_alone(caplog: pytest.LogCaptureFixture) -> None:
    disk, log = written(epochs=20)
    right = log.epochs.entries
    assert opened(disk).epochs.entries == right
    assert not caplog.records


# -- the end


@pytest.mark.parametrize("point", [0, 5, COUNT - 1, COUNT + 1, 10**15])
def test_a_wrong_recovery_point_beside_a_clean_mark(point: int) -> None:
    disk, _ = written()
    log = opened(disk, point)
    assert log.log_end_offset == COUNT and log.recovery_point <= COUNT
    assert len(read_all(log)) == COUNT
    append(log, f"{COUNT:06d}")
    assert read_all(log)[-1].offset == COUNT


@pytest.mark.parametrize("point", [5, COUNT, 10**15])
@pytest.mark.parametrize("cut", [1, 60, 100, 1000])
def test_a_torn_tail_beside_a_clean_mark(point: int, cut: int, caplog: pytest.LogCaptureFixture) -> None:
    disk, log = written()
    path = log.segments[-1].path(".log")
    whole = len(disk.files[path].data)
    batch = log.segments[-1].size // (COUNT - log.segments[-1].base_offset)
    del disk.files[path].data[-cut:]
    again = opened(disk, point)
    lost = min(-(-cut // batch), COUNT - log.segments[-1].base_offset)
    assert again.log_end_offset == COUNT - lost
    assert len(read_all(again)) == COUNT - lost
    assert "damaged after a clean shutdown" in caplog.text or (whole - cut) % batch == 0


def test_a_segment_that_is_none_of_this_log() -> None:
    disk, log = written()
    first = bytes(disk.files[log.segments[0].path(".log")].data)
    for name, data in ((f"{COUNT:020d}", b"abc"), (f"{9000:020d}", first)):
        copy = MemoryDisk()
        copy.files.update(disk.files)
        copy.folders |= disk.folders
        copy.write_file(f"{FOLDER}/{name}.log", data)
        again = opened(copy)
        assert again.log_end_offset == COUNT and len(read_all(again)) == COUNT


@pytest.mark.parametrize("clean", [True, False])
def test_an_old_segment_that_is_short(clean: bool) -> None:
    """Neither it nor what follows is given up, whether the snapshots of producers are there or not."""
    for snapshots in (True, False):
        disk, log = written(closed=clean)
        second = log.segments[1]
        del disk.files[second.path(".log")].data[-250:]
        if not snapshots:
            for name in [name for name in disk.files if name.endswith(".snapshot")]:
                disk.remove(name)
        again = opened(disk, clean=clean)
        missing = set(range(COUNT)) - set(served(again))
        end = log.segments[2].base_offset
        assert again.log_end_offset == COUNT
        assert missing == set(range(min(missing), end)) and 0 < len(missing) <= 4


def test_a_log_start_beyond_the_end_is_not_believed_after_a_clean_shutdown() -> None:
    disk, _ = written()
    log = open_log(disk, CONFIG, clean=True, recovery_point=COUNT, log_start_offset=10**12)
    assert (log.log_start_offset, log.log_end_offset) == (0, COUNT)
    assert len(read_all(log)) == COUNT


def test_a_log_start_beyond_the_end_after_a_crash_removes_nothing() -> None:
    """It may be that deleted records were lost before they were synced, or that the checkpoint is wrong."""
    disk, _ = written(closed=False)
    topic_id = UUID(int=3)
    log = open_log(disk, CONFIG, recovery_point=COUNT, log_start_offset=10**12, topic_id=topic_id)
    assert log.log_start_offset == log.log_end_offset == 10**12
    assert append(log, "next").base_offset == 10**12
    [folder] = [name for name in disk.list("data") if name.endswith("-stray")]
    aside = MemoryDisk()
    aside.folders |= {"data", FOLDER}
    aside.files.update(
        {path.replace(folder, "topic-0"): inode for path, inode in disk.files.items() if folder in path}
    )
    kept = opened(aside, clean=False)
    assert len(read_all(kept)) == COUNT and kept.topic_id == topic_id


# -- recovery


@pytest.mark.parametrize("at", [0, 8, 11, 16, 30, 70])
def test_what_a_disk_damaged_before_the_recovery_point_costs_that_batch_only(at: int) -> None:
    disk, log = written(closed=False)
    segment = log.segments[-1]
    middle = segment.locate(segment.base_offset + 2)
    assert middle is not None
    flip(disk, segment.path(".log"), middle.position + at)
    again = opened(disk, clean=False)
    assert again.log_end_offset == COUNT
    missing = set(range(COUNT)) - set(served(again))
    assert missing == {segment.base_offset + 2}


def test_what_is_damaged_behind_the_recovery_point_is_cut() -> None:
    disk, log = written(closed=False)
    segment = log.segments[-1]
    middle = segment.locate(segment.base_offset + 2)
    assert middle is not None
    flip(disk, segment.path(".log"), middle.position + 70)
    again = opened(disk, segment.base_offset + 1, clean=False)
    assert again.log_end_offset == segment.base_offset + 2


def test_a_batch_within_a_record_is_none_of_the_log() -> None:
    """Where somebody keeps batches in records, and that is damaged, they are not taken for the log's."""
    inner = build_batch(records("inner"), base_offset=1)
    outer = [build_batch([Record(0, NOW_MS, None, inner * 3)], base_offset=number) for number in range(3)]
    disk = MemoryDisk()
    data = bytearray(b"".join(outer))
    data[len(outer[0]) + 9] ^= 1
    file = disk.open("x", create=True)
    file.append((data,))
    found = list(salvage(file, len(data), 0))
    assert [one if isinstance(one, Gap) else one.header.base_offset for one in found] == [
        0, Gap(len(outer[0]), len(outer[0]) + len(outer[1])), 2,
    ]  # fmt: skip


# -- indexes


def damages(data: bytes, entry: int, other: bytes) -> dict[str, bytes]:
    """What may be in an index file instead, plausible or not."""
    half = len(data) // entry // 2 * entry
    low_bits = bytearray(data)
    for at in range(entry - 1 if entry == 8 else 7, len(data), entry):
        low_bits[at] ^= 1
    return {
        "empty": b"",
        "zeros": bytes(len(data)),
        "half": data[:half],
        "a quarter": data[: half // 2 // entry * entry],
        "cut within an entry": data[:-5],
        "a tail of zeros": data + bytes(4096 // entry * entry),
        "one low bit": data[: half + 7] + bytes([data[half + 7] ^ 1]) + data[half + 8 :],
        "all low bits": bytes(low_bits),
        "a relative offset": data[: half + entry - 5]
        + bytes([data[half + entry - 5] ^ 2])
        + data[half + entry - 4 :],
        "the last entry": data[:-entry] + bytes([data[-entry] ^ 0x10]) + data[-entry + 1 :],
        "another segment's": other,
        "garbage": bytes((7 * at) % 251 for at in range(len(data))),
    }


def by_time(disk: MemoryDisk, log: Log) -> list[int]:
    """The offsets found by the time of every third record, and by the largest time."""

    async def look() -> list[int]:
        look_ups = TimeLookUps(disk)
        times = [NOW_MS + offset * STEP_MS - 5 for offset in range(0, COUNT, 3)]
        found = [await look_ups.first_from(log, time) for time in times] + [await look_ups.newest(log)]
        return [one.offset if one is not None else -1 for one in found]

    return asyncio.run(look())


KINDS = list(damages(bytes(48), 8, b""))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("suffix", "entry"), [(".index", 8), (".timeindex", 12)])
@pytest.mark.parametrize("number", [1, -1])
def test_an_index_that_is_wrong_changes_no_answer(kind: str, suffix: str, entry: int, number: int) -> None:
    disk, log = written()
    path, other = log.segments[number].path(suffix), log.segments[2].path(suffix)
    data = bytes(disk.files[path].data)
    disk.files[path].data[:] = damages(data, entry, bytes(disk.files[other].data))[kind]
    again = opened(disk)
    assert served(again) == list(range(COUNT))
    assert by_time(disk, again) == [*range(0, COUNT, 3), COUNT - 1]
    append(again, "more", at_ms=NOW_MS)
    assert len(read_all(again)) == COUNT + 1


@pytest.mark.parametrize("kind", KINDS)
def test_a_wrong_time_index_makes_retention_delete_nothing_before_its_time(kind: str) -> None:
    disk, log = written()
    path, other = log.segments[0].path(".timeindex"), log.segments[2].path(".timeindex")
    data = bytes(disk.files[path].data)
    disk.files[path].data[:] = damages(data, 12, bytes(disk.files[other].data))[kind]
    newest_ms = NOW_MS + (log.segments[1].base_offset - 1) * STEP_MS
    config = LogConfig(segment_bytes=4000, index_interval_bytes=200, retention_ms=1000)
    again = open_log(disk, config, clean=True, recovery_point=COUNT)
    for _ in range(3):
        again.apply_retention(newest_ms + 1000)
    assert again.log_start_offset == 0
    for _ in range(3):
        again.apply_retention(newest_ms + 1001)
    assert again.log_start_offset == log.segments[1].base_offset


def test_the_largest_time_may_be_anywhere() -> None:
    """Times that go back: what is behind the last entry of a time index is looked through to the end."""
    disk = MemoryDisk()
    log = open_log(disk, CONFIG)
    for number in range(100):
        append(log, "x" * 80, at_ms=NOW_MS + (5000 if number == 9 else number))
    log.close()
    path = log.segments[0].path(".timeindex")
    for entries, expected in ((None, 9), (1, 9), (2, 9)):
        copy = MemoryDisk()
        copy.files.update({name: inode for name, inode in disk.files.items() if name != path})
        copy.folders |= disk.folders
        copy.write_file(path, bytes(disk.files[path].data)[: None if entries is None else 12 * entries])
        again = open_log(copy, CONFIG, clean=True, recovery_point=100)
        assert again.segments[0].load_max_timestamp() == (NOW_MS + 5000, expected)


# -- the log itself


@pytest.mark.parametrize("at", [0, 7, 8, 9, 10, 11, 16, 23])
def test_a_header_that_is_damaged_in_an_old_segment(at: int, caplog: pytest.LogCaptureFixture) -> None:
    """Its own records answer CORRUPT_MESSAGE, all others are served, and the log says so once."""
    caplog.set_level(logging.WARNING)
    disk, _ = written()
    second = opened(disk).segments[1]
    place = second.locate(second.base_offset + 7)
    assert place is not None
    flip(disk, second.path(".log"), place.position + at, 0x40 if at != 11 else 1)
    again = opened(disk)
    for _ in range(2):
        missing = set(range(COUNT)) - set(served(again))
        assert missing == {second.base_offset + 7}
    told = [record for record in caplog.records if "is damaged: no whole batches" in record.getMessage()]
    assert len(told) == 1 and second.path(".log") in told[0].getMessage()
    with pytest.raises(KafkaError) as caught:
        warm(lambda: again.read(second.base_offset + 7, 100, end_offset=COUNT, min_one=True))
    assert caught.value.code is ErrorCode.corrupt_message


def test_the_first_batch_of_all_is_damaged() -> None:
    disk, log = written()
    flip(disk, log.segments[0].path(".log"), 8)
    again = opened(disk)
    assert served(again) == list(range(1, COUNT))


# -- producers


def test_a_snapshot_of_another_log_is_not_believed() -> None:
    disk, _ = written()
    other, _ = written()
    theirs = open_log(other, CONFIG, clean=True, recovery_point=COUNT)
    for number in range(COUNT, COUNT + 40):
        append(theirs, "x", producer_id=8, producer_epoch=0, base_sequence=number - COUNT)
    theirs.close()
    name = f"{COUNT:020d}.snapshot"
    newer = next(iter(sorted(path for path in other.files if path.endswith(".snapshot"))[-1:]))
    disk.files[f"{FOLDER}/{name}"].data[:] = other.files[newer].data
    again = opened(disk)
    assert [entry.producer_id for entry in again.producers] == [7]
    # A repeat is known as one.
    repeated = append(
        again, f"{COUNT - 1:06d}" + "x" * 80, producer_id=7, producer_epoch=0, base_sequence=COUNT - 1
    )
    assert repeated.duplicate


@pytest.mark.parametrize("clean", [True, False])
def test_snapshots_that_are_gone_are_made_again_from_the_log(clean: bool) -> None:
    disk, _ = written(closed=clean)
    for name in [name for name in disk.files if name.endswith(".snapshot")]:
        disk.remove(name)
    for inode in disk.files.values():
        inode.modified_ms = NOW_MS
    again = opened(disk, clean=clean)
    repeated = append(
        again, f"{COUNT - 1:06d}" + "x" * 80, producer_id=7, producer_epoch=0, base_sequence=COUNT - 1
    )
    assert repeated.duplicate
