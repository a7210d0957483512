"""docs/CLI.md says everything that the command line offers, and nothing else."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ottla.cli.app import app
from ottla.cli.errors import ExitCode

ROOT = Path(__file__).parent.parent.parent
sys.path.insert(0, str(ROOT / "scripts"))

import cli_docs  # noqa: E402

COMMANDS = dict(cli_docs.commands(app))
PAGE = (ROOT / "docs" / "CLI.md").read_text()


def test_the_page_is_current() -> None:
    assert cli_docs.render() == PAGE, "docs/CLI.md is stale: run `make docs`"


@pytest.mark.parametrize("path", COMMANDS)
def test_every_command_and_option_is_on_the_page(path: str) -> None:
    assert f"\n### {path}\n" in PAGE
    section = PAGE.split(f"\n### {path}\n")[1].split("\n### ")[0]
    for parameter in cli_docs.parameters(COMMANDS[path]):
        for name in parameter.names:
            assert f"`{name}`" in section


@pytest.mark.parametrize(("path", "function"), COMMANDS.items())
def test_every_command_and_option_explains_itself(path: str, function: Callable[..., Any]) -> None:
    assert (inspect.getdoc(function) or "").endswith("."), f"{path} has no help"
    for parameter in cli_docs.parameters(function):
        assert parameter.help.rstrip().endswith("."), f"{path} {parameter.names}: no help, or no sentence"


@pytest.mark.parametrize("path", COMMANDS)
def test_help_shows_what_the_page_shows(
    path: str, capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    from ottla.cli.app import run

    monkeypatch.setenv("COLUMNS", "200")
    assert run([*path.split()[1:], "--help"]) == ExitCode.OK
    text = capsys.readouterr().out
    for parameter in cli_docs.parameters(COMMANDS[path]):
        if not parameter.is_argument:
            assert all(name in text for name in parameter.names)


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
