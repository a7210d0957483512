"""Which implementation runs: Python's own, or the same modules compiled (docs/decisions/0014-compiled.md).

A wheel that was built with a compiler has both side by side, and Python takes the compiled ones. In a clone
`make compiled` puts them into ``build/compiled``; the `ottla` command takes them from there as long as they
are of the sources that are there, and so do the processes that it or `explore` starts. Nothing else does:
whoever patches a class in a test patches Python's.
OTTLA_PURE=1 chooses Python's own in any case.

The compiled modules are one library, and know each other's insides: it is all of them or none.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from importlib.machinery import (
    EXTENSION_SUFFIXES,
    SOURCE_SUFFIXES,
    ExtensionFileLoader,
    FileFinder,
    ModuleSpec,
    SourceFileLoader,
)
from importlib.util import find_spec, source_hash, spec_from_file_location
from types import ModuleType

PURE_VARIABLE = "OTTLA_PURE"
# One that is compiled wherever any is.
PROBE = "ottla.wire.framing"
# What all compiled modules are in; and what says which they are, and of what sources a clone's build is.
LIBRARY = "ottla__mypyc"
SOURCES_FILE = "sources.json"

# Scripts of a clone that decide what is compiled are known as modules of this package, which is none.
SCRIPTS = "scripts"

_PACKAGE = os.path.dirname(os.path.abspath(__file__))
BUILD = os.path.join(os.path.dirname(os.path.dirname(_PACKAGE)), "build", "compiled")

# The modules that have changed since they were compiled: why a clone's build was not taken.
_changed: list[str] = []


def name() -> str:
    """What runs, or would: for people."""
    module = sys.modules.get(PROBE)
    spec = find_spec(PROBE) if module is None else module.__spec__
    origin = spec.origin if spec is not None else None
    if origin is not None and _is_compiled(origin):
        return "compiled"
    return f"pure Python, since {_changed[0]} is not what was compiled" if _changed else "pure Python"


def is_pure_wanted() -> bool:
    return os.environ.get(PURE_VARIABLE, "") not in ("", "0")


def begin() -> None:
    """Keep to Python's own where that is asked for and compiled modules lie beside. Before all imports."""
    beside = os.path.join(os.path.dirname(_PACKAGE), LIBRARY + EXTENSION_SUFFIXES[0])
    if is_pure_wanted() and os.path.exists(beside):
        sys.meta_path.insert(0, _SourcesOnly())


def use_build(build: str = BUILD) -> bool:
    """Take the compiled modules of a clone's build, where there is one, for imports from now on; whether they
    are taken. Not where one of them is imported already, or has changed since."""
    _changed.clear()
    if is_pure_wanted():
        return False
    try:
        with open(os.path.join(build, SOURCES_FILE), "rb") as file:
            written = file.read()
    except OSError:
        return False
    # Not for whoever has no build.
    import json

    try:
        made = json.loads(written)
    except ValueError:
        return False
    places = {module: _place(build, module) for module in (LIBRARY, *made["modules"])}
    if not all(map(os.path.exists, places.values())) or not sys.modules.keys().isdisjoint(places):
        return False
    _changed.extend(source for source, known in made["sources"].items() if hash_of(source) != known)
    if _changed:
        return False
    sys.meta_path.insert(0, _Build(places))
    return True


def hash_of(module: str, package: str = _PACKAGE) -> str | None:
    """Tells one state of a module's source from another; None where there is none."""
    above = os.path.dirname(package)
    if module.startswith(f"{SCRIPTS}."):
        above = os.path.dirname(above)
    path = os.path.join(above, *module.split(".")) + SOURCE_SUFFIXES[0]
    try:
        with open(path, "rb") as file:
            return source_hash(file.read()).hex()
    except OSError:
        return None


def _place(folder: str, module: str) -> str:
    return os.path.join(folder, *module.split(".")) + EXTENSION_SUFFIXES[0]


def _is_compiled(path: str) -> bool:
    return path.endswith(tuple(EXTENSION_SUFFIXES))


class _SourcesOnly:
    """Finds the package's modules, and no compiled ones."""

    def __init__(self) -> None:
        self._finders: dict[str, FileFinder] = {}

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if path is None or not fullname.startswith("ottla."):
            return None
        for folder in path:
            if folder not in self._finders:
                self._finders[folder] = FileFinder(folder, (SourceFileLoader, SOURCE_SUFFIXES))
            spec = self._finders[folder].find_spec(fullname)
            if spec is not None and spec.loader is not None:
                return spec
        # What is only there compiled: others would find it.
        raise ModuleNotFoundError(f"No module named {fullname!r}", name=fullname)


class _Build:
    """Finds compiled modules where a clone's build has put them."""

    def __init__(self, places: Mapping[str, str]) -> None:
        self._places = places

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        place = self._places.get(fullname)
        if place is None:
            return None
        return spec_from_file_location(fullname, place, loader=ExtensionFileLoader(fullname, place))
