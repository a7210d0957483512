"""docs/CLI.md says everything that the command line offers, and nothing else."""

from __future__ import annotations

import inspect
import re
import shlex
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer

from ottla.cli import help as help_page
from ottla.cli.app import app_of
from ottla.cli.errors import ExitCode
from ottla.cli.examples import examples_of
from ottla.cli.help import CONNECTION

ROOT = Path(__file__).parent.parent.parent
sys.path.insert(0, str(ROOT / "scripts"))

import cli_docs  # noqa: E402

COMMANDS = dict(cli_docs.commands(app_of()))
PAGE = (ROOT / "docs" / "CLI.md").read_text()
# What a terminal of the usual width shows in one line, but for few.
LINE_MAX = 95


def test_the_page_is_current() -> None:
    assert cli_docs.render() == PAGE, "docs/CLI.md is stale: run `make docs`"


@pytest.mark.parametrize("path", COMMANDS)
def test_every_command_and_option_is_on_the_page(path: str) -> None:
    assert f"\n### {path}\n" in PAGE
    section = PAGE.split(f"\n### {path}\n")[1].split("\n### ")[0]
    shared = PAGE.split("\n## Connection\n")[1].split("\n## ")[0]
    for parameter in cli_docs.parameters(COMMANDS[path]):
        assert all(
            f"`{name}`" in (shared if parameter.name in CONNECTION else section) for name in parameter.names
        )
    assert ("(#connection)" in section) == any(
        parameter.name in CONNECTION for parameter in cli_docs.parameters(COMMANDS[path])
    )


@pytest.mark.parametrize("path", COMMANDS)
def test_every_command_has_two_or_three_examples_that_parse(path: str) -> None:
    """Whether they do what they say is for test_cli_examples.py."""
    found = examples_of(COMMANDS[path])
    assert 2 <= len(found) <= 3, path
    for example in found:
        assert example.text[0].isupper() and example.text.endswith("."), example
        assert len(example.line) <= LINE_MAX, example
        (words,) = (words for words in commands_of(example.line) if words[0] == "ottla")
        assert " ".join(words).startswith(path), example
        parse(words[1:])
    section = PAGE.split(f"\n### {path}\n")[1].split("\n### ")[0]
    assert all(example.line in section and example.text in section for example in found)


def commands_of(line: str) -> list[list[str]]:
    """The words of each command of a pipeline, without what the shell takes for itself."""
    found: list[list[str]] = [[]]
    words = iter(shlex.split(line, comments=True))
    for word in words:
        if word == "|":
            found.append([])
        elif word in ("<", ">"):
            next(words)
        else:
            found[-1].append(word)
    return found


@cache
def whole() -> Any:
    """The command of all commands, as Typer makes it of the app."""
    return typer.main.get_command(app_of())


def parse(words: list[str]) -> None:
    """Parse a command line as far as it goes without being carried out."""
    command = whole()
    context = None
    while hasattr(command, "commands"):
        context = command.make_context(words[0], [], parent=context, resilient_parsing=True)
        command, words = command.commands[words[0]], words[1:]
    command.make_context("command", list(words), parent=context)


def test_an_example_that_does_not_parse_is_found() -> None:
    for words in (["topic", "list", "--nothing"], ["topic", "alter"], ["consume", "t", "--max", "x"]):
        with pytest.raises(Exception, match=r"(?i)no such option|missing parameter|not a whole"):
            parse(words)


@pytest.mark.parametrize(("path", "function"), COMMANDS.items())
def test_every_command_and_option_explains_itself(path: str, function: Callable[..., Any]) -> None:
    assert (inspect.getdoc(function) or "").endswith("."), f"{path} has no help"
    for parameter in cli_docs.parameters(function):
        assert parameter.help.rstrip().endswith("."), f"{path} {parameter.names}: no help, or no sentence"


def help_of(path: str, capsys: pytest.CaptureFixture[str]) -> str:
    from ottla.cli.app import run

    assert run([*path.split()[1:], "--help"]) == ExitCode.OK
    return capsys.readouterr().out


@pytest.mark.parametrize("path", COMMANDS)
def test_help_shows_what_the_page_shows(path: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = help_of(path, capsys)
    words = " ".join(text.split())
    for parameter in cli_docs.parameters(COMMANDS[path]):
        assert all(name in text for name in parameter.names)
        assert " ".join(parameter.help.split()) in words
    for example in examples_of(COMMANDS[path]):
        assert f"\n    {example.line}\n" in text and example.text in words
    # Whatever has a default says so at its end.
    options = re.findall(r"^  (?:-\w, |    )(--\S+)((?:.|\n(?!  [ -][ -]?\S|\n|\w))*)", text, re.MULTILINE)
    assert len(options) >= 1
    for name, words in options:
        assert words.rstrip().endswith("]") or name == "--help", (name, words)


def test_help_is_the_same_in_a_terminal_but_for_bold_headings(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = help_of("ottla topic create", capsys)
    monkeypatch.setattr(help_page, "_is_bold", lambda: True)
    command = whole().commands["topic"].commands["create"]
    context = command.make_context(
        "ottla topic create", [], resilient_parsing=True, help_option_names=["-h", "--help"]
    )
    bold = help_page.page(command, context)
    assert re.findall(r"\x1b\[1m(.*?)\x1b\[0m", bold) == [
        "Usage:", "Arguments:", "Options:", "Connection:", "Examples:"
    ]  # fmt: skip
    assert re.sub(r"\x1b\[\dm", "", bold) == plain


def test_the_walk_found_the_commands() -> None:
    assert {
        "ottla serve",
        "ottla produce",
        "ottla topic create",
        "ottla log dump",
        "ottla bench requests",
    } <= set(COMMANDS)


def test_every_exit_code_is_on_the_page() -> None:
    for code in ExitCode:
        assert f"| {code.value} | {code.doc} |" in PAGE
