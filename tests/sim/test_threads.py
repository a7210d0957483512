"""Programs that wait in threads, under virtual time: what Python's library has for it, and kafka-python."""

from __future__ import annotations

from pathlib import Path

import pytest

from ottla.explore.exploring import Run, runs

HERE = Path(__file__).parent


def explored(file: str, test: str, first: int = 1, last: int = 1) -> list[Run]:
    return list(runs(f"{HERE / file}::{test}", first, last))


def test_threads_wait_in_virtual_time_as_python_has_it() -> None:
    (run,) = explored("waiting.py", "all_of_it")
    assert not run.error, run.traceback


def test_a_program_in_threads_is_killed_and_paused_where_it_waits() -> None:
    (run,) = explored("waiting.py", "killed_and_paused")
    assert not run.error, run.traceback


@pytest.mark.parametrize(
    ("test", "remedy"),
    [
        ("a_lock_in_a_coroutine", "asyncio.to_thread"),
        ("a_thread_in_a_coroutine", "asyncio.to_thread"),
        ("a_queue_in_a_coroutine", "asyncio.to_thread"),
        ("a_sleep_in_a_coroutine", "asyncio.sleep"),
        ("a_connection_by_name_in_a_coroutine", "asyncio's streams"),
    ],
)
def test_a_coroutine_that_would_hold_the_loop_is_refused_with_its_line(test: str, remedy: str) -> None:
    (run,) = explored("waiting.py", test)
    assert run.error.startswith(f"NotSimulated: {HERE / 'waiting.py'}:")
    assert remedy in run.error


def test_a_bug_of_a_program_on_kafka_python_is_found_and_its_seed_repeats() -> None:
    found = explored("blocking.py", "commit_first", 1, 4)
    assert any(run.error.startswith("Broken: ") and "lost" in run.error for run in found)
    assert explored("blocking.py", "commit_first", 4, 4) == found[3:]


def test_its_mended_twin_passes() -> None:
    for run in explored("blocking.py", "commit_last", 1, 2):
        assert not run.error, f"seed {run.seed}: {run.error}"


def test_idle_threads_and_tasks_of_a_library_are_each_programs_own() -> None:
    (run,) = explored("apart.py", "threads_and_tasks_of_each", 2, 2)
    assert not run.error, run.traceback
