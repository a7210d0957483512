"""`ottla explore`: run tests that are decorated with `ottla.explore.explore`, seed after seed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from ottla.cli.asked import Asked
from ottla.cli.errors import CliError, ExitCode
from ottla.cli.examples import examples
from ottla.cli.options import decimal_number, whole_number
from ottla.cli.simulate import seeds_of
from ottla.explore.decorated import NODES_MAX

JOBS_MAX = 256
SECONDS_MAX = 100_000.0
NONE = "none"
PICTURES = (".html", ".svg")


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
            help="The seed, or a range of seeds.",
            show_default="the test's",
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
            help="Look for so long for a smaller run that fails in the same way; 0 for not at all.",
            show_default="20, and 0 with --strikes",
        ),
    ] = None,
    strikes: Annotated[
        str | None,
        typer.Option(
            metavar="N,…|none",
            help="Only the faults with these numbers strike, in the run of a single seed.",
            show_default="all",
        ),
    ] = None,
    nodes: Annotated[
        int | None,
        typer.Option(
            metavar="N", parser=whole_number(1, NODES_MAX), help="Nodes.", show_default="the test's"
        ),
    ] = None,
    seconds: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS",
            parser=decimal_number(0.001, SECONDS_MAX),
            help="Each `world.run()` lasts so long at most, in virtual time.",
            show_default="as the test says",
        ),
    ] = None,
    cpu_seconds: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS",
            parser=decimal_number(0.1, SECONDS_MAX),
            help="A run that takes more CPU is ended, and has failed.",
            show_default="as the test says",
        ),
    ] = None,
    picture: Annotated[
        str | None,
        typer.Option(
            metavar="FILE", help="Draw the run that fails, or that of a single seed: a page (.html), or .svg."
        ),
    ] = None,
    json: Annotated[
        bool, typer.Option("--json", help="A line of JSON for each failure and each test.")
    ] = False,
) -> None:
    """Run programs against a simulated cluster under faults, with one seed after the other.

    A test with @explore_real runs in real time, by default with as many seeds as it says. Only --seeds and
    --keep-going are for it: with other options, FILE is for the tests with @explore alone.

    Exit code 1 means that a test failed on a seed. Its run is made smaller; the report has the command that
    repeats the smaller one, and tells its story.
    """
    from ottla.explore.finding import SHRINK_S
    from ottla.explore.plan import Plan

    file, _, name = tests.partition("::")
    if "::" in name:
        raise CliError(f"{tests}: explore runs functions of a module, not methods of a class", ExitCode.USAGE)
    kept = None if strikes is None else _strikes(strikes)
    only = None if seeds is None else seeds_of(seeds)
    if kept and (only is None or only[0] != only[1]):
        raise CliError("--strikes: each run has faults of its own: name one by --seed N", ExitCode.USAGE)
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
    asked = Asked(
        file=file,
        plan=Plan(test=name, seed=1, strikes=kept, nodes=nodes, run_max_s=seconds),
        seeds=only,
        cpu_s=cpu_seconds,
        jobs=_jobs(jobs) if only is None else min(_jobs(jobs), only[1] - only[0] + 1),
        goes_on=keep_going,
        shrink_s=(SHRINK_S if kept is None else 0.0) if shrink is None else shrink,
        picture=_picture(picture),
        is_json=json,
        simulated=tuple(option for option, is_given in simulated.items() if is_given),
    )
    if asked.run():
        raise typer.Exit(ExitCode.FAILED)


def _picture(file: str | None) -> str:
    """The whole path of a picture that can be written, so far as can be seen before; empty for none."""
    if file is None:
        return ""
    path = Path(file).resolve()
    if not path.parent.is_dir():
        raise CliError(f"there is no folder for {file}", ExitCode.USAGE)
    if path.is_dir():
        raise CliError(f"{file} is a folder: give the picture a name in it", ExitCode.USAGE)
    if path.suffix not in PICTURES:
        raise CliError(f"{file}: a picture is a page, .html, or a drawing, .svg", ExitCode.USAGE)
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise CliError(f"{file} cannot be written: permission denied", ExitCode.USAGE)
    return str(path)
