"""CLUSTER.md, OPERATING.md and deploy/README.md: the command lines in them are ones that `ottla` has."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from ottla.cli import app, serve
from ottla.cli.errors import CliError, ExitCode

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = (
    DOCS / "CLUSTER.md",
    DOCS / "OPERATING.md",
    ROOT / "deploy" / "README.md",
    ROOT / "deploy" / "compose.yaml",
)


def command_lines() -> Iterator[str]:
    """Each `ottla …` of code blocks and comments, without what comes behind it."""
    for page in PAGES:
        text = page.read_text().replace("\\\n", " ")
        blocks = re.findall(r"```sh\n(.*?)```", text, re.DOTALL) if page.suffix == ".md" else [text]
        for block in blocks:
            yield from re.findall(r"^[ #]*(?:[^\n|#]*\| )?(ottla [^\n|>#]*)", block, re.MULTILINE)


def inline() -> set[str]:
    """Commands that the page names in a sentence."""
    return {line for page in PAGES for line in re.findall(r"`(ottla [a-z][^`]*)`", page.read_text())}


@pytest.mark.parametrize("line", sorted(set(command_lines())))
def test_command_lines_are_understood(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = shlex.split(line)[1:]
    if arguments[0] == "serve":
        options = serve.parse(arguments[1:])
        assert options is not None
        options.check()
        return
    assert app.run([*arguments, "--help"]) == ExitCode.OK
    assert f"Usage: ottla {arguments[0]} " in capsys.readouterr().out


@pytest.mark.parametrize("line", ["cluster wait --nope 1", "cluster nope", "nope"])
def test_what_is_not_there_would_be_noticed(line: str) -> None:
    with pytest.raises(CliError):
        app.run([*line.split(), "--help"])


@pytest.mark.parametrize("line", sorted(inline()))
def test_commands_in_sentences_exist(line: str) -> None:
    words = [word for word in shlex.split(line)[1:] if word not in ("N", "TOPIC")]
    assert app.run([*words, "--help"]) == ExitCode.OK


def test_the_walk_found_them() -> None:
    lines = set(command_lines())
    assert len(lines) >= 15
    assert any(line.startswith("ottla serve") for line in lines)
    assert any(line.startswith("ottla cluster drain") for line in lines)
