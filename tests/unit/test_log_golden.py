"""Kafka's files, byte by byte: vectors written out by hand from the format's description.

A folder as Apache Kafka leaves it, with preallocated indexes, transactions and epochs, opens here; what is
written here is what Kafka would have written.
"""

from __future__ import annotations

import struct
from uuid import UUID

import pytest
from log_support import FOLDER, NOW_MS, append, newest_of, open_log, read_all, reopen_clean
from memory_disk import MemoryDisk

from ottla.log.producers import decode_snapshot
from ottla.log.settings import LogConfig
from ottla.types import Record
from ottla.wire.records import build_batch, check_batch, iter_records

# One record: timestamp 1700000000000, key "k", value "value", header a=b.
ONE_RECORD = bytes.fromhex(
    "0000000000000000"  # base offset
    "00000042"          # length
    "ffffffff"          # partition leader epoch
    "02"                # magic
    "2884c8cd"          # crc32c
    "0000"              # attributes
    "00000000"          # last offset delta
    "0000018bcfe56800"  # base timestamp
    "0000018bcfe56800"  # max timestamp
    "ffffffffffffffff"  # producer id
    "ffff"              # producer epoch
    "ffffffff"          # base sequence
    "00000001"          # records
    "20"                # length 16
    "00"                # attributes
    "00"                # timestamp delta
    "00"                # offset delta
    "02" "6b"           # key
    "0a" "76616c7565"   # value
    "02"                # one header
    "02" "61"           # its name
    "02" "62"           # its value
)  # fmt: skip

# Three records of an idempotent producer, 10 ms apart, without keys, the second without a value.
THREE_RECORDS = bytes.fromhex(
    "0000000000000000" "00000048" "ffffffff" "02" "431ea9a6" "0000" "00000002"
    "0000018bcfe56800" "0000018bcfe56814"
    "00000000000003e8"  # producer id 1000
    "0003"              # producer epoch 3
    "0000002a"          # base sequence 42
    "00000003"
    "0e" "00" "00" "00" "01" "02" "61" "00"
    "0c" "00" "14" "02" "01" "01" "00"
    "0e" "00" "28" "04" "01" "02" "63" "00"
)  # fmt: skip

# Version 1, crc32c, one entry: producer 1000, epoch 3, last sequence 44, last offset 2, offset delta 2,
# timestamp, coordinator epoch -1, no transaction.
SNAPSHOT = bytes.fromhex(
    "0001" "d63c2817" "00000001"
    "00000000000003e8" "0003" "0000002c" "0000000000000002" "00000002" "0000018bcfe56814"
    "ffffffff" "ffffffffffffffff"
)  # fmt: skip

TOPIC_ID = UUID("7d6a1f3c-9a1b-4c8e-8f3e-2b1a0c9d8e7f")


def test_one_record() -> None:
    record = Record(0, 1_700_000_000_000, b"k", b"value", (("a", b"b"),))
    assert build_batch([record]).hex() == ONE_RECORD.hex()
    check_batch(ONE_RECORD)
    assert list(iter_records(ONE_RECORD)) == [record]


def test_three_records_of_an_idempotent_producer() -> None:
    start = 1_700_000_000_000
    records = [
        Record(0, start, None, b"a"),
        Record(1, start + 10, None, None),
        Record(2, start + 20, None, b"c"),
    ]
    built = build_batch(records, producer_id=1000, producer_epoch=3, base_sequence=42)
    assert built.hex() == THREE_RECORDS.hex()
    check_batch(THREE_RECORDS)
    assert list(iter_records(THREE_RECORDS)) == records


def test_what_lies_in_the_log_is_what_came_with_the_stamp() -> None:
    disk = MemoryDisk()
    log = open_log(disk, topic_id=TOPIC_ID)
    log.append(THREE_RECORDS, leader_epoch=7, now_ms=NOW_MS)
    log.append(ONE_RECORD, leader_epoch=7, now_ms=NOW_MS)
    assert bytes(disk.files[f"{FOLDER}/{0:020d}.log"].data) == (
        bytes(8) + THREE_RECORDS[8:12] + b"\0\0\0\7" + THREE_RECORDS[16:]
        + b"\0\0\0\0\0\0\0\3" + ONE_RECORD[8:12] + b"\0\0\0\7" + ONE_RECORD[16:]
    )  # fmt: skip
    assert disk.files[f"{FOLDER}/partition.metadata"].data == b"version: 0\ntopic_id: fWofPJobTI6PPisaDJ2Ofw"


def test_the_files_of_a_closed_log() -> None:
    disk = MemoryDisk()
    log = open_log(disk, LogConfig(index_interval_bytes=100))
    log.append(THREE_RECORDS, leader_epoch=7, now_ms=NOW_MS)
    snapshot_only = open_log_copy_with_one_batch()
    assert bytes(snapshot_only.files[f"{FOLDER}/{3:020d}.snapshot"].data).hex() == SNAPSHOT.hex()
    for number in range(4):
        append(log, "x" * 100, at_ms=1_700_000_000_100 + number, epoch=8)
    sizes = [segment.size for segment in log.segments]
    log.close()
    size = (sizes[0] - len(THREE_RECORDS)) // 4
    # An entry once more than 100 bytes lie behind the last one, and the largest time at close.
    positions = [len(THREE_RECORDS) + size * number for number in range(4)]
    assert bytes(disk.files[f"{FOLDER}/{0:020d}.index"].data) == b"".join(
        struct.pack(">ii", 4 + number, positions[1 + number]) for number in range(3)
    )
    assert bytes(disk.files[f"{FOLDER}/{0:020d}.timeindex"].data) == b"".join(
        struct.pack(">qi", 1_700_000_000_101 + number, 4 + number) for number in range(3)
    )
    assert disk.files[f"{FOLDER}/leader-epoch-checkpoint"].data == b"0\n2\n7 0\n8 3\n"


