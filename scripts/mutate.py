"""mutate.py [FILE …] [--seed N] [--count N]: break the code in one place at a time; does a test notice?

A mutant is one small change to one module: a comparison that is off by one, a condition turned round, a call
or an assignment left out. First the unit tests of the modules' layers run once, and it is noted which
functions each of them enters (``entered.py``). For each mutant those run that enter its function: first the
ones that stand next to the module (``tests/unit`` files named after it, or importing it), then others, the
quickest first. What none of them notices is shown as a change to the source: either it changes nothing, which
a reader has to say, or a test is missing.

The source is copied first; the tree itself is not touched. The same seed makes the same mutants.
"""

from __future__ import annotations

import argparse
import ast
import functools
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
LAYERS = ("log", "replication", "metadata", "coordinators", "broker", "wire", "env", "config", "security")
# A mutant may make tests wait for ever: it is noticed when they take so many times as long as without it.
SLOWER_MAX, SECONDS_MIN = 4.0, 60.0
NEAR, ELSEWHERE, ENDLESS, LEFT = "next to the module", "elsewhere", "endless", "left"

COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
ARITHMETIC: dict[type[ast.operator], type[ast.operator]] = {ast.Add: ast.Sub, ast.Sub: ast.Add}


@dataclass(frozen=True)
class Mutant:
    """A module with one place changed: the lines from ``first`` to ``last``, before and after."""

    path: Path
    first: int
    last: int
    before: str
    after: str
    source: str
    # Where the function begins that it is in.
    function: int

    def __str__(self) -> str:
        lines = [f"{self.path}:{self.first}"]
        lines += [f"  - {line}" for line in self.before.splitlines()]
        lines += [f"  + {line}" for line in self.after.splitlines()]
        return "\n".join(lines)


# What is changed ----------------------------------------------------------------------------------


def replacements(node: ast.AST) -> Iterator[ast.AST]:
    """What may stand in a node's place."""
    if isinstance(node, ast.Compare) and len(node.ops) == 1:
        other = COMPARISONS.get(type(node.ops[0]))
        if other is not None:
            yield ast.Compare(node.left, [other()], node.comparators)
    elif isinstance(node, ast.BoolOp):
        yield ast.BoolOp(ast.And() if isinstance(node.op, ast.Or) else ast.Or(), node.values)
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        yield node.operand
    elif isinstance(node, ast.BinOp) and type(node.op) in ARITHMETIC and not _is_text(node):
        yield ast.BinOp(node.left, ARITHMETIC[type(node.op)](), node.right)
    elif isinstance(node, ast.Constant) and type(node.value) is bool:
        yield ast.Constant(not node.value)
    elif isinstance(node, ast.Constant) and type(node.value) is int:
        yield ast.Constant(node.value + 1)
    elif (isinstance(node, ast.Expr) and isinstance(node.value, (ast.Call, ast.Await))) or (
        isinstance(node, (ast.Assign, ast.AugAssign)) and _writes_to_something(node)
    ):
        yield ast.Pass()


def _is_text(node: ast.BinOp) -> bool:
    return any(isinstance(side, (ast.JoinedStr, ast.List, ast.Tuple)) for side in (node.left, node.right))


def _writes_to_something(node: ast.Assign | ast.AugAssign) -> bool:
    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
    return all(isinstance(target, (ast.Attribute, ast.Subscript)) for target in targets)


def places(tree: ast.Module) -> Iterator[tuple[ast.AST, ast.AST, int]]:
    """Nodes within functions, what may stand in their places, and where the innermost function begins;
    nothing that only the log would show."""

    def walk(node: ast.AST, function: int) -> Iterator[tuple[ast.AST, ast.AST, int]]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, (ast.arguments, ast.Raise, ast.Assert, ast.JoinedStr)) or _logs(child):
                continue
            # Functions within functions have their own turn.
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            for other in replacements(child):
                yield child, other, function
            yield from walk(child, function)

    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not node.name.startswith("__repr"):
            begins = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
            yield from walk(ast.Module(node.body, []), begins)


def _logs(node: ast.AST) -> bool:
    call = node.value if isinstance(node, ast.Expr) else node
    return (
        isinstance(call, ast.Call)
        and isinstance(call.func, ast.Attribute)
        and isinstance(call.func.value, ast.Name)
        and call.func.value.id in ("log", "logger")
    )


