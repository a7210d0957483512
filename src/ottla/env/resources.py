"""What this process takes of its machine, as far as the system tells."""

from __future__ import annotations

import os
import resource
from typing import NamedTuple


class Resources(NamedTuple):
    """``started_s`` is Unix time."""

    started_s: float
    resident_bytes: int
    open_files: int


# Fields of /proc/self/stat, counted from behind the name, which may have anything in it.
_STARTED, _RESIDENT = 19, 21


def of_process() -> Resources | None:
    """None where the system does not tell (Linux does)."""
    try:
        with open("/proc/self/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
        with open("/proc/stat", "rb") as file:
            booted_s = next(int(line.split()[1]) for line in file if line.startswith(b"btime "))
        # One is this look's own.
        open_files = len(os.listdir("/proc/self/fd")) - 1
    except (OSError, StopIteration, ValueError):
        return None
    started_s = booted_s + int(fields[_STARTED]) / os.sysconf("SC_CLK_TCK")
    return Resources(started_s, int(fields[_RESIDENT]) * resource.getpagesize(), open_files)


def cpu_s() -> float:
    """CPU time of all threads so far, in seconds."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime
