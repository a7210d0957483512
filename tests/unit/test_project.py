"""The habits of the house, as far as a test can see them: size, docstrings, current and complete docs."""

from __future__ import annotations

import ast
import os
import pty
import re
import shutil
import subprocess
import sys
import tokenize
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from ottla.wire.apis import APIS, Api
from scripts import links

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "ottla"

FUNCTION_LINES_MAX = 70
MODULE_LINES_MAX = 525
HANDLER_HEADER_CHARACTERS_MIN = 120

# Modules and functions that may be longer, and why.
LONGER_MODULES: dict[str, str] = {
    "src/ottla/log/log.py": "one class whose fields nobody else writes; a third of it are its promises",
}
LONGER_FUNCTIONS = {
    "src/ottla/cli/app.py:serve": "the options of a Typer command are its parameters",
    "src/ottla/cli/consume.py:consume": "the options of a Typer command are its parameters",
    "src/ottla/cli/explore.py:explore": "the options of a Typer command are its parameters",
    "src/ottla/cli/produce.py:produce": "the options of a Typer command are its parameters",
}

Function = ast.FunctionDef | ast.AsyncFunctionDef


def sources(*folders: Path) -> list[Path]:
    return sorted(path for folder in folders for path in folder.rglob("*.py"))


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), str(path))


# For what is looked at again and again: the trees of all tests would take 200 MB.
parsed = cache(parse)


@pytest.fixture(scope="module", autouse=True)
def _forgets_what_it_parsed() -> Iterator[None]:
    """Else the trees of all sources would be there for every collection of garbage of later tests."""
    yield
    parsed.cache_clear()


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


def functions(path: Path) -> Iterator[tuple[str, Function]]:
    """Every function of a module with its qualified name, nested ones included."""

    def walk(node: ast.AST, prefix: str) -> Iterator[tuple[str, Function]]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, Function | ast.ClassDef):
                name = f"{prefix}{child.name}"
                if isinstance(child, Function):
                    yield name, child
                yield from walk(child, f"{name}.")
            else:
                yield from walk(child, prefix)

    yield from walk(parsed(path), "")


def length(function: Function) -> int:
    assert function.end_lineno is not None
    return function.end_lineno - function.lineno + 1


def test_no_module_grows_beyond_what_one_can_hold_in_mind() -> None:
    lengths = {named(path): len(path.read_text().splitlines()) for path in sources(SOURCE)}
    longer = {name: n for name, n in lengths.items() if n > MODULE_LINES_MAX and name not in LONGER_MODULES}
    assert not longer, f"split these, or list them with a reason: {longer}"


def test_no_function_grows_beyond_a_page() -> None:
    longer = {
        full_name: lines
        for path in sources(SOURCE)
        for name, function in functions(path)
        if (lines := length(function)) > FUNCTION_LINES_MAX
        and (full_name := f"{named(path)}:{name}") not in LONGER_FUNCTIONS
    }
    assert not longer, f"split these, or list them with a reason: {longer}"


def has_docstring(path: Path) -> bool:
    """Whether a module begins with a statement that is a string. Nothing behind it is read."""
    with tokenize.open(path) as file:
        kinds = (token.type for token in tokenize.generate_tokens(file.readline))
        first = next(kind for kind in kinds if kind not in (tokenize.COMMENT, tokenize.NL))
        return first == tokenize.STRING and next(kinds) == tokenize.NEWLINE


def test_every_module_says_what_it_is() -> None:
    folders = [ROOT / name for name in ("src", "tests", "scripts", "bench", "examples")]
    silent = [
        named(path)
        for path in sources(*folders)
        if path.stat().st_size and "node_modules" not in path.parts and not has_docstring(path)
    ]
    assert not silent


@pytest.mark.parametrize(
    ("text", "has"),
    [
        ('"""It."""\nx = 1\n', True),
        ('# why\n\nr"""It."""\n', True),
        ('x = 1\n"""It."""\n', False),
        ('"a" + x\n', False),
        ("# why\n", False),
    ],
)
def test_a_docstring_is_the_first_statement(tmp_path: Path, text: str, has: bool) -> None:
    (tmp_path / "m.py").write_text(text)
    assert has_docstring(tmp_path / "m.py") is has


def test_every_folder_of_the_package_says_what_it_is() -> None:
    silent = [named(path) for path in SOURCE.rglob("__init__.py") if not ast.get_docstring(parsed(path))]
    assert not silent