def mutants(path: Path) -> list[Mutant]:
    """All mutants of a module, in the order of their places."""
    source = (ROOT / path).read_text()
    lines = source.encode().splitlines(keepends=True)
    starts = [0]
    for line in lines:
        starts.append(starts[-1] + len(line))
    made: dict[tuple[int, int, str], Mutant] = {}
    for node, other, function in places(ast.parse(source)):
        begin = starts[node.lineno - 1] + node.col_offset  # type: ignore[attr-defined]
        end = starts[node.end_lineno - 1] + node.end_col_offset  # type: ignore[attr-defined]
        text = ast.unparse(ast.fix_missing_locations(other))
        if not isinstance(other, (ast.Pass, ast.Constant)):
            text = f"({text})"
        changed = (source.encode()[:begin] + text.encode() + source.encode()[end:]).decode()
        first, last = node.lineno, node.end_lineno  # type: ignore[attr-defined]
        before = b"".join(lines[first - 1 : last]).decode()
        grown = changed.count("\n") - source.count("\n")
        after = b"".join(changed.encode().splitlines(keepends=True)[first - 1 : last + grown]).decode()
        made[begin, end, text] = Mutant(path, first, last, before, after, changed, function)
    return [made[key] for key in sorted(made)]


# Who notices --------------------------------------------------------------------------------------


@functools.cache
def is_near(file: str, path: Path) -> bool:
    """Whether a file of tests stands next to a module: it is named after it, or imports it."""
    dotted = ".".join(path.with_suffix("").parts[1:])
    package, _, name = dotted.rpartition(".")
    imports = rf"(from|import) {re.escape(dotted)}\b|from {re.escape(package)} import .*\b{name}\b"
    named = Path(file).stem.startswith(f"test_{path.parts[2]}_{path.stem}")
    return named or re.search(imports, (ROOT / file).read_text()) is not None


def files_to_learn(modules: Sequence[Path]) -> list[str]:
    """The files of unit tests that may notice something: next to a module, or of its layer."""
    layers = {path.parts[2] for path in modules} | {"cluster", "node"}
    if "broker" in layers:
        layers.add("handlers")
    found = []
    for test in sorted((ROOT / "tests/unit").glob("test_*.py")):
        file = str(test.relative_to(ROOT))
        if test.stem.split("_")[1] in layers or any(is_near(file, path) for path in modules):
            found.append(file)
    return found


class Tests:
    """What is known of the unit tests: how long each takes, and which functions it enters."""

    def __init__(self, notes: Sequence[dict[str, tuple[float, list[str]]]]) -> None:
        self.seconds: dict[str, float] = {}
        self._entering: dict[str, list[str]] = {}
        for note in notes:
            for test, (seconds, functions) in note.items():
                self.seconds[test] = seconds
                for function in functions:
                    self._entering.setdefault(function, []).append(test)

    def of(self, mutant: Mutant) -> tuple[list[str], list[str]]:
        """Tests that enter the mutant's function, next to the module and others, the quickest first."""
        found = self._entering.get(f"{mutant.path}:{mutant.function}", [])
        found = sorted(found, key=lambda test: (self.seconds[test], test))
        near = [test for test in found if is_near(test.partition("::")[0], mutant.path)]
        return near, [test for test in found if test not in set(near)]

    def within(self, tests: Sequence[str], seconds: float) -> list[str]:
        """The first of them, that together take so long."""
        chosen: list[str] = []
        for test in tests:
            seconds -= self.seconds[test]
            if seconds < 0 and chosen:
                break
            chosen.append(test)
        return chosen


