"""A test's file as a module: under the name, and with the ``sys.path``, that pytest or Python gives it.

A run is in a process of its own. Where pytest has imported the file already, that process is told under which
name and with which path. `ottla explore FILE` finds out both, as pytest does by itself (its import mode
"prepend"): the first folder upward that is no package is where the name begins.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

# What `multiprocessing` calls the main module of the process that started it.
MAIN, ITS_MAIN = "__main__", "__mp_main__"
CONFTEST, INIT = "conftest.py", "__init__.py"
# The files that pytest reads, in its order, and where in them its settings are.
SETTINGS: Mapping[str, tuple[tuple[str, ...], ...]] = {
    "pytest.toml": (("pytest",),),
    "pytest.ini": (("pytest",),),
    "pyproject.toml": (("tool", "pytest", "ini_options"), ("tool", "pytest")),
    "tox.ini": (("pytest",),),
    "setup.cfg": (("tool:pytest",),),
}
# These count also without any.
ALWAYS = frozenset({"pytest.toml", "pytest.ini"})
# Where there are no settings, a folder with one of these is the root.
PROJECTS = ("setup.py", "pyproject.toml")
Within = Callable[[], AbstractContextManager[object]]


@dataclass(frozen=True, slots=True)
class Imported:
    """How a process has imported a module. ``module`` empty: what its name would be is to be found out."""

    module: str = ""
    path: tuple[str, ...] = ()

    def to_json(self) -> str:
        return json.dumps((self.module, self.path))

    @classmethod
    def from_json(cls, text: str) -> Imported:
        module, path = json.loads(text or '["", []]')
        return cls(module, tuple(path))


# Nobody has imported it yet.
UNKNOWN = Imported()


def imported(module: str) -> Imported:
    """How this process has imported a module, which another one is to import in the same way."""
    return Imported("" if module == MAIN else module, tuple(sys.path))


def load(file: Path, place: Imported, within: Within = nullcontext) -> ModuleType:
    """The module of a file, imported now, with ``sys.path`` as it is to be from now on.

    ``within``: what each try is done in, since there may be two: what a ``conftest.py`` does to ``sys.path``
    is done if something is not found without. What importing raises is raised.
    """
    if place.path:
        sys.path[:] = place.path
    if place.module:
        with within():
            return module_of(place.module, file)
    name = name_of(file)[1]
    folder, conftests = _prepared(file)
    # Where it lies in no package, its name from pytest's root on is one by which it can import relatively.
    longer = _dotted(folder, file)
    try:
        with within():
            return module_of(name, file)
    except ImportError as error:
        is_relative = name == file.stem != longer and "relative import" in str(error)
        is_missing = isinstance(error, ModuleNotFoundError) and importlib.util.find_spec("pytest") is not None
        if not is_relative and not (is_missing and conftests):
            raise
    if not is_relative:
        _import_conftests(folder, conftests)
    with within():
        return module_of(longer if is_relative else name, file)


def load_conftests(file: Path) -> None:
    """Import each ``conftest.py`` that pytest imports before the file; none where there is no pytest.

    What they set in the environment is then there for the processes that this one starts, as under pytest.
    Those do not import them where they find all without: a run begins with the same memory as under pytest.
    """
    if importlib.util.find_spec("pytest") is not None:
        _import_conftests(*_prepared(file))


def _prepared(file: Path) -> tuple[Path, list[Path]]:
    """pytest's root for a file, and the file's conftests, with ``sys.path`` as it is to be for both."""
    folder, settings = settings_of(file)
    conftests = _conftests(folder, file)
    roots = [name_of(file)[0], *(name_of(one)[0] for one in reversed(conftests))]
    added = [*roots, *_pythonpath(folder, settings), Path.cwd()]
    sys.path[:0] = [path for path in dict.fromkeys(map(str, added)) if path not in sys.path]
    return folder, conftests


def _import_conftests(root: Path, conftests: list[Path]) -> None:
    for conftest in conftests:
        name = name_of(conftest)[1]
        try:
            module_of(name, conftest)
        except ImportError as error:
            longer = _dotted(root, conftest)
            if name == longer or "relative import" not in str(error):
                raise
            module_of(longer, conftest)


def module_of(name: str, file: Path) -> ModuleType:
    """The module of a file, under this name; imported, if the name leads to the file."""
    if name != MAIN and _is_found(name, file):
        return importlib.import_module(name)
    if "." in name:
        _import_packages(name.rpartition(".")[0], file.parent)
    return _executed(ITS_MAIN if name == MAIN else name, file, also=name)


def _executed(name: str, file: Path, *, also: str = "") -> ModuleType:
    search = [str(file.parent)] if file.name == INIT else None
    spec = importlib.util.spec_from_file_location(name, file, submodule_search_locations=search)
    if spec is None or spec.loader is None:
        raise ImportError(f"{file.name} is no Python file: its name has to end with .py")
    module = importlib.util.module_from_spec(spec)
    names = dict.fromkeys((name, also or name))
    before = {one: sys.modules.get(one) for one in names}
    sys.modules.update(dict.fromkeys(names, module))
    try:
        spec.loader.exec_module(module)
    except BaseException:
        # It may be tried again.
        for one, was in before.items():
            sys.modules.pop(one, None) if was is None else sys.modules.update({one: was})
        raise
    return module


def _import_packages(name: str, folder: Path) -> None:
    """The packages that a module is in by its name, where ``sys.path`` does not lead to them."""
    parents, last = name.rpartition(".")[::2]
    if folder.name != last or name in sys.modules:
        return
    if parents:
        _import_packages(parents, folder.parent)
    if (folder / INIT).is_file():
        _executed(name, folder / INIT)
    else:
        module = sys.modules[name] = ModuleType(name)
        module.__path__ = [str(folder)]


def _is_found(name: str, file: Path) -> bool:
    """Whether the name leads to the file."""
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        return False
    return spec is not None and spec.origin is not None and Path(spec.origin).resolve() == file


# ---------------------------------------------------------------- as pytest does


def name_of(file: Path) -> tuple[Path, str]:
    """The folder that goes to ``sys.path``, and the name that then leads to the file."""
    folder, parts = file.parent, [file.stem]
    while (folder / INIT).is_file() and folder.name.isidentifier():
        parts.insert(0, folder.name)
        folder = folder.parent
    return folder, ".".join(parts)


def settings_of(file: Path) -> tuple[Path, Mapping[str, Any]]:
    """pytest's root for a file, and its settings, if it has any."""
    for folder in file.parents:
        for name, tables in SETTINGS.items():
            if (folder / name).is_file():
                read = _read(folder / name)
                found = next((table for table in map(_at(read), tables) if isinstance(table, Mapping)), None)
                if found is not None or name in ALWAYS:
                    return folder, found or {}
    projects = (one for one in file.parents if any((one / name).is_file() for name in PROJECTS))
    here = Path.cwd() if file.is_relative_to(Path.cwd()) else file.parent
    return next(projects, here), {}


