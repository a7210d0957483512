"""`ottla version` and `ottla help`."""

from __future__ import annotations

import platform
from typing import Annotated

import typer

from ottla import __version__, implementation
from ottla.cli import output
from ottla.cli.examples import examples
from ottla.cli.options import Json


@examples(
    ("ottla version", "Print the version."),
    ("ottla version --json", "Print it as JSON, with the version of Python."),
)
def version(json: Json = False) -> None:
    """Print the version, and whether this build is compiled."""
    if json:
        document = {"version": __version__, "implementation": implementation.name()}
        output.print_json(document | {"python": platform.python_version()})
    else:
        output.say(f"ottla {__version__} ({implementation.name()})")


@examples(
    ("ottla help", "List the commands."),
    ("ottla help topic create", "Show the help of a command."),
)
def help_(
    command: Annotated[
        list[str] | None,
        typer.Argument(metavar="COMMAND", show_default="all commands", help="The words of the command."),
    ] = None,
) -> int:
    """Show the help of a command, as --help does."""
    from ottla.cli.app import run

    return run([*(command or ()), "--help"])
