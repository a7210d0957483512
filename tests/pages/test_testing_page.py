"""Every code block of docs/TESTING.md is run, or where it needs a framework that is not installed, compiled.

A block of Python runs with a `broker`, which has the topic `orders` of three partitions; one that starts its
own broker or cluster runs by itself. Blocks with a title are files: pytest runs the tests among them.
"""

from __future__ import annotations

import ast
import importlib.util
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from ottla.testing import Broker
from pages.page import Block, blocks

PAGE = "docs/TESTING.md"
# Blocks in the words of shells that install, and those that are output or a picture.
NOT_RUN = ("sh", "text", "mermaid")
# Tests with these are run where they are installed.
FRAMEWORKS = {"anyio", "django", "fastapi", "pytest_asyncio", "shop_api", "shop_django"}
# What names the plugin of a marker that is not imported.
MARKERS = {"pytest.mark.asyncio": "pytest_asyncio", "pytest.mark.anyio": "anyio"}

ALL = blocks(PAGE)
PROGRAMS = [block for block in ALL if block.language == "python" and not block.title]
FILES = [block for block in ALL if block.language == "python" and block.title]
DATA = [block for block in ALL if block.language in ("yaml", "toml")]


def needs(block: Block) -> set[str]:
    """The frameworks that a file of the page needs."""
    found = {name for marker, name in MARKERS.items() if marker in block.text}
    for node in ast.walk(ast.parse(block.text)):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.partition(".")[0])
    return found & FRAMEWORKS


def test_each_block_is_of_a_kind_that_is_looked_at() -> None:
    assert [
        block for block in ALL if block not in PROGRAMS + FILES + DATA and block.language not in NOT_RUN
    ] == []
    assert len(PROGRAMS) >= 8
    assert len(FILES) >= 8


@pytest.mark.parametrize("block", PROGRAMS, ids=lambda block: f"line {block.line}")
def test_a_program_runs(block: Block) -> None:
    code = compile(block.text, f"{PAGE}:{block.line}", "exec")
    if "with Broker(" in block.text or "with Cluster(" in block.text:
        exec(code, {"__name__": "program"})
        return
    with Broker(topics={"orders": 3}) as broker:
        exec(code, {"broker": broker})


def test_files_are_tests_that_pass(tmp_path: Path) -> None:
    expected = 0
    for block in FILES:
        compile(block.text, block.title, "exec")
        if all(importlib.util.find_spec(name) for name in needs(block) - {"shop_api", "shop_django"}):
            (tmp_path / block.title).write_text(block.text)
            expected += block.text.count("def test_") if block.title.startswith("test_") else 0
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", "/dev/null", "--rootdir", "."],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert f"{expected} passed" in done.stdout, done.stdout + done.stderr
    assert expected >= 2


@pytest.mark.parametrize("block", DATA, ids=lambda block: f"line {block.line}")
def test_data_can_be_read(block: Block) -> None:
    if block.language == "toml":
        assert "pytest" in tomllib.loads(block.text)["tool"]
        return
    read = yaml.safe_load(block.text)
    jobs = read["jobs"].values() if "jobs" in read else [read["test"]]
    for job in jobs:
        lines = [step["run"] for step in job["steps"] if "run" in step] if "steps" in job else job["script"]
        assert any(line.startswith("pip install ottla") for line in lines)
        assert any(line.startswith("pytest") for line in lines)
