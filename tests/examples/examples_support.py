"""Running an example as its user does: one command, as a process, on a broker on a free port.

    def test_it(ottla_process, tmp_path):
        run = run_example("messaging", ottla_process().bootstrap, tmp_path, "--orders", "300")
        assert run.figures["orders placed"] == 300

The command has to end by itself within the timeout, and what it promises has to be kept; `run_example` fails
otherwise, with all that the command printed.

Pictures go to build/pictures; with OTTLA_PICTURES=docs they become those of the documents
(docs/pictures/NAME.svg), which is how these were made.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
ENVIRONMENTS = ROOT / "build" / "examples"
RUN_TIMEOUT_S = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What an example said at its end."""

    output: str
    figures: dict[str, Any]
    promises: dict[str, bool]


def python_of(name: str) -> Path:
    """The interpreter that has what the example needs."""
    python = ENVIRONMENTS / name / "bin" / "python"
    assert python.exists(), f"{name} is not prepared: run scripts/examples-deps.sh {name}"
    return python


def picture_of(name: str, suffix: str = "svg") -> Path:
    """Where the picture of an example goes."""
    folder = ROOT / "docs" if os.environ.get("OTTLA_PICTURES") == "docs" else ROOT / "build"
    (folder / "pictures").mkdir(parents=True, exist_ok=True)
    return folder / "pictures" / f"{name}.{suffix}"


def start(name: str, *arguments: str, module: str = "") -> subprocess.Popen[str]:
    """Start `python -m examples.NAME` (or a module of it) in the example's environment."""
    target = f"examples.{name}.{module}" if module else f"examples.{name}"
    return subprocess.Popen(
        [python_of(name), "-m", target, *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def output_of(process: subprocess.Popen[str], timeout_s: float = RUN_TIMEOUT_S) -> str:
    """What it printed until its end; past the timeout it is stopped, then killed, and the test fails."""
    try:
        return process.communicate(timeout=timeout_s)[0]
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGTERM)
        try:
            output = process.communicate(timeout=60)[0]
        except subprocess.TimeoutExpired:
            process.kill()
            output = process.communicate()[0]
        raise AssertionError(f"not done after {timeout_s} s:\n{output}") from None


def run_example(
    name: str, bootstrap: str, scratch: Path, *arguments: str, timeout_s: float = RUN_TIMEOUT_S
) -> Run:
    """Run the example's one command to its end, and give what it said."""
    summary = scratch / "summary.json"
    process = start(name, "--bootstrap", bootstrap, "--summary", str(summary), *arguments)
    output = output_of(process, timeout_s)
    assert process.returncode == 0, f"{name} exited with {process.returncode}:\n{output}"
    content = json.loads(summary.read_text())
    assert all(content["promises"].values()), output
    return Run(output=output, figures=content["figures"], promises=content["promises"])