@pytest.mark.parametrize("api", APIS.values(), ids=lambda api: api.name)
def test_every_api_has_a_handler_whose_header_says_what_it_does(api: Api) -> None:
    """Behaviour always; where there is more than one version, what the versions add."""
    path = SOURCE / "broker" / "api" / api.room / api.schema
    path = path / "handler.py" if path.is_dir() else path.with_suffix(".py")
    assert path.exists()
    header = ast.get_docstring(parsed(path)) or ""
    assert header.startswith(api.name)
    if api.version_min != api.version_max:
        assert len(header) >= HANDLER_HEADER_CHARACTERS_MIN
        assert re.search(r"\bversion|\bv\d", header, re.IGNORECASE)


def test_nothing_is_caught_and_forgotten() -> None:
    """A broad except may stand only where the error is logged or raised again."""
    silent = []
    for path in sources(SOURCE):
        for node in ast.walk(parsed(path)):
            if not isinstance(node, ast.ExceptHandler):
                continue
            broad = node.type is None or (
                isinstance(node.type, ast.Name) and node.type.id in ("Exception", "BaseException")
            )
            if broad and all(isinstance(statement, ast.Pass | ast.Continue) for statement in node.body):
                silent.append(f"{named(path)}:{node.lineno}")
    assert not silent


# Clocks of CPU time, and what counts memory: one figure of theirs says little.
MEASURES = re.compile(r"\b(process_time|thread_time|perf_counter|thread_cpu_ms|getrusage|tracemalloc)\b")
# Tests that may use them themselves, and why.
MEASURING = {
    "tests/measuring.py": "the place for it",
    "tests/unit/test_project.py": "names them",
    "tests/unit/budget_support.py": "notes what each step takes; its users give that to `measuring`",
    "tests/unit/test_log_lookups.py": "notes what each piece takes, and gives that to `measuring`",
    "tests/unit/test_testing_broker.py": "a process of its own tells, and that goes to `measuring`",
    "tests/scenarios/test_etcd_cost.py": "a process of its own tells, and that goes to `measuring`",
    "tests/scenarios/test_pauses.py": "what is tested takes the clock; its figures go to `measuring`",
    "tests/unit/test_env_garbage.py": "what is tested takes the clock",
    "tests/sim/test_programs.py": "the clocks of a simulated run are tested",
    "tests/unit/test_env_lag.py": "what is tested takes the clock",
    "tests/unit/test_broker_throttling.py": "gives what is tested a clock of its own",
    "tests/security/test_quotas.py": "gives what is tested a clock of its own",
    "tests/unit/test_cli_bench.py": "works for so long",
    "tests/unit/test_wire_limits.py": "bytes that Python code allocates are the same each time",
}
CLOCKS = ("monotonic", "perf_counter", "process_time", "thread_time", "time")


def is_short_time(node: ast.AST) -> bool:
    """``clock() - began < bound``, also at the end of a chain of comparisons."""
    if not isinstance(node, ast.Compare):
        return False
    sides = [node.left, *node.comparators]
    return any(
        isinstance(side, ast.BinOp)
        and isinstance(side.op, ast.Sub)
        and isinstance(side.left, ast.Call)
        and isinstance(side.left.func, ast.Attribute)
        and side.left.func.attr in CLOCKS
        and isinstance(operator, ast.Lt | ast.LtE)
        for side, operator in zip(sides, node.ops, strict=False)
    )


def test_no_test_compares_one_measured_time_with_a_number() -> None:
    """`tests/measuring.py` measures again, and knows how slow the machine is. (In `tests/sim` time is not
    a machine's.)"""
    found = [
        named(path)
        for path in sources(ROOT / "tests")
        if named(path) not in MEASURING and MEASURES.search(path.read_text())
    ]
    found += [
        f"{named(path)}:{node.lineno}"
        for path in sources(ROOT / "tests")
        if path.parent.name != "sim"
        for statement in ast.walk(parse(path))
        if isinstance(statement, ast.Assert)
        for node in ast.walk(statement)
        if is_short_time(node)
    ]
    assert not found, f"measure with tests/measuring.py: {found}"


@pytest.mark.parametrize(
    ("said", "is_one"),
    [
        ("time.monotonic() - began < 5", True),
        ("0.1 < time.monotonic() - began <= 5", True),
        ("loop.time() - began < 5", True),
        ("time.monotonic() - began >= 5", False),
        ("time.monotonic() < deadline", False),
        ("0.1 < time.monotonic() - began", False),
    ],
)
def test_a_time_that_is_compared_with_a_number_is_noticed(said: str, is_one: bool) -> None:
    assert is_short_time(ast.parse(said, mode="eval").body) is is_one


