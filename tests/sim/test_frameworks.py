"""A FastStream application under virtual time, as its users write it."""

from __future__ import annotations

from pathlib import Path

import pytest

from ottla.explore.exploring import Run, runs

HERE = Path(__file__).parent


def explored(file: str, test: str, first: int, last: int) -> list[Run]:
    return list(runs(f"{HERE / file}::{test}", first, last))


def test_an_application_on_faststream_processes_each_message_at_least_once() -> None:
    for run in explored("stream.py", "acknowledged", 1, 2):
        assert not run.error, f"seed {run.seed}: {run.error}"


@pytest.mark.parametrize(
    ("test", "seed"), [("acknowledged_last", 6), ("workers_struck", 1), ("batches_struck", 1)]
)
def test_what_the_page_says_passes_loses_nothing(test: str, seed: int) -> None:
    (run,) = explored("stream_apps.py", test, seed, seed)
    assert not run.error, run.error
