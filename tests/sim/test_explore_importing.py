"""A user's file is imported as pytest imports it, in each of the layouts that people have."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

# pytest's own word on the name, in a plain test, and Ottla's.
PLAIN = """
{imports}

def test_it():
    print(f"{{__name__}} with {{VALUE}}")
    assert False
"""
EXPLORED = """
from ottla.explore import explore
{imports}

@explore(seeds=1, nodes=1, faults="calm", jobs=1)
async def test_it(world):
    raise AssertionError(f"{{__name__}} with {{VALUE}}")
"""
# Without the present folder on the path, which `pytest` does not put there.
PYTEST = "import sys, pytest; sys.path.remove(''); sys.exit(pytest.main(sys.argv[1:]))"
LOAD = """
import sys; sys.path.remove('')
from pathlib import Path
from ottla.explore.importing import Imported, load
load(Path(sys.argv[1]).resolve(), Imported()).test_it()
"""
VALUE = "VALUE = 'what it imports'\n"

# Of each layout: its files, what the test imports, and with which options pytest runs it.
LAYOUTS: Mapping[str, tuple[Mapping[str, str], str, str]] = {
    "beside": ({"tests/support.py": VALUE}, "from support import VALUE", ""),
    "in a package": (
        {"tests/__init__.py": "", "tests/support.py": VALUE, "app.py": ""},
        "import app\nfrom .support import VALUE",
        "",
    ),
    "conftest above": ({"conftest.py": "", "app.py": VALUE}, "from app import VALUE", ""),
    "conftest with a path": (
        {
            "tests/conftest.py": "import sys\nfrom pathlib import Path\n"
            "sys.path.insert(0, str(Path(__file__).parents[1] / 'lib'))\n",
            "lib/app.py": VALUE,
        },
        "from app import VALUE",
        "",
    ),
    "pyproject": (
        {"pyproject.toml": "[tool.pytest.ini_options]\npythonpath = ['src']\n", "src/app.py": VALUE},
        "from app import VALUE",
        "",
    ),
    "pytest.ini": (
        {"pytest.ini": "[pytest]\npythonpath = src lib\n", "lib/app.py": VALUE},
        "from app import VALUE",
        "",
    ),
    "importlib": (
        {"pytest.ini": "[pytest]\n", "tests/support.py": VALUE},
        "from .support import VALUE",
        "--import-mode=importlib",
    ),
}


def written(folder: Path, files: Mapping[str, str]) -> None:
    for name, text in files.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)


def ran(folder: Path, *arguments: str) -> str:
    """What a Python prints, which fails as the test does."""
    command = [sys.executable, *arguments]
    ended = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 1, ended.stdout + ended.stderr
    return ended.stdout


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_file_is_imported_as_pytest_does(layout: str, tmp_path: Path) -> None:
    files, imports, options = LAYOUTS[layout]
    written(tmp_path, {**files, "tests/test_it.py": PLAIN.format(imports=imports)})
    test = "tests/test_it.py"
    by_pytest = ran(tmp_path, "-c", PYTEST, "-q", "-p", "no:cacheprovider", *options.split(), test)
    said = re.search(r"^\S+ with what it imports$", by_pytest, re.MULTILINE)
    assert said is not None, by_pytest
    assert ran(tmp_path, "-c", LOAD, test) == said[0] + "\n"


def test_a_run_is_imported_as_pytest_has_it_and_its_command_repeats_it(tmp_path: Path) -> None:
    """Where only options of pytest's command line say how: they are none of the command."""
    imports = "from .support import VALUE\nimport app"
    files = {"pytest.ini": "[pytest]\n", "tests/support.py": VALUE, "src/app.py": ""}
    written(tmp_path, {**files, "tests/test_it.py": EXPLORED.format(imports=imports)})
    options = ["-q", "-p", "no:cacheprovider", "--import-mode=importlib", "-o", "pythonpath=src"]
    by_pytest = ran(tmp_path, "-c", PYTEST, *options, "tests/test_it.py")
    expected = "seed 1: AssertionError: tests.test_it with what it imports"
    assert expected in by_pytest
    # What is Ottla's is not in the traceback.
    assert "runner.py" not in by_pytest and "workers.py" not in by_pytest
    # In continuous integration pytest's summary has the whole message, too.
    (command,) = set(re.findall(r"^[E ] +(ottla explore .*)$", by_pytest, re.MULTILINE))
    (tmp_path / "pytest.ini").write_text("[pytest]\npythonpath = src\n")
    assert expected in ran(tmp_path, "-m", *shlex.split(command))


BY_ENVIRONMENT = """
import os
from ottla.explore import explore

@explore(seeds=1, nodes=1, faults="calm", jobs=1)
async def test_it(world):
    assert os.environ.get("ORDERS") is None, os.environ["ORDERS"]
"""


def test_what_conftests_set_in_the_environment_is_there_for_the_command_too(tmp_path: Path) -> None:
    files = {
        "pytest.ini": "[pytest]\n",
        "conftest.py": "import os\nprint('at work')\nos.environ['ORDERS'] = '5'\n",
        "tests/support.py": VALUE,
        "tests/conftest.py": "import os\nfrom .support import VALUE\nos.environ['ORDERS'] += VALUE\n",
        "tests/test_it.py": BY_ENVIRONMENT,
    }
    written(tmp_path, files)
    options = ["-q", "-p", "no:cacheprovider", "--import-mode=importlib", "tests/test_it.py"]
    expected = "seed 1: AssertionError: 5what it imports"
    assert expected in ran(tmp_path, "-c", PYTEST, *options)
    command = ["-m", "ottla", "explore", "tests/test_it.py", "--json", "--shrink", "0"]
    said = ran(tmp_path, *command)
    assert said.startswith("{") and "AssertionError: 5what it imports" in said
    # As pytest, it runs nothing without them.
    (tmp_path / "conftest.py").write_text("import shoes\n")
    ended = subprocess.run(
        [sys.executable, *command], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False
    )
    assert ended.returncode == 4 and not ended.stdout
    assert "tests/test_it.py could not be run: conftest.py:1: No module named 'shoes'" in ended.stderr