# ------------------------------------------------------------ the recipes


def make_targets() -> dict[str, str]:
    """The targets of the Makefile that are for people, and their lines of help."""
    text = (ROOT / "Makefile").read_text()
    (phony,) = re.findall(r"^\.PHONY: (.*)$", text, re.MULTILINE)
    helps = dict(re.findall(r"^([a-z-]+):.*?## (.+)$", text, re.MULTILINE))
    return {target: helps.get(target, "") for target in phony.split()}


def test_every_make_target_has_its_line_of_help() -> None:
    undocumented = [target for target, text in make_targets().items() if not text.endswith(".")]
    assert not undocumented
    defined = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert defined == make_targets().keys(), "targets and .PHONY differ"


def test_every_make_target_is_in_the_guide_for_contributors() -> None:
    guide = (ROOT / "CONTRIBUTING.md").read_text()
    assert not [target for target in make_targets() if f"`make {target}`" not in guide]


def test_make_help_lists_every_target() -> None:
    command = ["make", "--no-print-directory", "help"]
    shown = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    assert [line.split()[1] for line in shown.splitlines()] == list(make_targets())


def test_debian_packages_are_named_in_one_place_only() -> None:
    others = [
        named(path)
        for path in tracked()
        if path.suffix not in (".md",)
        and path.name != "debian-packages.sh"
        and path != Path(__file__)
        and re.search(r"\bapt(-get)? (-\S+ )*(install|update)\b", path.read_text(errors="replace"))
    ]
    assert not others


def test_continuous_integration_runs_make_test() -> None:
    script = ROOT / ".ci" / "run"
    assert script.stat().st_mode & 0o111
    assert script.read_text().splitlines()[-1] == "exec make test"


# ------------------------------------------------------------ the documents


