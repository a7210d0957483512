"""Wheels in clean environments: a compiled one, that has both implementations, and one of Python alone."""

from __future__ import annotations

import os
import site
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from interop.process import BrokerProcess

ROOT = Path(__file__).parents[2]


def run(*command: str | Path, **more: str) -> str:
    environment = {name: value for name, value in os.environ.items() if name not in UNWANTED} | more
    done = subprocess.run(command, check=False, capture_output=True, text=True, cwd="/", env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


UNWANTED = ("PYTHONPATH", "OTTLA_PURE", "OTTLA_COMPILE")


@pytest.fixture(scope="module", params=["compiled", "pure Python"])
def installed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The Python of an environment with nothing but a wheel of this clone, and what that is."""
    kind: str = request.param
    if kind == "compiled" and not (ROOT / "build" / "compiled" / "sources.json").exists():
        pytest.skip("nothing is compiled: make compiled")
    folder = tmp_path_factory.mktemp("wheel")
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet")
    asked = {"OTTLA_COMPILE": "1"} if kind == "compiled" else {}
    run(*pip, "wheel", "--no-deps", "--wheel-dir", folder, ROOT, **asked)
    (wheel,) = folder.glob("ottla-*.whl")
    assert wheel.name.endswith("-py3-none-any.whl") == (kind == "pure Python")
    python = folder / "environment" / "bin" / "python"
    run(sys.executable, "-m", "venv", "--without-pip", folder / "environment")
    run(*pip, "--python", python, "install", "--no-deps", wheel)
    # What it depends on is this environment's; of Ottla it has only the wheel.
    (packages,) = (folder / "environment" / "lib").glob("python*/site-packages")
    (packages / "dependencies.pth").write_text("\n".join(site.getsitepackages()))
    return python, kind


@contextmanager
def broker(python: Path, folder: Path, pure: str) -> Iterator[BrokerProcess]:
    serving = BrokerProcess(folder)
    serving.python, serving.environment = str(python), {"OTTLA_PURE": pure, "PYTHONPATH": ""}
    serving.start()
    try:
        yield serving
    finally:
        assert serving.stop() == 0, serving.log()


def test_what_is_installed_says_what_it_is(installed: tuple[Path, str]) -> None:
    python, kind = installed
    command = python.parent / "ottla"
    assert run(command, "--version").endswith(f"({kind})\n")
    assert run(command, "--version", OTTLA_PURE="1").endswith("(pure Python)\n")


@pytest.mark.parametrize("pure", ["", "1"])
def test_what_is_installed_serves(installed: tuple[Path, str], pure: str, tmp_path: Path) -> None:
    python, kind = installed
    with broker(python, tmp_path, pure) as serving:
        assert f"({'pure Python' if pure else kind})" in serving.log_lines()[0]
        command = (python.parent / "ottla", "produce", "t", "-b", serving.bootstrap)
        subprocess.run(command, input=b"one\ntwo\n", check=True, timeout=30, env={"PATH": os.environ["PATH"]})
        read = ("consume", "t", "-b", serving.bootstrap, "--from", "beginning", "--max", "2")
        assert run(python.parent / "ottla", *read).splitlines() == ["one", "two"]
