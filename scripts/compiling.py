"""compiling.py FOLDER: compile the hot path with mypyc into FOLDER, for a wheel or the `ottla` command.

pyproject.toml lists the modules, [tool.ottla] compiled; docs/decisions/0014-compiled.md says why these.
Needs mypy, setuptools and a C compiler. FOLDER is emptied first.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
import tomllib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import chdir, redirect_stdout
from importlib.machinery import EXTENSION_SUFFIXES
from io import StringIO
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "src"))

# Of this clone, wherever the script is run.
from generating import generate  # noqa: E402

from ottla import implementation  # noqa: E402
from ottla.env import processors  # noqa: E402

# The codec's readers and writers, and what decides what they are.
GENERATED = "ottla.wire.generated"
GENERATED_FROM = ("ottla.wire.apis", "ottla.wire.codec", "ottla.wire.fields")
# What says how.
MADE_BY = (f"{implementation.SCRIPTS}.compiling", f"{implementation.SCRIPTS}.generating")
# What mypyc says of a generator expression that it works off at once.
EAGER = "Treating generator comprehension as list"
# -O1: more takes twice as long to compile, and runs no faster that could be measured. -g0: half of the
# library would be for debuggers.
OPTIMIZATION, DEBUGGING = "1", "0"
# The C of the library is compiled in so many units, as many at once as there are processors. In a single one
# it takes almost twice the processor's time, and two gigabytes; in one for each module the headers take their
# time again and again.
UNITS = 8
# Nothing but the library sees its names: so calls and objects of another unit are as direct as those of the
# same one. The option is for what is defined, the pragma for what is only declared.
UNIT_OPTION = "-fvisibility=hidden"
UNIT_HEAD = """\
#include <Python.h>
#include <CPy.h>
#pragma GCC visibility push(hidden)
"""


def modules() -> list[str]:
    with open(ROOT / "pyproject.toml", "rb") as file:
        listed: list[str] = tomllib.load(file)["tool"]["ottla"]["compiled"]
    return listed


def sources() -> dict[str, str | None]:
    """What a build is made of, and what tells one state of it from another."""
    return {module: implementation.hash_of(module) for module in (*modules(), *GENERATED_FROM, *MADE_BY)}


def is_current(folder: Path) -> bool:
    """Whether the modules have been compiled into this folder, for this Python, as they are."""
    try:
        made_of = json.loads((folder / implementation.SOURCES_FILE).read_text())["sources"]
    except (OSError, ValueError):
        return False
    library = folder / f"{implementation.LIBRARY}{EXTENSION_SUFFIXES[0]}"
    return bool(made_of == sources()) and library.exists()


def write_units(sources: Sequence[str], folder: Path) -> list[str]:
    """C files in a folder that consist of these, in about equal shares."""
    shares: list[list[str]] = [[] for _ in range(UNITS)]
    bytes_of = {source: os.path.getsize(source) for source in sources}
    for source in sorted(sources, key=lambda source: (-bytes_of[source], source)):
        min(shares, key=lambda share: sum(map(bytes_of.__getitem__, share))).append(source)
    units = [folder / f"unit_{number}.c" for number in range(UNITS)]
    for unit, share in zip(units, shares, strict=True):
        unit.write_text(UNIT_HEAD + "".join(f'#include "{source}"\n' for source in share))
    return list(map(str, units))


def build(extensions: list[Any], folder: Path, aside: Path) -> None:
    """Compile mypyc's library, which is the first of what it lists, and the stubs that load it."""
    from setuptools import Distribution
    from setuptools.command.build_ext import build_ext

    class Build(build_ext):  # type: ignore[misc]
        def build_extensions(self) -> None:
            library = self.extensions[0]

            def compile_unit(unit: str) -> list[str]:
                objects: list[str] = self.compiler.compile(
                    [unit],
                    output_dir=self.build_temp,
                    include_dirs=library.include_dirs,
                    extra_postargs=[*library.extra_compile_args, UNIT_OPTION],
                )
                return objects

            with ThreadPoolExecutor(self.parallel) as threads:
                made = threads.map(compile_unit, write_units(library.sources, aside))
                library.extra_objects = [name for names in made for name in names]
            library.sources = []
            super().build_extensions()

    command = Build(Distribution({"name": "ottla", "ext_modules": extensions}))
    command.build_lib, command.build_temp = str(folder), str(aside / "objects")
    command.parallel = processors.usable()
    command.ensure_finalized()
    command.run()


def compile_into(folder: Path) -> None:
    # Not needed by whoever only asks for the list.
    from mypyc.build import mypycify

    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    compiled, made_of = [*modules(), GENERATED], sources()
    with tempfile.TemporaryDirectory(prefix="ottla-compile-") as aside, chdir(aside):
        shutil.copytree(ROOT / "src" / "ottla", "ottla", ignore=shutil.ignore_patterns("__pycache__"))
        paths = [f"{module.replace('.', '/')}.py" for module in compiled]
        Path(paths[-1]).write_text(generate())
        # Types of other packages count for nothing: a build is the same whether they are installed or not.
        options = ["--config-file=", "--no-site-packages", "--ignore-missing-imports"]
        options.append(f"--cache-dir={aside}/mypy")
        said = StringIO()
        try:
            with redirect_stdout(said):
                extensions = mypycify(
                    [*options, *paths],
                    opt_level=OPTIMIZATION,
                    debug_level=DEBUGGING,
                    group_name="ottla",
                    target_dir=f"{aside}/c",
                    multi_file=True,
                )
        except SystemExit:
            # Why it cannot be compiled is said there, too.
            sys.exit(said.getvalue())
        if EAGER in said.getvalue():
            sys.exit(f"{said.getvalue()}use map or a generator function: what is lazy has to stay so")
        build(extensions, folder, Path(aside))
    # Last: what is half done is not taken.
    (folder / implementation.SOURCES_FILE).write_text(
        json.dumps({"modules": compiled, "sources": made_of}, indent=1)
    )


if __name__ == "__main__":
    compile_into(Path(sys.argv[1]).resolve())
