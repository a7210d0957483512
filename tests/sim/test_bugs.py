"""Twelve programs with bugs that people write: each is found, and its mended twin passes.

The programs are in ``bugs``, one file for each. A file's docstring says what people believe, what happens,
and how it is mended.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import soak
from ottla.explore.plan import Plan, Run
from ottla.explore.workers import Workers

FOLDER = Path(__file__).with_name("bugs")
# What the failure says where the bug is found.
FOUND = {
    "autocommit_of_threads": "lost",
    "commit_by_timer": "committed before their results were sent",
    "commit_first": "lost",
    "dead_letter_late": "lost",
    "forgotten_buffer": "lost",
    "latest_of_a_new_partition": "lost",
    "not_flushed": "lost",
    "offsets_in_memory": "lost",
    "reads_aborted": "of no source",
    "resend_after_timeout": "there more than once",
    "retry_reorders": "out of order",
    "shared_transactional_id": "NotSettled: after 60 s",
}
# A bug is found within so many seeds, and so much of the CPU.
SEEDS_MAX = 500
FOUND_S = 60.0


def test_each_program_is_tried() -> None:
    assert {path.stem for path in FOLDER.glob("*.py")} - {"clients"} == FOUND.keys()


@pytest.mark.parametrize("name", FOUND)
def test_the_bug_is_found_and_its_mended_twin_passes(name: str) -> None:
    # One process for both: to begin takes as long as many runs.
    with Workers(f"{FOLDER / name}.py", jobs=1) as workers:
        *passed, found = until_error(workers, "bug", SEEDS_MAX)
        assert FOUND[name] in found.error, found.error or f"{SEEDS_MAX} seeds have not found it"
        assert sum(run.cpu_s for run in (*passed, found)) < FOUND_S
        for run in until_error(workers, "mended", soak.amount(10, 2_000)):
            assert not run.error, f"seed {run.seed}: {run.error}\n{run.traceback}"


def until_error(workers: Workers, test: str, seeds: int) -> Iterator[Run]:
    for run in workers.runs(Plan(test=test, seed=seed) for seed in range(1, seeds + 1)):
        yield run
        if run.error:
            return