def test_the_generated_pages_are_current() -> None:
    check = [sys.executable, ROOT / "scripts" / "docs.py", "--check"]
    result = subprocess.run(check, check=False, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def markdown() -> list[Path]:
    return [path for path in tracked() if path.suffix == ".md"]


def test_links_between_the_documents_lead_somewhere() -> None:
    assert not links.broken(ROOT, markdown())


def test_paths_that_the_documents_name_exist() -> None:
    """`src/…`, `tests/…`, `docs/…`, `scripts/…` in backticks, when they name one file."""
    pattern = re.compile(r"`((?:src|tests|docs|scripts|bench|examples)/[\w./-]+\.\w+)`")
    broken = [
        f"{named(page)}: {path}"
        for page in markdown()
        for path in pattern.findall(page.read_text())
        if not (ROOT / path).exists()
    ]
    assert not broken


def test_tests_that_the_documents_name_exist() -> None:
    """`tests/….py::test_…`: what a document says is shown by a test is."""
    broken = []
    for page in markdown():
        for path, name in re.findall(r"`(tests/[\w./-]+\.py)::(\w+)`", page.read_text()):
            known = {found for found, _ in functions(ROOT / path)} if (ROOT / path).exists() else set()
            if name not in known:
                broken.append(f"{named(page)}: {path}::{name}")
    assert not broken


def test_every_fault_is_shown_by_a_test() -> None:
    rows = [
        row
        for row in (ROOT / "docs" / "FAULTS-IN-DETAIL.md").read_text().splitlines()
        if row.startswith("| ") and not row.startswith(("| Fault", "| ---"))
    ]
    assert rows
    assert not [row for row in rows if not re.search(r"`tests/[\w./-]+\.py::\w+`", row)]


def test_decisions_have_numbers_of_their_own() -> None:
    numbers = [path.name[:4] for path in (ROOT / "docs" / "decisions").glob("[0-9]*.md")]
    assert len(numbers) == len(set(numbers))


def test_the_changelog_has_the_current_version() -> None:
    from ottla import __version__

    changelog = (ROOT / "CHANGELOG.md").read_text()
    found = re.search(r"^## (\S+) \((.+)\)$", changelog, re.MULTILINE)
    assert found is not None
    assert found[1] == __version__.removesuffix(".dev0")
    assert (found[2] == "unreleased") == __version__.endswith(".dev0")


def test_the_licence_is_what_the_package_says() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["license"] == "Apache-2.0"
    assert "Version 2.0, January 2004" in (ROOT / "LICENSE").read_text()


# ------------------------------------------------------------ what must not be in the repository


@cache
def tracked() -> tuple[Path, ...]:
    """The text files that are in the repository, or would be with the next commit."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    paths = [ROOT / name for name in listed.split("\0") if name]
    return tuple(path for path in paths if path.is_file() and b"\0" not in path.read_bytes()[:1024])


# Folders of one machine, and hosts of one network.
MACHINE_PATHS = re.compile(
    r"(?<![\w.])/(?:root|home/[a-z]\w*|work|workspace|opt/(?:pypi|wheels))/|/tmp/[a-z]+/|\.pyenv/"
)


def test_the_repository_names_no_paths_of_somebodys_machine() -> None:
    found = [
        f"{named(path)}:{number}: {line.strip()[:80]}"
        for path in tracked()
        if path != Path(__file__)
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1)
        if MACHINE_PATHS.search(line)
    ]
    assert not found


def test_no_file_is_large() -> None:
    large = {named(path): size for path in tracked() if (size := path.stat().st_size) > 400_000}
    assert not large


# ------------------------------------------------------------ packages of the system


def asked_for_packages(
    folder: Path, *, root: bool, terminal: str | None = None, **environment: str
) -> tuple[int, str, list[str]]:
    """Ask for the packages of `kcat` where none are there: the exit code, what is said, and what apt-get and
    sudo are called with. ``terminal``: what somebody types there; None: there is none."""
    stubs = folder / "stubs"
    stubs.mkdir()
    calls = folder / "calls"
    scripts = {
        "id": f"echo {0 if root else 1000}",
        "apt-get": f'echo "apt-get $*" >> {calls}\n'
        f'case "$*" in *install*) touch {stubs}/kcat; chmod +x {stubs}/kcat;; esac',
        "sudo": f'echo "sudo" >> {calls}; "$@"',
    }
    for name, script in scripts.items():
        (stubs / name).write_text(f"#!/bin/sh\n{script}\n")
        (stubs / name).chmod(0o755)
    for name in ("sh", "env", "dirname", "chmod", "touch", "ls"):
        found = shutil.which(name)
        assert found is not None
        (stubs / name).symlink_to(found)
    master, slave = pty.openpty()
    try:
        process = subprocess.Popen(
            ["sh", ROOT / "scripts" / "debian-packages.sh", "kcat"],
            stdin=subprocess.DEVNULL if terminal is None else slave,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={"PATH": str(stubs), **environment},
        )
        os.write(master, (terminal or "").encode())
        said, _ = process.communicate(timeout=60)
    finally:
        os.close(master)
        os.close(slave)
    return process.returncode, said, calls.read_text().splitlines() if calls.exists() else []


@pytest.mark.parametrize(
    ("asked", "installed"),
    [
        ({"root": False}, False),
        ({"root": False, "terminal": "n\n"}, False),
        ({"root": False, "terminal": "\n"}, False),
        ({"root": False, "terminal": "y\n"}, True),
        ({"root": False, "OTTLA_APT": "1"}, True),
        ({"root": True}, True),
        ({"root": True, "terminal": "n\n"}, False),
    ],
)
def test_packages_are_installed_only_where_somebody_wants_that(
    tmp_path: Path, asked: dict[str, Any], installed: bool
) -> None:
    code, said, calls = asked_for_packages(tmp_path, **asked)
    assert "kcat (tests: other clients of Kafka)" in said
    assert ("apt-get install kcat" if asked["root"] else "sudo apt-get install kcat") in said
    assert bool(calls) == installed == (code == 0), (calls, said)
    assert ("sudo" in calls) == (installed and not asked["root"])
    if code and "terminal" not in asked:
        assert "OTTLA_APT=1" in said


def test_compiled_functions_have_a_name_for_each_kind_of_exception() -> None:
    """mypyc gives a name one type: an exception of another kind that is caught by it is a TypeError then."""
    with (ROOT / "pyproject.toml").open("rb") as file:
        compiled = tomllib.load(file)["tool"]["ottla"]["compiled"]
    found = []
    for module in compiled:
        path = ROOT / "src" / f"{module.replace('.', '/')}.py"
        for name, function in functions(path):
            kinds: dict[str, set[str]] = {}
            for node in ast.walk(function):
                if isinstance(node, ast.ExceptHandler) and node.name and node.type is not None:
                    kinds.setdefault(node.name, set()).add(ast.unparse(node.type))
            found += [f"{module}.{name}: {caught}" for caught, types in kinds.items() if len(types) > 1]
    assert not found
