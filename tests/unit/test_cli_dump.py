"""`ottla log dump`: every kind of file read, and the first position that makes no sense named."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest
from crc32c import crc32c
from hypothesis import given
from hypothesis import strategies as st

from ottla.cli import dump
from ottla.cli.app import run
from ottla.cli.dump import Corrupt, RecordView
from ottla.cli.errors import CliError, ExitCode
from ottla.coordinators.groups import schemas
from ottla.coordinators.transactions import schemas as transaction_schemas
from ottla.coordinators.transactions.metadata import TransactionMetadata
from ottla.coordinators.transactions.schemas import TransactionRecord
from ottla.coordinators.transactions.states import ONGOING
from ottla.log.markers import EndMarker, build_marker
from ottla.log.transaction_index import AbortedTransaction, TransactionIndex
from ottla.types import Record, TopicPartition
from ottla.wire.records import build_batch

DAY_MS = 1_700_000_000_000
RECORDS = [
    Record(0, DAY_MS, b"k", b"v", (("h", b"1"), ("n", None))),
    Record(1, DAY_MS + 1, None, b"\xff\xfe", ()),
    Record(2, DAY_MS + 2, b"k2", None, ()),
]


def segment(*bases: int, compression: int = 0) -> bytes:
    return b"".join(
        build_batch(RECORDS, base_offset=base, leader_epoch=4, compression=compression) for base in bases
    )


def entries(
    kind: str, data: bytes, base_offset: int = 0, view: RecordView | None = None
) -> list[dict[str, Any]]:
    return list(dump.READERS[kind](data, base_offset, view))


def dump_file(path: Path, *options: str) -> int:
    return run(["log", "dump", str(path), *options])


@pytest.mark.parametrize("compression", range(5))
def test_batches_and_their_records(compression: int) -> None:
    first, second = entries("log", segment(10, 13, compression=compression), 10, view=dump.plain_record)
    assert (first["base_offset"], first["last_offset"], first["count"]) == (10, 12, 3)
    assert (second["base_offset"], second["position"]) == (13, first["size"])
    assert first["codec"] == dump.CODECS[compression]
    assert first["leader_epoch"] == 4
    assert first["max_timestamp_ms"] == DAY_MS + 2
    assert [record["offset"] for record in second["records"]] == [13, 14, 15]
    assert first["records"][0]["headers"] == [{"key": "h", "value": "1"}, {"key": "n", "value": None}]
    assert first["records"][1]["value"] == {"base64": "//4="}
    assert first["records"][2]["value"] is None


def test_markers_of_transactions_are_named() -> None:
    marker = Record(0, DAY_MS, struct.pack(">hh", 0, 1), struct.pack(">hi", 0, 7))
    data = build_batch([marker], control=True, transactional=True, producer_id=5, producer_epoch=1)
    (entry,) = entries("log", data, view=dump.plain_record)
    assert entry["control"]
    assert entry["records"][0]["control"] == "commit"
    assert entry["records"][0]["coordinator_epoch"] == 7


def test_markers_tell_their_coordinators_epoch() -> None:
    for commits, kind in ((True, "commit"), (False, "abort")):
        (entry,) = entries("log", build_marker(EndMarker(commits, 12), 5, 1, DAY_MS), view=dump.plain_record)
        (record,) = entry["records"]
        assert (record["control"], record["coordinator_epoch"]) == (kind, 12)
    for key, value in ((struct.pack(">hh", 0, 2), b"\0" * 16), (struct.pack(">hh", 0, 1), b"\0")):
        assert "coordinator_epoch" not in dump.control_record(Record(0, DAY_MS, key, value, ()))


def test_records_of_transactions_say_what_they_mean(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    partitions = frozenset({TopicPartition("orders", 2), TopicPartition("orders", 1)})
    value = TransactionMetadata(
        producer_id=5,
        previous_producer_id=5,
        next_producer_id=-1,
        producer_epoch=3,
        last_producer_epoch=-1,
        timeout_ms=60_000,
        state=ONGOING,
        partitions=partitions,
        start_ms=DAY_MS,
        last_update_ms=DAY_MS + 1,
        client_version=2,
    )
    pairs = [
        transaction_schemas.encode_record(TransactionRecord("t", value)),
        transaction_schemas.encode_record(TransactionRecord("gone", None)),
        (b"\0\x07", b"later"),
        (b"\0\0", b"junk"),
    ]
    folder = tmp_path / "__transaction_state-49"
    folder.mkdir()
    path = folder / f"{0:020}.log"
    path.write_bytes(build_batch([Record(i, DAY_MS, *pair, ()) for i, pair in enumerate(pairs)]))
    assert dump_file(path, "--records", "--json") == ExitCode.OK
    open_, removed, unknown, broken = json.loads(capsys.readouterr().out)["records"]
    assert (open_["kind"], open_["transactional_id"], open_["version"]) == ("transaction", "t", 1)
    assert open_["value"].items() >= {"producer_id": 5, "state": "Ongoing", "start_ms": DAY_MS}.items()
    assert open_["value"]["partitions"] == [
        {"topic": "orders", "partition": 1},
        {"topic": "orders", "partition": 2},
    ]
    assert (removed["transactional_id"], removed["value"]) == ("gone", None)
    assert (unknown["kind"], unknown["key_version"]) == ("unknown", 7)
    assert broken["error"]
    assert broken["value"] == "junk"
    assert dump_file(path, "--records") == ExitCode.OK
    assert 'kind=transaction transactional_id=t value={"producer_id": 5' in capsys.readouterr().out


def test_what_was_aborted_is_read_as_it_is_written() -> None:
    index = TransactionIndex()
    for entry in ((5, 10, 20, 10), (6, 15, 30, 31)):
        index.append(AbortedTransaction(*entry))
    assert entries("txnindex", index.encode()) == [{"version": 0, **entry._asdict()} for entry in index]


def test_records_of_groups_say_what_they_mean(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    committed = schemas.OffsetRecord("g", "orders", 2, schemas.CommittedOffset(41, 3, "note", DAY_MS))
    member = schemas.MemberMetadata("m", None, "client", "/127.0.0.1", 300_000, 45_000, b"\xff", b"plan")
    generation = schemas.GroupMetadata("consumer", 7, "range", "m", DAY_MS, (member,))
    pairs = [
        schemas.encode_record(committed),
        schemas.encode_record(schemas.GroupRecord("g", generation)),
        schemas.encode_record(schemas.GroupRecord("gone", None)),
        (b"\0\1junk", b"\0\1junk"),
    ]
    records = [Record(i, DAY_MS, key, value) for i, (key, value) in enumerate(pairs)]
    folder = tmp_path / "__consumer_offsets-12"
    folder.mkdir()
    path = folder / f"{0:020}.log"
    path.write_bytes(build_batch(records))
    assert dump_file(path, "--records", "--json") == ExitCode.OK
    offset, group, removed, broken = json.loads(capsys.readouterr().out)["records"]
    assert (offset["kind"], offset["group_id"], offset["topic"], offset["partition"]) == (
        "offset",
        "g",
        "orders",
        2,
    )
    assert offset["value"]["offset"] == 41
    assert group["value"]["generation_id"] == 7
    assert group["value"]["members"][0]["subscription"] == {"base64": "/w=="}
    assert (removed["kind"], removed["group_id"], removed["value"]) == ("group", "gone", None)
    assert broken["error"]
    assert "key" in broken
    assert dump_file(path, "--records") == ExitCode.OK
    assert 'kind=offset group_id=g topic=orders partition=2 value={"offset": 41' in capsys.readouterr().out


def test_the_batch_before_a_flipped_bit_is_still_shown() -> None:
    data = bytearray(segment(0, 3))
    size = len(data) // 2
    data[size + 70] ^= 1
    reader = dump.read_batches(bytes(data), 0, None)
    assert next(reader)["base_offset"] == 0
    with pytest.raises(Corrupt, match="checksum") as caught:
        next(reader)
    assert caught.value.position == size


@pytest.mark.parametrize("cut", [1, 60, 61, 90])
def test_a_torn_tail_is_found_where_it_begins(cut: int) -> None:
    whole = segment(0)
    reader = dump.read_batches(whole + segment(3)[:cut], 0, None)
    next(reader)
    with pytest.raises(Corrupt) as caught:
        next(reader)
    assert caught.value.position == len(whole)


def test_offsets_that_go_back_are_corrupt() -> None:
    with pytest.raises(Corrupt, match="offset 0 where at least 3 should be"):
        entries("log", segment(0, 0))
    with pytest.raises(Corrupt, match="at least 100"):
        entries("log", segment(0), 100)


def test_a_compacted_segment_has_gaps() -> None:
    assert [entry["base_offset"] for entry in entries("log", segment(0, 50, 90))] == [0, 50, 90]


def test_an_index_ends_at_its_padding() -> None:
    data = struct.pack(">iiii", 5, 100, 9, 200) + bytes(8 * 10)
    assert entries("index", data, 1000) == [
        {"offset": 1005, "position": 100},
        {"offset": 1009, "position": 200},
    ]
    assert entries("index", bytes(80), 0) == []


@pytest.mark.parametrize(
    ("data", "position"),
    [
        (struct.pack(">iiii", 5, 100, 5, 200), 8),
        (struct.pack(">iiii", 5, 100, 6, 100), 8),
        (struct.pack(">ii", -1, 0), 0),
        (struct.pack(">iii", 5, 100, 0), 8),
    ],
)
def test_an_index_that_does_not_grow_is_corrupt(data: bytes, position: int) -> None:
    with pytest.raises(Corrupt) as caught:
        entries("index", data)
    assert caught.value.position == position


def test_a_time_index() -> None:
    data = struct.pack(">qiqi", DAY_MS, 3, DAY_MS, 5) + bytes(12)
    assert entries("timeindex", data, 100) == [
        {"timestamp_ms": DAY_MS, "offset": 103},
        {"timestamp_ms": DAY_MS, "offset": 105},
    ]
    with pytest.raises(Corrupt):
        entries("timeindex", struct.pack(">qiqi", DAY_MS, 3, DAY_MS - 1, 5))


def test_a_transaction_index() -> None:
    data = struct.pack(">hqqqq", 0, 7, 1, 5, 3)
    (entry,) = entries("txnindex", data)
    assert entry["producer_id"] == 7
    assert entry["last_stable_offset"] == 3
    with pytest.raises(Corrupt, match="version 1"):
        entries("txnindex", struct.pack(">hqqqq", 1, 7, 1, 5, 3))


def snapshot(*producers: tuple[int, ...]) -> bytes:
    body = struct.pack(">i", len(producers)) + b"".join(struct.pack(">qhiqiqiq", *p) for p in producers)
    return struct.pack(">hI", 1, crc32c(body)) + body


def test_a_producer_snapshot() -> None:
    (entry,) = entries("snapshot", snapshot((9, 1, 41, 100, 2, DAY_MS, -1, -1)))
    assert (entry["producer_id"], entry["last_sequence"], entry["last_offset"]) == (9, 41, 100)
    assert entries("snapshot", snapshot()) == []


@pytest.mark.parametrize(
    "data",
    [b"", b"\0" * 9, b"\0\2" + snapshot()[2:], snapshot()[:-1] + b"\1", snapshot((1,) * 8)[:-1]],
)
def test_a_snapshot_that_does_not_add_up_is_corrupt(data: bytes) -> None:
    with pytest.raises(Corrupt):
        entries("snapshot", data)


def test_checkpoints() -> None:
    assert entries("checkpoint", b"0\n2\n0 0\n3 120\n") == [
        {"leader_epoch": 0, "start_offset": 0},
        {"leader_epoch": 3, "start_offset": 120},
    ]
    assert entries("checkpoint", b"0\n1\norders 2 77\n") == [
        {"topic": "orders", "partition": 2, "offset": 77}
    ]
    assert entries("checkpoint", b"0\n0\n") == []


@pytest.mark.parametrize(
    "data", [b"", b"1\n0\n", b"0\n2\n0 0\n", b"0\n1\nx y\n", b"0\n1\n1\n", b"0\nx\n", b"\xff\n0\n"]
)
def test_checkpoints_that_do_not_add_up_are_corrupt(data: bytes) -> None:
    with pytest.raises(Corrupt):
        entries("checkpoint", data)


@given(st.sampled_from(sorted(dump.READERS)), st.binary(max_size=300))
def test_no_bytes_do_anything_but_read_or_be_corrupt(kind: str, data: bytes) -> None:
    try:
        entries(kind, data, view=dump.plain_record)
    except Corrupt as error:
        assert 0 <= error.position <= len(data) + 2


@given(st.integers(0, 10_000), st.integers(1, 255))
def test_a_damaged_segment_is_corrupt_from_some_position_on(place: int, flip: int) -> None:
    data = bytearray(segment(0, 3, 6))
    place %= len(data)
    data[place] ^= flip
    size = len(data) // 3
    good = []
    try:
        for entry in dump.read_batches(bytes(data), 0, dump.plain_record):
            good.append(entry["base_offset"])
    except Corrupt as error:
        # An offset that is too large shows at the batch after it; the leader epoch may be anything.
        assert error.position % size == 0
        assert error.position >= place - place % size
    assert good[: place // size] == [0, 3, 6][: place // size]


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("00000000000000000000.log", "log"),
        ("00000000000000000000.log.deleted", "log"),
        ("00000000000000000000.index.cleaned", "index"),
        ("00000000000000000000.timeindex.swap", "timeindex"),
        ("00000000000000000042.snapshot", "snapshot"),
        ("leader-epoch-checkpoint", "checkpoint"),
        ("recovery-point-offset-checkpoint", "checkpoint"),
        ("meta.properties", None),
        ("log", "log"),
    ],
)
def test_the_name_says_what_a_file_is(name: str, kind: str | None) -> None:
    assert dump.kind_of(f"/some.log/{name}") == kind


def test_the_command_prints_a_line_for_each_batch_and_record(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / f"{10:020}.log"
    path.write_bytes(segment(10, 13))
    assert dump_file(path, "--records") == ExitCode.OK
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 8
    assert lines[0].startswith("position=0 size=")
    assert "base_offset=10 last_offset=12 count=3 codec=none" in lines[0]
    assert "max_timestamp=2023-11-14T22:13:20.002Z" in lines[0]
    assert lines[1] == '  offset=10 timestamp=2023-11-14T22:13:20.000Z key="k" value="v" headers=h:"1",n:null'
    assert 'value={"base64": "//4="}' in lines[2]
    assert dump_file(path, "--json") == ExitCode.OK
    assert [json.loads(line)["base_offset"] for line in capsys.readouterr().out.splitlines()] == [10, 13]


def test_the_command_names_the_corrupt_position(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / f"{0:020}.log"
    path.write_bytes(segment(0) + b"junk")
    with pytest.raises(CliError, match=f"corrupt at position {len(segment(0))}: ") as caught:
        dump_file(path)
    assert caught.value.code is ExitCode.FAILED
    assert "base_offset=0" in capsys.readouterr().out


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(CliError, match="no such file") as missing:
        dump_file(tmp_path / "x.log")
    assert missing.value.code is ExitCode.NOT_FOUND
    with pytest.raises(CliError, match="nofile: no such file") as missing:
        dump_file(tmp_path / "nofile")
    assert missing.value.code is ExitCode.NOT_FOUND
    (tmp_path / "notes.txt").write_bytes(b"")
    with pytest.raises(CliError, match="--type") as unknown:
        dump_file(tmp_path / "notes.txt")
    assert unknown.value.code is ExitCode.USAGE
    assert dump_file(tmp_path / "notes.txt", "--type", "log") == ExitCode.OK
    (tmp_path / "folder.log").mkdir()
    with pytest.raises(CliError, match="no log files") as empty:
        dump_file(tmp_path / "folder.log")
    assert empty.value.code is ExitCode.NOT_FOUND


def test_of_a_folder_the_files_of_a_log_are_taken(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("0.log", "0.index", "leader-epoch-checkpoint", "partition.metadata"):
        (tmp_path / name).write_bytes(b"0\n0\n" if name.endswith("checkpoint") else b"")
    assert dump_file(tmp_path) == ExitCode.OK
    names = [line.rpartition("/")[2] for line in capsys.readouterr().out.splitlines()]
    assert names == ["0.index:", "0.log:", "leader-epoch-checkpoint:"]
    (tmp_path / "0.index").write_bytes(b"damaged")
    assert dump_file(tmp_path, "--type", "log") == ExitCode.OK
    with pytest.raises(CliError, match=r"0\.index: corrupt"):
        dump_file(tmp_path)
