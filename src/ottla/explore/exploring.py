"""`explore`: a test that runs once for each of many seeds, each in a world of its own, until one fails.

The runs are in processes of their own, since clocks and chance are the run's in there (`programs.runner`). A
failure names its seed, the command that repeats exactly this run, and a story of what happened in it.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Coroutine, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from ottla.env import processors
from ottla.explore import decorated
from ottla.explore.checked import Checked
from ottla.explore.faults.choice import Faults
from ottla.explore.finding import Finding, find, report
from ottla.explore.importing import imported
from ottla.explore.plan import CPU_MAX_S, Plan, Run
from ottla.explore.seeds import first_and_last
from ottla.explore.workers import CannotRun, Workers

Test = Callable[[Any], Coroutine[Any, Any, None]]
# Other seeds than a test has, for a run at night: `4711`, `1..5000`, or `100000..` for as many from there on.
SEEDS_VARIABLE = "OTTLA_EXPLORE_SEEDS"


class Found(AssertionError):
    """A seed on which the test failed; ``str()`` has the report. ``run`` is the smallest run of it."""

    def __init__(self, finding: Finding) -> None:
        super().__init__(report(finding))
        self.run = finding.run


class CheckedNothing(AssertionError):
    """All seeds pass, and none of them had a record in what the test checks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Exploration:
    """A test and the worlds that it is run in."""

    test: Test
    seeds: int
    nodes: int
    topics: Mapping[str, int]
    faults: Faults
    config: Mapping[str, str]
    any_order: bool
    cpu_s: float
    jobs: int | None

    @property
    def target(self) -> str:
        """FILE::NAME, for the command line."""
        return decorated.target_of(self.test)

    def listed(self) -> dict[str, float]:
        """What is told of it to the process that has it run."""
        return {"seeds": self.seeds, "nodes": self.nodes}


def explore(
    _test: None = None,
    /,
    *,
    seeds: int = 100,
    nodes: int = 3,
    topics: Mapping[str, int] | None = None,
    faults: Faults = None,
    config: decorated.Config = None,
    any_order: bool = False,
    cpu_s: float = CPU_MAX_S,
    jobs: int | None = None,
) -> Callable[[Test], Callable[[], None]]:
    """Make a coroutine function that takes a `World` a test which explores seeds 1 to ``seeds``.

    ``topics`` are created with their partitions before the test begins. ``faults``: a preset's name, kinds,
    or weights by kind; None for a mixture that each seed draws. ``config``: broker settings by Kafka's names.
    ``any_order``: callbacks of programs run in orders that asyncio rules out, too, for whoever hunts races
    that another loop would show.
    A run that takes more than ``cpu_s`` of CPU is ended, and has failed. ``jobs``: how many processes run
    seeds; None for as many as there are processors, and for one in a worker of pytest-xdist.

    The test takes no argument, and raises `Found`, or `CheckedNothing`. `SEEDS_VARIABLE` has it explore other
    seeds: `4711`, `1..5000`, or `100000..` for as many from there on. ValueError for values that no world
    has.
    """
    # For pytest: the user's own line says it all.
    __tracebackhide__ = True
    decorated.check_brackets(_test, "explore")
    settings = decorated.texts(config)
    decorated.check(seeds, nodes, topics, settings)
    if cpu_s <= 0 or (jobs is not None and jobs < 1):
        raise ValueError(f"cpu_s={cpu_s}, jobs={jobs}: both have to be above 0")

    def decorate(test: Test) -> Callable[[], None]:
        __tracebackhide__ = True
        decorated.check_test(test, "explore", is_async=True)
        exploration = Exploration(
            test=test,
            seeds=seeds,
            nodes=nodes,
            topics=dict(topics or {}),
            faults=faults,
            config=settings,
            any_order=any_order,
            cpu_s=cpu_s,
            jobs=jobs,
        )

        def explored() -> None:
            # For pytest: the report says it all.
            __tracebackhide__ = True
            try:
                finding = first_failure(exploration)
            except (CannotRun, CheckedNothing) as error:
                # Without where in Ottla it was raised.
                raise type(error)(str(error)) from None
            if finding is None:
                return
            if finding.is_interrupted:
                raise KeyboardInterrupt(report(finding))
            raise Found(finding)

        decorated.stand_for(test, explored, exploration)
        return explored

    return decorate


def first_failure(exploration: Exploration) -> Finding | None:
    """The lowest of its seeds that fails, made smaller; None if none does. CannotRun, CheckedNothing."""
    try:
        first, last = seeds_of(exploration.seeds)
    except ValueError as error:
        raise CannotRun(str(error)) from None
    target = exploration.target
    file, test = split(target)
    jobs = jobs_of(exploration.jobs)
    place = imported(exploration.test.__module__)
    with Workers(file, min(jobs, last - first + 1), place) as workers:
        if test not in workers.tests:
            raise CannotRun(f"{file} has no {test}: a test that is explored has the name of its function")
        plan, checked = Plan(test=test, seed=first), Checked()
        for run in workers.runs(replace(plan, seed=seed) for seed in range(first, last + 1)):
            if run.error:
                return find(workers, target, replace(plan, seed=run.seed), run)
            checked.add(run)
    if problem := checked.problem():
        raise CheckedNothing(f"{target}: {problem}")
    if doubt := checked.doubt():
        warnings.warn(f"{target}: {doubt}", stacklevel=3)
    return None


def seeds_of(count: int) -> tuple[int, int]:
    """The first and the last seed of a test that explores so many: others, if the environment says so."""
    text = os.environ.get(SEEDS_VARIABLE, "")
    if not text:
        return 1, count
    try:
        first, last = first_and_last(text)
    except ValueError as error:
        raise ValueError(f"{SEEDS_VARIABLE}: {error}") from None
    return first, first + count - 1 if last is None else last


def jobs_of(jobs: int | None) -> int:
    """How many processes run seeds: as many as there are processors, if nothing is said.

    One in each worker of pytest-xdist, which are as many as somebody has chosen.
    """
    if jobs is not None:
        return jobs
    return 1 if "PYTEST_XDIST_WORKER" in os.environ else processors.usable()


def runs(target: str, first: int, last: int, jobs: int = 1) -> Iterator[Run]:
    """The runs of seeds ``first`` to ``last`` of a test, FILE::NAME, one by one, in processes of their own.

    CannotRun if such a process ends by itself: the file cannot be imported, for example.
    """
    file, test = split(target)
    with Workers(file, jobs) as workers:
        if test not in workers.tests:
            raise CannotRun(f"{file} has no test {test} that is decorated with @explore")
        yield from workers.runs(Plan(test=test, seed=seed) for seed in range(first, last + 1))


def recorded(target: str, run: Run) -> Run:
    """The same run again, with its story."""
    file, test = split(target)
    with Workers(file) as workers:
        (again,) = workers.runs([Plan(test=test, seed=run.seed, is_told=True)])
    return again


def split(target: str) -> tuple[str, str]:
    """File and name of FILE::NAME."""
    file, _, name = target.partition("::")
    return file, name
