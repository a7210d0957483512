"""What a broker on this machine costs, seen through /proc: its CPU seconds and its memory.

On a machine that the clients share, CPU seconds are steadier than wall-clock rates.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

PROC = Path("/proc")
TICKS_PER_S = os.sysconf("SC_CLK_TCK")
LISTEN_STATE = "0A"
# Fields of /proc/PID/stat, counted from the one after the command's closing parenthesis.
STAT_PARENT, STAT_USER, STAT_SYSTEM = 1, 11, 12


class Usage(NamedTuple):
    """CPU seconds used so far and resident memory, of some processes together."""

    cpu_s: float
    memory_bytes: int


def listeners(ports: Iterable[int]) -> frozenset[int]:
    """Ids of the processes that listen on these TCP ports; empty where we may not see them."""
    wanted = {f"socket:[{inode}]" for inode in _listening_inodes(frozenset(ports))}
    if not wanted:
        return frozenset()
    return frozenset(pid for pid in _pids() if wanted & _sockets(pid))


def _listening_inodes(ports: frozenset[int]) -> set[str]:
    inodes = set()
    for table in ("tcp", "tcp6"):
        try:
            lines = (PROC / "net" / table).read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            words = line.split()
            if words[3] == LISTEN_STATE and int(words[1].rpartition(":")[2], 16) in ports:
                inodes.add(words[9])
    return inodes


def _pids() -> list[int]:
    return [int(entry.name) for entry in PROC.iterdir() if entry.name.isdecimal()]


def _sockets(pid: int) -> set[str]:
    found = set()
    try:
        for descriptor in (PROC / str(pid) / "fd").iterdir():
            found.add(str(descriptor.readlink()))
    except OSError:
        # It has ended, or belongs to someone else; what was seen so far still counts.
        return found
    return found


def _stat(pid: int) -> list[str] | None:
    try:
        return (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None


def with_children(roots: Iterable[int]) -> frozenset[int]:
    """The processes and all that they started, directly or not."""
    children: dict[int, list[int]] = {}
    for pid in _pids():
        if stat := _stat(pid):
            children.setdefault(int(stat[STAT_PARENT]), []).append(pid)
    found: set[int] = set()
    todo = list(roots)
    while todo:
        pid = todo.pop()
        if pid not in found:
            found.add(pid)
            todo += children.get(pid, ())
    return frozenset(found)


def usage(roots: Iterable[int]) -> Usage | None:
    """What the processes and their children use, or None where there are none to see."""
    memory_kib = seen = 0
    cpu_s = 0.0
    for pid in with_children(roots):
        stat = _stat(pid)
        if stat is None:
            continue
        seen += 1
        # Ticks, of 10 ms, count threads that have ended, too; nanoseconds tell idle brokers apart.
        ticks = int(stat[STAT_USER]) + int(stat[STAT_SYSTEM])
        cpu_s += max(ticks / TICKS_PER_S, _scheduled_s(pid))
        memory_kib += _resident_kib(pid)
    return Usage(cpu_s, memory_kib * 1024) if seen else None


def _scheduled_s(pid: int) -> float:
    """What the scheduler has counted of the process's threads, in seconds; 0 where it does not tell."""
    total_ns = 0
    try:
        for thread in (PROC / str(pid) / "task").iterdir():
            total_ns += int((thread / "schedstat").read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return 0.0
    return total_ns / 1e9


def _resident_kib(pid: int) -> int:
    try:
        for line in (PROC / str(pid) / "status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1])
    except OSError:
        return 0
    return 0