class Bench:
    """A copy of the sources, and pytest on it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._source = folder / "src"
        shutil.copytree(ROOT / "src", self._source, ignore=shutil.ignore_patterns("__pycache__"))
        self._environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join((str(self._source), str(ROOT / "scripts"))),
            "PYTHONDONTWRITEBYTECODE": "1",
        }

    def learn(self, files: Sequence[str], jobs: int, notes: Path) -> None:
        """Run the tests of these files. One that fails as it is, or that takes what it costs to be watched
        for a fault, is asked nothing."""
        command = [sys.executable, "-m", "pytest", "-p", "entered", "-n", str(jobs), *files]
        subprocess.run(command, cwd=ROOT, env={**self._environment, "ENTERED_NOTES": str(notes)}, check=False)

    def failing(self, tests: Sequence[str], timeout_s: float) -> str:
        """The first of these tests that fails, ENDLESS where they do not end in time, "" where all pass."""
        only = self._folder / "only"
        only.write_text("\n".join(tests))
        files = sorted({test.partition("::")[0] for test in tests})
        command = [sys.executable, "-m", "pytest", "-x", "-rfE", "--tb=no", "-p", "entered"]
        command += ["-p", "no:cacheprovider", "-p", "no:xdist", *files]
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env={**self._environment, "ENTERED_ONLY": str(only)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        try:
            out, _ = process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            return ENDLESS
        failed = re.findall(r"^(?:FAILED|ERROR) (\S+)", out, re.MULTILINE)
        return "" if process.returncode == 0 else failed[0] if failed else out[-200:]

    def put(self, path: Path, source: str) -> None:
        (self._source / path.relative_to("src")).write_text(source)

    def verdict(self, mutant: Mutant, tests: Tests, others_s: float) -> tuple[str, str]:
        """Who notices a mutant, and which test."""
        near, others = tests.of(mutant)
        self.put(mutant.path, mutant.source)
        try:
            for distance, some in ((NEAR, near), (ELSEWHERE, tests.within(others, others_s))):
                takes_s = sum(tests.seconds[test] for test in some)
                failed = self.failing(some, max(SECONDS_MIN, SLOWER_MAX * takes_s)) if some else ""
                if failed:
                    return (ENDLESS if failed == ENDLESS else distance), failed
        finally:
            self.put(mutant.path, (ROOT / mutant.path).read_text())
        return LEFT, ""


def modules() -> list[Path]:
    found = [path for layer in LAYERS for path in (ROOT / "src/ottla" / layer).rglob("*.py")]
    return sorted(path.relative_to(ROOT) for path in found if path.name != "__init__.py")


def chosen_mutants(files: Sequence[Path], seed: int, count: int) -> list[Mutant]:
    """So many mutants of these modules: one of each in turn, as long as there are any, so that whoever has
    seen enough may stop."""
    chance = random.Random(seed)
    left = [mutants(path) for path in files]
    for some in left:
        chance.shuffle(some)
    chosen: list[Mutant] = []
    while len(chosen) < count and any(left):
        chosen += [some.pop() for some in left if some]
    return chosen[:count]


def main(arguments: Sequence[str]) -> int:
    """Tell of each mutant, and at the end how many were noticed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("files", nargs="*", type=Path, help="modules under src/ottla; all layers by default")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=20, help="how many mutants")
    parser.add_argument("--jobs", type=int, default=2, help="how many at once")
    parser.add_argument(
        "--notes", type=Path, help="what is known of the tests: a folder, made if it is missing"
    )
    parser.add_argument(
        "--seconds", type=float, default=60, help="of tests for one mutant that are not next to its module"
    )
    options = parser.parse_args(arguments)
    files = [path.resolve().relative_to(ROOT) for path in options.files] or modules()
    chosen = chosen_mutants(files, options.seed, options.count)
    print(f"{len(chosen)} mutants of {len(files)} modules, seed {options.seed}", flush=True)
    verdicts: Counter[str] = Counter()
    with tempfile.TemporaryDirectory(prefix="ottla-mutate-") as folder:
        benches = [Bench(Path(folder) / str(number)) for number in range(options.jobs)]
        notes = options.notes or Path(folder) / "notes"
        if not notes.is_dir():
            notes.mkdir()
            benches[0].learn(files_to_learn(files), options.jobs, notes)
        tests = Tests([json.loads(file.read_text()) for file in sorted(notes.iterdir())])

        def look(mutant: Mutant) -> tuple[str, str]:
            bench = benches.pop()
            try:
                return bench.verdict(mutant, tests, options.seconds)
            finally:
                benches.append(bench)

        with ThreadPoolExecutor(options.jobs) as pool:
            for number, (mutant, verdict) in enumerate(zip(chosen, pool.map(look, chosen), strict=True), 1):
                distance, test = verdict
                verdicts[distance] += 1
                told = f"NOT NOTICED {mutant}" if distance == LEFT else f"{mutant.path}:{mutant.first} {test}"
                print(f"{number}: {told}", flush=True)
    noticed = len(chosen) - verdicts[LEFT]
    print(
        f"{noticed} of {len(chosen)} noticed ({100 * noticed / max(len(chosen), 1):.1f} %), {verdicts[NEAR]} "
        f"by tests next to the module, {verdicts[ENDLESS]} as tests do not end; {verdicts[LEFT]} to look at"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
