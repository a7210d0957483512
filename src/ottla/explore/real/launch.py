"""The process of a function that is a program: `python -m ottla.explore.real.launch FILE`.

FILE has a line of JSON, where to find the function, and then its arguments, pickled. It is found by the file
of its module, since a test's module cannot always be imported by its name. A coroutine function is run by
`asyncio.run`.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

from ottla.explore.importing import module_of


def packed(main: Callable[..., Any], arguments: tuple[Any, ...]) -> bytes:
    """What FILE is to have. TypeError for a function that another process does not find."""
    if not inspect.isfunction(main) or "<locals>" in main.__qualname__ or "<lambda>" in main.__qualname__:
        raise TypeError(
            f"{getattr(main, '__qualname__', main)!r} cannot be a program: give a command, as a list, or a "
            "function of a module, which another process can import"
        )
    where = {
        "path": sys.path,
        "module": main.__module__,
        "file": str(Path(inspect.getfile(main)).resolve()),
        "name": main.__qualname__,
    }
    return json.dumps(where).encode() + b"\n" + pickle.dumps(arguments)


def run(file: Path) -> None:
    """Do as FILE says."""
    with file.open("rb") as opened:
        where = json.loads(opened.readline())
        sys.path[:] = where["path"]
        found: Any = module_of(where["module"], Path(where["file"]))
        # Its arguments may be of classes of the module.
        arguments = pickle.load(opened)
    for name in where["name"].split("."):
        found = getattr(found, name)
    result = found(*arguments)
    if inspect.iscoroutine(result):
        asyncio.run(result)


def _told(_kind: type[BaseException], error: BaseException, _trace: TracebackType | None) -> None:
    """An error that ends the program, without the lines of what runs it."""
    from ottla.explore.programs import lines

    sys.stderr.write(lines.traceback_of(error))


if __name__ == "__main__":
    sys.excepthook = _told
    run(Path(sys.argv[1]))
