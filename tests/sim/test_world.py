"""Users' programs in a world whose machines fail: bugs are found, right programs pass, a seed repeats."""

from __future__ import annotations

import inspect
import os
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import pytest

from ottla.explore import explore, exploring
from ottla.explore.exploring import runs
from ottla.explore.importing import Imported
from ottla.explore.plan import Plan, Run
from ottla.explore.programs.striking import kinds_of
from ottla.explore.workers import CHILD_ENVIRONMENT, CannotRun

SHOP = Path(__file__).with_name("shop.py")


def shop(test: str, first: int, last: int) -> list[Run]:
    return list(runs(f"{SHOP}::{test}", first, last))


def test_a_commit_before_the_work_is_found_and_its_seed_repeats() -> None:
    seen: list[Run] = []
    for run in runs(f"{SHOP}::commit_first", 1, 40):
        seen.append(run)
        if run.error and len(seen) > 2:
            break
    assert run.error.startswith("Broken: ") and "lost" in run.error
    # Also where it was not the first in its process.
    assert shop("commit_first", 3, 3) == [seen[2]]
    assert shop("commit_first", run.seed, run.seed) == [run]
    assert not run.story
    told = exploring.recorded(f"{SHOP}::commit_first", run)
    assert replace(told, story=run.story) == run
    for part in (
        r"shop.* sends '\d+' to orders-\d: offset \d+",
        r"shipping.* reads it: orders-\d offset",
        r"shipping.* commits orders-\d to \d+ for group shipping: it counts as read",
        r"shipping.* is killed, and starts again at \d+",
    ):
        assert re.search(part, "\n".join(told.story)), told.story


def test_a_commit_after_the_work_passes() -> None:
    for run in shop("commit_last", 1, 3):
        assert not run.error, f"seed {run.seed}: {run.error}"
        assert run.checked and all(run.checked.values()) and "nothing_lost at shop.py:" in str(run.checked)


def test_what_cannot_be_simulated_ends_the_run_also_where_errors_start_the_program_again() -> None:
    (run,) = shop("mistaken", 1, 1)
    assert run.error.startswith("NotSimulated: ") and "shop.py:" in run.error and "asyncio.sleep" in run.error


def test_the_end_of_a_program_is_told_with_its_time_and_how_long_the_run_was_to_be() -> None:
    (run,) = shop("ends_early", 1, 1)
    assert run.error == "ValueError: no shoes" and run.longest_run_s == 5
    told = re.search(r"It ended the program shop at (\d+\.\d{3}) s\.", run.traceback)
    # The test looks each second.
    assert told is not None and 0.7 < run.virtual_s - float(told[1]) < 0.9


def test_a_test_may_print_much() -> None:
    (run,) = shop("chatty", 1, 1)
    assert not run.error


NEEDS = """
import sys
from ottla.explore import child, warm
from ottla.explore.plan import Plan
from ottla.explore.programs.runner import run_seed

test = child.load(sys.argv[1])[sys.argv[2]]
assert sys.modules.keys().isdisjoint({"hypothesis", "ottla.explore.drawing", "pytest"}), "a slow start"
warm.up()
before = warm.loaded()
error = run_seed(test.test, child.world_of(test, Plan(test="", seed=1))).error
assert error is None, error
print(sorted(map(str, warm.loaded() - before)))
"""


@pytest.mark.parametrize("target", ["shop.py::commit_last", "blocking.py::calm"])
def test_what_runs_of_a_client_need_is_loaded_before_the_first_of_them(target: str) -> None:
    file, _, test = target.partition("::")
    done = subprocess.run(
        [sys.executable, "-c", NEEDS, str(SHOP.with_name(file)), test],
        env=os.environ | CHILD_ENVIRONMENT,
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        timeout=300,
    )
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    ("target", "problem"),
    [
        (f"{SHOP}::nothing", "no test nothing"),
        ("nowhere.py::test", "there is no file nowhere.py"),
        (f"{SHOP}::shop", "no test shop that is decorated"),
    ],
)
def test_a_test_that_is_not_there_is_named(target: str, problem: str) -> None:
    with pytest.raises(RuntimeError, match=problem):
        list(runs(target, 1, 1))


