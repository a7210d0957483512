"""`ottla explore`: run tests that are decorated with `ottla.explore.explore`, seed after seed."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from ottla.cli import output
from ottla.cli.errors import CliError, ExitCode
from ottla.cli.examples import examples
from ottla.cli.options import decimal_number, whole_number
from ottla.cli.simulate import seeds_of

JOBS_MAX = 256
NODES_MAX = 9
SECONDS_MAX = 100_000.0
NONE = "none"


def _jobs(text: str) -> int:
    from ottla.explore.exploring import jobs_of

    if text == "auto":
        return jobs_of(None)
    return whole_number(1, JOBS_MAX)(text)


def _strikes(text: str) -> tuple[int, ...]:
    numbers = [] if text == NONE else text.split(",")
    if not all(number.isascii() and number.isdigit() and len(number) < 10 for number in numbers):
        raise typer.BadParameter(f"{text!r} is no list of numbers such as 3,17, and not {NONE!r}.")
    return tuple(sorted({int(number) for number in numbers}))


@examples(
    ("ottla explore test_shop.py::test_every_order_is_shipped", "Run the test's seeds, until one fails."),
    ("ottla explore test_shop.py::test_every_order_is_shipped --seed 4711", "Repeat one run exactly."),
    ("ottla explore test_shop.py --seeds 1..5000 --keep-going", "Run many seeds of all tests of a file."),
)
def explore(
    tests: Annotated[
        str,
        typer.Argument(
            metavar="TEST", help="FILE::TEST, a test that has @explore; FILE for all of its tests."
        ),
    ],
    seeds: Annotated[
        str | None,
        typer.Option(
            "--seeds",
            "--seed",
            metavar="N|N..M|N..",
            help="The seed, or a range of seeds; by default the test's.",
        ),
    ] = None,
    keep_going: Annotated[
        bool, typer.Option("--keep-going", help="Go on after a seed on which the test fails.")
    ] = False,
    jobs: Annotated[
        str, typer.Option(metavar="N|auto", help="So many processes run seeds; auto: as many as processors.")
    ] = "auto",
    shrink: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS",
            parser=decimal_number(0, SECONDS_MAX),
            help="Look for so long for a smaller run that fails in the same way; 0 for not at all."
            " By default 20, and 0 with --strikes.",
        ),
    ] = None,
    strikes: Annotated[
        str | None,
        typer.Option(metavar="N,…|none", help="Only the faults with these numbers strike."),
    ] = None,
    nodes: Annotated[
        int | None,
        typer.Option(
            metavar="N", parser=whole_number(1, NODES_MAX), help="Nodes, if not as many as the test has."
        ),
    ] = None,
    seconds: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS",
            parser=decimal_number(0.001, SECONDS_MAX),
            help="Each `world.run()` lasts so long at most, in virtual time.",
        ),
    ] = None,
    cpu_seconds: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS",
            parser=decimal_number(0.1, SECONDS_MAX),
            help="A run that takes more CPU is ended, and has failed; by default as the test says.",
        ),
    ] = None,
    picture: Annotated[
        str | None,
        typer.Option(
            metavar="FILE", help="Draw the run that fails, or that of a single seed: an HTML page, or .svg."
        ),
    ] = None,
    json: Annotated[
        bool, typer.Option("--json", help="A line of JSON for each failure and each test.")
    ] = False,
) -> None:
    """Run programs against a simulated cluster under faults, with one seed after the other.

    A test with @explore_real runs in real time, by default with as many seeds as it says. Only --seeds and
    --keep-going are for it.

    Exit code 1 means that a test failed on a seed. Its run is made smaller; the report has the command that
    repeats the smaller one, and tells its story.
    """
    from ottla.cli.explored import Explored
    from ottla.explore.finding import SHRINK_S
    from ottla.explore.plan import Plan
    from ottla.explore.real import running
    from ottla.explore.workers import Workers

    file, _, name = tests.partition("::")
    if "::" in name:
        raise CliError(f"{tests}: explore runs functions of a module, not methods of a class", ExitCode.USAGE)
    if picture is not None and not Path(picture).resolve().parent.is_dir():
        raise CliError(f"there is no folder for {picture}", ExitCode.NOT_FOUND)
    kept = None if strikes is None else _strikes(strikes)
    only = None if seeds is None else seeds_of(seeds)
    count = _jobs(jobs) if only is None else min(_jobs(jobs), only[1] - only[0] + 1)
    has_failed = False
    if name and (real := running.found(tests)) is not None:
        simulated = {
            "--jobs": jobs != "auto",
            "--shrink": shrink is not None,
            "--strikes": strikes is not None,
            "--nodes": nodes is not None,
            "--seconds": seconds is not None,
            "--cpu-seconds": cpu_seconds is not None,
            "--picture": picture is not None,
            "--json": json,
        }
        if given := [option for option, is_given in simulated.items() if is_given]:
            raise CliError(
                f"{', '.join(given)}: only for tests with @explore; {name} runs in real time", ExitCode.USAGE
            )
        first, last = only or (1, real.seeds)
        if running.run(real, first, last, keep_going=keep_going, say=output.say):
            raise typer.Exit(ExitCode.FAILED)
        return
    with _told_failures(file), Workers(file, count) as workers:
        for test in _chosen(file, name, workers.tests):
            known = workers.tests[test]
            first, last = only or (1, int(known["seeds"]))
            explored = Explored(
                workers=workers,
                target=f"{file}::{test}",
                plan=Plan(
                    test=test,
                    seed=first,
                    strikes=kept,
                    nodes=nodes,
                    run_max_s=seconds,
                    cpu_max_s=cpu_seconds or known["cpu_s"],
                ),
                first=first,
                last=last,
                goes_on=keep_going,
                shrink_s=(SHRINK_S if kept is None else 0.0) if shrink is None else shrink,
                picture=str(Path(picture).resolve()) if picture else "",
                is_json=json,
            )
            has_failed = explored.explore() or has_failed
    if has_failed:
        raise typer.Exit(ExitCode.FAILED)


def _chosen(file: str, name: str, tests: Collection[str]) -> list[str]:
    """The test of that name, or all."""
    if not tests:
        raise CliError(
            f"{file} has no test that is decorated with @explore; name one of @explore_real as FILE::TEST",
            ExitCode.NOT_FOUND,
        )
    if not name:
        return list(tests)
    if name not in tests:
        raise CliError(
            f"{file} has no test {name} that is decorated with @explore; it has {', '.join(tests)}",
            ExitCode.NOT_FOUND,
        )
    return [name]


@contextmanager
def _told_failures(file: str) -> Iterator[None]:
    """A process that ended by itself, since the file cannot be imported, for example, ends the command."""
    try:
        yield
    except RuntimeError as error:
        *before, problem = str(error).strip().splitlines() or ["a process ended, and said nothing"]
        for line in before:
            output.warn(line)
        raise CliError(f"{file} could not be run: {problem}", ExitCode.NOT_FOUND) from None
