"""The public API as lines of text, collected from the code: one list for each part.

The lists are docs/api/*.txt, and docs/API.md shows them. A change of the API changes a line.
"""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cli_docs

import ottla.testing
from ottla.cli.app import app_of
from ottla.cli.errors import ExitCode
from ottla.extras import EXTRAS
from ottla.observe.catalogue import METRICS
from ottla.testing import plugin
from ottla.testing.control import endpoints

SOURCE = Path(ottla.testing.__file__).parents[1]
VARIABLE = re.compile(r"OTTLA_[A-Z_]+")
ADDRESS = re.compile(r"<function .*? at 0x[0-9a-f]+>")


def python() -> Iterator[str]:
    """What `ottla.testing` exports, with parameters and attributes; and `ottla` itself."""
    yield "ottla.__version__"
    for name in sorted(ottla.testing.__all__):
        yield from _members(f"ottla.testing.{name}", getattr(ottla.testing, name))


def _members(path: str, thing: Any) -> Iterator[str]:
    if not inspect.isclass(thing):
        yield path + (_parameters(thing) if callable(thing) else "")
        return
    bases = [base.__name__ for base in thing.__mro__[1:-1] if base.__module__ == "builtins"]
    is_error = issubclass(thing, BaseException)
    yield path + _parameters(thing) + (f": {bases[0]}" if is_error else "")
    for name in sorted({*dir(thing), *_attributes(thing)}):
        owner = next((one for one in thing.__mro__ if name in vars(one)), thing)
        if name.startswith("_") or owner.__module__ == "builtins":
            continue
        member = inspect.getattr_static(thing, name, None)
        if isinstance(member, staticmethod | classmethod):
            member = member.__func__
        yield f"{path}.{name}" + (_parameters(member) if inspect.isfunction(member) else "")


def _parameters(function: Any) -> str:
    """Names, kinds and defaults of parameters; types are for a type checker to compare."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return ""
    shown = [
        one.replace(annotation=one.empty)
        for name, one in signature.parameters.items()
        if name != "self" and not name.startswith("_")
    ]
    return ADDRESS.sub("…", str(signature.replace(parameters=shown, return_annotation=signature.empty)))


def _attributes(thing: type) -> set[str]:
    """What instances have beside what the class has: declared, or set by ``__init__``."""
    names = set(inspect.get_annotations(thing))
    try:
        source = inspect.getsource(thing)
    except OSError:
        return names
    for function in ast.walk(ast.parse(textwrap.dedent(source))):
        if isinstance(function, ast.FunctionDef) and function.name == "__init__":
            names |= {
                node.attr
                for node in ast.walk(function)
                if isinstance(node, ast.Attribute)
                and isinstance(node.ctx, ast.Store)
                and isinstance(node.value, ast.Name)
                and node.value.id == "self"
            }
    return names


def pytest() -> Iterator[str]:
    """Options, settings, markers and fixtures of the pytest plugin."""
    found: list[str] = []

    def option(name: str, **_: Any) -> None:
        found.append(f"option {name}")

    def setting(name: str, *_: Any, **__: Any) -> None:
        found.append(f"setting {name}")

    group: Any = SimpleNamespace(addoption=option)
    parser: Any = SimpleNamespace(getgroup=lambda *_: group, addini=setting, addoption=option)
    config: Any = SimpleNamespace(
        addinivalue_line=lambda _, text: found.append(f"marker {text.partition(': ')[0]}"),
        pluginmanager=SimpleNamespace(register=lambda *_: None),
    )
    plugin.pytest_addoption(parser)
    plugin.pytest_configure(config)
    for name, member in vars(plugin).items():
        mark = getattr(member, "_fixture_function_marker", None)
        if mark is not None:
            found.append(f"fixture {mark.name or name} ({mark.scope})")
    yield from sorted(found)


def commands() -> Iterator[str]:
    """Commands with their arguments, and each option of each."""
    for path, function in cli_docs.commands(app_of()):
        parameters = cli_docs.parameters(function)
        yield " ".join([path, *(one.names[0] for one in parameters if one.is_argument)])
        for one in parameters:
            if not one.is_argument:
                yield f"{path} {', '.join(one.names)}" + (f" {one.value}" if one.value else "")


def exit_codes() -> Iterator[str]:
    """What commands end with."""
    for code in ExitCode:
        yield f"{code.value} {code.name}"


def metrics() -> Iterator[str]:
    """Names, kinds and labels of metrics."""
    for metric in METRICS:
        yield f"{metric.name} {metric.kind.value}" + "".join(f" {label}" for label in metric.labels)


def environment() -> Iterator[str]:
    """Variables that the package reads."""
    found = set()
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                found |= {node.value} if VARIABLE.fullmatch(node.value) else set()
    yield from sorted(found)


def control() -> Iterator[str]:
    """Methods and paths of the control port."""
    yield from endpoints.names()


def extras() -> Iterator[str]:
    """Extras of the package."""
    yield from sorted([*EXTRAS, "all"])


LISTS: dict[str, Callable[[], Iterator[str]]] = {
    "python": python,
    "pytest": pytest,
    "commands": commands,
    "exit-codes": exit_codes,
    "metrics": metrics,
    "environment": environment,
    "control": control,
    "extras": extras,
}


def text(name: str) -> str:
    """One list as it is in its file."""
    return "".join(f"{line}\n" for line in LISTS[name]())
