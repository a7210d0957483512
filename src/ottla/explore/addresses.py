"""The addresses of objects in memory, the same whenever a seed is run: sets of objects go by them.

Runs are forked from a process in which nothing changes between them (`child`). Linux moves a process about in
memory at random, unless it is told not to; where that is refused, as by the usual rules of a container,
addresses are the same in all runs of one command, and others in the next one. So they are in another folder
or environment, whose names lie in memory, too. Tasks and futures do not go by them: they are numbered
(`world.loop.NumberedFuture`).

What such a process does before it has imported a file must not hang on what others do just then: on files
that come and go in the folders of ``sys.path``, and on which modules are compiled already. Python looks up a
class's attributes in a table that goes by addresses and keeps names alive: one more moves all that comes.
"""

from __future__ import annotations

import ctypes
import os
import sys
from importlib.machinery import FileFinder, SourceFileLoader
from typing import Any

# personality(2).
ADDR_NO_RANDOMIZE = 0x0040000
LOOK = 0xFFFFFFFF
# An option of this interpreter (-X), whose value says why it has begun again: a kernel that forgets is not to
# have it do so for ever, nor is a folder whose modules are compiled anew each time. They are of one length.
AGAIN = "ottla-addresses"
FIXED, COMPILED = "1", "2"

# With what this process began, which what it imports may change: a `conftest.py` sets variables.
_environment = os.environ.copy()
try:
    _folder = os.getcwd()
except OSError:
    # It is removed already.
    _folder = os.curdir

_compiled: list[str] = []


def fix() -> None:
    """Begin again in a process whose addresses are not random. Nothing must have happened in this one yet."""
    if sys.platform != "linux" or AGAIN in sys._xoptions:
        return
    personality = ctypes.CDLL(None).personality
    before = personality(LOOK)
    # Also where they are fixed already: the command is in memory, too, and is to be as long for each process.
    if before >= 0 and personality(before | ADDR_NO_RANDOMIZE) >= 0:
        _begin_again(FIXED)


def _begin_again(why: str) -> None:
    rest = sys.orig_argv[3 if AGAIN in sys._xoptions else 1 :]
    os.chdir(_folder)
    os.execve(sys.executable, [sys.executable, "-X", f"{AGAIN}={why}", *rest], _environment)


class _Any:
    """The names of a folder's files, whatever they are: the folder is asked for each, and not listed."""

    def __contains__(self, name: object) -> bool:
        return True


def forget_names() -> None:
    """From now on imports keep no names of files that are not imported.

    Elsewhere than on Linux, where addresses are not the same anyway, folders may take `Queue` for `queue`.
    There the names are needed to tell them apart.
    """
    if sys.platform != "linux":
        return

    def fill_cache(self: Any) -> None:
        self._path_cache = self._relaxed_path_cache = any_name

    any_name = _Any()
    FileFinder._fill_cache = fill_cache  # type: ignore[attr-defined]


def notice_compiled() -> None:
    """From now on modules that are compiled, and kept for the next process, are noticed."""
    set_data = SourceFileLoader.set_data

    def noticed(self: SourceFileLoader, path: str, data: bytes, **how: Any) -> None:
        _compiled.append(path)
        set_data(self, path, data, **how)

    SourceFileLoader.set_data = noticed  # type: ignore[method-assign,assignment]


def begin_again_if_compiled() -> None:
    """Begin again once, in a process that finds all modules compiled, as all later ones do."""
    if _compiled and sys._xoptions.get(AGAIN) == FIXED:
        _begin_again(COMPILED)
