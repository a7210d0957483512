"""What docs/EXPLORE.md promises of its program, mended: how fast runs are, and what does not change them."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from ottla.explore.plan import Plan, Run
from ottla.explore.workers import Workers

PAGE = Path(__file__).parents[2] / "docs/EXPLORE.md"
TEST = "test_every_order_is_shipped"
SEEDS = (1, 2, 3)
# So many of them are run again, in other circumstances.
AGAIN = SEEDS[:2]
# Virtual seconds for each second of the CPU's, on one core.
TIMES_MIN = 40
# The same test with all that is logged, into what nobody reads.
LOGGED = f"""
import logging, os


@explore(topics={{"orders": 3, "shipped": 3}}, faults=["kill", "program-kill"])
async def logged(world):
    logging.getLogger().setLevel(logging.DEBUG)
    logging.getLogger().addHandler(logging.StreamHandler(open(os.devnull, "w")))
    assert logging.getLogger("aiokafka").isEnabledFor(logging.DEBUG)
    await {TEST}.exploration.test(world)
"""


def mended() -> str:
    """The page's program, with its commit where it belongs."""
    (shop,) = re.findall(r'```python title="test_shop\.py"\n(.*?)```', PAGE.read_text(), re.DOTALL)
    mended, moved = re.subn(r"(\n[^\n]*# the bug:[^\n]*)((?:\n[^\n]+){2})", r"\2\1", shop)
    assert moved == 1
    return mended


def runs_of(workers: Workers, seeds: Sequence[int], test: str = TEST) -> list[Run]:
    found = list(workers.runs(Plan(test=test, seed=seed) for seed in seeds))
    assert [run.error for run in found] == [""] * len(seeds)
    return found


def digests(runs: Sequence[Run]) -> list[str]:
    return [run.digest for run in runs[: len(AGAIN)]]


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("shop") / "test_shop.py"
    made.write_text(mended() + LOGGED)
    return made


@pytest.fixture(scope="module")
def workers(file: Path) -> Iterator[Workers]:
    with Workers(str(file)) as made:
        yield made


@pytest.fixture(scope="module")
def found(workers: Workers) -> list[Run]:
    return runs_of(workers, SEEDS)


def test_a_run_is_faster_than_real_time_by_far(found: list[Run]) -> None:
    times = sum(run.virtual_s for run in found) / sum(run.cpu_s for run in found)
    assert times >= TIMES_MIN, f"{times:.0f} times"


def test_a_seed_is_the_same_run_with_all_that_can_be_logged(workers: Workers, found: list[Run]) -> None:
    assert len(set(digests(found))) == len(AGAIN)
    assert digests(runs_of(workers, AGAIN, "logged")) == digests(found)


def test_a_seed_is_the_same_run_under_load(workers: Workers, found: list[Run]) -> None:
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as spinning:
        try:
            assert digests(runs_of(workers, AGAIN)) == digests(found)
            assert spinning.poll() is None
        finally:
            spinning.kill()


def test_a_seed_is_the_same_run_later_in_another_folder(
    file: Path, found: list[Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "of another length"
    other.mkdir()
    monkeypatch.chdir(other)
    monkeypatch.setenv("TMPDIR", str(other))
    with Workers(str(file)) as workers:
        assert digests(runs_of(workers, AGAIN)) == digests(found)
