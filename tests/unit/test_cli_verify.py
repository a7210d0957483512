"""`ottla log verify`: every kind of damage is found, what follows from the logs is mended."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from test_cli_stray import OLD, broker

from ottla.cli.app import run
from ottla.cli.errors import CliError, ExitCode
from ottla.env.disk import RealDisk

RECORDS = tuple(f"{number:04d}" + "x" * 60 for number in range(60))
FOLDER = "orders-3"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A directory of a broker that has stopped, a log of several segments in it."""
    broker(tmp_path, OLD, *RECORDS)
    assert len(list((tmp_path / FOLDER).glob("*.log"))) > 5
    return tmp_path


def ask(capsys: pytest.CaptureFixture[str], path: Path, *options: str, code: int = ExitCode.OK) -> Any:
    assert run(["log", "verify", str(path), "--json", *options]) == code
    return json.loads(capsys.readouterr().out)


def logs(data: Path) -> list[Path]:
    return sorted((data / FOLDER).glob("*.log"))


def flip(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


def test_what_is_sound_is_said_to_be(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path in (data, data / FOLDER):
        assert ask(capsys, path) == {
            "folders": 1,
            "batches": len(RECORDS),
            "bytes": sum(one.stat().st_size for one in logs(data)),
            "problems": [],
        }
    assert run(["log", "verify", str(data)]) == ExitCode.OK
    assert capsys.readouterr().out == ""


def wrong_index(data: Path) -> None:
    path = logs(data)[1].with_suffix(".index")
    path.write_bytes(b"\0\0\0\1\0\0\0\7")


def wrong_time_index(data: Path) -> None:
    path = logs(data)[1].with_suffix(".timeindex")
    flip(path, 5)


def short_time_index(data: Path) -> None:
    logs(data)[1].with_suffix(".timeindex").write_bytes(b"")


def missing_index(data: Path) -> None:
    logs(data)[2].with_suffix(".index").unlink()


def wrong_epochs(data: Path) -> None:
    (data / FOLDER / "leader-epoch-checkpoint").write_bytes(b"0\n1\n9 0\n")


def missing_epochs(data: Path) -> None:
    (data / FOLDER / "leader-epoch-checkpoint").unlink()


def wrong_snapshot(data: Path) -> None:
    path = sorted((data / FOLDER).glob("*.snapshot"))[-1]
    flip(path, 3)


@pytest.mark.parametrize(
    "damage",
    [
        wrong_index,
        wrong_time_index,
        short_time_index,
        missing_index,
        wrong_epochs,
        missing_epochs,
        wrong_snapshot,
    ],
)
def test_what_follows_from_the_log_is_mended(
    data: Path, capsys: pytest.CaptureFixture[str], damage: Callable[[Path], None]
) -> None:
    damage(data)
    [problem] = ask(capsys, data, code=ExitCode.FAILED)["problems"]
    assert (problem["remedy"], problem["repaired"]) == ("repair", False)
    before = {path: path.read_bytes() for path in logs(data)}
    [again] = ask(capsys, data, "--repair")["problems"]
    assert again == problem | {"repaired": True}
    assert ask(capsys, data)["problems"] == []
    assert {path: path.read_bytes() for path in logs(data)} == before
    assert broker(data, OLD) == [record.encode() for record in RECORDS]


def test_epochs_that_are_forgotten_with_deleted_records_are_not_missed(
    data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """DeleteRecords moves the log's start into a segment, and the epochs' start with it."""
    (data / FOLDER / "leader-epoch-checkpoint").write_bytes(b"0\n1\n0 1\n")
    topic, _, partition = FOLDER.rpartition("-")
    starts = data / "log-start-offset-checkpoint"
    starts.write_text(f"0\n1\n{topic} {partition} 1\n")
    assert ask(capsys, data)["problems"] == []
    starts.unlink()
    (problem,) = ask(capsys, data, code=ExitCode.FAILED)["problems"]
    assert problem["problem"] == "offset 0 is of epoch 0, not -1"


def test_a_damaged_batch_is_found_and_stays(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    second = logs(data)[1]
    flip(second, 70)
    found = ask(capsys, data, "--repair", code=ExitCode.FAILED)
    problem, *others = found["problems"]
    # What led to it is built again without it.
    assert all(one["repaired"] for one in others)
    assert problem["file"] == str(second) and problem["position"] == 0
    assert problem["remedy"] == "none" and "no whole batches up to position" in problem["problem"]
    assert found["batches"] == len(RECORDS) - 1


def test_a_missing_segment_and_a_torn_tail(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    logs(data)[1].unlink()
    last = logs(data)[-1]
    os.truncate(last, last.stat().st_size - 5)
    problems = ask(capsys, data, code=ExitCode.FAILED)["problems"]
    assert any("are missing before it" in one["problem"] for one in problems)
    assert any(one["file"] == str(last) and one["remedy"] == "start" for one in problems)
    run(["log", "verify", str(data)])
    heading, *rows = capsys.readouterr().out.splitlines()
    assert heading.split() == ["FILE", "POSITION", "PROBLEM", "WHAT", "HELPS"]
    assert any(row.endswith("the next start mends it, or cuts off what was not synced") for row in rows)


def test_damaged_checkpoints_and_topic_ids_are_told(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (data / "recovery-point-offset-checkpoint").write_bytes(b"garbage")
    (data / FOLDER / "partition.metadata").write_bytes(b"\0" * 40)
    problems = ask(capsys, data, code=ExitCode.FAILED)["problems"]
    assert [(os.path.basename(one["file"]), one["remedy"]) for one in problems] == [
        ("recovery-point-offset-checkpoint", "start"),
        ("partition.metadata", "start"),
    ]


def test_it_does_not_run_beside_a_broker(data: Path) -> None:
    lock = RealDisk().lock(str(data / ".lock"))
    for path in (data, data / FOLDER):
        with pytest.raises(CliError, match="is in use by a broker: stop it first"):
            run(["log", "verify", str(path)])
    lock.release()


@pytest.mark.parametrize("command", [["verify"], ["stray", "list"], ["stray", "adopt"], ["stray", "delete"]])
def test_what_is_no_data_directory_does_not_pass_for_a_sound_one(tmp_path: Path, command: list[str]) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "file").write_text("")
    folders = [f"orders-3.{'0' * 32}-stray"] if command[-1] in ("adopt", "delete") else []
    for path, words in (
        (tmp_path / "missing", "no such directory"),
        (tmp_path / "file", "it is not a directory"),
        (tmp_path, "is no broker's data directory: it has neither"),
    ):
        with pytest.raises(CliError, match=words) as caught:
            run(["log", *command, str(path), *folders])
        assert caught.value.code is ExitCode.NOT_FOUND
    # Nothing is left behind, a lock for example.
    assert sorted(os.listdir(tmp_path)) == ["file", "photos"]


def test_a_data_directory_may_be_named_as_a_partition_s_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "node-1"
    data.mkdir()
    broker(data, OLD, *RECORDS)
    (data / "meta.properties").write_text("version=1\n")
    assert ask(capsys, data)["batches"] == len(RECORDS)
    lock = RealDisk().lock(str(data / ".lock"))
    with pytest.raises(CliError, match="is in use by a broker"):
        run(["log", "verify", str(data)])
    lock.release()
    # The folder of a cluster on one machine is none of a broker.
    with pytest.raises(CliError, match="is no broker's data directory"):
        run(["log", "verify", str(tmp_path)])
    assert os.listdir(tmp_path) == ["node-1"]


def test_what_was_set_aside_is_read_too(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    broker(data, None)
    assert ask(capsys, data)["batches"] == len(RECORDS)


def test_partitions_of_other_nodes_in_the_directory_are_told_of(
    data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where several processes share it, each has its own."""
    for node_id in (2, 3):
        (data / "nodes" / str(node_id) / FOLDER).mkdir(parents=True)
    for command in (["verify"], ["stray", "list"]):
        assert run(["log", *command, str(data)]) in (ExitCode.OK, None)
        said = capsys.readouterr().err
        for node_id in (2, 3):
            assert f"look into {data}/nodes/{node_id} as well" in said
    assert run(["log", "verify", str(data / FOLDER)]) == ExitCode.OK
    assert "nodes" not in capsys.readouterr().err
