"""A pytest plugin for ``mutate.py``: which functions each test enters, and running those tests that do.

``ENTERED_NOTES``: a folder for notes of the tests that pass, a file for each process.
``ENTERED_ONLY``: a file with those that are to run, one a line, in that order.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import threading
import time
from collections.abc import Generator
from pathlib import Path
from types import CodeType, FrameType

import pytest

NOTES, ONLY = os.environ.get("ENTERED_NOTES"), os.environ.get("ENTERED_ONLY")
# A mutant may ask for all memory there is.
MEMORY_BYTES_MAX = 4 << 30

_entered: dict[int, CodeType] = {}
_tests: dict[str, tuple[float, list[str]]] = {}
_failed: set[str] = set()
# With the function itself, so that no other gets its place in memory.
_names: dict[int, tuple[CodeType, str]] = {}


def _enters(frame: FrameType, event: str, argument: object) -> None:
    code = frame.f_code
    _entered[id(code)] = code


def _name_of(code: CodeType) -> str:
    """``file:line`` of a function of the sources, "" of any other; a function begins at its decorators."""
    known = _names.get(id(code))
    if known is None:
        _, found, below = code.co_filename.rpartition("/src/ottla/")
        known = _names[id(code)] = code, f"src/ottla/{below}:{code.co_firstlineno}" if found else ""
    return known[1]


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None]:
    if NOTES is None:
        yield
        return
    _entered.clear()
    begun = time.monotonic()
    threading.settrace(_enters)
    sys.settrace(_enters)
    yield
    sys.settrace(None)
    threading.settrace(None)  # type: ignore[arg-type]
    names = {_name_of(code) for code in list(_entered.values())} - {""}
    if item.nodeid not in _failed:
        _tests[item.nodeid] = time.monotonic() - begun, sorted(names)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.failed:
        _failed.add(report.nodeid)


def pytest_sessionfinish() -> None:
    if NOTES is not None and _tests:
        (Path(NOTES) / f"{os.getpid()}.json").write_text(json.dumps(_tests))


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if ONLY is not None:
        order = {name: number for number, name in enumerate(Path(ONLY).read_text().splitlines())}
        items[:] = sorted((i for i in items if i.nodeid in order), key=lambda i: order[i.nodeid])
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES_MAX, MEMORY_BYTES_MAX))
