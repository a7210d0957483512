"""`ottla simulate`: a cluster of Ottla's own nodes under virtual time and faults, seed after seed."""

from __future__ import annotations

import os
import sys
from contextlib import ExitStack
from typing import Annotated

import typer

from ottla import implementation
from ottla.cli import output
from ottla.cli.errors import CliError, ExitCode
from ottla.cli.examples import examples
from ottla.cli.options import decimal_number, whole_number
from ottla.explore.seeds import first_and_last

NODES_MAX = 30
SECONDS_MAX = 100_000.0


def seeds_of(text: str) -> tuple[int, int]:
    """The first and the last seed of ``7``, ``1..200`` or ``1..``, which has no end."""
    try:
        first, last = first_and_last(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    return first, sys.maxsize if last is None else last


@examples(
    ("ottla simulate --seeds 1..20", "Run twenty seeds, each with faults of its own."),
    ("ottla simulate --seed 7 --nodes 3 --trace run.txt", "Repeat one seed, and keep all that happened."),
)
def simulate(
    seeds: Annotated[
        str, typer.Option("--seeds", "--seed", metavar="N|N..M|N..", help="The seed, or a range of seeds.")
    ] = "1",
    nodes: Annotated[
        int, typer.Option(metavar="N", parser=whole_number(1, NODES_MAX), help="Nodes of the cluster.")
    ] = 5,
    seconds: Annotated[
        float,
        typer.Option(
            metavar="SECONDS",
            parser=decimal_number(0.1, SECONDS_MAX),
            help="How long faults strike, in virtual time.",
        ),
    ] = 20.0,
    faults: Annotated[
        str | None, typer.Option(metavar="KIND,…", help="Only these kinds of faults; '' for none.")
    ] = None,
    transactions: Annotated[bool, typer.Option("--transactions", help="Clients use transactions.")] = False,
    guarded: Annotated[bool, typer.Option("--guarded", help="Nodes have an authorizer and quotas.")] = False,
    trace: Annotated[
        str | None, typer.Option(metavar="FILE", help="Write everything that happens to this file.")
    ] = None,
    verbose: Annotated[
        bool, typer.Option("--verbose", help="Show also the log lines of nodes at INFO.")
    ] = False,
    lines: Annotated[
        int,
        typer.Option(
            metavar="N", parser=whole_number(0), help="Lines of the trace to show after a violation."
        ),
    ] = 60,
) -> None:
    """Simulate a cluster under faults, seed after seed, and check its invariants.

    Exit code 1 means that an invariant was violated: a bug of Ottla. The seed repeats the run exactly.
    """
    if not implementation.is_pure_wanted():
        _run_pure()
    from ottla.explore.campaign.seeds import Campaign, run_seeds
    from ottla.explore.faults.kinds import KINDS

    first, last = seeds_of(seeds)
    if transactions and guarded:
        raise CliError("--transactions and --guarded exclude each other", ExitCode.USAGE)
    only = None if faults is None else [name for name in faults.split(",") if name]
    if unknown := sorted(set(only or ()) - set(KINDS)):
        raise CliError(f"there is no fault {unknown[0]}; choose of {', '.join(KINDS)}", ExitCode.USAGE)
    with ExitStack() as stack:
        campaign = Campaign(
            first=first,
            last=last,
            kind="guarded" if guarded else "transactions" if transactions else "plain",
            nodes=nodes,
            seconds=seconds,
            faults=only,
            trace=stack.enter_context(open(trace, "w")) if trace else None,
            is_verbose=verbose,
            lines=lines,
        )
        if run_seeds(campaign, output.say):
            raise typer.Exit(1)


def _run_pure() -> None:
    """Begin again in a process whose modules are Python's own: the simulator replaces parts of them."""
    environment = os.environ | {implementation.PURE_VARIABLE: "1"}
    os.execve(sys.executable, [sys.executable, "-m", "ottla.cli.main", *sys.argv[1:]], environment)