def _at(read: Mapping[str, Any]) -> Callable[[tuple[str, ...]], Any]:
    def at(names: tuple[str, ...]) -> Any:
        found: Any = read
        for name in names:
            found = found.get(name) if isinstance(found, Mapping) else None
        return found

    return at


def _read(file: Path) -> Mapping[str, Any]:
    """The sections of a file; none where it cannot be read, which is for pytest to say."""
    # A program of a world in real time starts faster without.
    from configparser import ConfigParser, Error
    from tomllib import loads

    parser = ConfigParser(interpolation=None)
    try:
        text = file.read_text(encoding="utf-8")
        if file.suffix == ".toml":
            return loads(text)
        parser.read_string(text)
        return {section: dict(parser[section]) for section in parser.sections()}
    except (OSError, ValueError, Error):
        return {}


def _pythonpath(folder: Path, settings: Mapping[str, Any]) -> Iterator[Path]:
    given = settings.get("pythonpath", ())
    for path in shlex.split(given) if isinstance(given, str) else given:
        yield folder / str(path)


def _conftests(root: Path, file: Path) -> list[Path]:
    """Those that pytest imports before the file, from the root on."""
    folders = [folder for folder in reversed(file.parents) if folder.is_relative_to(root)]
    return [folder / CONFTEST for folder in folders if (folder / CONFTEST).is_file()]


def _dotted(root: Path, file: Path) -> str:
    return ".".join((*file.parent.relative_to(root).parts, file.stem))
