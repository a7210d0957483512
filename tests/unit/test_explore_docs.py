"""docs/EXPLORE.md names each fault, check, preset and parameter that there is, and no other fault."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

from ottla.explore import World, explore
from ottla.explore.faults.choice import PRESETS
from ottla.explore.faults.kinds import KINDS
from ottla.explore.programs import checks
from ottla.explore.programs.striking import NOT_HERE, PROGRAM_KINDS

PAGE = (Path(__file__).parents[2] / "docs" / "EXPLORE.md").read_text()


def section(title: str) -> str:
    _, _, rest = PAGE.partition(f"\n## {title}\n")
    return rest.partition("\n## ")[0]


def first_cells(text: str) -> set[str]:
    """What is in backquotes in the first column of the tables."""
    rows = re.findall(r"^\| (`[^|]*) \|", text, re.MULTILINE)
    return {name for row in rows for name in re.findall(r"`([^`]+)`", row)}


def test_each_fault_is_on_the_page_and_no_other() -> None:
    assert first_cells(section("Faults")) == {*KINDS, *PROGRAM_KINDS, *PRESETS, "everything"} - NOT_HERE


def test_each_check_is_on_the_page() -> None:
    public = {
        name
        for name, value in vars(checks).items()
        if inspect.isfunction(value) and value.__module__ == checks.__name__ and not name.startswith("_")
    }
    named = {cell.partition("(")[0] for cell in first_cells(section("Checks"))}
    assert named == public - {"by_key", "by_value", "times_s"}
    assert all(name in section("Checks") for name in ("by_key", "times_s"))


def test_what_a_test_calls_and_gives_is_on_the_page() -> None:
    world = section("The world")
    for name in ("program", "directory", "run", "settle", "records", "committed", "commits", "now_s"):
        assert hasattr(World, name) and f"world.{name}" in world
    parameters = inspect.signature(explore).parameters.values()
    assert all(f"`{one.name}`" in world for one in parameters if one.kind is one.KEYWORD_ONLY)