def open_log_copy_with_one_batch() -> MemoryDisk:
    disk = MemoryDisk()
    log = open_log(disk)
    log.append(THREE_RECORDS, leader_epoch=7, now_ms=NOW_MS)
    log.close()
    return disk


def test_a_snapshot() -> None:
    [entry] = decode_snapshot(SNAPSHOT)
    assert (entry.producer_id, entry.epoch, entry.last_sequence) == (1000, 3, 44)
    assert (entry.batches[0].first_sequence, entry.batches[0].first_offset) == (42, 0)
    assert (entry.last_timestamp_ms, entry.coordinator_epoch, entry.txn_first_offset) == (
        1_700_000_000_020,
        -1,
        -1,
    )


def stamped(batch: bytes, offset: int, epoch: int) -> bytes:
    return struct.pack(">q", offset) + batch[8:12] + struct.pack(">i", epoch) + batch[16:]


def kafkas_folder(preallocated: int) -> tuple[MemoryDisk, list[Record], int]:
    """Two segments with a transaction and a compressed batch; the active one has preallocated indexes."""
    at_ms = 1_700_000_000_000
    marker = Record(0, at_ms + 9, b"\0\0\0\1", b"\0\0\0\0\0\4")
    transactional = {"producer_id": 1000, "producer_epoch": 3, "transactional": True}
    batches = [
        stamped(build_batch([Record(0, at_ms, b"k", b"0")] * 3, compression=2), 0, 0),
        stamped(build_batch([Record(0, at_ms + 5, b"k", b"1")], base_sequence=0, **transactional), 3, 0),
        stamped(build_batch([marker], control=True, **transactional), 4, 1),
    ]  # fmt: skip
    tail = [stamped(build_batch([Record(0, at_ms + 20 + n, b"k", b"2")]), 5 + n, 2) for n in range(3)]
    disk = MemoryDisk()
    disk.make_dirs(FOLDER)

    def write(name: str, data: bytes) -> None:
        disk.open(f"{FOLDER}/{name}", create=True).append([data])

    write(f"{0:020d}.log", b"".join(batches))
    write(f"{0:020d}.index", struct.pack(">ii", 3, len(batches[0])))
    write(f"{0:020d}.timeindex", struct.pack(">qiqi", at_ms + 5, 3, at_ms + 9, 4))
    write(f"{0:020d}.txnindex", b"")
    write(f"{5:020d}.log", b"".join(tail))
    write(f"{5:020d}.index", struct.pack(">ii", 1, len(tail[0])) + bytes(preallocated))
    write(f"{5:020d}.timeindex", struct.pack(">qiqi", at_ms + 21, 1, at_ms + 22, 2) + bytes(preallocated))
    write("leader-epoch-checkpoint", b"0\n3\n0 0\n1 4\n2 5\n")
    write("partition.metadata", b"version: 0\ntopic_id: fWofPJobTI6PPisaDJ2Ofw")
    records = [record for batch in (*batches, *tail) for record in iter_records(batch)]
    return disk, records, 8


@pytest.mark.parametrize("clean", [True, False])
@pytest.mark.parametrize("preallocated", [0, 10 * 1024])
def test_a_folder_that_kafka_wrote(clean: bool, preallocated: int) -> None:
    disk, records, end = kafkas_folder(preallocated)
    log = open_log(disk, clean=clean, recovery_point=end if clean else 5, topic_id=TOPIC_ID)
    assert log.log_end_offset == end
    assert read_all(log) == records
    assert log.epochs.entries == [(0, 0), (1, 4), (2, 5)]
    found = newest_of(log)
    assert found is not None and found[:2] == (1_700_000_000_022, 7)
    if not clean:
        # Without a snapshot of Kafka's the state comes from the batches: the transaction is over.
        [entry] = list(log.producers)
        assert (entry.epoch, entry.coordinator_epoch, entry.txn_first_offset) == (3, 4, -1)
    append(log, "ours", at_ms=NOW_MS, epoch=3)
    log = reopen_clean(disk, log)
    assert read_all(log)[:-1] == records
    assert read_all(log)[-1].value == b"ours"


def test_a_kafka_crash_leaves_preallocated_space_in_the_log_itself() -> None:
    disk, records, end = kafkas_folder(10_000)
    disk.files[f"{FOLDER}/{5:020d}.log"].data += bytes(1 << 20)
    log = open_log(disk, recovery_point=5)
    assert (log.log_end_offset, read_all(log)) == (end, records)


def test_a_folder_of_another_topic_is_refused() -> None:
    disk, _, end = kafkas_folder(0)
    with pytest.raises(Exception, match="belongs to topic"):
        open_log(disk, clean=True, recovery_point=end, topic_id=UUID(int=1))
