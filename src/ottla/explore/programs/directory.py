"""The disk of a program: a real directory of its own, which outlives the program and not the run.

What a program has written is there after it was killed; what it had buffered is not: a file that a killed
program has open is never flushed. A machine that loses power, and with it what was not synced, is not
simulated for programs.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

# A program of a run is told another process id (`machine`).
_real_pid = os.getpid


def _all_of(pid: int) -> Path:
    """Where the directories of a run are that is a process with this number."""
    # Not tempfile's names: they would be draws of the run.
    return Path(tempfile.gettempdir(), f"ottla-explore-{pid:07}")


def remove_all_of(pid: int) -> None:
    """The run has ended, however it did."""
    shutil.rmtree(_all_of(pid), ignore_errors=True)


class Directory:
    """Made when it is first asked for. Its path is not the same in another run: let nothing depend on it."""

    def __init__(self, name: str) -> None:
        """ValueError for a name that is no directory's."""
        if name in ("", ".", "..") or "/" in name or "\0" in name:
            raise ValueError(f"{name!r} is no name of a directory")
        self._name = name
        self._path: Path | None = None

    @property
    def is_made(self) -> bool:
        return self._path is not None

    @property
    def path(self) -> Path:
        """The directory, which exists."""
        if self._path is None:
            folder = _all_of(_real_pid())
            folder.mkdir(mode=0o700, exist_ok=True)
            self._path = folder / self._name
            # A process that had this number before may have been killed with its worker.
            shutil.rmtree(self._path, ignore_errors=True)
            self._path.mkdir(mode=0o700)
        return self._path

    def empty(self) -> None:
        """All that is in it is gone."""
        if self._path is not None:
            shutil.rmtree(self._path)
            self._path.mkdir()
