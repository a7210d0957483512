"""Typer's commands and groups with our help, our names for what others call otherwise, and profiles."""

from __future__ import annotations

from difflib import get_close_matches
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from ottla.cli import aliases, connection, help
from ottla.cli.errors import CliError, ExitCode
from ottla.cli.values import shown

# Click's, which Typer has under a name of its own.
UsageError: Any = typer.BadParameter.__mro__[1]


def dress(app: typer.Typer) -> None:
    """Have all commands of ``app``, and of the apps in it, be those of this module."""
    for command in app.registered_commands:
        command.cls = Command
        connection.add_options(command)
    for group in app.registered_groups:
        if group.typer_instance is not None:
            group.cls = Group
            dress(group.typer_instance)


class Command(TyperCommand):
    """A command."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        formatter.write(help.page(self, ctx))

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        words = aliases.options(self.params, args)
        if all(parameter.name != "profile" for parameter in self.params):
            return self._parsed(ctx, words)
        profile, trouble = None, None
        try:
            profile = connection.profile_of(ctx, connection.named(words))
        except CliError as error:
            # Not before --help has had its turn.
            trouble = error
        rest = self._parsed(ctx, words)
        if trouble is not None:
            raise trouble
        if not ctx.resilient_parsing:
            connection.settle(ctx, profile)
        return rest

    def _parsed(self, ctx: Any, words: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, words)
        except UsageError as error:
            # An option without its value does not say of which command it is.
            if error.ctx is None:
                error.ctx = ctx
            raise

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except CliError as error:
            raise connection.told(ctx, error) from error.__cause__


class Group(TyperGroup):
    """A group of commands."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        formatter.write(help.page(self, ctx))

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name = aliases.verb_of(args[0], self.commands)
        if name in self.commands or name.startswith("-"):
            return super().resolve_command(ctx, [name, *args[1:]])
        raise unknown(ctx.command_path, args[0], list(self.commands))


def unknown(path: str, name: str, known: list[str]) -> CliError:
    """What to say of a command that there is not."""
    close = get_close_matches(name, known, n=1)
    meant = f"Did you mean '{path} {close[0]}'?" if close else f"See '{path} --help'."
    return CliError(f"there is no command {shown(name)} in '{path}'. {meant}", ExitCode.USAGE)
