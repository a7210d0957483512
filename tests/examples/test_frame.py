"""What is true of every example: it can be run, found, read about, and says so when there is no broker."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from examples_support import ROOT, output_of, start

EXAMPLES = sorted(path.parent.name for path in (ROOT / "examples").glob("*/__main__.py"))
README_LINES_MAX = 70


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_has_its_recipe_its_readme_its_test_and_its_place_in_the_table(name: str) -> None:
    makefile = (ROOT / "Makefile").read_text()
    assert f"\nexample-{name}:" in makefile
    assert name in re.findall(r"^EXAMPLES := (.*)$", makefile, re.MULTILINE)[0].split()
    assert f"]({name}/README.md)" in (ROOT / "examples" / "README.md").read_text()
    assert (Path(__file__).parent / f"test_{name}.py").exists()
    readme = (ROOT / "examples" / name / "README.md").read_text()
    assert f"make example-{name}" in readme
    assert len(readme.splitlines()) <= README_LINES_MAX, "a README is a screenful"


@pytest.mark.parametrize("name", EXAMPLES)
def test_without_a_broker_an_example_says_how_to_start_one(name: str) -> None:
    """Port 1 is nobody's."""
    process = start(name, "--bootstrap", "127.0.0.1:1", "--seconds", "1")
    output = output_of(process, 60)
    assert process.returncode == 2, output
    assert "make run" in output
    assert "Traceback" not in output
