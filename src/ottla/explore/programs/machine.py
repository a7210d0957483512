"""What a program learns of the machine and the process that it runs in: those of the run, not the real ones.

A process id or a host's name goes into client ids and keys, and would make two runs of a seed differ.
"""

from __future__ import annotations

import os
import platform
import socket
import uuid
from collections.abc import Callable
from typing import Any

from ottla.explore.programs import current
from ottla.explore.world.loop import Process

# Process ids of programs, by the number of the machine: as many starts have one of their own.
STARTS = 1000
# An address of a network card that nobody has been given: "locally administered".
NODE = 0x02_00_00_00_00_00


# Pools of threads go by it, and a seed is to be the same run on every machine.
PROCESSORS = 4


def _number(process: Process) -> int:
    return int(process.machine.host.rpartition(".")[2])


def _pid(process: Process) -> int:
    """Each start of each program has a number of its own."""
    return _number(process) * STARTS + int(process.name.rpartition(".")[2])


def _parent(_process: Process) -> int:
    return 1


def _host(process: Process) -> str:
    return str(process.machine.name)


def _node(process: Process) -> int:
    return NODE + _number(process)


def _processors(_process: Process) -> int:
    return PROCESSORS


def _uname(process: Process) -> os.uname_result:
    return os.uname_result(("Linux", _host(process), "6.1.0", "#1 SMP", "x86_64"))


REPLACED: tuple[tuple[Any, str, Callable[[Process], Any]], ...] = (
    (os, "getpid", _pid),
    (os, "getppid", _parent),
    (os, "uname", _uname),
    (os, "cpu_count", _processors),
    (platform, "node", _host),
    (socket, "gethostname", _host),
    (socket, "getfqdn", _host),
    (uuid, "getnode", _node),
)


def _of_program(real: Callable[..., Any], its: Callable[[Process], Any]) -> Callable[..., Any]:
    def answer(*arguments: Any) -> Any:
        process = current.program()
        return real(*arguments) if process is None else its(process)

    answer.__wrapped__ = real  # type: ignore[attr-defined]
    return answer


def install() -> None:
    """Answer so from now on, in programs of runs; a second call changes nothing."""
    for owner, name, its in REPLACED:
        if not hasattr(getattr(owner, name), "__wrapped__"):
            setattr(owner, name, _of_program(getattr(owner, name), its))
    # It asks a library in C for the time.
    uuid._generate_time_safe = None  # type: ignore[attr-defined]
