"""A FastStream application under virtual time, as its users write it."""

from __future__ import annotations

from pathlib import Path

from ottla.explore.exploring import Run, runs

HERE = Path(__file__).parent


def explored(file: str, test: str, first: int, last: int) -> list[Run]:
    return list(runs(f"{HERE / file}::{test}", first, last))


def test_an_application_on_faststream_processes_each_message_at_least_once() -> None:
    for run in explored("stream.py", "acknowledged", 1, 2):
        assert not run.error, f"seed {run.seed}: {run.error}"
