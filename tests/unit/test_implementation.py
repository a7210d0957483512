"""Which implementation is chosen: whole and current compiled modules, or none of them."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
import tomllib
from importlib import import_module
from importlib.machinery import EXTENSION_SUFFIXES, PathFinder
from importlib.util import source_hash
from pathlib import Path
from types import ModuleType

import pytest

from ottla import implementation
from ottla.implementation import LIBRARY, SOURCES_FILE, hash_of, use_build

ROOT = Path(__file__).parents[2]
# One that no test has imported, and nothing compiles.
MODULE = "ottla.testing.nothing"
OUTDATED = f", since {MODULE} is not what was compiled"
SUFFIX = EXTENSION_SUFFIXES[0]


def listed(state: str) -> str:
    return json.dumps({"modules": [MODULE], "sources": {MODULE: state}})


@pytest.fixture
def build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A build of one module, as far as can be told without loading it."""
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    monkeypatch.setattr(implementation, "_changed", [])
    monkeypatch.delenv(implementation.PURE_VARIABLE, raising=False)
    monkeypatch.setattr(implementation, "hash_of", lambda module: "as it is")
    (tmp_path / "ottla" / "testing").mkdir(parents=True)
    for name in (LIBRARY, "ottla/testing/nothing"):
        (tmp_path / f"{name}{SUFFIX}").touch()
    (tmp_path / SOURCES_FILE).write_text(listed("as it is"))
    return tmp_path


def test_a_current_build_is_taken(build: Path) -> None:
    assert use_build(str(build))
    finder = sys.meta_path[0]
    spec = finder.find_spec(MODULE, [str(ROOT / "src" / "ottla" / "testing")])
    assert spec is not None and spec.origin == str(build / "ottla" / "testing" / f"nothing{SUFFIX}")
    library = finder.find_spec(LIBRARY, None)
    assert library is not None and library.origin == str(build / f"{LIBRARY}{SUFFIX}")
    assert finder.find_spec("ottla.process", [str(ROOT / "src" / "ottla")]) is None


