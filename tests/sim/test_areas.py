"""aiokafka under virtual time: all that it offers works while nodes and programs fail, and seeds repeat."""

from __future__ import annotations

from pathlib import Path

import pytest

from ottla.explore.exploring import Run, runs

AREAS = Path(__file__).with_name("areas.py")


def explored(test: str, first: int, last: int) -> list[Run]:
    return list(runs(f"{AREAS}::{test}", first, last))


@pytest.mark.parametrize(
    ("test", "seeds"),
    [
        ("all_of_the_producer", 1),
        ("members_of_groups", 1),
        ("partitions_by_hand", 1),
        ("read_work_and_write_in_transactions", 1),
        ("zombies_are_fenced", 1),
        ("all_of_the_administrator", 1),
        ("topics_are_made_under_faults", 1),
    ],
)
def test_each_area_holds_and_its_last_seed_repeats_in_another_process(test: str, seeds: int) -> None:
    found = explored(test, 1, seeds)
    for run in found:
        assert not run.error, f"seed {run.seed}: {run.error}\n{run.traceback}"
    assert explored(test, seeds, seeds) == found[-1:]
