"""`ottla simulate`: which seeds it takes, and how it ends."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import typer

from ottla.cli.app import run
from ottla.cli.errors import CliError, ExitCode
from ottla.cli.simulate import seeds_of


@pytest.mark.parametrize(
    ("text", "seeds"), [("7", (7, 7)), ("1..200", (1, 200)), ("5..", (5, sys.maxsize)), ("3..3", (3, 3))]
)
def test_seeds_and_ranges(text: str, seeds: tuple[int, int]) -> None:
    assert seeds_of(text) == seeds


@pytest.mark.parametrize("text", ["", "..", "..5", "5..3", "-1", "1...2", "a"])
def test_other_words_are_refused(text: str) -> None:
    with pytest.raises(typer.BadParameter):
        seeds_of(text)


def test_a_run_says_its_trace_and_ends_with_0(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OTTLA_PURE", "1")
    trace = tmp_path / "trace"
    arguments = ["simulate", "--seed", "3", "--nodes", "1", "--seconds", "1", "--trace", str(trace)]
    assert run(arguments) == ExitCode.OK
    assert "seed 3:" in capsys.readouterr().out
    assert trace.stat().st_size > 0


def test_a_violation_ends_with_1(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from ottla.explore.campaign import seeds
    from ottla.explore.campaign.cluster import Options, Result
    from ottla.explore.campaign.model import Violation

    def violated(options: Options) -> Result:
        return Result(options.seed, violation=Violation("no lost write", "a record was lost"))

    monkeypatch.setenv("OTTLA_PURE", "1")
    monkeypatch.setitem(seeds.KINDS, "plain", violated)
    assert run(["simulate", "--seeds", "7..8"]) == ExitCode.FAILED
    said = capsys.readouterr().out
    assert "VIOLATED with seed 7: no lost write: a record was lost" in said
    assert "2 seeds, 2 violated: [7, 8]" in said


@pytest.mark.parametrize(
    "arguments", [["--faults", "earthquake"], ["--transactions", "--guarded"], ["--seeds", "x"]]
)
def test_mistakes_end_with_2(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTTLA_PURE", "1")
    with pytest.raises(CliError) as raised:
        run(["simulate", *arguments])
    assert raised.value.code == ExitCode.USAGE
