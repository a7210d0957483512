"""Typer's errors about a command line, in our words: what is wrong, and where its help is."""

from __future__ import annotations

import re
from difflib import get_close_matches
from typing import Any

from ottla.cli.help import value_of
from ottla.cli.values import shown

_EXTRA = re.compile(r"unexpected extra argument(?:s|\(s\))? \((.*)\)", re.DOTALL)


def text_of(error: Any) -> str:
    """The line for the user. ``error`` is a UsageError of Click, be it Typer's own or not."""
    path = error.ctx.command_path if error.ctx is not None else "ottla"
    made = _WORDS.get(type(error).__name__, _other)(error, path).rstrip(".")
    return f"{made}{'' if made.endswith('?') else '.'} See '{path} --help'."


def _no_option(error: Any, path: str) -> str:
    known = [name for one in error.ctx.command.params for name in one.opts] if error.ctx is not None else []
    names = [name[2:] for name in known if name.startswith("--")]
    if error.option_name in ("-p", "--password") and "password-file" in names:
        # Other users of the machine can read what is on a command line.
        return f"there is no option {shown(error.option_name)} in '{path}': give --password-file FILE"
    close = get_close_matches(error.option_name.lstrip("-"), names, n=1)
    meant = f". Did you mean --{close[0]}?" if close else ""
    return f"there is no option {shown(error.option_name)} in '{path}'{meant}"


def _missing(error: Any, path: str) -> str:
    parameter = error.param
    if parameter is None:
        return f"'{path}' needs more: {error.format_message()}"
    return f"'{path}' needs {_name(parameter)}: {(parameter.help or '').rstrip('.')}"


def _no_value(error: Any, path: str) -> str:
    return f"{error.option_name} needs a value"


def _bad(error: Any, path: str) -> str:
    # Typer has pydantic look at some values, which begins all of its own so.
    message = str(error.message).strip().replace("Value error, ", "")
    return message if error.param is None else f"{_name(error.param, value=False)}: {message}"


def _other(error: Any, path: str) -> str:
    message = str(error.format_message()).strip()
    if found := _EXTRA.search(message):
        made = f"'{path}' takes no further argument, such as {shown(found[1])}"
        # What rpk and kcat take behind -f, which is --follow here.
        is_format = path.endswith(" consume") and "%" in found[1]
        return f"{made}: give a format as --format '{{key}} {{value}}'" if is_format else made
    return message


def _name(parameter: Any, *, value: bool = True) -> str:
    if parameter.param_type_name == "argument":
        return str(parameter.metavar or parameter.name.upper()).strip("[]…")
    name = max(parameter.opts, key=len)
    return f"{name} {value_of(parameter)}".strip() if value else str(name)


_WORDS = {
    "NoSuchOption": _no_option,
    "MissingParameter": _missing,
    "BadOptionUsage": _no_value,
    "BadParameter": _bad,
}
