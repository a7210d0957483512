"""Which line of the user's own code it was: neither Ottla's, nor a library's, nor Python's."""

from __future__ import annotations

import os
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from types import FrameType, TracebackType

import ottla

_NOT_THEIRS = tuple(
    f"{path}{os.sep}" for path in (os.path.dirname(ottla.__file__), sysconfig.get_path("stdlib"))
)
_LIBRARIES = frozenset(("site-packages", "dist-packages"))


def is_own(file: str) -> bool:
    """Whether a source file is the user's."""
    return not (
        file.startswith("<") or file.startswith(_NOT_THEIRS) or _LIBRARIES.intersection(Path(file).parts)
    )


def of_stack(frame: FrameType | None) -> str:
    """FILE:LINE of the innermost frame of the user's; where there is none, of the innermost one of all."""
    innermost = frame
    while frame is not None and not is_own(frame.f_code.co_filename):
        frame = frame.f_back
    found = frame or innermost
    return "?" if found is None else f"{found.f_code.co_filename}:{found.f_lineno}"


def _frames(traceback: TracebackType | None) -> Iterator[tuple[str, int]]:
    while traceback is not None:
        yield traceback.tb_frame.f_code.co_filename, traceback.tb_lineno
        traceback = traceback.tb_next


def of_error(error: BaseException) -> str:
    """NAME:LINE where the user's code was when the error was raised; empty if it was not in that."""
    own = [(file, line) for file, line in _frames(error.__traceback__) if is_own(file)]
    return f"{os.path.basename(own[-1][0])}:{own[-1][1]}" if own else ""
