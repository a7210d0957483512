"""What is wrong with a user's file, told in a line that says where, and not by a traceback through Ottla."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, redirect_stdout
from pathlib import Path
from types import ModuleType

from ottla.explore import importing
from ottla.explore.importing import UNKNOWN, Imported, Within
from ottla.explore.programs import lines


def module_of(file: str, place: Imported | None = None, within: Within = nullcontext) -> ModuleType:
    """The module of a file. SystemExit, with what to tell the user, where it cannot be imported."""
    path = Path(file).resolve()
    if path.is_dir():
        raise SystemExit(f"{file} is a folder: name a file of it")
    if not path.is_file():
        raise SystemExit(f"there is no file {file}")
    if path.suffix != ".py":
        raise SystemExit(f"{file} is no Python file: its name has to end with .py")
    with _told():
        return importing.load(path, place or UNKNOWN, within)


def import_conftests(file: str) -> None:
    """What pytest imports before a file, if that is there. SystemExit as from `module_of`."""
    path = Path(file).resolve()
    # What they print is not among what is answered.
    if path.is_file():
        with _told(), redirect_stdout(sys.stderr):
            importing.load_conftests(path)


@contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # noqa: BLE001 - users' code; `pytest.skip` raises no Exception
        raise SystemExit(told(error)) from None


def told(error: BaseException) -> str:
    """Why a file cannot be imported: where, and what. Where the user's own code failed, by which way too."""
    if isinstance(error, SyntaxError):
        return f"{error.filename}:{error.lineno}: {error.msg}"
    where = lines.path_of_error(error)
    if isinstance(error, ModuleNotFoundError) and where and error.name:
        return f"{where}: {error}. Is it installed, and if it is yours, on the path as for pytest?"
    if lines.is_said(error):
        return f"{where}: {error}"
    return lines.traceback_of(error).rstrip()