@pytest.mark.parametrize(
    "lack", ["no list", "no list at all", "changed", "no library", "no module", "imported", "not wanted"]
)
def test_a_build_that_is_not_whole_or_current_is_left(
    build: Path, lack: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    match lack:
        case "no list":
            (build / SOURCES_FILE).unlink()
        case "no list at all":
            (build / SOURCES_FILE).write_text("{")
        case "changed":
            (build / SOURCES_FILE).write_text(listed("as it was"))
        case "no library":
            (build / f"{LIBRARY}{SUFFIX}").unlink()
        case "no module":
            (build / "ottla" / "testing" / f"nothing{SUFFIX}").unlink()
        case "imported":
            monkeypatch.setitem(sys.modules, MODULE, sys)
        case "not wanted":
            monkeypatch.setenv(implementation.PURE_VARIABLE, "1")
    before = list(sys.meta_path)
    assert not use_build(str(build))
    assert sys.meta_path == before
    # Who works on the sources is told why what was compiled does not run.
    assert implementation.name() == f"pure Python{OUTDATED if lack == 'changed' else ''}"


def test_a_changed_source_has_another_hash(tmp_path: Path) -> None:
    package = tmp_path / "ottla"
    package.mkdir()
    (package / "one.py").write_text("a = 1\n")
    before = hash_of("ottla.one", str(package))
    assert before == hash_of("ottla.one", str(package)) is not None
    (package / "one.py").write_text("a = 2\n")
    assert hash_of("ottla.one", str(package)) not in (before, None)
    assert hash_of("ottla.none", str(package)) is None


def test_sources_are_found_beside_compiled_modules(tmp_path: Path) -> None:
    (tmp_path / "one.py").touch()
    (tmp_path / f"one{SUFFIX}").touch()
    compiled = PathFinder.find_spec("ottla.one", [str(tmp_path)])
    assert compiled is not None and compiled.origin == str(tmp_path / f"one{SUFFIX}")
    finder = implementation._SourcesOnly()
    spec = finder.find_spec("ottla.one", [str(tmp_path)])
    assert spec is not None and spec.origin == str(tmp_path / "one.py")
    assert finder.find_spec("another.one", [str(tmp_path)]) is None
    (tmp_path / f"two{SUFFIX}").touch()
    with pytest.raises(ModuleNotFoundError):
        finder.find_spec("ottla.two", [str(tmp_path)])


@pytest.mark.parametrize(("value", "pure"), [(None, False), ("", False), ("0", False), ("1", True)])
def test_what_asks_for_python(value: str | None, pure: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(implementation.PURE_VARIABLE, raising=False)
    if value is not None:
        monkeypatch.setenv(implementation.PURE_VARIABLE, value)
    assert implementation.is_pure_wanted() is pure


def test_tests_look_into_python(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a clone nothing but the command takes compiled modules, whatever `make compiled` has made."""
    assert implementation.name() == "pure Python"
    script = "from ottla import implementation as i; import ottla.node; print(i.name())"
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert done.stdout == "pure Python\n"


def test_what_is_compiled_exists() -> None:
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["ottla"]["compiled"]
    assert implementation.PROBE in listed
    assert len(set(listed)) == len(listed)
    assert [module for module in listed if hash_of(module) is None] == []


@pytest.fixture
def compiling(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    return import_module("compiling")


def test_make_knows_what_a_build_is_made_of(compiling: ModuleType) -> None:
    """Else it would make nothing where a source has changed, and Python's own would run with no word."""
    database = ("make", "--print-data-base", "--dry-run", "help")
    rules = subprocess.run(database, check=True, capture_output=True, text=True, cwd=ROOT).stdout
    (rule,) = [line for line in rules.splitlines() if line.startswith("build/compiled/sources.json: ")]
    for module in compiling.sources():
        path = f"{module.replace('.', '/')}.py"
        assert (path if module in compiling.MADE_BY else f"src/{path}") in rule.split()


def test_a_build_is_not_current_where_what_it_is_made_by_has_changed(compiling: ModuleType) -> None:
    """Nor would the `ottla` command take it: both ask for the same hashes."""
    sources = compiling.sources()
    assert None not in sources.values()
    for script in ("compiling", "generating"):
        path = ROOT / "scripts" / f"{script}.py"
        assert sources[f"scripts.{script}"] == source_hash(path.read_bytes()).hex()


def test_units_have_each_file_once_and_about_as_much(compiling: ModuleType, tmp_path: Path) -> None:
    sizes = [1000, *([90] * 40), *range(30)]
    sources = [tmp_path / f"{number}.c" for number in range(len(sizes))]
    for source, size in zip(sources, sizes, strict=True):
        source.write_bytes(b"/" * size)
    units = compiling.write_units([str(source) for source in sources], tmp_path)
    assert len(units) == compiling.UNITS
    included = [re.findall(r'#include "(.*)"', Path(unit).read_text()) for unit in units]
    assert sorted(name for names in included for name in names) == sorted(map(str, sources))
    loads = sorted(sum(Path(name).stat().st_size for name in names) for names in included)
    # The largest is alone; the others differ by less than one of theirs.
    assert loads[-1] == 1000
    assert loads[-2] - loads[0] <= 90


def test_what_cannot_be_compiled_is_said(
    compiling: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*paths: object, **options: object) -> None:
        print("log.py:1: error: not so")
        sys.exit(1)

    monkeypatch.setattr("mypyc.build.mypycify", refuse)
    with pytest.raises(SystemExit, match="not so"):
        compiling.compile_into(tmp_path / "compiled")
    assert not compiling.is_current(tmp_path / "compiled")


def test_what_is_not_compiled_has_no_compiled_base() -> None:
    """mypyc's classes take no subclasses from outside: the module could not be imported beside them."""
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["ottla"]["compiled"]
    source = ROOT / "src"
    found = []
    for path in sorted(source.rglob("*.py")):
        module = ".".join(path.relative_to(source).with_suffix("").parts)
        if module not in listed:
            tree = ast.parse(path.read_text())
            names = imported_names(tree)
            for node in ast.walk(tree):
                if isinstance(node, ast.ClassDef):
                    bases = [full_name(ast.unparse(base), names) for base in node.bases]
                    found += [f"{module}.{node.name}" for base in bases if base.rpartition(".")[0] in listed]
    assert found == []


def imported_names(tree: ast.Module) -> dict[str, str]:
    names: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            names |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    return names


def full_name(base: str, names: dict[str, str]) -> str:
    """A base class with its module, where it was imported from one."""
    first, _, rest = base.partition("[")[0].partition(".")
    return f"{names.get(first, first)}.{rest}" if rest else names.get(first, first)
