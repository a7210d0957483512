"""What ``--help`` prints: the same words in a terminal and in a pipe, with headings in bold in a terminal.

Each option has its description, then the environment variable that sets it, then its default, which always
comes last. There is no column of types: the name of a value says what it is.
"""

from __future__ import annotations

import inspect
import os
import shutil
import sys
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from typer.core import TyperGroup

from ottla.cli.examples import examples_of

WIDTH_MAX = 100
# Where descriptions begin at the latest. Those of longer names begin in the line below.
COLUMN_MAX = 34
# A blank that no line ends at.
GLUE = "\N{WORD JOINER}"
# Options about how a command comes to a broker have a heading of their own.
CONNECTION = frozenset(("bootstrap", "property", "command_config", "profile"))


def default_of(parameter: Any) -> str | None:
    """The default of an option or argument in words; None where it has to be given."""
    if isinstance(parameter.show_default, str):
        return parameter.show_default
    if parameter.required:
        return None
    default = parameter.default
    if getattr(parameter, "is_flag", False):
        return "on" if default is True else "off"
    if default is None or callable(default) or default in ((), []):
        return "none"
    return str(getattr(default, "value", default))


def value_of(parameter: Any) -> str:
    """The name of an option's value; empty for a flag."""
    if getattr(parameter, "is_flag", False):
        return ""
    if parameter.metavar:
        return str(parameter.metavar)
    kind = getattr(parameter, "type_descriptor", None) or parameter.type
    choices = getattr(kind, "choices", None) or ()
    return "|".join(str(getattr(choice, "value", choice)) for choice in choices) or "TEXT"


def page(command: Any, ctx: Any) -> str:
    """The help of a command or group, as it is printed."""
    width = min(shutil.get_terminal_size().columns, WIDTH_MAX) - 1
    parts = [_usage(command, ctx, width), *_prose(command.help or "", width)]
    if isinstance(command, TyperGroup):
        parts += _commands(command, ctx, width)
    parts += _parameters(command.get_params(ctx), width)
    if examples := examples_of(command.callback):
        lines = [line for one in examples for line in _example(one.line, one.text, width)]
        parts.append("\n".join([_heading("Examples:"), *lines]))
    if isinstance(command, TyperGroup):
        parts.append(f"'{ctx.command_path} COMMAND --help' shows the options of a command, and examples.")
    return "\n\n".join(parts) + "\n"


def _usage(command: Any, ctx: Any, width: int) -> str:
    words = [ctx.command_path]
    if isinstance(command, TyperGroup):
        words.append("COMMAND")
    else:
        for parameter in command.get_params(ctx):
            if parameter.param_type_name == "argument":
                name = _argument(parameter)
                words.append(name if parameter.required else f"[{name}]")
    line = " ".join([*words, "[OPTIONS]"])
    return f"{_heading('Usage:')} {line}"


def _argument(parameter: Any) -> str:
    name = str(parameter.metavar or parameter.name.upper()).strip("[]").rstrip("…")
    return f"{name}…" if parameter.nargs != 1 else name


def _prose(text: str, width: int) -> Iterator[str]:
    """The paragraphs, filled; lines that are indented stay lines."""
    for paragraph in inspect.cleandoc(text).split("\n\n"):
        if "\n " in f"\n{paragraph}":
            yield paragraph
        else:
            yield textwrap.fill(
                " ".join(paragraph.split()), width, break_long_words=False, break_on_hyphens=False
            )


def _commands(group: Any, ctx: Any, width: int) -> Iterator[str]:
    """The commands of a group, under the headings that they are registered with."""
    found: dict[str, list[tuple[str, str]]] = {}
    for name in group.list_commands(ctx):
        command = group.get_command(ctx, name)
        if command is not None and not command.hidden:
            heading = getattr(command, "rich_help_panel", None) or "Commands"
            first = inspect.cleandoc(command.help or "").split("\n\n")[0]
            found.setdefault(str(heading), []).append((name, " ".join(first.split())))
    column = 2 + max((len(name) for rows in found.values() for name, _ in rows), default=0)
    for heading, rows in found.items():
        yield _table(f"{heading}:", rows, width, column)


def _parameters(parameters: Iterable[Any], width: int) -> Iterator[str]:
    sections: dict[str, list[tuple[str, str]]] = {"Arguments:": [], "Options:": [], "Connection:": []}
    for parameter in parameters:
        if getattr(parameter, "hidden", False):
            continue
        if parameter.param_type_name == "argument":
            sections["Arguments:"].append((_argument(parameter), _text(parameter)))
        else:
            heading = "Connection:" if parameter.name in CONNECTION else "Options:"
            sections[heading].append((_names(parameter), _text(parameter)))
    for heading, rows in sections.items():
        if rows:
            column = max(len(name) for name, _ in rows if len(name) <= COLUMN_MAX or len(rows) == 1)
            yield _table(heading, rows, width, min(column, COLUMN_MAX) + 2)


def _names(parameter: Any) -> str:
    """The short name first, so that long ones stand in one column."""
    names = sorted((*parameter.opts, *parameter.secondary_opts), key=lambda name: name.startswith("--"))
    text = ", ".join(names)
    return f"{text if names[0][:2] != '--' else '    ' + text} {value_of(parameter)}".rstrip()


def _text(parameter: Any) -> str:
    """What an option is, how the environment sets it, and its default, in this order."""
    if parameter.name == "help":
        return "Show this help."
    text = " ".join((parameter.help or "").split())
    kind = getattr(parameter, "type_descriptor", None) or parameter.type
    if parameter.param_type_name == "argument":
        choices = getattr(kind, "choices", None) or ()
        values = ", ".join(str(getattr(choice, "value", choice)) for choice in choices)
        text += f" One of {values}." if values else ""
    notes = [f"[environment: {parameter.envvar}]"] if parameter.envvar else []
    default = default_of(parameter)
    if default is not None:
        notes.append(f"[default: {default}]")
    elif parameter.param_type_name != "argument":
        notes.append("[required]")
    # A note is not broken where it fits into a line.
    return " ".join([text, *(note.replace(" ", GLUE) if len(note) < 40 else note for note in notes)])


def _table(heading: str, rows: Sequence[tuple[str, str]], width: int, column: int) -> str:
    lines = [_heading(heading)]
    indent = " " * (2 + column)
    for name, text in rows:
        filled = textwrap.wrap(
            text,
            max(20, width - len(indent)),
            break_long_words=False,
            break_on_hyphens=False,
        ) or [""]
        filled = [line.replace(GLUE, " ") for line in filled]
        if len(name) + 2 > column:
            lines += [f"  {name}", *(f"{indent}{line}" for line in filled)]
        else:
            lines += [f"  {name.ljust(column)}{filled[0]}", *(f"{indent}{line}" for line in filled[1:])]
    return "\n".join(line.rstrip() for line in lines)


def _example(line: str, text: str, width: int) -> Iterator[str]:
    """The command line is never broken: it is there to be copied."""
    yield from textwrap.wrap(text, width, initial_indent="  ", subsequent_indent="  ")
    yield f"    {line}"


def _heading(text: str) -> str:
    return f"\x1b[1m{text}\x1b[0m" if _is_bold() else text


def _is_bold() -> bool:
    return sys.stdout.isatty() and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"
