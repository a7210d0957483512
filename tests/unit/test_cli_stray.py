"""`ottla log stray`: folders that were set aside are shown, adopted and removed, and nothing else is."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from log_support import append, values

from ottla.cli.app import run
from ottla.cli.errors import CliError, ExitCode
from ottla.config import BrokerConfig
from ottla.env.clock import SystemClock
from ottla.env.disk import RealDisk
from ottla.log.log import Log
from ottla.log.manager import LogManager
from ottla.log.settings import LogConfig
from ottla.text import id_text
from ottla.types import TopicPartition

OLD, NEW = UUID(int=1), UUID(int=2)
WHERE = TopicPartition("orders", 3)


def broker(
    data: Path,
    topic_id: UUID | None,
    *records: str,
    where: TopicPartition = WHERE,
    start: int = 0,
    epoch: int = 0,
) -> list[bytes | None]:
    """A broker that knows one topic, or none, takes records and stops in order; what it had before."""

    async def go() -> list[bytes | None]:
        disk, clock = RealDisk(), SystemClock()
        logs = LogManager(disk, str(data), BrokerConfig({}), clock, node_id=1)
        await logs.start()
        log: Log | None = None
        found: list[bytes | None] = []
        if topic_id is not None:
            log = logs.get_or_create(where, topic_id, LogConfig(segment_bytes=200), clock.now_ms())
            found = values(log)
            for record in records:
                append(log, record, epoch=epoch)
            log.advance_log_start(start)
        logs.set_strays_aside({where} if log is not None else set())
        await logs.close()
        disk.close()
        return found

    return asyncio.run(go())


def strays(data: Path) -> list[str]:
    return sorted(name for name in os.listdir(data) if name.endswith("-stray"))


def ask(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    assert run(["log", "stray", *arguments, "--json"]) == ExitCode.OK
    return json.loads(capsys.readouterr().out)


def test_the_metadata_was_lost_and_the_records_come_back(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broker(tmp_path, OLD, *"abcdefgh", start=2, epoch=4)
    broker(tmp_path, None)
    [folder] = strays(tmp_path)
    size = sum(path.stat().st_size for path in (tmp_path / folder).iterdir() if path.name[0] == "0")
    [shown] = ask(capsys, "list", str(tmp_path))
    assert shown == {
        "folder": folder, "topic": "orders", "partition": 3, "topic_id": id_text(OLD),
        "start": 2, "end": 8, "epoch": 4, "bytes": size,
    }  # fmt: skip
    # The topic is made again, with another id; nobody has written to it yet.
    assert broker(tmp_path, NEW) == []
    assert strays(tmp_path) == [folder]
    assert ask(capsys, "adopt", str(tmp_path), folder) == [{"folder": folder, "result": "is orders-3 now"}]
    assert broker(tmp_path, NEW) == [b"c", b"d", b"e", b"f", b"g", b"h"]
    assert strays(tmp_path) == [] and ask(capsys, "list", str(tmp_path)) == []
    # And they stay: what was in its place has gone, the checkpoints are its own.
    assert broker(tmp_path, NEW, "new", epoch=4)[-1] == b"h"
    assert broker(tmp_path, NEW)[-1] == b"new"
    assert [name for name in os.listdir(tmp_path) if name.endswith("-delete")] == []


def test_a_log_with_records_is_not_replaced_unless_that_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broker(tmp_path, OLD, "old")
    broker(tmp_path, NEW, "new")
    [folder] = strays(tmp_path)
    with pytest.raises(CliError, match=f"orders-3, of topic id {NEW}, holds records: with --replace"):
        run(["log", "stray", "adopt", str(tmp_path), folder])
    [done] = ask(capsys, "adopt", str(tmp_path), f"{tmp_path}/{folder}/", "--replace")
    [other] = strays(tmp_path)
    assert done["result"] == f"is orders-3 now; what was there is {other}"
    assert broker(tmp_path, NEW) == [b"old"]
    ask(capsys, "adopt", str(tmp_path), other, "--replace")
    assert broker(tmp_path, NEW) == [b"new"]


def test_nothing_is_adopted_while_the_broker_runs(tmp_path: Path) -> None:
    broker(tmp_path, OLD, "a")
    broker(tmp_path, None)
    [folder] = strays(tmp_path)
    lock = RealDisk().lock(str(tmp_path / ".lock"))
    with pytest.raises(CliError, match="is in use by a broker: stop it first"):
        run(["log", "stray", "adopt", str(tmp_path), folder])
    lock.release()
    assert run(["log", "stray", "adopt", str(tmp_path), folder]) == ExitCode.OK
    assert broker(tmp_path, OLD) == [b"a"]


def test_what_is_no_stray_is_not_adopted(tmp_path: Path) -> None:
    broker(tmp_path, OLD, "a")
    for name in ("orders-3", "nothing", f"orders-3.{'0' * 32}-stray", f"orders-3.{'0' * 32}-delete"):
        with pytest.raises(CliError, match="is no folder that was set aside") as caught:
            run(["log", "stray", "adopt", str(tmp_path), name])
        assert caught.value.code is ExitCode.NOT_FOUND
    broker(tmp_path, None)
    [folder] = strays(tmp_path)
    (tmp_path / "orders-3").write_text("a file")
    with pytest.raises(CliError, match="orders-3 is a file: move it away"):
        run(["log", "stray", "adopt", str(tmp_path), folder])
    (tmp_path / "orders-3").unlink()
    (tmp_path / "orders-3").mkdir()
    with pytest.raises(CliError, match="does not tell its topic's id"):
        run(["log", "stray", "adopt", str(tmp_path), folder])
    assert strays(tmp_path) == [folder]


def test_a_long_name_is_adopted_in_full(tmp_path: Path) -> None:
    where = TopicPartition("t" * 249, 0)
    broker(tmp_path, OLD, "a", where=where)
    broker(tmp_path, None)
    [folder] = strays(tmp_path)
    assert run(["log", "stray", "adopt", str(tmp_path), folder]) == ExitCode.OK
    assert broker(tmp_path, OLD, where=where) == [b"a"]


def test_removing_needs_a_wish(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    broker(tmp_path, OLD, "a")
    broker(tmp_path, NEW, "b")
    broker(tmp_path, None)
    folders = strays(tmp_path)
    assert len(folders) == 2
    with pytest.raises(CliError, match="give --yes") as caught:
        run(["log", "stray", "delete", str(tmp_path), folders[0]])
    assert caught.value.code is ExitCode.USAGE
    for arguments in ([], [folders[0], "--all"]):
        with pytest.raises(CliError, match="name folders, or give --all"):
            run(["log", "stray", "delete", str(tmp_path), *arguments, "--yes"])
    with pytest.raises(CliError, match="photos-to-delete is no folder that was set aside"):
        run(["log", "stray", "delete", str(tmp_path), folders[0], "photos-to-delete", "--yes"])
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("typer.confirm", lambda *_, **__: False)
    with pytest.raises(CliError, match="nothing was removed"):
        run(["log", "stray", "delete", str(tmp_path), folders[0]])
    assert strays(tmp_path) == folders
    assert ask(capsys, "delete", str(tmp_path), folders[0], "--yes") == [
        {"folder": folders[0], "result": "deleted"}
    ]
    assert strays(tmp_path) == folders[1:]
    assert run(["log", "stray", "delete", str(tmp_path), "--all", "--yes"]) == ExitCode.OK
    assert strays(tmp_path) == []
    assert [name for name in os.listdir(tmp_path) if "orders" in name] == []


def test_a_table_for_people(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    broker(tmp_path, OLD, "a")
    broker(tmp_path, None)
    run(["log", "stray", "list", str(tmp_path)])
    heading, row = capsys.readouterr().out.splitlines()
    assert heading.split() == [
        "FOLDER",
        "TOPIC",
        "PARTITION",
        "TOPIC",
        "ID",
        "START",
        "END",
        "EPOCH",
        "BYTES",
    ]
    assert row.split()[0] == strays(tmp_path)[0] and row.split()[4:7] == ["0", "1", "0"]


def test_damage_is_no_reason_to_fail(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    broker(tmp_path, OLD, *"abc")
    broker(tmp_path, None)
    [folder] = strays(tmp_path)
    (tmp_path / folder / "partition.metadata").write_bytes(b"\0" * 20)
    (tmp_path / folder / f"{0:020d}.log").write_bytes(b"\xff" * 1000)
    (tmp_path / folder / "log-start-offset-checkpoint").write_bytes(b"x")
    [shown] = ask(capsys, "list", str(tmp_path))
    assert shown["topic_id"] is None and shown["topic"] == "orders"
