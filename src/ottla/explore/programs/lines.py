"""Which line of the user's own code it was: neither Ottla's, nor a library's, nor Python's."""

from __future__ import annotations

import os
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from traceback import FrameSummary, StackSummary, TracebackException, extract_stack
from types import FrameType, TracebackType

import ottla
from ottla.errors import KafkaError

_OURS = f"{os.path.dirname(ottla.__file__)}{os.sep}"
# What users call is here, and raises what tells them of a mistake of theirs.
_FACES = tuple(
    _OURS + name.replace("/", os.sep)
    for name in (
        "explore/programs/",
        "explore/real/",
        "explore/faults/choice.py",
        "explore/decorated.py",
        "explore/exploring.py",
        "testing/",
    )
)
_SAID = (AssertionError, KafkaError, NotImplementedError, RuntimeError, TypeError, ValueError)
_NOT_THEIRS = (_OURS, f"{sysconfig.get_path('stdlib')}{os.sep}")
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


def _own(error: BaseException) -> tuple[str, int] | None:
    """The innermost line of the user's that an error went through."""
    own = [(file, line) for file, line in _frames(error.__traceback__) if is_own(file)]
    return own[-1] if own else None


def of_error(error: BaseException) -> str:
    """NAME:LINE where the user's code was when the error was raised; empty if it was not in that."""
    own = _own(error)
    return f"{os.path.basename(own[0])}:{own[1]}" if own else ""


def path_of_error(error: BaseException) -> str:
    """The same with the file's path, from the present folder on if it is in there."""
    own = _own(error)
    if own is None:
        return ""
    file = Path(own[0])
    here = Path.cwd()
    return f"{file.relative_to(here) if file.is_relative_to(here) else file}:{own[1]}"


def is_said(error: BaseException) -> bool:
    """Whether Ottla has raised it to tell a user of something, whose own line is all that they need."""
    innermost = [file for file, _ in _frames(error.__traceback__)][-1:]
    return isinstance(error, _SAID) and any(file.startswith(_FACES) for file in innermost)


def traceback_of(error: BaseException) -> str:
    """The traceback, without what of Ottla ran the user's code, nor what of it tells them of something."""
    told = TracebackException.from_exception(error)
    shown: list[tuple[TracebackException, BaseException]] = [(told, error)]
    while shown:
        one, its = shown.pop()
        _shorten(one.stack, is_said(its))
        for other, cause in ((one.__cause__, its.__cause__), (one.__context__, its.__context__)):
            if other is not None and cause is not None:
                shown.append((other, cause))
    return "".join(told.format())


def stack_of(frame: FrameType | None) -> str:
    """The stack of a frame, as `traceback_of` has that of an error."""
    stack = extract_stack(frame)
    _shorten(stack, is_said=True)
    return "".join(stack.format())


def _shorten(stack: StackSummary, is_said: bool) -> None:
    """Without frames of Ottla's, but for the last ones where no user is told of something by these."""

    def is_ours(frame: FrameSummary) -> bool:
        return frame.filename.startswith(_OURS)

    own = [at for at, frame in enumerate(stack) if is_own(frame.filename)]
    if not own:
        return
    end = len(stack)
    while is_ours(stack[end - 1]):
        end -= 1
    last = stack[end:]
    if is_said:
        end, last = own[-1] + 1, []
    stack[:] = [frame for frame in stack[own[0] : end] if not is_ours(frame)] + last
