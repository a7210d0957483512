"""Wheels in clean environments: a compiled one, that has both implementations, and one of Python alone; what
`pip install ottla` brings, and how large that is."""

from __future__ import annotations

import os
import site
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.metadata import distributions
from pathlib import Path

import pytest

from interop.process import BrokerProcess

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "scripts"))

from licences_docs import PACKAGES, requirements  # noqa: E402 - of scripts/


def run(*command: str | Path, **more: str) -> str:
    environment = {name: value for name, value in os.environ.items() if name not in UNWANTED} | more
    done = subprocess.run(command, check=False, capture_output=True, text=True, cwd="/", env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


# The last: bytecode of the new environments is kept.
UNWANTED = ("PYTHONPATH", "OTTLA_PURE", "OTTLA_COMPILE", "PYTHONDONTWRITEBYTECODE")


PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet")


@cache
def wheel_of(kind: str, folder: Path) -> Path:
    """A wheel of this clone, made once."""
    asked = {"OTTLA_COMPILE": "1"} if kind == "compiled" else {}
    run(*PIP, "wheel", "--no-deps", "--wheel-dir", folder, ROOT, **asked)
    (wheel,) = folder.glob("ottla-*.whl")
    assert wheel.name.endswith("-py3-none-any.whl") == (kind == "pure Python")
    return wheel


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Where the wheel of each kind is made."""
    return {kind: tmp_path_factory.mktemp("wheel") for kind in ("compiled", "pure Python")}


@pytest.fixture(scope="module", params=["compiled", "pure Python"])
def installed(request: pytest.FixtureRequest, folders: dict[str, Path]) -> tuple[Path, str]:
    """The Python of an environment with nothing but a wheel of this clone, and what that is."""
    kind: str = request.param
    if kind == "compiled" and not (ROOT / "build" / "compiled" / "sources.json").exists():
        pytest.skip("nothing is compiled: make compiled")
    folder = folders[kind]
    wheel = wheel_of(kind, folder)
    python = folder / "environment" / "bin" / "python"
    run(sys.executable, "-m", "venv", "--without-pip", folder / "environment")
    run(*PIP, "--python", python, "install", "--no-deps", wheel)
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
        subprocess.run(command, input=b"one\ntwo\n", check=True, timeout=60, env={"PATH": os.environ["PATH"]})
        read = ("consume", "t", "-b", serving.bootstrap, "--from", "beginning", "--max", "2")
        assert run(python.parent / "ottla", *read).splitlines() == ["one", "two"]


# ------------------------------------------------------------ what `pip install ottla` brings

# Packages beside Ottla that the base has; megabytes of base and everything without bytecode, with room.
BASE = {"cramjam", "crc32c", "fastcrc", "kio", "typing-extensions", "uvloop"}
BASE_MEGABYTES_MAX = 35
ALL_MEGABYTES_MAX = 100

USES = """
from ottla.testing import Broker

def test_broker():
    with Broker(topics={"orders": 3}, users={"ann": "secret"}) as broker:
        broker.produce("orders", b"one", b"two", partition=2)
        assert [record.value for record in broker.records("orders")] == [b"one", b"two"]

def test_fixtures(ottla_broker, ottla_topic):
    ottla_broker.produce(ottla_topic, b"one")
    assert [record.value for record in ottla_broker.records(ottla_topic)] == [b"one"]
"""


@pytest.fixture(scope="module")
def base(folders: dict[str, Path]) -> Path:
    """The Python of an environment that `pip install ottla pytest` has made, and nothing else."""
    folder = folders["pure Python"]
    wheel, python = wheel_of("pure Python", folder), folder / "base" / "bin" / "python"
    run(sys.executable, "-m", "venv", "--without-pip", folder / "base")
    run(*PIP, "--python", python, "install", "--no-compile", wheel, "pytest")
    return python


def sizes(*folders: str | Path) -> dict[str, float]:
    """The megabytes of the packages in folders of packages."""
    found = {}
    for one in distributions(path=list(map(str, folders))):
        files = [Path(str(path.locate())) for path in one.files or () if path.suffix != ".pyc"]
        name = one.metadata["Name"].lower().replace("_", "-")
        found[name] = sum(path.stat().st_size for path in files if path.exists()) / 1e6
    return found


def test_the_base_is_small(base: Path) -> None:
    found = sizes(*(base.parent.parent / "lib").glob("python*/site-packages"))
    pytests = {"pytest", "pluggy", "iniconfig", "packaging", "pygments"}
    assert found.keys() - pytests == {"ottla"} | BASE
    assert sum(size for name, size in found.items() if name not in pytests) < BASE_MEGABYTES_MAX


def test_everything_is_not_large() -> None:
    """By what is installed here: an environment of its own would take a minute."""
    found = sizes(*site.getsitepackages())
    names = PACKAGES.keys() - requirements("gssapi").keys() - {"decorator"}
    everything = sum(size for name, size in found.items() if name in names)
    assert everything < ALL_MEGABYTES_MAX, {name: found.get(name) for name in sorted(names)}


def test_the_base_has_an_embedded_broker_and_the_fixtures_of_pytest(base: Path, tmp_path: Path) -> None:
    (tmp_path / "test_uses.py").write_text(USES)
    shown = run(base, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", tmp_path, tmp_path)
    assert "2 passed" in shown


def test_the_base_has_the_command_to_serve(base: Path, tmp_path: Path) -> None:
    with broker(base, tmp_path, "") as serving:
        assert "(pure Python)" in serving.log_lines()[0]
    assert run(base, "-m", "ottla", "--version") == run(base.parent / "ottla", "--version")
    done = subprocess.run(
        (base.parent / "ottla", "topic", "list"), check=False, capture_output=True, text=True
    )
    line = "ottla: the command 'topic' needs the extra \"cli\": pip install 'ottla[cli]'\n"
    assert (done.returncode, done.stdout, done.stderr) == (1, "", line)
