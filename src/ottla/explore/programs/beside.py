"""What runs beside a run: real threads that a library in C has started, and that talk to the real world.

No audit event tells of them, and what they do is not of the seed. Threads that only compute, as those of
NumPy, are let be: whoever calls them waits for what they find.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from ottla.explore.programs.refusing import NotSimulated

# Only Linux says here which threads and files a process has; elsewhere (macOS) nothing is found.
TASKS, FILES = Path("/proc/self/task"), Path("/proc/self/fd")
# By these a thread waits for others, and not by a file that a program has open. 0: eventfd and epoll.
TALKING = (stat.S_IFSOCK, stat.S_IFIFO, 0)


def _listed(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []


def _talks(fd: str) -> bool:
    try:
        # Not the name that it has in the folder: how long that is would move what a run has in memory.
        return stat.S_IFMT(os.fstat(int(fd)).st_mode) in TALKING
    except OSError:
        # That by which the folder was listed is closed.
        return False


def _talking() -> int:
    """How many sockets and pipes this process has."""
    return sum(map(_talks, _listed(FILES)))


def _name(task: str) -> str:
    try:
        return (TASKS / task / "comm").read_text().strip()
    except OSError:
        return task


class Beside:
    """What there was when the run began, which is no matter."""

    def __init__(self) -> None:
        self._threads = len(_listed(TASKS))
        self._talking = _talking()

    def check(self) -> None:
        """NotSimulated if real threads have begun since, with sockets or pipes."""
        threads = _listed(TASKS)
        # Nearly always there are no more, and this is all that it costs.
        if len(threads) <= self._threads or _talking() <= self._talking:
            return
        names = ", ".join(sorted({_name(task) for task in threads[self._threads :]}))
        raise NotSimulated(
            f"real threads with sockets or pipes of their own run beside the run ({names}): a library that "
            "is not in Python has started them, and they cannot be in virtual time. "
            "Test it in real time, with `ottla.explore.explore_real`"
        )
