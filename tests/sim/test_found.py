"""The runs that docs/EXPLORE.md names fail as it says: each is one seed, which repeats."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ottla.explore.plan import Plan, Run
from ottla.explore.workers import Workers

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "EXPLORE.md").read_text()
COMMANDS = re.findall(r"`ottla explore (tests/sim/\w+\.py)::(\w+) --seed (\d+)`", PAGE)
ERRORS = {
    "a_rebalance_within_a_transaction": "there more than once",
    "given_up": "OutOfOrderSequenceNumber",
    "an_old_leader_is_asked_for_five_minutes": "lost",
    "a_follower_answers_a_consumer": "there more than once",
    "acknowledged_first": "lost",
    "a_timeout_ends_all_reading": "lost",
    "struck_by_everything": "lost",
}
# What the story must tell, where the error alone could have another cause.
STORIES = {"a_follower_answers_a_consumer": "OFFSET_OUT_OF_RANGE"}


def run(file: str, test: str, seed: int) -> Run:
    with Workers(str(ROOT / file), jobs=1) as workers:
        (found,) = workers.runs([Plan(test=test, seed=seed, is_told=True)])
    return found


def test_each_is_on_the_page() -> None:
    assert {test for _, test, _ in COMMANDS} == ERRORS.keys()


@pytest.mark.parametrize(("file", "test", "seed"), COMMANDS)
def test_the_seed_on_the_page_fails_as_it_says(file: str, test: str, seed: str) -> None:
    found = run(file, test, int(seed))
    assert ERRORS[test] in found.error
    assert any(STORIES.get(test, "") in line for line in found.story)


def test_an_old_leader_is_asked_again_and_again_unless_metadata_is_asked_for() -> None:
    ((file, test, seed),) = [one for one in COMMANDS if one[1] == "an_old_leader_is_asked_for_five_minutes"]
    assert any(
        re.search(r"ListOffsets to n\d: NOT_LEADER_OR_FOLLOWER, \d{2,} times", line)
        for line in run(file, test, int(seed)).story
    )
    assert not run(file, "metadata_is_asked_for_each_five_seconds", int(seed)).error


def test_where_a_connection_that_has_gone_is_no_error_all_is_read() -> None:
    ((file, _, seed),) = [one for one in COMMANDS if one[1] == "a_timeout_ends_all_reading"]
    assert not run(file, "no_timeout_ends_reading", int(seed)).error