def test_a_decorated_function_is_a_test_that_takes_nothing_and_fails_with_the_report(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def test(world: object) -> None:
        """Of a module."""

    test.__qualname__ = "test"
    explored = explore(seeds=3, nodes=1)(test)
    assert inspect.signature(explored).parameters == {}
    assert explored.__name__ == "test" and explored.__doc__ == "Of a module."
    asked: list[tuple[str, int]] = []

    class Replayed:
        tests: ClassVar = {"test": {}}
        checked: ClassVar[dict[str, bool]] = {}

        def __init__(self, file: str, jobs: int, place: Imported) -> None:
            asked.append((file, jobs))
            assert place.module == __name__ and place.path

        def __enter__(self) -> Replayed:
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def runs(self, plans: Iterable[Plan], deadline_s: float | None = None) -> Iterator[Run]:
            for plan in plans:
                asked.append((plan.test, plan.seed))
                failure = (
                    {"error": "lost", "kind": "lost", "traceback": "Traceback"} if plan.seed % 2 == 0 else {}
                )
                yield Run(seed=plan.seed, story=["1.0 n1 is killed"], checked=self.checked, **failure)

    monkeypatch.setattr(exploring, "Workers", Replayed)
    monkeypatch.setenv("PYTEST_XDIST_WORKER", "gw0")
    with pytest.raises(
        exploring.Found, match=r"(?s)seed 2: lost.*--seed 2 --strikes none.*n1 is killed.*Traceback"
    ):
        explored()
    file = str(Path(__file__).relative_to(Path.cwd()))
    # The smaller run is repeated for its story.
    assert asked == [(file, 1), ("test", 1), ("test", 2), ("test", 2), ("test", 2)]
    asked.clear()
    monkeypatch.setenv(exploring.SEEDS_VARIABLE, "101")
    explored()
    assert asked == [(file, 1), ("test", 101)]
    monkeypatch.setenv(exploring.SEEDS_VARIABLE, "101..")
    with pytest.raises(exploring.Found, match="seed 102: lost"):
        explored()
    Replayed.checked = {"nothing_lost at shop.py:3": False}
    with pytest.raises(exploring.CheckedNothing, match=r"::test: no seed .*: nothing_lost at shop.py:3\. Is"):
        monkeypatch.setenv(exploring.SEEDS_VARIABLE, "101")
        explored()
    Replayed.checked = {**Replayed.checked, "nothing_else at shop.py:4": True}
    with pytest.warns(UserWarning, match=r"::test: no seed .* checked: nothing_lost at shop.py:3\. Is"):
        explored()
    monkeypatch.setenv(exploring.SEEDS_VARIABLE, "many")
    with pytest.raises(CannotRun, match="OTTLA_EXPLORE_SEEDS: 'many' is no seed"):
        explored()


@pytest.mark.parametrize("test", [lambda world: None, test_a_commit_after_the_work_passes])
def test_only_coroutine_functions_of_modules_are_explored(test: object) -> None:
    with pytest.raises(TypeError, match="write `async def`, not `def`"):
        explore()(test)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="seeds=0"):
        explore(seeds=0)
    with pytest.raises(ValueError, match="jobs=0"):
        explore(jobs=0)


def test_fixtures_and_methods_are_refused_with_a_remedy() -> None:
    async def fixtures(world: object, tmp_path: object) -> None: ...

    async def method(self: object, world: object) -> None: ...

    fixtures.__qualname__, method.__qualname__ = "test_it", "Tests.test_it"
    with pytest.raises(TypeError, match="takes the world and no fixtures"):
        explore()(fixtures)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="make this method one, without `self`"):
        explore()(method)  # type: ignore[arg-type]


def test_faults_are_chosen_by_name_by_weight_and_as_presets() -> None:
    assert kinds_of(None) is None
    assert kinds_of("everything") is None
    assert kinds_of("calm") == {}
    assert kinds_of("rolling restart") == {"restart": 1.0}
    assert kinds_of(["kill", "program-pause"]) == {"kill": 1.0, "program-pause": 1.0}
    assert kinds_of({"kill": 0.5}) == {"kill": 0.5}


@pytest.mark.parametrize("faults", ["earthquake", ["earthquake"], {"reassign": 1.0}])
def test_an_unknown_fault_is_refused_with_those_that_there_are(faults: object) -> None:
    with pytest.raises(ValueError, match=r"choose of .*everything|choose of .*kill"):
        kinds_of(faults)  # type: ignore[arg-type]


@pytest.mark.parametrize("faults", [{"kill": 0}, {"kill": 1, "break": -1}, {"kill": float("inf")}])
def test_weights_by_which_nothing_can_be_drawn_are_refused(faults: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="no weight below 0"):
        kinds_of(faults)
    assert kinds_of([]) == {}
