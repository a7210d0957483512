"""What a library keeps for each event loop is each program's own: all programs of a run share one loop.

anyio keeps its idle threads by the loop. A program would be given the thread of another one, or of one that
was killed, and would wait for it for ever.
"""

from __future__ import annotations

import asyncio
import asyncio.tasks
import sys
from functools import wraps
from importlib import import_module
from typing import Any

from ottla.explore.programs import current
from ottla.explore.world.loop import Process

_all_tasks = asyncio.all_tasks
# Where anyio has what it keeps by loop, under the same name.
_ANYIO = ("anyio.lowlevel", "anyio._backends._asyncio")


@wraps(_all_tasks)
def all_tasks(loop: asyncio.AbstractEventLoop | None = None) -> set[asyncio.Task[Any]]:
    """As asyncio's; in a program of a run those of its process alone."""
    process = current.program()
    return _all_tasks(loop) if process is None else process.tasks.there()


class _OfPrograms(dict[object, Any]):
    """In a program, what is kept by a loop is kept by its process."""

    def __getitem__(self, key: object) -> Any:
        return super().__getitem__(_owner(key))

    def __setitem__(self, key: object, value: Any) -> None:
        super().__setitem__(_owner(key), value)

    def get(self, key: object, default: Any = None) -> Any:
        return super().get(_owner(key), default)


def _owner(loop: object) -> Process | object:
    return current.program() or loop


def install() -> None:
    """From now on; a second call changes nothing."""
    asyncio.all_tasks = asyncio.tasks.all_tasks = all_tasks


def begin() -> None:
    """A run begins, and its programs' libraries are imported."""
    if "anyio" not in sys.modules:
        return
    # Not all of it is imported at once, and what is imported later takes it from here.
    import_module(_ANYIO[0])
    of_programs = _OfPrograms()
    for name in _ANYIO:
        module = sys.modules.get(name)
        if hasattr(module, "_run_vars"):
            module._run_vars = of_programs  # type: ignore[union-attr]
