"""The tool that breaks the code on purpose: what it makes of a module, and whom it asks."""

from __future__ import annotations

import ast
import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture
def mutate(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location("mutate", ROOT / "scripts/mutate.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "mutate", module)
    spec.loader.exec_module(module)
    return module


SOURCE = '''"""A module."""

LIMIT = 5


def work(self, items, ready=True):
    """What it does."""
    log.info("%d", 1 + 2)
    if not ready and len(items) < LIMIT:
        raise ValueError(f"{len(items) + 1}")
    self.count += 1
    self.tell()
    name = "ä"; return name is None
'''


def test_each_mutant_is_one_change(
    mutate: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mutate, "ROOT", tmp_path)
    (tmp_path / "m.py").write_text(SOURCE)
    made = mutate.mutants(Path("m.py"))
    changes = [(m.first, m.after.strip()) for m in made]
    assert changes == [
        (9, "if (ready) and len(items) < LIMIT:"),
        (9, "if (not ready or len(items) < LIMIT):"),
        (9, "if not ready and (len(items) <= LIMIT):"),
        (11, "pass"),
        (11, "self.count += 2"),
        (12, "pass"),
        (13, 'name = "ä"; return (name is not None)'),
    ]
    for mutant in made:
        ast.parse(mutant.source)
        differing = [
            number
            for number, (old, new) in enumerate(
                zip(SOURCE.splitlines(), mutant.source.splitlines(), strict=True), 1
            )
            if old != new
        ]
        assert differing == [mutant.first]


def test_every_module_of_the_layers_can_be_mutated(mutate: ModuleType) -> None:
    modules = mutate.modules()
    assert Path("src/ottla/log/producers.py") in modules
    for path in modules[::7]:
        for mutant in mutate.mutants(path)[::10]:
            ast.parse(mutant.source)


def test_the_tests_next_to_a_module_come_first_and_the_quickest_of_them(mutate: ModuleType) -> None:
    path = Path("src/ottla/metadata/membership.py")
    tests = mutate.Tests(
        [
            {
                "tests/unit/test_node.py::test_one": (0.1, [f"{path}:7", f"{path}:9"]),
                "tests/unit/test_metadata_membership.py::test_slow": (3.0, [f"{path}:7"]),
            },
            {
                "tests/unit/test_metadata_membership.py::test_fast[a-b]": (0.2, [f"{path}:7"]),
                "tests/unit/test_cluster_edges.py::test_two": (0.05, [f"{path}:9"]),
            },
        ]
    )
    mutant = mutate.Mutant(path, 8, 8, "a", "b", "", 7)
    near, others = tests.of(mutant)
    assert [test.partition("::")[2] for test in near] == ["test_fast[a-b]", "test_slow"]
    assert [test.partition("::")[2] for test in others] == ["test_one"]
    assert tests.within(near, 3.1) == near[:1] and tests.within(near, 0.1) == near[:1]
    assert tests.within(near, 3.3) == near


def test_only_files_of_the_layer_and_those_that_import_the_module_are_looked_at(mutate: ModuleType) -> None:
    files = mutate.files_to_learn([Path("src/ottla/metadata/membership.py")])
    assert "tests/unit/test_metadata_membership.py" in files and "tests/unit/test_node.py" in files
    assert "tests/unit/test_wire_codec.py" not in files
    assert "tests/unit/test_broker_garbage.py" in mutate.files_to_learn([Path("src/ottla/broker/gate.py")])


def test_mutants_are_spread_over_the_modules(
    mutate: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mutate, "ROOT", tmp_path)
    (tmp_path / "small.py").write_text("def f(a):\n    return a < 1\n")
    (tmp_path / "large.py").write_text("def f(a):\n" + "    a(1)\n" * 50)
    files = [Path("large.py"), Path("small.py")]
    chosen = mutate.chosen_mutants(files, 1, 10)
    assert [str(mutant.path) for mutant in chosen].count("small.py") == 2
    assert len(chosen) == 10 and chosen == mutate.chosen_mutants(files, 1, 10)
    assert {mutant.function for mutant in chosen} == {1}


def test_what_a_test_enters_is_noted_and_only_those_asked_for_run(
    pytester: pytest.Pytester, mutate: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = pytester.mkdir("src") / "ottla"
    source.mkdir()
    (source / "__init__.py").write_text("def one():\n    return 1\n\ndef two():\n    return one() + 1\n")
    pytester.makepyfile(
        "import ottla\ndef test_b(): ottla.two()\ndef test_a(): ottla.one()\ndef test_none(): pass"
    )
    monkeypatch.setenv("PYTHONPATH", f"{source.parent}:{ROOT / 'scripts'}")
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    notes = pytester.mkdir("notes")
    monkeypatch.setenv("ENTERED_NOTES", str(notes))
    run = ("-p", "entered", "-p", "no:cacheprovider", "--import-mode=importlib")
    pytester.runpytest_subprocess(*run).assert_outcomes(passed=3)
    (note,) = notes.iterdir()
    entered = {name.rpartition("::")[2]: found for name, (_, found) in json.loads(note.read_text()).items()}
    one, two = "src/ottla/__init__.py:1", "src/ottla/__init__.py:4"
    assert entered == {"test_a": [one], "test_b": [one, two], "test_none": []}
    monkeypatch.delenv("ENTERED_NOTES")
    only = pytester.path / "only"
    name = next(iter(json.loads(note.read_text()))).partition("::")[0]
    only.write_text(f"{name}::test_a\n{name}::test_b")
    monkeypatch.setenv("ENTERED_ONLY", str(only))
    done = pytester.runpytest_subprocess("-v", *run)
    done.assert_outcomes(passed=2)
    done.stdout.fnmatch_lines(["*::test_a PASSED*", "*::test_b PASSED*"])
