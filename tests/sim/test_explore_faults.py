"""What strikes users' programs: when they are killed, what of their files stays, in which order tasks run."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from ottla.explore.exploring import runs
from ottla.explore.programs.directory import Directory

LEDGER = Path(__file__).with_name("ledger.py")


def failures(test: str, seeds: int) -> list[str]:
    return [run.error for run in runs(f"{LEDGER}::{test}", 1, seeds) if run.error]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where runs have their directories: those of other tests are elsewhere."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize(
    "test", ["keeps_a_file", "has_no_file", "in_order", "asks_for_its_directory", "a_task_ends_the_program"]
)
def test_what_programs_of_one_process_each_do_is_theirs(test: str) -> None:
    assert failures(test, 6) == []


def test_a_lost_disk_loses_files_and_a_run_leaves_none_behind(folder: Path) -> None:
    found = failures("loses_a_file", 6) + failures("asks_for_its_directory", 1)
    assert found
    assert all("starts" in error for error in found)
    assert not list(folder.iterdir())


def test_a_run_finds_no_file_of_a_process_that_was_killed() -> None:
    left = Directory("keeper").path
    (left / "file").touch()
    again = Directory("keeper").path
    assert again == left and not list(again.iterdir())


def test_any_order_of_callbacks_can_be_had() -> None:
    assert failures("in_any_order", 6)


def test_a_program_is_killed_where_it_has_work_to_do() -> None:
    """Work that takes no time is interrupted all the same, since most of a program's steps are there."""
    assert len(failures("is_never_killed_at_work", 10)) >= 2


@pytest.mark.parametrize("name", ["", "..", "a/b", "/tmp"])
def test_a_directory_has_a_name_of_its_own(name: str) -> None:
    with pytest.raises(ValueError, match="no name of a directory"):
        Directory(name)
